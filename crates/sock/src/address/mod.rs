//! Addresses.
//!
//! Calls return an [`Address`] and accept any [`ToAddress`]. As in Python, a tuple is an internet
//! address and a string or path is a Unix address.
//!
//! | Python | here |
//! | --- | --- |
//! | `("localhost", 80)` | the same; the port may be any integer, or text: `"8000"`, `"http"` |
//! | `("", 80)` | the same: every interface |
//! | `("<broadcast>", 80)` | the same: 255.255.255.255, IPv4 only |
//! | `("fe80::1%eth0", 80)` | the same |
//! | `("::1", 80, flowinfo, scope_id)` | the same |
//! | `"/tmp/sock"`, `b"/tmp/sock"` | `"/tmp/sock"`, any [`Path`] |
//! | `"\0name"` (Linux) | `"\0name"`, `b"\0name"` |

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "not_linux.rs")]
pub(crate) mod os;
mod port;

use std::borrow::Cow;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::{Path, PathBuf};

pub use port::Port;
use socket2::SockAddr;

use crate::call::trace::{TraceValue, call};
use crate::consts::{AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, AddressFamily};
use crate::error::{GaiError, invalid, invalid_as, out_of_range, wrong_type};
use crate::sys::{self, RawHints, c};

/// An address of a socket or of its peer.
///
/// Python: the return value of `accept`, `recvfrom`, `getsockname` and `getpeername`. It prints as
/// `127.0.0.1:80`, `[::1]:80`, `/tmp/sock` or `@abstract`. The address of an unbound Unix socket
/// prints as `(unnamed)`. Control characters of a path are escaped.
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, Address, ToAddress, UnixAddress};
///
/// let address = ("127.0.0.1", 80).to_address(AF_INET)?;
/// assert_eq!((address.ip().unwrap().to_string(), address.port()), ("127.0.0.1".into(), Some(80)));
/// let (pair, _) = sock::socketpair()?;
/// # if cfg!(unix) {
/// assert_eq!(pair.getsockname()?, Address::Unix(UnixAddress::Unnamed));
/// # }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `AF_INET`. Python: `(host, port)`.
    Inet(SocketAddrV4),
    /// `AF_INET6`. Python: `(host, port, flowinfo, scope_id)`.
    Inet6(SocketAddrV6),
    /// `AF_UNIX`. Python: `str`, or `bytes` for an abstract name.
    Unix(UnixAddress),
    /// `AF_NETLINK`. Python: `(pid, groups)`.
    #[cfg(target_os = "linux")]
    Netlink(os::NetlinkAddress),
    /// `AF_PACKET`. Python: `(ifname, proto, pkttype, hatype, addr)`.
    #[cfg(target_os = "linux")]
    Packet(os::PacketAddress),
    /// `AF_VSOCK`. Python: `(cid, port)`.
    #[cfg(target_os = "linux")]
    Vsock(os::VsockAddress),
    /// `AF_CAN`. Python: `(ifname, …)`, by protocol.
    #[cfg(target_os = "linux")]
    Can(os::CanAddress),
    /// Any other family, with the bytes after the family field. Python: `(family, bytes)`.
    Other(AddressFamily, Box<[u8]>),
    /// No address, as `recvfrom` returns for a connected stream. Python: `None`.
    None,
}

/// Name of a Unix socket.
///
/// # Examples
///
/// ```
/// use sock::{AF_UNIX, Address, ToAddress, UnixAddress};
///
/// let address = "/run/echo.sock".to_address(AF_UNIX)?;
/// assert_eq!(address, Address::Unix(UnixAddress::Path("/run/echo.sock".into())));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnixAddress {
    /// A socket that is not bound, such as most clients. Python: `''`.
    Unnamed,
    /// A path in the file system. Python: `str`.
    Path(PathBuf),
    /// A name in Linux's abstract namespace, without its leading NUL. Python: `bytes` with the NUL.
    Abstract(Box<[u8]>),
}

impl Address {
    /// Returns the family of the address, or `AF_UNSPEC` for [`Address::None`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, _theirs) = sock::socketpair()?;
    /// # if cfg!(unix) {
    /// assert_eq!(ours.getsockname()?.family(), sock::AF_UNIX);
    /// # }
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// assert_eq!(server.getsockname()?.family(), sock::AF_INET);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn family(&self) -> AddressFamily {
        match self {
            Address::Inet(_) => AF_INET,
            Address::Inet6(_) => AF_INET6,
            Address::Unix(_) => AF_UNIX,
            Address::Other(family, _) => *family,
            Address::None => AF_UNSPEC,
            #[allow(unreachable_patterns, reason = "other systems have no such addresses")]
            address => os::as_os_address(address).map_or(AF_UNSPEC, |address| address.family()),
        }
    }

    /// Returns the IP address of an internet address.
    ///
    /// The IPv4 peer of a dual-stack socket has the form `::ffff:a.b.c.d`, which
    /// [`IpAddr::to_canonical`] converts into an IPv4 address.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let address = server.getsockname()?;
    /// assert_eq!(address.ip(), Some(Ipv4Addr::LOCALHOST.into()));  // sock.getsockname()[0]
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.to_socket_addr().map(|address| address.ip())
    }

    /// Returns the port of an internet address.
    ///
    /// # Examples
    ///
    /// ```
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let port = server.getsockname()?.port().unwrap();            // sock.getsockname()[1]
    /// assert_ne!(port, 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.to_socket_addr().map(|address| address.port())
    }

    /// Returns the path of a Unix address that has one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::path::Path;
    /// use sock::{AF_UNIX, ToAddress};
    ///
    /// # if cfg!(unix) {
    /// let address = "/run/echo.sock".to_address(AF_UNIX)?;
    /// assert_eq!(address.path(), Some(Path::new("/run/echo.sock")));
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Address::Unix(UnixAddress::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// Converts an internet address into the standard library's type.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::TcpStream;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let address = server.getsockname()?.to_socket_addr().unwrap();
    /// // A client of the standard library.
    /// assert_eq!(TcpStream::connect(address)?.peer_addr()?, address);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn to_socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(address) => Some(SocketAddr::V4(*address)),
            Address::Inet6(address) => Some(SocketAddr::V6(*address)),
            _ => None,
        }
    }

    pub(crate) fn from_sys(address: &SockAddr) -> Address {
        match AddressFamily::from(i32::from(address.family())) {
            AF_INET | AF_INET6 => address.as_socket().map_or(Address::None, Address::from_socket_addr),
            // An unbound Unix socket has only a family. An address without a family is no address.
            AF_UNIX => Address::Unix(match sys::unix_name(address) {
                sys::UnixName::Unnamed => UnixAddress::Unnamed,
                sys::UnixName::Path(path) => UnixAddress::Path(path),
                sys::UnixName::Abstract(name) => UnixAddress::Abstract(name.into()),
            }),
            AF_UNSPEC => Address::None,
            family => {
                let bytes = sys::other_parts(address).1;
                if let Some(address) = os::read(family, &bytes) {
                    return address;
                }
                Address::Other(family, bytes.into())
            }
        }
    }

    /// Converts an address from the system. Its flow information is big-endian, and neither `std`
    /// nor `socket2` swaps it.
    pub(crate) fn from_socket_addr(address: SocketAddr) -> Address {
        match address {
            SocketAddr::V4(address) => Address::Inet(address),
            SocketAddr::V6(address) => Address::Inet6(swap_flowinfo(address)),
        }
    }

    pub(crate) fn to_sys(&self) -> io::Result<SockAddr> {
        match self {
            Address::Inet(address) => Ok(SockAddr::from(*address)),
            Address::Inet6(address) => Ok(SockAddr::from(swap_flowinfo(*address))),
            Address::Unix(address) => address.to_sys(),
            Address::Other(family, bytes) => other_to_sys(*family, bytes),
            Address::None => Err(invalid("no address given")),
            #[allow(unreachable_patterns, reason = "other systems have no such addresses")]
            address => match os::as_os_address(address) {
                Some(address) => other_to_sys(address.family(), &address.to_sockaddr_bytes()),
                None => Err(invalid("no address given")),
            },
        }
    }
}

/// What the addresses of the families of one system have in common.
trait OsAddress: fmt::Display {
    fn family(&self) -> AddressFamily;

    /// Returns the bytes after the family field.
    fn to_sockaddr_bytes(&self) -> Vec<u8>;
}

fn other_to_sys(family: AddressFamily, bytes: &[u8]) -> io::Result<SockAddr> {
    sys::other_address(family.as_raw(), bytes)
        .ok_or_else(|| invalid(format!("{family} address of {} bytes is too long", bytes.len())))
}

fn swap_flowinfo(address: SocketAddrV6) -> SocketAddrV6 {
    SocketAddrV6::new(*address.ip(), address.port(), address.flowinfo().to_be(), address.scope_id())
}

impl UnixAddress {
    fn to_sys(&self) -> io::Result<SockAddr> {
        match self {
            UnixAddress::Unnamed => sys::unix_address(b""),
            UnixAddress::Path(path) => {
                let bytes = path.as_os_str().as_encoded_bytes();
                // Python truncates the path at the NUL and binds another file than the given one.
                if bytes.contains(&0) {
                    return Err(invalid(format!("AF_UNIX path {path:?} contains a NUL")));
                }
                check_unix_length(bytes.len(), sys::UNIX_PATH_MAX, self)?;
                sys::unix_address(bytes)
            }
            UnixAddress::Abstract(name) => {
                check_unix_length(name.len(), sys::UNIX_PATH_MAX, self)?;
                sys::unix_address(&[b"\0", &name[..]].concat())
            }
        }
    }
}

fn check_unix_length(len: usize, max: usize, address: &UnixAddress) -> io::Result<()> {
    if len <= max {
        return Ok(());
    }
    let message = format!("AF_UNIX path too long ({len} bytes, at most {max}): {address}");
    Err(invalid_as(c::ENAMETOOLONG, message))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => fmt::Display::fmt(address, f),
            Address::Inet6(address) => fmt::Display::fmt(address, f),
            Address::Unix(address) => fmt::Display::fmt(address, f),
            Address::Other(family, bytes) => write!(f, "{family} {bytes:02x?}"),
            Address::None => f.pad("(none)"),
            #[allow(unreachable_patterns, reason = "other systems have no such addresses")]
            address => match os::as_os_address(address) {
                Some(address) => fmt::Display::fmt(address, f),
                None => f.pad("(none)"),
            },
        }
    }
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnixAddress::Unnamed => f.pad("(unnamed)"),
            UnixAddress::Path(path) => {
                let text = path.to_string_lossy();
                if !text.contains(breaks_line) {
                    return fmt::Display::fmt(&path.display(), f);
                }
                // The peer chooses the path, which must not start a new line in a log.
                for character in text.chars() {
                    match breaks_line(character) {
                        true => write!(f, "{}", character.escape_default())?,
                        false => write!(f, "{character}")?,
                    }
                }
                Ok(())
            }
            UnixAddress::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

/// Returns whether a terminal or a log reader may act on the character: a control character, or one
/// of the line separators of Unicode.
fn breaks_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Address::Inet(address),
            SocketAddr::V6(address) => Address::Inet6(address),
        }
    }
}

/// A value that can be converted into an address: a tuple, a path, an [`Address`] or a `std::net`
/// address.
///
/// Python: the address argument of `bind`, `connect` and `sendto`, with its tuple and string forms.
/// A host name is looked up in the family of the socket, and the first result is used.
///
/// # Errors
///
/// Returns an error of kind `InvalidInput` if the port is not in 0..=65535, if the host contains a
/// NUL, if it is `<broadcast>` or 255.255.255.255 outside IPv4, if a Unix path contains a NUL or is
/// longer than 107 bytes (`ENAMETOOLONG`), or if the address is of another family than the socket
/// (`EAFNOSUPPORT`). Returns a [`GaiError`] if the name does not resolve in that family.
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, AF_UNIX, ToAddress};
///
/// assert_eq!(("127.0.0.1", 80).to_address(AF_INET)?.to_string(), "127.0.0.1:80");
/// assert_eq!(("", 80).to_address(AF_INET)?.to_string(), "0.0.0.0:80");
/// assert_eq!("/tmp/echo".to_address(AF_UNIX)?.to_string(), "/tmp/echo");
/// let error = ("localhost", 70_000).to_address(AF_INET).unwrap_err();
/// assert_eq!(error.to_string(), "port must be 0-65535, not 70000 (host \"localhost\")");
/// # std::io::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a socket address",
    label = "not an address",
    note = "an IPv4 or IPv6 address is a tuple such as `(\"127.0.0.1\", 9999)`, or a `SocketAddr`; the path \
            of a Unix socket is a `&str` or a `Path`"
)]
pub trait ToAddress {
    /// Returns the address for a socket of `family`.
    ///
    /// `AF_UNSPEC` accepts any family, and prefers the IPv4 addresses of a name. There and for an
    /// internet socket a text such as `"127.0.0.1:9999"` is an error, whose message has the right form.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, ToAddress};
    ///
    /// let address = ("127.0.0.1", 80).to_address(AF_INET)?;
    /// assert_eq!(address.to_string(), "127.0.0.1:80");
    /// # std::io::Result::Ok(())
    /// ```
    fn to_address(&self, family: AddressFamily) -> io::Result<Address>;
}

impl<T: ToAddress + ?Sized> ToAddress for &T {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        (**self).to_address(family)
    }
}

impl ToAddress for Address {
    #[inline]
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        match self {
            // The usual case needs no checks.
            Address::Inet(address) if family == AF_INET => Ok(Address::Inet(*address)),
            _ => self.to_any_address(family),
        }
    }
}

impl Address {
    fn to_any_address(&self, family: AddressFamily) -> io::Result<Address> {
        if family != AF_UNSPEC && family != self.family() && *self != Address::None {
            let message =
                format!("address {self} is of family {}, but the socket is {family}", self.family());
            return Err(invalid_as(c::EAFNOSUPPORT, message));
        }
        Ok(self.clone())
    }
}

impl ToAddress for SocketAddr {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        Address::from(*self).to_address(family)
    }
}

impl<H: Host, P: Port> ToAddress for (H, P) {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        internet_address(&self.0.as_text(), &self.1, family)
    }
}

/// An address with flow information and scope, as for IPv6 in Python.
impl<H: Host, P: Port> ToAddress for (H, P, u32, u32) {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        let (host, port, flowinfo, scope_id) = self;
        // RFC 6437: a flow label has 20 bits.
        if *flowinfo > 0xF_FFFF {
            return Err(out_of_range(format!("flowinfo must be 0-1048575, not {flowinfo}")));
        }
        match internet_address(&host.as_text(), port, family)? {
            Address::Inet6(address) => {
                Ok(Address::Inet6(SocketAddrV6::new(*address.ip(), address.port(), *flowinfo, *scope_id)))
            }
            address => {
                Err(invalid(format!("flowinfo and scope id given for {address}, which is not IPv6")))
            }
        }
    }
}

/// A host in an address tuple: a name, a number as text, or an IP address.
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, Host, ToAddress};
///
/// fn describe(host: impl Host) -> String {
///     format!("host {}", host.as_text())
/// }
///
/// assert_eq!(describe(std::net::Ipv4Addr::LOCALHOST), "host 127.0.0.1");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a host",
    label = "not a host",
    note = "a host is a name or a number as text, such as `\"localhost\"`, or an IP address"
)]
pub trait Host {
    /// Returns the host as Python would pass it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sock::Host;
    ///
    /// assert_eq!("localhost".as_text(), "localhost");
    /// assert_eq!(Ipv4Addr::LOCALHOST.as_text(), "127.0.0.1");
    /// ```
    fn as_text(&self) -> Cow<'_, str>;
}

macro_rules! host {
    ($($type:ty: $self:ident => $text:expr),* $(,)?) => {$(
        impl Host for $type {
            fn as_text(&$self) -> Cow<'_, str> {
                $text
            }
        }
    )*};
}
host! {
    str: self => Cow::Borrowed(self),
    String: self => Cow::Borrowed(self),
    IpAddr: self => Cow::Owned(self.to_string()),
    Ipv4Addr: self => Cow::Owned(self.to_string()),
    Ipv6Addr: self => Cow::Owned(self.to_string()),
}

impl<T: Host + ?Sized> Host for &T {
    fn as_text(&self) -> Cow<'_, str> {
        (**self).as_text()
    }
}

macro_rules! unix {
    ($($type:ty: $self:ident => $bytes:expr, is_path: $is_path:literal;)*) => {$(
        impl ToAddress for $type {
            fn to_address(&$self, family: AddressFamily) -> io::Result<Address> {
                refuse_internet_text($bytes, family, $is_path)?;
                unix_from_bytes($bytes).to_address(family)
            }
        }
    )*};
}
unix! {
    str: self => self.as_bytes(), is_path: false;
    String: self => self.as_bytes(), is_path: false;
    Path: self => self.as_os_str().as_encoded_bytes(), is_path: true;
    PathBuf: self => self.as_os_str().as_encoded_bytes(), is_path: true;
    [u8]: self => self, is_path: false;
    Vec<u8>: self => self, is_path: false;
}

impl<const N: usize> ToAddress for [u8; N] {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        self[..].to_address(family)
    }
}

/// Refuses `"127.0.0.1:9999"` with the form that is right. In Python a text is the path of a Unix
/// socket, and `"127.0.0.1:9999"` may be one: for a Unix socket it is not refused, and where each
/// family is accepted, the path is written with a slash in it, or as a `Path`.
fn refuse_internet_text(text: &[u8], family: AddressFamily, is_path: bool) -> io::Result<()> {
    if ![AF_INET, AF_INET6, AF_UNSPEC].contains(&family) || (family == AF_UNSPEC && is_path) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(text);
    let Some((host, port)) = text.rsplit_once(':') else { return Ok(()) };
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if !is_port || host.contains(['/', '\0']) {
        return Ok(());
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if family == AF_UNSPEC {
        return Err(invalid(format!(
            "a text such as {text:?} is the path of an AF_UNIX socket: write ({host:?}, {port}) for an \
             internet address, or {:?} for the path",
            format!("./{text}")
        )));
    }
    let message = format!(
        "a text such as {text:?} is the path of an AF_UNIX socket, but the socket is {family}: write \
         ({host:?}, {port})"
    );
    Err(invalid_as(c::EAFNOSUPPORT, message))
}

/// Converts Python's three Unix forms: an empty name (on Linux the kernel selects a name), a
/// leading NUL for an abstract name, and a path.
fn unix_from_bytes(name: &[u8]) -> Address {
    Address::Unix(match name {
        [] => UnixAddress::Unnamed,
        [0, name @ ..] => UnixAddress::Abstract(name.into()),
        path => UnixAddress::Path(sys::path_from_bytes(path)),
    })
}

/// Checks the host before the port, as Python does.
fn internet_address(host: &str, port: &impl Port, family: AddressFamily) -> io::Result<Address> {
    if ![AF_INET, AF_INET6, AF_UNSPEC].contains(&family) {
        let message =
            format!("address ({host:?}, {port}) is an internet address, but the socket is {family}");
        return Err(invalid_as(c::EAFNOSUPPORT, message));
    }
    let mut address = resolve_host(host, family)?;
    address.set_port(port.to_port(host)?);
    Ok(Address::from(address))
}

/// CPython's `setipaddr`: special hosts, then numbers, then the resolver's first result.
fn resolve_host(host: &str, family: AddressFamily) -> io::Result<SocketAddr> {
    let v4 = family != AF_INET6;
    let v6 = family != AF_INET;
    match host {
        "" if v4 => return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
        "" => return Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)),
        "<broadcast>" | "255.255.255.255" if v4 => {
            return Ok(SocketAddr::new(Ipv4Addr::BROADCAST.into(), 0));
        }
        "<broadcast>" | "255.255.255.255" => {
            let message = format!("host {host:?} is IPv4, but the socket is {family}");
            return Err(invalid_as(c::EAFNOSUPPORT, message));
        }
        _ => {}
    }
    match host.parse() {
        Ok(ip @ IpAddr::V4(_)) if v4 => return Ok(SocketAddr::new(ip, 0)),
        Ok(ip @ IpAddr::V6(_)) if v6 => return Ok(SocketAddr::new(ip, 0)),
        _ => {}
    }
    let answers =
        lookup(Some(host), None, sys::RawHints { family: family.as_raw(), ..Default::default() })?;
    let first = answers.iter().find(|answer| answer.address.is_ipv4()).or(answers.first());
    match first {
        Some(answer) => Ok(answer.address),
        None => Err(invalid(format!("host {host:?} has no internet address"))),
    }
}

/// Calls getaddrinfo(3), with its arguments checked and its errors converted.
pub(crate) fn lookup(
    host: Option<&str>,
    service: Option<&str>,
    hints: sys::RawHints,
) -> io::Result<Vec<sys::RawAddrInfo>> {
    let host_text = host.map(|host| c_string("host", host)).transpose()?;
    let service_text = service.map(|service| c_string("service", service)).transpose()?;
    let family = AddressFamily::from(hints.family);
    let RawHints { kind, proto, flags, .. } = hints;
    call!("getaddrinfo({}, {}, {family}, {kind}, {proto}, {flags})", DisplayQuoted(host), DisplayQuoted(service) => {
        sys::getaddrinfo(host_text.as_deref(), service_text.as_deref(), hints).map_err(|(code, system)| {
            let mut what = DisplayQuoted(host).to_string();
            if let Some(service) = service {
                what = format!("{what} service {service:?}");
            }
            if family != AF_UNSPEC {
                what = format!("{what} in {family}");
            }
            GaiError::error(code, system, what)
        })
    })
}

struct DisplayQuoted<'a>(Option<&'a str>);

impl fmt::Display for DisplayQuoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, "{text:?}"),
            None => f.write_str("NULL"),
        }
    }
}

pub(crate) fn c_string(argument: &str, text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| wrong_type(format!("{argument} {text:?} must not contain a NUL")))
}

impl TraceValue for SockAddr {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0, {}", Address::from_sys(self))
    }
}

/// Number of received bytes and the sender's address: `16, 127.0.0.1:4242`.
impl TraceValue for (usize, Address) {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.0, self.1)
    }
}

/// As above, with the address as the system returns it.
impl<T: TraceValue> TraceValue for (T, SockAddr) {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(f)?;
        write!(f, ", {}", Address::from_sys(&self.1))
    }
}

impl TraceValue for (Vec<u8>, SockAddr) {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.0.len(), Address::from_sys(&self.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shown(address: impl ToAddress, family: AddressFamily) -> String {
        match address.to_address(family) {
            Ok(address) => address.to_string(),
            Err(error) => format!("{:?}: {error}", error.kind()),
        }
    }

    #[test]
    fn pythons_special_hosts() {
        assert_eq!(shown(("", 1), AF_INET), "0.0.0.0:1");
        assert_eq!(shown(("", 1), AF_INET6), "[::]:1");
        assert_eq!(shown(("<broadcast>", 1), AF_INET), "255.255.255.255:1");
        for host in ["<broadcast>", "255.255.255.255"] {
            let error = (host, 1).to_address(AF_INET6).unwrap_err();
            assert_eq!(crate::errno(&error), Some(c::EAFNOSUPPORT));
            let message = format!("host {host:?} is IPv4, but the socket is AF_INET6");
            assert!(error.to_string().contains(&message), "{error}");
        }
        assert_eq!(shown(("127.1", 1), AF_INET), "127.0.0.1:1");
        assert_eq!(shown(("::1", 1), AF_UNSPEC), "[::1]:1");
        assert_eq!(shown((Ipv6Addr::LOCALHOST, 1, 7, 0), AF_INET6), "[::1]:1");
    }

    #[test]
    fn an_invalid_host_is_reported_before_an_invalid_port() {
        assert!(shown(("no\0host", -1), AF_INET).contains("must not contain a NUL"));
        assert_eq!(shown(("", -1), AF_INET), "InvalidInput: port must be 0-65535, not -1 (host \"\")");
        assert!(shown(("", 65_536_i64), AF_INET).contains("not 65536"));
    }

    #[test]
    fn the_error_for_another_family_names_it() {
        // The code differs between systems.
        assert!(shown(("::1", 1), AF_INET).contains("getaddrinfo error"), "{}", shown(("::1", 1), AF_INET));
        assert!(
            shown("/tmp/x", AF_INET)
                .contains("address /tmp/x is of family AF_UNIX, but the socket is AF_INET")
        );
        assert!(shown(("::1", 1), AF_UNIX).contains("the socket is AF_UNIX"));
        let loopback: SocketAddr = ([127, 0, 0, 1], 1).into();
        assert!(shown(loopback, AF_INET6).contains("127.0.0.1:1 is of family AF_INET"));
    }

    #[test]
    fn unix_names_have_three_forms_and_one_limit() {
        let longest = "x".repeat(sys::UNIX_PATH_MAX);
        let address = longest.to_address(AF_UNIX).unwrap();
        assert_eq!(Address::from_sys(&address.to_sys().unwrap()), address);
        let error = format!("{longest}y").to_address(AF_UNIX).unwrap().to_sys().unwrap_err();
        assert!(crate::error::errno(&error) == Some(c::ENAMETOOLONG), "{error}");
        let error = "a\0b".to_address(AF_UNIX).unwrap().to_sys().unwrap_err();
        assert!(error.to_string().contains("contains a NUL"), "{error}");
        assert_eq!(shown("", AF_UNIX), "(unnamed)");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_may_contain_any_bytes() {
        let address = b"\0a\0b".to_address(AF_UNIX).unwrap();
        assert_eq!(address.to_string(), "@a\\x00b");
        assert_eq!(Address::from_sys(&address.to_sys().unwrap()), address);
    }

    #[test]
    fn flow_information_is_big_endian_in_the_sockaddr() {
        let address = ("::1", 1, 0x1_2345, 0).to_address(AF_INET6).unwrap();
        let sys = address.to_sys().unwrap();
        let raw = sys.as_socket_ipv6().unwrap().flowinfo();
        assert_eq!(raw.to_ne_bytes(), [0x00, 0x01, 0x23, 0x45]);
        assert_eq!(Address::from_sys(&sys), address);
        assert!(shown(("::1", 1, 0x10_0000, 0), AF_INET6).contains("flowinfo must be 0-1048575"));
    }

    #[test]
    fn an_address_of_an_unknown_family_keeps_its_bytes() {
        let address = Address::Other(AddressFamily::from(99), Box::from([1, 2, 3]));
        assert_eq!(Address::from_sys(&address.to_sys().unwrap()), address);
        assert!(Address::Other(AddressFamily::from(99), Box::from([0; 127])).to_sys().is_err());
    }
}
