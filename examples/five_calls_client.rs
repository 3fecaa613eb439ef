//! The calls of every TCP client: socket, connect, close.
//!
//! It prints its own address, which the system chose in connect, and which the server
//! prints as that of its peer.
//!
//! Start `five_calls` first, in either language, then run it (the arguments shown are
//! the defaults):
//!
//! ```text
//! cargo run --example five_calls_client -- 127.0.0.1 9998
//! ```
//!
//! It works with any TCP server, for example `nc -l 127.0.0.1 9998`.

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9998);
    // A client needs no bind, because connect assigns an address to the socket.
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    sock.connect((host, port))?;
    println!("connected from {}", sock.getsockname()?);
    Ok(sock.close()?)
}
