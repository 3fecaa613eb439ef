//! The time deadlines are counted in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{DeadlineKind, Limits};

/// Milliseconds since the server was made, and the deadlines they are counted for.
///
/// It is asked twice for each request, so on Linux it is the coarse clock, which
/// stands still between two ticks of the kernel, and costs a fifth of the exact one
/// (clock_gettime(2)).
pub(crate) struct Clock {
    epoch: u64,
    limits: Limits,
    /// Milliseconds of each deadline and the lag, by its place in the enumeration.
    allowed: [AtomicU64; 6],
}

/// A point in time that never comes; it leaves four bits beside it.
pub(crate) const NEVER: u64 = u64::MAX >> 4;

/// What is as far away as that never comes either: the clock cannot run over.
const FAR: u64 = NEVER / 2;

/// How far the clock may lag: no deadline is over too soon.
#[cfg(target_os = "linux")]
const LAG: u64 = 10;
#[cfg(not(target_os = "linux"))]
const LAG: u64 = 1;

impl Clock {
    pub(crate) fn new(limits: Limits) -> Clock {
        use DeadlineKind::{FirstByte, Idle, Read, Request, Wrap, Write};
        let mut allowed = [const { AtomicU64::new(NEVER) }; 6];
        for deadline in [Wrap, FirstByte, Idle, Read, Write, Request] {
            let milliseconds = limits.of(deadline).map(|limit| limit.as_millis());
            let soon =
                milliseconds.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit < FAR);
            allowed[deadline as usize] = soon.map_or(NEVER, |limit| limit + LAG).into();
        }
        Clock { epoch: milliseconds(), limits, allowed }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// No deadline is over any more: somebody else watches them.
    #[cfg(unix)]
    pub(crate) fn stop(&self) {
        self.allowed.iter().for_each(|allowed| allowed.store(NEVER, Ordering::Relaxed));
    }

    pub(crate) fn now(&self) -> u64 {
        milliseconds() - self.epoch
    }

    /// Now, in four bytes: enough to tell an age of up to seven weeks.
    pub(crate) fn stamp(&self) -> u32 {
        self.now() as u32
    }

    /// Time since the stamp.
    pub(crate) fn since(&self, stamp: u32) -> Duration {
        Duration::from_millis(u64::from(self.stamp().wrapping_sub(stamp)))
    }

    /// When a deadline that begins now is over; [`NEVER`] if there is none.
    #[inline]
    pub(crate) fn due(&self, deadline: DeadlineKind) -> u64 {
        match self.allowed[deadline as usize].load(Ordering::Relaxed) {
            NEVER => NEVER,
            allowed => self.now() + allowed,
        }
    }
}

#[cfg(target_os = "linux")]
use crate::os::process::coarse_milliseconds as milliseconds;

#[cfg(not(target_os = "linux"))]
fn milliseconds() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn no_deadline_is_over_too_soon_nor_much_too_late() {
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
    fn an_age_is_told_across_the_end_of_the_stamps() {
        let clock = Clock::new(Limits::default());
        assert!(clock.since(clock.stamp()) < Duration::from_secs(10));
        let before = clock.stamp().wrapping_sub(1000);
        assert!(clock.since(before) >= Duration::from_secs(1));
    }

    #[test]
    fn a_deadline_the_clock_cannot_name_never_comes() {
        let clock = Clock::new(Limits { idle_timeout: Some(Duration::MAX), ..Limits::default() });
        assert_eq!(clock.due(DeadlineKind::Idle), NEVER);
    }
}
