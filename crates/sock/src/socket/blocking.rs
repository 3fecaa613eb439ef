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
#[cfg(unix)]
use std::io::IoSliceMut;
use std::time::Duration;

use crate::call::deadline::{self, Deadline, POLLERR, POLLHUP, Readiness};
#[cfg(unix)]
use crate::call::deadline::{Events, POLLIN, Poll, poll};
use crate::call::timeout::Timeout;
#[cfg(unix)]
use crate::consts::{AF_INET, AF_INET6, AF_UNIX, MSG_PEEK};
use crate::consts::{MSG_WAITALL, MsgFlags, SOCK_STREAM};
use crate::socket::Socket;
use crate::sys::{self, AsFd};
#[cfg(unix)]
use crate::sys::{c, message};

impl Socket {
    /// Whether neither [`settimeout`](Self::settimeout) nor a default timeout has set a timeout,
    /// not even `None`. For `sockserver`, whose own deadlines end there.
    #[doc(hidden)]
    #[must_use]
    pub fn is_timeout_unset(&self) -> bool {
        self.timeout.is_unset()
    }

    /// Makes calls with another timeout, and restores the former one. For `sockserver`.
    ///
    /// # Errors
    ///
    /// Returns the error of the calls, or of [`settimeout`](Self::settimeout).
    #[doc(hidden)]
    pub fn with_timeout<T>(
        &self,
        timeout: Duration,
        calls: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let before = Timeout::blocking();
        before.copy_from(&self.timeout);
        self.settimeout(timeout)?;
        let result = calls();
        self.settimeout(before.get())?;
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
                match sys::send(self.inner(), rest, flags.as_raw() | sys::SEND_FLAGS) {
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

#[cfg(unix)]
impl Socket {
    /// Continues a receive that returned less than `least` bytes, if a blocking call would. It ends
    /// where a blocking call ends: after descriptors (unix(7)), at urgent data, and at a signal.
    #[cold]
    pub(crate) fn receive_rest(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        so_far: &mut message::Received,
        control_size: usize,
        least: usize,
        flags: MsgFlags,
    ) {
        let mut deadline = self.deadline();
        if flags.contains(MSG_PEEK) {
            return self.peek_rest(buffers, so_far, least, flags, &mut deadline);
        }
        while so_far.bytes < least && !self.ends_receive(so_far) && !self.at_mark() {
            let events = deadline::wait_until_signal(self.as_fd(), Readiness::Readable, &mut deadline);
            let Ok(events) = events else { return };
            // Data that has arrived is received first. The error is left for the next call.
            if events & (POLLERR | POLLHUP) != 0 && !self.has_input() || self.at_mark() {
                return;
            }
            let mut rest = unfilled(buffers, so_far.bytes);
            match message::recvmsg(self.as_fd(), &mut rest, control_size, flags.as_raw()) {
                Ok(piece) if piece.bytes == 0 => return,
                Ok(piece) => {
                    deadline.reset_pauses();
                    so_far.add(piece);
                }
                Err(error) if is_none_yet(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Returns whether these bytes came with descriptors, possibly truncated, which end a receive.
    fn ends_receive(&self, received: &message::Received) -> bool {
        self.family() == AF_UNIX
            && (received.flags & c::MSG_CTRUNC != 0
                || received.items.iter().any(|item| item.descriptors.is_some()))
    }

    /// Returns whether the next byte comes after urgent data.
    fn at_mark(&self) -> bool {
        sys::queue_len::at_mark(self.as_fd()).unwrap_or(false)
    }

    /// Peeks until there is enough data. poll(2) cannot wait for that, because some data is already
    /// available.
    fn peek_rest(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        so_far: &mut message::Received,
        least: usize,
        flags: MsgFlags,
        deadline: &mut Deadline<'_>,
    ) {
        // On AF_UNIX, a peek does not wait for more than is available (unix_stream_read_generic).
        if ![AF_INET, AF_INET6].contains(&self.family()) {
            return;
        }
        while so_far.bytes < least && deadline.pause(self.as_fd(), Readiness::Readable).is_ok() {
            // Polled before the receive, so that data that arrived before the end of file is seen.
            let mut set = [Poll::new(self, POLLIN | sys::POLLRDHUP)];
            let events = poll(&mut set, Some(Duration::ZERO)).map_or(0, |_| set[0].revents());
            match message::recvmsg(self.as_fd(), buffers, 0, flags.as_raw()) {
                Ok(all) => so_far.bytes = all.bytes,
                Err(error) if is_none_yet(&error) => {}
                Err(_) => return,
            }
            if events & ENDED != 0 {
                return;
            }
        }
    }

    /// Returns whether the kernel reports data to receive.
    fn has_input(&self) -> bool {
        sys::queue_len::received(self.as_fd()).is_ok_and(|bytes| bytes > 0)
    }
}

/// Returns the part of the buffers after the first `count` bytes.
#[cfg(unix)]
fn unfilled<'a>(buffers: &'a mut [IoSliceMut<'_>], mut count: usize) -> Vec<IoSliceMut<'a>> {
    let mut rest = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let filled = count.min(buffer.len());
        count -= filled;
        if filled < buffer.len() {
            rest.push(IoSliceMut::new(&mut buffer[filled..]));
        }
    }
    rest
}

/// Events after which no more data arrives.
#[cfg(unix)]
const ENDED: Events = POLLERR | POLLHUP | sys::POLLRDHUP;

fn is_none_yet(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind())
}
