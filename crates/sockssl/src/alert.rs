//! What a peer says that refuses, by number and name.

/// An alert's number, by its name in RFC 8446. Python: `ssl.AlertDescription`.
///
/// # Examples
///
/// ```
/// use sockssl::{ALERT_DESCRIPTION_UNKNOWN_CA, Reason};
///
/// let reason = Reason::Alert(ALERT_DESCRIPTION_UNKNOWN_CA);
/// assert_eq!(reason.name(), "TLSV1_ALERT_UNKNOWN_CA");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertDescription(u8);

/// The end of what the peer has to say.
pub const ALERT_DESCRIPTION_CLOSE_NOTIFY: AlertDescription = AlertDescription(0);
/// A message that does not belong there.
pub const ALERT_DESCRIPTION_UNEXPECTED_MESSAGE: AlertDescription = AlertDescription(10);
/// A record could not be decrypted.
pub const ALERT_DESCRIPTION_BAD_RECORD_MAC: AlertDescription = AlertDescription(20);
/// A record is too long.
pub const ALERT_DESCRIPTION_RECORD_OVERFLOW: AlertDescription = AlertDescription(22);
/// Of TLS before 1.3.
pub const ALERT_DESCRIPTION_DECOMPRESSION_FAILURE: AlertDescription = AlertDescription(30);
/// Nothing in common; or the peer will not say why.
pub const ALERT_DESCRIPTION_HANDSHAKE_FAILURE: AlertDescription = AlertDescription(40);
/// The certificate is not in order, or for another name.
pub const ALERT_DESCRIPTION_BAD_CERTIFICATE: AlertDescription = AlertDescription(42);
/// The certificate is of another kind, or for another purpose.
pub const ALERT_DESCRIPTION_UNSUPPORTED_CERTIFICATE: AlertDescription = AlertDescription(43);
/// The certificate was revoked.
pub const ALERT_DESCRIPTION_CERTIFICATE_REVOKED: AlertDescription = AlertDescription(44);
/// The certificate is not valid now.
pub const ALERT_DESCRIPTION_CERTIFICATE_EXPIRED: AlertDescription = AlertDescription(45);
/// The certificate was refused for another reason.
pub const ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN: AlertDescription = AlertDescription(46);
/// A field that contradicts others.
pub const ALERT_DESCRIPTION_ILLEGAL_PARAMETER: AlertDescription = AlertDescription(47);
/// No trusted authority signed the certificate.
pub const ALERT_DESCRIPTION_UNKNOWN_CA: AlertDescription = AlertDescription(48);
/// The peer could, but does not want to.
pub const ALERT_DESCRIPTION_ACCESS_DENIED: AlertDescription = AlertDescription(49);
/// A message could not be read.
pub const ALERT_DESCRIPTION_DECODE_ERROR: AlertDescription = AlertDescription(50);
/// A signature or a finished message is wrong.
pub const ALERT_DESCRIPTION_DECRYPT_ERROR: AlertDescription = AlertDescription(51);
/// No version in common.
pub const ALERT_DESCRIPTION_PROTOCOL_VERSION: AlertDescription = AlertDescription(70);
/// No cipher that is strong enough in common.
pub const ALERT_DESCRIPTION_INSUFFICIENT_SECURITY: AlertDescription = AlertDescription(71);
/// The peer has a fault of its own.
pub const ALERT_DESCRIPTION_INTERNAL_ERROR: AlertDescription = AlertDescription(80);
/// The handshake was given up.
pub const ALERT_DESCRIPTION_USER_CANCELLED: AlertDescription = AlertDescription(90);
/// Of TLS before 1.3.
pub const ALERT_DESCRIPTION_NO_RENEGOTIATION: AlertDescription = AlertDescription(100);
/// An extension nobody asked for.
pub const ALERT_DESCRIPTION_UNSUPPORTED_EXTENSION: AlertDescription = AlertDescription(110);
/// Of TLS before 1.3.
pub const ALERT_DESCRIPTION_CERTIFICATE_UNOBTAINABLE: AlertDescription = AlertDescription(111);
/// The server does not answer to this name.
pub const ALERT_DESCRIPTION_UNRECOGNIZED_NAME: AlertDescription = AlertDescription(112);
/// The answer about revocation is wrong.
pub const ALERT_DESCRIPTION_BAD_CERTIFICATE_STATUS_RESPONSE: AlertDescription = AlertDescription(113);
/// Of TLS before 1.3.
pub const ALERT_DESCRIPTION_BAD_CERTIFICATE_HASH_VALUE: AlertDescription = AlertDescription(114);
/// No such shared key.
pub const ALERT_DESCRIPTION_UNKNOWN_PSK_IDENTITY: AlertDescription = AlertDescription(115);

impl AlertDescription {
    /// The alert of this number.
    #[must_use]
    pub const fn from_raw(number: u8) -> AlertDescription {
        AlertDescription(number)
    }

    /// The alert's number on the wire.
    #[must_use]
    pub const fn as_raw(self) -> u8 {
        self.0
    }

    /// The alert's name, such as `unknown_ca`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("unknown", |(_, name, _)| name)
    }

    /// OpenSSL's word for having received it.
    pub(crate) fn word(self) -> &'static str {
        self.entry().map_or("TLSV1_ALERT_UNKNOWN", |(_, _, word)| word)
    }

    fn entry(self) -> Option<&'static (u8, &'static str, &'static str)> {
        ALERTS.iter().find(|(number, _, _)| *number == self.0)
    }
}

/// Numbers, names, and OpenSSL's words, which tell from when an alert is.
const ALERTS: [(u8, &str, &str); 31] = [
    (0, "close_notify", "SSLV3_ALERT_CLOSE_NOTIFY"),
    (10, "unexpected_message", "SSLV3_ALERT_UNEXPECTED_MESSAGE"),
    (20, "bad_record_mac", "SSLV3_ALERT_BAD_RECORD_MAC"),
    (22, "record_overflow", "TLSV1_ALERT_RECORD_OVERFLOW"),
    (30, "decompression_failure", "SSLV3_ALERT_DECOMPRESSION_FAILURE"),
    (40, "handshake_failure", "SSLV3_ALERT_HANDSHAKE_FAILURE"),
    (42, "bad_certificate", "SSLV3_ALERT_BAD_CERTIFICATE"),
    (43, "unsupported_certificate", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"),
    (44, "certificate_revoked", "SSLV3_ALERT_CERTIFICATE_REVOKED"),
    (45, "certificate_expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
    (46, "certificate_unknown", "SSLV3_ALERT_CERTIFICATE_UNKNOWN"),
    (47, "illegal_parameter", "SSLV3_ALERT_ILLEGAL_PARAMETER"),
    (48, "unknown_ca", "TLSV1_ALERT_UNKNOWN_CA"),
    (49, "access_denied", "TLSV1_ALERT_ACCESS_DENIED"),
    (50, "decode_error", "TLSV1_ALERT_DECODE_ERROR"),
    (51, "decrypt_error", "TLSV1_ALERT_DECRYPT_ERROR"),
    (70, "protocol_version", "TLSV1_ALERT_PROTOCOL_VERSION"),
    (71, "insufficient_security", "TLSV1_ALERT_INSUFFICIENT_SECURITY"),
    (80, "internal_error", "TLSV1_ALERT_INTERNAL_ERROR"),
    (86, "inappropriate_fallback", "TLSV1_ALERT_INAPPROPRIATE_FALLBACK"),
    (90, "user_canceled", "TLSV1_ALERT_USER_CANCELLED"),
    (100, "no_renegotiation", "TLSV1_ALERT_NO_RENEGOTIATION"),
    (109, "missing_extension", "TLSV13_ALERT_MISSING_EXTENSION"),
    (110, "unsupported_extension", "TLSV1_UNSUPPORTED_EXTENSION"),
    (111, "certificate_unobtainable", "TLSV1_CERTIFICATE_UNOBTAINABLE"),
    (112, "unrecognized_name", "TLSV1_UNRECOGNIZED_NAME"),
    (113, "bad_certificate_status_response", "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE"),
    (114, "bad_certificate_hash_value", "TLSV1_BAD_CERTIFICATE_HASH_VALUE"),
    (115, "unknown_psk_identity", "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY"),
    (116, "certificate_required", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    (120, "no_application_protocol", "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"),
];
