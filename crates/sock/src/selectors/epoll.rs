//! epoll(7) as the interface of a selector.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::private::Interface;
use super::{EVENT_READ, EVENT_WRITE, EventMask, FileObject, Ready, Registry, Selector, lock};
use crate::call::deadline::DisplayTimeout;
use crate::call::trace::{TraceValue, call};
use crate::sys::EpollOperation::{self, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD};
use crate::sys::{self, AsFd, AsRawFd, BorrowedFd, EPOLLIN, EPOLLOUT, EpollEvents, OwnedFd, RawFd};

/// The interface of an [`EpollSelector`](super::EpollSelector).
///
/// # Examples
///
/// ```
/// use sock::Socket;
/// use sock::selectors::{Epoll, Selector};
///
/// let sel: Selector<Socket, (), Epoll> = Selector::new()?;
/// assert!(sel.get_map().is_empty());
/// # std::io::Result::Ok(())
/// ```
pub struct Epoll {
    fd: OwnedFd,
    /// Memory for the next wait. Held to take it and to put it back.
    events: Mutex<EpollEvents>,
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoll").field("fd", &self.fd).finish_non_exhaustive()
    }
}

/// Data of the descriptor that ends a wait. No registration has it: its lower half is no descriptor.
const CANCELLED: u64 = u64::MAX;

fn data(fd: RawFd, serial: u32) -> u64 {
    u64::from(serial) << 32 | u64::from(fd as u32)
}

fn bits(events: EventMask) -> u32 {
    let read = if events & EVENT_READ != 0 { EPOLLIN } else { 0 };
    let write = if events & EVENT_WRITE != 0 { EPOLLOUT } else { 0 };
    read | write
}

impl Epoll {
    fn control(
        &self,
        operation: EpollOperation,
        fd: BorrowedFd<'_>,
        events: u32,
        data: u64,
    ) -> io::Result<()> {
        let (epoll, number) = (self.fd.as_raw_fd(), fd.as_raw_fd());
        call!("epoll_ctl({epoll}, {operation:?}, {number}, {events:#x})" =>
            sys::epoll_control(self.fd.as_fd(), operation, fd, events, data))
    }
}

#[allow(private_interfaces)]
impl Interface for Epoll {
    fn new() -> io::Result<Epoll> {
        let fd = call!("epoll_create1(EPOLL_CLOEXEC)" => sys::epoll_create())?;
        Ok(Epoll { fd, events: Mutex::default() })
    }

    fn add(&self, fd: BorrowedFd<'_>, serial: u32, events: EventMask) -> io::Result<()> {
        self.control(EPOLL_CTL_ADD, fd, bits(events), data(fd.as_raw_fd(), serial))
    }

    fn modify(&self, fd: BorrowedFd<'_>, serial: u32, events: EventMask) -> io::Result<()> {
        self.control(EPOLL_CTL_MOD, fd, bits(events), data(fd.as_raw_fd(), serial))
    }

    fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.control(EPOLL_CTL_DEL, fd, 0, 0)
    }

    fn watch(&self, cancelled: BorrowedFd<'_>) -> io::Result<()> {
        self.control(EPOLL_CTL_ADD, cancelled, EPOLLIN, CANCELLED)
    }

    fn wait<F: FileObject, D>(
        &self,
        registry: &Mutex<Registry<F, D>>,
        _cancelled: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
        found: &mut dyn FnMut(Option<Ready>),
    ) -> io::Result<()> {
        // Room for each registration, as in Python, and for the cancellation.
        let room = lock(registry).entries.len() + 1;
        // Of two threads that wait at once one allocates.
        let mut events = std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner));
        let epoll = self.fd.as_raw_fd();
        call!("epoll_wait({epoll}, {})", DisplayTimeout(timeout) =>
            sys::epoll_wait(self.fd.as_fd(), &mut events, room, timeout))?;
        for (bits, data) in events.iter() {
            if data == CANCELLED {
                found(None);
                continue;
            }
            // As in Python: EPOLLERR and EPOLLHUP are both events.
            let read = if bits & !EPOLLOUT != 0 { EVENT_READ } else { 0 };
            let write = if bits & !EPOLLIN != 0 { EVENT_WRITE } else { 0 };
            found(Some(Ready {
                fd: data as u32 as RawFd,
                serial: (data >> 32) as u32,
                events: read | write,
            }));
        }
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = events;
        Ok(())
    }
}

impl<F, D> Selector<F, D, Epoll> {
    /// Returns the number of the epoll descriptor.
    ///
    /// Python: `EpollSelector.fileno()`. No system call.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::Socket;
    /// use sock::selectors::EpollSelector;
    ///
    /// let sel = EpollSelector::<Socket, ()>::new()?;
    /// assert!(sel.fileno() >= 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.backend.fd.as_raw_fd()
    }
}

/// The epoll descriptor, which is readable while an object is ready.
impl<F, D> AsFd for Selector<F, D, Epoll> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.backend.fd.as_fd()
    }
}

impl TraceValue for OwnedFd {
    fn show(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_raw_fd())
    }
}
