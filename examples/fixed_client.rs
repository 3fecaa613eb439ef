//! The client of `fixed`. It prints the server's greeting and sends its own.
//!
//! It handles no errors: the first one ends the program. `careful_client` is the same program
//! with complete error handling.
//!
//! Start `fixed` first, in either language, then run it (the arguments shown are the
//! defaults):
//!
//! ```text
//! cargo run --example fixed_client -- 127.0.0.1 9999
//! ```
//!
//! To act as the server, run `nc -l 127.0.0.1 9999` and type a greeting.

mod common;

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let sock = sock::create_connection(address)?;
    let greeting = sock.recv(1024)?;
    println!("server says: {}", common::text(&greeting));
    Ok(sock.sendall(b"Hello, server!\n")?)
}
