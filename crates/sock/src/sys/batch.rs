//! Many datagrams in one call: recvmmsg(2) and sendmmsg(2) on Linux, the same by
//! recvmsg(2) and sendmsg(2) one by one elsewhere. Unix only.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

use super::{SEND_FLAGS, c};

#[cfg(target_os = "linux")]
use kernel as many;
#[cfg(not(target_os = "linux"))]
use one_by_one as many;

#[cfg(target_os = "linux")]
type Header = c::mmsghdr;

/// What Linux calls `mmsghdr`.
#[cfg(not(target_os = "linux"))]
struct Header {
    msg_hdr: c::msghdr,
    msg_len: u32,
}

/// Receives into headers; an error behind datagrams is left for the next call.
///
/// Safe when every pointer in the headers leads to a live buffer of the length
/// beside it that nobody else uses.
type Receive = unsafe fn(BorrowedFd<'_>, &mut [Header], i32, &mut Option<io::Error>) -> io::Result<usize>;

/// Sends some headers, the first ones.
///
/// Safe when every pointer in the headers leads to live bytes of the length beside it.
type SendSome = unsafe fn(BorrowedFd<'_>, &mut [Header], i32) -> io::Result<usize>;

/// Room for datagrams, allocated once: their bytes, their senders, and what the
/// system is told of both.
pub(crate) struct Slots {
    size: usize,
    bytes: Vec<u8>,
    names: Vec<c::sockaddr_storage>,
    iovecs: Vec<c::iovec>,
    headers: Vec<Header>,
    /// How many datagrams came last.
    filled: usize,
    /// An error that came behind datagrams: the next call's. Linux keeps it itself.
    pending: Option<io::Error>,
}

// SAFETY: the pointers in `iovecs` and `headers` lead into the other vectors of the
// same value and are followed only inside `receive`, which has it to itself.
unsafe impl Send for Slots {}
// SAFETY: the same; through a shared reference no pointer is followed.
unsafe impl Sync for Slots {}

impl Slots {
    /// `None` when there is no memory for that many.
    pub(crate) fn new(count: usize, size: usize) -> Option<Slots> {
        fn room<T>(count: usize) -> Option<Vec<T>> {
            let mut room = Vec::new();
            room.try_reserve_exact(count).ok()?;
            Some(room)
        }
        let mut slots = Slots {
            size,
            bytes: room(count.checked_mul(size)?)?,
            names: room(count)?,
            iovecs: room(count)?,
            headers: room(count)?,
            filled: 0,
            pending: None,
        };
        slots.bytes.resize(count * size, 0);
        // SAFETY: all zeroes are an address of no family.
        slots.names.resize_with(count, || unsafe { mem::zeroed() });
        slots.iovecs.resize_with(count, || c::iovec { iov_base: ptr::null_mut(), iov_len: 0 });
        slots.headers.resize_with(count, empty_header);
        // Once for all: no vector grows, so what they hold stays where it is.
        // Not chunks_exact_mut: slots of no bytes are slots too.
        let mut bytes = slots.bytes.as_mut_ptr();
        for ((iovec, name), header) in slots.iovecs.iter_mut().zip(&mut slots.names).zip(&mut slots.headers)
        {
            iovec.iov_base = bytes.cast();
            iovec.iov_len = size;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            bytes = bytes.wrapping_add(size);
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

    /// The bytes of a datagram that came, as many as there was room for.
    pub(crate) fn data(&self, index: usize) -> &[u8] {
        let start = index * self.size;
        &self.bytes[start..start + self.counted(index).min(self.size)]
    }

    /// What the system counted, which `MSG_TRUNC` lets be more than there was room for.
    pub(crate) fn counted(&self, index: usize) -> usize {
        self.headers[index].msg_len as usize
    }

    pub(crate) fn flags(&self, index: usize) -> i32 {
        self.headers[index].msg_hdr.msg_flags
    }

    pub(crate) fn address(&self, index: usize) -> SockAddr {
        let told = self.headers[index].msg_hdr.msg_namelen as usize;
        // Behind its end are leftovers of longer ones.
        let len = told.min(mem::size_of::<c::sockaddr_storage>());
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: the system has written `len` bytes of an address, and they fit.
        unsafe {
            let to = ptr::from_mut(storage.view_as::<c::sockaddr_storage>());
            ptr::copy_nonoverlapping((&raw const self.names[index]).cast::<u8>(), to.cast::<u8>(), len);
            SockAddr::new(storage, len as c::socklen_t)
        }
    }

    /// Takes what is there: the first datagram as the descriptor's mode says, the
    /// others without waiting. Returns how many came.
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
        }
        // SAFETY: each header points to a slot of its own, of the length it says.
        self.filled = unsafe { call(fd, &mut self.headers, flags, &mut self.pending)? };
        Ok(self.filled)
    }
}

/// Sends datagrams until one does not go: how many went, and the error of that
/// one. An address that is missing means the peer of a connected socket.
pub(crate) fn send<'a>(
    fd: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = (&'a [u8], Option<&'a SockAddr>)>,
    flags: i32,
) -> (usize, Option<io::Error>) {
    send_by(many::send, fd, datagrams, flags)
}

fn send_by<'a>(
    call: SendSome,
    fd: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = (&'a [u8], Option<&'a SockAddr>)>,
    flags: i32,
) -> (usize, Option<io::Error>) {
    let mut iovecs: Vec<(c::iovec, Option<&SockAddr>)> = datagrams
        .map(|(data, to)| (c::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() }, to))
        .collect();
    let mut headers: Vec<Header> = Vec::with_capacity(iovecs.len());
    headers.extend(iovecs.iter_mut().map(|(iovec, to)| {
        let mut header = empty_header();
        header.msg_hdr.msg_iov = iovec;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(to) = to {
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
        }
        header
    }));
    let mut sent = 0;
    while sent < headers.len() {
        // SAFETY: each header points to bytes and an address that live until here,
        // and sending only reads them.
        match unsafe { call(fd, &mut headers[sent..], flags | SEND_FLAGS) } {
            Ok(count) => sent += count,
            // A signal behind the first datagram is no end; before it, it is the caller's.
            Err(error) if sent > 0 && error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (sent, Some(error)),
        }
    }
    (sent, None)
}

fn empty_header() -> Header {
    // SAFETY: all zeroes are a header with nothing in it.
    Header { msg_hdr: unsafe { mem::zeroed() }, msg_len: 0 }
}

/// The two calls of Linux.
#[cfg(target_os = "linux")]
mod kernel {
    use super::*;

    /// # Safety
    /// Every pointer in the headers must lead to a live buffer of the length beside
    /// it that nobody else uses.
    pub(super) unsafe fn receive(
        fd: BorrowedFd<'_>,
        headers: &mut [Header],
        flags: i32,
        _pending: &mut Option<io::Error>,
    ) -> io::Result<usize> {
        let (count, flags) = (headers.len() as u32, flags | c::MSG_WAITFORONE);
        // SAFETY: the caller vouches for the headers, and there are `count` of them.
        // The type of the flags is not the same in every C library.
        match unsafe {
            c::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, flags as _, ptr::null_mut())
        } {
            received if received < 0 => Err(io::Error::last_os_error()),
            received => Ok(received as usize),
        }
    }

    /// # Safety
    /// Every pointer in the headers must lead to live bytes of the length beside it.
    pub(super) unsafe fn send(fd: BorrowedFd<'_>, headers: &mut [Header], flags: i32) -> io::Result<usize> {
        // SAFETY: the caller vouches for the headers, and there are that many.
        match unsafe { c::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, flags as _) }
        {
            sent if sent < 0 => Err(io::Error::last_os_error()),
            sent => Ok(sent as usize),
        }
    }
}

/// The same where there are no such calls. Linux compiles it for its tests.
#[cfg(any(not(target_os = "linux"), test))]
mod one_by_one {
    use super::*;

    /// # Safety
    /// Every pointer in the headers must lead to a live buffer of the length beside
    /// it that nobody else uses.
    pub(super) unsafe fn receive(
        fd: BorrowedFd<'_>,
        headers: &mut [Header],
        flags: i32,
        pending: &mut Option<io::Error>,
    ) -> io::Result<usize> {
        let mut flags = flags;
        for (index, header) in headers.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the header.
            let received = unsafe { c::recvmsg(fd.as_raw_fd(), &mut header.msg_hdr, flags) };
            if received < 0 {
                let error = io::Error::last_os_error();
                if index == 0 {
                    return Err(error);
                }
                // That nothing more is there is no error, and a signal none to keep.
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
    /// Every pointer in the headers must lead to live bytes of the length beside it.
    pub(super) unsafe fn send(fd: BorrowedFd<'_>, headers: &mut [Header], flags: i32) -> io::Result<usize> {
        // One at a time: of several the error behind them would be lost.
        let Some(header) = headers.first_mut() else {
            return Ok(0);
        };
        // SAFETY: the caller vouches for the header.
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

    /// Longest wait; only a failure takes it.
    const LIMIT: Duration = Duration::from_secs(10);

    const WAYS: [(Receive, SendSome); 2] =
        [(many::receive, many::send), (one_by_one::receive, one_by_one::send)];

    fn texts(slots: &Slots) -> Vec<&[u8]> {
        (0..slots.len()).map(|index| slots.data(index)).collect()
    }

    fn send_all(call: SendSome, fd: &UnixDatagram, texts: &[&[u8]]) -> (usize, Option<io::Error>) {
        send_by(call, fd.as_fd(), texts.iter().map(|text| (*text, None)), 0)
    }

    #[test]
    fn both_ways_do_the_same() {
        for (receive, send) in WAYS {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            let (sent, error) = send_all(send, &ours, &[b"one", b"", b"longer than that", b"4"]);
            assert!(sent == 4 && error.is_none());
            let mut slots = Slots::new(3, 5).unwrap();
            assert_eq!(slots.receive_by(receive, theirs.as_fd(), 0).unwrap(), 3);
            assert_eq!(texts(&slots), [&b"one"[..], b"", b"longe"]);
            assert_eq!([0, 1, 2].map(|n| slots.flags(n) & c::MSG_TRUNC != 0), [false, false, true]);
            // Blocking, and yet it does not wait for a second one.
            theirs.set_read_timeout(Some(LIMIT)).unwrap();
            let begin = Instant::now();
            assert_eq!(slots.receive_by(receive, theirs.as_fd(), 0).unwrap(), 1);
            assert_eq!(texts(&slots), [b"4"]);
            assert!(begin.elapsed() < LIMIT, "it waited");
            theirs.set_nonblocking(true).unwrap();
            let error = slots.receive_by(receive, theirs.as_fd(), 0).unwrap_err();
            assert_eq!((error.kind(), slots.len()), (io::ErrorKind::WouldBlock, 0));

            drop(theirs);
            let (sent, error) = send_all(send, &ours, &[b"nobody", b"is there"]);
            assert_eq!((sent, error.unwrap().raw_os_error()), (0, Some(c::ECONNREFUSED)));
        }
    }

    #[test]
    fn an_error_behind_a_datagram_is_the_next_calls() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.send(b"one").unwrap();
        ours.send(b"two").unwrap();
        let mut byte = 0_u8;
        let mut iovec = c::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut headers = [empty_header(), empty_header()];
        headers[0].msg_hdr.msg_iov = &raw mut iovec;
        headers[0].msg_hdr.msg_iovlen = 1;
        headers[1].msg_hdr.msg_iovlen = 1_000_000;
        let mut slots = Slots::new(1, 1).unwrap();
        // SAFETY: the first header leads to a byte of its own; the second asks for
        // more than a call takes, which is refused before anything is followed.
        let received = unsafe { one_by_one::receive(theirs.as_fd(), &mut headers, 0, &mut slots.pending) };
        assert_eq!((received.unwrap(), byte), (1, b'o'));
        let error = slots.receive(theirs.as_fd(), 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(c::EMSGSIZE));
        assert_eq!(slots.receive(theirs.as_fd(), 0).unwrap(), 1);
    }
}
