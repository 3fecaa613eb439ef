//! An interactive server that prints each message in capitals. You type the answers.
//!
//! It serves one client until that client disconnects.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example talk -- 127.0.0.1 9999
//! ```
//!
//! Connect from another terminal with `talk_client`, in either language, or with
//! `nc 127.0.0.1 9999`.

use sock::{AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true)?;
    server.bind((host, port))?;
    server.listen(None)?;
    println!("listening on {}", server.getsockname()?);

    let (sock, peer) = server.accept()?;
    println!("{peer} connected");
    loop {
        let message = sock.recv(1024)?;
        if message.is_empty() {
            break;
        }
        println!("{}", common::text(&message).to_uppercase());
        let Some(answer) = common::ask("> ")? else {
            break;
        };
        // With the newline even an empty answer is sent. Sending zero bytes sends nothing.
        sock.sendall(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}
