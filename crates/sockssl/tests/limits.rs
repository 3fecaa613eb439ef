//! What a call may cost: time, once, and memory.

mod support;

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sockssl::{CERT_NONE, CERT_REQUIRED, WrapOptions};
use support::{Pki, connection, join, wrapped};

#[test]
fn a_first_call_that_shakes_hands_has_one_deadline_for_both() {
    let pki = Pki::new();
    let lazily = WrapOptions::new().do_handshake_on_connect(false);
    let timeout = Duration::from_secs(2);
    for sends in [false, true] {
        let (theirs, ours) = connection();
        let server = pki.server().wrap_socket_server_with(theirs, &lazily).unwrap();
        server.socket().settimeout(timeout).unwrap();
        // The client comes late, and then neither reads nor writes.
        let client = pki.client();
        let (late, left) = std::sync::mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            // Not a sign to wait for, but how slow this client is.
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
        assert!(elapsed >= timeout && elapsed < timeout * 3 / 2, "{elapsed:?}");
        join(thread);
    }
}

#[test]
fn a_handshake_without_any_time_makes_no_sense() {
    let pki = Pki::new();
    let (theirs, _ours) = connection();
    let options = WrapOptions::new().handshake_timeout(Duration::ZERO);
    let error = pki.server().wrap_socket_server_with(theirs, &options).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    assert!(error.to_string().contains("handshake_timeout"), "{error}");
}

#[test]
fn asking_for_much_costs_no_more_than_what_comes() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    client.sendall(b"little").unwrap();
    let data = server.recv(usize::MAX).unwrap();
    assert_eq!(data, b"little");
    assert!(data.capacity() <= 1 << 16, "{}", data.capacity());
}

#[test]
fn a_certificate_nobody_judged_stays_so_whatever_is_set_later() {
    let pki = Pki::new();
    let careless = pki.client();
    careless.set_check_hostname(false);
    careless.set_verify_mode(CERT_NONE).unwrap();
    let (_server, client) = wrapped(&pki.server(), &careless);
    careless.set_verify_mode(CERT_REQUIRED).unwrap();
    assert_eq!(client.getpeercert().unwrap(), None);

    // And one that was judged stays judged.
    let (_server, client) = wrapped(&pki.server(), &careless);
    careless.set_verify_mode(CERT_NONE).unwrap();
    assert!(client.getpeercert().unwrap().is_some());
}

/// TLS 1.2 has it, and our side none: who asks must not wait for the next data.
#[test]
fn a_renegotiation_is_refused_at_once() {
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
