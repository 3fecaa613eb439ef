//! A relay with TLS on one side or on both.

mod support;

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::thread;

use sock::selectors::{DefaultSelector, EVENT_WRITE};
use sock::{
    POLLOUT, Poll, Relay, RelayCounts, RelayDirection, RelayError, SHUT_WR, SO_SNDBUF, SOL_SOCKET, Socket,
    StreamSocket, relay,
};
use sockssl::{Reason, SSLError, SSLSocket, TLSVersion};
use std::time::Duration;
use support::{LIMIT, Pki, connection, join, wrapped};

const AMOUNT: usize = 5_000_003;

fn data() -> Vec<u8> {
    (0..AMOUNT as u32).map(|n| (n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn pair(pki: &Pki, version: TLSVersion) -> (SSLSocket, SSLSocket) {
    let client = pki.client();
    client.set_maximum_version(version);
    wrapped(&pki.server(), &client)
}

fn recv_all(stream: &dyn StreamSocket) -> Vec<u8> {
    let mut all = Vec::new();
    sock::SocketReader::new(stream, 65536).read_to_end(&mut all).unwrap();
    all
}

/// Sends and ends from both sides at once, and compares what arrives.
fn exchange(one: &dyn StreamSocket, other: &dyn StreamSocket) {
    let data = data();
    let send = |stream: &dyn StreamSocket| {
        stream.sendall(&data).unwrap();
        stream.shutdown(SHUT_WR).unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| send(one));
        scope.spawn(|| send(other));
        scope.spawn(|| assert!(recv_all(one) == data, "other bytes"));
        assert!(recv_all(other) == data, "other bytes");
    });
}

#[test]
fn tls_is_relayed_to_plain_and_to_tls() {
    let pki = Pki::new();
    let both = RelayCounts { a_to_b: AMOUNT as u64, b_to_a: AMOUNT as u64 };
    for version in [TLSVersion::TLSv1_2, TLSVersion::TLSv1_3] {
        let (front, client) = pair(&pki, version);
        let (back, server) = connection();
        let relaying = thread::spawn(move || relay(&front, &back));
        exchange(&client, &server);
        assert_eq!(join(relaying).unwrap(), both);

        let (front, client) = pair(&pki, version);
        let (server, back) = pair(&pki, version);
        let relaying = thread::spawn(move || relay(&front, &back));
        exchange(&client, &server);
        assert_eq!(join(relaying).unwrap(), both);
    }
}

/// One wakeup may bring several records, of which the system knows nothing.
#[test]
fn a_selector_relays_tls() {
    let pki = Pki::new();
    for version in [TLSVersion::TLSv1_2, TLSVersion::TLSv1_3] {
        let (front, client) = pair(&pki, version);
        let (back, server) = connection();
        front.socket().setblocking(false).unwrap();
        back.setblocking(false).unwrap();
        let (a, b): (Arc<dyn StreamSocket>, Arc<dyn StreamSocket>) = (Arc::new(front), Arc::new(back));
        let relaying = thread::spawn(move || {
            let sel = DefaultSelector::new().unwrap();
            let mut relay = Relay::new();
            loop {
                if let Some(counts) = relay.advance(&*a, &*b).unwrap() {
                    return counts;
                }
                relay.register(&sel, &a, &b, &()).unwrap();
                let timeout = relay.timeout().unwrap_or(LIMIT);
                assert!(
                    !sel.select(timeout).unwrap().is_empty() || timeout < LIMIT,
                    "it waits for nothing"
                );
            }
        });
        exchange(&client, &server);
        assert_eq!(join(relaying), RelayCounts { a_to_b: AMOUNT as u64, b_to_a: AMOUNT as u64 });
    }
}

/// The last record finds no room in the send buffer of the side with TLS. Nothing else comes, so it is
/// sent when the reader makes room.
#[test]
fn the_last_record_reaches_a_slow_reader() {
    let pki = Pki::new();
    let (front, client) = pair(&pki, TLSVersion::TLSv1_3);
    let (back, server) = connection();
    front.socket().setblocking(false).unwrap();
    back.setblocking(false).unwrap();
    server.setblocking(false).unwrap();
    let (data, mut sent) = (data(), 0);
    let mut relay = Relay::new();
    front.socket().setsockopt(SOL_SOCKET, SO_SNDBUF, 4096).unwrap();
    // Until there is no room for the last of what the relay was given, all of which is encrypted, and
    // none is made by acknowledgements, because the client's buffer is full too.
    let has_room = || {
        sock::poll(&mut [Poll::new(front.socket(), POLLOUT)], Some(Duration::from_millis(300))).unwrap() > 0
    };
    while relay.interest().0 & EVENT_WRITE == 0 || has_room() {
        let at = sent % data.len();
        sent += server.send(&data[at..at + 50_000.min(data.len() - at)]).unwrap();
        while relay.counts().b_to_a < sent as u64 {
            assert_eq!(relay.advance(&front, &back).unwrap(), None);
        }
    }
    let reading = thread::spawn(move || {
        let mut all = vec![0; sent];
        client.makefile_rb().read_exact(&mut all).unwrap();
        (client, all)
    });
    while !reading.is_finished() {
        assert_eq!(relay.advance(&front, &back).unwrap(), None);
    }
    let (client, all) = join(reading);
    assert!(all.chunks(data.len()).all(|chunk| chunk == &data[..chunk.len()]), "other bytes");
    client.shutdown(SHUT_WR).unwrap();
    server.shutdown(SHUT_WR).unwrap();
    let counts = loop {
        if let Some(counts) = relay.advance(&front, &back).unwrap() {
            break counts;
        }
    };
    assert_eq!(counts, RelayCounts { a_to_b: 0, b_to_a: sent as u64 });
}

#[test]
fn a_connection_that_is_cut_is_no_end() {
    let pki = Pki::new();
    let (front, client) = pair(&pki, TLSVersion::TLSv1_3);
    let (back, server): (Socket, Socket) = connection();
    let relaying = thread::spawn(move || relay(&front, &back).map(|_| ()));
    client.sendall(b"half").unwrap();
    assert_eq!(server.recv(100).unwrap(), b"half");
    client.socket().shutdown(SHUT_WR).unwrap();
    let error = join(relaying).unwrap_err();
    let relay_error = RelayError::of(&error).unwrap();
    assert_eq!(relay_error.direction(), Some(RelayDirection::AToB));
    assert_eq!(relay_error.counts(), RelayCounts { a_to_b: 4, b_to_a: 0 });
    assert_ne!(error.kind(), ErrorKind::TimedOut);
    let cause = std::error::Error::source(error.get_ref().unwrap()).unwrap();
    let cause = cause.downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(SSLError::of(cause).unwrap().reason(), Reason::UnexpectedEof);
}
