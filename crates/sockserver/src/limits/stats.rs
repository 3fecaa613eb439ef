//! Counting: every request is in exactly one place at every instant.

use std::fmt;

use crate::limits::DeadlineKind;

/// How many requests came, and what became of them.
///
/// [`Server::stats`](crate::Server::stats) and
/// [`ServerHandle::stats`](crate::ServerHandle::stats) take it at one instant, so
/// that it always adds up:
///
/// `accepted = finished + failed + panicked + rejected + timed_out.total() + cut + in_flight`
///
/// A request here is a connection, whatever number of requests its handler serves
/// on it; or a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Taken from the listener.
    pub accepted: u64,
    /// Served to the end without an error.
    pub finished: u64,
    /// A handler or hook returned an error, or a child process died.
    pub failed: u64,
    /// A handler or hook panicked.
    pub panicked: u64,
    /// Refused by `verify_request` or a limit, or impossible to start.
    pub rejected: u64,
    /// Ended by a deadline.
    pub timed_out: TimedOut,
    /// Cut off by the end of a drain's time.
    pub aborted: u64,
    /// Still there: waiting to be served, being served, between requests.
    pub in_flight: u64,
    /// Of those, how many wait for their next request.
    pub idle: u64,
    /// Clients that were lost before they were accepted: not in `accepted`.
    pub lost_before_accept: u64,
}

/// Requests that deadlines ended, by deadline.
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
    /// All of them.
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

/// How many numbers there are.
#[cfg(unix)]
pub(crate) const STATS_WORDS: usize = 15;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was served to the end without an error.
    Finished,
    /// A handler or hook returned an error.
    Failed,
    /// A handler or hook panicked.
    Panicked,
    /// It was refused, or could not be started.
    Rejected,
    /// A deadline ended it.
    TimedOut(DeadlineKind),
    /// The end of a drain's time cut it off.
    Aborted,
}

impl Stats {
    /// Whether every request that was accepted is somewhere.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.accepted == self.ended() + self.in_flight
    }

    /// How many requests have ended.
    fn ended(&self) -> u64 {
        self.finished + self.failed + self.panicked + self.rejected + self.timed_out.total() + self.aborted
    }

    /// The same after the death of whoever served: what was in flight has failed.
    #[cfg(unix)]
    pub(crate) fn all_ended(mut self) -> Stats {
        self.in_flight = 0;
        self.failed += self.accepted.saturating_sub(self.ended());
        self.accepted = self.ended();
        self
    }

    /// What was read while it was written.
    #[cfg(unix)]
    pub(crate) fn normalized(mut self) -> Stats {
        self.accepted = self.accepted.max(self.ended());
        self.in_flight = self.accepted - self.ended();
        self
    }

    /// Both together.
    #[cfg(unix)]
    pub(crate) fn plus(&self, other: &Stats) -> Stats {
        let (mut sum, others) = (self.to_words(), other.to_words());
        for (word, other) in sum.iter_mut().zip(others) {
            *word += other;
        }
        Stats::from_words(sum)
    }

    #[cfg(unix)]
    pub(crate) fn to_words(mut self) -> [u64; STATS_WORDS] {
        self.numbers().map(|number| *number)
    }

    #[cfg(unix)]
    pub(crate) fn from_words(words: [u64; STATS_WORDS]) -> Stats {
        let mut stats = Stats::default();
        for (number, word) in stats.numbers().into_iter().zip(words) {
            *number = word;
        }
        stats
    }

    /// Every number, in the order in which processes tell them each other.
    #[cfg(unix)]
    fn numbers(&mut self) -> [&mut u64; STATS_WORDS] {
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

/// One line, for a log.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { accepted, finished, failed, panicked, rejected, aborted, in_flight, .. } = self;
        write!(
            f,
            "{accepted} accepted, {finished} finished, {failed} failed, {panicked} panicked, \
             {rejected} rejected, {} timed out, {aborted} cut, {in_flight} in flight",
            self.timed_out.total()
        )
    }
}
