//! `SSLContext`: certificates, trust and versions of many connections.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::{ClientConfig, ServerConfig};

use crate::alert::AlertDescription;
use crate::cert::pem::Pem;
use crate::cert::resolver::{CertChain, Source};
use crate::cert::sources::{Authority, CADATA, remember};
use crate::cert::trust::Trust;
use crate::cert::verifier::VerifyPolicy;
use crate::config::{self, CachedConfig, ConfigSpec};
use crate::error::{Reason, invalid};
use crate::keylog::KeyLogFile;
use crate::names::{
    CERT_NONE, CERT_REQUIRED, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, Protocol, Purpose, TLSVersion,
    VERIFY_DEFAULT, VerifyFlags, VerifyMode,
};
use crate::sessions::Sessions;
use crate::stats::{Counters, SessionStats, count};

/// A context with the defaults that are right for a purpose.
///
/// Python: `ssl.create_default_context(purpose)`. No system call but those that
/// read files. For clients (`Purpose::SERVER_AUTH`) it trusts the system's
/// authorities, and demands a certificate that is theirs and the server's by
/// name. For servers (`Purpose::CLIENT_AUTH`) it asks clients for none. TLS 1.2
/// and 1.3. With the environment variable `SSLKEYLOGFILE` set, secrets go there.
///
/// Python loads no system authorities if it is given `cafile`; here that is
/// [`SSLContext::new`] with [`load_verify_locations`](SSLContext::load_verify_locations).
///
/// # Errors
///
/// When the system's certificates, or the file of secrets, cannot be read.
///
/// # Examples
///
/// ```
/// use sockssl::{CERT_REQUIRED, Purpose, create_default_context};
///
/// let context = create_default_context(Purpose::SERVER_AUTH)?;
/// assert_eq!(context.verify_mode(), CERT_REQUIRED);
/// assert!(context.check_hostname());
/// # std::io::Result::Ok(())
/// ```
pub fn create_default_context(purpose: Purpose) -> io::Result<SSLContext> {
    let context = match purpose {
        Purpose::SERVER_AUTH => {
            let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
            context.load_default_certs()?;
            context
        }
        Purpose::CLIENT_AUTH => SSLContext::new(PROTOCOL_TLS_SERVER),
    };
    if let Some(file) = env::var_os("SSLKEYLOGFILE").filter(|file| !file.is_empty()) {
        context.set_keylog_filename(file)?;
    }
    Ok(context)
}

/// Certificates, trust and settings that connections share.
///
/// Python: `ssl.SSLContext`. Cloning it makes another handle of the same context,
/// as assignment does in Python. Every method takes `&self`: what is set counts
/// for connections wrapped from then on, so that certificates can be renewed
/// while a server serves ([`reload`](Self::reload)). A setting that fails changes
/// nothing.
///
/// Its life:
///
/// 1. [`create_default_context`], or [`SSLContext::new`] for one that trusts nobody yet.
/// 2. [`load_cert_chain`](Self::load_cert_chain): who we are;
///    [`load_verify_locations`](Self::load_verify_locations): whom we trust.
/// 3. [`wrap_socket_server`](Self::wrap_socket_server) or
///    [`wrap_socket_client`](Self::wrap_socket_client), as often as wanted.
#[derive(Clone)]
pub struct SSLContext {
    inner: Arc<Inner>,
}

struct Inner {
    protocol: Protocol,
    settings: RwLock<Settings>,
    /// Held by who reads files, so that two of them cannot lose each other's work.
    loading: Mutex<()>,
    counters: Arc<Counters>,
}

/// What can be set, and what was made of it.
struct Settings {
    plan: ConfigSpec,
    trusted: Vec<Authority>,
    sni_callback: Option<Arc<SniCallback>>,
    keylog_filename: Option<PathBuf>,
    server: Option<CachedConfig<ServerConfig>>,
    client: Option<CachedConfig<ClientConfig>>,
}

type SniCallback = dyn Fn(Option<&str>) -> Result<Option<SSLContext>, AlertDescription> + Send + Sync;

impl SSLContext {
    /// A context without certificates of its own, that trusts nobody.
    ///
    /// Python: `ssl.SSLContext(protocol)`. For clients, certificates and names of
    /// servers are demanded; for servers, nothing is asked of clients.
    #[must_use]
    pub fn new(protocol: Protocol) -> SSLContext {
        let client = protocol == PROTOCOL_TLS_CLIENT;
        let plan = ConfigSpec {
            chains: Vec::new(),
            trust: Arc::default(),
            demands: VerifyPolicy {
                mode: if client { CERT_REQUIRED } else { CERT_NONE },
                flags: VERIFY_DEFAULT,
                check_hostname: client,
                common_name: false,
            },
            minimum: TLSVersion::TLSv1_2,
            maximum: TLSVersion::TLSv1_3,
            alpn: Vec::new(),
            keylog: None,
            num_tickets: 2,
            sessions: None,
        };
        let settings = Settings {
            plan,
            trusted: Vec::new(),
            sni_callback: None,
            keylog_filename: None,
            server: None,
            client: None,
        };
        SSLContext {
            inner: Arc::new(Inner {
                protocol,
                settings: RwLock::new(settings),
                loading: Mutex::new(()),
                counters: Arc::default(),
            }),
        }
    }

    /// Loads our certificate, with the chain up to its authority, and its private key.
    ///
    /// Python: `load_cert_chain(certfile, keyfile)`. Both are PEM files, the leaf
    /// first; where one file holds both, it is named twice. Certificates of
    /// several kinds of keys (RSA, ECDSA, Ed25519) can be loaded, of which the
    /// peer gets the last one it can check; another of the same kind takes the
    /// place of the first.
    ///
    /// # Errors
    ///
    /// Each names the file: the system's for one that cannot be read; an
    /// [`SSLError`](crate::SSLError) with [`NoStartLine`](Reason::NoStartLine),
    /// [`BadPem`](Reason::BadPem), [`KeyValuesMismatch`](Reason::KeyValuesMismatch),
    /// [`PasswordRequired`](Reason::PasswordRequired) or
    /// [`UnsupportedKey`](Reason::UnsupportedKey). What was loaded before stays.
    pub fn load_cert_chain(&self, certfile: impl AsRef<Path>, keyfile: impl AsRef<Path>) -> io::Result<()> {
        self.load_chain(certfile.as_ref(), keyfile.as_ref(), None, None)
    }

    /// The same with a private key that is encrypted (PKCS #8).
    ///
    /// Python: `load_cert_chain(certfile, keyfile, password)`. The password is kept
    /// for [`reload`](Self::reload); for a key that is not encrypted it is not used.
    ///
    /// # Errors
    ///
    /// Those of [`load_cert_chain`](Self::load_cert_chain), and
    /// [`BadDecrypt`](Reason::BadDecrypt) for the wrong password.
    pub fn load_cert_chain_with_password(
        &self,
        certfile: impl AsRef<Path>,
        keyfile: impl AsRef<Path>,
        password: impl AsRef<[u8]>,
    ) -> io::Result<()> {
        self.load_chain(certfile.as_ref(), keyfile.as_ref(), Some(password.as_ref().to_vec()), None)
    }

    /// Loads a certificate for the clients that ask for one server by its name (SNI).
    ///
    /// Python: none; its `sni_callback` with a context for each name does the
    /// same. The name is a host's, or `*.example.com` for each host in a domain.
    /// Clients that ask for another name, or none, get what
    /// [`load_cert_chain`](Self::load_cert_chain) loaded.
    ///
    /// # Errors
    ///
    /// Those of [`load_cert_chain`](Self::load_cert_chain).
    pub fn load_cert_chain_for(
        &self,
        server_name: &str,
        certfile: impl AsRef<Path>,
        keyfile: impl AsRef<Path>,
    ) -> io::Result<()> {
        let name = server_name.to_ascii_lowercase();
        self.load_chain(certfile.as_ref(), keyfile.as_ref(), None, Some(name))
    }

    fn load_chain(
        &self,
        certfile: &Path,
        keyfile: &Path,
        password: Option<Vec<u8>>,
        server_name: Option<String>,
    ) -> io::Result<()> {
        let _loading = self.inner.loading.lock();
        let (certfile, keyfile) = (certfile.to_owned(), keyfile.to_owned());
        let chain = CertChain::load(Source { certfile, keyfile, password, server_name })?;
        self.change(|settings| {
            settings.plan.chains.retain(|loaded| !loaded.replaces(&chain));
            settings.plan.chains.push(chain);
        });
        Ok(())
    }

    /// Trusts the authorities in a PEM file, or in each file of a directory;
    /// revocation lists in them count too.
    ///
    /// Python: `load_verify_locations(cafile)`, `load_verify_locations(capath=…)`.
    /// A certificate that is no authority's is trusted itself, when a peer shows it,
    /// and vouches for no other. An authority that has expired vouches for nobody.
    ///
    /// Of the revocation lists of one issuer (a name and a key) and scope the newest
    /// counts, in whatever order they are loaded; older ones are dropped.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file: the system's if it cannot be read;
    /// [`NoStartLine`](Reason::NoStartLine) if nothing of them is in it;
    /// [`BadPem`](Reason::BadPem) if a certificate or a list cannot be used: because it
    /// cannot be parsed, or because a list is not signed by the loaded authority whose
    /// key it names. What was loaded before stays.
    pub fn load_verify_locations(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.trust(Authority::Path(path.as_ref().to_owned()))
    }

    /// Trusts the authorities in a text in PEM. Python: `load_verify_locations(cadata=…)`.
    ///
    /// # Errors
    ///
    /// Those of [`load_verify_locations`](Self::load_verify_locations).
    pub fn load_verify_data(&self, cadata: impl AsRef<[u8]>) -> io::Result<()> {
        let pem = Pem::parse(cadata.as_ref(), Path::new(CADATA))?;
        self.trust(Authority::Memory(pem.certificates, pem.crls))
    }

    /// Trusts the system's authorities, or those that the environment variables
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Python: `load_default_certs()`.
    ///
    /// A certificate that is no authority's is trusted itself, and vouches for no other;
    /// one that cannot be used is left out.
    ///
    /// # Errors
    ///
    /// When there is none that can be read.
    pub fn load_default_certs(&self) -> io::Result<()> {
        self.trust(Authority::System)
    }

    fn trust(&self, authority: Authority) -> io::Result<()> {
        let _loading = self.inner.loading.lock();
        let mut trust = Trust::clone(&self.inner.settings.read().plan.trust);
        authority.load(&mut trust)?;
        trust.settle()?;
        self.change(|settings| {
            remember(&mut settings.trusted, authority, &trust);
            settings.plan.trust = Arc::new(trust);
            settings.plan.sessions = None;
        });
        Ok(())
    }

    /// Reads every loaded file once more: certificates, keys, authorities,
    /// revocation lists. All of them count from then on, or, if there is a fault
    /// in one, none.
    ///
    /// Python: none; there one loads them again, into a context that may then be
    /// half new. Connections that are open stay as they are. [`session_stats`](Self::session_stats)
    /// counts how it went.
    ///
    /// # Errors
    ///
    /// Those of the methods that loaded the files. Everything stays as it was.
    pub fn reload(&self) -> io::Result<()> {
        let counters = &self.inner.counters;
        let result = self.reload_all();
        count(if result.is_ok() { &counters.reloads } else { &counters.reloads_failed });
        result
    }

    fn reload_all(&self) -> io::Result<()> {
        let _loading = self.inner.loading.lock();
        let (chains, trusted) = {
            let settings = self.inner.settings.read();
            (settings.plan.chains.clone(), settings.trusted.clone())
        };
        let chains = chains.iter().map(CertChain::reload).collect::<io::Result<Vec<_>>>()?;
        let mut trust = Trust::default();
        for authority in &trusted {
            authority.load(&mut trust)?;
        }
        trust.settle()?;
        self.change(|settings| {
            settings.plan.chains = chains;
            if !trusted.is_empty() {
                settings.plan.trust = Arc::new(trust);
                settings.plan.sessions = None;
            }
        });
        Ok(())
    }

    /// Which side it is for. Python: `protocol`.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.inner.protocol
    }

    /// What is asked of peers. Python: `verify_mode`.
    #[must_use]
    pub fn verify_mode(&self) -> VerifyMode {
        self.inner.settings.read().plan.demands.mode
    }

    /// Sets what is asked of peers. Python: `verify_mode = …`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for `CERT_NONE` while [`check_hostname`](Self::check_hostname)
    /// is on.
    pub fn set_verify_mode(&self, mode: VerifyMode) -> io::Result<()> {
        if mode == CERT_NONE && self.check_hostname() {
            return Err(invalid("verify_mode cannot be CERT_NONE while check_hostname is on"));
        }
        self.change_policy(|demands| demands.mode = mode);
        Ok(())
    }

    /// Whether a server's certificate must be for the name it was called by.
    /// Python: `check_hostname`.
    #[must_use]
    pub fn check_hostname(&self) -> bool {
        self.inner.settings.read().plan.demands.check_hostname
    }

    /// Sets whether names are checked; to do so makes certificates required.
    /// Python: `check_hostname = …`.
    pub fn set_check_hostname(&self, check: bool) {
        self.change_policy(|demands| {
            demands.check_hostname = check;
            if check && demands.mode == CERT_NONE {
                demands.mode = CERT_REQUIRED;
            }
        });
    }

    /// Whether the common name counts in a certificate without a DNS name among its
    /// alternative names. Python: `hostname_checks_common_name`.
    #[must_use]
    pub fn hostname_checks_common_name(&self) -> bool {
        self.inner.settings.read().plan.demands.common_name
    }

    /// Sets whether the common name counts in a certificate without a DNS name among its
    /// alternative names; by default not. The authorities' name constraints hold for it.
    /// Python: `hostname_checks_common_name`, by default true.
    pub fn set_hostname_checks_common_name(&self, check: bool) {
        self.change_policy(|demands| demands.common_name = check);
    }

    /// How revocation lists are asked. Python: `verify_flags`.
    #[must_use]
    pub fn verify_flags(&self) -> VerifyFlags {
        self.inner.settings.read().plan.demands.flags
    }

    /// Sets how revocation lists are asked. Python: `verify_flags = …`.
    pub fn set_verify_flags(&self, flags: VerifyFlags) {
        self.change_policy(|demands| demands.flags = flags);
    }

    /// The lowest version that is spoken. Python: `minimum_version`.
    #[must_use]
    pub fn minimum_version(&self) -> TLSVersion {
        self.inner.settings.read().plan.minimum
    }

    /// Sets the lowest version; by default TLS 1.2. Python: `minimum_version = …`.
    pub fn set_minimum_version(&self, version: TLSVersion) {
        self.change(|settings| settings.plan.minimum = version);
    }

    /// The highest version that is spoken. Python: `maximum_version`.
    #[must_use]
    pub fn maximum_version(&self) -> TLSVersion {
        self.inner.settings.read().plan.maximum
    }

    /// Sets the highest version; by default TLS 1.3. Python: `maximum_version = …`.
    pub fn set_maximum_version(&self, version: TLSVersion) {
        self.change(|settings| settings.plan.maximum = version);
    }

    /// Sets the application protocols, the best first, such as `["h2", "http/1.1"]`.
    ///
    /// Python: `set_alpn_protocols(protocols)`. The server's order decides. Where
    /// both sides have some and none in common the handshake fails, as RFC 7301
    /// says; OpenSSL goes on without.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a name that is not 1 to 255 bytes long.
    pub fn set_alpn_protocols<P: AsRef<[u8]>>(
        &self,
        protocols: impl IntoIterator<Item = P>,
    ) -> io::Result<()> {
        let protocols: Vec<Vec<u8>> =
            protocols.into_iter().map(|protocol| protocol.as_ref().to_vec()).collect();
        if protocols.iter().any(|protocol| !(1..=255).contains(&protocol.len())) {
            return Err(invalid("ALPN protocols must be 1 to 255 bytes long"));
        }
        self.change(|settings| settings.plan.alpn = protocols);
        Ok(())
    }

    /// Sets what chooses the context of a connection by the name the client asks
    /// for; `None` when it asks for none.
    ///
    /// Python: `sni_callback`, whose function sets `sslobj.context`. `Ok(None)` goes
    /// on with this context, `Ok(Some(context))` with another one for servers,
    /// `Err` refuses the client with that alert.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{ALERT_DESCRIPTION_UNRECOGNIZED_NAME, PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    /// let guests = SSLContext::new(PROTOCOL_TLS_SERVER);
    /// context.set_sni_callback(move |name| match name {
    ///     Some("guests.example") => Ok(Some(guests.clone())),
    ///     Some(_) => Ok(None),
    ///     None => Err(ALERT_DESCRIPTION_UNRECOGNIZED_NAME),
    /// });
    /// ```
    pub fn set_sni_callback(
        &self,
        callback: impl Fn(Option<&str>) -> Result<Option<SSLContext>, AlertDescription> + Send + Sync + 'static,
    ) {
        self.change(|settings| settings.sni_callback = Some(Arc::new(callback)));
    }

    /// How many session tickets a TLS 1.3 client is given. Python: `num_tickets`.
    #[must_use]
    pub fn num_tickets(&self) -> usize {
        self.inner.settings.read().plan.num_tickets
    }

    /// Sets how many session tickets a TLS 1.3 client is given; by default 2, and
    /// 0 for no resumption, in TLS 1.2 and of clients too. Python: `num_tickets = …`.
    pub fn set_num_tickets(&self, tickets: usize) {
        self.change(|settings| settings.plan.num_tickets = tickets);
    }

    /// Where secrets are written. Python: `keylog_filename`.
    #[must_use]
    pub fn keylog_filename(&self) -> Option<PathBuf> {
        self.inner.settings.read().keylog_filename.clone()
    }

    /// Appends the secrets of each connection to a file, for Wireshark and its
    /// like. Who reads that file reads the connections. Python: `keylog_filename = …`.
    ///
    /// # Errors
    ///
    /// The system's, with the file's name.
    pub fn set_keylog_filename(&self, file: impl AsRef<Path>) -> io::Result<()> {
        let file = file.as_ref();
        let keylog = Arc::new(KeyLogFile::open(file)?);
        self.change(|settings| {
            settings.plan.keylog = Some(keylog);
            settings.keylog_filename = Some(file.to_owned());
        });
        Ok(())
    }

    /// Counters of handshakes, resumptions and reloads. Python: `session_stats()`.
    #[must_use]
    pub fn session_stats(&self) -> SessionStats {
        self.inner.counters.snapshot()
    }

    /// How many connections failed, by the reason. Python: none.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<Reason, u64> {
        self.inner.counters.failures()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.inner.counters
    }

    /// The context for a client that asks for `name`.
    pub(crate) fn for_server_name(
        &self,
        name: Option<&str>,
    ) -> Result<Option<SSLContext>, AlertDescription> {
        let callback = self.inner.settings.read().sni_callback.clone();
        callback.map_or(Ok(None), |callback| callback(name))
    }

    pub(crate) fn has_certificate_for(&self, name: Option<&str>) -> bool {
        self.inner.settings.read().plan.chains.iter().any(|chain| chain.is_for(name))
    }

    pub(crate) fn server_config(&self) -> io::Result<CachedConfig<ServerConfig>> {
        if let Some(made) = self.inner.settings.read().server.as_ref().filter(|made| made.is_valid()) {
            return Ok(made.clone());
        }
        let mut settings = self.inner.settings.write();
        if settings.plan.sessions.is_none() {
            settings.plan.sessions = Some(Sessions::new(&self.inner.counters)?);
        }
        let made = CachedConfig::new(&settings.plan, config::server)?;
        Ok(settings.server.insert(made).clone())
    }

    pub(crate) fn client_config(&self) -> io::Result<CachedConfig<ClientConfig>> {
        if let Some(made) = self.inner.settings.read().client.as_ref().filter(|made| made.is_valid()) {
            return Ok(made.clone());
        }
        let mut settings = self.inner.settings.write();
        let made = CachedConfig::new(&settings.plan, config::client)?;
        Ok(settings.client.insert(made).clone())
    }

    /// Changes settings; connections wrapped from now on are made by the new ones.
    fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.inner.settings.write();
        change(&mut settings);
        settings.server = None;
        settings.client = None;
        // Made here and not when they are first needed: that may be in a child, and each
        // would then have keys of its own, that open no other child's tickets.
        if self.inner.protocol == PROTOCOL_TLS_SERVER && settings.plan.sessions.is_none() {
            settings.plan.sessions = Sessions::new(&self.inner.counters).ok();
        }
    }

    fn change_policy(&self, change: impl FnOnce(&mut VerifyPolicy)) {
        self.change(|settings| {
            change(&mut settings.plan.demands);
            settings.plan.sessions = None;
        });
    }
}

impl fmt::Debug for SSLContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.inner.settings.read();
        f.debug_struct("SSLContext")
            .field("protocol", &self.inner.protocol)
            .field("verify_mode", &settings.plan.demands.mode)
            .field("check_hostname", &settings.plan.demands.check_hostname)
            .finish_non_exhaustive()
    }
}
