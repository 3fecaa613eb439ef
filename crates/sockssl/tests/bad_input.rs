//! The promise: every error has a reason and a sentence that names the file or the peer, the
//! peer gets an alert, and no call blocks past its deadline.

mod support;

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use sock::Socket;
use sockssl::{
    AlertDescription, CERT_REQUIRED, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, Reason, SSLContext,
    SSLError, TLSVersion, VERIFY_CRL_CHECK_CHAIN, VERIFY_CRL_CHECK_LEAF, WrapOptions,
};
use support::{LIMIT, Pki, authority, connection, day, for_clients, handshake, ssl_error, wrapped};

const TLS12: (TLSVersion, TLSVersion) = (TLSVersion::TLSv1_2, TLSVersion::TLSv1_2);
const TLS13: (TLSVersion, TLSVersion) = (TLSVersion::TLSv1_3, TLSVersion::TLSv1_3);

fn limit(context: &SSLContext, (minimum, maximum): (TLSVersion, TLSVersion)) {
    context.set_minimum_version(minimum);
    context.set_maximum_version(maximum);
}

/// An encrypted key as `openssl pkcs8 -topk8` writes it, with the password "open sesame".
fn encrypted(pki: &Pki, name: &str) -> bool {
    std::process::Command::new("openssl")
        .args(["pkcs8", "-topk8", "-passout", "pass:open sesame", "-in"])
        .arg(pki.path("server.key"))
        .arg("-out")
        .arg(pki.path(name))
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn an_invalid_file_is_named_with_the_reason() {
    let pki = Pki::new();
    pki.issue("other", pki.leaf("other"));
    pki.write("text", "this is no PEM\n");
    pki.write("cut", &pki.read("server.pem")[..200]);
    let damaged = pki.read("server.pem").replacen("MII", "!!!", 1);
    pki.write("damaged", damaged);
    pki.write("nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    pki.write("traditional", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n");
    pki.write("strange", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let cases = [
        ("text", "server.key", "text", Reason::NoStartLine),
        ("cut", "server.key", "cut", Reason::BadPem),
        ("damaged", "server.key", "damaged", Reason::BadPem),
        ("nonsense", "server.key", "nonsense", Reason::BadPem),
        ("server.pem", "text", "text", Reason::NoStartLine),
        ("server.pem", "server.pem", "server.pem", Reason::NoStartLine),
        ("server.pem", "other.key", "other.key", Reason::KeyValuesMismatch),
        ("server.pem", "traditional", "traditional", Reason::PasswordRequired),
        ("server.pem", "strange", "strange", Reason::UnsupportedKey),
    ];
    let context = pki.server();
    for (certificate, key, at_fault, reason) in cases {
        let (error, text) = ssl_error(context.load_cert_chain(pki.path(certificate), pki.path(key)));
        assert_eq!(error.reason(), reason, "{certificate} {key}: {text}");
        assert!(text.starts_with(&format!("{}: ", pki.path(at_fault).display())), "{text}");
    }
    for (certificate, key, missing) in
        [("no.pem", "server.key", "no.pem"), ("server.pem", "no.key", "no.key")]
    {
        let error = context.load_cert_chain(pki.path(certificate), pki.path(key)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains(missing), "{error}");
    }
    for (file, reason) in
        [("text", Reason::NoStartLine), ("server.key", Reason::NoStartLine), ("nonsense", Reason::BadPem)]
    {
        let (error, text) = ssl_error(context.load_verify_locations(pki.path(file)));
        assert_eq!(error.reason(), reason, "{text}");
        assert!(text.contains(file), "{text}");
    }
    // The certificate that was loaded before still works.
    wrapped(&context, &pki.client());
}

#[test]
fn an_encrypted_key_needs_its_password() {
    let pki = Pki::new();
    if !encrypted(&pki, "secret.key") {
        return support::leave_out("openssl", "SOCK_REQUIRE_PEERS");
    }
    let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    let (certificate, key) = (pki.path("server.pem"), pki.path("secret.key"));
    let (error, text) = ssl_error(context.load_cert_chain(&certificate, &key));
    assert_eq!(error.reason(), Reason::PasswordRequired);
    assert!(text.contains("secret.key"), "{text}");
    for wrong in ["", "open", "open sesame\n"] {
        let (error, text) = ssl_error(context.load_cert_chain_with_password(&certificate, &key, wrong));
        assert_eq!(error.reason(), Reason::BadDecrypt, "{text}");
        assert!(text.contains("secret.key") && !text.contains("sesame"), "{text}");
    }
    context.load_cert_chain_with_password(&certificate, &key, "open sesame").unwrap();
    // Certificate and key may be in one file. The password is ignored for a plain key.
    let both = pki.write("both", pki.read("secret.key") + &pki.read("server.pem"));
    context.load_cert_chain_with_password(&both, &both, "open sesame").unwrap();
    context.load_cert_chain_with_password(&certificate, pki.path("server.key"), "unused").unwrap();
    context.reload().unwrap();
    wrapped(&context, &pki.client());
}

#[test]
fn an_ed25519_key_is_loaded() {
    let pki = Pki::new();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let ca = authority("ed25519 CA");
    let ca_key = KeyPair::generate().unwrap();
    let ca = ca.self_signed(&ca_key).unwrap();
    let leaf = pki.leaf("localhost").signed_by(&key, &ca, &ca_key).unwrap();
    pki.write("ed.pem", leaf.pem() + &key.serialize_pem());
    let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    context.load_cert_chain(pki.path("ed.pem"), pki.path("ed.pem")).unwrap();
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_verify_data(ca.pem()).unwrap();
    wrapped(&context, &client);
}

#[test]
fn an_invalid_context_fails_before_anything_is_sent() {
    let pki = Pki::new();
    let empty = SSLContext::new(PROTOCOL_TLS_SERVER);
    assert_eq!(
        ssl_error(empty.wrap_socket_server(connection().0)).0.reason(),
        Reason::NoCertificateAssigned
    );
    let strict = pki.server();
    strict.set_verify_mode(CERT_REQUIRED).unwrap();
    let (error, text) = ssl_error(strict.wrap_socket_server(connection().0));
    assert_eq!(error.reason(), Reason::BadConfiguration);
    assert!(text.contains("load_verify_locations"), "{text}");
    let without_authorities = SSLContext::new(PROTOCOL_TLS_CLIENT);
    let result = without_authorities.wrap_socket_client(connection().0, "localhost");
    assert_eq!(ssl_error(result).0.reason(), Reason::BadConfiguration);
    let client = pki.client();
    client.set_maximum_version(TLSVersion::TLSv1_2);
    client.set_minimum_version(TLSVersion::TLSv1_3);
    let result = client.wrap_socket_client(connection().0, "localhost");
    assert_eq!(ssl_error(result).0.reason(), Reason::BadConfiguration);
    for flags in [VERIFY_CRL_CHECK_LEAF, VERIFY_CRL_CHECK_CHAIN] {
        let client = pki.client();
        client.set_verify_flags(flags);
        let result = client.wrap_socket_client(connection().0, "localhost");
        assert_eq!(ssl_error(result).0.reason(), Reason::BadConfiguration);
    }
    let invalid =
        |result: io::Result<sockssl::SSLSocket>| result.unwrap_err().kind() == io::ErrorKind::InvalidInput;
    assert!(invalid(pki.client().wrap_socket_server(connection().0)));
    assert!(invalid(pki.server().wrap_socket_client(connection().0, "localhost")));
    assert!(invalid(pki.client().wrap_socket_client(connection().0, None)));
    assert!(invalid(pki.client().wrap_socket_client(connection().0, "not a host")));
    assert!(invalid(pki.client().wrap_socket_client(connection().0, "")));
    let nonblocking = connection().0;
    nonblocking.setblocking(false).unwrap();
    assert!(invalid(pki.server().wrap_socket_server(nonblocking)));
    let datagram = Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0).unwrap();
    assert!(invalid(pki.server().wrap_socket_server(datagram)));
    let unconnected = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    let error = pki.server().wrap_socket_server(unconnected).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}

/// The client's error names the cause and the certificate, and the server gets the alert.
#[test]
fn an_invalid_server_certificate_is_rejected_with_its_cause() {
    let pki = Pki::new();
    let mut expired = pki.leaf("localhost");
    (expired.not_before, expired.not_after) = (day(-10), day(-2));
    pki.issue("expired", expired);
    let mut early = pki.leaf("localhost");
    (early.not_before, early.not_after) = (day(2), day(10));
    pki.issue("early", early);
    pki.issue("elsewhere", pki.leaf("elsewhere.example"));
    pki.issue("purpose", for_clients(pki.leaf("localhost")));
    let key = KeyPair::generate().unwrap();
    let own = pki.leaf("localhost").self_signed(&key).unwrap();
    pki.write("self.pem", own.pem());
    pki.write("self.key", key.serialize_pem());
    let other = Pki::new();
    fs::copy(other.path("server.pem"), pki.path("unknown.pem")).unwrap();
    fs::copy(other.path("server.key"), pki.path("unknown.key")).unwrap();
    // An authority of the same name, with another key.
    let namesake_key = KeyPair::generate().unwrap();
    let mut namesake = authority("x");
    namesake.distinguished_name = pki.ca().params().distinguished_name.clone();
    let namesake = namesake.self_signed(&namesake_key).unwrap();
    let leaf = pki.leaf("localhost").signed_by(&key, &namesake, &namesake_key).unwrap();
    pki.write("namesake.pem", leaf.pem());
    pki.write("namesake.key", key.serialize_pem());
    let mut revoked = pki.leaf("localhost");
    revoked.serial_number = Some(4242_u64.into());
    pki.issue("revoked", revoked);
    let crl = pki.revoke("crl.pem", 4242, 5);

    let cases: [(&str, &[&str], &str); 8] = [
        ("expired", &["certificate has expired, on ", " GMT"], "certificate_expired"),
        ("early", &["certificate is not yet valid, before "], "certificate_expired"),
        (
            "elsewhere",
            &["hostname mismatch", "'localhost'", "valid for elsewhere.example"],
            "bad_certificate",
        ),
        ("purpose", &["unsuitable certificate purpose"], "unsupported_certificate"),
        ("self", &["unable to get local issuer certificate", "self-signed"], "unknown_ca"),
        ("unknown", &["unable to get local issuer certificate", "issued by \"CN=test CA"], "unknown_ca"),
        ("namesake", &["unable to get local issuer certificate", "whose name is trusted"], "unknown_ca"),
        ("revoked", &["certificate revoked"], "certificate_revoked"),
    ];
    for versions in [TLS12, TLS13] {
        for (name, words, alert) in cases {
            let (server, client) = (pki.server_with(name), pki.client());
            client.load_verify_locations(&crl).unwrap();
            limit(&server, versions);
            let (served, refused) = handshake(&server, &client, "localhost");
            let (error, text) = ssl_error(refused);
            assert_eq!(error.reason(), Reason::CertificateVerifyFailed, "{name}: {text}");
            assert!(text.starts_with("TLS handshake with 127.0.0.1:"), "{text}");
            for word in words.iter().chain(&["(localhost): certificate verify failed: ", "CN="]) {
                assert!(text.contains(word), "{name}: no {word:?} in {text}");
            }
            let (error, text) = ssl_error(served);
            let Reason::Alert(received) = error.reason() else { panic!("{name}: {text}") };
            assert_eq!(received.name(), alert, "{name}");
            assert_eq!(client.failures().get(&Reason::CertificateVerifyFailed), Some(&1));
            assert_eq!(server.failures().values().sum::<u64>(), 1);
        }
    }
}

#[test]
fn verify_flags_require_a_revocation_list() {
    let pki = Pki::new();
    let (fresh, outdated) = (pki.revoke("fresh.pem", 1, 5), pki.revoke("outdated.pem", 1, -1));
    let refused = |crl: &std::path::Path, flags| {
        let client = pki.client();
        client.load_verify_locations(crl).unwrap();
        client.set_verify_flags(flags);
        handshake(&pki.server(), &client, "localhost").1.is_err()
    };
    for flags in [VERIFY_CRL_CHECK_LEAF, VERIFY_CRL_CHECK_CHAIN] {
        assert!(!refused(&fresh, flags));
        assert!(refused(&outdated, flags), "an expired list does not count");
    }
    assert!(!refused(&outdated, sockssl::VERIFY_DEFAULT));
    // A list of another authority does not count.
    let other = Pki::new();
    let foreign = other.revoke("foreign.pem", 1, 5);
    assert!(refused(&foreign, VERIFY_CRL_CHECK_LEAF));
    assert!(!refused(&foreign, sockssl::VERIFY_DEFAULT));
}

/// The server's error names the cause, and the client gets the alert.
#[test]
fn a_client_without_a_valid_certificate_is_rejected() {
    let pki = Pki::new();
    let mut expired = for_clients(pki.leaf("late"));
    (expired.not_before, expired.not_after) = (day(-10), day(-2));
    pki.issue("expired", expired);
    let mut revoked = for_clients(pki.leaf("out"));
    revoked.serial_number = Some(77_u64.into());
    pki.issue("revoked", revoked);
    let crl = pki.revoke("crl.pem", 77, 5);
    let other = Pki::new();
    other.issue("unknown", for_clients(other.leaf("unknown")));
    for file in ["unknown.pem", "unknown.key"] {
        fs::copy(other.path(file), pki.path(file)).unwrap();
    }
    for versions in [TLS12, TLS13] {
        let cases = [
            (
                None,
                Reason::PeerDidNotReturnACertificate,
                "certificate_required",
                "did not return a certificate",
            ),
            (Some("expired"), Reason::CertificateVerifyFailed, "certificate_expired", "CN=late"),
            (Some("revoked"), Reason::CertificateVerifyFailed, "certificate_revoked", "CN=out"),
            (Some("unknown"), Reason::CertificateVerifyFailed, "unknown_ca", "CN=unknown"),
        ];
        for (name, reason, alert, word) in cases {
            let server = pki.strict_server();
            server.load_verify_locations(&crl).unwrap();
            limit(&server, versions);
            let client = name.map_or_else(|| pki.client(), |name| pki.client_with(name));
            let (served, client) = handshake(&server, &client, "localhost");
            let (error, text) = ssl_error(served);
            assert_eq!(error.reason(), reason, "{name:?}: {text}");
            assert!(text.contains(word), "{text}");
            // In TLS 1.3 the client's handshake is done before the server verifies the client.
            // Its first call, be it a receive or a send, returns the alert.
            let (error, text) = match client {
                Err(error) => ssl_error::<()>(Err(error)),
                Ok(client) => ssl_error(client.recv(1)),
            };
            let Reason::Alert(received) = error.reason() else { panic!("{name:?}: {text}") };
            assert_eq!(received.name(), alert, "{name:?}: {text}");
        }
    }
}

#[test]
fn a_rejected_client_that_sends_gets_the_alert() {
    let pki = Pki::new();
    let (served, client) = handshake(&pki.strict_server(), &pki.client(), "localhost");
    assert!(served.is_err());
    let client = client.expect("in TLS 1.3 the client's handshake is done first");
    let begin = Instant::now();
    let error = loop {
        match client.sendall(&[0; 10_000]) {
            Ok(()) => assert!(begin.elapsed() < LIMIT),
            Err(error) => break error,
        }
    };
    let reason = SSLError::of(&error).map(SSLError::reason);
    assert_eq!(reason, Some(Reason::Alert(AlertDescription::from_raw(116))), "{error}");
}

#[test]
fn both_sides_fail_without_a_common_version_or_protocol() {
    let pki = Pki::new();
    let (server, client) = (pki.server(), pki.client());
    limit(&server, TLS13);
    limit(&client, TLS12);
    let (served, client) = handshake(&server, &client, "localhost");
    assert_eq!(ssl_error(served).0.reason(), Reason::UnsupportedProtocol);
    assert_eq!(ssl_error(client).0.reason(), Reason::Alert(AlertDescription::from_raw(70)));

    let (server, client) = (pki.server(), pki.client());
    server.set_alpn_protocols(["h2"]).unwrap();
    client.set_alpn_protocols(["http/1.1"]).unwrap();
    let (served, client) = handshake(&server, &client, "localhost");
    assert_eq!(ssl_error(served).0.reason(), Reason::NoApplicationProtocol);
    assert_eq!(ssl_error(client).0.reason(), Reason::Alert(AlertDescription::from_raw(120)));
}

/// Sends these bytes to a server, and then waits or shuts down. Returns the server's error, what
/// it sent, and the elapsed time.
fn served(bytes: &[u8], leaves: bool, timeout: Duration) -> (io::Error, Vec<u8>, Duration) {
    let pki = Pki::new();
    let (server, client) = connection();
    server.settimeout(timeout).unwrap();
    let context = pki.server();
    let begin = Instant::now();
    // Everything arrives before the server reads, so that unread input would reset the
    // connection if the server did not linger.
    client.sendall(bytes).unwrap();
    let thread = thread::spawn(move || context.wrap_socket_server(server).map(drop).unwrap_err());
    if leaves {
        client.shutdown(sock::SHUT_WR).unwrap();
    }
    let mut answer = Vec::new();
    loop {
        match client.recv(1000) {
            Ok(data) if data.is_empty() => break,
            Ok(data) => answer.extend(data),
            Err(error) => panic!("the alert was lost: {error}"),
        }
    }
    (support::join(thread), answer, begin.elapsed())
}

const FATAL: [u8; 6] = [21, 3, 3, 0, 2, 2];

#[test]
fn a_client_without_tls_gets_an_alert() {
    let unexpected_message = [&FATAL[..], &[10]].concat();
    let cases: [(&[u8], Reason); 5] = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Reason::HttpRequest),
        (b"POST /form HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Reason::HttpRequest),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Reason::WrongVersionNumber),
        (&[0; 40_000], Reason::WrongVersionNumber),
        // The hello of SSL 2.
        (&[0x80, 0x2e, 1, 0, 2, 0, 21, 0, 0, 0, 16], Reason::WrongVersionNumber),
    ];
    for (bytes, reason) in cases {
        let (error, answer, _) = served(bytes, false, LIMIT);
        let ssl = SSLError::of(&error).unwrap_or_else(|| panic!("{error}"));
        assert_eq!(ssl.reason(), reason, "{error}");
        assert_eq!(answer, unexpected_message, "{error}");
    }
    // A handshake record with invalid contents.
    let (error, answer, _) = served(&[22, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3], false, LIMIT);
    assert_eq!(SSLError::of(&error).unwrap().reason(), Reason::ProtocolViolation, "{error}");
    assert_eq!(answer[..6], FATAL, "{answer:?}");
    // A record that is longer than the limit.
    let (error, answer, _) = served(&[22, 3, 1, 0xff, 0xff, 1, 0, 0], false, LIMIT);
    assert!(SSLError::of(&error).is_some(), "{error}");
    assert_eq!(answer[..6], FATAL, "{answer:?}");
}

#[test]
fn an_old_version_is_refused_with_its_alert() {
    // The hello of TLS 1.1, with one cipher and no extensions.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let (error, answer, _) = served(&hello, false, LIMIT);
    assert_eq!(SSLError::of(&error).unwrap().reason(), Reason::UnsupportedProtocol, "{error}");
    assert_eq!(answer, [&FATAL[..], &[70]].concat());
}

/// The first record of a real client.
fn client_hello() -> Vec<u8> {
    let pki = Pki::new();
    let (server, client) = connection();
    client.settimeout(Duration::from_millis(100)).unwrap();
    let thread = thread::spawn(move || pki.client().wrap_socket_client(client, "localhost").map(drop));
    let mut hello = Vec::new();
    while hello.len() < 5 || hello.len() < 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])) {
        hello.extend(server.recv(5000).unwrap());
    }
    assert!(support::join(thread).is_err());
    hello
}

#[test]
fn a_client_that_disconnects_during_the_handshake_is_reported() {
    let hello = client_hello();
    let close_notify = [21, 3, 3, 0, 2, 1, 0];
    let cases: [Vec<u8>; 5] = [
        Vec::new(),
        b"\x16".to_vec(),
        hello[..100].to_vec(),
        close_notify.to_vec(),
        // RUSTSEC-2024-0336: a close_notify after the hello caused an infinite loop in a server.
        [&hello[..], &close_notify].concat(),
    ];
    for (number, bytes) in cases.into_iter().enumerate() {
        // After a close_notify the client need not shut down.
        let (error, _, took) = served(&bytes, number < 3, LIMIT);
        let ssl = SSLError::of(&error).unwrap_or_else(|| panic!("{error}"));
        assert_eq!(ssl.reason(), Reason::ClosedInHandshake, "{error}");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("127.0.0.1:"), "{error}");
        assert!(took < LIMIT / 2);
    }
    // RUSTSEC-2024-0399: a fragmented hello caused a panic in a server. The close_notify comes
    // between the fragments.
    let mut pieces = vec![22, 3, 1, 0, 50];
    pieces.extend(&hello[5..55]);
    pieces.extend(close_notify);
    let (error, _, _) = served(&pieces, true, LIMIT);
    assert!(SSLError::of(&error).is_some(), "{error}");
}

#[test]
fn a_silent_client_times_out() {
    let hello = client_hello();
    let timeout = Duration::from_millis(200);
    for bytes in [&b""[..], &hello[..1], &hello[..200], &hello] {
        let (error, _, took) = served(bytes, false, timeout);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(error.to_string().contains("TLS handshake with 127.0.0.1:"), "{error}");
        assert!(took >= timeout && took < timeout * 10, "{took:?}");
    }
}

#[test]
fn a_handshake_of_single_bytes_has_one_deadline() {
    let hello = client_hello();
    let pki = Pki::new();
    let (server, client) = connection();
    server.settimeout(None).unwrap();
    let timeout = Duration::from_millis(250);
    let options = WrapOptions::new().handshake_timeout(timeout);
    let context = pki.server();
    let thread = thread::spawn(move || {
        let begin = Instant::now();
        (context.wrap_socket_server_with(server, &options).map(drop), begin.elapsed())
    });
    for byte in hello {
        // Without a deadline this would take half a minute.
        let pause = client.settimeout(Duration::from_millis(50)).and_then(|()| client.recv(1));
        if !pause.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
            || client.send(&[byte]).is_err()
        {
            break;
        }
    }
    let (result, took) = support::join(thread);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert!(took >= timeout && took < timeout * 8, "{took:?}");
}

/// Forwards bytes one by one, each in its own packet.
fn one_by_one(from: &Socket, to: &Socket) {
    let _ = to.setsockopt(sock::IPPROTO_TCP, sock::TCP_NODELAY, true);
    while let Ok(data) = from.recv(4000) {
        if data.is_empty() {
            break;
        }
        for byte in data {
            if to.send(&[byte]).is_err() {
                return;
            }
        }
    }
    let _ = to.shutdown(sock::SHUT_WR);
}

#[test]
fn a_connection_works_byte_by_byte() {
    let pki = Pki::new();
    let ((server, near_server), (near_client, client)) = (connection(), connection());
    let (contexts, data) = ((pki.server(), pki.client()), vec![9; 5000]);
    thread::scope(|scope| {
        scope.spawn(|| one_by_one(&near_server, &near_client));
        scope.spawn(|| one_by_one(&near_client, &near_server));
        let echo = scope.spawn(|| {
            let server = contexts.0.wrap_socket_server(server).unwrap();
            let data = server.recv(10_000).unwrap();
            server.sendall(&data).unwrap();
        });
        let client = contexts.1.wrap_socket_client(client, "localhost").unwrap();
        client.sendall(&data).unwrap();
        assert!(client.recv(10_000).unwrap() == data);
        echo.join().unwrap();
    });
}

#[test]
fn a_hello_fragmented_into_many_records_is_accepted() {
    let hello = client_hello();
    let mut records = Vec::new();
    for piece in hello[5..].chunks(7) {
        records.extend([22, 3, 1, 0, piece.len() as u8]);
        records.extend(piece);
    }
    let (error, answer, _) = served(&records, true, LIMIT);
    // The server answers with its hello.
    assert_eq!(answer.first(), Some(&22), "{error}");
    assert_eq!(SSLError::of(&error).unwrap().reason(), Reason::ClosedInHandshake);
}

#[test]
fn a_modified_record_ends_the_connection() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    server.sendall(b"before").unwrap();
    let forged = [&[23, 3, 3, 0, 40][..], &[1; 40]].concat();
    server.socket().sendall(&forged).unwrap();
    assert_eq!(client.recv(10).unwrap(), b"before");
    for _ in 0..2 {
        assert_eq!(ssl_error(client.recv(10)).0.reason(), Reason::DecryptionFailed);
        assert_eq!(ssl_error(client.send(b"x")).0.reason(), Reason::DecryptionFailed);
    }
    let (error, _) = ssl_error(server.recv(10));
    assert_eq!(error.reason(), Reason::Alert(AlertDescription::from_raw(20)));
}

#[test]
fn a_server_without_tls_is_reported() {
    let pki = Pki::new();
    for (answer, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "plain HTTP"),
        (b"220 mail.example ESMTP\r\n", "does not speak TLS"),
    ] {
        let (server, client) = connection();
        let thread = thread::spawn(move || {
            server.recv(1000).unwrap();
            server.sendall(answer).unwrap();
            server
        });
        let (error, text) = ssl_error(pki.client().wrap_socket_client(client, "localhost"));
        assert_eq!(error.reason(), Reason::WrongVersionNumber, "{text}");
        assert!(text.contains(words), "{text}");
        drop(support::join(thread));
    }
}

#[test]
fn a_damaged_certificate_causes_no_panic() {
    // Each byte of a certificate is changed in turn.
    let pki = Pki::new();
    let good = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let der = good.self_signed(&key).unwrap().der().to_vec();
    for at in 0..der.len() {
        let mut bad = der.clone();
        bad[at] ^= 0x5a;
        let pem = rcgen_pem(&bad);
        pki.write("bad.pem", &pem);
        pki.write("bad.key", key.serialize_pem());
        let context = SSLContext::new(PROTOCOL_TLS_SERVER);
        if context.load_cert_chain(pki.path("bad.pem"), pki.path("bad.key")).is_ok() {
            let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
            if client.load_verify_data(&pem).is_ok() && at % 8 == 0 {
                let (_, client) = handshake(&context, &client, "localhost");
                let _ = client.map(|client| client.getpeercert());
            }
        }
    }
}

fn rcgen_pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", support::base64(der))
}

#[test]
fn calls_after_a_failed_handshake_fail_immediately() {
    let pki = Pki::new();
    let lazily = WrapOptions::new().do_handshake_on_connect(false);
    let (server, client) = connection();
    let context = pki.server();
    // The client sends plain HTTP.
    client.sendall(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let server = context.wrap_socket_server_with(server, &lazily).unwrap();
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(ssl_error(server.recv(1)).0.reason(), Reason::HttpRequest);
        assert_eq!(ssl_error(server.send(b"x")).0.reason(), Reason::HttpRequest);
        assert_eq!(ssl_error(server.do_handshake()).0.reason(), Reason::HttpRequest);
    }
    assert_eq!(context.failures().into_iter().collect::<Vec<_>>(), [(Reason::HttpRequest, 1)]);
    assert!(begin.elapsed() < LIMIT / 4);
}

/// Records without data do not extend a call.
#[test]
fn a_flood_of_empty_records_ends() {
    let pki = Pki::new();
    let mut flood = client_hello();
    flood.extend([20, 3, 3, 0, 1, 1].repeat(20_000));
    let (server, client) = connection();
    server.settimeout(Duration::from_secs(2)).unwrap();
    let begin = Instant::now();
    let thread = thread::spawn(move || pki.server().wrap_socket_server(server).map(drop));
    while client.sendall(&flood).is_ok() {
        assert!(begin.elapsed() < LIMIT / 2);
    }
    assert!(support::join(thread).is_err());
}
