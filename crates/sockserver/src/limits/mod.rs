//! What a server allows its clients, and how long it waits for them.

pub(crate) mod clock;
pub(crate) mod drain_report;
pub(crate) mod permits;
pub(crate) mod slab;
pub(crate) mod stats;

use std::fmt;
use std::time::Duration;

/// Limits and deadlines of a server: the builder's setters with their defaults.
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
    /// The time a deadline allows.
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

    /// The time the system is to allow a receive that has this deadline.
    pub(crate) fn of_receive(&self, deadline: DeadlineKind) -> Option<Duration> {
        self.of(deadline).into_iter().chain(self.read_timeout).min()
    }

    /// Whether a receive between two requests is over before its own deadline is.
    pub(crate) fn idle_covers_read(&self) -> bool {
        self.idle_timeout.is_some() && self.idle_timeout <= self.read_timeout
    }

    /// The shortest of the deadlines that somebody has to watch for.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        let watched =
            [DeadlineKind::Wrap, DeadlineKind::FirstByte, DeadlineKind::Idle, DeadlineKind::Request];
        watched.into_iter().filter_map(|deadline| self.of(deadline)).min()
    }
}

/// What happens to clients beyond [`max_connections`](crate::Builder::max_connections).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// They wait in the listener's queue until somebody goes.
    #[default]
    Wait,
    /// They are accepted, told so by [`refuse_request`](crate::ServerHooks::refuse_request),
    /// and closed.
    Refuse,
}

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadlineKind {
    /// For [`wrap_request`](crate::ServerHooks::wrap_request), such as a TLS handshake.
    Wrap,
    /// From the start until the client has sent, or been sent, its first byte.
    FirstByte,
    /// Between two requests.
    Idle,
    /// For each receive.
    Read,
    /// For each send.
    Write,
    /// For a whole request, from its first byte until its handler returns.
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
