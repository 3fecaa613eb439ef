//! The handlers of connections.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use sock::{Address, DEFAULT_BUFFER_SIZE, SocketReader, SocketWriter, StreamSocket};

use crate::connection::Connection;
use crate::connection::client_handle::ClientHandle;
#[cfg(feature = "proxy-protocol")]
use crate::connection::proxy_header::ProxyHeader;
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
/// use std::io::{self, Write};
/// use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};
///
/// struct Echo;                                            // class Echo(StreamRequestHandler):
///
/// impl StreamRequestHandler for Echo {
///     fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
///         for line in &mut cx.rfile {                     //     for line in self.rfile:
///             cx.wfile.write_all(&line?)?;                //         self.wfile.write(line)
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
    /// If it returns an error, the connection is closed, and neither `handle` nor `finish` is
    /// called.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use sockserver::{StreamContext, StreamRequestHandler, TCPServer};
    ///
    /// #[derive(Default)]
    /// struct Session {
    ///     user: Vec<u8>,
    /// }
    ///
    /// impl StreamRequestHandler for Session {
    ///     fn setup(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
    ///         self.user = cx.rfile.readline(100)?;
    ///         Ok(())
    ///     }
    ///
    ///     fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
    ///         cx.wfile.write_all(b"welcome ")?;
    ///         cx.wfile.write_all(&self.user)
    ///     }
    /// }
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), Session::default)?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// client.sendall(b"alice\n")?;
    /// server.handle_request()?;
    /// assert_eq!(client.makefile_rb().readline(100)?, b"welcome alice\n");
    /// # std::io::Result::Ok(())
    /// ```
    fn setup(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Serves the connection, or one request on it.
    ///
    /// # Errors
    ///
    /// If it returns an error, the connection is closed after `finish` was called.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use sockserver::{StreamContext, StreamRequestHandler, TCPServer};
    ///
    /// struct Echo;
    ///
    /// impl StreamRequestHandler for Echo {
    ///     fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
    ///         let line = cx.rfile.readline(1000)?;               // line = self.rfile.readline(1000)
    ///         cx.wfile.write_all(&line)                          // self.wfile.write(line)
    ///     }
    /// }
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), || Echo)?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// client.sendall(b"hello\n")?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello\n");
    /// # std::io::Result::Ok(())
    /// ```
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()>;

    /// Finishes the connection. The default sends what is buffered in `cx.wfile`.
    ///
    /// # Errors
    ///
    /// If it returns an error, the error is passed to `handle_error`. The connection is closed in
    /// either case.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{self, Write};
    /// use sockserver::{StreamContext, StreamRequestHandler, TCPServer};
    ///
    /// struct Polite;
    ///
    /// impl StreamRequestHandler for Polite {
    ///     fn handle(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
    ///         Err(io::Error::other("no database"))
    ///     }
    ///
    ///     fn finish(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
    ///         // This is sent although `handle` has failed.
    ///         cx.wfile.write_all(b"closing\n")?;
    ///         cx.wfile.flush()
    ///     }
    /// }
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), || Polite)?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"closing\n");
    /// # std::io::Result::Ok(())
    /// ```
    fn finish(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.wfile.flush()
    }
}

/// The connection that a handler serves. Python: the attributes of the handler, such as
/// `self.rfile`, `self.client_address` and `self.server`.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use sockserver::{TCPServer, handler_fn};
///
/// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| {
///     let line = cx.rfile.readline(1000)?;
///     write!(cx.wfile, "{} sent {} bytes", cx.client_address.ip().unwrap(), line.len())
/// }))?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// client.sendall(b"hello\n")?;
/// server.handle_request()?;
/// assert_eq!(client.makefile_rb().readline(100)?, b"127.0.0.1 sent 6 bytes");
/// # std::io::Result::Ok(())
/// ```
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
    pub(crate) connection: &'a Connection,
    #[cfg(feature = "proxy-protocol")]
    pub(crate) proxy_header: Option<&'a ProxyHeader>,
}

impl StreamContext<'_> {
    /// Returns access to the connection that other handlers and threads can use, also with TLS.
    ///
    /// Call it once for each connection, and clone the result. For a plain connection it has a
    /// descriptor of its own until the last clone is dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is available (`EMFILE`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| {
    ///     let handle = cx.client_handle()?;
    ///     // The thread does not borrow the context.
    ///     std::thread::spawn(move || handle.sendall(b"hello")).join().unwrap()
    /// }))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn client_handle(&self) -> io::Result<ClientHandle> {
        self.connection.client_handle()
    }
}

impl fmt::Debug for StreamContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamContext")
            .field("client_address", self.client_address)
            .field("close_connection", &self.close_connection)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "proxy-protocol")]
impl<'a> StreamContext<'a> {
    /// Returns the PROXY protocol header of the connection, `None` for a server without
    /// [`proxy_protocol`](crate::Builder::proxy_protocol).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| {
    ///     let Some(header) = cx.proxy_header() else { return Ok(()) };
    ///     write!(cx.wfile, "{}", header.destination().unwrap())
    /// }))
    /// .proxy_protocol(ProxyProtocol::from_networks(["127.0.0.1"])?)
    /// .bind(("127.0.0.1", 0))?;
    /// let proxy = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// proxy.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n")?;
    /// server.handle_request()?;
    /// assert_eq!(proxy.recv(100)?, b"198.51.100.2:443");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn proxy_header(&self) -> Option<&'a ProxyHeader> {
        self.proxy_header
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
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{UnixStreamServer, handler_fn};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("echo.sock");
    /// let who = handler_fn(|cx| {
    ///     let credentials = cx.peer_credentials()?;
    ///     write!(cx.wfile, "{}", credentials.uid)
    /// });
    /// let server = UnixStreamServer::new(&path, who)?;
    /// let client = sock::Socket::new(sock::AF_UNIX, sock::SOCK_STREAM, 0)?;
    /// client.connect(&path)?;
    /// server.handle_request()?;
    /// assert!(client.recv(100)?.is_ascii());
    /// # std::io::Result::Ok(())
    /// ```
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
///
/// # Examples
///
/// ```
/// use sockserver::{HandlerFn, StreamRequestHandler, handler_fn};
///
/// fn is_handler<H: StreamRequestHandler>(_make: &impl Fn() -> H) -> bool {
///     true
/// }
///
/// let hello = handler_fn(|cx| cx.request.sendall(b"hello"));
/// let handler: HandlerFn<_> = hello();
/// assert!(is_handler(&hello));
/// # drop(handler);
/// ```
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
