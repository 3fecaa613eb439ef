//! Threads that go on after a panic.

use std::thread;
use std::time::{Duration, Instant};

use crate::limits::log_limit::{LogKind, log_limited};
use crate::os::guard::guard;
use crate::os::log::milliseconds;

/// The pause before a worker that has panicked is started again; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Runs a worker thread to its orderly end. After a panic the worker is started again, in the same
/// thread, which is logged. Otherwise a model would lose its threads one after the other.
///
/// The code of the user has guards of its own, so this is for what they do not cover.
pub(crate) fn keep_running(mut worker: impl FnMut()) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begin = Instant::now();
        let Err(message) = guard(&mut worker) else { return };
        log_limited!(
            error,
            LogKind::WorkerPanicked,
            limit_ms = milliseconds(pause);
            "worker thread panicked, starting it again in {pause:?}: {message}"
        );
        thread::sleep(pause);
        pause = if begin.elapsed() > MAX_PAUSE * 2 { FIRST_PAUSE } else { (pause * 2).min(MAX_PAUSE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_panics_is_started_again_until_it_ends() {
        let mut starts = 0;
        keep_running(|| {
            starts += 1;
            assert!(starts == 3, "planned");
        });
        assert_eq!(starts, 3);
    }
}
