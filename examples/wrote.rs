//! TCPServer and a request handler: prints who wrote what, you type the answer.
//!
//! The server makes a new handler for each connection and serves one connection
//! after the other, until you interrupt it.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example wrote -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `wrote_client`, in either language, or with
//! `nc 127.0.0.1 9999`, once for each line.

use std::io;

use sockserver::{StreamContext, StreamRequestHandler, TCPServer};

mod common;

struct Wrote;

impl StreamRequestHandler for Wrote {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let data = cx.request.recv(1024)?;
        println!("{} wrote:", cx.client_address);
        println!("{}", common::text(&data));
        // At the end of the input there is nothing more to say, and the client
        // finds its connection closed.
        if let Some(answer) = common::ask("> ")? {
            cx.request.sendall(format!("{answer}\n").as_bytes())?;
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    let server = TCPServer::builder(|| Wrote).allow_reuse_address(true).bind(address)?;
    println!("listening on {}", server.server_address());
    server.serve_forever()
}
