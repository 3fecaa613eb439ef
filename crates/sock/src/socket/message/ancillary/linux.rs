//! Items of ancillary data that only Linux has.

use crate::consts::{IPPROTO_IP, SOL_SOCKET};
use crate::socket::message::cmsg::Ancillary;
use crate::socket::message::credentials::Credentials;
use crate::sys::c;

/// Typed items of Linux.
impl Ancillary<'_> {
    /// Creates an `SCM_CREDENTIALS` item with the credentials of the sender.
    ///
    /// The receiver gets it if it has set `SO_PASSCRED`. A `pid` of `None` stands for this process.
    ///
    /// C: `SCM_CREDENTIALS` of unix(7). The kernel checks the credentials: sending false ones fails
    /// with `EPERM`, except for a privileged sender.
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
    /// ours.sendmsg(&[IoSlice::new(b"hello")], &[Ancillary::credentials(me)])?;
    /// let message = theirs.recvmsg(100, CMSG_SPACE(12)?)?;
    /// assert_eq!(message.ancillary[0].as_credentials(), Some(me));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    #[doc(alias = "SCM_CREDENTIALS")]
    pub fn credentials(credentials: Credentials) -> Ancillary<'static> {
        let Credentials { pid, uid, gid } = credentials;
        let pid = pid.map_or(std::process::id(), |pid| pid as u32);
        let words = [pid, uid, gid].map(u32::to_ne_bytes);
        Ancillary::new(SOL_SOCKET, c::SCM_CREDENTIALS, words.as_flattened())
    }

    /// Reads an `SCM_CREDENTIALS` item: the credentials of the sender, checked by the kernel.
    ///
    /// Every message has one if `SO_PASSCRED` is set.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{Ancillary, CMSG_SPACE, Credentials, SO_PASSCRED, SOL_SOCKET};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.setsockopt(SOL_SOCKET, SO_PASSCRED, true)?;
    /// ours.send(b"hello")?;
    /// let message = theirs.recvmsg(100, CMSG_SPACE(12)?)?;
    /// let sender = message.ancillary.iter().find_map(Ancillary::as_credentials);
    /// assert_eq!(sender.unwrap().pid, Credentials::current().pid);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn as_credentials(&self) -> Option<Credentials> {
        let bytes = self.bytes_of(SOL_SOCKET, &[c::SCM_CREDENTIALS])?;
        let [pid, uid, gid] = words(bytes)?;
        Some(Credentials { pid: (pid != 0).then_some(pid as i32), uid, gid })
    }

    /// Creates an item with the time to live of one IPv4 packet.
    ///
    /// C: `IP_TTL` of ip(7).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{AF_INET, Ancillary, IP_RECVTTL, IPPROTO_IP, MsgFlags, SOCK_DGRAM, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.setsockopt(IPPROTO_IP, IP_RECVTTL, true)?;
    /// sock.sendmsg_to(&[IoSlice::new(b"near")], &[Ancillary::ttl(1)], MsgFlags::NONE, sock.getsockname()?)?;
    /// let message = sock.recvmsg(100, 100)?;
    /// assert_eq!(message.ancillary.iter().find_map(Ancillary::as_ttl), Some(1));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    #[doc(alias = "IP_TTL")]
    pub fn ttl(value: u8) -> Ancillary<'static> {
        Ancillary::new(IPPROTO_IP, c::IP_TTL, i32::from(value).to_ne_bytes())
    }

    /// Reads the number of packets the socket has dropped because its receive queue was full.
    ///
    /// Packets have this item if `SO_RXQ_OVFL` is set and the number is not 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_INET, Ancillary, SO_RCVBUF, SO_RXQ_OVFL, SOCK_DGRAM, SOL_SOCKET, Socket};
    ///
    /// let sock = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sock.bind(("127.0.0.1", 0))?;
    /// sock.setsockopt(SOL_SOCKET, SO_RXQ_OVFL, true)?;
    /// sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 1)?;
    /// // Most of these do not fit into the receive queue.
    /// for _ in 0..100 {
    ///     sock.sendto(&[0; 1000], sock.getsockname()?)?;
    /// }
    /// sock.setblocking(false)?;
    /// while sock.recv(1).is_ok() {}
    /// sock.sendto(b"carries the number", sock.getsockname()?)?;
    /// let message = sock.recvmsg(100, 100)?;
    /// assert!(message.ancillary.iter().find_map(Ancillary::as_rxq_ovfl) > Some(0));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    #[doc(alias = "SO_RXQ_OVFL")]
    pub fn as_rxq_ovfl(&self) -> Option<u32> {
        let [count] = words(self.bytes_of(SOL_SOCKET, &[c::SO_RXQ_OVFL])?)?;
        Some(count)
    }
}

fn words<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    if bytes.len() != 4 * N {
        return None;
    }
    let mut words =
        bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap_or_default()));
    Some(std::array::from_fn(|_| words.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::net::IpAddr;

    use super::*;
    use crate::consts::*;
    use crate::create::create_server::socketpair;
    use crate::socket::Socket;
    use crate::socket::message::ancillary::PacketInfo;
    use crate::socket::message::ancillary::tests::{assert_arrival_time, find, through_loopback};

    #[test]
    fn a_packet_carries_its_arrival_time_in_nanoseconds() {
        assert_arrival_time(SO_TIMESTAMPNS);
    }

    #[test]
    fn requested_items_of_an_ipv4_packet_are_received() {
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
        // The packet was sent from the requested source address.
        assert_eq!(message.address.ip(), Some([127, 0, 0, 9].into()));
    }

    #[test]
    fn dropped_packets_are_counted() {
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
        let mut received = 0;
        while receiver.recv(1).is_ok() {
            received += 1;
        }
        sender.sendto(b"carries the count", &to).unwrap();
        assert_eq!(find(&receiver.recvmsg(1, 100).unwrap(), Ancillary::as_rxq_ovfl), 100 - received);
    }

    #[test]
    fn credentials_are_those_of_the_sender() {
        let (ours, theirs) = socketpair().unwrap();
        theirs.setsockopt(SOL_SOCKET, SO_PASSCRED, true).unwrap();
        let own = Credentials::current();
        for credentials in [own, Credentials { pid: None, ..own }] {
            ours.sendmsg(&[IoSlice::new(b"x")], &[Ancillary::credentials(credentials)]).unwrap();
            assert_eq!(find(&theirs.recvmsg(1, 100).unwrap(), Ancillary::as_credentials), own);
        }
        // No process can have this pid, because it is above every pid_max (proc(5)).
        let forged = Ancillary::credentials(Credentials { pid: Some(i32::MAX), ..own });
        assert!(ours.sendmsg(&[IoSlice::new(b"x")], &[forged]).is_err());
    }

    #[test]
    fn packet_info_of_a_broadcast_has_local_and_destination_address() {
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

    /// User and group are often the same number, which would hide swapped fields.
    #[test]
    fn credentials_have_the_layout_of_c() {
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
}
