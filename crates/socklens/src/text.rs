//! The output for terminals and for screen readers: one fact on a line, and no drawing.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::event::{Event, EventKind, HostName};
use crate::hub::State;

/// Columns of a statement before its result.
const COLUMN: usize = 58;
/// A line that caused more events than this is shortened.
const MANY: usize = 48;
const FIRST: usize = 16;
const LAST: usize = 6;

/// Prints events since the last call.
#[derive(Debug, Default)]
pub(crate) struct Printer {
    printed: usize,
    packets: HashMap<u64, (HostName, String)>,
}

impl Printer {
    pub(crate) fn comment(&self, output: &mut dyn Write, comment: &str) -> io::Result<()> {
        writeln!(output, "# {comment}")
    }

    pub(crate) fn statement(
        &self,
        output: &mut dyn Write,
        (number, text, comment): (usize, &str, Option<&str>),
        result: &str,
    ) -> io::Result<()> {
        writeln!(output, "{number:>3}  {text:<COLUMN$} {result}")?;
        match comment {
            Some(comment) => writeln!(output, "       why     {comment}"),
            None => Ok(()),
        }
    }

    /// Prints the consequences of a line. The decision of the line itself stands in its result.
    pub(crate) fn events(
        &mut self,
        output: &mut dyn Write,
        state: &State,
        is_decision: bool,
    ) -> io::Result<()> {
        let mut is_decision = is_decision;
        let mut lines: Vec<(String, &Event)> = Vec::new();
        for event in &state.events[self.printed..] {
            if matches!(event.kind, EventKind::Fate { .. }) && std::mem::take(&mut is_decision) {
                continue;
            }
            if let Some(line) = self.line(event, state) {
                // Two looks at a socket between which only its name became known.
                if lines.last().is_none_or(|(last, _)| *last != line) {
                    lines.push((line, event));
                }
            }
        }
        self.printed = state.events.len();
        if lines.len() <= MANY {
            return lines.iter().try_for_each(|(line, _)| writeln!(output, "       {line}"));
        }
        let last = lines.len() - LAST;
        for (line, _) in &lines[..FIRST] {
            writeln!(output, "       {line}")?;
        }
        let hidden = &lines[FIRST..last];
        for host in HostName::BOTH {
            let mut count = 0;
            let mut bytes = 0;
            for (_, event) in hidden {
                if let EventKind::Packet { from, packet, .. } = &event.kind {
                    count += usize::from(*from == host);
                    bytes +=
                        if *from == host { packet.as_ref().map_or(0, |packet| packet.length) } else { 0 };
                }
            }
            if count > 0 {
                writeln!(
                    output,
                    "       wire    {host} -> {}  {count} packets with {bytes} bytes",
                    host.other()
                )?;
            }
        }
        let changes =
            hidden.iter().filter(|(_, event)| matches!(event.kind, EventKind::Kernel { .. })).count();
        writeln!(output, "       kernel  {changes} changes, not shown (--jsonl FILE has them)")?;
        lines[last..].iter().try_for_each(|(line, _)| writeln!(output, "       {line}"))
    }

    /// The line of an event that is a consequence. `None` if it has none.
    pub(crate) fn line(&mut self, event: &Event, state: &State) -> Option<String> {
        let name = |host: &HostName, cookie: &u64| match state.names.get(cookie) {
            Some(name) => name.clone(),
            // A socket of a program that the scenario runs.
            None if state.with_file.contains(cookie) => format!("(unnamed, {host})"),
            None => format!("(not accepted, {host})"),
        };
        Some(match &event.kind {
            EventKind::Kernel { host, cookie, was, now, .. } => {
                let change = match was {
                    Some(was) if *was == now.state => now.state.to_owned(),
                    Some(was) => format!("{was} -> {}", now.state),
                    None => format!("new -> {}", now.state),
                };
                let mut line = format!("kernel  {:<18} {change}", name(host, cookie));
                match now.waiting {
                    Some((waiting, backlog)) => line += &format!("  waiting {waiting} of {backlog}"),
                    None => line += &format!("  recvq {} sendq {}", now.recvq, now.sendq),
                }
                if let Some(timer) = now.timer {
                    line += &format!("  timer {}", timer.kind);
                    if timer.retransmits > 0 {
                        line += &format!(" x{}", timer.retransmits);
                    }
                }
                if now.drops > 0 {
                    line += &format!("  drops {}", now.drops);
                }
                line
            }
            EventKind::Gone { host, cookie, was } => {
                format!("kernel  {:<18} {was} -> gone", name(host, cookie))
            }
            EventKind::Packet { id, from, fate, packet, .. } => {
                let text = packet.as_ref().map_or("not a packet of IP".to_owned(), ToString::to_string);
                let line = format!("wire    {from} -> {}  {text:<28} {}", from.other(), fate.word());
                self.packets.insert(*id, (*from, text));
                line
            }
            EventKind::Fate { id, fate } => {
                let (from, text) = self.packets.get(id)?;
                format!("wire    {from} -> {}  {text:<28} {}", from.other(), fate.word())
            }
            EventKind::Note(text) => format!("note    {text}"),
            EventKind::Call { .. } | EventKind::Return { .. } => return None,
            EventKind::Name { .. } | EventKind::Expect { .. } | EventKind::Died { .. } => return None,
            EventKind::Hint { .. } | EventKind::Held { .. } | EventKind::Released { .. } => return None,
            EventKind::Line { .. } | EventKind::Done { .. } | EventKind::Paused { .. } => return None,
        })
    }
}
