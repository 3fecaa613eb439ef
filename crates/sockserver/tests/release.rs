//! The promise: listeners that a server has released are not touched by its drain and its close, and
//! no client of their queues is lost.
#![cfg(unix)]

mod support;

use std::io::Write;
use std::time::Duration;

use sock::{Address, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, MixIn, SelectorTCPServer, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer,
    ThreadingUDPServer, UnixStreamServer, datagram_handler_fn, handler_fn,
};
use support::{LIMIT, LOOPBACK, StopOnDrop, connect_to, read_to_end};

fn builder<M: MixIn + Default>() -> Builder<Stream<Inet>, M> {
    sockserver::Server::<Stream<Inet>, M>::builder(handler_fn(|cx| cx.wfile.write_all(b"old")))
}

/// Accepts as another process would, and answers.
fn accept_as_successor(listener: &Socket) {
    listener.settimeout(LIMIT).unwrap();
    listener.accept().unwrap().0.sendall(b"new").unwrap();
}

fn ask(address: &Address) -> String {
    let client = connect_to(address);
    // A selector calls the handler when it has input.
    client.sendall(b"?").unwrap();
    read_to_end(&client)
}

fn check<M: MixIn + Default>(name: &str) {
    let server = builder::<M>().bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let [duplicate] = &handle.listeners().unwrap()[..] else { panic!("{name}: one listener") };
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(handle.clone());
        let serving = scope.spawn(|| server.serve_forever());
        assert_eq!(ask(&address), "old", "{name}");
        handle.release_listeners().unwrap();
        handle.release_listeners().unwrap();
        let report = handle.drain(LIMIT).unwrap();
        assert!(report.aborted.is_empty(), "{name}: {report:?}");
        serving.join().unwrap().unwrap();
    });
    let queued = connect_to(&address);
    server.server_close().unwrap();
    accept_as_successor(duplicate);
    assert_eq!(read_to_end(&queued), "new", "{name}");
    assert_eq!(handle.stats().accepted, 1, "{name}");
    assert_eq!(handle.listeners().unwrap_err().kind(), std::io::ErrorKind::NotConnected);
}

#[test]
fn a_drain_leaves_released_listeners_to_another_process() {
    check::<sockserver::Sequential>("sequential");
    check::<sockserver::ThreadingMixIn>("threading");
    check::<sockserver::ThreadPoolMixIn>("pool");
    check::<sockserver::SelectorMixIn>("selector");
}

#[test]
fn a_client_in_the_queue_is_left_to_the_successor() {
    let server = TCPServer::new(LOOPBACK, handler_fn(|cx| cx.wfile.write_all(b"old"))).unwrap();
    let address = server.server_address().clone();
    let successor = ThreadingTCPServer::builder(handler_fn(|cx| cx.wfile.write_all(b"new")))
        .adopt(server.handle().listeners().unwrap())
        .unwrap();
    let queued: Vec<_> = (0..20).map(|_| connect_to(&address)).collect();
    server.handle().release_listeners().unwrap();
    let _ = server.drain(Duration::ZERO).unwrap();
    server.server_close().unwrap();
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(successor.handle());
        scope.spawn(|| successor.serve_forever());
        for client in &queued {
            assert_eq!(read_to_end(client), "new");
        }
    });
}

#[test]
fn the_path_of_a_released_unix_listener_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let bind = || UnixStreamServer::new(&*path, handler_fn(|_| Ok(())));
    let server = bind().unwrap();
    let duplicate = server.handle().listeners().unwrap().remove(0);
    server.handle().release_listeners().unwrap();
    let _ = server.drain(LIMIT).unwrap();
    drop(server);
    let client = connect_to(&duplicate.getsockname().unwrap());
    accept_as_successor(&duplicate);
    assert_eq!(read_to_end(&client), "new");
    assert_eq!(bind().unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(duplicate);
    // Now the path is stale, and its next server removes it.
    drop(bind().unwrap());
    assert!(!path.exists());
}

#[test]
fn listeners_cannot_be_released_once_a_drain_has_begun() {
    let server = ThreadPoolTCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
    let _ = server.drain(Duration::ZERO).unwrap();
    let error = server.handle().release_listeners().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    // An adopted listener was never this server's own.
    let adopted = SelectorTCPServer::builder(handler_fn(|_| Ok(())))
        .adopt([sock::create_server(LOOPBACK).unwrap()])
        .unwrap();
    let _ = adopted.drain(Duration::ZERO).unwrap();
    adopted.handle().release_listeners().unwrap();
}

#[test]
fn datagrams_that_were_not_received_are_left_to_the_successor() {
    let server = ThreadingUDPServer::new(LOOPBACK, datagram_handler_fn(|_| Ok(()))).unwrap();
    let address = server.server_address().clone();
    let duplicate = server.handle().listeners().unwrap().remove(0);
    server.handle().release_listeners().unwrap();
    let client = Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0).unwrap();
    client.sendto(b"hello", &address).unwrap();
    let _ = server.drain(Duration::ZERO).unwrap();
    drop(server);
    duplicate.settimeout(LIMIT).unwrap();
    assert_eq!(duplicate.recv(100).unwrap(), b"hello");
}
