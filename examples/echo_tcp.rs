//! An echo server over TCP.
//!
//! It prints the address of its client and the data it receives, and sends the data back.
//! It serves one client and exits.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example echo_tcp -- 127.0.0.1 9999
//! ```
//!
//! Connect with `echo_tcp_client`, in either language, or with `nc 127.0.0.1 9999`.

use sock::{AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    // Without this the port would be in use for a minute after a restart.
    server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
    server.bind((host, port))?;
    server.listen(None)?;
    // With port 0 the system chooses a free port. This prints it.
    println!("listening on {}", server.getsockname()?);

    let (sock, peer) = server.accept()?;
    println!("{peer} connected");
    loop {
        let data = sock.recv(1024)?;
        // recv returns no data only if the peer has closed its side.
        if data.is_empty() {
            break;
        }
        println!("got: {}", common::text(&data));
        sock.sendall(&data)?;
    }
    // Both sockets are closed when they go out of scope.
    Ok(())
}
