//! What a platform supplies: the contract of this crate's cellar.
//!
//! `socket2` covers most of the calls on every platform. What it leaves out is
//! here, one file a platform, each with the same items:
//!
//! | item | what it must do |
//! | --- | --- |
//! | `c` | the platform's C names for constants |
//! | `with_names!` | the groups of constants this platform has |
//! | `ERRNOS` | errno and its name |
//! | `RawFd`, `OwnedFd`, `BorrowedFd`, `AsFd` | the platform's descriptor types |
//! | `poll` | wait for descriptors; `EINTR` comes back as an error |
//! | `close` | close and report the error that dropping would swallow |
//! | `setsockopt`, `getsockopt` | any level, any option, bytes in and out |
//! | `inheritable`, `set_inheritable` | the descriptor's close-on-exec flag, negated |
//! | `uninit`, `fill` | buffers that are written without being zeroed first |
//! | `unix_address`, `unix_name`, `other_address`, `other_parts` | socket addresses `socket2` cannot build or read |
//! | `getaddrinfo`, `gai_strerror`, `gethostname` | the resolver and the host's name |
//!
//! This folder is the only place in `sock` with `unsafe` code, and the only one
//! that knows `libc`.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
mod linux;
#[cfg(unix)]
mod unix;

#[cfg(target_os = "linux")]
pub(crate) use linux::{c, with_names};
#[cfg(unix)]
pub(crate) use unix::*;

use std::net::SocketAddr;

/// A descriptor for [`poll`](crate::poll): what to wait for, and afterwards what is there.
pub struct Poll<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) events: i16,
    pub(crate) revents: i16,
}

/// What [`getaddrinfo`] is asked for, as raw numbers; 0 leaves a field open.
#[derive(Clone, Copy, Default)]
pub(crate) struct RawHints {
    pub(crate) flags: i32,
    pub(crate) family: i32,
    pub(crate) kind: i32,
    pub(crate) proto: i32,
}

/// One answer of [`getaddrinfo`].
pub(crate) struct RawAddrInfo {
    pub(crate) family: i32,
    pub(crate) kind: i32,
    pub(crate) proto: i32,
    pub(crate) canonname: Option<String>,
    pub(crate) address: SocketAddr,
}
