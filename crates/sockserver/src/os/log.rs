//! The log macros of this crate.
//!
//! The program's logger, and the `Display` of what is logged, are code of the user. A panic of
//! either must not end the thread that logs. `lib.rs` makes `log::error!` and its siblings these
//! macros everywhere in the crate.

use std::io;
use std::time::Duration;

use sock::{errno, errno_name};

use crate::os::guard::guard;

pub(crate) use crate::log_facade::Level;

/// Writes a line at the given level. If the logger or an argument panics, a line without arguments
/// follows.
macro_rules! write_line {
    ($level:expr, $($line:tt)+) => {{
        let level: $crate::log_facade::Level = $level;
        if level <= $crate::log_facade::STATIC_MAX_LEVEL && level <= $crate::log_facade::max_level() {
            $crate::os::log::guarded(level, || $crate::log_facade::log!(level, $($line)+));
        }
    }};
}
pub(crate) use write_line;
pub(crate) use write_line as log;

macro_rules! error_line {
    ($($line:tt)+) => { $crate::os::log::write_line!($crate::os::log::Level::Error, $($line)+) };
}
pub(crate) use error_line as error;

macro_rules! warn_line {
    ($($line:tt)+) => { $crate::os::log::write_line!($crate::os::log::Level::Warn, $($line)+) };
}
pub(crate) use warn_line as warn;

macro_rules! info_line {
    ($($line:tt)+) => { $crate::os::log::write_line!($crate::os::log::Level::Info, $($line)+) };
}
pub(crate) use info_line as info;

macro_rules! debug_line {
    ($($line:tt)+) => { $crate::os::log::write_line!($crate::os::log::Level::Debug, $($line)+) };
}
pub(crate) use debug_line as debug;

/// Returns the value of the key `errno`, the name of the system's error. The error may be a hook's.
#[cold]
pub(crate) fn errno_field(error: &io::Error) -> Option<&'static str> {
    guard(|| errno(error)).ok().flatten().and_then(errno_name)
}

/// Returns the value of a key for a duration.
#[cold]
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cold]
pub(crate) fn guarded(level: Level, line: impl FnOnce()) {
    if let Err(message) = guard(line) {
        // The logger itself may panic again.
        let _ = guard(|| crate::log_facade::log!(level, "cannot write a log line: panicked: {message}"));
    }
}
