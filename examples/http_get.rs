//! A minimal HTTP client. It fetches a page and prints its status and its body.
//!
//! Start `http_page` first, in either language, then run it (the arguments shown are
//! the defaults):
//!
//! ```text
//! cargo run --example http_get -- 127.0.0.1 8000 /
//! ```
//!
//! It works with any plain HTTP server. To act as the server, run `nc -l 127.0.0.1 8000`
//! and type `HTTP/1.0 200 OK`, an empty line and a page.

use std::io::{BufRead, Read};

mod common;

fn main() -> common::Result {
    env_logger::init();
    let (host, port, target) = common::address_and("127.0.0.1", 8000, "PATH", "/");
    let sock = sock::create_connection((host.as_str(), port))?;
    // In HTTP/1.0 the end of the connection marks the end of the page.
    sock.sendall(format!("GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;

    let mut file = sock.makefile_rb();
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line)?;
    println!("status: {}", common::text(&line));
    // The headers end with an empty line.
    while !matches!(line.as_slice(), b"" | b"\n" | b"\r\n") {
        line.clear();
        file.read_until(b'\n', &mut line)?;
    }
    let mut page = Vec::new();
    file.read_to_end(&mut page)?;
    print!("{}", String::from_utf8_lossy(&page));
    Ok(())
}
