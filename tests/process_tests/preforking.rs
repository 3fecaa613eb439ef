//! The promise: a worker of a pre-forked server that dies, stops, hangs or fails to start affects only
//! its own client, and the counters are consistent over all workers.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sock::{AF_INET, SOCK_DGRAM, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::testing::LeakCheck;
use sockserver::{
    Builder, DatagramContext, DatagramRequestHandler, PreforkMixIn, PreforkTCPServer, PreforkUDPServer,
    ServerHandle, ServerHooks, StreamContext, StreamRequestHandler, WrappedRequest,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("prefork_serves_and_leaves_no_process", serves_and_leaves_no_process),
    ("prefork_workers_leave_accept_when_the_loop_ends", workers_leave_accept_with_the_loop),
    ("prefork_replaces_a_killed_worker_and_counts_its_client", replaces_a_killed_worker),
    ("prefork_replaces_a_stopped_worker", replaces_a_stopped_worker),
    ("prefork_kills_a_worker_whose_handler_does_not_return", kills_a_stuck_worker),
    (
        "prefork_does_not_kill_a_worker_with_a_long_connection",
        does_not_kill_a_worker_with_a_long_connection,
    ),
    ("prefork_replaces_workers_after_max_requests", replaces_workers_after_max_requests),
    ("prefork_fails_when_workers_cannot_start", fails_when_workers_cannot_start),
    ("prefork_workers_leave_when_their_parent_is_killed", workers_exit_when_their_parent_dies),
    ("prefork_drain_reports_over_all_workers", drain_reports_over_all_workers),
    ("prefork_handle_request_enforces_wrap_timeout", handle_request_enforces_wrap_timeout),
    ("prefork_counts_a_client_for_the_address_that_wrap_request_names", client_address_of_the_hook),
    ("prefork_serves_datagrams", serves_datagrams),
    (
        "prefork_workers_do_not_accept_after_the_stop_once_the_loop_has_ended",
        workers_do_not_accept_after_the_stop,
    ),
];

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[("prefork_server", serve_until_killed)];

/// Answers each line with the worker's process id, does what the line says, and waits for the next
/// line.
struct Worker;

impl StreamRequestHandler for Worker {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        if cx.rfile.read_line(&mut line)? == 0 {
            return Ok(());
        }
        // In one write, because `wfile` is unbuffered.
        cx.wfile.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        if line == "hang\n" {
            loop {
                thread::park();
            }
        }
        cx.close_connection = line == "last\n";
        Ok(())
    }
}

type Play = dyn FnMut(&ServerHandle) -> bool + Send;

/// Runs a step of the test in each iteration of the loop, until the test is done.
struct Script {
    handle: Arc<OnceLock<ServerHandle>>,
    next: Mutex<Box<Play>>,
    began: Instant,
}

impl Script {
    fn service_actions(&self) {
        let Some(handle) = self.handle.get() else { return };
        let stats = handle.stats();
        assert!(stats.is_consistent(), "{stats:?}");
        let done = (self.next.lock().unwrap())(handle);
        assert!(self.began.elapsed() < LIMIT, "the test takes too long: {stats:?}");
        if done {
            handle.request_shutdown().unwrap();
        }
    }
}

fn builder() -> Builder<Stream<Inet>, PreforkMixIn> {
    PreforkTCPServer::builder(|| Worker).poll_interval(Duration::from_millis(3)).workers(2)
}

/// Serves until the script is done. `script` is called with the server's address.
fn play<F>(builder: Builder<Stream<Inet>, PreforkMixIn>, script: impl FnOnce(sock::Address) -> F)
where
    F: FnMut(&ServerHandle) -> bool + Send + 'static,
{
    let server = prepare(builder, script);
    server.serve_forever().unwrap();
    close(server);
}

fn close(server: PreforkTCPServer) {
    server.server_close().unwrap();
    assert_eq!(children(std::process::id()), [], "a worker is left");
}

/// Creates a server whose loop ends when the script is done.
fn prepare<F>(
    builder: Builder<Stream<Inet>, PreforkMixIn>,
    script: impl FnOnce(sock::Address) -> F,
) -> PreforkTCPServer
where
    F: FnMut(&ServerHandle) -> bool + Send + 'static,
{
    let (known, next) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::<Mutex<F>>::new()));
    let its = Arc::clone(&next);
    let play = move |handle: &ServerHandle| its.get().is_some_and(|next| (next.lock().unwrap())(handle));
    let hooks =
        Script { handle: Arc::clone(&known), next: Mutex::new(Box::new(play)), began: Instant::now() };
    let server = builder.service_actions(move |_| hooks.service_actions()).bind(LOOPBACK).unwrap();
    let _ = next.set(Mutex::new(script(server.server_address().clone())));
    known.set(server.handle()).unwrap();
    server
}

fn children(of: u32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A non-blocking client. It sends a line and reads later which worker serves it.
struct Client(Socket);

impl Client {
    fn of(address: &sock::Address) -> Client {
        let sock = connect_to(address);
        sock.setblocking(false).unwrap();
        Client(sock)
    }

    fn say(&self, line: &str) {
        self.0.sendall(line.as_bytes()).unwrap();
    }

    /// Returns the worker's process id once it has answered, and nothing at the end of the connection.
    fn answer(&self) -> Option<i32> {
        let text = String::from_utf8(self.0.recv(100).ok()?).unwrap();
        (!text.is_empty()).then(|| text.trim().parse().unwrap())
    }
}

fn serves_and_leaves_no_process() {
    let check = LeakCheck::begin();
    play(builder(), |address| {
        let clients: Vec<Client> = (0..2).map(|_| Client::of(&address)).collect();
        clients.iter().for_each(|client| client.say("last\n"));
        let mut answers = 0;
        move |handle: &ServerHandle| {
            answers += clients.iter().filter(|client| client.answer().is_some()).count();
            answers == 2 && handle.stats().finished == 2
        }
    });
    check.assert_nothing_left();
}

/// Idle workers block in accept(2), until a client or a signal arrives.
fn workers_leave_accept_with_the_loop() {
    let serves_again = Arc::new(AtomicBool::new(false));
    let second_loop = Arc::clone(&serves_again);
    let server = prepare(builder(), |address| {
        let (mut client, mut answered) = (None, false);
        move |_: &ServerHandle| {
            if !second_loop.load(Ordering::SeqCst) {
                let workers = children(std::process::id());
                return workers.len() == 2 && workers.iter().all(|pid| state(*pid) == Some('S'));
            }
            let client = client.get_or_insert_with(|| {
                let client = Client::of(&address);
                client.say("last\n");
                client
            });
            // The script may be called once more after the loop was stopped.
            answered = answered || client.answer().is_some();
            answered
        }
    });
    server.serve_forever().unwrap();
    wait_until_ended(&children(std::process::id()));
    serves_again.store(true, Ordering::SeqCst);
    server.serve_forever().unwrap();
    assert_eq!(server.stats().lost_before_accept, 0, "an interrupted accept counts as a client");
    close(server);
}

fn replaces_a_killed_worker() {
    play(builder(), |address| {
        let client = Client::of(&address);
        client.say("stay\n");
        let (mut killed, mut other) = (None, None);
        move |handle: &ServerHandle| match (killed, &other) {
            (None, _) => {
                killed = client.answer().inspect(|pid| signal(*pid, Signal::KILL));
                false
            }
            (Some(pid), None) => {
                let now = children(std::process::id());
                if now.len() == 2 && !now.contains(&pid) && handle.stats().failed == 1 {
                    assert_eq!(handle.stats().in_flight, 0);
                    let next = Client::of(&address);
                    next.say("last\n");
                    other = Some(next);
                }
                false
            }
            (Some(pid), Some(next)) => {
                next.answer().inspect(|answered| assert_ne!(*answered, pid)).is_some()
            }
        }
    });
}

fn replaces_a_stopped_worker() {
    play(builder().workers(1).heartbeat(Duration::from_millis(150)), |_| {
        let mut stopped = None;
        move |_: &ServerHandle| match (stopped, &children(std::process::id())[..]) {
            (None, [pid]) => {
                signal(*pid, Signal::STOP);
                stopped = Some(*pid);
                false
            }
            (Some(pid), [other]) => *other != pid,
            _ => false,
        }
    });
}

fn kills_a_stuck_worker() {
    let builder = builder().workers(1).request_timeout(Duration::from_millis(200));
    play(builder.heartbeat(Duration::from_millis(150)), |address| {
        let client = Client::of(&address);
        client.say("hang\n");
        let (mut stuck, mut next) = (None, None);
        move |handle: &ServerHandle| {
            stuck = stuck.or_else(|| client.answer());
            let now = children(std::process::id());
            let (Some(pid), [other]) = (stuck, &now[..]) else { return false };
            if *other == pid || handle.stats().in_flight > 0 && next.is_none() {
                return false;
            }
            let next = next.get_or_insert_with(|| {
                let next = Client::of(&address);
                next.say("last\n");
                next
            });
            next.answer().is_some()
        }
    });
}

fn does_not_kill_a_worker_with_a_long_connection() {
    let limit = Duration::from_millis(200);
    let builder = builder().workers(1).request_timeout(limit);
    play(builder.heartbeat(Duration::from_millis(60)), |address| {
        let client = Client::of(&address);
        client.say("first\n");
        let (mut worker, began) = (None, Instant::now());
        move |_: &ServerHandle| {
            let Some(pid) = client.answer() else { return false };
            assert_eq!(*worker.get_or_insert(pid), pid);
            let is_long = began.elapsed() > limit * 4;
            client.say(if is_long { "last\n" } else { "next\n" });
            is_long
        }
    });
}

fn replaces_workers_after_max_requests() {
    play(builder().workers(1).max_requests(3, 0), |address| {
        let mut pids: Vec<i32> = Vec::new();
        let mut client = Client::of(&address);
        client.say("last\n");
        move |_: &ServerHandle| {
            let Some(pid) = client.answer() else { return false };
            pids.push(pid);
            if pids.len() < 7 {
                client = Client::of(&address);
                client.say("last\n");
                return false;
            }
            assert!(pids[..3].iter().all(|pid| *pid == pids[0]), "{pids:?}");
            assert!(pids[3..6].iter().all(|pid| *pid == pids[3] && *pid != pids[0]), "{pids:?}");
            assert_ne!(pids[6], pids[3]);
            true
        }
    });
}

/// Counts the starts of workers in a file.
struct CannotStart(fs::File);

impl ServerHooks for CannotStart {
    fn start_worker(&self) -> io::Result<()> {
        (&self.0).write_all(b"!")?;
        Err(io::Error::other("no database"))
    }
}

fn fails_when_workers_cannot_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let hooks = CannotStart(file.reopen().unwrap());
    let server = PreforkTCPServer::builder(|| Worker).workers(2).hooks(hooks).bind(LOOPBACK).unwrap();
    let error = server.serve_forever().unwrap_err();
    assert!(error.to_string().contains("workers cannot start: 10 in a row failed"), "{error}");
    let starts = fs::metadata(file.path()).unwrap().len();
    assert!((10..=12).contains(&starts), "{starts} workers were started");
    server.server_close().unwrap();
    assert_eq!(children(std::process::id()), []);
}

/// Serves until a test kills the process.
fn serve_until_killed() {
    let server = PreforkTCPServer::builder(|| Worker).workers(3).bind(LOOPBACK).unwrap();
    println!("{}", server.server_address());
    server.serve_forever().unwrap();
}

/// Kills a program when it is dropped, because it would keep the pipes of this process open.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn workers_exit_when_their_parent_dies() {
    let server = Command::new(std::env::current_exe().unwrap())
        .args(["--alone", "prefork_server"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = Killed(server);
    let mut line = String::new();
    io::BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address: std::net::SocketAddr = line.trim().parse().unwrap();
    let client = connect_to(&address.into());
    client.sendall(b"stay\n").unwrap();
    assert!(client.recv(100).unwrap().ends_with(b"\n"));
    let begin = Instant::now();
    // The first worker may answer before the last has been forked.
    let workers = loop {
        let workers = children(server.0.id());
        if workers.len() == 3 {
            break workers;
        }
        assert!(begin.elapsed() < LIMIT, "workers: {workers:?}");
        thread::yield_now();
    };
    drop(server);
    // The idle connection is closed, and idle workers exit.
    assert_eq!(client.recv(100).unwrap(), b"");
    wait_until_ended(&workers);
}

/// Returns the state letter of ps(1), nothing for a process that does not exist.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Orphans are reaped by init, or not at all if init does not reap.
fn wait_until_ended(workers: &[i32]) {
    let begin = Instant::now();
    while let Some(pid) = workers.iter().find(|pid| !matches!(state(**pid), None | Some('Z'))) {
        let proc_file = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let late = begin.elapsed() > LIMIT / 2;
        assert!(!late, "worker {pid} has not ended: {} {}", proc_file("stat"), proc_file("wchan"));
        thread::yield_now();
    }
}

fn drain_reports_over_all_workers() {
    let (known, reached) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&reached);
    let next = move |handle: &ServerHandle| {
        // Three connections, two of which have a running request.
        seen.store(handle.stats().in_flight as usize, Ordering::Relaxed);
        handle.stats().in_flight == 3
    };
    let hooks =
        Script { handle: Arc::clone(&known), next: Mutex::new(Box::new(next)), began: Instant::now() };
    let builder = builder().workers(3).service_actions(move |_| hooks.service_actions());
    let server = builder.bind(LOOPBACK).unwrap();
    known.set(server.handle()).unwrap();
    let address = server.server_address().clone();
    let (idle, silent, hangs) = (connect_to(&address), connect_to(&address), connect_to(&address));
    idle.sendall(b"stay\n").unwrap();
    hangs.sendall(b"hang\n").unwrap();
    server.serve_forever().unwrap();
    assert_eq!(reached.load(Ordering::Relaxed), 3);
    // Each client has received all that it can.
    for client in [&idle, &hangs] {
        assert!(client.recv(100).unwrap().ends_with(b"\n"));
    }
    let begin = Instant::now();
    let report = server.drain(Duration::from_millis(300)).unwrap();
    assert!(begin.elapsed() < LIMIT / 2);
    assert_eq!((report.idle, report.aborted.len()), (2, 1), "{report}");
    assert_eq!(report.aborted[0].client_address, hangs.getsockname().unwrap());
    for client in [&idle, &silent, &hangs] {
        assert_eq!(client.recv(100).unwrap_or_default(), b"");
    }
    let stats = server.stats();
    assert!(stats.is_consistent() && stats.accepted == 3 && stats.in_flight == 0, "{stats:?}");
    server.server_close().unwrap();
}

struct Echo;

impl DatagramRequestHandler for Echo {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        cx.rfile.read_to_end(&mut cx.wfile).map(drop)
    }
}

/// Waits until the client disconnects.
fn patient(request: Socket, _client_address: &sock::Address) -> io::Result<Socket> {
    while !request.recv(1)?.is_empty() {}
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// `handle_request` serves in the parent, which has no deadline thread because it forks later.
fn handle_request_enforces_wrap_timeout() {
    let builder = PreforkTCPServer::builder(|| Worker).wrap_request(patient);
    let builder = builder.wrap_timeout(Duration::from_millis(100)).read_timeout(None);
    let server = builder.bind(LOOPBACK).unwrap();
    for served in 1..=2 {
        let client = connect_to(server.server_address());
        client.sendall(b"x").unwrap();
        server.handle_request().unwrap();
        let stats = server.stats();
        assert_eq!((stats.accepted, stats.timed_out.wrap), (served, served), "{stats:?}");
    }
    // There is no thread that prevents a fork.
    server.handle().request_shutdown().unwrap();
    server.serve_forever().unwrap();
}

/// A hook behind a proxy that sends the client's address as the first line.
fn proxied(request: Socket, _proxy: &sock::Address) -> io::Result<WrappedRequest> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.extend(request.recv(1)?);
    }
    let line = String::from_utf8(line).map_err(io::Error::other)?;
    let client: std::net::SocketAddr = line.trim_end().parse().map_err(io::Error::other)?;
    Ok(WrappedRequest::from(request).with_client_address(client))
}

/// The limit for an address counts over all workers, and for the address that the hook names.
fn client_address_of_the_hook() {
    let builder = builder().workers(4).wrap_request(proxied).max_connections_per_ip(1);
    let server = prepare(builder, |address| {
        let connect = move |named: &str| {
            let client = connect_to(&address);
            client.sendall(format!("{named}\nstay\n").as_bytes()).unwrap();
            let mut answer = String::new();
            let _ = client.makefile_rb().read_line(&mut answer);
            (client, answer)
        };
        let mut clients = Vec::new();
        move |handle: &ServerHandle| {
            if clients.is_empty() {
                clients = ["192.0.2.7:1", "192.0.2.8:2", "192.0.2.7:3"].map(&connect).into();
                assert!(!clients[0].1.is_empty() && !clients[1].1.is_empty());
                assert_eq!(clients[2].1, "", "refused");
            }
            let stats = handle.stats();
            stats.rejected == 1 && stats.in_flight == 2
        }
    });
    server.serve_forever().unwrap();
    let report = server.drain(LIMIT).unwrap();
    assert_eq!((report.idle, report.still_running), (2, 0), "{report}");
    close(server);
}

fn serves_datagrams() {
    let known = Arc::new(OnceLock::new());
    let client = Arc::new(Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap());
    client.setblocking(false).unwrap();
    let (its, mut answers) = (Arc::clone(&client), 0);
    let next = move |_: &ServerHandle| {
        while its.recv(100).is_ok_and(|answer| answer == b"hello") {
            answers += 1;
        }
        answers == 10
    };
    let hooks =
        Script { handle: Arc::clone(&known), next: Mutex::new(Box::new(next)), began: Instant::now() };
    let builder = PreforkUDPServer::builder(|| Echo).workers(2);
    let builder = builder.service_actions(move |_| hooks.service_actions());
    let server = builder.poll_interval(Duration::from_millis(3)).bind(LOOPBACK).unwrap();
    known.set(server.handle()).unwrap();
    client.connect(server.server_address()).unwrap();
    for _ in 0..10 {
        client.send(b"hello").unwrap();
    }
    server.serve_forever().unwrap();
    server.server_close().unwrap();
    assert_eq!(children(std::process::id()), []);
}

/// A client that connects after `serve_forever` has returned is not accepted before the next loop.
fn workers_do_not_accept_after_the_stop() {
    let server = prepare(builder().workers(4), |_| {
        move |_: &ServerHandle| {
            let workers = children(std::process::id());
            workers.len() == 4 && workers.iter().all(|pid| state(*pid) == Some('S'))
        }
    });
    for _ in 0..10 {
        server.serve_forever().unwrap();
        // Clients of earlier rounds, which are still queued.
        let accepted = server.stats().accepted;
        let client = Client::of(server.server_address());
        client.say("last\n");
        wait_until("all workers have exited", || {
            children(std::process::id()).iter().all(|pid| state(*pid) == Some('Z'))
        });
        assert_eq!(
            (client.answer(), server.stats().accepted),
            (None, accepted),
            "a client was accepted after the stop"
        );
    }
    close(server);
}
