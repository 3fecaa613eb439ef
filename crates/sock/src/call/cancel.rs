//! Aborting a call: after a signal, or from another thread.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::find_error;
use crate::sys::{self, AsFd, BorrowedFd};

/// Held to copy and to replace the pointer. The hook is called without it.
static HOOK: RwLock<Option<fn() -> bool>> = RwLock::new(None);

/// Sets the process-wide hook that runs when a signal interrupts a system call.
///
/// Python: the signal handlers that run inside a socket call (PEP 475) and may abort it with an
/// exception. Returns the previous hook, as Python's `signal.signal` does.
///
/// The hook runs in the thread of the call, after every `EINTR` and between the pieces of
/// [`sendall`](crate::Socket::sendall). If it returns true, or if no hook is set, the call is
/// retried with the time that remains of its timeout. If it returns false, the call fails with an
/// error for which [`was_interrupted`] is true. Libraries should not change the hook, or should
/// call the previous one.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// static STOP: AtomicBool = AtomicBool::new(false); // set by a signal handler
///
/// sock::set_interrupt_hook(Some(|| !STOP.load(Ordering::Relaxed)));
/// # sock::set_interrupt_hook(None);
/// ```
pub fn set_interrupt_hook(hook: Option<fn() -> bool>) -> Option<fn() -> bool> {
    std::mem::replace(&mut *HOOK.write().unwrap_or_else(PoisonError::into_inner), hook)
}

/// Runs the hook, and fails if it returns false.
pub(crate) fn check_interrupt_hook() -> io::Result<()> {
    let hook = *HOOK.read().unwrap_or_else(PoisonError::into_inner);
    match hook {
        Some(hook) if !hook() => Err(Aborted::Interrupted.into()),
        _ => Ok(()),
    }
}

/// Returns whether a call failed because the hook of [`set_interrupt_hook`] returned false.
///
/// The kind of such an error is not `Interrupted`, because `read_exact`, `write_all` and similar
/// functions would retry the call.
///
/// # Examples
///
/// ```
/// let (ours, _theirs) = sock::socketpair()?;
/// ours.setblocking(false)?;
/// assert!(!sock::was_interrupted(&ours.recv(1).unwrap_err())); // no data was available
/// # std::io::Result::Ok(())
/// ```
#[must_use]
pub fn was_interrupted(error: &io::Error) -> bool {
    Aborted::of(error) == Some(Aborted::Interrupted)
}

/// Returns whether a call failed because of [`Canceller::cancel`].
///
/// # Examples
///
/// ```
/// let (ours, _theirs) = sock::socketpair()?;
/// ours.canceller()?.cancel();
/// assert!(sock::was_cancelled(&ours.recv(1).unwrap_err()));
/// # std::io::Result::Ok(())
/// ```
#[must_use]
pub fn was_cancelled(error: &io::Error) -> bool {
    Aborted::of(error) == Some(Aborted::Cancelled)
}

/// The reason why a call was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aborted {
    Interrupted,
    Cancelled,
}

impl Aborted {
    fn of(error: &io::Error) -> Option<Aborted> {
        find_error(error).copied()
    }
}

impl From<Aborted> for io::Error {
    fn from(why: Aborted) -> io::Error {
        io::Error::other(why)
    }
}

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Aborted::Interrupted => "interrupted by a signal",
            Aborted::Cancelled => "cancelled by another thread",
        })
    }
}

impl Error for Aborted {}

/// Cancels the waits of a socket from any thread.
///
/// Python: none; closing a socket in one thread does not wake a `recv` in another. Created by
/// [`Socket::canceller`](crate::Socket::canceller).
///
/// # Examples
///
/// ```
/// let listener = sock::create_server(("127.0.0.1", 0))?;
/// let canceller = listener.canceller()?;
/// let waiting = std::thread::spawn(move || listener.accept());
/// canceller.cancel();
/// let error = waiting.join().unwrap().unwrap_err();
/// assert!(sock::was_cancelled(&error));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Canceller(pub(crate) Arc<Cancellation>);

impl Canceller {
    /// Cancels every present and future wait of the socket.
    ///
    /// System call: shutdown(2) of a socket pair that is polled together with the socket. A call
    /// that does not have to wait still succeeds. Calling `cancel` again does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.canceller()?.cancel();
    /// assert!(sock::was_cancelled(&ours.recv(1).unwrap_err()));
    /// theirs.sendall(b"x")?;
    /// assert_eq!(ours.recv(1)?, b"x"); // does not have to wait
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cancel(&self) {
        // It fails only if the pair has been shut down before.
        let _ = self.0.ours.shutdown(Shutdown::Write);
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canceller")
    }
}

/// A socket pair. Shutting one end down wakes the threads that poll the other.
pub(crate) struct Cancellation {
    ours: socket2::Socket,
    watched: socket2::Socket,
    /// `SO_RCVLOWAT` of the socket, which a non-blocking descriptor ignores.
    low_water: AtomicUsize,
}

impl Cancellation {
    pub(crate) fn new(low_water: usize) -> io::Result<Cancellation> {
        let (ours, watched) = sys::socketpair(sys::PAIR_FAMILY.into(), socket2::Type::STREAM, None)?;
        Ok(Cancellation { ours, watched, low_water: low_water.into() })
    }

    pub(crate) fn low_water(&self) -> usize {
        self.low_water.load(Ordering::Relaxed)
    }

    pub(crate) fn set_low_water(&self, bytes: usize) {
        self.low_water.store(bytes, Ordering::Relaxed);
    }

    /// The descriptor that becomes readable when the socket is cancelled.
    pub(crate) fn watched(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}
