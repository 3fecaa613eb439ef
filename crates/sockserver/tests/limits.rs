//! The promise: limits are exact. Further clients wait in the kernel's queue or are refused, as
//! configured, and the end of a request always releases its permit.

mod support;

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use sock::{Address, SO_ERROR, SOL_SOCKET, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, Request, ServerHooks, StreamContext, TCPServer, ThreadPoolTCPServer, ThreadingMixIn,
    ThreadingTCPServer, ThreadingUDPServer, UDPServer, WhenFull, datagram_handler_fn, handler_fn, testing,
};

use support::{
    Gate, LIMIT, LOOPBACK, OpenOnDrop, connect_from, connect_to, datagram_client, read_to_end,
    sleep_briefly, wait_for_stats, wait_until,
};

/// Waits at the gate, and then answers.
fn gated(gate: &Gate) -> Builder<Stream<Inet>, ThreadingMixIn> {
    let gate = gate.clone();
    ThreadingTCPServer::builder(handler_fn(move |cx| {
        gate.pass();
        cx.request.sendall(b"served")
    }))
}

#[test]
fn there_are_never_more_handlers_than_the_limit_and_the_rest_is_served_later() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let server = testing::serve(gated(&gate).max_connections(3).bind(LOOPBACK).unwrap());
    let clients: Vec<Socket> = (0..12).map(|_| connect_to(server.address())).collect();
    gate.wait_for(3);
    let stats = server.handle().stats();
    assert_eq!((stats.accepted, stats.in_flight), (3, 3), "more clients than the limit were accepted");
    assert_eq!(gate.current(), 3);
    gate.open();
    for client in &clients {
        assert_eq!(read_to_end(client), "served");
    }
    assert_eq!(gate.max(), 3, "more handlers than the limit ran at once");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.finished, stats.rejected), (12, 0));
}

#[test]
fn the_limit_is_exact_under_load() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counting, peak) = (Arc::clone(&now), Arc::clone(&most));
    let handler = handler_fn(move |cx| {
        let here = counting.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(here, Ordering::SeqCst);
        let answer = cx.request.recv(1).and_then(|byte| cx.request.sendall(&byte));
        counting.fetch_sub(1, Ordering::SeqCst);
        answer
    });
    let server = ThreadingTCPServer::builder(handler).max_connections(4).bind(LOOPBACK).unwrap();
    let server = testing::serve(server);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let client = connect_to(server.address());
                    sleep_briefly();
                    client.sendall(b"x").unwrap();
                    assert_eq!(read_to_end(&client), "x");
                }
            });
        }
        scope.spawn(|| {
            wait_until("a client was not served", || {
                let stats = server.handle().stats();
                assert!(stats.in_flight <= 4 && stats.is_consistent(), "{stats:?}");
                stats.finished == 400
            });
        });
    });
    let most = most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} handlers ran at once");
}

#[test]
fn several_listeners_share_one_limit() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let server = gated(&gate).max_connections(3).bind_all([LOOPBACK, LOOPBACK, LOOPBACK]).unwrap();
    let addresses = server.server_addresses().to_vec();
    let server = testing::serve(server);
    let clients: Vec<Socket> = addresses.iter().cycle().take(9).map(connect_to).collect();
    gate.wait_for(3);
    assert_eq!(server.handle().stats().accepted, 3);
    gate.open();
    for client in &clients {
        assert_eq!(read_to_end(client), "served", "a listener starved");
    }
    assert_eq!(gate.max(), 3);
}

#[test]
fn a_sequential_server_has_at_most_one_request() {
    let server = TCPServer::builder(handler_fn(|cx| {
        let stats = cx.server.stats();
        writeln!(cx.wfile, "{} {}", stats.in_flight, stats.accepted)
    }))
    .max_connections(0)
    .bind(LOOPBACK)
    .unwrap();
    let server = testing::serve(server);
    let clients: Vec<Socket> = (0..3).map(|_| connect_to(server.address())).collect();
    for (index, client) in clients.iter().enumerate() {
        assert_eq!(read_to_end(client), format!("1 {}\n", index + 1), "a limit of 0 is treated as 1");
    }
}

#[test]
fn datagrams_wait_for_a_permit() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let at_the_gate = gate.clone();
    let handler = datagram_handler_fn(move |cx| {
        at_the_gate.pass();
        cx.wfile.write_all(cx.packet)
    });
    let server = ThreadingUDPServer::builder(handler).max_connections(2).bind(LOOPBACK).unwrap();
    let server = testing::serve(server);
    let client = datagram_client(sock::AF_INET);
    for number in 0..6_u8 {
        client.sendto(&[number], server.address()).unwrap();
    }
    gate.wait_for(2);
    assert_eq!(server.handle().stats().accepted, 2);
    gate.open();
    let mut answers: Vec<u8> = (0..6).map(|_| client.recv(10).unwrap()[0]).collect();
    answers.sort_unstable();
    assert_eq!((answers, gate.max()), ((0..6).collect(), 2));
}

/// Sends a line to a client that is refused.
struct Refusing {
    calls: Arc<AtomicUsize>,
}

impl ServerHooks for Refusing {
    fn refuse_request(&self, request: &Request, _client_address: &Address) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let _ = request.stream().expect("a connection").sendall(b"too many");
    }
}

#[test]
fn a_full_server_refuses_clients_if_configured() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let calls = Arc::new(AtomicUsize::new(0));
    let server = gated(&gate)
        .max_connections(2)
        .when_full(WhenFull::Refuse)
        .hooks(Refusing { calls: Arc::clone(&calls) })
        .bind(LOOPBACK)
        .unwrap();
    let server = testing::serve(server);
    let served: Vec<Socket> = (0..2).map(|_| connect_to(server.address())).collect();
    gate.wait_for(2);
    for _ in 0..5 {
        assert_eq!(read_to_end(&connect_to(server.address())), "too many");
    }
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 2);
    assert_eq!((stats.accepted, stats.rejected), (7, 5));
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    gate.open();
    for client in &served {
        assert_eq!(read_to_end(client), "served");
    }
    wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!(read_to_end(&connect_to(server.address())), "served", "the permit was not released");
    assert_eq!((gate.max(), calls.load(Ordering::SeqCst)), (2, 5));
}

/// Waits until the client has sent its request, and then refuses it.
struct RefusingLate(bool);

impl ServerHooks for RefusingLate {
    fn refuse_request(&self, request: &Request, _client_address: &Address) {
        let client = request.stream().expect("a connection");
        sock::poll(&mut [sock::Poll::new(client.socket(), sock::POLLIN)], Some(LIMIT)).unwrap();
        let _ = client.sendall(b"too many");
    }

    fn verify_request(&self, request: &Request, client_address: &Address) -> bool {
        if !self.0 {
            self.refuse_request(request, client_address);
        }
        self.0
    }
}

#[test]
fn a_refused_client_that_has_sent_a_request_gets_the_refusal_and_no_reset() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let full = gated(&gate).max_connections(1).when_full(WhenFull::Refuse).hooks(RefusingLate(true));
    let full = testing::serve(full.bind(LOOPBACK).unwrap());
    let first = connect_to(full.address());
    gate.wait_for(1);
    let never = testing::serve(gated(&gate).hooks(RefusingLate(false)).bind(LOOPBACK).unwrap());
    for server in [&full, &never] {
        for rejected in 1..=5 {
            let client = connect_to(server.address());
            client.sendall(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            assert_eq!(read_to_end(&client), "too many");
            wait_for_stats(server.handle(), |stats| stats.rejected == rejected);
            assert_eq!(client.getsockopt(SOL_SOCKET, SO_ERROR).unwrap(), 0, "a reset");
        }
    }
    gate.open();
    assert_eq!(read_to_end(&first), "served");
}

#[test]
fn a_panic_in_refuse_request_ends_one_request_only() {
    struct Panics;
    impl ServerHooks for Panics {
        fn refuse_request(&self, _request: &Request, _client_address: &Address) {
            panic!("as planned");
        }
    }
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let server = gated(&gate).max_connections(1).when_full(WhenFull::Refuse).hooks(Panics);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let first = connect_to(server.address());
    gate.wait_for(1);
    assert_eq!(read_to_end(&connect_to(server.address())), "");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 1);
    assert_eq!((stats.accepted, stats.panicked), (2, 1));
    gate.open();
    assert_eq!(read_to_end(&first), "served");
}

/// Returns no client to the first worker that calls it.
struct FirstIsSlow {
    asked: AtomicUsize,
    gate: Gate,
}

impl ServerHooks for FirstIsSlow {
    fn get_request(&self, listener: &Socket) -> io::Result<(Socket, Address)> {
        if self.asked.fetch_add(1, Ordering::SeqCst) == 0 {
            self.gate.pass();
            return Err(io::ErrorKind::WouldBlock.into());
        }
        listener.accept()
    }
}

#[test]
fn an_accept_attempt_without_a_client_holds_no_permit() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let hooks = FirstIsSlow { asked: AtomicUsize::new(0), gate: gate.clone() };
    let server = ThreadPoolTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"served")))
        .workers(2)
        .max_connections(1)
        .when_full(WhenFull::Refuse)
        .hooks(hooks);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    gate.wait_for(1);
    let answer = read_to_end(&connect_to(server.address()));
    gate.open();
    assert_eq!(answer, "served");
}

#[test]
fn the_limit_per_address_does_not_affect_other_addresses() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let calls = Arc::new(AtomicUsize::new(0));
    let server = gated(&gate).max_connections_per_ip(2).hooks(Refusing { calls: Arc::clone(&calls) });
    let server = testing::serve(server.bind(("0.0.0.0", 0)).unwrap());
    let first: Vec<Socket> = (0..2).map(|_| connect_from("127.0.0.1", server.address())).collect();
    gate.wait_for(2);
    assert_eq!(read_to_end(&connect_from("127.0.0.1", server.address())), "too many");
    let second: Vec<Socket> = (0..2).map(|_| connect_from("127.0.0.2", server.address())).collect();
    gate.wait_for(4);
    assert_eq!(read_to_end(&connect_from("127.0.0.2", server.address())), "too many");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 4);
    assert_eq!((stats.accepted, stats.rejected, calls.load(Ordering::SeqCst)), (6, 2, 2));
    gate.open();
    for client in first.iter().chain(&second) {
        assert_eq!(read_to_end(client), "served");
    }
    wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    for _ in 0..3 {
        assert_eq!(
            read_to_end(&connect_from("127.0.0.1", server.address())),
            "served",
            "the permits of the address were not released"
        );
        wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    }
}

#[test]
fn a_mapped_ipv4_address_counts_as_ipv4() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let calls = Arc::new(AtomicUsize::new(0));
    let server = gated(&gate).max_connections_per_ip(1).hooks(Refusing { calls });
    let server = match server.bind_all([("::", 0), ("127.0.0.1", 0)]) {
        Ok(server) => server,
        Err(error) => panic!("this test needs IPv6: {error}"),
    };
    let addresses = server.server_addresses().to_vec();
    let server = testing::serve(server);
    let first = connect_from("127.0.0.1", &addresses[0]);
    gate.wait_for(1);
    assert_eq!(
        read_to_end(&connect_from("127.0.0.1", &addresses[1])),
        "too many",
        "the mapped address counts as another client"
    );
    assert_eq!(read_to_end(&connect_from("127.0.0.1", &addresses[0])), "too many");
    let other = connect_from("127.0.0.2", &addresses[0]);
    gate.wait_for(2);
    gate.open();
    assert_eq!((read_to_end(&first), read_to_end(&other)), ("served".into(), "served".into()));
    drop(server);
}

#[test]
fn max_threads_sets_max_connections() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let server = testing::serve(gated(&gate).max_threads(2).bind(LOOPBACK).unwrap());
    let clients: Vec<Socket> = (0..6).map(|_| connect_to(server.address())).collect();
    gate.wait_for(2);
    assert_eq!(server.handle().stats().in_flight, 2);
    gate.open();
    assert!(clients.iter().all(|client| read_to_end(client) == "served"));
    assert_eq!(gate.max(), 2);
}

/// Refuses clients by their first byte.
struct Choosy;

impl ServerHooks for Choosy {
    fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
        let said = request.stream().expect("a connection").recv(1).unwrap_or_default();
        assert!(said != b"!", "as planned");
        said != b"?"
    }

    fn handle_error(&self, _error: &sockserver::RequestError, _client_address: &Address) {}
}

fn misbehave(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    match line.trim_end() {
        "error" => Err(io::Error::other("as planned")),
        "panic" => panic!("as planned"),
        line => cx.wfile.write_all(line.as_bytes()),
    }
}

#[test]
fn every_end_of_a_request_releases_its_permit() {
    // Each client takes the only permit. If one kept it, the next would not be served.
    let server = ThreadingTCPServer::builder(handler_fn(misbehave))
        .hooks(Choosy)
        .max_connections(1)
        .max_connections_per_ip(1)
        .first_byte_timeout(Duration::from_millis(400))
        .bind(LOOPBACK)
        .unwrap();
    let server = testing::serve(server);
    let talk = |words: &[u8]| {
        let client = connect_to(server.address());
        client.sendall(words).unwrap();
        let said = read_to_end(&client);
        wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
        said
    };
    for _ in 0..3 {
        assert_eq!(talk(b".fine\n"), "fine");
        assert_eq!(talk(b".error\n"), "");
        assert_eq!(talk(b".panic\n"), "");
        assert_eq!(talk(b"?"), "");
        assert_eq!(talk(b"!"), "");
        assert_eq!(talk(b"."), "", "the silent client was not closed");
    }
    let stats = server.handle().stats();
    assert_eq!((stats.accepted, stats.finished, stats.failed, stats.panicked), (18, 3, 3, 6));
    assert_eq!((stats.rejected, stats.timed_out.first_byte), (3, 3));
}

#[test]
fn a_limit_of_one_works_in_the_accept_loop() {
    // The permit that is acquired before the next accept must not count twice.
    let server =
        UDPServer::builder(datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet))).max_connections(1);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let client = datagram_client(sock::AF_INET);
    for _ in 0..20 {
        client.sendto(b"echo", server.address()).unwrap();
        assert_eq!(client.recv(10).unwrap(), b"echo");
    }
}
