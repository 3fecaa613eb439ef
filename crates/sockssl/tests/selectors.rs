//! What a selector reports of TLS connections.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use sock::StreamSocket;
use sock::selectors::{DefaultSelector, EVENT_READ};
use sockssl::{SSLSocket, TLSVersion};
use support::{LIMIT, Pki, join, wrapped};

/// Two connected sockets in the newest version, and in TLS 1.2.
fn pairs(pki: &Pki) -> Vec<(SSLSocket, SSLSocket)> {
    let versions = [TLSVersion::TLSv1_2, TLSVersion::TLSv1_3];
    let pair = |version| {
        let client = pki.client();
        client.set_maximum_version(version);
        wrapped(&pki.server(), &client)
    };
    versions.into_iter().map(pair).collect()
}

#[test]
fn decrypted_input_is_ready_input() {
    let pki = Pki::new();
    for (server, client) in pairs(&pki) {
        server.sendall(b"0123456789").unwrap();
        let sel = DefaultSelector::new().unwrap();
        let key = sel.register(client, EVENT_READ, ()).unwrap();
        assert_eq!(sel.select(LIMIT).unwrap().len(), 1);
        assert_eq!(key.fileobj.recv(4).unwrap(), b"0123");
        assert_eq!(key.fileobj.socket().recv_queue().unwrap(), 0, "the socket has none");
        assert_eq!(sel.select(LIMIT).unwrap(), [(key.clone(), EVENT_READ)]);
        assert_eq!(key.fileobj.recv(100).unwrap(), b"456789");
        assert!(sel.select(0).unwrap().is_empty());
    }
}

/// Several records come with one receive.
#[test]
fn a_record_that_was_received_with_another_is_ready_input() {
    let pki = Pki::new();
    for (server, client) in pairs(&pki) {
        let sel = DefaultSelector::new().unwrap();
        let key = sel.register(Box::new(client) as Box<dyn StreamSocket>, EVENT_READ, ()).unwrap();
        server.sendall(b"one").unwrap();
        server.sendall(b"two").unwrap();
        for expected in [b"one", b"two"] {
            assert_eq!(sel.select(LIMIT).unwrap().len(), 1);
            assert_eq!(key.fileobj.recv(100).unwrap(), expected);
        }
        assert!(sel.select(0).unwrap().is_empty());
    }
}

/// The peer's close_notify comes with its last record, and no end of the TCP connection behind it.
#[test]
fn an_end_that_was_received_with_the_last_record_is_ready_input() {
    let pki = Pki::new();
    for (server, client) in pairs(&pki) {
        let sel = DefaultSelector::new().unwrap();
        let key = sel.register(client, EVENT_READ, ()).unwrap();
        server.sendall(b"last").unwrap();
        let queue = || key.fileobj.socket().recv_queue().unwrap();
        // When all was acknowledged, all of the record is in the queue.
        let begin = Instant::now();
        while server.socket().send_queue().unwrap() > 0 {
            assert!(begin.elapsed() < LIMIT);
            thread::yield_now();
        }
        let before = queue();
        let unwrapping = thread::spawn(move || server.unwrap_tls().map(drop));
        while queue() == before {
            assert!(begin.elapsed() < LIMIT);
            thread::yield_now();
        }
        assert_eq!(key.fileobj.recv(100).unwrap(), b"last");
        assert_eq!(queue(), 0, "the socket has no more");
        let begin = Instant::now();
        assert_eq!(sel.select(LIMIT).unwrap().len(), 1);
        assert!(begin.elapsed() < LIMIT - Duration::from_secs(1));
        assert_eq!(key.fileobj.recv(100).unwrap(), b"");
        sel.unregister(&key).unwrap();
        drop(sel);
        std::sync::Arc::into_inner(key.fileobj).unwrap().unwrap_tls().unwrap();
        join(unwrapping).unwrap();
    }
}
