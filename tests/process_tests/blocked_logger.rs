//! The promise: SIGTERM ends a server within its limit although the logger does not return, because
//! standard error is a pipe that is full.

use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sock::{AF_UNIX, MSG_DONTWAIT, SOCK_STREAM, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, SelectorTCPServer, StreamContext, TCPServer,
    ThreadPoolTCPServer, ThreadingTCPServer, handler_fn,
};

use crate::Test;
use crate::support::{LOOPBACK, connect_to, sleep_briefly};

pub(crate) const TESTS: &[Test] = &[
    ("a_blocked_logger_keeps_no_signal_from_a_sequential_server", || ends("blocked_logger_tcp", false)),
    ("a_blocked_logger_keeps_no_signal_from_a_threading_server", || {
        ends("blocked_logger_threading", false)
    }),
    ("a_blocked_logger_keeps_no_signal_from_a_selector_server", || ends("blocked_logger_selector", false)),
    ("a_blocked_logger_keeps_no_signal_from_a_pool", || ends("blocked_logger_pool", false)),
    ("a_blocked_logger_keeps_no_signal_from_a_forking_server", || ends("blocked_logger_forking", false)),
    ("a_blocked_logger_keeps_no_signal_from_a_prefork_server", || ends("blocked_logger_prefork", false)),
    ("a_second_signal_ends_a_server_with_a_blocked_logger", || ends("blocked_logger_long", true)),
];

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[
    ("blocked_logger_tcp", || serve(TCPServer::builder(handler_fn(echo)), SHORT)),
    ("blocked_logger_threading", || serve(ThreadingTCPServer::builder(handler_fn(echo)), SHORT)),
    ("blocked_logger_selector", || serve(SelectorTCPServer::builder(handler_fn(echo)), SHORT)),
    ("blocked_logger_pool", || serve(ThreadPoolTCPServer::builder(handler_fn(echo)), SHORT)),
    ("blocked_logger_forking", || serve(ForkingTCPServer::builder(handler_fn(echo)), SHORT)),
    ("blocked_logger_prefork", || serve(PreforkTCPServer::builder(handler_fn(echo)), SHORT)),
    ("blocked_logger_long", || serve(ThreadingTCPServer::builder(handler_fn(echo)), LONG)),
];

/// The limit of the drain.
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(3600);

const AGAIN: Duration = Duration::from_millis(500);

/// The time after which a test fails. A program ends about eight seconds after its signal.
const LIMIT: Duration = Duration::from_secs(40);

fn echo(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let data = cx.request.recv(100)?;
    cx.request.sendall(&data)
}

fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>, limit: Duration) {
    env_logger::Builder::new().filter_level(log::LevelFilter::Trace).init();
    let server = builder.drain_on_signals(limit).bind(LOOPBACK).unwrap();
    println!("{}", server.server_address());
    server.serve_forever().unwrap();
}

/// The program ends after a signal, or after one that is sent again and again.
fn ends(helper: &str, is_repeated: bool) {
    let (reader, writer) = sock::socketpair_with(AF_UNIX, SOCK_STREAM, 0).unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--alone", helper])
        .stdout(Stdio::piped())
        .stderr(OwnedFd::from(writer.dup().unwrap()))
        .spawn()
        .unwrap();
    let mut line = String::new();
    io::BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().parse::<SocketAddr>().unwrap().into();
    let served = connect_to(&address);
    served.sendall(b"hello").unwrap();
    assert_eq!(served.recv(100).unwrap(), b"hello");
    fill(&writer);
    // A record of this client is logged, where it is accepted at once.
    let client = connect_to(&address);
    let pid = Pid::from_child(&program);
    let begin = Instant::now();
    let mut sent: Option<Instant> = None;
    let status = loop {
        if let Some(status) = program.try_wait().unwrap() {
            break status;
        }
        // One that comes before the first one is carried out has no effect.
        if sent.is_none_or(|at| is_repeated && at.elapsed() > AGAIN) {
            kill_process(pid, Signal::TERM).unwrap();
            sent = Some(Instant::now());
        }
        if begin.elapsed() > LIMIT {
            program.kill().unwrap();
            program.wait().unwrap();
            panic!("{helper} still runs {LIMIT:?} after the signal");
        }
        sleep_briefly();
    };
    assert_eq!(status.code(), Some(1), "{status:?}");
    drop((reader, client));
}

/// Sends until not a byte more is taken.
fn fill(writer: &Socket) {
    for size in [4096, 1] {
        while writer.send_with_flags(&vec![b'.'; size], MSG_DONTWAIT).is_ok() {}
    }
}
