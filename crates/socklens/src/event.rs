//! The events of a recording, with calls, changes of sockets and packets in one order.

use std::fmt;
use std::time::Duration;

use sock::TcpInfo;

use crate::packet::Packet;

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostName {
    /// Host A, with the address 10.0.0.1.
    A,
    /// Host B, with the address 10.0.0.2.
    B,
}

impl HostName {
    /// Both hosts.
    pub const BOTH: [HostName; 2] = [HostName::A, HostName::B];

    /// Returns the other host.
    #[must_use]
    pub fn other(self) -> HostName {
        match self {
            HostName::A => HostName::B,
            HostName::B => HostName::A,
        }
    }

    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn parse(name: &str) -> Option<HostName> {
        HostName::BOTH.into_iter().find(|host| host.to_string() == name)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HostName::A => "A",
            HostName::B => "B",
        })
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It was forwarded at once.
    Passed,
    /// The wire keeps it.
    Held,
    /// It was held or delayed, and was forwarded.
    Delivered,
    /// It was discarded.
    Dropped,
    /// It was forwarded, and a copy of it as well.
    Duplicated,
    /// It is forwarded later.
    Delayed,
    /// It was discarded because the wire is cut.
    Cut,
}

impl Fate {
    pub(crate) const ALL: [Fate; 7] = [
        Fate::Passed,
        Fate::Held,
        Fate::Delivered,
        Fate::Dropped,
        Fate::Duplicated,
        Fate::Delayed,
        Fate::Cut,
    ];

    /// Returns the word in the output.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Fate::Passed => "passed",
            Fate::Held => "held",
            Fate::Delivered => "delivered",
            Fate::Dropped => "dropped",
            Fate::Duplicated => "duplicated",
            Fate::Delayed => "delayed",
            Fate::Cut => "lost, the wire is cut",
        }
    }
}

/// A running timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeenTimer {
    /// `on`, `keepalive`, `timewait` or `persist`, as in ss(8).
    pub kind: &'static str,
    /// Time until it expires.
    pub left: Duration,
    /// How often it has expired without an answer.
    pub retransmits: u8,
}

/// The kernel's view of one socket at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// `tcp`, `udp` or `unix`.
    pub protocol: &'static str,
    /// The name in ss(8), but ESTABLISHED in full; of UDP and Unix sockets UNCONNECTED or
    /// CONNECTED.
    pub state: &'static str,
    /// Bytes that can be received; a FIN counts as one. Memory of the datagrams for UDP.
    pub recvq: u32,
    /// Bytes that were not acknowledged; a SYN and a FIN count as one each.
    pub sendq: u32,
    /// Connections that wait for accept(2), and the backlog. Of listeners only.
    pub waiting: Option<(u32, u32)>,
    /// The timer that is running.
    pub timer: Option<SeenTimer>,
    /// 0 if no file refers to the socket.
    pub inode: u64,
    /// Own address.
    pub local: String,
    /// Address of the peer.
    pub peer: String,
    /// Packets that the socket has discarded.
    pub drops: u32,
    /// Round-trip time of a TCP connection.
    pub rtt: Option<Duration>,
    /// Congestion window of a TCP connection, in segments.
    pub cwnd: Option<u32>,
    /// What TCP knows about the connection.
    pub info: Option<Box<TcpInfo>>,
}

impl Seen {
    /// Whether a difference is worth a line. Times and windows are not.
    pub(crate) fn differs(&self, other: &Seen) -> bool {
        let key = |seen: &Seen| {
            let timer = seen.timer.map(|timer| (timer.kind, timer.retransmits));
            (seen.state, seen.recvq, seen.sendq, seen.waiting, timer, seen.drops)
        };
        key(self) != key(other)
    }
}

/// Values of `TCP_INFO` by their names in C, without `tcpi_`. Times are in microseconds.
pub type Counters = Vec<(&'static str, u64)>;

/// All values of a `TCP_INFO` but the state and the accept queue, which a row has.
fn values(info: &TcpInfo) -> [(&'static str, Option<u64>); 27] {
    let time = |time: Option<Duration>| time.and_then(|time| u64::try_from(time.as_micros()).ok());
    let number = |number: Option<u32>| number.map(u64::from);
    [
        ("rtt", time(info.rtt)),
        ("rttvar", time(info.rttvar)),
        ("min_rtt", time(info.min_rtt)),
        ("rto", time(info.rto)),
        ("snd_mss", number(info.snd_mss)),
        ("rcv_mss", number(info.rcv_mss)),
        ("advmss", number(info.advmss)),
        ("pmtu", number(info.pmtu)),
        ("snd_cwnd", Some(u64::from(info.snd_cwnd))),
        ("snd_ssthresh", number(info.snd_ssthresh)),
        ("snd_wnd", number(info.snd_wnd)),
        ("rcv_space", number(info.rcv_space)),
        ("unacked", number(info.unacked)),
        ("sacked", number(info.sacked)),
        ("lost", number(info.lost)),
        ("retransmits", number(info.retransmits)),
        ("retrans", number(info.retrans)),
        ("total_retrans", number(info.total_retrans)),
        ("notsent_bytes", number(info.notsent_bytes)),
        ("bytes_sent", info.bytes_sent),
        ("bytes_retrans", info.bytes_retrans),
        ("bytes_acked", info.bytes_acked),
        ("bytes_received", info.bytes_received),
        ("segs_out", number(info.segs_out)),
        ("segs_in", number(info.segs_in)),
        ("delivery_rate", info.delivery_rate),
        ("pacing_rate", info.pacing_rate),
    ]
}

/// The values that differ between two looks at a connection.
pub(crate) fn changes(before: Option<&TcpInfo>, now: &TcpInfo) -> Counters {
    let before = before.map(values);
    let new = values(now).into_iter().enumerate();
    let new = new.filter(|(place, value)| before.is_none_or(|before| before[*place] != *value));
    new.filter_map(|(_, (name, value))| Some((name, value?))).collect()
}

/// An event of a recording.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// Time since the beginning.
    pub time: Duration,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// A socket call begins.
    Call {
        /// Number of the call.
        id: u64,
        /// Host of the caller.
        host: HostName,
        /// Name of the socket, or of the host.
        object: String,
        /// Name of the function.
        function: String,
        /// Arguments as they stand in the scenario.
        args: String,
        /// Line of the scenario. 0 for a program that is watched.
        line: usize,
        /// The thread of a program that is watched.
        thread: Option<i32>,
    },
    /// A call of a program that is watched is kept at its entry.
    Held {
        /// Number of the call.
        id: u64,
    },
    /// A call that was kept at its entry runs.
    Released {
        /// Number of the call.
        id: u64,
    },
    /// A socket call has returned.
    Return {
        /// Number of the call.
        id: u64,
        /// What it returned, as Python writes it.
        value: String,
        /// Name of the error.
        errno: Option<String>,
        /// How long it took.
        took: Duration,
    },
    /// A socket has a name from now on.
    Name {
        /// The socket's cookie.
        cookie: u64,
        /// The name in the scenario.
        name: String,
    },
    /// A socket appeared or changed.
    Kernel {
        /// Host of the socket.
        host: HostName,
        /// The socket's cookie.
        cookie: u64,
        /// State before. `None` if the socket is new.
        was: Option<&'static str>,
        /// The socket now.
        now: Seen,
        /// The values of its TCP_INFO that differ from those of the event before.
        info: Counters,
    },
    /// A socket is in no table of the kernel any more.
    Gone {
        /// Host of the socket.
        host: HostName,
        /// The socket's cookie.
        cookie: u64,
        /// State before.
        was: &'static str,
    },
    /// The kernel has freed a socket, and has reported its last values. Its entry in TIME-WAIT is none,
    /// and has the same cookie.
    Died {
        /// Host of the socket.
        host: HostName,
        /// The socket's cookie.
        cookie: u64,
        /// The values of its TCP_INFO that differ from those of the event before.
        info: Counters,
    },
    /// A packet has arrived at the wire.
    Packet {
        /// Number of the packet.
        id: u64,
        /// Host that sent it.
        from: HostName,
        /// What became of it.
        fate: Fate,
        /// What it is. `None` if it could not be parsed.
        packet: Option<Packet>,
        /// The bytes from the header of IP on.
        bytes: Vec<u8>,
    },
    /// Something else became of a packet that was held or delayed.
    Fate {
        /// Number of the packet.
        id: u64,
        /// What became of it.
        fate: Fate,
    },
    /// An expectation was checked.
    Expect {
        /// Line of the scenario.
        line: usize,
        /// Whether it is true.
        ok: bool,
        /// The expectation.
        text: String,
        /// What was seen.
        seen: String,
    },
    /// The library has logged a hint about a call, before it returns.
    Hint {
        /// Number of the call.
        id: u64,
        /// What the library has seen, and what to do.
        text: String,
    },
    /// A line of the scenario begins.
    Line {
        /// Its number.
        line: usize,
    },
    /// A line of the scenario has ended. A call that it has started may go on.
    Done {
        /// Its number.
        line: usize,
        /// Whether it did what it says.
        ok: bool,
        /// Its result, as the text output shows it.
        text: String,
    },
    /// A lesson waits before a line.
    Paused {
        /// Number of the next line. `None` at the end.
        next: Option<usize>,
    },
    /// Something that is not a part of the lesson, such as a packet that the wire itself has lost.
    Note(String),
}
