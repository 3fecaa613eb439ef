//! A reader's buffer, which outlives the reader.

use std::io;

use crate::sys;

/// Memory of a reader and what was received but not yet read.
///
/// A server lends one such buffer to connection after connection: see
/// [`SocketReader::with_buffer`](crate::SocketReader::with_buffer).
///
/// # Examples
///
/// ```
/// use sock::{ReadBuffer, SocketReader};
/// use std::io::BufRead;
///
/// let (ours, theirs) = sock::socketpair()?;
/// theirs.sendall(b"one\ntwo\n")?;
/// let mut reader = SocketReader::with_buffer(&ours, ReadBuffer::new(100));
/// reader.read_line(&mut String::new())?;
/// assert_eq!(reader.into_buffer().unread(), b"two\n");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Default)]
pub struct ReadBuffer(Option<Box<Buffer>>);

/// Behind a pointer: it goes from hand to hand with each request.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    /// While there are no bytes, since there was no memory for them, both say how
    /// many there should be.
    start: usize,
    end: usize,
}

impl ReadBuffer {
    /// No buffer yet.
    pub const NONE: ReadBuffer = ReadBuffer(None);

    /// An empty buffer of `size` bytes. If there is no memory for them, reading
    /// fails with `OutOfMemory`.
    #[must_use]
    pub fn new(size: usize) -> ReadBuffer {
        ReadBuffer(Some(Box::new(match sys::zeroes(size) {
            Ok(bytes) => Buffer { bytes: bytes.into(), start: 0, end: 0 },
            Err(_) => Buffer { bytes: Box::default(), start: size, end: size },
        })))
    }

    /// Receives into the whole buffer, in place of what is unread in it. A receive that
    /// fails leaves it empty. A buffer of no size, such as the default one, gets one byte.
    ///
    /// # Errors
    ///
    /// Those of `receive`; `OutOfMemory` when there is no memory for the buffer.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"ahead")?;
    /// let mut buffer = sock::ReadBuffer::new(100);
    /// buffer.receive(|room| ours.recv_into(room))?;
    /// assert_eq!(buffer.unread(), b"ahead");
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn receive(&mut self, receive: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let buffer = match &mut self.0 {
            Some(buffer) if !buffer.bytes.is_empty() => buffer,
            _ => self.allocate()?,
        };
        (buffer.start, buffer.end) = (0, 0);
        buffer.end = receive(&mut buffer.bytes)?;
        Ok(buffer.end)
    }

    /// Takes what is unread, as much of it as `room` holds; returns how much that is.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"ahead")?;
    /// let mut buffer = sock::ReadBuffer::new(100);
    /// buffer.receive(|room| ours.recv_into(room))?;
    /// assert_eq!(buffer.take(&mut [0; 2]), 2);
    /// assert_eq!(buffer.unread(), b"ead");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn take(&mut self, room: &mut [u8]) -> usize {
        let unread = self.unread();
        let count = unread.len().min(room.len());
        room[..count].copy_from_slice(&unread[..count]);
        self.consume(count);
        count
    }

    #[inline]
    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        if let Some(buffer) = &mut self.0 {
            buffer.start = buffer.start.saturating_add(count).min(buffer.end);
        }
    }

    /// Bytes received and not yet read.
    #[inline]
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        let unread = self.0.as_ref().and_then(|buffer| buffer.bytes.get(buffer.start..buffer.end));
        unread.unwrap_or_default()
    }

    /// How much the buffer can hold.
    #[inline]
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(0, |buffer| buffer.bytes.len().max(buffer.start))
    }

    /// Tries once more to have memory.
    #[cold]
    fn allocate(&mut self) -> io::Result<&mut Buffer> {
        let bytes = sys::zeroes(self.size().max(1))?.into();
        Ok(self.0.insert(Box::new(Buffer { bytes, start: 0, end: 0 })))
    }
}
