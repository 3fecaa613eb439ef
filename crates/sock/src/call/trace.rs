//! One `log` line for each BSD call, like strace(1).
//!
//! Target `sock::call`, level trace. `RUST_LOG=sock=trace` shows
//!
//! ```text
//! socket(AF_INET, SOCK_STREAM, 0) = 3 <12.4µs>
//! connect(3, 127.0.0.1:1) = -1 ECONNREFUSED (Connection refused) <71.3µs>
//! ```
//!
//! When the level is disabled, a call costs one check of the log level.

use std::fmt;
use std::io;
use std::time::Instant;

use crate::error::errno_name;
use crate::sys::AsRawFd;

/// Runs a call and logs it: `call!("listen({fd}, {backlog})" => self.inner.listen(backlog))`.
macro_rules! call {
    ($line:literal $(, $argument:expr)* => $call:expr) => {
        if $crate::call::trace::enabled() {
            $crate::call::trace::timed(|| (format!($line $(, $argument)*), std::time::Instant::now(), $call))
        } else {
            $call
        }
    };
}
pub(crate) use call;

#[inline(always)]
pub(crate) fn enabled() -> bool {
    log::log_enabled!(target: "sock::call", log::Level::Trace)
}

#[cold]
#[inline(never)]
pub(crate) fn timed<T: TraceValue>(
    call: impl FnOnce() -> (String, Instant, io::Result<T>),
) -> io::Result<T> {
    let (line, begin, result) = call();
    let took = begin.elapsed();
    log::trace!(target: "sock::call", "{line} = {} <{took:.1?}>", DisplayResult(&result));
    result
}

/// Formats the value of a successful call.
pub(crate) trait TraceValue {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl TraceValue for () {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0")
    }
}

/// A flag, shown as its bit.
impl TraceValue for bool {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", i32::from(*self))
    }
}

impl TraceValue for usize {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TraceValue for String {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl TraceValue for crate::sys::RawHost {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}", self.name, self.addresses)
    }
}

impl TraceValue for socket2::Socket {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_raw_fd())
    }
}

impl TraceValue for (socket2::Socket, socket2::Socket) {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0, [")?;
        self.0.show(f)?;
        f.write_str(", ")?;
        self.1.show(f)?;
        f.write_str("]")
    }
}

/// Received bytes, shown as their number, which is what recv(2) returns.
impl TraceValue for (Vec<u8>, ()) {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.len().show(f)
    }
}

impl TraceValue for Vec<crate::sys::RawAddrInfo> {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0, [")?;
        for (index, answer) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", answer.address)?;
        }
        f.write_str("]")
    }
}

struct DisplayResult<'a, T>(&'a io::Result<T>);

impl<T: TraceValue> fmt::Display for DisplayResult<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(value) => value.show(f),
            Err(error) => match error.raw_os_error() {
                Some(number) => {
                    let text = error.to_string();
                    // As in strace: no errno in brackets, and no full stop (Windows adds one).
                    let text = text.split(" (os error").next().unwrap_or(&text).trim_end_matches('.');
                    match errno_name(number) {
                        Some(name) => write!(f, "-1 {name} ({text})"),
                        None => write!(f, "-1 errno {number} ({text})"),
                    }
                }
                None => write!(f, "-1 {error}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_call_shows_its_errno_by_name() {
        let refused = io::Error::from_raw_os_error(crate::sys::c::ECONNREFUSED);
        assert_eq!(DisplayResult::<()>(&Err(refused)).to_string(), "-1 ECONNREFUSED (Connection refused)");
        assert_eq!(DisplayResult(&Ok(17_usize)).to_string(), "17");
    }
}
