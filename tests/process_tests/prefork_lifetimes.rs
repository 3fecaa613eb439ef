//! The promise: a pre-forked worker is killed because it is stuck, and for no other reason. One that
//! serves its last request after a stop goes on in the next loop, and the hooks that begin and end a
//! worker may take longer than `heartbeat`.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sock::{AF_UNIX, SOCK_DGRAM, Socket, socketpair_with};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, PreforkMixIn, PreforkTCPServer, ServerHandle, ServerHooks, StreamContext, handler_fn,
};

use crate::Test;
use crate::preforking::{Client, children, close, play, prepare, signal};
use crate::support::LIMIT;

pub(crate) const TESTS: &[Test] = &[
    ("prefork_requests_go_on_while_the_next_loop_serves", requests_go_on_in_the_next_loop),
    ("prefork_worker_exit_may_take_longer_than_heartbeat", exit_takes_long),
];

/// More than a worker needs for a heartbeat on a busy machine.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Longer than a worker without heartbeats exists.
const LONG: Duration = Duration::from_millis(5500);

/// The same beside the hook. It is between what a worker needs for a heartbeat and the five seconds that
/// `worker_exit` may take.
const HEARTBEAT_BESIDE_HOOKS: Duration = Duration::from_secs(3);
const LONG_HOOK: Duration = Duration::from_millis(3300);

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

fn builder(workers: usize, heartbeat: Duration) -> Builder<Stream<Inet>, PreforkMixIn> {
    PreforkTCPServer::builder(handler_fn(handle))
        .poll_interval(POLL_INTERVAL)
        .workers(workers)
        .worker_class(crate::worker_class())
        .heartbeat(heartbeat)
}

fn requests_go_on_in_the_next_loop() {
    let known = Arc::new(Mutex::new(None));
    let its = Arc::clone(&known);
    let server = prepare(builder(1, HEARTBEAT), move |address| {
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

/// One worker takes long in `worker_exit`.
struct LongExit {
    /// A message for that worker.
    roles: Socket,
    /// Sends what the hooks do, with the process id.
    events: Socket,
    exits_late: AtomicBool,
}

impl LongExit {
    fn send(&self, event: &str) {
        self.events.send(format!("{event} {}", std::process::id()).as_bytes()).unwrap();
    }
}

impl ServerHooks for LongExit {
    fn start_worker(&self) -> io::Result<()> {
        self.exits_late.store(self.roles.recv(1).is_ok(), Ordering::SeqCst);
        Ok(())
    }

    fn worker_exit(&self) {
        if self.exits_late.load(Ordering::SeqCst) {
            self.send("exiting");
            thread::sleep(LONG_HOOK);
            self.send("exited");
        }
    }
}

/// The loop of the parent waits meanwhile, although the socket to the exiting worker contains a report.
fn exit_takes_long() {
    let pair = || socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let ((received, events), (roles, their_roles)) = (pair(), pair());
    received.setblocking(false).unwrap();
    their_roles.setblocking(false).unwrap();
    roles.send(b"!").unwrap();
    let hooks = LongExit { roles: their_roles, events, exits_late: AtomicBool::new(false) };
    let builder = builder(1, HEARTBEAT_BESIDE_HOOKS).drain_on_signals(LIMIT).hooks(hooks);
    play(builder, |address| {
        let client = Client::of(&address);
        client.say("last\n");
        let (mut answered, mut exiting, mut has_exited) = (None, None::<Instant>, false);
        let mut turns = 0_u128;
        move |_: &ServerHandle| {
            let _open = &roles;
            while let Ok(event) = received.recv(100) {
                let event = String::from_utf8(event).unwrap();
                let (event, pid) = event.split_once(' ').unwrap();
                assert_eq!(Some(pid.parse().unwrap()), answered);
                match event {
                    "exiting" => exiting = Some(Instant::now()),
                    _ => has_exited = true,
                }
            }
            if answered.is_none() {
                answered = client.answer();
                if let Some(pid) = answered {
                    // It drains, reports that, and exits.
                    signal(pid, Signal::TERM);
                }
                return false;
            }
            let Some(begin) = exiting.filter(|_| !has_exited) else { return has_exited };
            turns += 1;
            // A worker that is killed sends no event, and the loop goes on until the limit of the test.
            let most = begin.elapsed().as_millis() / POLL_INTERVAL.as_millis() + 100;
            assert!(turns <= most, "{turns} turns of the loop in {:?}", begin.elapsed());
            false
        }
    });
}
