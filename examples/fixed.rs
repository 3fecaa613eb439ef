//! A TCP server with a fixed greeting, as short as it can be.
//!
//! It greets one client, prints what that one says, and ends. What can go wrong
//! is left to the language; `careful` is the same program with every error
//! caught.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example fixed -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `fixed_client`, in either language, or with
//! `nc 127.0.0.1 9999`.

use std::io;

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    // A listening socket in one call: bound, SO_REUSEADDR set, listening.
    let server = sock::create_server(address)?;
    println!("listening on {}", server.getsockname()?);

    let (sock, peer) = server.accept()?;
    println!("{peer} connected");
    sock.sendall(b"Hello, client!\n")?;
    let said = sock.recv(1024)?;
    println!("client says: {}", common::text(&said));
    Ok(())
}
