//! The loaded certificates and revocation lists.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use rustls::DistinguishedName;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};

use crate::cert::crl::RevocationLists;
use crate::cert::pem::Pem;
use crate::cert::x509::{Invalid, X509, canonical};
use crate::error::{Reason, certificate_too_long, in_file, misconfigured};

/// Trusted certificates and revocation lists.
#[derive(Clone, Default)]
pub(crate) struct Trust {
    /// All certificates. A peer may use each of them as its own (pinning).
    certificates: Vec<Arc<Loaded>>,
    /// The authorities among them, in the form that the chain builder needs.
    anchors: Vec<TrustAnchor<'static>>,
    /// The certificates of the authorities, in the same order.
    authorities: Vec<Arc<Loaded>>,
    /// The largest number of authorities with the same name.
    of_one_name: usize,
    lists: RevocationLists,
    /// What is wrong with certificates of the system that were skipped, to be logged.
    skipped: Vec<Invalid>,
}

/// A loaded certificate and its period of validity.
struct Loaded {
    der: CertificateDer<'static>,
    /// In canonical form.
    subject: Vec<u8>,
    /// The first and the last second, since 1970.
    validity: (u64, u64),
}

impl Trust {
    /// Adds the contents of a PEM file. [`verify_lists`](Self::verify_lists) has to be called
    /// afterwards.
    pub(crate) fn add(&mut self, pem: Pem, file: &Path) -> io::Result<()> {
        if pem.certificates.is_empty() && pem.crls.is_empty() {
            let message = "no certificate or revocation list found (is it a PEM file?)";
            return Err(in_file(file, Reason::NoStartLine, message));
        }
        for certificate in pem.certificates {
            self.add_certificate(certificate).map_err(|error| {
                in_file(file, Reason::BadPem, format_args!("cannot trust a certificate: {error}"))
            })?;
        }
        for list in pem.crls {
            self.lists.add(list, file)?;
        }
        Ok(())
    }

    /// Adds the system's certificates. Those that cannot be parsed are skipped, as by OpenSSL.
    pub(crate) fn add_system(&mut self) -> io::Result<()> {
        let found = match env::var_os("SSL_CERT_FILE").map(PathBuf::from) {
            // The library would read a FIFO or a device without a limit.
            Some(file) if file.exists() && !file.is_file() => {
                let directories = env::var_os("SSL_CERT_DIR").unwrap_or_default();
                let directories =
                    env::split_paths(&directories).filter(|path| !path.as_os_str().is_empty());
                let mut found = rustls_native_certs::CertificateResult::default();
                found.certs = Pem::read(&file)?.certificates;
                for directory in directories {
                    let more = rustls_native_certs::load_certs_from_paths(None, Some(&directory));
                    found.certs.extend(more.certs);
                    found.errors.extend(more.errors);
                }
                found
            }
            _ => rustls_native_certs::load_native_certs(),
        };
        let mut added = 0;
        for certificate in found.certs {
            match self.add_certificate(certificate) {
                Ok(()) => added += 1,
                Err(error) => self.skipped.push(error),
            }
        }
        match found.errors.first() {
            Some(error) if added == 0 => {
                Err(misconfigured(format!("cannot read the system's certificates: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Takes the errors of skipped certificates. They are logged without a lock of the context.
    pub(crate) fn take_skipped(&mut self) -> Vec<Invalid> {
        std::mem::take(&mut self.skipped)
    }

    /// Adds a certificate. If it is not an authority's, it is trusted as a peer's own only.
    fn add_certificate(&mut self, der: CertificateDer<'static>) -> Result<(), Invalid> {
        if self.is_loaded(&der) {
            return Ok(());
        }
        if let Some(message) = certificate_too_long(&der) {
            return Err(Invalid::new(message));
        }
        let parsed = X509::parse(&der)?;
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|error| Invalid::new(error.to_string()))?
            .to_owned();
        let (is_authority, validity) = (parsed.is_authority(), parsed.validity);
        let subject = canonical(parsed.subject);
        let loaded = Arc::new(Loaded { der, subject, validity });
        if is_authority {
            self.anchors.push(anchor);
            self.authorities.push(Arc::clone(&loaded));
            let same = self.authorities.iter().filter(|other| other.subject == loaded.subject);
            self.of_one_name = self.of_one_name.max(same.count());
        }
        self.certificates.push(loaded);
        Ok(())
    }

    /// Verifies the lists with the loaded certificates, and drops lists that newer ones replace.
    pub(crate) fn verify_lists(&mut self) -> io::Result<()> {
        let wanted = self.lists.unverified_issuers();
        let issuers: Vec<_> = self
            .certificates
            .iter()
            .filter(|loaded| wanted.contains(&loaded.subject[..]))
            .filter_map(|loaded| X509::parse(&loaded.der).ok())
            .collect();
        self.lists.verify_and_prune(&issuers, UnixTime::now())
    }

    /// Returns the time, in seconds since 1970, at which a configuration built from this has to
    /// be rebuilt: when the next authority or list becomes valid or expires.
    pub(crate) fn valid_until(&self, now: UnixTime) -> u64 {
        let now = now.as_secs();
        let changes = self
            .authorities
            .iter()
            .flat_map(|authority| [authority.validity.0, authority.validity.1.saturating_add(1)])
            .chain(self.lists.validity_bounds());
        changes.filter(|&time| time > now).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    pub(crate) fn lists(&self) -> &RevocationLists {
        &self.lists
    }

    /// Whether this certificate was loaded.
    pub(crate) fn is_loaded(&self, der: &[u8]) -> bool {
        self.certificates.iter().any(|loaded| loaded.der.as_ref() == der)
    }

    /// Returns the authorities for the chain builder, which does not check their validity.
    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Returns the largest number of authorities with the same name.
    pub(crate) fn anchors_of_one_name(&self) -> usize {
        self.of_one_name
    }

    /// Returns the certificate of one of [`anchors`](Self::anchors).
    pub(crate) fn certificate_of(&self, anchor: &TrustAnchor<'_>) -> Option<&CertificateDer<'static>> {
        let place = self.anchors.iter().position(|other| ptr::eq(ptr::from_ref(other).cast(), anchor))?;
        Some(&self.authorities[place].der)
    }

    /// Returns the issuer names for a CertificateRequest: the authorities that are valid, and the
    /// issuers of the other trusted certificates.
    pub(crate) fn hints(&self, now: UnixTime) -> Vec<DistinguishedName> {
        let mut hints: Vec<DistinguishedName> = Vec::new();
        for loaded in &self.certificates {
            let Ok(parsed) = X509::parse(&loaded.der) else {
                continue;
            };
            let name = match parsed.is_authority() {
                false => parsed.issuer,
                true if (parsed.validity.0..=parsed.validity.1).contains(&now.as_secs()) => parsed.subject,
                true => continue,
            };
            if !hints.iter().any(|hint| hint.as_ref() == name) {
                hints.push(name.to_vec().into());
            }
        }
        hints
    }

    /// Finds the issuer of a certificate among the loaded certificates and `others`.
    pub(crate) fn issuer_of<'a>(
        &'a self,
        certificate: &X509<'_>,
        others: &'a [CertificateDer<'_>],
    ) -> Option<X509<'a>> {
        let name = canonical(certificate.issuer);
        let named = self.certificates.iter().filter(|loaded| loaded.subject == name);
        let loaded = named.map(|loaded| &loaded.der[..]);
        loaded
            .chain(others.iter().map(|other| &other[..]))
            .filter_map(|der| X509::parse(der).ok())
            .filter(|issuer| canonical(issuer.subject) == name)
            .find(|issuer| certificate.is_signed_by(issuer.public_key))
    }
}
