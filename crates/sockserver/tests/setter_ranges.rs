//! Every number that a setter accepts leaves a server that serves. Others are refused by `bind`,
//! with the name of the setter and the allowed range.
//!
//! The largest values of the models that fork are in `tests/process_tests`.

mod support;

use std::io::{self, Write};
use std::time::Duration;

use sock::{SOCK_DGRAM, Socket};
use sockserver::kind::{Datagram, Inet, Stream};
use sockserver::{
    Builder, MixIn, ProxyProtocol, SelectorTCPServer, Server, ServerState, TCPServer, ThreadPoolTCPServer,
    ThreadPoolUDPServer, ThreadingTCPServer, UDPServer, WhenQueueFull, datagram_handler_fn, handler_fn,
    testing,
};
#[cfg(unix)]
use sockserver::{ForkingTCPServer, PreforkMixIn, PreforkTCPServer, UnixStreamServer, WorkerClass};

use support::{LIMIT, LOOPBACK, datagram_client};

/// The largest values that are accepted.
const WORKERS: usize = 32_768;
const QUEUE: usize = 1 << 20;
const PACKET: usize = 16 << 20;
const REQUESTS: u64 = u64::MAX / 2;
const RATE: u32 = 1_000_000;

macro_rules! tcp {
    ($class:ident) => {
        $class::builder(handler_fn(|cx| {
            let data = cx.request.recv(100)?;
            cx.request.sendall(&data)
        }))
    };
}

macro_rules! udp {
    ($class:ident) => {
        $class::builder(datagram_handler_fn(|cx| cx.wfile.write_all(b"answer")))
    };
}

/// Serves one connection.
fn serves<M: MixIn>(setter: &str, builder: Builder<Stream<Inet>, M>) {
    let server = builder.bind(LOOPBACK).unwrap_or_else(|error| panic!("{setter}: {error}"));
    let server = testing::serve(server);
    for _ in 0..3 {
        let client = server.connect().unwrap();
        client.sendall(b"hello").unwrap();
        assert_eq!(client.recv(100).unwrap_or_else(|error| panic!("{setter}: {error}")), b"hello");
    }
}

fn serves_datagrams<M: MixIn>(setter: &str, builder: Builder<Datagram<Inet>, M>) {
    let server = builder.bind(LOOPBACK).unwrap_or_else(|error| panic!("{setter}: {error}"));
    let server = testing::serve(server);
    let client = datagram_client(server.address().family());
    for _ in 0..3 {
        client.sendto(b"hello", server.address()).unwrap();
        assert_eq!(client.recv(100).unwrap_or_else(|error| panic!("{setter}: {error}")), b"answer");
    }
}

/// `bind` returns an error that begins with the setter and contains the range.
fn refuses<K, M: MixIn>(setter: &str, range: &str, bound: io::Result<Server<K, M>>) {
    let Err(error) = bound else { panic!("{setter} was accepted") };
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{setter}: {error}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("{setter} must be in {range}, not ")), "{setter}: {text}");
}

#[test]
fn the_largest_and_smallest_numbers_of_servers_for_connections_serve() {
    for number in [0, 1, usize::MAX] {
        serves("max_connections", tcp!(TCPServer).max_connections(number));
        serves("max_connections", tcp!(SelectorTCPServer).max_connections(number));
        serves("max_connections", tcp!(ThreadPoolTCPServer).max_connections(number));
        serves("max_threads", tcp!(ThreadingTCPServer).max_threads(number));
    }
    for (per_second, burst) in [(1, 3), (RATE, 3), (1, RATE), (RATE, RATE)] {
        serves("rate", tcp!(ThreadingTCPServer).accept_rate_per_address(per_second, burst));
    }
    // A connection that is being closed still counts.
    for number in [10, usize::MAX] {
        serves("max_connections_per_ip", tcp!(ThreadingTCPServer).max_connections_per_ip(number));
    }
    for size in [i32::MIN, -1, 0, i32::MAX] {
        serves("request_queue_size", tcp!(TCPServer).request_queue_size(size));
    }
    for size in [64 << 10, 1 << 30] {
        serves("stack_size", tcp!(ThreadingTCPServer).stack_size(size));
        serves("stack_size", tcp!(ThreadPoolTCPServer).workers(2).stack_size(size));
        serves("stack_size", tcp!(SelectorTCPServer).workers(2).stack_size(size));
    }
    for number in [0, 1] {
        serves("workers", tcp!(ThreadPoolTCPServer).workers(number));
        serves("workers", tcp!(SelectorTCPServer).workers(number));
        serves("max_workers", tcp!(SelectorTCPServer).max_workers(number));
    }
    serves("max_workers", tcp!(SelectorTCPServer).max_workers(WORKERS));
    for length in [0, 1, QUEUE] {
        for when_full in [WhenQueueFull::Wait, WhenQueueFull::Refuse] {
            serves("queue", tcp!(ThreadPoolTCPServer).queue(length, when_full));
        }
    }
}

#[test]
fn the_longest_durations_serve() {
    const LONGEST: Duration = Duration::MAX;
    let actions = |_: &sockserver::ServerHandle| {};
    let wrap = |request, _: &sock::Address| Ok::<Socket, io::Error>(request);
    macro_rules! each_setter {
        ($($setter:ident)*) => {$(
            serves(stringify!($setter), tcp!(TCPServer).$setter(LONGEST).wrap_request(wrap));
            serves(stringify!($setter), tcp!(ThreadingTCPServer).$setter(LONGEST));
            serves(stringify!($setter), tcp!(SelectorTCPServer).$setter(LONGEST));
        )*};
    }
    each_setter! {
        wrap_timeout first_byte_timeout idle_timeout read_timeout write_timeout request_timeout
        linger_timeout close_timeout timeout
    }
    for interval in [Duration::ZERO, LONGEST] {
        serves("poll_interval", tcp!(TCPServer).service_actions(actions).poll_interval(interval));
    }
    let server = tcp!(TCPServer).timeout(LONGEST).bind(LOOPBACK).unwrap();
    let _client = support::connect_to(server.server_address());
    _client.sendall(b"hello").unwrap();
    server.handle_request().unwrap();
}

/// Every duration of a setter is a number of seconds or a `Duration`. One that is negative, NaN or too
/// long is refused by `bind`.
#[test]
fn durations_are_numbers_and_invalid_ones_are_refused_by_bind() {
    let refuses = |setter: &str, bound: io::Result<Server<Stream<Inet>, sockserver::ThreadingMixIn>>| {
        let Err(error) = bound else { panic!("{setter} was accepted") };
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{setter}: {error}");
        assert!(error.to_string().starts_with(&format!("{setter}: ")), "{setter}: {error}");
    };
    macro_rules! each_setter {
        ($($setter:ident)*) => {$(
            serves(stringify!($setter), tcp!(ThreadingTCPServer).$setter(2));
            serves(stringify!($setter), tcp!(ThreadingTCPServer).$setter(0.5));
            for number in [-1.0, -1e-9, f64::NAN, f64::INFINITY] {
                refuses(stringify!($setter), tcp!(ThreadingTCPServer).$setter(number).bind(LOOPBACK));
            }
            refuses(stringify!($setter), tcp!(ThreadingTCPServer).$setter(-1).bind(LOOPBACK));
        )*};
    }
    each_setter! {
        wrap_timeout first_byte_timeout idle_timeout read_timeout write_timeout request_timeout
        linger_timeout close_timeout timeout poll_interval lame_duck
    }
    let proxies = || ProxyProtocol::from_networks(["127.0.0.1"]).unwrap();
    drop(tcp!(TCPServer).proxy_protocol(proxies().header_timeout(2.5)).bind(LOOPBACK).unwrap());
    for proxies in [proxies().header_timeout(-1), proxies().header_timeout(f64::NAN)] {
        let error = tcp!(TCPServer).proxy_protocol(proxies).bind(LOOPBACK).unwrap_err();
        assert!(error.to_string().starts_with("header_timeout of the PROXY protocol: "), "{error}");
    }
    // The last value counts.
    let proxies = proxies().header_timeout(-1).header_timeout(2);
    drop(tcp!(TCPServer).proxy_protocol(proxies).bind(LOOPBACK).unwrap());
}

#[cfg(unix)]
#[test]
fn durations_of_options_on_unix_are_numbers_and_invalid_ones_are_refused() {
    use sockserver::handover::{Handover, Upgrade};

    drop(tcp!(ThreadingTCPServer).drain_on_signals(2.5).bind(LOOPBACK).unwrap());
    drop(tcp!(PreforkTCPServer).heartbeat(2.5).bind(LOOPBACK).unwrap());
    drop(tcp!(PreforkTCPServer).heartbeat(-1).heartbeat(2).bind(LOOPBACK).unwrap());
    let path = "/nonexistent/handover";
    let offer = |handover| tcp!(ThreadingTCPServer).handover(handover).bind(LOOPBACK).map(drop);
    let upgrade = |upgrade| tcp!(ThreadingTCPServer).upgrade_on_signal(upgrade).bind(LOOPBACK).map(drop);
    let to_true = || Upgrade::to("/bin/true", [""; 0]);
    upgrade(to_true().timeout(2.5).drain_limit(1)).unwrap();
    assert!(Handover::at(path).timeout(2.5).drain_limit(1).receive().unwrap().is_none());
    for (setter, result) in [
        ("drain_on_signals", tcp!(ThreadingTCPServer).drain_on_signals(-1).bind(LOOPBACK).map(drop)),
        ("heartbeat", tcp!(PreforkTCPServer).heartbeat(f64::NAN).bind(LOOPBACK).map(drop)),
        ("timeout of the handover", offer(Handover::at(path).timeout(-1))),
        ("drain_limit of the handover", offer(Handover::at(path).drain_limit(f64::NAN))),
        ("idle_grace of the handover", offer(Handover::at(path).idle_grace(-1))),
        ("timeout of the handover", Handover::at(path).timeout(-0.5).receive().map(drop)),
        ("timeout of the upgrade", upgrade(to_true().timeout(-1))),
        ("drain_limit of the upgrade", upgrade(to_true().drain_limit(f64::INFINITY))),
        ("idle_grace of the upgrade", upgrade(to_true().idle_grace(f64::NAN))),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{setter}: {error}");
        assert!(error.to_string().starts_with(&format!("{setter}: ")), "{setter}: {error}");
    }
}

/// Nothing could be done within it. Where zero means that there is no such time, it is documented.
#[cfg(unix)]
#[test]
fn a_time_limit_of_zero_is_refused() {
    use sockserver::handover::{Handover, Upgrade};

    let path = "/nonexistent/handover";
    let offer = |handover| tcp!(ThreadingTCPServer).handover(handover).bind(LOOPBACK).map(drop);
    let upgrade = |upgrade| tcp!(ThreadingTCPServer).upgrade_on_signal(upgrade).bind(LOOPBACK).map(drop);
    let to_true = || Upgrade::to("/bin/true", [""; 0]);
    let proxies = ProxyProtocol::from_networks(["127.0.0.1"]).unwrap().header_timeout(0);
    macro_rules! deadlines {
        ($($setter:ident)*) => {
            [$((stringify!($setter), tcp!(TCPServer).$setter(0).bind(LOOPBACK).map(drop))),*]
        };
    }
    let deadlines = deadlines! {
        wrap_timeout first_byte_timeout idle_timeout read_timeout write_timeout request_timeout
    };
    let others = [
        ("heartbeat", tcp!(PreforkTCPServer).heartbeat(0).bind(LOOPBACK).map(drop)),
        ("timeout of the handover", offer(Handover::at(path).timeout(0))),
        ("timeout of the handover", Handover::at(path).timeout(0).receive().map(drop)),
        ("timeout of the upgrade", upgrade(to_true().timeout(0))),
        (
            "header_timeout of the PROXY protocol",
            tcp!(TCPServer).proxy_protocol(proxies).bind(LOOPBACK).map(drop),
        ),
    ];
    for (setter, result) in deadlines.into_iter().chain(others) {
        let error = result.expect_err(setter);
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{setter}: {error}");
        let text = error.to_string();
        let sentence = text.strip_prefix(setter).unwrap_or_else(|| panic!("{setter}: {text}"));
        assert!(sentence.trim_start_matches(':').starts_with(" must not be zero"), "{text}");
    }
    // The last value counts, and the shortest other one is accepted.
    drop(tcp!(PreforkTCPServer).heartbeat(0).heartbeat(0.001).bind(LOOPBACK).unwrap());
    assert!(Handover::at(path).timeout(0).timeout(0.001).receive().unwrap().is_none());
    upgrade(to_true().timeout(0).timeout(0.001).drain_limit(0)).unwrap();
}

#[test]
fn the_limit_of_a_drain_is_a_number_or_a_duration() {
    let server = tcp!(ThreadingTCPServer).bind(LOOPBACK).unwrap();
    for error in [server.drain(-1).unwrap_err(), server.handle().drain(f64::NAN).unwrap_err()] {
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(server.handle().state(), ServerState::Ready, "nothing has begun");
    assert!(server.drain(2.5).unwrap().aborted.is_empty());
    assert!(server.handle().drain(1).unwrap().aborted.is_empty());
}

#[test]
fn the_longest_lame_duck_ends_with_a_shutdown() {
    let server = tcp!(TCPServer).lame_duck(Duration::MAX).bind(LOOPBACK).unwrap();
    let handle = server.handle();
    let is_served = || {
        let client = support::connect_to(server.server_address());
        client.sendall(b"hello").unwrap();
        assert_eq!(client.recv(100).unwrap(), b"hello");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| server.serve_forever().unwrap());
        // A loop that has not begun has no lame duck.
        is_served();
        let draining = scope.spawn(|| handle.drain(LIMIT));
        let begin = std::time::Instant::now();
        while handle.state() != ServerState::LameDuck {
            assert!(begin.elapsed() < LIMIT, "{:?}", handle.state());
            std::thread::yield_now();
        }
        is_served();
        handle.shutdown().unwrap();
        assert!(draining.join().unwrap().unwrap().aborted.is_empty());
    });
}

#[test]
fn the_largest_and_smallest_numbers_of_servers_for_datagrams_serve() {
    for size in [0, 1, PACKET] {
        serves_datagrams("max_packet_size", udp!(UDPServer).max_packet_size(size));
        serves_datagrams("max_packet_size", udp!(ThreadPoolUDPServer).max_packet_size(size).workers(1));
    }
    for datagrams in [0, 1, 1024] {
        serves_datagrams("max_batch", udp!(UDPServer).max_batch(datagrams));
    }
}

#[test]
fn numbers_out_of_range_are_refused_by_bind() {
    let packets = "0..=16777216";
    for size in [PACKET + 1, usize::MAX / 2, usize::MAX] {
        refuses("max_packet_size", packets, udp!(UDPServer).max_packet_size(size).bind(LOOPBACK));
        let pool = udp!(ThreadPoolUDPServer).max_packet_size(size);
        refuses("max_packet_size", packets, pool.bind(LOOPBACK));
        let socket = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
        socket.bind(LOOPBACK).unwrap();
        refuses("max_packet_size", packets, udp!(UDPServer).max_packet_size(size).adopt([socket]));
    }
    for datagrams in [1025, usize::MAX] {
        refuses("max_batch", "1..=1024", udp!(UDPServer).max_batch(datagrams).bind(LOOPBACK));
    }
    let both = udp!(UDPServer).max_batch(1024).max_packet_size(PACKET);
    refuses("max_batch times max_packet_size", "0..=268435456", both.bind(LOOPBACK));
    for size in [0, 1, (64 << 10) - 1, (1 << 30) + 1, usize::MAX] {
        let range = "65536..=1073741824";
        refuses("stack_size", range, tcp!(ThreadingTCPServer).stack_size(size).bind(LOOPBACK));
        refuses("stack_size", range, tcp!(ThreadPoolTCPServer).stack_size(size).bind(LOOPBACK));
        refuses("stack_size", range, tcp!(SelectorTCPServer).stack_size(size).bind(LOOPBACK));
    }
    for number in [0, RATE + 1, u32::MAX] {
        let range = "1..=1000000";
        let builder = tcp!(TCPServer).accept_rate_per_address(number, 1);
        refuses("per_second of accept_rate_per_address", range, builder.bind(LOOPBACK));
        let builder = tcp!(TCPServer).accept_rate_per_address(1, number);
        refuses("burst of accept_rate_per_address", range, builder.bind(LOOPBACK));
    }
    for length in [QUEUE + 1, usize::MAX] {
        let builder = tcp!(ThreadPoolTCPServer).queue(length, WhenQueueFull::Wait);
        refuses("queue", "1..=1048576", builder.bind(LOOPBACK));
    }
    for number in [WORKERS + 1, usize::MAX] {
        refuses("workers", "1..=32768", tcp!(ThreadPoolTCPServer).workers(number).bind(LOOPBACK));
        refuses("workers", "1..=32768", tcp!(SelectorTCPServer).workers(number).bind(LOOPBACK));
        let selector = tcp!(SelectorTCPServer).max_workers(number);
        refuses("max_workers", "1..=32768", selector.bind(LOOPBACK));
    }
}

#[cfg(unix)]
#[test]
fn numbers_out_of_range_are_refused_by_bind_on_unix() {
    for number in [WORKERS + 1, usize::MAX] {
        refuses("workers", "1..=32768", tcp!(PreforkTCPServer).workers(number).bind(LOOPBACK));
    }
    let jitter = format!("0..={REQUESTS}");
    for number in [REQUESTS + 1, u64::MAX] {
        let builder = tcp!(PreforkTCPServer).max_requests(1, number);
        refuses("jitter of max_requests", &jitter, builder.bind(LOOPBACK));
        let builder = tcp!(PreforkTCPServer).max_requests(number, 0);
        refuses("max_requests", &format!("1..={REQUESTS}"), builder.bind(LOOPBACK));
    }
    for number in [WORKERS + 1, usize::MAX] {
        let threads = tcp!(PreforkTCPServer).worker_class(WorkerClass::Threads(number));
        refuses("the threads of worker_class", "1..=32768", threads.bind(LOOPBACK));
        let selector = tcp!(PreforkTCPServer).worker_class(WorkerClass::Selector).max_threads(number);
        refuses("the threads of worker_class", "1..=32768", selector.bind(LOOPBACK));
    }
    for mode in [0o1000, u32::MAX] {
        let builder = tcp!(UnixStreamServer).unix_mode(mode);
        refuses("unix_mode", "0o0..=0o777", builder.bind("/nonexistent/socket"));
    }
    drop(tcp!(ForkingTCPServer).max_children(usize::MAX).bind(LOOPBACK).unwrap());
    drop(tcp!(PreforkTCPServer).heartbeat(Duration::MAX).bind(LOOPBACK).unwrap());
    drop(tcp!(PreforkTCPServer).max_requests(REQUESTS, REQUESTS).bind(LOOPBACK).unwrap());
}

/// A worker that serves one connection at a time has no threads for them.
#[cfg(unix)]
#[test]
fn options_of_threads_are_refused_by_bind_without_a_class_that_has_threads() {
    let sync = || tcp!(PreforkTCPServer);
    let threads = || sync().worker_class(WorkerClass::Threads(0));
    let selector = || sync().worker_class(WorkerClass::Selector);
    let refuses = |setter: &str, builder: Builder<Stream<Inet>, PreforkMixIn>| {
        let error = builder.bind(LOOPBACK).unwrap_err();
        let sentence = format!("{setter} needs worker_class WorkerClass::");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(&sentence), "{error}");
    };
    refuses("stack_size", sync().stack_size(1 << 20));
    refuses("thread_name", sync().thread_name("worker"));
    refuses("on_thread_start", sync().on_thread_start(|| {}));
    refuses("max_threads", sync().max_threads(4));
    refuses("max_threads", threads().max_threads(4));
    for builder in [threads(), selector(), selector().max_threads(0)] {
        let builder = builder.stack_size(1 << 20).thread_name("worker").on_thread_start(|| {});
        drop(builder.bind(LOOPBACK).unwrap());
    }
}

/// A new setter belongs into this file.
#[test]
fn every_setter_with_a_number_or_a_duration_is_tested_here() {
    let sources = [
        include_str!("../src/api/builder.rs"),
        include_str!("../src/api/builder/access.rs"),
        include_str!("../src/api/builder/options.rs"),
        include_str!("../src/api/builder/unix.rs"),
    ];
    let tests = [include_str!("setter_ranges.rs"), include_str!("../../../tests/process_tests/setters.rs")];
    let is_number = |arguments: &str| {
        ["usize", "u64", "u32", "i32", "Duration", "ToTimeout"].iter().any(|kind| arguments.contains(kind))
    };
    let mut setters = Vec::new();
    for source in sources {
        for line in source.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            // A function, or a line of `mixin_options!`.
            let declared = line.strip_prefix("pub fn ").or_else(|| line.strip_suffix(");"));
            let Some((name, arguments)) = declared.and_then(|line| line.split_once('(')) else { continue };
            let is_setter = line.starts_with("pub fn ") == arguments.contains("self");
            let name = name.split('<').next().unwrap_or_default();
            if is_setter && is_number(arguments) && !name.starts_with('$') {
                setters.push(name);
            }
        }
        // The names in `deadlines!`.
        setters.extend(source.lines().map(str::trim).filter(|line| {
            line.ends_with("_timeout") && line.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        }));
    }
    assert!(setters.len() >= 25 && setters.contains(&"idle_timeout"), "{setters:?}");
    let is_tested = |name: &&str| {
        let call = [format!(".{name}("), format!(" {name} "), format!(" {name}\n")];
        tests.iter().any(|test| call.iter().any(|call| test.contains(call)))
    };
    let missing: Vec<_> = setters.iter().filter(|name| !is_tested(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
