//! How many requests a worker process serves before it is replaced.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the requests of a worker process down, if there is a limit.
#[derive(Default)]
pub(crate) struct RequestQuota {
    /// `None` without a limit.
    left: Option<AtomicU64>,
    /// Called by the thread that counts the last request.
    on_exhausted: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Called by each thread that keeps a connection after the last request.
    on_kept: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl RequestQuota {
    pub(crate) fn new(requests: Option<u64>) -> RequestQuota {
        RequestQuota { left: requests.map(AtomicU64::new), ..RequestQuota::default() }
    }

    /// Sets what is called after the last request. It must not wait.
    pub(crate) fn set_on_exhausted(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_exhausted.set(Box::new(call));
    }

    /// Sets what is called when a connection stays open after the last request. It must not wait.
    pub(crate) fn set_on_kept(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_kept.set(Box::new(call));
    }

    /// Records that a connection stays open after the last request.
    pub(crate) fn keep_connection(&self) {
        self.on_kept.get().into_iter().for_each(|call| call());
    }

    /// Counts a request.
    #[inline]
    pub(crate) fn count(&self) {
        if let Some(left) = &self.left {
            let take = |left: u64| left.checked_sub(1);
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) == Ok(1) {
                self.on_exhausted.get().into_iter().for_each(|call| call());
            }
        }
    }

    /// Whether all requests have been served.
    #[inline]
    pub(crate) fn is_exhausted(&self) -> bool {
        self.left.as_ref().is_some_and(|left| left.load(Ordering::Relaxed) == 0)
    }
}

impl fmt::Debug for RequestQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestQuota").field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn exhaustion_is_reported_once_by_the_thread_that_counts_the_last_request() {
        let quota = RequestQuota::new(Some(100));
        let calls = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&calls);
        quota.set_on_exhausted(move || {
            counts.fetch_add(1, Ordering::SeqCst);
        });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..30).for_each(|_| quota.count()));
            }
        });
        assert!(quota.is_exhausted());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}
