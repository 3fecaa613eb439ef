//! The promise: chains are accepted and rejected by OpenSSL's rules for extensions, purposes,
//! path lengths and names.
//!
//! Each case is compared with `openssl verify`.

mod support;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyUsagePurpose, NameConstraints, SerialNumber,
};
use sockssl::{CERT_NONE, CERT_REQUIRED, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext, TLSVersion};
use support::{Issued, Pki, authority, day, handshake, openssl_accepts, ssl_error};

fn trusting(pki: &Pki, name: &str) -> SSLContext {
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(pki.path(name)).unwrap();
    client
}

/// Whether a client accepts a server with this chain.
fn server_accepted(pki: &Pki, name: &str, client: &SSLContext) -> Result<(), String> {
    let (_, client) = handshake(&pki.server_with(name), client, "localhost");
    client.map(drop).map_err(|error| error.to_string())
}

/// Whether a server that trusts this file accepts a client with this chain.
fn client_accepted(pki: &Pki, name: &str, trusted: &str) -> Result<(), String> {
    let server = pki.server();
    server.load_verify_locations(pki.path(trusted)).unwrap();
    server.set_verify_mode(CERT_REQUIRED).unwrap();
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_cert_chain(pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key"))).unwrap();
    client.set_check_hostname(false);
    client.set_verify_mode(CERT_NONE).unwrap();
    handshake(&server, &client, "localhost").0.map(drop).map_err(|error| error.to_string())
}

/// Issues a chain, the trusted certificate first, in a new directory: `root.pem`, and `leaf.pem`
/// with the certificates between.
fn write_chain(chain: Vec<CertificateParams>) -> Pki {
    let pki = Pki::new();
    let mut issued: Vec<Issued> = Vec::new();
    for params in chain {
        let next = Issued::new(params, issued.last());
        issued.push(next);
    }
    let (leaf, above) = issued.split_last().unwrap();
    pki.write("root.pem", issued[0].cert.pem());
    leaf.write(&pki, "leaf", &above.iter().skip(1).rev().collect::<Vec<_>>());
    pki
}

/// Checks whether a chain is accepted from a server and from a client, and compares that with
/// OpenSSL.
#[track_caller]
fn check_chain(chain: Vec<CertificateParams>, server: bool, client: bool, what: &str) {
    let pki = write_chain(chain);
    for (purpose, expected, ours) in [
        ("sslserver", server, server_accepted(&pki, "leaf", &trusting(&pki, "root.pem"))),
        ("sslclient", client, client_accepted(&pki, "leaf", "root.pem")),
    ] {
        assert_eq!(ours.is_ok(), expected, "{what}, {purpose}: {ours:?}");
        let words = format!("-purpose {purpose} -CAfile root.pem -untrusted leaf.pem leaf.pem");
        if let Some(accepted) = openssl_accepts(&pki, &words) {
            assert_eq!(accepted, expected, "openssl: {what}, {purpose}");
        }
    }
}

fn leaf() -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "the leaf");
    (params.not_before, params.not_after) = (day(-1), day(30));
    params
}

fn with_usage(mut params: CertificateParams, usages: &[KeyUsagePurpose]) -> CertificateParams {
    params.key_usages = usages.to_vec();
    params
}

fn limited(name: &str, below: u8) -> CertificateParams {
    let mut params = authority(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params
}

fn extended(mut params: CertificateParams, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    params.extended_key_usages = usages.to_vec();
    params
}

fn with_extension(
    mut params: CertificateParams,
    oid: &[u64],
    critical: bool,
    value: &[u8],
) -> CertificateParams {
    let mut extension = CustomExtension::from_oid_content(oid, value.to_vec());
    extension.set_criticality(critical);
    params.custom_extensions.push(extension);
    params
}

#[test]
fn an_authority_needs_key_cert_sign_and_basic_constraints() {
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign};
    for (usages, good) in [
        (&[][..], true),
        (&[KeyCertSign], true),
        (&[KeyCertSign, CrlSign], true),
        (&[CrlSign], false),
        (&[DigitalSignature], false),
    ] {
        let middle = with_usage(authority("middle"), usages);
        check_chain(
            vec![authority("root"), middle, leaf()],
            good,
            good,
            &format!("intermediate {usages:?}"),
        );
        let root = with_usage(authority("root"), usages);
        check_chain(vec![root, leaf()], good, good, &format!("root {usages:?}"));
    }
    for constraints in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let mut middle = authority("middle");
        middle.is_ca = constraints.clone();
        check_chain(vec![authority("root"), middle, leaf()], false, false, &format!("{constraints:?}"));
    }
}

#[test]
fn a_path_length_constraint_applies_to_the_root_too() {
    let middle = |number: usize| authority(&format!("middle {number}"));
    for limit in 0..3 {
        for below in 0..4 {
            let good = below <= usize::from(limit);
            let mut chain = vec![limited("root", limit)];
            chain.extend((0..below).map(middle));
            chain.push(leaf());
            check_chain(chain, good, good, &format!("root {limit}, {below} below"));
            let mut chain = vec![authority("root"), limited("top", limit)];
            chain.extend((0..below).map(middle));
            chain.push(leaf());
            check_chain(chain, good, good, &format!("intermediate {limit}, {below} below"));
        }
    }
}

/// The limit of `webpki`. OpenSSL verifies up to 100.
#[test]
fn six_intermediates_are_verified_and_seven_are_refused() {
    for (count, is_accepted) in [(6, true), (7, false)] {
        let names = (0..=count).map(|number| authority(&format!("authority {number}")));
        let pki = write_chain(names.chain([leaf()]).collect());
        let accepted = server_accepted(&pki, "leaf", &trusting(&pki, "root.pem"));
        assert_eq!(accepted.is_ok(), is_accepted, "{accepted:?}");
        if let Err(text) = accepted {
            assert!(text.contains("certificate chain too long: more than six intermediates"), "{text}");
        }
        let openssl = openssl_accepts(&pki, "-CAfile root.pem -untrusted leaf.pem leaf.pem");
        assert_ne!(openssl, Some(false), "{count}");
    }
}

#[test]
fn the_key_usage_of_a_leaf_is_checked() {
    use KeyUsagePurpose as K;
    for (usage, server, client) in [
        (K::DigitalSignature, true, true),
        (K::KeyEncipherment, true, false),
        (K::KeyAgreement, true, true),
        (K::ContentCommitment, false, false),
        (K::DataEncipherment, false, false),
        (K::CrlSign, false, false),
    ] {
        let chain = vec![authority("root"), with_usage(leaf(), &[usage])];
        check_chain(chain, server, client, &format!("{usage:?}"));
    }
}

/// OpenSSL rejects it in the handshake, but not in `openssl verify`.
#[test]
fn in_tls_1_2_an_ecdsa_key_needs_digital_signature() {
    use KeyUsagePurpose as K;
    let (pki, root) = (Pki::new(), Issued::new(authority("root"), None));
    pki.write("root.pem", root.cert.pem());
    for (usage, good) in
        [(K::DigitalSignature, true), (K::KeyEncipherment, false), (K::KeyAgreement, false)]
    {
        Issued::new(with_usage(leaf(), &[usage]), Some(&root)).write(&pki, "leaf", &[]);
        let client = trusting(&pki, "root.pem");
        client.set_maximum_version(TLSVersion::TLSv1_2);
        assert_eq!(server_accepted(&pki, "leaf", &client).is_ok(), good, "{usage:?}");
    }
}

#[test]
fn the_extended_key_usage_is_checked_in_the_whole_chain() {
    use ExtendedKeyUsagePurpose as E;
    for (usages, server, client) in [
        (&[E::ServerAuth][..], true, false),
        (&[E::ClientAuth], false, true),
        (&[E::ServerAuth, E::ClientAuth], true, true),
        (&[E::CodeSigning], false, false),
        (&[E::Any], false, false),
    ] {
        let root = || authority("root");
        check_chain(vec![root(), extended(leaf(), usages)], server, client, &format!("leaf {usages:?}"));
        let middle = extended(authority("middle"), usages);
        check_chain(vec![root(), middle, leaf()], server, client, &format!("intermediate {usages:?}"));
        check_chain(vec![extended(root(), usages), leaf()], server, client, &format!("root {usages:?}"));
        let pinned = extended(leaf(), usages);
        check_chain(vec![pinned], server, client, &format!("pinned {usages:?}"));
    }
}

#[test]
fn an_unknown_critical_extension_of_an_authority_is_rejected() {
    for critical in [false, true] {
        let odd = |params| with_extension(params, &[1, 2, 3, 4], critical, &[5, 0]);
        let (good, root) = (!critical, || authority("root"));
        check_chain(vec![root(), odd(authority("middle")), leaf()], good, good, "intermediate");
        check_chain(vec![odd(root()), leaf()], good, good, "root");
    }
}

#[test]
fn the_authority_key_identifier_has_to_match() {
    for (named, good) in [(&[1, 2, 3][..], true), (&[1, 2, 4], false)] {
        let mut root = authority("root");
        root.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1, 2, 3]);
        // A SEQUENCE with keyIdentifier.
        let value = [&[0x30, 5, 0x80, 3][..], named].concat();
        let below = with_extension(leaf(), &[2, 5, 29, 35], false, &value);
        check_chain(vec![root, below], good, good, &format!("{named:?}"));
    }
}

/// Extensions that verification depends on.
const CHECKED_EXTENSIONS: [(&str, &[u64]); 8] = [
    ("subjectKeyIdentifier", &[2, 5, 29, 14]),
    ("keyUsage", &[2, 5, 29, 15]),
    ("subjectAltName", &[2, 5, 29, 17]),
    ("basicConstraints", &[2, 5, 29, 19]),
    ("nameConstraints", &[2, 5, 29, 30]),
    ("cRLDistributionPoints", &[2, 5, 29, 31]),
    ("authorityKeyIdentifier", &[2, 5, 29, 35]),
    ("extKeyUsage", &[2, 5, 29, 37]),
];

/// Such a certificate is rejected when it is loaded and when a peer sends it, because a list
/// cannot revoke it and its purpose is unknown.
#[test]
fn a_certificate_that_cannot_be_parsed_is_not_trusted() {
    for (what, oid) in CHECKED_EXTENSIONS {
        for value in [&[5, 0][..], &[], &[0x30, 5, 0]] {
            let pki = Pki::new();
            let broken = |params: CertificateParams| with_extension(params, oid, false, value);
            let root = authority("root");
            // `rcgen` adds some of them itself. Then the extension is repeated, which is an error too.
            let pinned = Issued::new(broken(leaf()), None);
            let under = Issued::new(leaf(), Some(&pinned));
            pki.write("pinned.pem", pinned.cert.pem());
            under.write(&pki, "under", &[]);
            let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
            let (_, text) = ssl_error(client.load_verify_locations(pki.path("pinned.pem")));
            assert!(text.contains("pinned.pem: cannot trust a certificate"), "{what}: {text}");

            let odd = Issued::new(broken(root.clone()), None);
            pki.write("odd.pem", odd.cert.pem());
            ssl_error(client.load_verify_locations(pki.path("odd.pem")));
            ssl_error(client.load_verify_data(odd.cert.pem()));
            let directory = pki.path("odd");
            std::fs::create_dir(&directory).unwrap();
            pki.write("odd/a.pem", odd.cert.pem());
            ssl_error(client.load_verify_locations(&directory));

            let good = Issued::new(root, None);
            pki.write("root.pem", good.cert.pem());
            let middle = Issued::new(broken(authority("middle")), Some(&good));
            Issued::new(leaf(), Some(&middle)).write(&pki, "leaf", &[&middle]);
            let client = trusting(&pki, "root.pem");
            assert!(server_accepted(&pki, "leaf", &client).is_err(), "{what} {value:?}");
            assert!(client_accepted(&pki, "leaf", "root.pem").is_err(), "{what} {value:?}");
        }
    }
}

/// RFC 5280 allows 20 bytes. OpenSSL writes and reads longer ones.
#[test]
fn a_leaf_with_a_long_serial_number_is_not_an_authority() {
    for length in [21, 25, 64] {
        let pki = Pki::new();
        let serial = Some(SerialNumber::from_slice(&vec![0x7a; length]));
        let mut params = leaf();
        (params.is_ca, params.serial_number) = (IsCa::ExplicitNoCa, serial.clone());
        let pinned = Issued::new(params.clone(), None);
        pinned.write(&pki, "pinned", &[]);
        let under = Issued::new(leaf(), Some(&pinned));
        under.write(&pki, "under", &[&pinned]);
        let client = trusting(&pki, "pinned.pem");
        server_accepted(&pki, "pinned", &client).expect("pinned");
        client_accepted(&pki, "pinned", "pinned.pem").expect("pinned");
        let text = server_accepted(&pki, "under", &client).unwrap_err();
        assert!(text.contains("certificate verify failed"), "{text}");
        assert!(client_accepted(&pki, "under", "pinned.pem").is_err());
        let (_, shown) = handshake(&pki.server_with("pinned"), &client, "localhost");
        let shown = shown.unwrap().getpeercert().unwrap().unwrap();
        assert_eq!(shown.serial_number, "7A".repeat(length));

        // An expired one is rejected.
        (params.not_before, params.not_after) = (day(-9), day(-1));
        let pinned = Issued::new(params, None);
        pinned.write(&pki, "late", &[]);
        Issued::new(leaf(), Some(&pinned)).write(&pki, "late-under", &[&pinned]);
        let client = trusting(&pki, "late.pem");
        for name in ["late", "late-under"] {
            assert!(server_accepted(&pki, name, &client).is_err(), "{name}");
            assert!(client_accepted(&pki, name, "late.pem").is_err(), "{name}");
        }

        // An authority with a long serial number is accepted.
        let mut root = authority("root");
        root.serial_number = serial;
        check_chain(vec![root, leaf()], true, true, "root");
    }
}

#[test]
fn a_leaf_among_the_system_certificates_is_not_an_authority() {
    const CHILD: &str = "SOCKSSL_TEST_SYSTEM_STORE";
    let Some(directory) = std::env::var_os(CHILD) else {
        // The location of the store is in the environment, which belongs to a process.
        let pki = Pki::new();
        let mut params = leaf();
        params.is_ca = IsCa::ExplicitNoCa;
        let snakeoil = Issued::new(params, None);
        snakeoil.write(&pki, "snakeoil", &[]);
        Issued::new(leaf(), Some(&snakeoil)).write(&pki, "under", &[&snakeoil]);
        let root = Issued::new(authority("root"), None);
        let unreadable =
            Issued::new(with_extension(authority("odd"), &[2, 5, 29, 31], false, &[5, 0]), None);
        pki.write("system.pem", snakeoil.cert.pem() + &unreadable.cert.pem() + &root.cert.pem());
        Issued::new(leaf(), Some(&root)).write(&pki, "good", &[]);
        Issued::new(leaf(), Some(&unreadable)).write(&pki, "odd-under", &[&unreadable]);
        let name = "a_leaf_among_the_system_certificates_is_not_an_authority";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, pki.path(""))
            .env("SSL_CERT_FILE", pki.path("system.pem"))
            .env_remove("SSL_CERT_DIR")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    };
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_default_certs().unwrap();
    let server = |name: &str| {
        let context = SSLContext::new(PROTOCOL_TLS_SERVER);
        let path = |kind| std::path::Path::new(&directory).join(format!("{name}.{kind}"));
        context.load_cert_chain(path("pem"), path("key")).unwrap();
        context
    };
    for (name, good) in [("good", true), ("snakeoil", true), ("under", false), ("odd-under", false)] {
        let (_, result) = handshake(&server(name), &client, "localhost");
        assert_eq!(result.is_ok(), good, "{name}: {result:?}");
    }
}

fn common_name(name: &str) -> CertificateParams {
    let mut params = leaf();
    params.subject_alt_names.clear();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn constrained(permitted: &[&str], excluded: &[&str]) -> CertificateParams {
    let mut params = authority("constrained");
    let subtrees =
        |names: &[&str]| names.iter().map(|name| GeneralSubtree::DnsName((*name).into())).collect();
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: subtrees(permitted),
        excluded_subtrees: subtrees(excluded),
    });
    params
}

/// Whether a client that checks common names accepts a chain for `www.a.example`.
fn by_common_name(chain: Vec<CertificateParams>) -> bool {
    let pki = write_chain(chain);
    let client = trusting(&pki, "root.pem");
    client.set_hostname_checks_common_name(true);
    let ours = handshake(&pki.server_with("leaf"), &client, "www.a.example").1.is_ok();
    let words = "-verify_hostname www.a.example -CAfile root.pem -untrusted leaf.pem leaf.pem";
    if let Some(accepted) = openssl_accepts(&pki, words) {
        assert_eq!(ours, accepted, "openssl differs");
    }
    ours
}

#[test]
fn name_constraints_apply_to_the_common_name() {
    for (permitted, excluded, good) in [
        (&[][..], &["b.example"][..], true),
        (&["a.example"], &[], true),
        (&["www.a.example"], &[], true),
        (&["b.example", "a.example"], &[], true),
        (&["b.example"], &[], false),
        (&["x.www.a.example"], &[], false),
        (&["wa.example"], &[], false),
        (&[], &["a.example"], false),
        (&[], &["www.a.example"], false),
        (&["example"], &["a.example"], false),
    ] {
        let name = || common_name("www.a.example");
        let root = constrained(permitted, excluded);
        assert_eq!(by_common_name(vec![root, name()]), good, "root {permitted:?} {excluded:?}");
        let chain = vec![authority("root"), constrained(permitted, excluded), name()];
        assert_eq!(by_common_name(chain), good, "intermediate {permitted:?} {excluded:?}");
    }
}

#[test]
fn a_common_name_is_checked_only_without_a_dns_name() {
    assert!(by_common_name(vec![authority("root"), common_name("www.a.example")]));
    assert!(by_common_name(vec![authority("root"), common_name("*.a.example")]));
    assert!(!by_common_name(vec![authority("root"), common_name("*.example")]));
    assert!(!by_common_name(vec![authority("root"), common_name("a.example")]));
    let mut other = common_name("www.a.example");
    other.subject_alt_names = vec![rcgen::SanType::DnsName("b.example".try_into().unwrap())];
    assert!(!by_common_name(vec![authority("root"), other]));
    let mut address = common_name("www.a.example");
    address.subject_alt_names = vec![rcgen::SanType::IpAddress("127.0.0.1".parse().unwrap())];
    assert!(by_common_name(vec![authority("root"), address]));
}

/// Checks whether a chain is accepted from a server at 127.0.0.1 and from a client, and compares
/// that with OpenSSL.
fn check_by_address(chain: Vec<CertificateParams>, good: bool, what: &str) {
    let pki = write_chain(chain);
    let client = trusting(&pki, "root.pem");
    let result = handshake(&pki.server_with("leaf"), &client, "127.0.0.1").1;
    assert_eq!(result.is_ok(), good, "{what}: {result:?}");
    assert_eq!(client_accepted(&pki, "leaf", "root.pem").is_ok(), good, "{what}: a client's");
    for purpose in ["sslserver", "sslclient"] {
        let words = format!("-purpose {purpose} -CAfile root.pem -untrusted leaf.pem leaf.pem");
        if let Some(accepted) = openssl_accepts(&pki, &words) {
            assert_eq!(accepted, good, "openssl differs: {what}");
        }
    }
}

fn below_each(
    constraints: &dyn Fn() -> CertificateParams,
    leaf: &CertificateParams,
    good: bool,
    what: &str,
) {
    check_by_address(vec![constraints(), leaf.clone()], good, what);
    check_by_address(vec![authority("root"), constraints(), leaf.clone()], good, what);
    check_by_address(vec![authority("root"), constraints(), authority("below"), leaf.clone()], good, what);
}

fn with_address(mut params: CertificateParams) -> CertificateParams {
    params.subject_alt_names = vec![rcgen::SanType::IpAddress("127.0.0.1".parse().unwrap())];
    params
}

#[test]
fn name_constraints_apply_to_an_unused_common_name() {
    for (name, good) in [("www.a.example", true), ("www.b.example", false), ("A Server", true)] {
        let leaf = with_address(common_name(name));
        below_each(&|| constrained(&["a.example"], &[]), &leaf, good, name);
    }
    for (name, good) in [("www.a.example", false), ("www.b.example", true)] {
        let leaf = with_address(common_name(name));
        below_each(&|| constrained(&[], &["a.example"]), &leaf, good, name);
    }
}

#[test]
fn name_constraints_apply_to_an_e_mail_address_in_the_subject() {
    let mail = || DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
    let constrained = |permitted: bool| {
        let subtree = || vec![GeneralSubtree::Rfc822Name("good.example".into())];
        let mut params = authority("constrained");
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: if permitted { subtree() } else { Vec::new() },
            excluded_subtrees: if permitted { Vec::new() } else { subtree() },
        });
        params
    };
    for (address, good) in [("a@good.example", true), ("a@evil.example", false)] {
        let mut leaf = with_address(leaf());
        let value = rcgen::DnValue::Ia5String(address.try_into().unwrap());
        leaf.distinguished_name.push(mail(), value);
        below_each(&|| constrained(true), &leaf, good, address);
        below_each(&|| constrained(false), &leaf, !good, address);
    }
    // Constraints cannot be applied to an address of another string type.
    let mut leaf = with_address(leaf());
    leaf.distinguished_name.push(mail(), "a@good.example");
    below_each(&|| constrained(true), &leaf, false, "not an IA5String");
}

#[test]
fn the_key_usage_of_a_pinned_certificate_that_may_not_sign_is_checked() {
    use KeyUsagePurpose as K;
    for (usage, server, client) in [
        (K::DigitalSignature, true, true),
        (K::ContentCommitment, false, false),
        (K::DataEncipherment, false, false),
        (K::CrlSign, false, false),
    ] {
        let mut params = authority("localhost");
        params.subject_alt_names = leaf().subject_alt_names;
        params.key_usages = vec![usage];
        check_chain(vec![params], server, client, &format!("{usage:?}"));
    }
}

#[test]
fn a_netscape_certificate_type_is_checked() {
    const TYPE: &[u64] = &[2, 16, 840, 1, 113_730, 1, 1];
    // BIT STRING: the first bit is for clients, the second for servers, the third for S/MIME.
    for (value, server, client) in [
        ([3, 2, 6, 0x40], true, false),
        ([3, 2, 7, 0x80], false, true),
        ([3, 2, 6, 0xc0], true, true),
        ([3, 2, 5, 0x20], false, false),
    ] {
        let leaf = with_extension(leaf(), TYPE, false, &value);
        check_chain(vec![authority("root"), leaf], server, client, &format!("{value:?}"));
    }
}

#[test]
fn a_proxy_certificate_is_rejected() {
    // ProxyCertInfo with the policy language id-ppl-inheritAll (RFC 3820).
    let value = [0x30, 12, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 21, 1];
    // `load_cert_chain` rejects it if it is critical.
    let leaf = with_extension(leaf(), &[1, 3, 6, 1, 5, 5, 7, 1, 14], false, &value);
    check_chain(vec![authority("root"), leaf], false, false, "proxy");
}

/// OpenSSL applies such a constraint. The library does not support it.
#[test]
fn a_name_constraint_on_a_directory_name_rejects_every_chain() {
    let mut root = authority("constrained");
    root.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DirectoryName(leaf().distinguished_name)],
        excluded_subtrees: Vec::new(),
    });
    let pki = write_chain(vec![root, leaf()]);
    assert!(server_accepted(&pki, "leaf", &trusting(&pki, "root.pem")).is_err());
    assert!(client_accepted(&pki, "leaf", "root.pem").is_err());
}
