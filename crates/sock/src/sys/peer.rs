//! Who is at the other end of a Unix socket, and who we are. Unix only.

use std::io;
use std::os::fd::BorrowedFd;

use super::{c, getsockopt};

/// Process, user and group of a peer, as this system tells them; 0 for a process
/// it does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<(i32, u32, u32)> {
    // A `struct ucred` is three words.
    let mut words = [[0; 4]; 3];
    getsockopt(fd, c::SOL_SOCKET, c::SO_PEERCRED, words.as_flattened_mut())?;
    let [pid, uid, gid] = words.map(u32::from_ne_bytes);
    // unix(7): a socket without a peer has a process of 0 and ids of -1.
    if pid == 0 && uid == u32::MAX {
        return Err(io::Error::from_raw_os_error(c::ENOTCONN));
    }
    Ok((pid as i32, uid, gid))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<(i32, u32, u32)> {
    use std::os::fd::AsRawFd as _;
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: the call writes an id to each of the two.
    if unsafe { c::getpeereid(fd.as_raw_fd(), &mut uid, &mut gid) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok((peer_process(fd).unwrap_or(0), uid, gid))
}

/// Level of the options of Unix sockets, which has no name everywhere.
#[cfg(not(target_os = "linux"))]
const SOL_LOCAL: i32 = 0;

#[cfg(target_os = "macos")]
fn peer_process(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut pid = [0; 4];
    getsockopt(fd, SOL_LOCAL, c::LOCAL_PEERPID, &mut pid)?;
    Ok(i32::from_ne_bytes(pid))
}

/// FreeBSD 13 and later; before, the place is there and zero.
#[cfg(target_os = "freebsd")]
fn peer_process(fd: BorrowedFd<'_>) -> io::Result<i32> {
    const AT: usize = std::mem::offset_of!(c::xucred, cr_pid__c_anonymous_union);
    let mut bytes = [0; size_of::<c::xucred>()];
    getsockopt(fd, SOL_LOCAL, c::LOCAL_PEERCRED, &mut bytes)?;
    Ok(i32::from_ne_bytes([bytes[AT], bytes[AT + 1], bytes[AT + 2], bytes[AT + 3]]))
}

/// This process, and the user and group it acts as.
pub(crate) fn own_credentials() -> (u32, u32, u32) {
    // SAFETY: the two calls take nothing and cannot fail.
    let (uid, gid) = unsafe { (c::geteuid(), c::getegid()) };
    (std::process::id(), uid, gid)
}

/// Does something as another user and group, in a thread of its own: to Linux ids are
/// a thread's, and only the C library changes those of all. `None` without the privilege.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn as_somebody_else<T: Send>(uid: u32, gid: u32, work: impl FnOnce() -> T + Send) -> Option<T> {
    const AS_IT_IS: u32 = u32::MAX;
    let become_somebody_else = || {
        // SAFETY: both calls take numbers. The group first: after the user the privilege is gone.
        let results = unsafe {
            [
                c::syscall(c::SYS_setresgid, AS_IT_IS, gid, AS_IT_IS),
                c::syscall(c::SYS_setresuid, AS_IT_IS, uid, AS_IT_IS),
            ]
        };
        results == [0, 0]
    };
    std::thread::scope(|scope| {
        scope
            .spawn(|| become_somebody_else().then(work))
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
