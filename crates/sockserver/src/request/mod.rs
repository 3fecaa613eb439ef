//! Requests, and the errors with which they end.

pub(crate) mod close;
pub(crate) mod core;
pub(crate) mod datagram_batch;
pub(crate) mod datagram_handler;
pub(crate) mod denial;
pub(crate) mod hooks;
pub(crate) mod job;
#[cfg_attr(not(feature = "proxy-protocol"), path = "proxy_protocol_disabled.rs")]
pub(crate) mod proxy_protocol;
pub(crate) mod serve;
pub(crate) mod stream_handler;

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use sock::{Address, Socket, StreamSocket};

use crate::connection::Connection;
use crate::connection::datagram::{self, DatagramBuf};
use crate::limits::DeadlineKind;
use crate::limits::log_limit::LogKind;
use crate::limits::stats::Outcome;
use crate::os::batch;
use crate::os::guard::{SafeDisplay, guard};

/// A new request, before it is in the registry.
pub(crate) enum Arrival {
    Connection(Socket),
    Datagram(DatagramBuf),
}

/// A connection or a datagram, as passed to hooks.
///
/// Python: `request`, which is a socket or the tuple `(data, socket)`.
///
/// # Examples
///
/// ```
/// use sock::Address;
/// use sockserver::{Request, ServerHooks, UDPServer, datagram_handler_fn};
///
/// struct Short;
///
/// impl ServerHooks for Short {
///     fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
///         request.packet().is_some_and(|packet| packet.len() < 100)
///     }
/// }
///
/// let server = UDPServer::builder(datagram_handler_fn(|_| Ok(()))).hooks(Short).bind(("127.0.0.1", 0))?;
/// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
/// client.sendto(&[0; 1000], server.server_address())?;
/// server.handle_request()?;
/// assert_eq!(server.stats().rejected, 1);
/// # std::io::Result::Ok(())
/// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Address;
    /// use sockserver::{Request, ServerHooks, TCPServer, WhenFull, handler_fn};
    ///
    /// struct Busy;
    ///
    /// impl ServerHooks for Busy {
    ///     fn refuse_request(&self, request: &Request, _client_address: &Address) {
    ///         if let Some(stream) = request.stream() {
    ///             let _ = stream.sendall(b"try later\n");
    ///         }
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .hooks(Busy)
    ///     .max_connections_per_ip(0)
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"try later\n");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn stream(&self) -> Option<&dyn StreamSocket> {
        match &self.inner {
            Inner::Accepted(socket) => Some(&**socket),
            Inner::Served(connection) => Some(&**connection),
            Inner::Datagram(_) => None,
        }
    }

    /// Returns the bytes of the datagram, `None` for a connection.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Address;
    /// use sockserver::{Request, ServerHooks, UDPServer, datagram_handler_fn};
    ///
    /// struct NotEmpty;
    ///
    /// impl ServerHooks for NotEmpty {
    ///     fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
    ///         request.packet().is_some_and(|packet| !packet.is_empty())
    ///     }
    /// }
    ///
    /// let server = UDPServer::builder(datagram_handler_fn(|_| Ok(()))).hooks(NotEmpty).bind(("127.0.0.1", 0))?;
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.sendto(b"", server.server_address())?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().rejected, 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn packet(&self) -> Option<&[u8]> {
        self.as_datagram().map(DatagramBuf::data)
    }

    /// Returns whether the datagram was longer than the server's `max_packet_size`. False for a
    /// connection.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Address;
    /// use sockserver::{Request, ServerHooks, UDPServer, datagram_handler_fn};
    ///
    /// struct Complete;
    ///
    /// impl ServerHooks for Complete {
    ///     fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
    ///         !request.is_truncated()
    ///     }
    /// }
    ///
    /// let server = UDPServer::builder(datagram_handler_fn(|_| Ok(())))
    ///     .hooks(Complete)
    ///     .max_packet_size(4)
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", server.server_address())?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().rejected, 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.as_datagram().is_some_and(DatagramBuf::is_truncated)
    }

    /// Returns the address of the server that the client has used.
    ///
    /// For a datagram of a server that listens on all addresses this is the address that the
    /// datagram was sent to: see
    /// [`DatagramContext::destination_address`](crate::DatagramContext::destination_address).
    ///
    /// # Errors
    ///
    /// Returns an error if getsockname(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Address;
    /// use sockserver::{Request, ServerHooks, UDPServer, datagram_handler_fn};
    ///
    /// struct LoopbackOnly;
    ///
    /// impl ServerHooks for LoopbackOnly {
    ///     fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
    ///         let address = request.destination_address();
    ///         address.is_ok_and(|address| address.ip().is_some_and(|ip| ip.is_loopback()))
    ///     }
    /// }
    ///
    /// let server = UDPServer::builder(datagram_handler_fn(|_| Ok(()))).hooks(LoopbackOnly).bind(("", 0))?;
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", ("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().finished, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn destination_address(&self) -> io::Result<Address> {
        match self.as_datagram() {
            Some(packet) => datagram::destination_address(packet.socket(), packet.info()),
            None => self.socket().getsockname(),
        }
    }

    /// Sends a datagram from the address that this request was sent to: see
    /// [`DatagramContext::sendto`](crate::DatagramContext::sendto).
    ///
    /// # Errors
    ///
    /// Returns an error if sendto(2) or sendmsg(2) fails, and an error of kind `InvalidInput` for a
    /// connection.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Address;
    /// use sockserver::{Request, ServerHooks, UDPServer, datagram_handler_fn};
    ///
    /// struct Refusing;
    ///
    /// impl ServerHooks for Refusing {
    ///     fn verify_request(&self, request: &Request, client_address: &Address) -> bool {
    ///         let _ = request.sendto(b"refused", client_address);
    ///         false
    ///     }
    /// }
    ///
    /// let server = UDPServer::builder(datagram_handler_fn(|_| Ok(()))).hooks(Refusing).bind(("127.0.0.1", 0))?;
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", server.server_address())?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"refused");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendto(&self, data: &[u8], address: &Address) -> io::Result<usize> {
        let Some(packet) = self.as_datagram() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request is not a datagram"));
        };
        batch::send_from(packet.socket(), data, address, packet.info())
    }

    /// Returns the socket of the connection, or the socket that received the datagram.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Address;
    /// use sockserver::{Request, ServerHooks, TCPServer, handler_fn};
    ///
    /// struct KeepAlive;
    ///
    /// impl ServerHooks for KeepAlive {
    ///     fn verify_request(&self, request: &Request, _client_address: &Address) -> bool {
    ///         request.socket().setsockopt(sock::SOL_SOCKET, sock::SO_KEEPALIVE, true).is_ok()
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(KeepAlive).bind(("127.0.0.1", 0))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().finished, 1);
    /// # std::io::Result::Ok(())
    /// ```
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
///
/// # Examples
///
/// ```
/// use std::io;
/// use sockserver::RequestError;
///
/// let error = RequestError::Failed(io::Error::other("no database"));
/// assert_eq!(error.to_string(), "no database");
/// assert_eq!(RequestError::Panicked("a fault".to_owned()).to_string(), "panicked: a fault");
/// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sockserver::{DeadlineKind, RequestError};
    ///
    /// assert!(RequestError::Failed(io::ErrorKind::ConnectionReset.into()).is_disconnect());
    /// assert!(RequestError::TimedOut(DeadlineKind::Idle, io::ErrorKind::TimedOut.into()).is_disconnect());
    /// assert!(!RequestError::Panicked("index out of bounds".to_owned()).is_disconnect());
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::RequestError;
    ///
    /// let error = std::fs::File::open("/does/not/exist").unwrap_err();
    /// let errno = RequestError::Failed(error).errno();
    /// assert_eq!(errno.and_then(sock::errno_name), Some("ENOENT"));
    /// ```
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            RequestError::Panicked(_) => None,
            RequestError::Failed(error)
            | RequestError::Rejected(error)
            // This calls `source` of the user's error.
            | RequestError::TimedOut(_, error) => guard(|| sock::errno(error)).ok().flatten(),
        }
    }

    /// Returns the kind of its log line.
    pub(crate) fn log_kind(&self) -> LogKind {
        match self {
            RequestError::Panicked(_) => LogKind::Panicked,
            RequestError::Rejected(inner) => LogKind::Rejected(inner.kind(), self.errno()),
            RequestError::Failed(inner) | RequestError::TimedOut(_, inner) => {
                LogKind::Other(inner.kind(), self.errno())
            }
        }
    }

    /// Returns the outcome of a request that ends with this error.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            RequestError::Failed(_) if self.is_disconnect() => Outcome::Disconnected,
            RequestError::Failed(_) => Outcome::Failed,
            RequestError::Panicked(_) => Outcome::Panicked,
            RequestError::Rejected(_) => Outcome::Rejected,
            RequestError::TimedOut(deadline, _) => Outcome::TimedOut(*deadline),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Failed(error) => SafeDisplay(error).fmt(f),
            RequestError::Panicked(message) => write!(f, "panicked: {message}"),
            RequestError::Rejected(error) => write!(f, "rejected: {}", SafeDisplay(error)),
            RequestError::TimedOut(_, error) => SafeDisplay(error).fmt(f),
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
#[inline]
pub(crate) fn catch_panic<T>(run: impl FnOnce() -> io::Result<T>) -> Result<T, RequestError> {
    match guard(run) {
        Ok(result) => result.map_err(RequestError::Failed),
        Err(message) => Err(RequestError::Panicked(message)),
    }
}
