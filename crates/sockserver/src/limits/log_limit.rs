//! Limits how often one kind of error is logged, since clients can provoke errors at any rate.
//! At most one line of each kind is logged per second. The next line says how many were suppressed.

use std::fmt;
#[cfg(unix)]
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
#[cfg(unix)]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::DeadlineKind;
use crate::limits::access::Denial;
use crate::limits::header_error::HeaderError;
#[cfg(unix)]
use crate::os::process::SharedWords;

/// At most one line of each kind is logged in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// The kind of a log line. The number of kinds is bounded by the number of system errors, so
/// clients cannot make the table grow.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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
    /// A worker thread panicked, and is started again.
    WorkerPanicked,
    /// This deadline ended a connection, or a call on it, during a request.
    TimedOut(DeadlineKind),
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
    /// A connection was refused because of its PROXY protocol header.
    ProxyHeader(HeaderError),
    /// A client was refused because of its address.
    Denied(Denial),
}

struct Window {
    kind: LogKind,
    last_logged: Instant,
    suppressed: u64,
}

/// The kinds that this process has logged. Under the lock only the table is read and changed. The
/// line is logged when it is released.
static WINDOWS: Mutex<Vec<Window>> = Mutex::new(Vec::new());

/// The kinds that a server and the processes that it forks have logged. A limit for each process would
/// allow clients to cause as many lines per second as there are processes.
#[cfg(unix)]
static SHARED: OnceLock<SharedWindows> = OnceLock::new();

/// Shares the limits with processes that this process forks from now on.
///
/// # Errors
///
/// Returns an error if memory cannot be mapped.
#[cfg(unix)]
pub(crate) fn share_with_workers() -> io::Result<()> {
    if SHARED.get().is_none() {
        // If another thread was faster, its table is used.
        let _ = SHARED.set(SharedWindows::new()?);
    }
    Ok(())
}

/// Set in a child process that serves one request. Its copy of `WINDOWS`, which is used when the
/// shared table is full, is the parent's at the time of the fork and is not updated.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

pub(crate) fn enter_child() {
    IN_CHILD.store(true, Ordering::Relaxed);
}

/// Returns the number of suppressed lines if a line of this kind may be logged now, `None` if it
/// has to be suppressed.
pub(crate) fn check(kind: LogKind, now: Instant) -> Option<u64> {
    #[cfg(unix)]
    if let Some(checked) = SHARED.get().and_then(|shared| shared.check(kind, now)) {
        return checked;
    }
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

/// Returns whether the program has installed a logger. Without one the crate `log` has a logger of
/// no size, and its level is off.
pub(crate) fn has_logger() -> bool {
    crate::log_facade::max_level() != crate::log_facade::LevelFilter::Off
        || size_of_val(crate::log_facade::logger()) != 0
}

/// Prints a line to standard error, at most once per second for each kind.
pub(crate) fn print(kind: LogKind, line: fmt::Arguments<'_>) {
    let Some(suppressed) = check(kind, Instant::now()) else { return };
    let note = match suppressed {
        0 => String::new(),
        count => format!(" ({count} similar errors suppressed)"),
    };
    // One write, so that lines of several threads or processes are not mixed. Standard error may be
    // closed.
    let _ = io::stderr().write_all(format!("{line}{note}\n").as_bytes());
}

/// Logs a line at the given level, at most once per second for each kind. Suppressed lines are
/// logged at `debug`.
///
/// ```text
/// log_limited!(error, kind, peer = peer, errno = errno; "request from {peer} failed: {error}");
/// ```
macro_rules! log_limited {
    ($level:ident, $kind:expr, $($key:ident $(:$capture:tt)? = $value:expr),+; $($line:tt)+) => {
        match $crate::limits::log_limit::check($kind, ::std::time::Instant::now()) {
            None => $crate::os::log::debug!($($key $(:$capture)? = $value),+; $($line)+),
            Some(0) => $crate::os::log::$level!($($key $(:$capture)? = $value),+; $($line)+),
            Some(suppressed) => $crate::os::log::$level!(
                $($key $(:$capture)? = $value),+, suppressed = suppressed;
                "{} ({suppressed} similar errors suppressed)", format_args!($($line)+)
            ),
        }
    };
}
pub(crate) use log_limited;

/// A table in memory that processes share: a word with the hash of the kind, and one with the time
/// of its last line and the number of suppressed ones.
#[cfg(unix)]
struct SharedWindows {
    words: SharedWords,
    epoch: Instant,
}

#[cfg(unix)]
impl SharedWindows {
    const PLACES: usize = 64;
    /// The bits of the number of suppressed lines. The others are milliseconds since the epoch.
    const SUPPRESSED: u64 = (1 << 24) - 1;

    fn new() -> io::Result<SharedWindows> {
        Ok(SharedWindows { words: SharedWords::new(2 * SharedWindows::PLACES)?, epoch: Instant::now() })
    }

    /// As the function [`check`]. `None` if the table is full, so that each process has its own
    /// limit of this kind.
    fn check(&self, kind: LogKind, now: Instant) -> Option<Option<u64>> {
        let mut hasher = DefaultHasher::new();
        kind.hash(&mut hasher);
        let key = hasher.finish().max(1);
        let place = (0..SharedWindows::PLACES).find(|place| {
            let word = self.words.get(2 * place);
            let taken = word.compare_exchange(0, key, Ordering::SeqCst, Ordering::SeqCst);
            taken.is_ok() || taken == Err(key)
        })?;
        // 0 stands for a kind that was not logged yet.
        let now = now.saturating_duration_since(self.epoch).as_millis() as u64 + 1;
        let mut checked = None;
        let update = |word: u64| {
            let (last, suppressed) = (word >> 24, word & SharedWindows::SUPPRESSED);
            if last != 0 && now < last + INTERVAL.as_millis() as u64 {
                checked = None;
                return Some(last << 24 | (suppressed + 1).min(SharedWindows::SUPPRESSED));
            }
            checked = Some(suppressed);
            Some(now << 24)
        };
        let _ = self.words.get(2 * place + 1).fetch_update(Ordering::SeqCst, Ordering::SeqCst, update);
        Some(checked)
    }
}

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
        let error = LogKind::Other(io::ErrorKind::InvalidData, None);
        let begin = Instant::now();
        assert_eq!(check(error, begin), Some(0));
        assert_eq!(check(error, begin), None);
        assert_eq!(check(error, begin + Duration::from_millis(999)), None);
        let other = LogKind::Other(io::ErrorKind::UnexpectedEof, None);
        assert_eq!(check(other, begin), Some(0), "another kind is limited separately");
        assert_eq!(check(error, begin + INTERVAL), Some(2));
        assert_eq!(check(error, begin + INTERVAL * 3), Some(0));
    }

    #[cfg(unix)]
    #[test]
    fn processes_that_share_a_table_share_the_limit_of_each_kind() {
        let shared = SharedWindows::new().unwrap();
        let begin = Instant::now();
        let kind = LogKind::TimedOut(DeadlineKind::Request);
        let checked: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| shared.check(kind, begin))).collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert_eq!(checked.iter().filter(|checked| **checked == Some(Some(0))).count(), 1);
        assert_eq!(checked.iter().filter(|checked| **checked == Some(None)).count(), 7);
        assert_eq!(shared.check(LogKind::Panicked, begin), Some(Some(0)), "another kind");
        assert_eq!(shared.check(kind, begin + INTERVAL), Some(Some(7)));
        assert_eq!(shared.check(kind, begin + INTERVAL * 2), Some(Some(0)));
        // Beyond the table, the limits of the process apply.
        let checked = (0..100).map(|signal| shared.check(LogKind::Killed(signal), begin));
        assert_eq!(checked.filter(Option::is_some).count(), SharedWindows::PLACES - 2);
        assert_eq!(shared.check(kind, begin + INTERVAL * 2), Some(None));
    }
}
