//! The promise: a worker process and a forked child read the counters of the whole server, and these
//! never decrease, also when a worker is replaced.

use std::io::{self, BufRead, Write};

use rustix::process::{Signal, getpid, kill_process};
use sock::{Address, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkMixIn, PreforkTCPServer, StreamContext, WorkerClass,
    handler_fn,
};

use crate::Test;
use crate::serve_after_fork::{Parent, single_fork};
use crate::support::{LIMIT, LOOPBACK, connect_to, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("a_prefork_worker_reads_the_counters_of_all_workers", prefork_worker),
    ("counters_do_not_decrease_when_workers_are_replaced", replaced_workers),
    ("a_forked_child_reads_the_counters_of_its_server", forked_child),
    ("bytes_and_durations_are_counted_in_all_processes", traffic),
    ("each_process_reads_the_gauges_of_all_workers_and_listeners", gauges),
    ("requests_of_persistent_connections_are_counted_in_all_processes", requests),
];

/// Two clients send three requests each on one connection, which another process serves.
fn requests() {
    fn count(cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.close_connection = cx.rfile.read_line(&mut String::new())? == 0;
        let requests = cx.server.stats().requests;
        cx.wfile.write_all(format!("{requests}\n").as_bytes())
    }
    fn counts<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let (parent, address) = serve(builder);
        let clients = [connect_to(&address), connect_to(&address)];
        for request in 0..6 {
            let (client, mut answer) = (&clients[request % 2], String::new());
            client.sendall(b"?\n").unwrap();
            client.makefile_rb().read_line(&mut answer).unwrap();
            // The one before may not be counted yet.
            assert!(answer.trim_end().parse::<usize>().unwrap() <= request, "{request}: {answer}");
        }
        wait_until("all requests are counted", || {
            let mut answer = String::new();
            clients[0].sendall(b"?\n").unwrap();
            clients[0].makefile_rb().read_line(&mut answer).unwrap();
            answer.trim_end().parse::<usize>().unwrap() >= 6
        });
        drop(clients);
        kill_process(parent.pid, Signal::TERM).unwrap();
        assert_eq!(parent.control.recv(1).unwrap(), b"");
    }
    counts(ForkingTCPServer::builder(handler_fn(count)));
    counts(PreforkTCPServer::builder(handler_fn(count)).workers(2).worker_class(crate::worker_class()));
}

/// The bytes and durations of six requests, which two processes serve, and of the last one, which
/// reads them.
fn traffic() {
    fn report(cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.close_connection = cx.rfile.read_line(&mut String::new())? == 0;
        let stats = cx.server.stats();
        let (received, sent) = (stats.bytes_received, stats.bytes_sent);
        writeln!(cx.wfile, "{received:9} {sent:9} {:9}", stats.request_duration.count())
    }
    fn counts<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let (parent, address) = serve(builder);
        let clients = [connect_to(&address), connect_to(&address)];
        let ask = |request: usize| -> Vec<usize> {
            let mut answer = String::new();
            clients[request % 2].sendall(b"?\n").unwrap();
            clients[request % 2].makefile_rb().read_line(&mut answer).unwrap();
            answer.split_whitespace().map(|number| number.parse().unwrap()).collect()
        };
        (0..6).for_each(|request| drop(ask(request)));
        let mut request = 6;
        wait_until("all requests are counted", || {
            let counted = ask(request);
            request += 1;
            // All but the one that reads the counters.
            let [received, sent, count] = counted[..] else { panic!("{counted:?}") };
            assert!(received <= 2 * request && sent < 30 * request && count < request, "{counted:?}");
            counted == [2 * (request - 1), 30 * (request - 1), request - 1]
        });
        drop(clients);
        stop(&parent);
    }
    counts(ForkingTCPServer::builder(handler_fn(report)));
    counts(PreforkTCPServer::builder(handler_fn(report)).workers(2));
}

/// Two clients are served by two processes. Each process returns what both do.
fn gauges() {
    fn report(cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.close_connection = cx.rfile.read_line(&mut String::new())? == 0;
        let [listener] = &cx.server.listener_stats()[..] else { panic!("one listener is expected") };
        assert_eq!(listener.address, cx.request.getsockname()?);
        assert_eq!(listener.accept_queue.is_some(), cfg!(target_os = "linux"));
        write!(cx.wfile, "{}", std::process::id())?;
        for worker in cx.server.worker_stats() {
            let (pid, in_flight, idle, requests) =
                (worker.pid, worker.in_flight, worker.idle, worker.requests);
            assert!(worker.age < LIMIT);
            write!(cx.wfile, " {pid},{in_flight},{idle},{requests}")?;
        }
        cx.wfile.write_all(b"\n")
    }
    fn counts<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let (parent, address) = serve(builder);
        let clients = [connect_to(&address), connect_to(&address)];
        let ask = |client: &Socket| -> (String, Vec<String>) {
            let mut answer = String::new();
            client.sendall(b"?\n").unwrap();
            client.makefile_rb().read_line(&mut answer).unwrap();
            let mut words = answer.split_whitespace().map(str::to_owned);
            (words.next().unwrap(), words.collect())
        };
        let pids = [ask(&clients[0]).0, ask(&clients[1]).0];
        assert_ne!(pids[0], pids[1]);
        for (own, other) in [(0, 1), (1, 0)] {
            let other_requests = 1 + if own == 0 { 0 } else { 1 };
            let mut own_requests = 1;
            wait_until("the other one waits for its next request", || {
                let (pid, workers) = ask(&clients[own]);
                assert_eq!(pid, pids[own]);
                assert_eq!(workers.len(), 2, "{workers:?}");
                let serves = format!("{pid},1,0,{own_requests}");
                assert!(workers.contains(&serves), "{serves} is not in {workers:?}");
                own_requests += 1;
                let requests = |worker: &String| worker.rsplit(',').next().unwrap().parse::<u64>().unwrap();
                let waits = format!("{},1,1,", pids[other]);
                workers
                    .iter()
                    .any(|worker| worker.starts_with(&waits) && requests(worker) >= other_requests)
            });
        }
        drop(clients);
        stop(&parent);
    }
    counts(ForkingTCPServer::builder(handler_fn(report)));
    counts(PreforkTCPServer::builder(handler_fn(report)).workers(2));
}

/// Answers each line with the counters. `die` kills the process.
fn answer(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    if line == "die\n" {
        kill_process(getpid(), Signal::KILL)?;
    }
    let stats = cx.server.stats();
    assert!(stats.is_consistent(), "{stats:?}");
    cx.close_connection = line != "stay\n";
    let counters = format!("{} {} {} {}\n", stats.accepted, stats.finished, stats.in_flight, stats.idle);
    cx.wfile.write_all(counters.as_bytes())
}

#[derive(Debug, PartialEq)]
struct Counters {
    accepted: u64,
    finished: u64,
    in_flight: u64,
    idle: u64,
}

/// Returns nothing if the worker has ended.
fn ask(client: &Socket, line: &str) -> Option<Counters> {
    client.sendall(line.as_bytes()).unwrap();
    let mut text = String::new();
    let _ = client.makefile_rb().read_line(&mut text);
    let numbers: Vec<u64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [accepted, finished, in_flight, idle] = numbers[..] else { return None };
    Some(Counters { accepted, finished, in_flight, idle })
}

fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>) -> (Parent, Address) {
    let server = builder.drain_on_signals(LIMIT).bind(LOOPBACK).unwrap();
    let address = server.server_address().clone();
    let mut server = Some(server);
    let parent = single_fork(&mut |_| server.take().unwrap().serve_forever().unwrap());
    (parent, address)
}

fn builder(workers: usize) -> Builder<Stream<Inet>, PreforkMixIn> {
    PreforkTCPServer::builder(handler_fn(answer)).workers(workers).worker_class(crate::worker_class())
}

fn stop(parent: &Parent) {
    kill_process(parent.pid, Signal::TERM).unwrap();
    assert_eq!(parent.control.recv(1).unwrap(), b"");
}

fn prefork_worker() {
    let (parent, address) = serve(builder(3));
    let clients = [1, 2, 3].map(|_| connect_to(&address));
    let stays = |client: &Socket| ask(client, "stay\n").unwrap();
    for client in &clients {
        stays(client);
    }
    // The connections of the others are idle.
    let expected = Counters { accepted: 3, finished: 0, in_flight: 3, idle: 2 };
    for client in &clients {
        wait_until("the others are idle", || stays(client) == expected);
    }
    drop(clients);
    let next = connect_to(&address);
    let expected = Counters { accepted: 4, finished: 3, in_flight: 1, idle: 0 };
    wait_until("the others have ended", || stays(&next) == expected);
    drop(next);
    stop(&parent);
}

fn replaced_workers() {
    let (parent, address) = serve(builder(2).max_requests(2, 0));
    let mut before = Counters { accepted: 0, finished: 0, in_flight: 0, idle: 0 };
    for accepted in 1..=60 {
        let line = if accepted % 5 == 0 { "die\n" } else { "last\n" };
        let Some(now) = ask(&connect_to(&address), line) else { continue };
        assert_eq!(now.accepted, accepted);
        assert!(now.finished >= before.finished && now.in_flight >= 1, "{before:?} {now:?}");
        before = now;
    }
    // Twelve workers were killed with their clients. One with several connections may have lost
    // another one that was answered and had not ended yet.
    let most = if crate::worker_class() == WorkerClass::Sync { 12 } else { 24 };
    let mut more = 0;
    wait_until("all requests have ended", || {
        let now = ask(&connect_to(&address), "last\n").unwrap();
        more += 1;
        assert_eq!(now.accepted, 60 + more);
        now.in_flight == 1 && (12..=most).contains(&(now.accepted - 1 - now.finished))
    });
    stop(&parent);
}

/// A child has a copy of its parent's memory at the time of the fork.
fn forked_child() {
    let (parent, address) = serve(ForkingTCPServer::builder(handler_fn(answer)));
    let first = connect_to(&address);
    assert_eq!(ask(&first, "stay\n").unwrap().accepted, 1);
    for accepted in 2..=5 {
        assert_eq!(ask(&connect_to(&address), "last\n").unwrap().accepted, accepted);
    }
    wait_until("the other children have ended", || {
        let now = ask(&first, "stay\n").unwrap();
        assert_eq!(now.accepted, 5);
        now.finished == 4 && now.in_flight == 1
    });
    drop(first);
    stop(&parent);
}
