//! The thread that ends overdue connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::Level;
use parking_lot::Mutex;

use crate::lifecycle::current_server::{AcceptingThread, ServingThread};
use crate::limits::clock::NEVER;
use crate::os::guard::guard;
use crate::os::log::errno_field;

/// A thread that sleeps until the earliest deadline and then ends overdue connections.
///
/// It is started with the first deadline. A forking server has none: there the loop ends overdue
/// connections. A deadline that is later than the one it sleeps for does not wake it.
pub(crate) struct DeadlineTimer {
    /// The time it sleeps until, in the clock's milliseconds. [`NEVER`] before it is started, and
    /// while it checks the table, so that a deadline that begins meanwhile wakes it again.
    next: AtomicU64,
    stopped: AtomicBool,
    is_running: AtomicBool,
    /// Held while the thread is started or unparked. Neither waits for another thread. Nothing is
    /// logged under it.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The thread could not be started, which has been logged. Each deadline tries again, and so
    /// does the accept loop once a second.
    spawn_failed: AtomicBool,
}

/// What the thread looks at: the table of connections with their deadlines.
pub(crate) trait Expire: Send + Sync + 'static {
    /// The timer that belongs to the table.
    fn deadline_timer(&self) -> &DeadlineTimer;

    /// Ends the connections that are overdue at `now`. Returns when the next one may be due, in the
    /// clock's milliseconds, or [`NEVER`].
    fn expire(&self, now: u64) -> u64;

    /// The earliest deadline of a connection, in the clock's milliseconds, or [`NEVER`].
    fn earliest_due(&self) -> u64;

    /// Whether the table has no connections.
    fn is_empty(&self) -> bool;

    /// Wakes the accept loop, which calls [`DeadlineTimer::retry`].
    fn wake_loop(&self);

    /// The current time, in the clock's milliseconds.
    fn now(&self) -> u64;

    /// The shortest deadline that is configured.
    fn shortest_deadline(&self) -> Option<Duration>;
}

/// Value of [`DeadlineTimer::next`] where no thread may be started.
const FORBIDDEN: u64 = 0;

/// Longest delay of a deadline, which is otherwise a tenth of the shortest one.
const MAX_DELAY_MS: u64 = 250;

/// A thread that wakes later than this was not running: the process was stopped by a signal, or its
/// machine was suspended.
const PAUSED_MS: u64 = 1000;

/// How long workers have after that before overdue connections are ended.
const RESUME_MS: u64 = 200;

/// How often it checks the last connections of a closed server.
const CLOSED_INTERVAL: Duration = Duration::from_secs(1);

impl Default for DeadlineTimer {
    fn default() -> DeadlineTimer {
        DeadlineTimer {
            next: AtomicU64::new(NEVER),
            stopped: AtomicBool::default(),
            is_running: AtomicBool::default(),
            thread: Mutex::default(),
            spawn_failed: AtomicBool::default(),
        }
    }
}

impl DeadlineTimer {
    /// Makes sure that the thread checks the table at `due`.
    #[inline]
    pub(crate) fn watch<T: Expire>(table: &Arc<T>, due: u64) {
        if due < table.deadline_timer().next.load(Ordering::SeqCst) {
            DeadlineTimer::wake_or_start(table);
        }
    }

    /// Forbids the thread, because the process is going to fork.
    pub(crate) fn forbid(&self) {
        self.next.store(FORBIDDEN, Ordering::SeqCst);
    }

    /// Whether the thread is forbidden, so that the loop has to end overdue connections.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.next.load(Ordering::Relaxed) == FORBIDDEN
    }

    /// Whether its thread runs. Not where it is forbidden, before the first deadline, and where the
    /// thread cannot be started.
    #[inline]
    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    /// Whether the thread could not be started for the latest deadline.
    pub(crate) fn has_failed_to_start(&self) -> bool {
        self.spawn_failed.load(Ordering::Relaxed)
    }

    /// Starts the thread if that has failed. Without another connection no deadline would try it.
    pub(crate) fn retry<T: Expire>(table: &Arc<T>) {
        if table.deadline_timer().has_failed_to_start() {
            DeadlineTimer::wake_or_start(table);
        }
    }

    /// Forgets the thread, which a process does not inherit from its parent.
    pub(crate) fn enter_child(&self) {
        if let Some(thread) = self.thread.lock().take() {
            // Neither joined nor detached: it does not exist here.
            std::mem::forget(thread);
            self.is_running.store(false, Ordering::Relaxed);
            self.next.store(NEVER, Ordering::SeqCst);
        }
    }

    #[cold]
    fn wake_or_start<T: Expire>(table: &Arc<T>) {
        let deadline_timer = table.deadline_timer();
        let mut running = deadline_timer.thread.lock();
        if let Some(thread) = &*running {
            return thread.thread().unpark();
        }
        if deadline_timer.stopped.load(Ordering::Relaxed) {
            return;
        }
        let its_own = Arc::downgrade(table);
        let started = thread::Builder::new().name("sockserver-deadlines".to_owned()).spawn(move || {
            while let Some(table) = its_own.upgrade() {
                // A drain that a logger calls here would wait while no deadline is enforced.
                let _serving = ServingThread::begin(&table);
                let stopped = table.deadline_timer().stopped.load(Ordering::Acquire);
                if stopped && table.is_empty() {
                    return;
                }
                // Without this thread no deadline would be enforced.
                let sleep = guard(|| DeadlineTimer::expire_and_rearm(&*table));
                let sleep = sleep.unwrap_or_else(|message| {
                    log::error!("the deadline thread panicked, and continues: {message}");
                    Some(CLOSED_INTERVAL)
                });
                drop(table);
                // The last requests of a closed server end without waking the thread.
                let sleep = if stopped {
                    Some(sleep.map_or(CLOSED_INTERVAL, |sleep| sleep.min(CLOSED_INTERVAL)))
                } else {
                    sleep
                };
                sleep.map_or_else(thread::park, thread::park_timeout);
            }
        });
        match started {
            Ok(thread) => {
                *running = Some(thread);
                deadline_timer.is_running.store(true, Ordering::Relaxed);
                drop(running);
                if deadline_timer.spawn_failed.swap(false, Ordering::Relaxed) {
                    log::info!("deadlines are watched again");
                }
            }
            Err(error) => {
                drop(running);
                let failed_before = deadline_timer.spawn_failed.swap(true, Ordering::Relaxed);
                let level = if failed_before { Level::Debug } else { Level::Warn };
                if !failed_before {
                    table.wake_loop();
                }
                log::log!(
                    level, errno = errno_field(&error);
                    "deadlines are not watched: no thread: {error}"
                );
            }
        }
    }

    /// Ends overdue connections. Returns how long to sleep, or `None` until the thread is woken.
    fn expire_and_rearm<T: Expire>(table: &T) -> Option<Duration> {
        let deadline_timer = table.deadline_timer();
        // Nothing is overdue for a process that is stopped from here on.
        let now = table.now();
        let planned = deadline_timer.next.swap(NEVER, Ordering::SeqCst);
        if was_paused(table, planned, now) {
            // The process was stopped. Its workers first receive what has arrived meanwhile.
            deadline_timer.next.store(table.now() + RESUME_MS, Ordering::SeqCst);
            return Some(Duration::from_millis(RESUME_MS));
        }
        let next = table.expire(now);
        if next == NEVER {
            return None;
        }
        let shortest = table.shortest_deadline().unwrap_or_default().as_millis() as u64;
        let next = next.max(table.now() + (shortest / 10).clamp(1, MAX_DELAY_MS));
        deadline_timer.next.store(next, Ordering::SeqCst);
        Some(Duration::from_millis(next.saturating_sub(table.now())))
    }

    fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.thread().unpark();
        }
    }

    /// Stops the thread, or with `left` lets it end with the last connection.
    pub(crate) fn stop(&self, left: bool) {
        self.stopped.store(true, Ordering::Release);
        self.wake();
        let running = self.thread.lock().take();
        if let Some(thread) = running.filter(|_| !left) {
            let _ = thread.join();
        }
    }
}

/// Returns whether the process was stopped before this check. `planned` is its time, or [`NEVER`] if the
/// thread has just been started, or slept until a deadline began.
fn was_paused<T: Expire>(table: &T, planned: u64, now: u64) -> bool {
    let planned = if planned == NEVER { table.earliest_due() } else { planned };
    now > planned.saturating_add(PAUSED_MS)
}

/// A deadline thread that stops when this is dropped. It is used where the [`DeadlineTimer`] is
/// forbidden and the loop is about to block in `wrap_request`.
pub(crate) struct ScopedTimer {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ScopedTimer {
    /// # Errors
    ///
    /// Returns an error if the thread cannot be started.
    pub(crate) fn begin<T: Expire>(table: &Arc<T>) -> io::Result<ScopedTimer> {
        let (end, ended) = mpsc::channel();
        let table = Arc::clone(table);
        let thread = thread::Builder::new().name("sockserver-deadlines".to_owned()).spawn(move || {
            // The loop waits for this thread.
            let _marks = (AcceptingThread::begin(&table), ServingThread::begin(&table));
            let mut planned = NEVER;
            loop {
                let now = table.now();
                let next = if was_paused(&*table, planned, now) {
                    table.now() + RESUME_MS
                } else {
                    guard(|| table.expire(now)).unwrap_or_default().max(table.now() + 1)
                };
                planned = next;
                let sleep = Duration::from_millis(next.saturating_sub(table.now()));
                if ended.recv_timeout(sleep) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(ScopedTimer { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for ScopedTimer {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The thread does not panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Overdue {
        timer: DeadlineTimer,
        now: AtomicU64,
        due: AtomicU64,
        checks: AtomicU64,
    }

    impl Expire for Overdue {
        fn wake_loop(&self) {}

        fn deadline_timer(&self) -> &DeadlineTimer {
            &self.timer
        }

        fn expire(&self, now: u64) -> u64 {
            self.checks.fetch_add(1, Ordering::Relaxed);
            now + 5000
        }

        fn earliest_due(&self) -> u64 {
            self.due.load(Ordering::Relaxed)
        }

        fn is_empty(&self) -> bool {
            false
        }

        fn now(&self) -> u64 {
            self.now.load(Ordering::Relaxed)
        }

        fn shortest_deadline(&self) -> Option<Duration> {
            None
        }
    }

    #[test]
    fn after_a_pause_of_the_process_workers_run_before_connections_are_ended() {
        let table = Overdue::default();
        table.due.store(NEVER, Ordering::Relaxed);
        let turn = |now| {
            table.now.store(now, Ordering::Relaxed);
            let sleep = DeadlineTimer::expire_and_rearm(&table).unwrap().as_millis() as u64;
            (sleep, table.checks.load(Ordering::Relaxed))
        };
        assert_eq!(turn(0), (5000, 1));
        assert_eq!(turn(5000 + PAUSED_MS), (5000, 2), "a little late");
        let resumed = 10_001 + 2 * PAUSED_MS;
        assert_eq!(turn(resumed), (RESUME_MS, 2), "it was stopped");
        assert_eq!(turn(resumed + RESUME_MS), (5000, 3));
    }

    /// The process is stopped before the first turn of the thread, or of one that was woken.
    #[test]
    fn after_a_pause_before_the_first_check_workers_run_before_connections_are_ended() {
        let table = Overdue::default();
        table.due.store(5000, Ordering::Relaxed);
        let turn = |now| {
            table.now.store(now, Ordering::Relaxed);
            let sleep = DeadlineTimer::expire_and_rearm(&table).unwrap().as_millis() as u64;
            (sleep, table.checks.load(Ordering::Relaxed))
        };
        let resumed = 5001 + PAUSED_MS;
        assert_eq!(turn(resumed), (RESUME_MS, 0), "it was stopped");
        assert_eq!(turn(resumed + RESUME_MS), (5000, 1));
    }
}
