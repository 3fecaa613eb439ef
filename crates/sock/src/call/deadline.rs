//! Python's three modes, the deadline of a call, and the wait loop.
//!
//! | [`gettimeout`](crate::Socket::gettimeout) | mode | descriptor | a call that would block |
//! | --- | --- | --- | --- |
//! | `None` | blocking | blocking | blocks in the kernel |
//! | zero | non-blocking | non-blocking | fails with `WouldBlock` |
//! | more | timeout | **non-blocking** | waits in poll(2), fails with `TimedOut` at the deadline |
//!
//! A call is tried first and waits only if it has to. CPython waits first, which costs one more
//! system call each time. The deadline is set at the first wait of a call and holds for the whole
//! call: signals, false readiness and the pieces of `sendall` do not extend it.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::call::cancel::{self, Aborted, Cancellation};
use crate::call::hint;
use crate::call::timeout::Timeout;
use crate::call::to_timeout::ToTimeout;
use crate::call::trace::{self, TraceValue, call};
use crate::error::timed_out;
use crate::sys::{self, AsFd, AsRawFd, BorrowedFd, c};

static DEFAULT_TIMEOUT: Timeout = Timeout::blocking();

/// Returns the timeout that new sockets get, initially `None`.
///
/// Python: `socket.getdefaulttimeout()`. No system call.
///
/// # Examples
///
/// ```
/// assert_eq!(sock::getdefaulttimeout(), None);
/// ```
#[must_use]
pub fn getdefaulttimeout() -> Option<Duration> {
    DEFAULT_TIMEOUT.get()
}

/// Sets the timeout of sockets created from now on, including accepted ones.
///
/// Python: `socket.setdefaulttimeout(timeout)`. No system call. The setting is process-wide.
/// Libraries should not change it.
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` if the timeout is longer than 584 years.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// sock::setdefaulttimeout(Duration::from_secs(30))?;
/// let (ours, _theirs) = sock::socketpair()?;
/// assert_eq!(ours.gettimeout(), Some(Duration::from_secs(30)));
/// sock::setdefaulttimeout(None)?;
/// # std::io::Result::Ok(())
/// ```
pub fn setdefaulttimeout(timeout: impl ToTimeout) -> io::Result<()> {
    DEFAULT_TIMEOUT.set(timeout.to_timeout()?)
}

/// A deadline shared by several socket calls, such as those of a TLS handshake.
///
/// Python: none; `ssl` and `sendall` use one internally. The timeout starts with the first wait.
/// The deadline also carries the cancellation of the socket. Pass it to
/// [`Socket::recv_into_within`](crate::Socket::recv_into_within) and
/// [`Socket::send_within`](crate::Socket::send_within).
///
/// # Examples
///
/// ```
/// use sock::Deadline;
/// use std::time::Duration;
///
/// let (ours, theirs) = sock::socketpair()?;
/// ours.settimeout(Duration::from_millis(20))?;
/// theirs.sendall(b"half")?;
/// let mut deadline = ours.deadline();
/// let mut buffer = [0; 8];
/// assert_eq!(ours.recv_into_within(&mut buffer, &mut deadline)?, 4);
/// let error = ours.recv_into_within(&mut buffer[4..], &mut deadline).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
/// # std::io::Result::Ok(())
/// ```
pub struct Deadline<'a> {
    timeout: Option<Duration>,
    at: Option<Instant>,
    /// The end of the kernel's own timeout, set when a signal arrives. See
    /// [`enforce_kernel_timeout`](Self::enforce_kernel_timeout).
    kernel: Option<Option<Instant>>,
    cancellation: Option<&'a Cancellation>,
    /// Number of consecutive waits that returned immediately although the next attempt failed.
    false_readiness: u32,
}

/// Number of times the descriptor is polled again without a pause, because another thread may have
/// consumed the readiness.
const QUICK_POLLS: u32 = 2;

/// Longest pause between two attempts while poll(2) reports the descriptor as ready.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

impl<'a> Deadline<'a> {
    /// Creates a deadline with this timeout, as [`gettimeout`](crate::Socket::gettimeout) returns it.
    /// [`Socket::deadline`](crate::Socket::deadline) creates one with the timeout of a socket. A number
    /// of seconds is converted with [`to_timeout`](ToTimeout::to_timeout), which can fail.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::Deadline;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// // One deadline for several calls.
    /// let mut deadline = Deadline::new(Some(Duration::from_secs(10)));
    /// let mut byte = [0];
    /// while ours.recv_into_within(&mut byte, &mut deadline)? == 1 && byte != *b"o" {}
    /// assert_eq!(byte, *b"o");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new(timeout: Option<Duration>) -> Deadline<'a> {
        Deadline { timeout, at: None, kernel: None, cancellation: None, false_readiness: 0 }
    }

    pub(crate) fn with_cancellation(self, cancellation: Option<&'a Cancellation>) -> Deadline<'a> {
        Deadline { cancellation, ..self }
    }

    /// Returns the remaining time, or `None` for no limit. The first call starts the timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::Deadline;
    ///
    /// let mut deadline = Deadline::new(Some(Duration::from_secs(10)));
    /// assert_eq!(deadline.remaining(), Some(Duration::from_secs(10)));
    /// assert!(deadline.remaining() <= Some(Duration::from_secs(10)));
    /// assert_eq!(Deadline::new(None).remaining(), None);
    /// ```
    pub fn remaining(&mut self) -> Option<Duration> {
        let timeout = self.timeout?;
        let now = Instant::now();
        match self.at {
            Some(at) => Some(at.saturating_duration_since(now)),
            None => {
                self.at = now.checked_add(timeout);
                // A point in time that the clock cannot represent is never reached.
                if self.at.is_none() {
                    self.timeout = None;
                }
                self.timeout
            }
        }
    }

    /// Fails if the deadline has expired. For calls that continue without waiting.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        if !self.is_nonblocking() && self.remaining() == Some(Duration::ZERO) {
            return Err(timed_out());
        }
        Ok(())
    }

    /// Enforces `SO_RCVTIMEO` or `SO_SNDTIMEO` after an `EINTR` in blocking mode. The kernel
    /// restarts the timeout with each attempt, so signals could extend it without limit. The time
    /// is measured from the first signal, so a call takes at most twice its timeout.
    fn enforce_kernel_timeout(&mut self, fd: BorrowedFd<'_>, readiness: Readiness) -> io::Result<()> {
        // With a cancellation, the wait before the next attempt enforces the timeout.
        if self.timeout.is_some() || self.cancellation.is_some() {
            return Ok(());
        }
        let Some(until) = self.kernel_limit(fd, readiness) else { return Ok(()) };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match poll_until_signal(&mut [Poll::new(&fd, readiness.events())], Some(left)) {
                // The error that the kernel returns.
                Ok(0) => return Err(io::Error::from_raw_os_error(c::EAGAIN)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => cancel::check_interrupt_hook()?,
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Returns when `SO_RCVTIMEO` or `SO_SNDTIMEO` expires for a call that starts now.
    fn kernel_limit(&mut self, fd: BorrowedFd<'_>, readiness: Readiness) -> Option<Instant> {
        *self.kernel.get_or_insert_with(|| {
            let limit = sys::kernel_timeout(fd, matches!(readiness, Readiness::Readable));
            limit.and_then(|limit| Instant::now().checked_add(limit))
        })
    }

    /// Returns how long a wait may take, and fails if the deadline has expired. In blocking mode
    /// the limit is the kernel's own timeout, which a non-blocking descriptor does not enforce.
    pub(crate) fn remaining_wait(
        &mut self,
        fd: BorrowedFd<'_>,
        readiness: Readiness,
    ) -> io::Result<Option<Duration>> {
        if self.timeout.is_some() {
            return match self.remaining() {
                Some(Duration::ZERO) => Err(timed_out()),
                left => Ok(left),
            };
        }
        match self.kernel_limit(fd, readiness).map(|at| at.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => Err(io::Error::from_raw_os_error(c::EAGAIN)),
            left => Ok(left),
        }
    }

    /// Prepares for another system call under the same deadline.
    pub(crate) fn next_call(&mut self) {
        self.kernel = None;
        self.false_readiness = 0;
    }

    /// Resets the pauses after a successful attempt of the same call.
    pub(crate) fn reset_pauses(&mut self) {
        self.false_readiness = 0;
    }

    /// Pauses before the next attempt, for conditions that poll(2) does not report. Each pause is
    /// longer than the one before, up to [`LONGEST_PAUSE`]. Fails with `Interrupted` if a signal
    /// arrives.
    pub(crate) fn pause(&mut self, fd: BorrowedFd<'_>, readiness: Readiness) -> io::Result<()> {
        let left = self.remaining_wait(fd, readiness)?.unwrap_or(LONGEST_PAUSE);
        let doubled = self.false_readiness.saturating_sub(QUICK_POLLS).min(4);
        let pause = Duration::from_millis(1 << doubled).min(LONGEST_PAUSE).min(left);
        self.false_readiness = self.false_readiness.saturating_add(1);
        let Some(cancellation) = self.cancellation else {
            std::thread::sleep(pause);
            return Ok(());
        };
        match poll_until_signal(&mut [Poll::new(&cancellation.watched(), POLLIN)], Some(pause)) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Aborted::Cancelled.into()),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the call blocks for its caller although its descriptor is non-blocking.
    pub(crate) fn emulates_blocking(&self) -> bool {
        self.timeout.is_none() && self.cancellation.is_some()
    }

    /// Returns whether a call that would block must fail immediately.
    fn is_nonblocking(&self) -> bool {
        self.timeout == Some(Duration::ZERO)
    }

    /// Returns whether a call that would block waits in poll(2). In blocking mode the kernel waits:
    /// `EAGAIN` then comes from `SO_RCVTIMEO`, from `SO_SNDTIMEO` or from a descriptor that other
    /// code made non-blocking, and is returned to the caller.
    pub(crate) fn must_wait(&self) -> bool {
        !self.is_nonblocking() && (self.timeout.is_some() || self.cancellation.is_some())
    }
}

impl fmt::Debug for Deadline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline")
            .field("timeout", &self.timeout)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// The readiness that a call waits for.
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

/// Calls `attempt` until it succeeds or fails with a permanent error, and waits in between as the
/// mode requires. `EINTR` is retried in every mode (PEP 475), unless the hook aborts the call.
#[inline]
pub(crate) fn retry<T>(
    fd: BorrowedFd<'_>,
    readiness: Readiness,
    deadline: &mut Deadline<'_>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    match attempt() {
        Ok(value) => Ok(value),
        Err(error) => retry_after(error, fd, readiness, deadline, attempt),
    }
}

/// Continues [`retry`] after a failed attempt.
pub(crate) fn retry_after<T>(
    mut error: io::Error,
    fd: BorrowedFd<'_>,
    readiness: Readiness,
    deadline: &mut Deadline<'_>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    deadline.next_call();
    loop {
        wait_before_retry(fd, readiness, deadline, error)?;
        match attempt() {
            Ok(value) => return Ok(value),
            Err(next) => error = next,
        }
        if deadline.emulates_blocking() && error.kind() == io::ErrorKind::BrokenPipe {
            error = so_error_after_epipe(fd).unwrap_or(error);
        }
    }
}

/// Returns the error that woke a send. A call that blocks in the kernel returns it; a call made
/// afterwards returns `EPIPE` instead (`unix_stream_sendmsg`).
fn so_error_after_epipe(fd: BorrowedFd<'_>) -> Option<io::Error> {
    let mut number = [0; 4];
    sys::getsockopt(fd, c::SOL_SOCKET, c::SO_ERROR, &mut number).ok()?;
    Some(i32::from_ne_bytes(number)).filter(|number| *number != 0).map(io::Error::from_raw_os_error)
}

/// Waits until a retry after `error` can succeed, or returns the error.
#[cold]
fn wait_before_retry(
    fd: BorrowedFd<'_>,
    readiness: Readiness,
    deadline: &mut Deadline<'_>,
    error: io::Error,
) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => {
            cancel::check_interrupt_hook()?;
            deadline.enforce_kernel_timeout(fd, readiness)
        }
        io::ErrorKind::WouldBlock if deadline.must_wait() => wait(fd, readiness, deadline).map(drop),
        _ => Err(error),
    }
}

/// Waits until `fd` is ready and returns the events that poll(2) reported. Fails with `TimedOut` at
/// the deadline, with `EAGAIN` at the end of the kernel's own timeout, and if the call is
/// cancelled.
///
/// A descriptor may be reported as ready although the attempt still fails. A queued error
/// (`IP_RECVERR`) is `POLLERR` but not an error of recv(2), and sendto(2) of an `AF_UNIX` datagram
/// waits for the receiver, which poll(2) does not check. Such a wait becomes a pause, because it
/// would otherwise use a whole processor.
pub(crate) fn wait(
    fd: BorrowedFd<'_>,
    readiness: Readiness,
    deadline: &mut Deadline<'_>,
) -> io::Result<Events> {
    loop {
        match wait_until_signal(fd, readiness, deadline) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => cancel::check_interrupt_hook()?,
            result => return result,
        }
    }
}

/// As [`wait`], but fails with `Interrupted` if a signal arrives, without running the hook.
pub(crate) fn wait_until_signal(
    fd: BorrowedFd<'_>,
    readiness: Readiness,
    deadline: &mut Deadline<'_>,
) -> io::Result<Events> {
    if deadline.false_readiness >= QUICK_POLLS {
        deadline.pause(fd, readiness)?;
    }
    let begin = Instant::now();
    loop {
        // Checked before each wait, so that repeated false readiness ends at the deadline.
        let left = deadline.remaining_wait(fd, readiness)?;
        let cancelled = deadline.cancellation.map(Cancellation::watched);
        // Without a cancellation the second entry is not passed to poll(2).
        let mut set =
            [Poll::new(&fd, readiness.events()), Poll::new(cancelled.as_ref().unwrap_or(&fd), POLLIN)];
        let watched = 1 + usize::from(cancelled.is_some());
        match poll_until_signal(&mut set[..watched], left) {
            Ok(0) => {}
            Ok(_) if watched == 2 && set[1].revents() != 0 => return Err(Aborted::Cancelled.into()),
            Ok(_) => {
                let waited = begin.elapsed() >= Duration::from_millis(1);
                deadline.false_readiness = if waited { 0 } else { deadline.false_readiness + 1 };
                return Ok(set[0].revents());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Event bits of [`Poll`], such as [`POLLIN`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sock::{Events, POLLIN, Poll};
///
/// let (ours, theirs) = sock::socketpair()?;
/// theirs.sendall(b"hello")?;
/// let mut set = [Poll::new(&ours, POLLIN)];
/// sock::poll(&mut set, Some(Duration::ZERO))?;
/// let events: Events = set[0].revents();
/// assert_ne!(events & POLLIN, 0);
/// # std::io::Result::Ok(())
/// ```
pub type Events = i16;

/// Data can be received, a connection can be accepted, or the end of file can be read.
pub const POLLIN: Events = c::POLLIN;
/// Data can be sent, or a connect has completed.
pub const POLLOUT: Events = c::POLLOUT;
/// An error is pending. Always reported, even if not requested.
pub const POLLERR: Events = c::POLLERR;
/// The peer has closed the connection. Always reported, even if not requested.
pub const POLLHUP: Events = c::POLLHUP;

pub use crate::sys::Poll;

impl<'a> Poll<'a> {
    /// Creates an entry for `events` of `fd`, which may be a socket or any other descriptor.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::{POLLIN, POLLOUT, Poll};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let mut set = [Poll::new(&ours, POLLIN | POLLOUT)];  // poll.register(sock, select.POLLIN | select.POLLOUT)
    /// assert_eq!(sock::poll(&mut set, Some(Duration::ZERO))?, 1);
    /// assert_eq!(set[0].revents(), POLLOUT);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new(fd: &'a (impl AsFd + ?Sized), events: Events) -> Poll<'a> {
        Poll { fd: fd.as_fd(), events, revents: 0 }
    }

    /// Returns the events that the last [`poll`] reported, or 0 for none.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::{POLLHUP, POLLIN, Poll};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// drop(theirs);
    /// let mut set = [Poll::new(&ours, POLLIN)];
    /// sock::poll(&mut set, Some(Duration::from_secs(1)))?;
    /// // The end of file can be read.
    /// assert_ne!(set[0].revents() & (POLLIN | POLLHUP), 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn revents(&self) -> Events {
        self.revents
    }
}

/// Waits until a descriptor is ready and returns the number of ready descriptors.
///
/// Python: `select.poll().poll(timeout)`. System call: poll(2), once, and again for the remaining time
/// after a signal handler ran. Returns 0 when `timeout` has expired; `None` waits indefinitely. The
/// timeout is rounded up to milliseconds and limited to 24 days.
///
/// A number is in **milliseconds**, as in Python, and a negative number waits indefinitely. Every other
/// timeout of this crate is in seconds. A [`Duration`] has its own unit.
///
/// # Errors
///
/// Returns an error if `timeout` is NaN or infinite (`InvalidInput`), if poll(2) fails, or if a signal
/// handler ran and the hook of [`set_interrupt_hook`](crate::set_interrupt_hook) ends the call.
///
/// # Examples
///
/// ```
/// use sock::{POLLIN, Poll};
/// use std::time::Duration;
///
/// let (ours, theirs) = sock::socketpair()?;
/// let mut set = [Poll::new(&ours, POLLIN)];
/// assert_eq!(sock::poll(&mut set, 10)?, 0);                 // poll.poll(10): 10 ms
/// assert_eq!(sock::poll(&mut set, Duration::ZERO)?, 0);
/// theirs.sendall(b"ready")?;
/// assert_eq!(sock::poll(&mut set, None)?, 1);
/// assert_eq!(set[0].revents(), POLLIN);
/// # std::io::Result::Ok(())
/// ```
pub fn poll(set: &mut [Poll<'_>], timeout: impl ToTimeout) -> io::Result<usize> {
    poll_within(set, timeout.to_poll_timeout()?)
}

fn poll_within(set: &mut [Poll<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    // A poll that does not wait is rarely interrupted, and needs no clock.
    let begin = timeout.filter(|timeout| !timeout.is_zero()).map(|_| Instant::now());
    let observed = trace::enabled().then(Instant::now);
    let mut left = timeout;
    loop {
        match poll_until_signal(set, left) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => cancel::check_interrupt_hook()?,
            result => {
                if let Some(begin) = observed.filter(|_| hint::enabled()) {
                    let ready = set.iter().filter(|entry| entry.revents != 0);
                    hint::polled(ready.map(|entry| (entry.fd.as_raw_fd(), entry.revents)), begin.elapsed());
                }
                return result;
            }
        }
        left = remaining(timeout, begin);
    }
}

/// What is left of a timeout that began then. A timeout without a begin has not begun.
fn remaining(timeout: Option<Duration>, begin: Option<Instant>) -> Option<Duration> {
    Some(timeout?.saturating_sub(begin.map_or(Duration::ZERO, |begin| begin.elapsed())))
}

/// As [`poll`], but fails with `Interrupted` if a signal arrives, without running the hook.
pub(crate) fn poll_until_signal(set: &mut [Poll<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let ready = call!("poll({}, {})", DisplayPollSet(set), DisplayTimeout(timeout) =>
        sys::poll(set, timeout).map(|count| ReadySet { count, set: &*set }))?;
    Ok(ready.count)
}

/// The result of poll(2): the number of sockets that are ready, and their events.
struct ReadySet<'a, 'b> {
    count: usize,
    set: &'a [Poll<'b>],
}

impl TraceValue for ReadySet<'_, '_> {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count)?;
        let mut separator = " (";
        for poll in self.set.iter().filter(|poll| poll.revents != 0) {
            write!(f, "{separator}{{{}, {}}}", poll.fd.as_raw_fd(), DisplayEvents(poll.revents))?;
            separator = ", ";
        }
        f.write_str(if self.count == 0 { "" } else { ")" })
    }
}

/// The polled descriptors as strace shows them: `[{3, POLLIN}]`.
struct DisplayPollSet<'a, 'b>(&'a [Poll<'b>]);

impl fmt::Display for DisplayPollSet<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "[";
        for poll in self.0 {
            write!(f, "{separator}{{{}, {}}}", poll.fd.as_raw_fd(), DisplayEvents(poll.events))?;
            separator = ", ";
        }
        f.write_str(if self.0.is_empty() { "[]" } else { "]" })
    }
}

pub(crate) struct DisplayTimeout(pub(crate) Option<Duration>);

impl fmt::Display for DisplayTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(timeout) => write!(f, "{timeout:?}"),
            None => f.write_str("-1"),
        }
    }
}

struct DisplayEvents(Events);

impl fmt::Display for DisplayEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            POLLIN => f.write_str("POLLIN"),
            POLLOUT => f.write_str("POLLOUT"),
            events => write!(f, "{events:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Socket, Type};

    use super::*;

    const MODES: [Option<Duration>; 3] = [None, Some(Duration::ZERO), Some(Duration::from_secs(10))];
    /// How long a test waits before it reports that a wait did not end.
    const LONG_AFTER: Duration = Duration::from_secs(20);

    #[test]
    fn an_interrupted_poll_that_does_not_wait_does_not_wait_afterwards() {
        assert_eq!(remaining(Some(Duration::ZERO), None), Some(Duration::ZERO));
        assert_eq!(remaining(None, None), None);
        let hour = Duration::from_secs(3600);
        assert!(remaining(Some(hour), Some(Instant::now())).is_some_and(|left| left <= hour));
        assert_eq!(remaining(Some(Duration::ZERO), Some(Instant::now())), Some(Duration::ZERO));
    }

    /// Creates a pair whose first end is always writable and never readable.
    fn end_of_a_pair() -> (Socket, Socket) {
        sys::socketpair(sys::PAIR_FAMILY.into(), Type::STREAM, None).unwrap()
    }

    fn fails_with(number: i32) -> io::Result<&'static str> {
        Err(io::Error::from_raw_os_error(number))
    }

    /// Retries through the given outcomes and returns the result and the number of attempts.
    fn retry_through<const N: usize>(
        mode: Option<Duration>,
        outcomes: [io::Result<&'static str>; N],
    ) -> (io::Result<&'static str>, usize) {
        let (fd, _peer) = end_of_a_pair();
        let mut outcomes = outcomes.into_iter();
        let result = retry(fd.as_fd(), Readiness::Writable, &mut Deadline::new(mode), || {
            outcomes.next().expect("no attempt after the last outcome")
        });
        (result, N - outcomes.len())
    }

    #[test]
    fn a_call_that_succeeds_is_tried_once_and_does_not_wait() {
        for mode in MODES {
            let mut deadline = Deadline::new(mode);
            let (never_readable, _peer) = end_of_a_pair();
            let result = retry(never_readable.as_fd(), Readiness::Readable, &mut deadline, || Ok(7));
            assert_eq!(result.unwrap(), 7);
            assert!(deadline.at.is_none(), "the deadline is set at the first wait");
        }
    }

    #[test]
    fn other_errors_are_returned_in_every_mode() {
        for mode in MODES {
            let (result, tries) = retry_through(mode, [fails_with(c::ECONNRESET), Ok("never")]);
            assert_eq!((result.unwrap_err().raw_os_error(), tries), (Some(c::ECONNRESET), 1), "{mode:?}");
        }
    }

    #[test]
    fn eagain_is_returned_unless_a_timeout_is_set() {
        for mode in [None, Some(Duration::ZERO)] {
            let (result, tries) = retry_through(mode, [fails_with(c::EAGAIN), Ok("never")]);
            assert_eq!((result.unwrap_err().raw_os_error(), tries), (Some(c::EAGAIN), 1), "{mode:?}");
        }
        let timeout = Some(LONG_AFTER);
        let (result, tries) = retry_through(timeout, [fails_with(c::EAGAIN), Ok("done")]);
        assert_eq!((result.unwrap(), tries), ("done", 2));
    }

    #[test]
    fn a_call_waits_again_after_false_readiness() {
        let again = || fails_with(c::EAGAIN);
        let (result, tries) = retry_through(Some(LONG_AFTER), [again(), again(), again(), Ok("done")]);
        assert_eq!((result.unwrap(), tries), ("done", 4));
    }

    /// A Unix datagram socket is "writable" while its receiver's queue is full.
    #[test]
    fn repeated_false_readiness_ends_with_timed_out_at_the_deadline() {
        let (always_writable, _peer) = end_of_a_pair();
        let timeout = Duration::from_millis(30);
        let begin = Instant::now();
        let mut deadline = Deadline::new(Some(timeout));
        let result = retry(always_writable.as_fd(), Readiness::Writable, &mut deadline, || {
            if begin.elapsed() > LONG_AFTER {
                return Ok("was tried long after the deadline");
            }
            fails_with(c::EAGAIN)
        });
        assert_eq!(result.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert!(begin.elapsed() >= timeout, "after {:?}", begin.elapsed());
    }

    #[test]
    fn a_timeout_error_has_no_errno_and_is_not_early() {
        for timeout in [Duration::from_nanos(1), Duration::from_micros(1500), Duration::from_millis(20)] {
            let (never_readable, _peer) = end_of_a_pair();
            let begin = Instant::now();
            let error =
                wait(never_readable.as_fd(), Readiness::Readable, &mut Deadline::new(Some(timeout)))
                    .unwrap_err();
            assert!(begin.elapsed() >= timeout, "after {:?}", begin.elapsed());
            assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::TimedOut, None));
        }
    }

    #[test]
    fn a_second_wait_of_a_call_uses_the_remaining_time() {
        let (fd, _peer) = end_of_a_pair();
        let mut deadline = Deadline::new(Some(LONG_AFTER));
        wait(fd.as_fd(), Readiness::Writable, &mut deadline).unwrap();
        let at = deadline.at.expect("set at the first wait");
        let left = deadline.remaining().unwrap();
        wait(fd.as_fd(), Readiness::Writable, &mut deadline).unwrap();
        assert_eq!(deadline.at, Some(at));
        assert!(deadline.remaining().unwrap() <= left);
    }

    #[test]
    fn an_expired_deadline_stays_expired() {
        let (fd, _peer) = end_of_a_pair();
        let mut deadline = Deadline::new(Some(Duration::from_millis(1)));
        for _ in 0..3 {
            let error = wait(fd.as_fd(), Readiness::Readable, &mut deadline).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(deadline.remaining(), Some(Duration::ZERO));
        }
    }

    #[test]
    fn a_deadline_beyond_the_clock_never_expires() {
        let mut deadline = Deadline::new(Some(Duration::MAX));
        assert_eq!(deadline.remaining(), None);
        assert!(!deadline.is_nonblocking());
    }

    #[test]
    fn no_timeout_has_no_deadline() {
        let mut deadline = Deadline::new(None);
        assert_eq!(deadline.remaining(), None);
        assert!(deadline.at.is_none());
    }

    // Windows has no signals that interrupt system calls.
    #[cfg(unix)]
    mod signals {
        use super::*;

        #[test]
        fn signals_do_not_extend_the_kernel_timeout() {
            let (ours, theirs) = crate::create::create_server::socketpair().unwrap();
            ours.set_recv_timeout(Duration::from_millis(50)).unwrap();
            let (mut tries, begin) = (0, Instant::now());
            let mut interrupted = || {
                tries += 1;
                assert!(tries < 10_000, "the retries do not end");
                fails_with(c::EINTR)
            };
            let result =
                retry(ours.as_fd(), Readiness::Readable, &mut Deadline::new(None), &mut interrupted);
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
            assert!(begin.elapsed() >= Duration::from_millis(50));
            // Data that arrives in time is received.
            theirs.send(b"!").unwrap();
            let mut outcomes = [fails_with(c::EINTR), Ok("received")].into_iter();
            let result = retry(ours.as_fd(), Readiness::Readable, &mut Deadline::new(None), || {
                outcomes.next().expect("no attempt after the last outcome")
            });
            assert_eq!(result.unwrap(), "received");
        }

        #[test]
        fn eintr_is_retried_in_every_mode() {
            for mode in MODES {
                let interrupted = || fails_with(c::EINTR);
                let (result, tries) =
                    retry_through(mode, [interrupted(), interrupted(), interrupted(), Ok("done")]);
                assert_eq!((result.unwrap(), tries), ("done", 4), "{mode:?}");
            }
        }
    }
}
