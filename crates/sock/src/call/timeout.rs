//! The timeout of a socket.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::out_of_range;

/// A timeout in one word: nanoseconds, or one of the two values below.
#[derive(Debug)]
pub(crate) struct Timeout(AtomicU64);

/// No timeout, and none was ever set.
const UNSET: u64 = u64::MAX;

/// No timeout, because `None` was set. A timeout of exactly so many nanoseconds, 292 years, is
/// stored as one nanosecond more.
const BLOCKING: u64 = u64::MAX / 2;

impl Timeout {
    pub(crate) const fn blocking() -> Timeout {
        Timeout(AtomicU64::new(UNSET))
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            UNSET | BLOCKING => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    /// Whether no timeout was ever set, not even `None`.
    pub(crate) fn is_unset(&self) -> bool {
        self.0.load(Ordering::Relaxed) == UNSET
    }

    /// Stores the value of another timeout, and whether that was ever set.
    pub(crate) fn copy_from(&self, other: &Timeout) {
        self.0.store(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Fails for more than 584 years, as Python does for what its clock cannot hold.
    pub(crate) fn set(&self, timeout: Option<Duration>) -> io::Result<()> {
        let nanoseconds = match timeout {
            None => BLOCKING,
            Some(timeout) => match u64::try_from(timeout.as_nanos()) {
                Ok(BLOCKING) => BLOCKING + 1,
                Ok(nanoseconds) if nanoseconds != UNSET => nanoseconds,
                _ => return Err(out_of_range(format!("timeout {timeout:?} is too long"))),
            },
        };
        self.0.store(nanoseconds, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_one_word_and_none_is_not_zero() {
        let timeout = Timeout::blocking();
        assert_eq!(size_of::<Timeout>(), 8);
        assert_eq!(timeout.get(), None);
        for value in [None, Some(Duration::ZERO), Some(Duration::from_nanos(u64::MAX - 1))] {
            timeout.set(value).unwrap();
            assert_eq!(timeout.get(), value);
        }
        assert!(timeout.set(Some(Duration::from_nanos(u64::MAX))).is_err());
        assert_eq!(timeout.get(), Some(Duration::from_nanos(u64::MAX - 1)));
    }

    #[test]
    fn a_timeout_of_none_differs_from_one_that_was_never_set() {
        let timeout = Timeout::blocking();
        assert!(timeout.is_unset());
        timeout.set(None).unwrap();
        assert!(!timeout.is_unset() && timeout.get().is_none());
        let longest = Duration::from_nanos(BLOCKING);
        timeout.set(Some(longest)).unwrap();
        assert_eq!(timeout.get(), Some(longest + Duration::from_nanos(1)));
    }
}
