//! The promise: `wrap_request` is called for every request, whatever it made of those
//! before: no client talks around it. Each call of an override has its deadline.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sock::{Shutdown, Socket, StreamSocket};
#[cfg(unix)]
use sockserver::SelectorTCPServer;
use sockserver::kind::{Inet, Stream};
use sockserver::testing;
use sockserver::{
    Builder, MixIn, ServerHooks, StreamContext, StreamRequestHandler, TCPServer, ThreadPoolTCPServer,
    ThreadingTCPServer,
};

const ANY: (&str, u16) = ("127.0.0.1", 0);

struct Line;

impl StreamRequestHandler for Line {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        cx.close_connection = cx.rfile.read_until(b'\n', &mut line)? == 0;
        cx.wfile.write_all(&line)
    }
}

/// A stream that shouts.
struct Loud(Box<dyn StreamSocket>);

impl StreamSocket for Loud {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_into(buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(&data.to_ascii_uppercase())
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    fn socket(&self) -> &Socket {
        self.0.socket()
    }
}

/// Hooks that replace nothing, for others to go on with.
struct Plain;

impl ServerHooks for Plain {}

/// Wraps what the default returns; fails for the second client, and leaves every third
/// as it is.
#[derive(Default)]
struct Choosy(AtomicUsize);

impl ServerHooks for Choosy {
    fn wrap_request(&self, request: Socket) -> io::Result<Box<dyn StreamSocket>> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        match number % 3 {
            0 => Plain.wrap_request(request),
            1 => Err(io::Error::other("not this one")),
            _ => Ok(Box::new(Loud(Plain.wrap_request(request)?))),
        }
    }
}

#[track_caller]
fn wraps_as_it_likes<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let server = testing::serve(builder.hooks(Choosy::default()).bind(ANY).unwrap());
    for expected in ["hello\n", "", "HELLO\n"].repeat(3) {
        let client = server.connect().unwrap();
        client.sendall(b"hello\n").unwrap();
        let mut answer = String::new();
        // The failed one may end with a reset.
        let _ = client.makefile_rb().read_line(&mut answer);
        assert_eq!(answer, expected);
    }
}

#[test]
fn every_request_is_wrapped_in_every_model() {
    wraps_as_it_likes(TCPServer::builder(|| Line));
    wraps_as_it_likes(ThreadingTCPServer::builder(|| Line));
    wraps_as_it_likes(ThreadPoolTCPServer::builder(|| Line).workers(1));
    #[cfg(unix)]
    wraps_as_it_likes(SelectorTCPServer::builder(|| Line));
}

/// Leaves a client that sends `p` as it is, and waits for the end of any other.
struct Patient;

impl ServerHooks for Patient {
    fn wrap_request(&self, request: Socket) -> io::Result<Box<dyn StreamSocket>> {
        if request.recv(1)? == b"p" {
            return Plain.wrap_request(request);
        }
        while !request.recv(1)?.is_empty() {}
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Those that wait at the same time, after one that was left as it is.
#[track_caller]
fn has_its_deadline<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let builder = builder.hooks(Patient).wrap_timeout(Duration::from_millis(200));
    let server = testing::serve(builder.bind(ANY).unwrap());
    let limit = Duration::from_secs(10);
    let client = server.connect().unwrap();
    client.sendall(b"phello\n").unwrap();
    let mut answer = String::new();
    client.makefile_rb().read_line(&mut answer).unwrap();
    assert_eq!(answer, "hello\n");
    drop(client);

    let clients = [(); 2].map(|()| server.connect().unwrap());
    for client in &clients {
        client.settimeout(limit).unwrap();
        client.sendall(b"x").unwrap();
    }
    for client in &clients {
        assert_eq!(client.recv(1).unwrap(), b"", "it is closed");
    }
    let begin = Instant::now();
    while server.handle().stats().in_flight > 0 && begin.elapsed() < limit {
        std::thread::yield_now();
    }
    let stats = server.handle().stats();
    assert_eq!((stats.accepted, stats.timed_out.wrap, stats.in_flight), (3, 2, 0), "{stats:?}");
}

#[test]
fn every_call_of_an_override_has_its_deadline_in_every_model() {
    has_its_deadline(TCPServer::builder(|| Line));
    has_its_deadline(ThreadingTCPServer::builder(|| Line));
    has_its_deadline(ThreadPoolTCPServer::builder(|| Line).workers(2));
    #[cfg(unix)]
    has_its_deadline(SelectorTCPServer::builder(|| Line).workers(2));
}
