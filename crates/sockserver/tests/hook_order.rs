//! The promise: hooks and handlers are called in CPython's order.
//!
//! The expected calls were recorded on CPython 3.11 with every method logged. `finish_request` is the
//! call of the handler factory here, and `wrap_request`, which Python does not have, precedes it. The
//! forking mixin is tested in `tests/process_tests`.

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

use support::{LOOPBACK, StopOnDrop, connect_to, read_to_end};

/// All calls, with the thread of each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(ThreadId, &'static str)>>>);

impl Log {
    fn add(&self, call: &'static str) {
        self.0.lock().push((thread::current().id(), call));
    }

    /// Returns all calls since the last `take`, of all threads.
    fn take(&self) -> String {
        let calls = std::mem::take(&mut *self.0.lock());
        calls.iter().map(|(_, call)| *call).collect::<Vec<_>>().join(" ")
    }

    /// Returns the calls of this thread and those of other threads.
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

/// The step that fails in this server.
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
    /// Logs a step, and returns an error if it is the one that fails.
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

/// A handler whose factory logs Python's `finish_request`.
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

/// A mixin that logs its calls and delegates to another.
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

/// Serves one TCP request with `fault` in this thread. Returns all calls after the server was
/// created.
#[track_caller]
fn calls_of_one_request(fault: Fault) -> String {
    let (server, logged) = tcp::<Sequential>(fault).unwrap();
    assert_eq!(logged.log.take(), "server_bind server_activate");
    let client = connect(server.server_address());
    server.handle_request().unwrap();
    let calls = logged.log.take();
    assert_eq!(client.recv(1).unwrap_or_default(), b"", "the request was not closed");
    calls
}

#[test]
fn calls_of_a_successful_request() {
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
fn a_request_that_is_not_verified_is_shut_down_and_closed() {
    // bpo-26309.
    assert_eq!(
        calls_of_one_request(Fault::Verify),
        "get_request verify_request shutdown_request close_request"
    );
}

#[test]
fn a_panic_in_verify_request_is_an_error_and_refuses_the_request() {
    // In CPython the exception ends the loop and the request stays open.
    assert_eq!(
        calls_of_one_request(Fault::VerifyPanics),
        "get_request verify_request handle_error shutdown_request close_request"
    );
}

#[test]
fn a_request_that_cannot_be_wrapped_never_reaches_a_handler() {
    // wrap_request consumes and closes the socket, so there is nothing to shut down.
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
fn a_server_that_cannot_be_created_calls_no_further_hooks() {
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
fn handle_request_calls_handle_timeout_after_its_timeout() {
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
fn service_actions_is_called_after_every_request() {
    let (server, logged) = tcp::<Sequential>(Fault::None).unwrap();
    // Both clients are queued before the loop begins.
    let clients = [connect(server.server_address()), connect(server.server_address())];
    let handle = server.handle();
    logged.log.take();
    thread::scope(|scope| {
        let _stop = StopOnDrop(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        for client in &clients {
            client.recv(1).unwrap();
        }
        handle.shutdown().unwrap();
    });
    let request = "get_request verify_request process_request wrap_request finish_request setup handle finish \
                   shutdown_request close_request service_actions";
    let calls = logged.log.take();
    // The stop may come before or after the last call of service_actions.
    let both = format!("{request} {request}");
    assert_eq!(calls.trim_end_matches(" service_actions"), both.trim_end_matches(" service_actions"));
}

#[test]
fn the_loop_starts_a_request_and_the_worker_thread_serves_it() {
    let (server, logged) = tcp::<ThreadingMixIn>(Fault::Handle).unwrap();
    let client = connect(server.server_address());
    logged.log.take();
    server.handle_request().unwrap();
    assert_eq!(client.recv(1).unwrap(), b"", "the worker did not close the request");
    server.server_close().unwrap();
    let (the_loop, worker) = logged.log.take_by_thread();
    assert_eq!(the_loop, "get_request verify_request process_request server_close");
    assert_eq!(
        worker,
        "wrap_request finish_request setup handle finish handle_error shutdown_request close_request"
    );
}

/// Serves one datagram with `fault` in this thread. Returns all calls.
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
    assert_eq!(logged.log.take(), "server_bind", "a datagram server called server_activate");
    client.sendto(b"x", server.server_address()).unwrap();
    server.handle_request().unwrap();
    logged.log.take()
}

#[test]
fn calls_of_a_datagram() {
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

// Windows does not support Unix datagrams.
#[cfg(unix)]
#[test]
fn calls_of_a_unix_datagram() {
    // The system chooses a name for an empty one.
    let client = Socket::new(sock::AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let unnamed = Address::Unix(sock::UnixAddress::Unnamed);
    assert_eq!(
        calls_of_one_datagram::<sockserver::kind::Unix>(Fault::HandlePanics, unnamed, &client),
        "verify_request process_request finish_request setup handle finish handle_error shutdown_request \
         close_request"
    );
}

/// Counts the calls of `get_request`.
struct Asked(Arc<AtomicUsize>);

impl ServerHooks for Asked {
    fn get_request(&self, listener: &Socket) -> io::Result<(Socket, Address)> {
        self.0.fetch_add(1, Ordering::SeqCst);
        listener.accept()
    }
}

#[test]
fn get_request_is_rarely_called_without_a_client() {
    let calls = Arc::new(AtomicUsize::new(0));
    let server =
        TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"served"))).hooks(Asked(Arc::clone(&calls)));
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    for _ in 0..9 {
        assert_eq!(read_to_end(&connect_to(server.address())), "served");
    }
    // The first attempt, and one after eight iterations that waited first.
    let calls = calls.load(Ordering::SeqCst);
    assert!((9..=11).contains(&calls), "{calls} calls for 9 clients");
}
