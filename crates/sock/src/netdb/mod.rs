//! Lookups of hosts, services and protocols: `<netdb.h>`.

pub(crate) mod getaddrinfo;
pub(crate) mod inet;
#[cfg(unix)]
pub(crate) mod interface;

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::address::{Address, ToAddress, c_string};
use crate::call::trace::call;
use crate::consts::{AF_INET, AF_UNSPEC};
use crate::error::{GaiError, HostError, invalid};
use crate::netdb::getaddrinfo::gethostname;
use crate::sys;

/// Looks up the IPv4 address of a host.
///
/// Python: `socket.gethostbyname(host)`. Library call: getaddrinfo(3). An empty host is 0.0.0.0,
/// and `<broadcast>` is 255.255.255.255.
///
/// # Errors
///
/// Returns an error if the name does not resolve ([`GaiError`]) or contains a NUL (`InvalidInput`).
///
/// # Examples
///
/// ```
/// assert_eq!(sock::gethostbyname("127.0.0.1")?, std::net::Ipv4Addr::LOCALHOST);
/// # std::io::Result::Ok(())
/// ```
pub fn gethostbyname(host: &str) -> io::Result<Ipv4Addr> {
    match (host, 0_u16).to_address(AF_INET)?.ip() {
        Some(IpAddr::V4(ip)) => Ok(ip),
        _ => Err(invalid(format!("host {host:?} has no IPv4 address"))),
    }
}

/// The result of a host lookup. C: `struct hostent`.
///
/// # Examples
///
/// ```
/// let host = sock::gethostbyname_ex("127.0.0.1")?;  // (name, aliases, addresses)
/// assert_eq!(host.addresses[0].to_string(), "127.0.0.1");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostEntry {
    /// Name of the host.
    pub name: String,
    /// Alternative names of the host.
    pub aliases: Vec<String>,
    /// Addresses of the host, all of one family.
    pub addresses: Vec<IpAddr>,
}

impl From<sys::RawHost> for HostEntry {
    fn from(raw: sys::RawHost) -> HostEntry {
        HostEntry { name: raw.name, aliases: raw.aliases, addresses: raw.addresses }
    }
}

/// Looks up the names and IPv4 addresses of a host.
///
/// Python: `socket.gethostbyname_ex(host)`. Library calls: getaddrinfo(3), then
/// gethostbyname(3).
///
/// # Errors
///
/// Returns an error if the name does not resolve ([`GaiError`]), if only the second lookup fails
/// ([`HostError`]), or if the name contains a NUL (`InvalidInput`).
///
/// # Examples
///
/// ```
/// let host = sock::gethostbyname_ex("127.0.0.1")?;
/// assert_eq!(host.addresses, [std::net::IpAddr::from([127, 0, 0, 1])]);
/// # std::io::Result::Ok(())
/// ```
pub fn gethostbyname_ex(host: &str) -> io::Result<HostEntry> {
    gethostbyname(host)?;
    let name = c_string("host", host)?;
    call!("gethostbyname({host:?})" => {
        sys::gethostbyname(&name).map_err(|code| HostError::error(code, format!("host {host:?}")))
    })
    .map(HostEntry::from)
}

/// Looks up the names and addresses of a host by its address or name.
///
/// Python: `socket.gethostbyaddr(host)`. Library calls: getaddrinfo(3) for a name,
/// then gethostbyaddr(3).
///
/// # Errors
///
/// Returns an error if a name does not resolve ([`GaiError`]), if the address has no name
/// ([`HostError`]), or if the name contains a NUL (`InvalidInput`).
///
/// # Examples
///
/// ```
/// if let Ok(host) = sock::gethostbyaddr("127.0.0.1") {
///     println!("{} is also called {:?}", host.name, host.aliases);
/// }
/// # std::io::Result::Ok(())
/// ```
pub fn gethostbyaddr(host: &str) -> io::Result<HostEntry> {
    let address = (host, 0_u16).to_address(AF_UNSPEC)?;
    let ip = address.ip().ok_or_else(|| invalid(format!("host {host:?} has no internet address")))?;
    call!("gethostbyaddr({ip})" => {
        sys::gethostbyaddr(ip).map_err(|code| HostError::error(code, format!("host {host:?}")))
    })
    .map(HostEntry::from)
}

/// Returns the fully qualified name of a host, as far as it can be determined.
///
/// Python: `socket.getfqdn(name)`. Library call: gethostbyaddr(3), which may query a name server,
/// so servers should not call it at startup. An empty name, `0.0.0.0` and `::` stand for this
/// machine. The result is the first of the host's names with a dot. A name that cannot be looked up
/// is returned unchanged.
///
/// # Errors
///
/// Returns an error if `name` stands for this machine and [`gethostname`] fails.
///
/// # Examples
///
/// ```
/// println!("this machine is {}", sock::getfqdn("")?);
/// # std::io::Result::Ok(())
/// ```
pub fn getfqdn(name: &str) -> io::Result<String> {
    let name = match name.trim() {
        "" | "0.0.0.0" | "::" => gethostname()?,
        name => name.to_owned(),
    };
    let Ok(host) = gethostbyaddr(&name) else {
        return Ok(name);
    };
    let mut names = std::iter::once(&host.name).chain(&host.aliases);
    Ok(names.find(|name| name.contains('.')).unwrap_or(&host.name).clone())
}

/// Looks up the host name and service name of an address.
///
/// Python: `socket.getnameinfo(sockaddr, flags)`. Library call: getnameinfo(3). `flags` are `NI_`
/// numbers. With `NI_NUMERICHOST | NI_NUMERICSERV` nothing is looked up.
///
/// # Errors
///
/// Returns an error if the lookup fails ([`GaiError`]) or the address is not an internet address
/// (`InvalidInput`).
///
/// # Examples
///
/// ```
/// use sock::{AF_INET, NI_NUMERICHOST, NI_NUMERICSERV, ToAddress};
///
/// let address = ("127.0.0.1", 80).to_address(AF_INET)?;
/// let (host, service) = sock::getnameinfo(&address, NI_NUMERICHOST | NI_NUMERICSERV)?;
/// assert_eq!((&*host, &*service), ("127.0.0.1", "80"));
/// # std::io::Result::Ok(())
/// ```
pub fn getnameinfo(address: &Address, flags: i32) -> io::Result<(String, String)> {
    if address.ip().is_none() {
        return Err(invalid(format!("getnameinfo requires an internet address, not {address}")));
    }
    sys::getnameinfo(&address.to_sys()?, flags)
        .map_err(|(code, system)| GaiError::error(code, system, address.to_string()))
}

/// Returns the port of a service, in host byte order.
///
/// Python: `socket.getservbyname(name, protocol)`. Library call: getservbyname(3). `protocol` is
/// `"tcp"`, `"udp"` or `None` for any.
///
/// # Errors
///
/// Returns an error of kind `NotFound`, with the name and the protocol, if the service is unknown.
///
/// # Examples
///
/// ```
/// # if cfg!(target_os = "linux") && std::path::Path::new("/etc/services").exists() {
/// assert_eq!(sock::getservbyname("http", "tcp")?, 80);
/// # }
/// assert_eq!(sock::getservbyname("no such service", None).unwrap_err().kind(), std::io::ErrorKind::NotFound);
/// # std::io::Result::Ok(())
/// ```
pub fn getservbyname<'a>(name: &str, protocol: impl Into<Option<&'a str>>) -> io::Result<u16> {
    let protocol = protocol.into();
    let of = protocol.map(|protocol| c_string("protocol", protocol)).transpose()?;
    sys::getservbyname(&c_string("service", name)?, of.as_deref())
        .ok_or_else(|| not_found(format!("service {name:?}{}", protocol_suffix(protocol))))
}

/// Returns the name of the service at a port.
///
/// Python: `socket.getservbyport(port, protocol)`. Library call: getservbyport(3).
///
/// # Errors
///
/// Returns an error of kind `NotFound`, with the port, if no service has it.
///
/// # Examples
///
/// ```
/// # if cfg!(target_os = "linux") && std::path::Path::new("/etc/services").exists() {
/// assert_eq!(sock::getservbyport(80, None)?, "http");
/// # }
/// # std::io::Result::Ok(())
/// ```
pub fn getservbyport<'a>(port: u16, protocol: impl Into<Option<&'a str>>) -> io::Result<String> {
    let protocol = protocol.into();
    let of = protocol.map(|protocol| c_string("protocol", protocol)).transpose()?;
    sys::getservbyport(port, of.as_deref())
        .ok_or_else(|| not_found(format!("service at port {port}{}", protocol_suffix(protocol))))
}

/// Returns the number of a protocol, for [`Socket::new`](crate::Socket::new).
///
/// Python: `socket.getprotobyname(name)`. Library call: getprotobyname(3).
///
/// # Errors
///
/// Returns an error of kind `NotFound`, with the name, if the protocol is unknown.
///
/// # Examples
///
/// ```
/// # if cfg!(target_os = "linux") && std::path::Path::new("/etc/protocols").exists() {
/// assert_eq!(sock::getprotobyname("tcp")?, sock::IPPROTO_TCP);
/// # }
/// # std::io::Result::Ok(())
/// ```
pub fn getprotobyname(name: &str) -> io::Result<i32> {
    sys::getprotobyname(&c_string("protocol", name)?).ok_or_else(|| not_found(format!("protocol {name:?}")))
}

fn protocol_suffix(protocol: Option<&str>) -> String {
    protocol.map_or(String::new(), |protocol| format!(" of {protocol:?}"))
}

fn not_found(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{what} not found"))
}
