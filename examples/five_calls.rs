//! The calls of every TCP server: socket, bind, listen, accept, close.
//!
//! It prints the address of its first client and exits. If it is started again immediately,
//! bind fails with EADDRINUSE for a minute. `greeting` shows how to avoid that. For this
//! reason its port differs from that of the other programs.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example five_calls -- 127.0.0.1 9998
//! ```
//!
//! Connect with `five_calls_client`, in either language, or with `nc 127.0.0.1 9998`.

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9998);
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    server.bind((host, port))?;
    server.listen(None)?;
    // With port 0 the system chooses a free port. This prints it.
    println!("listening on {}", server.getsockname()?);

    // accept blocks, and returns a new socket for this connection. The listening socket could
    // accept more.
    let (sock, peer) = server.accept()?;
    println!("{peer}");

    sock.close()?;
    Ok(server.close()?)
}
