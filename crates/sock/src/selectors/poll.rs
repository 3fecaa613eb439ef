//! poll(2) as the interface of a selector.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::private::Interface;
use super::{EVENT_READ, EVENT_WRITE, EventMask, FileObject, Ready, Registry, lock};
use crate::call::deadline::{Events, POLLIN, POLLOUT, Poll, poll_until_signal};
use crate::sys::{BorrowedFd, RawFd};

/// The interface of a [`PollSelector`](super::PollSelector).
///
/// # Examples
///
/// ```
/// use sock::Socket;
/// use sock::selectors::{PollSet, Selector};
///
/// let sel: Selector<Socket, (), PollSet> = Selector::new()?;
/// assert!(sel.get_map().is_empty());
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct PollSet(());

/// One registration, whose object stays open for the wait.
struct Watched<F> {
    fileobj: Arc<F>,
    fd: RawFd,
    serial: u32,
    events: Events,
}

fn bits(events: EventMask) -> Events {
    let read = if events & EVENT_READ != 0 { POLLIN } else { 0 };
    let write = if events & EVENT_WRITE != 0 { POLLOUT } else { 0 };
    read | write
}

/// The system keeps no set: each wait passes the whole one.
#[allow(private_interfaces)]
impl Interface for PollSet {
    fn new() -> io::Result<PollSet> {
        Ok(PollSet(()))
    }

    fn add(&self, _fd: BorrowedFd<'_>, _serial: u32, _events: EventMask) -> io::Result<()> {
        Ok(())
    }

    fn modify(&self, _fd: BorrowedFd<'_>, _serial: u32, _events: EventMask) -> io::Result<()> {
        Ok(())
    }

    fn delete(&self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn watch(&self, _cancelled: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn wait<F: FileObject, D>(
        &self,
        registry: &Mutex<Registry<F, D>>,
        cancelled: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
        found: &mut dyn FnMut(Option<Ready>),
    ) -> io::Result<()> {
        let watched: Vec<Watched<F>> = lock(registry)
            .entries
            .values()
            .map(|entry| Watched {
                fileobj: Arc::clone(&entry.key.fileobj),
                fd: entry.key.fd,
                serial: entry.serial,
                events: bits(entry.key.events),
            })
            .collect();
        let descriptors: Vec<_> = watched.iter().map(|watched| watched.fileobj.descriptor()).collect();
        let mut set: Vec<_> =
            descriptors.iter().zip(&watched).map(|(fd, watched)| Poll::new(fd, watched.events)).collect();
        set.extend(cancelled.as_ref().map(|fd| Poll::new(fd, POLLIN)));
        poll_until_signal(&mut set, timeout)?;
        for (entry, watched) in set.iter().zip(&watched) {
            let bits = entry.revents();
            if bits == 0 {
                continue;
            }
            // As in Python: POLLERR and POLLHUP are both events.
            let read = if bits & !POLLOUT != 0 { EVENT_READ } else { 0 };
            let write = if bits & !POLLIN != 0 { EVENT_WRITE } else { 0 };
            found(Some(Ready { fd: watched.fd, serial: watched.serial, events: read | write }));
        }
        if set.get(watched.len()).is_some_and(|entry| entry.revents() != 0) {
            found(None);
        }
        Ok(())
    }
}
