//! `struct tcp_info` as bytes, and the numbers of TCP states: Linux and FreeBSD only.

use crate::socket::tcp_info::{TcpInfo, TcpState, parse, state_of};

impl TcpInfo {
    /// Parses the bytes of a `struct tcp_info`.
    ///
    /// For bytes that did not come from [`Socket::tcp_info`](crate::Socket::tcp_info), such as the attribute
    /// `INET_DIAG_INFO` of Linux's sock_diag(7). Returns `None` if there are fewer than 104 bytes,
    /// which every system has. Fields after the last byte are `None`.
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
        parse(bytes)
    }
}

/// Numbers of a state.
impl TcpState {
    /// Returns the state with this number.
    ///
    /// C's `TCP_ESTABLISHED` is 1 on Linux, and `TCPS_ESTABLISHED` is 4 on FreeBSD. An unknown number
    /// becomes [`TcpState::Other`].
    ///
    /// # Examples
    ///
    /// ```
    /// # if cfg!(target_os = "linux") {
    /// assert_eq!(sock::TcpState::from_number(10), sock::TcpState::Listen);
    /// # }
    /// ```
    #[must_use]
    pub fn from_number(number: u8) -> TcpState {
        state_of(number)
    }

    /// Returns the system's number of this state, the inverse of
    /// [`from_number`](TcpState::from_number).
    ///
    /// # Examples
    ///
    /// ```
    /// # if cfg!(target_os = "linux") {
    /// assert_eq!(sock::TcpState::TimeWait.number(), 6);
    /// # }
    /// ```
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            TcpState::Other(number) => number,
            // Every other state has a number.
            state => (0..=u8::MAX).find(|number| state_of(*number) == state).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::consts::{AF_INET, AF_UNIX, SHUT_WR, SOCK_STREAM};
    use crate::create::create_connection::create_connection;
    use crate::create::create_server::create_server;
    use crate::socket::Socket;
    use crate::socket::tcp_info::SHORTEST;
    use crate::socket::tcp_state::SS_NAMES;

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
    fn the_state_of_a_connection_is_reported() {
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
    fn the_counters_of_a_connection_are_reported() {
        let (_server, client, connection) = connected();
        client.sendall(&[1; 5000]).unwrap();
        let mut rest = 5000;
        while rest > 0 {
            rest -= connection.recv(rest).unwrap().len();
        }
        connection.sendall(b"and back").unwrap();
        client.recv(100).unwrap();
        let info = client.tcp_info().unwrap();
        let (rtt, snd_mss) = (info.rtt.unwrap(), info.snd_mss.unwrap());
        assert!(rtt > Duration::ZERO && rtt < Duration::from_secs(10), "{info:?}");
        assert!(snd_mss > 500 && info.snd_cwnd > 0 && info.rto.unwrap() > rtt, "{info:?}");
        if cfg!(target_os = "linux") {
            // The kernels of the tests report all of these fields.
            assert_eq!((info.bytes_received, info.bytes_sent), (Some(8), Some(5000)), "{info:?}");
            // The acknowledgement may arrive after the data that follows it.
            assert!(info.bytes_acked.is_some_and(|acked| (1..=5001).contains(&acked)), "{info:?}");
            assert_eq!((info.retransmits, info.lost), (Some(0), Some(0)), "{info:?}");
            assert!(info.pmtu.unwrap() >= snd_mss, "{info:?}");
            assert!(info.segs_out.unwrap() >= 2 && info.min_rtt.unwrap() <= rtt * 2, "{info:?}");
            assert!(info.snd_wnd.unwrap() > 0, "{info:?}");
        }
    }

    #[test]
    fn other_sockets_have_no_tcp_info() {
        let unix = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
        assert!(unix.tcp_info().unwrap_err().raw_os_error().is_some());
    }

    #[test]
    fn a_shorter_structure_has_fewer_fields() {
        let whole: Vec<u8> = (0..=255).collect();
        let fields = |info: &TcpInfo| format!("{info:?}").matches("Some").count();
        let mut before = 0;
        for length in 0..whole.len() {
            match parse(&whole[..length]) {
                None => assert!(length < SHORTEST, "{length}"),
                Some(info) => {
                    assert!(length >= SHORTEST && fields(&info) >= before, "{length}");
                    before = fields(&info);
                }
            }
        }
        let info = parse(&whole).unwrap();
        assert!(fields(&info) > 1 && info.total_retrans.unwrap() > 0);
        // The structure of Linux 2.6.
        let shortest = parse(&whole[..SHORTEST]).unwrap();
        assert_eq!((shortest.bytes_acked, shortest.segs_in, shortest.min_rtt), (None, None, None));
        if cfg!(target_os = "linux") {
            assert_eq!((shortest.pacing_rate, shortest.snd_wnd), (None, None));
        }
    }

    #[test]
    fn a_state_without_a_name_keeps_its_number() {
        let info = parse(&[200; 232]).unwrap();
        assert_eq!((info.state, info.state.to_string()), (TcpState::Other(200), "STATE_200".into()));
    }

    #[test]
    fn fields_have_the_offsets_of_c() {
        use crate::sys::c::tcp_info;
        use std::mem::offset_of;
        let whole: Vec<u8> = (0..=255).collect();
        let info = parse(&whole).unwrap();
        let word = |at: usize| u32::from_ne_bytes(whole[at..at + 4].try_into().unwrap());
        let micros = |at: usize| Duration::from_micros(word(at).into());
        assert_eq!(info.rto, Some(micros(offset_of!(tcp_info, tcpi_rto))));
        assert_eq!(info.rtt, Some(micros(offset_of!(tcp_info, tcpi_rtt))));
        assert_eq!(info.rttvar, Some(micros(offset_of!(tcp_info, tcpi_rttvar))));
        assert_eq!(info.snd_mss, Some(word(offset_of!(tcp_info, tcpi_snd_mss))));
        assert_eq!(info.rcv_mss, Some(word(offset_of!(tcp_info, tcpi_rcv_mss))));
        assert_eq!(info.snd_cwnd, word(offset_of!(tcp_info, tcpi_snd_cwnd)));
        assert_eq!(info.snd_ssthresh, Some(word(offset_of!(tcp_info, tcpi_snd_ssthresh))));
        assert_eq!(info.rcv_space, Some(word(offset_of!(tcp_info, tcpi_rcv_space))));
        #[cfg(target_os = "freebsd")]
        {
            assert_eq!(info.total_retrans, Some(word(offset_of!(tcp_info, tcpi_snd_rexmitpack))));
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
            assert_eq!(info.total_retrans, Some(word(offset_of!(tcp_info, tcpi_total_retrans))));
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

    /// The kernel has no `None`: it has the largest number, or zero, or the uptime.
    #[cfg(target_os = "linux")]
    #[test]
    fn values_that_were_not_measured_are_none() {
        let (server, client, connection) = connected();
        let listener = server.tcp_info().unwrap();
        assert_eq!((listener.accept_queue, listener.backlog.is_some()), (Some(0), true), "{listener:?}");
        let unconnected = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap().tcp_info().unwrap();
        let connecting = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        connecting.setblocking(false).unwrap();
        // TEST-NET-1 (RFC 5737) does not answer. Without a route to it the socket stays unconnected.
        let _ = connecting.connect(("192.0.2.1", 9));
        for info in [&listener, &unconnected, &connecting.tcp_info().unwrap()] {
            assert_eq!((info.rtt, info.rttvar, info.min_rtt), (None, None, None), "{info:?}");
            assert_eq!((info.last_data_sent, info.last_data_recv, info.last_ack_recv), (None, None, None));
            assert_eq!(
                (info.snd_ssthresh, info.delivery_rate, info.snd_wnd),
                (None, None, None),
                "{info:?}"
            );
            assert_ne!(info.pacing_rate, Some(u64::MAX));
        }
        assert_eq!((listener.unacked, listener.sacked, listener.segs_in), (None, None, None));
        assert_eq!((listener.rto, listener.snd_mss, listener.rcv_mss), (None, None, None), "{listener:?}");
        assert_eq!((listener.total_retrans, listener.retransmits), (None, None), "{listener:?}");
        for info in [client.tcp_info().unwrap(), connection.tcp_info().unwrap()] {
            assert_eq!(
                (info.accept_queue, info.backlog, info.snd_ssthresh),
                (None, None, None),
                "{info:?}"
            );
            assert!(info.last_data_recv.unwrap() < Duration::from_secs(60), "{info:?}");
            assert!(info.rtt.is_some() && info.sacked == Some(0), "{info:?}");
        }
        let waiting =
            create_connection(("127.0.0.1", server.getsockname().unwrap().port().unwrap())).unwrap();
        let waits = || server.tcp_info().unwrap().accept_queue == Some(1);
        let begin = std::time::Instant::now();
        while !waits() && begin.elapsed() < Duration::from_secs(10) {}
        assert!(waits());
        drop(waiting);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_s_value_for_no_limit_is_none() {
        let mut bytes = [0xff; 232];
        bytes[76..80].copy_from_slice(&super::super::tcp_info::NO_SSTHRESH.to_ne_bytes());
        let info = parse(&bytes).unwrap();
        assert_eq!((info.min_rtt, info.pacing_rate, info.snd_ssthresh), (None, None, None));
        let info = parse(&[0; 232]).unwrap();
        assert_eq!((info.rto, info.rtt, info.rttvar), (None, None, None));
        assert_eq!((info.pmtu, info.advmss, info.delivery_rate), (None, None, None));
    }

    #[test]
    fn every_number_is_converted_back() {
        for number in 0..=u8::MAX {
            assert_eq!(TcpState::from_number(number).number(), number);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn numbers_are_those_of_linux() {
        // libc has no constants for them, so these are include/net/tcp_states.h.
        let numbers = SS_NAMES.map(|(state, ..)| state.number());
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    }
}
