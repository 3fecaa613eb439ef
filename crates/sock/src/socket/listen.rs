//! Creating a socket, and accepting connections.

use std::io;

use crate::address::{Address, ToAddress};
use crate::call::deadline::Readiness;
use crate::call::hint;
use crate::call::trace::{self, call};
use crate::consts::{AddressFamily, SOMAXCONN, SocketKind};
use crate::socket::Socket;
use crate::sys;

/// Creating and listening.
impl Socket {
    /// Creates a socket.
    ///
    /// Python: `socket.socket(family, type, proto)`. System call: socket(2). Python's defaults are
    /// `AF_INET, SOCK_STREAM, 0`. `SOCK_NONBLOCK` in `kind` sets the timeout to zero. Otherwise the
    /// timeout is [`getdefaulttimeout`](crate::getdefaulttimeout).
    ///
    /// # Errors
    ///
    /// Returns an error if the family or protocol is not supported (`EAFNOSUPPORT`,
    /// `EPROTONOSUPPORT`), if no descriptor is available (`EMFILE`, `ENFILE`), or if the process
    /// may not create a `SOCK_RAW` socket (`EPERM`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, IPPROTO_UDP, SOCK_DGRAM, SOCK_STREAM, Socket};
    ///
    /// let tcp = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// let udp = Socket::new(AF_INET, SOCK_DGRAM, IPPROTO_UDP)?;
    /// assert_ne!(tcp.fileno(), udp.fileno());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new(family: AddressFamily, kind: SocketKind, proto: i32) -> io::Result<Socket> {
        let protocol = (proto != 0).then(|| proto.into());
        let inner = call!("socket({family}, {kind}, {proto})" =>
            socket2::Socket::new(family.as_raw().into(), kind.as_raw().into(), protocol))?;
        Socket::adopt(inner, family, kind, proto)
    }

    /// Binds the socket to a local address.
    ///
    /// Python: `bind(address)`. System call: bind(2), after a lookup if the address has a host
    /// name. Port 0 selects a free port: see [`getsockname`](Socket::getsockname).
    ///
    /// # Errors
    ///
    /// Returns an error if the address is in use (`AddrInUse`, `EADDRINUSE`), is not local
    /// (`AddrNotAvailable`) or needs a privilege (`PermissionDenied`, ports below 1024), if the
    /// socket is already bound (`EINVAL`), or if [`ToAddress`] fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?; // any free port
    /// assert_ne!(sock.getsockname()?.port(), Some(0));
    /// let taken = Socket::new(AF_INET, SOCK_DGRAM, 0)?.bind(sock.getsockname()?).unwrap_err();
    /// assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn bind(&self, address: impl ToAddress) -> io::Result<()> {
        let fd = self.fileno();
        let address = address.to_address(self.family)?;
        let sys = address.to_sys()?;
        let bound = call!("bind({fd}, {address})" => self.inner().bind(&sys));
        bound.inspect_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse && hint::enabled() {
                self.hint_in_use("bind", &address);
            }
        })
    }

    /// Starts accepting connections.
    ///
    /// Python: `listen([backlog])`. System call: listen(2). `backlog` is the number of connections
    /// that may wait for `accept`. `None` is Python's default, the smaller of `SOMAXCONN` and 128.
    /// Negative values count as 0.
    ///
    /// # Errors
    ///
    /// Returns an error if another socket listens on the address (`EADDRINUSE`), or if the kind of
    /// socket cannot listen, such as `SOCK_DGRAM` (`EOPNOTSUPP`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_STREAM, Socket};
    ///
    /// let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// server.bind(("127.0.0.1", 0))?;
    /// server.listen(None)?; // or listen(5)
    /// # std::io::Result::Ok(())
    /// ```
    pub fn listen(&self, backlog: impl Into<Option<i32>>) -> io::Result<()> {
        let fd = self.fileno();
        let backlog = backlog.into().unwrap_or(SOMAXCONN.min(128)).max(0);
        let listens = call!("listen({fd}, {backlog})" => self.inner().listen(backlog));
        listens.inspect_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse && hint::enabled() {
                if let Ok(address) = self.inner().local_addr() {
                    self.hint_in_use("listen", &Address::from_sys(&address));
                }
            }
        })
    }

    /// Accepts a connection and returns its socket and the peer's address.
    ///
    /// Python: `accept()`. System call: accept4(2). The new socket does not inherit the listener's
    /// timeout. It is in the default mode, usually blocking.
    ///
    /// # Errors
    ///
    /// Returns an error if no connection arrives in time (`TimedOut`, `WouldBlock`), if the socket
    /// does not listen (`EINVAL`), if no descriptor is available (`EMFILE`, `ENFILE`), or if the
    /// new connection has failed (`ConnectionAborted` and, on Linux, its pending network errors). A
    /// server should ignore the errors of a new connection (accept(2)).
    ///
    /// # Examples
    ///
    /// ```
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let (connection, address) = server.accept()?;
    /// assert_eq!(address, client.getsockname()?);
    /// assert_eq!(connection.getpeername()?, address);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn accept(&self) -> io::Result<(Socket, Address)> {
        let fd = self.fileno();
        let (inner, address) = self.retry(Readiness::Readable, || {
            if trace::enabled() {
                if hint::enabled() {
                    self.hint_queued();
                }
                return call!("accept({fd})" => self.inner().accept());
            }
            self.inner().accept()
        })?;
        if sys::ACCEPT_INHERITS_NONBLOCK && self.needs_o_nonblock() {
            inner.set_nonblocking(false)?;
        }
        let sock = Socket::adopt(inner, self.family, self.kind, self.proto)?;
        Ok((sock, Address::from_sys(&address)))
    }
}
