//! PEM files with certificates, private keys and revocation lists.

use std::io;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer,
    PrivateSec1KeyDer,
};
use zeroize::Zeroizing;

use crate::cert::encrypted_key::{self, Plain};
use crate::cert::file;
use crate::cert::x509::items;
use crate::error::{Reason, in_file};

/// The contents of a PEM file.
#[derive(Default)]
pub(crate) struct Pem {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) crls: Vec<CertificateRevocationListDer<'static>>,
    key: Option<Key>,
}

/// A private key in DER, which may be encrypted.
struct Key {
    format: KeyFormat,
    der: Plain,
    encryption: Encryption,
}

#[derive(Clone, Copy)]
enum KeyFormat {
    Pkcs1,
    Pkcs8,
    Sec1,
}

enum Encryption {
    None,
    Pkcs8,
    /// The value of the header `DEK-Info`.
    Traditional(String),
}

impl Pem {
    /// Makes a value from contents that were parsed before.
    pub(crate) fn new(
        certificates: Vec<CertificateDer<'static>>,
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Pem {
        Pem { certificates, crls, key: None }
    }

    pub(crate) fn read(file: &Path) -> io::Result<Pem> {
        Pem::parse(&file::read(file)?, file)
    }

    /// Parses `text`. Errors name `file`.
    pub(crate) fn parse(text: &[u8], file: &Path) -> io::Result<Pem> {
        let mut pem = Pem::default();
        for section in sections(text).map_err(|error| in_file(file, Reason::BadPem, error))? {
            let decode = || section.decode().map_err(|error| in_file(file, Reason::BadPem, error));
            let (format, encryption) = match section.label {
                // `X509 CERTIFICATE` is an old label of OpenSSL.
                b"CERTIFICATE" | b"X509 CERTIFICATE" => {
                    pem.certificates.push(decode()?.to_vec().into());
                    continue;
                }
                b"TRUSTED CERTIFICATE" => {
                    let der = trusted_certificate(&decode()?)
                        .map_err(|error| in_file(file, Reason::BadPem, section.describe(error)))?;
                    pem.certificates.push(der);
                    continue;
                }
                b"X509 CRL" => {
                    pem.crls.push(decode()?.to_vec().into());
                    continue;
                }
                b"PRIVATE KEY" => (KeyFormat::Pkcs8, Encryption::None),
                b"ENCRYPTED PRIVATE KEY" => (KeyFormat::Pkcs8, Encryption::Pkcs8),
                b"RSA PRIVATE KEY" => (KeyFormat::Pkcs1, section.encryption()),
                b"EC PRIVATE KEY" => (KeyFormat::Sec1, section.encryption()),
                _ => continue,
            };
            // OpenSSL uses the first key too.
            if pem.key.is_none() {
                pem.key = Some(Key { format, der: decode()?, encryption });
            }
        }
        Ok(pem)
    }

    /// Returns the private key, decrypted with the password if it is encrypted.
    pub(crate) fn into_key(
        self,
        file: &Path,
        password: Option<&[u8]>,
    ) -> io::Result<PrivateKeyDer<'static>> {
        let Some(Key { format, der, encryption }) = self.key else {
            return Err(in_file(file, Reason::NoStartLine, "no private key found (is it a PEM file?)"));
        };
        let der = match (encryption, password) {
            (Encryption::None, _) => der,
            (_, None) => {
                let message = "the private key is encrypted and no password was given";
                return Err(in_file(file, Reason::PasswordRequired, message));
            }
            (Encryption::Pkcs8, Some(password)) => {
                encrypted_key::decrypt_pkcs8(&der, password).map_err(|error| error.in_file(file))?
            }
            (Encryption::Traditional(dek_info), Some(password)) => {
                encrypted_key::decrypt_traditional(&dek_info, &der, password)
                    .map_err(|error| error.in_file(file))?
            }
        };
        Ok(match format {
            KeyFormat::Pkcs1 => PrivatePkcs1KeyDer::from(der.to_vec()).into(),
            KeyFormat::Pkcs8 => PrivatePkcs8KeyDer::from(der.to_vec()).into(),
            KeyFormat::Sec1 => PrivateSec1KeyDer::from(der.to_vec()).into(),
        })
    }
}

/// One section of a PEM file.
struct Section<'a> {
    label: &'a [u8],
    /// The number of the BEGIN line.
    line: usize,
    headers: Vec<&'a [u8]>,
    body: Vec<&'a [u8]>,
}

impl Section<'_> {
    fn describe(&self, what: impl std::fmt::Display) -> String {
        format!("section \"{}\" at line {}: {what}", self.label.escape_ascii(), self.line)
    }

    fn decode(&self) -> Result<Plain, String> {
        // The library's parser decodes base64. Its label is that of any supported section.
        let body = Zeroizing::new(self.body.join(&b'\n'));
        let text = Zeroizing::new(
            [b"-----BEGIN CERTIFICATE-----\n", &body[..], b"\n-----END CERTIFICATE-----\n"].concat(),
        );
        let der = CertificateDer::from_pem_slice(&text).map_err(|_| self.describe("invalid base64"))?;
        Ok(Zeroizing::new(der.to_vec()))
    }

    fn encryption(&self) -> Encryption {
        let value = |name: &str| {
            let mut values = self.headers.iter().filter_map(|header| header.strip_prefix(name.as_bytes()));
            values.next().map(|value| String::from_utf8_lossy(value).trim().to_owned())
        };
        match value("Proc-Type:") {
            Some(kind) if kind.ends_with("ENCRYPTED") => {
                Encryption::Traditional(value("DEK-Info:").unwrap_or_default())
            }
            _ => Encryption::None,
        }
    }
}

/// Splits a PEM file into its sections. Text outside sections is ignored.
fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, String> {
    // Editors on Windows prepend a byte order mark.
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let mut sections = Vec::new();
    let mut open: Option<Section<'_>> = None;
    // Lines end with LF, CRLF or, in very old files, CR.
    let end = if text.contains(&b'\n') { b'\n' } else { b'\r' };
    for (number, line) in text.split(|&byte| byte == end).map(<[u8]>::trim_ascii_end).enumerate() {
        let label = |prefix: &[u8]| line.strip_prefix(prefix)?.strip_suffix(b"-----");
        match &mut open {
            None => {
                if let Some(label) = label(b"-----BEGIN ") {
                    let (headers, body) = (Vec::new(), Vec::new());
                    open = Some(Section { label, line: number + 1, headers, body });
                }
            }
            Some(section) => match label(b"-----END ") {
                Some(label) if label == section.label => sections.extend(open.take()),
                None if !line.starts_with(b"-----") => {
                    if line.contains(&b':') {
                        section.headers.push(line);
                    } else {
                        section.body.push(line);
                    }
                }
                _ => return Err(section.describe("another section starts before its END line")),
            },
        }
    }
    match open {
        Some(section) => Err(section.describe("no END line (is the file truncated?)")),
        None => Ok(sections),
    }
}

/// Returns the certificate in a section `TRUSTED CERTIFICATE`, which OpenSSL's `x509 -trustout`
/// writes: a certificate, and optionally its trust settings.
fn trusted_certificate(der: &[u8]) -> Result<CertificateDer<'static>, String> {
    let what = "the certificate";
    let parts = items(der, what).map_err(|error| error.to_string())?;
    let settings = match parts[..] {
        [_] => Vec::new(),
        [_, settings] => settings.sequence("the trust settings").map_err(|error| error.to_string())?,
        _ => return Err("expected a certificate and its trust settings".into()),
    };
    // CertAux: `trust` is a SEQUENCE and `reject` is [0]. The alias and the key identifier have no
    // effect on verification.
    let restricts = |field: &crate::cert::x509::Item<'_>| {
        field.tag == x509_cert::der::Tag::Sequence || field.context() == Some(0)
    };
    if settings.iter().any(restricts) {
        return Err("trust settings for single purposes are not supported".into());
    }
    Ok(parts[0].raw.to_vec().into())
}
