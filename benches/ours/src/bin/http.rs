//! Answers HTTP requests on persistent connections, for `benches/keep_alive`.
//!
//! Usage: `http MODEL PORT WORKERS`

use std::io::{self, BufRead, Write};

use sockserver::kind::Inet;
use sockserver::{
    Builder, MixIn, PreforkTCPServer, SelectorTCPServer, StreamContext, StreamRequestHandler, ThreadPoolTCPServer,
    WorkerClass,
};

/// Serves one request without a body.
struct Hello;

impl StreamRequestHandler for Hello {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        while cx.rfile.read_until(b'\n', &mut line)? > 0 {
            if line.ends_with(b"\n\r\n") || line == b"\r\n" {
                cx.close_connection = false;
                return cx.wfile.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
                );
            }
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, port, workers] = &arguments[..] else {
        return Err(io::Error::other("usage: http MODEL PORT WORKERS"));
    };
    let workers = workers.parse().map_err(io::Error::other)?;
    let prefork = |class| PreforkTCPServer::builder(|| Hello).workers(workers).worker_class(class);
    match &model[..] {
        "selector" => serve(SelectorTCPServer::builder(|| Hello).workers(workers), port),
        "pool" => serve(ThreadPoolTCPServer::builder(|| Hello).workers(workers), port),
        "prefork" => serve(prefork(WorkerClass::Sync), port),
        "prefork-threads" => serve(prefork(WorkerClass::Threads(64)), port),
        "prefork-selector" => serve(prefork(WorkerClass::Selector), port),
        _ => Err(io::Error::other("models: selector, pool, prefork, prefork-threads, prefork-selector")),
    }
}

fn serve<M: MixIn>(builder: Builder<sockserver::kind::Stream<Inet>, M>, port: &str) -> io::Result<()> {
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let server = builder.request_queue_size(1024).bind(("127.0.0.1", port))?;
    server.serve_forever()
}
