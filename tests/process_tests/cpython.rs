//! CPython's tests of `socketserver` that fork, count resources or send signals. The others are in
//! `tests/cpython_socketserver.rs`. `test_tcpserver_bind_leak` is
//! `failing_constructors_leave_no_descriptor`, and `test_threads_reaped` is
//! `threads_are_reused_and_end_with_the_server`, both in `nothing_left.rs`.

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
use crate::support::{LOOPBACK, connect_to, datagram_client, read_to_end};

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

/// CPython's `run_server` and `simple_subprocess`. Three children serve three clients, and a child of
/// other code is not reaped.
fn run_server<K: Kind>(server: Server<K, ForkingMixIn>, ask: impl Fn(&Address) -> Socket) {
    // `sh` ends at once, like CPython's child, and is a zombie.
    let mut foreign = Command::new("sh").args(["-c", "exit 72"]).spawn().unwrap();
    assert_eq!(*server.server_address(), server.socket().getsockname().unwrap());
    let clients: Vec<Socket> = (0..3).map(|_| ask(server.server_address())).collect();
    server.serve_forever().unwrap();
    for client in &clients {
        assert_eq!(client.recv(100).unwrap(), b"hello world\n");
    }
    assert_eq!(server.mixin().active_children(), 0);
    server.server_close().unwrap();
    assert_eq!(foreign.wait().unwrap().code(), Some(72), "the child of other code was reaped");
}

fn ask_stream(address: &Address) -> Socket {
    let client = connect_to(address);
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
        let client = datagram_client(address.family());
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

/// CPython's `BaseErrorTestServer`. The child sends its calls as datagrams.
struct SendCalls(Socket);

impl ServerHooks for SendCalls {
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
    let (sender, receiver) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let bad = handler_fn(move |_| {
        assert!(!panics, "as planned");
        Err(io::Error::other("as planned"))
    });
    let server = ForkingTCPServer::builder(bad).hooks(SendCalls(sender)).bind(LOOPBACK).unwrap();
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    assert_eq!(read_to_end(&client), "");
    let handle = server.handle();
    server.server_close().unwrap();
    let stats = handle.stats();
    assert!(stats.is_consistent(), "{stats:?}");
    let outcomes = (stats.failed, stats.panicked, stats.in_flight);
    assert_eq!(outcomes, if panics { (0, 1, 0) } else { (1, 0, 0) });
    let next = || String::from_utf8(receiver.recv_with_flags(100, MSG_DONTWAIT).unwrap()).unwrap();
    assert_eq!((next().as_str(), next().as_str()), (expected, "shutdown_request"));
    drop((client, receiver, handle));
    check.assert_nothing_left();
}

/// ErrorHandlerTest.`test_forking_handled`: the child calls `handle_error`.
fn forking_handled() {
    error_in_a_child(false, "as planned");
}

/// ErrorHandlerTest.`test_forking_not_handled`. In Python `SystemExit` ends the child without a call
/// of `handle_error`. Rust has no `SystemExit`. A panic is an error, with its own exit status.
fn forking_not_handled() {
    error_in_a_child(true, "panicked: as planned");
}

/// SocketWriterTest.`test_write`: signals do not shorten a write.
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
    let client = connect_to(server.server_address());
    thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let mut file = client.makefile_rb();
            let mut line = String::new();
            file.read_line(&mut line).unwrap();
            assert_eq!(line, "write data\n");
            client.sendall(b"client response\n").unwrap();
            let mut seen = 100;
            file.read_exact(&mut [0; 100]).unwrap();
            // The handler is blocked in send. A signal is sent before each part is received.
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
