//! A worker that accepts its own requests.

#[cfg(all(test, target_os = "linux"))]
mod orders;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sock::{AsFd, POLLIN, Poll, Socket, poll};

use crate::accept::acceptor::{AcceptGate, Next, Waiter};
use crate::os::interleave;
use crate::os::poller::{self, Poller};
use crate::os::shortage;
use crate::request::job::Job;

/// How often a worker looks for a permit while there is none. Only one waiter is woken when a
/// permit is given back.
const CAPACITY_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The key of the stop socket in the poller.
const STOP: u64 = 1;

/// Accepts for one thread or process among several.
pub(crate) struct AcceptWorker {
    gate: AcceptGate,
    waiter: WorkerWaiter,
}

/// Waits for a client or for the stop.
struct WorkerWaiter {
    /// Readable when the worker is to stop.
    stop: Arc<Socket>,
    strategy: Strategy,
    blocks_in_accept: bool,
}

enum Strategy {
    /// Waits in epoll(7). Each worker has its own poller, so a client wakes one worker and not all.
    Epoll(Poller),
    /// Waits in accept(2) itself, if the listener blocks, and else in poll(2).
    Accept,
}

impl AcceptWorker {
    /// A worker that waits in epoll(7), or in poll(2) where there is neither epoll nor kqueue.
    pub(crate) fn new(gate: AcceptGate, stop: Arc<Socket>) -> io::Result<AcceptWorker> {
        let strategy = match Poller::new() {
            Ok(poller) => {
                let added = gate.with_acceptor(|acceptor| {
                    acceptor.listeners().try_for_each(|listener| poller.add_exclusive(listener.as_fd(), 0))
                });
                added.transpose()?;
                poller.add_level(stop.as_fd(), STOP)?;
                Strategy::Epoll(poller)
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Strategy::Accept,
            Err(error) => return Err(error),
        };
        Ok(AcceptWorker { gate, waiter: WorkerWaiter { stop, strategy, blocks_in_accept: false } })
    }

    /// A worker whose only listener blocks in accept(2).
    #[cfg(unix)]
    pub(crate) fn blocking(gate: AcceptGate, stop: Arc<Socket>) -> AcceptWorker {
        let waiter = WorkerWaiter { stop, strategy: Strategy::Accept, blocks_in_accept: true };
        AcceptWorker { gate, waiter }
    }

    /// Waits for a request. Returns `None` after `limit`, or when the worker is to stop.
    ///
    /// # Errors
    ///
    /// Returns an error if no listener can accept any more.
    pub(crate) fn next(&self, limit: Option<Duration>) -> io::Result<Option<Job>> {
        loop {
            match self.gate.next(&self.waiter, limit)? {
                Next::Taken(job) => return Ok(Some(job)),
                Next::Refused => {}
                Next::TimedOut | Next::Stopped => return Ok(None),
            }
        }
    }

    /// Returns whether the loop of this worker has ended, so that it gets no more requests.
    pub(crate) fn is_stopped(&self) -> bool {
        self.gate
            .while_locked(|acceptor| acceptor.is_none_or(|acceptor| acceptor.core().handle.loop_ends()))
    }

    /// Serves a request to its end.
    pub(crate) fn serve(&self, job: Job) {
        job.run();
    }
}

impl Waiter for WorkerWaiter {
    fn blocks_in_accept(&self) -> bool {
        self.blocks_in_accept
    }

    fn wait(&self, gate: &AcceptGate, limit: Option<Duration>) -> io::Result<bool> {
        match &self.strategy {
            Strategy::Epoll(poller) => {
                interleave::block_until(&|| poller.is_ready());
                let mut events = Vec::new();
                poller::wait(poller, &mut events, limit)?;
                // Without a limit there is no event after a signal, and the wait goes on.
                Ok(events.iter().all(|event| event.key != STOP) && (limit.is_none() || !events.is_empty()))
            }
            Strategy::Accept => {
                // Not under the gate's lock, which the end of the loop waits for.
                let listeners: Option<Vec<_>> =
                    gate.with_acceptor(|acceptor| acceptor.listeners().cloned().collect());
                let listeners = listeners.unwrap_or_default();
                let mut set = vec![Poll::new(&*self.stop, POLLIN)];
                set.extend(listeners.iter().map(|listener| Poll::new(&**listener, POLLIN)));
                let ready = poll_or_interrupted(&mut set, limit)?;
                Ok(set[0].revents() == 0 && (limit.is_none() || ready > 0))
            }
        }
    }

    fn pause(&self, pause: Option<Duration>, _limit: Option<Duration>) -> io::Result<bool> {
        let pause = pause.unwrap_or(CAPACITY_POLL_INTERVAL);
        poll_or_interrupted(&mut [Poll::new(&*self.stop, POLLIN)], Some(pause))?;
        Ok(true)
    }

    fn remove_listener(&self, listener: &Arc<Socket>) {
        // With the other strategy poll(2) gets the listeners that the acceptor still has.
        if let Strategy::Epoll(poller) = &self.strategy {
            // It fails only for a listener that the poller does not have.
            let _ = poller.remove(listener.as_fd());
        }
    }
}

/// poll(2), which returns 0 if a signal interrupts it.
fn poll_or_interrupted(set: &mut [Poll<'_>], limit: Option<Duration>) -> io::Result<usize> {
    match poll(set, limit) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) if shortage::is_shortage(&error) => {
            shortage::pause();
            Ok(0)
        }
        polled => polled,
    }
}
