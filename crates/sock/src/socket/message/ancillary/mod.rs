//! Typed items of ancillary data.
//!
//! | C | to send | received |
//! | --- | --- | --- |
//! | `SCM_RIGHTS` | [`Ancillary::rights`] | [`descriptors`](Ancillary::descriptors) |
//! | `SCM_CREDENTIALS` | `Ancillary::credentials` | `as_credentials` |
//! | `IP_PKTINFO`, `IPV6_PKTINFO` | [`Ancillary::pktinfo`] | [`as_pktinfo`](Ancillary::as_pktinfo) |
//! | `IP_TOS`, `IPV6_TCLASS` | [`Ancillary::tos`], [`Ancillary::tclass`] | [`as_tos`](Ancillary::as_tos) |
//! | `IP_TTL`, `IPV6_HOPLIMIT` | `Ancillary::ttl`, [`Ancillary::hoplimit`] | [`as_ttl`](Ancillary::as_ttl) |
//! | `SO_TIMESTAMP`, `SO_TIMESTAMPNS` | | [`as_timestamp`](Ancillary::as_timestamp) |
//! | `SO_RXQ_OVFL` | | `as_rxq_ovfl` |

#[cfg(target_os = "linux")]
mod linux;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use crate::consts::{
    AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IPV6_HOPLIMIT, IPV6_PKTINFO, IPV6_RECVPKTINFO, IPV6_TCLASS,
    SOL_SOCKET,
};
use crate::socket::Socket;
use crate::socket::message::cmsg::Ancillary;
use crate::sys::{IPV4_PKTINFO, TIMESPEC_ITEMS, TIMEVAL_ITEMS, c, message};

/// The interface and addresses of a packet that was received or will be sent.
///
/// C: `struct in_pktinfo`, `struct in6_pktinfo`.
///
/// # Examples
///
/// ```
/// use std::net::Ipv4Addr;
/// use sock::PacketInfo;
///
/// // A datagram to the broadcast address is answered from the address of the interface.
/// let local = Ipv4Addr::new(192, 0, 2, 7).into();
/// let request = PacketInfo { interface: 2, local, destination: Ipv4Addr::BROADCAST.into() };
/// assert_eq!(request.for_reply().unwrap().local, local);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketInfo {
    /// Interface index. 0 lets the system choose; FreeBSD always reports 0 for IPv4.
    pub interface: u32,
    /// The address of this host that received or will send the packet. Its type selects the IPv4 or
    /// IPv6 item.
    pub local: IpAddr,
    /// The destination address of a received packet. It differs from `local` for a broadcast or an
    /// IPv4 multicast packet. Ignored when sending.
    pub destination: IpAddr,
}

impl PacketInfo {
    /// Creates the information for a packet sent from `local`, on any interface.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::{IpAddr, Ipv4Addr};
    /// use sock::PacketInfo;
    ///
    /// let info = PacketInfo::from_address(Ipv4Addr::new(192, 0, 2, 7));
    /// assert_eq!((info.interface, info.local), (0, IpAddr::from([192, 0, 2, 7])));
    /// ```
    #[must_use]
    pub fn from_address(local: impl Into<IpAddr>) -> PacketInfo {
        let local = local.into();
        PacketInfo { interface: 0, local, destination: local }
    }

    /// Returns the information for an answer to the packet, which is sent from the address that the
    /// packet was sent to.
    ///
    /// The system chooses the interface, because the way back may be another one. Only a link-local
    /// IPv6 address exists on one interface, which is kept. Returns `None` if the packet was sent
    /// to several hosts and the address of this host is not known. The system then has to choose
    /// the source of the answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sock::PacketInfo;
    ///
    /// let local = Ipv4Addr::new(192, 0, 2, 7).into();
    /// let request = PacketInfo { interface: 2, local, destination: Ipv4Addr::BROADCAST.into() };
    /// assert_eq!(request.for_reply(), Some(PacketInfo::from_address(local)));
    /// let unknown = PacketInfo { local: Ipv4Addr::UNSPECIFIED.into(), ..request };
    /// assert_eq!(unknown.for_reply(), None);
    /// ```
    #[must_use]
    pub fn for_reply(&self) -> Option<PacketInfo> {
        // macOS has no local address, only the destination.
        let local = if self.local.is_unspecified() { self.destination } else { self.local };
        let names_a_host = match local.to_canonical() {
            IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
            IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
        };
        let is_link_local = matches!(local, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let interface = if is_link_local { self.interface } else { 0 };
        names_a_host.then_some(PacketInfo { interface, ..PacketInfo::from_address(local) })
    }
}

/// The source addresses of answers. Unix only.
impl Socket {
    /// Sets whether received packets have an item with a [`PacketInfo`].
    ///
    /// A server that is bound to all addresses needs it to learn to which address a datagram was
    /// sent, and to answer from there ([`PacketInfo::for_reply`]).
    ///
    /// C: `IP_PKTINFO` or `IPV6_RECVPKTINFO`, on FreeBSD for IPv4 `IP_RECVDSTADDR`. On Linux an
    /// IPv6 socket gets both options, because only `IP_PKTINFO` names the local address of an IPv4
    /// broadcast.
    ///
    /// # Errors
    ///
    /// Returns an error if [`setsockopt`](Socket::setsockopt) does.
    ///
    /// # Examples
    ///
    /// See [`RecvBatch::with_packet_info`](crate::RecvBatch::with_packet_info).
    ///
    /// ```
    /// use sock::{AF_INET, RecvBatch, SOCK_DGRAM, Socket};
    ///
    /// let server = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// server.bind(("", 0))?;
    /// server.set_recv_packet_info(true)?;
    /// let client = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", ("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let mut batch = RecvBatch::with_packet_info(1, 1500)?;
    /// server.recvmmsg(&mut batch)?;
    /// assert!(batch.get(0).unwrap().packet_info().unwrap().destination.is_loopback());
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("IP_PKTINFO", "IPV6_RECVPKTINFO", "IP_RECVDSTADDR"))]
    pub fn set_recv_packet_info(&self, enable: bool) -> io::Result<()> {
        let is_v6 = self.family() == AF_INET6;
        if is_v6 {
            self.setsockopt(IPPROTO_IPV6, IPV6_RECVPKTINFO, enable)?;
        }
        if !is_v6 || cfg!(target_os = "linux") {
            self.setsockopt(IPPROTO_IP, IPV4_PKTINFO, enable)?;
        }
        Ok(())
    }
}

/// Reads the packet information in received ancillary data. Of two items, that of the IPv4 packet
/// has both addresses.
pub(super) fn packet_info(control: &[u8]) -> Option<PacketInfo> {
    let read = |piece: message::Piece<'_>| read_info(piece.level, piece.kind, piece.data);
    let infos = || message::pieces(control).filter_map(read);
    infos().find(|info| info.local.is_ipv4()).or_else(|| infos().next())
}

/// Reads an item with packet information.
fn read_info(level: i32, kind: i32, data: &[u8]) -> Option<PacketInfo> {
    match (level, kind) {
        (IPPROTO_IP, IPV4_PKTINFO) => read_v4_info(data),
        (IPPROTO_IPV6, IPV6_PKTINFO) => {
            let (address, interface) = data.split_first_chunk::<16>()?;
            let local = IpAddr::V6(Ipv6Addr::from(*address));
            let interface = u32::from_ne_bytes(interface.try_into().ok()?);
            Some(PacketInfo { interface, local, destination: local })
        }
        _ => None,
    }
}

/// Typed items. Each reader returns `None` for an item of another type and for invalid or truncated
/// data, so it can be applied to all items: `message.ancillary.iter().find_map(Ancillary::as_ttl)`.
impl Ancillary<'_> {
    /// Creates an item with the interface and source address of a packet to send.
    ///
    /// A host with several addresses uses it to reply from the address that received the request.
    ///
    /// C: `IP_PKTINFO` of ip(7), `IPV6_PKTINFO` of ipv6(7), `IP_SENDSRCADDR` on FreeBSD, where the
    /// interface of an IPv4 packet cannot be chosen.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use std::io::IoSlice;
    /// use sock::{AF_INET, Ancillary, MsgFlags, PacketInfo, SOCK_DGRAM, Socket};
    ///
    /// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// receiver.bind(("127.0.0.1", 0))?;
    /// let sender = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// # if cfg!(target_os = "linux") {
    /// let from = Ancillary::pktinfo(PacketInfo::from_address(Ipv4Addr::new(127, 0, 0, 2)));
    /// sender.sendmsg_to(&[IoSlice::new(b"hello")], &[from], MsgFlags::NONE, receiver.getsockname()?)?;
    /// assert_eq!(receiver.recvfrom(100)?.1.ip(), Some(Ipv4Addr::new(127, 0, 0, 2).into()));
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    #[doc(alias("IP_PKTINFO", "IPV6_PKTINFO", "IP_SENDSRCADDR", "in_pktinfo"))]
    pub fn pktinfo(info: PacketInfo) -> Ancillary<'static> {
        match info.local {
            IpAddr::V4(local) => Ancillary::new(IPPROTO_IP, IPV4_PKTINFO, v4_info(info.interface, local)),
            IpAddr::V6(local) => {
                let bytes = [&local.octets()[..], &info.interface.to_ne_bytes()].concat();
                Ancillary::new(IPPROTO_IPV6, IPV6_PKTINFO, bytes)
            }
        }
    }

    /// Reads an `IP_PKTINFO` or `IPV6_PKTINFO` item: the interface and addresses of a packet.
    ///
    /// Packets have one if `IP_PKTINFO` or `IPV6_RECVPKTINFO` is set, on FreeBSD for IPv4
    /// `IP_RECVDSTADDR`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(any(target_os = "linux", target_os = "macos"))] {
    /// use sock::{AF_INET, Ancillary, IP_PKTINFO, IPPROTO_IP, SOCK_DGRAM, Socket};
    ///
    /// let server = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// server.bind(("", 0))?;
    /// server.setsockopt(IPPROTO_IP, IP_PKTINFO, true)?;
    /// let client = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// client.sendto(b"hello", ("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    ///
    /// let message = server.recvmsg(100, 100)?;
    /// let info = message.ancillary.iter().find_map(Ancillary::as_pktinfo).unwrap();
    /// assert_eq!(info.local.to_string(), "127.0.0.1");
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn as_pktinfo(&self) -> Option<PacketInfo> {
        read_info(self.level(), self.kind(), self.data())
    }

    /// Creates an item with the type of service of one IPv4 packet: 6 bits of DSCP, 2 of ECN.
    ///
    /// C: `IP_TOS` of ip(7).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{AF_INET, Ancillary, IP_RECVTOS, IPPROTO_IP, MsgFlags, SOCK_DGRAM, Socket};
    ///
    /// # if cfg!(target_os = "linux") {
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.setsockopt(IPPROTO_IP, IP_RECVTOS, true)?;
    /// let expedited = Ancillary::tos(0xb8);
    /// sock.sendmsg_to(&[IoSlice::new(b"voice")], &[expedited], MsgFlags::NONE, sock.getsockname()?)?;
    /// let message = sock.recvmsg(100, 100)?;
    /// assert_eq!(message.ancillary.iter().find_map(Ancillary::as_tos), Some(0xb8));
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    #[doc(alias = "IP_TOS")]
    pub fn tos(value: u8) -> Ancillary<'static> {
        if cfg!(target_os = "freebsd") {
            return Ancillary::new(IPPROTO_IP, c::IP_TOS, [value]);
        }
        Ancillary::new(IPPROTO_IP, c::IP_TOS, i32::from(value).to_ne_bytes())
    }

    /// Creates an item with the traffic class of one IPv6 packet: 6 bits of DSCP, 2 of ECN.
    ///
    /// C: `IPV6_TCLASS` of RFC 3542.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Ancillary, IPPROTO_IPV6};
    ///
    /// let expedited = Ancillary::tclass(0xb8);
    /// assert_eq!((expedited.level(), expedited.as_tos()), (IPPROTO_IPV6, Some(0xb8)));
    /// ```
    #[must_use]
    #[doc(alias = "IPV6_TCLASS")]
    pub fn tclass(value: u8) -> Ancillary<'static> {
        Ancillary::new(IPPROTO_IPV6, IPV6_TCLASS, i32::from(value).to_ne_bytes())
    }

    /// Reads an `IP_TOS` or `IPV6_TCLASS` item of a received packet.
    ///
    /// Packets have one if `IP_RECVTOS` or `IPV6_RECVTCLASS` is set.
    ///
    /// # Examples
    ///
    /// ```
    /// # if cfg!(target_os = "linux") {
    /// use sock::{AF_INET, Ancillary, IP_RECVTOS, IP_TOS, IPPROTO_IP, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.setsockopt(IPPROTO_IP, IP_RECVTOS, true)?;
    /// sock.setsockopt(IPPROTO_IP, IP_TOS, 0x10)?;
    /// sock.sendto(b"to myself", sock.getsockname()?)?;
    /// let message = sock.recvmsg(100, 100)?;
    /// assert_eq!(message.ancillary.iter().find_map(Ancillary::as_tos), Some(0x10));
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn as_tos(&self) -> Option<u8> {
        // Linux names the item after the option that sets it, the BSDs after the option that
        // requests it.
        self.number_of(&[c::IP_TOS, c::IP_RECVTOS], IPV6_TCLASS)
    }

    /// Creates an item with the hop limit of one IPv6 packet.
    ///
    /// C: `IPV6_HOPLIMIT` of RFC 3542.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Ancillary, IPPROTO_IPV6};
    ///
    /// let near = Ancillary::hoplimit(1);
    /// assert_eq!((near.level(), near.as_ttl()), (IPPROTO_IPV6, Some(1)));
    /// ```
    #[must_use]
    #[doc(alias = "IPV6_HOPLIMIT")]
    pub fn hoplimit(value: u8) -> Ancillary<'static> {
        Ancillary::new(IPPROTO_IPV6, IPV6_HOPLIMIT, i32::from(value).to_ne_bytes())
    }

    /// Reads an `IP_TTL` or `IPV6_HOPLIMIT` item: the remaining value at arrival.
    ///
    /// Packets have one if `IP_RECVTTL` or `IPV6_RECVHOPLIMIT` is set.
    ///
    /// # Examples
    ///
    /// ```
    /// # if cfg!(target_os = "linux") {
    /// use sock::{AF_INET, Ancillary, IP_RECVTTL, IP_TTL, IPPROTO_IP, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.setsockopt(IPPROTO_IP, IP_RECVTTL, true)?;
    /// sock.setsockopt(IPPROTO_IP, IP_TTL, 7)?;
    /// sock.sendto(b"to myself", sock.getsockname()?)?;
    /// let message = sock.recvmsg(100, 100)?;
    /// assert_eq!(message.ancillary.iter().find_map(Ancillary::as_ttl), Some(7));
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn as_ttl(&self) -> Option<u8> {
        self.number_of(&[c::IP_TTL, c::IP_RECVTTL], IPV6_HOPLIMIT)
    }

    /// Reads a timestamp item: the time when the packet arrived at this host.
    ///
    /// Packets have one if `SO_TIMESTAMP` (microseconds) or, on Linux, `SO_TIMESTAMPNS` is set.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, Ancillary, SO_TIMESTAMP, SOCK_DGRAM, SOL_SOCKET, Socket};
    /// use std::time::SystemTime;
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.setsockopt(SOL_SOCKET, SO_TIMESTAMP, true)?;
    /// sock.sendto(b"to myself", sock.getsockname()?)?;
    /// let message = sock.recvmsg(100, 100)?;
    /// let arrival = message.ancillary.iter().find_map(Ancillary::as_timestamp).unwrap();
    /// assert!(arrival <= SystemTime::now());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    #[doc(alias("SO_TIMESTAMP", "SO_TIMESTAMPNS", "SCM_TIMESTAMP", "SCM_REALTIME"))]
    pub fn as_timestamp(&self) -> Option<SystemTime> {
        if let Some(bytes) = self.bytes_of(SOL_SOCKET, TIMEVAL_ITEMS) {
            let (seconds, microseconds) = read_time(bytes)?;
            return time(seconds, microseconds.checked_mul(1000)?);
        }
        let (seconds, nanoseconds) = read_time(self.bytes_of(SOL_SOCKET, TIMESPEC_ITEMS)?)?;
        time(seconds, nanoseconds)
    }

    pub(super) fn bytes_of(&self, level: i32, kinds: &[i32]) -> Option<&[u8]> {
        (self.level() == level && kinds.contains(&self.kind())).then(|| self.data())
    }

    /// Reads an 8-bit number that is sent as a byte or as an `int`.
    fn number_of(&self, v4: &[i32], v6: i32) -> Option<u8> {
        match self.bytes_of(IPPROTO_IP, v4).or_else(|| self.bytes_of(IPPROTO_IPV6, &[v6]))? {
            [byte] => Some(*byte),
            bytes => u8::try_from(i32::from_ne_bytes(bytes.try_into().ok()?)).ok(),
        }
    }
}

/// Builds a `struct in_pktinfo`: interface, local address, destination. FreeBSD has only the
/// address.
fn v4_info(interface: u32, local: Ipv4Addr) -> Vec<u8> {
    if cfg!(target_os = "freebsd") {
        return local.octets().to_vec();
    }
    [interface.to_ne_bytes(), local.octets(), [0; 4]].concat()
}

fn read_v4_info(bytes: &[u8]) -> Option<PacketInfo> {
    if cfg!(target_os = "freebsd") {
        return Some(PacketInfo::from_address(<[u8; 4]>::try_from(bytes).ok()?));
    }
    let (interface, addresses) = bytes.split_first_chunk::<4>()?;
    let (local, destination) = addresses.split_first_chunk::<4>()?;
    Some(PacketInfo {
        interface: u32::from_ne_bytes(*interface),
        local: (*local).into(),
        destination: <[u8; 4]>::try_from(destination).ok()?.into(),
    })
}

/// Reads the two numbers of a timeval or timespec. Each has the size of a word; some 32-bit systems
/// use half of that.
fn read_time(bytes: &[u8]) -> Option<(i64, i64)> {
    let half = |at: usize| Some(i64::from(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)));
    let whole = |at: usize| Some(i64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    match bytes.len() {
        8 => Some((half(0)?, half(4)?)),
        // Microseconds have 32 bits on macOS, and the content of the padding is undefined.
        16 if cfg!(target_os = "macos") => Some((whole(0)?, half(8)?)),
        16 => Some((whole(0)?, whole(8)?)),
        _ => None,
    }
}

/// Returns the point in time, if `SystemTime` can represent it.
fn time(seconds: i64, nanoseconds: i64) -> Option<SystemTime> {
    let nanoseconds = u32::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000)?;
    let seconds = u64::try_from(seconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::consts::*;
    use crate::create::create_server::socketpair;
    use crate::socket::message::Message;

    /// Creates a receiver with `options`, sends it a packet with `items`, and returns what it
    /// received.
    pub(crate) fn through_loopback(host: &str, options: &[(i32, i32)], items: &[Ancillary<'_>]) -> Message {
        let family = if host.contains(':') { AF_INET6 } else { AF_INET };
        let receiver = Socket::new(family, SOCK_DGRAM, 0).unwrap();
        receiver.bind((host, 0)).unwrap();
        for &(level, option) in options {
            receiver.setsockopt(level, option, true).unwrap();
        }
        let sender = Socket::new(family, SOCK_DGRAM, 0).unwrap();
        let to = receiver.getsockname().unwrap();
        sender.sendmsg_to(&[IoSlice::new(b"x")], items, MsgFlags::NONE, to).unwrap();
        receiver.recvmsg(10, 200).unwrap()
    }

    pub(crate) fn find<T>(message: &Message, read: impl Fn(&Ancillary<'static>) -> Option<T>) -> T {
        let mut found: Vec<_> = message.ancillary.iter().filter_map(read).collect();
        assert_eq!(found.len(), 1, "{:?}", message.ancillary);
        found.remove(0)
    }

    pub(crate) fn assert_arrival_time(option: i32) {
        let before = SystemTime::now();
        let message = through_loopback("127.0.0.1", &[(SOL_SOCKET, option)], &[]);
        let arrival = find(&message, Ancillary::as_timestamp);
        // It is rounded down to microseconds.
        assert!(arrival >= before - Duration::from_micros(1) && arrival <= SystemTime::now(), "{option}");
    }

    #[test]
    fn requested_items_of_an_ipv6_packet_are_received() {
        use std::io::Write;
        let bound = Socket::new(AF_INET6, SOCK_DGRAM, 0).and_then(|sock| sock.bind(("::1", 0)));
        if let Err(error) = bound {
            let _ = writeln!(std::io::stderr(), "NOT RUN: this machine has no IPv6: {error}");
            return;
        }
        let options = [
            (IPPROTO_IPV6, IPV6_RECVTCLASS),
            (IPPROTO_IPV6, IPV6_RECVHOPLIMIT),
            (IPPROTO_IPV6, IPV6_RECVPKTINFO),
        ];
        let items = [
            Ancillary::tclass(0xB8),
            Ancillary::hoplimit(7),
            Ancillary::pktinfo(PacketInfo::from_address(Ipv6Addr::LOCALHOST)),
        ];
        let message = through_loopback("::1", &options, &items);
        assert_eq!(find(&message, Ancillary::as_tos), 0xB8);
        assert_eq!(find(&message, Ancillary::as_ttl), 7);
        let info = find(&message, Ancillary::as_pktinfo);
        assert_eq!(info.local, IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert!(info.interface > 0);
    }

    #[test]
    fn a_packet_carries_its_arrival_time() {
        assert_arrival_time(SO_TIMESTAMP);
    }

    #[test]
    fn received_descriptors_are_listed() {
        use crate::sys::AsFd;
        let (ours, theirs) = socketpair().unwrap();
        let rights = Ancillary::rights(&[ours.as_fd(), theirs.as_fd()]);
        assert!(rights.descriptors().is_empty(), "not received");
        ours.sendmsg(&[IoSlice::new(b"x")], &[rights]).unwrap();
        let message = theirs.recvmsg(1, 100).unwrap();
        assert_eq!(message.ancillary[0].descriptors().len(), 2);
    }

    #[test]
    fn a_truncated_or_unrelated_item_reads_as_none() {
        let readers: [fn(&Ancillary<'_>) -> bool; 4] = [
            |item| item.as_pktinfo().is_some(),
            |item| item.as_tos().is_some(),
            |item| item.as_ttl().is_some(),
            |item| item.as_timestamp().is_some(),
        ];
        let kinds = [
            (IPPROTO_IP, IPV4_PKTINFO),
            (IPPROTO_IPV6, IPV6_PKTINFO),
            (IPPROTO_IP, c::IP_TOS),
            (IPPROTO_IPV6, IPV6_TCLASS),
            (IPPROTO_IP, c::IP_TTL),
            (IPPROTO_IPV6, IPV6_HOPLIMIT),
            (SOL_SOCKET, TIMEVAL_ITEMS[0]),
            (SOL_SOCKET, SCM_RIGHTS),
        ];
        let mut accepted = Vec::new();
        for (level, kind) in kinds {
            let lengths = (0..40).filter(|&length| {
                let item = Ancillary::new(level, kind, vec![0; length]);
                let read = readers.iter().filter(|read| read(&item)).count();
                assert!(read <= 1, "{item:?}");
                read == 1
            });
            accepted.push(lengths.collect::<Vec<_>>());
        }
        let v4_info = if cfg!(target_os = "freebsd") { 4 } else { 12 };
        let lengths: [&[usize]; 8] = [&[v4_info], &[20], &[1, 4], &[1, 4], &[1, 4], &[1, 4], &[8, 16], &[]];
        assert_eq!(accepted, lengths);
    }

    #[test]
    fn invalid_numbers_read_as_none() {
        let tos = |value: i32| Ancillary::new(IPPROTO_IP, c::IP_TOS, value.to_ne_bytes()).as_tos();
        assert_eq!([255, 256, -1].map(tos), [Some(255), None, None]);
        let at = |seconds: i64, fraction: i64| {
            let bytes = [seconds.to_ne_bytes(), fraction.to_ne_bytes()].concat();
            Ancillary::new(SOL_SOCKET, TIMEVAL_ITEMS[0], bytes).as_timestamp()
        };
        assert_eq!(at(1, 5), Some(SystemTime::UNIX_EPOCH + Duration::from_micros(1_000_005)));
        assert_eq!([at(1, 1_000_000), at(-1, 0), at(1, -1), at(1, i64::MAX - 1)], [None; 4]);
        assert!(at(i64::MAX, 0).is_none_or(|time| time > SystemTime::now()));
    }
}
