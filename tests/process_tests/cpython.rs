//! The promise of `tests/cpython_socketserver.rs`, for those of CPython's tests that
//! fork, count, or send signals. (`test_tcpserver_bind_leak` is
//! `failing_constructors_leave_no_descriptor`, and what `test_threads_reaped` bounds
//! `threads_are_used_again_and_gone_at_the_end`, both in `nothing_left.rs`.)

use std::io::{self, BufRead, Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::process::{Signal, getpid, kill_process};
use sock::{AF_UNIX, Address, MSG_DONTWAIT, SOCK_DGRAM, Socket};
use sockserver::kind::Kind;
use sockserver::testing::LeakCheck;
use sockserver::{
    DatagramContext, DatagramRequestHandler, ForkingMixIn, ForkingTCPServer, ForkingUDPServer,
    ForkingUnixDatagramServer, ForkingUnixStreamServer, Request, RequestError, Server, ServerHandle,
    ServerHooks, StreamContext, StreamRequestHandler, TCPServer, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, client_of, rest_of};

pub(crate) const TESTS: &[Test] = &[
    ("cpython_test_forking_servers", forking_servers),
    ("cpython_test_forking_handled", forking_handled),
    ("cpython_test_forking_not_handled", forking_not_handled),
    ("cpython_test_write", write_under_signals),
];

struct Echo;

impl StreamRequestHandler for Echo {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        cx.wfile.write_all(line.as_bytes())
    }
}

impl DatagramRequestHandler for Echo {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        cx.rfile.read_to_end(&mut cx.wfile).map(drop)
    }
}

/// Stops the loop once its children have served three requests.
fn stop_after_three(server: &ServerHandle) {
    if server.stats().finished >= 3 {
        server.request_shutdown().unwrap();
    }
}

/// CPython's `run_server` and `simple_subprocess`: three clients are served by three
/// children, and a child of other code is left to that.
fn run_server<K: Kind>(server: Server<K, ForkingMixIn>, ask: impl Fn(&Address) -> Socket) {
    // `sh` ends at once, as CPython's child does, and waits to be collected.
    let mut foreign = Command::new("sh").args(["-c", "exit 72"]).spawn().unwrap();
    assert_eq!(*server.server_address(), server.socket().getsockname().unwrap());
    let clients: Vec<Socket> = (0..3).map(|_| ask(server.server_address())).collect();
    server.serve_forever().unwrap();
    for client in &clients {
        assert_eq!(client.recv(100).unwrap(), b"hello world\n");
    }
    assert_eq!(server.mixin().active_children(), 0);
    server.server_close().unwrap();
    assert_eq!(foreign.wait().unwrap().code(), Some(72), "not ours to collect");
}

fn ask_stream(address: &Address) -> Socket {
    let client = client_of(address);
    client.sendall(b"hello world\n").unwrap();
    client
}

/// SocketServerTest: `test_ForkingTCPServer`, `test_ForkingUDPServer`,
/// `test_ForkingUnixStreamServer`, `test_ForkingUnixDatagramServer`.
fn forking_servers() {
    let check = LeakCheck::begin();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let ask_datagram = |address: &Address| {
        let client = Socket::new(address.family(), SOCK_DGRAM, 0).unwrap();
        client.settimeout(LIMIT).unwrap();
        if address.family() == AF_UNIX {
            let own = (0..).map(|number| path(&format!("client {number}")));
            client.bind(own.into_iter().find(|path| !path.exists()).unwrap()).unwrap();
        }
        client.sendto(b"hello world\n", address).unwrap();
        client
    };
    run_server(
        ForkingTCPServer::builder(|| Echo).service_actions(stop_after_three).bind(LOOPBACK).unwrap(),
        ask_stream,
    );
    run_server(
        ForkingUDPServer::builder(|| Echo).service_actions(stop_after_three).bind(LOOPBACK).unwrap(),
        ask_datagram,
    );
    run_server(
        ForkingUnixStreamServer::builder(|| Echo)
            .service_actions(stop_after_three)
            .bind(path("stream"))
            .unwrap(),
        ask_stream,
    );
    run_server(
        ForkingUnixDatagramServer::builder(|| Echo)
            .service_actions(stop_after_three)
            .bind(path("datagram"))
            .unwrap(),
        ask_datagram,
    );
    drop(folder);
    check.assert_nothing_left();
}

/// CPython's `BaseErrorTestServer`: what the child calls comes as datagrams.
struct Told(Socket);

impl ServerHooks for Told {
    fn handle_error(&self, error: &RequestError, _client_address: &Address) {
        self.0.send(format!("{error}").as_bytes()).unwrap();
    }

    fn shutdown_request(&self, request: &Request) {
        self.0.send(b"shutdown_request").unwrap();
        let _ = request.stream().expect("a connection").shutdown(sock::SHUT_WR);
    }
}

fn error_in_a_child(panics: bool, expected: &str) {
    let check = LeakCheck::begin();
    let (tell, told) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let bad = handler_fn(move |_| {
        assert!(!panics, "as planned");
        Err(io::Error::other("as planned"))
    });
    let server = ForkingTCPServer::builder(bad).hooks(Told(tell)).bind(LOOPBACK).unwrap();
    let client = client_of(server.server_address());
    server.handle_request().unwrap();
    assert_eq!(rest_of(&client), "");
    let handle = server.handle();
    server.server_close().unwrap();
    let stats = handle.stats();
    assert!(stats.is_consistent(), "{stats:?}");
    let outcomes = (stats.failed, stats.panicked, stats.in_flight);
    assert_eq!(outcomes, if panics { (0, 1, 0) } else { (1, 0, 0) });
    let next = || String::from_utf8(told.recv_with_flags(100, MSG_DONTWAIT).unwrap()).unwrap();
    assert_eq!((next().as_str(), next().as_str()), (expected, "shutdown_request"));
    drop((client, told, handle));
    check.assert_nothing_left();
}

/// ErrorHandlerTest.`test_forking_handled`: the child calls `handle_error`.
fn forking_handled() {
    error_in_a_child(false, "as planned");
}

/// ErrorHandlerTest.`test_forking_not_handled`: in Python `SystemExit` ends the child
/// unheard. Rust has none; a panic is an error like others, with an exit status of
/// its own.
fn forking_not_handled() {
    error_in_a_child(true, "panicked: as planned");
}

/// SocketWriterTest.`test_write`: a write survives signals without being cut short.
fn write_under_signals() {
    const LONG: usize = 20 << 20;
    let came = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = Arc::clone(&came);
    let id = signal_hook::flag::register_usize(signal_hook::consts::SIGUSR1, counting, 1).unwrap();
    let server = TCPServer::new(
        LOOPBACK,
        handler_fn(|cx| {
            assert_eq!(cx.wfile.write(b"write data\n")?, 11);
            let mut line = String::new();
            cx.rfile.read_line(&mut line)?;
            assert_eq!(line, "client response\n");
            assert_eq!(cx.wfile.write(&vec![0; LONG])?, LONG);
            Ok(())
        }),
    )
    .unwrap();
    let client = client_of(server.server_address());
    thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let mut file = client.makefile_rb();
            let mut line = String::new();
            file.read_line(&mut line).unwrap();
            assert_eq!(line, "write data\n");
            client.sendall(b"client response\n").unwrap();
            let mut seen = 100;
            file.read_exact(&mut [0; 100]).unwrap();
            // The handler waits in send now; a signal before each piece of it.
            let mut piece = vec![0; 1 << 16];
            loop {
                kill_process(getpid(), Signal::USR1).unwrap();
                match file.read(&mut piece).unwrap() {
                    0 => return seen,
                    read => seen += read,
                }
            }
        });
        server.handle_request().unwrap();
        assert_eq!(talk.join().unwrap(), LONG);
    });
    assert_eq!(server.stats().finished, 1, "{:?}", server.stats());
    signal_hook::low_level::unregister(id);
    assert_eq!(came.load(std::sync::atomic::Ordering::SeqCst), 1, "signals came");
}
