//! fork(2), waitpid(2), _exit(2): what a process for each request needs of the
//! system.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Process id of a child.
pub(crate) type Pid = libc::pid_t;

/// Which side of a fork this is.
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks. On Linux only while this is the only thread of the process.
///
/// The child has one thread. A lock that another thread holds at that moment
/// (the allocator's, the logger's) stays locked in the child for ever, so POSIX
/// allows the child of a threaded process hardly anything (fork(2),
/// signal-safety(7)).
pub(crate) fn fork() -> io::Result<Fork> {
    require_single_threaded()?;
    // SAFETY: on Linux `require_single_threaded` has returned an error unless this is the only thread,
    // so the child is a copy of the whole process and may do what the parent may. Other systems
    // are not asked for the number of threads: there the documentation of `ForkingMixIn` and
    // `PreforkMixIn` requires the caller to have started none. If there are others, fork(2)
    // itself is still defined, but the child may find locks that nothing unlocks any more, and
    // hang; the C libraries reset those of their own allocators (pthread_atfork(3)).
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Makes the descriptor of `socket` another descriptor of what `with` refers to, and closes
/// what it referred to before: for a forked child, which has to close its copy of a descriptor
/// that an object inherited from the parent still owns. The number stays that object's, so no
/// descriptor that the child opens later can get it.
pub(crate) fn replace(socket: &impl AsRawFd, with: &impl AsRawFd) -> io::Result<()> {
    loop {
        // SAFETY: both numbers are open, since their owners are borrowed, and stay open.
        let replaced = unsafe { replace_descriptor(with.as_raw_fd(), socket.as_raw_fd()) };
        match io::Error::last_os_error() {
            _ if replaced >= 0 => return Ok(()),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

/// dup2(2), with close-on-exec where one call can do both.
///
/// # Safety
///
/// Both descriptors are open, and nothing depends on what `new` refers to.
unsafe fn replace_descriptor(old: i32, new: i32) -> i32 {
    #[cfg(target_os = "linux")]
    // SAFETY: the caller's promise.
    return unsafe { libc::dup3(old, new, libc::O_CLOEXEC) };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the caller's promise.
    return unsafe { libc::dup2(old, new) };
}

/// Returns an error if other threads run beside this one, and on Linux also if that cannot be
/// found out. Other systems are not asked.
pub(crate) fn require_single_threaded() -> io::Result<()> {
    if is_single_threaded() || cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    let mut threads = thread_count();
    // A thread that was joined is still counted for a moment: joining waits for
    // the end of its work, not for the kernel to forget it.
    for _ in 0..20 {
        match threads {
            Some(1) => return Ok(()),
            Some(_) => {}
            None => break,
        }
        let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
        threads = thread_count();
    }
    let Some(threads) = threads else {
        return Err(io::Error::other(
            "fork refused: /proc/self/task cannot be read, so other threads may run in this process, and a \
             child would have only one of them, while locks the others hold stay locked (mount /proc, or \
             use ThreadingMixIn)",
        ));
    };
    Err(io::Error::other(format!(
        "fork refused: {threads} threads run in this process, and a child would have only one of them, \
         while locks the others hold stay locked (start no threads before serving, or use ThreadingMixIn)"
    )))
}

/// What glibc (2.32 and newer) tells without a call: it has started no second thread, or
/// none since the fork that made this process (`__libc_single_threaded`, sys/single_threaded.h).
/// False means nothing: those it has started may have ended.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_single_threaded() -> bool {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    static FLAG: OnceLock<Option<&AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| {
        // SAFETY: the name ends with a NUL. What it names is a `char` that is there as long as
        // the process is, and is 0 or 1; the C library writes it before a thread starts.
        unsafe {
            libc::dlsym(libc::RTLD_DEFAULT, c"__libc_single_threaded".as_ptr())
                .cast::<AtomicBool>()
                .as_ref()
        }
    });
    flag.is_some_and(|flag| flag.load(Ordering::Relaxed))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn is_single_threaded() -> bool {
    false
}

/// How many threads this process has; `None` if it cannot be found out.
#[cfg(target_os = "linux")]
fn thread_count() -> Option<usize> {
    use std::os::unix::fs::MetadataExt;
    const TASKS: &str = "/proc/self/task";
    // One call: a directory has a link for itself, its name, and each directory in it
    // (proc_task_getattr in the kernel's fs/proc/base.c counts the threads so).
    let links = std::fs::metadata(TASKS).ok()?.nlink();
    match usize::try_from(links.saturating_sub(2)) {
        Ok(threads @ 1..) => Some(threads),
        // Not what procfs says. There is a thread at least: this one.
        _ => std::fs::read_dir(TASKS).ok().map(Iterator::count).filter(|threads| *threads > 0),
    }
}

#[cfg(not(target_os = "linux"))]
fn thread_count() -> Option<usize> {
    None
}

/// Ends this process at once: no destructors, no handlers of `atexit`, nothing
/// of the parent's that the child only has a copy of.
#[inline]
pub(crate) fn _exit(status: i32) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { libc::_exit(status) }
}

/// What became of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitStatus {
    Running,
    /// It has ended by itself, with this status; no zombie is left.
    Exited(i32),
    /// This signal has killed it; no zombie is left.
    Killed(i32),
    /// Somebody else has collected it.
    Gone,
}

/// Asks for one child, and only for this one: `waitpid(-1)` would take the
/// children of other code in the process.
pub(crate) fn wait_child(pid: Pid) -> WaitStatus {
    let mut status = 0;
    loop {
        // SAFETY: the status is written during the call.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 => return WaitStatus::Running,
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return WaitStatus::Gone,
            _ if libc::WIFSIGNALED(status) => return WaitStatus::Killed(libc::WTERMSIG(status)),
            _ => return WaitStatus::Exited(libc::WEXITSTATUS(status)),
        }
    }
}

/// Kills a child of ours that has not been collected yet, so that the number is
/// still its own.
pub(crate) fn kill(pid: Pid) {
    // SAFETY: kill takes any number; it fails for a process that is gone.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Writes the signal's number to `told` whenever it comes, in this process; a
/// forked child, whose copy of all this reaches its parent's socket, is left out.
#[cfg(feature = "signals")]
pub(crate) fn on_signal(signal: i32, told: std::sync::Arc<sock::Socket>) -> io::Result<signal_hook::SigId> {
    use sock::AsRawFd;

    let (fd, pid) = (told.as_raw_fd(), std::process::id());
    let action = move || {
        // Owned by the action: open as long as it can be called.
        let _keep_open = &told;
        let number = signal as u8;
        // SAFETY: getpid(2) and send(2) may be called by a signal handler
        // (signal-safety(7)); the byte is read during the call. A full buffer has
        // told all there is to tell.
        unsafe {
            if libc::getpid() as u32 == pid {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                while libc::send(fd, (&raw const number).cast(), 1, flags) < 0
                    && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {}
            }
        }
    };
    // SAFETY: the action does what a signal handler may do, as said above; it
    // neither allocates nor locks nor panics. errno is kept by the registry.
    unsafe { signal_hook::low_level::register(signal, action) }
}

/// Has the signal do what it does by default while `is_caught` says no. Nothing if
/// somebody handles it already. Registered once, and for good: what has taken the place
/// of a default does not give it back by itself.
#[cfg(feature = "signals")]
pub(crate) fn default_unless(signal: i32, is_caught: fn() -> bool) -> io::Result<()> {
    // SAFETY: the structure is plain data, for which zeros are valid, and is written
    // during the call, which changes nothing.
    let handled = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &mut action) < 0 {
            return Err(io::Error::last_os_error());
        }
        action.sa_sigaction != libc::SIG_DFL
    };
    if handled {
        return Ok(());
    }
    let action = move || {
        if !is_caught() {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    };
    // SAFETY: looking at an atomic and the default's emulation are what a signal handler
    // may do.
    unsafe { signal_hook::low_level::register(signal, action) }.map(drop)
}

/// Makes the table of descriptors large enough for that many, as far as they are
/// allowed. In a process with threads the kernel waits some milliseconds each time it
/// doubles the table, and with it whoever accepts (`expand_fdtable`, `synchronize_rcu`).
#[cfg(target_os = "linux")]
pub(crate) fn preallocate_fd_table(count: usize) {
    // SAFETY: fcntl takes any numbers, and the descriptor it makes is ours.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let allowed = usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX);
        let last = allowed.min(count).min(MAX_PREALLOCATED).saturating_sub(1);
        // Of a descriptor that is always there, or else nothing happens.
        let made = libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, last as libc::c_int);
        if made >= 0 {
            libc::close(made);
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn preallocate_fd_table(_: usize) {}

/// Eight bytes of the kernel's memory each.
#[cfg(target_os = "linux")]
const MAX_PREALLOCATED: usize = 1 << 14;

/// Time of the clock that stands still between two ticks of the kernel.
#[cfg(target_os = "linux")]
pub(crate) fn coarse_milliseconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written during the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// Tells a child of ours to end, which it may note; [`kill`] leaves it no choice.
pub(crate) fn abort(pid: Pid) {
    // SAFETY: kill takes any number; it fails for a process that is gone.
    unsafe { libc::kill(pid, libc::SIGABRT) };
}

/// Memory that this process shares with those it forks.
pub(crate) struct SharedWords {
    start: std::ptr::NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: it is a slice of atomics, which may be used from anywhere.
unsafe impl Send for SharedWords {}
// SAFETY: the same.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    pub(crate) fn new(len: usize) -> io::Result<SharedWords> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: the system chooses where; nothing else is there.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len.max(1) * size_of::<AtomicU64>(), protection, flags, -1, 0)
        };
        match std::ptr::NonNull::new(start.cast::<AtomicU64>()) {
            Some(words) if start != libc::MAP_FAILED => Ok(SharedWords { start: words, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, place: usize) -> &AtomicU64 {
        assert!(place < self.len);
        // SAFETY: the mapping is zeroed, aligned to a page, `len` words long, and
        // there as long as this is.
        unsafe { self.start.add(place).as_ref() }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: it is what `new` has mapped, and nobody borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len.max(1) * size_of::<AtomicU64>()) };
    }
}
