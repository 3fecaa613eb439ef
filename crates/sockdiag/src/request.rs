//! What is sent to the kernel: requests, and the program by which it filters.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use sock::{AF_INET, AF_INET6, AF_UNIX, AddressFamily};

use crate::filter::{Endpoint, Filter, UnixFilter};
use crate::row::{INET_DIAG_CONG, INET_DIAG_INFO, INET_DIAG_SKMEMINFO, Protocol, SocketId};
use crate::wire::push_attribute;

/// The attribute of a request that holds the program.
const INET_DIAG_REQ_BYTECODE: u16 = 1;

/// Attributes that a request asks for, as a bit for each. The kernel adds the others by itself.
const DETAILS: u8 = 1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_CONG - 1) | 1 << (INET_DIAG_SKMEMINFO - 1);

/// The kernel takes every cookie for this one.
const NO_COOKIE: u64 = u64::MAX;

/// A dump of one family: `struct inet_diag_req_v2` and the program.
pub(crate) fn inet_dump(protocol: Protocol, family: AddressFamily, filter: &Filter) -> Vec<u8> {
    // The kernel compares these two ports before it runs the program, but not for sockets that are
    // only bound.
    let ports = match filter.takes_bound(protocol) {
        true => [0, 0],
        false => [single(&filter.local), single(&filter.peer)],
    };
    let details = if filter.details { DETAILS } else { 0 };
    let mut bytes = header(family, protocol, details, filter.state_mask(protocol));
    bytes.extend(ports.map(u16::to_be_bytes).concat());
    bytes.extend([0; 36]);
    bytes.extend(NO_COOKIE.to_ne_bytes());
    let program = program(filter, filter.takes_bound(protocol));
    if !program.is_empty() {
        push_attribute(&mut bytes, INET_DIAG_REQ_BYTECODE, &program);
    }
    bytes
}

/// A request for one socket. `swapped` exchanges its addresses.
pub(crate) fn inet_one(id: &SocketId, swapped: bool) -> Vec<u8> {
    let (local, peer) = if swapped { (id.peer, id.local) } else { (id.local, id.peer) };
    let family = if id.local.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = header(family, id.protocol, DETAILS, u32::MAX);
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    for address in [local, peer] {
        match address {
            SocketAddr::V4(address) => bytes.extend([&address.ip().octets()[..], &[0; 12]].concat()),
            SocketAddr::V6(address) => bytes.extend(address.ip().octets()),
        }
    }
    bytes.extend(id.interface.to_ne_bytes());
    bytes.extend(cookie(id.cookie));
    bytes
}

fn header(family: AddressFamily, protocol: Protocol, attributes: u8, states: u32) -> Vec<u8> {
    let mut bytes = vec![family.as_raw() as u8, protocol.number(), attributes, 0];
    bytes.extend(states.to_ne_bytes());
    bytes
}

/// The kernel has a cookie in two words, the lower one first.
fn cookie(cookie: Option<u64>) -> Vec<u8> {
    let cookie = cookie.unwrap_or(NO_COOKIE);
    [(cookie as u32).to_ne_bytes(), ((cookie >> 32) as u32).to_ne_bytes()].concat()
}

/// What a dump of Unix sockets asks for: name, file, peer, pending clients, queues, memory, user.
const UNIX_DETAILS: u32 = 0x7f;

/// A dump of Unix sockets: `struct unix_diag_req`.
pub(crate) fn unix_dump(filter: &UnixFilter) -> Vec<u8> {
    unix(filter.state_mask(), 0, None)
}

/// A request for one Unix socket.
pub(crate) fn unix_one(inode: u32, cookie: Option<u64>) -> Vec<u8> {
    unix(u32::MAX, inode, cookie)
}

fn unix(states: u32, inode: u32, with_cookie: Option<u64>) -> Vec<u8> {
    let mut bytes = vec![AF_UNIX.as_raw() as u8, 0, 0, 0];
    for word in [states, inode, UNIX_DETAILS] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(cookie(with_cookie));
    bytes
}

/// The port of a range of one, or 0, which is any.
fn single(end: &Endpoint) -> u16 {
    end.ports.as_ref().filter(|ports| ports.start() == ports.end()).map_or(0, |ports| *ports.start())
}

// Instructions: linux/inet_diag.h.
const JUMP: u8 = 1;
const LOCAL_PORT_AT_LEAST: u8 = 2;
const LOCAL_PORT_AT_MOST: u8 = 3;
const PEER_PORT_AT_LEAST: u8 = 4;
const PEER_PORT_AT_MOST: u8 = 5;
const LOCAL_NETWORK: u8 = 7;
const PEER_NETWORK: u8 = 8;
const INTERFACE: u8 = 9;

/// Bytes of `struct inet_diag_bc_op`: code, distance if true, distance if false.
const INSTRUCTION: u16 = 4;

/// The conditions that the request itself does not hold, or nothing if there are none. It holds a
/// single port, unless `every_port` is set.
///
/// The kernel takes a socket if the program ends exactly behind its last byte. A jump to four
/// bytes behind that refuses the socket.
pub(crate) fn program(filter: &Filter, every_port: bool) -> Vec<u8> {
    let mut program = Vec::new();
    let ends = [
        (&filter.local, LOCAL_PORT_AT_LEAST, LOCAL_PORT_AT_MOST, LOCAL_NETWORK),
        (&filter.peer, PEER_PORT_AT_LEAST, PEER_PORT_AT_MOST, PEER_NETWORK),
    ];
    for (end, at_least, at_most, network) in ends {
        if let Some(range) = end.ports.as_ref().filter(|_| every_port || single(end) == 0) {
            and(&mut program, ports(range, at_least, at_most));
        }
        if let Some((ip, prefix_length)) = end.network {
            and(&mut program, in_network(network, ip, prefix_length));
        }
    }
    if let Some(port) = filter.either_port {
        let local = ports(&(port..=port), LOCAL_PORT_AT_LEAST, LOCAL_PORT_AT_MOST);
        let peer = ports(&(port..=port), PEER_PORT_AT_LEAST, PEER_PORT_AT_MOST);
        and(&mut program, or(local, &peer));
    }
    if let Some(interface) = filter.interface {
        and(&mut program, condition(INTERFACE, &interface.to_ne_bytes()));
    }
    program
}

/// One instruction: true goes on behind it, false refuses.
fn condition(code: u8, operand: &[u8]) -> Vec<u8> {
    let length = INSTRUCTION + operand.len() as u16;
    // 28 bytes at most: an IPv6 network.
    let mut bytes = vec![code, length as u8];
    bytes.extend((length + INSTRUCTION).to_ne_bytes());
    bytes.extend(operand);
    bytes
}

/// A range of ports is two conditions. The port is in a second instruction, as its distance.
fn ports(range: &RangeInclusive<u16>, at_least: u8, at_most: u8) -> Vec<u8> {
    let operand = |port: u16| [[0; 2], port.to_ne_bytes()].concat();
    let mut bytes = condition(at_least, &operand(*range.start()));
    and(&mut bytes, condition(at_most, &operand(*range.end())));
    bytes
}

/// `struct inet_diag_hostcond` with any port.
fn in_network(code: u8, ip: IpAddr, prefix_length: u8) -> Vec<u8> {
    let (family, octets) = match ip {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let mut operand = vec![family.as_raw() as u8, prefix_length, 0, 0];
    operand.extend((-1_i32).to_ne_bytes());
    operand.extend(octets);
    condition(code, &operand)
}

/// Puts `second` behind `first`, so that a socket has to meet both.
fn and(first: &mut Vec<u8>, second: Vec<u8>) {
    let (length, more) = (first.len(), second.len() as u16);
    let mut at = 0;
    while let Some(&[_, yes, low, high]) = first.get(at..).and_then(|rest| rest.first_chunk()) {
        let no = u16::from_ne_bytes([low, high]);
        // What refused is now further away.
        if at + usize::from(no) == length + usize::from(INSTRUCTION) {
            first[at + 2..at + 4].copy_from_slice(&(no + more).to_ne_bytes());
        }
        at += usize::from(yes);
    }
    first.extend(second);
}

/// `first`, a jump over `second`, and `second`. What refuses in `first` lands behind the jump.
fn or(mut first: Vec<u8>, second: &[u8]) -> Vec<u8> {
    first.extend([JUMP, INSTRUCTION as u8]);
    first.extend((INSTRUCTION + second.len() as u16).to_ne_bytes());
    first.extend(second);
    first
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::filter::Filter;
    use crate::row::{Row, tests::fixed};

    /// Runs a program as the kernel does (inet_diag_bc_run in net/ipv4/inet_diag.c).
    pub(crate) fn run(program: &[u8], row: &Row) -> bool {
        let (mut at, end) = (0, program.len());
        while at < end {
            let op = &program[at..];
            let port = || u16::from_ne_bytes([op[6], op[7]]);
            let network = |address: IpAddr| {
                let length = op[5];
                let network = if i32::from(op[4]) == AF_INET.as_raw() {
                    IpAddr::from(<[u8; 4]>::try_from(&op[12..16]).unwrap())
                } else {
                    IpAddr::from(<[u8; 16]>::try_from(&op[12..28]).unwrap())
                };
                Filter::new()
                    .local_network(network, length)
                    .matches(&Row { local: SocketAddr::new(address, 1), ..row.clone() })
            };
            let yes = match op[0] {
                JUMP => false,
                LOCAL_PORT_AT_LEAST => row.local.port() >= port(),
                LOCAL_PORT_AT_MOST => row.local.port() <= port(),
                PEER_PORT_AT_LEAST => row.peer.port() >= port(),
                PEER_PORT_AT_MOST => row.peer.port() <= port(),
                LOCAL_NETWORK => network(row.local.ip()),
                PEER_NETWORK => network(row.peer.ip()),
                INTERFACE => row.interface == Some(u32::from_ne_bytes(op[4..8].try_into().unwrap())),
                code => panic!("{code}"),
            };
            at += if yes { usize::from(op[1]) } else { usize::from(u16::from_ne_bytes([op[2], op[3]])) };
        }
        at == end
    }

    #[test]
    fn a_program_takes_what_the_filter_takes() {
        let row = crate::row::parse(&fixed(1, 0), Protocol::Tcp).unwrap();
        let peer_of_port = |port| Filter::new().either_port(port);
        for (filter, taken) in [
            (Filter::new(), true),
            (Filter::new().local_ports(900..=1100), true),
            (Filter::new().local_ports(1001..=1100), false),
            (Filter::new().local_ports(1..=999), false),
            (Filter::new().peer_ports(1..=1999), false),
            (Filter::new().peer_ports(1..=2000), true),
            (peer_of_port(1000), true),
            (peer_of_port(2000), true),
            (peer_of_port(2000).interface(9), true),
            (peer_of_port(1000).interface(8), false),
            (peer_of_port(1500), false),
            (peer_of_port(1500).interface(9), false),
            (peer_of_port(1000).local_network([1, 2, 0, 0], 16).peer_address([5, 6, 7, 8]), true),
            (peer_of_port(1000).local_network([1, 2, 0, 0], 16).peer_address([5, 6, 7, 9]), false),
            (peer_of_port(2000).local_ports(5..=6), false),
        ] {
            assert_eq!(
                (filter.matches(&row), run(&program(&filter, true), &row)),
                (taken, taken),
                "{filter:?}"
            );
        }
    }

    #[test]
    fn one_port_needs_no_program() {
        let request = inet_dump(Protocol::Tcp, AF_INET, &Filter::new().local_port(80));
        assert_eq!((request.len(), &request[8..10]), (56, &80_u16.to_be_bytes()[..]));
        assert!(inet_dump(Protocol::Tcp, AF_INET, &Filter::new().either_port(80)).len() > 56);
        let bound = Filter::new().local_port(80).states([sock::TcpState::Close]);
        assert!(inet_dump(Protocol::Tcp, AF_INET, &bound).len() > 56);
        assert_eq!(inet_dump(Protocol::Udp, AF_INET, &bound).len(), 56);
    }
}
