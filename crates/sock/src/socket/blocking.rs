//! Behaviour of blocking calls beyond waiting, for a socket whose descriptor is non-blocking
//! because it has a canceller.
//!
//! The kernel's blocking calls differ from "try, wait, retry" as follows:
//!
//! | call | behaviour |
//! | --- | --- |
//! | with `MSG_DONTWAIT` | does not wait |
//! | recv with `MSG_ERRQUEUE`, or with `MSG_OOB` on a stream | does not wait |
//! | recv with `MSG_WAITALL` on a stream | waits until the buffer is full, or for the end of file, an error or `SO_RCVTIMEO` |
//! | recv with `SO_RCVLOWAT` on a stream | waits for that number of bytes |
//! | recv that waits for more | ends after descriptors, at urgent data, and at a signal |
//! | send on a stream | waits until all bytes are sent, or for an error or `SO_SNDTIMEO` |
//! | sendmmsg | waits for each datagram |
//! | connect to an `AF_UNIX` listener whose queue is full | waits for room |
//! | connect while an earlier connect is in progress | waits for its result |
//!
//! `SO_RCVTIMEO`, `SO_SNDTIMEO` and false readiness are handled in `call/deadline.rs`, connect in
//! `connect.rs`, and sendmmsg in `batch.rs`.

use std::io;
use std::time::Duration;

use crate::call::deadline::{self, Deadline, POLLERR, POLLHUP, Readiness};
use crate::call::timeout::Timeout;
use crate::consts::{MSG_WAITALL, MsgFlags, SOCK_STREAM};
use crate::socket::Socket;
use crate::sys::{self, AsFd};

impl Socket {
    /// Returns whether neither [`settimeout`](Self::settimeout) nor a default timeout has set a
    /// timeout, including `None`. For `sockserver`, which then applies its own deadlines.
    #[doc(hidden)]
    #[must_use]
    pub fn is_timeout_unset(&self) -> bool {
        self.timeout.is_unset()
    }

    /// Runs calls with another timeout, and restores the previous one. For `sockserver`. The kernel
    /// is called only if the descriptor is blocking before. With a timeout or a canceller it is not.
    ///
    /// # Errors
    ///
    /// Returns an error if one of the calls or [`settimeout`](Self::settimeout) fails.
    #[doc(hidden)]
    pub fn with_timeout<T>(
        &self,
        timeout: Duration,
        calls: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let before = Timeout::blocking();
        before.copy_from(&self.timeout);
        let was_nonblocking = self.needs_o_nonblock();
        match was_nonblocking {
            true => self.timeout.set(Some(timeout))?,
            false => self.settimeout(timeout)?,
        }
        let result = calls();
        // The calls may have set another one.
        if !was_nonblocking || self.gettimeout() != Some(timeout) {
            self.settimeout(before.get())?;
        }
        self.timeout.copy_from(&before);
        result
    }

    /// Calls `attempt` as the mode and the flags require, with a deadline of its own.
    #[inline]
    pub(crate) fn retry_with_flags<T>(
        &self,
        readiness: Readiness,
        flags: MsgFlags,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        match attempt() {
            Ok(value) => Ok(value),
            Err(error) => self.retry_with_flags_after(error, readiness, flags, attempt),
        }
    }

    #[cold]
    fn retry_with_flags_after<T>(
        &self,
        error: io::Error,
        readiness: Readiness,
        flags: MsgFlags,
        attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut deadline = self.deadline_with_flags(readiness, flags);
        deadline::retry_after(error, self.as_fd(), readiness, &mut deadline, attempt)
    }

    /// Returns the deadline of a call with flags. With a timeout the flags do not change it: the
    /// call waits, as in Python.
    pub(crate) fn deadline_with_flags(&self, readiness: Readiness, flags: MsgFlags) -> Deadline<'_> {
        let deadline = self.deadline();
        if deadline.emulates_blocking() && self.never_waits(readiness, flags) {
            return Deadline::new(Some(Duration::ZERO));
        }
        deadline
    }

    fn never_waits(&self, readiness: Readiness, flags: MsgFlags) -> bool {
        let receives = matches!(readiness, Readiness::Readable);
        sys::never_waits(self.family().as_raw(), self.kind() == SOCK_STREAM, receives, flags.as_raw())
    }

    /// Returns whether a call has to continue because a blocking system call would.
    fn waits_for_rest(&self, readiness: Readiness, flags: MsgFlags) -> bool {
        self.kind() == SOCK_STREAM
            && self.deadline().emulates_blocking()
            && !self.never_waits(readiness, flags)
    }

    /// Sends the rest of `pieces` after a send of `sent` bytes, if a blocking call would. Returns
    /// the number of bytes sent in total. An error is left for the next call.
    #[cold]
    pub(crate) fn send_rest<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        mut sent: usize,
        flags: MsgFlags,
    ) -> usize {
        if !self.waits_for_rest(Readiness::Writable, flags) {
            return sent;
        }
        let mut deadline = self.deadline();
        let mut skip = sent;
        for piece in pieces {
            let mut rest = &piece[skip.min(piece.len())..];
            skip -= skip.min(piece.len());
            while !rest.is_empty() {
                // A signal ends a call that has sent something. The hook runs in the next call.
                let events = deadline::wait_until_signal(self.as_fd(), Readiness::Writable, &mut deadline);
                let Ok(events) = events else {
                    return sent;
                };
                if events & (POLLERR | POLLHUP) != 0 {
                    return sent;
                }
                match sys::send(self.inner(), rest, flags.as_raw()) {
                    Ok(went) => {
                        deadline.reset_pauses();
                        sent += went;
                        rest = &rest[went..];
                    }
                    Err(error) if is_none_yet(&error) => {}
                    Err(_) => return sent,
                }
            }
        }
        sent
    }

    /// Returns how many bytes a blocking receive into `room` bytes would wait for: all with
    /// `MSG_WAITALL`, otherwise `SO_RCVLOWAT`. Returns 0 if one receive is enough.
    #[inline]
    pub(crate) fn receives_at_least(&self, room: usize, flags: MsgFlags) -> usize {
        match self.cancellation() {
            Some(cancellation) if self.waits_for_rest(Readiness::Readable, flags) => {
                if flags.contains(MSG_WAITALL) { room } else { cancellation.low_water().min(room) }
            }
            _ => 0,
        }
    }

    /// Returns whether a receive has to continue in [`recvmsg`](Socket::recvmsg_into) until it has
    /// enough bytes.
    #[inline]
    pub(crate) fn receives_in_pieces(&self, room: usize, flags: MsgFlags) -> bool {
        cfg!(unix) && self.receives_at_least(room, flags) > 1
    }
}

/// Returns whether a call found nothing to do, and may be retried.
pub(super) fn is_none_yet(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind())
}
