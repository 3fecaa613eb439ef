//! Names to addresses.

use std::borrow::Cow;
use std::io;

use crate::address::{self, Address};
use crate::call::trace::call;
use crate::consts::{AF_UNSPEC, AddressFamily, AddressInfo, SocketKind};
use crate::error::out_of_range;
use crate::sys::{self, RawHints};

/// One way to reach a service. Python: an item of `getaddrinfo`'s list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddrInfo {
    /// For [`Socket::new`](crate::Socket::new).
    pub family: AddressFamily,
    /// For [`Socket::new`](crate::Socket::new). Python: `type`.
    pub kind: SocketKind,
    /// For [`Socket::new`](crate::Socket::new).
    pub proto: i32,
    /// Canonical name of the host, in the first answer and if asked for with `AI_CANONNAME`.
    pub canonname: Option<String>,
    /// For [`Socket::connect`](crate::Socket::connect). Python: `sockaddr`.
    pub address: Address,
}

/// What [`getaddrinfo_with`] should answer; the default takes everything.
#[derive(Clone, Copy, Debug)]
pub struct Hints {
    /// Only this family; `AF_UNSPEC` for any.
    pub family: AddressFamily,
    /// Only this kind; [`Hints::ANY_KIND`] for any. Python: `type`.
    pub kind: SocketKind,
    /// Only this protocol; 0 for any.
    pub proto: i32,
    /// Such as `AI_PASSIVE`.
    pub flags: AddressInfo,
}

impl Hints {
    /// Any kind of socket.
    pub const ANY_KIND: SocketKind = SocketKind::NONE;
}

impl Default for Hints {
    fn default() -> Hints {
        Hints { family: AF_UNSPEC, kind: Hints::ANY_KIND, proto: 0, flags: AddressInfo::NONE }
    }
}

/// A service: a port, a name such as `"http"`, or none.
pub trait ServiceName {
    /// The service as getaddrinfo(3) takes it.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a number outside 0..=65535.
    fn text(&self) -> io::Result<Option<Cow<'_, str>>>;
}

macro_rules! port {
    ($($type:ty)*) => {$(
        impl ServiceName for $type {
            fn text(&self) -> io::Result<Option<Cow<'_, str>>> {
                match u16::try_from(*self) {
                    Ok(port) => Ok(Some(Cow::Owned(port.to_string()))),
                    Err(_) => Err(out_of_range(format!("port must be 0-65535, not {self}"))),
                }
            }
        }
    )*};
}
port! { u16 i32 u32 i64 u64 usize }

impl ServiceName for str {
    fn text(&self) -> io::Result<Option<Cow<'_, str>>> {
        if is_number(self) && self.trim_ascii().parse::<u16>().is_err() {
            return Err(out_of_range(format!("port must be 0-65535, not {self:?}")));
        }
        Ok(Some(Cow::Borrowed(self)))
    }
}

/// Whether getaddrinfo(3) reads a service as a number, which it then takes modulo 65,536.
fn is_number(service: &str) -> bool {
    let digits = service.trim_ascii_start().trim_start_matches(['+', '-']);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl ServiceName for String {
    fn text(&self) -> io::Result<Option<Cow<'_, str>>> {
        self.as_str().text()
    }
}

impl<T: ServiceName + ?Sized> ServiceName for &T {
    fn text(&self) -> io::Result<Option<Cow<'_, str>>> {
        (**self).text()
    }
}

impl<T: ServiceName> ServiceName for Option<T> {
    fn text(&self) -> io::Result<Option<Cow<'_, str>>> {
        self.as_ref().map_or(Ok(None), ServiceName::text)
    }
}

/// Looks a host and a service up.
///
/// Python: `socket.getaddrinfo(host, port)`. Library call: getaddrinfo(3), which
/// knows no timeout. `None` for the host is this machine.
///
/// # Errors
///
/// A [`GaiError`](crate::GaiError) inside; `InvalidInput` for a port outside
/// 0..=65535 and a NUL in a name.
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

/// [`getaddrinfo`] for one family, kind or protocol, or with flags. Python:
/// `socket.getaddrinfo(host, port, family, type, proto, flags)`.
///
/// # Errors
///
/// Those of [`getaddrinfo`].
///
/// # Examples
///
/// ```
/// use sock::{AF_INET6, AI_PASSIVE, Hints, SOCK_STREAM};
///
/// // What a server that takes everybody binds to.
/// let hints = Hints { family: AF_INET6, kind: SOCK_STREAM, flags: AI_PASSIVE, ..Hints::default() };
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
    let answers = address::lookup(host.into(), service.text()?.as_deref(), raw)?;
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

/// Name of this machine.
///
/// Python: `socket.gethostname()`. System call: gethostname(2).
///
/// # Errors
///
/// The system's.
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

/// Renames this machine, for everybody on it.
///
/// Python: `socket.sethostname(name)`. System call: sethostname(2). Unix only.
///
/// # Errors
///
/// `PermissionDenied` for all but root; `EINVAL` for a name that is too long.
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
    use crate::error::{ArgumentError, ArgumentFault};

    #[test]
    fn a_port_that_is_none_is_refused_as_text_too() {
        // The system would take 70000 for 4464, and -5 for 65531.
        for text in ["65536", "70000", " 70000", "+70000", "-5", "99999999999999999999"] {
            let error = getaddrinfo("127.0.0.1", text).unwrap_err();
            let fault = ArgumentError::of(&error).map(ArgumentError::fault);
            assert_eq!(fault, Some(ArgumentFault::Range), "{error}");
        }
        for (text, port) in [("0", 0), ("65535", 65_535), ("0080", 80), ("+80", 80)] {
            let answers = getaddrinfo("127.0.0.1", text).unwrap();
            assert_eq!(answers[0].address.port(), Some(port), "{text}");
        }
    }
}
