//! The kernel's information about a TCP connection.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::consts::IPPROTO_TCP;
use crate::socket::Socket;
use crate::sys;

/// State, times, windows and losses of a TCP connection, at the time of the call.
///
/// C: `struct tcp_info` of tcp(7). A field is `None` if the system does not report it, or reports
/// its own value for "not known", such as a round-trip time that was never measured. Older versions
/// of Linux have a shorter structure, and FreeBSD leaves many fields empty. For a listener Linux
/// reports `state`, `snd_cwnd`, `pacing_rate`, `accept_queue` and `backlog` only.
///
/// # Examples
///
/// ```
/// use sock::{TcpInfo, TcpState};
///
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
/// # if cfg!(target_os = "linux") {
/// let info: TcpInfo = client.tcp_info()?;
/// assert_eq!(info.state, TcpState::Established);
/// # }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// State of the connection. C: `tcpi_state`.
    pub state: TcpState,
    /// Retransmission timeout. C: `tcpi_rto`.
    pub rto: Option<Duration>,
    /// Smoothed round-trip time. `None` until it is measured. C: `tcpi_rtt`.
    pub rtt: Option<Duration>,
    /// Mean deviation of the round-trip time. `None` until that is measured. C: `tcpi_rttvar`.
    pub rttvar: Option<Duration>,
    /// Smallest recent round-trip time. `None` until it is measured. Linux 4.6. C: `tcpi_min_rtt`.
    pub min_rtt: Option<Duration>,
    /// Maximum segment size for sending, in bytes. C: `tcpi_snd_mss`.
    pub snd_mss: Option<u32>,
    /// Maximum segment size for receiving, in bytes. C: `tcpi_rcv_mss`.
    pub rcv_mss: Option<u32>,
    /// Maximum segment size announced to the peer. C: `tcpi_advmss`.
    pub advmss: Option<u32>,
    /// Path MTU, in bytes. C: `tcpi_pmtu`.
    pub pmtu: Option<u32>,
    /// Congestion window: in segments on Linux, in bytes on FreeBSD. C: `tcpi_snd_cwnd`.
    pub snd_cwnd: u32,
    /// Slow start threshold, in the unit of `snd_cwnd`. `None` until a loss sets one. C:
    /// `tcpi_snd_ssthresh`.
    pub snd_ssthresh: Option<u32>,
    /// The peer's window, in bytes. Linux 5.4, FreeBSD. C: `tcpi_snd_wnd`.
    pub snd_wnd: Option<u32>,
    /// Receive buffer space, in bytes. C: `tcpi_rcv_space`.
    pub rcv_space: Option<u32>,
    /// Consecutive retransmissions of the oldest segment without an acknowledgement. C:
    /// `tcpi_retransmits`.
    pub retransmits: Option<u32>,
    /// Total number of retransmitted segments. C: `tcpi_total_retrans`; `tcpi_snd_rexmitpack`.
    pub total_retrans: Option<u32>,
    /// Retransmitted segments in flight. C: `tcpi_retrans`.
    pub retrans: Option<u32>,
    /// Unacknowledged segments in flight. C: `tcpi_unacked`.
    pub unacked: Option<u32>,
    /// Segments received out of order by the peer. C: `tcpi_sacked`.
    pub sacked: Option<u32>,
    /// Connections that wait for accept(2). `None` unless the socket is a listener. C:
    /// `tcpi_unacked` of a listener.
    pub accept_queue: Option<u32>,
    /// The backlog of listen(2), limited by the system. `None` unless the socket is a listener. C:
    /// `tcpi_sacked` of a listener.
    pub backlog: Option<u32>,
    /// Segments considered lost. C: `tcpi_lost`.
    pub lost: Option<u32>,
    /// Time since data was last sent, or since the connection was established. C: `tcpi_last_data_sent`.
    pub last_data_sent: Option<Duration>,
    /// Time since data was last received, or since the connection was established. C: `tcpi_last_data_recv`.
    pub last_data_recv: Option<Duration>,
    /// Time since the last acknowledgement was received. C: `tcpi_last_ack_recv`.
    pub last_ack_recv: Option<Duration>,
    /// Acknowledged bytes, plus 1 for the SYN. Linux 4.1. C: `tcpi_bytes_acked`.
    pub bytes_acked: Option<u64>,
    /// Received bytes, plus 1 for the FIN. Linux 4.1. C: `tcpi_bytes_received`.
    pub bytes_received: Option<u64>,
    /// Sent bytes, including retransmissions. Linux 4.19. C: `tcpi_bytes_sent`.
    pub bytes_sent: Option<u64>,
    /// Retransmitted bytes. Linux 4.19. C: `tcpi_bytes_retrans`.
    pub bytes_retrans: Option<u64>,
    /// Bytes in the send queue that have never been sent. Linux 4.6. C: `tcpi_notsent_bytes`.
    pub notsent_bytes: Option<u32>,
    /// Segments sent. Linux 4.2. C: `tcpi_segs_out`.
    pub segs_out: Option<u32>,
    /// Segments received. Linux 4.2. C: `tcpi_segs_in`.
    pub segs_in: Option<u32>,
    /// Most recent measurement of the delivery rate, in bytes per second. `None` until there is one.
    /// Linux 4.9. C: `tcpi_delivery_rate`.
    pub delivery_rate: Option<u64>,
    /// Pacing rate in bytes per second. `None` if there is no limit. Linux 3.15. C:
    /// `tcpi_pacing_rate`.
    pub pacing_rate: Option<u64>,
}

/// State of a TCP connection (RFC 9293).
///
/// `Display` prints it as in C, without the `TCP_`: `ESTABLISHED`.
///
/// # Examples
///
/// ```
/// use sock::TcpState;
///
/// # if cfg!(target_os = "linux") {
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// assert_eq!(server.tcp_info()?.state, TcpState::Listen);
/// # }
/// assert_eq!(TcpState::Listen.to_string(), "LISTEN");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TcpState {
    /// Both sides can send.
    Established,
    /// A SYN has been sent.
    SynSent,
    /// A SYN has been received and answered.
    SynRecv,
    /// This side has closed, and its FIN is not acknowledged.
    FinWait1,
    /// This side has closed, and the peer has not.
    FinWait2,
    /// Both sides have closed. Delayed packets may still arrive.
    TimeWait,
    /// No connection.
    Close,
    /// The peer has closed, and this side has not.
    CloseWait,
    /// Both sides have closed, and our FIN is not acknowledged.
    LastAck,
    /// The socket is a listener.
    Listen,
    /// Both sides closed at the same time.
    Closing,
    /// A state number without a name here.
    Other(u8),
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TcpState::Other(number) => write!(f, "STATE_{number}"),
            state => match STATES.iter().find(|(known, _)| known == state) {
                Some((_, name)) => f.pad(name),
                None => write!(f, "{state:?}"),
            },
        }
    }
}

/// TCP information.
impl Socket {
    /// Returns the kernel's information about a TCP connection.
    ///
    /// Python: `getsockopt(IPPROTO_TCP, TCP_INFO, 1024)`, unpacked with `struct`. System call:
    /// getsockopt(2).
    ///
    /// # Errors
    ///
    /// Returns an error if the socket is not a TCP socket (`EOPNOTSUPP` or `ENOPROTOOPT`), and an
    /// error of kind `Unsupported` on macOS and Windows, whose structures differ.
    ///
    /// # Examples
    ///
    /// ```
    /// # if cfg!(any(target_os = "linux", target_os = "freebsd")) {
    /// use sock::TcpState;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let info = client.tcp_info()?;
    /// assert_eq!(info.state, TcpState::Established);
    /// if let (Some(rtt), Some(rttvar)) = (info.rtt, info.rttvar) {
    ///     println!("{}: round trip {rtt:?} ± {rttvar:?}", info.state);
    /// }
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("TCP_INFO", "tcpi_state", "tcpi_rtt"))]
    pub fn tcp_info(&self) -> io::Result<TcpInfo> {
        let Some(option) = sys::TCP_INFO_OPTION else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no TCP_INFO"));
        };
        // Larger than the structure of any system, so that the system determines the length.
        let bytes = self.getsockopt_bytes(IPPROTO_TCP, option, 1024)?;
        let short = || format!("the system's tcp_info of {} bytes is too short", bytes.len());
        parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, short()))
    }
}

/// The states with their names.
pub(super) const STATES: [(TcpState, &str); 11] = [
    (TcpState::Established, "ESTABLISHED"),
    (TcpState::SynSent, "SYN_SENT"),
    (TcpState::SynRecv, "SYN_RECV"),
    (TcpState::FinWait1, "FIN_WAIT1"),
    (TcpState::FinWait2, "FIN_WAIT2"),
    (TcpState::TimeWait, "TIME_WAIT"),
    (TcpState::Close, "CLOSE"),
    (TcpState::CloseWait, "CLOSE_WAIT"),
    (TcpState::LastAck, "LAST_ACK"),
    (TcpState::Listen, "LISTEN"),
    (TcpState::Closing, "CLOSING"),
];

/// Bytes of the shortest structure, that of Linux 2.6.
pub(super) const SHORTEST: usize = 104;

/// Returns the state with this number on this system.
pub(super) fn state_of(number: u8) -> TcpState {
    let name = sys::TCP_STATES.get(usize::from(number));
    let known = STATES.iter().find(|(_, known)| Some(known) == name);
    known.map_or(TcpState::Other(number), |(state, _)| *state)
}

/// The slow start threshold before a loss has set one: `TCP_INFINITE_SSTHRESH` of Linux's
/// net/tcp.h, and `TCP_MAXWIN << TCP_MAX_WINSHIFT` of FreeBSD's netinet/tcp.h.
pub(super) const NO_SSTHRESH: u32 = if cfg!(target_os = "linux") { 0x7fff_ffff } else { 65_535 << 14 };

/// Parses a structure. Fields after its end and those with the system's value for "not known" are
/// `None`. Returns `None` if it is too short.
pub(crate) fn parse(bytes: &[u8]) -> Option<TcpInfo> {
    let linux = cfg!(target_os = "linux");
    if bytes.len() < SHORTEST {
        return None;
    }
    let state = state_of(bytes[0]);
    // For a listener Linux writes a few fields and leaves the others zero (tcp_get_info). Two
    // fields have another meaning then.
    let listener = linux && state == TcpState::Listen;
    let word_at = |at: usize| word(bytes, at).filter(|_| !listener);
    // FreeBSD has these fields too, but leaves them empty.
    let of_linux = |at: usize| word_at(at).filter(|_| linux);
    let long_of_linux = |at: usize| long(bytes, at).filter(|_| linux && !listener);
    let of_listener = |at: usize| word(bytes, at).filter(|_| listener);
    // A measured round-trip time is at least 1 µs (tcp_rtt_estimator).
    let rtt = word_at(68).filter(|rtt| *rtt != 0).map(micros);
    // Before a connection is established, the clock's zero stands for the last packet.
    let connected = rtt.is_some() || ![TcpState::Close, TcpState::SynSent].contains(&state);
    let since = |time: Option<Duration>| time.filter(|_| connected);
    Some(TcpInfo {
        state,
        retransmits: (linux && !listener).then(|| u32::from(bytes[2])),
        rto: word_at(8).filter(|rto| *rto != 0).map(micros),
        snd_mss: word_at(16).filter(|mss| *mss != 0),
        rcv_mss: word_at(20).filter(|mss| *mss != 0),
        unacked: of_linux(24),
        sacked: of_linux(28),
        accept_queue: of_listener(24),
        backlog: of_listener(28),
        lost: of_linux(32),
        retrans: of_linux(36),
        last_data_sent: since(of_linux(44).map(millis)),
        // FreeBSD counts in microseconds here (tcp_fill_info).
        last_data_recv: since(word_at(52).map(if linux { millis } else { micros })),
        last_ack_recv: since(of_linux(56).map(millis)),
        pmtu: of_linux(60).filter(|mtu| *mtu != 0),
        rtt,
        rttvar: word_at(72).map(micros).filter(|_| rtt.is_some()),
        snd_ssthresh: word_at(76).filter(|threshold| *threshold != NO_SSTHRESH),
        snd_cwnd: word(bytes, 80)?,
        advmss: of_linux(84).filter(|mss| *mss != 0),
        rcv_space: word_at(96).filter(|space| *space != 0),
        total_retrans: word_at(if linux { 100 } else { 120 }),
        pacing_rate: long(bytes, 104).filter(|rate| linux && *rate != u64::MAX),
        bytes_acked: long_of_linux(120),
        bytes_received: long_of_linux(128),
        segs_out: of_linux(136),
        segs_in: of_linux(140),
        notsent_bytes: of_linux(144),
        min_rtt: of_linux(148).filter(|rtt| *rtt != u32::MAX).map(micros),
        delivery_rate: long_of_linux(160).filter(|rate| *rate != 0),
        bytes_sent: long_of_linux(200),
        bytes_retrans: long_of_linux(208),
        // The peer announces its window with its first segment.
        snd_wnd: word_at(if linux { 228 } else { 100 }).filter(|_| connected),
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn micros(count: u32) -> Duration {
    Duration::from_micros(count.into())
}

fn millis(count: u32) -> Duration {
    Duration::from_millis(count.into())
}
