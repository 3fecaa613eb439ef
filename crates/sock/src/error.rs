//! Python's exceptions in Rust's terms.
//!
//! Every call returns [`io::Result`]. Where Python raises …
//!
//! | Python | here |
//! | --- | --- |
//! | `OSError` with an errno | [`io::Error`] with [`raw_os_error`](io::Error::raw_os_error), untouched |
//! | `ConnectionRefusedError`, `BrokenPipeError`, … | the same, told apart by [`io::Error::kind`] |
//! | `TimeoutError` of a socket's timeout | kind [`TimedOut`](io::ErrorKind::TimedOut), without an errno |
//! | `BlockingIOError` | kind [`WouldBlock`](io::ErrorKind::WouldBlock) |
//! | `socket.gaierror` | a [`GaiError`] inside the [`io::Error`] |
//! | `ValueError`, `TypeError`, `OverflowError` | kind [`InvalidInput`](io::ErrorKind::InvalidInput) with a sentence that names the argument |

use std::error::Error;
use std::fmt;
use std::io;

use crate::consts;
use crate::sys;

/// Name of an errno, such as `ECONNREFUSED` for 111 on Linux.
///
/// Python: `errno.errorcode[number]`. No system call.
///
/// # Examples
///
/// ```
/// let taken = std::io::Error::from(sock::Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0)?
///     .connect(("127.0.0.1", 1)).unwrap_err());
/// assert_eq!(sock::errno_name(sock::errno(&taken).unwrap()), Some("ECONNREFUSED"));
/// # std::io::Result::Ok(())
/// ```
#[must_use]
pub fn errno_name(number: i32) -> Option<&'static str> {
    sys::ERRNOS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// Errno at the bottom of an error, through whatever was wrapped around it.
///
/// Python: `OSError.errno`. `None` for errors that no system call made: a
/// timeout, a name that does not resolve, a bad argument.
#[must_use]
pub fn errno(error: &io::Error) -> Option<i32> {
    if let Some(number) = error.raw_os_error() {
        return Some(number);
    }
    let mut source = error.get_ref().and_then(|inner| inner.source());
    while let Some(cause) = source {
        if let Some(number) = cause.downcast_ref::<io::Error>().and_then(errno) {
            return Some(number);
        }
        source = cause.source();
    }
    None
}

/// A name or service that did not resolve, with getaddrinfo's code.
///
/// Python: `socket.gaierror`. It travels inside an [`io::Error`]; get it back
/// with [`GaiError::of`].
///
/// # Examples
///
/// ```
/// let error = sock::getaddrinfo("no.such.name.invalid", 80).unwrap_err();
/// let gai = sock::GaiError::of(&error).unwrap();
/// assert!(gai.name().starts_with("EAI_"));
/// assert!(gai.to_string().contains("no.such.name.invalid"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct GaiError {
    code: i32,
    what: String,
}

impl GaiError {
    /// The `GaiError` inside an error, if a name was its cause.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&GaiError> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    /// The `EAI_` code, such as [`EAI_NONAME`](crate::EAI_NONAME).
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }

    /// The code's name, such as `EAI_NONAME`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        consts::gai_name(self.code).unwrap_or("EAI_UNKNOWN")
    }

    /// What getaddrinfo(3) says of `what`, as the error every caller sees:
    /// `EAI_SYSTEM` is only a pointer to errno, so errno is what is told.
    pub(crate) fn error(code: i32, system: io::Error, what: String) -> io::Error {
        // By name: not every system has each code.
        let kind = match consts::gai_name(code) {
            Some("EAI_SYSTEM") => return system,
            // NotFound where the answer is "there is none", so that `kind()` helps.
            Some("EAI_NONAME" | "EAI_NODATA" | "EAI_ADDRFAMILY" | "EAI_FAMILY") => io::ErrorKind::NotFound,
            Some("EAI_AGAIN") => io::ErrorKind::HostUnreachable,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, GaiError { code, what })
    }
}

impl fmt::Display for GaiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GaiError { code, what } = self;
        write!(f, "{what}: {} ({}, getaddrinfo error {code})", sys::gai_strerror(*code), self.name())
    }
}

impl Error for GaiError {}

/// What was being done, to which address, and the error that ended it.
///
/// Prints `bind 127.0.0.1:80: Permission denied (os error 13)`. Calls of
/// [`Socket`](crate::Socket) return the system's error untouched; the functions
/// above it, which make and use sockets for the caller, put this around it.
pub struct AddressError {
    verb: &'static str,
    address: String,
    cause: io::Error,
}

impl AddressError {
    /// Wraps `cause`; the kind stays the same, the cause is the `source`.
    pub fn wrap(verb: &'static str, address: impl fmt::Display, cause: io::Error) -> io::Error {
        let address = address.to_string();
        io::Error::new(cause.kind(), AddressError { verb, address, cause })
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.verb, self.address, self.cause)
    }
}

impl Error for AddressError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// As `Display`, so that a `main` that returns the error prints it readably.
macro_rules! debug_as_display {
    ($($type:ty)*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_as_display! { GaiError AddressError ArgumentError }

/// An argument no system call should see, and the errno that says why.
struct ArgumentError {
    sentence: String,
    cause: io::Error,
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sentence, self.cause)
    }
}

impl Error for ArgumentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// [`invalid`] where the system has an errno for the fault.
pub(crate) fn invalid_as(number: i32, sentence: String) -> io::Error {
    let cause = io::Error::from_raw_os_error(number);
    io::Error::new(io::ErrorKind::InvalidInput, ArgumentError { sentence, cause })
}

/// An argument no system call should see.
pub(crate) fn invalid(sentence: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, sentence.into())
}

/// The end of a socket's timeout, in Python's words.
pub(crate) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "timed out")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::c;

    #[test]
    fn an_address_error_keeps_kind_cause_and_errno() {
        let cause = io::Error::from_raw_os_error(c::EADDRINUSE);
        let error = AddressError::wrap("bind", "127.0.0.1:80", cause);
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(errno(&error), Some(c::EADDRINUSE));
        assert!(error.to_string().starts_with("bind 127.0.0.1:80: "), "{error}");
        let twice = AddressError::wrap("serve", "somewhere", error);
        assert_eq!(errno(&twice), Some(c::EADDRINUSE));
    }

    #[test]
    fn errnos_have_names() {
        assert_eq!(errno_name(c::ECONNREFUSED), Some("ECONNREFUSED"));
        assert_eq!(errno_name(c::EAGAIN), Some("EAGAIN"));
        assert_eq!(errno_name(-1), None);
    }

    #[cfg(unix)]
    #[test]
    fn eai_system_is_the_errno_behind_it() {
        let error = GaiError::error(c::EAI_SYSTEM, io::Error::from_raw_os_error(c::EMFILE), "x".into());
        assert_eq!(error.raw_os_error(), Some(c::EMFILE));
    }
}
