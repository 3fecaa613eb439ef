//! The TLS key log file, which Wireshark and other tools read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use parking_lot::Mutex;
use sock::AddressError;

/// Appends the secrets of each connection to a file, in the NSS key log format.
pub(crate) struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    pub(crate) fn open(file: &Path) -> io::Result<KeyLogFile> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        // The secrets decrypt the connections.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let opened =
            options.open(file).map_err(|error| AddressError::new("open", file.display(), error))?;
        Ok(KeyLogFile(Mutex::new(opened)))
    }
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
