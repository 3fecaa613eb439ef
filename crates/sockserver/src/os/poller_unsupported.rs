//! Stands in for `poller.rs` on systems without epoll(7) and kqueue.

use std::io;
use std::time::Duration;

use sock::BorrowedFd;

/// An event of the descriptor that was registered with `key`.
pub(crate) struct Event {
    pub(crate) key: u64,
}

/// A poller. No value exists.
pub(crate) enum Poller {}

impl Poller {
    /// Fails with `Unsupported`.
    pub(crate) fn new() -> io::Result<Poller> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn add_level(&self, _: BorrowedFd<'_>, _: u64) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn add_exclusive(&self, _: BorrowedFd<'_>, _: u64) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn remove(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn is_ready(&self) -> bool {
        match *self {}
    }
}

pub(crate) fn wait(poller: &Poller, _: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
    match *poller {}
}
