//! The kernel's information about a TCP connection.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::socket::Socket;

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

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
impl TcpInfo {
    /// Reads the bytes of a `struct tcp_info`.
    ///
    /// For bytes that did not come from [`Socket::tcp_info`], such as the attribute
    /// `INET_DIAG_INFO` of Linux's sock_diag(7). Returns `None` if there are fewer than 104 bytes,
    /// which every system has. Fields behind the last byte are `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{IPPROTO_TCP, TCP_INFO, TcpInfo, TcpState};
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let bytes = server.getsockopt_bytes(IPPROTO_TCP, TCP_INFO, 1024)?;
    /// assert_eq!(TcpInfo::from_bytes(&bytes).unwrap().state, TcpState::Listen);
    /// assert_eq!(TcpInfo::from_bytes(&bytes[..50]), None);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<TcpInfo> {
        layout::parse(bytes)
    }
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
    /// # #[cfg(any(target_os = "linux", target_os = "freebsd"))] {
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
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        {
            use crate::consts::{IPPROTO_TCP, TCP_INFO};
            // More than any system's structure has, so that what is short is the system's.
            let bytes = self.getsockopt_bytes(IPPROTO_TCP, TCP_INFO, 1024)?;
            let short = || format!("the system's tcp_info of {} bytes is too short", bytes.len());
            layout::parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, short()))
        }
        #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no TCP_INFO"))
    }
}

/// States by name.
const STATES: [(TcpState, &str); 11] = [
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

/// Where the system puts what. The structure only ever grows at its end.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) mod layout {
    use super::*;

    /// Bytes of the oldest structure there is.
    pub(crate) const SHORTEST: usize = 104;

    /// States in the order of their numbers: Linux's from 1 on, FreeBSD's from 0.
    #[cfg(target_os = "linux")]
    pub(crate) const NUMBERS: [TcpState; 12] = [
        TcpState::Other(0),
        TcpState::Established,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::FinWait1,
        TcpState::FinWait2,
        TcpState::TimeWait,
        TcpState::Close,
        TcpState::CloseWait,
        TcpState::LastAck,
        TcpState::Listen,
        TcpState::Closing,
    ];
    #[cfg(target_os = "freebsd")]
    pub(crate) const NUMBERS: [TcpState; 11] = [
        TcpState::Close,
        TcpState::Listen,
        TcpState::SynSent,
        TcpState::SynRecv,
        TcpState::Established,
        TcpState::CloseWait,
        TcpState::FinWait1,
        TcpState::Closing,
        TcpState::LastAck,
        TcpState::FinWait2,
        TcpState::TimeWait,
    ];

    /// Reads as much as there is; `None` when that is not even what all systems tell.
    pub(crate) fn parse(bytes: &[u8]) -> Option<TcpInfo> {
        let linux = cfg!(target_os = "linux");
        if bytes.len() < SHORTEST {
            return None;
        }
        // What FreeBSD has a place for, but nothing in it.
        let of_linux = |at: usize| word(bytes, at).filter(|_| linux);
        let long_of_linux = |at: usize| long(bytes, at).filter(|_| linux);
        Some(TcpInfo {
            state: TcpState::from_number(bytes[0]),
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
}

#[cfg(all(test, any(target_os = "linux", target_os = "freebsd")))]
mod tests {
    use super::*;
    use crate::consts::{AF_INET, AF_UNIX, SHUT_WR, SOCK_STREAM};
    use crate::create::create_connection::create_connection;
    use crate::create::create_server::create_server;

    fn connected() -> (Socket, Socket, Socket) {
        let server = create_server(("127.0.0.1", 0)).unwrap();
        let port = server.getsockname().unwrap().port().unwrap();
        let client = create_connection(("127.0.0.1", port)).unwrap();
        let (connection, _) = server.accept().unwrap();
        (server, client, connection)
    }

    fn state(sock: &Socket) -> TcpState {
        sock.tcp_info().unwrap().state
    }

    #[test]
    fn the_state_is_that_of_the_connection() {
        let (server, client, connection) = connected();
        assert_eq!(state(&Socket::new(AF_INET, SOCK_STREAM, 0).unwrap()), TcpState::Close);
        assert_eq!(state(&server), TcpState::Listen);
        assert_eq!([state(&client), state(&connection)], [TcpState::Established; 2]);
        client.shutdown(SHUT_WR).unwrap();
        assert!(connection.recv(1).unwrap().is_empty());
        assert_eq!(state(&connection), TcpState::CloseWait);
        assert!([TcpState::FinWait1, TcpState::FinWait2].contains(&state(&client)));
        assert_eq!(state(&connection).to_string(), "CLOSE_WAIT");
    }

    #[test]
    fn numbers_are_those_of_the_connection() {
        let (_server, client, connection) = connected();
        client.sendall(&[1; 5000]).unwrap();
        let mut rest = 5000;
        while rest > 0 {
            rest -= connection.recv(rest).unwrap().len();
        }
        connection.sendall(b"and back").unwrap();
        client.recv(100).unwrap();
        let info = client.tcp_info().unwrap();
        assert!(info.rtt > Duration::ZERO && info.rtt < Duration::from_secs(10), "{info:?}");
        assert!(info.snd_mss > 500 && info.snd_cwnd > 0 && info.rto > info.rtt, "{info:?}");
        #[cfg(target_os = "linux")]
        {
            // The kernels this is tested with tell all of it.
            assert_eq!((info.bytes_received, info.bytes_sent), (Some(8), Some(5000)), "{info:?}");
            // An acknowledgement may come apart from the data behind it.
            assert!(info.bytes_acked.is_some_and(|acked| (1..=5001).contains(&acked)), "{info:?}");
            assert_eq!((info.retransmits, info.lost), (Some(0), Some(0)), "{info:?}");
            assert!(info.pmtu.unwrap() >= info.snd_mss, "{info:?}");
            assert!(info.segs_out.unwrap() >= 2 && info.min_rtt.unwrap() <= info.rtt * 2, "{info:?}");
            assert!(info.snd_wnd.unwrap() > 0, "{info:?}");
        }
    }

    #[test]
    fn only_tcp_has_it() {
        let unix = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
        assert!(unix.tcp_info().unwrap_err().raw_os_error().is_some());
    }

    #[test]
    fn a_shorter_structure_leaves_fields_out_and_never_more() {
        let whole: Vec<u8> = (0..=255).collect();
        let fields = |info: &TcpInfo| format!("{info:?}").matches("Some").count();
        let mut before = 0;
        for length in 0..whole.len() {
            match layout::parse(&whole[..length]) {
                None => assert!(length < layout::SHORTEST, "{length}"),
                Some(info) => {
                    assert!(length >= layout::SHORTEST && fields(&info) >= before, "{length}");
                    before = fields(&info);
                }
            }
        }
        let info = layout::parse(&whole).unwrap();
        assert!(fields(&info) > 1 && info.total_retrans > 0);
        // Linux 2.6 ends here.
        let shortest = layout::parse(&whole[..layout::SHORTEST]).unwrap();
        assert_eq!((shortest.bytes_acked, shortest.segs_in, shortest.min_rtt), (None, None, None));
        #[cfg(target_os = "linux")]
        assert_eq!((shortest.pacing_rate, shortest.snd_wnd), (None, None));
    }

    #[test]
    fn a_state_without_a_name_keeps_its_number() {
        let info = layout::parse(&[200; 232]).unwrap();
        assert_eq!((info.state, info.state.to_string()), (TcpState::Other(200), "STATE_200".into()));
    }

    /// The places are those of the structure the C library has.
    #[test]
    fn places_are_those_of_c() {
        use crate::sys::c::tcp_info;
        use std::mem::offset_of;
        let whole: Vec<u8> = (0..=255).collect();
        let info = layout::parse(&whole).unwrap();
        let word = |at: usize| u32::from_ne_bytes(whole[at..at + 4].try_into().unwrap());
        let micros = |at: usize| Duration::from_micros(word(at).into());
        assert_eq!(info.rto, micros(offset_of!(tcp_info, tcpi_rto)));
        assert_eq!(info.rtt, micros(offset_of!(tcp_info, tcpi_rtt)));
        assert_eq!(info.rttvar, micros(offset_of!(tcp_info, tcpi_rttvar)));
        assert_eq!(info.snd_mss, word(offset_of!(tcp_info, tcpi_snd_mss)));
        assert_eq!(info.rcv_mss, word(offset_of!(tcp_info, tcpi_rcv_mss)));
        assert_eq!(info.snd_cwnd, word(offset_of!(tcp_info, tcpi_snd_cwnd)));
        assert_eq!(info.snd_ssthresh, word(offset_of!(tcp_info, tcpi_snd_ssthresh)));
        assert_eq!(info.rcv_space, word(offset_of!(tcp_info, tcpi_rcv_space)));
        #[cfg(target_os = "freebsd")]
        {
            assert_eq!(info.total_retrans, word(offset_of!(tcp_info, tcpi_snd_rexmitpack)));
            assert_eq!(info.snd_wnd, Some(word(offset_of!(tcp_info, tcpi_snd_wnd))));
            assert_eq!(info.last_data_recv, Some(micros(offset_of!(tcp_info, tcpi_last_data_recv))));
        }
        #[cfg(target_os = "linux")]
        {
            let millis = |at: usize| Some(Duration::from_millis(word(at).into()));
            let long = |at: usize| Some(u64::from_ne_bytes(whole[at..at + 8].try_into().unwrap()));
            assert_eq!(info.retransmits, Some(offset_of!(tcp_info, tcpi_retransmits) as u32));
            assert_eq!(info.unacked, Some(word(offset_of!(tcp_info, tcpi_unacked))));
            assert_eq!(info.sacked, Some(word(offset_of!(tcp_info, tcpi_sacked))));
            assert_eq!(info.lost, Some(word(offset_of!(tcp_info, tcpi_lost))));
            assert_eq!(info.retrans, Some(word(offset_of!(tcp_info, tcpi_retrans))));
            assert_eq!(info.last_data_sent, millis(offset_of!(tcp_info, tcpi_last_data_sent)));
            assert_eq!(info.last_data_recv, millis(offset_of!(tcp_info, tcpi_last_data_recv)));
            assert_eq!(info.last_ack_recv, millis(offset_of!(tcp_info, tcpi_last_ack_recv)));
            assert_eq!(info.pmtu, Some(word(offset_of!(tcp_info, tcpi_pmtu))));
            assert_eq!(info.advmss, Some(word(offset_of!(tcp_info, tcpi_advmss))));
            assert_eq!(info.total_retrans, word(offset_of!(tcp_info, tcpi_total_retrans)));
            assert_eq!(info.pacing_rate, long(offset_of!(tcp_info, tcpi_pacing_rate)));
            assert_eq!(info.bytes_acked, long(offset_of!(tcp_info, tcpi_bytes_acked)));
            assert_eq!(info.bytes_received, long(offset_of!(tcp_info, tcpi_bytes_received)));
            assert_eq!(info.segs_out, Some(word(offset_of!(tcp_info, tcpi_segs_out))));
            assert_eq!(info.segs_in, Some(word(offset_of!(tcp_info, tcpi_segs_in))));
            assert_eq!(info.notsent_bytes, Some(word(offset_of!(tcp_info, tcpi_notsent_bytes))));
            assert_eq!(info.min_rtt, Some(micros(offset_of!(tcp_info, tcpi_min_rtt))));
            assert_eq!(info.delivery_rate, long(offset_of!(tcp_info, tcpi_delivery_rate)));
            assert_eq!(info.bytes_sent, long(offset_of!(tcp_info, tcpi_bytes_sent)));
            assert_eq!(info.bytes_retrans, long(offset_of!(tcp_info, tcpi_bytes_retrans)));
            assert_eq!(info.snd_wnd, Some(word(offset_of!(tcp_info, tcpi_snd_wnd))));
        }
    }
}
