//! A job: one accepted request on its way through a worker.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Cursor, Write};
use std::sync::Arc;

use sock::{Address, IPPROTO_TCP, ReadBuffer, SocketReader, SocketWriter, TCP_NODELAY};

use crate::datagram::{DatagramContext, ErasedDatagramHandler};
use crate::handle::ServerHandle;
use crate::handler::{ClassVariables, ErasedHandler, StreamContext};
use crate::hooks::ServerHooks;
use crate::request::{Request, RequestError, guard};

/// What all requests of a server share.
pub(crate) struct Core {
    pub(crate) service: Service,
    pub(crate) hooks: Box<dyn ServerHooks>,
    pub(crate) handle: ServerHandle,
}

/// The server's factory of handlers.
pub(crate) enum Service {
    Stream(Box<dyn Fn() -> Box<dyn ErasedHandler> + Send + Sync>),
    Datagram(Box<dyn Fn() -> Box<dyn ErasedDatagramHandler> + Send + Sync>),
}

/// One request, to be served by whatever a [`MixIn`](crate::MixIn) chooses.
///
/// Its life: the server makes it of an accepted and verified request;
/// [`run`](Job::run) serves it to the end, or [`step`](Job::step) does so by the
/// piece. Whoever drops it, at whatever point, closes the connection: nothing is
/// left open. One that cannot be started goes back with [`reject`](Job::reject).
pub struct Job {
    core: Arc<Core>,
    client_address: Address,
    /// `None` once the request is closed.
    request: Option<Request>,
    conversation: Option<Conversation>,
    failed: bool,
}

/// A connection whose handler has been set up.
struct Conversation {
    handler: Box<dyn ErasedHandler>,
    variables: ClassVariables,
    /// What is unread between two requests; no memory when nothing is.
    unread: ReadBuffer,
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

/// A job that could not be started, with the reason. Nothing of it is lost: the
/// server reports the error and then closes the request in the usual order.
#[derive(Debug)]
pub struct Rejected(Box<(Job, io::Error)>);

impl Job {
    pub(crate) fn new(core: Arc<Core>, request: Request, client_address: Address) -> Job {
        Job { core, client_address, request: Some(request), conversation: None, failed: false }
    }

    /// Serves the request to its end and tells whether no error came up.
    ///
    /// Python: `finish_request`, `handle_error`, `shutdown_request`.
    pub fn run(mut self) -> bool {
        while self.step() == Step::Again {}
        !self.failed
    }

    /// Serves the request until its handler returns.
    ///
    /// It blocks as long as the handler does, and from the second step on until
    /// the next input is there. At the end of file there is no next request.
    pub fn step(&mut self) -> Step {
        let outcome = match (&self.core.service, &self.request) {
            (_, None) => return Step::Done,
            (Service::Stream(_), Some(_)) => self.step_stream(),
            (Service::Datagram(_), Some(_)) => self.serve_datagram().map(|()| Step::Done),
        };
        match outcome {
            Ok(Step::Again) => return Step::Again,
            Ok(Step::Done) => {}
            Err(error) => self.report(&error),
        }
        self.end();
        Step::Done
    }

    /// Gives the job back because it cannot be started.
    #[must_use]
    pub fn reject(self, error: io::Error) -> Rejected {
        Rejected(Box::new((self, error)))
    }

    /// Closes a parent's copy of a request that a forked child serves.
    ///
    /// Python: `close_request` alone; `shutdown_request` would end the child's
    /// connection too.
    pub fn close_in_parent(mut self) {
        if let Some(request) = self.request.take() {
            self.close(request);
        }
    }

    /// Who is to be served.
    #[must_use]
    pub fn client_address(&self) -> &Address {
        &self.client_address
    }

    fn step_stream(&mut self) -> Result<Step, RequestError> {
        let first = self.conversation.is_none();
        if first {
            self.begin()?;
        }
        let Job { core, client_address, request: Some(request), conversation: Some(conversation), .. } =
            self
        else {
            return Ok(Step::Done);
        };
        let Some(stream) = request.stream() else {
            return Ok(Step::Done);
        };
        let Conversation { handler, variables, unread } = conversation;
        let mut cx = StreamContext {
            rfile: SocketReader::with_buffer(stream, lend(unread, variables.rbufsize)),
            wfile: SocketWriter::new(stream, variables.wbufsize),
            request: stream,
            client_address,
            server: &core.handle,
            close_connection: true,
        };
        // A handler whose setup failed is not finished, as in Python.
        if first {
            guard(|| handler.setup(&mut cx))?;
        }
        // Between two requests there is nothing to lose: a client that goes away
        // then, or says nothing for too long, has ended the conversation.
        let more = first || guard(|| cx.rfile.fill_buf().map(|input| !input.is_empty())).unwrap_or(false);
        let mut handled = Ok(());
        if more {
            cx.close_connection = true;
            handled = guard(|| handler.handle(&mut cx));
            if handled.is_ok() && !cx.close_connection {
                handled = guard(|| cx.wfile.flush());
                if handled.is_ok() {
                    *unread = keep(cx.rfile.into_buffer());
                    return Ok(Step::Again);
                }
            }
        }
        let finished = guard(|| handler.finish(&mut cx));
        drop(keep(cx.rfile.into_buffer()));
        handled.and(finished).map(|()| Step::Done)
    }

    /// Wraps the request and makes its handler: Python's `finish_request` up to
    /// the handler's `__init__`.
    fn begin(&mut self) -> Result<(), RequestError> {
        let Service::Stream(make) = &self.core.service else {
            return Ok(());
        };
        if let Some(request) = self.request.take() {
            self.request = Some(match request.into_accepted() {
                Ok(socket) => Request::wrapped(guard(|| self.core.hooks.wrap_request(socket))?),
                Err(request) => request,
            });
        }
        let handler = guard(|| Ok(make()))?;
        let variables = handler.class_variables();
        if let Some(request) = &self.request {
            guard(|| {
                if let Some(timeout) = variables.timeout {
                    request.socket().settimeout(timeout)?;
                }
                if variables.disable_nagle_algorithm {
                    request.socket().setsockopt(IPPROTO_TCP, TCP_NODELAY, true)?;
                }
                Ok(())
            })?;
        }
        self.conversation = Some(Conversation { handler, variables, unread: ReadBuffer::default() });
        Ok(())
    }

    fn serve_datagram(&mut self) -> Result<(), RequestError> {
        let (Service::Datagram(make), Some(request)) = (&self.core.service, &self.request) else {
            return Ok(());
        };
        let packet = request.packet().unwrap_or_default();
        let mut handler = guard(|| Ok(make()))?;
        let mut cx = DatagramContext {
            packet,
            socket: request.socket(),
            rfile: Cursor::new(packet),
            wfile: Vec::new(),
            client_address: &self.client_address,
            server: &self.core.handle,
        };
        guard(|| handler.setup(&mut cx))?;
        let handled = guard(|| handler.handle(&mut cx));
        let finished = guard(|| handler.finish(&mut cx));
        handled.and(finished)
    }

    /// Ends a job that could not be started, in the order of one that failed.
    pub(crate) fn end_rejected(rejected: Rejected) {
        let (mut job, error) = *rejected.0;
        job.report(&RequestError::Rejected(error));
        job.end();
    }

    /// Tells `handle_error`, whose own panic must not take the server along.
    pub(crate) fn report(&mut self, error: &RequestError) {
        self.failed = true;
        let told = guard(|| {
            self.core.hooks.handle_error(error, &self.client_address);
            Ok(())
        });
        if let Err(second) = told {
            log::error!("handle_error for {} {second}; it was told: {error}", self.client_address);
        }
    }

    fn end(&mut self) {
        let conversation = self.conversation.take();
        // The handler goes first, since it belongs to the connection; its Drop may panic.
        if let Err(error) = guard(|| {
            drop(conversation);
            Ok(())
        }) {
            self.report(&error);
        }
        let Some(request) = self.request.take() else {
            return;
        };
        let shut = guard(|| {
            self.core.hooks.shutdown_request(&request);
            Ok(())
        });
        if let Err(error) = shut {
            self.report(&error);
        }
        self.close(request);
    }

    fn close(&mut self, request: Request) {
        let closed = guard(|| {
            self.core.hooks.close_request(&request);
            Ok(())
        });
        // Dropped is closed; what wrap_request made may panic there.
        let dropped = guard(|| {
            drop(request);
            Ok(())
        });
        for error in [closed, dropped].into_iter().filter_map(Result::err) {
            self.report(&error);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("client_address", &self.client_address).finish_non_exhaustive()
    }
}

thread_local! {
    /// The worker's read buffer, lent to one connection after another.
    static SPARE: Cell<Option<ReadBuffer>> = const { Cell::new(None) };
}

/// What is unread of the connection, or else the worker's buffer.
fn lend(unread: &mut ReadBuffer, size: usize) -> ReadBuffer {
    if unread.size() > 0 {
        return std::mem::take(unread);
    }
    match SPARE.take() {
        Some(spare) if spare.size() == size.max(1) => spare,
        _ => ReadBuffer::new(size.max(1)),
    }
}

/// Keeps a connection's buffer if something is unread in it; otherwise the
/// worker has it back.
fn keep(buffer: ReadBuffer) -> ReadBuffer {
    if buffer.unread().is_empty() {
        SPARE.set(Some(buffer));
        return ReadBuffer::default();
    }
    buffer
}
