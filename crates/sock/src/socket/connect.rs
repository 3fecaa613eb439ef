//! Connecting a socket, and shutting a connection down.

use std::fmt;
use std::io;

use crate::address::{Address, ToAddress};
use crate::call::cancel;
use crate::call::deadline::{self, Deadline, Readiness};
use crate::call::hint;
use crate::call::trace::call;
use crate::consts::{AF_UNIX, MsgFlags, Shutdown};
use crate::error::errno_name;
use crate::socket::Socket;
use crate::sys::{self, AsFd, c};

/// Connecting and shutting down.
impl Socket {
    /// Connects the socket to a peer.
    ///
    /// Python: `connect(address)`. System call: connect(2). With a timeout, and after a signal, it
    /// waits in poll(2) and reads the result from `SO_ERROR`, because connect(2) must not be called
    /// twice. On a datagram socket, connect only sets the peer address for sending and the filter
    /// for receiving.
    ///
    /// # Platform notes
    ///
    /// On Linux a connect to an `AF_UNIX` listener whose queue is full waits for room only if there
    /// is no timeout. With a timeout it fails at once with `WouldBlock` (`EAGAIN`), as in Python,
    /// because the kernel cannot report when there is room (unix(7)). A server with a longer queue
    /// ([`listen`](Socket::listen)) avoids this, or the caller tries again.
    ///
    /// # Errors
    ///
    /// Returns an error if the peer refuses (`ConnectionRefused`), if the network is unreachable
    /// (`NetworkUnreachable`), if the network gives up (`TimedOut` with `ETIMEDOUT`), if the
    /// socket's timeout expires (`TimedOut` without an errno), if a non-blocking socket is still
    /// connecting (`EINPROGRESS`), or if [`ToAddress`] fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_STREAM, Socket};
    /// use std::time::Duration;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// client.settimeout(Duration::from_secs(5))?;
    /// client.connect(("localhost", server.getsockname()?.port().unwrap()))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn connect(&self, address: impl ToAddress) -> io::Result<()> {
        let address = address.to_address(self.family())?;
        self.connect_within(&address, &mut self.deadline())
    }

    pub(crate) fn connect_within(&self, address: &Address, deadline: &mut Deadline<'_>) -> io::Result<()> {
        let fd = self.fileno();
        let sys = address.to_sys()?;
        let blocks = deadline.emulates_blocking();
        let family = self.family().as_raw();
        let mut is_reported = false;
        let error = loop {
            match call!("connect({fd}, {address})" => self.inner().connect(&sys)) {
                Ok(()) => return Ok(()),
                Err(error) if blocks && sys::queue_is_full(family, &error) => {
                    if !std::mem::replace(&mut is_reported, true) && hint::enabled() {
                        self.hint_unix_connect(address, &error);
                    }
                    match deadline.pause(self.as_fd(), Readiness::Writable) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                            cancel::check_interrupt_hook()?
                        }
                        result => result?,
                    }
                }
                Err(error)
                    if error.raw_os_error() == Some(c::EINTR)
                        && self.getblocking()
                        && sys::connect_restarts(family) =>
                {
                    cancel::check_interrupt_hook()?;
                    deadline.remaining_wait(self.as_fd(), Readiness::Writable)?;
                }
                Err(error) => break error,
            }
        };
        match error.raw_os_error() {
            Some(sys::CONNECT_IN_PROGRESS) if deadline.must_wait() => {}
            // The result of an earlier connect, for which a blocking connect waits.
            Some(c::EALREADY) if blocks => {}
            Some(c::EINTR) if self.getblocking() => cancel::check_interrupt_hook()?,
            _ => {
                if self.family() == AF_UNIX && hint::enabled() {
                    self.hint_unix_connect(address, &error);
                }
                return Err(error);
            }
        }
        self.await_connection(error, deadline)
    }

    /// Waits for a connect in progress, started with `error`, and fails as connect(2) fails.
    fn await_connection(&self, error: io::Error, deadline: &mut Deadline<'_>) -> io::Result<()> {
        if let Err(over) = deadline::wait(self.as_fd(), Readiness::Writable, deadline) {
            // At the end of SO_SNDTIMEO, connect(2) returns EINPROGRESS.
            return Err(match (over.raw_os_error(), error.raw_os_error()) {
                (Some(c::EAGAIN), Some(c::EINTR)) => io::Error::from_raw_os_error(sys::CONNECT_IN_PROGRESS),
                (Some(c::EAGAIN), _) => error,
                _ => over,
            });
        }
        self.pending_error()?.map_or(Ok(()), Err)
    }

    /// Handles a send with `MSG_FASTOPEN` that failed because the connection is in progress. Waits
    /// where a blocking call would wait, and returns whether to send again.
    pub(crate) fn await_fastopen(&self, sent: &io::Result<usize>, flags: MsgFlags) -> io::Result<bool> {
        let opens =
            sent.as_ref().is_err_and(Self::connect_in_progress) && flags.as_raw() & sys::FASTOPEN != 0;
        let mut deadline = self.deadline_with_flags(Readiness::Writable, flags);
        if !opens || !deadline.emulates_blocking() {
            return Ok(false);
        }
        let error = io::Error::from_raw_os_error(sys::CONNECT_IN_PROGRESS);
        self.await_connection(error, &mut deadline).map(|()| true)
    }

    /// Returns whether a non-blocking connect is still in progress.
    pub(crate) fn connect_in_progress(error: &io::Error) -> bool {
        error.raw_os_error() == Some(sys::CONNECT_IN_PROGRESS)
    }

    /// Returns the result of a connect in progress, or `None` if it succeeded.
    pub(crate) fn pending_error(&self) -> io::Result<Option<io::Error>> {
        let fd = self.fileno();
        let pending =
            call!("getsockopt({fd}, SOL_SOCKET, SO_ERROR)" => self.inner().take_error().map(PendingConnect))?.0;
        Ok(pending.filter(|error| error.raw_os_error() != Some(c::EISCONN)))
    }

    /// Connects like [`connect`](Socket::connect), but returns the errno, or 0 for success.
    ///
    /// Python: `connect_ex(address)`. System call: connect(2). A non-blocking socket returns
    /// `EINPROGRESS` first, then 0, then `EISCONN`. At the end of a timeout it returns `EAGAIN`, as
    /// in Python.
    ///
    /// # Errors
    ///
    /// Returns an error only for failures before connect(2), such as a name that does not resolve
    /// or an invalid argument.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, POLLOUT, Poll, SOCK_STREAM, Socket};
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// client.setblocking(false)?;
    /// match client.connect_ex(server.getsockname()?)? {
    ///     0 => {}
    ///     number => assert_eq!(sock::errno_name(number), Some("EINPROGRESS")),
    /// }
    /// sock::poll(&mut [Poll::new(&client, POLLOUT)], None)?;
    /// assert_eq!(client.getpeername()?, server.getsockname()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn connect_ex(&self, address: impl ToAddress) -> io::Result<i32> {
        let address = address.to_address(self.family())?;
        match self.connect_within(&address, &mut self.deadline()) {
            Ok(()) => Ok(0),
            // Only the system's own errno: an argument error also has an errno as its source.
            Err(error) => match error.raw_os_error() {
                Some(number) => Ok(number),
                None if error.kind() == io::ErrorKind::TimedOut => Ok(c::EAGAIN),
                None => Err(error),
            },
        }
    }

    /// Shuts down receiving, sending or both, without closing.
    ///
    /// Python: `shutdown(how)`. System call: shutdown(2). `SHUT_WR` sends the buffered data and
    /// then the end of file. `SHUT_RD` ends a blocked receive in another thread.
    ///
    /// # Errors
    ///
    /// Returns an error if the socket is not connected (`NotConnected`, `ENOTCONN`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::SHUT_WR;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.sendall(b"question")?;
    /// ours.shutdown(SHUT_WR)?; // no more to send; the answer can still be received
    /// assert_eq!(theirs.recv(100)?, b"question");
    /// assert_eq!(theirs.recv(100)?, b"");
    /// theirs.sendall(b"answer")?;
    /// assert_eq!(ours.recv(100)?, b"answer");
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let fd = self.fileno();
        let name = match how {
            Shutdown::Read => "SHUT_RD",
            Shutdown::Write => "SHUT_WR",
            Shutdown::Both => "SHUT_RDWR",
        };
        call!("shutdown({fd}, {name})" => sys::shutdown(self.inner(), how))
    }
}

/// The pending error of a socket (`SO_ERROR`).
struct PendingConnect(Option<io::Error>);

impl crate::call::trace::TraceValue for PendingConnect {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("0, 0"),
            Some(error) => match error.raw_os_error().and_then(errno_name) {
                Some(name) => write!(f, "0, [{name}]"),
                None => write!(f, "0, [{error}]"),
            },
        }
    }
}
