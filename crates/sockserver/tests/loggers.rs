//! The promise: no log line is written while a lock of the server is held. A logger may call the
//! server's handle, and one that blocks delays only the client that the line is about.

mod support;

use std::cell::Cell;
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Once, mpsc};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use sock::{Address, SHUT_WR, Socket};
#[cfg(unix)]
use sockserver::SelectorMixIn;
use sockserver::kind::Inet;
use sockserver::{
    AccessList, MixIn, Request, Sequential, ServerHandle, ServerHooks, ServerState, StreamContext,
    StreamServer, ThreadPoolMixIn, ThreadingMixIn, WhenQueueFull, handler_fn,
};

use support::{LIMIT, LOOPBACK, connect_to, read_to_end, wait_for_stats, wait_until};

/// What the logger of this program does with a record.
#[derive(Clone)]
enum Action {
    /// Calls `stats`.
    Stats(ServerHandle),
    /// Calls `shutdown`.
    Shutdown(ServerHandle),
    /// Blocks, if the record has this text.
    Block(String, Arc<Pipe>),
    /// Makes a call in every record.
    Call(Arc<dyn Fn() + Send + Sync>),
    /// Makes a call in the records of accept(2) of the thread that runs the duties.
    CallInDuties(Arc<dyn Fn() + Send + Sync>),
    /// Blocks in the first record of a client that was accepted.
    BlockAccepted(Arc<Pipe>),
}

impl Action {
    fn needs_trace(&self) -> bool {
        !matches!(self, Action::Block(..))
    }
}

/// A pipe that is full until it is opened.
#[derive(Default)]
struct Pipe {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
    /// It was not opened within the limit. The panic of a logger is caught.
    stayed_full: AtomicBool,
}

impl Pipe {
    fn write(&self) {
        let mut state = self.state.lock();
        state.1 += 1;
        while !state.0 {
            if self.changed.wait_for(&mut state, LIMIT).timed_out() {
                self.stayed_full.store(true, Ordering::SeqCst);
                return;
            }
        }
    }

    /// Blocks the first writer alone.
    fn write_first(&self) {
        if self.blocked() == 0 {
            self.write();
        }
    }

    fn open(&self) {
        self.state.lock().0 = true;
        self.changed.notify_all();
        let stayed_full = self.stayed_full.load(Ordering::SeqCst);
        assert!(thread::panicking() || !stayed_full, "the test waits for the blocked line");
    }

    fn blocked(&self) -> usize {
        self.state.lock().1
    }
}

struct Logger;

thread_local! {
    /// Whether this thread logs already.
    static LOGS: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread is a test and not the server's.
    static TESTS: Cell<bool> = const { Cell::new(false) };
}

static ACTION: Mutex<Option<Action>> = Mutex::new(None);
/// The tests share the logger.
static TURN: Mutex<()> = Mutex::new(());

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if TESTS.get() || LOGS.replace(true) {
            return;
        }
        let action = ACTION.lock().clone();
        match action {
            Some(Action::Stats(handle)) => assert!(handle.stats().is_consistent()),
            Some(Action::Shutdown(handle)) => drop(handle.shutdown()),
            Some(Action::Block(text, pipe)) if record.args().to_string().contains(&text) => pipe.write(),
            Some(Action::BlockAccepted(pipe)) if is_of_an_accepted_client(record) => pipe.write_first(),
            Some(Action::Call(call)) => call(),
            Some(Action::CallInDuties(call))
                if is_of_an_accepted_client(record)
                    && thread::current().name() == Some("sockserver-duties") =>
            {
                call();
            }
            _ => {}
        }
        LOGS.set(false);
    }

    fn flush(&self) {}
}

/// Whether it is the record of an accept(2) that has returned a client.
fn is_of_an_accepted_client(record: &log::Record<'_>) -> bool {
    let line = record.args().to_string();
    record.target() == "sock::call" && line.starts_with("accept") && !line.contains("= -1")
}

fn set_action(action: Option<Action>) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&Logger).unwrap();
    });
    log::set_max_level(match action.as_ref().is_none_or(Action::needs_trace) {
        true => log::LevelFilter::Trace,
        false => log::LevelFilter::Debug,
    });
    TESTS.set(true);
    // The drop of a handle closes sockets, which is logged.
    let former = std::mem::replace(&mut *ACTION.lock(), action);
    drop(former);
}

/// Ends the action when the test does, so that a test that fails does not block the others.
struct NoAction;

impl Drop for NoAction {
    fn drop(&mut self) {
        let action = ACTION.lock().take();
        if let Some(Action::Block(_, pipe) | Action::BlockAccepted(pipe)) = action {
            pipe.open();
        }
    }
}

/// Refuses clients from 127.0.0.9.
struct RefusesOne;

impl ServerHooks for RefusesOne {
    fn verify_request(&self, _request: &Request, client_address: &Address) -> bool {
        client_address.ip().is_none_or(|ip| ip.to_string() != "127.0.0.9")
    }
}

/// Answers each line. The line `fail` fails.
fn answer(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    while cx.rfile.read_line(&mut line)? > 0 {
        if line == "fail\n" {
            return Err(io::Error::other("as planned"));
        }
        cx.wfile.write_all(line.as_bytes())?;
        line.clear();
    }
    Ok(())
}

fn server<M: MixIn + Default>(mixin: M) -> StreamServer<Inet, M> {
    StreamServer::<Inet, M>::builder(handler_fn(answer))
        .hooks(RefusesOne)
        .mixin(mixin)
        .first_byte_timeout(Some(Duration::from_millis(50)))
        .linger_timeout(Duration::ZERO)
        .bind(LOOPBACK)
        .unwrap()
}

type End = mpsc::Receiver<io::Result<()>>;

fn serve<M: MixIn>(server: StreamServer<Inet, M>) -> (Address, ServerHandle, End) {
    let (address, handle) = (server.server_address().clone(), server.handle());
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(server.serve_forever().and_then(|()| server.server_close())));
    (address, handle, end)
}

fn asks(address: &Address) -> Socket {
    let client = connect_to(address);
    client.sendall(b"request\n").unwrap();
    client
}

fn logger_may_call_stats<M: MixIn + Default>(mixin: M) {
    let (address, handle, end) = serve(server(mixin));
    set_action(Some(Action::Stats(handle.clone())));
    let silent = connect_to(&address);
    let failing = connect_to(&address);
    failing.sendall(b"fail\n").unwrap();
    assert_eq!(read_to_end(&failing), "");
    assert_eq!(read_to_end(&support::connect_from("127.0.0.9", &address)), "");
    let client = asks(&address);
    assert_eq!(client.recv(100).unwrap(), b"request\n");
    read_to_end(&silent);
    client.shutdown(SHUT_WR).unwrap();
    wait_for_stats(&handle, |stats| {
        (stats.timed_out.first_byte, stats.failed, stats.rejected, stats.finished) == (1, 1, 1, 1)
    });
    let _ = handle.drain(LIMIT).unwrap();
    end.recv_timeout(LIMIT).expect("it stops").unwrap();
}

#[test]
fn a_logger_may_call_stats_in_every_record() {
    let _turn = TURN.lock();
    let _no_action = NoAction;
    logger_may_call_stats(Sequential);
    logger_may_call_stats(ThreadingMixIn::new());
    logger_may_call_stats(ThreadPoolMixIn::new().workers(3));
    #[cfg(unix)]
    logger_may_call_stats(SelectorMixIn::new().workers(2));
}

fn logger_may_call_shutdown<M: MixIn + Default>(mixin: M) {
    let (address, handle, end) = serve(server(mixin));
    let client = asks(&address);
    assert_eq!(client.recv(100).unwrap(), b"request\n");
    set_action(Some(Action::Shutdown(handle.clone())));
    // The line about one of these stops the server, which may reset the other.
    let other = bound("127.0.0.9");
    let _ = other.connect(&address);
    client.shutdown(SHUT_WR).unwrap();
    end.recv_timeout(LIMIT).expect("it stops").unwrap();
}

#[test]
fn a_logger_may_call_shutdown_in_every_record() {
    let _turn = TURN.lock();
    let _no_action = NoAction;
    for _ in 0..5 {
        logger_may_call_shutdown(Sequential);
        logger_may_call_shutdown(ThreadingMixIn::new());
        logger_may_call_shutdown(ThreadPoolMixIn::new().workers(3));
        #[cfg(unix)]
        logger_may_call_shutdown(SelectorMixIn::new().workers(2));
    }
}

/// A socket with an address that the logger knows before the server does.
fn bound(host: &str) -> Socket {
    let client = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.bind((host, 0)).unwrap();
    client
}

/// Blocks the lines about a client that connects and sends nothing.
fn blocked_lines_delay_no_other<M: MixIn + Default>(mixin: M, host: &str) {
    let (address, handle, end) = serve(server(mixin));
    let (pipe, concerned) = (Arc::new(Pipe::default()), bound(host));
    let own = concerned.getsockname().unwrap();
    let end_of_request = Action::Block(format!("{own}"), Arc::clone(&pipe));
    set_action(Some(end_of_request));
    concerned.connect(&address).unwrap();
    wait_until("a line about the client is written", || pipe.blocked() > 0);
    for _ in 0..5 {
        let client = asks(&address);
        assert_eq!(client.recv(100).unwrap(), b"request\n");
        client.shutdown(SHUT_WR).unwrap();
        // The deadline of another client is enforced.
        assert_eq!(read_to_end(&connect_to(&address)), "");
    }
    wait_for_stats(&handle, |stats| stats.timed_out.first_byte >= 5 && stats.finished >= 5);
    // Nor does the line delay the stop.
    handle.shutdown().unwrap();
    pipe.open();
    end.recv_timeout(LIMIT).expect("it stops").unwrap();
}

#[test]
fn a_blocked_line_about_a_deadline_delays_no_other_client() {
    let _turn = TURN.lock();
    let _no_action = NoAction;
    blocked_lines_delay_no_other(ThreadingMixIn::new(), "127.0.0.1");
    blocked_lines_delay_no_other(ThreadPoolMixIn::new().workers(3), "127.0.0.1");
    #[cfg(unix)]
    blocked_lines_delay_no_other(SelectorMixIn::new().workers(2), "127.0.0.1");
}

/// Not in a threading server, whose loop calls `verify_request` and is a single thread.
#[test]
fn a_blocked_line_about_a_refused_client_delays_no_other_client() {
    let _turn = TURN.lock();
    let _no_action = NoAction;
    blocked_lines_delay_no_other(ThreadPoolMixIn::new().workers(3), "127.0.0.9");
    #[cfg(unix)]
    blocked_lines_delay_no_other(SelectorMixIn::new().workers(2), "127.0.0.9");
}

/// The trace of a call is logged when the lock is released under which it was made.
fn blocked_trace_of_accept_delays_no_other<M: MixIn + Default>(mixin: M) {
    let (address, handle, end) = serve(server(mixin));
    let pipe = Arc::new(Pipe::default());
    set_action(Some(Action::BlockAccepted(Arc::clone(&pipe))));
    let _concerned = connect_to(&address);
    wait_until("the record of accept(2) is written", || pipe.blocked() > 0);
    for _ in 0..5 {
        let client = asks(&address);
        assert_eq!(client.recv(100).unwrap(), b"request\n");
    }
    handle.shutdown().unwrap();
    pipe.open();
    end.recv_timeout(LIMIT).expect("it stops").unwrap();
}

#[test]
fn a_blocked_trace_of_accept_delays_no_other_client() {
    let _turn = TURN.lock();
    let _no_action = NoAction;
    blocked_trace_of_accept_delays_no_other(ThreadPoolMixIn::new().workers(3));
    #[cfg(unix)]
    blocked_trace_of_accept_delays_no_other(SelectorMixIn::new().workers(2));
}

/// Each of these calls takes locks of the server.
fn call_all(handle: &ServerHandle) {
    assert!(handle.stats().is_consistent());
    assert!(!handle.to_openmetrics().is_empty());
    let _ = (handle.state(), handle.is_stopping(), handle.admin_address(), format!("{handle:?}"));
    handle.set_access(AccessList::new()).unwrap();
    handle.begin_lame_duck().unwrap();
}

fn logger_may_make_all_calls<M: MixIn + Default + std::fmt::Debug>(mixin: M) {
    let server = StreamServer::<Inet, M>::builder(handler_fn(answer))
        .hooks(RefusesOne)
        .mixin(mixin)
        .first_byte_timeout(Some(Duration::from_millis(50)))
        .linger_timeout(Duration::ZERO)
        .admin((LOOPBACK.0, 0))
        .bind(LOOPBACK)
        .unwrap();
    let (address, handle) = (server.server_address().clone(), server.handle());
    let (server, own) = (Arc::new(server), handle.clone());
    let weak = Arc::downgrade(&server);
    let call = move || {
        call_all(&own);
        if let Some(server) = weak.upgrade() {
            assert!(server.drained().is_none_or(|report| report.aborted.is_empty()));
            let _ = format!("{:?} {:?}", server.mixin(), server.server_address());
        }
    };
    set_action(Some(Action::Call(Arc::new(call))));
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let served = server.serve_forever();
        drop(server);
        ended.send(served)
    });
    let admin = connect_to(&handle.admin_address().unwrap());
    admin.sendall(b"GET /ready HTTP/1.1\r\n\r\n").unwrap();
    assert!(read_to_end(&admin).starts_with("HTTP/1.1 503 "));
    let silent = connect_to(&address);
    let failing = connect_to(&address);
    failing.sendall(b"fail\n").unwrap();
    assert_eq!(read_to_end(&failing), "");
    assert_eq!(read_to_end(&support::connect_from("127.0.0.9", &address)), "");
    let client = asks(&address);
    assert_eq!(client.recv(100).unwrap(), b"request\n");
    read_to_end(&silent);
    client.shutdown(SHUT_WR).unwrap();
    wait_for_stats(&handle, |stats| stats.finished == 1 && stats.in_flight == 0);
    let _ = handle.drain(LIMIT).unwrap();
    end.recv_timeout(LIMIT).expect("it stops").unwrap();
}

#[test]
fn a_logger_may_make_all_calls_in_every_record() {
    let _turn = TURN.lock();
    let _no_action = NoAction;
    logger_may_make_all_calls(Sequential);
    logger_may_make_all_calls(ThreadingMixIn::new());
    logger_may_make_all_calls(ThreadPoolMixIn::new().workers(3));
    let queued = ThreadPoolMixIn::new().workers(2).queue(2, WhenQueueFull::Wait);
    logger_may_make_all_calls(queued);
    #[cfg(unix)]
    logger_may_make_all_calls(SelectorMixIn::new().workers(2));
}

/// Meets the loop, which has begun and not yet made its first turn.
struct Meeting(Arc<Barrier>);

impl ServerHooks for Meeting {
    fn state_changed(&self, state: ServerState) {
        if state == ServerState::Ready {
            self.0.wait();
        }
    }
}

/// A call in a record of the thread that serves the administrative listener.
fn duties_may_log<M: MixIn + Default>(mixin: M, call: fn(&ServerHandle)) {
    let meeting = Arc::new(Barrier::new(2));
    let server = StreamServer::<Inet, M>::builder(handler_fn(answer))
        .hooks(Meeting(Arc::clone(&meeting)))
        .mixin(mixin)
        .admin((LOOPBACK.0, 0))
        .bind(LOOPBACK)
        .unwrap();
    let handle = server.handle();
    let (returned, returns) = mpsc::channel();
    let (own, meets) = (handle.clone(), AtomicBool::new(true));
    let calls = move || {
        if meets.swap(false, Ordering::SeqCst) {
            meeting.wait();
            call(&own);
            let _ = returned.send(());
        }
    };
    set_action(Some(Action::CallInDuties(Arc::new(calls))));
    let client = connect_to(&handle.admin_address().unwrap());
    let (_, _, end) = serve(server);
    returns.recv_timeout(LIMIT).expect("the call returns");
    let _ = handle.request_shutdown();
    end.recv_timeout(LIMIT).expect("it stops").unwrap();
    set_action(None);
    drop(client);
}

#[test]
fn a_logger_may_stop_the_server_in_a_record_of_its_duties() {
    let _turn = TURN.lock();
    let _no_action = NoAction;
    let calls: [fn(&ServerHandle); 3] =
        [|handle| drop(handle.shutdown()), |handle| drop(handle.drain(LIMIT)), call_all];
    for call in calls {
        duties_may_log(Sequential, call);
        duties_may_log(ThreadingMixIn::new(), call);
        duties_may_log(ThreadPoolMixIn::new().workers(2), call);
        #[cfg(unix)]
        duties_may_log(SelectorMixIn::new().workers(2), call);
    }
}
