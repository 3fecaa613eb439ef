//! Errors, and how Python's exceptions map to them.
//!
//! Every call returns [`io::Result`].
//!
//! | Python raises | the call returns |
//! | --- | --- |
//! | `OSError` with an errno | [`io::Error`] with [`raw_os_error`](io::Error::raw_os_error), unchanged |
//! | `ConnectionRefusedError`, `BrokenPipeError`, … | the same, distinguished by [`io::Error::kind`] |
//! | `TimeoutError` of a socket's timeout | kind [`TimedOut`](io::ErrorKind::TimedOut), without an errno |
//! | `BlockingIOError` | kind [`WouldBlock`](io::ErrorKind::WouldBlock) |
//! | `socket.gaierror`, `socket.herror` | a [`GaiError`], a [`HostError`] as the source of the [`io::Error`] |
//! | `ValueError`, `TypeError`, `OverflowError` | kind [`InvalidInput`](io::ErrorKind::InvalidInput) with an [`ArgumentError`] as its source, which names the argument |
//! | an exception of a signal handler | [`was_interrupted`](crate::was_interrupted) |

use std::error::Error;
use std::fmt;
use std::io;

use crate::consts;
use crate::sys;

/// Returns the name of an errno, such as `ECONNREFUSED` for 111 on Linux.
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

/// Returns the errno in an error or its causes.
///
/// Python: `OSError.errno`. Returns `None` for errors that no system call caused, such as a
/// timeout, a name that does not resolve, or an invalid argument.
///
/// # Examples
///
/// ```
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let error = sock::create_server(server.getsockname()?).unwrap_err();
/// assert_eq!(error.raw_os_error(), None); // the address was added to it
/// assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("EADDRINUSE"));
/// # std::io::Result::Ok(())
/// ```
#[must_use]
pub fn errno(error: &io::Error) -> Option<i32> {
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}

/// Returns the first error of type `T` in an error and its causes.
///
/// Every `of` uses it, such as [`GaiError::of`]. Python: `isinstance` and `__cause__`.
///
/// # Examples
///
/// ```
/// use sock::{AddressError, GaiError, find_error};
///
/// let error = sock::getaddrinfo("no.such.name.invalid", 80).unwrap_err();
/// let error = AddressError::new("start", "the server", error).into();
/// assert!(find_error::<GaiError>(&error).is_some());
/// ```
#[must_use]
pub fn find_error<T: Error + 'static>(error: &io::Error) -> Option<&T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Iterates over an error and its causes. An `io::Error` may contain an error that its `source`
/// skips.
fn causes(error: &io::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |&error| match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as _),
        None => error.source(),
    })
}

/// A name or service that did not resolve, with the code of getaddrinfo(3).
///
/// Python: `socket.gaierror`. It is the source of an [`io::Error`]. [`GaiError::of`] returns it.
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
    /// Returns the `GaiError` in an error or its causes.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::GaiError;
    ///
    /// let error = sock::getaddrinfo("no.such.name.invalid", 80).unwrap_err();
    /// assert!(GaiError::of(&error).is_some());                     // except socket.gaierror
    /// assert!(GaiError::of(&std::io::Error::other("another error")).is_none());
    /// ```
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&GaiError> {
        find_error(error)
    }

    /// Returns the `EAI_` code, such as [`EAI_NONAME`](crate::EAI_NONAME).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AI_NUMERICHOST, EAI_NONAME, GaiError, Hints};
    ///
    /// let numbers = Hints::new().flags(AI_NUMERICHOST);
    /// let error = sock::getaddrinfo_with("localhost", 80, &numbers).unwrap_err();
    /// assert_eq!(GaiError::of(&error).unwrap().code(), EAI_NONAME);  // error.errno
    /// ```
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }

    /// Returns the name of the code, such as `EAI_NONAME`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AI_NUMERICHOST, GaiError, Hints};
    ///
    /// let numbers = Hints::new().flags(AI_NUMERICHOST);
    /// let error = sock::getaddrinfo_with("localhost", 80, &numbers).unwrap_err();
    /// assert_eq!(GaiError::of(&error).unwrap().name(), "EAI_NONAME");
    /// ```
    #[must_use]
    pub fn name(&self) -> &'static str {
        consts::gai_name(self.code).unwrap_or("EAI_UNKNOWN")
    }

    /// Returns the system's text for the code, such as `Name or service not known`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::GaiError;
    ///
    /// let error = sock::getaddrinfo("no.such.name.invalid", 80).unwrap_err();
    /// let text = GaiError::of(&error).unwrap().text();             // error.strerror
    /// assert!(error.to_string().contains(&text));
    /// ```
    #[must_use]
    pub fn text(&self) -> String {
        sys::gai_strerror(self.code)
    }

    /// Creates the error for a port outside 0..=65535.
    pub(crate) fn invalid_port(port: &dyn fmt::Display) -> io::Error {
        let what = format!("port must be 0-65535, not {port}");
        io::Error::new(io::ErrorKind::InvalidInput, GaiError { code: consts::EAI_SERVICE, what })
    }

    /// Creates the error of getaddrinfo(3) for `what`. `EAI_SYSTEM` stands for errno, so that is
    /// returned.
    pub(crate) fn error(code: i32, system: io::Error, what: String) -> io::Error {
        // By name, because not every system has each code.
        let kind = match consts::gai_name(code) {
            Some("EAI_SYSTEM") => return system,
            // NotFound if the name does not exist, so that callers can check the kind.
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

/// A host that the older lookup functions did not find, with their code.
///
/// Python: `socket.herror`. It is the source of an [`io::Error`]. [`HostError::of`] returns it. The
/// codes are those of netdb.h: 1 `HOST_NOT_FOUND`, 2 `TRY_AGAIN`, 3 `NO_RECOVERY`, 4 `NO_DATA` (on
/// Windows those of WinSock).
///
/// # Examples
///
/// ```
/// let error = sock::gethostbyaddr("192.0.2.1").unwrap_err(); // RFC 5737: unassigned
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
    /// Returns the `HostError` in an error or its causes.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::HostError;
    ///
    /// // RFC 5737 reserves the address, so it has no name.
    /// let error = sock::gethostbyaddr("192.0.2.1").unwrap_err();
    /// if let Some(host) = HostError::of(&error) {                  // except socket.herror
    ///     println!("{} {}", host.code(), host.text());
    /// }
    /// assert!(HostError::of(&std::io::Error::other("another error")).is_none());
    /// ```
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&HostError> {
        find_error(error)
    }

    /// Returns the code, Python's `h_errno`.
    ///
    /// # Examples
    ///
    /// ```
    /// // RFC 5737 reserves the address, so it has no name.
    /// let error = sock::gethostbyaddr("192.0.2.1").unwrap_err();
    /// if let Some(host) = sock::HostError::of(&error) {
    ///     assert_ne!(host.code(), 0);                              // error.errno
    /// }
    /// ```
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }

    /// Returns the system's text for the code, such as `Unknown host`.
    ///
    /// # Examples
    ///
    /// ```
    /// // RFC 5737 reserves the address, so it has no name.
    /// let error = sock::gethostbyaddr("192.0.2.1").unwrap_err();
    /// if let Some(host) = sock::HostError::of(&error) {
    ///     assert!(host.to_string().contains(&host.text()));
    /// }
    /// ```
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

/// An error with the operation and the address that it concerns.
///
/// Prints `bind 127.0.0.1:80: Permission denied (os error 13)`. Methods of
/// [`Socket`](crate::Socket) return the system's error unchanged. Functions that create and use
/// sockets for the caller add the operation and the address with this type.
///
/// # Examples
///
/// ```
/// use sock::AddressError;
/// use std::io;
///
/// let cause = io::ErrorKind::PermissionDenied.into();
/// let error = io::Error::from(AddressError::new("open", "127.0.0.1:80", cause));
/// assert_eq!(error.to_string(), "open 127.0.0.1:80: permission denied");
/// assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
/// assert_eq!(AddressError::of(&error).unwrap().address(), "127.0.0.1:80");
/// ```
pub struct AddressError {
    operation: &'static str,
    address: String,
    cause: io::Error,
}

impl AddressError {
    /// Creates an error from an operation, an address and the cause, which is the `source`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sock::AddressError;
    ///
    /// let cause = io::ErrorKind::PermissionDenied.into();
    /// let error = AddressError::new("bind", "127.0.0.1:80", cause);
    /// assert_eq!(error.to_string(), "bind 127.0.0.1:80: permission denied");
    /// ```
    #[must_use]
    pub fn new(operation: &'static str, address: impl fmt::Display, cause: io::Error) -> AddressError {
        AddressError { operation, address: address.to_string(), cause }
    }

    /// Returns the `AddressError` in an error or its causes.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::AddressError;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// # if !cfg!(windows) {
    /// let error = sock::create_server(server.getsockname()?).unwrap_err();
    /// let error = AddressError::of(&error).unwrap();
    /// assert_eq!(error.address(), server.getsockname()?.to_string());
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&AddressError> {
        find_error(error)
    }

    /// Returns the operation, such as `bind`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sock::AddressError;
    ///
    /// let error = AddressError::new("bind", "127.0.0.1:80", io::ErrorKind::PermissionDenied.into());
    /// assert_eq!(error.operation(), "bind");
    /// ```
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Returns the address.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    /// use sock::AddressError;
    ///
    /// let error = AddressError::new("bind", "127.0.0.1:80", io::ErrorKind::PermissionDenied.into());
    /// assert_eq!(error.address(), "127.0.0.1:80");
    /// ```
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// Keeps the kind of the cause.
impl From<AddressError> for io::Error {
    fn from(error: AddressError) -> io::Error {
        io::Error::new(error.cause.kind(), error)
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.address, self.cause)
    }
}

impl Error for AddressError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// Implements `Debug` as `Display`, so that a `main` that returns the error prints it readably.
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

/// An invalid argument, detected before a system call.
///
/// Python: `ValueError`, `OverflowError` and `TypeError`, and `OSError`s that it raises without a
/// system call. It is the source of an [`io::Error`] of kind
/// [`InvalidInput`](io::ErrorKind::InvalidInput) whose text names the argument.
/// [`ArgumentError::of`] returns it.
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
    message: String,
    /// The system's error for this fault, if there is one.
    cause: Option<io::Error>,
}

/// The reason why an argument is invalid.
///
/// # Examples
///
/// ```
/// use sock::{ArgumentError, ArgumentFault};
///
/// let (ours, _theirs) = sock::socketpair()?;
/// let error = ours.settimeout(-1).unwrap_err();
/// assert_eq!(ArgumentError::of(&error).unwrap().fault(), ArgumentFault::Value);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentFault {
    /// The value is not allowed. Python: `ValueError`.
    Value,
    /// The number is out of range. Python: `OverflowError`.
    Range,
    /// The type is wrong. Python: `TypeError`.
    Type,
    /// The system has an errno for the fault, which [`errno`] returns. Python: `OSError`.
    System,
}

impl ArgumentError {
    /// Returns the `ArgumentError` in an error or its causes.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, ArgumentError, ArgumentFault, ToAddress};
    ///
    /// let error = ("localhost", 70_000).to_address(AF_INET).unwrap_err();
    /// let argument = ArgumentError::of(&error).unwrap();
    /// assert_eq!(argument.fault(), ArgumentFault::Range);          // except OverflowError
    /// ```
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&ArgumentError> {
        find_error(error)
    }

    /// Returns the reason why the argument is invalid.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, ArgumentError, ArgumentFault, ToAddress};
    ///
    /// let error = ("localhost", -1).to_address(AF_INET).unwrap_err();
    /// assert_eq!(ArgumentError::of(&error).unwrap().fault(), ArgumentFault::Range);
    /// ```
    #[must_use]
    pub fn fault(&self) -> ArgumentFault {
        self.fault
    }

    fn error(fault: ArgumentFault, message: impl Into<String>, cause: Option<io::Error>) -> io::Error {
        let message = message.into();
        io::Error::new(io::ErrorKind::InvalidInput, ArgumentError { fault, message, cause })
    }
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{}: {cause}", self.message),
            None => f.pad(&self.message),
        }
    }
}

impl Error for ArgumentError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

/// Creates the error of a value that is not allowed.
pub(crate) fn invalid(message: impl Into<String>) -> io::Error {
    ArgumentError::error(ArgumentFault::Value, message, None)
}

/// Creates the error of a number that is out of range.
pub(crate) fn out_of_range(message: impl Into<String>) -> io::Error {
    ArgumentError::error(ArgumentFault::Range, message, None)
}

/// Creates the error of a wrong type.
pub(crate) fn wrong_type(message: impl Into<String>) -> io::Error {
    ArgumentError::error(ArgumentFault::Type, message, None)
}

/// Creates the error of an argument for whose fault the system has an errno.
pub(crate) fn invalid_as(number: i32, message: impl Into<String>) -> io::Error {
    ArgumentError::error(ArgumentFault::System, message, Some(io::Error::from_raw_os_error(number)))
}

/// Creates the error of an expired timeout, with Python's text.
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
        let error = io::Error::from(AddressError::new("bind", "127.0.0.1:80", cause));
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(errno(&error), Some(c::EADDRINUSE));
        assert!(error.to_string().starts_with("bind 127.0.0.1:80: "), "{error}");
    }

    /// Adds two wrappers: one that has the error as its source, and an `io::Error`.
    fn wrap(error: io::Error) -> io::Error {
        io::Error::other(AddressError::new("one", "wrapper", io::Error::other(error)))
    }

    #[test]
    fn every_error_is_found_inside_two_wrappers() {
        use crate::create::create_connection::{ConnectError, create_connection};

        let system = || io::Error::from_raw_os_error(c::EMFILE);
        assert_eq!(errno(&wrap(system())), Some(c::EMFILE));
        assert_eq!(errno(&wrap(invalid_as(c::EINVAL, "x"))), Some(c::EINVAL));
        assert_eq!(errno(&wrap(invalid("x"))), None);

        let gai = wrap(GaiError::error(consts::EAI_NONAME, system(), "x".into()));
        assert_eq!(GaiError::of(&gai).map(GaiError::code), Some(consts::EAI_NONAME));
        let host = wrap(HostError::error(1, "x".into()));
        assert_eq!(HostError::of(&host).map(HostError::code), Some(1));
        let argument = wrap(out_of_range("x"));
        assert_eq!(ArgumentError::of(&argument).map(ArgumentError::fault), Some(ArgumentFault::Range));
        let connect = wrap(create_connection(("127.0.0.1", 1)).unwrap_err());
        assert_eq!(ConnectError::of(&connect).unwrap().attempts().len(), 1);
        assert_eq!(AddressError::of(&wrap(system())).map(AddressError::operation), Some("one"));
        let interrupted = wrap(crate::call::cancel::Aborted::Interrupted.into());
        assert!(crate::was_interrupted(&interrupted) && !crate::was_cancelled(&interrupted));

        assert!(GaiError::of(&host).is_none() && find_error::<ConnectError>(&gai).is_none());
    }

    #[test]
    fn errnos_have_names() {
        assert_eq!(errno_name(c::ECONNREFUSED), Some("ECONNREFUSED"));
        assert_eq!(errno_name(c::EAGAIN), Some("EAGAIN"));
        assert_eq!(errno_name(-1), None);
    }

    #[cfg(unix)]
    #[test]
    fn eai_system_is_replaced_by_errno() {
        let error = GaiError::error(c::EAI_SYSTEM, io::Error::from_raw_os_error(c::EMFILE), "x".into());
        assert_eq!(error.raw_os_error(), Some(c::EMFILE));
    }
}
