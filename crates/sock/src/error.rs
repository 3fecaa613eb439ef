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
//! | `socket.gaierror`, `socket.herror` | a [`GaiError`], a [`HostError`] inside the [`io::Error`] |
//! | `ValueError`, `TypeError`, `OverflowError` | kind [`InvalidInput`](io::ErrorKind::InvalidInput) with an [`ArgumentError`] inside, which names the argument |
//! | an exception of a signal handler | [`was_interrupted`](crate::was_interrupted) |

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
///
/// # Examples
///
/// ```
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let error = sock::create_server(server.getsockname()?).unwrap_err();
/// assert_eq!(error.raw_os_error(), None); // there are words around it
/// assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("EADDRINUSE"));
/// # std::io::Result::Ok(())
/// ```
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

    /// What the system says of the code, such as `Name or service not known`.
    #[must_use]
    pub fn text(&self) -> String {
        sys::gai_strerror(self.code)
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
        write!(f, "{what}: {} ({}, getaddrinfo error {code})", self.text(), self.name())
    }
}

impl Error for GaiError {}

/// A host that the older look-ups did not find, with their code.
///
/// Python: `socket.herror`. It travels inside an [`io::Error`]; get it back with
/// [`HostError::of`]. The codes are those of netdb.h: 1 `HOST_NOT_FOUND`, 2
/// `TRY_AGAIN`, 3 `NO_RECOVERY`, 4 `NO_DATA` (on Windows WinSock's).
///
/// # Examples
///
/// ```
/// let error = sock::gethostbyaddr("192.0.2.1").unwrap_err(); // RFC 5737: nobody's
/// if let Some(host) = sock::HostError::of(&error) {
///     assert!(host.to_string().contains("192.0.2.1"));
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HostError {
    code: i32,
    what: String,
}

impl HostError {
    /// The `HostError` inside an error, if a host was its cause.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&HostError> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    /// The code, Python's `h_errno`.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }

    /// What the system says of the code, such as `Unknown host`.
    #[must_use]
    pub fn text(&self) -> String {
        sys::hstrerror(self.code)
    }

    pub(crate) fn error(code: i32, what: String) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, HostError { code, what })
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (host error {})", self.what, self.text(), self.code)
    }
}

impl Error for HostError {}

/// What was being done, to which address, and the error that ended it.
///
/// Prints `bind 127.0.0.1:80: Permission denied (os error 13)`. Calls of
/// [`Socket`](crate::Socket) return the system's error untouched; the functions
/// above it, which make and use sockets for the caller, put this around it.
///
/// # Examples
///
/// ```
/// use sock::AddressError;
/// use std::io;
///
/// let error = AddressError::wrap("open", "127.0.0.1:80", io::ErrorKind::PermissionDenied.into());
/// assert_eq!(error.to_string(), "open 127.0.0.1:80: permission denied");
/// assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
/// ```
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
debug_as_display! { GaiError HostError AddressError ArgumentError }

/// An argument that no system call should see.
///
/// Python: `ValueError`, `OverflowError` and `TypeError`, and those `OSError`s
/// that it raises without asking the system. It travels inside an [`io::Error`]
/// of kind [`InvalidInput`](io::ErrorKind::InvalidInput), whose text names the
/// argument; get it back with [`ArgumentError::of`].
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, ArgumentError, ArgumentFault, ToAddress};
///
/// let error = ("localhost", 70_000).to_address(AF_INET).unwrap_err();
/// assert_eq!(ArgumentError::of(&error).unwrap().fault(), ArgumentFault::Range);
/// ```
pub struct ArgumentError {
    fault: ArgumentFault,
    sentence: String,
    /// The system's own word for the fault, where it has one.
    cause: Option<io::Error>,
}

/// What is wrong with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentFault {
    /// It makes no sense here. Python: `ValueError`.
    Value,
    /// The number does not fit. Python: `OverflowError`.
    Range,
    /// It is of the wrong kind. Python: `TypeError`.
    Type,
    /// It is what the system calls by an errno: see [`errno`]. Python: `OSError`.
    System,
}

impl ArgumentError {
    /// The `ArgumentError` inside an error, if an argument was its cause.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&ArgumentError> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }

    /// What is wrong with the argument.
    #[must_use]
    pub fn fault(&self) -> ArgumentFault {
        self.fault
    }

    fn error(fault: ArgumentFault, sentence: impl Into<String>, cause: Option<io::Error>) -> io::Error {
        let sentence = sentence.into();
        io::Error::new(io::ErrorKind::InvalidInput, ArgumentError { fault, sentence, cause })
    }
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{}: {cause}", self.sentence),
            None => f.pad(&self.sentence),
        }
    }
}

impl Error for ArgumentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

/// An argument that makes no sense.
pub(crate) fn invalid(sentence: impl Into<String>) -> io::Error {
    ArgumentError::error(ArgumentFault::Value, sentence, None)
}

/// An argument that is a number too large or too small.
pub(crate) fn out_of_range(sentence: impl Into<String>) -> io::Error {
    ArgumentError::error(ArgumentFault::Range, sentence, None)
}

/// An argument that is of the wrong kind.
pub(crate) fn wrong_type(sentence: impl Into<String>) -> io::Error {
    ArgumentError::error(ArgumentFault::Type, sentence, None)
}

/// An argument for whose fault the system has an errno.
pub(crate) fn invalid_as(number: i32, sentence: impl Into<String>) -> io::Error {
    ArgumentError::error(ArgumentFault::System, sentence, Some(io::Error::from_raw_os_error(number)))
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
