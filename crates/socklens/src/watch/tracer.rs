//! Follows the programs: one thread is the tracer of all their processes and threads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::event::{EventKind, HostName};
use crate::hub::Hub;
use crate::scenario::parse::is_invisible;
use crate::sys::calls::{self, Call};
use crate::sys::trace::{self, CallInfo, Register, Report, Until};
use crate::watch::decode::{Decoder, Described};
use crate::watch::memory;
use crate::watch::sockets::{Process, Sockets};

/// Threads of all programs together.
const THREADS: usize = 512;
/// The kernel's own numbers of results: the call is made again, unless a handler of the signal runs.
const RESTARTS: [i64; 4] = [-512, -513, -514, -516];
/// EINTR. A program without a tracer is not woken by a signal that is ignored by default, so at the
/// exit of a call this becomes the result with which the kernel makes the call again, and which a
/// handler changes into EINTR.
const INTERRUPTED: i64 = -4;
/// Reports that are handled before the tracer looks at its other tasks.
const AT_ONCE: usize = 200;
/// How long a new thread waits for the report of the thread that has started it.
const ORPHANED: Duration = Duration::from_secs(1);

/// Which calls are kept at their entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) host: Option<HostName>,
    /// A name of a call, or `all`.
    pub(crate) call: String,
}

impl Hold {
    /// Whether a call is meant: by its name, by that of a family such as `accept` for accept4(2), or
    /// by the name that is shown.
    fn matches(&self, host: HostName, call: Call, function: &str) -> bool {
        let family = match call.name() {
            "ppoll" => "poll",
            "pselect6" => "select",
            "epoll_pwait" | "epoll_pwait2" => "epoll_wait",
            name if name.starts_with("accept") => "accept",
            name if name.starts_with("dup") => "dup",
            name if name.starts_with("recv") => "recv",
            name if name.starts_with("send") => "send",
            name => name,
        };
        self.host.is_none_or(|wanted| wanted == host)
            && [call.name(), function, family, "all"].contains(&self.call.as_str())
    }
}

/// A call that has begun.
#[derive(Debug)]
struct Open {
    /// `None` if it is not recorded yet, because it only asks, or is not shown.
    id: Option<u64>,
    call: Call,
    args: [u64; 6],
    described: Described,
    begin: Instant,
    /// A signal has interrupted it with this result, and the kernel perhaps begins it again.
    interrupted: Option<i64>,
    is_shown: bool,
    /// Whether its timeout was replaced by what was left of it.
    has_less_time: bool,
}

impl Open {
    /// The milliseconds that an epoll_wait(2) has left. `None` if it has no limit.
    fn left(&self) -> Option<u64> {
        let limit = u64::from(u32::try_from(self.args[3] as i32).ok()?);
        let is_limited = self.call.is_epoll_wait() && self.call != Call::EpollPwait2;
        is_limited.then(|| limit.saturating_sub(self.begin.elapsed().as_millis() as u64))
    }
}

#[derive(Debug)]
struct Thread {
    host: HostName,
    process: i32,
    open: Option<Open>,
    is_held: bool,
}

/// The main process of an actor.
#[derive(Debug)]
struct Program {
    command: String,
    process: i32,
    /// Whether the program has not begun to run.
    is_starting: bool,
    /// Its exit status, or the number of the signal that has ended it.
    end: Option<Result<i32, i32>>,
}

#[derive(Debug)]
pub(crate) struct Tracer<'a> {
    hub: &'a Hub,
    sockets: Sockets,
    threads: HashMap<i32, Thread>,
    /// New threads whose host is not known yet: when they have stopped, and with which report.
    early: HashMap<i32, (Instant, Report)>,
    /// Threads that have reported before the report of the thread that has started them. They are not
    /// followed again after their end.
    seen: HashSet<i32>,
    last_ended: HostName,
    programs: [Option<Program>; 2],
    holds: Vec<Hold>,
    pub(crate) is_holding: bool,
    held: Vec<i32>,
    /// Whether the programs were killed, and what they start is killed as well.
    pub(crate) is_killing: bool,
    /// Processes whose command was recorded.
    announced: HashSet<i32>,
    with_io_uring: HashSet<i32>,
}

/// How a program has ended.
pub(crate) fn ending(end: Result<i32, i32>) -> String {
    match end {
        Ok(status) => format!("has ended with exit status {status}"),
        Err(signal) => format!("was ended by {}", signal_name(signal)),
    }
}

/// The end of the call of a thread that has ended in it.
fn cut_off(thread: &Thread) -> Option<EventKind> {
    let open = thread.open.as_ref()?;
    let value = "the thread has ended".to_owned();
    Some(EventKind::Return { id: open.id?, value, errno: None, took: open.begin.elapsed() })
}

fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// The process of a thread, and the process that has started this one.
fn processes_of(thread: i32) -> Option<(i32, i32)> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let number = |key| status.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok();
    Some((number("Tgid:")?, number("PPid:")?))
}

/// Whether a process has a handler of a signal.
fn has_handler(thread: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let handled = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let handled = handled.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    handled.is_some_and(|handled| handled >> (signal - 1) & 1 == 1)
}

fn command_of(process: i32) -> String {
    const SHOWN: usize = 100;
    let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let words: Vec<_> = command.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    let text = String::from_utf8_lossy(&words.join(&b' ')).replace(is_invisible, " ").replace('\t', " ");
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

impl<'a> Tracer<'a> {
    pub(crate) fn new(hub: &'a Hub, sockets: Sockets, holds: Vec<Hold>) -> Tracer<'a> {
        Tracer {
            hub,
            sockets,
            threads: HashMap::new(),
            early: HashMap::new(),
            seen: HashSet::new(),
            last_ended: HostName::A,
            programs: [None, None],
            is_holding: !holds.is_empty(),
            holds,
            held: Vec::new(),
            is_killing: false,
            announced: HashSet::new(),
            with_io_uring: HashSet::new(),
        }
    }

    /// The program of a host runs, or cannot be run and its process has ended.
    pub(crate) fn is_started(&mut self, host: HostName, runs: bool) {
        if let Some(program) = &mut self.programs[host.index()] {
            program.is_starting = false;
            if !runs {
                self.threads.remove(&program.process);
                self.programs[host.index()] = None;
            }
        }
    }

    pub(crate) fn note(&self, text: String) {
        self.hub.with(|state| state.put(EventKind::Note(text)));
    }

    /// Begins to trace a process before it runs its program.
    pub(crate) fn add(&mut self, host: HostName, process: i32, command: &str) -> io::Result<()> {
        trace::seize(process)?;
        self.threads.insert(process, Thread { host, process, open: None, is_held: false });
        let command = command.to_owned();
        self.programs[host.index()] = Some(Program { command, process, is_starting: true, end: None });
        Ok(())
    }

    /// Handles the reports that are there, but not so many that nothing else can be done. Returns
    /// whether there may be more.
    pub(crate) fn handle_reports(&mut self) -> io::Result<bool> {
        let starting = self.programs.iter().flatten().filter(|program| program.is_starting);
        let starting: Vec<_> = starting.map(|program| program.process).collect();
        let mut count = 0;
        while count < AT_ONCE {
            let Some((thread, report)) = trace::next_report(&starting)? else { break };
            self.handle(thread, report);
            count += 1;
        }
        // The threads that have started these were killed before they could report it.
        let is_orphan = |(_, (since, _)): &(&i32, &(Instant, Report))| since.elapsed() > ORPHANED;
        let orphans: Vec<_> = self.early.iter().filter(is_orphan).map(|(thread, _)| *thread).collect();
        for thread in orphans {
            self.adopt(self.last_ended, thread);
        }
        Ok(count == AT_ONCE)
    }

    fn handle(&mut self, thread: i32, report: Report) {
        if self.try_to_handle(thread, report).is_err() {
            // A thread that was killed meanwhile cannot run on; its end is reported next.
            let _ = trace::resume(thread, Until::Entry, 0);
        }
    }

    fn try_to_handle(&mut self, thread: i32, report: Report) -> io::Result<()> {
        if !self.threads.contains_key(&thread) {
            self.handle_new(thread, report);
            return Ok(());
        }
        match report {
            Report::Exited(status) => self.ended(thread, Ok(status)),
            Report::Killed(signal) => self.ended(thread, Err(signal)),
            Report::Entry => return self.entry(thread),
            Report::Exit => return self.exit(thread),
            Report::Started(child) => {
                let host = self.threads[&thread].host;
                trace::resume(thread, Until::Entry, 0)?;
                if !self.seen.remove(&child) || self.early.contains_key(&child) {
                    self.adopt(host, child);
                }
            }
            Report::Executed(before) => {
                self.executed(thread, before);
                trace::resume(thread, Until::Entry, 0)?;
            }
            Report::Stopped => {
                self.stopped(thread)?;
                trace::stay_stopped(thread)?;
            }
            Report::Signal(signal) => {
                self.signal(thread, signal);
                trace::resume(thread, Until::Entry, signal)?;
            }
            Report::Other => trace::resume(thread, Until::Entry, 0)?,
        }
        Ok(())
    }

    /// A thread has stopped before the report of the thread that has started it.
    fn handle_new(&mut self, thread: i32, report: Report) {
        self.seen.insert(thread);
        if matches!(report, Report::Exited(_) | Report::Killed(_)) {
            self.early.remove(&thread);
            return;
        }
        self.early.insert(thread, (Instant::now(), report));
        let relatives = processes_of(thread);
        let relatives = relatives.iter().flat_map(|(own, parent)| [own, parent]);
        let host = relatives.filter_map(|process| self.threads.get(process)).map(|known| known.host).next();
        if let Some(host) = host {
            self.adopt(host, thread);
        }
    }

    /// Follows a process or thread that a thread of a host has started.
    fn adopt(&mut self, host: HostName, thread: i32) {
        let process = processes_of(thread).map_or(thread, |(process, _)| process);
        self.threads.entry(thread).or_insert(Thread { host, process, open: None, is_held: false });
        if let Some(process) = Pid::from_raw(process).filter(|_| self.is_killing) {
            let _ = kill_process(process, Signal::KILL);
        }
        if let Some((_, report)) = self.early.remove(&thread) {
            self.handle(thread, report);
        }
    }

    fn ended(&mut self, thread: i32, end: Result<i32, i32>) {
        let Some(gone) = self.threads.remove(&thread) else { return };
        self.held.retain(|held| *held != thread);
        self.announced.remove(&thread);
        let program = self.programs[gone.host.index()].as_mut();
        let program = program.filter(|program| program.process == thread && program.end.is_none());
        let text = program.map(|program| {
            program.end = Some(end);
            format!("{}: {} {}", gone.host, program.command, ending(end))
        });
        self.hub.with(|state| {
            if let Some(end) = cut_off(&gone) {
                state.put(end);
            }
            state.observe_both();
            if let Some(text) = text {
                state.put(EventKind::Note(text));
            }
        });
        self.last_ended = gone.host;
    }

    /// All threads of the process but one have ended, and that one has the identity of the process.
    fn executed(&mut self, process: i32, before: i32) {
        if before != process {
            if let Some(thread) = self.threads.remove(&before) {
                // The end of the first thread is not reported.
                let first = self.threads.insert(process, Thread { process, ..thread });
                self.held.retain(|held| *held != process);
                if let Some(end) = first.as_ref().and_then(cut_off) {
                    self.hub.with(|state| state.put(end));
                }
            }
        }
        self.announced.remove(&process);
    }

    /// After a stop the kernel does not begin every call again.
    fn stopped(&mut self, thread: i32) -> io::Result<()> {
        let open = self.threads.get(&thread).and_then(|caller| caller.open.as_ref());
        if open.is_some_and(|open| open.interrupted == Some(INTERRUPTED)) {
            trace::set_register(thread, Register::Result, INTERRUPTED as u64)?;
            self.end_interrupted(thread);
        }
        Ok(())
    }

    fn signal(&mut self, thread: i32, signal: i32) {
        let open = self.threads.get(&thread).and_then(|caller| caller.open.as_ref());
        let result = open.and_then(|open| open.interrupted);
        // With a handler of the signal, the kernel does not begin these calls again.
        if result.is_some_and(|result| [INTERRUPTED, -514, -516].contains(&result))
            && has_handler(thread, signal)
        {
            self.end_interrupted(thread);
        }
        let Some(receiver) = self.threads.get(&thread) else { return };
        // The runtimes of some languages use these all the time.
        const QUIET: [i32; 3] = [17, 23, 28];
        if QUIET.contains(&signal) || signal >= 32 {
            return;
        }
        let text =
            format!("{}: process {} receives {}", receiver.host, receiver.process, signal_name(signal));
        self.note(text);
    }

    fn decoder(&mut self, thread: i32) -> Option<Decoder<'_>> {
        let caller = self.threads.get(&thread)?;
        let process = Process { host: caller.host, id: caller.process, thread };
        Some(Decoder { hub: self.hub, sockets: &mut self.sockets, process })
    }

    fn entry(&mut self, thread: i32) -> io::Result<()> {
        let CallInfo::Entry { number, args } = trace::call_info(thread)? else {
            return trace::resume(thread, Until::Entry, 0);
        };
        let Some(call) = Call::of_number(number) else {
            calls::keep_traced(thread, number, &args);
            return trace::resume(thread, Until::Entry, 0);
        };
        let Some(caller) = self.threads.get_mut(&thread) else { return Ok(()) };
        let (host, process) = (caller.host, caller.process);
        if let Some(open) = caller.open.as_mut().filter(|open| open.interrupted.is_some()) {
            if call == Call::Restart || (call == open.call && args == open.args) {
                let is_again = open.interrupted.take() == Some(INTERRUPTED);
                if let Some(left) = open.left().filter(|_| is_again) {
                    trace::set_register(thread, Register::FourthArgument, left)?;
                    open.has_less_time = true;
                }
                return trace::resume(thread, Until::Exit, 0);
            }
        }
        if call == Call::IoUring && self.with_io_uring.insert(process) {
            self.note(format!("{host}: process {process} uses io_uring, whose calls are not seen"));
        }
        let described = self.decoder(thread).and_then(|mut decoder| decoder.entry(call, &args));
        // An epoll_wait without sockets that are shown must not see a signal either.
        let is_shown = described.is_some();
        let Some(described) = described.or_else(|| call.is_epoll_wait().then(Described::default)) else {
            return trace::resume(thread, Until::Entry, 0);
        };
        if is_shown {
            self.end_interrupted(thread);
        } else if self.threads.get(&thread).is_some_and(|caller| caller.open.is_some()) {
            // A handler makes it, and perhaps the call that it has interrupted is made again.
            return trace::resume(thread, Until::Entry, 0);
        }
        let is_held = is_shown
            && !described.is_probe
            && self.is_holding
            && self.holds.iter().any(|hold| hold.matches(host, call, described.function));
        let id = (is_shown && !described.is_probe).then(|| self.begin(thread, &described, is_held));
        let open = Open {
            id,
            call,
            args,
            described,
            begin: Instant::now(),
            interrupted: None,
            is_shown,
            has_less_time: false,
        };
        let Some(caller) = self.threads.get_mut(&thread) else { return Ok(()) };
        caller.open = Some(open);
        caller.is_held = is_held;
        match id {
            Some(_) if is_held => {
                self.held.push(thread);
                Ok(())
            }
            _ => trace::resume(thread, Until::Exit, 0),
        }
    }

    /// Records the beginning of a call, and which program makes it if that is not known yet.
    fn begin(&mut self, thread: i32, described: &Described, is_held: bool) -> u64 {
        let caller = &self.threads[&thread];
        let (host, process) = (caller.host, caller.process);
        let is_new = self.announced.insert(process);
        self.hub.with(|state| {
            if is_new {
                state.put(EventKind::Note(format!("{host}: process {process} is {}", command_of(process))));
            }
            let call = (&*described.object, described.function, &*described.args);
            let id = state.begin_foreign(host, thread, call);
            if is_held {
                state.put(EventKind::Held { id });
            }
            id
        })
    }

    /// A call that a signal has interrupted, and that the kernel did not begin again.
    fn end_interrupted(&mut self, thread: i32) {
        let open = self.threads.get_mut(&thread).and_then(|caller| caller.open.take());
        if let Some((id, open)) = open.and_then(|open| Some((open.id?, open))) {
            let (value, errno) = ("-1 EINTR".to_owned(), Some("EINTR".to_owned()));
            let took = open.begin.elapsed();
            self.hub.with(|state| state.put(EventKind::Return { id, value, errno, took }));
        }
    }

    fn exit(&mut self, thread: i32) -> io::Result<()> {
        let info = trace::call_info(thread)?;
        let open = self.threads.get_mut(&thread).and_then(|caller| caller.open.take());
        let (CallInfo::Exit(result), Some(mut open)) = (info, open) else {
            return trace::resume(thread, Until::Entry, 0);
        };
        if open.has_less_time {
            trace::set_register(thread, Register::FourthArgument, open.args[3])?;
            open.has_less_time = false;
        }
        let is_again = result == INTERRUPTED && open.call != Call::Close;
        if is_again {
            trace::set_register(thread, Register::Result, RESTARTS[2] as u64)?;
        }
        if is_again || RESTARTS.contains(&result) {
            open.interrupted = Some(result);
            if let Some(caller) = self.threads.get_mut(&thread) {
                caller.open = Some(open);
            }
            return trace::resume(thread, Until::Entry, 0);
        }
        let took = open.begin.elapsed();
        if open.id.is_some() || (open.is_shown && result > 0) {
            let (value, errno) = if result < 0 {
                let number = i32::try_from(-result).unwrap_or_default();
                let name = sock::errno_name(number);
                let name = name.map_or_else(|| format!("error {number}"), str::to_owned);
                (format!("-1 {name}"), Some(name))
            } else {
                let decoder = self.decoder(thread);
                let value = decoder.map(|mut decoder| decoder.exit(open.call, &open.args, result));
                let mut value = value.unwrap_or_default();
                if open.call == Call::Close {
                    if let Some(process) = self.still_open(thread, &open.described.object) {
                        value += &format!(", still open in process {process}");
                    }
                }
                (value, None)
            };
            let id = open.id.unwrap_or_else(|| self.begin(thread, &open.described, false));
            self.hub.with(|state| {
                state.put(EventKind::Return { id, value, errno, took });
                if !open.call.only_asks() {
                    state.observe_both();
                }
            });
        }
        trace::resume(thread, Until::Entry, 0)
    }

    /// Returns a process of the same host that has a descriptor of a socket.
    fn still_open(&self, thread: i32, name: &str) -> Option<i32> {
        let host = self.threads.get(&thread)?.host;
        let inode = self.sockets.inode_of(name)?;
        let known = self.threads.values().filter(|known| known.host == host);
        let processes: BTreeSet<i32> = known.map(|known| known.process).collect();
        let has_open = |id: &i32| Process { host, id: *id, thread: *id }.has_open(inode);
        processes.into_iter().find(has_open)
    }

    /// Lets the call go that was kept first.
    pub(crate) fn release_one(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let thread = self.held.remove(0);
        let Some(caller) = self.threads.get_mut(&thread).filter(|caller| caller.is_held) else { return };
        caller.is_held = false;
        let id = caller.open.as_mut().and_then(|open| {
            open.begin = Instant::now();
            open.id
        });
        if let Some(id) = id {
            self.hub.with(|state| state.put(EventKind::Released { id }));
        }
        let _ = trace::resume(thread, Until::Exit, 0);
    }

    /// Lets every call go.
    pub(crate) fn release_all(&mut self) {
        self.is_holding = false;
        while !self.held.is_empty() {
            self.release_one();
        }
    }

    /// How many calls are kept.
    pub(crate) fn held_calls(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn has_too_many_threads(&self) -> bool {
        self.threads.len() > THREADS
    }

    /// Bytes of memory of all programs, without those of files. If they seem to be more than `limit`,
    /// what processes share is counted once.
    pub(crate) fn memory(&self, limit: u64) -> u64 {
        let mut processes = HashMap::<i32, Vec<i32>>::new();
        for (number, thread) in &self.threads {
            processes.entry(thread.process).or_default().push(*number);
        }
        let sum = |count: fn(&[i32]) -> u64| processes.values().map(|threads| count(threads)).sum();
        match sum(memory::of_process) {
            bytes if bytes > limit => sum(memory::share_of_process),
            bytes => bytes,
        }
    }

    pub(crate) fn end_of(&self, host: HostName) -> Option<Result<i32, i32>> {
        self.programs[host.index()].as_ref().and_then(|program| program.end)
    }

    /// Whether processes of a host run, or perhaps do.
    pub(crate) fn runs(&self, host: HostName) -> bool {
        !self.early.is_empty() || self.threads.values().any(|thread| thread.host == host)
    }

    /// The processes that run, without their threads.
    pub(crate) fn processes(&self) -> HashSet<i32> {
        self.threads.values().map(|thread| thread.process).chain(self.early.keys().copied()).collect()
    }
}
