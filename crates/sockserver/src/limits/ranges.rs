//! The values that the setters of a builder accept. `bind` refuses others.

use std::fmt::{self, Display};
use std::io;
use std::ops::RangeInclusive;

/// As many threads or processes a server may have. The default of Linux' `pid_max` is the same.
pub(crate) const WORKERS: RangeInclusive<usize> = 1..=32_768;

/// A queue is allocated at its start, with 16 bytes for each place.
pub(crate) const QUEUE: RangeInclusive<usize> = 1..=1 << 20;

/// Below the least size a log line or a panic overflows the stack. A stack of the largest size can
/// still be mapped.
pub(crate) const STACK_SIZE: RangeInclusive<usize> = 64 << 10..=1 << 30;

/// A datagram over IP has at most 65,535 bytes, and a Unix datagram as many as fit into `SO_SNDBUF`.
pub(crate) const PACKET_SIZE: RangeInclusive<usize> = 0..=16 << 20;

/// The kernel's limit for one call, `UIO_MAXIOV`.
pub(crate) const BATCH: RangeInclusive<usize> = 1..=1024;

/// As many bytes a batch may have. They are allocated at once.
pub(crate) const BATCH_BYTES: RangeInclusive<usize> = 0..=256 << 20;

/// The sum of two such numbers does not overflow.
pub(crate) const REQUESTS: RangeInclusive<u64> = 1..=u64::MAX / 2;
pub(crate) const JITTER: RangeInclusive<u64> = 0..=u64::MAX / 2;

/// The least size has room for each PROXY protocol header without TLVs. The largest one is the
/// longest header of version 2.
pub(crate) const PROXY_HEADER_SIZE: RangeInclusive<usize> = 16 + 216..=16 + 0xffff;

/// Governor counts nanoseconds. A million times the longest interval are twelve days.
#[cfg(feature = "rate-limit")]
pub(crate) const ACCEPT_RATE: RangeInclusive<u32> = 1..=1_000_000;

/// The permission bits.
pub(crate) const MODE: RangeInclusive<Octal> = Octal(0)..=Octal(0o777);

/// A mode, which is written in octal digits.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Octal(pub(crate) u32);

impl Display for Octal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#o}", self.0)
    }
}

/// Returns an error that names the setter and the range if the value is out of range.
pub(crate) fn check<T: PartialOrd + Display>(
    setter: &str,
    value: T,
    range: &RangeInclusive<T>,
) -> io::Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    let sentence = format!("{setter} must be in {least}..={most}, not {value}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, sentence))
}
