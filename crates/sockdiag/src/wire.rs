//! Netlink messages and attributes: netlink(7).
//!
//! Every length that a message contains is checked against the bytes that there are, so a message
//! that was cut or damaged is an error and never a panic.

use std::fmt;
use std::io;

/// A request, or a part of an answer, of sock_diag(7).
pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// A request to destroy a socket.
pub(crate) const SOCK_DESTROY: u16 = 21;

pub(crate) const NLMSG_NOOP: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
/// Set in every message of a dump if the tables changed during the dump.
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

/// A message of the kernel whose lengths contradict its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed netlink message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, malformed)
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A number in network byte order, such as a port.
pub(crate) fn be16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Lengths are rounded up to a multiple of four before the next message or attribute.
fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// One message: `struct nlmsghdr` and the bytes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram. After an error the iterator ends.
pub(crate) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Messages<'a> {
        Messages(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some(length) = u32_at(bytes, 0).filter(|_| bytes.len() >= HEADER) else {
            return Some(Err(Malformed("the header is cut off")));
        };
        let length = length as usize;
        let Some(payload) = bytes.get(HEADER..length) else {
            return Some(Err(Malformed("the length of a message is wrong")));
        };
        let (Some(kind), Some(flags), Some(seq)) = (u16_at(bytes, 4), u16_at(bytes, 6), u32_at(bytes, 8))
        else {
            return Some(Err(Malformed("the header is cut off")));
        };
        self.0 = bytes.get(align(length)..).unwrap_or_default();
        Some(Ok(Message { kind, flags, seq, payload }))
    }
}

/// The attributes behind a structure: number and bytes. After an error the iterator ends.
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        // Fewer bytes than a header are padding (nla_ok in linux/netlink.h).
        if bytes.len() < ATTRIBUTE_HEADER {
            return None;
        }
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)?);
        let Some(value) = bytes.get(ATTRIBUTE_HEADER..length) else {
            return Some(Err(Malformed("the length of an attribute is wrong")));
        };
        self.0 = bytes.get(align(length)..).unwrap_or_default();
        // The two highest bits are flags (NLA_TYPE_MASK).
        Some(Ok((kind & 0x3fff, value)))
    }
}

/// Lays out a message: header, payload, padding.
pub(crate) fn message(kind: u16, flags: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let length = HEADER + payload.len();
    let mut bytes = Vec::with_capacity(align(length));
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    // The sender's port: the kernel fills it in.
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.resize(align(length), 0);
    bytes
}

/// Lays out an attribute behind what is already in `bytes`.
pub(crate) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(((ATTRIBUTE_HEADER + value.len()) as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(align(bytes.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back() {
        let datagram = [message(20, 2, 7, b"first"), message(3, 0, 8, b"")].concat();
        let read: Vec<_> = Messages::new(&datagram).map(Result::unwrap).collect();
        assert_eq!(read[0], Message { kind: 20, flags: 2, seq: 7, payload: b"first" });
        assert_eq!(read[1], Message { kind: 3, flags: 0, seq: 8, payload: b"" });
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn a_datagram_that_was_cut_is_an_error_behind_what_is_whole() {
        let datagram = [message(20, 0, 7, b"whole"), message(20, 0, 7, b"cut off")].concat();
        for length in 0..datagram.len() {
            let read: Vec<_> = Messages::new(&datagram[..length]).collect();
            let errors = read.iter().filter(|message| message.is_err()).count();
            let whole = read.len() - errors;
            assert_eq!(
                whole,
                [0, 21, 24 + 23].iter().filter(|end| length >= **end).count() - 1,
                "{length}"
            );
            assert!(errors <= 1 && read[..whole].iter().all(Result::is_ok), "{length}");
        }
    }

    #[test]
    fn lengths_that_are_too_short_or_too_long_are_errors() {
        for length in [0_u32, 15, 17, u32::MAX, u32::MAX - 2] {
            let mut datagram = message(20, 0, 7, b"");
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            let read: Vec<_> = Messages::new(&datagram).collect();
            assert_eq!(read, [Err(Malformed("the length of a message is wrong"))], "{length}");
        }
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut bytes = Vec::new();
            push_attribute(&mut bytes, 5, b"four");
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            let read: Vec<_> = Attributes::new(&bytes).collect();
            assert_eq!(read, [Err(Malformed("the length of an attribute is wrong"))], "{length}");
        }
    }

    #[test]
    fn attributes_are_read_back_without_their_flags() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 0x8005, b"one");
        push_attribute(&mut bytes, 6, b"");
        bytes.push(0);
        let read: Vec<_> = Attributes::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(read, [(5, &b"one"[..]), (6, b"")]);
    }
}
