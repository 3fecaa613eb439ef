//! The promise: hooks and handlers are called in CPython's order.
//!
//! The rows are those of CPython 3.11, observed with every method logged. Where
//! a step is called differently here: `finish_request` is the factory that makes
//! the handler, and `wrap_request`, which Python lacks, comes right before it.
//! The rows of the forking mixin are in `tests/process_tests`, since they fork.

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use parking_lot::Mutex;
use sock::{Address, Shutdown, Socket, ToAddress};
use sockserver::kind::Inet;
use sockserver::{
    DatagramContext, DatagramRequestHandler, DatagramServer, Job, MixIn, Rejected, Request, RequestError,
    Sequential, ServerHandle, ServerHooks, StreamContext, StreamRequestHandler, StreamServer, TCPServer,
    ThreadingMixIn, handler_fn, testing,
};

use support::{LOOPBACK, StopAtEnd, client_of, rest_of};

/// Every call, with the thread it was made in.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(ThreadId, &'static str)>>>);

impl Log {
    fn add(&self, call: &'static str) {
        self.0.lock().push((thread::current().id(), call));
    }

    /// All calls since the last look, whoever made them.
    fn take(&self) -> String {
        let calls = std::mem::take(&mut *self.0.lock());
        calls.iter().map(|(_, call)| *call).collect::<Vec<_>>().join(" ")
    }

    /// The same, this thread's apart from the others'.
    fn take_by_thread(&self) -> (String, String) {
        let (ours, others): (Vec<_>, Vec<_>) = std::mem::take(&mut *self.0.lock())
            .into_iter()
            .partition(|(thread, _)| *thread == thread::current().id());
        let names = |calls: Vec<(ThreadId, &'static str)>| {
            calls.into_iter().map(|(_, call)| call).collect::<Vec<_>>().join(" ")
        };
        (names(ours), names(others))
    }
}

/// What goes wrong in this server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Setup,
    Handle,
    HandlePanics,
    Verify,
    VerifyPanics,
    Wrap,
    Start,
    Bind,
    Activate,
    HandleErrorPanics,
}

#[derive(Clone)]
struct Logged {
    log: Log,
    fault: Fault,
}

impl Logged {
    /// Fails with an error here if that is this server's fault.
    fn step(&self, call: &'static str, fault: Fault) -> io::Result<()> {
        self.log.add(call);
        if self.fault == fault { Err(io::Error::other("as planned")) } else { Ok(()) }
    }
}

impl ServerHooks for Logged {
    fn server_bind(&self, socket: &Socket, address: &Address) -> io::Result<()> {
        self.step("server_bind", Fault::Bind)?;
        socket.bind(address)
    }

    fn server_activate(&self, socket: &Socket, request_queue_size: i32) -> io::Result<()> {
        self.step("server_activate", Fault::Activate)?;
        socket.listen(request_queue_size)
    }

    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        let taken = socket.accept()?;
        self.log.add("get_request");
        Ok(taken)
    }

    fn verify_request(&self, _request: &Request, _client_address: &Address) -> bool {
        self.log.add("verify_request");
        assert!(self.fault != Fault::VerifyPanics, "as planned");
        self.fault != Fault::Verify
    }

    fn handle_error(&self, _error: &RequestError, _client_address: &Address) {
        self.log.add("handle_error");
        assert!(self.fault != Fault::HandleErrorPanics, "as planned");
    }

    fn shutdown_request(&self, request: &Request) {
        self.log.add("shutdown_request");
        if let Some(stream) = request.stream() {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn close_request(&self, _request: &Request) {
        self.log.add("close_request");
    }

    fn handle_timeout(&self) {
        self.log.add("handle_timeout");
    }

    fn server_close(&self) {
        self.log.add("server_close");
    }
}

/// A handler; its factory logs Python's `finish_request`.
struct Handler(Logged);

impl Handler {
    fn handled(&self) -> io::Result<()> {
        self.0.step("handle", Fault::Handle)?;
        assert!(self.0.fault != Fault::HandlePanics, "as planned");
        if self.0.fault == Fault::HandleErrorPanics { Err(io::Error::other("as planned")) } else { Ok(()) }
    }
}

impl StreamRequestHandler for Handler {
    fn setup(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.step("setup", Fault::Setup)
    }

    fn handle(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.handled()
    }

    fn finish(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.log.add("finish");
        Ok(())
    }
}

impl DatagramRequestHandler for Handler {
    fn setup(&mut self, _cx: &mut DatagramContext<'_>) -> io::Result<()> {
        self.0.step("setup", Fault::Setup)
    }

    fn handle(&mut self, _cx: &mut DatagramContext<'_>) -> io::Result<()> {
        self.handled()
    }

    fn finish(&mut self, _cx: &mut DatagramContext<'_>) -> io::Result<()> {
        self.0.log.add("finish");
        Ok(())
    }
}

/// A mixin that logs, and leaves the work to another.
#[derive(Default)]
struct LoggedMixIn<M> {
    log: Option<Logged>,
    inner: M,
}

impl<M: MixIn> MixIn for LoggedMixIn<M> {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        let Some(log) = &self.log else {
            return self.inner.process_request(job);
        };
        match log.step("process_request", Fault::Start) {
            Ok(()) => self.inner.process_request(job),
            Err(error) => Err(job.reject(error)),
        }
    }

    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        self.inner.server_close(server)
    }
}

type Made<S> = (S, Logged);

fn factory(logged: &Logged) -> impl Fn() -> Handler + Send + Sync + 'static {
    let logged = logged.clone();
    move || {
        logged.log.add("finish_request");
        Handler(logged.clone())
    }
}

fn tcp<M: MixIn + Default>(fault: Fault) -> io::Result<Made<StreamServer<Inet, LoggedMixIn<M>>>> {
    let logged = Logged { log: Log::default(), fault };
    let (wrapping, serving) = (logged.clone(), logged.clone());
    let server = StreamServer::<Inet, LoggedMixIn<M>>::builder(factory(&logged))
        .hooks(logged.clone())
        .wrap_request(move |request, _| wrapping.step("wrap_request", Fault::Wrap).map(|()| request))
        .service_actions(move |_| serving.log.add("service_actions"))
        .mixin(LoggedMixIn { log: Some(logged.clone()), inner: M::default() })
        .timeout(Duration::from_secs(20))
        .poll_interval(Duration::from_secs(3600))
        .bind(("127.0.0.1", 0))?;
    Ok((server, logged))
}

fn connect(address: &Address) -> Socket {
    let sock = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
    sock.connect(address).unwrap();
    sock
}

/// One TCP request with `fault`, served in this thread: all calls after the
/// server was made.
#[track_caller]
fn calls_of_one_request(fault: Fault) -> String {
    let (server, logged) = tcp::<Sequential>(fault).unwrap();
    assert_eq!(logged.log.take(), "server_bind server_activate");
    let client = connect(server.server_address());
    server.handle_request().unwrap();
    let calls = logged.log.take();
    assert_eq!(client.recv(1).unwrap_or_default(), b"", "the request is closed whatever happened");
    calls
}

#[test]
fn a_request_that_succeeds() {
    assert_eq!(
        calls_of_one_request(Fault::None),
        "get_request verify_request process_request wrap_request finish_request setup handle finish \
         shutdown_request close_request"
    );
}

#[test]
fn a_handler_that_fails_is_finished_before_its_error_is_handled() {
    let expected = "get_request verify_request process_request wrap_request finish_request setup handle finish \
                    handle_error shutdown_request close_request";
    assert_eq!(calls_of_one_request(Fault::Handle), expected);
    assert_eq!(calls_of_one_request(Fault::HandlePanics), expected);
    assert_eq!(calls_of_one_request(Fault::HandleErrorPanics), expected);
}

#[test]
fn a_handler_whose_setup_fails_is_not_finished() {
    assert_eq!(
        calls_of_one_request(Fault::Setup),
        "get_request verify_request process_request wrap_request finish_request setup handle_error \
         shutdown_request close_request"
    );
}

#[test]
fn a_request_that_is_not_verified_is_shut_down_all_the_same() {
    // bpo-26309.
    assert_eq!(
        calls_of_one_request(Fault::Verify),
        "get_request verify_request shutdown_request close_request"
    );
}

#[test]
fn a_panic_in_verify_request_is_a_refusal_with_an_error() {
    // In CPython it leaves the loop and the request stays open.
    assert_eq!(
        calls_of_one_request(Fault::VerifyPanics),
        "get_request verify_request handle_error shutdown_request close_request"
    );
}

#[test]
fn a_request_that_cannot_be_wrapped_never_reaches_a_handler() {
    // The socket went into wrap_request and is closed there: nothing is left to shut down.
    assert_eq!(
        calls_of_one_request(Fault::Wrap),
        "get_request verify_request process_request wrap_request handle_error"
    );
}

#[test]
fn a_request_that_cannot_be_started_is_reported_and_closed_in_the_loop() {
    assert_eq!(
        calls_of_one_request(Fault::Start),
        "get_request verify_request process_request handle_error shutdown_request close_request"
    );
}

#[test]
fn a_server_that_cannot_be_made_calls_no_more_hooks() {
    for (fault, expected) in
        [(Fault::Bind, "server_bind"), (Fault::Activate, "server_bind server_activate")]
    {
        let logged = Logged { log: Log::default(), fault };
        let error = StreamServer::<Inet, Sequential>::builder(factory(&logged))
            .hooks(logged.clone())
            .bind(("127.0.0.1", 0))
            .unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:0: as planned"), "{error}");
        assert_eq!(logged.log.take(), expected);
    }
}

#[test]
fn handle_request_that_waits_in_vain_calls_handle_timeout() {
    let logged = Logged { log: Log::default(), fault: Fault::None };
    let server = StreamServer::<Inet, Sequential>::builder(factory(&logged))
        .hooks(logged.clone())
        .timeout(Duration::from_millis(20))
        .bind(("127.0.0.1", 0))
        .unwrap();
    logged.log.take();
    server.handle_request().unwrap();
    assert_eq!(logged.log.take(), "handle_timeout");
    server.server_close().unwrap();
    assert_eq!(logged.log.take(), "server_close");
}

#[test]
fn service_actions_comes_after_every_request() {
    let (server, logged) = tcp::<Sequential>(Fault::None).unwrap();
    // Both wait in the listener's queue before the loop begins.
    let clients = [connect(server.server_address()), connect(server.server_address())];
    let handle = server.handle();
    logged.log.take();
    thread::scope(|scope| {
        let _stop = StopAtEnd(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        for client in &clients {
            client.recv(1).unwrap();
        }
        handle.shutdown().unwrap();
    });
    let request = "get_request verify_request process_request wrap_request finish_request setup handle finish \
                   shutdown_request close_request service_actions";
    let calls = logged.log.take();
    // The stop can come before the last turn's service_actions or after it.
    let both = format!("{request} {request}");
    assert_eq!(calls.trim_end_matches(" service_actions"), both.trim_end_matches(" service_actions"));
}

#[test]
fn with_threads_the_loop_only_starts_what_the_worker_does() {
    let (server, logged) = tcp::<ThreadingMixIn>(Fault::Handle).unwrap();
    let client = connect(server.server_address());
    logged.log.take();
    server.handle_request().unwrap();
    assert_eq!(client.recv(1).unwrap(), b"", "closed by the worker");
    server.server_close().unwrap();
    let (the_loop, worker) = logged.log.take_by_thread();
    assert_eq!(the_loop, "get_request verify_request process_request server_close");
    assert_eq!(
        worker,
        "wrap_request finish_request setup handle finish handle_error shutdown_request close_request"
    );
}

/// One datagram with `fault`, served in this thread.
#[track_caller]
fn calls_of_one_datagram<F: sockserver::kind::Family>(
    fault: Fault,
    address: impl ToAddress,
    client: &Socket,
) -> String {
    let logged = Logged { log: Log::default(), fault };
    let server = DatagramServer::<F, LoggedMixIn<Sequential>>::builder(factory(&logged))
        .hooks(logged.clone())
        .mixin(LoggedMixIn { log: Some(logged.clone()), inner: Sequential })
        .timeout(Duration::from_secs(20))
        .bind(address)
        .unwrap();
    assert_eq!(logged.log.take(), "server_bind", "a datagram server does not listen");
    client.sendto(b"x", server.server_address()).unwrap();
    server.handle_request().unwrap();
    logged.log.take()
}

#[test]
fn datagrams_go_the_same_way_without_a_connection() {
    let success =
        "verify_request process_request finish_request setup handle finish shutdown_request close_request";
    let failure = "verify_request process_request finish_request setup handle finish handle_error \
                   shutdown_request close_request";
    let client = Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0).unwrap();
    assert_eq!(calls_of_one_datagram::<Inet>(Fault::None, ("127.0.0.1", 0), &client), success);
    assert_eq!(calls_of_one_datagram::<Inet>(Fault::Handle, ("127.0.0.1", 0), &client), failure);
    assert_eq!(
        calls_of_one_datagram::<Inet>(Fault::Verify, ("127.0.0.1", 0), &client),
        "verify_request shutdown_request close_request"
    );
}

// Windows has no Unix datagrams.
#[cfg(unix)]
#[test]
fn unix_datagrams_go_that_way_too() {
    // An empty name: the system picks one.
    let client = Socket::new(sock::AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let unnamed = Address::Unix(sock::UnixAddress::Unnamed);
    assert_eq!(
        calls_of_one_datagram::<sockserver::kind::Unix>(Fault::HandlePanics, unnamed, &client),
        "verify_request process_request finish_request setup handle finish handle_error shutdown_request \
         close_request"
    );
}

/// Counts how often a client is asked for.
struct Asked(Arc<AtomicUsize>);

impl ServerHooks for Asked {
    fn get_request(&self, listener: &Socket) -> io::Result<(Socket, Address)> {
        self.0.fetch_add(1, Ordering::SeqCst);
        listener.accept()
    }
}

#[test]
fn get_request_is_called_when_a_client_is_there_and_seldom_in_vain() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server =
        TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"served"))).hooks(Asked(Arc::clone(&asked)));
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    for _ in 0..9 {
        assert_eq!(rest_of(&client_of(server.address())), "served");
    }
    // The first attempt, and one after eight turns that waited before they tried.
    let asked = asked.load(Ordering::SeqCst);
    assert!((9..=11).contains(&asked), "{asked} times for 9 clients");
}
