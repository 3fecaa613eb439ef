//! The client of `wrote`: opens a new connection for each line you type.
//!
//! It ends with `q` or at the end of the input.
//!
//! Start `wrote` in another terminal first, in either language, then run:
//!
//! ```text
//! cargo run --example wrote_client -- 127.0.0.1 9999
//! ```
//!
//! To play the server yourself, for one line: `nc -l 127.0.0.1 9999`.

use std::io;

mod common;

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    while let Some(line) = common::ask("> ")?.filter(|line| line != "q") {
        // The server reads once and answers once, so a connection is good for
        // one line only.
        let sock = sock::create_connection((host.as_str(), port))?;
        sock.sendall(format!("{line}\n").as_bytes())?;
        let answer = sock.recv(1024)?;
        println!("{}", common::text(&answer));
    }
    Ok(())
}
