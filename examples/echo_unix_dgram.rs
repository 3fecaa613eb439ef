//! Echo of one Unix-domain datagram, by UnixDatagramServer.
//!
//! It answers one datagram, removes the path and ends. A path left behind by an
//! interrupted run makes bind fail with EADDRINUSE; remove it by hand.
//!
//! Run it, here on its default path:
//!
//! ```text
//! cargo run --example echo_unix_dgram -- /tmp/echo_unix_dgram
//! ```
//!
//! Talk to it with `echo_unix_dgram_client`, in either language, or with
//! `nc -u -U /tmp/echo_unix_dgram`.

use std::fs;
use std::io::{self, Write};

use sockserver::{DatagramContext, DatagramRequestHandler, UnixDatagramServer};

mod common;

struct Echo;

impl DatagramRequestHandler for Echo {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        println!("{} sent: {}", cx.client_address, common::text(cx.packet));
        // What is written here goes back as one datagram in the end.
        cx.wfile.write_all(cx.packet)
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let path = common::path("/tmp/echo_unix_dgram");
    let server = UnixDatagramServer::new(&path, || Echo)?;
    println!("listening on {}", server.server_address());
    // One request, where serve_forever would go on.
    let outcome = server.handle_request();
    // Closing a socket does not remove the path that bind has made.
    fs::remove_file(&path)?;
    outcome
}
