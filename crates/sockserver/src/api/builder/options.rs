//! The options that only some kinds of servers or some mixins have.

use std::io;
use std::sync::Arc;

use sock::{Address, Socket, ToDuration, ToTimeout};

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
/// Deadlines are enabled by default. `None` disables one, [`no_deadlines`](Self::no_deadlines)
/// disables all, and zero is an error. An expired deadline closes only the
/// connection concerned and counts in [`Stats::timed_out`](crate::Stats::timed_out). It may expire
/// late by a tenth of the shortest configured deadline, at most by 250 ms. Deadlines use the
/// monotonic clock.
impl<F: Family, M: MixIn> Builder<Stream<F>, M> {
    deadlines! {
        /// Sets the deadline for [`wrap_request`](Self::wrap_request), for example a TLS handshake.
        /// Default 10 s.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{TCPServer, handler_fn};
        ///
        /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
        ///     .wrap_request(|request, _client_address| {
        ///         request.recv(1)?; // A handshake, for which the client sends nothing.
        ///         Ok(request)
        ///     })
        ///     .wrap_timeout(0.05)
        ///     .bind(("127.0.0.1", 0))?;
        /// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.handle_request()?;
        /// assert_eq!(server.stats().timed_out.wrap, 1);
        /// # std::io::Result::Ok(())
        /// ```
        wrap_timeout
        /// Sets the deadline for the first byte that is received from, or sent to, a new client.
        /// Default 30 s.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{TCPServer, handler_fn};
        ///
        /// let server = TCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
        ///     .first_byte_timeout(0.05)
        ///     .bind(("127.0.0.1", 0))?;
        /// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.handle_request()?;
        /// assert_eq!(server.stats().timed_out.first_byte, 1);
        /// # std::io::Result::Ok(())
        /// ```
        first_byte_timeout
        /// Sets how long a keep-alive connection may wait for its next request. Default 60 s.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{TCPServer, handler_fn};
        ///
        /// let keep_alive = handler_fn(|cx| {
        ///     cx.rfile.readline(100)?;
        ///     cx.close_connection = false;
        ///     Ok(())
        /// });
        /// let server = TCPServer::builder(keep_alive).idle_timeout(0.05).bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// client.sendall(b"one request\n")?;
        /// server.handle_request()?;
        /// assert_eq!(server.stats().timed_out.idle, 1);
        /// # std::io::Result::Ok(())
        /// ```
        idle_timeout
        /// Sets the deadline of each receive call. Default 5 min.
        ///
        /// It applies to each call separately. [`request_timeout`](Self::request_timeout) bounds
        /// a client that sends one byte at a time. The call fails with `TimedOut`, and the
        /// connection can still be used. A timeout that the handler sets on its socket replaces
        /// this one, [`TIMEOUT`](crate::StreamRequestHandler::TIMEOUT) included. After
        /// `settimeout(None)` only the deadlines of the connection end a receive.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{TCPServer, handler_fn};
        ///
        /// let server = TCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
        ///     .read_timeout(0.05)
        ///     .bind(("127.0.0.1", 0))?;
        /// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.handle_request()?;
        /// assert_eq!(server.stats().timed_out.read, 1);
        /// # std::io::Result::Ok(())
        /// ```
        read_timeout
        /// Sets the deadline of each send call, for clients that do not read. Default 60 s.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{TCPServer, handler_fn};
        ///
        /// let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(&vec![0; 50_000_000])))
        ///     .write_timeout(0.05)
        ///     .bind(("127.0.0.1", 0))?;
        /// let _never_reads = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.handle_request()?;
        /// assert_eq!(server.stats().timed_out.write, 1);
        /// # std::io::Result::Ok(())
        /// ```
        write_timeout
        /// Sets the deadline for a whole request, from its first byte until `handle` returns.
        /// Default one hour.
        ///
        /// In a forking server it covers all requests of a connection, and the child is killed
        /// when it expires.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{TCPServer, handler_fn};
        ///
        /// let server = TCPServer::builder(handler_fn(|cx| cx.rfile.readline(100).map(drop)))
        ///     .request_timeout(0.05)
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// client.sendall(b"half a li")?;
        /// server.handle_request()?;
        /// assert_eq!(server.stats().timed_out.request, 1);
        /// # std::io::Result::Ok(())
        /// ```
        request_timeout
    }

    /// Disables all deadlines of connections, as in Python. A deadline that is set afterwards is
    /// enabled.
    ///
    /// The deadlines are `wrap_timeout`, `first_byte_timeout`, `idle_timeout`, `read_timeout`,
    /// `write_timeout` and `request_timeout`. A silent client then occupies its connection slot for
    /// as long as it likes. [`linger_timeout`](Self::linger_timeout) and
    /// [`close_timeout`](Self::close_timeout) are not changed.
    ///
    /// # Examples
    ///
    /// Records of Python's `logging.handlers.SocketHandler` may be hours apart:
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .no_deadlines()
    ///     .write_timeout(30)
    ///     .bind(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn no_deadlines(mut self) -> Self {
        self.limits.wrap_timeout = None;
        self.limits.first_byte_timeout = None;
        self.limits.idle_timeout = None;
        self.limits.read_timeout = None;
        self.limits.write_timeout = None;
        self.limits.request_timeout = None;
        self
    }

    /// Sets a function that turns each accepted socket into the stream that the handler uses, for
    /// example a TLS stream. By default the handler uses the socket itself.
    ///
    /// The function gets the socket and the address of the client, which is the socket's peer unless a
    /// PROXY protocol header has named another. It runs in the worker, after
    /// `verify_request`. It returns the stream, or a [`WrappedRequest`] if it also names the
    /// client's address. An error goes to [`handle_error`](crate::ServerHooks::handle_error), and
    /// the socket is closed. If [`wrap_timeout`](Self::wrap_timeout) expires, the socket is shut
    /// down, which ends the call. An error of kind `TimedOut`, such as that of
    /// `WrapOptions::handshake_timeout` of the crate `sockssl`, counts as this deadline too.
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

    /// Requires a PROXY protocol header at the beginning of each connection, from trusted proxies
    /// only. Default off.
    ///
    /// The worker receives the header before [`wrap_request`](Self::wrap_request), so before TLS,
    /// and before the handler is created. From then on the client that the header names is the
    /// client of the connection: for the handler, the hooks, the log, the drain report and
    /// [`max_connections_per_ip`](Self::max_connections_per_ip). `verify_request` is called after
    /// the header, in the worker. The headers `LOCAL`, `UNKNOWN` and `UNSPEC` name no client, and
    /// the address of the proxy remains. [`StreamContext::proxy_header`] returns the header.
    ///
    /// These connections are closed, with a line in the log at level `warn`, which is limited to
    /// one per second for each reason:
    ///
    /// - one from a peer that is not trusted, when it is accepted;
    /// - one without a valid header, or with a header that is longer than
    ///   [`max_header_size`](crate::ProxyProtocol::max_header_size);
    /// - one whose header is not complete after
    ///   [`header_timeout`](crate::ProxyProtocol::header_timeout).
    ///
    /// The first two count as [`Stats::rejected`](crate::Stats::rejected), and the last as
    /// [`TimedOut::proxy_header`](crate::TimedOut::proxy_header). A connection that closes before it
    /// has sent anything counts as [`Stats::disconnected`](crate::Stats::disconnected). While the
    /// header is incomplete, the connection occupies a worker, except in a selector, where it waits
    /// in the poller.
    ///
    /// Needs the feature `proxy-protocol`. Not in Python.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|cx| write!(cx.wfile, "{}", cx.client_address)))
    ///     .proxy_protocol(ProxyProtocol::from_networks(["127.0.0.1"])?)
    ///     .bind(("127.0.0.1", 0))?;
    /// let proxy = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// proxy.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n")?;
    /// server.handle_request()?;
    /// assert_eq!(proxy.recv(100)?, b"192.0.2.7:56324");
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// [`StreamContext::proxy_header`]: crate::StreamContext::proxy_header
    #[cfg(feature = "proxy-protocol")]
    pub fn proxy_protocol(mut self, proxies: crate::ProxyProtocol) -> Self {
        self.proxy_protocol = Some(proxies);
        self
    }

    /// Sets how many connections one IP address may have at the same time. Default `None`, no
    /// limit. 0 refuses every client.
    ///
    /// Further connections are accepted, passed to
    /// [`refuse_request`](crate::ServerHooks::refuse_request), and closed. An IPv4 client of a
    /// dual-stack server counts as IPv4.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
    ///     .max_connections_per_ip(1)
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
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// // The answer arrives, although the handler does not read what the client sends.
    /// let server = TCPServer::builder(handler_fn(|cx| cx.request.sendall(b"too long\n")))
    ///     .linger_timeout(1)
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// client.sendall(&[0; 50_000])?;
    /// client.shutdown(sock::SHUT_WR)?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"too long\n");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn linger_timeout(mut self, timeout: impl ToDuration) -> Self {
        self.limits.linger_timeout = self.parse_duration("linger_timeout", timeout);
        self
    }

    /// Sets the length of the queue of connections that are not yet accepted, the argument of
    /// listen(2). Default 128. Python's default is 5, which a burst of clients overflows.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .request_queue_size(50)                                // request_queue_size = 50
    ///     .bind(("127.0.0.1", 0))?;
    /// let port = server.server_address().port().unwrap();
    /// // A burst of clients is connected before the first one is accepted.
    /// let burst: std::io::Result<Vec<_>> = (0..50).map(|_| sock::create_connection(("127.0.0.1", port))).collect();
    /// assert_eq!(burst?.len(), 50);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn request_queue_size(mut self, size: i32) -> Self {
        self.options.request_queue_size = size;
        self
    }
}

/// Options of servers for datagrams.
impl<F: Family, M: MixIn> Builder<Datagram<F>, M> {
    /// Sets the longest datagram in bytes, up to 16 MiB. A longer datagram is truncated. Default
    /// 8192.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{UDPServer, datagram_handler_fn};
    ///
    /// let report = datagram_handler_fn(|cx| write!(cx.wfile, "{} {}", cx.packet.len(), cx.is_truncated));
    /// let server = UDPServer::builder(report)
    ///     .max_packet_size(4)                                    // max_packet_size = 4
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", server.server_address())?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"4 true");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn max_packet_size(mut self, size: usize) -> Self {
        self.settings.max_packet_size = size;
        self
    }
}

/// Options of servers that serve datagrams in the accept loop.
impl<F: Family> Builder<Datagram<F>, Sequential> {
    /// Sets how many datagrams are received and answered with one system call, up to 1,024.
    /// Default 1. The buffers have [`max_packet_size`](Builder::max_packet_size) bytes for each
    /// datagram, and together at most 256 MiB.
    ///
    /// A batch saves most of the system calls under load. An answer is sent when the whole batch
    /// has been served. System calls: recvmmsg(2), sendmmsg(2).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{UDPServer, datagram_handler_fn};
    ///
    /// let server = UDPServer::builder(datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet)))
    ///     .max_batch(32)
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0)?;
    /// client.connect(server.server_address())?;
    /// client.send(b"one")?;
    /// client.send(b"two")?;
    /// # let _running = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now.
    /// assert_eq!((client.recv(100)?, client.recv(100)?), (b"one".to_vec(), b"two".to_vec()));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn max_batch(mut self, datagrams: usize) -> Self {
        self.settings.max_batch = datagrams.max(1);
        self
    }
}

mixin_options! {
    ThreadingMixIn {
        /// Sets whether closing the server leaves running threads alone. Default false.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{ThreadingTCPServer, handler_fn};
        ///
        /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
        ///     .daemon_threads(true)                                  // daemon_threads = True
        ///     .bind(("127.0.0.1", 0))?;
        /// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.handle_request()?;
        /// // This returns, although the handler still waits for the client.
        /// server.server_close()?;
        /// # std::io::Result::Ok(())
        /// ```
        daemon_threads(daemon_threads: bool);
        /// Sets the stack size of each thread that serves requests, in bytes.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{ThreadingTCPServer, handler_fn};
        ///
        /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.sendall(&[b'!'; 100])))
        ///     .stack_size(256 << 10)                                 // threading.stack_size(256 << 10)
        ///     .bind(("127.0.0.1", 0))?;
        /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.handle_request()?;
        /// assert_eq!(client.recv(100)?, [b'!'; 100]);
        /// # std::io::Result::Ok(())
        /// ```
        stack_size(bytes: usize);
        /// Sets the name of each thread that serves requests. Default `sockserver`.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{ThreadingTCPServer, handler_fn};
        ///
        /// let name = handler_fn(|cx| write!(cx.wfile, "{}", std::thread::current().name().unwrap_or("?")));
        /// let server = ThreadingTCPServer::builder(name).thread_name("worker").bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// assert_eq!(client.recv(100)?, b"worker");
        /// # std::io::Result::Ok(())
        /// ```
        thread_name(name: impl Into<String>);
        /// Sets a function that each thread that serves requests calls before its first request.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use std::sync::atomic::{AtomicBool, Ordering};
        /// use sockserver::{ThreadingTCPServer, handler_fn};
        ///
        /// static STARTED: AtomicBool = AtomicBool::new(false);
        ///
        /// let server = ThreadingTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .on_thread_start(|| STARTED.store(true, Ordering::Release))
        ///     .bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// assert!(STARTED.load(Ordering::Acquire));
        /// # std::io::Result::Ok(())
        /// ```
        on_thread_start(f: impl Fn() + Send + Sync + 'static);
        /// Sets whether closing the server waits for its threads. Default true.
        ///
        /// # Examples
        ///
        /// ```
        /// use sockserver::{ThreadingTCPServer, handler_fn};
        ///
        /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
        ///     .block_on_close(false)                                 // block_on_close = False
        ///     .bind(("127.0.0.1", 0))?;
        /// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
        /// server.handle_request()?;
        /// // This returns, although the handler still waits for the client.
        /// server.server_close()?;
        /// # std::io::Result::Ok(())
        /// ```
        block_on_close(block_on_close: bool);
    }
    ThreadPoolMixIn {
        /// Sets the number of threads.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{ThreadPoolTCPServer, handler_fn};
        ///
        /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .workers(2)
        ///     .bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        workers(workers: usize);
        /// Sets the length of a queue of accepted clients, and what happens when it is full.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{ThreadPoolTCPServer, WhenQueueFull, handler_fn};
        ///
        /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .workers(2)
        ///     .queue(100, WhenQueueFull::Refuse)
        ///     .bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        queue(length: usize, when_full: WhenQueueFull);
        /// Sets the stack size of each thread that serves requests, in bytes.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{ThreadPoolTCPServer, handler_fn};
        ///
        /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .stack_size(256 << 10)                                 // threading.stack_size(256 << 10)
        ///     .bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// # std::io::Result::Ok(())
        /// ```
        stack_size(bytes: usize);
        /// Sets the name of each thread that serves requests. Default `sockserver`.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use sockserver::{ThreadPoolTCPServer, handler_fn};
        ///
        /// let name = handler_fn(|cx| write!(cx.wfile, "{}", std::thread::current().name().unwrap_or("?")));
        /// let server = ThreadPoolTCPServer::builder(name).thread_name("worker").bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// assert_eq!(client.recv(100)?, b"worker");
        /// # std::io::Result::Ok(())
        /// ```
        thread_name(name: impl Into<String>);
        /// Sets a function that each thread that serves requests calls before its first request.
        ///
        /// # Examples
        ///
        /// ```
        /// use std::io::Write;
        /// use std::sync::atomic::{AtomicBool, Ordering};
        /// use sockserver::{ThreadPoolTCPServer, handler_fn};
        ///
        /// static STARTED: AtomicBool = AtomicBool::new(false);
        ///
        /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| writeln!(cx.wfile, "hello")))
        ///     .on_thread_start(|| STARTED.store(true, Ordering::Release))
        ///     .bind(("127.0.0.1", 0))?;
        /// let port = server.server_address().port().unwrap();
        /// # let _running = sockserver::testing::serve(server);
        /// // Another thread runs `server.serve_forever()` now.
        /// let client = sock::create_connection(("127.0.0.1", port))?;
        /// assert_eq!(client.recv(100)?, b"hello\n");
        /// assert!(STARTED.load(Ordering::Acquire));
        /// # std::io::Result::Ok(())
        /// ```
        on_thread_start(f: impl Fn() + Send + Sync + 'static);
    }
}

impl<K: Kind> Builder<K, ThreadingMixIn> {
    /// Sets how many threads serve requests at the same time. Further clients wait in the
    /// listener's queue. Another name for [`max_connections`](Self::max_connections), because each
    /// request has a thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, WhenFull, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
    ///     .max_threads(1)
    ///     .when_full(WhenFull::Refuse)
    ///     .bind(("127.0.0.1", 0))?;
    /// let port = server.server_address().port().unwrap();
    /// let _first = sock::create_connection(("127.0.0.1", port))?;
    /// server.handle_request()?;
    /// let _second = sock::create_connection(("127.0.0.1", port))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().rejected, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn max_threads(self, max_threads: usize) -> Self {
        self.max_connections(max_threads)
    }
}
