//! The usual example of Python's `ssl` module: listen, accept, wrap, echo.
//!
//! It serves one connection without the server classes, prints the TLS version and the data
//! it receives, and exits.
//!
//! Make certificates with `make_ca` first, then run it (the arguments shown are the
//! defaults):
//!
//! ```text
//! cargo run -p sockssl --example tls_by_hand -- 127.0.0.1 8443 certs
//! ```
//!
//! Connect with `tls_client`, in either language, or with
//! `openssl s_client -connect 127.0.0.1:8443 -CAfile certs/ca.pem`.

use sock::SHUT_RDWR;
use sockssl::{Purpose, create_default_context};

mod common;
#[path = "common/tls.rs"]
mod tls;

fn main() -> common::Result {
    env_logger::init();
    let (host, port, directory) = common::address_and("127.0.0.1", 8443, "CERTS", "certs");
    let context = create_default_context(Purpose::CLIENT_AUTH)?;
    context.load_cert_chain(tls::file(&directory, "server.pem"), tls::file(&directory, "server.key"))?;

    let server = sock::create_server((host, port))?;
    println!("listening on {}", server.getsockname()?);
    let (sock, address) = server.accept()?;
    let conn = context.wrap_socket_server(sock)?;
    println!("{address} connected with {}", conn.version().unwrap_or("?"));
    loop {
        let data = conn.recv(1024)?;
        if data.is_empty() {
            break;
        }
        println!("got: {}", common::text(&data));
        conn.sendall(&data)?;
    }
    conn.shutdown(SHUT_RDWR)?;
    Ok(conn.close()?)
}
