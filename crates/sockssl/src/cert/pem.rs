//! PEM files with certificates, private keys and revocation lists.

use std::fs;
use std::io;
use std::path::Path;

use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer,
    PrivateSec1KeyDer,
};
use sock::AddressError;

use crate::error::{Reason, in_file};

/// The contents of a PEM file.
#[derive(Default)]
pub(crate) struct Pem {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) crls: Vec<CertificateRevocationListDer<'static>>,
    key: Option<Key>,
}

enum Key {
    Plain(PrivateKeyDer<'static>),
    /// An encrypted PKCS #8 key.
    Encrypted(Vec<u8>),
}

/// Reads a file. An error names it.
pub(crate) fn read(file: &Path) -> io::Result<Vec<u8>> {
    fs::read(file).map_err(|error| AddressError::new("read", file.display(), error).into())
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
        Pem::parse(&read(file)?, file)
    }

    /// Parses `text`. Errors name `file`.
    pub(crate) fn parse(text: &[u8], file: &Path) -> io::Result<Pem> {
        let broken = |error: rustls_pki_types::pem::Error| in_file(file, Reason::BadPem, error);
        if contains(text, b"Proc-Type: 4,ENCRYPTED") {
            return Err(in_file(
                file,
                Reason::UnsupportedKey,
                "the private key has OpenSSL's traditional encryption; \
                 `openssl pkcs8 -topk8 -in OLD -out NEW` makes PKCS #8 of it",
            ));
        }
        // Editors on Windows prepend a byte order mark.
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        let mut pem = Pem::default();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, der) = section.map_err(broken)?;
            let key = match kind {
                SectionKind::Certificate => {
                    pem.certificates.push(der.into());
                    continue;
                }
                SectionKind::Crl => {
                    pem.crls.push(der.into());
                    continue;
                }
                SectionKind::PrivateKey => PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der)),
                SectionKind::RsaPrivateKey => PrivatePkcs1KeyDer::from(der).into(),
                SectionKind::EcPrivateKey => PrivateSec1KeyDer::from(der).into(),
                _ => continue,
            };
            pem.key.get_or_insert(Key::Plain(key));
        }
        if pem.key.is_none() {
            pem.key = encrypted_key(text).map_err(broken)?;
        }
        Ok(pem)
    }

    /// Returns the private key, decrypted with the password if it is encrypted.
    pub(crate) fn into_key(
        self,
        file: &Path,
        password: Option<&[u8]>,
    ) -> io::Result<PrivateKeyDer<'static>> {
        match (self.key, password) {
            (None, _) => {
                Err(in_file(file, Reason::NoStartLine, "no private key found (is it a PEM file?)"))
            }
            (Some(Key::Plain(key)), _) => Ok(key),
            (Some(Key::Encrypted(_)), None) => Err(in_file(
                file,
                Reason::PasswordRequired,
                "the private key is encrypted and no password was given",
            )),
            (Some(Key::Encrypted(der)), Some(password)) => decrypt(&der, file, password),
        }
    }
}

fn decrypt(der: &[u8], file: &Path, password: &[u8]) -> io::Result<PrivateKeyDer<'static>> {
    let info = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|error| {
        in_file(file, Reason::BadPem, format_args!("the encrypted private key: {error}"))
    })?;
    match info.decrypt(password) {
        Ok(document) => Ok(PrivatePkcs8KeyDer::from(document.as_bytes().to_vec()).into()),
        Err(pkcs8::Error::EncryptedPrivateKey(error)) if is_unsupported(&error) => Err(in_file(
            file,
            Reason::UnsupportedKey,
            format_args!("the private key's encryption: {error}"),
        )),
        Err(_) => Err(in_file(file, Reason::BadDecrypt, "the password does not decrypt the private key")),
    }
}

fn is_unsupported(error: &pkcs8::pkcs5::Error) -> bool {
    use pkcs8::pkcs5::Error as E;
    matches!(
        error,
        E::AlgorithmParametersInvalid { .. } | E::NoPbes1CryptSupport | E::UnsupportedAlgorithm { .. }
    )
}

/// Returns an encrypted key, whose label the PEM parser does not support.
fn encrypted_key(text: &[u8]) -> Result<Option<Key>, rustls_pki_types::pem::Error> {
    if !contains(text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(text);
    let relabelled = text.replace("ENCRYPTED PRIVATE KEY-----", "PRIVATE KEY-----");
    let key = PrivatePkcs8KeyDer::from_pem_slice(relabelled.as_bytes())?;
    Ok(Some(Key::Encrypted(key.secret_pkcs8_der().to_vec())))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}
