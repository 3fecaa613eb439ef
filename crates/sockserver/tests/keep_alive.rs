//! The promise: a handler that sets `close_connection` to false is called again
//! for each request on its connection, set up once and finished once, and nothing
//! a client has sent is lost in between.

mod support;

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sock::{Socket, SocketReader, create_connection};
use sockserver::{
    MixIn, Server, StreamContext, StreamRequestHandler, StreamServer, TCPServer, ThreadingTCPServer,
};

use support::StopAtEnd;

const LIMIT: Duration = Duration::from_secs(20);

/// Answers one line a request with its number; `bye` is the last.
struct Numbering {
    calls: mpsc::Sender<&'static str>,
    requests: usize,
}

impl StreamRequestHandler for Numbering {
    const TIMEOUT: Option<Duration> = Some(Duration::from_millis(200));
    // What is buffered has to go out before the next request is waited for.
    const WBUFSIZE: usize = 8192;

    fn setup(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        let _ = self.calls.send("setup");
        Ok(())
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        assert!(cx.close_connection, "it is true whenever handle is called");
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

/// Serves `talk`'s client with one handler and returns the handler's calls.
fn calls_of<M: MixIn>(
    server: &Server<sockserver::kind::Stream<sockserver::kind::Inet>, M>,
    calls: &mpsc::Receiver<&'static str>,
    talk: impl FnOnce(Socket),
) -> Vec<&'static str> {
    let port = server.server_address().port().unwrap();
    thread::scope(|scope| {
        let _stop = StopAtEnd(server.handle());
        scope.spawn(|| server.serve_forever().unwrap());
        let client = create_connection(("127.0.0.1", port)).unwrap();
        client.settimeout(LIMIT).unwrap();
        talk(client);
        let mut made = Vec::new();
        while made.last() != Some(&"finish") {
            made.push(calls.recv_timeout(LIMIT).expect("the conversation is finished"));
        }
        made
    })
}

fn server<M: MixIn + Default>() -> (StreamServer<sockserver::kind::Inet, M>, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel();
    let make = move || Numbering { calls: tell.clone(), requests: 0 };
    (StreamServer::new(("127.0.0.1", 0), make).unwrap(), told)
}

fn answers(client: &Socket, count: usize) -> Vec<String> {
    client.makefile_rb().lines().take(count).map(Result::unwrap).collect()
}

#[test]
fn requests_follow_each_other_on_one_connection() {
    let talk = |client: Socket| {
        for number in 1..=3 {
            client.sendall(b"hello\n").unwrap();
            assert_eq!(answers(&client, 1), [format!("{number} hello")]);
        }
        client.sendall(b"bye\n").unwrap();
        assert_eq!(answers(&client, 2), ["4 bye"], "and then the end");
    };
    let expected = ["setup", "handle", "handle", "handle", "handle", "finish"];
    let (sequential, calls): (TCPServer, _) = server();
    assert_eq!(calls_of(&sequential, &calls, talk), expected);
    let (threading, calls): (ThreadingTCPServer, _) = server();
    assert_eq!(calls_of(&threading, &calls, talk), expected);
}

#[test]
fn requests_that_came_together_are_served_at_once() {
    let (server, calls): (ThreadingTCPServer, _) = server();
    let made = calls_of(&server, &calls, |client| {
        client.sendall(b"one\ntwo\nbye\nlost\n").unwrap();
        assert_eq!(answers(&client, 3), ["1 one", "2 two", "3 bye"]);
    });
    assert_eq!(made, ["setup", "handle", "handle", "handle", "finish"]);
}

#[test]
fn a_client_that_goes_away_between_two_requests_ends_the_conversation() {
    let (server, calls): (ThreadingTCPServer, _) = server();
    let expected = ["setup", "handle", "finish"];
    let one_request = |client: &Socket| {
        client.sendall(b"hello\n").unwrap();
        assert_eq!(answers(client, 1), ["1 hello"]);
    };
    assert_eq!(calls_of(&server, &calls, |client| one_request(&client)), expected, "by an end of file");
    // By silence, for longer than the handler's TIMEOUT.
    let made = calls_of(&server, &calls, |client| {
        one_request(&client);
        assert_eq!(client.recv(1).unwrap(), b"", "the server gives up");
    });
    assert_eq!(made, expected, "by silence");
}

#[test]
fn a_client_that_has_ended_is_told_so_whoever_holds_a_second_descriptor() {
    let (keep, kept) = mpsc::channel();
    let server = ThreadingTCPServer::new(
        ("127.0.0.1", 0),
        sockserver::handler_fn(move |cx| {
            // A thread of its own may go on with it, but not for this client.
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

/// Answers each line, of which a request holds two, and reads each in another way.
struct ManyReaders;

impl StreamRequestHandler for ManyReaders {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut lines = String::new();
        // It takes no byte that belongs to the others.
        SocketReader::new(cx.request, 0).read_line(&mut lines)?;
        lines += &String::from_utf8_lossy(&cx.request.recv(2)?);
        cx.rfile.read_line(&mut lines)?;
        cx.close_connection = lines.starts_with('-');
        cx.wfile.write_all(lines.as_bytes())
    }
}

#[test]
fn what_was_read_ahead_comes_first_whoever_reads() {
    fn requests<M: MixIn + Default>() {
        let server =
            StreamServer::<sockserver::kind::Inet, M>::new(("127.0.0.1", 0), || ManyReaders).unwrap();
        thread::scope(|scope| {
            let _stop = StopAtEnd(server.handle());
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

/// Reads the name the client begins with; with it comes the first request.
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

fn what_setup_read_ahead_is_served<M: MixIn + Default>() {
    let server = sockserver::testing::serve(
        StreamServer::<sockserver::kind::Inet, M>::new(("127.0.0.1", 0), Named::default).unwrap(),
    );
    let client = server.connect().unwrap();
    client.sendall(b"alice\none\ntwo\n").unwrap();
    assert_eq!(answers(&client, 2), ["alice one", "alice two"]);
}

#[test]
fn what_setup_has_read_ahead_is_the_first_request() {
    what_setup_read_ahead_is_served::<sockserver::Sequential>();
    what_setup_read_ahead_is_served::<sockserver::ThreadingMixIn>();
    #[cfg(unix)]
    what_setup_read_ahead_is_served::<sockserver::SelectorMixIn>();
}

/// Answers a line a request, which it reads with a buffer of its own.
struct OwnReader;

impl StreamRequestHandler for OwnReader {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.rfile = SocketReader::new(cx.request, 16);
        let mut line = String::new();
        cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
        cx.wfile.write_all(line.as_bytes())
    }
}

fn a_smaller_reader_loses_nothing<M: MixIn + Default>() {
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
fn what_a_reader_of_the_handlers_own_leaves_comes_before_the_rest() {
    a_smaller_reader_loses_nothing::<sockserver::ThreadingMixIn>();
    #[cfg(unix)]
    a_smaller_reader_loses_nothing::<sockserver::SelectorMixIn>();
}
