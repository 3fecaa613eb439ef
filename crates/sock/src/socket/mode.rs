//! The mode of a socket: timeout, blocking or non-blocking, cancellation.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::call::cancel::{Cancellation, Canceller};
use crate::call::deadline::Deadline;
use crate::call::timeout::Timeout;
use crate::call::to_timeout::ToTimeout;
use crate::call::trace::call;
use crate::socket::Socket;
use crate::sys::{self, AsFd};

/// Timeouts and cancellation.
impl Socket {
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
    pub(super) fn needs_o_nonblock(&self) -> bool {
        self.gettimeout().is_some() || self.cancellation.get().is_some()
    }
}
