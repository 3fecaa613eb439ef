//! What is sent arrives, once and as it was, and what the flags, the options and
//! the ends of a socket do to it is what the system says: nothing is read or
//! shown that was not received.
//!
//! Modes are in `modes.rs`, addresses in `bad_addresses.rs`, files in `makefile.rs`.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::hint;
use std::io::{ErrorKind, Write, stderr};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use sock::{
    AF_INET, AF_INET6, AF_UNIX, Address, ConnectError, ConnectionOptions, Hints, IPPROTO_IPV6, IPPROTO_TCP,
    IPV6_V6ONLY, MSG_DONTWAIT, MSG_MORE, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SHUT_RD, SHUT_RDWR, SHUT_WR,
    SO_KEEPALIVE, SO_LINGER, SO_PEERCRED, SO_RCVBUF, SO_REUSEADDR, SO_REUSEPORT, SO_TYPE, SOCK_DGRAM,
    SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET, ServerOptions, Socket, TCP_INFO, TCP_NODELAY,
    create_connection, create_connection_with, create_server, create_server_with, errno, errno_name,
    getaddrinfo, getaddrinfo_with, has_dualstack_ipv6, socketpair, socketpair_with,
};

/// When a call that ought to end is given up.
const LIMIT: Duration = Duration::from_secs(30);

fn socket(family: sock::AddressFamily, kind: sock::SocketKind) -> Socket {
    let sock = Socket::new(family, kind, 0).unwrap();
    sock.settimeout(LIMIT).unwrap();
    sock
}

fn udp() -> (Socket, Address) {
    let sock = socket(AF_INET, SOCK_DGRAM);
    sock.bind(("127.0.0.1", 0)).unwrap();
    let address = sock.getsockname().unwrap();
    (sock, address)
}

fn limited((one, other): (Socket, Socket)) -> (Socket, Socket) {
    one.settimeout(LIMIT).unwrap();
    other.settimeout(LIMIT).unwrap();
    (one, other)
}

fn stream_pair() -> (Socket, Socket) {
    limited(socketpair().unwrap())
}

fn datagram_pair() -> (Socket, Socket) {
    limited(socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap())
}

fn tcp_pair() -> (Socket, Socket) {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let client = socket(AF_INET, SOCK_STREAM);
    client.connect(server.getsockname().unwrap()).unwrap();
    limited((client, server.accept().unwrap().0))
}

#[track_caller]
fn assert_errno<T: std::fmt::Debug>(outcome: std::io::Result<T>, name: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(errno(&error).and_then(errno_name), Some(name), "{error}");
}

/// Leaves freed memory behind, of the size that is allocated next, full of this byte.
fn litter(size: usize) -> u8 {
    drop(hint::black_box(vec![0xAB; size]));
    0xAB
}

#[test]
fn peek_leaves_the_data_where_it_is() {
    for (ours, theirs) in [stream_pair(), datagram_pair(), tcp_pair()] {
        theirs.send(b"hello").unwrap();
        let buffer = &mut [0; 100];
        assert_eq!(ours.recv_with_flags(2, MSG_PEEK).unwrap(), b"he");
        assert_eq!(ours.recv_with_flags(100, MSG_PEEK).unwrap(), b"hello");
        assert_eq!(ours.recv_into_with_flags(buffer, MSG_PEEK).unwrap(), 5);
        assert_eq!(ours.recvfrom_with_flags(100, MSG_PEEK).unwrap().0, b"hello");
        assert_eq!(ours.recvfrom_into_with_flags(buffer, MSG_PEEK).unwrap().0, 5);
        assert_eq!(ours.recv(100).unwrap(), b"hello");
        ours.setblocking(false).unwrap();
        assert_errno(ours.recv_with_flags(1, MSG_PEEK), "EAGAIN");
    }
}

/// With `MSG_MORE` a datagram goes out with the next piece: udp(7).
#[test]
fn msg_more_reaches_the_system_from_each_send() {
    let (ours, theirs) = udp_pair();
    let address = theirs.getsockname().unwrap();
    ours.send_with_flags(b"one, ", MSG_MORE).unwrap();
    ours.sendall_with_flags(b"two, ", MSG_MORE).unwrap();
    ours.sendto_with_flags(b"three, ", MSG_MORE, &address).unwrap();
    ours.send(b"four").unwrap();
    assert_eq!(theirs.recv(100).unwrap(), b"one, two, three, four");
}

#[test]
fn a_datagram_that_is_longer_loses_its_end() {
    for (ours, theirs) in [datagram_pair(), limited(socketpair_with(AF_UNIX, SOCK_SEQPACKET, 0).unwrap())] {
        theirs.send(b"long datagram").unwrap();
        theirs.send(b"next").unwrap();
        assert_eq!(ours.recv(4).unwrap(), b"long");
        assert_eq!(ours.recv(100).unwrap(), b"next");
    }
}

/// `MSG_TRUNC` returns the real length of a datagram, which is not how much is there.
#[test]
fn msg_trunc_shows_of_a_datagram_no_more_than_was_received() {
    let (ours, theirs) = udp_pair();
    for _ in 0..4 {
        theirs.send(b"long datagram").unwrap();
    }
    assert_eq!(ours.recv_with_flags(4, MSG_TRUNC).unwrap(), b"long");
    let (data, address) = ours.recvfrom_with_flags(4, MSG_TRUNC).unwrap();
    assert_eq!((data, address), (b"long".to_vec(), theirs.getsockname().unwrap()));
    let mut buffer = *b"........";
    assert_eq!(ours.recv_into_with_flags(&mut buffer[..4], MSG_TRUNC).unwrap(), 13);
    assert_eq!(&buffer, b"long....");
    let mut buffer = *b"........";
    assert_eq!(ours.recvfrom_into_with_flags(&mut buffer[..4], MSG_TRUNC).unwrap().0, 13);
    assert_eq!(&buffer, b"long....");
}

/// On TCP the flag throws the bytes away and returns how many: the buffer is
/// never written to, and its previous contents must not be returned.
#[test]
fn msg_trunc_shows_of_a_stream_no_memory_that_was_not_received() {
    const SIZE: usize = 4096;
    let (ours, theirs) = tcp_pair();
    for flags in [MSG_TRUNC, MSG_TRUNC | MSG_PEEK] {
        for receive in [
            |sock: &Socket, flags| sock.recv_with_flags(SIZE, flags).unwrap(),
            |sock: &Socket, flags| sock.recvfrom_with_flags(SIZE, flags).unwrap().0,
        ] {
            theirs.sendall(&[b'x'; SIZE]).unwrap();
            let litter = litter(SIZE);
            let shown = receive(&ours, flags);
            assert!(!shown.contains(&litter), "{} bytes of freed memory", shown.len());
        }
    }
}

/// Two datagram sockets over the loopback, connected to each other.
fn udp_pair() -> (Socket, Socket) {
    let ((one, address), (other, other_address)) = (udp(), udp());
    one.connect(other_address).unwrap();
    other.connect(address).unwrap();
    (one, other)
}

#[test]
fn a_datagram_without_bytes_is_one() {
    let (ours, address) = udp();
    let (theirs, their_address) = udp();
    for data in [&b""[..], b"", b"end"] {
        assert_eq!(theirs.sendto(data, &address).unwrap(), data.len());
    }
    assert_eq!(ours.recvfrom(100).unwrap(), (Vec::new(), their_address.clone()));
    assert_eq!(ours.recv(100).unwrap(), b"");
    assert_eq!(ours.recvfrom_into(&mut [0; 10]).unwrap(), (3, their_address));
}

#[test]
fn a_receive_of_nothing_takes_nothing() {
    for (ours, theirs) in [stream_pair(), datagram_pair()] {
        assert_eq!(ours.recv(0).unwrap(), b"");
        assert_eq!(ours.recv_into(&mut []).unwrap(), 0);
        theirs.send(b"hello").unwrap();
        assert_eq!(ours.recv(0).unwrap(), b"");
        assert_eq!(ours.recv_into(&mut []).unwrap(), 0);
        assert_eq!(ours.recv(100).unwrap(), b"hello");
    }
}

#[test]
fn recv_into_writes_only_the_received_bytes() {
    let (ours, theirs) = stream_pair();
    theirs.sendall(b"hello").unwrap();
    let mut buffer = *b"........";
    assert_eq!(ours.recv_into(&mut buffer).unwrap(), 5);
    assert_eq!(&buffer, b"hello...");
}

#[test]
fn more_than_memory_holds_is_an_error_and_no_panic() {
    let (ours, theirs) = stream_pair();
    theirs.sendall(b"hello").unwrap();
    for bufsize in [usize::MAX, isize::MAX as usize] {
        assert_eq!(ours.recv(bufsize).unwrap_err().kind(), ErrorKind::OutOfMemory);
        assert_eq!(ours.recvfrom(bufsize).unwrap_err().kind(), ErrorKind::OutOfMemory);
    }
    assert_eq!(ours.recv(100).unwrap(), b"hello");
}

#[test]
fn msg_waitall_waits_for_the_whole() {
    let (ours, theirs) = stream_pair();
    ours.settimeout(None).unwrap();
    let sender = thread::spawn(move || {
        for _ in 0..1000 {
            theirs.sendall(b"0123456789").unwrap();
        }
    });
    assert_eq!(ours.recv_with_flags(10_000, MSG_WAITALL).unwrap().len(), 10_000);
    sender.join().unwrap();
}

#[test]
fn msg_dontwait_does_not_wait_in_blocking_mode() {
    let (ours, _theirs) = stream_pair();
    ours.settimeout(None).unwrap();
    assert_errno(ours.recv_with_flags(1, MSG_DONTWAIT), "EAGAIN");
    assert_errno(ours.recvfrom_into_nowait(&mut [0]), "EAGAIN");
}

#[test]
fn recvfrom_into_nowait_waits_in_no_mode() {
    let (ours, address) = udp();
    let (theirs, their_address) = udp();
    for mode in [None, Some(Duration::ZERO), Some(LIMIT)] {
        ours.settimeout(mode).unwrap();
        assert_errno(ours.recvfrom_into_nowait(&mut [0; 100]), "EAGAIN");
        theirs.sendto(b"hello", &address).unwrap();
        sock::poll(&mut [sock::Poll::new(&ours, sock::POLLIN)], Some(LIMIT)).unwrap();
        let mut buffer = [0; 100];
        assert_eq!(ours.recvfrom_into_nowait(&mut buffer).unwrap(), (5, their_address.clone()));
        assert_eq!(&buffer[..5], b"hello");
        assert_eq!(ours.gettimeout(), mode);
    }
}

#[test]
fn a_datagram_has_its_senders_address_and_can_be_answered() {
    let (server, address) = udp();
    let client = socket(AF_INET, SOCK_DGRAM);
    assert_eq!(client.sendto(b"ping", ("localhost", address.port().unwrap())).unwrap(), 4);
    let (data, from) = server.recvfrom(100).unwrap();
    assert_eq!((&data[..], from.ip()), (&b"ping"[..], Some(IpAddr::V4(Ipv4Addr::LOCALHOST))));
    server.sendto(b"pong", &from).unwrap();
    assert_eq!(client.recvfrom(100).unwrap(), (b"pong".to_vec(), address));
}

#[test]
fn a_connected_datagram_socket_receives_only_from_its_peer() {
    let ((ours, address), (peer, peer_address), (stranger, _)) = (udp(), udp(), udp());
    assert_errno(ours.send(b"x"), "EDESTADDRREQ");
    assert_errno(ours.getpeername(), "ENOTCONN");
    ours.connect(&peer_address).unwrap();
    assert_eq!(ours.getpeername().unwrap(), peer_address);
    ours.send(b"to the peer").unwrap();
    assert_eq!(peer.recvfrom(100).unwrap(), (b"to the peer".to_vec(), address.clone()));
    stranger.sendto(b"from a stranger", &address).unwrap();
    peer.sendto(b"from the peer", &address).unwrap();
    assert_eq!(ours.recv(100).unwrap(), b"from the peer");
    assert_errno(ours.recvfrom_into_nowait(&mut [0; 100]), "EAGAIN");
    // It may be connected again, to another.
    ours.connect(stranger.getsockname().unwrap()).unwrap();
    stranger.sendto(b"no stranger now", &address).unwrap();
    assert_eq!(ours.recv(100).unwrap(), b"no stranger now");
}

#[test]
fn a_datagram_to_an_unused_port_is_refused() {
    let (ours, _) = udp();
    // An address of this test's own, so that no other test uses the port in between.
    let gone = socket(AF_INET, SOCK_DGRAM);
    gone.bind(("127.0.0.78", 0)).unwrap();
    ours.connect(gone.getsockname().unwrap()).unwrap();
    drop(gone);
    ours.send(b"anyone?").unwrap();
    let error = ours.recv(100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

#[test]
fn a_datagram_that_is_too_long_is_refused() {
    let (ours, _) = udp();
    let (theirs, address) = udp();
    assert_errno(ours.sendto(&[0; 70_000], &address), "EMSGSIZE");
    ours.sendto(b"fits", &address).unwrap();
    assert_eq!(theirs.recv(100).unwrap(), b"fits");
}

#[test]
fn a_unix_datagram_is_from_a_name_or_from_none() {
    let server = socket(AF_UNIX, SOCK_DGRAM);
    server.bind("").unwrap();
    let client = socket(AF_UNIX, SOCK_DGRAM);
    client.sendto(b"anonymous", server.getsockname().unwrap()).unwrap();
    assert_eq!(server.recvfrom(100).unwrap(), (b"anonymous".to_vec(), Address::None));
    client.bind("").unwrap();
    client.sendto(b"named", server.getsockname().unwrap()).unwrap();
    assert_eq!(server.recvfrom(100).unwrap(), (b"named".to_vec(), client.getsockname().unwrap()));
}

#[test]
fn recvfrom_on_a_stream_returns_no_address() {
    let (ours, theirs) = tcp_pair();
    theirs.sendall(b"hello").unwrap();
    assert_eq!(ours.recvfrom(100).unwrap(), (b"hello".to_vec(), Address::None));
}

#[test]
fn pairs_of_each_kind_pass_data_both_ways() {
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let (one, other) = limited(socketpair_with(AF_UNIX, kind, 0).unwrap());
        assert_eq!((one.family(), one.kind(), one.proto()), (AF_UNIX, kind, 0));
        assert_eq!(one.getsockopt(SOL_SOCKET, SO_TYPE).unwrap(), kind.as_raw());
        one.sendall(b"ping").unwrap();
        assert_eq!(other.recv(100).unwrap(), b"ping");
        other.sendall(b"pong").unwrap();
        assert_eq!(one.recv(100).unwrap(), b"pong");
    }
    assert_errno(socketpair_with(AF_INET, SOCK_STREAM, 0), "EOPNOTSUPP");
}

#[test]
fn shut_wr_ends_the_peers_reading_and_nothing_else() {
    for (ours, theirs) in [stream_pair(), tcp_pair()] {
        ours.sendall(b"last").unwrap();
        ours.shutdown(SHUT_WR).unwrap();
        assert_eq!(ours.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(theirs.recv(100).unwrap(), b"last");
        assert_eq!(theirs.recv(100).unwrap(), b"");
        theirs.sendall(b"answer").unwrap();
        assert_eq!(ours.recv(100).unwrap(), b"answer");
    }
}

#[test]
fn shut_rd_ends_ones_own_reading_and_nothing_else() {
    for (ours, theirs) in [stream_pair(), tcp_pair()] {
        ours.shutdown(SHUT_RD).unwrap();
        assert_eq!(ours.recv(100).unwrap(), b"");
        ours.sendall(b"still").unwrap();
        assert_eq!(theirs.recv(100).unwrap(), b"still");
    }
}

#[test]
fn shut_rdwr_ends_both() {
    for (ours, theirs) in [stream_pair(), tcp_pair()] {
        ours.shutdown(SHUT_RDWR).unwrap();
        assert_eq!(ours.recv(100).unwrap(), b"");
        assert_eq!(theirs.recv(100).unwrap(), b"");
        assert_eq!(ours.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

#[test]
fn shutdown_of_an_unconnected_socket_is_enotconn() {
    for how in [SHUT_RD, SHUT_WR, SHUT_RDWR] {
        assert_errno(socket(AF_INET, SOCK_STREAM).shutdown(how), "ENOTCONN");
    }
}

#[test]
fn a_receive_that_waits_in_another_thread_ends_with_shut_rd() {
    for mode in [None, Some(LIMIT)] {
        let (ours, _theirs) = stream_pair();
        ours.settimeout(mode).unwrap();
        thread::scope(|scope| {
            let receiver = scope.spawn(|| ours.recv(100));
            ours.shutdown(SHUT_RD).unwrap();
            assert_eq!(receiver.join().unwrap().unwrap(), b"");
        });
    }
}

#[test]
fn one_thread_sends_while_another_receives_on_one_socket() {
    const SIZE: usize = 4 << 20;
    let data: Vec<u8> = (0..SIZE).map(|index| (index * 31 % 251) as u8).collect();
    for (ours, theirs) in [stream_pair(), tcp_pair()] {
        thread::scope(|scope| {
            for (sock, what) in [(&ours, "here"), (&theirs, "there")] {
                scope.spawn(|| sock.sendall(&data).unwrap());
                let data = &data;
                scope.spawn(move || {
                    let mut received = Vec::with_capacity(SIZE);
                    while received.len() < SIZE {
                        received.extend(sock.recv(100_000).unwrap());
                    }
                    assert!(received == *data, "{what}");
                });
            }
        });
    }
}

#[test]
fn options_are_ints_bools_and_bytes() {
    let sock = socket(AF_INET, SOCK_STREAM);
    for (level, option) in [(SOL_SOCKET, SO_KEEPALIVE), (IPPROTO_TCP, TCP_NODELAY)] {
        assert_eq!(sock.getsockopt(level, option).unwrap(), 0);
        sock.setsockopt(level, option, true).unwrap();
        assert_eq!(sock.getsockopt(level, option).unwrap(), 1);
        sock.setsockopt(level, option, 0).unwrap();
        assert_eq!(sock.getsockopt(level, option).unwrap(), 0);
        sock.setsockopt(level, option, &1_i32.to_ne_bytes()).unwrap();
        assert_eq!(sock.getsockopt_bytes(level, option, 4).unwrap(), 1_i32.to_ne_bytes());
    }
    // Linux doubles it, for its own book-keeping: socket(7).
    sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 10_000).unwrap();
    assert_eq!(sock.getsockopt(SOL_SOCKET, SO_RCVBUF).unwrap(), 20_000);
}

#[test]
fn a_structure_goes_in_and_comes_out_as_bytes() {
    let sock = socket(AF_INET, SOCK_STREAM);
    let linger = [1_i32.to_ne_bytes(), 7_i32.to_ne_bytes()].concat();
    sock.setsockopt(SOL_SOCKET, SO_LINGER, &*linger).unwrap();
    assert_eq!(sock.getsockopt_bytes(SOL_SOCKET, SO_LINGER, 8).unwrap(), linger);
    assert_eq!(sock.getsockopt_bytes(SOL_SOCKET, SO_LINGER, 1024).unwrap(), linger, "its own length");
    assert_errno(sock.setsockopt(SOL_SOCKET, SO_LINGER, &[1, 0, 0, 0]), "EINVAL");
}

#[test]
fn getsockopt_bytes_returns_at_most_the_requested_length() {
    let (ours, _theirs) = tcp_pair();
    assert_eq!(ours.getsockopt_bytes(SOL_SOCKET, SO_TYPE, 1).unwrap(), [SOCK_STREAM.as_raw() as u8]);
    assert_eq!(ours.getsockopt_bytes(SOL_SOCKET, SO_TYPE, 100).unwrap().len(), 4);
    let info = ours.getsockopt_bytes(IPPROTO_TCP, TCP_INFO, 1024).unwrap();
    assert_eq!(info[0], 1, "TCP_ESTABLISHED");
    assert!((100..1024).contains(&info.len()), "{}", info.len());
    let (ours, _theirs) = stream_pair();
    let credentials = ours.getsockopt_bytes(SOL_SOCKET, SO_PEERCRED, 12).unwrap();
    assert_eq!(credentials[..4], process::id().to_ne_bytes());
}

#[test]
fn an_option_has_1_to_1024_bytes() {
    let sock = socket(AF_INET, SOCK_STREAM);
    for buflen in [0, 1025, usize::MAX] {
        let error = sock.getsockopt_bytes(SOL_SOCKET, SO_KEEPALIVE, buflen).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), format!("getsockopt buflen must be 1-1024, not {buflen}"));
    }
}

#[test]
fn an_option_that_is_not_there_is_enoprotoopt() {
    let sock = socket(AF_INET, SOCK_STREAM);
    assert_errno(sock.getsockopt(SOL_SOCKET, 9999), "ENOPROTOOPT");
    assert_errno(sock.getsockopt_bytes(SOL_SOCKET, 9999, 4), "ENOPROTOOPT");
    assert_errno(sock.setsockopt(SOL_SOCKET, 9999, 1), "ENOPROTOOPT");
}

#[test]
fn a_socket_goes_through_its_descriptor_and_is_the_same() {
    let (ours, theirs) = stream_pair();
    let fd = ours.fileno();
    let owned = ours.detach();
    assert_eq!(owned.as_raw_fd(), fd);
    theirs.sendall(b"meanwhile").unwrap();
    let ours = Socket::try_from(owned).unwrap();
    assert_eq!((ours.fileno(), ours.family(), ours.kind()), (fd, AF_UNIX, SOCK_STREAM));
    ours.settimeout(LIMIT).unwrap();
    assert_eq!(ours.recv(100).unwrap(), b"meanwhile");

    for (family, kind, proto) in
        [(AF_INET, SOCK_STREAM, 6), (AF_INET6, SOCK_DGRAM, 17), (AF_UNIX, SOCK_SEQPACKET, 0)]
    {
        let adopted = Socket::try_from(OwnedFd::from(socket(family, kind))).unwrap();
        assert_eq!((adopted.family(), adopted.kind(), adopted.proto()), (family, kind, proto));
    }
}

#[test]
fn a_descriptor_that_is_not_a_socket_is_refused_and_closed() {
    // A file that no other test opens, under whatever number.
    let file = File::open("/proc/version").unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    assert_errno(Socket::try_from(OwnedFd::from(file)), "ENOTSOCK");
    let still_open = fs::read_link(path).is_ok_and(|file| file.ends_with("version"));
    assert!(!still_open);
}

#[test]
fn a_dup_is_the_same_socket_and_lives_on_by_itself() {
    let (ours, theirs) = stream_pair();
    let twin = ours.dup().unwrap();
    assert_ne!(twin.fileno(), ours.fileno());
    assert_eq!((twin.family(), twin.kind(), twin.proto()), (ours.family(), ours.kind(), ours.proto()));
    theirs.sendall(b"one").unwrap();
    assert_eq!(twin.recv(100).unwrap(), b"one");
    ours.close().unwrap();
    theirs.sendall(b"two").unwrap();
    assert_eq!(twin.recv(100).unwrap(), b"two");
    drop(twin);
    assert_eq!(theirs.recv(100).unwrap(), b"", "the last one ends the connection");
}

#[test]
fn debug_prints_what_pythons_repr_prints() {
    let sock = Socket::new(AF_INET, SOCK_DGRAM, 17).unwrap();
    let fd = sock.fileno();
    let begin = format!("<socket fd={fd}, family=AF_INET, type=SOCK_DGRAM, proto=17");
    assert_eq!(format!("{sock:?}"), format!("{begin}, laddr=0.0.0.0:0>"));

    let (ours, theirs) = tcp_pair();
    let (here, there) = (ours.getsockname().unwrap(), theirs.getsockname().unwrap());
    let fd = ours.fileno();
    let begin = format!("<socket fd={fd}, family=AF_INET, type=SOCK_STREAM, proto=0");
    assert_eq!(format!("{ours:?}"), format!("{begin}, laddr={here}, raddr={there}>"));
}

/// Where `both.test` is two addresses of this machine; set for the run that has it.
const BOTH: &str = "SOCK_TEST_BOTH";

/// A host with two addresses, which needs `/etc/hosts` to say so: this file is
/// run again with one of its own, in a mount namespace.
#[test]
fn create_connection_tries_the_next_address() {
    let name = "create_connection_tries_the_next_address";
    if std::env::var_os(BOTH).is_none() {
        let hosts = std::env::temp_dir().join(format!("sock-{}-hosts", process::id()));
        fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.1 both.test\n127.0.0.2 both.test\n").unwrap();
        let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
        let this = std::env::current_exe().unwrap();
        let mut again = Command::new("unshare");
        again.args(["--mount", "sh", "-c", script, "sh"]).arg(&hosts).arg(this);
        let output = again.args(["--exact", name, "--nocapture"]).env(BOTH, "1").output().unwrap();
        fs::remove_file(hosts).unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if !text.contains("running 1 test") {
            let _ = writeln!(stderr(), "SKIPPED {name}: no mount namespace: {text}");
            return;
        }
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let answers = getaddrinfo("both.test", 80).unwrap();
    let mut hosts: Vec<_> = answers.iter().map(|answer| answer.address.ip().unwrap()).collect();
    hosts.sort();
    hosts.dedup();
    assert_eq!(hosts.len(), 2, "{answers:?}");
    for host in hosts {
        // Whichever comes first: for one of the two hosts it is the other.
        let server = create_server((host, 0)).unwrap();
        let port = server.getsockname().unwrap().port().unwrap();
        let plain = ConnectionOptions::new;
        for options in [
            plain(),
            plain().timeout(LIMIT),
            plain().deadline(LIMIT),
            plain().happy_eyeballs(true),
            plain().happy_eyeballs(true).deadline(LIMIT),
        ] {
            let client = create_connection_with(("both.test", port), &options).unwrap();
            assert_eq!(client.getpeername().unwrap(), server.getsockname().unwrap());
            server.accept().unwrap();
        }
    }
    let deaf = socket(AF_INET, SOCK_STREAM);
    deaf.bind(("", 0)).unwrap();
    let port = deaf.getsockname().unwrap().port().unwrap();
    let error = create_connection(("both.test", port)).unwrap_err();
    let tried: Vec<_> =
        ConnectError::of(&error).unwrap().attempts().iter().map(|(address, _)| address).collect();
    let asked = getaddrinfo_with("both.test", port, &Hints::new().kind(SOCK_STREAM)).unwrap();
    assert_eq!(tried, asked.iter().map(|answer| &answer.address).collect::<Vec<_>>(), "{error}");
    assert_errno::<()>(Err(error), "ECONNREFUSED");
}

#[test]
fn create_connection_comes_from_its_source_address_and_keeps_its_timeout() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let port = server.getsockname().unwrap().port().unwrap();
    let source = Address::from(std::net::SocketAddr::from(([127, 0, 0, 3], 0)));
    let options = ConnectionOptions::new().source_address(source).timeout(LIMIT);
    let client = create_connection_with(("127.0.0.1", port), &options).unwrap();
    assert_eq!(client.gettimeout(), Some(LIMIT));
    let (_, from) = server.accept().unwrap();
    assert_eq!(from, client.getsockname().unwrap());
    assert_eq!(from.ip().unwrap().to_string(), "127.0.0.3");
}

/// As in Python: a connection that is not there yet is none.
#[test]
fn create_connection_that_may_not_wait_is_in_progress() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let port = server.getsockname().unwrap().port().unwrap();
    let options = ConnectionOptions::new().timeout(Duration::ZERO);
    assert_errno(create_connection_with(("127.0.0.1", port), &options), "EINPROGRESS");
}

#[test]
fn a_server_can_be_made_again_at_once_and_takes_no_port_of_another() {
    // An address of this test's own, so that no other test uses the port in between.
    let server = create_server(("127.0.0.77", 0)).unwrap();
    assert_eq!(server.getsockopt(SOL_SOCKET, SO_REUSEADDR).unwrap(), 1);
    assert_eq!(server.getsockopt(SOL_SOCKET, SO_REUSEPORT).unwrap(), 0);
    let address = server.getsockname().unwrap();
    assert_errno(create_server(&address), "EADDRINUSE");
    // An old connection lingers on the server's side: the server closed first.
    let client = create_connection(("127.0.0.77", address.port().unwrap())).unwrap();
    drop(server.accept().unwrap());
    assert_eq!(client.recv(1).unwrap(), b"");
    drop(client);
    drop(server);
    create_server(&address).unwrap();
}

#[test]
fn servers_share_a_port_with_reuse_port_only() {
    let shared = ServerOptions::new().reuse_port(true);
    let one = create_server_with(("127.0.0.1", 0), &shared).unwrap();
    assert_eq!(one.getsockopt(SOL_SOCKET, SO_REUSEPORT).unwrap(), 1);
    let address = one.getsockname().unwrap();
    let other = create_server_with(&address, &shared).unwrap();
    assert_eq!(other.getsockname().unwrap(), address);
    assert_errno(create_server(&address), "EADDRINUSE");
}

#[test]
fn an_ipv6_server_takes_ipv6_only_unless_dualstack_is_asked_for() {
    if let Err(error) = create_server_with(("::1", 0), &ServerOptions::new().family(AF_INET6)) {
        let _ = writeln!(stderr(), "SKIPPED: this machine has no IPv6: {error}");
        return;
    }
    let only = ServerOptions::new().family(AF_INET6);
    let server = create_server_with(("", 0), &only).unwrap();
    assert_eq!(server.getsockopt(IPPROTO_IPV6, IPV6_V6ONLY).unwrap(), 1);
    let port = server.getsockname().unwrap().port().unwrap();
    create_connection(("::1", port)).unwrap();

    assert!(has_dualstack_ipv6());
    let server = create_server_with(("", 0), &only.dualstack_ipv6(true)).unwrap();
    assert_eq!(server.getsockopt(IPPROTO_IPV6, IPV6_V6ONLY).unwrap(), 0);
    let port = server.getsockname().unwrap().port().unwrap();
    for (host, seen_as) in [("::1", "::1"), ("127.0.0.1", "::ffff:127.0.0.1")] {
        let _client = create_connection((host, port)).unwrap();
        assert_eq!(server.accept().unwrap().1.ip().unwrap().to_string(), seen_as);
    }
}

#[test]
fn dualstack_is_refused_without_ipv6() {
    let error = create_server_with(("", 0), &ServerOptions::new().dualstack_ipv6(true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "dualstack_ipv6 requires AF_INET6, not AF_INET");
}

#[test]
fn a_backlog_may_be_any_number() {
    for backlog in [i32::MIN, -1, 0, 1, i32::MAX] {
        let options = ServerOptions::new().backlog(backlog);
        let server = create_server_with(("127.0.0.1", 0), &options).unwrap();
        create_connection(("127.0.0.1", server.getsockname().unwrap().port().unwrap())).unwrap();
    }
}

/// `CAP_NET_RAW`, which root has outside of most containers.
fn may_use_raw_sockets() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() & 1 << 13 != 0
}

/// The protocol number is one of RFC 3692's, for experiments.
#[test]
fn a_raw_socket_passes_packets_or_is_denied() {
    let made = Socket::new(AF_INET, SOCK_RAW, 253);
    if !may_use_raw_sockets() {
        let error = made.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        return;
    }
    let sock = made.unwrap();
    sock.settimeout(LIMIT).unwrap();
    assert_eq!((sock.kind(), sock.proto()), (SOCK_RAW, 253));
    let payload = format!("to {}", process::id());
    sock.sendto(payload.as_bytes(), ("127.0.0.1", 0)).unwrap();
    loop {
        let (packet, from) = sock.recvfrom(1000).unwrap();
        assert_eq!(from.to_string(), "127.0.0.1:0");
        // Behind the header of IP, which has 20 bytes; another run's may come too.
        if packet[20..] == *payload.as_bytes() {
            break;
        }
    }
}
