//! A greeting server with a thread for each connection.
//!
//! It sends `hello!`, then answers `Hello, NAME!` to each line until `exit` or
//! the end of file. Interrupt it and start it again at once: SO_REUSEADDR, set
//! before bind, lets it have its port back.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example greeting -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `greeting_client`, in either language, or with
//! `nc 127.0.0.1 9999`.

use std::io::{self, BufRead};
use std::thread;

use sock::{AF_INET, Address, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

fn greet(sock: Socket, peer: &Address) -> io::Result<()> {
    println!("{peer} connected");
    sock.sendall(b"hello!\n")?;
    // A line may come in pieces, or several at once; the reader puts them
    // together.
    for line in sock.makefile_rb().split(b'\n') {
        let name = common::text(&line?);
        if name == "exit" {
            break;
        }
        sock.sendall(format!("Hello, {name}!\n").as_bytes())?;
    }
    println!("{peer} left");
    Ok(())
}

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    // Whoever closes first keeps the address for a minute in TIME_WAIT, and
    // after `exit` that is the server.
    server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
    server.bind((host, port))?;
    server.listen(None)?;
    println!("listening on {}", server.getsockname()?);

    loop {
        let (sock, peer) = server.accept()?;
        // What goes wrong with one client must not end the server.
        thread::spawn(move || {
            if let Err(err) = greet(sock, &peer) {
                eprintln!("{peer}: {err}");
            }
        });
    }
}
