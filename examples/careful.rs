//! The server of `fixed` with every error caught and named by its errno.
//!
//! Whatever happens, the sockets are closed in the end. Its exit code is 0 when
//! all went well and 1 otherwise; start it twice to see EADDRINUSE.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example careful -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `careful_client`, in either language, or with
//! `nc 127.0.0.1 9999`; leave nc at once to see an error.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use sock::{AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

fn greet(sock: &Socket) -> io::Result<()> {
    // A peer who connects and then says nothing must not hold us for ever.
    sock.settimeout(Duration::from_secs(5))?;
    sock.sendall(b"Hello, client!\n")?;
    let said = sock.recv(1024)?;
    // An end of file is no error to the system, but it is one to us.
    if said.is_empty() {
        return Err(io::Error::other("the client left without a word"));
    }
    println!("client says: {}", common::text(&said));
    Ok(())
}

fn serve(server: &Socket, address: (String, u16)) -> io::Result<()> {
    server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
    server.bind(address)?;
    server.listen(None)?;
    println!("listening on {}", server.getsockname()?);

    let (sock, peer) = server.accept()?;
    println!("{peer} connected");
    let outcome = greet(&sock);
    // Dropping a socket closes it as well, but keeps what close says to itself.
    let closed = sock.close();
    println!("connection closed");
    outcome.and(closed)
}

fn run(address: (String, u16)) -> io::Result<()> {
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    let outcome = serve(&server, address);
    let closed = server.close();
    println!("server closed");
    outcome.and(closed)
}

fn main() -> ExitCode {
    env_logger::init();
    match run(common::address("127.0.0.1", 9999)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {}", common::named(&err));
            ExitCode::FAILURE
        }
    }
}
