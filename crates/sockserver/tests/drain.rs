//! The promise: `drain` returns within 250 ms of its limit, whatever clients and handlers do. New
//! clients are refused, idle connections are closed at once, requests may finish, the rest is
//! aborted, and the report counts each of them.
//!
//! `tests/process_tests/drain_on_signals.rs` tests forking servers.

mod support;

use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sock::{Address, Socket};
use sockserver::kind::Inet;
use sockserver::{
    DatagramServer, DrainReport, MixIn, Sequential, ServerHandle, ServerHooks, ServerState, StreamContext,
    StreamServer, TCPServer, ThreadPoolMixIn, ThreadingMixIn, ThreadingTCPServer, datagram_handler_fn,
    handler_fn, testing,
};

#[cfg(unix)]
use sockserver::SelectorMixIn;
use support::{
    Gate, LIMIT, LOOPBACK, OpenOnDrop, connect_to, datagram_client, read_to_end, sleep_briefly,
    wait_for_stats, wait_until,
};

/// A limit that expires soon.
const SOON: Duration = Duration::from_millis(200);
/// How much longer than its limit a drain may take.
const GRACE: Duration = Duration::from_millis(250);

/// Echoes lines. `gate` waits at the gate first, `blocked` at a gate that stays closed, `read` for
/// more input.
fn echo_lines(gate: &Gate, blocked: &Gate, cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    match line.trim_end() {
        "gate" => gate.pass(),
        "blocked" => blocked.pass(),
        "read" => {
            cx.wfile.write_all(b"reading\n")?;
            cx.rfile.read_exact(&mut [0; 100])?;
        }
        _ => {}
    }
    cx.close_connection = line.is_empty();
    cx.wfile.write_all(line.as_bytes())
}

struct Clients {
    gate: Gate,
    blocked: Gate,
    _open: [OpenOnDrop; 2],
}

impl Clients {
    fn new() -> Clients {
        let (gate, blocked) = (Gate::new(), Gate::new());
        let _open = [OpenOnDrop(gate.clone()), OpenOnDrop(blocked.clone())];
        Clients { gate, blocked, _open }
    }

    fn handler(&self) -> impl Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + Sync + 'static {
        let (gate, blocked) = (self.gate.clone(), self.blocked.clone());
        move |cx| echo_lines(&gate, &blocked, cx)
    }

    fn server(&self) -> ThreadingTCPServer {
        ThreadingTCPServer::builder(handler_fn(self.handler())).bind(LOOPBACK).unwrap()
    }
}

/// Connects and sends these bytes.
#[track_caller]
fn client_that_sends(address: &Address, bytes: &[u8]) -> Socket {
    let client = connect_to(address);
    client.sendall(bytes).unwrap();
    client
}

/// Connects and is served once. The connection is idle afterwards.
#[track_caller]
fn idle_client(address: &Address) -> Socket {
    let client = client_that_sends(address, b"hello\n");
    assert_eq!(client.recv(100).unwrap(), b"hello\n");
    client
}

/// Serves in a thread, like `testing::serve`, but does not stop the server.
fn serve_in_thread<M: MixIn>(server: StreamServer<Inet, M>) -> mpsc::Receiver<io::Result<()>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let served = server.serve_forever().and_then(|()| server.server_close());
        let _ = sender.send(served);
    });
    receiver
}

#[track_caller]
fn assert_returns(end: &mpsc::Receiver<io::Result<()>>) {
    end.recv_timeout(LIMIT).expect("serve_forever did not return").expect("serve_forever failed");
}

#[test]
fn the_report_counts_finished_idle_and_aborted_requests() {
    let clients = Clients::new();
    let server = clients.server();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let silent = connect_to(&address);
    let idle = idle_client(&address);
    let busy: Vec<Socket> = (0..2).map(|_| client_that_sends(&address, b"gate\n")).collect();
    let waiting = client_that_sends(&address, b"read\n");
    assert_eq!(waiting.recv(100).unwrap(), b"reading\n");
    clients.gate.wait_for(2);
    wait_for_stats(&handle, |stats| stats.in_flight == 5 && stats.idle == 1);

    let report = thread::scope(|scope| {
        let draining = scope.spawn(|| handle.drain(Duration::from_secs(1)).unwrap());
        assert_eq!(read_to_end(&silent), "", "an idle connection was not closed at once");
        assert_eq!(read_to_end(&idle), "");
        clients.gate.open();
        for client in &busy {
            assert_eq!(read_to_end(client), "gate\n", "a request did not finish");
        }
        draining.join().unwrap()
    });
    assert_eq!(read_to_end(&waiting), "", "an unfinished request was not aborted");
    let peers: Vec<_> = report.aborted.iter().map(|request| request.client_address.clone()).collect();
    assert_eq!(peers, [waiting.getsockname().unwrap()], "{report}");
    assert!(report.aborted[0].age >= Duration::from_secs(1) && report.aborted[0].age <= LIMIT, "{report}");
    assert!(report.elapsed >= Duration::from_secs(1));
    assert_eq!((report.finished, report.idle, report.still_running), (2, 2, 0), "{report}");
    assert_returns(&end);
    let stats = handle.stats();
    assert!(stats.is_consistent(), "{stats:?}");
    assert_eq!((stats.accepted, stats.finished, stats.aborted, stats.in_flight), (5, 4, 1, 0));
    let line = report.to_string();
    assert!(line.contains("2 finished, 2 idle closed, 1 aborted: 127.0.0.1:"), "{line}");
}

#[test]
fn a_drain_returns_in_time_while_handlers_do_not() {
    // The limit is a quarter of a second. A busy machine may miss it once.
    let mut late = Duration::MAX;
    for _ in 0..3 {
        let clients = Clients::new();
        let server = clients.server();
        let (handle, address) = (server.handle(), server.server_address().clone());
        let end = serve_in_thread(server);
        let _blocked: Vec<Socket> = (0..3).map(|_| client_that_sends(&address, b"blocked\n")).collect();
        let busy = client_that_sends(&address, b"gate\n");
        clients.blocked.wait_for(3);
        clients.gate.wait_for(1);
        clients.gate.open();
        let begin = Instant::now();
        let report = handle.drain(SOON).unwrap();
        late = late.min(begin.elapsed() - SOON);
        assert_eq!(read_to_end(&busy), "gate\n");
        let counts = (report.finished + report.idle, report.aborted.len(), report.still_running);
        assert_eq!(counts, (1, 3, 3), "{report}");
        assert!(report.to_string().ends_with("; 3 handlers still running"), "{report}");
        assert_returns(&end);
        assert_eq!(handle.stats().in_flight, 3, "server_close waited for aborted handlers");
        clients.blocked.open();
        let stats = wait_for_stats(&handle, |stats| stats.in_flight == 0);
        assert_eq!((stats.aborted, stats.finished), (3, 1));
        if late <= GRACE {
            return;
        }
    }
    panic!("the drain took {late:?} longer than its limit");
}

#[test]
fn every_mixin_aborts_handlers_that_wait_for_their_client() {
    fn aborts<M: MixIn + Default>() {
        let clients = Clients::new();
        let server = StreamServer::<Inet, M>::new(LOOPBACK, handler_fn(clients.handler())).unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        let end = serve_in_thread(server);
        let client = client_that_sends(&address, b"read\n");
        assert_eq!(client.recv(100).unwrap(), b"reading\n");
        let report = handle.drain(SOON).unwrap();
        assert_eq!(
            (report.finished, report.idle, report.aborted.len(), report.still_running),
            (0, 0, 1, 0)
        );
        assert_eq!(read_to_end(&client), "");
        assert_returns(&end);
        assert_eq!(handle.stats().aborted, 1);
    }
    aborts::<Sequential>();
    aborts::<ThreadingMixIn>();
}

#[test]
fn drain_in_a_handler_is_a_deadlock_error() {
    fn from_a_handler<M: MixIn + Default>() {
        let (sender, receiver) = mpsc::channel();
        let server = StreamServer::<Inet, M>::new(
            LOOPBACK,
            handler_fn(move |cx| {
                let refused = cx.server.drain(LIMIT).unwrap_err();
                let _ = sender.send(refused.kind());
                cx.wfile.write_all(b"served")
            }),
        )
        .unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        let end = serve_in_thread(server);
        let client = connect_to(&address);
        assert_eq!(receiver.recv_timeout(LIMIT).unwrap(), io::ErrorKind::Deadlock);
        assert_eq!(read_to_end(&client), "served", "the handler was aborted by its own call");
        assert_returns(&end);
        wait_until("the server is closed", || !handle.is_stopping());
    }
    from_a_handler::<Sequential>();
    from_a_handler::<ThreadingMixIn>();
}

#[test]
fn drain_in_the_accept_loop_is_a_deadlock_error() {
    let (kinds, received) = mpsc::channel();
    let server = TCPServer::builder(handler_fn(|_| Ok(())))
        .service_actions(move |server| {
            let _ = kinds.send(server.drain(LIMIT).unwrap_err().kind());
        })
        .poll_interval(Duration::ZERO)
        .bind(LOOPBACK)
        .unwrap();
    server.serve_forever().unwrap();
    assert_eq!(received.try_recv().unwrap(), io::ErrorKind::Deadlock);
}

#[test]
fn a_drain_before_the_start_ends_the_next_loop() {
    let server = TCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
    let early = connect_to(server.server_address());
    let report = server.drain(LIMIT).unwrap();
    assert!(report.elapsed < LIMIT / 2, "the drain waited although there were no requests");
    server.serve_forever().unwrap();
    assert_eq!(server.drained(), Some(report));
    assert_eq!(read_to_end(&early), "ConnectionReset", "a queued client was not refused");
    // `handle_request` does not wait on a listener that was shut down.
    server.handle_request().unwrap();
    assert_eq!(server.stats().accepted, 0);
}

#[test]
fn a_stopped_server_can_be_drained_and_does_not_serve_again() {
    let server = TCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| server.serve_forever().unwrap());
        wait_for_stats(&server.handle(), |stats| {
            let client = connect_to(server.server_address());
            read_to_end(&client).is_empty() && stats.finished > 0
        });
        server.shutdown().unwrap();
    });
    assert!(server.drain(LIMIT).unwrap().aborted.is_empty());
    server.serve_forever().unwrap();
    server.handle_request().unwrap();
}

#[test]
fn a_drain_ends_handle_request() {
    let server = TCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
    let (sender, end) = mpsc::channel();
    thread::scope(|scope| {
        let (server, waits) = (&server, mpsc::channel());
        scope.spawn(move || {
            let _ = waits.0.send(());
            let _ = sender.send(server.handle_request());
        });
        waits.1.recv_timeout(LIMIT).unwrap();
        let _ = server.drain(LIMIT).unwrap();
        let ended = end.recv_timeout(LIMIT);
        assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
    });
}

/// Returns from `state_changed` when no request is in flight.
struct WaitsForRequests(Arc<OnceLock<ServerHandle>>);

impl ServerHooks for WaitsForRequests {
    fn state_changed(&self, state: ServerState) {
        if state == ServerState::Draining {
            wait_for_stats(self.0.get().unwrap(), |stats| stats.in_flight == 0);
        }
    }
}

#[test]
fn the_report_counts_a_request_that_ends_while_the_state_is_announced() {
    let known = Arc::new(OnceLock::new());
    let handler = handler_fn(|cx| {
        cx.wfile.write_all(b"!")?;
        wait_until("the server stops", || cx.server.is_stopping());
        Ok(())
    });
    let builder = ThreadingTCPServer::builder(handler).hooks(WaitsForRequests(Arc::clone(&known)));
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    known.set(server.handle().clone()).unwrap();
    let client = server.connect().unwrap();
    assert_eq!(client.recv(1).unwrap(), b"!");
    let report = server.handle().drain(LIMIT).unwrap();
    assert_eq!((report.finished, report.aborted.len()), (1, 0), "{report}");
}

#[test]
fn a_second_drain_finds_nothing() {
    let clients = Clients::new();
    let server = clients.server();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let _idle = idle_client(&address);
    wait_for_stats(&handle, |stats| stats.idle == 1);
    let first = handle.drain(LIMIT).unwrap();
    let second = handle.drain(LIMIT).unwrap();
    assert_eq!((first.idle, second.idle, second.finished), (1, 0, 0));
    assert!(second.elapsed < LIMIT / 2);
    assert_returns(&end);
    assert!(handle.drain(LIMIT).unwrap().aborted.is_empty(), "a drain after the end aborted requests");
}

#[test]
fn concurrent_drains_wait_for_the_same_requests() {
    let clients = Clients::new();
    let server = clients.server();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let busy = client_that_sends(&address, b"gate\n");
    clients.gate.wait_for(1);
    thread::scope(|scope| {
        let with_limit = scope.spawn(|| handle.drain(LIMIT).unwrap());
        let without_limit = scope.spawn(|| handle.drain(Duration::MAX).unwrap());
        wait_until("new clients are refused", || client_is_refused(&address));
        clients.gate.open();
        for drain in [with_limit, without_limit] {
            let report = drain.join().unwrap();
            assert!(report.aborted.is_empty() && report.still_running == 0, "{report}");
        }
    });
    assert_eq!(read_to_end(&busy), "gate\n");
    assert_returns(&end);
}

fn client_is_refused(address: &Address) -> bool {
    let client = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(address).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[test]
fn new_clients_are_refused_and_queued_ones_are_served() {
    let clients = Clients::new();
    let server = ThreadingTCPServer::builder(handler_fn(clients.handler())).max_connections(1);
    let server = server.bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let busy = client_that_sends(&address, b"gate\n");
    clients.gate.wait_for(1);
    let queued = client_that_sends(&address, b"hello\n");
    thread::scope(|scope| {
        let draining = scope.spawn(|| handle.drain(LIMIT).unwrap());
        wait_until("new clients are refused", || client_is_refused(&address));
        clients.gate.open();
        let report = draining.join().unwrap();
        // The listener is shut down before the drain looks at the connections. A request that ends
        // in between leaves its connection idle.
        let served = handle.stats().accepted;
        assert_eq!((report.finished + report.idle, report.aborted.len()), (served, 0), "{report}");
    });
    assert_eq!(read_to_end(&busy), "gate\n");
    assert_eq!(read_to_end(&queued), "hello\n");
    assert_returns(&end);
    // A client that looked whether it is refused may have been in the queue too.
    assert!(handle.stats().accepted >= 2);
}

/// Accepts, and returns the connection only once the server is stopping.
struct AcceptsSlowly(Arc<OnceLock<ServerHandle>>, mpsc::Sender<()>);

impl ServerHooks for AcceptsSlowly {
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        let accepted = socket.accept()?;
        let _ = self.1.send(());
        let handle = self.0.get().expect("the handle is set before the loop");
        wait_until("the server is stopping", || handle.is_stopping());
        // Time for a wrong drain, which sees no connection, to return.
        (0..300).for_each(|_| sleep_briefly());
        Ok(accepted)
    }
}

#[test]
fn a_drain_waits_for_a_connection_that_was_just_accepted() {
    fn waits<M: MixIn + Default>() {
        let (handle, (sender, receiver)) = (Arc::new(OnceLock::new()), mpsc::channel());
        let hooks = AcceptsSlowly(Arc::clone(&handle), sender);
        let builder = StreamServer::<Inet, M>::builder(handler_fn(|cx| cx.wfile.write_all(b"served")));
        let server = builder.hooks(hooks).bind(LOOPBACK).unwrap();
        handle.set(server.handle()).unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        let end = serve_in_thread(server);
        let client = connect_to(&address);
        receiver.recv_timeout(LIMIT).unwrap();
        let report = handle.drain(LIMIT).unwrap();
        let stats = handle.stats();
        assert_eq!((stats.accepted, stats.in_flight), (1, 0), "{report}, {stats}");
        assert_eq!(report.finished + report.idle, 1, "{report}");
        assert_eq!(read_to_end(&client), "served");
        assert_returns(&end);
    }
    waits::<Sequential>();
    waits::<ThreadingMixIn>();
}

#[test]
fn a_request_that_arrives_with_the_drain_is_served_completely_or_not_at_all() {
    const ANSWER: usize = 200_000;
    fn race<M: MixIn + Default>(rounds: usize) {
        for round in 0..rounds {
            let handled = Arc::new(AtomicUsize::new(0));
            let counting = Arc::clone(&handled);
            let handler = handler_fn(move |cx| {
                let mut line = String::new();
                cx.rfile.read_line(&mut line)?;
                if !line.is_empty() {
                    counting.fetch_add(1, Ordering::SeqCst);
                    cx.wfile.write_all(&vec![b'x'; ANSWER])?;
                    cx.close_connection = false;
                }
                Ok(())
            });
            let server = StreamServer::<Inet, M>::new(LOOPBACK, handler).unwrap();
            let (handle, address) = (server.handle(), server.server_address().clone());
            let end = serve_in_thread(server);
            let idle = client_that_sends(&address, b"hello\n");
            let mut seen = 0;
            while seen < ANSWER {
                seen += idle.recv(1 << 16).unwrap().len();
            }
            let answers = thread::scope(|scope| {
                let drain = scope.spawn(|| {
                    (0..round % 20 * 100).for_each(|_| std::hint::spin_loop());
                    handle.drain(LIMIT).unwrap()
                });
                let next = scope.spawn(move || {
                    let _ = idle.sendall(b"again\n");
                    read_to_end(&idle)
                });
                let new = scope.spawn(|| {
                    let client = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
                    client.settimeout(LIMIT).unwrap();
                    // In the accept loop only one of the two clients is served.
                    if client.connect(&address).is_err() || client.sendall(b"hello\n").is_err() {
                        return String::new();
                    }
                    let _ = client.shutdown(sock::SHUT_WR);
                    read_to_end(&client)
                });
                let report = drain.join().unwrap();
                assert!(report.aborted.is_empty(), "{report}");
                [next.join().unwrap(), new.join().unwrap()]
            });
            let whole = answers.iter().filter(|answer| answer.len() == ANSWER).count();
            for answer in &answers {
                let refused = ["", "ConnectionReset", "BrokenPipe"].contains(&answer.as_str());
                assert!(refused || answer.len() == ANSWER, "{} of {ANSWER} bytes", answer.len());
            }
            assert_eq!(
                handled.load(Ordering::SeqCst),
                1 + whole,
                "a handled request was not answered completely"
            );
            assert_returns(&end);
            let stats = handle.stats();
            assert!(stats.is_consistent() && stats.in_flight == 0, "{stats:?}");
        }
    }
    race::<ThreadingMixIn>(60);
    race::<Sequential>(20);
}

#[test]
fn a_connection_that_was_closed_as_idle_and_then_aborted_counts_once() {
    // Idle when the drain begins, sends a byte afterwards, and is aborted at the end.
    let clients = Clients::new();
    let (reads_late, connections) = (clients.gate.clone(), AtomicUsize::new(0));
    let server = ThreadingTCPServer::new(
        LOOPBACK,
        handler_fn(move |cx| {
            if connections.fetch_add(1, Ordering::SeqCst) < 2 {
                reads_late.pass();
            }
            cx.rfile.read_exact(&mut [0; 10])
        }),
    )
    .unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let silent = connect_to(&address);
    let other = connect_to(&address);
    clients.gate.wait_for(2);
    let last = connect_to(&address);
    wait_for_stats(&handle, |stats| stats.in_flight == 3);
    let report = thread::scope(|scope| {
        let draining = scope.spawn(|| handle.drain(SOON).unwrap());
        assert_eq!(read_to_end(&last), "", "the drain did not close the last idle connection");
        let _ = (silent.sendall(b"."), other.sendall(b"."));
        draining.join().unwrap()
    });
    // Aborted while their handlers were blocked, so they do not count as idle.
    let counts = (report.finished, report.idle, report.aborted.len(), report.still_running);
    assert_eq!(counts, (0, 1, 2, 2), "{report}");
    clients.gate.open();
    wait_for_stats(&handle, |stats| stats.in_flight == 0);
    assert_returns(&end);
}

#[test]
fn a_drain_aborts_a_handshake() {
    let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
        .wrap_request(|request, _| -> io::Result<Socket> {
            request.recv(1)?;
            Err(io::Error::other("no handshake"))
        })
        .bind(LOOPBACK)
        .unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let client = connect_to(&address);
    wait_for_stats(&handle, |stats| stats.in_flight == 1);
    let report = handle.drain(SOON).unwrap();
    assert_eq!((report.aborted.len(), report.still_running), (1, 0), "{report}");
    assert_eq!(read_to_end(&client), "");
    assert_returns(&end);
    assert_eq!(handle.stats().aborted, 1);
}

#[test]
fn a_drain_with_a_limit_of_zero_aborts_at_once() {
    let clients = Clients::new();
    let server = clients.server();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let reading = client_that_sends(&address, b"read\n");
    assert_eq!(reading.recv(100).unwrap(), b"reading\n");
    let report = handle.drain(Duration::ZERO).unwrap();
    assert_eq!((report.finished, report.aborted.len(), report.still_running), (0, 1, 0), "{report}");
    assert_eq!(read_to_end(&reading), "");
    assert_returns(&end);
}

/// Starts a server whose datagram handlers wait at the gate, and a client that has sent one.
fn gated_datagram<M: MixIn + Default>(gate: &Gate) -> (testing::Running, Socket) {
    let at_the_gate = gate.clone();
    let handler = datagram_handler_fn(move |cx| {
        at_the_gate.pass();
        cx.wfile.write_all(cx.packet)
    });
    let server = testing::serve(DatagramServer::<Inet, M>::new(LOOPBACK, handler).unwrap());
    let client = datagram_client(sock::AF_INET);
    client.bind(LOOPBACK).unwrap();
    client.sendto(b"hello", server.address()).unwrap();
    gate.wait_for(1);
    (server, client)
}

fn drain_waits_for_datagrams<M: MixIn + Default>() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let (server, client) = gated_datagram::<M>(&gate);
    let report = thread::scope(|scope| {
        let draining = scope.spawn(|| server.handle().drain(LIMIT).unwrap());
        (0..20).for_each(|_| sleep_briefly());
        assert!(!draining.is_finished(), "the drain did not wait");
        gate.open();
        draining.join().unwrap()
    });
    assert!(report.aborted.is_empty() && report.elapsed < LIMIT / 2, "{report}");
    assert_eq!(server.handle().stats().finished, 1);
    assert_eq!(
        client.recv_with_flags(10, sock::MSG_DONTWAIT).unwrap(),
        b"hello",
        "the datagram was not answered before the drain returned"
    );
}

#[test]
fn a_drain_waits_for_datagrams_that_are_being_served() {
    drain_waits_for_datagrams::<ThreadingMixIn>();
    drain_waits_for_datagrams::<Sequential>();
}

fn the_report_contains_a_datagram<M: MixIn + Default>() {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let (server, client) = gated_datagram::<M>(&gate);
    let report = server.handle().drain(Duration::ZERO).unwrap();
    let named: Vec<_> = report.aborted.iter().map(|request| request.client_address.clone()).collect();
    assert_eq!(named, [client.getsockname().unwrap()]);
    assert_eq!((report.finished, report.still_running), (0, 1), "{report}");
    gate.open();
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.accepted, stats.aborted), (1, 1), "{stats:?}");
}

#[test]
fn a_datagram_that_takes_too_long_is_reported_and_counted_as_aborted() {
    the_report_contains_a_datagram::<ThreadingMixIn>();
    the_report_contains_a_datagram::<Sequential>();
}

#[cfg(unix)]
#[test]
fn a_drain_works_over_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let clients = Clients::new();
    let handler = handler_fn(clients.handler());
    let server = testing::serve(sockserver::ThreadingUnixStreamServer::new(&path, handler).unwrap());
    let (idle, busy) = (idle_client(server.address()), client_that_sends(server.address(), b"gate\n"));
    clients.gate.wait_for(1);
    wait_for_stats(server.handle(), |stats| stats.idle == 1);
    let report = thread::scope(|scope| {
        let draining = scope.spawn(|| server.handle().drain(LIMIT).unwrap());
        assert_eq!(read_to_end(&idle), "");
        assert!(client_is_refused(server.address()));
        clients.gate.open();
        draining.join().unwrap()
    });
    assert_eq!(read_to_end(&busy), "gate\n");
    assert_eq!((report.finished, report.idle), (1, 1), "{report}");
    drop(server);
    assert!(!path.exists());
}

/// A client whose connection a drain has closed cannot send. Over a Unix socket the send fails at once.
#[cfg(unix)]
#[test]
fn a_client_that_has_begun_a_request_may_finish_it() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let at_the_gate = gate.clone();
    let handler = handler_fn(move |cx| {
        at_the_gate.pass();
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        cx.wfile.write_all(line.as_bytes())
    });
    let server = sockserver::ThreadingUnixStreamServer::new(folder.path().join("socket"), handler).unwrap();
    let server = testing::serve(server);
    let (asking, silent) = (server.connect().unwrap(), server.connect().unwrap());
    asking.sendall(b"hel").unwrap();
    gate.wait_for(2);
    let report = thread::scope(|scope| {
        let draining = scope.spawn(|| server.handle().drain(LIMIT).unwrap());
        // The drain closes it after it has decided about the other, older connection.
        wait_until("the silent connection is closed", || silent.send(b"").is_err());
        asking.sendall(b"lo\n").unwrap();
        gate.open();
        assert_eq!(read_to_end(&asking), "hello\n");
        draining.join().unwrap()
    });
    assert_eq!((report.finished, report.idle, report.aborted.len()), (1, 1, 0), "{report}");
}

#[test]
fn a_request_that_has_arrived_on_a_busy_connection_is_answered() {
    fn answers<M: MixIn + Default>(begin: &[u8], next: &[u8]) {
        let clients = Clients::new();
        let server = StreamServer::<Inet, M>::new(LOOPBACK, handler_fn(clients.handler())).unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        let end = serve_in_thread(server);
        let client = client_that_sends(&address, begin);
        clients.gate.wait_for(1);
        client.sendall(next).unwrap();
        thread::scope(|scope| {
            let drain = scope.spawn(|| handle.drain(LIMIT).unwrap());
            wait_until("a drain has begun", || handle.state() == ServerState::Draining);
            clients.gate.open();
            assert_eq!(read_to_end(&client), "gate\nsecond\nthird\n");
            let report = drain.join().unwrap();
            let counts = (report.finished, report.idle, report.aborted.len(), report.still_running);
            assert_eq!(counts, (1, 0, 0, 0));
        });
        assert_returns(&end);
    }
    // The other requests are in the buffer of the handler, in the queue of the system, or in both.
    for (begin, next) in [
        (&b"gate\nsecond\nthird\n"[..], &b""[..]),
        (b"gate\n", b"second\nthird\n"),
        (b"gate\nsecond\nthi", b"rd\n"),
    ] {
        answers::<Sequential>(begin, next);
        answers::<ThreadingMixIn>(begin, next);
        answers::<ThreadPoolMixIn>(begin, next);
        #[cfg(unix)]
        answers::<SelectorMixIn>(begin, next);
    }
}

#[test]
fn a_loop_ends_although_another_thread_waits_for_the_requests() {
    let clients = Clients::new();
    let server = ThreadingTCPServer::builder(handler_fn(clients.handler())).close_timeout(SOON);
    let server = server.bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let _busy = client_that_sends(&address, b"gate\n");
    clients.gate.wait_for(1);
    thread::scope(|scope| {
        let waits = scope.spawn(|| handle.wait_until_idle());
        // The loop should end while the other thread waits.
        sleep_briefly();
        handle.request_shutdown().unwrap();
        assert!(!waits.join().unwrap(), "the request is still running");
    });
    assert_returns(&end);
}

#[test]
fn closing_waits_for_close_timeout_at_most() {
    let clients = Clients::new();
    let server = ThreadingTCPServer::builder(handler_fn(clients.handler())).close_timeout(SOON);
    let server = server.bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let _blocked = client_that_sends(&address, b"blocked\n");
    clients.blocked.wait_for(1);
    let begin = Instant::now();
    handle.shutdown().unwrap();
    assert_returns(&end);
    let took = begin.elapsed();
    assert!(took >= SOON && took < LIMIT / 2, "{took:?}");
    assert_eq!(handle.stats().in_flight, 1);
}

#[test]
fn closing_without_a_limit_waits_for_all_requests() {
    let clients = Clients::new();
    let server = ThreadingTCPServer::builder(handler_fn(clients.handler())).close_timeout(None);
    let server = server.bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let end = serve_in_thread(server);
    let mut busy = Vec::new();
    for _ in 0..2 {
        busy.push(client_that_sends(&address, b"gate\n"));
    }
    clients.gate.wait_for(2);
    handle.shutdown().unwrap();
    wait_until("new clients are refused", || client_is_refused(&address));
    assert!(end.recv_timeout(SOON).is_err(), "server_close did not wait");
    clients.gate.open();
    for client in busy {
        assert_eq!(client.recv(5).unwrap(), b"gate\n");
    }
    assert_returns(&end);
    assert_eq!(handle.stats().in_flight, 0);
}

#[test]
fn reports_are_values() {
    fn is<T: Clone + Send + Sync + PartialEq + std::fmt::Debug + std::fmt::Display>() {}
    is::<DrainReport>();
}
