//! Python's [`socketserver`](https://docs.python.org/3/library/socketserver.html)
//! for Rust: write a handler, choose a server, serve.
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
//! # A request's journey
//!
//! wait → accept, with errors sorted → [`verify_request`](ServerHooks::verify_request) →
//! [`process_request`](MixIn::process_request) → in the worker:
//! [`wrap_request`](ServerHooks::wrap_request) → the handler is made →
//! [`setup`](StreamRequestHandler::setup), [`handle`](StreamRequestHandler::handle),
//! [`finish`](StreamRequestHandler::finish) →
//! [`handle_error`](ServerHooks::handle_error) if one of them failed →
//! [`shutdown_request`](ServerHooks::shutdown_request) →
//! [`close_request`](ServerHooks::close_request) → close; and in the loop
//! [`service_actions`](ServerHooks::service_actions).
//!
//! # Classes
//!
//! | requests run | TCP | UDP | Unix stream | Unix datagram |
//! | --- | --- | --- | --- | --- |
//! | in the loop | [`TCPServer`] | [`UDPServer`] | [`UnixStreamServer`] | [`UnixDatagramServer`] |
//! | in threads | [`ThreadingTCPServer`] | [`ThreadingUDPServer`] | [`ThreadingUnixStreamServer`] | [`ThreadingUnixDatagramServer`] |
//! | in a fixed number of threads | [`ThreadPoolTCPServer`] | [`ThreadPoolUDPServer`] | [`ThreadPoolUnixStreamServer`] | [`ThreadPoolUnixDatagramServer`] |
//! | in a few threads, idle connections in none (Unix) | [`SelectorTCPServer`] | | [`SelectorUnixStreamServer`] | |
//! | in processes that are there before their clients (Unix) | [`PreforkTCPServer`] | [`PreforkUDPServer`] | [`PreforkUnixStreamServer`] | [`PreforkUnixDatagramServer`] |
//! | in a process each (Unix) | [`ForkingTCPServer`] | [`ForkingUDPServer`] | [`ForkingUnixStreamServer`] | [`ForkingUnixDatagramServer`] |
//!
//! # Where Python's things are
//!
//! | Python | here |
//! | --- | --- |
//! | `class Echo(StreamRequestHandler)` | [`StreamRequestHandler`], [`DatagramRequestHandler`]; closures: [`handler_fn`], [`datagram_handler_fn`] |
//! | `self.rfile`, `self.client_address`, … | fields of [`StreamContext`], [`DatagramContext`] |
//! | class variables | setters of [`Builder`]; a handler's are its associated constants |
//! | overriding a method of the server | [`ServerHooks`] |
//! | `class T(ThreadingMixIn, TCPServer)` | [`MixIn`]: [`Sequential`], [`ThreadingMixIn`], [`ForkingMixIn`], and beyond Python [`ThreadPoolMixIn`], [`PreforkMixIn`], [`SelectorMixIn`] |
//! | `server.shutdown()`, and what Python lacks | [`ServerHandle::drain`], [`Builder::drain_on_signals`], [`Stats`] |
//! | `server.shutdown()` | [`ServerHandle::shutdown`] |
//!
//! # Log levels
//!
//! `error`: a request failed and nobody else will tell; one line of a kind in a second. `warn`: accepting is
//! backing off. `debug`: the server starts and stops, clients that went away or
//! were refused, children. For each BSD call see `sock`'s own page.
//!
//! # What this crate does not do
//!
//! No async: a thousand idle connections in threads cost a thousand stacks;
//! tokio does that better today. No protocols: for HTTP there is hyper. It grew
//! from CPython's `socketserver.py`, which is worth reading beside it.

mod accept;
mod api;
mod connection;
mod lifecycle;
mod limits;
mod models;
mod os;
mod request;

pub use accept::mixin::{AcceptLoop, MixIn, Sequential};
pub use api::builder::Builder;
pub use api::classes::*;
pub use api::server::{Datagram, DatagramServer, Family, Inet, Kind, Server, Stream, StreamServer, Unix};
pub use api::testing;
pub use lifecycle::handle::ServerHandle;
pub use limits::drain_report::{AbortedRequest, DrainReport};
pub use limits::stats::{Outcome, Stats, TimedOut};
pub use limits::{DeadlineKind, WhenFull};
#[cfg(unix)]
pub use models::forking::ForkingMixIn;
pub use models::pool::{ThreadPoolMixIn, WhenQueueFull};
#[cfg(unix)]
pub use models::prefork::PreforkMixIn;
#[cfg(unix)]
pub use models::selector::SelectorMixIn;
pub use models::threading::ThreadingMixIn;
pub use request::datagram_handler::{
    DatagramContext, DatagramHandlerFn, DatagramRequestHandler, datagram_handler_fn,
};
pub use request::hooks::ServerHooks;
pub use request::job::{Job, Rejected, Step};
pub use request::stream_handler::{HandlerFn, StreamContext, StreamRequestHandler, handler_fn};
pub use request::{Request, RequestError};
