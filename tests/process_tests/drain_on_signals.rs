//! The promise: the first SIGTERM or SIGINT drains a server, and the second stops it at once, whenever
//! they arrive. Neither children nor paths are left behind.

use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process, kill_process_group, setsid};
use sock::{AF_UNIX, Address, Socket};
use sockserver::kind::Inet;
use sockserver::testing::LeakCheck;
use sockserver::{
    ForkingTCPServer, ForkingUnixStreamServer, MixIn, Request, ServerHooks, StreamContext, StreamServer,
    ThreadingTCPServer, ThreadingUnixStreamServer, UnixStreamServer, handler_fn,
};

use crate::Test;
use crate::support::{
    Gate, LIMIT, LOOPBACK, OpenOnDrop, connect_to, read_to_end, sleep_briefly, wait_for_stats, wait_until,
};

pub(crate) const TESTS: &[Test] = &[
    ("signals_drain_a_server", signals_drain_a_server),
    ("a_second_signal_stops_it_now", a_second_signal_stops_it_now),
    ("a_signal_before_the_start_is_not_lost", a_signal_before_the_start_is_not_lost),
    ("a_forking_server_hears_a_signal_under_load", forking_handles_a_signal_under_load),
    ("forking_children_finish_after_ctrl_c", children_finish_after_ctrl_c),
    ("a_second_signal_kills_children", a_second_signal_kills_children),
    ("a_blocked_loop_ends_with_its_process", a_blocked_loop_ends_with_its_process),
    ("the_programs_handler_is_restored_after_close", the_programs_handler_is_restored),
    ("a_signal_ends_the_process_again_after_close", a_signal_ends_the_process_again),
    ("a_signal_drains_a_server_of_single_requests", a_signal_drains_a_server_of_single_requests),
    (
        "a_signal_drains_a_forking_server_of_single_requests",
        a_signal_drains_a_forking_server_of_single_requests,
    ),
];

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[("stuck_loop", stuck_loop), ("closed_server", closed_server)];

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
    assert!(stats.accepted < 5, "the server went on serving: {stats}");
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
        send: move || {
            kill_process_group(getpid(), Signal::INT).unwrap();
            sent.send(b"!").unwrap();
        },
    };
    let handler = handler_fn(move |cx| {
        sender.send(b"!")?;
        // Work during which the signal arrives.
        over.recv(1)?;
        cx.wfile.write_all(b"done")
    });
    let server = ForkingUnixStreamServer::builder(handler)
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
            raise(Signal::TERM);
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

fn a_blocked_loop_ends_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--alone", "stuck_loop"])
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
