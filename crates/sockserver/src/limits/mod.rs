//! The limits, deadlines and counters of a server.

pub(crate) mod clock;
pub(crate) mod drain_report;
pub(crate) mod permits;
pub(crate) mod slab;
pub(crate) mod stats;

use std::fmt;
use std::time::Duration;

/// The limits and deadlines of a server, as the builder sets them.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_ip: Option<usize>,
    pub(crate) when_full: WhenFull,
    pub(crate) wrap_timeout: Option<Duration>,
    pub(crate) first_byte_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) linger_timeout: Duration,
    pub(crate) close_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 10_000,
            max_connections_per_ip: None,
            when_full: WhenFull::Wait,
            wrap_timeout: Some(Duration::from_secs(10)),
            first_byte_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Some(Duration::from_secs(60)),
            read_timeout: Some(Duration::from_secs(300)),
            write_timeout: Some(Duration::from_secs(60)),
            request_timeout: Some(Duration::from_secs(3600)),
            linger_timeout: Duration::from_secs(2),
            close_timeout: Some(Duration::from_secs(60)),
        }
    }
}

impl Limits {
    /// Returns the duration of a deadline, `None` if it is disabled.
    pub(crate) fn of(&self, deadline: DeadlineKind) -> Option<Duration> {
        match deadline {
            DeadlineKind::Wrap => self.wrap_timeout,
            DeadlineKind::FirstByte => self.first_byte_timeout,
            DeadlineKind::Idle => self.idle_timeout,
            DeadlineKind::Read => self.read_timeout,
            DeadlineKind::Write => self.write_timeout,
            DeadlineKind::Request => self.request_timeout,
        }
    }

    /// Returns whether a state's deadline ends a receive no later than the read deadline does.
    pub(crate) fn ends_before_read(&self, deadline: DeadlineKind) -> bool {
        self.of(deadline).is_some_and(|limit| self.read_timeout.is_none_or(|read| limit <= read))
    }

    /// Returns the shortest of the deadlines that the deadline timer enforces.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        let enforced =
            [DeadlineKind::Wrap, DeadlineKind::FirstByte, DeadlineKind::Idle, DeadlineKind::Request];
        enforced.into_iter().filter_map(|deadline| self.of(deadline)).min()
    }
}

/// The policy for clients beyond [`max_connections`](crate::Builder::max_connections).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// They wait in the listener's queue until a connection is closed.
    #[default]
    Wait,
    /// They are accepted, passed to [`refuse_request`](crate::ServerHooks::refuse_request), and
    /// closed.
    Refuse,
}

/// A deadline of a connection. The [`Builder`](crate::Builder) has a setter for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadlineKind {
    /// For [`wrap_request`](crate::Builder::wrap_request), such as a TLS handshake.
    Wrap,
    /// From accept until the first byte is received from, or sent to, the client.
    FirstByte,
    /// Between two requests of a keep-alive connection.
    Idle,
    /// For each receive call.
    Read,
    /// For each send call.
    Write,
    /// For a whole request, from its first byte until `handle` returns.
    Request,
}

impl fmt::Display for DeadlineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DeadlineKind::Wrap => "wrap",
            DeadlineKind::FirstByte => "first byte",
            DeadlineKind::Idle => "idle",
            DeadlineKind::Read => "read",
            DeadlineKind::Write => "write",
            DeadlineKind::Request => "request",
        })
    }
}
