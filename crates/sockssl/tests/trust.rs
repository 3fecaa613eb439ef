//! The promise: loaded authorities are trusted as issuers, and other loaded certificates only as a
//! peer's own.

mod support;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use sockssl::{
    AlertDescription, CERT_REQUIRED, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, Reason, SSLContext,
    VERIFY_CRL_CHECK_CHAIN, VERIFY_CRL_CHECK_LEAF,
};
use support::{Pki, authority, day, for_clients, handshake, leave_out, ssl_error};

/// Writes the self-signed `NAME.pem` with `NAME.key`, and `under.pem`, which it signed.
fn with_one_below(pki: &Pki, name: &str, params: CertificateParams, below: CertificateParams) {
    let (key, below_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let issuer = params.self_signed(&key).unwrap();
    pki.write(&format!("{name}.pem"), issuer.pem());
    pki.write(&format!("{name}.key"), key.serialize_pem());
    pki.write("under.pem", below.signed_by(&below_key, &issuer, &key).unwrap().pem());
    pki.write("under.key", below_key.serialize_pem());
}

fn trusting(pki: &Pki, name: &str) -> SSLContext {
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(pki.path(name)).unwrap();
    client
}

#[test]
fn a_loaded_leaf_is_not_an_authority() {
    let pki = Pki::new();
    let mut without_usage = authority("no signer");
    without_usage.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let mut explicit = pki.leaf("localhost");
    explicit.is_ca = IsCa::ExplicitNoCa;
    for (name, params) in
        [("plain", pki.leaf("localhost")), ("explicit", explicit), ("usage", without_usage)]
    {
        with_one_below(&pki, name, params, pki.leaf("localhost"));
        let client = trusting(&pki, &format!("{name}.pem"));
        let (error, text) = ssl_error(handshake(&pki.server_with("under"), &client, "localhost").1);
        assert_eq!(error.reason(), Reason::CertificateVerifyFailed, "{name}");
        assert!(text.contains("no trusted authority signed it"), "{text}");
    }
    // The certificate itself is trusted.
    let client = trusting(&pki, "plain.pem");
    handshake(&pki.server_with("plain"), &client, "localhost").1.expect("pinned");

    // The same holds for clients.
    let client = for_clients(pki.leaf("ada"));
    with_one_below(&pki, "client", client.clone(), client);
    let server = pki.server();
    server.load_verify_locations(pki.path("client.pem")).unwrap();
    server.set_verify_mode(CERT_REQUIRED).unwrap();
    handshake(&server, &pki.client_with("client"), "localhost").0.expect("pinned");
    let (error, _) = ssl_error(handshake(&server, &pki.client_with("under"), "localhost").0);
    assert_eq!(error.reason(), Reason::CertificateVerifyFailed);
}

#[test]
fn an_expired_authority_is_not_trusted() {
    let pki = Pki::new();
    for (begin, end, words) in [(-10, -1, "has expired"), (1, 10, "not yet valid")] {
        let mut late = authority("late CA");
        (late.not_before, late.not_after) = (day(begin), day(end));
        with_one_below(&pki, "late", late, pki.leaf("localhost"));
        let client = trusting(&pki, "late.pem");
        let (error, text) = ssl_error(handshake(&pki.server_with("under"), &client, "localhost").1);
        assert_eq!(error.reason(), Reason::CertificateVerifyFailed);
        assert!(text.contains(words) && text.contains("late CA"), "{text}");
    }
}

#[test]
fn verify_flags_require_a_list_for_a_pinned_certificate_too() {
    let pki = Pki::new();
    let other = Pki::new();
    let foreign = other.revoke("foreign.pem", 1, 5);
    let (fresh, outdated) = (pki.revoke("fresh.pem", 1, 5), pki.revoke("outdated.pem", 1, -1));
    for flags in [VERIFY_CRL_CHECK_LEAF, VERIFY_CRL_CHECK_CHAIN] {
        for (crl, good) in [(&foreign, false), (&outdated, false), (&fresh, true)] {
            let client = trusting(&pki, "server.pem");
            client.load_verify_locations(crl).unwrap();
            client.set_verify_flags(flags);
            let (_, result) = handshake(&pki.server(), &client, "localhost");
            assert_eq!(result.is_ok(), good, "{flags:?} {}", crl.display());
        }
    }
}

#[test]
fn a_server_without_a_certificate_for_the_name_reports_it() {
    let pki = Pki::new();
    let server = SSLContext::new(PROTOCOL_TLS_SERVER);
    server.load_cert_chain_for("a.example", pki.path("server.pem"), pki.path("server.key")).unwrap();
    let (served, refused) = handshake(&server, &pki.client(), "localhost");
    let (error, text) = ssl_error(served);
    assert_eq!(error.reason(), Reason::UnrecognizedName, "{text}");
    assert!(text.contains("'localhost'"), "{text}");
    let (error, text) = ssl_error(refused);
    assert_eq!(error.reason(), Reason::Alert(AlertDescription::from_raw(112)), "{text}");
}

/// Runs `openssl s_client` with these arguments. Returns the server's result and what the client
/// prints.
fn served(server: &SSLContext, words: &[&str]) -> (std::io::Result<sockssl::SSLSocket>, String) {
    let listener = sock::create_server(("127.0.0.1", 0)).unwrap();
    let address = listener.getsockname().unwrap().to_string();
    let client = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &address])
        .args(words)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    listener.settimeout(support::LIMIT).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.settimeout(support::LIMIT).unwrap();
    let result = server.wrap_socket_server(accepted);
    let output = client.wait_with_output().unwrap();
    (result, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_client_that_does_not_support_the_kind_of_key_gets_an_alert() {
    if std::process::Command::new("openssl").arg("version").output().is_err() {
        return leave_out("openssl", "SOCK_REQUIRE_PEERS");
    }
    // The server has an ECDSA key.
    let pki = Pki::new();
    for words in [
        &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"][..],
        &["-tls1_2", "-sigalgs", "RSA-PSS+SHA256"],
        &["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"],
    ] {
        let (result, printed) = served(&pki.server(), words);
        let (error, text) = ssl_error(result);
        assert_eq!(error.reason(), Reason::NoSharedCipher, "{words:?}: {text}");
        assert!(printed.contains("alert handshake failure"), "{words:?}: {printed}");
    }
}

/// Runs `openssl` with these arguments in the directory of certificates.
fn openssl(pki: &Pki, words: &str) -> bool {
    let output =
        std::process::Command::new("openssl").args(words.split(' ')).current_dir(pki.path("")).output();
    output.is_ok_and(|output| {
        assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
        true
    })
}

#[test]
fn unsupported_certificates_and_keys_are_described_in_words() {
    let pki = Pki::new();
    let (key, ca_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let ca = authority("the CA").self_signed(&ca_key).unwrap();
    for (file, text) in [
        ("our.pem", ca.pem()),
        ("our.key", ca_key.serialize_pem()),
        ("old.key", key.serialize_pem()),
        ("v3.ext", "subjectAltName=DNS:localhost".to_owned()),
    ] {
        pki.write(file, text);
    }
    if !openssl(&pki, "req -new -key old.key -subj /CN=localhost -out old.csr") {
        return leave_out("openssl", "SOCK_REQUIRE_PEERS");
    }
    let readable = |text: &str| {
        assert!(!text.contains(['{', '[', '(']) || text.contains("(\"CN="), "{text}");
        assert!(!text.contains("Error") && !text.contains("Context"), "{text}");
    };
    let sign = "x509 -req -in old.csr -CA our.pem -CAkey our.key -days 5 -out";

    assert!(openssl(&pki, &format!("{sign} sha1.pem -sha1 -extfile v3.ext")));
    let server = SSLContext::new(PROTOCOL_TLS_SERVER);
    server.load_cert_chain(pki.path("sha1.pem"), pki.path("old.key")).unwrap();
    let (_, text) = ssl_error(handshake(&server, &trusting(&pki, "our.pem"), "localhost").1);
    assert!(text.contains("the signature algorithm is too weak"), "{text}");
    readable(&text);

    assert!(openssl(&pki, &format!("{sign} v1.pem")));
    let (error, text) = ssl_error(server.load_cert_chain(pki.path("v1.pem"), pki.path("old.key")));
    assert_eq!(error.reason(), Reason::BadPem);
    assert!(text.contains("v1.pem: the certificate: the certificate has version 1"), "{text}");
    readable(&text);

    for words in ["ED448", "RSA -pkeyopt rsa_keygen_bits:1024", "EC -pkeyopt ec_paramgen_curve:secp256k1"] {
        assert!(openssl(&pki, &format!("genpkey -out odd.key -algorithm {words}")));
        let (error, text) = ssl_error(server.load_cert_chain(pki.path("sha1.pem"), pki.path("odd.key")));
        assert_eq!(error.reason(), Reason::UnsupportedKey);
        let most = if cfg!(feature = "aws-lc-rs") { 8192 } else { 4096 };
        let supported = format!("unsupported private key; supported are RSA of 2048 to {most} bits");
        assert!(text.contains(&format!("odd.key: {supported}")), "{text}");
        readable(&text);
    }

    // A Windows editor writes a byte order mark and CRLF.
    let text = pki.read("server.pem").replace('\n', "\r\n");
    pki.write("marked.pem", format!("\u{feff}{text}"));
    server.load_cert_chain(pki.path("marked.pem"), pki.path("server.key")).unwrap();
}

/// CPython accepts them. The documented differences list what is refused.
#[test]
fn peers_and_authorities_with_unsupported_keys_are_refused_with_the_cause() {
    let pki = Pki::new();
    pki.write("v3.ext", "subjectAltName=DNS:localhost");
    for (words, signs_in_tls) in [
        ("ED448", true),
        ("RSA-PSS -pkeyopt rsa_keygen_bits:2048", true),
        ("EC -pkeyopt ec_paramgen_curve:secp256k1", false),
    ] {
        let ran = openssl(&pki, &format!("genpkey -out odd.key -algorithm {words}"));
        if !ran {
            return leave_out("openssl", "SOCK_REQUIRE_PEERS");
        }
        // An authority with such a key.
        openssl(&pki, "req -x509 -new -key odd.key -subj /CN=odd -days 5 -out odd.pem");
        openssl(&pki, "req -new -key server.key -subj /CN=localhost -out below.csr");
        openssl(
            &pki,
            "x509 -req -in below.csr -CA odd.pem -CAkey odd.key -days 5 -extfile v3.ext -out below.pem",
        );
        let server = SSLContext::new(PROTOCOL_TLS_SERVER);
        server.load_cert_chain(pki.path("below.pem"), pki.path("server.key")).unwrap();
        let (error, text) = ssl_error(handshake(&server, &trusting(&pki, "odd.pem"), "localhost").1);
        assert_eq!(error.reason(), Reason::CertificateVerifyFailed, "{words}: {text}");
        assert!(text.contains("the signature algorithm is too weak or not supported"), "{words}: {text}");
        // A client with such a key has no signature that the server offers, and sends no certificate.
        if signs_in_tls {
            let files = ["odd.pem", "odd.key"].map(|name| pki.path(name).display().to_string());
            let words = ["-cert", &files[0], "-key", &files[1]];
            let (error, text) = ssl_error(served(&pki.strict_server(), &words).0);
            assert_eq!(error.reason(), Reason::PeerDidNotReturnACertificate, "{text}");
        }
    }
}

#[test]
fn a_self_signed_authority_of_version_1_is_trusted() {
    let pki = Pki::new();
    pki.write("v3.ext", "subjectAltName=DNS:localhost");
    if !openssl(&pki, "req -new -key server.key -subj /CN=old -out old.csr") {
        return leave_out("openssl", "SOCK_REQUIRE_PEERS");
    }
    openssl(&pki, "x509 -req -in old.csr -signkey server.key -days 5 -out old.pem");
    openssl(&pki, "req -new -key server.key -subj /CN=localhost -out below.csr");
    let sign = "x509 -req -in below.csr -CA old.pem -CAkey server.key -days 5";
    openssl(&pki, &format!("{sign} -extfile v3.ext -out below.pem"));
    openssl(&pki, &format!("{sign} -out v1.pem"));
    assert!(support::openssl_accepts(&pki, "-CAfile old.pem below.pem").unwrap());
    let server = SSLContext::new(PROTOCOL_TLS_SERVER);
    server.load_cert_chain(pki.path("below.pem"), pki.path("server.key")).unwrap();
    handshake(&server, &trusting(&pki, "old.pem"), "localhost").1.unwrap();
}

#[test]
fn control_characters_in_a_peers_certificate_are_escaped() {
    let pki = Pki::new();
    let key = KeyPair::generate().unwrap();
    let mut params = pki.leaf("localhost");
    params.distinguished_name.push(DnType::CommonName, "evil\r\nadmin logged in\u{1b}[2J\u{202e}");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    pki.write("evil.pem", params.self_signed(&key).unwrap().pem());
    pki.write("evil.key", key.serialize_pem());
    let (_, text) = ssl_error(handshake(&pki.server_with("evil"), &pki.client(), "localhost").1);
    assert!(text.contains("evil\\r\\nadmin logged in"), "{text}");
    assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
}

#[test]
fn a_server_name_is_a_host_name_and_may_end_with_a_dot() {
    let pki = Pki::new();
    let mut params = pki.leaf("localhost");
    for name in ["*.example.com", "-a.example.com"] {
        params.subject_alt_names.push(rcgen::SanType::DnsName(name.try_into().unwrap()));
    }
    pki.issue("named", params);
    let server = pki.server_with("named");
    for (name, sent) in [
        ("localhost", "localhost"),
        ("localhost.", "localhost"),
        ("www.example.com.", "www.example.com"),
        ("a_b.example.com", "a_b.example.com"),
    ] {
        let (served, client) = handshake(&server, &pki.client(), name);
        client.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(served.unwrap().server_hostname().as_deref(), Some(sent));
    }
    for name in ["*.example.com", "-a.example.com", "a-.example.com"] {
        let (_, client) = handshake(&server, &pki.client(), name);
        let error = client.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        assert_eq!(error.to_string(), format!("invalid server_hostname '{name}'"));
    }
}
