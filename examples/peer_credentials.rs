//! A Unix stream echo that serves only clients of its own user.
//!
//! The kernel reports the process, user and group at the other end of the connection. These
//! cannot be forged, so no password is needed. The server prints them, serves one client,
//! removes the path and exits. If an interrupted run has left the path behind, bind fails
//! with EADDRINUSE. Remove the path by hand then.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example peer_credentials -- /tmp/peer_credentials
//! ```
//!
//! Connect with `echo_unix_client /tmp/peer_credentials`, in either language, or with
//! `nc -U /tmp/peer_credentials`.

use std::fs;
use std::io;

use sock::{AF_UNIX, Credentials, SOCK_STREAM, Socket};

mod common;

fn serve(server: &Socket) -> io::Result<()> {
    server.listen(None)?;
    println!("listening on {}", server.getsockname()?);

    let (sock, _) = server.accept()?;
    let peer = sock.peer_credentials()?;
    let pid = peer.pid.map_or("?".into(), |pid| pid.to_string());
    println!("process {pid} of user {} and group {} connected", peer.uid, peer.gid);
    if peer.uid != Credentials::current().uid {
        return sock.sendall(b"access denied: another user\n");
    }
    let data = sock.recv(1024)?;
    println!("got: {}", common::text(&data));
    sock.sendall(&data)
}

fn main() -> common::Result {
    env_logger::init();
    let path = common::path("/tmp/peer_credentials");
    let server = Socket::new(AF_UNIX, SOCK_STREAM, 0)?;
    server.bind(&path)?;
    // Closing a socket does not remove the path that bind created.
    let outcome = serve(&server);
    fs::remove_file(&path)?;
    Ok(outcome?)
}
