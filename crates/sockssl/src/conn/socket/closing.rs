//! The end of a connection: the close_notify, and a close that loses nothing.

use std::io;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use sock::{AF_UNIX, Deadline, Shutdown, Socket};

use super::SSLSocket;
use crate::conn::record_io::{Input, await_acknowledgement};

/// How long a close waits on a socket without timeout.
const LINGER: Duration = Duration::from_secs(5);

/// The longest close_notify (TLS 1.2 with AES-GCM), and a FIN, which counts as a byte.
/// It is not waited for: each record of data is longer than what it leaves room for.
const CLOSE_NOTIFY: usize = 5 + 8 + 2 + 16 + 1;

impl SSLSocket {
    /// Ends sending, receiving, or both. To end sending sends a close_notify first.
    ///
    /// Python: `shutdown(how)`, which sends none. System calls: send(2),
    /// shutdown(2). It wakes calls of other threads. Where the system's buffer is
    /// full it waits for room for the close_notify: as long as the socket's timeout, or
    /// five seconds on a blocking socket. `SHUT_RDWR` waits for one second at most, and
    /// also until the peer has acknowledged what was sent: input that comes after it
    /// resets the connection.
    ///
    /// # Errors
    ///
    /// `NotConnected` (`ENOTCONN`).
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
                if self.may_be_reset() && sock.family() != AF_UNIX {
                    // As in `lingering_close`. The receiving side stays open until then.
                    sock.shutdown(Shutdown::Write)?;
                    await_acknowledgement(sock, &mut deadline, self.allowance());
                    // It fails if the peer has closed meanwhile.
                    let _ = sock.shutdown(Shutdown::Read);
                    return Ok(());
                }
            }
        }
        sock.shutdown(how)
    }

    /// Sends a close_notify, waits until the peer's system has everything, and closes
    /// the socket.
    ///
    /// Python: `close()`, which does neither. System calls: send(2), recv(2), ioctl(2),
    /// close(2). Input that was not received is discarded: close(2) would reset the
    /// connection because of it, such as of session tickets, and what is still in the
    /// send queue would be lost. It waits as long as the socket's timeout, but five
    /// seconds at most, and only if there is something to wait for. A non-blocking
    /// socket does not wait: call [`flush`](Self::flush), and wait for
    /// [`send_queue`](Socket::send_queue) to be empty, before closing it.
    ///
    /// Dropping it does the same, without an error; in a thread that panics without the
    /// close_notify.
    ///
    /// # Errors
    ///
    /// `TimedOut` if the peer had not acknowledged everything in time: the system goes
    /// on sending, but input resets the connection from then on. `WouldBlock` if a
    /// non-blocking socket had no room for what [`send`](Self::send) has counted. No
    /// error if the peer has reset the connection. Those of closing a [`Socket`].
    pub fn close(mut self) -> io::Result<()> {
        let finished = self.finish();
        let closed = self.sock.take().map_or(Ok(()), Socket::close);
        finished.and(closed)
    }

    /// Marks the connection as failed: no close_notify is sent from now on, so that the
    /// peer finds it cut.
    ///
    /// Python: none; it never sends one unless `unwrap` is called. For who cannot send
    /// all that belongs to an answer, since a close_notify says that it was all
    /// (RFC 8446, 6.1). A server of `sockserver` calls it for a handler that failed.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
    }

    /// The server waits in place of [`finish`](Self::finish).
    pub(crate) fn note_linger(&self) {
        self.lingered.store(true, Ordering::Release);
    }

    /// Sends what is left and the close_notify, and waits until it is safe to close.
    pub(super) fn finish(&self) -> io::Result<()> {
        let Some(sock) = self.sock.as_ref().filter(|_| self.handshake_done.load(Ordering::Acquire)) else {
            return Ok(());
        };
        if thread::panicking() {
            self.abort();
        }
        let mut deadline = self.closing_deadline(LINGER);
        let sent = self.send_close_notify(&mut deadline, Input::Discard);
        let waits = sent.is_ok() && self.may_be_reset() && !self.lingered.load(Ordering::Acquire);
        let lingered = if waits { self.linger(sock, &mut deadline) } else { Ok(()) };
        let result = match sent.and(lingered) {
            // The peer's own doing, or that of shutdown(2) on the socket.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut && self.is_nonblocking() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.is_nonblocking() => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"))
            }
            result => result,
        };
        result.inspect_err(|error| log::debug!("closing TLS with {}: {error}", self.role.peer))
    }

    /// Waits until everything has been acknowledged, if that is not so already.
    fn linger(&self, sock: &Socket, deadline: &mut Deadline<'_>) -> io::Result<()> {
        let allowed = self.allowance();
        let linger = |limit| sock.linger_until(limit, |queued| queued <= allowed).map(drop);
        match linger(Duration::ZERO) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            done => return done,
        }
        let left = deadline.left().unwrap_or_default();
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "timed out"));
        }
        // The FIN sends the close_notify on its way, which may wait for an acknowledgement
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

    /// Has everything that ends the connection done by `time`, whatever the socket's timeout.
    pub(crate) fn close_by(&self, time: Instant) {
        *self.close_by.lock() = Some(time);
    }

    /// Whether the peer may still send something that resets the connection. After its
    /// close_notify it sends no more.
    fn may_be_reset(&self) -> bool {
        !self.engine.lock().peer_closed()
    }

    /// How much may be unacknowledged when the socket is closed.
    fn allowance(&self) -> usize {
        if self.engine.lock().is_closed() { CLOSE_NOTIFY } else { 0 }
    }

    /// Sends what is left, and the close_notify once. What was cut off before it stays cut
    /// off: then there is none.
    fn send_close_notify(&self, deadline: &mut Deadline<'_>, input: Input) -> io::Result<()> {
        let Some(sock) = self.sock.as_ref().filter(|_| self.handshake_done.load(Ordering::Acquire)) else {
            return Ok(());
        };
        // Whoever is sending is not interrupted, and not waited for.
        let soon = deadline.left().unwrap_or_default().min(Duration::from_millis(20));
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

/// Whether nothing can be sent any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}
