//! Sorting what the TLS library says into reasons.

use rustls::{Error as TlsError, PeerIncompatible};

use crate::alert::AlertDescription;
use crate::cert::verifier;
use crate::error::{Reason, SSLError};

/// What a goodbye says that comes too early.
pub(crate) const CLOSED_IN_HANDSHAKE: &str =
    "the peer closed the connection (close_notify) before the handshake was done";

/// Sorts what the TLS library says; the one place where it is read.
pub(crate) fn ssl_error(error: &TlsError) -> SSLError {
    let (reason, message) = match error {
        TlsError::InvalidCertificate(why) => (
            Reason::CertificateVerifyFailed,
            format!("certificate verify failed: {}", verifier::describe(why)),
        ),
        TlsError::NoCertificatesPresented => {
            (Reason::PeerDidNotReturnACertificate, "the peer did not return a certificate".into())
        }
        TlsError::AlertReceived(rustls::AlertDescription::CloseNotify) => {
            (Reason::ClosedInHandshake, CLOSED_IN_HANDSHAKE.into())
        }
        TlsError::AlertReceived(alert) => {
            let alert = AlertDescription::from_raw(u8::from(*alert));
            (Reason::Alert(alert), format!("the peer refused: alert {}", alert.name()))
        }
        TlsError::NoApplicationProtocol => {
            (Reason::NoApplicationProtocol, "no application protocol (ALPN) in common".into())
        }
        TlsError::PeerIncompatible(why) => incompatible(why),
        // A client whose ciphers are for another kind of key, in TLS 1.2.
        TlsError::General(what) if what == "no server certificate chain resolved" => {
            (Reason::NoSharedCipher, "no cipher in common for any certificate's kind of key".into())
        }
        TlsError::DecryptError => (Reason::DecryptionFailed, "a record could not be decrypted".into()),
        TlsError::InvalidMessage(why) => match format!("{why:?}").as_str() {
            "InvalidContentType" | "UnknownProtocolVersion" => {
                (Reason::WrongVersionNumber, "the peer does not speak TLS".into())
            }
            why => (Reason::ProtocolViolation, format!("a broken message: {why}")),
        },
        TlsError::InappropriateMessage { .. }
        | TlsError::InappropriateHandshakeMessage { .. }
        | TlsError::PeerMisbehaved(_)
        | TlsError::PeerSentOversizedRecord => (Reason::ProtocolViolation, error.to_string()),
        _ => (Reason::Internal, error.to_string()),
    };
    SSLError::new(reason, message)
}

fn incompatible(why: &PeerIncompatible) -> (Reason, String) {
    use PeerIncompatible as P;
    match why {
        P::Tls12NotOffered
        | P::Tls12NotOfferedOrEnabled
        | P::Tls13RequiredForQuic
        | P::SupportedVersionsExtensionRequired
        | P::ServerDoesNotSupportTls12Or13
        | P::ServerTlsVersionIsDisabledByOurConfig => {
            (Reason::UnsupportedProtocol, "no version of TLS in common".into())
        }
        P::NoCipherSuitesInCommon
        | P::NoKxGroupsInCommon
        | P::NoSignatureSchemesInCommon
        | P::NoCertificateRequestSignatureSchemesInCommon
        | P::NoEcPointFormatsInCommon => (Reason::NoSharedCipher, format!("no cipher in common ({why:?})")),
        why => (Reason::ProtocolViolation, format!("the peer is incompatible: {why:?}")),
    }
}
