//! The promise: no session is resumed after a certificate or a revocation list that it depends
//! on has expired. A full handshake verifies the peer again.

mod support;

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::KeyPair;
use sockssl::{
    CERT_NONE, CERT_REQUIRED, PROTOCOL_TLS_CLIENT, Reason, SSLContext, TLSVersion, VERIFY_CRL_CHECK_LEAF,
};
use support::{LIMIT, Pki, authority, day, for_clients, handshake, ssl_error};
use time::OffsetDateTime;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// The last second of a certificate or list. It leaves enough time to resume sessions before it.
fn soon() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(now() + 4).unwrap()
}

/// Sleeps until a certificate has expired. The tests are about time itself.
fn wait_until_after(end: OffsetDateTime) {
    let end = UNIX_EPOCH + Duration::from_secs(end.unix_timestamp() as u64 + 1);
    while let Ok(left) = end.duration_since(SystemTime::now()) {
        assert!(left < LIMIT);
        thread::sleep(left + Duration::from_millis(1));
    }
}

/// Exchanges data, so that the client gets its tickets. Returns whether a session was resumed.
#[track_caller]
fn exchange((server, client): &(SSLContext, SSLContext)) -> bool {
    let (server, client) = handshake(server, client, "localhost");
    let (server, client) =
        (server.expect("the server's handshake"), client.expect("the client's handshake"));
    client.sendall(b"question").unwrap();
    assert_eq!(server.recv(100).unwrap(), b"question");
    server.sendall(b"answer").unwrap();
    assert_eq!(client.recv(100).unwrap(), b"answer");
    assert_eq!(server.session_reused(), client.session_reused());
    client.session_reused()
}

/// Resumes sessions, which are renewed each time, in both versions. Waits until `end` and then
/// calls `after`.
fn resume_until(
    end: OffsetDateTime,
    contexts: impl Fn() -> (SSLContext, SSLContext),
    after: impl Fn(&(SSLContext, SSLContext)),
) {
    let both = [TLSVersion::TLSv1_3, TLSVersion::TLSv1_2].map(|version| {
        let contexts = contexts();
        contexts.0.set_maximum_version(version);
        assert!(!exchange(&contexts));
        assert!(exchange(&contexts), "a valid session is resumed");
        assert!(exchange(&contexts), "a resumed session is resumed again");
        contexts
    });
    wait_until_after(end);
    both.iter().for_each(after);
}

/// In TLS 1.3 the client gets the alert after its handshake.
#[track_caller]
fn server_refuses((server, client): &(SSLContext, SSLContext)) {
    let (server, client) = handshake(server, client, "localhost");
    assert_eq!(ssl_error(server).0.reason(), Reason::CertificateVerifyFailed);
    if let Ok(client) = client {
        let error = client.sendall(b"x").and_then(|()| client.recv(1)).unwrap_err();
        assert!(error.to_string().contains("alert"), "{error}");
    }
}

#[track_caller]
fn client_refuses((server, client): &(SSLContext, SSLContext)) {
    let (_, refused) = handshake(server, client, "localhost");
    assert_eq!(ssl_error(refused).0.reason(), Reason::CertificateVerifyFailed);
}

#[test]
fn a_server_does_not_resume_a_client_whose_certificate_has_expired() {
    let (pki, end) = (Pki::new(), soon());
    let mut params = for_clients(pki.leaf("client"));
    params.not_after = end;
    pki.issue("client", params);
    resume_until(end, || (pki.strict_server(), pki.client_with("client")), server_refuses);
}

#[test]
fn a_server_does_not_resume_a_client_whose_authority_has_expired() {
    let (pki, end) = (Pki::new(), soon());
    let key = KeyPair::generate().unwrap();
    let mut params = authority("short-lived CA");
    params.not_after = end;
    let ca = params.self_signed(&key).unwrap();
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = for_clients(pki.leaf("client")).signed_by(&leaf_key, &ca, &key).unwrap();
    pki.write("client.pem", leaf.pem());
    pki.write("client.key", leaf_key.serialize_pem());
    let contexts = || {
        let server = pki.server();
        server.load_verify_data(ca.pem()).unwrap();
        server.set_verify_mode(CERT_REQUIRED).unwrap();
        (server, pki.client_with("client"))
    };
    resume_until(end, contexts, server_refuses);
}

#[test]
fn a_server_does_not_resume_a_client_whose_revocation_list_has_expired() {
    let (pki, end) = (Pki::new(), soon());
    pki.issue("client", for_clients(pki.leaf("client")));
    let contexts = || {
        let server = pki.strict_server();
        server.load_verify_locations(pki.revoke_until("list.pem", 4711, end)).unwrap();
        server.set_verify_flags(VERIFY_CRL_CHECK_LEAF);
        (server, pki.client_with("client"))
    };
    resume_until(end, contexts, server_refuses);
}

#[test]
fn a_client_does_not_resume_with_a_server_whose_certificate_has_expired() {
    let (pki, end) = (Pki::new(), soon());
    let mut params = pki.leaf("localhost");
    params.not_after = end;
    pki.issue("short", params);
    resume_until(
        end,
        || (pki.server_with("short"), pki.client()),
        |contexts| {
            client_refuses(contexts);
            // With a new certificate of the server the same client resumes sessions again.
            contexts.0.load_cert_chain(pki.path("server.pem"), pki.path("server.key")).unwrap();
            assert!(!exchange(contexts));
            assert!(exchange(contexts));
        },
    );
}

#[test]
fn a_client_does_not_resume_after_its_revocation_list_has_expired() {
    let (pki, end) = (Pki::new(), soon());
    let contexts = || {
        let client = pki.client();
        client.load_verify_locations(pki.revoke_until("list.pem", 4711, end)).unwrap();
        client.set_verify_flags(VERIFY_CRL_CHECK_LEAF);
        (pki.server(), client)
    };
    resume_until(end, contexts, client_refuses);
}

/// Renewing a certificate in time costs one full handshake and no error.
#[test]
fn a_renewed_certificate_is_verified_by_a_full_handshake() {
    let pki = Pki::new();
    let end = soon();
    let mut params = for_clients(pki.leaf("client"));
    params.not_after = end;
    pki.issue("client", params);
    let mut params = pki.leaf("localhost");
    params.not_after = end;
    pki.issue("server", params);
    let contexts = (pki.strict_server(), pki.client_with("client"));
    let (server, client) = &contexts;
    assert!(!exchange(&contexts));
    assert!(exchange(&contexts));
    pki.issue("client", for_clients(pki.leaf("client")));
    pki.issue("server", pki.leaf("localhost"));
    server.load_cert_chain(pki.path("server.pem"), pki.path("server.key")).unwrap();
    client.load_cert_chain(pki.path("client.pem"), pki.path("client.key")).unwrap();
    wait_until_after(end);
    assert!(!exchange(&contexts));
    assert!(exchange(&contexts));
}

/// The new settings apply to peers with older sessions too.
#[test]
fn changing_a_context_drops_its_sessions() {
    let pki = Pki::new();
    pki.issue("client", for_clients(pki.leaf("client")));
    let changes: [fn(&Pki, &SSLContext); 4] = [
        |_, context| context.set_check_hostname(false),
        |pki, context| context.load_verify_locations(pki.path("ca.pem")).unwrap(),
        |_, context| context.reload().unwrap(),
        |_, context| context.set_hostname_checks_common_name(true),
    ];
    for version in [TLSVersion::TLSv1_3, TLSVersion::TLSv1_2] {
        for change in changes {
            for of_server in [false, true] {
                let contexts = (pki.strict_server(), pki.client_with("client"));
                contexts.0.set_maximum_version(version);
                assert!(!exchange(&contexts));
                assert!(exchange(&contexts));
                change(&pki, if of_server { &contexts.0 } else { &contexts.1 });
                assert!(!exchange(&contexts), "{version:?}");
            }
        }
    }
}

/// Other clients, such as OpenSSL's, do not check the expiry.
#[test]
fn a_server_resumes_no_session_after_its_own_certificate_has_expired() {
    let (pki, end) = (Pki::new(), soon());
    let mut params = pki.leaf("localhost");
    params.not_after = end;
    pki.issue("short", params);
    let contexts = || {
        let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
        client.set_check_hostname(false);
        client.set_verify_mode(CERT_NONE).unwrap();
        (pki.server_with("short"), client)
    };
    resume_until(end, contexts, |contexts| assert!(!exchange(contexts)));
}

/// With `CERT_NONE` no certificate expires.
#[test]
fn a_client_that_verifies_nothing_resumes_with_an_expired_certificate() {
    let pki = Pki::new();
    let mut params = pki.leaf("localhost");
    (params.not_before, params.not_after) = (day(-3), day(-2));
    pki.issue("old", params);
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.set_check_hostname(false);
    client.set_verify_mode(CERT_NONE).unwrap();
    let contexts = (pki.server_with("old"), client);
    assert!(!exchange(&contexts));
    assert!(exchange(&contexts));
}
