//! The client of the Unix stream echo. It sends a greeting and prints the answer.
//!
//! Start `echo_unix` first, in either language, then run it (the arguments shown are
//! the defaults):
//!
//! ```text
//! cargo run --example echo_unix_client -- /tmp/echo_unix
//! ```
//!
//! To act as the server, run `nc -l -U /tmp/echo_unix` and type the answer.

use sock::{AF_UNIX, SOCK_STREAM, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let path = common::path("/tmp/echo_unix");
    let sock = Socket::new(AF_UNIX, SOCK_STREAM, 0)?;
    sock.connect(path)?;
    sock.sendall(b"Hello, neighbour!\n")?;
    let answer = sock.recv(1024)?;
    println!("answer: {}", common::text(&answer));
    Ok(())
}
