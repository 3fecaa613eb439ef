//! Whom to trust: the peer's certificate against the loaded authorities.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::iter;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use x509_cert::der::asn1::ObjectIdentifier;

use crate::cert::{CLIENT_AUTH, Listed, Parsed, SERVER_AUTH, cert_time_of, next_update, printable};
use crate::error::{Reason, in_file, misconfigured};
use crate::names::{VERIFY_CRL_CHECK_LEAF, VERIFY_DEFAULT, VerifyFlags, VerifyMode};
use crate::pem::Pem;
use crate::provider::provider;
use crate::sessions;

/// Trusted certificates and revocation lists.
#[derive(Clone, Default)]
pub(crate) struct Trust {
    authorities: Vec<Authority>,
    /// As they were loaded: one that is shown by the peer itself is trusted as well.
    exact: HashSet<Vec<u8>>,
    /// Who issued those that are no authorities: what to ask clients for.
    issuers: Vec<DistinguishedName>,
    crls: Vec<CertificateRevocationListDer<'static>>,
}

/// A certificate that may vouch for others, from when until when.
#[derive(Clone)]
struct Authority {
    der: CertificateDer<'static>,
    /// In seconds since 1970, both included.
    validity: (u64, u64),
}

impl Authority {
    fn new(der: CertificateDer<'static>, parsed: Option<&Parsed>) -> Authority {
        // The TLS library reads some that are not well-formed; they are trusted as ever.
        let validity = parsed.map_or((0, u64::MAX), Parsed::validity);
        Authority { der, validity }
    }

    fn is_valid(&self, now: UnixTime) -> bool {
        (self.validity.0..=self.validity.1).contains(&now.as_secs())
    }
}

impl Trust {
    /// Adds what is in a file's PEM.
    pub(crate) fn add(&mut self, pem: Pem, file: &Path) -> io::Result<()> {
        if pem.certificates.is_empty() && pem.crls.is_empty() {
            let message = "no certificate or revocation list in it (is it a PEM file?)";
            return Err(in_file(file, Reason::NoStartLine, message));
        }
        for certificate in pem.certificates {
            RootCertStore::empty().add(certificate.clone()).map_err(|error| {
                in_file(
                    file,
                    Reason::BadPem,
                    format_args!("not a certificate that can be trusted: {error}"),
                )
            })?;
            self.exact.insert(certificate.to_vec());
            match Parsed::from_der(&certificate) {
                // Else whoever has its key could make certificates for any name.
                Ok(parsed) if !parsed.is_authority() => self.issuers.push(parsed.issuer_der().into()),
                parsed => self.authorities.push(Authority::new(certificate, parsed.ok().as_ref())),
            }
        }
        for crl in pem.crls {
            // Parsed for its faults alone: the verifier has them without the file's name.
            WebPkiServerVerifier::builder_with_provider(
                Arc::new(or_any_root(RootCertStore::empty())),
                provider(),
            )
            .with_crls([crl.clone()])
            .build()
            .map_err(|error| in_file(file, Reason::BadPem, format_args!("the revocation list: {error}")))?;
            self.crls.push(crl);
        }
        Ok(())
    }

    /// Adds the system's; those that cannot be used are passed over, as everywhere.
    pub(crate) fn add_system(&mut self) -> io::Result<()> {
        let found = rustls_native_certs::load_native_certs();
        let before = self.authorities.len();
        for certificate in found.certs {
            if RootCertStore::empty().add(certificate.clone()).is_ok() {
                let parsed = Parsed::from_der(&certificate).ok();
                self.authorities.push(Authority::new(certificate, parsed.as_ref()));
            }
        }
        match found.errors.first() {
            Some(error) if self.authorities.len() == before => {
                Err(misconfigured(format!("the system's certificates: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Until when what is made of this holds: the next time an authority becomes
    /// valid, or is valid no more, or a revocation list ends. In seconds since 1970.
    pub(crate) fn holds_until(&self, now: UnixTime) -> u64 {
        let now = now.as_secs();
        let changes = self
            .authorities
            .iter()
            .flat_map(|authority| [authority.validity.0, authority.validity.1.saturating_add(1)])
            .chain(self.crls.iter().filter_map(|crl| next_update(crl)));
        changes.filter(|&time| time > now).min().unwrap_or(u64::MAX)
    }

    fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.exact.is_empty()
    }

    /// The authorities that are valid now.
    fn roots(&self, now: UnixTime) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let valid = self.authorities.iter().filter(|authority| authority.is_valid(now));
        roots.add_parsable_certificates(valid.map(|authority| authority.der.clone()));
        or_any_root(roots)
    }

    /// The authority behind a chain that ends in none that is valid now.
    fn outdated(&self, chain: &[&CertificateDer<'_>], now: UnixTime) -> Option<&Authority> {
        let chain: Vec<_> = chain.iter().filter_map(|der| Parsed::from_der(der).ok()).collect();
        self.authorities.iter().filter(|authority| !authority.is_valid(now)).find(|authority| {
            let parsed = Parsed::from_der(&authority.der);
            parsed.is_ok_and(|authority| chain.iter().any(|below| below.is_below(&authority)))
        })
    }

    /// What the lists say of a certificate that needs no issuer.
    fn check_revocation(
        &self,
        certificate: &Parsed,
        flags: VerifyFlags,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let lists: Vec<_> = self.crls.iter().filter_map(|crl| certificate.listed_in(crl)).collect();
        if lists.iter().any(|list| list.revoked) {
            return Err(CertificateError::Revoked);
        }
        let is_fresh = |list: &Listed| list.next_update.is_some_and(|until| now.as_secs() <= until);
        match (flags, lists.is_empty()) {
            (VERIFY_DEFAULT, _) => Ok(()),
            (_, true) => Err(CertificateError::UnknownRevocationStatus),
            (_, false) if lists.iter().any(is_fresh) => Ok(()),
            _ => Err(CertificateError::ExpiredRevocationList),
        }
    }

    /// Whether a certificate that was loaded itself is good now: it needs no issuer.
    fn check_exact(
        &self,
        der: &[u8],
        now: UnixTime,
        flags: VerifyFlags,
        usage: ObjectIdentifier,
    ) -> Option<Result<(), CertificateError>> {
        if !self.exact.contains(der) {
            return None;
        }
        let parsed = Parsed::from_der(der).ok()?;
        Some(
            check_time(parsed.validity(), now)
                .and_then(|()| self.check_revocation(&parsed, flags, now))
                .and_then(|()| match parsed.allows(usage) {
                    true => Ok(()),
                    false => Err(CertificateError::InvalidPurpose),
                }),
        )
    }
}

fn check_time((not_before, not_after): (u64, u64), now: UnixTime) -> Result<(), CertificateError> {
    let from_unix = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    if now.as_secs() > not_after {
        Err(CertificateError::ExpiredContext { time: now, not_after: from_unix(not_after) })
    } else if now.as_secs() < not_before {
        Err(CertificateError::NotValidYetContext { time: now, not_before: from_unix(not_before) })
    } else {
        Ok(())
    }
}

/// What the builder of verifiers accepts: it wants one root at least.
fn or_any_root(mut roots: RootCertStore) -> RootCertStore {
    if roots.is_empty() {
        roots.roots.push(rustls_pki_types::TrustAnchor {
            subject: Vec::new().into(),
            subject_public_key_info: Vec::new().into(),
            name_constraints: None,
        });
    }
    roots
}

/// What a context asks of its peers.
#[derive(Clone, Copy)]
pub(crate) struct Demands {
    pub(crate) mode: VerifyMode,
    pub(crate) flags: VerifyFlags,
    pub(crate) check_hostname: bool,
    pub(crate) common_name: bool,
}

impl Demands {
    fn check(&self, trust: &Trust) -> io::Result<()> {
        if self.mode == VerifyMode::CERT_NONE {
            return Ok(());
        }
        if trust.is_empty() {
            return Err(misconfigured(
                "peers have to show a certificate, but no authority is trusted: call load_verify_locations",
            ));
        }
        if self.flags != VERIFY_DEFAULT && trust.crls.is_empty() {
            return Err(misconfigured("revocation is to be checked, but no revocation list is loaded"));
        }
        Ok(())
    }
}

/// A client's judgement of a server.
pub(crate) fn server_verifier(
    trust: &Arc<Trust>,
    demands: Demands,
    now: UnixTime,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    demands.check(trust)?;
    let roots = Arc::new(trust.roots(now));
    let mut builder =
        WebPkiServerVerifier::builder_with_provider(roots, provider()).with_crls(trust.crls.clone());
    builder = match demands.flags {
        VERIFY_DEFAULT => builder.allow_unknown_revocation_status(),
        VERIFY_CRL_CHECK_LEAF => builder.only_check_end_entity_revocation().enforce_revocation_expiration(),
        _ => builder.enforce_revocation_expiration(),
    };
    let chains = builder.build().map_err(|error| misconfigured(error.to_string()))?;
    Ok(Arc::new(ServerJudge { chains, trust: Arc::clone(trust), demands }))
}

/// A server's judgement of its clients; `None` when it asks for no certificate.
pub(crate) fn client_verifier(
    trust: &Arc<Trust>,
    demands: Demands,
    now: UnixTime,
) -> io::Result<Option<Arc<dyn ClientCertVerifier>>> {
    if demands.mode == VerifyMode::CERT_NONE {
        return Ok(None);
    }
    demands.check(trust)?;
    let roots = trust.roots(now);
    let mut hints = trust.issuers.clone();
    hints.extend(roots.subjects().into_iter().filter(|subject| !subject.as_ref().is_empty()));
    let roots = Arc::new(roots);
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(roots, provider()).with_crls(trust.crls.clone());
    builder = builder.clear_root_hint_subjects().add_root_hint_subjects(hints);
    builder = match demands.flags {
        VERIFY_DEFAULT => builder.allow_unknown_revocation_status(),
        VERIFY_CRL_CHECK_LEAF => builder.only_check_end_entity_revocation().enforce_revocation_expiration(),
        _ => builder.enforce_revocation_expiration(),
    };
    if demands.mode == VerifyMode::CERT_OPTIONAL {
        builder = builder.allow_unauthenticated();
    }
    let chains = builder.build().map_err(|error| misconfigured(error.to_string()))?;
    let holds_until = trust.holds_until(now).saturating_sub(1);
    Ok(Some(Arc::new(ClientJudge { chains, trust: Arc::clone(trust), flags: demands.flags, holds_until })))
}

/// Who shows a certificate has to sign with its key: the same for both sides, in
/// two traits of the library.
macro_rules! signatures_by_chains {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            self.chains.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            self.chains.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.chains.supported_verify_schemes()
        }
    };
}

struct ServerJudge {
    chains: Arc<WebPkiServerVerifier>,
    trust: Arc<Trust>,
    demands: Demands,
}

impl ServerJudge {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<(), TlsError> {
        // The chain comes first in there and the name last: an error of the name
        // says that the chain is good.
        let by_chain =
            self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let result = match by_chain {
            Err(TlsError::InvalidCertificate(ref error)) if !is_about_the_name(error) => {
                match self.trust.check_exact(end_entity, now, self.demands.flags, SERVER_AUTH) {
                    Some(Ok(())) => {
                        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)
                    }
                    Some(Err(error)) => Err(error.into()),
                    None => by_chain.map(drop),
                }
            }
            other => other.map(drop),
        };
        match result {
            Err(TlsError::InvalidCertificate(ref error)) if is_about_the_name(error) => {
                if !self.demands.check_hostname
                    || (self.demands.common_name && common_name_matches(end_entity, server_name))
                {
                    return Ok(());
                }
                result
            }
            other => other,
        }
    }
}

impl ServerCertVerifier for ServerJudge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.demands.mode != VerifyMode::CERT_NONE {
            self.judge(end_entity, intermediates, server_name, ocsp_response, now)
                .map_err(|error| refuse(error, end_entity, intermediates, &self.trust, now))?;
        }
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_chains!();
}

impl fmt::Debug for ServerJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerJudge")
    }
}

struct ClientJudge {
    chains: Arc<dyn ClientCertVerifier>,
    trust: Arc<Trust>,
    flags: VerifyFlags,
    /// Until when authorities and lists are as they are now, the last second included.
    holds_until: u64,
}

impl ClientCertVerifier for ClientJudge {
    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let by_chain = self.chains.verify_client_cert(end_entity, intermediates, now);
        let result = match by_chain {
            Err(TlsError::InvalidCertificate(_)) => {
                match self.trust.check_exact(end_entity, now, self.flags, CLIENT_AUTH) {
                    Some(Ok(())) => Ok(ClientCertVerified::assertion()),
                    Some(Err(error)) => Err(error.into()),
                    None => by_chain,
                }
            }
            other => other,
        };
        let verified =
            result.map_err(|error| refuse(error, end_entity, intermediates, &self.trust, now))?;
        let chain = sessions::chain_holds_until(iter::once(end_entity).chain(intermediates));
        sessions::judged_until(chain.min(self.holds_until));
        Ok(verified)
    }

    signatures_by_chains!();
}

impl fmt::Debug for ClientJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientJudge")
    }
}

fn is_about_the_name(error: &CertificateError) -> bool {
    matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
}

/// Python's `hostname_checks_common_name`: only where no other name is given.
fn common_name_matches(end_entity: &CertificateDer<'_>, server_name: &ServerName<'_>) -> bool {
    let (Ok(parsed), ServerName::DnsName(wanted)) = (Parsed::from_der(end_entity), server_name) else {
        return false;
    };
    parsed.names().is_empty()
        && parsed.common_name().is_some_and(|name| name.eq_ignore_ascii_case(wanted.as_ref()))
}

thread_local! {
    /// Whose certificate was refused last. The library's error cannot carry it
    /// and keep its alert; it is read in the same thread, right after.
    static REFUSED: Cell<Option<String>> = const { Cell::new(None) };
}

/// Notes whose certificate it is, and gives the error the alert it deserves.
fn refuse(
    error: TlsError,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &Trust,
    now: UnixTime,
) -> TlsError {
    if let TlsError::InvalidCertificate(CertificateError::UnknownIssuer) = error {
        let chain: Vec<_> = iter::once(end_entity).chain(intermediates).collect();
        if let Some(authority) = trust.outdated(&chain, now) {
            if let Err(error) = check_time(authority.validity, now) {
                return refuse(error.into(), &authority.der, &[], trust, now);
            }
        }
    }
    let parsed = Parsed::from_der(end_entity);
    let mut whose = match &parsed {
        Ok(parsed) => format!("\"{}\" issued by \"{}\"", parsed.subject(), parsed.issuer()),
        Err(error) => format!("a certificate that cannot be parsed ({error})"),
    };
    if let (TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { .. }), Ok(parsed)) =
        (&error, &parsed)
    {
        let names: Vec<_> = parsed.names().into_iter().map(|(_, name)| printable(&name)).collect();
        whose += &match names.is_empty() {
            true => " and has no subjectAltName".to_owned(),
            false => format!(" and valid for {}", names.join(", ")),
        };
    }
    let self_signed = parsed.is_ok_and(|parsed| parsed.is_self_issued());
    let unknown = match &error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        // An authority's own certificate, shown by the peer: the library has no
        // word for it, and others say that the authority is unknown.
        TlsError::InvalidCertificate(CertificateError::Other(_)) => self_signed,
        // An authority of the issuer's name is trusted, and it is another one: an
        // old one, made anew, or somebody's own.
        TlsError::InvalidCertificate(CertificateError::BadSignature) => {
            whose += ", which is trusted by name, but did not sign this with its key";
            true
        }
        _ => false,
    };
    if unknown && self_signed {
        whose.insert_str(0, "self-signed: ");
    }
    REFUSED.set(Some(whose));
    if unknown { CertificateError::UnknownIssuer.into() } else { error }
}

/// What the library has only a word for.
fn by_its_word(word: &str) -> String {
    match word {
        "UnsupportedCertVersion" => VERSION_3,
        "CaUsedAsEndEntity" => "an authority's own certificate, shown by a peer",
        "EndEntityUsedAsCa" => "invalid CA certificate: the issuer may not sign",
        "NameConstraintViolation" => {
            "permitted subtree violation: the authority may not vouch for the name"
        }
        "PathLenConstraintViolated" => "path length constraint exceeded",
        "MaximumPathDepthExceeded" | "MaximumPathBuildCallsExceeded" => "certificate chain too long",
        word => word,
    }
    .to_owned()
}

/// A certificate of an older version names nobody.
pub(crate) const VERSION_3: &str = "a certificate of version 1: TLS needs version 3, which has extensions";

/// What was wrong with a certificate, and whose it was: OpenSSL's words where it has some.
pub(crate) fn explain(error: &CertificateError) -> String {
    use CertificateError as E;
    let what = match error {
        E::Expired => "certificate has expired".into(),
        E::ExpiredContext { not_after, .. } => {
            format!("certificate has expired, on {}", cert_time_of(not_after.as_secs()))
        }
        E::NotValidYet => "certificate is not yet valid".into(),
        E::NotValidYetContext { not_before, .. } => {
            format!("certificate is not yet valid, before {}", cert_time_of(not_before.as_secs()))
        }
        E::UnknownIssuer => "unable to get local issuer certificate: no trusted authority signed it".into(),
        E::Revoked => "certificate revoked".into(),
        E::UnknownRevocationStatus => "unable to get certificate CRL".into(),
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => "CRL has expired".into(),
        E::BadSignature => "certificate signature failure".into(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "unsuitable certificate purpose".into(),
        E::NotValidForName => "hostname mismatch".into(),
        E::NotValidForNameContext { expected, .. } => {
            format!("hostname mismatch, certificate is not valid for '{}'", expected.to_str())
        }
        E::BadEncoding => "the certificate cannot be read".into(),
        E::UnhandledCriticalExtension => "unhandled critical extension".into(),
        E::UnsupportedSignatureAlgorithmContext { .. }
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "signed with an algorithm that is too weak, or unknown".into()
        }
        E::Other(why) => by_its_word(&why.to_string()),
        other => other.to_string(),
    };
    match REFUSED.take() {
        Some(whose) => format!("{what} ({whose})"),
        None => what,
    }
}
