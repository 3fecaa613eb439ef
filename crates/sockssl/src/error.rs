//! `SSLError`: what went wrong, for whom, in words, inside an [`io::Error`].

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use crate::alert::AlertDescription;

/// A failure of TLS: its reason, and a sentence that names the file or the peer.
///
/// Python: `ssl.SSLError` and its subclasses. It travels inside an
/// [`io::Error`]; get it back with [`SSLError::of`]. What the system says (a
/// reset, a file that is missing) stays the system's, and the end of a timeout
/// is kind [`TimedOut`](io::ErrorKind::TimedOut).
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
/// assert_eq!(ssl.to_string(), "Cargo.toml: no certificate in it (is it a PEM file?)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SSLError {
    reason: Reason,
    message: String,
}

/// Why TLS failed. Python: `SSLError.reason`, whose word [`name`](Reason::name) gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A file holds nothing of what it was loaded for.
    NoStartLine,
    /// A file's PEM, or what is in it, cannot be read.
    BadPem,
    /// The private key belongs to another certificate.
    KeyValuesMismatch,
    /// The private key is encrypted and no password was given.
    PasswordRequired,
    /// The password does not open the private key.
    BadDecrypt,
    /// A kind of private key that is not supported.
    UnsupportedKey,
    /// A server without a certificate.
    NoCertificateAssigned,
    /// The context's settings contradict each other.
    BadConfiguration,
    /// The peer's certificate was not accepted.
    CertificateVerifyFailed,
    /// The peer has to show a certificate and did not.
    PeerDidNotReturnACertificate,
    /// No version of the protocol is spoken by both.
    UnsupportedProtocol,
    /// No cipher, group or signature is known to both.
    NoSharedCipher,
    /// No ALPN protocol is known to both.
    NoApplicationProtocol,
    /// The context's callback refused the server's name.
    UnrecognizedName,
    /// The peer speaks plain HTTP.
    HttpRequest,
    /// The peer does not speak TLS at all.
    WrongVersionNumber,
    /// The peer refused, with this alert.
    Alert(AlertDescription),
    /// The connection ended, or was closed in form, before the handshake did.
    ClosedInHandshake,
    /// The connection was cut: it ended without a close_notify.
    UnexpectedEof,
    /// The peer broke the rules of the protocol.
    ProtocolViolation,
    /// A record could not be decrypted: it was changed on its way.
    DecryptionFailed,
    /// Data came where only the end of TLS was expected.
    ApplicationDataAfterCloseNotify,
    /// Nothing of the above.
    Internal,
}

impl Reason {
    /// The reason's word as OpenSSL, and so Python, has it; `PASSWORD_REQUIRED`,
    /// `UNSUPPORTED_KEY`, `BAD_CONFIGURATION` and `CLOSED_IN_HANDSHAKE` are ours.
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
            Reason::Alert(alert) => alert.word(),
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
            // The peer has left, after saying why: as when it resets.
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
    /// The `SSLError` behind an error, through whatever was wrapped around it.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&SSLError> {
        let mut inner: Option<&(dyn Error + 'static)> = error.get_ref().map(|inner| inner as _);
        while let Some(cause) = inner {
            if let Some(ssl) = cause.downcast_ref() {
                return Some(ssl);
            }
            if let Some(ssl) = cause.downcast_ref::<io::Error>().and_then(SSLError::of) {
                return Some(ssl);
            }
            inner = cause.source();
        }
        None
    }

    /// Why it failed.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> SSLError {
        SSLError { reason, message: message.into() }
    }
}

impl fmt::Display for SSLError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// As `Display`, so that a `main` that returns the error prints it readably.
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

/// A fault of the settings.
pub(crate) fn misconfigured(message: impl Into<String>) -> io::Error {
    SSLError::new(Reason::BadConfiguration, message).into()
}

/// An argument that cannot be meant.
pub(crate) fn invalid(sentence: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, sentence.into())
}

/// A fault of a file, which is named.
pub(crate) fn in_file(file: &Path, reason: Reason, message: impl fmt::Display) -> io::Error {
    SSLError::new(reason, format!("{}: {message}", file.display())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ssl_error_is_found_below_what_was_wrapped_around_it() {
        let error = io::Error::from(SSLError::new(Reason::HttpRequest, "plain HTTP"));
        let kind = error.kind();
        let wrapped = sock::AddressError::wrap("TLS handshake with", "somebody", error);
        assert_eq!(SSLError::of(&wrapped).map(SSLError::reason), Some(Reason::HttpRequest));
        assert_eq!(wrapped.kind(), kind);
    }
}
