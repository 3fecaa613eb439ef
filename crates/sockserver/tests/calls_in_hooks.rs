//! The promise: `shutdown`, `drain` and `stats` return or fail in bounded time, in whichever hook of
//! whichever model they are called.

mod support;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use sock::{Address, Shutdown, Socket, StreamSocket};
#[cfg(unix)]
use sockserver::SelectorMixIn;
use sockserver::kind::Inet;
use sockserver::{
    Job, MixIn, Rejected, Request, RequestError, Sequential, ServerHandle, ServerHooks, ServerState, Step,
    StreamContext, StreamRequestHandler, StreamServer, TCPServer, ThreadPoolMixIn, ThreadingMixIn,
    WhenQueueFull, handler_fn,
};

use support::{LIMIT, LOOPBACK, connect_to, read_to_end};

/// A drain that waits for its own request would take as long.
const LONG: Duration = Duration::from_secs(3600);

const CALLS: [&str; 4] = ["shutdown", "drain", "stats", "wait_until_idle"];

/// The places from which a call is made: the hooks, the steps of a handler, and destructors.
const PLACES: [&str; 19] = [
    "get_request",
    "get_request error",
    "verify_request",
    "refuse_request",
    "handle_error",
    "shutdown_request",
    "close_request",
    "server_close",
    "handle_timeout",
    "state_changed to Ready",
    "state_changed to Draining",
    "wrap_request",
    "wrap_request stream drop",
    "service_actions",
    "make handler",
    "setup",
    "handle",
    "finish",
    "handler drop",
];

/// Makes one call when its place is reached for the first time, and reports that it has returned.
#[derive(Debug)]
struct Caller {
    place: &'static str,
    call: &'static str,
    reached: AtomicBool,
    handle: OnceLock<ServerHandle>,
    returned: mpsc::Sender<Option<io::ErrorKind>>,
}

impl Caller {
    fn reach(&self, place: &'static str) {
        let Some(handle) = self.handle.get().filter(|_| place == self.place) else { return };
        if self.reached.swap(true, Ordering::SeqCst) {
            return;
        }
        let result = match self.call {
            "shutdown" => handle.shutdown(),
            "drain" => handle.drain(LONG).map(drop),
            "stats" => {
                assert!(handle.stats().is_consistent());
                Ok(())
            }
            _ => {
                let _ = handle.wait_until_idle();
                Ok(())
            }
        };
        let _ = self.returned.send(result.err().map(|error| error.kind()));
    }
}

#[derive(Clone)]
struct Hooks(Arc<Caller>);

impl ServerHooks for Hooks {
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        let accepted = socket.accept()?;
        if self.0.place == "get_request error" && !self.0.reached.load(Ordering::SeqCst) {
            return Err(io::Error::other(CallsWhenShown(Arc::clone(&self.0))));
        }
        self.0.reach("get_request");
        Ok(accepted)
    }

    fn verify_request(&self, _request: &Request, _client_address: &Address) -> bool {
        self.0.reach("verify_request");
        // Its close calls hooks where requests are accepted.
        !["shutdown_request", "close_request"].contains(&self.0.place)
    }

    fn refuse_request(&self, _request: &Request, _client_address: &Address) {
        self.0.reach("refuse_request");
    }

    fn handle_error(&self, _error: &RequestError, _client_address: &Address) {
        self.0.reach("handle_error");
    }

    fn shutdown_request(&self, _request: &Request) {
        self.0.reach("shutdown_request");
    }

    fn close_request(&self, _request: &Request) {
        self.0.reach("close_request");
    }

    fn server_close(&self) {
        self.0.reach("server_close");
    }

    fn handle_timeout(&self) {
        self.0.reach("handle_timeout");
    }

    fn state_changed(&self, state: ServerState) {
        match state {
            ServerState::Ready => self.0.reach("state_changed to Ready"),
            ServerState::Draining => self.0.reach("state_changed to Draining"),
            _ => {}
        }
    }
}

/// An error of `get_request` that makes the call when it is dropped, after it was logged.
#[derive(Debug)]
struct CallsWhenShown(Arc<Caller>);

impl std::fmt::Display for CallsWhenShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("rejected by a hook")
    }
}

impl std::error::Error for CallsWhenShown {}

impl Drop for CallsWhenShown {
    fn drop(&mut self) {
        self.0.reach("get_request error");
    }
}

/// A stream that makes the call when it is dropped.
struct Wrapped(Socket, Arc<Caller>);

impl StreamSocket for Wrapped {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv_into(buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(data)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    fn socket(&self) -> &Socket {
        &self.0
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        self.1.reach("wrap_request stream drop");
    }
}

struct Handler(Arc<Caller>);

impl StreamRequestHandler for Handler {
    fn setup(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.reach("setup");
        Ok(())
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.reach("handle");
        cx.wfile.write_all(b"served")?;
        if self.0.place == "handle_error" { Err(io::Error::other("as planned")) } else { Ok(()) }
    }

    fn finish(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.reach("finish");
        Ok(())
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.0.reach("handler drop");
    }
}

/// Drops a job that it has run for one step only, so its close runs in a destructor.
#[derive(Default)]
struct DropsJobs;

impl MixIn for DropsJobs {
    fn process_request(&self, mut job: Job) -> Result<(), Rejected> {
        if job.step() == Step::Again {
            drop(job);
        }
        Ok(())
    }
}

fn returns_in_bounded_time<M: MixIn + Default>(model: &str, mixin: impl Fn() -> M) {
    for place in PLACES {
        for call in CALLS {
            let (returned, returns) = mpsc::channel();
            let caller = Arc::new(Caller {
                place,
                call,
                reached: AtomicBool::new(false),
                handle: OnceLock::new(),
                returned,
            });
            let (made, wrapped, acting) = (Arc::clone(&caller), Arc::clone(&caller), Arc::clone(&caller));
            let mut builder = StreamServer::<Inet, M>::builder(move || {
                made.reach("make handler");
                Handler(Arc::clone(&made))
            })
            .hooks(Hooks(Arc::clone(&caller)))
            .mixin(mixin())
            .linger_timeout(Duration::ZERO)
            .close_timeout(Some(Duration::from_secs(1)));
            if place.starts_with("wrap_request") {
                builder = builder.wrap_request(move |socket, _| {
                    wrapped.reach("wrap_request");
                    Ok(Wrapped(socket, Arc::clone(&wrapped)))
                });
            }
            if place == "service_actions" {
                builder = builder.service_actions(move |_| acting.reach("service_actions"));
            }
            let times_out = place == "handle_timeout";
            if times_out {
                builder = builder.timeout(Duration::from_millis(1));
            }
            if place == "refuse_request" {
                builder = builder.max_connections_per_ip(0);
            }
            let server = builder.bind(LOOPBACK).unwrap();
            let handle = server.handle();
            let _ = caller.handle.set(handle.clone());
            let clients: Vec<_> = (0..if times_out { 0 } else { 2 })
                .map(|_| {
                    let client = connect_to(server.server_address());
                    client.sendall(b"a request").unwrap();
                    client
                })
                .collect();
            let (ended, end) = mpsc::channel();
            thread::spawn(move || {
                let served = if times_out { server.handle_request() } else { server.serve_forever() };
                let _ = ended.send(served.and_then(|()| server.server_close()));
            });
            if ["server_close", "state_changed to Draining"].contains(&place) {
                handle.request_shutdown().unwrap();
            }
            let what = format!("{call} in {place} of {model}");
            let result = returns.recv_timeout(LIMIT);
            let error = result.unwrap_or_else(|_| panic!("{what} does not return"));
            assert!(error.is_none_or(|kind| kind == io::ErrorKind::Deadlock), "{what}: {error:?}");
            handle.request_shutdown().unwrap();
            let end = end.recv_timeout(LIMIT);
            end.unwrap_or_else(|_| panic!("the server does not stop after {what}")).unwrap();
            drop(clients);
        }
    }
}

#[test]
fn calls_in_hooks_of_the_sequential_model_return_or_fail() {
    returns_in_bounded_time("Sequential", || Sequential);
    returns_in_bounded_time("a mixin that drops jobs", || DropsJobs);
}

#[test]
fn calls_in_hooks_of_the_threading_model_return_or_fail() {
    returns_in_bounded_time("ThreadingMixIn", ThreadingMixIn::new);
}

#[test]
fn calls_in_hooks_of_the_pool_model_return_or_fail() {
    returns_in_bounded_time("ThreadPoolMixIn", || ThreadPoolMixIn::new().workers(2));
    let queued = || ThreadPoolMixIn::new().workers(2).queue(2, WhenQueueFull::Wait);
    returns_in_bounded_time("ThreadPoolMixIn with a queue", queued);
}

#[cfg(unix)]
#[test]
fn calls_in_hooks_of_the_selector_model_return_or_fail() {
    returns_in_bounded_time("SelectorMixIn", || SelectorMixIn::new().workers(2));
}

#[test]
fn a_handler_that_runs_another_server_cannot_drain_its_own() {
    let (sender, receiver) = mpsc::channel();
    let outer: Arc<OnceLock<ServerHandle>> = Arc::default();
    let own = Arc::clone(&outer);
    let server = StreamServer::<Inet, ThreadingMixIn>::builder(handler_fn(move |_| {
        let (own, sender) = (Arc::clone(&own), sender.clone());
        let inner = TCPServer::new(
            LOOPBACK,
            handler_fn(move |_| {
                let drained = own.get().map(|handle| handle.drain(LONG));
                let _ = sender.send(drained.and_then(Result::err).map(|error| error.kind()));
                Ok(())
            }),
        )?;
        let _client = connect_to(inner.server_address());
        inner.handle_request()
    }))
    .bind(LOOPBACK)
    .unwrap();
    let _ = outer.set(server.handle());
    let client = connect_to(server.server_address());
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(server.serve_forever()));
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap(), Some(io::ErrorKind::Deadlock));
    end.recv_timeout(LIMIT).expect("it stops").unwrap();
    read_to_end(&client);
}
