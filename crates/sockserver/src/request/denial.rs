//! Refusing a client because of its address.

use crate::limits::access::Denial;
use crate::limits::stats::Outcome;
use crate::request::serve::JobState;

impl JobState {
    /// Refuses the client if its address is denied, or exceeds the accept rate. Returns whether it is
    /// admitted. Otherwise the connection has to be closed.
    ///
    /// A client behind a proxy has no address until the PROXY protocol header is received.
    pub(crate) fn admit_accepted(&mut self) -> bool {
        if self.registry().limits().expects_proxy_header() {
            return true;
        }
        let checked = self.core.handle.admission().check(self.entry.client_address());
        self.apply(checked)
    }

    /// As [`admit_accepted`](Self::admit_accepted), for the client that a PROXY protocol header names.
    pub(super) fn admit_proxied(&mut self) -> bool {
        let checked = self.core.handle.admission().check(self.entry.client_address());
        self.apply(checked)
    }

    /// Refuses a client that `wrap_request` has named, and whose address is denied. The accept rate
    /// counts its connection for the address that was accepted.
    pub(super) fn admit_wrapped(&mut self) -> bool {
        let checked = self.core.handle.admission().check_access(self.entry.client_address());
        self.apply(checked)
    }

    #[inline]
    fn apply(&mut self, checked: Result<(), Denial>) -> bool {
        checked.map_err(|denial| self.deny(denial)).is_ok()
    }

    #[cold]
    fn deny(&mut self, denial: Denial) {
        self.core.handle.admission().refuse(self.entry.client_address(), denial);
        self.outcome = self.outcome.or(Some(Outcome::Rejected));
    }
}
