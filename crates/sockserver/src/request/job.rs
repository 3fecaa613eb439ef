//! A job: one accepted request on its way through a worker.

use std::fmt;
use std::io;
use std::sync::Arc;

use sock::SHUT_RDWR;
use sock::{Address, Socket};

use crate::connection::Connection;
use crate::connection::state::ConnState;
use crate::lifecycle::registry::PerIpLimitReached;
use crate::limits::permits::Permit;
use crate::limits::stats::Outcome;
use crate::request::core::Core;
use crate::request::datagram_batch::AnswerBatch;
use crate::request::serve::{JobState, Progress, Wait};
use crate::request::{Arrival, Request, RequestError, catch_panic};

/// One request, which is served where a [`MixIn`](crate::MixIn) decides.
///
/// The server creates it for an accepted and verified request. [`run`](Job::run) serves the request
/// to its end, and [`step`](Job::step) serves one step of it. Dropping a job closes the connection.
/// A job that cannot be started is returned with [`reject`](Job::reject).
pub struct Job(Box<JobState>);

/// The result of [`Job::step`].
///
/// This enum is exhaustive, because a [`MixIn`](crate::MixIn) has to handle both variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// The handler keeps the connection open. The next [`step`](Job::step) blocks until the next
    /// request arrives, and the job may be set aside until then.
    Again,
    /// The request has been served and closed.
    Done,
}

/// A job that could not be started, with the reason. The server reports the error and then closes
/// the request in the usual order.
#[derive(Debug)]
pub struct Rejected {
    job: Job,
    error: io::Error,
}

impl Job {
    /// Adds a request that has just been accepted to the registry.
    pub(crate) fn enter(
        core: &Arc<Core>,
        arrival: Arrival,
        client_address: Address,
        permit: Permit,
    ) -> (Job, Result<(), PerIpLimitReached>) {
        let (request, socket) = request_or_socket(arrival, core);
        let (entry, allowed) = core.registry().enter(client_address, socket, permit);
        let request = request.unwrap_or_else(|| Request::served(Arc::clone(entry.connection())));
        (Job(Box::new(JobState::new(Arc::clone(core), request, entry))), allowed)
    }

    /// Calls `verify_request`.
    pub(crate) fn verify(&self) -> Result<bool, RequestError> {
        let JobState { core, request, entry, .. } = &*self.0;
        if !core.has_hooks {
            return Ok(true);
        }
        let verify = |request| core.hooks.verify_request(request, entry.client_address());
        catch_panic(|| Ok(request.as_ref().is_some_and(verify)))
    }

    /// Serves the request to its end, and returns its outcome.
    ///
    /// Python: `finish_request`, `handle_error`, `shutdown_request`.
    pub fn run(mut self) -> Outcome {
        while self.0.serve_step(Wait::Block) != Progress::Done {}
        self.0.outcome.unwrap_or(Outcome::Finished)
    }

    /// [`run`](Self::run) in a forked child, which exits then. Its parent enforces the deadlines.
    ///
    /// The entry stays in the registry, because each write there copies a page. The clock is not read,
    /// because its code would be 16 more pages to map.
    pub(crate) fn run_in_child(&mut self) -> Outcome {
        self.0.registry().permits.clock().stop();
        while self.0.serve_step(Wait::Block) != Progress::Done {}
        self.0.outcome.unwrap_or(Outcome::Finished)
    }

    /// Serves a datagram whose answer is sent with those of a batch, if there is one.
    pub(crate) fn run_in_batch(mut self, batch: Option<&mut AnswerBatch>) {
        self.0.serve_in_batch(batch);
    }

    /// Serves the request until its handler returns.
    ///
    /// It blocks as long as the handler does, and from the second step on until the next input
    /// arrives. At the end of file there is no next request.
    pub fn step(&mut self) -> Step {
        match self.0.serve_step(Wait::Block) {
            Progress::Done => Step::Done,
            Progress::Served | Progress::WouldBlock => Step::Again,
        }
    }

    /// Like [`step`](Self::step), but does not wait for input. Only the handler may wait for it.
    pub(crate) fn try_step(&mut self) -> Progress {
        self.0.serve_step(Wait::DontBlock)
    }

    /// Closes an idle connection.
    pub(crate) fn close_idle(mut self) {
        self.0
            .entry
            .connection()
            .end_for_drain(&[ConnState::AwaitingFirstByte, ConnState::Idle], ConnState::DrainClosed);
        if self.0.handler.is_some() {
            // The handler sees the end of file, and `finish` runs.
            while self.try_step() == Progress::Served {}
        }
        self.0.outcome = self.0.outcome.or(Some(Outcome::Finished));
    }

    /// The connection, which a selector registers.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        self.0.entry.connection()
    }

    /// Gives the job back because it cannot be started.
    #[must_use]
    pub fn reject(self, error: io::Error) -> Rejected {
        Rejected { job: self, error }
    }

    /// Closes the parent's copy of a request that a forked child serves.
    ///
    /// Python: `close_request` alone. `shutdown_request` would end the child's connection too.
    pub(crate) fn leave_to_child(&mut self, pid: crate::os::process::Pid) {
        let closed = catch_panic(|| {
            let request = self.0.request.take();
            request.iter().for_each(|request| self.0.core.hooks.close_request(request));
            Ok(())
        });
        if let Err(error) = closed {
            self.0.report(&error);
        }
        let JobState { core, entry, .. } = &mut *self.0;
        entry.leave_to_child(core.registry(), pid);
        let wraps = self.0.core.wrap_request.is_some();
        self.0.enter(if wraps { ConnState::Wrapping } else { ConnState::Serving });
    }

    /// Records that `wrap_request` has returned in the child, and the client address that it
    /// named. The child is killed if that address has too many connections.
    pub(crate) fn wrapped_in_child(&mut self, client_address: Option<Address>) {
        let JobState { core, entry, outcome, .. } = &mut *self.0;
        if entry.set_wrapped(core.registry(), None, client_address).is_err() {
            log::debug!("request from {} refused: too many connections", entry.client_address());
            *outcome = Some(Outcome::Rejected);
            entry.connection().abort(SHUT_RDWR);
        }
        if self.0.entry.connection().state() == ConnState::Wrapping {
            self.0.enter(ConnState::Serving);
        }
    }

    /// Records the outcome of a child, unless a deadline or a drain killed it.
    pub(crate) fn ended_in_child(mut self, outcome: Outcome) -> Outcome {
        let connection = self.0.entry.connection();
        let outcome = match connection.state() {
            ConnState::Overdue(deadline) => Outcome::TimedOut(deadline),
            ConnState::DrainAborted => Outcome::Aborted,
            _ => self.0.outcome.unwrap_or(outcome),
        };
        self.0.outcome = Some(outcome);
        outcome
    }

    /// Returns the client's address.
    #[must_use]
    pub fn client_address(&self) -> &Address {
        self.0.entry.client_address()
    }

    /// Ends a job that could not be started, in the order of one that failed.
    pub(crate) fn end_rejected(rejected: Rejected) {
        let Rejected { mut job, error } = rejected;
        job.0.report(&RequestError::Rejected(error));
    }

    /// Ends a job that a limit or `verify_request` refused.
    pub(crate) fn close_unserved(mut self) {
        self.0.outcome = self.0.outcome.or(Some(Outcome::Rejected));
    }

    /// Calls `refuse_request`, and ends the job.
    pub(crate) fn refuse_with_hook(mut self) {
        self.0.refuse();
    }

    /// Reports an error of the request.
    pub(crate) fn report(&mut self, error: &RequestError) {
        self.0.report(error);
    }
}

/// The request that hooks see before it is served, or the socket that it is served over.
fn request_or_socket(arrival: Arrival, core: &Core) -> (Option<Request>, Option<Socket>) {
    match arrival {
        Arrival::Datagram(packet) => (Some(Request::datagram(packet)), None),
        Arrival::Connection(socket) if core.has_hooks || core.wrap_request.is_some() => {
            (Some(Request::accepted(socket)), None)
        }
        Arrival::Connection(socket) => (None, Some(socket)),
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("client_address", self.client_address()).finish_non_exhaustive()
    }
}
