//! A file server: waits for a hello, then sends a file in parts of 1024 bytes.
//!
//! It serves one client, prints the number of bytes sent, and exits. The end of the
//! connection marks the end of the file, so no length is sent.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example file_transfer -- 127.0.0.1 9999 README.md
//! ```
//!
//! Receive the file with `file_transfer_client`, in either language, or with
//! `echo hello | nc 127.0.0.1 9999 > copy`.

use std::fs::File;
use std::io::Read;

use sock::{AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port, path) = common::address_and("127.0.0.1", 9999, "FILE", "README.md");
    let mut file = File::open(&path).unwrap_or_else(|err| {
        common::refuse(format_args!("FILE '{path}' cannot be opened: {}", common::named(&err)))
    });

    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
    server.bind((host, port))?;
    server.listen(None)?;
    println!("listening on {}", server.getsockname()?);

    let (sock, peer) = server.accept()?;
    println!("{peer} says: {}", common::text(&sock.recv(1024)?));
    let mut part = [0; 1024];
    let mut sent = 0;
    loop {
        let length = file.read(&mut part)?;
        if length == 0 {
            break;
        }
        sock.sendall(&part[..length])?;
        sent += length;
    }
    println!("sent {sent} bytes");
    Ok(())
}
