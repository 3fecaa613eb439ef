//! What the TLS library is told, made of a context's settings.

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
use crate::error::{Reason, SSLError, misconfigured};
use crate::keylog::KeyLogFile;
use crate::names::{TLSVersion, VerifyMode};
use crate::provider::provider;
use crate::sessions::{ClientSessions, Sessions};

/// The settings that make a configuration.
pub(crate) struct ConfigSpec {
    pub(crate) chains: Vec<CertChain>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) demands: VerifyPolicy,
    pub(crate) minimum: TLSVersion,
    pub(crate) maximum: TLSVersion,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) keylog: Option<Arc<KeyLogFile>>,
    pub(crate) num_tickets: usize,
    pub(crate) sessions: Option<Sessions>,
}

/// What was made of a plan.
pub(crate) struct CachedConfig<T> {
    pub(crate) config: Arc<T>,
    /// Whether peers' certificates are judged: what was not judged is not shown.
    pub(crate) judges: bool,
    /// What clients remember of their servers; `None` if nothing is resumed.
    pub(crate) sessions: Option<Arc<ClientSessions>>,
    /// Until when all certificates that are shown to peers are good, in seconds since 1970,
    /// the last included. Those that have expired already do not count.
    pub(crate) shown_until: u64,
    /// Until when it holds, in seconds since 1970.
    until: u64,
}

impl<T> Clone for CachedConfig<T> {
    fn clone(&self) -> CachedConfig<T> {
        CachedConfig { config: Arc::clone(&self.config), sessions: self.sessions.clone(), ..*self }
    }
}

impl<T> CachedConfig<T> {
    pub(crate) fn new(
        plan: &ConfigSpec,
        make: fn(&ConfigSpec, UnixTime) -> io::Result<T>,
    ) -> io::Result<CachedConfig<T>> {
        let now = UnixTime::now();
        let ends = plan.chains.iter().flat_map(CertChain::ends);
        let shown_until = ends.filter(|&end| end >= now.as_secs()).min().unwrap_or(NEVER_EXPIRES);
        Ok(CachedConfig {
            config: Arc::new(make(plan, now)?),
            judges: plan.demands.mode != VerifyMode::CERT_NONE,
            sessions: (plan.num_tickets > 0).then(Arc::default),
            shown_until,
            until: plan.trust.valid_until(now).min(shown_until.saturating_add(1)),
        })
    }

    pub(crate) fn is_valid(&self) -> bool {
        UnixTime::now().as_secs() < self.until
    }
}

pub(crate) fn server(plan: &ConfigSpec, now: UnixTime) -> io::Result<ServerConfig> {
    if plan.chains.is_empty() {
        let message = "a server needs a certificate: call load_cert_chain";
        return Err(SSLError::new(Reason::NoCertificateAssigned, message).into());
    }
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(plan)?)
        .map_err(|error| misconfigured(error.to_string()))?;
    let builder = match verifier::client_verifier(&plan.trust, plan.demands, now)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(CertResolver(plan.chains.clone())));
    // As OP_CIPHER_SERVER_PREFERENCE, which Python sets.
    config.ignore_client_order = true;
    config.alpn_protocols.clone_from(&plan.alpn);
    config.send_tls13_tickets = plan.num_tickets;
    match &plan.sessions {
        Some(sessions) if plan.num_tickets > 0 => {
            config.ticketer = Arc::clone(&sessions.ticketer);
            config.session_storage = Arc::clone(&sessions.store);
        }
        _ => config.session_storage = Arc::new(NoServerSessionStorage {}),
    }
    if let Some(keylog) = &plan.keylog {
        config.key_log = Arc::clone(keylog) as _;
    }
    Ok(config)
}

pub(crate) fn client(plan: &ConfigSpec, _now: UnixTime) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions(plan)?)
        .map_err(|error| misconfigured(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier::server_verifier(&plan.trust, plan.demands)?);
    let mut config = builder.with_client_cert_resolver(Arc::new(CertResolver(plan.chains.clone())));
    config.alpn_protocols.clone_from(&plan.alpn);
    // Each connection has a store of its own: see `ConnectionSessions`.
    config.resumption = Resumption::disabled();
    if let Some(keylog) = &plan.keylog {
        config.key_log = Arc::clone(keylog) as _;
    }
    Ok(config)
}

fn versions(plan: &ConfigSpec) -> io::Result<Vec<&'static SupportedProtocolVersion>> {
    let all = [(TLSVersion::TLSv1_2, &version::TLS12), (TLSVersion::TLSv1_3, &version::TLS13)];
    let wanted: Vec<_> = all
        .into_iter()
        .filter(|(version, _)| (plan.minimum..=plan.maximum).contains(version))
        .map(|(_, supported)| supported)
        .collect();
    match wanted.is_empty() {
        true => Err(misconfigured(format!(
            "no version between minimum_version {:?} and maximum_version {:?}",
            plan.minimum, plan.maximum
        ))),
        false => Ok(wanted),
    }
}
