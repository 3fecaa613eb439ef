//! Waits for many descriptors, with epoll(7) on Linux and kqueue elsewhere.
//!
//! Connections are registered once, edge-triggered: an event reports that data has arrived since
//! the last one. So nothing has to be re-armed, which would cost a system call for each request.

use std::io;
use std::time::Duration;

use sock::{AsFd as _, AsRawFd as _, BorrowedFd};

/// An event of the descriptor that was registered with `key`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) key: u64,
    /// The end of file or an error was reported too. There may be no further event.
    pub(crate) hang_up: bool,
}

/// The number of events that one wait returns at most.
const BATCH: usize = 64;

#[cfg(target_os = "linux")]
mod platform {
    use rustix::event::Timespec;
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

    use super::*;

    pub(crate) struct Poller(sock::OwnedFd);

    impl sock::AsFd for Poller {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<Poller> {
            Ok(Poller(epoll::create(CreateFlags::CLOEXEC)?))
        }

        /// Registers a descriptor edge-triggered, until it is closed.
        pub(crate) fn add_edge(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            Ok(epoll::add(&self.0, fd, EventData::new_u64(key), flags)?)
        }

        /// Re-arms an edge-triggered descriptor, so that existing data is reported again.
        pub(crate) fn rearm_edge(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            Ok(epoll::modify(&self.0, fd, EventData::new_u64(key), flags)?)
        }

        /// Registers a descriptor level-triggered.
        pub(crate) fn add_level(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            Ok(epoll::add(&self.0, fd, EventData::new_u64(key), EventFlags::IN)?)
        }

        /// Registers a descriptor that is in several pollers, of which an event wakes one.
        pub(crate) fn add_exclusive(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
            Ok(epoll::add(&self.0, fd, EventData::new_u64(key), flags)?)
        }

        pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
            Ok(epoll::delete(&self.0, fd)?)
        }

        /// Returns the number of events.
        pub(crate) fn wait(&self, events: &mut Vec<Event>, limit: Option<Duration>) -> io::Result<usize> {
            let limit = limit
                .map(|limit| Timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ });
            let mut buffer = [const { std::mem::MaybeUninit::uninit() }; BATCH];
            let (received, _) = epoll::wait(&self.0, &mut buffer, limit.as_ref())?;
            let hang_up = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
            events.extend(received.iter().map(|event| {
                let (flags, data) = (event.flags, event.data);
                Event { key: data.u64(), hang_up: flags.intersects(hang_up) }
            }));
            Ok(received.len())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use polling::{PollMode, Poller as Inner};

    use super::*;

    pub(crate) struct Poller(Inner);

    impl sock::AsFd for Poller {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<Poller> {
            Inner::new().map(Poller)
        }

        /// Registers a descriptor edge-triggered, until it is closed.
        pub(crate) fn add_edge(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            self.add(fd, key, PollMode::Edge)
        }

        /// Re-arms an edge-triggered descriptor, so that existing data is reported again.
        pub(crate) fn rearm_edge(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let interest = polling::Event::readable(key as usize);
            self.0.modify_with_mode(fd, interest, PollMode::Edge)
        }

        /// Registers a descriptor level-triggered.
        pub(crate) fn add_level(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            self.add(fd, key, PollMode::Level)
        }

        /// Registers a descriptor that is in several pollers. With kqueue an event wakes all of them.
        pub(crate) fn add_exclusive(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            self.add(fd, key, PollMode::Level)
        }

        fn add(&self, fd: BorrowedFd<'_>, key: u64, mode: PollMode) -> io::Result<()> {
            let interest = polling::Event::readable(key as usize);
            // SAFETY: kqueue removes a descriptor when it is closed, and the key of an event shows
            // whether its connection still exists.
            unsafe { self.0.add_with_mode(&fd, interest, mode) }
        }

        pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
            self.0.delete(fd)
        }

        /// Returns the number of events.
        pub(crate) fn wait(&self, events: &mut Vec<Event>, limit: Option<Duration>) -> io::Result<usize> {
            let mut received = polling::Events::with_capacity(BATCH.try_into().expect("BATCH is not 0"));
            self.0.wait(&mut received, limit)?;
            // `polling` does not report the end of file, so it is always assumed.
            events.extend(received.iter().map(|event| Event { key: event.key as u64, hang_up: true }));
            Ok(received.len())
        }
    }
}

pub(crate) use platform::Poller;

#[cfg(all(test, target_os = "linux"))]
impl Poller {
    /// Returns whether a wait would return at once.
    pub(crate) fn is_ready(&self) -> bool {
        use sock::{POLLIN, Poll};
        sock::poll(&mut [Poll::new(self, POLLIN)], Some(Duration::ZERO)).is_ok_and(|count| count > 0)
    }
}

#[cfg(not(all(test, target_os = "linux")))]
impl Poller {
    /// Used by the interleaving checker only.
    pub(crate) fn is_ready(&self) -> bool {
        true
    }
}

/// Waits for events. An interrupted wait is not an error.
pub(crate) fn wait(poller: &Poller, events: &mut Vec<Event>, limit: Option<Duration>) -> io::Result<()> {
    match sock::traced(|| traced_line(poller, limit), || poller.wait(events, limit)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result.map(drop),
    }
}

/// A wait in the form of `sock::selectors`.
fn traced_line(poller: &Poller, limit: Option<Duration>) -> String {
    let name = if cfg!(target_os = "linux") { "epoll_wait" } else { "kevent" };
    let limit = limit.map_or_else(|| "-1".to_owned(), |limit| format!("{limit:?}"));
    format!("{name}({}, {limit})", poller.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use sock::AsFd;

    use super::*;

    #[test]
    fn an_edge_is_reported_once_and_a_level_repeatedly() {
        let (ours, theirs) = sock::socketpair().unwrap();
        let poller = Poller::new().unwrap();
        poller.add_edge(ours.as_fd(), 7).unwrap();
        theirs.sendall(b"x").unwrap();
        let count = |limit| {
            let mut events = Vec::new();
            wait(&poller, &mut events, Some(limit)).unwrap();
            assert!(events.iter().all(|event| event.key == 7));
            events.len()
        };
        assert_eq!(count(Duration::from_secs(10)), 1);
        assert_eq!(count(Duration::ZERO), 0, "no new data has arrived");
        theirs.sendall(b"y").unwrap();
        assert_eq!(count(Duration::from_secs(10)), 1);
        poller.remove(ours.as_fd()).unwrap();
        poller.add_level(ours.as_fd(), 7).unwrap();
        assert_eq!((count(Duration::ZERO), count(Duration::ZERO)), (1, 1));
    }
}
