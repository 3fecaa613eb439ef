//! Processes: fork(2), waitpid(2), _exit(2), signals and shared memory.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The process id of a child.
pub(crate) type Pid = libc::pid_t;

/// The side of a fork that this process is.
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks this process. On Linux this fails if the process has other threads.
///
/// The child has one thread. A lock that another thread holds at that moment (of the allocator or
/// the logger, for example) stays locked in the child forever, so POSIX allows the child of a
/// threaded process async-signal-safe calls only (fork(2), signal-safety(7)).
pub(crate) fn fork() -> io::Result<Fork> {
    require_single_threaded()?;
    // SAFETY: on Linux `require_single_threaded` has returned an error unless this is the only
    // thread, so the child is a copy of the whole process and may do what the parent may. On other
    // systems the number of threads is not known. There the documentation of `ForkingMixIn` and
    // `PreforkMixIn` requires that the caller has started none. If there are others, fork(2) is
    // still defined, but the child may block on a lock that is never unlocked. The C libraries
    // reset the locks of their own allocators (pthread_atfork(3)).
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Makes the descriptor of `socket` a duplicate of the descriptor of `with`, and closes what it
/// referred to before.
///
/// A forked child uses this to close its copy of a socket that an inherited object still owns. The
/// descriptor's number stays in use, so no descriptor that the child opens later can get it.
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

/// Calls dup2(2), with close-on-exec where one call can do both.
///
/// # Safety
///
/// Both descriptors must be open, and nothing may depend on what `new` refers to.
unsafe fn replace_descriptor(old: i32, new: i32) -> i32 {
    #[cfg(target_os = "linux")]
    // SAFETY: the caller ensures what `replace_descriptor` requires.
    return unsafe { libc::dup3(old, new, libc::O_CLOEXEC) };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the caller ensures what `replace_descriptor` requires.
    return unsafe { libc::dup2(old, new) };
}

/// Returns an error if this process has other threads, and on Linux also if their number cannot be
/// determined. Other systems are not checked.
pub(crate) fn require_single_threaded() -> io::Result<()> {
    if is_single_threaded() || cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    let mut threads = thread_count();
    // The kernel counts a thread for a short time after it was joined, because joining waits for
    // the thread's function only.
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
            "fork refused: cannot read /proc/self/task to check that this process has no other threads, \
             whose locks would stay locked in the child (mount /proc, or use ThreadingMixIn)",
        ));
    };
    Err(io::Error::other(format!(
        "fork refused: this process has {threads} threads, and locks that the others hold would stay locked \
         in the child (start no threads before serving, or use ThreadingMixIn)"
    )))
}

/// Returns whether glibc 2.32 or newer knows that this process has one thread
/// (`__libc_single_threaded`, sys/single_threaded.h).
///
/// False means that it has started a thread since the fork that created this process. That thread
/// may have ended.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_single_threaded() -> bool {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    static FLAG: OnceLock<Option<&AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| {
        // SAFETY: the name ends with a NUL. The symbol is a `char` that exists as long as the
        // process and is 0 or 1. The C library writes it before a thread starts.
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

/// Returns the number of threads of this process, `None` if it cannot be determined.
#[cfg(target_os = "linux")]
fn thread_count() -> Option<usize> {
    use std::os::unix::fs::MetadataExt;
    const TASKS: &str = "/proc/self/task";
    // A directory has a link for itself, its name, and each directory in it, so stat(2) is enough
    // (proc_task_getattr in the kernel's fs/proc/base.c counts the threads this way).
    let links = std::fs::metadata(TASKS).ok()?.nlink();
    match usize::try_from(links.saturating_sub(2)) {
        Ok(threads @ 1..) => Some(threads),
        // Not the value of procfs, which counts at least this thread.
        _ => std::fs::read_dir(TASKS).ok().map(Iterator::count).filter(|threads| *threads > 0),
    }
}

#[cfg(not(target_os = "linux"))]
fn thread_count() -> Option<usize> {
    None
}

/// Exits this process at once, without destructors or `atexit` handlers, which belong to the parent.
#[inline]
pub(crate) fn _exit(status: i32) -> ! {
    // SAFETY: _exit takes any status and does not return.
    unsafe { libc::_exit(status) }
}

/// The status of a child, from waitpid(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitStatus {
    Running,
    /// The child has exited with this status and was reaped.
    Exited(i32),
    /// This signal has killed the child, which was reaped.
    Killed(i32),
    /// Other code of this process has reaped the child.
    Gone,
}

/// Reaps one child if it has ended. `waitpid(-1)` would also reap children that other code of this
/// process has started.
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

/// Returns whether a process exists, by its number. A zombie exists until it is reaped.
pub(crate) fn is_alive(pid: u64) -> bool {
    let Ok(pid @ 1..) = Pid::try_from(pid) else { return false };
    // SAFETY: kill takes any number and fails if there is no such process. Signal 0 is not sent.
    let result = unsafe { libc::kill(pid, 0) };
    // EPERM means that the process exists.
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Kills a child. It must not have been reaped yet, so that its process id is not reused.
pub(crate) fn kill(pid: Pid) {
    // SAFETY: kill takes any number and fails if there is no such process.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Sends the signal's number through `sender` whenever this process receives the signal.
///
/// A forked child sends nothing, because its copy of the socket is connected to the parent.
#[cfg(feature = "signals")]
pub(crate) fn on_signal(
    signal: i32,
    sender: std::sync::Arc<sock::Socket>,
) -> io::Result<signal_hook::SigId> {
    use sock::AsRawFd;

    let (fd, pid) = (sender.as_raw_fd(), std::process::id());
    let action = move || {
        // The action owns the socket, so the descriptor is open as long as it can be called.
        let _keep_open = &sender;
        let number = signal as u8;
        // SAFETY: getpid(2) and send(2) are async-signal-safe (signal-safety(7)), and the byte is
        // read during the call. If the buffer is full, the receiver has enough signals to read.
        unsafe {
            if libc::getpid() as u32 == pid {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                while libc::send(fd, (&raw const number).cast(), 1, flags) < 0
                    && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {}
            }
        }
    };
    // SAFETY: the action is async-signal-safe: it does not allocate, lock or panic. signal-hook's
    // registry preserves errno.
    unsafe { signal_hook::low_level::register(signal, action) }
}

/// Emulates the default action of a signal whenever `is_caught` returns false.
///
/// Does nothing if the signal has a handler. The registration is permanent, because signal-hook does
/// not restore the default action when its handlers are removed.
#[cfg(feature = "signals")]
pub(crate) fn default_unless(signal: i32, is_caught: fn() -> bool) -> io::Result<()> {
    // SAFETY: the structure is plain data, for which zeros are valid, and is written during the
    // call, which does not change the action.
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
    // SAFETY: reading an atomic and emulating the default action are async-signal-safe.
    unsafe { signal_hook::low_level::register(signal, action) }.map(drop)
}

/// Grows the descriptor table to `count` entries, within the limit of the process.
///
/// In a process with threads the kernel waits for some milliseconds each time it doubles the table,
/// and accept(2) waits with it (`expand_fdtable`, `synchronize_rcu`).
#[cfg(target_os = "linux")]
pub(crate) fn preallocate_fd_table(count: usize) {
    // SAFETY: fcntl takes any numbers, and the new descriptor is used here only.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let allowed = usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX);
        let last = allowed.min(count).min(MAX_PREALLOCATED).saturating_sub(1);
        // Standard error is usually open. If it is not, the call fails and has no effect.
        let duplicate = libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, last as libc::c_int);
        if duplicate >= 0 {
            libc::close(duplicate);
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn preallocate_fd_table(_: usize) {}

/// The largest table to allocate. An entry takes eight bytes of kernel memory.
#[cfg(target_os = "linux")]
const MAX_PREALLOCATED: usize = 1 << 14;

/// Sends SIGABRT to a child, which may handle it, unlike the SIGKILL of [`kill`].
pub(crate) fn abort(pid: Pid) {
    // SAFETY: kill takes any number and fails if there is no such process.
    unsafe { libc::kill(pid, libc::SIGABRT) };
}

/// Memory that this process shares with the processes that it forks.
pub(crate) struct SharedWords {
    start: std::ptr::NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the memory is a slice of atomics, which any thread may use.
unsafe impl Send for SharedWords {}
// SAFETY: see above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    pub(crate) fn new(len: usize) -> io::Result<SharedWords> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: the system chooses an address where nothing else is mapped.
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

    pub(crate) fn get(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len);
        // SAFETY: the mapping is zeroed, aligned to a page, `len` words long, and lives as long as
        // `self`.
        unsafe { self.start.add(index).as_ref() }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: `new` has mapped this memory, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len.max(1) * size_of::<AtomicU64>()) };
    }
}
