//! The client of `fixed`: prints the server's greeting and sends its own.
//!
//! What can go wrong is left to the language; `careful_client` is the same
//! program with every error caught.
//!
//! Start `fixed` first, in either language, then run:
//!
//! ```text
//! cargo run --example fixed_client -- 127.0.0.1 9999
//! ```
//!
//! To play the server yourself: `nc -l 127.0.0.1 9999`, and type a greeting.

use std::io;

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let sock = sock::create_connection(address)?;
    let said = sock.recv(1024)?;
    println!("server says: {}", common::text(&said));
    sock.sendall(b"Hello, server!\n")
}
