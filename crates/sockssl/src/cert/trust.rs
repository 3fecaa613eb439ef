//! The certificates and revocation lists that were loaded.

use std::io;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use rustls::DistinguishedName;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};

use crate::cert::crl::RevocationLists;
use crate::cert::pem::Pem;
use crate::cert::x509::{Invalid, X509, canonical};
use crate::error::{Reason, in_file, misconfigured};

/// Trusted certificates and revocation lists.
#[derive(Clone, Default)]
pub(crate) struct Trust {
    /// All of them: one that is shown by the peer itself is trusted.
    certificates: Vec<Arc<Loaded>>,
    /// Those that may vouch for others, as the builder of chains wants them.
    anchors: Vec<TrustAnchor<'static>>,
    /// Their certificates, in the same order.
    authorities: Vec<Arc<Loaded>>,
    lists: RevocationLists,
}

/// A certificate, and from when until when it is valid.
struct Loaded {
    der: CertificateDer<'static>,
    /// In canonical form.
    subject: Vec<u8>,
    /// In seconds since 1970, both included.
    validity: (u64, u64),
}

impl Trust {
    /// Adds what is in a file's PEM; [`settle`](Self::settle) has to follow.
    pub(crate) fn add(&mut self, pem: Pem, file: &Path) -> io::Result<()> {
        if pem.certificates.is_empty() && pem.crls.is_empty() {
            let message = "no certificate or revocation list in it (is it a PEM file?)";
            return Err(in_file(file, Reason::NoStartLine, message));
        }
        for certificate in pem.certificates {
            self.add_certificate(certificate).map_err(|error| {
                in_file(
                    file,
                    Reason::BadPem,
                    format_args!("not a certificate that can be trusted: {error}"),
                )
            })?;
        }
        for list in pem.crls {
            self.lists.add(list, file)?;
        }
        Ok(())
    }

    /// Adds the system's; those that cannot be used are passed over, as everywhere.
    pub(crate) fn add_system(&mut self) -> io::Result<()> {
        let found = rustls_native_certs::load_native_certs();
        let mut added = 0;
        for certificate in found.certs {
            match self.add_certificate(certificate) {
                Ok(()) => added += 1,
                Err(error) => log::debug!("a certificate of the system is not used: {error}"),
            }
        }
        match found.errors.first() {
            Some(error) if added == 0 => Err(misconfigured(format!("the system's certificates: {error}"))),
            _ => Ok(()),
        }
    }

    /// Adds a certificate: one that may not vouch for others is trusted for itself alone.
    fn add_certificate(&mut self, der: CertificateDer<'static>) -> Result<(), Invalid> {
        if self.is_loaded(&der) {
            return Ok(());
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
        }
        self.certificates.push(loaded);
        Ok(())
    }

    /// Verifies the lists by the certificates that are loaded, and drops those that newer
    /// ones replace.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        let wanted = self.lists.unverified_issuers();
        let issuers: Vec<_> = self
            .certificates
            .iter()
            .filter(|loaded| wanted.contains(&loaded.subject[..]))
            .filter_map(|loaded| X509::parse(&loaded.der).ok())
            .collect();
        self.lists.settle(&issuers, UnixTime::now())
    }

    /// Until when what is made of this holds: the next time an authority or a list becomes
    /// valid, or is valid no more. In seconds since 1970.
    pub(crate) fn valid_until(&self, now: UnixTime) -> u64 {
        let now = now.as_secs();
        let changes = self
            .authorities
            .iter()
            .flat_map(|authority| [authority.validity.0, authority.validity.1.saturating_add(1)])
            .chain(self.lists.changes());
        changes.filter(|&time| time > now).min().unwrap_or(u64::MAX)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    pub(crate) fn lists(&self) -> &RevocationLists {
        &self.lists
    }

    /// Whether this very certificate was loaded.
    pub(crate) fn is_loaded(&self, der: &[u8]) -> bool {
        self.certificates.iter().any(|loaded| loaded.der.as_ref() == der)
    }

    /// The authorities, for the builder of chains. It judges no dates of theirs.
    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The certificate of one of [`anchors`](Self::anchors).
    pub(crate) fn certificate_of(&self, anchor: &TrustAnchor<'_>) -> Option<&CertificateDer<'static>> {
        let place = self.anchors.iter().position(|other| ptr::eq(ptr::from_ref(other).cast(), anchor))?;
        Some(&self.authorities[place].der)
    }

    /// What to ask clients for: the authorities that are valid, and who issued the
    /// certificates that are trusted for themselves.
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

    /// Who signed a certificate, among those that were loaded and `others`.
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
