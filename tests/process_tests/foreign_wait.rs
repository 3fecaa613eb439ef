//! The promise: a program that reaps all children itself changes neither the outcomes of requests nor
//! how soon a worker is replaced.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitOptions, kill_process, wait};
use sockserver::kind::{Inet, Stream};
use sockserver::{Builder, ForkingTCPServer, MixIn, PreforkTCPServer, ServerHandle, handler_fn};

use crate::Test;
use crate::serve_after_fork::single_fork;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("children_that_the_program_reaps_are_counted_by_their_outcome", forked_children),
    ("a_worker_that_the_program_reaps_is_replaced_at_once", prefork_workers),
];

const CLIENTS: u64 = 15;

/// Serves clients in a child, whose hook waits for any child to exit. Returns the time and the number of
/// requests that have finished and that have failed.
fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>) -> (Duration, String) {
    let reap = |server: &ServerHandle| {
        let stats = server.stats();
        if stats.in_flight > 0 || (1..CLIENTS).contains(&stats.accepted) {
            let _ = wait(WaitOptions::empty());
        }
    };
    let builder = builder.service_actions(reap).poll_interval(Duration::from_millis(1));
    let server = builder.drain_on_signals(LIMIT).bind(LOOPBACK).unwrap();
    let address = server.server_address().clone();
    let mut server = Some(server);
    let parent = single_fork(&mut |control| {
        let server = server.take().unwrap();
        server.serve_forever().unwrap();
        let stats = server.stats();
        control.sendall(format!("{} {}", stats.finished, stats.failed).as_bytes()).unwrap();
    });
    let begin = Instant::now();
    for _ in 0..CLIENTS {
        assert_eq!(read_to_end(&connect_to(&address)), "served");
    }
    let elapsed = begin.elapsed();
    kill_process(parent.pid, Signal::TERM).unwrap();
    (elapsed, read_to_end(&parent.control))
}

fn forked_children() {
    let handler = handler_fn(|cx| cx.wfile.write_all(b"served"));
    let (_, counters) = serve(ForkingTCPServer::builder(handler));
    assert_eq!(counters, format!("{CLIENTS} 0"));
}

/// The pauses after fifteen failures would be nine seconds.
fn prefork_workers() {
    let handler = handler_fn(|cx| cx.wfile.write_all(b"served"));
    let builder = PreforkTCPServer::builder(handler).workers(1).max_requests(1, 0);
    let (elapsed, counters) = serve(builder);
    assert_eq!(counters, format!("{CLIENTS} 0"));
    assert!(elapsed < Duration::from_secs(9), "{elapsed:?}");
}
