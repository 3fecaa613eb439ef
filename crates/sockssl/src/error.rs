//! `SSLError`: the reason and the text of a TLS error, inside an [`io::Error`].

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use rustls::{CertificateError, Error as TlsError, PeerIncompatible};

use crate::alert::AlertDescription;
use crate::cert_time::cert_time_of;

/// A TLS error: its reason, and a sentence that names the file or the peer.
///
/// Python: `ssl.SSLError` and its subclasses. It is returned inside an [`io::Error`];
/// [`SSLError::of`] finds it there. An error of the operating system, such as a reset
/// or a missing file, is not an `SSLError` and keeps its kind and errno. An expired timeout has
/// the kind [`TimedOut`](io::ErrorKind::TimedOut).
///
/// # Examples
///
/// ```
/// use sockssl::{PROTOCOL_TLS_SERVER, Reason, SSLContext, SSLError};
///
/// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
/// let error = context.load_cert_chain("Cargo.toml", "Cargo.toml").unwrap_err();
/// let ssl = SSLError::of(&error).unwrap();
/// assert_eq!(ssl.reason(), Reason::NoStartLine);
/// assert_eq!(ssl.to_string(), "Cargo.toml: no certificate found (is it a PEM file?)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SSLError {
    reason: Reason,
    message: String,
}

/// The reason of a TLS error. Python: `SSLError.reason`, whose word is [`name`](Reason::name).
///
/// # Examples
///
/// ```
/// use sockssl::{PROTOCOL_TLS_SERVER, Reason, SSLContext, SSLError};
///
/// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
/// let error = context.load_cert_chain("Cargo.toml", "Cargo.toml").unwrap_err();
/// match SSLError::of(&error).map(SSLError::reason) {
///     Some(Reason::PasswordRequired) => println!("the key is encrypted"),
///     reason => assert_eq!(reason, Some(Reason::NoStartLine)),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A file contains no item of the required kind.
    NoStartLine,
    /// A PEM file, or an item in it, cannot be parsed or used.
    BadPem,
    /// The private key belongs to another certificate.
    KeyValuesMismatch,
    /// The private key is encrypted and no password was given.
    PasswordRequired,
    /// The password does not decrypt the private key.
    BadDecrypt,
    /// The private key, or its encryption, is of an unsupported kind.
    UnsupportedKey,
    /// The server context has no certificate.
    NoCertificateAssigned,
    /// The context's settings contradict each other.
    BadConfiguration,
    /// The peer's certificate was rejected.
    CertificateVerifyFailed,
    /// A certificate is required of the peer, and it sent none.
    PeerDidNotReturnACertificate,
    /// The two sides have no protocol version in common.
    UnsupportedProtocol,
    /// The two sides have no cipher, group or signature scheme in common.
    NoSharedCipher,
    /// The two sides have no ALPN protocol in common.
    NoApplicationProtocol,
    /// The SNI callback refused the server name, or no certificate is loaded for it.
    UnrecognizedName,
    /// The peer sent a plain HTTP request.
    HttpRequest,
    /// The peer does not speak TLS.
    WrongVersionNumber,
    /// The peer sent this fatal alert.
    Alert(AlertDescription),
    /// The connection was closed, with or without a close_notify, during the handshake.
    ClosedInHandshake,
    /// The connection was closed without a close_notify.
    UnexpectedEof,
    /// The peer violated the protocol.
    ProtocolViolation,
    /// A record could not be decrypted, because it was modified in transit.
    DecryptionFailed,
    /// Data arrived where a close_notify was expected.
    ApplicationDataAfterCloseNotify,
    /// Any other error of the TLS library.
    Internal,
}

impl Reason {
    /// Returns OpenSSL's word for the reason, which is also Python's.
    ///
    /// `PASSWORD_REQUIRED`, `UNSUPPORTED_KEY`, `BAD_CONFIGURATION` and
    /// `CLOSED_IN_HANDSHAKE` exist only in this crate.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::Reason;
    ///
    /// assert_eq!(Reason::CertificateVerifyFailed.name(), "CERTIFICATE_VERIFY_FAILED");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::NoStartLine => "NO_START_LINE",
            Reason::BadPem => "PEM_LIB",
            Reason::KeyValuesMismatch => "KEY_VALUES_MISMATCH",
            Reason::PasswordRequired => "PASSWORD_REQUIRED",
            Reason::BadDecrypt => "BAD_DECRYPT",
            Reason::UnsupportedKey => "UNSUPPORTED_KEY",
            Reason::NoCertificateAssigned => "NO_CERTIFICATE_ASSIGNED",
            Reason::BadConfiguration => "BAD_CONFIGURATION",
            Reason::CertificateVerifyFailed => "CERTIFICATE_VERIFY_FAILED",
            Reason::PeerDidNotReturnACertificate => "PEER_DID_NOT_RETURN_A_CERTIFICATE",
            Reason::UnsupportedProtocol => "UNSUPPORTED_PROTOCOL",
            Reason::NoSharedCipher => "NO_SHARED_CIPHER",
            Reason::NoApplicationProtocol => "NO_APPLICATION_PROTOCOL",
            Reason::UnrecognizedName => "UNRECOGNIZED_NAME",
            Reason::HttpRequest => "HTTP_REQUEST",
            Reason::WrongVersionNumber => "WRONG_VERSION_NUMBER",
            Reason::Alert(alert) => alert.openssl_name(),
            Reason::ClosedInHandshake => "CLOSED_IN_HANDSHAKE",
            Reason::UnexpectedEof => "UNEXPECTED_EOF_WHILE_READING",
            Reason::ProtocolViolation => "PROTOCOL_VIOLATION",
            Reason::DecryptionFailed => "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
            Reason::ApplicationDataAfterCloseNotify => "APPLICATION_DATA_AFTER_CLOSE_NOTIFY",
            Reason::Internal => "INTERNAL_ERROR",
        }
    }

    fn kind(self) -> io::ErrorKind {
        match self {
            Reason::ClosedInHandshake | Reason::UnexpectedEof => io::ErrorKind::UnexpectedEof,
            // The peer closed the connection after the alert, which is like a reset.
            Reason::Alert(_) => io::ErrorKind::ConnectionAborted,
            Reason::PasswordRequired
            | Reason::BadDecrypt
            | Reason::KeyValuesMismatch
            | Reason::UnsupportedKey
            | Reason::NoCertificateAssigned
            | Reason::BadConfiguration => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::InvalidData,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Alert(alert) => write!(f, "ALERT {}", alert.name()),
            reason => f.write_str(reason.name()),
        }
    }
}

impl SSLError {
    /// Finds the `SSLError` inside an error, however often it was wrapped.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (sock, peer) = pki::sockets()?;
    /// # let serving = std::thread::spawn(move || pki::server()?.wrap_socket_server(peer));
    /// use sockssl::{PROTOCOL_TLS_CLIENT, Reason, SSLContext, SSLError};
    ///
    /// # pki::write_certificate("other.pem", "other.key", "localhost")?;
    /// // The authority that this context trusts did not issue the server's certificate.
    /// let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    /// context.load_verify_locations("other.pem")?;
    /// let error = context.wrap_socket_client(sock, "localhost").unwrap_err();
    /// let reason = SSLError::of(&error).map(SSLError::reason);
    /// assert_eq!(reason, Some(Reason::CertificateVerifyFailed));
    /// assert!(SSLError::of(&std::io::Error::other("not of TLS")).is_none());
    /// # assert!(serving.join().unwrap().is_err());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&SSLError> {
        sock::find_error(error)
    }

    /// Returns the reason of the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{PROTOCOL_TLS_SERVER, Reason, SSLContext, SSLError};
    ///
    /// let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    /// let error = context.load_cert_chain("Cargo.toml", "Cargo.toml").unwrap_err();
    /// let reason = SSLError::of(&error).unwrap().reason();         // error.reason
    /// assert_eq!(reason.name(), "NO_START_LINE");
    /// ```
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> SSLError {
        SSLError { reason, message: message.into() }
    }

    /// Makes the error for a fatal alert of the peer.
    pub(crate) fn from_alert(alert: AlertDescription) -> SSLError {
        SSLError::new(Reason::Alert(alert), format!("the peer sent the fatal alert {}", alert.name()))
    }

    /// Makes the error for a close_notify that arrives during the handshake.
    pub(crate) fn closed_in_handshake() -> SSLError {
        let message = "the peer closed the connection (close_notify) during the handshake";
        SSLError::new(Reason::ClosedInHandshake, message)
    }
}

impl fmt::Display for SSLError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Prints the message and the reason, so that a `main` that returns the error prints a sentence.
impl fmt::Debug for SSLError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.reason)
    }
}

impl Error for SSLError {}

impl From<SSLError> for io::Error {
    fn from(error: SSLError) -> io::Error {
        io::Error::new(error.reason.kind(), error)
    }
}

/// Classifies an error of the TLS library. No other code inspects these errors.
impl From<&TlsError> for SSLError {
    fn from(error: &TlsError) -> SSLError {
        let (reason, message) = match error {
            TlsError::InvalidCertificate(why) => (
                Reason::CertificateVerifyFailed,
                format!("certificate verify failed: {}", describe_certificate_error(why)),
            ),
            TlsError::NoCertificatesPresented => {
                (Reason::PeerDidNotReturnACertificate, "the peer did not return a certificate".into())
            }
            TlsError::AlertReceived(rustls::AlertDescription::CloseNotify) => {
                return SSLError::closed_in_handshake();
            }
            TlsError::AlertReceived(alert) => {
                return SSLError::from_alert(AlertDescription::from_raw(u8::from(*alert)));
            }
            TlsError::NoApplicationProtocol => {
                (Reason::NoApplicationProtocol, "no application protocol (ALPN) in common".into())
            }
            TlsError::PeerIncompatible(why) => describe_incompatibility(why),
            // In TLS 1.2, the client's cipher suites are for another kind of key.
            TlsError::General(what) if what == "no server certificate chain resolved" => (
                Reason::NoSharedCipher,
                "no cipher suite in common for the keys of the loaded certificates".into(),
            ),
            TlsError::DecryptError => (Reason::DecryptionFailed, "cannot decrypt a record".into()),
            TlsError::InvalidMessage(why) => match format!("{why:?}").as_str() {
                "InvalidContentType" | "UnknownProtocolVersion" => {
                    (Reason::WrongVersionNumber, "the peer does not speak TLS".into())
                }
                "CertificatePayloadTooLarge" | "HandshakePayloadTooLarge" => (
                    Reason::ProtocolViolation,
                    "a handshake message of the peer, such as its certificate chain, is longer than 64 KiB"
                        .into(),
                ),
                why => (Reason::ProtocolViolation, format!("invalid message: {why}")),
            },
            TlsError::InappropriateMessage { .. }
            | TlsError::InappropriateHandshakeMessage { .. }
            | TlsError::PeerMisbehaved(_)
            | TlsError::PeerSentOversizedRecord => (Reason::ProtocolViolation, error.to_string()),
            _ => (Reason::Internal, error.to_string()),
        };
        SSLError::new(reason, message)
    }
}

fn describe_incompatibility(why: &PeerIncompatible) -> (Reason, String) {
    use PeerIncompatible as P;
    match why {
        P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled
        | P::Tls13RequiredForQuic
        | P::SupportedVersionsExtensionRequired
        | P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig => {
            (Reason::UnsupportedProtocol, "no TLS version in common".into())
        }
        P::NoCipherSuitesInCommon
        | P::NoKxGroupsInCommon
        | P::NoSignatureSchemesInCommon
        | P::NoCertificateRequestSignatureSchemesInCommon
        | P::NoEcPointFormatsInCommon => {
            (Reason::NoSharedCipher, format!("no cipher suite in common ({why:?})"))
        }
        why => (Reason::ProtocolViolation, format!("the peer is incompatible: {why:?}")),
    }
}

pub(crate) const INVALID_AUTHORITY: &str = "invalid CA certificate: it may not sign certificates";
pub(crate) const PATH_TOO_LONG: &str = "path length constraint exceeded";
pub(crate) const NOT_PERMITTED: &str =
    "permitted subtree violation: the authority may not issue certificates for the name";
const VERSION_1: &str = "the certificate has version 1; TLS requires version 3, which has extensions";

thread_local! {
    /// The certificate that this thread rejected last, in words. The library's error cannot
    /// carry this text and keep its alert. It is read in the same thread, right after.
    static REJECTED_CERTIFICATE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Records which certificate the error that is about to be returned concerns.
pub(crate) fn set_rejected_certificate(description: String) {
    REJECTED_CERTIFICATE.set(Some(description));
}

/// Describes what is wrong with a certificate, and which one, in OpenSSL's words where it has some.
pub(crate) fn describe_certificate_error(error: &CertificateError) -> String {
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
        E::BadEncoding => "the certificate cannot be parsed".into(),
        E::UnhandledCriticalExtension => "unhandled critical extension".into(),
        E::UnsupportedSignatureAlgorithmContext { .. }
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the signature algorithm is too weak or not supported".into()
        }
        E::Other(why) => describe_webpki_error(&why.to_string()).to_owned(),
        other => other.to_string(),
    };
    match REJECTED_CERTIFICATE.take() {
        Some(certificate) => format!("{what} ({certificate})"),
        None => what,
    }
}

/// Describes an error that the library passes on by its name only.
fn describe_webpki_error(name: &str) -> &str {
    match name {
        "UnsupportedCertVersion" => VERSION_1,
        "CaUsedAsEndEntity" => "the peer sent an authority's certificate as its own",
        "UnsupportedCriticalExtension" => "unhandled critical extension",
        "EndEntityUsedAsCa" => INVALID_AUTHORITY,
        "NameConstraintViolation" => NOT_PERMITTED,
        "PathLenConstraintViolated" => PATH_TOO_LONG,
        "MaximumPathDepthExceeded" => "certificate chain too long: more than six intermediates",
        "MaximumPathBuildCallsExceeded"
        | "MaximumSignatureChecksExceeded"
        | "MaximumNameConstraintComparisonsExceeded" => "certificate chain too complex",
        name => name,
    }
}

/// The length of the longest certificate that the TLS library can parse.
const MAX_CERTIFICATE_LEN: usize = 0xffff;

/// Returns why a certificate cannot be used by the TLS library, if it is too long.
pub(crate) fn certificate_too_long(der: &[u8]) -> Option<String> {
    let length = der.len();
    let message = || format!("a certificate has {length} bytes, and the limit is {MAX_CERTIFICATE_LEN}");
    (length > MAX_CERTIFICATE_LEN).then(message)
}

/// Makes an error for invalid settings of a context.
pub(crate) fn misconfigured(message: impl Into<String>) -> io::Error {
    SSLError::new(Reason::BadConfiguration, message).into()
}

/// Makes an error for an invalid argument.
pub(crate) fn invalid(sentence: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, sentence.into())
}

/// Makes an error that names a file.
pub(crate) fn in_file(file: &Path, reason: Reason, message: impl fmt::Display) -> io::Error {
    SSLError::new(reason, format!("{}: {message}", file.display())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ssl_error_is_found_inside_wrapping_errors() {
        let error = io::Error::from(SSLError::new(Reason::HttpRequest, "plain HTTP"));
        let kind = error.kind();
        let wrapped = io::Error::from(sock::AddressError::new("TLS handshake with", "a peer", error));
        assert_eq!(SSLError::of(&wrapped).map(SSLError::reason), Some(Reason::HttpRequest));
        assert_eq!(wrapped.kind(), kind);
    }
}
