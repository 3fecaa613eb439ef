//! The promise: names, numbers and certificates are those of Python's `ssl`.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use sockssl::{AlertDescription, PeerCertificate, Reason};
use support::{Pki, leave_out, wrapped};

/// Runs a script and returns its output, or prints a note and returns `None` without Python.
fn python(script: &str, argument: &std::path::Path) -> Option<String> {
    let program = std::env::var("SOCK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let child = Command::new(&program)
        .arg("-")
        .arg(argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let Ok(mut child) = child else {
        leave_out(&program, "SOCK_REQUIRE_PYTHON");
        return None;
    };
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn alerts_have_the_names_of_python_and_openssl() {
    const SCRIPT: &str = r#"
import ssl, _ssl
for alert in ssl.AlertDescription:
    print(int(alert), alert.name, _ssl.err_codes_to_names.get((_ssl.lib_codes_to_names and 20, 1000 + alert), "-"))
"#;
    let Some(table) = python(SCRIPT, "".as_ref()) else { return };
    let mut words = 0;
    for line in table.lines() {
        let [number, name, word] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let alert = AlertDescription::from_raw(number.parse().unwrap());
        // The RFC spells one of them with one l.
        let ours = alert.name().replace("user_canceled", "user_cancelled");
        assert_eq!(format!("ALERT_DESCRIPTION_{}", ours.to_uppercase()), name);
        if word != "-" {
            assert_eq!(Reason::Alert(alert).name(), word);
            words += 1;
        }
    }
    assert!(table.lines().count() >= 27 && words >= 20, "{table}");
}

/// The configuration of a certificate with every attribute and kind of name.
const RICH: &str = "
[req]
distinguished_name = subject
x509_extensions = extensions
prompt = no
utf8 = yes
[subject]
C = DE
ST = Bayern
L = München
street = Am Tor 1
postalCode = 80331
O = Müller & Söhne
OU = Netz
title = Dr
GN = Ada
SN = Lovelace
initials = AL
pseudonym = ada
generationQualifier = II
dnQualifier = x
name = Ada L
businessCategory = Private Organization
serialNumber = HRB 1
organizationIdentifier = VATDE-1
jurisdictionC = DE
jurisdictionST = Bayern
jurisdictionL = München
UID = ada7
DC = example
emailAddress = ada@example.com
unstructuredName = u
description = d
CN = localhost
[extensions]
subjectAltName = DNS:localhost, DNS:*.example.com, IP:127.0.0.1, IP:2001:db8::ff, email:a@example.com, URI:https://example.com/x, RID:1.2.3.4, otherName:1.2.3.5;UTF8:hidden
authorityInfoAccess = OCSP;URI:http://ocsp.example/, caIssuers;URI:http://ca.example/ca.crt
crlDistributionPoints = URI:http://crl.example/1.crl, URI:http://crl.example/2.crl
";

#[test]
fn a_certificate_with_every_attribute_is_parsed_like_in_python() {
    const SCRIPT: &str = r#"
import _ssl, sys
def lines(key, pairs):
    for name, value in pairs:
        print(key, name, value)
cert = _ssl._test_decode_cert(sys.argv[1])
for key in ("subject", "issuer"):
    lines(key, [pair for rdn in cert[key] for pair in rdn])
print("version", cert["version"])
print("serialNumber", cert["serialNumber"])
print("notBefore", cert["notBefore"])
print("notAfter", cert["notAfter"])
lines("subjectAltName", cert["subjectAltName"])
for key in ("OCSP", "caIssuers", "crlDistributionPoints"):
    for value in cert[key]:
        print(key, value)
"#;
    for serial in ["0", "0x80", "0x7fffffffffffffffffffffffffffffff"] {
        let pki = Pki::new();
        let config = pki.write("rich.cnf", RICH);
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-set_serial", serial, "-config"])
            .arg(config)
            .arg("-keyout")
            .arg(pki.path("rich.key"))
            .arg("-out")
            .arg(pki.path("rich.pem"))
            .output();
        let Ok(made) = made else {
            return leave_out("openssl", "SOCK_REQUIRE_PEERS");
        };
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let Some(theirs) = python(SCRIPT, &pki.path("rich.pem")) else { return };
        let client = pki.client();
        client.load_verify_locations(pki.path("rich.pem")).unwrap();
        let (_server, client) = wrapped(&pki.server_with("rich"), &client);
        assert_eq!(lines(&client.getpeercert().unwrap().unwrap()), theirs);
    }
}

fn lines(certificate: &PeerCertificate) -> String {
    let mut text = String::new();
    let mut pairs = |key: &str, pairs: &[(String, String)]| {
        pairs.iter().for_each(|(name, value)| text += &format!("{key} {name} {value}\n"));
    };
    pairs("subject", &certificate.subject);
    pairs("issuer", &certificate.issuer);
    let times = [("notBefore", certificate.not_before), ("notAfter", certificate.not_after)]
        .map(|(key, time)| (key.to_owned(), sockssl::cert_time(time)));
    text += &format!("version {}\nserialNumber {}\n", certificate.version, certificate.serial_number);
    times.iter().for_each(|(key, time)| text += &format!("{key} {time}\n"));
    for (name, value) in &certificate.subject_alt_name {
        text += &format!("subjectAltName {name} {value}\n");
    }
    let uris = [
        ("OCSP", &certificate.ocsp),
        ("caIssuers", &certificate.ca_issuers),
        ("crlDistributionPoints", &certificate.crl_distribution_points),
    ];
    for (key, values) in uris {
        values.iter().for_each(|value| text += &format!("{key} {value}\n"));
    }
    text
}
