//! The promise: a pre-forked server's workers may die, stop, hang or fail to start,
//! and only their own client notices; the counters add up over all of them.

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
use crate::support::{LIMIT, LOOPBACK, client_of};

pub(crate) const TESTS: &[Test] = &[
    ("prefork_serves_and_leaves_nothing", serves_and_leaves_nothing),
    ("prefork_workers_leave_accept_when_the_loop_ends", workers_leave_accept_with_the_loop),
    ("prefork_replaces_a_killed_worker_and_counts_its_client", replaces_a_killed_worker),
    ("prefork_replaces_a_stopped_worker", replaces_a_stopped_worker),
    ("prefork_kills_a_worker_whose_handler_does_not_return", kills_a_stuck_worker),
    ("prefork_lets_a_long_conversation_live", lets_a_long_conversation_live),
    ("prefork_recycles_workers", recycles_workers),
    ("prefork_says_when_workers_cannot_start", says_when_workers_cannot_start),
    ("prefork_workers_leave_when_their_parent_is_killed", workers_leave_with_their_parent),
    ("prefork_drain_reports_over_all_workers", drain_reports_over_all_workers),
    ("prefork_handle_request_has_its_wrap_deadline", handle_request_has_its_wrap_deadline),
    ("prefork_counts_a_client_for_the_address_that_wrap_request_names", client_address_of_the_hook),
    ("prefork_serves_datagrams", serves_datagrams),
    ("prefork_workers_accept_no_more_once_the_loop_has_ended", workers_accept_no_more),
];

/// Programs that a test starts, to do something to them.
pub(crate) const HELPERS: &[Test] = &[("prefork_server", serve_until_killed)];

/// Answers each line with the worker's process id, does what the line says, and
/// waits for the next.
struct Worker;

impl StreamRequestHandler for Worker {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        if cx.rfile.read_line(&mut line)? == 0 {
            return Ok(());
        }
        // In one piece: `wfile` sends each as it comes.
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

/// What a test does between two turns of the loop, until it says that it is done.
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
        assert!(self.began.elapsed() < LIMIT, "it takes too long; {stats:?}");
        if done {
            handle.request_shutdown().unwrap();
        }
    }
}

fn builder() -> Builder<Stream<Inet>, PreforkMixIn> {
    PreforkTCPServer::builder(|| Worker).poll_interval(Duration::from_millis(3)).workers(2)
}

/// Serves while the script goes on; it is made when the server's address is known.
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
    assert_eq!(children(std::process::id()), [], "no worker is left");
}

/// A server whose loop ends whenever the script says that it is done.
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

/// A client that never waits: it says a line, and hears later whose worker it has.
struct Client(Socket);

impl Client {
    fn of(address: &sock::Address) -> Client {
        let sock = client_of(address);
        sock.setblocking(false).unwrap();
        Client(sock)
    }

    fn say(&self, line: &str) {
        self.0.sendall(line.as_bytes()).unwrap();
    }

    /// The worker's process id, once it has answered; nothing more at the end that follows.
    fn answer(&self) -> Option<i32> {
        let text = String::from_utf8(self.0.recv(100).ok()?).unwrap();
        (!text.is_empty()).then(|| text.trim().parse().unwrap())
    }
}

fn serves_and_leaves_nothing() {
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

/// Idle ones wait in accept(2), which only a client ends, or a signal.
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
            // It may be asked once more when the loop has been told to end.
            answered = answered || client.answer().is_some();
            answered
        }
    });
    server.serve_forever().unwrap();
    wait_until_ended(&children(std::process::id()));
    serves_again.store(true, Ordering::SeqCst);
    server.serve_forever().unwrap();
    assert_eq!(server.stats().lost_before_accept, 0, "to be called out is no client");
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

fn lets_a_long_conversation_live() {
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

fn recycles_workers() {
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

/// Counts the starts in a file that all processes share.
struct CannotStart(fs::File);

impl ServerHooks for CannotStart {
    fn start_worker(&self) -> io::Result<()> {
        (&self.0).write_all(b"!")?;
        Err(io::Error::other("no database"))
    }
}

fn says_when_workers_cannot_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let hooks = CannotStart(file.reopen().unwrap());
    let server = PreforkTCPServer::builder(|| Worker).workers(2).hooks(hooks).bind(LOOPBACK).unwrap();
    let error = server.serve_forever().unwrap_err();
    assert!(error.to_string().contains("workers cannot start: 10 in a row failed"), "{error}");
    let starts = fs::metadata(file.path()).unwrap().len();
    assert!((10..=12).contains(&starts), "{starts} starts: a storm");
    server.server_close().unwrap();
    assert_eq!(children(std::process::id()), []);
}

/// A server that a test kills.
fn serve_until_killed() {
    let server = PreforkTCPServer::builder(|| Worker).workers(3).bind(LOOPBACK).unwrap();
    println!("{}", server.server_address());
    server.serve_forever().unwrap();
}

/// Kills a program however the test ends: it would keep this one's pipes open.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn workers_leave_with_their_parent() {
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
    let client = client_of(&address.into());
    client.sendall(b"stay\n").unwrap();
    assert!(client.recv(100).unwrap().ends_with(b"\n"));
    let begin = Instant::now();
    // The first may answer before the last has been forked.
    let workers = loop {
        let workers = children(server.0.id());
        if workers.len() == 3 {
            break workers;
        }
        assert!(begin.elapsed() < LIMIT, "workers: {workers:?}");
        thread::yield_now();
    };
    drop(server);
    // A client between two requests is let go, and so are the workers that wait.
    assert_eq!(client.recv(100).unwrap(), b"");
    wait_until_ended(&workers);
}

/// The letter of ps(1); nothing for a process that is gone.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Orphans are collected by whoever is init, or not at all.
fn wait_until_ended(workers: &[i32]) {
    let begin = Instant::now();
    while let Some(pid) = workers.iter().find(|pid| !matches!(state(**pid), None | Some('Z'))) {
        let told = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let late = begin.elapsed() > LIMIT / 2;
        assert!(!late, "worker {pid} is still there: {} {}", told("stat"), told("wchan"));
        thread::yield_now();
    }
}

fn drain_reports_over_all_workers() {
    let (known, reached) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&reached);
    let next = move |handle: &ServerHandle| {
        // Three connections, of which two have a request that goes on.
        seen.store(handle.stats().in_flight as usize, Ordering::Relaxed);
        handle.stats().in_flight == 3
    };
    let hooks =
        Script { handle: Arc::clone(&known), next: Mutex::new(Box::new(next)), began: Instant::now() };
    let builder = builder().workers(3).service_actions(move |_| hooks.service_actions());
    let server = builder.bind(LOOPBACK).unwrap();
    known.set(server.handle()).unwrap();
    let address = server.server_address().clone();
    let (idle, silent, hangs) = (client_of(&address), client_of(&address), client_of(&address));
    idle.sendall(b"stay\n").unwrap();
    hangs.sendall(b"hang\n").unwrap();
    server.serve_forever().unwrap();
    assert_eq!(reached.load(Ordering::Relaxed), 3);
    // Each has got as far as it will.
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

/// Waits for the end of its client.
fn patient(request: Socket, _client_address: &sock::Address) -> io::Result<Socket> {
    while !request.recv(1)?.is_empty() {}
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// It serves in the process that is going to fork, which has no thread for deadlines.
fn handle_request_has_its_wrap_deadline() {
    let builder = PreforkTCPServer::builder(|| Worker).wrap_request(patient);
    let builder = builder.wrap_timeout(Duration::from_millis(100)).read_timeout(None);
    let server = builder.bind(LOOPBACK).unwrap();
    for served in 1..=2 {
        let client = client_of(server.server_address());
        client.sendall(b"x").unwrap();
        server.handle_request().unwrap();
        let stats = server.stats();
        assert_eq!((stats.accepted, stats.timed_out.wrap), (served, served), "{stats:?}");
    }
    // No thread keeps it from forking.
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
            let client = client_of(&address);
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

/// A client that comes when `serve_forever` has returned is left for the next loop.
fn workers_accept_no_more() {
    let server = prepare(builder().workers(4), |_| {
        move |_: &ServerHandle| {
            let workers = children(std::process::id());
            workers.len() == 4 && workers.iter().all(|pid| state(*pid) == Some('S'))
        }
    });
    for _ in 0..10 {
        server.serve_forever().unwrap();
        // Those of the rounds before, which the next loop finds in the queue.
        let accepted = server.stats().accepted;
        let client = Client::of(server.server_address());
        client.say("last\n");
        let begin = Instant::now();
        while !children(std::process::id()).iter().all(|pid| state(*pid) == Some('Z')) {
            assert!(begin.elapsed() < LIMIT, "the workers leave");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!((client.answer(), server.stats().accepted), (None, accepted), "it was not accepted");
    }
    close(server);
}
