//! An echo server for one Unix datagram, with UnixDatagramServer.
//!
//! It prints the datagram, sends it back, removes the path and exits. If an interrupted run
//! has left the path behind, bind fails with EADDRINUSE. Remove the path by hand then.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run --example echo_unix_dgram -- /tmp/echo_unix_dgram
//! ```
//!
//! Connect with `echo_unix_dgram_client`, in either language, or with
//! `nc -u -U /tmp/echo_unix_dgram`.

use std::fs;
use std::io::{self, Write};

use sockserver::{DatagramContext, DatagramRequestHandler, UnixDatagramServer};

mod common;

struct Echo;

impl DatagramRequestHandler for Echo {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        println!("{} sent: {}", cx.client_address, common::text(cx.packet));
        // Everything that is written here is sent as one datagram at the end.
        cx.wfile.write_all(cx.packet)
    }
}

fn main() -> common::Result {
    env_logger::init();
    let path = common::path("/tmp/echo_unix_dgram");
    let server = UnixDatagramServer::new(&path, || Echo)?;
    println!("listening on {}", server.server_address());
    // Serves one request, whereas serve_forever would continue.
    let outcome = server.handle_request();
    // Closing a socket does not remove the path that bind created.
    fs::remove_file(&path)?;
    Ok(outcome?)
}
