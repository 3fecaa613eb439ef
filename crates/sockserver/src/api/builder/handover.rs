//! The options of a handover.

use std::io;
use std::sync::Arc;

use sock::{AF_UNIX, SOCK_STREAM, Socket, ToAddress};

use super::Builder;
use crate::accept::listener::{self, Listener, Options};
use crate::accept::mixin::MixIn;
use crate::api::handover::{Handover, Inherited, Upgrade};
use crate::api::kind::Kind;
use crate::api::server::Server;
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::handover::offering::{ControlSocket, Offering};
use crate::lifecycle::handover::takeover::{self, Takeover};
#[cfg(feature = "systemd")]
use crate::lifecycle::systemd::{self, Systemd};
use crate::os::bound_path::FileId;
use crate::request::hooks::Defaults;

/// What the setters of this file have set.
#[derive(Default)]
pub(super) struct Settings {
    offered: Option<Handover>,
    upgrade: Option<Upgrade>,
    #[cfg(feature = "systemd")]
    uses_systemd: bool,
    takeover: Option<Takeover>,
    /// The control socket of the predecessor.
    inherited: Option<(Socket, Option<FileId>)>,
}

impl Settings {
    /// Begins what was set.
    pub(super) fn begin(self, server: &ServerHandle, mixin: &dyn MixIn) -> io::Result<()> {
        if let Some(takeover) = self.takeover {
            server.set_holds_accept(true);
            server.duties().add(Box::new(takeover));
        }
        let control = match (self.inherited, self.offered) {
            (Some((socket, file)), offered) => {
                let control = takeover::adopt_control(socket, file)?;
                Some((control, offered.unwrap_or_else(|| Handover::at("")).limits()?))
            }
            (None, Some(handover)) => {
                let limits = handover.limits()?;
                Some((bind_control(&handover.path.to_address(AF_UNIX)?)?, limits))
            }
            (None, None) => None,
        };
        let upgrade = self.upgrade.map(Upgrade::into_trigger).transpose()?;
        if control.is_some() || upgrade.is_some() {
            server.duties().add(Box::new(Offering::new(control, upgrade, mixin.serves_in_loop())));
        }
        #[cfg(feature = "systemd")]
        if self.uses_systemd {
            server.duties().add(Box::new(Systemd::new()));
        }
        Ok(())
    }
}

/// Binds the socket to which successors connect.
fn bind_control(address: &sock::Address) -> io::Result<ControlSocket> {
    let options = Options {
        allow_reuse_address: false,
        allow_reuse_port: false,
        ipv6_only: false,
        request_queue_size: 16,
        unix_mode: Some(0o600),
    };
    let Listener { path, socket } = listener::bind(address, SOCK_STREAM, &options, &Defaults)?;
    socket.listen(options.request_queue_size)?;
    socket.setblocking(false)?;
    Ok(ControlSocket { path, socket: Arc::new(socket) })
}

/// Options of servers that are replaced by another process while they serve.
impl<K: Kind, M: MixIn> Builder<K, M> {
    /// Offers the listeners to a successor, while the server serves. Unix only.
    ///
    /// A thread waits for the successor. In a forking or prefork server the accept loop does. After
    /// the handover the server drains, and `serve_forever` returns. See
    /// [`handover`](crate::handover).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::handover::Handover;
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// # let folder = std::env::temp_dir().join(format!("handover-example-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// # let path = folder.join("socket");
    /// let offer = Handover::at(&path);
    /// let builder = || ThreadingTCPServer::builder(handler_fn(|_| Ok(()))).handover(offer.clone());
    /// // In the first process there is no predecessor, so it binds.
    /// let old = builder().bind_or_take_over(("127.0.0.1", 0))?;
    /// std::thread::scope(|scope| {
    ///     let serving = scope.spawn(|| old.serve_forever());
    ///     // In the second process:
    ///     let new = builder().bind_or_take_over(("127.0.0.1", 0))?;
    ///     assert_eq!(new.server_address(), old.server_address());
    ///     let handle = new.handle();
    ///     scope.spawn(move || new.serve_forever());
    ///     // The first one has handed over, and has drained.
    ///     serving.join().unwrap()?;
    ///     handle.shutdown()
    /// })?;
    /// # std::fs::remove_dir_all(folder)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn handover(mut self, handover: Handover) -> Self {
        self.handover.offered = Some(handover);
        self
    }

    #[cfg(feature = "systemd")]
    fn bind_or_activate(self, address: impl ToAddress) -> io::Result<Server<K, M>> {
        let passed = if self.handover.uses_systemd { systemd::activated()? } else { Vec::new() };
        if passed.is_empty() { self.bind(address) } else { self.adopt(passed) }
    }

    #[cfg(not(feature = "systemd"))]
    fn bind_or_activate(self, address: impl ToAddress) -> io::Result<Server<K, M>> {
        self.bind(address)
    }

    /// Uses the sockets of systemd, and sends it the state of the server. Unix only, with the feature
    /// `systemd`.
    ///
    /// [`bind_or_take_over`](Self::bind_or_take_over) adopts the sockets that systemd has passed
    /// (`LISTEN_FDS`), instead of binding its address. All of them must be of the server's kind.
    /// [`bind`](Self::bind) and [`adopt`](Self::adopt) ignore them.
    ///
    /// Messages are sent to `NOTIFY_SOCKET`, for a unit with `Type=notify`: `READY=1` when the server
    /// serves, `RELOADING=1` with `MONOTONIC_USEC` while a successor gets ready, `MAINPID` and
    /// `READY=1` when it has taken over, and `STOPPING=1` when the loop has ended. `WATCHDOG=1` is
    /// sent at half of `WATCHDOG_USEC`. A thread sends the messages, or the accept loop in the parent
    /// of a forking or prefork server. Without these variables the method has no effect. A
    /// `NOTIFY_SOCKET` with an abstract name is not supported.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .systemd()
    ///     .bind_or_take_over(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    #[cfg(feature = "systemd")]
    pub fn systemd(mut self) -> Self {
        self.handover.uses_systemd = true;
        self
    }

    /// Starts a new version of the program on SIGUSR2, which takes over. Unix only, with the feature
    /// `signals`.
    ///
    /// The new process inherits the listeners. It calls [`bind_or_take_over`](Self::bind_or_take_over),
    /// and the rest is as with [`handover`](Self::handover). If it cannot be started, exits, or is not
    /// ready in time, it is killed, and this server goes on. nginx and gunicorn use the same signal.
    /// The signal is caught from `bind` until the server is closed, and then ignored.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::handover::Upgrade;
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .upgrade_on_signal(Upgrade::to_current_program()?)
    ///     .bind_or_take_over(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    #[cfg(feature = "signals")]
    pub fn upgrade_on_signal(mut self, upgrade: Upgrade) -> Self {
        self.handover.upgrade = Some(upgrade);
        self
    }

    /// Takes the listeners over from the process that has started this one
    /// ([`upgrade_on_signal`](Self::upgrade_on_signal)), or from the one that offers them at the path
    /// of [`handover`](Self::handover). Binds the server to `address` if there is neither. With the
    /// feature `systemd` and the option of this name, sockets of systemd are used instead of binding.
    /// Unix only.
    ///
    /// The server has the addresses of its predecessor, not `address`, if there is one.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Handover::receive`], [`take_over`](Self::take_over) or
    /// [`bind`](Self::bind) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// // Without `handover` it binds.
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).bind_or_take_over(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn bind_or_take_over(self, address: impl ToAddress) -> io::Result<Server<K, M>> {
        let offered = self.handover.offered.as_ref();
        let inherited = match Inherited::from_environment()? {
            None => offered.map_or(Ok(None), Handover::receive)?,
            inherited => inherited,
        };
        match inherited {
            Some(inherited) => self.take_over(inherited),
            None => self.bind_or_activate(address),
        }
    }

    /// Creates the server from the listeners of another process. Unix only.
    ///
    /// When the server serves, the other process is informed. The server accepts as soon as that has
    /// stopped accepting. If it refuses meanwhile, `serve_forever` returns its reason as
    /// `ConnectionRefused`. If it dies, the server accepts.
    ///
    /// # Errors
    ///
    /// Returns an error if [`adopt`](Self::adopt) fails. The other process then continues to serve.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::handover::Handover;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let builder = TCPServer::builder(handler_fn(|_| Ok(())));
    /// let server = match Handover::at("/run/no-server").receive()? {
    ///     Some(predecessor) => builder.take_over(predecessor)?,
    ///     None => builder.bind(("127.0.0.1", 0))?,
    /// };
    /// # std::io::Result::Ok(())
    /// ```
    pub fn take_over(mut self, inherited: Inherited) -> io::Result<Server<K, M>> {
        let Inherited(received) = inherited;
        self.handover.takeover = Some(received.takeover);
        self.handover.inherited = received.control;
        let paths = received.addresses.iter().zip(received.files);
        let paths = paths.map(|(address, file)| takeover::adopt_path(address, file));
        let paths = paths.collect::<io::Result<Vec<_>>>()?;
        self.adopt_with(received.listeners.into_iter().zip(paths))
    }
}
