//! sendfile(2), whose form differs between systems. Windows has none.

use std::fs::File;
use std::io;

use super::BorrowedFd;
#[cfg(unix)]
use super::{AsRawFd, c};

/// Sends up to `count` bytes of the file from `offset`, without changing its position. Returns 0 at
/// the end of the file.
#[cfg(target_os = "linux")]
pub(crate) fn sendfile(sock: BorrowedFd<'_>, file: &File, offset: u64, count: u64) -> io::Result<usize> {
    let mut offset =
        libc::off64_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(c::EOVERFLOW))?;
    // SAFETY: both descriptors are open, and `offset` is read and written during the call.
    let sent = unsafe { libc::sendfile64(sock.as_raw_fd(), file.as_raw_fd(), &mut offset, count as usize) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Sends as on Linux. Bytes sent before EAGAIN or EINTR are reported as success, because the system
/// returns both (sendfile(2)).
#[cfg(any(target_os = "macos", target_os = "freebsd"))]
pub(crate) fn sendfile(sock: BorrowedFd<'_>, file: &File, offset: u64, count: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(c::EOVERFLOW))?;
    let (file, sock) = (file.as_raw_fd(), sock.as_raw_fd());
    #[cfg(target_os = "macos")]
    let (result, sent) = {
        let mut len = count as libc::off_t;
        // SAFETY: both descriptors are open, and `len` is read and written during the call.
        let result = unsafe { libc::sendfile(file, sock, offset, &mut len, std::ptr::null_mut(), 0) };
        (result, len)
    };
    #[cfg(target_os = "freebsd")]
    let (result, sent) = {
        let mut sent = 0;
        // SAFETY: both descriptors are open, and `sent` is written during the call.
        let result = unsafe {
            libc::sendfile(file, sock, offset, count as usize, std::ptr::null_mut(), &mut sent, 0)
        };
        (result, sent)
    };
    let error = io::Error::last_os_error();
    match result {
        0 => Ok(sent as usize),
        _ if sent > 0 && [Some(c::EAGAIN), Some(c::EINTR)].contains(&error.raw_os_error()) => {
            Ok(sent as usize)
        }
        _ => Err(error),
    }
}

#[cfg(windows)]
pub(crate) fn sendfile(_: BorrowedFd<'_>, _: &File, _: u64, _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns the number of an open file, for the trace.
#[cfg(unix)]
pub(crate) fn file_number(file: &File) -> usize {
    file.as_raw_fd() as usize
}

#[cfg(windows)]
pub(crate) fn file_number(file: &File) -> usize {
    std::os::windows::io::AsRawHandle::as_raw_handle(file) as usize
}

/// Returns whether the error means that sendfile(2) does not support this file, such as a pipe or a
/// file system without support.
#[cfg(unix)]
pub(crate) fn sendfile_cannot(error: &io::Error) -> bool {
    let codes = [c::EINVAL, c::ENOSYS, c::EOPNOTSUPP, c::ENOTSOCK, c::ESPIPE, c::EOVERFLOW];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(windows)]
pub(crate) fn sendfile_cannot(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}
