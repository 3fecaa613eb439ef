//! The promise: the first SIGTERM or SIGINT drains a server, and the second stops it at once, whenever
//! they arrive. Neither children nor paths are left behind.

use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, kill_process_group, setsid, waitid,
};
use sock::{AF_UNIX, Address, Socket};
use sockserver::kind::Inet;
use sockserver::testing::LeakCheck;
use sockserver::{
    ForkingMixIn, ForkingTCPServer, ForkingUnixStreamServer, MixIn, PreforkMixIn, PreforkTCPServer,
    Request, ServerHandle, ServerHooks, ServerState, StreamContext, StreamServer, ThreadingMixIn,
    ThreadingTCPServer, ThreadingUnixStreamServer, UnixStreamServer, WorkerClass, handler_fn,
};

use crate::Test;
use crate::default_timeout::with_client;
use crate::support::{
    Gate, LIMIT, LOOPBACK, OpenOnDrop, connect_to, read_to_end, sleep_briefly, wait_for_stats, wait_until,
};

pub(crate) const TESTS: &[Test] = &[
    ("two_signals_at_once_count_as_one", two_signals_at_once_count_as_one),
    ("a_prefork_server_serves_the_accept_queue_in_a_drain", prefork_serves_the_accept_queue),
    ("a_worker_that_cannot_be_forked_loses_no_client_of_a_drain", keeps_clients_if_no_worker_is_forked),
    ("workers_with_threads_share_the_accept_queue_in_a_drain", workers_share_the_accept_queue),
    ("each_model_drains_with_the_longest_limit", || for_each_model!(drains_with_the_longest_limit)),
    ("a_worker_begins_no_request_after_the_limit_of_a_drain", begins_no_request_after_the_limit),
    ("signals_drain_a_server", signals_drain_a_server),
    ("a_second_signal_stops_it_now", a_second_signal_stops_it_now),
    ("a_signal_before_the_start_is_not_lost", a_signal_before_the_start_is_not_lost),
    ("a_forking_server_hears_a_signal_under_load", forking_handles_a_signal_under_load),
    ("forking_children_finish_after_ctrl_c", children_finish_after_ctrl_c),
    ("a_second_signal_kills_children", a_second_signal_kills_children),
    ("a_blocked_loop_ends_with_its_process", a_blocked_loop_ends_with_its_process),
    ("a_loop_in_a_hook_ends_with_its_process", a_loop_in_a_hook_ends_with_its_process),
    ("the_programs_handler_is_restored_after_close", the_programs_handler_is_restored),
    ("a_signal_ends_the_process_again_after_close", a_signal_ends_the_process_again),
    ("a_signal_drains_a_server_of_single_requests", a_signal_drains_a_server_of_single_requests),
    (
        "a_signal_drains_a_forking_server_of_single_requests",
        a_signal_drains_a_forking_server_of_single_requests,
    ),
    #[cfg(target_os = "linux")]
    ("a_forking_server_waits_in_a_drain", a_forking_server_waits_in_a_drain),
];

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] =
    &[("stuck_loop", stuck_loop), ("stuck_hook", stuck_hook), ("closed_server", closed_server)];

fn raise(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

/// Echoes lines. `gate` waits at the gate, `stuck` for more input.
fn echo_lines(gate: &Gate, cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    match line.trim_end() {
        "gate" => gate.pass(),
        "stuck" => cx.rfile.read_line(&mut String::new()).map(drop)?,
        _ => {}
    }
    cx.close_connection = line.is_empty();
    cx.wfile.write_all(line.as_bytes())
}

fn refused(address: &Address) -> bool {
    let client = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(address).is_err()
}

fn signals_drain_a_server() {
    let check = LeakCheck::begin();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    for signal in [Signal::TERM, Signal::INT] {
        let gate = Gate::new();
        let _open = OpenOnDrop(gate.clone());
        let at_the_gate = gate.clone();
        let server = ThreadingUnixStreamServer::builder(handler_fn(move |cx| echo_lines(&at_the_gate, cx)))
            .drain_on_signals(LIMIT)
            .bind(&path)
            .unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let (idle, busy) = (connect_to(&address), connect_to(&address));
                idle.sendall(b"hello\n").unwrap();
                assert_eq!(idle.recv(100).unwrap(), b"hello\n");
                busy.sendall(b"gate\n").unwrap();
                gate.wait_for(1);
                wait_for_stats(&handle, |stats| stats.idle == 1);
                raise(signal);
                assert_eq!(read_to_end(&idle), "", "an idle connection is open");
                assert!(refused(&address), "a new client was not refused");
                gate.open();
                assert_eq!(read_to_end(&busy), "gate\n", "a request did not finish");
            });
            server.serve_forever().unwrap();
            clients.join().unwrap();
        });
        let report = server.drained().expect("a drain");
        assert_eq!((report.finished, report.idle, report.aborted.len()), (1, 1, 0), "{report}");
        server.server_close().unwrap();
        assert!(!path.exists());
    }
    drop(folder);
    check.assert_nothing_left();
}

fn a_second_signal_stops_it_now() {
    let check = LeakCheck::begin();
    let handler = handler_fn(|cx| echo_lines(&Gate::new(), cx));
    let server = ThreadingTCPServer::builder(handler).drain_on_signals(LIMIT * 10).bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let begin = Instant::now();
    thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let stuck = connect_to(&address);
            stuck.sendall(b"stuck\n").unwrap();
            wait_for_stats(&handle, |stats| stats.in_flight == 1);
            raise(Signal::TERM);
            wait_until("the drain has begun", || refused(&address));
            assert!(handle.stats().in_flight >= 1, "the request did not finish");
            raise(Signal::INT);
            assert_eq!(read_to_end(&stuck), "");
        });
        server.serve_forever().unwrap();
        clients.join().unwrap();
    });
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    let report = server.drained().expect("a drain");
    assert!(!report.aborted.is_empty() && report.still_running == 0, "{report}");
    drop((server, handle));
    check.assert_nothing_left();
}

fn a_signal_before_the_start_is_not_lost() {
    let check = LeakCheck::begin();
    for round in 0..20 {
        let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(()))).drain_on_signals(LIMIT);
        let server = server.bind(LOOPBACK).unwrap();
        if round % 2 == 0 {
            raise(Signal::TERM);
            server.serve_forever().unwrap();
        } else {
            thread::scope(|scope| {
                scope.spawn(|| raise(Signal::TERM));
                server.serve_forever().unwrap();
            });
        }
        assert!(server.drained().is_some());
        assert!(refused(server.server_address()));
    }
    for _ in 0..5 {
        let server = ForkingTCPServer::builder(handler_fn(|_| Ok(()))).drain_on_signals(LIMIT);
        let server = server.bind(LOOPBACK).unwrap();
        raise(Signal::TERM);
        server.serve_forever().unwrap();
        assert!(server.drained().is_some());
    }
    check.assert_nothing_left();
}

/// timeout(1) sends a signal to its child and then to the process group.
fn two_signals_at_once_count_as_one() {
    fn check<M: MixIn + Default>() {
        let (over, signalled) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
        let handler = handler_fn(move |cx| {
            signalled.recv(1)?;
            sock::poll(&mut [], Some(Duration::from_millis(300)))?;
            cx.wfile.write_all(b"whole answer")
        });
        let (sent, raised) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
        let raises = Arc::clone(&raised);
        let server = StreamServer::<Inet, M>::builder(handler)
            .poll_interval(Duration::from_millis(5))
            .service_actions(move |handle| {
                if handle.stats().in_flight > 0 && !sent.swap(true, Ordering::SeqCst) {
                    raise(Signal::TERM);
                    raise(Signal::TERM);
                    over.send(b"!").unwrap();
                    raises.store(true, Ordering::SeqCst);
                }
            })
            .drain_on_signals(LIMIT)
            .bind(LOOPBACK)
            .unwrap();
        let client = connect_to(server.server_address());
        server.serve_forever().unwrap();
        assert!(raised.load(Ordering::SeqCst));
        assert_eq!(read_to_end(&client), "whole answer", "{:?}", server.drained());
        server.server_close().unwrap();
    }
    check::<ForkingMixIn>();
    check::<PreforkMixIn>();
    check::<ThreadingMixIn>();
}

/// Sends SIGTERM to this process when so many requests are served, and so many bytes to their
/// handlers when the drain has begun.
fn terminate_and_release(
    requests: u64,
    over: Socket,
    bytes: usize,
) -> impl Fn(&ServerHandle) + Send + Sync {
    let (sent, released) = (AtomicBool::new(false), AtomicBool::new(false));
    move |handle| {
        if handle.stats().in_flight >= requests && !sent.swap(true, Ordering::SeqCst) {
            raise(Signal::TERM);
        }
        if handle.state() >= ServerState::Draining && !released.swap(true, Ordering::SeqCst) {
            (0..bytes).for_each(|_| assert_eq!(over.send(b"!").unwrap(), 1));
        }
    }
}

/// The worker is busy until the stop, so the other clients are in the accept queue.
fn prefork_serves_the_accept_queue() {
    let check = LeakCheck::begin();
    let (over, signalled) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let handler = handler_fn(move |cx| {
        // None ends before the clients in the queue are accepted.
        signalled.recv(1)?;
        cx.wfile.write_all(b"served")
    });
    let server = PreforkTCPServer::builder(handler)
        .workers(1)
        .worker_class(crate::worker_class())
        .max_connections(1)
        .poll_interval(Duration::from_millis(5))
        .service_actions(terminate_and_release(1, over, 8))
        .drain_on_signals(LIMIT)
        .bind(LOOPBACK)
        .unwrap();
    let clients: Vec<Socket> = (0..8).map(|_| connect_to(server.server_address())).collect();
    server.serve_forever().unwrap();
    for client in &clients {
        assert_eq!(read_to_end(client), "served", "{:?}", server.drained());
    }
    let report = server.drained().expect("a drain");
    assert!(report.aborted.is_empty() && report.finished >= 7, "{report}");
    server.server_close().unwrap();
    drop(clients);
    check.assert_nothing_left();
}

/// A thread, and what ends it.
type RunningThread = (mpsc::Sender<()>, thread::JoinHandle<()>);

/// Has a second thread from the beginning of a drain on, with which a process cannot fork.
#[derive(Clone, Default)]
struct SecondThread(Arc<Mutex<Option<RunningThread>>>);

impl ServerHooks for SecondThread {
    fn state_changed(&self, state: ServerState) {
        // The workers announce the drain too.
        if state == ServerState::Draining && std::process::id() == PARENT.load(Ordering::SeqCst) {
            let (end, ended) = mpsc::channel();
            let waiting = thread::spawn(move || assert!(ended.recv().is_err()));
            *self.0.lock().unwrap() = Some((end, waiting));
        }
    }
}

static PARENT: AtomicU32 = AtomicU32::new(0);

/// The first attempts to fork a worker for the clients of the queue fail.
fn keeps_clients_if_no_worker_is_forked() {
    PARENT.store(std::process::id(), Ordering::SeqCst);
    let hooks = SecondThread::default();
    let second = hooks.0.clone();
    let sent = AtomicBool::new(false);
    let (over, signalled) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let handler = handler_fn(move |cx| {
        signalled.recv(1)?;
        cx.wfile.write_all(b"served")
    });
    let server = PreforkTCPServer::builder(handler)
        .workers(1)
        .hooks(hooks)
        .poll_interval(Duration::from_millis(5))
        .service_actions(move |handle| {
            if handle.stats().in_flight > 0 && !sent.swap(true, Ordering::SeqCst) {
                raise(Signal::TERM);
                (0..4).for_each(|_| assert_eq!(over.send(b"!").unwrap(), 1));
            }
            // The worker was reaped before this call, and then an attempt was made to replace it.
            if handle.state() >= ServerState::Draining && children().is_empty() {
                if let Some((end, waiting)) = second.lock().unwrap().take() {
                    drop(end);
                    waiting.join().unwrap();
                }
            }
        })
        .drain_on_signals(LIMIT)
        .bind(LOOPBACK)
        .unwrap();
    let clients: Vec<Socket> = (0..4).map(|_| connect_to(server.server_address())).collect();
    server.serve_forever().unwrap();
    for client in &clients {
        assert_eq!(read_to_end(client), "served", "{:?}", server.drained());
    }
    server.server_close().unwrap();
}

/// Each of two clients of the queue is answered when both are being served.
fn workers_share_the_accept_queue() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("begun");
    let (over, signalled) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let begun = path.clone();
    let handler = handler_fn(move |cx| {
        if cx.request.recv(1)? == b"w" {
            signalled.recv(1)?;
            return cx.wfile.write_all(b"served");
        }
        fs::File::options().create(true).append(true).open(&begun)?.write_all(b"!")?;
        wait_until("both are being served", || fs::read(&begun).unwrap().len() >= 2);
        cx.wfile.write_all(b"served")
    });
    let server = PreforkTCPServer::builder(handler)
        .workers(2)
        .worker_class(WorkerClass::Threads(1))
        .poll_interval(Duration::from_millis(5))
        .service_actions(terminate_and_release(2, over, 2))
        .drain_on_signals(LIMIT)
        .bind(LOOPBACK)
        .unwrap();
    let clients: Vec<Socket> = (0..4).map(|_| connect_to(server.server_address())).collect();
    clients.iter().zip([b"w", b"w", b"q", b"q"]).for_each(|(client, line)| client.sendall(line).unwrap());
    server.serve_forever().unwrap();
    for client in &clients {
        assert_eq!(read_to_end(client), "served", "{:?}", server.drained());
    }
    server.server_close().unwrap();
}

/// The worker has two clients of the queue and serves one of them until the limit.
fn begins_no_request_after_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("begun");
    let (over, signalled) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let begun = path.clone();
    let handler = handler_fn(move |cx| {
        fs::File::options().create(true).append(true).open(&begun)?.write_all(b"!")?;
        if cx.request.recv(1)? == b"w" {
            return signalled.recv(1).map(drop);
        }
        // Until the drain aborts it.
        cx.request.recv(1).map(drop)
    });
    let server = PreforkTCPServer::builder(handler)
        .workers(1)
        .worker_class(WorkerClass::Selector)
        .max_connections(1)
        .first_byte_timeout(None)
        .poll_interval(Duration::from_millis(5))
        .service_actions(terminate_and_release(1, over, 1))
        .drain_on_signals(Duration::from_secs(2))
        .bind(LOOPBACK)
        .unwrap();
    let clients: Vec<Socket> = (0..4).map(|_| connect_to(server.server_address())).collect();
    clients.iter().zip([b"w", b"q", b"q", b"q"]).for_each(|(client, line)| client.sendall(line).unwrap());
    server.serve_forever().unwrap();
    assert!(fs::read(&path).unwrap().len() <= 2, "{:?}", server.drained());
    server.server_close().unwrap();
}

fn drains_with_the_longest_limit<M: MixIn + Default>(model: &str, mixin: fn() -> M) {
    let stops = AtomicBool::new(false);
    // A selector serves a client that has sent something.
    let handler = handler_fn(|cx| {
        cx.rfile.read_line(&mut String::new())?;
        cx.wfile.write_all(b"served")
    });
    let server = StreamServer::<Inet, M>::builder(handler)
        .mixin(mixin())
        .poll_interval(Duration::from_millis(5))
        .service_actions(move |server| {
            if server.stats().finished > 0 && !stops.swap(true, Ordering::SeqCst) {
                server.request_shutdown().unwrap();
            }
        })
        .bind(LOOPBACK)
        .unwrap();
    let client = connect_to(server.server_address());
    client.sendall(b"\n").unwrap();
    server.serve_forever().unwrap();
    assert_eq!(read_to_end(&client), "served", "{model}");
    let report = server.drain(Duration::MAX).unwrap();
    assert!(report.aborted.is_empty() && report.still_running == 0, "{model}: {report}");
    server.server_close().unwrap();
}

/// Clients are queued all the time, so the loop never waits.
fn forking_handles_a_signal_under_load() {
    let check = LeakCheck::begin();
    let server = ForkingTCPServer::builder(handler_fn(|_| Ok(())))
        .max_children(1000)
        .drain_on_signals(LIMIT)
        .bind(LOOPBACK)
        .unwrap();
    let clients: Vec<Socket> = (0..30).map(|_| connect_to(server.server_address())).collect();
    raise(Signal::TERM);
    server.serve_forever().unwrap();
    let stats = server.stats();
    // Those that were in the accept queue are served, and no others.
    assert_eq!((stats.accepted, stats.finished), (30, 30), "{stats}");
    assert!(refused(server.server_address()), "the server went on accepting");
    assert_eq!(stats.in_flight, 0);
    drop((clients, server));
    check.assert_nothing_left();
}

/// Sends a signal once a child serves a request.
struct SignalsOnce<F> {
    begun: Socket,
    sent: AtomicBool,
    send: F,
}

impl<F: Fn() + Send + Sync + 'static> SignalsOnce<F> {
    fn service_actions(&self) {
        let begun = || self.begun.recv_with_flags(1, sock::MSG_DONTWAIT).is_ok();
        if !self.sent.load(Ordering::Relaxed) && begun() {
            self.sent.store(true, Ordering::Relaxed);
            (self.send)();
        }
    }
}

/// Lets the child return when the drain begins, and waits for its end. The drain has to count a request
/// that ends before it begins to wait.
struct EndsChildInDrain {
    sent: Socket,
    parent: Pid,
}

impl ServerHooks for EndsChildInDrain {
    fn state_changed(&self, state: ServerState) {
        if state == ServerState::Draining && getpid() == self.parent {
            self.sent.send(b"!").unwrap();
            // The child stays for the server to reap.
            waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        }
    }
}

fn children() -> String {
    fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap()
}

fn children_finish_after_ctrl_c() {
    // A terminal sends SIGINT to the whole process group, including the children.
    setsid().unwrap();
    let check = LeakCheck::begin();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (sender, begun) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let (sent, over) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let hooks = SignalsOnce {
        begun,
        sent: AtomicBool::new(false),
        send: || kill_process_group(getpid(), Signal::INT).unwrap(),
    };
    let handler = handler_fn(move |cx| {
        sender.send(b"!")?;
        // Work during which the signal arrives.
        over.recv(1)?;
        cx.wfile.write_all(b"done")
    });
    let server = ForkingUnixStreamServer::builder(handler)
        .hooks(EndsChildInDrain { sent, parent: getpid() })
        .service_actions(move |_| hooks.service_actions())
        .poll_interval(Duration::from_millis(5))
        .drain_on_signals(LIMIT)
        .bind(&path)
        .unwrap();
    let client = connect_to(server.server_address());
    server.serve_forever().unwrap();
    assert_eq!(read_to_end(&client), "done", "the signal killed the child");
    let report = server.drained().expect("a drain");
    assert_eq!((report.finished, report.aborted.len(), report.still_running), (1, 0, 0), "{report}");
    assert_eq!(children(), "");
    let stats = server.stats();
    assert_eq!((stats.accepted, stats.finished), (1, 1));
    server.server_close().unwrap();
    assert!(!path.exists(), "a child removed the path");
    drop((client, folder));
    check.assert_nothing_left();
}

fn a_second_signal_kills_children() {
    let check = LeakCheck::begin();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (sender, begun) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let hooks = SignalsOnce {
        begun,
        sent: AtomicBool::new(false),
        send: || {
            raise(Signal::TERM);
            // The same signal would count as one with the first.
            raise(Signal::INT);
        },
    };
    let handler = handler_fn(move |cx| {
        sender.send(b"!")?;
        cx.rfile.read_line(&mut String::new()).map(drop)
    });
    let server = ForkingUnixStreamServer::builder(handler)
        .service_actions(move |_| hooks.service_actions())
        .poll_interval(Duration::from_millis(5))
        .drain_on_signals(LIMIT * 10)
        .bind(&path)
        .unwrap();
    let client = connect_to(server.server_address());
    let begin = Instant::now();
    server.serve_forever().unwrap();
    assert!(begin.elapsed() < LIMIT);
    let report = server.drained().expect("a drain");
    assert_eq!((report.finished, report.aborted.len(), report.still_running), (0, 1, 0), "{report}");
    assert_eq!(read_to_end(&client), "");
    assert_eq!(children(), "", "the child was not killed and reaped");
    assert_eq!(server.stats().aborted, 1);
    drop((server, client));
    assert!(!path.exists());
    drop(folder);
    check.assert_nothing_left();
}

/// Serves at the path in an environment variable, with a handler that never returns.
fn stuck_loop() {
    let path = std::path::PathBuf::from(std::env::var_os("STUCK_LOOP").expect("a path"));
    let handler = handler_fn(|_| {
        println!("begun");
        loop {
            thread::park();
        }
    });
    let server = UnixStreamServer::builder(handler)
        .drain_on_signals(Duration::from_millis(100))
        .bind(&path)
        .unwrap();
    println!("listening");
    server.serve_forever().unwrap();
    unreachable!("serve_forever returned");
}

/// The same with a hook of the loop that never returns. No request is in flight then.
fn stuck_hook() {
    let path = std::path::PathBuf::from(std::env::var_os("STUCK_LOOP").expect("a path"));
    let server = ThreadingUnixStreamServer::builder(handler_fn(|_| Ok(())))
        .hooks(Stuck)
        .drain_on_signals(Duration::from_millis(100))
        .bind(&path)
        .unwrap();
    println!("listening");
    server.serve_forever().unwrap();
    unreachable!("serve_forever returned");
}

struct Stuck;

impl ServerHooks for Stuck {
    fn get_request(&self, _socket: &Socket) -> io::Result<(Socket, Address)> {
        println!("begun");
        loop {
            thread::park();
        }
    }
}

fn a_blocked_loop_ends_with_its_process() {
    ends_with_status_1("stuck_loop");
}

fn a_loop_in_a_hook_ends_with_its_process() {
    ends_with_status_1("stuck_hook");
}

fn ends_with_status_1(helper: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--alone", helper])
        .env("STUCK_LOOP", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufReader::new(program.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "listening");
    let client = Socket::new(AF_UNIX, sock::SOCK_STREAM, 0).unwrap();
    client.connect(&path).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    let pid = rustix::process::Pid::from_child(&program);
    kill_process(pid, Signal::TERM).unwrap();
    let status = program.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(!path.exists(), "the path was not removed");
}

/// Records whether it was called.
struct Nothing;

impl ServerHooks for Nothing {
    fn close_request(&self, _request: &Request) {}
}

fn the_programs_handler_is_restored() {
    let heard = Arc::new(AtomicBool::new(false));
    let id = signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&heard)).unwrap();
    let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(()))).hooks(Nothing).drain_on_signals(LIMIT);
    let server = server.bind(LOOPBACK).unwrap();
    let handle = server.handle();
    server.server_close().unwrap();
    raise(Signal::TERM);
    wait_until("the program's handler was not called", || heard.load(Ordering::SeqCst));
    assert!(!handle.is_stopping(), "the closed server received the signal");
    signal_hook::low_level::unregister(id);
}

/// Closes its server and then waits for a signal.
fn closed_server() {
    for _ in 0..2 {
        let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(()))).drain_on_signals(LIMIT);
        server.bind(LOOPBACK).unwrap().server_close().unwrap();
    }
    println!("closed");
    loop {
        thread::park();
    }
}

fn a_signal_ends_the_process_again() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
        let mut program = Command::new(std::env::current_exe().unwrap())
            .args(["--alone", "closed_server"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufReader::new(program.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "closed");
        kill_process(rustix::process::Pid::from_child(&program), signal).unwrap();
        let until = Instant::now() + LIMIT;
        while program.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                program.kill().unwrap();
                program.wait().unwrap();
                panic!("{signal:?} did not end the process");
            }
            sleep_briefly();
        }
        assert_eq!(program.wait().unwrap().signal(), Some(number));
    }
}

/// Calls `handle_request` until the server was drained.
fn serve_single_requests<M: MixIn>(server: &StreamServer<Inet, M>) {
    while server.drained().is_none() {
        server.handle_request().unwrap();
    }
}

fn a_signal_drains_a_server_of_single_requests() {
    let handler = handler_fn(|cx| cx.wfile.write_all(b"served"));
    let server = ThreadingTCPServer::builder(handler).drain_on_signals(LIMIT).bind(LOOPBACK).unwrap();
    let address = server.server_address().clone();
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(read_to_end(&connect_to(&address)), "served");
            raise(Signal::TERM);
        });
        serve_single_requests(&server);
    });
}

fn a_signal_drains_a_forking_server_of_single_requests() {
    let handler = handler_fn(|cx| {
        cx.wfile.write_all(b"served")?;
        // The child ends while the server waits for the next client.
        kill_process(rustix::process::getppid().expect("a parent"), Signal::TERM)?;
        Ok(())
    });
    let server = ForkingTCPServer::builder(handler).drain_on_signals(LIMIT).bind(LOOPBACK).unwrap();
    let client = connect_to(server.server_address());
    let begin = Instant::now();
    serve_single_requests(&server);
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    assert_eq!(read_to_end(&client), "served");
    let report = server.drained().expect("a drain");
    assert_eq!((report.aborted.len(), report.still_running), (0, 0), "{report}");
    assert_eq!(children(), "");
}

/// The time that this process has had a processor, in hundredths of a second: proc_pid_stat(5).
#[cfg(target_os = "linux")]
fn processor_time() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let times = fields.split_whitespace().skip(11).take(2).map(|time| time.parse::<u64>().unwrap());
    times.sum()
}

/// A client waits in the accept queue for the end of another one. The loop must wait as well.
#[cfg(target_os = "linux")]
fn a_forking_server_waits_in_a_drain() {
    let builder = ForkingTCPServer::builder(handler_fn(|cx: &mut StreamContext<'_>| {
        cx.wfile.write_all(b"begun ")?;
        let text = cx.request.recv(1)?;
        cx.wfile.write_all(&text)
    }));
    let server = builder.mixin(ForkingMixIn::new().max_children(1)).drain_on_signals(LIMIT);
    let server = server.bind(LOOPBACK).unwrap();
    let (address, pid) = (server.server_address().clone(), getpid());
    let before = processor_time();
    with_client(
        || server.serve_forever().unwrap(),
        || {
            let first = connect_to(&address);
            assert_eq!(first.recv(6).unwrap(), b"begun ");
            let second = connect_to(&address);
            kill_process(pid, Signal::TERM).unwrap();
            wait_until("new clients are refused", || refused(&address));
            thread::sleep(Duration::from_secs(1));
            first.sendall(b"1").unwrap();
            assert_eq!(read_to_end(&first), "1");
            second.sendall(b"2").unwrap();
            assert_eq!(read_to_end(&second), "begun 2");
        },
    );
    let took = processor_time() - before;
    assert!(took < 30, "the loop has used a processor for {took}0 ms of a second");
    server.server_close().unwrap();
}
