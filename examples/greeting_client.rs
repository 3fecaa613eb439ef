//! The client of the greeting server: type names, be greeted.
//!
//! It ends with `exit` or at the end of the input.
//!
//! Start `greeting` first, in either language, then run:
//!
//! ```text
//! cargo run --example greeting_client -- 127.0.0.1 9999
//! ```
//!
//! To play the server yourself: `nc -l 127.0.0.1 9999`, and greet in lines.

use std::io::{self, BufRead};

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let sock = sock::create_connection(address)?;
    let mut lines = sock.makefile_rb();
    let mut line = String::new();
    lines.read_line(&mut line)?;
    println!("{}", line.trim_end());
    while let Some(name) = common::ask("> ")? {
        sock.sendall(format!("{name}\n").as_bytes())?;
        // After `exit` there is no line any more, only the end.
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            break;
        }
        println!("{}", line.trim_end());
    }
    Ok(())
}
