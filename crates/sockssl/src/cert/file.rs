//! Reads a file with certificates or keys, in bounded time and with bounded memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sock::AddressError;
use zeroize::Zeroizing;

/// The size of the largest file. The longest public revocation lists have some dozens of megabytes.
const MAX_SIZE: usize = 128 << 20;

/// The largest number of bytes that are read from a FIFO or a device.
#[cfg(unix)]
const MAX_SPECIAL_SIZE: usize = 16 << 20;

/// The memory for a file whose size is not known.
const FIRST_SIZE: usize = 16 << 10;

/// Reads a file. An error names it.
///
/// A FIFO or a terminal is read until its end, for at most [`special::LIMIT`]. A shell's process
/// substitution is such a file.
pub(crate) fn read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    Ok(open_and_read(file).map_err(|error| AddressError::new("read", file.display(), error))?)
}

#[cfg(not(unix))]
fn open_and_read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut opened = File::open(file)?;
    let size = opened.metadata()?.len();
    read_to_end(size, MAX_SIZE, |buffer| opened.read(buffer))
}

#[cfg(unix)]
fn open_and_read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    use std::os::unix::fs::FileTypeExt;
    let mut special = special::Waiting::begin();
    let mut opened = special.open(file)?;
    let metadata = opened.metadata()?;
    if metadata.is_file() {
        return read_to_end(metadata.len(), MAX_SIZE, |buffer| opened.read(buffer));
    }
    special.is_fifo = metadata.file_type().is_fifo();
    read_to_end(0, MAX_SPECIAL_SIZE, |buffer| special.read(&mut opened, buffer))
}

/// Reads until the end. No copy of the data stays in memory that was freed.
fn read_to_end(
    size: u64,
    max: usize,
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Zeroizing<Vec<u8>>> {
    let too_large = || {
        let message = format!("the file is larger than {} MiB", max >> 20);
        io::Error::new(io::ErrorKind::InvalidData, message)
    };
    let size = usize::try_from(size).ok().filter(|&size| size <= max).ok_or_else(too_large)?;
    // One byte more, so that the end is found without another buffer.
    let mut text = Zeroizing::new(Vec::with_capacity(if size == 0 { FIRST_SIZE } else { size + 1 }));
    loop {
        let filled = text.len();
        if filled > max {
            return Err(too_large());
        }
        if filled == text.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(4 * filled));
            larger.extend_from_slice(&text);
            text = larger;
        }
        let room = text.capacity();
        text.resize(room, 0);
        let count = loop {
            match read(&mut text[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        text.truncate(filled + count);
        if count == 0 {
            return Ok(text);
        }
    }
}

/// Files whose open(2) or read(2) can block: FIFOs, terminals, devices.
#[cfg(unix)]
mod special {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;
    use std::time::{Duration, Instant};

    use rustix::fs::OFlags;
    use sock::{POLLIN, Poll};

    use super::*;

    /// How long the whole contents may take. A person may have to type a password for them.
    pub(super) const LIMIT: Duration = Duration::from_secs(30);

    /// How long a FIFO may have no writer.
    const WRITER_LIMIT: Duration = Duration::from_secs(5);

    /// The pause between two attempts where no event can be waited for.
    const PAUSE: Duration = Duration::from_millis(10);

    /// The state of reading one such file.
    pub(super) struct Waiting {
        begin: Instant,
        pub(super) is_fifo: bool,
        has_data: bool,
    }

    fn timed_out(message: &str) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, message)
    }

    impl Waiting {
        pub(super) fn begin() -> Waiting {
            Waiting { begin: Instant::now(), is_fifo: false, has_data: false }
        }

        /// Returns the rest of a limit, `None` if it is over.
        fn left(&self, limit: Duration) -> Option<Duration> {
            limit.checked_sub(self.begin.elapsed()).filter(|left| !left.is_zero())
        }

        /// Opens a file without waiting for the writer of a FIFO. A terminal does not become the
        /// controlling one.
        pub(super) fn open(&self, file: &Path) -> io::Result<File> {
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
            loop {
                match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(file) {
                    // Another process has a lease on the file and was asked to release it (fcntl(2)).
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.left(LIMIT) {
                        Some(_) => std::thread::sleep(PAUSE),
                        None => return Err(error),
                    },
                    opened => return opened,
                }
            }
        }

        pub(super) fn read(&mut self, opened: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
            loop {
                let Some(left) = self.left(LIMIT) else {
                    return Err(timed_out("its contents did not end within 30 seconds"));
                };
                let writer_left = self.left(WRITER_LIMIT);
                let mut set = [Poll::new(&*opened, POLLIN)];
                let is_ready = sock::poll(&mut set, Some(writer_left.unwrap_or(left)))? > 0;
                match opened.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        // A device that poll(2) does not support is always ready.
                        if is_ready {
                            std::thread::sleep(PAUSE);
                        }
                    }
                    // Without data this is the end only if there was a writer. Linux reports the
                    // hang-up of a writer, and none if there was no writer yet.
                    Ok(0) if self.is_fifo && !self.has_data => {
                        if self.hung_up(opened) {
                            return Ok(0);
                        }
                        if self.left(WRITER_LIMIT).is_none() {
                            return Err(timed_out(
                                "no process has opened the FIFO for writing within 5 seconds",
                            ));
                        }
                        std::thread::sleep(PAUSE);
                    }
                    result => {
                        self.has_data = true;
                        return result;
                    }
                }
            }
        }

        fn hung_up(&self, opened: &File) -> bool {
            let mut set = [Poll::new(opened, POLLIN)];
            let polled = sock::poll(&mut set, Some(Duration::ZERO));
            cfg!(target_os = "linux") && polled.is_ok_and(|ready| ready > 0)
        }
    }
}
