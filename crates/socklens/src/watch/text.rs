//! The calls of watched programs as text, with their consequences below them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use crate::event::{Event, EventKind, Fate, HostName};
use crate::hub::State;
use crate::text::Printer;

/// Columns of a call before its result.
const COLUMN: usize = 58;
/// A call that has not returned after this time is printed without its result.
const BLOCKS: Duration = Duration::from_millis(25);
/// Of the events within this time
const PERIOD: Duration = Duration::from_secs(1);
/// so many lines are printed at most. A bulk transfer has thousands.
const MANY: usize = 400;

/// In place of the result of a call that is kept at its entry.
const HELD: &str = "held";
/// And of one that has not returned.
const BLOCKED: &str = "= blocks";

/// Prints events in their order. A call waits for its result for a short time, so that the result
/// stands in its line.
#[derive(Debug, Default)]
pub(crate) struct WatchPrinter {
    printer: Printer,
    position: usize,
    /// Calls that were printed without a result.
    open: HashMap<u64, (HostName, String)>,
    /// The threads of each host that have made a call.
    threads: [HashSet<i32>; 2],
    /// The number of the period, and how many of its lines were printed.
    period: (u128, usize),
    folded: Folded,
}

/// What was not printed in a period.
#[derive(Debug, Default)]
struct Folded {
    calls: usize,
    packets: [usize; 2],
    bytes: [usize; 2],
    changes: usize,
    /// Calls that have not returned.
    open: BTreeMap<u64, (HostName, String)>,
}

impl Folded {
    fn lines(&self, text: &mut String) {
        for host in HostName::BOTH {
            let (packets, bytes) = (self.packets[host.index()], self.bytes[host.index()]);
            if packets > 0 {
                let _ = writeln!(
                    text,
                    "       wire    {host} -> {}  {packets} packets with {bytes} bytes",
                    host.other()
                );
            }
        }
        if self.calls + self.changes > 0 {
            let (calls, changes) = (self.calls, self.changes);
            let _ = writeln!(
                text,
                "       note    {calls} calls and {changes} changes are not shown (--jsonl FILE has them)"
            );
        }
    }
}

fn line(text: &mut String, host: HostName, call: &str, result: &str) {
    let _ = writeln!(text, "{:>3}  {call:<COLUMN$} {result}", host.to_string());
}

fn result(value: &str, took: Duration) -> String {
    if took < BLOCKS {
        format!("= {value}")
    } else {
        format!("= {value}  after {:.2} s", took.as_secs_f64())
    }
}

impl WatchPrinter {
    /// Returns the lines of the events that can be printed. At the end these are all events.
    pub(crate) fn lines(&mut self, state: &State, is_end: bool) -> String {
        let mut text = String::new();
        while let Some(event) = state.events.get(self.position) {
            let later = &state.events[self.position + 1..];
            let waits = state.elapsed().saturating_sub(event.time) < BLOCKS;
            self.begin_period(&mut text, event.time.as_nanos() / PERIOD.as_nanos());
            if self.period.1 < MANY || !self.fold(event) {
                let before = text.len();
                if !self.event(&mut text, state, event, later, waits && !is_end) {
                    break;
                }
                self.period.1 += usize::from(text.len() > before);
            }
            self.position += 1;
        }
        if is_end || state.elapsed().as_nanos() / PERIOD.as_nanos() > self.period.0 {
            self.end_period(&mut text);
        }
        text
    }

    fn begin_period(&mut self, text: &mut String, number: u128) {
        if number > self.period.0 {
            self.end_period(text);
            self.period = (number, 0);
        }
    }

    /// Prints a summary, and the calls that have begun and still block.
    fn end_period(&mut self, text: &mut String) {
        let folded = std::mem::take(&mut self.folded);
        folded.lines(text);
        for (id, (host, call)) in folded.open {
            line(text, host, &call, BLOCKED);
            self.open.insert(id, (host, call));
        }
    }

    /// Counts an event that is not printed. Returns false if it is printed in any case.
    fn fold(&mut self, event: &Event) -> bool {
        match &event.kind {
            EventKind::Call { id, host, object, function, args, .. } => {
                self.folded.calls += 1;
                self.folded.open.insert(*id, (*host, format!("{object}.{function}({args})")));
            }
            EventKind::Return { id, .. } => return self.folded.open.remove(id).is_some(),
            EventKind::Packet { from, packet, .. } => {
                self.folded.packets[from.index()] += 1;
                self.folded.bytes[from.index()] += packet.as_ref().map_or(0, |packet| packet.length);
            }
            EventKind::Kernel { was, now, .. } if *was == Some(now.state) => self.folded.changes += 1,
            _ => return false,
        }
        true
    }

    /// Prints one event. Returns false if it has to wait.
    fn event(
        &mut self,
        text: &mut String,
        state: &State,
        event: &Event,
        later: &[Event],
        waits: bool,
    ) -> bool {
        match &event.kind {
            EventKind::Call { id, host, object, function, args, thread, .. } => {
                let waits_for_packets =
                    ["accept", "epoll_", "poll", "ppoll", "pselect", "read", "recv", "select"]
                        .iter()
                        .any(|prefix| function.starts_with(prefix));
                let end = later.iter().find_map(|event| match &event.kind {
                    EventKind::Return { id: of, value, took, .. } if of == id => Some(result(value, *took)),
                    EventKind::Held { id: of } if of == id => Some(HELD.to_owned()),
                    // What ends the call stands above its result.
                    EventKind::Packet { .. } | EventKind::Fate { .. } if waits_for_packets => {
                        Some(BLOCKED.to_owned())
                    }
                    _ => None,
                });
                if end.is_none() && waits {
                    return false;
                }
                let threads = &mut self.threads[host.index()];
                threads.extend(thread);
                // The numbers of threads matter only if there are several.
                let thread = thread.filter(|_| threads.len() > 1);
                let thread = thread.map(|thread| format!("[{thread}] ")).unwrap_or_default();
                let call = format!("{thread}{object}.{function}({args})");
                match end {
                    Some(end) => {
                        line(text, *host, &call, &end);
                        if end == HELD || end == BLOCKED {
                            self.open.insert(*id, (*host, call));
                        }
                    }
                    None => {
                        line(text, *host, &call, BLOCKED);
                        self.open.insert(*id, (*host, call));
                    }
                }
            }
            EventKind::Return { id, value, took, .. } => {
                if let Some((host, call)) = self.open.remove(id) {
                    line(text, host, &call, &result(value, *took));
                }
            }
            EventKind::Released { id } => {
                let returns = later
                    .iter()
                    .any(|event| matches!(&event.kind, EventKind::Return { id: of, .. } if of == id));
                if !returns && waits {
                    return false;
                }
                if let Some((host, call)) = self.open.get(id).filter(|_| !returns) {
                    line(text, *host, call, BLOCKED);
                }
            }
            _ => {
                if let Some(line) = self.printer.line(event, state) {
                    // A command can name the packet by its number.
                    let number = match &event.kind {
                        EventKind::Packet { id, fate: Fate::Held, .. } => format!(", packet {id}"),
                        _ => String::new(),
                    };
                    let _ = writeln!(text, "       {line}{number}");
                }
            }
        }
        true
    }
}
