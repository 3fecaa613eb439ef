//! What a blocking call does beyond waiting, for a socket whose descriptor does not block
//! because it has a canceller.
//!
//! The system's own blocking calls differ from "try, wait, try again" in these points:
//!
//! | call | what it does |
//! | --- | --- |
//! | with `MSG_DONTWAIT` | does not wait |
//! | recv with `MSG_ERRQUEUE`, or with `MSG_OOB` on a stream | does not wait either |
//! | recv with `MSG_WAITALL` on a stream | waits until the buffer is full, or for the end, an error or `SO_RCVTIMEO` |
//! | send on a stream | waits until all has gone, or for an error or `SO_SNDTIMEO` |
//! | sendmmsg | waits for each datagram |
//! | connect to an AF_UNIX listener whose queue is full | waits for room |
//! | connect while an earlier one goes on | waits for its end |
//!
//! `SO_RCVTIMEO`, `SO_SNDTIMEO` and readiness that is false are in `timeout`, connect is in
//! `connect`, sendmmsg in `batch`.

use std::io;

use crate::consts::{AF_INET, AF_INET6, MSG_PEEK, MSG_WAITALL, MsgFlags, SOCK_STREAM};
use crate::socket::Socket;
use crate::sys::{self, AsFd};
use crate::timeout::{self, Deadline, Events, POLLERR, POLLHUP, POLLIN, Poll, Readiness, poll};

impl Socket {
    /// Makes `attempt` as the mode and the flags say, with a deadline of its own.
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
        timeout::retry_after(error, self.as_fd(), readiness, &mut deadline, attempt)
    }

    /// The deadline of a call with flags that begins now. With a timeout they change nothing: the
    /// call waits here, as in Python.
    pub(crate) fn deadline_with_flags(&self, readiness: Readiness, flags: MsgFlags) -> Deadline<'_> {
        let deadline = self.deadline();
        if deadline.stands_in_for_blocking() && self.never_waits(readiness, flags) {
            return Deadline::new(Some(std::time::Duration::ZERO));
        }
        deadline
    }

    fn never_waits(&self, readiness: Readiness, flags: MsgFlags) -> bool {
        let receives = matches!(readiness, Readiness::Readable);
        sys::never_waits(self.family().as_raw(), self.kind() == SOCK_STREAM, receives, flags.as_raw())
    }

    /// Whether a call has to go on where the system's call would.
    fn goes_on(&self, readiness: Readiness, flags: MsgFlags) -> bool {
        self.kind() == SOCK_STREAM
            && self.deadline().stands_in_for_blocking()
            && !self.never_waits(readiness, flags)
    }

    /// After a send that took `sent` bytes of `pieces`: sends the rest where a blocking call
    /// would have, and returns how much went in all. An error is left for the next call.
    #[cold]
    pub(crate) fn send_rest<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        mut sent: usize,
        flags: MsgFlags,
    ) -> usize {
        if !self.goes_on(Readiness::Writable, flags) {
            return sent;
        }
        let mut deadline = self.deadline();
        let mut skip = sent;
        for piece in pieces {
            let mut rest = &piece[skip.min(piece.len())..];
            skip -= skip.min(piece.len());
            while !rest.is_empty() {
                let Ok(events) = timeout::wait(self.as_fd(), Readiness::Writable, &mut deadline) else {
                    return sent;
                };
                if events & (POLLERR | POLLHUP) != 0 {
                    return sent;
                }
                match sys::send(self.inner(), rest, flags.as_raw() | sys::SEND_FLAGS) {
                    Ok(went) => {
                        deadline.goes_on();
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

    /// Whether a receive with these flags has to fill its buffer.
    #[inline]
    pub(crate) fn waits_for_all(&self, flags: MsgFlags) -> bool {
        flags.contains(MSG_WAITALL) && self.goes_on(Readiness::Readable, flags)
    }

    /// After a receive with `MSG_WAITALL` that brought `received` bytes: receives the rest where a
    /// blocking call would have, and returns how much came in all.
    #[cold]
    pub(crate) fn recv_rest(&self, buffer: &mut [u8], received: usize, flags: MsgFlags) -> usize {
        if received == 0 || received >= buffer.len() || !self.waits_for_all(flags) {
            return received;
        }
        let mut deadline = self.deadline();
        if flags.contains(MSG_PEEK) {
            return self.peek_rest(buffer, received, flags, &mut deadline);
        }
        let mut received = received;
        while received < buffer.len() {
            let Ok(events) = timeout::wait(self.as_fd(), Readiness::Readable, &mut deadline) else {
                break;
            };
            // What has come is received before the error, which is the next call's.
            if events & (POLLERR | POLLHUP) != 0 && !self.has_input() {
                break;
            }
            match sys::recv(self.inner(), &mut buffer[received..], flags.as_raw()) {
                Ok(0) => break,
                Ok(came) => {
                    deadline.goes_on();
                    received += came;
                }
                Err(error) if is_none_yet(&error) => {}
                Err(_) => break,
            }
        }
        received
    }

    /// Looks again until there is enough. poll(2) cannot wait for that: there is some already.
    fn peek_rest(
        &self,
        buffer: &mut [u8],
        mut received: usize,
        flags: MsgFlags,
        deadline: &mut Deadline<'_>,
    ) -> usize {
        // AF_UNIX does not wait for more than there is (unix_stream_read_generic).
        if ![AF_INET, AF_INET6].contains(&self.family()) {
            return received;
        }
        while received < buffer.len() {
            if deadline.pause(self.as_fd(), Readiness::Readable).is_err() {
                break;
            }
            // In this order: what came before the end is seen.
            let mut set = [Poll::new(self, POLLIN | sys::POLLRDHUP)];
            let events = poll(&mut set, Some(std::time::Duration::ZERO)).map_or(0, |_| set[0].revents());
            match sys::recv(self.inner(), buffer, flags.as_raw()) {
                Ok(came) => received = came,
                Err(error) if is_none_yet(&error) => {}
                Err(_) => break,
            }
            if events & ENDED != 0 {
                break;
            }
        }
        received
    }

    /// Whether there is something to receive, as far as the system can say.
    fn has_input(&self) -> bool {
        sys::queue::received(self.as_fd()).is_ok_and(|bytes| bytes > 0)
    }
}

/// Nothing more will come.
const ENDED: Events = POLLERR | POLLHUP | sys::POLLRDHUP;

fn is_none_yet(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind())
}
