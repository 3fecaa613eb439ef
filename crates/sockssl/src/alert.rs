//! TLS alerts, by number and name.

/// The number of a TLS alert (RFC 8446, section 6). Python: `ssl.AlertDescription`.
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

/// The peer will send no more data.
pub const ALERT_DESCRIPTION_CLOSE_NOTIFY: AlertDescription = AlertDescription(0);
/// A message arrived that is not allowed at this point.
pub const ALERT_DESCRIPTION_UNEXPECTED_MESSAGE: AlertDescription = AlertDescription(10);
/// A record could not be decrypted.
pub const ALERT_DESCRIPTION_BAD_RECORD_MAC: AlertDescription = AlertDescription(20);
/// A record is too long.
pub const ALERT_DESCRIPTION_RECORD_OVERFLOW: AlertDescription = AlertDescription(22);
/// Compressed data is invalid; used before TLS 1.3 only.
pub const ALERT_DESCRIPTION_DECOMPRESSION_FAILURE: AlertDescription = AlertDescription(30);
/// The two sides have no parameters in common, or the peer gives no reason.
pub const ALERT_DESCRIPTION_HANDSHAKE_FAILURE: AlertDescription = AlertDescription(40);
/// The certificate is invalid, or is for another name.
pub const ALERT_DESCRIPTION_BAD_CERTIFICATE: AlertDescription = AlertDescription(42);
/// The certificate is of an unsupported kind, or for another purpose.
pub const ALERT_DESCRIPTION_UNSUPPORTED_CERTIFICATE: AlertDescription = AlertDescription(43);
/// The certificate was revoked.
pub const ALERT_DESCRIPTION_CERTIFICATE_REVOKED: AlertDescription = AlertDescription(44);
/// The certificate has expired or is not valid yet.
pub const ALERT_DESCRIPTION_CERTIFICATE_EXPIRED: AlertDescription = AlertDescription(45);
/// The certificate was rejected for another reason.
pub const ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN: AlertDescription = AlertDescription(46);
/// A field is out of range or contradicts another one.
pub const ALERT_DESCRIPTION_ILLEGAL_PARAMETER: AlertDescription = AlertDescription(47);
/// No trusted authority signed the certificate.
pub const ALERT_DESCRIPTION_UNKNOWN_CA: AlertDescription = AlertDescription(48);
/// The certificate is valid, but the peer denies access.
pub const ALERT_DESCRIPTION_ACCESS_DENIED: AlertDescription = AlertDescription(49);
/// A message could not be parsed.
pub const ALERT_DESCRIPTION_DECODE_ERROR: AlertDescription = AlertDescription(50);
/// A signature or a Finished message is invalid.
pub const ALERT_DESCRIPTION_DECRYPT_ERROR: AlertDescription = AlertDescription(51);
/// The two sides have no protocol version in common.
pub const ALERT_DESCRIPTION_PROTOCOL_VERSION: AlertDescription = AlertDescription(70);
/// The two sides have no cipher in common that is strong enough.
pub const ALERT_DESCRIPTION_INSUFFICIENT_SECURITY: AlertDescription = AlertDescription(71);
/// The peer failed for a reason that does not concern the protocol.
pub const ALERT_DESCRIPTION_INTERNAL_ERROR: AlertDescription = AlertDescription(80);
/// The peer canceled the handshake.
pub const ALERT_DESCRIPTION_USER_CANCELLED: AlertDescription = AlertDescription(90);
/// The peer refuses to renegotiate; used before TLS 1.3 only.
pub const ALERT_DESCRIPTION_NO_RENEGOTIATION: AlertDescription = AlertDescription(100);
/// A message has an extension that was not offered.
pub const ALERT_DESCRIPTION_UNSUPPORTED_EXTENSION: AlertDescription = AlertDescription(110);
/// A certificate could not be fetched; used before TLS 1.3 only.
pub const ALERT_DESCRIPTION_CERTIFICATE_UNOBTAINABLE: AlertDescription = AlertDescription(111);
/// The server does not serve this name.
pub const ALERT_DESCRIPTION_UNRECOGNIZED_NAME: AlertDescription = AlertDescription(112);
/// The OCSP response is invalid.
pub const ALERT_DESCRIPTION_BAD_CERTIFICATE_STATUS_RESPONSE: AlertDescription = AlertDescription(113);
/// The hash of a certificate does not match; used before TLS 1.3 only.
pub const ALERT_DESCRIPTION_BAD_CERTIFICATE_HASH_VALUE: AlertDescription = AlertDescription(114);
/// The identity of a pre-shared key is unknown.
pub const ALERT_DESCRIPTION_UNKNOWN_PSK_IDENTITY: AlertDescription = AlertDescription(115);

impl AlertDescription {
    /// Makes the alert with this number.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::{ALERT_DESCRIPTION_UNKNOWN_CA, AlertDescription};
    ///
    /// assert_eq!(AlertDescription::from_raw(48), ALERT_DESCRIPTION_UNKNOWN_CA);
    /// assert_eq!(ALERT_DESCRIPTION_UNKNOWN_CA.as_raw(), 48);
    /// ```
    #[must_use]
    pub const fn from_raw(number: u8) -> AlertDescription {
        AlertDescription(number)
    }

    /// Returns the alert's number.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(sockssl::ALERT_DESCRIPTION_UNKNOWN_CA.as_raw(), 48);
    /// ```
    #[must_use]
    pub const fn as_raw(self) -> u8 {
        self.0
    }

    /// Returns the alert's name in RFC 8446, such as `unknown_ca`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockssl::ALERT_DESCRIPTION_UNKNOWN_CA;
    ///
    /// assert_eq!(ALERT_DESCRIPTION_UNKNOWN_CA.name(), "unknown_ca");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("unknown", |(_, name, _)| name)
    }

    /// Returns OpenSSL's name of the error for a received alert.
    pub(crate) fn openssl_name(self) -> &'static str {
        self.entry().map_or("TLSV1_ALERT_UNKNOWN", |(_, _, word)| word)
    }

    fn entry(self) -> Option<&'static (u8, &'static str, &'static str)> {
        ALERTS.iter().find(|(number, _, _)| *number == self.0)
    }
}

/// Numbers, names and OpenSSL's names, whose prefix is the version that introduced the alert.
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
