//! Requests, and the errors with which they end.

pub(crate) mod close;
pub(crate) mod core;
pub(crate) mod datagram_batch;
pub(crate) mod datagram_handler;
pub(crate) mod hooks;
pub(crate) mod job;
pub(crate) mod log_limit;
pub(crate) mod serve;
pub(crate) mod stream_handler;

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use sock::{Socket, StreamSocket};

use crate::connection::Connection;
use crate::connection::datagram::DatagramBuf;
use crate::limits::DeadlineKind;
use crate::limits::stats::Outcome;

/// A new request, before it is in the registry.
pub(crate) enum Arrival {
    Connection(Socket),
    Datagram(DatagramBuf),
}

/// A connection or a datagram, as passed to hooks.
///
/// Python: `request`, which is a socket or the tuple `(data, socket)`.
pub struct Request {
    inner: Inner,
}

/// Kept small, because each idle connection has one.
enum Inner {
    /// The accepted socket, which `wrap_request` consumes.
    Accepted(Box<Socket>),
    /// The connection that a handler uses.
    Served(Arc<Connection>),
    Datagram(DatagramBuf),
}

impl Request {
    pub(crate) fn accepted(socket: Socket) -> Request {
        Request { inner: Inner::Accepted(Box::new(socket)) }
    }

    pub(crate) fn served(connection: Arc<Connection>) -> Request {
        Request { inner: Inner::Served(connection) }
    }

    pub(crate) fn datagram(packet: DatagramBuf) -> Request {
        Request { inner: Inner::Datagram(packet) }
    }

    pub(crate) fn as_datagram(&self) -> Option<&DatagramBuf> {
        match &self.inner {
            Inner::Datagram(packet) => Some(packet),
            _ => None,
        }
    }

    /// Returns the accepted socket if `wrap_request` has not consumed it.
    pub(crate) fn into_accepted(self) -> Result<Socket, Request> {
        match self.inner {
            Inner::Accepted(socket) => Ok(*socket),
            inner => Err(Request { inner }),
        }
    }

    /// Returns the connection, `None` for a datagram.
    #[must_use]
    pub fn stream(&self) -> Option<&dyn StreamSocket> {
        match &self.inner {
            Inner::Accepted(socket) => Some(&**socket),
            Inner::Served(connection) => Some(&**connection),
            Inner::Datagram(_) => None,
        }
    }

    /// Returns the bytes of the datagram, `None` for a connection.
    #[must_use]
    pub fn packet(&self) -> Option<&[u8]> {
        self.as_datagram().map(DatagramBuf::data)
    }

    /// Returns whether the datagram was longer than the server's `max_packet_size`. False for a
    /// connection.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.as_datagram().is_some_and(DatagramBuf::is_truncated)
    }

    /// Returns the socket of the connection, or the socket that received the datagram.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match &self.inner {
            Inner::Accepted(socket) => socket,
            Inner::Served(connection) => connection.socket(),
            Inner::Datagram(packet) => packet.socket(),
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Request");
        debug.field("socket", self.socket());
        if let Some(packet) = self.packet() {
            debug.field("packet", &format_args!("{} bytes", packet.len()));
        }
        debug.finish()
    }
}

/// The error with which a request failed.
///
/// Python: the exception that `handle_error` finds in `sys.exc_info()`.
#[derive(Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// A handler's method, or `wrap_request`, returned an error.
    Failed(io::Error),
    /// A handler or hook panicked with this message.
    Panicked(String),
    /// The request could not be started, for lack of a thread or a child process or because of a
    /// limit.
    Rejected(io::Error),
    /// A deadline of the server expired.
    TimedOut(DeadlineKind, io::Error),
}

impl RequestError {
    /// Returns whether the client disconnected or timed out. Servers usually do not report this.
    #[must_use]
    pub fn is_disconnect(&self) -> bool {
        let error = match self {
            RequestError::Failed(error) => error,
            RequestError::TimedOut(..) => return true,
            _ => return false,
        };
        matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::NotConnected
        )
    }

    /// Returns the errno of the system call that failed, if there is one. See [`sock::errno`].
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            RequestError::Panicked(_) => None,
            RequestError::Failed(error)
            | RequestError::Rejected(error)
            | RequestError::TimedOut(_, error) => sock::errno(error),
        }
    }

    /// Returns the outcome of a request that ends with this error.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            RequestError::Failed(_) => Outcome::Failed,
            RequestError::Panicked(_) => Outcome::Panicked,
            RequestError::Rejected(_) => Outcome::Rejected,
            RequestError::TimedOut(deadline, _) => Outcome::TimedOut(*deadline),
        }
    }

    fn panicked(payload: &(dyn Any + Send)) -> RequestError {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        RequestError::Panicked(text.unwrap_or("no message").to_owned())
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Failed(error) => fmt::Display::fmt(error, f),
            RequestError::Panicked(message) => write!(f, "panicked: {message}"),
            RequestError::Rejected(error) => write!(f, "rejected: {error}"),
            RequestError::TimedOut(_, error) => fmt::Display::fmt(error, f),
        }
    }
}

impl Error for RequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            RequestError::Failed(error)
            | RequestError::Rejected(error)
            | RequestError::TimedOut(_, error) => Some(error),
            RequestError::Panicked(_) => None,
        }
    }
}

/// Calls a handler or hook and returns a panic as an error.
pub(crate) fn catch_panic<T>(run: impl FnOnce() -> io::Result<T>) -> Result<T, RequestError> {
    // Unwind safety: a handler that panics is dropped next.
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(RequestError::Failed),
        Err(payload) => {
            let error = RequestError::panicked(&*payload);
            // Dropping a payload can panic again, outside of this `catch_unwind`.
            std::mem::forget(payload);
            Err(error)
        }
    }
}
