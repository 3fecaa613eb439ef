//! The options that only some kinds of servers or some mixins have.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sock::{Address, Socket, ToTimeout};

use super::Builder;
use crate::accept::mixin::MixIn;
use crate::api::kind::{Datagram, Family, Kind, Stream};
use crate::models::pool::{ThreadPoolMixIn, WhenQueueFull};
use crate::models::sequential::Sequential;
use crate::models::threading::ThreadingMixIn;
use crate::request::hooks::WrappedRequest;

/// Defines a setter for each deadline.
macro_rules! deadlines {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, timeout: impl ToTimeout) -> Self {
            self.limits.$name = self.parse(stringify!($name), timeout);
            self
        }
    )*};
}

/// Defines setters that forward to the setter of the same name of the mixin.
macro_rules! mixin_options {
    ($($mixin:ident { $($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*);)* })*) => {$(
        #[doc = concat!("Options of [`", stringify!($mixin), "`].")]
        impl<K: Kind> Builder<K, $mixin> {$(
            $(#[$doc])*
            ///
            #[doc = concat!("See [`", stringify!($mixin), "::", stringify!($name), "`].")]
            pub fn $name(mut self, $($argument: $type),*) -> Self {
                self.mixin = self.mixin.$name($($argument),*);
                self
            }
        )*}
    )*};
}
#[cfg(unix)]
pub(super) use mixin_options;

/// Limits and deadlines of servers for connections.
///
/// Deadlines are enabled by default, and `None` disables one. An expired deadline closes only the
/// connection concerned and counts in [`Stats::timed_out`](crate::Stats::timed_out). It may expire
/// late by a tenth of the shortest configured deadline, at most by 250 ms. Deadlines use the
/// monotonic clock.
impl<F: Family, M: MixIn> Builder<Stream<F>, M> {
    deadlines! {
        /// Sets the deadline for [`wrap_request`](Self::wrap_request), for example a TLS handshake.
        /// Default 10 s.
        wrap_timeout
        /// Sets the deadline for the first byte that is received from, or sent to, a new client.
        /// Default 30 s.
        first_byte_timeout
        /// Sets how long a keep-alive connection may wait for its next request. Default 60 s.
        idle_timeout
        /// Sets the deadline of each receive call. Default 5 min.
        ///
        /// It applies to each call separately. [`request_timeout`](Self::request_timeout) bounds
        /// a client that sends one byte at a time. The call fails with `TimedOut`, and the
        /// connection can still be used. A timeout that the handler sets on its socket replaces
        /// this one, [`TIMEOUT`](crate::StreamRequestHandler::TIMEOUT) included. After
        /// `settimeout(None)` only the deadlines of the connection end a receive. Zero is an
        /// error.
        read_timeout
        /// Sets the deadline of each send call, for clients that do not read. Default 60 s. Zero
        /// is an error.
        write_timeout
        /// Sets the deadline for a whole request, from its first byte until `handle` returns.
        /// Default one hour.
        ///
        /// In a forking server it covers all requests of a connection, and the child is killed
        /// when it expires.
        request_timeout
    }

    /// Sets a function that turns each accepted socket into the stream that the handler uses, for
    /// example a TLS stream. By default the handler uses the socket itself.
    ///
    /// The function gets the socket and the address of its peer. It runs in the worker, after
    /// `verify_request`. It returns the stream, or a [`WrappedRequest`] if it also names the
    /// client's address. An error goes to [`handle_error`](crate::ServerHooks::handle_error), and
    /// the socket is closed. If [`wrap_timeout`](Self::wrap_timeout) expires, the socket is shut
    /// down, which ends the call.
    ///
    /// Python: overriding `get_request`, where a slow client stops the whole server.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .wrap_request(|request, _client_address| {
    ///         request.setsockopt(sock::SOL_SOCKET, sock::SO_KEEPALIVE, true)?;
    ///         // Or another stream, such as that of `context.wrap_socket_server(request)`.
    ///         Ok(request)
    ///     })
    ///     .bind(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wrap_request<W: Into<WrappedRequest>>(
        mut self,
        f: impl Fn(Socket, &Address) -> io::Result<W> + Send + Sync + 'static,
    ) -> Self {
        self.wrap_request =
            Some(Arc::new(move |request, client_address| f(request, client_address).map(Into::into)));
        self
    }

    /// Sets how many connections one IP address may have at the same time. Default `None`, no
    /// limit.
    ///
    /// Further connections are accepted, passed to
    /// [`refuse_request`](crate::ServerHooks::refuse_request), and closed. An IPv4 client of a
    /// dual-stack server counts as IPv4.
    pub fn max_connections_per_ip(mut self, max_connections: impl Into<Option<usize>>) -> Self {
        self.limits.max_connections_per_ip = max_connections.into();
        self
    }

    /// Sets how long to read from a client that is still sending when its handler is done
    /// (lingering close). Default 2 s; zero disables it.
    ///
    /// Without it the close would send a reset, and the client could lose the response. The close
    /// of a stream such as TLS has the same limit, whatever timeout the socket has: see
    /// [`set_close_timeout`](sock::StreamSocket::set_close_timeout).
    pub fn linger_timeout(mut self, timeout: Duration) -> Self {
        self.limits.linger_timeout = timeout;
        self
    }

    /// Sets the length of the queue of connections that are not yet accepted, the argument of
    /// listen(2). Default 128. Python's default is 5, which a burst of clients overflows.
    pub fn request_queue_size(mut self, size: i32) -> Self {
        self.options.request_queue_size = size;
        self
    }
}

/// Options of servers for datagrams.
impl<F: Family, M: MixIn> Builder<Datagram<F>, M> {
    /// Sets the longest datagram in bytes; a longer one is truncated. Default 8192.
    pub fn max_packet_size(mut self, size: usize) -> Self {
        self.settings.max_packet_size = size;
        self
    }
}

/// Options of servers that serve datagrams in the accept loop.
impl<F: Family> Builder<Datagram<F>, Sequential> {
    /// Sets how many datagrams are received and answered with one system call. Default 1.
    ///
    /// A batch saves most of the system calls under load. An answer is sent when the whole batch
    /// has been served. System calls: recvmmsg(2), sendmmsg(2).
    pub fn max_batch(mut self, datagrams: usize) -> Self {
        self.settings.max_batch = datagrams.max(1);
        self
    }
}

mixin_options! {
    ThreadingMixIn {
        /// Sets whether closing the server leaves running threads alone. Default false.
        daemon_threads(daemon_threads: bool);
        /// Sets the stack size of each thread in bytes.
        stack_size(bytes: usize);
        /// Sets whether closing the server waits for its threads. Default true.
        block_on_close(block_on_close: bool);
    }
    ThreadPoolMixIn {
        /// Sets the number of threads.
        workers(workers: usize);
        /// Sets the length of a queue of accepted clients, and what happens when it is full.
        queue(length: usize, when_full: WhenQueueFull);
    }
}

impl<K: Kind> Builder<K, ThreadingMixIn> {
    /// Sets how many threads serve requests at the same time. Further clients wait in the
    /// listener's queue. Another name for [`max_connections`](Self::max_connections), because each
    /// request has a thread.
    pub fn max_threads(self, max_threads: usize) -> Self {
        self.max_connections(max_threads)
    }
}
