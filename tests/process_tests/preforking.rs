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
    #[cfg(target_os = "linux")]
    ("prefork_replaces_a_killed_worker_whose_control_socket_is_held", replaces_a_worker_with_held_sockets),
    ("prefork_replaces_a_stopped_worker", replaces_a_stopped_worker),
    ("prefork_kills_a_worker_whose_handler_does_not_return", kills_a_stuck_worker),
    (
        "prefork_does_not_kill_a_worker_with_a_long_connection",
        does_not_kill_a_worker_with_a_long_connection,
    ),
    ("prefork_replaces_workers_after_max_requests", replaces_workers_after_max_requests),
    ("prefork_max_requests_counts_requests_of_one_connection", counts_requests_of_one_connection),
    ("prefork_fails_when_workers_cannot_start", fails_when_workers_cannot_start),
    ("prefork_workers_leave_when_their_parent_is_killed", workers_exit_when_their_parent_dies),
    ("prefork_drain_reports_over_all_workers", drain_reports_over_all_workers),
    ("prefork_handle_request_enforces_wrap_timeout", handle_request_enforces_wrap_timeout),
    ("prefork_counts_a_client_for_the_address_that_wrap_request_names", client_address_of_the_hook),
    ("prefork_serves_datagrams", serves_datagrams),
    ("prefork_keeps_its_workers_when_all_processes_were_stopped", keeps_workers_after_a_pause),
    (
        "prefork_answers_from_the_address_that_the_datagram_was_sent_to",
        answers_from_the_address_that_the_datagram_was_sent_to,
    ),
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

pub(crate) fn builder() -> Builder<Stream<Inet>, PreforkMixIn> {
    PreforkTCPServer::builder(|| Worker)
        .poll_interval(Duration::from_millis(3))
        .workers(2)
        .worker_class(crate::worker_class())
}

/// Serves until the script is done. `script` is called with the server's address.
pub(crate) fn play<F>(builder: Builder<Stream<Inet>, PreforkMixIn>, script: impl FnOnce(sock::Address) -> F)
where
    F: FnMut(&ServerHandle) -> bool + Send + 'static,
{
    let server = prepare(builder, script);
    server.serve_forever().unwrap();
    close(server);
}

pub(crate) fn close(server: PreforkTCPServer) {
    server.server_close().unwrap();
    assert_eq!(children(std::process::id()), [], "a worker is left");
}

/// Creates a server whose loop ends when the script is done.
pub(crate) fn prepare<F>(
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

pub(crate) fn children(of: u32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A non-blocking client. It sends a line and reads later which worker serves it.
pub(crate) struct Client(pub(crate) Socket);

impl Client {
    pub(crate) fn of(address: &sock::Address) -> Client {
        let sock = connect_to(address);
        sock.setblocking(false).unwrap();
        Client(sock)
    }

    pub(crate) fn say(&self, line: &str) {
        self.0.sendall(line.as_bytes()).unwrap();
    }

    /// Returns the worker's process id once it has answered, and nothing at the end of the connection.
    pub(crate) fn answer(&self) -> Option<i32> {
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

/// A process that a worker has started may hold its control socket. Here the parent itself does.
#[cfg(target_os = "linux")]
fn replaces_a_worker_with_held_sockets() {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    play(builder().workers(1).poll_interval(Duration::from_secs(60)), |_| {
        let (mut held, mut killed) = (Vec::new(), None);
        move |_: &ServerHandle| match (killed, &children(std::process::id())[..]) {
            (None, [pid]) => {
                let worker = pidfd_open(Pid::from_raw(*pid).unwrap(), PidfdFlags::empty()).unwrap();
                held.extend((3..64).flat_map(|fd| pidfd_getfd(&worker, fd, PidfdGetfdFlags::empty())));
                assert!(!held.is_empty());
                signal(*pid, Signal::KILL);
                killed = Some(*pid);
                false
            }
            // Long before the end of the poll interval.
            (Some(pid), [next]) if pid != *next => {
                held.clear();
                true
            }
            _ => false,
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

/// SIGSTOP and SIGCONT for the whole family, as when a virtual machine is suspended. The parent
/// continues first, and finds no heartbeat since before the pause.
fn keeps_workers_after_a_pause() {
    // More than the shell needs on a busy machine until the workers continue too.
    const HEARTBEAT: Duration = Duration::from_secs(2);
    play(builder().workers(2).heartbeat(HEARTBEAT), |_| {
        let (mut workers, mut pause, mut resumed) = (Vec::new(), None, None::<Instant>);
        move |_: &ServerHandle| {
            let mut now = children(std::process::id());
            if let Some(resumed) = resumed {
                assert_eq!(now, workers, "a worker was killed");
                return resumed.elapsed() > HEARTBEAT;
            }
            let Some(pause) = &mut pause else {
                if now.len() == 2 && now.iter().all(|pid| state(*pid) == Some('S')) {
                    let (parent, workers_now) = (std::process::id(), format!("{} {}", now[0], now[1]));
                    let script = format!(
                        "kill -STOP {parent} {workers_now}; sleep 2.5; kill -CONT {parent}; sleep 0.2; \
                         kill -CONT {workers_now}"
                    );
                    pause = Some(Command::new("sh").args(["-c", &script]).spawn().unwrap());
                    workers = now;
                }
                return false;
            };
            now.retain(|pid| *pid != pause.id() as i32);
            if pause.try_wait().unwrap().is_some() {
                resumed = Some(Instant::now());
            }
            false
        }
    });
}

fn kills_a_stuck_worker() {
    // The next worker has to be in time also on a busy machine.
    let limit = Duration::from_secs(1);
    let builder = builder().workers(1).request_timeout(limit);
    play(builder.heartbeat(limit), |address| {
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
    // Much more than a request or a heartbeat takes on a busy machine.
    let limit = Duration::from_secs(1);
    let builder = builder().workers(1).request_timeout(limit);
    play(builder.heartbeat(limit), |address| {
        let client = Client::of(&address);
        client.say("first\n");
        let (mut worker, began) = (None, Instant::now());
        move |_: &ServerHandle| {
            let Some(pid) = client.answer() else { return false };
            assert_eq!(*worker.get_or_insert(pid), pid);
            let is_long = began.elapsed() > limit * 3;
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

/// A client that keeps its connection.
fn counts_requests_of_one_connection() {
    play(builder().workers(1).max_requests(3, 0), |address| {
        let (mut client, mut answers, mut pids) = (Client::of(&address), 0, Vec::new());
        client.say("one\n");
        move |handle: &ServerHandle| {
            let Ok(answer) = client.0.recv(100) else { return false };
            if answer.is_empty() {
                assert_eq!(answers, 3, "the connection was closed after another number of requests");
                if pids.len() == 2 {
                    return handle.stats().finished == 2;
                }
                (client, answers) = (Client::of(&address), 0);
                client.say("one\n");
                return false;
            }
            answers += 1;
            assert!(answers <= 3, "max_requests counts connections");
            if answers == 1 {
                pids.push(answer);
                assert!(pids.len() < 2 || pids[0] != pids[1], "the worker was not replaced");
            } else {
                assert_eq!(pids.last(), Some(&answer));
            }
            if answers < 3 {
                client.say("next\n");
            }
            false
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
    let builder = PreforkTCPServer::builder(|| Worker).workers(3).worker_class(crate::worker_class());
    let server = builder.bind(LOOPBACK).unwrap();
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
pub(crate) fn wait_until_ended(workers: &[i32]) {
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
    // One request uses all of the time.
    let report = server.drain(Duration::from_millis(1500)).unwrap();
    assert!(begin.elapsed() < LIMIT);
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
    serve_datagrams("127.0.0.1", "127.0.0.1");
}

/// A connected client receives only what comes from the address that it has sent to. Linux has
/// every address of 127.0.0.0/8.
fn answers_from_the_address_that_the_datagram_was_sent_to() {
    if cfg!(target_os = "linux") {
        serve_datagrams("0.0.0.0", "127.0.0.2");
    }
}

fn serve_datagrams(bound: &str, address: &str) {
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
    let builder = PreforkUDPServer::builder(|| Echo).workers(2).worker_class(crate::worker_class());
    let builder = builder.service_actions(move |_| hooks.service_actions());
    let server = builder.poll_interval(Duration::from_millis(3)).bind((bound, 0)).unwrap();
    known.set(server.handle()).unwrap();
    client.connect((address, server.server_address().port().unwrap())).unwrap();
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
