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
//! | recv with `SO_RCVLOWAT` on a stream | waits for so many bytes |
//! | recv that waits for more | ends behind descriptors, at urgent data, and when a signal comes |
//! | send on a stream | waits until all has gone, or for an error or `SO_SNDTIMEO` |
//! | sendmmsg | waits for each datagram |
//! | connect to an AF_UNIX listener whose queue is full | waits for room |
//! | connect while an earlier one goes on | waits for its end |
//!
//! `SO_RCVTIMEO`, `SO_SNDTIMEO` and readiness that is false are in `timeout`, connect is in
//! `connect`, sendmmsg in `batch`.

use std::io;
#[cfg(unix)]
use std::io::IoSliceMut;

use crate::call::deadline::{self, Deadline, POLLERR, POLLHUP, Readiness};
#[cfg(unix)]
use crate::call::deadline::{Events, POLLIN, Poll, poll};
#[cfg(unix)]
use crate::consts::{AF_INET, AF_INET6, AF_UNIX, MSG_PEEK};
use crate::consts::{MSG_WAITALL, MsgFlags, SOCK_STREAM};
use crate::socket::Socket;
use crate::sys::{self, AsFd};
#[cfg(unix)]
use crate::sys::{c, message};

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
        deadline::retry_after(error, self.as_fd(), readiness, &mut deadline, attempt)
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
                // A signal ends a call that has sent something, and the hook is for the next one.
                let events = deadline::wait_until_signal(self.as_fd(), Readiness::Writable, &mut deadline);
                let Ok(events) = events else {
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

    /// How many bytes a receive into `room` bytes waits for where the system's call would: all
    /// with `MSG_WAITALL`, and else `SO_RCVLOWAT`. 0 where one receive is enough.
    #[inline]
    pub(crate) fn receives_at_least(&self, room: usize, flags: MsgFlags) -> usize {
        match self.cancellation() {
            Some(cancellation) if self.goes_on(Readiness::Readable, flags) => {
                if flags.contains(MSG_WAITALL) { room } else { cancellation.low_water().min(room) }
            }
            _ => 0,
        }
    }

    /// Whether a receive has to go on until it has enough: [`recvmsg`](Socket::recvmsg_into) can.
    #[inline]
    pub(crate) fn receives_in_pieces(&self, room: usize, flags: MsgFlags) -> bool {
        cfg!(unix) && self.receives_at_least(room, flags) > 1
    }
}

#[cfg(unix)]
impl Socket {
    /// After a receive that brought less than `least` bytes: receives on where a blocking call
    /// would have. It ends where that one ends: behind descriptors (unix(7)), at urgent data, and
    /// when a signal comes.
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
        while so_far.bytes < least && !self.ends_behind(so_far) && !self.at_mark() {
            let events = deadline::wait_until_signal(self.as_fd(), Readiness::Readable, &mut deadline);
            let Ok(events) = events else { return };
            // What has come is received before the error, which is the next call's.
            if events & (POLLERR | POLLHUP) != 0 && !self.has_input() || self.at_mark() {
                return;
            }
            let mut rest = behind(buffers, so_far.bytes);
            match message::recvmsg(self.as_fd(), &mut rest, control_size, flags.as_raw()) {
                Ok(piece) if piece.bytes == 0 => return,
                Ok(piece) => {
                    deadline.goes_on();
                    so_far.add(piece);
                }
                Err(error) if is_none_yet(&error) => {}
                Err(_) => return,
            }
        }
    }

    /// Whether these bytes came with descriptors, which end a receive. They may have found no room.
    fn ends_behind(&self, received: &message::Received) -> bool {
        self.family() == AF_UNIX
            && (received.flags & c::MSG_CTRUNC != 0
                || received.items.iter().any(|item| item.descriptors.is_some()))
    }

    /// Whether the next byte comes behind urgent data.
    fn at_mark(&self) -> bool {
        sys::queue::at_mark(self.as_fd()).unwrap_or(false)
    }

    /// Looks again until there is enough. poll(2) cannot wait for that: there is some already.
    fn peek_rest(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        so_far: &mut message::Received,
        least: usize,
        flags: MsgFlags,
        deadline: &mut Deadline<'_>,
    ) {
        // AF_UNIX does not wait for more than there is (unix_stream_read_generic).
        if ![AF_INET, AF_INET6].contains(&self.family()) {
            return;
        }
        while so_far.bytes < least && deadline.pause(self.as_fd(), Readiness::Readable).is_ok() {
            // In this order: what came before the end is seen.
            let mut set = [Poll::new(self, POLLIN | sys::POLLRDHUP)];
            let events = poll(&mut set, Some(std::time::Duration::ZERO)).map_or(0, |_| set[0].revents());
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

    /// Whether there is something to receive, as far as the system can say.
    fn has_input(&self) -> bool {
        sys::queue::received(self.as_fd()).is_ok_and(|bytes| bytes > 0)
    }
}

/// What is behind the first `count` bytes of buffers.
#[cfg(unix)]
fn behind<'a>(buffers: &'a mut [IoSliceMut<'_>], mut count: usize) -> Vec<IoSliceMut<'a>> {
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

/// Nothing more will come.
#[cfg(unix)]
const ENDED: Events = POLLERR | POLLHUP | sys::POLLRDHUP;

fn is_none_yet(error: &io::Error) -> bool {
    [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind())
}
