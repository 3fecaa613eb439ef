//! The server, for connections and datagrams.
//!
//! The accept loop is [`AcceptLoop::run_once`](crate::AcceptLoop::run_once). A request is served by
//! [`Job::step`](crate::Job::step).

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use sock::{Address, AddressError, RawFd, Socket, ToDuration};

use crate::accept::acceptor::Settings;
use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::{MixIn, Processes};
use crate::api::kind::{Datagram, Kind, Stream};
use crate::lifecycle::handle::{LoopGuard, ServerHandle};
use crate::lifecycle::signals::{Signals, UnblockedSignals};
use crate::lifecycle::state::ServerState;
use crate::limits::drain_report::DrainReport;
use crate::limits::stats::Stats;
use crate::os::bound_path::BoundPath;
use crate::os::exit_timer::{self, ExitPlan};
use crate::os::guard::{SafeDisplay, discard, guard};
use crate::os::log::errno_field;
use crate::os::process;
use crate::request::core::Core;
use crate::request::hooks::ServerHooks;
use crate::request::{RequestError, catch_panic};

/// A server of kind `K`. The mixin `M` decides where its requests run.
///
/// Python: `socketserver.BaseServer`. The [classes](crate#classes), such as
/// [`ThreadingTCPServer`](crate::ThreadingTCPServer), are aliases of this type.
///
/// 1. [`new`](Server::new), or [`builder`](Server::builder) and `bind`, creates the socket, binds
///    it and makes it listen.
/// 2. [`serve_forever`](Server::serve_forever) serves until [`ServerHandle::shutdown`] is called.
///    It may be called again afterwards. [`handle_request`](Server::handle_request) serves one
///    request.
/// 3. [`server_close`](Server::server_close), or dropping the server, closes the socket and waits
///    for the requests that are still running.
///
/// # Examples
///
/// ```
/// use sockserver::{TCPServer, handler_fn};
///
/// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| cx.request.sendall(b"hello")))?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.handle_request()?;
/// assert_eq!(client.recv(100)?, b"hello");
/// server.server_close()?;
/// # std::io::Result::Ok(())
/// ```
pub struct Server<K, M: MixIn> {
    pub(crate) core: Arc<Core>,
    /// Empty after the server was closed.
    pub(crate) sockets: Vec<Arc<Socket>>,
    pub(crate) signals: Option<Signals>,
    pub(crate) server_addresses: Vec<Address>,
    pub(crate) mixin: M,
    pub(crate) settings: Settings,
    pub(crate) kind: PhantomData<fn() -> K>,
}

impl<K: Kind, M: MixIn> Server<K, M> {
    /// Serves requests until the server is shut down.
    ///
    /// Python: `serve_forever()`. System calls: accept4(2) for each connection, poll(2) to wait.
    /// An idle server does not wake up, and [`ServerHandle::shutdown`] takes effect at once (Python
    /// polls twice a second).
    ///
    /// # Errors
    ///
    /// Returns an error if no listener can accept any more, if the mixin fails (for example because
    /// forking is refused while other threads run), and `ResourceBusy` if `serve_forever` is
    /// already running.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::thread;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| cx.request.sendall(b"hello")))?;
    /// let handle = server.handle();
    /// let serving = thread::spawn(move || server.serve_forever());
    /// handle.shutdown()?;
    /// serving.join().unwrap()?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn serve_forever(&self) -> io::Result<()> {
        let serving = self.core.handle.begin()?;
        let _unblocked = self.enter_process()?;
        self.with_exit_timer(|| self.serve_until_stopped(serving))
    }

    fn serve_until_stopped(&self, serving: LoopGuard<'_>) -> io::Result<()> {
        let registry = self.core.registry();
        // The drain was requested before this loop began.
        if registry.is_draining() {
            drop(serving);
            registry.wait_for_drains();
            self.core.handle.set_stopped();
            return Ok(());
        }
        self.core.handle.state_cell().announce_ready();
        log::debug!(listener:% = self.server_address(); "serving {}", self.server_address());
        let ended = self.mixin.serve(&self.accept_loop());
        drop(serving);
        let failed = self.core.handle.duties().loop_ended(&self.core.handle);
        let ended = failed.map_or(ended, Err);
        self.drain_on_signal();
        registry.wait_for_drains();
        self.core.handle.set_stopped();
        let stats = registry.stats();
        log::debug!(
            listener:% = self.server_address(), accepted = stats.accepted, finished = stats.finished;
            "stopped serving {}: {stats}", self.server_address()
        );
        ended.map_err(|error| AddressError::new("serve", self.server_address(), error).into())
    }

    /// Serves one request.
    ///
    /// Python: `handle_request()`. It waits for at most the server's
    /// [`timeout`](crate::Builder::timeout), then calls `handle_timeout` and returns. After a drain
    /// it returns immediately, so a loop around it should check [`drained`](Server::drained).
    ///
    /// # Errors
    ///
    /// Returns an error if no listener can accept any more.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| cx.request.sendall(b"hello")))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;                                  // server.handle_request()
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn handle_request(&self) -> io::Result<()> {
        self.core.handle.take_over()?;
        let _unblocked = self.enter_process()?;
        self.with_exit_timer(|| self.serve_one_request())
    }

    fn serve_one_request(&self) -> io::Result<()> {
        let timeout = self.settings.timeout.unwrap_or_else(|| self.mixin.timeout());
        let served = self.accept_loop().one_request(timeout);
        if !served.map_err(|error| AddressError::new("serve", self.server_address(), error))? {
            if let Err(error) = self.call(|hooks| hooks.handle_timeout()) {
                log::error!(hook = "handle_timeout"; "handle_timeout hook {error}");
            }
            if let Err(message) = guard(|| self.mixin.handle_timeout()) {
                log::error!(hook = "handle_timeout"; "handle_timeout of the mixin panicked: {message}");
            }
        }
        if self.drained().is_none() {
            self.drain_on_signal();
        }
        Ok(())
    }

    /// Returns a handle, which can stop the server from any thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let handle = server.handle();
    /// // The handle is still valid after the server was moved into its thread.
    /// let serving = std::thread::spawn(move || server.serve_forever());
    /// handle.shutdown()?;
    /// serving.join().unwrap()?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.core.handle.clone()
    }

    /// Stops `serve_forever` in another thread and waits until it has returned. Python:
    /// `shutdown()`. See [`ServerHandle::shutdown`].
    ///
    /// # Errors
    ///
    /// Returns an error in the cases listed for [`ServerHandle::shutdown`].
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// std::thread::scope(|scope| {
    ///     let serving = scope.spawn(|| server.serve_forever());
    ///     server.shutdown()?;                                    // server.shutdown()
    ///     serving.join().unwrap()
    /// })?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn shutdown(&self) -> io::Result<()> {
        self.core.handle.shutdown()
    }

    /// Stops the server gracefully. See [`ServerHandle::drain`].
    ///
    /// In a forking server, call this method after `serve_forever` has returned, and not
    /// [`ServerHandle::drain`], because this method also reaps the children.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases listed for [`ServerHandle::drain`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::new(("127.0.0.1", 0), handler_fn(|cx| cx.request.sendall(b"hello")))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// let report = server.drain(10)?;
    /// assert!(report.aborted.is_empty());
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn drain(&self, limit: impl ToDuration) -> io::Result<DrainReport> {
        self.drain_while(limit.to_duration()?, &|| false)
    }

    fn drain_while(&self, limit: Duration, hurry: &dyn Fn() -> bool) -> io::Result<DrainReport> {
        let (handle, registry) = (&self.core.handle, self.core.registry());
        let processes = self.mixin.processes();
        if self.mixin.forks() {
            handle.request_shutdown()?;
            self.serve_queue(limit);
            handle.shut_down_listeners();
            let limit = handle.queue().remaining().unwrap_or(limit);
            let drain =
                |processes: &dyn Processes| processes.drain_workers(limit, registry.idle_grace(), hurry);
            if let Some(report) = processes.and_then(drain) {
                registry.set_report(report.clone());
                handle.set_stopped();
                return Ok(report);
            }
        }
        let reap = || {
            if registry.closes_idle() {
                processes.into_iter().for_each(Processes::close_idle);
            }
            self.mixin.service_actions();
        };
        handle.drain_while(limit, hurry, &reap)
    }

    /// Serves the clients in the queues of the listeners, for a forking server whose loop has ended.
    fn serve_queue(&self, limit: Duration) {
        let handle = &self.core.handle;
        handle.begin_drain(limit, true);
        if !handle.queue().is_open() {
            return;
        }
        if let Ok(serving) = handle.begin() {
            let served = self.mixin.serve(&self.accept_loop());
            drop(serving);
            if let Err(error) = served {
                log::error!(
                    listener:% = self.server_address(), errno = errno_field(&error);
                    "cannot serve the accept queue of {}: {error}", self.server_address()
                );
            }
        }
        handle.close_queue();
    }

    /// Returns the counters of the server's requests. See [`ServerHandle::stats`].
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let failing = handler_fn(|_| Err(std::io::Error::other("no database")));
    /// let server = TCPServer::new(("127.0.0.1", 0), failing)?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!((server.stats().accepted, server.stats().failed), (1, 1));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.handle.stats()
    }

    /// Closes the server and waits for the requests that are still running.
    ///
    /// The wait is configured by the mixin and limited by
    /// [`close_timeout`](crate::Builder::close_timeout). Python: `server_close()`. System call:
    /// close(2). Dropping the server does the same.
    ///
    /// # Errors
    ///
    /// Returns an error if the mixin's `server_close` fails or the hook `server_close` panics. The
    /// server is closed in either case.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let port = server.server_address().port().unwrap();
    /// server.server_close()?;                                    // server.server_close()
    /// assert!(sock::create_connection(("127.0.0.1", port)).is_err());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn server_close(mut self) -> io::Result<()> {
        self.close()
    }

    /// Returns the address the server is bound to, the first if there are several. Port 0 has been
    /// replaced by the port the system chose. Python: the attribute `server_address`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let address = server.server_address();                     // server.server_address
    /// assert_eq!(address.ip().unwrap().to_string(), "127.0.0.1");
    /// assert_ne!(address.port(), Some(0));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn server_address(&self) -> &Address {
        &self.server_addresses[0]
    }

    /// Returns all addresses the server is bound to.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let addresses = [("127.0.0.1", 0), ("127.0.0.2", 0)];
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).bind_all(addresses)?;
    /// let hosts: Vec<_> = server.server_addresses().iter().map(|address| address.ip().unwrap()).collect();
    /// assert_eq!(hosts, [[127, 0, 0, 1], [127, 0, 0, 2]].map(std::net::IpAddr::from));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn server_addresses(&self) -> &[Address] {
        &self.server_addresses
    }

    /// Returns the server's socket, the first if there are several. Python: the attribute `socket`.
    ///
    /// Do not change its blocking mode: a blocking listener blocks the accept loop.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// assert_eq!(&server.socket().getsockname()?, server.server_address());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.sockets[0]
    }

    /// Returns the descriptor of [`socket`](Self::socket). Python: `fileno()`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// assert_eq!(server.fileno(), server.socket().fileno());     // server.fileno()
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.socket().fileno()
    }

    /// Returns the mixin.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadPoolTCPServer, handler_fn};
    ///
    /// let server = ThreadPoolTCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// assert_eq!(server.mixin().queued(), 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn mixin(&self) -> &M {
        &self.mixin
    }

    /// Returns the report of the last drain, `None` if there was none. After `serve_forever` it
    /// says whether requests were aborted.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// assert!(server.drained().is_none());
    /// let report = server.drain(10)?;
    /// assert_eq!(server.drained(), Some(report));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn drained(&self) -> Option<DrainReport> {
        self.core.registry().last_report()
    }

    /// Prepares this process for serving, which may be a child of the one that has made the server.
    fn enter_process(&self) -> io::Result<Option<UnblockedSignals>> {
        self.core.handle.paths().lock().iter().for_each(BoundPath::take_over);
        if self.mixin.forks() {
            process::keep_exit_statuses()?;
        }
        if !self.mixin.forks() {
            self.core.handle.duties().start_thread(&self.core.handle)?;
        }
        let Some(signals) = &self.signals else { return Ok(None) };
        let unblocked = signals.begin()?;
        if !self.mixin.forks() {
            signals.watch(&self.core.handle)?;
        }
        Ok(Some(unblocked))
    }

    /// Serves. In a process that forks, a hook that does not return then keeps no signal from ending
    /// the process. Other servers have a thread for that: see [`Signals::watch`].
    fn with_exit_timer<T>(&self, serve: impl FnOnce() -> T) -> T {
        let Some(signals) = self.signals.as_ref().filter(|_| self.mixin.forks()) else { return serve() };
        let Some(limit) = signals.limit() else { return serve() };
        let (handle, processes) = (&self.core.handle, self.mixin.processes());
        let drain_children = |limit| {
            // What handlers see. The loop calls the hook, if it goes on.
            handle.state_cell().advance(ServerState::Draining);
            if let Some(processes) = processes {
                processes.drain_in_signal_handler(limit);
            }
        };
        let end = || {
            let Some(paths) = handle.paths().try_lock() else { return false };
            if !processes.is_none_or(Processes::end_in_signal_handler) {
                return false;
            }
            paths.iter().for_each(BoundPath::remove_in_signal_handler);
            true
        };
        let lame_duck = self.core.registry().limits().lame_duck;
        let plan = ExitPlan { lame_duck, limit, drain_children: &drain_children, end: &end };
        exit_timer::run(&plan, || signals.unread(), serve)
    }

    /// Drains the server if a signal, or a successor, has requested that.
    fn drain_on_signal(&self) {
        let signals = self.signals.as_ref();
        let handed_over = self.core.handle.duties().requested_drain().filter(|_| self.mixin.forks());
        let second_signal = || {
            if self.mixin.forks() {
                // No thread runs them.
                self.core.handle.duties().run_at_intervals(&self.core.handle);
            }
            exit_timer::turn();
            let signals = signals.inspect(|signals| signals.read_signals());
            signals.is_some_and(Signals::second_signal)
        };
        if let Some(limit) = signals.and_then(Signals::requested_drain).or(handed_over) {
            match self.drain_while(limit, &second_signal) {
                Ok(report) => report.log(),
                Err(error) => log::error!(errno = errno_field(&error); "cannot drain: {error}"),
            }
        }
    }

    fn accept_loop(&self) -> AcceptLoop<'_> {
        let signals = self.signals.as_ref().filter(|_| self.mixin.forks());
        AcceptLoop::new(&self.core, &self.sockets, self.settings, &self.mixin, signals)
    }
}

impl<K, M: MixIn> Server<K, M> {
    /// Calls a hook. Returns an error if it panics.
    fn call(&self, hook: impl FnOnce(&dyn ServerHooks)) -> Result<(), RequestError> {
        catch_panic(|| {
            hook(&*self.core.hooks);
            Ok(())
        })
    }

    fn close(&mut self) -> io::Result<()> {
        if self.sockets.is_empty() {
            return Ok(());
        }
        // Handlers that still run see it.
        self.core.handle.set_closing(false);
        // Before the socket is closed: see `BoundPath`.
        let paths = std::mem::take(&mut *self.core.handle.paths().lock());
        drop(paths);
        // Clients are refused from here on. Workers that still serve datagrams share the socket,
        // and the last of them closes it.
        self.sockets.clear();
        let hook = self.call(|hooks| hooks.server_close());
        let closed = guard(|| self.mixin.server_close(&self.core.handle));
        let closed = closed.unwrap_or_else(|message| {
            Err(io::Error::other(format!("server_close of the mixin panicked: {message}")))
        });
        self.signals = None;
        self.core.handle.duties().close();
        self.core.registry().close();
        self.core.handle.set_closing(true);
        hook.map_err(|error| io::Error::other(format!("server_close hook {error}"))).and(closed)
    }
}

impl<K, M: MixIn> Drop for Server<K, M> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            let address = &self.server_addresses[0];
            log::error!(
                listener:% = address, errno = errno_field(&error);
                "cannot close the server at {address}: {}", SafeDisplay(&error)
            );
            discard(error);
        }
    }
}

impl<K, M: MixIn> fmt::Debug for Server<K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("server_address", &format_args!("{}", self.server_addresses[0]))
            .finish_non_exhaustive()
    }
}

/// A server for connections, with the mixin `M`. Python: `socketserver.TCPServer`,
/// `UnixStreamServer`.
///
/// # Examples
///
/// A function for servers of connections with any mixin:
///
/// ```
/// use sockserver::{MixIn, StreamServer, TCPServer, handler_fn, kind::Inet};
///
/// fn port<M: MixIn>(server: &StreamServer<Inet, M>) -> u16 {
///     server.server_address().port().unwrap()
/// }
///
/// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
/// assert_ne!(port(&server), 0);
/// # std::io::Result::Ok(())
/// ```
pub type StreamServer<F, M> = Server<Stream<F>, M>;

/// A server for datagrams, with the mixin `M`. Python: `socketserver.UDPServer`,
/// `UnixDatagramServer`.
///
/// # Examples
///
/// A function for servers of datagrams with any mixin:
///
/// ```
/// use sockserver::{DatagramServer, MixIn, UDPServer, datagram_handler_fn, kind::Inet};
///
/// fn port<M: MixIn>(server: &DatagramServer<Inet, M>) -> u16 {
///     server.server_address().port().unwrap()
/// }
///
/// let server = UDPServer::new(("127.0.0.1", 0), datagram_handler_fn(|_| Ok(())))?;
/// assert_ne!(port(&server), 0);
/// # std::io::Result::Ok(())
/// ```
pub type DatagramServer<F, M> = Server<Datagram<F>, M>;
