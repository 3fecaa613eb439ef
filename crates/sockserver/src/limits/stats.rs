//! The counters of requests. Every request is counted in exactly one of them at any time.

use std::fmt;

use crate::limits::DeadlineKind;
use crate::limits::durations::DurationHistogram;

/// The counters of a server's requests.
///
/// [`Server::stats`](crate::Server::stats) and [`ServerHandle::stats`](crate::ServerHandle::stats)
/// read all counters at one instant, so they are consistent:
///
/// `accepted = finished + failed + disconnected + panicked + rejected + timed_out.total() + aborted +
/// in_flight`
///
/// A request is a datagram, or a connection with all the requests that its handler serves on it.
///
/// # Examples
///
/// ```
/// use sockserver::{TCPServer, handler_fn};
///
/// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| panic!("a fault")))?;
/// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.handle_request()?;
/// let stats = server.stats();
/// assert_eq!((stats.accepted, stats.panicked, stats.in_flight), (1, 1, 0));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that were accepted.
    pub accepted: u64,
    /// Requests that were served without an error.
    pub finished: u64,
    /// Requests for which a handler or hook returned an error, or whose child process died.
    pub failed: u64,
    /// Requests that failed because the client disconnected: see
    /// [`RequestError::is_disconnect`](crate::RequestError::is_disconnect).
    pub disconnected: u64,
    /// Requests for which a handler or hook panicked.
    pub panicked: u64,
    /// Requests that `verify_request` or a limit refused, or that could not be started, and
    /// connections without a valid PROXY protocol header where it is required.
    pub rejected: u64,
    /// The part of `rejected` that the access list refused: see
    /// [`Builder::deny`](crate::Builder::deny).
    ///
    /// This counter and the next one are read at another instant than the others.
    pub denied: u64,
    /// The part of `rejected` that was refused because its address exceeded the accept rate: see
    /// `Builder::accept_rate_per_address`.
    pub rate_limited: u64,
    /// Requests that a deadline ended.
    pub timed_out: TimedOut,
    /// Requests that were aborted because the time of a drain expired.
    pub aborted: u64,
    /// Requests that have not ended: waiting to be served, being served, or idle.
    pub in_flight: u64,
    /// The part of `in_flight` that is idle and waits for the next request.
    pub idle: u64,
    /// Calls of a handler's `handle` that have returned: each datagram, and each request of a persistent connection whose
    /// handler serves one request per call. A handler that loops over the requests of its connection
    /// counts as one.
    ///
    /// It is not part of the equation above, whose requests are connections, and is read at another
    /// instant.
    pub requests: u64,
    /// How long these requests took: from the first byte in either direction, or from the receipt of
    /// a datagram, until `handle` returned.
    ///
    /// The time is that of a clock that changes at each tick of the kernel, every 1 to 10 ms on Linux,
    /// so the sum is right on average, and a single short request may be counted as 0.
    pub request_duration: DurationHistogram,
    /// Bytes that were received from clients through `cx.rfile` and `cx.request`, or in datagrams
    /// whose handler was called. A connection with TLS counts what was decrypted.
    ///
    /// Bytes are added with the end of each request, and when 16 KiB have gathered. What a handler
    /// receives or sends through the socket itself is not counted.
    pub bytes_received: u64,
    /// Bytes that were sent to clients through `cx.wfile` and `cx.request`, or as datagrams.
    pub bytes_sent: u64,
    /// Connections that failed before accept(2) returned them. They are not part of `accepted`.
    pub lost_before_accept: u64,
}

/// The requests that deadlines ended, by deadline.
///
/// # Examples
///
/// ```
/// use sockserver::{TCPServer, handler_fn};
///
/// let server = TCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
///     .first_byte_timeout(0.05)
///     .bind(("127.0.0.1", 0))?;
/// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.handle_request()?;
/// let timed_out = server.stats().timed_out;
/// assert_eq!((timed_out.first_byte, timed_out.read), (1, 0));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimedOut {
    /// See [`DeadlineKind::ProxyHeader`].
    pub proxy_header: u64,
    /// See [`DeadlineKind::Wrap`].
    pub wrap: u64,
    /// See [`DeadlineKind::FirstByte`].
    pub first_byte: u64,
    /// See [`DeadlineKind::Idle`].
    pub idle: u64,
    /// See [`DeadlineKind::Read`].
    pub read: u64,
    /// See [`DeadlineKind::Write`].
    pub write: u64,
    /// See [`DeadlineKind::Request`].
    pub request: u64,
}

impl TimedOut {
    /// Returns the sum.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
    ///     .read_timeout(0.05)
    ///     .bind(("127.0.0.1", 0))?;
    /// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().timed_out.total(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn total(&self) -> u64 {
        let TimedOut { proxy_header, wrap, first_byte, idle, read, write, request } = *self;
        [wrap, first_byte, idle, read, write, request].into_iter().fold(proxy_header, u64::saturating_add)
    }

    fn of(&mut self, deadline: DeadlineKind) -> &mut u64 {
        match deadline {
            DeadlineKind::ProxyHeader => &mut self.proxy_header,
            DeadlineKind::Wrap => &mut self.wrap,
            DeadlineKind::FirstByte => &mut self.first_byte,
            DeadlineKind::Idle => &mut self.idle,
            DeadlineKind::Read => &mut self.read,
            DeadlineKind::Write => &mut self.write,
            DeadlineKind::Request => &mut self.request,
        }
    }
}

/// The number of counters.
pub(crate) const STATS_WORDS: usize = 17;

/// The place of [`Stats::idle`] among the counters.
pub(crate) const IDLE_WORD: usize = 14;

/// The result of a request.
///
/// # Examples
///
/// ```
/// use sockserver::{DeadlineKind, Outcome};
///
/// fn is_good(outcome: Outcome) -> bool {
///     matches!(outcome, Outcome::Finished | Outcome::TimedOut(DeadlineKind::Idle))
/// }
///
/// assert!(is_good(Outcome::Finished) && !is_good(Outcome::Panicked));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The request was served without an error.
    Finished,
    /// A handler or hook returned an error.
    Failed,
    /// A handler or hook returned the error of a client that has disconnected.
    Disconnected,
    /// A handler or hook panicked.
    Panicked,
    /// The request was refused, or could not be started.
    Rejected,
    /// A deadline ended the request.
    TimedOut(DeadlineKind),
    /// The request was aborted because the time of a drain expired, or its forked child still ran when
    /// the server was closed.
    Aborted,
}

impl Outcome {
    /// Whether a drain report counts the request as finished, if the drain has not ended it.
    pub(crate) fn is_completed(self) -> bool {
        matches!(self, Outcome::Finished | Outcome::Failed | Outcome::Panicked)
    }
}

impl Stats {
    /// Returns whether `accepted` equals the sum of the other counters.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// let stats = server.stats();
    /// assert!(stats.is_consistent());
    /// assert_eq!(stats.accepted, stats.finished);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.accepted == self.ended().saturating_add(self.in_flight)
    }

    /// Returns the number of requests that have ended. A worker process with corrupted memory can
    /// report any counters, so this sum and the others do not overflow.
    fn ended(&self) -> u64 {
        let Stats { finished, failed, disconnected, panicked, rejected, timed_out, aborted, .. } = *self;
        [failed, disconnected, panicked, rejected, timed_out.total(), aborted]
            .into_iter()
            .fold(finished, u64::saturating_add)
    }

    /// Counts requests in flight as failed, after the process that served them has died.
    pub(crate) fn all_ended(mut self) -> Stats {
        (self.in_flight, self.idle) = (0, 0);
        self.failed = self.failed.saturating_add(self.accepted.saturating_sub(self.ended()));
        self.accepted = self.ended();
        self
    }

    /// Restores consistency after the counters were read while another process changed them.
    pub(crate) fn normalized(mut self) -> Stats {
        self.accepted = self.accepted.max(self.ended());
        self.in_flight = self.accepted - self.ended();
        self
    }

    /// Returns the sums of both.
    pub(crate) fn plus(&self, other: &Stats) -> Stats {
        let (mut sum, others) = (self.to_words(), other.to_words());
        for (word, other) in sum.iter_mut().zip(others) {
            *word = word.saturating_add(other);
        }
        Stats::from_words(sum)
    }

    pub(crate) fn to_words(self) -> [u64; STATS_WORDS] {
        let mut stats = self;
        stats.counters().map(|number| *number)
    }

    pub(crate) fn from_words(words: [u64; STATS_WORDS]) -> Stats {
        let mut stats = Stats::default();
        for (number, word) in stats.counters().into_iter().zip(words) {
            *number = word;
        }
        stats
    }

    /// Returns all counters, in their order on the scoreboard and in worker reports.
    fn counters(&mut self) -> [&mut u64; STATS_WORDS] {
        let Stats { accepted, finished, failed, disconnected, .. } = self;
        let (panicked, rejected, aborted) = (&mut self.panicked, &mut self.rejected, &mut self.aborted);
        let timed_out = &mut self.timed_out;
        let TimedOut { proxy_header, wrap, first_byte, idle, read, write, request } = timed_out;
        let (in_flight, between) = (&mut self.in_flight, &mut self.idle);
        let lost = &mut self.lost_before_accept;
        [
            accepted,
            finished,
            failed,
            disconnected,
            panicked,
            rejected,
            wrap,
            first_byte,
            idle,
            read,
            write,
            request,
            aborted,
            in_flight,
            between,
            lost,
            proxy_header,
        ]
    }

    pub(crate) fn begin(&mut self) {
        self.accepted += 1;
        self.in_flight += 1;
    }

    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.in_flight -= 1;
        *match outcome {
            Outcome::Finished => &mut self.finished,
            Outcome::Failed => &mut self.failed,
            Outcome::Disconnected => &mut self.disconnected,
            Outcome::Panicked => &mut self.panicked,
            Outcome::Rejected => &mut self.rejected,
            Outcome::TimedOut(deadline) => self.timed_out.of(deadline),
            Outcome::Aborted => &mut self.aborted,
        } += 1;
    }
}

/// Formats the counters in one line, for logs.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { accepted, finished, failed, disconnected, panicked, .. } = self;
        let Stats { rejected, aborted, in_flight, .. } = self;
        write!(
            f,
            "{accepted} accepted, {finished} finished, {failed} failed, {disconnected} disconnected, \
             {panicked} panicked, {rejected} rejected, {} timed out, {aborted} aborted, {in_flight} in flight",
            self.timed_out.total()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_idle_counter_is_known() {
        let stats = Stats { idle: 7, ..Stats::default() };
        assert_eq!(stats.to_words()[IDLE_WORD], 7);
    }

    #[test]
    fn counters_of_a_corrupted_worker_do_not_overflow() {
        for counter in [u64::MAX, u64::MAX / 2, u64::MAX - 1] {
            let corrupted = Stats::from_words([counter; STATS_WORDS]);
            for stats in [corrupted.all_ended(), corrupted.normalized(), corrupted.plus(&corrupted)] {
                assert!(stats.timed_out.total() >= counter, "{stats}");
                let _ = stats.plus(&corrupted).is_consistent();
                assert!(stats.all_ended().is_consistent(), "{stats}");
            }
        }
    }
}
