//! What a context counts: handshakes, resumptions, failures, reloads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Reason;

/// Counters of a context, since it was made.
///
/// Python: the dictionary of `SSLContext.session_stats()`; the last three are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Handshakes begun as a client.
    pub connect: u64,
    /// … and finished.
    pub connect_good: u64,
    /// Handshakes begun as a server.
    pub accept: u64,
    /// … and finished.
    pub accept_good: u64,
    /// Handshakes that resumed a session.
    pub hits: u64,
    /// Sessions a client offered that the server did not know, or did not resume because
    /// the client's certificate has to be judged again.
    pub misses: u64,
    /// Session tickets given out.
    pub tickets: u64,
    /// Times [`reload`](crate::SSLContext::reload) took new files.
    pub reloads: u64,
    /// … and times it kept the old ones because of a fault in the new.
    pub reloads_failed: u64,
}

macro_rules! counters {
    ($($name:ident)*) => {
        #[derive(Default, Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
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

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn fail(&self, reason: Reason) {
        *self.failures.lock().entry(reason).or_default() += 1;
    }

    pub(crate) fn failures(&self) -> BTreeMap<Reason, u64> {
        self.failures.lock().clone()
    }
}
