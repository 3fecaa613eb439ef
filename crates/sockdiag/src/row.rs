//! What the kernel says of one TCP or UDP socket: `struct inet_diag_msg` and its attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use sock::{AF_INET, AF_INET6, AddressFamily, MemInfo, TcpInfo, TcpState};

use crate::wire::{Attributes, Malformed, be16_at, u32_at};

/// A transport protocol.
///
/// # Examples
///
/// ```
/// use sockdiag::{Diag, Protocol};
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// assert_eq!(Diag::new()?.of(&server)?.unwrap().protocol, Protocol::Tcp);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    pub(crate) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// A TCP or UDP socket at one moment: a row of `ss -tanoeim`.
///
/// A field that is an `Option` is `None` where the source does not have it. `/proc/net` has
/// neither cookies nor the fields from `shutdown` on. Not every socket has every field either: a
/// socket in TIME-WAIT has no `info`.
///
/// # Examples
///
/// ```
/// use sockdiag::{Diag, Row};
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let row: Row = Diag::new()?.of(&server)?.unwrap();
/// assert_eq!((row.state, row.recv_queue), (sock::TcpState::Listen, 0));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// [`AF_INET`] or [`AF_INET6`].
    pub family: AddressFamily,
    /// State of the connection. A UDP socket is [`Established`](TcpState::Established) if it is
    /// connected, and [`Close`](TcpState::Close) otherwise.
    pub state: TcpState,
    /// Own address.
    pub local: SocketAddr,
    /// Address of the peer; the unspecified address and port 0 if there is none.
    pub peer: SocketAddr,
    /// Number of the interface that the socket is bound to (`SO_BINDTODEVICE`); 0 if it is not
    /// bound to one.
    pub interface: Option<u32>,
    /// Number that identifies the socket as long as the system runs: see
    /// [`Socket::cookie`](sock::Socket::cookie).
    pub cookie: Option<u64>,
    /// Bytes that can be received. A FIN counts as one byte, which
    /// [`Socket::recv_queue`](sock::Socket::recv_queue) does not count. 0 for a listener. For UDP
    /// the memory of all datagrams.
    pub recv_queue: u32,
    /// Bytes that were sent and not acknowledged, or not sent yet. A SYN and a FIN count as one
    /// byte each. 0 for a listener. For UDP the memory of all datagrams.
    pub send_queue: u32,
    /// The queue of a TCP listener. `None` for every other socket.
    pub accept_queue: Option<AcceptQueue>,
    /// The timer that is running. `None` if none is.
    pub timer: Option<Timer>,
    /// User that created the socket. `None` if the kernel does not know it: it reports user 0 for a
    /// socket without a file, such as one in TIME-WAIT.
    pub uid: Option<u32>,
    /// Inode of the socket's file. 0 if there is no file: the connection was not accepted yet, or
    /// was closed, or is in TIME-WAIT.
    pub inode: u64,
    /// Which directions were shut down.
    pub shutdown: Option<ShutdownState>,
    /// Whether an IPv6 socket refuses IPv4. `None` for IPv4.
    pub v6only: Option<bool>,
    /// Memory in the kernel.
    pub memory: Option<MemInfo>,
    /// Name of the congestion control algorithm.
    pub congestion: Option<String>,
    /// Times, windows and losses of a TCP connection.
    pub info: Option<TcpInfo>,
}

/// Connections that wait for accept(2).
///
/// # Examples
///
/// ```
/// use sockdiag::Diag;
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let _client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
/// let queue = Diag::new()?.of(&server)?.unwrap().accept_queue.unwrap();
/// assert_eq!(queue.waiting, 1);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AcceptQueue {
    /// How many wait.
    pub waiting: u32,
    /// The backlog of listen(2), or `net.core.somaxconn` if that is lower. Linux accepts one
    /// connection more into the queue of a TCP listener. `None` in `/proc/net`.
    pub limit: Option<u32>,
}

/// A timer of a socket.
///
/// # Examples
///
/// ```
/// use sockdiag::Diag;
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
/// client.setsockopt(sock::SOL_SOCKET, sock::SO_KEEPALIVE, true)?;
/// let timer = Diag::new()?.of(&client)?.unwrap().timer.unwrap();
/// assert_eq!((timer.kind.ss_name(), timer.retransmits), ("keepalive", 0));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Timer {
    /// What happens when it expires.
    pub kind: TimerKind,
    /// Time until it expires. `/proc/net` has hundredths of a second.
    pub left: Duration,
    /// How often it has expired without an answer: retransmissions, or probes.
    pub retransmits: u8,
}

/// What happens when a timer expires.
///
/// # Examples
///
/// ```
/// use sockdiag::{Diag, TimerKind};
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
/// client.setsockopt(sock::SOL_SOCKET, sock::SO_KEEPALIVE, true)?;
/// let timer = Diag::new()?.of(&client)?.unwrap().timer.unwrap();
/// assert_eq!(timer.kind, TimerKind::KeepAlive);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimerKind {
    /// A segment is sent again, or a tail loss probe is sent. `on` in ss(8).
    Retransmit,
    /// A keep-alive probe is sent, or FIN-WAIT-2 ends. `keepalive` in ss(8).
    KeepAlive,
    /// TIME-WAIT ends, or FIN-WAIT-2 of a closed socket. `timewait` in ss(8).
    TimeWait,
    /// A probe of the peer's closed window is sent. `persist` in ss(8).
    ZeroWindowProbe,
    /// A timer with a number that this crate does not know.
    Other(u8),
}

impl TimerKind {
    /// Returns the name that ss(8) prints.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(sockdiag::TimerKind::ZeroWindowProbe.ss_name(), "persist");
    /// ```
    #[must_use]
    pub fn ss_name(self) -> &'static str {
        match self {
            TimerKind::Retransmit => "on",
            TimerKind::KeepAlive => "keepalive",
            TimerKind::TimeWait => "timewait",
            TimerKind::ZeroWindowProbe => "persist",
            TimerKind::Other(_) => "unknown",
        }
    }

    fn from_number(number: u8) -> Option<TimerKind> {
        match number {
            0 => None,
            1 => Some(TimerKind::Retransmit),
            2 => Some(TimerKind::KeepAlive),
            3 => Some(TimerKind::TimeWait),
            4 => Some(TimerKind::ZeroWindowProbe),
            other => Some(TimerKind::Other(other)),
        }
    }
}

impl Timer {
    /// A timer of the kernel's number, or `None` for the number of no timer.
    pub(crate) fn from_number(number: u8, left: Duration, retransmits: u8) -> Option<Timer> {
        TimerKind::from_number(number).map(|kind| Timer { kind, left, retransmits })
    }
}

/// Which directions of a socket were shut down.
///
/// # Examples
///
/// ```
/// use sockdiag::Diag;
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
/// client.shutdown(sock::SHUT_WR)?;
/// let shutdown = Diag::netlink()?.of(&client)?.unwrap().shutdown.unwrap();
/// assert_eq!((shutdown.recv, shutdown.send), (false, true));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ShutdownState {
    /// Receiving has ended: by shutdown(2), or because the peer has ended its side.
    pub recv: bool,
    /// Sending has ended.
    pub send: bool,
}

impl ShutdownState {
    /// The kernel's bits `RCV_SHUTDOWN` and `SEND_SHUTDOWN`.
    pub(crate) fn from_bits(bits: u8) -> ShutdownState {
        ShutdownState { recv: bits & 1 != 0, send: bits & 2 != 0 }
    }
}

/// What identifies a TCP or UDP socket to the kernel.
///
/// # Examples
///
/// ```
/// use sockdiag::{Protocol, SocketId};
///
/// let id = SocketId::new(Protocol::Tcp, "127.0.0.1:80".parse().unwrap(), "127.0.0.1:50000".parse().unwrap());
/// assert_eq!((id.interface, id.cookie), (0, None)); // any socket with these addresses
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Own address.
    pub local: SocketAddr,
    /// Address of the peer; the unspecified address and port 0 if there is none.
    pub peer: SocketAddr,
    /// Interface that the socket is bound to, or 0.
    pub interface: u32,
    /// The cookie, or `None` for whatever socket has these addresses.
    pub cookie: Option<u64>,
}

impl SocketId {
    /// Creates the identity of a socket from its addresses alone.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockdiag::{Diag, Protocol, SocketId};
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let local = client.getsockname()?.to_socket_addr().unwrap();
    /// let peer = client.getpeername()?.to_socket_addr().unwrap();
    /// assert!(Diag::new()?.one(&SocketId::new(Protocol::Tcp, local, peer))?.is_some());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new(protocol: Protocol, local: SocketAddr, peer: SocketAddr) -> SocketId {
        SocketId { protocol, local, peer, interface: 0, cookie: None }
    }
}

impl Row {
    /// Returns the identity of this socket.
    ///
    /// # Examples
    ///
    /// ```
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let mut diag = sockdiag::Diag::new()?;
    /// let row = diag.of(&server)?.unwrap();
    /// assert_eq!(row.id().cookie, row.cookie);
    /// assert_eq!(diag.one(&row.id())?.unwrap().inode, row.inode);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn id(&self) -> SocketId {
        SocketId {
            protocol: self.protocol,
            local: self.local,
            peer: self.peer,
            interface: self.interface.unwrap_or_default(),
            cookie: self.cookie,
        }
    }

    /// Whether the row has the addresses of `id`, and its cookie if both have one.
    pub(crate) fn is(&self, id: &SocketId) -> bool {
        let same_address = |a: SocketAddr, b: SocketAddr| (a.ip(), a.port()) == (b.ip(), b.port());
        self.protocol == id.protocol
            && same_address(self.local, id.local)
            && same_address(self.peer, id.peer)
            && (self.cookie.is_none() || id.cookie.is_none() || self.cookie == id.cookie)
    }
}

/// Bytes of `struct inet_diag_msg`.
const LENGTH: usize = 72;

// Attributes: linux/inet_diag.h.
pub(crate) const INET_DIAG_INFO: u16 = 2;
pub(crate) const INET_DIAG_CONG: u16 = 4;
pub(crate) const INET_DIAG_SKMEMINFO: u16 = 7;
const INET_DIAG_SHUTDOWN: u16 = 8;
const INET_DIAG_PROTOCOL: u16 = 10;
const INET_DIAG_SKV6ONLY: u16 = 11;

/// Reads a row. `protocol` is what was asked for, which the message does not repeat.
pub(crate) fn parse(payload: &[u8], protocol: Protocol) -> Result<Row, Malformed> {
    let cut = Malformed("a socket is cut off");
    let (fixed, attributes) = payload.split_at_checked(LENGTH).ok_or(cut)?;
    let word = |at| u32_at(fixed, at).ok_or(cut);
    let family = AddressFamily::from(i32::from(fixed[0]));
    let interface = word(40)?;
    let local = address(fixed, 4, 8, interface).ok_or(Malformed("a socket is of another family"))?;
    let peer = address(fixed, 6, 24, interface).ok_or(Malformed("a socket is of another family"))?;
    // Older kernels give a timer that is overdue as a negative number.
    let expires = (word(52)? as i32).max(0) as u32;
    let mut row = Row {
        protocol,
        family,
        state: TcpState::from_number(fixed[1]),
        local,
        peer,
        interface: Some(interface),
        cookie: Some(u64::from(word(44)?) | u64::from(word(48)?) << 32),
        recv_queue: word(56)?,
        send_queue: word(60)?,
        accept_queue: None,
        timer: Timer::from_number(fixed[2], Duration::from_millis(expires.into()), fixed[3]),
        uid: user(word(64)?, word(68)?.into()),
        inode: word(68)?.into(),
        shutdown: None,
        v6only: None,
        memory: None,
        congestion: None,
        info: None,
    };
    for attribute in Attributes::new(attributes) {
        let (kind, value) = attribute?;
        let byte = value.first().copied();
        match kind {
            INET_DIAG_INFO => row.info = TcpInfo::from_bytes(value),
            INET_DIAG_CONG => row.congestion = Some(text(value)),
            INET_DIAG_SKMEMINFO => row.memory = MemInfo::from_bytes(value),
            INET_DIAG_SHUTDOWN => row.shutdown = byte.map(ShutdownState::from_bits),
            INET_DIAG_PROTOCOL if byte == Some(Protocol::Tcp.number()) => row.protocol = Protocol::Tcp,
            INET_DIAG_PROTOCOL if byte == Some(Protocol::Udp.number()) => row.protocol = Protocol::Udp,
            INET_DIAG_SKV6ONLY if family == AF_INET6 => row.v6only = byte.map(|byte| byte != 0),
            // What the kernel adds, and what this crate does not show.
            _ => {}
        }
    }
    if row.protocol == Protocol::Tcp && row.state == TcpState::Listen {
        row.accept_queue = Some(AcceptQueue { waiting: row.recv_queue, limit: Some(row.send_queue) });
        (row.recv_queue, row.send_queue) = (0, 0);
    }
    Ok(row)
}

/// The user that created a socket. For a socket without a file the kernel reports 0, unless it has
/// kept the user (sk_uid, Linux 6.16).
pub(crate) fn user(uid: u32, inode: u64) -> Option<u32> {
    Some(uid).filter(|uid| *uid != 0 || inode != 0)
}

/// The address whose port and bytes are at these places, or `None` for an unknown family.
fn address(fixed: &[u8], port: usize, ip: usize, interface: u32) -> Option<SocketAddr> {
    let port = be16_at(fixed, port)?;
    let family = AddressFamily::from(i32::from(*fixed.first()?));
    if family == AF_INET {
        let octets: [u8; 4] = *fixed.get(ip..)?.first_chunk()?;
        Some(SocketAddrV4::new(Ipv4Addr::from(octets), port).into())
    } else if family == AF_INET6 {
        let octets: [u8; 16] = *fixed.get(ip..)?.first_chunk()?;
        Some(v6_address(Ipv6Addr::from(octets), port, interface))
    } else {
        None
    }
}

/// A link-local address has the interface as its scope.
pub(crate) fn v6_address(ip: Ipv6Addr, port: u16, interface: u32) -> SocketAddr {
    let scope = if ip.is_unicast_link_local() { interface } else { 0 };
    SocketAddrV6::new(ip, port, 0, scope).into()
}

/// The unspecified address of a family, with port 0.
pub(crate) fn no_peer(local: SocketAddr) -> SocketAddr {
    match local {
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

/// A text that ends with a NUL.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::push_attribute;

    /// The fixed part of a row: a connection from 1.2.3.4:1000 to 5.6.7.8:2000.
    pub(crate) fn fixed(state: u8, timer: u8) -> Vec<u8> {
        let mut bytes = vec![2, state, timer, 3];
        bytes.extend([1000_u16.to_be_bytes(), 2000_u16.to_be_bytes()].concat());
        bytes.extend([&[1, 2, 3, 4][..], &[0; 12], &[5, 6, 7, 8], &[0; 12]].concat());
        for word in [9_u32, 0x1111_1111, 0x2222_2222, 1500, 11, 12, 1001, 77] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let mut bytes = fixed(1, 2);
        assert_eq!(bytes.len(), LENGTH);
        push_attribute(&mut bytes, INET_DIAG_SHUTDOWN, &[2]);
        push_attribute(&mut bytes, INET_DIAG_CONG, b"cubic\0");
        push_attribute(&mut bytes, 999, b"from the future");
        push_attribute(&mut bytes, INET_DIAG_SKMEMINFO, &[0; 36]);
        push_attribute(&mut bytes, INET_DIAG_INFO, &[1; 240]);
        let row = parse(&bytes, Protocol::Tcp).unwrap();
        assert_eq!(
            (row.local, row.peer),
            ("1.2.3.4:1000".parse().unwrap(), "5.6.7.8:2000".parse().unwrap())
        );
        assert_eq!((row.state, row.family, row.interface), (TcpState::Established, AF_INET, Some(9)));
        assert_eq!((row.cookie, row.recv_queue, row.send_queue), (Some(0x2222_2222_1111_1111), 11, 12));
        assert_eq!((row.uid, row.inode, row.v6only), (Some(1001), 77, None));
        let timer = Timer { kind: TimerKind::KeepAlive, left: Duration::from_millis(1500), retransmits: 3 };
        assert_eq!(row.timer, Some(timer));
        assert_eq!(row.shutdown, Some(ShutdownState { recv: false, send: true }));
        assert_eq!(row.congestion.as_deref(), Some("cubic"));
        assert!(row.memory.is_some() && row.info.is_some());
    }

    #[test]
    fn a_row_that_was_cut_is_an_error() {
        let mut bytes = fixed(1, 0);
        push_attribute(&mut bytes, INET_DIAG_CONG, b"cubic\0");
        for length in 0..bytes.len() {
            let row = parse(&bytes[..length], Protocol::Tcp);
            // Up to three bytes are padding, and the last two of these are.
            let whole = (LENGTH..LENGTH + 4).contains(&length) || length >= bytes.len() - 2;
            assert_eq!(row.is_ok(), whole, "{length}: {row:?}");
        }
        let mut other_family = fixed(1, 0);
        other_family[0] = 1;
        assert!(parse(&other_family, Protocol::Tcp).is_err());
    }

    #[test]
    fn only_a_tcp_listener_has_an_accept_queue() {
        let listener = parse(&fixed(10, 0), Protocol::Tcp).unwrap();
        assert_eq!(listener.accept_queue, Some(AcceptQueue { waiting: 11, limit: Some(12) }));
        assert_eq!((listener.recv_queue, listener.send_queue), (0, 0));
        assert_eq!(parse(&fixed(10, 0), Protocol::Udp).unwrap().accept_queue, None);
    }

    #[test]
    fn the_user_of_a_socket_without_a_file_is_not_root() {
        let user = |uid: u32, inode: u32| {
            let mut bytes = fixed(6, 3);
            bytes[64..68].copy_from_slice(&uid.to_ne_bytes());
            bytes[68..72].copy_from_slice(&inode.to_ne_bytes());
            parse(&bytes, Protocol::Tcp).unwrap().uid
        };
        assert_eq!([user(0, 0), user(0, 5), user(7, 0)], [None, Some(0), Some(7)]);
    }

    #[test]
    fn a_timer_that_is_overdue_has_no_time_left() {
        let mut bytes = fixed(1, 1);
        bytes[52..56].copy_from_slice(&(-20_i32).to_ne_bytes());
        assert_eq!(parse(&bytes, Protocol::Tcp).unwrap().timer.unwrap().left, Duration::ZERO);
        let unknown = parse(&fixed(1, 9), Protocol::Tcp).unwrap().timer.unwrap();
        assert_eq!((unknown.kind, unknown.kind.ss_name()), (TimerKind::Other(9), "unknown"));
        assert_eq!(parse(&fixed(1, 0), Protocol::Tcp).unwrap().timer, None);
    }
}
