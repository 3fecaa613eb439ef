//! What a platform supplies: the contract of this crate's cellar.
//!
//! `socket2` covers most of the calls on every platform. What it leaves out is
//! here, one file a platform, each with the same items:
//!
//! | item | what it must do |
//! | --- | --- |
//! | `c`, `with_names!` in `names/` | the platform's C names, and the groups of constants it exports |
//! | `ERRNOS` | errno and its name |
//! | `RawFd`, `OwnedFd`, `BorrowedFd`, `AsFd`, `AsRawFd`, `descriptor_traits!` | the platform's descriptors |
//! | `poll` | wait for descriptors; `EINTR` comes back as an error |
//! | `kernel_timeout` | the timeout that the system itself keeps, where signals can put it off |
//! | `never_waits`, `queue_is_full`, `connect_begins_anew`, `POLLRDHUP` | what a blocking call does that a non-blocking one does not |
//! | `close` | close and report the error that dropping would swallow |
//! | `setsockopt`, `setsockopt_null`, `getsockopt` | any level, any option, bytes in and out |
//! | `close_on_exec`, `set_inheritable` | whether programs that are started get the descriptor |
//! | `socketpair`, `PAIR_FAMILY` | two sockets connected to each other |
//! | `sendfile`, `sendfile_cannot` | a file to a socket without a copy, and when to copy instead |
//! | `unix_address`, `path_from_bytes` | Unix names as bytes |
//! | `LINGER_OPTION`, `linger`, `timeval`, `group_request` and what reads them | the structures that options take |
//! | `queue` | what waits to be received, and to be sent |
//! | `gai_strerror`, `hstrerror`, `h_errno`, `netdb_h` | the resolver's words, and its older calls |
//! | `gethostname`, `start_up` | the host's name, what comes before any call |
//! | `CONNECT_IN_PROGRESS`, `SEND_FLAGS`, `DONTWAIT`, `KIND_FLAGS`, `REUSEADDR_FOR_SERVERS`, `ACCEPT_INHERITS_NONBLOCK` | what differs by a number |
//!
//! Unix alone has `message`, `batch` and `peer`: ancillary data, many datagrams in one
//! call, credentials.
//!
//! `shared` is what is the same everywhere once the C names are there: buffers that
//! are written without being zeroed, addresses as bytes, getaddrinfo(3).
//!
//! This folder is the only place in `sock` with `unsafe` code, and the only one
//! that knows `libc`.
#![allow(unsafe_code)]

#[cfg(unix)]
pub(crate) mod batch;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(unix)]
pub(crate) mod message;
#[cfg_attr(target_os = "freebsd", path = "names/freebsd.rs")]
#[cfg_attr(target_os = "linux", path = "names/linux.rs")]
#[cfg_attr(target_os = "macos", path = "names/macos.rs")]
#[cfg_attr(windows, path = "names/windows.rs")]
mod names;
mod netdb;
#[cfg(unix)]
pub(crate) mod peer;
pub(crate) mod queue;
mod sendfile;
mod shared;
mod structures;
#[cfg(all(test, target_os = "linux"))]
mod sweep;
mod transfer;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(crate) use epoll::*;
pub(crate) use names::{c, with_names};
pub(crate) use netdb::*;
pub(crate) use sendfile::*;
pub(crate) use shared::*;
pub(crate) use structures::*;
pub(crate) use transfer::*;
#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(unix)]
pub use unix::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
#[cfg(windows)]
pub use windows::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
#[cfg(windows)]
pub(crate) use {names::ERRNOS, windows::*};

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
