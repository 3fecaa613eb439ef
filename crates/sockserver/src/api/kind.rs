//! The kinds of servers: for connections or datagrams, with Internet or Unix sockets.
//!
//! They are the first parameter of [`Server`](crate::Server). `Server<Stream<Inet>, M>` is a TCP
//! server with the mixin `M`.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use sock::{
    AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, Address, SOCK_DGRAM, SOCK_STREAM, SocketKind, ToAddress,
};

/// A server for connections in the address family `F`.
pub struct Stream<F>(PhantomData<F>);

/// A server for datagrams in the address family `F`.
pub struct Datagram<F>(PhantomData<F>);

/// The difference between kinds of servers. Python: the class variables `socket_type` and
/// `address_family`.
///
/// This trait is sealed.
pub trait Kind: sealed::Sealed + 'static {
    /// The kind of the server's sockets. Python: `socket_type`.
    const SOCKET_TYPE: SocketKind;
    /// The family of the server's addresses. Python: `address_family`.
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
    fn address(address: &dyn ToAddress) -> io::Result<Address>;
}

/// IPv4 and IPv6.
///
/// The address decides which of them is used. A host name is resolved to its IPv4 address if it has
/// one, as in Python, where IPv6 needs a subclass.
#[derive(Debug)]
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
