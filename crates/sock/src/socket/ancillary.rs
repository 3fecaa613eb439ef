//! Items of ancillary data as what they mean, instead of bytes.
//!
//! | C | to be sent | received |
//! | --- | --- | --- |
//! | `SCM_RIGHTS` | [`Ancillary::rights`] | [`descriptors`](Ancillary::descriptors) |
//! | `SCM_CREDENTIALS` | `Ancillary::credentials` | `as_credentials` |
//! | `IP_PKTINFO`, `IPV6_PKTINFO` | [`Ancillary::pktinfo`] | [`as_pktinfo`](Ancillary::as_pktinfo) |
//! | `IP_TOS`, `IPV6_TCLASS` | [`Ancillary::tos`], [`Ancillary::tclass`] | [`as_tos`](Ancillary::as_tos) |
//! | `IP_TTL`, `IPV6_HOPLIMIT` | `Ancillary::ttl`, [`Ancillary::hoplimit`] | [`as_ttl`](Ancillary::as_ttl) |
//! | `SO_TIMESTAMP`, `SO_TIMESTAMPNS` | | [`as_timestamp`](Ancillary::as_timestamp) |
//! | `SO_RXQ_OVFL` | | `as_rxq_ovfl` |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use crate::consts::{IPPROTO_IP, IPPROTO_IPV6, IPV6_HOPLIMIT, IPV6_PKTINFO, IPV6_TCLASS, SOL_SOCKET};
use crate::socket::cmsg::Ancillary;
#[cfg(target_os = "linux")]
use crate::socket::credentials::Credentials;
use crate::sys::c;

/// Which way a packet came in, or shall go out.
///
/// C: `struct in_pktinfo`, `struct in6_pktinfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PacketInfo {
    /// Number of the interface; 0 leaves it to the system, and is what FreeBSD tells
    /// for IPv4.
    pub interface: u32,
    /// This host's address: the one the packet came to, or shall come from. It says
    /// which item it is, that of IPv4 or of IPv6.
    pub local: IpAddr,
    /// Where the packet was sent to: not `local` for a broadcast, or an IPv4
    /// multicast. Nobody reads it on the way out.
    pub destination: IpAddr,
}

impl PacketInfo {
    /// For a packet that shall come from `local`, by any interface.
    #[must_use]
    pub fn from_address(local: impl Into<IpAddr>) -> PacketInfo {
        let local = local.into();
        PacketInfo { interface: 0, local, destination: local }
    }
}

/// Items that have a meaning. A reader returns `None` for an item of another kind
/// and for one whose bytes do not make sense, such as one that was cut; so it can be
/// put to all of them: `message.ancillary.iter().find_map(Ancillary::as_ttl)`.
impl Ancillary<'_> {
    /// Who the sender says it is, to a receiver that has set `SO_PASSCRED`. No
    /// `pid` means this process.
    ///
    /// C: `SCM_CREDENTIALS` of unix(7). The system checks it: what is not true is
    /// `EPERM`, except from a privileged sender.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{Ancillary, CMSG_SPACE, Credentials, SO_PASSCRED, SOL_SOCKET};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.setsockopt(SOL_SOCKET, SO_PASSCRED, true)?;
    /// let me = Credentials::current();
    /// ours.sendmsg(&[IoSlice::new(b"it is me")], &[Ancillary::credentials(me)])?;
    /// let message = theirs.recvmsg(100, CMSG_SPACE(12)?)?;
    /// assert_eq!(message.ancillary[0].as_credentials(), Some(me));
    /// # std::io::Result::Ok(())
    /// ```
    #[cfg(target_os = "linux")]
    #[must_use]
    #[doc(alias = "SCM_CREDENTIALS")]
    pub fn credentials(credentials: Credentials) -> Ancillary<'static> {
        let Credentials { pid, uid, gid } = credentials;
        let pid = pid.map_or(std::process::id(), |pid| pid as u32);
        let words = [pid, uid, gid].map(u32::to_ne_bytes);
        Ancillary::new(SOL_SOCKET, c::SCM_CREDENTIALS, words.as_flattened())
    }

    /// Reads an `SCM_CREDENTIALS` item: who the sender is, as the system has checked.
    /// It comes with every message once `SO_PASSCRED` is set.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{Ancillary, CMSG_SPACE, Credentials, SO_PASSCRED, SOL_SOCKET};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.setsockopt(SOL_SOCKET, SO_PASSCRED, true)?;
    /// ours.send(b"guess who")?;
    /// let message = theirs.recvmsg(100, CMSG_SPACE(12)?)?;
    /// let sender = message.ancillary.iter().find_map(Ancillary::as_credentials);
    /// assert_eq!(sender.unwrap().pid, Credentials::current().pid);
    /// # std::io::Result::Ok(())
    /// ```
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn as_credentials(&self) -> Option<Credentials> {
        let bytes = self.bytes_of(SOL_SOCKET, &[c::SCM_CREDENTIALS])?;
        let [pid, uid, gid] = words(bytes)?;
        Some(Credentials { pid: (pid != 0).then_some(pid as i32), uid, gid })
    }

    /// The interface and the address a packet shall go out by: to answer from the
    /// very address that was asked, where a host has several.
    ///
    /// C: `IP_PKTINFO` of ip(7), `IPV6_PKTINFO` of ipv6(7); `IP_SENDSRCADDR` on
    /// FreeBSD, where the interface of an IPv4 packet cannot be chosen.
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
    /// # #[cfg(target_os = "linux")] {
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

    /// Reads an `IP_PKTINFO` or `IPV6_PKTINFO` item: which way a packet came in. They
    /// come once `IP_PKTINFO` or `IPV6_RECVPKTINFO` is set, on FreeBSD for IPv4
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
        if let Some(bytes) = self.bytes_of(IPPROTO_IP, &[IPV4_PKTINFO]) {
            return read_v4_info(bytes);
        }
        let bytes = self.bytes_of(IPPROTO_IPV6, &[IPV6_PKTINFO])?;
        let (address, interface) = bytes.split_first_chunk::<16>()?;
        let local = IpAddr::V6(Ipv6Addr::from(*address));
        Some(PacketInfo {
            interface: u32::from_ne_bytes(interface.try_into().ok()?),
            local,
            destination: local,
        })
    }

    /// Type of service of one IPv4 packet: six bits of DSCP and two of ECN.
    ///
    /// C: `IP_TOS` of ip(7).
    #[must_use]
    #[doc(alias = "IP_TOS")]
    pub fn tos(value: u8) -> Ancillary<'static> {
        if cfg!(target_os = "freebsd") {
            return Ancillary::new(IPPROTO_IP, c::IP_TOS, [value]);
        }
        Ancillary::new(IPPROTO_IP, c::IP_TOS, i32::from(value).to_ne_bytes())
    }

    /// Traffic class of one IPv6 packet: the same eight bits.
    ///
    /// C: `IPV6_TCLASS` of RFC 3542.
    #[must_use]
    #[doc(alias = "IPV6_TCLASS")]
    pub fn tclass(value: u8) -> Ancillary<'static> {
        Ancillary::new(IPPROTO_IPV6, IPV6_TCLASS, i32::from(value).to_ne_bytes())
    }

    /// Reads an `IP_TOS` or `IPV6_TCLASS` item, that of a packet that came. They come
    /// once `IP_RECVTOS` or `IPV6_RECVTCLASS` is set.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
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
        // Linux names the item as the option that sets it, the BSDs as the one that asks for it.
        self.number_of(&[c::IP_TOS, c::IP_RECVTOS], IPV6_TCLASS)
    }

    /// Time to live of one IPv4 packet.
    ///
    /// C: `IP_TTL` of ip(7).
    #[cfg(target_os = "linux")]
    #[must_use]
    #[doc(alias = "IP_TTL")]
    pub fn ttl(value: u8) -> Ancillary<'static> {
        Ancillary::new(IPPROTO_IP, c::IP_TTL, i32::from(value).to_ne_bytes())
    }

    /// Hop limit of one IPv6 packet.
    ///
    /// C: `IPV6_HOPLIMIT` of RFC 3542.
    #[must_use]
    #[doc(alias = "IPV6_HOPLIMIT")]
    pub fn hoplimit(value: u8) -> Ancillary<'static> {
        Ancillary::new(IPPROTO_IPV6, IPV6_HOPLIMIT, i32::from(value).to_ne_bytes())
    }

    /// Reads an `IP_TTL` or `IPV6_HOPLIMIT` item: what was left of it when the packet
    /// came. They come once `IP_RECVTTL` or `IPV6_RECVHOPLIMIT` is set.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
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

    /// Reads a timestamp: when the packet came to this host. It comes once
    /// `SO_TIMESTAMP` (to the microsecond) or, on Linux, `SO_TIMESTAMPNS` is set.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use sock::{AF_INET, Ancillary, SO_TIMESTAMPNS, SOCK_DGRAM, SOL_SOCKET, Socket};
    /// use std::time::SystemTime;
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.setsockopt(SOL_SOCKET, SO_TIMESTAMPNS, true)?;
    /// sock.sendto(b"to myself", sock.getsockname()?)?;
    /// let message = sock.recvmsg(100, 100)?;
    /// let came = message.ancillary.iter().find_map(Ancillary::as_timestamp).unwrap();
    /// assert!(came <= SystemTime::now());
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    #[doc(alias("SO_TIMESTAMP", "SO_TIMESTAMPNS", "SCM_TIMESTAMP", "SCM_REALTIME"))]
    pub fn as_timestamp(&self) -> Option<SystemTime> {
        if let Some(bytes) = self.bytes_of(SOL_SOCKET, TIMEVAL) {
            let (seconds, microseconds) = read_time(bytes)?;
            return time(seconds, microseconds.checked_mul(1000)?);
        }
        let (seconds, nanoseconds) = read_time(self.bytes_of(SOL_SOCKET, TIMESPEC)?)?;
        time(seconds, nanoseconds)
    }

    /// Reads how many packets the socket had no room for since it was made. It comes
    /// once `SO_RXQ_OVFL` is set and there were some.
    #[cfg(target_os = "linux")]
    #[must_use]
    #[doc(alias = "SO_RXQ_OVFL")]
    pub fn as_rxq_ovfl(&self) -> Option<u32> {
        let [count] = words(self.bytes_of(SOL_SOCKET, &[c::SO_RXQ_OVFL])?)?;
        Some(count)
    }

    fn bytes_of(&self, level: i32, kinds: &[i32]) -> Option<&[u8]> {
        (self.level() == level && kinds.contains(&self.kind())).then(|| self.data())
    }

    /// A number of eight bits that comes as a byte or as an `int`.
    fn number_of(&self, v4: &[i32], v6: i32) -> Option<u8> {
        match self.bytes_of(IPPROTO_IP, v4).or_else(|| self.bytes_of(IPPROTO_IPV6, &[v6]))? {
            [byte] => Some(*byte),
            bytes => u8::try_from(i32::from_ne_bytes(bytes.try_into().ok()?)).ok(),
        }
    }
}

#[cfg(not(target_os = "freebsd"))]
const IPV4_PKTINFO: i32 = c::IP_PKTINFO;
#[cfg(target_os = "freebsd")]
const IPV4_PKTINFO: i32 = c::IP_RECVDSTADDR;

/// A `struct in_pktinfo`: interface, own address, destination. FreeBSD knows the
/// address alone.
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

#[cfg(target_os = "linux")]
fn words<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    if bytes.len() != 4 * N {
        return None;
    }
    let mut words =
        bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap_or_default()));
    Some(std::array::from_fn(|_| words.next().unwrap_or_default()))
}

/// Items that are a `struct timeval`.
#[cfg(target_os = "linux")]
const TIMEVAL: &[i32] = &[c::SO_TIMESTAMP];
#[cfg(not(target_os = "linux"))]
const TIMEVAL: &[i32] = &[c::SCM_TIMESTAMP];

/// Items that are a `struct timespec`.
#[cfg(target_os = "linux")]
const TIMESPEC: &[i32] = &[c::SO_TIMESTAMPNS];
#[cfg(target_os = "freebsd")]
const TIMESPEC: &[i32] = &[c::SCM_REALTIME];
#[cfg(target_os = "macos")]
const TIMESPEC: &[i32] = &[];

/// The two numbers of a timeval or timespec: each a word, on 32 bits half of one.
fn read_time(bytes: &[u8]) -> Option<(i64, i64)> {
    let half = |at: usize| Some(i64::from(i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)));
    let whole = |at: usize| Some(i64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    match bytes.len() {
        8 => Some((half(0)?, half(4)?)),
        // Microseconds have 32 bits there, and nothing is said of those behind them.
        16 if cfg!(target_os = "macos") => Some((whole(0)?, half(8)?)),
        16 => Some((whole(0)?, whole(8)?)),
        _ => None,
    }
}

/// A point in time, if the system's clock can name it.
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
    use crate::socket::Socket;
    use crate::socket::message::Message;

    /// A socket that is asked for `options`, and what it got with a packet that was
    /// sent with `items`.
    fn through_loopback(host: &str, options: &[(i32, i32)], items: &[Ancillary<'_>]) -> Message {
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

    fn find<T>(message: &Message, read: impl Fn(&Ancillary<'static>) -> Option<T>) -> T {
        let mut found: Vec<_> = message.ancillary.iter().filter_map(read).collect();
        assert_eq!(found.len(), 1, "{:?}", message.ancillary);
        found.remove(0)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_asked_for_of_an_ipv4_packet_arrives() {
        let options = [(IPPROTO_IP, IP_RECVTOS), (IPPROTO_IP, IP_RECVTTL), (IPPROTO_IP, IP_PKTINFO)];
        let items = [
            Ancillary::tos(0xB8),
            Ancillary::ttl(7),
            Ancillary::pktinfo(PacketInfo::from_address([127, 0, 0, 9])),
        ];
        let message = through_loopback("127.0.0.5", &options, &items);
        assert_eq!(find(&message, Ancillary::as_tos), 0xB8);
        assert_eq!(find(&message, Ancillary::as_ttl), 7);
        let info = find(&message, Ancillary::as_pktinfo);
        assert_eq!((info.local.to_string(), info.destination), ("127.0.0.5".into(), info.local));
        assert_eq!(crate::netdb::interface::if_indextoname(info.interface).unwrap(), "lo");
        // The sender's address is the one that was asked for.
        assert_eq!(message.address.ip(), Some([127, 0, 0, 9].into()));
    }

    #[test]
    fn what_is_asked_for_of_an_ipv6_packet_arrives() {
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
    fn a_packet_tells_when_it_came() {
        #[cfg(target_os = "linux")]
        let options = [SO_TIMESTAMP, SO_TIMESTAMPNS];
        #[cfg(not(target_os = "linux"))]
        let options = [SO_TIMESTAMP];
        for option in options {
            let before = SystemTime::now();
            let message = through_loopback("127.0.0.1", &[(SOL_SOCKET, option)], &[]);
            let came = find(&message, Ancillary::as_timestamp);
            // It is cut to microseconds.
            assert!(came >= before - Duration::from_micros(1) && came <= SystemTime::now(), "{option}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn packets_without_room_are_counted() {
        let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        receiver.bind(("127.0.0.1", 0)).unwrap();
        receiver.setsockopt(SOL_SOCKET, SO_RXQ_OVFL, true).unwrap();
        receiver.setsockopt(SOL_SOCKET, SO_RCVBUF, 1).unwrap();
        let sender = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        let to = receiver.getsockname().unwrap();
        for _ in 0..100 {
            sender.sendto(&[0; 1000], &to).unwrap();
        }
        receiver.setblocking(false).unwrap();
        let mut came = 0;
        while receiver.recv(1).is_ok() {
            came += 1;
        }
        sender.sendto(b"the next one tells", &to).unwrap();
        assert_eq!(find(&receiver.recvmsg(1, 100).unwrap(), Ancillary::as_rxq_ovfl), 100 - came);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn credentials_are_those_of_the_sender() {
        let (ours, theirs) = socketpair().unwrap();
        theirs.setsockopt(SOL_SOCKET, SO_PASSCRED, true).unwrap();
        let own = Credentials::current();
        for told in [own, Credentials { pid: None, ..own }] {
            ours.sendmsg(&[IoSlice::new(b"x")], &[Ancillary::credentials(told)]).unwrap();
            assert_eq!(find(&theirs.recvmsg(1, 100).unwrap(), Ancillary::as_credentials), own);
        }
        // No process has this number (proc(5): it is above every pid_max).
        let lie = Ancillary::credentials(Credentials { pid: Some(i32::MAX), ..own });
        assert!(ours.sendmsg(&[IoSlice::new(b"x")], &[lie]).is_err());
    }

    #[test]
    fn descriptors_are_seen_before_they_are_taken() {
        use crate::sys::AsFd;
        let (ours, theirs) = socketpair().unwrap();
        let rights = Ancillary::rights(&[ours.as_fd(), theirs.as_fd()]);
        assert!(rights.descriptors().is_empty(), "they are still ours");
        ours.sendmsg(&[IoSlice::new(b"x")], &[rights]).unwrap();
        let message = theirs.recvmsg(1, 100).unwrap();
        assert_eq!(message.ancillary[0].descriptors().len(), 2);
    }

    #[test]
    fn an_item_that_was_cut_or_is_another_reads_as_none() {
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
            (SOL_SOCKET, TIMEVAL[0]),
            (SOL_SOCKET, SCM_RIGHTS),
        ];
        let mut meant = Vec::new();
        for (level, kind) in kinds {
            let lengths = (0..40).filter(|&length| {
                let item = Ancillary::new(level, kind, vec![0; length]);
                let read = readers.iter().filter(|read| read(&item)).count();
                assert!(read <= 1, "{item:?}");
                read == 1
            });
            meant.push(lengths.collect::<Vec<_>>());
        }
        let v4_info = if cfg!(target_os = "freebsd") { 4 } else { 12 };
        let lengths: [&[usize]; 8] = [&[v4_info], &[20], &[1, 4], &[1, 4], &[1, 4], &[1, 4], &[8, 16], &[]];
        assert_eq!(meant, lengths);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_broadcast_tells_the_address_here_and_the_one_it_was_sent_to() {
        let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        receiver.bind(("", 0)).unwrap();
        receiver.setsockopt(IPPROTO_IP, IP_PKTINFO, true).unwrap();
        let sender = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        sender.setsockopt(SOL_SOCKET, SO_BROADCAST, true).unwrap();
        let port = receiver.getsockname().unwrap().port().unwrap();
        sender.sendto(b"x", ("127.255.255.255", port)).unwrap();
        let info = find(&receiver.recvmsg(1, 100).unwrap(), Ancillary::as_pktinfo);
        let [local, destination] = [[127, 0, 0, 1], [127, 255, 255, 255]].map(IpAddr::from);
        assert_eq!((info.local, info.destination), (local, destination));
    }

    /// On one host user and group are often the same number, so that a mix-up would not show.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_parts_of_credentials_are_where_c_has_them() {
        use std::mem::offset_of;
        let mut bytes = [0; size_of::<c::ucred>()];
        for (at, number) in
            [(offset_of!(c::ucred, pid), 1), (offset_of!(c::ucred, uid), 2), (offset_of!(c::ucred, gid), 3)]
        {
            bytes[at] = number;
        }
        if cfg!(target_endian = "big") {
            bytes.chunks_exact_mut(4).for_each(<[u8]>::reverse);
        }
        let item = Ancillary::new(SOL_SOCKET, SCM_CREDENTIALS, bytes);
        let expected = Credentials { pid: Some(1), uid: 2, gid: 3 };
        assert_eq!(item.as_credentials(), Some(expected));
        assert_eq!(Ancillary::credentials(expected).data(), bytes);
        for length in (0..20).filter(|length| *length != bytes.len()) {
            let item = Ancillary::new(SOL_SOCKET, SCM_CREDENTIALS, vec![0; length]);
            assert_eq!(item.as_credentials(), None, "{length} bytes");
        }
    }

    #[test]
    fn numbers_that_make_no_sense_read_as_none() {
        let tos = |value: i32| Ancillary::new(IPPROTO_IP, c::IP_TOS, value.to_ne_bytes()).as_tos();
        assert_eq!([255, 256, -1].map(tos), [Some(255), None, None]);
        let at = |seconds: i64, fraction: i64| {
            let bytes = [seconds.to_ne_bytes(), fraction.to_ne_bytes()].concat();
            Ancillary::new(SOL_SOCKET, TIMEVAL[0], bytes).as_timestamp()
        };
        assert_eq!(at(1, 5), Some(SystemTime::UNIX_EPOCH + Duration::from_micros(1_000_005)));
        assert_eq!([at(1, 1_000_000), at(-1, 0), at(1, -1), at(1, i64::MAX - 1)], [None; 4]);
        assert!(at(i64::MAX, 0).is_none_or(|time| time > SystemTime::now()));
    }
}
