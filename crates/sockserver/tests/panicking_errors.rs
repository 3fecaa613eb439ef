//! The promise: an error whose `Display`, `source` or `Drop` panics, and a logger that panics, end
//! at most the request concerned. No worker is lost, in any model, and the server stops.

mod support;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sock::{Address, SHUT_WR, Shutdown, Socket, StreamSocket};
use sockserver::{
    Job, MixIn, Rejected, Sequential, ServerHooks, StreamContext, StreamRequestHandler, StreamServer,
    ThreadPoolMixIn, ThreadingMixIn, UDPServer, WhenQueueFull, datagram_handler_fn, kind::Inet, testing,
};

use support::{LOOPBACK, connect_to, datagram_client, read_to_end, wait_for_stats};

/// More than any model of these tests has workers.
const ROUNDS: usize = 12;

/// Records each line, and then panics.
struct PanickingLogger;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl log::Log for PanickingLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}", record.level(), record.args());
        LINES.lock().push(line);
        panic!("as planned");
    }

    fn flush(&self) {}
}

fn begin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default_hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"as planned") {
                default_hook(info);
            }
        }));
        log::set_logger(&PanickingLogger).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// Panics in each of its methods.
#[derive(Debug)]
struct Panicking;

impl fmt::Display for Panicking {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("as planned");
    }
}

impl Error for Panicking {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        panic!("as planned");
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        panic!("as planned");
    }
}

fn error() -> io::Error {
    io::Error::other(Panicking)
}

/// Fails, and its `finish` fails too, unless it is the last request of a test.
struct Failing(bool);

impl StreamRequestHandler for Failing {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        if self.0 {
            return Err(error());
        }
        cx.wfile.write_all(b"served")
    }

    fn finish(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        if self.0 { Err(error()) } else { Ok(()) }
    }
}

/// A stream of the user that panics when it is asked for its socket after the first byte.
struct PanickingStream(Socket, AtomicUsize);

impl StreamSocket for PanickingStream {
    fn recv_into(&self, _: &mut [u8]) -> io::Result<usize> {
        panic!("as planned");
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.send(data)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    fn socket(&self) -> &Socket {
        assert!(self.1.fetch_add(1, Ordering::Relaxed) < 3, "as planned");
        &self.0
    }
}

impl Drop for PanickingStream {
    fn drop(&mut self) {
        panic!("as planned");
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Handler,
    WrapRequest,
    GetRequest,
    Stream,
}

struct Hooks(Place, AtomicUsize);

impl ServerHooks for Hooks {
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        let accepted = socket.accept()?;
        let fails = self.0 == Place::GetRequest && self.1.fetch_add(1, Ordering::SeqCst) < ROUNDS;
        if fails { Err(error()) } else { Ok(accepted) }
    }
}

fn no_worker_is_lost<M: MixIn + Default>(model: &str, mixin: M, place: Place) {
    let made = AtomicUsize::new(0);
    let wrapped = AtomicUsize::new(0);
    let server = StreamServer::<Inet, M>::builder(move || {
        Failing(place == Place::Handler && made.fetch_add(1, Ordering::SeqCst) < ROUNDS)
    })
    .mixin(mixin)
    .hooks(Hooks(place, AtomicUsize::new(0)))
    .wrap_request(move |socket, _| {
        let is_first = wrapped.fetch_add(1, Ordering::SeqCst) < ROUNDS;
        match place {
            Place::WrapRequest if is_first => Err(error()),
            Place::Stream if is_first => {
                Ok(sockserver::WrappedRequest::from(PanickingStream(socket, AtomicUsize::new(0))))
            }
            _ => Ok(socket.into()),
        }
    });
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    for round in 0..ROUNDS {
        let client = connect_to(server.address());
        client.sendall(b"!").unwrap();
        let _ = client.shutdown(SHUT_WR);
        let answer = read_to_end(&client);
        let allowed = ["", "ConnectionReset", "served"];
        assert!(allowed.contains(&answer.as_str()), "{model} {place:?} {round}: {answer}");
    }
    let client = connect_to(server.address());
    client.sendall(b"!").unwrap();
    let _ = client.shutdown(SHUT_WR);
    assert_eq!(read_to_end(&client), "served", "{model} {place:?}: a worker was lost");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    let failed = stats.failed + stats.panicked + stats.lost_before_accept;
    let expected = if place == Place::Stream { stats.panicked } else { ROUNDS as u64 };
    assert_eq!(failed, expected, "{model} {place:?}: {stats:?}");
    // The drop of `server` fails the test if the loop does not end.
}

#[test]
fn errors_that_panic_cost_no_worker_in_any_model() {
    begin();
    for place in [Place::Handler, Place::WrapRequest, Place::GetRequest, Place::Stream] {
        no_worker_is_lost("sequential", Sequential, place);
        no_worker_is_lost("threading", ThreadingMixIn::new(), place);
        no_worker_is_lost("pool", ThreadPoolMixIn::new().workers(2), place);
        let queue = ThreadPoolMixIn::new().workers(2).queue(4, WhenQueueFull::Wait);
        no_worker_is_lost("pool with a queue", queue, place);
        #[cfg(unix)]
        {
            let selector = sockserver::SelectorMixIn::new().workers(2).max_workers(3);
            no_worker_is_lost("selector", selector, place);
        }
    }
    let lines = LINES.lock();
    let expected = "an error that cannot be displayed: panicked: as planned";
    assert!(lines.iter().any(|line| line.starts_with("ERROR") && line.contains(expected)), "{lines:?}");
}

#[test]
fn a_datagram_handler_whose_error_panics_does_not_end_the_loop() {
    begin();
    let failed = AtomicUsize::new(0);
    let handler = datagram_handler_fn(move |cx| {
        if failed.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(error());
        }
        cx.wfile.write_all(b"served")
    });
    let server = testing::serve(UDPServer::new(LOOPBACK, handler).unwrap());
    let client = datagram_client(sock::AF_INET);
    client.connect(server.address()).unwrap();
    client.send(b"one").unwrap();
    client.send(b"two").unwrap();
    assert_eq!(client.recv(10).unwrap(), b"served");
}

/// A mixin of the user that panics for its first request, and in each of its other methods.
#[derive(Default)]
struct PanickingMixIn(AtomicUsize);

impl MixIn for PanickingMixIn {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("as planned");
        }
        job.run();
        Ok(())
    }

    fn service_actions(&self) {
        panic!("as planned");
    }

    fn handle_timeout(&self) {
        panic!("as planned");
    }

    fn server_close(&self, _server: &sockserver::ServerHandle) -> io::Result<()> {
        panic!("as planned");
    }
}

#[test]
fn a_mixin_that_panics_does_not_end_the_loop() {
    begin();
    let server = StreamServer::<Inet, PanickingMixIn>::builder(|| Failing(false));
    let server = server.timeout(Duration::ZERO).bind(LOOPBACK).unwrap();
    server.handle_request().unwrap();
    let handle = server.handle();
    std::thread::scope(|scope| {
        let _stop = support::StopOnDrop(handle);
        let serving = scope.spawn(|| server.serve_forever());
        assert_eq!(read_to_end(&connect_to(server.server_address())), "");
        assert_eq!(read_to_end(&connect_to(server.server_address())), "served");
        server.shutdown().unwrap();
        serving.join().unwrap().unwrap();
    });
    let closed = server.server_close().unwrap_err().to_string();
    assert_eq!(closed, "server_close of the mixin panicked: as planned");
}

/// Panics when the server drops the factory that owns it.
struct PanickingFactory;

impl Drop for PanickingFactory {
    fn drop(&mut self) {
        panic!("as planned");
    }
}

#[test]
fn a_worker_that_drops_the_factory_last_survives_its_panic() {
    begin();
    let gate = support::Gate::new();
    let _open = support::OpenOnDrop(gate.clone());
    let at_the_gate = gate.clone();
    let factory = PanickingFactory;
    let handler = sockserver::handler_fn(move |cx: &mut StreamContext<'_>| {
        let _ = &factory;
        at_the_gate.pass();
        cx.wfile.write_all(b"served")
    });
    let mixin = ThreadingMixIn::new().daemon_threads(true);
    let server = StreamServer::<Inet, ThreadingMixIn>::builder(handler).mixin(mixin);
    let server = server.bind(LOOPBACK).unwrap();
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    gate.wait_for(1);
    drop(server);
    gate.open();
    assert_eq!(read_to_end(&client), "served");
}
