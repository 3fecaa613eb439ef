//! The promise: once `shutdown` has returned, no thread accepts for the server any more; a
//! request that was accepted before is served to its end; a server that is started again has
//! no more threads than before.
#![cfg(unix)]

mod support;

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use sock::{Address, SOCK_DGRAM, Socket};
use sockserver::kind::Inet;
use sockserver::{
    DatagramContext, DatagramRequestHandler, MixIn, Request, SelectorMixIn, Sequential, ServerHandle,
    ServerHooks, StreamContext, StreamServer, ThreadPoolMixIn, ThreadPoolTCPServer, ThreadPoolUDPServer,
    ThreadingMixIn, WhenQueueFull, handler_fn,
};

use support::{Gate, LIMIT, LOOPBACK, OpenAtEnd, StopAtEnd, client_of, rest_of, until_stats};

/// Answers a line when the gate is open.
fn gated(gate: &Gate) -> impl Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + Sync + 'static {
    let gate = gate.clone();
    move |cx| {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        gate.pass();
        cx.wfile.write_all(line.as_bytes())
    }
}

fn asking(address: &Address) -> Socket {
    let client = client_of(address);
    client.sendall(b"a line\n").unwrap();
    client
}

/// A client that comes after the stop, while a worker serves one that came before it.
#[track_caller]
fn no_client_is_accepted_after_the_stop<M: MixIn + Default>(mixin: M, serves_elsewhere: bool) {
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let server =
        StreamServer::<Inet, _>::builder(handler_fn(gated(&gate))).mixin(mixin).bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let (first, late) = thread::scope(|scope| {
        let _stop = StopAtEnd(handle.clone());
        let serving = scope.spawn(|| server.serve_forever());
        let first = asking(&address);
        gate.wait_for(1);
        if !serves_elsewhere {
            gate.open();
        }
        handle.shutdown().unwrap();
        serving.join().unwrap().unwrap();
        (first, asking(&address))
    });
    gate.open();
    assert_eq!(rest_of(&first), "a line\n", "who was accepted is served");
    server.server_close().unwrap();
    assert!(["", "ConnectionReset"].contains(&&*rest_of(&late)), "who was not is not");
    assert_eq!(handle.stats().accepted, 1);
    assert!(sock::create_connection(("127.0.0.1", address.port().unwrap())).is_err(), "the port is closed");
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

/// Answers a datagram when the gate is open.
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
        let _open = OpenAtEnd(gate.clone());
        let datagrams = gate.clone();
        let mut builder = ThreadPoolUDPServer::builder(move || Datagrams(datagrams.clone())).workers(1);
        if queued {
            builder = builder.queue(1, WhenQueueFull::Wait);
        }
        let server = builder.bind(LOOPBACK).unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        let client = Socket::new(address.family(), SOCK_DGRAM, 0).unwrap();
        client.settimeout(LIMIT).unwrap();
        client.connect(&address).unwrap();
        thread::scope(|scope| {
            let _stop = StopAtEnd(handle.clone());
            let serving = scope.spawn(|| server.serve_forever());
            client.sendall(b"before").unwrap();
            gate.wait_for(1);
            handle.shutdown().unwrap();
            serving.join().unwrap().unwrap();
        });
        client.sendall(b"after").unwrap();
        gate.open();
        server.server_close().unwrap();
        assert_eq!(client.recv(100).unwrap(), b"before", "what was received is served");
        assert_eq!(handle.stats().accepted, 1, "queue: {queued}");
        // The answer would be here: the server is closed.
        client.setblocking(false).unwrap();
        assert!(client.recv(100).is_err());
    }
}

#[test]
fn a_pool_that_is_started_again_has_no_more_workers() {
    for queued in [false, true] {
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let mut builder = ThreadPoolTCPServer::builder(handler_fn(gated(&gate))).workers(2);
        if queued {
            builder = builder.queue(8, WhenQueueFull::Wait);
        }
        let server = builder.bind(LOOPBACK).unwrap();
        let (handle, address) = (server.handle(), server.server_address().clone());
        let mut clients = Vec::new();
        for round in 1..=4 {
            thread::scope(|scope| {
                let _stop = StopAtEnd(handle.clone());
                let serving = scope.spawn(|| server.serve_forever());
                clients.push(asking(&address));
                // The first two take both workers, over all loops.
                gate.wait_for(round.min(2));
                if queued {
                    until_stats(&handle, |stats| stats.accepted == round as u64);
                }
                // It does nothing before the loop has begun, of which nothing is seen here.
                support::until("the stop", || {
                    handle.shutdown().unwrap();
                    serving.is_finished()
                });
                serving.join().unwrap().unwrap();
            });
        }
        gate.open();
        thread::scope(|scope| {
            let _stop = StopAtEnd(handle.clone());
            let serving = scope.spawn(|| server.serve_forever());
            for client in &clients {
                assert_eq!(rest_of(client), "a line\n");
            }
            // Threads that are left from the loops before may have answered all clients before
            // this loop begins, and a stop has no effect before that.
            support::until("the stop", || {
                handle.shutdown().unwrap();
                serving.is_finished()
            });
            serving.join().unwrap().unwrap();
        });
        server.server_close().unwrap();
        assert_eq!(gate.most(), 2, "queue: {queued}");
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
            let _stop = StopAtEnd(handle.clone());
            let before = handle.stats().accepted;
            let serving = scope.spawn(|| server.serve_forever());
            until_stats(&handle, |stats| stats.accepted > before);
            handle.shutdown().unwrap();
            serving.join().unwrap().unwrap();
            handle.stats().accepted
        });
        // Clients go on knocking.
        support::moment();
        assert_eq!(handle.stats().accepted, accepted, "nobody is accepted after the stop");
    }
    server.server_close().unwrap();
    let at_the_end = answered.load(Ordering::SeqCst);
    over.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(handle.stats().is_consistent());
    // What was sent before the close may be read after it.
    assert!(answered.load(Ordering::SeqCst) <= at_the_end + 8);
}

/// Stops the server, and waits, where a request is verified.
struct StopsInVerify(mpsc::Sender<io::Result<()>>, std::sync::OnceLock<ServerHandle>);

impl ServerHooks for StopsInVerify {
    fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
        let _ = request;
        let _ = self.1.get().map(|handle| self.0.send(handle.shutdown()));
        true
    }
}

#[test]
fn a_hook_that_runs_where_requests_are_accepted_cannot_wait_for_the_stop() {
    fn refused<M: MixIn + Default>(mixin: M) {
        let (told, hear) = mpsc::channel();
        let hooks = Arc::new(StopsInVerify(told, std::sync::OnceLock::new()));
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
        let client = client_of(server.server_address());
        let (ended, end) = mpsc::channel();
        thread::spawn(move || ended.send(server.serve_forever().and_then(|()| server.server_close())));
        assert_eq!(hear.recv_timeout(LIMIT).unwrap().unwrap_err().kind(), io::ErrorKind::Deadlock);
        end.recv_timeout(LIMIT).expect("it stops").unwrap();
        assert_eq!(rest_of(&client), "served");
    }
    refused(Sequential);
    refused(ThreadingMixIn::new());
    refused(ThreadPoolMixIn::new().workers(2));
    refused(ThreadPoolMixIn::new().workers(2).queue(2, WhenQueueFull::Wait));
    refused(SelectorMixIn::new().workers(2));
}
