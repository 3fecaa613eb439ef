//! The promise: a client whose address is denied, or exceeds the accept rate, is not served and is seen
//! by no hook. It is counted. The rules can be replaced while the server serves.
//!
//! The models that fork are in `tests/process_tests/access.rs`.

mod support;

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sock::{Address, SOCK_DGRAM, Socket};
use sockserver::kind::{Datagram, Inet, Stream};
use sockserver::testing::{self, Running};
use sockserver::{
    AccessList, Builder, MixIn, ProxyProtocol, Request, ServerHooks, Stats, StreamContext, TCPServer,
    ThreadPoolTCPServer, ThreadPoolUDPServer, ThreadingTCPServer, ThreadingUDPServer, UDPServer,
    WrappedRequest, datagram_handler_fn, handler_fn,
};
#[cfg(unix)]
use sockserver::{SelectorTCPServer, UnixStreamServer};

use support::{LIMIT, LOOPBACK, connect_to, datagram_client, has_ipv6, read_to_end, wait_for_stats};

/// Answers a line with the client's address. A selector calls no handler before there is input.
fn name(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = Vec::new();
    cx.rfile.read_until(b'\n', &mut line)?;
    write!(cx.wfile, "{}", cx.client_address)
}

/// Calls a generic test with a builder of each model without processes.
macro_rules! with_each_model {
    ($test:ident) => {
        $test(TCPServer::builder(handler_fn(name)));
        $test(ThreadingTCPServer::builder(handler_fn(name)));
        $test(ThreadPoolTCPServer::builder(handler_fn(name)).workers(2));
        #[cfg(unix)]
        $test(SelectorTCPServer::builder(handler_fn(name)).workers(2));
    };
}

/// Counts the calls of hooks for requests that are to be refused.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl ServerHooks for Counting {
    fn verify_request(&self, _: &Request, _: &Address) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn refuse_request(&self, _: &Request, _: &Address) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Returns what the client receives. A reset counts as the end of file.
fn received(client: &Socket) -> String {
    // The server may have reset the connection already.
    let _ = client.sendall(b"\n");
    read_to_end(client).replace("ConnectionReset", "")
}

fn ask(server: &Running) -> String {
    received(&connect_to(server.address()))
}

fn after(server: &Running, accepted: u64) -> Stats {
    let ended = |stats: &Stats| stats.accepted == accepted && stats.in_flight == 0;
    wait_for_stats(server.handle(), ended)
}

fn denies<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let hooks = Counting::default();
    let calls = Arc::clone(&hooks.0);
    let builder = builder.hooks(hooks).allow(["10.0.0.0/8"]).deny(["all"]);
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    for number in 1..=3 {
        assert_eq!(ask(&server), "");
        let stats = after(&server, number);
        assert_eq!((stats.denied, stats.rejected, stats.finished), (number, number, 0), "{stats:?}");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0, "hooks are not called");
    let handle = server.handle();
    handle.set_access(AccessList::new().allow(["127.0.0.0/8"]).unwrap().deny(["all"]).unwrap()).unwrap();
    assert!(ask(&server).starts_with("127.0.0.1:"));
    handle.set_access(AccessList::new().deny(["127.0.0.1"]).unwrap()).unwrap();
    assert_eq!(ask(&server), "");
    let useless = AccessList::new().deny(["all"]).unwrap().allow(["127.0.0.1"]).unwrap();
    assert_eq!(handle.set_access(useless).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(ask(&server), "", "the rules are as before");
    handle.set_access(AccessList::new()).unwrap();
    assert!(ask(&server).starts_with("127.0.0.1:"));
    let stats = after(&server, 7);
    assert_eq!((stats.denied, stats.rejected, stats.finished), (5, 5, 2), "{stats:?}");
    let text = stats.to_openmetrics();
    assert!(text.contains("\nsockserver_denied_total{reason=\"access_list\"} 5\n"), "{text}");
}

#[test]
fn a_denied_client_is_refused_and_counted_until_the_rules_are_replaced() {
    with_each_model!(denies);
}

#[test]
fn a_denied_client_does_not_count_as_one_beyond_the_connection_limit() {
    let hooks = Counting::default();
    let calls = Arc::clone(&hooks.0);
    let builder = ThreadingTCPServer::builder(handler_fn(name)).hooks(hooks).deny(["127.0.0.1"]);
    let builder = builder.when_full(sockserver::WhenFull::Refuse).max_connections(0);
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    assert_eq!(ask(&server), "");
    let stats = after(&server, 1);
    assert_eq!((stats.denied, stats.rejected), (1, 1), "{stats:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 0, "refuse_request is not called");
}

#[test]
fn an_ipv4_client_of_a_dual_stack_server_is_treated_as_ipv4() {
    if !has_ipv6() {
        return;
    }
    let builder = ThreadingTCPServer::builder(handler_fn(name)).deny(["127.0.0.0/8"]);
    let server = testing::serve(builder.bind(("::", 0)).unwrap());
    let port = server.address().port().unwrap();
    let connect = |host: &str| sock::create_connection((host, port)).unwrap();
    assert_eq!(received(&connect("127.0.0.1")), "");
    assert!(received(&connect("::1")).contains("::1"));
    let stats = after(&server, 2);
    assert_eq!((stats.denied, stats.finished), (1, 1), "{stats:?}");
}

#[cfg(unix)]
#[test]
fn the_peers_of_unix_sockets_have_rules_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let serve = |name: &str, allows: &[&str], denies: &[&str]| {
        let builder = UnixStreamServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")));
        let server = builder.allow(allows).deny(denies).bind(directory.path().join(name)).unwrap();
        let server = testing::serve(server);
        ask(&server)
    };
    assert_eq!(serve("networks", &[], &["127.0.0.1", "::/0", "0.0.0.0/0"]), "hello");
    assert_eq!(serve("all", &["127.0.0.1"], &["all"]), "");
    assert_eq!(serve("unix", &[], &["unix:"]), "");
    assert_eq!(serve("allowed", &["unix:"], &["all"]), "hello");
}

fn drops_datagrams<M: MixIn>(builder: Builder<Datagram<Inet>, M>) {
    let server = testing::serve(builder.deny(["127.0.0.1"]).bind(LOOPBACK).unwrap());
    let client = datagram_client(sock::AF_INET);
    client.sendto(b"denied", server.address()).unwrap();
    let stats = after(&server, 1);
    assert_eq!((stats.denied, stats.rejected), (1, 1), "{stats:?}");
    server.handle().set_access(AccessList::new()).unwrap();
    client.sendto(b"allowed", server.address()).unwrap();
    assert_eq!(client.recv(100).unwrap(), b"allowed");
    let stats = after(&server, 2);
    assert_eq!((stats.denied, stats.finished), (1, 1), "{stats:?}");
}

#[test]
fn a_datagram_of_a_denied_address_is_dropped_and_counted() {
    macro_rules! echo {
        () => {
            datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet))
        };
    }
    drops_datagrams(UDPServer::builder(echo!()));
    drops_datagrams(UDPServer::builder(echo!()).max_batch(8));
    // These make a job of each datagram.
    drops_datagrams(UDPServer::builder(echo!()).hooks(Counting::default()));
    drops_datagrams(ThreadingUDPServer::builder(echo!()));
    drops_datagrams(ThreadPoolUDPServer::builder(echo!()).workers(2));
}

fn loopback() -> ProxyProtocol {
    ProxyProtocol::from_networks(["127.0.0.0/8"]).unwrap().header_timeout(LIMIT)
}

fn applies_to_the_named_client<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let hooks = Counting::default();
    let calls = Arc::clone(&hooks.0);
    let builder = builder.hooks(hooks).proxy_protocol(loopback());
    let server = builder.deny(["127.0.0.1", "192.0.2.7"]).accept_rate_per_address(1, 2);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let ask = |header: &[u8]| {
        let client = connect_to(server.address());
        client.sendall(header).unwrap();
        received(&client)
    };
    let named = |last: u8| format!("PROXY TCP4 192.0.2.{last} 198.51.100.2 56324 443\r\n").into_bytes();
    assert_eq!(ask(&named(7)), "");
    assert_eq!(ask(b"PROXY UNKNOWN\r\n"), "", "the proxy itself");
    assert_eq!(ask(b"PROXY TCP6 ::ffff:192.0.2.7 ::1 56324 443\r\n"), "");
    assert_eq!(calls.load(Ordering::SeqCst), 0, "hooks are not called");
    assert_eq!(ask(&named(8)), "192.0.2.8:56324");
    assert_eq!(after(&server, 4).denied, 3);
    // The proxy has made more connections than one address may.
    for last in 9..20 {
        assert_eq!(ask(&named(last)), format!("192.0.2.{last}:56324"));
    }
    let answers: Vec<_> = (0..10).map(|_| ask(&named(50))).collect();
    assert_eq!(answers[..2], ["192.0.2.50:56324", "192.0.2.50:56324"]);
    let stats = after(&server, 25);
    let refused = answers.iter().filter(|answer| answer.is_empty()).count() as u64;
    assert_eq!((stats.denied, stats.rate_limited, stats.rejected), (3, refused, 3 + refused), "{stats:?}");
    assert_eq!(stats.finished + stats.rejected, 25, "{stats:?}");
}

#[test]
fn behind_a_proxy_rules_and_rate_apply_to_the_client_that_the_header_names() {
    with_each_model!(applies_to_the_named_client);
}

#[test]
fn rules_apply_to_a_client_that_wrap_request_names() {
    let wrap = |request: Socket, _: &Address| {
        let line = String::from_utf8(request.recv_with_flags(12, sock::MSG_WAITALL)?).unwrap();
        let named: std::net::SocketAddr = line.trim().parse().map_err(io::Error::other)?;
        Ok(WrappedRequest::from(request).with_client_address(named))
    };
    let builder = ThreadingTCPServer::builder(handler_fn(name)).wrap_request(wrap).deny(["192.0.2.7"]);
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    for (named, answer) in [("192.0.2.7:1", ""), ("192.0.2.8:1", "192.0.2.8:1")] {
        let client = connect_to(server.address());
        client.sendall(format!("{named}\n").as_bytes()).unwrap();
        assert_eq!(received(&client), answer);
    }
    let stats = after(&server, 2);
    assert_eq!((stats.denied, stats.rejected, stats.finished), (1, 1, 1), "{stats:?}");
}

fn limits_the_rate<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let server = testing::serve(builder.accept_rate_per_address(1, 5).bind(LOOPBACK).unwrap());
    let begin = std::time::Instant::now();
    let served = (0..40).filter(|_| !ask(&server).is_empty()).count();
    let seconds = begin.elapsed().as_secs() as usize + 1;
    assert!((5..=5 + seconds).contains(&served), "{served} in {seconds} s");
    let stats = after(&server, 40);
    assert_eq!((stats.finished, stats.rate_limited), (served as u64, 40 - served as u64), "{stats:?}");
    assert_eq!((stats.rejected, stats.denied), (stats.rate_limited, 0), "{stats:?}");
    let text = stats.to_openmetrics();
    let sample = format!("\nsockserver_denied_total{{reason=\"accept_rate\"}} {}\n", stats.rate_limited);
    assert!(text.contains(&sample), "{text}");
}

#[test]
fn an_address_that_exceeds_the_accept_rate_is_refused_and_counted() {
    with_each_model!(limits_the_rate);
}

#[test]
fn datagrams_that_exceed_the_accept_rate_are_dropped() {
    let echo = datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet));
    let server =
        testing::serve(UDPServer::builder(echo).accept_rate_per_address(1, 3).bind(LOOPBACK).unwrap());
    let client = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
    for number in 1..=20 {
        client.sendto(b"hello", server.address()).unwrap();
        after(&server, number);
    }
    let stats = after(&server, 20);
    assert!(stats.finished >= 3 && stats.rate_limited >= 1, "{stats:?}");
    assert_eq!(stats.finished + stats.rate_limited, 20, "{stats:?}");
}

#[test]
fn bind_refuses_rules_that_are_invalid_or_have_no_effect() {
    let builder = || TCPServer::builder(handler_fn(name));
    let error = builder().deny(["10.0.0.0/8", "nowhere"]).bind(LOOPBACK).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "deny: \"nowhere\" is not an IP network such as 10.0.0.0/8");
    let error = builder().allow(["10.0.0.1/8"]).deny(["all"]).bind(LOOPBACK).unwrap_err();
    assert!(error.to_string().starts_with("allow: the network 10.0.0.1/8 has bits"), "{error}");
    let error = builder().allow(["10.0.0.0/8"]).bind(LOOPBACK).unwrap_err();
    assert!(error.to_string().contains("has no effect"), "{error}");
    drop(builder().allow(["10.0.0.0/8"]).deny([""; 0]).deny(["all"]).bind(LOOPBACK).unwrap());
}
