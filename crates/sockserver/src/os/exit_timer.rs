//! Ends a server that forks when a hook keeps its loop from carrying out SIGTERM or SIGINT.
//!
//! Other servers have a thread that receives the signal. A process that forks must not have one. So
//! the handler of the signal starts the timer of alarm(2), and the handler of SIGALRM ends the
//! children and the process, unless the loop goes on. All that they call is async-signal-safe
//! (signal-safety(7)).

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::os::monotonic;
use crate::os::process::{self, Pid, WaitStatus};

/// The same signal so soon after the first one belongs to it: a process group gets one from the
/// terminal or from timeout(1), and its leader another one.
pub(crate) const MIN_DISTANCE: Duration = Duration::from_millis(50);

/// How long the loop may take to carry out the signal before the children are sent the drain.
const LOOP_LIMIT: u32 = 1;

/// How long after the limit of the drain the loop may stay in one hook, in seconds.
const HOOK_EXIT_LIMIT: u32 = 2;

/// How soon the end is tried again if a lock was held.
const RETRY: u32 = 1;

/// How much earlier than its time the timer may expire, in milliseconds. The clock lags behind.
const EARLY: u64 = 50;

/// The longest time that alarm(2) accepts on every system, in seconds.
const MAX_ALARM: u64 = 100_000_000;

/// How often the exit of children is checked.
const EXIT_POLL_INTERVAL: libc::c_int = 5;

/// What is done after the first signal if the loop does not go on.
///
/// The functions are called in a signal handler, in any thread. They must not allocate, log, or wait
/// for a lock.
pub(crate) struct ExitPlan<'a> {
    /// How long the server goes on before the drain.
    pub(crate) lame_duck: Duration,
    /// The limit of the drain.
    pub(crate) limit: Duration,
    /// Makes the children drain within the time.
    pub(crate) drain_children: &'a (dyn Fn(Duration) + Sync),
    /// Ends the children, and removes what belongs to the server. Returns false if a lock is held.
    pub(crate) end: &'a (dyn Fn() -> bool + Sync),
}

/// The plan of the server that serves in the process [`OWNER`].
static PLAN: AtomicPtr<ExitPlan<'static>> = AtomicPtr::new(ptr::null_mut());
static OWNER: AtomicI32 = AtomicI32::new(0);

/// How many signal handlers use the plan.
static USERS: AtomicU32 = AtomicU32::new(0);

/// Twice the turns of the loop, and one more while it waits for an event.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// The turns when the timer has expired last.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// How often the loop has waited for the same event when the timer expired, after the drain.
static WAITS: AtomicU8 = AtomicU8::new(0);

/// When the timer expires, in milliseconds. An earlier SIGALRM is of another timer.
static DUE: AtomicU64 = AtomicU64::new(0);

/// The first signal and when it arrived in milliseconds, as `time << 8 | number`. 0 without one.
static FIRST: AtomicU64 = AtomicU64::new(0);

/// When the drain has begun, in milliseconds.
static DRAIN_BEGAN: AtomicU64 = AtomicU64::new(0);

/// What happens when the timer expires.
static STEP: AtomicU8 = AtomicU8::new(LAME_DUCK);
const LAME_DUCK: u8 = 0;
const DRAIN: u8 = 1;
const WAIT: u8 = 2;
const END: u8 = 3;

/// Runs a server. While it runs, the plan is carried out after a signal.
///
/// A program that blocks SIGALRM receives it in another way, so there is no timer. A hook of another
/// server can run a server: then the plan of the outer one applies to both. `unread` returns a signal
/// that has arrived before, and that the loop has not read.
pub(crate) fn run<T>(
    plan: &ExitPlan<'_>,
    unread: impl FnOnce() -> Option<u8>,
    serve: impl FnOnce() -> T,
) -> T {
    let owner = OWNER.load(Ordering::SeqCst);
    if owner == this_process() || is_alarm_blocked() {
        return serve();
    }
    if owner != 0 {
        // The program has forked this process from one that serves.
        USERS.store(0, Ordering::SeqCst);
        stop();
    }
    // Its first call is not async-signal-safe on all systems.
    monotonic::milliseconds();
    PLAN.store(ptr::from_ref(plan).cast::<ExitPlan<'static>>().cast_mut(), Ordering::SeqCst);
    OWNER.store(this_process(), Ordering::SeqCst);
    let running = Running;
    if let Some(signal) = unread() {
        with_plan(|plan| start(plan, signal));
    }
    let served = serve();
    drop(running);
    served
}

/// Until this is dropped there is a plan.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        OWNER.store(0, Ordering::SeqCst);
        // A handler in another thread.
        while USERS.load(Ordering::SeqCst) > 0 {
            std::hint::spin_loop();
        }
        stop();
    }
}

/// Removes the plan of the parent. Called in a process that was forked.
pub(super) fn enter_child() {
    OWNER.store(0, Ordering::SeqCst);
    USERS.store(0, Ordering::SeqCst);
    stop();
}

/// Records that the loop goes on.
pub(crate) fn turn() {
    TURNS.fetch_add(2, Ordering::SeqCst);
}

/// Waits in the loop for an event.
pub(crate) fn while_waiting<T>(wait: impl FnOnce() -> T) -> T {
    struct Waiting;
    impl Drop for Waiting {
        fn drop(&mut self) {
            TURNS.fetch_add(1, Ordering::SeqCst);
        }
    }
    TURNS.fetch_add(1, Ordering::SeqCst);
    let _waiting = Waiting;
    wait()
}

/// Starts the timer, if this process runs a server with a plan. Async-signal-safe.
pub(super) fn signal_received(signal: u8) {
    with_plan(|plan| start(plan, signal));
}

/// Calls `act` with the plan, if there is one.
fn with_plan(act: impl FnOnce(&ExitPlan<'_>)) {
    USERS.fetch_add(1, Ordering::SeqCst);
    if OWNER.load(Ordering::SeqCst) == this_process() {
        // SAFETY: `run` has stored the pointer before the owner. It removes the owner before the plan
        // ends, and then waits until `USERS` is 0.
        act(unsafe { &*PLAN.load(Ordering::SeqCst) });
    }
    USERS.fetch_sub(1, Ordering::SeqCst);
}

fn start(plan: &ExitPlan<'_>, signal: u8) {
    let now = monotonic::milliseconds();
    let this = now << 8 | u64::from(signal);
    match FIRST.compare_exchange(0, this, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {
            STEP.store(LAME_DUCK, Ordering::SeqCst);
            // Until the timer is started, each SIGALRM is of another one.
            DUE.store(u64::MAX, Ordering::SeqCst);
            if handle_alarm() {
                match seconds(plan.lame_duck) {
                    0 => step(plan),
                    lame_duck => set_alarm(lame_duck),
                }
            }
        }
        Err(first) => {
            let is_same = first as u8 == signal && now.saturating_sub(first >> 8) < min_distance();
            // The second signal ends the drain.
            // One after the second signal does not postpone the end.
            let ends_soon = || DUE.load(Ordering::SeqCst) <= now + 1000 * u64::from(LOOP_LIMIT);
            match STEP.load(Ordering::SeqCst) {
                _ if is_same => {}
                END => {}
                WAIT if ends_soon() => {}
                _ => {
                    STEP.store(WAIT, Ordering::SeqCst);
                    set_alarm(LOOP_LIMIT);
                }
            }
        }
    }
}

fn min_distance() -> u64 {
    MIN_DISTANCE.as_millis() as u64
}

/// Stops the timer, if a signal has started it.
fn stop() {
    if FIRST.swap(0, Ordering::SeqCst) != 0 {
        set_alarm(0);
        discard_alarm();
        restore_alarm();
    }
}

/// The handler of SIGALRM.
extern "C" fn expired(_: libc::c_int) {
    // SAFETY: the pointer to the errno of this thread is valid as long as the thread runs.
    let errno = unsafe { *errno_location() };
    with_plan(|plan| {
        let left = DUE.load(Ordering::SeqCst).saturating_sub(monotonic::milliseconds());
        if left <= EARLY {
            step(plan);
        } else {
            // Another timer of the program, which may have been set instead of this one.
            rearm(seconds(Duration::from_millis(left)));
        }
    });
    // SAFETY: see above.
    unsafe { *errno_location() = errno };
}

fn step(plan: &ExitPlan<'_>) {
    let turns = TURNS.load(Ordering::SeqCst);
    // An odd number: it waits for an event.
    let is_same = SEEN.swap(turns, Ordering::SeqCst) == turns;
    let is_stuck = is_same && turns % 2 == 0;
    match STEP.load(Ordering::SeqCst) {
        LAME_DUCK => {
            // The signal, or the end of the lame duck, ends the wait of the loop.
            SEEN.store(turns.next_multiple_of(2), Ordering::SeqCst);
            DRAIN_BEGAN.store(monotonic::milliseconds(), Ordering::SeqCst);
            STEP.store(DRAIN, Ordering::SeqCst);
            set_alarm(LOOP_LIMIT);
        }
        DRAIN => {
            let elapsed = monotonic::milliseconds().saturating_sub(DRAIN_BEGAN.load(Ordering::SeqCst));
            let left = plan.limit.saturating_sub(Duration::from_millis(elapsed));
            if is_stuck {
                (plan.drain_children)(left);
            } else if seconds(left) > LOOP_LIMIT {
                return set_alarm(LOOP_LIMIT);
            }
            STEP.store(WAIT, Ordering::SeqCst);
            set_alarm(seconds(left).max(1));
        }
        WAIT => {
            STEP.store(END, Ordering::SeqCst);
            WAITS.store(0, Ordering::SeqCst);
            set_alarm(HOOK_EXIT_LIMIT);
        }
        _ if !is_same => {
            WAITS.store(0, Ordering::SeqCst);
            set_alarm(HOOK_EXIT_LIMIT);
        }
        // A process that was paused goes on before the timer expires again. Otherwise the logger does not
        // return from the record of the wait: after the drain there is no event to wait for.
        _ if !is_stuck && WAITS.fetch_add(1, Ordering::SeqCst) == 0 => set_alarm(HOOK_EXIT_LIMIT),
        _ if !(plan.end)() => set_alarm(RETRY),
        _ => {
            let line = "sockserver: serve_forever did not return after the drain; exiting with status 1\n";
            write_line(line);
            process::_exit(1);
        }
    }
}

/// Returns the time in whole seconds.
fn seconds(time: Duration) -> u32 {
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    whole.min(MAX_ALARM) as u32
}

fn this_process() -> Pid {
    // SAFETY: getpid(2) takes nothing and is async-signal-safe.
    unsafe { libc::getpid() }
}

/// Starts the timer, or stops it if `seconds` is 0.
fn set_alarm(seconds: u32) {
    DUE.store(monotonic::milliseconds() + 1000 * u64::from(seconds), Ordering::SeqCst);
    rearm(seconds);
}

fn rearm(seconds: u32) {
    // SAFETY: alarm(2) takes any number.
    unsafe { libc::alarm(seconds.min(MAX_ALARM as u32)) };
}

fn is_alarm_blocked() -> bool {
    // SAFETY: the set is plain data, which pthread_sigmask(3) writes.
    unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut blocked);
        libc::sigismember(&blocked, libc::SIGALRM) == 1
    }
}

/// The action of SIGALRM before the first signal.
struct Former(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: `start` writes it once after `FIRST` has become something else than 0, and `stop` reads it
// when `FIRST` has become 0 again and no handler runs.
unsafe impl Sync for Former {}

static FORMER: Former = Former(UnsafeCell::new(MaybeUninit::zeroed()));

/// Installs the handler of SIGALRM. Returns false if that fails.
fn handle_alarm() -> bool {
    // SAFETY: the structures are plain data, for which zeros are valid. The handler exists as long as
    // the process. For the earlier action see `FORMER`.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = expired as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        // Their handler changes the step too.
        libc::sigaddset(&mut action.sa_mask, libc::SIGTERM);
        libc::sigaddset(&mut action.sa_mask, libc::SIGINT);
        libc::sigaction(libc::SIGALRM, &action, FORMER.0.get().cast()) == 0
    }
}

/// Discards a SIGALRM that is blocked, or on its way to another thread.
fn discard_alarm() {
    // SAFETY: a signal that is ignored calls no handler.
    unsafe { libc::signal(libc::SIGALRM, libc::SIG_IGN) };
}

fn restore_alarm() {
    // SAFETY: see `FORMER`. Zeros are the default action.
    unsafe { libc::sigaction(libc::SIGALRM, FORMER.0.get().cast(), ptr::null_mut()) };
}

/// Sends a line to a child without waiting. Async-signal-safe.
pub(crate) fn send_to_child(control: &impl AsFd, line: &[u8]) {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the line is read during the call. The descriptor is borrowed.
    unsafe { libc::send(control.as_fd().as_raw_fd(), line.as_ptr().cast(), line.len(), flags) };
}

/// Kills a child unless it has exited. Async-signal-safe.
pub(crate) fn kill_child(pid: Pid) {
    // Its number may belong to another process when it was reaped.
    if process::wait_child(pid) == WaitStatus::Running {
        process::kill(pid);
    }
}

/// Waits until the children have exited, for `limit` at most, and kills those that are left.
/// Async-signal-safe.
pub(crate) fn end_children(pids: impl Iterator<Item = Pid> + Clone, limit: Duration) {
    let until = Instant::now() + limit;
    let runs = |pid| process::wait_child(pid) == WaitStatus::Running;
    while pids.clone().any(runs) && Instant::now() < until {
        // SAFETY: poll(2) gets no descriptors.
        unsafe { libc::poll(ptr::null_mut(), 0, EXIT_POLL_INTERVAL) };
    }
    pids.for_each(kill_child);
}

/// Receives what has arrived and leaves it there. Returns the number of bytes, 0 also after an error.
/// It does not wait and has no record in the trace.
pub(crate) fn peek(socket: &impl AsFd, buffer: &mut [u8]) -> usize {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the kernel writes at most the length of the buffer.
    let received = unsafe {
        libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_PEEK | libc::MSG_DONTWAIT)
    };
    usize::try_from(received).unwrap_or(0)
}

/// Writes to standard error, unless that would wait. The logger may be in use.
pub(crate) fn write_line(line: &str) {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: the entry and the line are used during the calls only.
    unsafe {
        if libc::poll(&mut stderr, 1, 0) == 1 && stderr.revents == libc::POLLOUT {
            libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "dragonfly"))]
use libc::__errno_location as errno_location;

#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
use libc::__error as errno_location;

#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as errno_location;
