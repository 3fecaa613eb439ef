//! The builder: Python's class variables as setters, and `bind` at its end.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use sock::{Address, AddressError, Socket, ToAddress};

use crate::datagram::DatagramRequestHandler;
use crate::handle::ServerHandle;
use crate::handler::StreamRequestHandler;
use crate::hooks::{Defaults, ServerHooks};
use crate::job::{Core, Service};
use crate::mixin::MixIn;
#[cfg(unix)]
use crate::mixin::forking::ForkingMixIn;
use crate::mixin::threading::ThreadingMixIn;
use crate::server::{Datagram, Family, Kind, Server, Settings, Stream};

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
/// | [`daemon_threads`](Builder::daemon_threads) | false | the same |
/// | [`max_children`](Builder::max_children) | 40 | the same |
/// | [`block_on_close`](Builder::block_on_close) | true | the same |
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
    service: Service,
    hooks: Box<dyn ServerHooks>,
    mixin: M,
    allow_reuse_address: bool,
    allow_reuse_port: bool,
    request_queue_size: i32,
    settings: Settings,
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
    /// An [`AddressError`] that names the address, with the system's inside; those
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
        Builder::begin(Service::Stream(Box::new(move || Box::new(handler()))))
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
    /// An [`AddressError`] that names the address, with the system's inside; those
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
        Builder::begin(Service::Datagram(Box::new(move || Box::new(handler()))))
    }
}

impl<K: Kind, M: MixIn> Builder<K, M> {
    fn begin(service: Service) -> Self
    where
        M: Default,
    {
        Builder {
            service,
            hooks: Box::new(Defaults),
            mixin: M::default(),
            allow_reuse_address: false,
            allow_reuse_port: false,
            request_queue_size: 128,
            settings: Settings {
                timeout: None,
                poll_interval: Duration::from_millis(500),
                max_packet_size: 8192,
            },
            kind: PhantomData,
        }
    }

    /// Replaces steps of the server. Python: overriding methods in a subclass.
    pub fn hooks(mut self, hooks: impl ServerHooks) -> Self {
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
        self.allow_reuse_address = allow;
        self
    }

    /// Whether several servers may share the port (`SO_REUSEPORT`).
    pub fn allow_reuse_port(mut self, allow: bool) -> Self {
        self.allow_reuse_port = allow;
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

    /// Makes the server: socket, options, `server_bind`, `server_activate`.
    ///
    /// # Errors
    ///
    /// An [`AddressError`] that names the address, with the system's inside; those
    /// of [`ToAddress`]. No descriptor is left open.
    pub fn bind(self, address: impl ToAddress) -> io::Result<Server<K, M>> {
        let address = K::Family::address(&address)?;
        let socket = self.listener(&address)?;
        let server_address = socket.getsockname()?;
        let core = Core { service: self.service, hooks: self.hooks, handle: ServerHandle::new()? };
        Ok(Server {
            core: Arc::new(core),
            socket: Some(Arc::new(socket)),
            server_address,
            mixin: self.mixin,
            settings: self.settings,
            kind: PhantomData,
        })
    }

    fn listener(&self, address: &Address) -> io::Result<Socket> {
        let named = |verb| move |error| AddressError::wrap(verb, address, error);
        let socket = Socket::new(address.family(), K::SOCKET_TYPE, 0).map_err(named("socket for"))?;
        if self.allow_reuse_address {
            socket.set_reuse_address(true).map_err(named("set_reuse_address on"))?;
        }
        if self.allow_reuse_port {
            socket.set_reuse_port(true).map_err(named("set_reuse_port on"))?;
        }
        self.hooks.server_bind(&socket, address).map_err(named("bind"))?;
        if let Service::Stream(_) = self.service {
            self.hooks.server_activate(&socket, self.request_queue_size).map_err(named("listen on"))?;
            // Accepting is tried first and waited for only then; the datagram
            // socket stays as it is, since handlers answer through it.
            socket.setblocking(false)?;
        }
        Ok(socket)
    }
}

/// Class variables of servers for connections.
impl<F: Family, M: MixIn> Builder<Stream<F>, M> {
    /// How many connections may wait to be accepted (listen(2)). Python's
    /// default is 5, which a burst of clients overruns.
    pub fn request_queue_size(mut self, size: i32) -> Self {
        self.request_queue_size = size;
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

/// Class variables of [`ThreadingMixIn`].
impl<K: Kind> Builder<K, ThreadingMixIn> {
    /// See [`ThreadingMixIn::daemon_threads`].
    pub fn daemon_threads(mut self, daemon_threads: bool) -> Self {
        self.mixin = self.mixin.daemon_threads(daemon_threads);
        self
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
