//! Leaving a call before it is done: after a signal, or because another thread says so.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::sys::{self, AsFd, BorrowedFd};

static HOOK: RwLock<Option<fn() -> bool>> = RwLock::new(None);

/// Sets what is asked whenever a signal interrupts a call: does the call go on?
///
/// Python: the signal handlers that run inside a socket call (PEP 475), and may
/// leave it with an exception. Without a hook every call goes on, with the time
/// that is left of its timeout. The hook is asked in the thread of the call, on
/// every `EINTR` and between the pieces of
/// [`sendall`](crate::Socket::sendall); when it returns false the call fails with
/// an error that [`was_interrupted`] knows. It is one for the whole process:
/// a library had better leave it alone, or ask the one before, which is returned (as
/// Python's `signal.signal` does).
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

/// Asks the hook; fails if it says stop.
pub(crate) fn check_interrupt_hook() -> io::Result<()> {
    let hook = *HOOK.read().unwrap_or_else(PoisonError::into_inner);
    match hook {
        Some(goes_on) if !goes_on() => Err(Aborted::Interrupted.into()),
        _ => Ok(()),
    }
}

/// Whether a call failed because the hook of [`set_interrupt_hook`] said stop.
///
/// The error's kind is not `Interrupted`: `read_exact`, `write_all` and their
/// like would begin the call anew.
///
/// # Examples
///
/// ```
/// let (ours, _theirs) = sock::socketpair()?;
/// ours.setblocking(false)?;
/// assert!(!sock::was_interrupted(&ours.recv(1).unwrap_err())); // there was just nothing
/// # std::io::Result::Ok(())
/// ```
#[must_use]
pub fn was_interrupted(error: &io::Error) -> bool {
    Aborted::of(error) == Some(Aborted::Interrupted)
}

/// Whether a call failed because of [`Canceller::cancel`].
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

/// Why a call was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aborted {
    Interrupted,
    Cancelled,
}

impl Aborted {
    fn of(error: &io::Error) -> Option<Aborted> {
        error.get_ref()?.downcast_ref().copied()
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

/// Ends the waits of a socket from any thread.
///
/// Python has nothing like it: there `close` in one thread leaves the `recv` of
/// another asleep. Made by [`Socket::canceller`](crate::Socket::canceller).
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
    /// Ends every wait of the socket, now and from now on.
    ///
    /// System call: shutdown(2) of a pair that is watched beside the socket. A call
    /// that need not wait still succeeds. Calling it again does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.canceller()?.cancel();
    /// assert!(sock::was_cancelled(&ours.recv(1).unwrap_err()));
    /// theirs.sendall(b"x")?;
    /// assert_eq!(ours.recv(1)?, b"x"); // that need not wait
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cancel(&self) {
        // It fails only for what has been shut down before.
        let _ = self.0.ours.shutdown(Shutdown::Write);
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canceller")
    }
}

/// Two ends: shutting one down wakes whoever polls the other.
pub(crate) struct Cancellation {
    ours: socket2::Socket,
    watched: socket2::Socket,
    /// `SO_RCVLOWAT` of the socket: a descriptor that does not block ignores it.
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

    /// What is readable once it is cancelled.
    pub(crate) fn watched(&self) -> BorrowedFd<'_> {
        self.watched.as_fd()
    }
}
