//! One `log` line for each BSD call, like strace(1).
//!
//! Target `sock::call`, level trace. `RUST_LOG=sock=trace` shows
//!
//! ```text
//! socket(AF_INET, SOCK_STREAM, 0) = 3 <12.4µs>
//! connect(3, 127.0.0.1:1) = -1 ECONNREFUSED (Connection refused) <71.3µs>
//! ```
//!
//! The record has key-values: see [`set_entry_records`]. When the level is disabled, a call costs one
//! check of the log level.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::kv::{Error, Key, Source, Value, VisitSource};

use crate::error::errno_name;
use crate::sys::AsRawFd;

/// Runs a call and logs it: `call!("listen({fd}, {backlog})" => self.inner.listen(backlog))`.
macro_rules! call {
    ($line:literal $(, $argument:expr)* => $call:expr) => {
        if $crate::call::trace::enabled() {
            $crate::call::trace::timed(|| {
                let (line, begin) = $crate::call::trace::entered(format!($line $(, $argument)*));
                (line, begin, $call)
            })
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
    let shown = DisplayResult(&result).to_string();
    let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
    let fields = Fields { line: &line, end: Some(End { shown: &shown, errno, took }) };
    record("sock::call", format_args!("{line} = {shown} <{took:.1?}>"), &fields);
    result
}

/// Whether entry records are enabled.
static ENTRY_RECORDS: AtomicBool = AtomicBool::new(false);

/// Sets whether each traced call is logged when it begins as well, at target `sock::enter`.
///
/// No system call. Python has nothing like it. The records of target `sock::call` come when a call
/// has returned, so a call that blocks shows in no log. With entry records it does: the records of a
/// thread alternate, and the call of an entry without a record behind it is still blocked. Entry
/// records are off by default, and need target `sock::call` at level trace.
///
/// Both records have key-values: `call` (the name), `fd` (if it has one), and at the end `ret`,
/// `errno` (a name such as `ECONNREFUSED`, if it failed) and `us` (microseconds).
///
/// # Examples
///
/// ```
/// // With env_logger and RUST_LOG=sock=trace this logs `accept(3)` before it blocks.
/// sock::set_entry_records(true);
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// # std::io::Result::Ok(())
/// ```
pub fn set_entry_records(on: bool) {
    ENTRY_RECORDS.store(on, Ordering::Relaxed);
}

/// Logs the start of a call if entry records are enabled, and returns the time of the start.
#[cold]
pub(crate) fn entered(line: String) -> (String, Instant) {
    if ENTRY_RECORDS.load(Ordering::Relaxed) {
        record("sock::enter", format_args!("{line}"), &Fields { line: &line, end: None });
    }
    (line, Instant::now())
}

/// `log::trace!` with key-values of which some may be missing.
fn record(target: &str, text: fmt::Arguments<'_>, fields: &Fields<'_>) {
    let mut record = log::Record::builder();
    record.level(log::Level::Trace).target(target).module_path_static(Some(module_path!()));
    log::logger().log(&record.args(text).key_values(fields).build());
}

/// The key-values of a call, which are read from its line only if the logger asks for them.
struct Fields<'a> {
    line: &'a str,
    end: Option<End<'a>>,
}

/// What is known when a call has returned.
struct End<'a> {
    shown: &'a str,
    errno: Option<i32>,
    took: Duration,
}

impl Source for Fields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        let (call, arguments) = self.line.split_once('(').unwrap_or((self.line, ""));
        visitor.visit_pair(Key::from("call"), Value::from(call))?;
        if let Some(fd) = leading_number(arguments) {
            visitor.visit_pair(Key::from("fd"), Value::from(fd))?;
        }
        let Some(end) = &self.end else { return Ok(()) };
        if let Some(ret) = leading_number(end.shown) {
            visitor.visit_pair(Key::from("ret"), Value::from(ret))?;
        }
        if let Some(number) = end.errno {
            let errno = errno_name(number).map_or(Value::from(number), Value::from);
            visitor.visit_pair(Key::from("errno"), errno)?;
        }
        let us = u64::try_from(end.took.as_micros()).unwrap_or(u64::MAX);
        visitor.visit_pair(Key::from("us"), Value::from(us))
    }
}

/// The number with which a text begins, such as the descriptor of `3, 127.0.0.1:1)`.
fn leading_number(text: &str) -> Option<i64> {
    text.split([',', ')', ' ']).next()?.parse().ok()
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
    fn a_number_is_read_from_the_beginning_alone() {
        let texts = [
            "3, 127.0.0.1:1)",
            "17)",
            "-1 ECONNREFUSED (Connection refused)",
            "AF_INET, 1",
            "\"name\"",
            "",
        ];
        assert_eq!(texts.map(leading_number), [Some(3), Some(17), Some(-1), None, None, None]);
    }

    #[test]
    fn a_failed_call_shows_its_errno_by_name() {
        let refused = io::Error::from_raw_os_error(crate::sys::c::ECONNREFUSED);
        assert_eq!(DisplayResult::<()>(&Err(refused)).to_string(), "-1 ECONNREFUSED (Connection refused)");
        assert_eq!(DisplayResult(&Ok(17_usize)).to_string(), "17");
    }
}
