//! A running program of either language, its terminal and its transcript.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pty_process::blocking::{self as pty, Pty};

use crate::transcript;

/// The limit of every wait. Only a failure takes so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The arguments of a server for which the system chooses a port.
pub(crate) const ANY_PORT: [&str; 2] = ["127.0.0.1", "0"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Python,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// Three pipes, as in a shell script.
    Pipe,
    /// A pseudo-terminal for all three streams.
    Pty,
}

/// Returns the languages to test: Rust, and Python if it is installed.
///
/// Without `python3` a message is printed and only Rust is tested.
pub(crate) fn languages() -> &'static [Language] {
    static LANGUAGES: OnceLock<&'static [Language]> = OnceLock::new();
    LANGUAGES.get_or_init(|| {
        let version = "import sys; sys.exit(sys.version_info < (3, 9))";
        let python = Command::new("python3")
            .args(["-c", version])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if python {
            return &[Language::Rust, Language::Python];
        }
        let required = env::var_os("SOCK_REQUIRE_PYTHON").is_some_and(|value| value == "1");
        assert!(!required, "SOCK_REQUIRE_PYTHON=1 is set, but python3 3.9 or newer is not on PATH");
        print_uncaptured("python3 3.9 or newer is not on PATH: ALL COMBINATIONS WITH PYTHON ARE SKIPPED");
        &[Language::Rust]
    })
}

/// Prints a message that libtest does not capture.
pub(crate) fn print_uncaptured(sentence: &str) {
    // `eprintln` is captured, but not the stream itself. An error of the stream is ignored.
    let _ = writeln!(io::stderr(), "\n*** interop: {sentence} ***");
}

/// A running program, which is killed when it is dropped.
pub(crate) struct Program {
    /// A name such as `talk.py`, for messages.
    label: String,
    child: Child,
    terminal: Terminal,
    input: Option<Input>,
    output: Output,
    errors: Output,
    /// The server's port, for a server and for its client.
    port: String,
}

enum Input {
    Pipe(ChildStdin),
    Pty(Arc<Pty>),
}

/// The output of a program, which a thread receives.
struct Output {
    chunks: mpsc::Receiver<Vec<u8>>,
    seen: Vec<u8>,
    /// How much of the output `expect` has matched.
    found: usize,
    ended: bool,
}

impl Program {
    pub(crate) fn start<A: AsRef<OsStr>>(language: Language, name: &str, arguments: &[A]) -> Self {
        Self::start_on(Terminal::Pipe, language, name, arguments)
    }

    pub(crate) fn start_on<A: AsRef<OsStr>>(
        terminal: Terminal,
        language: Language,
        name: &str,
        arguments: &[A],
    ) -> Self {
        let mut command = command(language, name);
        command.args(arguments);
        let port =
            arguments.get(1).map_or(String::new(), |port| port.as_ref().to_string_lossy().into_owned());
        let label = match language {
            Language::Rust => name.to_owned(),
            Language::Python => format!("{name}.py"),
        };
        Self::spawn(terminal, command, label, port)
    }

    /// Starts a command with its three streams redirected.
    pub(crate) fn spawn(terminal: Terminal, mut command: Command, label: String, port: String) -> Self {
        let (child, input, output, errors) = match terminal {
            Terminal::Pipe => {
                // A process group of its own, so that its children are killed with it.
                let mut child = command
                    .process_group(0)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap_or_else(|err| panic!("cannot start {label}: {err}"));
                let input = child.stdin.take().map(Input::Pipe);
                let output = Output::of(child.stdout.take().expect("stdout is piped"));
                let errors = Output::of(child.stderr.take().expect("stderr is piped"));
                (child, input, output, errors)
            }
            Terminal::Pty => {
                let (master, slave) = pty::open().expect("a pseudo-terminal");
                let size = pty_process::Size::new(24, transcript::WIDTH);
                master.resize(size).expect("resize");
                let child = pty::Command::from(command)
                    .env("TERM", "xterm")
                    .spawn(slave)
                    .unwrap_or_else(|err| panic!("cannot start {label}: {err}"));
                let master = Arc::new(master);
                let output = Output::of(Screen(Arc::clone(&master)));
                let errors = Output::of(io::empty());
                (child, Some(Input::Pty(master)), output, errors)
            }
        };
        Program { label, child, terminal, input, output, errors, port }
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server listens. Returns its address.
    pub(crate) fn listening_on(&mut self) -> String {
        let line = self.line_after("listening on ");
        let address = line.split(',').next().unwrap_or("").to_owned();
        if let Some((_, port)) = address.rsplit_once(':') {
            self.port = port.to_owned();
        }
        address
    }

    /// Waits for `text`. Returns the rest of its line.
    pub(crate) fn line_after(&mut self, text: &str) -> String {
        self.expect(text);
        let start = self.output.found;
        self.expect("\n");
        let line = &self.output.seen[start..self.output.found];
        String::from_utf8_lossy(line).trim_end().to_owned()
    }

    /// Waits until this server listens. Returns the arguments for a client.
    pub(crate) fn address(&mut self) -> [String; 2] {
        let address = self.listening_on();
        let (host, port) =
            address.rsplit_once(':').unwrap_or_else(|| panic!("{}: no port in {address}", self.label));
        [host.to_owned(), port.to_owned()]
    }

    /// Sends a signal, by its name without `SIG`.
    // Only one of the two tests that include this file uses it.
    #[allow(dead_code)]
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -s {name}");
    }

    /// Waits until the program has written `text`, after what was found before.
    pub(crate) fn expect(&mut self, text: &str) {
        let text = text.as_bytes();
        self.wait_until(&format!("waiting for {:?}", String::from_utf8_lossy(text)), |output| {
            let new = &output.seen[output.found..];
            let at = new.windows(text.len()).position(|window| window == text);
            at.map(|at| output.found += at + text.len()).is_some()
        });
    }

    /// Types a line at the prompt `> `, once it is there.
    pub(crate) fn answer(&mut self, line: &str) {
        self.expect("> ");
        let typed = format!("{line}\n");
        // A terminal echoes input. With a pipe the input is added here, so that both have the
        // same transcript.
        if self.terminal == Terminal::Pipe {
            self.output.seen.extend(typed.as_bytes());
        }
        self.write(typed.as_bytes());
    }

    /// Ends the input at the prompt `> `, once it is there.
    pub(crate) fn end_of_input(&mut self) {
        self.expect("> ");
        match self.terminal {
            Terminal::Pipe => self.input = None,
            Terminal::Pty => self.write(b"\x04"),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let result = match self.input.as_mut().expect("the input has ended") {
            Input::Pipe(pipe) => pipe.write_all(bytes),
            Input::Pty(pty) => (&**pty).write_all(bytes),
        };
        if let Err(err) = result {
            panic!("cannot write to {}: {err}\n{self}", self.label);
        }
    }

    /// Waits for a successful exit. Returns the transcript.
    pub(crate) fn finish(self) -> String {
        let (output, errors) = self.finish_with(0);
        assert_eq!(errors, "", "standard error of a successful program");
        output
    }

    /// Waits for the exit. Returns the transcript and the standard error.
    pub(crate) fn finish_with(mut self, code: i32) -> (String, String) {
        self.wait_until("waiting for the end of the output", |output| output.ended);
        let deadline = Instant::now() + LIMIT;
        while self.errors.receive(deadline) {}
        // Its streams are closed, so it exits soon.
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::yield_now(),
                Ok(None) => panic!("{} does not exit\n{self}", self.label),
                Err(err) => panic!("{}: {err}", self.label),
            }
        };
        assert_eq!(status.code(), Some(code), "{status}\n{self}");
        self.texts()
    }

    /// Kills a server once it has written as many lines as `expected` has. Returns its transcript.
    pub(crate) fn stop_after(mut self, expected: &str) -> String {
        let lines = expected.lines().count();
        self.wait_until(&format!("waiting for line {lines}"), |output| {
            output.seen.iter().filter(|byte| **byte == b'\n').count() >= lines
        });
        self.kill();
        self.child.wait().expect("wait");
        self.wait_until("waiting for the end of the output", |output| output.ended);
        let deadline = Instant::now() + LIMIT;
        while self.errors.receive(deadline) {}
        let (output, errors) = self.texts();
        assert_eq!(errors, "", "standard error of {}", self.label);
        output
    }

    /// Kills the program and its children. With a pseudo-terminal it leads a group too.
    fn kill(&self) {
        let group = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).expect("kill");
    }

    fn wait_until(&mut self, what: &str, mut done: impl FnMut(&mut Output) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done(&mut self.output) {
            if !self.output.receive(deadline) {
                // The message contains its standard error so far.
                while self.errors.receive(Instant::now() + Duration::from_millis(500)) {}
                let end = if self.output.ended { "its output has ended" } else { "timeout" };
                panic!("{}: {what}: {end}\n{self}", self.label);
            }
        }
    }

    fn texts(&self) -> (String, String) {
        let output = match self.terminal {
            Terminal::Pipe => String::from_utf8_lossy(&self.output.seen).into_owned(),
            Terminal::Pty => transcript::screen(&self.output.seen),
        };
        let errors = String::from_utf8_lossy(&self.errors.seen).into_owned();
        (transcript::normal(&output, &self.port), errors)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = String::from_utf8_lossy(&self.output.seen);
        let errors = String::from_utf8_lossy(&self.errors.seen);
        let (label, terminal) = (&self.label, self.terminal);
        write!(f, "--- {label} wrote ({terminal:?}):\n{output}\n--- standard error:\n{errors}\n---")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that has exited was waited for, and its number may be another's by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

impl Output {
    fn of(mut stream: impl Read + Send + 'static) -> Self {
        let (sender, chunks) = mpsc::channel();
        // The thread ends with the stream, at the latest when the program does.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 => {
                        if sender.send(buffer[..count].to_vec()).is_err() {
                            break;
                        }
                    }
                    Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                    // Linux reports the end of a pseudo-terminal as EIO.
                    Ok(_) | Err(_) => break,
                }
            }
        });
        Output { chunks, seen: Vec::new(), found: 0, ended: false }
    }

    /// Receives the next output. Returns false at its end or at the deadline.
    fn receive(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.chunks.recv_timeout(left) {
            Ok(chunk) => {
                self.seen.extend(chunk);
                true
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                // Once more for those who ask whether it has ended.
                !std::mem::replace(&mut self.ended, true)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => false,
        }
    }
}

/// The reading side of a pseudo-terminal.
struct Screen(Arc<Pty>);

impl Read for Screen {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

/// Returns the command of an example, with a clean environment.
fn command(language: Language, name: &str) -> Command {
    let mut command = match language {
        Language::Rust => Command::new(example(name)),
        Language::Python => {
            let mut command = Command::new("python3");
            command
                .args(["-u", "-W", "error"])
                .arg(twin(name))
                .env("PYTHONUNBUFFERED", "1")
                .env("PYTHONDONTWRITEBYTECODE", "1");
            command
        }
    };
    command.env_remove("RUST_LOG").env_remove("PYTHONPATH");
    command
}

/// The path of a built example, which cargo puts beside `deps`.
pub(crate) fn example(name: &str) -> PathBuf {
    let own = env::current_exe().expect("the path of this test exists");
    let target = own.ancestors().nth(2).expect("target directory");
    let path = target.join("examples").join(name);
    assert!(
        path.exists(),
        "the example {name} is not built: `cargo test --workspace` builds it, \
         and `cargo build --workspace --examples` does"
    );
    path
}

/// The path of an example's Python twin.
pub(crate) fn twin(name: &str) -> PathBuf {
    repository().join(format!("examples/python/{name}.py"))
}

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder above tests")
}

/// A directory for one test, which is removed with its contents.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("interop-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Directory(path)
    }

    pub(crate) fn join(&self, name: &str) -> OsString {
        self.0.join(name).into()
    }

    /// Replaces the path of this directory by `DIR`.
    pub(crate) fn hide(&self, text: &str) -> String {
        text.replace(&*self.0.to_string_lossy(), "DIR")
    }

    /// Returns the sorted names in the directory.
    pub(crate) fn names(&self) -> Vec<OsString> {
        let entries = std::fs::read_dir(&self.0).expect("read_dir");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // An error is ignored, because the directory is temporary.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
