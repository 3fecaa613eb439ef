//! The end of a request: what became of it, and closing in the right order.

use std::io;
use std::time::Duration;

use sock::{Lingered, POLLIN, Poll};

use crate::connection::poll_through_signals;
use crate::connection::state::ConnState;
use crate::limits::DeadlineKind;
use crate::limits::stats::Outcome;
use crate::os::child_channel;
use crate::request::hooks::call_handle_error;
use crate::request::serve::JobState;
use crate::request::{Request, RequestError, catch_panic};

impl JobState {
    /// What became of a request whose handler is content.
    pub(crate) fn successful_outcome(&self) -> Outcome {
        let connection = self.entry.connection();
        match (connection.state(), connection.expired_deadline()) {
            (ConnState::Overdue(deadline), _)
            | (_, Some(deadline @ DeadlineKind::Idle))
            // A read deadline that is shorter than the idle one.
            | (ConnState::Idle, Some(deadline)) => Outcome::TimedOut(deadline),
            (ConnState::DrainAborted, _) => Outcome::Aborted,
            _ => Outcome::Finished,
        }
    }

    /// Tells of a handler's error, which may be no more than that of a deadline.
    pub(crate) fn fail(&mut self, error: RequestError) {
        let connection = self.entry.connection();
        let error = match (error, connection.expired_deadline()) {
            (RequestError::Failed(error), Some(deadline))
                if error.kind() == io::ErrorKind::TimedOut
                    || connection.state() == ConnState::Overdue(deadline) =>
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
                RequestError::Failed(_) if self.was_aborted() => Outcome::Aborted,
                error => error.outcome(),
            });
        }
        call_handle_error(&*self.core.hooks, error, self.entry.client_address());
    }

    /// Whether the client has to see that the answer is not whole. One that was idle for too
    /// long has all its answers.
    fn has_failed(&self) -> bool {
        !matches!(self.outcome, None | Some(Outcome::Finished | Outcome::TimedOut(DeadlineKind::Idle)))
    }

    fn was_aborted(&self) -> bool {
        self.entry.connection().state() == ConnState::DrainAborted
    }

    /// Ends it, in the usual order. What panics on the way is told, and the rest
    /// follows all the same.
    pub(crate) fn end(&mut self) {
        let mut stage = 0;
        let mut limit = sock::Deadline::new(Some(self.linger_timeout()));
        while !self.closed {
            if let Err(error) = catch_panic(|| self.end_from(&mut stage, &mut limit)) {
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

    fn end_from(&mut self, stage: &mut u8, limit: &mut sock::Deadline<'_>) -> io::Result<()> {
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
        if let Some(request) = request.filter(|it| it.stream().is_some() || self.core.has_hooks) {
            if comes_to(2) {
                self.limit_close(request, limit);
            }
            if comes_to(3) && !self.can_close_without_shutdown() {
                self.core.hooks.shutdown_request(request);
            }
            if comes_to(4) {
                self.lingering_close(request, limit);
            }
            if comes_to(5) {
                self.core.hooks.close_request(request);
            }
        }
        if comes_to(6) {
            drop(self.request.take());
        }
        // What wrap_request made goes with it. A child's bare socket goes with the process.
        if comes_to(7)
            && !(child_channel::in_forked_child() && self.entry.connection().plain_socket().is_some())
        {
            self.entry.close(self.core.registry());
        }
        self.closed = true;
        Ok(())
    }

    /// Whether closing tells the client all that the default of `shutdown_request` would
    /// have: a call less for each short connection. A child's parent may be late with
    /// closing its copy.
    fn can_close_without_shutdown(&self) -> bool {
        !self.core.has_hooks
            && self.core.wrap_request.is_none()
            && !child_channel::in_forked_child()
            && self.entry.connection().can_close_without_shutdown()
    }

    /// How long ending it may keep the worker.
    fn linger_timeout(&self) -> Duration {
        let was_cut = matches!(self.outcome, Some(Outcome::TimedOut(_) | Outcome::Aborted));
        match was_cut || self.was_aborted() || self.entry.connection().state() == ConnState::Queued {
            true => Duration::ZERO,
            false => self.registry().limits().linger_timeout,
        }
    }

    /// Prepares a stream on top, such as TLS, for its end.
    fn limit_close(&self, request: &Request, limit: &mut sock::Deadline<'_>) {
        let is_bare = self.entry.connection().plain_socket().is_some();
        let Some(stream) = request.stream().filter(|_| !is_bare) else { return };
        stream.set_close_timeout(limit.remaining().unwrap_or_default());
        if self.has_failed() {
            stream.abort();
        }
    }

    /// Discards what the client is still sending, for a while: closing with
    /// unread input resets the connection, and the reset can overtake the answer
    /// (RFC 1122, 4.2.2.13; RFC 9112, 9.6). So does input that comes after the close;
    /// while the answer is still to be sent it is waited for.
    ///
    /// One that nobody serves, because it is refused, is not waited for: the loop does it.
    fn lingering_close(&self, request: &Request, limit: &mut sock::Deadline<'_>) {
        let connection = self.entry.connection();
        let Some(stream) = request.stream().filter(|_| !connection.eof_received()) else { return };
        // A stream on top has to know all the same: else it waits when it is dropped.
        let is_refused = connection.state() == ConnState::Queued;
        if self.linger_timeout().is_zero() && !is_refused && connection.plain_socket().is_some() {
            return;
        }
        // A drain may have cut it off while `shutdown_request` was waiting.
        let left = if self.was_aborted() { Duration::ZERO } else { limit.remaining().unwrap_or_default() };
        let Ok(Lingered::Acknowledged { discarded: 1.. }) = stream.linger_for(left) else {
            return;
        };
        // The client is still sending: it may read the answer only when it is done.
        let socket = stream.socket();
        let mut scratch = vec![0; 1 << 16];
        while poll_through_signals(&mut [Poll::new(socket, POLLIN)], limit.remaining())
            .is_ok_and(|ready| ready > 0)
            && socket.recv_into_nowait(&mut scratch).is_ok_and(|received| received > 0)
            && limit.remaining().is_some_and(|left| !left.is_zero())
        {}
    }
}

impl Drop for JobState {
    fn drop(&mut self) {
        self.leave();
    }
}
