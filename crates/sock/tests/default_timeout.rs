//! The default timeout is the mode of every socket made after it was set, and
//! of no other.
//!
//! It belongs to the whole process. So this file is a process of its own, and
//! its tests take turns.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sock::{
    AF_INET, AF_UNIX, ConnectionOptions, POLLIN, Poll, SOCK_NONBLOCK, SOCK_STREAM, Socket,
    create_connection, create_connection_with, create_server, getdefaulttimeout, poll, setdefaulttimeout,
    socketpair, socketpair_with,
};

type Mode = Option<Duration>;

const BLOCKING: Mode = None;
const NONBLOCKING: Mode = Some(Duration::ZERO);
const SECONDS: Mode = Some(Duration::from_secs(30));
const MODES: [Mode; 3] = [BLOCKING, NONBLOCKING, SECONDS];

static TURN: Mutex<()> = Mutex::new(());

/// Runs `test` while `mode` is the default, which before and afterwards is `None`.
#[track_caller]
fn with_default_timeout<T>(mode: Mode, test: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            setdefaulttimeout(None).unwrap();
        }
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _restore = Restore;
    assert_eq!(getdefaulttimeout(), None);
    setdefaulttimeout(mode).unwrap();
    assert_eq!(getdefaulttimeout(), mode);
    test()
}

/// The timeout is `mode` and the descriptor's flag agrees; `flags:` is octal.
#[track_caller]
fn assert_mode(sock: &Socket, mode: Mode) {
    assert_eq!(sock.gettimeout(), mode);
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", sock.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
    let blocks = flags & SOCK_NONBLOCK.as_raw() == 0;
    assert_eq!(blocks, mode == BLOCKING, "the descriptor blocks, with timeout {mode:?}");
}

fn tcp() -> Socket {
    Socket::new(AF_INET, SOCK_STREAM, 0).unwrap()
}

/// A listener and a client in its queue, made while the default is `None`.
fn listener_with_a_client() -> (Socket, Socket) {
    with_default_timeout(BLOCKING, || {
        let listener = create_server(("127.0.0.1", 0)).unwrap();
        let client = tcp();
        client.connect(listener.getsockname().unwrap()).unwrap();
        // It takes a moment on a busy machine.
        assert_eq!(poll(&mut [Poll::new(&listener, POLLIN)], SECONDS).unwrap(), 1, "no client came");
        (listener, client)
    })
}

#[test]
fn a_new_socket_has_it() {
    for mode in MODES {
        with_default_timeout(mode, || assert_mode(&tcp(), mode));
    }
}

#[test]
fn both_sockets_of_a_pair_have_it() {
    for mode in MODES {
        let (one, other) = with_default_timeout(mode, || socketpair().unwrap());
        assert_mode(&one, mode);
        assert_mode(&other, mode);
    }
}

#[test]
fn an_accepted_socket_has_it_whatever_the_listener_has() {
    for mode in MODES {
        for listeners_own in MODES {
            let (listener, _client) = listener_with_a_client();
            listener.settimeout(listeners_own).unwrap();
            let (accepted, _) = with_default_timeout(mode, || listener.accept().unwrap());
            assert_mode(&accepted, mode);
        }
    }
}

#[test]
fn an_adopted_descriptor_has_it() {
    for mode in [NONBLOCKING, SECONDS] {
        let fd = OwnedFd::from(with_default_timeout(BLOCKING, tcp));
        with_default_timeout(mode, || assert_mode(&Socket::try_from(fd).unwrap(), mode));
    }
}

#[test]
fn a_server_and_a_connection_have_it() {
    with_default_timeout(SECONDS, || {
        let server = create_server(("127.0.0.1", 0)).unwrap();
        assert_mode(&server, SECONDS);
        let port = server.getsockname().unwrap().port().unwrap();
        assert_mode(&create_connection(("127.0.0.1", port)).unwrap(), SECONDS);
    });
}

#[test]
fn a_connections_own_timeout_goes_before_it() {
    let (listener, _client) = listener_with_a_client();
    let port = listener.getsockname().unwrap().port().unwrap();
    let own = Some(Duration::from_secs(20));
    for mode in [BLOCKING, own] {
        let options = ConnectionOptions::new().timeout(mode);
        with_default_timeout(SECONDS, || {
            assert_mode(&create_connection_with(("127.0.0.1", port), &options).unwrap(), mode);
        });
    }
}

#[test]
fn sock_nonblock_goes_before_it() {
    with_default_timeout(SECONDS, || {
        let kind = SOCK_STREAM | SOCK_NONBLOCK;
        assert_mode(&Socket::new(AF_INET, kind, 0).unwrap(), NONBLOCKING);
        assert_mode(&socketpair_with(AF_UNIX, kind, 0).unwrap().0, NONBLOCKING);
    });
}

#[test]
fn a_dup_has_the_timeout_of_its_original_instead() {
    for mode in MODES {
        let sock = with_default_timeout(mode, tcp);
        with_default_timeout(Some(Duration::from_secs(20)), || assert_mode(&sock.dup().unwrap(), mode));
    }
}

#[test]
fn a_socket_that_was_there_before_keeps_its_own() {
    let sock = with_default_timeout(BLOCKING, tcp);
    with_default_timeout(NONBLOCKING, || assert_mode(&sock, BLOCKING));
    sock.settimeout(SECONDS).unwrap();
    with_default_timeout(NONBLOCKING, || assert_mode(&sock, SECONDS));
}

#[test]
fn it_decides_how_a_call_of_a_new_socket_fails() {
    for (mode, kind) in
        [(NONBLOCKING, ErrorKind::WouldBlock), (Some(Duration::from_millis(5)), ErrorKind::TimedOut)]
    {
        let (ours, _theirs) = with_default_timeout(mode, || socketpair().unwrap());
        assert_eq!(ours.recv(1).unwrap_err().kind(), kind, "{mode:?}");
    }
}

#[test]
fn one_beyond_584_years_is_refused_and_the_old_one_stays() {
    with_default_timeout(SECONDS, || {
        let error = setdefaulttimeout(Duration::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert_eq!(getdefaulttimeout(), SECONDS);
    });
}

#[test]
fn timeouts_are_numbers_durations_or_none() {
    with_default_timeout(BLOCKING, || {
        setdefaulttimeout(2.5).unwrap();
        assert_eq!(getdefaulttimeout(), Some(Duration::from_millis(2500)));
        setdefaulttimeout(5).unwrap();
        assert_eq!(getdefaulttimeout(), Some(Duration::from_secs(5)));
        assert_eq!(setdefaulttimeout(-1).unwrap_err().to_string(), "Timeout value out of range");
        assert_eq!(getdefaulttimeout(), Some(Duration::from_secs(5)));
        setdefaulttimeout(None).unwrap();
    });
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let address = ("127.0.0.1", server.getsockname().unwrap().port().unwrap());
    let client =
        create_connection_with(address, &ConnectionOptions::new().timeout(2.5).deadline(60)).unwrap();
    assert_eq!(client.gettimeout(), Some(Duration::from_millis(2500)));
    client.set_recv_timeout(1).unwrap();
    assert_eq!(client.recv_timeout().unwrap(), Some(Duration::from_secs(1)));
    for options in [ConnectionOptions::new().timeout(-0.5), ConnectionOptions::new().deadline(f32::NAN)] {
        let error = create_connection_with(address, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}
