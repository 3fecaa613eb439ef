//! sendmsg(2), recvmsg(2) and the layout of ancillary data (cmsg(3)). Unix only.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use socket2::SockAddr;

use super::{c, send_flags, zeroes};

/// The result of recvmsg(2).
pub(crate) struct Received {
    pub(crate) bytes: usize,
    pub(crate) items: Vec<Item>,
    pub(crate) flags: i32,
    pub(crate) address: SockAddr,
}

impl Received {
    /// Appends what the next receive of the same call returned.
    pub(crate) fn add(&mut self, piece: Received) {
        self.bytes += piece.bytes;
        self.flags |= piece.flags;
        for item in piece.items {
            // An item that describes the whole receive, such as a timestamp: the last one counts.
            self.items.retain(|old| (old.level, old.kind) != (item.level, item.kind));
            self.items.push(item);
        }
    }
}

/// An item of ancillary data.
pub(crate) struct Item {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) data: Vec<u8>,
    /// Whether the buffer ended before the item's data.
    pub(crate) truncated: bool,
    /// The descriptors of an item whose type has some. We own them as soon as recvmsg(2) returns.
    /// They are closed with the item.
    pub(crate) descriptors: Option<Vec<OwnedFd>>,
}

/// Flags of every recvmsg(2): received descriptors are close-on-exec.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) const RECEIVE_FLAGS: i32 = c::MSG_CMSG_CLOEXEC;
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub(crate) const RECEIVE_FLAGS: i32 = 0;

pub(crate) fn recvmsg(
    fd: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    control_size: usize,
    flags: i32,
) -> io::Result<Received> {
    // Words, because headers must be aligned.
    let mut control: Vec<u64> = zeroes(control_size.div_ceil(8))?;
    let mut result = None;
    // SAFETY: the closure writes an address to the storage and returns its length.
    let (bytes, address) = unsafe {
        SockAddr::try_init(|storage, len| {
            // SAFETY: all zeroes are a valid empty msghdr.
            let mut message: c::msghdr = mem::zeroed();
            message.msg_name = storage.cast();
            message.msg_namelen = *len;
            message.msg_iov = buffers.as_mut_ptr().cast();
            message.msg_iovlen = buffers.len() as _;
            if control_size > 0 {
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = control_size as _;
            }
            // SAFETY: every pointer in the message points to a live buffer of the length beside it.
            let bytes = c::recvmsg(fd.as_raw_fd(), &mut message, flags | RECEIVE_FLAGS);
            if bytes < 0 {
                return Err(io::Error::last_os_error());
            }
            *len = message.msg_namelen;
            result = Some((message.msg_controllen as usize, message.msg_flags));
            Ok(bytes as usize)
        })?
    };
    let (control_len, returned_flags) = result.unwrap_or_default();
    // The kernel returns the flags that only we have set.
    let flags = returned_flags & !(RECEIVE_FLAGS & !flags);
    let control = as_bytes(&control, control_len.min(control_size));
    let mut items = parse(control);
    for item in items.iter_mut().filter(|item| holds_descriptors(item.level, item.kind)) {
        item.descriptors = Some(adopt(&item.data));
    }
    Ok(Received { bytes, items, flags, address })
}

pub(crate) fn sendmsg(
    fd: BorrowedFd<'_>,
    buffers: &[IoSlice<'_>],
    control: &Control,
    flags: i32,
    address: Option<&SockAddr>,
) -> io::Result<usize> {
    let flags = send_flags(flags)?;
    // SAFETY: all zeroes are a valid empty msghdr.
    let mut message: c::msghdr = unsafe { mem::zeroed() };
    if let Some(address) = address {
        message.msg_name = address.as_ptr().cast_mut().cast();
        message.msg_namelen = address.len();
    }
    message.msg_iov = buffers.as_ptr().cast_mut().cast();
    message.msg_iovlen = buffers.len() as _;
    if control.len > 0 {
        let (control, len) = control.as_raw();
        message.msg_control = control;
        message.msg_controllen = len as _;
    }
    // SAFETY: every pointer in the message points to a live buffer of the length beside it, and
    // sendmsg only reads.
    match unsafe { c::sendmsg(fd.as_raw_fd(), &message, flags) } {
        sent if sent < 0 => Err(io::Error::last_os_error()),
        sent => Ok(sent as usize),
    }
}

/// A pidfd of the sending process, received if `SO_PASSPIDFD` is set (Linux 6.5; linux/socket.h).
#[cfg(target_os = "linux")]
const SCM_PIDFD: i32 = 4;

/// Returns whether received items of this type contain descriptors that the kernel created for us.
fn holds_descriptors(level: i32, kind: i32) -> bool {
    #[cfg(target_os = "linux")]
    if (level, kind) == (c::SOL_SOCKET, SCM_PIDFD) {
        return true;
    }
    (level, kind) == (c::SOL_SOCKET, c::SCM_RIGHTS)
}

/// Takes ownership of the descriptors of an item. Ignores an incomplete one at its end, and the
/// error code that Linux stores instead of a pidfd that it could not create.
fn adopt(data: &[u8]) -> Vec<OwnedFd> {
    data.chunks_exact(mem::size_of::<RawFd>())
        .map(|number| RawFd::from_ne_bytes(number.try_into().unwrap_or_default()))
        .filter(|fd| *fd >= 0)
        // SAFETY: the kernel has just created this descriptor for us, so nothing else owns its
        // number.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect()
}

/// Ancillary data to send: a sequence of aligned items.
pub(crate) struct Control {
    words: Vec<u64>,
    len: usize,
}

impl Control {
    /// Returns the pointer and the length for a message header. Sending only reads the bytes.
    pub(crate) fn as_raw(&self) -> (*mut c::c_void, usize) {
        (self.words.as_ptr().cast_mut().cast(), self.len)
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn bytes(&self) -> &[u8] {
        as_bytes(&self.words, self.len)
    }
}

/// Encodes items. Returns `None` if a length overflows.
pub(crate) fn build<'a>(items: impl Iterator<Item = (i32, i32, &'a [u8])> + Clone) -> Option<Control> {
    let mut len = 0_usize;
    for (_, _, data) in items.clone() {
        len = len.checked_add(space(data.len())?)?;
    }
    let mut bytes = Vec::with_capacity(len);
    for (level, kind, data) in items {
        // SAFETY: all zeroes are a valid cmsghdr.
        let mut header: c::cmsghdr = unsafe { mem::zeroed() };
        header.cmsg_len = self::len(data.len())? as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        let start = bytes.len();
        bytes.resize(start + space(data.len())?, 0);
        // SAFETY: the header is plain numbers, and there is room for it.
        unsafe { ptr::write_unaligned(bytes[start..].as_mut_ptr().cast(), header) };
        let data_at = start + self::len(0)?;
        bytes[data_at..data_at + data.len()].copy_from_slice(data);
    }
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut padded = [0; 8];
        padded[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(padded);
    }
    Some(Control { words, len: bytes.len() })
}

/// An item inside a buffer of ancillary data.
pub(crate) struct Piece<'a> {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) data: &'a [u8],
    /// Whether the buffer ended before the item's data.
    pub(crate) truncated: bool,
}

/// Parses items up to the end of the buffer or an invalid header. An item that continues after the
/// end is truncated.
pub(crate) fn parse(control: &[u8]) -> Vec<Item> {
    let item = |Piece { level, kind, data, truncated }| Item {
        level,
        kind,
        data: data.to_vec(),
        truncated,
        descriptors: None,
    };
    pieces(control).map(item).collect()
}

/// Parses items as [`parse`] does, without copying them.
pub(crate) fn pieces(control: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let header_len = mem::size_of::<c::cmsghdr>();
    let data_at = len(0).unwrap_or(header_len);
    let mut rest = control;
    std::iter::from_fn(move || {
        if rest.len() < header_len {
            return None;
        }
        let mut header = MaybeUninit::<c::cmsghdr>::uninit();
        // SAFETY: there are as many bytes as a header has, and any bytes are a valid header.
        let header = unsafe {
            ptr::copy_nonoverlapping(rest.as_ptr(), header.as_mut_ptr().cast(), header_len);
            header.assume_init()
        };
        let item_len = header.cmsg_len as usize;
        if item_len < data_at {
            return None;
        }
        let data = rest.get(data_at..item_len.min(rest.len())).unwrap_or_default();
        let truncated = item_len > rest.len();
        // The next header follows this item's padding.
        rest = space(item_len - data_at).and_then(|space| rest.get(space..)).unwrap_or_default();
        Some(Piece { level: header.cmsg_level, kind: header.cmsg_type, data, truncated })
    })
}

/// Closes the descriptors that a received buffer contains. They are ours as soon as the call that
/// received them returns, and may not be closed twice.
pub(crate) fn close_descriptors(control: &[u8]) {
    let holders = pieces(control).filter(|piece| holds_descriptors(piece.level, piece.kind));
    holders.for_each(|piece| drop(adopt(piece.data)));
}

/// Returns `CMSG_LEN`, or `None` if it overflows its type.
pub(crate) fn len(data: usize) -> Option<usize> {
    // SAFETY: both only compute.
    unsafe { below(c::CMSG_LEN(0), data).map(|data| c::CMSG_LEN(data) as usize) }
}

/// Returns `CMSG_SPACE`, or `None` if it overflows its type.
pub(crate) fn space(data: usize) -> Option<usize> {
    // The space of one byte includes both paddings.
    // SAFETY: both only compute.
    unsafe { below(c::CMSG_SPACE(1), data).map(|data| c::CMSG_SPACE(data) as usize) }
}

/// CPython's limit: the length including `around` must be a positive `int`.
fn below(around: u32, data: usize) -> Option<u32> {
    let most = i32::MAX as usize - around as usize;
    (data <= most).then_some(data as u32)
}

pub(super) fn as_bytes(words: &[u64], len: usize) -> &[u8] {
    // SAFETY: words are eight bytes each.
    let bytes = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8) };
    &bytes[..len]
}
