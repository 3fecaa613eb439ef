//! Creating socket pairs and listeners.

use std::io;

use crate::address::ToAddress;
use crate::call::trace::call;
use crate::consts::{AF_INET, AF_INET6, AddressFamily, IPPROTO_IPV6, IPV6_V6ONLY, SOCK_STREAM, SocketKind};
use crate::error::{AddressError, invalid};
use crate::socket::Socket;
use crate::sys;

/// Creates two sockets that are connected to each other.
///
/// Python: `socket.socketpair()`. System call: socketpair(2) with `AF_UNIX`,
/// `SOCK_STREAM`; on Windows two sockets over loopback TCP, as in Python.
///
/// # Errors
///
/// Returns an error if no descriptor is available (`EMFILE`).
///
/// # Examples
///
/// ```
/// let (ours, theirs) = sock::socketpair()?;
/// ours.sendall(b"ping")?;
/// assert_eq!(theirs.recv(100)?, b"ping");
/// # std::io::Result::Ok(())
/// ```
pub fn socketpair() -> io::Result<(Socket, Socket)> {
    socketpair_with(sys::PAIR_FAMILY.into(), SOCK_STREAM, 0)
}

/// Creates a pair of another family, kind or protocol.
///
/// Python: `socket.socketpair(family, type, proto)`. System call: socketpair(2).
///
/// # Errors
///
/// Returns an error if the family does not support pairs, such as `AF_INET` (`EOPNOTSUPP`).
///
/// # Examples
///
/// ```
/// # if cfg!(unix) {
/// use sock::{AF_UNIX, SOCK_DGRAM};
///
/// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
/// ours.send(b"one")?;
/// ours.send(b"two")?;
/// assert_eq!(theirs.recv(100)?, b"one"); // message boundaries are kept
/// # }
/// # std::io::Result::Ok(())
/// ```
pub fn socketpair_with(
    family: AddressFamily,
    kind: SocketKind,
    proto: i32,
) -> io::Result<(Socket, Socket)> {
    let protocol = (proto != 0).then(|| proto.into());
    let (one, other) = call!("socketpair({family}, {kind}, {proto})" =>
        sys::socketpair(family.as_raw().into(), kind.as_raw().into(), protocol))?;
    Ok((Socket::adopt(one, family, kind, proto)?, Socket::adopt(other, family, kind, proto)?))
}

/// Options of [`create_server_with`].
///
/// # Examples
///
/// ```
/// use sock::{AF_INET6, ServerOptions};
///
/// let options = ServerOptions::new().family(AF_INET6).dualstack_ipv6(true).backlog(500);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    family: AddressFamily,
    backlog: Option<i32>,
    reuse_port: bool,
    dualstack_ipv6: bool,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions { family: AF_INET, backlog: None, reuse_port: false, dualstack_ipv6: false }
    }
}

impl ServerOptions {
    /// Creates options with Python's defaults: `AF_INET`, the default backlog, no `SO_REUSEPORT`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::ServerOptions;
    ///
    /// let server = sock::create_server_with(("127.0.0.1", 0), &ServerOptions::new())?;
    /// assert_eq!(server.family(), sock::AF_INET);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> ServerOptions {
        ServerOptions::default()
    }

    /// Sets the family, `AF_INET` or `AF_INET6`. Default: `AF_INET`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET6, ServerOptions};
    ///
    /// # if sock::create_server_with(("::1", 0), &ServerOptions::new().family(AF_INET6)).is_ok() {
    /// let options = ServerOptions::new().family(AF_INET6);         // family=socket.AF_INET6
    /// let server = sock::create_server_with(("::1", 0), &options)?;
    /// assert_eq!(server.family(), AF_INET6);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn family(mut self, family: AddressFamily) -> ServerOptions {
        self.family = family;
        self
    }

    /// Sets the number of connections that may wait for `accept`. See [`Socket::listen`].
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::ServerOptions;
    ///
    /// let options = ServerOptions::new().backlog(10);              // backlog=10
    /// let server = sock::create_server_with(("127.0.0.1", 0), &options)?;
    /// let port = server.getsockname()?.port().unwrap();
    /// // Ten clients are connected before the first one is accepted.
    /// let clients: std::io::Result<Vec<_>> = (0..10).map(|_| sock::create_connection(("127.0.0.1", port))).collect();
    /// assert_eq!(clients?.len(), 10);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn backlog(mut self, backlog: i32) -> ServerOptions {
        self.backlog = Some(backlog);
        self
    }

    /// Sets whether several servers can bind the port (`SO_REUSEPORT`). Default: false.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::ServerOptions;
    ///
    /// # if cfg!(unix) {
    /// let options = ServerOptions::new().reuse_port(true);         // reuse_port=True
    /// let first = sock::create_server_with(("127.0.0.1", 0), &options)?;
    /// let second = sock::create_server_with(first.getsockname()?, &options)?;
    /// assert_eq!(first.getsockname()?, second.getsockname()?);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn reuse_port(mut self, reuse_port: bool) -> ServerOptions {
        self.reuse_port = reuse_port;
        self
    }

    /// Sets whether an `AF_INET6` server accepts IPv4 clients, as `::ffff:a.b.c.d`. Default: false.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET6, ServerOptions};
    ///
    /// if sock::has_dualstack_ipv6() {
    ///     let options = ServerOptions::new().family(AF_INET6).dualstack_ipv6(true);
    ///     let server = sock::create_server_with(("::", 0), &options)?;
    ///     let port = server.getsockname()?.port().unwrap();
    ///     let client = sock::create_connection(("127.0.0.1", port))?;
    ///     assert!(server.accept()?.1.to_string().contains("::ffff:127.0.0.1"));
    /// #   drop(client);
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn dualstack_ipv6(mut self, dualstack_ipv6: bool) -> ServerOptions {
        self.dualstack_ipv6 = dualstack_ipv6;
        self
    }
}

/// Creates a TCP socket that listens on `address`.
///
/// Python: `socket.create_server(address)`. System calls: socket(2), setsockopt(2) with
/// `SO_REUSEADDR` so that a server can be restarted, bind(2), listen(2). On Windows the option is
/// `SO_EXCLUSIVEADDRUSE`, because `SO_REUSEADDR` would let two servers share a port there.
///
/// # Errors
///
/// Returns an [`AddressError`] if the server cannot be created. It has the address and the cause,
/// such as `AddrInUse` or `PermissionDenied`.
///
/// # Examples
///
/// ```
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// assert_ne!(server.getsockname()?.port(), Some(0));
/// # std::io::Result::Ok(())
/// ```
pub fn create_server(address: impl ToAddress) -> io::Result<Socket> {
    create_server_with(address, &ServerOptions::new())
}

/// Creates a listening TCP socket with options.
///
/// Python: `socket.create_server(address, family=…, backlog=…, reuse_port=…, dualstack_ipv6=…)`.
/// System calls: as [`create_server`].
///
/// # Errors
///
/// Returns an error if [`create_server`] does, or if `dualstack_ipv6` is set without `AF_INET6` or
/// on a system without dual-stack sockets (`InvalidInput`).
///
/// # Examples
///
/// ```
/// use sock::{AF_INET6, ServerOptions};
///
/// if sock::has_dualstack_ipv6() {
///     let options = ServerOptions::new().family(AF_INET6).dualstack_ipv6(true);
///     let server = sock::create_server_with(("", 0), &options)?;
///     let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
///     assert_eq!(server.accept()?.1.ip().unwrap().to_string(), "::ffff:127.0.0.1");
///     # drop(client);
/// }
/// # std::io::Result::Ok(())
/// ```
pub fn create_server_with(address: impl ToAddress, options: &ServerOptions) -> io::Result<Socket> {
    if options.dualstack_ipv6 {
        if options.family != AF_INET6 {
            return Err(invalid(format!("dualstack_ipv6 requires AF_INET6, not {}", options.family)));
        }
        if !has_dualstack_ipv6() {
            return Err(invalid("dualstack_ipv6 is not supported on this system"));
        }
    }
    let address = address.to_address(options.family)?;
    let sock = Socket::new(options.family, SOCK_STREAM, 0)?;
    // As in Python, an error of this option does not prevent serving. On Windows the option keeps
    // other programs from binding the port.
    let set = sock.set_reuse_address(true);
    if cfg!(windows) {
        set?;
    }
    if options.reuse_port {
        sock.set_reuse_port(true)?;
    }
    if options.family == AF_INET6 {
        // Always set, because the system's default differs between hosts.
        sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, !options.dualstack_ipv6)?;
    }
    sock.bind(&address).map_err(|error| AddressError::new("bind", &address, error))?;
    sock.listen(options.backlog).map_err(|error| AddressError::new("listen", &address, error))?;
    Ok(sock)
}

/// Returns whether an IPv6 socket can accept IPv4 clients.
///
/// Python: `socket.has_dualstack_ipv6()`. System calls: socket(2), setsockopt(2).
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, AF_INET6};
///
/// let family = if sock::has_dualstack_ipv6() { AF_INET6 } else { AF_INET };
/// # let _ = family;
/// ```
#[must_use]
pub fn has_dualstack_ipv6() -> bool {
    Socket::new(AF_INET6, SOCK_STREAM, 0)
        .and_then(|sock| sock.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, false))
        .is_ok()
}
