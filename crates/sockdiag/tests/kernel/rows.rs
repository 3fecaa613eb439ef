//! The fields of TCP and UDP rows.

use std::time::Duration;

use sock::{
    AF_INET, AF_INET6, IPPROTO_IPV6, IPPROTO_TCP, IPV6_V6ONLY, SHUT_RD, SHUT_WR, SO_BINDTODEVICE,
    SO_KEEPALIVE, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, Socket, TCP_CONGESTION, TCP_KEEPIDLE, TcpState,
    create_connection, create_server,
};
use sockdiag::{Diag, Filter, Protocol, SocketId, TimerKind};

use crate::common::{address, client_of, connected, eventually, fill, full_listener, has_ipv6, port};

#[test]
fn unread_bytes_are_counted_and_the_fin_is_one() {
    let (_server, client, connection) = connected();
    let mut diag = Diag::netlink().unwrap();
    client.sendall(b"question").unwrap();
    eventually("the bytes arrive", || diag.of(&connection).unwrap().filter(|row| row.recv_queue == 8));
    client.shutdown(SHUT_WR).unwrap();
    eventually("the FIN arrives", || diag.of(&connection).unwrap().filter(|row| row.recv_queue == 9));
    assert_eq!(connection.recv_queue().unwrap(), 8);
    let memory = diag.of(&connection).unwrap().unwrap().memory.unwrap();
    assert!(memory.rmem_alloc >= 8 && memory.rcvbuf > memory.rmem_alloc, "{memory:?}");
    assert_eq!(connection.recv(100).unwrap(), b"question");
    assert_eq!(diag.of(&connection).unwrap().unwrap().recv_queue, 0);

    fill(&connection);
    let row = diag.of(&connection).unwrap().unwrap();
    assert_eq!(row.send_queue as usize, connection.send_queue().unwrap());
    assert!(row.send_queue > 1000 && row.memory.unwrap().wmem_queued >= row.send_queue, "{row:?}");
}

#[test]
fn a_full_accept_queue_is_shown_with_its_limit() {
    let (server, clients) = full_listener(1);
    let mut diag = Diag::netlink().unwrap();
    let row = diag.of(&server).unwrap().unwrap();
    let queue = row.accept_queue.unwrap();
    // Linux has room for one more than the backlog, and the third client waits in SYN-SENT.
    assert_eq!((queue.waiting, queue.limit), (2, Some(1)));
    assert_eq!((row.recv_queue, row.send_queue), (0, 0));
    assert_eq!(diag.of(&clients[2]).unwrap().unwrap().state, TcpState::SynSent);

    let files = Diag::procfs().unwrap().of(&server).unwrap().unwrap();
    let queue = files.accept_queue.unwrap();
    assert_eq!((queue.waiting, queue.limit), (2, None));

    server.accept().unwrap();
    assert_eq!(diag.of(&server).unwrap().unwrap().accept_queue.unwrap().waiting, 1);
}

#[test]
fn a_connection_keeps_its_cookie_when_it_is_accepted() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let client = client_of(&server);
    let mut diag = Diag::netlink().unwrap();
    let id = SocketId::new(Protocol::Tcp, address(&server), address(&client));
    let before = eventually("it is connected", || diag.one(&id).unwrap());
    assert_eq!((before.inode, before.state), (0, TcpState::Established));
    let (connection, _) = server.accept().unwrap();
    let after = diag.of(&connection).unwrap().unwrap();
    assert_eq!(after.cookie, before.cookie);
    assert!(after.inode > 0);
    assert_eq!(after.cookie, Some(connection.cookie().unwrap()));
    assert_eq!(after.uid, Some(rustix::process::geteuid().as_raw()));

    // Another socket's cookie is no answer.
    let other = SocketId { cookie: Some(client.cookie().unwrap()), ..after.id() };
    assert_eq!(diag.one(&other).unwrap(), None);
}

#[test]
fn a_keep_alive_timer_is_shown() {
    let (_server, client, _connection) = connected();
    client.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 100).unwrap();
    client.setsockopt(SOL_SOCKET, SO_KEEPALIVE, true).unwrap();
    for mut diag in [Diag::netlink().unwrap(), Diag::procfs().unwrap()] {
        let timer = diag.of(&client).unwrap().unwrap().timer.unwrap();
        assert_eq!((timer.kind, timer.retransmits), (TimerKind::KeepAlive, 0));
        assert!(
            timer.left > Duration::from_secs(80) && timer.left <= Duration::from_secs(101),
            "{timer:?}"
        );
    }
}

#[test]
fn the_shutdown_state_is_shown() {
    let (_server, client, connection) = connected();
    let mut diag = Diag::netlink().unwrap();
    let mut shutdown = |sock: &Socket| {
        let state = diag.of(sock).unwrap().unwrap().shutdown.unwrap();
        (state.recv, state.send)
    };
    assert_eq!(shutdown(&client), (false, false));
    client.shutdown(SHUT_WR).unwrap();
    assert_eq!(shutdown(&client), (false, true));
    eventually("the FIN arrives", || (shutdown(&connection) == (true, false)).then_some(()));
    client.shutdown(SHUT_RD).unwrap();
    assert_eq!(shutdown(&client), (true, true));
}

#[test]
fn tcp_info_and_congestion_control_are_those_of_the_socket() {
    let (_server, client, _connection) = connected();
    client.setsockopt(IPPROTO_TCP, TCP_CONGESTION, b"reno").unwrap();
    let mut diag = Diag::netlink().unwrap();
    let row = diag.of(&client).unwrap().unwrap();
    assert_eq!(row.congestion.as_deref(), Some("reno"));
    let (info, own) = (row.info.unwrap(), client.tcp_info().unwrap());
    assert_eq!((info.state, info.snd_mss, info.snd_cwnd), (own.state, own.snd_mss, own.snd_cwnd));
    assert_eq!((info.rtt, info.rto, info.bytes_acked), (own.rtt, own.rto, own.bytes_acked));

    // The port alone would also match a connection of another test that is in TIME-WAIT.
    let filter = Filter::new().local_port(port(&client)).states([row.state]).details(false);
    let brief = diag.tcp(&filter).unwrap().remove(0);
    assert_eq!((brief.info, brief.congestion, brief.memory), (None, None, None));
    assert_eq!((brief.cookie, brief.inode), (row.cookie, row.inode));
}

#[test]
fn ipv6_and_its_flag_are_shown() {
    if !has_ipv6() {
        return;
    }
    let mut diag = Diag::netlink().unwrap();
    for v6only in [true, false] {
        let server = Socket::new(AF_INET6, SOCK_STREAM, 0).unwrap();
        server.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, v6only).unwrap();
        server.bind(("::", 0)).unwrap();
        server.listen(5).unwrap();
        let row = diag.of(&server).unwrap().unwrap();
        assert_eq!((row.family, row.v6only, row.local), (AF_INET6, Some(v6only), address(&server)));
        if !v6only {
            // A client of IPv4 at a listener of both.
            let client = create_connection(("127.0.0.1", port(&server))).unwrap();
            let (connection, _) = server.accept().unwrap();
            let row = diag.of(&connection).unwrap().unwrap();
            assert_eq!(row.peer.to_string(), format!("[::ffff:127.0.0.1]:{}", port(&client)));
            let by_address = Filter::new().peer_address([127, 0, 0, 1]).local_port(port(&server));
            assert_eq!(diag.tcp(&by_address).unwrap()[0].cookie, row.cookie);
            let client_row = diag.of(&client).unwrap().unwrap();
            assert_eq!((client_row.family, client_row.v6only), (AF_INET, None));
        }
    }
}

#[test]
fn a_bound_interface_is_shown_and_selected() {
    let lo = sock::if_nametoindex("lo").unwrap();
    let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    sock.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b"lo\0").unwrap();
    sock.bind(("127.0.0.1", 0)).unwrap();
    let mut diag = Diag::netlink().unwrap();
    assert_eq!(diag.of(&sock).unwrap().unwrap().interface, Some(lo));
    let at = |interface| Filter::new().local_port(port(&sock)).interface(interface);
    assert_eq!(diag.udp(&at(lo)).unwrap().len(), 1);
    assert_eq!(diag.udp(&at(lo + 1)).unwrap().len(), 0);
    assert_eq!(Diag::procfs().unwrap().udp(&at(lo)).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn udp_rows_have_state_queue_and_drops() {
    let mut diag = Diag::netlink().unwrap();
    let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    assert_eq!(diag.of(&receiver).unwrap(), None);
    receiver.setsockopt(SOL_SOCKET, sock::SO_RCVBUF, 1).unwrap();
    receiver.bind(("127.0.0.1", 0)).unwrap();
    let sender = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    sender.connect(address(&receiver)).unwrap();
    for _ in 0..10 {
        sender.send(&[0; 500]).unwrap();
    }
    let row = diag.of(&receiver).unwrap().unwrap();
    assert_eq!((row.protocol, row.state, row.timer), (Protocol::Udp, TcpState::Close, None));
    assert!(row.recv_queue >= 500, "{row:?}");
    assert!(row.memory.unwrap().drops > Some(0), "{row:?}");
    assert_eq!(row.cookie, Some(receiver.cookie().unwrap()));

    let row = diag.of(&sender).unwrap().unwrap();
    assert_eq!((row.state, row.peer), (TcpState::Established, address(&receiver)));
    assert_eq!(row.cookie, Some(sender.cookie().unwrap()));
    assert_eq!(diag.one(&row.id()).unwrap().unwrap().inode, row.inode);
}

#[test]
fn what_is_not_tcp_or_udp_is_refused() {
    let mut diag = Diag::netlink().unwrap();
    let (unix, _) = sock::socketpair().unwrap();
    let error = diag.of(&unix).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("not a TCP or UDP socket"), "{error}");
    let mixed = SocketId::new(Protocol::Tcp, "127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
    assert_eq!(diag.one(&mixed).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    let nothing =
        SocketId::new(Protocol::Tcp, "127.0.0.1:1".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
    assert_eq!(diag.one(&nothing).unwrap(), None);
}
