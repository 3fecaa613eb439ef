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
#[derive(Default)]
pub struct ThreadingMixIn {
    cache: Arc<Cache>,
    daemon_threads: bool,
    no_block_on_close: bool,
    stack_size: Option<usize>,
    joins: Mutex<JoinHandles>,
}

impl ThreadingMixIn {
    /// Creates the mixin with Python's defaults.
    #[must_use]
    pub fn new() -> ThreadingMixIn {
        ThreadingMixIn::default()
    }

    /// Sets whether closing the server does not wait for threads that are still busy. Python:
    /// `daemon_threads`, default false.
    #[must_use]
    pub fn daemon_threads(mut self, daemon_threads: bool) -> ThreadingMixIn {
        self.daemon_threads = daemon_threads;
        self
    }

    /// Sets the stack size of each thread, in bytes. By default that of `std`, 2 MiB. Pages that are
    /// never used take no memory.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> ThreadingMixIn {
        self.stack_size = Some(bytes);
        self
    }

    /// Sets whether closing the server waits until every request has been served. Python:
    /// `block_on_close`, default true.
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
        // The stack of a thread that has ended is kept until its handle is dropped.
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
        crate::os::process::preallocate_fd_table(accept_loop.core().registry().limits().max_connections);
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

/// Serves one job after the other, until none comes for some time.
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
            // It has been taken for a job that it does not have yet: it waits without a limit.
            if left.is_zero() { thread::park() } else { thread::park_timeout(left) }
        }
    }
}

/// A thread that waits, and its next job.
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

/// Threads that wait for a request. The last one that began to wait is used first.
#[derive(Default)]
struct Cache {
    idle: Mutex<Idle>,
    /// Threads that have exited because they were idle since the last sweep.
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
    fn sweep(&mut self) {
        self.handles.retain(|handle| !handle.is_finished());
    }
}
