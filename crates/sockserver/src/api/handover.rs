//! Replaces a running server by another process while clients connect. Unix only.
//!
//! The old process offers its listeners at the path of a Unix socket. The new one receives them,
//! makes its server of them and serves. When its loop runs, it reports that it is ready. Then the old
//! process stops accepting, and the new one begins. A client that connects meanwhile waits in the
//! accept queue, which both processes share, so none is refused or reset. The old process drains:
//! requests that it has begun to serve are finished. Idle connections stay open for
//! [`idle_grace`](Handover::idle_grace), so that a request that is on its way is answered.
//!
//! If the new process fails, exits, is killed, sends something unexpected or is not ready in time,
//! the old one continues as before. The new process accepts nothing before the old one has stopped,
//! so no client is lost with a new process that fails.
//!
//! ```no_run
//! use std::time::Duration;
//! use sockserver::handover::Handover;
//! use sockserver::{ThreadingTCPServer, handler_fn};
//!
//! // Start this program again to replace the first process by the second.
//! let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
//!     .drain_on_signals(Duration::from_secs(30))
//!     .handover(Handover::at("/run/app/handover"))
//!     .bind_or_take_over(("0.0.0.0", 8080))?;
//! server.serve_forever()?;
//! # std::io::Result::Ok(())
//! ```
//!
//! The path has the mode 0600, and only processes of the same user or of root are served. The new
//! process may have another handler, other options and another class of the same kind: a
//! `ForkingTCPServer` may take over from a `ThreadingTCPServer`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sock::{Address, ToDuration};

use crate::lifecycle::handover::offering::Limits;
use crate::lifecycle::handover::takeover::{self, Received};
use crate::lifecycle::handover::trigger::Trigger;

/// Where and how a server hands its listeners over. See the [module](self).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sockserver::handover::Handover;
///
/// let offer = Handover::at("/run/app/handover")
///     .timeout(Duration::from_secs(60))
///     .drain_limit(Duration::from_secs(10));
/// ```
#[derive(Clone, Debug)]
pub struct Handover {
    pub(crate) path: PathBuf,
    limits: SetLimits,
}

const DEFAULT_LIMITS: Limits = Limits {
    timeout: Duration::from_secs(30),
    drain: Duration::from_secs(30),
    idle_grace: Duration::from_secs(5),
};

/// The limits that were set, or why one of them is invalid.
#[derive(Clone, Debug)]
struct SetLimits(Result<Limits, String>);

impl SetLimits {
    fn set(&mut self, setter: &str, limit: impl ToDuration, set: impl FnOnce(&mut Limits, Duration)) {
        match (limit.to_duration(), &mut self.0) {
            (Ok(limit), Ok(limits)) => set(limits, limit),
            (Err(error), Ok(_)) => self.0 = Err(format!("{setter}: {error}")),
            (_, Err(_)) => {}
        }
    }

    /// Returns the limits of `what`, or `InvalidInput` if one of them is negative, NaN or too long, or
    /// if nothing could be done within the timeout.
    fn get(&self, what: &str) -> io::Result<Limits> {
        let checked = self.0.clone().and_then(|limits| match limits.timeout.is_zero() {
            true => Err(format!("timeout of the {what} must not be zero")),
            false => Ok(limits),
        });
        checked.map_err(|sentence| io::Error::new(io::ErrorKind::InvalidInput, sentence))
    }
}

impl Handover {
    /// Offers the listeners at this path. A path that a dead process has left is replaced.
    ///
    /// # Examples
    ///
    /// ```
    /// let offer = sockserver::handover::Handover::at("/run/app/handover");
    /// ```
    #[must_use]
    pub fn at(path: impl AsRef<Path>) -> Handover {
        Handover { path: path.as_ref().to_owned(), limits: SetLimits(Ok(DEFAULT_LIMITS)) }
    }

    pub(crate) fn limits(&self) -> io::Result<Limits> {
        self.limits.get("handover")
    }

    /// Sets how long a successor may take from its connection until it is ready, which includes its
    /// own start. When the time is over, the handover is cancelled and the server goes on. Default
    /// 30 s. It is also the time for which [`receive`](Self::receive) waits for the listeners. Zero is
    /// refused by `bind` and by `receive`.
    ///
    /// # Examples
    ///
    /// ```
    /// let offer = sockserver::handover::Handover::at("/run/app/handover").timeout(5);
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: impl ToDuration) -> Handover {
        self.limits.set("timeout of the handover", timeout, |limits, timeout| limits.timeout = timeout);
        self
    }

    /// Sets the limit of the drain that follows the handover. Default 30 s. See
    /// [`ServerHandle::drain`](crate::ServerHandle::drain).
    ///
    /// # Examples
    ///
    /// ```
    /// let offer = sockserver::handover::Handover::at("/run/app/handover").drain_limit(5);
    /// ```
    #[must_use]
    pub fn drain_limit(mut self, limit: impl ToDuration) -> Handover {
        self.limits.set("drain_limit of the handover", limit, |limits, limit| limits.drain = limit);
        self
    }

    /// Sets how long the drain that follows the handover leaves idle connections open. Default 5 s, and at
    /// most half of the limit of the drain. 0 closes them at once.
    ///
    /// Requests that arrive meanwhile are served. A handler that answers them with
    /// `Connection: close`, because [`ServerHandle::state`](crate::ServerHandle::state) is not
    /// [`Ready`](crate::ServerState::Ready), loses no request of a client that sends one within this time.
    /// A connection that another handler keeps is closed after its second answer in the drain, if no
    /// request has arrived then. The drain ends earlier when no connection is left. A [`TCPServer`](crate::TCPServer) closes idle connections
    /// at once, because it serves one at a time, and its successor waits for that.
    ///
    /// # Examples
    ///
    /// ```
    /// let offer = sockserver::handover::Handover::at("/run/app/handover").idle_grace(2);
    /// ```
    #[must_use]
    pub fn idle_grace(mut self, grace: impl ToDuration) -> Handover {
        self.limits.set("idle_grace of the handover", grace, |limits, grace| limits.idle_grace = grace);
        self
    }

    /// Receives the listeners of the process that offers them at the path. Returns `None` if there
    /// is no such process.
    ///
    /// The value is passed to [`Builder::take_over`](crate::Builder::take_over). Dropping it cancels
    /// the handover.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `ConnectionRefused` with the reason if the other process refuses,
    /// for example because another successor is being served, an error of kind `TimedOut` if it
    /// does not answer, an error of kind `InvalidData` if it sends something unexpected, an error of
    /// kind `InvalidInput` if a limit is negative or NaN or the timeout is zero, and the error of a
    /// system call that fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # let folder = std::env::temp_dir();
    /// # let path = folder.join("no-server-offers-its-listeners-here");
    /// let predecessor = sockserver::handover::Handover::at(path).receive()?;
    /// assert!(predecessor.is_none());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn receive(&self) -> io::Result<Option<Inherited>> {
        let received = takeover::connect(&self.path, self.limits()?.timeout);
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("take over from {}: {error}", self.path.display()))
        };
        Ok(received.map_err(named)?.map(Inherited))
    }
}

/// What is started to replace the server. See [`Builder::upgrade_on_signal`](crate::Builder::upgrade_on_signal).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sockserver::handover::Upgrade;
///
/// let upgrade = Upgrade::to_current_program()?.timeout(Duration::from_secs(60));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Upgrade {
    program: PathBuf,
    arguments: Vec<OsString>,
    limits: SetLimits,
}

impl Upgrade {
    /// Starts what is at the path of this program then, with the same arguments. The path is that at
    /// the time of this call, so that a new file can replace this one.
    ///
    /// # Errors
    ///
    /// Returns an error if the path of the program is not known.
    ///
    /// # Examples
    ///
    /// ```
    /// let upgrade = sockserver::handover::Upgrade::to_current_program()?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn to_current_program() -> io::Result<Upgrade> {
        Ok(Upgrade::to(std::env::current_exe()?, std::env::args_os().skip(1)))
    }

    /// Starts another program, which is executed by its path.
    ///
    /// # Examples
    ///
    /// ```
    /// let upgrade = sockserver::handover::Upgrade::to("/srv/app/current/server", ["--verbose"]);
    /// ```
    #[must_use]
    pub fn to<A: Into<OsString>>(
        program: impl AsRef<Path>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Upgrade {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Upgrade { program: program.as_ref().to_owned(), arguments, limits: SetLimits(Ok(DEFAULT_LIMITS)) }
    }

    /// Sets how long the new process may take until it is ready. When the time is over, it is killed
    /// and the server goes on. Default 30 s. Zero is refused by `bind`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::handover::Upgrade;
    ///
    /// let upgrade = Upgrade::to_current_program()?.timeout(5);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: impl ToDuration) -> Upgrade {
        self.limits.set("timeout of the upgrade", timeout, |limits, timeout| limits.timeout = timeout);
        self
    }

    /// Sets the limit of the drain that follows. Default 30 s.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::handover::Upgrade;
    ///
    /// let upgrade = Upgrade::to_current_program()?.drain_limit(5);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn drain_limit(mut self, limit: impl ToDuration) -> Upgrade {
        self.limits.set("drain_limit of the upgrade", limit, |limits, limit| limits.drain = limit);
        self
    }

    /// Sets how long the drain that follows leaves idle connections open. Default 5 s. See
    /// [`Handover::idle_grace`].
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::handover::Upgrade;
    ///
    /// let upgrade = Upgrade::to_current_program()?.idle_grace(2);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn idle_grace(mut self, grace: impl ToDuration) -> Upgrade {
        self.limits.set("idle_grace of the upgrade", grace, |limits, grace| limits.idle_grace = grace);
        self
    }

    #[cfg(feature = "signals")]
    pub(crate) fn into_trigger(self) -> io::Result<Trigger> {
        let limits = self.limits.get("upgrade")?;
        Trigger::catch(self.program, self.arguments, limits)
    }

    #[cfg(not(feature = "signals"))]
    pub(crate) fn into_trigger(self) -> io::Result<Trigger> {
        let Upgrade { program, .. } = self;
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("cannot start {}", program.display())))
    }
}

/// The listeners of another process, which still serves. Dropping the value leaves them to it.
///
/// # Examples
///
/// ```
/// use sockserver::handover::{Handover, Inherited};
///
/// let predecessor: Option<Inherited> = Handover::at("/run/no-server").receive()?;
/// # std::io::Result::Ok(())
/// ```
pub struct Inherited(pub(crate) Received);

impl Inherited {
    /// Receives the listeners that this process has inherited from its parent, a server with
    /// [`upgrade_on_signal`](crate::Builder::upgrade_on_signal). Returns `None` if it has inherited
    /// none, and after the first call.
    ///
    /// The descriptors follow the protocol of `sd_listen_fds(3)`: `LISTEN_PID`, `LISTEN_FDS` and
    /// `LISTEN_FDNAMES`. The variable `SOCKSERVER_HANDOVER` has the number of one more, for the
    /// messages of the handover.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidData` if the variables or the messages do not match.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(sockserver::handover::Inherited::from_environment()?.is_none());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn from_environment() -> io::Result<Option<Inherited>> {
        let received = takeover::from_environment(DEFAULT_LIMITS.timeout);
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("take over from the parent process: {error}"))
        };
        Ok(received.map_err(named)?.map(Inherited))
    }

    /// Returns the addresses of the listeners, in the order of the predecessor's
    /// [`server_addresses`](crate::Server::server_addresses).
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::handover::Handover;
    ///
    /// if let Some(predecessor) = Handover::at("/run/no-server").receive()? {
    ///     println!("taking over {:?}", predecessor.addresses());
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.0.addresses
    }
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherited").field("addresses", &self.0.addresses).finish_non_exhaustive()
    }
}
