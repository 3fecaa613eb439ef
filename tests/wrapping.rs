//! The promise: `wrap_request` is called for every request, whatever it made of those
//! before: no client talks around it.

use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use sock::{Shutdown, Socket, StreamSocket};
#[cfg(unix)]
use sockserver::SelectorTCPServer;
use sockserver::testing;
use sockserver::{
    Builder, Inet, MixIn, ServerHooks, Stream, StreamContext, StreamRequestHandler, TCPServer,
    ThreadPoolTCPServer, ThreadingTCPServer,
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
