//! Messages with ancillary data, and several messages in one call. Unix only.

pub(crate) mod ancillary;
pub(crate) mod batch;
pub(crate) mod cmsg;
pub(crate) mod credentials;
mod receive_rest;

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::address::{Address, ToAddress};
use crate::call::deadline::Readiness;
use crate::call::trace::{self, TraceValue, call, first_bytes};
use crate::consts::{MSG_PEEK, MsgFlags};
use crate::error::invalid;
use crate::socket::Socket;
use crate::socket::message::cmsg::{Ancillary, CMSG_LEN};
use crate::socket::send_recv::{connected, sent_flags};
use crate::sys::{self, AsFd, c, message};

/// Room for items that are received only to detect where a receive ends.
const HIDDEN: usize = 256;

/// A message received by [`Socket::recvmsg`].
///
/// # Examples
///
/// ```
/// use sock::{AF_UNIX, MSG_TRUNC, Message, SOCK_DGRAM};
///
/// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
/// theirs.send(b"too long")?;
/// let Message { data, ancillary, flags, .. } = ours.recvmsg(3, 0)?;
/// assert!(data == b"too" && ancillary.is_empty() && flags.contains(MSG_TRUNC));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Message {
    /// The received bytes, empty at the end of a stream.
    pub data: Vec<u8>,
    /// The ancillary data.
    pub ancillary: Vec<Ancillary<'static>>,
    /// `MSG_TRUNC` if the datagram was truncated, `MSG_CTRUNC` if the ancillary data was, and other
    /// flags. Python: `msg_flags`.
    pub flags: MsgFlags,
    /// The address of the sender.
    pub address: Address,
}

/// A message received by [`Socket::recvmsg_into`].
///
/// # Examples
///
/// ```
/// use std::io::IoSliceMut;
/// use sock::MessageInto;
///
/// let (ours, theirs) = sock::socketpair()?;
/// theirs.sendall(b"hello")?;
/// let mut buffer = [0; 100];
/// let MessageInto { received, .. } = ours.recvmsg_into(&mut [IoSliceMut::new(&mut buffer)], 0)?;
/// assert_eq!(&buffer[..received], b"hello");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct MessageInto {
    /// The number of bytes received.
    pub received: usize,
    /// The ancillary data.
    pub ancillary: Vec<Ancillary<'static>>,
    /// The flags, as in [`Message`].
    pub flags: MsgFlags,
    /// The address of the sender.
    pub address: Address,
}

/// Messages. Unix only, as in Python.
impl Socket {
    /// Receives up to `bufsize` bytes and up to `ancbufsize` bytes of ancillary data.
    ///
    /// [`CMSG_SPACE`](crate::CMSG_SPACE) returns the number of bytes that an item needs.
    ///
    /// Python: `recvmsg(bufsize, ancbufsize)`. System call: recvmsg(2), once, with
    /// `MSG_CMSG_CLOEXEC` if the system has it.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does, or if `ancbufsize` exceeds `i32::MAX`
    /// (`InvalidInput`).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{AF_UNIX, MSG_TRUNC, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"too long")?;
    /// let message = ours.recvmsg(3, 0)?;
    /// assert_eq!(message.data, b"too");
    /// assert!(message.flags.contains(MSG_TRUNC));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvmsg(&self, bufsize: usize, ancbufsize: usize) -> io::Result<Message> {
        self.recvmsg_with_flags(bufsize, ancbufsize, MsgFlags::NONE)
    }

    /// Receives as [`recvmsg`](Socket::recvmsg), with flags. Python: `recvmsg(bufsize, ancbufsize,
    /// flags)`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::MSG_PEEK;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"hello")?;
    /// assert_eq!(ours.recvmsg_with_flags(2, 0, MSG_PEEK)?.data, b"he");
    /// assert_eq!(ours.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvmsg_with_flags(
        &self,
        bufsize: usize,
        ancbufsize: usize,
        flags: MsgFlags,
    ) -> io::Result<Message> {
        let mut data = sys::zeroes(bufsize)?;
        let MessageInto { received, ancillary, flags, address } =
            self.recvmsg_into_with_flags(&mut [IoSliceMut::new(&mut data)], ancbufsize, flags)?;
        // With MSG_TRUNC in the flags, `received` is the real length of the datagram.
        data.truncate(received);
        Ok(Message { data, ancillary, flags, address })
    }

    /// Receives into several buffers, filling one after the other.
    ///
    /// Python: `recvmsg_into(buffers, ancbufsize)`. System call: recvmsg(2), once.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSliceMut;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"head and body")?;
    /// let (mut head, mut body) = ([0; 4], [0; 100]);
    /// let message = ours.recvmsg_into(&mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)], 0)?;
    /// assert_eq!((message.received, &head), (13, b"head"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvmsg_into(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        ancbufsize: usize,
    ) -> io::Result<MessageInto> {
        self.recvmsg_into_with_flags(buffers, ancbufsize, MsgFlags::NONE)
    }

    /// Receives as [`recvmsg_into`](Socket::recvmsg_into), with flags.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSliceMut;
    /// use sock::{AF_UNIX, MSG_TRUNC, SOCK_DGRAM};
    ///
    /// let (ours, theirs) = sock::socketpair_with(AF_UNIX, SOCK_DGRAM, 0)?;
    /// theirs.send(b"too long")?;
    /// # if cfg!(target_os = "linux") {
    /// let message = ours.recvmsg_into_with_flags(&mut [IoSliceMut::new(&mut [0; 3])], 0, MSG_TRUNC)?;
    /// assert_eq!(message.received, 8); // five bytes are discarded
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recvmsg_into_with_flags(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        ancbufsize: usize,
        flags: MsgFlags,
    ) -> io::Result<MessageInto> {
        if ancbufsize > i32::MAX as usize {
            return Err(invalid(format!("ancbufsize {ancbufsize} is more than {}", i32::MAX)));
        }
        let fd = self.fileno();
        let count = buffers.len();
        let least = self.receives_at_least(buffers.iter().map(|buffer| buffer.len()).sum(), flags);
        // Descriptors end a receive, so they must be seen even if the caller does not want them.
        let hidden = ancbufsize == 0 && least > 1;
        let ancbufsize = if hidden { HIDDEN } else { ancbufsize };
        let mut received = self.retry_with_flags(Readiness::Readable, flags, || {
            if trace::enabled() {
                let size = buffers.iter().map(|buffer| buffer.len()).sum();
                let raw = MsgFlags::from(flags.as_raw() | message::RECEIVE_FLAGS);
                let mut length = 0;
                let received = call!(data: buffers.first().map_or(String::new(), |buffer| {
                        first_bytes(&buffer[..buffer.len().min(length)])
                    }); "recvmsg({fd}, {count} buffers, {ancbufsize}, {raw})" =>
                    message::recvmsg(self.as_fd(), buffers, ancbufsize, flags.as_raw())
                        .inspect(|received| length = received.bytes))?;
                if !flags.contains(MSG_PEEK) {
                    self.hint_message("recvmsg", size, received.bytes, received.flags.into());
                }
                return Ok(received);
            }
            message::recvmsg(self.as_fd(), buffers, ancbufsize, flags.as_raw())
        })?;
        if 0 < received.bytes && received.bytes < least {
            self.receive_rest(buffers, &mut received, ancbufsize, least, flags);
        }
        if hidden && !received.items.is_empty() {
            received.items.clear();
            received.flags |= c::MSG_CTRUNC;
        }
        Ok(MessageInto {
            received: received.bytes,
            ancillary: received.items.into_iter().map(Ancillary::from).collect(),
            flags: received.flags.into(),
            address: Address::from_sys(&received.address),
        })
    }

    /// Receives in several pieces where a blocking call would wait for more, or returns `None`.
    #[inline]
    pub(crate) fn recv_in_pieces(
        &self,
        buffer: &mut [u8],
        flags: MsgFlags,
    ) -> Option<io::Result<(usize, Address)>> {
        if !self.receives_in_pieces(buffer.len(), flags) {
            return None;
        }
        let message = self.recvmsg_into_with_flags(&mut [IoSliceMut::new(buffer)], 0, flags);
        Some(message.map(|message| (message.received, message.address)))
    }

    /// Sends the bytes of all buffers as one message, with ancillary data.
    ///
    /// Returns the number of bytes sent.
    ///
    /// Python: `sendmsg(buffers, ancdata)`. System call: sendmsg(2) with
    /// `MSG_NOSIGNAL`, once.
    ///
    /// # Errors
    ///
    /// Returns an error if [`send`](Socket::send) does, if the socket does not accept the ancillary
    /// data (`EINVAL`), or if an `SCM_RIGHTS` item was not created from descriptors
    /// (`InvalidInput`).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.sendmsg(&[IoSlice::new(b"head"), IoSlice::new(b" and body")], &[])?;
    /// assert_eq!(theirs.recv(100)?, b"head and body");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendmsg(&self, buffers: &[IoSlice<'_>], ancillary: &[Ancillary<'_>]) -> io::Result<usize> {
        self.send_message(buffers, ancillary, MsgFlags::NONE, None)
    }

    /// Sends as [`sendmsg`](Socket::sendmsg), with flags. Python: `sendmsg(buffers, ancdata,
    /// flags)`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendmsg`](Socket::sendmsg) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::MSG_DONTWAIT;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// ours.sendmsg_with_flags(&[IoSlice::new(b"at once")], &[], MSG_DONTWAIT)?;
    /// assert_eq!(theirs.recv(100)?, b"at once");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendmsg_with_flags(
        &self,
        buffers: &[IoSlice<'_>],
        ancillary: &[Ancillary<'_>],
        flags: MsgFlags,
    ) -> io::Result<usize> {
        self.send_message(buffers, ancillary, flags, None)
    }

    /// Sends as [`sendmsg`](Socket::sendmsg), to an address.
    ///
    /// Python: `sendmsg(buffers, ancdata, flags, address)`. System call: sendmsg(2).
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendmsg`](Socket::sendmsg) or [`sendto`](Socket::sendto) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{AF_INET, MsgFlags, SOCK_DGRAM, Socket};
    ///
    /// let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// receiver.bind(("127.0.0.1", 0))?;
    /// let sender = Socket::new(AF_INET, SOCK_DGRAM, 0)?;
    /// sender.sendmsg_to(&[IoSlice::new(b"hello")], &[], MsgFlags::NONE, receiver.getsockname()?)?;
    /// assert_eq!(receiver.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sendmsg_to(
        &self,
        buffers: &[IoSlice<'_>],
        ancillary: &[Ancillary<'_>],
        flags: MsgFlags,
        address: impl ToAddress,
    ) -> io::Result<usize> {
        let address = address.to_address(self.family())?;
        self.send_message(buffers, ancillary, flags, Some(&address))
    }

    fn send_message(
        &self,
        buffers: &[IoSlice<'_>],
        ancillary: &[Ancillary<'_>],
        flags: MsgFlags,
        address: Option<&Address>,
    ) -> io::Result<usize> {
        let fd = self.fileno();
        ancillary.iter().try_for_each(Ancillary::check)?;
        let items = ancillary.iter().map(|item| (item.level(), item.kind(), item.data()));
        let control = message::build(items).ok_or_else(|| invalid("too much ancillary data"))?;
        let to = address.map(Address::to_sys).transpose()?;
        let (count, of_items) = (buffers.len(), ancillary.len());
        let target = address.unwrap_or(&Address::None);
        let sent = self.retry_with_flags(Readiness::Writable, flags, || {
            call!(data: buffers.first().map_or(String::new(), |buffer| first_bytes(buffer));
                "sendmsg({fd}, {count} buffers, {of_items} items, {}, {target})", sent_flags(flags) =>
                message::sendmsg(self.as_fd(), buffers, &control, flags.as_raw(), to.as_ref()))
        });
        let rest = connected(flags);
        let sent = match sent {
            Err(_) if self.await_fastopen(&sent, flags)? => {
                return self.send_message(buffers, ancillary, rest, None);
            }
            sent => sent?,
        };
        let all = buffers.iter().map(|buffer| buffer.len()).sum();
        Ok(if sent < all {
            self.send_rest_or_hint(buffers.iter().map(|buffer| &**buffer), sent, rest)
        } else {
            sent
        })
    }

    /// Sends descriptors together with some bytes.
    ///
    /// Python: `socket.send_fds(sock, buffers, fds)`. System call: sendmsg(2) with one `SCM_RIGHTS`
    /// item. At least one byte must be sent with them (unix(7)).
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendmsg`](Socket::sendmsg) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{IoSlice, Write};
    /// use sock::{AsFd, Socket};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let (one, other) = sock::socketpair()?;
    /// ours.send_fds(&[IoSlice::new(b"take this")], &[one.as_fd()])?;
    /// drop(one);
    ///
    /// let received = theirs.recv_fds(100, 4)?;
    /// assert_eq!(received.data, b"take this");
    /// let [one] = <[_; 1]>::try_from(received.descriptors).unwrap();
    /// Socket::try_from(one)?.sendall(b"still open")?;
    /// assert_eq!(other.recv(100)?, b"still open");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn send_fds(&self, buffers: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.sendmsg(buffers, &[Ancillary::rights(fds)])
    }

    /// Sends as [`send_fds`](Socket::send_fds), with flags.
    ///
    /// Python: `socket.send_fds(sock, buffers, fds, flags)`, which ignores the flags. System call:
    /// sendmsg(2).
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendmsg`](Socket::sendmsg) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{AsFd, MSG_DONTWAIT};
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let file = std::fs::File::open("Cargo.toml")?;
    /// ours.send_fds_with_flags(&[IoSlice::new(b"a file")], &[file.as_fd()], MSG_DONTWAIT)?;
    /// assert_eq!(theirs.recv_fds(100, 1)?.descriptors.len(), 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn send_fds_with_flags(
        &self,
        buffers: &[IoSlice<'_>],
        fds: &[BorrowedFd<'_>],
        flags: MsgFlags,
    ) -> io::Result<usize> {
        self.sendmsg_with_flags(buffers, &[Ancillary::rights(fds)], flags)
    }

    /// Sends as [`send_fds`](Socket::send_fds), to an address.
    ///
    /// Python: `socket.send_fds(sock, buffers, fds, flags, address)`, which ignores flags and
    /// address. System call: sendmsg(2).
    ///
    /// # Errors
    ///
    /// Returns an error if [`sendmsg_to`](Socket::sendmsg_to) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::{AF_UNIX, AsFd, MsgFlags, SOCK_DGRAM, Socket};
    ///
    /// # if cfg!(target_os = "linux") {
    /// let receiver = Socket::new(AF_UNIX, SOCK_DGRAM, 0)?;
    /// receiver.bind("")?; // the kernel selects a name
    /// let sender = Socket::new(AF_UNIX, SOCK_DGRAM, 0)?;
    /// let file = std::fs::File::open("Cargo.toml")?;
    /// let to = receiver.getsockname()?;
    /// sender.send_fds_to(&[IoSlice::new(b"a file")], &[file.as_fd()], MsgFlags::NONE, to)?;
    /// assert_eq!(receiver.recv_fds(100, 1)?.descriptors.len(), 1);
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn send_fds_to(
        &self,
        buffers: &[IoSlice<'_>],
        fds: &[BorrowedFd<'_>],
        flags: MsgFlags,
        address: impl ToAddress,
    ) -> io::Result<usize> {
        self.sendmsg_to(buffers, &[Ancillary::rights(fds)], flags, address)
    }

    /// Receives up to `bufsize` bytes and up to `maxfds` descriptors.
    ///
    /// Python: `socket.recv_fds(sock, bufsize, maxfds)`, whose descriptors are inheritable. These
    /// are not. The system closes the descriptors beyond `maxfds` and sets `MSG_CTRUNC`.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::IoSlice;
    /// use sock::AsFd;
    ///
    /// let (ours, theirs) = sock::socketpair()?;
    /// let file = std::fs::File::open("Cargo.toml")?;
    /// ours.send_fds(&[IoSlice::new(b"a file")], &[file.as_fd()])?;
    /// let received = theirs.recv_fds(100, 1)?;
    /// let file = std::fs::File::from(received.descriptors.into_iter().next().unwrap());
    /// assert!(file.metadata()?.is_file());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv_fds(&self, bufsize: usize, maxfds: usize) -> io::Result<ReceivedFds> {
        self.recv_fds_with_flags(bufsize, maxfds, MsgFlags::NONE)
    }

    /// Receives as [`recv_fds`](Socket::recv_fds), with flags, which Python accepts but ignores.
    ///
    /// # Errors
    ///
    /// Returns an error if [`recv`](Socket::recv) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::MSG_DONTWAIT;
    ///
    /// let (ours, _theirs) = sock::socketpair()?;
    /// let error = ours.recv_fds_with_flags(100, 1, MSG_DONTWAIT).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn recv_fds_with_flags(
        &self,
        bufsize: usize,
        maxfds: usize,
        flags: MsgFlags,
    ) -> io::Result<ReceivedFds> {
        let size = maxfds.saturating_mul(size_of::<sys::RawFd>());
        // CMSG_LEN and not CMSG_SPACE: the kernel would use the padding of the latter for one more
        // descriptor.
        let ancbufsize = CMSG_LEN(size)?;
        let Message { data, ancillary, flags, address } =
            self.recvmsg_with_flags(bufsize, ancbufsize, flags)?;
        let descriptors = ancillary.into_iter().flat_map(Ancillary::into_descriptors).collect();
        Ok(ReceivedFds { data, descriptors, flags, address })
    }
}

/// A message received by [`Socket::recv_fds`].
///
/// # Examples
///
/// ```
/// use std::io::IoSlice;
/// use sock::AsFd;
///
/// let (ours, theirs) = sock::socketpair()?;
/// let file = std::fs::File::open("Cargo.toml")?;
/// theirs.send_fds(&[IoSlice::new(b"a file")], &[file.as_fd()])?;
/// let sock::ReceivedFds { data, descriptors, .. } = ours.recv_fds(100, 1)?;
/// assert_eq!((data, descriptors.len()), (b"a file".to_vec(), 1));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ReceivedFds {
    /// The received bytes.
    pub data: Vec<u8>,
    /// The received descriptors.
    pub descriptors: Vec<OwnedFd>,
    /// The flags, as in [`Message`].
    pub flags: MsgFlags,
    /// The address of the sender.
    pub address: Address,
}

impl TraceValue for message::Received {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = MsgFlags::from(self.flags);
        write!(
            f,
            "{}, {} items, {flags}, {}",
            self.bytes,
            self.items.len(),
            Address::from_sys(&self.address)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(items: &[(i32, i32, &[u8])]) -> Vec<(i32, i32, Vec<u8>, bool)> {
        let control = message::build(items.iter().copied()).unwrap();
        let parsed = message::parse(control.bytes());
        parsed.into_iter().map(|item| (item.level, item.kind, item.data, item.truncated)).collect()
    }

    #[test]
    fn items_are_parsed_as_they_were_built() {
        let items: [(i32, i32, &[u8]); 3] = [(1, 2, b"one"), (3, 4, b""), (5, 6, b"twelve bytes")];
        let expected: Vec<_> =
            items.iter().map(|(level, kind, data)| (*level, *kind, data.to_vec(), false)).collect();
        assert_eq!(round_trip(&items), expected);
        assert_eq!(round_trip(&[]), []);
    }

    #[test]
    fn a_truncated_buffer_is_parsed_up_to_its_end() {
        let control = message::build([(1, 2, &b"some data"[..]), (3, 4, b"more")].into_iter()).unwrap();
        let whole = control.bytes();
        for end in 0..whole.len() {
            for item in message::parse(&whole[..end]) {
                assert!(b"some data".starts_with(&item.data) || b"more".starts_with(&item.data));
                assert!(item.truncated || item.data.len() == 9 || item.data.len() == 4);
            }
        }
    }

    #[test]
    fn random_bytes_are_parsed_safely() {
        // An xorshift generator.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..10_000 {
            let mut bytes: Vec<u8> = (0..noise() % 80).map(|_| noise() as u8).collect();
            // Plausible lengths reach more of the parser than random ones.
            if bytes.len() > 8 && noise() % 2 == 0 {
                bytes[..8].copy_from_slice(&(noise() % 100).to_ne_bytes());
            }
            let read: usize = message::parse(&bytes).iter().map(|item| item.data.len()).sum();
            assert!(read <= bytes.len());
        }
    }
}
