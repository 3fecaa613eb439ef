//! Programs in any language as actors: their socket calls, the kernel's view of their sockets, and
//! the packets between them.
//!
//! Each program runs on one of the hosts of a [`Lab`] under ptrace(2). A seccomp filter stops it at
//! socket calls and at calls that may concern a socket, and nowhere else. The program has no other
//! parent than this process, and is killed by the kernel when this process ends.

mod arguments;
mod decode;
mod memory;
mod sockets;
mod text;
mod tracer;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use sock::{POLLIN, Poll};

use crate::event::{Event, EventKind, Fate, HostName};
use crate::hub::{Hub, Policy};
use crate::lab::{Lab, Tier, linux_version};
use crate::page;
use crate::record::{Head, Object, json, meta, write_jsonl, write_pcapng};
use crate::scenario::parse::is_invisible;
use crate::sys::{calls, trace};
use arguments::shown;
pub(crate) use arguments::{Arguments, parse, size as bytes};
use sockets::Sockets;
use text::WatchPrinter;
use tracer::Tracer;

const FAILED: u8 = 1;
const NOT_RUN: u8 = 77;

/// The first version of Linux with pidfd_getfd(2). PTRACE_GET_SYSCALL_INFO is older.
const NEEDED: (u32, u32) = (5, 6);
/// How long A waits for a program of B that does not listen.
const LISTENS: Duration = Duration::from_secs(30);
/// After the end of A, B goes on until no packet was sent and no socket has changed for this long,
const QUIET: Duration = Duration::from_millis(300);
/// but not longer than this.
const NOT_QUIET: Duration = Duration::from_secs(60);
/// How long killed processes may take to end.
const KILLED: Duration = Duration::from_secs(5);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How often limits are checked while nothing is reported.
const TICK: Duration = Duration::from_millis(50);
/// How long a new process may take until it waits for its tracer.
const START: Duration = Duration::from_secs(10);
/// Bytes of a line that a program has printed.
const PRINTED: u64 = 2000;

/// What the user or the system wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Let the call go that was kept first.
    Step,
    /// Let all calls go, and keep none.
    Run,
    /// Keep calls again.
    Pause,
    /// End the programs.
    Quit,
}

/// What wakes the tracer besides its programs.
#[derive(Debug)]
struct Bell(UnixStream);

impl Bell {
    fn ring(&self) {
        // A full pipe wakes as well.
        let _ = (&self.0).write(b"b");
    }

    fn copy(&self) -> io::Result<Bell> {
        self.0.try_clone().map(Bell)
    }
}

/// Where commands come from, and what happens when there are no more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Commands {
    /// There are none.
    None,
    /// Nothing is kept any more.
    OfUser,
    /// The function is called.
    OfServer(fn() -> !),
}

/// Runs the programs of the arguments.
pub(crate) fn watch(arguments: &[String]) -> Result<u8, String> {
    let arguments = parse(arguments)?;
    for path in [&arguments.jsonl, &arguments.pcapng, &arguments.html].into_iter().flatten() {
        File::create(path).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    let mut output = Output::new(arguments.is_quiet);
    let begin = SystemTime::now();
    let lab = match lab(arguments.tier) {
        Ok(lab) => lab,
        Err(reason) => {
            Output::new(false).print(&format!("watch: NOT RUN: {reason}\n"));
            return Ok(NOT_RUN);
        }
    };
    let head = Head::new("watch", lab.tier().to_string(), begin);
    output.print(&match lab.tier() {
        Tier::Loopback => "watch, on this system's own addresses, no wire\n".to_owned(),
        tier => format!("watch, hosts A 10.0.0.1 and B 10.0.0.2, wire {tier}\n"),
    });
    let printer = Printing::start(&lab.hub, output).map_err(|error| format!("cannot start: {error}"))?;
    let has_commands = arguments.holds_packets || !arguments.holds.is_empty();
    let commands = if has_commands { Commands::OfUser } else { Commands::None };
    let watched = run(&lab, &arguments, commands);
    printer.end();
    let ends = watched.map_err(|error| format!("cannot watch: {error}"))?;
    let hub = lab.hub.clone();
    drop(lab);
    let state = hub.lock();
    let lost = state.lost;
    let events = state.events.clone();
    drop(state);
    // The notes of the other output have it.
    let mut summary = String::new();
    if arguments.is_quiet {
        summary.extend(
            ends.iter().map(|end| format!("{}{}\n", if end.is_good { "" } else { "FAILED " }, end.text)),
        );
    }
    if lost > 0 {
        summary += &format!("the tool itself lost {lost} packets\n");
    }
    Output::new(false).print(&summary);
    write_files(&arguments, &head, &events)?;
    Ok(if ends.iter().all(|end| end.is_good) { 0 } else { FAILED })
}

/// How the program of a host has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    text: String,
    is_good: bool,
}

/// Runs programs on a lab, and returns how each has ended.
pub(crate) fn run(lab: &Lab, arguments: &Arguments, commands: Commands) -> io::Result<Vec<Ended>> {
    Session::run(lab, arguments, commands)
}

/// Builds a lab. Without a wire the hosts have no addresses of their own, so that is used only if
/// it is wanted.
pub(crate) fn lab(tier: Option<Tier>) -> Result<Lab, String> {
    if !calls::IS_SUPPORTED {
        return Err("programs are watched on x86-64 and AArch64 only".to_owned());
    }
    let (version, release) = linux_version();
    if ((1, 0)..NEEDED).contains(&version) {
        let (major, minor) = NEEDED;
        return Err(format!(
            "programs are watched on Linux {major}.{minor} and later, and this is {release}"
        ));
    }
    let lab = Lab::new(tier).map_err(|error| error.to_string())?;
    if lab.tier() == Tier::Loopback && tier.is_none() {
        return Err(format!(
            "{}. With --tier loopback the programs run at this system's own addresses",
            lab.reasons().join("; ")
        ));
    }
    Ok(lab)
}

fn write_files(arguments: &Arguments, head: &Head, events: &[Event]) -> Result<(), String> {
    type Format = fn(&mut dyn Write, &Head, &[Event]) -> io::Result<()>;
    let save = |path: &Option<String>, format: Format| {
        let Some(path) = path else { return Ok(()) };
        File::create(path)
            .and_then(|file| {
                let mut file = BufWriter::new(file);
                format(&mut file, head, events)?;
                file.flush()
            })
            .map_err(|error| format!("cannot write {path}: {error}"))
    };
    save(&arguments.jsonl, write_jsonl)?;
    save(&arguments.pcapng, write_pcapng)?;
    if let Some(path) = &arguments.html {
        let mut recording = format!("{}\n{}\n", meta(head), source(arguments));
        for event in events {
            recording += &json(event);
            recording.push('\n');
        }
        page::replay("watch", &recording, &[])
            .and_then(|page| std::fs::write(path, page))
            .map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    Ok(())
}

/// What stands in a recording in place of the text of a scenario: each call is a line of it.
pub(crate) fn source(arguments: &Arguments) -> String {
    let mut object = Object::new("source");
    object.text("name", "watch");
    object.text("title", &arguments.title());
    object.text("of", "programs");
    object.list("lines", &[]);
    object.end()
}

/// The standard output, until its reader has gone.
#[derive(Debug)]
struct Output {
    is_closed: bool,
}

impl Output {
    fn new(is_quiet: bool) -> Output {
        Output { is_closed: is_quiet }
    }

    fn print(&mut self, text: &str) {
        if !self.is_closed && !text.is_empty() {
            let mut stdout = io::stdout().lock();
            self.is_closed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err();
        }
    }
}

/// The thread that prints what is recorded. A slow terminal does not stop the programs.
#[derive(Debug)]
struct Printing {
    is_end: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Printing {
    fn start(hub: &Arc<Hub>, mut output: Output) -> io::Result<Printing> {
        const PAUSE: Duration = Duration::from_millis(5);
        let is_end = Arc::new(AtomicBool::new(false));
        let (hub, ends) = (hub.clone(), is_end.clone());
        let print = move || {
            let mut printer = WatchPrinter::default();
            loop {
                let is_end = ends.load(Ordering::SeqCst);
                let text = printer.lines(&hub.lock(), is_end);
                output.print(&text);
                if is_end {
                    return;
                }
                thread::sleep(PAUSE);
            }
        };
        let thread = thread::Builder::new().name("output".to_owned()).spawn(print)?;
        Ok(Printing { is_end, thread })
    }

    fn end(self) {
        self.is_end.store(true, Ordering::SeqCst);
        let _ = self.thread.join();
    }
}

/// What the programs do at the moment.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Running,
    /// A has ended, and B goes on until nothing happens.
    Quieting {
        since: Instant,
    },
    /// The programs were asked to end.
    Ending {
        since: Instant,
    },
    /// The programs were killed.
    Killed {
        since: Instant,
    },
}

/// A program that was started.
#[derive(Debug)]
struct Started {
    host: HostName,
    result: Receiver<io::Result<Child>>,
    /// Whether it runs its program.
    runs: bool,
}

struct Session<'a> {
    lab: &'a Lab,
    arguments: &'a Arguments,
    tracer: Tracer<'a>,
    bell: Bell,
    started: Vec<Started>,
    readers: Vec<JoinHandle<()>>,
    phase: Phase,
    /// Since when A waits for B.
    begin: Instant,
    /// Whether the tool has ended the program.
    was_ended: [bool; 2],
    /// Why the program could not be started, or was killed.
    problems: [Option<String>; 2],
    /// How much was recorded, and up to which event that was counted.
    recorded: (usize, usize),
    /// When the memory of the programs was read, and how long that took.
    measured: (Instant, Duration),
    /// When a packet was sent or a socket has changed.
    changed: Instant,
}

impl<'a> Session<'a> {
    fn run(lab: &'a Lab, arguments: &'a Arguments, commands: Commands) -> io::Result<Vec<Ended>> {
        let (bell, mut rung) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let bell = Bell(bell);
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGCHLD, SIGINT, SIGTERM, SIGHUP] {
            if signal != SIGCHLD {
                signal_hook::flag::register(signal, interrupted.clone())?;
            }
            signal_hook::low_level::pipe::register(signal, bell.copy()?.0)?;
        }
        let hub = &*lab.hub;
        if arguments.holds_packets {
            hub.with(|state| state.set_policy(Policy::Hold));
        }
        let wishes = match commands {
            Commands::None => None,
            commands => Some(read_commands(&lab.hub, &bell, commands)?),
        };
        let sockets = Sockets::new(arguments.shows_all);
        let mut session = Session {
            lab,
            arguments,
            tracer: Tracer::new(hub, sockets, arguments.holds.clone()),
            bell,
            started: Vec::new(),
            readers: Vec::new(),
            phase: Phase::Running,
            begin: Instant::now(),
            was_ended: [false; 2],
            problems: [None, None],
            recorded: (0, 0),
            measured: (Instant::now(), Duration::ZERO),
            changed: Instant::now(),
        };
        session.start_next()?;
        loop {
            let has_more = session.tracer.handle_reports()?;
            session.check_started();
            if interrupted.swap(false, Ordering::SeqCst) {
                session.interrupt();
            }
            while let Some(wish) = wishes.as_ref().and_then(|wishes| wishes.try_recv().ok()) {
                session.obey(wish);
            }
            session.start_next()?;
            session.check_limits();
            if session.advance() {
                break;
            }
            let mut set = [Poll::new(&rung, POLLIN)];
            let _ = sock::poll(&mut set, Some(if has_more { Duration::ZERO } else { TICK }));
            let _ = rung.read(&mut [0; 256]);
        }
        // Their other ends are closed, because all processes have ended.
        for reader in session.readers.drain(..) {
            let end = Instant::now() + GRACE;
            while !reader.is_finished() && Instant::now() < end {
                thread::sleep(Duration::from_millis(1));
            }
        }
        hub.settle();
        Ok(HostName::BOTH.into_iter().filter_map(|host| session.ended(host)).collect())
    }

    fn ended(&self, host: HostName) -> Option<Ended> {
        let place = host.index();
        let command = &self.arguments.commands[place].as_ref()?.text;
        let was_ended = self.was_ended[place];
        let (how, is_good) = match (&self.problems[place], self.tracer.end_of(host)) {
            (Some(problem), _) => (problem.clone(), false),
            (None, Some(end)) => (tracer::ending(end), end == Ok(0) || was_ended),
            (None, None) if self.is_started(host) => ("has not ended".to_owned(), true),
            (None, None) => ("was not started".to_owned(), true),
        };
        let by = if was_ended { ", because socklens has ended it" } else { "" };
        Some(Ended { text: format!("{host}: {command} {how}{by}"), is_good })
    }

    fn has(&self, host: HostName) -> bool {
        self.arguments.commands[host.index()].is_some()
    }

    fn is_started(&self, host: HostName) -> bool {
        self.started.iter().any(|started| started.host == host)
    }

    fn has_ended(&self, host: HostName) -> bool {
        !self.has(host) || self.problems[host.index()].is_some() || self.tracer.end_of(host).is_some()
    }

    /// Starts B first, and A once B listens.
    fn start_next(&mut self) -> io::Result<()> {
        if !matches!(self.phase, Phase::Running) {
            return Ok(());
        }
        if self.has(HostName::B) && !self.is_started(HostName::B) {
            self.start(HostName::B)?;
        }
        if !self.has(HostName::A) || self.is_started(HostName::A) {
            return Ok(());
        }
        let is_ready = || {
            let state = self.lab.hub.lock();
            state.rows(HostName::B).values().any(|seen| ["LISTEN", "UNCONNECTED"].contains(&seen.state))
        };
        if self.tracer.held_calls() > 0 {
            // B cannot listen before the user lets it.
            self.begin = Instant::now();
        }
        let is_late = self.begin.elapsed() > LISTENS;
        // The first process of a daemon ends before another one listens.
        let has_ended = self.has_ended(HostName::B) && !self.tracer.runs(HostName::B);
        if has_ended || is_ready() {
            return self.start(HostName::A);
        }
        if is_late {
            self.tracer.note(format!("B does not listen after {} s, and A starts", LISTENS.as_secs()));
            return self.start(HostName::A);
        }
        Ok(())
    }

    fn start(&mut self, host: HostName) -> io::Result<()> {
        let Some(wanted) = &self.arguments.commands[host.index()] else { return Ok(()) };
        let mut command = Command::new(&wanted.words[0]);
        command.args(&wanted.words[1..]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("SOCKLENS_HOST", host.to_string());
        let reads = self.arguments.input == Some(host);
        if !reads {
            command.stdin(Stdio::null());
        }
        // A terminal stops a process that reads from it and is not in the group in the foreground.
        if !reads || !io::stdin().is_terminal() {
            command.process_group(0);
        }
        let (own, theirs) = UnixStream::pair()?;
        let (sender, result) = channel();
        let (filter, bell) = (calls::filter(), self.bell.copy()?);
        let descriptors = self.arguments.max_descriptors;
        self.lab.run(host, move || {
            let _ = sender.send(trace::start(command, theirs, filter, descriptors));
            bell.ring();
        })?;
        let mut process = [0; 4];
        own.set_read_timeout(Some(START))?;
        self.started.push(Started { host, result, runs: false });
        if (&own).read_exact(&mut process).is_err() {
            // The process was not created, and the result says why.
            return Ok(());
        }
        self.tracer.add(host, i32::from_ne_bytes(process), &wanted.text)?;
        (&own).write_all(b"g")
    }

    /// Notices programs that run, and those that could not be started.
    fn check_started(&mut self) {
        for started in self.started.iter_mut().filter(|started| !started.runs) {
            let problem = match started.result.try_recv() {
                Ok(Ok(mut child)) => {
                    let hub = &self.lab.hub;
                    let pipes: [Option<Box<dyn Read + Send>>; 2] = [
                        child.stdout.take().map(|pipe| Box::new(pipe) as _),
                        child.stderr.take().map(|pipe| Box::new(pipe) as _),
                    ];
                    self.readers.extend(
                        pipes
                            .into_iter()
                            .flatten()
                            .filter_map(|pipe| read_printed(hub, started.host, pipe).ok()),
                    );
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Disconnected) => Some("the thread that starts it has ended".to_owned()),
            };
            started.runs = true;
            self.tracer.is_started(started.host, problem.is_none());
            if let Some(problem) = problem {
                let command = self.arguments.commands[started.host.index()].as_ref();
                let command = command.map(|command| command.words[0].as_str()).unwrap_or_default();
                let problem = format!("cannot be started: {problem}");
                self.tracer.note(format!("{}: {command} {problem}", started.host));
                self.problems[started.host.index()] = Some(problem);
            }
        }
    }

    fn obey(&mut self, wish: Wish) {
        match wish {
            Wish::Step => self.tracer.release_one(),
            Wish::Run => self.tracer.release_all(),
            Wish::Pause => self.tracer.is_holding = true,
            Wish::Quit => self.end(Signal::TERM),
        }
    }

    /// Ctrl-C: the programs get the signal that they would have got without the tool.
    fn interrupt(&mut self) {
        match self.phase {
            Phase::Running | Phase::Quieting { .. } => self.end(Signal::INT),
            Phase::Ending { .. } => self.kill(),
            Phase::Killed { .. } => {}
        }
    }

    /// Asks the programs to end.
    fn end(&mut self, signal: Signal) {
        self.tracer.release_all();
        for host in HostName::BOTH {
            if !self.has_ended(host) {
                self.was_ended[host.index()] = true;
            }
        }
        for process in self.tracer.processes() {
            if let Some(process) = Pid::from_raw(process) {
                let _ = kill_process(process, signal);
            }
        }
        self.phase = Phase::Ending { since: Instant::now() };
    }

    fn kill(&mut self) {
        self.tracer.release_all();
        self.tracer.is_killing = true;
        for process in self.tracer.processes() {
            if let Some(process) = Pid::from_raw(process) {
                let _ = kill_process_group(process, Signal::KILL);
                let _ = kill_process(process, Signal::KILL);
            }
        }
        self.phase = Phase::Killed { since: Instant::now() };
    }

    fn check_limits(&mut self) {
        if matches!(self.phase, Phase::Killed { .. }) {
            return;
        }
        let (bytes, position) = &mut self.recorded;
        {
            let state = self.lab.hub.lock();
            let new = &state.events[*position..];
            *bytes += new.iter().map(|event| size(&event.kind)).sum::<usize>();
            // A server that waits with a short timeout makes calls for ever.
            if new
                .iter()
                .any(|event| !matches!(event.kind, EventKind::Call { .. } | EventKind::Return { .. }))
            {
                self.changed = Instant::now();
            }
            *position = state.events.len();
        }
        let reason = if *bytes > self.arguments.max_recording {
            format!("the recording has reached its limit of {} bytes", self.arguments.max_recording)
        } else if self.tracer.has_too_many_threads() {
            "the programs have too many threads".to_owned()
        } else if self.has_too_much_memory() {
            format!("the programs have more than {} of memory", shown(self.arguments.max_memory))
        } else {
            return;
        };
        self.tracer.note(format!("{reason}, and the programs were killed"));
        let problem = format!("was killed: {reason}");
        self.problems = [Some(problem.clone()), Some(problem)];
        self.kill();
    }

    fn has_too_much_memory(&mut self) -> bool {
        /// At most this part of the time is used for it.
        const PART: u32 = 20;
        let (last, took) = self.measured;
        let begin = Instant::now();
        if begin - last < TICK.max(took * PART) {
            return false;
        }
        let limit = self.arguments.max_memory;
        let is_too_much = self.tracer.memory(limit) > limit;
        self.measured = (begin, begin.elapsed());
        is_too_much
    }

    /// Ends B after A, and the rest after both. Returns whether nothing is left.
    fn advance(&mut self) -> bool {
        let all_ended = HostName::BOTH.into_iter().all(|host| self.has_ended(host));
        let is_over = self.tracer.processes().is_empty()
            && (all_ended || !matches!(self.phase, Phase::Running | Phase::Quieting { .. }));
        if is_over && self.started.iter().all(|started| started.runs) {
            return true;
        }
        match self.phase {
            Phase::Running if all_ended => self.phase = Phase::Quieting { since: Instant::now() },
            Phase::Running
                if self.has(HostName::A) && self.has_ended(HostName::A) && !self.arguments.stays =>
            {
                self.phase = Phase::Quieting { since: Instant::now() };
            }
            // The user goes on with what is held.
            Phase::Quieting { .. }
                if self.tracer.held_calls() > 0 || self.lab.hub.lock().held().next().is_some() =>
            {
                self.phase = Phase::Quieting { since: Instant::now() };
            }
            Phase::Quieting { since } => {
                let quiet = self.changed.elapsed().min(since.elapsed());
                if quiet > QUIET || since.elapsed() > NOT_QUIET {
                    self.end(Signal::TERM);
                }
            }
            Phase::Ending { since } if since.elapsed() > GRACE => self.kill(),
            // A process in an uninterruptible call ends with this one at the latest.
            Phase::Killed { since } if since.elapsed() > KILLED => return true,
            _ => {}
        }
        false
    }
}

/// About how many bytes of a recording an event takes.
fn size(kind: &EventKind) -> usize {
    const FIXED: usize = 150;
    FIXED
        + match kind {
            EventKind::Packet { bytes, .. } => bytes.len() * 4 / 3 + 100,
            EventKind::Call { args, .. } => args.len(),
            EventKind::Return { value, .. } => value.len(),
            EventKind::Note(text) => text.len(),
            EventKind::Kernel { info, .. } | EventKind::Died { info, .. } => 100 + info.len() * 20,
            _ => 100,
        }
}

/// Records what a program prints, line by line.
fn read_printed(hub: &Arc<Hub>, host: HostName, pipe: Box<dyn Read + Send>) -> io::Result<JoinHandle<()>> {
    let hub = hub.clone();
    let is_shown = |c| c != '\t' && !is_invisible(c);
    thread::Builder::new().name("printed".to_owned()).spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!((&mut pipe).take(PRINTED).read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line);
            let text: String = text.trim_end().chars().map(|c| if is_shown(c) { c } else { ' ' }).collect();
            if !text.is_empty() {
                hub.with(|state| state.put(EventKind::Note(format!("{host} printed: {text}"))));
            }
            line.clear();
        }
    })
}

/// Reads commands from the standard input: those of a lesson.
fn read_commands(hub: &Arc<Hub>, bell: &Bell, commands: Commands) -> io::Result<Receiver<Wish>> {
    let (sender, wishes): (Sender<Wish>, _) = channel();
    let (hub, bell) = (hub.clone(), bell.copy()?);
    thread::Builder::new().name("commands".to_owned()).spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            let wish = command(&hub, line.trim());
            if let Some(wish) = wish {
                // Packets can be decided about also after the programs have ended.
                let _ = sender.send(wish);
                bell.ring();
            }
        }
        if let Commands::OfServer(end) = commands {
            end();
        }
        // Nothing can be let go any more, so nothing is kept.
        hub.with(|state| state.set_policy(Policy::Pass));
        let _ = sender.send(Wish::Run);
        bell.ring();
    })?;
    Ok(wishes)
}

/// Does what a command about packets says, or returns what it wants of the calls.
fn command(hub: &Hub, line: &str) -> Option<Wish> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let decide = |fate| {
        hub.with(|state| {
            let first = state.held().next().map(|kept| kept.id);
            let id = if rest.is_empty() { first } else { rest.trim().parse().ok() };
            if !id.is_some_and(|id| state.decide_by_hand(id, fate)) {
                state.put(EventKind::Note("the wire holds no such packet".to_owned()));
            }
        });
        None
    };
    match word {
        "" | "step" => Some(Wish::Step),
        "run" => Some(Wish::Run),
        "pause" => Some(Wish::Pause),
        "quit" => Some(Wish::Quit),
        "deliver" => decide(Fate::Delivered),
        "drop" => decide(Fate::Dropped),
        "duplicate" => decide(Fate::Duplicated),
        "hold" | "pass" => {
            let policy = if word == "hold" { Policy::Hold } else { Policy::Pass };
            hub.with(|state| state.set_policy(policy));
            None
        }
        other => {
            let text = format!(
                "there is no command {other:?}: step (or Enter), run, pause, quit, hold, pass, deliver, drop, duplicate"
            );
            hub.with(|state| state.put(EventKind::Note(text)));
            None
        }
    }
}
