//! The steps of a server that a program can replace.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;

use sock::{Address, SHUT_WR, Socket, StreamSocket};

use crate::connection::transport::Transport;
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::state::ServerState;
use crate::limits::log_limit::{self, log_limited};
use crate::os::unix_bind;
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
/// | a worker process or a forked child begins | [`start_worker`](Self::start_worker), in pre-forked workers |
/// | … and exits | [`worker_exit`](Self::worker_exit) |
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
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sock::{Address, Socket};
    /// use sockserver::{ServerHooks, TCPServer, handler_fn};
    ///
    /// struct Buffered;                                           // class Buffered(TCPServer):
    ///
    /// impl ServerHooks for Buffered {
    ///     fn server_bind(&self, socket: &Socket, address: &Address) -> io::Result<()> {
    ///         socket.setsockopt(sock::SOL_SOCKET, sock::SO_RCVBUF, 100_000)?;
    ///         socket.bind(address)                               //         super().server_bind()
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(Buffered).bind(("127.0.0.1", 0))?;
    /// assert!(server.socket().getsockopt(sock::SOL_SOCKET, sock::SO_RCVBUF)? >= 100_000);
    /// # std::io::Result::Ok(())
    /// ```
    fn server_bind(&self, socket: &Socket, address: &Address) -> io::Result<()> {
        unix_bind::bind(socket, address)
    }

    /// Makes the bound socket listen. By default `socket.listen(request_queue_size)`. It is not
    /// called for datagrams.
    ///
    /// # Errors
    ///
    /// If it returns an error, the socket is closed and the server is not created.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sock::Socket;
    /// use sockserver::{ServerHooks, TCPServer, handler_fn};
    ///
    /// struct NoDelay;
    ///
    /// impl ServerHooks for NoDelay {
    ///     fn server_activate(&self, socket: &Socket, request_queue_size: i32) -> io::Result<()> {
    ///         // Accepted sockets inherit the option on Linux.
    ///         socket.setsockopt(sock::IPPROTO_TCP, sock::TCP_NODELAY, true)?;
    ///         socket.listen(request_queue_size)
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(NoDelay).bind(("127.0.0.1", 0))?;
    /// assert_eq!(server.socket().getsockopt(sock::IPPROTO_TCP, sock::TCP_NODELAY)?, 1);
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sock::{Address, Socket};
    /// use sockserver::{ServerHooks, TCPServer, handler_fn};
    ///
    /// struct KeepAlive;
    ///
    /// impl ServerHooks for KeepAlive {
    ///     fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
    ///         let (request, client_address) = socket.accept()?;
    ///         request.setsockopt(sock::SOL_SOCKET, sock::SO_KEEPALIVE, true)?;
    ///         Ok((request, client_address))
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| {
    ///     assert_ne!(cx.request.socket().getsockopt(sock::SOL_SOCKET, sock::SO_KEEPALIVE)?, 0);
    ///     Ok(())
    /// }));
    /// let server = server.hooks(KeepAlive).bind(("127.0.0.1", 0))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().finished, 1);
    /// # std::io::Result::Ok(())
    /// ```
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        socket.accept()
    }

    /// Returns whether the request is served. By default true.
    ///
    /// It is called in the loop, or for a server with `Builder::proxy_protocol` in the worker, when
    /// the header has named the client.
    ///
    /// Otherwise [`shutdown_request`](Self::shutdown_request) follows.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Address;
    /// use sockserver::{Request, ServerHooks, TCPServer, handler_fn};
    ///
    /// struct Allowed(Vec<std::net::IpAddr>);
    ///
    /// impl ServerHooks for Allowed {
    ///     fn verify_request(&self, _request: &Request, client_address: &Address) -> bool {
    ///         client_address.ip().is_some_and(|ip| self.0.contains(&ip))
    ///     }
    /// }
    ///
    /// let hooks = Allowed(vec!["192.0.2.1".parse().unwrap()]);
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(hooks).bind(("127.0.0.1", 0))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().rejected, 1);
    /// # std::io::Result::Ok(())
    /// ```
    fn verify_request(&self, request: &Request, client_address: &Address) -> bool {
        let _ = (request, client_address);
        true
    }

    /// Is called before a request is closed because of a limit. It may send a short answer. By
    /// default it does nothing.
    ///
    /// It usually runs in the loop, so it must not block.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Address;
    /// use sockserver::{Request, ServerHooks, TCPServer, handler_fn};
    ///
    /// struct Busy;
    ///
    /// impl ServerHooks for Busy {
    ///     fn refuse_request(&self, request: &Request, _client_address: &Address) {
    ///         let _ = request.socket().send(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .hooks(Busy)
    ///     .max_connections_per_ip(0)
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert!(client.recv(100)?.starts_with(b"HTTP/1.1 503"));
    /// # std::io::Result::Ok(())
    /// ```
    fn refuse_request(&self, request: &Request, client_address: &Address) {
        let _ = (request, client_address);
    }

    /// Is called when a request has failed. By default it logs the error.
    ///
    /// The level is `debug` if the client disconnected or timed out (the server itself logs a
    /// deadline that expires during a request at `warn`), and otherwise `error`, limited
    /// to one line per second for each kind of error. The next line has the number of suppressed
    /// lines, which are logged at `debug`.
    ///
    /// Without a logger, the line of level `error` is printed to standard error, as Python prints a
    /// traceback. A logger that is disabled prints nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::{self, Sender};
    /// use sock::Address;
    /// use sockserver::{RequestError, ServerHooks, TCPServer, handler_fn};
    ///
    /// struct Report(Sender<String>);
    ///
    /// impl ServerHooks for Report {
    ///     fn handle_error(&self, error: &RequestError, _client_address: &Address) {
    ///         let _ = self.0.send(error.to_string());
    ///     }
    /// }
    ///
    /// let (sender, errors) = mpsc::channel();
    /// let server = TCPServer::builder(handler_fn(|_| Err(std::io::Error::other("no database"))))
    ///     .hooks(Report(sender))
    ///     .bind(("127.0.0.1", 0))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(errors.recv().unwrap(), "no database");
    /// # std::io::Result::Ok(())
    /// ```
    fn handle_error(&self, error: &RequestError, client_address: &Address) {
        let peer = client_address;
        let errno = || error.errno().and_then(sock::errno_name);
        if error.is_disconnect() {
            log::debug!(peer:% = peer, errno = errno(); "request from {peer} failed: {error}");
        } else if !log_limit::has_logger() {
            log_limit::print(error.log_kind(), format_args!("request from {peer} failed: {error}"));
        } else {
            log_limited!(
                error,
                error.log_kind(),
                peer:% = peer, errno = errno();
                "request from {peer} failed: {error}"
            );
        }
    }

    /// Shuts a request down before it is closed. By default `shutdown(SHUT_WR)` for a connection,
    /// and nothing for a datagram.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{Request, ServerHooks, TCPServer, handler_fn};
    ///
    /// struct Farewell;
    ///
    /// impl ServerHooks for Farewell {
    ///     fn shutdown_request(&self, request: &Request) {
    ///         if let Some(stream) = request.stream() {
    ///             let _ = stream.sendall(b"closing\n");
    ///             let _ = stream.shutdown(sock::SHUT_WR);
    ///         }
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(Farewell).bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"closing\n");
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use sockserver::{Request, ServerHooks, TCPServer, handler_fn};
    ///
    /// static CLOSED: AtomicUsize = AtomicUsize::new(0);
    ///
    /// struct Counting;
    ///
    /// impl ServerHooks for Counting {
    ///     fn close_request(&self, _request: &Request) {
    ///         CLOSED.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(Counting).bind(("127.0.0.1", 0))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(CLOSED.load(Ordering::Relaxed), 1);
    /// # std::io::Result::Ok(())
    /// ```
    fn close_request(&self, request: &Request) {
        let _ = request;
    }

    /// Is called when `handle_request` has timed out. By default it does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use sockserver::{ServerHooks, TCPServer, handler_fn};
    ///
    /// static TIMEOUTS: AtomicUsize = AtomicUsize::new(0);
    ///
    /// struct Counting;
    ///
    /// impl ServerHooks for Counting {
    ///     fn handle_timeout(&self) {
    ///         TIMEOUTS.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(Counting).timeout(0).bind(("127.0.0.1", 0))?;
    /// server.handle_request()?;
    /// assert_eq!(TIMEOUTS.load(Ordering::Relaxed), 1);
    /// # std::io::Result::Ok(())
    /// ```
    fn handle_timeout(&self) {}

    /// Is called in each worker process of a [`PreforkMixIn`](crate::PreforkMixIn) before its first
    /// request, to open what processes cannot share. A worker in which it takes longer than
    /// [`heartbeat`](crate::PreforkMixIn::heartbeat) is killed and started again. By default it does
    /// nothing.
    ///
    /// # Errors
    ///
    /// If it returns an error, the worker exits. After repeated failures `serve_forever` returns an
    /// error.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use std::sync::OnceLock;
    /// use sockserver::{PreforkTCPServer, ServerHooks, handler_fn};
    ///
    /// static DATABASE: OnceLock<u32> = OnceLock::new();
    ///
    /// struct Connect;
    ///
    /// impl ServerHooks for Connect {
    ///     fn start_worker(&self) -> io::Result<()> {
    ///         DATABASE.get_or_init(std::process::id);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let server = PreforkTCPServer::builder(handler_fn(|cx| {
    ///     assert_eq!(DATABASE.get(), Some(&std::process::id()));
    ///     cx.request.sendall(b"ready")
    /// }));
    /// # let server = server.workers(1).poll_interval(std::time::Duration::from_millis(10));
    /// # let server = server.service_actions(|server| if server.stats().accepted > 0 { let _ = server.request_shutdown(); });
    /// let server = server.hooks(Connect).bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(client.recv(100)?, b"ready");
    /// # std::io::Result::Ok(())
    /// ```
    fn start_worker(&self) -> io::Result<()> {
        Ok(())
    }

    /// Is called once in each worker process of a [`PreforkMixIn`](crate::PreforkMixIn), and in each
    /// child of a [`ForkingMixIn`](crate::ForkingMixIn), before it exits. By default it does nothing.
    ///
    /// A worker exits after a stop, a drain, SIGTERM and `max_requests`, and when its parent has died.
    /// A hook writes out what the process has buffered. Standard output is flushed afterwards, and
    /// the process exits with `_exit`: neither `atexit` handlers, which belong to the parent, nor
    /// destructors of thread-local values run.
    ///
    /// It runs in the thread of the handlers, after the last one has returned. If a handler does not
    /// return by the end of a drain, it runs in another thread. The hook and the flush have five
    /// seconds, and not more than the drain that ends the worker. Then the process exits, which is
    /// logged. The hook is not called in a worker that was killed, or whose
    /// [`start_worker`](Self::start_worker) has failed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use std::sync::Mutex;
    /// use sockserver::{ForkingTCPServer, ServerHooks, handler_fn};
    ///
    /// static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    ///
    /// struct WriteLog(std::path::PathBuf);
    ///
    /// impl ServerHooks for WriteLog {
    ///     fn worker_exit(&self) {
    ///         let _ = std::fs::write(&self.0, &*LOG.lock().unwrap());
    ///     }
    /// }
    ///
    /// let path = std::env::temp_dir().join(format!("worker-exit-{}", std::process::id()));
    /// let server = ForkingTCPServer::builder(handler_fn(|cx| {
    ///     writeln!(LOG.lock().unwrap(), "served")
    /// }));
    /// let server = server.hooks(WriteLog(path.clone())).bind(("127.0.0.1", 0))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// server.server_close()?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "served\n");
    /// # std::fs::remove_file(&path)?;
    /// # std::io::Result::Ok(())
    /// ```
    fn worker_exit(&self) {}

    /// Is called with each state of the server: once for each step of a stop, and with
    /// [`ServerState::Ready`] when `serve_forever` begins. By default it does nothing.
    ///
    /// A step that does not occur is skipped: without a
    /// [`lame_duck`](crate::Builder::lame_duck) a drain begins with [`ServerState::Draining`], and so
    /// does `shutdown`. The thread that begins the step calls it, which is the one that calls
    /// `shutdown` or `drain`, the one that receives signals, or the accept loop. The step continues
    /// when it has returned, so it must not block. A panic in it is logged.
    ///
    /// A worker process of a [`PreforkMixIn`](crate::PreforkMixIn) calls it too, in a thread of its
    /// own, for the steps [`ServerState::LameDuck`] and [`ServerState::Draining`]. The child of a
    /// [`ForkingMixIn`](crate::ForkingMixIn) does not. Its handler reads
    /// [`cx.server.state()`](crate::ServerHandle::state).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Mutex;
    /// use sockserver::{ServerHooks, ServerState, TCPServer, handler_fn};
    ///
    /// static STATES: Mutex<Vec<ServerState>> = Mutex::new(Vec::new());
    ///
    /// struct Record;
    ///
    /// impl ServerHooks for Record {
    ///     fn state_changed(&self, state: ServerState) {
    ///         STATES.lock().unwrap().push(state);
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(Record).bind(("127.0.0.1", 0))?;
    /// server.handle().request_shutdown()?;
    /// server.serve_forever()?;
    /// assert_eq!(STATES.lock().unwrap()[..], [ServerState::Draining, ServerState::Stopped]);
    /// # std::io::Result::Ok(())
    /// ```
    fn state_changed(&self, state: ServerState) {
        let _ = state;
    }

    /// Is called in the parent of a [`PreforkMixIn`](crate::PreforkMixIn) on SIGHUP, before its workers
    /// are replaced: see `Builder::manage_workers_on_signals`. What it changes, the new workers
    /// inherit, such as certificates that it reloads. By default it does nothing.
    ///
    /// # Errors
    ///
    /// If it returns an error, the error is logged and the workers are not replaced.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sockserver::ServerHooks;
    ///
    /// struct Configuration(std::path::PathBuf);
    ///
    /// impl ServerHooks for Configuration {
    ///     fn reload(&self) -> io::Result<()> {
    ///         std::fs::read(&self.0).map(drop)
    ///     }
    /// }
    ///
    /// assert!(Configuration("/nonexistent".into()).reload().is_err());
    /// ```
    fn reload(&self) -> io::Result<()> {
        Ok(())
    }

    /// Is called when the server closes, after its socket is closed. By default it does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use sockserver::{ServerHooks, TCPServer, handler_fn};
    ///
    /// static CLOSED: AtomicBool = AtomicBool::new(false);
    ///
    /// struct Hooks;
    ///
    /// impl ServerHooks for Hooks {
    ///     fn server_close(&self) {
    ///         CLOSED.store(true, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(Hooks).bind(("127.0.0.1", 0))?;
    /// server.server_close()?;
    /// assert!(CLOSED.load(Ordering::Relaxed));
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    /// use sockserver::{TCPServer, WrappedRequest, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .wrap_request(|request, _client_address| {
    ///         // The type is chosen for each client, such as a socket or a TLS stream.
    ///         let stream: Box<dyn StreamSocket> = Box::new(request);
    ///         Ok(WrappedRequest::from_boxed(stream))
    ///     })
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn from_boxed(stream: Box<dyn StreamSocket>) -> WrappedRequest {
        WrappedRequest { transport: Transport::Wrapped(stream.into()), client_address: None }
    }

    /// Sets the client's address, which a header inside the stream has named. The PROXY protocol is
    /// received with `Builder::proxy_protocol`.
    ///
    /// From then on the handler, the hooks, the log, the drain report and the limit for each
    /// address use it. A client that is over the limit is refused.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use std::net::SocketAddr;
    /// use sockserver::{TCPServer, WrappedRequest, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| write!(cx.wfile, "{}", cx.client_address)))
    ///     .wrap_request(|request, _proxy| {
    ///         // A real hook reads it from the header that the proxy sends.
    ///         let client = SocketAddr::from(([192, 0, 2, 1], 1234));
    ///         Ok(WrappedRequest::from(request).with_client_address(client))
    ///     })
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.makefile_rb().readline(100)?, b"192.0.2.1:1234");
    /// # std::io::Result::Ok(())
    /// ```
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
            None => Transport::Wrapped(Arc::new(stream.expect("only a socket is taken out"))),
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

/// Makes a server call the hook with its states. A panic in it is logged.
pub(crate) fn call_with_states(server: &ServerHandle, hooks: &Arc<dyn ServerHooks>) {
    let hooks = Arc::clone(hooks);
    server.state_cell().set_hook(Box::new(move |state| {
        let called = catch_panic(|| {
            hooks.state_changed(state);
            Ok(())
        });
        if let Err(error) = called {
            log::error!(hook = "state_changed"; "state_changed hook {error}");
        }
    }));
}

/// Calls `handle_error`. A panic in it is logged.
pub(crate) fn call_handle_error(hooks: &dyn ServerHooks, error: &RequestError, client_address: &Address) {
    let handled = catch_panic(|| {
        hooks.handle_error(error, client_address);
        Ok(())
    });
    if let Err(second) = handled {
        log::error!(
            hook = "handle_error", peer:% = client_address;
            "handle_error hook failed for {client_address}: {second}; the request's error: {error}"
        );
    }
}
