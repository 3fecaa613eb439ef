//! A job: one accepted request on its way through a worker.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Cursor, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sock::{
    AF_UNIX, Address, IPPROTO_TCP, POLLIN, Poll, ReadBuffer, Socket, SocketReader, SocketWriter,
    TCP_NODELAY,
};

use crate::connection::{Connection, poll_through_signals};
use crate::datagram::{DatagramContext, ErasedDatagramHandler};
use crate::handle::ServerHandle;
use crate::handler::{ErasedHandler, StreamContext};
use crate::hooks::{self, ServerHooks};
use crate::limits::Deadline;
use crate::phase::Phase;
use crate::registry::{Entry, Permit, Registry, Serving, TooManyOfOne};
use crate::request::{Request, RequestError, guard};
use crate::stats::Outcome;
use crate::wrapping::{Wrapped, Wraps};

/// What all requests of a server share.
pub(crate) struct Core {
    pub(crate) service: Arc<Service>,
    pub(crate) hooks: Arc<dyn ServerHooks>,
    pub(crate) handle: ServerHandle,
    /// Whether accepted sockets have the listener's `SO_RCVTIMEO` and `SO_SNDTIMEO`.
    pub(crate) inherits_timeouts: bool,
    /// Whether the former is the deadline for the first byte.
    pub(crate) inherits_first_byte: bool,
    pub(crate) wraps: Wraps,
}

impl Core {
    /// The same for a worker process: with its own handle and register, since the
    /// parent's are out of its reach.
    #[cfg(unix)]
    pub(crate) fn for_worker(parent: &Core) -> io::Result<Core> {
        Ok(Core {
            service: Arc::clone(&parent.service),
            hooks: Arc::clone(&parent.hooks),
            handle: ServerHandle::for_worker(parent.registry().limits().clone())?,
            inherits_timeouts: parent.inherits_timeouts,
            inherits_first_byte: parent.inherits_first_byte,
            wraps: parent.wraps.clone(),
        })
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        self.handle.registry()
    }
}

/// The server's factory of handlers.
pub(crate) enum Service {
    Stream(Box<dyn Fn() -> Box<dyn ErasedHandler> + Send + Sync>),
    Datagram(Box<dyn Fn() -> Box<dyn ErasedDatagramHandler> + Send + Sync>),
}

/// What a child tells its parent when `wrap_request` is done: whether it did anything.
const WRAPPED: &[u8] = b"w";
const PLAIN: &[u8] = b"p";

/// One request, to be served by whatever a [`MixIn`](crate::MixIn) chooses.
///
/// Its life: the server makes it of an accepted and verified request;
/// [`run`](Job::run) serves it to the end, or [`step`](Job::step) does so by the
/// piece. Whoever drops it, at whatever point, closes the connection: nothing is
/// left open. One that cannot be started goes back with [`reject`](Job::reject).
pub struct Job(Box<Life>);

/// A job that has ended, kept for the next request of the same server.
pub(crate) struct Spare(Box<Life>);

/// A job's own; it goes from hand to hand as a pointer.
struct Life {
    core: Arc<Core>,
    /// `None` once the request is closed.
    request: Option<Request>,
    conversation: Option<Conversation>,
    /// Who wants to know when `wrap_request` is done.
    tells: Option<Arc<Socket>>,
    entry: Entry,
    /// How it ended; `None` until it has been served.
    outcome: Option<Outcome>,
    /// Nothing is left to be closed.
    closed: bool,
}

/// Of an answer this much may be on its way, and is not waited for: a small answer
/// has left the system, and a client that waits for it does not send.
const ON_ITS_WAY: usize = 1 << 16;

/// How often closing looks whether the rest of a large answer has been sent.
const LINGER_LOOKS: Duration = Duration::from_millis(20);

/// A connection whose handler has been set up.
struct Conversation {
    handler: Box<dyn ErasedHandler>,
    /// Whether `setup` has run, and `handle` for the first time.
    set_up: bool,
    handled: bool,
}

/// What [`Job::step`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// The handler waits for the next request on the connection. The next step
    /// blocks until it is there; a job may rest until then.
    Again,
    /// The request has been served and closed.
    Done,
}

/// How a step waits for input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Await,
    /// Not at all: somebody else waits.
    IfThere,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// A request was served, and the handler waits for the next.
    Again,
    /// There is no input to serve.
    NoInput,
    Ended,
}

/// A job that could not be started, with the reason. Nothing of it is lost: the
/// server reports the error and then closes the request in the usual order.
#[derive(Debug)]
pub struct Rejected {
    job: Job,
    error: io::Error,
}

impl Job {
    /// Enters a request that has just been accepted.
    pub(crate) fn enter(
        core: &Arc<Core>,
        request: Request,
        client_address: Address,
        permit: Permit,
    ) -> (Job, Result<(), TooManyOfOne>) {
        let (entry, allowed) = core.registry().enter(client_address, permit);
        let life = Life {
            core: Arc::clone(core),
            request: Some(request),
            conversation: None,
            tells: None,
            entry,
            outcome: None,
            closed: false,
        };
        (Job(Box::new(life)), allowed)
    }

    /// Asks `verify_request`.
    pub(crate) fn verify(&self) -> Result<bool, RequestError> {
        let Life { core, request, entry, .. } = &*self.0;
        let verify = |request| core.hooks.verify_request(request, entry.client_address());
        guard(|| Ok(request.as_ref().is_some_and(verify)))
    }

    /// Serves the request to its end and tells what became of it.
    ///
    /// Python: `finish_request`, `handle_error`, `shutdown_request`.
    pub fn run(mut self) -> Outcome {
        while self.step() == Step::Again {}
        let outcome = self.0.outcome.unwrap_or(Outcome::Finished);
        Spare::keep(self);
        outcome
    }

    /// Serves the request until its handler returns.
    ///
    /// It blocks as long as the handler does, and from the second step on until
    /// the next input is there. At the end of file there is no next request.
    pub fn step(&mut self) -> Step {
        match self.attempt(Input::Await) {
            Tried::Ended => Step::Done,
            Tried::Again | Tried::NoInput => Step::Again,
        }
    }

    /// [`step`](Self::step), but only if input is there: it never waits for the
    /// client, only the handler does.
    #[cfg(unix)]
    pub(crate) fn try_step(&mut self) -> Tried {
        self.attempt(Input::IfThere)
    }

    /// Ends a connection that has no request.
    #[cfg(unix)]
    pub(crate) fn dismiss(mut self) {
        self.0.entry.connection().end_for_drain(&[Phase::Silent, Phase::Between], Phase::Dismissed);
        if self.0.conversation.is_some() {
            // The handler sees the end, and finishes.
            while self.try_step() == Tried::Again {}
        }
        self.0.outcome = self.0.outcome.or(Some(Outcome::Finished));
    }

    /// Whether input has been read that no request has taken yet.
    #[cfg(unix)]
    pub(crate) fn has_unread(&self) -> bool {
        self.0.entry.connection().has_ahead()
    }

    /// The connection, while it is open.
    #[cfg(unix)]
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        self.0.entry.connection()
    }

    fn attempt(&mut self, input: Input) -> Tried {
        let _serving = Serving::begin(self.0.entry.registry());
        let served = match (&*self.0.core.service, &self.0.request) {
            (_, None) => return Tried::Ended,
            (Service::Stream(_), Some(_)) => self.step_stream(input),
            (Service::Datagram(_), Some(_)) => self.serve_datagram().map(|()| Tried::Ended),
        };
        match served {
            Ok(Tried::Ended) => self.0.outcome = self.0.outcome.or_else(|| Some(self.0.ended_well())),
            Ok(goes_on) => return goes_on,
            Err(error) => self.0.fail(error),
        }
        self.0.end();
        Tried::Ended
    }

    /// Gives the job back because it cannot be started.
    #[must_use]
    pub fn reject(self, error: io::Error) -> Rejected {
        Rejected { job: self, error }
    }

    /// Closes a parent's copy of a request that a forked child serves.
    ///
    /// Python: `close_request` alone; `shutdown_request` would end the child's
    /// connection too.
    #[cfg(unix)]
    pub(crate) fn leave_to_child(&mut self, pid: crate::sys::Pid, lifeline: Arc<Socket>) {
        let closed = guard(|| {
            let request = self.0.request.take();
            request.iter().for_each(|request| self.0.core.hooks.close_request(request));
            Ok(())
        });
        if let Err(error) = closed {
            self.0.report(&error);
        }
        self.0.entry.connection().serve_in_child(pid, lifeline);
        let wraps = matches!(*self.0.core.service, Service::Stream(_)) && self.0.core.wraps.may_take_long();
        self.0.entry.enter(if wraps { Phase::Wrapping } else { Phase::Busy });
    }

    /// The child has told that `wrap_request` is done.
    #[cfg(unix)]
    pub(crate) fn wrapped_in_child(&self, said: &[u8]) {
        self.0.core.wraps.learn(said == PLAIN);
        if self.0.entry.connection().phase() == Phase::Wrapping {
            self.0.entry.enter(Phase::Busy);
        }
    }

    /// Has a child tell its parent, which watches the deadlines, when `wrap_request`
    /// is done.
    #[cfg(unix)]
    pub(crate) fn tell_when_wrapped(&mut self, parent: Arc<Socket>) {
        self.0.tells = Some(parent);
    }

    /// Notes how the child ended, unless it was killed for being late.
    #[cfg(unix)]
    pub(crate) fn ended_in_child(mut self, outcome: Outcome) -> Outcome {
        let connection = self.0.entry.connection();
        let outcome = match connection.phase() {
            Phase::Overdue(deadline) => Outcome::TimedOut(deadline),
            Phase::Drained => Outcome::Cut,
            _ => outcome,
        };
        self.0.outcome = Some(outcome);
        outcome
    }

    /// Who is to be served.
    #[must_use]
    pub fn client_address(&self) -> &Address {
        self.0.entry.client_address()
    }

    fn step_stream(&mut self, input: Input) -> Result<Tried, RequestError> {
        if self.0.conversation.is_none() {
            self.begin()?;
        }
        let Life { core, entry, tells, request: Some(request), conversation: Some(conversation), .. } =
            &mut *self.0
        else {
            return Ok(Tried::Ended);
        };
        let Some(stream) = request.stream() else {
            return Ok(Tried::Ended);
        };
        let Conversation { handler, set_up, handled } = conversation;
        let variables = handler.class_variables();
        let mut cx = StreamContext {
            rfile: SocketReader::with_buffer(stream, lend(variables.rbufsize)),
            wfile: SocketWriter::new(stream, variables.wbufsize),
            request: stream,
            client_address: entry.client_address(),
            server: &core.handle,
            close_connection: true,
        };
        // A handler whose setup failed is not finished, as in Python.
        if !*set_up {
            guard(|| handler.setup(&mut cx))?;
            *set_up = true;
        }
        // The first request is the client's to begin only where nobody waits for it.
        let comes = match (*handled, input) {
            (false, Input::Await) => Ok(true),
            (false, Input::IfThere) if variables.speaks_first => Ok(true),
            _ => match tells {
                Some(parent) => entry.connection().await_input_or_word(variables.rbufsize, parent),
                None => entry.connection().await_input(variables.rbufsize, input == Input::IfThere),
            },
        };
        let mut served = Ok(());
        let comes = match comes {
            Err(error) if input == Input::IfThere && error.kind() == io::ErrorKind::WouldBlock => {
                put_away(cx.rfile.into_buffer());
                return Ok(Tried::NoInput);
            }
            // A handler sees the end of a client that never spoke; a later one has
            // nothing to lose: a client that goes away between two requests, or
            // says nothing for too long, has ended the conversation.
            Ok(there) => there || !*handled,
            Err(error) => {
                if !*handled {
                    served = Err(RequestError::Failed(error));
                }
                false
            }
        };
        if comes && (!*handled || entry.enter(Phase::Busy)) {
            *handled = true;
            cx.close_connection = true;
            served = guard(|| handler.handle(&mut cx));
            if served.is_ok() && !cx.close_connection {
                served = guard(|| cx.wfile.flush());
                let more = !cx.rfile.buffer().is_empty() || entry.connection().has_ahead();
                let goes_on = served.is_ok() && !entry.registry().is_draining();
                let goes_on = goes_on
                    && match more {
                        true => entry.enter(Phase::Busy),
                        false => entry.enter(Phase::Between),
                    };
                if goes_on {
                    if !more {
                        entry.limit_next_read(Deadline::Idle);
                    }
                    give_back(cx.rfile.into_buffer(), entry.connection());
                    return Ok(Tried::Again);
                }
            }
        }
        let finished = guard(|| handler.finish(&mut cx));
        put_away(cx.rfile.into_buffer());
        served.and(finished).map(|()| Tried::Ended)
    }

    /// Wraps the request and makes its handler: Python's `finish_request` up to
    /// the handler's `__init__`.
    fn begin(&mut self) -> Result<(), RequestError> {
        let Service::Stream(make) = &*self.0.core.service else {
            return Ok(());
        };
        if let Some(request) = self.0.request.take() {
            self.0.request = Some(match request.into_accepted() {
                Ok(socket) => self.wrap(socket)?,
                Err(request) => request,
            });
        }
        if !self.0.entry.enter(Phase::Silent) {
            // Its time was over before it had a handler: there was nobody to wake.
            let ended = self.0.entry.connection().ended();
            return Err(RequestError::Failed(
                ended.unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()),
            ));
        }
        self.0.entry.limit_next_read(Deadline::FirstByte);
        let handler = guard(|| {
            let handler = make();
            let variables = handler.class_variables();
            if let Some(request) = &self.0.request {
                if let Some(timeout) = variables.timeout {
                    request.socket().settimeout(timeout)?;
                }
                if variables.disable_nagle_algorithm {
                    request.socket().setsockopt(IPPROTO_TCP, TCP_NODELAY, true)?;
                }
            }
            Ok(handler)
        })?;
        self.0.conversation = Some(Conversation { handler, set_up: false, handled: false });
        Ok(())
    }

    /// Makes the connection talk over the socket, or what `wrap_request` makes of it.
    fn wrap(&self, socket: Socket) -> Result<Request, RequestError> {
        let connection = self.0.entry.connection();
        if !self.0.core.inherits_timeouts {
            let limits = self.0.entry.registry().limits();
            let set = socket.set_recv_timeout(limits.read_timeout);
            set.and_then(|()| socket.set_send_timeout(limits.write_timeout))
                .map_err(RequestError::Failed)?;
        } else if self.0.core.inherits_first_byte {
            connection.has_limit(Deadline::FirstByte);
        }
        let wraps = &self.0.core.wraps;
        if wraps.is_not_there() {
            connection.serve_over_socket(socket);
            return Ok(Request::served(Arc::clone(connection)));
        }
        let is_watched = wraps.may_take_long();
        if is_watched {
            // The hook has the socket; to end a handshake that takes too long, somebody
            // else needs it too. Without a descriptor for that it goes unwatched.
            // In a process of its own nobody watches; its parent kills it.
            if self.0.tells.is_none() {
                connection.set_wrapping(socket.dup().ok());
            }
            self.0.entry.enter(Phase::Wrapping);
        }
        let wrapped = guard(|| hooks::wrap_request(&*self.0.core.hooks, socket));
        connection.set_wrapping(None);
        let is_plain = matches!(wrapped, Ok(Wrapped::Plain(_)));
        wraps.learn(is_plain);
        if let Some(parent) = self.0.tells.as_ref().filter(|_| is_watched || !is_plain) {
            let _ = parent.send(if is_plain { PLAIN } else { WRAPPED });
        }
        connection.serve_over(wrapped?);
        Ok(Request::served(Arc::clone(connection)))
    }

    fn serve_datagram(&mut self) -> Result<(), RequestError> {
        let (Service::Datagram(make), Some(request)) = (&*self.0.core.service, &self.0.request) else {
            return Ok(());
        };
        let packet = request.packet().unwrap_or_default();
        let mut cx = DatagramContext {
            packet,
            is_truncated: request.is_truncated(),
            socket: request.socket(),
            rfile: Cursor::new(packet),
            wfile: ANSWER.take(),
            client_address: self.0.entry.client_address(),
            server: &self.0.core.handle,
        };
        let (mut handler, mut set_up, mut stage, mut served) = (None, false, 0, Ok(()));
        // One guard for all, unless something fails: the rest follows all the same.
        while stage < 3 {
            let tried = guard(|| {
                if stage == 0 {
                    stage = 1;
                    let handler = handler.insert(make());
                    handler.setup(&mut cx)?;
                    set_up = true;
                    handler.handle(&mut cx)?;
                }
                if stage == 1 {
                    stage = 2;
                    // A handler whose setup failed is not finished, as in Python.
                    handler
                        .iter_mut()
                        .filter(|_| set_up)
                        .try_for_each(|handler| handler.finish(&mut cx))?;
                }
                stage = 3;
                drop(handler.take());
                Ok(())
            });
            served = served.and(tried);
        }
        cx.wfile.clear();
        if cx.wfile.capacity() <= LARGEST_SPARE {
            ANSWER.set(cx.wfile);
        }
        served
    }

    /// Ends a job that could not be started, in the order of one that failed.
    pub(crate) fn end_rejected(rejected: Rejected) {
        let Rejected { mut job, error } = rejected;
        job.0.report(&RequestError::Rejected(error));
    }

    /// Ends a job that a limit or `verify_request` refuses.
    pub(crate) fn refuse(mut self) {
        self.0.outcome = self.0.outcome.or(Some(Outcome::Rejected));
    }

    /// Tells a client that it is one too many, and ends the job.
    pub(crate) fn turn_away(mut self) {
        if let Some(request) = &self.0.request {
            let told = guard(|| {
                self.0.core.hooks.refuse_request(request, self.0.entry.client_address());
                Ok(())
            });
            if let Err(error) = told {
                self.0.report(&error);
            }
        }
        self.refuse();
    }

    /// Tells of a request's error.
    pub(crate) fn report(&mut self, error: &RequestError) {
        self.0.report(error);
    }
}

impl Life {
    /// What became of a request whose handler is content.
    fn ended_well(&self) -> Outcome {
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
    fn fail(&mut self, error: RequestError) {
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
    fn report(&mut self, error: &RequestError) {
        if matches!(self.outcome, None | Some(Outcome::Finished)) {
            self.outcome = Some(match error {
                RequestError::Failed(_) if self.was_cut() => Outcome::Cut,
                RequestError::Failed(_) => Outcome::Failed,
                RequestError::Panicked(_) => Outcome::Panicked,
                RequestError::Rejected(_) => Outcome::Rejected,
                RequestError::TimedOut(deadline, _) => Outcome::TimedOut(*deadline),
            });
        }
        let told = guard(|| {
            self.core.hooks.handle_error(error, self.entry.client_address());
            Ok(())
        });
        if let Err(second) = told {
            log::error!("handle_error for {} {second}; it was told: {error}", self.entry.client_address());
        }
    }

    fn was_cut(&self) -> bool {
        self.entry.connection().phase() == Phase::Drained
    }

    /// Ends it, in the usual order. What panics on the way is told, and the rest
    /// follows all the same.
    fn end(&mut self) {
        let mut stage = 0;
        while !self.closed {
            if let Err(error) = guard(|| self.end_from(&mut stage)) {
                self.report(&error);
            }
        }
    }

    fn end_from(&mut self, stage: &mut u8) -> io::Result<()> {
        loop {
            *stage += 1;
            match (*stage, &self.request) {
                // It belongs to the connection.
                (1, _) => drop(self.conversation.take()),
                (2, Some(_)) if self.may_just_close() => {}
                (2, Some(request)) => self.core.hooks.shutdown_request(request),
                (3, Some(request)) => self.linger(request),
                (4, Some(request)) => self.core.hooks.close_request(request),
                (5, _) => drop(self.request.take()),
                // What wrap_request made goes with it.
                (6, _) => self.entry.close(),
                (7.., _) => {
                    self.closed = true;
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Whether closing tells the client all that the default of `shutdown_request` would
    /// have: a call less for each short connection. A child's parent may be late with
    /// closing its copy.
    fn may_just_close(&self) -> bool {
        self.core.wraps.is_not_there()
            && self.tells.is_none()
            && self.entry.connection().ends_with_its_close()
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
        let limit = self.entry.registry().limits().linger_timeout;
        let Some(stream) = request.stream().filter(|_| !ended && !limit.is_zero()) else {
            return;
        };
        let limit = if connection.stream().is_some() { limit } else { Duration::ZERO };
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
        self.end();
        // A job that nobody ran was none that could be served.
        self.entry.end(self.outcome.unwrap_or(Outcome::Rejected));
    }
}

impl Spare {
    /// Runs what serves a request, mostly in this thread: then its job and its permit
    /// can be the next request's.
    pub(crate) fn after<T>(serve: impl FnOnce() -> T) -> (T, Option<Spare>) {
        let wanted = Wanted { before: SPARE_WANTED.replace(true) };
        let served = serve();
        drop(wanted);
        (served, SPARE_JOB.take())
    }

    /// Ends a job, and keeps what can be used again if somebody wants it.
    fn keep(Job(mut life): Job) {
        if !SPARE_WANTED.get() {
            return;
        }
        life.end();
        life.entry.end(life.outcome.unwrap_or(Outcome::Rejected));
        life.tells = None;
        SPARE_JOB.set(Some(Spare(life)));
    }

    /// Whether it can be used again for that server.
    pub(crate) fn is_of(&self, core: &Arc<Core>) -> bool {
        Arc::ptr_eq(&self.0.core, core)
    }

    /// The permit of the request before.
    pub(crate) fn take_permit(&mut self) -> Option<Permit> {
        self.0.entry.take_permit()
    }

    /// Makes it another request's.
    pub(crate) fn renew(
        self,
        request: Request,
        client_address: Address,
        permit: Permit,
    ) -> (Job, Result<(), TooManyOfOne>) {
        let Spare(mut life) = self;
        let allowed = life.entry.renew(client_address, permit);
        life.request = Some(request);
        life.outcome = None;
        life.closed = false;
        (Job(life), allowed)
    }
}

/// Nobody wants spare jobs beyond [`Spare::after`], which a panic may leave.
struct Wanted {
    before: bool,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        SPARE_WANTED.set(self.before);
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("client_address", self.client_address()).finish_non_exhaustive()
    }
}

thread_local! {
    /// The worker's read buffer, lent to one connection after another.
    static SPARE: Cell<Option<ReadBuffer>> = const { Cell::new(None) };
    /// Whether somebody wants the job that this thread runs, when it has ended.
    static SPARE_WANTED: Cell<bool> = const { Cell::new(false) };
    static SPARE_JOB: Cell<Option<Spare>> = const { Cell::new(None) };
    /// Where a datagram's answer is written.
    static ANSWER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// No larger one is kept: a datagram has at most 64 KiB.
const LARGEST_SPARE: usize = 1 << 16;

/// Makes this thread's spare buffers, so that the children it forks have them.
#[cfg(unix)]
pub(crate) fn warm_up() {
    SPARE.set(Some(ReadBuffer::new(sock::DEFAULT_BUFFER_SIZE)));
    crate::connection::warm_up();
}

/// The worker's buffer.
fn lend(size: usize) -> ReadBuffer {
    let spare = SPARE.take().filter(|spare| spare.size() == size.max(1));
    spare.unwrap_or_else(|| ReadBuffer::new(size.max(1)))
}

/// Gives the worker its buffer back; what is unread in it is the connection's.
fn give_back(buffer: ReadBuffer, connection: &Connection) {
    match buffer.unread() {
        [] => put_away(buffer),
        _ => connection.put_ahead(buffer),
    }
}

/// Gives the worker its buffer back, unless somebody's input is still in it.
fn put_away(buffer: ReadBuffer) {
    if buffer.unread().is_empty() {
        SPARE.set(Some(buffer));
    }
}
