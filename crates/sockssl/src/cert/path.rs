//! What a chain has to be beyond signatures and dates: key usage, lengths, purposes.
//!
//! The library builds the chains, and judges signatures, validity, basic constraints,
//! extended key usage and the name constraints of alternative names. It leaves out key
//! usage, and everything but name and key of the trusted certificate. This is the rest,
//! as OpenSSL judges it (`check_extensions` in `x509_vfy.c`, `v3_purp.c`).

use std::fmt;
use std::iter;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::cert::x509::{
    DIGITAL_SIGNATURE, Invalid, Item, KEY_AGREEMENT, KEY_CERT_SIGN, KEY_ENCIPHERMENT, X509, single,
};

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Server,
    Client,
}

impl Purpose {
    /// For the library that builds the chains.
    pub(crate) fn key_usage(self) -> webpki::KeyUsage {
        match self {
            Purpose::Server => webpki::KeyUsage::server_auth(),
            Purpose::Client => webpki::KeyUsage::client_auth(),
        }
    }

    /// The extended key usage, `id-kp-serverAuth` or `id-kp-clientAuth`.
    fn extended(self) -> &'static [u8] {
        match self {
            Purpose::Server => &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01],
            Purpose::Client => &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02],
        }
    }

    /// One of these bits has to be in a key usage.
    fn bits(self) -> u16 {
        match self {
            Purpose::Server => DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | KEY_AGREEMENT,
            Purpose::Client => DIGITAL_SIGNATURE | KEY_AGREEMENT,
        }
    }

    /// The bit of Netscape's type, from before there was an extended key usage.
    fn netscape(self) -> u8 {
        match self {
            Purpose::Server => 0x40,
            Purpose::Client => 0x80,
        }
    }

    fn is_allowed_by(self, certificate: &X509<'_>) -> bool {
        let usages = certificate.extended_key_usage.as_ref();
        usages.is_none_or(|usages| usages.contains(&self.extended()))
    }
}

/// A refusal that the TLS library has no variant for.
#[derive(Debug)]
struct Refusal(&'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refusal {}

pub(crate) fn refusal(words: &'static str) -> CertificateError {
    CertificateError::Other(OtherError(Arc::new(Refusal(words))))
}

pub(crate) const INVALID_AUTHORITY: &str = "invalid CA certificate: it may not sign certificates";
pub(crate) const TOO_LONG: &str = "path length constraint exceeded";

/// The peer's own certificate. With `alone` it was loaded itself, and no chain is asked.
pub(crate) fn check_end(
    certificate: &X509<'_>,
    purpose: Purpose,
    alone: bool,
) -> Result<(), CertificateError> {
    check_extensions(certificate)?;
    let netscape = certificate.netscape_cert_type;
    match purpose.is_allowed_by(certificate)
        && (alone && may_issue_its_own(certificate) || certificate.has_key_usage(purpose.bits()))
        && netscape.is_none_or(|kind| kind & purpose.netscape() != 0)
    {
        true => Ok(()),
        false => Err(CertificateError::InvalidPurpose),
    }
}

/// Whether the key of a loaded certificate may sign certificates: then its key usage
/// excludes nothing, since a certificate with another one could be issued. OpenSSL
/// checks it nevertheless.
pub(crate) fn may_issue_its_own(loaded: &X509<'_>) -> bool {
    loaded.is_marked_authority() && loaded.has_key_usage(KEY_CERT_SIGN)
}

fn check_extensions(certificate: &X509<'_>) -> Result<(), CertificateError> {
    if certificate.has_unknown_critical {
        return Err(CertificateError::UnhandledCriticalExtension);
    }
    match certificate.is_proxy {
        true => Err(refusal("proxy certificates are not allowed")),
        false => Ok(()),
    }
}

/// The certificates above the peer's own, the trusted one last; with the place of the one
/// at fault.
pub(crate) fn check_authorities(
    end: &X509<'_>,
    authorities: &[X509<'_>],
    purpose: Purpose,
) -> Result<(), (usize, CertificateError)> {
    let trusted = authorities.len().saturating_sub(1);
    // How many are below that were issued by another one: those issued by themselves,
    // which renew a key, do not count.
    let mut below = 0;
    let mut issued = end;
    for (place, authority) in authorities.iter().enumerate() {
        let blame = |error| (place, error);
        // A certificate that names another key of its issuer's is no certificate of this one.
        if matches!((issued.authority_key, authority.subject_key), (Some(named), Some(key)) if named != key)
        {
            return Err(blame(CertificateError::UnknownIssuer));
        }
        issued = authority;
        check_extensions(authority).map_err(blame)?;
        let may_sign = match place == trusted {
            true => authority.is_authority(),
            false => authority.is_marked_authority() && authority.has_key_usage(KEY_CERT_SIGN),
        };
        if !may_sign {
            return Err(blame(refusal(INVALID_AUTHORITY)));
        }
        if !purpose.is_allowed_by(authority) {
            return Err(blame(CertificateError::InvalidPurpose));
        }
        if authority.constraints.is_some_and(|(_, limit)| limit.is_some_and(|limit| below > limit)) {
            return Err(blame(refusal(TOO_LONG)));
        }
        below += u64::from(!authority.is_self_issued());
    }
    Ok(())
}

/// The kinds of a GeneralName.
const MAIL: u32 = 1;
const DNS_NAME: u32 = 2;

/// `host`, if one of the common names stands for it and there is no name of a host among
/// the alternative names. Python: `hostname_checks_common_name`.
pub(crate) fn common_names_for(certificate: &X509<'_>, host: &str) -> Option<Vec<String>> {
    let names = unless_named(certificate);
    names.iter().any(|name| stands_for(name, host)).then(|| vec![host.to_owned()])
}

/// The common names that have the form of a host's name, if there is no name of a host
/// among the alternative names. Others are titles, such as "Example Server".
pub(crate) fn common_hosts(certificate: &X509<'_>) -> Vec<String> {
    let is_host = |name: &String| {
        name.contains('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let mut names = unless_named(certificate);
    names.retain(is_host);
    names
}

/// The common names, or none if a host is among the alternative names.
fn unless_named(certificate: &X509<'_>) -> Vec<String> {
    match certificate.names.iter().flatten().any(|name| name.context() == Some(DNS_NAME)) {
        true => Vec::new(),
        false => certificate.subject_values(3),
    }
}

/// As OpenSSL's `equal_wildcard`: `*` is a whole label, in front of two more.
fn stands_for(name: &str, host: &str) -> bool {
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

/// Checks the name constraints of the authorities for names that are no alternative
/// names, which the library does not check: `hosts`, and the e-mail addresses in the
/// subjects. As OpenSSL's `NAME_CONSTRAINTS_check` and `NAME_CONSTRAINTS_check_CN`.
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
            permit(is_within(constraints, DNS_NAME, |base| is_in_domain(host, base)))?;
        }
        // Those issued by themselves renew a key of the authority's.
        let below = authorities[..place].iter().filter(|below| !below.is_self_issued());
        for certificate in iter::once(end).chain(below) {
            for address in certificate.subject_addresses().map_err(|_| CertificateError::BadEncoding)? {
                permit(is_within(constraints, MAIL, |base| is_in_mailboxes(address, base)))?;
            }
        }
    }
    Ok(())
}

fn permit(within: Result<bool, Invalid>) -> Result<(), CertificateError> {
    match within {
        Ok(true) => Ok(()),
        Ok(false) => Err(refusal(NOT_PERMITTED)),
        Err(_) => Err(CertificateError::BadEncoding),
    }
}

pub(crate) const NOT_PERMITTED: &str =
    "permitted subtree violation: the authority may not vouch for the name";

/// Whether the constraints permit a name of this kind, which `matches` a base or not.
fn is_within(constraints: &[u8], kind: u32, matches: impl Fn(&[u8]) -> bool) -> Result<bool, Invalid> {
    let what = "nameConstraints";
    for subtrees in single(constraints, what)?.sequence(what)? {
        let mut bases = Vec::new();
        for subtree in crate::cert::x509::items(subtrees.value, what)? {
            match subtree.sequence(what)?[..] {
                [base] if base.context() == Some(kind) => bases.push(base),
                [_] => {}
                _ => return Err(Invalid::new("nameConstraints: a minimum or maximum is not supported")),
            }
        }
        let mut matches = bases.iter().map(|base: &Item<'_>| matches(base.value));
        let within = match subtrees.context() {
            Some(0) => bases.is_empty() || matches.any(|matches| matches),
            Some(1) => !matches.any(|matches| matches),
            _ => return Err(Invalid::new("nameConstraints: a field that is not known")),
        };
        if !within {
            return Ok(false);
        }
    }
    Ok(true)
}

/// As OpenSSL's `nc_email`: a base is one mailbox, a host, or with a dot in front what is
/// below a domain. The local part has case, the host has none.
fn is_in_mailboxes(address: &[u8], base: &[u8]) -> bool {
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

/// A domain stands for itself and what is below it; with a dot in front for the latter.
fn is_in_domain(host: &str, domain: &[u8]) -> bool {
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
    fn a_domain_of_a_constraint_ends_at_a_label() {
        assert!(is_in_domain("example.com", b"example.com"));
        assert!(is_in_domain("www.example.com", b"Example.com"));
        assert!(is_in_domain("www.example.com", b".example.com"));
        assert!(is_in_domain("www.example.com", b""));
        assert!(!is_in_domain("badexample.com", b"example.com"));
        assert!(!is_in_domain("example.com", b".example.com"));
        assert!(!is_in_domain("com", b"example.com"));
    }

    #[test]
    fn a_mailbox_is_matched_by_itself_its_host_or_a_domain_above() {
        assert!(is_in_mailboxes(b"a@example.com", b"Example.com"));
        assert!(is_in_mailboxes(b"a@example.com", b"a@EXAMPLE.com"));
        assert!(is_in_mailboxes(b"a@www.example.com", b".example.com"));
        assert!(!is_in_mailboxes(b"A@example.com", b"a@example.com"));
        assert!(!is_in_mailboxes(b"a@www.example.com", b"example.com"));
        assert!(!is_in_mailboxes(b"a@example.com", b".example.com"));
        assert!(!is_in_mailboxes(b"example.com", b"example.com"));
        assert!(!is_in_mailboxes(b"a@example.com@evil.com", b"example.com"));
    }

    #[test]
    fn a_wildcard_is_one_whole_label() {
        assert!(stands_for("*.example.com", "www.EXAMPLE.com"));
        assert!(!stands_for("*.example.com", "a.b.example.com"));
        assert!(!stands_for("*.example.com", "example.com"));
        assert!(!stands_for("w*.example.com", "www.example.com"));
        assert!(!stands_for("*.com", "example.com"));
        assert!(!stands_for("*", "localhost"));
    }
}
