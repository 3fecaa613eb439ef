//! Revocation lists: which of them count, and what they say of a certificate.
//!
//! A list belongs to an issuer, which is a name and a key, and to a scope: the whole of
//! its certificates, or what its issuingDistributionPoint names, or changes to another
//! list (a delta). Of the lists of one issuer and scope the newest counts. A list whose
//! issuer's key is known is verified when it is loaded, so that a list that the issuer
//! did not sign never takes the place of one that it did. Other lists are verified when
//! a chain shows the key.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use rustls::CertificateError;
use rustls_pki_types::{CertificateRevocationListDer, UnixTime};

use crate::cert::path::refusal;
use crate::cert::x509::{
    CRL_SIGN, Extension, Invalid, Item, Signed, X509, canonical, extensions, key_identifier, single,
    standard,
};
use crate::error::{Reason, in_file};

/// How many lists of one issuer and scope are kept: the newest, and some that it cannot
/// replace yet, because it is from the future, or because nothing proves who signed it.
const KEPT: usize = 4;

const BAD_SIGNATURE: &str = "CRL signature failure: the issuer's key did not sign the revocation list";
const MAY_NOT_SIGN: &str = "key usage does not include CRL signing: the issuer may not sign its list";
const NOT_YET_VALID: &str = "CRL is not yet valid";

/// One list.
struct List {
    der: CertificateRevocationListDer<'static>,
    /// What errors call the file it is from.
    file: String,
    /// The issuer's name in canonical form.
    issuer: Vec<u8>,
    authority_key: Option<Vec<u8>>,
    number: Vec<u8>,
    /// In seconds since 1970, as the next one.
    this_update: u64,
    next_update: Option<u64>,
    /// The issuingDistributionPoint as it is; empty if there is none.
    point: Vec<u8>,
    is_delta: bool,
    only_some_reasons: bool,
    only_attributes: bool,
    /// `None` for both kinds of certificates.
    only_authorities: Option<bool>,
    /// The distributionPoint's name.
    names: Option<Vec<Vec<u8>>>,
    revoked: HashSet<Vec<u8>>,
}

/// A list and the key that is known to have signed it.
#[derive(Clone)]
struct Entry {
    list: Arc<List>,
    signer: Option<Arc<[u8]>>,
    /// What lists of the same issuer and scope revoked that were dropped without proof
    /// that this one replaces them.
    dropped: Arc<HashSet<Vec<u8>>>,
}

/// The lists that were loaded.
#[derive(Clone, Default)]
pub(crate) struct RevocationLists {
    entries: Vec<Entry>,
}

impl RevocationLists {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a list of the certificate's issuer, by name.
    pub(crate) fn has_one_for(&self, certificate: &X509<'_>) -> bool {
        let name = canonical(certificate.issuer);
        self.entries.iter().any(|entry| entry.list.issuer == name)
    }

    /// When a list begins to be valid, or expires. In seconds since 1970.
    pub(crate) fn changes(&self) -> impl Iterator<Item = u64> + '_ {
        let lists = self.entries.iter().map(|entry| &entry.list);
        lists.flat_map(|list| [Some(list.this_update), list.next_update]).flatten()
    }

    pub(crate) fn contains(&self, der: &[u8]) -> bool {
        self.entries.iter().any(|entry| entry.list.der.as_ref() == der)
    }

    /// The canonical names of the issuers whose lists are not all verified.
    pub(crate) fn unverified_issuers(&self) -> HashSet<&[u8]> {
        let unverified = self.entries.iter().filter(|entry| entry.signer.is_none());
        unverified.map(|entry| &entry.list.issuer[..]).collect()
    }

    /// Adds a list; [`settle`](Self::settle) has to follow.
    ///
    /// # Errors
    ///
    /// Returns an error that names `file` if the list cannot be parsed, or has a critical
    /// part that is not supported: it could revoke a certificate without being heeded.
    pub(crate) fn add(
        &mut self,
        der: CertificateRevocationListDer<'static>,
        file: &Path,
    ) -> io::Result<()> {
        if self.contains(&der) {
            return Ok(());
        }
        let list = List::parse(der, file).map_err(|error| {
            in_file(file, Reason::BadPem, format_args!("the revocation list cannot be used: {error}"))
        })?;
        self.entries.push(Entry { list: Arc::new(list), signer: None, dropped: Arc::default() });
        Ok(())
    }

    /// Verifies what was added, and drops the lists that newer ones replace.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file if a list names the key of one of `issuers`,
    /// and is not signed with it.
    pub(crate) fn settle(&mut self, issuers: &[X509<'_>], now: UnixTime) -> io::Result<()> {
        let issuers: Vec<_> = issuers.iter().map(|issuer| (canonical(issuer.subject), issuer)).collect();
        for entry in self.entries.iter_mut().filter(|entry| entry.signer.is_none()) {
            let list = &entry.list;
            let mut named =
                issuers.iter().filter(|(name, _)| *name == list.issuer).map(|(_, issuer)| *issuer);
            if let Some(issuer) = named.clone().find(|issuer| list.is_signed_by(issuer.public_key)) {
                entry.signer = Some(issuer.public_key.into());
            } else if named.any(|issuer| list.authority_key.is_some() && list.claims(issuer)) {
                let message = "the revocation list cannot be used: its issuer's key did not sign it";
                return Err(in_file(Path::new(&list.file), Reason::BadPem, message));
            }
        }
        self.drop_superseded(now);
        Ok(())
    }

    fn drop_superseded(&mut self, now: UnixTime) {
        // The newest first; equals stay in the order in which they were loaded.
        self.entries.sort_by(|one, other| other.list.age().cmp(&one.list.age()));
        let entries = mem::take(&mut self.entries);
        // By issuer and scope, so that the time does not grow with the square of the lists.
        let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
        let mut displaced = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            let in_force = entry.list.is_in_force(now);
            let newer = groups.entry((entry.issuer_and_scope(), in_force)).or_default();
            let superseded = entry.signer.is_some()
                && in_force
                && newer.first().is_some_and(|&other| entries[other].list.age() > entry.list.age());
            if newer.len() < KEPT && !superseded {
                newer.push(place);
            } else {
                displaced.push((place, newer[0]));
            }
        }
        drop(groups);
        let mut kept: Vec<_> = entries.into_iter().map(Some).collect();
        for (place, other) in displaced {
            // Forged lists must not displace what a genuine one revokes.
            if let (Some(entry @ Entry { signer: None, .. }), Some(other)) =
                (kept[place].take(), &mut kept[other])
            {
                Arc::make_mut(&mut other.dropped)
                    .extend(entry.list.revoked.iter().chain(entry.dropped.iter()).cloned());
            }
        }
        self.entries = kept.into_iter().flatten().collect();
    }

    /// What the lists say of a certificate, whose issuer is `issuer` if it is known.
    ///
    /// A certificate that a list of its issuer revokes is refused. With `demanded` there
    /// has to be a list that covers it and has not expired.
    pub(crate) fn check(
        &self,
        certificate: &X509<'_>,
        issuer: Option<&X509<'_>>,
        demanded: bool,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        if self.is_empty() {
            return if demanded { Err(CertificateError::UnknownRevocationStatus) } else { Ok(()) };
        }
        let name = canonical(certificate.issuer);
        let (mut genuine, mut forged) = (Vec::new(), false);
        for entry in self.entries.iter().filter(|entry| entry.list.issuer == name) {
            let list = &*entry.list;
            match (issuer, &entry.signer) {
                (Some(issuer), Some(signer)) if **signer == *issuer.public_key => genuine.push(list),
                (Some(issuer), None) if list.is_signed_by(issuer.public_key) => genuine.push(list),
                (Some(issuer), None) => forged |= list.claims(issuer),
                // Nothing proves or disproves that it is the issuer's.
                (None, None) if list.names_key(certificate.authority_key) => {
                    if entry.dropped.contains(certificate.serial) {
                        return Err(CertificateError::Revoked);
                    }
                    genuine.push(list);
                }
                // Another key's, of an issuer of the same name.
                _ => {}
            }
        }
        // Where nothing proves who signed a list, a newer one takes no other's place: it
        // could be forged, to hide what the other one revokes.
        let counts = |list: &&&List| issuer.is_none() || list.counts(&genuine, now);
        let counting: Vec<_> = genuine.iter().filter(counts).collect();
        if counting.iter().any(|list| list.revoked.contains(certificate.serial)) {
            return Err(CertificateError::Revoked);
        }
        if !demanded {
            return if genuine.is_empty() && forged { Err(refusal(BAD_SIGNATURE)) } else { Ok(()) };
        }
        let covering: Vec<_> = counting.iter().filter(|list| list.covers(certificate)).collect();
        if covering.is_empty() {
            return Err(if forged {
                refusal(BAD_SIGNATURE)
            } else {
                CertificateError::UnknownRevocationStatus
            });
        }
        if issuer.is_some_and(|issuer| !issuer.has_key_usage(CRL_SIGN)) {
            return Err(refusal(MAY_NOT_SIGN));
        }
        let current = |list: &List| list.next_update.is_none_or(|until| now.as_secs() < until);
        if !covering.iter().any(|list| list.is_in_force(now)) {
            Err(refusal(NOT_YET_VALID))
        } else if !covering.iter().any(|list| list.is_in_force(now) && current(list)) {
            Err(CertificateError::ExpiredRevocationList)
        } else {
            Ok(())
        }
    }
}

impl Entry {
    /// Equal for lists of one issuer and of one scope.
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
                return Err(Invalid::new("its version is none that is known"));
            }
        }
        let mut next = |what: &str| fields.next().ok_or_else(|| Invalid::new(format!("{what} is missing")));
        if !signed.names_algorithm(&next("the algorithm")?) {
            return Err(Invalid::new("the signature has another algorithm than the list says"));
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
                return Err(Invalid::new("it has a field that is not known"));
            }
            for extension in extensions(&single(field.value, "the extensions")?)? {
                list.read(&extension)?;
            }
        }
        if fields.next().is_some() {
            return Err(Invalid::new("it has a field that is not known"));
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
            // Other names of the issuer, and where deltas are.
            Some(18 | 46) => {}
            _ if extension.critical => {
                return Err(Invalid::new("it has a critical extension that is not supported"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The issuingDistributionPoint.
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
                    return Err(Invalid::new("it is indirect: it has certificates of several issuers"));
                }
                Some(5) if field.boolean(what)? => {
                    only += 1;
                    self.only_attributes = true;
                }
                Some(1 | 2 | 4 | 5) => {}
                _ => return Err(Invalid::new("issuingDistributionPoint: a field that is not known")),
            }
        }
        if only > 1 {
            return Err(Invalid::new(
                "issuingDistributionPoint: it is for one kind alone, and for another",
            ));
        }
        Ok(())
    }

    /// The serial number in an entry; `None` if a delta takes the entry out of the list.
    fn revoked_by<'a>(&self, entry: &Item<'a>) -> Result<Option<&'a [u8]>, Invalid> {
        let what = "a revoked certificate";
        let (serial, date, more) = match entry.sequence(what)?[..] {
            [serial, date] => (serial, date, None),
            [serial, date, more] => (serial, date, Some(more)),
            _ => return Err(Invalid::new("a revoked certificate: not its two or three parts")),
        };
        date.time("revocationDate")?;
        let mut removed = false;
        for extension in more.map_or(Ok(Vec::new()), |more| extensions(&more))? {
            match standard(extension.oid) {
                // removeFromCRL.
                Some(21) => removed = single(extension.value, "reasonCode")?.value == [8],
                Some(23 | 24) => {}
                Some(29) => {
                    return Err(Invalid::new("it is indirect: it has certificates of several issuers"));
                }
                _ if extension.critical => {
                    return Err(Invalid::new("an entry has a critical extension that is not supported"));
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

    /// Whether it says that it is of this issuer's key, or does not say of which one.
    fn claims(&self, issuer: &X509<'_>) -> bool {
        self.names_key(issuer.subject_key)
    }

    fn names_key(&self, key: Option<&[u8]>) -> bool {
        match (&self.authority_key, key) {
            (Some(named), Some(key)) => named == key,
            _ => true,
        }
    }

    /// Lists are ordered by it, as OpenSSL orders them by thisUpdate alone.
    fn age(&self) -> (u64, usize, &[u8]) {
        (self.this_update, self.number.len(), &self.number)
    }

    fn scope(&self) -> (&[u8], bool) {
        (&self.point, self.is_delta)
    }

    fn is_in_force(&self, now: UnixTime) -> bool {
        self.this_update <= now.as_secs()
    }

    /// Whether none of `others` takes its place. All of one age count: nothing says
    /// which of them came first.
    fn counts(&self, others: &[&List], now: UnixTime) -> bool {
        let same_scope = others.iter().filter(|other| other.scope() == self.scope());
        let replaced = match self.is_in_force(now) {
            true => same_scope.clone().any(|other| other.is_in_force(now) && other.age() > self.age()),
            false => same_scope.clone().any(|other| other.is_in_force(now)),
        };
        // The list that a delta changes has been renewed since.
        let renewed = self.is_delta
            && others.iter().any(|other| {
                !other.is_delta
                    && other.point == self.point
                    && other.is_in_force(now)
                    && other.this_update >= self.this_update
            });
        !replaced && !renewed
    }

    /// Whether a certificate that it does not name is not revoked.
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
            // One for some reasons, or of another issuer, is not the whole answer.
            if fields.iter().any(|field| field.context() != Some(0)) {
                return false;
            }
            fields.iter().any(|field| {
                point_names(field).is_ok_and(|shown| shown.iter().any(|name| names.contains(name)))
            })
        })
    }
}

/// The names in a `[0] DistributionPointName`, as they are.
fn point_names(field: &Item<'_>) -> Result<Vec<Vec<u8>>, Invalid> {
    let what = "a distribution point's name";
    let name = single(field.value, what)?;
    match name.context() {
        Some(0) => {
            Ok(crate::cert::x509::items(name.value, what)?.iter().map(|name| name.raw.to_vec()).collect())
        }
        // Relative to the issuer.
        Some(1) => Ok(vec![name.raw.to_vec()]),
        _ => Err(Invalid::new("a distribution point's name is of a kind that is not known")),
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
    fn lists_that_nothing_proves_displace_no_revocation() {
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
        for age in (0..3 * KEPT as u64).rev() {
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
            lists.settle(&[], UnixTime::now()).unwrap();
        }
        assert_eq!(lists.entries.len(), KEPT);
        for serial in 1..=3 * KEPT as u64 + 1 {
            let leaf = leaf(serial);
            let leaf = X509::parse(leaf.der()).unwrap();
            let good = lists.check(&leaf, None, false, UnixTime::now()).is_ok();
            assert_eq!(good, serial > 3 * KEPT as u64, "{serial}");
        }
    }

    #[test]
    fn renewed_lists_do_not_pile_up() {
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
                // The same one twice, as when a file is read again.
                for _ in 0..2 {
                    lists.add(der.clone(), Path::new("test")).unwrap();
                    lists.settle(issuers, UnixTime::now()).unwrap();
                }
                assert!(lists.contains(&der));
            }
            let limit = if issuers.is_empty() { KEPT } else { 1 };
            assert_eq!(lists.entries.len(), limit);
            assert!(lists.entries[0].list.this_update >= start.as_secs().saturating_sub(60));
        }
    }
}
