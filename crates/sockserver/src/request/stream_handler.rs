//! The handlers of connections.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use sock::{Address, DEFAULT_BUFFER_SIZE, SocketReader, SocketWriter, StreamSocket};

use crate::lifecycle::handle::ServerHandle;

/// Serves one connection. Python: `socketserver.StreamRequestHandler`.
///
/// 1. The worker calls the server's factory, which creates the handler for one connection. The
///    closure of the factory captures what the handlers share.
/// 2. The worker calls [`setup`](Self::setup).
/// 3. It calls [`handle`](Self::handle), which uses `cx.rfile` and `cx.wfile`. If `handle` sets
///    `cx.close_connection` to false, it is called again for the next request on the connection.
/// 4. It calls [`finish`](Self::finish), even if `handle` failed, but not if `setup` failed.
/// 5. The handler is dropped, and the connection is shut down and closed.
///
/// An error or a panic in one of these steps is passed to
/// [`ServerHooks::handle_error`](crate::ServerHooks::handle_error) and ends this connection only.
///
/// # Examples
///
/// ```
/// use std::io::{self, BufRead, Write};
/// use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};
///
/// struct Echo;                                            // class Echo(StreamRequestHandler):
///
/// impl StreamRequestHandler for Echo {
///     fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
///         let mut line = Vec::new();
///         while cx.rfile.read_until(b'\n', &mut line)? > 0 {      // for line in self.rfile:
///             cx.wfile.write_all(&line)?;                         //     self.wfile.write(line)
///             line.clear();
///         }
///         Ok(())
///     }
/// }
///
/// let server = ThreadingTCPServer::new(("127.0.0.1", 0), || Echo)?;
/// # std::io::Result::Ok(())
/// ```
///
/// # See also
///
/// [`handler_fn`] creates a handler without fields from a closure.
/// [`DatagramRequestHandler`](crate::DatagramRequestHandler) serves datagrams.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler for connections",
    label = "not a `StreamRequestHandler`",
    note = "implement `StreamRequestHandler`, whose `handle` serves one connection, and pass a closure that \
            returns the handler: `|| Echo`",
    note = "`handler_fn(|cx| …)` creates a handler from a closure; a server of datagrams needs a \
            `DatagramRequestHandler`"
)]
pub trait StreamRequestHandler: Send + 'static {
    /// The timeout of each call on the connection. By default the server's
    /// [`read_timeout`](crate::Builder::read_timeout) and
    /// [`write_timeout`](crate::Builder::write_timeout) apply. Python: `timeout`.
    const TIMEOUT: Option<Duration> = None;
    /// Whether small writes are sent at once (`TCP_NODELAY`). Python: `disable_nagle_algorithm`.
    const DISABLE_NAGLE_ALGORITHM: bool = false;
    /// The buffer size of `cx.rfile` in bytes. With 0 it never reads ahead. Python: `rbufsize`.
    const RBUFSIZE: usize = DEFAULT_BUFFER_SIZE;
    /// The buffer size of `cx.wfile` in bytes. With 0 every write is sent at once. Python: `wbufsize`.
    const WBUFSIZE: usize = 0;

    /// Whether the server sends first, for example a greeting. Default false.
    ///
    /// If false, [`SelectorMixIn`](crate::SelectorMixIn) calls `handle` only once the client has
    /// sent data, so that a silent client uses no thread. The other mixins ignore this constant.
    /// `setup` is always called at once. Not in Python.
    const SPEAKS_FIRST: bool = false;

    /// Prepares the connection. The default does nothing, because timeout and files are ready.
    ///
    /// # Errors
    ///
    /// An error ends the connection, and neither `handle` nor `finish` is called.
    fn setup(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Serves the connection, or one request on it.
    ///
    /// # Errors
    ///
    /// An error ends the connection after `finish` was called.
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()>;

    /// Finishes the connection. The default sends what is buffered in `cx.wfile`.
    ///
    /// # Errors
    ///
    /// An error is passed to `handle_error`. The connection is closed in either case.
    fn finish(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.wfile.flush()
    }
}

/// The connection that a handler serves. Python: the attributes of the handler, such as
/// `self.rfile`, `self.client_address` and `self.server`.
#[non_exhaustive]
pub struct StreamContext<'a> {
    /// Reads from the client, with [`Read`](io::Read) and [`BufRead`](io::BufRead).
    pub rfile: SocketReader<'a>,
    /// Writes to the client, with [`Write`]. Unbuffered unless `WBUFSIZE` is set.
    pub wfile: SocketWriter<'a>,
    /// The connection itself. Bytes that `rfile` has buffered can no longer be received from it.
    /// Python: `self.request`, `self.connection`.
    pub request: &'a dyn StreamSocket,
    /// The address of the client.
    pub client_address: &'a Address,
    /// The handle of the server, for example to stop it.
    pub server: &'a ServerHandle,
    /// Whether the connection is closed when `handle` returns. It is true at each call.
    ///
    /// If the handler sets it to false and returns `Ok`, `handle` is called again when the client
    /// has sent more. Python: `close_connection` of `http.server`.
    pub close_connection: bool,
}

impl fmt::Debug for StreamContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamContext")
            .field("client_address", self.client_address)
            .field("close_connection", &self.close_connection)
            .finish_non_exhaustive()
    }
}

#[cfg(unix)]
impl StreamContext<'_> {
    /// Returns the process, user and group at the other end of a Unix socket. See
    /// [`Socket::peer_credentials`](sock::Socket::peer_credentials).
    ///
    /// # Errors
    ///
    /// Returns an error if the system cannot name the peer, for example because the connection is
    /// not a Unix socket.
    pub fn peer_credentials(&self) -> io::Result<sock::Credentials> {
        self.request.socket().peer_credentials()
    }
}

/// Creates a handler factory from a closure: `TCPServer::new(address, handler_fn(|cx| ...))`.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use sockserver::{ThreadingTCPServer, handler_fn};
///
/// let greet = handler_fn(|cx| writeln!(cx.wfile, "hello {}", cx.client_address));
/// let server = ThreadingTCPServer::new(("127.0.0.1", 0), greet)?;
/// # std::io::Result::Ok(())
/// ```
pub fn handler_fn<F>(handle: F) -> impl Fn() -> HandlerFn<F> + Send + Sync + 'static
where
    F: Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    let handle = Arc::new(handle);
    move || HandlerFn(Arc::clone(&handle))
}

/// The handler that [`handler_fn`] creates.
pub struct HandlerFn<F>(Arc<F>);

impl<F> fmt::Debug for HandlerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerFn").finish_non_exhaustive()
    }
}

impl<F> StreamRequestHandler for HandlerFn<F>
where
    F: Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        (self.0)(cx)
    }
}

/// A handler whose type is erased, so that the type of a server does not contain it.
pub(crate) trait ErasedHandler: Send {
    fn config(&self) -> &'static HandlerConfig;
    fn setup(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()>;
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()>;
    fn finish(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()>;
}

/// The associated constants of a handler.
pub(crate) struct HandlerConfig {
    pub(crate) timeout: Option<Duration>,
    pub(crate) disable_nagle_algorithm: bool,
    pub(crate) rbufsize: usize,
    pub(crate) wbufsize: usize,
    pub(crate) speaks_first: bool,
}

impl<H: StreamRequestHandler> ErasedHandler for H {
    fn config(&self) -> &'static HandlerConfig {
        const {
            &HandlerConfig {
                timeout: H::TIMEOUT,
                disable_nagle_algorithm: H::DISABLE_NAGLE_ALGORITHM,
                rbufsize: H::RBUFSIZE,
                wbufsize: H::WBUFSIZE,
                speaks_first: H::SPEAKS_FIRST,
            }
        }
    }

    fn setup(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        StreamRequestHandler::setup(self, cx)
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        StreamRequestHandler::handle(self, cx)
    }

    fn finish(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        StreamRequestHandler::finish(self, cx)
    }
}
