//! The options that refuse clients because of their address.

use std::io;
use std::sync::Arc;

use super::Builder;
use crate::accept::mixin::MixIn;
use crate::api::kind::Kind;
use crate::lifecycle::admission::Admission;
use crate::limits::access::AccessList;
#[cfg(feature = "rate-limit")]
use crate::limits::ranges;
use crate::limits::rate::AcceptRate;

/// What the setters of this file have set.
#[derive(Default)]
pub(super) struct Settings {
    access: AccessList,
    /// The first error of a rule. `bind` returns it.
    invalid: Option<io::Error>,
    /// Clients per second, and how many of them at once.
    #[cfg(feature = "rate-limit")]
    rate: Option<(u32, u32)>,
}

impl Settings {
    fn add<N: AsRef<str>>(&mut self, setter: &str, allows: bool, networks: impl IntoIterator<Item = N>) {
        if let Err(error) = self.access.add(allows, networks) {
            self.invalid.get_or_insert(io::Error::new(error.kind(), format!("{setter}: {error}")));
        }
    }

    /// Checks the values of the setters.
    pub(super) fn check(&self) -> io::Result<()> {
        if let Some(error) = &self.invalid {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        #[cfg(feature = "rate-limit")]
        if let Some((per_second, burst)) = self.rate {
            ranges::check("per_second of accept_rate_per_address", per_second, &ranges::ACCEPT_RATE)?;
            ranges::check("burst of accept_rate_per_address", burst, &ranges::ACCEPT_RATE)?;
        }
        self.access.check()
    }

    /// Creates what the processes of the server share.
    pub(super) fn build(&self, forks: bool) -> io::Result<Arc<Admission>> {
        #[cfg(feature = "rate-limit")]
        let rate =
            self.rate.map(|(per_second, burst)| AcceptRate::new(per_second, burst, forks)).transpose()?;
        #[cfg(not(feature = "rate-limit"))]
        let rate: Option<AcceptRate> = None;
        Admission::new(&self.access, rate, forks)
    }
}

/// Options that refuse clients because of their address.
impl<K: Kind, M: MixIn> Builder<K, M> {
    /// Allows clients with these addresses. By default every address is allowed.
    ///
    /// `allow` and [`deny`](Self::deny) add rules. The rules apply in the order of the calls, and the
    /// first one that matches decides, as in nginx. An address that no rule matches is allowed, so the
    /// last rule has to deny: `.allow(["10.0.0.0/8"]).deny(["all"])`. A rule is a network such as
    /// `10.0.0.0/8`, an address, `all`, or `unix:` for the peers of Unix sockets. An IPv4 client of a
    /// dual-stack server is treated as IPv4. [`ServerHandle::set_access`] replaces the rules while the
    /// server serves.
    ///
    /// The rules are applied to the peer of a connection when it is accepted, and to each datagram. With
    /// `proxy_protocol` they are applied to the client that the header names, or to the proxy if it
    /// names none, and also to a client that [`wrap_request`](Builder::wrap_request) names. A connection
    /// that is denied is closed before `verify_request`, and a datagram is dropped. It is counted in
    /// [`Stats::denied`] and [`Stats::rejected`], and logged at level `warn`, at most once per second.
    ///
    /// `bind` returns `InvalidInput` if a text is not a network, if the last rule allows, and if there
    /// are more than 1,024 rules. Not in Python.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .allow(["127.0.0.0/8", "::1"])
    ///     .deny(["all"])
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// [`ServerHandle::set_access`]: crate::ServerHandle::set_access
    /// [`Stats::denied`]: crate::Stats::denied
    /// [`Stats::rejected`]: crate::Stats::rejected
    pub fn allow<N: AsRef<str>>(mut self, networks: impl IntoIterator<Item = N>) -> Self {
        self.admission.add("allow", true, networks);
        self
    }

    /// Denies clients with these addresses. [`allow`](Self::allow) describes the rules and their order.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .deny(["192.0.2.0/24", "127.0.0.1"])
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"");
    /// assert_eq!(server.stats().denied, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn deny<N: AsRef<str>>(mut self, networks: impl IntoIterator<Item = N>) -> Self {
        self.admission.add("deny", false, networks);
        self
    }

    /// Sets how many connections, or datagrams, are accepted from one address: `burst` at once, and
    /// `per_second` more in each second, as `limit_req` of nginx with `nodelay`. Both are 1 to 1,000,000.
    /// Default: no limit.
    ///
    /// A connection beyond the limit is closed before `verify_request`, and a datagram is dropped. It is
    /// counted in [`Stats::rate_limited`] and [`Stats::rejected`], and logged at level `warn`, at most
    /// once per second. It does not count for the rate itself. The accept rate is applied where the rules
    /// of [`allow`](Self::allow) are, but not to a client that [`wrap_request`](Builder::wrap_request)
    /// names. The peers of Unix sockets have no limit. An IPv6 client counts for its network of 64 bits,
    /// and an IPv4 client of a dual-stack server as IPv4.
    ///
    /// The limit applies to the whole server: worker processes share the counters, in 256 KiB of memory.
    /// It has places for 16,384 addresses. If there are more, those that have waited longest begin again
    /// with a whole burst.
    ///
    /// Needs the feature `rate-limit`. Not in Python.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .accept_rate_per_address(1, 2)
    ///     .bind(("127.0.0.1", 0))?;
    /// let port = server.server_address().port().unwrap();
    /// let clients: std::io::Result<Vec<_>> = (0..10).map(|_| sock::create_connection(("127.0.0.1", port))).collect();
    /// (0..10).try_for_each(|_| server.handle_request())?;
    /// assert!(server.stats().finished >= 2 && server.stats().rate_limited >= 1);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// [`Stats::rate_limited`]: crate::Stats::rate_limited
    /// [`Stats::rejected`]: crate::Stats::rejected
    #[cfg(feature = "rate-limit")]
    pub fn accept_rate_per_address(mut self, per_second: u32, burst: u32) -> Self {
        self.admission.rate = Some((per_second, burst));
        self
    }
}
