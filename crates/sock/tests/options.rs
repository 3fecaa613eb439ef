//! The promise: options that are structures are set and read as what they are, and
//! what they say is done.

use std::io;
use std::time::Duration;
#[cfg(unix)]
use std::time::Instant;

use sock::{AF_INET, Linger, SOCK_STREAM, Socket};
#[cfg(unix)]
use sock::{SO_LINGER, SOL_SOCKET, create_connection, create_server, socketpair};

#[test]
fn linger_is_read_as_it_was_set() {
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    assert!(!sock.linger().unwrap().l_onoff);
    for (l_onoff, l_linger) in [(true, 5), (true, 0), (true, 30_000)] {
        let linger = Linger { l_onoff, l_linger };
        sock.set_linger(linger).unwrap();
        assert_eq!(sock.linger().unwrap(), linger);
    }
    // Switched off, Linux keeps the seconds.
    sock.set_linger(Linger::default()).unwrap();
    assert!(!sock.linger().unwrap().l_onoff);
}

#[test]
fn a_timeout_is_rounded_up_and_never_to_none() {
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    assert_eq!((sock.recv_timeout().unwrap(), sock.send_timeout().unwrap()), (None, None));
    for nanoseconds in [1, 999, 1_001, 1_500_000, 1_999_999_999] {
        let timeout = Duration::from_nanos(nanoseconds);
        sock.set_recv_timeout(timeout).unwrap();
        // Linux's ticks have 10 ms at most.
        let read = sock.recv_timeout().unwrap().unwrap();
        assert!(read >= timeout && read <= timeout + Duration::from_millis(10), "{timeout:?}: {read:?}");
    }
    assert_eq!(sock.send_timeout().unwrap(), None);
    sock.set_send_timeout(Duration::from_secs(7)).unwrap();
    assert_eq!(sock.send_timeout().unwrap(), Some(Duration::from_secs(7)));
    sock.set_recv_timeout(None).unwrap();
    assert_eq!(sock.recv_timeout().unwrap(), None);
    assert_eq!(sock.set_recv_timeout(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[cfg(target_os = "linux")]
#[test]
fn the_longest_timeout_is_taken() {
    let sock = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    sock.set_recv_timeout(Duration::MAX).unwrap();
    // To Linux so long is for ever.
    assert_eq!(sock.recv_timeout().unwrap(), None);
}

/// Runs what may hang if a promise is broken, in a thread that is left to itself then.
#[cfg(unix)]
fn in_time<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(call()));
    receiver.recv_timeout(Duration::from_secs(30)).expect("it ends")
}

#[cfg(unix)]
#[test]
fn a_blocking_receive_that_the_system_ends_would_block() {
    let (ours, _theirs) = socketpair().unwrap();
    let timeout = Duration::from_millis(20);
    ours.set_recv_timeout(timeout).unwrap();
    assert_eq!(ours.gettimeout(), None);
    let begin = Instant::now();
    assert_eq!(in_time(move || ours.recv(1)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(begin.elapsed() >= timeout);
}

#[cfg(unix)]
#[test]
fn a_blocking_send_that_the_system_ends_would_block() {
    let (ours, _theirs) = socketpair().unwrap();
    ours.set_send_timeout(Duration::from_millis(20)).unwrap();
    // Fills the peer's queue, until nothing goes any more.
    let error = in_time(move || {
        loop {
            if let Err(error) = ours.send(&[0; 65_536]) {
                return error;
            }
        }
    });
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

/// Not on Windows: under wine the peer reads an end of file.
#[cfg(unix)]
#[test]
fn no_time_to_linger_resets_the_connection() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let port = server.getsockname().unwrap().port().unwrap();
    let client = create_connection(("127.0.0.1", port)).unwrap();
    let (connection, _) = server.accept().unwrap();
    client.setsockopt(SOL_SOCKET, SO_LINGER, Linger { l_onoff: true, l_linger: 0 }).unwrap();
    drop(client);
    assert_eq!(connection.recv(1).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
