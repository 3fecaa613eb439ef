//! A timeout is one deadline for the whole call: it is not over early, and
//! neither the pieces of `sendall` nor false readiness put it off.
//!
//! Times are measured against generous bounds, because machines are busy. What
//! no peer can bring about (EINTR, false readiness at will) is tested beside the
//! wait loop, in `crates/sock/src/timeout.rs`.
#![cfg_attr(windows, allow(unused, reason = "some tests are not for it"))]

mod support;

use std::io::{self, ErrorKind};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sock::{
    AF_UNIX, ConnectionOptions, SO_SNDBUF, SOCK_DGRAM, SOL_SOCKET, Socket, create_connection_with,
    create_server, poll, socketpair, socketpair_with,
};

use support::{full_listener, tcp};

/// How late a deadline may expire on a busy machine.
const GRACE: Duration = Duration::from_secs(20);

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The call fails with `TimedOut`, not before `timeout` and not long after.
#[track_caller]
fn assert_times_out<T>(timeout: Duration, call: impl FnOnce() -> io::Result<T>) {
    let begin = Instant::now();
    let outcome = call();
    let took = begin.elapsed();
    let Err(error) = outcome else { panic!("did not time out, and succeeded after {took:?}") };
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(took >= timeout, "timed out after {took:?}, which is before {timeout:?}");
    assert!(took < timeout + GRACE, "timed out after {took:?}, which is long after {timeout:?}");
}

/// A pair that holds a few kilobytes in its first socket's direction.
fn narrow_pair() -> (Socket, Socket) {
    let (sender, receiver) = socketpair().unwrap();
    sender.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096).unwrap();
    (sender, receiver)
}

/// Reads a little now and then, and hangs up when the sender should have given up long ago.
fn reads_slowly(receiver: Socket, timeout: Duration) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let begin = Instant::now();
        while begin.elapsed() < timeout + GRACE && !receiver.recv(4096).unwrap().is_empty() {
            poll(&mut [], Some(milliseconds(10))).unwrap();
        }
    })
}

#[test]
fn a_receive_waits_its_timeout_and_not_less() {
    for timeout in
        [Duration::from_nanos(1), Duration::from_micros(1500), milliseconds(20), milliseconds(150)]
    {
        let (ours, _theirs) = socketpair().unwrap();
        let listener = create_server(("127.0.0.1", 0)).unwrap();
        ours.settimeout(timeout).unwrap();
        listener.settimeout(timeout).unwrap();
        assert_times_out(timeout, || ours.recv(1));
        assert_times_out(timeout, || ours.recv_into(&mut [0; 1]));
        assert_times_out(timeout, || ours.recvfrom(1));
        assert_times_out(timeout, || ours.recvfrom_into(&mut [0; 1]));
        assert_times_out(timeout, || listener.accept());
    }
}

#[test]
fn the_timeout_restarts_with_each_call() {
    let (ours, _theirs) = socketpair().unwrap();
    ours.settimeout(milliseconds(30)).unwrap();
    for _ in 0..3 {
        assert_times_out(milliseconds(30), || ours.recv(1));
    }
}

#[test]
fn a_send_to_a_full_queue_waits_for_its_timeout() {
    let (sender, _receiver) = narrow_pair();
    sender.settimeout(milliseconds(50)).unwrap();
    while sender.send(&[0; 4096]).is_ok() {}
    assert_times_out(milliseconds(50), || sender.send(b"x"));
    assert_times_out(milliseconds(50), || sender.sendall(b"x"));
}

/// Each piece goes out long before the timeout; the whole would take minutes.
#[test]
fn a_timeout_is_one_deadline_for_all_pieces_of_sendall() {
    let timeout = milliseconds(300);
    let (sender, receiver) = narrow_pair();
    let reader = reads_slowly(receiver, timeout);
    sender.settimeout(timeout).unwrap();
    assert_times_out(timeout, || sender.sendall(&vec![0; 64 << 20]));
    drop(sender);
    reader.join().unwrap();
}

#[test]
fn sendall_has_time_for_all_that_goes_out_before_its_deadline() {
    let (sender, receiver) = narrow_pair();
    let reader = thread::spawn(move || {
        let mut count = 0;
        loop {
            match receiver.recv(4096).unwrap().len() {
                0 => return count,
                received => count += received,
            }
        }
    });
    sender.settimeout(Duration::from_secs(60)).unwrap();
    sender.sendall(&[7; 1 << 20]).unwrap();
    drop(sender);
    assert_eq!(reader.join().unwrap(), 1 << 20);
}

#[test]
fn a_connect_waits_its_timeout_in_all() {
    let (_keep, address) = full_listener();
    let timeout = milliseconds(100);
    let sock = tcp();
    sock.settimeout(timeout).unwrap();
    assert_times_out(timeout, || sock.connect(&address));

    let options = ConnectionOptions::new().timeout(timeout);
    let port = address.port().unwrap();
    assert_times_out(timeout, || create_connection_with(("127.0.0.1", port), &options));

    let sock = tcp();
    sock.settimeout(timeout).unwrap();
    let begin = Instant::now();
    assert_ne!(sock.connect_ex(&address).unwrap(), 0);
    assert!(begin.elapsed() >= timeout && begin.elapsed() < timeout + GRACE, "{:?}", begin.elapsed());
}

/// poll(2) calls a Unix datagram socket writable while the receiver's queue is
/// full: readiness that is false each time.
// Windows has no Unix datagrams.
#[cfg(unix)]
#[test]
fn false_readiness_does_not_put_off_the_end_of_a_sendto() {
    let timeout = milliseconds(100);
    let receiver = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    receiver.bind("").unwrap();
    let queue = receiver.getsockname().unwrap();
    let sender = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    sender.setblocking(false).unwrap();
    while sender.sendto(b"x", &queue).is_ok() {}

    sender.settimeout(timeout).unwrap();
    let (done, outcome) = mpsc::channel();
    let sendto = thread::spawn(move || done.send(sender.sendto(b"x", queue)));
    let result = outcome.recv_timeout(timeout + GRACE);
    // Room for one that would go on for ever.
    receiver.settimeout(timeout).unwrap();
    while receiver.recv(1).is_ok() {}
    let _ = sendto.join().unwrap();
    let error = result.expect("sendto has not ended long after its timeout").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}

/// Each datagram makes the socket ready for both, and is there for one.
// Windows has no Unix datagrams.
#[cfg(unix)]
#[test]
fn of_two_receivers_the_one_that_comes_too_late_waits_on() {
    const DATAGRAMS: usize = 5000;
    let (ours, theirs) = socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let limit = Duration::from_secs(30);
    ours.settimeout(limit).unwrap();
    theirs.settimeout(limit).unwrap();
    let receive_to_the_end = || {
        let mut count = 0;
        while ours.recv(100).unwrap() != b"end" {
            count += 1;
        }
        count
    };
    thread::scope(|scope| {
        let receivers = [scope.spawn(receive_to_the_end), scope.spawn(receive_to_the_end)];
        for _ in 0..DATAGRAMS {
            theirs.send(b"one").unwrap();
        }
        for _ in &receivers {
            theirs.send(b"end").unwrap();
        }
        let received = receivers.map(|receiver| receiver.join().unwrap());
        assert_eq!(received.iter().sum::<usize>(), DATAGRAMS);
    });
}
