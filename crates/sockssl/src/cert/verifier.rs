//! Verifies the peer's certificate chain.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError,
    SignatureScheme,
};
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, ServerName, SignatureVerificationAlgorithm,
    UnixTime,
};
use webpki::{EndEntityCert, VerifiedPath};

use crate::cert::path::{self, Purpose, path_error};
use crate::cert::trust::Trust;
use crate::cert::validity;
use crate::cert::x509::{DIGITAL_SIGNATURE, X509};
use crate::cert::{Parsed, join_limited, printable};
use crate::constants::{
    VERIFY_CRL_CHECK_CHAIN, VERIFY_CRL_CHECK_LEAF, VERIFY_DEFAULT, VerifyFlags, VerifyMode,
};
use crate::error::{misconfigured, set_rejected_certificate};
use crate::provider::provider;

/// The verification settings of a context.
#[derive(Clone, Copy)]
pub(crate) struct VerifyPolicy {
    pub(crate) mode: VerifyMode,
    pub(crate) flags: VerifyFlags,
    pub(crate) check_hostname: bool,
    pub(crate) common_name: bool,
}

impl VerifyPolicy {
    /// Whether a certificate requires a revocation list.
    fn requires_list(self, is_leaf: bool) -> bool {
        match self.flags {
            VERIFY_DEFAULT => false,
            VERIFY_CRL_CHECK_LEAF => is_leaf,
            VERIFY_CRL_CHECK_CHAIN => true,
        }
    }

    fn check(&self, trust: &Trust) -> io::Result<()> {
        if self.mode == VerifyMode::CERT_NONE {
            return Ok(());
        }
        if trust.is_empty() {
            return Err(misconfigured(
                "a certificate is required of peers, but no authority is loaded; call load_verify_locations",
            ));
        }
        if self.flags != VERIFY_DEFAULT && trust.lists().is_empty() {
            return Err(misconfigured("verify_flags requires revocation lists, but none is loaded"));
        }
        Ok(())
    }
}

/// Creates the verifier of a client.
pub(crate) fn server_verifier(
    trust: &Arc<Trust>,
    policy: VerifyPolicy,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    policy.check(trust)?;
    Ok(Arc::new(ServerVerifier(ChainVerifier { trust: Arc::clone(trust), policy })))
}

/// Creates the verifier of a server, or `None` if it requests no certificates.
pub(crate) fn client_verifier(
    trust: &Arc<Trust>,
    policy: VerifyPolicy,
    now: UnixTime,
) -> io::Result<Option<Arc<dyn ClientCertVerifier>>> {
    if policy.mode == VerifyMode::CERT_NONE {
        return Ok(None);
    }
    policy.check(trust)?;
    let hints = trust.hints(now);
    let valid_until = trust.valid_until(now).saturating_sub(1);
    let verifier = ChainVerifier { trust: Arc::clone(trust), policy };
    Ok(Some(Arc::new(ClientVerifier { verifier, hints, valid_until })))
}

/// Verifies chains by the trusted certificates and the policy.
struct ChainVerifier {
    trust: Arc<Trust>,
    policy: VerifyPolicy,
}

/// Why a chain was rejected, and because of which certificate, if not the peer's own.
struct Rejected {
    error: TlsError,
    certificate: Option<CertificateDer<'static>>,
}

impl<E: Into<TlsError>> From<E> for Rejected {
    fn from(error: E) -> Rejected {
        Rejected { error: error.into(), certificate: None }
    }
}

impl Rejected {
    fn other(error: CertificateError, certificate: &CertificateDer<'_>) -> Rejected {
        Rejected { error: error.into(), certificate: Some(certificate.clone().into_owned()) }
    }
}

impl ChainVerifier {
    /// Verifies a server's chain. With `CERT_NONE` every chain is accepted.
    fn verify_server(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), TlsError> {
        if self.policy.mode == VerifyMode::CERT_NONE {
            return Ok(());
        }
        self.verify(end_entity, intermediates, Some(server_name), now)
            .map_err(|rejected| annotate_error(rejected, end_entity))
    }

    /// Verifies a client's chain.
    fn verify_client(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), TlsError> {
        self.verify(end_entity, intermediates, None, now)
            .map_err(|rejected| annotate_error(rejected, end_entity))
    }

    /// Verifies a server's chain if there is a server name, or else a client's chain.
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Rejected> {
        let purpose = if server_name.is_some() { Purpose::Server } else { Purpose::Client };
        let certificate = EndEntityCert::try_from(end_entity).map_err(translate)?;
        // A certificate that the library can parse and `X509` cannot is rejected.
        let parsed = X509::parse(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let mut common_names = None;
        let by_name = match server_name.map(|name| certificate.verify_is_valid_for_subject_name(name)) {
            Some(Err(webpki::Error::CertNotValidForName(why))) if self.policy.check_hostname => {
                common_names = self.common_names(&parsed, server_name);
                match common_names {
                    Some(_) => Ok(()),
                    None => Err(translate(webpki::Error::CertNotValidForName(why))),
                }
            }
            None | Some(Ok(()) | Err(webpki::Error::CertNotValidForName(_))) => Ok(()),
            Some(Err(error)) => Err(translate(error)),
        };
        let rejected = RefCell::new(None);
        let check = |path: &VerifiedPath<'_>| {
            self.check_path(&parsed, path, purpose, common_names.as_deref().unwrap_or_default(), now)
                .map_err(|why| {
                    rejected.borrow_mut().get_or_insert(why);
                    // The library tries the next chain.
                    webpki::Error::UnknownIssuer
                })
        };
        let signatures_left = AtomicUsize::new(MAX_SIGNATURES + 4 * self.trust.anchors_of_one_name());
        let algorithms: Vec<_> = provider()
            .signature_verification_algorithms
            .all
            .iter()
            .map(|&algorithm| LimitedAlgorithm { algorithm, left: &signatures_left })
            .collect();
        let algorithms: Vec<_> = algorithms.iter().map(|algorithm| algorithm as _).collect();
        let candidates = candidates(&parsed, intermediates);
        let by_chain = certificate.verify_for_usage(
            &algorithms,
            self.trust.anchors(),
            &candidates,
            now,
            purpose.key_usage(),
            None,
            Some(&check),
        );
        if let Err(error) = by_chain.map(drop) {
            if !self.trust.is_loaded(end_entity) {
                return Err(match rejected.into_inner() {
                    Some(rejected) => rejected,
                    None if signatures_left.load(Ordering::Relaxed) == 0 => path_error(TOO_COMPLEX).into(),
                    None => match cause(&error, &parsed, intermediates, purpose) {
                        Some(der) => Rejected::other(translate(error), der),
                        None => translate(error).into(),
                    },
                });
            }
            self.check_loaded(&parsed, intermediates, purpose, now)?;
        }
        // The name is checked last, so its error means that everything else is valid.
        Ok(by_name?)
    }

    fn common_names(
        &self,
        certificate: &X509<'_>,
        server_name: Option<&ServerName<'_>>,
    ) -> Option<Vec<String>> {
        match server_name {
            Some(ServerName::DnsName(wanted)) if self.policy.common_name => {
                path::common_names_matching(certificate, wanted.as_ref())
            }
            _ => None,
        }
    }

    /// Makes the checks of a chain that the library does not make.
    fn check_path(
        &self,
        end: &X509<'_>,
        path: &VerifiedPath<'_>,
        purpose: Purpose,
        common_names: &[String],
        now: UnixTime,
    ) -> Result<(), Rejected> {
        let mut ders: Vec<_> = path.intermediate_certificates().map(webpki::Cert::der).collect();
        let trusted = self.trust.certificate_of(path.anchor()).ok_or(CertificateError::UnknownIssuer)?;
        ders.push(trusted.clone());
        let mut authorities = Vec::new();
        for der in &ders {
            authorities
                .push(X509::parse(der).map_err(|_| Rejected::other(CertificateError::BadEncoding, der))?);
        }
        path::check_end_entity(end, purpose, false)?;
        path::check_authorities(end, &authorities, purpose)
            .map_err(|(place, error)| Rejected::other(error, &ders[place]))?;
        for (authority, der) in authorities.iter().zip(&ders) {
            check_time(authority.validity, now).map_err(|error| Rejected::other(error, der))?;
        }
        let hosts = [path::hostnames_in_common_names(end), common_names.to_vec()].concat();
        path::check_subject(end, &authorities, &hosts)?;
        let lists = self.trust.lists();
        lists.check(end, Some(&authorities[0]), self.policy.requires_list(true), now)?;
        for (below, issuer) in authorities.iter().enumerate().skip(1) {
            lists
                .check(&authorities[below - 1], Some(issuer), self.policy.requires_list(false), now)
                .map_err(|error| Rejected::other(error, &ders[below - 1]))?;
        }
        // The trusted certificate requires no list, but a list may revoke it.
        if let (Some(last), Some(der)) = (authorities.last(), ders.last()) {
            if lists.has_one_for(last) {
                let issuer = self.trust.issuer_of(last, &[]);
                lists
                    .check(last, issuer.as_ref(), false, now)
                    .map_err(|error| Rejected::other(error, der))?;
            }
        }
        Ok(())
    }

    /// Verifies a peer's own certificate that was loaded itself, which requires no issuer.
    fn check_loaded(
        &self,
        certificate: &X509<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        check_time(certificate.validity, now)?;
        path::check_end_entity(certificate, purpose, true)?;
        let lists = self.trust.lists();
        let issuer = match lists.has_one_for(certificate) {
            true => self.trust.issuer_of(certificate, intermediates),
            false => None,
        };
        lists.check(certificate, issuer.as_ref(), self.policy.requires_list(true), now)
    }
}

/// The number of signatures that are verified while the chain of a peer is built, besides those
/// for several authorities of one name. The longest supported chain has seven signatures. A peer
/// can send certificates that form many paths, and the library's own limit is 100 signatures.
const MAX_SIGNATURES: usize = 16;

const TOO_COMPLEX: &str = "certificate chain too complex: too many paths to a trusted authority";

/// A signature algorithm that fails when too many signatures have been verified.
#[derive(Debug)]
struct LimitedAlgorithm<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    left: &'a AtomicUsize,
}

impl SignatureVerificationAlgorithm for LimitedAlgorithm<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(1).ok_or(InvalidSignature)?;
        self.left.store(left, Ordering::Relaxed);
        self.algorithm.verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

/// The number of intermediates of one name from which the chain is built.
const MAX_OF_ONE_NAME: usize = 3;

/// Selects the intermediates from which the chain is built, at most three of each name. A peer can
/// send many certificates of the same name, and the number of paths grows with the sixth power of
/// their number. Certificates whose key another one names as its issuer's come first, so that a
/// server may send an authority's certificates for many keys.
fn candidates<'a>(end: &X509<'_>, intermediates: &'a [CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    let parsed: Vec<_> = intermediates.iter().map(|der| (der, X509::parse(der).ok())).collect();
    let named: HashSet<_> = iter::once(end)
        .chain(parsed.iter().filter_map(|(_, parsed)| parsed.as_ref()))
        .filter_map(|certificate| Some((certificate.issuer, certificate.authority_key?)))
        .collect();
    let is_named = |certificate: &X509<'_>| {
        certificate.subject_key.is_some_and(|key| named.contains(&(certificate.subject, key)))
    };
    let mut counts: HashMap<&[u8], usize> = HashMap::new();
    let mut candidates = Vec::new();
    for wants_named in [true, false] {
        for &(der, ref certificate) in &parsed {
            // No chain with a certificate that cannot be parsed is accepted.
            let Some(certificate) = certificate else { continue };
            if is_named(certificate) != wants_named {
                continue;
            }
            let count = counts.entry(certificate.subject).or_default();
            if *count < MAX_OF_ONE_NAME {
                *count += 1;
                candidates.push(CertificateDer::from(der.as_ref()));
            }
        }
    }
    candidates
}

/// Finds the intermediate that an error of the chain builder is about, which does not name it.
/// Returns `None` if the error is about the peer's own certificate, or if that is unknown.
fn cause<'a>(
    error: &webpki::Error,
    end: &X509<'_>,
    intermediates: &'a [CertificateDer<'a>],
    purpose: Purpose,
) -> Option<&'a CertificateDer<'a>> {
    use webpki::Error as E;
    let is_cause = |certificate: &X509<'_>, is_end: bool| match error {
        E::CertExpired { not_after, .. } => certificate.validity.1 == not_after.as_secs(),
        E::CertNotValidYet { not_before, .. } => certificate.validity.0 == not_before.as_secs(),
        E::EndEntityUsedAsCa => !is_end && !certificate.is_marked_authority(),
        E::PathLenConstraintViolated => {
            !is_end && certificate.constraints.is_some_and(|(_, limit)| limit.is_some())
        }
        E::RequiredEkuNotFoundContext(_) => !purpose.is_allowed_by(certificate),
        E::UnsupportedCriticalExtension => certificate.has_unknown_critical,
        E::UnsupportedSignatureAlgorithmContext(why) => {
            certificate.signature_algorithm() == why.signature_algorithm_id
        }
        E::UnsupportedCertVersion => certificate.version != 3,
        _ => is_end,
    };
    if is_cause(end, true) {
        return None;
    }
    intermediates.iter().find(|der| X509::parse(der).is_ok_and(|parsed| is_cause(&parsed, false)))
}

fn check_time((not_before, not_after): (u64, u64), now: UnixTime) -> Result<(), CertificateError> {
    let from_unix = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    if now.as_secs() > not_after {
        Err(CertificateError::ExpiredContext { time: now, not_after: from_unix(not_after) })
    } else if now.as_secs() < not_before {
        Err(CertificateError::NotValidYetContext { time: now, not_before: from_unix(not_before) })
    } else {
        Ok(())
    }
}

/// Converts an error of the chain builder to one of the TLS library.
fn translate(error: webpki::Error) -> CertificateError {
    use webpki::Error as E;
    match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::InvalidCertValidity => CertificateError::Expired,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::CertNotValidForName(why) => {
            CertificateError::NotValidForNameContext { expected: why.expected, presented: why.presented }
        }
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        E::UnsupportedSignatureAlgorithmContext(why) => {
            CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: why.signature_algorithm_id,
                supported_algorithms: why.supported_algorithms,
            }
        }
        E::UnsupportedSignatureAlgorithmForPublicKeyContext(why) => {
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: why.signature_algorithm_id,
                public_key_algorithm_id: why.public_key_algorithm_id,
            }
        }
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        error => CertificateError::Other(OtherError(Arc::new(error))),
    }
}

/// Implements the signature checks, which are the same in the library's traits for both sides.
macro_rules! signatures_by_library {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            self.check_signing_key(cert, dss.scheme)?;
            verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

struct ServerVerifier(ChainVerifier);

impl ServerVerifier {
    /// In TLS 1.2 a server's ECDSA or Ed25519 key only signs, so its key usage must allow that.
    /// OpenSSL checks it too (`ssl_check_srvr_ecc_cert_and_alg`).
    fn check_signing_key(
        &self,
        cert: &CertificateDer<'_>,
        scheme: SignatureScheme,
    ) -> Result<(), TlsError> {
        use SignatureScheme as S;
        let is_rsa = matches!(
            scheme,
            S::RSA_PKCS1_SHA256
                | S::RSA_PKCS1_SHA384
                | S::RSA_PKCS1_SHA512
                | S::RSA_PSS_SHA256
                | S::RSA_PSS_SHA384
                | S::RSA_PSS_SHA512
        );
        if is_rsa || self.0.policy.mode == VerifyMode::CERT_NONE {
            return Ok(());
        }
        let parsed = X509::parse(cert).map_err(|_| CertificateError::BadEncoding)?;
        let exempt = path::can_issue_certificates(&parsed) && self.0.trust.is_loaded(cert);
        match exempt || parsed.has_key_usage(DIGITAL_SIGNATURE) {
            true => Ok(()),
            false => Err(annotate_error(CertificateError::InvalidPurpose.into(), cert)),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.0.verify_server(end_entity, intermediates, server_name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_library!();
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerVerifier")
    }
}

struct ClientVerifier {
    verifier: ChainVerifier,
    hints: Vec<DistinguishedName>,
    /// The last second, since 1970, before an authority or a list becomes valid or expires.
    valid_until: u64,
}

impl ClientVerifier {
    /// The key usage of a client's certificate is checked with its chain.
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn check_signing_key(&self, _: &CertificateDer<'_>, _: SignatureScheme) -> Result<(), TlsError> {
        Ok(())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.verifier.policy.mode == VerifyMode::CERT_REQUIRED
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.verifier.verify_client(end_entity, intermediates, now)?;
        let chain = validity::chain_valid_until(iter::once(end_entity).chain(intermediates), now);
        validity::limit_validity(chain.min(self.valid_until));
        Ok(ClientCertVerified::assertion())
    }

    signatures_by_library!();
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientVerifier")
    }
}

/// Records which certificate was rejected, and maps the error to one with the right alert.
fn annotate_error(rejected: Rejected, end_entity: &CertificateDer<'_>) -> TlsError {
    let error = rejected.error;
    let parsed = Parsed::from_der(rejected.certificate.as_ref().unwrap_or(end_entity));
    let mut certificate = match &parsed {
        Ok(parsed) => format!("\"{}\" issued by \"{}\"", parsed.subject(), parsed.issuer()),
        Err(error) => format!("a certificate that cannot be parsed ({error})"),
    };
    if let (TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { .. }), Ok(parsed)) =
        (&error, &parsed)
    {
        let names = parsed.names();
        certificate += &match names.is_empty() {
            true => " and has no subjectAltName".to_owned(),
            false => {
                let names = names.iter().map(|(_, name)| printable(name));
                format!(" and valid for {}", join_limited(names))
            }
        };
    }
    let self_signed = parsed.is_ok_and(|parsed| parsed.is_self_issued());
    let unknown = match &error {
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        // The peer sent an authority's certificate as its own. The library has no variant for
        // that, and OpenSSL reports an unknown authority.
        TlsError::InvalidCertificate(CertificateError::Other(why)) => {
            self_signed && why.to_string() == "CaUsedAsEndEntity"
        }
        // A trusted authority has the name of the issuer and another key. It was renewed, or the
        // issuer is a forgery.
        TlsError::InvalidCertificate(CertificateError::BadSignature) => {
            certificate += ", whose name is trusted, but whose key did not sign this certificate";
            true
        }
        _ => false,
    };
    if unknown && self_signed {
        certificate.insert_str(0, "self-signed: ");
    }
    set_rejected_certificate(certificate);
    if unknown { CertificateError::UnknownIssuer.into() } else { error }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, KeyPair};

    use super::*;
    use crate::cert::pem::Pem;

    /// Makes a leaf with an extension. `load_cert_chain` rejects some of these leaves.
    fn leaf(oid: &[u64], critical: bool, value: &[u8]) -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "localhost");
        let mut extension = CustomExtension::from_oid_content(oid, value.to_vec());
        extension.set_criticality(critical);
        params.custom_extensions.push(extension);
        params
    }

    /// Verifies a leaf below a trusted authority, and a leaf that is trusted itself, each as a
    /// server's and as a client's.
    fn verdicts(params: &CertificateParams, check_hostname: bool) -> Vec<bool> {
        let (key, root_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::new([]).unwrap();
        root.distinguished_name.push(DnType::CommonName, "root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = root.self_signed(&root_key).unwrap();
        let below = params.clone().signed_by(&key, &root, &root_key).unwrap();
        let pinned = params.clone().self_signed(&key).unwrap();
        let mut verdicts = Vec::new();
        for (trusted, leaf) in [(&root, below.der()), (&pinned, pinned.der())] {
            let mut trust = Trust::default();
            if trust.add(Pem::new(vec![trusted.der().clone()], Vec::new()), Path::new("test")).is_err() {
                verdicts.extend([false, false]);
                continue;
            }
            let policy = VerifyPolicy {
                mode: VerifyMode::CERT_REQUIRED,
                flags: VERIFY_DEFAULT,
                check_hostname,
                common_name: true,
            };
            let verifier = ChainVerifier { trust: Arc::new(trust), policy };
            let (name, now) = (ServerName::try_from("localhost").unwrap(), UnixTime::now());
            verdicts.push(verifier.verify_server(leaf, &[], &name, now).is_ok());
            verdicts.push(verifier.verify_client(leaf, &[], now).is_ok());
        }
        verdicts
    }

    #[test]
    fn an_unknown_extension_is_refused_if_it_is_critical() {
        for critical in [false, true] {
            let params = leaf(&[1, 2, 3, 4], critical, &[5, 0]);
            assert_eq!(verdicts(&params, true), [!critical; 4], "{critical}");
        }
    }

    #[test]
    fn an_extension_that_is_there_twice_is_refused() {
        for oid in [&[1, 2, 3, 4][..], &[2, 5, 29, 14]] {
            let mut params = leaf(oid, false, &[4, 1, 0]);
            assert_eq!(verdicts(&params, true), [true; 4], "once: {oid:?}");
            let again = CustomExtension::from_oid_content(oid, vec![4, 1, 1]);
            params.custom_extensions.push(again);
            assert_eq!(verdicts(&params, true), [false; 4], "{oid:?}");
        }
    }

    #[test]
    fn a_leaf_that_cannot_be_parsed_is_refused() {
        // subjectKeyIdentifier, keyUsage, basicConstraints, nameConstraints,
        // cRLDistributionPoints, authorityKeyIdentifier, extKeyUsage.
        for number in [14, 15, 19, 30, 31, 35, 37] {
            for value in [&[5, 0][..], &[], &[0x30, 5, 0]] {
                let params = leaf(&[2, 5, 29, number], false, value);
                assert_eq!(verdicts(&params, true), [false; 4], "{number} {value:?}");
            }
        }
    }

    #[test]
    fn an_alternative_name_that_cannot_be_parsed_leaves_no_common_name() {
        for value in [&[5, 0][..], &[0x30, 2, 0x8f, 0], &[0x30, 3, 0x82, 5, 0x61], &[4, 0], &[]] {
            for check_hostname in [true, false] {
                let verdicts = verdicts(&leaf(&[2, 5, 29, 17], false, value), check_hostname);
                // Only of servers is a name verified.
                assert_eq!([verdicts[0], verdicts[2]], [false; 2], "{value:?} {check_hostname}");
            }
        }
        assert!(verdicts(&leaf(&[1, 2, 3], false, &[5, 0]), true)[0], "the common name alone");
    }
}
