//! What a drain came to.

use std::fmt;
use std::time::Duration;

use sock::Address;

/// What a drain came to.
///
/// Made by [`ServerHandle::drain`](crate::ServerHandle::drain).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct DrainReport {
    /// Requests that were being served and ended in time.
    pub finished: u64,
    /// Connections that had no request, and were closed at once.
    pub idle: u64,
    /// Requests that were cut off at the deadline, or had been by a deadline of their
    /// own and were still there.
    pub aborted: Vec<AbortedRequest>,
    /// Of those, how many handlers have not returned even so.
    pub still_running: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// A request that a drain cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbortedRequest {
    /// Who was being served.
    pub client_address: Address,
    /// For how long the connection had been there.
    pub age: Duration,
}

/// One line, for a log.
impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DrainReport { finished, idle, aborted, still_running, elapsed } = self;
        write!(
            f,
            "drained in {elapsed:.1?}: {finished} finished, {idle} idle closed, {} cut off",
            aborted.len()
        )?;
        for (index, AbortedRequest { client_address, age }) in aborted.iter().enumerate() {
            write!(f, "{} {client_address} after {age:.1?}", if index == 0 { ":" } else { "," })?;
        }
        if *still_running > 0 {
            write!(f, "; {still_running} handlers do not return")?;
        }
        Ok(())
    }
}
