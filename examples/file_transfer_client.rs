//! The client of the file transfer: says hello and writes what it is sent.
//!
//! On a terminal it shows how far it is.
//!
//! Start `file_transfer` first, in either language, then run:
//!
//! ```text
//! cargo run --example file_transfer_client -- 127.0.0.1 9999 received_file
//! ```
//!
//! To send it a file by hand: `nc -l -N 127.0.0.1 9999 < README.md`.

use std::fs::File;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressStyle};
use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port, path) = common::address_and("127.0.0.1", 9999, "FILE", "received_file");
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    sock.connect((host, port))?;
    sock.sendall(b"hello\n")?;

    // Drawn on standard error, and only for somebody who watches.
    let style = ProgressStyle::with_template("{pos} bytes {spinner}").map_err(io::Error::other)?;
    let bar = ProgressBar::new_spinner().with_style(style.tick_chars("|/-\\ "));
    let mut file = File::create(&path)?;
    loop {
        // A piece received need not be a piece sent: TCP keeps the order of
        // the bytes, not the borders between them.
        let piece = sock.recv(1024)?;
        if piece.is_empty() {
            break;
        }
        file.write_all(&piece)?;
        bar.inc(piece.len() as u64);
    }
    bar.finish();
    println!("received {} bytes into {path}", bar.position());
    Ok(())
}
