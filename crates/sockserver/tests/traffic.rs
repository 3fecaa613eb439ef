//! The promise: bytes, and the time that requests take, are counted exactly when the requests have
//! ended, in the models without processes of their own.

mod support;

use std::io::{self, BufRead, Write};
use std::time::Duration;

use sockserver::kind::{Datagram, Inet};
use sockserver::{
    Builder, DatagramContext, DatagramServer, DurationHistogram, MixIn, SelectorMixIn, Sequential, Stats,
    StreamContext, StreamServer, ThreadPoolMixIn, ThreadingMixIn, datagram_handler_fn, handler_fn, testing,
};

use support::{LIMIT, LOOPBACK, datagram_client, read_to_end, wait_for_stats, wait_until};

/// Echoes a line, and keeps the connection.
fn line(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
    cx.wfile.write_all(line.as_bytes())
}

/// Echoes all lines in one call, and sends a last one in a thread of its own.
fn lines(cx: &mut StreamContext<'_>) -> io::Result<()> {
    for line in &mut cx.rfile {
        cx.wfile.write_all(&line?)?;
    }
    let request = cx.request;
    std::thread::scope(|scope| scope.spawn(|| request.sendall(b"last\n")).join().unwrap())
}

/// Exchanges so many lines of this length, and returns the counters at the end.
fn exchange<M: MixIn + Default>(
    handler: fn(&mut StreamContext<'_>) -> io::Result<()>,
    (count, length): (usize, usize),
) -> Stats {
    let server = StreamServer::<Inet, M>::new(LOOPBACK, handler_fn(handler)).unwrap();
    let server = testing::serve(server);
    let client = server.connect().unwrap();
    client.settimeout(LIMIT).unwrap();
    let line = "x".repeat(length - 1) + "\n";
    for _ in 0..count {
        client.sendall(line.as_bytes()).unwrap();
        let mut answer = String::new();
        client.makefile_rb().read_line(&mut answer).unwrap();
        assert!(answer == line);
    }
    client.shutdown(sock::SHUT_WR).unwrap();
    read_to_end(&client);
    wait_for_stats(server.handle(), |stats| stats.finished == 1)
}

fn bytes<M: MixIn + Default>() {
    for (count, length) in [(3, 100), (2, 60_000), (1000, 47)] {
        let all = (count * length) as u64;
        // The end of file after a request is not another one.
        let stats = exchange::<M>(line, (count, length));
        assert_eq!((stats.bytes_received, stats.bytes_sent), (all, all), "{count} of {length}");
        assert_eq!((stats.requests, stats.request_duration.count()), (count as u64, count as u64));
        let stats = exchange::<M>(lines, (count, length));
        assert_eq!((stats.bytes_received, stats.bytes_sent), (all, all + 5), "{count} of {length}");
        assert_eq!(stats.requests, 1);
    }
}

#[test]
fn bytes_of_connections_are_counted_in_the_loop() {
    bytes::<Sequential>();
}

#[test]
fn bytes_of_connections_are_counted_in_threads() {
    bytes::<ThreadingMixIn>();
}

#[test]
fn bytes_of_connections_are_counted_in_a_pool() {
    bytes::<ThreadPoolMixIn>();
}

#[test]
fn bytes_of_connections_are_counted_in_a_selector() {
    bytes::<SelectorMixIn>();
}

#[test]
fn a_long_request_shows_its_bytes_before_it_ends() {
    let server =
        testing::serve(StreamServer::<Inet, ThreadingMixIn>::new(LOOPBACK, handler_fn(lines)).unwrap());
    let client = server.connect().unwrap();
    client.sendall(&[b"x".repeat(20_000), b"\n".to_vec()].concat()).unwrap();
    wait_until("most bytes are counted", || server.handle().stats().bytes_received > 4000);
    assert_eq!(server.handle().stats().requests, 0);
}

type Datagrams<M> = Builder<Datagram<Inet>, M>;

fn answer(cx: &mut DatagramContext<'_>) -> io::Result<()> {
    if cx.packet == b"fail" {
        return Err(io::Error::other("as planned"));
    }
    cx.sendto(b"first", cx.client_address)?;
    cx.wfile.write_all(b"second!")
}

fn datagrams<M: MixIn + Default>(change: impl Fn(Datagrams<M>) -> Datagrams<M>) {
    let server = change(DatagramServer::<Inet, M>::builder(datagram_handler_fn(answer)));
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let client = datagram_client(server.address().family());
    for packet in ["hello", "fail", "a longer packet"] {
        client.sendto(packet.as_bytes(), server.address()).unwrap();
        if packet != "fail" {
            let mut answers = [client.recv(100).unwrap(), client.recv(100).unwrap()];
            answers.sort();
            assert_eq!(answers, [&b"first"[..], b"second!"]);
        }
    }
    let stats = wait_for_stats(server.handle(), |stats| stats.finished == 2 && stats.failed == 1);
    assert_eq!((stats.bytes_received, stats.bytes_sent), (5 + 4 + 15, 2 * (5 + 7)));
    assert_eq!((stats.requests, stats.request_duration.count()), (3, 3));
}

#[test]
fn bytes_of_datagrams_are_counted() {
    datagrams::<Sequential>(|builder| builder);
    datagrams::<Sequential>(|builder| builder.max_batch(16));
    datagrams::<ThreadingMixIn>(|builder| builder);
    datagrams::<ThreadPoolMixIn>(|builder| builder);
}

/// How many took no longer than `bound`.
fn within(durations: &DurationHistogram, bound: Duration) -> u64 {
    durations.buckets().find(|(other, _)| *other == Some(bound)).unwrap().1
}

#[test]
fn a_request_is_in_the_buckets_of_its_time() {
    let work = Duration::from_millis(60);
    let bounds = [1, 30, 600_000].map(Duration::from_millis);
    let slow = handler_fn(move |cx| {
        line(cx)?;
        std::thread::sleep(work);
        Ok(())
    });
    let server = StreamServer::<Inet, ThreadingMixIn>::builder(slow).duration_buckets(bounds);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let client = server.connect().unwrap();
    for _ in 0..2 {
        client.sendall(b"?\n").unwrap();
        client.makefile_rb().read_line(&mut String::new()).unwrap();
    }
    wait_until("both are counted", || server.handle().stats().requests == 2);
    let durations = server.handle().stats().request_duration;
    let counts: Vec<u64> = durations.buckets().map(|(_, count)| count).collect();
    assert_eq!(counts, [0, 0, 2, 2]);
    // The clock changes every 10 ms at least.
    assert!(durations.sum() >= work * 2 - Duration::from_millis(20), "{durations:?}");
}

/// The wait for the first byte, and between requests, is none of them. A busy machine may be slow,
/// so one of several attempts has to succeed.
#[test]
fn the_time_between_requests_is_not_counted() {
    let idle = Duration::from_millis(60);
    fn attempt<M: MixIn + Default>(idle: Duration) -> bool {
        let server = StreamServer::<Inet, M>::builder(handler_fn(line)).duration_buckets([idle / 2]);
        let server = testing::serve(server.bind(LOOPBACK).unwrap());
        let client = server.connect().unwrap();
        for _ in 0..2 {
            std::thread::sleep(idle);
            client.sendall(b"?\n").unwrap();
            client.makefile_rb().read_line(&mut String::new()).unwrap();
        }
        wait_until("both are counted", || server.handle().stats().requests == 2);
        within(&server.handle().stats().request_duration, idle / 2) == 2
    }
    assert!((0..20).any(|_| attempt::<ThreadingMixIn>(idle)));
    assert!((0..20).any(|_| attempt::<SelectorMixIn>(idle)));
}
