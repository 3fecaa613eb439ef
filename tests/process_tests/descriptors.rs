//! The promise: without free descriptors or threads, a server refuses a connection whose
//! `wrap_request` could not get a deadline. It serves again when there are some.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sock::{AF_INET, AF_UNIX, Address, SOCK_STREAM, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, MixIn, SelectorTCPServer, ServerHooks, ServerState, TCPServer, ThreadPoolTCPServer,
    ThreadingTCPServer, WhenQueueFull, handler_fn, testing,
};

use crate::Test;
use crate::support::{
    Gate, LIMIT, LOOPBACK, OpenOnDrop, connect_to, read_to_end, sleep_briefly, wait_for_stats, wait_until,
};

pub(crate) const TESTS: &[Test] = &[
    ("wrap_request_without_descriptors_in_the_loop", || {
        is_refused_or_has_a_deadline(TCPServer::builder(handler_fn(|_| Ok(()))));
    }),
    ("wrap_request_without_descriptors_in_threads", || {
        is_refused_or_has_a_deadline(ThreadingTCPServer::builder(handler_fn(|_| Ok(()))));
    }),
    ("wrap_request_without_descriptors_in_a_pool", || {
        is_refused_or_has_a_deadline(ThreadPoolTCPServer::builder(handler_fn(|_| Ok(()))).workers(2));
    }),
    ("wrap_request_without_descriptors_in_a_selector", || {
        is_refused_or_has_a_deadline(SelectorTCPServer::builder(handler_fn(|_| Ok(()))).workers(2));
    }),
    ("wrap_request_without_a_thread_for_its_deadline_in_the_loop", || {
        is_refused_without_a_thread(TCPServer::builder(handler_fn(|_| Ok(()))), 0);
    }),
    ("wrap_request_without_a_thread_for_its_deadline_in_a_pool", || {
        let builder = ThreadPoolTCPServer::builder(handler_fn(|_| Ok(())));
        is_refused_without_a_thread(builder.workers(2), 2);
    }),
    ("wrap_request_without_a_thread_for_its_deadline_in_a_selector", || {
        let builder = SelectorTCPServer::builder(handler_fn(|_| Ok(())));
        // One more is the monitor thread.
        is_refused_without_a_thread(builder.workers(2), 3);
    }),
    ("hooks_without_wrap_request_need_no_thread", needs_no_thread_without_the_hook),
    ("a_deadline_is_enforced_once_its_thread_can_be_started", enforced_once_a_thread_starts),
    ("the_stop_command_drains_without_a_thread_for_it", the_stop_command_drains_without_a_thread),
    ("a_drain_logs_that_there_is_no_thread_for_get_request", drain_logs_that_there_is_no_thread),
    ("wrap_request_is_never_called_without_a_thread", is_never_called_without_a_thread),
    ("a_pool_without_descriptors_for_its_workers_accepts_nothing", accepts_nothing_without_all_workers),
    ("wrap_request_does_not_begin_after_the_end_of_a_drain", does_not_begin_after_the_end_of_a_drain),
];

/// A handshake that lasts as long as the client sends.
fn handshake(request: Socket, _client_address: &Address) -> io::Result<Socket> {
    while !request.recv(1)?.is_empty() {}
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn is_refused_or_has_a_deadline<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let wrap_timeout = Duration::from_secs(2);
    let server =
        testing::serve(builder.wrap_request(handshake).wrap_timeout(wrap_timeout).bind(LOOPBACK).unwrap());
    let clients = [(); 3].map(|()| {
        let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        client.settimeout(LIMIT).unwrap();
        client
    });
    // The first connection starts the threads, and its deadline ends it.
    let took = time_until_closed(&clients[0], &server);
    assert!(took >= wrap_timeout / 2, "{took:?}");
    wait_for_stats(server.handle(), |stats| stats.timed_out.wrap == 1);

    // For the second there is a descriptor for accept(2), and none for its deadline.
    let mut taken = take_all_descriptors();
    drop(taken.pop());
    let took = time_until_closed(&clients[1], &server);
    assert!(took < wrap_timeout / 2, "the connection was refused only after {took:?}");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.rejected, stats.timed_out.wrap), (1, 1), "{stats:?}");

    drop(taken);
    time_until_closed(&clients[2], &server);
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.rejected, stats.timed_out.wrap), (1, 2), "{stats:?}");
}

/// A connection that a drain aborts while it is queued is not wrapped later, because nothing would
/// end that.
fn does_not_begin_after_the_end_of_a_drain() {
    let gate = Gate::new();
    let builder = ThreadPoolTCPServer::builder(handler_fn(|_| Ok(())));
    let builder = builder.workers(1).queue(10, WhenQueueFull::Wait).wrap_timeout(None);
    let waits = gate.clone();
    let builder = builder.wrap_request(move |_, _| -> io::Result<Socket> {
        waits.pass();
        Err(io::ErrorKind::UnexpectedEof.into())
    });
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    let _open = OpenOnDrop(gate.clone());
    let clients = [(); 3].map(|()| connect_to(server.address()));
    wait_for_stats(server.handle(), |stats| stats.in_flight == 3);
    gate.wait_for(1);
    // The worker takes the other connections after all of them were aborted.
    let report = server.handle().drain(Duration::ZERO).unwrap();
    assert_eq!(report.aborted.len(), 3, "{report:?}");
    gate.open();
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.aborted, gate.entered()), (3, 1), "{stats:?}");
    drop(clients);
}

/// Connects and sends bytes until the server closes the connection.
#[track_caller]
fn time_until_closed(client: &Socket, server: &testing::Running) -> Duration {
    client.connect(server.address()).unwrap();
    let begin = Instant::now();
    while client.send(b"x").is_ok() {
        let mut byte = [0];
        match client.recv_into_nowait(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
        assert!(begin.elapsed() < LIMIT / 2, "still open: {:?}", server.handle().stats());
        sleep_briefly();
    }
    begin.elapsed()
}

/// A worker that starts after others have accepted may find that clients use all descriptors.
fn accepts_nothing_without_all_workers() {
    let server = ThreadPoolTCPServer::builder(handler_fn(|_| Ok(()))).workers(40);
    let server = server.bind(LOOPBACK).unwrap();
    let clients = [(); 20].map(|()| connect_to(server.server_address()));
    let mut taken = take_all_descriptors();
    taken.truncate(taken.len() - 20);
    let error = server.serve_forever().unwrap_err();
    assert_eq!(sock::errno(&error), Some(24), "{error}");
    assert_eq!(server.stats().accepted, 0, "{:?}", server.stats());
    drop((clients, taken));
}

/// Uses all descriptors that this process may have.
fn take_all_descriptors() -> Vec<Socket> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum }).unwrap();
    let socket = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| socket.dup().ok()).collect();
    taken.push(socket);
    taken
}

/// Limits the address space so that no thread can be started, until it is dropped.
struct NoThreads(Rlimit);

impl NoThreads {
    /// Waits until the server's workers, the main thread and the loop block, because a starting thread
    /// needs more than its stack.
    fn begin_beside(workers: usize) -> NoThreads {
        let waits = |task: &std::path::Path| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('S'))
        };
        wait_until("all workers have started and wait", || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let tasks: Vec<_> = tasks.map(|task| task.unwrap().path()).collect();
            tasks.len() == 2 + workers && tasks.iter().filter(|task| waits(task)).count() == 1 + workers
        });
        let before = getrlimit(Resource::As);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        let size: u64 = size.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        let current = Some((size + 1536) * 1024);
        setrlimit(Resource::As, Rlimit { current, maximum: before.maximum }).unwrap();
        assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "no thread can be started");
        NoThreads(before)
    }
}

impl Drop for NoThreads {
    fn drop(&mut self) {
        setrlimit(Resource::As, self.0).unwrap();
    }
}

struct Plain;

impl ServerHooks for Plain {}

fn is_refused_without_a_thread<M: MixIn>(builder: Builder<Stream<Inet>, M>, workers: usize) {
    // The refusal of a busy machine comes long before it.
    let wrap_timeout = Duration::from_secs(2);
    let builder = builder.wrap_request(handshake).wrap_timeout(wrap_timeout);
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    let clients = [(); 2].map(|()| {
        let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        client.settimeout(LIMIT).unwrap();
        client
    });
    let no_threads = NoThreads::begin_beside(workers);
    let took = time_until_closed(&clients[0], &server);
    assert!(took < wrap_timeout / 2, "the connection was refused only after {took:?}");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.rejected, stats.timed_out.wrap), (1, 0), "{stats:?}");

    drop(no_threads);
    time_until_closed(&clients[1], &server);
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.rejected, stats.timed_out.wrap), (1, 1), "{stats:?}");
}

fn needs_no_thread_without_the_hook() {
    let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"served"))).hooks(Plain);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let no_threads = NoThreads::begin_beside(0);
    for _ in 0..5 {
        assert_eq!(read_to_end(&connect_to(server.address())), "served");
    }
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!((stats.accepted, stats.finished), (5, 5), "{stats:?}");
    drop(no_threads);
}

/// No other client comes whose deadline would try to start the thread again.
fn enforced_once_a_thread_starts() {
    let builder = SelectorTCPServer::builder(handler_fn(|_| Ok(()))).workers(2);
    let builder = builder.first_byte_timeout(Duration::from_millis(50));
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    // One more is the monitor thread.
    let no_threads = NoThreads::begin_beside(3);
    let client = connect_to(server.address());
    wait_for_stats(server.handle(), |stats| stats.in_flight == 1);
    client.settimeout(Duration::from_millis(300)).unwrap();
    assert_eq!(client.recv(1).unwrap_err().kind(), io::ErrorKind::TimedOut, "there was a thread");
    drop(no_threads);
    client.settimeout(LIMIT).unwrap();
    assert_eq!(client.recv(1).unwrap(), b"");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!(stats.timed_out.first_byte, 1, "{stats:?}");
}

/// The thread of the administrative listener drains then.
fn the_stop_command_drains_without_a_thread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin");
    let handler = handler_fn(|cx| {
        let line = cx.request.recv(1)?;
        cx.request.sendall(&line)
    });
    let builder = TCPServer::builder(handler).first_byte_timeout(None);
    let server = testing::serve(builder.admin(&path).bind(LOOPBACK).unwrap());
    // The thread of the administrative listener.
    let no_threads = NoThreads::begin_beside(1);
    let client = connect_to(server.address());
    wait_for_stats(server.handle(), |stats| stats.in_flight == 1);
    let admin = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    admin.settimeout(LIMIT).unwrap();
    admin.connect(&path).unwrap();
    admin.sendall(b"POST /stop?limit=60 HTTP/1.1\r\n\r\n").unwrap();
    wait_until("the drain has begun", || server.handle().state() == ServerState::Draining);
    client.sendall(b"!").unwrap();
    assert_eq!(read_to_end(&client), "!");
    wait_until("the server has stopped", || server.handle().state() == ServerState::Stopped);
    drop(no_threads);
    assert!(read_to_end(&admin).starts_with("HTTP/1.1 200 "));
    let stats = server.handle().stats();
    assert_eq!((stats.finished, stats.aborted), (1, 0), "{stats}");
}

/// Keeps the lines of level warn.
struct Warnings(Mutex<Vec<String>>);

static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

impl log::Log for Warnings {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// The hook may take longer than the drain then.
fn drain_logs_that_there_is_no_thread() {
    log::set_logger(&WARNINGS).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"served"))).hooks(Plain);
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let no_threads = NoThreads::begin_beside(0);
    let report = server.handle().drain(LIMIT).unwrap();
    drop(no_threads);
    assert!(report.aborted.is_empty(), "{report:?}");
    let lines = WARNINGS.0.lock().unwrap();
    let begin = "cannot start a thread for get_request: the drain waits for it without a limit: ";
    assert!(matches!(&lines[..], [line] if line.starts_with(begin)), "{lines:?}");
}

/// No call is made that nothing could end, not even the first.
fn is_never_called_without_a_thread() {
    let builder = ThreadPoolTCPServer::builder(handler_fn(|_| Ok(()))).workers(2);
    let server = testing::serve(builder.wrap_request(handshake).bind(LOOPBACK).unwrap());
    let no_threads = NoThreads::begin_beside(2);
    let clients = [(); 3].map(|()| connect_to(server.address()));
    let stats = wait_for_stats(server.handle(), |stats| stats.rejected == 3);
    assert_eq!(stats.in_flight, 0, "{stats:?}");
    drop((clients, no_threads));
}
