//! A fixed number of threads.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;
use sock::{SHUT_RDWR, Socket};

use crate::accept::acceptor::AcceptGate;
use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::MixIn;
use crate::lifecycle::gauges::{self, BusyThread, ThreadStats};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::keep_running::keep_running;
use crate::limits::ranges;
use crate::models::accept_worker::AcceptWorker;
use crate::models::thread_options::ThreadOptions;
use crate::models::worker_threads::WorkerThreads;
use crate::os::pair::pair;
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
///
/// # Examples
///
/// ```
/// use sockserver::{ThreadPoolMixIn, ThreadPoolTCPServer, WhenQueueFull, handler_fn};
///
/// let pool = ThreadPoolMixIn::new().workers(2).queue(100, WhenQueueFull::Refuse);
/// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
///     .mixin(pool)
///     .bind(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// # let _running = sockserver::testing::serve(server);
/// // Another thread runs `server.serve_forever()` now.
/// assert_eq!(client.recv(100)?, b"hello");
/// # std::io::Result::Ok(())
/// ```
pub struct ThreadPoolMixIn {
    workers: usize,
    queue: Option<(usize, WhenQueueFull)>,
    threads: WorkerThreads,
    pub(super) options: ThreadOptions,
    /// Held to read or replace the sender. No job is sent or dropped under it.
    jobs: Arc<Mutex<Option<Sender<Job>>>>,
    /// Threads that serve a request.
    busy: Arc<AtomicUsize>,
    /// The loop waits for room in the queue.
    waiting: Arc<AtomicBool>,
}

/// What happens to a request when the queue of a [`ThreadPoolMixIn`] is full.
///
/// # Examples
///
/// ```
/// use sockserver::{ThreadPoolTCPServer, WhenQueueFull, handler_fn};
///
/// assert_eq!(WhenQueueFull::default(), WhenQueueFull::Wait);
/// let server = ThreadPoolTCPServer::builder(handler_fn(|_| Ok(())))
///     .queue(100, WhenQueueFull::Drop)
///     .bind(("127.0.0.1", 0))?;
/// # std::io::Result::Ok(())
/// ```
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
            options: ThreadOptions::default(),
            jobs: Arc::default(),
            busy: Arc::default(),
            waiting: Arc::default(),
        }
    }
}

impl ThreadPoolMixIn {
    /// Creates a pool of eight workers without a queue.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadPoolMixIn, ThreadPoolTCPServer, handler_fn};
    ///
    /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(ThreadPoolMixIn::new())
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// # let _running = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now.
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> ThreadPoolMixIn {
        ThreadPoolMixIn::default()
    }

    /// Sets how many threads serve requests, up to 32,768. Default 8. 0 counts as 1.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadPoolMixIn, ThreadPoolTCPServer, handler_fn};
    ///
    /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(ThreadPoolMixIn::new().workers(2))
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// # let _running = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now.
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn workers(mut self, workers: usize) -> ThreadPoolMixIn {
        self.workers = workers.max(1);
        self
    }

    /// Sets the length of a queue between the loop and the workers, up to 1,048,576. By default
    /// there is none. 0 counts as 1.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadPoolMixIn, ThreadPoolTCPServer, WhenQueueFull, handler_fn};
    ///
    /// let server = ThreadPoolTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(ThreadPoolMixIn::new().queue(100, WhenQueueFull::Refuse))
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// # let _running = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now.
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn queue(mut self, length: usize, when_full: WhenQueueFull) -> ThreadPoolMixIn {
        self.queue = Some((length.max(1), when_full));
        self
    }

    /// Returns how many requests wait in the queue.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadPoolTCPServer, WhenQueueFull, handler_fn};
    ///
    /// let server = ThreadPoolTCPServer::builder(handler_fn(|_| Ok(())))
    ///     .queue(100, WhenQueueFull::Wait)
    ///     .bind(("127.0.0.1", 0))?;
    /// assert_eq!(server.mixin().queued(), 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn queued(&self) -> usize {
        self.jobs.lock().as_ref().map_or(0, Sender::len)
    }

    /// Starts workers that accept, and waits for the end of the loop.
    fn serve_without_queue(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        self.threads.start(self.workers, &self.options, accept_loop.core().registry())?;
        let (ours, theirs) = pair()?;
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
            let (failed, busy) = (Arc::clone(&failed), Arc::clone(&self.busy));
            let handle = accept_loop.core().handle.clone();
            self.threads.run(move || {
                keep_running(|| {
                    if let Err(error) = work(&worker, &handle, &busy) {
                        let former = failed.lock().replace(error);
                        drop(former);
                        handle.waker().wake();
                    }
                });
            });
        }
        loop {
            if !accept_loop.wait_without_accepting(&[], None)? {
                return Ok(());
            }
            let failed = failed.lock().take();
            if let Some(error) = failed {
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
        self.threads.start(self.workers, &self.options, accept_loop.core().registry())?;
        let (jobs, taken) = bounded(length);
        for _ in 0..self.workers {
            let (taken, waiting): (Receiver<Job>, _) = (taken.clone(), Arc::clone(&self.waiting));
            let busy = Arc::clone(&self.busy);
            let handle = accept_loop.core().handle.clone();
            self.threads.run(move || {
                keep_running(|| {
                    for job in &taken {
                        if waiting.swap(false, Ordering::SeqCst) {
                            handle.waker().wake();
                        }
                        let _busy = BusyThread::begin(&busy);
                        job.run();
                    }
                });
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
        // It cannot fail for a connected pair that is open.
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
        let jobs = self.0.lock().take();
        drop(jobs);
    }
}

/// How often a worker tries to accept without an event if another process uses the listeners too.
/// One client wakes one worker of all processes, and that process may stop before it accepts.
pub(super) const SHARED_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Accepts and serves until the loop ends.
fn work(worker: &AcceptWorker, server: &ServerHandle, busy: &AtomicUsize) -> io::Result<()> {
    loop {
        let limit = server.competes_for_clients().then_some(SHARED_POLL_INTERVAL);
        match worker.next(limit)? {
            Some(job) => {
                let _busy = BusyThread::begin(busy);
                worker.serve(job);
            }
            None if worker.is_stopped() => return Ok(()),
            None => {}
        }
    }
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

    fn check_options(&self) -> io::Result<()> {
        ranges::check("workers", self.workers, &ranges::WORKERS)?;
        if let Some((length, _)) = self.queue {
            ranges::check("queue", length, &ranges::QUEUE)?;
        }
        self.options.check()
    }

    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        // A mixin of the program that contains this one may not have checked the options.
        self.check_options()?;
        let (jobs, busy) = (Arc::clone(&self.jobs), Arc::clone(&self.busy));
        let (threads, queue) = (self.workers, self.queue.as_ref().map(|(length, _)| *length));
        gauges::set_thread_gauges(&accept_loop.core().handle, move || ThreadStats {
            threads,
            busy: busy.load(Ordering::Relaxed),
            queued: jobs.lock().as_ref().map_or(0, Sender::len),
            queue_capacity: queue,
            parked: 0,
        });
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
