//! Which sockets a dump contains.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use sock::{AF_INET, AF_INET6, AddressFamily, SocketKind, TcpState, UnixAddress};

use crate::row::{Protocol, Row};
use crate::unix::UnixRow;

/// Which TCP or UDP sockets a dump contains, and how much of each.
///
/// The kernel applies the filter, so a dump costs what its result needs. Conditions are combined:
/// a socket has to meet all of them. A new filter takes every socket but one: a TCP socket that is
/// bound and neither connected nor listening. The kernel has to search another table for it (Linux
/// 6.8), so it is dumped only if [`Close`](TcpState::Close) is asked for.
///
/// # Examples
///
/// ```
/// use sock::TcpState;
/// use sockdiag::{Diag, Filter};
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let port = server.getsockname()?.port().unwrap();
/// let listeners = Filter::new().states([TcpState::Listen]).local_port(port);
/// assert_eq!(Diag::new()?.tcp(&listeners)?.len(), 1);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub(crate) family: Option<AddressFamily>,
    pub(crate) states: Option<u32>,
    pub(crate) local: Endpoint,
    pub(crate) peer: Endpoint,
    pub(crate) either_port: Option<u16>,
    pub(crate) interface: Option<u32>,
    pub(crate) details: bool,
}

/// The conditions on one of the two addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) network: Option<(IpAddr, u8)>,
    pub(crate) ports: Option<RangeInclusive<u16>>,
}

impl Default for Filter {
    fn default() -> Filter {
        Filter::new()
    }
}

impl Filter {
    /// Creates a filter without conditions.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, Filter};
    ///
    /// let _server = sock::create_server(("127.0.0.1", 0))?;
    /// assert!(!Diag::new()?.tcp(&Filter::new())?.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> Filter {
        Filter {
            family: None,
            states: None,
            local: Endpoint::default(),
            peer: Endpoint::default(),
            either_port: None,
            interface: None,
            details: true,
        }
    }

    /// Takes sockets of one family, [`AF_INET`] or [`AF_INET6`]. A dump of any other family is an
    /// error.
    ///
    /// # Examples
    ///
    /// ```
    /// let rows = sockdiag::Diag::new()?.tcp(&sockdiag::Filter::new().family(sock::AF_INET6))?;
    /// assert!(rows.iter().all(|row| row.family == sock::AF_INET6));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn family(mut self, family: AddressFamily) -> Filter {
        self.family = Some(family);
        self
    }

    /// Takes sockets in these states. Without any state nothing is dumped.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::TcpState::{self, Close, Listen};
    ///
    /// // Every socket that holds a port and has no connection.
    /// let filter = sockdiag::Filter::new().states([Listen, Close]);
    /// # sockdiag::Diag::new()?.tcp(&filter)?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn states(mut self, states: impl IntoIterator<Item = TcpState>) -> Filter {
        self.states = Some(mask(states));
        self
    }

    /// Takes sockets whose own port is this one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::TcpState;
    /// use sockdiag::{Diag, Filter};
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let port = server.getsockname()?.port().unwrap();
    /// // An earlier connection of this port may be in TIME-WAIT.
    /// let filter = Filter::new().local_port(port).states([TcpState::Listen]);
    /// assert_eq!(Diag::new()?.tcp(&filter)?.len(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn local_port(self, port: u16) -> Filter {
        self.local_ports(port..=port)
    }

    /// Takes sockets whose own port is in this range.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, Filter};
    ///
    /// let rows = Diag::new()?.tcp(&Filter::new().local_ports(1..=1023))?;
    /// assert!(rows.iter().all(|row| row.local.port() < 1024));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn local_ports(mut self, ports: RangeInclusive<u16>) -> Filter {
        self.local.ports = Some(ports);
        self
    }

    /// Takes sockets whose peer's port is this one.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, Filter};
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let port = server.getsockname()?.port().unwrap();
    /// let client = sock::create_connection(("127.0.0.1", port))?;
    /// let rows = Diag::new()?.tcp(&Filter::new().peer_port(port))?;
    /// assert_eq!(rows[0].cookie, Some(client.cookie()?));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn peer_port(self, port: u16) -> Filter {
        self.peer_ports(port..=port)
    }

    /// Takes sockets whose peer's port is in this range.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, Filter};
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let port = server.getsockname()?.port().unwrap();
    /// let _client = sock::create_connection(("127.0.0.1", port))?;
    /// let rows = Diag::new()?.tcp(&Filter::new().peer_ports(port..=port))?;
    /// assert!(rows.iter().all(|row| row.peer.port() == port));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn peer_ports(mut self, ports: RangeInclusive<u16>) -> Filter {
        self.peer.ports = Some(ports);
        self
    }

    /// Takes sockets of which one port or the other is this one: both ends of the connections of a
    /// server, and its listener.
    ///
    /// # Examples
    ///
    /// ```
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let address = server.getsockname()?;
    /// let _client = sock::create_connection(("127.0.0.1", address.port().unwrap()))?;
    /// let states = [sock::TcpState::Listen, sock::TcpState::Established];
    /// let filter = sockdiag::Filter::new().either_port(address.port().unwrap()).states(states);
    /// // The listener, the client, and the connection that nothing has accepted.
    /// assert_eq!(sockdiag::Diag::new()?.tcp(&filter)?.len(), 3);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn either_port(mut self, port: u16) -> Filter {
        self.either_port = Some(port);
        self
    }

    /// Takes sockets whose own address is this one. An IPv4 address includes its IPv4-mapped form.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sockdiag::{Diag, Filter};
    ///
    /// let server = sock::create_server(("127.0.0.2", 0))?;
    /// let filter = Filter::new().local_address(Ipv4Addr::new(127, 0, 0, 2));
    /// let cookie = Some(server.cookie()?);
    /// assert!(Diag::new()?.tcp(&filter)?.iter().any(|row| row.cookie == cookie));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn local_address(self, ip: impl Into<IpAddr>) -> Filter {
        let ip = ip.into();
        self.local_network(ip, bits(ip))
    }

    /// Takes sockets whose own address has the same first bits as this one. A dump with more bits
    /// than the address has is an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sockdiag::{Diag, Filter};
    ///
    /// let filter = Filter::new().local_network(Ipv4Addr::new(127, 0, 0, 0), 8);
    /// let rows = Diag::new()?.tcp(&filter)?;
    /// assert!(rows.iter().all(|row| row.local.ip().to_canonical().is_loopback()));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn local_network(mut self, ip: impl Into<IpAddr>, prefix_length: u8) -> Filter {
        self.local.network = Some((ip.into(), prefix_length));
        self
    }

    /// Takes sockets whose peer's address is this one. An IPv4 address includes its IPv4-mapped
    /// form.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sockdiag::{Diag, Filter};
    ///
    /// let rows = Diag::new()?.tcp(&Filter::new().peer_address(Ipv4Addr::LOCALHOST))?;
    /// assert!(rows.iter().all(|row| row.peer.ip().to_canonical() == Ipv4Addr::LOCALHOST));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn peer_address(self, ip: impl Into<IpAddr>) -> Filter {
        let ip = ip.into();
        self.peer_network(ip, bits(ip))
    }

    /// Takes sockets whose peer's address has the same first bits as this one. A dump with more
    /// bits than the address has is an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    ///
    /// let filter = sockdiag::Filter::new().peer_network(Ipv4Addr::new(127, 0, 0, 0), 8);
    /// let rows = sockdiag::Diag::new()?.tcp(&filter)?;
    /// assert!(rows.iter().all(|row| row.peer.ip().to_canonical().is_loopback()));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn peer_network(mut self, ip: impl Into<IpAddr>, prefix_length: u8) -> Filter {
        self.peer.network = Some((ip.into(), prefix_length));
        self
    }

    /// Takes sockets that are bound to this interface (`SO_BINDTODEVICE`): see
    /// [`if_nametoindex`](sock::if_nametoindex). `/proc/net` does not have it: a dump from there is
    /// an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, SO_BINDTODEVICE, SOCK_DGRAM, SOL_SOCKET, Socket};
    /// use sockdiag::{Diag, Filter};
    ///
    /// # let Ok(loopback) = sock::if_nametoindex("lo") else { return std::io::Result::Ok(()) };
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b"lo")?;
    /// let rows = Diag::netlink()?.udp(&Filter::new().interface(loopback))?;
    /// assert!(rows.iter().all(|row| row.interface == Some(loopback)));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn interface(mut self, interface: u32) -> Filter {
        self.interface = Some(interface);
        self
    }

    /// Sets whether rows have [`memory`](Row::memory), [`congestion`](Row::congestion) and
    /// [`info`](Row::info). The default is true. With false, a dump of many sockets takes half the
    /// time.
    ///
    /// # Examples
    ///
    /// ```
    /// let rows = sockdiag::Diag::new()?.tcp(&sockdiag::Filter::new().details(false))?;
    /// assert!(rows.iter().all(|row| row.info.is_none()));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn details(mut self, details: bool) -> Filter {
        self.details = details;
        self
    }

    /// Checks what the kernel would refuse with nothing but `EINVAL`.
    pub(crate) fn check(&self) -> io::Result<()> {
        if let Some(family) = self.family.filter(|family| ![AF_INET, AF_INET6].contains(family)) {
            return Err(invalid(format!("{family} is not a family of TCP or UDP")));
        }
        for (ip, prefix_length) in [&self.local, &self.peer].into_iter().filter_map(|end| end.network) {
            if prefix_length > bits(ip) {
                return Err(invalid(format!("{ip} has fewer bits than {prefix_length}")));
            }
        }
        Ok(())
    }

    /// The states of a dump, as a bit for each number.
    pub(crate) fn state_mask(&self, protocol: Protocol) -> u32 {
        let every = mask((1..=11).map(TcpState::from_number));
        let states = self.states.unwrap_or(match protocol {
            Protocol::Tcp => every & !mask([TcpState::Close]),
            Protocol::Udp => every,
        });
        match protocol {
            Protocol::Tcp if states & mask([TcpState::Close]) != 0 => states | BOUND_INACTIVE,
            _ => states,
        }
    }

    /// Whether it takes sockets that are bound and neither connected nor listening.
    pub(crate) fn takes_bound(&self, protocol: Protocol) -> bool {
        self.state_mask(protocol) & BOUND_INACTIVE != 0
    }

    /// Whether the kernel would dump this row: what `/proc/net` needs.
    pub(crate) fn matches(&self, row: &Row) -> bool {
        self.family.is_none_or(|family| row.family == family)
            && self.state_mask(row.protocol) & mask([row.state]) != 0
            && self.local.matches(row.local.ip(), row.local.port())
            && self.peer.matches(row.peer.ip(), row.peer.port())
            && self.either_port.is_none_or(|port| [row.local.port(), row.peer.port()].contains(&port))
            && self.interface.is_none_or(|interface| row.interface == Some(interface))
    }
}

impl Endpoint {
    fn matches(&self, ip: IpAddr, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
            && self.network.is_none_or(|(network, prefix_length)| {
                // To the kernel an IPv4 network contains the IPv4-mapped addresses.
                let ip = if network.is_ipv4() { ip.to_canonical() } else { ip };
                in_network(ip, network, prefix_length)
            })
    }
}

/// Whether the first bits are the same.
fn in_network(ip: IpAddr, network: IpAddr, prefix_length: u8) -> bool {
    let (ip, network, length) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (u32::from(ip).into(), u32::from(network).into(), 32),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (u128::from(ip), u128::from(network), 128),
        _ => return false,
    };
    let rest = length - u32::from(prefix_length).min(length);
    (ip ^ network).checked_shr(rest).unwrap_or(0) == 0
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The bit of `TCP_BOUND_INACTIVE`, for which the kernel searches the table of bound sockets. It
/// shows them in state `TCP_CLOSE`, but not if only that is asked for (inet_diag_dump_icsk).
const BOUND_INACTIVE: u32 = 1 << 13;

/// A bit for each state.
fn mask(states: impl IntoIterator<Item = TcpState>) -> u32 {
    states.into_iter().fold(0, |mask, state| mask | 1_u32.checked_shl(state.number().into()).unwrap_or(0))
}

/// Which Unix sockets a dump contains.
///
/// The kernel applies the condition on states. It has none on kinds and names, so these are
/// applied here.
///
/// # Examples
///
/// ```
/// use sock::{AF_UNIX, SOCK_STREAM, Socket, TcpState, UnixAddress};
/// use sockdiag::{Diag, UnixFilter};
///
/// let server = Socket::new(AF_UNIX, SOCK_STREAM, 0)?;
/// let name = format!("sockdiag-{}", server.cookie()?);
/// server.bind(format!("\0{name}").as_str())?;
/// server.listen(7)?;
/// let filter = UnixFilter::new().states([TcpState::Listen]).address(UnixAddress::Abstract(name.as_bytes().into()));
/// let rows = Diag::new()?.unix(&filter)?;
/// assert_eq!(rows.len(), 1);
/// assert_eq!(rows[0].address, UnixAddress::Abstract(name.as_bytes().into()));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixFilter {
    states: Option<u32>,
    kind: Option<SocketKind>,
    address: Option<UnixAddress>,
}

impl UnixFilter {
    /// Creates a filter without conditions.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, UnixFilter};
    ///
    /// let (_ours, _theirs) = sock::socketpair()?;
    /// assert!(Diag::new()?.unix(&UnixFilter::new())?.len() >= 2);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> UnixFilter {
        UnixFilter::default()
    }

    /// Takes sockets in these states: [`Listen`](TcpState::Listen),
    /// [`Established`](TcpState::Established) and [`Close`](TcpState::Close).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::TcpState::Listen;
    /// use sockdiag::{Diag, UnixFilter};
    ///
    /// let rows = Diag::new()?.unix(&UnixFilter::new().states([Listen]))?;
    /// assert!(rows.iter().all(|row| row.state == Listen));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn states(mut self, states: impl IntoIterator<Item = TcpState>) -> UnixFilter {
        self.states = Some(mask(states));
        self
    }

    /// Takes sockets of one kind, such as [`SOCK_STREAM`](sock::SOCK_STREAM).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::SOCK_SEQPACKET;
    /// use sockdiag::{Diag, UnixFilter};
    ///
    /// let rows = Diag::new()?.unix(&UnixFilter::new().kind(SOCK_SEQPACKET))?;
    /// assert!(rows.iter().all(|row| row.kind == SOCK_SEQPACKET));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn kind(mut self, kind: SocketKind) -> UnixFilter {
        self.kind = Some(kind);
        self
    }

    /// Takes sockets with this name. Accepted connections have the name of their listener.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, Address, SOCK_STREAM, Socket};
    /// use sockdiag::{Diag, UnixFilter};
    ///
    /// let sock = Socket::new(AF_UNIX, SOCK_STREAM, 0)?;
    /// # let name = format!("\0sockdiag-{}", std::process::id());
    /// sock.bind(&name)?;
    /// let Address::Unix(address) = sock.getsockname()? else { unreachable!() };
    /// assert_eq!(Diag::new()?.unix(&UnixFilter::new().address(address))?.len(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn address(mut self, address: UnixAddress) -> UnixFilter {
        self.address = Some(address);
        self
    }

    pub(crate) fn state_mask(&self) -> u32 {
        self.states.unwrap_or(u32::MAX)
    }

    pub(crate) fn matches(&self, row: &UnixRow) -> bool {
        self.state_mask() & mask([row.state]) != 0
            && self.kind.is_none_or(|kind| row.kind == kind.without_flags())
            && self.address.as_ref().is_none_or(|address| row.address == *address)
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses_and_no_others() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (network, length, inside, outside) in [
            ("10.1.0.0", 16, "10.1.255.255", "10.2.0.0"),
            ("10.1.2.3", 32, "10.1.2.3", "10.1.2.2"),
            ("0.0.0.0", 0, "255.255.255.255", "::1"),
            ("fe80::", 10, "febf::1", "fec0::"),
            ("::", 0, "ffff::", "1.2.3.4"),
            ("::1", 128, "::1", "::2"),
        ] {
            assert!(in_network(ip(inside), ip(network), length), "{network}/{length} {inside}");
            assert!(!in_network(ip(outside), ip(network), length), "{network}/{length} {outside}");
        }
        let mapped = Endpoint { network: Some((ip("10.0.0.0"), 8)), ports: None };
        assert!(mapped.matches(ip("::ffff:10.1.1.1"), 1) && !mapped.matches(ip("::10.1.1.1"), 1));
    }

    #[test]
    fn a_filter_that_the_kernel_would_refuse_is_an_error() {
        let refused = |filter: Filter| filter.check().unwrap_err().to_string();
        assert!(refused(Filter::new().family(sock::AF_UNIX)).contains("AF_UNIX"));
        assert!(refused(Filter::new().peer_network([10, 0, 0, 0], 33)).contains("10.0.0.0"));
        Filter::new().local_network([10, 0, 0, 0], 32).check().unwrap();
    }

    #[test]
    fn a_state_without_a_bit_is_no_state() {
        assert_eq!(mask([TcpState::Other(200)]), 0);
        assert_eq!(Filter::new().states([]).state_mask(Protocol::Tcp), 0);
        assert_eq!(Filter::new().state_mask(Protocol::Tcp), 0xf7e);
        assert_eq!(Filter::new().state_mask(Protocol::Udp), 0xffe);
        assert_eq!(Filter::new().states([TcpState::Close]).state_mask(Protocol::Tcp), 0x2080);
    }
}
