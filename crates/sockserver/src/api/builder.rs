//! The builder: Python's class variables as setters, and `bind` at its end.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sock::{Address, Socket, ToAddress};

use crate::accept::acceptor::Settings;
use crate::accept::listener::{self, Listener, Options};
use crate::accept::mixin::{MixIn, Sequential};
#[cfg(unix)]
use crate::api::server::Unix;
use crate::api::server::{Datagram, Family, Kind, Server, Stream};
use crate::connection::wrapping::Wraps;
use crate::lifecycle::handle::ServerHandle;
#[cfg(all(unix, feature = "signals"))]
use crate::lifecycle::signals::Signals;
use crate::limits::{DeadlineKind, Limits, WhenFull};
#[cfg(unix)]
use crate::models::forking::ForkingMixIn;
use crate::models::pool::{ThreadPoolMixIn, WhenQueueFull};
#[cfg(unix)]
use crate::models::prefork::PreforkMixIn;
#[cfg(unix)]
use crate::models::selector::SelectorMixIn;
use crate::models::threading::ThreadingMixIn;
use crate::os::bound_path::BoundPath;
use crate::request::core::{Core, HandlerFactory};
use crate::request::datagram_handler::DatagramRequestHandler;
use crate::request::hooks::{Defaults, ServerHooks};
use crate::request::stream_handler::StreamRequestHandler;

/// A server before it is bound: its class variables can still be set.
///
/// Python: `bind_and_activate=False` and assignments to class variables. Here a
/// server that is not bound cannot serve, and one that serves cannot be changed.
///
/// | setter | default | Python |
/// | --- | --- | --- |
/// | [`allow_reuse_address`](Self::allow_reuse_address) | false | the same |
/// | [`allow_reuse_port`](Self::allow_reuse_port) | false | the same |
/// | [`request_queue_size`](Self::request_queue_size) | 128 | 5 |
/// | [`timeout`](Self::timeout) | none | the same; 300 s when forking |
/// | [`poll_interval`](Self::poll_interval) | 0.5 s, only with `service_actions` | 0.5 s always |
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
    wraps: Wraps,
    mixin: M,
    options: Options,
    settings: Settings,
    limits: Limits,
    #[cfg(all(unix, feature = "signals"))]
    drain_on_signals: Option<Duration>,
    kind: PhantomData<fn() -> K>,
}

impl<F: Family, M: MixIn + Default> Server<Stream<F>, M> {
    /// Makes a server that listens on `address` and serves each connection with
    /// a handler of its own.
    ///
    /// Python: `TCPServer(server_address, RequestHandlerClass)`. System calls:
    /// socket(2), bind(2), listen(2). `handler` makes a handler for each
    /// connection: `|| Echo`, or [`handler_fn`](crate::handler_fn) of a closure.
    ///
    /// # Errors
    ///
    /// An [`AddressError`](sock::AddressError) that names the address, with the system's inside; those
    /// of [`ToAddress`]. No descriptor is left open.
    pub fn new<H: StreamRequestHandler>(
        address: impl ToAddress,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::builder(handler).bind(address)
    }

    /// Begins a server whose class variables or hooks differ from the defaults.
    pub fn builder<H: StreamRequestHandler>(
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> Builder<Stream<F>, M> {
        Builder::begin(HandlerFactory::Stream(Box::new(move || Box::new(handler()))))
    }
}

impl<F: Family, M: MixIn + Default> Server<Datagram<F>, M> {
    /// Makes a server that receives datagrams on `address` and serves each with
    /// a handler of its own.
    ///
    /// Python: `UDPServer(server_address, RequestHandlerClass)`. System calls:
    /// socket(2), bind(2). `handler` makes a handler for each datagram.
    ///
    /// # Errors
    ///
    /// An [`AddressError`](sock::AddressError) that names the address, with the system's inside; those
    /// of [`ToAddress`]. No descriptor is left open.
    pub fn new<H: DatagramRequestHandler>(
        address: impl ToAddress,
        handler: impl Fn() -> H + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::builder(handler).bind(address)
    }

    /// Begins a server whose class variables or hooks differ from the defaults.
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
            wraps: Wraps::not_there(),
            mixin: M::default(),
            options: Options {
                allow_reuse_address: false,
                allow_reuse_port: false,
                ipv6_only: false,
                request_queue_size: 128,
                unix_mode: None,
            },
            limits: Limits::default(),
            #[cfg(all(unix, feature = "signals"))]
            drain_on_signals: None,
            settings: Settings {
                timeout: None,
                poll_interval: Duration::from_millis(500),
                max_packet_size: 8192,
                max_batch: 1,
            },
            kind: PhantomData,
        }
    }

    /// Replaces steps of the server. Python: overriding methods in a subclass.
    pub fn hooks(mut self, hooks: impl ServerHooks) -> Self {
        fn wraps_of<H: ServerHooks>(_: &H) -> Wraps {
            Wraps::of::<H>()
        }
        self.wraps = wraps_of(&hooks);
        self.hooks = Box::new(hooks);
        self
    }

    /// Replaces the mixin by one that was made with its own options.
    pub fn mixin(mut self, mixin: M) -> Self {
        self.mixin = mixin;
        self
    }

    /// Whether a restart at once may bind the port while old connections linger
    /// (`SO_REUSEADDR`).
    pub fn allow_reuse_address(mut self, allow: bool) -> Self {
        self.options.allow_reuse_address = allow;
        self
    }

    /// Whether a server for `::` leaves IPv4 alone. By default it takes both, IPv4
    /// clients as `::ffff:a.b.c.d`.
    pub fn ipv6_only(mut self, ipv6_only: bool) -> Self {
        self.options.ipv6_only = ipv6_only;
        self
    }

    /// Whether several servers may share the port (`SO_REUSEPORT`).
    pub fn allow_reuse_port(mut self, allow: bool) -> Self {
        self.options.allow_reuse_port = allow;
        self
    }

    /// How long `handle_request` waits for a request, `None` for ever;
    /// `serve_forever` does not care.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.timeout = Some(timeout.into());
        self
    }

    /// How often `service_actions` is called at least, if somebody has
    /// overridden it. Python: the argument of `serve_forever`.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.settings.poll_interval = interval;
        self
    }

    /// How many requests may be served at once; a request is a connection, or a
    /// datagram. The limit is exact: leave is taken before a client is accepted.
    /// Default 10,000; 0 counts as 1.
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.limits.max_connections = max_connections.max(1);
        self
    }

    /// What happens to clients beyond that. By default they wait in the queue.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.limits.when_full = when_full;
        self
    }

    /// Has the first SIGTERM or SIGINT drain the server, for up to `limit`, and the
    /// second stop it now; `serve_forever` returns then. Unix only, feature
    /// `signals`.
    ///
    /// The signals are caught from the moment the server is made until it is closed, and
    /// are then what they were before: handled by the program, or the process's end. A
    /// program that wants to handle them itself later has to do so from before the first
    /// server on.
    /// A thread waits for them, or in a forking server the loop. If the loop itself
    /// is stuck in a handler that does not return, as a `TCPServer`'s may be, the
    /// process ends with status 1.
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

    /// How long closing the server waits for requests that still run; `None` for as
    /// long as it takes, as in Python. Default one minute.
    pub fn close_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.limits.close_timeout = timeout.into();
        self
    }

    /// Makes the server: socket, options, `server_bind`, `server_activate`.
    ///
    /// # Errors
    ///
    /// An [`AddressError`](sock::AddressError) that names the address, with the
    /// system's inside; those of [`ToAddress`]. No descriptor is left open.
    pub fn bind(self, address: impl ToAddress) -> io::Result<Server<K, M>> {
        self.bind_all([address])
    }

    /// [`bind`](Self::bind) to several addresses: one server with a socket for each.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind), for the first address that fails;
    /// `InvalidInput` for no address at all.
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
            // Before it listens: what a client inherits is settled when it connects.
            inherits &= self.passes_timeouts_on(&listener.socket);
            self.activate(&listener.socket, &address)?;
            drop(listener.turn.take());
            listeners.push(listener);
        }
        self.server(listeners, inherits, true)
    }

    /// Makes the server of sockets that are bound already: from a parent process,
    /// from systemd, from an older version of the program.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a socket of another kind or family, and for none at all;
    /// those of listen(2).
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
            let sentence = "unix_mode is of no effect on sockets that are bound already";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let mut listeners = Vec::new();
        for socket in sockets {
            if socket.kind() != K::SOCKET_TYPE {
                let sentence = format!("{socket:?} is not of {}, the server is", K::SOCKET_TYPE);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
            }
            let address = K::Family::address(&socket.getsockname()?)?;
            self.activate(&socket, &address)?;
            listeners.push(Listener { path: None, socket, turn: None });
        }
        // Clients may wait already that have inherited something else.
        self.server(listeners, false, false)
    }

    fn passes_timeouts_on(&self, socket: &Socket) -> bool {
        let receive = match self.mixin.forks_per_request() {
            true => self.limits.of_receive(DeadlineKind::FirstByte),
            false => self.limits.read_timeout,
        };
        matches!(self.service, HandlerFactory::Stream(_))
            && listener::inherits_timeouts(socket, receive, self.limits.write_timeout)
    }

    fn activate(&self, socket: &Socket, address: &Address) -> io::Result<()> {
        if let HandlerFactory::Stream(_) = self.service {
            let activated = self.hooks.server_activate(socket, self.options.request_queue_size);
            activated.map_err(|error| sock::AddressError::wrap("listen on", address, error))?;
            // Accepting is tried first and waited for only then; the datagram
            // socket stays as it is, since handlers answer through it.
            socket.setblocking(false)?;
        }
        Ok(())
    }

    fn server(
        self,
        listeners: Vec<Listener>,
        inherits_timeouts: bool,
        ours: bool,
    ) -> io::Result<Server<K, M>> {
        if listeners.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a server needs an address"));
        }
        let calls =
            [("read_timeout", self.limits.read_timeout), ("write_timeout", self.limits.write_timeout)];
        if let Some((name, _)) = calls.iter().find(|(_, timeout)| *timeout == Some(Duration::ZERO)) {
            let sentence = format!("{name} must not be zero; None switches it off");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let server_addresses = listeners.iter().map(|listener| listener.socket.getsockname());
        let server_addresses = server_addresses.collect::<io::Result<Vec<_>>>()?;
        let lifts_read_limit = self.wraps.is_not_there() && self.limits.idle_covers_read();
        let handle = ServerHandle::new(self.limits)?;
        let (sockets, paths): (Vec<_>, Vec<_>) =
            listeners.into_iter().map(|listener| (Arc::new(listener.socket), listener.path)).unzip();
        if matches!(self.service, HandlerFactory::Stream(_)) && ours {
            // Sockets that others use too are theirs to close.
            handle.set_listeners_to_shut_down(&sockets);
        }
        if self.mixin.forks() {
            handle.registry().deadline_timer.forbid();
        }
        let core = Core {
            service: Arc::new(self.service),
            hooks: Arc::from(self.hooks),
            handle,
            inherits_timeouts,
            inherits_first_byte: self.mixin.forks_per_request(),
            lifts_read_limit,
            wraps: self.wraps,
        };
        let paths = Arc::new(Mutex::new(paths.into_iter().flatten().collect::<Vec<BoundPath>>()));
        #[cfg(all(unix, feature = "signals"))]
        let signals = self.drain_on_signals.map(Signals::catch).transpose()?;
        #[cfg(all(unix, feature = "signals"))]
        if let Some(signals) = signals.as_ref().filter(|_| !self.mixin.forks()) {
            signals.watch(core.handle.clone(), Arc::clone(&paths))?;
        }
        Ok(Server {
            core: Arc::new(core),
            sockets,
            paths,
            #[cfg(all(unix, feature = "signals"))]
            signals,
            server_addresses,
            mixin: self.mixin,
            settings: self.settings,
            kind: PhantomData,
        })
    }
}

/// Sets a deadline of a server for connections; `None` switches it off.
macro_rules! deadlines {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, timeout: impl Into<Option<Duration>>) -> Self {
            self.limits.$name = timeout.into();
            self
        }
    )*};
}

/// Limits and deadlines of servers for connections.
///
/// They are on by default, and only ever end one connection. Those of the whole
/// server are kept to within a tenth of the shortest, and 250 ms at most. `None`
/// switches a deadline off. Time is monotonic: the clock on the wall may jump.
impl<F: Family, M: MixIn> Builder<Stream<F>, M> {
    deadlines! {
        /// For [`wrap_request`](ServerHooks::wrap_request), such as a TLS handshake.
        /// Default 10 s.
        wrap_timeout
        /// Until a client has sent its first byte, or been sent one. Default 30 s.
        first_byte_timeout
        /// Between two requests on a connection. Default 60 s.
        idle_timeout
        /// For each receive (`SO_RCVTIMEO`); not extended by what a client trickles
        /// into another. Default 5 min. A handler's own
        /// [`TIMEOUT`](StreamRequestHandler::TIMEOUT) replaces it.
        read_timeout
        /// For each send (`SO_SNDTIMEO`): a client that reads nothing. Default 60 s.
        write_timeout
        /// For a whole request, from its first byte until the handler returns,
        /// however busy the connection is. Default one hour. In a forking server
        /// it is for all requests of a connection, and ends the child.
        request_timeout
    }

    /// How many connections one IP address may have at once; those beyond are
    /// accepted, told by [`refuse_request`](ServerHooks::refuse_request), and
    /// closed. Default: no limit. An IPv4 client of a dual-stack server counts as
    /// IPv4.
    pub fn max_connections_per_ip(mut self, most: impl Into<Option<usize>>) -> Self {
        self.limits.max_connections_per_ip = most.into();
        self
    }

    /// How long a connection that is closed while its client still sends goes on
    /// reading, so that the answer is not lost with it. Default 2 s; zero for not
    /// at all. A stream on top, such as TLS, ends within it as well, whatever the
    /// socket's timeout: see [`set_close_timeout`](sock::StreamSocket::set_close_timeout).
    pub fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.limits.linger_timeout = timeout;
        self
    }
}

/// Class variables of servers with Unix sockets.
#[cfg(unix)]
impl<M: MixIn> Builder<Stream<Unix>, M> {
    /// Permissions of the socket's path, such as `0o660`; by default what the umask
    /// leaves of `0o777`.
    ///
    /// The path is created with them, and never open to more, not even for a moment. The
    /// umask does not count; a default ACL of the directory does, and may take bits away.
    /// An address without a path cannot be bound then, nor a socket adopted.
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.options.unix_mode = Some(mode);
        self
    }
}

/// Class variables of servers with Unix sockets.
#[cfg(unix)]
impl<M: MixIn> Builder<Datagram<Unix>, M> {
    /// Permissions of the socket's path, such as `0o660`; by default what the umask
    /// leaves of `0o777`.
    ///
    /// The path is created with them, and never open to more, not even for a moment. The
    /// umask does not count; a default ACL of the directory does, and may take bits away.
    /// An address without a path cannot be bound then, nor a socket adopted.
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.options.unix_mode = Some(mode);
        self
    }
}

/// Class variables of servers for connections.
impl<F: Family, M: MixIn> Builder<Stream<F>, M> {
    /// How many connections may wait to be accepted (listen(2)). Python's
    /// default is 5, which a burst of clients overruns.
    pub fn request_queue_size(mut self, size: i32) -> Self {
        self.options.request_queue_size = size;
        self
    }
}

/// Class variables of servers for datagrams.
impl<F: Family, M: MixIn> Builder<Datagram<F>, M> {
    /// Longest datagram; what is longer is cut.
    pub fn max_packet_size(mut self, size: usize) -> Self {
        self.settings.max_packet_size = size;
        self
    }
}

/// Class variables of servers that answer datagrams in their loop.
impl<F: Family> Builder<Datagram<F>, Sequential> {
    /// How many datagrams are received, and answered, with one system call. Under
    /// load that saves most of the calls; an answer then waits for the others of its
    /// batch. Default 1. System calls: recvmmsg(2), sendmmsg(2).
    pub fn max_batch(mut self, datagrams: usize) -> Self {
        self.settings.max_batch = datagrams.max(1);
        self
    }
}

/// Class variables of [`ThreadingMixIn`].
impl<K: Kind> Builder<K, ThreadingMixIn> {
    /// See [`ThreadingMixIn::daemon_threads`].
    pub fn daemon_threads(mut self, daemon_threads: bool) -> Self {
        self.mixin = self.mixin.daemon_threads(daemon_threads);
        self
    }

    /// See [`ThreadingMixIn::stack_size`].
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.mixin = self.mixin.stack_size(bytes);
        self
    }

    /// How many threads may run at once; clients beyond that wait in the listener's
    /// queue. Another name for [`max_connections`](Self::max_connections), since
    /// each request has a thread.
    pub fn max_threads(self, max_threads: usize) -> Self {
        self.max_connections(max_threads)
    }

    /// See [`ThreadingMixIn::block_on_close`].
    pub fn block_on_close(mut self, block_on_close: bool) -> Self {
        self.mixin = self.mixin.block_on_close(block_on_close);
        self
    }
}

/// Class variables of [`ForkingMixIn`].
#[cfg(unix)]
impl<K: Kind> Builder<K, ForkingMixIn> {
    /// See [`ForkingMixIn::max_children`].
    pub fn max_children(mut self, max_children: usize) -> Self {
        self.mixin = self.mixin.max_children(max_children);
        self
    }

    /// See [`ForkingMixIn::block_on_close`].
    pub fn block_on_close(mut self, block_on_close: bool) -> Self {
        self.mixin = self.mixin.block_on_close(block_on_close);
        self
    }
}

/// Class variables of [`ThreadPoolMixIn`].
impl<K: Kind> Builder<K, ThreadPoolMixIn> {
    /// See [`ThreadPoolMixIn::workers`].
    pub fn workers(mut self, workers: usize) -> Self {
        self.mixin = self.mixin.workers(workers);
        self
    }

    /// See [`ThreadPoolMixIn::queue`].
    pub fn queue(mut self, length: usize, when_full: WhenQueueFull) -> Self {
        self.mixin = self.mixin.queue(length, when_full);
        self
    }
}

/// Class variables of [`PreforkMixIn`].
#[cfg(unix)]
impl<K: Kind> Builder<K, PreforkMixIn> {
    /// See [`PreforkMixIn::workers`].
    pub fn workers(mut self, workers: usize) -> Self {
        self.mixin = self.mixin.workers(workers);
        self
    }

    /// See [`PreforkMixIn::max_requests`].
    pub fn max_requests(mut self, max_requests: u64, jitter: u64) -> Self {
        self.mixin = self.mixin.max_requests(max_requests, jitter);
        self
    }

    /// See [`PreforkMixIn::heartbeat`].
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.mixin = self.mixin.heartbeat(heartbeat);
        self
    }
}

/// Class variables of [`SelectorMixIn`].
#[cfg(unix)]
impl<K: Kind> Builder<K, SelectorMixIn> {
    /// See [`SelectorMixIn::workers`].
    pub fn workers(mut self, workers: usize) -> Self {
        self.mixin = self.mixin.workers(workers);
        self
    }

    /// See [`SelectorMixIn::max_workers`].
    pub fn max_workers(mut self, max_workers: usize) -> Self {
        self.mixin = self.mixin.max_workers(max_workers);
        self
    }
}
