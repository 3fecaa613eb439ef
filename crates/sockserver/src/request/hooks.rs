//! The steps of a server that a program can replace.

use std::any::Any;
use std::fmt;
use std::io;

use sock::{Address, SHUT_WR, Socket, StreamSocket};

use crate::connection::transport::Transport;
use crate::lifecycle::handle::ServerHandle;
use crate::os::unix_bind;
use crate::request::log_limit::{self, log_limited};
use crate::request::{Request, RequestError, catch_panic};

/// The steps of a server that can be replaced. Each has Python's default.
///
/// Python: the methods of `BaseServer` "that may be overridden".
///
/// | when | hooks, in this order |
/// | --- | --- |
/// | the server is made | [`server_bind`](Self::server_bind), [`server_activate`](Self::server_activate) |
/// | a request arrives, in the loop | [`get_request`](Self::get_request), [`refuse_request`](Self::refuse_request) if a limit is reached, [`verify_request`](Self::verify_request) |
/// | … and in the worker | the builder's [`wrap_request`](crate::Builder::wrap_request), the handler, [`handle_error`](Self::handle_error) if the handler failed, [`shutdown_request`](Self::shutdown_request), [`close_request`](Self::close_request) |
/// | each turn of the loop | the builder's [`service_actions`](crate::Builder::service_actions) |
/// | `handle_request` has timed out | [`handle_timeout`](Self::handle_timeout) |
/// | the server is closed | [`server_close`](Self::server_close) |
///
/// A panic in a hook that deals with a request ends that request, not the server.
///
/// `service_actions` and `wrap_request` are registered with the builder, because a server does more
/// where they exist: it wakes at intervals, and it enforces a deadline for each call. They are not
/// methods of this trait, so an implementation of it cannot contain one that is never called:
///
/// ```compile_fail,E0407
/// struct Mine;
///
/// impl sockserver::ServerHooks for Mine {
///     fn service_actions(&self) {}
/// }
/// ```
///
/// # Examples
///
/// ```
/// use sock::Address;
/// use sockserver::{Request, ServerHooks, TCPServer, handler_fn};
///
/// struct LoopbackOnly;
///
/// impl ServerHooks for LoopbackOnly {
///     fn verify_request(&self, _request: &Request, client_address: &Address) -> bool {
///         client_address.ip().is_some_and(|ip| ip.is_loopback())
///     }
/// }
///
/// let server = TCPServer::builder(handler_fn(|_| Ok(())))
///     .hooks(LoopbackOnly)
///     .bind(("127.0.0.1", 0))?;
/// # std::io::Result::Ok(())
/// ```
///
/// # When this isn't enough
///
/// A [`MixIn`](crate::MixIn) decides where a request runs.
pub trait ServerHooks: Send + Sync + 'static {
    /// Binds the socket, whose options are set. By default `socket.bind(address)`, which creates a
    /// path with the [`unix_mode`](crate::Builder::unix_mode).
    ///
    /// An override that calls `socket.bind` itself creates a path with the bits of that mode that
    /// the umask allows. On systems other than Linux the server cannot be created if the umask
    /// allows more.
    ///
    /// # Errors
    ///
    /// If it returns an error, the socket is closed and the server is not created.
    fn server_bind(&self, socket: &Socket, address: &Address) -> io::Result<()> {
        unix_bind::bind(socket, address)
    }

    /// Makes the bound socket listen. By default `socket.listen(request_queue_size)`. It is not
    /// called for datagrams.
    ///
    /// # Errors
    ///
    /// If it returns an error, the socket is closed and the server is not created.
    fn server_activate(&self, socket: &Socket, request_queue_size: i32) -> io::Result<()> {
        socket.listen(request_queue_size)
    }

    /// Accepts the next connection. By default `socket.accept()`. It is not called for datagrams.
    ///
    /// The listener is non-blocking, except in a worker of
    /// [`PreforkMixIn`](crate::PreforkMixIn) with a single listener, which waits here for its next
    /// client. No other client is accepted while it runs, so a TLS handshake belongs into
    /// [`wrap_request`](crate::Builder::wrap_request).
    ///
    /// # Errors
    ///
    /// `WouldBlock` means that no client is waiting. After an error that concerns one client, the
    /// next one is accepted. If a resource is exhausted, the loop pauses. If the listener is closed
    /// or broken, the loop returns the error.
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        socket.accept()
    }

    /// Returns whether the request is served. By default true.
    ///
    /// Otherwise [`shutdown_request`](Self::shutdown_request) follows.
    fn verify_request(&self, request: &Request, client_address: &Address) -> bool {
        let _ = (request, client_address);
        true
    }

    /// Is called before a request is closed because of a limit. It may send a short answer. By
    /// default it does nothing.
    ///
    /// It usually runs in the loop, so it must not block.
    fn refuse_request(&self, request: &Request, client_address: &Address) {
        let _ = (request, client_address);
    }

    /// Called when a request has failed. The default logs the error.
    ///
    /// The level is `debug` if the client disconnected or timed out, and otherwise `error`, limited
    /// to one line per second for each kind of error. The next line has the number of suppressed
    /// lines, which are logged at `debug`.
    fn handle_error(&self, error: &RequestError, client_address: &Address) {
        let (peer, errno) = (client_address.to_string(), error.errno());
        if error.is_disconnect() {
            log::debug!(peer = peer.as_str(), errno = errno; "request from {peer}: {error}");
        } else {
            log_limited!(
                error,
                log_limit::kind_of(error),
                peer = peer.as_str(), errno = errno;
                "request from {peer}: {error}"
            );
        }
    }

    /// Shuts a request down before it is closed. By default `shutdown(SHUT_WR)` for a connection,
    /// and nothing for a datagram.
    fn shutdown_request(&self, request: &Request) {
        if let Some(stream) = request.stream() {
            // The client may have disconnected.
            let _ = stream.shutdown(SHUT_WR);
        }
    }

    /// Is called before a request is closed. By default it does nothing.
    ///
    /// In a forking server the parent also calls it, for its copy of the connection, and does not
    /// call [`shutdown_request`](Self::shutdown_request).
    fn close_request(&self, request: &Request) {
        let _ = request;
    }

    /// Is called when `handle_request` has timed out. By default it does nothing.
    fn handle_timeout(&self) {}

    /// Is called in each worker process of a [`PreforkMixIn`](crate::PreforkMixIn) before its first
    /// request, to open what processes cannot share. By default it does nothing.
    ///
    /// # Errors
    ///
    /// If it returns an error, the worker exits. After repeated failures `serve_forever` returns an
    /// error.
    fn start_worker(&self) -> io::Result<()> {
        Ok(())
    }

    /// Is called when the server closes, after its socket is closed. By default it does nothing.
    fn server_close(&self) {}
}

/// The hooks of a server without any.
pub(crate) struct Defaults;

impl ServerHooks for Defaults {}

/// The hook of [`Builder::wrap_request`](crate::Builder::wrap_request).
pub(crate) type WrapRequest = dyn Fn(Socket, &Address) -> io::Result<WrappedRequest> + Send + Sync;

/// The hook of [`Builder::service_actions`](crate::Builder::service_actions).
pub(crate) type ServiceActions = dyn Fn(&ServerHandle) + Send + Sync;

/// What a [`wrap_request`](crate::Builder::wrap_request) hook makes of an accepted socket: the
/// stream that the handler uses, and the client's address if it is not the socket's peer.
///
/// Every stream converts into it, so a hook that only wraps the socket returns the stream.
///
/// # Examples
///
/// A hook behind a proxy that sends the client's address in the first line:
///
/// ```
/// use std::io::{self, BufRead};
/// use std::net::SocketAddr;
/// use sockserver::{ThreadingTCPServer, WrappedRequest, handler_fn};
///
/// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
///     .wrap_request(|request, _proxy| {
///         let mut line = Vec::new();
///         while !line.ends_with(b"\n") && line.len() < 107 {
///             match &request.recv(1)?[..] {
///                 [byte] => line.push(*byte),
///                 _ => return Err(io::ErrorKind::UnexpectedEof.into()),
///             }
///         }
///         let line = String::from_utf8_lossy(&line);
///         let client: SocketAddr = line.trim_end().parse().map_err(io::Error::other)?;
///         Ok(WrappedRequest::from(request).with_client_address(client))
///     })
///     .bind(("127.0.0.1", 0))?;
/// # std::io::Result::Ok(())
/// ```
pub struct WrappedRequest {
    pub(crate) transport: Transport,
    pub(crate) client_address: Option<Address>,
}

impl WrappedRequest {
    /// Wraps a stream whose type is not known.
    #[must_use]
    pub fn from_boxed(stream: Box<dyn StreamSocket>) -> WrappedRequest {
        WrappedRequest { transport: Transport::Wrapped(stream), client_address: None }
    }

    /// Sets the client's address, which the PROXY protocol or another header has named.
    ///
    /// From then on the handler, the hooks, the log, the drain report and the limit for each
    /// address use it. A client that is over the limit is refused.
    #[must_use]
    pub fn with_client_address(mut self, client_address: impl Into<Address>) -> WrappedRequest {
        self.client_address = Some(client_address.into());
        self
    }
}

impl<S: StreamSocket + 'static> From<S> for WrappedRequest {
    fn from(stream: S) -> WrappedRequest {
        let mut stream = Some(stream);
        let any: &mut dyn Any = &mut stream;
        // A socket is called directly. Every other stream is called through a trait object.
        let transport = match any.downcast_mut().and_then(Option::<Socket>::take) {
            Some(socket) => Transport::Socket(socket),
            None => Transport::Wrapped(Box::new(stream.expect("only a socket is taken out"))),
        };
        WrappedRequest { transport, client_address: None }
    }
}

impl fmt::Debug for WrappedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedRequest")
            .field("socket", &self.transport.socket())
            .field("client_address", &self.client_address)
            .finish_non_exhaustive()
    }
}

/// Calls `handle_error`. A panic in it is logged.
pub(crate) fn call_handle_error(hooks: &dyn ServerHooks, error: &RequestError, client_address: &Address) {
    let handled = catch_panic(|| {
        hooks.handle_error(error, client_address);
        Ok(())
    });
    if let Err(second) = handled {
        log::error!(
            "handle_error hook failed for {client_address}: {second}; the request's error: {error}"
        );
    }
}
