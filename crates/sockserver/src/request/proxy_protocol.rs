//! The PROXY protocol: which proxies are trusted, and receiving the header.

use std::io;
use std::time::Duration;

use ipnet::IpNet;
#[cfg(unix)]
use sock::MSG_DONTWAIT;
use sock::{AF_UNIX, Address, MSG_PEEK, POLLIN, Poll, Socket, ToDuration};

use crate::connection::poll_through_signals;
use crate::connection::proxy_header::{Extent, ProxyHeader, extent, parse};
use crate::connection::state::ConnState;
use crate::limits::DeadlineKind;
use crate::limits::access::{invalid, parse_network};
use crate::limits::header_error::HeaderError;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::limits::ranges;
use crate::limits::stats::Outcome;
use crate::os::child_channel;
use crate::request::serve::{JobState, Progress, Wait};
use crate::request::{Request, RequestError};

/// Requires a PROXY protocol header of version 1 or 2 at the beginning of each connection.
///
/// A proxy such as HAProxy or nginx sends the header, which names the client that the proxy serves.
/// [`Builder::proxy_protocol`](crate::Builder::proxy_protocol) describes its effect.
///
/// The header is required from each peer. It is never guessed whether there is one, because every
/// client could then name any address. For the same reason a connection from a peer that is not
/// trusted is refused, whatever it sends.
///
/// Needs the feature `proxy-protocol`. Not in Python.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use std::time::Duration;
/// use sockserver::{ProxyProtocol, ThreadingTCPServer, handler_fn};
///
/// let greet = handler_fn(|cx| writeln!(cx.wfile, "hello {}", cx.client_address));
/// let proxies = ProxyProtocol::from_networks(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])?;
/// let server = ThreadingTCPServer::builder(greet)
///     .proxy_protocol(proxies.header_timeout(Duration::from_secs(3)))
///     .bind(("127.0.0.1", 0))?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// Empty if the peers use Unix sockets.
    networks: Vec<IpNet>,
    header_timeout: Duration,
    /// Why the timeout is invalid. `bind` returns it.
    invalid_timeout: Option<String>,
    max_header_size: usize,
}

impl ProxyProtocol {
    /// Trusts the proxies in these networks, for a server with TCP.
    ///
    /// A network is an address with the length of its prefix, such as `10.0.0.0/8`, or a single
    /// address. Python: `ipaddress.ip_network`. On a dual-stack listener the peer `::ffff:10.0.0.1`
    /// is in `10.0.0.0/8`.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if there is no network, if a text is not a network,
    /// and if an address has bits after its prefix.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::ProxyProtocol;
    ///
    /// assert!(ProxyProtocol::from_networks(["10.0.0.0/8", "fd00::/8", "192.0.2.7"]).is_ok());
    /// assert!(ProxyProtocol::from_networks(["10.0.0.1/8"]).is_err());
    /// ```
    pub fn from_networks<N: AsRef<str>>(
        networks: impl IntoIterator<Item = N>,
    ) -> io::Result<ProxyProtocol> {
        let networks: io::Result<Vec<_>> =
            networks.into_iter().map(|network| parse_network(network.as_ref())).collect();
        match networks?[..] {
            [] => Err(invalid("no network of proxies is given".to_owned())),
            ref networks => Ok(ProxyProtocol::new(networks.to_vec())),
        }
    }

    /// Trusts each process that can connect, for a server with a Unix socket. The directory and the
    /// [`unix_mode`](crate::Builder::unix_mode) of its path limit them.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use std::io::Write;
    /// use sockserver::{ProxyProtocol, UnixStreamServer, handler_fn};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("socket");
    /// let server = UnixStreamServer::builder(handler_fn(|cx| write!(cx.wfile, "{}", cx.client_address)))
    ///     .proxy_protocol(ProxyProtocol::from_unix_peers())
    ///     .bind(&path)?;
    /// let proxy = sock::Socket::new(sock::AF_UNIX, sock::SOCK_STREAM, 0)?;
    /// proxy.connect(&path)?;
    /// proxy.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.2 56324 443\r\n")?;
    /// server.handle_request()?;
    /// assert_eq!(proxy.recv(100)?, b"192.0.2.7:56324");
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn from_unix_peers() -> ProxyProtocol {
        ProxyProtocol::new(Vec::new())
    }

    fn new(networks: Vec<IpNet>) -> ProxyProtocol {
        let header_timeout = Duration::from_secs(5);
        ProxyProtocol { networks, header_timeout, invalid_timeout: None, max_header_size: 4096 }
    }

    /// Sets how long the header may take, from the accept until its last byte. Default 5 s.
    ///
    /// When it expires, the connection is closed and counted in
    /// [`TimedOut::proxy_header`](crate::TimedOut::proxy_header). The specification recommends at
    /// least 3 s, so that a lost segment is sent again in time. Zero makes `bind` fail.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let proxies = ProxyProtocol::from_networks(["127.0.0.1"])?.header_timeout(0.01);
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).proxy_protocol(proxies).bind(("127.0.0.1", 0))?;
    /// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().timed_out.proxy_header, 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn header_timeout(mut self, timeout: impl ToDuration) -> ProxyProtocol {
        match timeout.to_duration() {
            Ok(timeout) => (self.header_timeout, self.invalid_timeout) = (timeout, None),
            Err(error) => self.invalid_timeout = Some(error.to_string()),
        }
        self
    }

    /// Sets the size in bytes above which a header is refused, 232 to 65,551. Default 4096. `bind`
    /// refuses other sizes.
    ///
    /// The limit concerns the TLVs of version 2. A header of version 1 has at most 107 bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ProxyProtocol, TCPServer, handler_fn};
    ///
    /// let proxies = ProxyProtocol::from_networks(["127.0.0.1"])?.max_header_size(232);
    /// let server = TCPServer::builder(handler_fn(|_| Ok(()))).proxy_protocol(proxies).bind(("127.0.0.1", 0))?;
    /// let proxy = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// // A header of version 2 that announces 256 more bytes.
    /// proxy.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x01\0")?;
    /// server.handle_request()?;
    /// assert_eq!(server.stats().rejected, 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn max_header_size(mut self, bytes: usize) -> ProxyProtocol {
        self.max_header_size = bytes;
        self
    }

    /// Checks the values of the setters.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if one is out of range.
    pub(crate) fn check_options(&self) -> io::Result<()> {
        if let Some(sentence) = &self.invalid_timeout {
            return Err(invalid(format!("header_timeout of the PROXY protocol: {sentence}")));
        }
        if self.header_timeout.is_zero() {
            return Err(invalid("header_timeout of the PROXY protocol must not be zero".to_owned()));
        }
        ranges::check("max_header_size", self.max_header_size, &ranges::PROXY_HEADER_SIZE)
    }

    /// Returns the deadline of the header, if the configuration suits the listeners.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if no peer of a listener can be trusted.
    pub(crate) fn check(&self, addresses: &[Address]) -> io::Result<Duration> {
        let for_unix = self.networks.is_empty();
        match addresses.iter().find(|address| (address.family() == AF_UNIX) != for_unix) {
            Some(address) if for_unix => {
                Err(invalid(format!("proxies that connect to {address} need ProxyProtocol::from_networks")))
            }
            Some(address) => Err(invalid(format!(
                "proxies that connect to {address} need ProxyProtocol::from_unix_peers"
            ))),
            None => Ok(self.header_timeout),
        }
    }

    fn trusts(&self, peer: &Address) -> bool {
        match peer.ip().map(|ip| ip.to_canonical()) {
            Some(ip) => self.networks.iter().any(|network| network.contains(&ip)),
            None => self.networks.is_empty() && peer.family() == AF_UNIX,
        }
    }
}

/// A header that is being received.
#[derive(Default)]
pub(crate) struct HeaderReader {
    received: Vec<u8>,
}

/// What a receive of a part of the header has found.
enum Received {
    Complete,
    Partial,
    WouldBlock,
    EndOfFile,
}

impl HeaderReader {
    /// Receives what there is of the header without waiting. What follows the header stays in the
    /// socket, for TLS or the handler.
    fn receive(&mut self, socket: &Socket, limit: usize) -> io::Result<Result<Received, HeaderError>> {
        #[cfg(unix)]
        let (flags, never_waits) = (MSG_PEEK | MSG_DONTWAIT, socket.is_timeout_unset());
        // Windows has no such flag.
        #[cfg(not(unix))]
        let (flags, never_waits) = (MSG_PEEK, false);
        // With the program's default timeout the call waits, whatever the flags are.
        if !never_waits
            && poll_through_signals(&mut [Poll::new(socket, POLLIN)], Some(Duration::ZERO))? == 0
        {
            return Ok(Ok(Received::WouldBlock));
        }
        let mut room = [0; 256];
        let seen = match socket.recv_into_with_flags(&mut room, flags) {
            Ok(0) => return Ok(Ok(Received::EndOfFile)),
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Ok(Received::WouldBlock));
            }
            Err(error) => return Err(error),
        };
        let before = self.received.len();
        self.received.extend_from_slice(&room[..seen]);
        let (length, received) = match extent(&self.received, limit) {
            Ok(Extent::Complete(length)) => (length, Received::Complete),
            Ok(Extent::Partial) => (before + seen, Received::Partial),
            Err(error) => return Ok(Err(error)),
        };
        self.received.truncate(length);
        let mut left = length - before;
        while left > 0 {
            match socket.recv_into(&mut room[..left])? {
                0 => return Ok(Ok(Received::EndOfFile)),
                count => left -= count,
            }
        }
        Ok(Ok(received))
    }
}

impl JobState {
    /// Returns whether the peer may send a header. Otherwise the connection has to be closed.
    pub(crate) fn is_from_trusted_network(&mut self) -> bool {
        let peer = self.entry.client_address();
        let is_trusted = self.core.proxy_protocol.as_ref().is_none_or(|proxies| proxies.trusts(peer));
        if !is_trusted {
            self.refuse_header(HeaderError::Untrusted);
        }
        is_trusted
    }

    /// Receives the PROXY protocol header, if the server requires one. Then the client that it names
    /// is the client of the connection, and limits and `verify_request` apply to it. Returns `None`
    /// if the request can be served.
    pub(super) fn receive_proxy_header(&mut self, input: Wait) -> Result<Option<Progress>, RequestError> {
        if self.core.proxy_protocol.is_none() || self.entry.connection().is_proxied() {
            return Ok(None);
        }
        if self.proxy_header.is_none() {
            if !self.enter(ConnState::ProxyHeader) {
                return Err(RequestError::Failed(self.ended_before()));
            }
            if input == Wait::DontBlock && self.registry().deadline_timer.has_failed_to_start() {
                let cause = io::Error::other("no thread can be started");
                return Err(self.refuse_to_wrap("watch the deadline of", cause));
            }
            self.proxy_header = Some(Box::default());
        }
        match self.receive_header(input).map_err(RequestError::Failed)? {
            Ok(Some(header)) => self.apply_header(header),
            Ok(None) => Ok(Some(Progress::WouldBlock)),
            Err(error) => {
                self.refuse_header(error);
                Ok(Some(Progress::Done))
            }
        }
    }

    /// Receives the header. Returns `None` if it is not complete and the caller must not wait.
    fn receive_header(&mut self, input: Wait) -> io::Result<Result<Option<ProxyHeader>, HeaderError>> {
        let (core, connection) = (&self.core, self.entry.connection());
        let (Some(proxies), Some(reader), Some(socket)) =
            (&core.proxy_protocol, &mut self.proxy_header, connection.plain_socket())
        else {
            return Err(self.ended_before());
        };
        // The deadline timer enforces it where the worker does not wait.
        let mut limit = sock::Deadline::new(Some(proxies.header_timeout));
        loop {
            let received = reader.receive(socket, proxies.max_header_size);
            match connection.ended() {
                Some(_) if connection.state() == ConnState::Overdue(DeadlineKind::ProxyHeader) => {
                    return Ok(Err(HeaderError::TimedOut));
                }
                Some(error) => return Err(error),
                None => {}
            }
            match received? {
                Ok(Received::Complete) => return Ok(parse(&reader.received).map(Some)),
                Ok(Received::Partial) => {}
                Ok(Received::WouldBlock) if input == Wait::DontBlock => return Ok(Ok(None)),
                Ok(Received::WouldBlock) => {
                    if poll_through_signals(&mut [Poll::new(socket, POLLIN)], limit.remaining())? == 0 {
                        return Ok(Err(HeaderError::TimedOut));
                    }
                    // Received also after the limit: the process may have been stopped meanwhile.
                    continue;
                }
                // A check that connects only.
                Ok(Received::EndOfFile) if reader.received.is_empty() => {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Ok(Received::EndOfFile) => return Ok(Err(HeaderError::Truncated)),
                Err(error) => return Ok(Err(error)),
            }
            // A client that sends a byte at a time keeps poll(2) from expiring.
            if input == Wait::Block && limit.remaining().is_some_and(|left| left.is_zero()) {
                return Ok(Err(HeaderError::TimedOut));
            }
        }
    }

    /// Makes the client that the header names the client of the connection.
    fn apply_header(&mut self, header: ProxyHeader) -> Result<Option<Progress>, RequestError> {
        self.proxy_header = None;
        let named = header.source().cloned();
        let allowed = self.entry.set_proxied(self.core.registry(), named.clone(), Some(Box::new(header)));
        if !self.admit_proxied() {
            return Ok(Some(Progress::Done));
        }
        if allowed.is_err() {
            log::debug!(
                peer:% = self.entry.client_address(), reason = "too many connections";
                "request from {} refused: too many connections", self.entry.client_address()
            );
            self.refuse();
            return Ok(Some(Progress::Done));
        }
        // A client that this child refuses does not count for its address in the parent.
        child_channel::send_proxied(self.server_id(), named.as_ref());
        if self.core.has_hooks || self.core.wrap_request.is_some() {
            // It had the socket so that the deadline timer and a drain can end the header.
            drop(self.request.take());
            match self.entry.take_socket(self.core.registry()) {
                Some(socket) => self.request = Some(Request::accepted(socket)),
                None => return Err(RequestError::Failed(self.ended_before())),
            }
        }
        if !self.verify()? {
            log::debug!(
                peer:% = self.entry.client_address(), reason = "verify_request";
                "request from {} refused", self.entry.client_address()
            );
            self.outcome = self.outcome.or(Some(Outcome::Rejected));
            return Ok(Some(Progress::Done));
        }
        Ok(None)
    }

    /// Logs why a connection is refused, and sets its outcome.
    fn refuse_header(&mut self, reason: HeaderError) {
        let peer = self.entry.client_address();
        log_limited!(
            warn,
            LogKind::ProxyHeader(reason),
            peer:% = peer, reason:% = reason;
            "refuse connection from {peer}: {reason}"
        );
        self.outcome = self.outcome.or(Some(match reason {
            HeaderError::TimedOut => Outcome::TimedOut(DeadlineKind::ProxyHeader),
            _ => Outcome::Rejected,
        }));
    }
}
