//! Certificate revocation lists: which of them are in effect, and whether they revoke a
//! certificate.
//!
//! A list belongs to an issuer, which is a name and a key, and to a scope: all certificates of
//! the issuer, those of its issuingDistributionPoint, or changes to another list (a delta). Of
//! the lists of one issuer and scope the newest is in effect. If the issuer's key is known, a
//! list is verified when it is loaded, so a list that the issuer did not sign never replaces one
//! that it did. Other lists are verified when a chain contains the key.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use rustls::CertificateError;
use rustls_pki_types::{CertificateRevocationListDer, UnixTime};

use crate::cert::path::path_error;
use crate::cert::x509::{
    CRL_SIGN, Extension, Invalid, Item, Signed, X509, canonical, extensions, key_identifier, single,
    standard,
};
use crate::error::{Reason, in_file};

/// The number of lists of one issuer and scope that are kept: the newest, and some that it does
/// not replace, because it is not valid yet or because its signature is not verified.
const MAX_LISTS: usize = 4;

const BAD_SIGNATURE: &str = "CRL signature failure: the issuer's key did not sign the revocation list";
const MAY_NOT_SIGN: &str = "key usage does not include CRL signing: the issuer may not sign its list";
const NOT_YET_VALID: &str = "CRL is not yet valid";

/// A parsed list.
struct List {
    der: CertificateRevocationListDer<'static>,
    /// The file it was loaded from, for errors.
    file: String,
    /// The issuer's name in canonical form.
    issuer: Vec<u8>,
    authority_key: Option<Vec<u8>>,
    number: Vec<u8>,
    /// In seconds since 1970.
    this_update: u64,
    /// In seconds since 1970.
    next_update: Option<u64>,
    /// The encoded issuingDistributionPoint; empty if there is none.
    point: Vec<u8>,
    is_delta: bool,
    only_some_reasons: bool,
    only_attributes: bool,
    /// Whether it is for authorities only or for other certificates only; `None` for both.
    only_authorities: Option<bool>,
    /// The names of the distributionPoint.
    names: Option<Vec<Vec<u8>>>,
    revoked: HashSet<Vec<u8>>,
}

/// A list, and the key that signed it if the signature is verified.
#[derive(Clone)]
struct Entry {
    list: Arc<List>,
    signer: Option<Arc<[u8]>>,
    /// The serial numbers in unverified lists of the same issuer and scope that were dropped in
    /// favor of this one.
    dropped_serials: Arc<HashSet<Vec<u8>>>,
}

/// The loaded lists.
#[derive(Clone, Default)]
pub(crate) struct RevocationLists {
    entries: Vec<Entry>,
}

impl RevocationLists {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a list whose issuer has the name of the certificate's issuer.
    pub(crate) fn has_one_for(&self, certificate: &X509<'_>) -> bool {
        let name = canonical(certificate.issuer);
        self.entries.iter().any(|entry| entry.list.issuer == name)
    }

    /// Returns the times, in seconds since 1970, at which lists become valid or expire.
    pub(crate) fn validity_bounds(&self) -> impl Iterator<Item = u64> + '_ {
        let lists = self.entries.iter().map(|entry| &entry.list);
        lists.flat_map(|list| [Some(list.this_update), list.next_update]).flatten()
    }

    pub(crate) fn contains(&self, der: &[u8]) -> bool {
        self.entries.iter().any(|entry| entry.list.der.as_ref() == der)
    }

    /// Returns the canonical names of the issuers of unverified lists.
    pub(crate) fn unverified_issuers(&self) -> HashSet<&[u8]> {
        let unverified = self.entries.iter().filter(|entry| entry.signer.is_none());
        unverified.map(|entry| &entry.list.issuer[..]).collect()
    }

    /// Adds a list. [`verify_and_prune`](Self::verify_and_prune) has to be called afterwards.
    ///
    /// # Errors
    ///
    /// Returns an error that names `file` if the list cannot be parsed, or if it has an unsupported
    /// critical part, because that part could revoke a certificate.
    pub(crate) fn add(
        &mut self,
        der: CertificateRevocationListDer<'static>,
        file: &Path,
    ) -> io::Result<()> {
        if self.contains(&der) {
            return Ok(());
        }
        let list = List::parse(der, file).map_err(|error| {
            in_file(file, Reason::BadPem, format_args!("cannot use a revocation list: {error}"))
        })?;
        self.entries.push(Entry { list: Arc::new(list), signer: None, dropped_serials: Arc::default() });
        Ok(())
    }

    /// Verifies the added lists, and drops lists that newer ones replace.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file if a list names the key of one of `issuers` and is
    /// not signed with it.
    pub(crate) fn verify_and_prune(&mut self, issuers: &[X509<'_>], now: UnixTime) -> io::Result<()> {
        let issuers: Vec<_> = issuers.iter().map(|issuer| (canonical(issuer.subject), issuer)).collect();
        for entry in self.entries.iter_mut().filter(|entry| entry.signer.is_none()) {
            let list = &entry.list;
            let mut named =
                issuers.iter().filter(|(name, _)| *name == list.issuer).map(|(_, issuer)| *issuer);
            if let Some(issuer) = named.clone().find(|issuer| list.is_signed_by(issuer.public_key)) {
                entry.signer = Some(issuer.public_key.into());
            } else if named.any(|issuer| list.authority_key.is_some() && list.may_be_from(issuer)) {
                let message = "cannot use a revocation list: its issuer's key did not sign it";
                return Err(in_file(Path::new(&list.file), Reason::BadPem, message));
            }
        }
        self.drop_superseded(now);
        Ok(())
    }

    fn drop_superseded(&mut self, now: UnixTime) {
        // The newest comes first. The sort is stable.
        self.entries.sort_by(|one, other| other.list.recency().cmp(&one.list.recency()));
        let entries = mem::take(&mut self.entries);
        // Grouping by issuer and scope avoids quadratic time.
        let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
        let mut displaced = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            let in_force = entry.list.is_in_force(now);
            let newer = groups.entry((entry.issuer_and_scope(), in_force)).or_default();
            let superseded = entry.signer.is_some()
                && in_force
                && newer.first().is_some_and(|&other| entries[other].list.recency() > entry.list.recency());
            if newer.len() < MAX_LISTS && !superseded {
                newer.push(place);
            } else {
                displaced.push((place, newer[0]));
            }
        }
        drop(groups);
        let mut kept: Vec<_> = entries.into_iter().map(Some).collect();
        for (place, other) in displaced {
            // A forged list must not cancel the revocations of a genuine one.
            if let (Some(entry @ Entry { signer: None, .. }), Some(other)) =
                (kept[place].take(), &mut kept[other])
            {
                Arc::make_mut(&mut other.dropped_serials)
                    .extend(entry.list.revoked.iter().chain(entry.dropped_serials.iter()).cloned());
            }
        }
        self.entries = kept.into_iter().flatten().collect();
    }

    /// Checks whether a certificate is revoked. `issuer` is its issuer, if that is known.
    ///
    /// A certificate that a list of its issuer revokes is rejected. With `required` there has to
    /// be a list that covers the certificate and has not expired.
    pub(crate) fn check(
        &self,
        certificate: &X509<'_>,
        issuer: Option<&X509<'_>>,
        required: bool,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        if self.is_empty() {
            return if required { Err(CertificateError::UnknownRevocationStatus) } else { Ok(()) };
        }
        let name = canonical(certificate.issuer);
        let (mut genuine, mut forged) = (Vec::new(), false);
        for entry in self.entries.iter().filter(|entry| entry.list.issuer == name) {
            let list = &*entry.list;
            match (issuer, &entry.signer) {
                (Some(issuer), Some(signer)) if **signer == *issuer.public_key => genuine.push(list),
                (Some(issuer), None) if list.is_signed_by(issuer.public_key) => genuine.push(list),
                (Some(issuer), None) => forged |= list.may_be_from(issuer),
                // The signature of the list cannot be verified without the issuer's key.
                (None, None) if list.matches_key(certificate.authority_key) => {
                    if entry.dropped_serials.contains(certificate.serial) {
                        return Err(CertificateError::Revoked);
                    }
                    genuine.push(list);
                }
                // The list is from another issuer of the same name.
                _ => {}
            }
        }
        // An unverified list does not replace another one, because it could be forged to hide a
        // revocation.
        let is_effective = |list: &&&List| issuer.is_none() || list.is_effective(&genuine, now);
        let effective: Vec<_> = genuine.iter().filter(is_effective).collect();
        if effective.iter().any(|list| list.revoked.contains(certificate.serial)) {
            return Err(CertificateError::Revoked);
        }
        if !required {
            return if genuine.is_empty() && forged { Err(path_error(BAD_SIGNATURE)) } else { Ok(()) };
        }
        let covering: Vec<_> = effective.iter().filter(|list| list.covers(certificate)).collect();
        if covering.is_empty() {
            return Err(if forged {
                path_error(BAD_SIGNATURE)
            } else {
                CertificateError::UnknownRevocationStatus
            });
        }
        if issuer.is_some_and(|issuer| !issuer.has_key_usage(CRL_SIGN)) {
            return Err(path_error(MAY_NOT_SIGN));
        }
        let current = |list: &List| list.next_update.is_none_or(|until| now.as_secs() < until);
        if !covering.iter().any(|list| list.is_in_force(now)) {
            Err(path_error(NOT_YET_VALID))
        } else if !covering.iter().any(|list| list.is_in_force(now) && current(list)) {
            Err(CertificateError::ExpiredRevocationList)
        } else {
            Ok(())
        }
    }
}

impl Entry {
    /// Returns a key that is equal for lists of the same issuer and scope.
    fn issuer_and_scope(&self) -> impl Eq + Hash + '_ {
        let key = match &self.signer {
            Some(signer) => (true, Some(&**signer)),
            None => (false, self.list.authority_key.as_deref()),
        };
        (key, &self.list.issuer, self.list.scope())
    }
}

impl List {
    fn parse(der: CertificateRevocationListDer<'static>, file: &Path) -> Result<List, Invalid> {
        let signed = Signed::parse(&der, "the list")?;
        let mut fields = signed.fields.iter().copied().peekable();
        if let Some(version) = fields.next_if(|field| field.tag == x509_cert::der::Tag::Integer) {
            if !matches!(version.integer("the version")?, [0 | 1]) {
                return Err(Invalid::new("unknown version"));
            }
        }
        let mut next = |what: &str| fields.next().ok_or_else(|| Invalid::new(format!("{what} is missing")));
        if !signed.names_algorithm(&next("the algorithm")?) {
            return Err(Invalid::new("the signature algorithm differs from the one in the signed fields"));
        }
        let issuer = next("the issuer")?;
        issuer.sequence("the issuer")?;
        let this_update = next("thisUpdate")?.time("thisUpdate")?;
        let is_time = |field: &Item<'_>| {
            matches!(field.tag, x509_cert::der::Tag::UtcTime | x509_cert::der::Tag::GeneralizedTime)
        };
        let next_update = fields.next_if(is_time).map(|field| field.time("nextUpdate")).transpose()?;
        let mut list = List {
            issuer: canonical(issuer.raw),
            file: file.display().to_string(),
            authority_key: None,
            number: Vec::new(),
            this_update,
            next_update,
            point: Vec::new(),
            is_delta: false,
            only_some_reasons: false,
            only_attributes: false,
            only_authorities: None,
            names: None,
            revoked: HashSet::new(),
            der: CertificateRevocationListDer::from(Vec::new()),
        };
        let revoked = fields.next_if(|field| field.context().is_none());
        if let Some(field) = fields.next() {
            if field.context() != Some(0) {
                return Err(Invalid::new("unknown field"));
            }
            for extension in extensions(&single(field.value, "the extensions")?)? {
                list.read(&extension)?;
            }
        }
        if fields.next().is_some() {
            return Err(Invalid::new("unknown field"));
        }
        for entry in revoked.map_or(Ok(Vec::new()), |field| field.sequence("the revoked certificates"))? {
            if let Some(serial) = list.revoked_by(&entry)? {
                list.revoked.insert(serial.to_vec());
            }
        }
        list.der = der;
        Ok(list)
    }

    fn read(&mut self, extension: &Extension<'_>) -> Result<(), Invalid> {
        let value = extension.value;
        match standard(extension.oid) {
            Some(20) => self.number = single(value, "cRLNumber")?.integer("cRLNumber")?.to_vec(),
            Some(27) => self.is_delta = true,
            Some(28) => {
                self.point = value.to_vec();
                self.read_point(value)?;
            }
            Some(35) => self.authority_key = key_identifier(value)?.map(<[u8]>::to_vec),
            // issuerAltName and freshestCRL have no effect.
            Some(18 | 46) => {}
            _ if extension.critical => {
                return Err(Invalid::new("unsupported critical extension"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Parses the issuingDistributionPoint.
    fn read_point(&mut self, der: &[u8]) -> Result<(), Invalid> {
        let what = "issuingDistributionPoint";
        let mut only = 0;
        for field in single(der, what)?.sequence(what)? {
            match field.context() {
                Some(0) => self.names = Some(point_names(&field)?),
                Some(number @ (1 | 2)) if field.boolean(what)? => {
                    only += 1;
                    self.only_authorities = Some(number == 2);
                }
                Some(3) => self.only_some_reasons = true,
                Some(4) if field.boolean(what)? => {
                    return Err(Invalid::new(
                        "indirect lists, with certificates of several issuers, are not supported",
                    ));
                }
                Some(5) if field.boolean(what)? => {
                    only += 1;
                    self.only_attributes = true;
                }
                Some(1 | 2 | 4 | 5) => {}
                _ => return Err(Invalid::new("issuingDistributionPoint: unknown field")),
            }
        }
        if only > 1 {
            return Err(Invalid::new(
                "issuingDistributionPoint: more than one restriction to a kind of certificates",
            ));
        }
        Ok(())
    }

    /// Returns the serial number in an entry, or `None` if a delta removes the entry.
    fn revoked_by<'a>(&self, entry: &Item<'a>) -> Result<Option<&'a [u8]>, Invalid> {
        let what = "a revoked certificate";
        let (serial, date, more) = match entry.sequence(what)?[..] {
            [serial, date] => (serial, date, None),
            [serial, date, more] => (serial, date, Some(more)),
            _ => return Err(Invalid::new("a revoked certificate: expected two or three parts")),
        };
        date.time("revocationDate")?;
        let mut removed = false;
        for extension in more.map_or(Ok(Vec::new()), |more| extensions(&more))? {
            match standard(extension.oid) {
                // removeFromCRL.
                Some(21) => removed = single(extension.value, "reasonCode")?.value == [8],
                Some(23 | 24) => {}
                Some(29) => {
                    return Err(Invalid::new(
                        "indirect lists, with certificates of several issuers, are not supported",
                    ));
                }
                _ if extension.critical => {
                    return Err(Invalid::new("unsupported critical extension in an entry"));
                }
                _ => {}
            }
        }
        let serial = serial.integer("a serial number")?;
        Ok((!removed || !self.is_delta).then_some(serial))
    }

    fn is_signed_by(&self, public_key: &[u8]) -> bool {
        Signed::parse(&self.der, "the list").is_ok_and(|signed| signed.is_signed_by(public_key))
    }

    /// Whether the authority key identifier names the issuer's key, or is missing.
    fn may_be_from(&self, issuer: &X509<'_>) -> bool {
        self.matches_key(issuer.subject_key)
    }

    fn matches_key(&self, key: Option<&[u8]>) -> bool {
        match (&self.authority_key, key) {
            (Some(named), Some(key)) => named == key,
            _ => true,
        }
    }

    /// Returns the key by which lists are ordered. OpenSSL uses thisUpdate only.
    fn recency(&self) -> (u64, usize, &[u8]) {
        (self.this_update, self.number.len(), &self.number)
    }

    fn scope(&self) -> (&[u8], bool) {
        (&self.point, self.is_delta)
    }

    fn is_in_force(&self, now: UnixTime) -> bool {
        self.this_update <= now.as_secs()
    }

    /// Whether none of `others` replaces it. Lists of the same recency are all effective, because
    /// their order is unknown.
    fn is_effective(&self, others: &[&List], now: UnixTime) -> bool {
        let same_scope = others.iter().filter(|other| other.scope() == self.scope());
        let replaced = match self.is_in_force(now) {
            true => {
                same_scope.clone().any(|other| other.is_in_force(now) && other.recency() > self.recency())
            }
            false => same_scope.clone().any(|other| other.is_in_force(now)),
        };
        // The base list of the delta has been renewed since.
        let renewed = self.is_delta
            && others.iter().any(|other| {
                !other.is_delta
                    && other.point == self.point
                    && other.is_in_force(now)
                    && other.this_update >= self.this_update
            });
        !replaced && !renewed
    }

    /// Whether it says that a certificate that it does not contain is not revoked.
    fn covers(&self, certificate: &X509<'_>) -> bool {
        if self.is_delta || self.only_some_reasons || self.only_attributes {
            return false;
        }
        if self.only_authorities.is_some_and(|only| only != certificate.is_marked_authority()) {
            return false;
        }
        let Some(names) = &self.names else {
            return true;
        };
        certificate.distribution_points.iter().any(|point| {
            let fields = point.sequence("a distribution point").unwrap_or_default();
            // A point for some reasons only, or of another issuer, is not complete.
            if fields.iter().any(|field| field.context() != Some(0)) {
                return false;
            }
            fields.iter().any(|field| {
                point_names(field).is_ok_and(|shown| shown.iter().any(|name| names.contains(name)))
            })
        })
    }
}

/// Returns the encoded names in a `[0] DistributionPointName`.
fn point_names(field: &Item<'_>) -> Result<Vec<Vec<u8>>, Invalid> {
    let what = "a distribution point's name";
    let name = single(field.value, what)?;
    match name.context() {
        Some(0) => {
            Ok(crate::cert::x509::items(name.value, what)?.iter().map(|name| name.raw.to_vec()).collect())
        }
        // A name relative to the issuer.
        Some(1) => Ok(vec![name.raw.to_vec()]),
        _ => Err(Invalid::new("a distribution point's name: unknown kind")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, KeyIdMethod, KeyPair,
        SerialNumber,
    };

    use super::*;

    #[test]
    fn unverified_lists_cancel_no_revocation() {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (key, leaf_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = params.self_signed(&key).unwrap();
        let leaf = |serial: u64| {
            let mut params = CertificateParams::new([]).unwrap();
            params.serial_number = Some(SerialNumber::from(serial));
            params.signed_by(&leaf_key, &root, &key).unwrap()
        };
        let mut lists = RevocationLists::default();
        for age in (0..3 * MAX_LISTS as u64).rev() {
            let time = time::OffsetDateTime::now_utc() - Duration::from_secs((age + 1) * 3600);
            let revoked = rcgen::RevokedCertParams {
                serial_number: SerialNumber::from(age + 1),
                revocation_time: time,
                reason_code: None,
                invalidity_date: None,
            };
            let list = CertificateRevocationListParams {
                this_update: time,
                next_update: time + Duration::from_secs(86400),
                crl_number: SerialNumber::from(1_u64),
                issuing_distribution_point: None,
                revoked_certs: vec![revoked],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            lists.add(list.signed_by(&root, &key).unwrap().der().clone(), Path::new("test")).unwrap();
            lists.verify_and_prune(&[], UnixTime::now()).unwrap();
        }
        assert_eq!(lists.entries.len(), MAX_LISTS);
        for serial in 1..=3 * MAX_LISTS as u64 + 1 {
            let leaf = leaf(serial);
            let leaf = X509::parse(leaf.der()).unwrap();
            let good = lists.check(&leaf, None, false, UnixTime::now()).is_ok();
            assert_eq!(good, serial > 3 * MAX_LISTS as u64, "{serial}");
        }
    }

    #[test]
    fn renewed_lists_do_not_accumulate() {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let known = [X509::parse(root.der()).unwrap()];
        for issuers in [&known[..], &[]] {
            let (mut lists, start) = (RevocationLists::default(), UnixTime::now());
            for age in (0..40).rev() {
                let time = time::OffsetDateTime::now_utc() - Duration::from_secs(age * 3600);
                let list = CertificateRevocationListParams {
                    this_update: time,
                    next_update: time + Duration::from_secs(86400),
                    crl_number: SerialNumber::from(40 - age),
                    issuing_distribution_point: None,
                    revoked_certs: Vec::new(),
                    key_identifier_method: KeyIdMethod::Sha256,
                };
                let der = list.signed_by(&root, &key).unwrap().der().clone();
                // The same list is added twice, as when a file is read again.
                for _ in 0..2 {
                    lists.add(der.clone(), Path::new("test")).unwrap();
                    lists.verify_and_prune(issuers, UnixTime::now()).unwrap();
                }
                assert!(lists.contains(&der));
            }
            let limit = if issuers.is_empty() { MAX_LISTS } else { 1 };
            assert_eq!(lists.entries.len(), limit);
            assert!(lists.entries[0].list.this_update >= start.as_secs().saturating_sub(60));
        }
    }
}
