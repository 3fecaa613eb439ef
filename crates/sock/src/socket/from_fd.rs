//! Descriptors outside a `Socket`: detecting their properties, closing and duplicating them.

use std::fmt;
use std::io;

use crate::call::trace::call;
use crate::consts::{AddressFamily, IPPROTO_IP, OptionName, SO_TYPE, SOL_SOCKET, SocketKind};
use crate::sys::{self, AsFd, AsRawFd, OwnedFd, c};

/// A descriptor that could not be converted into a [`Socket`](crate::Socket), with the cause.
///
/// Returned by [`Socket::from_fd`](crate::Socket::from_fd). Converting it into an [`io::Error`]
/// closes the descriptor.
#[derive(Debug)]
pub struct FromFdError {
    /// The error of the system.
    pub error: io::Error,
    /// The descriptor, which is still open.
    pub fd: OwnedFd,
}

impl From<FromFdError> for io::Error {
    fn from(failed: FromFdError) -> io::Error {
        failed.error
    }
}

impl fmt::Display for FromFdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {}: {}", self.fd.as_raw_fd(), self.error)
    }
}

impl std::error::Error for FromFdError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Queries family, kind and protocol of a descriptor, unless they are given.
pub(crate) fn detect(
    inner: &socket2::Socket,
    family: Option<AddressFamily>,
    kind: Option<SocketKind>,
    proto: Option<i32>,
) -> io::Result<(AddressFamily, SocketKind, i32)> {
    let fd = inner.as_raw_fd();
    let name = call!("getsockname({fd})" => inner.local_addr());
    let family = match (family, name) {
        // The family is given and the descriptor is a socket. Some families do not support
        // getsockname.
        (Some(family), Err(error))
            if ![Some(c::EBADF), Some(c::ENOTSOCK)].contains(&error.raw_os_error()) =>
        {
            family
        }
        (_, Err(error)) => return Err(error),
        (Some(family), Ok(_)) => family,
        (None, Ok(address)) => i32::from(address.family()).into(),
    };
    let kind = match kind {
        Some(kind) => kind,
        None => option(inner, SO_TYPE)?.into(),
    };
    let proto = match (proto, sys::SO_PROTOCOL) {
        (Some(proto), _) => proto,
        (None, Some(number)) => option(inner, number)?,
        // Some systems cannot report the protocol. 0 is the default protocol.
        (None, None) => IPPROTO_IP,
    };
    Ok((family, kind, proto))
}

fn option(inner: &socket2::Socket, option: i32) -> io::Result<i32> {
    let (fd, name) = (inner.as_raw_fd(), OptionName(SOL_SOCKET, option));
    let mut value = [0; 4];
    call!("getsockopt({fd}, SOL_SOCKET, {name}, 4)" =>
        sys::getsockopt(inner.as_fd(), SOL_SOCKET, option, &mut value))?;
    Ok(i32::from_ne_bytes(value))
}
