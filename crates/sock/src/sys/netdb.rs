//! The lookups of `<netdb.h>`, which WinSock has too.

use std::ffi::{CStr, c_char};
use std::io;
use std::net::IpAddr;
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

/// Locks the calls below, whose results are in static memory that the next call overwrites, in any
/// thread (CPython holds a lock too).
fn lock_netdb() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    super::start_up();
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
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
    let _lock = lock_netdb();
    // SAFETY: the name ends in NUL; the result is read before the lock is released.
    unsafe { read_host(netdb_h::gethostbyname(name.as_ptr().cast())) }
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
    let _lock = lock_netdb();
    // SAFETY: the address has the given length; the result is read before the lock is released.
    unsafe { read_host(netdb_h::gethostbyaddr(bytes.as_ptr().cast(), bytes.len() as _, family)) }
}

/// # Safety
/// `entry` must be null or a whole hostent.
unsafe fn read_host(entry: *mut c::hostent) -> Result<RawHost, i32> {
    // SAFETY: the caller guarantees it.
    let Some(entry) = (unsafe { entry.as_ref() }) else {
        return Err(super::h_errno());
    };
    let text = |name: *const c_char| {
        // SAFETY: the names of an entry are C strings.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    };
    // SAFETY: both lists of an entry end in null.
    let (aliases, addresses) =
        unsafe { (pointers(entry.h_aliases.cast()), pointers(entry.h_addr_list.cast())) };
    let length = entry.h_length as usize;
    Ok(RawHost {
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
    let _lock = lock_netdb();
    // SAFETY: the strings end in NUL; the result is read before the lock is released.
    let entry = unsafe { c::getservbyname(name.as_ptr().cast(), pointer(protocol).cast()).as_ref() }?;
    Some(u16::from_be(entry.s_port as u16))
}

pub(crate) fn getservbyport(port: u16, protocol: Option<&CStr>) -> Option<String> {
    let _lock = lock_netdb();
    // SAFETY: the string ends in NUL; the result is read before the lock is released, and its name
    // is a C string.
    unsafe {
        let entry = c::getservbyport(i32::from(port.to_be()), pointer(protocol).cast()).as_ref()?;
        Some(CStr::from_ptr(entry.s_name.cast()).to_string_lossy().into_owned())
    }
}

pub(crate) fn getprotobyname(name: &CStr) -> Option<i32> {
    let _lock = lock_netdb();
    // SAFETY: the string ends in NUL; the result is read before the lock is released.
    let entry = unsafe { c::getprotobyname(name.as_ptr().cast()).as_ref() }?;
    // The field has 16 bits in WinSock.
    #[allow(clippy::useless_conversion)]
    Some(i32::from(entry.p_proto))
}
