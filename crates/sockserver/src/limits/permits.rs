//! Permits bound the number of requests that a server has at the same time.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::limits::Limits;
use crate::limits::clock::Clock;
use crate::limits::shared_permits::SharedPermits;
use crate::limits::traffic::Traffic;
use crate::os::interleave::yield_point;
use crate::os::waker::Waker;

/// Issues permits, up to `max_connections` at the same time.
pub(crate) struct Permits {
    clock: Clock,
    /// What handlers do, in all processes of the server.
    traffic: Arc<Traffic>,
    /// At most `max_connections`, plus the permits of requests that are to be refused.
    taken: AtomicUsize,
    /// The permits of all processes, in a worker process that has several connections.
    shared: OnceLock<SharedPermits>,
    /// The accept loop waits for a permit, or for a descriptor to become free.
    has_waiter: AtomicBool,
    waker: Arc<Waker>,
    /// No connection is accepted until then, in the clock's milliseconds. 0 if accepting is not
    /// paused.
    pause_until: AtomicU64,
    /// The number of consecutive connections for which a worker had no descriptor or thread.
    in_shortage: AtomicU32,
}

/// The pause after a connection for which a worker had no descriptor or thread, in milliseconds. It
/// doubles up to [`MAX_DELAY`], which is short because a freed descriptor does not end the pause.
const FIRST_DELAY: u64 = 5;
const MAX_DELAY: u64 = 160;

/// How often a worker process looks for a permit that another process may have released.
const SHARED_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Allows one request. Dropping the permit releases it.
///
/// Where further clients wait, a permit is acquired before accept(2).
pub(crate) struct Permit(Arc<Permits>);

impl Permits {
    #[cfg(test)]
    pub(crate) fn new(limits: Limits, waker: Arc<Waker>) -> Arc<Permits> {
        let traffic = Traffic::new(false, &limits.duration_buckets).unwrap();
        Permits::with_traffic(limits, waker, traffic)
    }

    pub(crate) fn with_traffic(limits: Limits, waker: Arc<Waker>, traffic: Arc<Traffic>) -> Arc<Permits> {
        Arc::new(Permits {
            clock: Clock::new(limits),
            traffic,
            taken: AtomicUsize::new(0),
            shared: OnceLock::new(),
            has_waiter: AtomicBool::new(false),
            waker,
            pause_until: AtomicU64::new(0),
            in_shortage: AtomicU32::new(0),
        })
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    #[inline]
    pub(crate) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Makes the accept loop look at what has changed.
    pub(crate) fn wake_loop(&self) {
        self.waker.wake();
    }

    /// Returns a permit if one is left. Otherwise the waker is notified when one is released.
    pub(crate) fn acquire(self: &Arc<Self>) -> Option<Permit> {
        self.try_acquire().or_else(|| {
            yield_point();
            // Register before the second attempt, so that a release in between notifies the waker.
            self.register_waiter();
            yield_point();
            self.try_acquire()
        })
    }

    /// Returns whether a permit is left.
    pub(crate) fn available(&self) -> bool {
        let most = self.clock.limits().max_connections;
        let left_here = self.taken.load(Ordering::SeqCst) < most;
        left_here && self.shared.get().is_none_or(|shared| shared.taken() < most as u64)
    }

    /// Shares the permits with the other processes of the server. None is taken yet.
    pub(crate) fn share(&self, shared: SharedPermits) {
        let _ = self.shared.set(shared);
    }

    /// Returns how long to wait for a permit, `None` until a request of this process ends. The end of
    /// a request in another process wakes no thread of this one.
    pub(crate) fn shortage_pause(&self) -> Option<Duration> {
        self.shared.get().map(|_| SHARED_POLL_INTERVAL)
    }

    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let most = self.clock.limits().max_connections;
        let take = |taken: usize| (taken < most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).ok()?;
        if self.shared.get().is_some_and(|shared| !shared.try_take(most)) {
            self.taken.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        Some(Permit(Arc::clone(self)))
    }

    /// Returns a permit beyond the limit, for a request that is to be refused.
    pub(crate) fn acquire_over_limit(self: &Arc<Self>) -> Permit {
        self.taken.fetch_add(1, Ordering::SeqCst);
        self.shared.get().into_iter().for_each(SharedPermits::take);
        Permit(Arc::clone(self))
    }

    /// Registers the accept loop to be woken when the next request ends and releases its permit and
    /// its descriptor.
    pub(crate) fn register_waiter(&self) {
        self.has_waiter.store(true, Ordering::SeqCst);
    }

    /// Undoes [`register_waiter`](Self::register_waiter).
    pub(crate) fn unregister_waiter(&self) {
        self.has_waiter.store(false, Ordering::SeqCst);
    }

    /// Pauses accepting, because a worker had no descriptor or thread for its connection.
    #[cold]
    pub(crate) fn pause_accepting(&self) {
        let before = self.in_shortage.fetch_add(1, Ordering::Relaxed);
        let pause = (FIRST_DELAY << before.min(8)).min(MAX_DELAY);
        self.pause_until.fetch_max(self.clock.now() + pause, Ordering::Relaxed);
    }

    /// Resets the pause, because a worker had the resources for its connection.
    pub(crate) fn end_shortage(&self) {
        if self.in_shortage.load(Ordering::Relaxed) > 0 {
            self.in_shortage.store(0, Ordering::Relaxed);
        }
    }

    /// Returns how long accepting is still paused.
    pub(crate) fn accept_pause(&self) -> Option<Duration> {
        let until = self.pause_until.load(Ordering::Relaxed);
        if until == 0 { None } else { self.remaining_pause(until) }
    }

    #[cold]
    fn remaining_pause(&self, until: u64) -> Option<Duration> {
        let left = until.saturating_sub(self.clock.now());
        if left == 0 {
            // Not if another pause has begun.
            let _ = self.pause_until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        (left > 0).then(|| Duration::from_millis(left))
    }

    fn notify_waiter(&self) {
        if self.has_waiter.load(Ordering::SeqCst) {
            yield_point();
            if self.has_waiter.swap(false, Ordering::SeqCst) {
                self.waker.wake();
            }
        }
    }
}

impl Permit {
    /// Returns the server's clock, which also has its limits.
    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Returns the server's counters of bytes and requests.
    #[inline]
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
        self.0.shared.get().into_iter().for_each(SharedPermits::give_back);
        yield_point();
        self.0.notify_waiter();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_pause_doubles_while_descriptors_are_short() {
        let permits = Permits::new(Limits::default(), Arc::new(Waker::new().unwrap()));
        assert_eq!(permits.accept_pause(), None);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            permits.pause_until.store(0, Ordering::Relaxed);
            permits.pause_accepting();
            pauses.push(permits.accept_pause().unwrap_or_default().as_millis() as u64);
        }
        // A tick of the coarse clock may have passed in between.
        let around = |pause: u64, expected: u64| pause <= expected && pause + 20 >= expected;
        let expected = [5, 10, 20, 40, 80, 160, 160, 160, 160, 160];
        assert!(
            pauses.iter().zip(expected).all(|(pause, expected)| around(*pause, expected)),
            "{pauses:?}"
        );

        permits.end_shortage();
        permits.pause_until.store(0, Ordering::Relaxed);
        permits.pause_accepting();
        let until = permits.pause_until.load(Ordering::Relaxed);
        assert!(until <= permits.clock.now() + FIRST_DELAY, "the pause begins again at its shortest");
        while permits.accept_pause().is_some() {
            std::thread::yield_now();
        }
        assert!(permits.clock.now() >= until, "the pause ended early");
    }
}
