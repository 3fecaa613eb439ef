//! A Unix-domain echo that knows its clients: the system tells which process of
//! which user is at the other end, and only one's own are served.
//!
//! No password could do that: nobody can pretend to be somebody else here. It
//! serves one client, removes the path and ends. A path left behind by an
//! interrupted run makes bind fail with EADDRINUSE; remove it by hand.
//!
//! Run it, here on its default path:
//!
//! ```text
//! cargo run --example peer_credentials -- /tmp/peer_credentials
//! ```
//!
//! Talk to it with `echo_unix_client /tmp/peer_credentials`, in either language,
//! or with `nc -U /tmp/peer_credentials`.

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
        return sock.sendall(b"you are not my user\n");
    }
    let data = sock.recv(1024)?;
    println!("got: {}", common::text(&data));
    sock.sendall(&data)
}

fn main() -> io::Result<()> {
    env_logger::init();
    let path = common::path("/tmp/peer_credentials");
    let server = Socket::new(AF_UNIX, SOCK_STREAM, 0)?;
    server.bind(&path)?;
    // Closing a socket does not remove the path that bind has made.
    let outcome = serve(&server);
    fs::remove_file(&path)?;
    outcome
}
