//! The promise: a handler that sets `close_connection` to false is called again for each request on
//! its connection. It is set up once and finished once, and no data of the client is lost.

mod support;

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sock::{Socket, SocketReader, create_connection};
use sockserver::{
    MixIn, Server, StreamContext, StreamRequestHandler, StreamServer, TCPServer, ThreadingTCPServer,
};

use support::StopOnDrop;

const LIMIT: Duration = Duration::from_secs(20);

/// Answers one line per request with its number. `bye` is the last.
struct Numbering {
    calls: mpsc::Sender<&'static str>,
    requests: usize,
}

impl StreamRequestHandler for Numbering {
    const TIMEOUT: Option<Duration> = Some(Duration::from_millis(200));
    // Buffered output has to be sent before the wait for the next request.
    const WBUFSIZE: usize = 8192;

    fn setup(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        let _ = self.calls.send("setup");
        Ok(())
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        assert!(cx.close_connection, "close_connection is false at the call of handle");
        let _ = self.calls.send("handle");
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        self.requests += 1;
        cx.close_connection = line == "bye\n";
        write!(cx.wfile, "{} {line}", self.requests)
    }

    fn finish(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let flushed = cx.wfile.flush();
        let _ = self.calls.send("finish");
        flushed
    }
}

/// Runs a client against one handler and returns the handler's calls.
fn calls_of<M: MixIn>(
    server: &Server<sockserver::kind::Stream<sockserver::kind::Inet>, M>,
    calls: &mpsc::Receiver<&'static str>,
    talk: impl FnOnce(Socket),
) -> Vec<&'static str> {
    let port = server.server_address().port().unwrap();
    thread::scope(|scope| {
        let _stop = StopOnDrop(server.handle());
        scope.spawn(|| server.serve_forever().unwrap());
        let client = create_connection(("127.0.0.1", port)).unwrap();
        client.settimeout(LIMIT).unwrap();
        talk(client);
        let mut made = Vec::new();
        while made.last() != Some(&"finish") {
            made.push(calls.recv_timeout(LIMIT).expect("finish was not called"));
        }
        made
    })
}

fn server<M: MixIn + Default>() -> (StreamServer<sockserver::kind::Inet, M>, mpsc::Receiver<&'static str>) {
    let (sender, receiver) = mpsc::channel();
    let make = move || Numbering { calls: sender.clone(), requests: 0 };
    (StreamServer::new(("127.0.0.1", 0), make).unwrap(), receiver)
}

fn answers(client: &Socket, count: usize) -> Vec<String> {
    client.makefile_rb().lines().take(count).map(Result::unwrap).collect()
}

#[test]
fn several_requests_are_served_on_one_connection() {
    let talk = |client: Socket| {
        for number in 1..=3 {
            client.sendall(b"hello\n").unwrap();
            assert_eq!(answers(&client, 1), [format!("{number} hello")]);
        }
        client.sendall(b"bye\n").unwrap();
        assert_eq!(answers(&client, 2), ["4 bye"], "the connection was not closed");
    };
    let expected = ["setup", "handle", "handle", "handle", "handle", "finish"];
    let (sequential, calls): (TCPServer, _) = server();
    assert_eq!(calls_of(&sequential, &calls, talk), expected);
    let (threading, calls): (ThreadingTCPServer, _) = server();
    assert_eq!(calls_of(&threading, &calls, talk), expected);
}

#[test]
fn pipelined_requests_are_served_at_once() {
    let (server, calls): (ThreadingTCPServer, _) = server();
    let made = calls_of(&server, &calls, |client| {
        client.sendall(b"one\ntwo\nbye\nlost\n").unwrap();
        assert_eq!(answers(&client, 3), ["1 one", "2 two", "3 bye"]);
    });
    assert_eq!(made, ["setup", "handle", "handle", "handle", "finish"]);
}

#[test]
fn a_client_that_disconnects_while_idle_ends_the_connection() {
    let (server, calls): (ThreadingTCPServer, _) = server();
    let expected = ["setup", "handle", "finish"];
    let one_request = |client: &Socket| {
        client.sendall(b"hello\n").unwrap();
        assert_eq!(answers(client, 1), ["1 hello"]);
    };
    assert_eq!(calls_of(&server, &calls, |client| one_request(&client)), expected, "after an end of file");
    // After silence for longer than the handler's TIMEOUT.
    let made = calls_of(&server, &calls, |client| {
        one_request(&client);
        assert_eq!(client.recv(1).unwrap(), b"", "the server did not close the connection");
    });
    assert_eq!(made, expected, "after silence");
}

#[test]
fn the_client_sees_the_end_even_if_a_second_descriptor_exists() {
    let (keep, kept) = mpsc::channel();
    let server = ThreadingTCPServer::new(
        ("127.0.0.1", 0),
        sockserver::handler_fn(move |cx| {
            // Another thread may keep the descriptor, but the client sees the end of the connection.
            keep.send(cx.request.socket().dup()?).unwrap();
            io::copy(&mut cx.rfile, &mut cx.wfile).map(drop)
        }),
    );
    let server = sockserver::testing::serve(server.unwrap());
    let client = server.connect().unwrap();
    client.sendall(b"all of it").unwrap();
    client.shutdown(sock::SHUT_WR).unwrap();
    assert_eq!(client.recv_with_flags(9, sock::MSG_WAITALL).unwrap(), b"all of it");
    assert_eq!(client.recv(1).unwrap(), b"");
    drop(kept);
}

/// Answers each of the two lines of a request, and reads them in different ways.
struct ManyReaders;

impl StreamRequestHandler for ManyReaders {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut lines = String::new();
        // It reads no byte of the other lines.
        SocketReader::new(cx.request, 0).read_line(&mut lines)?;
        lines += &String::from_utf8_lossy(&cx.request.recv(2)?);
        cx.rfile.read_line(&mut lines)?;
        cx.close_connection = lines.starts_with('-');
        cx.wfile.write_all(lines.as_bytes())
    }
}

#[test]
fn every_way_of_reading_returns_data_that_was_read_ahead_first() {
    fn requests<M: MixIn + Default>() {
        let server =
            StreamServer::<sockserver::kind::Inet, M>::new(("127.0.0.1", 0), || ManyReaders).unwrap();
        thread::scope(|scope| {
            let _stop = StopOnDrop(server.handle());
            scope.spawn(|| server.serve_forever().unwrap());
            let client = create_connection(("127.0.0.1", server.server_address().port().unwrap())).unwrap();
            client.settimeout(LIMIT).unwrap();
            client.sendall(b"a\nb\nc").unwrap();
            for request in ["a\nb\nc\n", "d\ne\nf\n", "-\nh\ni\n"] {
                client.sendall(&request.as_bytes()[5 * usize::from(request.starts_with('a'))..]).unwrap();
                let mut answer = [0; 6];
                client.makefile_rb().read_exact(&mut answer).unwrap();
                assert_eq!(answer, request.as_bytes());
            }
        });
    }
    requests::<sockserver::Sequential>();
    requests::<sockserver::ThreadingMixIn>();
    #[cfg(unix)]
    requests::<sockserver::SelectorMixIn>();
}

/// Reads the client's name in `setup`. The first request arrives with it.
#[derive(Default)]
struct Named(String);

impl StreamRequestHandler for Named {
    fn setup(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.rfile.read_line(&mut self.0).map(drop)
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
        cx.wfile.write_all(format!("{} {line}", self.0.trim_end()).as_bytes())
    }
}

fn serves_data_that_setup_read_ahead<M: MixIn + Default>() {
    let server = sockserver::testing::serve(
        StreamServer::<sockserver::kind::Inet, M>::new(("127.0.0.1", 0), Named::default).unwrap(),
    );
    let client = server.connect().unwrap();
    client.sendall(b"alice\none\ntwo\n").unwrap();
    assert_eq!(answers(&client, 2), ["alice one", "alice two"]);
}

#[test]
fn data_that_setup_has_read_ahead_is_the_first_request() {
    serves_data_that_setup_read_ahead::<sockserver::Sequential>();
    serves_data_that_setup_read_ahead::<sockserver::ThreadingMixIn>();
    #[cfg(unix)]
    serves_data_that_setup_read_ahead::<sockserver::SelectorMixIn>();
}

/// Answers one line per request, which it reads with its own buffer.
struct OwnReader;

impl StreamRequestHandler for OwnReader {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.rfile = SocketReader::new(cx.request, 16);
        let mut line = String::new();
        cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
        cx.wfile.write_all(line.as_bytes())
    }
}

fn a_reader_with_a_smaller_buffer_loses_nothing<M: MixIn + Default>() {
    let server = sockserver::testing::serve(
        StreamServer::<sockserver::kind::Inet, M>::new(("127.0.0.1", 0), || OwnReader).unwrap(),
    );
    let client = server.connect().unwrap();
    client.sendall(b"first\n").unwrap();
    assert_eq!(answers(&client, 1), ["first"]);
    let lines: Vec<String> = (0..40).map(|number| format!("{number}")).collect();
    client.sendall(format!("{}\n", lines.join("\n")).as_bytes()).unwrap();
    assert_eq!(answers(&client, 40), lines);
}

#[test]
fn data_left_by_a_handlers_own_reader_comes_first() {
    a_reader_with_a_smaller_buffer_loses_nothing::<sockserver::ThreadingMixIn>();
    #[cfg(unix)]
    a_reader_with_a_smaller_buffer_loses_nothing::<sockserver::SelectorMixIn>();
}

/// Answers one line per request, and leaves its socket with a timeout.
struct LeavesTimeout<const MILLISECONDS: u64, const RBUFSIZE: usize>;

impl<const MILLISECONDS: u64, const RBUFSIZE: usize> StreamRequestHandler
    for LeavesTimeout<MILLISECONDS, RBUFSIZE>
{
    const RBUFSIZE: usize = RBUFSIZE;

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.request.socket().settimeout(None)?;
        let mut line = String::new();
        cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
        cx.wfile.write_all(line.as_bytes())?;
        cx.request.socket().settimeout(Duration::from_millis(MILLISECONDS))
    }
}

/// Whether the connection is still open after a silence between two requests.
fn serves_after_silence<M: MixIn + Default, H: StreamRequestHandler>(
    mixin: M,
    handler: fn() -> H,
    silence: Duration,
) -> (bool, sockserver::Stats) {
    let server = StreamServer::<sockserver::kind::Inet, M>::builder(handler).mixin(mixin);
    let server = sockserver::testing::serve(server.bind(("127.0.0.1", 0)).unwrap());
    let client = server.connect().unwrap();
    client.settimeout(LIMIT).unwrap();
    client.sendall(b"first\n").unwrap();
    assert_eq!(answers(&client, 1), ["first"]);
    // The silence is what is tested.
    let ended = sock::poll(&mut [sock::Poll::new(&client, sock::POLLIN)], Some(silence)).unwrap() > 0;
    if !ended {
        client.sendall(b"second\n").unwrap();
        assert_eq!(answers(&client, 1), ["second"]);
    }
    drop(client);
    let handle = server.handle().clone();
    (!ended, support::wait_for_stats(&handle, |stats| stats.in_flight == 0))
}

fn keep_alive_with_a_timeout<M: MixIn + Default>(new: fn() -> M) {
    let silence = Duration::from_millis(150);
    for handler_reads_ahead in [true, false] {
        let (open, stats) = if handler_reads_ahead {
            serves_after_silence(new(), || LeavesTimeout::<0, 8192>, silence)
        } else {
            serves_after_silence(new(), || LeavesTimeout::<0, 0>, silence)
        };
        assert!(open, "a non-blocking socket has ended keep-alive");
        assert_eq!(stats.finished, 1, "{stats:?}");
        let (open, stats) = if handler_reads_ahead {
            serves_after_silence(new(), || LeavesTimeout::<50, 8192>, LIMIT)
        } else {
            serves_after_silence(new(), || LeavesTimeout::<50, 0>, LIMIT)
        };
        assert!(!open, "the handler's timeout has not ended keep-alive");
        assert_eq!(stats.timed_out.idle, 1, "{stats:?}");
    }
}

#[test]
fn the_timeout_of_a_handler_has_the_same_effect_between_requests_in_every_model() {
    use sockserver::{Sequential, ThreadPoolMixIn, ThreadingMixIn, WhenQueueFull};
    keep_alive_with_a_timeout(|| Sequential);
    keep_alive_with_a_timeout(ThreadingMixIn::new);
    keep_alive_with_a_timeout(ThreadPoolMixIn::new);
    keep_alive_with_a_timeout(|| ThreadPoolMixIn::new().queue(4, WhenQueueFull::Wait));
    #[cfg(unix)]
    keep_alive_with_a_timeout(sockserver::SelectorMixIn::new);
}
