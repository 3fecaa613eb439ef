//! The promise: models with processes refuse clients because of their address as the other models do.
//! All processes share the rules, which the parent can replace, the accept rate, and the counters.

use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sock::{SOCK_DGRAM, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    AccessList, Builder, ForkingTCPServer, MixIn, PreforkTCPServer, PreforkUDPServer, ProxyProtocol,
    ServerHandle, Stats, StreamContext, datagram_handler_fn, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("access_forking_denies_until_the_rules_are_replaced", forking_denies),
    ("access_prefork_denies_until_the_rules_are_replaced", prefork_denies),
    ("access_prefork_drops_datagrams", prefork_drops_datagrams),
    ("access_forking_applies_to_the_named_client", forking_named),
    ("access_prefork_applies_to_the_named_client", prefork_named),
    ("access_prefork_workers_share_the_accept_rate", prefork_shares_the_rate),
    ("access_forking_children_share_the_accept_rate", forking_shares_the_rate),
    ("access_rules_cannot_be_replaced_in_a_child", child_cannot_replace),
];

fn name(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = Vec::new();
    cx.rfile.read_until(b'\n', &mut line)?;
    // Sent by the process that serves: the counters are those of the whole server.
    let stats = cx.server.stats();
    write!(cx.wfile, "{} {}", cx.client_address.ip().unwrap(), stats.denied)
}

/// Serves. `act` is called at intervals, and returns whether the server is to stop.
fn serve<M: MixIn>(
    builder: Builder<Stream<Inet>, M>,
    begin: impl FnOnce(&sock::Address),
    act: impl Fn(&ServerHandle, &Stats) -> bool + Send + Sync + 'static,
) -> Stats {
    let since = Instant::now();
    let server = builder
        .poll_interval(Duration::from_millis(5))
        .service_actions(move |server| {
            let stats = server.stats();
            assert!(since.elapsed() < LIMIT, "{stats:?}");
            if act(server, &stats) {
                server.request_shutdown().unwrap();
            }
        })
        .bind(LOOPBACK)
        .unwrap();
    begin(server.server_address());
    server.serve_forever().unwrap();
    let _ = server.drain(LIMIT).unwrap();
    let stats = server.stats();
    server.server_close().unwrap();
    assert!(stats.is_consistent(), "{stats:?}");
    stats
}

/// Sends a line, so that a selector calls the handler.
fn connect(address: &sock::Address) -> Socket {
    let client = connect_to(address);
    client.sendall(b"\n").unwrap();
    client
}

fn received(client: &Socket) -> String {
    read_to_end(client).replace("ConnectionReset", "")
}

/// Three clients are denied. Then the rules are replaced while the server serves, and the next one
/// is served by a process that was forked before or after.
fn denies<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let clients: Arc<Mutex<Vec<Socket>>> = Arc::default();
    let (inside, first) = (Arc::clone(&clients), Arc::clone(&clients));
    let address: Arc<Mutex<Option<sock::Address>>> = Arc::default();
    let known = Arc::clone(&address);
    let stats = serve(
        builder.deny(["127.0.0.1"]),
        |address| {
            *known.lock().unwrap() = Some(address.clone());
            first.lock().unwrap().extend((0..3).map(|_| connect(address)));
        },
        move |server, stats| {
            let mut clients = inside.lock().unwrap();
            if stats.denied == 3 && clients.len() == 3 {
                let other = AccessList::new().allow(["127.0.0.0/8"]).unwrap().deny(["all"]).unwrap();
                server.set_access(other).unwrap();
                clients.push(connect(address.lock().unwrap().as_ref().unwrap()));
            }
            stats.accepted == 4 && stats.in_flight == 0
        },
    );
    assert_eq!((stats.denied, stats.rejected, stats.finished), (3, 3, 1), "{stats:?}");
    let answers: Vec<_> = clients.lock().unwrap().iter().map(received).collect();
    assert_eq!(answers, ["", "", "", "127.0.0.1 3"]);
}

fn forking_denies() {
    denies(ForkingTCPServer::builder(handler_fn(name)));
}

fn prefork_denies() {
    denies(PreforkTCPServer::builder(handler_fn(name)).workers(2).worker_class(crate::worker_class()));
}

fn prefork_drops_datagrams() {
    let server = PreforkUDPServer::builder(datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet)));
    let since = Instant::now();
    let server = server
        .workers(2)
        .deny(["127.0.0.1"])
        .poll_interval(Duration::from_millis(5))
        .service_actions(move |server| {
            let stats = server.stats();
            assert!(since.elapsed() < LIMIT, "{stats:?}");
            if stats.denied == 5 && stats.in_flight == 0 {
                server.request_shutdown().unwrap();
            }
        })
        .bind(LOOPBACK)
        .unwrap();
    let client = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
    for _ in 0..5 {
        client.sendto(b"denied", server.server_address()).unwrap();
    }
    server.serve_forever().unwrap();
    let stats = server.stats();
    assert_eq!((stats.accepted, stats.rejected, stats.finished), (5, 5, 0), "{stats:?}");
    client.setblocking(false).unwrap();
    assert!(client.recv(1).is_err());
}

/// The header is received in the child, which refuses the client. The counters reach the parent.
fn applies_to_the_named_client<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let clients: Arc<Mutex<Vec<Socket>>> = Arc::default();
    let first = Arc::clone(&clients);
    let proxies = ProxyProtocol::from_networks(["127.0.0.1"]).unwrap().header_timeout(LIMIT);
    let stats = serve(
        builder.proxy_protocol(proxies).deny(["192.0.2.7", "127.0.0.1"]),
        |address| {
            for named in ["192.0.2.7", "192.0.2.8", "192.0.2.7"] {
                let client = connect_to(address);
                client
                    .sendall(format!("PROXY TCP4 {named} 198.51.100.2 56324 443\r\n\n").as_bytes())
                    .unwrap();
                first.lock().unwrap().push(client);
            }
        },
        |_, stats| stats.accepted == 3 && stats.in_flight == 0,
    );
    assert_eq!((stats.denied, stats.rejected, stats.finished), (2, 2, 1), "{stats:?}");
    let answers: Vec<_> = clients.lock().unwrap().iter().map(received).collect();
    assert!(answers[1].starts_with("192.0.2.8 "), "{answers:?}");
    assert_eq!([&answers[0], &answers[2]], ["", ""]);
}

fn forking_named() {
    applies_to_the_named_client(ForkingTCPServer::builder(handler_fn(name)));
}

fn prefork_named() {
    applies_to_the_named_client(
        PreforkTCPServer::builder(handler_fn(name)).workers(2).worker_class(crate::worker_class()),
    );
}

/// Workers that counted for themselves would accept a burst each.
fn shares_the_rate<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let clients: Arc<Mutex<Vec<Socket>>> = Arc::default();
    let first = Arc::clone(&clients);
    let begin = Instant::now();
    let stats = serve(
        builder.accept_rate_per_address(1, 5),
        |address| first.lock().unwrap().extend((0..40).map(|_| connect(address))),
        |_, stats| stats.accepted == 40 && stats.in_flight == 0,
    );
    let seconds = begin.elapsed().as_secs() + 1;
    assert!((5..=5 + seconds).contains(&stats.finished), "{stats:?} in {seconds} s");
    assert_eq!(
        (stats.rate_limited, stats.rejected),
        (40 - stats.finished, 40 - stats.finished),
        "{stats:?}"
    );
    let served = clients.lock().unwrap().iter().filter(|client| !received(client).is_empty()).count();
    assert_eq!(served as u64, stats.finished);
}

fn prefork_shares_the_rate() {
    shares_the_rate(
        PreforkTCPServer::builder(handler_fn(name)).workers(4).worker_class(crate::worker_class()),
    );
}

fn forking_shares_the_rate() {
    shares_the_rate(ForkingTCPServer::builder(handler_fn(name)));
}

fn child_cannot_replace() {
    fn tries(cx: &mut StreamContext<'_>) -> io::Result<()> {
        let error = cx.server.set_access(AccessList::new()).unwrap_err();
        write!(cx.wfile, "{:?}", error.kind())
    }
    fn check<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let client: Arc<Mutex<Option<Socket>>> = Arc::default();
        let connected = Arc::clone(&client);
        serve(
            builder,
            |address| *connected.lock().unwrap() = Some(connect_to(address)),
            |_, stats| stats.finished == 1,
        );
        assert_eq!(received(client.lock().unwrap().as_ref().unwrap()), "Unsupported");
    }
    check(ForkingTCPServer::builder(handler_fn(tries)));
    check(PreforkTCPServer::builder(handler_fn(tries)).workers(1));
}
