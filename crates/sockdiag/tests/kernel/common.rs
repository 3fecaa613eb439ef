//! Sockets in the states that tests need.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sock::{
    AF_INET, AF_INET6, SHUT_WR, SOCK_DGRAM, SOCK_STREAM, Socket, TCP_DEFER_ACCEPT, TcpState, create_server,
};
use sockdiag::{Diag, Filter, Row};

/// Repeats a check until it returns a value. The kernel handles loopback packets a moment later.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Returns whether this machine has an IPv6 address, and prints it if it has none, as in many
/// containers.
pub(crate) fn has_ipv6() -> bool {
    let bound = Socket::new(AF_INET6, SOCK_DGRAM, 0).and_then(|sock| sock.bind(("::1", 0)));
    if let Err(error) = &bound {
        // libtest does not capture the stream itself. An error of it is ignored.
        let _ = writeln!(io::stderr(), "NOT RUN with IPv6, which this machine does not have: {error}");
    }
    bound.is_ok()
}

pub(crate) fn address(sock: &Socket) -> SocketAddr {
    sock.getsockname().unwrap().to_socket_addr().unwrap()
}

pub(crate) fn port(sock: &Socket) -> u16 {
    address(sock).port()
}

pub(crate) fn client_of(server: &Socket) -> Socket {
    let client = Socket::new(server.family(), SOCK_STREAM, 0).unwrap();
    client.connect(server.getsockname().unwrap()).unwrap();
    client
}

/// A listener, a client and its accepted connection.
pub(crate) fn connected() -> (Socket, Socket, Socket) {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let client = client_of(&server);
    let (connection, _) = server.accept().unwrap();
    (server, client, connection)
}

/// Sends until neither side has room: the peer's window is closed.
pub(crate) fn fill(sock: &Socket) {
    sock.setblocking(false).unwrap();
    let mut idle = Instant::now();
    // The peer's window still grows while it is being filled.
    while idle.elapsed() < Duration::from_millis(50) {
        if sock.send(&[0; 65_536]).is_ok() {
            idle = Instant::now();
        }
    }
}

/// A TCP socket in some state.
pub(crate) struct InState {
    pub(crate) state: TcpState,
    pub(crate) row: Row,
    /// What has to stay open for that.
    _keep: Vec<Socket>,
}

fn in_state(diag: &mut Diag, state: TcpState, sock: &Socket) -> Row {
    eventually(&format!("a socket gets to {state}"), || {
        diag.of(sock).unwrap().filter(|row| row.state == state)
    })
}

/// Makes all eleven.
pub(crate) fn every_state() -> Vec<InState> {
    let mut diag = Diag::netlink().unwrap();
    let mut all = Vec::new();
    let mut push = |state, row, keep| all.push(InState { state, row, _keep: keep });

    let bound = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    bound.bind(("127.0.0.1", 0)).unwrap();
    push(TcpState::Close, in_state(&mut diag, TcpState::Close, &bound), vec![bound]);

    let (server, client, connection) = connected();
    push(TcpState::Listen, in_state(&mut diag, TcpState::Listen, &server), vec![server]);
    push(
        TcpState::Established,
        in_state(&mut diag, TcpState::Established, &client),
        vec![client, connection],
    );

    // A SYN is dropped where the accept queue is full.
    let (full, mut clients) = full_listener(0);
    let late = clients.pop().unwrap();
    let row = in_state(&mut diag, TcpState::SynSent, &late);
    clients.extend([full, late]);
    push(TcpState::SynSent, row, clients);

    // With TCP_DEFER_ACCEPT the handshake ends with the first data.
    let server = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    server.bind(("127.0.0.1", 0)).unwrap();
    server.setsockopt(sock::IPPROTO_TCP, TCP_DEFER_ACCEPT, 60).unwrap();
    server.listen(5).unwrap();
    let client = client_of(&server);
    let filter = Filter::new().local_port(port(&server)).states([TcpState::SynRecv]);
    let row = eventually("a connection gets to SYN-RECV", || diag.tcp(&filter).unwrap().pop());
    push(TcpState::SynRecv, row, vec![server, client]);

    let (_, client, connection) = connected();
    client.shutdown(SHUT_WR).unwrap();
    let row = in_state(&mut diag, TcpState::FinWait2, &client);
    push(TcpState::CloseWait, in_state(&mut diag, TcpState::CloseWait, &connection), vec![]);
    push(TcpState::FinWait2, row, vec![client, connection]);

    // A FIN stays behind the data that the peer has no room for.
    let (_, client, connection) = connected();
    fill(&client);
    client.shutdown(SHUT_WR).unwrap();
    push(TcpState::FinWait1, in_state(&mut diag, TcpState::FinWait1, &client), vec![client, connection]);

    let (_, client, connection) = connected();
    fill(&client);
    client.shutdown(SHUT_WR).unwrap();
    connection.shutdown(SHUT_WR).unwrap();
    push(TcpState::Closing, in_state(&mut diag, TcpState::Closing, &client), vec![client, connection]);

    let (_, client, connection) = connected();
    fill(&connection);
    client.shutdown(SHUT_WR).unwrap();
    in_state(&mut diag, TcpState::CloseWait, &connection);
    connection.shutdown(SHUT_WR).unwrap();
    push(TcpState::LastAck, in_state(&mut diag, TcpState::LastAck, &connection), vec![client, connection]);

    let (_, client, connection) = connected();
    // It keeps the cookie that it has before.
    client.cookie().unwrap();
    client.shutdown(SHUT_WR).unwrap();
    in_state(&mut diag, TcpState::CloseWait, &connection);
    drop(connection);
    push(TcpState::TimeWait, in_state(&mut diag, TcpState::TimeWait, &client), vec![client]);
    all
}

/// A listener whose queue is full, and clients: one more than it has room for.
pub(crate) fn full_listener(backlog: i32) -> (Socket, Vec<Socket>) {
    let server = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    server.bind(("127.0.0.1", 0)).unwrap();
    server.listen(backlog).unwrap();
    let mut clients = Vec::new();
    // Linux has room for one more than the backlog.
    for number in 0..backlog + 2 {
        let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        client.setblocking(false).unwrap();
        assert!(client.connect(address(&server)).is_err(), "it is in progress");
        if number <= backlog {
            eventually("a client is connected", || client.getpeername().ok());
        }
        clients.push(client);
    }
    (server, clients)
}
