//! The promise: a reload replaces all files or none, while the server runs.

mod support;

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use sockssl::{Reason, SSLError};
use support::{Pki, for_clients, handshake, ssl_error, wrapped};

/// Returns the serial number of the certificate that a client gets.
fn number(pki: &Pki, server: &sockssl::SSLContext) -> String {
    let (_server, client) = wrapped(server, &pki.client());
    client.getpeercert().unwrap().unwrap().serial_number
}

fn issue(pki: &Pki, serial: u64) {
    let mut params = pki.leaf("localhost");
    params.serial_number = Some(serial.into());
    pki.issue("server", params);
}

#[test]
fn new_connections_get_the_new_certificate_and_open_ones_continue() {
    let pki = Pki::new();
    issue(&pki, 0x11);
    let server = pki.server();
    let (ours, theirs) = wrapped(&server, &pki.client());
    assert_eq!(number(&pki, &server), "11");
    issue(&pki, 0x22);
    assert_eq!(number(&pki, &server), "11", "not before the reload");
    server.reload().unwrap();
    assert_eq!(number(&pki, &server), "22");
    ours.sendall(b"still here").unwrap();
    assert_eq!(theirs.recv(100).unwrap(), b"still here");
    // Loading the files again does the same.
    issue(&pki, 0x33);
    server.load_cert_chain(pki.path("server.pem"), pki.path("server.key")).unwrap();
    assert_eq!(number(&pki, &server), "33");
    let stats = server.session_stats();
    assert_eq!((stats.reloads, stats.reloads_failed), (1, 0));
}

#[test]
fn an_invalid_file_is_named_and_changes_nothing() {
    let pki = Pki::new();
    issue(&pki, 0x11);
    let server = pki.strict_server();
    server.set_verify_mode(sockssl::CERT_OPTIONAL).unwrap();
    let good = (pki.read("server.pem"), pki.read("server.key"));
    pki.issue("other", pki.leaf("localhost"));
    let other_key = pki.read("other.key");
    let faults: [(&str, &str, Option<&str>, Reason); 4] = [
        ("server.pem", "server.pem", Some("no PEM"), Reason::NoStartLine),
        ("server.pem", "server.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n"), Reason::BadPem),
        ("server.key", "server.key", Some(&other_key), Reason::KeyValuesMismatch),
        ("ca.pem", "ca.pem", Some("no PEM"), Reason::NoStartLine),
    ];
    let ca = pki.read("ca.pem");
    for (round, (file, named, text, reason)) in faults.into_iter().enumerate() {
        if let Some(text) = text {
            pki.write(file, text);
        }
        let (error, text) = ssl_error(server.reload());
        assert_eq!(error.reason(), reason, "{text}");
        assert!(text.contains(named), "{text}");
        pki.write("ca.pem", &ca);
        assert_eq!(number(&pki, &server), "11");
        pki.write("server.pem", &good.0);
        pki.write("server.key", &good.1);
        assert_eq!(server.session_stats().reloads_failed, round as u64 + 1);
    }
    for file in ["server.pem", "server.key"] {
        fs::remove_file(pki.path(file)).unwrap();
        let error = server.reload().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains(file) && SSLError::of(&error).is_none(), "{error}");
        assert_eq!(number(&pki, &server), "11");
        pki.write("server.pem", &good.0);
        pki.write("server.key", &good.1);
    }
    issue(&pki, 0x22);
    server.reload().unwrap();
    assert_eq!(number(&pki, &server), "22");
}

#[test]
fn a_session_from_before_a_revocation_is_not_resumed() {
    let pki = Pki::new();
    let mut params = for_clients(pki.leaf("ada"));
    params.serial_number = Some(5_u64.into());
    pki.issue("ada", params);
    let server = pki.strict_server();
    pki.revoke("crl.pem", 999, 5);
    server.load_verify_locations(pki.path("crl.pem")).unwrap();
    let client = pki.client_with("ada");
    for resumed in [false, true] {
        let (ours, theirs) = wrapped(&server, &client);
        ours.sendall(b"x").unwrap();
        theirs.recv(1).unwrap();
        assert_eq!(ours.session_reused(), resumed);
        assert!(ours.getpeercert().unwrap().is_some());
    }
    pki.revoke("crl.pem", 5, 5);
    server.reload().unwrap();
    let (served, _client) = handshake(&server, &client, "localhost");
    let (error, text) = ssl_error(served);
    assert_eq!(error.reason(), Reason::CertificateVerifyFailed);
    assert!(text.contains("revoked"), "{text}");
}

#[test]
fn no_handshake_fails_while_certificates_change_under_load() {
    let pki = Pki::new();
    issue(&pki, 0x10);
    let server = pki.server();
    let stop = AtomicBool::new(false);
    let (pki, server, stop) = (&pki, &server, &stop);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(move || {
                    let mut seen = 0_u32;
                    while !stop.load(Ordering::Relaxed) {
                        wrapped(server, &pki.client());
                        seen += 1;
                    }
                    seen
                })
            })
            .collect();
        for round in 0..60_u64 {
            issue(pki, 0x10 + round % 5);
            server.reload().unwrap();
            if round % 10 == 0 {
                pki.write("server.key", "broken");
                server.reload().unwrap_err();
            }
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
    let stats = server.session_stats();
    assert_eq!((stats.reloads, stats.reloads_failed), (60, 6));
    assert_eq!(stats.accept, stats.accept_good);
}
