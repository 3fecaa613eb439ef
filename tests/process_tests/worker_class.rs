//! The promise: pre-forked workers with threads or a selector serve several connections each, and
//! the limits of the server apply to all workers together. `IN_EACH_CLASS` in `main.rs` lists the
//! tests of other modules that run with these workers too.

use std::fs;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};
use sock::{Address, POLLIN, Poll, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, PreforkMixIn, PreforkTCPServer, ServerHandle, ServerHooks, ServerState, StreamContext,
    WhenFull, WorkerClass, handler_fn,
};

use crate::Test;
use crate::preforking::{Client, children, play};
use crate::serve_after_fork::{Parent, single_fork};
use crate::support::{LIMIT, LOOPBACK, connect_from, connect_to, wait_until};

const THREADS: WorkerClass = WorkerClass::Threads(4);
const SELECTOR: WorkerClass = WorkerClass::Selector;

pub(crate) const TESTS: &[Test] = &[
    ("idle_connections_hold_no_worker_with_threads", || idle_connections_hold_no_worker(THREADS, 3)),
    ("idle_connections_hold_no_worker_with_a_selector", || idle_connections_hold_no_worker(SELECTOR, 50)),
    ("a_worker_with_threads_finishes_its_requests_after_max_requests", || {
        finishes_after_max_requests(THREADS);
    }),
    ("a_worker_with_a_selector_finishes_its_requests_after_max_requests", || {
        finishes_after_max_requests(SELECTOR);
    }),
    ("a_worker_accepts_while_others_serve_slow_clients_after_max_requests", accepts_while_others_leave),
    ("connections_without_a_request_count_for_max_requests_with_threads", || {
        connections_without_a_request_count(THREADS);
    }),
    ("connections_without_a_request_count_for_max_requests_with_a_selector", || {
        connections_without_a_request_count(SELECTOR);
    }),
    ("max_connections_applies_to_all_workers_with_threads", || max_connections_applies(THREADS)),
    ("max_connections_applies_to_all_workers_with_a_selector", || max_connections_applies(SELECTOR)),
    ("connections_over_the_limit_are_refused_with_threads", || refuses_over_the_limit(THREADS)),
    ("connections_over_the_limit_are_refused_with_a_selector", || refuses_over_the_limit(SELECTOR)),
    ("a_limit_per_address_applies_to_all_workers_with_threads", || limit_per_address(THREADS)),
    ("a_limit_per_address_applies_to_all_workers_with_a_selector", || limit_per_address(SELECTOR)),
    ("a_worker_is_killed_when_all_of_its_threads_are_stuck", || {
        kills_a_stuck_worker(WorkerClass::Threads(2))
    }),
    ("a_worker_with_a_selector_is_killed_when_all_of_its_threads_are_stuck", || {
        kills_a_stuck_worker(SELECTOR);
    }),
    #[cfg(target_os = "linux")]
    ("a_drain_reports_the_clients_of_stopped_workers", reports_clients_of_stopped_workers),
    ("a_worker_that_is_replaced_answers_the_next_request", || answers_the_next(WorkerClass::Sync)),
    ("a_worker_with_threads_that_is_replaced_answers_the_next_request", || answers_the_next(THREADS)),
    ("a_worker_with_a_selector_that_is_replaced_answers_the_next_request", || answers_the_next(SELECTOR)),
    ("a_worker_answers_the_next_request_after_max_requests", || answers_after_the_quota(WorkerClass::Sync)),
    ("a_worker_with_threads_answers_the_next_request_after_max_requests", || {
        answers_after_the_quota(THREADS);
    }),
    ("a_worker_with_a_selector_answers_the_next_request_after_max_requests", || {
        answers_after_the_quota(SELECTOR);
    }),
    ("workers_leave_idle_connections_open_for_a_second_after_max_requests", stays_open_for_a_second),
    ("a_worker_with_threads_keeps_idle_connections_while_another_one_exits", || {
        keeps_connections_while_another_exits(THREADS);
    }),
    ("a_worker_with_a_selector_keeps_idle_connections_while_another_one_exits", || {
        keeps_connections_while_another_exits(SELECTOR);
    }),
    ("workers_with_threads_call_their_hooks_once", || calls_hooks_once(THREADS)),
    ("workers_with_a_selector_call_their_hooks_once", || calls_hooks_once(SELECTOR)),
];

/// Answers each line with the process. `wait` is answered twice: at once, and when another line has
/// come. `hang` does not return.
fn answer(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    if cx.rfile.read_line(&mut line)? == 0 {
        return Ok(());
    }
    let pid = format!("{}\n", getpid().as_raw_pid());
    cx.wfile.write_all(pid.as_bytes())?;
    match &line[..] {
        "hang\n" => loop {
            std::thread::park();
        },
        "wait\n" => {
            cx.rfile.read_line(&mut line)?;
            cx.wfile.write_all(pid.as_bytes())?;
        }
        _ => {}
    }
    cx.close_connection = line == "last\n";
    Ok(())
}

fn builder(workers: usize, class: WorkerClass) -> Builder<Stream<Inet>, PreforkMixIn> {
    let builder = PreforkTCPServer::builder(handler_fn(answer)).workers(workers).worker_class(class);
    builder.poll_interval(Duration::from_millis(3))
}

/// A client that waits for its answers, for a server in another process.
struct Blocking(Socket);

impl Blocking {
    fn of(address: &Address) -> Blocking {
        Blocking(connect_to(address))
    }

    /// Returns the worker, or nothing at the end of the connection.
    fn ask(&self, line: &str) -> Option<i32> {
        let _ = self.0.sendall(line.as_bytes());
        let mut answer = String::new();
        let _ = self.0.makefile_rb().read_line(&mut answer);
        answer.trim().parse().ok()
    }

    /// Whether the connection has ended, or ends.
    fn ends(&self) -> bool {
        self.0.recv(100).map_or(true, |data| data.is_empty())
    }

    /// Whether no answer has come.
    fn waits(&self) -> bool {
        self.0.setblocking(false).unwrap();
        let received = self.0.recv_with_flags(100, sock::MSG_PEEK);
        self.0.settimeout(LIMIT).unwrap();
        received.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A server in another process, which has one thread.
struct Running {
    parent: Parent,
    address: Address,
}

impl Running {
    fn start(builder: Builder<Stream<Inet>, PreforkMixIn>) -> Running {
        Running::start_within(LIMIT, builder)
    }

    /// `limit`: of a drain, and of a worker that is replaced after SIGHUP.
    fn start_within(limit: Duration, builder: Builder<Stream<Inet>, PreforkMixIn>) -> Running {
        let server = builder.drain_on_signals(limit).bind(LOOPBACK).unwrap();
        let address = server.server_address().clone();
        let mut server = Some(server);
        let parent = single_fork(&mut |_| {
            let server = server.take().unwrap();
            server.serve_forever().unwrap();
            let (stats, report) = (server.stats(), server.drained().unwrap());
            server.server_close().unwrap();
            assert!(stats.is_consistent() && stats.in_flight == 0, "{stats}");
            assert!(report.aborted.is_empty(), "{report}");
        });
        Running { parent, address }
    }

    fn connect(&self) -> Blocking {
        Blocking::of(&self.address)
    }

    fn workers(&self) -> Vec<i32> {
        children(self.parent.pid.as_raw_pid() as u32)
    }

    /// Drains the server.
    fn stop(self) {
        kill_process(self.parent.pid, Signal::TERM).unwrap();
        assert_eq!(self.parent.control.recv(1).unwrap(), b"");
    }
}

fn idle_connections_hold_no_worker(class: WorkerClass, idle: usize) {
    let server = Running::start(builder(1, class));
    let clients: Vec<_> = (0..idle).map(|_| server.connect()).collect();
    let workers: Vec<_> = clients.iter().map(|client| client.ask("stay\n").unwrap()).collect();
    let next = server.connect();
    assert_eq!(next.ask("last\n"), Some(workers[0]));
    assert!(clients.iter().all(|client| client.ask("stay\n") == Some(workers[0])));
    drop(clients);
    server.stop();
}

/// The last request of the quota comes while another request is being served.
fn finishes_after_max_requests(class: WorkerClass) {
    let server = Running::start(builder(1, class).max_requests(2, 0));
    let (slow, idle, last) = (server.connect(), server.connect(), server.connect());
    let worker = slow.ask("wait\n").unwrap();
    assert_eq!(idle.ask("stay\n"), Some(worker));
    assert_eq!(last.ask("stay\n"), Some(worker));
    assert!(idle.ends() && last.ends(), "idle connections are closed");
    // Another worker serves before this one has ended.
    let next = server.connect();
    assert_ne!(next.ask("last\n").unwrap(), worker);
    assert!(slow.waits());
    assert_eq!(slow.ask("go\n"), Some(worker));
    assert!(slow.ends());
    wait_until("the worker has exited", || !server.workers().contains(&worker));
    server.stop();
}

/// Each of the workers has a slow client when it leaves, until no place is left for another one.
fn accepts_while_others_leave() {
    let builder = builder(1, SELECTOR).max_requests(2, 0).close_timeout(Some(2 * LIMIT));
    let server = Running::start(builder);
    let mut slow = Vec::new();
    // There are two places: for a worker and for its successor.
    for _ in 0..4 {
        let client = server.connect();
        client.ask("wait\n").expect("a worker accepts");
        slow.push(client);
        server.connect().ask("last\n").expect("a worker accepts");
    }
    assert!(slow[0].ends(), "the oldest worker was ended");
    assert!(slow[3].waits(), "the newest one goes on");
    slow.clear();
    server.stop();
}

fn connections_without_a_request_count(class: WorkerClass) {
    let server = Running::start(builder(1, class).max_requests(3, 0).first_byte_timeout(None));
    let stays = server.connect();
    let worker = stays.ask("stay\n").unwrap();
    (0..2).for_each(|_| drop(server.connect()));
    assert!(stays.ends(), "the worker is replaced");
    wait_until("another worker serves", || server.connect().ask("last\n").is_some_and(|pid| pid != worker));
    server.stop();
}

fn max_connections_applies(class: WorkerClass) {
    let server = Running::start(builder(2, class).max_connections(3));
    let clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    assert!(clients.iter().all(|client| client.ask("stay\n").is_some()));
    let mut next: Vec<_> = (0..2).map(|_| server.connect()).collect();
    next.iter().for_each(|client| client.0.sendall(b"stay\n").unwrap());
    // Later requests of the others are answered meanwhile.
    assert!(clients.iter().all(|client| client.ask("stay\n").is_some()));
    assert!(next.iter().all(Blocking::waits), "a fourth connection is served");
    drop(clients);
    assert!(next.iter().all(|client| !client.ends()));
    next.clear();
    server.stop();
}

fn refuses_over_the_limit(class: WorkerClass) {
    let server = Running::start(builder(2, class).max_connections(3).when_full(WhenFull::Refuse));
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    assert!(clients.iter().all(|client| client.ask("stay\n").is_some()));
    for _ in 0..4 {
        assert_eq!(server.connect().ask("stay\n"), None);
    }
    clients.pop();
    wait_until("there is room", || server.connect().ask("last\n").is_some());
    drop(clients);
    server.stop();
}

/// The table of a worker that was killed is cleared.
fn limit_per_address(class: WorkerClass) {
    let server = Running::start(builder(2, class).max_connections_per_ip(2));
    let from = |source: &str| Blocking(connect_from(source, &server.address));
    let mut clients = vec![from("127.0.0.1"), from("127.0.0.1")];
    let workers: Vec<_> = clients.iter().map(|client| client.ask("stay\n").unwrap()).collect();
    for _ in 0..6 {
        assert_eq!(from("127.0.0.1").ask("stay\n"), None);
    }
    if cfg!(target_os = "linux") {
        assert!(from("127.0.0.2").ask("last\n").is_some());
    }
    clients.pop();
    wait_until("there is room", || from("127.0.0.1").ask("last\n").is_some());
    kill_process(Pid::from_raw(workers[0]).unwrap(), Signal::KILL).unwrap();
    assert!(clients[0].ends());
    wait_until("the client of the killed worker is forgotten", || {
        let pair = [from("127.0.0.1"), from("127.0.0.1")];
        pair.iter().all(|client| client.ask("stay\n").is_some())
    });
    clients.clear();
    server.stop();
}

/// While a thread is left, the worker goes on.
fn kills_a_stuck_worker(class: WorkerClass) {
    let builder = builder(1, class).request_timeout(Duration::from_millis(200));
    let builder = builder.heartbeat(Duration::from_millis(1500));
    let builder = if class == SELECTOR { builder.max_threads(2) } else { builder };
    play(builder, |address| {
        let connect = move |line: &str| {
            let client = Client::of(&address);
            client.say(line);
            client
        };
        let mut clients = vec![connect("hang\n")];
        let (mut workers, mut since) = (Vec::new(), None);
        move |_: &ServerHandle| {
            let Some(pid) = clients.last().unwrap().answer() else { return false };
            workers.push(pid);
            match workers.len() {
                1 => since = Some(std::time::Instant::now()),
                // The first request has been overdue for some time.
                2 if since.unwrap().elapsed() < Duration::from_millis(1500) => drop(workers.pop()),
                2 => {
                    assert_eq!(workers[0], workers[1], "one thread is not stuck");
                    clients.push(connect("hang\n"));
                    return false;
                }
                3 => {}
                _ => {
                    if pid != workers[0] {
                        return true;
                    }
                }
            }
            clients.push(connect("last\n"));
            false
        }
    });
}

/// Whether all threads of a process are stopped. They stop one after the other.
#[cfg(target_os = "linux")]
fn is_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")));
    let state = |stat: io::Result<String>| stat.ok()?.rsplit(") ").next()?.chars().next();
    stats.map(state).all(|state| state == Some('T'))
}

/// The worker cannot report its clients, of which only the number is known.
#[cfg(target_os = "linux")]
fn reports_clients_of_stopped_workers() {
    let server = builder(1, SELECTOR).drain_on_signals(Duration::from_millis(300)).bind(LOOPBACK).unwrap();
    let address = server.server_address().clone();
    let mut server = Some(server);
    let parent = single_fork(&mut |control| {
        let server = server.take().unwrap();
        server.serve_forever().unwrap();
        let report = server.drained().unwrap();
        control.send(format!("{} {}", report.aborted.len(), report.idle).as_bytes()).unwrap();
        server.server_close().unwrap();
    });
    let clients = [1, 2, 3].map(|_| Blocking::of(&address));
    let workers = clients.iter().map(|client| client.ask("stay\n").unwrap());
    let worker = workers.max().unwrap();
    kill_process(Pid::from_raw(worker).unwrap(), Signal::STOP).unwrap();
    wait_until("all threads have stopped", || is_stopped(worker));
    kill_process(parent.pid, Signal::TERM).unwrap();
    assert_eq!(parent.control.recv(100).unwrap(), b"3 0");
    assert!(clients.iter().all(Blocking::ends));
}

/// Answers with the process, as a negative number and for the last time if it stops.
fn answer_state(cx: &mut StreamContext<'_>) -> io::Result<()> {
    if cx.rfile.read_line(&mut String::new())? == 0 {
        return Ok(());
    }
    cx.close_connection = cx.server.state() != ServerState::Ready;
    let pid = getpid().as_raw_pid();
    writeln!(cx.wfile, "{}", if cx.close_connection { -pid } else { pid })
}

/// An idle connection stays open for the time of the lame duck, and for half of the limit at most.
fn answers_the_next(class: WorkerClass) {
    let builder = PreforkTCPServer::builder(handler_fn(answer_state)).workers(1).worker_class(class);
    let builder = builder.poll_interval(Duration::from_millis(3)).manage_workers_on_signals();
    let server = Running::start_within(LIMIT * 20, builder.lame_duck(LIMIT * 10));
    let idle = server.connect();
    let worker = idle.ask("?\n").unwrap();
    kill_process(server.parent.pid, Signal::HUP).unwrap();
    let others = || server.connect().ask("?\n").is_some_and(|pid| pid.abs() != worker);
    wait_until("another worker serves", others);
    let closed = sock::poll(&mut [Poll::new(&idle.0, POLLIN)], Some(Duration::from_millis(300)));
    assert_eq!(closed.unwrap(), 0, "the idle connection is closed");
    wait_until("the worker ends", || {
        let answer = idle.ask("?\n");
        assert_eq!(answer.map(i32::abs), Some(worker), "a request is lost");
        answer == Some(-worker)
    });
    assert!(idle.ends());
    wait_until("the worker has exited", || !server.workers().contains(&worker));
    // The second signal ends the lame duck.
    kill_process(server.parent.pid, Signal::TERM).unwrap();
    kill_process(server.parent.pid, Signal::INT).unwrap();
    assert_eq!(server.parent.control.recv(1).unwrap(), b"");
}

/// The connection of the last request of the quota stays open too, which its handler has kept.
fn answers_after_the_quota(class: WorkerClass) {
    let builder = PreforkTCPServer::builder(handler_fn(answer_state)).workers(1).worker_class(class);
    let builder = builder.poll_interval(Duration::from_millis(3)).max_requests(3, 0);
    let builder = builder.close_timeout(Some(LIMIT * 20));
    let server = Running::start(builder.lame_duck(LIMIT * 10));
    let others = if class == WorkerClass::Sync { 0 } else { 2 };
    let mut clients: Vec<_> = (0..others).map(|_| server.connect()).collect();
    let mut worker = clients.iter().map(|client| client.ask("?\n").unwrap()).last();
    let last = server.connect();
    for _ in others..3 {
        let answer = last.ask("?\n").unwrap();
        assert_eq!(answer, *worker.get_or_insert(answer), "the connection is kept");
    }
    clients.push(last);
    for client in clients {
        let closed = sock::poll(&mut [Poll::new(&client.0, POLLIN)], Some(Duration::from_millis(100)));
        assert_eq!(closed.unwrap(), 0, "the idle connection is closed");
        wait_until("the worker ends", || {
            let answer = client.ask("?\n");
            assert_eq!(answer.map(i32::abs), worker, "a request is lost");
            answer < Some(0)
        });
        assert!(client.ends());
    }
    wait_until("the worker has exited", || !server.workers().contains(&worker.unwrap()));
    // The second signal ends the lame duck.
    kill_process(server.parent.pid, Signal::TERM).unwrap();
    kill_process(server.parent.pid, Signal::INT).unwrap();
    assert_eq!(server.parent.control.recv(1).unwrap(), b"");
}

/// Without a lame duck.
fn stays_open_for_a_second() {
    for class in [WorkerClass::Sync, THREADS, SELECTOR] {
        let server = Running::start(builder(1, class).max_requests(2, 0));
        let client = server.connect();
        client.ask("stay\n").unwrap();
        let begin = Instant::now();
        client.ask("stay\n").unwrap();
        assert!(client.ends());
        assert!(begin.elapsed() >= Duration::from_secs(1), "{class:?}: {:?}", begin.elapsed());
        server.stop();
    }
}

/// Reports in `worker_exit` that it begins, and returns when it may.
struct ExitWhen {
    begins: Socket,
    may_exit: Socket,
}

impl ServerHooks for ExitWhen {
    fn worker_exit(&self) {
        self.begins.sendall(b"x").unwrap();
        let _ = self.may_exit.recv_with_flags(1, sock::MSG_PEEK);
    }
}

/// One of two places is taken by a worker with an idle connection, the other one by a worker that exits.
fn keeps_connections_while_another_exits(class: WorkerClass) {
    let [(begun, begins), (exit, may_exit), (counts, counted)] = [(); 3].map(|()| {
        let pair = sock::socketpair().unwrap();
        [&pair.0, &pair.1].into_iter().for_each(|socket| socket.settimeout(LIMIT).unwrap());
        pair
    });
    counted.setblocking(false).unwrap();
    let builder = builder(1, class).max_requests(2, 0).lame_duck(5 * LIMIT).close_timeout(Some(10 * LIMIT));
    let builder = builder.hooks(ExitWhen { begins, may_exit }).service_actions(move |server| {
        if counted.recv(1).is_ok_and(|asked| !asked.is_empty()) {
            counted.sendall(&[server.stats().in_flight as u8]).unwrap();
        }
    });
    let server = Running::start(builder);
    let idle = server.connect();
    let worker = idle.ask("stay\n").unwrap();
    assert_eq!(idle.ask("stay\n"), Some(worker));
    // The first worker serves what it accepts before it has counted its last request.
    let mut other = worker;
    wait_until("another worker serves", || {
        other = server.connect().ask("last\n").unwrap();
        other != worker
    });
    wait_until("the idle connection is the only one", || {
        counts.sendall(b"?").unwrap();
        counts.recv(1).unwrap() == [1]
    });
    kill_process(Pid::from_raw(other).unwrap(), Signal::TERM).unwrap();
    assert_eq!(begun.recv(1).unwrap(), b"x");
    let closed = sock::poll(&mut [Poll::new(&idle.0, POLLIN)], Some(Duration::from_millis(300)));
    assert_eq!(closed.unwrap(), 0, "the idle connection is closed");
    exit.sendall(b"x").unwrap();
    assert!(server.connect().ask("last\n").is_some_and(|pid| ![worker, other].contains(&pid)));
    assert_eq!(idle.ask("last\n"), Some(worker), "a request is lost");
    // The second signal ends the lame duck.
    kill_process(server.parent.pid, Signal::TERM).unwrap();
    kill_process(server.parent.pid, Signal::INT).unwrap();
    assert_eq!(server.parent.control.recv(1).unwrap(), b"");
}

/// Appends the name of each hook and its process to a file.
struct Record(fs::File);

impl Record {
    fn note(&self, hook: &str) {
        (&self.0).write_all(format!("{hook} {}\n", getpid().as_raw_pid()).as_bytes()).unwrap();
    }
}

impl ServerHooks for Record {
    fn start_worker(&self) -> io::Result<()> {
        self.note("start");
        Ok(())
    }

    fn worker_exit(&self) {
        self.note("exit");
    }
}

fn calls_hooks_once(class: WorkerClass) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file_of_hooks = fs::OpenOptions::new().append(true).open(file.path()).unwrap();
    let builder = builder(2, class).max_requests(3, 0).hooks(Record(file_of_hooks));
    let threads = fs::OpenOptions::new().append(true).open(file.path()).unwrap();
    let on_start = move || {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        (&threads).write_all(format!("{name} {}\n", getpid().as_raw_pid()).as_bytes()).unwrap();
    };
    let builder = builder.thread_name("serves").stack_size(256 << 10).on_thread_start(on_start);
    let server = Running::start(builder);
    let ask = |_| server.connect().ask("last\n").expect("an answer");
    let mut answered: Vec<_> = (0..20).map(ask).collect();
    server.stop();
    let text = fs::read_to_string(file.path()).unwrap();
    let of = |hook: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let mut pids: Vec<_> = lines.filter(|(name, _)| *name == hook).map(|(_, pid)| pid).collect();
        pids.sort_unstable();
        pids
    };
    let (starts, exits, serving) = (of("start"), of("exit"), of("serves"));
    assert!(starts.len() > 2 && starts == exits, "{text}");
    answered.sort_unstable();
    answered.dedup();
    assert!(answered.len() > 2, "{answered:?}");
    // A worker that is stopped at once starts no thread.
    for pid in answered {
        assert!(serving.contains(&pid.to_string().as_str()), "no thread of {pid} has the name: {text}");
    }
    for pid in serving {
        assert!(starts.contains(&pid), "a thread of {pid} began without its hook: {text}");
    }
}
