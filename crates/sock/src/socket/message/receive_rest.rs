//! The rest of a receive that a blocking call would wait for.

use std::io::IoSliceMut;
use std::time::Duration;

use crate::call::deadline::{
    self, Deadline, Events, POLLERR, POLLHUP, POLLIN, Poll, Readiness, poll_until_signal,
};
use crate::consts::{AF_INET, AF_INET6, AF_UNIX, MSG_PEEK, MsgFlags};
use crate::socket::Socket;
use crate::socket::blocking::is_none_yet;
use crate::sys::{self, AsFd, c, message};

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
            let events = poll_until_signal(&mut set, Some(Duration::ZERO)).map_or(0, |_| set[0].revents());
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
const ENDED: Events = POLLERR | POLLHUP | sys::POLLRDHUP;
