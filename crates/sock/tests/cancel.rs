//! The promise: a canceller ends every wait of its socket, in every call and
//! mode, and nothing else.

use std::fs::File;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use sock::{
    AF_INET, SOCK_DGRAM, SOCK_STREAM, Socket, create_server, socketpair, was_cancelled, was_interrupted,
};

const LONG: Duration = Duration::from_secs(60);

type Mode = Option<Duration>;

const WAITING: [Mode; 2] = [None, Some(LONG)];

/// Cancels while `call` waits, or just before: both have to end it.
#[track_caller]
fn assert_ends<T: Send + std::fmt::Debug>(
    sock: &Socket,
    call: impl FnOnce(&Socket) -> io::Result<T> + Send,
) {
    let canceller = sock.canceller().unwrap();
    let begin = Instant::now();
    let error = thread::scope(|scope| {
        let waiting = scope.spawn(|| call(sock).unwrap_err());
        canceller.cancel();
        waiting.join().unwrap()
    });
    assert!(was_cancelled(&error) && !was_interrupted(&error), "{error:?}");
    assert!(begin.elapsed() < LONG / 2, "it ended only at its timeout");
}

fn full_pair() -> (Socket, Socket) {
    let (ours, theirs) = socketpair().unwrap();
    ours.setblocking(false).unwrap();
    while ours.send(&[0; 65536]).is_ok() {}
    (ours, theirs)
}

#[test]
fn every_receiving_call_ends() {
    for mode in WAITING {
        let calls: [fn(&Socket) -> io::Result<usize>; 4] = [
            |sock| sock.recv(1).map(|data| data.len()),
            |sock| sock.recv_into(&mut [0]),
            |sock| sock.recvfrom(1).map(|(data, _)| data.len()),
            |sock| sock.recvfrom_into(&mut [0]).map(|(count, _)| count),
        ];
        for call in calls {
            let (ours, _theirs) = socketpair().unwrap();
            ours.settimeout(mode).unwrap();
            assert_ends(&ours, call);
        }
    }
}

#[test]
fn every_sending_call_ends() {
    for mode in WAITING {
        let calls: [fn(&Socket) -> io::Result<()>; 4] = [
            |sock| sock.send(b"x").map(drop),
            |sock| sock.sendall(&[0; 1 << 20]),
            |sock| sock.makefile_wb().write_all(&[0; 1 << 20]),
            |sock| sock.sendfile(&File::open("Cargo.toml")?, 0, None).map(drop),
        ];
        for call in calls {
            let (ours, _theirs) = full_pair();
            ours.settimeout(mode).unwrap();
            assert_ends(&ours, call);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_connect_ends() {
    // A listener with a full queue does not answer.
    let listener = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    listener.bind(("127.0.0.1", 0)).unwrap();
    listener.listen(0).unwrap();
    let address = listener.getsockname().unwrap();
    let queue: Vec<Socket> = (0..8).map(|_| Socket::new(AF_INET, SOCK_STREAM, 0).unwrap()).collect();
    for waiting in &queue {
        waiting.setblocking(false).unwrap();
        waiting.connect(&address).unwrap_err();
    }
    for mode in WAITING {
        let sock = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        sock.settimeout(mode).unwrap();
        assert_ends(&sock, |sock| sock.connect(&address));
    }
}

#[test]
fn an_accept_ends() {
    for mode in WAITING {
        let listener = create_server(("127.0.0.1", 0)).unwrap();
        listener.settimeout(mode).unwrap();
        assert_ends(&listener, Socket::accept);
    }
}

#[cfg(unix)]
#[test]
fn every_call_with_messages_ends() {
    use sock::{AF_UNIX, Address, MsgFlags, RecvBatch, socketpair_with};
    use std::io::{IoSlice, IoSliceMut};

    let calls: [fn(&Socket) -> io::Result<usize>; 7] = [
        |sock| sock.recvmsg(1, 0).map(|message| message.data.len()),
        |sock| sock.recvmsg_into(&mut [IoSliceMut::new(&mut [0])], 0).map(|message| message.received),
        |sock| sock.recv_fds(1, 1).map(|received| received.data.len()),
        |sock| sock.recvmmsg(&mut RecvBatch::new(2, 1)?),
        |sock| sock.sendmsg(&[IoSlice::new(b"x")], &[]),
        |sock| sock.send_fds_with_flags(&[IoSlice::new(b"x")], &[], MsgFlags::NONE),
        |sock| sock.sendmmsg(&[("x", Address::None)]).map(|sent| sent.count),
    ];
    for mode in WAITING {
        for call in calls {
            let (ours, _theirs) = socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
            ours.setblocking(false).unwrap();
            while ours.send(b"x").is_ok() {}
            ours.settimeout(mode).unwrap();
            assert_ends(&ours, call);
        }
    }
}

#[test]
fn a_second_descriptor_waits_as_the_first_and_ends_with_it() {
    for mode in WAITING {
        let (ours, theirs) = socketpair().unwrap();
        ours.settimeout(mode).unwrap();
        let canceller = ours.canceller().unwrap();
        let twin = ours.dup().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| twin.recv(10).unwrap());
            theirs.sendall(b"late").unwrap();
            assert_eq!(waiting.join().unwrap(), b"late");
            let waiting = scope.spawn(|| twin.recv(10).unwrap_err());
            canceller.cancel();
            assert!(was_cancelled(&waiting.join().unwrap()));
        });
    }
}

#[test]
fn a_mode_set_afterwards_still_waits_where_it_can_be_cancelled() {
    let (ours, _theirs) = socketpair().unwrap();
    ours.canceller().unwrap();
    ours.settimeout(LONG).unwrap();
    ours.settimeout(None).unwrap();
    assert_ends(&ours, |sock| sock.recv(1));
}

#[test]
fn it_lasts() {
    let (ours, _theirs) = socketpair().unwrap();
    ours.canceller().unwrap().cancel();
    for _ in 0..2 {
        assert!(was_cancelled(&ours.recv(1).unwrap_err()));
        ours.canceller().unwrap().cancel();
    }
}

#[test]
fn calls_that_do_not_wait_succeed() {
    let (ours, theirs) = socketpair().unwrap();
    ours.canceller().unwrap().cancel();
    theirs.sendall(b"there").unwrap();
    assert_eq!(ours.recv(100).unwrap(), b"there");
    ours.sendall(b"room").unwrap();
    assert_eq!(theirs.recv(100).unwrap(), b"room");
}

#[test]
fn a_canceller_does_not_change_the_mode() {
    let (ours, theirs) = socketpair().unwrap();
    let _canceller = ours.canceller().unwrap();
    assert_eq!(ours.gettimeout(), None);
    ours.settimeout(Duration::ZERO).unwrap();
    assert_eq!(ours.recv(1).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    ours.settimeout(Duration::from_millis(20)).unwrap();
    assert_eq!(ours.recv(1).unwrap_err().kind(), io::ErrorKind::TimedOut);
    ours.settimeout(None).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ours.recv(10).unwrap());
        theirs.sendall(b"late").unwrap();
        assert_eq!(waiting.join().unwrap(), b"late");
    });
}

#[test]
fn another_socket_is_left_alone() {
    let (ours, theirs) = socketpair().unwrap();
    let twin = ours.dup().unwrap();
    ours.canceller().unwrap().cancel();
    twin.settimeout(Duration::from_millis(20)).unwrap();
    assert_eq!(twin.recv(1).unwrap_err().kind(), io::ErrorKind::TimedOut);
    theirs.sendall(b"x").unwrap();
    assert_eq!(twin.recv(1).unwrap(), b"x");
}

#[test]
fn an_accepted_socket_is_not_cancelled_with_its_listener() {
    let listener = create_server(("127.0.0.1", 0)).unwrap();
    let canceller = listener.canceller().unwrap();
    let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    client.connect(listener.getsockname().unwrap()).unwrap();
    let (connection, _) = listener.accept().unwrap();
    canceller.cancel();
    client.sendall(b"x").unwrap();
    assert_eq!(connection.recv(1).unwrap(), b"x");
}

#[test]
fn a_canceller_may_outlive_its_socket() {
    let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    let canceller = sock.canceller().unwrap();
    sock.close().unwrap();
    canceller.cancel();
}
