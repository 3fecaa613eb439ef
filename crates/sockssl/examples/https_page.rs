//! An HTTPS server for a browser, which answers every request with the same page.
//!
//! It is `http_page` with TLS and less of HTTP. It prints the first line of each request,
//! runs until it is interrupted, and reloads its certificate on SIGHUP.
//!
//! Make certificates with `make_ca` first, then run it (the arguments shown are the
//! defaults):
//!
//! ```text
//! cargo run -p sockssl --example https_page -- 127.0.0.1 8443 certs
//! ```
//!
//! Connect with `curl --cacert certs/ca.pem https://127.0.0.1:8443/`, or with a browser
//! that trusts `certs/ca.pem`.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use sock::SHUT_WR;
use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;
#[path = "common/tls.rs"]
mod tls;

const PAGE: &str = "<!doctype html>\n<title>sockssl</title>\n<h1>Hello, browser, over TLS!</h1>\n";

struct Page;

impl StreamRequestHandler for Page {
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        // An empty line ends the head, which is limited to 8 KiB.
        let (mut first, mut line) = (String::new(), Vec::new());
        let mut head = (&mut cx.rfile).take(8192);
        while head.read_until(b'\n', &mut line)? > 0 {
            if first.is_empty() {
                first = common::text(&line);
            }
            // Empty lines before the request are skipped (RFC 9112, section 2.2).
            if (line == b"\r\n" || line == b"\n") && !first.is_empty() {
                break;
            }
            line.clear();
        }
        // Browsers open connections in advance, and may close them unused.
        if first.is_empty() {
            return Ok(());
        }
        println!("{} {first}", cx.client_address);
        let mut answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n".to_owned();
        // Browsers that have visited the page use only https:// from then on.
        answer += "Strict-Transport-Security: max-age=31536000\r\n";
        answer += "Content-Security-Policy: default-src 'self'\r\nX-Content-Type-Options: nosniff\r\n";
        answer += &format!("Content-Length: {}\r\n\r\n", PAGE.len());
        answer += if first.starts_with("HEAD ") { "" } else { PAGE };
        cx.wfile.write_all(answer.as_bytes())?;

        // Send the close_notify first. Closing with unread input would reset the connection.
        cx.request.shutdown(SHUT_WR)?;
        io::copy(&mut (&mut cx.rfile).take(65536), &mut io::sink()).map(drop)
    }
}

fn main() -> common::Result {
    env_logger::init();
    let (host, port, directory) = common::address_and("127.0.0.1", 8443, "CERTS", "certs");
    let context = tls::server_context(&directory)?;
    context.set_alpn_protocols(["http/1.1"])?;
    tls::reload_on_sighup(&context)?;
    let builder = ThreadingTCPServer::builder(|| Page).allow_reuse_address(true);
    let server = tls::with_tls(builder, context).bind((host, port))?;
    println!("listening on {}", server.server_address());
    Ok(server.serve_forever()?)
}
