//! The counters of a context: handshakes, resumptions, failures, reloads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Reason;

/// The counters of a context since it was created.
///
/// Python: the dictionary that `SSLContext.session_stats()` returns. `tickets`, `reloads` and
/// `reloads_failed` exist only here.
///
/// # Examples
///
/// ```
/// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext, SessionStats};
///
/// let stats: SessionStats = SSLContext::new(PROTOCOL_TLS_SERVER).session_stats();
/// assert_eq!((stats.accept, stats.accept_good, stats.hits), (0, 0, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Handshakes started as a client.
    pub connect: u64,
    /// Handshakes completed as a client.
    pub connect_good: u64,
    /// Handshakes started as a server.
    pub accept: u64,
    /// Handshakes completed as a server.
    pub accept_good: u64,
    /// Handshakes that resumed a session.
    pub hits: u64,
    /// Sessions offered by clients that were unknown, or that were not resumed because the
    /// client's certificate has to be verified again.
    pub misses: u64,
    /// Session tickets sent.
    pub tickets: u64,
    /// Calls of [`reload`](crate::SSLContext::reload) that succeeded.
    pub reloads: u64,
    /// Calls of [`reload`](crate::SSLContext::reload) that failed and changed nothing.
    pub reloads_failed: u64,
}

macro_rules! counters {
    ($($name:ident)*) => {
        #[derive(Default, Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            /// Held to count and to copy only.
            failures: Mutex<BTreeMap<Reason, u64>>,
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> SessionStats {
                SessionStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}
counters! { connect connect_good accept accept_good hits misses tickets reloads reloads_failed }

/// Increments a counter.
pub(crate) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn count_failure(&self, reason: Reason) {
        *self.failures.lock().entry(reason).or_default() += 1;
    }

    pub(crate) fn failures(&self) -> BTreeMap<Reason, u64> {
        self.failures.lock().clone()
    }
}
