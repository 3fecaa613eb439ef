//! Buffers between the socket and the engine: received records, and records to send.

use std::io;
use std::ops::Range;
use std::time::Duration;

use sock::{Deadline, Socket};

/// The smallest and the largest size of the receive buffer. It grows when it is filled.
const MIN_READ: usize = 4096;
const MAX_READ: usize = 64 * 1024;
/// The length of a record's header, and the longest record (RFC 5246: 2^14 + 2048 bytes follow).
const HEADER_LEN: usize = 5;
const MAX_RECORD_LEN: usize = HEADER_LEN + (1 << 14) + 2048;

/// Splits received bytes into records. Bytes after the last TLS record stay here, so that
/// `unwrap_tls` can return them.
#[derive(Default)]
pub(crate) struct RecordReader {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The last receive did not fill its buffer, so the socket had no more.
    drained: bool,
}

impl RecordReader {
    /// Returns the range of the next record if all of it was received. Bytes that do not start
    /// a record are returned unchanged, so that the engine rejects them.
    pub(crate) fn next(&self) -> Option<Range<usize>> {
        let unread = self.unread();
        let header = unread.first_chunk::<HEADER_LEN>()?;
        let length = HEADER_LEN + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !(20..=24).contains(&header[0]) || header[1] != 3 || length > MAX_RECORD_LEN {
            return Some(self.start..self.end);
        }
        (unread.len() >= length).then_some(self.start..self.start + length)
    }

    pub(crate) fn get(&self, record: &Range<usize>) -> &[u8] {
        &self.bytes[record.clone()]
    }

    pub(crate) fn consume(&mut self, record: &Range<usize>) {
        self.start = record.end;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Returns whether the last receive has emptied the socket, and no complete record is left here.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained && self.next().is_none()
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Receives once and returns the number of bytes; 0 is the end of file.
    pub(crate) fn fill(&mut self, sock: &Socket, deadline: &mut Deadline<'_>) -> io::Result<usize> {
        self.fill_by(|buffer| receive(sock, buffer, deadline))
    }

    /// As [`fill`](Self::fill), without waiting in any mode of the socket.
    pub(crate) fn fill_nowait(&mut self, sock: &Socket) -> io::Result<usize> {
        self.fill_by(|buffer| sock.recv_into_nowait(buffer))
    }

    fn fill_by(&mut self, receive: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            // The buffer is full, because of a long record or a fast sender.
            let size = if self.end == 0 { MIN_READ } else { (self.end * 4).min(MAX_READ) };
            self.bytes.resize(size.max(self.end + 1), 0);
        }
        let room = &mut self.bytes[self.end..];
        let size = room.len();
        let received = receive(room)?;
        self.drained = received < size;
        self.end += received;
        Ok(received)
    }
}

/// Encrypted records that were not sent yet.
#[derive(Default)]
pub(crate) struct SendBuffer {
    pub(crate) bytes: Vec<u8>,
    sent: usize,
}

impl SendBuffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Sends everything in the buffer.
    pub(crate) fn flush(&mut self, sock: &Socket, deadline: &mut Deadline<'_>) -> io::Result<()> {
        while !self.is_empty() {
            self.sent += send(sock, &self.bytes[self.sent..], deadline)?;
            if !self.is_empty() && deadline.remaining().is_some_and(|left| left.is_zero()) {
                return Err(timed_out_or_would_block(sock));
            }
        }
        self.bytes.clear();
        self.sent = 0;
        // An idle connection keeps no large buffer.
        if self.bytes.capacity() > MAX_RECORD_LEN {
            self.bytes = Vec::new();
        }
        Ok(())
    }

    /// Sends everything by `deadline`, in every mode of the socket. With [`Input::Discard`]
    /// received data is discarded, so that a peer that is sending too does not block this side.
    pub(crate) fn flush_by(
        &mut self,
        sock: &Socket,
        deadline: &mut Deadline<'_>,
        mut input: Input,
    ) -> io::Result<()> {
        while !self.is_empty() {
            match send_at_once(sock, &self.bytes[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = deadline.remaining().unwrap_or_default();
                    if left.is_zero() {
                        return Err(error);
                    }
                    let reads = if input == Input::Discard { sock::POLLIN } else { 0 };
                    let mut set = [sock::Poll::new(sock, sock::POLLOUT | reads)];
                    match sock::poll(&mut set, Some(left)) {
                        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                        _ => {}
                    }
                    let discarded = set[0].revents() & reads != 0 && {
                        let mut discard = [0; MIN_READ];
                        sock.recv_into_nowait(&mut discard).is_ok_and(|received| received > 0)
                    };
                    // At end of file the socket stays readable.
                    if set[0].revents() & reads != 0 && !discarded {
                        input = Input::Keep;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Whether received data is discarded while data is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Keep,
    Discard,
}

/// Waits until at most `allowed` bytes are unacknowledged. Receives nothing.
pub(crate) fn await_acknowledgement(sock: &Socket, deadline: &mut Deadline<'_>, allowed: usize) {
    let mut pause = Duration::from_millis(1);
    while sock.send_queue().is_ok_and(|queued| queued > allowed) {
        let left = deadline.remaining().unwrap_or_default();
        // poll(2) has no event for an acknowledgement. It always reports errors.
        let mut set = [sock::Poll::new(sock, 0)];
        if left.is_zero() || sock::poll(&mut set, Some(pause.min(left))).is_ok_and(|ready| ready > 0) {
            return;
        }
        pause = (pause * 2).min(Duration::from_millis(16));
    }
}

/// Sends without waiting, even on a blocking descriptor.
fn send_at_once(sock: &Socket, data: &[u8]) -> io::Result<usize> {
    let mut no_wait = Deadline::new(Some(Duration::ZERO));
    if sock.gettimeout().is_some() {
        return sock.send_within(data, &mut no_wait);
    }
    #[cfg(unix)]
    {
        sock.send_with_flags(data, sock::MSG_DONTWAIT)
    }
    #[cfg(not(unix))]
    {
        // There is no `MSG_DONTWAIT`. A writable socket has room for a few bytes at least.
        if sock::poll(&mut [sock::Poll::new(sock, sock::POLLOUT)], Some(Duration::ZERO))? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        sock.send_within(&data[..data.len().min(1024)], &mut no_wait)
    }
}

fn receive(sock: &Socket, buffer: &mut [u8], deadline: &mut Deadline<'_>) -> io::Result<usize> {
    sock.recv_into_within(buffer, deadline).map_err(|error| map_timeout(sock, error))
}

fn send(sock: &Socket, data: &[u8], deadline: &mut Deadline<'_>) -> io::Result<usize> {
    sock.send_within(data, deadline).map_err(|error| map_timeout(sock, error))
}

/// Maps EAGAIN of a blocking descriptor, which means that `SO_RCVTIMEO` or `SO_SNDTIMEO` expired.
fn map_timeout(sock: &Socket, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock && sock.gettimeout().is_none() {
        return timed_out();
    }
    error
}

/// Makes the error for an expired deadline, which depends on the socket's mode.
pub(crate) fn timed_out_or_would_block(sock: &Socket) -> io::Error {
    match sock.gettimeout() {
        Some(timeout) if timeout.is_zero() => io::ErrorKind::WouldBlock.into(),
        _ => timed_out(),
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "timed out")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(bytes: &[u8]) -> RecordReader {
        RecordReader { bytes: bytes.to_vec(), start: 0, end: bytes.len(), drained: false }
    }

    #[test]
    fn a_record_is_returned_once_it_is_complete() {
        let record = [22, 3, 1, 0, 3, 7, 8, 9];
        for end in 0..record.len() {
            assert_eq!(with(&record[..end]).next(), None, "{end}");
        }
        let mut incoming = with(&[&record[..], &record[..6]].concat());
        assert_eq!(incoming.next(), Some(0..8));
        incoming.consume(&(0..8));
        assert_eq!(incoming.next(), None);
        assert_eq!(incoming.unread(), &record[..6]);
    }

    #[test]
    fn a_reader_is_drained_after_a_short_receive_without_a_complete_record() {
        let record = [22, 3, 1, 0, 3, 7, 8, 9];
        let mut incoming = RecordReader::default();
        assert!(!incoming.is_drained(), "nothing was received");
        let fill = |incoming: &mut RecordReader, bytes: &[u8]| {
            let take = |room: &mut [u8]| {
                let count = bytes.len().min(room.len());
                room[..count].copy_from_slice(&bytes[..count]);
                Ok(count)
            };
            incoming.fill_by(take).unwrap()
        };
        fill(&mut incoming, &record[..6]);
        assert!(incoming.is_drained(), "a part of a record cannot be used");
        fill(&mut incoming, &record[6..]);
        assert!(!incoming.is_drained(), "a record is complete");
        incoming.consume(&(0..8));
        assert!(incoming.is_drained());
        // A receive that fills the buffer may have left more in the socket.
        fill(&mut incoming, &[0; 2 * MIN_READ]);
        assert!(!incoming.is_drained());
    }

    #[test]
    fn bytes_that_are_not_a_record_are_returned_unchanged() {
        for bytes in [&b"GET / HTTP/1.0"[..], &[22, 2, 0, 0, 1], &[22, 3, 1, 0xff, 0xff]] {
            assert_eq!(with(bytes).next(), Some(0..bytes.len()));
        }
    }
}
