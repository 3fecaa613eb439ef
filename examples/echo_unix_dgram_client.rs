//! The client of the Unix-domain datagram echo.
//!
//! A datagram can be answered only if its sender has a name, so the client binds
//! a path of its own, the server's with `.client` behind it, and removes it.
//!
//! Start `echo_unix_dgram` first, in either language, then run:
//!
//! ```text
//! cargo run --example echo_unix_dgram_client -- /tmp/echo_unix_dgram
//! ```
//!
//! To see the datagram arrive: `nc -l -u -U /tmp/echo_unix_dgram`.

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

fn main() -> io::Result<()> {
    env_logger::init();
    let path = common::path("/tmp/echo_unix_dgram");
    let mut own = path.clone().into_os_string();
    own.push(".client");
    let own = Path::new(&own);

    let sock = Socket::new(AF_UNIX, SOCK_DGRAM, 0)?;
    sock.bind(own)?;
    // Whatever happens, the path goes.
    let outcome = greet(&sock, &path);
    fs::remove_file(own)?;
    outcome
}
