//! An HTTP server for a browser, with a small page at `/`.
//!
//! Other paths are answered with 404, other methods with 405, and anything that is not
//! HTTP/1 with 400. It prints each request with its status, and runs until it is
//! interrupted. Then it finishes the requests that it is serving and answers them with
//! `Connection: close`.
//!
//! An HTTP/1.1 client may send several requests on a connection. The third argument selects
//! the model: `tcp`, `threading`, `forking`, `pool`, `prefork` or `selector`. The handler
//! is the same in all of them. In `tcp` and `prefork` a connection that stays open would keep
//! other clients waiting, so it is closed after the answer.
//!
//! Run it (the arguments shown are the defaults) and open <http://127.0.0.1:8000/>:
//!
//! ```text
//! cargo run --example http_page -- 127.0.0.1 8000 threading
//! ```
//!
//! Connect with `http_get`, in either language, with `curl -i http://127.0.0.1:8000/`, or
//! with `printf 'GET / HTTP/1.0\r\n\r\n' | nc 127.0.0.1 8000`.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, SelectorTCPServer, ServerState, StreamContext,
    StreamRequestHandler, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer,
};

mod common;

const PAGE: &str = "<!doctype html>\n<title>sock</title>\n<h1>Hello, browser!</h1>\n";

/// How long requests may take to finish after SIGTERM or Ctrl-C.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Reads a request head up to the empty line, at most 8 KiB. Empty lines before it are
/// skipped (RFC 9112, section 2.2).
fn read_head(cx: &mut StreamContext<'_>) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut lines = (&mut cx.rfile).take(8192);
    while lines.read_until(b'\n', &mut head)? > 0 {
        if head == b"\r\n" || head == b"\n" {
            head.clear();
        }
        if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
            break;
        }
    }
    Ok(head)
}

/// Returns the path of a target such as `/?a=b` or `http://host/`.
fn path(target: &str) -> &str {
    let absolute = ["http://", "https://"].iter().find_map(|scheme| target.strip_prefix(scheme));
    let path = match absolute {
        Some(rest) => rest.find(['/', '?']).map_or("/", |start| &rest[start..]),
        None => target,
    };
    match path.split('?').next() {
        Some("") => "/",
        path => path.unwrap_or("/"),
    }
}

/// Returns the request line to print, the status to answer with, and whether another request
/// may follow on the connection.
fn parse_head(head: &[u8]) -> (String, &'static str, bool) {
    const BAD: &str = "400 Bad Request";
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let complete = request.parse(head).is_ok_and(|status| status.is_complete());
    let (true, Some(method), Some(target)) = (complete, request.method, request.path) else {
        return ("-".to_owned(), BAD, false);
    };
    let line = format!("{method} {target}");
    let values = |name: &'static str| {
        let headers = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        headers.map(|header| header.value)
    };
    let lengths: Vec<&[u8]> = values("Content-Length").collect();
    let has_coding = values("Transfer-Encoding").count() > 0;
    let is_version_1_1 = request.version == Some(1);
    // Where a body ends must be unambiguous, or its bytes could be taken for a request of
    // another client behind the same proxy (RFC 9112, sections 3.2 and 6.3).
    let is_number = |value: &&[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let is_ambiguous =
        lengths.len() > 1 || !lengths.iter().all(is_number) || has_coding && !lengths.is_empty();
    let hosts = values("Host").count();
    if is_ambiguous || hosts > 1 || is_version_1_1 && hosts == 0 {
        return (line, BAD, false);
    }
    let status = match (method, path(target)) {
        ("GET" | "HEAD", "/") => "200 OK",
        ("GET" | "HEAD", _) => "404 Not Found",
        _ => "405 Method Not Allowed",
    };
    let has_body = has_coding || lengths.iter().any(|value| value.iter().any(|&digit| digit != b'0'));
    let closes = values("Connection").any(|value| {
        value.split(|&byte| byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    // No body is read here. The connection of a request that has one is closed, so that the body
    // is never taken for the next request.
    let keeps = is_version_1_1 && !closes && !has_body && status != "405 Method Not Allowed";
    (line, status, keeps)
}

struct Page {
    /// Whether connections stay open between requests.
    keeps_alive: bool,
}

impl StreamRequestHandler for Page {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let head = read_head(cx)?;
        // Browsers open connections in advance, and may close them unused.
        if head.is_empty() {
            return Ok(());
        }

        let (request, status, keep_alive) = parse_head(&head);
        println!("{} {request} {status}", cx.client_address);
        // A client that sends its next request while the server stops may lose it.
        let keep_alive = keep_alive && self.keeps_alive && cx.server.state() == ServerState::Ready;
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

/// Binds and runs a server of any model.
fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>, address: (String, u16)) -> io::Result<()> {
    let server = builder.allow_reuse_address(true).drain_on_signals(DRAIN_LIMIT).bind(address)?;
    println!("listening on {}", server.server_address());
    server.serve_forever()
}

fn main() -> common::Result {
    env_logger::init();
    let (host, port, model) = common::address_and("127.0.0.1", 8000, "MODEL", "threading");
    let address = (host, port);
    let keeps_alive = !["tcp", "prefork"].contains(&model.as_str());
    let page = move || Page { keeps_alive };
    let outcome = match model.as_str() {
        "tcp" => serve(TCPServer::builder(page), address),
        "threading" => serve(ThreadingTCPServer::builder(page), address),
        "forking" => serve(ForkingTCPServer::builder(page), address),
        "pool" => serve(ThreadPoolTCPServer::builder(page), address),
        "prefork" => serve(PreforkTCPServer::builder(page), address),
        "selector" => serve(SelectorTCPServer::builder(page), address),
        _ => common::refuse(format_args!(
            "MODEL must be tcp, threading, forking, pool, prefork or selector, not '{model}'"
        )),
    };
    Ok(outcome?)
}
