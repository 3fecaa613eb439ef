//! The echo over TLS: any server becomes one of TLS by one hook.
//!
//! It runs until you interrupt it, a thread for each connection. On SIGHUP it reads
//! its certificate anew: new connections get the new one, and of a broken pair it
//! says which file is at fault and keeps the old one.
//!
//! Make certificates with `make_ca` first, then run it, here on its default address
//! and with its default directory of certificates:
//!
//! ```text
//! cargo run --example echo_tls -- 127.0.0.1 8443 certs
//! ```
//!
//! Talk to it with `tls_client`, in either language, or with
//! `openssl s_client -connect 127.0.0.1:8443 -CAfile certs/ca.pem`.

use std::io::{self, BufRead, Write};

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
        let mut line = Vec::new();
        while cx.rfile.read_until(b'\n', &mut line)? > 0 {
            cx.wfile.write_all(&line)?;
            line.clear();
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port, directory) = common::address_and("127.0.0.1", 8443, "CERTS", "certs");
    let context = tls::server_context(&directory)?;
    tls::reload_on_sighup(&context)?;
    let builder = ThreadingTCPServer::builder(|| Echo).allow_reuse_address(true);
    let server = tls::with_tls(builder, context).bind((host, port))?;
    println!("listening on {}", server.server_address());
    server.serve_forever()
}
