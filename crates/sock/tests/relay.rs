//! The promise: a relay passes on every byte and every end, in both directions, within its limits and
//! with bounded memory.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sock::selectors::{DefaultSelector, EVENT_READ, EVENT_WRITE};
use sock::{
    ArgumentError, Linger, Relay, RelayCounts, RelayDirection, RelayError, RelayOptions, SHUT_WR, Shutdown,
    Socket, StreamSocket, create_server, relay, relay_with, socketpair, was_cancelled,
};

/// No wait of a test is longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Two connected sockets over loopback TCP.
fn tcp_pair() -> (Socket, Socket) {
    let listener = create_server(("127.0.0.1", 0)).unwrap();
    let client = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    client.connect(listener.getsockname().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    for sock in [&client, &accepted] {
        sock.settimeout(LIMIT).unwrap();
    }
    (client, accepted)
}

/// A client and a server, and between them the two ends of a relay.
struct Line {
    client: Socket,
    front: Socket,
    back: Socket,
    server: Socket,
}

impl Line {
    fn new() -> Line {
        let ((client, front), (back, server)) = (tcp_pair(), tcp_pair());
        Line { client, front, back, server }
    }

    fn nonblocking() -> Line {
        let line = Line::new();
        line.front.setblocking(false).unwrap();
        line.back.setblocking(false).unwrap();
        line
    }
}

fn recv_all(sock: &Socket) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let data = sock.recv(65536).unwrap();
        if data.is_empty() {
            return all;
        }
        all.extend(data);
    }
}

fn reset(sock: Socket) {
    sock.set_linger(Linger { l_onoff: true, l_linger: 0 }).unwrap();
    drop(sock);
}

#[test]
fn either_end_may_come_first() {
    for client_first in [true, false] {
        let Line { client, front, back, server } = Line::new();
        let counts = thread::scope(|scope| {
            let relaying = scope.spawn(|| relay(&front, &back));
            let (first, second) = if client_first { (&client, &server) } else { (&server, &client) };
            first.sendall(b"first").unwrap();
            first.shutdown(SHUT_WR).unwrap();
            assert_eq!(recv_all(second), b"first");
            // The other direction goes on.
            for piece in [&b"sec"[..], b"ond"] {
                second.sendall(piece).unwrap();
                assert_eq!(first.recv(3).unwrap(), piece);
            }
            second.shutdown(SHUT_WR).unwrap();
            assert_eq!(recv_all(first), b"");
            relaying.join().unwrap().unwrap()
        });
        let (a_to_b, b_to_a) = if client_first { (5, 6) } else { (6, 5) };
        assert_eq!(counts, RelayCounts { a_to_b, b_to_a });
        assert_eq!(front.gettimeout(), Some(LIMIT), "the mode is as before");
    }
}

/// The test's data: nothing of it is where another piece of it might be.
fn pattern() -> Vec<u8> {
    (0..1_000_003_u32).map(|n| (n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn send_pattern(sock: &Socket, pattern: &[u8], mut amount: usize) {
    while amount > 0 {
        let piece = &pattern[..amount.min(pattern.len())];
        sock.sendall(piece).unwrap();
        amount -= piece.len();
    }
    sock.shutdown(SHUT_WR).unwrap();
}

/// Receives until the end, and compares.
fn expect_pattern(sock: &Socket, pattern: &[u8], amount: usize) {
    let (mut buffer, mut seen) = (vec![0; 1 << 18], 0);
    loop {
        let received = sock.recv_into(&mut buffer).unwrap();
        if received == 0 {
            break;
        }
        let mut rest = &buffer[..received];
        while !rest.is_empty() {
            let at = seen % pattern.len();
            let (piece, next) = rest.split_at(rest.len().min(pattern.len() - at));
            assert!(piece == &pattern[at..at + piece.len()], "other bytes after {seen}");
            seen += piece.len();
            rest = next;
        }
    }
    assert_eq!(seen, amount);
}

#[test]
fn a_hundred_megabytes_arrive_whole_both_ways() {
    const FORTH: usize = 100_000_000;
    const BACK: usize = 100_000_001;
    let Line { client, front, back, server } = Line::new();
    let pattern = pattern();
    thread::scope(|scope| {
        let relaying = scope.spawn(|| relay(&front, &back));
        scope.spawn(|| send_pattern(&client, &pattern, FORTH));
        scope.spawn(|| send_pattern(&server, &pattern, BACK));
        scope.spawn(|| expect_pattern(&server, &pattern, FORTH));
        expect_pattern(&client, &pattern, BACK);
        let counts = relaying.join().unwrap().unwrap();
        assert_eq!(counts, RelayCounts { a_to_b: FORTH as u64, b_to_a: BACK as u64 });
    });
}

/// The sender is held up by the reader, and the relay holds one buffer in between.
#[test]
fn a_slow_reader_slows_the_sender() {
    const BUFFER: usize = 10_000;
    let line = Line::nonblocking();
    let Line { client, front, back, server } = &line;
    client.setblocking(false).unwrap();
    let mut relay = Relay::with_options(&RelayOptions::new().buffer_size(BUFFER)).unwrap();
    let (pattern, mut sent) = (pattern(), 0);
    // Until the client can send no more: everything in between is full.
    loop {
        let before = (sent, relay.counts());
        let at = sent % pattern.len();
        if let Ok(count) = client.send(&pattern[at..]) {
            sent += count;
        }
        assert_eq!(relay.advance(front, back).unwrap(), None);
        if before == (sent, relay.counts()) && relay.interest().1 & EVENT_WRITE != 0 {
            break;
        }
    }
    let relayed = relay.counts().a_to_b as usize;
    let queued = client.send_queue().unwrap() + front.recv_queue().unwrap();
    assert!(sent - relayed - queued <= BUFFER, "{sent} sent, {relayed} relayed, {queued} queued");
    assert_eq!(relay.interest().0 & EVENT_READ, 0, "it does not wait for more than it can relay");

    client.shutdown(SHUT_WR).unwrap();
    server.shutdown(SHUT_WR).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| expect_pattern(server, &pattern, sent));
        while relay.advance(front, back).unwrap().is_none() {}
    });
    assert_eq!(relay.counts().a_to_b, sent as u64);
}

#[test]
fn a_reset_is_an_error_with_its_direction_and_the_counts() {
    for client_fails in [true, false] {
        let Line { client, front, back, server } = Line::new();
        let error = thread::scope(|scope| {
            let relaying = scope.spawn(|| relay(&front, &back).unwrap_err());
            client.sendall(b"12345").unwrap();
            assert_eq!(server.recv(5).unwrap(), b"12345");
            server.sendall(b"abc").unwrap();
            assert_eq!(client.recv(5).unwrap(), b"abc");
            let _open = if client_fails {
                reset(client);
                server
            } else {
                reset(server);
                client
            };
            relaying.join().unwrap()
        });
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("ECONNRESET"));
        let relay_error = RelayError::of(&error).unwrap();
        let (direction, words) = if client_fails {
            (RelayDirection::AToB, "relay a to b: recv: ")
        } else {
            (RelayDirection::BToA, "relay b to a: recv: ")
        };
        assert_eq!(relay_error.direction(), Some(direction));
        assert_eq!(relay_error.counts(), RelayCounts { a_to_b: 5, b_to_a: 3 });
        let text = error.to_string();
        assert!(text.starts_with(words), "{text}");
        assert!(text.ends_with(", after 5 bytes from a to b and 3 bytes from b to a"), "{text}");
    }
}

/// A server that refuses the rest of a request, and says why before it closes.
#[test]
fn what_came_before_a_reset_is_still_relayed() {
    let line = Line::nonblocking();
    let Line { client, front, back, server } = line;
    let mut relay = Relay::new();
    client.sendall(&[b'x'; 5000]).unwrap();
    while relay.counts().a_to_b < 5000 {
        relay.advance(&front, &back).unwrap();
    }
    server.sendall(b"too long").unwrap();
    // Unread input resets the connection.
    drop(server);
    let begin = Instant::now();
    let error = loop {
        let _ = client.send_with_flags(b"more", sock::MSG_NOSIGNAL);
        match relay.advance(&front, &back) {
            Ok(_) => assert!(begin.elapsed() < LIMIT),
            Err(error) => break error,
        }
    };
    assert!(RelayError::of(&error).unwrap().direction().is_some(), "{error}");
    assert_eq!(client.recv(100).unwrap(), b"too long");
}

#[test]
fn an_idle_relay_ends_at_its_idle_timeout() {
    let Line { client, front, back, server } = Line::new();
    let begin = Instant::now();
    let options = RelayOptions::new().idle_timeout(1).deadline(60);
    thread::scope(|scope| {
        let relaying = scope.spawn(|| relay_with(&front, &back, &options).unwrap_err());
        // Bytes in one direction are enough.
        for _ in 0..6 {
            thread::sleep(Duration::from_millis(300));
            server.sendall(b"x").unwrap();
        }
        let error = relaying.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let relay_error = RelayError::of(&error).unwrap();
        assert!(relay_error.is_idle() && relay_error.direction().is_none());
        assert_eq!(relay_error.counts(), RelayCounts { a_to_b: 0, b_to_a: 6 });
        assert!(error.to_string().starts_with("relay: idle: timed out, after 0 bytes"), "{error}");
    });
    assert!(begin.elapsed() >= Duration::from_millis(2800), "after {:?}", begin.elapsed());
    client.sendall(b"the streams are left open").unwrap();
    assert!(!front.recv(100).unwrap().is_empty());
}

#[test]
fn a_busy_relay_ends_at_its_deadline() {
    let Line { client, front, back, server } = Line::new();
    let begin = Instant::now();
    let options = RelayOptions::new().idle_timeout(30).deadline(0.3);
    thread::scope(|scope| {
        let relaying = scope.spawn(|| relay_with(&front, &back, &options).unwrap_err());
        while !relaying.is_finished() {
            client.sendall(b"x").unwrap();
            server.recv_with_flags(100, sock::MSG_PEEK).unwrap();
        }
        let error = relaying.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(!RelayError::of(&error).unwrap().is_idle());
        assert!(RelayError::of(&error).unwrap().counts().a_to_b > 0);
    });
    assert!(begin.elapsed() >= Duration::from_millis(300) && begin.elapsed() < LIMIT);
}

#[test]
fn a_timeout_that_is_none_is_refused() {
    let (a, b) = socketpair().unwrap();
    for options in [RelayOptions::new().deadline(-1), RelayOptions::new().idle_timeout(f64::NAN)] {
        let error = relay_with(&a, &b, &options).unwrap_err();
        assert!(ArgumentError::of(&error).is_some(), "{error}");
    }
    let begin = Instant::now();
    let error = relay_with(&a, &b, &RelayOptions::new().deadline(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(begin.elapsed() < LIMIT);
}

#[test]
fn a_canceller_ends_a_relay() {
    for second in [false, true] {
        let (_client, front) = socketpair().unwrap();
        let (back, _server) = socketpair().unwrap();
        let canceller = if second { back.canceller() } else { front.canceller() }.unwrap();
        thread::scope(|scope| {
            let relaying = scope.spawn(|| relay(&front, &back).unwrap_err());
            canceller.cancel();
            let error = relaying.join().unwrap();
            assert!(was_cancelled(&error), "{error}");
            assert_eq!(RelayError::of(&error).unwrap().counts(), RelayCounts::default());
        });
    }
}

#[test]
fn a_relay_that_does_not_wait_refuses_sockets_that_block() {
    let (a, b) = socketpair().unwrap();
    a.setblocking(false).unwrap();
    let error = Relay::new().advance(&a, &b).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().ends_with("and b blocks"), "{error}");
}

/// Many relays in one thread, with streams that come and go.
#[test]
fn a_selector_serves_many_relays() {
    const RELAYS: usize = 20;
    const AMOUNT: usize = 300_000;
    type Stream = Arc<dyn StreamSocket>;

    let pattern = pattern();
    let lines: Vec<_> = (0..RELAYS).map(|_| Line::nonblocking()).collect();
    let (mut outer, mut inner) = (Vec::new(), Vec::new());
    for Line { client, front, back, server } in lines {
        outer.push((client, server));
        inner.push((Arc::new(front) as Stream, Arc::new(back) as Stream, Relay::new()));
    }
    thread::scope(|scope| {
        for (client, server) in &outer {
            scope.spawn(|| send_pattern(client, &pattern, AMOUNT));
            scope.spawn(|| expect_pattern(server, &pattern, AMOUNT));
            scope.spawn(|| send_pattern(server, &pattern, AMOUNT));
            scope.spawn(|| expect_pattern(client, &pattern, AMOUNT));
        }
        let sel = DefaultSelector::new().unwrap();
        let mut ended = 0;
        let mut serve = |sel: &DefaultSelector<Stream, usize>, number: usize| {
            let (a, b, relay): &mut (Stream, Stream, Relay) = &mut inner[number];
            match relay.advance(&**a, &**b).unwrap() {
                None => relay.register(sel, a, b, &number).unwrap(),
                Some(counts) => {
                    assert_eq!(counts, RelayCounts { a_to_b: AMOUNT as u64, b_to_a: AMOUNT as u64 });
                    for stream in [&*a, &*b] {
                        let _ = sel.unregister(stream);
                    }
                    ended += 1;
                }
            }
            ended
        };
        for number in 0..RELAYS {
            serve(&sel, number);
        }
        while !sel.get_map().is_empty() {
            for (key, _) in sel.select(LIMIT).unwrap() {
                // Its relay may have ended with an earlier event.
                if sel.get_map().contains(&key) {
                    serve(&sel, *key.data);
                }
            }
        }
        assert_eq!(ended, RELAYS);
    });
}

/// An ended direction is not waited for, and a stream without events is not in the selector: it would be
/// reported again and again.
#[test]
fn an_ended_direction_is_not_waited_for() -> io::Result<()> {
    let Line { client, front, back, server } = Line::nonblocking();
    let sel = DefaultSelector::new()?;
    let mut relay = Relay::new();
    server.shutdown(SHUT_WR)?;
    while relay.interest() != (EVENT_READ, 0) {
        assert_eq!(relay.advance(&front, &back)?, None);
    }
    relay.register(&sel, &&front, &&back, &())?;
    assert_eq!(sel.get_map().keys(), [front.fileno()]);
    assert!(sel.select(0.05)?.is_empty());
    assert_eq!(client.recv(1)?, b"");
    client.sendall(b"x")?;
    assert_eq!(sel.select(LIMIT)?.len(), 1);
    Ok(())
}

/// A stream with TLS: what it is given it encrypts, and its end is a record too.
struct Encrypting {
    sock: Socket,
    ends: AtomicUsize,
}

impl StreamSocket for Encrypting {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.sock.recv_into(buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn shutdown(&self, _how: Shutdown) -> io::Result<()> {
        self.ends.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn socket(&self) -> &Socket {
        &self.sock
    }
}

#[test]
fn an_end_waits_for_room_in_the_send_buffer() {
    let Line { client, front, back, server } = Line::nonblocking();
    while back.send(&[0; 65536]).is_ok() {}
    let back = Encrypting { sock: back, ends: AtomicUsize::new(0) };
    let mut relay = Relay::new();
    client.sendall(b"all").unwrap();
    client.shutdown(SHUT_WR).unwrap();
    let begin = Instant::now();
    while relay.interest().1 & EVENT_WRITE == 0 {
        assert_eq!(relay.advance(&front, &back).unwrap(), None);
        assert!(begin.elapsed() < LIMIT, "it has ended already");
    }
    assert_eq!(relay.advance(&front, &back).unwrap(), None);
    assert_eq!((relay.counts().a_to_b, back.ends.load(Ordering::Relaxed)), (3, 0));
    server.setblocking(false).unwrap();
    let begin = Instant::now();
    while back.ends.load(Ordering::Relaxed) == 0 {
        let _ = server.recv(65536);
        assert_eq!(relay.advance(&front, &back).unwrap(), None);
        assert!(begin.elapsed() < LIMIT);
    }
    server.shutdown(SHUT_WR).unwrap();
    while relay.advance(&front, &back).unwrap().is_none() {}
    assert_eq!(back.ends.load(Ordering::Relaxed), 1);
}
