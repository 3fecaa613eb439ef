//! The kernel's view of the sockets of one host.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use sock::{AF_INET6, Socket, TcpInfo, TcpState};
use sockdiag::{Deaths, Diag, Filter, Protocol, Row, UnixRow};

use crate::event::{Seen, SeenTimer};

/// Returns the name of a state of TCP: that of ss(8), but ESTABLISHED in full.
pub(crate) fn state_name(state: TcpState) -> &'static str {
    match state {
        TcpState::Established => "ESTABLISHED",
        TcpState::Close => "CLOSED",
        other => other.ss_name(),
    }
}

/// States that an expectation can name.
pub(crate) const STATES: [&str; 14] = [
    "SYN-SENT",
    "SYN-RECV",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
    "LISTEN",
    "CLOSED",
    "GONE",
    "CONNECTED",
    "UNCONNECTED",
];

fn is_mapped(row: &Row) -> bool {
    row.family == AF_INET6 && row.local.ip().to_canonical().is_ipv4()
}

fn seen(row: Row) -> Seen {
    let is_tcp = row.protocol == Protocol::Tcp;
    let state = match (is_tcp, row.state) {
        (true, state) => state_name(state),
        (false, TcpState::Established) => "CONNECTED",
        (false, _) => "UNCONNECTED",
    };
    let mapped = if is_mapped(&row) { " as IPv6" } else { "" };
    Seen {
        protocol: if is_tcp { "tcp" } else { "udp" },
        state,
        recvq: row.recv_queue,
        sendq: row.send_queue,
        waiting: row.accept_queue.map(|queue| (queue.waiting, queue.limit.unwrap_or_default())),
        timer: row.timer.map(|timer| SeenTimer {
            kind: timer.kind.ss_name(),
            left: timer.left,
            retransmits: timer.retransmits,
        }),
        inode: row.inode,
        local: format!("{}{mapped}", row.local),
        peer: row.peer.to_string(),
        // TCP counts segments that carried nothing new as well.
        drops: row.memory.and_then(|memory| memory.drops).filter(|_| !is_tcp).unwrap_or_default(),
        rtt: row.info.as_ref().and_then(|info| info.rtt),
        cwnd: row.info.as_ref().map(|info| info.snd_cwnd),
        // Of a listener it says nothing that the row does not.
        info: row.info.filter(|_| row.state != TcpState::Listen).map(Box::new),
    }
}

fn seen_unix(row: UnixRow) -> Seen {
    Seen {
        protocol: "unix",
        state: match row.state {
            TcpState::Listen => "LISTEN",
            TcpState::Established => "CONNECTED",
            _ => "UNCONNECTED",
        },
        recvq: row.recv_queue.unwrap_or_default(),
        sendq: row.send_queue.unwrap_or_default(),
        waiting: row.accept_queue.map(|queue| (queue.waiting, queue.limit.unwrap_or_default())),
        timer: None,
        inode: row.inode,
        local: format!("{:?}", row.address),
        peer: row.peer.map(|inode| format!("inode {inode}")).unwrap_or_default(),
        drops: 0,
        rtt: None,
        cwnd: None,
        info: None,
    }
}

const STATES_WITHOUT_TIME_WAIT: [TcpState; 9] = [
    TcpState::Established,
    TcpState::SynSent,
    TcpState::SynRecv,
    TcpState::FinWait1,
    TcpState::FinWait2,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::Listen,
    TcpState::Closing,
];

/// Notices that are read before other work goes on.
const AT_ONCE: usize = 1000;

/// The source of what the kernel says of one host's sockets.
pub(crate) struct Observer {
    diag: Diag,
    /// `None` where the kernel does not report them to this user.
    deaths: Option<Deaths>,
    tcp: Filter,
    /// What belongs to a host that is an address of this system: its sockets, and those in states
    /// other than TIME-WAIT, of which a busy system has thousands.
    of_host: Option<[Filter; 2]>,
    udp: Filter,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl Observer {
    /// Observes the network namespace of the calling thread.
    pub(crate) fn new() -> io::Result<Observer> {
        let diag = Diag::netlink()?;
        let all = Filter::new().details(true);
        let deaths = Deaths::new().ok().filter(|deaths| deaths.set_timeout(Some(Duration::ZERO)).is_ok());
        Ok(Observer { diag, deaths, tcp: all.clone(), of_host: None, udp: all })
    }

    /// Observes a host that is an address of this system.
    pub(crate) fn of_address(address: Ipv4Addr) -> io::Result<Observer> {
        let mut observer = Observer::new()?;
        let open = STATES_WITHOUT_TIME_WAIT;
        observer.of_host =
            Some([observer.tcp.clone().local_address(address), observer.tcp.clone().states(open)]);
        Ok(observer)
    }

    /// Returns every TCP socket, and every UDP socket if `with_udp`, with its cookie. A host that is an
    /// address of this system has TIME-WAIT at its own address, and at 127.0.0.1 with these ports.
    pub(crate) fn internet(&mut self, with_udp: bool, ports: &[u16]) -> io::Result<Vec<(u64, Seen)>> {
        let mut filters = vec![self.tcp.clone()];
        if let Some(of_host) = &self.of_host {
            let local =
                Filter::new().details(true).states([TcpState::TimeWait]).local_address(Ipv4Addr::LOCALHOST);
            filters = of_host.to_vec();
            filters.extend(ports.iter().map(|port| local.clone().local_port(*port)));
        }
        let mut rows = Vec::new();
        let mut known = HashSet::new();
        for filter in &filters {
            for row in self.diag.tcp(filter)? {
                let new = row.cookie.filter(|cookie| known.insert(*cookie));
                rows.extend(new.map(|cookie| (cookie, seen(row))));
            }
        }
        if with_udp {
            for row in self.diag.udp(&self.udp)? {
                rows.extend(row.cookie.map(|cookie| (cookie, seen(row))));
            }
        }
        Ok(rows)
    }

    /// Returns the TCP sockets that were freed since the last call, with their cookies.
    pub(crate) fn died(&mut self) -> Vec<(u64, TcpInfo)> {
        let mut died = Vec::new();
        let Some(deaths) = &mut self.deaths else { return died };
        while died.len() < AT_ONCE {
            match deaths.next() {
                Ok(row) => died.extend(row.cookie.zip(row.info)),
                // Some are lost, and others follow.
                Err(error) if sock::errno(&error).and_then(sock::errno_name) == Some("ENOBUFS") => {}
                Err(_) => break,
            }
        }
        died
    }

    /// Returns a Unix socket. `None` if the kernel does not list it.
    pub(crate) fn unix(&mut self, sock: &Socket) -> Option<Seen> {
        self.diag.unix_of(sock).ok().flatten().map(seen_unix)
    }
}
