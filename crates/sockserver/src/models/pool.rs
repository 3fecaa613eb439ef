//! A fixed number of threads.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use sock::{SHUT_RDWR, Socket, socketpair};

use crate::accept::acceptor::AcceptGate;
use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::MixIn;
use crate::lifecycle::handle::ServerHandle;
use crate::models::accept_worker::AcceptWorker;
use crate::models::worker_threads::WorkerThreads;
use crate::request::job::{Job, Rejected};

/// Serves requests in a fixed number of threads.
///
/// Python has no such mixin in `socketserver`. Each worker accepts a client, serves it to the end,
/// and accepts the next one. Further clients wait in the listener's queue. With
/// [`queue`](Self::queue) one thread accepts, and the workers take requests from a queue, so the
/// server knows how many clients wait and can refuse them.
///
/// A connection occupies its worker until it ends. For clients that keep their connections, use at
/// least as many workers as clients, or the [`SelectorMixIn`](crate::SelectorMixIn).
pub struct ThreadPoolMixIn {
    workers: usize,
    queue: Option<(usize, WhenQueueFull)>,
    threads: WorkerThreads,
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
    /// It is accepted, passed to [`refuse_request`](crate::ServerHooks::refuse_request), and
    /// closed.
    Refuse,
    /// It is accepted and closed.
    Drop,
}

impl Default for ThreadPoolMixIn {
    fn default() -> ThreadPoolMixIn {
        ThreadPoolMixIn {
            workers: 8,
            queue: None,
            threads: WorkerThreads::default(),
            jobs: Mutex::default(),
            waiting: Arc::default(),
        }
    }
}

impl ThreadPoolMixIn {
    /// Creates a pool of eight workers without a queue.
    #[must_use]
    pub fn new() -> ThreadPoolMixIn {
        ThreadPoolMixIn::default()
    }

    /// Sets how many threads serve requests. Default 8. 0 counts as 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> ThreadPoolMixIn {
        self.workers = workers.max(1);
        self
    }

    /// Sets the length of a queue between the loop and the workers. By default there is none. 0
    /// counts as 1.
    #[must_use]
    pub fn queue(mut self, length: usize, when_full: WhenQueueFull) -> ThreadPoolMixIn {
        self.queue = Some((length.max(1), when_full));
        self
    }

    /// Returns how many requests wait in the queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.jobs.lock().as_ref().map_or(0, Sender::len)
    }

    /// Starts workers that accept, and waits for the end of the loop.
    fn serve_without_queue(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        self.threads.start(self.workers)?;
        let (ours, theirs) = socketpair()?;
        let (theirs, failed) = (Arc::new(theirs), Arc::new(Mutex::new(None)));
        let mut gates = AcceptGates { gates: Vec::with_capacity(self.workers), stop: ours };
        // All pollers are there before the first client takes a descriptor.
        let mut workers = Vec::with_capacity(self.workers);
        for _ in 0..self.workers {
            let gate = AcceptGate::new(accept_loop.new_acceptor());
            gates.gates.push(gate.clone());
            workers.push(AcceptWorker::new(gate, Arc::clone(&theirs))?);
        }
        for worker in workers {
            let failed = Arc::clone(&failed);
            let handle = accept_loop.core().handle.clone();
            self.threads.run(move || {
                if let Err(error) = work(&worker) {
                    failed.lock().get_or_insert(error);
                    handle.waker().wake();
                }
            });
        }
        loop {
            if !accept_loop.wait_without_accepting(&[], None)? {
                return Ok(());
            }
            if let Some(error) = failed.lock().take() {
                return Err(error);
            }
        }
    }

    /// Accepts, and starts workers that take requests from the queue.
    fn serve_with_queue(
        &self,
        accept_loop: &AcceptLoop<'_>,
        length: usize,
        when_full: WhenQueueFull,
    ) -> io::Result<()> {
        self.threads.start(self.workers)?;
        let (jobs, taken) = bounded(length);
        for _ in 0..self.workers {
            let (taken, waiting): (Receiver<Job>, _) = (taken.clone(), Arc::clone(&self.waiting));
            let handle = accept_loop.core().handle.clone();
            self.threads.run(move || {
                for job in taken {
                    if waiting.swap(false, Ordering::SeqCst) {
                        handle.waker().wake();
                    }
                    job.run();
                }
            });
        }
        drop(taken);
        // What waits in the queue at the end was accepted, and is served.
        let _queue = Queue::open(&self.jobs, jobs.clone());
        loop {
            let full = || when_full == WhenQueueFull::Wait && jobs.is_full();
            if full() {
                self.waiting.store(true, Ordering::SeqCst);
            }
            let goes_on = if full() {
                accept_loop.wait_without_accepting(&[], None)?
            } else {
                accept_loop.run_once(&[], None)?
            };
            if !goes_on {
                return Ok(());
            }
        }
    }
}

/// The gates of the workers of one loop. They are closed at its end, also after an error.
struct AcceptGates {
    gates: Vec<AcceptGate>,
    /// Its shutdown wakes every worker that waits.
    stop: Socket,
}

impl Drop for AcceptGates {
    fn drop(&mut self) {
        let _ = self.stop.shutdown(SHUT_RDWR);
        // From here on no worker accepts. Those that serve a request finish it.
        self.gates.iter().for_each(|gate| drop(gate.close()));
    }
}

/// The queue of one loop. It is closed at its end, also after an error, which ends its workers.
struct Queue<'a>(&'a Mutex<Option<Sender<Job>>>);

impl<'a> Queue<'a> {
    fn open(place: &'a Mutex<Option<Sender<Job>>>, jobs: Sender<Job>) -> Queue<'a> {
        *place.lock() = Some(jobs);
        Queue(place)
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// Accepts and serves until the loop ends.
fn work(worker: &AcceptWorker) -> io::Result<()> {
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
            (Some((_, WhenQueueFull::Refuse)), Err(TrySendError::Full(job))) => job.refuse_with_hook(),
            (Some((_, WhenQueueFull::Drop)), Err(TrySendError::Full(job))) => job.close_unserved(),
            // This loop is the only one that fills the queue, and it had room.
            (_, Err(TrySendError::Full(job))) => drop(jobs.send(job)),
            (_, Err(TrySendError::Disconnected(job))) => {
                return Err(job.reject(io::Error::other("all workers have exited")));
            }
        }
        Ok(())
    }

    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        match self.queue {
            None => self.serve_without_queue(accept_loop),
            Some((length, when_full)) => self.serve_with_queue(accept_loop, length, when_full),
        }
    }

    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        self.threads.close();
        let all_done = server.wait_until_idle();
        self.threads.join(all_done);
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
