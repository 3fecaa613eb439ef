//! Echo over TCP: the server says who connected and what it got, and returns it.
//!
//! It serves one client and ends.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example echo_tcp -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `echo_tcp_client`, in either language, or with
//! `nc 127.0.0.1 9999`.

use std::io;

use sock::{AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    // Without this a restart within a minute finds the port still in use.
    server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
    server.bind((host, port))?;
    server.listen(None)?;
    // Port 0 asks the system for a free one; here is which it gave.
    println!("listening on {}", server.getsockname()?);

    let (sock, peer) = server.accept()?;
    println!("{peer} connected");
    loop {
        let data = sock.recv(1024)?;
        // recv returns nothing only when the peer has closed its side.
        if data.is_empty() {
            break;
        }
        println!("got: {}", common::text(&data));
        sock.sendall(&data)?;
    }
    // Both sockets are closed when they go out of scope.
    Ok(())
}
