//! Hints: calls of a program that are legal and usually a mistake.
//!
//! Target `sock::hint`, level trace. A call checks the log level once, for this target and
//! `sock::call` together (`trace::enabled`), so that disabled hints cost nothing more. What a hint
//! has to remember of a socket is in a table of this file and not in the socket.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::kv::{Error, Key, Source, Value, VisitSource};

use crate::call::deadline::{Events, POLLIN, POLLOUT};
use crate::call::trace::{self, HeldRecord};
use crate::sys::RawFd;

/// How often a receive returns the end of file before there is a hint.
const ENDS: u32 = 3;

/// How often a descriptor is reported as ready, without a call on it, before there is a hint.
const IDLE_REPORTS: u32 = 100;

/// A wait that is longer was not for a descriptor that is ready all the time.
const AT_ONCE: Duration = Duration::from_millis(1);

/// A call that takes longer has blocked. A call that does not wait can take several milliseconds
/// under load.
const BLOCKED: Duration = Duration::from_millis(50);

#[inline]
pub(crate) fn enabled() -> bool {
    trace::is_target_enabled(
        |held| held.logs_hints,
        || log::log_enabled!(target: "sock::hint", log::Level::Trace),
    )
}

/// What a hint is about.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "some are seen on Linux only"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    PortHeld,
    PortInTimeWait,
    PathHeld,
    StalePath,
    PartialSend,
    EndOfFile,
    UnreadBytes,
    BacklogFull,
    Truncated,
    BusyLoop,
    BlockedWorker,
}

impl Hint {
    /// Its name, and the scenario of `socklens` that shows it.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Hint::PortHeld => ("port-held", "reuse_address"),
            Hint::PortInTimeWait => ("port-held", "time_wait"),
            Hint::PathHeld => ("path-held", "unix_path"),
            Hint::StalePath => ("stale-path", "unix_path"),
            Hint::PartialSend => ("partial-send", "partial_send"),
            Hint::EndOfFile => ("end-of-file", "half_close"),
            Hint::UnreadBytes => ("unread-bytes", "reset"),
            Hint::BacklogFull => ("backlog-full", "backlog"),
            Hint::Truncated => ("datagram-truncated", "udp_truncation"),
            Hint::BusyLoop => ("busy-loop", "readiness"),
            Hint::BlockedWorker => ("blocked-worker", "blocked"),
        }
    }

    /// Logs the hint. The text says what was seen and what to do.
    #[cold]
    pub(crate) fn log(self, fd: Option<RawFd>, text: fmt::Arguments<'_>) {
        trace::log_or_hold(HeldRecord::Hint(HeldHint { hint: self, fd, text: text.to_string() }));
    }
}

/// A hint that is to be logged.
pub(crate) struct HeldHint {
    hint: Hint,
    fd: Option<RawFd>,
    text: String,
}

impl HeldHint {
    pub(crate) fn log(&self) {
        let HeldHint { hint, fd, text } = self;
        let (name, scenario) = hint.names();
        let fields = Fields { name, scenario, fd: *fd };
        trace::guard_logger(|| {
            let mut record = log::Record::builder();
            record.level(log::Level::Trace).target("sock::hint").module_path_static(Some(module_path!()));
            log::logger().log(
                &record
                    .args(format_args!("{text}; see `socklens run {scenario}`"))
                    .key_values(&fields)
                    .build(),
            );
        });
    }
}

struct Fields {
    name: &'static str,
    scenario: &'static str,
    fd: Option<RawFd>,
}

impl Source for Fields {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        visitor.visit_pair(Key::from("hint"), Value::from(self.name))?;
        visitor.visit_pair(Key::from("scenario"), Value::from(self.scenario))?;
        match self.fd {
            Some(fd) => visitor.visit_pair(Key::from("fd"), Value::from(fd as i64)),
            None => Ok(()),
        }
    }
}

/// What is remembered of a descriptor while hints are enabled, until it is closed.
#[derive(Default)]
struct Seen {
    /// Receives that returned the end of file, one after the other.
    ends: u32,
    is_partial_reported: bool,
    is_full_reported: bool,
    /// Reports of the same events by a poll, without a call on the descriptor in between.
    reports: u32,
    events: Events,
}

static SEEN: Mutex<BTreeMap<RawFd, Seen>> = Mutex::new(BTreeMap::new());

fn seen() -> MutexGuard<'static, BTreeMap<RawFd, Seen>> {
    // No code of the user's runs with the lock held.
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(fd: RawFd, change: impl FnOnce(&mut Seen) -> T) -> T {
    change(seen().entry(fd).or_default())
}

/// Forgets a descriptor, whose number may be used again.
pub(crate) fn forget(fd: RawFd) {
    seen().remove(&fd);
}

/// A receive on a stream has returned this many bytes.
pub(crate) fn received(fd: RawFd, bytes: usize) {
    let ends = with(fd, |seen| {
        seen.ends = if bytes == 0 { seen.ends + 1 } else { 0 };
        seen.ends
    });
    if ends == ENDS {
        Hint::EndOfFile.log(
            Some(fd),
            format_args!(
                "recv({fd}) returned the end of file {ENDS} times; the peer sends nothing more, so end the \
                 loop when recv returns no bytes"
            ),
        );
    }
}

/// A send on a stream took a part of the data.
pub(crate) fn sent_a_part(fd: RawFd, sent: usize, of: usize) {
    if !with(fd, |seen| std::mem::replace(&mut seen.is_partial_reported, true)) {
        Hint::PartialSend.log(
            Some(fd),
            format_args!(
                "send({fd}) took {sent} of {of} bytes; call it again with the rest, or call sendall"
            ),
        );
    }
}

/// Before accept(2), this many connections were in a queue for `backlog`.
pub(crate) fn queued(fd: RawFd, waiting: u32, backlog: u32) {
    let is_full = waiting > backlog;
    let was_reported = with(fd, |seen| std::mem::replace(&mut seen.is_full_reported, is_full));
    if is_full && !was_reported {
        Hint::BacklogFull.log(
            Some(fd),
            format_args!(
                "accept({fd}): the queue of the listener was full, with {waiting} connections for a backlog \
                 of {backlog}; the system discards further clients until there is room, so accept faster or \
                 pass a larger backlog to listen"
            ),
        );
    }
}

/// A wait for readiness has ended after `waited` with these descriptors.
pub(crate) fn polled(ready: impl IntoIterator<Item = (RawFd, Events)>, waited: Duration) {
    let mut table = seen();
    let mut found = None;
    for (fd, events) in ready {
        let seen = table.entry(fd).or_default();
        let is_repeated = waited <= AT_ONCE && std::mem::replace(&mut seen.events, events) == events;
        seen.reports = if is_repeated { seen.reports + 1 } else { 0 };
        if seen.reports == IDLE_REPORTS {
            found = Some((fd, events));
        }
    }
    drop(table);
    let Some((fd, events)) = found else { return };
    let (ready, advice) = if events & POLLIN != 0 {
        ("readable", "receive until the call would block, and unregister the descriptor at the end of file")
    } else if events & POLLOUT != 0 {
        ("writable", "a socket is nearly always writable, so wait for it only while there is data to send")
    } else {
        ("failed or closed", "close the descriptor")
    };
    Hint::BusyLoop.log(
        Some(fd),
        format_args!(
            "descriptor {fd} was reported as {ready} {IDLE_REPORTS} times without a wait and without a call \
             on it, which uses a whole processor; {advice}"
        ),
    );
}

thread_local! {
    static IS_SERVING: Cell<bool> = const { Cell::new(false) };
}

/// Sets whether this thread serves many connections, so that a handler should not block it, and
/// returns what was set before. For `sockserver`.
#[doc(hidden)]
pub fn set_serving_thread(on: bool) -> bool {
    IS_SERVING.replace(on)
}

/// A call with this line, as strace(1) shows it, has taken this long.
pub(crate) fn called(line: &str, took: Duration) {
    let (name, arguments) = line.split_once('(').unwrap_or((line, ""));
    let moves_data = ["recv", "send", "accept", "connect"].iter().any(|call| name.starts_with(call));
    let fd = arguments.split([',', ')']).next().and_then(|fd| fd.parse().ok());
    if let Some(fd) = fd.filter(|_| moves_data) {
        if let Some(seen) = seen().get_mut(&fd) {
            seen.reports = 0;
        }
    }
    // A busy machine delays calls that do not wait too.
    let may_wait = !line.contains("MSG_DONTWAIT") && name != "close";
    if may_wait && took >= BLOCKED && IS_SERVING.get() {
        Hint::BlockedWorker.log(
            fd,
            format_args!(
                "{line} blocked a worker of the selector for {took:.1?}; meanwhile it serves no other \
                 connection, so handle one request in each call of the handler"
            ),
        );
    }
}
