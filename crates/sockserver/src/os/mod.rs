//! The operating system: processes, pollers, signals. The only `unsafe` code of this crate.
#![allow(unsafe_code)]

#[cfg(unix)]
pub(crate) mod accept_interrupt;
#[cfg_attr(not(unix), path = "batch_unsupported.rs")]
pub(crate) mod batch;
#[cfg(unix)]
pub(crate) mod bind;
#[cfg_attr(not(unix), path = "bound_path_unsupported.rs")]
pub(crate) mod bound_path;
pub(crate) mod child_channel;
#[cfg(unix)]
pub(crate) mod exec;
#[cfg_attr(not(all(unix, feature = "signals")), path = "exit_timer_unsupported.rs")]
pub(crate) mod exit_timer;
pub(crate) mod guard;
pub(crate) mod interleave;
#[cfg(unix)]
pub(crate) mod interrupt;
pub(crate) mod log;
pub(crate) mod monotonic;
pub(crate) mod pair;
#[cfg(unix)]
pub(crate) mod path_lock;
#[cfg_attr(not(unix), path = "poller_unsupported.rs")]
pub(crate) mod poller;
#[cfg_attr(not(unix), path = "process_unsupported.rs")]
pub(crate) mod process;
pub(crate) mod shortage;
#[cfg_attr(not(unix), path = "unix_bind_unsupported.rs")]
pub(crate) mod unix_bind;
pub(crate) mod waker;
