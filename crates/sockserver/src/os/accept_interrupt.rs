//! Interrupts a worker process that blocks in accept(2).
//!
//! A worker that waits in epoll(7) for both its listener and its control socket needs one system
//! call more for each client and more expensive context switches. So the worker blocks in accept(2),
//! and its control thread interrupts it with a signal.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::os::interrupt::Interruptible;

/// The worker of this process is in accept(2), or about to enter it.
static ACCEPTING: AtomicBool = AtomicBool::new(false);
/// The worker has to leave accept(2) and not enter it again.
static REQUESTED: AtomicBool = AtomicBool::new(false);
/// The interrupt hook that the program had set.
static PREVIOUS_HOOK: OnceLock<fn() -> bool> = OnceLock::new();

/// The time between two signals. A signal that arrives just before accept(2) has no effect, so it is
/// repeated.
const INTERRUPT_EVERY: Duration = Duration::from_millis(1);
/// How long the signal is repeated. A custom `get_request` may ignore it and accept one more client.
const INTERRUPT_FOR: Duration = Duration::from_secs(1);

/// Interrupts the worker of this process in accept(2).
pub(crate) struct AcceptInterrupter(Interruptible);

impl AcceptInterrupter {
    /// Creates the interrupter of the calling thread, the main thread of a worker process.
    pub(crate) fn of_this_thread() -> io::Result<AcceptInterrupter> {
        let interrupter = AcceptInterrupter(Interruptible::main_thread()?);
        if let Some(hook) = sock::set_interrupt_hook(Some(should_retry)) {
            let _ = PREVIOUS_HOOK.set(hook);
        }
        Ok(interrupter)
    }

    /// Makes the worker leave accept(2) and not enter it again. Returns whether it has left.
    pub(crate) fn interrupt_accept(&self) -> bool {
        REQUESTED.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + INTERRUPT_FOR;
        while ACCEPTING.load(Ordering::SeqCst) && Instant::now() < deadline {
            self.0.interrupt();
            thread::sleep(INTERRUPT_EVERY);
        }
        !ACCEPTING.load(Ordering::SeqCst)
    }
}

/// Runs a closure that may block in accept(2).
pub(crate) fn while_accepting<T>(accept: impl FnOnce() -> T) -> T {
    ACCEPTING.store(true, Ordering::SeqCst);
    let accepted = accept();
    ACCEPTING.store(false, Ordering::SeqCst);
    accepted
}

/// Returns whether an interrupted system call is retried.
fn should_retry() -> bool {
    let requested = ACCEPTING.load(Ordering::SeqCst) && REQUESTED.load(Ordering::SeqCst);
    !requested && PREVIOUS_HOOK.get().is_none_or(|previous| previous())
}
