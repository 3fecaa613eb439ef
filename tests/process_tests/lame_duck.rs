//! The promise: a signal takes a server through lame duck and draining to stopped, in all of its
//! processes, with one call of the hook for each. A second signal ends the lame duck.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use sock::{AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM, Socket};
use sockserver::kind::Inet;
use sockserver::{
    ForkingMixIn, MixIn, PreforkMixIn, ServerHooks, ServerState, StreamContext, StreamServer,
    ThreadingMixIn, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("a_forking_server_passes_through_all_states", || passes_through_all_states(ForkingMixIn::new(), 0)),
    ("a_prefork_server_passes_through_all_states", || passes_through_all_states(prefork(), 2)),
    ("a_second_signal_ends_the_lame_duck_of_a_forking_server", || second_signal(ForkingMixIn::new())),
    ("a_second_signal_ends_the_lame_duck_of_a_prefork_server", || second_signal(prefork())),
    ("a_second_signal_ends_the_lame_duck_of_a_threading_server", || second_signal(ThreadingMixIn::new())),
];

fn prefork() -> PreforkMixIn {
    PreforkMixIn::new().workers(2).worker_class(crate::worker_class())
}

/// Sends each state with the process to the test.
struct Record(Socket);

impl ServerHooks for Record {
    fn state_changed(&self, state: ServerState) {
        self.0.send(format!("{} {state:?}", getpid().as_raw_pid()).as_bytes()).unwrap();
    }
}

fn answer_state(cx: &mut StreamContext<'_>) -> io::Result<()> {
    cx.rfile.read_line(&mut String::new())?;
    write!(cx.wfile, "{:?}", cx.server.state())
}

/// Receives the states that were sent, those of this process first and then those of each worker.
fn states(receiver: &Socket) -> (Vec<String>, Vec<Vec<String>>) {
    let (mut own, mut workers) = (Vec::new(), std::collections::BTreeMap::<String, Vec<String>>::new());
    while let Ok(message) = receiver.recv_with_flags(100, MSG_DONTWAIT) {
        let message = String::from_utf8(message).unwrap();
        let (pid, state) = message.split_once(' ').unwrap();
        match pid == getpid().as_raw_pid().to_string() {
            true => own.push(state.to_owned()),
            false => workers.entry(pid.to_owned()).or_default().push(state.to_owned()),
        }
    }
    (own, workers.into_values().collect())
}

/// Drives the test from the accept loop, because a process with threads does not fork.
fn passes_through_all_states<M: MixIn + Default>(mixin: M, workers: usize) {
    let (receiver, sender) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let (step, client) = (AtomicUsize::new(0), Mutex::new(None::<Socket>));
    let until = Instant::now() + LIMIT;
    let answers = Arc::new(Mutex::new(Vec::new()));
    let answered = Arc::clone(&answers);
    let address = Arc::new(Mutex::new(None));
    let to = Arc::clone(&address);
    let server = StreamServer::<Inet, M>::builder(handler_fn(answer_state))
        .mixin(mixin)
        .hooks(Record(sender))
        .poll_interval(Duration::from_millis(3))
        .drain_on_signals(LIMIT)
        // Far longer than the test.
        .lame_duck(LIMIT * 100)
        .service_actions(move |handle| {
            assert!(Instant::now() < until, "step {}", step.load(Ordering::Relaxed));
            let mut client = client.lock();
            match &*client {
                // Ready, and then in the lame duck.
                None => {
                    if step.load(Ordering::Relaxed) == 0 || handle.state() == ServerState::LameDuck {
                        let new = connect_to(to.lock().as_ref().unwrap());
                        new.sendall(b"?\n").unwrap();
                        new.setblocking(false).unwrap();
                        *client = Some(new);
                    }
                }
                Some(asked) => {
                    let Ok(answer) = asked.recv_with_flags(100, MSG_DONTWAIT) else { return };
                    answered.lock().push(String::from_utf8(answer).unwrap());
                    *client = None;
                    match step.fetch_add(1, Ordering::Relaxed) {
                        0 => kill_process(getpid(), Signal::TERM).unwrap(),
                        _ => handle.request_shutdown().unwrap(),
                    }
                }
            }
        })
        .bind(LOOPBACK)
        .unwrap();
    *address.lock() = Some(server.server_address().clone());
    let handle = server.handle();
    server.serve_forever().unwrap();
    assert_eq!(handle.state(), ServerState::Stopped);
    assert!(server.drained().is_some_and(|report| report.aborted.is_empty()));
    server.server_close().unwrap();
    assert_eq!(answers.lock()[..], ["Ready", "LameDuck"]);
    let (own, of_workers) = states(&receiver);
    assert_eq!(own, ["Ready", "LameDuck", "Draining", "Stopped"]);
    assert_eq!(of_workers, vec![["LameDuck", "Draining"]; workers]);
}

fn second_signal<M: MixIn + Default>(mixin: M) {
    let (receiver, sender) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let raised = AtomicUsize::new(0);
    let begin = Instant::now();
    let server = StreamServer::<Inet, M>::builder(handler_fn(answer_state))
        .mixin(mixin)
        .hooks(Record(sender))
        .poll_interval(Duration::from_millis(3))
        .drain_on_signals(LIMIT)
        .lame_duck(LIMIT * 100)
        .service_actions(move |handle| {
            let signal = match (handle.state(), raised.load(Ordering::Relaxed)) {
                (ServerState::Ready, 0) => Signal::TERM,
                (ServerState::LameDuck, 1) => Signal::INT,
                _ => return,
            };
            raised.fetch_add(1, Ordering::Relaxed);
            kill_process(getpid(), signal).unwrap();
        })
        .bind(LOOPBACK)
        .unwrap();
    server.serve_forever().unwrap();
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    wait_until("the server has stopped", || server.handle().state() == ServerState::Stopped);
    server.server_close().unwrap();
    assert_eq!(states(&receiver).0, ["Ready", "LameDuck", "Draining", "Stopped"]);
}
