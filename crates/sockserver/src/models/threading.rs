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
use crate::lifecycle::handle::ServerHandle;
use crate::request::job::{Job, Rejected};

/// How long a thread that has nothing to do waits for the next request.
const IDLE_LIFETIME: Duration = Duration::from_secs(5);

/// How many threads may have ended before the list of all is swept.
const SWEEP_AFTER: usize = 16;

/// Serves each request in a thread of its own.
///
/// Python: `socketserver.ThreadingMixIn`. A thread that has served its request is
/// kept for five seconds and serves the next one, the one that finished last
/// first: its stack and caches are still warm, and starting a thread costs more
/// than the request it is for.
///
/// A thread that cannot be started is a rejected request: `handle_error` learns
/// of it and the connection is closed.
#[derive(Default)]
pub struct ThreadingMixIn {
    cache: Arc<Cache>,
    daemon_threads: bool,
    no_block_on_close: bool,
    stack_size: Option<usize>,
    joins: Mutex<JoinHandles>,
}

impl ThreadingMixIn {
    /// With Python's defaults.
    #[must_use]
    pub fn new() -> ThreadingMixIn {
        ThreadingMixIn::default()
    }

    /// Whether closing the server leaves threads alone that are still busy.
    /// Python: `daemon_threads`, default false.
    #[must_use]
    pub fn daemon_threads(mut self, daemon_threads: bool) -> ThreadingMixIn {
        self.daemon_threads = daemon_threads;
        self
    }

    /// Stack of each thread, in bytes. By default that of `std`, 2 MiB; what is not
    /// touched takes no memory.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> ThreadingMixIn {
        self.stack_size = Some(bytes);
        self
    }

    /// Whether closing the server waits until every request has been served.
    /// Python: `block_on_close`, default true.
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
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        // An ended thread keeps its stack until its handle is let go.
        if self.cache.exited.load(Ordering::Relaxed) >= SWEEP_AFTER {
            self.cache.exited.store(0, Ordering::Relaxed);
            self.joins.lock().sweep();
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
        crate::os::process::preallocate_fd_table(
            accept_loop.acceptor().core().registry().limits().max_connections,
        );
        while accept_loop.run_once(&[])? {}
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
            // What does not end in time is let go; it ends with the process.
            if !own && (all_done || handle.is_finished()) {
                // Panics were caught in the job; there is nothing left to learn.
                let _ = handle.join();
            }
        }
        Ok(())
    }
}

impl ThreadingMixIn {
    fn start_thread(&self, job: Job) -> Result<(), Rejected> {
        // The job waits in the worker, not in the closure: a thread that cannot be
        // started would take its closure along.
        let worker = Arc::new(IdleWorker::default());
        *worker.job.lock() = Some(job);
        let (cache, its_worker) = (Arc::clone(&self.cache), Arc::clone(&worker));
        let mut builder = thread::Builder::new().name("sockserver".to_owned());
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        let started = builder.spawn(move || work(&cache, &its_worker));
        match started {
            Ok(handle) => {
                if !self.daemon_threads {
                    self.joins.lock().handles.push(handle);
                }
                Ok(())
            }
            Err(error) => match worker.job.lock().take() {
                Some(job) => Err(job.reject(error)),
                None => Ok(()),
            },
        }
    }
}

/// The life of a thread: serve, sit down, serve again, until nobody comes.
fn work(cache: &Cache, worker: &Arc<IdleWorker>) {
    let _ = worker.thread.set(thread::current());
    loop {
        let job = worker.job.lock().take();
        if let Some(job) = job {
            job.run();
        }
        if !cache.push_idle(worker) {
            return;
        }
        let until = Instant::now() + IDLE_LIFETIME;
        while worker.job.lock().is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if (left.is_zero() || cache.is_closed()) && cache.remove_idle(worker) {
                cache.exited.fetch_add(1, Ordering::Relaxed);
                return;
            }
            // Chosen but not yet given its job, it waits without a limit.
            if left.is_zero() { thread::park() } else { thread::park_timeout(left) }
        }
    }
}

/// Where a thread sits while it has nothing to do, and finds its next job.
#[derive(Default)]
struct IdleWorker {
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

/// Threads that wait for a request, the one that came last on top.
#[derive(Default)]
struct Cache {
    idle: Mutex<Idle>,
    /// Threads that have gone for want of work since the last sweep.
    exited: AtomicUsize,
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

    /// Lets the thread wait for a job, unless the server is closed.
    fn push_idle(&self, worker: &Arc<IdleWorker>) -> bool {
        let mut idle = self.idle.lock();
        if !idle.closed {
            idle.workers.push(Arc::clone(worker));
        }
        !idle.closed
    }

    /// Lets the thread go, unless it has been chosen for a job meanwhile.
    fn remove_idle(&self, worker: &Arc<IdleWorker>) -> bool {
        let mut idle = self.idle.lock();
        let before = idle.workers.len();
        idle.workers.retain(|other| !Arc::ptr_eq(other, worker));
        idle.workers.len() < before || idle.closed && worker.job.lock().is_none()
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

/// The threads to wait for at the end. Those that have ended are forgotten now and
/// then (CPython kept all: gh-81374).
#[derive(Default)]
struct JoinHandles {
    handles: Vec<JoinHandle<()>>,
}

impl JoinHandles {
    fn sweep(&mut self) {
        self.handles.retain(|handle| !handle.is_finished());
    }
}
