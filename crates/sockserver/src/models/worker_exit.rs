//! The end of a process that serves requests for its parent.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::lifecycle::scoreboard::Slot;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::os::guard::guard;
use crate::os::log::errno_field;
use crate::os::process;
use crate::request::core::Core;

/// How long the hook and the flush of standard output may take.
pub(crate) const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// The exit status of a process in which they took longer.
pub(crate) const LATE: i32 = 76;

/// This process exits. The first thread that gets here calls the hook.
static IS_EXITING: AtomicBool = AtomicBool::new(false);

/// Calls the hook `worker_exit`, flushes standard output, and exits.
///
/// Neither `atexit` handlers nor destructors of static values of C run: they belong to the parent,
/// which has registered them, and a library that counts on its threads would block in them.
pub(crate) fn exit(core: &Core, slot: &Slot, status: i32) -> ! {
    begin(core, Some(slot));
    // In case other code of the parent reaps this process.
    slot.set_exit_status(status);
    process::_exit(status)
}

/// Does what [`exit`] does in a forked child, up to the exit. Without hooks it makes no system call of
/// its own.
pub(crate) fn end_child(core: &Core) {
    begin(core, None);
}

/// `slot` is that of a worker process.
fn begin(core: &Core, slot: Option<&Slot>) {
    if IS_EXITING.swap(true, Ordering::AcqRel) {
        // Another thread exits, in bounded time.
        loop {
            thread::park();
        }
    }
    if slot.is_some() || core.has_hooks {
        if let Err(error) = process::exit_after(EXIT_LIMIT, LATE) {
            log_limited!(
                error, LogKind::Other(error.kind(), None), errno = errno_field(&error);
                "cannot limit the time of worker_exit: {error}"
            );
        }
    }
    if let Some(slot) = slot {
        slot.begin_exit();
    }
    // First, so that a hook that does not return cannot lose it.
    let _ = io::stdout().flush();
    if core.has_hooks {
        if let Err(message) = guard(|| core.hooks.worker_exit()) {
            log_limited!(
                error, LogKind::Panicked, hook = "worker_exit";
                "worker_exit hook panicked: {message}"
            );
        }
        let _ = io::stdout().flush();
    }
}
