//! The client of `fixed` with every error caught and named by its errno.
//!
//! Whatever happens, the socket is closed in the end. Its exit code is 0 when
//! all went well and 1 otherwise; run it without a server to see ECONNREFUSED.
//!
//! Start `careful` first, in either language, then run:
//!
//! ```text
//! cargo run --example careful_client -- 127.0.0.1 9999
//! ```
//!
//! To play the server yourself: `nc -l 127.0.0.1 9999`; wait five seconds with
//! the greeting to see the time-out.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn greet(sock: &Socket, address: (String, u16)) -> io::Result<()> {
    // One limit for each call from here on, connect among them.
    sock.settimeout(Duration::from_secs(5))?;
    sock.connect(address)?;
    let said = sock.recv(1024)?;
    // An end of file is no error to the system, but it is one to us.
    if said.is_empty() {
        return Err(io::Error::other("the server left without a word"));
    }
    println!("server says: {}", common::text(&said));
    sock.sendall(b"Hello, server!\n")
}

fn run(address: (String, u16)) -> io::Result<()> {
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    let outcome = greet(&sock, address);
    // Dropping a socket closes it as well, but keeps what close says to itself.
    let closed = sock.close();
    println!("socket closed");
    outcome.and(closed)
}

fn main() -> ExitCode {
    env_logger::init();
    match run(common::address("127.0.0.1", 9999)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {}", common::named(&err));
            ExitCode::FAILURE
        }
    }
}
