//! The promise: a silent client holds a permit for a bounded time. Each deadline ends only the
//! connection concerned, the handler gets an error, the deadline is counted by name, and a client that
//! sends one byte at a time does not extend it.
//!
//! `tests/process_tests/forking_outcomes.rs` has the same tests for forking servers.

mod support;

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sock::{Address, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, MixIn, RequestError, Sequential, ServerHooks, Stats, StreamContext, StreamRequestHandler,
    StreamServer, ThreadingMixIn, ThreadingTCPServer, testing,
};

use support::{LIMIT, LOOPBACK, connect_to, read_to_end, sleep_briefly, wait_for_stats};

/// The deadline under test: much longer than a call, much shorter than [`LIMIT`].
const SHORT: Duration = Duration::from_millis(150);
/// How late a deadline under test may expire.
const LONGER: Duration = Duration::from_millis(450);

/// A handler that sends its result to the test.
struct ReportResult<F> {
    handle: F,
    sender: mpsc::Sender<Result<(), io::ErrorKind>>,
}

impl<F> StreamRequestHandler for ReportResult<F>
where
    F: Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + 'static,
{
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let result = (self.handle)(cx);
        let _ = self.sender.send(result.as_ref().map_err(io::Error::kind).copied());
        result
    }
}

type Results = mpsc::Receiver<Result<(), io::ErrorKind>>;

/// Creates a server with one permit and no deadlines except those of the test.
fn server<M: MixIn + Default>(
    handle: impl Fn(&mut StreamContext<'_>) -> io::Result<()> + Clone + Send + Sync + 'static,
) -> (Builder<Stream<Inet>, M>, Results) {
    let (sender, results) = mpsc::channel();
    let make = move || ReportResult { handle: handle.clone(), sender: sender.clone() };
    let builder = StreamServer::builder(make)
        .max_connections(1)
        .first_byte_timeout(None)
        .idle_timeout(None)
        .read_timeout(None)
        .write_timeout(None)
        .request_timeout(None)
        .wrap_timeout(None);
    (builder, results)
}

/// Echoes one line per request.
fn echo(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    cx.wfile.write_all(line.as_bytes())?;
    cx.close_connection = line.is_empty();
    Ok(())
}

/// Runs a test with `Sequential` and with `ThreadingMixIn`.
macro_rules! for_both {
    ($($name:ident: $test:ident;)*) => {$(
        #[test]
        fn $name() {
            $test::<Sequential>();
            $test::<ThreadingMixIn>();
        }
    )*};
}

for_both! {
    the_first_byte: first_byte;
    the_time_between_two_requests: idle;
    each_receive: read;
    each_receive_although_the_idle_deadline_is_shorter_between_requests: read_covered;
    each_send: write;
    a_whole_request_however_busy: request;
    a_request_whose_handler_computes: computing;
    a_handshake: wrap;
    a_handshake_with_a_timeout_of_its_own: wrap_own_timeout;
    one_who_is_spoken_to_has_had_the_first_byte: server_speaks_first;
    each_request_has_its_own_time: several_requests;
    none_switches_off: none;
    for_ever_is_a_time_too: for_ever;
    a_receive_that_was_late_can_be_tried_again: tried_again;
    a_handlers_own_timeout: own_timeout;
    a_handler_that_sets_none_blocks_beyond_the_read_deadline: own_none;
    a_handler_that_sets_none_still_has_the_request_deadline: own_none_request;
}

/// Checks a deadline of a server with one permit: the client that `misbehaves` is closed, the handler
/// gets an error, and the next client is served.
#[track_caller]
fn ends<M: MixIn>(
    (builder, results): (Builder<Stream<Inet>, M>, Results),
    misbehave: impl FnOnce(&Socket),
    counted: impl Fn(&Stats) -> u64,
    expected_error: Option<Result<(), io::ErrorKind>>,
) {
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    let begin = Instant::now();
    let client = connect_to(server.address());
    misbehave(&client);
    let stats = wait_for_stats(server.handle(), |stats| stats.accepted == 1 && stats.in_flight == 0);
    assert!(begin.elapsed() >= SHORT, "the deadline expired early");
    assert_eq!((counted(&stats), stats.timed_out.total()), (1, 1), "{stats:?}");
    assert_eq!(results.try_iter().last(), expected_error);
    drop(client);
    // The only permit was released.
    let next = connect_to(server.address());
    next.sendall(b"hello\n").unwrap();
    assert_eq!(next.recv(100).unwrap(), b"hello\n");
}

const TIMED_OUT: Option<Result<(), io::ErrorKind>> = Some(Err(io::ErrorKind::TimedOut));

fn first_byte<M: MixIn + Default>() {
    let (builder, results) = server::<M>(echo);
    ends(
        (builder.first_byte_timeout(SHORT), results),
        |client| assert_eq!(read_to_end(client), ""),
        |stats| stats.timed_out.first_byte,
        TIMED_OUT,
    );
}

fn idle<M: MixIn + Default>() {
    let (builder, results) = server::<M>(echo);
    ends(
        (builder.idle_timeout(SHORT), results),
        |client| {
            client.sendall(b"one\ntwo\n").unwrap();
            assert_eq!(read_to_end(client), "one\ntwo\n");
        },
        |stats| stats.timed_out.idle,
        // The handler has no error, because it has served each request.
        Some(Ok(())),
    );
}

fn read<M: MixIn + Default>() {
    let (builder, results) = server::<M>(echo);
    ends(
        (builder.read_timeout(SHORT), results),
        |client| {
            client.sendall(b"half a line").unwrap();
            assert_eq!(read_to_end(client), "");
        },
        |stats| stats.timed_out.read,
        TIMED_OUT,
    );
}

/// The read deadline applies within a request, although the idle deadline applies between requests.
fn read_covered<M: MixIn + Default>() {
    let (builder, results) = server::<M>(echo);
    ends(
        (builder.read_timeout(SHORT).first_byte_timeout(SHORT).idle_timeout(SHORT), results),
        |client| {
            for _ in 0..3 {
                client.sendall(b"one\n").unwrap();
                assert_eq!(client.recv(100).unwrap(), b"one\n");
            }
            client.sendall(b"half a line").unwrap();
            assert_eq!(read_to_end(client), "");
        },
        |stats| stats.timed_out.read,
        TIMED_OUT,
    );
}

fn write<M: MixIn + Default>() {
    let (builder, results) = server::<M>(|cx| {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        if line == "flood\n" {
            cx.wfile.write_all(&vec![0; 64 << 20])
        } else {
            cx.wfile.write_all(b"hello\n")
        }
    });
    ends(
        (builder.write_timeout(SHORT), results),
        |client| client.sendall(b"flood\n").unwrap(),
        |stats| stats.timed_out.write,
        TIMED_OUT,
    );
}

/// Sends a byte every millisecond until the server closes the connection.
fn send_byte_by_byte(client: &Socket) {
    let deadline = Instant::now() + LIMIT;
    while client.sendall(b".").is_ok() {
        assert!(Instant::now() < deadline, "the server does not close the connection");
        sleep_briefly();
    }
}

fn request<M: MixIn + Default>() {
    let (builder, results) = server::<M>(echo);
    ends(
        // Each receive is in time, but the request is not.
        (builder.request_timeout(SHORT).read_timeout(LIMIT), results),
        send_byte_by_byte,
        |stats| stats.timed_out.request,
        TIMED_OUT,
    );
}

fn computing<M: MixIn + Default>() {
    let (builder, results) = server::<M>(|cx| {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        if line == "compute\n" {
            let until = Instant::now() + LONGER;
            while Instant::now() < until {
                thread::yield_now();
            }
            return Ok(());
        }
        cx.wfile.write_all(line.as_bytes())
    });
    ends(
        (builder.request_timeout(SHORT), results),
        |client| {
            client.sendall(b"compute\n").unwrap();
            assert_eq!(read_to_end(client), "", "the client waited for the handler");
        },
        |stats| stats.timed_out.request,
        Some(Ok(())),
    );
}

/// A handshake that ends with the client's first byte other than a dot. Each receive of a
/// trickling client is in time.
fn handshake(request: Socket, _client_address: &Address) -> io::Result<Socket> {
    while request.recv(1)? == b"." {}
    Ok(request)
}

struct OnlyTheWrapDeadline;

impl ServerHooks for OnlyTheWrapDeadline {
    fn handle_error(&self, error: &RequestError, _client_address: &Address) {
        assert!(matches!(error, RequestError::TimedOut(sockserver::DeadlineKind::Wrap, _)), "{error}");
    }
}

fn wrap<M: MixIn + Default>() {
    let (builder, results) = server::<M>(|cx| {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        // The first byte was the handshake.
        cx.wfile.write_all(format!("h{line}").as_bytes())
    });
    ends(
        (builder.wrap_timeout(SHORT).hooks(OnlyTheWrapDeadline).wrap_request(handshake), results),
        send_byte_by_byte,
        |stats| stats.timed_out.wrap,
        // No handler was created.
        None,
    );
}

/// `WrapOptions::handshake_timeout` of `sockssl` returns such an error.
fn wrap_own_timeout<M: MixIn + Default>() {
    let (builder, results) = server::<M>(echo);
    let builder = builder.hooks(OnlyTheWrapDeadline).wrap_request(|request, _client_address| {
        request.settimeout(SHORT)?;
        request.recv_with_flags(1, sock::MSG_PEEK)?;
        Ok(request)
    });
    ends(
        (builder, results),
        |client| assert_eq!(read_to_end(client), ""),
        |stats| stats.timed_out.wrap,
        None,
    );
}

#[test]
fn a_stalled_handshake_delays_no_other_client() {
    let (builder, _results) = server::<ThreadingMixIn>(|cx| cx.wfile.write_all(b"served"));
    let builder = builder.wrap_timeout(SHORT).max_connections(100);
    let server = builder.hooks(OnlyTheWrapDeadline).wrap_request(handshake).bind(LOOPBACK).unwrap();
    let server = testing::serve(server);
    let stalled: Vec<Socket> = (0..5).map(|_| connect_to(server.address())).collect();
    wait_for_stats(server.handle(), |stats| stats.accepted == 5);
    let good = connect_to(server.address());
    good.sendall(b"!").unwrap();
    assert_eq!(read_to_end(&good), "served");
    for client in &stalled {
        assert_eq!(read_to_end(client), "");
    }
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.timed_out.wrap, stats.finished), (5, 1));
}

fn server_speaks_first<M: MixIn + Default>() {
    let (builder, results) = server::<M>(|cx| {
        cx.wfile.write_all(b"who is there?\n")?;
        echo(cx)
    });
    let server = testing::serve(builder.first_byte_timeout(SHORT).bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    assert_eq!(client.recv(100).unwrap(), b"who is there?\n");
    pause(LONGER);
    client.sendall(b"me\n").unwrap();
    assert_eq!(results.recv_timeout(LIMIT).unwrap(), Ok(()), "the connection was closed");
    assert_eq!(client.recv(3).unwrap(), b"me\n");
}

/// Lets time pass. The test is about this time.
fn pause(time: Duration) {
    sock::poll(&mut [], Some(time)).unwrap();
}

fn several_requests<M: MixIn + Default>() {
    let (builder, _results) = server::<M>(echo);
    let server = testing::serve(builder.request_timeout(LONGER).bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    let begin = Instant::now();
    while begin.elapsed() < LONGER * 2 {
        client.sendall(b"half").unwrap();
        pause(SHORT / 2);
        client.sendall(b" a line\n").unwrap();
        assert_eq!(client.recv(100).unwrap(), b"half a line\n");
    }
    client.shutdown(sock::SHUT_WR).unwrap();
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.finished, stats.timed_out.total()), (1, 0));
}

fn none<M: MixIn + Default>() {
    // Each deadline is set and then disabled.
    let (builder, _results) = server::<M>(echo);
    let builder = builder
        .first_byte_timeout(SHORT)
        .first_byte_timeout(None)
        .idle_timeout(SHORT)
        .idle_timeout(None)
        .read_timeout(SHORT)
        .read_timeout(None)
        .request_timeout(SHORT)
        .request_timeout(None);
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    pause(LONGER);
    for word in [&b"first\n"[..], b"second\n"] {
        client.sendall(&word[..2]).unwrap();
        pause(LONGER / 2);
        client.sendall(&word[2..]).unwrap();
        assert_eq!(client.recv(100).unwrap(), word);
        pause(LONGER / 2);
    }
    client.shutdown(sock::SHUT_WR).unwrap();
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.finished, stats.timed_out.total()), (1, 0));
}

fn for_ever<M: MixIn + Default>() {
    let (builder, _results) = server::<M>(echo);
    let builder = builder
        .first_byte_timeout(Duration::MAX)
        .idle_timeout(Duration::MAX)
        .read_timeout(Duration::MAX)
        .write_timeout(Duration::MAX)
        .request_timeout(Duration::MAX)
        .wrap_timeout(Duration::MAX)
        .linger_timeout(Duration::MAX)
        .wrap_request(greeted);
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    client.sendall(b"!one\ntwo\n").unwrap();
    assert_eq!(client.recv(4).unwrap(), b"one\n");
    assert_eq!(client.recv(4).unwrap(), b"two\n");
    client.shutdown(sock::SHUT_WR).unwrap();
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!(stats.finished, 1, "{stats:?}");
}

/// A handshake of one byte.
fn greeted(request: Socket, _client_address: &Address) -> io::Result<Socket> {
    request.recv(1)?;
    Ok(request)
}

fn tried_again<M: MixIn + Default>() {
    let (builder, results) = server::<M>(|cx| {
        let late = cx.rfile.read(&mut [0]).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(late.to_string().contains("read deadline"), "{late}");
        cx.wfile.write_all(b"still there?\n")?;
        let mut answer = [0; 3];
        cx.rfile.read_exact(&mut answer)?;
        cx.wfile.write_all(&answer)
    });
    let server = testing::serve(builder.read_timeout(SHORT).bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    assert_eq!(client.recv(100).unwrap(), b"still there?\n");
    client.sendall(b"yes").unwrap();
    assert_eq!(read_to_end(&client), "yes");
    assert_eq!(results.recv_timeout(LIMIT).unwrap(), Ok(()));
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.finished, stats.timed_out.total()), (1, 0));
}

/// Receives with the timeout of its own constant.
struct OwnTimeout(mpsc::Sender<io::ErrorKind>);

impl StreamRequestHandler for OwnTimeout {
    const TIMEOUT: Option<Duration> = Some(SHORT);

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let result = cx.rfile.read(&mut [0]).map(drop);
        if let Err(error) = &result {
            let _ = self.0.send(error.kind());
        }
        result
    }
}

fn own_timeout<M: MixIn + Default>() {
    let (sender, results) = mpsc::channel();
    let make = move || OwnTimeout(sender.clone());
    let server = StreamServer::<Inet, M>::builder(make).read_timeout(None).first_byte_timeout(None);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let begin = Instant::now();
    let client = connect_to(server.address());
    assert_eq!(read_to_end(&client), "");
    assert_eq!(results.recv_timeout(LIMIT).unwrap(), io::ErrorKind::TimedOut);
    assert!(begin.elapsed() >= SHORT);
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!(
        (stats.failed, stats.timed_out.total()),
        (1, 0),
        "the server's timeout applied instead of the handler's"
    );
}

/// Reads one byte without a timeout of its own.
fn read_without_timeout(cx: &mut StreamContext<'_>) -> io::Result<()> {
    cx.request.socket().settimeout(None)?;
    let mut byte = [0];
    cx.rfile.read_exact(&mut byte)?;
    cx.wfile.write_all(&byte)
}

fn own_none<M: MixIn + Default>() {
    let (builder, results) = server::<M>(read_without_timeout);
    let server = testing::serve(builder.read_timeout(SHORT).bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    pause(LONGER);
    client.sendall(b"!").unwrap();
    assert_eq!(read_to_end(&client), "!");
    assert_eq!(results.recv_timeout(LIMIT).unwrap(), Ok(()));
}

fn own_none_request<M: MixIn + Default>() {
    let (builder, results) = server::<M>(|cx| {
        // The first byte begins the request.
        cx.rfile.read_exact(&mut [0])?;
        read_without_timeout(cx)
    });
    let server = testing::serve(builder.request_timeout(SHORT).bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    client.sendall(b"?").unwrap();
    assert_eq!(read_to_end(&client), "");
    assert_eq!(results.recv_timeout(LIMIT).unwrap(), Err(io::ErrorKind::TimedOut));
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.timed_out.request, stats.timed_out.total()), (1, 1));
}

#[test]
fn a_shorter_deadline_that_begins_later_expires_in_time() {
    // The deadline timer waits for many first bytes when a shorter deadline begins.
    let (builder, _results) = server::<ThreadingMixIn>(echo);
    let server = builder
        .max_connections(100)
        .first_byte_timeout(LIMIT)
        .request_timeout(LIMIT)
        .idle_timeout(SHORT)
        .bind(LOOPBACK)
        .unwrap();
    let server = testing::serve(server);
    let silent: Vec<Socket> = (0..10).map(|_| connect_to(server.address())).collect();
    wait_for_stats(server.handle(), |stats| stats.in_flight == 10);
    let begin = Instant::now();
    let client = connect_to(server.address());
    client.sendall(b"hello\n").unwrap();
    assert_eq!(read_to_end(&client), "hello\n");
    assert!(begin.elapsed() < LIMIT / 2, "{:?}", begin.elapsed());
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 10);
    assert_eq!((stats.timed_out.idle, stats.timed_out.total()), (1, 1));
    drop(silent);
}

#[test]
fn idle_connections_are_counted() {
    let server = ThreadingTCPServer::builder(sockserver::handler_fn(echo)).bind(LOOPBACK).unwrap();
    let server = testing::serve(server);
    let clients: Vec<Socket> = (0..3).map(|_| connect_to(server.address())).collect();
    wait_for_stats(server.handle(), |stats| stats.in_flight == 3 && stats.idle == 0);
    for client in &clients {
        client.sendall(b"hello\n").unwrap();
        assert_eq!(client.recv(100).unwrap(), b"hello\n");
    }
    wait_for_stats(server.handle(), |stats| stats.in_flight == 3 && stats.idle == 3);
    clients[0].sendall(b"half").unwrap();
    wait_for_stats(server.handle(), |stats| stats.idle == 2);
}
