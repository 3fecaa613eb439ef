//! A minimal TCP server with a fixed greeting.
//!
//! It greets one client, prints the answer, and exits. It handles no errors: the first one ends
//! the program. `careful` is the same program with complete error handling.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example fixed -- 127.0.0.1 9999
//! ```
//!
//! Connect with `fixed_client`, in either language, or with `nc 127.0.0.1 9999`.

mod common;

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    // One call creates the socket, sets SO_REUSEADDR, binds and listens.
    let server = sock::create_server(address)?;
    println!("listening on {}", server.getsockname()?);

    let (sock, peer) = server.accept()?;
    println!("{peer} connected");
    sock.sendall(b"Hello, client!\n")?;
    let answer = sock.recv(1024)?;
    println!("client says: {}", common::text(&answer));
    Ok(())
}
