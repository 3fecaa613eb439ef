//! Python's [`socketserver`](https://docs.python.org/3/library/socketserver.html) for Rust.
//!
//! Write a handler, choose a server class, and call [`serve_forever`](Server::serve_forever).
//!
//! ```
//! use std::io::{self, BufRead, Write};
//! use sockserver::{StreamContext, StreamRequestHandler, ThreadingTCPServer};
//!
//! struct Echo;
//!
//! impl StreamRequestHandler for Echo {
//!     fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
//!         let mut line = Vec::new();
//!         while cx.rfile.read_until(b'\n', &mut line)? > 0 {
//!             cx.wfile.write_all(&line)?;
//!             line.clear();
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
//! - `error`: a request failed and nothing else reports it. Limited to one line per second for each
//!   kind of error.
//! - `warn`: accepting has failed and is retried after a delay.
//! - `debug`: the server starts or stops, a client disconnected or was refused, a child exited.
//!
//! # Features
//!
//! - `signals` (default): [`Builder::drain_on_signals`].
//! - `test-util`: the module `testing`, for tests of servers and handlers. Enable it in
//!   `[dev-dependencies]`.
//!
//! # What this crate does not do
//!
//! It is not async: a thousand idle connections in threads use a thousand stacks, and tokio is the
//! better choice for that. It has no protocols: for HTTP use hyper.
//! It is derived from CPython's `socketserver.py`.

// Parts that only the models for Unix use.
#![cfg_attr(not(unix), allow(dead_code))]
#![warn(missing_debug_implementations)]

mod accept;
mod api;
mod connection;
mod lifecycle;
mod limits;
mod models;
mod os;
mod request;

pub use accept::mixin::{AcceptLoop, MixIn};
pub use api::builder::Builder;
pub use api::classes::*;
pub use api::kind;
pub use api::server::{DatagramServer, Server, StreamServer};
#[cfg(feature = "test-util")]
pub use api::testing;
#[cfg(unix)]
pub use api::unix_classes::*;
pub use lifecycle::handle::ServerHandle;
pub use limits::drain_report::{AbortedRequest, DrainReport};
pub use limits::stats::{Outcome, Stats, TimedOut};
pub use limits::{DeadlineKind, WhenFull};
pub use models::pool::{ThreadPoolMixIn, WhenQueueFull};
pub use models::sequential::Sequential;
pub use models::threading::ThreadingMixIn;
#[cfg(unix)]
pub use models::{forking::ForkingMixIn, prefork::PreforkMixIn, selector::SelectorMixIn};
pub use request::datagram_handler::{
    DatagramContext, DatagramHandlerFn, DatagramRequestHandler, datagram_handler_fn,
};
pub use request::hooks::{ServerHooks, WrappedRequest};
pub use request::job::{Job, Rejected, Step};
pub use request::stream_handler::{HandlerFn, StreamContext, StreamRequestHandler, handler_fn};
pub use request::{Request, RequestError};
