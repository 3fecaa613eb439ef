//! epoll(7).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::unix::check;
use super::whole_milliseconds;

pub(crate) const EPOLLIN: u32 = libc::EPOLLIN as u32;
pub(crate) const EPOLLOUT: u32 = libc::EPOLLOUT as u32;

/// What epoll_ctl(2) does.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types)]
pub(crate) enum EpollOperation {
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLL_CTL_DEL,
}

/// Memory for the events of [`epoll_wait`].
#[derive(Default)]
pub(crate) struct EpollEvents(Vec<libc::epoll_event>);

impl EpollEvents {
    /// The events of the last wait, each with its data.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        // The structure is packed on some processors: no field of it may be borrowed.
        self.0.iter().map(|&libc::epoll_event { events, u64: data }| (events, data))
    }
}

pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointer.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the descriptor is new, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn epoll_control(
    epoll: BorrowedFd<'_>,
    operation: EpollOperation,
    fd: BorrowedFd<'_>,
    events: u32,
    data: u64,
) -> io::Result<()> {
    let operation = match operation {
        EpollOperation::EPOLL_CTL_ADD => libc::EPOLL_CTL_ADD,
        EpollOperation::EPOLL_CTL_MOD => libc::EPOLL_CTL_MOD,
        EpollOperation::EPOLL_CTL_DEL => libc::EPOLL_CTL_DEL,
    };
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the kernel reads one event, which lives until the call returns.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) }).map(drop)
}

/// Waits once for up to `room` events, at least one, and returns their number. A timeout is rounded
/// up to milliseconds and cut at 24 days.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut EpollEvents,
    room: usize,
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let milliseconds =
        timeout.map_or(-1, |timeout| i32::try_from(whole_milliseconds(timeout)).unwrap_or(i32::MAX));
    let events = &mut events.0;
    events.clear();
    events.reserve(room.max(1));
    let room = i32::try_from(events.capacity()).unwrap_or(i32::MAX);
    // SAFETY: the kernel writes at most `room` events, and the vector has room for them.
    let count =
        check(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, milliseconds) })?;
    // SAFETY: the kernel has written so many events, no more than there was room for.
    unsafe { events.set_len(count as usize) };
    Ok(count as usize)
}
