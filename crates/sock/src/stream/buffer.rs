//! A read buffer that can be passed from one reader to the next.

use std::io;

use crate::stream::StreamSocket;
use crate::sys;

/// The buffer of a reader, with the bytes that were received but not yet read.
///
/// A server reuses one buffer for many connections: see
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
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct ReadBuffer(Option<Box<Buffer>>);

/// A stream that fills the buffers of its readers itself, and so can pass a buffer on without
/// copying it.
#[doc(hidden)]
pub trait FillBuffer: StreamSocket {
    /// Refills an empty read buffer, allocating `size` bytes if needed. A buffer that is still empty
    /// afterwards means end of file.
    fn fill(&self, buffer: &mut ReadBuffer, size: usize) -> io::Result<()>;
}

/// Boxed, so that moving a `ReadBuffer` with each request moves one pointer.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    /// While `bytes` is empty because its allocation failed, both hold the wanted size.
    start: usize,
    end: usize,
}

impl ReadBuffer {
    /// No buffer yet.
    pub const NONE: ReadBuffer = ReadBuffer(None);

    /// Creates an empty buffer of `size` bytes.
    ///
    /// If the allocation fails, reading fails with `OutOfMemory`.
    #[must_use]
    pub fn new(size: usize) -> ReadBuffer {
        ReadBuffer(Some(Box::new(match sys::zeroes(size) {
            Ok(bytes) => Buffer { bytes: bytes.into(), start: 0, end: 0 },
            Err(_) => Buffer { bytes: Box::default(), start: size, end: size },
        })))
    }

    /// Receives into the whole buffer, replacing unread bytes.
    ///
    /// After a failed receive the buffer is empty. A buffer of size 0, such as the default one, is
    /// enlarged to one byte.
    ///
    /// # Errors
    ///
    /// Returns an error if `receive` does, or if the buffer cannot be allocated (`OutOfMemory`).
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

    /// Moves unread bytes into `room` and returns their number.
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

    /// Makes `bytes`, which were read, unread again. The buffer has no other unread bytes.
    #[cold]
    pub(crate) fn put_back(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.unread().is_empty());
        let end = bytes.len();
        match &mut self.0 {
            Some(buffer) if buffer.bytes.len() >= end => {
                buffer.bytes[..end].copy_from_slice(&bytes);
                (buffer.start, buffer.end) = (0, end);
            }
            // The reader replaces it by a buffer of its size once these bytes have been read.
            _ => self.0 = Some(Box::new(Buffer { bytes: bytes.into(), start: 0, end })),
        }
    }

    /// Returns the bytes that were received but not yet read.
    #[inline]
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        let unread = self.0.as_ref().and_then(|buffer| buffer.bytes.get(buffer.start..buffer.end));
        unread.unwrap_or_default()
    }

    /// Returns the size of the buffer.
    #[inline]
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(0, |buffer| buffer.bytes.len().max(buffer.start))
    }

    /// Tries again to allocate the buffer.
    #[cold]
    fn allocate(&mut self) -> io::Result<&mut Buffer> {
        let bytes = sys::zeroes(self.size().max(1))?.into();
        Ok(self.0.insert(Box::new(Buffer { bytes, start: 0, end: 0 })))
    }
}
