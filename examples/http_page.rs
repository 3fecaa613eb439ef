//! An HTTP page for a browser, read line by line: `GET /` answers a small page.
//!
//! Another path is not found (404), another method not allowed (405), and what
//! is not HTTP/1 a bad request (400). It runs until you interrupt it.
//!
//! Run it, here on its default address, and open <http://127.0.0.1:8000/>:
//!
//! ```text
//! cargo run --example http_page -- 127.0.0.1 8000
//! ```
//!
//! Talk to it with `http_get`, in either language, `curl -i http://127.0.0.1:8000/`,
//! or `printf 'GET / HTTP/1.0\r\n\r\n' | nc 127.0.0.1 8000`.

use std::io::{self, BufRead, Read, Write};

use sock::SHUT_WR;
use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};

mod common;

const PAGE: &str = "<!doctype html>\n<title>sock</title>\n<h1>Hello, browser!</h1>\n";

/// What a request asks for, and the status to answer it with.
fn judge(head: &[u8]) -> (String, &'static str) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let complete = request.parse(head).is_ok_and(|status| status.is_complete());
    let (true, Some(method), Some(target)) = (complete, request.method, request.path) else {
        return ("-".to_owned(), "400 Bad Request");
    };
    let status = match (method, target.split('?').next()) {
        // A query asks for the same page.
        ("GET" | "HEAD", Some("/")) => "200 OK",
        ("GET" | "HEAD", _) => "404 Not Found",
        _ => "405 Method Not Allowed",
    };
    (format!("{method} {target}"), status)
}

struct Page;

impl StreamRequestHandler for Page {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        // An empty line ends the head; 8 KiB of it are enough for anybody.
        let mut head = Vec::new();
        let mut lines = (&mut cx.rfile).take(8192);
        while lines.read_until(b'\n', &mut head)? > 0 {
            if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
                break;
            }
        }
        // Browsers connect ahead of time, and may leave without a word.
        if head.is_empty() {
            return Ok(());
        }

        let (request, status) = judge(&head);
        println!("{} {request} {status}", cx.client_address);
        let body = if status == "200 OK" { PAGE } else { &format!("<h1>{status}</h1>\n") };
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\n");
        answer += "Allow: GET, HEAD\r\nConnection: close\r\n";
        answer += &format!("Content-Length: {}\r\n\r\n", body.len());
        answer += if request.starts_with("HEAD ") { "" } else { body };
        cx.wfile.write_all(answer.as_bytes())?;

        // To close with bytes unread is to reset the connection, and the answer
        // may be lost: end our side first, then read what is left.
        cx.request.shutdown(SHUT_WR)?;
        io::copy(&mut (&mut cx.rfile).take(65536), &mut io::sink()).map(drop)
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let address = common::address("127.0.0.1", 8000);
    let server = ThreadingTCPServer::builder(|| Page).allow_reuse_address(true).bind(address)?;
    println!("listening on {}", server.server_address());
    server.serve_forever()
}
