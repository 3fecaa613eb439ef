//! Binds a Unix socket to a path that gets a given mode.
//!
//! chmod(2) after bind(2) would leave the path open for a short time. It could also change another
//! file, because in a directory that others may write to, the socket may have been replaced by a
//! symbolic link. So the file is created with its mode and not changed afterwards.
//!
//! Linux creates the file with the mode of the socket's own inode without the bits of the umask
//! (`unix_bind_bsd` in the kernel's net/unix/af_unix.c), and fchmod(2) before bind(2) sets that mode.
//! If the umask contains a requested bit, and on other systems (`ACCESSPERMS & ~cmask` in XNU's
//! bsd/kern/uipc_usrreq.c and in FreeBSD's sys/kern/uipc_usrreq.c), a child process with another
//! umask binds the socket, because all threads of a process share one umask.

use std::cell::Cell;
use std::io;

use sock::{Address, Socket};

use crate::os::bind;

/// The mode that the next bind in this thread gives a path.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    bits: u32,
    /// The inode of the socket already has the mode.
    is_set: bool,
}

thread_local! {
    static MODE: Cell<Option<Mode>> = const { Cell::new(None) };
}

impl Mode {
    /// Creates the mode for the path that `socket` will be bound to. Call it before bind(2).
    pub(crate) fn of(socket: &Socket, bits: u32) -> Mode {
        let raw = rustix::fs::Mode::from_raw_mode(bits as rustix::fs::RawMode);
        // fchmod(2) has no effect on other systems. If it fails, the umask of a child sets the mode.
        let is_set = cfg!(target_os = "linux") && rustix::fs::fchmod(socket, raw).is_ok();
        Mode { bits, is_set }
    }
}

/// Calls `run`, in which [`bind`] gives a path this mode.
pub(crate) fn with_mode<T>(mode: Option<Mode>, run: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            MODE.set(None);
        }
    }
    let _reset = Reset;
    MODE.set(mode);
    run()
}

/// Binds the socket. A path gets the mode of [`with_mode`].
pub(crate) fn bind(socket: &Socket, address: &Address) -> io::Result<()> {
    if let (Some(mode), Some(path)) = (MODE.get(), address.path()) {
        // A path that is too long fails in `Socket::bind`.
        if !(mode.is_set && umask().is_some_and(|umask| umask & mode.bits == 0)) && bind::fits(path) {
            return bind::bind_with_umask(socket, path, !mode.bits & 0o777);
        }
    }
    socket.bind(address)
}

/// Returns the umask of this thread, if it can be read without changing it.
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(umask.trim(), 8).ok()
}
