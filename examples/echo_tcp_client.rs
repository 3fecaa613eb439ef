//! The client of the echo servers: sends one greeting and prints the answer.
//!
//! Start one of the servers first (`echo_tcp` or `echo_threading`), then run:
//!
//! ```text
//! cargo run --example echo_tcp_client -- 127.0.0.1 9999
//! ```
//!
//! To play the server yourself: `nc -l 127.0.0.1 9999`, and type the answer.

use std::io;

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    sock.connect((host, port))?;
    // send may take only a part of the bytes; sendall goes on to the end.
    sock.sendall(b"Hello, world!\n")?;
    let answer = sock.recv(1024)?;
    println!("answer: {}", common::text(&answer));
    Ok(())
}
