//! The promise: behind a proxy that sends the PROXY protocol, the client that the header names is the
//! client of the connection. A connection without a valid header from a trusted proxy is refused. No
//! byte after the header is lost, and none is received before `wrap_request` is called.

mod support;

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::{Address, Socket, StreamSocket};
use sockserver::kind::{Inet, Stream};
use sockserver::testing::{self, Running};
use sockserver::{
    Builder, MixIn, ProxyHeader, ProxyProtocol, Request, ServerHooks, StreamContext, StreamRequestHandler,
    TCPServer, ThreadPoolTCPServer, ThreadingTCPServer, WrappedRequest, handler_fn,
};
#[cfg(unix)]
use sockserver::{SelectorTCPServer, SelectorUnixStreamServer};

use support::{Gate, LIMIT, LOOPBACK, OpenOnDrop, read_to_end, wait_for_stats};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n";

/// A header of version 2 with the same addresses, and the TLV of an identifier.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11\xc0\x00\x02\x07\xc6\x33\x64\x02\xdc\x04\x01\xbb\x05\x00\x02id";

const NAMED: &str = "192.0.2.7:56324";

fn loopback() -> ProxyProtocol {
    ProxyProtocol::from_networks(["127.0.0.0/8"]).unwrap().header_timeout(LIMIT)
}

/// Answers each line with the client's address and the line.
struct Line;

impl StreamRequestHandler for Line {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        cx.close_connection = cx.rfile.read_until(b'\n', &mut line)? == 0;
        if line.is_empty() {
            return Ok(());
        }
        // With two writes the second would wait for the acknowledgement of the first.
        let answer = [format!("{} ", cx.client_address).as_bytes(), &line].concat();
        cx.wfile.write_all(&answer)
    }
}

#[track_caller]
fn answer(client: &Socket) -> String {
    let mut answer = String::new();
    client.makefile_rb().read_line(&mut answer).unwrap();
    answer
}

fn connect(server: &Running) -> Socket {
    let client = server.connect().unwrap();
    client.settimeout(LIMIT).unwrap();
    client
}

/// Sends input in two segments.
fn send_in_two(client: &Socket, first: &[u8], second: &[u8]) {
    if client.family() != sock::AF_UNIX {
        client.setsockopt(sock::IPPROTO_TCP, sock::TCP_NODELAY, true).unwrap();
    }
    client.sendall(first).unwrap();
    std::thread::yield_now();
    client.sendall(second).unwrap();
}

/// Calls a generic test with a builder of each model that has threads.
macro_rules! with_each_model {
    ($handler:expr, $test:ident) => {
        $test(ThreadingTCPServer::builder($handler));
        $test(ThreadPoolTCPServer::builder($handler).workers(4));
        #[cfg(unix)]
        $test(SelectorTCPServer::builder($handler).workers(2));
    };
}

fn serves_behind_a_header<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let server = testing::serve(builder.proxy_protocol(loopback()).bind(LOOPBACK).unwrap());
    for header in [V1, V2] {
        let whole = [header, b"one\n"].concat();
        for end in 0..whole.len() {
            let client = connect(&server);
            send_in_two(&client, &whole[..end], &whole[end..]);
            assert_eq!(answer(&client), format!("{NAMED} one\n"), "cut at {end}");
            client.sendall(b"two\n").unwrap();
            assert_eq!(answer(&client), format!("{NAMED} two\n"));
        }
    }
    let handle = server.handle().clone();
    let stats = wait_for_stats(&handle, |stats| stats.in_flight == 0);
    assert_eq!(stats.finished, stats.accepted, "{stats:?}");
}

#[test]
fn a_header_in_any_two_pieces_names_the_client_and_the_request_follows() {
    serves_behind_a_header(TCPServer::builder(|| Line));
    with_each_model!(|| Line, serves_behind_a_header);
}

/// Counts calls of `verify_request` for the proxy, and for the client.
#[derive(Clone, Default)]
struct Verify(Arc<Mutex<Vec<String>>>);

impl ServerHooks for Verify {
    fn verify_request(&self, request: &Request, client_address: &Address) -> bool {
        assert!(request.stream().is_some());
        self.0.lock().push(client_address.to_string());
        client_address.port() != Some(666)
    }

    fn close_request(&self, _: &Request) {
        self.0.lock().push("closed".to_owned());
    }
}

fn hooks_see_the_client<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let hooks = Verify::default();
    let seen = Arc::clone(&hooks.0);
    let builder = builder.hooks(hooks).proxy_protocol(loopback());
    // The first bytes after the header are those of a handshake.
    let server = builder.wrap_request(|request, client_address| {
        assert_eq!(client_address.ip().unwrap().to_string(), "192.0.2.7");
        assert_eq!(request.recv_with_flags(5, sock::MSG_WAITALL)?, b"HELLO");
        Ok(WrappedRequest::from_boxed(Box::new(request) as Box<dyn StreamSocket>))
    });
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    for header in [V1, V2] {
        let client = connect(&server);
        client.sendall(&[header, b"HELLOone\n"].concat()).unwrap();
        assert_eq!(answer(&client), format!("{NAMED} one\n"));
        drop(client);
        wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
        assert_eq!(std::mem::take(&mut *seen.lock()), [NAMED, "closed"]);
    }
    let refused = connect(&server);
    refused.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.2 666 443\r\nHELLO").unwrap();
    assert!(!read_to_end(&refused).contains("one"));
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.finished, stats.rejected), (2, 1), "{stats:?}");
}

#[test]
fn verify_request_and_wrap_request_get_the_client_of_the_header() {
    hooks_see_the_client(TCPServer::builder(|| Line));
    with_each_model!(|| Line, hooks_see_the_client);
}

#[test]
fn a_handler_gets_the_header_with_its_tlvs() {
    let describe = handler_fn(|cx| {
        let header = cx.proxy_header().expect("it is required");
        let unique_id = header.tlv(ProxyHeader::UNIQUE_ID).map(String::from_utf8_lossy);
        let destination = header.destination().map(Address::to_string);
        let (version, is_local) = (header.version(), header.is_local());
        writeln!(cx.wfile, "{version} {is_local} {unique_id:?} {destination:?} {}", cx.client_address)
    });
    let server = ThreadingTCPServer::builder(describe).proxy_protocol(loopback());
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let ask = |header: &[u8]| {
        let client = connect(&server);
        client.sendall(header).unwrap();
        let own = client.getsockname().unwrap().to_string();
        answer(&client).replace(&own, "proxy")
    };
    let destination = "Some(\"198.51.100.2:443\")";
    assert_eq!(ask(V1), format!("1 false None {destination} {NAMED}\n"));
    assert_eq!(ask(V2), format!("2 false Some(\"id\") {destination} {NAMED}\n"));
    // Without a client's address the proxy's remains.
    assert_eq!(ask(b"PROXY UNKNOWN\r\n"), "1 false None None proxy\n");
    assert_eq!(ask(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"), "2 true None None proxy\n");
    assert_eq!(ask(b"\r\n\r\n\0\r\nQUIT\n\x21\x00\x00\x00"), "2 false None None proxy\n");
}

fn refuses_bad_headers<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let proxies = loopback().max_header_size(300);
    let server = testing::serve(builder.proxy_protocol(proxies).bind(LOOPBACK).unwrap());
    let long = [b"PROXY UNKNOWN ", &[b'x'; 100][..], b"\r\n"].concat();
    let big = [&V2[..14], &[0xff, 0xff], &[0; 500]].concat();
    let inputs: [(&[u8], bool); 7] = [
        (b"GET / HTTP/1.1\r\n\r\n", false),
        (b"one\n", false),
        (b"PROXY TCP4 192.0.2.7 198.51.100.2 99999 443\r\none\n", false),
        (&long, false),
        (&big, false),
        // Truncated: the client closes its side.
        (&V1[..20], true),
        (&V2[..20], true),
    ];
    for (number, (input, shuts_down)) in inputs.into_iter().enumerate() {
        let client = connect(&server);
        // The server may have reset the connection already.
        let _ = client.sendall(input);
        if shuts_down {
            client.shutdown(sock::SHUT_WR).unwrap();
        }
        let received = read_to_end(&client);
        assert!(["", "ConnectionReset"].contains(&received.as_str()), "{received}");
        let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
        assert_eq!((stats.rejected, stats.finished), (number as u64 + 1, 0), "{stats:?}");
    }
    let client = connect(&server);
    client.sendall(&[V1, b"one\n"].concat()).unwrap();
    assert_eq!(answer(&client), format!("{NAMED} one\n"), "others are served");
}

#[test]
fn a_connection_without_a_valid_header_is_refused() {
    refuses_bad_headers(TCPServer::builder(|| Line));
    with_each_model!(|| Line, refuses_bad_headers);
}

fn counts_as_disconnected<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let server = testing::serve(builder.proxy_protocol(loopback()).bind(LOOPBACK).unwrap());
    drop(connect(&server));
    let client = connect(&server);
    client.shutdown(sock::SHUT_WR).unwrap();
    assert_eq!(read_to_end(&client), "");
    let ended = |stats: &sockserver::Stats| stats.accepted == 2 && stats.in_flight == 0;
    let stats = wait_for_stats(server.handle(), ended);
    assert_eq!((stats.disconnected, stats.rejected, stats.failed), (2, 0, 0), "{stats:?}");
}

#[test]
fn a_connection_that_closes_before_its_header_counts_as_disconnected() {
    counts_as_disconnected(TCPServer::builder(|| Line));
    with_each_model!(|| Line, counts_as_disconnected);
}

#[cfg(target_os = "linux")]
fn refuses_other_networks<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let proxies = ProxyProtocol::from_networks(["127.0.0.8/29", "fd00::/8"]).unwrap();
    let server = testing::serve(builder.proxy_protocol(proxies).bind(LOOPBACK).unwrap());
    for (source, is_trusted) in [("127.0.0.7", false), ("127.0.0.8", true), ("127.0.0.16", false)] {
        let client = support::connect_from(source, server.address());
        // The server may have reset the connection already.
        let _ = client.sendall(&[V1, b"one\n"].concat());
        if is_trusted {
            assert_eq!(answer(&client), format!("{NAMED} one\n"));
        } else {
            let received = read_to_end(&client);
            assert!(["", "ConnectionReset"].contains(&received.as_str()), "{received}");
        }
    }
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.rejected, stats.finished), (2, 1), "{stats:?}");
}

/// Only Linux has all of 127.0.0.0/8 on its loopback interface.
#[cfg(target_os = "linux")]
#[test]
fn a_forged_header_from_another_network_is_refused() {
    refuses_other_networks(TCPServer::builder(|| Line));
    with_each_model!(|| Line, refuses_other_networks);
}

fn ends_slow_headers<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let proxies = loopback().header_timeout(Duration::from_millis(150));
    let server = testing::serve(builder.proxy_protocol(proxies).bind(LOOPBACK).unwrap());
    let begin = Instant::now();
    let silent = connect(&server);
    let trickling = connect(&server);
    // One byte at a time, with pauses that are shorter than the deadline.
    for byte in V1[..V1.len() - 2].iter().chain(std::iter::repeat(&b'x')) {
        let ended = &mut [sock::Poll::new(&trickling, sock::POLLIN)];
        if trickling.send(&[*byte]).is_err()
            || sock::poll(ended, Some(Duration::from_millis(10))).unwrap() > 0
        {
            break;
        }
        assert!(begin.elapsed() < LIMIT, "the header has no deadline");
    }
    read_to_end(&silent);
    assert!(begin.elapsed() >= Duration::from_millis(150));
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.timed_out.proxy_header, stats.timed_out.total()), (2, 2), "{stats:?}");
}

#[test]
fn the_deadline_of_a_header_is_not_extended_by_a_trickle() {
    ends_slow_headers(TCPServer::builder(|| Line));
    with_each_model!(|| Line, ends_slow_headers);
}

#[cfg(unix)]
#[test]
fn slow_headers_occupy_no_worker_of_a_selector() {
    for with_hooks in [false, true] {
        let builder = SelectorTCPServer::builder(|| Line).workers(1).max_workers(1);
        let builder = builder.proxy_protocol(loopback());
        let builder = if with_hooks { builder.wrap_request(|request, _| Ok(request)) } else { builder };
        let server = testing::serve(builder.bind(LOOPBACK).unwrap());
        let slow: Vec<_> = (0..40)
            .map(|number| {
                let client = connect(&server);
                client.sendall(&V2[..number % V2.len()]).unwrap();
                client
            })
            .collect();
        let client = connect(&server);
        client.sendall(&[V1, b"one\n"].concat()).unwrap();
        assert_eq!(answer(&client), format!("{NAMED} one\n"));
        for (number, client) in slow.iter().enumerate() {
            client.sendall(&[&V2[number % V2.len()..], b"two\n"].concat()).unwrap();
            assert_eq!(answer(client), format!("{NAMED} two\n"));
        }
    }
}

/// Blocks until the test opens the gate.
fn limits_the_named_address<M: MixIn>(builder: Builder<Stream<Inet>, M>, gate: &Gate) {
    let _open = OpenOnDrop(gate.clone());
    let builder = builder.max_connections_per_ip(1).proxy_protocol(loopback());
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    let header =
        |last: u8| format!("PROXY TCP4 192.0.2.{last} 198.51.100.2 56324 443\r\none\n").into_bytes();
    let before = gate.entered();
    // All come from one proxy. Those without a header count for no address.
    let silent = connect(&server);
    let clients: Vec<_> = (1..3)
        .map(|last| {
            let client = connect(&server);
            client.sendall(&header(last)).unwrap();
            client
        })
        .collect();
    gate.wait_for(before + 2);
    let refused = connect(&server);
    refused.sendall(&header(2)).unwrap();
    assert_eq!(read_to_end(&refused).replace("ConnectionReset", ""), "");
    let stats = wait_for_stats(server.handle(), |stats| stats.rejected == 1);
    assert_eq!((stats.rejected, stats.in_flight), (1, 3), "{stats:?}");

    // The report of a drain names the clients.
    drop(silent);
    let report = server.handle().drain(Duration::ZERO).unwrap();
    let mut aborted: Vec<_> =
        report.aborted.iter().filter_map(|request| request.client_address.ip()).collect();
    aborted.retain(|ip| !ip.is_loopback());
    aborted.sort();
    assert_eq!(aborted.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1", "192.0.2.2"]);
    gate.open();
    drop(clients);
}

#[test]
fn limits_and_reports_use_the_named_address() {
    let gate = Gate::new();
    let its = gate.clone();
    let blocking = handler_fn(move |_| {
        its.pass();
        Ok(())
    });
    limits_the_named_address(ThreadingTCPServer::builder(blocking), &gate);
    let gate = Gate::new();
    let its = gate.clone();
    let blocking = handler_fn(move |_| {
        its.pass();
        Ok(())
    });
    #[cfg(unix)]
    limits_the_named_address(SelectorTCPServer::builder(blocking).workers(4), &gate);
    #[cfg(not(unix))]
    drop((blocking, gate));
}

fn aborts_a_pending_header<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let builder = builder.proxy_protocol(loopback()).wrap_request(move |request, _| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(request)
    });
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    let client = connect(&server);
    client.sendall(&V1[..10]).unwrap();
    wait_for_stats(server.handle(), |stats| stats.in_flight == 1);
    let report = server.handle().drain(Duration::from_millis(50)).unwrap();
    assert_eq!(report.aborted.len(), 1, "{report}");
    assert_eq!(read_to_end(&client).replace("ConnectionReset", ""), "");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.aborted, calls.load(Ordering::Relaxed)), (1, 0), "{stats:?}");
}

#[test]
fn a_drain_aborts_a_connection_whose_header_is_incomplete() {
    with_each_model!(|| Line, aborts_a_pending_header);
}

#[cfg(unix)]
#[test]
fn a_unix_listener_requires_the_header_of_a_local_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let builder = SelectorUnixStreamServer::builder(|| Line);
    let server = builder.proxy_protocol(ProxyProtocol::from_unix_peers());
    let server = testing::serve(server.bind(directory.path().join("socket")).unwrap());
    for header in [V1, V2] {
        let client = connect(&server);
        send_in_two(&client, &header[..20], &[&header[20..], b"one\n"].concat());
        assert_eq!(answer(&client), format!("{NAMED} one\n"));
    }
    let client = connect(&server);
    let _ = client.sendall(b"one\n");
    assert_eq!(read_to_end(&client).replace("ConnectionReset", ""), "");
}

#[test]
fn an_invalid_configuration_is_an_error() {
    let error = |networks: &[&str]| {
        let error = ProxyProtocol::from_networks(networks).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        error.to_string()
    };
    assert_eq!(error(&[]), "no network of proxies is given");
    assert_eq!(error(&["10.0.0.0/33"]), "\"10.0.0.0/33\" is not an IP network such as 10.0.0.0/8");
    assert_eq!(error(&["::1", "proxy"]), "\"proxy\" is not an IP network such as 10.0.0.0/8");
    assert_eq!(error(&["10.0.0.1/8"]), "the network 10.0.0.1/8 has bits after its prefix: 10.0.0.0/8");
    let bind = |proxies: ProxyProtocol| {
        let bound = TCPServer::builder(|| Line).proxy_protocol(proxies).bind(LOOPBACK);
        bound.map(drop).unwrap_err().to_string()
    };
    assert!(bind(ProxyProtocol::from_unix_peers()).ends_with("need ProxyProtocol::from_networks"));
    assert!(bind(loopback().header_timeout(Duration::ZERO)).ends_with("must not be zero"));
    for size in [0, 231, 65_552, usize::MAX] {
        let sentence = format!("max_header_size must be in 232..=65551, not {size}");
        assert_eq!(bind(loopback().max_header_size(size)), sentence);
    }
    #[cfg(unix)]
    {
        let directory = tempfile::tempdir().unwrap();
        let builder = SelectorUnixStreamServer::builder(|| Line).proxy_protocol(loopback());
        let error = builder.bind(directory.path().join("socket")).unwrap_err();
        assert!(error.to_string().ends_with("need ProxyProtocol::from_unix_peers"), "{error}");
    }
}

fn serves_with_the_largest_numbers<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let proxies = loopback().max_header_size(65_551).header_timeout(Duration::MAX);
    let server = testing::serve(builder.proxy_protocol(proxies).bind(LOOPBACK).unwrap());
    let client = connect(&server);
    // A header of the largest size: a TLV of type `PP2_TYPE_NOOP` fills it.
    let fill = [&[0x04, 0xff, 0xf0][..], &[0; 0xfff0]].concat();
    let header = [&V2[..14], &[0xff, 0xff], &V2[16..28], &fill].concat();
    assert_eq!(header.len(), 65_551);
    client.sendall(&[&header, &b"one\n"[..]].concat()).unwrap();
    assert_eq!(answer(&client), format!("{NAMED} one\n"));
    client.sendall(b"two\n").unwrap();
    assert_eq!(answer(&client), format!("{NAMED} two\n"));
}

#[test]
fn the_largest_numbers_serve() {
    serves_with_the_largest_numbers(TCPServer::builder(|| Line));
    with_each_model!(|| Line, serves_with_the_largest_numbers);
}

#[cfg(target_os = "linux")]
#[test]
fn a_dual_stack_listener_compares_an_ipv4_proxy_with_ipv4_networks() {
    for network in ["127.0.0.0/8", "::ffff:127.0.0.0/104"] {
        let proxies = ProxyProtocol::from_networks([network]).unwrap();
        let server = ThreadingTCPServer::builder(|| Line).proxy_protocol(proxies);
        let server = testing::serve(server.bind(("::", 0)).unwrap());
        let client = sock::create_connection(("127.0.0.1", server.address().port().unwrap())).unwrap();
        client.settimeout(LIMIT).unwrap();
        client.sendall(&[V1, b"one\n"].concat()).unwrap();
        assert_eq!(answer(&client), format!("{NAMED} one\n"));
    }
}
