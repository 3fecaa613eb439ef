//! bind(2) of a Unix socket whose path is to have a mode.
//!
//! chmod(2) after bind(2) comes too late, and by path it may reach another file: in a directory
//! that others may write to, a symbolic link may have taken the place of the socket. So the file
//! is created with its mode, and nothing is changed afterwards.
//!
//! Linux creates it with the mode of the socket's own inode less the umask (`unix_bind_bsd` in
//! the kernel's net/unix/af_unix.c), and fchmod(2) before bind(2) sets that mode. Where the umask
//! would take away a bit that is asked for, and on other systems (`ACCESSPERMS & ~cmask` in XNU's
//! bsd/kern/uipc_usrreq.c and in FreeBSD's sys/kern/uipc_usrreq.c), a child process binds the
//! socket under a umask of its own: that of this process is every thread's.

use std::cell::Cell;
use std::io;

use sock::{Address, Socket};

use crate::os::bind;

/// The mode that the next bind in this thread is to give a path.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    bits: u32,
    /// The inode of the socket has it already.
    is_set: bool,
}

thread_local! {
    static MODE: Cell<Option<Mode>> = const { Cell::new(None) };
}

impl Mode {
    /// The mode for what `socket` is going to be bound to; not later than that.
    pub(crate) fn of(socket: &Socket, bits: u32) -> Mode {
        let raw = rustix::fs::Mode::from_raw_mode(bits as rustix::fs::RawMode);
        // Elsewhere than on Linux it has no effect. If it fails, the child's umask does it alone.
        let is_set = cfg!(target_os = "linux") && rustix::fs::fchmod(socket, raw).is_ok();
        Mode { bits, is_set }
    }
}

/// Runs `run`, in which [`bind`] gives a path that mode.
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

/// `socket.bind(address)`; a path gets the mode that [`with_mode`] says.
pub(crate) fn bind(socket: &Socket, address: &Address) -> io::Result<()> {
    if let (Some(mode), Some(path)) = (MODE.get(), address.path()) {
        // One that is too long fails in the usual way.
        if !(mode.is_set && umask().is_some_and(|umask| umask & mode.bits == 0)) && bind::fits(path) {
            return bind::bind_with_umask(socket, path, !mode.bits & 0o777);
        }
    }
    socket.bind(address)
}

/// The umask of this thread, where it can be read without being changed.
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(umask.trim(), 8).ok()
}
