//! Credentials of the peer of a Unix socket and of this process. Unix only.

use std::io;
use std::os::fd::BorrowedFd;
#[cfg(target_os = "linux")]
use std::os::fd::{OwnedFd, RawFd};

use super::{c, getsockopt};

/// Returns process, user and group of the peer. The process is 0 if the system does not report it.
#[cfg(target_os = "linux")]
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<(i32, u32, u32)> {
    // A `struct ucred` has three 32-bit fields.
    let mut words = [[0; 4]; 3];
    getsockopt(fd, c::SOL_SOCKET, c::SO_PEERCRED, words.as_flattened_mut())?;
    let [pid, uid, gid] = words.map(u32::from_ne_bytes);
    // unix(7): a socket without a peer has process 0 and ids of -1.
    if pid == 0 && uid == u32::MAX {
        return Err(io::Error::from_raw_os_error(c::ENOTCONN));
    }
    Ok((pid as i32, uid, gid))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<(i32, u32, u32)> {
    use std::os::fd::AsRawFd as _;
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: the call writes one id to each address.
    if unsafe { c::getpeereid(fd.as_raw_fd(), &mut uid, &mut gid) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok((peer_process(fd).unwrap_or(0), uid, gid))
}

/// Level of the options of Unix sockets. It is 0 on all of these systems, but not all have a name
/// for it.
#[cfg(not(target_os = "linux"))]
const SOL_LOCAL: i32 = 0;

#[cfg(target_os = "macos")]
fn peer_process(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut pid = [0; 4];
    getsockopt(fd, SOL_LOCAL, c::LOCAL_PEERPID, &mut pid)?;
    Ok(i32::from_ne_bytes(pid))
}

/// FreeBSD 13 and later. Before, the field exists and is zero.
#[cfg(target_os = "freebsd")]
fn peer_process(fd: BorrowedFd<'_>) -> io::Result<i32> {
    const AT: usize = std::mem::offset_of!(c::xucred, cr_pid__c_anonymous_union);
    let mut bytes = [0; size_of::<c::xucred>()];
    getsockopt(fd, SOL_LOCAL, c::LOCAL_PEERCRED, &mut bytes)?;
    Ok(i32::from_ne_bytes([bytes[AT], bytes[AT + 1], bytes[AT + 2], bytes[AT + 3]]))
}

/// Returns a new descriptor of the peer's process (`SO_PEERPIDFD`, Linux 6.5).
#[cfg(target_os = "linux")]
pub(crate) fn peer_pidfd(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    let mut number = [0; size_of::<RawFd>()];
    getsockopt(fd, c::SOL_SOCKET, SO_PEERPIDFD, &mut number)?;
    // SAFETY: the kernel has just created this descriptor for this call, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(number)) })
}

/// asm-generic/socket.h.
#[cfg(target_os = "linux")]
const SO_PEERPIDFD: i32 = 77;

/// Returns whether getsockopt(2) of this option creates a descriptor, whose number is the value.
#[cfg(target_os = "linux")]
pub(crate) fn creates_descriptor(level: i32, option: i32) -> bool {
    // SCTP_SOCKOPT_PEELOFF and SCTP_SOCKOPT_PEELOFF_FLAGS (linux/sctp.h).
    let peeloff = level == c::IPPROTO_SCTP && [102, 122].contains(&option);
    peeloff || (level, option) == (c::SOL_SOCKET, SO_PEERPIDFD)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn creates_descriptor(_level: i32, _option: i32) -> bool {
    false
}

/// Returns this process with its effective user and group.
pub(crate) fn own_credentials() -> (u32, u32, u32) {
    // SAFETY: the two calls have no arguments and cannot fail.
    let (uid, gid) = unsafe { (c::geteuid(), c::getegid()) };
    (std::process::id(), uid, gid)
}

/// Runs `work` with another user and group, in its own thread: in Linux the ids belong to a thread,
/// and only the C library changes those of all threads. Returns `None` without the privilege.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn with_user_and_group<T: Send>(
    uid: u32,
    gid: u32,
    work: impl FnOnce() -> T + Send,
) -> Option<T> {
    const UNCHANGED: u32 = u32::MAX;
    let set_ids = || {
        // SAFETY: both calls take numbers. The group is set first, because setting the user drops
        // the privilege.
        let results = unsafe {
            [
                c::syscall(c::SYS_setresgid, UNCHANGED, gid, UNCHANGED),
                c::syscall(c::SYS_setresuid, UNCHANGED, uid, UNCHANGED),
            ]
        };
        results == [0, 0]
    };
    std::thread::scope(|scope| {
        scope.spawn(|| set_ids().then(work)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
