//! The contract of [`sys`](super) for Unix.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::Duration;

use socket2::{SockAddr, SockAddrStorage};

use super::{Poll, RawAddrInfo, RawHints, c};

pub(crate) use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Flags of every send: a peer that is gone is `EPIPE`, never the signal
/// `SIGPIPE`, whatever the process has set (Python ignores the signal instead).
pub(crate) const SEND_FLAGS: i32 = c::MSG_NOSIGNAL;

/// Whether accept(2) gives the listener's `O_NONBLOCK` on: on the BSDs it does.
pub(crate) const ACCEPT_INHERITS_NONBLOCK: bool = !cfg!(target_os = "linux");

/// `SO_REUSEADDR` here only shortens the wait after a restart; two servers
/// cannot share a port by it.
pub(crate) const REUSEADDR_IS_SAFE: bool = true;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn poll(entries: &mut [Poll<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    // poll(2) counts in milliseconds: a started one is waited for whole, so
    // that a wait never ends early, and what does not fit is waited for in parts.
    let milliseconds = match timeout {
        None => -1,
        Some(timeout) => {
            let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
            i32::try_from(rounded_up).unwrap_or(i32::MAX)
        }
    };
    // Two entries at most in this crate and its servers; children being waited
    // for are what makes it more.
    let mut few = [const { libc::pollfd { fd: -1, events: 0, revents: 0 } }; 4];
    let mut many = Vec::new();
    let pollfds = if entries.len() <= few.len() {
        &mut few[..entries.len()]
    } else {
        many.resize(entries.len(), libc::pollfd { fd: -1, events: 0, revents: 0 });
        &mut many[..]
    };
    for (pollfd, entry) in pollfds.iter_mut().zip(entries.iter()) {
        pollfd.fd = entry.fd.as_raw_fd();
        pollfd.events = entry.events;
    }
    // SAFETY: the pointer and the length are those of one slice of pollfd.
    let ready =
        check(unsafe { libc::poll(pollfds.as_mut_ptr(), pollfds.len() as libc::nfds_t, milliseconds) })?;
    for (pollfd, entry) in pollfds.iter().zip(entries.iter_mut()) {
        entry.revents = pollfd.revents;
    }
    Ok(ready as usize)
}

pub(crate) fn close(fd: OwnedFd) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor was owned by `fd` and is nobody's after this.
    // EINTR is not retried: on Linux the descriptor is gone by then (close(2)).
    check(unsafe { libc::close(fd.into_raw_fd()) }).map(drop)
}

pub(crate) fn setsockopt(fd: BorrowedFd<'_>, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads `value.len()` bytes from `value`.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    })
    .map(drop)
}

pub(crate) fn getsockopt(
    fd: BorrowedFd<'_>,
    level: i32,
    option: i32,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut len = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, and their number to `len`.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &mut len) })?;
    Ok(len as usize)
}

pub(crate) fn inheritable(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: F_GETFD takes and touches nothing.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) })?;
    Ok(flags & libc::FD_CLOEXEC == 0)
}

pub(crate) fn set_inheritable(fd: BorrowedFd<'_>, inheritable: bool) -> io::Result<()> {
    let flags = if inheritable { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: F_SETFD takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) }).map(drop)
}

/// The same buffer for callees that only write: they get no zeroes to trust.
pub(crate) fn uninit(buffer: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: u8 and MaybeUninit<u8> have one layout. The callees are the
    // receive calls of socket2, which promise not to write uninitialised bytes.
    unsafe { &mut *(ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) }
}

/// Allocates `capacity` bytes, lets `receive` write some, returns those.
pub(crate) fn fill<T>(
    capacity: usize,
    receive: impl FnOnce(&mut [MaybeUninit<u8>]) -> io::Result<(usize, T)>,
) -> io::Result<(Vec<u8>, T)> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(capacity).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let spare = &mut buffer.spare_capacity_mut()[..capacity];
    let (received, rest) = receive(spare)?;
    // A datagram's real length can exceed the buffer when MSG_TRUNC was asked for.
    let received = received.min(capacity);
    // SAFETY: `receive` is a receive call that returned how many bytes it wrote.
    unsafe { buffer.set_len(received) };
    Ok((buffer, rest))
}

/// Longest path a Unix address holds beside its closing NUL.
pub(crate) const UNIX_PATH_MAX: usize =
    mem::size_of::<libc::sockaddr_un>() - mem::offset_of!(libc::sockaddr_un, sun_path) - 1;

/// A Unix address from the bytes of `sun_path`; a path gets its closing NUL.
pub(crate) fn unix_address(name: &[u8]) -> io::Result<SockAddr> {
    SockAddr::unix(Path::new(OsStr::from_bytes(name)))
}

pub(crate) fn path_from_bytes(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// What a Unix address holds: nothing, a path, or an abstract name behind its NUL.
pub(crate) enum UnixName {
    Unnamed,
    Path(PathBuf),
    Abstract(Vec<u8>),
}

pub(crate) fn unix_name(address: &SockAddr) -> UnixName {
    let (_, name) = other_parts(address);
    match name.first() {
        None => UnixName::Unnamed,
        // Only Linux has abstract names; elsewhere an all-zero path is none.
        Some(0) if cfg!(target_os = "linux") => UnixName::Abstract(name[1..].to_vec()),
        Some(0) => UnixName::Unnamed,
        Some(_) => {
            let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            UnixName::Path(path_from_bytes(&name[..end]))
        }
    }
}

/// An address of any family from the bytes behind its family field.
pub(crate) fn other_address(family: i32, bytes: &[u8]) -> Option<SockAddr> {
    let family = libc::sa_family_t::try_from(family).ok()?;
    let mut storage = SockAddrStorage::zeroed();
    let offset = mem::offset_of!(libc::sockaddr, sa_data);
    let len = offset + bytes.len();
    if len > mem::size_of::<libc::sockaddr_storage>() {
        return None;
    }
    // SAFETY: every socket address may be seen as a sockaddr; the bytes fit, as
    // checked above, and `len` counts what is written.
    unsafe {
        let sockaddr = storage.view_as::<libc::sockaddr>();
        sockaddr.sa_family = family;
        let data = ptr::from_mut(sockaddr).cast::<u8>().add(offset);
        ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        Some(SockAddr::new(storage, len as libc::socklen_t))
    }
}

/// The family of an address and the bytes behind its family field.
pub(crate) fn other_parts(address: &SockAddr) -> (i32, Vec<u8>) {
    let offset = mem::offset_of!(libc::sockaddr, sa_data);
    let len = (address.len() as usize).min(mem::size_of::<libc::sockaddr_storage>());
    let start = address.as_ptr().cast::<u8>();
    let bytes = if len <= offset {
        Vec::new()
    } else {
        // SAFETY: a SockAddr is a whole sockaddr_storage, and `len` is within it.
        unsafe { std::slice::from_raw_parts(start.add(offset), len - offset) }.to_vec()
    };
    (i32::from(address.family()), bytes)
}

/// getaddrinfo(3). The error is its `EAI_` code, with errno where that is `EAI_SYSTEM`.
pub(crate) fn getaddrinfo(
    host: Option<&CStr>,
    service: Option<&CStr>,
    hints: RawHints,
) -> Result<Vec<RawAddrInfo>, (i32, io::Error)> {
    // SAFETY: an all-zero addrinfo is what the manual page asks for.
    let mut raw: libc::addrinfo = unsafe { mem::zeroed() };
    raw.ai_flags = hints.flags;
    raw.ai_family = hints.family;
    raw.ai_socktype = hints.kind;
    raw.ai_protocol = hints.proto;
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    let mut list = ptr::null_mut();
    // SAFETY: the strings end in NUL and outlive the call; `list` receives the answer.
    let code = unsafe { libc::getaddrinfo(pointer(host), pointer(service), &raw, &mut list) };
    if code != 0 {
        return Err((code, io::Error::last_os_error()));
    }
    let mut answers = Vec::new();
    let mut next = list;
    // SAFETY: `list` is a chain of addrinfo that ends in null; it is freed once, below.
    while let Some(info) = unsafe { next.as_ref() } {
        // SAFETY: `ai_addr` holds `ai_addrlen` bytes of a socket address.
        if let Some(address) = unsafe { socket_address(info.ai_addr, info.ai_addrlen) } {
            let canonname = (!info.ai_canonname.is_null()).then(|| {
                // SAFETY: a name that is not null is a C string.
                unsafe { CStr::from_ptr(info.ai_canonname) }.to_string_lossy().into_owned()
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
    // SAFETY: `list` came from getaddrinfo and nothing points into it any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(answers)
}

/// # Safety
/// `address` must be null or point to `len` bytes of a socket address.
unsafe fn socket_address(
    address: *const libc::sockaddr,
    len: libc::socklen_t,
) -> Option<std::net::SocketAddr> {
    if address.is_null() || len as usize > mem::size_of::<libc::sockaddr_storage>() {
        return None;
    }
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `len` bytes fit into the storage, and the caller vouches for the source.
    let address = unsafe {
        let bytes = storage.view_as::<libc::sockaddr_storage>();
        ptr::copy_nonoverlapping(address.cast::<u8>(), ptr::from_mut(bytes).cast(), len as usize);
        SockAddr::new(storage, len)
    };
    address.as_socket()
}

pub(crate) fn gai_strerror(code: i32) -> String {
    // SAFETY: gai_strerror returns a static C string for every code.
    unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy().into_owned()
}

pub(crate) fn gethostname() -> io::Result<String> {
    // POSIX: a host name has at most 255 bytes; one more for its NUL.
    let mut buffer = [0_u8; 256];
    // SAFETY: the call writes at most the length it is given.
    check(unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) })?;
    let name = CString::from(CStr::from_bytes_until_nul(&buffer).unwrap_or(c""));
    Ok(name.to_string_lossy().into_owned())
}

macro_rules! errnos {
    ($($name:ident)*) => {
        /// Every errno a socket call may set, with its name.
        pub(crate) const ERRNOS: &[(i32, &str)] = &[$((c::$name, stringify!($name))),*];
    };
}
errnos! {
    EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF EBUSY ECHILD
    ECONNABORTED ECONNREFUSED ECONNRESET EDESTADDRREQ EDOM EEXIST EFAULT EHOSTDOWN
    EHOSTUNREACH EINPROGRESS EINTR EINVAL EIO EISCONN EISDIR ELOOP EMFILE EMSGSIZE
    ENAMETOOLONG ENETDOWN ENETRESET ENETUNREACH ENFILE ENOBUFS ENODEV ENOENT ENOMEM
    ENONET ENOPROTOOPT ENOSPC ENOSYS ENOTCONN ENOTDIR ENOTSOCK ENOTTY ENXIO EOPNOTSUPP
    EOVERFLOW EPERM EPFNOSUPPORT EPIPE EPROTO EPROTONOSUPPORT EPROTOTYPE EROFS
    ESHUTDOWN ESOCKTNOSUPPORT ESPIPE ESRCH ETIMEDOUT ETOOMANYREFS EUSERS EXDEV
}
