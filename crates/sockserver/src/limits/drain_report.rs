//! The result of a drain.

use std::fmt;
use std::time::Duration;

use sock::Address;

/// The result of a drain.
///
/// Returned by [`ServerHandle::drain`](crate::ServerHandle::drain).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct DrainReport {
    /// The number of requests that were being served and finished in time.
    pub finished: u64,
    /// The number of connections that were closed at once because they had no request.
    pub idle: u64,
    /// The requests that were aborted when the drain's time expired. They include requests that an
    /// earlier deadline had aborted and whose handlers were still running.
    pub aborted: Vec<AbortedRequest>,
    /// How many of the aborted handlers were still running when the drain returned.
    pub still_running: u64,
    /// How long the drain took.
    pub elapsed: Duration,
}

/// A request that a drain aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbortedRequest {
    /// The address of the client.
    pub client_address: Address,
    /// The age of the connection.
    pub age: Duration,
}

/// Formats the report in one line, for logs.
impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DrainReport { finished, idle, aborted, still_running, elapsed } = self;
        write!(
            f,
            "drained in {elapsed:.1?}: {finished} finished, {idle} idle closed, {} aborted",
            aborted.len()
        )?;
        for (index, AbortedRequest { client_address, age }) in aborted.iter().enumerate() {
            write!(f, "{} {client_address} after {age:.1?}", if index == 0 { ":" } else { "," })?;
        }
        if *still_running > 0 {
            write!(f, "; {still_running} handlers still running")?;
        }
        Ok(())
    }
}
