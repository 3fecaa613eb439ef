//! The sources of trusted certificates: files, directories, memory, and the system.

use std::io;
use std::path::{Path, PathBuf};

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::cert::pem::Pem;
use crate::cert::trust::Trust;

/// A source of trusted certificates, which each reload reads again.
#[derive(Clone)]
pub(crate) enum Authority {
    System,
    Path(PathBuf),
    /// The certificates and lists of all calls of `load_verify_data` that are still in use.
    Memory(Vec<CertificateDer<'static>>, Vec<CertificateRevocationListDer<'static>>),
}

/// The name of PEM text without a file in errors.
pub(crate) const CADATA: &str = "cadata";

/// Records a source, each one once, and drops lists that have been replaced. A process that loads
/// renewed lists for years must not keep all of them.
pub(crate) fn remember(trusted: &mut Vec<Authority>, authority: Authority, trust: &Trust) {
    let mut place = trusted.iter().position(|known| match (known, &authority) {
        (Authority::System, Authority::System) => true,
        (Authority::Path(known), Authority::Path(path)) => known == path,
        (Authority::Memory(..), Authority::Memory(..)) => true,
        _ => false,
    });
    let place = *place.get_or_insert_with(|| {
        trusted.push(match &authority {
            Authority::Memory(..) => Authority::Memory(Vec::new(), Vec::new()),
            other => other.clone(),
        });
        trusted.len() - 1
    });
    if let (Authority::Memory(certificates, lists), Authority::Memory(more, more_lists)) =
        (&mut trusted[place], authority)
    {
        for certificate in more {
            if !certificates.contains(&certificate) {
                certificates.push(certificate);
            }
        }
        for list in more_lists {
            if !lists.contains(&list) {
                lists.push(list);
            }
        }
    }
    trusted.retain_mut(|source| match source {
        Authority::Memory(certificates, lists) => {
            lists.retain(|list| trust.lists().contains(list));
            !certificates.is_empty() || !lists.is_empty()
        }
        _ => true,
    });
}

impl Authority {
    /// Loads the source into `trust`. [`Trust::verify_lists`] has to be called afterwards.
    pub(crate) fn load(&self, trust: &mut Trust) -> io::Result<()> {
        match self {
            Authority::System => trust.add_system(),
            Authority::Memory(certificates, crls) => {
                trust.add(Pem::new(certificates.clone(), crls.clone()), Path::new(CADATA))
            }
            Authority::Path(path) if path.is_dir() => {
                let mut files: Vec<_> = path
                    .read_dir()
                    .and_then(Iterator::collect::<io::Result<Vec<_>>>)
                    .map_err(|error| sock::AddressError::new("read", path.display(), error))?
                    .into_iter()
                    .map(|entry| entry.path())
                    .filter(|file| file.is_file())
                    .collect();
                files.sort();
                let mut found = false;
                for file in files {
                    let pem = Pem::read(&file)?;
                    // A directory may contain other files too.
                    if !pem.certificates.is_empty() || !pem.crls.is_empty() {
                        trust.add(pem, &file)?;
                        found = true;
                    }
                }
                if found { Ok(()) } else { trust.add(Pem::default(), path) }
            }
            Authority::Path(file) => trust.add(Pem::read(file)?, file),
        }
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
    fn a_replaced_list_is_not_loaded_again() {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let (mut trusted, mut trust) = (Vec::new(), Trust::default());
        for age in (0..20).rev() {
            let time = time::OffsetDateTime::now_utc() - Duration::from_secs(age * 3600);
            let list = CertificateRevocationListParams {
                this_update: time,
                next_update: time + Duration::from_secs(86400),
                crl_number: SerialNumber::from(20 - age),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            let list = list.signed_by(&root, &key).unwrap().der().clone();
            for source in [
                Authority::Path("/dev/null".into()),
                Authority::Memory(vec![root.der().clone()], vec![list]),
            ] {
                if let Authority::Memory(..) = source {
                    source.load(&mut trust).unwrap();
                    trust.verify_lists().unwrap();
                }
                remember(&mut trusted, source, &trust);
            }
        }
        let [Authority::Path(_), Authority::Memory(certificates, lists)] = &trusted[..] else {
            panic!("each source once");
        };
        assert_eq!((certificates.len(), lists.len()), (1, 1));
    }
}
