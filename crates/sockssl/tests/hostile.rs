//! The promise: an error names the certificate that caused it, and a hostile certificate chain
//! costs a bounded amount of CPU time and of log output.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext};
use support::{Issued, Pki, authority, day, handshake, ssl_error};

fn leaf() -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "the leaf");
    (params.not_before, params.not_after) = (day(-1), day(30));
    params
}

fn trusting(pki: &Pki, name: &str) -> SSLContext {
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(pki.path(name)).unwrap();
    client
}

type Change = fn(&mut CertificateParams);

#[test]
fn an_error_of_an_intermediate_names_the_intermediate() {
    let expired =
        |params: &mut CertificateParams| (params.not_before, params.not_after) = (day(-9), day(-2));
    let early = |params: &mut CertificateParams| (params.not_before, params.not_after) = (day(2), day(9));
    let no_authority = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    let purpose = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let changes: [(Change, &str); 4] = [
        (expired, "certificate has expired, on"),
        (early, "certificate is not yet valid, before"),
        (no_authority, "invalid CA certificate"),
        (purpose, "unsuitable certificate purpose"),
    ];
    for (change, words) in changes {
        for place in ["leaf", "lower", "upper"] {
            let (pki, root) = (Pki::new(), Issued::new(authority("root"), None));
            pki.write("root.pem", root.cert.pem());
            let params = |name: &str, mut params: CertificateParams| {
                if name == place {
                    change(&mut params);
                }
                params
            };
            let upper = Issued::new(params("upper", authority("the upper")), Some(&root));
            let lower = Issued::new(params("lower", authority("the lower")), Some(&upper));
            Issued::new(params("leaf", leaf()), Some(&lower)).write(&pki, "leaf", &[&lower, &upper]);
            let (_, result) = handshake(&pki.server_with("leaf"), &trusting(&pki, "root.pem"), "localhost");
            if place == "leaf" && words.contains("CA") {
                result.unwrap();
                continue;
            }
            let (_, text) = ssl_error(result);
            assert!(
                text.contains(words) && text.contains(&format!("(\"CN=the {place}\" issued by")),
                "{text}"
            );
        }
    }
}

/// Ninety authorities of one name, each with its own key, form 90^6 paths.
#[test]
fn a_hostile_chain_costs_bounded_time() {
    let pki = Pki::new();
    let first = Issued::new(authority("hostile"), None);
    let keys: Vec<_> = (0..89).map(|_| Issued::new(authority("hostile"), Some(&first))).collect();
    let intermediates: Vec<_> = keys.iter().collect();
    Issued::new(leaf(), Some(&first)).write(&pki, "leaf", &intermediates);
    let (server, client) = (pki.server_with("leaf"), pki.client());
    let mut times = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        let (_, text) = ssl_error(handshake(&server, &client, "localhost").1);
        times.push(begin.elapsed());
        assert!(text.contains("certificate verify failed"), "{text}");
    }
    // Without a limit this takes five seconds in a debug build, and now 0.05 s.
    assert!(times.iter().min().is_some_and(|time| *time < Duration::from_secs(2)), "{times:?}");
}

/// Three authorities of each of six names form 3^6 paths to a trusted authority, whose signature
/// is forged.
#[test]
fn a_chain_with_many_paths_verifies_few_signatures() {
    let pki = Pki::new();
    let forger = Issued::new(authority("root"), None);
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = (0..6).map(|number| authority(&format!("level {number}"))).collect();
    let mut pem = String::new();
    for level in 0..6 {
        let issuer = match names.get(level + 1) {
            Some(params) => Issued { cert: params.clone().self_signed(&key).unwrap(), key: clone(&key) },
            None => Issued {
                cert: authority("root").self_signed(&forger.key).unwrap(),
                key: clone(&forger.key),
            },
        };
        for serial in 1..=3_u64 {
            let mut params = names[level].clone();
            params.serial_number = Some(serial.into());
            pem += &params.signed_by(&key, &issuer.cert, &issuer.key).unwrap().pem();
        }
    }
    let lowest = Issued { cert: names[0].clone().self_signed(&key).unwrap(), key: clone(&key) };
    let leaf = Issued::new(leaf(), Some(&lowest));
    leaf.write(&pki, "leaf", &[]);
    pki.write("leaf.pem", pki.read("leaf.pem") + &pem);
    pki.write("root.pem", Issued::new(authority("root"), None).cert.pem());
    let (_, text) =
        ssl_error(handshake(&pki.server_with("leaf"), &trusting(&pki, "root.pem"), "localhost").1);
    assert!(text.contains("certificate chain too complex: too many paths"), "{text}");
}

fn clone(key: &KeyPair) -> KeyPair {
    KeyPair::from_pem(&key.serialize_pem()).unwrap()
}

#[test]
fn the_key_of_an_authority_is_found_among_many_of_its_name() {
    let pki = Pki::new();
    let roots: Vec<_> = (0..60).map(|_| Issued::new(authority("root"), None)).collect();
    let pem: String = roots.iter().map(|root| root.cert.pem()).collect();
    pki.write("roots.pem", pem);
    for root in [&roots[0], &roots[59]] {
        Issued::new(leaf(), Some(root)).write(&pki, "leaf", &[]);
        handshake(&pki.server_with("leaf"), &trusting(&pki, "roots.pem"), "localhost").1.unwrap();
    }
}

/// An authority that has had many keys sends a certificate for each.
#[test]
fn the_issuer_is_found_among_many_certificates_of_its_name() {
    let pki = Pki::new();
    let root = Issued::new(authority("root"), None);
    pki.write("root.pem", root.cert.pem());
    let keys: Vec<_> = (0..20).map(|_| Issued::new(authority("rotated"), Some(&root))).collect();
    for issuer in [&keys[0], &keys[19]] {
        let mut params = leaf();
        params.use_authority_key_identifier_extension = true;
        Issued::new(params, Some(issuer)).write(&pki, "leaf", &keys.iter().collect::<Vec<_>>());
        handshake(&pki.server_with("leaf"), &trusting(&pki, "root.pem"), "localhost").1.unwrap();
    }
}

#[test]
fn the_longest_supported_chain_is_accepted() {
    let pki = Pki::new();
    let mut chain = vec![Issued::new(authority("root"), None)];
    for number in 0..6 {
        chain.insert(0, Issued::new(authority(&format!("middle {number}")), chain.first()));
    }
    let (root, intermediates) = chain.split_last().unwrap();
    pki.write("root.pem", root.cert.pem());
    let intermediates: Vec<_> = intermediates.iter().collect();
    Issued::new(leaf(), Some(&chain[0])).write(&pki, "long", &intermediates);
    handshake(&pki.server_with("long"), &trusting(&pki, "root.pem"), "localhost").1.unwrap();
}

/// The limit of the TLS library is 64 KiB.
#[test]
fn a_certificate_over_64_kib_is_described_in_words() {
    let pki = Pki::new();
    let mut params = leaf();
    let extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5; 70_000]);
    params.custom_extensions.push(extension);
    Issued::new(params, None).write(&pki, "big", &[]);
    let (certificate, key) = (pki.path("big.pem"), pki.path("big.key"));
    let server = SSLContext::new(sockssl::PROTOCOL_TLS_SERVER);
    let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
    for result in [server.load_cert_chain(&certificate, &key), client.load_verify_locations(&certificate)] {
        let (error, text) = ssl_error(result);
        assert_eq!(error.reason(), sockssl::Reason::BadPem, "{text}");
        assert!(text.contains("bytes, and the limit is 65535"), "{text}");
    }
    // A chain that is longer altogether.
    let mut pem = pki.read("server.pem");
    for _ in 0..250 {
        pem += &pki.read("ca.pem");
    }
    pki.write("chain.pem", pem);
    fs::copy(pki.path("server.key"), pki.path("chain.key")).unwrap();
    let (_, text) = ssl_error(handshake(&pki.server_with("chain"), &pki.client(), "localhost").1);
    assert!(text.contains("is longer than 64 KiB"), "{text}");
}

#[test]
fn a_long_name_makes_no_long_error() {
    let pki = Pki::new();
    let mut params = leaf();
    for number in 0..150 {
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 100, number]), "x".repeat(100));
        params
            .subject_alt_names
            .push(rcgen::SanType::DnsName(format!("n{number}.example").try_into().unwrap()));
    }
    params.distinguished_name.push(DnType::CommonName, "y\u{61c}\u{200b}\u{ad}z");
    Issued::new(params.clone(), None).write(&pki, "self", &[]);
    pki.issue("named", params);
    for (name, host) in [("self", "localhost"), ("named", "other.example")] {
        let (_, text) = ssl_error(handshake(&pki.server_with(name), &pki.client(), host).1);
        assert!(text.len() < 3000, "{} bytes: {text}", text.len());
        assert!(!text.contains(['\u{61c}', '\u{200b}', '\u{ad}']), "{text:?}");
    }
}
