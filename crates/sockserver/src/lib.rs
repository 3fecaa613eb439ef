//! Python's [`socketserver`](https://docs.python.org/3/library/socketserver.html) for Rust.
//!
//! Write a handler, choose a server class, and call [`serve_forever`](Server::serve_forever).
//!
//! ```
//! use std::io::{self, Write};
//! use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};
//!
//! struct Echo;
//!
//! impl StreamRequestHandler for Echo {
//!     fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
//!         for line in &mut cx.rfile {
//!             cx.wfile.write_all(&line?)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let server = ThreadingTCPServer::new(("127.0.0.1", 0), || Echo)?;
//! let handle = server.handle();
//! std::thread::scope(|scope| {
//!     scope.spawn(|| server.serve_forever());
//!
//!     let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
//!     client.sendall(b"hello\n")?;
//!     assert_eq!(client.recv(100)?, b"hello\n");
//!     drop(client);
//!     handle.shutdown()
//! })?;
//! server.server_close()?;
//! # io::Result::Ok(())
//! ```
//!
//! # The path of a request
//!
//! 1. The accept loop waits, accepts a connection, and calls
//!    [`verify_request`](ServerHooks::verify_request).
//! 2. [`process_request`](MixIn::process_request) passes the request to a worker: a thread, a
//!    process, or the accept loop itself.
//! 3. The worker calls [`wrap_request`](Builder::wrap_request), creates the handler, and calls
//!    [`setup`](StreamRequestHandler::setup), [`handle`](StreamRequestHandler::handle) and
//!    [`finish`](StreamRequestHandler::finish). If one of them fails, it calls
//!    [`handle_error`](ServerHooks::handle_error).
//! 4. The worker calls [`shutdown_request`](ServerHooks::shutdown_request) and
//!    [`close_request`](ServerHooks::close_request), and closes the connection.
//!
//! The accept loop also calls [`service_actions`](Builder::service_actions).
//!
//! # Classes
//!
//! | requests run | TCP | UDP | Unix stream | Unix datagram |
//! | --- | --- | --- | --- | --- |
//! | in the accept loop | [`TCPServer`] | [`UDPServer`] | [`UnixStreamServer`] | [`UnixDatagramServer`] |
//! | in a thread each | [`ThreadingTCPServer`] | [`ThreadingUDPServer`] | [`ThreadingUnixStreamServer`] | [`ThreadingUnixDatagramServer`] |
//! | in a fixed number of threads | [`ThreadPoolTCPServer`] | [`ThreadPoolUDPServer`] | [`ThreadPoolUnixStreamServer`] | [`ThreadPoolUnixDatagramServer`] |
//! | in a few threads, idle connections in none (Unix) | [`SelectorTCPServer`] | | [`SelectorUnixStreamServer`] | |
//! | in worker processes started in advance (Unix) | [`PreforkTCPServer`] | [`PreforkUDPServer`] | [`PreforkUnixStreamServer`] | [`PreforkUnixDatagramServer`] |
//! | in a child process each (Unix) | [`ForkingTCPServer`] | [`ForkingUDPServer`] | [`ForkingUnixStreamServer`] | [`ForkingUnixDatagramServer`] |
//!
//! # Where Python's names are
//!
//! | Python | here |
//! | --- | --- |
//! | `class Echo(StreamRequestHandler)` | [`StreamRequestHandler`], [`DatagramRequestHandler`]; closures: [`handler_fn`], [`datagram_handler_fn`] |
//! | `self.rfile`, `self.client_address`, … | fields of [`StreamContext`], [`DatagramContext`] |
//! | class variables of a server | setters of [`Builder`] |
//! | class variables of a handler | associated constants of [`StreamRequestHandler`] |
//! | a method of the server that is overridden | [`ServerHooks`] |
//! | `class T(ThreadingMixIn, TCPServer)` | [`MixIn`]: [`Sequential`], [`ThreadingMixIn`], [`ForkingMixIn`] |
//! | `server.shutdown()` | [`ServerHandle::shutdown`] |
//! | not in Python | [`ThreadPoolMixIn`], [`PreforkMixIn`], [`SelectorMixIn`], [`ServerHandle::drain`], [`Builder::drain_on_signals`], [`Stats`] |
//!
//! # Log levels
//!
//! - `error`: a request, a hook or a worker failed, or a listener was lost.
//! - `warn`: accepting failed and is repeated after a pause, a deadline expired during a request, a
//!   client was refused because of its address, its accept rate or its PROXY protocol header, or a
//!   drain aborted requests.
//! - `info`: the server drains, is replaced by another process, or changes its number of workers.
//! - `debug`: the server starts or stops, a client disconnects or is refused because of a limit or by
//!   `verify_request`, a worker or child starts or exits.
//!
//! Errors of requests and of accepting are limited to one line per second for each kind. The records
//! have key-values. [Operations](sock::guide::operations#log-records) lists the keys.
//!
//! # Features
//!
//! | feature | default | effect |
//! | --- | --- | --- |
//! | `signals` | on | [`Builder::drain_on_signals`], `manage_workers_on_signals` and `upgrade_on_signal` on Unix; needs the crate `signal-hook` |
//! | `proxy-protocol` | off | `Builder::proxy_protocol`: the client's address behind a proxy; needs the crate `ppp` |
//! | `metrics` | off | `MetricsReporter`; needs the crate `metrics` |
//! | `rate-limit` | off | `Builder::accept_rate_per_address`; needs the crate `governor` |
//! | `systemd` | off | `Builder::systemd`, for servers that systemd starts (Unix); needs the crates `listenfd` and `sd-notify` |
//! | `test-util` | off | the module `testing`, for tests of servers and handlers; for `[dev-dependencies]` |
//!
//! # Guide, examples and other crates
//!
//! - [Performance](sock::guide::performance) compares the classes, and
//!   [reliability](sock::guide::reliability) lists what a server guarantees.
//! - [Porting](sock::guide::porting) shows Python and Rust side by side, and
//!   [differences](sock::guide::differences) lists what behaves differently on purpose.
//! - The [examples] are complete programs, each in Rust and in Python.
//! - [`sock`] is Python's `socket`, on which this crate is built. [`sockssl`] adds TLS to a server
//!   with [one hook](Builder::wrap_request). [`sockdiag`] lists the sockets of the system, and
//!   [`socklens`] shows calls and packets in lessons.
//!
//! # What this crate does not do
//!
//! It is not async: a handler blocks its thread. A [`SelectorTCPServer`] needs no thread for an idle
//! connection, but one for each request that waits; for thousands of these at once use tokio. It
//! implements no protocol: for HTTP use hyper. It is derived from CPython's `socketserver.py`.
//!
#![cfg_attr(docsrs, doc = "[`sockssl`]: https://docs.rs/sockssl")]
#![cfg_attr(not(docsrs), doc = "[`sockssl`]: ../sockssl/index.html")]
#![cfg_attr(docsrs, doc = "[`sockdiag`]: https://docs.rs/sockdiag")]
#![cfg_attr(not(docsrs), doc = "[`sockdiag`]: ../sockdiag/index.html")]
#![cfg_attr(docsrs, doc = "[`socklens`]: https://docs.rs/socklens")]
#![cfg_attr(not(docsrs), doc = "[`socklens`]: ../socklens/index.html")]
#![cfg_attr(docsrs, doc = "[examples]: https://docs.rs/sock/latest/sock/guide/index.html#examples")]
#![cfg_attr(not(docsrs), doc = "[examples]: ../../../examples/README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Parts that only the models for Unix, or only the PROXY protocol use.
#![cfg_attr(any(not(unix), not(feature = "proxy-protocol")), allow(dead_code))]
#![warn(missing_debug_implementations)]

extern crate log as log_facade;
// `log::error!` and its siblings are the macros of `os/log.rs`, which survive a logger that panics.
extern crate self as log;

mod accept;
mod api;
mod connection;
mod lifecycle;
mod limits;
mod models;
mod os;
mod request;

pub(crate) use os::log::{Level, debug, error, info, log, warn};

pub use accept::mixin::{AcceptLoop, MixIn};
pub use api::builder::Builder;
pub use api::classes::*;
#[cfg(unix)]
pub use api::handover;
pub use api::kind;
pub use api::server::{DatagramServer, Server, StreamServer};
#[cfg(feature = "test-util")]
pub use api::testing;
#[cfg(unix)]
pub use api::unix_classes::*;
pub use connection::client_handle::ClientHandle;
#[cfg(feature = "proxy-protocol")]
pub use connection::proxy_header::ProxyHeader;
pub use lifecycle::gauges::{ListenerStats, ThreadStats, WorkerStats};
pub use lifecycle::handle::ServerHandle;
#[cfg(feature = "metrics")]
pub use lifecycle::metrics_reporter::MetricsReporter;
pub use lifecycle::state::ServerState;
pub use limits::access::AccessList;
pub use limits::drain_report::{AbortedRequest, DrainReport};
pub use limits::durations::DurationHistogram;
pub use limits::stats::{Outcome, Stats, TimedOut};
pub use limits::{DeadlineKind, WhenFull};
pub use models::pool::{ThreadPoolMixIn, WhenQueueFull};
pub use models::sequential::Sequential;
pub use models::threading::ThreadingMixIn;
#[cfg(unix)]
pub use models::worker_class::WorkerClass;
#[cfg(unix)]
pub use models::{forking::ForkingMixIn, prefork::PreforkMixIn, selector::SelectorMixIn};
pub use request::datagram_handler::{
    DatagramContext, DatagramHandlerFn, DatagramRequestHandler, datagram_handler_fn,
};
pub use request::hooks::{ServerHooks, WrappedRequest};
pub use request::job::{Job, Rejected, Step};
#[cfg(feature = "proxy-protocol")]
pub use request::proxy_protocol::ProxyProtocol;
pub use request::stream_handler::{HandlerFn, StreamContext, StreamRequestHandler, handler_fn};
pub use request::{Request, RequestError};
