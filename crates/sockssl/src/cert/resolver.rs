//! A context's own certificates, and the choice of the one that a peer gets.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroizing;

use crate::cert::pem::Pem;
use crate::cert::x509::X509;
use crate::error::{Reason, certificate_too_long, describe_certificate_error, in_file};
use crate::provider::provider;

/// A certificate chain with its key, and the files they were loaded from.
#[derive(Clone, Debug)]
pub(crate) struct CertChain {
    source: Source,
    key: Arc<CertifiedKey>,
}

/// The files of a certificate and its key, which each reload reads again.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) certfile: PathBuf,
    pub(crate) keyfile: PathBuf,
    pub(crate) password: Option<Zeroizing<Vec<u8>>>,
    /// The server name it is for, in lower case, or `None` for all names.
    pub(crate) server_name: Option<String>,
}

/// Prints no password.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("certfile", &self.certfile)
            .field("keyfile", &self.keyfile)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// The keys that the provider can sign with.
#[cfg(feature = "aws-lc-rs")]
const KEYS: &str = "RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, and Ed25519";
// ring limits RSA private keys to 4096 bits (`RsaKeyPair::from_components`).
#[cfg(not(feature = "aws-lc-rs"))]
const KEYS: &str = "RSA of 2048 to 4096 bits, ECDSA on P-256 or P-384, and Ed25519";

/// What the provider has against keys. It is about its internals, and is logged when no lock is held.
#[derive(Default)]
pub(crate) struct KeyNotes(Vec<(PathBuf, TlsError)>);

impl KeyNotes {
    pub(crate) fn log(self) {
        for (keyfile, error) in self.0 {
            log::debug!(path:% = keyfile.display(); "cannot load {}: {error}", keyfile.display());
        }
    }
}

impl CertChain {
    /// Reads both files and checks that the key belongs to the certificate.
    pub(crate) fn load(source: Source, notes: &mut KeyNotes) -> io::Result<CertChain> {
        let Source { certfile, keyfile, password, .. } = &source;
        let certificates = Pem::read(certfile)?;
        if certificates.certificates.is_empty() {
            let message = "no certificate found (is it a PEM file?)";
            return Err(in_file(certfile, Reason::NoStartLine, message));
        }
        if let Some(message) = certificates.certificates.iter().find_map(|der| certificate_too_long(der)) {
            return Err(in_file(certfile, Reason::BadPem, message));
        }
        let chain = certificates.certificates.clone();
        let key = match keyfile == certfile {
            true => certificates,
            false => Pem::read(keyfile)?,
        };
        let key = key.into_key(keyfile, password.as_deref().map(Vec::as_slice))?;
        let key = provider().key_provider.load_private_key(key).map_err(|error| {
            notes.0.push((keyfile.clone(), error));
            let message = format!("unsupported private key; supported are {KEYS}");
            in_file(keyfile, Reason::UnsupportedKey, message)
        })?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            // The key does not provide its public key. The keys of the two providers do.
            Ok(()) | Err(TlsError::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(TlsError::InconsistentKeys(_)) => {
                let message =
                    format!("the private key does not match the certificate in {}", certfile.display());
                return Err(in_file(keyfile, Reason::KeyValuesMismatch, message));
            }
            Err(TlsError::InvalidCertificate(error)) => {
                let why = describe_certificate_error(&error);
                return Err(in_file(certfile, Reason::BadPem, format_args!("the certificate: {why}")));
            }
            Err(error) => {
                return Err(in_file(certfile, Reason::BadPem, format_args!("the certificate: {error}")));
            }
        }
        Ok(CertChain { source, key: Arc::new(key) })
    }

    /// Reads the same files again.
    pub(crate) fn reload(&self, notes: &mut KeyNotes) -> io::Result<CertChain> {
        CertChain::load(self.source.clone(), notes)
    }

    /// Whether `other` is for the same name and kind of key, so that one replaces the other.
    pub(crate) fn replaces(&self, other: &CertChain) -> bool {
        self.source.server_name == other.source.server_name && self.algorithm() == other.algorithm()
    }

    /// Whether clients that send this server name may get the certificate.
    pub(crate) fn is_for(&self, name: Option<&str>) -> bool {
        let name = name.map(str::to_ascii_lowercase);
        match_rank(self.source.server_name.as_deref(), name.as_deref()).is_some()
    }

    /// Returns the last second, since 1970, in which each certificate is valid.
    pub(crate) fn ends(&self) -> impl Iterator<Item = u64> {
        let parsed = self.key.cert.iter().filter_map(|der| X509::parse(der).ok());
        parsed.map(|certificate| certificate.validity.1)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.key.algorithm()
    }
}

/// Chooses a certificate by the server name and by the peer's signature schemes.
#[derive(Debug)]
pub(crate) struct CertResolver(pub(crate) Vec<CertChain>);

impl CertResolver {
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let mut best: Option<(u8, &CertChain)> = None;
        for chain in self.0.iter().filter(|chain| chain.key.key.choose_scheme(schemes).is_some()) {
            let Some(rank) = match_rank(chain.source.server_name.as_deref(), name.as_deref()) else {
                continue;
            };
            // Among equal ranks the last loaded certificate is chosen.
            if best.is_none_or(|(found, _)| rank >= found) {
                best = Some((rank, chain));
            }
        }
        best.map(|(_, chain)| Arc::clone(&chain.key))
    }
}

/// Returns how well a certificate's name matches the requested one, or `None` if it does not.
fn match_rank(own: Option<&str>, wanted: Option<&str>) -> Option<u8> {
    match (own, wanted) {
        (None, _) => Some(0),
        (Some(own), Some(wanted)) if own == wanted => Some(2),
        (Some(own), Some(wanted)) => {
            // A wildcard matches one label, as in certificates.
            let domain = own.strip_prefix("*.")?;
            let (label, rest) = wanted.split_once('.')?;
            (!label.is_empty() && rest == domain).then_some(1)
        }
        (Some(_), None) => None,
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

impl ResolvesClientCert for CertResolver {
    fn resolve(&self, _roots: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // OpenSSL also ignores the authorities that the server names.
        self.choose(None, schemes)
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_outranks_a_wildcard() {
        assert_eq!(match_rank(None, None), Some(0));
        assert_eq!(match_rank(None, Some("a.example")), Some(0));
        assert_eq!(match_rank(Some("a.example"), Some("a.example")), Some(2));
        assert_eq!(match_rank(Some("*.example"), Some("a.example")), Some(1));
        assert_eq!(match_rank(Some("*.example"), Some("b.a.example")), None);
        assert_eq!(match_rank(Some("*.example"), Some(".example")), None);
        assert_eq!(match_rank(Some("a.example"), None), None);
        assert_eq!(match_rank(Some("a.example"), Some("b.example")), None);
    }
}
