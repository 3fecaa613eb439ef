//! Input that is received before anybody asks for it, to see that there is some.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[cfg(unix)]
use sock::MSG_DONTWAIT;
use sock::{MSG_PEEK, POLLIN, Poll, ReadBuffer, Socket, StreamSocket};

use super::{Connection, HAS_READ_AHEAD, WAITED, poll_through_signals};
use crate::connection::buffer_pool::{recycle_buffer, take_buffer};
use crate::connection::recv_timeout::{IDLE, READ};
use crate::limits::DeadlineKind;

impl Connection {
    /// Waits for input, or if `nowait` only looks, and keeps what comes for the
    /// handler. False at the end of file; `WouldBlock` if nothing is there.
    ///
    /// `size` is how much may be read ahead; 0 only looks.
    pub(crate) fn await_input(&self, size: usize, nowait: bool) -> io::Result<bool> {
        if self.has_read_ahead() {
            return Ok(true);
        }
        if size == 0 {
            return self.look_for_input(nowait);
        }
        let mut buffer = take_buffer(size);
        // Of two deadlines that nobody else watches the system has to know the right one.
        if !nowait && self.reads.wanted() != READ && self.is_recv_timeout_stale() {
            self.arm_recv_timeout();
        }
        let received = match nowait {
            true => buffer.receive(|room| self.recv_nowait(room)),
            false => buffer.receive(|room| self.recv_covered(room)),
        };
        if let Ok(1..) = received {
            self.store_read_ahead(buffer);
        } else {
            recycle_buffer(buffer);
        }
        received.map(|received| received > 0)
    }

    /// [`await_input`](Self::await_input) between two requests in a child: false also
    /// at the parent's word that there will be none, and when none came in time.
    #[cold]
    pub(crate) fn await_input_or_drain(&self, size: usize, parent: &Socket) -> io::Result<bool> {
        // One limit for the whole: what a stream on top takes for itself gives no more time.
        let mut limit = sock::Deadline::new(self.clock().limits().of(DeadlineKind::Idle));
        // The first time it is tried at once: mostly the client has said all it has to say.
        if self.flags.load(Ordering::Relaxed) & WAITED == 0 {
            self.set_flag(WAITED, true);
            match self.await_input(size, true) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
        while self.pending() == 0 {
            let Some(socket) = self.socket_underneath() else { break };
            let mut set = [Poll::new(socket, POLLIN), Poll::new(parent, POLLIN)];
            if poll_through_signals(&mut set, limit.remaining())? == 0 {
                self.late.store(IDLE, Ordering::Relaxed);
                return Ok(false);
            }
            // Of a client that spoke at the same moment the request is served.
            if set[0].revents() == 0 {
                return Ok(false);
            }
            match self.await_input(size, true) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
        self.await_input(size, true)
    }

    /// [`await_input`](Self::await_input) for a handler that reads nothing ahead.
    fn look_for_input(&self, nowait: bool) -> io::Result<bool> {
        if self.pending() > 0 {
            return Ok(true);
        }
        // Which also tells the system of the limit.
        let socket = self.socket();
        let mut limit = match nowait {
            true => sock::Deadline::new(Some(Duration::ZERO)),
            false => sock::Deadline::new(socket.recv_timeout()?),
        };
        loop {
            if poll_through_signals(&mut [Poll::new(socket, POLLIN)], limit.remaining())? == 0 {
                if nowait && self.ended().is_none() {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let late = Err(io::ErrorKind::WouldBlock.into());
                return self.map_error(late, DeadlineKind::Read).map(|_| false);
            }
            #[cfg(unix)]
            let flags = MSG_PEEK | MSG_DONTWAIT;
            // Windows has no such flag. Input was there a moment ago.
            #[cfg(not(unix))]
            let flags = MSG_PEEK;
            match socket.recv_with_flags(1, flags).map(|data| data.len()) {
                Ok(0) => return self.map_error(Ok(0), DeadlineKind::Read).map(|_| false),
                Ok(_) => {
                    self.on_activity();
                    return Ok(true);
                }
                // A thread of the handler's has read it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !nowait => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether input was read that nobody has asked for yet.
    pub(crate) fn has_read_ahead(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & HAS_READ_AHEAD != 0
    }

    /// Keeps input that the next receive gets.
    fn store_read_ahead(&self, buffer: ReadBuffer) {
        self.ahead.store(buffer);
        self.set_flag(HAS_READ_AHEAD, true);
    }

    pub(super) fn take_read_ahead(&self) -> ReadBuffer {
        self.set_flag(HAS_READ_AHEAD, false);
        self.ahead.take()
    }

    /// Takes a reader's buffer back; what is unread in it is the next reader's.
    #[inline]
    pub(crate) fn return_buffer(&self, buffer: ReadBuffer) {
        if buffer.unread().is_empty() {
            recycle_buffer(buffer);
        } else if self.has_read_ahead() {
            self.prepend_read_ahead(buffer);
        } else {
            self.store_read_ahead(buffer);
        }
    }

    /// Keeps what a reader of the handler's own left, which came before the rest.
    #[cold]
    fn prepend_read_ahead(&self, mut buffer: ReadBuffer) {
        let mut rest = self.take_read_ahead();
        let mut both = ReadBuffer::new(buffer.unread().len() + rest.unread().len());
        let joined = both.receive(|room| {
            let count = buffer.take(room);
            Ok(count + rest.take(&mut room[count..]))
        });
        // Without memory for both, the end is lost, and not the middle.
        self.store_read_ahead(if joined.is_ok() { both } else { buffer });
    }

    /// Before a receive: what was read ahead, if there is some; else the system knows of
    /// the limit.
    #[cold]
    pub(super) fn recv_from_read_ahead(&self, room: &mut [u8]) -> Option<usize> {
        if !self.has_read_ahead() {
            self.arm_recv_timeout();
            return None;
        }
        let mut ahead = self.take_read_ahead();
        // Nothing, if two threads receive at once.
        if ahead.size() == 0 {
            return None;
        }
        let count = ahead.take(room);
        self.return_buffer(ahead);
        Some(count)
    }
}
