//! The client of the greeting server. Type names to be greeted.
//!
//! It prints the greetings, and ends after `exit` or at end of input.
//!
//! Start `greeting` first, in either language, then run it (the arguments shown are the
//! defaults):
//!
//! ```text
//! cargo run --example greeting_client -- 127.0.0.1 9999
//! ```
//!
//! To act as the server, run `nc -l 127.0.0.1 9999` and type greetings.

use std::io::BufRead;

mod common;

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let sock = sock::create_connection(address)?;
    let mut lines = sock.makefile_rb();
    let mut line = String::new();
    lines.read_line(&mut line)?;
    println!("{}", line.trim_end());
    while let Some(name) = common::ask("> ")? {
        sock.sendall(format!("{name}\n").as_bytes())?;
        // After `exit` no more line follows, only end of file.
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            break;
        }
        println!("{}", line.trim_end());
    }
    Ok(())
}
