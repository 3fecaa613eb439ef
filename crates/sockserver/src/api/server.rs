//! The server, for connections and datagrams.
//!
//! The accept loop is [`AcceptLoop::run_once`](crate::AcceptLoop::run_once). A request is served by
//! [`Job::step`](crate::Job::step).

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sock::{Address, AddressError, RawFd, Socket};

use crate::accept::acceptor::Settings;
use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::MixIn;
use crate::api::kind::{Datagram, Kind, Stream};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::signals::Signals;
use crate::limits::drain_report::DrainReport;
use crate::limits::stats::Stats;
use crate::os::bound_path::BoundPath;
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
pub struct Server<K, M: MixIn> {
    pub(crate) core: Arc<Core>,
    /// Empty after the server was closed.
    pub(crate) sockets: Vec<Arc<Socket>>,
    pub(crate) paths: Arc<Mutex<Vec<BoundPath>>>,
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
    pub fn serve_forever(&self) -> io::Result<()> {
        let registry = self.core.registry();
        let serving = self.core.handle.begin()?;
        // The drain was requested before this loop began.
        if registry.is_draining() {
            drop(serving);
            registry.wait_for_drains();
            return Ok(());
        }
        log::debug!("serving {}", self.server_address());
        let ended = self.mixin.serve(&self.accept_loop());
        drop(serving);
        self.drain_on_signal();
        registry.wait_for_drains();
        log::debug!("stopped serving {}: {}", self.server_address(), registry.stats());
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
    pub fn handle_request(&self) -> io::Result<()> {
        let timeout = self.settings.timeout.unwrap_or_else(|| self.mixin.timeout());
        let served = self.accept_loop().one_request(timeout);
        if !served.map_err(|error| AddressError::new("serve", self.server_address(), error))? {
            if let Err(error) = self.call(|hooks| hooks.handle_timeout()) {
                log::error!("handle_timeout hook {error}");
            }
            self.mixin.handle_timeout();
        }
        if self.drained().is_none() {
            self.drain_on_signal();
        }
        Ok(())
    }

    /// Returns a handle, which can stop the server from any thread.
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
    pub fn drain(&self, limit: Duration) -> io::Result<DrainReport> {
        self.drain_while(limit, &|| false)
    }

    fn drain_while(&self, limit: Duration, hurry: &dyn Fn() -> bool) -> io::Result<DrainReport> {
        let handle = &self.core.handle;
        if self.mixin.forks() {
            handle.request_shutdown()?;
            handle.shut_down_listeners();
            let processes = self.mixin.processes();
            if let Some(report) = processes.and_then(|processes| processes.drain_workers(limit, hurry)) {
                self.core.registry().set_report(report.clone());
                return Ok(report);
            }
        }
        handle.drain_while(limit, hurry, &|| self.mixin.service_actions())
    }

    /// Returns the counters of the server's requests. See [`ServerHandle::stats`].
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
    pub fn server_close(mut self) -> io::Result<()> {
        self.close()
    }

    /// Returns the address the server is bound to, the first if there are several. Port 0 has been
    /// replaced by the port the system chose. Python: the attribute `server_address`.
    #[must_use]
    pub fn server_address(&self) -> &Address {
        &self.server_addresses[0]
    }

    /// Returns all addresses the server is bound to.
    #[must_use]
    pub fn server_addresses(&self) -> &[Address] {
        &self.server_addresses
    }

    /// Returns the server's socket, the first if there are several. Python: the attribute `socket`.
    ///
    /// Do not change its blocking mode: a blocking listener blocks the accept loop.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.sockets[0]
    }

    /// Returns the descriptor of [`socket`](Self::socket). Python: `fileno()`.
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.socket().fileno()
    }

    /// Returns the mixin.
    #[must_use]
    pub fn mixin(&self) -> &M {
        &self.mixin
    }

    /// Returns the report of the last drain, `None` if there was none. After `serve_forever` it
    /// says whether requests were aborted.
    #[must_use]
    pub fn drained(&self) -> Option<DrainReport> {
        self.core.registry().last_report()
    }

    fn drain_on_signal(&self) {
        let Some(signals) = &self.signals else { return };
        if let Some(limit) = signals.requested_drain() {
            match self.drain_while(limit, &|| signals.second_signal()) {
                Ok(report) if report.aborted.is_empty() => log::info!("{report}"),
                Ok(report) => log::warn!("{report}"),
                Err(error) => log::error!("cannot drain: {error}"),
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
        // Before the socket is closed: see `BoundPath`.
        self.paths.lock().clear();
        // Clients are refused from here on. Workers that still serve datagrams share the socket,
        // and the last of them closes it.
        self.sockets.clear();
        let hook = self.call(|hooks| hooks.server_close());
        let closed = self.mixin.server_close(&self.core.handle);
        drop(self.signals.take());
        self.core.registry().close();
        hook.map_err(|error| io::Error::other(format!("server_close hook {error}"))).and(closed)
    }
}

impl<K, M: MixIn> Drop for Server<K, M> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::error!("cannot close the server at {}: {error}", self.server_addresses[0]);
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
pub type StreamServer<F, M> = Server<Stream<F>, M>;

/// A server for datagrams, with the mixin `M`. Python: `socketserver.UDPServer`,
/// `UnixDatagramServer`.
pub type DatagramServer<F, M> = Server<Datagram<F>, M>;
