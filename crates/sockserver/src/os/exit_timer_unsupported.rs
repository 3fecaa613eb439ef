//! Stands in for `exit_timer.rs` where signals are not handled: on other systems than Unix, and
//! without the feature `signals`. No plan is ever carried out there.

use std::time::Duration;

#[allow(dead_code)]
pub(crate) struct ExitPlan<'a> {
    pub(crate) lame_duck: Duration,
    pub(crate) limit: Duration,
    pub(crate) drain_children: &'a (dyn Fn(Duration) + Sync),
    pub(crate) end: &'a (dyn Fn() -> bool + Sync),
}

pub(crate) fn run<T>(_: &ExitPlan<'_>, _: impl FnOnce() -> Option<u8>, serve: impl FnOnce() -> T) -> T {
    serve()
}

pub(crate) fn turn() {}

pub(crate) fn while_waiting<T>(wait: impl FnOnce() -> T) -> T {
    wait()
}

#[cfg(unix)]
pub(super) fn enter_child() {}

#[cfg(unix)]
pub(crate) fn send_to_child(_: &impl std::os::fd::AsFd, _: &[u8]) {}

#[cfg(unix)]
pub(crate) fn kill_child(_: crate::os::process::Pid) {}

#[cfg(unix)]
pub(crate) fn end_children(_: impl Iterator<Item = crate::os::process::Pid> + Clone, _: Duration) {}
