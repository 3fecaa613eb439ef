//! The end of a request: its outcome, and closing in Python's order.

use std::io;
use std::time::Duration;

use sock::{Lingered, POLLIN, Poll, StreamSocket};

use crate::connection::poll_through_signals;
use crate::connection::state::ConnState;
use crate::lifecycle::current_server::ServingThread;
use crate::limits::DeadlineKind;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::limits::stats::Outcome;
use crate::os::guard::discard;
use crate::os::log::milliseconds;
use crate::request::hooks::call_handle_error;
use crate::request::serve::JobState;
use crate::request::{Request, RequestError, catch_panic};

impl JobState {
    /// The outcome of a request whose handler returned without an error.
    pub(crate) fn successful_outcome(&self) -> Outcome {
        let connection = self.entry.connection();
        match (connection.state(), connection.expired_deadline()) {
            (ConnState::Overdue(deadline), _)
            | (_, Some(deadline @ DeadlineKind::Idle))
            // A read deadline that is shorter than the idle deadline.
            | (ConnState::Idle, Some(deadline)) => Outcome::TimedOut(deadline),
            (ConnState::DrainAborted, _) => Outcome::Aborted,
            _ => Outcome::Finished,
        }
    }

    /// Reports a handler's error. It may be the error of a deadline.
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
        discard(error);
    }

    /// Calls `handle_error`. Its own panic ends neither the loop nor the thread.
    pub(crate) fn report(&mut self, error: &RequestError) {
        if matches!(self.outcome, None | Some(Outcome::Finished)) {
            self.outcome = Some(match error {
                RequestError::Failed(_) if self.was_aborted() => Outcome::Aborted,
                error => error.outcome(),
            });
        }
        call_handle_error(&*self.core.hooks, error, self.entry.client_address());
    }

    /// Whether the client has to see that the answer is not complete. A client that was idle for
    /// too long has all its answers.
    fn has_failed(&self) -> bool {
        !matches!(self.outcome, None | Some(Outcome::Finished | Outcome::TimedOut(DeadlineKind::Idle)))
    }

    fn was_aborted(&self) -> bool {
        self.entry.connection().state() == ConnState::DrainAborted
    }

    /// Closes the request in Python's order. A panic of one step is reported, and the next steps
    /// follow.
    pub(crate) fn end(&mut self) {
        let mut stage = 0;
        let mut limit = sock::Deadline::new(Some(self.linger_timeout()));
        while !self.closed {
            if let Err(error) = catch_panic(|| self.end_from(&mut stage, &mut limit)) {
                self.report(&error);
                discard(error);
            }
        }
    }

    /// Closes the request and counts it as ended.
    pub(crate) fn leave(&mut self) {
        if self.entry.connection().state() == ConnState::Overdue(DeadlineKind::Request) {
            self.log_request_deadline();
        }
        // Hooks run also where a job is dropped, and this thread cannot wait for its end.
        let _serving = ServingThread::begin(self.core.registry());
        self.end();
        // A job that was never run counts as rejected.
        let outcome = self.outcome.unwrap_or(Outcome::Rejected);
        // A datagram, or a connection without a request, counts as one.
        if !self.handled && outcome != Outcome::Rejected {
            self.core.quota.count();
        }
        self.entry.end(self.core.registry(), outcome);
    }

    /// The deadline timer does not log: a logger that blocks must not delay the other deadlines.
    #[cold]
    fn log_request_deadline(&self) {
        let limit = self.registry().limits().request_timeout.unwrap_or_default();
        let client_address = self.entry.client_address();
        log_limited!(
            warn,
            LogKind::TimedOut(DeadlineKind::Request),
            peer:% = client_address, deadline = "request", limit_ms = milliseconds(limit);
            "request from {client_address} ended: request deadline of {limit:?} is over"
        );
    }

    fn end_from(&mut self, stage: &mut u8, limit: &mut sock::Deadline<'_>) -> io::Result<()> {
        // A step that panicked is not repeated.
        let mut comes_to = |this| {
            let comes = *stage < this;
            *stage = this.max(*stage);
            comes
        };
        // The handler is dropped before its connection.
        if comes_to(1) {
            drop(self.handler.take());
        }
        // Only hooks of the user have to see the end of a datagram.
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
        // This drops what `wrap_request` returned. The exit of a forked child closes a plain
        // socket.
        if comes_to(7) && !(self.is_in_forked_child() && self.entry.connection().plain_socket().is_some()) {
            self.entry.close(self.core.registry());
        }
        self.closed = true;
        Ok(())
    }

    /// Whether close(2) alone has the effect of the default `shutdown_request`, which saves a
    /// system call for each short connection. In a forked child the parent may close its copy
    /// later.
    fn can_close_without_shutdown(&self) -> bool {
        !self.core.has_hooks
            && self.core.wrap_request.is_none()
            && !self.is_in_forked_child()
            && self.entry.connection().can_close_without_shutdown()
    }

    /// How long closing may keep the worker.
    fn linger_timeout(&self) -> Duration {
        let was_cut = matches!(self.outcome, Some(Outcome::TimedOut(_) | Outcome::Aborted));
        match was_cut || self.was_aborted() || self.entry.connection().state().is_before_request() {
            true => Duration::ZERO,
            false => self.registry().limits().linger_timeout,
        }
    }

    /// Prepares a stream such as TLS for its end.
    fn limit_close(&self, request: &Request, limit: &mut sock::Deadline<'_>) {
        let is_bare = self.entry.connection().plain_socket().is_some();
        let Some(stream) = request.stream().filter(|_| !is_bare) else { return };
        stream.set_close_timeout(limit.remaining().unwrap_or_default());
        if self.has_failed() {
            stream.abort();
        }
    }

    /// Discards what the client is still sending, for a limited time. Closing with unread input
    /// resets the connection, and the reset can overtake the answer (RFC 1122, 4.2.2.13; RFC 9112,
    /// 9.6). Input that arrives after the close does the same, so this waits until the answer is
    /// sent.
    ///
    /// It does not wait for a client that is refused, because the accept loop calls it.
    fn lingering_close(&self, request: &Request, limit: &mut sock::Deadline<'_>) {
        let connection = self.entry.connection();
        let Some(stream) = request.stream().filter(|_| !connection.eof_received()) else { return };
        // A stream on top has to be called even then. Otherwise it waits when it is dropped.
        let is_refused = connection.state().is_before_request();
        if self.linger_timeout().is_zero() && !is_refused && connection.plain_socket().is_some() {
            return;
        }
        // A drain may have aborted it during `shutdown_request`.
        let left = if self.was_aborted() { Duration::ZERO } else { limit.remaining().unwrap_or_default() };
        // Not the handler waits here, so there is no hint about it.
        let was_serving = sock::set_serving_thread(false);
        discard_input(stream, left, limit);
        sock::set_serving_thread(was_serving);
    }
}

fn discard_input(stream: &dyn StreamSocket, left: Duration, limit: &mut sock::Deadline<'_>) {
    let Ok(Lingered::Acknowledged { discarded: 1.. }) = stream.linger_for(left) else {
        return;
    };
    // The client is still sending, and may read the answer only afterwards.
    let socket = stream.socket();
    let mut scratch = vec![0; 1 << 16];
    while poll_through_signals(&mut [Poll::new(socket, POLLIN)], limit.remaining())
        .is_ok_and(|ready| ready > 0)
        && socket.recv_into_nowait(&mut scratch).is_ok_and(|received| received > 0)
        && limit.remaining().is_some_and(|left| !left.is_zero())
    {}
}

impl Drop for JobState {
    fn drop(&mut self) {
        self.leave();
    }
}
