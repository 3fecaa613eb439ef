//! An echo server over a Unix stream socket, whose address is a path.
//!
//! It prints the data it receives, serves one client, removes the path and exits. If an
//! interrupted run has left the path behind, bind fails with EADDRINUSE. Remove the path by
//! hand then.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example echo_unix -- /tmp/echo_unix
//! ```
//!
//! Connect with `echo_unix_client`, in either language, or with `nc -U /tmp/echo_unix`.

use std::fs;
use std::io;

use sock::{AF_UNIX, SOCK_STREAM, Socket};

mod common;

fn serve(server: &Socket) -> io::Result<()> {
    server.listen(None)?;
    println!("listening on {}", server.getsockname()?);

    // The peer has no address, because a stream client need not bind.
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

fn main() -> common::Result {
    env_logger::init();
    let path = common::path("/tmp/echo_unix");
    let server = Socket::new(AF_UNIX, SOCK_STREAM, 0)?;
    server.bind(&path)?;
    // Closing a socket does not remove the path that bind created.
    let outcome = serve(&server);
    fs::remove_file(&path)?;
    Ok(outcome?)
}
