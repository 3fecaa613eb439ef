//! Python's three modes, the deadline of a call, and the one wait loop.
//!
//! | [`gettimeout`](crate::Socket::gettimeout) | mode | descriptor | a call that cannot go on |
//! | --- | --- | --- | --- |
//! | `None` | blocking | blocking | sleeps in the kernel |
//! | zero | non-blocking | non-blocking | fails with `WouldBlock` |
//! | more | timeout | **non-blocking** | waits in poll(2), at the end fails with `TimedOut` |
//!
//! A call is tried first and waits only when it has to (CPython waits first,
//! one system call more each time). The deadline is fixed at a call's first wait
//! and is one for the whole call: signals, false readiness and the pieces of
//! `sendall` do not extend it.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{invalid, timed_out};
use crate::sys::{self, AsFd, AsRawFd, BorrowedFd, c};
use crate::trace::call;

/// A timeout in one word: nanoseconds, all ones for none.
#[derive(Debug)]
pub(crate) struct Timeout(AtomicU64);

const BLOCKING: u64 = u64::MAX;

impl Timeout {
    pub(crate) const fn blocking() -> Timeout {
        Timeout(AtomicU64::new(BLOCKING))
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            BLOCKING => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    /// Fails for more than 584 years, as Python does for what its clock cannot hold.
    pub(crate) fn set(&self, timeout: Option<Duration>) -> io::Result<()> {
        let nanoseconds = match timeout {
            None => BLOCKING,
            Some(timeout) => match u64::try_from(timeout.as_nanos()) {
                Ok(nanoseconds) if nanoseconds != BLOCKING => nanoseconds,
                _ => return Err(invalid(format!("timeout {timeout:?} is too long"))),
            },
        };
        self.0.store(nanoseconds, Ordering::Relaxed);
        Ok(())
    }
}

static DEFAULT_TIMEOUT: Timeout = Timeout::blocking();

/// Timeout that new sockets get; at first `None`.
///
/// Python: `socket.getdefaulttimeout()`. No system call.
#[must_use]
pub fn getdefaulttimeout() -> Option<Duration> {
    DEFAULT_TIMEOUT.get()
}

/// Sets the timeout of sockets made from now on, accepted ones included.
///
/// Python: `socket.setdefaulttimeout(timeout)`. No system call. It is one for
/// the whole process: a library had better leave it alone.
///
/// # Errors
///
/// `InvalidInput` for more than 584 years.
pub fn setdefaulttimeout(timeout: impl Into<Option<Duration>>) -> io::Result<()> {
    DEFAULT_TIMEOUT.set(timeout.into())
}

/// When a call has to give up: a timeout until its first wait, then a point in time.
pub(crate) struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    pub(crate) fn new(timeout: Option<Duration>) -> Deadline {
        Deadline { timeout, at: None }
    }

    /// Time left; `None` for no limit.
    fn left(&mut self) -> Option<Duration> {
        let timeout = self.timeout?;
        let now = Instant::now();
        match self.at {
            Some(at) => Some(at.saturating_duration_since(now)),
            None => {
                self.at = now.checked_add(timeout);
                // A point in time the clock cannot name is never reached.
                if self.at.is_none() {
                    self.timeout = None;
                }
                self.timeout
            }
        }
    }

    /// Whether a call that would block has to fail at once.
    fn is_nonblocking(&self) -> bool {
        self.timeout == Some(Duration::ZERO)
    }
}

/// What a call waits for.
#[derive(Clone, Copy)]
pub(crate) enum Readiness {
    Readable,
    Writable,
}

impl Readiness {
    fn events(self) -> Events {
        match self {
            Readiness::Readable => POLLIN,
            Readiness::Writable => POLLOUT,
        }
    }
}

/// Makes `attempt` until it succeeds or fails for good, waiting in between as
/// the mode says. EINTR means "again" in every mode (PEP 475).
#[inline]
pub(crate) fn retry<T>(
    fd: BorrowedFd<'_>,
    readiness: Readiness,
    deadline: &mut Deadline,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => after(fd, readiness, deadline, error)?,
        }
    }
}

/// Returns when it makes sense to try again after `error`.
#[cold]
fn after(
    fd: BorrowedFd<'_>,
    readiness: Readiness,
    deadline: &mut Deadline,
    error: io::Error,
) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        // In blocking mode EAGAIN comes only from SO_RCVTIMEO, SO_SNDTIMEO or a
        // descriptor somebody else made non-blocking: the caller's to judge.
        io::ErrorKind::WouldBlock if deadline.timeout.is_some() && !deadline.is_nonblocking() => {
            wait(fd, readiness, deadline)
        }
        _ => Err(error),
    }
}

/// Waits until `fd` is ready, or fails with `TimedOut` at the deadline.
pub(crate) fn wait(fd: BorrowedFd<'_>, readiness: Readiness, deadline: &mut Deadline) -> io::Result<()> {
    loop {
        let left = deadline.left();
        match poll(&mut [Poll::new(&fd, readiness.events())], left) {
            Ok(0) if deadline.left() == Some(Duration::ZERO) => return Err(timed_out()),
            Ok(0) => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bits of [`Poll`], such as [`POLLIN`].
pub type Events = i16;

/// Something can be received, a connection accepted, or the end of file read.
pub const POLLIN: Events = c::POLLIN;
/// Something can be sent, or a connect has ended.
pub const POLLOUT: Events = c::POLLOUT;
/// An error is pending; never asked for, always told.
pub const POLLERR: Events = c::POLLERR;
/// The peer is gone; never asked for, always told.
pub const POLLHUP: Events = c::POLLHUP;

pub use crate::sys::Poll;

impl<'a> Poll<'a> {
    /// Waits for `events` of `fd`, which may be a socket or any other descriptor.
    pub fn new(fd: &'a impl AsFd, events: Events) -> Poll<'a> {
        Poll { fd: fd.as_fd(), events, revents: 0 }
    }

    /// What the last [`poll`] found; 0 for nothing.
    #[must_use]
    pub fn revents(&self) -> Events {
        self.revents
    }
}

/// Waits until one of the descriptors is ready and returns how many are.
///
/// Python: `select.poll().poll(timeout)`. System call: poll(2), once. 0 means
/// that `timeout` has passed; `None` waits for ever. A timeout is rounded up to
/// milliseconds and cut at 24 days.
///
/// # Errors
///
/// `Interrupted` when a signal handler ran (Python retries; here the caller
/// knows what time is left).
///
/// # Examples
///
/// ```
/// use sock::{POLLIN, Poll};
/// use std::time::Duration;
///
/// let (ours, theirs) = sock::socketpair()?;
/// let mut set = [Poll::new(&ours, POLLIN)];
/// assert_eq!(sock::poll(&mut set, Some(Duration::ZERO))?, 0);
/// theirs.sendall(b"ready")?;
/// assert_eq!(sock::poll(&mut set, None)?, 1);
/// assert_eq!(set[0].revents(), POLLIN);
/// # std::io::Result::Ok(())
/// ```
pub fn poll(set: &mut [Poll<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    call!("poll({}, {timeout:?})", Asked(set) => sys::poll(set, timeout))
}

/// What is waited for, as strace shows it: `[{3, POLLIN}]`.
struct Asked<'a, 'b>(&'a [Poll<'b>]);

impl fmt::Display for Asked<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "[";
        for poll in self.0 {
            write!(f, "{separator}{{{}, {}}}", poll.fd.as_raw_fd(), EventNames(poll.events))?;
            separator = ", ";
        }
        f.write_str(if self.0.is_empty() { "[]" } else { "]" })
    }
}

struct EventNames(Events);

impl fmt::Display for EventNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            POLLIN => f.write_str("POLLIN"),
            POLLOUT => f.write_str("POLLOUT"),
            events => write!(f, "{events:#x}"),
        }
    }
}
