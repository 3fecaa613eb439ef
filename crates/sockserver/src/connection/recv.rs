//! Receiving from a connection, under the deadlines of the server.
//!
//! Two mechanisms limit a receive. A deadline of the whole connection (first byte, idle, request)
//! is enforced by the deadline timer, which shuts the connection down: the worker blocks in recv(2).
//! The deadline of a single call (read) leaves the connection usable, so the worker waits in poll(2)
//! with a timeout. Where no timer runs, as in a forked child, the worker waits in poll(2) for the
//! first byte as well.
//!
//! A handler that waits more than once, such as one that loops over lines, gets `SO_RCVTIMEO`
//! instead of the poll(2): a system call less for each wait. The option is removed when the handler
//! takes the socket, so that its own calls block as long as it has set.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sock::{POLLIN, Poll, Socket};

use super::{
    Connection, DRAINED, HANDLER_WAITED, HAS_RECV_TIMEOUT, SOCKET_EXPOSED, TIMER_ENDS_WAIT,
    poll_through_signals,
};
use crate::connection::transport::Transport;
use crate::limits::DeadlineKind;
use crate::os::interleave::yield_point;

impl Connection {
    /// The deadline that the worker itself has to enforce on the next receive. `None` if the
    /// deadline timer ends the receive in time, or if there is no deadline.
    pub(super) fn recv_deadline(&self) -> Option<(DeadlineKind, Duration)> {
        let limits = self.clock().limits();
        let read = limits.read_timeout.map(|limit| (DeadlineKind::Read, limit));
        let state = self.state();
        if !state.is_idle() {
            return read;
        }
        if self.has_flag(TIMER_ENDS_WAIT) {
            return None;
        }
        // The timer may run nevertheless, for a deadline later than the read deadline.
        let own = state.deadline().and_then(|kind| limits.of(kind).map(|limit| (kind, limit)));
        own.into_iter().chain(read).min_by_key(|(_, limit)| *limit)
    }

    /// Receives under the deadlines of the server, or under the timeout that a handler has set.
    #[inline]
    pub(super) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(transport) = self.transport() else { return Err(io::ErrorKind::NotConnected.into()) };
        let received = match transport {
            Transport::Socket(socket) if self.has_flag(TIMER_ENDS_WAIT) && self.is_idle() => {
                let received = socket.recv_into(buffer);
                if received.is_err() { self.continue_recv(transport, received, buffer) } else { received }
            }
            _ => self.recv_within_deadline(transport, buffer),
        };
        match received {
            Ok(received @ 1..) => Ok(self.after_recv(transport, received, buffer.len())),
            Ok(0) if buffer.is_empty() => Ok(0),
            other => self.map_error(other, DeadlineKind::Read),
        }
    }

    /// Receives under a deadline that the worker enforces, if there is one.
    fn recv_within_deadline(&self, transport: &Transport, buffer: &mut [u8]) -> io::Result<usize> {
        let own_timeout = transport.socket().is_some_and(|socket| !socket.is_timeout_unset());
        let deadline = if own_timeout { None } else { self.recv_deadline() };
        let received = match (transport, deadline) {
            (Transport::Socket(socket), Some((kind, limit))) => {
                self.recv_plain_within(socket, buffer, kind, limit)
            }
            // `SO_RCVTIMEO` is the read deadline of the stream. Before the first byte another
            // deadline may be shorter.
            (Transport::Wrapped(stream), Some((kind, limit)))
                if kind != DeadlineKind::Read && stream.pending() == 0 =>
            {
                match poll_through_signals(&mut [Poll::new(stream.socket(), POLLIN)], Some(limit))? {
                    0 => Err(io::ErrorKind::TimedOut.into()),
                    _ => transport.recv_into(buffer),
                }
            }
            _ => return self.continue_recv(transport, transport.recv_into(buffer), buffer),
        };
        match (received, deadline) {
            (Err(error), Some((kind, _))) if error.kind() == io::ErrorKind::TimedOut => {
                Err(self.call_timed_out(kind))
            }
            (received, _) => received,
        }
    }

    fn recv_plain_within(
        &self,
        socket: &Socket,
        buffer: &mut [u8],
        kind: DeadlineKind,
        limit: Duration,
    ) -> io::Result<usize> {
        let in_kernel = kind == DeadlineKind::Read && !self.is_exposed() && self.blocks();
        // `map_error` turns the EAGAIN of `SO_RCVTIMEO` into the read deadline.
        if in_kernel && self.has_flag(HAS_RECV_TIMEOUT) {
            return socket.recv_into(buffer);
        }
        // After a receive that emptied the queue there is rarely input: poll(2) comes first.
        if !self.has_flag(DRAINED) {
            match socket.recv_into_nowait(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
        if in_kernel && !self.has_flag(HANDLER_WAITED) {
            self.set_flag(HANDLER_WAITED, true);
        } else if in_kernel && socket.set_recv_timeout(limit).is_ok() {
            // Where the option is refused, the receive below waits in poll(2) with the same limit.
            self.set_flag(HAS_RECV_TIMEOUT, true);
            // Another thread of the handler may have taken the socket meanwhile.
            if !self.is_exposed() {
                return socket.recv_into(buffer);
            }
            socket.set_recv_timeout(None)?;
        }
        socket.recv_into_timeout(buffer, limit)
    }

    /// Continues a receive that has ended with `SO_RCVTIMEO`, if no read deadline is in force: while
    /// the worker waits for a request, or when the handler has set a timeout of `None`.
    #[cold]
    fn continue_recv(
        &self,
        transport: &Transport,
        mut received: io::Result<usize>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        while let Err(error) = &received {
            let goes_on = error.kind() == io::ErrorKind::WouldBlock
                && (self.was_set_to_block() || self.has_flag(HAS_RECV_TIMEOUT) && self.blocks());
            if !goes_on {
                break;
            }
            if let Some(ended) = self.ended() {
                return Err(ended);
            }
            received = transport.recv_into(buffer);
        }
        received
    }

    /// Notes that the handler has the socket, which has no `SO_RCVTIMEO` then.
    pub(super) fn expose_socket(&self) {
        if self.is_exposed() {
            return;
        }
        self.add_note(SOCKET_EXPOSED);
        if self.has_flag(HAS_RECV_TIMEOUT) {
            if let Some(socket) = self.plain_socket() {
                // It fails only for a socket that is closed.
                let _ = socket.set_recv_timeout(None);
            }
        }
    }

    fn is_exposed(&self) -> bool {
        self.notes.load(Ordering::Relaxed) & SOCKET_EXPOSED != 0
    }

    /// Receives what is there, without waiting.
    pub(super) fn recv_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(transport) = self.transport() else { return Err(io::ErrorKind::NotConnected.into()) };
        match transport.recv_nowait(buffer) {
            Ok(received @ 1..) => Ok(self.after_recv(transport, received, buffer.len())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.ended().is_none() => Err(error),
            other => self.map_error(other, DeadlineKind::Read),
        }
    }

    /// Records a receive of `received` bytes into `room` bytes.
    #[inline]
    fn after_recv(&self, transport: &Transport, received: usize, room: usize) -> usize {
        yield_point();
        let drained = received < room && !transport.may_buffer_input();
        if drained != (self.flags.load(Ordering::Relaxed) & DRAINED != 0) {
            self.set_flag(DRAINED, drained);
        }
        self.permit.traffic().count_received(received);
        self.on_activity();
        received
    }

    /// Whether the handler has set its socket to blocking mode, which ends the read deadline.
    fn was_set_to_block(&self) -> bool {
        self.blocks() && self.socket_underneath().is_some_and(|socket| !socket.is_timeout_unset())
    }
}
