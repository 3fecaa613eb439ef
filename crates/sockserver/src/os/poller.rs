//! Waiting for many descriptors: epoll(7) on Linux, kqueue elsewhere.
//!
//! Connections are registered once, edge-triggered: an event says that something
//! has come since the last one, and nothing has to be armed again (re-arming costs
//! a system call for each request).

use std::io;
use std::time::Duration;

use sock::BorrowedFd;

/// Something has come on what was registered with `key`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) key: u64,
    /// The end of file, or an error, came too: there may be no other event.
    pub(crate) hang_up: bool,
}

/// How many events are taken at once.
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

        /// Tells of each change, until the descriptor is closed.
        pub(crate) fn add_edge(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            Ok(epoll::add(&self.0, fd, EventData::new_u64(key), flags)?)
        }

        /// Has it tell again of what is there already.
        pub(crate) fn rearm_edge(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
            Ok(epoll::modify(&self.0, fd, EventData::new_u64(key), flags)?)
        }

        /// Tells again and again, as long as it is readable.
        pub(crate) fn add_level(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            Ok(epoll::add(&self.0, fd, EventData::new_u64(key), EventFlags::IN)?)
        }

        /// Tells one of all who wait for it, each in a poller of its own.
        pub(crate) fn add_exclusive(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
            Ok(epoll::add(&self.0, fd, EventData::new_u64(key), flags)?)
        }

        pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
            Ok(epoll::delete(&self.0, fd)?)
        }

        pub(crate) fn wait(&self, events: &mut Vec<Event>, limit: Option<Duration>) -> io::Result<()> {
            let limit = limit
                .map(|limit| Timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ });
            let mut told = [const { std::mem::MaybeUninit::uninit() }; BATCH];
            let (told, _) = epoll::wait(&self.0, &mut told, limit.as_ref())?;
            let hang_up = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
            events.extend(told.iter().map(|event| {
                let (flags, data) = (event.flags, event.data);
                Event { key: data.u64(), hang_up: flags.intersects(hang_up) }
            }));
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use polling::{PollMode, Poller as Inner};

    use super::*;

    pub(crate) struct Poller(Inner);

    impl Poller {
        pub(crate) fn new() -> io::Result<Poller> {
            Inner::new().map(Poller)
        }

        /// Tells of each change, until the descriptor is closed.
        pub(crate) fn add_edge(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            self.add(fd, key, PollMode::Edge)
        }

        /// Has it tell again of what is there already.
        pub(crate) fn rearm_edge(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let interest = polling::Event::readable(key as usize);
            self.0.modify_with_mode(fd, interest, PollMode::Edge)
        }

        /// Tells again and again, as long as it is readable.
        pub(crate) fn add_level(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            self.add(fd, key, PollMode::Level)
        }

        /// Tells all who wait for it: kqueue knows no better.
        pub(crate) fn add_exclusive(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            self.add(fd, key, PollMode::Level)
        }

        fn add(&self, fd: BorrowedFd<'_>, key: u64, mode: PollMode) -> io::Result<()> {
            let interest = polling::Event::readable(key as usize);
            // SAFETY: kqueue forgets a descriptor when it is closed, and an event
            // for one that is gone is told from others by its key.
            unsafe { self.0.add_with_mode(&fd, interest, mode) }
        }

        pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
            self.0.delete(fd)
        }

        pub(crate) fn wait(&self, events: &mut Vec<Event>, limit: Option<Duration>) -> io::Result<()> {
            let mut told = polling::Events::with_capacity(BATCH.try_into().expect("it is not 0"));
            self.0.wait(&mut told, limit)?;
            // Whether the end has come too is not told: it is always looked for.
            events.extend(told.iter().map(|event| Event { key: event.key as u64, hang_up: true }));
            Ok(())
        }
    }
}

pub(crate) use platform::Poller;

#[cfg(all(test, target_os = "linux"))]
impl Poller {
    /// Whether a wait would return at once.
    pub(crate) fn is_ready(&self) -> bool {
        use sock::{POLLIN, Poll};
        sock::poll(&mut [Poll::new(self, POLLIN)], Some(Duration::ZERO)).is_ok_and(|count| count > 0)
    }
}

#[cfg(not(all(test, target_os = "linux")))]
impl Poller {
    /// Is asked only where every order is checked.
    pub(crate) fn is_ready(&self) -> bool {
        true
    }
}

/// Whether the wait was only interrupted.
pub(crate) fn wait(poller: &Poller, events: &mut Vec<Event>, limit: Option<Duration>) -> io::Result<()> {
    match poller.wait(events, limit) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use sock::AsFd;

    use super::*;

    #[test]
    fn an_edge_is_told_once_and_a_level_as_long_as_it_lasts() {
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
        assert_eq!(count(Duration::ZERO), 0, "nothing new has come");
        theirs.sendall(b"y").unwrap();
        assert_eq!(count(Duration::from_secs(10)), 1);
        poller.remove(ours.as_fd()).unwrap();
        poller.add_level(ours.as_fd(), 7).unwrap();
        assert_eq!((count(Duration::ZERO), count(Duration::ZERO)), (1, 1));
    }
}
