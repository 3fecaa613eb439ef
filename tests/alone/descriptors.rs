//! The promise: out of descriptors, a server refuses a connection whose `wrap_request` it could
//! not end, and is back when there are descriptors again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sock::{AF_INET, SOCK_STREAM, Socket, StreamSocket};
use sockserver::{
    Builder, Inet, MixIn, SelectorTCPServer, ServerHooks, Stream, TCPServer, ThreadPoolTCPServer,
    ThreadingTCPServer, WhenQueueFull, handler_fn, testing,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, client_of, moment, until, until_stats};

pub(crate) const TESTS: &[Test] = &[
    ("wrap_request_without_descriptors_in_the_loop", || {
        is_refused_or_watched(TCPServer::builder(handler_fn(|_| Ok(()))));
    }),
    ("wrap_request_without_descriptors_in_threads", || {
        is_refused_or_watched(ThreadingTCPServer::builder(handler_fn(|_| Ok(()))));
    }),
    ("wrap_request_without_descriptors_in_a_pool", || {
        is_refused_or_watched(ThreadPoolTCPServer::builder(handler_fn(|_| Ok(()))).workers(2));
    }),
    ("wrap_request_without_descriptors_in_a_selector", || {
        is_refused_or_watched(SelectorTCPServer::builder(handler_fn(|_| Ok(()))).workers(2));
    }),
    ("wrap_request_does_not_begin_after_the_end_of_a_drain", does_not_begin_after_the_end_of_a_drain),
];

/// A handshake that goes on for as long as the client sends.
struct Handshake;

impl ServerHooks for Handshake {
    fn wrap_request(&self, request: Socket) -> io::Result<Box<dyn StreamSocket>> {
        while !request.recv(1)?.is_empty() {}
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn is_refused_or_watched<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let wrap_timeout = Duration::from_millis(300);
    let server =
        testing::serve(builder.hooks(Handshake).wrap_timeout(wrap_timeout).bind(LOOPBACK).unwrap());
    let clients = [(); 3].map(|()| {
        let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        client.settimeout(LIMIT).unwrap();
        client
    });
    // The first starts what threads there are, and is ended at its deadline.
    let took = time_until_closed(&clients[0], &server);
    assert!(took >= wrap_timeout / 2, "{took:?}");
    until_stats(server.handle(), |stats| stats.timed_out.wrap == 1);

    // The second finds a descriptor to be accepted by, and none to be watched by.
    let mut taken = take_all_descriptors();
    drop(taken.pop());
    let took = time_until_closed(&clients[1], &server);
    assert!(took < wrap_timeout / 2, "refused at once, not after {took:?}");
    let stats = until_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.rejected, stats.timed_out.wrap), (1, 1), "{stats:?}");

    drop(taken);
    time_until_closed(&clients[2], &server);
    let stats = until_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.rejected, stats.timed_out.wrap), (1, 2), "{stats:?}");
}

/// A connection that a drain cuts off while it is queued is not wrapped when its worker comes
/// to it: nothing would end that.
fn does_not_begin_after_the_end_of_a_drain() {
    let wrapped = Arc::new(AtomicUsize::new(0));
    let builder = ThreadPoolTCPServer::builder(handler_fn(|_| Ok(())));
    let builder = builder.workers(1).queue(10, WhenQueueFull::Wait).wrap_timeout(None);
    let server = builder.hooks(Counted(Arc::clone(&wrapped))).bind(LOOPBACK).unwrap();
    let server = testing::serve(server);
    let clients = [(); 3].map(|()| client_of(server.address()));
    until_stats(server.handle(), |stats| stats.in_flight == 3);
    until("the first is wrapped", || wrapped.load(Ordering::Relaxed) == 1);
    let report = server.handle().drain(Duration::ZERO).unwrap();
    assert_eq!(report.cut.len(), 3, "{report:?}");
    let stats = until_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.cut, wrapped.load(Ordering::Relaxed)), (3, 1), "{stats:?}");
    drop(clients);
}

/// [`Handshake`], counted.
struct Counted(Arc<AtomicUsize>);

impl ServerHooks for Counted {
    fn wrap_request(&self, request: Socket) -> io::Result<Box<dyn StreamSocket>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Handshake.wrap_request(request)
    }
}

/// Connects, and sends a byte now and then until the server closes the connection.
#[track_caller]
fn time_until_closed(client: &Socket, server: &testing::Running) -> Duration {
    client.connect(server.address()).unwrap();
    let begin = Instant::now();
    while client.send(b"x").is_ok() {
        let mut byte = [0];
        match client.recv_into_nowait(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
        assert!(begin.elapsed() < LIMIT / 2, "still open");
        moment();
    }
    begin.elapsed()
}

/// Takes every descriptor that this process may have, and leaves none.
fn take_all_descriptors() -> Vec<Socket> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum }).unwrap();
    let socket = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| socket.dup().ok()).collect();
    taken.push(socket);
    taken
}
