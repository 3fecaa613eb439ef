//! Conversion of names into addresses.

use std::borrow::Cow;
use std::io;

use crate::address::{self, Address};
use crate::call::trace::call;
use crate::consts::{AF_UNSPEC, AddressFamily, AddressInfo, SocketKind};
use crate::error::GaiError;
use crate::sys::{self, RawHints};

/// An address of a service. Python: an item of `getaddrinfo`'s list.
///
/// # Examples
///
/// ```
/// use sock::Socket;
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let port = server.getsockname()?.port().unwrap();
/// let info = &sock::getaddrinfo("127.0.0.1", port)?[0];
/// let client = Socket::new(info.family, info.kind, info.proto)?;
/// client.connect(&info.address)?;
/// assert_eq!(client.getpeername()?, server.getsockname()?);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddrInfo {
    /// The family, for [`Socket::new`](crate::Socket::new).
    pub family: AddressFamily,
    /// The socket type, for [`Socket::new`](crate::Socket::new). Python: `type`.
    pub kind: SocketKind,
    /// The protocol, for [`Socket::new`](crate::Socket::new).
    pub proto: i32,
    /// Canonical name of the host, in the first result and only if requested with `AI_CANONNAME`.
    pub canonname: Option<String>,
    /// The address, for [`Socket::connect`](crate::Socket::connect). Python: `sockaddr`.
    pub address: Address,
}

/// Limits the results of [`getaddrinfo_with`]. The default does not limit them.
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, Hints, SOCK_DGRAM};
///
/// let hints = Hints::new().family(AF_INET).kind(SOCK_DGRAM);
/// # let _ = hints;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hints {
    /// Address family, or `AF_UNSPEC` for any.
    pub family: AddressFamily,
    /// Socket type, or [`Hints::ANY_KIND`] for any. Python: `type`.
    pub kind: SocketKind,
    /// Protocol, or 0 for any.
    pub proto: i32,
    /// Flags, such as `AI_PASSIVE`.
    pub flags: AddressInfo,
}

impl Hints {
    /// Any type of socket.
    pub const ANY_KIND: SocketKind = SocketKind::NONE;

    /// Creates hints that do not limit the results.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Hints;
    ///
    /// let all = sock::getaddrinfo_with("127.0.0.1", 80, &Hints::new())?;
    /// assert_eq!(all, sock::getaddrinfo("127.0.0.1", 80)?);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> Hints {
        Hints { family: AF_UNSPEC, kind: Hints::ANY_KIND, proto: 0, flags: AddressInfo::NONE }
    }

    /// Limits the results to an address family.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, Hints};
    ///
    /// let found = sock::getaddrinfo_with("localhost", 80, &Hints::new().family(AF_INET))?;
    /// assert!(found.iter().all(|info| info.family == AF_INET));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn family(mut self, family: AddressFamily) -> Hints {
        self.family = family;
        self
    }

    /// Limits the results to a socket type. Python: `type`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Hints, SOCK_DGRAM};
    ///
    /// let found = sock::getaddrinfo_with("127.0.0.1", 53, &Hints::new().kind(SOCK_DGRAM))?;
    /// assert!(found.iter().all(|info| info.kind == SOCK_DGRAM));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn kind(mut self, kind: SocketKind) -> Hints {
        self.kind = kind;
        self
    }

    /// Limits the results to a protocol.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Hints, IPPROTO_TCP};
    ///
    /// let found = sock::getaddrinfo_with("127.0.0.1", 80, &Hints::new().proto(IPPROTO_TCP))?;
    /// assert!(found.iter().all(|info| info.proto == IPPROTO_TCP));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn proto(mut self, proto: i32) -> Hints {
        self.proto = proto;
        self
    }

    /// Sets flags, such as `AI_PASSIVE`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AI_NUMERICHOST, Hints};
    ///
    /// // A name is refused, so nothing is looked up.
    /// let numbers = Hints::new().flags(AI_NUMERICHOST);
    /// assert!(sock::getaddrinfo_with("127.0.0.1", 80, &numbers).is_ok());
    /// assert!(sock::getaddrinfo_with("localhost", 80, &numbers).is_err());
    /// ```
    #[must_use]
    pub fn flags(mut self, flags: AddressInfo) -> Hints {
        self.flags = flags;
        self
    }
}

impl Default for Hints {
    fn default() -> Hints {
        Hints::new()
    }
}

/// A service: a port, a name such as `"http"`, or none.
///
/// # Examples
///
/// ```
/// let by_number = sock::getaddrinfo("127.0.0.1", 80)?;
/// let by_text = sock::getaddrinfo("127.0.0.1", "80")?;
/// assert_eq!(by_number[0].address, by_text[0].address);
/// # std::io::Result::Ok(())
/// ```
pub trait ServiceName {
    /// Returns the service as text for getaddrinfo(3).
    ///
    /// # Errors
    ///
    /// Returns a [`GaiError`](crate::GaiError) with `EAI_SERVICE`, of kind `InvalidInput`, if the number
    /// is outside 0..=65535.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::ServiceName;
    ///
    /// assert_eq!(80.as_text()?.as_deref(), Some("80"));
    /// assert!(70_000.as_text().is_err());
    /// # std::io::Result::Ok(())
    /// ```
    fn as_text(&self) -> io::Result<Option<Cow<'_, str>>>;
}

macro_rules! port {
    ($($type:ty)*) => {$(
        impl ServiceName for $type {
            fn as_text(&self) -> io::Result<Option<Cow<'_, str>>> {
                match u16::try_from(*self) {
                    Ok(port) => Ok(Some(Cow::Owned(port.to_string()))),
                    Err(_) => Err(GaiError::invalid_port(self)),
                }
            }
        }
    )*};
}
port! { u16 i32 u32 i64 u64 usize }

impl ServiceName for str {
    fn as_text(&self) -> io::Result<Option<Cow<'_, str>>> {
        if is_number(self) && self.trim_ascii().parse::<u16>().is_err() {
            return Err(GaiError::invalid_port(&format_args!("{self:?}")));
        }
        Ok(Some(Cow::Borrowed(self)))
    }
}

/// Returns whether getaddrinfo(3) parses a service as a number, which it reduces modulo 65,536.
fn is_number(service: &str) -> bool {
    let digits = service.trim_ascii_start().trim_start_matches(['+', '-']);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl ServiceName for String {
    fn as_text(&self) -> io::Result<Option<Cow<'_, str>>> {
        self.as_str().as_text()
    }
}

impl<T: ServiceName + ?Sized> ServiceName for &T {
    fn as_text(&self) -> io::Result<Option<Cow<'_, str>>> {
        (**self).as_text()
    }
}

impl<T: ServiceName> ServiceName for Option<T> {
    fn as_text(&self) -> io::Result<Option<Cow<'_, str>>> {
        self.as_ref().map_or(Ok(None), ServiceName::as_text)
    }
}

/// Looks up a host and a service.
///
/// Python: `socket.getaddrinfo(host, port)`. Library call: getaddrinfo(3), which has no timeout.
/// `None` as the host stands for this machine.
///
/// # Errors
///
/// Returns a [`GaiError`](crate::GaiError) if the name does not resolve, or if the port is outside
/// 0..=65535 (`EAI_SERVICE`, of kind `InvalidInput`). Returns an error of kind `InvalidInput` if a
/// name contains a NUL.
///
/// # Examples
///
/// ```
/// let answers = sock::getaddrinfo("127.0.0.1", 80)?;
/// assert_eq!(answers[0].address.to_string(), "127.0.0.1:80");
/// # std::io::Result::Ok(())
/// ```
pub fn getaddrinfo<'h>(
    host: impl Into<Option<&'h str>>,
    service: impl ServiceName,
) -> io::Result<Vec<AddrInfo>> {
    getaddrinfo_with(host, service, &Hints::default())
}

/// Looks up a host and a service, limited to a family, socket type or protocol, or with flags.
///
/// Python: `socket.getaddrinfo(host, port, family, type, proto, flags)`. Library call:
/// getaddrinfo(3).
///
/// # Errors
///
/// Returns an error if [`getaddrinfo`] does.
///
/// # Examples
///
/// ```
/// use sock::{AF_INET6, AI_PASSIVE, Hints, SOCK_STREAM};
///
/// // The address of a server on every interface.
/// let hints = Hints::new().family(AF_INET6).kind(SOCK_STREAM).flags(AI_PASSIVE);
/// let answers = sock::getaddrinfo_with(None, 8000, &hints)?;
/// assert_eq!(answers[0].address.to_string(), "[::]:8000");
/// # std::io::Result::Ok(())
/// ```
pub fn getaddrinfo_with<'h>(
    host: impl Into<Option<&'h str>>,
    service: impl ServiceName,
    hints: &Hints,
) -> io::Result<Vec<AddrInfo>> {
    let raw = RawHints {
        flags: hints.flags.as_raw(),
        family: hints.family.as_raw(),
        kind: hints.kind.as_raw(),
        proto: hints.proto,
    };
    let answers = address::lookup(host.into(), service.as_text()?.as_deref(), raw)?;
    Ok(answers.into_iter().map(AddrInfo::from).collect())
}

impl From<sys::RawAddrInfo> for AddrInfo {
    fn from(raw: sys::RawAddrInfo) -> AddrInfo {
        AddrInfo {
            family: raw.family.into(),
            kind: raw.kind.into(),
            proto: raw.proto,
            canonname: raw.canonname,
            address: Address::from_socket_addr(raw.address),
        }
    }
}

/// Returns the name of this machine.
///
/// Python: `socket.gethostname()`. System call: gethostname(2).
///
/// # Errors
///
/// Returns an error if gethostname(2) fails.
///
/// # Examples
///
/// ```
/// println!("this machine is {}", sock::gethostname()?);
/// # std::io::Result::Ok(())
/// ```
pub fn gethostname() -> io::Result<String> {
    call!("gethostname()" => sys::gethostname())
}

/// Sets the name of this machine, for all of its processes.
///
/// Python: `socket.sethostname(name)`. System call: sethostname(2). Unix only.
///
/// # Errors
///
/// Returns an error if the process may not do this (`PermissionDenied`, only root may) or if the
/// name is too long (`EINVAL`).
///
/// # Examples
///
/// ```
/// assert!(sock::sethostname("x".repeat(10_000)).is_err()); // even for root
/// ```
#[cfg(unix)]
pub fn sethostname(name: impl AsRef<[u8]>) -> io::Result<()> {
    let name = name.as_ref();
    call!("sethostname(\"{}\")", name.escape_ascii() => sys::sethostname(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consts::EAI_SERVICE;
    #[test]
    fn an_invalid_port_is_refused_as_text_too() {
        // The system would use 4464 instead of 70000, and 65531 instead of -5.
        for text in ["65536", "70000", " 70000", "+70000", "-5", "99999999999999999999"] {
            for host in [Some("127.0.0.1"), Some("no.such.name.invalid"), None] {
                let error = getaddrinfo(host, text).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
                assert_eq!(GaiError::of(&error).map(GaiError::code), Some(EAI_SERVICE), "{error}");
                assert!(error.to_string().contains(text), "{error}");
            }
        }
        for number in [-1, 65_536, i64::MIN, i64::MAX] {
            let error = getaddrinfo("no.such.name.invalid", number).unwrap_err();
            assert_eq!(GaiError::of(&error).map(GaiError::code), Some(EAI_SERVICE), "{error}");
        }
        for (text, port) in [("0", 0), ("65535", 65_535), ("0080", 80), ("+80", 80)] {
            let answers = getaddrinfo("127.0.0.1", text).unwrap();
            assert_eq!(answers[0].address.port(), Some(port), "{text}");
        }
    }
}
