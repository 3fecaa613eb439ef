//! The kinds of servers: for connections or datagrams, with Internet or Unix sockets.
//!
//! They are the first parameter of [`Server`](crate::Server). `Server<Stream<Inet>, M>` is a TCP
//! server with the mixin `M`.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use sock::{
    AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, Address, SOCK_DGRAM, SOCK_STREAM, SocketKind, ToAddress, errno,
    errno_name,
};

/// A server for connections in the address family `F`.
///
/// # Examples
///
/// ```
/// use sockserver::{Sequential, Server, TCPServer, handler_fn, kind};
///
/// let server: Server<kind::Stream<kind::Inet>, Sequential> =
///     TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
/// # std::io::Result::Ok(())
/// ```
pub struct Stream<F>(PhantomData<F>);

/// A server for datagrams in the address family `F`.
///
/// # Examples
///
/// ```
/// use sockserver::{Sequential, Server, UDPServer, datagram_handler_fn, kind};
///
/// let server: Server<kind::Datagram<kind::Inet>, Sequential> =
///     UDPServer::new(("127.0.0.1", 0), datagram_handler_fn(|_| Ok(())))?;
/// # std::io::Result::Ok(())
/// ```
pub struct Datagram<F>(PhantomData<F>);

/// The difference between kinds of servers. Python: the class variables `socket_type` and
/// `address_family`.
///
/// This trait is sealed.
///
/// # Examples
///
/// ```
/// use sockserver::kind::{Datagram, Inet, Kind, Stream};
///
/// assert_eq!(<Stream<Inet> as Kind>::SOCKET_TYPE, sock::SOCK_STREAM);
/// assert_eq!(<Datagram<Inet> as Kind>::SOCKET_TYPE, sock::SOCK_DGRAM);
/// ```
pub trait Kind: sealed::Sealed + 'static {
    /// The kind of the server's sockets. Python: `socket_type`.
    const SOCKET_TYPE: SocketKind;
    /// The family of the server's addresses. Python: `address_family`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::kind::{Family, Inet};
    ///
    /// assert_eq!(Inet::address(&("127.0.0.1", 80))?.to_string(), "127.0.0.1:80");
    /// # std::io::Result::Ok(())
    /// ```
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

/// An address family of servers.
///
/// This trait is sealed.
pub trait Family: sealed::Sealed + 'static {
    /// Returns the address to bind to, resolved if necessary.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be resolved or belongs to another family.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::kind::{Family, Inet};
    ///
    /// let address = Inet::address(&("127.0.0.1", 80))?;
    /// assert_eq!(address.port(), Some(80));
    /// # std::io::Result::Ok(())
    /// ```
    fn address(address: &dyn ToAddress) -> io::Result<Address>;
}

/// IPv4 and IPv6.
///
/// The address decides which of them is used. A host name is resolved to its IPv4 address if it has
/// one, as in Python, where IPv6 needs a subclass.
///
/// # Examples
///
/// ```
/// use sockserver::kind::{Family, Inet};
///
/// assert_eq!(Inet::address(&("::1", 80))?.family(), sock::AF_INET6);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Inet;

impl Family for Inet {
    fn address(address: &dyn ToAddress) -> io::Result<Address> {
        match address.to_address(AF_UNSPEC) {
            Ok(address) if matches!(address.family(), AF_INET | AF_INET6) => Ok(address),
            Ok(address) => address.to_address(AF_INET),
            // A text with host and port is no path here: the error for this family does not name one.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                match address.to_address(AF_INET) {
                    Err(other) if errno(&other).and_then(errno_name) == Some("EAFNOSUPPORT") => Err(other),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// Unix sockets.
///
/// # Examples
///
/// ```
/// use sockserver::kind::{Family, Unix};
///
/// # #[cfg(unix)]
/// assert_eq!(Unix::address(&"/run/echo.sock")?.family(), sock::AF_UNIX);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Unix;

impl Family for Unix {
    fn address(address: &dyn ToAddress) -> io::Result<Address> {
        address.to_address(AF_UNIX)
    }
}

impl<F> fmt::Debug for Stream<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for Datagram<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram").finish_non_exhaustive()
    }
}

mod sealed {
    pub trait Sealed {}

    impl<F> Sealed for super::Stream<F> {}
    impl<F> Sealed for super::Datagram<F> {}
    impl Sealed for super::Inet {}
    impl Sealed for super::Unix {}
}
