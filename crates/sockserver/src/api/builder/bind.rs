//! From the options to a server: checks, sockets, and what its requests share.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use sock::{Address, Socket, ToAddress};

use super::{Builder, metrics};
use crate::accept::acceptor::Settings;
use crate::accept::listener::{self, Listener};
use crate::accept::mixin::MixIn;
use crate::api::kind::{Family, Kind};
use crate::api::server::Server;
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::signals::Signals;
use crate::limits::Limits;
use crate::limits::ranges::{self, Octal};
use crate::limits::request_quota::RequestQuota;
use crate::os::bound_path::BoundPath;
use crate::request::core::{Core, HandlerFactory};
use crate::request::hooks::{ServerHooks, call_with_states};
use crate::request::{RequestError, catch_panic};

/// Creating the server.
impl<K: Kind, M: MixIn> Builder<K, M> {
    /// Creates the socket, binds it to `address`, and creates the server.
    ///
    /// It sets the socket options and calls the hooks `server_bind` and `server_activate`.
    ///
    /// # Errors
    ///
    /// Returns an [`AddressError`](sock::AddressError) if a system call or one of the two hooks
    /// fails, the error of [`ToAddress`] if the address cannot be resolved, and an error of kind
    /// `InvalidInput` if a deadline is zero, a timeout is negative or NaN, or a number is out of
    /// the range that its setter names. The error names the setter. No descriptor is left open.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).bind(("127.0.0.1", 0))?;
    /// let error = TCPServer::builder(handler_fn(|_| Ok(()))).bind(server.server_address()).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn bind(self, address: impl ToAddress) -> io::Result<Server<K, M>> {
        self.bind_all([address])
    }

    /// Creates one server with a socket for each of several addresses.
    ///
    /// # Errors
    ///
    /// Returns an error if [`bind`](Self::bind) fails for one of the addresses, and an error of
    /// kind `InvalidInput` if there are no addresses.
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
        mut self,
        addresses: impl IntoIterator<Item = A>,
    ) -> io::Result<Server<K, M>> {
        self.check_options()?;
        let (mut listeners, mut inherits) = (Vec::new(), true);
        for address in addresses {
            let address = K::Family::address(&address)?;
            let listener = listener::bind(&address, K::SOCKET_TYPE, &self.options, &*self.hooks)?;
            self.settings.packet_info |= self.request_packet_info(&listener.socket, &address)?;
            // Set before listen(2), because a connection inherits the options at its creation.
            inherits &= self.set_inherited_write_timeout(&listener.socket);
            self.activate(&listener.socket, &address)?;
            listeners.push(listener);
        }
        self.server(listeners, inherits, true)
    }

    /// Creates the server from sockets that are already bound, for example by systemd or a parent
    /// process.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if a socket has another kind or family than the
    /// server, if there are no sockets, or if [`unix_mode`](Builder::unix_mode) was set. Returns
    /// the error of listen(2) if that fails.
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
        self.adopt_with(sockets.into_iter().map(|socket| (socket, None)))
    }

    /// Adopts sockets and the paths that this server is to remove.
    pub(super) fn adopt_with(
        mut self,
        sockets: impl Iterator<Item = (Socket, Option<BoundPath>)>,
    ) -> io::Result<Server<K, M>> {
        self.check_options()?;
        if self.options.unix_mode.is_some() {
            let sentence = "unix_mode cannot be applied to a bound socket";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let mut listeners = Vec::new();
        for (socket, path) in sockets {
            if socket.kind() != K::SOCKET_TYPE {
                let sentence = format!("expected a {} socket, got {socket:?}", K::SOCKET_TYPE);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
            }
            let address = K::Family::address(&socket.getsockname()?)?;
            self.settings.packet_info |= self.request_packet_info(&socket, &address)?;
            self.activate(&socket, &address)?;
            listeners.push(Listener { path, socket });
        }
        // Clients that are already queued may have inherited other timeouts.
        self.server(listeners, false, false)
    }

    /// Checks the values of all setters, before anything is created.
    pub(super) fn check_options(&self) -> io::Result<()> {
        let Settings { max_packet_size, max_batch, .. } = self.settings;
        ranges::check("max_packet_size", max_packet_size, &ranges::PACKET_SIZE)?;
        ranges::check("max_batch", max_batch, &ranges::BATCH)?;
        let bytes = max_batch * max_packet_size;
        ranges::check("max_batch times max_packet_size", bytes, &ranges::BATCH_BYTES)?;
        if let Some(mode) = self.options.unix_mode {
            ranges::check("unix_mode", Octal(mode), &ranges::MODE)?;
        }
        if let Some(proxies) = &self.proxy_protocol {
            proxies.check_options()?;
        }
        self.admission.check()?;
        self.mixin.check_options()
    }

    /// Sets `write_timeout` on a listener. Returns whether accepted sockets inherit it.
    fn set_inherited_write_timeout(&self, socket: &Socket) -> bool {
        matches!(self.service, HandlerFactory::Stream(_))
            && listener::set_inherited_write_timeout(socket, self.limits.write_timeout)
    }

    /// Requests the address that each datagram is sent to, if the socket is bound to all
    /// addresses. Returns whether datagrams have it.
    fn request_packet_info(&self, socket: &Socket, address: &Address) -> io::Result<bool> {
        match self.service {
            HandlerFactory::Datagram(_) => listener::request_packet_info(socket, address),
            HandlerFactory::Stream(_) => Ok(false),
        }
    }

    fn activate(&self, socket: &Socket, address: &Address) -> io::Result<()> {
        if let HandlerFactory::Stream(_) = self.service {
            let activated = self.hooks.server_activate(socket, self.options.request_queue_size);
            activated.map_err(|error| sock::AddressError::new("listen on", address, error))?;
            // accept(2) is tried before waiting.
            socket.setblocking(false)
        } else {
            // Handlers send through it, so it blocks. With a timeout, such as the program's default,
            // each attempt to receive would wait.
            match socket.gettimeout() {
                Some(timeout) if timeout > Duration::ZERO => socket.settimeout(None),
                _ => Ok(()),
            }
        }
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
        if let Some(error) = self.invalid_option {
            return Err(error);
        }
        let Limits { wrap_timeout, first_byte_timeout, idle_timeout, .. } = self.limits;
        let Limits { read_timeout, write_timeout, request_timeout, .. } = self.limits;
        let deadlines = [
            ("wrap_timeout", wrap_timeout),
            ("first_byte_timeout", first_byte_timeout),
            ("idle_timeout", idle_timeout),
            ("read_timeout", read_timeout),
            ("write_timeout", write_timeout),
            ("request_timeout", request_timeout),
        ];
        if let Some((name, _)) = deadlines.iter().find(|(_, timeout)| *timeout == Some(Duration::ZERO)) {
            let sentence = format!("{name} must not be zero (None disables it)");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
        }
        let server_addresses = listeners.iter().map(|listener| listener.socket.getsockname());
        let server_addresses = server_addresses.collect::<io::Result<Vec<_>>>()?;
        let mut limits = self.limits;
        limits.proxy_header_timeout =
            self.proxy_protocol.as_ref().map(|proxies| proxies.check(&server_addresses)).transpose()?;
        let admission = self.admission.build(self.mixin.forks())?;
        let handle = ServerHandle::new(limits, admission, self.mixin.forks())?;
        let (sockets, paths): (Vec<_>, Vec<_>) =
            listeners.into_iter().map(|listener| (Arc::new(listener.socket), listener.path)).unzip();
        let hooks: Arc<dyn ServerHooks> = Arc::from(self.hooks);
        // Adopted sockets may be shared with other processes, so they are not shut down.
        handle.set_listeners(&sockets, paths.into_iter().flatten().collect(), !created_here);
        if matches!(self.service, HandlerFactory::Stream(_)) {
            let hooks = Arc::clone(&hooks);
            let accept = move |listener: &Socket| {
                catch_panic(|| hooks.get_request(listener)).map_err(|error| match error {
                    RequestError::Failed(error) => error,
                    _ => io::Error::other("get_request panicked"),
                })
            };
            handle.set_accept(Box::new(accept), self.has_hooks && !self.mixin.forks());
        }
        if self.has_hooks {
            call_with_states(&handle, &hooks);
        }
        if self.mixin.forks() {
            handle.registry().deadline_timer.forbid();
        }
        #[cfg(unix)]
        self.handover.begin(&handle, &self.mixin)?;
        if let Some(address) = self.admin {
            metrics::begin_admin(address?, &handle)?;
        }
        let core = Core {
            service: Arc::new(self.service),
            hooks,
            has_hooks: self.has_hooks,
            proxy_protocol: self.proxy_protocol.map(Arc::new),
            wrap_request: self.wrap_request,
            service_actions: self.service_actions,
            handle,
            inherits_write_timeout,
            quota: RequestQuota::default(),
        };
        let signals = match (self.drain_on_signals, self.manages_workers) {
            (None, false) => None,
            (limit, manages_workers) => Some(Signals::catch(limit, manages_workers)?),
        };
        Ok(Server {
            core: Arc::new(core),
            sockets,
            signals,
            server_addresses,
            mixin: self.mixin,
            settings: self.settings,
            kind: PhantomData,
        })
    }
}
