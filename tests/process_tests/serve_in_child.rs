//! The promise: a server serves and stops, whatever signal mask and actions its process has inherited.

use std::io::{self, BufRead, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sock::{AF_UNIX, SOCK_STREAM, Socket};
use sockserver::kind::Unix;
use sockserver::{
    ForkingUnixStreamServer, MixIn, PreforkUnixStreamServer, SelectorUnixStreamServer, StreamContext,
    ThreadPoolUnixStreamServer, ThreadingUnixStreamServer, UnixStreamServer, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("an_unserved_server_removes_its_path_when_it_is_dropped", an_unserved_path_is_removed),
    // GNU env(1) starts a program with other signal states.
    #[cfg(target_os = "linux")]
    ("blocked_signals_drain_a_server", blocked_signals_drain_a_server),
    #[cfg(target_os = "linux")]
    ("children_are_counted_although_sigchld_was_ignored", children_are_counted),
];

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[
    ("here_tcp", || serve_here(UnixStreamServer::builder(handler_fn(answer)))),
    ("here_threading", || serve_here(ThreadingUnixStreamServer::builder(handler_fn(answer)))),
    ("here_pool", || serve_here(ThreadPoolUnixStreamServer::builder(handler_fn(answer)).workers(2))),
    ("here_selector", || serve_here(SelectorUnixStreamServer::builder(handler_fn(answer)).workers(2))),
    ("here_forking", || serve_here(ForkingUnixStreamServer::builder(handler_fn(answer)))),
    ("here_prefork", || serve_here(PreforkUnixStreamServer::builder(handler_fn(answer)).workers(1))),
];

type Builder<M> = sockserver::Builder<sockserver::kind::Stream<Unix>, M>;

fn answer(cx: &mut StreamContext<'_>) -> io::Result<()> {
    cx.request.recv(1)?;
    let stopping = cx.server.is_stopping();
    write!(cx.wfile, "stopping: {stopping}")
}

fn path() -> String {
    std::env::var("SERVER_PATH").unwrap()
}

/// Serves in this process until a signal drains the server.
fn serve_here<M: MixIn>(builder: Builder<M>) {
    let server = builder.drain_on_signals(LIMIT).bind(path()).unwrap();
    println!("{}", server.handle().is_stopping());
    server.serve_forever().unwrap();
    let stats = server.stats();
    println!("{} {}", stats.accepted, stats.finished);
}

/// A program that is killed when this is dropped.
struct Program(Child);

impl Program {
    fn start(launcher: &[&str], helper: &str, path: &std::path::Path) -> (Program, Lines) {
        let program = std::env::current_exe().unwrap();
        let mut words: Vec<std::ffi::OsString> = launcher.iter().map(Into::into).collect();
        words.extend([program.into(), "--alone".into(), helper.into()]);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .env("SERVER_PATH", path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
        (Program(child), lines)
    }
}

type Lines = io::Lines<io::BufReader<std::process::ChildStdout>>;

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(path: &std::path::Path) -> String {
    let client = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(path).unwrap();
    // A selector calls the handler when there is input.
    client.sendall(b"?").unwrap();
    read_to_end(&client)
}

fn an_unserved_path_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = UnixStreamServer::new(&path, handler_fn(|_| Ok(()))).unwrap();
    assert!(path.exists());
    drop(server);
    assert!(!path.exists());
}

/// Runs a server that `launcher` starts, and returns its counters.
fn run_with(launcher: &[&str], model: &str, clients: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (program, mut lines) = Program::start(launcher, &format!("here_{model}"), &path);
    lines.next().unwrap().unwrap();
    for _ in 0..clients {
        assert_eq!(ask(&path), "stopping: false", "{model}");
    }
    kill_process(Pid::from_child(&program.0), Signal::TERM).unwrap();
    lines.next().unwrap().unwrap()
}

#[cfg(target_os = "linux")]
fn blocked_signals_drain_a_server() {
    for model in ["tcp", "threading", "pool", "selector", "forking", "prefork"] {
        let counters = run_with(&["env", "--block-signal=TERM", "--block-signal=INT"], model, 1);
        assert_eq!(counters, "1 1", "{model}");
    }
}

#[cfg(target_os = "linux")]
fn children_are_counted() {
    for model in ["forking", "prefork"] {
        assert_eq!(run_with(&["env", "--ignore-signal=CHLD"], model, 5), "5 5", "{model}");
    }
}
