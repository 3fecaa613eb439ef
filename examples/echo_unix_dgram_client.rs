//! The client of the Unix datagram echo. It sends a greeting and prints the answer.
//!
//! A datagram can be answered only if its sender has an address. So the client binds a path
//! of its own, that of the server with the suffix `.client`, and removes it at the end.
//!
//! Start `echo_unix_dgram` first, in either language, then run it (the arguments shown
//! are the defaults):
//!
//! ```text
//! cargo run --example echo_unix_dgram_client -- /tmp/echo_unix_dgram
//! ```
//!
//! To see the datagram arrive, run `nc -l -u -U /tmp/echo_unix_dgram` as the server.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use sock::{AF_UNIX, SOCK_DGRAM, Socket};

mod common;

fn greet(sock: &Socket, path: &Path) -> io::Result<()> {
    sock.settimeout(Duration::from_secs(5))?;
    sock.sendto(b"Hello, neighbour!\n", path)?;
    let (answer, server) = sock.recvfrom(1024)?;
    println!("{server} answers: {}", common::text(&answer));
    Ok(())
}

fn main() -> common::Result {
    env_logger::init();
    let path = common::path("/tmp/echo_unix_dgram");
    let mut own = path.clone().into_os_string();
    own.push(".client");
    let own = Path::new(&own);

    let sock = Socket::new(AF_UNIX, SOCK_DGRAM, 0)?;
    sock.bind(own)?;
    // The path is removed in any case.
    let outcome = greet(&sock, &path);
    fs::remove_file(own)?;
    Ok(outcome?)
}
