//! Builds the configurations of the TLS library from a context's settings.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::{SupportedProtocolVersion, version};
use rustls_pki_types::UnixTime;

use crate::cert::resolver::{CertChain, CertResolver};
use crate::cert::trust::Trust;
use crate::cert::validity::NEVER_EXPIRES;
use crate::cert::verifier::{self, VerifyPolicy};
use crate::constants::{TLSVersion, VerifyMode};
use crate::error::{Reason, SSLError, misconfigured};
use crate::keylog::KeyLogFile;
use crate::provider::provider;
use crate::sessions::{ClientSessions, Sessions};

/// A snapshot of the settings that a configuration is built from.
pub(crate) struct ConfigSpec {
    pub(crate) chains: Vec<CertChain>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) policy: VerifyPolicy,
    pub(crate) minimum: TLSVersion,
    pub(crate) maximum: TLSVersion,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) keylog: Option<Arc<KeyLogFile>>,
    pub(crate) num_tickets: usize,
    pub(crate) sessions: Option<Sessions>,
}

/// A configuration, and how long it can be used.
pub(crate) struct CachedConfig<T> {
    pub(crate) config: Arc<T>,
    /// Whether peers' certificates are verified. `getpeercert` returns only verified ones.
    pub(crate) verifies_peer: bool,
    /// The client sessions, or `None` if sessions are not resumed.
    pub(crate) sessions: Option<Arc<ClientSessions>>,
    /// The last second, since 1970, in which all own certificates are valid. Certificates that
    /// had expired when the configuration was built do not count.
    pub(crate) certs_valid_until: u64,
    /// The time, in seconds since 1970, at which the configuration has to be rebuilt.
    valid_until: u64,
}

impl<T> Clone for CachedConfig<T> {
    fn clone(&self) -> CachedConfig<T> {
        CachedConfig { config: Arc::clone(&self.config), sessions: self.sessions.clone(), ..*self }
    }
}

impl<T> CachedConfig<T> {
    pub(crate) fn new(
        spec: &ConfigSpec,
        make: fn(&ConfigSpec, UnixTime) -> io::Result<T>,
    ) -> io::Result<CachedConfig<T>> {
        let now = UnixTime::now();
        let ends = spec.chains.iter().flat_map(CertChain::ends);
        let certs_valid_until = ends.filter(|&end| end >= now.as_secs()).min().unwrap_or(NEVER_EXPIRES);
        Ok(CachedConfig {
            config: Arc::new(make(spec, now)?),
            verifies_peer: spec.policy.mode != VerifyMode::CERT_NONE,
            sessions: (spec.num_tickets > 0).then(Arc::default),
            certs_valid_until,
            valid_until: spec.trust.valid_until(now).min(certs_valid_until.saturating_add(1)),
        })
    }

    pub(crate) fn is_valid(&self) -> bool {
        UnixTime::now().as_secs() < self.valid_until
    }
}

pub(crate) fn server(spec: &ConfigSpec, now: UnixTime) -> io::Result<ServerConfig> {
    if spec.chains.is_empty() {
        let message = "the server context has no certificate; call load_cert_chain";
        return Err(SSLError::new(Reason::NoCertificateAssigned, message).into());
    }
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(spec)?)
        .map_err(|error| misconfigured(error.to_string()))?;
    let builder = match verifier::client_verifier(&spec.trust, spec.policy, now)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(CertResolver(spec.chains.clone())));
    // Python sets OP_CIPHER_SERVER_PREFERENCE.
    config.ignore_client_order = true;
    config.alpn_protocols.clone_from(&spec.alpn);
    config.send_tls13_tickets = spec.num_tickets;
    match &spec.sessions {
        Some(sessions) if spec.num_tickets > 0 => {
            config.ticketer = Arc::clone(&sessions.ticketer);
            config.session_storage = Arc::clone(&sessions.store);
        }
        _ => config.session_storage = Arc::new(NoServerSessionStorage {}),
    }
    if let Some(keylog) = &spec.keylog {
        config.key_log = Arc::clone(keylog) as _;
    }
    Ok(config)
}

pub(crate) fn client(spec: &ConfigSpec, _now: UnixTime) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(spec)?)
        .map_err(|error| misconfigured(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier::server_verifier(&spec.trust, spec.policy)?);
    let mut config = builder.with_client_cert_resolver(Arc::new(CertResolver(spec.chains.clone())));
    config.alpn_protocols.clone_from(&spec.alpn);
    // Each connection has its own store: see `ConnectionSessions`.
    config.resumption = Resumption::disabled();
    if let Some(keylog) = &spec.keylog {
        config.key_log = Arc::clone(keylog) as _;
    }
    Ok(config)
}

fn versions(spec: &ConfigSpec) -> io::Result<Vec<&'static SupportedProtocolVersion>> {
    let all = [(TLSVersion::TLSv1_2, &version::TLS12), (TLSVersion::TLSv1_3, &version::TLS13)];
    let wanted: Vec<_> = all
        .into_iter()
        .filter(|(version, _)| (spec.minimum..=spec.maximum).contains(version))
        .map(|(_, supported)| supported)
        .collect();
    match wanted.is_empty() {
        true => Err(misconfigured(format!(
            "no TLS version between minimum_version {:?} and maximum_version {:?}",
            spec.minimum, spec.maximum
        ))),
        false => Ok(wanted),
    }
}
