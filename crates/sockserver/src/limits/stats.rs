//! The counters of requests. Every request is counted in exactly one of them at any time.

use std::fmt;

use crate::limits::DeadlineKind;

/// The counters of a server's requests.
///
/// [`Server::stats`](crate::Server::stats) and [`ServerHandle::stats`](crate::ServerHandle::stats)
/// read all counters at one instant, so they are consistent:
///
/// `accepted = finished + failed + panicked + rejected + timed_out.total() + aborted + in_flight`
///
/// A request is a datagram, or a connection with all the requests that its handler serves on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that were accepted.
    pub accepted: u64,
    /// Requests that were served without an error.
    pub finished: u64,
    /// Requests for which a handler or hook returned an error, or whose child process died.
    pub failed: u64,
    /// Requests for which a handler or hook panicked.
    pub panicked: u64,
    /// Requests that `verify_request` or a limit refused, or that could not be started.
    pub rejected: u64,
    /// Requests that a deadline ended.
    pub timed_out: TimedOut,
    /// Requests that were aborted because the time of a drain expired.
    pub aborted: u64,
    /// Requests that have not ended: waiting to be served, being served, or idle.
    pub in_flight: u64,
    /// The part of `in_flight` that is idle and waits for the next request.
    pub idle: u64,
    /// Connections that failed before accept(2) returned them. They are not part of `accepted`.
    pub lost_before_accept: u64,
}

/// The requests that deadlines ended, by deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimedOut {
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
    #[must_use]
    pub fn total(&self) -> u64 {
        let TimedOut { wrap, first_byte, idle, read, write, request } = *self;
        wrap + first_byte + idle + read + write + request
    }

    fn of(&mut self, deadline: DeadlineKind) -> &mut u64 {
        match deadline {
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
pub(crate) const STATS_WORDS: usize = 15;

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The request was served without an error.
    Finished,
    /// A handler or hook returned an error.
    Failed,
    /// A handler or hook panicked.
    Panicked,
    /// The request was refused, or could not be started.
    Rejected,
    /// A deadline ended the request.
    TimedOut(DeadlineKind),
    /// The request was aborted because the time of a drain expired.
    Aborted,
}

impl Stats {
    /// Returns whether `accepted` equals the sum of the other counters.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.accepted == self.ended() + self.in_flight
    }

    /// Returns the number of requests that have ended.
    fn ended(&self) -> u64 {
        self.finished + self.failed + self.panicked + self.rejected + self.timed_out.total() + self.aborted
    }

    /// Counts requests in flight as failed, after the process that served them has died.
    pub(crate) fn all_ended(mut self) -> Stats {
        self.in_flight = 0;
        self.failed += self.accepted.saturating_sub(self.ended());
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
            *word += other;
        }
        Stats::from_words(sum)
    }

    pub(crate) fn to_words(mut self) -> [u64; STATS_WORDS] {
        self.counters().map(|number| *number)
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
        let Stats { accepted, finished, failed, panicked, rejected, timed_out, aborted, .. } = self;
        let TimedOut { wrap, first_byte, idle, read, write, request } = timed_out;
        let (in_flight, between) = (&mut self.in_flight, &mut self.idle);
        let lost = &mut self.lost_before_accept;
        [
            accepted, finished, failed, panicked, rejected, wrap, first_byte, idle, read, write, request,
            aborted, in_flight, between, lost,
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
        let Stats { accepted, finished, failed, panicked, rejected, aborted, in_flight, .. } = self;
        write!(
            f,
            "{accepted} accepted, {finished} finished, {failed} failed, {panicked} panicked, \
             {rejected} rejected, {} timed out, {aborted} aborted, {in_flight} in flight",
            self.timed_out.total()
        )
    }
}
