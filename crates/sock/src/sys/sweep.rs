//! Asks many kinds of sockets for every option of every level, and checks that the kernel writes
//! no byte behind the buffer it was given.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{c, getsockopt};

const LENGTHS: [usize; 16] = [1, 2, 3, 4, 5, 7, 8, 12, 16, 20, 24, 64, 128, 256, 1000, 1024];
/// Options of each level; 0x4000_0000 and so on belong to none.
const OPTIONS: std::ops::Range<i32> = 0..140;
/// Levels beside the protocols' numbers, which are their levels: SOL_SOCKET is 1, SOL_NETLINK
/// 270, SOL_TIPC 271, SOL_ALG 279, SOL_KCM 281, SOL_TLS 282, SOL_XDP 283, SOL_MPTCP 284 and
/// AF_VSOCK 40.
const LEVELS: [i32; 37] = [
    0, 1, 2, 3, 4, 6, 12, 17, 33, 40, 41, 58, 132, 136, 255, 256, 257, 258, 259, 261, 262, 263, 264, 265,
    266, 267, 268, 270, 271, 275, 277, 279, 280, 281, 282, 283, 284,
];
/// Much more than a kernel that counts in other units than bytes could write behind the buffer.
const GUARD: usize = 64 * 1024;
const CANARY: u8 = 0xA5;

/// An option whose value is a new descriptor of the caller's.
const SO_PEERPIDFD: i32 = 77;

/// One instruction that accepts any packet: BPF_RET | BPF_K.
const ACCEPT: socket2::SockFilter = socket2::SockFilter::new(6, 0, 0, u32::MAX);

fn made(name: &'static str, domain: i32, kind: Type, protocol: i32) -> io::Result<(&'static str, Socket)> {
    let protocol = (protocol != 0).then(|| Protocol::from(protocol));
    Ok((name, Socket::new(domain.into(), kind, protocol)?))
}

/// Sockets of every kind that this system and this user can make.
fn kinds() -> Vec<(&'static str, Socket)> {
    let attempts = [
        made("TCP", c::AF_INET, Type::STREAM, 0),
        made("TCP over IPv6", c::AF_INET6, Type::STREAM, 0),
        made("MPTCP", c::AF_INET, Type::STREAM, c::IPPROTO_MPTCP),
        made("UDP", c::AF_INET, Type::DGRAM, 0),
        made("UDP over IPv6", c::AF_INET6, Type::DGRAM, 0),
        made("UDP-Lite", c::AF_INET, Type::DGRAM, c::IPPROTO_UDPLITE),
        made("SCTP", c::AF_INET, Type::STREAM, c::IPPROTO_SCTP),
        made("raw", c::AF_INET, Type::RAW, c::IPPROTO_ICMP),
        made("raw over IPv6", c::AF_INET6, Type::RAW, c::IPPROTO_ICMPV6),
        made("Unix datagram", c::AF_UNIX, Type::DGRAM, 0),
        made("Unix seqpacket", c::AF_UNIX, Type::SEQPACKET, 0),
        made("netlink", c::AF_NETLINK, Type::RAW, 0),
        made("packet", c::AF_PACKET, Type::RAW, 0),
        made("vsock", c::AF_VSOCK, Type::STREAM, 0),
        made("CAN", c::AF_CAN, Type::RAW, c::CAN_RAW),
        made("algorithm", c::AF_ALG, Type::SEQPACKET, 0),
        made("TIPC", c::AF_TIPC, Type::STREAM, 0),
    ];
    let mut sockets: Vec<_> = attempts.into_iter().flatten().collect();
    let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    sockets.extend([("Unix stream", one), ("its peer", other)]);
    let (_, listener) = made("listener", c::AF_INET, Type::STREAM, 0).unwrap();
    listener.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    listener.listen(1).unwrap();
    let (_, client) = made("client", c::AF_INET, Type::STREAM, 0).unwrap();
    client.connect(&listener.local_addr().unwrap()).unwrap();
    sockets.extend([("TCP listener", listener), ("connected TCP", client)]);
    for (_, socket) in &sockets {
        // What is there can be read: not every kind takes one.
        let _ = socket.attach_filter(&[const { ACCEPT }; 5]);
    }
    sockets
}

/// A buffer with a guard behind it, and what is asked.
struct Sweep {
    memory: Vec<u8>,
    calls: u64,
    answers: u64,
}

impl Sweep {
    fn ask(&mut self, socket: &Socket, level: i32, option: i32, length: usize) {
        let (value, guard) = self.memory.split_at_mut(length);
        value.fill(0);
        let answer = getsockopt(socket.as_fd(), level, option, value);
        assert!(
            guard[..64].iter().all(|byte| *byte == CANARY),
            "level {level}, option {option}: wrote more than {length} bytes"
        );
        self.calls += 1;
        if let Ok(answer) = answer {
            self.answers += 1;
            if (level, option, answer) == (c::SOL_SOCKET, SO_PEERPIDFD, size_of::<RawFd>()) {
                let fd = RawFd::from_ne_bytes(value[..answer].try_into().unwrap());
                // SAFETY: the kernel has just made it for this call.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        value.fill(CANARY);
    }
}

#[test]
fn no_option_is_longer_than_its_buffer() {
    let sockets = kinds();
    assert!(sockets.len() >= 9, "{:?}", sockets.iter().map(|(name, _)| name).collect::<Vec<_>>());
    let mut sweep = Sweep { memory: vec![CANARY; 1024 + GUARD], calls: 0, answers: 0 };
    for (name, socket) in &sockets {
        for level in LEVELS {
            for option in OPTIONS {
                for length in LENGTHS {
                    sweep.ask(socket, level, option, length);
                }
            }
        }
        assert!(sweep.memory.iter().all(|byte| *byte == CANARY), "{name}: wrote far behind the buffer");
    }
    // The options of SOL_SOCKET alone are dozens for each kind.
    assert!(sweep.calls > 700_000 && sweep.answers > 5_000, "{} of {}", sweep.answers, sweep.calls);
}
