//! `Socket`: its life from `socket(2)` to `close(2)`, its descriptor and its mode.

pub(crate) mod addr;
#[cfg(unix)]
pub(crate) mod ancillary;
#[cfg(unix)]
pub(crate) mod batch;
pub(crate) mod blocking;
#[cfg(unix)]
pub(crate) mod cmsg;
pub(crate) mod connect;
#[cfg(unix)]
pub(crate) mod credentials;
pub(crate) mod descriptor;
pub(crate) mod from_fd;
pub(crate) mod linger;
#[cfg(target_os = "linux")]
pub(crate) mod meminfo;
#[cfg(unix)]
pub(crate) mod message;
pub(crate) mod multicast;
pub(crate) mod options;
pub(crate) mod queue;
pub(crate) mod send_recv;
pub(crate) mod sendfile;
pub(crate) mod tcp_info;
pub(crate) mod tcp_state;
#[cfg(windows)]
pub(crate) mod windows;

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::address::{Address, ToAddress};
use crate::call::cancel::{Cancellation, Canceller};
use crate::call::deadline::{self, Deadline, Readiness};
use crate::call::timeout::Timeout;
use crate::call::to_timeout::ToTimeout;
use crate::call::trace::call;
use crate::consts::{AddressFamily, SOMAXCONN, SocketKind};
use crate::socket::from_fd::{FromFdError, detect};
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

impl Socket {
    /// Creates a socket.
    ///
    /// Python: `socket.socket(family, type, proto)`. System call: socket(2). Python's defaults are
    /// `AF_INET, SOCK_STREAM, 0`. `SOCK_NONBLOCK` in `kind` sets the timeout to zero. Otherwise the
    /// timeout is [`getdefaulttimeout`](crate::getdefaulttimeout).
    ///
    /// # Errors
    ///
    /// Returns an error if the family or protocol is not supported (`EAFNOSUPPORT`,
    /// `EPROTONOSUPPORT`), if no descriptor is available (`EMFILE`, `ENFILE`), or if the process
    /// may not create a `SOCK_RAW` socket (`EPERM`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, IPPROTO_UDP, SOCK_DGRAM, SOCK_STREAM, Socket};
    ///
    /// let tcp = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// let udp = Socket::new(AF_INET, SOCK_DGRAM, IPPROTO_UDP)?;
    /// assert_ne!(tcp.fileno(), udp.fileno());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new(family: AddressFamily, kind: SocketKind, proto: i32) -> io::Result<Socket> {
        let protocol = (proto != 0).then(|| proto.into());
        let inner = call!("socket({family}, {kind}, {proto})" =>
            socket2::Socket::new(family.as_raw().into(), kind.as_raw().into(), protocol))?;
        Socket::adopt(inner, family, kind, proto)
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

    /// Creates a socket from a descriptor.
    ///
    /// Arguments that are `None` are queried from the system. Other arguments are not checked.
    ///
    /// Python: `socket.socket(family, type, proto, fileno=fd)`. System calls: getsockname(2),
    /// getsockopt(2) with `SO_TYPE` and `SO_PROTOCOL`.
    ///
    /// # Errors
    ///
    /// Returns an error if the descriptor is invalid (`EBADF`) or not a socket (`ENOTSOCK`). The
    /// error contains the descriptor; `?` closes it.
    ///
    /// # Platform notes
    ///
    /// As in Python, the timeout is the default timeout, even if the descriptor is already
    /// non-blocking.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{SOCK_STREAM, Socket};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let adopted = Socket::from_fd(ours.detach(), None, None, None)?;
    /// assert_eq!(adopted.kind(), SOCK_STREAM);
    /// adopted.sendall(b"the same socket")?;
    /// assert_eq!(theirs.recv(100)?, b"the same socket");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn from_fd(
        fd: OwnedFd,
        family: Option<AddressFamily>,
        kind: Option<SocketKind>,
        proto: Option<i32>,
    ) -> Result<Socket, FromFdError> {
        let inner = socket2::Socket::from(fd);
        match detect(&inner, family, kind, proto) {
            Ok((family, kind, proto)) => Socket::adopt_or_return(inner, family, kind, proto),
            Err(error) => Err(FromFdError { error, fd: inner.into() }),
        }
    }

    fn adopt_or_return(
        inner: socket2::Socket,
        family: AddressFamily,
        kind: SocketKind,
        proto: i32,
    ) -> Result<Socket, FromFdError> {
        let mut sock = Socket::from_inner(inner, family, kind, proto);
        match sock.apply_default_timeout(kind) {
            Ok(()) => Ok(sock),
            Err(error) => {
                let inner = sock.inner.take().expect("the descriptor is taken only here");
                Err(FromFdError { error, fd: inner.into() })
            }
        }
    }

    fn from_descriptor(fd: OwnedFd) -> io::Result<Socket> {
        Ok(Socket::from_fd(fd, None, None, None)?)
    }

    pub(crate) fn inner(&self) -> &socket2::Socket {
        self.inner.as_ref().expect("only drop and detach take the descriptor")
    }

    /// Binds the socket to a local address.
    ///
    /// Python: `bind(address)`. System call: bind(2), after a lookup if the address has a host
    /// name. Port 0 selects a free port: see [`getsockname`](Socket::getsockname).
    ///
    /// # Errors
    ///
    /// Returns an error if the address is in use (`AddrInUse`, `EADDRINUSE`), is not local
    /// (`AddrNotAvailable`) or needs a privilege (`PermissionDenied`, ports below 1024), if the
    /// socket is already bound (`EINVAL`), or if [`ToAddress`] fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?; // any free port
    /// assert_ne!(sock.getsockname()?.port(), Some(0));
    /// let taken = Socket::new(AF_INET, SOCK_DGRAM, 0)?.bind(sock.getsockname()?).unwrap_err();
    /// assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn bind(&self, address: impl ToAddress) -> io::Result<()> {
        let fd = self.fileno();
        let address = address.to_address(self.family)?;
        let sys = address.to_sys()?;
        call!("bind({fd}, {address})" => self.inner().bind(&sys))
    }

    /// Starts accepting connections.
    ///
    /// Python: `listen([backlog])`. System call: listen(2). `backlog` is the number of connections
    /// that may wait for `accept`. `None` is Python's default, the smaller of `SOMAXCONN` and 128.
    /// Negative values count as 0.
    ///
    /// # Errors
    ///
    /// Returns an error if another socket listens on the address (`EADDRINUSE`), or if the kind of
    /// socket cannot listen, such as `SOCK_DGRAM` (`EOPNOTSUPP`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_STREAM, Socket};
    ///
    /// let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// server.bind(("127.0.0.1", 0))?;
    /// server.listen(None)?; // or listen(5)
    /// # std::io::Result::Ok(())
    /// ```
    pub fn listen(&self, backlog: impl Into<Option<i32>>) -> io::Result<()> {
        let fd = self.fileno();
        let backlog = backlog.into().unwrap_or(SOMAXCONN.min(128)).max(0);
        call!("listen({fd}, {backlog})" => self.inner().listen(backlog))
    }

    /// Accepts a connection and returns its socket and the peer's address.
    ///
    /// Python: `accept()`. System call: accept4(2). The new socket does not inherit the listener's
    /// timeout. It is in the default mode, usually blocking.
    ///
    /// # Errors
    ///
    /// Returns an error if no connection arrives in time (`TimedOut`, `WouldBlock`), if the socket
    /// does not listen (`EINVAL`), if no descriptor is available (`EMFILE`, `ENFILE`), or if the
    /// new connection has failed (`ConnectionAborted` and, on Linux, its pending network errors). A
    /// server should ignore the errors of a new connection (accept(2)).
    ///
    /// # Examples
    ///
    /// ```
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let (connection, address) = server.accept()?;
    /// assert_eq!(address, client.getsockname()?);
    /// assert_eq!(connection.getpeername()?, address);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn accept(&self) -> io::Result<(Socket, Address)> {
        let fd = self.fileno();
        let (inner, address) =
            self.retry(Readiness::Readable, || call!("accept({fd})" => self.inner().accept()))?;
        if sys::ACCEPT_INHERITS_NONBLOCK && self.needs_o_nonblock() {
            inner.set_nonblocking(false)?;
        }
        let sock = Socket::adopt(inner, self.family, self.kind, self.proto)?;
        Ok((sock, Address::from_sys(&address)))
    }

    /// Closes the socket and returns the error of the system, if any.
    ///
    /// Python: `close()`. System call: close(2). Dropping a socket closes it and ignores errors.
    /// The readers and writers of [`makefile_rb`](Socket::makefile_rb) borrow the socket, so none
    /// of them is open when it is closed. Python waits for the last of them instead.
    ///
    /// # Errors
    ///
    /// Returns the errors of close(2), except `ECONNRESET`, which is ignored.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.close()?;
    /// assert_eq!(theirs.recv(1)?, b""); // end of file
    /// # std::io::Result::Ok(())
    /// ```
    pub fn close(mut self) -> io::Result<()> {
        self.close_now()
    }

    fn close_now(&mut self) -> io::Result<()> {
        let Some(inner) = self.inner.take() else {
            return Ok(());
        };
        descriptor::close(inner.into())
    }

    /// Returns the descriptor without closing it.
    ///
    /// Python: `detach()`. No system call.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{OwnedFd, Socket};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let fd: OwnedFd = ours.detach();
    /// Socket::try_from(fd)?.sendall(b"still open")?;
    /// assert_eq!(theirs.recv(100)?, b"still open");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use = "the descriptor is closed when this is dropped"]
    pub fn detach(mut self) -> OwnedFd {
        self.inner.take().expect("only drop and detach take the descriptor").into()
    }

    /// Duplicates the descriptor.
    ///
    /// The new socket has the same timeout and, if there is one, the same
    /// [`canceller`](Socket::canceller).
    ///
    /// Python: `dup()`. System call: fcntl(2) with `F_DUPFD_CLOEXEC`.
    ///
    /// # Platform notes
    ///
    /// The blocking mode belongs to the socket, not to the descriptor. After `settimeout` or
    /// `canceller` on one of the two, the other is non-blocking as well, although its own timeout
    /// has not changed (as in Python).
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is available (`EMFILE`).
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// let duplicate = ours.dup()?;
    /// assert_ne!(duplicate.fileno(), ours.fileno());
    /// drop(ours);
    /// duplicate.sendall(b"still open")?;
    /// assert_eq!(theirs.recv(100)?, b"still open");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn dup(&self) -> io::Result<Socket> {
        let fd = self.fileno();
        let inner = call!("fcntl({fd}, F_DUPFD_CLOEXEC)" => self.inner().try_clone())?;
        let duplicate = Socket::from_inner(inner, self.family, self.kind, self.proto);
        duplicate.timeout.copy_from(&self.timeout);
        // The duplicate is non-blocking too, so its calls have to wait in poll(2).
        if let Some(cancellation) = self.cancellation.get() {
            let _ = duplicate.cancellation.set(Arc::clone(cancellation));
        }
        Ok(duplicate)
    }

    /// Returns the number of the descriptor.
    ///
    /// Python: `fileno()`. No system call.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// assert_ne!(ours.fileno(), theirs.fileno());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.inner().as_raw_fd()
    }

    /// Sets the mode.
    ///
    /// `None` is blocking mode, zero is non-blocking mode, and any other value is the longest time
    /// that a call may take.
    ///
    /// Python: `settimeout(value)`. System call: fcntl(2), which makes the descriptor non-blocking
    /// unless the timeout is `None`. The timeout applies to each call as a whole, including connect
    /// and accept.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if the timeout is longer than 584 years.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// ours.settimeout(Duration::from_millis(10))?;
    /// let error = ours.recv(1).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    /// ours.settimeout(None)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn settimeout(&self, timeout: impl ToTimeout) -> io::Result<()> {
        let timeout = timeout.to_timeout()?;
        let fd = self.fileno();
        let before = Timeout::blocking();
        before.copy_from(&self.timeout);
        self.timeout.set(timeout)?;
        let nonblocking = self.needs_o_nonblock();
        call!("fcntl({fd}, F_SETFL, O_NONBLOCK: {nonblocking})" => self.inner().set_nonblocking(nonblocking))
            .inspect_err(|_| self.timeout.copy_from(&before))
    }

    /// Returns the timeout: `None` in blocking mode, zero in non-blocking mode.
    ///
    /// Python: `gettimeout()`. No system call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// assert_eq!(ours.gettimeout(), None);
    /// ours.settimeout(Duration::from_secs(3))?;
    /// assert_eq!(ours.gettimeout(), Some(Duration::from_secs(3)));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn gettimeout(&self) -> Option<Duration> {
        self.timeout.get()
    }

    /// Sets blocking or non-blocking mode, as `settimeout(None)` or `settimeout(0)`.
    ///
    /// Python: `setblocking(flag)`. System call: fcntl(2).
    ///
    /// # Errors
    ///
    /// Returns an error if fcntl(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, _theirs) = sock::socketpair()?;
    /// ours.setblocking(false)?;
    /// assert_eq!(ours.recv(1).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn setblocking(&self, blocking: bool) -> io::Result<()> {
        self.settimeout(if blocking { None } else { Some(Duration::ZERO) })
    }

    /// Returns whether calls may wait, which is true in blocking mode and with a timeout.
    ///
    /// Python: `getblocking()`. No system call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// ours.settimeout(Duration::from_secs(3))?;
    /// assert!(ours.getblocking()); // up to three seconds
    /// ours.setblocking(false)?;
    /// assert!(!ours.getblocking());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn getblocking(&self) -> bool {
        self.gettimeout() != Some(Duration::ZERO)
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
        self.kind
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

    /// Returns a handle that cancels this socket's waits from another thread.
    ///
    /// Python: none. System calls: socketpair(2) and fcntl(2), the first time. From then on the
    /// descriptor is non-blocking in every mode, and calls wait in poll(2) for the socket and for
    /// [`Canceller::cancel`]. A call that is already blocked when `canceller` is called cannot be
    /// cancelled.
    ///
    /// Until it is cancelled, every call behaves as on a blocking socket. `MSG_DONTWAIT` and
    /// `MSG_ERRQUEUE` do not wait, `MSG_WAITALL` fills the buffer, a send on a stream sends all
    /// bytes, `SO_RCVTIMEO` and `SO_SNDTIMEO` end a wait, and `SO_RCVLOWAT` is respected if it was
    /// set before or with [`setsockopt`](Socket::setsockopt). If such a send or receive is
    /// cancelled midway, it returns the number of bytes transferred so far, and the next call
    /// fails.
    ///
    /// # Platform notes
    ///
    /// poll(2) does not report when an `AF_UNIX` listener or datagram socket has room in its queue
    /// again, nor when enough data for `MSG_PEEK | MSG_WAITALL` has arrived. In these cases the
    /// call is retried after 1 to 16 ms. A `sendfile` whose peer resets the connection fails with
    /// `ConnectionReset`. On a blocking socket Linux loses that error and returns `EPIPE`.
    ///
    /// # Errors
    ///
    /// Returns an error if no descriptor is available (`EMFILE`).
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let canceller = ours.canceller()?;
    /// let waiting = std::thread::spawn(move || ours.recv(100));
    /// canceller.cancel();
    /// assert!(sock::was_cancelled(&waiting.join().unwrap().unwrap_err()));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn canceller(&self) -> io::Result<Canceller> {
        if self.cancellation.get().is_none() {
            let cancellation = Arc::new(Cancellation::new(sys::low_water(self.as_fd()))?);
            // Another thread may have set it first. Then its value is used.
            let _ = self.cancellation.set(cancellation);
            let fd = self.fileno();
            call!("fcntl({fd}, F_SETFL, O_NONBLOCK: true)" => self.inner().set_nonblocking(true))?;
        }
        let cancellation = self.cancellation.get().expect("set above");
        Ok(Canceller(Arc::clone(cancellation)))
    }

    #[inline]
    pub(crate) fn cancellation(&self) -> Option<&Cancellation> {
        self.cancellation.get().map(Arc::as_ref)
    }

    /// Returns whether the descriptor must be non-blocking.
    fn needs_o_nonblock(&self) -> bool {
        self.gettimeout().is_some() || self.cancellation.get().is_some()
    }

    /// Returns a deadline with the timeout of this socket.
    ///
    /// Several calls can share it, through [`recv_into_within`](Socket::recv_into_within) and
    /// [`send_within`](Socket::send_within). No system call.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.settimeout(Duration::from_secs(5))?;
    /// let mut deadline = ours.deadline(); // five seconds for the whole exchange
    /// ours.send_within(b"question", &mut deadline)?;
    /// theirs.sendall(b"answer")?;
    /// ours.recv_into_within(&mut [0; 100], &mut deadline)?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    #[inline]
    pub fn deadline(&self) -> Deadline<'_> {
        self.deadline_of(self.gettimeout())
    }

    /// [`deadline`](Self::deadline) with another timeout.
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
        let Socket { family, kind, proto, .. } = self;
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
