//! `Socket`: its life from `socket(2)` to `close(2)`, its descriptor and its mode.

// rustdoc shows the methods of `Socket` in the order of these modules.
mod listen;

pub(crate) mod connect;

pub(crate) mod send_recv;

pub(crate) mod sendfile;

#[cfg(unix)]
pub(crate) mod message;

mod mode;

mod option_value;
pub(crate) mod options;

pub(crate) mod addr;

pub(crate) mod descriptor;

mod blocking;
mod hints;
#[cfg(target_os = "linux")]
mod holder;
pub(crate) mod linger;
#[cfg(target_os = "linux")]
pub(crate) mod meminfo;
mod multicast;
mod queue;
pub(crate) mod tcp_info;
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
mod tcp_layout;
pub(crate) mod tcp_state;
#[cfg(windows)]
mod windows;

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::address::Address;
use crate::call::cancel::Cancellation;
use crate::call::deadline::{self, Deadline, Readiness};
use crate::call::timeout::Timeout;
use crate::consts::{AddressFamily, SocketKind};
use crate::sys::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A socket: a BSD descriptor with Python's methods.
///
/// Python: `socket.socket`. Every method takes `&self`, so threads can share a socket: one can send
/// while another receives.
///
/// The life of a socket:
///
/// 1. It is created by [`new`](Socket::new), by [`accept`](Socket::accept) of a listener, or by
///    [`socketpair`](crate::socketpair), [`create_connection`](crate::create_connection) or
///    [`create_server`](crate::create_server).
/// 2. A server calls [`bind`](Socket::bind), [`listen`](Socket::listen) and
///    [`accept`](Socket::accept). A client calls [`connect`](Socket::connect).
/// 3. Both sides call [`send`](Socket::send), [`recv`](Socket::recv) and related methods.
/// 4. [`shutdown`](Socket::shutdown) sends the end of file to the peer.
/// 5. [`close`](Socket::close) or dropping the socket closes the descriptor.
///    [`detach`](Socket::detach) returns it without closing it.
///
/// Using a socket after `close` does not compile. Python fails with `EBADF`.
///
/// Child programs do not inherit descriptors created by this crate (PEP 446).
/// [`set_inheritable`](Socket::set_inheritable) changes that.
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, SOCK_STREAM, Socket};
///
/// let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
/// server.bind(("127.0.0.1", 0))?;
/// server.listen(1)?;
///
/// let client = Socket::new(AF_INET, SOCK_STREAM, 0)?;
/// client.connect(server.getsockname()?)?;
/// client.sendall(b"hello")?;
///
/// let (connection, address) = server.accept()?;
/// assert_eq!(connection.recv(1024)?, b"hello");
/// assert_eq!(address, client.getsockname()?);
/// # std::io::Result::Ok(())
/// ```
pub struct Socket {
    /// `None` only while the socket is being dropped or detached.
    inner: Option<socket2::Socket>,
    family: AddressFamily,
    kind: SocketKind,
    proto: i32,
    timeout: Timeout,
    cancellation: OnceLock<Arc<Cancellation>>,
}

/// Bit of [`Socket::kind`] for a socket that carries TLS. It is in no type of any system.
const ENCRYPTED: SocketKind = SocketKind::from_raw_bits(1 << 30);

impl Socket {
    /// Sets whether the socket carries TLS, which makes [`dup`](Socket::dup) fail. For `sockssl`.
    #[doc(hidden)]
    pub fn set_encrypted(&mut self, encrypted: bool) {
        self.kind = if encrypted { self.kind | ENCRYPTED } else { self.kind() };
    }

    /// Creates a socket from a new descriptor, in the default mode.
    pub(crate) fn adopt(
        inner: socket2::Socket,
        family: AddressFamily,
        kind: SocketKind,
        proto: i32,
    ) -> io::Result<Socket> {
        let sock = Socket::from_inner(inner, family, kind, proto);
        sock.apply_default_timeout(kind)?;
        Ok(sock)
    }

    fn from_inner(inner: socket2::Socket, family: AddressFamily, kind: SocketKind, proto: i32) -> Socket {
        Socket {
            inner: Some(inner),
            family,
            kind: kind.without_flags(),
            proto,
            timeout: Timeout::blocking(),
            cancellation: OnceLock::new(),
        }
    }

    fn apply_default_timeout(&self, kind: SocketKind) -> io::Result<()> {
        if kind.is_nonblocking() {
            self.timeout.set(Some(Duration::ZERO))
        } else if let Some(timeout) = deadline::getdefaulttimeout() {
            self.settimeout(timeout)
        } else {
            Ok(())
        }
    }

    pub(crate) fn inner(&self) -> &socket2::Socket {
        self.inner.as_ref().expect("only drop and detach take the descriptor")
    }

    /// Returns the address family. Python: the attribute `family`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET6, SOCK_STREAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET6, SOCK_STREAM, 0)?;
    /// assert_eq!(sock.family(), AF_INET6);
    /// assert_eq!(sock.family().to_string(), "AF_INET6");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn family(&self) -> AddressFamily {
        self.family
    }

    /// Returns the socket type without flags such as `SOCK_NONBLOCK`. Python: the attribute `type`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use sock::{AF_INET, SOCK_NONBLOCK, SOCK_STREAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)?;
    /// assert_eq!(sock.kind(), SOCK_STREAM);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn kind(&self) -> SocketKind {
        self.kind.without(ENCRYPTED)
    }

    /// Returns the protocol number. Python: the attribute `proto`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, IPPROTO_TCP, SOCK_STREAM, Socket};
    ///
    /// assert_eq!(Socket::new(AF_INET, SOCK_STREAM, IPPROTO_TCP)?.proto(), IPPROTO_TCP);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn proto(&self) -> i32 {
        self.proto
    }

    /// Returns a deadline with another timeout than that of the socket.
    #[inline]
    pub(crate) fn deadline_of(&self, timeout: Option<Duration>) -> Deadline<'_> {
        Deadline::new(timeout).with_cancellation(self.cancellation())
    }

    /// Calls `attempt` as the mode requires, with a deadline of its own.
    #[inline]
    pub(crate) fn retry<T>(
        &self,
        readiness: Readiness,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        match attempt() {
            Ok(value) => Ok(value),
            Err(error) => self.retry_after(error, readiness, attempt),
        }
    }

    #[cold]
    fn retry_after<T>(
        &self,
        error: io::Error,
        readiness: Readiness,
        attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        deadline::retry_after(error, self.as_fd(), readiness, &mut self.deadline(), attempt)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = self.close_now();
    }
}

/// Python's `repr`: `<socket fd=3, family=AF_INET, type=SOCK_STREAM, proto=0, laddr=…, raddr=…>`.
impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(inner) = &self.inner else {
            return f.write_str("<socket [closed]>");
        };
        let Socket { family, proto, .. } = self;
        let kind = self.kind();
        write!(f, "<socket fd={}, family={family}, type={kind}, proto={proto}", inner.as_raw_fd())?;
        if let Ok(address) = inner.local_addr() {
            write!(f, ", laddr={}", Address::from_sys(&address))?;
        }
        if let Ok(address) = inner.peer_addr() {
            write!(f, ", raddr={}", Address::from_sys(&address))?;
        }
        f.write_str(">")
    }
}

sys::descriptor_traits!(Socket, detach, from_descriptor);
