//! The promises of `socklens watch`: programs in any language run on the hosts as they run without
//! it, their calls are shown in the order of the kernel and the wire, and nothing of them is left.
#![cfg(target_os = "linux")]

#[path = "watch/limits.rs"]
mod limits;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const NOT_RUN: i32 = 77;
const LIMIT: Duration = Duration::from_secs(60);

struct Ran {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn watch(arguments: &[&str]) -> Ran {
    // The tool has limits of its own; this one is for a program that hangs.
    let mut command = Command::new("timeout");
    command.arg("90").arg(env!("CARGO_BIN_EXE_socklens")).arg("watch").args(arguments);
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    Ran {
        status: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// Whether programs can be watched here. Otherwise the test does not run, and says it.
fn can_watch() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(try_to_watch)
}

fn try_to_watch() -> bool {
    let ran = watch(&["--a", "true", "--quiet"]);
    if ran.status == Some(NOT_RUN) {
        let ran = watch(&["--a", "true"]);
        not_run(&ran.stdout);
        return false;
    }
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    true
}

fn has(program: &str) -> bool {
    let is_there = Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if is_there.is_err() {
        not_run(&format!("there is no {program}"));
    }
    is_there.is_ok()
}

/// Prints why a test does not run. It is a failure if the tests of socklens are required.
fn not_run(reason: &str) {
    assert!(std::env::var_os("SOCK_REQUIRE_LENS").is_none(), "{reason}");
    eprintln!("NOT RUN: {reason}");
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/watch").join(name)
}

/// The C program, compiled. `None` if it cannot be used, which is printed.
fn actor() -> Option<&'static str> {
    static ACTOR: OnceLock<Option<(tempfile::TempDir, String)>> = OnceLock::new();
    let actor = ACTOR.get_or_init(|| {
        if !can_watch() || !has("cc") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("actor");
        let mut command = Command::new("cc");
        command.args(["-O1", "-Wall", "-pthread", "-o"]).arg(&program).arg(source("actor.c"));
        assert!(command.status().unwrap().success());
        Some((folder, program.to_str().unwrap().to_owned()))
    });
    actor.as_ref().map(|(_, program)| program.as_str())
}

/// Lines that stand in a text in this order, with others between them.
fn assert_in_order(text: &str, parts: &[&str]) {
    let mut lines = text.lines();
    for part in parts {
        assert!(lines.any(|line| line.contains(part)), "{part:?} is missing or too early in:\n{text}");
    }
}

const SERVER: &str = "import socket
server = socket.create_server(('10.0.0.2', 9000))
while True:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(1000):
            connection.sendall(data)
";

/// A Python server in a file of this folder, as a command.
fn python(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    format!("python3 '{}'", file.display())
}

/// A tool that runs, whose output is read line by line.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: String,
}

impl Running {
    fn start(arguments: &[&str]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_socklens"));
        command.arg("watch").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, input, lines, seen: String::new() }
    }

    /// Waits for a line with all of these parts.
    fn wait_for(&mut self, parts: &[&str]) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                let _ = self.child.kill();
                panic!("no line with {parts:?} in:\n{}", self.seen);
            };
            self.seen += &line;
            self.seen.push('\n');
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
        }
    }

    fn command(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
    }

    fn end(mut self) -> (Option<i32>, String) {
        let end = Instant::now() + LIMIT;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => {
                    let _ = self.child.kill();
                    panic!("it does not end:\n{}", self.seen);
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        self.seen.extend(self.lines.iter().flat_map(|line| [line, "\n".to_owned()]));
        (status.code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exists(process: &str) -> bool {
    // A zombie has ended.
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ") && !status.contains("State:\tX")
}

fn wait_until_gone(process: &str) {
    let end = Instant::now() + LIMIT;
    while exists(process) {
        assert!(Instant::now() < end, "process {process} still runs");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The number in "process 123 is".
fn process_in(line: &str) -> String {
    line.split_once("process ").unwrap().1.split(' ').next().unwrap().to_owned()
}

#[test]
fn a_python_server_and_a_c_client_show_calls_kernel_and_packets() {
    let Some(actor) = actor().filter(|_| has("python3")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = python(folder.path(), "server.py", SERVER);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (jsonl, html, pcapng) = (file("watch.jsonl"), file("watch.html"), file("watch.pcapng"));
    let client = format!("{actor} client 'a question'");
    let ran =
        watch(&["--b", &server, "--a", &client, "--jsonl", &jsonl, "--html", &html, "--pcapng", &pcapng]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert_in_order(
        &ran.stdout,
        &[
            "B.socket(AF_INET, SOCK_STREAM",
            ".bind((\"10.0.0.2\", 9000))",
            ".listen(",
            "new -> LISTEN",
            ".accept4(SOCK_CLOEXEC)",
            "A.socket(AF_INET, SOCK_STREAM)",
            "A1.connect((\"10.0.0.2\", 9000))",
            "A1                 new -> SYN-SENT",
            "A -> B  SYN      seq 0               passed",
            "new -> SYN-RECV",
            "A1                 SYN-SENT -> ESTABLISHED",
        ],
    );
    for part in [
        "A1.write(b\"a question\")",
        "= b\"a question\"",
        "A1.shutdown(SHUT_WR)",
        " from (\"10.0.0.1\", ",
        "A1.read(1000)",
        "= b\"\"",
        "note    A printed: client: fine",
        "client 'a question' has ended with exit status 0",
        "was ended by SIGTERM",
    ] {
        assert!(ran.stdout.contains(part), "{part}:\n{}", ran.stdout);
    }
    let recording = fs::read_to_string(&jsonl).unwrap();
    for part in [
        "{\"k\":\"meta\",\"v\":1,\"scenario\":\"watch\",\"tier\":\"",
        "\"actor\":\"A\",\"sock\":\"A1\",\"fn\":\"connect\",\"args\":\"(\\\"10.0.0.2\\\", 9000)\",\"line\":0,\"tid\":",
        "\"k\":\"name\"",
        "\"st\":\"SYN-RECV\"",
        "\"k\":\"pkt\"",
    ] {
        assert!(recording.contains(part), "{part}:\n{recording}");
    }
    let mut export = Command::new(env!("CARGO_BIN_EXE_socklens"));
    let export = export.args(["export", &jsonl, "--to", "python"]).output().unwrap();
    assert_eq!(export.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&export.stderr).contains("a recording of watch cannot be exported"));
    assert!(fs::read_to_string(&html).unwrap().contains("\"fn\":\"connect\""));
    assert_eq!(fs::read(&pcapng).unwrap()[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
}

#[test]
fn forked_children_are_followed() {
    let Some(actor) = actor() else { return };
    let (server, client) = (format!("{actor} fork_server 1"), format!("{actor} client forked"));
    let ran = watch(&["--b", &server, "--a", &client]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert_in_order(&ran.stdout, &["B1.accept()", "] B2.recv(1000)", "b\"forked\""]);
    assert!(ran.stdout.contains("B printed: fork_server: fine"), "{}", ran.stdout);
    // The child closes the listener, which the parent still has.
    let closes = ran
        .stdout
        .lines()
        .any(|line| line.contains("B1.close()") && line.contains("= 0, still open in process "));
    assert!(closes, "{}", ran.stdout);
    let processes = ran.stdout.lines().filter(|line| line.contains("B: process ") && line.contains(" is "));
    assert_eq!(processes.count(), 2, "{}", ran.stdout);
}

#[test]
fn threads_are_followed() {
    let Some(actor) = actor() else { return };
    let (server, clients) = (format!("{actor} fork_server 8"), format!("{actor} threads 8"));
    let ran = watch(&["--b", &server, "--a", &clients]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("A printed: threads: fine"), "{}", ran.stdout);
    for number in 1..=8 {
        assert!(ran.stdout.contains(&format!("A{number}.connect((\"10.0.0.2\", 9000))")), "{}", ran.stdout);
        // Each socket belongs to the host whose thread uses it.
        let own = format!("B{}.", number + 1);
        let mut uses = ran.stdout.lines().filter(|line| line.contains(&own));
        assert!(uses.all(|line| line.starts_with("  B")), "{}", ran.stdout);
    }
}

#[test]
fn programs_after_vfork_and_exec_are_followed() {
    let Some(actor) = actor() else { return };
    let (server, programs) = (format!("{actor} fork_server 2"), format!("{actor} programs"));
    let ran = watch(&["--b", &server, "--a", &programs]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert_in_order(&ran.stdout, &["write(b\"after vfork\")", "write(b\"after exec\")"]);
    assert!(ran.stdout.contains("A printed: programs: fine"), "{}", ran.stdout);
}

#[test]
fn signals_pass_unchanged() {
    let Some(actor) = actor() else { return };
    let ran = watch(&["--b", &format!("{actor} signals")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("B printed: signals: fine"), "{}", ran.stdout);
    for part in ["B1.recv(10)", "= -1 EINTR", "receives SIGALRM", "receives SIGSTOP", "receives SIGUSR1"] {
        assert!(ran.stdout.contains(part), "{part}:\n{}", ran.stdout);
    }
}

/// The terminal would stop a program that reads from it in the background.
#[test]
fn a_program_reads_lines_of_a_terminal() {
    if !can_watch() || !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let terminal = python(
        folder.path(),
        "terminal.py",
        "import os, pty, sys
process, terminal = pty.fork()
if process == 0: os.execv(sys.argv[1], [sys.argv[1], 'watch', '--stdin', 'a', '--a', 'head -n 1'])
os.write(terminal, b'of a terminal\\n')
text = b''
try:
    while part := os.read(terminal, 1000): text += part
except OSError: pass
print(text.decode())
assert os.waitpid(process, 0)[1] == 0
",
    );
    let program = terminal.split('\'').nth(1).unwrap();
    let mut command = Command::new("timeout");
    command.args(["30", "python3", program, env!("CARGO_BIN_EXE_socklens")]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("A printed: of a terminal"), "{output:?}");
}

#[test]
fn bytes_behind_a_buffer_are_not_shown() {
    let Some(actor) = actor() else { return };
    let ran = watch(&["--a", &format!("{actor} truncated")]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    for part in ["= b\"data\"... (8 bytes)", "A printed: truncated: fine"] {
        assert!(ran.stdout.contains(part), "{part}:\n{}", ran.stdout);
    }
    let line = ran.stdout.lines().find(|line| line.contains("recv(6, MSG_TRUNC)")).unwrap();
    assert!(line.contains("= 6"), "{}", ran.stdout);
}

/// The kernel reports ignored signals to a tracer too, and interrupts the call for that.
#[test]
fn ignored_signals_interrupt_no_call() {
    let Some(actor) = actor() else { return };
    assert!(Command::new(actor).arg("waits").stdout(Stdio::null()).status().unwrap().success());
    let ran = watch(&["--a", &format!("{actor} waits")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("A printed: waits: fine"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("= -1 EINTR").count(), 4, "{}", ran.stdout);
}

#[test]
fn calls_of_other_architectures_and_unknown_calls_pass() {
    let Some(actor) = actor() else { return };
    if !Command::new(actor).arg("other").stdout(Stdio::null()).status().unwrap().success() {
        eprintln!("NOT RUN: this system does not run 32-bit calls");
        return;
    }
    let ran = watch(&["--a", &format!("{actor} other")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert!(!ran.stdout.contains("A."), "{}", ran.stdout);
}

/// Without a tracer the calls of the filter fail, so the flag has no effect.
#[test]
fn children_that_want_no_tracer_are_followed() {
    let Some(actor) = actor() else { return };
    let ran = watch(&["--a", &format!("{actor} untraced")]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("A printed: untraced: fine"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("A.socket(AF_INET, SOCK_DGRAM)").count(), 2, "{}", ran.stdout);
}

#[test]
fn a_blocked_call_is_shown_while_it_blocks() {
    let Some(actor) = actor() else { return };
    let mut running = Running::start(&["--b", &format!("{actor} fork_server 1")]);
    running.wait_for(&["B1.accept()", "= blocks"]);
    running.signal("-INT");
    let (status, text) = running.end();
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("fork_server 1 was ended by SIGINT"), "{text}");
}

#[test]
fn a_held_call_runs_when_it_is_let_go() {
    let Some(actor) = actor() else { return };
    let (server, client) = (format!("{actor} fork_server 1"), format!("{actor} client stepped"));
    let mut running = Running::start(&["--b", &server, "--a", &client, "--hold", "B.bind,A.write,listen"]);
    running.wait_for(&["B1.bind(", "held"]);
    running.command("step");
    running.wait_for(&["B1.bind(", "= 0"]);
    running.wait_for(&["B1.listen(", "held"]);
    assert!(!running.seen.contains("LISTEN"), "{}", running.seen);
    running.command("");
    running.wait_for(&["new -> LISTEN"]);
    running.wait_for(&["A1.write(b\"stepped\")", "held"]);
    assert!(!running.seen.contains("DATA") && !running.seen.contains("len 7"), "{}", running.seen);
    running.command("run");
    running.wait_for(&["A1.write(b\"stepped\")", "= 7"]);
    let (status, text) = running.end();
    assert_eq!(status, Some(0), "{text}");
}

#[test]
fn threads_without_a_pause_do_not_keep_the_tool_from_its_limits() {
    let Some(actor) = actor() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watch.jsonl");
    let program = format!("{actor} busy 16");
    let arguments = ["--a", &program, "--max-recording", "300000", "--quiet", "--jsonl"];
    let ran = watch(&[&arguments[..], &[file.to_str().unwrap()]].concat());
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    // A limit that is checked late lets the recording grow.
    let size = fs::metadata(&file).unwrap().len();
    assert!(size < 600_000, "{size} bytes");
}

#[test]
fn a_client_starts_when_the_daemon_of_a_server_listens() {
    let Some(actor) = actor() else { return };
    let (server, client) = (format!("{actor} daemon"), format!("{actor} client daemon"));
    let ran = watch(&["--b", &server, "--a", &client]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert_in_order(
        &ran.stdout,
        &["daemon has ended with exit status 0", "B1.listen(", "A1.connect(", "A printed: client: fine"],
    );
}

#[test]
fn a_server_with_a_held_call_is_not_ended_after_its_client() {
    let Some(actor) = actor().filter(|_| has("python3")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let client = python(
        folder.path(),
        "client.py",
        "import socket\nsock = socket.create_connection(('10.0.0.2', 9000))\nsock.sendall(b'question')\n",
    );
    let server = format!("{actor} fork_server 1");
    let mut running = Running::start(&["--b", &server, "--a", &client, "--hold", "B.recv"]);
    running.wait_for(&["recv(1000)", "held"]);
    running.wait_for(&["A: python3", "has ended"]);
    thread::sleep(Duration::from_secs(2));
    running.command("run");
    running.wait_for(&["recv(1000)", "= b\"question\""]);
    let (status, text) = running.end();
    assert!(!text.contains("SIGTERM"), "{status:?} {text}");
}

#[test]
fn a_held_packet_is_delivered_by_a_command() {
    let Some(actor) = actor() else { return };
    let (server, client) = (format!("{actor} fork_server 1"), format!("{actor} client packets"));
    let mut running = Running::start(&["--b", &server, "--a", &client, "--hold-packets"]);
    running.wait_for(&["A1.connect(", "= blocks"]);
    running.wait_for(&["SYN  ", "held, packet 1"]);
    running.command("deliver 1");
    running.wait_for(&["SYN+ACK", "held"]);
    assert!(!running.seen.contains("ESTABLISHED"), "{}", running.seen);
    running.command("pass");
    running.wait_for(&["A1.connect(", "= 0"]);
    let (status, text) = running.end();
    assert_eq!(status, Some(0), "{text}");
}

/// Without its tracer a watched program would get ENOSYS for each socket call, so it must not run on.
#[test]
fn programs_end_with_the_tool_and_never_see_a_wrong_error() {
    if !can_watch() || !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (hurt, parent) = (folder.path().join("hurt"), folder.path().join("parent"));
    let text = format!(
        "import os, socket
open({:?}, 'w').write(str(os.getpid()))
os.fork()
try:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(('127.0.0.1', 0))
    sock.setblocking(False)
    while True:
        sock.sendto(b'x', sock.getsockname())
        assert sock.recv(10) == b'x'
except BaseException as error:
    open({:?}, 'w').write(repr(error))
",
        parent, hurt
    );
    let program = python(folder.path(), "busy.py", &text);
    let mut running = Running::start(&["--b", &program]);
    let first = process_in(&running.wait_for(&["B: process ", " is "]));
    let second = process_in(&running.wait_for(&["B: process ", " is "]));
    running.wait_for(&["recv(10)", "= b\"x\""]);
    running.signal("-KILL");
    running.end();
    for process in [&first, &second, &fs::read_to_string(&parent).unwrap()] {
        wait_until_gone(process);
    }
    assert!(!hurt.exists(), "{}", fs::read_to_string(&hurt).unwrap());
}

#[test]
fn programs_of_the_page_end_with_the_server() {
    if !can_watch() || !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("process");
    let text = format!(
        "import os, socket, time
open({file:?}, 'w').write(f'{{os.getpid()}} ')
socket.socket()
time.sleep(300)
"
    );
    let program = python(folder.path(), "waits.py", &text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_socklens"));
    let mut server = command.args(["serve", "--b", &program]).stdout(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + LIMIT;
    let process = loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        if let Some(process) = text.strip_suffix(' ') {
            break process.to_owned();
        }
        assert!(Instant::now() < end, "the program does not run");
        thread::sleep(Duration::from_millis(5));
    };
    assert!(exists(&process));
    server.kill().unwrap();
    server.wait().unwrap();
    wait_until_gone(&process);
}

#[test]
fn mistakes_in_the_programs_of_the_page_are_found_at_once() {
    for (arguments, reason) in [
        (&["--b", "echo 'x"][..], "--b: a quote"),
        (&["--hold", "accept"], "watch needs a program"),
        (&["--b", "true", "hello.scn"], "serve takes a scenario, or programs, and not both"),
        (&["--b"], "--b needs a value"),
    ] {
        let mut command = Command::new("timeout");
        command.args(["60", env!("CARGO_BIN_EXE_socklens"), "serve"]).args(arguments);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(reason), "{arguments:?}: {text}");
    }
}

#[test]
fn what_a_program_has_left_is_ended() {
    if !can_watch() || !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("daemon");
    let text = format!(
        "import os, signal, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open({file:?}, 'w').write(str(os.getpid()))
    os.dup2(os.open('/dev/null', os.O_RDWR), 1)
    time.sleep(300)
while not os.path.exists({file:?}) or not open({file:?}).read(): time.sleep(0.01)
"
    );
    let ran = watch(&["--a", &python(folder.path(), "daemon.py", &text)]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    wait_until_gone(&fs::read_to_string(&file).unwrap());
}

#[test]
fn the_exit_status_is_that_of_the_programs() {
    let Some(actor) = actor() else { return };
    let ran = watch(&["--a", &format!("{actor} exit 3")]);
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    assert!(ran.stdout.contains("exit 3 has ended with exit status 3"), "{}", ran.stdout);
    let ran = watch(&["--a", "/no/such/program"]);
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("A: /no/such/program cannot be started: No such file or directory"),
        "{}",
        ran.stdout
    );
}

#[test]
fn quiet_prints_how_each_program_has_ended_and_nothing_else() {
    let Some(actor) = actor() else { return };
    let (good, bad) = (format!("{actor} exit 0"), format!("{actor} exit 3"));
    let ran = watch(&["--b", "/no/such/program", "--a", &good, "--quiet"]);
    let expected = format!(
        "A: {good} has ended with exit status 0\n\
         FAILED B: /no/such/program cannot be started: No such file or directory (os error 2)\n"
    );
    assert_eq!((ran.status, ran.stdout), (Some(1), expected));
    let ran = watch(&["--a", &bad, "--quiet"]);
    let expected = format!("FAILED A: {bad} has ended with exit status 3\n");
    assert_eq!((ran.status, ran.stdout), (Some(1), expected));
    let server = format!("{actor} fork_server 2");
    let ran = watch(&["--b", &server, "--a", &format!("{actor} client quiet"), "--quiet"]);
    let expected = format!(
        "A: {actor} client quiet has ended with exit status 0\n\
         B: {server} was ended by SIGTERM, because socklens has ended it\n"
    );
    assert_eq!((ran.status, ran.stdout), (Some(0), expected));
}

#[test]
fn quiet_prints_why_nothing_could_run() {
    let ran = watch(&["--a", "true", "--quiet"]);
    if ran.status == Some(NOT_RUN) {
        assert!(ran.stdout.starts_with("watch: NOT RUN: "), "{}", ran.stdout);
    }
}

#[test]
fn a_recording_that_is_too_large_ends_the_programs() {
    if !can_watch() || !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watch.jsonl");
    let server = python(folder.path(), "server.py", SERVER);
    let client = python(
        folder.path(),
        "client.py",
        "import socket\nsock = socket.create_connection(('10.0.0.2', 9000))\nwhile True:\n    sock.sendall(b'x' * 1000)\n    sock.recv(1000)\n",
    );
    let arguments = ["--b", &server, "--a", &client, "--max-recording", "50000", "--jsonl"];
    let ran = watch(&[&arguments[..], &[file.to_str().unwrap()]].concat());
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    assert!(ran.stdout.contains("the recording has reached its limit of 50000 bytes"), "{}", ran.stdout);
    assert!(fs::metadata(&file).unwrap().len() > 10_000);
}

/// The example servers of the workspace, one for each process model of `sockserver`.
#[test]
fn servers_of_all_six_models_are_watched() {
    if !can_watch() || !has("python3") {
        return;
    }
    let examples = Path::new(env!("CARGO_BIN_EXE_socklens")).parent().unwrap().join("examples");
    let folder = tempfile::tempdir().unwrap();
    let client = python(
        folder.path(),
        "client.py",
        "import socket
sock = socket.create_connection(('10.0.0.2', 9000))
sock.sendall(b'one line\\n')
assert sock.recv(100).lower() == b'one line\\n'
print('answered')
",
    );
    thread::scope(|scope| {
        for name in ["echo_tcp", "echo_threading", "echo_pool", "echo_prefork", "echo_selector", "forks"] {
            let (program, client) = (examples.join(name), &client);
            if !program.exists() {
                eprintln!("NOT RUN: the example {name} was not built; cargo test --workspace builds it");
                continue;
            }
            scope.spawn(move || {
                let ran = watch(&["--b", &format!("'{}' 10.0.0.2 9000", program.display()), "--a", client]);
                assert_eq!(ran.status, Some(0), "{name}: {}", ran.stdout);
                assert!(ran.stdout.contains("A printed: answered"), "{name}: {}", ran.stdout);
                assert_in_order(
                    &ran.stdout,
                    &[".listen(", "A1.send(b\"one line\\n\")", "b\"one line\\n\""],
                );
            });
        }
    });
}

/// The text has at most so many lines a second, and the recording has everything.
#[test]
fn a_bulk_transfer_is_shortened_in_the_text() {
    if !can_watch() || !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = python(
        folder.path(),
        "server.py",
        "import socket
connection, _ = socket.create_server(('10.0.0.2', 9000)).accept()
size = 0
while data := connection.recv(500): size += len(data)
print('received', size)
",
    );
    let client = python(
        folder.path(),
        "client.py",
        "import socket\nsock = socket.create_connection(('10.0.0.2', 9000))\nsock.sendall(b'x' * 1000000)\n",
    );
    let file = folder.path().join("bulk.jsonl");
    let ran = watch(&["--b", &server, "--a", &client, "--jsonl", file.to_str().unwrap()]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("B printed: received 1000000"), "{}", ran.stdout);
    let recording = fs::read_to_string(&file).unwrap();
    let last = recording.lines().last().unwrap();
    let seconds: f64 = last.split_once("\"t\":").unwrap().1.split(',').next().unwrap().parse().unwrap();
    // Ends and changes of state are printed in any case.
    assert!(ran.stdout.lines().count() < 450 * (seconds as usize + 1), "{} s", seconds);
    assert!(recording.matches("\"fn\":\"recv\"").count() >= 2000);
}

#[test]
fn a_go_server_is_watched() {
    if !can_watch() || !has("go") || !has("python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("server");
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(&program).arg(source("server.go")).env("GOFLAGS", "-mod=mod");
    let output = command.env("GOCACHE", folder.path().join("cache")).output().unwrap();
    if !output.status.success() {
        return not_run(&format!("go does not compile here: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let client = python(
        folder.path(),
        "client.py",
        "import socket\nsock = socket.create_connection(('10.0.0.2', 9000))\nsock.sendall(b'hello\\n')\nprint(sock.makefile().read())\n",
    );
    let ran = watch(&["--b", program.to_str().unwrap(), "--a", &client]);
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("A printed: go says hello"), "{}", ran.stdout);
    assert_in_order(&ran.stdout, &["B1.listen(", "B1.epoll_ctl(EPOLL_CTL_ADD", "B1.accept4("]);
}

#[test]
fn mistakes_in_the_arguments_are_found_before_anything_runs() {
    for (arguments, reason) in [
        (&[][..], "watch needs a program: --a COMMAND, --b COMMAND, or both"),
        (&["--a"], "--a needs a value"),
        (&["--a", ""], "--a needs a program"),
        (
            &["--a", "cat x | wc"],
            "--a: `|` is for a shell, and no shell runs. To run one, write sh -c 'cat x | wc'",
        ),
        (&["--b", "python3 $HOME/x.py"], "--b: `$HOME` is for a shell"),
        (&["--a", "true", "--max-memory", "2X"], "\"2X\" is not a number of bytes, such as 1000000, 512K"),
        (&["--a", "true", "--max-descriptors", "7"], "\"7\" is not a number of descriptors from 8"),
        (&["--a", "echo 'x"], "--a: a quote in \"echo 'x\" is not closed"),
        (&["--a", "true", "--a", "true"], "--a is there twice"),
        (&["curl"], "\"curl\" is not an option; a program is the value of --a or --b"),
        (
            &["--a", "true", "--hold", "acept"],
            "\"acept\" is not a call that is watched; did you mean accept",
        ),
        (&["--a", "true", "--hold", "C.accept"], "\"C\" is not a host"),
        (&["--a", "true", "--hlod", "accept"], "watch has no option --hlod; did you mean --hold"),
        (&["--a", "true", "--stdin", "a", "--hold", "all"], "so --stdin is not possible"),
        (&["--a", "true", "--tier", "x"], "\"x\" is not veth, tun or loopback"),
        (&["--a", "true", "--max-recording", "x"], "\"x\" is not a number of bytes"),
        (&["--a", "true", "--jsonl", "/no/such/folder/x"], "cannot write /no/such/folder/x"),
    ] {
        let ran = watch(arguments);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(reason), "{arguments:?}: {}", ran.stderr);
    }
}
