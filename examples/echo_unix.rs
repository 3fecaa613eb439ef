//! Echo over a Unix-domain stream: the address is a path, all else as in TCP.
//!
//! It serves one client, removes the path and ends. A path left behind by an
//! interrupted run makes bind fail with EADDRINUSE; remove it by hand.
//!
//! Run it, here on its default path:
//!
//! ```text
//! cargo run --example echo_unix -- /tmp/echo_unix
//! ```
//!
//! Talk to it with `echo_unix_client`, in either language, or with
//! `nc -U /tmp/echo_unix`.

use std::fs;
use std::io;

use sock::{AF_UNIX, SOCK_STREAM, Socket};

mod common;

fn serve(server: &Socket) -> io::Result<()> {
    server.listen(None)?;
    println!("listening on {}", server.getsockname()?);

    // The peer has no name here: a client of a stream need not bind.
    let (sock, _) = server.accept()?;
    println!("connected");
    loop {
        let data = sock.recv(1024)?;
        if data.is_empty() {
            return Ok(());
        }
        println!("got: {}", common::text(&data));
        sock.sendall(&data)?;
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let path = common::path("/tmp/echo_unix");
    let server = Socket::new(AF_UNIX, SOCK_STREAM, 0)?;
    server.bind(&path)?;
    // Closing a socket does not remove the path that bind has made.
    let outcome = serve(&server);
    fs::remove_file(&path)?;
    outcome
}
