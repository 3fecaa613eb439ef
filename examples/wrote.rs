//! A server with TCPServer and a request handler. You type the answers.
//!
//! It prints the address of each client and its message. The server creates a new handler
//! for each connection, and serves one connection after another until it is interrupted.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example wrote -- 127.0.0.1 9999
//! ```
//!
//! Connect with `wrote_client`, in either language, or with `nc 127.0.0.1 9999`. Use a new
//! connection for each line.

use std::io;

use sockserver::{StreamContext, StreamRequestHandler, TCPServer};

mod common;

struct Wrote;

impl StreamRequestHandler for Wrote {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let data = cx.request.recv(1024)?;
        println!("{} wrote:", cx.client_address);
        println!("{}", common::text(&data));
        // At end of input no answer is sent, and the connection is closed.
        if let Some(answer) = common::ask("> ")? {
            cx.request.sendall(format!("{answer}\n").as_bytes())?;
        }
        Ok(())
    }
}

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = TCPServer::builder(|| Wrote).allow_reuse_address(true).bind(address)?;
    println!("listening on {}", server.server_address());
    Ok(server.serve_forever()?)
}
