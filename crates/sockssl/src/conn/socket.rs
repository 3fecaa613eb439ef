//! `SSLSocket`: TLS on a socket, for reading and writing from two threads at once.

mod closing;

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
use crate::stats::{Counters, count};

/// A socket with TLS on it.
///
/// Python: `ssl.SSLSocket`. It is a [`StreamSocket`](sock::StreamSocket): whatever
/// talks over a plain socket talks over it. Every method takes `&self`: one
/// thread may receive while another sends.
///
/// Its life:
///
/// 1. [`wrap_socket_server`](crate::SSLContext::wrap_socket_server) or
///    [`wrap_socket_client`](crate::SSLContext::wrap_socket_client) takes a connected socket over.
/// 2. The handshake: in there, or by [`do_handshake`](Self::do_handshake), or with
///    the first call that needs it.
/// 3. [`recv`](Self::recv), [`send`](Self::send) and their relatives.
/// 4. [`close`](Self::close), or dropping it, sends a close_notify, waits until
///    everything has arrived, and closes the socket; [`unwrap_tls`](Self::unwrap_tls) gives it back instead.
///
/// The timeout of the socket ([`socket`](Self::socket)`().settimeout`) is one
/// deadline for each whole call, a handshake too. Non-blocking sockets work: a
/// call that cannot go on fails with `WouldBlock`, and what it has made so far
/// is kept; see [`send`](Self::send).
///
/// # Full duplex
///
/// Three locks: one for the state of TLS, held only while bytes move in memory;
/// one for who receives from the socket, one for who sends. A receiver that
/// waits holds nothing that a sender needs.
pub struct SSLSocket {
    /// `None` only while it is being taken apart.
    sock: Option<Socket>,
    pub(crate) engine: Mutex<Engine>,
    incoming: Mutex<RecordReader>,
    outgoing: Mutex<SendBuffer>,
    /// The handshake is done.
    handshake_done: AtomicBool,
    /// We want to hear no more: the end of the connection is no cut.
    read_closed: AtomicBool,
    /// No close_notify is to be sent: see [`abort`](Self::abort).
    aborted: AtomicBool,
    /// Somebody else has waited until it is safe to close.
    lingered: AtomicBool,
    /// The end of a [`set_close_timeout`](sock::StreamSocket::set_close_timeout).
    close_by: Mutex<Option<Instant>>,
    pub(crate) role: ConnInfo,
}

/// The most that one record holds (RFC 8446, 5.1).
const RECORD: usize = 1 << 14;

/// What does not change about a connection.
pub(crate) struct ConnInfo {
    pub(crate) server_side: bool,
    pub(crate) suppress_ragged_eofs: bool,
    pub(crate) handshake_timeout: Option<Duration>,
    /// The peer, for errors: `127.0.0.1:443 (localhost)`.
    pub(crate) peer: String,
    pub(crate) counters: Arc<Counters>,
}

impl SSLSocket {
    pub(crate) fn new(sock: Socket, engine: Engine, role: ConnInfo) -> SSLSocket {
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
            role,
        }
    }

    /// The socket underneath: descriptor, timeouts, names, options. Reading from
    /// it or writing to it breaks TLS.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        self.sock.as_ref().expect("it has its socket until it is taken apart")
    }

    /// Shakes hands, if that has not happened yet.
    ///
    /// Python: `do_handshake()`. System calls: send(2), recv(2). The deadline is
    /// that of [`WrapOptions::handshake_timeout`](crate::WrapOptions::handshake_timeout), or else
    /// the socket's timeout. Every call that needs the handshake calls this.
    ///
    /// # Errors
    ///
    /// An [`SSLError`] whose [`reason`](SSLError::reason) tells what the peer, or
    /// its certificate, lacks; the peer has been told by an alert. `TimedOut` at
    /// the deadline; `WouldBlock`, after which it can be called again. The system's,
    /// such as `ConnectionReset`. All name the peer.
    pub fn do_handshake(&self) -> io::Result<()> {
        self.begin().map(drop)
    }

    /// Shakes hands if need be, and gives the deadline of the call that is begun. The
    /// socket's timeout is one for both, a handshake's own comes on top.
    fn begin(&self) -> io::Result<Deadline<'_>> {
        let sock = self.socket();
        if self.handshake_done.load(Ordering::Acquire) {
            return Ok(sock.deadline());
        }
        let (own, before) = (self.role.handshake_timeout, sock.gettimeout());
        let Some(timeout) = own.filter(|_| !before.is_some_and(|timeout| timeout.is_zero())) else {
            let mut deadline = sock.deadline();
            return self.handshake_within(&mut deadline).map(|()| deadline);
        };
        sock.settimeout(timeout)?;
        let result = self.handshake_within(&mut sock.deadline());
        // Unless somebody has changed it meanwhile.
        if sock.gettimeout() == own {
            sock.settimeout(before)?;
        }
        result.map(|()| sock.deadline())
    }

    /// Receives up to `bufsize` bytes; no bytes mean that the peer has said goodbye.
    ///
    /// Python: `recv(bufsize)`. System call: recv(2), unless there is plaintext
    /// already. At most one record's worth comes at a time.
    ///
    /// # Errors
    ///
    /// Those of [`do_handshake`](Self::do_handshake) and of a socket; and an
    /// [`SSLError`]: [`UnexpectedEof`](Reason::UnexpectedEof) when the connection
    /// was cut, unless [`suppress_ragged_eofs`](crate::WrapOptions::suppress_ragged_eofs) asks for
    /// an end of file instead; [`Alert`](Reason::Alert), such as a server sends that
    /// refuses our certificate; [`DecryptionFailed`](Reason::DecryptionFailed).
    pub fn recv(&self, bufsize: usize) -> io::Result<Vec<u8>> {
        // More than a record holds does not come at once.
        let mut buffer = vec![0; bufsize.min(RECORD)];
        let received = self.recv_into(&mut buffer)?;
        buffer.truncate(received);
        Ok(buffer)
    }

    /// Receives into a buffer of the caller's. Python: `recv_into(buffer)`.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv).
    pub fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut deadline = self.begin()?;
        if let Some(count) = self.plaintext(buffer)? {
            return Ok(count);
        }
        self.receive(buffer, &mut deadline)
    }

    fn receive(&self, buffer: &mut [u8], deadline: &mut Deadline<'_>) -> io::Result<usize> {
        let mut incoming = self.lock(&self.incoming, deadline)?;
        loop {
            // Somebody else may have received it while we waited for the lock.
            if let Some(count) = self.plaintext(buffer)? {
                return Ok(count);
            }
            if !self.read_record(&mut incoming, deadline)? {
                return Ok(0);
            }
            // Who waits for an answer of the library's, such as a refusal to negotiate
            // once more, might never send anything else.
            self.send_answers();
            let over = deadline.left().is_some_and(|left| left.is_zero());
            if over && !(self.is_nonblocking() && incoming.next().is_some()) {
                // Records without data must not go on for ever.
                return self.plaintext(buffer)?.ok_or_else(|| timed_out_or_would_block(self.socket()));
            }
        }
    }

    /// Sends some of `data` and returns how much; the rest is the caller's.
    ///
    /// Python: `send(data)`. System call: send(2). What is counted has been
    /// encrypted for good. If not all of that could be sent before the deadline,
    /// or at once on a non-blocking socket, the rest goes first with the next
    /// call, or with [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// Those of [`do_handshake`](Self::do_handshake) and of a socket; `BrokenPipe`
    /// after [`shutdown`](Self::shutdown). An alert that came instead of an answer
    /// is told rather than the reset behind it.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        let mut deadline = self.begin()?;
        let mut outgoing = self.lock(&self.outgoing, &mut deadline)?;
        let result = self.send_some(&mut outgoing, data, &mut deadline).map(|(count, _)| count);
        drop(outgoing);
        self.send_answers();
        result.map_err(|error| self.alert_instead_of_reset(error))
    }

    /// Sends all of `data`.
    ///
    /// Python: `sendall(data)`. System call: send(2), as often as needed. The
    /// socket's timeout is one deadline for the whole.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send). How much was sent is then unknown, so the connection
    /// ends without a close_notify: see [`abort`](Self::abort).
    pub fn sendall(&self, data: &[u8]) -> io::Result<()> {
        let mut deadline = self.begin()?;
        let mut outgoing = self.lock(&self.outgoing, &mut deadline)?;
        let mut rest = data;
        let result = loop {
            if rest.is_empty() {
                break Ok(());
            }
            match self.send_some(&mut outgoing, rest, &mut deadline) {
                Ok((count, flushed)) => {
                    rest = &rest[count..];
                    if let Err(error) = flushed {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        // Nothing of it, on a non-blocking socket, is no part: the call can be made again.
        let may_be_repeated = rest.len() == data.len() && self.is_nonblocking();
        if result.is_err() && !rest.is_empty() && !may_be_repeated {
            self.abort();
        }
        drop(outgoing);
        self.send_answers();
        result.map_err(|error| self.alert_instead_of_reset(error))
    }

    /// Encrypts some of `data`, and sends that as far as the deadline lets it.
    /// The second result tells whether all went.
    fn send_some(
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
            Err(error) if may_go_on(&error) => Ok((count, Err(error))),
            Err(error) => Err(error),
        }
    }

    /// Sends what an earlier call has encrypted and could not send in time.
    ///
    /// Python: none; OpenSSL has the same call made again with the same data.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send); `Ok` means that nothing is left.
    pub fn flush(&self) -> io::Result<()> {
        let mut deadline = self.socket().deadline();
        let mut outgoing = self.lock(&self.outgoing, &mut deadline)?;
        self.flush_within(&mut outgoing, &mut deadline)
    }

    /// Bytes that can be received without the socket: decrypted, not yet read.
    /// Python: `pending()`.
    #[must_use]
    pub fn pending(&self) -> usize {
        let pending = self.engine.lock().pending();
        if pending > 0 || !self.handshake_done.load(Ordering::Acquire) {
            return pending;
        }
        // A whole record may lie here, which poll(2) on the socket knows nothing of.
        let Some(mut incoming) = self.incoming.try_lock() else {
            return 0;
        };
        let mut engine = self.engine.lock();
        while engine.pending() == 0 && !engine.peer_closed() {
            let Some(record) = incoming.next() else { break };
            let fed = engine.read_tls(incoming.get(&record));
            incoming.consume(&record);
            if fed.is_err() {
                break;
            }
        }
        engine.pending()
    }

    /// Ends TLS on both sides and gives the socket back, with what the peer has
    /// sent after the end of TLS and was received already.
    ///
    /// Python: `unwrap()`, which keeps nothing. System calls: send(2), recv(2): it
    /// says goodbye and waits for the peer's, under the socket's timeout.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Self::recv);
    /// [`ApplicationDataAfterCloseNotify`](Reason::ApplicationDataAfterCloseNotify) when the peer still has
    /// something to say, or was not listened to. The socket is closed then.
    pub fn unwrap_tls(mut self) -> io::Result<(Socket, Vec<u8>)> {
        let mut deadline = self.begin()?;
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
                    let message = "data came where TLS was to end";
                    return Err(SSLError::new(Reason::ApplicationDataAfterCloseNotify, message).into());
                }
                None => {}
            }
            if !self.read_record(&mut incoming, &mut deadline)? {
                break;
            }
        }
        let rest = incoming.unread().to_vec();
        drop(incoming);
        let sock = self.sock.take().expect("it has its socket until it is taken apart");
        Ok((sock, rest))
    }

    fn handshake_within(&self, deadline: &mut Deadline<'_>) -> io::Result<()> {
        let mut incoming = self.lock(&self.incoming, deadline)?;
        if self.handshake_done.load(Ordering::Acquire) {
            return Ok(());
        }
        // The point in time is fixed now: bytes that always come just in time must
        // not make it go on for ever.
        deadline.left();
        loop {
            if let Err(error) = self.engine.lock().check() {
                return Err(self.in_handshake(error.into()));
            }
            // What has come is taken in first, so that the answer is one packet: the
            // second of two small ones would wait for the first one's ACK (RFC 896).
            let mut handshaking = self.engine.lock().is_handshaking();
            if !handshaking || incoming.next().is_none() {
                let flushed = self
                    .lock(&self.outgoing, deadline)
                    .and_then(|mut outgoing| self.flush_within(&mut outgoing, deadline));
                handshaking = self.engine.lock().is_handshaking();
                match flushed {
                    Err(error) if may_go_on(&error) => return Err(self.in_handshake(error)),
                    Err(error) if handshaking || !self.role.server_side => {
                        return Err(self.in_handshake(self.alert_before_error(
                            &mut incoming,
                            error,
                            deadline,
                        )));
                    }
                    // Tickets of a server whose client is gone: the next call will say so.
                    _ => {}
                }
            }
            if !handshaking {
                break;
            }
            if let Err(error) = self.read_record(&mut incoming, deadline) {
                if SSLError::of(&error).is_some() {
                    self.lingering_close();
                }
                return Err(self.in_handshake(error));
            }
            let over = deadline.left().is_some_and(|left| left.is_zero());
            if over && !self.is_nonblocking() {
                return Err(self.in_handshake(timed_out_or_would_block(self.socket())));
            }
        }
        self.handshake_done.store(true, Ordering::Release);
        let engine = self.engine.lock();
        let counters = &self.role.counters;
        count(if self.role.server_side { &counters.accept_good } else { &counters.connect_good });
        if engine.is_resumed() {
            count(&counters.hits);
        }
        drop(engine);
        let cipher = self.cipher().map_or("", |(name, _, _)| name);
        log::debug!("TLS with {}: {} {cipher}", self.role.peer, self.version().unwrap_or(""));
        Ok(())
    }

    /// An error of a handshake, with the peer's name; counted.
    fn in_handshake(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::WouldBlock {
            return error;
        }
        let error = AddressError::wrap("TLS handshake with", &self.role.peer, error);
        log::debug!("{error}");
        error
    }

    /// Why a handshake cannot be answered any more: the peer may have said so
    /// before it left.
    fn alert_before_error(
        &self,
        incoming: &mut RecordReader,
        error: io::Error,
        deadline: &mut Deadline<'_>,
    ) -> io::Error {
        loop {
            match self.read_record(incoming, deadline) {
                Ok(true) => {}
                Err(said) if is_alert(&said) => return said,
                _ => return error,
            }
        }
    }

    /// What can be read of what has come; `None` if more has to be received first.
    fn plaintext(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(self.engine.lock().read(buffer)?)
    }

    /// Takes in one record, received before or now; false at the end of the connection.
    fn read_record(&self, incoming: &mut RecordReader, deadline: &mut Deadline<'_>) -> io::Result<bool> {
        loop {
            if let Some(record) = incoming.next() {
                let fed = self.engine.lock().read_tls(incoming.get(&record));
                incoming.consume(&record);
                return fed.map(|()| true).map_err(|error| self.fail(error));
            }
            if incoming.fill(self.socket(), deadline)? == 0 {
                return self.end_of_file();
            }
        }
    }

    /// The connection ended without a goodbye.
    fn end_of_file(&self) -> io::Result<bool> {
        let handshaking =
            !self.handshake_done.load(Ordering::Acquire) && self.engine.lock().is_handshaking();
        if handshaking {
            let message = "the peer closed the connection before the handshake was done";
            return Err(self.fail(SSLError::new(Reason::ClosedInHandshake, message)));
        }
        if self.role.suppress_ragged_eofs || self.read_closed.load(Ordering::Acquire) {
            return Ok(false);
        }
        let message = "the connection was cut: it ended without a close_notify";
        Err(self.fail(SSLError::new(Reason::UnexpectedEof, message)))
    }

    /// Notes the end of the connection, and tells the peer as far as that goes.
    fn fail(&self, error: SSLError) -> io::Error {
        self.engine.lock().fail(error.clone());
        self.role.counters.fail(error.reason());
        self.send_answers();
        error.into()
    }

    /// Ends a handshake that failed so that its alert arrives: to close with
    /// something unread would be a reset, which overtakes it.
    fn lingering_close(&self) {
        let sock = self.socket();
        let _ = sock.shutdown(SHUT_WR);
        let mut waste = [0; 4096];
        for _ in 0..16 {
            let mut set = [sock::Poll::new(sock, sock::POLLIN)];
            let ready = sock::poll(&mut set, Some(Duration::ZERO)).unwrap_or(0) > 0;
            if !ready || sock.recv_into(&mut waste).unwrap_or(0) == 0 {
                break;
            }
        }
    }

    /// The alert behind a reset: who is refused hears a reason, if there is one.
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
            // Data that nobody has read stands before the alert: then the reader will hear it.
            if !there || self.engine.lock().pending() > 0 {
                return error;
            }
            match self.read_record(&mut incoming, &mut Deadline::new(Some(Duration::ZERO))) {
                Ok(true) => {}
                Err(alert)
                    if matches!(SSLError::of(&alert).map(SSLError::reason), Some(Reason::Alert(_))) =>
                {
                    return alert;
                }
                _ => return error,
            }
        }
    }

    /// Sends what earlier calls left, and then what the library has to say.
    fn flush_within(&self, outgoing: &mut SendBuffer, deadline: &mut Deadline<'_>) -> io::Result<()> {
        loop {
            outgoing.flush(self.socket(), deadline)?;
            self.engine.lock().write_tls(&mut outgoing.bytes);
            if outgoing.is_empty() {
                return Ok(());
            }
        }
    }

    /// Sends what the library has to say, without waiting: if somebody is sending,
    /// that thread does it when it is done, and otherwise the next one that sends.
    fn send_answers(&self) {
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

    /// A lock, waited for no longer than the call may take.
    fn lock<'a, T>(
        &self,
        mutex: &'a Mutex<T>,
        deadline: &mut Deadline<'_>,
    ) -> io::Result<MutexGuard<'a, T>> {
        if let Some(guard) = mutex.try_lock() {
            return Ok(guard);
        }
        match deadline.left() {
            None => Ok(mutex.lock()),
            Some(left) => mutex.try_lock_for(left).ok_or_else(|| timed_out_or_would_block(self.socket())),
        }
    }
}

/// Whether a call that failed this way can be made again.
fn may_go_on(error: &io::Error) -> bool {
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
            .field("peer", &self.role.peer)
            .field("server_side", &self.role.server_side)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
