//! Multicast groups.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::SockAddr;

use crate::consts::{IPPROTO_IP, IPPROTO_IPV6};
use crate::error::invalid;
use crate::socket::Socket;
use crate::sys::{self, c};

/// Multicast groups, by the calls of RFC 3678, which are the same for IPv4 and IPv6.
///
/// An interface is given by its index (`if_nametoindex`); with 0 the system chooses it. The other
/// multicast options are numbers for [`setsockopt`](Socket::setsockopt): `IP_MULTICAST_TTL`,
/// `IPV6_MULTICAST_HOPS`, `IP_MULTICAST_LOOP`. `IP_MULTICAST_IF` takes an `Ipv4Addr`.
impl Socket {
    /// Joins a multicast group on an interface.
    ///
    /// Python: `setsockopt(IPPROTO_IP, IP_ADD_MEMBERSHIP, …)` or `setsockopt(IPPROTO_IPV6,
    /// IPV6_JOIN_GROUP, …)` with a packed structure. System call: setsockopt(2) with
    /// `MCAST_JOIN_GROUP`. Closing the socket leaves the group.
    ///
    /// # Errors
    ///
    /// Returns an error if the address is not a multicast group (`EINVAL`), if the group has been
    /// joined on this interface already (`EADDRINUSE`), if no interface supports multicast
    /// (`ENODEV`), or if the group is of another address family (`ENOPROTOOPT`).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sock::{AF_INET, IP_MULTICAST_IF, IPPROTO_IP, SOCK_DGRAM, Socket};
    ///
    /// # if cfg!(target_os = "linux") {
    /// let group = Ipv4Addr::new(239, 1, 2, 3);
    /// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// receiver.bind(("", 0))?;
    /// receiver.join_group(group, 1)?; // if_nametoindex("lo")
    ///
    /// let sender = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sender.setsockopt(IPPROTO_IP, IP_MULTICAST_IF, Ipv4Addr::LOCALHOST)?;
    /// sender.sendto(b"to the group", (group, receiver.getsockname()?.port().unwrap()))?;
    /// assert_eq!(receiver.recv(100)?, b"to the group");
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("MCAST_JOIN_GROUP", "IP_ADD_MEMBERSHIP", "IPV6_JOIN_GROUP", "group_req", "ip_mreq"))]
    pub fn join_group(&self, group: impl Into<IpAddr>, interface: u32) -> io::Result<()> {
        self.request(c::MCAST_JOIN_GROUP, group.into(), None, interface)
    }

    /// Leaves a multicast group.
    ///
    /// Python: `setsockopt` with `IP_DROP_MEMBERSHIP` or `IPV6_LEAVE_GROUP`. System
    /// call: setsockopt(2) with `MCAST_LEAVE_GROUP`.
    ///
    /// # Errors
    ///
    /// Returns an error if the group was not joined on this interface (`EADDRNOTAVAIL`).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    ///
    /// # if cfg!(target_os = "linux") {
    /// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// let (group, lo) = (Ipv4Addr::new(239, 1, 2, 3), 1); // if_nametoindex("lo")
    /// receiver.join_group(group, lo)?;
    /// receiver.leave_group(group, lo)?;
    /// let error = receiver.leave_group(group, lo).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("MCAST_LEAVE_GROUP", "IP_DROP_MEMBERSHIP", "IPV6_LEAVE_GROUP"))]
    pub fn leave_group(&self, group: impl Into<IpAddr>, interface: u32) -> io::Result<()> {
        self.request(c::MCAST_LEAVE_GROUP, group.into(), None, interface)
    }

    /// Joins a multicast group for the packets of one source. Each call adds a source.
    ///
    /// Python: `setsockopt(IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, …)`. System call:
    /// setsockopt(2) with `MCAST_JOIN_SOURCE_GROUP`.
    ///
    /// # Errors
    ///
    /// Returns an error if the source and the group are of different families (`InvalidInput`), or
    /// if [`join_group`](Socket::join_group) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    ///
    /// # if cfg!(target_os = "linux") {
    /// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// let (group, lo) = (Ipv4Addr::new(232, 1, 2, 3), 1); // if_nametoindex("lo")
    /// receiver.join_source_group(group, Ipv4Addr::LOCALHOST, lo)?;
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("MCAST_JOIN_SOURCE_GROUP", "IP_ADD_SOURCE_MEMBERSHIP", "group_source_req"))]
    pub fn join_source_group(
        &self,
        group: impl Into<IpAddr>,
        source: impl Into<IpAddr>,
        interface: u32,
    ) -> io::Result<()> {
        self.request(c::MCAST_JOIN_SOURCE_GROUP, group.into(), Some(source.into()), interface)
    }

    /// Stops receiving the packets that `source` sends to a multicast group.
    ///
    /// Python: `setsockopt` with `IP_DROP_SOURCE_MEMBERSHIP`. System call:
    /// setsockopt(2) with `MCAST_LEAVE_SOURCE_GROUP`.
    ///
    /// # Errors
    ///
    /// Returns an error if the source and the group are of different families (`InvalidInput`), or
    /// if the source was not joined on this interface (`EADDRNOTAVAIL`).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Ipv4Addr;
    /// use sock::{AF_INET, SOCK_DGRAM, Socket};
    ///
    /// # if cfg!(target_os = "linux") {
    /// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// let (group, lo) = (Ipv4Addr::new(232, 1, 2, 3), 1); // if_nametoindex("lo")
    /// for source in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)] {
    ///     receiver.join_source_group(group, source, lo)?;
    /// }
    /// receiver.leave_source_group(group, Ipv4Addr::LOCALHOST, lo)?; // the other source remains
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("MCAST_LEAVE_SOURCE_GROUP", "IP_DROP_SOURCE_MEMBERSHIP"))]
    pub fn leave_source_group(
        &self,
        group: impl Into<IpAddr>,
        source: impl Into<IpAddr>,
        interface: u32,
    ) -> io::Result<()> {
        self.request(c::MCAST_LEAVE_SOURCE_GROUP, group.into(), Some(source.into()), interface)
    }

    fn request(
        &self,
        option: i32,
        group: IpAddr,
        source: Option<IpAddr>,
        interface: u32,
    ) -> io::Result<()> {
        if let Some(source) = source.filter(|source| source.is_ipv4() != group.is_ipv4()) {
            return Err(invalid(format!("source {source} is of another family than group {group}")));
        }
        let level = if group.is_ipv4() { IPPROTO_IP } else { IPPROTO_IPV6 };
        let address = |ip| SockAddr::from(SocketAddr::new(ip, 0));
        let value = sys::group_request(interface, &address(group), source.map(address).as_ref());
        self.setsockopt(level, option, &value[..])
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;
    use crate::consts::*;
    use crate::error::errno_name;
    use crate::netdb::interface::if_nametoindex;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 76, 1);

    fn receiver(family: AddressFamily, host: &str) -> (Socket, u16, u32) {
        let sock = Socket::new(family, SOCK_DGRAM, 0).unwrap();
        sock.bind((host, 0)).unwrap();
        sock.settimeout(Duration::from_secs(30)).unwrap();
        let port = sock.getsockname().unwrap().port().unwrap();
        (sock, port, if_nametoindex("lo").unwrap())
    }

    fn sender(from: &str) -> Socket {
        let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        sock.bind((from, 0)).unwrap();
        sock.setsockopt(IPPROTO_IP, IP_MULTICAST_IF, Ipv4Addr::LOCALHOST).unwrap();
        sock
    }

    fn name(result: io::Result<()>) -> Option<&'static str> {
        result.unwrap_err().raw_os_error().and_then(errno_name)
    }

    #[test]
    fn packets_of_a_group_are_received_from_join_to_leave() {
        let (sock, port, lo) = receiver(AF_INET, "239.255.76.1");
        let sender = sender("127.0.0.1");
        sock.join_group(GROUP, lo).unwrap();
        sender.sendto(b"joined", (GROUP, port)).unwrap();
        assert_eq!(sock.recv(100).unwrap(), b"joined");
        sock.leave_group(GROUP, lo).unwrap();
        sender.sendto(b"left", (GROUP, port)).unwrap();
        // Loopback delivers before the call of the sender returns.
        sock.setblocking(false).unwrap();
        assert_eq!(sock.recv(100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn packets_of_one_source_are_received_and_no_others() {
        let (sock, port, lo) = receiver(AF_INET, "239.255.76.1");
        let (wanted, other) = (sender("127.0.0.7"), sender("127.0.0.8"));
        sock.join_source_group(GROUP, Ipv4Addr::new(127, 0, 0, 7), lo).unwrap();
        other.sendto(b"other", (GROUP, port)).unwrap();
        wanted.sendto(b"wanted", (GROUP, port)).unwrap();
        assert_eq!(sock.recv(100).unwrap(), b"wanted");
        sock.leave_source_group(GROUP, Ipv4Addr::new(127, 0, 0, 7), lo).unwrap();
        wanted.sendto(b"no more", (GROUP, port)).unwrap();
        sock.setblocking(false).unwrap();
        assert_eq!(sock.recv(100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    /// Reads the kernel's table, because not every host has a route for such groups on its loopback
    /// interface.
    #[test]
    fn ipv6_groups_are_joined_by_the_same_call() {
        let group: Ipv6Addr = "ff02::4c:1".parse().unwrap();
        let is_joined = || {
            let groups = std::fs::read_to_string("/proc/net/igmp6").unwrap();
            groups
                .lines()
                .any(|line| line.contains("lo ") && line.contains("ff0200000000000000000000004c0001"))
        };
        let (sock, _, lo) = receiver(AF_INET6, "::");
        assert!(!is_joined());
        sock.join_group(group, lo).unwrap();
        assert!(is_joined());
        sock.leave_group(group, lo).unwrap();
        assert!(!is_joined());
        sock.join_source_group(group, Ipv6Addr::LOCALHOST, lo).unwrap();
        assert!(is_joined());
        sock.leave_source_group(group, Ipv6Addr::LOCALHOST, lo).unwrap();
        assert!(!is_joined());
    }

    #[test]
    fn invalid_requests_fail_with_the_errno_of_the_cause() {
        let (sock, _, lo) = receiver(AF_INET, "");
        sock.join_group(GROUP, lo).unwrap();
        assert_eq!(name(sock.join_group(GROUP, lo)), Some("EADDRINUSE"));
        assert_eq!(name(sock.join_group(Ipv4Addr::LOCALHOST, lo)), Some("EINVAL"));
        assert_eq!(name(sock.leave_group(Ipv4Addr::new(239, 9, 9, 9), lo)), Some("EADDRNOTAVAIL"));
        assert_eq!(name(sock.join_group(GROUP, 9999)), Some("ENODEV"));
        let error = sock.join_source_group(GROUP, Ipv6Addr::LOCALHOST, lo).unwrap_err();
        assert_eq!(error.to_string(), "source ::1 is of another family than group 239.255.76.1");
    }
}
