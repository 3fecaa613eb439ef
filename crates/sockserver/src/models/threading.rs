//! A thread for each request.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::MixIn;
use crate::lifecycle::gauges::{self, ThreadStats};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::keep_running::keep_running;
use crate::models::thread_options::ThreadOptions;
use crate::request::job::{Job, Rejected};

/// How long an idle thread waits for the next request.
const IDLE_LIFETIME: Duration = Duration::from_secs(5);

/// After so many threads have exited, their handles are dropped.
const SWEEP_AFTER: usize = 16;

/// Serves each request in a thread of its own.
///
/// Python: `socketserver.ThreadingMixIn`. A thread that has served its request waits five seconds
/// for the next one, because starting a thread costs more than a short request. The thread that
/// finished last is used first.
///
/// If a thread cannot be started, the request is rejected: the error goes to `handle_error`, and
/// the connection is closed.
///
/// # Examples
///
/// ```
/// use sockserver::{ThreadingMixIn, ThreadingTCPServer, handler_fn};
///
/// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
///     .mixin(ThreadingMixIn::new().daemon_threads(true))
///     .bind(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.handle_request()?;
/// assert_eq!(client.recv(100)?, b"hello");
/// # std::io::Result::Ok(())
/// ```
#[derive(Default)]
pub struct ThreadingMixIn {
    cache: Arc<Cache>,
    daemon_threads: bool,
    no_block_on_close: bool,
    pub(super) options: ThreadOptions,
    /// Used by the loop and at the close. Handles are dropped and joined without it.
    joins: Mutex<JoinHandles>,
}

impl ThreadingMixIn {
    /// Creates the mixin with Python's defaults.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingMixIn, ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(ThreadingMixIn::new())
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> ThreadingMixIn {
        ThreadingMixIn::default()
    }

    /// Sets whether closing the server does not wait for threads that are still busy. Python:
    /// `daemon_threads`, default false.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingMixIn, ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
    ///     .mixin(ThreadingMixIn::new().daemon_threads(true))     // daemon_threads = True
    ///     .bind(("127.0.0.1", 0))?;
    /// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// // This returns, although the handler still waits for the client.
    /// server.server_close()?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn daemon_threads(mut self, daemon_threads: bool) -> ThreadingMixIn {
        self.daemon_threads = daemon_threads;
        self
    }

    /// Sets whether closing the server waits until every request has been served. Python:
    /// `block_on_close`, default true.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingMixIn, ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
    ///     .mixin(ThreadingMixIn::new().block_on_close(false))    // block_on_close = False
    ///     .bind(("127.0.0.1", 0))?;
    /// let _silent = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// // This returns, although the handler still waits for the client.
    /// server.server_close()?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn block_on_close(mut self, block_on_close: bool) -> ThreadingMixIn {
        self.no_block_on_close = !block_on_close;
        self
    }
}

impl fmt::Debug for ThreadingMixIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadingMixIn")
            .field("daemon_threads", &self.daemon_threads)
            .field("block_on_close", &!self.no_block_on_close)
            .field("idle_threads", &self.cache.idle.lock().workers.len())
            .finish()
    }
}

impl MixIn for ThreadingMixIn {
    fn check_options(&self) -> io::Result<()> {
        self.options.check()
    }

    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        // The stack of a thread that has ended is kept until its handle is dropped.
        if self.cache.exited.load(Ordering::Relaxed) >= SWEEP_AFTER {
            self.cache.exited.store(0, Ordering::Relaxed);
            let finished = self.joins.lock().take_finished();
            drop(finished);
        }
        match self.cache.take() {
            Some(worker) => {
                worker.give(job);
                Ok(())
            }
            None => self.start_thread(job),
        }
    }

    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        crate::os::process::preallocate_fd_table(accept_loop.core().registry().limits().max_connections);
        let cache = Arc::clone(&self.cache);
        gauges::set_thread_gauges(&accept_loop.core().handle, move || cache.stats());
        while accept_loop.run_once(&[], None)? {}
        Ok(())
    }

    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        for worker in self.cache.close() {
            worker.wake();
        }
        if self.no_block_on_close || self.daemon_threads {
            return Ok(());
        }
        let all_done = server.wait_until_idle();
        let handles = std::mem::take(&mut self.joins.lock().handles);
        for handle in handles {
            // A handler that owns its server may close it: it cannot wait for itself.
            let own = handle.thread().id() == thread::current().id();
            // A thread that does not end in time is detached, and ends with the process.
            if !own && (all_done || handle.is_finished()) {
                // The job has caught and reported panics.
                let _ = handle.join();
            }
        }
        Ok(())
    }
}

impl ThreadingMixIn {
    fn start_thread(&self, job: Job) -> Result<(), Rejected> {
        // The job is in the worker and not in the closure, which is dropped if the thread cannot
        // be started.
        let registry = Arc::clone(job.core().registry());
        let worker = Arc::new(IdleWorker::default());
        *worker.job.lock() = Some(job);
        let (cache, its_worker) = (Arc::clone(&self.cache), Arc::clone(&worker));
        let run = move || keep_running(|| work(&cache, &its_worker));
        self.cache.threads.fetch_add(1, Ordering::Relaxed);
        let started = self.options.spawn(&registry, run);
        match started {
            Ok(handle) => {
                if !self.daemon_threads {
                    self.joins.lock().handles.push(handle);
                }
                Ok(())
            }
            Err(error) => {
                self.cache.threads.fetch_sub(1, Ordering::Relaxed);
                let job = worker.job.lock().take();
                job.map_or(Ok(()), |job| Err(job.reject(error)))
            }
        }
    }
}

/// Serves one job after the other, until none comes for some time.
fn work(cache: &Cache, worker: &Arc<IdleWorker>) {
    let _ = worker.thread.set(thread::current());
    loop {
        let job = worker.job.lock().take();
        if let Some(job) = job {
            job.run();
        }
        if !cache.push_idle(worker) {
            cache.threads.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let until = Instant::now() + IDLE_LIFETIME;
        while worker.job.lock().is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if (left.is_zero() || cache.is_closed()) && cache.remove_idle(worker) {
                cache.exited.fetch_add(1, Ordering::Relaxed);
                cache.threads.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            // It has been taken for a job that it does not have yet: it waits without a limit.
            if left.is_zero() { thread::park() } else { thread::park_timeout(left) }
        }
    }
}

/// A thread that waits, and its next job.
#[derive(Default)]
struct IdleWorker {
    /// Held to move the job in or out. No job is served or dropped under it.
    job: Mutex<Option<Job>>,
    thread: OnceLock<Thread>,
}

impl IdleWorker {
    fn give(&self, job: Job) {
        *self.job.lock() = Some(job);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Threads that wait for a request. The last one that began to wait is used first.
#[derive(Default)]
struct Cache {
    /// Held to change the list. The lock of a worker's job may be taken under it.
    idle: Mutex<Idle>,
    /// Threads that have exited because they were idle since the last sweep.
    exited: AtomicUsize,
    /// Threads that have not exited.
    threads: AtomicUsize,
}

#[derive(Default)]
struct Idle {
    workers: Vec<Arc<IdleWorker>>,
    closed: bool,
}

impl Cache {
    fn take(&self) -> Option<Arc<IdleWorker>> {
        self.idle.lock().workers.pop()
    }

    /// Adds a thread that waits for a job. Returns false if the server is closed.
    fn push_idle(&self, worker: &Arc<IdleWorker>) -> bool {
        let mut idle = self.idle.lock();
        if !idle.closed {
            idle.workers.push(Arc::clone(worker));
        }
        !idle.closed
    }

    /// Removes a thread. Returns false if it has been taken for a job.
    fn remove_idle(&self, worker: &Arc<IdleWorker>) -> bool {
        let mut idle = self.idle.lock();
        let before = idle.workers.len();
        idle.workers.retain(|other| !Arc::ptr_eq(other, worker));
        idle.workers.len() < before || idle.closed && worker.job.lock().is_none()
    }

    fn stats(&self) -> ThreadStats {
        let idle = self.idle.lock().workers.len();
        // A thread may have ended in between.
        let threads = self.threads.load(Ordering::Relaxed).max(idle);
        ThreadStats { threads, busy: threads - idle, ..ThreadStats::default() }
    }

    fn is_closed(&self) -> bool {
        self.idle.lock().closed
    }

    fn close(&self) -> Vec<Arc<IdleWorker>> {
        let mut idle = self.idle.lock();
        idle.closed = true;
        std::mem::take(&mut idle.workers)
    }
}

/// The threads to join at the end. Handles of threads that have ended are dropped at intervals
/// (CPython kept them all: gh-81374).
#[derive(Default)]
struct JoinHandles {
    handles: Vec<JoinHandle<()>>,
}

impl JoinHandles {
    fn take_finished(&mut self) -> Vec<JoinHandle<()>> {
        let handles = std::mem::take(&mut self.handles);
        let finished;
        (finished, self.handles) = handles.into_iter().partition(JoinHandle::is_finished);
        finished
    }
}
