//! Descriptors that are no [`Socket`](crate::Socket).

use std::io;

use crate::call::trace::call;
use crate::sys::{self, AsRawFd, BorrowedFd, OwnedFd, c};

/// Closes a socket's descriptor and tells what the system said.
///
/// Python: `socket.close(fd)`. System call: close(2). For descriptors that are no
/// [`Socket`](crate::Socket): one of those has [`Socket::close`](crate::Socket::close).
///
/// # Errors
///
/// The system's, but for `ECONNRESET`, as with [`Socket::close`](crate::Socket::close).
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

/// Makes a second descriptor of a socket that is no [`Socket`](crate::Socket), close-on-exec.
///
/// Python: `socket.dup(fd)`. System call: fcntl(2) with `F_DUPFD_CLOEXEC`. See
/// [`Socket::dup`](crate::Socket::dup).
///
/// # Errors
///
/// The system's: `EBADF`, `EMFILE`.
///
/// # Examples
///
/// ```
/// use sock::AsFd;
///
/// let (ours, _theirs) = sock::socketpair()?;
/// let second = sock::dup(ours.as_fd())?;
/// assert_eq!(sock::Socket::try_from(second)?.getsockname()?, ours.getsockname()?);
/// # std::io::Result::Ok(())
/// ```
pub fn dup(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let number = fd.as_raw_fd();
    call!("fcntl({number}, F_DUPFD_CLOEXEC)" => fd.try_clone_to_owned().map(socket2::Socket::from))
        .map(OwnedFd::from)
}
