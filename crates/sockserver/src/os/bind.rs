//! Calls bind(2) with another umask, without changing the umask of this process.

use std::io;
use std::mem::{offset_of, zeroed};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::Ordering;

use sock::Socket;

use crate::os::process::SharedWords;

/// Set by the child after bind(2). The lower bits contain the errno.
const CALLED: u64 = 1 << 32;

/// Returns whether the path fits into `sun_path` with a NUL at its end.
pub(crate) fn fits(path: &Path) -> bool {
    let room = size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path);
    path.as_os_str().len() < room
}

/// Binds the socket to a path that [`fits`], in a child process with the umask `mask`. Both
/// processes share the socket, so it is bound in this one too.
///
/// Unlike `process::fork`, this is allowed in a process with threads. The child makes
/// async-signal-safe calls only (signal-safety(7)) and runs no signal handler.
pub(crate) fn bind_with_umask(socket: &Socket, path: &Path, mask: u32) -> io::Result<()> {
    // SAFETY: the structure is plain data, for which zeros are valid.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = *byte as libc::c_char;
    }
    let len = (offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1) as libc::socklen_t;
    let (descriptor, mask) = (socket.as_raw_fd(), mask as libc::mode_t);
    let result = SharedWords::new(1)?;
    let pid = without_signals(|| {
        // SAFETY: the child calls umask, bind and _exit only, writes to mapped memory, and does not
        // return.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::umask(mask);
                let bound = libc::bind(descriptor, (&raw const address).cast(), len);
                let errno =
                    if bound == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(0) };
                result.get(0).store(CALLED | errno as u64, Ordering::Release);
                libc::_exit(0);
            }
            if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
        }
    })?;
    // SAFETY: waitpid takes any number, and the status pointer may be null. If it fails for another
    // reason than a signal, other code of this process has reaped the child.
    while unsafe { libc::waitpid(pid, ptr::null_mut(), 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    match result.get(0).load(Ordering::Acquire) {
        0 => Err(io::Error::other("the child process that calls bind was killed")),
        CALLED => Ok(()),
        called => Err(io::Error::from_raw_os_error((called & !CALLED) as i32)),
    }
}

/// Calls `run` while all signals are blocked in this thread and in a child that it forks.
fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: the sets are plain data, for which zeros are valid, and live during the calls, which
    // cannot fail with these arguments.
    unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (zeroed(), zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let value = run();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        value
    }
}
