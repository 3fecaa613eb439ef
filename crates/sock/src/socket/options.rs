//! Socket options.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::call::to_timeout::ToTimeout;
use crate::call::trace::{TraceValue, call};
use crate::consts::{LevelName, OptionName, SO_RCVTIMEO, SO_SNDTIMEO, SOL_SOCKET};
use crate::error::invalid;
use crate::socket::Socket;
use crate::socket::option_value::DisplayValue;
use crate::sys::{self, AsFd};

/// Socket options, by C's names: `setsockopt(SOL_SOCKET, SO_REUSEADDR, true)`.
impl Socket {
    /// Sets an option.
    ///
    /// Python: `setsockopt(level, option, value)`. System call: setsockopt(2). `value` is one of
    /// the following: a number or a bool, passed as a C `int`; a [`Duration`], a [`Linger`] or an
    /// IP address, passed as its C structure; or the bytes of any other structure.
    ///
    /// # Errors
    ///
    /// Returns an error if the option does not exist (`ENOPROTOOPT`) or does not accept the value
    /// (`EINVAL`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SO_KEEPALIVE, SOCK_STREAM, SOL_SOCKET, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, true)?;
    /// assert_eq!(sock.getsockopt(SOL_SOCKET, SO_KEEPALIVE)?, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn setsockopt(&self, level: i32, option: i32, value: impl ToOption) -> io::Result<()> {
        let fd = self.fileno();
        value.with_bytes(|value| {
            let (name, of_level) = (OptionName(level, option), LevelName(level));
            call!("setsockopt({fd}, {of_level}, {name}, {})", DisplayValue { level, option, bytes: value } =>
                sys::setsockopt(self.as_fd(), level, option, value))
        })?;
        if let Some(cancellation) = self.cancellation().filter(|_| sys::is_low_water(level, option)) {
            cancellation.set_low_water(sys::low_water(self.as_fd()));
        }
        Ok(())
    }

    /// Sets an option that has only a length and no value, such as `ALG_SET_AEAD_AUTHSIZE`.
    ///
    /// Python: `setsockopt(level, option, None, optlen)`. System call: setsockopt(2)
    /// with a null pointer.
    ///
    /// # Errors
    ///
    /// Returns an error if the option requires a value (`EFAULT`) or does not accept the length
    /// (`EINVAL`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{SO_KEEPALIVE, SOL_SOCKET};
    ///
    /// let (sock, _) = sock::socketpair()?;
    /// assert!(sock.setsockopt_null(SOL_SOCKET, SO_KEEPALIVE, 4).is_err()); // requires a value
    /// # std::io::Result::Ok(())
    /// ```
    pub fn setsockopt_null(&self, level: i32, option: i32, optlen: u32) -> io::Result<()> {
        let fd = self.fileno();
        let (name, of_level) = (OptionName(level, option), LevelName(level));
        call!("setsockopt({fd}, {of_level}, {name}, NULL, {optlen})" =>
            sys::setsockopt_null(self.as_fd(), level, option, optlen))
    }

    /// Sets whether a restarted server can bind its port although old connections exist.
    ///
    /// Python: `setsockopt(SOL_SOCKET, SO_REUSEADDR, reuse)`. System call: setsockopt(2).
    ///
    /// # Platform notes
    ///
    /// On Windows the option is `SO_EXCLUSIVEADDRUSE`. There a restart works without an option, and
    /// `SO_REUSEADDR` would let two servers bind the same port.
    ///
    /// # Errors
    ///
    /// Returns an error if setsockopt(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SOCK_STREAM, Socket};
    ///
    /// let server = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// server.set_reuse_address(true)?;
    /// server.bind(("127.0.0.1", 0))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_reuse_address(&self, reuse: bool) -> io::Result<()> {
        self.setsockopt(SOL_SOCKET, sys::REUSEADDR_FOR_SERVERS, reuse)
    }

    /// Sets whether several servers can bind the same port, each with its own queue.
    ///
    /// System call: setsockopt(2) with `SO_REUSEPORT`.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `Unsupported` on Windows, which has no such option.
    ///
    /// # Examples
    ///
    /// ```
    /// # if cfg!(unix) {
    /// use sock::{AF_INET, SOCK_STREAM, Socket};
    ///
    /// let workers = [Socket::new(AF_INET, SOCK_STREAM, 0)?, Socket::new(AF_INET, SOCK_STREAM, 0)?];
    /// let mut address = ("127.0.0.1", 0);
    /// for worker in &workers {
    ///     worker.set_reuse_port(true)?;
    ///     worker.bind(address)?;
    ///     address.1 = worker.getsockname()?.port().unwrap();
    /// }
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_reuse_port(&self, reuse: bool) -> io::Result<()> {
        match sys::REUSEPORT_OPTION {
            Some(option) => self.setsockopt(SOL_SOCKET, option, reuse),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no SO_REUSEPORT")),
        }
    }

    /// Sets how closing the socket treats unsent data.
    ///
    /// Python: `setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", onoff, seconds))`. System call:
    /// setsockopt(2) with `SO_LINGER`. It is off by default: close returns immediately and the
    /// system continues to send.
    ///
    /// # Errors
    ///
    /// Returns an error if setsockopt(2) fails.
    ///
    /// # Platform notes
    ///
    /// On macOS the option is `SO_LINGER_SEC`, because `SO_LINGER` counts in ticks.
    ///
    /// # Examples
    ///
    /// With a linger time of 0, close resets the connection:
    ///
    /// ```
    /// use sock::Linger;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let (connection, _) = server.accept()?;
    /// client.set_linger(Linger { l_onoff: true, l_linger: 0 })?;
    /// client.close()?;
    /// assert_eq!(connection.recv(1).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("SO_LINGER", "SO_LINGER_SEC"))]
    pub fn set_linger(&self, linger: Linger) -> io::Result<()> {
        self.setsockopt(SOL_SOCKET, sys::LINGER_OPTION, linger)
    }

    /// Returns the value set by [`set_linger`](Socket::set_linger).
    ///
    /// # Errors
    ///
    /// Returns an error if getsockopt(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Linger;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// assert!(!server.linger()?.l_onoff);
    /// server.set_linger(Linger { l_onoff: true, l_linger: 5 })?;
    /// assert_eq!(server.linger()?.l_linger, 5);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn linger(&self) -> io::Result<Linger> {
        let bytes = self.getsockopt_bytes(SOL_SOCKET, sys::LINGER_OPTION, sys::LINGER_SIZE)?;
        let (l_onoff, l_linger) =
            sys::read_linger(&bytes).ok_or_else(|| unexpected_length("SO_LINGER", &bytes))?;
        Ok(Linger { l_onoff, l_linger })
    }

    /// Sets the kernel's receive timeout; `None` disables it.
    ///
    /// Python: `setsockopt(SOL_SOCKET, SO_RCVTIMEO, …)` with a packed `timeval`. System call:
    /// setsockopt(2). Unlike [`settimeout`](Socket::settimeout) it leaves the descriptor blocking
    /// and needs no poll(2). It applies to each system call, including accept, and only in blocking
    /// mode.
    ///
    /// When the timeout expires, a receive fails with `WouldBlock` (`EAGAIN`, on Windows
    /// `ETIMEDOUT`). A receive that already has data returns that data.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if the timeout is zero, which the kernel treats as
    /// no timeout. Returns an error if setsockopt(2) fails.
    ///
    /// # Platform notes
    ///
    /// The timeout is rounded up to microseconds, on Windows to milliseconds. Linux rounds it up to
    /// clock ticks (1 to 10 ms).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # if cfg!(unix) {
    /// let (ours, _theirs) = sock::socketpair()?;
    /// ours.set_recv_timeout(Duration::from_millis(10))?;
    /// assert_eq!(ours.recv(1).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// assert_eq!(ours.gettimeout(), None);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias = "SO_RCVTIMEO")]
    pub fn set_recv_timeout(&self, timeout: impl ToTimeout) -> io::Result<()> {
        self.set_system_timeout(SO_RCVTIMEO, timeout.to_timeout()?)
    }

    /// Returns the kernel's receive timeout, as rounded by the system.
    ///
    /// [`set_recv_timeout`](Socket::set_recv_timeout) sets it.
    ///
    /// # Errors
    ///
    /// Returns an error if getsockopt(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// assert_eq!(ours.recv_timeout()?, None);
    /// ours.set_recv_timeout(5)?;
    /// assert_eq!(ours.recv_timeout()?, Some(Duration::from_secs(5)));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv_timeout(&self) -> io::Result<Option<Duration>> {
        self.system_timeout(SO_RCVTIMEO, "SO_RCVTIMEO")
    }

    /// Sets the kernel's send timeout; `None` disables it.
    ///
    /// Python: `setsockopt(SOL_SOCKET, SO_SNDTIMEO, …)`. System call: setsockopt(2). On Linux it
    /// also applies to connect, which then fails with `EINPROGRESS`. A send that has already sent
    /// data returns the number of bytes.
    ///
    /// # Errors
    ///
    /// Returns an error if [`set_recv_timeout`](Socket::set_recv_timeout) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # if cfg!(unix) {
    /// let (ours, _theirs) = sock::socketpair()?;
    /// ours.set_send_timeout(Duration::from_millis(10))?;
    /// let error = ours.sendall(&[0; 10_000_000]).unwrap_err(); // the peer does not read
    /// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias = "SO_SNDTIMEO")]
    pub fn set_send_timeout(&self, timeout: impl ToTimeout) -> io::Result<()> {
        self.set_system_timeout(SO_SNDTIMEO, timeout.to_timeout()?)
    }

    /// Returns the kernel's send timeout, as rounded by the system.
    ///
    /// [`set_send_timeout`](Socket::set_send_timeout) sets it.
    ///
    /// # Errors
    ///
    /// Returns an error if getsockopt(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// assert_eq!(ours.send_timeout()?, None);
    /// ours.set_send_timeout(5)?;
    /// assert_eq!(ours.send_timeout()?, Some(Duration::from_secs(5)));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn send_timeout(&self) -> io::Result<Option<Duration>> {
        self.system_timeout(SO_SNDTIMEO, "SO_SNDTIMEO")
    }

    fn set_system_timeout(&self, option: i32, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(invalid("timeout must not be zero (the kernel treats 0 as no timeout)"));
        }
        self.setsockopt(SOL_SOCKET, option, timeout.unwrap_or_default())
    }

    fn system_timeout(&self, option: i32, name: &str) -> io::Result<Option<Duration>> {
        let bytes = self.getsockopt_bytes(SOL_SOCKET, option, sys::TIMEVAL_SIZE)?;
        let timeout = sys::read_timeval(&bytes).ok_or_else(|| unexpected_length(name, &bytes))?;
        Ok((!timeout.is_zero()).then_some(timeout))
    }

    /// Returns the value of an option that is a C `int`.
    ///
    /// Python: `getsockopt(level, option)`. System call: getsockopt(2). For options of `AF_VSOCK`,
    /// which have 64 bits, use [`getsockopt_bytes`](Socket::getsockopt_bytes) with 8.
    ///
    /// # Errors
    ///
    /// Returns an error if the option does not exist (`ENOPROTOOPT`), or if
    /// [`getsockopt_bytes`](Socket::getsockopt_bytes) refuses it.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SO_TYPE, SOCK_STREAM, SOL_SOCKET, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// assert_eq!(sock.getsockopt(SOL_SOCKET, SO_TYPE)?, SOCK_STREAM.as_raw());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn getsockopt(&self, level: i32, option: i32) -> io::Result<i32> {
        let bytes = self.getsockopt_bytes(level, option, 4)?;
        // Some systems return a single byte.
        let mut value = [0; 4];
        value[..bytes.len()].copy_from_slice(&bytes);
        Ok(i32::from_ne_bytes(value))
    }

    /// Returns the value of any option, as the bytes of its structure.
    ///
    /// Python: `getsockopt(level, option, buflen)`. System call: getsockopt(2).
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if `buflen` is not in 1..=1024, as in Python, or if
    /// the option's value is the number of a new descriptor, which would not be closed. Returns an
    /// error of getsockopt(2).
    ///
    /// # Platform notes
    ///
    /// The options with a new descriptor are, on Linux, `SO_PEERPIDFD` (77), for which there is
    /// [`peer_pidfd`](Socket::peer_pidfd), and `SCTP_SOCKOPT_PEELOFF` (102 and 122).
    ///
    /// Linux counts the length of `SO_GET_FILTER` (26, which is also `SO_ATTACH_FILTER`) in
    /// instructions of 8 bytes. Here `buflen` and the result are in bytes for this option too, and
    /// a filter that is longer than `buflen` is `EINVAL`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use sock::{AF_INET, IPPROTO_TCP, SOCK_STREAM, Socket, TCP_CONGESTION};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_STREAM, 0)?;
    /// let name = sock.getsockopt_bytes(IPPROTO_TCP, TCP_CONGESTION, 16)?;
    /// println!("{}", String::from_utf8_lossy(&name)); // such as cubic
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn getsockopt_bytes(&self, level: i32, option: i32, buflen: usize) -> io::Result<Vec<u8>> {
        if !(1..=1024).contains(&buflen) {
            return Err(invalid(format!("getsockopt buflen must be 1-1024, not {buflen}")));
        }
        #[cfg(unix)]
        if sys::ucred::creates_descriptor(level, option) {
            return Err(invalid(format!(
                "getsockopt of {} would return the number of a new descriptor, which nothing closes (for \
                 SO_PEERPIDFD use peer_pidfd)",
                OptionName(level, option)
            )));
        }
        let fd = self.fileno();
        let mut value = vec![0; buflen];
        let len = {
            let (name, of_level) = (OptionName(level, option), LevelName(level));
            let OptionBytes(DisplayValue { bytes, .. }) = call!("getsockopt({fd}, {of_level}, {name}, {buflen})" =>
                    sys::getsockopt(self.as_fd(), level, option, &mut value)
                        .map(|len| OptionBytes(DisplayValue { level, option, bytes: &value[..len] })))?;
            bytes.len()
        };
        value.truncate(len);
        Ok(value)
    }
}

/// Reports a value whose length differs from the option's manual page.
fn unexpected_length(option: &str, bytes: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{option} of {} bytes", bytes.len()))
}

/// How closing a socket treats unsent data.
///
/// C: `struct linger`. When off, close(2) returns immediately and the system continues to send.
/// When on, close waits until the peer has acknowledged all data, for at most `l_linger` seconds.
/// With 0 seconds the data is discarded, and the peer receives `ECONNRESET`.
///
/// # Examples
///
/// ```
/// use sock::Linger;
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// server.set_linger(Linger { l_onoff: true, l_linger: 5 })?;   // struct.pack("ii", 1, 5)
/// assert_eq!(server.linger()?, Linger { l_onoff: true, l_linger: 5 });
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Linger {
    /// Whether close waits.
    pub l_onoff: bool,
    /// The longest wait in seconds.
    pub l_linger: u16,
}

/// A value for [`Socket::setsockopt`]: a number, a bool, a structure, or bytes.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sock::{SO_KEEPALIVE, SO_RCVBUF, SO_RCVTIMEO, SOL_SOCKET};
///
/// let (ours, _theirs) = sock::socketpair()?;
/// ours.setsockopt(SOL_SOCKET, SO_KEEPALIVE, true)?;
/// ours.setsockopt(SOL_SOCKET, SO_RCVBUF, 10_000)?;
/// ours.setsockopt(SOL_SOCKET, SO_RCVTIMEO, Duration::from_secs(5))?;
/// assert_eq!(ours.getsockopt(SOL_SOCKET, SO_KEEPALIVE)?, 1);
/// # std::io::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the value of a socket option",
    label = "not the value of an option",
    note = "an option is an `i32`, a `bool`, a `Linger`, a `Duration`, an IP address, or the bytes of a \
            structure; `Socket` has methods for many options, such as `set_linger` and `join_group`"
)]
pub trait ToOption {
    /// Calls `set` with the bytes that are passed to the system.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::ToOption;
    ///
    /// assert_eq!(1_i32.with_bytes(<[u8]>::to_vec), true.with_bytes(<[u8]>::to_vec));
    /// assert_eq!(b"abc".with_bytes(<[u8]>::len), 3);
    /// ```
    fn with_bytes<T>(&self, set: impl FnOnce(&[u8]) -> T) -> T;
}

impl ToOption for i32 {
    fn with_bytes<T>(&self, set: impl FnOnce(&[u8]) -> T) -> T {
        set(&self.to_ne_bytes())
    }
}

impl ToOption for bool {
    fn with_bytes<T>(&self, set: impl FnOnce(&[u8]) -> T) -> T {
        i32::from(*self).with_bytes(set)
    }
}

impl ToOption for &[u8] {
    fn with_bytes<T>(&self, set: impl FnOnce(&[u8]) -> T) -> T {
        set(self)
    }
}

impl<const N: usize> ToOption for &[u8; N] {
    fn with_bytes<T>(&self, set: impl FnOnce(&[u8]) -> T) -> T {
        set(&self[..])
    }
}

/// A `struct linger`.
impl ToOption for Linger {
    fn with_bytes<T>(&self, set: impl FnOnce(&[u8]) -> T) -> T {
        set(&sys::linger(self.l_onoff, self.l_linger))
    }
}

/// A `struct timeval`, rounded up. On Windows a number of milliseconds.
impl ToOption for Duration {
    fn with_bytes<T>(&self, set: impl FnOnce(&[u8]) -> T) -> T {
        set(&sys::timeval(*self))
    }
}

/// A `struct in_addr`, as for `IP_MULTICAST_IF`.
impl ToOption for Ipv4Addr {
    fn with_bytes<T>(&self, set: impl FnOnce(&[u8]) -> T) -> T {
        set(&self.octets())
    }
}

/// A `struct in6_addr`.
impl ToOption for Ipv6Addr {
    fn with_bytes<T>(&self, set: impl FnOnce(&[u8]) -> T) -> T {
        set(&self.octets())
    }
}

/// A value that getsockopt(2) has written.
struct OptionBytes<'a>(DisplayValue<'a>);

impl TraceValue for OptionBytes<'_> {
    fn show(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0, {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_read_back_and_invalid_ones_are_none() {
        for timeout in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(100_000)] {
            assert_eq!(sys::read_timeval(&sys::timeval(timeout)), Some(timeout));
        }
        assert_eq!(sys::timeval(Duration::from_nanos(1)), sys::timeval(Duration::from_millis(1).min(STEP)));
        assert_eq!(sys::read_linger(&sys::linger(true, u16::MAX)), Some((true, u16::MAX)));
        assert_eq!((sys::read_linger(&[1]), sys::read_timeval(&[1])), (None, None));
    }

    /// Linux counts the length of this option in instructions. Without a correction the kernel
    /// would write eight times the size of the buffer.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_filter_is_read_in_bytes() {
        use crate::consts::{AF_INET, SOCK_DGRAM};
        const SO_GET_FILTER: i32 = 26;
        // BPF_RET | BPF_K: accepts the whole of any packet.
        let accept = |_| socket2::SockFilter::new(6, 0, 0, u32::MAX);
        let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        assert_eq!(sock.getsockopt_bytes(SOL_SOCKET, SO_GET_FILTER, 1).unwrap(), b"", "no filter yet");
        for instructions in [1, 2, 128] {
            sock.inner().attach_filter(&(0..instructions).map(accept).collect::<Vec<_>>()).unwrap();
            let expected = [6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff].repeat(instructions);
            for buflen in [1, 4, 7, 8, 9, 15, 16, 128, 1023, 1024] {
                let filter = sock.getsockopt_bytes(SOL_SOCKET, SO_GET_FILTER, buflen);
                if buflen < expected.len() {
                    assert_eq!(filter.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{buflen}");
                } else if cfg!(target_endian = "little") {
                    assert!(filter.unwrap() == expected, "{buflen}");
                }
            }
            let error = sock.getsockopt(SOL_SOCKET, SO_GET_FILTER).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    /// The shortest timeout that the kernel accepts.
    const STEP: Duration = if cfg!(windows) { Duration::from_millis(1) } else { Duration::from_micros(1) };
}
