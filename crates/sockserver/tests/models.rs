//! The promise: a handler behaves the same in every model. Each request is answered, there may be many
//! idle connections, a handler that blocks does not delay others, and every server can be stopped.
#![cfg(unix)]

mod support;

use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use sock::{AF_INET, SOCK_DGRAM, SOCK_STREAM, Socket};
use sockserver::testing::{self, Running};
use sockserver::{
    DatagramContext, DatagramRequestHandler, SelectorTCPServer, SelectorUnixStreamServer, StreamContext,
    StreamRequestHandler, ThreadPoolTCPServer, ThreadPoolUDPServer, ThreadingTCPServer, UDPServer,
    WhenQueueFull, handler_fn,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Echoes one line. `last` ends the connection.
struct Line;

impl StreamRequestHandler for Line {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        cx.close_connection = cx.rfile.read_until(b'\n', &mut line)? == 0 || line == b"last\n";
        cx.wfile.write_all(&line)
    }
}

fn ask(client: &Socket, line: &str) -> String {
    client.sendall(line.as_bytes()).unwrap();
    let mut answer = String::new();
    client.makefile_rb().read_line(&mut answer).unwrap();
    answer
}

#[track_caller]
fn interleave_clients(server: Running) {
    let clients: Vec<Socket> = (0..20).map(|_| server.connect().unwrap()).collect();
    for turn in 0..3 {
        for (number, client) in clients.iter().enumerate().rev() {
            let line = format!("{turn} of {number}\n");
            assert_eq!(ask(client, &line), line);
        }
    }
    for client in &clients[..10] {
        assert_eq!(ask(client, "last\n"), "last\n");
        assert_eq!(client.recv(1).unwrap(), b"");
    }
    drop(clients);
    let handle = server.handle().clone();
    drop(server);
    let stats = handle.stats();
    assert_eq!((stats.accepted, stats.finished, stats.in_flight), (20, 20, 0), "{stats}");
}

const ANY: (&str, u16) = ("127.0.0.1", 0);

#[test]
fn threads_serve_interleaved_requests() {
    interleave_clients(testing::serve(ThreadingTCPServer::new(ANY, || Line).unwrap()));
}

#[test]
fn a_pool_serves_interleaved_requests() {
    let pool = ThreadPoolTCPServer::builder(|| Line).workers(20).bind(ANY).unwrap();
    interleave_clients(testing::serve(pool));
}

#[test]
fn a_pool_with_a_queue_serves_interleaved_requests() {
    let queue = ThreadPoolTCPServer::builder(|| Line).workers(20).queue(5, WhenQueueFull::Wait);
    interleave_clients(testing::serve(queue.bind(ANY).unwrap()));
}

#[test]
fn a_selector_serves_interleaved_requests() {
    for workers in [1, 3] {
        let selector = SelectorTCPServer::builder(|| Line).workers(workers).bind(ANY).unwrap();
        interleave_clients(testing::serve(selector));
    }
}

#[test]
fn a_selector_serves_interleaved_requests_over_unix_sockets() {
    let path = tempfile::tempdir().unwrap();
    let unix = SelectorUnixStreamServer::new(path.path().join("socket"), || Line).unwrap();
    interleave_clients(testing::serve(unix));
}

/// Receives a request from the connection itself, in several small pieces.
struct Pieces;

impl StreamRequestHandler for Pieces {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut all = Vec::new();
        while all.len() < 10 {
            let piece = cx.request.recv(3)?;
            if piece.is_empty() {
                return Ok(());
            }
            all.extend(piece);
        }
        cx.close_connection = false;
        cx.request.sendall(&all)
    }
}

/// Data that a handler left in the socket's receive buffer is a request. No event reports it again.
#[test]
fn a_selector_serves_a_request_that_a_handler_left_unread() {
    let server = testing::serve(SelectorTCPServer::new(("127.0.0.1", 0), || Pieces).unwrap());
    let client = server.connect().unwrap();
    client.sendall(&[b'x'; 24]).unwrap();
    let mut answer = vec![0; 24];
    io::Read::read_exact(&mut client.makefile_rb(), &mut answer).unwrap();
    assert_eq!(answer, [b'x'; 24]);
}

/// Receives a byte, and a second one that arrives meanwhile. The event of the second is outdated.
struct Unbuffered(mpsc::Sender<()>);

impl StreamRequestHandler for Unbuffered {
    const RBUFSIZE: usize = 0;

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut bytes = [0; 2];
        cx.rfile.read_exact(&mut bytes[..1])?;
        self.0.send(()).unwrap();
        cx.rfile.read_exact(&mut bytes[1..])?;
        cx.close_connection = false;
        cx.wfile.write_all(&bytes)
    }
}

#[test]
fn a_selector_ignores_an_event_without_input() {
    let (sender, receiver) = mpsc::channel();
    let server =
        SelectorTCPServer::builder(move || Unbuffered(sender.clone())).workers(2).bind(ANY).unwrap();
    let server = testing::serve(server);
    let client = server.connect().unwrap();
    for _ in 0..3 {
        client.sendall(b"x").unwrap();
        receiver.recv_timeout(LIMIT).unwrap();
        client.sendall(b"y").unwrap();
        assert_eq!(client.recv_with_flags(2, sock::MSG_WAITALL).unwrap(), b"xy");
    }
}

#[test]
fn a_selector_holds_many_idle_clients_with_few_threads() {
    let server = SelectorTCPServer::builder(|| Line).workers(1).bind(("127.0.0.1", 0)).unwrap();
    let server = testing::serve(server);
    let idle: Vec<Socket> = (0..200).map(|_| server.connect().unwrap()).collect();
    for client in idle.iter().step_by(10) {
        assert_eq!(ask(client, "hello\n"), "hello\n");
    }
    // The response arrives shortly before the connection is idle again.
    while server.handle().stats().idle < 20 {
        thread::yield_now();
    }
    assert_eq!(server.handle().stats().in_flight, 200);
}

/// Waits at a barrier.
struct Together(Arc<Barrier>);

impl StreamRequestHandler for Together {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        self.0.wait();
        cx.wfile.write_all(line.as_bytes())
    }
}

/// One worker, and eight handlers that wait for each other.
#[test]
fn a_selectors_handlers_may_block() {
    let barrier = Arc::new(Barrier::new(8));
    let builder = SelectorTCPServer::builder(move || Together(Arc::clone(&barrier))).workers(1);
    let server = testing::serve(builder.bind(("127.0.0.1", 0)).unwrap());
    let clients: Vec<Socket> = (0..8).map(|_| server.connect().unwrap()).collect();
    for client in &clients {
        client.sendall(b"x\n").unwrap();
    }
    for client in &clients {
        assert_eq!(client.recv(10).unwrap(), b"x\n");
    }
}

struct Greets;

impl StreamRequestHandler for Greets {
    const SPEAKS_FIRST: bool = true;

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.wfile.write_all(b"welcome\n")
    }
}

/// A request that arrives while another of the same client is served has its event handled by
/// another worker. It must not be lost.
#[test]
fn a_selector_serves_a_request_that_arrives_while_another_is_served() {
    let gate = support::Gate::new();
    let at_the_gate = gate.clone();
    let make = handler_fn(move |cx| {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        if line == "gate\n" {
            at_the_gate.pass();
        }
        cx.close_connection = line.is_empty();
        cx.wfile.write_all(line.as_bytes())
    });
    let server =
        testing::serve(SelectorTCPServer::builder(make).workers(2).bind(("127.0.0.1", 0)).unwrap());
    let client = server.connect().unwrap();
    // Registered first, so that the next request has an event.
    assert_eq!(ask(&client, "hello\n"), "hello\n");
    client.sendall(b"gate\n").unwrap();
    gate.wait_for(1);
    client.sendall(b"meanwhile\n").unwrap();
    // This client connected later, so the event before was handled.
    assert_eq!(ask(&server.connect().unwrap(), "other\n"), "other\n");
    gate.open();
    let mut lines = client.makefile_rb();
    for expected in ["gate\n", "meanwhile\n"] {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }
}

#[test]
fn a_selectors_handler_may_send_first() {
    let server = testing::serve(SelectorTCPServer::new(("127.0.0.1", 0), || Greets).unwrap());
    assert_eq!(server.connect().unwrap().recv(100).unwrap(), b"welcome\n");
}

#[test]
fn a_selector_serves_again_after_a_shutdown() {
    let server = SelectorTCPServer::new(("127.0.0.1", 0), || Line).unwrap();
    let handle = server.handle();
    let address = server.server_address().clone();
    let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| server.serve_forever().unwrap());
        client.connect(&address).unwrap();
        assert_eq!(ask(&client, "one\n"), "one\n");
        handle.shutdown().unwrap();
        // A connection is kept while no loop runs.
        assert_eq!(ask(&client, "two\n"), "two\n");
        let (sender, served) = mpsc::channel();
        let server = &server;
        scope.spawn(move || {
            sender.send(()).unwrap();
            server.serve_forever().unwrap();
        });
        served.recv_timeout(LIMIT).unwrap();
        let other = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        other.settimeout(LIMIT).unwrap();
        other.connect(&address).unwrap();
        assert_eq!(ask(&other, "three\n"), "three\n");
        handle.shutdown().unwrap();
    });
    server.server_close().unwrap();
    assert_eq!(client.recv(10).unwrap(), b"");
}

#[test]
fn a_pool_serves_as_many_at_once_as_it_has_workers() {
    let barrier = Arc::new(Barrier::new(4));
    let builder = ThreadPoolTCPServer::builder(move || Together(Arc::clone(&barrier))).workers(4);
    let server = testing::serve(builder.bind(("127.0.0.1", 0)).unwrap());
    for _ in 0..3 {
        let clients: Vec<Socket> = (0..4).map(|_| server.connect().unwrap()).collect();
        for client in &clients {
            client.sendall(b"x\n").unwrap();
        }
        for client in &clients {
            assert_eq!(client.recv(10).unwrap(), b"x\n");
        }
    }
}

/// Blocks until the test releases it.
struct Stays(Arc<(Barrier, Barrier)>);

impl StreamRequestHandler for Stays {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.0.wait();
        self.0.1.wait();
        cx.wfile.write_all(b"served")
    }
}

#[track_caller]
fn a_full_queue(when_full: WhenQueueFull) -> (Vec<Vec<u8>>, u64) {
    let gates = Arc::new((Barrier::new(2), Barrier::new(2)));
    let its = Arc::clone(&gates);
    let builder =
        ThreadPoolTCPServer::builder(move || Stays(Arc::clone(&its))).workers(1).queue(1, when_full);
    let server = testing::serve(builder.bind(("127.0.0.1", 0)).unwrap());
    let handle = server.handle().clone();
    let first = server.connect().unwrap();
    gates.0.wait();
    let second = server.connect().unwrap();
    while handle.stats().accepted < 2 {
        thread::yield_now();
    }
    let third = server.connect().unwrap();
    let mut answers = Vec::new();
    if when_full != WhenQueueFull::Wait {
        answers.push(third.recv(10).unwrap_or_default());
    }
    let served = if when_full == WhenQueueFull::Wait {
        vec![&first, &second, &third]
    } else {
        vec![&first, &second]
    };
    for (number, client) in served.iter().enumerate() {
        if number > 0 {
            gates.0.wait();
        }
        gates.1.wait();
        answers.push(client.recv(10).unwrap());
    }
    drop(server);
    (answers, handle.stats().rejected)
}

#[test]
fn a_full_queue_makes_clients_wait_or_refuses_them() {
    let served = || b"served".to_vec();
    assert_eq!(a_full_queue(WhenQueueFull::Wait), (vec![served(), served(), served()], 0));
    for when_full in [WhenQueueFull::Refuse, WhenQueueFull::Drop] {
        assert_eq!(a_full_queue(when_full), (vec![Vec::new(), served(), served()], 1), "{when_full:?}");
    }
}

struct Upper;

impl DatagramRequestHandler for Upper {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        cx.wfile.write_all(&cx.packet.to_ascii_uppercase())
    }
}

fn answers_datagrams(server: Running) {
    let client = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(server.address()).unwrap();
    for number in 0..50 {
        client.send(format!("ask {number}").as_bytes()).unwrap();
    }
    let mut answers: Vec<Vec<u8>> = (0..50).map(|_| client.recv(100).unwrap()).collect();
    answers.sort();
    let mut expected: Vec<Vec<u8>> = (0..50).map(|number| format!("ASK {number}").into_bytes()).collect();
    expected.sort();
    assert_eq!(answers, expected);
}

#[test]
fn datagrams_are_served_in_batches_and_in_a_pool() {
    for max_batch in [1, 2, 64] {
        let server = UDPServer::builder(|| Upper).max_batch(max_batch).bind(("127.0.0.1", 0)).unwrap();
        answers_datagrams(testing::serve(server));
    }
    let pool = ThreadPoolUDPServer::builder(|| Upper).workers(3).bind(("127.0.0.1", 0)).unwrap();
    answers_datagrams(testing::serve(pool));
}

/// Stops the server in the middle of a batch.
struct Stops(Arc<AtomicUsize>);

impl DatagramRequestHandler for Stops {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            cx.server.request_shutdown()?;
        }
        cx.wfile.write_all(cx.packet)
    }
}

#[test]
fn a_received_batch_is_answered_before_a_stop() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let builder = UDPServer::builder(move || Stops(Arc::clone(&counted))).max_batch(8);
    let server = builder.bind(("127.0.0.1", 0)).unwrap();
    let client = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(server.server_address()).unwrap();
    for number in 0..8_u8 {
        client.send(&[number]).unwrap();
    }
    server.serve_forever().unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 8);
    for number in 0..8_u8 {
        assert_eq!(client.recv(10).unwrap(), [number]);
    }
}

/// Serves all lines of its connection.
fn lines(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    while cx.rfile.read_line(&mut line)? > 0 {
        cx.wfile.write_all(line.as_bytes())?;
        line.clear();
    }
    Ok(())
}

/// At least as many clients as workers are served at once. The others are served soon after, because
/// more workers may be started.
#[test]
fn a_selector_accepts_all_clients_that_connect_while_it_starts() {
    for round in 0..60 {
        let workers = [2, 3, 8][round % 3];
        let server = SelectorTCPServer::builder(handler_fn(lines)).workers(workers).bind(ANY).unwrap();
        let address = server.server_address().clone();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let address = address.clone();
                thread::spawn(move || {
                    let client = support::connect_to(&address);
                    client.settimeout(Duration::from_secs(10)).unwrap();
                    assert_eq!(ask(&client, "a line\n"), "a line\n");
                    client
                })
            })
            .collect();
        let server = testing::serve(server);
        let clients: Vec<Socket> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        drop(clients);
        drop(server);
    }
}

/// A client that shuts down while a request of its is served is closed at once. No further event
/// reports its end.
#[test]
fn a_selector_sees_a_shutdown_that_arrives_while_a_request_is_served() {
    let gate = support::Gate::new();
    let _open = support::OpenOnDrop(gate.clone());
    let passes = gate.clone();
    let handler = handler_fn(move |cx: &mut StreamContext<'_>| {
        let mut line = String::new();
        if cx.rfile.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line == "gate\n" {
            passes.pass();
        }
        cx.close_connection = false;
        cx.wfile.write_all(line.as_bytes())
    });
    let server = testing::serve(SelectorTCPServer::builder(handler).workers(2).bind(ANY).unwrap());
    let client = server.connect().unwrap();
    client.settimeout(Duration::from_secs(10)).unwrap();
    assert_eq!(ask(&client, "first\n"), "first\n");
    client.sendall(b"gate\n").unwrap();
    gate.wait_for(1);
    client.sendall(b"last\n").unwrap();
    client.shutdown(sock::SHUT_WR).unwrap();
    // The other worker handles the event and only records it.
    sock::poll(&mut [], Some(Duration::from_millis(100))).unwrap();
    gate.open();
    assert_eq!(support::read_to_end(&client), "gate\nlast\n");
}
