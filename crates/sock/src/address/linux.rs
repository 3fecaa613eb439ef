//! The address families that only Linux has.
//!
//! Their structures are a few numbers at fixed offsets, which are written and read here byte by
//! byte: see `linux/netlink.h`, `if_packet.h`, `vm_sockets.h` and `can.h`.

use std::fmt;
use std::io;

use super::{Address, OsAddress, ToAddress};
use crate::consts::{AF_CAN, AF_NETLINK, AF_PACKET, AF_VSOCK, AddressFamily};
use crate::error::invalid;

/// An address of `AF_NETLINK`. Python: `(pid, groups)`.
///
/// # Examples
///
/// ```
/// use sock::{AF_NETLINK, Address, NetlinkAddress, SOCK_RAW, Socket};
///
/// let route = Socket::new(AF_NETLINK, SOCK_RAW, 0)?;
/// route.bind(NetlinkAddress { pid: 0, groups: 0 })?;
/// let Address::Netlink(address) = route.getsockname()? else { panic!() };
/// assert_ne!(address.pid, 0); // selected by the kernel
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetlinkAddress {
    /// Port, usually the process id. 0 is the kernel, or any port when binding.
    pub pid: u32,
    /// Bit mask of multicast groups.
    pub groups: u32,
}

/// An address of `AF_PACKET`. Python: `(ifname, proto, pkttype, hatype, addr)`.
///
/// # Examples
///
/// ```
/// use sock::PacketAddress;
///
/// // IPv4 frames on the loopback interface, for one hardware address.
/// let address = PacketAddress::new(sock::if_nametoindex("lo")?, 0x0800)
///     .with_hardware_address(&[0x02, 0, 0, 0, 0, 1])?;
/// assert_eq!(address.hardware_address().len(), 6);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PacketAddress {
    /// Protocol, such as `ETH_P_ALL`, in host byte order.
    pub protocol: u16,
    /// Index of the interface, or 0 for any. See [`if_nametoindex`](crate::if_nametoindex).
    pub ifindex: u32,
    /// Hardware type (`ARPHRD_`).
    pub hatype: u16,
    /// Packet type, such as `PACKET_HOST`.
    pub pkttype: u8,
    hardware: [u8; 8],
    hardware_len: u8,
}

/// Longest hardware address of a [`PacketAddress`].
const HARDWARE_MAX: usize = 8;

impl PacketAddress {
    /// Creates an address for packets of a protocol, such as `ETH_P_ALL`, on an interface or 0 for
    /// all.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::PacketAddress;
    ///
    /// // IPv4 frames on the loopback interface.
    /// let address = PacketAddress::new(sock::if_nametoindex("lo")?, 0x0800);
    /// assert_eq!((address.protocol, address.hatype), (0x0800, 0));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new(ifindex: u32, protocol: u16) -> PacketAddress {
        PacketAddress { ifindex, protocol, ..PacketAddress::default() }
    }

    /// Sets the hardware address, such as an Ethernet address of six bytes.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if it is longer than eight bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::PacketAddress;
    ///
    /// let address = PacketAddress::new(0, 0x0800).with_hardware_address(&[2, 0, 0, 0, 0, 1])?;
    /// assert_eq!(address.hardware_address(), [2, 0, 0, 0, 0, 1]);
    /// assert!(address.with_hardware_address(&[0; 9]).is_err());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn with_hardware_address(mut self, hardware: &[u8]) -> io::Result<PacketAddress> {
        if hardware.len() > HARDWARE_MAX {
            return Err(invalid(format!("hardware address of {} bytes, at most 8", hardware.len())));
        }
        self.hardware = [0; HARDWARE_MAX];
        self.hardware[..hardware.len()].copy_from_slice(hardware);
        self.hardware_len = hardware.len() as u8;
        Ok(self)
    }

    /// Returns the hardware address.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::PacketAddress;
    ///
    /// assert!(PacketAddress::new(0, 0x0800).hardware_address().is_empty());
    /// ```
    #[must_use]
    pub fn hardware_address(&self) -> &[u8] {
        &self.hardware[..usize::from(self.hardware_len).min(HARDWARE_MAX)]
    }
}

/// An address of `AF_VSOCK`, between virtual machines and their host. Python: `(cid, port)`.
///
/// # Examples
///
/// ```
/// use sock::{Address, VMADDR_CID_HOST, VsockAddress};
///
/// let host = Address::from(VsockAddress { cid: VMADDR_CID_HOST, port: 1024 });
/// assert_eq!(host.to_string(), "vsock 2:1024");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VsockAddress {
    /// Context id of the machine, such as `VMADDR_CID_HOST`.
    pub cid: u32,
    /// Port, or `VMADDR_PORT_ANY`.
    pub port: u32,
}

/// An address of `AF_CAN`.
///
/// Python: `(ifname,)` for raw and broadcast-manager sockets, `(ifname, rx, tx)` for ISO-TP,
/// `(ifname, name, pgn, addr)` for J1939. The protocol of the socket determines which of them
/// applies; the address itself does not contain it.
///
/// # Examples
///
/// ```
/// use sock::CanAddress;
///
/// assert_eq!(CanAddress::isotp(1, 0x7e8, 0x7e0).as_isotp(), (0x7e8, 0x7e0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CanAddress {
    /// Index of the interface, or 0 for any. See [`if_nametoindex`](crate::if_nametoindex).
    pub ifindex: u32,
    protocol: [u8; 16],
}

impl CanAddress {
    /// Creates an address for raw sockets on an interface, or 0 for any.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Address, CanAddress};
    ///
    /// // Frames of every interface.
    /// let address = Address::from(CanAddress::new(0));
    /// assert_eq!(address.family(), sock::AF_CAN);
    /// ```
    #[must_use]
    pub fn new(ifindex: u32) -> CanAddress {
        CanAddress { ifindex, protocol: [0; 16] }
    }

    /// Creates an address with the identifiers that an ISO-TP socket receives and sends with.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::CanAddress;
    ///
    /// let address = CanAddress::isotp(1, 0x7e8, 0x7e0);  // ("can0", 0x7e8, 0x7e0)
    /// assert_eq!((address.ifindex, address.as_isotp()), (1, (0x7e8, 0x7e0)));
    /// ```
    #[must_use]
    pub fn isotp(ifindex: u32, rx_id: u32, tx_id: u32) -> CanAddress {
        let mut address = CanAddress::new(ifindex);
        address.protocol[..4].copy_from_slice(&rx_id.to_ne_bytes());
        address.protocol[4..8].copy_from_slice(&tx_id.to_ne_bytes());
        address
    }

    /// Creates an address with a J1939 name, parameter group number and address.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::CanAddress;
    ///
    /// let address = CanAddress::j1939(1, 0, 0x40000, 0x20);  // ("can0", 0, 0x40000, 0x20)
    /// assert_eq!(address.as_j1939(), (0, 0x40000, 0x20));
    /// ```
    #[must_use]
    pub fn j1939(ifindex: u32, name: u64, pgn: u32, address: u8) -> CanAddress {
        let mut can = CanAddress::new(ifindex);
        can.protocol[..8].copy_from_slice(&name.to_ne_bytes());
        can.protocol[8..12].copy_from_slice(&pgn.to_ne_bytes());
        can.protocol[12] = address;
        can
    }

    /// Returns the receive and send identifiers of an ISO-TP socket's address.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::CanAddress;
    ///
    /// assert_eq!(CanAddress::isotp(1, 0x7e8, 0x7e0).as_isotp(), (0x7e8, 0x7e0));
    /// ```
    #[must_use]
    pub fn as_isotp(&self) -> (u32, u32) {
        (read_u32(&self.protocol, 0), read_u32(&self.protocol, 4))
    }

    /// Returns name, parameter group number and address of a J1939 socket's address.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::CanAddress;
    ///
    /// let (name, pgn, address) = CanAddress::j1939(1, 0, 0x40000, 0x20).as_j1939();
    /// assert_eq!((name, pgn, address), (0, 0x40000, 0x20));
    /// ```
    #[must_use]
    pub fn as_j1939(&self) -> (u64, u32, u8) {
        let name = self.protocol.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        (name, read_u32(&self.protocol, 8), self.protocol[12])
    }
}

/// Reads an address from the bytes after its family field. Returns `None` for other families and
/// for bytes that are shorter than the family's structure.
pub(super) fn read(family: AddressFamily, bytes: &[u8]) -> Option<Address> {
    let u32_at = |at| read_u32(bytes, at);
    Some(match family {
        AF_NETLINK if bytes.len() >= 10 => {
            Address::Netlink(NetlinkAddress { pid: u32_at(2), groups: u32_at(6) })
        }
        // The structure is shorter if the hardware address is.
        AF_PACKET if bytes.len() >= 10 => {
            let mut hardware = [0; HARDWARE_MAX];
            for (to, from) in hardware.iter_mut().zip(&bytes[10..]) {
                *to = *from;
            }
            Address::Packet(PacketAddress {
                protocol: u16::from_be_bytes([bytes[0], bytes[1]]),
                ifindex: u32_at(2),
                hatype: u16::from_ne_bytes([bytes[6], bytes[7]]),
                pkttype: bytes[8],
                hardware,
                hardware_len: bytes[9],
            })
        }
        AF_VSOCK if bytes.len() >= 10 => Address::Vsock(VsockAddress { port: u32_at(2), cid: u32_at(6) }),
        AF_CAN if bytes.len() >= 6 => {
            let mut protocol = [0; 16];
            for (to, from) in protocol.iter_mut().zip(&bytes[6..]) {
                *to = *from;
            }
            Address::Can(CanAddress { ifindex: u32_at(2), protocol })
        }
        _ => return None,
    })
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Returns an address of one of Linux's own families.
pub(super) fn as_os_address(address: &Address) -> Option<&dyn OsAddress> {
    match address {
        Address::Netlink(address) => Some(address),
        Address::Packet(address) => Some(address),
        Address::Vsock(address) => Some(address),
        Address::Can(address) => Some(address),
        _ => None,
    }
}

impl OsAddress for NetlinkAddress {
    fn family(&self) -> AddressFamily {
        AF_NETLINK
    }

    fn to_sockaddr_bytes(&self) -> Vec<u8> {
        [&[0; 2][..], &self.pid.to_ne_bytes(), &self.groups.to_ne_bytes()].concat()
    }
}

impl OsAddress for PacketAddress {
    fn family(&self) -> AddressFamily {
        AF_PACKET
    }

    fn to_sockaddr_bytes(&self) -> Vec<u8> {
        [
            &self.protocol.to_be_bytes()[..],
            &self.ifindex.to_ne_bytes(),
            &self.hatype.to_ne_bytes(),
            &[self.pkttype, self.hardware_len],
            &self.hardware,
        ]
        .concat()
    }
}

impl OsAddress for VsockAddress {
    fn family(&self) -> AddressFamily {
        AF_VSOCK
    }

    fn to_sockaddr_bytes(&self) -> Vec<u8> {
        [&[0; 2][..], &self.port.to_ne_bytes(), &self.cid.to_ne_bytes(), &[0; 4]].concat()
    }
}

impl OsAddress for CanAddress {
    fn family(&self) -> AddressFamily {
        AF_CAN
    }

    fn to_sockaddr_bytes(&self) -> Vec<u8> {
        [&[0; 2][..], &self.ifindex.to_ne_bytes(), &self.protocol].concat()
    }
}

impl fmt::Display for NetlinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netlink pid {} groups {:#x}", self.pid, self.groups)
    }
}

impl fmt::Display for PacketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet interface {} protocol {:#06x}", self.ifindex, self.protocol)?;
        for (index, byte) in self.hardware_address().iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { " " } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Display for VsockAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vsock {}:{}", self.cid, self.port)
    }
}

impl fmt::Display for CanAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can interface {}", self.ifindex)
    }
}

macro_rules! to_address {
    ($($type:ident $variant:ident)*) => {$(
        impl From<$type> for Address {
            fn from(address: $type) -> Address {
                Address::$variant(address)
            }
        }

        impl ToAddress for $type {
            fn to_address(&self, family: AddressFamily) -> io::Result<Address> {
                Address::from(*self).to_address(family)
            }
        }
    )*};
}
to_address! { NetlinkAddress Netlink PacketAddress Packet VsockAddress Vsock CanAddress Can }

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_round_trip(address: impl Into<Address>) {
        let address = address.into();
        assert_eq!(Address::from_sys(&address.to_sys().unwrap()), address);
    }

    #[test]
    fn each_family_survives_a_round_trip() {
        assert_round_trip(NetlinkAddress { pid: 7, groups: 0x8000_0001 });
        assert_round_trip(VsockAddress { cid: 2, port: u32::MAX });
        assert_round_trip(
            PacketAddress::new(3, 0x0800).with_hardware_address(&[1, 2, 3, 4, 5, 6]).unwrap(),
        );
        assert_round_trip(CanAddress::new(9));
        assert_round_trip(CanAddress::isotp(1, 0x7ff, 0x123));
        assert_round_trip(CanAddress::j1939(1, u64::MAX - 1, 0x3_ffff, 0xfe));
    }

    #[test]
    fn the_fields_are_at_the_offsets_of_the_kernel() {
        let sys = Address::from(NetlinkAddress { pid: 1, groups: 2 }).to_sys().unwrap();
        assert_eq!(sys.len(), 12);
        let sys = Address::from(PacketAddress::new(1, 0x0102)).to_sys().unwrap();
        assert_eq!(sys.len(), 20);
        assert_eq!(PacketAddress::new(1, 0x0102).to_sockaddr_bytes()[..2], [1, 2]);
        assert_eq!(Address::from(VsockAddress { cid: 1, port: 2 }).to_sys().unwrap().len(), 16);
        assert_eq!(Address::from(CanAddress::new(1)).to_sys().unwrap().len(), 24);
        assert_eq!(CanAddress::isotp(0, 5, 6).as_isotp(), (5, 6));
        assert_eq!(CanAddress::j1939(0, 5, 6, 7).as_j1939(), (5, 6, 7));
    }

    #[test]
    fn an_incomplete_structure_stays_bytes() {
        for family in [AF_NETLINK, AF_PACKET, AF_VSOCK, AF_CAN] {
            for len in 0..6 {
                let address = Address::Other(family, vec![0; len].into());
                assert_eq!(Address::from_sys(&address.to_sys().unwrap()), address);
            }
        }
    }

    #[test]
    fn a_hardware_address_is_limited_to_eight_bytes() {
        assert!(PacketAddress::new(0, 0).with_hardware_address(&[0; 9]).is_err());
    }
}
