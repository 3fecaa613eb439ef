//! Lines of bytes: `readline`, and `for line in file`.

use std::fmt;
use std::io::{self, BufRead};

use crate::stream::makefile::{SocketPair, SocketReader};

/// The longest line, in bytes, that the iterator of a [`SocketReader`] returns. It is the limit of
/// Python's `http.server`.
pub const MAX_LINE: usize = 65_536;

impl SocketReader<'_> {
    /// Reads a line with its `\n`, but at most `limit` bytes, and returns it.
    ///
    /// Python: `readline(limit)`. An empty result is the end of file, unless `limit` is 0. The last
    /// line of a file may have no `\n`, and neither has the first part of a line that is longer than
    /// `limit`. The next call continues with the rest.
    ///
    /// # Errors
    ///
    /// Returns an error if receiving fails. The bytes of an incomplete line stay unread, so that a
    /// call after a timeout returns the whole line.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"GET / HTTP/1.1\r\na long line")?;
    /// let mut file = ours.makefile_rb();
    /// assert_eq!(file.readline(100)?, b"GET / HTTP/1.1\r\n");
    /// assert_eq!(file.readline(6)?, b"a long");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn readline(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while line.len() < limit {
            let unread = match self.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.put_back(line);
                    return Err(error);
                }
                Ok(unread) => unread,
            };
            let most = &unread[..unread.len().min(limit - line.len())];
            let end = most.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
            let count = end.unwrap_or(most.len());
            line.extend_from_slice(&most[..count]);
            self.consume(count);
            if end.is_some() || count == 0 {
                break;
            }
        }
        Ok(line)
    }
}

impl SocketPair<'_> {
    /// Reads a line as [`SocketReader::readline`] does.
    ///
    /// # Errors
    ///
    /// Returns an error if [`SocketReader::readline`] does.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello\n")?;
    /// assert_eq!(ours.makefile_rwb().readline(100)?, b"hello\n");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn readline(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        self.reader.readline(limit)
    }
}

/// Iterates over the lines of a file, as bytes with their `\n`.
///
/// Python: `for line in file`. A line that is longer than [`MAX_LINE`] is an error of kind
/// `InvalidData`, because a peer that never sends a `\n` would fill the memory. The iterator ends after
/// an error.
///
/// # Examples
///
/// ```
/// let (ours, theirs) = sock::socketpair()?;
/// theirs.sendall(b"one\ntwo")?;
/// drop(theirs);
/// let mut lines = Vec::new();
/// for line in &mut ours.makefile_rb() {
///     lines.push(line?);
/// }
/// assert_eq!(lines, [&b"one\n"[..], b"two"]);
/// # std::io::Result::Ok(())
/// ```
impl<'r, 'a> IntoIterator for &'r mut SocketReader<'a> {
    type Item = io::Result<Vec<u8>>;
    type IntoIter = ByteLines<'r, 'a>;

    fn into_iter(self) -> ByteLines<'r, 'a> {
        ByteLines { reader: Some(self) }
    }
}

/// The lines of a [`SocketReader`], from `for line in &mut reader`.
///
/// # Examples
///
/// ```
/// let (ours, theirs) = sock::socketpair()?;
/// theirs.sendall(b"one\ntwo\n")?;
/// drop(theirs);
/// let mut file = ours.makefile_rb();
/// let mut lines = Vec::new();
/// for line in &mut file {                                      // for line in file:
///     lines.push(line?);
/// }
/// assert_eq!(lines, [b"one\n", b"two\n"]);
/// # std::io::Result::Ok(())
/// ```
pub struct ByteLines<'r, 'a> {
    /// `None` after the end of file or an error.
    reader: Option<&'r mut SocketReader<'a>>,
}

impl Iterator for ByteLines<'_, '_> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        let line = match self.reader.as_mut()?.readline(MAX_LINE + 1) {
            Ok(line) if line.len() > MAX_LINE => Err(too_long()),
            Ok(line) if line.is_empty() => {
                self.reader = None;
                return None;
            }
            line => line,
        };
        if line.is_err() {
            self.reader = None;
        }
        Some(line)
    }
}

impl std::iter::FusedIterator for ByteLines<'_, '_> {}

impl fmt::Debug for ByteLines<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteLines").field("reader", &self.reader).finish()
    }
}

#[cold]
fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the line is longer than {MAX_LINE} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::create_server::socketpair;

    #[test]
    fn lines_are_bytes_with_their_end() {
        let (ours, theirs) = socketpair().unwrap();
        theirs.sendall(b"one\r\n\n\xff\xfe\nlast").unwrap();
        drop(theirs);
        for size in [0, 1, 3, 8192] {
            let mut reader = SocketReader::new(&ours, size);
            let lines: Vec<_> = (&mut reader).into_iter().map(Result::unwrap).collect();
            if size == 0 {
                assert_eq!(lines, [&b"one\r\n"[..], b"\n", b"\xff\xfe\n", b"last"]);
            } else {
                assert!(lines.is_empty());
            }
            assert_eq!(reader.readline(10).unwrap(), b"");
        }
    }

    #[test]
    fn a_timeout_loses_no_byte_of_a_line() {
        for (size, length) in [(0, 3), (1, 3), (4, 3), (4, 4), (4, 5), (8192, 3), (8192, 20_000)] {
            let (ours, theirs) = socketpair().unwrap();
            ours.settimeout(0.01).unwrap();
            let mut reader = SocketReader::new(&ours, size);
            let part = vec![b'x'; length];
            theirs.sendall(&part).unwrap();
            for _ in 0..2 {
                assert_eq!(reader.readline(MAX_LINE).unwrap_err().kind(), io::ErrorKind::TimedOut);
                assert_eq!(reader.buffer(), part, "size {size}, length {length}");
            }
            assert!((&mut reader).into_iter().next().unwrap().is_err());
            theirs.sendall(b"y\nnext\n").unwrap();
            assert_eq!(reader.readline(MAX_LINE).unwrap(), [&part[..], b"y\n"].concat());
            assert_eq!(reader.readline(MAX_LINE).unwrap(), b"next\n");
        }
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let (ours, theirs) = socketpair().unwrap();
        std::thread::scope(|scope| {
            // It fails when `ours` is closed.
            scope.spawn(move || while theirs.send(&[b'x'; 10_000]).is_ok() {});
            let ours = ours;
            let mut reader = ours.makefile_rb();
            assert_eq!(reader.readline(0).unwrap(), b"");
            assert_eq!(reader.readline(20_000).unwrap(), [b'x'; 20_000]);
            let mut lines = (&mut reader).into_iter();
            assert_eq!(lines.next().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert!(lines.next().is_none());
        });
    }
}
