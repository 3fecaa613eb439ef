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

/// The steps of a server that can be replaced; each has Python's default.
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
/// Where a request runs is the [`MixIn`](crate::MixIn)'s business; what happens
/// in it the handler's.
pub trait ServerHooks: Send + Sync + 'static {
    /// Binds the socket, whose options are set. By default `socket.bind(address)`, and a path has
    /// the [`unix_mode`](crate::Builder::unix_mode) from the beginning. An override that calls
    /// `socket.bind` itself creates a path with as much of that mode as the umask leaves; on other
    /// systems than Linux the server cannot be made if the umask leaves more.
    ///
    /// # Errors
    ///
    /// Ends the construction of the server; the socket is closed.
    fn server_bind(&self, socket: &Socket, address: &Address) -> io::Result<()> {
        unix_bind::bind(socket, address)
    }

    /// Makes the bound socket listen; not for datagrams. By default
    /// `socket.listen(request_queue_size)`.
    ///
    /// # Errors
    ///
    /// Ends the construction of the server; the socket is closed.
    fn server_activate(&self, socket: &Socket, request_queue_size: i32) -> io::Result<()> {
        socket.listen(request_queue_size)
    }

    /// Takes the next connection from the listener; not for datagrams. By default
    /// `socket.accept()`. The listener is non-blocking, except for a worker of
    /// [`PreforkMixIn`](crate::PreforkMixIn), which waits here for its next client.
    ///
    /// It runs in the loop, and while it runs no other client is served: a TLS
    /// handshake belongs into [`wrap_request`](crate::Builder::wrap_request).
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none. Any other is sorted: a client's own
    /// trouble is passed over, want of resources waited out, and a listener that
    /// is gone ends the loop with the error.
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        socket.accept()
    }

    /// Whether the request is to be served. By default every one.
    ///
    /// A request that is not goes straight to [`shutdown_request`](Self::shutdown_request).
    fn verify_request(&self, request: &Request, client_address: &Address) -> bool {
        let _ = (request, client_address);
        true
    }

    /// Tells a client that it is one too many, before it is closed: for a limit
    /// that refuses. By default nothing.
    ///
    /// It runs in the loop: a short `sendall` is all there is time for.
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

    /// Tells the client that no more will come. By default `shutdown(SHUT_WR)`
    /// for a connection, nothing for a datagram.
    fn shutdown_request(&self, request: &Request) {
        if let Some(stream) = request.stream() {
            // The client may be gone already.
            let _ = stream.shutdown(SHUT_WR);
        }
    }

    /// Is called before the request is closed, which happens whatever this does.
    /// By default nothing.
    ///
    /// In a forking server the parent calls it too, for its copy, and without
    /// [`shutdown_request`](Self::shutdown_request).
    fn close_request(&self, request: &Request) {
        let _ = request;
    }

    /// Learns that `handle_request` waited for its whole timeout. By default nothing.
    fn handle_timeout(&self) {}

    /// Is called in each worker process of a
    /// [`PreforkMixIn`](crate::PreforkMixIn) before its first request: the place to
    /// open what processes cannot share. By default nothing.
    ///
    /// # Errors
    ///
    /// End the worker; when that goes on, `serve_forever` fails.
    fn start_worker(&self) -> io::Result<()> {
        Ok(())
    }

    /// Is called when the server closes, after its socket. By default nothing.
    fn server_close(&self) {}
}

/// The hooks of a server that replaces none.
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

/// Tells `handle_error`, whose own panic must not take the server along.
pub(crate) fn call_handle_error(hooks: &dyn ServerHooks, error: &RequestError, client_address: &Address) {
    let told = catch_panic(|| {
        hooks.handle_error(error, client_address);
        Ok(())
    });
    if let Err(second) = told {
        log::error!("handle_error for {client_address} {second}; it was told: {error}");
    }
}
