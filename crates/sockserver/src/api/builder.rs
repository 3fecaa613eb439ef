//! The builder of a server: a setter for each option, and `bind` to create the server.

mod options;
#[cfg(unix)]
mod unix;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sock::{Address, Socket, ToAddress, ToTimeout};

use crate::accept::acceptor::Settings;
use crate::accept::listener::{self, Listener, Options};
use crate::accept::mixin::MixIn;
use crate::api::kind::{Datagram, Family, Kind, Stream};
use crate::api::server::Server;
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::signals::Signals;
use crate::limits::{Limits, WhenFull};
use crate::os::bound_path::BoundPath;
use crate::request::core::{Core, HandlerFactory};
use crate::request::datagram_handler::DatagramRequestHandler;
use crate::request::hooks::{Defaults, ServerHooks, ServiceActions, WrapRequest};
use crate::request::stream_handler::StreamRequestHandler;

/// Sets the options of a server and creates it.
///
/// Python: assignments to class variables, and `bind_and_activate=False`. A builder cannot serve,
/// and the options of a server cannot be changed.
///
/// | setter | default | Python |
/// | --- | --- | --- |
/// | [`allow_reuse_address`](Self::allow_reuse_address) | false | the same |
/// | [`allow_reuse_port`](Self::allow_reuse_port) | false | the same |
/// | [`request_queue_size`](Self::request_queue_size) | 128 | 5 |
/// | [`timeout`](Self::timeout) | none | the same; 300 s when forking |
/// | [`poll_interval`](Self::poll_interval) | 0.5 s, used only with `service_actions` | 0.5 s always |
/// | [`max_packet_size`](Builder::max_packet_size) | 8192 | the same |
/// | [`max_batch`](Builder::max_batch) | 1 | none |
/// | [`daemon_threads`](Builder::daemon_threads) | false | the same |
/// | [`max_children`](Builder::max_children) | 40 | the same |
/// | [`block_on_close`](Builder::block_on_close) | true | the same |
/// | [`max_connections`](Self::max_connections) | 10,000 | no limit |
/// | [`max_connections_per_ip`](Builder::max_connections_per_ip) | none | none |
/// | [`wrap_timeout`](Builder::wrap_timeout) | 10 s | none |
/// | [`first_byte_timeout`](Builder::first_byte_timeout) | 30 s | none |
/// | [`idle_timeout`](Builder::idle_timeout) | 60 s | none |
/// | [`read_timeout`](Builder::read_timeout) | 5 min | none |
/// | [`write_timeout`](Builder::write_timeout) | 60 s | none |
/// | [`request_timeout`](Builder::request_timeout) | 1 h | none |
/// | [`linger_timeout`](Builder::linger_timeout) | 2 s | none |
/// | [`close_timeout`](Self::close_timeout) | 60 s | none |
///
/// # Examples
///
/// ```
/// use sockserver::{ThreadingTCPServer, handler_fn};
///
/// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
///     .allow_reuse_address(true)
///     .request_queue_size(1024)
///     .bind(("127.0.0.1", 0))?;
/// # std::io::Result::Ok(())
/// ```
#[must_use = "a builder does nothing until `bind`"]
pub struct Builder<K, M> {
    service: HandlerFactory,
    hooks: Box<dyn ServerHooks>,
    has_hooks: bool,
    wrap_request: Option<Arc<WrapRequest>>,
    service_actions: Option<Arc<ServiceActions>>,
    mixin: M,
    options: Options,
    settings: Settings,
    limits: Limits,
    drain_on_signals: Option<Duration>,
    /// The first timeout that is negative, NaN or too long. `bind` returns the error.
    invalid_timeout: Option<io::Error>,
    kind: PhantomData<fn() -> K>,
}

impl<K, M> fmt::Debug for Builder<K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<F: Family, M: MixIn + Default> Server<Stream<F>, M> {
    /// Creates a server that listens on `address` and serves each connection with its own handler.
    ///
    /// Python: `TCPServer(server_address, RequestHandlerClass)`. System calls: socket(2), bind(2),
    /// listen(2). `handler` is called once for each connection and returns its handler: `|| Echo`,
    /// or [`handler_fn`](crate::handler_fn) of a closure.
    ///
    /// # Errors
    ///
    /// Returns an [`AddressError`](sock::AddressError) if a system call fails, and the error of
    /// [`ToAddress`] if the address cannot be resolved. No descriptor is left open.
    pub fn new<H: StreamRequestHandler>(
        address: impl ToAddress,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::builder(handler).bind(address)
    }

    /// Creates a builder, for a server whose options or hooks differ from the defaults.
    pub fn builder<H: StreamRequestHandler>(
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> Builder<Stream<F>, M> {
        Builder::begin(HandlerFactory::Stream(Box::new(move || Box::new(handler()))))
    }
}

impl<F: Family, M: MixIn + Default> Server<Datagram<F>, M> {
    /// Creates a server that receives datagrams on `address` and serves each with its own handler.
    ///
    /// Python: `UDPServer(server_address, RequestHandlerClass)`. System calls: socket(2), bind(2).
    /// `handler` is called once for each datagram and returns its handler.
    ///
    /// # Errors
    ///
    /// Returns an [`AddressError`](sock::AddressError) if a system call fails, and the error of
    /// [`ToAddress`] if the address cannot be resolved. No descriptor is left open.
    pub fn new<H: DatagramRequestHandler>(
        address: impl ToAddress,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::builder(handler).bind(address)
    }

    /// Creates a builder, for a server whose options or hooks differ from the defaults.
    pub fn builder<H: DatagramRequestHandler>(
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> Builder<Datagram<F>, M> {
        Builder::begin(HandlerFactory::Datagram(Box::new(move || Box::new(handler()))))
    }
}

impl<K: Kind, M: MixIn> Builder<K, M> {
    fn begin(service: HandlerFactory) -> Self
    where
        M: Default,
    {
        Builder {
            service,
            hooks: Box::new(Defaults),
            has_hooks: false,
            wrap_request: None,
            service_actions: None,
            mixin: M::default(),
            options: Options {
                allow_reuse_address: false,
                allow_reuse_port: false,
                ipv6_only: false,
                request_queue_size: 128,
                unix_mode: None,
            },
            limits: Limits::default(),
            drain_on_signals: None,
            invalid_timeout: None,
            settings: Settings {
                timeout: None,
                poll_interval: Duration::from_millis(500),
                max_packet_size: 8192,
                max_batch: 1,
            },
            kind: PhantomData,
        }
    }

    /// Sets the hooks, which replace steps of the server. Python: methods overridden in a subclass.
    pub fn hooks(mut self, hooks: impl ServerHooks) -> Self {
        self.hooks = Box::new(hooks);
        self.has_hooks = true;
        self
    }

    /// Sets a function that is called after every turn of the loop, and at least once in every
    /// [`poll_interval`](Self::poll_interval). By default there is none, and an idle loop sleeps
    /// until there is something to do. A panic is logged, and the loop continues.
    ///
    /// Python: overriding `service_actions`. Instead of `super().service_actions()`, call the other
    /// function.
    ///
    /// # Examples
    ///
    /// A flag that a signal handler may set stops the server:
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// static STOP: AtomicBool = AtomicBool::new(false);
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .service_actions(|server| {
    ///         if STOP.load(Ordering::Relaxed) {
    ///             let _ = server.request_shutdown();
    ///         }
    ///     })
    ///     .bind(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn service_actions(mut self, f: impl Fn(&ServerHandle) + Send + Sync + 'static) -> Self {
        self.service_actions = Some(Arc::new(f));
        self
    }

    /// Replaces the mixin.
    ///
    /// The options of a mixin can also be set on the builder: `workers(8)` has the same effect as
    /// `mixin(ThreadPoolMixIn::new().workers(8))`. Use this method for a mixin of your own.
    pub fn mixin(mut self, mixin: M) -> Self {
        self.mixin = mixin;
        self
    }

    /// Sets `SO_REUSEADDR`, so that the port can be bound again while connections of an earlier
    /// server are in `TIME_WAIT`. Default false.
    pub fn allow_reuse_address(mut self, allow: bool) -> Self {
        self.options.allow_reuse_address = allow;
        self
    }

    /// Sets `IPV6_V6ONLY`, so that a server bound to `::` does not accept IPv4 clients. Default
    /// false: IPv4 clients are accepted and have addresses of the form `::ffff:a.b.c.d`.
    pub fn ipv6_only(mut self, ipv6_only: bool) -> Self {
        self.options.ipv6_only = ipv6_only;
        self
    }

    /// Sets `SO_REUSEPORT`, so that several servers can share the port. Default false.
    pub fn allow_reuse_port(mut self, allow: bool) -> Self {
        self.options.allow_reuse_port = allow;
        self
    }

    /// Sets how long [`handle_request`](Server::handle_request) waits for a request. When the
    /// timeout expires, it calls `handle_timeout` and returns.
    ///
    /// `None` waits indefinitely, which is the default except in a forking server (300 s). This is
    /// no deadline for clients, and `serve_forever` ignores it. Python: `timeout`.
    pub fn timeout(mut self, timeout: impl ToTimeout) -> Self {
        self.settings.timeout = Some(self.parse("timeout", timeout));
        self
    }

    /// Sets the longest time between two calls of `service_actions`. Default 0.5 s. A server
    /// without that hook ignores it. Python: the argument of `serve_forever`.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// Sets how many connections, or datagrams, are served at the same time. Default 10,000; 0 is
    /// treated as 1.
    ///
    /// The limit is exact, because a permit is acquired before a connection is accepted.
    /// [`when_full`](Self::when_full) says what happens to further clients.
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.limits.max_connections = max_connections.max(1);
        self
    }

    /// Sets what happens to clients when [`max_connections`](Self::max_connections) is reached. By
    /// default they wait in the listener's queue.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.limits.when_full = when_full;
        self
    }

    /// Drains the server on the first SIGTERM or SIGINT, for at most `limit`, and stops it at once
    /// on the second. `serve_forever` returns afterwards.
    ///
    /// The signals are caught from `bind` until the server is closed. Afterwards they have their
    /// earlier effect: the program's handler runs, or the process is terminated. A program that
    /// needs its own handlers must install them before it creates the first server. A thread waits
    /// for the signals; in a forking server the accept loop does. If the accept loop itself is
    /// blocked in a handler when the drain ends, as that of a `TCPServer` may be, the process exits
    /// with status 1.
    ///
    /// # Platform notes
    ///
    /// Available on Unix with the feature `signals`, which is enabled by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .drain_on_signals(Duration::from_secs(30))
    ///     .bind(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    #[cfg(all(unix, feature = "signals"))]
    pub fn drain_on_signals(mut self, limit: Duration) -> Self {
        self.drain_on_signals = Some(limit);
        self
    }

    /// Sets how long closing the server waits for requests that are still running. Default one
    /// minute; `None` waits indefinitely, as in Python. Requests that are still running when the
    /// time expires are left running.
    pub fn close_timeout(mut self, timeout: impl ToTimeout) -> Self {
        self.limits.close_timeout = self.parse("close_timeout", timeout);
        self
    }

    /// Returns a timeout. An invalid one is kept for `bind`.
    fn parse(&mut self, name: &str, timeout: impl ToTimeout) -> Option<Duration> {
        timeout.to_timeout().unwrap_or_else(|error| {
            let error = io::Error::new(error.kind(), format!("{name}: {error}"));
            self.invalid_timeout.get_or_insert(error);
            None
        })
    }

    /// Creates the socket, binds it to `address`, and creates the server.
    ///
    /// It sets the socket options and calls the hooks `server_bind` and `server_activate`.
    ///
    /// # Errors
    ///
    /// Returns an [`AddressError`](sock::AddressError) if a system call or one of the two hooks
    /// fails, the error of [`ToAddress`] if the address cannot be resolved, and `InvalidInput` if
    /// `read_timeout` or `write_timeout` is zero, or a timeout is negative or NaN. No descriptor is left open.
    pub fn bind(self, address: impl ToAddress) -> io::Result<Server<K, M>> {
        self.bind_all([address])
    }

    /// Creates one server with a socket for each of several addresses.
    ///
    /// # Errors
    ///
    /// Returns the error of [`bind`](Self::bind) for the first address that fails, and
    /// `InvalidInput` if there are no addresses.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .bind_all([("127.0.0.1", 0), ("127.0.0.2", 0)])?;
    /// assert_eq!(server.server_addresses().len(), 2);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn bind_all<A: ToAddress>(
        self,
        addresses: impl IntoIterator<Item = A>,
    ) -> io::Result<Server<K, M>> {
        let (mut listeners, mut inherits) = (Vec::new(), true);
        for address in addresses {
            let address = K::Family::address(&address)?;
            let mut listener = listener::bind(&address, K::SOCKET_TYPE, &self.options, &*self.hooks)?;
            // Set before listen(2), because a connection inherits the options at its creation.
            inherits &= self.set_inherited_write_timeout(&listener.socket);
            self.activate(&listener.socket, &address)?;
            drop(listener.turn.take());
            listeners.push(listener);
        }
        self.server(listeners, inherits, true)
    }

    /// Creates the server from sockets that are already bound, for example by systemd or a parent
    /// process.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` if a socket has another kind or family than the server, if there are
    /// no sockets, or if [`unix_mode`](Builder::unix_mode) was set. Returns the error of listen(2)
    /// if that fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let listener = sock::create_server(("127.0.0.1", 0))?;
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(()))).adopt([listener])?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn adopt(self, sockets: impl IntoIterator<Item = Socket>) -> io::Result<Server<K, M>> {
        if self.options.unix_mode.is_some() {
            let sentence = "unix_mode cannot be applied to a bound socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let mut listeners = Vec::new();
        for socket in sockets {
            if socket.kind() != K::SOCKET_TYPE {
                let sentence = format!("expected a {} socket, got {socket:?}", K::SOCKET_TYPE);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
            }
            let address = K::Family::address(&socket.getsockname()?)?;
            self.activate(&socket, &address)?;
            listeners.push(Listener { path: None, socket, turn: None });
        }
        // Clients that are already queued may have inherited other timeouts.
        self.server(listeners, false, false)
    }

    /// Sets `write_timeout` on a listener. Returns whether accepted sockets inherit it.
    fn set_inherited_write_timeout(&self, socket: &Socket) -> bool {
        matches!(self.service, HandlerFactory::Stream(_))
            && listener::set_inherited_write_timeout(socket, self.limits.write_timeout)
    }

    fn activate(&self, socket: &Socket, address: &Address) -> io::Result<()> {
        if let HandlerFactory::Stream(_) = self.service {
            let activated = self.hooks.server_activate(socket, self.options.request_queue_size);
            activated.map_err(|error| sock::AddressError::new("listen on", address, error))?;
            // accept(2) is tried before waiting. A datagram socket stays blocking, because
            // handlers send through it.
            socket.setblocking(false)?;
        }
        Ok(())
    }

    fn server(
        self,
        listeners: Vec<Listener>,
        inherits_write_timeout: bool,
        created_here: bool,
    ) -> io::Result<Server<K, M>> {
        if listeners.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no addresses or sockets given"));
        }
        if let Some(error) = self.invalid_timeout {
            return Err(error);
        }
        let calls =
            [("read_timeout", self.limits.read_timeout), ("write_timeout", self.limits.write_timeout)];
        if let Some((name, _)) = calls.iter().find(|(_, timeout)| *timeout == Some(Duration::ZERO)) {
            let sentence = format!("{name} must not be zero (None disables it)");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let server_addresses = listeners.iter().map(|listener| listener.socket.getsockname());
        let server_addresses = server_addresses.collect::<io::Result<Vec<_>>>()?;
        let handle = ServerHandle::new(self.limits)?;
        let (sockets, paths): (Vec<_>, Vec<_>) =
            listeners.into_iter().map(|listener| (Arc::new(listener.socket), listener.path)).unzip();
        if matches!(self.service, HandlerFactory::Stream(_)) && created_here {
            // Adopted sockets may be shared with other processes, so they are not shut down.
            handle.set_listeners_to_shut_down(&sockets);
        }
        if self.mixin.forks() {
            handle.registry().deadline_timer.forbid();
        }
        let core = Core {
            service: Arc::new(self.service),
            hooks: Arc::from(self.hooks),
            has_hooks: self.has_hooks,
            wrap_request: self.wrap_request,
            service_actions: self.service_actions,
            handle,
            inherits_write_timeout,
        };
        let paths = Arc::new(Mutex::new(paths.into_iter().flatten().collect::<Vec<BoundPath>>()));
        let signals = self.drain_on_signals.map(Signals::catch).transpose()?;
        if let Some(signals) = signals.as_ref().filter(|_| !self.mixin.forks()) {
            signals.watch(core.handle.clone(), Arc::clone(&paths))?;
        }
        Ok(Server {
            core: Arc::new(core),
            sockets,
            paths,
            signals,
            server_addresses,
            mixin: self.mixin,
            settings: self.settings,
            kind: PhantomData,
        })
    }
}
