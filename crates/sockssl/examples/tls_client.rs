//! The client of the TLS programs. It sends a greeting and prints the answer.
//!
//! It trusts the authority in the directory, and requires a server certificate for
//! localhost. If the directory contains a `client.pem`, it is sent to servers that request
//! a certificate.
//!
//! Start `echo_tls`, `tls_by_hand` or `mtls_whoami` first, then run it (the arguments
//! shown are the defaults):
//!
//! ```text
//! cargo run -p sockssl --example tls_client -- 127.0.0.1 8443 certs
//! ```
//!
//! To act as the server, run
//! `openssl s_server -accept 8443 -cert certs/server.pem -key certs/server.key`.

use sock::SHUT_WR;
use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext};

mod common;
#[path = "common/tls.rs"]
mod tls;

fn main() -> common::Result {
    env_logger::init();
    let (host, port, directory) = common::address_and("127.0.0.1", 8443, "CERTS", "certs");
    let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    context.load_verify_locations(tls::file(&directory, "ca.pem"))?;
    let own = tls::file(&directory, "client.pem");
    if own.exists() {
        context.load_cert_chain(own, tls::file(&directory, "client.key"))?;
    }

    let sock = sock::create_connection((host, port))?;
    let sock = context.wrap_socket_client(sock, "localhost")?;
    let certificate = sock.getpeercert()?;
    let name = certificate.as_ref().and_then(|certificate| certificate.subject_value("commonName"));
    println!("connected with {} to {}", sock.version().unwrap_or("?"), name.unwrap_or("?"));

    sock.sendall(b"Hello, world!\n")?;
    let answer = sock.recv(1024)?;
    println!("answer: {}", common::text(&answer));
    // Sends a close_notify. That of the server is read as end of file.
    sock.shutdown(SHUT_WR)?;
    let rest = sock.recv(1024)?;
    println!("{} bytes after the shutdown", rest.len());
    Ok(())
}
