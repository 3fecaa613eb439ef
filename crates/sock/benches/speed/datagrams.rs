//! Datagrams over the loopback interface, from a socket to itself.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, SockaddrIn, SockaddrStorage, recvfrom, sendto};
use sock::{Address, RecvBatch};

use crate::compare::{Scenario, Variant, cpu_time};
use crate::ends::Sock;

const SIZE: usize = 64;
const BATCH: usize = 32;

/// One call for each datagram and direction, and then as many as a batch holds.
pub(crate) fn datagrams() -> Scenario {
    let long = Some(Duration::from_secs(60));
    let variants =
        vec![raw(), std(), sock("sock", None), sock("sock, timeout", long), batches("sock, batches of 32")];
    // A batch has only to be cheaper.
    let bounds = &[("sock, timeout", "sock", 1.05), ("sock, batches of 32", "sock", 0.99)];
    Scenario { name: "datagram of 64 B to itself", variants, bounds }
}

fn raw() -> Variant {
    let (socket, to) = bound();
    let to = SockaddrIn::from(to);
    let mut buffer = [0; SIZE];
    Variant::new("raw", move || {
        sendto(socket.as_raw_fd(), &buffer, &to, MsgFlags::empty()).expect("there is room");
        let (received, from) =
            recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer).expect("it has arrived");
        assert_eq!(received, SIZE);
        assert!(from.is_some());
    })
}

fn std() -> Variant {
    let (socket, to) = bound();
    let socket = UdpSocket::from(socket);
    let mut buffer = [0; SIZE];
    Variant::new("std", move || {
        socket.send_to(&buffer, to).expect("there is room");
        let (received, _) = socket.recv_from(&mut buffer).expect("it has arrived");
        assert_eq!(received, SIZE);
    })
}

fn sock(name: &'static str, timeout: Option<Duration>) -> Variant {
    let (socket, to) = bound();
    let Sock(socket) = Sock::new(socket, timeout);
    let to = Address::Inet(to);
    let mut buffer = [0; SIZE];
    Variant::new(name, move || {
        socket.sendto(&buffer, &to).expect("there is room");
        let (received, _) = socket.recvfrom_into(&mut buffer).expect("it has arrived");
        assert_eq!(received, SIZE);
    })
}

/// The time of one datagram, of those of a batch that goes and comes as a whole.
fn batches(name: &'static str) -> Variant {
    let (socket, to) = bound();
    let Sock(socket) = Sock::new(socket, None);
    let datagrams = vec![([0; SIZE], Address::Inet(to)); BATCH];
    let mut received = RecvBatch::new(BATCH, SIZE).expect("a few kilobytes");
    Variant::timed(name, move |times| {
        let begin = cpu_time();
        for _ in 0..times {
            let sent = socket.sendmmsg(&datagrams).expect("there is room");
            assert_eq!(sent.count, BATCH);
            assert_eq!(socket.recvmmsg(&mut received).expect("all have arrived"), BATCH);
        }
        (cpu_time() - begin) / BATCH as u32
    })
}

fn bound() -> (OwnedFd, std::net::SocketAddrV4) {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port is free");
    match socket.local_addr().expect("it is bound") {
        std::net::SocketAddr::V4(address) => (socket.into(), address),
        other => panic!("{other} is not what was asked for"),
    }
}
