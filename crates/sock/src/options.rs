//! Socket options.

use std::io;

use crate::consts::{LevelName, OptionName, SOL_SOCKET};
use crate::error::invalid;
use crate::socket::Socket;
use crate::sys::{self, AsFd};
use crate::trace::{Outcome, call};

/// Options, by C's names: `setsockopt(SOL_SOCKET, SO_REUSEADDR, true)`.
impl Socket {
    /// Sets an option.
    ///
    /// Python: `setsockopt(level, option, value)`. System call: setsockopt(2).
    /// `value` is a number or a bool, which goes in as a C `int`, or the bytes of
    /// whatever structure the option takes.
    ///
    /// # Errors
    ///
    /// The system's: `ENOPROTOOPT` for an option that is not there, `EINVAL` for
    /// a value it does not take.
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
            call!("setsockopt({fd}, {of_level}, {name}, {})", Value(value) =>
                sys::setsockopt(self.as_fd(), level, option, value))
        })
    }

    /// Lets a server that is started again bind its port at once, though old
    /// connections linger there.
    ///
    /// System call: setsockopt(2) with `SO_REUSEADDR`.
    ///
    /// # Platform notes
    ///
    /// On Windows `SO_EXCLUSIVEADDRUSE`: there a restart works anyway, and
    /// `SO_REUSEADDR` would let two servers take the same port.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_reuse_address(&self, reuse: bool) -> io::Result<()> {
        self.setsockopt(SOL_SOCKET, sys::SERVER_OPTION, reuse)
    }

    /// Lets several servers share a port, each with its own queue.
    ///
    /// System call: setsockopt(2) with `SO_REUSEPORT`.
    ///
    /// # Errors
    ///
    /// `Unsupported` where there is no such option: on Windows.
    pub fn set_reuse_port(&self, reuse: bool) -> io::Result<()> {
        match sys::REUSEPORT_OPTION {
            Some(option) => self.setsockopt(SOL_SOCKET, option, reuse),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no SO_REUSEPORT")),
        }
    }

    /// Value of an option that is a C `int`.
    ///
    /// Python: `getsockopt(level, option)`. System call: getsockopt(2).
    ///
    /// # Errors
    ///
    /// The system's: `ENOPROTOOPT` for an option that is not there.
    pub fn getsockopt(&self, level: i32, option: i32) -> io::Result<i32> {
        let bytes = self.getsockopt_bytes(level, option, 4)?;
        // A system may answer with one byte where one is enough.
        let mut value = [0; 4];
        value[..bytes.len()].copy_from_slice(&bytes);
        Ok(i32::from_ne_bytes(value))
    }

    /// Value of any option, as the bytes of its structure.
    ///
    /// Python: `getsockopt(level, option, buflen)`. System call: getsockopt(2).
    ///
    /// # Errors
    ///
    /// `InvalidInput` when `buflen` is not in 1..=1024, as in Python; the system's.
    pub fn getsockopt_bytes(&self, level: i32, option: i32, buflen: usize) -> io::Result<Vec<u8>> {
        if !(1..=1024).contains(&buflen) {
            return Err(invalid(format!("getsockopt buflen must be 1-1024, not {buflen}")));
        }
        let fd = self.fileno();
        let mut value = vec![0; buflen];
        let Answer(len) = {
            let (name, of_level) = (OptionName(level, option), LevelName(level));
            call!("getsockopt({fd}, {of_level}, {name}, {buflen})" =>
                sys::getsockopt(self.as_fd(), level, option, &mut value).map(Answer))?
        };
        value.truncate(len);
        Ok(value)
    }
}

/// What [`Socket::setsockopt`] takes: a number, a bool, or bytes.
pub trait ToOption {
    /// Calls `set` with the bytes the system is given.
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

/// A value as the trace shows it: an `int` as one, anything else as bytes.
struct Value<'a>(&'a [u8]);

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.try_into() {
            Ok(int) => write!(f, "{}", i32::from_ne_bytes(int)),
            Err(_) => write!(f, "{:02x?}", self.0),
        }
    }
}

/// Length of an option's value; the call itself returns 0.
struct Answer(usize);

impl Outcome for Answer {
    fn show(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0, {} bytes", self.0)
    }
}
