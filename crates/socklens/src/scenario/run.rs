//! Runs a scenario on a lab.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::call::{CallError, Context, perform};
use crate::event::{Event, EventKind, Fate, HostName};
use crate::hint;
use crate::hub::{Hub, Made, Outcome, Policy};
use crate::lab::{Lab, Tier, linux_version};
use crate::scenario::condition::check;
use crate::scenario::line::{Line, Operator, Statement, Wanted, WireLine};
use crate::scenario::parse::Scenario;
use crate::text::Printer;
use crate::value::Value;

/// How long a scenario may wait.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Limit of a call without one of its own.
    pub call_limit: Duration,
    /// Limit of an expectation without one of its own.
    pub expect_limit: Duration,
    /// How long a call that is expected to block is observed.
    pub block_time: Duration,
    /// Whether the lines after a failure run too, as in a lesson that a user can change.
    pub(crate) goes_on: bool,
}

impl Default for Options {
    /// 5 seconds for a call, 1 second for an expectation, 0.2 seconds for a call that blocks.
    fn default() -> Options {
        Options {
            call_limit: Duration::from_secs(5),
            expect_limit: Duration::from_secs(1),
            block_time: Duration::from_millis(200),
            goes_on: false,
        }
    }
}

/// A line that did not do what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The number of the line.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What was seen instead.
    pub seen: String,
}

/// What a run has found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// How many lines with an expectation were true: `expect`, and calls with `->`.
    pub passed: usize,
    /// Lines that were not.
    pub failures: Vec<Failure>,
    /// How many lines did not run because a call before them failed.
    pub skipped: usize,
    /// Why the scenario could not run here.
    pub not_run: Option<String>,
    /// Packets that the tool itself lost.
    pub lost: u64,
    /// Everything that was recorded.
    pub events: Vec<Event>,
    /// How long it took.
    pub took: Duration,
}

/// A call that has not returned yet.
struct Pending {
    id: u64,
    object: String,
}

/// What a line has shown: the text behind it, and whether it counts as an expectation.
struct Shown {
    text: String,
    counts: bool,
}

/// Why a line failed, and whether the lines after it can run.
struct Broken {
    seen: String,
    is_fatal: bool,
}

struct Runner<'a> {
    lab: &'a Lab,
    hub: &'a Arc<Hub>,
    options: Options,
    pending: Vec<Pending>,
}

/// Runs a scenario and writes each line with its consequences to `output`.
///
/// # Errors
///
/// Returns an error if the output cannot be written.
pub fn run(scenario: &Scenario, lab: &Lab, options: Options, output: &mut dyn Write) -> io::Result<Report> {
    run_paced(scenario, lab, options, output, &mut |_| true)
}

/// Runs a scenario. `may_run` is called before each line, and ends the run if it returns false.
pub(crate) fn run_paced(
    scenario: &Scenario,
    lab: &Lab,
    options: Options,
    output: &mut dyn Write,
    may_run: &mut dyn FnMut(&Line) -> bool,
) -> io::Result<Report> {
    let mut report = Report { not_run: cannot_run(scenario, lab), ..Report::default() };
    if report.not_run.is_some() {
        return Ok(report);
    }
    let begin = Instant::now();
    let mut runner = Runner { lab, hub: &lab.hub, options, pending: Vec::new() };
    let mut printer = Printer::default();
    let mut lines = scenario.lines.iter();
    for line in lines.by_ref() {
        let Some(statement) = &line.statement else {
            if let Some(comment) = &line.comment {
                printer.comment(output, comment)?;
            }
            continue;
        };
        if !may_run(line) {
            break;
        }
        lab.hub.lock().put(EventKind::Line { line: line.number });
        let result = runner.line(line, statement);
        if !matches!(statement, Statement::NeedsWire | Statement::NeedsLinux(..) | Statement::Host) {
            lab.hub.settle();
        }
        let result = match lab.hub.lock().failure() {
            Some(failure) => Err(Broken { seen: failure.to_owned(), is_fatal: true }),
            None => result,
        };
        if let Statement::Expect(_) = statement {
            let (ok, seen) = match &result {
                Ok(shown) => (true, shown.text.clone()),
                Err(broken) => (false, broken.seen.clone()),
            };
            let text = line.text.clone();
            lab.hub.with(|state| state.put(EventKind::Expect { line: line.number, ok, text, seen }));
        }
        let (text, counts) = match &result {
            Ok(shown) => (shown.text.clone(), shown.counts),
            Err(broken) => (format!("FAILED: {}", broken.seen), false),
        };
        let (ok, done) = (result.is_ok(), text.clone());
        lab.hub.lock().put(EventKind::Done { line: line.number, ok, text: done });
        printer.statement(output, (line.number, &line.text, line.comment.as_deref()), &text)?;
        let is_decision = matches!(statement, Statement::Wire(WireLine::Decide(..)));
        printer.events(output, &lab.hub.lock(), is_decision)?;
        output.flush()?;
        report.passed += usize::from(counts);
        if let Err(broken) = result {
            report.failures.push(Failure { line: line.number, text: line.text.clone(), seen: broken.seen });
            if broken.is_fatal && !options.goes_on {
                break;
            }
        }
    }
    report.skipped = lines.filter(|line| line.statement.is_some()).count();
    report.took = begin.elapsed();
    let state = lab.hub.lock();
    report.lost = state.lost;
    report.events = state.events.clone();
    Ok(report)
}

/// Returns the reason if a scenario needs what the lab or the system does not have.
fn cannot_run(scenario: &Scenario, lab: &Lab) -> Option<String> {
    let (version, release) = linux_version();
    let statements = scenario.lines.iter().filter_map(|line| line.statement.as_ref());
    let is_loopback = lab.tier() == Tier::Loopback;
    for statement in statements {
        match statement {
            Statement::NeedsWire if is_loopback => {
                return Some(match lab.reasons() {
                    [] => "it needs a wire, and the tier loopback has none".to_owned(),
                    reasons => format!("it needs a wire, and there is {}", reasons.join("; ")),
                });
            }
            Statement::Sysctl { .. } if is_loopback => {
                return Some(
                    "it sets parameters of the kernel, which must not change this system".to_owned(),
                );
            }
            Statement::Wire(_) if is_loopback => {
                return Some("it decides what becomes of packets, and there is no wire".to_owned());
            }
            Statement::NeedsLinux(major, minor) if version < (*major, *minor) => {
                return Some(format!("it needs Linux {major}.{minor}, and this is {release}"));
            }
            _ => {}
        }
    }
    None
}

fn failed<T>(seen: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { seen: seen.into(), is_fatal: true })
}

fn shown(text: impl Into<String>) -> Result<Shown, Broken> {
    Ok(Shown { text: text.into(), counts: false })
}

impl Runner<'_> {
    fn line(&mut self, line: &Line, statement: &Statement) -> Result<Shown, Broken> {
        match statement {
            Statement::NeedsWire | Statement::NeedsLinux(..) | Statement::Host => shown("ok"),
            Statement::Call { .. } => self.call(line, statement),
            Statement::Join { object, wanted } => {
                let place = self.pending.iter().position(|pending| pending.object == *object);
                let Some(place) = place else { return failed(format!("no call on {object} is pending")) };
                let pending = self.pending.remove(place);
                self.finish(line, pending, wanted)
            }
            Statement::Expect(conditions) => {
                let mut seen = String::new();
                let limit = line.limit.unwrap_or(self.options.expect_limit);
                let ok = self.hub.wait_for(limit, |state| {
                    state.observe_both();
                    let (ok, what) = check(state, conditions);
                    seen = what;
                    ok.then_some(())
                });
                match ok {
                    Some(()) => Ok(Shown { text: format!("ok ({seen})"), counts: true }),
                    None => Err(Broken {
                        seen: format!("{seen}, after {:.1} s", limit.as_secs_f64()),
                        is_fatal: false,
                    }),
                }
            }
            Statement::Wire(WireLine::Policy(policy)) => {
                self.hub.with(|state| state.set_policy(*policy));
                shown("ok")
            }
            Statement::Wire(WireLine::Decide(fate, select)) => {
                // While the wire passes packets there is no packet to wait for.
                let passes = self.hub.with(|state| {
                    let passes = state.policy == Policy::Pass && state.kept.is_empty();
                    if passes && *fate != Fate::Delivered {
                        state.arm(select.clone(), *fate);
                    }
                    passes
                });
                if passes && *fate == Fate::Delivered {
                    return failed(
                        "the wire passes every packet; wire hold before it keeps them".to_owned(),
                    );
                }
                if passes {
                    return shown("the next one");
                }
                // The kernel sends a lost packet again after a second at the latest.
                let limit = line.limit.unwrap_or(Duration::from_secs(3));
                // A new packet comes first, also if the kernel has sent a delivered one again meanwhile.
                let begin = Instant::now();
                let grace = REPEATED_AFTER.min(limit / 2);
                let decided = self.hub.wait_for(limit, |state| {
                    state
                        .decided_by_hand(select, *fate)
                        .or_else(|| state.decide(select, *fate, begin.elapsed() >= grace))
                });
                match decided {
                    Some(text) => shown(text),
                    None => {
                        let state = self.hub.lock();
                        let held = state.held().map(|kept| {
                            let text =
                                kept.packet.as_ref().map_or("a packet".to_owned(), ToString::to_string);
                            format!("{} > {} {text}", kept.from, kept.from.other())
                        });
                        let held: Vec<_> = held.collect();
                        let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
                        failed(format!(
                            "no such packet in {:.1} s; the wire holds {held}",
                            limit.as_secs_f64()
                        ))
                    }
                }
            }
            Statement::Wait(time) => {
                self.hub.wait_for(*time, |_| None::<()>);
                shown("ok")
            }
            Statement::Run { host, text, words, background, wanted } => {
                let id = self.start_program(line, *host, (text, words))?;
                let pending = Pending { id, object: host.to_string() };
                if *background {
                    self.pending.push(pending);
                    return shown("started");
                }
                self.finish(line, pending, wanted)
            }
            Statement::Sysctl { host, name, value } => self.sysctl(*host, name, value),
            Statement::LimitDescriptors(more) => limit_descriptors(*more),
        }
    }

    fn call(&mut self, line: &Line, statement: &Statement) -> Result<Shown, Broken> {
        let Statement::Call { targets, object, function, args, args_text, background, wanted } = statement
        else {
            return failed("not a call");
        };
        let is_close = function == "close";
        let (context, id) = {
            let mut state = self.hub.lock();
            let (host, sock, is_bound) = match HostName::parse(object) {
                Some(host) => (host, None, false),
                None => {
                    let Some(entry) = state.entries.get_mut(object) else {
                        return failed(format!("there is no socket {object}"));
                    };
                    entry.is_bound |= function == "bind";
                    let sock = if is_close { entry.sock.take() } else { entry.sock.clone() };
                    if sock.is_none() {
                        return failed(format!("{object} was closed"));
                    }
                    let is_bound = entry.is_bound;
                    // These bind a socket that has no address yet.
                    entry.is_bound |= function == "connect" || function == "sendto";
                    (entry.host, sock, is_bound)
                }
            };
            let mut passed = Vec::new();
            if function == "send_fds" {
                if let Some(Value::List(list)) = args.get(1) {
                    for value in list {
                        let sock =
                            state.entries.get(&value.to_string()).and_then(|entry| entry.sock.clone());
                        let Some(sock) = sock else {
                            return failed(format!("there is no open socket {value}"));
                        };
                        passed.push(sock);
                    }
                }
            }
            let id = state.begin_call(host, (object, function, args_text), line.number);
            let own = crate::lab::SCENARIO[host.index()].to_string();
            let is_own = |value: &Value| matches!(value, Value::Tuple(parts) if parts.first() == Some(&Value::Str(own.clone())));
            if matches!(function.as_str(), "connect" | "sendto") && args.iter().any(is_own) {
                let text = format!("{host} sends to itself: these packets do not pass the wire");
                state.put(EventKind::Note(text));
            }
            (
                Context {
                    host,
                    sock,
                    passed,
                    addresses: self.lab.addresses,
                    folder: self.lab.folder.clone(),
                    is_bound,
                },
                id,
            )
        };
        let host = context.host;
        let (hub, targets, function, args) =
            (self.hub.clone(), targets.clone(), function.clone(), args.clone());
        let job = move || {
            let begin = Instant::now();
            let result = if is_close { close(context) } else { perform(context, &function, &args) };
            let took = begin.elapsed();
            let hints = hint::take();
            hub.with(|state| {
                for text in hints {
                    state.put(EventKind::Hint { id, text });
                }
                let outcome = match result {
                    Ok((value, made)) => {
                        state.name_sockets(&targets, made);
                        Outcome::Value(value)
                    }
                    Err(CallError::Usage(text)) => Outcome::Refused(text),
                    Err(CallError::Io(error)) => Outcome::Errno(error_name(&error)),
                };
                state.end_call(id, outcome, took);
            });
        };
        if let Err(error) = self.lab.run(host, job) {
            return failed(format!("cannot start a thread: {error}"));
        }
        let pending = Pending { id, object: object.clone() };
        if *background {
            // A call that does not block has a moment to return.
            let returned = self
                .hub
                .wait_for(Duration::from_millis(20), |state| state.results.contains_key(&id).then_some(()));
            self.pending.push(pending);
            return shown(if returned.is_some() { "returned" } else { "blocks" });
        }
        self.finish(line, pending, wanted)
    }

    /// Waits for the end of a call, and compares its result.
    fn finish(&mut self, line: &Line, pending: Pending, wanted: &Wanted) -> Result<Shown, Broken> {
        let default =
            if *wanted == Wanted::Blocks { self.options.block_time } else { self.options.call_limit };
        let limit = line.limit.unwrap_or(default);
        let outcome = self.hub.wait_for(limit, |state| state.results.remove(&pending.id));
        let Some(outcome) = outcome else {
            self.pending.push(pending);
            if *wanted == Wanted::Blocks {
                return Ok(Shown { text: "blocks".to_owned(), counts: true });
            }
            return failed(format!("the call still blocks after {:.1} s", limit.as_secs_f64()));
        };
        let text = match &outcome {
            Outcome::Value(value) => format!("= {value}"),
            Outcome::Errno(name) => format!("= -1 {name}"),
            Outcome::Refused(text) => return failed(text.clone()),
        };
        let counts = *wanted != Wanted::Success && *wanted != Wanted::Anything;
        if matches(&outcome, wanted) { Ok(Shown { text, counts }) } else { failed(text) }
    }

    fn start_program(
        &mut self,
        line: &Line,
        host: HostName,
        (text, words): (&str, &[String]),
    ) -> Result<u64, Broken> {
        let name = host.to_string();
        let id = self.hub.lock().begin_call(host, (&name, "run", text), line.number);
        let (hub, words) = (self.hub.clone(), words.to_vec());
        let folder = self.lab.folder.clone();
        let job = move || {
            let begin = Instant::now();
            let note = |text: String| hub.with(|state| state.put(EventKind::Note(text)));
            let outcome = match folder.path().and_then(|folder| program(&hub, &words, folder)) {
                Ok(Ended { status, output, errors }) => {
                    if !output.is_empty() {
                        note(format!("{name} printed: {output}"));
                    }
                    // Programs such as curl print there also if nothing is wrong.
                    if status != 0 && !errors.is_empty() {
                        note(format!("{name} printed to the standard error: {errors}"));
                    }
                    Outcome::Value(Value::Int(status.into()))
                }
                Err(error) => {
                    note(format!("{name}: {} cannot be started: {error}", words[0]));
                    Outcome::Errno(error_name(&error))
                }
            };
            hub.with(|state| state.end_call(id, outcome, begin.elapsed()));
        };
        match self.lab.run(host, job) {
            Ok(()) => Ok(id),
            Err(error) => failed(format!("cannot start a thread: {error}")),
        }
    }

    fn sysctl(&mut self, host: HostName, name: &str, value: &str) -> Result<Shown, Broken> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let (sender, result) = std::sync::mpsc::channel();
        let value = value.to_owned();
        let job = move || {
            let _ = sender.send(fs::write(path, value));
        };
        match self.lab.run(host, job).and_then(|()| result.recv().unwrap_or(Ok(()))) {
            Ok(()) => shown("ok"),
            Err(error) => failed(format!("cannot be set: {error}")),
        }
    }
}

fn close(context: Context) -> Result<(Value, Made), CallError> {
    // While another call on the socket blocks, it keeps the socket, as in the kernel.
    match context.sock.map(Arc::try_unwrap) {
        Some(Ok(sock)) => sock.close()?,
        Some(Err(shared)) => drop(shared),
        None => {}
    }
    Ok((Value::Int(0), Vec::new()))
}

/// Name of an error: of the system, or `timeout` for the timeout of a socket.
fn error_name(error: &io::Error) -> String {
    match sock::errno(error).or(error.raw_os_error()) {
        Some(number) => sock::errno_name(number).map_or_else(|| format!("error {number}"), str::to_owned),
        None if error.kind() == io::ErrorKind::TimedOut => "timeout".to_owned(),
        None => error.to_string(),
    }
}

fn matches(outcome: &Outcome, wanted: &Wanted) -> bool {
    match (outcome, wanted) {
        (_, Wanted::Anything) | (Outcome::Value(_), Wanted::Success) => true,
        // SO_ERROR and connect_ex.
        (Outcome::Value(Value::Names(names)), Wanted::Errno(wanted)) => names == &[&**wanted],
        (Outcome::Errno(name), Wanted::Errno(wanted)) => name == wanted,
        (Outcome::Value(value), Wanted::Compared(Operator::Equal, wanted)) => value.is(wanted),
        (Outcome::Value(value), Wanted::Compared(Operator::NotEqual, wanted)) => !value.is(wanted),
        (Outcome::Value(value), Wanted::Compared(operator, wanted)) => {
            match (as_number(value), as_number(wanted)) {
                (Some(value), Some(wanted)) => operator.holds(value, wanted),
                _ => false,
            }
        }
        _ => false,
    }
}

/// A number. Bytes count with their length.
fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Bytes(bytes) => Some(bytes.len() as f64),
        _ => None,
    }
}

/// How long a decision waits for a new packet before it takes one that repeats a delivered one.
const REPEATED_AFTER: Duration = Duration::from_millis(500);

/// Bytes of a program's output that are kept.
const OUTPUT: u64 = 4096;

/// How a program has ended, and the beginning of what it has printed.
#[derive(Debug)]
struct Ended {
    status: i32,
    output: String,
    errors: String,
}

fn read_beginning(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let _ = pipe.by_ref().take(OUTPUT).read_to_end(&mut output);
        let _ = io::copy(&mut pipe, &mut io::sink());
        String::from_utf8_lossy(&output).trim_end().to_owned()
    })
}

/// Runs a program until it ends or the lab does.
fn program(hub: &Hub, words: &[String], folder: &Path) -> io::Result<Ended> {
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .env("SOCKLENS_FOLDER", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let readers = [child.stdout.take().map(read_beginning), child.stderr.take().map(read_beginning)];
    loop {
        if let Some(status) = child.try_wait()? {
            // What the program has started may keep the pipe open.
            let end = Instant::now() + Duration::from_millis(200);
            let printed = readers.map(|reader| {
                let reader = reader?;
                while !reader.is_finished() && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if reader.is_finished() { reader.join().ok() } else { None }
            });
            let [output, errors] = printed.map(Option::unwrap_or_default);
            return Ok(Ended { status: status.code().unwrap_or(-1), output, errors });
        }
        if hub.is_ending() {
            child.kill()?;
            child.wait()?;
            return Ok(Ended { status: -1, output: String::new(), errors: String::new() });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Leaves room for `more` descriptors besides those that are open now.
fn limit_descriptors(more: u64) -> Result<Shown, Broken> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let listed = match fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries,
        Err(error) => return failed(format!("cannot list the descriptors: {error}")),
    };
    let listed: Vec<u64> =
        listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // Without the descriptor with which the folder was read.
    let is_open = |number: &u64| fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
    let open: Vec<u64> = listed.into_iter().filter(is_open).collect();
    // The limit is on the number of a descriptor, and the lowest free number is used next.
    let current = (0..).filter(|number| !open.contains(number)).nth(more as usize);
    let maximum = getrlimit(Resource::Nofile).maximum;
    match setrlimit(Resource::Nofile, Rlimit { current, maximum }) {
        Ok(()) => shown("ok"),
        Err(error) => failed(format!("cannot be set: {error}")),
    }
}
