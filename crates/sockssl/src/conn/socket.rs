//! `SSLSocket`: a TLS connection that two threads can read and write at the same time.

mod closing;
mod receiving;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use sock::{AddressError, Deadline, SHUT_WR, Socket};

use crate::conn::engine::Engine;
use crate::conn::record_io::{Input, RecordReader, SendBuffer, timed_out_or_would_block};
use crate::error::{Reason, SSLError};
use crate::stats::{Counters, increment};

/// A TLS connection on a socket.
///
/// Python: `ssl.SSLSocket`. It implements [`StreamSocket`](sock::StreamSocket), so code that
/// works with a plain socket works with it. Every method takes `&self`: one thread may receive
/// while another sends.
///
/// It is used in these steps:
///
/// 1. [`wrap_socket_server`](crate::SSLContext::wrap_socket_server) or
///    [`wrap_socket_client`](crate::SSLContext::wrap_socket_client) wraps a connected socket.
/// 2. The handshake is done while wrapping, by [`do_handshake`](Self::do_handshake), or by the
///    first call that needs it.
/// 3. [`recv`](Self::recv), [`send`](Self::send) and their variants exchange data.
/// 4. [`close`](Self::close), or dropping it, sends a close_notify, waits until the peer has
///    acknowledged everything, and closes the socket. [`unwrap_tls`](Self::unwrap_tls) returns
///    the socket instead.
///
/// The timeout of the socket ([`socket`](Self::socket)`().settimeout`) is one deadline for each
/// whole call, including a handshake. With a non-blocking socket a call that would block fails
/// with `WouldBlock` and keeps its progress; see [`send`](Self::send).
///
/// # Full duplex
///
/// There are three locks: one for the TLS state, which is held only while data is processed in
/// memory, one for receiving and one for sending. A blocked receiver holds no lock that a sender
/// needs.
///
/// # Examples
///
/// ```
/// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # let _folder = pki::enter()?;
/// # let context = pki::client()?;
/// # let port = pki::echo()?;
/// let sock = sock::create_connection(("127.0.0.1", port))?;
/// let sock = context.wrap_socket_client(sock, "localhost")?;
/// sock.sendall(b"hello")?;
/// assert_eq!(sock.recv(1024)?, b"hello");
/// sock.close()?;
/// # std::io::Result::Ok(())
/// ```
pub struct SSLSocket {
    /// `None` only while `self` is consumed.
    sock: Option<Socket>,
    /// Held while records are processed in memory, with no system call but the write of a key log
    /// line, which does not wait. The SNI callback runs under it, in the handshake, and if a key log
    /// line cannot be written, that is logged. Both concern this connection only, and must not use it.
    pub(crate) engine: Mutex<Engine>,
    /// Held while a thread receives, which may block. Others wait for it up to their deadline. Only the
    /// records of system calls are logged under it.
    incoming: Mutex<RecordReader>,
    /// Held while a thread sends, which may block. Others wait for it up to their deadline. Only the
    /// records of system calls are logged under it.
    outgoing: Mutex<SendBuffer>,
    /// The handshake is done.
    handshake_done: AtomicBool,
    /// The receiving side was shut down here, so a missing close_notify is not an error.
    read_closed: AtomicBool,
    /// No close_notify must be sent: see [`abort`](Self::abort).
    aborted: AtomicBool,
    /// The caller has done the lingering close, so closing does not wait.
    lingered: AtomicBool,
    /// The deadline that [`set_close_timeout`](sock::StreamSocket::set_close_timeout) sets.
    /// Held to copy the value only.
    close_by: Mutex<Option<Instant>>,
    pub(crate) info: ConnInfo,
}

/// The largest plaintext of one record (RFC 8446, section 5.1).
const MAX_PLAINTEXT: usize = 1 << 14;

/// The properties of a connection that do not change.
pub(crate) struct ConnInfo {
    pub(crate) server_side: bool,
    pub(crate) suppress_ragged_eofs: bool,
    pub(crate) handshake_timeout: Option<Duration>,
    /// The peer in errors and logs, such as `127.0.0.1:443 (localhost)`.
    pub(crate) peer: String,
    pub(crate) counters: Arc<Counters>,
}

impl SSLSocket {
    pub(crate) fn new(mut sock: Socket, engine: Engine, info: ConnInfo) -> SSLSocket {
        sock.set_encrypted(true);
        SSLSocket {
            sock: Some(sock),
            engine: Mutex::new(engine),
            incoming: Mutex::default(),
            outgoing: Mutex::default(),
            handshake_done: AtomicBool::new(false),
            read_closed: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            lingered: AtomicBool::new(false),
            close_by: Mutex::new(None),
            info,
        }
    }

    /// Returns the socket underneath, for its descriptor, timeouts, addresses and options.
    ///
    /// Reading from it or writing to it breaks the TLS connection.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// client.socket().settimeout(5)?;                      // sock.settimeout(5)
    /// assert_eq!(client.socket().getpeername()?, server.socket().getsockname()?);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn socket(&self) -> &Socket {
        self.sock.as_ref().expect("the socket is present until `self` is consumed")
    }

    /// Does the handshake, if it is not done yet.
    ///
    /// Python: `do_handshake()`. System calls: send(2), recv(2). The timeout is
    /// [`WrapOptions::handshake_timeout`](crate::WrapOptions::handshake_timeout), or the socket's
    /// timeout if there is none. Every call that needs the handshake calls this method.
    ///
    /// # Errors
    ///
    /// Returns an [`SSLError`] if the handshake fails. Its [`reason`](SSLError::reason) says why,
    /// and an alert was sent to the peer. Returns an error of kind `TimedOut` if the timeout
    /// expires, an error of kind `WouldBlock` if a non-blocking socket has to wait (the call can be
    /// repeated), and the system's error, such as `ConnectionReset`, if a system call fails. All
    /// except `WouldBlock` name the peer.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (sock, peer) = pki::sockets()?;
    /// # let serving = std::thread::spawn(move || pki::server()?.wrap_socket_server(peer));
    /// # let context = pki::client()?;
    /// use sockssl::WrapOptions;
    ///
    /// let options = WrapOptions::new().do_handshake_on_connect(false);
    /// let sock = context.wrap_socket_client_with(sock, "localhost", &options)?;
    /// sock.do_handshake()?;                                // sock.do_handshake()
    /// assert_eq!(sock.version(), Some("TLSv1.3"));
    /// # serving.join().unwrap()?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn do_handshake(&self) -> io::Result<()> {
        self.ensure_handshake().map(drop)
    }

    /// Does the handshake if necessary, and returns the deadline of the current call. The
    /// socket's timeout covers both. A handshake timeout is added to it.
    fn ensure_handshake(&self) -> io::Result<Deadline<'_>> {
        let sock = self.socket();
        if self.handshake_done.load(Ordering::Acquire) {
            return Ok(sock.deadline());
        }
        let (own, before) = (self.info.handshake_timeout, sock.gettimeout());
        let Some(timeout) = own.filter(|_| !before.is_some_and(|timeout| timeout.is_zero())) else {
            let mut deadline = sock.deadline();
            return self.handshake_within(&mut deadline).map(|()| deadline);
        };
        sock.settimeout(timeout)?;
        let result = self.handshake_within(&mut sock.deadline());
        // Another thread may have changed the timeout meanwhile.
        if sock.gettimeout() == own {
            sock.settimeout(before)?;
        }
        result.map(|()| sock.deadline())
    }

    /// Sends the first part of `data` and returns its length. The caller sends the rest.
    ///
    /// Python: `send(data)`. System call: send(2). Counted bytes have been encrypted and must not
    /// be passed again. Those that could not be sent before the deadline, or without waiting on
    /// a non-blocking socket, are sent first by the next call or by [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// Returns an error if the handshake fails (see [`do_handshake`](Self::do_handshake)) or if
    /// sending to the socket fails, and `BrokenPipe` after [`shutdown`](Self::shutdown). If the
    /// peer sent an alert before it reset the connection, the alert is returned and not the reset.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// let mut rest = &b"hello"[..];
    /// while !rest.is_empty() {
    ///     rest = &rest[client.send(rest)?..];              // rest = rest[sock.send(rest):]
    /// }
    /// assert_eq!(server.recv(1024)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        let mut deadline = self.ensure_handshake()?;
        let mut outgoing = self.lock(&self.outgoing, &mut deadline)?;
        let result = self.send_part(&mut outgoing, data, &mut deadline).map(|(count, _)| count);
        drop(outgoing);
        self.flush_pending();
        result.map_err(|error| self.alert_instead_of_reset(error))
    }

    /// Sends all of `data`.
    ///
    /// Python: `sendall(data)`. System call: send(2), as often as needed. The
    /// socket's timeout is one deadline for the whole call.
    ///
    /// # Errors
    ///
    /// Returns an error if [`send`](Self::send) would. The number of bytes sent is then unknown, so
    /// the connection will end without a close_notify: see [`abort`](Self::abort).
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// client.sendall(b"hello")?;                           // sock.sendall(b"hello")
    /// assert_eq!(server.recv(1024)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendall(&self, data: &[u8]) -> io::Result<()> {
        let mut deadline = self.ensure_handshake()?;
        let mut outgoing = self.lock(&self.outgoing, &mut deadline)?;
        let mut rest = data;
        let result = loop {
            if rest.is_empty() {
                break Ok(());
            }
            match self.send_part(&mut outgoing, rest, &mut deadline) {
                Ok((count, flushed)) => {
                    rest = &rest[count..];
                    if let Err(error) = flushed {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        // If a non-blocking socket accepted nothing, the call can be repeated.
        let may_be_repeated = rest.len() == data.len() && self.is_nonblocking();
        if result.is_err() && !rest.is_empty() && !may_be_repeated {
            self.abort();
        }
        drop(outgoing);
        self.flush_pending();
        result.map_err(|error| self.alert_instead_of_reset(error))
    }

    /// Encrypts the first part of `data` and sends it until the deadline. Returns the length of
    /// the encrypted part, and whether all of it was sent.
    fn send_part(
        &self,
        outgoing: &mut SendBuffer,
        data: &[u8],
        deadline: &mut Deadline<'_>,
    ) -> io::Result<(usize, io::Result<()>)> {
        self.flush_within(outgoing, deadline)?;
        let count = {
            let mut engine = self.engine.lock();
            let count = engine.write(data)?;
            engine.write_tls(&mut outgoing.bytes);
            count
        };
        match outgoing.flush(self.socket(), deadline) {
            Ok(()) => Ok((count, Ok(()))),
            Err(error) if can_retry(&error) => Ok((count, Err(error))),
            Err(error) => Err(error),
        }
    }

    /// Sends the data that earlier calls encrypted and could not send in time.
    ///
    /// Python: none; OpenSSL requires the same call again with the same data. `Ok` means that
    /// everything was sent.
    ///
    /// # Errors
    ///
    /// Returns an error if [`send`](Self::send) would.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// client.socket().setblocking(false)?;
    /// let count = client.send(b"hello")?;
    /// // What the socket had no room for is sent now.
    /// client.flush()?;
    /// assert_eq!(server.recv(1024)?.len(), count);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn flush(&self) -> io::Result<()> {
        let mut deadline = self.socket().deadline();
        let mut outgoing = self.lock(&self.outgoing, &mut deadline)?;
        self.flush_within(&mut outgoing, &mut deadline)
    }

    /// Ends the TLS connection and returns the socket.
    ///
    /// Python: `unwrap()`. System calls: send(2), recv(2). It sends a close_notify and waits for
    /// the peer's, under the socket's timeout. The second result is data that was received after
    /// the peer's close_notify; Python loses it.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Self::recv) would. Returns an [`SSLError`] with
    /// [`UnexpectedEof`](Reason::UnexpectedEof) if the connection ends without a close_notify, even
    /// if [`suppress_ragged_eofs`](crate::WrapOptions::suppress_ragged_eofs) is on, and with
    /// [`ApplicationDataAfterCloseNotify`](Reason::ApplicationDataAfterCloseNotify) if the peer
    /// sends more data, or if received data was not read. The socket is closed in each case.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// # let other = std::thread::spawn(move || server.unwrap_tls());
    /// // The peer of `client` ends TLS too.
    /// let (sock, rest) = client.unwrap_tls()?;             // sock = sock.unwrap()
    /// assert!(rest.is_empty());
    /// # let (peer, _) = other.join().unwrap()?;
    /// sock.sendall(b"in clear text")?;
    /// # assert_eq!(peer.recv(100)?, b"in clear text");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn unwrap_tls(mut self) -> io::Result<(Socket, Vec<u8>)> {
        let mut deadline = self.ensure_handshake()?;
        {
            let mut outgoing = self.outgoing.lock();
            self.flush_within(&mut outgoing, &mut deadline)?;
            self.engine.lock().close();
            self.flush_within(&mut outgoing, &mut deadline)?;
        }
        let mut incoming = self.incoming.lock();
        let mut byte = [0];
        loop {
            match self.plaintext(&mut byte)? {
                Some(0) => break,
                Some(_) => {
                    let message = "received data where a close_notify was expected";
                    return Err(SSLError::new(Reason::ApplicationDataAfterCloseNotify, message).into());
                }
                None => {}
            }
            if !self.read_record(&mut incoming, &mut deadline)? {
                // `suppress_ragged_eofs` is about receiving, as in Python.
                return Err(self.missing_close_notify());
            }
        }
        let rest = incoming.unread().to_vec();
        drop(incoming);
        let mut sock = self.sock.take().expect("the socket is present until `self` is consumed");
        sock.set_encrypted(false);
        Ok((sock, rest))
    }

    fn handshake_within(&self, deadline: &mut Deadline<'_>) -> io::Result<()> {
        let mut incoming = self.lock(&self.incoming, deadline)?;
        if self.handshake_done.load(Ordering::Acquire) {
            return Ok(());
        }
        let done = self.handshake_locked(&mut incoming, deadline);
        // A logger may use the connection.
        drop(incoming);
        done.map_err(|error| self.handshake_error(error))?;
        let cipher = self.cipher().map_or("", |(name, _, _)| name);
        let version = self.version().unwrap_or("");
        log::debug!(
            peer:% = self.info.peer, tls_version = version, cipher = cipher;
            "TLS handshake with {} done: {version} {cipher}", self.info.peer
        );
        Ok(())
    }

    fn handshake_locked(&self, incoming: &mut RecordReader, deadline: &mut Deadline<'_>) -> io::Result<()> {
        // This fixes the point in time: a peer that sends a byte now and then must not extend it.
        deadline.remaining();
        loop {
            self.engine.lock().check()?;
            // Buffered records are processed before anything is sent, so that the response is
            // one packet: the second of two small packets would wait for an ACK (RFC 896).
            let mut handshaking = self.engine.lock().is_handshaking();
            if !handshaking || incoming.next().is_none() {
                let flushed = self
                    .lock(&self.outgoing, deadline)
                    .and_then(|mut outgoing| self.flush_within(&mut outgoing, deadline));
                handshaking = self.engine.lock().is_handshaking();
                match flushed {
                    Err(error) if can_retry(&error) => return Err(error),
                    Err(error) if handshaking || !self.info.server_side => {
                        return Err(self.alert_before_error(incoming, error, deadline));
                    }
                    // A server could not send its session tickets, because the client has
                    // disconnected. The next call reports that.
                    _ => {}
                }
            }
            if !handshaking {
                break;
            }
            if let Err(error) = self.read_record(incoming, deadline) {
                if SSLError::of(&error).is_some() {
                    self.lingering_close();
                }
                return Err(error);
            }
            let over = deadline.remaining().is_some_and(|left| left.is_zero());
            if over && !self.is_nonblocking() {
                return Err(timed_out_or_would_block(self.socket()));
            }
        }
        self.handshake_done.store(true, Ordering::Release);
        let engine = self.engine.lock();
        let counters = &self.info.counters;
        increment(if self.info.server_side { &counters.accept_good } else { &counters.connect_good });
        if engine.is_resumed() {
            increment(&counters.hits);
        }
        Ok(())
    }

    /// Adds the peer to an error of the handshake, and logs it.
    fn handshake_error(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::WouldBlock {
            return error;
        }
        let error = io::Error::from(AddressError::new("TLS handshake with", &self.info.peer, error));
        log::debug!(
            peer:% = self.info.peer, errno = sock::errno(&error).and_then(sock::errno_name);
            "{error}"
        );
        error
    }

    /// Returns the alert that the peer sent before it disconnected, or else `error`.
    fn alert_before_error(
        &self,
        incoming: &mut RecordReader,
        error: io::Error,
        deadline: &mut Deadline<'_>,
    ) -> io::Error {
        loop {
            match self.read_record(incoming, deadline) {
                Ok(true) => {}
                Err(alert) if is_alert(&alert) => return alert,
                _ => return error,
            }
        }
    }

    /// Reads decrypted data. Returns `None` if more has to be received first.
    fn plaintext(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(self.engine.lock().read(buffer)?)
    }

    /// Processes the next record, which may have to be received. Returns false at end of file.
    fn read_record(&self, incoming: &mut RecordReader, deadline: &mut Deadline<'_>) -> io::Result<bool> {
        self.process_record(incoming, |incoming| incoming.fill(self.socket(), deadline))
    }

    /// As [`read_record`](Self::read_record). `fill` receives.
    fn process_record(
        &self,
        incoming: &mut RecordReader,
        mut fill: impl FnMut(&mut RecordReader) -> io::Result<usize>,
    ) -> io::Result<bool> {
        loop {
            if let Some(record) = incoming.next() {
                let result = self.engine.lock().read_tls(incoming.get(&record));
                incoming.consume(&record);
                return result.map(|()| true).map_err(|error| self.fail(error));
            }
            if fill(incoming)? == 0 {
                return self.end_of_file();
            }
        }
    }

    /// Handles the end of the connection without a close_notify.
    fn end_of_file(&self) -> io::Result<bool> {
        let handshaking =
            !self.handshake_done.load(Ordering::Acquire) && self.engine.lock().is_handshaking();
        if handshaking {
            let message = "the peer closed the connection during the handshake";
            return Err(self.fail(SSLError::new(Reason::ClosedInHandshake, message)));
        }
        if self.info.suppress_ragged_eofs || self.read_closed.load(Ordering::Acquire) {
            return Ok(false);
        }
        Err(self.missing_close_notify())
    }

    fn missing_close_notify(&self) -> io::Error {
        let message = "the peer closed the connection without a close_notify";
        self.fail(SSLError::new(Reason::UnexpectedEof, message))
    }

    /// Marks the connection as failed, counts the error, and sends the alert if possible.
    fn fail(&self, error: SSLError) -> io::Error {
        self.engine.lock().fail(error.clone());
        self.info.counters.count_failure(error.reason());
        self.flush_pending();
        error.into()
    }

    /// Reads buffered input after a failed handshake, so that the alert arrives. close(2) with
    /// unread input resets the connection, and the peer loses the alert.
    fn lingering_close(&self) {
        let sock = self.socket();
        let _ = sock.shutdown(SHUT_WR);
        let mut discard = [0; 4096];
        for _ in 0..16 {
            let mut set = [sock::Poll::new(sock, sock::POLLIN)];
            let ready = sock::poll(&mut set, Some(Duration::ZERO)).unwrap_or(0) > 0;
            if !ready || sock.recv_into(&mut discard).unwrap_or(0) == 0 {
                break;
            }
        }
    }

    /// Returns the alert that the peer sent before it reset the connection, or else `error`.
    fn alert_instead_of_reset(&self, error: io::Error) -> io::Error {
        if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
            || error.raw_os_error().is_none()
        {
            return error;
        }
        let Some(mut incoming) = self.incoming.try_lock() else {
            return error;
        };
        let sock = self.socket();
        loop {
            let mut set = [sock::Poll::new(sock, sock::POLLIN)];
            let there =
                incoming.next().is_some() || sock::poll(&mut set, Some(Duration::ZERO)).unwrap_or(0) > 0;
            // Unread data precedes the alert. The thread that reads it gets the alert.
            if !there || self.engine.lock().pending() > 0 {
                return error;
            }
            match self.read_record(&mut incoming, &mut Deadline::new(Some(Duration::ZERO))) {
                Ok(true) => {}
                Err(alert) if is_alert(&alert) => return alert,
                _ => return error,
            }
        }
    }

    /// Sends the data of earlier calls, and then the records of the library.
    fn flush_within(&self, outgoing: &mut SendBuffer, deadline: &mut Deadline<'_>) -> io::Result<()> {
        loop {
            outgoing.flush(self.socket(), deadline)?;
            self.engine.lock().write_tls(&mut outgoing.bytes);
            if outgoing.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends the records of the library without waiting. If another thread is sending, it sends
    /// them when it is done; what is left is sent by the next call that sends.
    fn flush_pending(&self) {
        while self.engine.lock().wants_write() {
            let Some(mut outgoing) = self.outgoing.try_lock() else {
                return;
            };
            self.engine.lock().write_tls(&mut outgoing.bytes);
            if outgoing
                .flush_by(self.socket(), &mut Deadline::new(Some(Duration::ZERO)), Input::Keep)
                .is_err()
            {
                return;
            }
        }
    }

    fn is_nonblocking(&self) -> bool {
        self.socket().gettimeout().is_some_and(|timeout| timeout.is_zero())
    }

    /// Acquires a lock before the deadline.
    fn lock<'a, T>(
        &self,
        mutex: &'a Mutex<T>,
        deadline: &mut Deadline<'_>,
    ) -> io::Result<MutexGuard<'a, T>> {
        if let Some(guard) = mutex.try_lock() {
            return Ok(guard);
        }
        match deadline.remaining() {
            None => Ok(mutex.lock()),
            Some(left) => mutex.try_lock_for(left).ok_or_else(|| timed_out_or_would_block(self.socket())),
        }
    }
}

/// Whether a call that failed with this error can be repeated.
fn can_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn is_alert(error: &io::Error) -> bool {
    matches!(SSLError::of(error).map(SSLError::reason), Some(Reason::Alert(_)))
}

impl Drop for SSLSocket {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl fmt::Debug for SSLSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SSLSocket")
            .field("peer", &self.info.peer)
            .field("server_side", &self.info.server_side)
            // `None` also while another call processes records, such as the SNI callback's.
            .field("version", &self.version_if_unlocked())
            .finish_non_exhaustive()
    }
}
