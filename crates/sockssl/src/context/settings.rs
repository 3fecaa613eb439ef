//! The settings of a context, and its counters.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SSLContext;
use crate::alert::AlertDescription;
use crate::constants::{CERT_NONE, CERT_REQUIRED, Protocol, TLSVersion, VerifyFlags, VerifyMode};
use crate::error::{Reason, invalid};
use crate::keylog::KeyLogFile;
use crate::stats::SessionStats;

/// Settings and counters.
impl SSLContext {
    /// Returns the side that the context is for. Python: `protocol`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// assert_eq!(SSLContext::new(PROTOCOL_TLS_SERVER).protocol(), PROTOCOL_TLS_SERVER);
    /// ```
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.inner.protocol
    }

    /// Returns whether peers' certificates are required and verified. Python: `verify_mode`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{CERT_REQUIRED, PROTOCOL_TLS_CLIENT, SSLContext};
    ///
    /// assert_eq!(SSLContext::new(PROTOCOL_TLS_CLIENT).verify_mode(), CERT_REQUIRED);
    /// ```
    #[must_use]
    pub fn verify_mode(&self) -> VerifyMode {
        self.inner.settings.read().spec.policy.mode
    }

    /// Sets whether peers' certificates are required and verified. Python: `verify_mode = …`.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` for `CERT_NONE` while
    /// [`check_hostname`](Self::check_hostname) is on.
    ///
    /// # Examples
    ///
    /// A server that requires certificates of its clients:
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// use sockssl::{CERT_REQUIRED, PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    /// context.load_cert_chain("cert.pem", "key.pem")?;
    /// context.load_verify_locations("cert.pem")?;
    /// context.set_verify_mode(CERT_REQUIRED)?;             // context.verify_mode = ssl.CERT_REQUIRED
    /// assert_eq!(context.verify_mode(), CERT_REQUIRED);
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// assert!(SSLContext::new(PROTOCOL_TLS_CLIENT).check_hostname());
    /// assert!(!SSLContext::new(PROTOCOL_TLS_SERVER).check_hostname());
    /// ```
    #[must_use]
    pub fn check_hostname(&self) -> bool {
        self.inner.settings.read().spec.policy.check_hostname
    }

    /// Sets whether the server's certificate must be valid for the server name.
    ///
    /// Python: `check_hostname = …`. Switching it on changes `CERT_NONE` to `CERT_REQUIRED`.
    ///
    /// # Examples
    ///
    /// A client for tests, which verifies nothing:
    ///
    /// ```
    /// use sockssl::{CERT_NONE, PROTOCOL_TLS_CLIENT, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    /// assert!(context.check_hostname());
    /// context.set_check_hostname(false);                   // context.check_hostname = False
    /// context.set_verify_mode(CERT_NONE)?;                 // context.verify_mode = ssl.CERT_NONE
    /// # std::io::Result::Ok(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext};
    ///
    /// assert!(!SSLContext::new(PROTOCOL_TLS_CLIENT).hostname_checks_common_name());
    /// ```
    #[must_use]
    pub fn hostname_checks_common_name(&self) -> bool {
        self.inner.settings.read().spec.policy.common_name
    }

    /// Sets whether the common name of a certificate without a DNS name is checked.
    ///
    /// The default is false: only the subject alternative names are checked. The name constraints
    /// of the authorities apply to the common name too. Python: `hostname_checks_common_name`,
    /// whose default is true.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    /// assert!(!context.hostname_checks_common_name());
    /// // For old servers whose certificates have no subject alternative name.
    /// context.set_hostname_checks_common_name(true);
    /// assert!(context.hostname_checks_common_name());
    /// ```
    pub fn set_hostname_checks_common_name(&self, check: bool) {
        self.change_policy(|policy| policy.common_name = check);
    }

    /// Returns which certificates require a revocation list. Python: `verify_flags`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext, VERIFY_DEFAULT};
    ///
    /// assert_eq!(SSLContext::new(PROTOCOL_TLS_CLIENT).verify_flags(), VERIFY_DEFAULT);
    /// ```
    #[must_use]
    pub fn verify_flags(&self) -> VerifyFlags {
        self.inner.settings.read().spec.policy.flags
    }

    /// Sets which certificates require a revocation list. Python: `verify_flags = …`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext, VERIFY_CRL_CHECK_LEAF, VERIFY_DEFAULT};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    /// assert_eq!(context.verify_flags(), VERIFY_DEFAULT);
    /// context.set_verify_flags(VERIFY_CRL_CHECK_LEAF);     // context.verify_flags = ssl.VERIFY_CRL_CHECK_LEAF
    /// assert_eq!(context.verify_flags(), VERIFY_CRL_CHECK_LEAF);
    /// ```
    pub fn set_verify_flags(&self, flags: VerifyFlags) {
        self.change_policy(|policy| policy.flags = flags);
    }

    /// Returns the lowest supported version. Python: `minimum_version`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext, TLSVersion};
    ///
    /// assert_eq!(SSLContext::new(PROTOCOL_TLS_CLIENT).minimum_version(), TLSVersion::TLSv1_2);
    /// ```
    #[must_use]
    pub fn minimum_version(&self) -> TLSVersion {
        self.inner.settings.read().spec.minimum
    }

    /// Sets the lowest supported version. The default is TLS 1.2. Python: `minimum_version = …`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext, TLSVersion};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    /// assert_eq!(context.minimum_version(), TLSVersion::TLSv1_2);
    /// context.set_minimum_version(TLSVersion::TLSv1_3);    // context.minimum_version = ssl.TLSVersion.TLSv1_3
    /// assert_eq!(context.minimum_version(), TLSVersion::TLSv1_3);
    /// ```
    pub fn set_minimum_version(&self, version: TLSVersion) {
        self.change(|settings| settings.spec.minimum = version);
    }

    /// Returns the highest supported version. Python: `maximum_version`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext, TLSVersion};
    ///
    /// assert_eq!(SSLContext::new(PROTOCOL_TLS_CLIENT).maximum_version(), TLSVersion::TLSv1_3);
    /// ```
    #[must_use]
    pub fn maximum_version(&self) -> TLSVersion {
        self.inner.settings.read().spec.maximum
    }

    /// Sets the highest supported version. The default is TLS 1.3. Python: `maximum_version = …`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let context = pki::client()?;
    /// use sockssl::TLSVersion;
    ///
    /// assert_eq!(context.maximum_version(), TLSVersion::TLSv1_3);
    /// context.set_maximum_version(TLSVersion::TLSv1_2);    // context.maximum_version = ssl.TLSVersion.TLSv1_2
    /// # let (sock, _server) = pki::connect(&context, &pki::server()?)?;
    /// assert_eq!(sock.version(), Some("TLSv1.2"));
    /// # std::io::Result::Ok(())
    /// ```
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
    /// Returns an error of kind `InvalidInput` if a name is not 1 to 255 bytes long.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let server = pki::server()?;
    /// # let client = pki::client()?;
    /// server.set_alpn_protocols(["h2", "http/1.1"])?;      // context.set_alpn_protocols(["h2", "http/1.1"])
    /// client.set_alpn_protocols(["http/1.1"])?;
    /// # let (sock, _server) = pki::connect(&client, &server)?;
    /// // A connection between these contexts uses the protocol that both have.
    /// assert_eq!(sock.selected_alpn_protocol().as_deref(), Some("http/1.1"));
    /// # std::io::Result::Ok(())
    /// ```
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
    /// for servers. `Err` ends the handshake with that alert. The callback runs in the thread of the
    /// handshake, without a lock of the context, so it may call any method of it. Other calls on the
    /// same connection wait for it.
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
        let callback = Arc::new(callback);
        let former = self.change(|settings| settings.sni_callback.replace(callback));
        drop(former);
    }

    /// Returns the number of session tickets for each TLS 1.3 client. Python: `num_tickets`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// assert_eq!(SSLContext::new(PROTOCOL_TLS_SERVER).num_tickets(), 2);
    /// ```
    #[must_use]
    pub fn num_tickets(&self) -> usize {
        self.inner.settings.read().spec.num_tickets
    }

    /// Sets the number of session tickets for each TLS 1.3 client. Python: `num_tickets = …`.
    ///
    /// The default is 2. 0 disables resumption, also in TLS 1.2 and on clients.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    /// assert_eq!(context.num_tickets(), 2);
    /// context.set_num_tickets(0);                          // context.num_tickets = 0
    /// assert_eq!(context.num_tickets(), 0);
    /// ```
    pub fn set_num_tickets(&self, tickets: usize) {
        self.change(|settings| settings.spec.num_tickets = tickets);
    }

    /// Returns the path of the TLS key log file. Python: `keylog_filename`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext};
    ///
    /// assert_eq!(SSLContext::new(PROTOCOL_TLS_SERVER).keylog_filename(), None);
    /// ```
    #[must_use]
    pub fn keylog_filename(&self) -> Option<PathBuf> {
        self.inner.settings.read().keylog_filename.clone()
    }

    /// Sets the TLS key log file, to which the secrets of each connection are appended.
    ///
    /// Python: `keylog_filename = …`. Wireshark and other tools decrypt connections with this file.
    /// If it is a FIFO or a terminal, a line for which it has no room is lost, and no handshake
    /// waits. That is logged at `warn`. A regular file on a file system that does not respond blocks
    /// the handshakes.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file: the system's error if it cannot be opened, an error of
    /// kind `InvalidInput` if it is a symbolic link, or one of kind `PermissionDenied` if all users
    /// can write to it. A FIFO without a reader is such an error of the system. A file that other
    /// users can access is logged at `warn`. A new file has the mode 0600.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let context = pki::client()?;
    /// use std::path::Path;
    ///
    /// context.set_keylog_filename("keys.log")?;            // context.keylog_filename = "keys.log"
    /// assert_eq!(context.keylog_filename().as_deref(), Some(Path::new("keys.log")));
    /// # let (_client, _server) = pki::connect(&context, &pki::server()?)?;
    /// // After the first handshake:
    /// assert!(std::fs::read_to_string("keys.log")?.contains("CLIENT_TRAFFIC_SECRET_0"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_keylog_filename(&self, file: impl AsRef<Path>) -> io::Result<()> {
        let file = file.as_ref();
        let keylog = Arc::new(KeyLogFile::open(file)?);
        let former = self.change(|settings| {
            settings.keylog_filename = Some(file.to_owned());
            settings.spec.keylog.replace(keylog)
        });
        // This closes the file, which may block.
        drop(former);
        Ok(())
    }

    /// Returns the counters of handshakes, resumptions and reloads. Python: `session_stats()`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let context = pki::client()?;
    /// # let port = pki::echo()?;
    /// let sock = sock::create_connection(("127.0.0.1", port))?;
    /// let sock = context.wrap_socket_client(sock, "localhost")?;
    /// let stats = context.session_stats();
    /// assert_eq!((stats.connect, stats.connect_good), (1, 1));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn session_stats(&self) -> SessionStats {
        self.inner.counters.snapshot()
    }

    /// Returns the number of failed connections for each reason. Python: none.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let port = pki::echo()?;
    /// use sockssl::{PROTOCOL_TLS_CLIENT, Reason, SSLContext};
    ///
    /// # pki::write_certificate("other.pem", "other.key", "localhost")?;
    /// // The authority that this context trusts did not issue the server's certificate.
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    /// context.load_verify_locations("other.pem")?;
    /// let sock = sock::create_connection(("127.0.0.1", port))?;
    /// assert!(context.wrap_socket_client(sock, "localhost").is_err());
    /// assert_eq!(context.failures()[&Reason::CertificateVerifyFailed], 1);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn failures(&self) -> BTreeMap<Reason, u64> {
        self.inner.counters.failures()
    }
}
