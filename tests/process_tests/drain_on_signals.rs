//! The promise: the first SIGTERM or SIGINT drains a server, the second stops it now,
//! whenever they come; nothing is left behind, neither children nor paths.

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
use crate::support::{Gate, LIMIT, LOOPBACK, OpenAtEnd, client_of, moment, rest_of, until, until_stats};

pub(crate) const TESTS: &[Test] = &[
    ("signals_drain_a_server", signals_drain_a_server),
    ("a_second_signal_stops_it_now", a_second_signal_stops_it_now),
    ("a_signal_before_the_start_is_not_lost", a_signal_before_the_start_is_not_lost),
    ("a_forking_server_hears_a_signal_under_load", forking_hears_a_signal_under_load),
    ("forking_children_finish_after_ctrl_c", children_finish_after_ctrl_c),
    ("a_second_signal_kills_children", a_second_signal_kills_children),
    ("a_loop_that_is_stuck_ends_with_its_process", a_loop_that_is_stuck_ends_with_its_process),
    ("signals_are_the_programs_again_after_close", signals_are_the_programs_again),
    ("a_signal_ends_the_process_again_after_close", a_signal_ends_the_process_again),
    ("a_signal_drains_a_server_of_single_requests", a_signal_drains_a_server_of_single_requests),
    (
        "a_signal_drains_a_forking_server_of_single_requests",
        a_signal_drains_a_forking_server_of_single_requests,
    ),
];

/// A program of its own, for the last of them.
pub(crate) const HELPERS: &[Test] = &[("stuck_loop", stuck_loop), ("closed_server", closed_server)];

fn raise(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

/// Echoes line by line; `gate` waits at the gate, `stuck` for more input.
fn talk(gate: &Gate, cx: &mut StreamContext<'_>) -> io::Result<()> {
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
        let _open = OpenAtEnd(gate.clone());
        let at_the_gate = gate.clone();
        let server = ThreadingUnixStreamServer::builder(handler_fn(move |cx| talk(&at_the_gate, cx)))
            .drain_on_signals(LIMIT)
            .bind(&path)
            .unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let (idle, busy) = (client_of(&address), client_of(&address));
                idle.sendall(b"hello\n").unwrap();
                assert_eq!(idle.recv(100).unwrap(), b"hello\n");
                busy.sendall(b"gate\n").unwrap();
                gate.wait_for(1);
                until_stats(&handle, |stats| stats.idle == 1);
                raise(signal);
                assert_eq!(rest_of(&idle), "", "idle ones go");
                assert!(refused(&address), "new ones are refused");
                gate.open();
                assert_eq!(rest_of(&busy), "gate\n", "busy ones finish");
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
    let handler = handler_fn(|cx| talk(&Gate::new(), cx));
    let server = ThreadingTCPServer::builder(handler).drain_on_signals(LIMIT * 10).bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let begin = Instant::now();
    thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let stuck = client_of(&address);
            stuck.sendall(b"stuck\n").unwrap();
            until_stats(&handle, |stats| stats.in_flight == 1);
            raise(Signal::TERM);
            until("the drain has begun", || refused(&address));
            assert!(handle.stats().in_flight >= 1, "it may finish");
            raise(Signal::INT);
            assert_eq!(rest_of(&stuck), "");
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

/// Clients wait from the first turn to the last: the loop never has to sleep.
fn forking_hears_a_signal_under_load() {
    let check = LeakCheck::begin();
    let server = ForkingTCPServer::builder(handler_fn(|_| Ok(())))
        .max_children(1000)
        .drain_on_signals(LIMIT)
        .bind(LOOPBACK)
        .unwrap();
    let clients: Vec<Socket> = (0..30).map(|_| client_of(server.server_address())).collect();
    raise(Signal::TERM);
    server.serve_forever().unwrap();
    let stats = server.stats();
    assert!(stats.accepted < 5, "it went on to serve: {stats}");
    assert_eq!(stats.in_flight, 0);
    drop((clients, server));
    check.assert_nothing_left();
}

/// Sends a signal once a child is at work.
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
    // A terminal sends SIGINT to the whole group: to the children as well.
    setsid().unwrap();
    let check = LeakCheck::begin();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (tell, begun) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
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
        tell.send(b"!")?;
        // Work that goes on while the signal comes.
        over.recv(1)?;
        cx.wfile.write_all(b"done")
    });
    let server = ForkingUnixStreamServer::builder(handler)
        .service_actions(move |_| hooks.service_actions())
        .poll_interval(Duration::from_millis(5))
        .drain_on_signals(LIMIT)
        .bind(&path)
        .unwrap();
    let client = client_of(server.server_address());
    server.serve_forever().unwrap();
    assert_eq!(rest_of(&client), "done", "the child was not killed by it");
    let report = server.drained().expect("a drain");
    assert_eq!((report.finished, report.aborted.len(), report.still_running), (1, 0, 0), "{report}");
    assert_eq!(children(), "");
    let stats = server.stats();
    assert_eq!((stats.accepted, stats.finished), (1, 1));
    server.server_close().unwrap();
    assert!(!path.exists(), "and no child has taken the path away before: it would be gone twice");
    drop((client, folder));
    check.assert_nothing_left();
}

fn a_second_signal_kills_children() {
    let check = LeakCheck::begin();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (tell, begun) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let hooks = SignalsOnce {
        begun,
        sent: AtomicBool::new(false),
        send: || {
            raise(Signal::TERM);
            raise(Signal::TERM);
        },
    };
    let handler = handler_fn(move |cx| {
        tell.send(b"!")?;
        cx.rfile.read_line(&mut String::new()).map(drop)
    });
    let server = ForkingUnixStreamServer::builder(handler)
        .service_actions(move |_| hooks.service_actions())
        .poll_interval(Duration::from_millis(5))
        .drain_on_signals(LIMIT * 10)
        .bind(&path)
        .unwrap();
    let client = client_of(server.server_address());
    let begin = Instant::now();
    server.serve_forever().unwrap();
    assert!(begin.elapsed() < LIMIT);
    let report = server.drained().expect("a drain");
    assert_eq!((report.finished, report.aborted.len(), report.still_running), (0, 1, 0), "{report}");
    assert_eq!(rest_of(&client), "");
    assert_eq!(children(), "", "killed and collected");
    assert_eq!(server.stats().aborted, 1);
    drop((server, client));
    assert!(!path.exists());
    drop(folder);
    check.assert_nothing_left();
}

/// Serves at the path in its environment, and never returns from its handler.
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
    unreachable!("it cannot return");
}

fn a_loop_that_is_stuck_ends_with_its_process() {
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
    assert!(!path.exists(), "its path is gone all the same");
}

/// Knows whether it has been asked.
struct Nothing;

impl ServerHooks for Nothing {
    fn close_request(&self, _request: &Request) {}
}

fn signals_are_the_programs_again() {
    let heard = Arc::new(AtomicBool::new(false));
    let id = signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&heard)).unwrap();
    let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(()))).hooks(Nothing).drain_on_signals(LIMIT);
    let server = server.bind(LOOPBACK).unwrap();
    let handle = server.handle();
    server.server_close().unwrap();
    raise(Signal::TERM);
    until("the program's own handler", || heard.load(Ordering::SeqCst));
    assert!(!handle.is_stopping(), "the closed server does not hear it");
    signal_hook::low_level::unregister(id);
}

/// Closes its server, and waits for a signal then.
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
                panic!("{signal:?} does nothing any more");
            }
            moment();
        }
        assert_eq!(program.wait().unwrap().signal(), Some(number));
    }
}

/// Serves single requests until the server has been drained.
fn one_by_one<M: MixIn>(server: &StreamServer<Inet, M>) {
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
            assert_eq!(rest_of(&client_of(&address)), "served");
            raise(Signal::TERM);
        });
        one_by_one(&server);
    });
}

fn a_signal_drains_a_forking_server_of_single_requests() {
    let handler = handler_fn(|cx| {
        cx.wfile.write_all(b"served")?;
        // Its end comes while the server waits for the next client.
        kill_process(rustix::process::getppid().expect("a parent"), Signal::TERM)?;
        Ok(())
    });
    let server = ForkingTCPServer::builder(handler).drain_on_signals(LIMIT).bind(LOOPBACK).unwrap();
    let client = client_of(server.server_address());
    let begin = Instant::now();
    one_by_one(&server);
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
    assert_eq!(rest_of(&client), "served");
    let report = server.drained().expect("a drain");
    assert_eq!((report.aborted.len(), report.still_running), (0, 0), "{report}");
    assert_eq!(children(), "");
}
