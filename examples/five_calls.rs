//! The five calls of every TCP server: socket, bind, listen, accept, print.
//!
//! It prints the address of the first one who connects, and ends. Start it again
//! at once and bind fails with EADDRINUSE, for a minute: `greeting` knows the cure.
//! That is why its port is not that of the others.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example five_calls -- 127.0.0.1 9998
//! ```
//!
//! Talk to it with `five_calls_client`, in either language, or with
//! `nc 127.0.0.1 9998`.

use std::io;

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9998);
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    server.bind((host, port))?;
    server.listen(None)?;
    // Port 0 asks the system for a free one; here is which it gave.
    println!("listening on {}", server.getsockname()?);

    // accept waits, and returns a new socket for this one connection; the
    // listening one would go on to listen.
    let (sock, peer) = server.accept()?;
    println!("{peer}");

    sock.close()?;
    server.close()
}
