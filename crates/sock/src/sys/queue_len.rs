//! Lengths of a socket's receive and send queues, by ioctl(2) or an option.

use std::io;

use super::BorrowedFd;
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
use super::c;

/// Returns the number of bytes in the receive queue.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) fn received(fd: BorrowedFd<'_>) -> io::Result<usize> {
    number_of(fd, libc::FIONREAD)
}

/// Returns the number of bytes in the send queue.
#[cfg(target_os = "linux")]
pub(crate) fn to_send(fd: BorrowedFd<'_>) -> io::Result<usize> {
    number_of(fd, libc::TIOCOUTQ)
}

/// Returns the number of bytes in the send queue.
#[cfg(target_os = "freebsd")]
pub(crate) fn to_send(fd: BorrowedFd<'_>) -> io::Result<usize> {
    number_of(fd, libc::FIONWRITE)
}

/// Returns whether the next byte to be received comes after urgent data.
#[cfg(unix)]
pub(crate) fn at_mark(fd: BorrowedFd<'_>) -> io::Result<bool> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the call accesses no memory.
    match unsafe { sockatmark(fd.as_raw_fd()) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer == 1),
    }
}

#[cfg(unix)]
unsafe extern "C" {
    /// POSIX; not in `libc`.
    fn sockatmark(fd: std::ffi::c_int) -> std::ffi::c_int;
}

/// Queries the number that `code` stands for.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn number_of(fd: BorrowedFd<'_>, code: impl TryInto<u64>) -> io::Result<usize> {
    use std::os::fd::AsRawFd as _;
    let code = code.try_into().unwrap_or_default();
    let mut number: libc::c_int = 0;
    // SAFETY: each of the codes above writes one int to the given address.
    match unsafe { libc::ioctl(fd.as_raw_fd(), code as _, &raw mut number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(usize::try_from(number).unwrap_or(0)),
    }
}

/// Returns the number of bytes in the receive queue.
#[cfg(target_os = "macos")]
pub(crate) fn received(fd: BorrowedFd<'_>) -> io::Result<usize> {
    number_of(fd, c::SO_NREAD)
}

/// Returns the number of bytes in the send queue.
#[cfg(target_os = "macos")]
pub(crate) fn to_send(fd: BorrowedFd<'_>) -> io::Result<usize> {
    number_of(fd, c::SO_NWRITE)
}

#[cfg(target_os = "macos")]
fn number_of(fd: BorrowedFd<'_>, option: i32) -> io::Result<usize> {
    let mut number = [0; 4];
    super::getsockopt(fd, c::SOL_SOCKET, option, &mut number)?;
    Ok(usize::try_from(i32::from_ne_bytes(number)).unwrap_or(0))
}

/// Returns the number of bytes in the receive queue.
#[cfg(windows)]
pub(crate) fn received(fd: BorrowedFd<'_>) -> io::Result<usize> {
    use std::os::windows::io::AsRawSocket as _;
    let mut number = 0_u32;
    // SAFETY: the code writes one number to the given address.
    match unsafe { c::ioctlsocket(fd.as_raw_socket() as c::SOCKET, c::FIONREAD, &mut number) } {
        // SAFETY: the call has no arguments.
        -1 => Err(io::Error::from_raw_os_error(unsafe { c::WSAGetLastError() })),
        _ => Ok(number as usize),
    }
}

/// Returns an error: WinSock has no such query.
#[cfg(windows)]
pub(crate) fn to_send(_fd: BorrowedFd<'_>) -> io::Result<usize> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this system cannot report the length of the send queue",
    ))
}
