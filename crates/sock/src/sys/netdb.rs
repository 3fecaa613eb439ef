//! The look-ups of `<netdb.h>`, which WinSock has too.

use std::ffi::CStr;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::SockAddr;

use super::c;

/// getnameinfo(3): host and service. The error is as in [`getaddrinfo`](super::getaddrinfo).
pub(crate) fn getnameinfo(address: &SockAddr, flags: i32) -> Result<(String, String), (i32, io::Error)> {
    super::start_up();
    // NI_MAXHOST and NI_MAXSERV.
    let (mut host, mut service) = ([0_u8; 1025], [0_u8; 32]);
    // SAFETY: the address is as long as it says, and both buffers as long as told.
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

/// The calls below answer in memory that is theirs and is written over by the
/// next one, in whatever thread (CPython holds a lock too).
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    super::start_up();
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pointer(protocol: Option<&CStr>) -> *const std::ffi::c_char {
    protocol.map_or(std::ptr::null(), CStr::as_ptr)
}

pub(crate) fn getservbyname(name: &CStr, protocol: Option<&CStr>) -> Option<u16> {
    let _lock = one_at_a_time();
    // SAFETY: the strings end in NUL; the answer is read before the lock is released.
    let entry = unsafe { c::getservbyname(name.as_ptr().cast(), pointer(protocol).cast()).as_ref() }?;
    Some(u16::from_be(entry.s_port as u16))
}

pub(crate) fn getservbyport(port: u16, protocol: Option<&CStr>) -> Option<String> {
    let _lock = one_at_a_time();
    // SAFETY: the string ends in NUL; the answer is read before the lock is
    // released, and its name is a C string.
    unsafe {
        let entry = c::getservbyport(i32::from(port.to_be()), pointer(protocol).cast()).as_ref()?;
        Some(CStr::from_ptr(entry.s_name.cast()).to_string_lossy().into_owned())
    }
}

pub(crate) fn getprotobyname(name: &CStr) -> Option<i32> {
    let _lock = one_at_a_time();
    // SAFETY: the string ends in NUL; the answer is read before the lock is released.
    let entry = unsafe { c::getprotobyname(name.as_ptr().cast()).as_ref() }?;
    // WinSock has only 16 bits for it.
    #[allow(clippy::useless_conversion)]
    Some(i32::from(entry.p_proto))
}
