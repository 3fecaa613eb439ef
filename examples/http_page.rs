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

use std::io::{self, Write};
use std::time::Duration;

use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, SelectorTCPServer, ServerState, StreamContext,
    StreamRequestHandler, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer,
};

mod common;
#[path = "common/http.rs"]
mod http;

use http::{Request, read_head};

const PAGE: &str = "<!doctype html>\n<title>sock</title>\n<h1>Hello, browser!</h1>\n";

/// How long requests may take to finish after SIGTERM or Ctrl-C.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Returns the request line to print, the status to answer with, and whether another request
/// may follow on the connection.
fn parse_head(head: &[u8]) -> (String, &'static str, bool) {
    const BAD: &str = "400 Bad Request";
    let Some(request) = Request::parse(head) else { return ("-".to_owned(), BAD, false) };
    let (status, keeps) = match (&*request.method, request.path()) {
        _ if !request.is_valid => (BAD, false),
        ("GET" | "HEAD", "/") => ("200 OK", request.keeps),
        ("GET" | "HEAD", _) => ("404 Not Found", request.keeps),
        _ => ("405 Method Not Allowed", false),
    };
    (format!("{} {}", request.method, request.target), status, keeps)
}

struct Page {
    /// Whether connections stay open between requests.
    keeps_alive: bool,
}

impl StreamRequestHandler for Page {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let head = read_head(&mut cx.rfile)?;
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
