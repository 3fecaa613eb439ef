//! An HTTP page for a browser, read line by line: `GET /` answers a small page.
//!
//! Another path is not found (404), another method not allowed (405), and what
//! is not HTTP/1 a bad request (400). It runs until you interrupt it.
//!
//! A client of HTTP/1.1 may ask again on its connection. A third argument says
//! where requests run: `tcp`, `threading`, `forking`, `pool`, `prefork` or
//! `selector`; the handler is the same in all of them.
//!
//! Run it, here on its default address, and open <http://127.0.0.1:8000/>:
//!
//! ```text
//! cargo run --example http_page -- 127.0.0.1 8000 threading
//! ```
//!
//! Talk to it with `http_get`, in either language, `curl -i http://127.0.0.1:8000/`,
//! or `printf 'GET / HTTP/1.0\r\n\r\n' | nc 127.0.0.1 8000`.

use std::io::{self, BufRead, Read, Write};

use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, SelectorTCPServer, StreamContext,
    StreamRequestHandler, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer,
};

mod common;

const PAGE: &str = "<!doctype html>\n<title>sock</title>\n<h1>Hello, browser!</h1>\n";

/// What a request asks for, the status to answer it with, and whether another may
/// follow.
fn judge(head: &[u8]) -> (String, &'static str, bool) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let complete = request.parse(head).is_ok_and(|status| status.is_complete());
    let (true, Some(method), Some(target)) = (complete, request.method, request.path) else {
        return ("-".to_owned(), "400 Bad Request", false);
    };
    let status = match (method, target.split('?').next()) {
        // A query asks for the same page.
        ("GET" | "HEAD", Some("/")) => "200 OK",
        ("GET" | "HEAD", _) => "404 Not Found",
        _ => "405 Method Not Allowed",
    };
    let says = |name: &str, value: &[u8]| {
        let is = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case(name);
        request.headers.iter().find(is).is_some_and(|header| header.value.eq_ignore_ascii_case(value))
    };
    // A request with a body is refused, and its body is not looked at.
    let without_body = status != "405 Method Not Allowed";
    let keep_alive = request.version == Some(1) && !says("Connection", b"close") && without_body;
    (format!("{method} {target}"), status, keep_alive)
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

        let (request, status, keep_alive) = judge(&head);
        println!("{} {request} {status}", cx.client_address);
        let body = if status == "200 OK" { PAGE } else { &format!("<h1>{status}</h1>\n") };
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\n");
        answer += "Allow: GET, HEAD\r\n";
        answer += if keep_alive { "Connection: keep-alive\r\n" } else { "Connection: close\r\n" };
        answer += &format!("Content-Length: {}\r\n\r\n", body.len());
        answer += if request.starts_with("HEAD ") { "" } else { body };
        cx.close_connection = !keep_alive;
        cx.wfile.write_all(answer.as_bytes())
    }
}

/// The model is one word.
fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>, address: (String, u16)) -> io::Result<()> {
    let server = builder.allow_reuse_address(true).bind(address)?;
    println!("listening on {}", server.server_address());
    server.serve_forever()
}

fn main() -> io::Result<()> {
    env_logger::init();
    let (host, port, model) = common::address_and("127.0.0.1", 8000, "MODEL", "threading");
    let address = (host, port);
    match model.as_str() {
        "tcp" => serve(TCPServer::builder(|| Page), address),
        "threading" => serve(ThreadingTCPServer::builder(|| Page), address),
        "forking" => serve(ForkingTCPServer::builder(|| Page), address),
        "pool" => serve(ThreadPoolTCPServer::builder(|| Page), address),
        "prefork" => serve(PreforkTCPServer::builder(|| Page), address),
        "selector" => serve(SelectorTCPServer::builder(|| Page), address),
        _ => common::refuse(format_args!(
            "MODEL must be tcp, threading, forking, pool, prefork or selector, not '{model}'"
        )),
    }
}
