//! The promise: once `shutdown` has returned, no thread accepts for the server. A request that was
//! accepted before is served to its end. A server that is started again has no more threads than
//! before.
#![cfg(unix)]

mod support;

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use sock::{Address, Socket};
use sockserver::kind::Inet;
use sockserver::{
    DatagramContext, DatagramRequestHandler, MixIn, Request, SelectorMixIn, Sequential, ServerHandle,
    ServerHooks, StreamContext, StreamServer, ThreadPoolMixIn, ThreadPoolTCPServer, ThreadPoolUDPServer,
    ThreadingMixIn, WhenQueueFull, handler_fn,
};

use support::{
    Gate, LIMIT, LOOPBACK, OpenOnDrop, StopOnDrop, connect_to, datagram_client, read_to_end, wait_for_stats,
};

/// Echoes a line once the gate is open.
fn gated(gate: &Gate) -> impl Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + Sync + 'static {
    let gate = gate.clone();
    move |cx| {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        gate.pass();
        cx.wfile.write_all(line.as_bytes())
    }
}

fn client_that_asks(address: &Address) -> Socket {
    let client = connect_to(address);
    client.sendall(b"a line\n").unwrap();
    client
}

/// Connects a client after the stop, while a worker serves one that connected before.
#[track_caller]
fn no_client_is_accepted_after_the_stop<M: MixIn + Default>(mixin: M, serves_elsewhere: bool) {
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let server =
        StreamServer::<Inet, _>::builder(handler_fn(gated(&gate))).mixin(mixin).bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let (first, late) = thread::scope(|scope| {
        let _stop = StopOnDrop(handle.clone());
        let serving = scope.spawn(|| server.serve_forever());
        let first = client_that_asks(&address);
        gate.wait_for(1);
        if !serves_elsewhere {
            gate.open();
        }
        handle.shutdown().unwrap();
        serving.join().unwrap().unwrap();
        (first, client_that_asks(&address))
    });
    gate.open();
    assert_eq!(read_to_end(&first), "a line\n", "an accepted client was not served");
    server.server_close().unwrap();
    assert!(
        ["", "ConnectionReset"].contains(&&*read_to_end(&late)),
        "a client was accepted after the stop"
    );
    assert_eq!(handle.stats().accepted, 1);
    assert!(
        sock::create_connection(("127.0.0.1", address.port().unwrap())).is_err(),
        "the port is still open"
    );
}

#[test]
fn no_pool_accepts_after_the_stop() {
    for workers in [1, 4] {
        no_client_is_accepted_after_the_stop(ThreadPoolMixIn::new().workers(workers), true);
    }
}

#[test]
fn no_pool_with_a_queue_accepts_after_the_stop() {
    let pool = ThreadPoolMixIn::new().workers(2).queue(4, WhenQueueFull::Wait);
    no_client_is_accepted_after_the_stop(pool, true);
}

#[test]
fn no_other_model_accepts_after_the_stop() {
    no_client_is_accepted_after_the_stop(Sequential, false);
    no_client_is_accepted_after_the_stop(ThreadingMixIn::new(), true);
    for workers in [1, 4] {
        no_client_is_accepted_after_the_stop(SelectorMixIn::new().workers(workers), true);
    }
}

/// Echoes a datagram once the gate is open.
struct Datagrams(Gate);

impl DatagramRequestHandler for Datagrams {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        self.0.pass();
        cx.wfile.write_all(cx.packet)
    }
}

#[test]
fn no_pool_receives_datagrams_after_the_stop() {
    for queued in [false, true] {
        let gate = Gate::new();
        let _open = OpenOnDrop(gate.clone());
        let datagrams = gate.clone();
        let mut builder = ThreadPoolUDPServer::builder(move || Datagrams(datagrams.clone())).workers(1);
        if queued {
            builder = builder.queue(1, WhenQueueFull::Wait);
        }
        let server = builder.bind(LOOPBACK).unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        let client = datagram_client(address.family());
        client.connect(&address).unwrap();
        thread::scope(|scope| {
            let _stop = StopOnDrop(handle.clone());
            let serving = scope.spawn(|| server.serve_forever());
            client.sendall(b"before").unwrap();
            gate.wait_for(1);
            handle.shutdown().unwrap();
            serving.join().unwrap().unwrap();
        });
        client.sendall(b"after").unwrap();
        gate.open();
        server.server_close().unwrap();
        assert_eq!(client.recv(100).unwrap(), b"before", "a received datagram was not served");
        assert_eq!(handle.stats().accepted, 1, "queue: {queued}");
        // The server is closed, so a wrong answer would have arrived.
        client.setblocking(false).unwrap();
        assert!(client.recv(100).is_err());
    }
}

#[test]
fn a_restarted_pool_has_no_more_workers() {
    for queued in [false, true] {
        let gate = Gate::new();
        let _open = OpenOnDrop(gate.clone());
        let mut builder = ThreadPoolTCPServer::builder(handler_fn(gated(&gate))).workers(2);
        if queued {
            builder = builder.queue(8, WhenQueueFull::Wait);
        }
        let server = builder.bind(LOOPBACK).unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        let mut clients = Vec::new();
        for round in 1..=4 {
            thread::scope(|scope| {
                let _stop = StopOnDrop(handle.clone());
                let serving = scope.spawn(|| server.serve_forever());
                clients.push(client_that_asks(&address));
                // The first two clients occupy both workers in all loops.
                gate.wait_for(round.min(2));
                if queued {
                    wait_for_stats(&handle, |stats| stats.accepted == round as u64);
                }
                // A stop before the loop has begun has no effect, so it is repeated.
                support::wait_until("the stop", || {
                    handle.shutdown().unwrap();
                    serving.is_finished()
                });
                serving.join().unwrap().unwrap();
            });
        }
        gate.open();
        thread::scope(|scope| {
            let _stop = StopOnDrop(handle.clone());
            let serving = scope.spawn(|| server.serve_forever());
            for client in &clients {
                assert_eq!(read_to_end(client), "a line\n");
            }
            // Threads of earlier loops may have answered all clients before this loop begins, and
            // a stop before that has no effect.
            support::wait_until("the stop", || {
                handle.shutdown().unwrap();
                serving.is_finished()
            });
            serving.join().unwrap().unwrap();
        });
        server.server_close().unwrap();
        assert_eq!(gate.max(), 2, "queue: {queued}");
    }
}

#[test]
fn a_pool_is_stopped_and_started_again_under_load() {
    const ROUNDS: usize = 100;
    let answered = Arc::new(AtomicU64::new(0));
    let handler = handler_fn(|cx: &mut StreamContext<'_>| {
        let mut line = String::new();
        while cx.rfile.read_line(&mut line)? > 0 {
            cx.wfile.write_all(line.as_bytes())?;
            line.clear();
        }
        Ok(())
    });
    let server = ThreadPoolTCPServer::builder(handler).workers(4).bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (over, answered, address) = (Arc::clone(&over), Arc::clone(&answered), address.clone());
            thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let Ok(client) = sock::create_connection(("127.0.0.1", address.port().unwrap())) else {
                        return;
                    };
                    client.settimeout(LIMIT).unwrap();
                    let asked = client.sendall(b"a line\n").and_then(|()| client.recv(100));
                    if asked.is_ok_and(|answer| answer == b"a line\n") {
                        answered.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    for _ in 0..ROUNDS {
        let accepted = thread::scope(|scope| {
            let _stop = StopOnDrop(handle.clone());
            let before = handle.stats().accepted;
            let serving = scope.spawn(|| server.serve_forever());
            wait_for_stats(&handle, |stats| stats.accepted > before);
            handle.shutdown().unwrap();
            serving.join().unwrap().unwrap();
            handle.stats().accepted
        });
        // Clients keep connecting.
        support::sleep_briefly();
        assert_eq!(handle.stats().accepted, accepted, "a client was accepted after the stop");
    }
    server.server_close().unwrap();
    let at_the_end = answered.load(Ordering::SeqCst);
    over.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(handle.stats().is_consistent());
    // Data that was sent before the close may be received after it.
    assert!(answered.load(Ordering::SeqCst) <= at_the_end + 8);
}

/// Calls `shutdown` in `verify_request`.
struct StopsInVerify(mpsc::Sender<io::Result<()>>, std::sync::OnceLock<ServerHandle>);

impl ServerHooks for StopsInVerify {
    fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
        let _ = request;
        let _ = self.1.get().map(|handle| self.0.send(handle.shutdown()));
        true
    }
}

#[test]
fn shutdown_in_a_hook_that_runs_while_accepting_is_a_deadlock_error() {
    fn refused<M: MixIn + Default>(mixin: M) {
        let (sender, receiver) = mpsc::channel();
        let hooks = Arc::new(StopsInVerify(sender, std::sync::OnceLock::new()));
        struct Shared(Arc<StopsInVerify>);
        impl ServerHooks for Shared {
            fn verify_request(&self, request: &Request, client_address: &Address) -> bool {
                self.0.verify_request(request, client_address)
            }
        }
        let server = StreamServer::<Inet, _>::builder(handler_fn(|cx| cx.wfile.write_all(b"served")))
            .hooks(Shared(Arc::clone(&hooks)))
            .mixin(mixin)
            .bind(LOOPBACK)
            .unwrap();
        let _ = hooks.1.set(server.handle());
        let client = connect_to(server.server_address());
        let (ended, end) = mpsc::channel();
        thread::spawn(move || ended.send(server.serve_forever().and_then(|()| server.server_close())));
        assert_eq!(receiver.recv_timeout(LIMIT).unwrap().unwrap_err().kind(), io::ErrorKind::Deadlock);
        end.recv_timeout(LIMIT).expect("it stops").unwrap();
        assert_eq!(read_to_end(&client), "served");
    }
    refused(Sequential);
    refused(ThreadingMixIn::new());
    refused(ThreadPoolMixIn::new().workers(2));
    refused(ThreadPoolMixIn::new().workers(2).queue(2, WhenQueueFull::Wait));
    refused(SelectorMixIn::new().workers(2));
}
