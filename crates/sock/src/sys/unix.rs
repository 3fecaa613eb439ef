//! The items of [`sys`](super) for Unix.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Poll, c, whole_milliseconds};

pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Error of a non-blocking connect that is in progress.
pub(crate) const CONNECT_IN_PROGRESS: i32 = c::EINPROGRESS;

/// Flags of every send: sending on a closed connection returns `EPIPE` and does not raise
/// `SIGPIPE`, regardless of the process's settings. Python ignores the signal instead.
pub(crate) const SEND_FLAGS: i32 = c::MSG_NOSIGNAL;

/// Whether accepted sockets inherit the listener's `O_NONBLOCK`, as on the BSDs.
pub(crate) const ACCEPT_INHERITS_NONBLOCK: bool = !cfg!(target_os = "linux");

/// Returns the number of the calling thread, as in `/proc`.
#[cfg(target_os = "linux")]
pub(crate) fn thread_id() -> i32 {
    // SAFETY: gettid(2) takes nothing.
    unsafe { c::gettid() }
}

pub(crate) fn path_from_bytes(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Creates a Unix address from the bytes of `sun_path`, and adds a path's NUL.
pub(crate) fn unix_address(name: &[u8]) -> io::Result<SockAddr> {
    SockAddr::unix(Path::new(OsStr::from_bytes(name)))
}

/// Default family of pairs, as in Python.
pub(crate) const PAIR_FAMILY: i32 = c::AF_UNIX;

pub(crate) fn socketpair(
    family: Domain,
    kind: Type,
    protocol: Option<Protocol>,
) -> io::Result<(Socket, Socket)> {
    Socket::pair(family, kind, protocol)
}

/// The option that Python's `create_server` sets on a listener. Here it lets a restarted server
/// bind its port.
pub(crate) const REUSEADDR_FOR_SERVERS: i32 = c::SO_REUSEADDR;

/// The flag of a receive that does not wait.
pub(crate) const DONTWAIT: Option<i32> = Some(c::MSG_DONTWAIT);

/// The poll(2) event for a peer that has shut down sending, if the system has one.
#[cfg(any(target_os = "linux", target_os = "freebsd"))]
pub(crate) const POLLRDHUP: i16 = c::POLLRDHUP;
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub(crate) const POLLRDHUP: i16 = 0;

/// Returns whether a call with these flags does not wait on a blocking socket.
///
/// `MSG_OOB` on a stream never waits (`tcp_recv_urg`, `unix_stream_recv_urg`), and neither does
/// reading the error queue (recvmsg(2), ip(7)). Sockets of AF_UNIX and AF_NETLINK have no such
/// queue and ignore the flag.
pub(crate) fn never_waits(family: i32, stream: bool, receives: bool, flags: i32) -> bool {
    if flags & c::MSG_DONTWAIT != 0 || receives && stream && flags & c::MSG_OOB != 0 {
        return true;
    }
    #[cfg(target_os = "linux")]
    if receives && flags & c::MSG_ERRQUEUE != 0 {
        return ![c::AF_UNIX, c::AF_NETLINK].contains(&family);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = family;
    false
}

/// Returns whether a non-blocking connect failed because the listener's queue is full. A blocking
/// connect waits for room there: on Linux, for AF_UNIX (unix(7)).
pub(crate) fn queue_is_full(family: i32, error: &io::Error) -> bool {
    cfg!(target_os = "linux") && family == c::AF_UNIX && error.raw_os_error() == Some(c::EAGAIN)
}

/// Returns whether an interrupted connect must be called again. In POSIX it continues by itself,
/// but an AF_UNIX socket of Linux was only waiting for room in the queue (`unix_stream_connect`).
pub(crate) fn connect_restarts(family: i32) -> bool {
    cfg!(target_os = "linux") && family == c::AF_UNIX
}

/// The option that returns a socket's protocol, if there is one.
pub(crate) const SO_PROTOCOL: Option<i32> = if c::SO_PROTOCOL < 0 { None } else { Some(c::SO_PROTOCOL) };

/// The option that lets several servers bind one port.
pub(crate) const REUSEPORT_OPTION: Option<i32> = Some(c::SO_REUSEPORT);

/// Bits of a socket type that are flags, with their names.
pub(crate) const KIND_FLAGS: [(i32, &str); 2] =
    [(c::SOCK_CLOEXEC, "SOCK_CLOEXEC"), (c::SOCK_NONBLOCK, "SOCK_NONBLOCK")];

/// Implements the platform's descriptor traits for a type.
macro_rules! descriptor_traits {
    ($type:ident, $detach:ident, $adopt:ident) => {
        impl AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.inner().as_fd()
            }
        }

        impl AsRawFd for $type {
            fn as_raw_fd(&self) -> RawFd {
                self.fileno()
            }
        }

        impl From<$type> for OwnedFd {
            fn from(sock: $type) -> OwnedFd {
                sock.$detach()
            }
        }

        /// Converts a descriptor, with family, kind and protocol queried from the system.
        ///
        /// Python: `socket.socket(fileno=fd)`. Fails if the descriptor is not a socket
        /// (`ENOTSOCK`), and then closes it.
        impl TryFrom<OwnedFd> for $type {
            type Error = io::Error;

            fn try_from(fd: OwnedFd) -> io::Result<$type> {
                $type::$adopt(fd)
            }
        }
    };
}
pub(crate) use descriptor_traits;

pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn poll(entries: &mut [Poll<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    // A longer timeout is limited. The caller waits again.
    let milliseconds =
        timeout.map_or(-1, |timeout| i32::try_from(whole_milliseconds(timeout)).unwrap_or(i32::MAX));
    // This crate and its servers use at most two entries, except when they wait for children.
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

/// Returns `SO_RCVTIMEO`, or else `SO_SNDTIMEO`, or `None` if it is not set.
pub(crate) fn kernel_timeout(fd: BorrowedFd<'_>, receiving: bool) -> Option<Duration> {
    let socket = socket2::SockRef::from(&fd);
    let timeout = if receiving { socket.read_timeout() } else { socket.write_timeout() };
    // It fails only for a descriptor that is not a socket, whose next call fails too.
    timeout.ok().flatten()
}

/// The flag of a send that also connects.
#[cfg(target_os = "linux")]
pub(crate) const FASTOPEN: i32 = c::MSG_FASTOPEN;
#[cfg(not(target_os = "linux"))]
pub(crate) const FASTOPEN: i32 = 0;

/// Returns whether the option is `SO_RCVLOWAT`.
pub(crate) fn is_low_water(level: i32, option: i32) -> bool {
    (level, option) == (libc::SOL_SOCKET, libc::SO_RCVLOWAT)
}

/// Returns `SO_RCVLOWAT`, the number of bytes that a blocking receive waits for.
pub(crate) fn low_water(fd: BorrowedFd<'_>) -> usize {
    let mut bytes = [0; size_of::<libc::c_int>()];
    match getsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &mut bytes) {
        Ok(_) => usize::try_from(libc::c_int::from_ne_bytes(bytes)).unwrap_or(0),
        Err(_) => 0,
    }
}

pub(crate) fn close(fd: OwnedFd) -> io::Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor was owned by `fd` and is not used after this call.
    // EINTR is not retried: on Linux the descriptor is closed anyway (close(2)).
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

pub(crate) fn setsockopt_null(fd: BorrowedFd<'_>, level: i32, option: i32, optlen: u32) -> io::Result<()> {
    // SAFETY: the kernel reads no value.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::null(), optlen) }).map(drop)
}

pub(crate) fn getsockopt(
    fd: BorrowedFd<'_>,
    level: i32,
    option: i32,
    value: &mut [u8],
) -> io::Result<usize> {
    let unit = length_unit(level, option);
    let room = value.len() / unit;
    let mut len = room as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` units to `value`, which has room for them, and
    // their number to `len`.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &mut len) })?;
    // With room for no units, it writes none and returns their number.
    if unit > 1 && len as usize > room {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(len as usize * unit)
}

/// Returns the number of bytes that the kernel counts as a length of 1. Linux counts a filter in
/// instructions, not in bytes: `sk_get_filter` (net/core/filter.c) copies as many `struct
/// sock_filter` as the given length.
#[cfg(target_os = "linux")]
fn length_unit(level: i32, option: i32) -> usize {
    // SO_GET_FILTER is another name of this number (asm-generic/socket.h).
    match (level, option) {
        (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER) => size_of::<libc::sock_filter>(),
        _ => 1,
    }
}

#[cfg(not(target_os = "linux"))]
fn length_unit(_level: i32, _option: i32) -> usize {
    1
}

pub(crate) fn close_on_exec(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: F_GETFD has no argument and accesses no memory.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) })?;
    Ok(flags & libc::FD_CLOEXEC != 0)
}

pub(crate) fn set_inheritable(fd: BorrowedFd<'_>, inheritable: bool) -> io::Result<()> {
    let flags = if inheritable { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: F_SETFD takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) }).map(drop)
}

/// Does nothing: sockets need no initialisation.
pub(crate) fn start_up() {}

pub(crate) fn gai_strerror(code: i32) -> String {
    // SAFETY: gai_strerror returns a static C string for every code.
    unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy().into_owned()
}

pub(crate) fn gethostname() -> io::Result<String> {
    // POSIX: a host name has at most 255 bytes; one more for its NUL.
    let mut buffer = [0_u8; 256];
    // SAFETY: the call writes at most the given length.
    check(unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) })?;
    let name = CString::from(CStr::from_bytes_until_nul(&buffer).unwrap_or(c""));
    Ok(name.to_string_lossy().into_owned())
}

pub(crate) fn sethostname(name: &[u8]) -> io::Result<()> {
    // SAFETY: the system reads the given number of bytes.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len() as _) }).map(drop)
}

/// Declarations of netdb.h that `libc` lacks.
pub(crate) mod netdb_h {
    use std::ffi::{c_char, c_int, c_void};

    unsafe extern "C" {
        #[cfg(target_os = "linux")]
        pub(crate) fn gethostbyname_r(
            name: *const c_char,
            entry: *mut libc::hostent,
            buffer: *mut c_char,
            length: libc::size_t,
            result: *mut *mut libc::hostent,
            h_errno: *mut c_int,
        ) -> c_int;
        #[cfg(target_os = "linux")]
        pub(crate) fn gethostbyaddr_r(
            address: *const c_void,
            address_length: libc::socklen_t,
            family: c_int,
            entry: *mut libc::hostent,
            buffer: *mut c_char,
            length: libc::size_t,
            result: *mut *mut libc::hostent,
            h_errno: *mut c_int,
        ) -> c_int;
        #[cfg(target_os = "linux")]
        pub(crate) fn getservbyname_r(
            name: *const c_char,
            protocol: *const c_char,
            entry: *mut libc::servent,
            buffer: *mut c_char,
            length: libc::size_t,
            result: *mut *mut libc::servent,
        ) -> c_int;
        #[cfg(target_os = "linux")]
        pub(crate) fn getservbyport_r(
            port: c_int,
            protocol: *const c_char,
            entry: *mut libc::servent,
            buffer: *mut c_char,
            length: libc::size_t,
            result: *mut *mut libc::servent,
        ) -> c_int;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        pub(crate) fn getprotobyname_r(
            name: *const c_char,
            entry: *mut libc::protoent,
            buffer: *mut c_char,
            length: libc::size_t,
            result: *mut *mut libc::protoent,
        ) -> c_int;
        #[cfg(not(target_os = "linux"))]
        pub(crate) fn gethostbyname(name: *const c_char) -> *mut libc::hostent;
        #[cfg(not(target_os = "linux"))]
        pub(crate) fn gethostbyaddr(
            address: *const c_void,
            length: libc::socklen_t,
            family: c_int,
        ) -> *mut libc::hostent;
        pub(crate) fn hstrerror(code: c_int) -> *const c_char;
        #[cfg_attr(target_os = "freebsd", link_name = "__h_errno")]
        #[cfg(not(any(target_os = "linux", target_os = "macos")))]
        pub(crate) fn h_errno() -> *mut c_int;
        #[cfg(target_os = "macos")]
        pub(crate) static mut h_errno: c_int;
    }
}

/// Returns the error of the last lookup of this thread. The calls of Linux return it themselves.
#[cfg(not(target_os = "linux"))]
pub(crate) fn h_errno() -> i32 {
    // SAFETY: both forms are a variable that lives as long as the thread.
    unsafe {
        #[cfg(not(target_os = "macos"))]
        return *netdb_h::h_errno();
        #[cfg(target_os = "macos")]
        return netdb_h::h_errno;
    }
}

pub(crate) fn hstrerror(code: i32) -> String {
    // SAFETY: hstrerror returns a static C string for every code.
    unsafe { CStr::from_ptr(netdb_h::hstrerror(code)) }.to_string_lossy().into_owned()
}

macro_rules! errnos {
    ($($name:ident)*) => {
        /// The errnos that socket calls set, with their names.
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

pub(crate) fn if_nameindex() -> io::Result<Vec<(u32, String)>> {
    // SAFETY: the call has no arguments; its result is freed once, below.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut interfaces = Vec::new();
    let mut next = list;
    // SAFETY: the list ends with an entry whose index is 0; names are C strings.
    unsafe {
        while (*next).if_index != 0 {
            let name = CStr::from_ptr((*next).if_name).to_string_lossy().into_owned();
            interfaces.push(((*next).if_index, name));
            next = next.add(1);
        }
        libc::if_freenameindex(list);
    }
    Ok(interfaces)
}

pub(crate) fn if_nametoindex(name: &CStr) -> io::Result<u32> {
    // SAFETY: the name ends in NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

pub(crate) fn if_indextoname(index: u32) -> io::Result<String> {
    let mut buffer = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has room for the longest name and its NUL.
    if unsafe { libc::if_indextoname(index, buffer.as_mut_ptr().cast()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&buffer).unwrap_or(c"");
    Ok(name.to_string_lossy().into_owned())
}
