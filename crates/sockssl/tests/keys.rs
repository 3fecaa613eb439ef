//! The promise: private keys are loaded with every encryption that CPython's `ssl` and OpenSSL 3
//! load by default, except those that `docs/differences.md` lists. An error about a key says how
//! to convert it.
//!
//! The `openssl` command makes the keys, and `python3` loads them for comparison.

mod support;

use std::process::{Command, Stdio};

use sockssl::{PROTOCOL_TLS_SERVER, Reason, SSLContext};
use support::{Pki, leave_out, ssl_error, wrapped};

const PASSWORD: &str = "open sésame";

/// Runs `openssl` with these arguments in the directory of certificates. Returns whether it
/// succeeded, or prints a note and returns `None` without openssl.
fn openssl(pki: &Pki, arguments: &str) -> Option<bool> {
    let mut command = Command::new("openssl");
    let command = command.args(arguments.split(' ')).args(["-passout", &format!("pass:{PASSWORD}")]);
    let status = command.current_dir(pki.path("")).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if status.is_err() {
        leave_out("openssl", "SOCK_REQUIRE_PEERS");
    }
    Some(status.ok()?.success())
}

/// Whether Python loads `server.pem` with these keys, in their order.
fn python_loads(pki: &Pki, keys: &[String]) -> Option<Vec<bool>> {
    const SCRIPT: &str = r"
import ssl, sys
for key in sys.argv[2:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain('server.pem', key, sys.argv[1])
        print('yes')
    except ssl.SSLError as error:
        print('no')
";
    let program = std::env::var("SOCK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(&program);
    command.args(["-c", SCRIPT, PASSWORD]).args(keys).current_dir(pki.path(""));
    let Ok(output) = command.output() else {
        leave_out(&program, "SOCK_REQUIRE_PYTHON");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).lines().map(|line| line == "yes").collect())
}

#[test]
fn every_encryption_that_python_loads_is_loaded() {
    let pki = Pki::new();
    // An RSA key too, since its traditional format has another label.
    if openssl(&pki, "req -x509 -newkey rsa:2048 -keyout rsa.key -out rsa.pem -subj /CN=localhost")
        .is_none()
    {
        return;
    }
    let pkcs8 = "pkcs8 -topk8 -in server.key -out";
    let traditional = "ec -in server.key -out";
    let mut keys = Vec::new();
    for (name, command) in [
        ("default", format!("{pkcs8} default.key")),
        ("aes-128", format!("{pkcs8} aes-128.key -v2 aes-128-cbc")),
        ("aes-192", format!("{pkcs8} aes-192.key -v2 aes-192-cbc")),
        ("3des", format!("{pkcs8} 3des.key -v2 des3")),
        ("sha1", format!("{pkcs8} sha1.key -v2 aes-256-cbc -v2prf hmacWithSHA1")),
        ("3des-sha1", format!("{pkcs8} 3des-sha1.key -v2 des3 -v2prf hmacWithSHA1")),
        ("sha224", format!("{pkcs8} sha224.key -v2 aes-256-cbc -v2prf hmacWithSHA224")),
        ("sha512", format!("{pkcs8} sha512.key -v2 aes-256-cbc -v2prf hmacWithSHA512")),
        ("scrypt", format!("{pkcs8} scrypt.key -scrypt -scrypt_N 1024")),
        ("pbes1-3des", format!("{pkcs8} pbes1-3des.key -v1 PBE-SHA1-3DES")),
        ("pbes1-2des", format!("{pkcs8} pbes1-2des.key -v1 PBE-SHA1-2DES")),
        ("old-aes-128", format!("{traditional} old-aes-128.key -aes128")),
        ("old-aes-192", format!("{traditional} old-aes-192.key -aes192")),
        ("old-aes-256", format!("{traditional} old-aes-256.key -aes256")),
        ("old-3des", format!("{traditional} old-3des.key -des3")),
    ] {
        assert_eq!(openssl(&pki, &command), Some(true), "openssl {command}");
        keys.push(format!("{name}.key"));
    }
    let encrypted = pki.read("old-aes-128.key");
    assert!(encrypted.contains("Proc-Type: 4,ENCRYPTED"), "{encrypted}");
    if let Some(loads) = python_loads(&pki, &keys) {
        assert_eq!(loads, vec![true; keys.len()], "{keys:?}");
    }
    let certificate = pki.path("server.pem");
    for key in &keys {
        let key = pki.path(key);
        let context = SSLContext::new(PROTOCOL_TLS_SERVER);
        let (error, text) = ssl_error(context.load_cert_chain(&certificate, &key));
        assert_eq!(error.reason(), Reason::PasswordRequired, "{text}");
        for wrong in ["", "open sésame\n"] {
            let (error, text) = ssl_error(context.load_cert_chain_with_password(&certificate, &key, wrong));
            assert_eq!(error.reason(), Reason::BadDecrypt, "{text}");
        }
        context
            .load_cert_chain_with_password(&certificate, &key, PASSWORD)
            .unwrap_or_else(|error| panic!("{error}"));
        context.reload().unwrap();
        wrapped(&context, &pki.client());
    }
    // What `openssl req` writes on Debian 12: PBES2 with 3DES.
    let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    context.load_cert_chain_with_password(pki.path("rsa.pem"), pki.path("rsa.key"), PASSWORD).unwrap();
    let command = "rsa -in rsa.key -passin pass:open -out none.key";
    assert_eq!(openssl(&pki, command), Some(false), "the password is required");
}

#[test]
fn an_unsupported_encryption_is_reported_with_the_conversion() {
    let pki = Pki::new();
    let legacy = "-provider legacy -provider default";
    let mut keys = Vec::new();
    for (name, command) in [
        (
            "md5-prf",
            "pkcs8 -topk8 -in server.key -out md5-prf.key -v2 aes-256-cbc -v2prf hmacWithMD5".to_owned(),
        ),
        ("camellia", "pkcs8 -topk8 -in server.key -out camellia.key -v2 camellia-256-cbc".to_owned()),
        ("aria", "ec -in server.key -out aria.key -aria256".to_owned()),
        ("pbes1-des", format!("pkcs8 {legacy} -topk8 -in server.key -out pbes1-des.key -v1 PBE-MD5-DES")),
        ("rc2", format!("pkcs8 {legacy} -topk8 -in server.key -out rc2.key -v1 PBE-SHA1-RC2-128")),
        ("des", format!("ec {legacy} -in server.key -out des.key -des")),
    ] {
        match openssl(&pki, &command) {
            None => return,
            Some(true) => keys.push(format!("{name}.key")),
            // This build of openssl has no such cipher.
            Some(false) => eprintln!("SKIPPED: openssl {command}"),
        }
    }
    assert!(keys.len() >= 2, "{keys:?}");
    for key in &keys {
        let context = SSLContext::new(PROTOCOL_TLS_SERVER);
        let result = context.load_cert_chain_with_password(pki.path("server.pem"), pki.path(key), PASSWORD);
        let (error, text) = ssl_error(result);
        assert_eq!(error.reason(), Reason::UnsupportedKey, "{text}");
        assert!(text.contains(key) && text.contains("`openssl pkcs8 -topk8 -in OLD -out NEW`"), "{text}");
    }
    // The conversion works.
    let password = format!("pass:{PASSWORD}");
    let mut command = Command::new("openssl");
    command.args("pkcs8 -topk8 -in camellia.key -out new.key -passin".split(' ')).arg(&password);
    let status = command.args(["-passout", &password]).current_dir(pki.path("")).status().unwrap();
    if status.success() {
        let (certificate, key) = (pki.path("server.pem"), pki.path("new.key"));
        let context = SSLContext::new(PROTOCOL_TLS_SERVER);
        context.load_cert_chain_with_password(certificate, key, PASSWORD).unwrap();
    }
}

#[test]
fn the_labels_of_openssl_are_supported() {
    let pki = Pki::new();
    let old = pki.read("ca.pem").replace(" CERTIFICATE-----", " X509 CERTIFICATE-----");
    pki.write("old.pem", old);
    let client = SSLContext::new(sockssl::PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(pki.path("old.pem")).unwrap();
    wrapped(&pki.server(), &client);

    let run = |arguments: &str| {
        let mut command = Command::new("openssl");
        command
            .args(arguments.split(' '))
            .current_dir(pki.path(""))
            .status()
            .is_ok_and(|status| status.success())
    };
    if !run("x509 -in ca.pem -trustout -setalias alias -out trusted.pem") {
        return leave_out("openssl", "SOCK_REQUIRE_PEERS");
    }
    assert!(pki.read("trusted.pem").contains("BEGIN TRUSTED CERTIFICATE"));
    let client = SSLContext::new(sockssl::PROTOCOL_TLS_CLIENT);
    client.load_verify_locations(pki.path("trusted.pem")).unwrap();
    wrapped(&pki.server(), &client);
    // Settings that restrict the trust are not ignored.
    for settings in ["-addtrust clientAuth", "-addreject serverAuth"] {
        assert!(run(&format!("x509 -in ca.pem -trustout {settings} -out restricted.pem")));
        let client = SSLContext::new(sockssl::PROTOCOL_TLS_CLIENT);
        let (error, text) = ssl_error(client.load_verify_locations(pki.path("restricted.pem")));
        assert_eq!(error.reason(), Reason::BadPem, "{text}");
        assert!(text.contains("restricted.pem: section \"TRUSTED CERTIFICATE\" at line 1"), "{text}");
    }
}

#[test]
fn a_damaged_pem_file_is_described_in_words() {
    let pki = Pki::new();
    let good = pki.read("server.pem");
    for (name, text, expected) in [
        ("cut", good[..200].to_owned(), "section \"CERTIFICATE\" at line 1: no END line"),
        ("base64", good.replacen("MII", "M%I", 1), "section \"CERTIFICATE\" at line 1: invalid base64"),
        ("second", format!("{good}text\r\n{}", &good[..100]), "section \"CERTIFICATE\" at line"),
        ("joined", format!("{}\n{good}", &good[..100]), "section \"CERTIFICATE\" at line 1: "),
    ] {
        let file = pki.write(name, text);
        let client = SSLContext::new(sockssl::PROTOCOL_TLS_CLIENT);
        let (error, text) = ssl_error(client.load_verify_locations(&file));
        assert_eq!(error.reason(), Reason::BadPem, "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains(['[', '{']), "{text}");
    }
    let file = pki.write("empty", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
    let client = SSLContext::new(sockssl::PROTOCOL_TLS_CLIENT);
    assert_eq!(ssl_error(client.load_verify_locations(&file)).0.reason(), Reason::BadPem);
}
