//! The client of `fixed` with complete error handling.
//!
//! Every error is printed with the name of its errno, and the socket is closed in any case.
//! The exit code is 0 on success and 1 after an error. Run it without a server to see
//! ECONNREFUSED.
//!
//! Start `careful` first, in either language, then run it (the arguments shown are the
//! defaults):
//!
//! ```text
//! cargo run --example careful_client -- 127.0.0.1 9999
//! ```
//!
//! To act as the server, run `nc -l 127.0.0.1 9999`. Send nothing for five seconds to see
//! the timeout.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn greet(sock: &Socket, address: &(String, u16)) -> io::Result<()> {
    // A timeout for each of the following calls, including connect.
    sock.settimeout(Duration::from_secs(5))?;
    sock.connect(address)?;
    let greeting = sock.recv(1024)?;
    // An end of file is not a system error, but here it is unexpected.
    if greeting.is_empty() {
        return Err(io::Error::other("the server disconnected without a greeting"));
    }
    println!("server says: {}", common::text(&greeting));
    sock.sendall(b"Hello, server!\n")
}

fn run(address: &(String, u16)) -> io::Result<()> {
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    let outcome = greet(&sock, address);
    // Dropping a socket closes it too, but ignores errors of close.
    let closed = sock.close();
    println!("socket closed");
    outcome.and(closed)
}

fn main() -> ExitCode {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    match run(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let (host, port) = address;
            eprintln!("error: {host}:{port}: {}", common::named(&err));
            ExitCode::FAILURE
        }
    }
}
