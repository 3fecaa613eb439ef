//! Whom to trust: the peer's certificate against the loaded authorities.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::io;
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

use crate::cert::{CLIENT_AUTH, Parsed, SERVER_AUTH, cert_time_of};
use crate::error::{Reason, in_file, misconfigured};
use crate::names::{VERIFY_CRL_CHECK_LEAF, VERIFY_DEFAULT, VerifyFlags, VerifyMode};
use crate::pem::Pem;
use crate::provider::provider;

/// Trusted certificates and revocation lists.
#[derive(Clone)]
pub(crate) struct Trust {
    roots: RootCertStore,
    /// As they were loaded: one that is shown by the peer itself is trusted as well.
    exact: HashSet<Vec<u8>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
}

impl Default for Trust {
    fn default() -> Self {
        Trust { roots: RootCertStore::empty(), exact: HashSet::new(), crls: Vec::new() }
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
            self.exact.insert(certificate.to_vec());
            self.roots.add(certificate).map_err(|error| {
                in_file(
                    file,
                    Reason::BadPem,
                    format_args!("not a certificate that can be trusted: {error}"),
                )
            })?;
        }
        for crl in pem.crls {
            // Parsed for its faults alone: the verifier has them without the file's name.
            WebPkiServerVerifier::builder_with_provider(Arc::new(any_root(&self.roots)), provider())
                .with_crls([crl.clone()])
                .build()
                .map_err(|error| {
                    in_file(file, Reason::BadPem, format_args!("the revocation list: {error}"))
                })?;
            self.crls.push(crl);
        }
        Ok(())
    }

    /// Adds the system's; those that cannot be used are passed over, as everywhere.
    pub(crate) fn add_system(&mut self) -> io::Result<()> {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = self.roots.add_parsable_certificates(found.certs);
        match found.errors.first() {
            Some(error) if added == 0 => Err(misconfigured(format!("the system's certificates: {error}"))),
            _ => Ok(()),
        }
    }

    fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    fn revokes(&self, certificate: &Parsed) -> bool {
        self.crls.iter().any(|crl| certificate.is_revoked_by(crl))
    }

    /// Whether a certificate that was loaded itself is good now: it needs no issuer.
    fn check_exact(&self, der: &[u8], now: UnixTime, client: bool) -> Option<Result<(), CertificateError>> {
        if !self.exact.contains(der) {
            return None;
        }
        let parsed = Parsed::from_der(der).ok()?;
        let (not_before, not_after) = parsed.validity();
        let from_unix = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        Some(if now.as_secs() > not_after {
            Err(CertificateError::ExpiredContext { time: now, not_after: from_unix(not_after) })
        } else if now.as_secs() < not_before {
            Err(CertificateError::NotValidYetContext { time: now, not_before: from_unix(not_before) })
        } else if self.revokes(&parsed) {
            Err(CertificateError::Revoked)
        } else if !parsed.allows(if client { CLIENT_AUTH } else { SERVER_AUTH }) {
            Err(CertificateError::InvalidPurpose)
        } else {
            Ok(())
        })
    }
}

/// A store the builder of verifiers accepts: it wants one root at least.
fn any_root(roots: &RootCertStore) -> RootCertStore {
    if !roots.is_empty() {
        return roots.clone();
    }
    RootCertStore {
        roots: vec![rustls_pki_types::TrustAnchor {
            subject: Vec::new().into(),
            subject_public_key_info: Vec::new().into(),
            name_constraints: None,
        }],
    }
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
) -> io::Result<Arc<dyn ServerCertVerifier>> {
    demands.check(trust)?;
    let roots = Arc::new(any_root(&trust.roots));
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
) -> io::Result<Option<Arc<dyn ClientCertVerifier>>> {
    if demands.mode == VerifyMode::CERT_NONE {
        return Ok(None);
    }
    demands.check(trust)?;
    let roots = Arc::new(trust.roots.clone());
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(roots, provider()).with_crls(trust.crls.clone());
    builder = match demands.flags {
        VERIFY_DEFAULT => builder.allow_unknown_revocation_status(),
        VERIFY_CRL_CHECK_LEAF => builder.only_check_end_entity_revocation().enforce_revocation_expiration(),
        _ => builder.enforce_revocation_expiration(),
    };
    if demands.mode == VerifyMode::CERT_OPTIONAL {
        builder = builder.allow_unauthenticated();
    }
    let chains = builder.build().map_err(|error| misconfigured(error.to_string()))?;
    Ok(Some(Arc::new(ClientJudge { chains, trust: Arc::clone(trust) })))
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
                match self.trust.check_exact(end_entity, now, false) {
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
                .map_err(|error| refuse(error, end_entity))?;
        }
        Ok(ServerCertVerified::assertion())
    }

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
}

impl fmt::Debug for ServerJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerJudge")
    }
}

struct ClientJudge {
    chains: Arc<dyn ClientCertVerifier>,
    trust: Arc<Trust>,
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
            Err(TlsError::InvalidCertificate(_)) => match self.trust.check_exact(end_entity, now, true) {
                Some(Ok(())) => Ok(ClientCertVerified::assertion()),
                Some(Err(error)) => Err(error.into()),
                None => by_chain,
            },
            other => other,
        };
        result.map_err(|error| refuse(error, end_entity))
    }

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
fn refuse(error: TlsError, end_entity: &CertificateDer<'_>) -> TlsError {
    let parsed = Parsed::from_der(end_entity);
    let mut whose = match &parsed {
        Ok(parsed) => format!("\"{}\" issued by \"{}\"", parsed.subject(), parsed.issuer()),
        Err(error) => format!("a certificate that cannot be parsed ({error})"),
    };
    if let (TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { .. }), Ok(parsed)) =
        (&error, &parsed)
    {
        let names: Vec<_> = parsed.names().into_iter().map(|(_, name)| name).collect();
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
        other => other.to_string(),
    };
    match REFUSED.take() {
        Some(whose) => format!("{what} ({whose})"),
        None => what,
    }
}
