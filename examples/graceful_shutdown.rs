//! A server with a graceful shutdown.
//!
//! The first SIGTERM or Ctrl-C lets running requests finish for at most ten seconds, and
//! the second one stops the server immediately. The server sends each line back in
//! capitals. The answer to `slow` takes five seconds. At the end it prints its counters,
//! and if requests were aborted, the report of the drain. The exit code is 1 in that case.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example graceful_shutdown -- 127.0.0.1 9999
//! ```
//!
//! Connect with `nc 127.0.0.1 9999`, and stop the server in the meantime. With
//! `RUST_LOG=info` it logs each step of the shutdown.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;

/// A longer line is answered in parts.
const MAX_LINE: usize = 65536;

struct Answer;

impl StreamRequestHandler for Answer {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let line = cx.rfile.readline(MAX_LINE)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.trim_ascii() == b"slow" {
            thread::sleep(Duration::from_secs(5));
        }
        cx.wfile.write_all(&line.to_ascii_uppercase())?;
        // The next line is a new request. Between two requests the server may stop.
        cx.close_connection = false;
        Ok(())
    }
}

fn main() -> common::Result<ExitCode> {
    env_logger::init();
    let server = ThreadingTCPServer::builder(|| Answer)
        .allow_reuse_address(true)
        .drain_on_signals(Duration::from_secs(10))
        .bind(common::address("127.0.0.1", 9999))?;
    println!("listening on {}", server.server_address());
    server.serve_forever()?;
    println!("{}", server.stats());
    match server.drained() {
        Some(report) if !report.aborted.is_empty() => {
            println!("{report}");
            Ok(ExitCode::FAILURE)
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
