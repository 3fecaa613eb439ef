//! A socket blocks, never waits, or waits up to a timeout: the descriptor's own
//! flag, and what a call does that cannot go on at once, follow from that.
//!
//! What `setdefaulttimeout` adds is in `default_timeout.rs`, how long a timeout
//! lasts in `deadlines.rs`, and how many system calls a mode costs in
//! `system_calls.rs`.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use sock::{
    AF_INET, AF_UNIX, Address, MSG_PEEK, POLLIN, POLLOUT, Poll, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM,
    Socket, create_server, errno, errno_name, poll, socketpair, socketpair_with,
};

use support::{full_listener, tcp};

type Mode = Option<Duration>;

const BLOCKING: Mode = None;
const NONBLOCKING: Mode = Some(Duration::ZERO);
/// Over before anything can happen.
const SHORT: Mode = Some(Duration::from_nanos(1));
/// Never over unless something is wrong.
const LONG: Mode = Some(Duration::from_secs(30));

const MODES: [Mode; 4] = [BLOCKING, NONBLOCKING, SHORT, LONG];

/// `O_NONBLOCK` of the descriptor, as the kernel has it: `flags:` there is octal.
#[track_caller]
fn descriptor_blocks(sock: &impl AsRawFd) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", sock.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
    // On Linux the flag of socket(2) and the one of fcntl(2) are one number.
    flags & SOCK_NONBLOCK.as_raw() == 0
}

#[track_caller]
fn assert_mode(sock: &Socket, mode: Mode) {
    assert_eq!(sock.gettimeout(), mode);
    assert_eq!(sock.getblocking(), mode != NONBLOCKING, "getblocking() with timeout {mode:?}");
    assert_eq!(descriptor_blocks(sock), mode == BLOCKING, "the descriptor blocks, with timeout {mode:?}");
}

fn listener() -> Socket {
    create_server(("127.0.0.1", 0)).unwrap()
}

/// A client that waits in the listener's queue.
#[track_caller]
fn queued_at(listener: &Socket) -> Socket {
    let client = tcp();
    client.connect(listener.getsockname().unwrap()).unwrap();
    // It takes a moment on a busy machine.
    assert_eq!(poll(&mut [Poll::new(listener, POLLIN)], LONG).unwrap(), 1, "no client came");
    client
}

/// An address that is bound but not listening, as long as the socket lives.
fn bound_socket() -> (Socket, Address) {
    let sock = tcp();
    sock.bind(("127.0.0.1", 0)).unwrap();
    let address = sock.getsockname().unwrap();
    (sock, address)
}

/// Two ends, of which the first can send no further byte.
fn full_pair() -> (Socket, Socket) {
    let (full, peer) = socketpair().unwrap();
    full.setblocking(false).unwrap();
    while full.send(&[0; 4096]).is_ok() {}
    (full, peer)
}

#[test]
fn a_new_socket_blocks() {
    assert_mode(&tcp(), BLOCKING);
    assert_mode(&listener(), BLOCKING);
    let (one, other) = socketpair().unwrap();
    assert_mode(&one, BLOCKING);
    assert_mode(&other, BLOCKING);
}

#[test]
fn from_each_mode_a_socket_changes_to_each_other() {
    let sock = tcp();
    for from in MODES {
        for to in MODES {
            sock.settimeout(from).unwrap();
            assert_mode(&sock, from);
            sock.settimeout(to).unwrap();
            assert_mode(&sock, to);
        }
    }
    assert_eq!(sock.kind(), SOCK_STREAM);
}

#[test]
fn setblocking_is_a_timeout_of_none_or_zero() {
    let sock = tcp();
    for before in MODES {
        for (blocking, mode) in [(true, BLOCKING), (false, NONBLOCKING)] {
            sock.settimeout(before).unwrap();
            sock.setblocking(blocking).unwrap();
            assert_mode(&sock, mode);
        }
    }
}

#[test]
fn a_timeout_is_kept_to_the_nanosecond() {
    let sock = tcp();
    for nanoseconds in [1, 999, 1_500_000, 1_234_567_891, u64::MAX - 1] {
        let timeout = Duration::from_nanos(nanoseconds);
        sock.settimeout(timeout).unwrap();
        assert_mode(&sock, Some(timeout));
    }
}

#[test]
fn a_timeout_beyond_584_years_is_refused_and_changes_nothing() {
    let sock = tcp();
    for mode in MODES {
        sock.settimeout(mode).unwrap();
        for too_long in [Duration::from_nanos(u64::MAX), Duration::from_secs(1 << 40), Duration::MAX] {
            let error = sock.settimeout(too_long).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("too long"), "{error}");
            assert_mode(&sock, mode);
        }
    }
}

#[test]
fn an_accepted_socket_never_has_the_listeners_timeout() {
    for mode in MODES {
        let listener = listener();
        let _client = queued_at(&listener);
        listener.settimeout(mode).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_mode(&accepted, BLOCKING);
    }
}

#[test]
fn sock_nonblock_in_the_kind_is_a_timeout_of_zero_and_no_part_of_the_kind() {
    let sock = Socket::new(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0).unwrap();
    let (one, other) = socketpair_with(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0).unwrap();
    for sock in [sock, one, other] {
        assert_mode(&sock, NONBLOCKING);
        assert_eq!(sock.kind(), SOCK_STREAM);
        sock.settimeout(None).unwrap();
        assert_mode(&sock, BLOCKING);
    }
}

#[test]
fn a_dup_keeps_the_timeout() {
    let sock = tcp();
    for mode in MODES {
        sock.settimeout(mode).unwrap();
        assert_mode(&sock.dup().unwrap(), mode);
    }
}

#[test]
fn a_dup_shares_the_descriptors_flag_but_not_the_timeout() {
    let sock = tcp();
    let twin = sock.dup().unwrap();
    twin.settimeout(LONG).unwrap();
    assert_mode(&twin, LONG);
    assert_eq!(sock.gettimeout(), BLOCKING);
    assert!(!descriptor_blocks(&sock));
}

/// As in Python: the flag of an existing descriptor is not changed.
#[test]
fn an_adopted_descriptor_keeps_its_flag_and_has_no_timeout() {
    for mode in MODES {
        let sock = tcp();
        sock.settimeout(mode).unwrap();
        let adopted = Socket::try_from(OwnedFd::from(sock)).unwrap();
        assert_eq!(adopted.gettimeout(), BLOCKING);
        assert_eq!(descriptor_blocks(&adopted), mode == BLOCKING);
    }
}

/// What each call that may wait says when it cannot go on.
#[track_caller]
fn failures(mode: Mode) -> Vec<(&'static str, io::Error)> {
    let (empty, _peer) = socketpair().unwrap();
    let (full, _reader) = full_pair();
    let listener = listener();
    for sock in [&empty, &full, &listener] {
        sock.settimeout(mode).unwrap();
    }
    let buffer = &mut [0; 1];
    vec![
        ("accept", listener.accept().unwrap_err()),
        ("recv", empty.recv(1).unwrap_err()),
        ("recv_with_flags", empty.recv_with_flags(1, MSG_PEEK).unwrap_err()),
        ("recv_into", empty.recv_into(buffer).unwrap_err()),
        ("recvfrom", empty.recvfrom(1).unwrap_err()),
        ("recvfrom(0)", empty.recvfrom(0).unwrap_err()),
        ("recvfrom_into", empty.recvfrom_into(buffer).unwrap_err()),
        ("send", full.send(b"x").unwrap_err()),
        ("sendall", full.sendall(b"x").unwrap_err()),
        ("sendall after a part of it", empty.sendall(&vec![0; 16 << 20]).unwrap_err()),
    ]
}

#[test]
fn a_nonblocking_call_that_would_wait_fails_with_would_block() {
    for (call, error) in failures(NONBLOCKING) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{call}: {error}");
        assert_eq!(errno(&error).and_then(errno_name), Some("EAGAIN"), "{call}: {error}");
    }
}

#[test]
fn an_expired_call_fails_with_timed_out_and_no_errno() {
    for mode in [SHORT, Some(Duration::from_millis(20))] {
        for (call, error) in failures(mode) {
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{call}: {error}");
            assert_eq!(error.raw_os_error(), None, "{call}: {error}");
            assert_eq!(errno(&error), None, "{call}: {error}");
            assert_eq!(error.to_string(), "timed out", "{call}");
        }
    }
}

#[test]
fn a_nonblocking_sendto_to_a_full_queue_fails_with_would_block() {
    let receiver = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    receiver.bind("").unwrap();
    let sender = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    sender.setblocking(false).unwrap();
    let error = (0..100_000)
        .find_map(|_| sender.sendto(b"x", receiver.getsockname().unwrap()).err())
        .expect("a queue ends somewhere");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
}

#[test]
fn an_expired_connect_fails_with_timed_out_and_no_errno() {
    let (_keep, address) = full_listener();
    for mode in [SHORT, Some(Duration::from_millis(50))] {
        let sock = tcp();
        sock.settimeout(mode).unwrap();
        let error = sock.connect(&address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert_eq!(errno(&error), None, "{error}");
    }
}

#[test]
fn connect_and_data_pass_in_every_mode_that_waits() {
    for mode in [BLOCKING, LONG] {
        let listener = listener();
        listener.settimeout(mode).unwrap();
        let client = tcp();
        client.settimeout(mode).unwrap();
        client.connect(listener.getsockname().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.settimeout(mode).unwrap();
        client.sendall(b"ping").unwrap();
        assert_eq!(server.recv(100).unwrap(), b"ping");
        server.sendall(b"pong").unwrap();
        assert_eq!(client.recv(100).unwrap(), b"pong");
    }
}

#[test]
fn a_refused_connect_fails_with_econnrefused_in_every_mode_that_waits() {
    let (_keep, address) = bound_socket();
    for mode in [BLOCKING, LONG] {
        let sock = tcp();
        sock.settimeout(mode).unwrap();
        let error = sock.connect(&address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{mode:?}: {error}");
        assert_eq!(error.raw_os_error().and_then(errno_name), Some("ECONNREFUSED"), "{mode:?}: {error}");
    }
}

/// What `connect_ex` answers, by name; 0 is a connection.
#[track_caller]
fn connect_ex(sock: &Socket, address: &Address) -> &'static str {
    match sock.connect_ex(address).unwrap() {
        0 => "0",
        number => errno_name(number).unwrap(),
    }
}

#[track_caller]
fn wait_until_connect_has_ended(sock: &Socket) {
    assert_eq!(poll(&mut [Poll::new(sock, POLLOUT)], LONG).unwrap(), 1, "connect has not ended");
}

#[test]
fn connect_ex_gives_the_errno_that_connect_would_fail_with() {
    let listener = listener();
    let open = listener.getsockname().unwrap();
    let (_keep, closed) = bound_socket();
    let (_keep_too, hanging) = full_listener();
    let moment = Some(Duration::from_millis(50));
    for (mode, address, answer) in [
        (BLOCKING, &open, "0"),
        (LONG, &open, "0"),
        (NONBLOCKING, &open, "EINPROGRESS"),
        (BLOCKING, &closed, "ECONNREFUSED"),
        (LONG, &closed, "ECONNREFUSED"),
        (moment, &hanging, "EAGAIN"),
        (NONBLOCKING, &hanging, "EINPROGRESS"),
    ] {
        let sock = tcp();
        sock.settimeout(mode).unwrap();
        assert_eq!(connect_ex(&sock, address), answer, "{address}, timeout {mode:?}");
    }
}

#[test]
fn a_nonblocking_connect_is_in_progress_then_done_then_already_done() {
    let listener = listener();
    let address = listener.getsockname().unwrap();
    let sock = tcp();
    sock.setblocking(false).unwrap();
    assert_eq!(connect_ex(&sock, &address), "EINPROGRESS");
    wait_until_connect_has_ended(&sock);
    assert_eq!(connect_ex(&sock, &address), "0");
    assert_eq!(connect_ex(&sock, &address), "EISCONN");
}

#[test]
fn a_nonblocking_connect_is_in_progress_and_then_refused() {
    let (_keep, address) = bound_socket();
    let sock = tcp();
    sock.setblocking(false).unwrap();
    assert_eq!(connect_ex(&sock, &address), "EINPROGRESS");
    wait_until_connect_has_ended(&sock);
    assert_eq!(connect_ex(&sock, &address), "ECONNREFUSED");
}

#[test]
fn a_nonblocking_connect_that_hangs_is_already_in_progress() {
    let (_keep, address) = full_listener();
    let sock = tcp();
    sock.setblocking(false).unwrap();
    assert_eq!(connect_ex(&sock, &address), "EINPROGRESS");
    assert_eq!(connect_ex(&sock, &address), "EALREADY");
}

/// No errno: neither is an answer of connect(2).
#[test]
fn connect_ex_fails_for_a_name_that_does_not_resolve_and_for_a_bad_port() {
    for mode in MODES {
        let sock = tcp();
        sock.settimeout(mode).unwrap();
        let error = sock.connect_ex(("no..name", 1)).unwrap_err();
        assert!(error.get_ref().unwrap().is::<sock::GaiError>(), "{error}");
        let error = sock.connect_ex(("127.0.0.1", 65_536)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

/// The kernel cannot report when there is room in the queue (unix(7)), so there is nothing to wait
/// for.
#[test]
fn a_connect_with_a_timeout_to_a_full_unix_queue_fails_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("listener");
    let unix = || Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    let listener = unix();
    listener.bind(&path).unwrap();
    listener.listen(0).unwrap();
    let mut waiting = Vec::new();
    let error = loop {
        let client = unix();
        client.settimeout(LONG).unwrap();
        match client.connect(&path) {
            Ok(()) => waiting.push(client),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100, "a queue of length 0 takes one connection after another");
    };
    assert_eq!((error.kind(), errno(&error).and_then(errno_name)), (ErrorKind::WouldBlock, Some("EAGAIN")));
}
