//! The builder of a server: a setter for each option, and `bind` to create the server.

mod access;
mod bind;
mod create;
#[cfg(unix)]
mod handover;
mod metrics;
mod options;
#[cfg(unix)]
mod unix;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use sock::{Address, ToDuration, ToTimeout};

use crate::accept::acceptor::Settings;
use crate::accept::listener::Options;
use crate::accept::mixin::MixIn;
use crate::api::kind::Kind;
use crate::lifecycle::handle::ServerHandle;
use crate::limits::{Limits, WhenFull};
use crate::request::core::HandlerFactory;
use crate::request::hooks::{Defaults, ServerHooks, ServiceActions, WrapRequest};
use crate::request::proxy_protocol::ProxyProtocol;

/// Sets the options of a server and creates it.
///
/// Python: assignments to class variables, and `bind_and_activate=False`. A builder cannot serve,
/// and the options of a server cannot be changed.
///
/// | setter | default | Python |
/// | --- | --- | --- |
/// | [`allow_reuse_address`](Self::allow_reuse_address) | false | the same |
/// | [`allow_reuse_port`](Self::allow_reuse_port) | false | the same |
/// | [`ipv6_only`](Self::ipv6_only) | false | none |
/// | [`timeout`](Self::timeout) | none; 300 s when forking | the same |
/// | [`poll_interval`](Self::poll_interval) | 0.5 s, used only with `service_actions` | 0.5 s always |
/// | [`max_connections`](Self::max_connections) | 10,000 | no limit |
/// | [`allow`](Self::allow) | every address is allowed | none |
/// | [`deny`](Self::deny) | no address is denied | none |
/// | `accept_rate_per_address` | no limit; feature `rate-limit` | none |
/// | [`when_full`](Self::when_full) | further clients wait | none |
/// | [`close_timeout`](Self::close_timeout) | 60 s | none |
/// | [`drain_on_signals`](Self::drain_on_signals) | off; Unix | none |
/// | [`lame_duck`](Self::lame_duck) | 0 | none |
/// | `handover` | off; Unix | none |
/// | `upgrade_on_signal` | off; Unix, feature `signals` | none |
/// | `systemd` | off; Unix, feature `systemd` | none |
/// | [`duration_buckets`](Self::duration_buckets) | 5 ms to 10 s, as Prometheus | none |
/// | [`admin`](Self::admin) | none | none |
/// | [`hooks`](Self::hooks) | the steps of Python | methods that are overridden |
/// | [`service_actions`](Self::service_actions) | none | the method of that name |
/// | [`mixin`](Self::mixin) | that of the class | base classes |
/// | [`request_queue_size`](Builder::request_queue_size) | 128 | 5 |
/// | [`max_connections_per_ip`](Builder::max_connections_per_ip) | no limit | none |
/// | [`wrap_request`](Builder::wrap_request) | the socket itself | `get_request` |
/// | [`wrap_timeout`](Builder::wrap_timeout) | 10 s | none |
/// | [`first_byte_timeout`](Builder::first_byte_timeout) | 30 s | none |
/// | [`idle_timeout`](Builder::idle_timeout) | 60 s | none |
/// | [`read_timeout`](Builder::read_timeout) | 5 min | none |
/// | [`write_timeout`](Builder::write_timeout) | 60 s | none |
/// | [`request_timeout`](Builder::request_timeout) | 1 h | none |
/// | [`no_deadlines`](Builder::no_deadlines) | the six deadlines above are enabled | no deadlines |
/// | `proxy_protocol` | off; feature `proxy-protocol` | none |
/// | [`linger_timeout`](Builder::linger_timeout) | 2 s | none |
/// | [`max_packet_size`](Builder::max_packet_size) | 8192 | the same |
/// | [`max_batch`](Builder::max_batch) | 1 | none |
/// | [`unix_mode`](Builder::unix_mode) | `0o777` without the bits of the umask | none |
/// | [`daemon_threads`](Builder::daemon_threads) | threading: false | the same |
/// | [`block_on_close`](Builder::block_on_close) | threading, forking: true | the same |
/// | [`stack_size`](Builder::stack_size) | threading: that of `std` | `threading.stack_size` |
/// | [`thread_name`](Builder::thread_name) | `sockserver` | `Thread-1 (process_request_thread)` |
/// | [`on_thread_start`](Builder::on_thread_start) | none | none |
/// | [`max_threads`](Builder::max_threads) | threading: 10,000, as `max_connections`; pre-forking with a selector: 512 | none |
/// | [`max_children`](Builder::max_children) | forking: 40 | the same |
/// | [`workers`](Builder::workers) | pool: 8; pre-forking, selector: as many as processors | none |
/// | [`queue`](Builder::queue) | pool: no queue | none |
/// | [`max_workers`](Builder::max_workers) | selector: 512 | none |
/// | [`max_requests`](Builder::max_requests) | pre-forking: no limit | none |
/// | [`heartbeat`](Builder::heartbeat) | pre-forking: 30 s | none |
/// | [`worker_class`](Builder::worker_class) | pre-forking: one connection at a time | none |
/// | [`manage_workers_on_signals`](Builder::manage_workers_on_signals) | pre-forking: off | none |
///
/// A deadline, limit or interval is a number of seconds such as `2.5` or `5`, or a [`Duration`].
/// [`ToTimeout`] also takes `None`, for no limit. `bind` refuses a negative number and NaN.
///
/// # Examples
///
/// ```
/// use sockserver::{ThreadingTCPServer, handler_fn};
///
/// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
///     .allow_reuse_address(true)
///     .request_queue_size(1024)
///     .bind(("127.0.0.1", 0))?;
/// # std::io::Result::Ok(())
/// ```
#[must_use = "a builder does nothing until `bind`"]
pub struct Builder<K, M> {
    service: HandlerFactory,
    hooks: Box<dyn ServerHooks>,
    has_hooks: bool,
    proxy_protocol: Option<ProxyProtocol>,
    wrap_request: Option<Arc<WrapRequest>>,
    service_actions: Option<Arc<ServiceActions>>,
    mixin: M,
    options: Options,
    settings: Settings,
    limits: Limits,
    admission: access::Settings,
    /// The address of the administrative listener, or the error of its conversion.
    admin: Option<io::Result<Address>>,
    drain_on_signals: Option<Duration>,
    manages_workers: bool,
    #[cfg(unix)]
    handover: handover::Settings,
    /// The error of the first timeout that is negative, NaN or too long, or of the buckets. `bind`
    /// returns it.
    invalid_option: Option<io::Error>,
    kind: PhantomData<fn() -> K>,
}

impl<K, M> fmt::Debug for Builder<K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<K: Kind, M: MixIn> Builder<K, M> {
    fn begin(service: HandlerFactory) -> Self
    where
        M: Default,
    {
        Builder {
            service,
            hooks: Box::new(Defaults),
            has_hooks: false,
            proxy_protocol: None,
            wrap_request: None,
            service_actions: None,
            mixin: M::default(),
            options: Options {
                allow_reuse_address: false,
                allow_reuse_port: false,
                ipv6_only: false,
                request_queue_size: 128,
                unix_mode: None,
            },
            limits: Limits::default(),
            admission: access::Settings::default(),
            drain_on_signals: None,
            manages_workers: false,
            #[cfg(unix)]
            handover: handover::Settings::default(),
            invalid_option: None,
            admin: None,
            settings: Settings {
                timeout: None,
                poll_interval: Duration::from_millis(500),
                max_packet_size: 8192,
                max_batch: 1,
                packet_info: false,
            },
            kind: PhantomData,
        }
    }

    /// Sets the hooks, which replace steps of the server. Python: methods overridden in a subclass.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Address;
    /// use sockserver::{Request, ServerHooks, TCPServer, handler_fn};
    ///
    /// struct Closed;                                             // class Closed(TCPServer):
    ///
    /// impl ServerHooks for Closed {
    ///     fn verify_request(&self, _request: &Request, _client_address: &Address) -> bool {
    ///         false                                              //     def verify_request(self, …): return False
    ///     }
    /// }
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(Closed).bind(("127.0.0.1", 0))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().rejected, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn hooks(mut self, hooks: impl ServerHooks) -> Self {
        self.hooks = Box::new(hooks);
        self.has_hooks = true;
        self
    }

    /// Sets a function that is called after every turn of the loop, and at least once in every
    /// [`poll_interval`](Self::poll_interval). By default there is none, and an idle loop sleeps
    /// until there is something to do. A panic is logged, and the loop continues.
    ///
    /// Python: overriding `service_actions`. Instead of `super().service_actions()`, call the other
    /// function.
    ///
    /// # Examples
    ///
    /// A flag that a signal handler may set stops the server:
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// static STOP: AtomicBool = AtomicBool::new(false);
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .service_actions(|server| {
    ///         if STOP.load(Ordering::Relaxed) {
    ///             let _ = server.request_shutdown();
    ///         }
    ///     })
    ///     .bind(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn service_actions(mut self, f: impl Fn(&ServerHandle) + Send + Sync + 'static) -> Self {
        self.service_actions = Some(Arc::new(f));
        self
    }

    /// Replaces the mixin.
    ///
    /// The options of a mixin can also be set on the builder: `workers(8)` has the same effect as
    /// `mixin(ThreadPoolMixIn::new().workers(8))`. Use this method for a mixin of your own.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadPoolMixIn, ThreadPoolTCPServer, WhenQueueFull, handler_fn};
    ///
    /// let pool = ThreadPoolMixIn::new().workers(4).queue(100, WhenQueueFull::Wait);
    /// let server = ThreadPoolTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .mixin(pool)
    ///     .bind(("127.0.0.1", 0))?;
    /// assert_eq!(server.mixin().queued(), 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn mixin(mut self, mixin: M) -> Self {
        self.mixin = mixin;
        self
    }

    /// Sets `SO_REUSEADDR`, so that the port can be bound again while connections of an earlier
    /// server are in `TIME_WAIT`. Default false.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .allow_reuse_address(true)                             // allow_reuse_address = True
    ///     .bind(("127.0.0.1", 0))?;
    /// assert_ne!(server.socket().getsockopt(sock::SOL_SOCKET, sock::SO_REUSEADDR)?, 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn allow_reuse_address(mut self, allow: bool) -> Self {
        self.options.allow_reuse_address = allow;
        self
    }

    /// Sets `IPV6_V6ONLY`, so that a server bound to `::` does not accept IPv4 clients. Default
    /// false: IPv4 clients are accepted and have addresses of the form `::ffff:a.b.c.d`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// # if sock::Socket::new(sock::AF_INET6, sock::SOCK_STREAM, 0).and_then(|s| s.bind(("::", 0))).is_err() {
    /// #     return std::io::Result::Ok(());
    /// # }
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).ipv6_only(true).bind(("::", 0))?;
    /// let port = server.server_address().port().unwrap();
    /// assert!(sock::create_connection(("127.0.0.1", port)).is_err());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn ipv6_only(mut self, ipv6_only: bool) -> Self {
        self.options.ipv6_only = ipv6_only;
        self
    }

    /// Sets `SO_REUSEPORT`, so that several servers can share the port. Default false.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// # if cfg!(unix) {
    /// let builder = || TCPServer::builder(handler_fn(|_| Ok(()))).allow_reuse_port(true);
    /// let first = builder().bind(("127.0.0.1", 0))?;
    /// let second = builder().bind(first.server_address())?;
    /// assert_eq!(first.server_address(), second.server_address());
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn allow_reuse_port(mut self, allow: bool) -> Self {
        self.options.allow_reuse_port = allow;
        self
    }

    /// Sets how long [`handle_request`](crate::Server::handle_request) waits for a request. When the
    /// timeout expires, it calls `handle_timeout` and returns.
    ///
    /// `None` waits indefinitely, which is the default except in a forking server (300 s). This is
    /// no deadline for clients, and `serve_forever` ignores it. Python: `timeout`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .timeout(0.01)                                         // timeout = 0.01
    ///     .bind(("127.0.0.1", 0))?;
    /// // No client comes, so this returns after 10 ms.
    /// server.handle_request()?;
    /// assert_eq!(server.stats().accepted, 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn timeout(mut self, timeout: impl ToTimeout) -> Self {
        self.settings.timeout = Some(self.parse("timeout", timeout));
        self
    }

    /// Sets the longest time between two calls of `service_actions`. Default 0.5 s. A server
    /// without that hook ignores it. Python: the argument of `serve_forever`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .service_actions(|server| server.request_shutdown().unwrap())
    ///     .poll_interval(0.01)                                   // serve_forever(poll_interval=0.01)
    ///     .bind(("127.0.0.1", 0))?;
    /// // No client comes. After 10 ms `service_actions` stops the loop.
    /// server.serve_forever()?;
    /// assert_eq!(server.stats().accepted, 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn poll_interval(mut self, interval: impl ToDuration) -> Self {
        let interval = self.parse_duration("poll_interval", interval);
        self.settings.poll_interval = interval;
        self
    }

    /// Sets how many connections, or datagrams, are served at the same time. Default 10,000; 0 is
    /// treated as 1.
    ///
    /// The limit is exact, because a permit is acquired before a connection is accepted.
    /// [`when_full`](Self::when_full) says what happens to further clients.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
    ///     .max_connections(1)
    ///     .timeout(0.01)
    ///     .bind(("127.0.0.1", 0))?;
    /// let port = server.server_address().port().unwrap();
    /// let _clients = [sock::create_connection(("127.0.0.1", port))?, sock::create_connection(("127.0.0.1", port))?];
    /// server.handle_request()?;
    /// server.handle_request()?;
    /// // The second client waits in the listener's queue.
    /// assert_eq!(server.stats().accepted, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.limits.max_connections = max_connections.max(1);
        self
    }

    /// Sets what happens to clients when [`max_connections`](Self::max_connections) is reached. By
    /// default they wait in the listener's queue.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, WhenFull, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
    ///     .max_connections(1)
    ///     .when_full(WhenFull::Refuse)
    ///     .bind(("127.0.0.1", 0))?;
    /// let port = server.server_address().port().unwrap();
    /// let _first = sock::create_connection(("127.0.0.1", port))?;
    /// server.handle_request()?;
    /// let second = sock::create_connection(("127.0.0.1", port))?;
    /// server.handle_request()?;
    /// assert_eq!(second.recv(1)?, b"");
    /// assert_eq!(server.stats().rejected, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.limits.when_full = when_full;
        self
    }

    /// Drains the server on the first SIGTERM or SIGINT, for at most `limit`, and stops it at once
    /// on the second. `serve_forever` returns afterwards.
    ///
    /// The signals are caught from `bind` until the server is closed. Afterwards they have their
    /// earlier effect: the program's handler runs, or the process is terminated. A program that
    /// needs its own handlers must install them before it creates the first server. While it serves,
    /// a thread waits for the signals; in a forking server the accept loop does. A signal that
    /// arrives between `bind` and that is not lost, also in a child that was forked meanwhile and
    /// serves. The thread that calls `serve_forever` unblocks both signals until it returns. If the
    /// accept loop itself is blocked in a handler when the drain ends, as that of a `TCPServer` may be,
    /// or in a hook, the process exits with status 1.
    ///
    /// A forking or prefork server detects that with the timer of alarm(2), which the first signal
    /// starts, unless SIGALRM is blocked when it begins to serve. It handles SIGALRM from that signal
    /// until `serve_forever` or `handle_request` returns, and an alarm(2) of the program is lost. Its
    /// children end before it.
    ///
    /// # Platform notes
    ///
    /// Available on Unix with the feature `signals`, which is enabled by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .drain_on_signals(30)
    ///     .bind(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    #[cfg(all(unix, feature = "signals"))]
    pub fn drain_on_signals(mut self, limit: impl ToDuration) -> Self {
        self.drain_on_signals = Some(self.parse_duration("drain_on_signals", limit));
        self
    }

    /// Sets how long a drain goes on to accept and serve before it refuses clients. Default 0.
    ///
    /// Meanwhile the [`state`](crate::ServerHandle::state) is
    /// [`ServerState::LameDuck`](crate::ServerState::LameDuck). The handler lets readiness checks fail
    /// and answers with `Connection: close`, and balancers send their clients to other servers. Set it
    /// to a little more than the time in which the balancer notices. That is the product of the interval
    /// and the number of failed checks, if the server answers its checks at once. If checks can be slow,
    /// add the timeout of each. It applies to [`drain`](crate::ServerHandle::drain) and to
    /// `drain_on_signals` while `serve_forever` runs. A second signal ends it, and so does
    /// `shutdown`. Envoy: `--drain-time-s`.
    ///
    /// A pre-forked worker that is replaced while the server goes on accepts nothing more, and leaves
    /// its idle connections open for this time, at most for half of the time that its requests have.
    /// Its handlers read [`ServerState::Draining`](crate::ServerState::Draining).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .lame_duck(0.02)
    ///     .bind(("127.0.0.1", 0))?;
    /// # let server = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now, and serves a client.
    /// # let address = server.address();
    /// # let server_address = || address;
    /// assert_eq!(sock::create_connection(("127.0.0.1", server_address().port().unwrap()))?.recv(1)?, b"");
    /// let begin = Instant::now();
    /// server.handle().drain(10)?;
    /// assert!(begin.elapsed() >= Duration::from_millis(20));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn lame_duck(mut self, time: impl ToDuration) -> Self {
        self.limits.lame_duck = self.parse_duration("lame_duck", time);
        self
    }

    /// Sets how long closing the server waits for requests that are still running. Default one
    /// minute; `None` waits indefinitely, as in Python. Requests that are still running when the
    /// time expires are left running.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .close_timeout(5)
    ///     .bind(("127.0.0.1", 0))?;
    /// assert_eq!(server.handle().close_timeout(), Some(Duration::from_secs(5)));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn close_timeout(mut self, timeout: impl ToTimeout) -> Self {
        self.limits.close_timeout = self.parse("close_timeout", timeout);
        self
    }

    /// Returns a timeout. An invalid one is kept for `bind`.
    fn parse(&mut self, name: &str, timeout: impl ToTimeout) -> Option<Duration> {
        timeout.to_timeout().unwrap_or_else(|error| {
            self.invalid_option.get_or_insert(named(name, &error));
            None
        })
    }

    /// Returns a duration. An invalid one is kept for `bind`.
    fn parse_duration(&mut self, name: &str, duration: impl ToDuration) -> Duration {
        duration.to_duration().unwrap_or_else(|error| {
            self.invalid_option.get_or_insert(named(name, &error));
            Duration::ZERO
        })
    }
}

/// The error of a setter, with its name.
fn named(setter: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{setter}: {error}"))
}
