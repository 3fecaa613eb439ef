//! Permits: never more requests at once than a server may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::limits::Limits;
use crate::limits::clock::Clock;
use crate::os::interleave::yield_point;
use crate::os::waker::Waker;

/// Where permits come from, and go back to.
pub(crate) struct Permits {
    clock: Clock,
    /// Never more than `max_connections`, but for those that are only to be refused.
    taken: AtomicUsize,
    /// Somebody waits for a permit, or for a descriptor, and wants to be woken.
    has_waiter: AtomicBool,
    waker: Arc<Waker>,
    /// Until when no connection is accepted, in the clock's milliseconds; 0 for not at all.
    pause_until: AtomicU64,
    /// Connections in a row that a worker had no descriptor or thread for.
    in_shortage: AtomicU32,
}

/// Pause after a connection that a worker had no descriptor or thread for, in milliseconds. It
/// doubles up to [`MAX_DELAY`], which is short, since what is freed does not end it.
const FIRST_PAUSE: u64 = 5;
const LONGEST_PAUSE: u64 = 160;

/// Leave for one request, taken before it is accepted where others then wait; dropping it
/// gives it back.
pub(crate) struct Permit(Arc<Permits>);

impl Permits {
    pub(crate) fn new(limits: Limits, waker: Arc<Waker>) -> Arc<Permits> {
        Arc::new(Permits {
            clock: Clock::new(limits),
            taken: AtomicUsize::new(0),
            has_waiter: AtomicBool::new(false),
            waker,
            pause_until: AtomicU64::new(0),
            in_shortage: AtomicU32::new(0),
        })
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A permit, if one is left. Otherwise the waker is woken when one is given back.
    pub(crate) fn acquire(self: &Arc<Self>) -> Option<Permit> {
        self.try_acquire().or_else(|| {
            yield_point();
            // First said, then looked: whoever gives back in between sees it.
            self.register_waiter();
            yield_point();
            self.try_acquire()
        })
    }

    #[cfg(unix)]
    pub(crate) fn available(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.clock.limits().max_connections
    }

    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let most = self.clock.limits().max_connections;
        let take = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        taken.ok().map(|_| Permit(Arc::clone(self)))
    }

    /// A permit beyond the limit, for a request that is only to be refused.
    pub(crate) fn acquire_over_limit(self: &Arc<Self>) -> Permit {
        self.taken.fetch_add(1, Ordering::SeqCst);
        Permit(Arc::clone(self))
    }

    /// Wakes the loop when the next request ends: there may be a permit then, or a
    /// descriptor.
    pub(crate) fn register_waiter(&self) {
        self.has_waiter.store(true, Ordering::SeqCst);
    }

    /// Takes [`register_waiter`](Self::register_waiter) back.
    pub(crate) fn unregister_waiter(&self) {
        self.has_waiter.store(false, Ordering::SeqCst);
    }

    /// Stops accepting for a while: a worker had no descriptor or thread for its connection, and
    /// would have none for the next.
    #[cold]
    pub(crate) fn pause_accepting(&self) {
        let before = self.in_shortage.fetch_add(1, Ordering::Relaxed);
        let pause = (FIRST_PAUSE << before.min(8)).min(LONGEST_PAUSE);
        self.pause_until.fetch_max(self.clock.now() + pause, Ordering::Relaxed);
    }

    /// A worker had what it needed.
    pub(crate) fn end_shortage(&self) {
        if self.in_shortage.load(Ordering::Relaxed) > 0 {
            self.in_shortage.store(0, Ordering::Relaxed);
        }
    }

    /// How long to accept no connection.
    pub(crate) fn accept_pause(&self) -> Option<Duration> {
        let until = self.pause_until.load(Ordering::Relaxed);
        if until == 0 { None } else { self.rest_of_pause(until) }
    }

    #[cold]
    fn rest_of_pause(&self, until: u64) -> Option<Duration> {
        let left = until.saturating_sub(self.clock.now());
        if left == 0 {
            // Not if another one has begun meanwhile.
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
    /// The server's clock, with its limits.
    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
        yield_point();
        self.0.notify_waiter();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_pauses_for_longer_while_descriptors_are_short() {
        let permits = Permits::new(Limits::default(), Arc::new(Waker::new().unwrap()));
        assert_eq!(permits.accept_pause(), None);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            permits.pause_until.store(0, Ordering::Relaxed);
            permits.pause_accepting();
            pauses.push(permits.accept_pause().unwrap_or_default().as_millis() as u64);
        }
        // A tick of the coarse clock may have passed.
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
        assert!(until <= permits.clock.now() + FIRST_PAUSE, "it begins anew");
        while permits.accept_pause().is_some() {
            std::thread::yield_now();
        }
        assert!(permits.clock.now() >= until, "and ends by itself");
    }
}
