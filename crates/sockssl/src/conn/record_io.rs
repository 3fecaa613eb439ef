//! Bytes on their way: records that come, and what has to go.

use std::io;
use std::ops::Range;
use std::time::Duration;

use sock::{Deadline, Socket};

/// The least that is asked for; grown for who receives much.
const SMALL: usize = 4096;
const LARGE: usize = 64 * 1024;
/// A record's header, and the most that may follow it (RFC 5246: 2^14 + 2048).
const HEADER: usize = 5;
const LONGEST: usize = HEADER + (1 << 14) + 2048;

/// Received bytes, cut into records. What follows the last record of TLS stays
/// here, so that nothing is lost when the connection goes on without.
#[derive(Default)]
pub(crate) struct RecordReader {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl RecordReader {
    /// Where the next record is, once all of it has come. Bytes that begin no
    /// record are given as they are, for the library to refuse.
    pub(crate) fn next(&self) -> Option<Range<usize>> {
        let unread = self.unread();
        let header = unread.first_chunk::<HEADER>()?;
        let length = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !(20..=24).contains(&header[0]) || header[1] != 3 || length > LONGEST {
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

    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Receives what there is, once; 0 is the end of file.
    pub(crate) fn fill(&mut self, sock: &Socket, deadline: &mut Deadline<'_>) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            // Full: a long record, or a sender who is faster.
            let size = if self.end == 0 { SMALL } else { (self.end * 4).min(LARGE) };
            self.bytes.resize(size.max(self.end + 1), 0);
        }
        let received = receive(sock, &mut self.bytes[self.end..], deadline)?;
        self.end += received;
        Ok(received)
    }
}

/// Records that were made and not yet sent.
#[derive(Default)]
pub(crate) struct SendBuffer {
    pub(crate) bytes: Vec<u8>,
    sent: usize,
}

impl SendBuffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Sends all of it.
    pub(crate) fn flush(&mut self, sock: &Socket, deadline: &mut Deadline<'_>) -> io::Result<()> {
        while !self.is_empty() {
            self.sent += send(sock, &self.bytes[self.sent..], deadline)?;
            if !self.is_empty() && deadline.left().is_some_and(|left| left.is_zero()) {
                return Err(timed_out_or_would_block(sock));
            }
        }
        self.bytes.clear();
        self.sent = 0;
        // A connection at rest holds no memory for what it once sent.
        if self.bytes.capacity() > LONGEST {
            self.bytes = Vec::new();
        }
        Ok(())
    }

    /// Sends all of it by `deadline`, whatever the socket's mode. With [`Input::Discard`]
    /// a peer that reads nothing until we have read does not block it.
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
                    let left = deadline.left().unwrap_or_default();
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
                        let mut waste = [0; SMALL];
                        sock.recv_into_nowait(&mut waste).is_ok_and(|received| received > 0)
                    };
                    // At the end of the input the socket stays readable.
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

/// What becomes of input while something is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    Keep,
    Discard,
}

/// Waits until at most `allowed` bytes are unacknowledged. It reads nothing.
pub(crate) fn await_acknowledgement(sock: &Socket, deadline: &mut Deadline<'_>, allowed: usize) {
    let mut pause = Duration::from_millis(1);
    while sock.send_queue().is_ok_and(|queued| queued > allowed) {
        let left = deadline.left().unwrap_or_default();
        // No event reports an acknowledgement; an error is always reported.
        let mut set = [sock::Poll::new(sock, 0)];
        if left.is_zero() || sock::poll(&mut set, Some(pause.min(left))).is_ok_and(|ready| ready > 0) {
            return;
        }
        pause = (pause * 2).min(Duration::from_millis(16));
    }
}

/// Sends without waiting, on a descriptor that blocks too.
fn send_at_once(sock: &Socket, data: &[u8]) -> io::Result<usize> {
    let mut never_waits = Deadline::new(Some(Duration::ZERO));
    if sock.gettimeout().is_some() {
        return sock.send_within(data, &mut never_waits);
    }
    #[cfg(unix)]
    {
        sock.send_with_flags(data, sock::MSG_DONTWAIT)
    }
    #[cfg(not(unix))]
    {
        // There is no such flag; writable means room for a little at least.
        if sock::poll(&mut [sock::Poll::new(sock, sock::POLLOUT)], Some(Duration::ZERO))? == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        sock.send_within(&data[..data.len().min(1024)], &mut never_waits)
    }
}

fn receive(sock: &Socket, buffer: &mut [u8], deadline: &mut Deadline<'_>) -> io::Result<usize> {
    sock.recv_into_within(buffer, deadline).map_err(|error| expired(sock, error))
}

fn send(sock: &Socket, data: &[u8], deadline: &mut Deadline<'_>) -> io::Result<usize> {
    sock.send_within(data, deadline).map_err(|error| expired(sock, error))
}

/// On a descriptor that blocks EAGAIN is the end of `SO_RCVTIMEO` or `SO_SNDTIMEO`.
fn expired(sock: &Socket, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock && sock.gettimeout().is_none() {
        return timed_out();
    }
    error
}

/// The end of a deadline, as the socket's mode calls it.
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
        RecordReader { bytes: bytes.to_vec(), start: 0, end: bytes.len() }
    }

    #[test]
    fn a_record_is_given_when_all_of_it_is_there() {
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
    fn what_is_no_record_is_given_as_it_is() {
        for bytes in [&b"GET / HTTP/1.0"[..], &[22, 2, 0, 0, 1], &[22, 3, 1, 0xff, 0xff]] {
            assert_eq!(with(bytes).next(), Some(0..bytes.len()));
        }
    }
}
