//! The limits, deadlines and counters of a server.

pub(crate) mod access;
pub(crate) mod clock;
pub(crate) mod drain_report;
pub(crate) mod durations;
pub(crate) mod header_error;
pub(crate) mod log_limit;
pub(crate) mod openmetrics;
pub(crate) mod permits;
pub(crate) mod ranges;
#[cfg_attr(not(feature = "rate-limit"), path = "rate_disabled.rs")]
pub(crate) mod rate;
pub(crate) mod request_quota;
pub(crate) mod shared_permits;
pub(crate) mod slab;
pub(crate) mod stats;
pub(crate) mod traffic;

use std::fmt;
use std::time::Duration;

use crate::limits::durations::Buckets;

/// The limits and deadlines of a server, as the builder sets them.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_ip: Option<usize>,
    pub(crate) when_full: WhenFull,
    /// `None` for a server without the PROXY protocol.
    pub(crate) proxy_header_timeout: Option<Duration>,
    pub(crate) wrap_timeout: Option<Duration>,
    pub(crate) first_byte_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) linger_timeout: Duration,
    pub(crate) close_timeout: Option<Duration>,
    /// How long a drain goes on to accept.
    pub(crate) lame_duck: Duration,
    /// The buckets of the durations of requests.
    pub(crate) duration_buckets: Buckets,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 10_000,
            max_connections_per_ip: None,
            when_full: WhenFull::Wait,
            proxy_header_timeout: None,
            wrap_timeout: Some(Duration::from_secs(10)),
            first_byte_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Some(Duration::from_secs(60)),
            read_timeout: Some(Duration::from_secs(300)),
            write_timeout: Some(Duration::from_secs(60)),
            request_timeout: Some(Duration::from_secs(3600)),
            linger_timeout: Duration::from_secs(2),
            close_timeout: Some(Duration::from_secs(60)),
            lame_duck: Duration::ZERO,
            duration_buckets: Buckets::default(),
        }
    }
}

impl Limits {
    /// Returns the duration of a deadline, `None` if it is disabled.
    pub(crate) fn of(&self, deadline: DeadlineKind) -> Option<Duration> {
        match deadline {
            DeadlineKind::ProxyHeader => self.proxy_header_timeout,
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
        let enforced = [
            DeadlineKind::ProxyHeader,
            DeadlineKind::Wrap,
            DeadlineKind::FirstByte,
            DeadlineKind::Idle,
            DeadlineKind::Request,
        ];
        enforced.into_iter().filter_map(|deadline| self.of(deadline)).min()
    }

    /// Returns whether each connection begins with a PROXY protocol header.
    pub(crate) fn expects_proxy_header(&self) -> bool {
        self.proxy_header_timeout.is_some()
    }
}

/// The policy for clients beyond [`max_connections`](crate::Builder::max_connections).
///
/// # Examples
///
/// ```
/// use sockserver::{TCPServer, WhenFull, handler_fn};
///
/// assert_eq!(WhenFull::default(), WhenFull::Wait);
/// let server = TCPServer::builder(handler_fn(|_| Ok(())))
///     .max_connections(100)
///     .when_full(WhenFull::Refuse)
///     .bind(("127.0.0.1", 0))?;
/// # std::io::Result::Ok(())
/// ```
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
///
/// # Examples
///
/// ```
/// use sockserver::{DeadlineKind, RequestError};
///
/// fn was_idle(error: &RequestError) -> bool {
///     matches!(error, RequestError::TimedOut(DeadlineKind::Idle, _))
/// }
///
/// let error = RequestError::TimedOut(DeadlineKind::Idle, std::io::ErrorKind::TimedOut.into());
/// assert!(was_idle(&error));
/// assert_eq!(DeadlineKind::FirstByte.to_string(), "first byte");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadlineKind {
    /// For the header of the PROXY protocol, from accept until it is complete. See
    /// `ProxyProtocol::header_timeout`.
    ProxyHeader,
    /// For [`wrap_request`](crate::Builder::wrap_request), such as a TLS handshake. A timeout of the
    /// function's own counts too.
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
            DeadlineKind::ProxyHeader => "PROXY header",
            DeadlineKind::Wrap => "wrap",
            DeadlineKind::FirstByte => "first byte",
            DeadlineKind::Idle => "idle",
            DeadlineKind::Read => "read",
            DeadlineKind::Write => "write",
            DeadlineKind::Request => "request",
        })
    }
}
