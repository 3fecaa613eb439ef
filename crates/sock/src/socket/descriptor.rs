//! Descriptors that are no [`Socket`](crate::Socket).

use std::io;

use crate::call::trace::call;
use crate::sys::{self, AsRawFd, BorrowedFd, OwnedFd, c};

/// Closes a socket's descriptor and returns the error of the system, if any.
///
/// Python: `socket.close(fd)`. System call: close(2). For descriptors that do not belong to a
/// [`Socket`](crate::Socket), which has [`Socket::close`](crate::Socket::close).
///
/// # Errors
///
/// Returns the errors of close(2), except `ECONNRESET`, which is ignored.
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
    match call!("close({number})" => sys::close(fd)) {
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
