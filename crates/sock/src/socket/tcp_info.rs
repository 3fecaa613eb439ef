//! The kernel's information about a TCP connection.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::consts::IPPROTO_TCP;
use crate::socket::Socket;
use crate::sys;

/// State, times, windows and losses of a TCP connection, at the time of the call.
///
/// C: `struct tcp_info` of tcp(7). A field is `None` if the system does not report it. Older
/// versions of Linux have a shorter structure, and FreeBSD leaves many fields empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// State of the connection. C: `tcpi_state`.
    pub state: TcpState,
    /// Retransmission timeout. C: `tcpi_rto`.
    pub rto: Duration,
    /// Smoothed round-trip time. C: `tcpi_rtt`.
    pub rtt: Duration,
    /// Mean deviation of the round-trip time. C: `tcpi_rttvar`.
    pub rttvar: Duration,
    /// Smallest recent round-trip time. Linux 4.6. C: `tcpi_min_rtt`.
    pub min_rtt: Option<Duration>,
    /// Maximum segment size for sending, in bytes. C: `tcpi_snd_mss`.
    pub snd_mss: u32,
    /// Maximum segment size for receiving, in bytes. C: `tcpi_rcv_mss`.
    pub rcv_mss: u32,
    /// Maximum segment size announced to the peer. C: `tcpi_advmss`.
    pub advmss: Option<u32>,
    /// Path MTU, in bytes. C: `tcpi_pmtu`.
    pub pmtu: Option<u32>,
    /// Congestion window: in segments on Linux, in bytes on FreeBSD. C: `tcpi_snd_cwnd`.
    pub snd_cwnd: u32,
    /// Slow start threshold, in the unit of `snd_cwnd`. Initially `i32::MAX` on Linux. C:
    /// `tcpi_snd_ssthresh`.
    pub snd_ssthresh: u32,
    /// The peer's window, in bytes. Linux 5.4, FreeBSD. C: `tcpi_snd_wnd`.
    pub snd_wnd: Option<u32>,
    /// Receive buffer space, in bytes. C: `tcpi_rcv_space`.
    pub rcv_space: u32,
    /// Consecutive retransmissions of the oldest segment without an acknowledgement. C:
    /// `tcpi_retransmits`.
    pub retransmits: Option<u32>,
    /// Total number of retransmitted segments. C: `tcpi_total_retrans`; `tcpi_snd_rexmitpack`.
    pub total_retrans: u32,
    /// Retransmitted segments in flight. C: `tcpi_retrans`.
    pub retrans: Option<u32>,
    /// Unacknowledged segments in flight. For a listener, the connections waiting for accept. C:
    /// `tcpi_unacked`.
    pub unacked: Option<u32>,
    /// Segments received out of order by the peer. For a listener, its backlog. C: `tcpi_sacked`.
    pub sacked: Option<u32>,
    /// Segments considered lost. C: `tcpi_lost`.
    pub lost: Option<u32>,
    /// Time since data was last sent. C: `tcpi_last_data_sent`.
    pub last_data_sent: Option<Duration>,
    /// Time since data was last received. C: `tcpi_last_data_recv`.
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
    /// Most recent measurement of the delivery rate, in bytes per second. Linux 4.9. C:
    /// `tcpi_delivery_rate`.
    pub delivery_rate: Option<u64>,
    /// Pacing rate in bytes per second, `u64::MAX` for no limit. Linux 3.15. C: `tcpi_pacing_rate`.
    pub pacing_rate: Option<u64>,
}

/// State of a TCP connection (RFC 9293).
///
/// `Display` prints it as in C, without the `TCP_`: `ESTABLISHED`.
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
    /// println!("{}: round trip {:?} ± {:?}", info.state, info.rtt, info.rttvar);
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

/// Parses a structure. Fields after its end are `None`. Returns `None` if it is too short.
pub(crate) fn parse(bytes: &[u8]) -> Option<TcpInfo> {
    let linux = cfg!(target_os = "linux");
    if bytes.len() < SHORTEST {
        return None;
    }
    // FreeBSD has these fields too, but leaves them empty.
    let of_linux = |at: usize| word(bytes, at).filter(|_| linux);
    let long_of_linux = |at: usize| long(bytes, at).filter(|_| linux);
    Some(TcpInfo {
        state: state_of(bytes[0]),
        retransmits: linux.then(|| u32::from(bytes[2])),
        rto: micros(word(bytes, 8)?),
        snd_mss: word(bytes, 16)?,
        rcv_mss: word(bytes, 20)?,
        unacked: of_linux(24),
        sacked: of_linux(28),
        lost: of_linux(32),
        retrans: of_linux(36),
        last_data_sent: of_linux(44).map(millis),
        // FreeBSD counts in microseconds here (tcp_fill_info).
        last_data_recv: word(bytes, 52).map(if linux { millis } else { micros }),
        last_ack_recv: of_linux(56).map(millis),
        pmtu: of_linux(60),
        rtt: micros(word(bytes, 68)?),
        rttvar: micros(word(bytes, 72)?),
        snd_ssthresh: word(bytes, 76)?,
        snd_cwnd: word(bytes, 80)?,
        advmss: of_linux(84),
        rcv_space: word(bytes, 96)?,
        total_retrans: word(bytes, if linux { 100 } else { 120 }).unwrap_or(0),
        pacing_rate: long_of_linux(104),
        bytes_acked: long_of_linux(120),
        bytes_received: long_of_linux(128),
        segs_out: of_linux(136),
        segs_in: of_linux(140),
        notsent_bytes: of_linux(144),
        min_rtt: of_linux(148).map(micros),
        delivery_rate: long_of_linux(160),
        bytes_sent: long_of_linux(200),
        bytes_retrans: long_of_linux(208),
        snd_wnd: word(bytes, if linux { 228 } else { 100 }),
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
