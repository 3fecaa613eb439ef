//! The process of one lesson: it reads commands from its standard input, and writes the recording
//! to its standard output while the lesson runs.

use std::io::{self, BufRead, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process_group, setrlimit};

use crate::builtin::load;
use crate::event::{EventKind, Fate};
use crate::hint;
use crate::hub::{Hub, Policy};
use crate::lab::{Lab, Tier};
use crate::page::source;
use crate::record::{Head, Object, json, meta};
use crate::scenario::line::Statement;
use crate::scenario::{Line, Options, Scenario, run_paced};

/// Descriptors of the process.
const DESCRIPTORS: u64 = 512;
/// Bytes of private memory of the process.
const MEMORY: u64 = 1 << 30;
/// Lines of a scenario. Each can start a thread.
const LINES: usize = 1000;

/// Up to which line the lesson may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// The next line, with the expectations after it.
    Step,
    /// All lines before this one.
    Until(usize),
    All,
    Nothing,
}

#[derive(Debug)]
struct Gate {
    allowed: Mutex<Allowed>,
    changed: Condvar,
}

impl Gate {
    fn allow(&self, allowed: Allowed) {
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = allowed;
        self.changed.notify_all();
    }

    /// Waits until a line may run.
    fn wait(&self, hub: &Hub, line: &Line, is_first: bool) {
        // What a scenario needs is not a step of it.
        if matches!(
            line.statement,
            Some(Statement::NeedsWire | Statement::NeedsLinux(..) | Statement::Host)
        ) {
            return;
        }
        let mut allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        // An expectation belongs to the line before it.
        let is_check = matches!(line.statement, Some(Statement::Expect(_))) && !is_first;
        let mut is_paused = false;
        loop {
            match *allowed {
                Allowed::All => return,
                Allowed::Until(end) if line.number < end => return,
                Allowed::Step => {
                    *allowed = Allowed::Nothing;
                    return;
                }
                Allowed::Until(_) | Allowed::Nothing if is_check && !is_paused => return,
                Allowed::Until(_) | Allowed::Nothing => {}
            }
            if !is_paused {
                is_paused = true;
                hub.with(|state| state.put(EventKind::Paused { next: Some(line.number) }));
            }
            allowed = self.changed.wait(allowed).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

pub(super) fn write_line(line: &str) {
    let mut output = io::stdout().lock();
    // The reader is the server. Without it this process ends by the end of its input.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

pub(super) fn write_text(kind: &str, text: &str) {
    let mut object = Object::new(kind);
    object.text("text", text);
    write_line(&object.end());
}

/// Ends this process and what it has started, once the server has closed the input.
pub(super) fn end() -> ! {
    // It is the leader of its process group. If not, only the process itself ends.
    if rustix::process::getpgrp() == getpid() {
        let _ = kill_process_group(getpid(), Signal::KILL);
    }
    std::process::exit(0);
}

fn limit(resource: Resource, wanted: u64) {
    let limits = getrlimit(resource);
    let wanted = limits.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    // A limit that cannot be set leaves the one of the system.
    let _ = setrlimit(resource, Rlimit { current: Some(wanted), maximum: Some(wanted) });
}

/// Runs the lesson of the arguments: its source, and optionally a tier.
pub(crate) fn lesson(arguments: &[String]) -> Result<u8, String> {
    let name = arguments.first().ok_or("a lesson needs a scenario")?;
    limit(Resource::Nofile, DESCRIPTORS);
    limit(Resource::Data, MEMORY);
    limit(Resource::Core, 0);
    hint::collect();
    let begin = SystemTime::now();
    let scenario = match load(name) {
        Ok(scenario) if scenario.lines.len() <= LINES => scenario,
        Ok(_) => return stay(&format!("{name} has more than {LINES} lines")),
        Err(problem) => return stay(&problem),
    };
    // Before the second thread starts.
    let lab = match Lab::new(arguments.get(1).and_then(|name| Tier::parse(name))) {
        Ok(lab) => lab,
        Err(error) => return not_run(&scenario, &error.to_string()),
    };
    write_line(&meta(&Head::new(scenario.name(), lab.tier().to_string(), begin)));
    write_line(&source(&scenario));
    let gate = Arc::new(Gate { allowed: Mutex::new(Allowed::Nothing), changed: Condvar::new() });
    let (hub, commands, folder) = (lab.hub.clone(), gate.clone(), lab.folder.clone());
    std::thread::spawn(move || {
        read_commands(&hub, &commands);
        folder.remove();
        end()
    });
    let hub = lab.hub.clone();
    std::thread::spawn(move || write_events(&hub));
    let options = Options { goes_on: true, ..Options::default() };
    let mut is_first = true;
    let mut may_run = |line: &Line| {
        gate.wait(&lab.hub, line, is_first);
        is_first = false;
        true
    };
    let report = run_paced(&scenario, &lab, options, &mut io::sink(), &mut may_run)
        .map_err(|error| error.to_string())?;
    if let Some(reason) = report.not_run {
        write_text("notrun", &reason);
    }
    lab.hub.with(|state| state.put(EventKind::Paused { next: None }));
    // The sockets stay, and packets can still be decided, until the server closes the input.
    loop {
        std::thread::park();
    }
}

fn not_run(scenario: &Scenario, reason: &str) -> Result<u8, String> {
    write_line(&source(scenario));
    write_text("notrun", reason);
    wait_for_end()
}

fn stay(problem: &str) -> Result<u8, String> {
    write_text("end", problem);
    wait_for_end()
}

pub(super) fn wait_for_end() -> Result<u8, String> {
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    end()
}

fn read_commands(hub: &Hub, gate: &Gate) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let number = rest.parse::<usize>().unwrap_or_default();
        let decide = |fate| {
            hub.with(|state| state.decide_by_hand(number as u64, fate));
        };
        match word {
            "step" => gate.allow(Allowed::Step),
            "until" => gate.allow(Allowed::Until(number)),
            "run" => gate.allow(Allowed::All),
            "pause" => gate.allow(Allowed::Nothing),
            "deliver" => decide(Fate::Delivered),
            "drop" => decide(Fate::Dropped),
            "duplicate" => decide(Fate::Duplicated),
            "hold" => hub.with(|state| state.set_policy(Policy::Hold)),
            "pass" => hub.with(|state| state.set_policy(Policy::Pass)),
            _ => {}
        }
    }
}

/// Writes what is recorded as soon as it is.
pub(super) fn write_events(hub: &Hub) {
    let mut written = 0;
    loop {
        let events = hub.wait_for(Duration::from_secs(60), |state| {
            (state.events.len() > written).then(|| state.events[written..].to_vec())
        });
        let Some(events) = events else { continue };
        written += events.len();
        let mut text = String::new();
        for event in &events {
            text += &json(event);
            text.push('\n');
        }
        let mut output = io::stdout().lock();
        if output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_err() {
            end();
        }
    }
}
