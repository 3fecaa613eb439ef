//! Input that the engine receives to find out whether the next request has come.

use std::io;
use std::time::Duration;

#[cfg(unix)]
use sock::MSG_DONTWAIT;
use sock::{MSG_PEEK, POLLIN, Poll, ReadBuffer, Socket, StreamSocket};

use super::{Connection, HAS_READ_AHEAD, WAITED, poll_through_signals};
use crate::connection::buffer_pool::{recycle_buffer, take_buffer};
use crate::limits::DeadlineKind;
use crate::limits::clock::NEVER;

impl Connection {
    /// Waits for input and stores it for the handler. Returns false at the end of file.
    ///
    /// With `nowait` it does not wait, and fails with `WouldBlock` if there is no input. `size` is
    /// how much may be read ahead; with 0 the input stays in the socket.
    pub(crate) fn await_input(&self, size: usize, nowait: bool) -> io::Result<bool> {
        if self.has_read_ahead() {
            return Ok(true);
        }
        if size == 0 {
            return self.look_for_input(nowait);
        }
        let mut buffer = take_buffer(size);
        let received = match nowait {
            true => buffer.receive(|room| self.recv_nowait(room)),
            // The timeout of the handler's calls is not that of this wait.
            false if self.own_timeout().is_some() => buffer.receive(|room| self.recv_when_ready(room)),
            false => buffer.receive(|room| self.recv(room)),
        };
        if let Ok(1..) = received {
            self.store_read_ahead(buffer);
        } else {
            recycle_buffer(buffer);
        }
        received.map(|received| received > 0)
    }

    /// Receives the next input before the deadline of the connection's state, whatever timeout the
    /// socket has.
    #[cold]
    fn recv_when_ready(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(stream) = self.stream() else { return Err(io::ErrorKind::NotConnected.into()) };
            if stream.pending() == 0 {
                let mut set = [Poll::new(stream.socket(), POLLIN)];
                if poll_through_signals(&mut set, self.time_left())? == 0 {
                    return Err(self.wait_timed_out());
                }
            }
            match self.recv_nowait(buffer) {
                // A part of a record of the stream, or input that another thread has received.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }

    /// The time until the deadline of the connection's state.
    fn time_left(&self) -> Option<Duration> {
        let due = Some(self.due()).filter(|&due| due < NEVER)?;
        Some(Duration::from_millis(due.saturating_sub(self.clock().now())))
    }

    /// The error of a wait that the deadline of the connection's state has ended.
    fn wait_timed_out(&self) -> io::Error {
        let kind = self.state().deadline().unwrap_or(DeadlineKind::Idle);
        self.ended().unwrap_or_else(|| self.call_timed_out(kind))
    }

    /// [`await_input`](Self::await_input) between two requests in a forked child. Returns false also
    /// when the parent closes its end of the channel, and when the idle deadline is over.
    #[cold]
    pub(crate) fn await_input_or_drain(&self, size: usize, parent: &Socket) -> io::Result<bool> {
        // One limit for all attempts: records that a stream on top keeps do not extend it.
        let own = self.own_timeout().filter(|limit| !limit.is_zero());
        let idle = self.clock().limits().of(DeadlineKind::Idle);
        let mut limit = sock::Deadline::new(own.into_iter().chain(idle).min());
        // The first time a receive comes before poll(2): mostly the client has closed its side.
        if !self.has_flag(WAITED) {
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
                self.late.store(Some(DeadlineKind::Idle));
                return Ok(false);
            }
            // A request that has come at the same moment is served.
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

    /// [`await_input`](Self::await_input) for a handler that does not read ahead.
    fn look_for_input(&self, nowait: bool) -> io::Result<bool> {
        if self.pending() > 0 {
            return Ok(true);
        }
        let socket = self.socket();
        let own_timeout = !socket.is_timeout_unset();
        let deadline = if own_timeout { None } else { self.recv_deadline() };
        let mut limit = sock::Deadline::new(match (nowait, own_timeout) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => self.time_left(),
            (false, false) => deadline.map(|(_, limit)| limit),
        });
        loop {
            if poll_through_signals(&mut [Poll::new(socket, POLLIN)], limit.remaining())? == 0 {
                if let Some(ended) = self.ended() {
                    return Err(ended);
                }
                return Err(match deadline {
                    _ if nowait => io::ErrorKind::WouldBlock.into(),
                    Some((kind, _)) => self.call_timed_out(kind),
                    None => self.wait_timed_out(),
                });
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
                // A thread of the handler has received it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !nowait => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether there is input that was read ahead.
    pub(crate) fn has_read_ahead(&self) -> bool {
        self.has_flag(HAS_READ_AHEAD)
    }

    /// Stores input for the next receive.
    fn store_read_ahead(&self, buffer: ReadBuffer) {
        self.ahead.store(buffer);
        self.set_flag(HAS_READ_AHEAD, true);
    }

    pub(super) fn take_read_ahead(&self) -> ReadBuffer {
        self.set_flag(HAS_READ_AHEAD, false);
        self.ahead.take()
    }

    /// Takes a reader's buffer back. The next reader gets what is unread in it.
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

    /// Stores what a reader of the handler has left, before what was read ahead later.
    #[cold]
    fn prepend_read_ahead(&self, mut buffer: ReadBuffer) {
        let mut rest = self.take_read_ahead();
        let mut both = ReadBuffer::new(buffer.unread().len() + rest.unread().len());
        let joined = both.receive(|room| {
            let count = buffer.take(room);
            Ok(count + rest.take(&mut room[count..]))
        });
        // Without memory for both the later input is lost, so no gap arises.
        self.store_read_ahead(if joined.is_ok() { both } else { buffer });
    }

    /// Copies what was read ahead, if there is some.
    #[cold]
    pub(super) fn recv_from_read_ahead(&self, room: &mut [u8]) -> Option<usize> {
        let mut ahead = self.take_read_ahead();
        // Empty if two threads receive at once.
        if ahead.size() == 0 {
            return None;
        }
        let count = ahead.take(room);
        self.return_buffer(ahead);
        Some(count)
    }
}
