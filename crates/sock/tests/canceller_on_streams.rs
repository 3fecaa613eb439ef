//! The promise: a stream socket with a canceller receives as much in one call as a blocking one,
//! and no more: descriptors, urgent data and `SO_RCVLOWAT` count there too.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::thread;
use std::time::{Duration, Instant};

use sock::{
    AF_INET, AF_UNIX, Ancillary, AsFd, CMSG_SPACE, MSG_CTRUNC, MSG_FASTOPEN, MSG_OOB, MSG_WAITALL,
    MsgFlags, SO_RCVLOWAT, SOCK_STREAM, SOL_SOCKET, Socket, create_server, socketpair_with,
};

/// No wait of a test is longer.
const LIMIT: Duration = Duration::from_secs(30);

fn unix() -> (Socket, Socket) {
    socketpair_with(AF_UNIX, SOCK_STREAM, 0).unwrap()
}

fn tcp() -> (Socket, Socket) {
    let listener = create_server(("127.0.0.1", 0)).unwrap();
    let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    client.connect(listener.getsockname().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

/// Makes `call` on one end of a pair without a canceller and with one. The peer makes its sends one
/// by one, each when the call has received what came before.
fn on_both<T: Send>(
    pair: fn() -> (Socket, Socket),
    sends: &[fn(&Socket)],
    call: impl Fn(&Socket) -> T + Sync,
) -> [T; 2] {
    [false, true].map(|with| {
        let (sock, peer) = pair();
        // A call that waits for more than comes ends with the test.
        sock.set_recv_timeout(LIMIT).unwrap();
        let _canceller = with.then(|| sock.canceller().unwrap());
        sends[0](&peer);
        thread::scope(|scope| {
            let caller = scope.spawn(|| call(&sock));
            let until = Instant::now() + LIMIT;
            for send in &sends[1..] {
                while sock.recv_queue().unwrap() > 0 && !caller.is_finished() && Instant::now() < until {
                    thread::yield_now();
                }
                send(&peer);
            }
            caller.join().unwrap()
        })
    })
}

fn with_descriptor(peer: &Socket, data: &[u8]) {
    let file = File::open("/dev/null").unwrap();
    peer.sendmsg(&[IoSlice::new(data)], &[Ancillary::rights(&[file.as_fd()])]).unwrap();
}

#[test]
fn descriptors_end_a_receive_and_are_not_lost() {
    let sends: [fn(&Socket); 3] =
        [|peer| drop(peer.send(b"ab")), |peer| with_descriptor(peer, b"cd"), |peer| drop(peer.send(b"ef"))];
    let outcomes = on_both(unix, &sends, |sock| {
        let (mut one, mut two) = ([0; 3], [0; 3]);
        let buffers = &mut [&mut one[..], &mut two].map(IoSliceMut::new);
        let message = sock.recvmsg_into_with_flags(buffers, CMSG_SPACE(4).unwrap(), MSG_WAITALL).unwrap();
        let descriptors: usize = message.ancillary.iter().map(|item| item.descriptors().len()).sum();
        (message.received, one, two, descriptors)
    });
    assert_eq!(outcomes, [(4, *b"abc", *b"d\0\0", 1); 2]);

    let outcomes = on_both(unix, &sends[1..], |sock| {
        let message = sock.recvmsg_with_flags(6, 0, MSG_WAITALL).unwrap();
        let again = sock.recv_with_flags(2, MSG_WAITALL).unwrap();
        (message.data, message.ancillary.len(), message.flags.contains(MSG_CTRUNC), again)
    });
    assert_eq!(outcomes, [(); 2].map(|()| (b"cd".to_vec(), 0, true, b"ef".to_vec())));

    let outcomes = on_both(unix, &sends[1..], |sock| sock.recv_with_flags(6, MSG_WAITALL).unwrap());
    assert_eq!(outcomes, [b"cd", b"cd"]);
}

#[test]
fn urgent_data_ends_a_receive() {
    let sends: [fn(&Socket); 1] = [|peer| {
        peer.send(b"ab").unwrap();
        peer.send_with_flags(b"!", MSG_OOB).unwrap();
        peer.send(b"cdef").unwrap();
    }];
    let outcomes =
        on_both(tcp, &sends, |sock| [(); 2].map(|()| sock.recv_with_flags(4, MSG_WAITALL).unwrap()));
    assert_eq!(outcomes, [(); 2].map(|()| [b"ab".to_vec(), b"cdef".to_vec()]));
}

#[test]
fn the_low_water_mark_of_a_receive_is_kept() {
    let sends: [fn(&Socket); 2] = [|peer| drop(peer.send(b"ab")), |peer| drop(peer.send(b"cdef"))];
    let calls: [fn(&Socket) -> Vec<u8>; 5] = [
        |sock| sock.recv(10).unwrap(),
        |sock| sock.recvfrom(10).unwrap().0,
        |sock| sock.recvmsg(10, 0).unwrap().data,
        |sock| {
            let mut buffer = [0; 10];
            let received = sock.recv_into(&mut buffer).unwrap();
            buffer[..received].to_vec()
        },
        |sock| {
            let mut buffer = [0; 10];
            let received = sock.recv_into_within(&mut buffer, &mut sock.deadline()).unwrap();
            buffer[..received].to_vec()
        },
    ];
    for pair in [unix as fn() -> _, tcp] {
        for call in calls {
            let outcomes = on_both(pair, &sends, |sock| {
                sock.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 4).unwrap();
                call(sock)
            });
            assert_eq!(outcomes, [b"abcdef", b"abcdef"]);
        }
    }
    // Set before the canceller is made, and by its twin afterwards.
    let (sock, peer) = unix();
    sock.setsockopt(SOL_SOCKET, SO_RCVLOWAT, 4).unwrap();
    let _canceller = sock.canceller().unwrap();
    peer.sendall(b"ab").unwrap();
    sock.set_recv_timeout(Duration::from_millis(20)).unwrap();
    let begin = Instant::now();
    assert_eq!(sock.recv(10).unwrap(), b"ab");
    assert!(begin.elapsed() >= Duration::from_millis(20));
    sock.dup().unwrap().setsockopt(SOL_SOCKET, SO_RCVLOWAT, 1).unwrap();
    sock.set_recv_timeout(None).unwrap();
    peer.sendall(b"cd").unwrap();
    assert_eq!(sock.recv(10).unwrap(), b"cd");
}

/// Without a cookie the data goes when the connection is there.
#[test]
fn a_send_that_connects_waits_for_the_connection() {
    let calls: [fn(&Socket, &Socket, MsgFlags) -> usize; 2] = [
        |sock, listener, flags| {
            sock.sendto_with_flags(b"hello", flags, listener.getsockname().unwrap()).unwrap()
        },
        |sock, listener, flags| {
            let buffers = [IoSlice::new(b"hel"), IoSlice::new(b"lo")];
            sock.sendmsg_to(&buffers, &[], flags, listener.getsockname().unwrap()).unwrap()
        },
    ];
    for call in calls {
        for with in [false, true] {
            let listener = create_server(("127.0.0.1", 0)).unwrap();
            listener.settimeout(LIMIT).unwrap();
            let sock = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
            let _canceller = with.then(|| sock.canceller().unwrap());
            assert_eq!(call(&sock, &listener, MSG_FASTOPEN), 5, "with a canceller: {with}");
            let peer = listener.accept().unwrap().0;
            assert_eq!(peer.recv_with_flags(5, MSG_WAITALL).unwrap(), b"hello");
        }
    }
    let refusing = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    refusing.bind(("127.0.0.1", 0)).unwrap();
    for with in [false, true] {
        let sock = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        let _canceller = with.then(|| sock.canceller().unwrap());
        let error =
            sock.sendto_with_flags(b"x", MSG_FASTOPEN, refusing.getsockname().unwrap()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "with a canceller: {with}");
    }
}
