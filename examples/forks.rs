//! A process for each client, by ForkingTCPServer.
//!
//! Each line comes back in capitals. `forks_by_hand` is the same server without
//! socketserver. It runs until you interrupt it.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example forks -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `many_clients`, in either language, or with
//! `nc 127.0.0.1 9999` from several terminals at once.

use std::io::{self, BufRead, Write};

use sockserver::{ForkingTCPServer, StreamContext, StreamRequestHandler};

mod common;

struct Upper;

impl StreamRequestHandler for Upper {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        while cx.rfile.read_until(b'\n', &mut line)? > 0 {
            println!("{}: {}", cx.client_address, common::text(&line));
            cx.wfile.write_all(&line.to_ascii_uppercase())?;
            line.clear();
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    // The server reaps its children itself, as they end.
    let server = ForkingTCPServer::builder(|| Upper).allow_reuse_address(true).bind(address)?;
    println!("listening on {}", server.server_address());
    server.serve_forever()
}
