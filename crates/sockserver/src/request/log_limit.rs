//! Limits how often one kind of error is logged, since clients can provoke errors at any rate.
//! At most one line of each kind is logged per second. The next line says how many were suppressed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::request::RequestError;

/// At most one line of each kind is logged in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// The kind of a log line. The number of kinds is bounded by the number of system errors, so
/// clients cannot make the table grow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogKind {
    Panicked,
    Rejected(io::ErrorKind, Option<i32>),
    Other(io::ErrorKind, Option<i32>),
    /// accept(2) failed with this errno.
    Accept(Option<i32>),
    /// The listener at this position failed and was disabled.
    Lost(usize),
    /// A worker thread could not be started; the errno is the cause.
    NoThread(Option<i32>),
    /// A request failed in a child process, which logged the error.
    InChild,
    /// A child process was killed by this signal.
    Killed(i32),
    /// A worker process exited with this status without having been stopped.
    Exited(i32),
    /// A worker process sends no heartbeat.
    Stuck,
    /// A worker process could not be forked.
    NotForked,
}

/// Returns the kind of log line for a failed request.
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
    last_logged: Instant,
    suppressed: u64,
}

/// The kinds that this process has logged.
static WINDOWS: Mutex<Vec<Window>> = Mutex::new(Vec::new());

/// Set in a child process that serves one request. Its copy of `WINDOWS` is the parent's at the
/// time of the fork and is not updated.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

pub(crate) fn enter_child() {
    IN_CHILD.store(true, Ordering::Relaxed);
}

/// Returns the number of suppressed lines if a line of this kind may be logged now, `None` if it
/// has to be suppressed.
pub(crate) fn check(kind: LogKind, now: Instant) -> Option<u64> {
    let mut windows = WINDOWS.lock();
    if IN_CHILD.load(Ordering::Relaxed) {
        let window = windows.iter().find(|window| window.kind == LogKind::InChild);
        return window.map_or(Some(0), |window| (!window.is_open(now)).then_some(window.suppressed));
    }
    let Some(window) = windows.iter_mut().find(|window| window.kind == kind) else {
        windows.push(Window { kind, last_logged: now, suppressed: 0 });
        return Some(0);
    };
    if window.is_open(now) {
        window.suppressed += 1;
        return None;
    }
    window.last_logged = now;
    Some(std::mem::take(&mut window.suppressed))
}

/// Logs a line at the given level, at most once per second for each kind. Suppressed lines are
/// logged at `debug`.
///
/// ```text
/// log_limited!(error, kind, "listener failed: {error}");
/// log_limited!(error, kind, peer = peer, errno = errno; "request from {peer}: {error}");
/// ```
macro_rules! log_limited {
    ($level:ident, $kind:expr, $($key:ident = $value:expr),+; $($line:tt)+) => {
        match $crate::request::log_limit::check($kind, ::std::time::Instant::now()) {
            None => log::debug!($($key = $value),+; $($line)+),
            Some(0) => log::$level!($($key = $value),+; $($line)+),
            Some(suppressed) => log::$level!(
                $($key = $value),+, suppressed = suppressed;
                "{} ({suppressed} similar errors suppressed)", format_args!($($line)+)
            ),
        }
    };
    ($level:ident, $kind:expr, $($line:tt)+) => {
        match $crate::request::log_limit::check($kind, ::std::time::Instant::now()) {
            None => log::debug!($($line)+),
            Some(0) => log::$level!($($line)+),
            Some(suppressed) => log::$level!(
                "{} ({suppressed} similar errors suppressed)", format_args!($($line)+)
            ),
        }
    };
}
pub(crate) use log_limited;

impl Window {
    /// Whether a line was logged less than [`INTERVAL`] ago.
    fn is_open(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_logged) < INTERVAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_each_kind_is_logged_per_second_and_the_next_counts_the_suppressed_ones() {
        let error = |name: &'static str| {
            kind_of(&RequestError::Failed(io::Error::new(io::ErrorKind::InvalidData, name)))
        };
        let begin = Instant::now();
        assert_eq!(check(error("one"), begin), Some(0));
        assert_eq!(check(error("two"), begin), None);
        assert_eq!(check(error("three"), begin + Duration::from_millis(999)), None);
        let other = kind_of(&RequestError::Failed(io::Error::new(io::ErrorKind::UnexpectedEof, "four")));
        assert_eq!(check(other, begin), Some(0), "another kind is limited separately");
        assert_eq!(check(error("five"), begin + INTERVAL), Some(2));
        assert_eq!(check(error("six"), begin + INTERVAL * 3), Some(0));
    }
}
