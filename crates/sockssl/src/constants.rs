//! Python's constants: protocols, purposes, versions and modes, and the names of ciphers.

// The spelling is Python's.
#![allow(non_camel_case_types)]

use rustls::{CipherSuite, ProtocolVersion};

/// The side of a connection that a context is for. Python: `ssl._SSLMethod`.
///
/// This enum is exhaustive: a connection has two sides.
///
/// # Examples
///
/// ```
/// use sockssl::{Protocol, SSLContext};
///
/// let context = SSLContext::new(Protocol::PROTOCOL_TLS_CLIENT);  // ssl.PROTOCOL_TLS_CLIENT
/// assert_eq!(context.protocol(), Protocol::PROTOCOL_TLS_CLIENT);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A context for clients. By default it verifies servers and their names.
    PROTOCOL_TLS_CLIENT,
    /// A context for servers. By default it requests no certificate from clients.
    PROTOCOL_TLS_SERVER,
}

pub use Protocol::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER};

/// The role of the peer. Python: `ssl.Purpose`.
///
/// This enum is exhaustive: a peer is a server or a client.
///
/// # Examples
///
/// ```
/// use sockssl::{PROTOCOL_TLS_SERVER, Purpose, create_default_context};
///
/// let context = create_default_context(Purpose::CLIENT_AUTH)?;  // ssl.Purpose.CLIENT_AUTH
/// assert_eq!(context.protocol(), PROTOCOL_TLS_SERVER);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The peer is a server. The context is one for clients.
    SERVER_AUTH,
    /// The peer is a client. The context is one for servers.
    CLIENT_AUTH,
}

/// Whether the peer's certificate is required and verified. Python: `ssl.VerifyMode`.
///
/// This enum is exhaustive, as Python's is: the three modes are those of OpenSSL's
/// `SSL_VERIFY_NONE`, `SSL_VERIFY_PEER` and `SSL_VERIFY_FAIL_IF_NO_PEER_CERT`.
///
/// # Examples
///
/// ```
/// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext, VerifyMode};
///
/// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
/// assert_eq!(context.verify_mode(), VerifyMode::CERT_NONE);
/// context.set_verify_mode(VerifyMode::CERT_OPTIONAL)?;  // ssl.CERT_OPTIONAL
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VerifyMode {
    /// The certificate is not verified. A client cannot detect an impersonated server.
    CERT_NONE,
    /// A client may send no certificate. One that it sends is verified. For a server's
    /// certificate this is the same as `CERT_REQUIRED`.
    CERT_OPTIONAL,
    /// A certificate is required and verified.
    CERT_REQUIRED,
}

pub use VerifyMode::{CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED};

/// Which certificates require a revocation list. Python: `ssl.VerifyFlags`.
///
/// # Examples
///
/// ```
/// use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext, VerifyFlags};
///
/// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
/// context.set_verify_flags(VerifyFlags::VERIFY_CRL_CHECK_CHAIN);  // ssl.VERIFY_CRL_CHECK_CHAIN
/// assert_ne!(context.verify_flags(), VerifyFlags::VERIFY_DEFAULT);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerifyFlags {
    /// A certificate that a loaded list revokes is rejected. No list is required.
    VERIFY_DEFAULT,
    /// The peer's certificate requires a list of its issuer that covers it and has not expired.
    VERIFY_CRL_CHECK_LEAF,
    /// Each certificate below the trusted one requires such a list.
    VERIFY_CRL_CHECK_CHAIN,
}

pub use VerifyFlags::{VERIFY_CRL_CHECK_CHAIN, VERIFY_CRL_CHECK_LEAF, VERIFY_DEFAULT};

/// A protocol version. Python: `ssl.TLSVersion`. Older versions are not supported.
///
/// # Examples
///
/// ```
/// use sockssl::{PROTOCOL_TLS_SERVER, SSLContext, TLSVersion};
///
/// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
/// assert_eq!(context.maximum_version(), TLSVersion::TLSv1_3);  // ssl.TLSVersion.TLSv1_3
/// assert!(TLSVersion::TLSv1_2 < TLSVersion::TLSv1_3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TLSVersion {
    /// TLS 1.2, RFC 5246.
    TLSv1_2,
    /// TLS 1.3, RFC 8446.
    TLSv1_3,
}

/// Returns the version as Python's `SSLSocket.version()` spells it.
pub(crate) fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    }
}

/// Returns OpenSSL's name of a cipher suite, its protocol and its number of secret bits.
pub(crate) fn cipher_name(suite: CipherSuite) -> (&'static str, &'static str, u32) {
    use CipherSuite as S;
    match suite {
        S::TLS13_AES_256_GCM_SHA384 => ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256),
        S::TLS13_AES_128_GCM_SHA256 => ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128),
        S::TLS13_CHACHA20_POLY1305_SHA256 => ("TLS_CHACHA20_POLY1305_SHA256", "TLSv1.3", 256),
        S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", 256),
        S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", 128),
        S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2", 256)
        }
        S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => ("ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.2", 256),
        S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => ("ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2", 128),
        S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => ("ECDHE-RSA-CHACHA20-POLY1305", "TLSv1.2", 256),
        _ => ("unknown", "unknown", 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_cipher_has_openssls_name() {
        for suite in &crate::provider::provider().cipher_suites {
            assert_ne!(cipher_name(suite.suite()).0, "unknown", "{suite:?}");
        }
    }
}
