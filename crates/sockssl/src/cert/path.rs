//! Checks of a chain that the library does not make: key usage, path lengths, purposes, names.
//!
//! The library builds the chains. It checks signatures, validity, basic constraints, extended
//! key usage, and name constraints of alternative names. It does not check the key usage, and
//! of the trusted certificate it uses only the name and the key. This module makes the
//! remaining checks, with OpenSSL's rules (`check_extensions` in `x509_vfy.c`, `v3_purp.c`).

use std::fmt;
use std::iter;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::cert::x509::{
    DIGITAL_SIGNATURE, Invalid, Item, KEY_AGREEMENT, KEY_CERT_SIGN, KEY_ENCIPHERMENT, X509, single,
};
use crate::error::{INVALID_AUTHORITY, NOT_PERMITTED, PATH_TOO_LONG};

/// The purpose that a certificate is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Server,
    Client,
}

impl Purpose {
    /// Returns the extended key usage for the chain builder.
    pub(crate) fn key_usage(self) -> webpki::KeyUsage {
        match self {
            Purpose::Server => webpki::KeyUsage::server_auth(),
            Purpose::Client => webpki::KeyUsage::client_auth(),
        }
    }

    /// Returns the identifier `id-kp-serverAuth` or `id-kp-clientAuth`.
    fn extended(self) -> &'static [u8] {
        match self {
            Purpose::Server => &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01],
            Purpose::Client => &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02],
        }
    }

    /// Returns the key usage bits, one of which is required.
    fn bits(self) -> u16 {
        match self {
            Purpose::Server => DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | KEY_AGREEMENT,
            Purpose::Client => DIGITAL_SIGNATURE | KEY_AGREEMENT,
        }
    }

    /// Returns the bit of the Netscape certificate type, which precedes the extended key usage.
    fn netscape(self) -> u8 {
        match self {
            Purpose::Server => 0x40,
            Purpose::Client => 0x80,
        }
    }

    /// Whether the extended key usage of a certificate allows the purpose.
    pub(crate) fn is_allowed_by(self, certificate: &X509<'_>) -> bool {
        let usages = certificate.extended_key_usage.as_ref();
        usages.is_none_or(|usages| usages.contains(&self.extended()))
    }
}

/// An error that the TLS library has no variant for.
#[derive(Debug)]
struct PathError(&'static str);

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for PathError {}

pub(crate) fn path_error(words: &'static str) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(PathError(words))))
}

/// Checks the peer's own certificate. With `pinned` the certificate itself was loaded.
pub(crate) fn check_end_entity(
    certificate: &X509<'_>,
    purpose: Purpose,
    pinned: bool,
) -> Result<(), CertificateError> {
    check_extensions(certificate)?;
    let netscape = certificate.netscape_cert_type;
    match purpose.is_allowed_by(certificate)
        && (pinned && can_issue_certificates(certificate) || certificate.has_key_usage(purpose.bits()))
        && netscape.is_none_or(|kind| kind & purpose.netscape() != 0)
    {
        true => Ok(()),
        false => Err(CertificateError::InvalidPurpose),
    }
}

/// Whether the key of a loaded certificate may sign certificates. Then its key usage restricts
/// nothing, since the key could issue a certificate with another key usage. OpenSSL checks the
/// key usage nevertheless.
pub(crate) fn can_issue_certificates(loaded: &X509<'_>) -> bool {
    loaded.is_marked_authority() && loaded.has_key_usage(KEY_CERT_SIGN)
}

fn check_extensions(certificate: &X509<'_>) -> Result<(), CertificateError> {
    if certificate.has_unknown_critical {
        return Err(CertificateError::UnhandledCriticalExtension);
    }
    match certificate.is_proxy {
        true => Err(path_error("proxy certificates are not allowed")),
        false => Ok(()),
    }
}

/// Checks the certificates above the peer's own; the trusted one is the last. An error has the
/// index of the certificate that failed.
pub(crate) fn check_authorities(
    end: &X509<'_>,
    authorities: &[X509<'_>],
    purpose: Purpose,
) -> Result<(), (usize, CertificateError)> {
    let trusted = authorities.len().saturating_sub(1);
    // The number of certificates below. Self-issued certificates, which renew a key, do not
    // count (RFC 5280, section 4.2.1.9).
    let mut below = 0;
    let mut issued = end;
    for (place, authority) in authorities.iter().enumerate() {
        let fault = |error| (place, error);
        // The authority key identifier names another key of the issuer.
        if matches!((issued.authority_key, authority.subject_key), (Some(named), Some(key)) if named != key)
        {
            return Err(fault(CertificateError::UnknownIssuer));
        }
        issued = authority;
        check_extensions(authority).map_err(fault)?;
        let may_sign = match place == trusted {
            true => authority.is_authority(),
            false => authority.is_marked_authority() && authority.has_key_usage(KEY_CERT_SIGN),
        };
        if !may_sign {
            return Err(fault(path_error(INVALID_AUTHORITY)));
        }
        if !purpose.is_allowed_by(authority) {
            return Err(fault(CertificateError::InvalidPurpose));
        }
        if authority.constraints.is_some_and(|(_, limit)| limit.is_some_and(|limit| below > limit)) {
            return Err(fault(path_error(PATH_TOO_LONG)));
        }
        below += u64::from(!authority.is_self_issued());
    }
    Ok(())
}

/// The kinds of a GeneralName.
const MAIL: u32 = 1;
const DNS_NAME: u32 = 2;

/// Returns `host` if a common name matches it and the alternative names contain no DNS name.
/// Python: `hostname_checks_common_name`.
pub(crate) fn common_names_matching(certificate: &X509<'_>, host: &str) -> Option<Vec<String>> {
    let names = common_names_without_dns_name(certificate);
    names.iter().any(|name| matches_hostname(name, host)).then(|| vec![host.to_owned()])
}

/// Returns the common names that look like host names, if the alternative names contain no DNS
/// name. Other common names are titles, such as "Example Server".
pub(crate) fn hostnames_in_common_names(certificate: &X509<'_>) -> Vec<String> {
    let is_host = |name: &String| {
        name.contains('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let mut names = common_names_without_dns_name(certificate);
    names.retain(is_host);
    names
}

/// Returns the common names, or none if the alternative names contain a DNS name.
fn common_names_without_dns_name(certificate: &X509<'_>) -> Vec<String> {
    match certificate.names.iter().flatten().any(|name| name.context() == Some(DNS_NAME)) {
        true => Vec::new(),
        false => certificate.subject_values(3),
    }
}

/// Matches like OpenSSL's `equal_wildcard`: `*` is a whole label, in front of at least two more.
fn matches_hostname(name: &str, host: &str) -> bool {
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    match (name.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) => {
            !label.is_empty() && domain.contains('.') && domain.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

/// Checks the name constraints of the authorities for names that the library does not check:
/// `hosts`, and the e-mail addresses in the subjects. OpenSSL does this in
/// `NAME_CONSTRAINTS_check` and `NAME_CONSTRAINTS_check_CN`.
pub(crate) fn check_subject(
    end: &X509<'_>,
    authorities: &[X509<'_>],
    hosts: &[String],
) -> Result<(), CertificateError> {
    for (place, authority) in authorities.iter().enumerate() {
        let Some(constraints) = authority.name_constraints else {
            continue;
        };
        for host in hosts {
            require_permitted(is_within(constraints, DNS_NAME, |base| is_within_domain(host, base)))?;
        }
        // Self-issued certificates renew a key of the authority.
        let below = authorities[..place].iter().filter(|below| !below.is_self_issued());
        for certificate in iter::once(end).chain(below) {
            for address in certificate.subject_addresses().map_err(|_| CertificateError::BadEncoding)? {
                require_permitted(is_within(constraints, MAIL, |base| matches_mailbox(address, base)))?;
            }
        }
    }
    Ok(())
}

fn require_permitted(within: Result<bool, Invalid>) -> Result<(), CertificateError> {
    match within {
        Ok(true) => Ok(()),
        Ok(false) => Err(path_error(NOT_PERMITTED)),
        Err(_) => Err(CertificateError::BadEncoding),
    }
}

/// Whether the constraints permit a name of this kind. `matches` compares it with a base.
fn is_within(constraints: &[u8], kind: u32, matches: impl Fn(&[u8]) -> bool) -> Result<bool, Invalid> {
    let what = "nameConstraints";
    for subtrees in single(constraints, what)?.sequence(what)? {
        let mut bases = Vec::new();
        for subtree in crate::cert::x509::items(subtrees.value, what)? {
            match subtree.sequence(what)?[..] {
                [base] if base.context() == Some(kind) => bases.push(base),
                [_] => {}
                _ => return Err(Invalid::new("nameConstraints: minimum and maximum are not supported")),
            }
        }
        let mut matches = bases.iter().map(|base: &Item<'_>| matches(base.value));
        let within = match subtrees.context() {
            Some(0) => bases.is_empty() || matches.any(|matches| matches),
            Some(1) => !matches.any(|matches| matches),
            _ => return Err(Invalid::new("nameConstraints: unknown field")),
        };
        if !within {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Matches like OpenSSL's `nc_email`: a base is one mailbox, a host, or, with a leading dot, the
/// hosts below a domain. The local part is case-sensitive and the host is not.
fn matches_mailbox(address: &[u8], base: &[u8]) -> bool {
    let split = |name: &'_ [u8]| name.iter().rposition(|&byte| byte == b'@');
    let Some(at) = split(address) else {
        return false;
    };
    let (local, host) = (&address[..at], &address[at + 1..]);
    match split(base) {
        Some(at) => (at == 0 || base[..at] == *local) && base[at + 1..].eq_ignore_ascii_case(host),
        None if base.first() == Some(&b'.') => {
            host.len() > base.len() && host[host.len() - base.len()..].eq_ignore_ascii_case(base)
        }
        None => base.eq_ignore_ascii_case(host),
    }
}

/// Whether a host is a domain or below it. With a leading dot the domain itself does not match.
fn is_within_domain(host: &str, domain: &[u8]) -> bool {
    let host = host.as_bytes();
    let Some(start) = host.len().checked_sub(domain.len()) else {
        return false;
    };
    let at_label = start == 0 || domain.is_empty() || domain[0] == b'.' || host[start - 1] == b'.';
    at_label && host[start..].eq_ignore_ascii_case(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_constraint_matches_whole_labels() {
        assert!(is_within_domain("example.com", b"example.com"));
        assert!(is_within_domain("www.example.com", b"Example.com"));
        assert!(is_within_domain("www.example.com", b".example.com"));
        assert!(is_within_domain("www.example.com", b""));
        assert!(!is_within_domain("badexample.com", b"example.com"));
        assert!(!is_within_domain("example.com", b".example.com"));
        assert!(!is_within_domain("com", b"example.com"));
    }

    #[test]
    fn a_mailbox_matches_its_address_its_host_or_a_parent_domain() {
        assert!(matches_mailbox(b"a@example.com", b"Example.com"));
        assert!(matches_mailbox(b"a@example.com", b"a@EXAMPLE.com"));
        assert!(matches_mailbox(b"a@www.example.com", b".example.com"));
        assert!(!matches_mailbox(b"A@example.com", b"a@example.com"));
        assert!(!matches_mailbox(b"a@www.example.com", b"example.com"));
        assert!(!matches_mailbox(b"a@example.com", b".example.com"));
        assert!(!matches_mailbox(b"example.com", b"example.com"));
        assert!(!matches_mailbox(b"a@example.com@evil.com", b"example.com"));
    }

    #[test]
    fn a_wildcard_matches_one_whole_label() {
        assert!(matches_hostname("*.example.com", "www.EXAMPLE.com"));
        assert!(!matches_hostname("*.example.com", "a.b.example.com"));
        assert!(!matches_hostname("*.example.com", "example.com"));
        assert!(!matches_hostname("w*.example.com", "www.example.com"));
        assert!(!matches_hostname("*.com", "example.com"));
        assert!(!matches_hostname("*", "localhost"));
    }
}
