//! Sockets that are destroyed, and the notices of it.

use std::io;
use std::time::Duration;

use sock::{AF_INET, SOCK_DGRAM, Socket, TcpState};
use sockdiag::{Deaths, Diag, Protocol, SocketId};

use crate::common::{connected, eventually};

/// Whether the process has `CAP_NET_ADMIN`, number 12.
fn may_administer() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & 1 << 12 != 0
}

#[test]
fn a_socket_is_destroyed_or_the_missing_capability_is_named() {
    let mut diag = Diag::netlink().unwrap();
    let (_server, client, connection) = connected();
    let row = diag.of(&client).unwrap().unwrap();
    let result = diag.destroy(&row.id());
    if !may_administer() {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("without CAP_NET_ADMIN"), "{error}");
        assert_eq!(diag.of(&client).unwrap().unwrap().state, TcpState::Established);
        return;
    }
    result.unwrap();
    assert_eq!(client.recv(1).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    eventually("the peer is reset", || diag.of(&connection).unwrap().is_none().then_some(()));
    let error = diag.destroy(&row.id()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("does not exist"), "{error}");

    let udp = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    udp.bind(("127.0.0.1", 0)).unwrap();
    let id = diag.of(&udp).unwrap().unwrap().id();
    diag.destroy(&id).unwrap();
    assert_eq!(udp.recv(1).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

#[test]
fn files_destroy_nothing() {
    let address = "127.0.0.1:1".parse().unwrap();
    let error =
        Diag::procfs().unwrap().destroy(&SocketId::new(Protocol::Tcp, address, address)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn the_end_of_a_socket_is_reported_with_its_last_row() {
    let mut deaths = match Deaths::new() {
        Ok(deaths) => deaths,
        // Kernels differ; this one has to say why.
        Err(error) => {
            assert!(!may_administer(), "{error}");
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
            eprintln!("NOT RUN: {error}");
            return;
        }
    };
    deaths.set_timeout(Some(Duration::from_secs(20))).unwrap();
    let (server, client, connection) = connected();
    client.sendall(b"twelve bytes").unwrap();
    connection.recv(100).unwrap();
    let udp = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    udp.bind(("127.0.0.1", 0)).unwrap();
    let mut expected = vec![];
    for sock in [server, connection, client, udp] {
        expected.push((
            sock.cookie().unwrap(),
            sock.getsockname().unwrap().to_socket_addr().unwrap(),
            sock.kind(),
        ));
        drop(sock);
    }
    let mut last = Vec::new();
    while last.len() < expected.len() {
        let row = match deaths.next() {
            Ok(row) => row,
            // Other tests close thousands of sockets meanwhile.
            Err(error) if sock::errno(&error).and_then(sock::errno_name) == Some("ENOBUFS") => {
                eprintln!("NOT RUN: notices were lost: {error}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        if expected.iter().any(|(cookie, ..)| Some(*cookie) == row.cookie) {
            last.push(row);
        }
    }
    for (cookie, local, kind) in expected {
        let row = last.iter().find(|row| row.cookie == Some(cookie)).unwrap();
        assert_eq!(row.protocol == Protocol::Udp, kind == SOCK_DGRAM, "{row:?}");
        assert_eq!(row.local, local);
        assert_eq!(row.info.is_some(), row.protocol == Protocol::Tcp, "{row:?}");
    }
    let counted =
        last.iter().filter_map(|row| row.info.as_ref()).filter(|info| info.bytes_sent == Some(12));
    assert_eq!(counted.count(), 1);
}

#[test]
fn a_wait_for_notices_ends() {
    let Ok(mut deaths) = Deaths::new() else { return };
    deaths.set_timeout(Some(Duration::ZERO)).unwrap();
    let end = loop {
        match deaths.next() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(end.kind(), io::ErrorKind::WouldBlock) || sock::errno(&end).is_some(), "{end}");
}
