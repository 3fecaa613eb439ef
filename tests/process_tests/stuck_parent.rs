//! The promise: a signal ends a server that forks although a hook of the parent does not return. Its
//! children end by the rule of the drain, and its path is removed.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};
use sock::{AF_UNIX, Address, Socket};
use sockserver::kind::Unix;
use sockserver::{
    ForkingMixIn, ForkingUnixStreamServer, MixIn, PreforkMixIn, ServerHandle, ServerHooks, ServerState,
    StreamContext, StreamServer, WorkerClass, handler_fn,
};

use crate::Test;
use crate::support::{read_to_end, sleep_briefly, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("a_stuck_forking_server_ends_with_its_children", || {
        for hook in ["service_actions", "get_request", "state_changed"] {
            ends_with_its_children("stuck_forking", hook);
        }
    }),
    ("a_stuck_forking_server_of_single_requests_ends", || {
        for hook in ["get_request", "state_changed"] {
            ends_with_its_children("stuck_single_requests", hook);
        }
    }),
    ("a_stuck_prefork_server_ends_with_its_workers", || {
        for hook in ["service_actions", "state_changed"] {
            ends_with_its_children("stuck_prefork", hook);
        }
        ends_with_its_children("stuck_prefork_threads", "service_actions");
    }),
    ("a_stuck_prefork_server_kills_a_stopped_worker", kills_a_stopped_worker),
    ("workers_of_a_stuck_prefork_server_drain", workers_drain),
    ("workers_drain_although_a_hook_of_the_stop_does_not_return", workers_drain_in_a_stuck_stop),
    ("a_foreign_sigalrm_ends_no_drain", foreign_alarms),
    ("foreign_sigalrms_do_not_postpone_the_drain", many_foreign_alarms),
    ("a_signal_ends_the_wait_of_handle_request_for_a_child", waits_for_room),
    ("a_worker_that_ends_before_a_late_hook_returns_is_in_the_report", || {
        for helper in ["stuck_prefork", "stuck_prefork_threads"] {
            drains_after(helper, "last service_actions");
        }
    }),
    ("a_stuck_server_whose_hook_returns_late_drains", || {
        drains_late("stuck_forking");
        drains_late("stuck_prefork");
    }),
];

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[
    ("stuck_forking", || serve(ForkingMixIn::new(), |server| server.serve_forever())),
    ("stuck_single_requests", || {
        serve(ForkingMixIn::new(), |server| {
            while server.drained().is_none() {
                server.handle_request()?;
            }
            Ok(())
        });
    }),
    ("idle_child", serve_with_one_child),
    ("stuck_prefork", || serve(PreforkMixIn::new().workers(1), |server| server.serve_forever())),
    ("stuck_prefork_threads", || {
        let mixin = PreforkMixIn::new().workers(1).worker_class(WorkerClass::Threads(2));
        serve(mixin, |server| server.serve_forever());
    }),
];

/// The time after which a test fails. The program ends about four seconds after its signal.
const LIMIT: Duration = Duration::from_secs(40);

const SHORT_DRAIN: &str = "100";
const LONG_DRAIN: &str = "60000";

/// Hooks of which one never returns in the parent, once a request is being served.
struct Stuck {
    hook: String,
    parent: Pid,
    has_begun: AtomicBool,
    /// Receives a byte when a handler has seen the stop.
    seen: Socket,
    server: OnceLock<ServerHandle>,
}

impl Stuck {
    fn enter(&self, hook: &str) {
        let named = self.hook.trim_start_matches("late ").trim_start_matches("last ");
        if getpid() != self.parent || named != hook {
            return;
        }
        if self.has_begun.swap(true, Ordering::SeqCst) {
            return;
        }
        println!("begun");
        if self.hook.starts_with("late ") {
            self.seen.recv(1).unwrap();
            return;
        }
        if self.hook.starts_with("last ") {
            // It is left for the server to reap.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while waitid(WaitId::All, options).is_err_and(|error| error == rustix::io::Errno::INTR) {}
            return;
        }
        loop {
            thread::park();
        }
    }

    /// Returns when the request has ended, if the parent drains late. The report has to count it.
    fn worker_drains(&self) {
        if !self.hook.contains(' ') {
            return;
        }
        println!("draining");
        let server = self.server.get().unwrap();
        wait_until("the request has ended", || server.stats().in_flight == 0);
    }
}

impl ServerHooks for Stuck {
    fn get_request(&self, listener: &Socket) -> io::Result<(Socket, Address)> {
        let accepted = listener.accept()?;
        if self.has_begun.load(Ordering::SeqCst) || self.hook != "get_request" {
            return Ok(accepted);
        }
        // The first one is served, and the second one sends this.
        accepted.0.settimeout(Some(LIMIT))?;
        if accepted.0.recv_with_flags(1, sock::MSG_PEEK)? == b"!" {
            self.enter("get_request");
        }
        Ok(accepted)
    }

    fn state_changed(&self, state: ServerState) {
        if state == ServerState::Draining {
            self.enter("state_changed");
            if getpid() != self.parent {
                self.worker_drains();
            }
        }
    }

    fn worker_exit(&self) {
        println!("exited");
    }
}

/// Sends the process id, then a line when the server stops, and the last one when the client has sent
/// a whole one.
fn handle(cx: &mut StreamContext<'_>, seen: &Socket) -> io::Result<()> {
    writeln!(cx.wfile, "{}", std::process::id())?;
    let begin = Instant::now();
    while !cx.server.is_stopping() {
        if begin.elapsed() >= LIMIT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep_briefly();
    }
    writeln!(cx.wfile, "stopping")?;
    seen.send(b"!")?;
    cx.rfile.read_line(&mut String::new())?;
    writeln!(cx.wfile, "done")
}

fn variable(name: &str) -> String {
    std::env::var(name).expect("a variable")
}

fn serve<M: MixIn + Default>(mixin: M, run: fn(&StreamServer<Unix, M>) -> io::Result<()>) {
    let limit = Duration::from_millis(variable("STUCK_LIMIT").parse().unwrap());
    let (seen, by_handler) = sock::socketpair_with(AF_UNIX, sock::SOCK_DGRAM, 0).unwrap();
    let hooks = std::sync::Arc::new(Stuck {
        hook: variable("STUCK_HOOK"),
        parent: getpid(),
        has_begun: AtomicBool::new(false),
        seen,
        server: OnceLock::new(),
    });
    let its = std::sync::Arc::clone(&hooks);
    let actions = std::sync::Arc::clone(&hooks);
    let builder = StreamServer::<Unix, M>::builder(handler_fn(move |cx: &mut StreamContext<'_>| {
        handle(cx, &by_handler)
    }));
    let server = builder
        .mixin(mixin)
        .hooks(Shared(hooks))
        .service_actions(move |server| {
            if server.stats().in_flight > 0 {
                actions.enter("service_actions");
            }
        })
        .poll_interval(Duration::from_millis(5))
        .timeout(Duration::from_millis(5))
        .drain_on_signals(limit)
        .bind(PathBuf::from(variable("STUCK_PATH")))
        .unwrap();
    let _ = its.server.set(server.handle());
    println!("listening");
    run(&server).unwrap();
    println!("finished {}", server.drained().map_or(0, |report| report.finished));
    println!("returned");
    #[cfg(target_os = "linux")]
    assert!(!catches_sigalrm(), "the handler of SIGALRM was not removed");
}

/// Serves one client at a time, which may make several requests.
fn serve_with_one_child() {
    let echo = handler_fn(|cx: &mut StreamContext<'_>| {
        let mut line = String::new();
        cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
        cx.wfile.write_all(line.as_bytes())
    });
    let server = ForkingUnixStreamServer::builder(echo)
        .max_children(1)
        .drain_on_signals(Duration::from_millis(LONG_DRAIN.parse().unwrap()))
        .bind(PathBuf::from(variable("STUCK_PATH")))
        .unwrap();
    println!("listening");
    while server.drained().is_none() {
        println!("waits");
        server.handle_request().unwrap();
    }
    println!("returned");
}

struct Shared(std::sync::Arc<Stuck>);

impl ServerHooks for Shared {
    fn get_request(&self, listener: &Socket) -> io::Result<(Socket, Address)> {
        self.0.get_request(listener)
    }

    fn state_changed(&self, state: ServerState) {
        self.0.state_changed(state);
    }

    fn worker_exit(&self) {
        self.0.worker_exit();
    }
}

#[cfg(target_os = "linux")]
fn catches_sigalrm() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & 1 << (14 - 1) != 0
}

/// A server whose process is killed when this is dropped.
struct Program {
    child: Child,
    lines: io::Lines<io::BufReader<ChildStdout>>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Program {
    fn start(helper: &str, hook: &str, limit: &str) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--alone", helper])
            .env("STUCK_PATH", &path)
            .env("STUCK_HOOK", hook)
            .env("STUCK_LIMIT", limit)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut program = Program { child, lines, path, _folder: folder };
        program.expect("listening");
        program
    }

    #[track_caller]
    fn expect(&mut self, expected: &str) {
        assert_eq!(self.lines.next().unwrap().unwrap(), expected);
    }

    /// Returns what it prints until it and its children have ended.
    fn output(&mut self) -> Vec<String> {
        self.lines.by_ref().map(Result::unwrap).collect()
    }

    /// Connects, and sends the text at once.
    fn connect(&self, text: &[u8]) -> Socket {
        let socket = Socket::new(AF_UNIX, sock::SOCK_STREAM, 0).unwrap();
        socket.settimeout(LIMIT).unwrap();
        socket.connect(&self.path).unwrap();
        socket.sendall(text).unwrap();
        socket
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        wait_until("the program has ended", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Client {
    socket: Socket,
    /// The process that serves it.
    child: Pid,
}

impl Client {
    fn new(socket: Socket) -> Client {
        let mut client = Client { socket, child: getpid() };
        client.child = Pid::from_raw(client.line().parse().unwrap()).unwrap();
        client
    }

    fn line(&self) -> String {
        let mut line = Vec::new();
        loop {
            match &self.socket.recv(1).unwrap()[..] {
                b"\n" => return String::from_utf8(line).unwrap(),
                [] => panic!("end of file after {line:?}"),
                byte => line.extend_from_slice(byte),
            }
        }
    }
}

/// Starts a program whose hook does not return, with a client that is being served.
fn start_stuck(helper: &str, hook: &str, limit: &str) -> (Program, Client) {
    let mut program = Program::start(helper, hook, limit);
    // With the second one `get_request` does not return.
    let text: &[u8] = if hook == "get_request" { b"?" } else { b"" };
    let client = Client::new(program.connect(text));
    let _second = (hook == "get_request").then(|| program.connect(b"!"));
    if hook == "state_changed" {
        program.signal(Signal::TERM);
    }
    program.expect("begun");
    (program, client)
}

fn ends_with_its_children(helper: &str, hook: &str) {
    let (mut program, client) = start_stuck(helper, hook, SHORT_DRAIN);
    program.signal(Signal::TERM);
    let status = program.wait();
    assert_eq!(status.code(), Some(1), "{helper} {hook}: {status}");
    // The child was killed, or the worker has aborted the request.
    let received = read_to_end(&client.socket);
    assert!(!received.contains("done"), "{helper} {hook}: {received}");
    let exited: &[&str] = if helper.contains("prefork") { &["exited"] } else { &[] };
    assert_eq!(program.output(), exited, "{helper} {hook}");
    assert!(!program.path.exists(), "{helper} {hook}: the path was not removed");
}

fn kills_a_stopped_worker() {
    let (mut program, client) = start_stuck("stuck_prefork", "service_actions", SHORT_DRAIN);
    kill_process(client.child, Signal::STOP).unwrap();
    program.signal(Signal::TERM);
    assert_eq!(program.wait().code(), Some(1));
    assert_eq!(program.output(), [""; 0]);
    assert_eq!(read_to_end(&client.socket), "");
    assert!(!program.path.exists());
}

/// The request ends by itself after the signal, and then the worker. A second signal ends the parent.
fn workers_drain() {
    for helper in ["stuck_prefork", "stuck_prefork_threads"] {
        let (mut program, client) = start_stuck(helper, "service_actions", LONG_DRAIN);
        program.signal(Signal::TERM);
        assert_eq!(client.line(), "stopping");
        ends_after_request(&mut program, &client);
    }
}

/// The hook is called when the loop has read the signal.
fn workers_drain_in_a_stuck_stop() {
    for helper in ["stuck_prefork", "stuck_prefork_threads"] {
        let (mut program, client) = start_stuck(helper, "state_changed", LONG_DRAIN);
        assert_eq!(client.line(), "stopping");
        ends_after_request(&mut program, &client);
    }
}

/// The request ends, and then its worker. A second signal ends the parent, which is stuck.
fn ends_after_request(program: &mut Program, client: &Client) {
    client.socket.sendall(b"\n").unwrap();
    assert_eq!(client.line(), "done");
    program.expect("exited");
    assert!(program.child.try_wait().unwrap().is_none(), "the limit is not over");
    program.signal(Signal::INT);
    assert_eq!(program.wait().code(), Some(1));
    assert!(!program.path.exists());
}

/// A timer of the program can send SIGALRM at any time.
fn foreign_alarms() {
    let (mut program, client) = start_stuck("stuck_prefork", "state_changed", LONG_DRAIN);
    for _ in 0..20 {
        program.signal(Signal::ALARM);
        sleep_briefly();
    }
    assert_eq!(client.line(), "stopping");
    for _ in 0..20 {
        program.signal(Signal::ALARM);
        sleep_briefly();
    }
    assert!(program.child.try_wait().unwrap().is_none(), "the limit is not over");
    ends_after_request(&mut program, &client);
}

fn many_foreign_alarms() {
    let (mut program, client) = start_stuck("stuck_prefork", "state_changed", LONG_DRAIN);
    client.socket.setblocking(false).unwrap();
    wait_until("the worker drains", || {
        program.signal(Signal::ALARM);
        client.socket.recv_with_flags(1, sock::MSG_PEEK).is_ok()
    });
    program.signal(Signal::INT);
    wait_until("the program has ended", || {
        program.signal(Signal::ALARM);
        program.child.try_wait().unwrap().is_some()
    });
    assert_eq!(program.wait().code(), Some(1));
}

/// The connection of the child is idle, so a drain closes it at once.
fn waits_for_room() {
    let mut program = Program::start("idle_child", "", LONG_DRAIN);
    program.expect("waits");
    let first = program.connect(b"a\n");
    assert_eq!(first.recv(2).unwrap(), b"a\n");
    program.expect("waits");
    let _second = program.connect(b"b\n");
    // For a parent that would accept it now. The test passes without the pause too.
    thread::sleep(Duration::from_millis(100));
    program.signal(Signal::TERM);
    assert_eq!(first.recv(1).unwrap(), b"");
    assert_eq!(program.output(), ["returned"]);
    assert!(program.wait().success());
}

/// The hook returns when a child has seen that the server stops.
fn drains_late(helper: &str) {
    drains_after(helper, "late service_actions");
}

/// The hook returns then, or when a worker has exited.
fn drains_after(helper: &str, hook: &str) {
    let (mut program, client) = start_stuck(helper, hook, LONG_DRAIN);
    program.signal(Signal::TERM);
    assert_eq!(client.line(), "stopping");
    if helper.contains("prefork") {
        // A handler sees the stop of the parent before its worker has received the command to drain.
        program.expect("draining");
    }
    client.socket.sendall(b"\n").unwrap();
    assert_eq!(client.line(), "done");
    let output = program.output();
    assert_eq!(output[output.len() - 2..], ["finished 1", "returned"], "{helper}");
    assert!(program.wait().success());
    assert!(!program.path.exists());
}
