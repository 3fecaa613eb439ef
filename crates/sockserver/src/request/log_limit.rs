//! Keeps the log readable while clients provoke errors as fast as they can: one line
//! of a kind in a second, and the next one counts those between.

use std::io;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::request::RequestError;

/// One line of a kind in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// What makes two errors the same for the log. There are as many as the system has
/// errors, so that what clients send cannot make more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogKind {
    Panicked,
    Rejected(io::ErrorKind, Option<i32>),
    Other(io::ErrorKind, Option<i32>),
    /// The system refuses to accept, with this error.
    Accept(Option<i32>),
    /// This listener is of no more use.
    Lost(usize),
    /// No thread for a worker, with this error.
    #[cfg(unix)]
    NoThread(Option<i32>),
    /// A child process has failed, and has told of it, or the children before it have.
    #[cfg(unix)]
    InChild,
    /// A child process was killed by this signal.
    #[cfg(unix)]
    Killed(i32),
    /// A worker process has ended with this status, though nobody told it to.
    #[cfg(unix)]
    Exited(i32),
    /// A worker process is stuck.
    #[cfg(unix)]
    Stuck,
    /// A worker process cannot be forked.
    #[cfg(unix)]
    NotForked,
}

pub(crate) fn kind_of(error: &RequestError) -> LogKind {
    match error {
        RequestError::Panicked(_) => LogKind::Panicked,
        RequestError::Rejected(inner) => LogKind::Rejected(inner.kind(), error.errno()),
        RequestError::Failed(inner) | RequestError::TimedOut(_, inner) => {
            LogKind::Other(inner.kind(), error.errno())
        }
    }
}

struct Window {
    kind: LogKind,
    logged: Instant,
    since: u64,
}

/// The kinds that have come in this process.
static WINDOWS: Mutex<Vec<Window>> = Mutex::new(Vec::new());

/// This process is the child of one request: what it knows of others, its parent knew.
#[cfg(unix)]
static IN_CHILD: AtomicBool = AtomicBool::new(false);

#[cfg(unix)]
pub(crate) fn enter_child() {
    IN_CHILD.store(true, Ordering::Relaxed);
}

/// Whether the error is to be told now, and how many of its kind were not.
pub(crate) fn check(kind: LogKind, now: Instant) -> Option<u64> {
    let mut lines = WINDOWS.lock();
    #[cfg(unix)]
    if IN_CHILD.load(Ordering::Relaxed) {
        let told = lines.iter().find(|line| line.kind == LogKind::InChild);
        return told.map_or(Some(0), |told| (!told.is_fresh(now)).then_some(told.since));
    }
    let Some(line) = lines.iter_mut().find(|line| line.kind == kind) else {
        lines.push(Window { kind, logged: now, since: 0 });
        return Some(0);
    };
    if line.is_fresh(now) {
        line.since += 1;
        return None;
    }
    line.logged = now;
    Some(std::mem::take(&mut line.since))
}

impl Window {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.logged) < INTERVAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_in_a_second_and_the_next_counts_the_rest() {
        let odd = |name: &'static str| {
            kind_of(&RequestError::Failed(io::Error::new(io::ErrorKind::InvalidData, name)))
        };
        let begin = Instant::now();
        assert_eq!(check(odd("one"), begin), Some(0));
        assert_eq!(check(odd("two"), begin), None);
        assert_eq!(check(odd("three"), begin + Duration::from_millis(999)), None);
        let other = kind_of(&RequestError::Failed(io::Error::new(io::ErrorKind::UnexpectedEof, "four")));
        assert_eq!(check(other, begin), Some(0), "another kind has its own line");
        assert_eq!(check(odd("five"), begin + INTERVAL), Some(2));
        assert_eq!(check(odd("six"), begin + INTERVAL * 3), Some(0));
    }
}
