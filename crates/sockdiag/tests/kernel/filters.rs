//! The kernel applies filters, and `/proc/net` is filtered in the same way.

use std::net::{Ipv4Addr, Ipv6Addr};

use sock::{AF_INET, AF_INET6, SOCK_STREAM, Socket, TcpState, create_server};
use sockdiag::{Diag, Filter, Row};

use crate::common::{client_of, eventually, has_ipv6, port};

/// What both sources have, in one order.
fn keys(rows: &[Row]) -> Vec<String> {
    let mut keys: Vec<_> =
        rows.iter().map(|row| format!("{} {} {}", row.local, row.peer, row.state)).collect();
    keys.sort();
    keys
}

#[test]
fn both_sources_take_the_same_sockets() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let other = create_server(("127.0.0.1", 0)).unwrap();
    let server6 = has_ipv6().then(|| {
        let server6 = Socket::new(AF_INET6, SOCK_STREAM, 0).unwrap();
        server6.bind(("::1", 0)).unwrap();
        server6.listen(5).unwrap();
        server6
    });
    let clients: Vec<_> = [&server, &server, &other].into_iter().chain(&server6).map(client_of).collect();
    let six = server6.as_ref().map(port);
    let (port, other) = (port(&server), port(&other));
    let mut diag = Diag::netlink().unwrap();
    let mut files = Diag::procfs().unwrap();
    // A TIME-WAIT of an earlier test may have one of these ports.
    let any = || Filter::new().states([TcpState::Listen, TcpState::Established]);
    let mut filters = vec![
        // A listener, two connections, and two ends that were not accepted.
        (any().either_port(port), 5),
        (any().local_port(port), 3),
        (any().peer_port(port), 2),
        (any().local_port(port).states([TcpState::Listen]), 1),
        (any().local_port(port).states([TcpState::Established]), 2),
        (any().local_port(port).states([]), 0),
        (any().either_port(port).family(AF_INET6), 0),
        (any().either_port(port).local_network([127, 0, 0, 0], 8), 5),
        (any().either_port(port).peer_network([127, 0, 0, 0], 8), 4),
        (any().either_port(port).peer_address(Ipv4Addr::UNSPECIFIED), 1),
        (any().either_port(port).peer_network([128, 0, 0, 0], 1), 0),
        (any().either_port(port).peer_network([0, 0, 0, 0], 0), 5),
        (any().either_port(port).local_ports(port..=port), 3),
        (any().either_port(port).local_ports(port.saturating_add(1)..=u16::MAX).local_ports(0..=0), 0),
        (any().local_ports(port..=port).peer_ports(1..=u16::MAX), 2),
        (any().peer_ports(0..=0).local_ports(port..=port), 1),
        (any().either_port(other).peer_port(other).local_network([127, 0, 0, 1], 32), 1),
    ];
    if let Some(six) = six {
        filters.extend([
            (any().either_port(six).family(AF_INET6), 3),
            (any().either_port(six).family(AF_INET), 0),
            (any().either_port(six).local_address(Ipv6Addr::LOCALHOST), 3),
            (any().either_port(six).local_network(Ipv6Addr::LOCALHOST, 127), 3),
            (any().either_port(six).local_network(Ipv6Addr::from(4), 126), 0),
        ]);
    }
    for (filter, expected) in filters {
        let rows = diag.tcp(&filter).unwrap();
        assert_eq!(rows.len(), expected, "{filter:?}: {:?}", keys(&rows));
        // A file may lack a socket while others come and go.
        eventually(&format!("the files have the sockets of {filter:?}"), || {
            (keys(&rows) == keys(&files.tcp(&filter).unwrap())).then_some(())
        });
        let mut streamed = Vec::new();
        diag.each_tcp(&filter, |row| streamed.push(row)).unwrap();
        assert_eq!(keys(&streamed), keys(&rows));
    }
    drop(clients);
}

#[test]
fn a_filter_that_is_invalid_is_an_error() {
    let mut diag = Diag::netlink().unwrap();
    for filter in [Filter::new().family(sock::AF_UNIX), Filter::new().local_network([127, 0, 0, 1], 33)] {
        assert_eq!(diag.tcp(&filter).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    diag.tcp(&Filter::new().states([TcpState::Listen])).unwrap();
}

#[test]
fn a_socket_that_is_only_bound_is_shown_if_it_is_asked_for() {
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    sock.bind(("127.0.0.1", 0)).unwrap();
    let mut diag = Diag::netlink().unwrap();
    let filter = Filter::new().local_port(port(&sock));
    assert_eq!(diag.tcp(&filter).unwrap(), []);
    let rows = diag.tcp(&filter.states([TcpState::Close])).unwrap();
    assert_eq!((rows.len(), rows[0].state), (1, TcpState::Close), "{rows:?}");
    assert_eq!(diag.of(&sock).unwrap().unwrap().cookie, Some(sock.cookie().unwrap()));
}
