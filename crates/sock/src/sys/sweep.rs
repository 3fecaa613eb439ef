//! Queries many types of sockets for every option of every level, and checks that the kernel writes
//! no byte after the end of the buffer.

use std::io;
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::ucred::creates_descriptor;
use super::{c, getsockopt};

const LENGTHS: [usize; 16] = [1, 2, 3, 4, 5, 7, 8, 12, 16, 20, 24, 64, 128, 256, 1000, 1024];
/// Options of each level.
const OPTIONS: std::ops::Range<i32> = 0..140;
/// Levels. Besides the protocol numbers: SOL_SOCKET is 1, SOL_NETLINK 270, SOL_TIPC 271, SOL_ALG
/// 279, SOL_KCM 281, SOL_TLS 282, SOL_XDP 283, SOL_MPTCP 284 and AF_VSOCK 40.
const LEVELS: [i32; 37] = [
    0, 1, 2, 3, 4, 6, 12, 17, 33, 40, 41, 58, 132, 136, 255, 256, 257, 258, 259, 261, 262, 263, 264, 265,
    266, 267, 268, 270, 271, 275, 277, 279, 280, 281, 282, 283, 284,
];
/// Larger than what a kernel that counts in other units than bytes could write after the buffer.
const GUARD: usize = 64 * 1024;
const CANARY: u8 = 0xA5;

/// One instruction that accepts any packet: BPF_RET | BPF_K.
const ACCEPT: socket2::SockFilter = socket2::SockFilter::new(6, 0, 0, u32::MAX);

fn create(
    name: &'static str,
    domain: i32,
    kind: Type,
    protocol: i32,
) -> io::Result<(&'static str, Socket)> {
    let protocol = (protocol != 0).then(|| Protocol::from(protocol));
    Ok((name, Socket::new(domain.into(), kind, protocol)?))
}

/// Returns sockets of every type that this system supports and this user may create.
fn kinds() -> Vec<(&'static str, Socket)> {
    let attempts = [
        create("TCP", c::AF_INET, Type::STREAM, 0),
        create("TCP over IPv6", c::AF_INET6, Type::STREAM, 0),
        create("MPTCP", c::AF_INET, Type::STREAM, c::IPPROTO_MPTCP),
        create("UDP", c::AF_INET, Type::DGRAM, 0),
        create("UDP over IPv6", c::AF_INET6, Type::DGRAM, 0),
        create("UDP-Lite", c::AF_INET, Type::DGRAM, c::IPPROTO_UDPLITE),
        create("SCTP", c::AF_INET, Type::STREAM, c::IPPROTO_SCTP),
        create("raw", c::AF_INET, Type::RAW, c::IPPROTO_ICMP),
        create("raw over IPv6", c::AF_INET6, Type::RAW, c::IPPROTO_ICMPV6),
        create("Unix datagram", c::AF_UNIX, Type::DGRAM, 0),
        create("Unix seqpacket", c::AF_UNIX, Type::SEQPACKET, 0),
        create("netlink", c::AF_NETLINK, Type::RAW, 0),
        create("packet", c::AF_PACKET, Type::RAW, 0),
        create("vsock", c::AF_VSOCK, Type::STREAM, 0),
        create("CAN", c::AF_CAN, Type::RAW, c::CAN_RAW),
        create("algorithm", c::AF_ALG, Type::SEQPACKET, 0),
        create("TIPC", c::AF_TIPC, Type::STREAM, 0),
    ];
    let mut sockets: Vec<_> = attempts.into_iter().flatten().collect();
    let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    sockets.extend([("Unix stream", one), ("its peer", other)]);
    let (_, listener) = create("listener", c::AF_INET, Type::STREAM, 0).unwrap();
    listener.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    listener.listen(1).unwrap();
    let (_, client) = create("client", c::AF_INET, Type::STREAM, 0).unwrap();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    sockets.extend([("TCP listener", listener), ("connected TCP", client)]);
    for (_, socket) in &sockets {
        // Makes the option readable. Not every type accepts a filter.
        let _ = socket.attach_filter(&[const { ACCEPT }; 5]);
    }
    sockets
}

/// A buffer followed by a guard, and counters.
struct Sweep {
    memory: Vec<u8>,
    calls: u64,
    successes: u64,
}

impl Sweep {
    fn query(&mut self, socket: &Socket, level: i32, option: i32, length: usize) {
        if creates_descriptor(level, option) {
            return;
        }
        let (value, guard) = self.memory.split_at_mut(length);
        value.fill(0);
        let result = getsockopt(socket.as_fd(), level, option, value);
        assert!(
            guard[..64].iter().all(|byte| *byte == CANARY),
            "level {level}, option {option}: wrote more than {length} bytes"
        );
        self.calls += 1;
        self.successes += u64::from(result.is_ok());
        value.fill(CANARY);
    }
}

#[test]
fn getsockopt_never_writes_beyond_the_buffer() {
    let sockets = kinds();
    assert!(sockets.len() >= 9, "{:?}", sockets.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let mut sweep = Sweep { memory: vec![CANARY; 1024 + GUARD], calls: 0, successes: 0 };
    for (name, socket) in &sockets {
        for level in LEVELS {
            for option in OPTIONS {
                for length in LENGTHS {
                    sweep.query(socket, level, option, length);
                }
            }
        }
        assert!(sweep.memory.iter().all(|byte| *byte == CANARY), "{name}: wrote far beyond the buffer");
    }
    // SOL_SOCKET alone has dozens of options for each type.
    assert!(sweep.calls > 700_000 && sweep.successes > 5_000, "{} of {}", sweep.successes, sweep.calls);
}
