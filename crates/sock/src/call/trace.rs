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

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::kv::{Error, Key, Source, Value, VisitSource};

use crate::call::hint::{self, HeldHint};
use crate::error::errno_name;
use crate::sys::AsRawFd;

/// Runs a call and logs it: `call!("listen({fd}, {backlog})" => self.inner.listen(backlog))`.
///
/// With `data: first_bytes(bytes);` before the line, the record has the first bytes. The expression is
/// evaluated after the call, and only if it is logged.
macro_rules! call {
    ($line:literal $(, $argument:expr)* => $call:expr) => {
        $crate::call::trace::call!(data: String::new(); $line $(, $argument)* => $call)
    };
    (data: $data:expr; $line:literal $(, $argument:expr)* => $call:expr) => {
        if $crate::call::trace::enabled() {
            $crate::call::trace::timed(|| {
                let (line, begin) = $crate::call::trace::entered(format!($line $(, $argument)*));
                let result = $call;
                let took = begin.elapsed();
                $crate::call::trace::Called { line, took, data: $data, result }
            })
        } else {
            $call
        }
    };
}
pub(crate) use call;

/// Returns whether calls or hints are logged. Usually it is the check of the log level alone.
#[inline(always)]
pub(crate) fn enabled() -> bool {
    log::Level::Trace <= log::STATIC_MAX_LEVEL
        && log::Level::Trace <= log::max_level()
        && (logs_calls() || hint::enabled())
}

fn logs_calls() -> bool {
    is_target_enabled(|held| held.logs_calls, || log::log_enabled!(target: "sock::call", log::Level::Trace))
}

/// Returns whether a target is enabled. The logger decides, which is code of the user, so while
/// records are held back it is what the logger has decided before.
pub(crate) fn is_target_enabled(held: impl Fn(&Held) -> bool, ask: impl FnOnce() -> bool) -> bool {
    let before = with_held(|now| (now.depth > 0).then(|| held(now)));
    before.flatten().unwrap_or_else(|| guard_logger(ask).unwrap_or_default())
}

/// A call that has returned.
pub(crate) struct Called<T> {
    pub(crate) line: String,
    pub(crate) took: Duration,
    pub(crate) data: String,
    pub(crate) result: io::Result<T>,
}

/// Bytes of data that a record has at most.
const FIRST_BYTES: usize = 32;

/// The first bytes of data, as Python shows them.
pub(crate) fn first_bytes(data: &[u8]) -> String {
    match data.len() {
        0 => String::new(),
        1..=FIRST_BYTES => format!("b\"{}\"", data.escape_ascii()),
        _ => format!("b\"{}\"...", data[..FIRST_BYTES].escape_ascii()),
    }
}

#[cold]
#[inline(never)]
pub(crate) fn timed<T: TraceValue>(call: impl FnOnce() -> Called<T>) -> io::Result<T> {
    let called = call();
    if hint::enabled() {
        hint::called(&called.line, called.took);
    }
    log_call(called)
}

/// Makes a call, and logs it with this line, as the calls of this crate are logged. For `sockserver`,
/// whose waits in epoll(7) are its own.
///
/// There is no hint about it: a worker of a selector that waits there is not blocked.
///
/// # Errors
///
/// Returns an error if the call fails.
#[doc(hidden)]
#[inline]
pub fn traced(
    line: impl FnOnce() -> String,
    call: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    if enabled() { traced_cold(line, call) } else { call() }
}

#[cold]
#[inline(never)]
fn traced_cold(
    line: impl FnOnce() -> String,
    call: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    if !logs_calls() {
        return call();
    }
    let (line, begin) = entered(line());
    let result = call();
    log_call(Called { line, took: begin.elapsed(), data: String::new(), result })
}

fn log_call<T: TraceValue>(called: Called<T>) -> io::Result<T> {
    let Called { line, took, data, result } = called;
    if !logs_calls() {
        return result;
    }
    let shown = DisplayResult(&result).to_string();
    let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
    log_or_hold(HeldRecord::Call { line, end: Some(End { shown, errno, took, data }) });
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
/// Both records have key-values: `call` (the name), `fd` (if it has one), `pid`, on Linux `tid` (the
/// number of the thread, as in `/proc`), and at the end `ret`, `errno` (a name such as `ECONNREFUSED`,
/// if it failed), `us` (microseconds), and `data`, the first 32 bytes that were sent or received.
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
    if ENTRY_RECORDS.load(Ordering::Relaxed) && logs_calls() {
        log_or_hold(HeldRecord::Call { line: line.clone(), end: None });
    }
    (line, Instant::now())
}

/// What is logged for a call.
pub(crate) enum HeldRecord {
    /// The record of a call, or of its start.
    Call {
        line: String,
        end: Option<End>,
    },
    Hint(HeldHint),
}

/// What is known when a call has returned.
pub(crate) struct End {
    shown: String,
    errno: Option<i32>,
    took: Duration,
    data: String,
}

impl HeldRecord {
    fn log(&self) {
        match self {
            HeldRecord::Hint(hint) => hint.log(),
            HeldRecord::Call { line, end: None } => {
                record("sock::enter", format_args!("{line}"), &Fields { line, end: None });
            }
            HeldRecord::Call { line, end: Some(end) } => {
                let fields = Fields { line, end: Some(end) };
                record("sock::call", format_args!("{line} = {} <{:.1?}>", end.shown, end.took), &fields);
            }
        }
    }
}

/// What a thread holds back.
pub(crate) struct Held {
    /// The number of [`HoldRecords`] of this thread.
    depth: usize,
    records: Vec<HeldRecord>,
    /// Whether the records of calls were enabled, and hints, before the first of them.
    logs_calls: bool,
    pub(crate) logs_hints: bool,
}

thread_local! {
    /// No other code runs while this is borrowed.
    static HELD: RefCell<Held> = const {
        RefCell::new(Held { depth: 0, records: Vec::new(), logs_calls: false, logs_hints: false })
    };
}

/// Calls `act` with what this thread holds back. Returns `None` where the thread ends and has dropped
/// that: a socket that is dropped later, because it is in a thread-local too, holds nothing back.
fn with_held<T>(act: impl FnOnce(&mut Held) -> T) -> Option<T> {
    HELD.try_with(|held| act(&mut held.borrow_mut())).ok()
}

/// Holds the records of this thread back until it is dropped. Create it before a lock is acquired
/// under which a call is made, and drop it afterwards: a logger is code of the user, may block, and may
/// need the lock too. While it exists the logger is not called for calls and hints. For `sockserver`.
#[doc(hidden)]
#[derive(Debug)]
#[must_use]
pub struct HoldRecords(PhantomData<*const ()>);

impl HoldRecords {
    /// Returns `None` if the level trace is disabled.
    #[doc(hidden)]
    #[inline]
    #[must_use]
    pub fn begin() -> Option<HoldRecords> {
        let may_log = log::Level::Trace <= log::STATIC_MAX_LEVEL && log::Level::Trace <= log::max_level();
        if may_log { Some(HoldRecords::hold()) } else { None }
    }

    #[cold]
    fn hold() -> HoldRecords {
        let (logs_calls, logs_hints) = (logs_calls(), hint::enabled());
        with_held(|held| {
            (held.logs_calls, held.logs_hints) = (logs_calls, logs_hints);
            held.depth += 1;
        });
        HoldRecords(PhantomData)
    }
}

impl Drop for HoldRecords {
    fn drop(&mut self) {
        let records = with_held(|held| {
            held.depth -= 1;
            if held.depth == 0 { std::mem::take(&mut held.records) } else { Vec::new() }
        });
        records.unwrap_or_default().iter().for_each(HeldRecord::log);
    }
}

pub(crate) fn log_or_hold(record: HeldRecord) {
    let mut record = Some(record);
    with_held(|held| {
        if held.depth > 0 {
            held.records.extend(record.take());
        }
    });
    if let Some(record) = record {
        record.log();
    }
}

/// `log::trace!` with key-values of which some may be missing.
fn record(target: &str, text: fmt::Arguments<'_>, fields: &Fields<'_>) {
    let mut record = log::Record::builder();
    record.level(log::Level::Trace).target(target).module_path_static(Some(module_path!()));
    guard_logger(|| log::logger().log(&record.args(text).key_values(fields).build()));
}

/// Calls the logger, which is code of the user. If it panics the call goes on.
pub(crate) fn guard_logger<T>(call: impl FnOnce() -> T) -> Option<T> {
    // The drop of what it has panicked with may panic too.
    catch_unwind(AssertUnwindSafe(call)).map_err(std::mem::forget).ok()
}

/// The key-values of a call, which are read from its line only if the logger asks for them.
struct Fields<'a> {
    line: &'a str,
    end: Option<&'a End>,
}

impl Source for Fields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        let (call, arguments) = self.line.split_once('(').unwrap_or((self.line, ""));
        visitor.visit_pair(Key::from("call"), Value::from(call))?;
        if let Some(fd) = leading_number(arguments) {
            visitor.visit_pair(Key::from("fd"), Value::from(fd))?;
        }
        // A record is logged by the thread that has made the call.
        visitor.visit_pair(Key::from("pid"), Value::from(std::process::id()))?;
        #[cfg(target_os = "linux")]
        visitor.visit_pair(Key::from("tid"), Value::from(crate::sys::thread_id()))?;
        let Some(end) = self.end else { return Ok(()) };
        if let Some(ret) = leading_number(&end.shown) {
            visitor.visit_pair(Key::from("ret"), Value::from(ret))?;
        }
        if let Some(number) = end.errno {
            let errno = errno_name(number).map_or(Value::from(number), Value::from);
            visitor.visit_pair(Key::from("errno"), errno)?;
        }
        if !end.data.is_empty() {
            visitor.visit_pair(Key::from("data"), Value::from(&end.data[..]))?;
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
    fn the_first_bytes_are_shown_as_in_python() {
        assert_eq!(first_bytes(b""), "");
        assert_eq!(first_bytes(b"a\r\n\xff\""), "b\"a\\r\\n\\xff\\\"\"");
        assert_eq!(first_bytes(&[b'a'; 32]), format!("b\"{}\"", "a".repeat(32)));
        assert_eq!(first_bytes(&[b'a'; 33]), format!("b\"{}\"...", "a".repeat(32)));
    }

    #[test]
    fn a_failed_call_shows_its_errno_by_name() {
        let refused = io::Error::from_raw_os_error(crate::sys::c::ECONNREFUSED);
        assert_eq!(DisplayResult::<()>(&Err(refused)).to_string(), "-1 ECONNREFUSED (Connection refused)");
        assert_eq!(DisplayResult(&Ok(17_usize)).to_string(), "17");
    }
}
