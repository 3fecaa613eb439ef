//! `SSLContext`: the certificates, trusted authorities and settings that connections share.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::{ClientConfig, ServerConfig};
use zeroize::Zeroizing;

use crate::alert::AlertDescription;
use crate::cert::pem::Pem;
use crate::cert::resolver::{CertChain, Source};
use crate::cert::sources::{Authority, CADATA, remember};
use crate::cert::trust::Trust;
use crate::cert::verifier::VerifyPolicy;
use crate::config::{self, CachedConfig, ConfigSpec};
use crate::constants::{
    CERT_NONE, CERT_REQUIRED, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, Protocol, Purpose, TLSVersion,
    VERIFY_DEFAULT, VerifyFlags, VerifyMode,
};
use crate::error::{Reason, invalid};
use crate::keylog::KeyLogFile;
use crate::sessions::Sessions;
use crate::stats::{Counters, SessionStats, increment};

/// Creates a context with the default settings for a purpose.
///
/// Python: `ssl.create_default_context(purpose)`. System calls: only those that read files. A
/// context for clients (`Purpose::SERVER_AUTH`) trusts the system's authorities and requires a
/// certificate that one of them issued for the server name. A context for servers
/// (`Purpose::CLIENT_AUTH`) requests no certificate from clients. The versions are TLS 1.2 and
/// 1.3. If the environment variable `SSLKEYLOGFILE` is set, it is the path of the key log file.
///
/// Python does not load the system's authorities if `cafile` is given. Here that is
/// [`SSLContext::new`] with [`load_verify_locations`](SSLContext::load_verify_locations).
///
/// # Errors
///
/// Returns an error if the system's certificates cannot be read, or if the key log file cannot
/// be opened.
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

/// The certificates, trusted authorities and settings that connections share.
///
/// Python: `ssl.SSLContext`. A clone is another handle of the same context, as with assignment
/// in Python. Every method takes `&self`. A change applies to connections that are wrapped
/// afterwards, so certificates can be renewed while a server runs ([`reload`](Self::reload)). A
/// call that fails changes nothing.
///
/// Its life:
///
/// 1. [`create_default_context`] creates it, or [`SSLContext::new`] without trusted authorities.
/// 2. [`load_cert_chain`](Self::load_cert_chain) loads the own certificate, and
///    [`load_verify_locations`](Self::load_verify_locations) the trusted authorities.
/// 3. [`wrap_socket_server`](Self::wrap_socket_server) and
///    [`wrap_socket_client`](Self::wrap_socket_client) wrap any number of sockets.
#[derive(Clone)]
pub struct SSLContext {
    inner: Arc<Inner>,
}

struct Inner {
    protocol: Protocol,
    settings: RwLock<Settings>,
    /// Held while files are read, so that concurrent calls do not overwrite each other's result.
    loading: Mutex<()>,
    counters: Arc<Counters>,
}

/// The settings, and the configurations built from them.
struct Settings {
    spec: ConfigSpec,
    trusted: Vec<Authority>,
    sni_callback: Option<Arc<SniCallback>>,
    keylog_filename: Option<PathBuf>,
    server: Option<CachedConfig<ServerConfig>>,
    client: Option<CachedConfig<ClientConfig>>,
}

type SniCallback = dyn Fn(Option<&str>) -> Result<Option<SSLContext>, AlertDescription> + Send + Sync;

impl SSLContext {
    /// Creates a context without certificates and without trusted authorities.
    ///
    /// Python: `ssl.SSLContext(protocol)`. A context for clients requires and verifies the
    /// server's certificate and name. A context for servers requests no certificate from clients.
    #[must_use]
    pub fn new(protocol: Protocol) -> SSLContext {
        let client = protocol == PROTOCOL_TLS_CLIENT;
        let spec = ConfigSpec {
            chains: Vec::new(),
            trust: Arc::default(),
            policy: VerifyPolicy {
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
            spec,
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

    /// Loads the own certificate, with the chain up to its authority, and its private key.
    ///
    /// Python: `load_cert_chain(certfile, keyfile)`. Both are PEM files; the own certificate
    /// comes first. If one file contains both, pass it twice. Certificates with keys of several
    /// kinds (RSA, ECDSA, Ed25519) can be loaded. The peer gets the last loaded one whose
    /// signatures it can verify. A second certificate of the same kind replaces the first.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file: the system's if a file cannot be read, or an
    /// [`SSLError`](crate::SSLError) with [`NoStartLine`](Reason::NoStartLine) if it contains no
    /// certificate or key, [`BadPem`](Reason::BadPem) if it cannot be parsed,
    /// [`KeyValuesMismatch`](Reason::KeyValuesMismatch) if the key belongs to another certificate,
    /// [`PasswordRequired`](Reason::PasswordRequired) if the key is encrypted, or
    /// [`UnsupportedKey`](Reason::UnsupportedKey) if its kind is not supported.
    pub fn load_cert_chain(&self, certfile: impl AsRef<Path>, keyfile: impl AsRef<Path>) -> io::Result<()> {
        self.load_chain(certfile.as_ref(), keyfile.as_ref(), None, None)
    }

    /// Loads the own certificate and its encrypted private key.
    ///
    /// Python: `load_cert_chain(certfile, keyfile, password)`. The key is in PKCS #8 or in OpenSSL's
    /// traditional format, encrypted with AES or 3DES. The context keeps the password for
    /// [`reload`](Self::reload) and zeroes it when it is dropped. The password is ignored if the key
    /// is not encrypted.
    ///
    /// # Errors
    ///
    /// Returns an error if [`load_cert_chain`](Self::load_cert_chain) would, or an
    /// [`SSLError`](crate::SSLError) with [`BadDecrypt`](Reason::BadDecrypt) if the password is
    /// wrong.
    pub fn load_cert_chain_with_password(
        &self,
        certfile: impl AsRef<Path>,
        keyfile: impl AsRef<Path>,
        password: impl AsRef<[u8]>,
    ) -> io::Result<()> {
        self.load_chain(
            certfile.as_ref(),
            keyfile.as_ref(),
            Some(Zeroizing::new(password.as_ref().to_vec())),
            None,
        )
    }

    /// Loads a certificate for one server name (SNI).
    ///
    /// Python: none; an `sni_callback` with one context for each name does the same. The name is
    /// a host name, or `*.example.com` for each host in a domain. Clients that send another name,
    /// or none, get the certificate that [`load_cert_chain`](Self::load_cert_chain) loaded.
    ///
    /// # Errors
    ///
    /// Returns an error if [`load_cert_chain`](Self::load_cert_chain) would.
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
        password: Option<Zeroizing<Vec<u8>>>,
        server_name: Option<String>,
    ) -> io::Result<()> {
        let _loading = self.inner.loading.lock();
        let (certfile, keyfile) = (certfile.to_owned(), keyfile.to_owned());
        let chain = CertChain::load(Source { certfile, keyfile, password, server_name })?;
        self.change(|settings| {
            settings.spec.chains.retain(|loaded| !loaded.replaces(&chain));
            settings.spec.chains.push(chain);
        });
        Ok(())
    }

    /// Loads trusted authorities and revocation lists from a PEM file or a directory.
    ///
    /// Python: `load_verify_locations(cafile)`, `load_verify_locations(capath=…)`. Every file of
    /// a directory is read. A certificate that is not an authority's is trusted only as a peer's
    /// own certificate. Certificates that an expired authority issued are rejected.
    ///
    /// Of the revocation lists of one issuer (a name and a key) and scope, the newest one is
    /// used, in whatever order they are loaded. Older ones are dropped.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file: the system's if it cannot be read, or an
    /// [`SSLError`](crate::SSLError) with [`NoStartLine`](Reason::NoStartLine) if it contains no
    /// certificate and no list, or with [`BadPem`](Reason::BadPem) if a certificate or a list
    /// cannot be parsed, or if a list is not signed by the loaded authority whose key it names.
    pub fn load_verify_locations(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.trust(Authority::Path(path.as_ref().to_owned()))
    }

    /// Loads trusted authorities and revocation lists from PEM text.
    ///
    /// Python: `load_verify_locations(cadata=…)`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`load_verify_locations`](Self::load_verify_locations) would for a file
    /// with this text.
    pub fn load_verify_data(&self, cadata: impl AsRef<[u8]>) -> io::Result<()> {
        let pem = Pem::parse(cadata.as_ref(), Path::new(CADATA))?;
        self.trust(Authority::Memory(pem.certificates, pem.crls))
    }

    /// Loads the system's trusted authorities. Python: `load_default_certs()`.
    ///
    /// The environment variables `SSL_CERT_FILE` and `SSL_CERT_DIR` replace the system's
    /// locations. A certificate that is not an authority's is trusted only as a peer's own
    /// certificate. A certificate that cannot be parsed is skipped.
    ///
    /// # Errors
    ///
    /// Returns an error if no certificate can be read.
    pub fn load_default_certs(&self) -> io::Result<()> {
        self.trust(Authority::System)
    }

    fn trust(&self, authority: Authority) -> io::Result<()> {
        let _loading = self.inner.loading.lock();
        let mut trust = Trust::clone(&self.inner.settings.read().spec.trust);
        authority.load(&mut trust)?;
        trust.verify_lists()?;
        self.change(|settings| {
            remember(&mut settings.trusted, authority, &trust);
            settings.spec.trust = Arc::new(trust);
            settings.spec.sessions = None;
        });
        Ok(())
    }

    /// Reads every loaded file again: certificates, keys, authorities and revocation lists.
    ///
    /// Python: none; files can be loaded again there one by one, and an error leaves the context
    /// partly changed. Here all files replace the old ones, or none does. Open connections are not
    /// affected. [`session_stats`](Self::session_stats) counts successful and failed calls.
    ///
    /// # Errors
    ///
    /// Returns an error if the method that loaded a file would. The context is unchanged then.
    pub fn reload(&self) -> io::Result<()> {
        let counters = &self.inner.counters;
        let result = self.reload_all();
        increment(if result.is_ok() { &counters.reloads } else { &counters.reloads_failed });
        result
    }

    fn reload_all(&self) -> io::Result<()> {
        let _loading = self.inner.loading.lock();
        let (chains, trusted) = {
            let settings = self.inner.settings.read();
            (settings.spec.chains.clone(), settings.trusted.clone())
        };
        let chains = chains.iter().map(CertChain::reload).collect::<io::Result<Vec<_>>>()?;
        let mut trust = Trust::default();
        for authority in &trusted {
            authority.load(&mut trust)?;
        }
        trust.verify_lists()?;
        self.change(|settings| {
            settings.spec.chains = chains;
            if !trusted.is_empty() {
                settings.spec.trust = Arc::new(trust);
                settings.spec.sessions = None;
            }
        });
        Ok(())
    }

    /// Returns the side that the context is for. Python: `protocol`.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.inner.protocol
    }

    /// Returns whether peers' certificates are required and verified. Python: `verify_mode`.
    #[must_use]
    pub fn verify_mode(&self) -> VerifyMode {
        self.inner.settings.read().spec.policy.mode
    }

    /// Sets whether peers' certificates are required and verified. Python: `verify_mode = …`.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` for `CERT_NONE` while [`check_hostname`](Self::check_hostname) is on.
    pub fn set_verify_mode(&self, mode: VerifyMode) -> io::Result<()> {
        if mode == CERT_NONE && self.check_hostname() {
            return Err(invalid("verify_mode cannot be CERT_NONE while check_hostname is on"));
        }
        self.change_policy(|policy| policy.mode = mode);
        Ok(())
    }

    /// Returns whether the server's certificate must be valid for the server name.
    ///
    /// Python: `check_hostname`.
    #[must_use]
    pub fn check_hostname(&self) -> bool {
        self.inner.settings.read().spec.policy.check_hostname
    }

    /// Sets whether the server's certificate must be valid for the server name.
    ///
    /// Python: `check_hostname = …`. Switching it on changes `CERT_NONE` to `CERT_REQUIRED`.
    pub fn set_check_hostname(&self, check: bool) {
        self.change_policy(|policy| {
            policy.check_hostname = check;
            if check && policy.mode == CERT_NONE {
                policy.mode = CERT_REQUIRED;
            }
        });
    }

    /// Returns whether the common name of a certificate without a DNS name is checked.
    ///
    /// Python: `hostname_checks_common_name`.
    #[must_use]
    pub fn hostname_checks_common_name(&self) -> bool {
        self.inner.settings.read().spec.policy.common_name
    }

    /// Sets whether the common name of a certificate without a DNS name is checked.
    ///
    /// The default is false: only the subject alternative names are checked. The name constraints
    /// of the authorities apply to the common name too. Python: `hostname_checks_common_name`,
    /// whose default is true.
    pub fn set_hostname_checks_common_name(&self, check: bool) {
        self.change_policy(|policy| policy.common_name = check);
    }

    /// Returns which certificates require a revocation list. Python: `verify_flags`.
    #[must_use]
    pub fn verify_flags(&self) -> VerifyFlags {
        self.inner.settings.read().spec.policy.flags
    }

    /// Sets which certificates require a revocation list. Python: `verify_flags = …`.
    pub fn set_verify_flags(&self, flags: VerifyFlags) {
        self.change_policy(|policy| policy.flags = flags);
    }

    /// Returns the lowest supported version. Python: `minimum_version`.
    #[must_use]
    pub fn minimum_version(&self) -> TLSVersion {
        self.inner.settings.read().spec.minimum
    }

    /// Sets the lowest supported version. The default is TLS 1.2. Python: `minimum_version = …`.
    pub fn set_minimum_version(&self, version: TLSVersion) {
        self.change(|settings| settings.spec.minimum = version);
    }

    /// Returns the highest supported version. Python: `maximum_version`.
    #[must_use]
    pub fn maximum_version(&self) -> TLSVersion {
        self.inner.settings.read().spec.maximum
    }

    /// Sets the highest supported version. The default is TLS 1.3. Python: `maximum_version = …`.
    pub fn set_maximum_version(&self, version: TLSVersion) {
        self.change(|settings| settings.spec.maximum = version);
    }

    /// Sets the application protocols in order of preference, such as `["h2", "http/1.1"]`.
    ///
    /// Python: `set_alpn_protocols(protocols)`. The server's order decides. If both sides have
    /// protocols and none in common, the handshake fails, as RFC 7301 requires. OpenSSL continues
    /// without a protocol.
    ///
    /// # Errors
    ///
    /// Returns `InvalidInput` if a name is not 1 to 255 bytes long.
    pub fn set_alpn_protocols<P: AsRef<[u8]>>(
        &self,
        protocols: impl IntoIterator<Item = P>,
    ) -> io::Result<()> {
        let protocols: Vec<Vec<u8>> =
            protocols.into_iter().map(|protocol| protocol.as_ref().to_vec()).collect();
        if protocols.iter().any(|protocol| !(1..=255).contains(&protocol.len())) {
            return Err(invalid("ALPN protocols must be 1 to 255 bytes long"));
        }
        self.change(|settings| settings.spec.alpn = protocols);
        Ok(())
    }

    /// Sets the SNI callback, which selects the context for the server name in the ClientHello.
    ///
    /// Python: `sni_callback`, which assigns `sslobj.context`. The argument is `None` if the
    /// client sends no name. `Ok(None)` selects this context, `Ok(Some(context))` another context
    /// for servers. `Err` ends the handshake with that alert.
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

    /// Returns the number of session tickets for each TLS 1.3 client. Python: `num_tickets`.
    #[must_use]
    pub fn num_tickets(&self) -> usize {
        self.inner.settings.read().spec.num_tickets
    }

    /// Sets the number of session tickets for each TLS 1.3 client. Python: `num_tickets = …`.
    ///
    /// The default is 2. 0 disables resumption, also in TLS 1.2 and on clients.
    pub fn set_num_tickets(&self, tickets: usize) {
        self.change(|settings| settings.spec.num_tickets = tickets);
    }

    /// Returns the path of the TLS key log file. Python: `keylog_filename`.
    #[must_use]
    pub fn keylog_filename(&self) -> Option<PathBuf> {
        self.inner.settings.read().keylog_filename.clone()
    }

    /// Sets the TLS key log file, to which the secrets of each connection are appended.
    ///
    /// Python: `keylog_filename = …`. Wireshark and other tools decrypt connections with this file.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file: the system's if it cannot be opened, `InvalidInput` if
    /// it is a symbolic link, or `PermissionDenied` if all users can write to it. A file that other
    /// users can access is logged at `warn`. A new file has the mode 0600.
    pub fn set_keylog_filename(&self, file: impl AsRef<Path>) -> io::Result<()> {
        let file = file.as_ref();
        let keylog = Arc::new(KeyLogFile::open(file)?);
        self.change(|settings| {
            settings.spec.keylog = Some(keylog);
            settings.keylog_filename = Some(file.to_owned());
        });
        Ok(())
    }

    /// Returns the counters of handshakes, resumptions and reloads. Python: `session_stats()`.
    #[must_use]
    pub fn session_stats(&self) -> SessionStats {
        self.inner.counters.snapshot()
    }

    /// Returns the number of failed connections for each reason. Python: none.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<Reason, u64> {
        self.inner.counters.failures()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.inner.counters
    }

    /// Returns the context that the SNI callback selects for `name`.
    pub(crate) fn for_server_name(
        &self,
        name: Option<&str>,
    ) -> Result<Option<SSLContext>, AlertDescription> {
        let callback = self.inner.settings.read().sni_callback.clone();
        callback.map_or(Ok(None), |callback| callback(name))
    }

    pub(crate) fn has_certificate_for(&self, name: Option<&str>) -> bool {
        self.inner.settings.read().spec.chains.iter().any(|chain| chain.is_for(name))
    }

    pub(crate) fn server_config(&self) -> io::Result<CachedConfig<ServerConfig>> {
        if let Some(cached) = self.inner.settings.read().server.as_ref().filter(|cached| cached.is_valid())
        {
            return Ok(cached.clone());
        }
        let mut settings = self.inner.settings.write();
        if settings.spec.sessions.is_none() {
            settings.spec.sessions = Some(Sessions::new(&self.inner.counters)?);
        }
        let cached = CachedConfig::new(&settings.spec, config::server)?;
        Ok(settings.server.insert(cached).clone())
    }

    pub(crate) fn client_config(&self) -> io::Result<CachedConfig<ClientConfig>> {
        if let Some(cached) = self.inner.settings.read().client.as_ref().filter(|cached| cached.is_valid())
        {
            return Ok(cached.clone());
        }
        let mut settings = self.inner.settings.write();
        let cached = CachedConfig::new(&settings.spec, config::client)?;
        Ok(settings.client.insert(cached).clone())
    }

    /// Changes settings. Connections that are wrapped afterwards use the new ones.
    fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.inner.settings.write();
        change(&mut settings);
        settings.server = None;
        settings.client = None;
        // The ticket keys are created here and not on first use. First use may be in a forked
        // child, and then no child could decrypt the tickets of another one.
        if self.inner.protocol == PROTOCOL_TLS_SERVER && settings.spec.sessions.is_none() {
            settings.spec.sessions = Sessions::new(&self.inner.counters).ok();
        }
    }

    fn change_policy(&self, change: impl FnOnce(&mut VerifyPolicy)) {
        self.change(|settings| {
            change(&mut settings.spec.policy);
            settings.spec.sessions = None;
        });
    }
}

impl fmt::Debug for SSLContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.inner.settings.read();
        f.debug_struct("SSLContext")
            .field("protocol", &self.inner.protocol)
            .field("verify_mode", &settings.spec.policy.mode)
            .field("check_hostname", &settings.spec.policy.check_hostname)
            .finish_non_exhaustive()
    }
}
