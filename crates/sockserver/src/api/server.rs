//! The server: one engine for connections and datagrams.
//!
//! This file is the journey of a request, seen from the top: the loop is
//! [`AcceptLoop::run_once`](crate::AcceptLoop::run_once), the worker's part [`Job::step`](crate::Job::step).

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sock::{
    AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, Address, AddressError, RawFd, SOCK_DGRAM, SOCK_STREAM, Socket,
    SocketKind, ToAddress,
};

use crate::accept::acceptor::{Acceptor, Settings};
use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::MixIn;
use crate::lifecycle::handle::ServerHandle;
#[cfg(all(unix, feature = "signals"))]
use crate::lifecycle::signals::Signals;
use crate::limits::drain_report::DrainReport;
use crate::limits::stats::Stats;
use crate::os::bound_path::BoundPath;
use crate::request::core::Core;
use crate::request::hooks::ServerHooks;
use crate::request::{RequestError, catch_panic};

/// A server of kind `K` whose requests run where the mixin `M` says.
///
/// Python: `socketserver.BaseServer`. Its names are in the directory of
/// [classes](crate#classes), such as [`ThreadingTCPServer`](crate::ThreadingTCPServer).
///
/// Its life:
///
/// 1. [`new`](Server::new), or [`builder`](Server::builder) … `bind`: the socket is
///    made, bound and listens.
/// 2. [`serve_forever`](Server::serve_forever) serves until
///    [`ServerHandle::shutdown`]; it may be called again after that.
///    [`handle_request`](Server::handle_request) serves a single one.
/// 3. [`server_close`](Server::server_close), or dropping it, closes the socket
///    and waits for the requests that still run.
pub struct Server<K, M: MixIn> {
    pub(crate) core: Arc<Core>,
    /// Empty once the server is closed.
    pub(crate) sockets: Vec<Arc<Socket>>,
    pub(crate) paths: Arc<Mutex<Vec<BoundPath>>>,
    #[cfg(all(unix, feature = "signals"))]
    pub(crate) signals: Option<Signals>,
    pub(crate) server_addresses: Vec<Address>,
    pub(crate) mixin: M,
    pub(crate) settings: Settings,
    pub(crate) kind: PhantomData<fn() -> K>,
}

impl<K: Kind, M: MixIn> Server<K, M> {
    /// Serves requests until the server is shut down.
    ///
    /// Python: `serve_forever()`. System calls: accept4(2) for each connection,
    /// poll(2) when there is none. It sleeps until there is something to do: an
    /// idle server makes no wake-ups, and [`ServerHandle::shutdown`] ends it at
    /// once (Python looks twice a second).
    ///
    /// # Errors
    ///
    /// The listener's, when it is of no more use; the mixin's, such as that of a
    /// forking server beside other threads; `ResourceBusy` when it runs already.
    pub fn serve_forever(&self) -> io::Result<()> {
        let registry = self.core.registry();
        let serving = self.core.handle.begin()?;
        // A drain before the start has come for this loop.
        if registry.is_draining() {
            drop(serving);
            registry.wait_for_drains();
            return Ok(());
        }
        log::debug!("serving {}", self.server_address());
        let ended = self.mixin.serve(&self.accept_loop());
        drop(serving);
        self.drain_if_a_signal_says_so();
        registry.wait_for_drains();
        log::debug!("stopped serving {}: {}", self.server_address(), registry.stats());
        ended.map_err(|error| AddressError::wrap("serve", self.server_address(), error))
    }

    /// Serves one request.
    ///
    /// Python: `handle_request()`. It waits up to the server's `timeout` (by
    /// default for ever, 300 s in a forking server), and then calls `handle_timeout` and returns.
    /// After a drain there are no more requests, and it returns at once: who calls it in
    /// a loop looks at [`drained`](Server::drained).
    ///
    /// # Errors
    ///
    /// The listener's, when it is of no more use.
    pub fn handle_request(&self) -> io::Result<()> {
        let timeout = self.settings.timeout.unwrap_or_else(|| self.mixin.timeout());
        // Of a batch all but the first would be lost.
        let settings = Settings { max_batch: 1, ..self.settings };
        let served = self.acceptor_with(settings).one_request(timeout);
        if !served.map_err(|error| AddressError::wrap("serve", self.server_address(), error))? {
            if let Err(error) = self.call(|hooks| hooks.handle_timeout()) {
                log::error!("handle_timeout {error}");
            }
            self.mixin.handle_timeout();
        }
        if self.drained().is_none() {
            self.drain_if_a_signal_says_so();
        }
        Ok(())
    }

    /// A handle that stops this server from anywhere.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.core.handle.clone()
    }

    /// Ends `serve_forever` in another thread and waits for it: see
    /// [`ServerHandle::shutdown`]. Python: `shutdown()`.
    ///
    /// # Errors
    ///
    /// Those of [`ServerHandle::shutdown`].
    pub fn shutdown(&self) -> io::Result<()> {
        self.core.handle.shutdown()
    }

    /// Stops the server gracefully: see [`ServerHandle::drain`]. In a forking server
    /// this one is to be used, after `serve_forever` has returned: it collects the
    /// children.
    ///
    /// # Errors
    ///
    /// Those of [`ServerHandle::drain`].
    pub fn drain(&self, limit: Duration) -> io::Result<DrainReport> {
        self.drain_while(limit, &|| false)
    }

    fn drain_while(&self, limit: Duration, hurry: &dyn Fn() -> bool) -> io::Result<DrainReport> {
        let handle = &self.core.handle;
        if self.mixin.forks() {
            handle.request_shutdown()?;
            handle.shut_down_listeners();
            if let Some(report) = self.mixin.drain_workers(limit, hurry) {
                self.core.registry().set_report(report.clone());
                return Ok(report);
            }
        }
        handle.drain_while(limit, hurry, &|| self.mixin.service_actions())
    }

    /// How many requests came, and what became of them: see [`ServerHandle::stats`].
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.core.handle.stats()
    }

    /// Closes the server and waits for the requests that still run, as the mixin
    /// says, and no longer than [`close_timeout`](crate::Builder::close_timeout).
    ///
    /// Python: `server_close()`. System call: close(2). Dropping the server does
    /// the same.
    ///
    /// # Errors
    ///
    /// The mixin's; a panic of the hook `server_close`, after which the rest is closed
    /// all the same.
    pub fn server_close(mut self) -> io::Result<()> {
        self.close()
    }

    /// The address the server is bound to, with the port that was picked for 0; the
    /// first of several. Python: the attribute `server_address`.
    #[must_use]
    pub fn server_address(&self) -> &Address {
        &self.server_addresses[0]
    }

    /// Every address the server is bound to.
    #[must_use]
    pub fn server_addresses(&self) -> &[Address] {
        &self.server_addresses
    }

    /// The server's socket, the first of several. Python: the attribute `socket`.
    /// Its mode is the server's business: one that is made to block makes the loop
    /// block.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.sockets[0]
    }

    /// The socket's descriptor. Python: `fileno()`.
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.socket().fileno()
    }

    /// The mixin, for what it tells of itself.
    #[must_use]
    pub fn mixin(&self) -> &M {
        &self.mixin
    }

    /// What the last drain came to; `None` if there was none. After `serve_forever`
    /// it tells a `main` whether somebody was cut off.
    #[must_use]
    pub fn drained(&self) -> Option<DrainReport> {
        self.core.registry().last_report()
    }

    #[cfg(all(unix, feature = "signals"))]
    fn drain_if_a_signal_says_so(&self) {
        let Some(signals) = &self.signals else { return };
        if let Some(limit) = signals.requested_drain() {
            match self.drain_while(limit, &|| signals.second_signal()) {
                Ok(report) if report.aborted.is_empty() => log::info!("{report}"),
                Ok(report) => log::warn!("{report}"),
                Err(error) => log::error!("drain: {error}"),
            }
        }
    }

    #[cfg(not(all(unix, feature = "signals")))]
    fn drain_if_a_signal_says_so(&self) {}

    fn accept_loop(&self) -> AcceptLoop<'_> {
        self.acceptor_with(self.settings)
    }

    fn acceptor_with(&self, settings: Settings) -> AcceptLoop<'_> {
        let acceptor = Acceptor::new(&self.core, &self.sockets, settings);
        let accept_loop = AcceptLoop::new(acceptor, &self.mixin);
        #[cfg(all(unix, feature = "signals"))]
        let accept_loop = accept_loop.with_signals(self.signals.as_ref().filter(|_| self.mixin.forks()));
        accept_loop
    }
}

impl<K, M: MixIn> Server<K, M> {
    /// Calls a hook; the error is its panic.
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
        // Before the socket is closed: see `BoundPath`.
        self.paths.lock().clear();
        // From here on clients are refused. Workers that still answer datagrams
        // share the socket: the last of them closes it.
        self.sockets.clear();
        let hook = self.call(|hooks| hooks.server_close());
        let closed = self.mixin.server_close(&self.core.handle);
        #[cfg(all(unix, feature = "signals"))]
        drop(self.signals.take());
        self.core.registry().close();
        hook.map_err(|error| io::Error::other(format!("server_close {error}"))).and(closed)
    }
}

impl<K, M: MixIn> Drop for Server<K, M> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::error!("closing {}: {error}", self.server_addresses[0]);
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

/// Serves connections. Python: `socketserver.TCPServer`, `UnixStreamServer`.
pub type StreamServer<F, M> = Server<Stream<F>, M>;

/// Serves datagrams. Python: `socketserver.UDPServer`, `UnixDatagramServer`.
pub type DatagramServer<F, M> = Server<Datagram<F>, M>;

/// Kind of server: connections, in the address family `F`.
pub struct Stream<F>(PhantomData<F>);

/// Kind of server: datagrams, in the address family `F`.
pub struct Datagram<F>(PhantomData<F>);

/// What kinds of servers differ in. Python: the class variables `socket_type`
/// and `address_family`.
pub trait Kind: sealed::Sealed + 'static {
    /// Python: `socket_type`.
    const SOCKET_TYPE: SocketKind;
    /// Python: `address_family`.
    type Family: Family;
}

impl<F: Family> Kind for Stream<F> {
    const SOCKET_TYPE: SocketKind = SOCK_STREAM;
    type Family = F;
}

impl<F: Family> Kind for Datagram<F> {
    const SOCKET_TYPE: SocketKind = SOCK_DGRAM;
    type Family = F;
}

/// Address families of servers.
pub trait Family: sealed::Sealed + 'static {
    /// The address a server of this family binds to.
    ///
    /// # Errors
    ///
    /// Those of [`ToAddress`].
    fn address(address: &dyn ToAddress) -> io::Result<Address>;
}

/// IPv4 or IPv6, as the address says; a name's IPv4 address comes first, as in
/// Python, where IPv6 wants a subclass.
pub struct Inet;

impl Family for Inet {
    fn address(address: &dyn ToAddress) -> io::Result<Address> {
        let address = address.to_address(AF_UNSPEC)?;
        match address.family() {
            AF_INET | AF_INET6 => Ok(address),
            _ => address.to_address(AF_INET),
        }
    }
}

/// Unix sockets.
pub struct Unix;

impl Family for Unix {
    fn address(address: &dyn ToAddress) -> io::Result<Address> {
        address.to_address(AF_UNIX)
    }
}

mod sealed {
    pub trait Sealed {}

    impl<F> Sealed for super::Stream<F> {}
    impl<F> Sealed for super::Datagram<F> {}
    impl Sealed for super::Inet {}
    impl Sealed for super::Unix {}
}
