//! Sending and receiving.

use std::io;
use std::time::Duration;

use crate::address::{Address, ToAddress};
use crate::call::cancel;
use crate::call::deadline::{self, Deadline, POLLIN, Poll, Readiness, poll};
use crate::call::trace::{self, TraceValue, call, first_bytes};
use crate::consts::{AF_INET, MsgFlags};
use crate::socket::Socket;
use crate::sys::{self, AsFd, ReceiveBuffer};

/// Sending and receiving. A call that can complete immediately is one system call, in every mode.
impl Socket {
    /// Sends part or all of `data` and returns the number of bytes sent.
    ///
    /// Python: `send(data)`. System call: send(2) with `MSG_NOSIGNAL`, once, so a closed connection
    /// is an error and never a signal.
    ///
    /// # Errors
    ///
    /// Returns an error if the peer has closed the connection (`BrokenPipe`, `ConnectionReset`), if
    /// the socket cannot send in time (`TimedOut`, `WouldBlock`), if it is not connected
    /// (`ENOTCONN`), or if a datagram is too long (`EMSGSIZE`).
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// let sent = ours.send(b"some bytes")?; // possibly not all of them
    /// assert_eq!(theirs.recv(100)?, b"some bytes"[..sent]);
    /// drop(theirs);
    /// assert_eq!(ours.send(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.send_with_flags(data, MsgFlags::NONE)
    }

    /// Sends as [`send`](Socket::send), with flags. Python: `send(data, flags)`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`send`](Socket::send) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use sock::MSG_DONTWAIT;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// while ours.send_with_flags(&[0; 65_536], MSG_DONTWAIT).is_ok() {} // until the queue is full
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn send_with_flags(&self, data: &[u8], flags: MsgFlags) -> io::Result<usize> {
        let sent = self.retry_with_flags(Readiness::Writable, flags, || self.send_once(data, flags))?;
        Ok(if sent < data.len() { self.send_rest_or_hint([data], sent, flags) } else { sent })
    }

    /// Sends as [`send_with_flags`](Socket::send_with_flags), for a caller that sends the rest.
    #[inline]
    pub(crate) fn send_part(&self, data: &[u8], flags: MsgFlags) -> io::Result<usize> {
        let sent = self.retry_with_flags(Readiness::Writable, flags, || self.send_once(data, flags))?;
        Ok(if sent < data.len() { self.send_rest([data], sent, flags) } else { sent })
    }

    /// Sends as [`send`](Socket::send), under a deadline shared by several calls.
    ///
    /// Python: none. System call: send(2).
    ///
    /// # Errors
    ///
    /// Returns an error if [`send`](Socket::send) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// ours.settimeout(Duration::from_millis(20))?;
    /// let mut deadline = ours.deadline();
    /// let error = loop {
    ///     if let Err(error) = ours.send_within(&[0; 65_536], &mut deadline) {
    ///         break error; // at the latest 20 ms after the first wait
    ///     }
    /// };
    /// assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn send_within(&self, data: &[u8], deadline: &mut Deadline<'_>) -> io::Result<usize> {
        if deadline.emulates_blocking() {
            return self.send_part(data, MsgFlags::NONE);
        }
        self.send_flags_within(data, MsgFlags::NONE, deadline)
    }

    fn send_flags_within(
        &self,
        data: &[u8],
        flags: MsgFlags,
        deadline: &mut Deadline<'_>,
    ) -> io::Result<usize> {
        deadline::retry(self.as_fd(), Readiness::Writable, deadline, || self.send_once(data, flags))
    }

    #[inline]
    fn send_once(&self, data: &[u8], flags: MsgFlags) -> io::Result<usize> {
        let fd = self.fileno();
        let raw = flags.as_raw();
        call!(data: first_bytes(data); "send({fd}, {}, {})", data.len(), sent_flags(flags) =>
            sys::send(self.inner(), data, raw))
    }

    /// Sends all of `data`.
    ///
    /// Python: `sendall(data)`. System call: send(2), as often as needed. A timeout is one deadline
    /// for the whole call.
    ///
    /// # Errors
    ///
    /// Returns an error if [`send`](Socket::send) does. How much was sent is then unknown, as in
    /// Python, so the connection should be closed.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.sendall(b"all of it")?;
    /// assert_eq!(theirs.recv(100)?, b"all of it");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendall(&self, data: &[u8]) -> io::Result<()> {
        self.sendall_with_flags(data, MsgFlags::NONE)
    }

    /// Sends as [`sendall`](Socket::sendall), with flags. Python: `sendall(data, flags)`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendall`](Socket::sendall) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use sock::MSG_DONTWAIT;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.sendall_with_flags(b"at once", MSG_DONTWAIT)?;
    /// assert_eq!(theirs.recv(100)?, b"at once");
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendall_with_flags(&self, data: &[u8], flags: MsgFlags) -> io::Result<()> {
        let mut deadline = self.deadline_with_flags(Readiness::Writable, flags);
        let mut rest = data;
        loop {
            let sent = match deadline.emulates_blocking() {
                // SO_SNDTIMEO applies to each send, which also returns the error of the one before.
                true => self.send_part(rest, flags)?,
                false => self.send_flags_within(rest, flags, &mut deadline)?,
            };
            rest = &rest[sent..];
            if rest.is_empty() {
                return Ok(());
            }
            // A peer that accepts a few bytes at a time must not extend the deadline or delay the
            // interrupt hook (CPython checks here too).
            deadline.check()?;
            cancel::check_interrupt_hook()?;
        }
    }

    /// Receives up to `bufsize` bytes. An empty result means that the peer has shut down sending.
    ///
    /// Python: `recv(bufsize)`. System call: recv(2), once, or none if `bufsize` is 0. The buffer
    /// is allocated once and not zeroed. The rest of a longer datagram is discarded.
    ///
    /// # Errors
    ///
    /// Returns an error if the peer has reset the connection (`ConnectionReset`), if an earlier
    /// datagram was refused (`ConnectionRefused`), if the socket is not connected (`ENOTCONN`), if
    /// no data arrives in time (`TimedOut`, `WouldBlock`), or if `bufsize` bytes cannot be
    /// allocated (`OutOfMemory`).
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// assert_eq!(ours.recv(4)?, b"hell");
    /// assert_eq!(ours.recv(1024)?, b"o");
    /// drop(theirs);
    /// assert!(ours.recv(1024)?.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv(&self, bufsize: usize) -> io::Result<Vec<u8>> {
        self.recv_with_flags(bufsize, MsgFlags::NONE)
    }

    /// Receives as [`recv`](Socket::recv), with flags. Python: `recv(bufsize, flags)`.
    ///
    /// Bytes that a TCP socket discards because of `MSG_TRUNC` are returned as zeroes.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{MSG_PEEK, MSG_WAITALL};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// assert_eq!(ours.recv_with_flags(2, MSG_PEEK)?, b"he"); // the bytes stay in the queue
    /// assert_eq!(ours.recv_with_flags(5, MSG_WAITALL)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv_with_flags(&self, bufsize: usize, flags: MsgFlags) -> io::Result<Vec<u8>> {
        if bufsize == 0 {
            return Ok(Vec::new());
        }
        if self.receives_in_pieces(bufsize, flags) {
            let mut buffer = sys::zeroes(bufsize)?;
            let received = self.recv_into_with_flags(&mut buffer, flags)?;
            buffer.truncate(received);
            return Ok(buffer);
        }
        let mut buffer = ReceiveBuffer::new(bufsize)?;
        self.retry_with_flags(Readiness::Readable, flags, || {
            if trace::enabled() {
                let receive = |raw| {
                    let received = buffer.recv(self.inner(), raw)?;
                    Ok((received, first_bytes(buffer.bytes())))
                };
                return self.receive_observed("recv", bufsize, flags, receive, |count| count);
            }
            buffer.recv(self.inner(), flags.as_raw())
        })?;
        Ok(buffer.into_bytes())
    }

    /// Receives into `buffer` and returns the number of bytes received.
    ///
    /// Python: `recv_into(buffer)`. System call: recv(2), once, or none if the buffer is empty.
    /// Allocates nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// let mut buffer = [0; 1024];
    /// let received = ours.recv_into(&mut buffer)?;
    /// assert_eq!(&buffer[..received], b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv_into_with_flags(buffer, MsgFlags::NONE)
    }

    /// Receives as [`recv_into`](Socket::recv_into), with flags.
    ///
    /// Python: `recv_into(buffer, flags=flags)`. System call: recv(2). With `MSG_TRUNC` the result
    /// is the real length of a datagram, which may be larger than the buffer.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::MSG_PEEK;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// let mut first = [0];
    /// ours.recv_into_with_flags(&mut first, MSG_PEEK)?;
    /// assert_eq!((&first, &*ours.recv(100)?), (b"h", &b"hello"[..]));
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn recv_into_with_flags(&self, buffer: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
        if let Some(result) = self.recv_in_pieces(buffer, flags) {
            return result.map(|(received, _)| received);
        }
        self.retry_with_flags(Readiness::Readable, flags, || self.recv_once(buffer, flags))
    }

    /// Receives as [`recv_into`](Socket::recv_into), under a deadline shared by several calls.
    ///
    /// Python: none. System call: recv(2).
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"length and the rest")?;
    /// ours.settimeout(Duration::from_secs(5))?;
    /// let mut deadline = ours.deadline(); // five seconds for both calls
    /// let (mut head, mut body) = ([0; 6], [0; 13]);
    /// assert_eq!(ours.recv_into_within(&mut head, &mut deadline)?, 6);
    /// assert_eq!(ours.recv_into_within(&mut body, &mut deadline)?, 13);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv_into_within(&self, buffer: &mut [u8], deadline: &mut Deadline<'_>) -> io::Result<usize> {
        if deadline.emulates_blocking() && self.receives_in_pieces(buffer.len(), MsgFlags::NONE) {
            return self.recv_into(buffer);
        }
        deadline::retry(self.as_fd(), Readiness::Readable, deadline, || {
            self.recv_once(buffer, MsgFlags::NONE)
        })
    }

    /// Waits up to `timeout` for input and receives it, also in blocking mode. For `sockserver`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) fails, and an error of kind `TimedOut` if the
    /// time is over.
    #[doc(hidden)]
    pub fn recv_into_timeout(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        let mut deadline = self.deadline_of(Some(timeout));
        deadline::wait(self.as_fd(), Readiness::Readable, &mut deadline)?;
        // Another thread may have received it meanwhile, so this attempt must not block either.
        let flags = MsgFlags::from(sys::DONTWAIT.unwrap_or_default());
        deadline::retry(self.as_fd(), Readiness::Readable, &mut deadline, || self.recv_once(buffer, flags))
    }

    #[inline]
    fn recv_once(&self, buffer: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if trace::enabled() {
            let size = buffer.len();
            let receive = |raw| {
                let received = sys::recv(self.inner(), buffer, raw)?;
                Ok((received, first_bytes(&buffer[..received.min(size)])))
            };
            return self.receive_observed("recv", size, flags, receive, |count| count);
        }
        sys::recv(self.inner(), buffer, flags.as_raw())
    }

    /// Runs a receive that is logged, or that is examined for hints. It returns its result and the
    /// first bytes. `count` is the number of bytes in its result.
    #[cold]
    fn receive_observed<T: TraceValue>(
        &self,
        name: &str,
        size: usize,
        flags: MsgFlags,
        receive: impl FnOnce(i32) -> io::Result<(T, String)>,
        count: impl Fn(&mut T) -> &mut usize,
    ) -> io::Result<T> {
        let fd = self.fileno();
        // With this flag the system returns the real length of a datagram.
        let with_length = self.length_flags(flags);
        let raw = with_length.unwrap_or(flags.as_raw());
        let (mut length, mut data) = (0, String::new());
        let received = call!(data: data; "{name}({fd}, {size}, {})", MsgFlags::from(raw) => {
            receive(raw).map(|(mut received, first)| {
                let count = count(&mut received);
                (length, data) = (*count, first);
                if with_length.is_some() {
                    *count = length.min(size);
                }
                received
            })
        })?;
        self.hint_received(name, size, length, flags);
        Ok(received)
    }

    /// Receives available bytes into `buffer` without waiting, in every mode.
    ///
    /// Python: `recv_into(buffer, flags=MSG_DONTWAIT)`. System call: recv(2), once.
    ///
    /// # Platform notes
    ///
    /// Windows has no such flag. There poll(2) is called first, which is equivalent unless another
    /// thread receives from the socket at the same time.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `WouldBlock` if no data is available, or an error of
    /// [`recv`](Socket::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// let mut buffer = [0; 10];
    /// assert_eq!(ours.recv_into_nowait(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// theirs.sendall(b"there")?;
    /// assert_eq!(ours.recv_into_nowait(&mut buffer)?, 5);
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn recv_into_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(flag) = sys::DONTWAIT else {
            return match poll(&mut [Poll::new(self, POLLIN)], Some(Duration::ZERO))? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                _ => self.recv_into(buffer),
            };
        };
        self.retry_nowait(|| self.recv_once(buffer, MsgFlags::from(flag)))
    }

    /// Calls `attempt`, which must not wait, and retries it only after a signal.
    #[inline]
    fn retry_nowait<T>(&self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                let mut never = Deadline::new(Some(Duration::ZERO));
                deadline::retry_after(error, self.as_fd(), Readiness::Readable, &mut never, attempt)
            }
            result => result,
        }
    }

    /// Sends a datagram to `address` and returns the number of bytes sent.
    ///
    /// Python: `sendto(data, address)`. System call: sendto(2) with `MSG_NOSIGNAL`, once, after a
    /// lookup if the address has a host name.
    ///
    /// # Errors
    ///
    /// Returns an error if the datagram is too long (`EMSGSIZE`), if a broadcast is sent without
    /// `SO_BROADCAST` (`PermissionDenied`), if an earlier datagram was refused
    /// (`ConnectionRefused`), if the socket cannot send in time (`TimedOut`, `WouldBlock`), or if
    /// [`ToAddress`] fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    ///
    /// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// receiver.bind(("127.0.0.1", 0))?;
    /// let sender = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sender.sendto(b"hello", ("localhost", receiver.getsockname()?.port().unwrap()))?;
    /// assert_eq!(receiver.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendto(&self, data: &[u8], address: impl ToAddress) -> io::Result<usize> {
        self.sendto_with_flags(data, MsgFlags::NONE, address)
    }

    /// Sends as [`sendto`](Socket::sendto), with flags. Python: `sendto(data, flags, address)`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendto`](Socket::sendto) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, MSG_DONTROUTE, SOCK_DGRAM, Socket};
    ///
    /// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// receiver.bind(("127.0.0.1", 0))?;
    /// let sender = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sender.sendto_with_flags(b"hello", MSG_DONTROUTE, receiver.getsockname()?)?;
    /// assert_eq!(receiver.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendto_with_flags(
        &self,
        data: &[u8],
        flags: MsgFlags,
        address: impl ToAddress,
    ) -> io::Result<usize> {
        let fd = self.fileno();
        let address = address.to_address(self.family())?;
        let raw = flags.as_raw();
        let sent = if let Address::Inet(to) = address {
            self.retry_with_flags(Readiness::Writable, flags, || {
                call!(data: first_bytes(data); "sendto({fd}, {}, {}, {to})", data.len(), sent_flags(flags) =>
                    sys::sendto_inet(self.inner(), data, raw, to))
            })
        } else {
            let sys = address.to_sys()?;
            self.retry_with_flags(Readiness::Writable, flags, || {
                call!(data: first_bytes(data); "sendto({fd}, {}, {}, {address})", data.len(), sent_flags(flags) =>
                    sys::sendto(self.inner(), data, raw, &sys))
            })
        };
        let sent = match sent {
            Err(_) if self.await_fastopen(&sent, flags)? => {
                return self.send_with_flags(data, connected(flags));
            }
            sent => sent?,
        };
        Ok(if sent < data.len() { self.send_rest_or_hint([data], sent, connected(flags)) } else { sent })
    }

    /// Receives up to `bufsize` bytes and returns them with the sender's address.
    ///
    /// Python: `recvfrom(bufsize)`. System call: recvfrom(2), once, also if `bufsize` is 0. In that
    /// case a datagram is removed from the queue and discarded.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    ///
    /// let server = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// server.bind(("127.0.0.1", 0))?;
    /// let client = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// client.sendto(b"ping", server.getsockname()?)?;
    ///
    /// let (data, address) = server.recvfrom(1024)?;
    /// server.sendto(&data, address)?;
    /// assert_eq!(client.recv(1024)?, b"ping");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvfrom(&self, bufsize: usize) -> io::Result<(Vec<u8>, Address)> {
        self.recvfrom_with_flags(bufsize, MsgFlags::NONE)
    }

    /// Receives as [`recvfrom`](Socket::recvfrom), with flags. Python: `recvfrom(bufsize, flags)`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, MSG_PEEK, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.sendto(b"to myself", sock.getsockname()?)?;
    /// let (_, address) = sock.recvfrom_with_flags(0, MSG_PEEK)?; // only the sender's address
    /// assert_eq!(address, sock.getsockname()?);
    /// assert_eq!(sock.recv(100)?, b"to myself");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvfrom_with_flags(&self, bufsize: usize, flags: MsgFlags) -> io::Result<(Vec<u8>, Address)> {
        if self.receives_in_pieces(bufsize, flags) {
            let mut buffer = sys::zeroes(bufsize)?;
            let (received, address) = self.recvfrom_into_with_flags(&mut buffer, flags)?;
            buffer.truncate(received);
            return Ok((buffer, address));
        }
        let mut buffer = ReceiveBuffer::new(bufsize)?;
        let (_, address) = self.retry_with_flags(Readiness::Readable, flags, || {
            if trace::enabled() {
                let receive = |raw| {
                    let received = buffer.recvfrom(self.inner(), raw)?;
                    Ok((received, first_bytes(buffer.bytes())))
                };
                return self.receive_observed("recvfrom", bufsize, flags, receive, |(count, _)| count);
            }
            buffer.recvfrom(self.inner(), flags.as_raw())
        })?;
        Ok((buffer.into_bytes(), Address::from_sys(&address)))
    }

    /// Receives into `buffer` and returns the number of bytes and the sender's address.
    ///
    /// Python: `recvfrom_into(buffer)`. System call: recvfrom(2), once.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.sendto(b"to myself", sock.getsockname()?)?;
    /// let mut buffer = [0; 100];
    /// let (received, address) = sock.recvfrom_into(&mut buffer)?;
    /// assert_eq!((&buffer[..received], address), (&b"to myself"[..], sock.getsockname()?));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvfrom_into(&self, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        self.recvfrom_into_with_flags(buffer, MsgFlags::NONE)
    }

    /// Receives as [`recvfrom_into`](Socket::recvfrom_into), with flags.
    ///
    /// Python: `recvfrom_into(buffer, flags=flags)`. System call: recvfrom(2).
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # if cfg!(target_os = "linux") {
    /// use sock::{AF_INET, MSG_TRUNC, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.sendto(b"too long", sock.getsockname()?)?;
    /// let (length, _) = sock.recvfrom_into_with_flags(&mut [0; 3], MSG_TRUNC)?;
    /// assert_eq!(length, 8); // five bytes are discarded
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvfrom_into_with_flags(
        &self,
        buffer: &mut [u8],
        flags: MsgFlags,
    ) -> io::Result<(usize, Address)> {
        if let Some(result) = self.recv_in_pieces(buffer, flags) {
            return result;
        }
        self.retry_with_flags(Readiness::Readable, flags, || self.recvfrom_once(buffer, flags))
    }

    #[inline]
    fn recvfrom_once(&self, buffer: &mut [u8], flags: MsgFlags) -> io::Result<(usize, Address)> {
        let receive = |buffer: &mut [u8], raw| match self.family() {
            AF_INET => {
                let (received, from) = sys::recvfrom_inet(self.inner(), buffer, raw)?;
                Ok((received, from.map_or(Address::None, Address::Inet)))
            }
            _ => {
                let (received, from) = sys::recvfrom(self.inner(), buffer, raw)?;
                Ok((received, Address::from_sys(&from)))
            }
        };
        if trace::enabled() {
            let size = buffer.len();
            let receive = |raw| {
                let (received, from) = receive(buffer, raw)?;
                Ok(((received, from), first_bytes(&buffer[..received.min(size)])))
            };
            return self.receive_observed("recvfrom", size, flags, receive, |(count, _)| count);
        }
        receive(buffer, flags.as_raw())
    }

    /// Receives an available datagram into `buffer` without waiting, in every mode.
    ///
    /// Python: `recvfrom_into(buffer, flags=MSG_DONTWAIT)`. System call: recvfrom(2), once.
    ///
    /// # Platform notes
    ///
    /// Windows has no such flag. There poll(2) is called first, which is equivalent unless another
    /// thread receives from the socket at the same time.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `WouldBlock` if no datagram is available, or an error of
    /// [`recv`](Socket::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// assert_eq!(sock.recvfrom_into_nowait(&mut [0; 100]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// assert!(sock.getblocking());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvfrom_into_nowait(&self, buffer: &mut [u8]) -> io::Result<(usize, Address)> {
        let Some(flag) = sys::DONTWAIT else {
            return match poll(&mut [Poll::new(self, POLLIN)], Some(Duration::ZERO))? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                _ => self.recvfrom_into(buffer),
            };
        };
        self.retry_nowait(|| self.recvfrom_once(buffer, MsgFlags::from(flag)))
    }
}

/// Returns the flags that the system gets for a send.
pub(crate) fn sent_flags(flags: MsgFlags) -> MsgFlags {
    (flags.as_raw() | sys::SEND_FLAGS).into()
}

/// Returns the flags for a send on a connection that `MSG_FASTOPEN` has opened.
pub(crate) fn connected(flags: MsgFlags) -> MsgFlags {
    flags.without(sys::FASTOPEN.into())
}
