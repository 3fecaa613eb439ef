//! Creates a private certificate authority and certificates for testing TLS.
//!
//! It writes `ca.pem`, `server.pem` for localhost, 127.0.0.1 and ::1, and `client.pem` for
//! a client named ada into a directory, each with its key in a `.key` file. Existing files
//! are replaced. It prints the names of the files.
//!
//! Run it (the arguments shown are the defaults):
//!
//! ```text
//! cargo run -p sockssl --example make_ca -- certs
//! ```
//!
//! The other TLS programs take the same directory. To view a certificate, run
//! `openssl x509 -in certs/server.pem -noout -text`.

use std::fs;
use std::io;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

mod common;

fn params(name: &str, hosts: &[&str], days: i64) -> Result<CertificateParams, rcgen::Error> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Clocks differ, and browsers refuse server certificates that are valid for more than 398
    // days.
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Creates the key file with its final mode, so that other users can never read it.
fn write(directory: &Path, name: &str, key: &KeyPair, certificate: &rcgen::Certificate) -> io::Result<()> {
    let keyfile = directory.join(format!("{name}.key"));
    let _ = fs::remove_file(&keyfile);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(keyfile)?, key.serialize_pem().as_bytes())?;
    fs::write(directory.join(format!("{name}.pem")), certificate.pem())
}

fn make(directory: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    fs::create_dir_all(directory)?;
    let ca_key = KeyPair::generate()?;
    let mut ca = params("Example CA", &[], 3650)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = ca.self_signed(&ca_key)?;
    write(directory, "ca", &ca_key, &ca)?;
    for (name, subject, hosts, usage) in [
        (
            "server",
            "localhost",
            &["localhost", "127.0.0.1", "::1"][..],
            ExtendedKeyUsagePurpose::ServerAuth,
        ),
        ("client", "ada", &[], ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate()?;
        let mut params = params(subject, hosts, 90)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        write(directory, name, &key, &params.signed_by(&key, &ca, &ca_key)?)?;
        println!("{}: {subject}", directory.join(format!("{name}.pem")).display());
    }
    Ok(())
}

fn main() -> common::Result {
    let directory = common::path("certs");
    make(&directory).map_err(io::Error::other)?;
    println!("authority to trust: {}", directory.join("ca.pem").display());
    Ok(())
}
