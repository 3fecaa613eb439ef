//! A server with a process for each client, with ForkingTCPServer.
//!
//! It prints each line and sends it back in capitals, until it is interrupted.
//! `forks_by_hand` is the same server without socketserver.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example forks -- 127.0.0.1 9999
//! ```
//!
//! Connect with `many_clients`, in either language, or with `nc 127.0.0.1 9999` in several
//! terminals.

use std::io::{self, Write};

use sockserver::{ForkingTCPServer, StreamContext, StreamRequestHandler};

mod common;

struct Upper;

impl StreamRequestHandler for Upper {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        // A line of more than 64 KiB is an error.
        for line in &mut cx.rfile {
            let line = line?;
            println!("{}: {}", cx.client_address, common::text(&line));
            cx.wfile.write_all(&line.to_ascii_uppercase())?;
        }
        Ok(())
    }
}

fn main() -> common::Result {
    env_logger::init();
    let address = common::address("127.0.0.1", 9999);
    // The server reaps its children when they exit.
    let server = ForkingTCPServer::builder(|| Upper).allow_reuse_address(true).bind(address)?;
    println!("listening on {}", server.server_address());
    Ok(server.serve_forever()?)
}
