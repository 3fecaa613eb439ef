//! Creates certificates and pairs of connected sockets for tests.

#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use sock::Socket;
use sockssl::{CERT_REQUIRED, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext, SSLError, SSLSocket};
use time::OffsetDateTime;

/// The limit of every wait in a test.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A directory of certificates that is removed after the test.
pub struct Pki {
    directory: PathBuf,
    ca: Certificate,
    ca_key: KeyPair,
}

impl Pki {
    /// Creates `ca.pem`, and `server.pem` for localhost with its key in `server.key`.
    pub fn new() -> Pki {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("sockssl-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let ca_key = KeyPair::generate().unwrap();
        let ca = authority(&format!("test CA {number}")).self_signed(&ca_key).unwrap();
        let pki = Pki { directory, ca, ca_key };
        pki.write("ca.pem", pki.ca.pem());
        pki.issue("server", pki.leaf("localhost"));
        pki
    }

    pub fn ca(&self) -> &Certificate {
        &self.ca
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Returns the parameters of a valid certificate for a host and 127.0.0.1.
    pub fn leaf(&self, name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "sockssl");
        params.not_before = day(-1);
        params.not_after = day(30);
        params.use_authority_key_identifier_extension = true;
        params
    }

    /// Issues `NAME.pem` with `NAME.key`.
    pub fn issue(&self, name: &str, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca, &self.ca_key).unwrap();
        self.write(&format!("{name}.pem"), certificate.pem());
        self.write(&format!("{name}.key"), key.serialize_pem());
    }

    /// Writes `NAME`, a list that revokes the certificate with this serial number.
    pub fn revoke(&self, name: &str, serial: u64, next_update: i64) -> PathBuf {
        self.revoke_until(name, serial, day(next_update))
    }

    pub fn revoke_until(&self, name: &str, serial: u64, next_update: OffsetDateTime) -> PathBuf {
        let crl = CertificateRevocationListParams {
            this_update: day(-2),
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: day(-1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write(name, crl.signed_by(&self.ca, &self.ca_key).unwrap().pem().unwrap())
    }

    /// Creates a server context with `server.pem`.
    pub fn server(&self) -> SSLContext {
        self.server_with("server")
    }

    pub fn server_with(&self, name: &str) -> SSLContext {
        let context = SSLContext::new(PROTOCOL_TLS_SERVER);
        context
            .load_cert_chain(self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
            .unwrap();
        context
    }

    /// Creates a server context that requires certificates that `ca.pem` issued.
    pub fn strict_server(&self) -> SSLContext {
        let context = self.server();
        context.load_verify_locations(self.path("ca.pem")).unwrap();
        context.set_verify_mode(CERT_REQUIRED).unwrap();
        context
    }

    /// Creates a client context that trusts `ca.pem`.
    pub fn client(&self) -> SSLContext {
        let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
        context.load_verify_locations(self.path("ca.pem")).unwrap();
        context
    }

    pub fn client_with(&self, name: &str) -> SSLContext {
        let context = self.client();
        context
            .load_cert_chain(self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")))
            .unwrap();
        context
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = day(-10);
    params.not_after = day(100);
    params
}

pub fn for_clients(mut params: CertificateParams) -> CertificateParams {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Returns a day before or after today.
pub fn day(offset: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::days(offset)
}

/// Connects two sockets, the server's first, with [`LIMIT`] as their timeout.
pub fn connection() -> (Socket, Socket) {
    let listener = sock::create_server(("127.0.0.1", 0)).unwrap();
    let port = listener.getsockname().unwrap().port().unwrap();
    let client = sock::create_connection(("127.0.0.1", port)).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.settimeout(LIMIT).unwrap();
    client.settimeout(LIMIT).unwrap();
    (server, client)
}

/// Does both handshakes, the server's in another thread.
pub fn handshake(
    server: &SSLContext,
    client: &SSLContext,
    name: &str,
) -> (io::Result<SSLSocket>, io::Result<SSLSocket>) {
    let (theirs, ours) = connection();
    let server = server.clone();
    let thread = thread::spawn(move || server.wrap_socket_server(theirs));
    let client = client.wrap_socket_client(ours, name);
    (thread.join().unwrap(), client)
}

/// Returns both ends of an established connection.
#[track_caller]
pub fn wrapped(server: &SSLContext, client: &SSLContext) -> (SSLSocket, SSLSocket) {
    let (server, client) = handshake(server, client, "localhost");
    (server.expect("the server's handshake"), client.expect("the client's handshake"))
}

/// Returns the `SSLError` and the text of a call that must have failed.
#[track_caller]
pub fn ssl_error<T: std::fmt::Debug>(result: io::Result<T>) -> (SSLError, String) {
    let error = result.expect_err("this has to fail");
    let ssl = SSLError::of(&error).unwrap_or_else(|| panic!("no SSLError: {error:?}")).clone();
    (ssl, error.to_string())
}

/// Prints that a test is skipped without a peer. Fails if the environment variable requires it.
pub fn leave_out(peer: &str, variable: &str) {
    let required = std::env::var_os(variable).is_some_and(|value| value == "1");
    assert!(!required, "{variable}=1, but {peer} is not on PATH");
    eprintln!("SKIPPED: {peer} is not on PATH");
}

pub fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("the thread did not panic")
}

/// A certificate and its key.
pub struct Issued {
    pub cert: Certificate,
    pub key: KeyPair,
}

impl Issued {
    /// Creates a certificate that `issuer` or its own key signs.
    pub fn new(params: CertificateParams, issuer: Option<&Issued>) -> Issued {
        let key = KeyPair::generate().unwrap();
        let cert = match issuer {
            Some(issuer) => params.signed_by(&key, &issuer.cert, &issuer.key),
            None => params.self_signed(&key),
        };
        Issued { cert: cert.unwrap(), key }
    }

    /// Writes `NAME.pem`, with the chain above it, and `NAME.key`.
    pub fn write(&self, pki: &Pki, name: &str, chain: &[&Issued]) {
        let above: String = chain.iter().map(|issued| issued.cert.pem()).collect();
        pki.write(&format!("{name}.pem"), self.cert.pem() + &above);
        pki.write(&format!("{name}.key"), self.key.serialize_pem());
    }
}

/// Runs `openssl verify` with these arguments in the directory of certificates. Returns whether it
/// accepts the certificate, or prints a note and returns `None` without openssl.
pub fn openssl_accepts(pki: &Pki, words: &str) -> Option<bool> {
    let mut command = std::process::Command::new("openssl");
    let Ok(output) = command.arg("verify").args(words.split(' ')).current_dir(pki.path("")).output() else {
        leave_out("openssl", "SOCK_REQUIRE_PEERS");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("Usage") && !text.contains("Could not open"), "openssl verify {words}: {text}");
    Some(output.status.success())
}

/// Encodes like in a PEM file.
pub fn base64(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (number, piece) in der.chunks(3).enumerate() {
        let mut word = [0; 4];
        word[1..=piece.len()].copy_from_slice(piece);
        let bits = u32::from_be_bytes(word);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= piece.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
        if number % 16 == 15 {
            text.push('\n');
        }
    }
    text
}
