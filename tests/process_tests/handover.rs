//! The promise: a server is replaced by another process without a failed request, also on persistent
//! connections. It goes on if the other process fails before it is ready. What it returns to scrapes
//! meanwhile is consistent.

mod kept;
mod scraper;

use std::fs;
use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, getppid, kill_process};
use sock::{AF_UNIX, Address, SOCK_STREAM, Socket, ToAddress};
use sockserver::handover::{Handover, Upgrade};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, SelectorTCPServer, ServerHooks, ServerState,
    StreamContext, StreamRequestHandler, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer,
};

use self::scraper::Scraper;
use crate::Test;
use crate::preforking;
use crate::support::{LIMIT, LOOPBACK, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("handover_of_a_sequential_server_loses_no_request", || hand_over("tcp", "tcp")),
    ("handover_of_a_threading_server_loses_no_request", || hand_over("threading", "threading")),
    ("handover_of_a_pool_loses_no_request", || hand_over("pool", "pool")),
    ("handover_of_a_selector_loses_no_request", || hand_over("selector", "selector")),
    ("handover_of_a_forking_server_loses_no_request", || hand_over("forking", "forking")),
    ("handover_of_a_prefork_server_loses_no_request", || hand_over("prefork", "prefork")),
    ("handover_to_another_class_loses_no_request", || {
        hand_over("prefork", "threading");
        hand_over("threading", "prefork");
    }),
    ("handover_of_a_threading_server_answers_kept_connections", || {
        kept::answer_kept_connections("threading")
    }),
    ("handover_of_a_pool_answers_kept_connections", || kept::answer_kept_connections("pool")),
    ("handover_of_a_selector_answers_kept_connections", || kept::answer_kept_connections("selector")),
    ("handover_of_a_forking_server_answers_kept_connections", || kept::answer_kept_connections("forking")),
    ("handover_of_a_prefork_server_answers_kept_connections", || kept::answer_kept_connections("prefork")),
    (
        "handover_does_not_wait_for_the_kept_connection_of_a_sequential_server",
        kept::sequential_does_not_wait,
    ),
    ("handover_of_a_prefork_server_answers_in_replaced_workers", kept::answer_in_replaced_workers),
    ("handover_closes_kept_connections_after_the_grace", kept::close_after_the_grace),
    (
        "handover_closes_a_connection_that_its_handler_keeps_after_the_second_answer",
        kept::close_what_is_kept,
    ),
    ("handover_to_a_successor_that_dies_answers_kept_connections", kept::successor_dies_after_the_release),
    ("restart_without_a_handover_loses_requests", restart_loses_requests),
    ("handover_fails_before_it_is_ready_tcp", || fail_at_every_step("tcp")),
    ("handover_fails_before_it_is_ready_threading", || fail_at_every_step("threading")),
    ("handover_fails_before_it_is_ready_pool", || fail_at_every_step("pool")),
    ("handover_fails_before_it_is_ready_selector", || fail_at_every_step("selector")),
    ("handover_fails_before_it_is_ready_forking", || fail_at_every_step("forking")),
    ("handover_fails_before_it_is_ready_prefork", || fail_at_every_step("prefork")),
    ("handover_is_given_to_one_of_several_successors", only_one_successor_wins),
    ("handover_is_cancelled_if_the_successor_is_not_ready_in_time", a_successor_has_limited_time),
    ("upgrade_of_a_sequential_server_loses_no_request", || upgrade("tcp")),
    ("upgrade_of_a_threading_server_loses_no_request", || upgrade("threading")),
    ("upgrade_of_a_pool_loses_no_request", || upgrade("pool")),
    ("upgrade_of_a_selector_loses_no_request", || upgrade("selector")),
    ("upgrade_of_a_forking_server_loses_no_request", || upgrade("forking")),
    ("upgrade_of_a_prefork_server_loses_no_request", || upgrade("prefork")),
    #[cfg(target_os = "linux")]
    ("upgrade_that_fails_leaves_the_old_version", upgrades_that_fail),
    (
        "prefork_workers_leave_offered_listeners_when_their_parent_is_killed",
        workers_leave_offered_listeners,
    ),
    ("upgrade_leaves_nothing_to_a_second_server", a_second_server_binds),
    ("handover_without_a_limit_of_time", without_a_limit),
    ("systemd_is_notified_of_the_state_of_a_server", systemd_is_notified),
    ("a_full_queue_of_systemd_delays_nothing", a_full_queue_of_systemd_delays_nothing),
    ("systemd_is_notified_of_a_new_version", systemd_is_notified_of_a_new_version),
    ("systemd_is_notified_of_a_failed_handover", systemd_is_notified_of_a_failure),
    ("handover_that_fails_restores_the_mode_of_blocking", a_failure_restores_the_mode_of_blocking),
    ("systemd_sockets_are_adopted", sockets_are_adopted),
    ("handover_path_is_removed_by_the_last_server", the_path_is_removed_by_the_last_server),
];

const MODELS: [&str; 6] = ["tcp", "threading", "pool", "selector", "forking", "prefork"];

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[("handover_server", serve_here)];

/// Answers each line with the process id of the server, and whether it closes the connection.
struct Service {
    /// The model serves one connection at a time.
    closes: bool,
    /// It does not look whether the server stops.
    keeps: bool,
}

impl StreamRequestHandler for Service {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        if cx.rfile.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let stops = cx.server.state() != ServerState::Ready && !self.keeps;
        let closes = self.closes || line == "close\n" || stops;
        cx.close_connection = closes;
        let word = if closes { "close" } else { "keep" };
        let server = SERVER.load(Ordering::Relaxed);
        cx.wfile.write_all(format!("{server} {word}\n").as_bytes())
    }
}

/// The workers of the prefork server: more than persistent connections.
const WORKERS: usize = 12;

/// The process id of the server, also in its workers.
static SERVER: AtomicU64 = AtomicU64::new(0);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn serve_here() {
    env_logger::init();
    SERVER.store(std::process::id().into(), Ordering::Relaxed);
    let keeps = !variable("KEEPS").is_empty();
    let service = move || Service { closes: false, keeps };
    match &*variable("MODEL") {
        "tcp" => serve(TCPServer::builder(move || Service { closes: !keeps, keeps })),
        "threading" => serve(ThreadingTCPServer::builder(service)),
        "pool" => serve(ThreadPoolTCPServer::builder(service).workers(16)),
        "selector" => serve(SelectorTCPServer::builder(service)),
        "forking" => serve(ForkingTCPServer::builder(service)),
        "prefork" => {
            let server = PreforkTCPServer::builder(service);
            let server = server.workers(WORKERS).worker_class(crate::worker_class());
            match variable("QUOTA").parse() {
                Ok(quota) => serve(kept::with_quota(server, quota)),
                Err(_) => serve(server),
            }
        }
        other => panic!("no model {other}"),
    }
}

fn is_parent(process: u64) -> bool {
    getppid().is_some_and(|parent| parent.as_raw_pid() as u64 == process)
}

/// Reports a step, and waits to be killed if the test wants that.
fn step(name: &str) {
    println!("{name}");
    // A worker process goes on when its parent was killed.
    let server = SERVER.load(Ordering::Relaxed);
    let is_orphan = || server != u64::from(std::process::id()) && !is_parent(server);
    while variable("STEP") == name && !is_orphan() {
        thread::sleep(Duration::from_millis(2));
    }
}

/// The steps from `serve_forever` until the server is ready.
struct Steps;

impl ServerHooks for Steps {
    fn state_changed(&self, state: ServerState) {
        if state == ServerState::Ready {
            step("looping");
        }
    }

    fn start_worker(&self) -> io::Result<()> {
        step("starting a worker");
        Ok(())
    }
}

fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let mut builder = builder.drain_on_signals(LIMIT).allow_reuse_address(true).systemd();
    if ["looping", "starting a worker"].contains(&&*variable("STEP")) {
        builder = builder.hooks(Steps);
    }
    if !variable("ADMIN").is_empty() {
        builder = builder.admin(LOOPBACK);
    }
    let grace = variable("GRACE").parse().map_or(LIMIT, Duration::from_millis);
    let timeout = match &*variable("TIMEOUT") {
        "max" => Duration::MAX,
        milliseconds => milliseconds.parse().map_or(LIMIT, Duration::from_millis),
    };
    let server = if !variable("UPGRADE").is_empty() {
        let upgrade = match &*variable("UPGRADE") {
            "self" => Upgrade::to_current_program().unwrap(),
            program => Upgrade::to(program, ["60"]),
        };
        if std::env::var_os("SOCKSERVER_HANDOVER").is_some() {
            println!("upgrading {}", std::process::id());
            step("upgraded");
        }
        let builder =
            builder.upgrade_on_signal(upgrade.timeout(timeout).drain_limit(2 * LIMIT).idle_grace(grace));
        builder.bind_or_take_over(LOOPBACK).unwrap()
    } else if !variable("ACTIVATED").is_empty() {
        builder.bind_or_take_over(LOOPBACK).unwrap()
    } else if variable("HANDOVER").is_empty() {
        builder.bind(("127.0.0.1", variable("PORT").parse::<u16>().unwrap_or(0))).unwrap()
    } else {
        let offer = Handover::at(variable("HANDOVER")).timeout(timeout);
        let offer = offer.drain_limit(2 * LIMIT).idle_grace(grace);
        let inherited = offer.receive().unwrap();
        step("received");
        let builder = builder.handover(offer);
        match inherited {
            Some(inherited) => builder.take_over(inherited).unwrap(),
            None => builder.bind(LOOPBACK).unwrap(),
        }
    };
    step("built");
    if let Some(address) = server.handle().admin_address() {
        println!("scraped at {address}");
    }
    let _second = (!variable("SECOND").is_empty()).then(|| {
        let second = TCPServer::builder(|| Service { closes: true, keeps: false }).systemd();
        let second = second.bind_or_take_over(LOOPBACK).unwrap();
        println!("second {}", second.server_address());
        second
    });
    println!("serving {}", server.server_address());
    server.serve_forever().unwrap();
    if let Some(report) = server.drained() {
        assert!(report.aborted.is_empty(), "{report}");
    }
}

/// A server in another process, which is killed when this is dropped.
struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    log: mpsc::Receiver<String>,
}

/// Sends the lines of a pipe until its end.
fn send_lines(pipe: impl io::Read + Send + 'static, prints: bool) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if prints {
                eprintln!("{line}");
            }
            let _ = sender.send(line);
        }
    });
    lines
}

impl Program {
    fn start(model: &str, variables: &[(&str, &str)]) -> Program {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--alone", "handover_server"]).env("MODEL", model).env("RUST_LOG", "warn");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.envs(variables.iter().copied()).spawn().unwrap();
        let lines = send_lines(child.stdout.take().unwrap(), false);
        let log = send_lines(child.stderr.take().unwrap(), true);
        Program { child, lines, log }
    }

    /// Waits for a line of the log with this part.
    #[track_caller]
    fn wait_for_log(&self, part: &str) {
        while !self.log.recv_timeout(LIMIT).expect("the program logs it").contains(part) {}
    }

    /// Waits for a line with this beginning and returns the rest.
    #[track_caller]
    fn wait_for(&self, beginning: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("the program reports its steps");
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Returns the address of the administrative listener. It is reported before `serving`.
    #[track_caller]
    fn scraped_at(&self) -> Address {
        address_of(&self.wait_for("scraped at"))
    }

    fn id(&self) -> u64 {
        self.child.id().into()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops all threads of the process.
    #[cfg(target_os = "linux")]
    fn pause(&self) {
        self.signal(Signal::STOP);
        let is_stopped = |task: io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        };
        let tasks = format!("/proc/{}/task", self.id());
        wait_until("the process is stopped", || fs::read_dir(&tasks).unwrap().all(is_stopped));
    }

    /// Waits for the end and returns whether it was a success.
    fn wait(mut self) -> bool {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < until, "the server does not exit");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clients that send requests all the time: some on a new connection each, some on persistent ones.
struct Load {
    stops: Arc<AtomicBool>,
    counts: Arc<Counts>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failures: Mutex<Vec<String>>,
    /// The server that has answered last.
    last: AtomicU64,
}

const CLIENTS: usize = 6;

impl Load {
    fn start(address: &Address) -> Load {
        let (stops, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let client = |index: usize| {
            let (stops, counts, address) = (Arc::clone(&stops), Arc::clone(&counts), address.clone());
            let request = if index % 2 == 0 { "close\n" } else { "keep\n" };
            thread::spawn(move || {
                let mut connection = None;
                while !stops.load(Ordering::Relaxed) {
                    match ask(&mut connection, request, &address) {
                        Ok(server) => {
                            counts.last.store(server, Ordering::Relaxed);
                            counts.answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            counts.failures.lock().unwrap().push(format!("{request:?}: {error:?}"));
                            thread::sleep(Duration::from_millis(5));
                        }
                    }
                    thread::sleep(Duration::from_micros(500));
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load { stops, counts, clients }
    }

    /// Waits for so many more answers.
    #[track_caller]
    fn wait_for_answers(&self, answers: u64) {
        let enough = self.counts.answered.load(Ordering::Relaxed) + answers;
        wait_until("the clients are answered", || self.counts.answered.load(Ordering::Relaxed) >= enough);
    }

    fn last(&self) -> u64 {
        self.counts.last.load(Ordering::Relaxed)
    }

    fn stop(self) -> Vec<String> {
        self.stops.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
        std::mem::take(&mut *self.counts.failures.lock().unwrap())
    }
}

/// Sends a request and returns which server has answered it. A request on a connection that was used
/// before is not repeated: the server closes none without having announced it.
fn ask(connection: &mut Option<BufReader<Socket>>, request: &str, address: &Address) -> io::Result<u64> {
    if let Some(mut used) = connection.take() {
        let answer = exchange(&mut used, request)?;
        return keep(connection, used, &answer);
    }
    let client = Socket::new(address.family(), SOCK_STREAM, 0)?;
    client.settimeout(LIMIT)?;
    client.connect(address)?;
    let mut new = BufReader::new(client);
    let answer = exchange(&mut new, request)?;
    keep(connection, new, &answer)
}

fn exchange(connection: &mut BufReader<Socket>, request: &str) -> io::Result<String> {
    connection.get_ref().sendall(request.as_bytes())?;
    let mut answer = String::new();
    match connection.read_line(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer),
    }
}

fn keep(
    place: &mut Option<BufReader<Socket>>,
    connection: BufReader<Socket>,
    answer: &str,
) -> io::Result<u64> {
    let (server, word) = answer.trim().split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
    if word == "keep" {
        *place = Some(connection);
    }
    server.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

fn address_of(text: &str) -> Address {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("handover")
    }
}

fn start(model: &str, path: &Path) -> Program {
    start_with(model, path, &[])
}

fn start_with(model: &str, path: &Path, variables: &[(&str, &str)]) -> Program {
    let mut all = vec![("HANDOVER", path.to_str().unwrap())];
    all.extend(variables);
    Program::start(model, &all)
}

fn hand_over(first: &str, second: &str) {
    let folder = Folder::new();
    let old = start_with(first, &folder.path(), &[("ADMIN", "yes")]);
    let mut scrapers = vec![Scraper::start(old.scraped_at(), false)];
    let address = address_of(&old.wait_for("serving"));
    let load = Load::start(&address);
    load.wait_for_answers(100);
    scrapers[0].wait();
    // Twice, because a server that has taken over hands over too.
    let mut servers = vec![old];
    for model in [second, first] {
        let new = start_with(model, &folder.path(), &[("ADMIN", "yes")]);
        scrapers.push(Scraper::start(new.scraped_at(), false));
        assert_eq!(address_of(&new.wait_for("serving")), address);
        wait_until("the successor answers", || load.last() == new.id());
        assert!(servers.pop().unwrap().wait(), "the predecessor has failed");
        load.wait_for_answers(100);
        servers.push(new);
    }
    let failures = load.stop();
    assert_eq!(failures, [""; 0], "{first} to {second}");
    scrapers.into_iter().for_each(Scraper::stop);
    // It owns the listener, so its drain refuses new clients.
    let last = servers.pop().unwrap();
    last.signal(Signal::TERM);
    assert!(last.wait());
    assert!(sock::create_connection(("127.0.0.1", address.port().unwrap())).is_err());
}

/// The control: the same load detects a restart without a handover.
fn restart_loses_requests() {
    let old = Program::start("threading", &[]);
    let address = address_of(&old.wait_for("serving"));
    let load = Load::start(&address);
    load.wait_for_answers(100);
    old.signal(Signal::TERM);
    assert!(old.wait());
    let port = address.port().unwrap().to_string();
    let new = Program::start("threading", &[("PORT", &port)]);
    new.wait_for("serving");
    wait_until("the new server answers", || load.last() == new.id());
    assert!(!load.stop().is_empty(), "the load does not detect a restart");
}

fn connect(path: &Path) -> Socket {
    let client = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(path.to_address(AF_UNIX).unwrap()).unwrap();
    client
}

/// What a successor that fails sends, as a text.
const HELLO: &[u8] = b"sockserver-handover 1\n";

/// Connects as a successor and waits for the listeners.
fn receive_offer(path: &Path) -> Socket {
    receive_listener(path).0
}

/// Does so and returns the listener too.
fn receive_listener(path: &Path) -> (Socket, OwnedFd) {
    let client = connect(path);
    client.sendall(HELLO).unwrap();
    let offer = client.recv_fds(4096, 10).unwrap();
    assert!(offer.data.starts_with(b"offer 2 own\n"), "{:?}", String::from_utf8_lossy(&offer.data));
    assert_eq!(offer.descriptors.len(), 2);
    (client, offer.descriptors.into_iter().next().unwrap())
}

/// A successor fails, or is killed, at each step of a handover until the listeners are released:
///
/// 1. It connects. 2. It sends the greeting. 3. It receives the listeners. 4. It makes its server.
/// 5. `serve_forever` begins. 6. Its workers start. 7. It sends that it is ready.
fn fail_at_every_step(model: &str) {
    let folder = Folder::new();
    let path = folder.path();
    let old = start_with(model, &path, &[("ADMIN", "yes")]);
    let admin = old.scraped_at();
    let scraper = Scraper::start(admin.clone(), true);
    let address = address_of(&old.wait_for("serving"));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let load = Load::start(&address);
    load.wait_for_answers(50);
    let still_serves = |step: &str| {
        load.wait_for_answers(50);
        scraper.wait();
        assert_eq!(load.last(), old.id(), "after {step}");
    };
    // It connects, and sends nothing, a part, or something else.
    for text in
        [&b""[..], b"\n", b"sockserver-hand", b"sockserver-handover 2\n", b"\xff\0\n", &[b'x'; 5000]]
    {
        let client = connect(&path);
        let _ = client.sendall(text);
        drop(client);
    }
    still_serves("garbage");
    // After the offer it sends something else, or is gone.
    for text in [&b""[..], b"read", b"steady\n", b"ready\nready\n"] {
        receive_offer(&path).sendall(text).unwrap();
    }
    still_serves("the offer");
    // It is gone when the server reads that it is ready.
    #[cfg(target_os = "linux")]
    {
        let client = receive_offer(&path);
        old.pause();
        client.sendall(b"ready\n").unwrap();
        drop(client);
        old.signal(Signal::CONT);
    }
    still_serves("the end behind ready");
    // A real successor is killed.
    let steps: &[&str] = match model {
        "prefork" => &["received", "built", "looping", "starting a worker"],
        _ => &["received", "built", "looping"],
    };
    for step in steps {
        let new = start_with(model, &path, &[("STEP", step)]);
        new.wait_for(step);
        still_serves(step);
        let failed = format!("handover to process {} failed, continue serving", new.id());
        drop(new);
        // The workers that it has just forked have its connection until they run.
        old.wait_for_log(&failed);
        still_serves(step);
    }
    #[cfg(target_os = "linux")]
    {
        killed_when_it_is_ready(model, &old, &path, &folder.0.path().join("relay"));
        still_serves("ready");
    }
    // All that was answered is counted.
    let counts = Arc::clone(&load.counts);
    assert_eq!(load.stop(), [""; 0], "{model}");
    scraper.stop();
    let answered = counts.answered.load(Ordering::Relaxed) as f64;
    let counted = || scraper::samples(&scraper::scrape(&admin).unwrap())["sockserver_requests_total"];
    wait_until("each answer is counted once", || counted() == answered);
    // And the next one succeeds.
    let load = Load::start(&address);
    load.wait_for_answers(50);
    let new = start(model, &path);
    new.wait_for("serving");
    wait_until("the successor answers", || load.last() == new.id());
    assert!(old.wait());
    load.wait_for_answers(50);
    assert_eq!(load.stop(), [""; 0], "{model}");
}

/// A real successor is killed when it has sent that it is ready, and the old process has not read it. Its
/// messages pass through this process.
#[cfg(target_os = "linux")]
fn killed_when_it_is_ready(model: &str, old: &Program, path: &Path, relay: &Path) {
    let listener = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    listener.settimeout(LIMIT).unwrap();
    listener.bind(relay.to_address(AF_UNIX).unwrap()).unwrap();
    listener.listen(1).unwrap();
    let new = start(model, relay);
    let (theirs, _) = listener.accept().unwrap();
    theirs.settimeout(LIMIT).unwrap();
    assert_eq!(theirs.recv(100).unwrap(), HELLO);
    let ours = connect(path);
    ours.sendall(HELLO).unwrap();
    let offer = ours.recv_fds(4096, 10).unwrap();
    let descriptors: Vec<_> = offer.descriptors.iter().map(AsFd::as_fd).collect();
    theirs.send_fds(&[IoSlice::new(&offer.data)], &descriptors).unwrap();
    assert_eq!(theirs.recv(100).unwrap(), b"ready\n");
    while old.log.try_recv().is_ok() {}
    old.pause();
    ours.sendall(b"ready\n").unwrap();
    drop((new, theirs, ours));
    old.signal(Signal::CONT);
    old.wait_for_log("failed, continue serving: the other process has ended the handover");
}

/// The successor takes the end of the connection for a release, and accepts.
fn workers_leave_offered_listeners() {
    let folder = Folder::new();
    let old = start("prefork", &folder.path());
    let address = address_of(&old.wait_for("serving"));
    assert_eq!(ask(&mut None, "close\n", &address).unwrap(), old.id());
    let (successor, _listener) = receive_listener(&folder.path());
    let workers = preforking::children(old.child.id());
    drop(old);
    preforking::wait_until_ended(&workers);
    assert_eq!(successor.recv(1).unwrap(), b"");
    let client = Socket::new(address.family(), SOCK_STREAM, 0).unwrap();
    client.connect(&address).expect("the listener is open");
}

/// The new version, which is a child of the old one.
struct NewVersion(u64);

impl NewVersion {
    fn started_by(old: &Program) -> NewVersion {
        old.signal(Signal::USR2);
        NewVersion(old.wait_for("upgrading").parse().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_raw(self.0 as i32).unwrap(), signal);
    }
}

impl Drop for NewVersion {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn upgrade(model: &str) {
    let old = Program::start(model, &[("UPGRADE", "self")]);
    let address = address_of(&old.wait_for("serving"));
    let load = Load::start(&address);
    load.wait_for_answers(100);
    let new = NewVersion::started_by(&old);
    assert_eq!(address_of(&old.wait_for("serving")), address);
    wait_until("the new version answers", || load.last() == new.0);
    // A version that was started by another one is replaced too. Its output is that of the first.
    new.signal(Signal::USR2);
    let third = NewVersion(old.wait_for("upgrading").parse().unwrap());
    wait_until("the third version answers", || load.last() == third.0);
    load.wait_for_answers(100);
    assert_eq!(load.stop(), [""; 0], "{model}");
    assert!(old.wait(), "the old version has failed");
}

/// The variables that name the listeners stay in the environment.
fn a_second_server_binds() {
    let old = Program::start("threading", &[("UPGRADE", "self"), ("SECOND", "1")]);
    old.wait_for("second");
    let address = old.wait_for("serving");
    let _new = NewVersion::started_by(&old);
    assert_ne!(old.wait_for("second"), address);
    assert_eq!(old.wait_for("serving"), address);
}

fn without_a_limit() {
    for model in ["threading", "prefork"] {
        let folder = Folder::new();
        let path = folder.path();
        let variables = [("HANDOVER", path.to_str().unwrap()), ("TIMEOUT", "max")];
        let old = Program::start(model, &variables);
        old.wait_for("serving");
        let new = Program::start(model, &variables);
        new.wait_for("serving");
        assert!(old.wait());
        let old = Program::start(model, &[("UPGRADE", "self"), ("TIMEOUT", "max")]);
        old.wait_for("serving");
        let _new = NewVersion::started_by(&old);
        assert!(old.wait());
    }
}

/// Returns how many children a process has. Each one is a child of the thread that has started it.
#[cfg(target_os = "linux")]
fn children(program: &Program) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", program.id())).unwrap();
    // A thread may end meanwhile, and its children are those of another thread then.
    let of_task = |task: io::Result<fs::DirEntry>| {
        fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()
    };
    tasks.map(|task| of_task(task).split_whitespace().count()).sum()
}

#[cfg(target_os = "linux")]
fn upgrades_that_fail() {
    for model in MODELS {
        let workers = if model == "prefork" { WORKERS } else { 0 };
        // It cannot be executed, exits, or is not ready in time.
        for (program, logged) in [
            ("/nonexistent", "cannot start the new version"),
            ("/bin/false", "failed, continue serving"),
            ("/bin/sleep", "failed, continue serving: it was not ready in time"),
        ] {
            let old = Program::start(model, &[("UPGRADE", program), ("TIMEOUT", "200")]);
            let address = address_of(&old.wait_for("serving"));
            let load = Load::start(&address);
            for _ in 0..2 {
                load.wait_for_answers(50);
                old.signal(Signal::USR2);
                old.wait_for_log(logged);
            }
            load.wait_for_answers(50);
            assert_eq!(load.stop(), [""; 0], "{model} {program}");
            wait_until("no child is left, except for workers", || children(&old) == workers);
            assert_eq!(ask(&mut None, "close\n", &address).unwrap(), old.id());
        }
        // It is killed before it is ready.
        let old = Program::start(model, &[("UPGRADE", "self"), ("STEP", "upgraded")]);
        let address = address_of(&old.wait_for("serving"));
        let load = Load::start(&address);
        drop(NewVersion::started_by(&old));
        load.wait_for_answers(100);
        let second = NewVersion::started_by(&old);
        old.wait_for("upgraded");
        drop(second);
        load.wait_for_answers(100);
        assert_eq!((load.last(), load.stop()), (old.id(), Vec::new()), "{model}");
    }
}

/// The socket of a service manager.
struct Manager {
    socket: Socket,
    _folder: Folder,
    path: String,
}

impl Manager {
    fn new() -> Manager {
        let folder = Folder::new();
        let path = folder.0.path().join("notify").to_str().unwrap().to_owned();
        let socket = Socket::new(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
        socket.bind(&*path).unwrap();
        socket.settimeout(LIMIT).unwrap();
        Manager { socket, _folder: folder, path }
    }

    /// Returns the next message that is no heartbeat.
    fn next(&self) -> String {
        loop {
            let message = String::from_utf8(self.socket.recv(1000).unwrap()).unwrap();
            if message != "WATCHDOG=1\n" {
                return message;
            }
        }
    }
}

fn systemd_is_notified() {
    for model in MODELS {
        let manager = Manager::new();
        let watchdog = "100000";
        let began = Instant::now();
        let server =
            Program::start(model, &[("NOTIFY_SOCKET", &manager.path), ("WATCHDOG_USEC", watchdog)]);
        let address = address_of(&server.wait_for("serving"));
        assert_eq!(manager.next(), "READY=1\n", "{model}");
        for _ in 0..6 {
            assert_eq!(manager.socket.recv(1000).unwrap(), b"WATCHDOG=1\n", "{model}");
        }
        // Five intervals of half the time, since the start: a message may wait to be received.
        assert!(began.elapsed() >= Duration::from_millis(5 * 50 - 50), "{model}: {:?}", began.elapsed());
        assert_eq!(ask(&mut None, "close\n", &address).unwrap(), server.id());
        server.signal(Signal::TERM);
        assert_eq!(manager.next(), "STOPPING=1\n", "{model}");
        assert!(server.wait());
    }
}

/// A service manager that does not receive for some time holds up neither clients nor the stop.
fn a_full_queue_of_systemd_delays_nothing() {
    for model in MODELS {
        let manager = Manager::new();
        let filler = Socket::new(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
        filler.setblocking(false).unwrap();
        filler.connect(&*manager.path).unwrap();
        while filler.send(b"full").is_ok() {}
        let variables = [("NOTIFY_SOCKET", &*manager.path), ("WATCHDOG_USEC", "100000")];
        let server = Program::start(model, &variables);
        let address = address_of(&server.wait_for("serving"));
        assert_eq!(ask(&mut None, "close\n", &address).unwrap(), server.id(), "{model}");
        // What could not be sent is sent again.
        let mut seen = [false; 2];
        while seen != [true; 2] {
            match &manager.socket.recv(1000).unwrap()[..] {
                b"READY=1\n" => seen[0] = true,
                b"WATCHDOG=1\n" => seen[1] = true,
                other => assert_eq!(other, b"full", "{model}"),
            }
        }
        while filler.send(b"full").is_ok() {}
        server.signal(Signal::TERM);
        assert!(server.wait(), "{model}");
    }
}

fn systemd_is_notified_of_a_new_version() {
    for model in ["threading", "prefork"] {
        let manager = Manager::new();
        let old = Program::start(model, &[("NOTIFY_SOCKET", &manager.path), ("UPGRADE", "self")]);
        old.wait_for("serving");
        assert_eq!(manager.next(), "READY=1\n");
        let new = NewVersion::started_by(&old);
        let reloading = manager.next();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
        assert!(time.trim().parse::<u64>().is_ok(), "{reloading}");
        let mut rest = [manager.next(), manager.next()];
        rest.sort();
        assert_eq!(rest, [format!("MAINPID={}\nREADY=1\n", new.0), "READY=1\n".to_owned()], "{model}");
        assert!(old.wait());
        new.signal(Signal::TERM);
        assert_eq!(manager.next(), "STOPPING=1\n", "that of the new version, and none of the old");
    }
}

/// A failed handover or upgrade ends the state of a reload.
fn systemd_is_notified_of_a_failure() {
    for model in MODELS {
        let (manager, folder) = (Manager::new(), Folder::new());
        let path = folder.path();
        let variables = [("NOTIFY_SOCKET", &*manager.path), ("HANDOVER", path.to_str().unwrap())];
        let server = Program::start(model, &variables);
        server.wait_for("serving");
        assert_eq!(manager.next(), "READY=1\n", "{model}");
        for _ in 0..2 {
            let successor = receive_offer(&path);
            let reloading = manager.next();
            assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{model}: {reloading}");
            drop(successor);
            assert_eq!(manager.next(), "READY=1\n", "{model}");
        }
        server.signal(Signal::TERM);
        assert_eq!(manager.next(), "STOPPING=1\n", "{model}");
        assert!(server.wait());

        let variables = [("NOTIFY_SOCKET", &*manager.path), ("UPGRADE", "/bin/sleep"), ("TIMEOUT", "200")];
        let server = Program::start(model, &variables);
        server.wait_for("serving");
        assert_eq!(manager.next(), "READY=1\n", "{model}");
        server.signal(Signal::USR2);
        let reloading = manager.next();
        assert!(reloading.starts_with("RELOADING=1\n"), "{model}: {reloading}");
        assert_eq!(manager.next(), "READY=1\n", "{model}");
    }
}

/// The mode of blocking belongs to the listener and not to a duplicate, so a successor changes that of
/// the old server.
fn a_failure_restores_the_mode_of_blocking() {
    for model in MODELS {
        let folder = Folder::new();
        let path = folder.path();
        let old = start(model, &path);
        let address = address_of(&old.wait_for("serving"));
        let (successor, listener) = receive_listener(&path);
        let before = fcntl_getfl(&listener).unwrap();
        fcntl_setfl(&listener, before ^ OFlags::NONBLOCK).unwrap();
        drop(successor);
        wait_until("the listener is as before", || fcntl_getfl(&listener).unwrap() == before);
        drop(listener);
        assert_eq!(ask(&mut None, "close\n", &address).unwrap(), old.id(), "{model}");
    }
}

fn sockets_are_adopted() {
    let found = Command::new("systemd-socket-activate").arg("--version").stdout(Stdio::null()).status();
    if found.is_err() {
        println!("NOT RUN: systemd-socket-activate is not installed (Debian's package systemd)");
        return;
    }
    for model in MODELS {
        let port = {
            let free = sock::create_server(LOOPBACK).unwrap();
            free.getsockname().unwrap().port().unwrap()
        };
        let address = address_of(&format!("127.0.0.1:{port}"));
        let mut command = Command::new("systemd-socket-activate");
        command.args(["-l", &format!("127.0.0.1:{port}"), "-E", "ACTIVATED=1", "-E"]);
        command.arg(format!("MODEL={model}")).arg(std::env::current_exe().unwrap());
        command.args(["--alone", "handover_server"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server =
            Program { child: command.spawn().unwrap(), lines: mpsc::channel().1, log: mpsc::channel().1 };
        let mut answer = None;
        // It starts the server for the first client.
        wait_until("the server is activated", || {
            answer = ask(&mut None, "close\n", &address).ok();
            answer.is_some()
        });
        assert_eq!(answer, Some(server.id()), "{model}");
        server.signal(Signal::TERM);
        assert!(server.child.wait().unwrap().success(), "{model}");
    }
}

fn only_one_successor_wins() {
    let folder = Folder::new();
    let old = start("threading", &folder.path());
    old.wait_for("serving");
    let offer = Handover::at(folder.path()).timeout(LIMIT);
    let asked: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| offer.receive())).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let winners: Vec<_> = asked.iter().flatten().flatten().collect();
    assert_eq!(winners.len(), 1);
    for error in asked.iter().filter_map(|asked| asked.as_ref().err()) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
        assert!(error.to_string().contains("another handover is in progress"), "{error}");
    }
    drop(asked);
    wait_until("the next one may try", || offer.receive().is_ok());
}

fn a_successor_has_limited_time() {
    let folder = Folder::new();
    let path = folder.path();
    for (model, text) in
        [("threading", &b""[..]), ("prefork", b""), ("threading", HELLO), ("prefork", HELLO)]
    {
        let variables = [("HANDOVER", path.to_str().unwrap()), ("TIMEOUT", "100")];
        let old = Program::start(model, &variables);
        let address = address_of(&old.wait_for("serving"));
        let client = connect(&path);
        client.sendall(text).unwrap();
        let mut answer = String::new();
        let refused = loop {
            let data = client.recv(4096).unwrap();
            answer += &String::from_utf8_lossy(&data);
            if data.is_empty() || answer.contains("refused ") {
                break answer;
            }
        };
        assert!(refused.contains("refused it was "), "{refused:?}");
        assert_eq!(ask(&mut None, "close\n", &address).unwrap(), old.id());
    }
}

fn the_path_is_removed_by_the_last_server() {
    let folder = Folder::new();
    let path = folder.path();
    let old = start("prefork", &path);
    let address = address_of(&old.wait_for("serving"));
    let new = start("threading", &path);
    new.wait_for("serving");
    assert!(old.wait());
    assert!(path.exists());
    // It has the path as soon as it accepts.
    assert_eq!(ask(&mut None, "close\n", &address).unwrap(), new.id());
    new.signal(Signal::TERM);
    assert!(new.wait());
    assert!(!path.exists());
}
