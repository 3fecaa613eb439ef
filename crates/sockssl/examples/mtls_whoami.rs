//! A TLS server that requires a client certificate and answers with its contents.
//!
//! It sends each client the name in its certificate and the name of the issuer, and prints
//! the same. It runs until it is interrupted. A client without a certificate of the
//! expected authority never reaches the handler.
//!
//! Make certificates with `make_ca` first, then run it (the arguments shown are the
//! defaults):
//!
//! ```text
//! cargo run -p sockssl --example mtls_whoami -- 127.0.0.1 8443 certs
//! ```
//!
//! Connect with `tls_client`, in either language, or with
//! `openssl s_client -connect 127.0.0.1:8443 -CAfile certs/ca.pem -cert certs/client.pem -key certs/client.key`.

use std::io::{self, Write};

use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};
use sockssl::SSLSocket;

mod common;
#[path = "common/tls.rs"]
mod tls;

struct WhoAmI;

impl StreamRequestHandler for WhoAmI {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let Some(sock) = SSLSocket::of(cx.request) else {
            return Ok(());
        };
        let Some(certificate) = sock.getpeercert()? else {
            return writeln!(cx.wfile, "no certificate");
        };
        let who = certificate.subject_value("commonName").unwrap_or("?").to_owned();
        let issuer = certificate.issuer.iter().find(|(name, _)| name == "commonName");
        let issuer = issuer.map_or("?", |(_, value)| value.as_str());
        println!("{} is {who}, certified by {issuer}", cx.client_address);
        let answer = format!("you are {who}, certified by {issuer}\n");
        for line in &mut cx.rfile {
            line?;
            cx.wfile.write_all(answer.as_bytes())?;
        }
        Ok(())
    }
}

fn main() -> common::Result {
    env_logger::init();
    let (host, port, directory) = common::address_and("127.0.0.1", 8443, "CERTS", "certs");
    let context = tls::strict_context(&directory)?;
    tls::reload_on_sighup(&context)?;
    let builder = ThreadingTCPServer::builder(|| WhoAmI).allow_reuse_address(true);
    let server = tls::with_tls(builder, context).bind((host, port))?;
    println!("listening on {}", server.server_address());
    Ok(server.serve_forever()?)
}
