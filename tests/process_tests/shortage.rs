//! The promise: with too few descriptors a server fails with an error or keeps what it promises. A
//! signal ends it within the limit of its drain, its path is removed, and nothing leaks.

use std::io::{self, BufRead, Write};
use std::process::{Child, Command};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getpid, getrlimit, kill_process, setrlimit};
use sock::{AF_UNIX, SOCK_STREAM, Socket, errno, errno_name};
use sockserver::kind::{Stream, Unix};
use sockserver::testing::LeakCheck;
use sockserver::{
    ForkingUnixStreamServer, MixIn, PreforkUnixStreamServer, SelectorUnixStreamServer, StreamContext,
    ThreadPoolUnixStreamServer, ThreadingUnixStreamServer, UnixStreamServer, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("a_forking_server_with_few_descriptors_fails_or_stops", || {
        at_each_limit(|| ForkingUnixStreamServer::builder(handler_fn(answer)));
    }),
    ("a_prefork_server_with_few_descriptors_fails_or_stops", || {
        at_each_limit(|| PreforkUnixStreamServer::builder(handler_fn(answer)).workers(1));
    }),
    ("a_sequential_server_with_few_descriptors_fails_or_stops", || {
        at_each_limit(|| UnixStreamServer::builder(handler_fn(answer)));
    }),
    ("a_threading_server_with_few_descriptors_fails_or_stops", || {
        at_each_limit(|| ThreadingUnixStreamServer::builder(handler_fn(answer)));
    }),
    ("a_pool_with_few_descriptors_fails_or_stops", || {
        at_each_limit(|| ThreadPoolUnixStreamServer::builder(handler_fn(answer)));
    }),
    ("a_selector_server_with_few_descriptors_fails_or_stops", || {
        at_each_limit(|| SelectorUnixStreamServer::builder(handler_fn(answer)));
    }),
];

type Builder<M> = sockserver::Builder<Stream<Unix>, M>;

/// The most descriptors that a server and its first client need.
const ENOUGH: u64 = 24;

static SERVER: OnceLock<Pid> = OnceLock::new();

/// Answers and has the server drained.
fn answer(cx: &mut StreamContext<'_>) -> io::Result<()> {
    // Input that is not read would reset the connection.
    cx.rfile.read_line(&mut String::new())?;
    cx.wfile.write_all(b"served")?;
    Ok(kill_process(*SERVER.get().unwrap(), Signal::TERM)?)
}

/// Allows `more` descriptors beyond those that are open, or all again.
fn limit_descriptors(more: Option<u64>, free: &Socket) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = match more {
        Some(more) => Some(free.dup().unwrap().fileno() as u64 + more),
        None => limit.maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Sends SIGTERM after a second, to a server that cannot accept its client. The first signal may come
/// before the server handles signals.
struct Rescue(Child);

impl Rescue {
    fn start() -> Rescue {
        let script = "sleep 1; while kill -TERM $PPID; do sleep 5; done";
        Rescue(Command::new("sh").args(["-c", script]).spawn().unwrap())
    }
}

impl Drop for Rescue {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_shortage(error: &io::Error) -> bool {
    errno(error).and_then(errno_name) == Some("EMFILE")
}

fn at_each_limit<M: MixIn>(make: impl Fn() -> Builder<M>) {
    SERVER.set(getpid()).unwrap();
    // The process survives a signal while it has no server.
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut outcomes = Vec::new();
    for more in 0..=ENOUGH {
        let client = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
        client.settimeout(LIMIT).unwrap();
        let rescue = Rescue::start();
        let check = LeakCheck::begin();
        limit_descriptors(Some(more), &client);
        let begin = Instant::now();
        let bound =
            make().linger_timeout(Duration::ZERO).drain_on_signals(Duration::from_secs(2)).bind(&path);
        outcomes.push(match bound {
            Err(error) => {
                assert!(is_shortage(&error), "bind with {more}: {error:?}");
                "refused"
            }
            Ok(server) => {
                client.connect(&path).unwrap();
                client.sendall(b"\n").unwrap();
                let served = server.serve_forever();
                let took = begin.elapsed();
                assert!(took < LIMIT, "with {more}, it stopped after {took:?}");
                let closed = server.server_close();
                limit_descriptors(None, &client);
                closed.unwrap();
                match (served, &*read_to_end(&client)) {
                    (Ok(()), "served") => "served",
                    (Ok(()), _) => "stopped",
                    (Err(error), _) => {
                        assert!(is_shortage(&error), "serve with {more}: {error:?}");
                        "failed"
                    }
                }
            }
        });
        limit_descriptors(None, &client);
        assert!(!path.exists(), "with {more} the path is left: {outcomes:?}");
        check.assert_nothing_left();
        drop((rescue, client));
    }
    eprintln!("{outcomes:?}");
    assert_eq!((outcomes[0], outcomes[ENOUGH as usize]), ("refused", "served"), "{outcomes:?}");
    let first = outcomes.iter().position(|outcome| *outcome == "served").unwrap();
    assert!(outcomes[first..].iter().all(|outcome| *outcome == "served"), "{outcomes:?}");
}
