//! The promise: the default timeout of the program, which `sock::setdefaulttimeout` sets, applies to
//! connections. What a server uses itself has no timeout: signals, messages of children and workers,
//! and the duties of a handover.

use std::io::{self, Write};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fork::{Fork, fork};
use rustix::process::{Pid, Signal, getpid, kill_process};
use sock::{AF_INET, AF_UNIX, Address, SOCK_STREAM, Socket, poll, setdefaulttimeout};
use sockserver::handover::{Handover, Upgrade};
use sockserver::kind::Inet;
use sockserver::{
    DatagramContext, DatagramServer, ForkingTCPServer, MixIn, ProxyProtocol, SelectorTCPServer,
    StreamContext, StreamServer, UDPServer, datagram_handler_fn, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, datagram_client, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("a_signal_drains_a_server_after_the_default_timeout", || for_each_model!(drains_after_a_pause)),
    ("a_server_with_a_handover_serves_with_a_long_default_timeout", || {
        for_each_model!(serves_with_a_handover);
    }),
    ("a_forking_server_serves_beside_a_child_with_a_long_default_timeout", serves_beside_a_child),
    ("a_header_may_arrive_after_the_default_timeout", a_header_may_arrive_later),
    ("datagrams_are_served_with_a_long_default_timeout", || for_each_model!(serves_datagrams)),
    ("batches_of_datagrams_are_served_with_a_long_default_timeout", serves_batches),
];

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

const SHORT: Duration = Duration::from_millis(20);

/// Lets several default timeouts pass.
fn pause() {
    assert_eq!(poll(&mut [], Some(10 * SHORT)).unwrap(), 0);
}

/// Serves with `serve` until the client, which runs in another process, has ended. A server that
/// forks must not have other threads.
pub(crate) fn with_client(serve: impl FnOnce(), client: impl FnOnce()) {
    let server = getpid();
    match fork().unwrap() {
        Fork::Child => {
            let result = panic::catch_unwind(panic::AssertUnwindSafe(client));
            if result.is_err() {
                kill_process(server, Signal::KILL).unwrap();
            }
            std::process::exit(i32::from(result.is_err()));
        }
        Fork::Parent(client) => {
            serve();
            fork::waitpid(client).unwrap();
        }
    }
}

/// Ends the server of [`with_client`].
fn terminate(server: Pid) {
    kill_process(server, Signal::TERM).unwrap();
}

/// Sends a byte and returns the answer.
fn ask(address: &Address) -> String {
    let client = connect_to(address);
    client.sendall(b"?").unwrap();
    read_to_end(&client)
}

/// The default timeout applies to the connection, so it sets another one.
fn answer(cx: &mut StreamContext<'_>) -> io::Result<()> {
    cx.request.socket().settimeout(LIMIT)?;
    cx.request.recv(1)?;
    cx.wfile.write_all(b"served")
}

fn drains_after_a_pause<M: MixIn + Default>(_: &str, mixin: impl Fn() -> M) {
    setdefaulttimeout(SHORT).unwrap();
    let has_ended = AtomicBool::new(false);
    let server = StreamServer::<Inet, M>::builder(handler_fn(answer))
        .mixin(mixin())
        .drain_on_signals(LIMIT)
        .service_actions(move |server| {
            if server.stats().finished == 2 && !has_ended.swap(true, Ordering::Relaxed) {
                server.request_shutdown().unwrap();
            }
        });
    let server = server.poll_interval(Duration::from_millis(5)).bind(LOOPBACK).unwrap();
    let (address, pid) = (server.server_address().clone(), getpid());
    let serve = || {
        // The first loop ends after the second client.
        server.serve_forever().unwrap();
        pause();
        server.serve_forever().unwrap();
    };
    with_client(serve, || {
        assert_eq!(ask(&address), "served");
        pause();
        assert_eq!(ask(&address), "served");
        assert_eq!(ask(&address), "served");
        pause();
        terminate(pid);
    });
    assert_eq!(server.stats().finished, 3);
    server.server_close().unwrap();
}

fn serves_with_a_handover<M: MixIn + Default>(_: &str, mixin: impl Fn() -> M) {
    setdefaulttimeout(LONG).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let server = StreamServer::<Inet, M>::builder(handler_fn(answer))
        .mixin(mixin())
        .handover(Handover::at(&path))
        .upgrade_on_signal(Upgrade::to_current_program().unwrap())
        .drain_on_signals(LIMIT)
        .bind(LOOPBACK)
        .unwrap();
    let (address, pid) = (server.server_address().clone(), getpid());
    let serve = || server.serve_forever().unwrap();
    with_client(serve, || {
        assert_eq!(ask(&address), "served");
        // A successor that sends nothing.
        let successor = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
        successor.connect(&path).unwrap();
        for _ in 0..3 {
            assert_eq!(ask(&address), "served");
            pause();
        }
        terminate(pid);
    });
    server.server_close().unwrap();
}

fn serves_beside_a_child() {
    setdefaulttimeout(LONG).unwrap();
    let server = ForkingTCPServer::builder(handler_fn(|cx| {
        cx.wfile.write_all(b"begun ")?;
        // The first client sends after the second one was served.
        let text = cx.request.recv(1)?;
        cx.wfile.write_all(&text)
    }));
    let server = server.drain_on_signals(LIMIT).bind(LOOPBACK).unwrap();
    let (address, pid) = (server.server_address().clone(), getpid());
    with_client(
        || server.serve_forever().unwrap(),
        || {
            let first = connect_to(&address);
            assert_eq!(first.recv(6).unwrap(), b"begun ");
            assert_eq!(ask(&address), "begun ?");
            first.sendall(b"1").unwrap();
            assert_eq!(read_to_end(&first), "1");
            terminate(pid);
        },
    );
    server.server_close().unwrap();
}

fn a_header_may_arrive_later() {
    setdefaulttimeout(SHORT).unwrap();
    let proxies = ProxyProtocol::from_networks(["127.0.0.1"]).unwrap().header_timeout(LIMIT);
    let server = SelectorTCPServer::builder(handler_fn(answer)).proxy_protocol(proxies);
    let server = sockserver::testing::serve(server.bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    client.sendall(b"PROXY TCP4 192.0.2.7 ").unwrap();
    pause();
    client.sendall(b"198.51.100.2 56324 443\r\n?").unwrap();
    assert_eq!(read_to_end(&client), "served");
}

fn serves_datagrams<M: MixIn + Default>(_: &str, mixin: impl Fn() -> M) {
    setdefaulttimeout(LONG).unwrap();
    let server = DatagramServer::<Inet, M>::builder(datagram_handler_fn(echo)).mixin(mixin());
    serve_datagrams(&server.drain_on_signals(LIMIT).bind(LOOPBACK).unwrap());
}

fn serves_batches() {
    setdefaulttimeout(LONG).unwrap();
    let server = UDPServer::builder(datagram_handler_fn(echo)).max_batch(8);
    serve_datagrams(&server.drain_on_signals(LIMIT).bind(LOOPBACK).unwrap());
}

fn serve_datagrams<M: MixIn>(server: &DatagramServer<Inet, M>) {
    let pid = getpid();
    with_client(
        || server.serve_forever().unwrap(),
        || {
            let client = datagram_client(AF_INET);
            for text in ["one", "two"] {
                client.sendto(text.as_bytes(), server.server_address()).unwrap();
                assert_eq!(client.recv(100).unwrap(), text.as_bytes());
            }
            terminate(pid);
        },
    );
}

fn echo(cx: &mut DatagramContext<'_>) -> io::Result<()> {
    let data = cx.packet.to_vec();
    cx.wfile.write_all(&data)
}
