//! The client of the echo servers. It sends a greeting and prints the answer.
//!
//! Start a server such as `echo_tcp` or `echo_threading` first, then run it (the
//! arguments shown are the defaults):
//!
//! ```text
//! cargo run --example echo_tcp_client -- 127.0.0.1 9999
//! ```
//!
//! To act as the server, run `nc -l 127.0.0.1 9999` and type the answer.

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    sock.connect((host, port))?;
    // send may send only a part of the data. sendall sends everything.
    sock.sendall(b"Hello, world!\n")?;
    let answer = sock.recv(1024)?;
    println!("answer: {}", common::text(&answer));
    Ok(())
}
