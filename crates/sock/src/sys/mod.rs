//! Platform differences: system calls, constants and structures.
//!
//! `socket2` covers most calls on every platform. The rest is here. Each platform supplies the same
//! items:
//!
//! | item | purpose |
//! | --- | --- |
//! | `c`, `with_names!` in `constants/` | the platform's C names, and the groups of constants it exports |
//! | `ERRNOS` | errnos and their names |
//! | `RawFd`, `OwnedFd`, `BorrowedFd`, `AsFd`, `AsRawFd`, `descriptor_traits!` | the platform's descriptors |
//! | `poll` | waits for descriptors; `EINTR` is returned as an error |
//! | `kernel_timeout` | the kernel's own timeout, if signals can extend it |
//! | `never_waits`, `queue_is_full`, `connect_restarts`, `POLLRDHUP` | differences between blocking and non-blocking calls |
//! | `close` | closes and returns the error, which drop ignores |
//! | `setsockopt`, `setsockopt_null`, `getsockopt` | options of any level, as bytes |
//! | `close_on_exec`, `set_inheritable` | whether child programs inherit the descriptor |
//! | `socketpair`, `PAIR_FAMILY` | two connected sockets |
//! | `sendfile`, `sendfile_cannot` | sends a file without copying, and decides when to copy instead |
//! | `unix_address`, `path_from_bytes` | Unix socket names as bytes |
//! | `LINGER_OPTION`, `linger`, `timeval`, `group_request` and their readers | structures for options |
//! | `queue_len` | lengths of the receive and send queues |
//! | `gai_strerror`, `hstrerror`, `h_errno`, `netdb_h` | texts of resolver errors, and the older resolver calls |
//! | `gethostname`, `start_up` | the host name, and initialisation before the first call |
//! | `CONNECT_IN_PROGRESS`, `SEND_FLAGS`, `DONTWAIT`, `KIND_FLAGS`, `REUSEADDR_FOR_SERVERS`, `ACCEPT_INHERITS_NONBLOCK`, `TCP_INFO_OPTION`, `TCP_STATES` | other constants that differ |
//!
//! Unix only: `message`, `batch` and `ucred` (ancillary data, several datagrams in one call,
//! credentials).
//!
//! `shared` is common to all platforms: uninitialised buffers, addresses as bytes, getaddrinfo(3).
//!
//! Only this folder of `sock` contains `unsafe` code and uses `libc`.
#![allow(unsafe_code)]

#[cfg(unix)]
pub(crate) mod batch;
#[cfg_attr(target_os = "freebsd", path = "constants/freebsd.rs")]
#[cfg_attr(target_os = "linux", path = "constants/linux.rs")]
#[cfg_attr(target_os = "macos", path = "constants/macos.rs")]
#[cfg_attr(windows, path = "constants/windows.rs")]
mod constants;
#[cfg(target_os = "linux")]
mod epoll;
#[cfg(unix)]
pub(crate) mod message;
mod netdb;
pub(crate) mod queue_len;
mod sendfile;
mod shared;
mod sockopt_types;
#[cfg(all(test, target_os = "linux"))]
mod sweep;
mod transfer;
#[cfg(unix)]
pub(crate) mod ucred;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

pub(crate) use constants::*;
#[cfg(target_os = "linux")]
pub(crate) use epoll::*;
pub(crate) use netdb::*;
pub(crate) use sendfile::*;
pub(crate) use shared::*;
pub(crate) use sockopt_types::*;
pub(crate) use transfer::*;
#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(unix)]
pub use unix::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
#[cfg(windows)]
pub(crate) use windows::*;
#[cfg(windows)]
pub use windows::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use std::net::SocketAddr;

/// An entry for [`poll`](crate::poll): a descriptor, the requested events and the reported ones.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sock::{POLLOUT, Poll};
///
/// let (ours, _theirs) = sock::socketpair()?;
/// let mut set = [Poll::new(&ours, POLLOUT)];
/// assert_eq!(sock::poll(&mut set, Some(Duration::ZERO))?, 1);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Poll<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) events: i16,
    pub(crate) revents: i16,
}

/// Arguments of [`getaddrinfo`] as raw numbers. 0 stands for any.
#[derive(Clone, Copy, Default)]
pub(crate) struct RawHints {
    pub(crate) flags: i32,
    pub(crate) family: i32,
    pub(crate) kind: i32,
    pub(crate) proto: i32,
}

/// A result of [`getaddrinfo`].
pub(crate) struct RawAddrInfo {
    pub(crate) family: i32,
    pub(crate) kind: i32,
    pub(crate) proto: i32,
    pub(crate) canonname: Option<String>,
    pub(crate) address: SocketAddr,
}
