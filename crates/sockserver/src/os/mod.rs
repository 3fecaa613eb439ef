//! The operating system: processes, pollers, signals. The only `unsafe` code of this crate.
#![allow(unsafe_code)]

#[cfg(unix)]
pub(crate) mod accept_interrupt;
#[cfg(unix)]
pub(crate) mod bind;
#[cfg(unix)]
pub(crate) mod bound_path;
#[cfg(not(unix))]
#[path = "bound_path_unsupported.rs"]
pub(crate) mod bound_path;
pub(crate) mod child_channel;
pub(crate) mod interleave;
#[cfg(unix)]
pub(crate) mod interrupt;
#[cfg(unix)]
pub(crate) mod poller;
#[cfg(unix)]
pub(crate) mod process;
#[cfg(unix)]
pub(crate) mod unix_bind;
pub(crate) mod waker;
