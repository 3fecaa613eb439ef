//! The promise: the counters are consistent at any time, whatever clients, handlers, hooks and drains
//! do, and at the end they are exact.

mod support;

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use sock::{Address, SOL_SOCKET, Socket};
use sockserver::kind::{Family, Stream};
use sockserver::{
    MixIn, Request, RequestError, Sequential, ServerHandle, ServerHooks, Stats, StreamContext,
    StreamServer, ThreadingMixIn, WhenFull, testing,
};

use support::{LIMIT, LOOPBACK, connect_to, read_to_end, sleep_briefly, wait_for_stats};

/// The behaviour of a client, and the outcome of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// Sends one line and closes: finished.
    Polite,
    /// Shuts its sending side down: finished.
    HalfClose,
    /// Makes the handler fail.
    Error,
    /// Makes the handler panic.
    Panic,
    /// `verify_request` returns false.
    Refused,
    /// `verify_request` panics.
    VerifyPanics,
    /// Sends several requests on one connection: finished once.
    KeepAlive(u8),
    /// Makes its second request fail.
    ErrorLater,
    /// Resets its connection while the handler reads: failed.
    Reset,
    /// Sends nothing until the deadline expires.
    Silent,
    /// Sends half a line, and then nothing.
    Half,
    /// Sends a line, and then nothing.
    Idle,
}

/// The deadlines: far longer than a request takes, short for a test.
const IDLE: Duration = Duration::from_millis(300);
const FIRST_BYTE: Duration = Duration::from_millis(400);
const READ: Duration = Duration::from_millis(500);

impl Client {
    /// Returns the first byte, which the hook reads.
    fn first_byte(self) -> &'static [u8] {
        match self {
            Client::Refused => b"?",
            Client::VerifyPanics => b"!",
            _ => b".",
        }
    }

    /// Runs the client until the server closes the connection.
    fn run(self, address: &Address) {
        let client = connect_to(address);
        client.sendall(self.first_byte()).unwrap();
        let end = |client: &Socket| {
            let _ = client.shutdown(sock::SHUT_WR);
            read_to_end(client)
        };
        match self {
            Client::Polite => {
                client.sendall(b"hello\n").unwrap();
                assert_eq!(end(&client), "hello\n");
            }
            Client::Error => {
                assert_eq!((client.sendall(b"error\n").is_ok(), end(&client)), (true, "".into()))
            }
            Client::Panic => {
                assert_eq!((client.sendall(b"panic\n").is_ok(), end(&client)), (true, "".into()))
            }
            Client::HalfClose => assert_eq!(end(&client), ""),
            Client::Refused | Client::VerifyPanics => {
                assert_eq!(read_to_end(&client), "");
            }
            Client::KeepAlive(requests) => {
                for _ in 0..requests {
                    client.sendall(b"more\n").unwrap();
                    assert_eq!(client.recv(100).unwrap(), b"more\n");
                }
                assert_eq!(end(&client), "");
            }
            Client::ErrorLater => {
                client.sendall(b"more\n").unwrap();
                assert_eq!(client.recv(100).unwrap(), b"more\n");
                client.sendall(b"error\n").unwrap();
                assert_eq!(end(&client), "");
            }
            Client::Reset => {
                // The handler reads the second half once it has answered.
                client.sendall(b"half\n").unwrap();
                assert_eq!(client.recv(100).unwrap(), b"half\n");
                client.setsockopt(SOL_SOCKET, sock::SO_LINGER, linger_zero().as_slice()).unwrap();
            }
            Client::Silent => assert_eq!(read_to_end(&client), ""),
            Client::Half => {
                client.sendall(b"wo").unwrap();
                assert_eq!(read_to_end(&client), "");
            }
            Client::Idle => {
                client.sendall(b"more\n").unwrap();
                assert_eq!(read_to_end(&client), "more\n");
            }
        }
    }

    fn count(self, stats: &mut Stats) {
        stats.accepted += 1;
        *match self {
            Client::Polite | Client::HalfClose | Client::KeepAlive(_) => &mut stats.finished,
            Client::Error | Client::ErrorLater => &mut stats.failed,
            Client::Reset => &mut stats.disconnected,
            Client::Panic | Client::VerifyPanics => &mut stats.panicked,
            Client::Refused => &mut stats.rejected,
            Client::Silent => &mut stats.timed_out.first_byte,
            Client::Half => &mut stats.timed_out.read,
            Client::Idle => &mut stats.timed_out.idle,
        } += 1;
    }
}

/// Returns the `struct linger` with which close(2) resets the connection.
fn linger_zero() -> Vec<u8> {
    [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat()
}

fn serve(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    match line.trim_end() {
        "error" => Err(io::Error::other("as planned")),
        "panic" => panic!("as planned"),
        "half" => {
            cx.wfile.write_all(line.as_bytes())?;
            cx.rfile.read_line(&mut line).map(drop)
        }
        word => {
            cx.close_connection = word != "more";
            cx.wfile.write_all(line.as_bytes())
        }
    }
}

/// Decides by the first byte whether a request is refused.
struct FirstByteHooks;

impl ServerHooks for FirstByteHooks {
    fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
        let first_byte = request.stream().expect("the request is a connection").recv(1).unwrap_or_default();
        assert!(first_byte != b"!", "as planned");
        first_byte != b"?"
    }

    fn handle_error(&self, _error: &RequestError, _client_address: &Address) {}
}

/// Checks the counters while `run` runs. They never decrease.
fn check_while<T>(handle: &ServerHandle, run: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let set_done = SetOnDrop(&done);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut before = handle.stats();
            while !done.load(Ordering::Relaxed) {
                let now = handle.stats();
                assert!(now.is_consistent() && now.idle <= now.in_flight, "{now:?}");
                let grown = now.accepted >= before.accepted
                    && now.finished >= before.finished
                    && now.failed >= before.failed
                    && now.disconnected >= before.disconnected
                    && now.panicked >= before.panicked
                    && now.rejected >= before.rejected
                    && now.aborted >= before.aborted
                    && now.timed_out.total() >= before.timed_out.total();
                assert!(grown, "{before:?} {now:?}");
                before = now;
                thread::yield_now();
            }
        });
        let result = run();
        drop(set_done);
        watcher.join().unwrap();
        result
    })
}

/// Stops the checking thread, also if the run fails.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Suppresses the messages of planned panics, because printing them is slow.
fn hide_planned_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload().downcast_ref::<&str>() != Some(&"as planned") {
                default_hook(panic);
            }
        }));
    });
}

/// Runs clients, `at_once` of them at the same time, and compares the counters.
fn run_clients<M: MixIn + Default>(clients: &[Client], at_once: usize, max_connections: usize) {
    let server = server::<sockserver::kind::Inet, M>(max_connections);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let handle = server.handle().clone();
    let expected = check_while(&handle, || {
        thread::scope(|scope| {
            for part in clients.chunks(clients.len().div_ceil(at_once).max(1)) {
                let address = server.address();
                scope.spawn(move || part.iter().for_each(|client| client.run(address)));
            }
        });
        let mut expected = Stats::default();
        clients.iter().for_each(|client| client.count(&mut expected));
        wait_for_stats(&handle, |stats| stats.accepted == expected.accepted && stats.in_flight == 0);
        expected
    });
    // How often handlers are called, and their bytes, are the subject of other tests.
    let stats = || {
        let mut stats = handle.stats();
        (stats.requests, stats.request_duration) = Default::default();
        (stats.bytes_received, stats.bytes_sent) = (0, 0);
        stats
    };
    assert_eq!(stats(), expected);
    drop(server);
    assert_eq!(stats(), expected, "stopping changed the counters");
}

fn server<F: Family, M: MixIn + Default>(max_connections: usize) -> sockserver::Builder<Stream<F>, M> {
    hide_planned_panics();
    StreamServer::<F, M>::builder(sockserver::handler_fn(serve))
        .hooks(FirstByteHooks)
        .max_connections(max_connections)
        .first_byte_timeout(FIRST_BYTE)
        .idle_timeout(IDLE)
        .read_timeout(READ)
}

fn any_client() -> impl Strategy<Value = Client> {
    prop_oneof![
        4 => Just(Client::Polite),
        3 => Just(Client::HalfClose),
        2 => Just(Client::Error),
        2 => Just(Client::Panic),
        2 => Just(Client::Refused),
        2 => Just(Client::VerifyPanics),
        3 => (1_u8..4).prop_map(Client::KeepAlive),
        2 => Just(Client::ErrorLater),
        2 => Just(Client::Reset),
        1 => Just(Client::Silent),
        1 => Just(Client::Half),
        1 => Just(Client::Idle),
    ]
}

const WORDS: &[&[u8]] = &[b"", b"hello\n", b"more\nmore\n", b"half\n", b"error\n", b"panic\n"];

/// Connects and sends, and ignores errors, because a drain may interrupt it.
fn connect_and_send(first_byte: &[u8], words: &[u8], closes_early: bool, address: &Address) {
    let client = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    if client.connect(address).is_err()
        || client.sendall(first_byte).is_err()
        || client.sendall(words).is_err()
    {
        return;
    }
    if closes_early {
        return;
    }
    read_to_end(&client);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        max_shrink_iters: 30,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn counters_are_exact_with_threads(
        clients in prop::collection::vec(any_client(), 1..24),
        at_once in 1_usize..6,
        max in 1_usize..8,
    ) {
        // With fewer permits than clients, a client would wait for a silent one.
        run_clients::<ThreadingMixIn>(&clients, at_once, max.max(at_once));
    }

    #[test]
    fn counters_are_exact_in_the_accept_loop(clients in prop::collection::vec(any_client(), 1..8)) {
        run_clients::<Sequential>(&clients, 1, 10);
    }

    #[test]
    fn counters_are_exact_when_a_drain_ends_the_requests(
        clients in prop::collection::vec((any_client(), prop::sample::select(WORDS), any::<bool>()), 1..16),
        begin in 0_u64..12,
        limit in 0_u64..40,
        refuses in any::<bool>(),
    ) {
        let when_full = if refuses { WhenFull::Refuse } else { WhenFull::Wait };
        let server = server::<sockserver::kind::Inet, ThreadingMixIn>(6).when_full(when_full).bind(LOOPBACK).unwrap();
        let server = testing::serve(server);
        let handle = server.handle().clone();
        let report = check_while(&handle, || {
            thread::scope(|scope| {
                for (client, words, closes_early) in &clients {
                    let address = server.address();
                    scope.spawn(move || connect_and_send(client.first_byte(), words, *closes_early, address));
                }
                (0..begin).for_each(|_| sleep_briefly());
                let before = handle.stats();
                let report = handle.drain(Duration::from_millis(limit)).unwrap();
                (before, report)
            })
        });
        let (before, report) = report;
        prop_assert!(report.still_running <= report.aborted.len() as u64, "{}", report);
        let stats = wait_for_stats(&handle, |stats| stats.in_flight == 0);
        // The report counts each request once.
        let reported = report.finished + report.idle + report.aborted.len() as u64;
        prop_assert!(reported <= before.in_flight + stats.accepted - before.accepted, "{}, {}", stats, report);
        prop_assert!(report.aborted.len() as u64 >= stats.aborted, "{}, {}", stats, report);
    }
}
