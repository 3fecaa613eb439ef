//! The thread that ends what is overdue.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::Level;
use parking_lot::Mutex;

use crate::limits::clock::NEVER;

/// Sleeps until the next deadline and then ends what is overdue.
///
/// Started with the first deadline there is, and not at all in a forking server,
/// whose loop does its work. Connections come and go without waking it: a later
/// deadline than the one it sleeps for is seen when it wakes.
pub(crate) struct DeadlineTimer {
    /// When it wakes by itself, in the clock's milliseconds. [`NEVER`] while it
    /// looks, since what begins then wakes it again, and before it is started.
    next: AtomicU64,
    stopped: AtomicBool,
    is_running: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// There was no thread for it, as the log knows: each request tries again.
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

/// What [`Reaper::next_listener`] is where nobody is to be woken.
const FORBIDDEN: u64 = 0;

/// A deadline is kept to within a tenth of the shortest, at most this.
const MAX_DELAY_MS: u64 = 250;

/// How often it looks at what a closed server has left.
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
    /// Has somebody look at `due`.
    #[inline]
    pub(crate) fn watch<T: Expire>(table: &Arc<T>, due: u64) {
        if due < table.deadline_timer().next.load(Ordering::SeqCst) {
            DeadlineTimer::wake_or_start(table);
        }
    }

    /// Forbids the thread: the process is going to fork.
    pub(crate) fn forbid(&self) {
        self.next.store(FORBIDDEN, Ordering::SeqCst);
    }

    /// Whether the loop has to do its work.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.next.load(Ordering::Relaxed) == FORBIDDEN
    }

    /// Whether its thread runs. Not where it is forbidden, before the first deadline, and where the
    /// thread cannot be started.
    #[inline]
    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Relaxed)
    }

    /// Whether there was no thread for it when the last deadline began.
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
                // A closed server's last requests end without a word.
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

    /// Ends what is overdue. Returns how long to sleep; `None` until woken.
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

    /// Ends the thread: now, or when what is `left` has ended.
    pub(crate) fn stop(&self, left: bool) {
        self.stopped.store(true, Ordering::Release);
        self.wake();
        let running = self.thread.lock().take();
        if let Some(thread) = running.filter(|_| !left) {
            let _ = thread.join();
        }
    }
}

/// A thread that ends what is overdue, and is gone when this is dropped: where the [`DeadlineTimer`]
/// is forbidden, because the process is going to fork, and the loop is about to block.
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
            // It does not panic.
            let _ = thread.join();
        }
    }
}
