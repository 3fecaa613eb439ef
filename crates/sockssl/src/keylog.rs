//! The TLS key log file, which Wireshark and other tools read.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sock::AddressError;

use crate::error::invalid;

/// Appends the secrets of each connection to a file, in the NSS key log format.
///
/// There is no lock: a line is one write(2) with `O_APPEND`. A FIFO or a terminal does not block the
/// handshake: a line for which it has no room is lost.
pub(crate) struct KeyLogFile {
    file: File,
    /// The last line was written in part only.
    is_cut: AtomicBool,
    /// Lines that were lost since the last one that was written.
    lost: AtomicU64,
}

impl KeyLogFile {
    /// Opens or creates the file.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file: the system's error if it cannot be opened, an error of
    /// kind `InvalidInput` if it is a symbolic link, or one of kind `PermissionDenied` if all users
    /// can write to it.
    pub(crate) fn open(file: &Path) -> io::Result<KeyLogFile> {
        let opened = open(file).map_err(|error| AddressError::new("open", file.display(), error))?;
        Ok(KeyLogFile { file: opened, is_cut: AtomicBool::new(false), lost: AtomicU64::new(0) })
    }
}

fn open(file: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true);
    // Opening a FIFO without a reader fails instead of blocking, and so does writing to a full one.
    // A terminal does not become the controlling one.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits() as i32,
    );
    // The secrets decrypt the connections.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // O_EXCL does not follow a link (open(2)).
    match options.clone().create_new(true).open(file) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result,
    }
    let before = fs::symlink_metadata(file)?;
    if before.is_symlink() {
        return Err(invalid("the TLS key log file must not be a symbolic link"));
    }
    let opened = options.open(file)?;
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
        log::warn!(
            path:% = file.display();
            "other users can access the TLS key log file {}", file.display()
        );
    }
    Ok(())
}

impl KeyLogFile {
    /// Writes a line. The text that the next line begins with ends one that was cut.
    fn write(&self, line: &str) -> io::Result<()> {
        let line = if self.is_cut.swap(false, Ordering::Relaxed) { &format!("\n{line}") } else { line };
        loop {
            match (&self.file).write(line.as_bytes()) {
                Ok(count) if count == line.len() => return Ok(()),
                Ok(_) => {
                    self.is_cut.store(true, Ordering::Relaxed);
                    return Err(io::Error::new(io::ErrorKind::WriteZero, "the line was written in part"));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl rustls::KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}\n", hexadecimal(client_random), hexadecimal(secret));
        match self.write(&line) {
            // One line in the log for a failure, and one for its end.
            Ok(()) => match self.lost.swap(0, Ordering::Relaxed) {
                0 => {}
                lost => log::warn!(
                    count = lost;
                    "wrote to the TLS key log file again, {lost} lines were lost"
                ),
            },
            Err(error) => {
                if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                    log::warn!(
                        errno = sock::errno(&error).and_then(sock::errno_name);
                        "cannot write the TLS key log file: {error}"
                    );
                }
            }
        }
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogFile")
    }
}
