//! How long the verification of a certificate chain stays valid.

use std::cell::Cell;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::cert::x509::X509;

/// A judgement that holds for ever, such as that of a peer without a certificate.
pub(crate) const NEVER_EXPIRES: u64 = u64::MAX;

/// Until when a judgement of this chain holds, in seconds since 1970, the last included.
/// Other certificates than the peer's own did not count for it if they had expired before.
pub(crate) fn chain_valid_until<'a>(
    chain: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    now: UnixTime,
) -> u64 {
    let now = now.as_secs();
    // One that cannot be parsed may end at any time.
    let end = |der: &CertificateDer<'_>| X509::parse(der).map_or(now, |parsed| parsed.validity.1);
    let ends = chain.into_iter().map(end).enumerate().filter(|&(at, end)| at == 0 || end >= now);
    ends.map(|(_, end)| end).min().unwrap_or(NEVER_EXPIRES)
}

thread_local! {
    /// Until when both certificates are good, of the connection that the TLS library works on
    /// in this thread. It tells neither the verifier nor the ticketer which one it is.
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

/// Has the library work on a connection whose sessions end at `until`.
pub(crate) fn with_validity<T>(until: &mut u64, work: impl FnOnce() -> T) -> T {
    VALID_UNTIL.set(*until);
    let result = work();
    *until = VALID_UNTIL.replace(NEVER_EXPIRES);
    result
}
