//! A server with limits: three clients at once, two per address, and one second for the
//! first byte.
//!
//! It sends each line back in capitals, and answers `stats` with its counters. Clients
//! beyond a limit receive a message and are closed. It prints which clients were refused or
//! timed out.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example limits -- 127.0.0.1 9999
//! ```
//!
//! Connect with `(echo hello; cat) | nc 127.0.0.1 9999` in several terminals. The third
//! client is refused. With `nc` alone the first line must be typed within a second.

use std::io::{self, Write};
use std::time::Duration;

use sock::Address;
use sockserver::{
    Request, RequestError, ServerHooks, StreamContext, StreamRequestHandler, ThreadingTCPServer, WhenFull,
};

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
        cx.close_connection = false;
        if line.trim_ascii_end() != b"stats" {
            return cx.wfile.write_all(&line.to_ascii_uppercase());
        }
        let stats = cx.server.stats();
        writeln!(
            cx.wfile,
            "{} accepted, {} finished, {} rejected, {} timed out, {} in flight",
            stats.accepted,
            stats.finished,
            stats.rejected,
            stats.timed_out.total(),
            stats.in_flight
        )
    }
}

struct ReportLimits;

impl ServerHooks for ReportLimits {
    fn refuse_request(&self, request: &Request, client_address: &Address) {
        println!("{client_address} refused: too many clients");
        if let Some(stream) = request.stream() {
            let _ = stream.sendall(b"too many clients\n");
        }
    }

    fn handle_error(&self, error: &RequestError, client_address: &Address) {
        match error {
            RequestError::TimedOut(deadline, _) => println!("{client_address} timed out: {deadline}"),
            error => println!("{client_address}: {error}"),
        }
    }
}

fn main() -> common::Result {
    env_logger::init();
    let server = ThreadingTCPServer::builder(|| Answer)
        .hooks(ReportLimits)
        .allow_reuse_address(true)
        .max_connections(3)
        .when_full(WhenFull::Refuse)
        .max_connections_per_ip(2)
        .first_byte_timeout(Duration::from_secs(1))
        .idle_timeout(Duration::from_secs(60))
        .read_timeout(Duration::from_secs(5))
        .request_timeout(Duration::from_secs(10))
        .bind(common::address("127.0.0.1", 9999))?;
    println!("listening on {}", server.server_address());
    Ok(server.serve_forever()?)
}
