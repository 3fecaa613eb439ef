//! Whom to trust: the peer's certificate against what was loaded.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, VerifiedPath};

use crate::cert::path::{self, Purpose};
use crate::cert::trust::Trust;
use crate::cert::validity;
use crate::cert::x509::{DIGITAL_SIGNATURE, X509};
use crate::cert::{Parsed, cert_time_of, printable};
use crate::error::misconfigured;
use crate::names::{VERIFY_CRL_CHECK_CHAIN, VERIFY_DEFAULT, VerifyFlags, VerifyMode};
use crate::provider::provider;

/// What a context asks of its peers.
#[derive(Clone, Copy)]
pub(crate) struct VerifyPolicy {
    pub(crate) mode: VerifyMode,
    pub(crate) flags: VerifyFlags,
    pub(crate) check_hostname: bool,
    pub(crate) common_name: bool,
}

impl VerifyPolicy {
    fn check(&self, trust: &Trust) -> io::Result<()> {
        if self.mode == VerifyMode::CERT_NONE {
            return Ok(());
        }
        if trust.is_empty() {
            return Err(misconfigured(
                "peers have to show a certificate, but no authority is trusted: call load_verify_locations",
            ));
        }
        if self.flags != VERIFY_DEFAULT && trust.lists().is_empty() {
            return Err(misconfigured("revocation is to be checked, but no revocation list is loaded"));
        }
        Ok(())
    }
}

/// A client's judgement of a server.
pub(crate) fn server_verifier(
    trust: &Arc<Trust>,
    demands: VerifyPolicy,
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    demands.check(trust)?;
    Ok(Arc::new(ServerVerifier(Judge { trust: Arc::clone(trust), demands })))
}

/// A server's judgement of its clients; `None` when it asks for no certificate.
pub(crate) fn client_verifier(
    trust: &Arc<Trust>,
    demands: VerifyPolicy,
    now: UnixTime,
) -> io::Result<Option<Arc<dyn ClientCertVerifier>>> {
    if demands.mode == VerifyMode::CERT_NONE {
        return Ok(None);
    }
    demands.check(trust)?;
    let hints = trust.hints(now);
    let holds_until = trust.valid_until(now).saturating_sub(1);
    let judge = Judge { trust: Arc::clone(trust), demands };
    Ok(Some(Arc::new(ClientVerifier { judge, hints, holds_until })))
}

/// Judges certificates of peers by what is trusted and demanded.
struct Judge {
    trust: Arc<Trust>,
    demands: VerifyPolicy,
}

/// A certificate that is refused: why, and which one, if it is not the peer's own.
struct Refused {
    error: TlsError,
    whose: Option<CertificateDer<'static>>,
}

impl<E: Into<TlsError>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused { error: error.into(), whose: None }
    }
}

impl Refused {
    fn other(error: CertificateError, whose: &CertificateDer<'_>) -> Refused {
        Refused { error: error.into(), whose: Some(whose.clone().into_owned()) }
    }
}

impl Judge {
    /// Judges a server's certificates now. With `CERT_NONE` all of them are good.
    fn judge_server(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), TlsError> {
        if self.demands.mode == VerifyMode::CERT_NONE {
            return Ok(());
        }
        self.judge(end_entity, intermediates, Some(server_name), now)
            .map_err(|refused| annotate_error(refused, end_entity))
    }

    /// Judges a client's certificates now.
    fn judge_client(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), TlsError> {
        self.judge(end_entity, intermediates, None, now)
            .map_err(|refused| annotate_error(refused, end_entity))
    }

    /// Judges a server's certificates if there is a name, and else a client's.
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Refused> {
        let purpose = if server_name.is_some() { Purpose::Server } else { Purpose::Client };
        let certificate = EndEntityCert::try_from(end_entity).map_err(translate)?;
        // What the library reads and this does not must not get by.
        let parsed = X509::parse(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let mut common_names = None;
        let by_name = match server_name.map(|name| certificate.verify_is_valid_for_subject_name(name)) {
            Some(Err(webpki::Error::CertNotValidForName(why))) if self.demands.check_hostname => {
                common_names = self.common_names(&parsed, server_name);
                match common_names {
                    Some(_) => Ok(()),
                    None => Err(translate(webpki::Error::CertNotValidForName(why))),
                }
            }
            None | Some(Ok(()) | Err(webpki::Error::CertNotValidForName(_))) => Ok(()),
            Some(Err(error)) => Err(translate(error)),
        };
        let refused = RefCell::new(None);
        let check = |path: &VerifiedPath<'_>| {
            self.check_path(&parsed, path, purpose, common_names.as_deref().unwrap_or_default(), now)
                .map_err(|why| {
                    refused.borrow_mut().get_or_insert(why);
                    // Another chain may do.
                    webpki::Error::UnknownIssuer
                })
        };
        let by_chain = certificate.verify_for_usage(
            provider().signature_verification_algorithms.all,
            self.trust.anchors(),
            intermediates,
            now,
            purpose.key_usage(),
            None,
            Some(&check),
        );
        if let Err(error) = by_chain.map(drop) {
            if !self.trust.is_loaded(end_entity) {
                return Err(refused.into_inner().unwrap_or_else(|| translate(error).into()));
            }
            self.check_loaded(&parsed, intermediates, purpose, now)?;
        }
        // The name comes last: its error says that all else is good.
        Ok(by_name?)
    }

    fn common_names(
        &self,
        certificate: &X509<'_>,
        server_name: Option<&ServerName<'_>>,
    ) -> Option<Vec<String>> {
        match server_name {
            Some(ServerName::DnsName(wanted)) if self.demands.common_name => {
                path::common_names_for(certificate, wanted.as_ref())
            }
            _ => None,
        }
    }

    /// What the library has not judged of a chain whose signatures are good.
    fn check_path(
        &self,
        end: &X509<'_>,
        path: &VerifiedPath<'_>,
        purpose: Purpose,
        common_names: &[String],
        now: UnixTime,
    ) -> Result<(), Refused> {
        let mut ders: Vec<_> = path.intermediate_certificates().map(webpki::Cert::der).collect();
        let trusted = self.trust.certificate_of(path.anchor()).ok_or(CertificateError::UnknownIssuer)?;
        ders.push(trusted.clone());
        let mut authorities = Vec::new();
        for der in &ders {
            authorities
                .push(X509::parse(der).map_err(|_| Refused::other(CertificateError::BadEncoding, der))?);
        }
        path::check_end(end, purpose, false)?;
        path::check_authorities(end, &authorities, purpose)
            .map_err(|(place, error)| Refused::other(error, &ders[place]))?;
        for (authority, der) in authorities.iter().zip(&ders) {
            check_time(authority.validity, now).map_err(|error| Refused::other(error, der))?;
        }
        let hosts = [path::common_hosts(end), common_names.to_vec()].concat();
        path::check_subject(end, &authorities, &hosts)?;
        self.check_revocation(end, Some(&authorities[0]), self.demands.flags != VERIFY_DEFAULT, now)?;
        for (below, issuer) in authorities.iter().enumerate().skip(1) {
            let demanded = self.demands.flags == VERIFY_CRL_CHECK_CHAIN;
            self.check_revocation(&authorities[below - 1], Some(issuer), demanded, now)
                .map_err(|error| Refused::other(error, &ders[below - 1]))?;
        }
        // The trusted one needs no list, but one that revokes it counts.
        if let (Some(last), Some(der)) = (authorities.last(), ders.last()) {
            if self.trust.lists().has_one_for(last) {
                let issuer = self.trust.issuer_of(last, &[]);
                self.check_revocation(last, issuer.as_ref(), false, now)
                    .map_err(|error| Refused::other(error, der))?;
            }
        }
        Ok(())
    }

    /// A certificate that was loaded itself needs no issuer.
    fn check_loaded(
        &self,
        certificate: &X509<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        check_time(certificate.validity, now)?;
        path::check_end(certificate, purpose, true)?;
        let issuer = match self.trust.lists().has_one_for(certificate) {
            true => self.trust.issuer_of(certificate, intermediates),
            false => None,
        };
        self.check_revocation(certificate, issuer.as_ref(), self.demands.flags != VERIFY_DEFAULT, now)
    }

    fn check_revocation(
        &self,
        certificate: &X509<'_>,
        issuer: Option<&X509<'_>>,
        demanded: bool,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        self.trust.lists().check(certificate, issuer, demanded, now)
    }
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

/// An error of the builder of chains, as the TLS library has it.
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

/// Who shows a certificate has to sign with its key: the same for both sides, in
/// two traits of the library.
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

struct ServerVerifier(Judge);

impl ServerVerifier {
    /// In TLS 1.2 a server's key that is not RSA's does nothing but sign: OpenSSL too
    /// refuses one whose key usage leaves that out (`ssl_check_srvr_ecc_cert_and_alg`).
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
        if is_rsa || self.0.demands.mode == VerifyMode::CERT_NONE {
            return Ok(());
        }
        let parsed = X509::parse(cert).map_err(|_| CertificateError::BadEncoding)?;
        let exempt = path::may_issue_its_own(&parsed) && self.0.trust.is_loaded(cert);
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
        self.0.judge_server(end_entity, intermediates, server_name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_library!();
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerJudge")
    }
}

struct ClientVerifier {
    judge: Judge,
    hints: Vec<DistinguishedName>,
    /// Until when authorities and lists are as they are now, the last second included.
    holds_until: u64,
}

impl ClientVerifier {
    /// What a client's key may be used for is judged with its certificate.
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)]
    fn check_signing_key(&self, _: &CertificateDer<'_>, _: SignatureScheme) -> Result<(), TlsError> {
        Ok(())
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.judge.demands.mode == VerifyMode::CERT_REQUIRED
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
        self.judge.judge_client(end_entity, intermediates, now)?;
        let chain = validity::chain_valid_until(iter::once(end_entity).chain(intermediates), now);
        validity::limit_validity(chain.min(self.holds_until));
        Ok(ClientCertVerified::assertion())
    }

    signatures_by_library!();
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientJudge")
    }
}

thread_local! {
    /// Whose certificate was refused last. The library's error cannot carry it
    /// and keep its alert; it is read in the same thread, right after.
    static REFUSED: Cell<Option<String>> = const { Cell::new(None) };
}

/// Notes whose certificate it is, and gives the error the alert it deserves.
fn annotate_error(refused: Refused, end_entity: &CertificateDer<'_>) -> TlsError {
    let error = refused.error;
    let parsed = Parsed::from_der(refused.whose.as_ref().unwrap_or(end_entity));
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
        TlsError::InvalidCertificate(CertificateError::Other(why)) => {
            self_signed && why.to_string() == "CaUsedAsEndEntity"
        }
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
fn describe_other(word: &str) -> String {
    match word {
        "UnsupportedCertVersion" => VERSION_3,
        "CaUsedAsEndEntity" => "an authority's own certificate, shown by a peer",
        "UnsupportedCriticalExtension" => "unhandled critical extension",
        "EndEntityUsedAsCa" => path::INVALID_AUTHORITY,
        "NameConstraintViolation" => path::NOT_PERMITTED,
        "PathLenConstraintViolated" => path::TOO_LONG,
        "MaximumPathDepthExceeded" | "MaximumPathBuildCallsExceeded" => "certificate chain too long",
        word => word,
    }
    .to_owned()
}

/// A certificate of an older version names nobody.
pub(crate) const VERSION_3: &str = "a certificate of version 1: TLS needs version 3, which has extensions";

/// What was wrong with a certificate, and whose it was: OpenSSL's words where it has some.
pub(crate) fn describe(error: &CertificateError) -> String {
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
        E::Other(why) => describe_other(&why.to_string()),
        other => other.to_string(),
    };
    match REFUSED.take() {
        Some(whose) => format!("{what} ({whose})"),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, KeyPair};

    use super::*;
    use crate::cert::pem::Pem;

    /// What no side of ours can show: `load_cert_chain` refuses a part of them.
    fn leaf(oid: &[u64], critical: bool, value: &[u8]) -> CertificateParams {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "localhost");
        let mut extension = CustomExtension::from_oid_content(oid, value.to_vec());
        extension.set_criticality(critical);
        params.custom_extensions.push(extension);
        params
    }

    /// Both judgements of a leaf below a trusted authority, and of the leaf trusted itself.
    fn judgements(params: &CertificateParams, check_hostname: bool) -> Vec<bool> {
        let (key, root_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::new([]).unwrap();
        root.distinguished_name.push(DnType::CommonName, "root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = root.self_signed(&root_key).unwrap();
        let below = params.clone().signed_by(&key, &root, &root_key).unwrap();
        let pinned = params.clone().self_signed(&key).unwrap();
        let mut judgements = Vec::new();
        for (trusted, leaf) in [(&root, below.der()), (&pinned, pinned.der())] {
            let mut trust = Trust::default();
            if trust.add(Pem::of(vec![trusted.der().clone()], Vec::new()), Path::new("test")).is_err() {
                judgements.extend([false, false]);
                continue;
            }
            let demands = VerifyPolicy {
                mode: VerifyMode::CERT_REQUIRED,
                flags: VERIFY_DEFAULT,
                check_hostname,
                common_name: true,
            };
            let judge = Judge { trust: Arc::new(trust), demands };
            let (name, now) = (ServerName::try_from("localhost").unwrap(), UnixTime::now());
            judgements.push(judge.judge_server(leaf, &[], &name, now).is_ok());
            judgements.push(judge.judge_client(leaf, &[], now).is_ok());
        }
        judgements
    }

    #[test]
    fn an_unknown_extension_is_refused_if_it_is_critical() {
        for critical in [false, true] {
            let params = leaf(&[1, 2, 3, 4], critical, &[5, 0]);
            assert_eq!(judgements(&params, true), [!critical; 4], "{critical}");
        }
    }

    #[test]
    fn an_extension_that_is_there_twice_is_refused() {
        for oid in [&[1, 2, 3, 4][..], &[2, 5, 29, 14]] {
            let mut params = leaf(oid, false, &[4, 1, 0]);
            assert_eq!(judgements(&params, true), [true; 4], "once: {oid:?}");
            let again = CustomExtension::from_oid_content(oid, vec![4, 1, 1]);
            params.custom_extensions.push(again);
            assert_eq!(judgements(&params, true), [false; 4], "{oid:?}");
        }
    }

    #[test]
    fn a_leaf_that_cannot_be_parsed_is_refused() {
        // subjectKeyIdentifier, keyUsage, basicConstraints, nameConstraints,
        // cRLDistributionPoints, authorityKeyIdentifier, extKeyUsage.
        for number in [14, 15, 19, 30, 31, 35, 37] {
            for value in [&[5, 0][..], &[], &[0x30, 5, 0]] {
                let params = leaf(&[2, 5, 29, number], false, value);
                assert_eq!(judgements(&params, true), [false; 4], "{number} {value:?}");
            }
        }
    }

    #[test]
    fn an_alternative_name_that_cannot_be_parsed_leaves_no_common_name() {
        for value in [&[5, 0][..], &[0x30, 2, 0x8f, 0], &[0x30, 3, 0x82, 5, 0x61], &[4, 0], &[]] {
            for check_hostname in [true, false] {
                let judgements = judgements(&leaf(&[2, 5, 29, 17], false, value), check_hostname);
                // The servers' alone: a client has no name to be called by.
                assert_eq!([judgements[0], judgements[2]], [false; 2], "{value:?} {check_hostname}");
            }
        }
        assert!(judgements(&leaf(&[1, 2, 3], false, &[5, 0]), true)[0], "the common name alone");
    }
}
