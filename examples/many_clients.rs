//! Three concurrent clients for the servers that serve several at once.
//!
//! All of them connect before the first one sends a line, and the last one sends first. A
//! server that serves one client at a time would never answer it. Each answer is printed.
//!
//! Start `threads`, `threads_by_hand`, `forks` or `forks_by_hand` first, in either
//! language, then run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example many_clients -- 127.0.0.1 9999
//! ```
//!
//! `nc 127.0.0.1 9999` in three terminals does the same by hand.

use std::io::{self, BufRead};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    let mut clients = Vec::new();
    for number in 1..=3 {
        clients.push((number, sock::create_connection((host.as_str(), port))?));
    }

    for (number, sock) in clients.into_iter().rev() {
        let line = format!("hello from client {number}\n");
        sock.sendall(line.as_bytes())?;
        let mut answer = String::new();
        sock.makefile_rb().read_line(&mut answer)?;
        println!("client {number}: {}", answer.trim_end());
        if answer != line.to_uppercase() {
            return Err(io::Error::other(format!("client {number} received a wrong answer")).into());
        }
    }
    Ok(())
}
