//! The calls of every TCP client: socket, connect, print, close.
//!
//! It prints its own address, which the system chose when it connected, and
//! which the server prints as that of its peer.
//!
//! Start `five_calls` first, in either language, then run:
//!
//! ```text
//! cargo run --example five_calls_client -- 127.0.0.1 9998
//! ```
//!
//! Any server will do for it: `nc -l 127.0.0.1 9998` is one.

use std::io;

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9998);
    // A client needs no bind: connect gives the socket an address of its own.
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    sock.connect((host, port))?;
    println!("connected from {}", sock.getsockname()?);
    sock.close()
}
