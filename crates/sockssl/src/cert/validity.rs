//! How long the verification of a certificate chain stays valid.

use std::cell::Cell;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::cert::x509::X509;

/// The validity of a verification without an end, such as that of a peer without a certificate.
pub(crate) const NEVER_EXPIRES: u64 = u64::MAX;

/// Returns the last second, since 1970, in which the verification of this chain is valid.
/// Certificates above the peer's own are ignored if they had expired before, because they were
/// not used.
pub(crate) fn chain_valid_until<'a>(
    chain: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    now: UnixTime,
) -> u64 {
    let now = now.as_secs();
    // A certificate that cannot be parsed may expire at any time.
    let end = |der: &CertificateDer<'_>| X509::parse(der).map_or(now, |parsed| parsed.validity.1);
    let ends = chain.into_iter().map(end).enumerate().filter(|&(at, end)| at == 0 || end >= now);
    ends.map(|(_, end)| end).min().unwrap_or(NEVER_EXPIRES)
}

thread_local! {
    /// The time until which the certificates of both sides are valid, for the connection that the
    /// TLS library processes in this thread. The library passes no connection to the verifier and
    /// to the ticketer.
    static VALID_UNTIL: Cell<u64> = const { Cell::new(NEVER_EXPIRES) };
}

/// Returns the time until which the certificates of this thread's connection are valid.
pub(crate) fn current_validity() -> u64 {
    VALID_UNTIL.get()
}

/// Limits that time. Called by the verifier, and when a session is resumed.
pub(crate) fn limit_validity(until: u64) {
    VALID_UNTIL.set(VALID_UNTIL.get().min(until));
}

/// Runs `work`, which processes a connection whose sessions expire at `until`. Stores the new
/// expiry in `until`.
///
/// It may be called in `work`: a logger can use a TLS connection of its own while the key log of
/// this one fails.
pub(crate) fn with_validity<T>(until: &mut u64, work: impl FnOnce() -> T) -> T {
    /// Restores the value of the connection outside, also in a panic.
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            VALID_UNTIL.set(self.0);
        }
    }
    let _restore = Restore(VALID_UNTIL.replace(*until));
    let result = work();
    *until = VALID_UNTIL.get();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_inside_the_work_of_another_one_does_not_change_its_validity() {
        let (mut outer, mut inner) = (NEVER_EXPIRES, 7);
        with_validity(&mut outer, || {
            limit_validity(5);
            with_validity(&mut inner, || limit_validity(6));
            let panicked = std::panic::catch_unwind(|| with_validity(&mut 3, || panic!("inside")));
            assert!(panicked.is_err());
        });
        assert_eq!((outer, inner, current_validity()), (5, 6, NEVER_EXPIRES));
    }
}
