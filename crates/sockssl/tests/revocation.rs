//! The promise: of the revocation lists of one issuer and scope the newest is used, if its
//! issuer signed it.
//!
//! Cases are compared with `openssl verify -crl_check` where it applies.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint,
    CrlScope, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use sockssl::{
    PROTOCOL_TLS_CLIENT, Reason, SSLContext, VERIFY_CRL_CHECK_CHAIN, VERIFY_CRL_CHECK_LEAF, VERIFY_DEFAULT,
    VerifyFlags,
};
use support::{Issued, Pki, authority, day, handshake, leave_out, openssl_accepts, ssl_error};

const ALL_FLAGS: [VerifyFlags; 3] = [VERIFY_DEFAULT, VERIFY_CRL_CHECK_LEAF, VERIFY_CRL_CHECK_CHAIN];
const REQUIRING: [VerifyFlags; 2] = [VERIFY_CRL_CHECK_LEAF, VERIFY_CRL_CHECK_CHAIN];

/// The parameters of a list, from one day until another.
fn list(revoked: &[u64], from: i64, until: i64) -> CertificateRevocationListParams {
    let revoked = revoked.iter().map(|&serial| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: day(-1),
        reason_code: None,
        invalidity_date: None,
    });
    CertificateRevocationListParams {
        this_update: day(from),
        next_update: day(until),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn signed(params: CertificateRevocationListParams, issuer: &Issued) -> String {
    params.signed_by(&issuer.cert, &issuer.key).unwrap().pem().unwrap()
}

fn numbered(mut params: CertificateParams, serial: u64) -> CertificateParams {
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// A root, and two servers below it: `good` with number 1, `bad` with number 2.
struct Two {
    pki: Pki,
    root: Issued,
}

impl Two {
    fn new() -> Two {
        let (pki, root) = (Pki::new(), Issued::new(authority("lists' root"), None));
        pki.write("root.pem", root.cert.pem());
        Issued::new(numbered(pki.leaf("localhost"), 1), Some(&root)).write(&pki, "good", &[]);
        Issued::new(numbered(pki.leaf("localhost"), 2), Some(&root)).write(&pki, "bad", &[]);
        Two { pki, root }
    }

    fn write(&self, name: &str, params: CertificateRevocationListParams) -> PathBuf {
        self.pki.write(name, signed(params, &self.root))
    }

    /// Whether a client that loads these files, in this order, accepts a server.
    fn accepts(&self, server: &str, files: &[&Path], flags: VerifyFlags) -> bool {
        let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
        for file in files {
            client.load_verify_locations(file).unwrap();
        }
        client.set_verify_flags(flags);
        handshake(&self.pki.server_with(server), &client, "localhost").1.is_ok()
    }
}

#[test]
fn the_newest_list_is_used_in_every_order_of_loading() {
    let two = Two::new();
    let root = two.pki.path("root.pem");
    // A certificate that only an older list revokes was released from hold.
    let old = two.write("old.pem", list(&[1], -5, 10));
    let new = two.write("new.pem", list(&[2], -1, 10));
    let both = two.pki.write("both.pem", two.pki.read("old.pem") + &two.pki.read("new.pem"));
    fs::create_dir(two.pki.path("dated")).unwrap();
    two.pki.write("dated/2026-01.pem", two.pki.read("old.pem"));
    let dated = two.pki.write("dated/2026-02.pem", two.pki.read("new.pem"));
    let dated = dated.parent().unwrap();
    for flags in ALL_FLAGS {
        for files in [
            &[&root, &old, &new][..],
            &[&root, &new, &old],
            &[&new, &old, &root],
            &[&old, &new, &root],
            &[&root, &both],
            &[&root, &dated.to_owned()],
        ] {
            let files: Vec<&Path> = files.iter().map(|file| file.as_path()).collect();
            assert!(two.accepts("good", &files, flags), "{flags:?} {files:?}");
            assert!(!two.accepts("bad", &files, flags), "{flags:?} {files:?}");
        }
    }
    for lists in ["-CRLfile old.pem -CRLfile new.pem", "-CRLfile new.pem -CRLfile old.pem"] {
        let verdict =
            |name| openssl_accepts(&two.pki, &format!("-CAfile root.pem -crl_check {lists} {name}.pem"));
        let (Some(good), Some(bad)) = (verdict("good"), verdict("bad")) else { return };
        assert!(good && !bad, "{lists}");
    }
}

#[test]
fn a_renewed_list_is_used_from_a_file_from_memory_and_after_a_reload() {
    let two = Two::new();
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(two.pki.path("root.pem")).unwrap();
    client.set_verify_flags(VERIFY_CRL_CHECK_LEAF);
    let accepts = |name| handshake(&two.pki.server_with(name), &client, "localhost").1.is_ok();
    let path = two.write("list.pem", list(&[], -9, 10));
    client.load_verify_locations(&path).unwrap();
    assert!(accepts("bad"));
    two.write("list.pem", list(&[2], -8, 10));
    client.load_verify_locations(&path).unwrap();
    assert!(!accepts("bad") && accepts("good"));
    client.load_verify_data(signed(list(&[1], -7, 10), &two.root)).unwrap();
    assert!(accepts("bad") && !accepts("good"));
    client.load_verify_data(signed(list(&[2], -6, 10), &two.root)).unwrap();
    assert!(!accepts("bad") && accepts("good"));
    client.reload().unwrap();
    assert!(!accepts("bad") && accepts("good"));
}

#[test]
fn an_expired_list_beside_a_current_one_is_ignored() {
    let two = Two::new();
    let root = two.pki.path("root.pem");
    let expired = two.write("expired.pem", list(&[], -9, -3));
    let current = two.write("current.pem", list(&[2], -1, 10));
    for flags in ALL_FLAGS {
        for files in [[&*root, &*expired, &*current], [&*root, &*current, &*expired]] {
            assert!(two.accepts("good", &files, flags), "{flags:?} {files:?}");
            assert!(!two.accepts("bad", &files, flags), "{flags:?} {files:?}");
        }
    }
    // A list that is not valid yet does not replace a valid one.
    let future = two.write("future.pem", list(&[], 2, 10));
    for flags in ALL_FLAGS {
        assert!(two.accepts("good", &[&root, &current, &future], flags), "{flags:?}");
        assert!(!two.accepts("bad", &[&root, &current, &future], flags), "{flags:?}");
    }
    for flags in REQUIRING {
        assert!(!two.accepts("good", &[&root, &future], flags), "{flags:?}");
        assert!(!two.accepts("good", &[&root, &expired], flags), "{flags:?}");
    }
}

#[test]
fn a_forged_list_does_not_replace_a_genuine_one() {
    let two = Two::new();
    let root = two.pki.path("root.pem");
    let genuine = two.write("genuine.pem", list(&[2], -5, 10));
    // A list of another authority of the same name, with another key identifier.
    let namesake = Issued::new(authority("lists' root"), None);
    let forged = two.pki.write("forged.pem", signed(list(&[], -1, 10), &namesake));
    for flags in ALL_FLAGS {
        for files in [[&*root, &*genuine, &*forged], [&*forged, &*genuine, &*root]] {
            assert!(two.accepts("good", &files, flags), "{flags:?} {files:?}");
            assert!(!two.accepts("bad", &files, flags), "{flags:?} {files:?}");
        }
    }
    for flags in REQUIRING {
        assert!(!two.accepts("good", &[&root, &forged], flags), "{flags:?}");
    }

    // A list with the key identifier of the genuine authority.
    let mut lying = list(&[], -1, 10);
    lying.key_identifier_method = KeyIdMethod::PreSpecified(two.root.cert.key_identifier());
    let lying = two.pki.write("lying.pem", signed(lying, &namesake));
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(&root).unwrap();
    client.load_verify_locations(&genuine).unwrap();
    let (error, text) = ssl_error(client.load_verify_locations(&lying));
    assert_eq!(error.reason(), Reason::BadPem, "{text}");
    assert!(text.contains("lying.pem") && text.contains("did not sign it"), "{text}");
    assert!(handshake(&two.pki.server_with("bad"), &client, "localhost").1.is_err());
    // If the list is loaded first, loading the authority fails.
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(&lying).unwrap();
    let (_, text) = ssl_error(client.load_verify_locations(&root));
    assert!(text.contains("lying.pem"), "{text}");
}

#[test]
fn authorities_of_one_name_have_separate_lists() {
    let two = Two::new();
    let renewed = Issued::new(authority("lists' root"), None);
    let roots = two.pki.write("roots.pem", two.root.cert.pem() + &renewed.cert.pem());
    Issued::new(numbered(two.pki.leaf("localhost"), 1), Some(&renewed)).write(&two.pki, "new1", &[]);
    Issued::new(numbered(two.pki.leaf("localhost"), 2), Some(&renewed)).write(&two.pki, "new2", &[]);
    let older = two.write("older.pem", list(&[2], -5, 10));
    let newer = two.pki.write("newer.pem", signed(list(&[1], -1, 10), &renewed));
    for flags in ALL_FLAGS {
        for files in [[&*roots, &*older, &*newer], [&*newer, &*older, &*roots]] {
            for (server, good) in [("good", true), ("bad", false), ("new1", false), ("new2", true)] {
                assert_eq!(two.accepts(server, &files, flags), good, "{flags:?} {server} {files:?}");
            }
        }
    }
    // The list of one authority does not count for the other.
    for flags in REQUIRING {
        assert!(two.accepts("good", &[&roots, &older], flags));
        assert!(!two.accepts("new1", &[&roots, &older], flags));
    }
}

#[test]
fn a_list_that_cannot_be_parsed_is_rejected_on_load() {
    let two = Two::new();
    let good = signed(list(&[2], -1, 10), &two.root);
    let pem = |der: &[u8]| {
        format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", support::base64(der))
    };
    for (name, bytes) in [
        ("empty", &[0x30, 0x00][..]),
        ("nonsense", &[0x04, 0x02, 0x01, 0x02]),
        ("three", &[0x30, 0x06, 0x30, 0x00, 0x30, 0x00, 0x03, 0x00]),
    ] {
        let file = two.pki.write(name, pem(bytes));
        // Otherwise the revocation of a pinned certificate would be lost silently.
        for trusted in ["root.pem", "bad.pem"] {
            let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
            client.load_verify_locations(two.pki.path(trusted)).unwrap();
            let (error, text) = ssl_error(client.load_verify_locations(&file));
            assert_eq!(error.reason(), Reason::BadPem, "{text}");
            assert!(text.contains(name) && text.contains("revocation list"), "{text}");
            assert_eq!(ssl_error(client.load_verify_data(pem(bytes))).0.reason(), Reason::BadPem);
        }
        fs::create_dir(two.pki.path(&format!("in-{name}"))).unwrap();
        two.pki.write(&format!("in-{name}/1.pem"), &good);
        two.pki.write(&format!("in-{name}/2.pem"), pem(bytes));
        let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
        let (_, text) = ssl_error(client.load_verify_locations(two.pki.path(&format!("in-{name}"))));
        assert!(text.contains("2.pem"), "{text}");
    }
}

/// Each byte of a list is changed in turn. The list is rejected on load, or it does not satisfy
/// the flags.
#[test]
fn a_damaged_list_admits_no_peer() {
    let two = Two::new();
    let list = list(&[2], -1, 10).signed_by(&two.root.cert, &two.root.key).unwrap();
    let der = list.der().to_vec();
    for at in 0..der.len() {
        let mut bad = der.clone();
        bad[at] ^= 0x21;
        let text = format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", support::base64(&bad));
        let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
        client.load_verify_locations(two.pki.path("root.pem")).unwrap();
        client.set_verify_flags(VERIFY_CRL_CHECK_LEAF);
        if client.load_verify_data(text).is_ok() {
            for name in ["good", "bad"] {
                let (_, result) = handshake(&two.pki.server_with(name), &client, "localhost");
                assert!(result.is_err(), "{name}, byte {at}");
            }
        }
    }
}

#[test]
fn the_lists_of_an_intermediate_are_verified_with_the_key_in_the_chain() {
    let (pki, root) = (Pki::new(), Issued::new(authority("root"), None));
    let middle = Issued::new(authority("middle"), Some(&root));
    let other = Issued::new(authority("middle"), Some(&root));
    pki.write("root.pem", root.cert.pem());
    for (name, serial) in [("good", 1), ("bad", 2)] {
        Issued::new(numbered(pki.leaf("localhost"), serial), Some(&middle)).write(&pki, name, &[&middle]);
    }
    let genuine = signed(list(&[2], -5, 10), &middle);
    let older = signed(list(&[1], -7, 10), &middle);
    let mut lying = list(&[], -1, 10);
    lying.key_identifier_method = KeyIdMethod::PreSpecified(middle.cert.key_identifier());
    let forged = signed(lying, &other);
    let client = |lists: &[&String], flags| {
        let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
        client.load_verify_locations(pki.path("root.pem")).unwrap();
        for list in lists {
            client.load_verify_data(list).unwrap();
        }
        client.load_verify_data(signed(list(&[], -1, 10), &root)).unwrap();
        client.set_verify_flags(flags);
        client
    };
    for flags in ALL_FLAGS {
        let orders = [
            &[&genuine, &forged][..],
            &[&forged, &genuine],
            &[&genuine],
            &[&older, &genuine],
            &[&genuine, &older],
        ];
        for lists in orders {
            let client = client(lists, flags);
            assert!(handshake(&pki.server_with("good"), &client, "localhost").1.is_ok(), "{flags:?}");
            assert!(handshake(&pki.server_with("bad"), &client, "localhost").1.is_err(), "{flags:?}");
        }
        // A forged list alone must not look like an empty genuine one.
        let client = client(&[&forged], flags);
        let (_, text) = ssl_error(handshake(&pki.server_with("good"), &client, "localhost").1);
        assert!(text.contains("CRL signature failure"), "{text}");
    }
    // An intermediate that the root revokes is rejected, whether the peer sends it or it is loaded.
    let revoked = Issued::new(numbered(authority("revoked"), 4660), Some(&root));
    Issued::new(pki.leaf("localhost"), Some(&revoked)).write(&pki, "below", &[&revoked]);
    pki.write("revoked.pem", revoked.cert.pem());
    let client = client(&[], VERIFY_DEFAULT);
    assert!(handshake(&pki.server_with("below"), &client, "localhost").1.is_ok());
    for loaded in [false, true] {
        if loaded {
            client.load_verify_locations(pki.path("revoked.pem")).unwrap();
        }
        client.load_verify_data(signed(list(&[4660], 0, 10), &root)).unwrap();
        let (_, text) = ssl_error(handshake(&pki.server_with("below"), &client, "localhost").1);
        assert!(text.contains("certificate revoked") && text.contains("CN=revoked"), "{text}");
    }
}

#[test]
fn a_partial_list_does_not_replace_a_complete_one() {
    let two = Two::new();
    let root = two.pki.path("root.pem");
    let part = |revoked: &[u64], scope| {
        let mut params = list(revoked, -1, 10);
        params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec!["http://a.example/part.crl".into()] },
            scope,
        });
        params
    };
    let whole = two.write("whole.pem", list(&[2], -5, 10));
    let users = two.write("users.pem", part(&[], Some(CrlScope::UserCertsOnly)));
    let authorities = two.write("cas.pem", part(&[], Some(CrlScope::CaCertsOnly)));
    for flags in ALL_FLAGS {
        for partial in [&users, &authorities] {
            for files in [[&*root, &*whole, &**partial], [&*root, &**partial, &*whole]] {
                assert!(two.accepts("good", &files, flags), "{flags:?} {files:?}");
                assert!(!two.accepts("bad", &files, flags), "{flags:?} {files:?}");
            }
        }
    }
    for (partial, name) in [(&users, "users.pem"), (&authorities, "cas.pem")] {
        // The servers' certificates name no distribution point, so the list does not cover them.
        assert!(!two.accepts("good", &[&root, partial], VERIFY_CRL_CHECK_LEAF));
        let words = format!("-CAfile root.pem -crl_check -CRLfile {name} good.pem");
        assert!(openssl_accepts(&two.pki, &words).is_none_or(|accepted| !accepted), "{name}");
    }
}

#[test]
fn a_list_of_an_authority_without_crl_sign_does_not_satisfy_the_flags() {
    let pki = Pki::new();
    let mut params = authority("no lists");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let root = Issued { cert: params.self_signed(&key).unwrap(), key };
    // `rcgen` refuses to sign the list, so the key signs with another certificate.
    let may = Issued {
        cert: authority("no lists").self_signed(&root.key).unwrap(),
        key: KeyPair::from_pem(&root.key.serialize_pem()).unwrap(),
    };
    pki.write("root.pem", root.cert.pem());
    pki.write("list.pem", signed(list(&[2], -1, 10), &may));
    for (name, serial) in [("good", 1), ("bad", 2)] {
        Issued::new(numbered(pki.leaf("localhost"), serial), Some(&root)).write(&pki, name, &[]);
    }
    for flags in ALL_FLAGS {
        let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
        client.load_verify_locations(pki.path("root.pem")).unwrap();
        client.load_verify_locations(pki.path("list.pem")).unwrap();
        client.set_verify_flags(flags);
        assert!(handshake(&pki.server_with("bad"), &client, "localhost").1.is_err(), "{flags:?}");
        let (_, good) = handshake(&pki.server_with("good"), &client, "localhost");
        assert_eq!(good.is_ok(), flags == VERIFY_DEFAULT, "{flags:?}");
    }
    let words = "-CAfile root.pem -crl_check -CRLfile list.pem good.pem";
    assert!(openssl_accepts(&pki, words).is_none_or(|accepted| !accepted));
}

#[test]
fn a_list_of_version_1_of_openssl_is_accepted() {
    let two = Two::new();
    let config = "[ca]\ndefault_ca=x\n[x]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=5\n";
    two.pki.write("ca.cnf", config);
    two.pki.write("index", "");
    two.pki.write("root.key", two.root.key.serialize_pem());
    let openssl = |words: &str| {
        let words = format!("ca -config ca.cnf -keyfile root.key -cert root.pem {words}");
        let mut command = std::process::Command::new("openssl");
        let output = command.args(words.split(' ')).current_dir(two.pki.path("")).output();
        output.is_ok_and(|output| {
            assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
            true
        })
    };
    if !openssl("-revoke bad.pem") || !openssl("-gencrl -out v1.pem") {
        return leave_out("openssl", "SOCK_REQUIRE_PEERS");
    }
    for flags in ALL_FLAGS {
        let files = [&*two.pki.path("root.pem"), &*two.pki.path("v1.pem")];
        assert!(two.accepts("good", &files, flags), "{flags:?}");
        assert!(!two.accepts("bad", &files, flags), "{flags:?}");
    }
}

/// The authority above the pinned certificate is loaded in some cases only.
#[test]
fn a_pinned_certificate_is_revoked_by_the_lists_of_its_issuer() {
    let two = Two::new();
    let namesake = Issued::new(authority("lists' root"), None);
    let genuine = two.write("genuine.pem", list(&[2], -5, 10));
    let mut lying = list(&[], -1, 10);
    lying.key_identifier_method = KeyIdMethod::PreSpecified(two.root.cert.key_identifier());
    let forged = two.pki.write("forged.pem", signed(lying, &namesake));
    for flags in ALL_FLAGS {
        for server in ["good", "bad"] {
            let pinned = two.pki.path(&format!("{server}.pem"));
            for files in [[&*pinned, &*genuine, &*forged], [&*forged, &*genuine, &*pinned]] {
                assert_eq!(two.accepts(server, &files, flags), server == "good", "{flags:?} {files:?}");
            }
            let files = [&*pinned, &*two.pki.path("root.pem"), &*genuine];
            assert_eq!(two.accepts(server, &files, flags), server == "good", "{flags:?} {files:?}");
        }
    }
}

/// RFC 5280 allows 20 bytes. OpenSSL writes and reads longer ones.
#[test]
fn a_list_with_long_serial_numbers_revokes_every_entry() {
    let two = Two::new();
    let serial = || SerialNumber::from_slice(&[0x7a; 25]);
    let mut params = two.pki.leaf("localhost");
    params.serial_number = Some(serial());
    Issued::new(params, Some(&two.root)).write(&two.pki, "long", &[]);
    let mut revoking = list(&[2], -1, 10);
    revoking.revoked_certs.push(RevokedCertParams {
        serial_number: serial(),
        revocation_time: day(-1),
        reason_code: None,
        invalidity_date: None,
    });
    let revoking = two.write("list.pem", revoking);
    for flags in ALL_FLAGS {
        for (server, good) in [("good", true), ("bad", false), ("long", false)] {
            for trusted in [two.pki.path("root.pem"), two.pki.path(&format!("{server}.pem"))] {
                assert_eq!(two.accepts(server, &[&trusted, &revoking], flags), good, "{flags:?} {server}");
            }
        }
    }
}
