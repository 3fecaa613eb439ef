//! The promise: connections work in both TLS versions, in all modes of the socket.

mod support;

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sock::{SHUT_RDWR, SHUT_WR, SocketWriter, StreamSocket};
use sockssl::{
    CERT_NONE, CERT_OPTIONAL, PROTOCOL_TLS_CLIENT, Reason, SSLContext, SSLError, SSLSocket, TLSVersion,
    WrapOptions, cert_time,
};
use support::{LIMIT, Pki, connection, for_clients, handshake, join, ssl_error, wrapped};

const VERSIONS: [(TLSVersion, &str); 2] =
    [(TLSVersion::TLSv1_2, "TLSv1.2"), (TLSVersion::TLSv1_3, "TLSv1.3")];

/// Receives until the end of file.
fn all(stream: &SSLSocket) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    stream.makefile_rb().read_to_end(&mut data)?;
    Ok(data)
}

#[test]
fn both_versions_are_supported_and_reported() {
    let pki = Pki::new();
    for (version, name) in VERSIONS {
        let client = pki.client();
        client.set_minimum_version(version);
        client.set_maximum_version(version);
        let (server, client) = wrapped(&pki.server(), &client);
        client.sendall(b"hello").unwrap();
        assert_eq!(server.recv(100).unwrap(), b"hello");
        for end in [&server, &client] {
            assert_eq!(end.version(), Some(name));
            let (cipher, protocol, bits) = end.cipher().unwrap();
            assert!(
                cipher.contains("AES") && protocol == name && bits >= 128,
                "{cipher} {protocol} {bits}"
            );
            assert_eq!(end.server_hostname().as_deref(), Some("localhost"));
            assert_eq!(end.selected_alpn_protocol(), None);
        }
        assert!(server.server_side() && !client.server_side());
    }
}

#[test]
fn large_data_arrives_in_both_directions() {
    let pki = Pki::new();
    let data: Vec<u8> = (0..3_000_001_u32).map(|n| (n.wrapping_mul(n) >> 9) as u8).collect();
    for (version, _) in VERSIONS {
        let server = pki.server();
        server.set_maximum_version(version);
        let (server, client) = wrapped(&server, &pki.client());
        let expected = data.clone();
        let echo = thread::spawn(move || {
            let got = all(&server).unwrap();
            assert!(got == expected);
            server.sendall(&got).unwrap();
        });
        client.sendall(&data).unwrap();
        client.shutdown(SHUT_WR).unwrap();
        assert!(all(&client).unwrap() == data);
        join(echo);
    }
}

/// A thread that blocks in one direction holds no lock of the other one.
#[test]
fn two_threads_send_and_receive_at_the_same_time() {
    const SIZE: usize = 4_000_000;
    let pki = Pki::new();
    for (version, _) in VERSIONS {
        let server = pki.server();
        server.set_maximum_version(version);
        let (server, client) = wrapped(&server, &pki.client());
        thread::scope(|scope| {
            for end in [&server, &client] {
                scope.spawn(move || {
                    end.sendall(&vec![7; SIZE]).unwrap();
                    end.shutdown(SHUT_WR).unwrap();
                });
                scope.spawn(move || assert_eq!(all(end).unwrap().len(), SIZE));
            }
        });
    }
}

#[test]
fn a_blocked_receive_does_not_block_a_send() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    thread::scope(|scope| {
        let reader = scope.spawn(|| client.recv(100));
        let echo = scope.spawn(|| {
            let data = server.recv(100)?;
            server.sendall(&data)
        });
        // The response that ends the receive depends on this send.
        client.sendall(b"past it").unwrap();
        echo.join().unwrap().unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), b"past it");
    });
}

#[test]
fn the_timeout_is_one_deadline_for_a_whole_receive() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    let timeout = Duration::from_millis(300);
    client.socket().settimeout(timeout).unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // A record that arrives byte by byte does not extend the deadline.
        let server = &server;
        scope.spawn(move || {
            for byte in [23, 3, 3, 0x40, 0].iter().chain(&[0; 1000]) {
                if server.socket().send(&[*byte]).is_err()
                    || stopped.recv_timeout(Duration::from_millis(20))
                        != Err(mpsc::RecvTimeoutError::Timeout)
                {
                    break;
                }
            }
        });
        let begin = Instant::now();
        let error = client.recv(1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(begin.elapsed() >= timeout, "{:?}", begin.elapsed());
        assert!(begin.elapsed() < LIMIT / 2, "{:?}", begin.elapsed());
        drop(stop);
    });
}

#[test]
fn the_timeout_is_one_deadline_for_a_whole_sendall() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    client.socket().settimeout(Duration::from_millis(200)).unwrap();
    let begin = Instant::now();
    let error = client.sendall(&vec![0; 50_000_000]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(begin.elapsed() < LIMIT / 2);
    drop(server);
}

#[test]
fn a_timed_out_receive_loses_nothing() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    client.socket().settimeout(Duration::from_millis(50)).unwrap();
    assert_eq!(client.recv(10).unwrap_err().kind(), io::ErrorKind::TimedOut);
    server.sendall(b"late").unwrap();
    client.socket().settimeout(LIMIT).unwrap();
    assert_eq!(client.recv(10).unwrap(), b"late");
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn an_expired_so_rcvtimeo_is_timed_out() {
    let pki = Pki::new();
    let (_server, client) = wrapped(&pki.server(), &pki.client());
    client.socket().settimeout(None).unwrap();
    // struct timeval: 50,000 microseconds.
    let timeval = [0_i64.to_ne_bytes(), 50_000_i64.to_ne_bytes()].concat();
    let timeval: &[u8] = &timeval;
    client.socket().setsockopt(sock::SOL_SOCKET, sock::SO_RCVTIMEO, timeval).unwrap();
    assert_eq!(client.recv(10).unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_non_blocking_socket_does_not_block_and_loses_no_data() {
    let pki = Pki::new();
    let (server, client) = connection();
    for end in [&server, &client] {
        end.settimeout(Duration::ZERO).unwrap();
    }
    let lazily = WrapOptions::new().do_handshake_on_connect(false);
    let server = pki.server().wrap_socket_server_with(server, &lazily).unwrap();
    let client = pki.client().wrap_socket_client_with(client, "localhost", &lazily).unwrap();
    let begin = Instant::now();
    let (mut ready, mut rounds) = ([false; 2], 0);
    while ready != [true; 2] {
        for (end, ready) in [&client, &server].into_iter().zip(&mut ready) {
            match end.do_handshake() {
                Ok(()) => *ready = true,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
            }
        }
        rounds += 1;
        assert!(begin.elapsed() < LIMIT);
    }
    assert!(rounds > 1);
    assert_eq!(server.recv(10).unwrap_err().kind(), io::ErrorKind::WouldBlock);

    // Fill the buffers. Then everything arrives in order.
    let mut sent = Vec::new();
    let mut number = 0_u8;
    loop {
        let piece = vec![number; 10_000];
        match client.send(&piece) {
            Ok(count) => sent.extend(&piece[..count]),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                break;
            }
        }
        number = number.wrapping_add(1);
        assert!(sent.len() < 100_000_000);
    }
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let _ = client.flush();
        match server.recv(65536) {
            Ok(data) => got.extend(data),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        assert!(begin.elapsed() < LIMIT);
    }
    assert!(got == sent);
}

#[test]
fn the_first_call_does_a_deferred_handshake() {
    let pki = Pki::new();
    let (server, client) = connection();
    let context = pki.server();
    let lazily = WrapOptions::new().do_handshake_on_connect(false);
    let server = context.wrap_socket_server_with(server, &lazily).unwrap();
    assert_eq!(context.session_stats().accept_good, 0);
    assert_eq!((server.version(), server.getpeercert_binary(), server.pending()), (None, None, 0));
    let echo = thread::spawn(move || {
        let data = server.recv(10).unwrap();
        server.sendall(&data).unwrap();
    });
    let client = pki.client().wrap_socket_client_with(client, "localhost", &lazily).unwrap();
    client.sendall(b"first").unwrap();
    assert_eq!(client.recv(10).unwrap(), b"first");
    join(echo);
    assert_eq!(context.session_stats().accept_good, 1);
}

#[test]
fn the_alpn_order_of_the_server_decides() {
    let pki = Pki::new();
    let (server, client) = (pki.server(), pki.client());
    server.set_alpn_protocols(["h2", "http/1.1"]).unwrap();
    client.set_alpn_protocols(["spdy", "http/1.1", "h2"]).unwrap();
    let (server, client) = wrapped(&server, &client);
    assert_eq!(server.selected_alpn_protocol().as_deref(), Some("h2"));
    assert_eq!(client.selected_alpn_protocol().as_deref(), Some("h2"));
    let context = pki.client();
    assert_eq!(context.set_alpn_protocols([""]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(
        context.set_alpn_protocols(["x".repeat(256)]).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
}

#[test]
fn a_certificate_is_chosen_by_the_server_name() {
    let pki = Pki::new();
    let server = pki.server();
    for name in ["a.example", "*.b.example"] {
        let file = name.replace('*', "any");
        pki.issue(&file, pki.leaf(name));
        server
            .load_cert_chain_for(name, pki.path(&format!("{file}.pem")), pki.path(&format!("{file}.key")))
            .unwrap();
    }
    for (asked, shown) in
        [("a.example", "a.example"), ("x.b.example", "*.b.example"), ("localhost", "localhost")]
    {
        let (served, client) = handshake(&server, &pki.client(), asked);
        assert_eq!(served.unwrap().server_hostname().as_deref(), Some(asked));
        let certificate = client.unwrap().getpeercert().unwrap().unwrap();
        assert_eq!(certificate.subject_value("commonName"), Some(shown));
    }
}

#[test]
fn the_sni_callback_selects_a_context_or_sends_an_alert() {
    let pki = Pki::new();
    pki.issue("other", pki.leaf("other.example"));
    let (server, other) = (pki.server(), pki.server_with("other"));
    server.set_sni_callback(move |name| match name {
        Some("other.example") => Ok(Some(other.clone())),
        Some("forbidden.example") => Err(sockssl::ALERT_DESCRIPTION_UNRECOGNIZED_NAME),
        _ => Ok(None),
    });
    for name in ["other.example", "localhost"] {
        let (served, client) = handshake(&server, &pki.client(), name);
        let certificate = client.unwrap().getpeercert().unwrap().unwrap();
        assert_eq!(certificate.subject_value("commonName"), Some(name));
        served.unwrap();
    }
    let (served, client) = handshake(&server, &pki.client(), "forbidden.example");
    let (error, text) = ssl_error(served);
    assert_eq!(error.reason(), Reason::UnrecognizedName);
    assert!(text.contains("'forbidden.example'"), "{text}");
    let (error, _) = ssl_error(client);
    assert_eq!(error.reason(), Reason::Alert(sockssl::ALERT_DESCRIPTION_UNRECOGNIZED_NAME));
}

#[test]
fn a_server_gets_the_certificate_of_a_client() {
    let pki = Pki::new();
    pki.issue("ada", for_clients(pki.leaf("ada")));
    for (version, _) in VERSIONS {
        let server = pki.strict_server();
        server.set_maximum_version(version);
        let (served, _client) = wrapped(&server, &pki.client_with("ada"));
        let certificate = served.getpeercert().unwrap().unwrap();
        assert_eq!(certificate.subject_value("commonName"), Some("ada"));
        assert!(!served.getpeercert_binary().unwrap().is_empty());
        // CERT_OPTIONAL admits clients with and without a certificate.
        server.set_verify_mode(CERT_OPTIONAL).unwrap();
        let (served, _client) = wrapped(&server, &pki.client());
        assert_eq!(served.getpeercert().unwrap(), None);
        let (served, _client) = wrapped(&server, &pki.client_with("ada"));
        assert!(served.getpeercert().unwrap().is_some());
    }
}

#[test]
fn a_certificate_is_parsed_like_in_python() {
    let pki = Pki::new();
    let mut params = pki.leaf("localhost");
    params.serial_number = Some(0xabcdef_u64.into());
    let not_after = params.not_after;
    pki.issue("server", params);
    let (_server, client) = wrapped(&pki.server(), &pki.client());
    let certificate = client.getpeercert().unwrap().unwrap();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let subject: Vec<_> =
        certificate.subject.iter().filter(|(key, _)| key != "countryName").cloned().collect();
    assert!(subject.contains(&pair("commonName", "localhost")), "{subject:?}");
    assert!(subject.contains(&pair("organizationName", "sockssl")), "{subject:?}");
    assert!(
        certificate.issuer.iter().any(|(key, value)| key == "commonName" && value.starts_with("test CA "))
    );
    assert_eq!(certificate.subject_alt_name, [pair("DNS", "localhost"), pair("IP Address", "127.0.0.1")]);
    assert_eq!((certificate.version, certificate.serial_number.as_str()), (3, "ABCDEF"));
    let text = cert_time(certificate.not_after);
    assert!(text.ends_with(&format!("{} GMT", not_after.year())), "{text}");
    assert!(certificate.to_string().contains("CN=localhost"), "{certificate}");
}

#[test]
fn an_unverified_certificate_is_returned_in_der_only() {
    let pki = Pki::new();
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    assert_eq!(client.set_verify_mode(CERT_NONE).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    client.set_check_hostname(false);
    client.set_verify_mode(CERT_NONE).unwrap();
    let (_server, client) = wrapped(&pki.server(), &client);
    assert_eq!(client.getpeercert().unwrap(), None);
    assert!(client.getpeercert_binary().is_some());
}

/// `openssl req -x509` makes such certificates.
#[test]
fn a_loaded_self_signed_certificate_is_trusted() {
    let pki = Pki::new();
    let mut params = support::authority("localhost");
    params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    pki.write("self.pem", certificate.pem());
    pki.write("self.key", key.serialize_pem());
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(pki.path("self.pem")).unwrap();
    wrapped(&pki.server_with("self"), &client);
    let (_, client) = handshake(&pki.server_with("self"), &client, "elsewhere.example");
    assert_eq!(ssl_error(client).0.reason(), Reason::CertificateVerifyFailed);
}

#[test]
fn the_common_name_is_checked_only_if_enabled() {
    let pki = Pki::new();
    let mut params = pki.leaf("localhost");
    params.subject_alt_names.clear();
    pki.issue("server", params);
    let client = pki.client();
    let (_, refused) = handshake(&pki.server(), &client, "localhost");
    let (_, text) = ssl_error(refused);
    assert!(text.contains("has no subjectAltName"), "{text}");
    client.set_hostname_checks_common_name(true);
    wrapped(&pki.server(), &client);
    let (_, refused) = handshake(&pki.server(), &client, "other.example");
    assert_eq!(ssl_error(refused).0.reason(), Reason::CertificateVerifyFailed);
}

#[test]
fn sessions_are_resumed_and_counted() {
    let pki = Pki::new();
    for (version, _) in VERSIONS {
        let (server, client) = (pki.server(), pki.client());
        server.set_maximum_version(version);
        for round in 0..3 {
            let (ours, theirs) = wrapped(&server, &client);
            // In TLS 1.3 tickets are sent after the handshake.
            ours.sendall(b"x").unwrap();
            assert_eq!(theirs.recv(1).unwrap(), b"x");
            assert_eq!(
                (ours.session_reused(), theirs.session_reused()),
                (round > 0, round > 0),
                "{version:?}"
            );
        }
        let stats = server.session_stats();
        assert_eq!((stats.accept, stats.accept_good, stats.hits, stats.misses), (3, 3, 2, 0));
        assert!(stats.tickets >= 1, "{stats:?}");
        let stats = client.session_stats();
        assert_eq!((stats.connect, stats.connect_good, stats.hits), (3, 3, 2));

        // A server that has replaced its ticket keys counts a miss and does a full handshake.
        server.set_verify_mode(CERT_NONE).unwrap();
        let (ours, _theirs) = wrapped(&server, &client);
        assert!(!ours.session_reused());
        assert_eq!(server.session_stats().misses, 1, "{version:?}");
    }
    let (server, client) = (pki.server(), pki.client());
    server.set_num_tickets(0);
    for _ in 0..2 {
        let (ours, theirs) = wrapped(&server, &client);
        ours.sendall(b"x").unwrap();
        theirs.recv(1).unwrap();
        assert!(!ours.session_reused());
    }
}

#[test]
fn the_key_log_is_written_only_if_enabled() {
    let pki = Pki::new();
    let client = pki.client();
    assert_eq!(client.keylog_filename(), None);
    client.set_keylog_filename(pki.path("keys")).unwrap();
    wrapped(&pki.server(), &client);
    let keys = fs::read_to_string(pki.path("keys")).unwrap();
    assert!(keys.lines().any(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 ")), "{keys}");
    let error = client.set_keylog_filename(pki.path("no/where")).unwrap_err();
    assert!(error.kind() == io::ErrorKind::NotFound && error.to_string().contains("no/where"), "{error}");
    // An existing file is appended to.
    let again = pki.client();
    again.set_keylog_filename(pki.path("keys")).unwrap();
    wrapped(&pki.server(), &again);
    assert!(fs::read_to_string(pki.path("keys")).unwrap().len() > keys.len());
}

/// The secrets would be written to a file that another user may have chosen or can read.
#[cfg(unix)]
#[test]
fn a_key_log_is_not_a_link_and_not_writable_for_all_users() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let pki = Pki::new();
    let client = pki.client();
    let target = pki.write("target", "");
    for (target, link) in [(target.clone(), "link"), (pki.path("missing"), "dangling")] {
        symlink(target, pki.path(link)).unwrap();
        let error = client.set_keylog_filename(pki.path(link)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
    assert!(!pki.path("missing").exists());
    for mode in [0o666, 0o602] {
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        let error = client.set_keylog_filename(&target).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("target"), "{error}");
    }
    assert_eq!(client.keylog_filename(), None);
    // curl and browsers create the file with the mode that the umask allows. That is logged.
    for mode in [0o664, 0o644, 0o600] {
        fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        client.set_keylog_filename(&target).unwrap();
    }
    client.set_keylog_filename(pki.path("new")).unwrap();
    assert_eq!(fs::metadata(pki.path("new")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_close_notify_is_an_end_of_file_and_a_missing_one_is_an_error() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    server.close().unwrap();
    assert_eq!(client.recv(10).unwrap(), b"");
    assert_eq!(client.recv(10).unwrap(), b"");

    // Dropping sends a close_notify too.
    let (server, client) = wrapped(&pki.server(), &pki.client());
    drop(server);
    assert_eq!(client.recv(10).unwrap(), b"");

    for suppress in [false, true] {
        let (server, client) = connection();
        let context = pki.server();
        let thread = thread::spawn(move || context.wrap_socket_server(server).unwrap());
        let options = WrapOptions::new().suppress_ragged_eofs(suppress);
        let client = pki.client().wrap_socket_client_with(client, "localhost", &options).unwrap();
        let server = join(thread);
        server.sendall(b"half").unwrap();
        server.socket().shutdown(SHUT_WR).unwrap();
        assert_eq!(client.recv(10).unwrap(), b"half");
        for _ in 0..2 {
            match client.recv(10) {
                Ok(data) => assert!(suppress && data.is_empty()),
                Err(error) => {
                    assert!(!suppress);
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                    assert_eq!(SSLError::of(&error).unwrap().reason(), Reason::UnexpectedEof);
                }
            }
        }
    }
}

#[test]
fn a_half_closed_connection_still_receives() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    client.sendall(b"question").unwrap();
    client.shutdown(SHUT_WR).unwrap();
    assert_eq!(all(&server).unwrap(), b"question");
    server.sendall(b"answer").unwrap();
    server.close().unwrap();
    assert_eq!(all(&client).unwrap(), b"answer");
    assert_eq!(client.send(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

// Winsock does not guarantee that shutdown wakes a blocked receive, and under wine it sometimes
// does not.
#[test]
#[cfg_attr(windows, ignore = "Winsock does not guarantee it")]
fn a_shutdown_by_another_thread_wakes_a_blocked_receive() {
    let pki = Pki::new();
    for underneath in [false, true] {
        let (_server, client) = wrapped(&pki.server(), &pki.client());
        client.socket().settimeout(None).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| client.recv(10));
            if underneath {
                client.socket().shutdown(SHUT_RDWR).unwrap();
                assert_eq!(reader.join().unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            } else {
                client.shutdown(SHUT_RDWR).unwrap();
                assert_eq!(reader.join().unwrap().unwrap(), b"");
            }
        });
    }
}

#[test]
fn unwrap_tls_returns_the_socket_and_the_data_after_tls() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    let thread = thread::spawn(move || {
        assert_eq!(server.recv(100).unwrap(), b"last");
        let (sock, rest) = server.unwrap_tls().unwrap();
        assert_eq!(rest, b"");
        sock.sendall(b"plain").unwrap();
        sock
    });
    client.sendall(b"last").unwrap();
    let (plain, mut rest) = client.unwrap_tls().unwrap();
    while rest.len() < 5 {
        rest.extend(plain.recv(100).unwrap());
    }
    assert_eq!(rest, b"plain");
    drop(join(thread));

    // Unread data is an error.
    let (server, client) = wrapped(&pki.server(), &pki.client());
    server.sendall(b"unheard").unwrap();
    assert_eq!(ssl_error(client.unwrap_tls()).0.reason(), Reason::ApplicationDataAfterCloseNotify);
}

/// As in Python, where `suppress_ragged_eofs` affects receiving only.
#[test]
fn unwrap_tls_fails_without_a_close_notify() {
    let pki = Pki::new();
    for suppress in [false, true] {
        let (server, client) = connection();
        let context = pki.server();
        let thread = thread::spawn(move || context.wrap_socket_server(server).unwrap());
        let options = WrapOptions::new().suppress_ragged_eofs(suppress);
        let client = pki.client().wrap_socket_client_with(client, "localhost", &options).unwrap();
        let server = join(thread);
        server.socket().shutdown(SHUT_WR).unwrap();
        let (error, _) = ssl_error(client.unwrap_tls().map(drop));
        assert_eq!(error.reason(), Reason::UnexpectedEof, "{suppress}");
    }
}

#[test]
fn pending_counts_data_that_poll_does_not_report() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    server.sendall(b"0123456789").unwrap();
    server.sendall(b"abc").unwrap();
    assert_eq!(client.recv(4).unwrap(), b"0123");
    assert_eq!(client.pending(), 6);
    assert_eq!(StreamSocket::pending(&client), 6);
    assert_eq!(client.recv(10).unwrap(), b"456789");
    assert_eq!(client.recv(10).unwrap(), b"abc");
    assert_eq!(client.pending(), 0);
}

#[test]
fn makefile_reads_and_writes() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    let mut file = server.makefile_rwb();
    client.sendall(b"one\ntwo\n").unwrap();
    let mut line = String::new();
    file.read_line(&mut line).unwrap();
    file.read_line(&mut line).unwrap();
    assert_eq!(line, "one\ntwo\n");
    file.write_all(b"three").unwrap();
    file.flush().unwrap();
    assert_eq!(client.recv(10).unwrap(), b"three");
}

#[test]
fn formatted_text_is_sent_in_one_record() {
    let pki = Pki::new();
    let (server, mut client) = wrapped(&pki.server(), &pki.client());
    // Reads one record from the wire.
    let next_record = || {
        let mut record = vec![0; 5];
        (&mut server.socket()).read_exact(&mut record).unwrap();
        record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
        (&mut server.socket()).read_exact(&mut record[5..]).unwrap();
        record.len()
    };
    client.sendall(b"number 1 of 2\n").unwrap();
    let expected = next_record();
    // The compiler would format literals itself.
    let (one, two) = std::hint::black_box((1, 2));
    writeln!(&client, "number {one} of {two}").unwrap();
    assert_eq!(next_record(), expected, "&SSLSocket");
    writeln!(client, "number {one} of {two}").unwrap();
    assert_eq!(next_record(), expected, "SSLSocket");
    writeln!(SocketWriter::new(&client, 0), "number {one} of {two}").unwrap();
    assert_eq!(next_record(), expected, "SocketWriter");
    let mut file = client.makefile_rwb();
    writeln!(file, "number {one} of {two}").unwrap();
    file.flush().unwrap();
    assert_eq!(next_record(), expected, "SocketPair");
}

#[test]
fn reading_and_writing_through_std_traits() {
    let pki = Pki::new();
    let (mut server, mut client) = wrapped(&pki.server(), &pki.client());
    client.write_all(b"as it is, ").unwrap();
    write!(&client, "or {}", String::from("formatted")).unwrap();
    client.shutdown(SHUT_WR).unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "as it is, or formatted");
}

/// A peer that does not receive delays the close_notify for a limited time.
#[test]
fn a_canceller_does_not_extend_the_limit_of_a_shutdown() {
    let pki = Pki::new();
    let (_server, client) = wrapped(&pki.server(), &pki.client());
    let _canceller = client.socket().canceller().unwrap();
    client.socket().settimeout(Duration::ZERO).unwrap();
    while client.socket().send(&[0; 65_536]).is_ok() {}
    client.socket().settimeout(None).unwrap();
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(client.shutdown(SHUT_RDWR)));
    ended.recv_timeout(LIMIT).expect("it ends").unwrap();
}

/// As CPython's `SSLSocket.dup`, which raises `NotImplementedError`.
#[test]
fn a_socket_that_carries_tls_is_not_duplicated() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    let error = server.socket().dup().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("clear text"), "{error}");
    assert_eq!(server.socket().kind(), sock::SOCK_STREAM);
    let other = thread::spawn(move || client.unwrap_tls());
    let (plain, _) = server.unwrap_tls().unwrap();
    plain.dup().unwrap();
    join(other).unwrap();
}
