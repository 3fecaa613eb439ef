//! Several datagrams in one call: recvmmsg(2) and sendmmsg(2) on Linux, and loops of recvmsg(2) and
//! sendmsg(2) elsewhere. Unix only.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

use super::message::{self, Control};
use super::{c, send_flags};

#[cfg(target_os = "linux")]
use kernel as many;
#[cfg(not(target_os = "linux"))]
use one_by_one as many;

#[cfg(target_os = "linux")]
type Header = c::mmsghdr;

/// Has the fields of Linux's `mmsghdr`.
#[cfg(not(target_os = "linux"))]
struct Header {
    msg_hdr: c::msghdr,
    msg_len: u32,
}

/// Receives into headers. An error after at least one datagram is left for the next call.
///
/// Safe if every pointer in the headers points to a live buffer of the length beside it that is not
/// used elsewhere.
type Receive = unsafe fn(BorrowedFd<'_>, &mut [Header], i32, &mut Option<io::Error>) -> io::Result<usize>;

/// Sends the first headers, and returns their number.
///
/// Safe if every pointer in the headers points to live bytes of the length beside it.
type SendSome = unsafe fn(BorrowedFd<'_>, &mut [Header], i32) -> io::Result<usize>;

/// Buffers for datagrams, allocated once: their bytes, their senders, and the headers for the
/// system.
pub(crate) struct Slots {
    size: usize,
    bytes: Vec<u8>,
    names: Vec<c::sockaddr_storage>,
    iovecs: Vec<c::iovec>,
    headers: Vec<Header>,
    /// Room for ancillary data, `control_words` for each datagram.
    control: Vec<u64>,
    control_words: usize,
    /// Number of datagrams of the last call.
    filled: usize,
    /// An error that followed datagrams, for the next call. Linux stores it itself.
    pending: Option<io::Error>,
}

// SAFETY: the pointers in `iovecs` and `headers` point into the other vectors of the same value and
// are dereferenced only inside `receive`, which has exclusive access.
unsafe impl Send for Slots {}
// SAFETY: as above; no pointer is dereferenced through a shared reference.
unsafe impl Sync for Slots {}

impl Slots {
    /// Makes room for `count` datagrams of `size` bytes, each with `control_size` bytes of ancillary
    /// data. Returns `None` if the allocation fails.
    pub(crate) fn new(count: usize, size: usize, control_size: usize) -> Option<Slots> {
        fn room<T>(count: usize) -> Option<Vec<T>> {
            let mut room = Vec::new();
            room.try_reserve_exact(count).ok()?;
            Some(room)
        }
        let control_words = control_size.div_ceil(8);
        let mut slots = Slots {
            size,
            control: room(count.checked_mul(control_words)?)?,
            control_words,
            bytes: room(count.checked_mul(size)?)?,
            names: room(count)?,
            iovecs: room(count)?,
            headers: room(count)?,
            filled: 0,
            pending: None,
        };
        slots.bytes.resize(count * size, 0);
        slots.control.resize(count * control_words, 0);
        // SAFETY: all zeroes are a valid address without a family.
        slots.names.resize_with(count, || unsafe { mem::zeroed() });
        slots.iovecs.resize_with(count, || c::iovec { iov_base: ptr::null_mut(), iov_len: 0 });
        slots.headers.resize_with(count, empty_header);
        // Set once, because no vector grows and so none moves. Not chunks_exact_mut, because slots
        // without bytes are allowed.
        let mut bytes = slots.bytes.as_mut_ptr();
        let mut control = slots.control.as_mut_ptr();
        for ((iovec, name), header) in slots.iovecs.iter_mut().zip(&mut slots.names).zip(&mut slots.headers)
        {
            iovec.iov_base = bytes.cast();
            iovec.iov_len = size;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            bytes = bytes.wrapping_add(size);
            if control_words > 0 {
                header.msg_hdr.msg_control = control.cast();
                control = control.wrapping_add(control_words);
            }
        }
        Some(slots)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.headers.len()
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    /// Returns the bytes of a datagram that fit into its slot.
    pub(crate) fn data(&self, index: usize) -> &[u8] {
        let start = index * self.size;
        &self.bytes[start..start + self.counted(index).min(self.size)]
    }

    /// Returns the length that the system counted, which `MSG_TRUNC` lets exceed the slot.
    pub(crate) fn counted(&self, index: usize) -> usize {
        self.headers[index].msg_len as usize
    }

    pub(crate) fn flags(&self, index: usize) -> i32 {
        self.headers[index].msg_hdr.msg_flags
    }

    /// Returns the ancillary data of a datagram. Its descriptors are closed.
    #[allow(clippy::unnecessary_cast, reason = "the length has 32 bits on some systems")]
    pub(crate) fn control(&self, index: usize) -> &[u8] {
        let words = &self.control[index * self.control_words..][..self.control_words];
        let written = self.headers[index].msg_hdr.msg_controllen as usize;
        message::as_bytes(words, written.min(words.len() * 8))
    }

    pub(crate) fn address(&self, index: usize) -> SockAddr {
        let written = self.headers[index].msg_hdr.msg_namelen as usize;
        // Bytes after its end may be left from a longer address.
        let len = written.min(mem::size_of::<c::sockaddr_storage>());
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: the system has written `len` bytes of an address, and they fit.
        unsafe {
            let to = ptr::from_mut(storage.view_as::<c::sockaddr_storage>());
            ptr::copy_nonoverlapping((&raw const self.names[index]).cast::<u8>(), to.cast::<u8>(), len);
            SockAddr::new(storage, len as c::socklen_t)
        }
    }

    /// Receives available datagrams: the first one as the descriptor's mode says, the others
    /// without waiting. Returns their number.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>, flags: i32) -> io::Result<usize> {
        self.receive_by(many::receive, fd, flags)
    }

    fn receive_by(&mut self, call: Receive, fd: BorrowedFd<'_>, flags: i32) -> io::Result<usize> {
        self.filled = 0;
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = mem::size_of::<c::sockaddr_storage>() as c::socklen_t;
            header.msg_hdr.msg_controllen = (self.control_words * 8) as _;
        }
        let has_control = self.control_words > 0;
        let flags = if has_control { flags | message::RECEIVE_FLAGS } else { flags };
        // SAFETY: each header points to slots of its own, with the slots' lengths.
        self.filled = unsafe { call(fd, &mut self.headers, flags, &mut self.pending)? };
        if has_control {
            // A Unix socket receives descriptors where there is room for them.
            (0..self.filled).for_each(|index| message::close_descriptors(self.control(index)));
        }
        Ok(self.filled)
    }
}

/// A datagram to send. A missing address stands for the peer of a connected socket.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) to: Option<&'a SockAddr>,
    pub(crate) control: Option<&'a Control>,
}

/// Sends datagrams until one fails. Returns how many were sent, and the error of the next one.
pub(crate) fn send<'a>(
    fd: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = Outgoing<'a>>,
    flags: i32,
) -> (usize, Option<io::Error>) {
    send_by(many::send, fd, datagrams, flags)
}

fn send_by<'a>(
    call: SendSome,
    fd: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = Outgoing<'a>>,
    flags: i32,
) -> (usize, Option<io::Error>) {
    let flags = match send_flags(flags) {
        Ok(flags) => flags,
        Err(error) => return (0, Some(error)),
    };
    let mut iovecs: Vec<(c::iovec, Outgoing<'_>)> = datagrams
        .map(|datagram| {
            let data = datagram.data;
            (c::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() }, datagram)
        })
        .collect();
    let mut headers: Vec<Header> = Vec::with_capacity(iovecs.len());
    headers.extend(iovecs.iter_mut().map(|(iovec, datagram)| {
        let mut header = empty_header();
        header.msg_hdr.msg_iov = iovec;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(control) = datagram.control {
            let (control, len) = control.as_raw();
            header.msg_hdr.msg_control = control;
            header.msg_hdr.msg_controllen = len as _;
        }
        if let Some(to) = datagram.to {
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
        }
        header
    }));
    let mut sent = 0;
    while sent < headers.len() {
        // SAFETY: each header points to bytes, an address and ancillary data that live until here,
        // and sending only reads them.
        match unsafe { call(fd, &mut headers[sent..], flags) } {
            Ok(count) => sent += count,
            // A signal after the first datagram does not end the call. Before it, the caller
            // handles it.
            Err(error) if sent > 0 && error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (sent, Some(error)),
        }
    }
    (sent, None)
}

fn empty_header() -> Header {
    // SAFETY: all zeroes are a valid empty header.
    Header { msg_hdr: unsafe { mem::zeroed() }, msg_len: 0 }
}

/// The system calls of Linux.
#[cfg(target_os = "linux")]
mod kernel {
    use super::*;

    /// # Safety
    /// Every pointer in the headers must point to a live buffer of the length beside it that is not
    /// used elsewhere.
    pub(super) unsafe fn receive(
        fd: BorrowedFd<'_>,
        headers: &mut [Header],
        flags: i32,
        _pending: &mut Option<io::Error>,
    ) -> io::Result<usize> {
        let (count, flags) = (headers.len() as u32, flags | c::MSG_WAITFORONE);
        // SAFETY: the caller guarantees the headers, and there are `count` of them.
        // The type of the flags differs between C libraries.
        match unsafe {
            c::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, flags as _, ptr::null_mut())
        } {
            received if received < 0 => Err(io::Error::last_os_error()),
            received => Ok(received as usize),
        }
    }

    /// # Safety
    /// Every pointer in the headers must point to live bytes of the length beside it.
    pub(super) unsafe fn send(fd: BorrowedFd<'_>, headers: &mut [Header], flags: i32) -> io::Result<usize> {
        // SAFETY: the caller guarantees the headers, and there are that many.
        match unsafe { c::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, flags as _) }
        {
            sent if sent < 0 => Err(io::Error::last_os_error()),
            sent => Ok(sent as usize),
        }
    }
}

/// The same for systems without these calls. Linux compiles it for its tests.
#[cfg(any(not(target_os = "linux"), test))]
mod one_by_one {
    use super::*;

    /// # Safety
    /// Every pointer in the headers must point to a live buffer of the length beside it that is not
    /// used elsewhere.
    pub(super) unsafe fn receive(
        fd: BorrowedFd<'_>,
        headers: &mut [Header],
        flags: i32,
        pending: &mut Option<io::Error>,
    ) -> io::Result<usize> {
        let mut flags = flags;
        for (index, header) in headers.iter_mut().enumerate() {
            // SAFETY: the caller guarantees the header.
            let received = unsafe { c::recvmsg(fd.as_raw_fd(), &mut header.msg_hdr, flags) };
            if received < 0 {
                let error = io::Error::last_os_error();
                if index == 0 {
                    return Err(error);
                }
                // An empty queue is not an error, and a signal does not have to be reported later.
                if ![io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) {
                    *pending = Some(error);
                }
                return Ok(index);
            }
            header.msg_len = received as u32;
            flags |= c::MSG_DONTWAIT;
        }
        Ok(headers.len())
    }

    /// # Safety
    /// Every pointer in the headers must point to live bytes of the length beside it.
    pub(super) unsafe fn send(fd: BorrowedFd<'_>, headers: &mut [Header], flags: i32) -> io::Result<usize> {
        // One at a time: after several, an error of the next one would be lost.
        let Some(header) = headers.first_mut() else {
            return Ok(0);
        };
        // SAFETY: the caller guarantees the header.
        match unsafe { c::sendmsg(fd.as_raw_fd(), &header.msg_hdr, flags) } {
            sent if sent < 0 => Err(io::Error::last_os_error()),
            _ => Ok(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::time::{Duration, Instant};

    /// Longest wait, reached only if the test fails.
    const LIMIT: Duration = Duration::from_secs(10);

    const IMPLEMENTATIONS: [(Receive, SendSome); 2] =
        [(many::receive, many::send), (one_by_one::receive, one_by_one::send)];

    fn texts(slots: &Slots) -> Vec<&[u8]> {
        (0..slots.len()).map(|index| slots.data(index)).collect()
    }

    fn send_all(call: SendSome, fd: &UnixDatagram, texts: &[&[u8]]) -> (usize, Option<io::Error>) {
        send_by(
            call,
            fd.as_fd(),
            texts.iter().map(|text| Outgoing { data: text, to: None, control: None }),
            0,
        )
    }

    #[test]
    fn both_implementations_behave_alike() {
        for (receive, send) in IMPLEMENTATIONS {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            let (sent, error) = send_all(send, &ours, &[b"one", b"", b"longer than that", b"4"]);
            assert!(sent == 4 && error.is_none());
            let mut slots = Slots::new(3, 5, 0).unwrap();
            assert_eq!(slots.receive_by(receive, theirs.as_fd(), 0).unwrap(), 3);
            assert_eq!(texts(&slots), [&b"one"[..], b"", b"longe"]);
            assert_eq!([0, 1, 2].map(|n| slots.flags(n) & c::MSG_TRUNC != 0), [false, false, true]);
            // The descriptor blocks, but the call does not wait for a second datagram.
            theirs.set_read_timeout(Some(LIMIT)).unwrap();
            let begin = Instant::now();
            assert_eq!(slots.receive_by(receive, theirs.as_fd(), 0).unwrap(), 1);
            assert_eq!(texts(&slots), [b"4"]);
            assert!(begin.elapsed() < LIMIT, "it waited");
            theirs.set_nonblocking(true).unwrap();
            let error = slots.receive_by(receive, theirs.as_fd(), 0).unwrap_err();
            assert_eq!((error.kind(), slots.len()), (io::ErrorKind::WouldBlock, 0));

            drop(theirs);
            let (sent, error) = send_all(send, &ours, &[b"not", b"received"]);
            assert_eq!((sent, error.unwrap().raw_os_error()), (0, Some(c::ECONNREFUSED)));
        }
    }

    #[test]
    fn an_error_after_a_datagram_is_returned_by_the_next_call() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.send(b"one").unwrap();
        ours.send(b"two").unwrap();
        let mut byte = 0_u8;
        let mut iovec = c::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut headers = [empty_header(), empty_header()];
        headers[0].msg_hdr.msg_iov = &raw mut iovec;
        headers[0].msg_hdr.msg_iovlen = 1;
        headers[1].msg_hdr.msg_iovlen = 1_000_000;
        let mut slots = Slots::new(1, 1, 0).unwrap();
        // SAFETY: the first header points to a byte of its own. The second has more buffers than
        // the call accepts, which is refused before a pointer is dereferenced.
        let received = unsafe { one_by_one::receive(theirs.as_fd(), &mut headers, 0, &mut slots.pending) };
        assert_eq!((received.unwrap(), byte), (1, b'o'));
        let error = slots.receive(theirs.as_fd(), 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(c::EMSGSIZE));
        assert_eq!(slots.receive(theirs.as_fd(), 0).unwrap(), 1);
    }
}
