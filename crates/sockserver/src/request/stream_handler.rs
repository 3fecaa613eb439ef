//! Handlers of connections.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use sock::{Address, DEFAULT_BUFFER_SIZE, SocketReader, SocketWriter, StreamSocket};

use crate::lifecycle::handle::ServerHandle;

/// Serves one connection. Python: `socketserver.StreamRequestHandler`.
///
/// The life of a handler:
///
/// 1. The server's factory makes it in the worker, for one connection. What
///    handlers share is what the factory's closure captures.
/// 2. [`setup`](Self::setup).
/// 3. [`handle`](Self::handle), which talks through `cx.rfile` and `cx.wfile`. It
///    is called again for the next request on the same connection if it sets
///    `cx.close_connection` to false.
/// 4. [`finish`](Self::finish), after a `handle` that failed too, but not after
///    a `setup` that failed.
/// 5. It is dropped; the connection is shut down and closed.
///
/// An error or a panic in any of these ends this connection alone, through
/// [`ServerHooks::handle_error`](crate::ServerHooks::handle_error).
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
/// # When this isn't enough
///
/// A closure does for a handler without fields: [`handler_fn`]. Datagrams have
/// [`DatagramRequestHandler`](crate::DatagramRequestHandler).
pub trait StreamRequestHandler: Send + 'static {
    /// Timeout of the connection's calls. Python: `timeout`.
    const TIMEOUT: Option<Duration> = None;
    /// Whether small writes go out at once (`TCP_NODELAY`). Python: `disable_nagle_algorithm`.
    const DISABLE_NAGLE_ALGORITHM: bool = false;
    /// Buffer of `cx.rfile`; 0 never reads ahead. Python: `rbufsize`.
    const RBUFSIZE: usize = DEFAULT_BUFFER_SIZE;
    /// Buffer of `cx.wfile`; 0 sends every write at once. Python: `wbufsize`.
    const WBUFSIZE: usize = 0;

    /// Whether the handler has something to say before the client does: a greeting,
    /// the time of day. A [`SelectorMixIn`](crate::SelectorMixIn) otherwise calls
    /// `handle` only when the client has sent something, so that one that is silent
    /// costs no thread; the other mixins call it at once in any case. `setup` runs
    /// at once everywhere. Python has no such thing.
    const SPEAKS_FIRST: bool = false;

    /// Prepares the connection. By default nothing: timeout and files are ready.
    ///
    /// # Errors
    ///
    /// Ends the connection; neither `handle` nor `finish` runs.
    fn setup(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Serves the connection, or one request of it.
    ///
    /// # Errors
    ///
    /// Ends the connection, after `finish`.
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()>;

    /// Ends the conversation. By default sends what `cx.wfile` still buffers.
    ///
    /// # Errors
    ///
    /// Are reported; the connection is closed either way.
    fn finish(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.wfile.flush()
    }
}

/// A connection as its handler sees it: Python's `self.rfile`,
/// `self.client_address`, `self.server` and so on.
#[non_exhaustive]
pub struct StreamContext<'a> {
    /// Reads from the client: [`Read`](io::Read) and [`BufRead`](io::BufRead).
    pub rfile: SocketReader<'a>,
    /// Writes to the client: [`Write`]; unbuffered unless `WBUFSIZE` says otherwise.
    pub wfile: SocketWriter<'a>,
    /// The connection itself. What `rfile` has read ahead is no longer in it.
    /// Python: `self.request`, `self.connection`.
    pub request: &'a dyn StreamSocket,
    /// Who is there.
    pub client_address: &'a Address,
    /// The server, as far as a handler may touch it: to stop it.
    pub server: &'a ServerHandle,
    /// Whether the connection ends when `handle` returns: true whenever it is
    /// called. A handler that sets it to false and returns `Ok` is called again
    /// when the next input is there. Python: `close_connection` of `http.server`.
    pub close_connection: bool,
}

#[cfg(unix)]
impl StreamContext<'_> {
    /// Who is at the other end of a Unix socket: process, user, group. See
    /// [`Socket::peer_credentials`](sock::Socket::peer_credentials).
    ///
    /// # Errors
    ///
    /// Those of [`Socket::peer_credentials`](sock::Socket::peer_credentials).
    pub fn peer_credentials(&self) -> io::Result<sock::Credentials> {
        self.request.socket().peer_credentials()
    }
}

/// Makes handlers of a closure: `TCPServer::new(address, handler_fn(|cx| ...))`.
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

/// The handler that [`handler_fn`] makes.
pub struct HandlerFn<F>(Arc<F>);

impl<F> StreamRequestHandler for HandlerFn<F>
where
    F: Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        (self.0)(cx)
    }
}

/// A handler whose type is forgotten, so that servers need not name it.
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
