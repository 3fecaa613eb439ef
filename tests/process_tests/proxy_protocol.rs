//! The promise: models with processes treat the PROXY protocol as the other models do, and the parent
//! knows the client that the header names in a child. Refused headers are logged at most once per
//! second for each reason, and leave no descriptor open.

use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sock::Socket;
use sockserver::kind::{Inet, Stream};
use sockserver::testing::{self, LeakCheck};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, ProxyProtocol, SelectorTCPServer, Stats,
    StreamContext, ThreadingTCPServer, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end, wait_for_stats};

pub(crate) const TESTS: &[Test] = &[
    ("proxy_protocol_forking_serves_the_named_client", forking_serves),
    ("proxy_protocol_prefork_serves_the_named_client", prefork_serves),
    ("proxy_protocol_forking_limits_the_named_address", forking_limits),
    ("proxy_protocol_prefork_limits_the_named_address", prefork_limits),
    ("proxy_protocol_refusals_are_logged_once_per_second", refusals_are_logged),
    ("proxy_protocol_refusals_of_children_are_logged_once_per_second", refusals_of_children_are_logged),
    ("proxy_protocol_leaves_no_descriptor", leaves_no_descriptor),
    ("proxy_protocol_serves_a_header_that_arrived_during_a_pause", serves_after_a_pause),
];

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n";

/// `LOCAL` of version 2.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn loopback() -> ProxyProtocol {
    ProxyProtocol::from_networks(["127.0.0.1"]).unwrap().header_timeout(LIMIT)
}

fn line(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    write!(cx.wfile, "{} {line}", cx.client_address)
}

/// Serves the clients, which have sent all their input, until `ends`. Returns the counters and what
/// each client has received.
fn serve<M: MixIn>(
    builder: Builder<Stream<Inet>, M>,
    inputs: &[&[u8]],
    ends: impl Fn(&Stats) -> bool + Send + Sync + 'static,
) -> (Stats, Vec<String>) {
    let check = LeakCheck::begin();
    let begin = Instant::now();
    let server = builder
        .poll_interval(Duration::from_millis(5))
        .service_actions(move |server| {
            if ends(&server.stats()) {
                server.request_shutdown().unwrap();
            }
            assert!(begin.elapsed() < LIMIT, "{:?}", server.stats());
        })
        .bind(LOOPBACK)
        .unwrap();
    let connect = |input: &&[u8]| {
        let client = connect_to(server.server_address());
        client.sendall(input).unwrap();
        client
    };
    let clients: Vec<Socket> = inputs.iter().map(connect).collect();
    server.serve_forever().unwrap();
    let _ = server.drain(Duration::ZERO).unwrap();
    let stats = server.stats();
    server.server_close().unwrap();
    let received =
        clients.iter().map(|client| read_to_end(client).replace("ConnectionReset", "")).collect();
    drop(clients);
    check.assert_nothing_left();
    (stats, received)
}

fn serves_the_named_client<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let named = [V1, b"one\n"].concat();
    let local = [LOCAL, b"two\n"].concat();
    let inputs: [&[u8]; 4] = [&named, &local, b"GET / HTTP/1.1\r\n\r\n", &V1[..10]];
    let deadline = loopback().header_timeout(Duration::from_millis(150));
    let builder = builder.proxy_protocol(deadline).wrap_request(|request, _| Ok(request));
    let (stats, received) = serve(builder, &inputs, |stats| stats.accepted == 4 && stats.in_flight == 0);
    assert_eq!(received[0], "192.0.2.7:56324 one\n");
    assert!(received[1].starts_with("127.0.0.1:") && received[1].ends_with(" two\n"), "{received:?}");
    assert_eq!(received[2..], ["", ""]);
    assert_eq!((stats.finished, stats.rejected, stats.timed_out.proxy_header), (2, 1, 1), "{stats:?}");
}

fn forking_serves() {
    serves_the_named_client(ForkingTCPServer::builder(handler_fn(line)));
}

fn prefork_serves() {
    serves_the_named_client(
        PreforkTCPServer::builder(handler_fn(line)).workers(2).worker_class(crate::worker_class()),
    );
}

/// Two clients of one address, one of another, and one of which no header comes: all through one
/// proxy.
fn limits_the_named_address<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let inputs: [&[u8]; 4] = [V1, b"PROXY TCP4 192.0.2.8 198.51.100.2 56324 443\r\n", V1, b"PROXY"];
    let builder = builder.max_connections_per_ip(1).proxy_protocol(loopback());
    let (stats, _) = serve(builder, &inputs, |stats| stats.rejected == 1 && stats.in_flight == 3);
    // A drain without time closes some as idle and aborts the others.
    assert!(stats.is_consistent(), "{stats:?}");
    assert_eq!((stats.accepted, stats.rejected), (4, 1), "{stats:?}");
}

fn forking_limits() {
    limits_the_named_address(ForkingTCPServer::builder(handler_fn(line)));
}

fn prefork_limits() {
    limits_the_named_address(
        PreforkTCPServer::builder(handler_fn(line)).workers(4).worker_class(crate::worker_class()),
    );
}

/// Counts the lines of the log.
struct Counting(Mutex<Vec<String>>);

impl log::Log for Counting {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{}: {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

static LOG: Counting = Counting(Mutex::new(Vec::new()));

fn refusals_are_logged() {
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let begin = Instant::now();
    let forged: Vec<&[u8]> = vec![b"GET / HTTP/1.1\r\n\r\n"; 20];
    let inputs = [&forged[..], &[b"PROXY TCP4 forged\r\n"]].concat();
    let builder = ThreadingTCPServer::builder(handler_fn(line)).proxy_protocol(loopback());
    serve(builder, &inputs, |stats| stats.rejected == 21);
    let untrusted = ProxyProtocol::from_networks(["192.0.2.0/24"]).unwrap();
    let builder = ThreadingTCPServer::builder(handler_fn(line)).proxy_protocol(untrusted);
    serve(builder, &[V1; 20], |stats| stats.rejected == 20);
    let slow = loopback().header_timeout(Duration::from_millis(50));
    let builder = SelectorTCPServer::builder(handler_fn(line)).proxy_protocol(slow);
    serve(builder, &[&b"PROXY"[..]; 20], |stats| stats.timed_out.proxy_header == 20);
    let lines = LOG.0.lock().unwrap().clone();
    let seconds = begin.elapsed().as_secs() as usize + 1;
    for reason in [
        "it sent no PROXY protocol header",
        "its PROXY protocol header is malformed",
        "it is not in a trusted network of the PROXY protocol",
        "its PROXY protocol header did not arrive in time",
    ] {
        let of_reason: Vec<_> = lines.iter().filter(|line| line.contains(reason)).collect();
        assert!((1..=seconds).contains(&of_reason.len()), "{reason}: {lines:?}");
        assert!(of_reason[0].starts_with("WARN: refuse connection from 127.0.0.1:"), "{lines:?}");
    }
    assert!(lines.iter().all(|line| line.starts_with("WARN: refuse connection")), "{lines:?}");
}

/// A child has its own copy of the state that limits the log, and writes to a pipe here.
fn refusals_of_children_are_logged() {
    struct ToPipe(Socket);
    impl log::Log for ToPipe {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let _ = self.0.sendall(format!("{}\n", record.args()).as_bytes());
        }
        fn flush(&self) {}
    }
    let (ours, theirs) = sock::socketpair().unwrap();
    log::set_boxed_logger(Box::new(ToPipe(theirs))).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let begin = Instant::now();
    let inputs: [&[u8]; 10] = [b"GET / HTTP/1.1\r\n\r\n"; 10];
    let builder = ForkingTCPServer::builder(handler_fn(line)).max_children(1).proxy_protocol(loopback());
    serve(builder, &inputs, |stats| stats.rejected == 10);
    let text = String::from_utf8(ours.recv_with_flags(1 << 16, sock::MSG_DONTWAIT).unwrap()).unwrap();
    let lines = text.lines().filter(|line| line.contains("no PROXY protocol header")).count();
    assert!((1..=begin.elapsed().as_secs() as usize + 1).contains(&lines), "{text}");
}

/// SIGSTOP and SIGCONT, as when a virtual machine is suspended. The header arrives while the process
/// is stopped, and its deadline expires.
fn serves_after_a_pause() {
    fn pause<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let proxies = loopback().header_timeout(2);
        let server = builder.proxy_protocol(proxies).bind(LOOPBACK).unwrap();
        let client = connect_to(server.server_address());
        client.settimeout(LIMIT).unwrap();
        client.sendall(&V1[..10]).unwrap();
        let rest = String::from_utf8([&V1[10..], b"one\n"].concat()).unwrap();
        // The deadline timer takes more than a second of delay for a pause.
        let script = format!(
            "read go; kill -STOP {0}; sleep 3.5; printf %s '{rest}'; kill -CONT {0}",
            std::process::id()
        );
        let its_output = OwnedFd::from(client.dup().unwrap());
        // It runs before the client is accepted, with which the time begins.
        let mut shell = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(its_output)
            .spawn()
            .unwrap();
        let server = testing::serve(server);
        wait_for_stats(server.handle(), |stats| stats.in_flight == 1);
        shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let answer = read_to_end(&client);
        assert!(shell.wait().unwrap().success());
        assert_eq!(answer, "192.0.2.7:56324 one\n");
    }
    pause(ThreadingTCPServer::builder(handler_fn(line)));
    pause(SelectorTCPServer::builder(handler_fn(line)).workers(1));
}

/// Connections of a selector that wait for their header are closed with the server.
fn leaves_no_descriptor() {
    for with_hook in [false, true] {
        let builder = SelectorTCPServer::builder(handler_fn(line)).proxy_protocol(loopback());
        let builder = if with_hook { builder.wrap_request(|request, _| Ok(request)) } else { builder };
        let check = LeakCheck::begin();
        let server = builder.bind(LOOPBACK).unwrap();
        let client = connect_to(server.server_address());
        client.sendall(&V1[..10]).unwrap();
        let handle = server.handle();
        std::thread::scope(|scope| {
            scope.spawn(|| server.serve_forever());
            wait_for_stats(&handle, |stats| stats.in_flight == 1);
            handle.shutdown().unwrap();
        });
        server.server_close().unwrap();
        assert_eq!(read_to_end(&client).replace("ConnectionReset", ""), "");
        drop((client, handle));
        check.assert_nothing_left();
    }
}
