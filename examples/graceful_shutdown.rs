//! A server that stops well: the first SIGTERM or Ctrl-C lets busy clients finish,
//! for ten seconds; the second stops it now.
//!
//! Each line comes back in capitals; the answer to `slow` takes five seconds.
//! Exit code 1 says that somebody was cut off.
//!
//! Run it, here on its default address:
//!
//! ```text
//! cargo run --example graceful_shutdown -- 127.0.0.1 9999
//! ```
//!
//! Talk to it with `nc 127.0.0.1 9999`, and stop it meanwhile. With
//! `RUST_LOG=info` it says what becomes of everybody.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;

struct Answer;

impl StreamRequestHandler for Answer {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        if cx.rfile.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim() == "slow" {
            thread::sleep(Duration::from_secs(5));
        }
        cx.wfile.write_all(line.to_uppercase().as_bytes())?;
        // The next line is the next request; between the two the server may stop.
        cx.close_connection = false;
        Ok(())
    }
}

fn main() -> io::Result<ExitCode> {
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
