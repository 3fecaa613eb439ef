//! Options of the counters of a server, and its administrative listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sock::{AF_UNSPEC, Address, SOCK_STREAM, ToAddress};

use super::Builder;
use crate::accept::listener::{self, Listener, Options};
use crate::accept::mixin::MixIn;
use crate::api::kind::Kind;
use crate::lifecycle::admin::{Admin, AdminSocket};
use crate::lifecycle::handle::ServerHandle;
use crate::limits::durations::Buckets;
use crate::request::hooks::Defaults;

/// Binds the administrative listener of a server, which is served as its duty.
pub(super) fn begin_admin(address: Address, server: &ServerHandle) -> io::Result<()> {
    let options = Options {
        // Connections of the server before may be in TIME_WAIT. On Windows the option would let another
        // program bind the address.
        allow_reuse_address: cfg!(unix),
        allow_reuse_port: false,
        ipv6_only: false,
        request_queue_size: 16,
        unix_mode: address.path().is_some().then_some(0o600),
    };
    let bind = move || {
        let Listener { path, socket } = listener::bind(&address, SOCK_STREAM, &options, &Defaults)?;
        socket.listen(options.request_queue_size)?;
        socket.setblocking(false)?;
        Ok(AdminSocket { path, socket: Arc::new(socket) })
    };
    // A predecessor has the address until it has handed over.
    let admin = Admin::new(Box::new(bind), server.holds_accept(), server)?;
    server.duties().add(Box::new(admin));
    Ok(())
}

impl<K: Kind, M: MixIn> Builder<K, M> {
    /// Sets the upper bounds of the buckets of [`Stats::request_duration`], up to 20. They increase,
    /// and are whole milliseconds. The default is that of Prometheus' client libraries: 5, 10, 25, 50,
    /// 100, 250 and 500 ms, 1, 2.5, 5 and 10 s.
    ///
    /// On Linux the clock changes every 1 to 10 ms, so shorter bounds say little.
    ///
    /// [`Stats::request_duration`]: crate::Stats::request_duration
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .duration_buckets([50, 200, 1000].map(Duration::from_millis))
    ///     .bind(("127.0.0.1", 0))?;
    /// assert_eq!(server.stats().request_duration.buckets().count(), 4);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn duration_buckets(mut self, bounds: impl IntoIterator<Item = Duration>) -> Self {
        match Buckets::new(bounds) {
            Ok(buckets) => self.limits.duration_buckets = buckets,
            Err(error) => {
                self.invalid_option.get_or_insert(error);
            }
        }
        self
    }

    /// Adds an administrative listener, which answers HTTP requests for metrics and health checks:
    ///
    /// | request | answer |
    /// | --- | --- |
    /// | `GET /metrics` | [`ServerHandle::to_openmetrics`] |
    /// | `GET /ready` | 200 while the server is ready, 503 once a stop has begun |
    /// | `GET /live` | 200 |
    /// | `POST /lame-duck` | [`ServerHandle::begin_lame_duck`]; over a Unix socket only |
    /// | `POST /stop?limit=20` | runs the rest of the lame duck, then drains for at most 20 s, 30 s without `limit`; over a Unix socket only |
    ///
    /// The address is an IP address with a port, or the path of a Unix socket, whose mode is `0o600`.
    /// Choose one that clients cannot reach, because there is no authentication. The listener is bound
    /// with the server, and served from `serve_forever` until the server is closed, also during a
    /// drain. In a handover it is closed before the drain, and the successor tries to bind it every
    /// 100 ms. A thread serves it. In a forking or prefork server the accept loop of the parent serves
    /// it, and the other processes close their copies. A client has 5 s, and at most 32 are served at
    /// once. Its requests do not count in the server's counters.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .admin(("127.0.0.1", 0))
    ///     .bind(("127.0.0.1", 0))?;
    /// let address = server.handle().admin_address().unwrap();
    /// # let _running = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now.
    /// let client = sock::create_connection(("127.0.0.1", address.port().unwrap()))?;
    /// client.sendall(b"GET /ready HTTP/1.1\r\n\r\n")?;
    /// assert!(client.recv(100)?.starts_with(b"HTTP/1.1 200 OK"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn admin(mut self, address: impl ToAddress) -> Self {
        self.admin = Some(address.to_address(AF_UNSPEC));
        self
    }
}
