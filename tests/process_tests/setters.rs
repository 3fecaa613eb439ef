//! The largest and smallest values that the setters of forking models accept leave a server that
//! serves. `crates/sockserver/tests/setter_ranges.rs` has the other models, and the values that are
//! refused.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sock::{AF_INET, Socket};
use sockserver::kind::{Datagram, Inet};
use sockserver::{Builder, ForkingUDPServer, PreforkMixIn, PreforkUDPServer, datagram_handler_fn};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, datagram_client};

pub(crate) const TESTS: &[Test] = &[
    ("forking_serves_with_the_largest_and_smallest_values", forking_serves_with_extreme_values),
    ("prefork_serves_with_the_largest_and_smallest_values", prefork_serves_with_extreme_values),
];

const LONGEST: Duration = Duration::MAX;

fn client() -> Socket {
    datagram_client(AF_INET)
}

fn forking_serves_with_extreme_values() {
    for children in [0, 1, usize::MAX] {
        let echo = datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet));
        let builder = ForkingUDPServer::builder(echo).max_children(children).close_timeout(LONGEST);
        let server = builder.drain_on_signals(LONGEST).timeout(LONGEST).bind(LOOPBACK).unwrap();
        let client = client();
        for _ in 0..2 {
            client.sendto(b"hello", server.server_address()).unwrap();
            server.handle_request().unwrap();
            assert_eq!(client.recv(100).unwrap(), b"hello");
        }
        assert_eq!(server.drain(LONGEST).unwrap().still_running, 0);
        server.server_close().unwrap();
    }
}

fn prefork_serves_with_extreme_values() {
    const REQUESTS: u64 = u64::MAX / 2;
    prefork_serves(|builder| builder.max_requests(REQUESTS, REQUESTS).workers(1));
    prefork_serves(|builder| builder.max_requests(0, 0).workers(0));
    prefork_serves(|builder| builder.heartbeat(LONGEST).max_connections(usize::MAX));
    prefork_serves(|builder| builder.heartbeat(Duration::from_nanos(1)).max_connections(0));
    prefork_serves(|builder| builder.drain_on_signals(LONGEST).close_timeout(LONGEST));
}

/// Sends a datagram in every turn of the loop until one is answered.
fn prefork_serves(
    set: impl FnOnce(Builder<Datagram<Inet>, PreforkMixIn>) -> Builder<Datagram<Inet>, PreforkMixIn>,
) {
    let (client, began, answered) = (client(), Instant::now(), Arc::new(AtomicBool::new(false)));
    client.setblocking(false).unwrap();
    let (its, done) = (Arc::new(client), Arc::clone(&answered));
    let client = Arc::clone(&its);
    let echo = datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet));
    let builder = PreforkUDPServer::builder(echo).workers(2).poll_interval(Duration::from_millis(3));
    let server = set(builder)
        .service_actions(move |server| {
            // An error means that the server is not connected yet, or that its queue is full.
            let _ = its.send(b"hello");
            if its.recv(100).is_ok_and(|answer| answer == b"hello") {
                done.store(true, Ordering::SeqCst);
            }
            if done.load(Ordering::SeqCst) || began.elapsed() > LIMIT {
                server.request_shutdown().unwrap();
            }
        })
        .bind(LOOPBACK)
        .unwrap();
    client.connect(server.server_address()).unwrap();
    server.serve_forever().unwrap();
    server.server_close().unwrap();
    assert!(answered.load(Ordering::SeqCst), "nothing was answered");
}
