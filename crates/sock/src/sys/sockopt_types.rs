//! The structures of some options, as bytes. They are written field by field: padding is zero and
//! never read.

use std::mem::{offset_of, size_of};
use std::time::Duration;

use socket2::SockAddr;

use super::c;
#[cfg(windows)]
use super::whole_milliseconds;

/// Copies fields to their offsets in a structure of `size` bytes.
fn as_bytes(size: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (at, field) in fields {
        bytes[*at..*at + field.len()].copy_from_slice(field);
    }
    bytes
}

/// The option that counts in seconds. On macOS `SO_LINGER` counts in ticks.
#[cfg(not(target_os = "macos"))]
pub(crate) const LINGER_OPTION: i32 = c::SO_LINGER;
#[cfg(target_os = "macos")]
pub(crate) const LINGER_OPTION: i32 = c::SO_LINGER_SEC;

/// The type of the fields of a `struct linger`.
#[cfg(unix)]
type LingerField = i32;
#[cfg(windows)]
type LingerField = u16;

pub(crate) const LINGER_SIZE: usize = 2 * size_of::<LingerField>();

pub(crate) fn linger(on: bool, seconds: u16) -> Vec<u8> {
    let [on, seconds] = [u16::from(on), seconds].map(|number| LingerField::from(number).to_ne_bytes());
    [on, seconds].concat()
}

/// Returns whether it is on, and the seconds. Returns `None` for an unexpected length.
pub(crate) fn read_linger(bytes: &[u8]) -> Option<(bool, u16)> {
    let (on, seconds) = bytes.split_at_checked(size_of::<LingerField>())?;
    let field = |bytes: &[u8]| Some(LingerField::from_ne_bytes(bytes.try_into().ok()?));
    // A larger value set by other code is limited.
    Some((field(on)? != 0, u16::try_from(field(seconds)?).unwrap_or(u16::MAX)))
}

#[cfg(unix)]
pub(crate) const TIMEVAL_SIZE: usize = size_of::<c::timeval>();
/// Windows uses milliseconds.
#[cfg(windows)]
pub(crate) const TIMEVAL_SIZE: usize = 4;

/// Encodes a timeout. It is rounded up, because zero would mean no timeout. A timeout that is too
/// long becomes the longest possible.
#[cfg(unix)]
pub(crate) fn timeval(timeout: Duration) -> Vec<u8> {
    let microseconds = timeout.as_nanos().div_ceil(1000);
    let seconds = c::time_t::try_from(microseconds / 1_000_000).unwrap_or(c::time_t::MAX);
    let rest = (microseconds % 1_000_000) as c::suseconds_t;
    as_bytes(
        TIMEVAL_SIZE,
        &[
            (offset_of!(c::timeval, tv_sec), &seconds.to_ne_bytes()),
            (offset_of!(c::timeval, tv_usec), &rest.to_ne_bytes()),
        ],
    )
}

#[cfg(windows)]
pub(crate) fn timeval(timeout: Duration) -> Vec<u8> {
    u32::try_from(whole_milliseconds(timeout)).unwrap_or(u32::MAX).to_ne_bytes().to_vec()
}

/// Returns `None` for bytes that are not a timeout.
#[cfg(unix)]
pub(crate) fn read_timeval(bytes: &[u8]) -> Option<Duration> {
    let seconds = bytes.get(offset_of!(c::timeval, tv_sec)..)?.first_chunk()?;
    let rest = bytes.get(offset_of!(c::timeval, tv_usec)..)?.first_chunk()?;
    let seconds = u64::try_from(c::time_t::from_ne_bytes(*seconds)).ok()?;
    let rest = u32::try_from(c::suseconds_t::from_ne_bytes(*rest)).ok()?;
    Some(Duration::new(seconds, rest.checked_mul(1000)?))
}

#[cfg(windows)]
pub(crate) fn read_timeval(bytes: &[u8]) -> Option<Duration> {
    let milliseconds = u32::from_ne_bytes(bytes.try_into().ok()?);
    Some(Duration::from_millis(milliseconds.into()))
}

#[cfg(windows)]
use c::{GROUP_REQ as GroupReq, GROUP_SOURCE_REQ as GroupSourceReq};
#[cfg(unix)]
use c::{group_req as GroupReq, group_source_req as GroupSourceReq};

/// A `struct group_req` or, with a source, a `struct group_source_req`.
pub(crate) fn group_request(interface: u32, group: &SockAddr, source: Option<&SockAddr>) -> Vec<u8> {
    let interface = interface.to_ne_bytes();
    match source {
        None => as_bytes(
            size_of::<GroupReq>(),
            &[
                (offset_of!(GroupReq, gr_interface), &interface),
                (offset_of!(GroupReq, gr_group), address_bytes(group)),
            ],
        ),
        Some(source) => as_bytes(
            size_of::<GroupSourceReq>(),
            &[
                (offset_of!(GroupSourceReq, gsr_interface), &interface),
                (offset_of!(GroupSourceReq, gsr_group), address_bytes(group)),
                (offset_of!(GroupSourceReq, gsr_source), address_bytes(source)),
            ],
        ),
    }
}

fn address_bytes(address: &SockAddr) -> &[u8] {
    // SAFETY: an address has as many bytes as its length.
    unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), address.len() as usize) }
}
