//! An echo server over TLS. The hook that it uses adds TLS to any server.
//!
//! It serves each connection in a thread until it is interrupted, and prints the address
//! and the TLS version of each client. On SIGHUP it reloads its certificate for new
//! connections. If the new files are broken it prints which one is, and keeps the old
//! certificate.
//!
//! Make certificates with `make_ca` first, then run it (the arguments shown are the
//! defaults):
//!
//! ```text
//! cargo run -p sockssl --example echo_tls -- 127.0.0.1 8443 certs
//! ```
//!
//! Connect with `tls_client`, in either language, or with
//! `openssl s_client -connect 127.0.0.1:8443 -CAfile certs/ca.pem`.

use std::io::{self, Write};

use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};
use sockssl::SSLSocket;

mod common;
#[path = "common/tls.rs"]
mod tls;

struct Echo;

impl StreamRequestHandler for Echo {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let version = SSLSocket::of(cx.request).and_then(SSLSocket::version);
        println!("{} connected with {}", cx.client_address, version.unwrap_or("no TLS"));
        // A line of more than 64 KiB is an error.
        for line in &mut cx.rfile {
            cx.wfile.write_all(&line?)?;
        }
        Ok(())
    }
}

fn main() -> common::Result {
    env_logger::init();
    let (host, port, directory) = common::address_and("127.0.0.1", 8443, "CERTS", "certs");
    let context = tls::server_context(&directory)?;
    tls::reload_on_sighup(&context)?;
    let builder = ThreadingTCPServer::builder(|| Echo).allow_reuse_address(true);
    let server = tls::with_tls(builder, context).bind((host, port))?;
    println!("listening on {}", server.server_address());
    Ok(server.serve_forever()?)
}
