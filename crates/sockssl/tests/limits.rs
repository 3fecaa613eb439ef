//! The promise: a call takes no more time than its deadline and no more memory than its data.

mod support;

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sockssl::{CERT_NONE, CERT_REQUIRED, WrapOptions};
use support::{Pki, connection, join, wrapped};

#[test]
fn a_call_and_its_handshake_have_one_deadline() {
    let pki = Pki::new();
    let lazily = WrapOptions::new().do_handshake_on_connect(false);
    let timeout = Duration::from_secs(2);
    let once = |sends| {
        let (theirs, ours) = connection();
        let server = pki.server().wrap_socket_server_with(theirs, &lazily).unwrap();
        server.socket().settimeout(timeout).unwrap();
        // The client starts late, and then neither reads nor writes.
        let client = pki.client();
        let (late, left) = std::sync::mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            // This is not synchronization: the client is slow on purpose.
            let _ = left.recv_timeout(timeout * 2 / 3);
            let client = client.wrap_socket_client(ours, "localhost").unwrap();
            let _ = left.recv_timeout(support::LIMIT);
            drop(client);
        });
        let begin = Instant::now();
        let error = match sends {
            true => server.sendall(&vec![0; 64 << 20]).unwrap_err(),
            false => server.recv(1).unwrap_err(),
        };
        let elapsed = begin.elapsed();
        drop(late);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(elapsed >= timeout, "{elapsed:?}");
        join(thread);
        elapsed
    };
    for sends in [false, true] {
        // A busy machine may delay one call, but not three.
        let in_time = (0..3).any(|_| once(sends) < timeout * 3 / 2);
        assert!(in_time, "the handshake and the call had a timeout each");
    }
}

#[test]
fn a_zero_handshake_timeout_is_an_error() {
    let pki = Pki::new();
    let (theirs, _ours) = connection();
    let options = WrapOptions::new().handshake_timeout(Duration::ZERO);
    let error = pki.server().wrap_socket_server_with(theirs, &options).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("handshake_timeout"), "{error}");
}

#[test]
fn a_large_bufsize_allocates_no_more_than_one_record() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    client.sendall(b"little").unwrap();
    let data = server.recv(usize::MAX).unwrap();
    assert_eq!(data, b"little");
    assert!(data.capacity() <= 1 << 16, "{}", data.capacity());
}

#[test]
fn a_later_setting_does_not_change_whether_a_certificate_was_verified() {
    let pki = Pki::new();
    let unverified = pki.client();
    unverified.set_check_hostname(false);
    unverified.set_verify_mode(CERT_NONE).unwrap();
    let (_server, client) = wrapped(&pki.server(), &unverified);
    unverified.set_verify_mode(CERT_REQUIRED).unwrap();
    assert_eq!(client.getpeercert().unwrap(), None);

    // A verified certificate stays verified.
    let (_server, client) = wrapped(&pki.server(), &unverified);
    unverified.set_verify_mode(CERT_NONE).unwrap();
    assert!(client.getpeercert().unwrap().is_some());
}

/// The refusal (TLS 1.2) is sent without waiting for the next data.
#[test]
fn a_renegotiation_is_refused_immediately() {
    let pki = Pki::new();
    let listener = sock::create_server(("127.0.0.1", 0)).unwrap();
    listener.settimeout(support::LIMIT).unwrap();
    let client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &listener.getsockname().unwrap().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut client) = client else {
        return support::leave_out("openssl", "SOCK_REQUIRE_PEERS");
    };
    let (accepted, _) = listener.accept().unwrap();
    accepted.settimeout(support::LIMIT).unwrap();
    let server = pki.server().wrap_socket_server(accepted).unwrap();
    let mut input = client.stdin.take().unwrap();
    let begin = Instant::now();
    let ended = thread::spawn(move || server.recv(10).map(|data| data.len()));
    input.write_all(b"R\n").unwrap();
    let mut text = String::new();
    client.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    client.wait().unwrap();
    assert!(text.contains("no renegotiation"), "{text}");
    assert!(begin.elapsed() < support::LIMIT / 2, "{:?}", begin.elapsed());
    join(ended).unwrap_or_default();
}

#[test]
fn a_handshake_timeout_is_a_number_a_duration_or_none() {
    let pki = Pki::new();
    let options = WrapOptions::new().do_handshake_on_connect(false);
    for options in
        [options.handshake_timeout(2.5), options.handshake_timeout(5), options.handshake_timeout(None)]
    {
        pki.server().wrap_socket_server_with(connection().0, &options).unwrap();
    }
    for options in [options.handshake_timeout(-1), options.handshake_timeout(f64::NAN)] {
        let error = pki.server().wrap_socket_server_with(connection().0, &options).unwrap_err();
        assert!(error.to_string().contains("handshake_timeout"), "{error}");
    }
}
