//! Network devices over rtnetlink(7), and their offloads over the netlink interface of ethtool.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use sock::{AF_NETLINK, NETLINK_ROUTE, NetlinkAddress, SOCK_RAW, Socket};

const NETLINK_GENERIC: i32 = 16;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
const IFF_NOARP: u32 = 0x80;

/// A netlink message that is being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes.extend(fixed);
        Message(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// An attribute that consists of attributes.
    fn nested(&mut self, kind: u16, inside: impl FnOnce(&mut Message)) {
        let start = self.0.len();
        self.attribute(kind, &[]);
        inside(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

fn named(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// A netlink socket, which keeps the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    sock: Socket,
}

impl Netlink {
    fn open(protocol: i32) -> io::Result<Netlink> {
        let sock = Socket::new(AF_NETLINK, SOCK_RAW, protocol)?;
        sock.bind(NetlinkAddress { pid: 0, groups: 0 })?;
        sock.settimeout(5)?;
        Ok(Netlink { sock })
    }

    /// Opens rtnetlink in the network namespace of the calling thread.
    pub(crate) fn route() -> io::Result<Netlink> {
        Netlink::open(NETLINK_ROUTE)
    }

    /// Sends a request and returns what was answered before its acknowledgement.
    fn request(&self, what: &str, message: Message) -> io::Result<Vec<u8>> {
        let mut bytes = message.0;
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.sock.sendto(&bytes, NetlinkAddress { pid: 0, groups: 0 })?;
        let mut answer = Vec::new();
        loop {
            let received = self.sock.recv(65536)?;
            let mut rest = &received[..];
            while let Some(header) = rest.first_chunk::<16>() {
                let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
                let kind = u16::from_ne_bytes([header[4], header[5]]);
                let body = rest.get(16..length).unwrap_or_default();
                if kind == NLMSG_ERROR {
                    let number = body.first_chunk().map_or(0, |number| i32::from_ne_bytes(*number));
                    if number == 0 {
                        return Ok(answer);
                    }
                    let error = io::Error::from_raw_os_error(-number);
                    let name = sock::errno_name(-number).unwrap_or("an error");
                    return Err(io::Error::new(error.kind(), format!("{what}: {name}: {error}")));
                }
                answer = body.to_vec();
                rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
            }
        }
    }

    /// `struct ifinfomsg`
    fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
        [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &change.to_ne_bytes()].concat()
    }

    /// Creates a pair of devices. `peer` appears in another network namespace, with a hardware
    /// address of its own choice.
    pub(crate) fn veth(
        &self,
        name: &str,
        peer: &str,
        namespace: BorrowedFd<'_>,
        hardware: [u8; 6],
    ) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &Netlink::link(0, 0, 0));
        message.attribute(3, &named(name));
        message.nested(18, |info| {
            info.attribute(1, b"veth");
            info.nested(2, |data| {
                data.nested(1, |end| {
                    end.0.extend(Netlink::link(0, 0, 0));
                    end.attribute(1, &hardware);
                    end.attribute(3, &named(peer));
                    end.attribute(28, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.request("creating a veth pair", message).map(drop)
    }

    /// Brings a device up, without ARP.
    pub(crate) fn up(&self, index: u32) -> io::Result<()> {
        let flags = IFF_UP | IFF_NOARP;
        let message = Message::new(RTM_NEWLINK, 0, &Netlink::link(index, flags, flags));
        self.request("bringing a device up", message).map(drop)
    }

    /// Gives a device an address of a network of 24 bits.
    pub(crate) fn add_address(&self, index: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut fixed = vec![2, 24, 0, 0];
        fixed.extend(index.to_ne_bytes());
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &fixed);
        message.attribute(1, &address.octets());
        message.attribute(2, &address.octets());
        self.request("adding an address", message).map(drop)
    }

    /// Sends multicast datagrams to a device.
    pub(crate) fn add_multicast_route(&self, index: u32) -> io::Result<()> {
        // Family, bits of the destination, of the source, TOS, main table, static, link, unicast.
        let fixed = [&[2, 4, 0, 0, 254, 4, 253, 1][..], &[0; 4]].concat();
        let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &fixed);
        message.attribute(1, &[224, 0, 0, 0]);
        message.attribute(4, &index.to_ne_bytes());
        self.request("adding a route", message).map(drop)
    }
}

/// What a device does instead of the kernel. Without these, each packet on the wire is one segment
/// with a checksum.
const OFFLOADS: [&str; 10] = [
    "tx-checksum-ipv4",
    "tx-checksum-ipv6",
    "tx-checksum-ip-generic",
    "tx-scatter-gather",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-generic-segmentation",
    "rx-gro",
];

/// Turns the offloads of a device off, in the network namespace of the calling thread.
pub(crate) fn offloads_off(index: u32) -> io::Result<()> {
    let generic = Netlink::open(NETLINK_GENERIC)?;
    // CTRL_CMD_GETFAMILY of the controller, which has the number 16.
    let mut message = Message::new(16, 0, &[3, 1, 0, 0]);
    message.attribute(2, &named("ethtool"));
    let answer = generic.request("looking up the family ethtool", message)?;
    let family = find_attribute(answer.get(4..).unwrap_or_default(), 1)
        .and_then(|value| Some(u16::from_ne_bytes(*value.first_chunk()?)))
        .ok_or_else(|| io::Error::other("the family ethtool has no number"))?;
    // ETHTOOL_MSG_FEATURES_SET
    let mut message = Message::new(family, 0, &[12, 1, 0, 0]);
    const NESTED: u16 = 0x8000;
    message.nested(1 | NESTED, |header| {
        header.attribute(1, &index.to_ne_bytes());
    });
    message.nested(3 | NESTED, |wanted| {
        wanted.nested(3 | NESTED, |bits| {
            for name in OFFLOADS {
                // A bit without a value is turned off.
                bits.nested(1 | NESTED, |bit| bit.attribute(2, &named(name)));
            }
        });
    });
    generic.request("turning offloads off", message).map(drop)
}

fn find_attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let header = attributes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if u16::from_ne_bytes([header[2], header[3]]) == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.next_multiple_of(4).max(4)..)?;
    }
}
