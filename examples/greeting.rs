//! A greeting server with a thread for each connection.
//!
//! It sends `hello!`, and answers each line with `Hello, NAME!` until `exit` or end of
//! file. It prints who connects and leaves. It can be restarted immediately on the same
//! port, because it sets SO_REUSEADDR before bind.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example greeting -- 127.0.0.1 9999
//! ```
//!
//! Connect with `greeting_client`, in either language, or with `nc 127.0.0.1 9999`.

use std::io::{self, BufRead};
use std::thread;

use sock::{AF_INET, Address, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

fn greet(sock: Socket, peer: &Address) -> io::Result<()> {
    println!("{peer} connected");
    sock.sendall(b"hello!\n")?;
    // A line may arrive in parts, or several lines at once. The reader reassembles them.
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

fn main() -> common::Result {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    // The side that closes first keeps the address in TIME_WAIT for a minute. After `exit` that is
    // the server.
    server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
    server.bind((host, port))?;
    server.listen(None)?;
    println!("listening on {}", server.getsockname()?);

    loop {
        let (sock, peer) = server.accept()?;
        // An error of one client must not end the server.
        thread::spawn(move || {
            if let Err(err) = greet(sock, &peer) {
                eprintln!("{peer}: {err}");
            }
        });
    }
}
