//! The client of the interactive talk: type a message, see the answer.
//!
//! It ends with `q`, at the end of the input, or when the server leaves.
//!
//! Start `talk` in another terminal first, in either language, then run:
//!
//! ```text
//! cargo run --example talk_client -- 127.0.0.1 9999
//! ```
//!
//! Any peer that answers in lines will do: `nc -l 127.0.0.1 9999` is one.

use std::io;

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    sock.connect((host, port))?;
    while let Some(message) = common::ask("> ")?.filter(|message| message != "q") {
        // The newline makes even an empty message one that arrives: sending no
        // bytes sends nothing at all.
        sock.sendall(format!("{message}\n").as_bytes())?;
        let answer = sock.recv(1024)?;
        if answer.is_empty() {
            break;
        }
        println!("{}", common::text(&answer));
    }
    Ok(())
}
