//! Receiving, and what was received already.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sock::Deadline;

use super::{MAX_PLAINTEXT, SSLSocket};
use crate::conn::record_io::timed_out_or_would_block;

impl SSLSocket {
    /// Receives up to `bufsize` bytes. An empty result means that the peer sent a close_notify.
    ///
    /// Python: `recv(bufsize)`. System call: recv(2), unless decrypted data is buffered. A call
    /// returns at most the data of one record.
    ///
    /// # Errors
    ///
    /// Returns an error if the handshake fails (see [`do_handshake`](Self::do_handshake)) or if
    /// receiving from the socket fails. Returns an [`SSLError`](crate::SSLError) with
    /// [`UnexpectedEof`](crate::Reason::UnexpectedEof) if the connection ends without a close_notify and
    /// [`suppress_ragged_eofs`](crate::WrapOptions::suppress_ragged_eofs) is off, with
    /// [`Alert`](crate::Reason::Alert) if the peer sends a fatal alert (for example because it rejects the
    /// certificate of this side), and with [`DecryptionFailed`](crate::Reason::DecryptionFailed) if a
    /// record was modified in transit.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// server.sendall(b"hello")?;
    /// assert_eq!(client.recv(1024)?, b"hello");
    /// server.close()?;
    /// assert_eq!(client.recv(1024)?, b"");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv(&self, bufsize: usize) -> io::Result<Vec<u8>> {
        // One call returns at most the data of one record.
        let mut buffer = vec![0; bufsize.min(MAX_PLAINTEXT)];
        let received = self.recv_into(&mut buffer)?;
        buffer.truncate(received);
        Ok(buffer)
    }

    /// Receives into a buffer and returns the number of bytes. Python: `recv_into(buffer)`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Self::recv) would.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// server.sendall(b"hello")?;
    /// let mut buffer = [0; 1024];
    /// let size = client.recv_into(&mut buffer)?;           // size = sock.recv_into(buffer)
    /// assert_eq!(&buffer[..size], b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut deadline = self.ensure_handshake()?;
        if let Some(count) = self.plaintext(buffer)? {
            return Ok(count);
        }
        self.receive(buffer, &mut deadline)
    }

    /// Receives available data into `buffer` without waiting, in every mode of the socket.
    ///
    /// Python: `recv_into(buffer)` of a non-blocking socket. System call: recv(2) with
    /// `MSG_DONTWAIT`, unless decrypted data is buffered. It is called again while a record is
    /// incomplete.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `WouldBlock` if no data is available, or an error of
    /// [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, _server) = pki::pair()?;
    /// use std::io::ErrorKind;
    ///
    /// // The peer of `client` has sent nothing yet.
    /// let error = client.recv_into_nowait(&mut [0; 1024]).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv_into_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let sock = self.socket();
        if !self.handshake_done.load(Ordering::Acquire) {
            return sock.with_timeout(Duration::ZERO, || self.recv_into(buffer));
        }
        if let Some(count) = self.plaintext(buffer)? {
            return Ok(count);
        }
        // Another thread is receiving.
        let Some(mut incoming) = self.incoming.try_lock() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        loop {
            if let Some(count) = self.plaintext(buffer)? {
                return Ok(count);
            }
            if !self.process_record(&mut incoming, |incoming| incoming.fill_nowait(sock))? {
                return Ok(0);
            }
            self.flush_pending();
            // Records without data must not extend the call.
            if incoming.next().is_none() {
                return self.plaintext(buffer)?.ok_or_else(|| io::ErrorKind::WouldBlock.into());
            }
        }
    }

    fn receive(&self, buffer: &mut [u8], deadline: &mut Deadline<'_>) -> io::Result<usize> {
        let mut incoming = self.lock(&self.incoming, deadline)?;
        loop {
            // Another thread may have received data while this one waited for the lock.
            if let Some(count) = self.plaintext(buffer)? {
                return Ok(count);
            }
            if !self.read_record(&mut incoming, deadline)? {
                return Ok(0);
            }
            // The peer may wait for a response of the library, such as the refusal of a
            // renegotiation, before it sends anything else.
            self.flush_pending();
            let over = deadline.remaining().is_some_and(|left| left.is_zero());
            if over && !(self.is_nonblocking() && incoming.next().is_some()) {
                // Records without data must not extend the call beyond its deadline.
                return self.plaintext(buffer)?.ok_or_else(|| timed_out_or_would_block(self.socket()));
            }
        }
    }

    /// Returns the number of decrypted bytes that can be read without receiving from the socket.
    ///
    /// Python: `pending()`. Check this before polling the socket for readability.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, server) = pki::pair()?;
    /// // `client` and `server` are the two ends of a connection.
    /// server.sendall(b"hello")?;
    /// assert_eq!(client.recv(1)?, b"h");
    /// assert_eq!(client.pending(), 4);                     // sock.pending()
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn pending(&self) -> usize {
        let pending = self.engine.lock().pending();
        if pending > 0 || !self.handshake_done.load(Ordering::Acquire) {
            return pending;
        }
        // A complete record may be buffered here. poll(2) on the socket does not report it.
        let Some(mut incoming) = self.incoming.try_lock() else {
            return 0;
        };
        let mut engine = self.engine.lock();
        while engine.pending() == 0 && !engine.peer_closed() {
            let Some(record) = incoming.next() else { break };
            let result = engine.read_tls(incoming.get(&record));
            incoming.consume(&record);
            if result.is_err() {
                break;
            }
        }
        engine.pending()
    }

    /// Whether a receive returns without the socket: bytes are [`pending`](Self::pending), or the
    /// peer's close_notify or a fatal error was received with the last ones.
    pub(crate) fn has_buffered_input(&self) -> bool {
        if self.pending() > 0 {
            return true;
        }
        let engine = self.engine.lock();
        engine.peer_closed() || engine.check().is_err()
    }

    /// Whether the last receive has taken all input: the socket had no more, and nothing is buffered.
    pub(crate) fn is_drained(&self) -> bool {
        // Another thread is receiving, if the lock is held.
        let drained = self.incoming.try_lock().is_some_and(|incoming| incoming.is_drained());
        drained && !self.has_buffered_input()
    }
}
