//! A worker that stands at the door itself: nobody hands it its requests.

#[cfg(unix)]
use std::cell::Cell;
use std::io;
use std::time::Duration;

#[cfg(unix)]
use sock::AsFd;
use sock::{POLLIN, Poll, Socket, poll};

use crate::door::{Accepted, Door};
use crate::job::Job;
#[cfg(unix)]
use crate::sys::poller::{self, Poller};

/// How often a worker looks for room while every permit is taken: only one of
/// those who wait is woken when one is given back.
const FULL_LOOKS: Duration = Duration::from_millis(50);

/// Accepts for one thread or process among several.
pub(crate) struct Worker<'a> {
    door: Door,
    /// Readable when the worker is to stop.
    stop: &'a Socket,
    /// Each worker has its own, so that a client wakes one of them and not all.
    #[cfg(unix)]
    poller: Poller,
    /// Listeners it listens to.
    #[cfg(unix)]
    live: Cell<usize>,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(door: Door, stop: &'a Socket) -> io::Result<Worker<'a>> {
        #[cfg(unix)]
        {
            let poller = Poller::new()?;
            for listener in door.listeners() {
                poller.add_exclusive(listener.as_fd(), 0)?;
            }
            poller.add_level(stop.as_fd(), 1)?;
            let live = Cell::new(door.listeners().count());
            Ok(Worker { door, stop, poller, live })
        }
        #[cfg(not(unix))]
        Ok(Worker { door, stop })
    }

    /// Waits for a request; `None` after `limit`, or when the worker is to stop.
    ///
    /// # Errors
    ///
    /// The listener's, when it is of no more use.
    pub(crate) fn next(&self, limit: Option<Duration>) -> io::Result<Option<Job>> {
        loop {
            if self.door.is_stopping() {
                return Ok(None);
            }
            match self.door.accept()? {
                Accepted::Job(job) => return Ok(Some(job)),
                Accepted::Served | Accepted::Refused => {}
                Accepted::Again => self.leave_lost()?,
                Accepted::Nothing => {
                    if !self.wait(limit)? {
                        return Ok(None);
                    }
                }
                Accepted::Full => self.rest(FULL_LOOKS)?,
                Accepted::Pause(pause) => self.rest(pause)?,
            }
        }
    }

    /// Serves a request to its end.
    pub(crate) fn serve(&self, job: Job) {
        self.door.serving(|| job.run());
    }

    /// Listens no more to listeners that are gone: they would be ready for ever.
    #[cfg(unix)]
    fn leave_lost(&self) -> io::Result<()> {
        let live = self.door.listeners().count();
        if self.live.replace(live) != live {
            for listener in self.door.lost_listeners() {
                let _ = self.poller.remove(listener.as_fd());
            }
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn leave_lost(&self) -> io::Result<()> {
        Ok(())
    }

    /// Waits for a client. False after `limit`, and when the worker is to stop.
    #[cfg(unix)]
    fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        let mut events = Vec::new();
        poller::wait(&self.poller, &mut events, limit)?;
        // Interrupted, it is asked again: only a limit that passed is the end.
        Ok(events.iter().all(|event| event.key != 1) && (limit.is_none() || !events.is_empty()))
    }

    #[cfg(not(unix))]
    fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        let mut set = vec![Poll::new(self.stop, POLLIN)];
        set.extend(self.door.listeners().map(|listener| Poll::new(listener, POLLIN)));
        let ready = poll(&mut set, limit)?;
        Ok(set[0].revents() == 0 && (limit.is_none() || ready > 0))
    }

    fn rest(&self, limit: Duration) -> io::Result<()> {
        match poll(&mut [Poll::new(self.stop, POLLIN)], Some(limit)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}
