//! The lookups of `<netdb.h>`, which WinSock has too.

use std::ffi::{CStr, c_char};
use std::io;
#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;
use std::net::IpAddr;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::SockAddr;

use super::{c, netdb_h};

/// Calls getnameinfo(3) and returns host and service. The error is as in
/// [`getaddrinfo`](super::getaddrinfo).
pub(crate) fn getnameinfo(address: &SockAddr, flags: i32) -> Result<(String, String), (i32, io::Error)> {
    super::start_up();
    // NI_MAXHOST and NI_MAXSERV.
    let (mut host, mut service) = ([0_u8; 1025], [0_u8; 32]);
    // SAFETY: the address has the given length, and so have both buffers.
    let code = unsafe {
        c::getnameinfo(
            address.as_ptr().cast(),
            address.len(),
            host.as_mut_ptr().cast(),
            host.len() as _,
            service.as_mut_ptr().cast(),
            service.len() as _,
            flags,
        )
    };
    if code == 0 { Ok((text(&host), text(&service))) } else { Err((code, io::Error::last_os_error())) }
}

fn text(buffer: &[u8]) -> String {
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"").to_string_lossy().into_owned()
}

/// Locks the calls below whose results the next call overwrites in any thread. A lookup may take
/// long under it, and the others wait (CPython holds a lock too).
///
/// There is no lock where a slow name server may be asked and results belong to the thread: on
/// Windows ("allocated from thread local storage", gethostbyname), macOS and FreeBSD
/// ("thread-specific data", gethostbyname(3), getservent(3), getprotoent(3)). Linux has reentrant
/// calls, but for the static table of musl's getprotobyname(3).
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn lock_netdb() -> Option<MutexGuard<'static, ()>> {
    static LOCK: Mutex<()> = Mutex::new(());
    super::start_up();
    let is_per_thread = cfg!(any(windows, target_os = "macos", target_os = "freebsd"));
    (!is_per_thread).then(|| LOCK.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Calls a reentrant function with a buffer that is large enough, and then `read` with the entry it
/// has found, null if none.
#[cfg(target_os = "linux")]
fn with_buffer<E, T>(
    call: impl Fn(*mut E, *mut c_char, usize, *mut *mut E) -> std::ffi::c_int,
    read: impl FnOnce(*mut E) -> T,
) -> T {
    const LARGEST: usize = 1 << 20;
    let mut buffer: Vec<c_char> = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<E>::zeroed();
        let mut found = std::ptr::null_mut();
        let code = call(entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found);
        if code == c::ERANGE && buffer.len() < LARGEST {
            buffer.resize(2 * buffer.len(), 0);
            continue;
        }
        return read(found);
    }
}

fn pointer(protocol: Option<&CStr>) -> *const std::ffi::c_char {
    protocol.map_or(std::ptr::null(), CStr::as_ptr)
}

/// The result of the older host lookups.
pub(crate) struct RawHost {
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Calls gethostbyname(3). The error is its `h_errno`.
pub(crate) fn gethostbyname(name: &CStr) -> Result<RawHost, i32> {
    #[cfg(target_os = "linux")]
    {
        let mut error = 0;
        let error_at = &raw mut error;
        let found = with_buffer(
            // SAFETY: the name ends in NUL, and the buffer has the given length.
            |entry, buffer, length, found| unsafe {
                netdb_h::gethostbyname_r(name.as_ptr(), entry, buffer, length, found, error_at)
            },
            // SAFETY: the entry was filled, or is null.
            |found| unsafe { read_host(found) },
        );
        found.ok_or(error)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _lock = lock_netdb();
        // SAFETY: the name ends in NUL; the result is read before the lock is released, or belongs to
        // this thread.
        unsafe { read_host(netdb_h::gethostbyname(name.as_ptr().cast())) }.ok_or_else(super::h_errno)
    }
}

/// Calls gethostbyaddr(3). The error is its `h_errno`.
pub(crate) fn gethostbyaddr(address: IpAddr) -> Result<RawHost, i32> {
    let (bytes, family) = match address {
        IpAddr::V4(ip) => (ip.octets().to_vec(), c::AF_INET),
        IpAddr::V6(ip) => (ip.octets().to_vec(), c::AF_INET6),
    };
    // The constants of WinSock have 16 bits.
    #[allow(clippy::useless_conversion)]
    let family = i32::from(family);
    #[cfg(target_os = "linux")]
    {
        let mut error = 0;
        let error_at = &raw mut error;
        let (at, size) = (bytes.as_ptr().cast(), bytes.len() as libc::socklen_t);
        let found = with_buffer(
            // SAFETY: the address and the buffer have the given lengths.
            |entry, buffer, length, found| unsafe {
                netdb_h::gethostbyaddr_r(at, size, family, entry, buffer, length, found, error_at)
            },
            // SAFETY: the entry was filled, or is null.
            |found| unsafe { read_host(found) },
        );
        found.ok_or(error)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _lock = lock_netdb();
        // SAFETY: the address has the given length; the result is read before the lock is released, or
        // belongs to this thread.
        let found =
            unsafe { read_host(netdb_h::gethostbyaddr(bytes.as_ptr().cast(), bytes.len() as _, family)) };
        found.ok_or_else(super::h_errno)
    }
}

/// # Safety
/// `entry` must be null or a whole hostent.
unsafe fn read_host(entry: *mut c::hostent) -> Option<RawHost> {
    // SAFETY: the caller guarantees it.
    let entry = unsafe { entry.as_ref() }?;
    let text = |name: *const c_char| {
        // SAFETY: the names of an entry are C strings.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    };
    // SAFETY: both lists of an entry end in null.
    let (aliases, addresses) =
        unsafe { (pointers(entry.h_aliases.cast()), pointers(entry.h_addr_list.cast())) };
    let length = entry.h_length as usize;
    Some(RawHost {
        name: text(entry.h_name.cast()),
        aliases: aliases.into_iter().map(|alias| text(alias.cast())).collect(),
        addresses: addresses
            .into_iter()
            // SAFETY: each address has the length of the entry.
            .filter_map(|address| ip(unsafe { std::slice::from_raw_parts(address.cast(), length) }))
            .collect(),
    })
}

/// # Safety
/// `list` must be null or end in null.
unsafe fn pointers(list: *const *const u8) -> Vec<*const u8> {
    let mut found = Vec::new();
    // SAFETY: the caller guarantees the end.
    unsafe {
        while !list.is_null() && !(*list.add(found.len())).is_null() {
            found.push(*list.add(found.len()));
        }
    }
    found
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

pub(crate) fn getservbyname(name: &CStr, protocol: Option<&CStr>) -> Option<u16> {
    // SAFETY: the entry was filled, or is null.
    let read =
        |entry: *mut c::servent| unsafe { entry.as_ref() }.map(|entry| u16::from_be(entry.s_port as u16));
    #[cfg(target_os = "linux")]
    return with_buffer(
        // SAFETY: the strings end in NUL, and the buffer has the given length.
        |entry, buffer, length, found| unsafe {
            netdb_h::getservbyname_r(name.as_ptr(), pointer(protocol), entry, buffer, length, found)
        },
        read,
    );
    #[cfg(not(target_os = "linux"))]
    {
        let _lock = lock_netdb();
        // SAFETY: the strings end in NUL; the result is read before the lock is released, or belongs to
        // this thread.
        read(unsafe { c::getservbyname(name.as_ptr().cast(), pointer(protocol).cast()) })
    }
}

pub(crate) fn getservbyport(port: u16, protocol: Option<&CStr>) -> Option<String> {
    let port = i32::from(port.to_be());
    // SAFETY: the entry was filled, or is null, and its name is a C string.
    let read = |entry: *mut c::servent| unsafe {
        entry.as_ref().map(|entry| CStr::from_ptr(entry.s_name.cast()).to_string_lossy().into_owned())
    };
    #[cfg(target_os = "linux")]
    return with_buffer(
        // SAFETY: the string ends in NUL, and the buffer has the given length.
        |entry, buffer, length, found| unsafe {
            netdb_h::getservbyport_r(port, pointer(protocol), entry, buffer, length, found)
        },
        read,
    );
    #[cfg(not(target_os = "linux"))]
    {
        let _lock = lock_netdb();
        // SAFETY: the string ends in NUL; the result is read before the lock is released, or belongs to
        // this thread.
        read(unsafe { c::getservbyport(port, pointer(protocol).cast()) })
    }
}

pub(crate) fn getprotobyname(name: &CStr) -> Option<i32> {
    // The field has 16 bits in WinSock.
    #[allow(clippy::useless_conversion)]
    // SAFETY: the entry was filled, or is null.
    let read = |entry: *mut c::protoent| unsafe { entry.as_ref() }.map(|entry| i32::from(entry.p_proto));
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    return with_buffer(
        // SAFETY: the string ends in NUL, and the buffer has the given length.
        |entry, buffer, length, found| unsafe {
            netdb_h::getprotobyname_r(name.as_ptr(), entry, buffer, length, found)
        },
        read,
    );
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        let _lock = lock_netdb();
        // SAFETY: the string ends in NUL; the result is read before the lock is released, or belongs to
        // this thread.
        read(unsafe { c::getprotobyname(name.as_ptr().cast()) })
    }
}
