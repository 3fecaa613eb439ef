//! The end of a request: what became of it, and closing in the right order.

use std::io;
use std::time::{Duration, Instant};

use sock::{AF_UNIX, POLLIN, Poll};

use crate::child;
use crate::connection::poll_through_signals;
use crate::hooks::tell_error;
use crate::life::Life;
use crate::limits::Deadline;
use crate::phase::Phase;
use crate::request::{Request, RequestError, guard};
use crate::stats::Outcome;

/// Of an answer this much may be on its way, and is not waited for: a small answer
/// has left the system, and a client that waits for it does not send.
const ON_ITS_WAY: usize = 1 << 16;

/// How often closing looks whether the rest of a large answer has been sent.
const LINGER_LOOKS: Duration = Duration::from_millis(20);

impl Life {
    /// What became of a request whose handler is content.
    pub(crate) fn ended_well(&self) -> Outcome {
        let connection = self.entry.connection();
        match (connection.phase(), connection.late()) {
            (Phase::Overdue(deadline), _)
            | (_, Some(deadline @ Deadline::Idle))
            // A read deadline that is shorter than the idle one.
            | (Phase::Between, Some(deadline)) => Outcome::TimedOut(deadline),
            (Phase::Drained, _) => Outcome::Cut,
            _ => Outcome::Finished,
        }
    }

    /// Tells of a handler's error, which may be no more than that of a deadline.
    pub(crate) fn fail(&mut self, error: RequestError) {
        let connection = self.entry.connection();
        let error = match (error, connection.late()) {
            (RequestError::Failed(error), Some(deadline))
                if error.kind() == io::ErrorKind::TimedOut
                    || connection.phase() == Phase::Overdue(deadline) =>
            {
                RequestError::TimedOut(deadline, error)
            }
            (error, _) => error,
        };
        self.report(&error);
    }

    /// Tells `handle_error`, whose own panic must not take the server along.
    pub(crate) fn report(&mut self, error: &RequestError) {
        if matches!(self.outcome, None | Some(Outcome::Finished)) {
            self.outcome = Some(match error {
                RequestError::Failed(_) if self.was_cut() => Outcome::Cut,
                error => error.outcome(),
            });
        }
        tell_error(&*self.core.hooks, error, self.entry.client_address());
    }

    fn was_cut(&self) -> bool {
        self.entry.connection().phase() == Phase::Drained
    }

    /// Ends it, in the usual order. What panics on the way is told, and the rest
    /// follows all the same.
    pub(crate) fn end(&mut self) {
        let mut stage = 0;
        while !self.closed {
            if let Err(error) = guard(|| self.end_from(&mut stage)) {
                self.report(&error);
            }
        }
    }

    /// Ends it, and counts it among those that have.
    pub(crate) fn leave(&mut self) {
        self.end();
        // A job that nobody ran was none that could be served.
        let outcome = self.outcome.unwrap_or(Outcome::Rejected);
        self.entry.end(self.core.registry(), outcome);
    }

    fn end_from(&mut self, stage: &mut u8) -> io::Result<()> {
        // What panics is not tried again.
        let mut comes_to = |this| {
            let comes = *stage < this;
            *stage = this.max(*stage);
            comes
        };
        // It belongs to the connection.
        if comes_to(1) {
            drop(self.handler.take());
        }
        // Of a datagram only hooks have an end to tell.
        let request = self.request.as_ref();
        if let Some(request) = request.filter(|it| it.stream().is_some() || self.core.has_hooks()) {
            if comes_to(2) && !self.may_just_close() {
                self.core.hooks.shutdown_request(request);
            }
            if comes_to(3) {
                self.linger(request);
            }
            if comes_to(4) {
                self.core.hooks.close_request(request);
            }
        }
        if comes_to(5) {
            drop(self.request.take());
        }
        // What wrap_request made goes with it. A child's bare socket goes with the process.
        if comes_to(6) && !(child::is_one() && self.entry.connection().bare().is_some()) {
            self.entry.close(self.core.registry());
        }
        self.closed = true;
        Ok(())
    }

    /// Whether closing tells the client all that the default of `shutdown_request` would
    /// have: a call less for each short connection. A child's parent may be late with
    /// closing its copy.
    fn may_just_close(&self) -> bool {
        !self.core.has_hooks() && !child::is_one() && self.entry.connection().ends_with_its_close()
    }

    /// Reads away what the client is still sending, for a while: closing with
    /// unread input resets the connection, and the reset can overtake the answer
    /// (RFC 1122, 4.2.2.13; RFC 9112, 9.6). So does input that comes after the close;
    /// while much of the answer is still to be sent it is waited for.
    ///
    /// One that nobody serves, because it is refused, is not waited for: the loop does it.
    fn linger(&self, request: &Request) {
        let connection = self.entry.connection();
        let ended = connection.heard_the_end() || matches!(self.outcome, Some(Outcome::TimedOut(_)));
        let limit = self.registry().limits().linger_timeout;
        let Some(stream) = request.stream().filter(|_| !ended && !limit.is_zero()) else {
            return;
        };
        let limit = if connection.phase() == Phase::Queued { Duration::ZERO } else { limit };
        let socket = stream.socket();
        let begin = Instant::now();
        // What a Unix socket has sent is the client's, whatever becomes of the socket.
        let owes =
            || socket.family() != AF_UNIX && socket.send_queue().is_ok_and(|bytes| bytes > ON_ITS_WAY);
        let mut scratch = Vec::new();
        let mut heard = false;
        loop {
            let left = limit.saturating_sub(begin.elapsed());
            let wait = match heard {
                true => left,
                false if owes() => left.min(LINGER_LOOKS),
                false => Duration::ZERO,
            };
            let there = poll_through_signals(&mut [Poll::new(socket, POLLIN)], Some(wait));
            if there.is_ok_and(|count| count > 0) {
                scratch.resize(1 << 16, 0);
                if !socket.recv_into(&mut scratch).is_ok_and(|received| received > 0) {
                    return;
                }
                heard = true;
            } else if heard || wait.is_zero() {
                return;
            }
            if left.is_zero() {
                return;
            }
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.leave();
    }
}
