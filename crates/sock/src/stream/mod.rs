//! Connected streams: `StreamSocket`, `makefile` and conversions.

pub(crate) mod buffer;
pub(crate) mod convert;
pub(crate) mod lines;
pub(crate) mod makefile;

use std::any::Any;
use std::io;
use std::time::Duration;

use crate::address::Address;
use crate::call::to_timeout::ToTimeout;
use crate::consts::{MsgFlags, Shutdown};
use crate::socket::Socket;
use crate::socket::linger::Lingered;
use crate::socket::options::ToOption;
use crate::sys::{self, AsFd, BorrowedFd, RawFd};

/// A connected stream: a plain [`Socket`], or a stream with TLS.
///
/// In Python code written for a `socket` also runs with an `SSLSocket`. Every method takes `&self`,
/// so one thread can receive while another sends.
///
/// # Examples
///
/// A function for plain and encrypted connections:
///
/// ```
/// use sock::StreamSocket;
///
/// fn greet(stream: &dyn StreamSocket) -> std::io::Result<()> {
///     stream.sendall(b"hello\n")
/// }
///
/// let (ours, theirs) = sock::socketpair()?;
/// greet(&ours)?;
/// assert_eq!(theirs.recv(100)?, b"hello\n");
/// # std::io::Result::Ok(())
/// ```
pub trait StreamSocket: Send + Sync {
    /// Receives into `buffer` and returns the number of bytes, or 0 at the end of file.
    ///
    /// Python: `recv_into`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::recv`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// let stream: &dyn StreamSocket = &ours;
    /// let mut buffer = [0; 100];
    /// assert_eq!(stream.recv_into(&mut buffer)?, 5);
    /// # std::io::Result::Ok(())
    /// ```
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Receives available bytes into `buffer` without waiting, in every mode.
    ///
    /// See [`Socket::recv_into_nowait`]. With a plain socket, over TLS and in a handler of `sockserver`
    /// it is one system call in every mode. The default is a [`recv_into`](Self::recv_into) on a
    /// socket that is non-blocking meanwhile. That costs no further call if the socket has a timeout or
    /// is non-blocking, and four calls of fcntl(2) if it is in blocking mode, since the default does not
    /// know how `recv_into` receives. A stream that receives from its socket should use
    /// `socket().recv_into_nowait`.
    ///
    /// A wrapper around another stream must forward this call.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `WouldBlock` if no bytes are available, or an error of
    /// [`recv_into`](Self::recv_into).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use sock::StreamSocket;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// let error = stream.recv_into_nowait(&mut [0; 100]).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    fn recv_into_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.has_buffered_input() {
            return self.recv_into(buffer);
        }
        self.socket().with_timeout(Duration::ZERO, || self.recv_into(buffer))
    }

    /// Sends part or all of `data` and returns the number of bytes. Python: `send`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::send`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// let count = stream.send(b"hello")?;
    /// assert_eq!(theirs.recv(100)?, b"hello"[..count]);
    /// # std::io::Result::Ok(())
    /// ```
    fn send(&self, data: &[u8]) -> io::Result<usize>;

    /// Shuts down sending, receiving, or both. Python: `shutdown`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::shutdown`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{SHUT_WR, StreamSocket};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// stream.shutdown(SHUT_WR)?;
    /// assert_eq!(theirs.recv(100)?, b"");
    /// # std::io::Result::Ok(())
    /// ```
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    /// Returns the underlying socket, with its descriptor, timeouts, addresses and options.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{SOCK_STREAM, StreamSocket};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// assert_eq!(stream.socket().kind(), SOCK_STREAM);
    /// # std::io::Result::Ok(())
    /// ```
    fn socket(&self) -> &Socket;

    /// Discards input until it is safe to close the stream, for at most `limit`.
    ///
    /// See [`Socket::linger_for`]. Dropping the stream afterwards does not wait again.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::linger_for`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::{Lingered, StreamSocket};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"not read")?;
    /// drop(theirs);
    /// let stream: &dyn StreamSocket = &ours;
    /// let ended = stream.linger_for(Duration::from_secs(2))?;
    /// assert!(matches!(ended, Lingered::PeerClosed | Lingered::Acknowledged { .. }));
    /// # std::io::Result::Ok(())
    /// ```
    fn linger_for(&self, limit: Duration) -> io::Result<Lingered> {
        self.socket().linger_for(limit)
    }

    /// Limits the time that [`shutdown`](Self::shutdown) and drop may take together.
    ///
    /// The limit starts now and replaces the socket's timeout. A server calls this method with its
    /// `linger_timeout` when a handler is done. The default does nothing.
    ///
    /// A wrapper around another stream must forward this call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::{SHUT_WR, StreamSocket};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let stream: Box<dyn StreamSocket> = Box::new(ours);
    /// stream.set_close_timeout(Duration::from_secs(2));
    /// stream.shutdown(SHUT_WR)?;
    /// drop(stream);
    /// assert_eq!(theirs.recv(100)?, b"");
    /// # std::io::Result::Ok(())
    /// ```
    fn set_close_timeout(&self, timeout: Duration) {
        let _ = timeout;
    }

    /// Marks the stream as failed, because not all data was sent.
    ///
    /// If the protocol has a message for an orderly end, such as the close_notify of TLS, it is not
    /// sent any more, so that the peer detects the truncation. The default does nothing.
    ///
    /// A wrapper around another stream must forward this call.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// /// Sends an answer. If that fails, the client must not take it for a complete one.
    /// fn answer(stream: &dyn StreamSocket, data: &[u8]) -> std::io::Result<()> {
    ///     stream.sendall(data).inspect_err(|_| stream.abort())
    /// }
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// answer(&ours, b"hello")?;
    /// assert_eq!(theirs.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    fn abort(&self) {}

    /// Returns the number of bytes that can be read without receiving from the socket.
    ///
    /// Check this before polling the socket for readability. A plain socket returns 0. Python:
    /// `SSLSocket.pending`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// let stream: &dyn StreamSocket = &ours;
    /// assert_eq!(stream.pending(), 0, "a plain socket has no buffer");
    /// # std::io::Result::Ok(())
    /// ```
    fn pending(&self) -> usize {
        0
    }

    /// Returns whether a receive returns immediately although the socket may have no input.
    ///
    /// That is the case if bytes are [`pending`](Self::pending), or if the end or a failure of the
    /// stream was received after them. The default returns whether bytes are pending.
    ///
    /// A wrapper around another stream must forward this call.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// let stream: &dyn StreamSocket = &ours;
    /// assert!(!stream.has_buffered_input(), "a plain socket has no buffer");
    /// # std::io::Result::Ok(())
    /// ```
    fn has_buffered_input(&self) -> bool {
        self.pending() > 0
    }

    /// Returns whether the last receive has taken all input of the stream and of its socket.
    ///
    /// An event loop then waits for the socket without another receive, which would find nothing. The
    /// default returns false, which means that it is not known.
    ///
    /// A wrapper around another stream should forward this call.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// assert!(!stream.is_drained(), "a plain socket does not record it");
    /// # std::io::Result::Ok(())
    /// ```
    fn is_drained(&self) -> bool {
        false
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
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// stream.send(b"hello")?;
    /// stream.flush()?;
    /// assert_eq!(theirs.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Returns the stream as [`Any`], for types that can be downcast, such as
    /// `SSLSocket::of(stream)`.
    ///
    /// Python: `isinstance`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Socket, StreamSocket};
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// let is_plain = stream.as_any().is_some_and(|any| any.is::<Socket>());
    /// assert!(is_plain);                                           // isinstance(sock, socket.socket)
    /// # std::io::Result::Ok(())
    /// ```
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }

    /// Receives up to `bufsize` bytes. Python: `recv`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::recv`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// let stream: &dyn StreamSocket = &ours;
    /// assert_eq!(stream.recv(1024)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// stream.sendall(b"hello")?;
    /// assert_eq!(theirs.recv(1024)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    fn sendall(&self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let sent = self.send(rest)?;
            rest = &rest[sent..];
        }
        Ok(())
    }
}

/// The methods of [`Socket`] that Python code calls on `self.request`. They are those of the
/// underlying socket.
impl dyn StreamSocket + '_ {
    /// Sets the timeout of the calls on this stream. Python: `settimeout`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::settimeout`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// stream.settimeout(2.5)?;
    /// assert_eq!(stream.gettimeout(), Some(std::time::Duration::from_millis(2500)));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn settimeout(&self, timeout: impl ToTimeout) -> io::Result<()> {
        self.socket().settimeout(timeout)
    }

    /// Returns the timeout of the calls on this stream. Python: `gettimeout`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// assert_eq!(stream.gettimeout(), None);                       // sock.gettimeout()
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn gettimeout(&self) -> Option<Duration> {
        self.socket().gettimeout()
    }

    /// Returns the address of the peer. Python: `getpeername`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::getpeername`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let stream: &dyn StreamSocket = &client;
    /// assert_eq!(stream.getpeername()?, server.getsockname()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn getpeername(&self) -> io::Result<Address> {
        self.socket().getpeername()
    }

    /// Returns the local address. Python: `getsockname`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::getsockname`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let stream: &dyn StreamSocket = &client;
    /// assert_eq!(stream.getsockname()?, server.accept()?.1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn getsockname(&self) -> io::Result<Address> {
        self.socket().getsockname()
    }

    /// Returns the number of the descriptor. Python: `fileno`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::StreamSocket;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// assert_eq!(stream.fileno(), ours.fileno());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.socket().fileno()
    }

    /// Sets an option of the underlying socket. Python: `setsockopt`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Socket::setsockopt`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{POLLIN, Poll, SO_RCVBUF, SOL_SOCKET, StreamSocket};
    /// use std::time::Duration;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let stream: &dyn StreamSocket = &ours;
    /// stream.setsockopt(SOL_SOCKET, SO_RCVBUF, 10_000)?;
    /// assert_eq!(sock::poll(&mut [Poll::new(stream, POLLIN)], Some(Duration::ZERO))?, 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn setsockopt(&self, level: i32, option: i32, value: impl ToOption) -> io::Result<()> {
        self.socket().setsockopt(level, option, value)
    }
}

/// The descriptor of the underlying socket.
impl AsFd for dyn StreamSocket + '_ {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl StreamSocket for Socket {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Socket::recv_into(self, buffer)
    }

    fn recv_into_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Socket::recv_into_nowait(self, buffer)
    }

    #[inline]
    fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.send_part(data, MsgFlags::NONE)
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
