//! Certificates: parsing, trust, verification and the certificate of a peer.

pub(crate) mod crl;
pub(crate) mod encrypted_key;
pub(crate) mod file;
pub(crate) mod path;
pub(crate) mod pem;
pub(crate) mod resolver;
pub(crate) mod sources;
pub(crate) mod trust;
pub(crate) mod validity;
pub(crate) mod verifier;
pub(crate) mod x509;

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::Any;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, CrlDistributionPoints, SubjectAltName};
use x509_cert::name::Name;

use crate::cert_time::cert_time;

/// A peer's certificate.
///
/// Python: the dictionary of `SSLSocket.getpeercert()`, key by key.
///
/// # Examples
///
/// ```
/// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
/// # let _folder = pki::enter()?;
/// # let (client, _server) = pki::pair()?;
/// // `client` is a connection to a server whose certificate is for localhost.
/// let certificate = client.getpeercert()?.unwrap();
/// assert_eq!(certificate.subject_alt_name, [("DNS".to_owned(), "localhost".to_owned())]);
/// println!("{certificate}");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCertificate {
    /// The subject's name, as pairs such as `("commonName", "localhost")`. Python: `subject`,
    /// which has a tuple for each relative name around the pairs.
    pub subject: Vec<(String, String)>,
    /// The issuer's name.
    pub issuer: Vec<(String, String)>,
    /// The version of the certificate, which is 3 today.
    pub version: u8,
    /// The serial number in upper case hexadecimal digits. Python: `serialNumber`.
    pub serial_number: String,
    /// The start of the period of validity. Python: `notBefore`, a string; see [`cert_time`].
    pub not_before: SystemTime,
    /// The end of the period of validity. Python: `notAfter`.
    pub not_after: SystemTime,
    /// The names that the certificate is valid for, such as `("DNS", "localhost")` or
    /// `("IP Address", "127.0.0.1")`. Python: `subjectAltName`.
    pub subject_alt_name: Vec<(String, String)>,
    /// The URLs of the OCSP responders. Python: `OCSP`.
    pub ocsp: Vec<String>,
    /// The URLs of the issuer's certificate. Python: `caIssuers`.
    pub ca_issuers: Vec<String>,
    /// The URLs of the issuer's revocation list. Python: `crlDistributionPoints`.
    pub crl_distribution_points: Vec<String>,
}

impl PeerCertificate {
    /// Returns the first value of a name in [`subject`](Self::subject), such as `commonName`.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod pki { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/doctest.rs")); }
    /// # let _folder = pki::enter()?;
    /// # let (client, _server) = pki::pair()?;
    /// // `client` is a connection to a server whose certificate is for localhost.
    /// let certificate = client.getpeercert()?.expect("a verified server has a certificate");
    /// assert_eq!(certificate.subject_value("commonName"), Some("localhost"));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn subject_value(&self, name: &str) -> Option<&str> {
        self.subject.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Prints the subject, the issuer and the end of the period of validity in one line.
impl fmt::Display for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" issued by \"{}\", valid until {}",
            line(&self.subject),
            line(&self.issuer),
            cert_time(self.not_after)
        )
    }
}

/// A certificate that is parsed for display. `x509.rs` parses certificates for verification. The
/// serial number may be longer than RFC 5280 allows.
pub(crate) struct Parsed(CertificateInner<Raw>);

impl Parsed {
    pub(crate) fn from_der(der: &[u8]) -> Result<Parsed, String> {
        CertificateInner::<Raw>::from_der(der).map(Parsed).map_err(|error| error.to_string())
    }

    pub(crate) fn subject(&self) -> String {
        line(&pairs(self.0.tbs_certificate().subject()))
    }

    pub(crate) fn issuer(&self) -> String {
        line(&pairs(self.0.tbs_certificate().issuer()))
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.0.tbs_certificate().subject() == self.0.tbs_certificate().issuer()
    }

    /// Returns the first and the last second of the period of validity, since 1970.
    pub(crate) fn validity(&self) -> (u64, u64) {
        let validity = self.0.tbs_certificate().validity();
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs())
    }

    pub(crate) fn names(&self) -> Vec<(String, String)> {
        match self.0.tbs_certificate().get_extension::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0.iter().filter_map(general_name).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn into_peer_certificate(self) -> PeerCertificate {
        let certificate = self.0.tbs_certificate();
        let (not_before, not_after) = self.validity();
        let (mut ocsp, mut ca_issuers) = (Vec::new(), Vec::new());
        if let Ok(Some((_, access))) = certificate.get_extension::<AuthorityInfoAccessSyntax>() {
            for description in &access.0 {
                let GeneralName::UniformResourceIdentifier(uri) = &description.access_location else {
                    continue;
                };
                match description.access_method.to_string().as_str() {
                    "1.3.6.1.5.5.7.48.1" => ocsp.push(uri.to_string()),
                    "1.3.6.1.5.5.7.48.2" => ca_issuers.push(uri.to_string()),
                    _ => {}
                }
            }
        }
        PeerCertificate {
            subject: pairs(certificate.subject()),
            issuer: pairs(certificate.issuer()),
            version: certificate.version() as u8 + 1,
            serial_number: hexadecimal(certificate.serial_number().as_bytes()),
            not_before: SystemTime::UNIX_EPOCH + Duration::from_secs(not_before),
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after),
            subject_alt_name: self.names(),
            ocsp,
            ca_issuers,
            crl_distribution_points: self.crl_distribution_points(),
        }
    }

    fn crl_distribution_points(&self) -> Vec<String> {
        let Ok(Some((_, points))) = self.0.tbs_certificate().get_extension::<CrlDistributionPoints>()
        else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for point in &points.0 {
            if let Some(DistributionPointName::FullName(names)) = &point.distribution_point {
                found.extend(names.iter().filter_map(|name| match name {
                    GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
                    _ => None,
                }));
            }
        }
        found
    }
}

/// The number of characters of a name, and of a value in it, in errors and logs.
const MAX_NAME: usize = 400;
const MAX_VALUE: usize = 100;

/// Formats a name in one line. A peer chooses the contents, so the length is limited, and control
/// characters, which could forge log lines or reverse the text, are escaped.
fn line(pairs: &[(String, String)]) -> String {
    let parts = pairs.iter().map(|(name, value)| format!("{}={}", short(name), printable(value)));
    join_limited(parts)
}

/// Joins texts with commas up to a limited length, and appends the number of those left out.
pub(crate) fn join_limited(texts: impl ExactSizeIterator<Item = String>) -> String {
    let count = texts.len();
    let mut joined = String::new();
    for (place, text) in texts.enumerate() {
        if place > 0 {
            joined += ", ";
        }
        if joined.len() + text.len() > MAX_NAME {
            joined += &format!("… {} more", count - place);
            break;
        }
        joined += &text;
    }
    joined
}

/// Escapes control and format characters, such as those that change the direction of the text,
/// and shortens long text.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::new();
    for character in text.chars() {
        if printable.len() > MAX_VALUE {
            printable.push('…');
            break;
        }
        if character.is_control() {
            printable.extend(character.escape_default());
        } else if is_format(character) {
            printable.extend(character.escape_unicode());
        } else {
            printable.push(character);
        }
    }
    printable
}

/// Whether a character is invisible and affects the text around it: the Unicode category Cf, and
/// the line and paragraph separators (Unicode 16).
fn is_format(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}'
    )
}

/// Object identifiers of attributes, their names in Python, and their short names.
const ATTRIBUTES: [(&str, &str, &str); 27] = [
    ("2.5.4.3", "commonName", "CN"),
    ("2.5.4.4", "surname", "SN"),
    ("2.5.4.5", "serialNumber", "serialNumber"),
    ("2.5.4.6", "countryName", "C"),
    ("2.5.4.7", "localityName", "L"),
    ("2.5.4.8", "stateOrProvinceName", "ST"),
    ("2.5.4.9", "streetAddress", "street"),
    ("2.5.4.10", "organizationName", "O"),
    ("2.5.4.11", "organizationalUnitName", "OU"),
    ("2.5.4.42", "givenName", "GN"),
    ("1.2.840.113549.1.9.1", "emailAddress", "emailAddress"),
    ("0.9.2342.19200300.100.1.25", "domainComponent", "DC"),
    ("2.5.4.12", "title", "title"),
    ("2.5.4.13", "description", "description"),
    ("2.5.4.15", "businessCategory", "businessCategory"),
    ("2.5.4.17", "postalCode", "postalCode"),
    ("2.5.4.41", "name", "name"),
    ("2.5.4.43", "initials", "initials"),
    ("2.5.4.44", "generationQualifier", "generationQualifier"),
    ("2.5.4.46", "dnQualifier", "dnQualifier"),
    ("2.5.4.65", "pseudonym", "pseudonym"),
    ("2.5.4.97", "organizationIdentifier", "organizationIdentifier"),
    ("0.9.2342.19200300.100.1.1", "userId", "UID"),
    ("1.2.840.113549.1.9.2", "unstructuredName", "unstructuredName"),
    ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionLocalityName", "jurisdictionLocalityName"),
    ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionStateOrProvinceName", "jurisdictionStateOrProvinceName"),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionCountryName", "jurisdictionCountryName"),
];

fn short(name: &str) -> &str {
    ATTRIBUTES.iter().find(|(_, long, _)| *long == name).map_or(name, |(_, _, short)| short)
}

fn pairs(name: &Name) -> Vec<(String, String)> {
    name.iter()
        .map(|attribute| {
            let oid = attribute.oid.to_string();
            let known = ATTRIBUTES.iter().find(|(number, _, _)| *number == oid);
            (known.map_or(oid.clone(), |(_, long, _)| (*long).to_owned()), text(&attribute.value))
        })
        .collect()
}

/// Returns the text of a value of any string type.
fn text(value: &Any) -> String {
    match value.tag() {
        Tag::BmpString => {
            let units: Vec<u16> =
                value.value().chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        // Latin 1, as OpenSSL decodes it.
        Tag::TeletexString => value.value().iter().copied().map(char::from).collect(),
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            String::from_utf8_lossy(value.value()).into_owned()
        }
        _ => format!("#{}", hexadecimal(&value.to_der().unwrap_or_default())),
    }
}

fn general_name(name: &GeneralName) -> Option<(String, String)> {
    let (kind, value) = match name {
        GeneralName::DnsName(name) => ("DNS", name.to_string()),
        GeneralName::Rfc822Name(name) => ("email", name.to_string()),
        GeneralName::UniformResourceIdentifier(uri) => ("URI", uri.to_string()),
        GeneralName::DirectoryName(name) => ("DirName", line(&pairs(name))),
        GeneralName::RegisteredId(oid) => ("Registered ID", oid.to_string()),
        GeneralName::IpAddress(octets) => ("IP Address", ip_address(octets.as_bytes())),
        GeneralName::OtherName(_) => ("othername", "<unsupported>".to_owned()),
        _ => return None,
    };
    Some((kind.to_owned(), value))
}

/// Formats an address as Python does, which does not shorten IPv6 addresses.
fn ip_address(octets: &[u8]) -> String {
    match (<[u8; 4]>::try_from(octets), octets.len()) {
        (Ok(four), _) => Ipv4Addr::from(four).to_string(),
        (_, 16) => {
            let words: Vec<_> = octets
                .chunks_exact(2)
                .map(|pair| format!("{:X}", u16::from_be_bytes([pair[0], pair[1]])))
                .collect();
            words.join(":")
        }
        _ => "<invalid>".to_owned(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    // A leading zero byte keeps the number positive. Zero itself is kept.
    match digits.strip_prefix("00") {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_peer_is_escaped_and_limited() {
        assert_eq!(printable("a\u{61c}b\u{202e}\n\u{feff}é"), "a\\u{61c}b\\u{202e}\\n\\u{feff}é");
        assert!(printable(&"é".repeat(10_000)).len() < 2 * MAX_VALUE);
        let joined =
            join_limited((0..1000).map(|number| number.to_string()).collect::<Vec<_>>().into_iter());
        assert!(joined.len() < MAX_NAME + 20 && joined.ends_with(" more"), "{joined}");
        assert_eq!(join_limited(vec!["a".to_owned(), "b".to_owned()].into_iter()), "a, b");
    }
}
