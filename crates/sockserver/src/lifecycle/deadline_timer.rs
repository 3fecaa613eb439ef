//! The thread that ends overdue connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::Level;
use parking_lot::Mutex;

use crate::limits::clock::NEVER;

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
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The thread could not be started, which has been logged. Each deadline tries again.
    spawn_failed: AtomicBool,
}

/// What the thread looks at: the table of connections with their deadlines.
pub(crate) trait Expire: Send + Sync + 'static {
    /// The timer that belongs to the table.
    fn deadline_timer(&self) -> &DeadlineTimer;

    /// Ends overdue connections. Returns when the next one may be due, in the clock's
    /// milliseconds, or [`NEVER`].
    fn expire(&self) -> u64;

    /// Whether the table has no connections.
    fn is_empty(&self) -> bool;

    /// The current time, in the clock's milliseconds.
    fn now(&self) -> u64;

    /// The shortest deadline that is configured.
    fn shortest_deadline(&self) -> Option<Duration>;
}

/// Value of [`DeadlineTimer::next`] where no thread may be started.
const FORBIDDEN: u64 = 0;

/// Longest delay of a deadline, which is otherwise a tenth of the shortest one.
const MAX_DELAY_MS: u64 = 250;

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
                let stopped = table.deadline_timer().stopped.load(Ordering::Acquire);
                if stopped && table.is_empty() {
                    return;
                }
                let sleep = DeadlineTimer::expire_and_rearm(&*table);
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
                deadline_timer.spawn_failed.store(false, Ordering::Relaxed);
            }
            // The next deadline tries again.
            Err(error) => {
                let level = if deadline_timer.spawn_failed.swap(true, Ordering::Relaxed) {
                    Level::Debug
                } else {
                    Level::Warn
                };
                log::log!(level, "deadlines are not watched: no thread: {error}");
            }
        }
    }

    /// Ends overdue connections. Returns how long to sleep, or `None` until the thread is woken.
    fn expire_and_rearm<T: Expire>(table: &T) -> Option<Duration> {
        let deadline_timer = table.deadline_timer();
        deadline_timer.next.store(NEVER, Ordering::SeqCst);
        let next = table.expire();
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
            loop {
                let next = table.expire().max(table.now() + 1);
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
