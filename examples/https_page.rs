//! A page over HTTPS, for a browser: whatever is asked, the answer is the page.
//!
//! `http_page` with TLS under it, and less of HTTP. It runs until you interrupt it,
//! and reads its certificate anew on SIGHUP.
//!
//! Make certificates with `make_ca` first, then run it, here on its default address
//! and with its default directory of certificates:
//!
//! ```text
//! cargo run --example https_page -- 127.0.0.1 8443 certs
//! ```
//!
//! Talk to it with `curl --cacert certs/ca.pem https://127.0.0.1:8443/`, or with a
//! browser that was told to trust `certs/ca.pem`.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use sock::SHUT_WR;
use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;
#[path = "common/tls.rs"]
mod tls;

const PAGE: &str = "<!doctype html>\n<title>sockssl</title>\n<h1>Hello, browser, in secret!</h1>\n";

struct Page;

impl StreamRequestHandler for Page {
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        // An empty line ends the head; 8 KiB of it are enough for anybody.
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
        // Browsers connect ahead of time, and may leave without a word.
        if first.is_empty() {
            return Ok(());
        }
        println!("{} {first}", cx.client_address);
        let mut answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n".to_owned();
        // Browsers that have been here come back with https:// only.
        answer += "Strict-Transport-Security: max-age=31536000\r\n";
        answer += "Content-Security-Policy: default-src 'self'\r\nX-Content-Type-Options: nosniff\r\n";
        answer += &format!("Content-Length: {}\r\n\r\n", PAGE.len());
        answer += if first.starts_with("HEAD ") { "" } else { PAGE };
        cx.wfile.write_all(answer.as_bytes())?;

        // Our goodbye first; what is left unread would be a reset.
        cx.request.shutdown(SHUT_WR)?;
        io::copy(&mut (&mut cx.rfile).take(65536), &mut io::sink()).map(drop)
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port, directory) = common::address_and("127.0.0.1", 8443, "CERTS", "certs");
    let context = tls::server_context(&directory)?;
    context.set_alpn_protocols(["http/1.1"])?;
    tls::reload_on_sighup(&context)?;
    let builder = ThreadingTCPServer::builder(|| Page).allow_reuse_address(true);
    let server = tls::with_tls(builder, context).bind((host, port))?;
    println!("listening on {}", server.server_address());
    server.serve_forever()
}
