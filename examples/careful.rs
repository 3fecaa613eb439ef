//! The server of `fixed` with complete error handling.
//!
//! Every error is printed with the name of its errno, and the sockets are closed in any
//! case. The exit code is 0 on success and 1 after an error. Start it twice to see
//! EADDRINUSE.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example careful -- 127.0.0.1 9999
//! ```
//!
//! Connect with `careful_client`, in either language, or with `nc 127.0.0.1 9999`. Stop nc
//! without sending a line to see an error.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use sock::{AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

fn greet(sock: &Socket) -> io::Result<()> {
    // A client that sends nothing must not block the server indefinitely.
    sock.settimeout(Duration::from_secs(5))?;
    sock.sendall(b"Hello, client!\n")?;
    let answer = sock.recv(1024)?;
    // An end of file is not a system error, but here it is unexpected.
    if answer.is_empty() {
        return Err(io::Error::other("the client disconnected without an answer"));
    }
    println!("client says: {}", common::text(&answer));
    Ok(())
}

fn serve(server: &Socket, address: &(String, u16)) -> io::Result<()> {
    server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
    server.bind(address)?;
    server.listen(None)?;
    println!("listening on {}", server.getsockname()?);

    let (sock, peer) = server.accept()?;
    println!("{peer} connected");
    let outcome = greet(&sock);
    // Dropping a socket closes it too, but ignores errors of close.
    let closed = sock.close();
    println!("connection closed");
    outcome.and(closed)
}

fn run(address: &(String, u16)) -> io::Result<()> {
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    let outcome = serve(&server, address);
    let closed = server.close();
    println!("server closed");
    outcome.and(closed)
}

fn main() -> ExitCode {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    match run(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let (host, port) = address;
            eprintln!("error: {host}:{port}: {}", common::named(&err));
            ExitCode::FAILURE
        }
    }
}
