//! Buffered files over a socket: Python's `makefile`.
//!
//! | Python | here |
//! | --- | --- |
//! | `makefile('rb')` | [`makefile_rb`](Socket::makefile_rb): [`Read`] and [`BufRead`] |
//! | `makefile('wb')` | [`makefile_wb`](Socket::makefile_wb): [`Write`] |
//! | `makefile('rwb')` | [`makefile_rwb`](Socket::makefile_rwb): both, with a buffer each |
//! | `makefile('rb', n)` | [`SocketReader::new`] with a size; 0 never reads ahead |
//! | `makefile('wb', n)` | [`SocketWriter::new`] with a size; 0 sends immediately |
//!
//! A file borrows its socket, so it cannot outlive it. After a timeout the reader keeps its data,
//! and reading can continue (Python refuses).

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use crate::socket::Socket;
use crate::stream::StreamSocket;
use crate::stream::buffer::{FillBuffer, ReadBuffer};
use crate::sys;

/// Default buffer size of a file. Python: `io.DEFAULT_BUFFER_SIZE`.
pub const DEFAULT_BUFFER_SIZE: usize = 8192;

/// Files.
impl Socket {
    /// Returns a file that reads from the socket, with a buffer of 8192 bytes.
    ///
    /// Python: `makefile('rb')`. System call: recv(2) when the buffer is empty.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::BufRead;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"one\ntwo\n")?;
    /// drop(theirs);
    /// let lines: Vec<_> = ours.makefile_rb().lines().collect::<Result<_, _>>()?;
    /// assert_eq!(lines, ["one", "two"]);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn makefile_rb(&self) -> SocketReader<'_> {
        SocketReader::new(self, DEFAULT_BUFFER_SIZE)
    }

    /// Returns a file that writes to the socket, with a buffer of 8192 bytes.
    ///
    /// Python: `makefile('wb')`. System call: send(2) when the buffer is full or flushed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let mut file = ours.makefile_wb();
    /// write!(file, "one {}", 2)?;
    /// file.flush()?;
    /// assert_eq!(theirs.recv(100)?, b"one 2"); // in one piece
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn makefile_wb(&self) -> SocketWriter<'_> {
        SocketWriter::new(self, DEFAULT_BUFFER_SIZE)
    }

    /// Returns a file that reads and writes, with a buffer for each direction.
    ///
    /// Python: `makefile('rwb')`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{BufRead, Write};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let mut file = ours.makefile_rwb();
    /// file.write_all(b"question\n")?;
    /// file.flush()?;
    /// theirs.sendall(b"answer\n")?;
    /// let mut line = String::new();
    /// file.read_line(&mut line)?;
    /// assert_eq!(line, "answer\n");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn makefile_rwb(&self) -> SocketPair<'_> {
        SocketPair { reader: self.makefile_rb(), writer: self.makefile_wb() }
    }
}

/// A buffered reader of a socket. Python: `io.BufferedReader` over `SocketIO`.
///
/// # Examples
///
/// ```
/// use sock::SocketReader;
/// use std::io::BufRead;
///
/// let (ours, theirs) = sock::socketpair()?;
/// theirs.sendall(b"head\nbody")?;
/// let mut head = String::new();
/// SocketReader::new(&ours, 0).read_line(&mut head)?; // without a buffer
/// assert_eq!(ours.recv(100)?, b"body"); // the rest is still in the socket
/// # std::io::Result::Ok(())
/// ```
pub struct SocketReader<'a> {
    source: Source<'a>,
    /// Allocated by the first read that needs it.
    buffer: ReadBuffer,
    /// Size of the buffer. With one byte, a line is read byte by byte, so that the data after it
    /// stays in the socket.
    size: usize,
}

/// Where a reader receives from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Stream(&'a dyn StreamSocket),
    Filler(&'a dyn FillBuffer),
}

impl<'a> SocketReader<'a> {
    /// Creates a reader with a buffer of `bufsize` bytes.
    ///
    /// With 0 it receives no more bytes than are read.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::SocketReader;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"head\nbody")?;
    /// let mut file = SocketReader::new(&ours, 1024);               // sock.makefile("rb", 1024)
    /// assert_eq!(file.readline(100)?, b"head\n");
    /// assert_eq!(file.buffer(), b"body");
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    #[must_use]
    pub fn new(source: &'a dyn StreamSocket, bufsize: usize) -> SocketReader<'a> {
        let source = Source::Stream(source);
        SocketReader { source, buffer: ReadBuffer::NONE, size: bufsize.max(1) }
    }

    /// Creates a reader whose source fills the buffer itself.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub fn with_filler(source: &'a dyn FillBuffer, bufsize: usize) -> SocketReader<'a> {
        let source = Source::Filler(source);
        SocketReader { source, buffer: ReadBuffer::NONE, size: bufsize.max(1) }
    }

    /// Creates a reader that starts with the contents of `buffer`. For [`ReadBuffer::NONE`] it
    /// allocates a buffer of [`DEFAULT_BUFFER_SIZE`].
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub fn with_buffer(source: &'a dyn StreamSocket, buffer: ReadBuffer) -> SocketReader<'a> {
        let size = if buffer.is_none() { DEFAULT_BUFFER_SIZE } else { buffer.size().max(1) };
        SocketReader { source: Source::Stream(source), buffer, size }
    }

    /// Returns the buffer with its unread bytes, or none if it was never used.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub fn into_buffer(self) -> ReadBuffer {
        self.buffer
    }

    /// Makes bytes that were read unread again. There are no other unread bytes.
    pub(super) fn put_back(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.buffer.put_back(bytes);
        }
    }

    /// Returns the bytes that were received but not yet read. Python: `peek()`, without receiving.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::BufRead;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"one\ntwo\n")?;
    /// let mut file = ours.makefile_rb();
    /// file.read_line(&mut String::new())?;
    /// assert_eq!(file.buffer(), b"two\n");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.buffer.unread()
    }
}

impl fmt::Debug for SocketReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketReader")
            .field("bufsize", &self.size)
            .field("unread", &self.buffer().len())
            .finish_non_exhaustive()
    }
}

impl Read for SocketReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        // A read of at least the buffer's size bypasses the buffer.
        if self.buffer().is_empty() && out.len() >= self.size {
            return match self.source {
                Source::Stream(stream) => stream.recv_into(out),
                Source::Filler(stream) => stream.recv_into(out),
            };
        }
        let mut unread = self.fill_buf()?;
        let count = unread.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for SocketReader<'_> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.buffer.unread().is_empty() {
            match self.source {
                Source::Stream(stream) => {
                    if self.buffer.size() != self.size {
                        self.buffer = ReadBuffer::new(self.size);
                    }
                    self.buffer.receive(|room| stream.recv_into(room))?;
                }
                Source::Filler(stream) => stream.fill(&mut self.buffer, self.size)?,
            }
        }
        Ok(self.buffer.unread())
    }

    #[inline]
    fn consume(&mut self, count: usize) {
        self.buffer.consume(count);
    }
}

/// A buffered writer of a socket.
///
/// Python: `io.BufferedWriter`, or with buffer size 0 `socketserver`'s `_SocketWriter`, which sends
/// each write immediately.
///
/// The buffer is allocated by the first write that needs it. If the allocation fails, that write
/// fails with `OutOfMemory`.
///
/// Dropping the writer sends buffered data and ignores errors. Call [`flush`](Write::flush) to get
/// the error.
///
/// # Examples
///
/// ```
/// use sock::SocketWriter;
/// use std::io::Write;
///
/// let (ours, theirs) = sock::socketpair()?;
/// let mut file = SocketWriter::new(&ours, 0);
/// file.write_all(b"at once")?;
/// assert_eq!(theirs.recv(100)?, b"at once");
/// # std::io::Result::Ok(())
/// ```
pub struct SocketWriter<'a> {
    target: &'a dyn StreamSocket,
    buffer: Vec<u8>,
    bufsize: usize,
}

impl<'a> SocketWriter<'a> {
    /// Creates a writer with a buffer of `bufsize` bytes.
    ///
    /// With 0 every write is sent before it returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use sock::SocketWriter;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let mut file = SocketWriter::new(&ours, 1024);               // sock.makefile("wb", 1024)
    /// file.write_all(b"hello ")?;
    /// file.write_all(b"world")?;
    /// file.flush()?;
    /// assert_eq!(theirs.recv(100)?, b"hello world");
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    #[must_use]
    pub fn new(target: &'a dyn StreamSocket, bufsize: usize) -> SocketWriter<'a> {
        SocketWriter { target, buffer: Vec::new(), bufsize }
    }
}

impl fmt::Debug for SocketWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketWriter")
            .field("bufsize", &self.bufsize)
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl SocketWriter<'_> {
    fn write_buffered(&mut self, data: &[u8]) -> io::Result<()> {
        if self.buffer.len() + data.len() > self.bufsize {
            self.flush()?;
        }
        if data.len() >= self.bufsize {
            self.target.sendall(data)?;
        } else {
            let room = self.bufsize - self.buffer.len();
            self.buffer.try_reserve_exact(room).map_err(|_| sys::no_memory(self.bufsize))?;
            self.buffer.extend_from_slice(data);
        }
        Ok(())
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        // As with sendall, the number of bytes sent is unknown after an error, and sending some of
        // them twice would be worse than losing them.
        let data = std::mem::take(&mut self.buffer);
        self.target.sendall(&data)?;
        self.buffer = data;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for SocketWriter<'_> {
    #[inline]
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.bufsize {
            0 => self.target.sendall(data)?,
            _ => self.write_buffered(data)?,
        }
        Ok(data.len())
    }

    /// Does not retry after an error, because part of the data may have been sent.
    #[inline]
    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        if data.is_empty() { Ok(()) } else { self.write(data).map(drop) }
    }

    /// Formats the whole text and writes it once. The default implementation writes each piece,
    /// which without a buffer sends a segment for each, and the second one waits for the peer's
    /// delayed acknowledgement (RFC 896, RFC 1122 section 4.2.3.2). If formatting fails, nothing is
    /// written.
    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        match text.as_str() {
            Some(text) => self.write_all(text.as_bytes()),
            None => self.write_all(Formatted::new(text)?.bytes()),
        }
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send_buffer() }
    }
}

/// A formatted text. A short one is stored inline.
struct Formatted {
    short: [u8; SHORT],
    length: usize,
    /// The whole text, if it is longer than `short`.
    long: Vec<u8>,
    error: Option<io::Error>,
}

/// Longest text that is stored inline.
const SHORT: usize = 256;

impl Formatted {
    fn new(text: fmt::Arguments<'_>) -> io::Result<Formatted> {
        let mut formatted = Formatted { short: [0; SHORT], length: 0, long: Vec::new(), error: None };
        match fmt::write(&mut formatted, text) {
            Ok(()) => Ok(formatted),
            // The standard library's error, unless the allocation failed.
            Err(fmt::Error) => Err(formatted.error.unwrap_or_else(|| io::Error::other("formatter error"))),
        }
    }

    fn bytes(&self) -> &[u8] {
        if self.long.is_empty() { &self.short[..self.length] } else { &self.long }
    }

    fn extend_long(&mut self, piece: &[u8]) -> io::Result<()> {
        let moved = if self.long.is_empty() { &self.short[..self.length] } else { &[] };
        let wanted = moved.len() + piece.len();
        self.long.try_reserve(wanted).map_err(|_| sys::no_memory(self.long.len() + wanted))?;
        self.long.extend_from_slice(moved);
        self.long.extend_from_slice(piece);
        Ok(())
    }
}

impl fmt::Write for Formatted {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = self.short.get_mut(self.length..).filter(|_| self.long.is_empty());
        if let Some(room) = room.and_then(|room| room.get_mut(..piece.len())) {
            room.copy_from_slice(piece.as_bytes());
            self.length += piece.len();
            return Ok(());
        }
        self.extend_long(piece.as_bytes()).map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}

impl Drop for SocketWriter<'_> {
    #[inline]
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// A buffered reader and writer of a socket. Python: `io.BufferedRWPair`.
///
/// # Examples
///
/// ```
/// use sock::{SocketPair, SocketReader, SocketWriter};
///
/// let (ours, _theirs) = sock::socketpair()?;
/// let pair = SocketPair { reader: SocketReader::new(&ours, 65_536), writer: SocketWriter::new(&ours, 0) };
/// # drop(pair);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct SocketPair<'a> {
    /// The reading side.
    pub reader: SocketReader<'a>,
    /// The writing side.
    pub writer: SocketWriter<'a>,
}

impl Read for SocketPair<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.reader.read(out)
    }
}

impl BufRead for SocketPair<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }
}

impl Write for SocketPair<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.writer.write(data)
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        self.writer.write_all(data)
    }

    /// Writes in one piece, as [`SocketWriter`] does.
    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        self.writer.write_fmt(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consts::Shutdown;

    /// A stream without a socket, with a list of outcomes.
    struct Script(std::sync::Mutex<Vec<io::Result<&'static [u8]>>>);

    impl Script {
        fn of<const N: usize>(outcomes: [io::Result<&'static [u8]>; N]) -> Script {
            Script(outcomes.into_iter().rev().collect::<Vec<_>>().into())
        }
    }

    impl StreamSocket for Script {
        fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut outcome =
                self.0.lock().unwrap().pop().expect("received after the end of the script")?;
            outcome.read(buffer)
        }

        fn send(&self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().pop().expect("sent after the end of the script")?;
            Ok(data.len())
        }

        fn shutdown(&self, _how: Shutdown) -> io::Result<()> {
            unreachable!("files do not shut the socket down")
        }

        fn socket(&self) -> &Socket {
            unreachable!("files do not use the socket")
        }
    }

    fn fails() -> io::Result<&'static [u8]> {
        Err(io::ErrorKind::TimedOut.into())
    }

    #[test]
    fn a_failed_receive_leaves_an_empty_buffer_of_full_size() {
        let stream = Script::of([Ok(b"abcd"), fails(), fails(), Ok(b"efgh"), Ok(b"")]);
        let mut reader = SocketReader::new(&stream, 4);
        for piece in [&b"abcd"[..], b"efgh"] {
            while reader.fill_buf().is_err() {
                assert_eq!(reader.buffer(), b"");
            }
            assert_eq!(reader.buffer(), piece);
            reader.consume(4);
        }
        assert_eq!(reader.fill_buf().unwrap(), b"");
    }

    #[test]
    fn consume_is_limited_to_the_unread_bytes() {
        let stream = Script::of([Ok(b"abc"), Ok(b"def")]);
        let mut reader = SocketReader::new(&stream, 8);
        reader.fill_buf().unwrap();
        reader.consume(2);
        assert_eq!(reader.buffer(), b"c");
        reader.consume(usize::MAX);
        assert_eq!(reader.buffer(), b"");
        assert_eq!(reader.fill_buf().unwrap(), b"def");
    }

    #[test]
    fn a_reader_allocates_its_buffer_once_and_on_demand() {
        for (bufsize, size) in [(0, 1), (2, 2), (DEFAULT_BUFFER_SIZE, DEFAULT_BUFFER_SIZE)] {
            let stream = Script::of([Ok(b"a"), Ok(b"b")]);
            let mut reader = SocketReader::new(&stream, bufsize);
            assert_eq!(reader.buffer.size(), 0, "{bufsize}");
            assert_eq!(reader.fill_buf().unwrap(), b"a");
            assert_eq!(reader.buffer.size(), size, "{bufsize}");
            let memory = reader.buffer().as_ptr();
            reader.consume(1);
            // A buffer that is passed to another reader keeps its size and memory.
            let mut next = SocketReader::with_buffer(&stream, reader.into_buffer());
            assert_eq!(next.fill_buf().unwrap(), b"b");
            assert_eq!((next.buffer.size(), next.buffer().as_ptr()), (size, memory), "{bufsize}");
        }
    }

    #[test]
    fn an_interrupted_write_is_not_retried() {
        for bufsize in [0, 2] {
            let interrupted = || Err(io::ErrorKind::Interrupted.into());
            let stream = Script::of([interrupted(), Ok(b"")]);
            let mut writer = SocketWriter::new(&stream, bufsize);
            let error = writer.write_all(b"partly sent").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "{bufsize}");
            assert_eq!(stream.0.lock().unwrap().len(), 1, "{bufsize}: sent again");
        }
    }

    /// A number of `length` digits, formatted in pieces of one byte.
    struct Digits(usize);

    impl fmt::Display for Digits {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (0..self.0).try_for_each(|n| f.write_str(["0", "1", "2"][n % 3]))
        }
    }

    #[test]
    fn a_text_of_any_length_is_formatted_completely() {
        for length in (0..4).chain(SHORT - 3..SHORT + 4).chain([10_000]) {
            let expected = format!("<{}>\n", Digits(length));
            let formatted = Formatted::new(format_args!("<{}>\n", Digits(length))).unwrap();
            assert!(formatted.bytes() == expected.as_bytes(), "{length}");
            assert_eq!(formatted.long.is_empty(), expected.len() <= SHORT, "{length}: allocated");
        }
    }

    #[test]
    fn nothing_is_written_if_formatting_fails() {
        struct Fails;
        impl fmt::Display for Fails {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        for bufsize in [0, 100] {
            let stream = Script::of([]);
            let mut writer = SocketWriter::new(&stream, bufsize);
            let error = write!(writer, "one part {}", Fails).unwrap_err();
            assert_eq!(error.to_string(), "formatter error");
            assert_eq!(writer.buffer, b"", "{bufsize}");
        }
    }

    #[test]
    fn a_writer_allocates_its_buffer_once_and_on_demand() {
        let stream = Script::of([Ok(b""), Ok(b""), Ok(b"")]);
        let mut writer = SocketWriter::new(&stream, 100);
        assert_eq!(writer.buffer.capacity(), 0);
        for _ in 0..3 {
            writer.write_all(&[0; 60]).unwrap();
            assert_eq!((writer.buffer.len(), writer.buffer.capacity()), (60, 100));
        }
        writer.flush().unwrap();
        assert_eq!((writer.buffer.len(), writer.buffer.capacity()), (0, 100));
    }

    #[test]
    fn a_failed_write_leaves_nothing_in_the_buffer() {
        let stream = Script::of([fails(), fails()]);
        let mut writer = SocketWriter::new(&stream, 10);
        writer.write_all(b"buffered").unwrap();
        writer.write_all(b"exceeds").unwrap_err();
        assert_eq!(writer.buffer, b"");
        writer.write_all(&[0; 10]).unwrap_err();
        assert_eq!(writer.buffer, b"");
    }
}
