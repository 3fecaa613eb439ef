//! Processes: fork(2), waitpid(2), _exit(2), signals and shared memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
#[cfg(feature = "signals")]
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use crate::os::exit_timer;
use crate::os::pair::pair;

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
        0 => {
            exit_timer::enter_child();
            Ok(Fork::Child)
        }
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Makes the descriptor of `socket` a duplicate of the descriptor of `with`, and closes what it
/// referred to before.
///
/// A forked child uses this to close its copy of a socket that an inherited object still owns. The
/// descriptor's number stays in use, so no descriptor that the child opens later can get it.
///
/// # Safety
///
/// Nothing may depend on what the descriptor of `socket` refers to.
pub(super) unsafe fn replace(socket: &impl AsFd, with: &impl AsFd) -> io::Result<()> {
    let (new, old) = (socket.as_fd(), with.as_fd());
    loop {
        // SAFETY: both descriptors are borrowed, so they are open, and stay open. The caller
        // guarantees the rest.
        let replaced = unsafe { replace_descriptor(old.as_raw_fd(), new.as_raw_fd()) };
        match io::Error::last_os_error() {
            _ if replaced >= 0 => return Ok(()),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

/// Replaces a connected pair by a new one, under the same descriptor numbers.
///
/// The pair that a process has inherited from its parent is shared with it, so that each would
/// receive what the other sends.
pub(crate) fn renew_pair(receiver: &sock::Socket, sender: &sock::Socket) -> io::Result<()> {
    let (new_receiver, new_sender) = pair()?;
    new_receiver.setblocking(receiver.getblocking())?;
    new_sender.setblocking(sender.getblocking())?;
    // SAFETY: the callers use the descriptors to wake a thread of this process only, and the new
    // pair does the same.
    unsafe {
        replace(receiver, &new_receiver)?;
        replace(sender, &new_sender)
    }
}

/// Makes the system keep the exit status of children until it is read with waitpid(2). A program
/// inherits from its parent that SIGCHLD is ignored, and then the status is discarded.
pub(crate) fn keep_exit_statuses() -> io::Result<()> {
    // SAFETY: the structure is plain data, for which zeros are valid, and is written by the first
    // call. The second one keeps the action, or sets the default action of SIGCHLD, which has no
    // effect on the process.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGCHLD, std::ptr::null(), &mut action) < 0 {
            return Err(io::Error::last_os_error());
        }
        if action.sa_sigaction != libc::SIG_IGN && action.sa_flags & libc::SA_NOCLDWAIT == 0 {
            return Ok(());
        }
        if action.sa_sigaction == libc::SIG_IGN {
            action.sa_sigaction = libc::SIG_DFL;
        }
        action.sa_flags &= !libc::SA_NOCLDWAIT;
        libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

/// The exit status for [`exit_after`].
static LATE_STATUS: AtomicI32 = AtomicI32::new(0);

/// Makes this process exit with `status` when `limit` has passed, whatever its threads do then. It
/// uses SIGALRM and the timer of alarm(2), so it is for a process that is about to exit.
pub(crate) fn exit_after(limit: Duration, status: i32) -> io::Result<()> {
    extern "C" fn exit(_: libc::c_int) {
        // SAFETY: _exit is async-signal-safe (signal-safety(7)) and does not return.
        unsafe { libc::_exit(LATE_STATUS.load(Ordering::SeqCst)) }
    }
    LATE_STATUS.store(status, Ordering::SeqCst);
    // SAFETY: the structures are plain data, for which zeros are valid. The handler is a function
    // that makes async-signal-safe calls only, and exists as long as the process.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = exit as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigemptyset(&mut action.sa_mask);
        if libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGALRM);
        match libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        libc::alarm(limit.as_secs().max(1) as libc::c_uint);
    }
    Ok(())
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

impl WaitStatus {
    /// Returns the exit status, if the child has exited.
    pub(crate) fn status(self) -> Option<i32> {
        if let WaitStatus::Exited(status) = self { Some(status) } else { None }
    }

    /// Returns the name of the signal that has killed the child.
    pub(crate) fn signal(self) -> Option<&'static str> {
        if let WaitStatus::Killed(signal) = self { signal_name(signal) } else { None }
    }
}

/// Returns the name of a signal that ends a process.
pub(crate) fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGALRM => "SIGALRM",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGXCPU => "SIGXCPU",
        _ => return None,
    })
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

/// Returns whether a child is stopped by a signal. False if the program has waited for that itself.
pub(crate) fn is_stopped(pid: Pid) -> bool {
    // SAFETY: siginfo_t has no invalid values, and a child that is not stopped leaves it as it is.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the status is written during the call, and stays for others to wait for.
    let result = unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, options) };
    result == 0 && info.si_signo == libc::SIGCHLD
}

/// Returns whether a process exists, by its number. A zombie exists until it is reaped.
pub(crate) fn is_alive(pid: u64) -> bool {
    let Ok(pid @ 1..) = Pid::try_from(pid) else { return false };
    // SAFETY: kill takes any number and fails if there is no such process. Signal 0 is not sent.
    let result = unsafe { libc::kill(pid, 0) };
    // EPERM means that the process exists.
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Returns whether a process is a child that was not reaped. Other code of this process may have
/// reaped it, and then the system may give its process id to another process.
fn is_own_child(pid: Pid) -> bool {
    // SAFETY: siginfo_t has no invalid values.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the status is written during the call, and stays for others to wait for.
    unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, options) == 0 }
}

/// Kills a child, unless it was reaped.
pub(crate) fn kill(pid: Pid) {
    if is_own_child(pid) {
        // SAFETY: kill takes any number and fails if there is no such process.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// The process in which signals are received through a pair of sockets.
#[cfg(feature = "signals")]
pub(crate) struct SignalOwner {
    pid: AtomicU64,
    /// The last signal of a process that does not own the pair, after its process id in the upper
    /// half.
    missed: AtomicU64,
}

#[cfg(feature = "signals")]
impl SignalOwner {
    pub(crate) fn new() -> SignalOwner {
        SignalOwner { pid: AtomicU64::new(std::process::id().into()), missed: AtomicU64::new(0) }
    }

    /// Returns whether this process owns the pair.
    pub(crate) fn is_this_process(&self) -> bool {
        self.pid.load(Ordering::SeqCst) == u64::from(std::process::id())
    }

    /// Makes this process the owner of the pair, which must be its own. The signal that it has
    /// received since it was forked is sent now.
    pub(crate) fn take_over(&self, sender: &sock::Socket) {
        self.pid.store(std::process::id().into(), Ordering::SeqCst);
        self.send_missed(sender.as_raw_fd());
    }

    /// Async-signal-safe.
    fn receive(&self, signal: i32, fd: i32) {
        // SAFETY: getpid(2) takes nothing and is async-signal-safe (signal-safety(7)).
        let own = unsafe { libc::getpid() } as u64;
        if self.pid.load(Ordering::SeqCst) == own {
            return deliver(signal as u8, fd);
        }
        self.missed.store(own << 32 | signal as u64, Ordering::SeqCst);
        // Another thread may have taken over in the meantime.
        if self.pid.load(Ordering::SeqCst) == own {
            self.send_missed(fd);
        }
    }

    /// Async-signal-safe.
    fn send_missed(&self, fd: i32) {
        let missed = self.missed.swap(0, Ordering::SeqCst);
        if missed != 0 && missed >> 32 == self.pid.load(Ordering::SeqCst) {
            deliver(missed as u8, fd);
        }
    }
}

#[cfg(feature = "signals")]
fn deliver(number: u8, fd: i32) {
    send_signal(number, fd);
    if matches!(i32::from(number), libc::SIGTERM | libc::SIGINT) {
        exit_timer::signal_received(number);
    }
}

#[cfg(feature = "signals")]
fn send_signal(number: u8, fd: i32) {
    // The system may have no memory for the byte for a moment. Then it is sent for a second.
    let mut pauses = 0;
    loop {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: send(2) is async-signal-safe (signal-safety(7)), and the byte is read during the
        // call. If the buffer is full, the receiver has enough signals to read.
        let sent = unsafe { libc::send(fd, (&raw const number).cast(), 1, flags) };
        match io::Error::last_os_error().raw_os_error() {
            _ if sent >= 0 => return,
            Some(libc::EINTR) => {}
            Some(libc::ENOBUFS | libc::ENOMEM) if pauses < 200 => {
                pauses += 1;
                // SAFETY: poll(2) is async-signal-safe, and gets no descriptors.
                unsafe { libc::poll(std::ptr::null_mut(), 0, 5) };
            }
            _ => return,
        }
    }
}

/// Signals that are unblocked in this thread until this is dropped.
#[cfg(feature = "signals")]
pub(crate) struct UnblockedSignals {
    before: libc::sigset_t,
    /// The mask belongs to the thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

#[cfg(feature = "signals")]
impl UnblockedSignals {
    pub(crate) fn new(signals: &[i32]) -> io::Result<UnblockedSignals> {
        // SAFETY: both sets are plain data, which sigemptyset(3) and pthread_sigmask(3) write.
        unsafe {
            let (mut set, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigemptyset(&mut set);
            for signal in signals {
                libc::sigaddset(&mut set, *signal);
            }
            match libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, &mut before) {
                0 => Ok(UnblockedSignals { before, _not_send: std::marker::PhantomData }),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

#[cfg(feature = "signals")]
impl Drop for UnblockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is the mask that this thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Sends the signal's number through `sender` whenever the owner receives the signal.
///
/// Another process sends nothing until it takes over, because its copy of the socket is connected to
/// its parent.
#[cfg(feature = "signals")]
pub(crate) fn on_signal(
    signal: i32,
    sender: Arc<sock::Socket>,
    owner: Arc<SignalOwner>,
) -> io::Result<signal_hook::SigId> {
    let fd = sender.as_raw_fd();
    let action = move || {
        // The action owns the socket, so the descriptor is open as long as it can be called.
        let _keep_open = &sender;
        owner.receive(signal, fd);
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
            // It fails only for a signal without a number.
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

/// Returns how many descriptors a process may have, up to `usize::MAX`.
pub(crate) fn max_descriptors() -> usize {
    // SAFETY: getrlimit writes the limit, for which zeros are a valid value.
    let limit = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit
    };
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// Sends SIGABRT to a child, which may handle it, unlike the SIGKILL of [`kill`].
pub(crate) fn abort(pid: Pid) {
    if is_own_child(pid) {
        // SAFETY: kill takes any number and fails if there is no such process.
        unsafe { libc::kill(pid, libc::SIGABRT) };
    }
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

    /// Replaces the memory by zeroed memory, which this process does not share with its parent.
    pub(crate) fn renew(&self) -> io::Result<()> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
        let (start, bytes) = (self.start.as_ptr().cast(), self.len.max(1) * size_of::<AtomicU64>());
        // SAFETY: only the mapping of `new` is replaced. The words stay valid, readable and writable.
        match unsafe { libc::mmap(start, bytes, protection, flags, -1, 0) } {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            _ => Ok(()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_child_that_was_not_reaped_is_killed() {
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "exit 0"]).spawn().unwrap();
        let pid = Pid::try_from(child.id()).unwrap();
        assert!(is_own_child(pid));
        child.wait().unwrap();
        assert!(!is_own_child(pid), "it was reaped");
        assert!(!is_own_child(std::process::id() as Pid), "this process is not its child");
    }
}
