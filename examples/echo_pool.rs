//! An echo server with ThreadPoolTCPServer, which serves all clients with four threads.
//!
//! The handler is the same as in `echo_prefork` and `echo_selector`. It serves one line,
//! and with `close_connection` set to false it is called again for the next one.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example echo_pool -- 127.0.0.1 9999
//! ```
//!
//! Connect with `echo_tcp_client`, in either language, or with `nc 127.0.0.1 9999` in
//! several terminals. The fifth client waits until another one disconnects.

use std::io::{self, Write};
use std::time::Duration;

use sockserver::{StreamContext, StreamRequestHandler, ThreadPoolTCPServer};

mod common;

struct Echo;

impl StreamRequestHandler for Echo {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        // A longer line is echoed in parts.
        let line = cx.rfile.readline(65536)?;
        cx.close_connection = line.is_empty();
        cx.wfile.write_all(&line)
    }
}

fn main() -> common::Result {
    env_logger::init();
    let server = ThreadPoolTCPServer::builder(|| Echo)
        .allow_reuse_address(true)
        .workers(4)
        .drain_on_signals(Duration::from_secs(10))
        .bind(common::address("127.0.0.1", 9999))?;
    println!("listening on {}", server.server_address());
    Ok(server.serve_forever()?)
}
