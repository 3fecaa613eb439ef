//! The promise: the 27 tests of CPython's `Lib/test/test_socketserver.py` (3.11) pass here. Each test
//! names those that it ports.
//!
//! `tests/process_tests/cpython.rs` has those that fork or count descriptors.

#[path = "../crates/sockserver/tests/support/mod.rs"]
mod support;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;
use sock::{AF_INET, Address, SOCK_STREAM, Socket};
use sockserver::kind::{Inet, Kind};
use sockserver::{
    DatagramContext, DatagramRequestHandler, DatagramServer, MixIn, Request, RequestError, Sequential,
    Server, ServerHooks, StreamContext, StreamRequestHandler, StreamServer, TCPServer, ThreadingMixIn,
    ThreadingTCPServer, handler_fn,
};

use support::{LOOPBACK, StopOnDrop, connect_to, datagram_client, read_to_end, wait_until};

/// CPython's `MyStreamHandler` and `MyDatagramHandler`: they echo a line.
struct Echo;

impl StreamRequestHandler for Echo {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        io::BufRead::read_line(&mut cx.rfile, &mut line)?;
        cx.wfile.write_all(line.as_bytes())
    }
}

impl DatagramRequestHandler for Echo {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        cx.rfile.read_to_end(&mut line)?;
        cx.wfile.write_all(&line)
    }
}

/// CPython's `run_server`: three clients, then `shutdown`, join, `server_close`.
#[track_caller]
fn run_server<K: Kind, M: MixIn>(server: Server<K, M>, examine: impl Fn(&Address)) {
    let address = server.server_address().clone();
    assert_eq!(address, server.socket().getsockname().unwrap(), "server_address");
    thread::scope(|scope| {
        let _stop = StopOnDrop(server.handle());
        let serving = scope.spawn(|| server.serve_forever());
        for _ in 0..3 {
            examine(&address);
        }
        server.shutdown().unwrap();
        serving.join().unwrap().unwrap();
    });
    server.server_close().unwrap();
    // In Python the socket's fileno() is -1. Here the socket is dropped and its path removed.
    let next = Socket::new(address.family(), K::SOCKET_TYPE, 0).unwrap();
    if K::SOCKET_TYPE == SOCK_STREAM && address.family() == AF_INET {
        // Closed connections are in TIME_WAIT, and would make the bind fail.
        let refused = next.connect(&address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        return;
    }
    next.bind(&address).expect("cannot bind the address again");
    if let Some(path) = address.path() {
        std::fs::remove_file(path).unwrap();
    }
}

/// CPython's `stream_examine`.
fn stream_examine(address: &Address) {
    let client = connect_to(address);
    client.sendall(b"hello world\n").unwrap();
    assert_eq!(read_to_end(&client), "hello world\n");
}

/// CPython's `dgram_examine`. A client with a Unix socket must bind to receive answers.
fn dgram_examine(address: &Address) {
    let client = datagram_client(address.family());
    let folder = tempfile::tempdir().unwrap();
    if address.family() != AF_INET {
        client.bind(folder.path().join("client")).unwrap();
    }
    client.sendto(b"hello world\n", address).unwrap();
    assert_eq!(client.recv(100).unwrap(), b"hello world\n");
}

/// Tests both kinds and both families with a mixin.
fn matrix<M: MixIn + Default>() {
    run_server(StreamServer::<Inet, M>::new(LOOPBACK, || Echo).unwrap(), stream_examine);
    run_server(DatagramServer::<Inet, M>::new(LOOPBACK, || Echo).unwrap(), dgram_examine);
    #[cfg(unix)]
    {
        use sockserver::kind::Unix;
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        let stream = StreamServer::<Unix, M>::new(path("stream"), || Echo).unwrap();
        run_server(stream, stream_examine);
        let datagram = DatagramServer::<Unix, M>::new(path("datagram"), || Echo).unwrap();
        run_server(datagram, dgram_examine);
    }
}

/// SocketServerTest: `test_TCPServer`, `test_UDPServer`, `test_UnixStreamServer`,
/// `test_UnixDatagramServer`.
#[test]
fn servers_echo() {
    matrix::<Sequential>();
}

/// SocketServerTest: `test_ThreadingTCPServer`, `test_ThreadingUDPServer`,
/// `test_ThreadingUnixStreamServer`, `test_ThreadingUnixDatagramServer`.
#[test]
fn servers_with_threads_echo() {
    matrix::<ThreadingMixIn>();
}

/// SocketServerTest.`test_shutdown` (bpo-2302).
#[test]
fn shutdown_always_ends_serve_forever() {
    let servers: Vec<_> = (0..20).map(|_| TCPServer::new(LOOPBACK, || Echo).unwrap()).collect();
    let loops: Vec<_> = servers
        .into_iter()
        .map(|server| {
            let handle = server.handle();
            let serving = thread::spawn(move || {
                server.serve_forever().unwrap();
                server.server_close()
            });
            handle.shutdown().unwrap();
            serving
        })
        .collect();
    for serving in loops {
        serving.join().unwrap().unwrap();
    }
}

/// SocketServerTest.`test_close_immediately`: without requests, closing does not wait.
#[test]
fn close_immediately() {
    ThreadingTCPServer::new(LOOPBACK, || Echo).unwrap().server_close().unwrap();
}

/// SocketServerTest.`test_context_manager`: leaving the block closes the listener.
#[test]
fn dropping_a_server_closes_it() {
    let address = {
        let server = TCPServer::new(LOOPBACK, || Echo).unwrap();
        server.server_address().clone()
    };
    let refused = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap().connect(&address).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

/// The calls that CPython's `BaseErrorTestServer` records.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn add(&self, call: impl Into<String>) {
        self.0.lock().push(call.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl ServerHooks for Seen {
    fn handle_error(&self, error: &RequestError, _client_address: &Address) {
        self.add(format!("handle_error {error}"));
    }

    fn shutdown_request(&self, _request: &Request) {
        self.add("shutdown_request");
    }
}

/// Python's `BadHandler`, which raises.
struct Bad {
    seen: Seen,
    panics: bool,
}

impl StreamRequestHandler for Bad {
    fn handle(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        assert!(!self.panics, "as planned");
        self.seen.add("handle");
        Err(io::Error::other("as planned"))
    }
}

#[track_caller]
fn error_is_handled<M: MixIn + Default>(panics: bool) {
    let seen = Seen::default();
    let theirs = seen.clone();
    let make = move || Bad { seen: theirs.clone(), panics };
    let server = StreamServer::<Inet, M>::builder(make).hooks(seen.clone()).bind(LOOPBACK).unwrap();
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    assert_eq!(read_to_end(&client), "");
    server.server_close().unwrap();
    let error_call = if panics { "handle_error panicked: as planned" } else { "handle_error as planned" };
    let handled: &[&str] = if panics { &[] } else { &["handle"] };
    assert_eq!(seen.take(), [handled, &[error_call, "shutdown_request"]].concat());
}

/// ErrorHandlerTest: `test_sync_handled`, `test_threading_handled`.
#[test]
fn an_error_of_a_handler_reaches_handle_error() {
    error_is_handled::<Sequential>(false);
    error_is_handled::<ThreadingMixIn>(false);
}

/// ErrorHandlerTest: `test_sync_not_handled`, `test_threading_not_handled`. In Python `SystemExit`
/// ends the server without a call of `handle_error`. Rust has no `SystemExit`, and a panic is an
/// error of one request.
#[test]
fn a_panic_in_a_handler_ends_its_request_only() {
    error_is_handled::<Sequential>(true);
    error_is_handled::<ThreadingMixIn>(true);
}

/// SocketWriterTest.`test_basics`: `wfile` is a writer of bytes over the request.
#[test]
fn wfile_writes_to_the_request() {
    fn is_a_writer(_: &mut impl Write) {}
    let server = TCPServer::new(
        LOOPBACK,
        handler_fn(|cx| {
            is_a_writer(&mut cx.wfile);
            // Python compares the two descriptors.
            cx.wfile.write_all(b"by wfile, ")?;
            cx.request.sendall(b"by request, ")?;
            cx.wfile.write_all(b"by wfile")
        }),
    )
    .unwrap();
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    assert_eq!(read_to_end(&client), "by wfile, by request, by wfile");
}

/// The first half of SocketWriterTest.`test_write`: a write is sent at once and completely. The other
/// half, with signals, is in `tests/process_tests/cpython.rs`.
#[test]
fn a_write_is_sent_at_once_and_completely() {
    const LONG: usize = 20 << 20;
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = TCPServer::new(
        LOOPBACK,
        handler_fn(move |cx| {
            let first = cx.wfile.write(b"first, ")?;
            // Returns only after the client has received it, without a flush.
            let seen = cx.request.recv(1)?;
            let long = cx.wfile.write(&vec![b'x'; LONG])?;
            let _ = sender.send((first, seen, long));
            Ok(())
        }),
    )
    .unwrap();
    let client = connect_to(server.server_address());
    thread::scope(|scope| {
        let serving = scope.spawn(|| server.handle_request());
        assert_eq!(client.recv(100).unwrap(), b"first, ");
        client.sendall(b"!").unwrap();
        assert_eq!(read_to_end(&client).len(), LONG);
        serving.join().unwrap().unwrap();
    });
    assert_eq!(receiver.recv().unwrap(), (7, b"!".to_vec(), LONG));
}

/// MiscTestCase.`test_all`: every name of `socketserver.__all__` is there.
#[test]
fn every_name_is_exported() {
    #[allow(unused_imports)]
    use sockserver::{
        DatagramRequestHandler, StreamRequestHandler, TCPServer, ThreadingMixIn, ThreadingTCPServer,
        ThreadingUDPServer, UDPServer,
    };
    #[cfg(unix)]
    #[allow(unused_imports)]
    use sockserver::{
        ForkingMixIn, ForkingTCPServer, ForkingUDPServer, ForkingUnixDatagramServer,
        ForkingUnixStreamServer, ThreadingUnixDatagramServer, ThreadingUnixStreamServer,
        UnixDatagramServer, UnixStreamServer,
    };
    // BaseServer and BaseRequestHandler, which are abstract in Python:
    let differences = include_str!("../docs/differences.md");
    for name in ["`BaseServer`", "`BaseRequestHandler`"] {
        assert!(differences.contains(name), "docs/differences.md does not mention {name}");
    }
}

/// Counts requests and refuses all of them.
struct Refusing {
    shut: Arc<AtomicUsize>,
}

impl ServerHooks for Refusing {
    fn verify_request(&self, _request: &Request, _client_address: &Address) -> bool {
        false
    }

    fn shutdown_request(&self, _request: &Request) {
        self.shut.fetch_add(1, Ordering::SeqCst);
    }
}

/// MiscTestCase.`test_shutdown_request_called_if_verify_request_false` (bpo-26309).
#[test]
fn a_refused_request_is_shut_down_once() {
    let shut = Arc::new(AtomicUsize::new(0));
    let hooks = Refusing { shut: Arc::clone(&shut) };
    let server = TCPServer::builder(|| Echo).hooks(hooks).bind(LOOPBACK).unwrap();
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    assert_eq!(read_to_end(&client), "");
    assert_eq!(shut.load(Ordering::SeqCst), 1);
    assert_eq!(server.stats().rejected, 1);
}

/// MiscTestCase.`test_threads_reaped` (bpo-37193): after ten requests there are fewer than ten threads.
/// `tests/process_tests` tests how many are kept.
#[test]
fn threads_do_not_accumulate() {
    let threads = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let seen = Arc::clone(&threads);
    let server = ThreadingTCPServer::new(
        LOOPBACK,
        handler_fn(move |cx| {
            seen.lock().insert(thread::current().id());
            cx.wfile.write_all(b"done")
        }),
    )
    .unwrap();
    for _ in 0..10 {
        let client = connect_to(server.server_address());
        server.handle_request().unwrap();
        assert_eq!(read_to_end(&client), "done");
        // The thread becomes idle shortly after its client has the response.
        wait_until("the request has ended", || server.stats().in_flight == 0);
        wait_until("its thread is idle", || format!("{:?}", server.mixin()).contains("idle_threads: 1"));
    }
    assert_eq!(threads.lock().len(), 1, "requests one after another used several threads");
    server.server_close().unwrap();
}
