//! A fixed number of threads.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use sock::{SHUT_RDWR, Socket, socketpair};

use crate::accept::Acceptor;
use crate::door::Door;
use crate::handle::ServerHandle;
use crate::job::{Job, Rejected};
use crate::mixin::MixIn;
use crate::mixin::worker::Worker;

/// Serves requests in a fixed number of threads.
///
/// Python has nothing like it in `socketserver`; its users write one with
/// `concurrent.futures`. Each worker accepts by itself, serves its client to the
/// end, and accepts the next: nothing is handed over, and clients beyond the
/// workers wait in the listener's queue. With [`queue`](Self::queue) one thread
/// accepts and the workers take from a queue: for those who want to know of clients
/// that wait, and to refuse them.
///
/// A connection holds its worker until it ends: with clients that stay, make it at
/// least as many workers as clients, or take the
/// [`SelectorMixIn`](crate::SelectorMixIn).
pub struct ThreadPoolMixIn {
    workers: usize,
    queue: Option<(usize, WhenQueueFull)>,
    running: Mutex<Vec<JoinHandle<()>>>,
    jobs: Mutex<Option<Sender<Job>>>,
    /// The loop waits for room in the queue.
    waiting: Arc<AtomicBool>,
}

/// What happens to a request when the queue of a [`ThreadPoolMixIn`] is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenQueueFull {
    /// It waits in the listener's queue.
    #[default]
    Wait,
    /// It is accepted, told so by [`refuse_request`](crate::ServerHooks::refuse_request),
    /// and closed.
    Refuse,
    /// It is accepted and closed without a word.
    Drop,
}

impl Default for ThreadPoolMixIn {
    fn default() -> ThreadPoolMixIn {
        ThreadPoolMixIn {
            workers: 8,
            queue: None,
            running: Mutex::default(),
            jobs: Mutex::default(),
            waiting: Arc::default(),
        }
    }
}

impl ThreadPoolMixIn {
    /// Eight workers that accept by themselves.
    #[must_use]
    pub fn new() -> ThreadPoolMixIn {
        ThreadPoolMixIn::default()
    }

    /// How many threads serve requests. Default 8; 0 counts as 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> ThreadPoolMixIn {
        self.workers = workers.max(1);
        self
    }

    /// Puts a queue of `length` requests between the loop and the workers. 0 counts
    /// as 1.
    #[must_use]
    pub fn queue(mut self, length: usize, when_full: WhenQueueFull) -> ThreadPoolMixIn {
        self.queue = Some((length.max(1), when_full));
        self
    }

    /// How many requests wait in the queue at the moment.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.jobs.lock().as_ref().map_or(0, Sender::len)
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut running = self.running.lock();
        running.retain(|thread| !thread.is_finished());
        running.push(thread::Builder::new().name("sockserver".to_owned()).spawn(work)?);
        Ok(())
    }

    /// Workers that accept by themselves, while this loop only waits for its end.
    fn serve_without_queue(&self, acceptor: &Acceptor<'_>) -> io::Result<()> {
        let (ours, theirs) = socketpair()?;
        let (theirs, failed) = (Arc::new(theirs), Arc::new(Mutex::new(None)));
        let mut served = Ok(());
        for _ in 0..self.workers {
            let (door, stop, failed) =
                (acceptor.door().another(), Arc::clone(&theirs), Arc::clone(&failed));
            served = self.spawn(move || {
                let handle = door.core().handle.clone();
                if let Err(error) = work(door, &stop) {
                    failed.lock().get_or_insert(error);
                    handle.waker().wake();
                }
            });
            if served.is_err() {
                break;
            }
        }
        while served.is_ok() {
            served = match acceptor.rest(&[], None) {
                Ok(true) => failed.lock().take().map_or(Ok(()), Err),
                Ok(false) => break,
                Err(error) => Err(error),
            };
        }
        // Wakes every worker; those that serve somebody see it afterwards.
        let _ = ours.shutdown(SHUT_RDWR);
        served
    }

    /// One loop that accepts, and workers that take from its queue.
    fn serve_with_queue(
        &self,
        acceptor: &Acceptor<'_>,
        length: usize,
        when_full: WhenQueueFull,
    ) -> io::Result<()> {
        let (jobs, taken) = bounded(length);
        for _ in 0..self.workers {
            let (taken, waiting): (Receiver<Job>, _) = (taken.clone(), Arc::clone(&self.waiting));
            let handle = acceptor.door().core().handle.clone();
            self.spawn(move || {
                for job in taken {
                    if waiting.swap(false, Ordering::SeqCst) {
                        handle.waker().wake();
                    }
                    job.run();
                }
            })?;
        }
        drop(taken);
        *self.jobs.lock() = Some(jobs.clone());
        loop {
            let full = || when_full == WhenQueueFull::Wait && jobs.is_full();
            if full() {
                self.waiting.store(true, Ordering::SeqCst);
            }
            let goes_on = if full() { acceptor.rest(&[], None)? } else { acceptor.turn(&[])? };
            if !goes_on {
                break;
            }
        }
        // What waits in the queue was accepted, and is served.
        *self.jobs.lock() = None;
        Ok(())
    }
}

/// The life of a worker that accepts by itself.
fn work(door: Door, stop: &Socket) -> io::Result<()> {
    let worker = Worker::new(door, stop)?;
    while let Some(job) = worker.next(None)? {
        worker.serve(job);
    }
    Ok(())
}

impl MixIn for ThreadPoolMixIn {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        let jobs = self.jobs.lock().clone();
        // For `handle_request`, which has no workers.
        let Some(jobs) = jobs else {
            job.run();
            return Ok(());
        };
        match (self.queue, jobs.try_send(job)) {
            (_, Ok(())) => {}
            (Some((_, WhenQueueFull::Refuse)), Err(TrySendError::Full(job))) => job.turn_away(),
            (Some((_, WhenQueueFull::Drop)), Err(TrySendError::Full(job))) => job.refuse(),
            // This loop is the only one that fills the queue, and it had room.
            (_, Err(TrySendError::Full(job))) => drop(jobs.send(job)),
            (_, Err(TrySendError::Disconnected(job))) => {
                return Err(job.reject(io::Error::other("every worker is gone")));
            }
        }
        Ok(())
    }

    fn serve(&self, acceptor: &Acceptor<'_>) -> io::Result<()> {
        match self.queue {
            None => self.serve_without_queue(acceptor),
            Some((length, when_full)) => self.serve_with_queue(acceptor, length, when_full),
        }
    }

    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        let all_done = server.wait_until_idle();
        let running = std::mem::take(&mut *self.running.lock());
        for thread in running {
            let own = thread.thread().id() == thread::current().id();
            if !own && (all_done || thread.is_finished()) {
                let _ = thread.join();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ThreadPoolMixIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPoolMixIn")
            .field("workers", &self.workers)
            .field("queue", &self.queue)
            .field("queued", &self.queued())
            .finish()
    }
}
