//! The clock of deadlines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{DeadlineKind, Limits};
use crate::os::monotonic::{RESOLUTION, milliseconds};

/// Counts milliseconds since the server was created, and computes when deadlines expire.
///
/// The clock is read twice for each request. On Linux it is `CLOCK_MONOTONIC_COARSE`, which changes
/// at each tick of the kernel only and costs a fifth of the precise clock (clock_gettime(2)).
pub(crate) struct Clock {
    epoch: u64,
    limits: Limits,
    /// The duration of each deadline plus [`RESOLUTION`], in milliseconds, by its discriminant.
    allowed: [AtomicU64; 7],
    /// Which deadlines end a receive no later than the read deadline, by the same place.
    ends_before_read: [bool; 7],
}

/// A time that is never reached, and so is every later one. The upper four bits are free for the
/// state of a connection.
pub(crate) const NEVER: u64 = 1 << 59;

/// Longer deadlines are treated as [`NEVER`], so that adding to the clock cannot overflow.
const FAR: u64 = NEVER / 2;

impl Clock {
    pub(crate) fn new(limits: Limits) -> Clock {
        use DeadlineKind::{FirstByte, Idle, ProxyHeader, Read, Request, Wrap, Write};
        let mut allowed = [const { AtomicU64::new(NEVER) }; 7];
        let mut ends_before_read = [false; 7];
        for deadline in [ProxyHeader, Wrap, FirstByte, Idle, Read, Write, Request] {
            let milliseconds = limits.of(deadline).map(|limit| limit.as_millis());
            let in_range =
                milliseconds.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit < FAR);
            // The resolution is added so that no deadline expires early.
            allowed[deadline as usize] = in_range.map_or(NEVER, |limit| limit + RESOLUTION).into();
            ends_before_read[deadline as usize] = limits.ends_before_read(deadline);
        }
        Clock { epoch: milliseconds(), limits, allowed, ends_before_read }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns whether this deadline ends a receive no later than the read deadline does.
    #[inline]
    pub(crate) fn ends_before_read(&self, deadline: DeadlineKind) -> bool {
        self.ends_before_read[deadline as usize]
    }

    /// Disables all deadlines. Another process enforces them.
    pub(crate) fn stop(&self) {
        self.allowed.iter().for_each(|allowed| allowed.store(NEVER, Ordering::Relaxed));
    }

    /// Returns the milliseconds since the server was created.
    pub(crate) fn now(&self) -> u64 {
        milliseconds() - self.epoch
    }

    /// Returns the time in four bytes, enough for ages of up to seven weeks.
    pub(crate) fn stamp(&self) -> u32 {
        self.now() as u32
    }

    /// Returns the milliseconds since the stamp until `now`.
    pub(crate) fn between(stamp: u32, now: u64) -> u64 {
        (now as u32).wrapping_sub(stamp).into()
    }

    /// Returns the time since the stamp.
    pub(crate) fn since(&self, stamp: u32) -> Duration {
        Duration::from_millis(u64::from(self.stamp().wrapping_sub(stamp)))
    }

    /// Returns when this time has passed.
    #[cold]
    pub(crate) fn due_after(&self, time: Duration) -> u64 {
        match u64::try_from(time.as_millis()) {
            Ok(time) if time < FAR => self.now() + time + RESOLUTION,
            _ => NEVER,
        }
    }

    /// Returns when a deadline that begins now expires, [`NEVER`] if it is disabled.
    #[inline]
    pub(crate) fn due(&self, deadline: DeadlineKind) -> u64 {
        self.due_from(deadline, || self.now())
    }

    /// Returns when a deadline that begins `now` expires. `now` is called if it is needed.
    #[inline(always)]
    pub(crate) fn due_from(&self, deadline: DeadlineKind, now: impl FnOnce() -> u64) -> u64 {
        match self.allowed(deadline) {
            NEVER => NEVER,
            allowed => now() + allowed,
        }
    }

    /// Returns the time after which a deadline expires, [`NEVER`] if it is disabled.
    #[inline]
    pub(crate) fn allowed(&self, deadline: DeadlineKind) -> u64 {
        self.allowed[deadline as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_deadline_expires_neither_early_nor_much_too_late() {
        let limit = Duration::from_millis(50);
        let clock =
            Clock::new(Limits { idle_timeout: Some(limit), read_timeout: None, ..Limits::default() });
        assert_eq!(clock.due(DeadlineKind::Read), NEVER);
        let begin = Instant::now();
        let due = clock.due(DeadlineKind::Idle);
        while clock.now() < due {
            std::thread::yield_now();
        }
        assert!(begin.elapsed() >= limit, "{:?}", begin.elapsed());
        assert!(due <= clock.now() && clock.now() - due < 10_000);
    }

    #[test]
    fn an_age_is_correct_when_the_stamp_wraps_around() {
        let clock = Clock::new(Limits::default());
        assert!(clock.since(clock.stamp()) < Duration::from_secs(10));
        let before = clock.stamp().wrapping_sub(1000);
        assert!(clock.since(before) >= Duration::from_secs(1));
        assert_eq!(Clock::between(u32::MAX - 4, 5 + (7 << 32)), 10);
    }

    #[test]
    fn a_deadline_beyond_the_clocks_range_never_expires() {
        let clock = Clock::new(Limits { idle_timeout: Some(Duration::MAX), ..Limits::default() });
        assert_eq!(clock.due(DeadlineKind::Idle), NEVER);
    }
}
