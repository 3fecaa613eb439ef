//! `SSLContext`: the certificates, trusted authorities and settings that connections share.

mod settings;

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
use crate::cert::resolver::{CertChain, KeyNotes, Source};
use crate::cert::sources::{Authority, CADATA, remember};
use crate::cert::trust::Trust;
use crate::cert::verifier::VerifyPolicy;
use crate::cert::x509::Invalid;
use crate::config::{self, CachedConfig, ConfigSpec};
use crate::constants::{
    CERT_NONE, CERT_REQUIRED, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, Protocol, Purpose, TLSVersion,
    VERIFY_DEFAULT,
};
use crate::sessions::Sessions;
use crate::stats::{Counters, increment};

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
/// It is used in these steps:
///
/// 1. [`create_default_context`] creates it, or [`SSLContext::new`] without trusted authorities.
/// 2. [`load_cert_chain`](Self::load_cert_chain) loads the certificate of this side, and
///    [`load_verify_locations`](Self::load_verify_locations) the trusted authorities.
/// 3. [`wrap_socket_server`](Self::wrap_socket_server) and
///    [`wrap_socket_client`](Self::wrap_socket_client) wrap any number of sockets.
///
/// # Examples
///
/// ```
/// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # let _folder = pki::enter()?;
/// use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext};
///
/// let server = SSLContext::new(PROTOCOL_TLS_SERVER);
/// server.load_cert_chain("cert.pem", "key.pem")?;
/// let client = SSLContext::new(PROTOCOL_TLS_CLIENT);
/// client.load_verify_locations("cert.pem")?;
/// # let (sock, _server) = pki::connect(&client, &server)?;
/// // A connection between sockets that these contexts wrap:
/// assert_eq!(sock.version(), Some("TLSv1.3"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct SSLContext {
    inner: Arc<Inner>,
}

struct Inner {
    protocol: Protocol,
    /// Under this lock values are copied and replaced, and configurations are built from them in
    /// memory. No code of the user's runs, nothing is logged, and no file is read. A replaced value
    /// is dropped after it, because it may be a callback that owns values of the user's.
    settings: RwLock<Settings>,
    /// Held while files are read, so that concurrent calls do not overwrite each other's result. A
    /// FIFO may take the time that `cert/file.rs` allows it. Handshakes do not acquire it. No code of
    /// the user's runs and nothing is logged under it.
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
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{CERT_NONE, CERT_REQUIRED, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);  // ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    /// assert_eq!(context.verify_mode(), CERT_REQUIRED);
    /// assert_eq!(SSLContext::new(PROTOCOL_TLS_SERVER).verify_mode(), CERT_NONE);
    /// ```
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

    /// Loads the certificate of this side, with the chain up to its authority, and its private key.
    ///
    /// Python: `load_cert_chain(certfile, keyfile)`. Both are PEM files; this certificate
    /// comes first. If one file contains both, pass it twice. Certificates with keys of several
    /// kinds (RSA, ECDSA, Ed25519) can be loaded. The peer gets the last loaded one whose
    /// signatures it can verify. A second certificate of the same kind replaces the first.
    ///
    /// A FIFO, such as a shell's process substitution, is read until its end, for at most 30
    /// seconds. Without a writer the call fails with `TimedOut` after 5 seconds.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file: the system's if a file cannot be read, or an
    /// [`SSLError`](crate::SSLError) with [`NoStartLine`](crate::Reason::NoStartLine) if it contains no
    /// certificate or key, [`BadPem`](crate::Reason::BadPem) if it cannot be parsed,
    /// [`KeyValuesMismatch`](crate::Reason::KeyValuesMismatch) if the key belongs to another certificate,
    /// [`PasswordRequired`](crate::Reason::PasswordRequired) if the key is encrypted, or
    /// [`UnsupportedKey`](crate::Reason::UnsupportedKey) if its kind is not supported.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    /// context.load_cert_chain("cert.pem", "key.pem")?;     // context.load_cert_chain("cert.pem", "key.pem")
    /// # pki::connect(&pki::client()?, &context)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn load_cert_chain(&self, certfile: impl AsRef<Path>, keyfile: impl AsRef<Path>) -> io::Result<()> {
        self.load_chain(certfile.as_ref(), keyfile.as_ref(), None, None)
    }

    /// Loads the certificate of this side and its encrypted private key.
    ///
    /// Python: `load_cert_chain(certfile, keyfile, password)`. The key is in PKCS #8 or in OpenSSL's
    /// traditional format, encrypted with AES or 3DES. The context keeps the password for
    /// [`reload`](Self::reload) and zeroes it when it is dropped. The password is ignored if the key
    /// is not encrypted.
    ///
    /// # Errors
    ///
    /// Returns an error if [`load_cert_chain`](Self::load_cert_chain) would, or an
    /// [`SSLError`](crate::SSLError) with [`BadDecrypt`](crate::Reason::BadDecrypt) if the password is
    /// wrong.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # pki::write_encrypted("cert.pem", "key.pem")?;
    /// use sockssl::{PROTOCOL_TLS_SERVER, Reason, SSLContext, SSLError};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    /// context.load_cert_chain_with_password("cert.pem", "key.pem", "secret")?;
    ///
    /// let error = context.load_cert_chain_with_password("cert.pem", "key.pem", "guess").unwrap_err();
    /// assert_eq!(SSLError::of(&error).unwrap().reason(), Reason::BadDecrypt);
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # pki::write_certificate("guests.pem", "guests.key", "guests.localhost")?;
    /// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    /// context.load_cert_chain("cert.pem", "key.pem")?;
    /// context.load_cert_chain_for("guests.localhost", "guests.pem", "guests.key")?;
    /// # let trusting = SSLContext::new(sockssl::PROTOCOL_TLS_CLIENT);
    /// # trusting.load_verify_locations("guests.pem")?;
    /// # let (ours, theirs) = pki::sockets()?;
    /// # let serving = std::thread::spawn(move || context.wrap_socket_server(theirs));
    /// # let client = trusting.wrap_socket_client(ours, "guests.localhost")?;
    /// // A client of guests.localhost gets its certificate.
    /// let certificate = client.getpeercert()?.unwrap();
    /// assert_eq!(certificate.subject_value("commonName"), Some("guests.localhost"));
    /// # serving.join().unwrap()?;
    /// # std::io::Result::Ok(())
    /// ```
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
        let (certfile, keyfile) = (certfile.to_owned(), keyfile.to_owned());
        let source = Source { certfile, keyfile, password, server_name };
        let mut notes = KeyNotes::default();
        let loading = self.inner.loading.lock();
        let loaded = CertChain::load(source, &mut notes).map(|chain| {
            self.replace(|settings| {
                settings.spec.chains.retain(|loaded| !loaded.replaces(&chain));
                settings.spec.chains.push(chain);
            })
        });
        drop(loading);
        notes.log();
        loaded.map(Replaced::finish)
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
    /// [`SSLError`](crate::SSLError) with [`NoStartLine`](crate::Reason::NoStartLine) if it contains no
    /// certificate and no list, or with [`BadPem`](crate::Reason::BadPem) if a certificate or a list
    /// cannot be parsed, or if a list is not signed by the loaded authority whose key it names.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    /// context.load_verify_locations("cert.pem")?;          // context.load_verify_locations("cert.pem")
    /// # pki::connect(&context, &pki::server()?)?;
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext};
    ///
    /// let pem = std::fs::read("cert.pem")?;
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    /// context.load_verify_data(pem)?;                      // context.load_verify_locations(cadata=pem)
    /// # pki::connect(&context, &pki::server()?)?;
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # // SAFETY: this process has no other thread.
    /// # unsafe { std::env::set_var("SSL_CERT_FILE", "cert.pem") };
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    /// context.load_default_certs()?;                       // context.load_default_certs()
    /// # pki::connect(&context, &pki::server()?)?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn load_default_certs(&self) -> io::Result<()> {
        self.trust(Authority::System)
    }

    fn trust(&self, authority: Authority) -> io::Result<()> {
        let loading = self.inner.loading.lock();
        let mut trust = Trust::clone(&self.inner.settings.read().spec.trust);
        authority.load(&mut trust)?;
        trust.verify_lists()?;
        let skipped = trust.take_skipped();
        let replaced = self.replace(|settings| {
            remember(&mut settings.trusted, authority, &trust);
            settings.spec.trust = Arc::new(trust);
            settings.spec.sessions = None;
        });
        drop(loading);
        replaced.finish();
        log_skipped(&skipped);
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
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    /// context.load_cert_chain("cert.pem", "key.pem")?;
    /// # pki::write_certificate("cert.pem", "key.pem", "localhost")?;
    /// // Later, after both files were replaced:
    /// context.reload()?;
    /// # pki::connect(&pki::client()?, &context)?;
    /// assert_eq!(context.session_stats().reloads, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn reload(&self) -> io::Result<()> {
        let counters = &self.inner.counters;
        let mut notes = KeyNotes::default();
        let result = self.reload_all(&mut notes);
        notes.log();
        increment(if result.is_ok() { &counters.reloads } else { &counters.reloads_failed });
        result
    }

    fn reload_all(&self, notes: &mut KeyNotes) -> io::Result<()> {
        let loading = self.inner.loading.lock();
        let (chains, trusted) = {
            let settings = self.inner.settings.read();
            (settings.spec.chains.clone(), settings.trusted.clone())
        };
        let chains = chains.iter().map(|chain| chain.reload(notes)).collect::<io::Result<Vec<_>>>()?;
        let mut trust = Trust::default();
        for authority in &trusted {
            authority.load(&mut trust)?;
        }
        trust.verify_lists()?;
        let skipped = trust.take_skipped();
        let replaced = self.replace(|settings| {
            settings.spec.chains = chains;
            if !trusted.is_empty() {
                settings.spec.trust = Arc::new(trust);
                settings.spec.sessions = None;
            }
        });
        drop(loading);
        replaced.finish();
        log_skipped(&skipped);
        Ok(())
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
        let former = settings.server.replace(cached.clone());
        drop(settings);
        drop(former);
        Ok(cached)
    }

    pub(crate) fn client_config(&self) -> io::Result<CachedConfig<ClientConfig>> {
        if let Some(cached) = self.inner.settings.read().client.as_ref().filter(|cached| cached.is_valid())
        {
            return Ok(cached.clone());
        }
        let mut settings = self.inner.settings.write();
        let cached = CachedConfig::new(&settings.spec, config::client)?;
        let former = settings.client.replace(cached.clone());
        drop(settings);
        drop(former);
        Ok(cached)
    }

    /// Changes settings. Connections that are wrapped afterwards use the new ones.
    fn change<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        let mut changed = None;
        self.replace(|settings| changed = Some(change(settings))).finish();
        changed.expect("the closure was called")
    }

    /// Changes settings, as [`change`](Self::change) does. What follows needs no lock.
    fn replace(&self, change: impl FnOnce(&mut Settings)) -> Replaced {
        let mut settings = self.inner.settings.write();
        change(&mut settings);
        let former = (settings.server.take(), settings.client.take());
        // The ticket keys are created here and not on first use. First use may be in a forked
        // child, and then no child could decrypt the tickets of another one.
        let mut failed = None;
        if self.inner.protocol == PROTOCOL_TLS_SERVER && settings.spec.sessions.is_none() {
            match Sessions::new(&self.inner.counters) {
                Ok(sessions) => settings.spec.sessions = Some(sessions),
                Err(error) => failed = Some(error),
            }
        }
        Replaced { _former: former, failed }
    }

    fn change_policy(&self, change: impl FnOnce(&mut VerifyPolicy)) {
        self.change(|settings| {
            change(&mut settings.spec.policy);
            settings.spec.sessions = None;
        });
    }
}

/// What remains of a change of the settings.
#[must_use]
struct Replaced {
    /// May own values of the program, so it is dropped when no lock is held.
    _former: (Option<CachedConfig<ServerConfig>>, Option<CachedConfig<ClientConfig>>),
    failed: Option<io::Error>,
}

impl Replaced {
    fn finish(self) {
        if let Some(error) = self.failed {
            // Without keys no session is resumed, and the next change tries again.
            log::warn!(
                errno = sock::errno(&error).and_then(sock::errno_name);
                "cannot create the keys of session tickets: {error}"
            );
        }
    }
}

/// Logs which certificates of the system were skipped.
fn log_skipped(skipped: &[Invalid]) {
    for error in skipped {
        log::debug!("skipping a certificate of the system: {error}");
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
