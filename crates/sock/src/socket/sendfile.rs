//! Sending files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::call::deadline::Readiness;
use crate::call::trace::call;
use crate::consts::{MsgFlags, SOCK_STREAM};
use crate::error::invalid;
use crate::socket::Socket;
use crate::sys::{self, AsFd};

/// Largest count passed to sendfile(2), as in Python.
const MAX_CHUNK: u64 = 1 << 30;

/// Buffer size for files that sendfile(2) cannot read.
const BUFFER_SIZE: u64 = 1 << 16;

/// Sending files.
impl Socket {
    /// Sends a file from `offset`, up to `count` bytes or to its end.
    ///
    /// Returns the number of bytes sent.
    ///
    /// Python: `sendfile(file, offset, count)`. System call: sendfile(2), as often as needed. For
    /// files that sendfile(2) cannot read, and on systems without it, read(2) and send(2).
    /// Afterwards the position of the file is after the last byte sent, also after an error.
    ///
    /// The timeout applies to each wait, not to the whole call (as in Python), so a client that
    /// keeps reading can receive a large file.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if the socket is not `SOCK_STREAM`, if it is in
    /// non-blocking mode, or if `count` is 0. Returns an error if [`send`](Socket::send) or reading
    /// the file fails.
    ///
    /// # Platform notes
    ///
    /// sendfile(2) has no `MSG_NOSIGNAL`, so a closed connection raises `SIGPIPE` unless the
    /// process ignores that signal. Rust programs ignore it by default.
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
            // Nothing has been sent yet, so another method can be tried.
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

    /// Sends the contents of `file`, which may be any reader, as [`sendfile`](Socket::sendfile).
    ///
    /// Python: `sendfile` of a file object without a descriptor. System call:
    /// send(2), as often as needed.
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendfile`](Socket::sendfile) does.
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
            return Err(invalid(format!("sendfile requires a SOCK_STREAM socket, not {}", self.kind())));
        }
        if !self.getblocking() {
            return Err(invalid("sendfile does not support non-blocking sockets"));
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
        // A pipe has no position.
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
                let went = self.send_part(rest, MsgFlags::NONE)?;
                *sent += went as u64;
                rest = &rest[went..];
            }
        }
    }
}
