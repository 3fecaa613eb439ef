//! The promise: a pre-forked worker is killed because it is stuck, and for no other reason. One that
//! serves its last request after a stop goes on in the next loop, and the hooks that begin and end a
//! worker may take longer than `heartbeat`.

use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sock::{Socket, socketpair};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, PreforkMixIn, PreforkTCPServer, ServerHandle, ServerHooks, StreamContext, handler_fn,
};

use crate::Test;
use crate::preforking::{Client, children, close, play, prepare, signal};
use crate::support::LIMIT;

pub(crate) const TESTS: &[Test] = &[
    ("prefork_requests_go_on_while_the_next_loop_serves", requests_go_on_in_the_next_loop),
    ("prefork_hooks_of_a_worker_may_take_longer_than_heartbeat", hooks_take_long),
];

/// More than a worker needs for a heartbeat on a busy machine.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Longer than a worker without heartbeats exists.
const LONG: Duration = Duration::from_millis(3500);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Answers with the process id. The request `slow` ends with another line of the client, and `last`
/// when the worker stops.
fn handle(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    cx.wfile.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    if line == "slow\n" {
        cx.rfile.read_line(&mut line)?;
        cx.wfile.write_all(b"0\n")?;
    }
    let begin = Instant::now();
    while line == "last\n" && !cx.server.is_stopping() && begin.elapsed() < LIMIT / 2 {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn builder() -> Builder<Stream<Inet>, PreforkMixIn> {
    PreforkTCPServer::builder(handler_fn(handle))
        .poll_interval(POLL_INTERVAL)
        .workers(1)
        .worker_class(crate::worker_class())
        .heartbeat(HEARTBEAT)
}

fn requests_go_on_in_the_next_loop() {
    let known = Arc::new(Mutex::new(None));
    let its = Arc::clone(&known);
    let server = prepare(builder(), move |address| {
        let (slow, mut quick) = (Client::of(&address), None);
        slow.say("slow\n");
        let (mut slow_pid, mut quick_pid) = (None, None);
        let (mut begin, mut has_ended) = (None::<Instant>, false);
        move |_: &ServerHandle| {
            let Some(slow_pid) = slow_pid else {
                slow_pid = slow.answer();
                // The end of the first loop.
                return slow_pid.is_some();
            };
            let begin = *begin.get_or_insert_with(Instant::now);
            let quick = quick.get_or_insert_with(|| {
                let quick = Client::of(&address);
                quick.say("quick\n");
                quick
            });
            let Some(quick_pid) = quick_pid else {
                quick_pid = quick.answer();
                return false;
            };
            assert_ne!(quick_pid, slow_pid);
            if begin.elapsed() < LONG {
                return false;
            }
            if !has_ended {
                has_ended = true;
                assert!(children(std::process::id()).contains(&slow_pid), "the worker was killed");
                slow.say("end\n");
            }
            let ended = slow.answer();
            *its.lock().unwrap() = ended;
            ended.is_some()
        }
    });
    server.serve_forever().unwrap();
    server.serve_forever().unwrap();
    assert_eq!(*known.lock().unwrap(), Some(0), "the request was answered");
    let stats = server.stats();
    assert_eq!((stats.finished, stats.failed), (2, 0));
    close(server);
}

/// The hooks take long. That at the end sends a byte when it begins and when it ends.
struct LongHooks(Socket);

impl ServerHooks for LongHooks {
    fn start_worker(&self) -> io::Result<()> {
        thread::sleep(LONG);
        Ok(())
    }

    fn worker_exit(&self) {
        self.0.sendall(b"b").unwrap();
        thread::sleep(LONG);
        self.0.sendall(b"e").unwrap();
    }
}

/// The loop of the parent waits meanwhile, although the socket to the worker contains a report.
fn hooks_take_long() {
    let (receiver, sender) = socketpair().unwrap();
    receiver.setblocking(false).unwrap();
    play(builder().drain_on_signals(LIMIT).hooks(LongHooks(sender)), |address| {
        let client = Client::of(&address);
        client.say("last\n");
        let (mut starting, mut answered) = (None, None);
        let (mut exiting, mut turns) = (None::<Instant>, 0_u128);
        move |_: &ServerHandle| {
            let first = children(std::process::id()).first().copied();
            starting = starting.or(first);
            if answered.is_none() {
                answered = client.answer();
                if let Some(pid) = answered {
                    assert_eq!(answered, starting, "the worker was replaced before it had started");
                    // It drains, reports that, and exits.
                    signal(pid, Signal::TERM);
                }
                return false;
            }
            let received = receiver.recv(1).unwrap_or_default();
            if received == b"b" {
                exiting = Some(Instant::now());
            }
            let Some(begin) = exiting else { return false };
            turns += 1;
            // A worker that is killed sends no byte, and the loop goes on until the limit of the test.
            let most = begin.elapsed().as_millis() / POLL_INTERVAL.as_millis() + 100;
            assert!(turns <= most, "{turns} turns of the loop in {:?}", begin.elapsed());
            received == b"e"
        }
    });
}
