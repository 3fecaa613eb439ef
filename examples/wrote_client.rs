//! The client of `wrote`, which opens a new connection for each line that you type.
//!
//! It prints the answers, and ends after `q` or at end of input.
//!
//! Start `wrote` in another terminal first, in either language, then run it (the
//! arguments shown are the defaults):
//!
//! ```text
//! cargo run --example wrote_client -- 127.0.0.1 9999
//! ```
//!
//! To act as the server for one line, run `nc -l 127.0.0.1 9999`.

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port) = common::address("127.0.0.1", 9999);
    while let Some(line) = common::ask("> ")?.filter(|line| line != "q") {
        // The server reads once and answers once, so each line needs a new connection.
        let sock = sock::create_connection((host.as_str(), port))?;
        sock.sendall(format!("{line}\n").as_bytes())?;
        let answer = sock.recv(1024)?;
        println!("{}", common::text(&answer));
    }
    Ok(())
}
