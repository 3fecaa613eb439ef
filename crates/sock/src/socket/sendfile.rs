//! Sending files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::call::deadline::Readiness;
use crate::call::trace::call;
use crate::consts::SOCK_STREAM;
use crate::error::invalid;
use crate::socket::Socket;
use crate::sys::{self, AsFd};

/// Most that is asked of sendfile(2) at once (Python's limit too).
const MAX_CHUNK: u64 = 1 << 30;

/// What is read at once where there is no sendfile(2) for it.
const BUFFER_SIZE: u64 = 1 << 16;

/// Sending files.
impl Socket {
    /// Sends a file from `offset`, up to `count` bytes or its end, and returns how
    /// many bytes went.
    ///
    /// Python: `sendfile(file, offset, count)`. System call: sendfile(2), as often
    /// as needed; for what it cannot read, and where there is none, read(2) and
    /// send(2). The file's position is behind the last byte that was sent
    /// afterwards, also after an error: so it tells how much that was.
    ///
    /// The timeout is for each wait, not for the whole (as in Python): a client
    /// that goes on reading gets a large file however long it takes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a socket that is not `SOCK_STREAM`, one in non-blocking
    /// mode, and a `count` of 0; those of [`send`](Socket::send) and of the file.
    ///
    /// # Platform notes
    ///
    /// sendfile(2) knows no `MSG_NOSIGNAL`: a peer that is gone raises `SIGPIPE`
    /// where the process does not ignore it. Rust programs do, from their start.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let sent = ours.sendfile(&File::open("Cargo.toml")?, 0, 9)?;
    /// assert_eq!(sent, 9);
    /// assert_eq!(theirs.recv(100)?, b"[package]");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendfile(&self, file: &File, offset: u64, count: impl Into<Option<u64>>) -> io::Result<u64> {
        let count = count.into();
        self.check_sendfile(count)?;
        let mut sent = 0;
        let result = self.sendfile_all(file, offset, count, &mut sent);
        match result {
            // What cannot be read like this may be read otherwise; nothing went yet.
            Err(error) if sent == 0 && sys::sendfile_cannot(&error) => {
                self.sendfile_by_send(&mut &*file, offset, count)
            }
            result => {
                if sent > 0 {
                    (&*file).seek(SeekFrom::Start(offset + sent))?;
                }
                result.map(|()| sent)
            }
        }
    }

    /// Sends what `file` reads, in the same way and with the same end.
    ///
    /// Python: `sendfile` of a file object without a descriptor. System call:
    /// send(2), as often as needed.
    ///
    /// # Errors
    ///
    /// Those of [`sendfile`](Socket::sendfile).
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// let mut page = std::io::Cursor::new(b"<html></html>");
    /// assert_eq!(ours.sendfile_from(&mut page, 6, None)?, 7);
    /// assert_eq!(theirs.recv(100)?, b"</html>");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendfile_from(
        &self,
        file: &mut (impl Read + Seek),
        offset: u64,
        count: impl Into<Option<u64>>,
    ) -> io::Result<u64> {
        let count = count.into();
        self.check_sendfile(count)?;
        self.sendfile_by_send(file, offset, count)
    }

    fn check_sendfile(&self, count: Option<u64>) -> io::Result<()> {
        if self.kind() != SOCK_STREAM {
            return Err(invalid(format!("sendfile is for SOCK_STREAM, the socket is {}", self.kind())));
        }
        if !self.getblocking() {
            return Err(invalid("sendfile is not for non-blocking sockets"));
        }
        if count == Some(0) {
            return Err(invalid("sendfile count must be a positive integer, not 0"));
        }
        Ok(())
    }

    fn sendfile_all(&self, file: &File, offset: u64, count: Option<u64>, sent: &mut u64) -> io::Result<()> {
        let (fd, file_fd) = (self.fileno(), sys::file_number(file));
        loop {
            let piece = count.map_or(MAX_CHUNK, |count| (count - *sent).min(MAX_CHUNK));
            if piece == 0 {
                return Ok(());
            }
            let at = offset + *sent;
            let went = self.retry(Readiness::Writable, || {
                call!("sendfile({fd}, {file_fd}, [{at}], {piece})" =>
                    sys::sendfile(self.as_fd(), file, at, piece))
            })?;
            if went == 0 {
                return Ok(());
            }
            *sent += went as u64;
        }
    }

    fn sendfile_by_send(
        &self,
        file: &mut (impl Read + Seek),
        offset: u64,
        count: Option<u64>,
    ) -> io::Result<u64> {
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))?;
        }
        let mut sent = 0;
        let result = self.send_read_bytes(file, count, &mut sent);
        // A pipe has no position to be set.
        if sent > 0 && file.stream_position().is_ok() {
            file.seek(SeekFrom::Start(offset + sent))?;
        }
        result.map(|()| sent)
    }

    fn send_read_bytes(&self, file: &mut impl Read, count: Option<u64>, sent: &mut u64) -> io::Result<()> {
        let mut buffer = vec![0; count.map_or(BUFFER_SIZE, |count| count.min(BUFFER_SIZE)) as usize];
        loop {
            let left = count.map_or(BUFFER_SIZE, |count| count - *sent).min(buffer.len() as u64);
            let data = match file.read(&mut buffer[..left as usize]) {
                Ok(0) => return Ok(()),
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut rest = data;
            while !rest.is_empty() {
                let went = self.send(rest)?;
                *sent += went as u64;
                rest = &rest[went..];
            }
        }
    }
}
