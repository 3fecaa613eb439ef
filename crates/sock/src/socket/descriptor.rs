//! The descriptor of a socket: conversion, closing and duplicating.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::call::hint;
use crate::call::trace::{self, call};
use crate::consts::{AddressFamily, IPPROTO_IP, OptionName, SO_TYPE, SOL_SOCKET, SocketKind};
use crate::socket::{ENCRYPTED, Socket};
use crate::sys::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd, c};

/// Descriptors.
impl Socket {
    /// Creates a socket from a descriptor.
    ///
    /// Arguments that are `None` are queried from the system. Other arguments are not checked.
    ///
    /// Python: `socket.socket(family, type, proto, fileno=fd)`. System calls: getsockname(2),
    /// getsockopt(2) with `SO_TYPE` and `SO_PROTOCOL`.
    ///
    /// # Errors
    ///
    /// Returns an error if the descriptor is invalid (`EBADF`) or not a socket (`ENOTSOCK`). The
    /// error contains the descriptor; `?` closes it.
    ///
    /// # Platform notes
    ///
    /// As in Python, the timeout is the default timeout, even if the descriptor is already
    /// non-blocking.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{SOCK_STREAM, Socket};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let adopted = Socket::from_fd(ours.detach(), None, None, None)?;
    /// assert_eq!(adopted.kind(), SOCK_STREAM);
    /// adopted.sendall(b"the same socket")?;
    /// assert_eq!(theirs.recv(100)?, b"the same socket");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn from_fd(
        fd: OwnedFd,
        family: Option<AddressFamily>,
        kind: Option<SocketKind>,
        proto: Option<i32>,
    ) -> Result<Socket, FromFdError> {
        let inner = socket2::Socket::from(fd);
        match detect(&inner, family, kind, proto) {
            Ok((family, kind, proto)) => Socket::adopt_or_return(inner, family, kind, proto),
            Err(error) => Err(FromFdError { error, fd: inner.into() }),
        }
    }

    fn adopt_or_return(
        inner: socket2::Socket,
        family: AddressFamily,
        kind: SocketKind,
        proto: i32,
    ) -> Result<Socket, FromFdError> {
        let mut sock = Socket::from_inner(inner, family, kind, proto);
        match sock.apply_default_timeout(kind) {
            Ok(()) => Ok(sock),
            Err(error) => {
                let inner = sock.inner.take().expect("the descriptor is taken only here");
                Err(FromFdError { error, fd: inner.into() })
            }
        }
    }

    pub(super) fn from_descriptor(fd: OwnedFd) -> io::Result<Socket> {
        Ok(Socket::from_fd(fd, None, None, None)?)
    }

    /// Closes the socket and returns the error of the system, if any.
    ///
    /// Python: `close()`. System call: close(2). Dropping a socket closes it and ignores errors.
    /// The readers and writers of [`makefile_rb`](Socket::makefile_rb) borrow the socket, so none
    /// of them is open when it is closed. Python waits for the last of them instead.
    ///
    /// # Errors
    ///
    /// Returns an error if close(2) fails. `ECONNRESET` is ignored.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.close()?;
    /// assert_eq!(theirs.recv(1)?, b""); // end of file
    /// # std::io::Result::Ok(())
    /// ```
    pub fn close(mut self) -> io::Result<()> {
        self.close_now()
    }

    pub(super) fn close_now(&mut self) -> io::Result<()> {
        let Some(inner) = self.inner.take() else {
            return Ok(());
        };
        if trace::enabled() {
            if hint::enabled() {
                self.hint_closing(&inner);
            }
            return close(inner.into());
        }
        without_reset(sys::close(inner.into()))
    }

    /// Returns the descriptor without closing it.
    ///
    /// Python: `detach()`. No system call.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{OwnedFd, Socket};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let fd: OwnedFd = ours.detach();
    /// Socket::try_from(fd)?.sendall(b"still open")?;
    /// assert_eq!(theirs.recv(100)?, b"still open");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use = "the descriptor is closed when this is dropped"]
    pub fn detach(mut self) -> OwnedFd {
        let inner = self.inner.take().expect("only drop and detach take the descriptor");
        if hint::enabled() {
            hint::forget(inner.as_raw_fd());
        }
        inner.into()
    }

    /// Duplicates the descriptor.
    ///
    /// The new socket has the same timeout and, if there is one, the same
    /// [`canceller`](Socket::canceller).
    ///
    /// Python: `dup()`. System call: fcntl(2) with `F_DUPFD_CLOEXEC`.
    ///
    /// # Platform notes
    ///
    /// The blocking mode belongs to the socket, not to the descriptor. After `settimeout` or
    /// `canceller` on one of the two, the other is non-blocking as well, although its own timeout
    /// has not changed (as in Python).
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is available (`EMFILE`), and an error of kind `Unsupported` for
    /// the socket of a TLS connection, because the duplicate would send clear text.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// let duplicate = ours.dup()?;
    /// assert_ne!(duplicate.fileno(), ours.fileno());
    /// drop(ours);
    /// duplicate.sendall(b"still open")?;
    /// assert_eq!(theirs.recv(100)?, b"still open");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn dup(&self) -> io::Result<Socket> {
        if self.kind.contains(ENCRYPTED) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the socket of a TLS connection cannot be duplicated: the duplicate would send clear text",
            ));
        }
        let fd = self.fileno();
        let inner = call!("fcntl({fd}, F_DUPFD_CLOEXEC)" => self.inner().try_clone())?;
        let duplicate = Socket::from_inner(inner, self.family, self.kind, self.proto);
        duplicate.timeout.copy_from(&self.timeout);
        // The duplicate is non-blocking too, so its calls have to wait in poll(2).
        if let Some(cancellation) = self.cancellation.get() {
            let _ = duplicate.cancellation.set(Arc::clone(cancellation));
        }
        Ok(duplicate)
    }

    /// Returns the number of the descriptor.
    ///
    /// Python: `fileno()`. No system call.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// assert_ne!(ours.fileno(), theirs.fileno());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.inner().as_raw_fd()
    }
}

/// Closes a socket's descriptor and returns the error of the system, if any.
///
/// Python: `socket.close(fd)`. System call: close(2). For descriptors that do not belong to a
/// [`Socket`](crate::Socket), which has [`Socket::close`](crate::Socket::close).
///
/// # Errors
///
/// Returns an error if close(2) fails. `ECONNRESET` is ignored.
///
/// # Examples
///
/// ```
/// let (ours, _theirs) = sock::socketpair()?;
/// sock::close(ours.detach())?;
/// # std::io::Result::Ok(())
/// ```
pub fn close(fd: OwnedFd) -> io::Result<()> {
    let number = fd.as_raw_fd();
    without_reset(call!("close({number})" => sys::close(fd)))
}

fn without_reset(closed: io::Result<()>) -> io::Result<()> {
    match closed {
        Err(error) if error.raw_os_error() != Some(c::ECONNRESET) => Err(error),
        _ => Ok(()),
    }
}

/// Duplicates a socket's descriptor. The duplicate is close-on-exec.
///
/// Python: `socket.dup(fd)`. System call: fcntl(2) with `F_DUPFD_CLOEXEC`. For descriptors that do
/// not belong to a [`Socket`](crate::Socket), which has [`Socket::dup`](crate::Socket::dup).
///
/// # Errors
///
/// Returns an error if the descriptor is invalid (`EBADF`) or no descriptor is available
/// (`EMFILE`).
///
/// # Examples
///
/// ```
/// use sock::AsFd;
///
/// let (ours, _theirs) = sock::socketpair()?;
/// let duplicate = sock::dup(ours.as_fd())?;
/// assert_eq!(sock::Socket::try_from(duplicate)?.getsockname()?, ours.getsockname()?);
/// # std::io::Result::Ok(())
/// ```
pub fn dup(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let number = fd.as_raw_fd();
    call!("fcntl({number}, F_DUPFD_CLOEXEC)" => fd.try_clone_to_owned().map(socket2::Socket::from))
        .map(OwnedFd::from)
}

/// A descriptor that could not be converted into a [`Socket`](crate::Socket), with the cause.
///
/// Returned by [`Socket::from_fd`](crate::Socket::from_fd). Converting it into an [`io::Error`]
/// closes the descriptor.
///
/// # Examples
///
/// ```
/// use sock::Socket;
///
/// let file = std::fs::File::open("Cargo.toml")?;
/// # if cfg!(unix) {
/// # #[cfg(unix)]
/// let error = Socket::from_fd(file.into(), None, None, None).unwrap_err();
/// # #[cfg(unix)]
/// assert_eq!(sock::errno(&error.into()).and_then(sock::errno_name), Some("ENOTSOCK"));
/// # }
/// # std::io::Result::Ok(())
/// ```
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
fn detect(
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
