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
use crate::os::guard::discard;
use crate::request::core::Core;
use crate::request::datagram_batch::AnswerBatch;
use crate::request::serve::{JobState, Progress, Wait};
use crate::request::{Arrival, Request, RequestError, catch_panic};

/// One request, which is served where a [`MixIn`](crate::MixIn) decides.
///
/// The server creates it for an accepted and verified request. [`run`](Job::run) serves the request
/// to its end, and [`step`](Job::step) serves one step of it. Dropping a job closes the connection.
/// A job that cannot be started is returned with [`reject`](Job::reject).
///
/// # Examples
///
/// A mixin that serves each request in a thread:
///
/// ```
/// use std::thread;
/// use sockserver::{Job, MixIn, Rejected, Server, handler_fn, kind};
///
/// #[derive(Default)]
/// struct Threads;
///
/// impl MixIn for Threads {
///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
///         thread::spawn(move || job.run());
///         Ok(())
///     }
/// }
///
/// let hello = handler_fn(|cx| cx.request.sendall(b"hello"));
/// let server = Server::<kind::Stream<kind::Inet>, Threads>::new(("127.0.0.1", 0), hello)?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.handle_request()?;
/// assert_eq!(client.recv(100)?, b"hello");
/// # std::io::Result::Ok(())
/// ```
pub struct Job(Box<JobState>);

/// The result of [`Job::step`].
///
/// This enum is exhaustive, because a [`MixIn`](crate::MixIn) has to handle both variants.
///
/// # Examples
///
/// ```
/// use sockserver::{Job, MixIn, Rejected, Step};
///
/// struct InTheLoop;
///
/// impl MixIn for InTheLoop {
///     fn process_request(&self, mut job: Job) -> Result<(), Rejected> {
///         while job.step() == Step::Again {}
///         Ok(())
///     }
/// }
/// assert_ne!(Step::Again, Step::Done);
/// ```
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
///
/// # Examples
///
/// ```
/// use std::io;
/// use sockserver::{Job, MixIn, Rejected};
///
/// struct Full;
///
/// impl MixIn for Full {
///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
///         Err(job.reject(io::Error::other("no thread is free")))
///     }
/// }
/// ```
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

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    /// Calls `verify_request`, unless a PROXY protocol header has to name the client before.
    pub(crate) fn verify(&self) -> Result<bool, RequestError> {
        if self.0.core.proxy_protocol.is_some() { Ok(true) } else { self.0.verify() }
    }

    /// Counts the connection in all worker processes, unless a PROXY protocol header has to name the
    /// client before. Returns false if its address has too many connections.
    pub(crate) fn is_within_shared_limit(&self) -> bool {
        let registry = self.0.core.registry();
        registry.limits().expects_proxy_header() || self.0.entry.count_in_all_workers(registry).is_ok()
    }

    /// Refuses the client if its address is denied, or exceeds the accept rate. Then the job has to
    /// be closed.
    pub(crate) fn admit_accepted(&mut self) -> bool {
        self.0.admit_accepted()
    }

    /// Returns whether the peer may send a PROXY protocol header, if one is required. Otherwise the
    /// job has to be closed.
    pub(crate) fn is_from_trusted_network(&mut self) -> bool {
        self.0.is_from_trusted_network()
    }

    /// Serves the request to its end, and returns its outcome.
    ///
    /// Python: `finish_request`, `handle_error`, `shutdown_request`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Mutex;
    /// use sockserver::{Job, MixIn, Outcome, Rejected, Server, handler_fn, kind};
    ///
    /// #[derive(Default)]
    /// struct Recording {
    ///     outcomes: Mutex<Vec<Outcome>>,
    /// }
    ///
    /// impl MixIn for Recording {
    ///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    ///         let outcome = job.run();
    ///         self.outcomes.lock().unwrap().push(outcome);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let server = Server::<kind::Stream<kind::Inet>, Recording>::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(*server.mixin().outcomes.lock().unwrap(), [Outcome::Finished]);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn run(mut self) -> Outcome {
        while self.0.serve_step(Wait::Block) != Progress::Done {}
        let outcome = self.0.outcome.unwrap_or(Outcome::Finished);
        // It may be the last owner of the user's handler factory and hooks.
        discard(self);
        outcome
    }

    /// [`run`](Self::run) in a forked child, which exits then. Its parent enforces the deadlines.
    ///
    /// The entry stays in the registry, because each write there copies a page. The deadlines of this
    /// process are disabled.
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
    ///
    /// # Examples
    ///
    /// A mixin that counts the requests on a connection:
    ///
    /// ```
    /// # use std::io::Write;
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// use sockserver::{Job, MixIn, Rejected, Server, Step, handler_fn, kind};
    ///
    /// #[derive(Default)]
    /// struct Counting {
    ///     steps: AtomicUsize,
    /// }
    ///
    /// impl MixIn for Counting {
    ///     fn process_request(&self, mut job: Job) -> Result<(), Rejected> {
    ///         while job.step() == Step::Again {
    ///             self.steps.fetch_add(1, Ordering::Relaxed);
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let keep_alive = handler_fn(|cx| {
    ///     let line = cx.rfile.readline(100)?;
    ///     cx.close_connection = line.is_empty();
    ///     cx.wfile.write_all(&line)
    /// });
    /// let server = Server::<kind::Stream<kind::Inet>, Counting>::new(("127.0.0.1", 0), keep_alive)?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// client.sendall(b"one\ntwo\n")?;
    /// client.shutdown(sock::SHUT_WR)?;
    /// server.handle_request()?;
    /// assert_eq!(server.mixin().steps.load(Ordering::Relaxed), 2);
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sockserver::{Job, MixIn, Rejected, Server, handler_fn, kind};
    ///
    /// #[derive(Default)]
    /// struct NoThreads;
    ///
    /// impl MixIn for NoThreads {
    ///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    ///         Err(job.reject(io::Error::other("no thread is free")))
    ///     }
    /// }
    ///
    /// let server = Server::<kind::Stream<kind::Inet>, NoThreads>::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(1)?, b"");
    /// assert_eq!(server.stats().rejected, 1);
    /// # std::io::Result::Ok(())
    /// ```
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
        let core = &self.0.core;
        self.0.enter(match (&core.proxy_protocol, &core.wrap_request) {
            (Some(_), _) => ConnState::ProxyHeader,
            (None, Some(_)) => ConnState::Wrapping,
            (None, None) => ConnState::Serving,
        });
    }

    /// Records that the PROXY protocol header was received in the child, and the client address that
    /// it named. The child is killed if that address has too many connections. Returns false then.
    pub(crate) fn proxied_in_child(&mut self, client_address: Option<Address>) -> bool {
        let JobState { core, entry, outcome, .. } = &mut *self.0;
        let allowed = entry.set_proxied(core.registry(), client_address, None).is_ok();
        if !allowed {
            *outcome = Some(Outcome::Rejected);
            entry.connection().abort(SHUT_RDWR);
        }
        if entry.connection().state() == ConnState::ProxyHeader {
            let wraps = core.wrap_request.is_some();
            self.0.enter(if wraps { ConnState::Wrapping } else { ConnState::Serving });
        }
        allowed
    }

    /// Records that `wrap_request` has returned in the child, and the client address that it
    /// named. The child is killed if that address has too many connections. Returns false then.
    pub(crate) fn wrapped_in_child(&mut self, client_address: Option<Address>) -> bool {
        let JobState { core, entry, outcome, .. } = &mut *self.0;
        let allowed = entry.set_wrapped(core.registry(), None, client_address).is_ok();
        if !allowed {
            *outcome = Some(Outcome::Rejected);
            entry.connection().abort(SHUT_RDWR);
        }
        if self.0.entry.connection().state() == ConnState::Wrapping {
            self.0.enter(ConnState::Serving);
        }
        allowed
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
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{Job, MixIn, Rejected, Server, handler_fn, kind};
    ///
    /// #[derive(Default)]
    /// struct Named;
    ///
    /// impl MixIn for Named {
    ///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    ///         let name = format!("client {}", job.client_address());
    ///         let _ = std::thread::Builder::new().name(name).spawn(move || job.run());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let name = handler_fn(|cx| cx.request.sendall(std::thread::current().name().unwrap().as_bytes()));
    /// let server = Server::<kind::Stream<kind::Inet>, Named>::new(("127.0.0.1", 0), name)?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert!(client.recv(100)?.starts_with(b"client 127.0.0.1:"));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn client_address(&self) -> &Address {
        self.0.entry.client_address()
    }

    /// Ends a job that could not be started, in the order of one that failed.
    pub(crate) fn end_rejected(rejected: Rejected) {
        let Rejected { mut job, error } = rejected;
        let error = RequestError::Rejected(error);
        job.0.report(&error);
        discard((job, error));
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
        // The deadline timer and a drain can end the header of the PROXY protocol.
        Arrival::Connection(socket) if core.proxy_protocol.is_some() => (None, Some(socket)),
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
