//! The items of [`sys`](super) for Windows, over WinSock.

use std::ffi::{CStr, CString};
use std::io;
use std::os::windows::io::{AsRawSocket, AsSocket, FromRawSocket, IntoRawSocket};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use windows_sys::Win32::Foundation::{
    GetHandleInformation, HANDLE, HANDLE_FLAG_INHERIT, SetHandleInformation,
};

use super::{Poll, c, whole_milliseconds};

pub use std::os::windows::io::{BorrowedSocket as BorrowedFd, OwnedSocket as OwnedFd, RawSocket as RawFd};

/// A type that has a socket: Windows' `AsSocket` under the name used on Unix.
pub trait AsFd {
    /// Borrows the socket.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl<T: AsSocket> AsFd for T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.as_socket()
    }
}

/// A type that has a socket: Windows' `AsRawSocket` under the name used on Unix.
pub trait AsRawFd {
    /// Returns the number of the socket.
    fn as_raw_fd(&self) -> RawFd;
}

impl<T: AsRawSocket> AsRawFd for T {
    fn as_raw_fd(&self) -> RawFd {
        self.as_raw_socket()
    }
}

/// Error of a non-blocking connect that is in progress.
pub(crate) const CONNECT_IN_PROGRESS: i32 = c::EAGAIN;

/// There is no signal to suppress.
pub(crate) const SEND_FLAGS: i32 = 0;

/// Accepted sockets inherit the listener's non-blocking mode.
pub(crate) const ACCEPT_INHERITS_NONBLOCK: bool = true;

/// There are no Unix pairs. Python uses loopback TCP.
pub(crate) const PAIR_FAMILY: i32 = c::AF_INET as i32;

/// `SO_REUSEADDR` would let two servers bind one port, and only one of them would get the clients.
/// This option prevents other servers from binding it.
pub(crate) const REUSEADDR_FOR_SERVERS: i32 = c::SO_EXCLUSIVEADDRUSE;

/// There is no flag of a receive that does not wait.
pub(crate) const DONTWAIT: Option<i32> = None;

/// No option returns a socket's protocol as a number.
pub(crate) const SO_PROTOCOL: Option<i32> = None;

/// No option lets several servers bind one port.
pub(crate) const REUSEPORT_OPTION: Option<i32> = None;

/// Socket types have no flags.
pub(crate) const KIND_FLAGS: [(i32, &str); 0] = [];

/// Implements the platform's descriptor traits for a type.
macro_rules! descriptor_traits {
    ($type:ident, $detach:ident, $adopt:ident) => {
        impl std::os::windows::io::AsSocket for $type {
            fn as_socket(&self) -> BorrowedFd<'_> {
                std::os::windows::io::AsSocket::as_socket(self.inner())
            }
        }

        impl std::os::windows::io::AsRawSocket for $type {
            fn as_raw_socket(&self) -> RawFd {
                self.fileno()
            }
        }

        impl From<$type> for OwnedFd {
            fn from(sock: $type) -> OwnedFd {
                sock.$detach()
            }
        }

        /// Converts a socket, with family, kind and protocol queried from the system.
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

fn check(result: i32) -> io::Result<i32> {
    if result == c::SOCKET_ERROR {
        // SAFETY: the call only reads the error of this thread's last call.
        return Err(io::Error::from_raw_os_error(unsafe { c::WSAGetLastError() }));
    }
    Ok(result)
}

fn number(fd: BorrowedFd<'_>) -> c::SOCKET {
    fd.as_raw_socket() as c::SOCKET
}

/// Initialises WinSock, which is required before any call. `socket2` and `std` do it too, with the
/// first socket.
pub(crate) fn start_up() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // SAFETY: all zeroes are a valid WSADATA, which the call fills in. WinSock is never shut
        // down before the process ends.
        unsafe {
            let mut data = std::mem::zeroed();
            c::WSAStartup(0x0202, &mut data);
        }
    });
}

pub(crate) fn poll(entries: &mut [Poll<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let milliseconds = match timeout {
        None => -1,
        Some(timeout) => i32::try_from(whole_milliseconds(timeout)).unwrap_or(i32::MAX),
    };
    if entries.is_empty() {
        // WSAPoll refuses an empty set.
        std::thread::sleep(timeout.unwrap_or(Duration::MAX));
        return Ok(0);
    }
    let mut pollfds: Vec<_> = entries
        .iter()
        .map(|entry| c::WSAPOLLFD { fd: number(entry.fd), events: entry.events, revents: 0 })
        .collect();
    // SAFETY: the pointer and the length are those of one vector.
    let ready = check(unsafe { c::WSAPoll(pollfds.as_mut_ptr(), pollfds.len() as u32, milliseconds) })?;
    for (pollfd, entry) in pollfds.iter().zip(entries) {
        entry.revents = pollfd.revents;
    }
    Ok(ready as usize)
}

/// Out-of-band data is never waited for.
pub(crate) fn never_waits(_family: i32, stream: bool, receives: bool, flags: i32) -> bool {
    receives && stream && flags & c::MSG_OOB != 0
}

/// No signal interrupts a connect.
pub(crate) fn connect_restarts(_family: i32) -> bool {
    false
}

/// A connect to a full queue is refused.
pub(crate) fn queue_is_full(_family: i32, _error: &io::Error) -> bool {
    false
}

/// No signal interrupts a call.
pub(crate) fn kernel_timeout(_: BorrowedFd<'_>, _: bool) -> Option<Duration> {
    None
}

/// No flag of a send also connects.
pub(crate) const FASTOPEN: i32 = 0;

/// No option changes the number of bytes that a receive waits for.
pub(crate) fn is_low_water(_level: i32, _option: i32) -> bool {
    false
}

pub(crate) fn low_water(_fd: BorrowedFd<'_>) -> usize {
    0
}

pub(crate) fn close(fd: OwnedFd) -> io::Result<()> {
    // SAFETY: the socket was owned by `fd` and is not used after this call.
    check(unsafe { c::closesocket(fd.into_raw_socket() as c::SOCKET) }).map(drop)
}

pub(crate) fn setsockopt(fd: BorrowedFd<'_>, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: WinSock reads `value.len()` bytes from `value`.
    check(unsafe { c::setsockopt(number(fd), level, option, value.as_ptr(), value.len() as i32) }).map(drop)
}

pub(crate) fn setsockopt_null(fd: BorrowedFd<'_>, level: i32, option: i32, optlen: u32) -> io::Result<()> {
    // SAFETY: WinSock reads no value.
    check(unsafe { c::setsockopt(number(fd), level, option, std::ptr::null(), optlen as i32) }).map(drop)
}

pub(crate) fn getsockopt(
    fd: BorrowedFd<'_>,
    level: i32,
    option: i32,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut len = value.len() as i32;
    // SAFETY: WinSock writes at most `len` bytes to `value`, and their number to `len`.
    check(unsafe { c::getsockopt(number(fd), level, option, value.as_mut_ptr(), &mut len) })?;
    Ok(len as usize)
}

pub(crate) fn close_on_exec(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut flags = 0;
    // SAFETY: a socket is a handle; the flags are written to `flags`.
    if unsafe { GetHandleInformation(number(fd) as HANDLE, &mut flags) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(flags & HANDLE_FLAG_INHERIT == 0)
}

pub(crate) fn set_inheritable(fd: BorrowedFd<'_>, inheritable: bool) -> io::Result<()> {
    let flags = if inheritable { HANDLE_FLAG_INHERIT } else { 0 };
    // SAFETY: a socket is a handle.
    if unsafe { SetHandleInformation(number(fd) as HANDLE, HANDLE_FLAG_INHERIT, flags) } == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Connects two sockets over loopback, as Python does on systems without pairs. A connection from
/// another program in between is detected and refused.
pub(crate) fn socketpair(
    family: Domain,
    kind: Type,
    protocol: Option<Protocol>,
) -> io::Result<(Socket, Socket)> {
    let loopback = match family {
        Domain::IPV4 => std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        Domain::IPV6 => std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)),
        _ => return Err(unsupported("socketpair supports only AF_INET and AF_INET6 on Windows")),
    };
    if kind != Type::STREAM {
        return Err(unsupported("socketpair supports only SOCK_STREAM on Windows"));
    }
    let listener = Socket::new(family, kind, protocol)?;
    listener.bind(&loopback.into())?;
    listener.listen(1)?;
    let ours = Socket::new(family, kind, protocol)?;
    ours.connect(&listener.local_addr()?)?;
    let (theirs, address) = listener.accept()?;
    if address.as_socket() != ours.local_addr()?.as_socket() {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "another program connected to the pair",
        ));
    }
    Ok((ours, theirs))
}

fn unsupported(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, message)
}

pub(crate) fn path_from_bytes(bytes: &[u8]) -> PathBuf {
    // WinSock's Unix paths are UTF-8.
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// Creates a Unix address from the bytes of `sun_path`, and adds a path's NUL.
pub(crate) fn unix_address(name: &[u8]) -> io::Result<SockAddr> {
    let name = std::str::from_utf8(name)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "AF_UNIX path must be UTF-8"))?;
    SockAddr::unix(Path::new(name))
}

pub(crate) fn gai_strerror(code: i32) -> String {
    // The codes are WinSock errors, whose texts come from the system.
    let text = io::Error::from_raw_os_error(code).to_string();
    text.split(" (os error").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// WinSock declares all of netdb.h.
pub(crate) use windows_sys::Win32::Networking::WinSock as netdb_h;

/// Returns the error of the last lookup of this thread, a WinSock error.
pub(crate) fn h_errno() -> i32 {
    // SAFETY: the call only reads the error of this thread's last call.
    unsafe { c::WSAGetLastError() }
}

pub(crate) fn hstrerror(code: i32) -> String {
    gai_strerror(code)
}

pub(crate) fn gethostname() -> io::Result<String> {
    start_up();
    let mut buffer = [0_u8; 256];
    // SAFETY: the call writes at most the given length.
    check(unsafe { c::gethostname(buffer.as_mut_ptr(), buffer.len() as i32) })?;
    let name = CString::from(CStr::from_bytes_until_nul(&buffer).unwrap_or(c""));
    Ok(name.to_string_lossy().into_owned())
}

/// Calls WSAIoctl with the bytes that the code requires. Returns no data.
pub(crate) fn ioctl(fd: BorrowedFd<'_>, code: u32, value: &[u8]) -> io::Result<()> {
    let mut returned = 0;
    // SAFETY: WinSock reads `value.len()` bytes from `value` and writes to no buffer. Without an
    // overlapped structure the operation is complete when the call returns.
    check(unsafe {
        c::WSAIoctl(
            number(fd),
            code,
            value.as_ptr().cast(),
            value.len() as u32,
            std::ptr::null_mut(),
            0,
            &mut returned,
            std::ptr::null_mut(),
            None,
        )
    })
    .map(drop)
}

/// Exports a socket for the process `pid`, as the bytes of a WSAPROTOCOL_INFOW.
pub(crate) fn share(fd: BorrowedFd<'_>, pid: u32) -> io::Result<Vec<u8>> {
    // SAFETY: all zeroes are a valid structure. WinSock fills it in, and its bytes are plain
    // numbers and characters without padding.
    unsafe {
        let mut info: c::WSAPROTOCOL_INFOW = std::mem::zeroed();
        check(c::WSADuplicateSocketW(number(fd), pid, &mut info))?;
        let start = (&raw const info).cast::<u8>();
        Ok(std::slice::from_raw_parts(start, size_of::<c::WSAPROTOCOL_INFOW>()).to_vec())
    }
}

/// Imports a socket that [`share`] exported.
pub(crate) fn from_share(info: &[u8]) -> io::Result<Socket> {
    start_up();
    if info.len() != size_of::<c::WSAPROTOCOL_INFOW>() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a shared socket is {} bytes, not {}", size_of::<c::WSAPROTOCOL_INFOW>(), info.len()),
        ));
    }
    let flags = c::WSA_FLAG_OVERLAPPED | c::WSA_FLAG_NO_HANDLE_INHERIT;
    // SAFETY: there are as many bytes as the structure has, and any bytes are valid. The result is
    // a new socket that we own.
    unsafe {
        let info = info.as_ptr().cast::<c::WSAPROTOCOL_INFOW>().read_unaligned();
        let from = c::FROM_PROTOCOL_INFO;
        match c::WSASocketW(from, from, from, &info, 0, flags) {
            c::INVALID_SOCKET => Err(io::Error::from_raw_os_error(c::WSAGetLastError())),
            socket => Ok(Socket::from(OwnedFd::from_raw_socket(socket as RawFd))),
        }
    }
}
