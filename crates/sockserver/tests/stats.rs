//! The promise: the counters add up at every instant, whatever clients, handlers,
//! hooks and drains do, and in the end they tell exactly what has happened.

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

use support::{LIMIT, LOOPBACK, client_of, moment, rest_of, until_stats};

/// What one client does, and what becomes of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// Says one word and goes: finished.
    Polite,
    /// Connects and ends its side: finished, since no word is no error.
    HalfClose,
    /// Its word makes the handler fail.
    Error,
    /// … or panic.
    Panic,
    /// `verify_request` says no.
    Refused,
    /// `verify_request` panics.
    VerifyPanics,
    /// Several words on one connection: finished once.
    KeepAlive(u8),
    /// An error in its second request.
    ErrorLater,
    /// Resets its connection while the handler waits for its word: failed.
    Reset,
    /// Says nothing at all, for longer than it may.
    Silent,
    /// Says half a word, and then nothing.
    Half,
    /// Says a word, and then nothing.
    Idle,
}

/// Deadlines: far more than a client that means well takes, and yet soon over.
const IDLE: Duration = Duration::from_millis(300);
const FIRST_BYTE: Duration = Duration::from_millis(400);
const READ: Duration = Duration::from_millis(500);

impl Client {
    /// What its first byte tells the hook.
    fn sign(self) -> &'static [u8] {
        match self {
            Client::Refused => b"?",
            Client::VerifyPanics => b"!",
            _ => b".",
        }
    }

    /// Plays its part to the end, until the server has no more to say.
    fn play(self, address: &Address) {
        let client = client_of(address);
        client.sendall(self.sign()).unwrap();
        let end = |client: &Socket| {
            let _ = client.shutdown(sock::SHUT_WR);
            rest_of(client)
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
                assert_eq!(rest_of(&client), "");
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
                // The answer says that the handler waits for the second half.
                client.sendall(b"half\n").unwrap();
                assert_eq!(client.recv(100).unwrap(), b"half\n");
                client.setsockopt(SOL_SOCKET, sock::SO_LINGER, linger_zero().as_slice()).unwrap();
            }
            Client::Silent => assert_eq!(rest_of(&client), ""),
            Client::Half => {
                client.sendall(b"wo").unwrap();
                assert_eq!(rest_of(&client), "");
            }
            Client::Idle => {
                client.sendall(b"more\n").unwrap();
                assert_eq!(rest_of(&client), "more\n");
            }
        }
    }

    fn count(self, stats: &mut Stats) {
        stats.accepted += 1;
        *match self {
            Client::Polite | Client::HalfClose | Client::KeepAlive(_) => &mut stats.finished,
            Client::Error | Client::ErrorLater | Client::Reset => &mut stats.failed,
            Client::Panic | Client::VerifyPanics => &mut stats.panicked,
            Client::Refused => &mut stats.rejected,
            Client::Silent => &mut stats.timed_out.first_byte,
            Client::Half => &mut stats.timed_out.read,
            Client::Idle => &mut stats.timed_out.idle,
        } += 1;
    }
}

/// `struct linger` that has close(2) reset the connection.
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

/// Reads the first byte, and says no to some.
struct Signs;

impl ServerHooks for Signs {
    fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
        let sign = request.stream().expect("a connection").recv(1).unwrap_or_default();
        assert!(sign != b"!", "as planned");
        sign != b"?"
    }

    fn handle_error(&self, _error: &RequestError, _client_address: &Address) {}
}

/// Looks all the time while `run` runs; the counters only ever grow.
fn watched<T>(handle: &ServerHandle, run: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let ends = Ends(&done);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut before = handle.stats();
            while !done.load(Ordering::Relaxed) {
                let now = handle.stats();
                assert!(now.is_consistent() && now.idle <= now.in_flight, "{now:?}");
                let grown = now.accepted >= before.accepted
                    && now.finished >= before.finished
                    && now.failed >= before.failed
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
        drop(ends);
        watcher.join().unwrap();
        result
    })
}

/// Ends the watcher, also of a run that fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps the panics that are planned off the screen: telling where each came from
/// takes longer than anything here.
fn quietly() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload().downcast_ref::<&str>() != Some(&"as planned") {
                tell(panic);
            }
        }));
    });
}

/// Runs a history of clients, a few of them at once, and compares the books.
fn history<M: MixIn + Default>(clients: &[Client], at_once: usize, most: usize) {
    let server = server::<sockserver::kind::Inet, M>(most);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let handle = server.handle().clone();
    let expected = watched(&handle, || {
        thread::scope(|scope| {
            for part in clients.chunks(clients.len().div_ceil(at_once).max(1)) {
                let address = server.address();
                scope.spawn(move || part.iter().for_each(|client| client.play(address)));
            }
        });
        let mut expected = Stats::default();
        clients.iter().for_each(|client| client.count(&mut expected));
        until_stats(&handle, |stats| stats.accepted == expected.accepted && stats.in_flight == 0);
        expected
    });
    assert_eq!(handle.stats(), expected);
    drop(server);
    assert_eq!(handle.stats(), expected, "stopping adds nothing");
}

fn server<F: Family, M: MixIn + Default>(most: usize) -> sockserver::Builder<Stream<F>, M> {
    quietly();
    StreamServer::<F, M>::builder(sockserver::handler_fn(serve))
        .hooks(Signs)
        .max_connections(most)
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

/// A client that does not care how it is treated, for a drain in the middle of it.
fn be_there(sign: &[u8], words: &[u8], goes: bool, address: &Address) {
    let client = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    if client.connect(address).is_err() || client.sendall(sign).is_err() || client.sendall(words).is_err() {
        return;
    }
    if goes {
        return;
    }
    rest_of(&client);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        max_shrink_iters: 30,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn histories_with_threads(
        clients in prop::collection::vec(any_client(), 1..24),
        at_once in 1_usize..6,
        most in 1_usize..8,
    ) {
        // More clients than places: a silent one is waited for by those behind it.
        history::<ThreadingMixIn>(&clients, at_once, most.max(at_once));
    }

    #[test]
    fn histories_in_the_loop(clients in prop::collection::vec(any_client(), 1..8)) {
        history::<Sequential>(&clients, 1, 10);
    }

    #[test]
    fn histories_that_a_drain_ends(
        clients in prop::collection::vec((any_client(), prop::sample::select(WORDS), any::<bool>()), 1..16),
        begin in 0_u64..12,
        limit in 0_u64..40,
        refuses in any::<bool>(),
    ) {
        let when_full = if refuses { WhenFull::Refuse } else { WhenFull::Wait };
        let server = server::<sockserver::kind::Inet, ThreadingMixIn>(6).when_full(when_full).bind(LOOPBACK).unwrap();
        let server = testing::serve(server);
        let handle = server.handle().clone();
        let report = watched(&handle, || {
            thread::scope(|scope| {
                for (client, words, goes) in &clients {
                    let address = server.address();
                    scope.spawn(move || be_there(client.sign(), words, *goes, address));
                }
                (0..begin).for_each(|_| moment());
                let before = handle.stats();
                let report = handle.drain(Duration::from_millis(limit)).unwrap();
                (before, report)
            })
        });
        let (before, report) = report;
        prop_assert!(report.still_running <= report.aborted.len() as u64, "{}", report);
        let stats = until_stats(&handle, |stats| stats.in_flight == 0);
        // Each that was there, or came, is told of once.
        let told = report.finished + report.idle + report.aborted.len() as u64;
        prop_assert!(told <= before.in_flight + stats.accepted - before.accepted, "{}, {}", stats, report);
        prop_assert!(report.aborted.len() as u64 >= stats.aborted, "{}, {}", stats, report);
    }
}
