//! Connected streams: `StreamSocket`, `makefile` and conversions.

pub(crate) mod buffer;
pub(crate) mod convert;
pub(crate) mod makefile;

use std::any::Any;
use std::io;
use std::time::Duration;

use crate::consts::Shutdown;
use crate::socket::Socket;
use crate::socket::linger::Lingered;
use crate::sys;

/// A connected stream: a plain [`Socket`], or a stream with TLS.
///
/// In Python code written for a `socket` also runs with an `SSLSocket`. Every method takes `&self`,
/// so one thread can receive while another sends.
pub trait StreamSocket: Send + Sync {
    /// Receives into `buffer` and returns the number of bytes, or 0 at the end of file.
    ///
    /// Python: `recv_into`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::recv`] does.
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends part or all of `data` and returns the number of bytes. Python: `send`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::send`] does.
    fn send(&self, data: &[u8]) -> io::Result<usize>;

    /// Shuts down sending, receiving, or both. Python: `shutdown`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::shutdown`] does.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// Returns the underlying socket, with its descriptor, timeouts, addresses and options.
    fn socket(&self) -> &Socket;

    /// Discards input until it is safe to close the stream, for at most `limit`.
    ///
    /// See [`Socket::linger_for`]. Dropping the stream afterwards does not wait again.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::linger_for`] does.
    fn linger_for(&self, limit: Duration) -> io::Result<Lingered> {
        self.socket().linger_for(limit)
    }

    /// Limits the time that [`shutdown`](Self::shutdown) and drop may take together.
    ///
    /// The limit starts now and replaces the socket's timeout. A server calls this method with its
    /// `linger_timeout` when a handler is done. The default does nothing.
    ///
    /// A wrapper around another stream must forward this call.
    fn set_close_timeout(&self, timeout: Duration) {
        let _ = timeout;
    }

    /// Marks the stream as failed, because not all data was sent.
    ///
    /// If the protocol has a message for an orderly end, such as the close_notify of TLS, it is not
    /// sent any more, so that the peer detects the truncation. The default does nothing.
    ///
    /// A wrapper around another stream must forward this call.
    fn abort(&self) {}

    /// Returns the number of bytes that can be read without receiving from the socket.
    ///
    /// Check this before polling the socket for readability. A plain socket returns 0. Python:
    /// `SSLSocket.pending`.
    fn pending(&self) -> usize {
        0
    }

    /// Returns whether a receive returns immediately although the socket may have no input.
    ///
    /// That is the case if bytes are [`pending`](Self::pending), or if the end or a failure of the
    /// stream was received after them. The default returns whether bytes are pending.
    ///
    /// A wrapper around another stream must forward this call.
    fn has_buffered_input(&self) -> bool {
        self.pending() > 0
    }

    /// Sends data that earlier calls have accepted but not sent yet.
    ///
    /// That is encrypted TLS records that did not fit into the send queue. The default does nothing.
    ///
    /// A wrapper around another stream must forward this call.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::send`] does. `Ok` means that all data has been sent.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Returns the stream as [`Any`], for types that can be downcast, such as
    /// `SSLSocket::of(stream)`.
    ///
    /// Python: `isinstance`.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }

    /// Receives up to `bufsize` bytes. Python: `recv`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::recv`] does.
    fn recv(&self, bufsize: usize) -> io::Result<Vec<u8>> {
        let mut buffer = sys::zeroes(bufsize)?;
        let received = self.recv_into(&mut buffer)?;
        buffer.truncate(received);
        Ok(buffer)
    }

    /// Sends all of `data`. Python: `sendall`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::sendall`] does.
    fn sendall(&self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let sent = self.send(rest)?;
            rest = &rest[sent..];
        }
        Ok(())
    }
}

impl StreamSocket for Socket {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Socket::recv_into(self, buffer)
    }

    fn send(&self, data: &[u8]) -> io::Result<usize> {
        Socket::send(self, data)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        Socket::shutdown(self, how)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    fn socket(&self) -> &Socket {
        self
    }

    fn recv(&self, bufsize: usize) -> io::Result<Vec<u8>> {
        Socket::recv(self, bufsize)
    }

    fn sendall(&self, data: &[u8]) -> io::Result<()> {
        Socket::sendall(self, data)
    }
}
