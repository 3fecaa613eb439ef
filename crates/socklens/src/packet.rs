//! Packets of IPv4 and IPv6: parsing, names of their flags, and sequence numbers that begin at 0.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a packet is above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// TCP, with sequence numbers of the connection's two directions that begin at 0.
    Tcp {
        /// The bits of the header: FIN is 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
        flags: u8,
        /// The sequence number.
        seq: u32,
        /// The acknowledgement, if ACK is set.
        ack: u32,
        /// The window as it stands in the header.
        window: u16,
    },
    /// UDP.
    Udp,
    /// ICMP of IPv4 or IPv6.
    Icmp {
        /// The type.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// Any other protocol.
    Other(u8),
}

/// A packet of the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packet {
    /// Address and port of the sender. The port is 0 if the protocol has none.
    pub source: SocketAddr,
    /// Address and port of the receiver.
    pub destination: SocketAddr,
    /// What it is above IP.
    pub transport: Transport,
    /// Bytes of payload.
    pub length: usize,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// The flags of a TCP header in the order in which they are written: `PSH+ACK`.
const FLAG_NAMES: [(u8, &str); 6] =
    [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"), (32, "URG")];

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Packet {
    /// Reads a packet that begins with the header of IP. `None` if it is not a whole one.
    ///
    /// # Examples
    ///
    /// ```
    /// use socklens::packet::Packet;
    ///
    /// assert_eq!(Packet::parse(b"not a packet"), None);
    /// ```
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Packet> {
        let (source, destination, protocol, payload) = match bytes.first()? >> 4 {
            4 => {
                let header = usize::from(bytes[0] & 15) * 4;
                let total = usize::from(be16(bytes, 2)?).max(header);
                let source: [u8; 4] = *bytes.get(12..)?.first_chunk()?;
                let destination: [u8; 4] = *bytes.get(16..)?.first_chunk()?;
                let is_first = be16(bytes, 6)? & 0x1fff == 0;
                let protocol = if is_first { *bytes.get(9)? } else { 255 };
                let payload = bytes.get(header.max(20)..total.min(bytes.len()))?;
                (
                    IpAddr::from(Ipv4Addr::from(source)),
                    IpAddr::from(Ipv4Addr::from(destination)),
                    protocol,
                    payload,
                )
            }
            6 => {
                let source: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
                let destination: [u8; 16] = *bytes.get(24..)?.first_chunk()?;
                let end = (40 + usize::from(be16(bytes, 4)?)).min(bytes.len());
                let payload = bytes.get(40..end)?;
                (
                    IpAddr::from(Ipv6Addr::from(source)),
                    IpAddr::from(Ipv6Addr::from(destination)),
                    *bytes.get(6)?,
                    payload,
                )
            }
            _ => return None,
        };
        let ports = || Some((be16(payload, 0)?, be16(payload, 2)?));
        let (transport, ports, length) = match protocol {
            6 => {
                let offset = usize::from(*payload.get(12)? >> 4) * 4;
                let transport = Transport::Tcp {
                    flags: *payload.get(13)? & 0x3f,
                    seq: be32(payload, 4)?,
                    ack: be32(payload, 8)?,
                    window: be16(payload, 14)?,
                };
                (transport, ports()?, payload.len().checked_sub(offset.max(20))?)
            }
            17 => (Transport::Udp, ports()?, payload.len().checked_sub(8)?),
            1 | 58 => {
                let transport = Transport::Icmp { kind: *payload.first()?, code: *payload.get(1)? };
                (transport, (0, 0), payload.len().checked_sub(8)?)
            }
            other => (Transport::Other(other), (0, 0), payload.len()),
        };
        Some(Packet {
            source: SocketAddr::new(source, ports.0),
            destination: SocketAddr::new(destination, ports.1),
            transport,
            length,
        })
    }

    /// Whether it is a packet that the kernel has sent again: it has the same data, or the same SYN or
    /// FIN. Other packets are never sent again by TCP.
    pub(crate) fn repeats(&self, other: &Packet) -> bool {
        let (Transport::Tcp { flags, seq, .. }, Transport::Tcp { flags: others, seq: of_other, .. }) =
            (self.transport, other.transport)
        else {
            return false;
        };
        let kind = |flags: u8| flags & (SYN | FIN | RST);
        let takes_space = self.length > 0 || flags & (SYN | FIN) != 0;
        takes_space
            && (self.source, self.destination, self.length)
                == (other.source, other.destination, other.length)
            && (kind(flags), seq) == (kind(others), of_other)
    }

    /// Returns the name of the packet: its flags as in `SYN+ACK`, or `UDP`, `ICMP unreachable`, `IGMP`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.transport {
            Transport::Tcp { flags, .. } => {
                let set = FLAG_NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name);
                let names: Vec<_> = set.collect();
                if names.is_empty() { "no flags".to_owned() } else { names.join("+") }
            }
            Transport::Udp => "UDP".to_owned(),
            Transport::Icmp { kind, code } => {
                let is_v4 = self.source.is_ipv4();
                match (is_v4, kind, code) {
                    (true, 3, 3) | (false, 1, 4) => "ICMP port unreachable".to_owned(),
                    (true, 3, _) | (false, 1, _) => "ICMP unreachable".to_owned(),
                    _ => format!("ICMP type {kind}"),
                }
            }
            Transport::Other(2) => "IGMP".to_owned(),
            Transport::Other(255) => "fragment".to_owned(),
            Transport::Other(number) => format!("protocol {number}"),
        }
    }

    /// Returns true if a scenario means this packet by `wanted`. `DATA` is every packet with payload,
    /// and `FIN` is every packet with this flag. Other names are the whole set of flags, without PSH.
    /// `ACK` has no payload.
    #[must_use]
    pub fn is(&self, wanted: &str) -> bool {
        match (wanted, self.transport) {
            ("DATA", _) => self.length > 0,
            ("FIN", Transport::Tcp { flags, .. }) => flags & FIN != 0,
            ("ACK", Transport::Tcp { flags, .. }) => flags & !PSH == ACK && self.length == 0,
            (_, Transport::Tcp { flags, .. }) => {
                let mut bits = 0;
                for name in wanted.split('+') {
                    match FLAG_NAMES.iter().find(|(_, known)| *known == name) {
                        Some((bit, _)) => bits |= bit,
                        None => return false,
                    }
                }
                flags & !PSH == bits & !PSH
            }
            (_, Transport::Icmp { .. }) => wanted == "ICMP",
            _ => self.name() == wanted,
        }
    }

    /// Returns true if [`is`](Packet::is) has a meaning for this name.
    #[must_use]
    pub fn knows(wanted: &str) -> bool {
        ["DATA", "UDP", "ICMP", "IGMP"].contains(&wanted)
            || wanted.split('+').all(|name| FLAG_NAMES.iter().any(|(_, known)| *known == name))
    }
}

/// `SYN+ACK  seq 0 ack 1`
impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8}", self.name())?;
        if let Transport::Tcp { flags, seq, ack, .. } = self.transport {
            write!(f, " seq {seq}")?;
            if flags & ACK != 0 {
                write!(f, " ack {ack}")?;
            }
        }
        if self.length > 0 { write!(f, " len {}", self.length) } else { Ok(()) }
    }
}

/// The first sequence number of each direction of each connection.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    first: HashMap<(SocketAddr, SocketAddr), u32>,
}

impl Numbers {
    /// Makes the numbers of a packet relative. It must be called when the packet arrives at the
    /// wire, so that the first numbers are known before any other packet is shown.
    pub(crate) fn make_relative(&mut self, packet: &mut Packet) {
        let there = (packet.source, packet.destination);
        let back = (packet.destination, packet.source);
        let Transport::Tcp { flags, seq, ack, .. } = &mut packet.transport else { return };
        if *flags & SYN != 0 {
            self.first.insert(there, *seq);
            if *flags & ACK == 0 {
                self.first.remove(&back);
            }
        }
        let first = *self.first.entry(there).or_insert(*seq);
        *seq = seq.wrapping_sub(first);
        if *flags & ACK != 0 {
            let first = *self.first.entry(back).or_insert(*ack);
            *ack = ack.wrapping_sub(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TCP packet of IPv4 from 10.0.0.1:1000 to 10.0.0.2:80.
    fn tcp(flags: u8, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
        let total = (40 + data.len()) as u16;
        let mut bytes = vec![0x45, 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(1000_u16.to_be_bytes());
        bytes.extend(80_u16.to_be_bytes());
        bytes.extend(seq.to_be_bytes());
        bytes.extend(ack.to_be_bytes());
        bytes.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
        bytes.extend(data);
        bytes
    }

    #[test]
    fn a_segment_is_read_and_named() {
        let packet = Packet::parse(&tcp(PSH | ACK, 5, 7, b"abc")).unwrap();
        assert_eq!(packet.to_string(), "PSH+ACK  seq 5 ack 7 len 3");
        assert_eq!(packet.source, "10.0.0.1:1000".parse().unwrap());
        assert_eq!(packet.destination, "10.0.0.2:80".parse().unwrap());
    }

    #[test]
    fn a_name_of_a_scenario_selects_packets() {
        let packet = |flags, data| Packet::parse(&tcp(flags, 0, 0, data)).unwrap();
        assert!(packet(SYN, b"").is("SYN") && !packet(SYN | ACK, b"").is("SYN"));
        assert!(packet(FIN | PSH | ACK, b"x").is("FIN") && packet(FIN | ACK, b"").is("FIN"));
        assert!(packet(ACK, b"").is("ACK") && !packet(PSH | ACK, b"x").is("ACK"));
        assert!(packet(PSH | ACK, b"x").is("DATA") && !packet(ACK, b"").is("DATA"));
        assert!(packet(RST, b"").is("RST") && !packet(RST | ACK, b"").is("RST"));
        assert!(Packet::knows("SYN+ACK") && !Packet::knows("SYM"));
    }

    #[test]
    fn sequence_numbers_begin_at_0_in_each_direction() {
        let mut numbers = Numbers::default();
        let mut syn = Packet::parse(&tcp(SYN, u32::MAX, 0, b"")).unwrap();
        numbers.make_relative(&mut syn);
        assert_eq!(syn.to_string(), "SYN      seq 0");
        let mut answer = Packet::parse(&tcp(SYN | ACK, 70, 0, b"")).unwrap();
        (answer.source, answer.destination) = (answer.destination, answer.source);
        numbers.make_relative(&mut answer);
        assert_eq!(answer.to_string(), "SYN+ACK  seq 0 ack 1");
        let mut ack = Packet::parse(&tcp(ACK, 0, 71, b"")).unwrap();
        numbers.make_relative(&mut ack);
        assert_eq!(ack.to_string(), "ACK      seq 1 ack 1");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.length <= bytes.len());
                let _ = packet.to_string();
            }
        }

        #[test]
        fn a_packet_that_was_cut_has_less_data(cut in 0usize..44) {
            let bytes = tcp(ACK, 1, 1, b"data");
            let packet = Packet::parse(&bytes[..cut]);
            prop_assert!(packet.is_none_or(|packet| packet.length <= 4));
        }
    }
}
