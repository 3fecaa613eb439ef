//! Addresses: what comes out of the calls, and all that may go in.
//!
//! Out comes an [`Address`]. In goes whatever is [`ToAddress`]: as in Python a
//! tuple is an internet address and a string or path is a Unix one.
//!
//! | Python | here |
//! | --- | --- |
//! | `("localhost", 80)` | the same; the port may be any integer |
//! | `("", 80)` | the same: every interface |
//! | `("<broadcast>", 80)` | the same: 255.255.255.255, IPv4 only |
//! | `("fe80::1%eth0", 80)` | the same |
//! | `("::1", 80, flowinfo, scope_id)` | the same |
//! | `"/tmp/sock"`, `b"/tmp/sock"` | `"/tmp/sock"`, any [`Path`] |
//! | `"\0name"` (Linux) | `"\0name"`, `b"\0name"` |

#[cfg(target_os = "linux")]
mod linux;

use std::borrow::Cow;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::{Path, PathBuf};

use socket2::SockAddr;

use crate::call::trace::{TraceValue, call};
#[cfg(target_os = "linux")]
use crate::consts::{AF_CAN, AF_NETLINK, AF_PACKET, AF_VSOCK};
use crate::consts::{AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, AddressFamily};
use crate::error::{GaiError, invalid, invalid_as, out_of_range, wrong_type};
use crate::sys::{self, RawHints, c};

#[cfg(target_os = "linux")]
use linux::ToSockaddrBytes;
#[cfg(target_os = "linux")]
pub use linux::{CanAddress, NetlinkAddress, PacketAddress, VsockAddress};

/// Address of a socket or of its peer.
///
/// Python: what `accept`, `recvfrom`, `getsockname` and `getpeername` return.
/// It prints as `127.0.0.1:80`, `[::1]:80`, `/tmp/sock`, `@abstract`; an
/// unnamed Unix socket prints as `(unnamed)`.
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
    Netlink(NetlinkAddress),
    /// `AF_PACKET`. Python: `(ifname, proto, pkttype, hatype, addr)`.
    #[cfg(target_os = "linux")]
    Packet(PacketAddress),
    /// `AF_VSOCK`. Python: `(cid, port)`.
    #[cfg(target_os = "linux")]
    Vsock(VsockAddress),
    /// `AF_CAN`. Python: `(ifname, …)`, by protocol.
    #[cfg(target_os = "linux")]
    Can(CanAddress),
    /// Any other family, as the bytes behind the family field. Python: `(family, bytes)`.
    Other(AddressFamily, Box<[u8]>),
    /// No address: what `recvfrom` finds on a connected stream. Python: `None`.
    None,
}

/// Name of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnixAddress {
    /// A socket that was never bound, such as most clients. Python: `''`.
    Unnamed,
    /// A path in the file system. Python: `str`.
    Path(PathBuf),
    /// A name of Linux's abstract namespace, without its leading NUL. Python: `bytes` with it.
    Abstract(Box<[u8]>),
}

impl Address {
    /// Family of the address; `AF_UNSPEC` for [`Address::None`].
    #[must_use]
    pub fn family(&self) -> AddressFamily {
        match self {
            Address::Inet(_) => AF_INET,
            Address::Inet6(_) => AF_INET6,
            Address::Unix(_) => AF_UNIX,
            #[cfg(target_os = "linux")]
            Address::Netlink(_) => AF_NETLINK,
            #[cfg(target_os = "linux")]
            Address::Packet(_) => AF_PACKET,
            #[cfg(target_os = "linux")]
            Address::Vsock(_) => AF_VSOCK,
            #[cfg(target_os = "linux")]
            Address::Can(_) => AF_CAN,
            Address::Other(family, _) => *family,
            Address::None => AF_UNSPEC,
        }
    }

    /// IP address of an internet address. An IPv4 peer of a dual-stack socket
    /// shows as `::ffff:a.b.c.d`; [`IpAddr::to_canonical`] turns that back.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// Port of an internet address.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.socket_addr().map(|address| address.port())
    }

    /// Path of a Unix address that has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Address::Unix(UnixAddress::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// The standard library's form of an internet address.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Address::Inet(address) => Some(SocketAddr::V4(*address)),
            Address::Inet6(address) => Some(SocketAddr::V6(*address)),
            _ => None,
        }
    }

    pub(crate) fn from_sys(address: &SockAddr) -> Address {
        match AddressFamily::from(i32::from(address.family())) {
            AF_INET | AF_INET6 => address.as_socket().map_or(Address::None, Address::from_socket_addr),
            // Unix first writes only a family; no family at all is no address.
            AF_UNIX => Address::Unix(match sys::unix_name(address) {
                sys::UnixName::Unnamed => UnixAddress::Unnamed,
                sys::UnixName::Path(path) => UnixAddress::Path(path),
                sys::UnixName::Abstract(name) => UnixAddress::Abstract(name.into()),
            }),
            AF_UNSPEC => Address::None,
            family => {
                let bytes = sys::other_parts(address).1;
                #[cfg(target_os = "linux")]
                if let Some(address) = linux::read(family, &bytes) {
                    return address;
                }
                Address::Other(family, bytes.into())
            }
        }
    }

    /// From the wire's side: there the flow information is big-endian, and
    /// neither `std` nor `socket2` turns it.
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
            #[cfg(target_os = "linux")]
            Address::Netlink(address) => other_to_sys(AF_NETLINK, &address.to_wire()),
            #[cfg(target_os = "linux")]
            Address::Packet(address) => other_to_sys(AF_PACKET, &address.to_wire()),
            #[cfg(target_os = "linux")]
            Address::Vsock(address) => other_to_sys(AF_VSOCK, &address.to_wire()),
            #[cfg(target_os = "linux")]
            Address::Can(address) => other_to_sys(AF_CAN, &address.to_wire()),
            Address::Other(family, bytes) => other_to_sys(*family, bytes),
            Address::None => Err(invalid("no address given")),
        }
    }
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
                // Python cuts the path here and binds another file than was named.
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
    let sentence = format!("AF_UNIX path too long, {len} bytes where {max} fit: {address}");
    Err(invalid_as(c::ENAMETOOLONG, sentence))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => fmt::Display::fmt(address, f),
            Address::Inet6(address) => fmt::Display::fmt(address, f),
            Address::Unix(address) => fmt::Display::fmt(address, f),
            #[cfg(target_os = "linux")]
            Address::Netlink(address) => fmt::Display::fmt(address, f),
            #[cfg(target_os = "linux")]
            Address::Packet(address) => fmt::Display::fmt(address, f),
            #[cfg(target_os = "linux")]
            Address::Vsock(address) => fmt::Display::fmt(address, f),
            #[cfg(target_os = "linux")]
            Address::Can(address) => fmt::Display::fmt(address, f),
            Address::Other(family, bytes) => write!(f, "{family} {bytes:02x?}"),
            Address::None => f.pad("(none)"),
        }
    }
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnixAddress::Unnamed => f.pad("(unnamed)"),
            UnixAddress::Path(path) => fmt::Display::fmt(&path.display(), f),
            UnixAddress::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Address::Inet(address),
            SocketAddr::V6(address) => Address::Inet6(address),
        }
    }
}

/// Whatever names an address: a tuple, a path, an [`Address`], one of `std::net`'s.
///
/// Python: the address argument of `bind`, `connect`, `sendto`, and the tuple
/// and string forms it takes. A host name is looked up here, in the family of
/// the socket, and its first answer is taken.
///
/// # Errors
///
/// - `InvalidInput`: the port is not in 0..=65535; the host contains a NUL or is
///   `<broadcast>` or 255.255.255.255 outside IPv4; a Unix path contains a NUL or is longer than
///   107 bytes (`ENAMETOOLONG`); the address is of another family than the
///   socket (`EAFNOSUPPORT`).
/// - a [`GaiError`] inside: the name does not resolve in that family.
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
pub trait ToAddress {
    /// The address for a socket of `family`; `AF_UNSPEC` takes any, and of a
    /// name's addresses prefers IPv4.
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
            // Most are, and nothing is to be looked at then.
            Address::Inet(address) if family == AF_INET => Ok(Address::Inet(*address)),
            _ => self.to_any_address(family),
        }
    }
}

impl Address {
    fn to_any_address(&self, family: AddressFamily) -> io::Result<Address> {
        if family != AF_UNSPEC && family != self.family() && *self != Address::None {
            let sentence = format!("address {self} is of family {}, the socket is {family}", self.family());
            return Err(invalid_as(c::EAFNOSUPPORT, sentence));
        }
        Ok(self.clone())
    }
}

impl ToAddress for SocketAddr {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        Address::from(*self).to_address(family)
    }
}

impl<H: Host, P: TryInto<u16> + fmt::Display + Copy> ToAddress for (H, P) {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        internet_address(&self.0.text(), self.1, family)
    }
}

/// With flow information and scope, as for IPv6 in Python.
impl<H: Host, P: TryInto<u16> + fmt::Display + Copy> ToAddress for (H, P, u32, u32) {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        let (host, port, flowinfo, scope_id) = self;
        // RFC 6437: a flow label has 20 bits.
        if *flowinfo > 0xF_FFFF {
            return Err(out_of_range(format!("flowinfo must be 0-1048575, not {flowinfo}")));
        }
        match internet_address(&host.text(), *port, family)? {
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
pub trait Host {
    /// The host as Python would be given it.
    fn text(&self) -> Cow<'_, str>;
}

macro_rules! host {
    ($($type:ty: $self:ident => $text:expr),* $(,)?) => {$(
        impl Host for $type {
            fn text(&$self) -> Cow<'_, str> {
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
    fn text(&self) -> Cow<'_, str> {
        (**self).text()
    }
}

macro_rules! unix {
    ($($type:ty: $self:ident => $bytes:expr),* $(,)?) => {$(
        impl ToAddress for $type {
            fn to_address(&$self, family: AddressFamily) -> io::Result<Address> {
                unix_from_bytes($bytes).to_address(family)
            }
        }
    )*};
}
unix! {
    str: self => self.as_bytes(),
    String: self => self.as_bytes(),
    Path: self => self.as_os_str().as_encoded_bytes(),
    PathBuf: self => self.as_os_str().as_encoded_bytes(),
    [u8]: self => self,
    Vec<u8>: self => self,
}

impl<const N: usize> ToAddress for [u8; N] {
    fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
        self[..].to_address(family)
    }
}

/// Python's three Unix forms: nothing (on Linux the kernel picks a name), a
/// leading NUL for an abstract name, and a path.
fn unix_from_bytes(name: &[u8]) -> Address {
    Address::Unix(match name {
        [] => UnixAddress::Unnamed,
        [0, name @ ..] => UnixAddress::Abstract(name.into()),
        path => UnixAddress::Path(sys::path_from_bytes(path)),
    })
}

/// The host first, then the port, as in Python: of two faults the host's is told.
fn internet_address<P>(host: &str, port: P, family: AddressFamily) -> io::Result<Address>
where
    P: TryInto<u16> + fmt::Display + Copy,
{
    if ![AF_INET, AF_INET6, AF_UNSPEC].contains(&family) {
        let sentence = format!("address ({host:?}, {port}) is an internet address, the socket is {family}");
        return Err(invalid_as(c::EAFNOSUPPORT, sentence));
    }
    let mut address = resolve_host(host, family)?;
    match port.try_into() {
        Ok(port) => address.set_port(port),
        Err(_) => return Err(out_of_range(format!("port must be 0-65535, not {port} (host {host:?})"))),
    }
    Ok(Address::from(address))
}

/// CPython's `setipaddr`: the special hosts, then numbers, then the resolver's first answer.
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
            let sentence = format!("host {host:?} is IPv4, the socket is {family}");
            return Err(invalid_as(c::EAFNOSUPPORT, sentence));
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

/// getaddrinfo(3) with its arguments checked and its errors told apart.
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

/// Received bytes and the sender's address: `16, 127.0.0.1:4242`.
impl TraceValue for (usize, Address) {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.0, self.1)
    }
}

/// The same with the address as the system returns it.
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
            let sentence = format!("host {host:?} is IPv4, the socket is AF_INET6");
            assert!(error.to_string().contains(&sentence), "{error}");
        }
        assert_eq!(shown(("127.1", 1), AF_INET), "127.0.0.1:1");
        assert_eq!(shown(("::1", 1), AF_UNSPEC), "[::1]:1");
        assert_eq!(shown((Ipv6Addr::LOCALHOST, 1, 7, 0), AF_INET6), "[::1]:1");
    }

    #[test]
    fn of_a_bad_host_and_a_bad_port_the_host_is_told() {
        assert!(shown(("no\0host", -1), AF_INET).contains("must not contain a NUL"));
        assert_eq!(shown(("", -1), AF_INET), "InvalidInput: port must be 0-65535, not -1 (host \"\")");
        assert!(shown(("", 65_536_i64), AF_INET).contains("not 65536"));
    }

    #[test]
    fn an_address_of_another_family_is_refused_by_name() {
        // Which code says so differs from system to system.
        assert!(shown(("::1", 1), AF_INET).contains("getaddrinfo error"), "{}", shown(("::1", 1), AF_INET));
        assert!(
            shown("/tmp/x", AF_INET).contains("address /tmp/x is of family AF_UNIX, the socket is AF_INET")
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
    fn an_abstract_name_is_binary_and_length_exact() {
        let address = b"\0a\0b".to_address(AF_UNIX).unwrap();
        assert_eq!(address.to_string(), "@a\\x00b");
        assert_eq!(Address::from_sys(&address.to_sys().unwrap()), address);
    }

    #[test]
    fn flow_information_crosses_the_wire_big_endian() {
        let address = ("::1", 1, 0x1_2345, 0).to_address(AF_INET6).unwrap();
        let sys = address.to_sys().unwrap();
        let raw = sys.as_socket_ipv6().unwrap().flowinfo();
        assert_eq!(raw.to_ne_bytes(), [0x00, 0x01, 0x23, 0x45]);
        assert_eq!(Address::from_sys(&sys), address);
        assert!(shown(("::1", 1, 0x10_0000, 0), AF_INET6).contains("flowinfo must be 0-1048575"));
    }

    #[test]
    fn an_unknown_family_passes_through_as_bytes() {
        let address = Address::Other(AddressFamily::from(99), Box::from([1, 2, 3]));
        assert_eq!(Address::from_sys(&address.to_sys().unwrap()), address);
        assert!(Address::Other(AddressFamily::from(99), Box::from([0; 127])).to_sys().is_err());
    }
}
