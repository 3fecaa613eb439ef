//! The promise: a worker process or forked child that exits in an orderly way writes out what it has
//! buffered, in the hook `worker_exit` and on standard output, in bounded time.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sock::{AF_UNIX, SOCK_STREAM, Socket};
use sockserver::kind::{Stream, Unix};
use sockserver::{
    Builder, ForkingUnixStreamServer, MixIn, PreforkUnixStreamServer, ServerHooks, StreamContext,
    handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("worker_exit_is_called_when_a_signal_drains_the_server", after_a_drain),
    ("worker_exit_is_called_when_max_requests_are_served", after_max_requests),
    ("worker_exit_is_called_when_the_parent_has_died", after_the_death_of_the_parent),
    ("sigterm_ends_a_worker_after_its_request", after_sigterm),
    ("worker_exit_is_called_in_each_forked_child", in_forked_children),
    ("a_panic_in_worker_exit_loses_no_output", hook_panics),
    ("a_worker_exit_that_does_not_return_ends_with_its_limit", hook_blocks),
];

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[
    ("exit_prefork", || serve(PreforkUnixStreamServer::builder(handler_fn(handle)).workers(1))),
    ("exit_recycled", || {
        serve(PreforkUnixStreamServer::builder(handler_fn(handle)).workers(1).max_requests(1, 0));
    }),
    ("exit_forking", || serve(ForkingUnixStreamServer::builder(handler_fn(handle)))),
];

thread_local! {
    static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Buffers the line in the thread, and prints it without a line break, which `std` buffers too.
fn handle(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    let word = line.trim_end();
    BUFFER.with_borrow_mut(|buffer| buffer.push_str(word));
    print!("[{word}]");
    cx.wfile.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    match word {
        "slow" => {
            // The request ends after the worker has seen its signal.
            let begin = Instant::now();
            while !cx.server.is_stopping() && begin.elapsed() < LIMIT / 2 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        "stuck" => loop {
            thread::park();
        },
        _ => {}
    }
    cx.wfile.write_all(b"done")
}

struct Exit;

impl ServerHooks for Exit {
    fn worker_exit(&self) {
        match std::env::var("WORKER_EXIT").as_deref() {
            Ok("panic") => panic!("as planned"),
            Ok("block") => loop {
                thread::park();
            },
            _ => print!("<{}>", BUFFER.with_borrow(String::clone)),
        }
    }
}

fn serve<M: MixIn>(builder: Builder<Stream<Unix>, M>) {
    let builder = builder.close_timeout(Duration::from_millis(300)).hooks(Exit).drain_on_signals(LIMIT);
    let server = builder.bind(std::env::var("SERVER_PATH").unwrap()).unwrap();
    println!();
    server.serve_forever().unwrap();
}

/// A program that is killed when this is dropped.
struct Program {
    child: Child,
    output: io::BufReader<std::process::ChildStdout>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Program {
    /// Starts a server whose hook behaves as `hook` says.
    fn start(helper: &str, hook: &str) -> Program {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--alone", helper])
            .env("SERVER_PATH", &path)
            .env("WORKER_EXIT", hook)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = io::BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        Program { child, output, path, _folder: folder }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns what the program and its children have printed until all have ended.
    fn output(mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        text
    }

    /// Drains the server, and returns what was printed.
    fn drain(self) -> String {
        self.signal(Signal::TERM);
        self.output()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(path: &Path) -> Socket {
    let client = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(path).unwrap();
    client
}

/// Returns the process that serves the client.
fn say(client: &Socket, line: &str) -> i32 {
    client.sendall(line.as_bytes()).unwrap();
    let mut pid = String::new();
    while !pid.ends_with('\n') {
        pid.push_str(std::str::from_utf8(&client.recv(1).unwrap()).unwrap());
    }
    pid.trim_end().parse().unwrap()
}

fn ask(path: &Path, line: &str) -> i32 {
    let client = connect(path);
    let pid = say(&client, line);
    assert_eq!(read_to_end(&client), "done");
    pid
}

fn after_a_drain() {
    let program = Program::start("exit_prefork", "write");
    ask(&program.path, "a\n");
    ask(&program.path, "b\n");
    assert_eq!(program.drain(), "[a][b]<ab>");
}

fn after_max_requests() {
    let program = Program::start("exit_recycled", "write");
    assert_ne!(ask(&program.path, "a\n"), ask(&program.path, "b\n"));
    // The third worker may have started.
    assert_eq!(program.drain().replace("<>", ""), "[a]<a>[b]<b>");
}

/// The handler does not return, so the hook runs in another thread.
fn after_the_death_of_the_parent() {
    let program = Program::start("exit_prefork", "write");
    let client = connect(&program.path);
    say(&client, "stuck\n");
    program.signal(Signal::KILL);
    assert_eq!(program.output(), "[stuck]<>");
}

fn after_sigterm() {
    let program = Program::start("exit_prefork", "write");
    let client = connect(&program.path);
    let pid = say(&client, "slow\n");
    let worker = Pid::from_raw(pid).unwrap();
    // SIGINT is for the parent, which the terminal sends it to as well.
    kill_process(worker, Signal::INT).unwrap();
    kill_process(worker, Signal::TERM).unwrap();
    let next = connect(&program.path);
    assert_eq!(read_to_end(&client), "done", "the request was cut");
    assert_ne!(say(&next, "b\n"), pid, "the worker was not replaced");
    assert_eq!(read_to_end(&next), "done");
    assert_eq!(program.drain(), "[slow]<slow>[b]<b>");
}

fn in_forked_children() {
    let program = Program::start("exit_forking", "write");
    ask(&program.path, "a\n");
    ask(&program.path, "b\n");
    let output = program.drain();
    assert!(output.contains("[a]<a>") && output.contains("[b]<b>") && output.len() == 12, "{output}");
}

fn hook_panics() {
    for helper in ["exit_prefork", "exit_forking"] {
        let program = Program::start(helper, "panic");
        ask(&program.path, "a\n");
        assert_eq!(program.drain(), "[a]", "{helper}");
    }
}

/// The only worker is replaced, and the only child does not hold up the drain.
fn hook_blocks() {
    let begin = Instant::now();
    let recycled = Program::start("exit_recycled", "block");
    let forking = Program::start("exit_forking", "block");
    assert_ne!(ask(&recycled.path, "a\n"), ask(&recycled.path, "b\n"));
    ask(&forking.path, "a\n");
    assert_eq!(forking.drain(), "[a]");
    recycled.signal(Signal::TERM);
    assert_eq!(recycled.output(), "[a][b]");
    assert!(begin.elapsed() < LIMIT, "{:?}", begin.elapsed());
}
