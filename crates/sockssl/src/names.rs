//! Python's constants: protocols, purposes, versions, modes; and the names of ciphers.

// The spelling is Python's.
#![allow(non_camel_case_types)]

use rustls::{CipherSuite, ProtocolVersion};

/// Which side of a connection a context is for. Python: `ssl._SSLMethod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// For clients: verifies servers and their names.
    PROTOCOL_TLS_CLIENT,
    /// For servers: asks for no certificate.
    PROTOCOL_TLS_SERVER,
}

pub use Protocol::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER};

/// Whom the peer has to be. Python: `ssl.Purpose`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The peer is a server: a context for clients.
    SERVER_AUTH,
    /// The peer is a client: a context for servers.
    CLIENT_AUTH,
}

/// What is asked of the peer's certificate. Python: `ssl.VerifyMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VerifyMode {
    /// Nothing: a client then talks to anybody who claims to be the server.
    CERT_NONE,
    /// A client may come without one; one that is shown must be good. For a
    /// server's certificate the same as `CERT_REQUIRED`.
    CERT_OPTIONAL,
    /// It must be shown and be good.
    CERT_REQUIRED,
}

pub use VerifyMode::{CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED};

/// How revocation lists are asked. Python: `ssl.VerifyFlags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerifyFlags {
    /// What the loaded lists revoke is refused; what they say nothing of passes.
    VERIFY_DEFAULT,
    /// The peer's certificate needs a list of its issuer that covers it and is not outdated.
    VERIFY_CRL_CHECK_LEAF,
    /// Each certificate below the trusted one needs such a list.
    VERIFY_CRL_CHECK_CHAIN,
}

pub use VerifyFlags::{VERIFY_CRL_CHECK_CHAIN, VERIFY_CRL_CHECK_LEAF, VERIFY_DEFAULT};

/// A version of the protocol. Python: `ssl.TLSVersion`; older ones are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TLSVersion {
    /// TLS 1.2, RFC 5246.
    TLSv1_2,
    /// TLS 1.3, RFC 8446.
    TLSv1_3,
}

/// The version as Python's `SSLSocket.version()` spells it.
pub(crate) fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    }
}

/// OpenSSL's name of a cipher suite, its protocol and its secret bits.
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
    fn every_cipher_that_is_spoken_has_openssls_name() {
        for suite in &crate::provider::provider().cipher_suites {
            assert_ne!(cipher_name(suite.suite()).0, "unknown", "{suite:?}");
        }
    }
}
