//! Shutdown and close: the close_notify, and a lingering close that loses no data.

use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use sock::{AF_UNIX, Deadline, Shutdown, Socket};

use super::SSLSocket;
use crate::conn::record_io::{Input, await_acknowledgement};

/// How long a close waits at most on a socket without a timeout.
const LINGER: Duration = Duration::from_secs(5);

/// The length of the longest close_notify (TLS 1.2 with AES-GCM), plus a FIN, which counts as
/// one byte. A close does not wait for their acknowledgement. Every data record is longer.
const CLOSE_NOTIFY_LEN: usize = 5 + 8 + 2 + 16 + 1;

impl SSLSocket {
    /// Shuts down sending, receiving, or both. Shutting down sending sends a close_notify first.
    ///
    /// Python: `shutdown(how)`, which sends no close_notify. System calls: send(2), shutdown(2).
    /// It wakes blocked calls of other threads. If the send buffer is full, it waits until there
    /// is room for the close_notify: for the socket's timeout, or for five seconds on a blocking
    /// socket. `SHUT_RDWR` waits for one second at most, and also until the peer has acknowledged
    /// the sent data, because input that arrives afterwards resets the connection.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `NotConnected` (`ENOTCONN`) if the socket is not connected.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// client.sendall(b"the last request")?;
    /// client.shutdown(sock::SHUT_WR)?;                     // sock.shutdown(socket.SHUT_WR)
    /// assert_eq!(server.recv(1024)?, b"the last request");
    /// assert_eq!(server.recv(1024)?, b"");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let sock = self.socket();
        match how {
            Shutdown::Read => self.read_closed.store(true, Ordering::Release),
            Shutdown::Write => {
                let _ = self.send_close_notify(&mut self.closing_deadline(LINGER), Input::Keep);
            }
            Shutdown::Both => {
                self.read_closed.store(true, Ordering::Release);
                let mut deadline = self.closing_deadline(Duration::from_secs(1));
                let _ = self.send_close_notify(&mut deadline, Input::Keep);
                if self.may_receive_more() && sock.family() != AF_UNIX {
                    // As in `lingering_close`. The receiving side stays open until then.
                    sock.shutdown(Shutdown::Write)?;
                    await_acknowledgement(sock, &mut deadline, self.allowed_unacknowledged());
                    // It fails if the peer has closed meanwhile.
                    let _ = sock.shutdown(Shutdown::Read);
                    return Ok(());
                }
            }
        }
        sock.shutdown(how)
    }

    /// Sends a close_notify, waits until the peer has acknowledged everything, and closes the
    /// socket.
    ///
    /// Python: `close()`, which neither sends a close_notify nor waits. System calls: send(2),
    /// recv(2), ioctl(2), close(2). Unread input, such as session tickets, is discarded: because
    /// of it close(2) would reset the connection, and data in the send queue would be lost. It
    /// waits for the socket's timeout, for five seconds at most, and only if something is not
    /// acknowledged. A non-blocking socket does not wait: call [`flush`](Self::flush), and wait
    /// until [`send_queue`](Socket::send_queue) is empty, before closing it.
    ///
    /// Dropping it does the same and ignores errors. In a thread that panics, dropping sends no
    /// close_notify.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `TimedOut` if the peer has not acknowledged everything in time. The
    /// system goes on sending, but input resets the connection from then on. Returns an error of
    /// kind `WouldBlock` if a non-blocking socket has no room for data that [`send`](Self::send)
    /// has counted. Returns an error if closing the [`Socket`] fails. A reset by the peer is not an
    /// error.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// client.close()?;                                     // sock.close()
    /// assert_eq!(server.recv(1024)?, b"");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn close(mut self) -> io::Result<()> {
        let finished = self.finish();
        let closed = self.sock.take().map_or(Ok(()), Socket::close);
        finished.and(closed)
    }

    /// Marks the connection as failed: no close_notify is sent from now on.
    ///
    /// Python: none; there only `unwrap` sends a close_notify. Call it if a response cannot be
    /// completed, because a close_notify means that the data is complete (RFC 8446, section 6.1).
    /// `sockserver` calls it if a handler fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// use sockssl::{Reason, SSLError};
    ///
    /// // `client` and `server` are the two ends of a connection.
    /// server.sendall(b"half an answer")?;
    /// server.abort();
    /// drop(server);
    /// assert_eq!(client.recv(1024)?, b"half an answer");
    /// let error = client.recv(1024).unwrap_err();
    /// assert_eq!(SSLError::of(&error).unwrap().reason(), Reason::UnexpectedEof);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
    }

    /// Records that the caller does the lingering close, so that [`finish`](Self::finish) does not.
    pub(crate) fn set_lingered(&self) {
        self.lingered.store(true, Ordering::Release);
    }

    /// Sends the remaining data and the close_notify, and waits until close(2) loses nothing.
    pub(super) fn finish(&self) -> io::Result<()> {
        let Some(sock) = self.sock.as_ref().filter(|_| self.handshake_done.load(Ordering::Acquire)) else {
            return Ok(());
        };
        if thread::panicking() {
            self.abort();
        }
        let mut deadline = self.closing_deadline(LINGER);
        let sent = self.send_close_notify(&mut deadline, Input::Discard);
        let waits = sent.is_ok() && self.may_receive_more() && !self.lingered.load(Ordering::Acquire);
        let lingered = if waits { self.linger(sock, &mut deadline) } else { Ok(()) };
        let result = match sent.and(lingered) {
            // The peer has disconnected, or shutdown(2) was called on the socket.
            Err(error) if is_disconnected(&error) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut && self.is_nonblocking() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.is_nonblocking() => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"))
            }
            result => result,
        };
        result.inspect_err(|error| {
            log::debug!(
                peer:% = self.info.peer, errno = sock::errno(error).and_then(sock::errno_name);
                "cannot close TLS with {}: {error}", self.info.peer
            );
        })
    }

    /// Waits until everything is acknowledged.
    fn linger(&self, sock: &Socket, deadline: &mut Deadline<'_>) -> io::Result<()> {
        let allowed = self.allowed_unacknowledged();
        let linger = |limit| sock.linger_until(limit, |queued| queued <= allowed).map(drop);
        match linger(Duration::ZERO) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            done => return done,
        }
        let left = deadline.remaining().unwrap_or_default();
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"));
        }
        // The FIN pushes the close_notify, which may be waiting for an acknowledgement
        // (RFC 896). After SHUT_RD, input that follows a FIN resets the connection.
        if !self.read_closed.load(Ordering::Acquire) {
            sock.shutdown(Shutdown::Write)?;
        }
        linger(left)
    }

    fn closing_deadline(&self, limit: Duration) -> Deadline<'static> {
        let timeout = match *self.close_by.lock() {
            Some(by) => by.saturating_duration_since(Instant::now()),
            None => self.socket().gettimeout().unwrap_or(LINGER).min(limit),
        };
        Deadline::new(Some(timeout))
    }

    /// Sets the deadline for everything that closes the connection. It replaces the socket's timeout.
    pub(crate) fn close_by(&self, time: Instant) {
        *self.close_by.lock() = Some(time);
    }

    /// Whether the peer may still send data, which would reset a closed connection. After its
    /// close_notify it sends nothing.
    fn may_receive_more(&self) -> bool {
        !self.engine.lock().peer_closed()
    }

    /// Returns the number of bytes that may be unacknowledged when the socket is closed.
    fn allowed_unacknowledged(&self) -> usize {
        if self.engine.lock().is_closed() { CLOSE_NOTIFY_LEN } else { 0 }
    }

    /// Sends the remaining data, and then the close_notify, once. If the remaining data cannot be
    /// sent, no close_notify is sent.
    fn send_close_notify(&self, deadline: &mut Deadline<'_>, input: Input) -> io::Result<()> {
        let Some(sock) = self.sock.as_ref().filter(|_| self.handshake_done.load(Ordering::Acquire)) else {
            return Ok(());
        };
        // A thread that is sending is neither interrupted nor waited for.
        let soon = deadline.remaining().unwrap_or_default().min(Duration::from_millis(20));
        let Some(mut outgoing) = self.outgoing.try_lock_for(soon) else {
            return Ok(());
        };
        outgoing.flush_by(sock, deadline, input)?;
        let mut engine = self.engine.lock();
        if self.aborted.load(Ordering::Acquire) || engine.is_closed() {
            return Ok(());
        }
        engine.close();
        engine.write_tls(&mut outgoing.bytes);
        drop(engine);
        outgoing.flush_by(sock, deadline, input)
    }
}

/// Whether the error means that the peer has disconnected.
fn is_disconnected(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}
