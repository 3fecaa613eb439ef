//! Serving a request: the state of a job, and its steps.

use std::io::{self, Write};
use std::sync::Arc;

use sock::{AddressError, IPPROTO_TCP, Socket, SocketReader, SocketWriter, StreamSocket, TCP_NODELAY};

use crate::connection::Connection;
use crate::connection::buffer_pool::recycle_buffer;
use crate::connection::state::ConnState;
use crate::lifecycle::current_server::ServingThread;
use crate::lifecycle::deadline_timer::ScopedTimer;
use crate::lifecycle::registry::{Entry, Registry};
use crate::limits::DeadlineKind;
use crate::limits::stats::Outcome;
use crate::limits::traffic::CountingThread;
use crate::os::child_channel::{self, ServerId};
use crate::os::guard::{discard, first_error, guard};
use crate::request::core::{Core, HandlerFactory};
use crate::request::datagram_batch::AnswerBatch;
use crate::request::datagram_handler;
use crate::request::hooks::WrappedRequest;
use crate::request::proxy_protocol::HeaderReader;
use crate::request::stream_handler::{ErasedHandler, StreamContext};
use crate::request::{Request, RequestError, catch_panic};

/// The state of a job, which is moved as a pointer. An idle connection costs this and its
/// [`Connection`], so both are small.
pub(crate) struct JobState {
    pub(crate) core: Arc<Core>,
    /// `None` once the request is closed.
    pub(crate) request: Option<Request>,
    /// The handler of a connection, from its first step on.
    pub(crate) handler: Option<Box<dyn ErasedHandler>>,
    pub(crate) entry: Entry,
    /// The PROXY protocol header while it is received.
    pub(super) proxy_header: Option<Box<HeaderReader>>,
    /// Whether the handler's `setup` has run, and `handle` for the first time.
    set_up: bool,
    pub(super) handled: bool,
    /// The outcome; `None` until the request has been served.
    pub(crate) outcome: Option<Outcome>,
    /// The request is closed.
    pub(crate) closed: bool,
}

/// How a step waits for input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Block,
    /// Do not wait.
    DontBlock,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A request was served. The connection stays open for the next one.
    Served,
    /// There is no input to serve.
    WouldBlock,
    Done,
}

impl JobState {
    pub(crate) fn new(core: Arc<Core>, request: Request, entry: Entry) -> JobState {
        JobState {
            core,
            request: Some(request),
            handler: None,
            entry,
            proxy_header: None,
            set_up: false,
            handled: false,
            outcome: None,
            closed: false,
        }
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        self.core.registry()
    }

    pub(crate) fn server_id(&self) -> ServerId {
        ServerId::of(self.registry())
    }

    /// Returns whether this process was forked for the request.
    pub(crate) fn is_in_forked_child(&self) -> bool {
        child_channel::is_child_of(self.server_id())
    }

    /// Enters a state: see [`Entry::enter`].
    #[inline(always)]
    pub(crate) fn enter(&self, phase: ConnState) -> bool {
        self.entry.enter(self.registry(), phase)
    }

    /// Serves one step. It never panics.
    pub(crate) fn serve_step(&mut self, input: Wait) -> Progress {
        let counting = CountingThread::begin(self.core.registry().permits.traffic());
        let progress = match guard(|| self.serve_step_unguarded(input)) {
            Ok(progress) => progress,
            // For example, a stream that `wrap_request` returned has panicked between two requests.
            Err(message) => self.ended(Some(RequestError::Panicked(message))),
        };
        counting.end(self.core.registry().permits.traffic());
        progress
    }

    fn serve_step_unguarded(&mut self, input: Wait) -> Progress {
        let _serving = ServingThread::begin(self.core.registry());
        let tried = match (&*self.core.service, &self.request) {
            (_, None) => return Progress::Done,
            (HandlerFactory::Stream(_), Some(_)) => self.serve_stream(input),
            (HandlerFactory::Datagram(_), Some(_)) => self.serve_datagram(None).map(|()| Progress::Done),
        };
        match tried {
            Ok(goes_on @ (Progress::Served | Progress::WouldBlock)) => goes_on,
            ended => self.ended(ended.err()),
        }
    }

    /// Ends a request that was served completely, or failed.
    fn ended(&mut self, error: Option<RequestError>) -> Progress {
        match error {
            None => self.outcome = self.outcome.or_else(|| Some(self.successful_outcome())),
            Some(error) => self.fail(error),
        }
        self.end();
        Progress::Done
    }

    /// Serves the connection's next request. The first call also wraps the connection and makes the
    /// handler.
    fn serve_stream(&mut self, input: Wait) -> Result<Progress, RequestError> {
        if self.handler.is_none() {
            if let Some(progress) = self.receive_proxy_header(input)? {
                return Ok(progress);
            }
            if !self.begin()? {
                return Ok(Progress::Done);
            }
        }
        let JobState { core, entry, handler: Some(handler), set_up, handled, .. } = self else {
            return Ok(Progress::Done);
        };
        let registry = core.registry();
        let connection = entry.connection();
        let config = handler.config();
        let mut cx = StreamContext {
            rfile: SocketReader::with_filler(&**connection, config.rbufsize),
            wfile: SocketWriter::new(&**connection, config.wbufsize),
            request: &**connection,
            client_address: entry.client_address(),
            server: &core.handle,
            #[cfg(feature = "proxy-protocol")]
            proxy_header: connection.proxy_header(),
            close_connection: true,
            connection,
        };
        // A handler whose setup failed is not finished, as in Python.
        if !*set_up {
            set_up_handler(&mut **handler, &mut cx)?;
            *set_up = true;
        }
        // A worker that blocks calls `handle` at once. Otherwise the first request begins with
        // input, or with what `setup` has read.
        let begins =
            !*handled && (input == Wait::Block || config.speaks_first || !cx.rfile.buffer().is_empty());
        let mut served = Ok(());
        let comes = match begins {
            true => Ok(true),
            false => await_input(ServerId::of(registry), connection, config.rbufsize, input),
        };
        let comes = match comes {
            // The first `handle` sees the end of file. After a request, an end of file or the idle
            // deadline ends the connection without another call.
            Ok(there) => there || !*handled,
            Err(error) if input == Wait::DontBlock && error.kind() == io::ErrorKind::WouldBlock => {
                connection.return_buffer(cx.rfile.into_buffer());
                return Ok(Progress::WouldBlock);
            }
            Err(error) => {
                if *handled {
                    discard(error);
                } else {
                    served = Err(RequestError::Failed(error));
                }
                false
            }
        };
        if comes && (!*handled || entry.enter(registry, ConnState::Serving)) {
            *handled = true;
            cx.close_connection = true;
            served = catch_panic(|| {
                handler.handle(&mut cx)?;
                if cx.close_connection { Ok(()) } else { cx.wfile.flush() }
            });
            let now = Some(connection.count_request());
            registry.count_request_of_worker();
            core.quota.count();
            if served.is_ok() && !cx.close_connection {
                let more = !cx.rfile.buffer().is_empty() || connection.has_read_ahead();
                let ends = registry.is_draining() || core.quota.is_exhausted();
                // A stream on top may have more than it has returned.
                let more = more || ends && guard(|| connection.pending() > 0).unwrap_or(false);
                let goes_on = if ends && !keeps_once_more(core, connection, more) {
                    false
                } else if more {
                    entry.enter_at(registry, ConnState::Serving, now)
                } else {
                    entry.enter_at(registry, ConnState::Idle, now)
                };
                if goes_on {
                    connection.return_buffer(cx.rfile.into_buffer());
                    return Ok(Progress::Served);
                }
            }
        }
        let finished = catch_panic(|| handler.finish(&mut cx));
        recycle_buffer(cx.rfile.into_buffer());
        first_error(served, finished).map(|()| Progress::Done)
    }

    /// Wraps the request and makes its handler: Python's `finish_request` up to
    /// the handler's `__init__`. Returns false if the request was refused.
    fn begin(&mut self) -> Result<bool, RequestError> {
        if let Some(socket) = self.entry.connection().plain_socket() {
            self.limit_sends(socket)?;
        }
        let wrapped = match self.request.take().map(Request::into_accepted) {
            Some(Ok(socket)) => self.wrap(socket)?,
            Some(Err(served)) => {
                self.request = Some(served);
                true
            }
            None => false,
        };
        if !wrapped {
            return Ok(false);
        }
        let HandlerFactory::Stream(make) = &*self.core.service else {
            return Ok(false);
        };
        if !self.enter(ConnState::AwaitingFirstByte) {
            // It was ended before it had a handler that could be woken.
            return Err(RequestError::Failed(self.ended_before()));
        }
        let handler = catch_panic(|| {
            let handler = make();
            let config = handler.config();
            if let Some(request) = &self.request {
                if let Some(timeout) = config.timeout {
                    request.socket().settimeout(timeout)?;
                }
                if config.disable_nagle_algorithm {
                    request.socket().setsockopt(IPPROTO_TCP, TCP_NODELAY, true)?;
                }
            }
            Ok(handler)
        })?;
        self.handler = Some(handler);
        Ok(true)
    }

    /// Sets `write_timeout` on the socket, unless accept(2) has copied it from the listener.
    fn limit_sends(&self, socket: &Socket) -> Result<(), RequestError> {
        if self.core.inherits_write_timeout {
            return Ok(());
        }
        socket.set_send_timeout(self.registry().limits().write_timeout).map_err(RequestError::Failed)
    }

    /// Calls `wrap_request`, if the server has one, and sets what it returned as the
    /// connection's transport. Returns false if the client that it named is refused.
    fn wrap(&mut self, socket: Socket) -> Result<bool, RequestError> {
        self.limit_sends(&socket)?;
        let WrappedRequest { transport, client_address } = match &self.core.wrap_request {
            None => WrappedRequest::from(socket),
            Some(wrap_request) => {
                // Only the kernel can limit a receive inside a stream that the hook makes.
                let read_timeout = self.registry().limits().read_timeout;
                socket.set_recv_timeout(read_timeout).map_err(RequestError::Failed)?;
                let timer = self.watch_wrapping(&socket)?;
                let wrapped = catch_panic(|| wrap_request(socket, self.entry.client_address()));
                drop(timer);
                self.entry.set_wrapping(self.registry(), None);
                if wrapped.is_err() {
                    child_channel::send_wrapped(self.server_id(), None);
                }
                wrapped.map_err(|error| self.wrap_error(error))?
            }
        };
        let is_named = client_address.is_some();
        let allowed = self.entry.set_wrapped(self.registry(), Some(transport), client_address);
        let is_admitted = !is_named || self.admit_wrapped();
        if self.core.wrap_request.is_some() {
            // A client that this child refuses does not count for its address in the parent.
            let named = self.entry.connection().named_address();
            let named = named.filter(|_| allowed.is_ok() && is_admitted);
            child_channel::send_wrapped(self.server_id(), named);
        }
        self.request = Some(Request::served(Arc::clone(self.entry.connection())));
        if !is_admitted {
            return Ok(false);
        }
        if allowed.is_err() {
            log::debug!(
                peer:% = self.entry.client_address(), reason = "too many connections";
                "request from {} refused: too many connections", self.entry.client_address()
            );
            self.refuse();
        }
        Ok(allowed.is_ok())
    }

    /// A client that was too slow for a timeout of the hook's own, such as that of a TLS handshake,
    /// is not an error of the server.
    #[cold]
    fn wrap_error(&self, error: RequestError) -> RequestError {
        match error {
            RequestError::Failed(error)
                if error.kind() == io::ErrorKind::TimedOut
                    && self.entry.connection().state() == ConnState::Wrapping =>
            {
                RequestError::TimedOut(DeadlineKind::Wrap, error)
            }
            error => error,
        }
    }

    /// Calls `verify_request`.
    pub(super) fn verify(&self) -> Result<bool, RequestError> {
        if !self.core.has_hooks {
            return Ok(true);
        }
        let verify = |request| self.core.hooks.verify_request(request, self.entry.client_address());
        catch_panic(|| Ok(self.request.as_ref().is_some_and(verify)))
    }

    /// Calls `refuse_request`. The request has no handler, and is closed next.
    pub(crate) fn refuse(&mut self) {
        if let Some(request) = &self.request {
            let refused = catch_panic(|| {
                self.core.hooks.refuse_request(request, self.entry.client_address());
                Ok(())
            });
            if let Err(error) = refused {
                self.report(&error);
            }
        }
        self.outcome = self.outcome.or(Some(Outcome::Rejected));
    }

    /// Makes sure that `wrap_request` can be ended, which gets the only [`Socket`] of the
    /// connection.
    ///
    /// The deadline timer or a drain ends a handshake by a shutdown, and needs a second descriptor
    /// for that, because the hook may close or pass on the first. If there is none, or no thread
    /// that enforces the deadline, the connection is refused and accepting pauses.
    ///
    /// A forked child needs neither, because its parent kills it.
    fn watch_wrapping(&self, socket: &Socket) -> Result<Option<ScopedTimer>, RequestError> {
        if !self.is_in_forked_child() {
            let second = socket.dup().map_err(|error| self.refuse_to_wrap("dup the socket of", error))?;
            self.entry.set_wrapping(self.registry(), Some(second));
        }
        let watched = if self.enter(ConnState::Wrapping) {
            self.watch_deadline().map_err(|error| self.refuse_to_wrap("watch the deadline of", error))
        } else {
            // A drain ended it before there was a second descriptor.
            Err(RequestError::Failed(self.ended_before()))
        };
        match watched {
            Ok(_) => self.registry().permits.end_shortage(),
            Err(_) => self.entry.set_wrapping(self.registry(), None),
        }
        watched
    }

    /// Makes sure that a thread enforces the deadline of `wrap_request`, if there is one.
    fn watch_deadline(&self) -> io::Result<Option<ScopedTimer>> {
        let registry = self.registry();
        if registry.limits().wrap_timeout.is_none() || self.is_in_forked_child() {
            return Ok(None);
        }
        if registry.deadline_timer.is_forbidden() {
            // `handle_request` of a prefork server: the loop itself is about to block.
            ScopedTimer::begin(registry).map(Some)
        } else if registry.deadline_timer.has_failed_to_start() {
            Err(io::Error::other("no thread can be started"))
        } else {
            Ok(None)
        }
    }

    #[cold]
    pub(super) fn refuse_to_wrap(&self, verb: &'static str, cause: io::Error) -> RequestError {
        self.registry().permits.pause_accepting();
        RequestError::Rejected(AddressError::new(verb, self.entry.client_address(), cause).into())
    }

    /// The reason why a connection ended before it had a handler.
    pub(super) fn ended_before(&self) -> io::Error {
        self.entry.connection().ended().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }

    /// Serves a datagram whose answer is sent with those of a batch, if there is one.
    pub(crate) fn serve_in_batch(&mut self, batch: Option<&mut AnswerBatch>) {
        let _serving = ServingThread::begin(self.core.registry());
        let served = guard(|| self.serve_datagram(batch));
        let served = served.unwrap_or_else(|message| Err(RequestError::Panicked(message)));
        self.ended(served.err());
    }

    fn serve_datagram(&mut self, batch: Option<&mut AnswerBatch>) -> Result<(), RequestError> {
        let packet = self.request.as_ref().and_then(Request::as_datagram);
        let (HandlerFactory::Datagram(make), Some(packet)) = (&*self.core.service, packet) else {
            return Ok(());
        };
        let client_address = self.entry.client_address();
        let mut answer = Vec::new();
        datagram_handler::serve(
            &**make,
            packet.into(),
            client_address,
            &self.core.handle,
            self.entry.connection().accepted_at(),
            &mut answer,
            batch,
        )
    }
}

#[cold]
fn set_up_handler(handler: &mut dyn ErasedHandler, cx: &mut StreamContext<'_>) -> Result<(), RequestError> {
    catch_panic(|| handler.setup(cx))
}

/// Returns whether a connection that its handler keeps stays open while the server drains, or the
/// worker is replaced: once for a request that may be on its way, and for what has arrived.
#[cold]
fn keeps_once_more(core: &Core, connection: &Connection, more: bool) -> bool {
    let stays_idle = !core.registry().closes_idle() && connection.keep_once_more();
    let keeps = stays_idle || more || connection.has_input();
    if keeps && core.quota.is_exhausted() {
        core.quota.keep_connection();
    }
    keeps
}

/// Waits for a connection's next request: see [`Connection::await_input`].
#[inline]
fn await_input(server: ServerId, connection: &Connection, size: usize, input: Wait) -> io::Result<bool> {
    let in_child = child_channel::with_channel(server, |line| connection.await_input_or_drain(size, line));
    if let Some(awaited) = in_child {
        return awaited;
    }
    connection.await_input(size, input == Wait::DontBlock)
}
