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

use crate::call::cancel::{self, Aborted, Cancellation};
use crate::call::trace::call;
use crate::error::{out_of_range, timed_out};
use crate::sys::{self, AsFd, AsRawFd, BorrowedFd, c};

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
                _ => return Err(out_of_range(format!("timeout {timeout:?} is too long"))),
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

/// Sets the timeout of sockets made from now on, accepted ones included.
///
/// Python: `socket.setdefaulttimeout(timeout)`. No system call. It is one for
/// the whole process: a library had better leave it alone.
///
/// # Errors
///
/// `InvalidInput` for more than 584 years.
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
pub fn setdefaulttimeout(timeout: impl Into<Option<Duration>>) -> io::Result<()> {
    DEFAULT_TIMEOUT.set(timeout.into())
}

/// When a call has to give up: a timeout until its first wait, then a point in
/// time; or when it is cancelled.
///
/// Python: none; `ssl` and `sendall` have it inside. For who makes one call of
/// several, such as a TLS handshake: [`Socket::recv_into_within`](crate::Socket::recv_into_within)
/// and [`Socket::send_within`](crate::Socket::send_within) share it.
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
    /// When the kernel's own timeout is over, once a signal has come: see
    /// [`enforce_kernel_timeout`](Self::enforce_kernel_timeout).
    kernel: Option<Option<Instant>>,
    cancellation: Option<&'a Cancellation>,
    /// How many waits in a row were over at once, though the attempt behind them could not go on.
    false_readiness: u32,
}

/// So often the descriptor is polled again at once: another thread may just have been quicker.
const QUICK_POLLS: u32 = 2;

/// Longest pause between two attempts while poll(2) says that the descriptor is ready.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

impl<'a> Deadline<'a> {
    /// A deadline of a socket with this timeout; that of a socket as it is:
    /// [`Socket::deadline`](crate::Socket::deadline).
    #[must_use]
    pub fn new(timeout: Option<Duration>) -> Deadline<'a> {
        Deadline { timeout, at: None, kernel: None, cancellation: None, false_readiness: 0 }
    }

    pub(crate) fn with_cancellation(self, cancellation: Option<&'a Cancellation>) -> Deadline<'a> {
        Deadline { cancellation, ..self }
    }

    /// Time left, `None` for no limit; asking for it fixes the point in time.
    pub fn left(&mut self) -> Option<Duration> {
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

    /// Fails when the time is over, of a call that goes on without having to wait.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        if !self.is_nonblocking() && self.left() == Some(Duration::ZERO) {
            return Err(timed_out());
        }
        Ok(())
    }

    /// After an `EINTR` in blocking mode: keeps `SO_RCVTIMEO` or `SO_SNDTIMEO`, which
    /// the kernel would begin anew with the next attempt, so that signals could put it
    /// off for ever. Its beginning is known from the first signal on: such a call takes
    /// twice its time at most.
    fn enforce_kernel_timeout(&mut self, fd: BorrowedFd<'_>, readiness: Readiness) -> io::Result<()> {
        // With a cancellation the wait for the next attempt keeps it.
        if self.timeout.is_some() || self.cancellation.is_some() {
            return Ok(());
        }
        let Some(until) = self.kernel_limit(fd, readiness) else { return Ok(()) };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match poll(&mut [Poll::new(&fd, readiness.events())], Some(left)) {
                // As the kernel would say.
                Ok(0) => return Err(io::Error::from_raw_os_error(c::EAGAIN)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => cancel::check_interrupt_hook()?,
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// When `SO_RCVTIMEO` or `SO_SNDTIMEO` is over, of a call that has begun by now.
    fn kernel_limit(&mut self, fd: BorrowedFd<'_>, readiness: Readiness) -> Option<Instant> {
        *self.kernel.get_or_insert_with(|| {
            let limit = sys::kernel_timeout(fd, matches!(readiness, Readiness::Readable));
            limit.and_then(|limit| Instant::now().checked_add(limit))
        })
    }

    /// How long a wait may be; fails when the time is over. In blocking mode the limit is the
    /// system's own, which a descriptor with a cancellation would not keep by itself.
    pub(crate) fn left_to_wait(
        &mut self,
        fd: BorrowedFd<'_>,
        readiness: Readiness,
    ) -> io::Result<Option<Duration>> {
        if self.timeout.is_some() {
            return match self.left() {
                Some(Duration::ZERO) => Err(timed_out()),
                left => Ok(left),
            };
        }
        match self.kernel_limit(fd, readiness).map(|at| at.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => Err(io::Error::from_raw_os_error(c::EAGAIN)),
            left => Ok(left),
        }
    }

    /// A new system call begins under the same deadline.
    pub(crate) fn next_call(&mut self) {
        self.kernel = None;
        self.false_readiness = 0;
    }

    /// An attempt has succeeded, and the same call goes on.
    pub(crate) fn goes_on(&mut self) {
        self.false_readiness = 0;
    }

    /// Waits a little before the next attempt, where poll(2) does not know when that makes
    /// sense; longer each time. Fails with `Interrupted` when a signal comes.
    pub(crate) fn pause(&mut self, fd: BorrowedFd<'_>, readiness: Readiness) -> io::Result<()> {
        let left = self.left_to_wait(fd, readiness)?.unwrap_or(LONGEST_PAUSE);
        let doubled = self.false_readiness.saturating_sub(QUICK_POLLS).min(4);
        let pause = Duration::from_millis(1 << doubled).min(LONGEST_PAUSE).min(left);
        self.false_readiness = self.false_readiness.saturating_add(1);
        let Some(cancellation) = self.cancellation else {
            std::thread::sleep(pause);
            return Ok(());
        };
        match poll(&mut [Poll::new(&cancellation.watched(), POLLIN)], Some(pause)) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Aborted::Cancelled.into()),
            Err(error) => Err(error),
        }
    }

    /// Whether the call blocks for its caller, and not for the system.
    pub(crate) fn stands_in_for_blocking(&self) -> bool {
        self.timeout.is_none() && self.cancellation.is_some()
    }

    /// Whether a call that would block has to fail at once.
    fn is_nonblocking(&self) -> bool {
        self.timeout == Some(Duration::ZERO)
    }

    /// Whether a call that would block has to wait here. In blocking mode the
    /// kernel waits: EAGAIN then comes only from `SO_RCVTIMEO`, `SO_SNDTIMEO` or
    /// a descriptor somebody else made non-blocking, and is the caller's to judge.
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
/// the mode says. EINTR means "again" in every mode (PEP 475), unless the hook
/// says otherwise.
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

/// [`retry`] after an attempt that has failed.
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
        if deadline.stands_in_for_blocking() && error.kind() == io::ErrorKind::BrokenPipe {
            error = behind_epipe(fd).unwrap_or(error);
        }
    }
}

/// The error that has woken a send. A call that sleeps in the system finds it first, and one that
/// is made afterwards finds that the peer is gone (`unix_stream_sendmsg`).
fn behind_epipe(fd: BorrowedFd<'_>) -> Option<io::Error> {
    let mut number = [0; 4];
    sys::getsockopt(fd, c::SOL_SOCKET, c::SO_ERROR, &mut number).ok()?;
    Some(i32::from_ne_bytes(number)).filter(|number| *number != 0).map(io::Error::from_raw_os_error)
}

/// Returns when it makes sense to try again after `error`.
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

/// Waits until `fd` is ready and returns what poll(2) found; fails with `TimedOut` at the
/// deadline, with `EAGAIN` at the system's own, and when it is cancelled.
///
/// A descriptor may be ready for as long as the attempt cannot go on: an error that is queued
/// (`IP_RECVERR`) is `POLLERR` but no error of recv(2), and sendto(2) of an AF_UNIX datagram waits for
/// the receiver, whom poll(2) does not know. Such a wait becomes a pause, or it would take all of
/// a processor.
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

/// [`wait`] that fails with `Interrupted` when a signal comes, and does not ask the hook.
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
        // Before each wait: readiness that proves false again and again must not
        // go on for ever.
        let left = deadline.left_to_wait(fd, readiness)?;
        let cancelled = deadline.cancellation.map(Cancellation::watched);
        // Without a cancellation the second place is not looked at.
        let mut set =
            [Poll::new(&fd, readiness.events()), Poll::new(cancelled.as_ref().unwrap_or(&fd), POLLIN)];
        let watched = 1 + usize::from(cancelled.is_some());
        match poll(&mut set[..watched], left) {
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
    call!("poll({}, {})", DisplayPollSet(set), DisplayTimeout(timeout) => sys::poll(set, timeout))
}

/// What is waited for, as strace shows it: `[{3, POLLIN}]`.
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

struct DisplayTimeout(Option<Duration>);

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
    /// When a wait that ought to be over is given up.
    const LONG_AFTER: Duration = Duration::from_secs(20);

    /// An end that can always be written to, and has nothing to be read.
    fn end_of_a_pair() -> (Socket, Socket) {
        sys::socketpair(sys::PAIR_FAMILY.into(), Type::STREAM, None).unwrap()
    }

    fn fails_with(number: i32) -> io::Result<&'static str> {
        Err(io::Error::from_raw_os_error(number))
    }

    /// Tries what gives one outcome after the other; says how often it was tried.
    fn retry_through<const N: usize>(
        mode: Option<Duration>,
        outcomes: [io::Result<&'static str>; N],
    ) -> (io::Result<&'static str>, usize) {
        let (fd, _peer) = end_of_a_pair();
        let mut outcomes = outcomes.into_iter();
        let result = retry(fd.as_fd(), Readiness::Writable, &mut Deadline::new(mode), || {
            outcomes.next().expect("tried after its last outcome")
        });
        (result, N - outcomes.len())
    }

    #[cfg(unix)]
    #[test]
    fn signals_do_not_put_off_the_systems_own_timeout() {
        let (ours, theirs) = crate::create::create_server::socketpair().unwrap();
        ours.set_recv_timeout(Duration::from_millis(50)).unwrap();
        let (mut tries, begin) = (0, Instant::now());
        let mut interrupted = || {
            tries += 1;
            assert!(tries < 10_000, "it goes on for ever");
            fails_with(c::EINTR)
        };
        let result = retry(ours.as_fd(), Readiness::Readable, &mut Deadline::new(None), &mut interrupted);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(begin.elapsed() >= Duration::from_millis(50));
        // What comes in time is received.
        theirs.send(b"!").unwrap();
        let mut outcomes = [fails_with(c::EINTR), Ok("received")].into_iter();
        let result = retry(ours.as_fd(), Readiness::Readable, &mut Deadline::new(None), || {
            outcomes.next().expect("tried after its last outcome")
        });
        assert_eq!(result.unwrap(), "received");
    }

    #[test]
    fn what_succeeds_at_once_is_tried_once_and_waits_for_nothing() {
        for mode in MODES {
            let mut deadline = Deadline::new(mode);
            let (never_readable, _peer) = end_of_a_pair();
            let result = retry(never_readable.as_fd(), Readiness::Readable, &mut deadline, || Ok(7));
            assert_eq!(result.unwrap(), 7);
            assert!(deadline.at.is_none(), "the deadline is fixed at the first wait");
        }
    }

    // Windows has no signals that interrupt.
    #[cfg(unix)]
    #[test]
    fn eintr_is_tried_again_in_every_mode() {
        for mode in MODES {
            let interrupted = || fails_with(c::EINTR);
            let (result, tries) =
                retry_through(mode, [interrupted(), interrupted(), interrupted(), Ok("done")]);
            assert_eq!((result.unwrap(), tries), ("done", 4), "{mode:?}");
        }
    }

    #[test]
    fn any_other_failure_is_the_callers_in_every_mode() {
        for mode in MODES {
            let (result, tries) = retry_through(mode, [fails_with(c::ECONNRESET), Ok("never")]);
            assert_eq!((result.unwrap_err().raw_os_error(), tries), (Some(c::ECONNRESET), 1), "{mode:?}");
        }
    }

    #[test]
    fn eagain_is_the_callers_but_with_a_timeout() {
        for mode in [None, Some(Duration::ZERO)] {
            let (result, tries) = retry_through(mode, [fails_with(c::EAGAIN), Ok("never")]);
            assert_eq!((result.unwrap_err().raw_os_error(), tries), (Some(c::EAGAIN), 1), "{mode:?}");
        }
        let timeout = Some(LONG_AFTER);
        let (result, tries) = retry_through(timeout, [fails_with(c::EAGAIN), Ok("done")]);
        assert_eq!((result.unwrap(), tries), ("done", 2));
    }

    #[test]
    fn false_readiness_is_waited_out() {
        let again = || fails_with(c::EAGAIN);
        let (result, tries) = retry_through(Some(LONG_AFTER), [again(), again(), again(), Ok("done")]);
        assert_eq!((result.unwrap(), tries), ("done", 4));
    }

    /// A Unix datagram socket is "writable" for as long as its receiver's queue is full.
    #[test]
    fn false_readiness_ends_in_timed_out_at_the_deadline() {
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
    fn the_end_of_a_wait_has_no_errno_and_is_not_early() {
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
    fn a_second_wait_of_a_call_has_only_what_the_first_left() {
        let (fd, _peer) = end_of_a_pair();
        let mut deadline = Deadline::new(Some(LONG_AFTER));
        wait(fd.as_fd(), Readiness::Writable, &mut deadline).unwrap();
        let at = deadline.at.expect("fixed at the first wait");
        let left = deadline.left().unwrap();
        wait(fd.as_fd(), Readiness::Writable, &mut deadline).unwrap();
        assert_eq!(deadline.at, Some(at));
        assert!(deadline.left().unwrap() <= left);
    }

    #[test]
    fn a_deadline_that_is_over_leaves_no_time() {
        let (fd, _peer) = end_of_a_pair();
        let mut deadline = Deadline::new(Some(Duration::from_millis(1)));
        for _ in 0..3 {
            let error = wait(fd.as_fd(), Readiness::Readable, &mut deadline).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert_eq!(deadline.left(), Some(Duration::ZERO));
        }
    }

    #[test]
    fn a_deadline_the_clock_cannot_name_is_never_over() {
        let mut deadline = Deadline::new(Some(Duration::MAX));
        assert_eq!(deadline.left(), None);
        assert!(!deadline.is_nonblocking());
    }

    #[test]
    fn no_timeout_has_no_deadline() {
        let mut deadline = Deadline::new(None);
        assert_eq!(deadline.left(), None);
        assert!(deadline.at.is_none());
    }

    #[test]
    fn a_timeout_is_one_word_and_none_is_not_zero() {
        let timeout = Timeout::blocking();
        assert_eq!(size_of::<Timeout>(), 8);
        assert_eq!(timeout.get(), None);
        for value in [None, Some(Duration::ZERO), Some(Duration::from_nanos(u64::MAX - 1))] {
            timeout.set(value).unwrap();
            assert_eq!(timeout.get(), value);
        }
        assert!(timeout.set(Some(Duration::from_nanos(u64::MAX))).is_err());
        assert_eq!(timeout.get(), Some(Duration::from_nanos(u64::MAX - 1)));
    }
}
