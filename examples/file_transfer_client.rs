//! The client of the file transfer. It sends a hello and writes the file that it receives.
//!
//! On a terminal it shows the progress. At the end it prints the number of bytes received.
//!
//! Start `file_transfer` first, in either language, then run it (the arguments shown
//! are the defaults):
//!
//! ```text
//! cargo run --example file_transfer_client -- 127.0.0.1 9999 received_file
//! ```
//!
//! To act as the server, run `nc -l -N 127.0.0.1 9999 < README.md`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn progress(got: usize, sign: &str) {
    // Written to standard error, and only on a terminal.
    if io::stderr().is_terminal() {
        eprint!("\r{got} bytes {sign}");
    }
}

fn main() -> common::Result {
    env_logger::init();
    let (host, port, path) = common::address_and("127.0.0.1", 9999, "FILE", "received_file");
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    sock.connect((host, port))?;
    sock.sendall(b"hello\n")?;

    let mut got = 0;
    let mut file = File::create(&path)?;
    loop {
        // The received parts need not match the sent ones. TCP keeps the order of the bytes, but
        // no boundaries.
        let part = sock.recv(1024)?;
        if part.is_empty() {
            break;
        }
        file.write_all(&part)?;
        got += part.len();
        progress(got, ["|", "/", "-", "\\"][got / 1024 % 4]);
    }
    progress(got, " \n");
    println!("received {got} bytes into {path}");
    Ok(())
}
