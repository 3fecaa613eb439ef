//! The result of a drain.

use std::fmt;
use std::time::Duration;

use crate::os::log::{Level, milliseconds};
use sock::Address;

/// The result of a drain.
///
/// Returned by [`ServerHandle::drain`](crate::ServerHandle::drain).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sockserver::{TCPServer, handler_fn};
///
/// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
/// let report = server.drain(Duration::from_secs(10))?;
/// assert_eq!((report.finished, report.aborted.len(), report.still_running), (0, 0, 0));
/// println!("{report}");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct DrainReport {
    /// The number of requests that ended by themselves in time, whether or not they failed. Those
    /// that a deadline ended or that were refused are not among them.
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
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sockserver::{ThreadingTCPServer, handler_fn};
///
/// let stuck = handler_fn(|cx| {
///     cx.request.sendall(b"!")?;
///     cx.request.recv(1).map(drop)
/// });
/// let server = ThreadingTCPServer::new(("127.0.0.1", 0), stuck)?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.handle_request()?;
/// assert_eq!(client.recv(1)?, b"!");
/// let report = server.drain(Duration::from_millis(50))?;
/// assert_eq!(report.aborted[0].client_address, client.getsockname()?);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AbortedRequest {
    /// The address of the client.
    pub client_address: Address,
    /// The age of the connection.
    pub age: Duration,
}

impl DrainReport {
    /// Logs the report of a drain that a signal or a successor has requested.
    pub(crate) fn log(&self) {
        self.log_at(if self.aborted.is_empty() { Level::Info } else { Level::Warn });
    }

    pub(crate) fn log_at(&self, level: Level) {
        log::log!(
            level,
            elapsed_ms = milliseconds(self.elapsed), finished = self.finished, idle = self.idle,
            aborted = self.aborted.len(), still_running = self.still_running;
            "{self}"
        );
    }
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
