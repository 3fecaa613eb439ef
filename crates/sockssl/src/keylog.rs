//! The TLS key log file, which Wireshark and other tools read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use parking_lot::Mutex;
use sock::AddressError;

use crate::error::invalid;

/// Appends the secrets of each connection to a file, in the NSS key log format.
pub(crate) struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    /// Opens or creates the file.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file: the system's if it cannot be opened, `InvalidInput`
    /// if it is a symbolic link, or `PermissionDenied` if all users can write to it.
    pub(crate) fn open(file: &Path) -> io::Result<KeyLogFile> {
        let opened = open(file).map_err(|error| AddressError::new("open", file.display(), error))?;
        Ok(KeyLogFile(Mutex::new(opened)))
    }
}

fn open(file: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true);
    // The secrets decrypt the connections.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // O_EXCL does not follow a link (open(2)).
    match options.open(file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result,
    }
    let before = fs::symlink_metadata(file)?;
    if before.is_symlink() {
        return Err(invalid("the TLS key log file must not be a symbolic link"));
    }
    let opened = OpenOptions::new().append(true).open(file)?;
    #[cfg(unix)]
    check_access(file, &before, &opened.metadata()?)?;
    Ok(opened)
}

/// Checks that the opened file is the one that was examined, and who can access it.
#[cfg(unix)]
fn check_access(file: &Path, before: &fs::Metadata, opened: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    if (before.dev(), before.ino()) != (opened.dev(), opened.ino()) {
        return Err(invalid("the TLS key log file was replaced while it was opened"));
    }
    // A terminal or /dev/null has a mode that the system chooses.
    if opened.file_type().is_char_device() {
        return Ok(());
    }
    if opened.mode() & 0o002 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("all users can write to the TLS key log file (mode {:o})", opened.mode() & 0o777),
        ));
    }
    if opened.mode() & 0o066 != 0 {
        log::warn!("other users can access the TLS key log file {}", file.display());
    }
    Ok(())
}

impl rustls::KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hexadecimal(client_random), hexadecimal(secret));
        if let Err(error) = self.0.lock().write_all(line.as_bytes()) {
            log::warn!("cannot write the TLS key log file: {error}");
        }
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogFile")
    }
}
