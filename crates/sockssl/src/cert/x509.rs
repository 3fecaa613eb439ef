//! Parses certificates for verification.
//!
//! `cert/mod.rs` parses certificates for display. Here every field that a decision depends on
//! is decoded at once, and a field that cannot be decoded makes the whole certificate invalid,
//! as OpenSSL's `EXFLAG_INVALID` does. Limits of RFC 5280 that no decision depends on, such as
//! 20 bytes for a serial number, are not enforced.

use std::fmt;

use rustls_pki_types::SubjectPublicKeyInfoDer;
use webpki::RawPublicKeyEntity;
use x509_cert::der::asn1::{AnyRef, BitStringRef};
use x509_cert::der::{Decode, Reader, SliceReader, Tag, TagNumber};
use x509_cert::time::Time;

use crate::provider::provider;

/// Why a value cannot be parsed.
#[derive(Clone, Debug)]
pub(crate) struct Invalid(String);

impl Invalid {
    pub(crate) fn new(what: impl Into<String>) -> Invalid {
        Invalid(what.into())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One DER element.
#[derive(Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) tag: Tag,
    pub(crate) value: &'a [u8],
    /// The element with its tag and length.
    pub(crate) raw: &'a [u8],
}

impl<'a> Item<'a> {
    /// Returns the elements of a SEQUENCE.
    pub(crate) fn sequence(&self, what: &str) -> Result<Vec<Item<'a>>, Invalid> {
        if self.tag != Tag::Sequence {
            return Err(Invalid(format!("{what}: expected a SEQUENCE, not {}", self.tag)));
        }
        items(self.value, what)
    }

    /// Returns the number of a context-specific tag.
    pub(crate) fn context(&self) -> Option<u32> {
        match self.tag {
            Tag::ContextSpecific { number: TagNumber(number), .. } => Some(number),
            _ => None,
        }
    }

    /// Returns the value of an INTEGER without redundant leading bytes.
    pub(crate) fn integer(&self, what: &str) -> Result<&'a [u8], Invalid> {
        let mut bytes = self.value;
        if self.tag != Tag::Integer || bytes.is_empty() {
            return Err(Invalid(format!("{what}: expected an INTEGER")));
        }
        while let [first, second, ..] = bytes {
            if (*first == 0 && *second < 0x80) || (*first == 0xff && *second >= 0x80) {
                bytes = &bytes[1..];
            } else {
                break;
            }
        }
        Ok(bytes)
    }

    pub(crate) fn boolean(&self, what: &str) -> Result<bool, Invalid> {
        match self.value {
            [0] => Ok(false),
            // In BER every other byte means true, and OpenSSL accepts all of them.
            [_] => Ok(true),
            _ => Err(Invalid(format!("{what}: expected a BOOLEAN"))),
        }
    }

    /// Returns a time in seconds since 1970.
    pub(crate) fn time(&self, what: &str) -> Result<u64, Invalid> {
        let time = Time::from_der(self.raw).map_err(|error| Invalid(format!("{what}: {error}")))?;
        Ok(time.to_unix_duration().as_secs())
    }

    /// Returns the bytes of a BIT STRING of whole bytes.
    pub(crate) fn bits(&self, what: &str) -> Result<&'a [u8], Invalid> {
        let bits = BitStringRef::from_der(self.raw).map_err(|error| Invalid(format!("{what}: {error}")))?;
        bits.as_bytes().ok_or_else(|| Invalid(format!("{what}: expected a BIT STRING of whole bytes")))
    }
}

/// Splits a value into its elements.
pub(crate) fn items<'a>(value: &'a [u8], what: &str) -> Result<Vec<Item<'a>>, Invalid> {
    let read = || {
        let mut reader = SliceReader::new(value)?;
        let mut items = Vec::new();
        while !reader.is_finished() {
            let raw = reader.tlv_bytes()?;
            let any = AnyRef::from_der(raw)?;
            items.push(Item { tag: any.header().tag(), value: any.value(), raw });
        }
        Ok(items)
    };
    read().map_err(|error: x509_cert::der::Error| Invalid(format!("{what}: {error}")))
}

/// Returns the single element of `der`.
pub(crate) fn single<'a>(der: &'a [u8], what: &str) -> Result<Item<'a>, Invalid> {
    match items(der, what)?[..] {
        [item] => Ok(item),
        _ => Err(Invalid(format!("{what}: expected one element"))),
    }
}

/// A signed structure: a certificate or a revocation list.
pub(crate) struct Signed<'a> {
    /// The signed fields.
    pub(crate) fields: Vec<Item<'a>>,
    message: &'a [u8],
    /// The identifier of the signature algorithm, without tag and length.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(crate) fn parse(der: &'a [u8], what: &str) -> Result<Signed<'a>, Invalid> {
        let [body, algorithm, signature] = single(der, what)?.sequence(what)?[..] else {
            return Err(Invalid(format!("{what}: expected three parts")));
        };
        algorithm.sequence("the signature's algorithm")?;
        Ok(Signed {
            fields: body.sequence(what)?,
            message: body.raw,
            algorithm: algorithm.value,
            signature: signature.bits("the signature")?,
        })
    }

    /// Whether the algorithm in the signed fields is the same as the one outside.
    pub(crate) fn names_algorithm(&self, inside: &Item<'_>) -> bool {
        inside.value == self.algorithm
    }

    /// Whether this key made the signature.
    pub(crate) fn is_signed_by(&self, public_key: &[u8]) -> bool {
        let public_key = SubjectPublicKeyInfoDer::from(public_key);
        let Ok(key) = RawPublicKeyEntity::try_from(&public_key) else {
            return false;
        };
        let provider = provider();
        let all = provider.signature_verification_algorithms.all.iter();
        all.filter(|algorithm| algorithm.signature_alg_id().as_ref() == self.algorithm)
            .any(|algorithm| key.verify_signature(*algorithm, self.message, self.signature).is_ok())
    }
}

/// An extension of a certificate, a list, or an entry of a list.
pub(crate) struct Extension<'a> {
    pub(crate) oid: &'a [u8],
    pub(crate) critical: bool,
    pub(crate) value: &'a [u8],
}

/// Parses the extensions in a SEQUENCE. A repeated extension is an error.
pub(crate) fn extensions<'a>(sequence: &Item<'a>) -> Result<Vec<Extension<'a>>, Invalid> {
    let mut found: Vec<Extension<'a>> = Vec::new();
    for item in sequence.sequence("the extensions")? {
        let (oid, critical, value) = match item.sequence("an extension")?[..] {
            [oid, value] => (oid, false, value),
            [oid, critical, value] if critical.tag == Tag::Boolean => {
                (oid, critical.boolean("an extension")?, value)
            }
            _ => return Err(Invalid::new("an extension: expected two or three parts")),
        };
        if oid.tag != Tag::ObjectIdentifier || value.tag != Tag::OctetString {
            return Err(Invalid::new("an extension: expected an identifier and a value"));
        }
        if found.iter().any(|other| other.oid == oid.value) {
            return Err(Invalid::new("an extension is repeated"));
        }
        found.push(Extension { oid: oid.value, critical, value: value.value });
    }
    Ok(found)
}

/// Returns N for the identifier `2.5.29.N` of a standard extension.
pub(crate) fn standard(oid: &[u8]) -> Option<u8> {
    match oid {
        [0x55, 0x1d, number] => Some(*number),
        _ => None,
    }
}

const NETSCAPE_CERT_TYPE: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x42, 0x01, 0x01];
const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];
const PROXY_CERT_INFO: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x0e];

/// The fields of a certificate that verification depends on.
pub(crate) struct X509<'a> {
    signed: Signed<'a>,
    pub(crate) version: u8,
    pub(crate) serial: &'a [u8],
    /// The issuer's name, with tag and length.
    pub(crate) issuer: &'a [u8],
    /// The subject's name, with tag and length.
    pub(crate) subject: &'a [u8],
    /// The first and the last second of the period of validity, since 1970.
    pub(crate) validity: (u64, u64),
    /// The SubjectPublicKeyInfo.
    pub(crate) public_key: &'a [u8],
    /// The basic constraints: `cA` and `pathLenConstraint`.
    pub(crate) constraints: Option<(bool, Option<u64>)>,
    /// The first nine bits of the key usage. The first bit is the highest.
    pub(crate) key_usage: Option<u16>,
    pub(crate) extended_key_usage: Option<Vec<&'a [u8]>>,
    pub(crate) netscape_cert_type: Option<u8>,
    pub(crate) subject_key: Option<&'a [u8]>,
    pub(crate) authority_key: Option<&'a [u8]>,
    /// The GeneralNames of the subjectAltName.
    pub(crate) names: Option<Vec<Item<'a>>>,
    pub(crate) name_constraints: Option<&'a [u8]>,
    pub(crate) distribution_points: Vec<Item<'a>>,
    pub(crate) is_proxy: bool,
    pub(crate) has_unknown_critical: bool,
}

impl<'a> X509<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<X509<'a>, Invalid> {
        let signed = Signed::parse(der, "the certificate")?;
        let mut fields = signed.fields.iter().copied().peekable();
        let version = match fields.next_if(|field| field.context() == Some(0)) {
            None => 1,
            Some(field) => match single(field.value, "the version")?.integer("the version")? {
                [number @ 0..=2] => number + 1,
                _ => return Err(Invalid::new("unknown version")),
            },
        };
        let mut next = |what: &str| fields.next().ok_or_else(|| Invalid(format!("{what} is missing")));
        let serial = next("the serial number")?.integer("the serial number")?;
        let algorithm = next("the algorithm")?;
        if !signed.names_algorithm(&algorithm) {
            return Err(Invalid::new("the signature algorithm differs from the one in the signed fields"));
        }
        let issuer = next("the issuer")?;
        issuer.sequence("the issuer")?;
        let [not_before, not_after] = next("the validity")?.sequence("the validity")?[..] else {
            return Err(Invalid::new("the validity: expected two times"));
        };
        let validity = (not_before.time("notBefore")?, not_after.time("notAfter")?);
        let subject = next("the subject")?;
        subject.sequence("the subject")?;
        let public_key = next("the public key")?;
        public_key.sequence("the public key")?;
        let mut certificate = X509 {
            version,
            serial,
            issuer: issuer.raw,
            subject: subject.raw,
            validity,
            public_key: public_key.raw,
            constraints: None,
            key_usage: None,
            extended_key_usage: None,
            netscape_cert_type: None,
            subject_key: None,
            authority_key: None,
            names: None,
            name_constraints: None,
            distribution_points: Vec::new(),
            is_proxy: false,
            has_unknown_critical: false,
            signed: Signed { fields: Vec::new(), ..signed },
        };
        for field in fields {
            match field.context() {
                Some(1 | 2) => {}
                Some(3) => {
                    for extension in extensions(&single(field.value, "the extensions")?)? {
                        certificate.read(&extension)?;
                    }
                }
                _ => return Err(Invalid::new("the certificate has an unknown field")),
            }
        }
        Ok(certificate)
    }

    fn read(&mut self, extension: &Extension<'a>) -> Result<(), Invalid> {
        let value = extension.value;
        match standard(extension.oid) {
            Some(14) => {
                let what = "subjectKeyIdentifier";
                let key = single(value, what)?;
                if key.tag != Tag::OctetString {
                    return Err(Invalid(format!("{what}: expected an OCTET STRING")));
                }
                self.subject_key = Some(key.value);
            }
            Some(15) => self.key_usage = Some(flags(value, "keyUsage")?),
            Some(17) => {
                self.names = Some(single(value, "subjectAltName")?.sequence("subjectAltName")?);
            }
            Some(19) => self.constraints = Some(basic_constraints(value)?),
            Some(30) => {
                single(value, "nameConstraints")?.sequence("nameConstraints")?;
                self.name_constraints = Some(value);
            }
            Some(31) => {
                let what = "cRLDistributionPoints";
                self.distribution_points = single(value, what)?.sequence(what)?;
                for point in &self.distribution_points {
                    point.sequence(what)?;
                }
            }
            Some(35) => self.authority_key = key_identifier(value)?,
            Some(37) => {
                let usages = single(value, "extKeyUsage")?.sequence("extKeyUsage")?;
                if usages.is_empty() || usages.iter().any(|usage| usage.tag != Tag::ObjectIdentifier) {
                    return Err(Invalid::new("extKeyUsage: expected identifiers"));
                }
                self.extended_key_usage = Some(usages.iter().map(|usage| usage.value).collect());
            }
            // Policies are not checked, so their extensions have no effect.
            Some(32 | 33 | 36 | 54) => {}
            _ if extension.oid == NETSCAPE_CERT_TYPE => {
                self.netscape_cert_type = Some((flags(value, "nsCertType")? >> 8) as u8);
            }
            _ if extension.oid == PROXY_CERT_INFO => self.is_proxy = true,
            _ => self.has_unknown_critical |= extension.critical,
        }
        Ok(())
    }

    /// Returns the identifier of the signature algorithm, without tag and length.
    pub(crate) fn signature_algorithm(&self) -> &'a [u8] {
        self.signed.algorithm
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Whether `cA` is set in the basic constraints.
    pub(crate) fn is_marked_authority(&self) -> bool {
        matches!(self.constraints, Some((true, _)))
    }

    /// Whether it may issue certificates, by the rules of OpenSSL's `X509_check_ca`: `cA` is set
    /// in the basic constraints, or the certificate is older than this extension; and the key
    /// usage, if there is one, includes keyCertSign.
    pub(crate) fn is_authority(&self) -> bool {
        let marked = match self.constraints {
            Some((authority, _)) => authority,
            None if self.version == 1 => self.is_self_issued(),
            None => self.key_usage.is_some(),
        };
        marked && self.has_key_usage(KEY_CERT_SIGN)
    }

    /// Whether the key usage includes one of these bits. Without a key usage all are allowed.
    pub(crate) fn has_key_usage(&self, any_of: u16) -> bool {
        self.key_usage.is_none_or(|usage| usage & any_of != 0)
    }

    /// Whether this key made the signature.
    pub(crate) fn is_signed_by(&self, public_key: &[u8]) -> bool {
        self.signed.is_signed_by(public_key)
    }

    /// Returns the text values of the subject's attribute `2.5.4.{number}`.
    pub(crate) fn subject_values(&self, number: u8) -> Vec<String> {
        let attributes = attributes(self.subject).unwrap_or_default().into_iter().flatten();
        attributes
            .filter(|(oid, _)| *oid == [0x55, 0x04, number])
            .filter_map(|(_, value)| text(&value))
            .collect()
    }

    /// Returns the e-mail addresses in the subject.
    ///
    /// # Errors
    ///
    /// Returns an error if an address is not an IA5String, because name constraints cannot be
    /// applied to it.
    pub(crate) fn subject_addresses(&self) -> Result<Vec<&'a [u8]>, Invalid> {
        let mut addresses = Vec::new();
        for (oid, value) in attributes(self.subject)?.into_iter().flatten() {
            if oid == EMAIL_ADDRESS {
                match value.tag {
                    Tag::Ia5String => addresses.push(value.value),
                    tag => {
                        return Err(Invalid(format!("emailAddress: expected an IA5String, not {tag}")));
                    }
                }
            }
        }
        Ok(addresses)
    }
}

pub(crate) const DIGITAL_SIGNATURE: u16 = 0x8000;
pub(crate) const KEY_ENCIPHERMENT: u16 = 0x2000;
pub(crate) const KEY_AGREEMENT: u16 = 0x0800;
pub(crate) const KEY_CERT_SIGN: u16 = 0x0400;
pub(crate) const CRL_SIGN: u16 = 0x0200;

/// Returns the first sixteen named bits of a BIT STRING.
pub(crate) fn flags(der: &[u8], what: &str) -> Result<u16, Invalid> {
    let item = single(der, what)?;
    let bits = BitStringRef::from_der(item.raw).map_err(|error| Invalid(format!("{what}: {error}")))?;
    let bytes = bits.raw_bytes();
    let byte = |at: usize| u16::from(bytes.get(at).copied().unwrap_or(0));
    Ok(byte(0) << 8 | byte(1))
}

fn basic_constraints(der: &[u8]) -> Result<(bool, Option<u64>), Invalid> {
    let what = "basicConstraints";
    let mut fields = single(der, what)?.sequence(what)?.into_iter().peekable();
    let authority = match fields.next_if(|field| field.tag == Tag::Boolean) {
        Some(field) => field.boolean(what)?,
        None => false,
    };
    let below = match fields.next() {
        None => None,
        Some(field) => match field.integer("pathLenConstraint")? {
            [first, ..] if *first >= 0x80 => return Err(Invalid::new("pathLenConstraint is negative")),
            bytes => Some(bytes.iter().fold(0_u64, |n, byte| n.saturating_mul(256) | u64::from(*byte))),
        },
    };
    match fields.next() {
        None => Ok((authority, below)),
        Some(_) => Err(Invalid::new("basicConstraints: unknown field")),
    }
}

/// Returns the keyIdentifier of an authorityKeyIdentifier.
pub(crate) fn key_identifier(der: &[u8]) -> Result<Option<&[u8]>, Invalid> {
    let fields = single(der, "authorityKeyIdentifier")?.sequence("authorityKeyIdentifier")?;
    Ok(fields.iter().find(|field| field.context() == Some(0)).map(|field| field.value))
}

/// The attributes of a relative name, and their values.
type Attributes<'a> = Vec<(&'a [u8], Item<'a>)>;

fn attributes(name: &[u8]) -> Result<Vec<Attributes<'_>>, Invalid> {
    let what = "a name";
    let mut relatives = Vec::new();
    for relative in single(name, what)?.sequence(what)? {
        let mut attributes = Vec::new();
        for attribute in items(relative.value, what)? {
            match attribute.sequence(what)?[..] {
                [oid, value] => attributes.push((oid.value, value)),
                _ => return Err(Invalid::new("a name: expected an attribute of two parts")),
            }
        }
        relatives.push(attributes);
    }
    Ok(relatives)
}

fn text(value: &Item<'_>) -> Option<String> {
    match value.tag {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            String::from_utf8(value.value.to_vec()).ok()
        }
        // Latin 1, as OpenSSL decodes it.
        Tag::TeletexString => Some(value.value.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let units: Vec<u16> =
                value.value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

/// Returns a name in canonical form, for comparisons. RFC 5280, section 7.1, ignores the type of
/// a string, its case, and the number of its spaces.
pub(crate) fn canonical(name: &[u8]) -> Vec<u8> {
    let Ok(relatives) = attributes(name) else {
        return name.to_vec();
    };
    let mut canonical = Vec::new();
    for relative in relatives {
        let mut attributes: Vec<Vec<u8>> = relative
            .iter()
            .map(|(oid, value)| {
                let value = match text(value) {
                    Some(text) => {
                        let words: Vec<_> = text.split_ascii_whitespace().collect();
                        words.join(" ").to_lowercase().into_bytes()
                    }
                    None => value.raw.to_vec(),
                };
                [&length(oid), *oid, &length(&value), &value].concat()
            })
            .collect();
        attributes.sort();
        canonical.extend(length(&attributes));
        canonical.extend(attributes.concat());
    }
    canonical
}

fn length<T>(of: &[T]) -> [u8; 4] {
    u32::try_from(of.len()).unwrap_or(u32::MAX).to_be_bytes()
}
