//! What a context counts: handshakes, resumptions, failures, reloads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

use crate::error::{Reason, misconfigured};
use crate::provider;

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
    /// Sessions a client offered that the server did not know (any more).
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

/// What a server remembers of its clients, to go on with where it was. Made anew
/// when it judges clients in another way: a session taken up again is not judged.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) ticketer: Arc<dyn ProducesTickets>,
    pub(crate) store: Arc<dyn StoresServerSessions>,
}

/// Room for a client's certificate with its chain, which is in the ticket.
const LONGEST_TICKET: usize = 16 * 1024;

impl Sessions {
    pub(crate) fn new(counters: &Arc<Counters>) -> std::io::Result<Sessions> {
        let ticketer = provider::ticketer().map_err(|error| misconfigured(error.to_string()))?;
        // The library opens no ticket that is longer than those it has made: in a child
        // that has made none yet, none at all.
        ticketer.encrypt(&[0; LONGEST_TICKET]);
        let store = ServerSessionMemoryCache::new(1024);
        Ok(Sessions {
            ticketer: Arc::new(Counted { inner: ticketer, counters: Arc::clone(counters) }),
            store: Arc::new(Counted { inner: store, counters: Arc::clone(counters) }),
        })
    }
}

#[derive(Debug)]
struct Counted<T: ?Sized> {
    counters: Arc<Counters>,
    inner: Arc<T>,
}

impl ProducesTickets for Counted<dyn ProducesTickets> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        count(&self.counters.tickets);
        self.inner.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.inner.decrypt(cipher);
        if plain.is_none() {
            count(&self.counters.misses);
        }
        plain
    }
}

impl<T: StoresServerSessions> StoresServerSessions for Counted<T> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.inner.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.inner.take(key)
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}
