//! The promise: `wrap_request` is called for every request, whatever it returned for earlier
//! ones. Each call has its deadline. The client address that it names replaces the peer's.

mod support;

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sock::{Address, Shutdown, Socket, StreamSocket};
#[cfg(unix)]
use sockserver::SelectorTCPServer;
use sockserver::kind::{Inet, Stream};
use sockserver::testing;
use sockserver::{
    Builder, MixIn, Request, RequestError, ServerHooks, StreamContext, StreamRequestHandler, TCPServer,
    ThreadPoolTCPServer, ThreadingTCPServer, WrappedRequest,
};

use support::wait_until;

const ANY: (&str, u16) = ("127.0.0.1", 0);

struct Line;

impl StreamRequestHandler for Line {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        cx.close_connection = cx.rfile.read_until(b'\n', &mut line)? == 0;
        cx.wfile.write_all(&line)
    }
}

/// A stream that sends in upper case.
struct Loud(Box<dyn StreamSocket>);

impl StreamSocket for Loud {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_into(buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(&data.to_ascii_uppercase())
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    fn socket(&self) -> &Socket {
        self.0.socket()
    }
}

/// A hook that other hooks call, as in Python by `super()`.
fn plain(request: Socket) -> io::Result<Box<dyn StreamSocket>> {
    Ok(Box::new(request))
}

/// A hook that does not wrap the first of three requests, fails for the second, and wraps the third.
fn every_third_plain() -> impl Fn(Socket, &Address) -> io::Result<WrappedRequest> {
    let count = AtomicUsize::new(0);
    move |request, _| match count.fetch_add(1, Ordering::Relaxed) % 3 {
        0 => plain(request).map(WrappedRequest::from_boxed),
        1 => Err(io::Error::other("planned error")),
        _ => Ok(Loud(plain(request)?).into()),
    }
}

#[track_caller]
fn results_of_the_hook_differ<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let server = testing::serve(builder.wrap_request(every_third_plain()).bind(ANY).unwrap());
    for expected in ["hello\n", "", "HELLO\n"].repeat(3) {
        let client = server.connect().unwrap();
        client.sendall(b"hello\n").unwrap();
        let mut answer = String::new();
        // The connection that failed may end with a reset.
        let _ = client.makefile_rb().read_line(&mut answer);
        assert_eq!(answer, expected);
    }
}

#[test]
fn every_request_is_wrapped_in_every_model() {
    results_of_the_hook_differ(TCPServer::builder(|| Line));
    results_of_the_hook_differ(ThreadingTCPServer::builder(|| Line));
    results_of_the_hook_differ(ThreadPoolTCPServer::builder(|| Line).workers(1));
    #[cfg(unix)]
    results_of_the_hook_differ(SelectorTCPServer::builder(|| Line));
}

/// A hook that does not wrap a client that sends `p`, and waits for the end of any other.
fn waits_for_the_end(request: Socket, _client_address: &Address) -> io::Result<Socket> {
    if request.recv(1)? == b"p" {
        return Ok(request);
    }
    while !request.recv(1)?.is_empty() {}
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Several clients are in `wrap_request` at the same time, after one that was not wrapped.
#[track_caller]
fn has_its_deadline<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let builder = builder.wrap_request(waits_for_the_end).wrap_timeout(Duration::from_millis(200));
    let server = testing::serve(builder.bind(ANY).unwrap());
    let limit = Duration::from_secs(10);
    let client = server.connect().unwrap();
    client.sendall(b"phello\n").unwrap();
    let mut answer = String::new();
    client.makefile_rb().read_line(&mut answer).unwrap();
    assert_eq!(answer, "hello\n");
    drop(client);

    let clients = [(); 2].map(|()| server.connect().unwrap());
    for client in &clients {
        client.settimeout(limit).unwrap();
        client.sendall(b"x").unwrap();
    }
    for client in &clients {
        assert_eq!(client.recv(1).unwrap(), b"", "the connection was not closed");
    }
    let begin = Instant::now();
    while server.handle().stats().in_flight > 0 && begin.elapsed() < limit {
        std::thread::yield_now();
    }
    let stats = server.handle().stats();
    assert_eq!((stats.accepted, stats.timed_out.wrap, stats.in_flight), (3, 2, 0), "{stats:?}");
}

#[test]
fn every_call_of_the_hook_has_its_deadline_in_every_model() {
    has_its_deadline(TCPServer::builder(|| Line));
    has_its_deadline(ThreadingTCPServer::builder(|| Line));
    has_its_deadline(ThreadPoolTCPServer::builder(|| Line).workers(2));
    #[cfg(unix)]
    has_its_deadline(SelectorTCPServer::builder(|| Line).workers(2));
}

/// A hook behind a proxy that sends the client's address as the first line.
fn proxied(request: Socket, proxy: &Address) -> io::Result<WrappedRequest> {
    assert!(proxy.ip().is_some_and(|ip| ip.is_loopback()), "{proxy}");
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.extend(request.recv(1)?);
    }
    let line = String::from_utf8(line).map_err(io::Error::other)?;
    let client: SocketAddr = line.trim_end().parse().map_err(io::Error::other)?;
    Ok(WrappedRequest::from(request).with_client_address(client))
}

/// Records the address that each hook gets.
struct Recorder(mpsc::Sender<String>);

impl ServerHooks for Recorder {
    fn handle_error(&self, error: &RequestError, client_address: &Address) {
        let _ = self.0.send(format!("handle_error {client_address}: {error}"));
    }

    fn refuse_request(&self, request: &Request, client_address: &Address) {
        let _ = request.stream().map(|stream| stream.sendall(b"busy\n"));
        let _ = self.0.send(format!("refuse_request {client_address}"));
    }
}

/// Answers each line with the client's address; fails for the line `fail`.
struct EchoAddress;

impl StreamRequestHandler for EchoAddress {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
        match line.trim_end() {
            "" => Ok(()),
            "fail" => Err(io::Error::other("as planned")),
            _ => writeln!(cx.wfile, "{}", cx.client_address),
        }
    }
}

/// Connects as the proxy does, and returns the first line of the answer.
fn ask(server: &testing::Running, client_address: &str, request: &str) -> (Socket, String) {
    let client = server.connect().unwrap();
    client.sendall(format!("{client_address}\n{request}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = client.makefile_rb().read_line(&mut answer);
    (client, answer)
}

#[track_caller]
fn uses_the_named_address<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    const LIMIT: Duration = Duration::from_secs(10);
    let (calls, called) = mpsc::channel();
    let builder = builder.hooks(Recorder(calls)).wrap_request(proxied).max_connections_per_ip(2);
    let server = testing::serve(builder.bind(ANY).unwrap());
    let wait_for_in_flight = |count| {
        let begin = Instant::now();
        while server.handle().stats().in_flight != count {
            assert!(begin.elapsed() < LIMIT, "{:?}", server.handle().stats());
            std::thread::yield_now();
        }
    };

    let first = ask(&server, "192.0.2.7:1", "who");
    let second = ask(&server, "192.0.2.7:2", "who");
    assert_eq!((first.1.as_str(), second.1.as_str()), ("192.0.2.7:1\n", "192.0.2.7:2\n"));
    // The connections no longer count for the proxy's address.
    let other = ask(&server, "192.0.2.8:3", "who");
    assert_eq!(other.1, "192.0.2.8:3\n");
    let refused = ask(&server, "192.0.2.7:4", "who");
    assert_eq!(refused.1, "busy\n");
    drop(refused);
    assert_eq!(called.recv_timeout(LIMIT).unwrap(), "refuse_request 192.0.2.7:4");
    wait_for_in_flight(3);

    // The permit of a client that has disconnected was released.
    drop(first);
    wait_for_in_flight(2);
    let failed = ask(&server, "192.0.2.7:5", "fail");
    assert_eq!(failed.1, "");
    assert_eq!(called.recv_timeout(LIMIT).unwrap(), "handle_error 192.0.2.7:5: as planned");
    wait_for_in_flight(2);
    let third = ask(&server, "192.0.2.7:6", "who");
    assert_eq!(third.1, "192.0.2.7:6\n");
    let refused = ask(&server, "192.0.2.7:7", "who");
    assert_eq!(refused.1, "busy\n");
    drop(refused);
    wait_for_in_flight(3);

    let stats = server.handle().stats();
    assert_eq!((stats.rejected, stats.failed), (2, 1), "{stats:?}");

    // A request that a drain aborts is reported with the named address.
    let idle = || server.handle().stats().idle;
    wait_until("all connections wait for the next request", || idle() == 3);
    third.0.sendall(b"half a line").unwrap();
    wait_until("the handler has a part of the request", || idle() == 2);
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| server.handle().drain(LIMIT).unwrap());
        // It has closed the idle connections, and waits for the request.
        wait_for_in_flight(1);
        let second = server.handle().drain(0).unwrap();
        (first.join().unwrap(), second)
    });
    for report in [&first, &second] {
        let aborted = report.aborted.iter().map(|request| request.client_address.to_string());
        assert_eq!(aborted.collect::<Vec<_>>(), ["192.0.2.7:6"], "{first} {second}");
    }
    assert_eq!((first.idle, first.finished), (2, 0), "{first}");
}

#[test]
fn the_client_address_that_the_hook_names_is_used_in_every_model() {
    uses_the_named_address(ThreadingTCPServer::builder(|| EchoAddress));
    uses_the_named_address(ThreadPoolTCPServer::builder(|| EchoAddress).workers(5));
    #[cfg(unix)]
    uses_the_named_address(SelectorTCPServer::builder(|| EchoAddress).workers(5));
}

#[test]
fn a_server_in_one_thread_uses_the_named_address() {
    let server = TCPServer::builder(|| EchoAddress).wrap_request(proxied).bind(ANY).unwrap();
    let server = testing::serve(server);
    assert_eq!(ask(&server, "192.0.2.7:1", "who").1, "192.0.2.7:1\n");
    assert_eq!(ask(&server, "[2001:db8::7]:2", "who").1, "[2001:db8::7]:2\n");
}
