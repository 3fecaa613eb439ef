//! What a handler may do with its peer, whatever is underneath.

pub(crate) mod buffer;
pub(crate) mod convert;
pub(crate) mod makefile;

use std::any::Any;
use std::io;
use std::time::Duration;

use crate::consts::Shutdown;
use crate::socket::Socket;
use crate::socket::linger::Lingered;
use crate::stream::buffer::ReadBuffer;
use crate::sys;

/// A connected stream: a plain [`Socket`], or one with TLS on top.
///
/// Python duck-types this: code written for a `socket` runs over an
/// `SSLSocket`. Every method takes `&self`: one thread may receive while another
/// sends.
pub trait StreamSocket: Send + Sync {
    /// Receives into `buffer`; 0 is the end of file. Python: `recv_into`.
    ///
    /// # Errors
    ///
    /// Those of [`Socket::recv`].
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends some of `data` and returns how much. Python: `send`.
    ///
    /// # Errors
    ///
    /// Those of [`Socket::send`].
    fn send(&self, data: &[u8]) -> io::Result<usize>;

    /// Ends sending, receiving, or both. Python: `shutdown`.
    ///
    /// # Errors
    ///
    /// Those of [`Socket::shutdown`].
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// The socket underneath: descriptor, timeouts, names, options.
    fn socket(&self) -> &Socket;

    /// Discards input until it is safe to close the stream, for no longer than `limit`:
    /// see [`Socket::linger_for`]. Dropping the stream then does not wait once more.
    ///
    /// # Errors
    ///
    /// Those of [`Socket::linger_for`].
    fn linger_for(&self, limit: Duration) -> io::Result<Lingered> {
        self.socket().linger_for(limit)
    }

    /// Sets how long [`shutdown`](Self::shutdown) and dropping the stream may take together,
    /// from now on, in place of the socket's timeout. A server calls it when a handler is
    /// done, with its `linger_timeout`. By default nothing.
    ///
    /// A wrapper around another stream has to pass it on.
    fn set_close_timeout(&self, timeout: Duration) {
        let _ = timeout;
    }

    /// Marks the stream as failed: what was sent is not all there was to send. If the
    /// protocol has a way to end in order, such as the close_notify of TLS, it is not
    /// used any more, so that the peer sees that the stream was cut. By default nothing.
    ///
    /// A wrapper around another stream has to pass it on.
    fn abort(&self) {}

    /// Bytes that can be received although the socket underneath has none: who
    /// waits for input in poll(2) has to ask first. 0 for a plain socket. Python:
    /// `SSLSocket.pending`.
    fn pending(&self) -> usize {
        0
    }

    /// Whether a receive returns at once although the socket underneath may have no input: bytes
    /// are [`pending`](Self::pending), or the stream's end or failure was received with them. By
    /// default whether bytes are pending.
    ///
    /// A wrapper around another stream has to pass it on.
    fn has_buffered_input(&self) -> bool {
        self.pending() > 0
    }

    /// Receives into a reader's buffer that is empty, and is made with `size` bytes if it is
    /// none yet; nothing in it afterwards is the end of file. By default [`recv_into`](Self::recv_into); a stream that has received
    /// something ahead may give the buffer it is in, and take the reader's for it.
    ///
    /// # Errors
    ///
    /// Those of [`Socket::recv`].
    fn fill(&self, buffer: &mut ReadBuffer, size: usize) -> io::Result<()> {
        if buffer.size() != size {
            *buffer = ReadBuffer::new(size);
        }
        buffer.receive(|room| self.recv_into(room)).map(drop)
    }

    /// The stream as what it is, for types that let themselves be found behind
    /// the trait, such as `SSLSocket::of(stream)`. Python: `isinstance`.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }

    /// Receives up to `bufsize` bytes. Python: `recv`.
    ///
    /// # Errors
    ///
    /// Those of [`Socket::recv`].
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
    /// Those of [`Socket::sendall`].
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
