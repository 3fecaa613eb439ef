//! The promise: the processes of a server together log one line of a kind of error per second.

use std::io::{self, BufRead, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sockserver::kind::{Inet, Stream};
use sockserver::{Builder, ForkingTCPServer, MixIn, PreforkTCPServer, StreamContext, handler_fn};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("forked_children_share_the_limits_of_log_lines", || limits_are_shared("failing_forking")),
    ("prefork_workers_share_the_limits_of_log_lines", || limits_are_shared("failing_prefork")),
];

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[
    ("failing_forking", || serve(ForkingTCPServer::builder(handler_fn(fail)))),
    ("failing_prefork", || serve(PreforkTCPServer::builder(handler_fn(fail)).workers(10))),
];

fn fail(cx: &mut StreamContext<'_>) -> io::Result<()> {
    // All clients are connected.
    cx.request.recv(1)?;
    Err(io::Error::other("as planned"))
}

fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let server = builder.drain_on_signals(LIMIT).bind(LOOPBACK).unwrap();
    println!("{}", server.server_address());
    server.serve_forever().unwrap();
}

/// Without a logger the errors are printed to standard error.
fn limits_are_shared(helper: &str) {
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--alone", helper])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    io::BufReader::new(program.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().parse::<std::net::SocketAddr>().unwrap().into();
    let begin = Instant::now();
    for _ in 0..3 {
        let clients: Vec<_> = (0..10).map(|_| connect_to(&address)).collect();
        clients.iter().for_each(|client| client.sendall(b"x").unwrap());
        clients.iter().for_each(|client| assert_eq!(read_to_end(client), ""));
    }
    kill_process(Pid::from_child(&program), Signal::TERM).unwrap();
    let mut text = String::new();
    program.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    let elapsed = begin.elapsed();
    program.wait().unwrap();
    let logged = text.lines().filter(|line| line.contains("as planned")).count();
    let most = elapsed.as_secs() as usize + 1;
    assert!((1..=most).contains(&logged), "{logged} lines in {elapsed:?}: {text}");
    assert!(elapsed < LIMIT + Duration::from_secs(1), "{elapsed:?}");
}
