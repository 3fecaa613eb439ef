//! Which clients a server admits by their address, and how many it has refused. All of its processes
//! share it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sock::Address;

use crate::lifecycle::state::SharedWord;
use crate::limits::access::{AccessList, AccessRules, Denial};
use crate::limits::log_limit::{LogKind, log_limited};
use crate::limits::rate::AcceptRate;
use crate::limits::stats::Stats;

pub(crate) struct Admission {
    access: AccessRules,
    rate: Option<AcceptRate>,
    denied: Arc<SharedWord>,
    rate_limited: Arc<SharedWord>,
}

impl Admission {
    /// Creates the rules of a server, which may fork.
    pub(crate) fn new(
        access: &AccessList,
        rate: Option<AcceptRate>,
        forks: bool,
    ) -> io::Result<Arc<Admission>> {
        Ok(Arc::new(Admission {
            access: AccessRules::new(access, forks)?,
            rate,
            denied: SharedWord::new(forks)?,
            rate_limited: SharedWord::new(forks)?,
        }))
    }

    /// Returns why the client with this address is refused. Counts it for the accept rate.
    #[inline]
    pub(crate) fn check(&self, client: &Address) -> Result<(), Denial> {
        self.check_access(client)?;
        match &self.rate {
            Some(rate) if !rate.allows(client) => Err(Denial::Rate),
            _ => Ok(()),
        }
    }

    /// [`check`](Self::check) without the accept rate.
    #[inline]
    pub(crate) fn check_access(&self, client: &Address) -> Result<(), Denial> {
        if self.access.allows(client) { Ok(()) } else { Err(Denial::Access) }
    }

    /// Counts and logs that a client is refused.
    #[cold]
    pub(crate) fn refuse(&self, client: &Address, denial: Denial) {
        let counter = match denial {
            Denial::Access => &self.denied,
            Denial::Rate => &self.rate_limited,
        };
        counter.word().fetch_add(1, Ordering::Relaxed);
        log_limited!(
            warn,
            LogKind::Denied(denial),
            peer:% = client, reason:% = denial;
            "refuse connection from {client}: {denial}"
        );
    }

    /// Replaces the rules of the access list.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if a rule cannot have an effect.
    pub(crate) fn set_access(&self, access: &AccessList) -> io::Result<()> {
        access.check()?;
        self.access.replace(access);
        Ok(())
    }

    /// Adds the counters of refused clients.
    pub(crate) fn add_to(&self, stats: Stats) -> Stats {
        let count = |counter: &SharedWord| counter.word().load(Ordering::Relaxed);
        Stats { denied: count(&self.denied), rate_limited: count(&self.rate_limited), ..stats }
    }

    /// Separates the counters and the rules from those of the parent process, after a fork.
    pub(crate) fn renew(&self) -> io::Result<()> {
        self.access.renew()?;
        self.rate.as_ref().map_or(Ok(()), AcceptRate::renew)?;
        self.denied.renew()?;
        self.rate_limited.renew()
    }
}

// Only Unix has the shared memory.
#[cfg(all(test, unix, feature = "rate-limit"))]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn a_renewed_admission_counts_no_client_of_the_parent() {
        let rate = AcceptRate::new(1, 1, true).unwrap();
        let admission = Admission::new(&AccessList::new(), Some(rate), true).unwrap();
        let client = Address::from("192.0.2.1:1".parse::<SocketAddr>().unwrap());
        let refused = (0..20).filter(|_| admission.check(&client) == Err(Denial::Rate)).count();
        assert!(refused > 0);
        admission.refuse(&client, Denial::Rate);
        admission.refuse(&client, Denial::Access);
        let counters = || {
            let stats = admission.add_to(Stats::default());
            (stats.denied, stats.rate_limited)
        };
        assert_eq!(counters(), (1, 1));
        admission.renew().unwrap();
        assert_eq!(counters(), (0, 0));
        assert_eq!(admission.check(&client), Ok(()), "it has the rate of the parent");
    }
}
