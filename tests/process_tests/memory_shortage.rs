//! The promise: a server goes on when the system has no memory for a system call for a moment. Each of
//! its clients is answered or disconnected, and a signal ends it.

use std::io::{self, BufRead, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sock::Socket;
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, SelectorTCPServer, StreamContext, TCPServer,
    ThreadPoolTCPServer, ThreadingTCPServer, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, sleep_briefly};

pub(crate) const TESTS: &[Test] = &[
    ("a_server_survives_poll_without_memory", || with_each_class("poll:error=ENOMEM:when=4..6")),
    ("a_server_survives_every_second_send_without_buffers", || {
        with_each_class("sendto:error=ENOBUFS:when=2+2");
    }),
    ("a_selector_goes_on_when_a_listener_cannot_be_watched_again", || {
        // The first two calls are those of the start.
        with_one("shortage_selector_full", "epoll_ctl:error=ENOMEM:when=3+2");
    }),
];

/// Servers, each a program that prints its process id and its address.
pub(crate) const HELPERS: &[Test] = &[
    ("shortage_tcp", || serve(TCPServer::builder(handler_fn(answer)))),
    ("shortage_threading", || serve(ThreadingTCPServer::builder(handler_fn(answer)))),
    ("shortage_pool", || serve(ThreadPoolTCPServer::builder(handler_fn(answer)).workers(3))),
    ("shortage_selector", || serve(SelectorTCPServer::builder(handler_fn(answer)).workers(2))),
    ("shortage_selector_full", || {
        serve(SelectorTCPServer::builder(handler_fn(answer)).workers(2).max_connections(1));
    }),
    ("shortage_forking", || serve(ForkingTCPServer::builder(handler_fn(answer)))),
    ("shortage_prefork", || serve(PreforkTCPServer::builder(handler_fn(answer)).workers(2))),
];

fn answer(cx: &mut StreamContext<'_>) -> io::Result<()> {
    cx.rfile.read_line(&mut String::new())?;
    cx.wfile.write_all(b"served")
}

fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let server = builder.drain_on_signals(Duration::from_secs(2)).bind(LOOPBACK).unwrap();
    println!("{} {}", std::process::id(), server.server_address());
    server.serve_forever().unwrap();
    server.server_close().unwrap();
}

/// Ends strace(1) and what it traces when it is dropped.
struct Traced {
    strace: std::process::Child,
    server: Option<Pid>,
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.strace.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.server.map(|server| kill_process(server, Signal::KILL));
            let _ = self.strace.kill();
            let _ = self.strace.wait();
        }
    }
}

fn with_each_class(fault: &str) {
    for (helper, _) in HELPERS {
        with_one(helper, fault);
    }
}

fn with_one(helper: &str, fault: &str) {
    if Command::new("strace").arg("-V").output().is_err() {
        let required = std::env::var_os("SOCK_REQUIRE_PEERS").is_some_and(|value| value == "1");
        assert!(!required, "SOCK_REQUIRE_PEERS=1 is set, but strace is not on PATH");
        println!("NOT RUN: strace is not on PATH");
        return;
    }
    let call = fault.split(':').next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", &format!("trace={call}"), "-e", &format!("inject={fault}"), "-o"]);
    strace.arg(&trace).arg(std::env::current_exe().unwrap()).args(["--alone", helper]);
    let strace = strace.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut traced = Traced { strace, server: None };
    let mut line = String::new();
    io::BufReader::new(traced.strace.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (server, address) = line.trim().split_once(' ').expect("the server has begun");
    let server = Pid::from_raw(server.parse().unwrap()).unwrap();
    traced.server = Some(server);
    let address = address.parse::<std::net::SocketAddr>().unwrap();
    let ask = || {
        let client = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
        client.settimeout(LIMIT).unwrap();
        client.connect(sock::Address::from(address)).unwrap_or_else(|error| panic!("{helper}: {error}"));
        client.sendall(b"\n").unwrap();
        match client.recv(100) {
            Ok(answer) => answer == b"served",
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{helper}: {error}"),
        }
    };
    let answered = (0..12).filter(|_| ask()).count();
    assert!(answered >= 3, "{helper}: {answered} of 12 were answered");
    kill_process(server, Signal::TERM).unwrap();
    let until = Instant::now() + LIMIT;
    let status = loop {
        match traced.strace.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < until, "{helper}: the signal does not end it"),
        }
        sleep_briefly();
    };
    assert!(status.success(), "{helper}: {status}");
    if call == "sendto" {
        let trace = std::fs::read_to_string(&trace).unwrap();
        assert!(trace.contains("(INJECTED)"), "{helper}: nothing was injected");
    }
}
