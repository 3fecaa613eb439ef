//! A worker that accepts by itself: nobody hands it its requests.

#[cfg(all(test, target_os = "linux"))]
mod orders;

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
#[cfg(unix)]
use sock::AsFd;
use sock::{POLLIN, Poll, Socket, poll};

use crate::accept::acceptor::{Accepted, Acceptor};
use crate::lifecycle::current_server::AcceptingThread;
use crate::os::interleave;
#[cfg(unix)]
use crate::os::poller::{self, Poller};
use crate::request::job::{Job, RecycledJob};

/// How often a worker looks for room while every permit is taken: only one of
/// those who wait is woken when one is given back.
const CAPACITY_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The acceptor of one worker, until the loop that it belongs to closes it. A worker that looks
/// later finds no acceptor, whatever has become of the loop's stop since.
#[derive(Clone)]
pub(crate) struct AcceptGate(Arc<Mutex<GateState>>);

struct GateState {
    acceptor: Option<Acceptor>,
    /// Only what has been received is still served.
    closed: bool,
}

impl AcceptGate {
    pub(crate) fn new(acceptor: Acceptor) -> AcceptGate {
        AcceptGate(Arc::new(Mutex::new(GateState { acceptor: Some(acceptor), closed: false })))
    }

    /// Has the worker accept no more. Waits for the attempt that it makes at this moment.
    pub(crate) fn close(&self) {
        let mut inside = interleave::lock(&self.0);
        inside.closed = true;
        // The listener may be closed from now on.
        inside.acceptor.take_if(|acceptor| !acceptor.has_more());
    }

    /// `None` when the worker is to stop.
    /// `spare` is for the next request.
    fn accept(&self, spare: Option<RecycledJob>) -> io::Result<Option<Accepted>> {
        let mut inside = interleave::lock(&self.0);
        let closed = inside.closed;
        let stops = |acceptor: &mut Acceptor| (closed || acceptor.is_stopping()) && !acceptor.has_more();
        inside.acceptor.take_if(stops);
        let Some(acceptor) = &inside.acceptor else { return Ok(None) };
        acceptor.keep(spare);
        // Only a hook could ask.
        let core = acceptor.core();
        let _accepting = core.has_hooks.then(|| AcceptingThread::begin(core.registry()));
        acceptor.accept().map(Some)
    }

    fn with_door<T>(&self, act: impl FnOnce(&Acceptor) -> T) -> Option<T> {
        interleave::lock(&self.0).acceptor.as_ref().map(act)
    }
}

/// Accepts for one thread or process among several.
pub(crate) struct AcceptWorker {
    gate: AcceptGate,
    /// Readable when the worker is to stop.
    stop: Arc<Socket>,
    /// Each worker has its own, so that a client wakes one of them and not all.
    #[cfg(unix)]
    poller: Poller,
    /// Listeners it listens to.
    live: Cell<usize>,
    /// The job that has ended last.
    spare: Cell<Option<RecycledJob>>,
}

impl AcceptWorker {
    pub(crate) fn new(gate: AcceptGate, stop: Arc<Socket>) -> io::Result<AcceptWorker> {
        let live = gate.with_door(|acceptor| acceptor.listeners().count()).unwrap_or_default();
        #[cfg(unix)]
        let poller = {
            let poller = Poller::new()?;
            let listens = |acceptor: &Acceptor| {
                let mut listeners = acceptor.listeners();
                listeners.try_for_each(|listener| poller.add_exclusive(listener.as_fd(), 0))
            };
            gate.with_door(listens).transpose()?;
            poller.add_level(stop.as_fd(), 1)?;
            poller
        };
        Ok(AcceptWorker {
            gate,
            stop,
            #[cfg(unix)]
            poller,
            live: Cell::new(live),
            spare: Cell::default(),
        })
    }

    /// Waits for a request; `None` after `limit`, or when the worker is to stop.
    ///
    /// # Errors
    ///
    /// The listener's, when it is of no more use.
    pub(crate) fn next(&self, limit: Option<Duration>) -> io::Result<Option<Job>> {
        loop {
            interleave::yield_point();
            let Some(accepted) = self.gate.accept(self.spare.take())? else { return Ok(None) };
            match accepted {
                Accepted::Job(job) => return Ok(Some(job)),
                Accepted::ServedInline | Accepted::Refused => {}
                Accepted::Retry => self.remove_disabled_listeners(),
                Accepted::WouldBlock => {
                    if !self.wait(limit)? {
                        return Ok(None);
                    }
                }
                Accepted::AtCapacity => self.pause(CAPACITY_POLL_INTERVAL)?,
                Accepted::Backoff(pause) => self.pause(pause)?,
            }
        }
    }

    /// Serves a request to its end.
    pub(crate) fn serve(&self, job: Job) {
        let (_, spare) = RecycledJob::after(|| job.run());
        self.spare.set(spare);
    }

    /// Listens no more to listeners that are gone: they would be ready for ever.
    fn remove_disabled_listeners(&self) {
        self.gate.with_door(|acceptor| {
            let live = acceptor.listeners().count();
            if self.live.replace(live) != live {
                #[cfg(unix)]
                for listener in acceptor.disabled_listeners() {
                    let _ = self.poller.remove(listener.as_fd());
                }
            }
        });
    }

    /// Waits for a client. False after `limit`, and when the worker is to stop.
    #[cfg(unix)]
    fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        interleave::block_until(&|| self.poller.is_ready());
        let mut events = Vec::new();
        poller::wait(&self.poller, &mut events, limit)?;
        // Interrupted, it is asked again: only a limit that passed is the end.
        Ok(events.iter().all(|event| event.key != 1) && (limit.is_none() || !events.is_empty()))
    }

    #[cfg(not(unix))]
    fn wait(&self, limit: Option<Duration>) -> io::Result<bool> {
        // Not under the lock, which whoever closes the acceptor waits for.
        let listeners: Option<Vec<_>> =
            self.gate.with_door(|acceptor| acceptor.listeners().cloned().collect());
        let listeners = listeners.unwrap_or_default();
        let mut set = vec![Poll::new(&*self.stop, POLLIN)];
        set.extend(listeners.iter().map(|listener| Poll::new(&**listener, POLLIN)));
        let ready = poll(&mut set, limit)?;
        Ok(set[0].revents() == 0 && (limit.is_none() || ready > 0))
    }

    fn pause(&self, limit: Duration) -> io::Result<()> {
        match poll(&mut [Poll::new(&*self.stop, POLLIN)], Some(limit)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}
