//! The client of the interactive talk. Type a message, and the answer is printed.
//!
//! It ends after `q`, at end of input, or when the server disconnects.
//!
//! Start `talk` in another terminal first, in either language, then run it (the
//! arguments shown are the defaults):
//!
//! ```text
//! cargo run --example talk_client -- 127.0.0.1 9999
//! ```
//!
//! To act as the server, run `nc -l 127.0.0.1 9999` and type answers.

use sock::{AF_INET, SOCK_STREAM, Socket};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    sock.connect((host, port))?;
    while let Some(message) = common::ask("> ")?.filter(|message| message != "q") {
        // With the newline even an empty message is sent. Sending zero bytes sends nothing.
        sock.sendall(format!("{message}\n").as_bytes())?;
        let answer = sock.recv(1024)?;
        if answer.is_empty() {
            break;
        }
        println!("{}", common::text(&answer));
    }
    Ok(())
}
