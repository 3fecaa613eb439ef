//! Code common to all systems, over each system's C names.

use std::alloc::{self, Layout};
use std::ffi::CStr;
use std::io;
use std::mem::{self, MaybeUninit};
use std::path::PathBuf;
use std::ptr;
use std::time::Duration;

use socket2::{SockAddr, SockAddrStorage, Socket};

use super::{RawAddrInfo, RawHints, c, path_from_bytes};

/// Returns the buffer as uninitialised memory, for calls that only write to it.
///
/// # Safety
/// No uninitialised byte may be written to the result.
pub(super) unsafe fn uninit(buffer: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: u8 and MaybeUninit<u8> have the same layout, and the caller keeps the bytes
    // initialised.
    unsafe { &mut *(ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) }
}

/// Rounds up to milliseconds, so that a wait does not end early. Does not use `as_nanos`, whose 128
/// bits need a slow division.
pub(crate) fn whole_milliseconds(time: Duration) -> u64 {
    let rest = u64::from(time.subsec_nanos().div_ceil(1_000_000));
    time.as_secs().saturating_mul(1000).saturating_add(rest)
}

/// New memory that a receive call fills. It counts the bytes that were written.
pub(crate) struct ReceiveBuffer {
    bytes: Vec<u8>,
    capacity: usize,
}

impl ReceiveBuffer {
    /// Allocates `capacity` bytes, or returns an error if that fails.
    pub(crate) fn new(capacity: usize) -> io::Result<ReceiveBuffer> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(capacity).map_err(|_| no_memory(capacity))?;
        Ok(ReceiveBuffer { bytes, capacity })
    }

    /// Calls recv(2) and returns its result. The bytes replace those of an earlier call.
    pub(crate) fn recv(&mut self, socket: &Socket, flags: i32) -> io::Result<usize> {
        // SAFETY: recv(2) returns how many bytes it wrote.
        let (received, ()) =
            unsafe { self.fill(flags, |spare| Ok((socket.recv_with_flags(spare, flags)?, ())))? };
        Ok(received)
    }

    /// Calls recvfrom(2) and returns its result. The bytes replace those of an earlier call.
    pub(crate) fn recvfrom(&mut self, socket: &Socket, flags: i32) -> io::Result<(usize, SockAddr)> {
        // SAFETY: recvfrom(2) returns how many bytes it wrote.
        unsafe { self.fill(flags, |spare| socket.recv_from_with_flags(spare, flags)) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// # Safety
    /// `receive` must be a receive call with these flags: it has written as many bytes as it
    /// returns, or the flags contain MSG_TRUNC, with which a TCP socket counts bytes that it
    /// discards (tcp(7)).
    unsafe fn fill<T>(
        &mut self,
        flags: i32,
        receive: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<(usize, T)>,
    ) -> io::Result<(usize, T)> {
        self.bytes.clear();
        let spare = &mut self.bytes.spare_capacity_mut()[..self.capacity];
        #[allow(clippy::unnecessary_cast, reason = "it is a u32 on Windows")]
        let counts_discarded = flags & c::MSG_TRUNC as i32 != 0;
        if counts_discarded {
            spare.fill(MaybeUninit::new(0));
        }
        let (received, rest) = receive(spare)?;
        // SAFETY: the caller guarantees that these bytes were written, or they were zeroed above.
        // The real length of a datagram, which MSG_TRUNC returns, can exceed the buffer.
        unsafe { self.bytes.set_len(received.min(self.capacity)) };
        Ok((received, rest))
    }
}

/// Plain numbers, for which all bits zero are a valid value.
///
/// # Safety
/// A value of all zero bytes must be valid.
pub(crate) unsafe trait Number: Copy {}

// SAFETY: it is the number 0.
unsafe impl Number for u8 {}
// SAFETY: it is the number 0.
unsafe impl Number for u64 {}

/// Returns `vec![0; count]`, or an error if the allocation fails. As with `vec!`, large zeroed
/// memory comes from the system and costs nothing until it is used.
pub(crate) fn zeroes<T: Number>(count: usize) -> io::Result<Vec<T>> {
    let wanted = count.saturating_mul(mem::size_of::<T>());
    let layout = Layout::array::<T>(count).map_err(|_| no_memory(wanted))?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout has a size.
    let zeroes = unsafe { alloc::alloc_zeroed(layout) }.cast::<T>();
    if zeroes.is_null() {
        return Err(no_memory(wanted));
    }
    // SAFETY: the global allocator returned it for this layout, and zeroes are valid numbers.
    Ok(unsafe { Vec::from_raw_parts(zeroes, count, count) })
}

/// The error of an allocation that is too large.
#[cold]
pub(crate) fn no_memory(bytes: usize) -> io::Error {
    io::Error::new(io::ErrorKind::OutOfMemory, format!("no memory for {bytes} bytes"))
}

/// Longest path of a Unix address, without its NUL.
pub(crate) const UNIX_PATH_MAX: usize =
    mem::size_of::<c::sockaddr_un>() - mem::offset_of!(c::sockaddr_un, sun_path) - 1;

/// The content of a Unix address: no name, a path, or an abstract name without its leading NUL.
pub(crate) enum UnixName {
    Unnamed,
    Path(PathBuf),
    Abstract(Vec<u8>),
}

pub(crate) fn unix_name(address: &SockAddr) -> UnixName {
    let (_, name) = other_parts(address);
    match name.first() {
        None => UnixName::Unnamed,
        // Only Linux has abstract names. Elsewhere a path of zeroes is no name.
        Some(0) if cfg!(target_os = "linux") => UnixName::Abstract(name[1..].to_vec()),
        Some(0) => UnixName::Unnamed,
        Some(_) => {
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            UnixName::Path(path_from_bytes(&name[..end]))
        }
    }
}

/// Creates an address of any family from the bytes after its family field.
pub(crate) fn other_address(family: i32, bytes: &[u8]) -> Option<SockAddr> {
    let family = c::sa_family_t::try_from(family).ok()?;
    let mut storage = SockAddrStorage::zeroed();
    let offset = mem::offset_of!(c::sockaddr, sa_data);
    let len = offset + bytes.len();
    if len > mem::size_of::<c::sockaddr_storage>() {
        return None;
    }
    // SAFETY: the storage may be viewed as any socket address. The pointer to the bytes is derived
    // from the whole storage, because one that is derived from the shorter `sockaddr` must not be
    // used after its end. The bytes fit, as checked above, and `len` counts what is written.
    unsafe {
        let whole = ptr::from_mut(storage.view_as::<c::sockaddr_storage>());
        (*whole.cast::<c::sockaddr>()).sa_family = family;
        ptr::copy_nonoverlapping(bytes.as_ptr(), whole.cast::<u8>().add(offset), bytes.len());
        Some(SockAddr::new(storage, len as c::socklen_t))
    }
}

/// Returns the family of an address and the bytes after its family field.
pub(crate) fn other_parts(address: &SockAddr) -> (i32, Vec<u8>) {
    let offset = mem::offset_of!(c::sockaddr, sa_data);
    let len = (address.len() as usize).min(mem::size_of::<c::sockaddr_storage>());
    let start = address.as_ptr().cast::<u8>();
    let bytes = if len <= offset {
        Vec::new()
    } else {
        // SAFETY: a SockAddr is a whole sockaddr_storage, and `len` is within it.
        unsafe { std::slice::from_raw_parts(start.add(offset), len - offset) }.to_vec()
    };
    (i32::from(address.family()), bytes)
}

/// Calls getaddrinfo(3). The error is its `EAI_` code, with errno for `EAI_SYSTEM`.
pub(crate) fn getaddrinfo(
    host: Option<&CStr>,
    service: Option<&CStr>,
    hints: RawHints,
) -> Result<Vec<RawAddrInfo>, (i32, io::Error)> {
    super::start_up();
    // SAFETY: the manual page requires an all-zero addrinfo.
    let mut raw: c::addrinfo = unsafe { mem::zeroed() };
    raw.ai_flags = hints.flags;
    raw.ai_family = hints.family;
    raw.ai_socktype = hints.kind;
    raw.ai_protocol = hints.proto;
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), |text| text.as_ptr().cast());
    let mut list = ptr::null_mut();
    // SAFETY: the strings end in NUL and outlive the call; `list` receives the result.
    let code = unsafe { c::getaddrinfo(pointer(host), pointer(service), &raw, &mut list) };
    if code != 0 {
        return Err((code, io::Error::last_os_error()));
    }
    let mut answers = Vec::new();
    let mut next = list;
    // SAFETY: `list` is a chain of addrinfo that ends in null; it is freed once, below.
    while let Some(info) = unsafe { next.as_ref() } {
        // SAFETY: `ai_addr` holds `ai_addrlen` bytes of a socket address.
        if let Some(address) = unsafe { socket_address(info.ai_addr, info.ai_addrlen as usize) } {
            let canonname = (!info.ai_canonname.is_null()).then(|| {
                // SAFETY: a name that is not null is a C string.
                unsafe { CStr::from_ptr(info.ai_canonname.cast()) }.to_string_lossy().into_owned()
            });
            answers.push(RawAddrInfo {
                family: info.ai_family,
                kind: info.ai_socktype,
                proto: info.ai_protocol,
                canonname,
                address,
            });
        }
        next = info.ai_next;
    }
    // SAFETY: `list` came from getaddrinfo, and nothing points into it after this.
    unsafe { c::freeaddrinfo(list) };
    Ok(answers)
}

/// # Safety
/// `address` must be null or point to `len` bytes of a socket address.
unsafe fn socket_address(address: *const c::sockaddr, len: usize) -> Option<std::net::SocketAddr> {
    if address.is_null() || len > mem::size_of::<c::sockaddr_storage>() {
        return None;
    }
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `len` bytes fit into the storage, and the caller guarantees the source.
    let address = unsafe {
        let bytes = storage.view_as::<c::sockaddr_storage>();
        ptr::copy_nonoverlapping(address.cast::<u8>(), ptr::from_mut(bytes).cast(), len);
        SockAddr::new(storage, len as c::socklen_t)
    };
    address.as_socket()
}
