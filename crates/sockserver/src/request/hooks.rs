//! What a subclass of `TCPServer` overrides, on one page.

use std::any::TypeId;
use std::cell::Cell;
use std::io;
use std::ptr;
use std::time::Instant;

use sock::{Address, SHUT_WR, Socket, StreamSocket};

use crate::connection::wrapping::Wrapped;
#[cfg(unix)]
use crate::os::unix_bind;
use crate::request::log_limit;
use crate::request::{Request, RequestError, catch_panic};

/// The steps of a server that can be replaced; each has Python's default.
///
/// Python: the methods of `BaseServer` "that may be overridden".
///
/// | when | hooks, in this order |
/// | --- | --- |
/// | the server is made | [`server_bind`](Self::server_bind), [`server_activate`](Self::server_activate) |
/// | a request comes, in the loop | [`get_request`](Self::get_request), [`refuse_request`](Self::refuse_request) if a limit says so, [`verify_request`](Self::verify_request) |
/// | … and in the worker | [`wrap_request`](Self::wrap_request), then the handler, [`handle_error`](Self::handle_error) if that failed, [`shutdown_request`](Self::shutdown_request), [`close_request`](Self::close_request) |
/// | each turn of the loop | [`service_actions`](Self::service_actions) |
/// | `handle_request` waited in vain | [`handle_timeout`](Self::handle_timeout) |
/// | the server is closed | [`server_close`](Self::server_close) |
///
/// A panic in a hook that deals with a request ends that request, not the server.
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
        #[cfg(unix)]
        return unix_bind::bind(socket, address);
        #[cfg(not(unix))]
        socket.bind(address)
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
    /// handshake belongs into [`wrap_request`](Self::wrap_request).
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

    /// Turns the accepted socket into the stream the handler talks over: the
    /// place for TLS. By default the socket itself. Runs in the worker.
    ///
    /// # Errors
    ///
    /// Ends the request through [`handle_error`](Self::handle_error); the socket
    /// is closed.
    fn wrap_request(&self, request: Socket) -> io::Result<Box<dyn StreamSocket>> {
        let stream = Box::new(request);
        PLAIN.set(Some((ptr::from_ref(&*stream).addr(), TypeId::of::<Self>())));
        Ok(stream)
    }

    /// Tells a client that it is one too many, before it is closed: for a limit
    /// that refuses. By default nothing.
    ///
    /// It runs in the loop: a short `sendall` is all there is time for.
    fn refuse_request(&self, request: &Request, client_address: &Address) {
        let _ = (request, client_address);
    }

    /// Learns that a request failed. By default a line in the log: of level
    /// debug for a client that went away or fell silent, error for everything else.
    /// Of one kind of error there is one line of level error in a second, which
    /// tells how many went before it; those are of level debug, since clients can
    /// make as many as they like.
    fn handle_error(&self, error: &RequestError, client_address: &Address) {
        let (peer, errno) = (client_address.to_string(), error.errno());
        let told = if error.is_disconnect() {
            None
        } else {
            log_limit::check(log_limit::kind_of(error), Instant::now())
        };
        match told {
            None => log::debug!(peer = peer.as_str(), errno = errno; "request from {peer}: {error}"),
            Some(0) => log::error!(peer = peer.as_str(), errno = errno; "request from {peer}: {error}"),
            Some(more) => log::error!(
                peer = peer.as_str(), errno = errno, more = more;
                "request from {peer}: {error}; and {more} more of this kind before it"
            ),
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

    /// Is called after every turn of the loop, and at least every
    /// `poll_interval`. By default nothing, and the loop sleeps until there is
    /// something to do. Calling this default from an override tells the loop that
    /// nobody has overridden it: do not.
    fn service_actions(&self) {
        DEFAULT_RAN.set(true);
    }

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

thread_local! {
    /// Set by the default of `service_actions`: nobody wants to be called, so nobody
    /// needs to be.
    static DEFAULT_RAN: Cell<bool> = const { Cell::new(false) };
    /// Where the stream is that the default of `wrap_request` has made last, and for hooks of
    /// which type.
    static PLAIN: Cell<Option<(usize, TypeId)>> = const { Cell::new(None) };
}

/// Calls `wrap_request`. Returns also the type of the hooks whose default made the stream.
pub(crate) fn wrap_request(
    hooks: &dyn ServerHooks,
    request: Socket,
) -> io::Result<(Wrapped, Option<TypeId>)> {
    PLAIN.set(None);
    let stream = hooks.wrap_request(request)?;
    // An override may call the default of other hooks, and wrap what that returns: it is its
    // word that counts, not that the default ran.
    let address = ptr::from_ref(&*stream).cast::<()>().addr();
    let made = PLAIN.get().filter(|(made, _)| *made == address);
    Ok(match made.filter(|_| stream.as_any().is_some_and(|stream| stream.is::<Socket>())) {
        Some((_, default_of)) => (Wrapped::Plain(stream), Some(default_of)),
        None => (Wrapped::Other(stream), None),
    })
}

/// Calls `service_actions` and tells whether somebody has overridden it.
pub(crate) fn service_actions(hooks: &dyn ServerHooks) -> bool {
    DEFAULT_RAN.set(false);
    hooks.service_actions();
    !DEFAULT_RAN.get()
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
