//! Waiting for clients in accept(2) itself, and being called out of it.
//!
//! A worker process that blocks in accept(2) is woken for a client and for nothing
//! else; to wait in epoll for the client and for its parent's word costs a call more,
//! and dearer switches. So the thread that hears the parent interrupts it with a signal.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::os::interrupt::Interruptible;

/// The worker of this process is in accept(2), or near it.
static ACCEPTING: AtomicBool = AtomicBool::new(false);
/// It is to leave it for good.
static REQUESTED: AtomicBool = AtomicBool::new(false);
/// The interrupt hook that the program has set itself.
static FORMER_HOOK: OnceLock<fn() -> bool> = OnceLock::new();

/// How often the worker is interrupted until it has heard: it may have been on its way
/// into accept(2).
const INTERRUPT_EVERY: Duration = Duration::from_millis(1);
/// How long that is tried. A `get_request` of somebody's own may hear nothing, and goes
/// on with its client.
const INTERRUPT_FOR: Duration = Duration::from_secs(1);

/// Calls the worker of this process out of accept(2).
pub(crate) struct AcceptInterrupter(Interruptible);

impl AcceptInterrupter {
    /// For the main thread of a worker process, which calls this.
    pub(crate) fn of_this_thread() -> io::Result<AcceptInterrupter> {
        let caller = AcceptInterrupter(Interruptible::main_thread()?);
        if let Some(hook) = sock::set_interrupt_hook(Some(should_retry)) {
            let _ = FORMER_HOOK.set(hook);
        }
        Ok(caller)
    }

    /// Has the worker leave accept(2), and not enter it again. Returns whether it has.
    pub(crate) fn interrupt_accept(&self) -> bool {
        REQUESTED.store(true, Ordering::SeqCst);
        let until = Instant::now() + INTERRUPT_FOR;
        while ACCEPTING.load(Ordering::SeqCst) && Instant::now() < until {
            self.0.interrupt();
            thread::sleep(INTERRUPT_EVERY);
        }
        !ACCEPTING.load(Ordering::SeqCst)
    }
}

/// Runs what may wait in accept(2).
pub(crate) fn while_accepting<T>(accept: impl FnOnce() -> T) -> T {
    ACCEPTING.store(true, Ordering::SeqCst);
    let accepted = accept();
    ACCEPTING.store(false, Ordering::SeqCst);
    accepted
}

/// Whether a call goes on that a signal has interrupted.
fn should_retry() -> bool {
    let called = ACCEPTING.load(Ordering::SeqCst) && REQUESTED.load(Ordering::SeqCst);
    !called && FORMER_HOOK.get().is_none_or(|former| former())
}
