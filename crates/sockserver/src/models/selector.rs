//! A few threads serve requests. Idle connections wait in a poller, without a thread.

#[cfg(all(test, target_os = "linux"))]
mod orders;

use std::cmp;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use sock::{AsFd, Socket, errno};

use crate::accept::acceptor::{AcceptGate, Accepted, Acceptor, Attempt};
use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::MixIn;
use crate::lifecycle::gauges::{self, ThreadStats};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::keep_running::keep_running;
use crate::lifecycle::registry::Registry;
use crate::limits::log_limit::{self, LogKind, log_limited};
use crate::limits::ranges;
use crate::models::idle_slab::{IdleSlab, InsertResult, Key};
use crate::models::pool::SHARED_POLL_INTERVAL;
use crate::models::thread_options::ThreadOptions;
use crate::os::guard::guard;
use crate::os::interleave;
use crate::os::log::errno_field;
use crate::os::pair::pair;
use crate::os::poller::{self, Event, Poller};
use crate::os::process;
use crate::os::shortage;
use crate::request::core::Core;
use crate::request::job::{Job, Rejected};
use crate::request::serve::Progress;

/// How long an idle worker waits before it exits, if there are more than configured.
const IDLE_LIFETIME: Duration = Duration::from_secs(5);

/// How often the monitor checks whether all workers are blocked in handlers.
const TICK: Duration = Duration::from_millis(2);

/// After so many ticks without work the monitor sleeps.
const IDLE_TICKS: u32 = 50;

/// How soon adding listeners to the poller is tried again after an error.
const OPEN_RETRY: Duration = Duration::from_millis(100);

/// Keys of events that do not belong to a connection.
const WAKER: u64 = u64::MAX;
const LISTENERS: u64 = u64::MAX - 1;

/// Serves requests in a few threads. Connections between two requests wait in epoll(7) or kqueue,
/// without a thread and without a buffer. Unix only.
///
/// Python has no such mixin in `socketserver`, and handlers for `selectors` and `asyncio` are
/// written in another way. Here handlers are the same as for other models, and may block: if all
/// workers are blocked, others are started, up to [`max_workers`](Self::max_workers). A connection
/// gives its thread back when `handle` serves one request and sets `cx.close_connection` to false.
/// A handler that loops over all requests of its connection occupies its thread.
///
/// `handle` is first called when the client has sent something, unless the handler
/// [`SPEAKS_FIRST`](crate::StreamRequestHandler::SPEAKS_FIRST).
///
/// # Examples
///
/// A handler that serves one request and keeps the connection:
///
/// ```
/// use std::io::Write;
/// use sockserver::{SelectorTCPServer, handler_fn};
///
/// let server = SelectorTCPServer::new(("127.0.0.1", 0), handler_fn(|cx| {
///     let line = cx.rfile.readline(1000)?;
///     cx.close_connection = line.is_empty();
///     cx.wfile.write_all(&line)
/// }))?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// # let _running = sockserver::testing::serve(server);
/// // Another thread runs `server.serve_forever()` now.
/// for _ in 0..2 {
///     client.sendall(b"hello\n")?;
///     assert_eq!(client.recv(100)?, b"hello\n");
/// }
/// # std::io::Result::Ok(())
/// ```
pub struct SelectorMixIn {
    workers: usize,
    max_workers: usize,
    pub(super) options: ThreadOptions,
    /// Held to read or replace the pointer.
    shared: Mutex<Option<Arc<Shared>>>,
}

impl Default for SelectorMixIn {
    fn default() -> SelectorMixIn {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        SelectorMixIn {
            workers,
            max_workers: 512,
            options: ThreadOptions::default(),
            shared: Mutex::new(None),
        }
    }
}

impl SelectorMixIn {
    /// Creates as many workers as the processors that this process may use, and up to 512 if they are
    /// blocked.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{SelectorMixIn, SelectorTCPServer, handler_fn};
    ///
    /// let server = SelectorTCPServer::builder(handler_fn(|cx| cx.request.sendall(&cx.request.recv(100)?)))
    ///     .mixin(SelectorMixIn::new())
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// client.sendall(b"hello")?;
    /// # let _running = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now.
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> SelectorMixIn {
        SelectorMixIn::default()
    }

    /// Sets how many threads serve requests while no handler blocks, up to 32,768. 0 counts as 1.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{SelectorMixIn, SelectorTCPServer, handler_fn};
    ///
    /// let server = SelectorTCPServer::builder(handler_fn(|cx| cx.request.sendall(&cx.request.recv(100)?)))
    ///     .mixin(SelectorMixIn::new().workers(2))
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// client.sendall(b"hello")?;
    /// # let _running = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now.
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn workers(mut self, workers: usize) -> SelectorMixIn {
        self.workers = workers.max(1);
        self
    }

    /// Sets how many threads there may be if handlers block, up to 32,768. Default 512.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{SelectorMixIn, SelectorTCPServer, handler_fn};
    ///
    /// let server = SelectorTCPServer::builder(handler_fn(|cx| cx.request.sendall(&cx.request.recv(100)?)))
    ///     .mixin(SelectorMixIn::new().workers(2).max_workers(64))
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// client.sendall(b"hello")?;
    /// # let _running = sockserver::testing::serve(server);
    /// // Another thread runs `server.serve_forever()` now.
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn max_workers(mut self, max_workers: usize) -> SelectorMixIn {
        self.max_workers = max_workers.max(1);
        self
    }

    /// Returns how many connections wait without a thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{SelectorTCPServer, handler_fn};
    ///
    /// let server = SelectorTCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// assert_eq!(server.mixin().idle_connections(), 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        let shared = self.shared.lock().clone();
        shared.map_or(0, |shared| shared.work.lock().idle_slab.len())
    }
}

impl fmt::Debug for SelectorMixIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelectorMixIn")
            .field("workers", &self.workers)
            .field("max_workers", &self.max_workers)
            .field("parked", &self.idle_connections())
            .finish()
    }
}

impl MixIn for SelectorMixIn {
    /// For `handle_request`, which has no workers.
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        job.run();
        Ok(())
    }

    fn check_options(&self) -> io::Result<()> {
        ranges::check("workers", self.workers, &ranges::WORKERS)?;
        ranges::check("max_workers", self.max_workers, &ranges::WORKERS)?;
        self.options.check()
    }

    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        self.check_options()?;
        process::preallocate_fd_table(accept_loop.core().registry().limits().max_connections);
        let shared = self.start(accept_loop.core())?;
        // The threads have the server's registry, which has the gauges.
        let observed = Arc::downgrade(&shared);
        gauges::set_thread_gauges(&accept_loop.core().handle, move || {
            observed.upgrade().map_or_else(ThreadStats::default, |shared| shared.thread_stats())
        });
        shared.open(accept_loop.new_acceptor())?;
        let limit = shared.is_exclusive.then_some(SHARED_POLL_INTERVAL);
        let mut attempted = Instant::now();
        let served = loop {
            match accept_loop.wait_without_accepting(&[], limit) {
                // A request has ended: there may be a permit, or a descriptor.
                Ok(true) => {
                    shared.resume_accepting();
                    let is_due = limit.is_some_and(|limit| attempted.elapsed() >= limit);
                    // A drain has accepted clients, for which the poller has no event. Or the process
                    // that was woken for a client did not accept it.
                    if is_due || accept_loop.core().registry().is_draining() {
                        attempted = Instant::now();
                        shared.wake_for_queue();
                    }
                }
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
            if let Some(error) = shared.work.lock().failed.take() {
                break Err(error);
            }
        };
        shared.close();
        served
    }

    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        let Some(shared) = self.shared.lock().take() else {
            return Ok(());
        };
        let parked = {
            let parking = &mut shared.work.lock().idle_slab;
            parking.close();
            parking.take_all()
        };
        for job in parked {
            job.close_idle();
        }
        let all_done = server.wait_until_idle();
        shared.stop();
        // The monitor may have started another worker in the meantime.
        loop {
            let threads = std::mem::take(&mut shared.work.lock().threads);
            if threads.is_empty() {
                return Ok(());
            }
            for thread in threads {
                let own = thread.thread().id() == thread::current().id();
                if !own && (all_done || thread.is_finished()) {
                    let _ = thread.join();
                }
            }
        }
    }
}

impl SelectorMixIn {
    /// Starts the workers, unless they run. They outlive a loop, as connections do.
    fn start(&self, core: &Core) -> io::Result<Arc<Shared>> {
        let running = self.shared.lock().clone();
        if let Some(shared) = running {
            return Ok(shared);
        }
        // A server has one loop at a time, so no other thread starts workers meanwhile.
        let shared = Arc::new(Shared::new(self, core)?);
        let started = (0..self.workers).try_for_each(|_| shared.start_worker());
        if let Err(error) = started.and_then(|()| shared.start_monitor()) {
            // End the threads that could be started.
            shared.stop();
            return Err(error);
        }
        *self.shared.lock() = Some(Arc::clone(&shared));
        Ok(shared)
    }
}

/// The state that the workers share.
struct Shared {
    poller: Poller,
    /// A worker locks it once for each event. Under it the tables of [`Work`] are read and changed,
    /// and nothing else: no system call, no log line, no job is served or dropped. The lock of the
    /// gate may be held, and never the other way round.
    work: Mutex<Work>,
    /// Idle workers wait here.
    idle: Condvar,
    /// Open while the server serves. One worker at a time accepts.
    gate: AcceptGate,
    /// Held to unpark the thread, which does not block.
    monitor: Mutex<Option<thread::Thread>>,
    stopped: AtomicBool,
    waker: Waker,
    workers: usize,
    max_workers: usize,
    options: ThreadOptions,
    registry: Arc<Registry>,
    /// This is a worker process, and its siblings wait for the same clients.
    is_exclusive: bool,
}

#[derive(Default)]
struct Work {
    /// Events that no worker has taken.
    events: VecDeque<Event>,
    /// Counts the events that workers have taken. If it does not grow, all workers are blocked.
    completed_events: u64,
    idle_slab: IdleSlab,
    /// A worker waits in the poller. Then no event is queued unless a worker is about to take it: the
    /// event would stay there while all other workers are in handlers.
    polling: bool,
    /// The monitor sleeps until a wait in the poller is over.
    monitor_sleeps: bool,
    /// Notifications that idle workers have not received yet, for the interleaving checker.
    #[cfg(test)]
    notified: usize,
    /// The number of idle workers.
    idle: usize,
    /// The number of workers.
    count: usize,
    threads: Vec<JoinHandle<()>>,
    /// All listeners are closed or broken.
    failed: Option<io::Error>,
    /// Nothing is accepted until then, or if there is no time, until a request ends.
    accept_paused_until: Option<Option<Instant>>,
}

/// Ends the wait in the poller.
struct Waker {
    ours: Socket,
    theirs: Socket,
}

impl Waker {
    fn wake(&self) {
        // Another error while both ends are open is a full buffer, and then wake-ups are pending.
        let _ = shortage::retry(|| self.theirs.send(b"!"));
    }

    fn drain(&self) {
        let mut bytes = [0; 64];
        while matches!(self.ours.recv_into(&mut bytes), Ok(64)) {}
    }
}

impl Shared {
    fn new(mixin: &SelectorMixIn, core: &Core) -> io::Result<Shared> {
        let (ours, theirs) = pair()?;
        ours.setblocking(false)?;
        theirs.setblocking(false)?;
        let poller = Poller::new()?;
        poller.add_level(ours.as_fd(), WAKER)?;
        Ok(Shared {
            poller,
            work: Mutex::default(),
            idle: Condvar::new(),
            gate: AcceptGate::closed(),
            monitor: Mutex::new(None),
            stopped: AtomicBool::new(false),
            waker: Waker { ours, theirs },
            workers: mixin.workers,
            max_workers: cmp::max(mixin.workers, mixin.max_workers),
            options: mixin.options.clone(),
            registry: Arc::clone(core.registry()),
            is_exclusive: core.handle.is_worker(),
        })
    }

    fn thread_stats(&self) -> ThreadStats {
        let work = self.work.lock();
        // One of those that serve nothing waits in the poller.
        let waiting = work.idle + usize::from(work.polling);
        ThreadStats {
            threads: work.count,
            busy: work.count.saturating_sub(waiting),
            parked: work.idle_slab.len(),
            ..ThreadStats::default()
        }
    }

    fn start_worker(self: &Arc<Self>) -> io::Result<()> {
        let shared = Arc::clone(self);
        let mut work = self.work.lock();
        let is_running = |thread: &JoinHandle<()>| !thread.is_finished();
        let threads = std::mem::take(&mut work.threads);
        let (running, finished): (Vec<_>, Vec<_>) = threads.into_iter().partition(is_running);
        work.threads = running;
        work.count += 1;
        drop(work);
        drop(finished);
        let run = move || keep_running(|| shared.run_worker());
        let worker = self.options.spawn(&self.registry, run);
        let mut work = self.work.lock();
        match worker {
            Ok(worker) => work.threads.push(worker),
            Err(error) => {
                work.count -= 1;
                return Err(error);
            }
        }
        Ok(())
    }

    fn start_monitor(self: &Arc<Self>) -> io::Result<()> {
        let shared = Arc::clone(self);
        let watch = thread::Builder::new()
            .name("sockserver-monitor".to_owned())
            .spawn(move || keep_running(|| shared.run_monitor()))?;
        *self.monitor.lock() = Some(watch.thread().clone());
        self.work.lock().threads.push(watch);
        Ok(())
    }

    /// Begins to accept.
    fn open(&self, acceptor: Acceptor) -> io::Result<()> {
        // The gate opens after this: an event for a client that waits already comes only once.
        self.gate.open(acceptor, |acceptor| {
            for listener in acceptor.listeners() {
                if let Err(error) = self.add_listener(listener) {
                    // The workers would get their events without an open gate.
                    self.remove_listeners(acceptor);
                    return Err(error);
                }
            }
            let mut work = self.work.lock();
            // Of the loop before.
            (work.accept_paused_until, work.failed) = (None, None);
            Ok(())
        })
    }

    /// Ends accepting.
    fn close(&self) {
        if let Some(acceptor) = self.gate.close() {
            self.remove_listeners(&acceptor);
        }
    }

    /// Adds a listener to the poller, or returns `AlreadyExists`. A client wakes one of the processes
    /// that wait for it. epoll(7) cannot re-arm such a listener, so it is level-triggered.
    fn add_listener(&self, listener: &Socket) -> io::Result<()> {
        match self.is_exclusive {
            true => self.poller.add_exclusive(listener.as_fd(), LISTENERS),
            false => self.poller.add_edge(listener.as_fd(), LISTENERS),
        }
    }

    fn remove_listeners(&self, acceptor: &Acceptor) {
        for listener in acceptor.listeners() {
            // It fails only for a listener that the poller does not have.
            let _ = self.poller.remove(listener.as_fd());
        }
    }

    /// Makes a worker take a client from the queue of a drain.
    fn wake_for_queue(&self) {
        let mut work = self.work.lock();
        work.events.push_back(Event { key: LISTENERS, hang_up: false });
        drop(work);
        self.waker.wake();
    }

    /// Begins to accept again after a pause. After an error the pause begins again, and ends with the
    /// next attempt.
    fn resume_accepting(&self) {
        if let Err(error) = self.try_to_resume() {
            log_limited!(
                error, LogKind::Accept(errno(&error)), errno = errno_field(&error);
                "cannot resume accepting: {error}"
            );
            // The wait in the poller must end with the new pause.
            self.waker.wake();
        }
    }

    fn try_to_resume(&self) -> io::Result<()> {
        let resume = |acceptor: Option<&Acceptor>| {
            if self.work.lock().accept_paused_until.take().is_none() {
                return Ok(());
            }
            for listener in acceptor.into_iter().flat_map(Acceptor::listeners) {
                match self.add_listener(listener) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        // It is tried again, or clients would wait without a limit.
                        self.work.lock().accept_paused_until = Some(Some(Instant::now() + OPEN_RETRY));
                        return Err(error);
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        self.gate.while_locked(resume)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // A worker that has not seen it yet is idle by now, and is woken.
        self.wake_idle(self.work.lock(), true);
        self.waker.wake();
        if let Some(watch) = &*self.monitor.lock() {
            watch.unpark();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Runs a worker: takes an event, or waits in the poller, or if another worker does that, waits to
    /// be woken.
    fn run_worker(&self) {
        sock::set_serving_thread(true);
        let mut received = Vec::with_capacity(64);
        let mut work = self.work.lock();
        while !self.is_stopped() {
            if let Some(event) = work.events.pop_front() {
                work.completed_events += 1;
                work = self.dispatch(event, work);
            } else if !work.polling {
                work.polling = true;
                let limit = work.limit();
                drop(work);
                work = self.poll(&mut received, limit);
            } else {
                let timed_out = self.wait_idle(&mut work);
                if timed_out && work.count > self.workers {
                    break;
                }
            }
        }
        work.count -= 1;
    }

    /// Waits in the poller, as the only worker, and queues the events.
    fn poll(&self, received: &mut Vec<Event>, limit: Option<Duration>) -> MutexGuard<'_, Work> {
        interleave::block_until(&|| limit.is_some() || self.poller.is_ready());
        let waited = poller::wait(&self.poller, received, limit);
        // Only here: a wake-up that another worker drained would be lost for the one that waits.
        // The reason for the wake-up is checked after this, with the lock held.
        received.retain(|event| {
            if event.key == WAKER {
                self.waker.drain();
            }
            event.key != WAKER
        });
        if waited.is_err() {
            let handle = self.gate.with_acceptor(|acceptor| acceptor.core().handle.clone());
            if let Some(handle) = handle {
                handle.waker().wake();
            }
        }
        interleave::yield_point();
        let mut work = self.work.lock();
        work.polling = false;
        work.events.extend(received.drain(..));
        let line = waited.as_ref().err().map(|error| (errno_field(error), error.to_string()));
        if let Err(error) = waited {
            work.failed.get_or_insert(error);
        }
        let wakes_watch = std::mem::take(&mut work.monitor_sleeps);
        let opens = work.pause_expired();
        if wakes_watch || opens || line.is_some() {
            drop(work);
            // Another worker waits in the poller by now.
            if let Some((errno, text)) = line {
                log::error!(errno = errno; "cannot wait for connections: {text}");
            }
            if wakes_watch {
                self.wake_monitor();
            }
            if opens {
                self.resume_accepting();
            }
            work = self.work.lock();
        }
        work
    }

    /// Waits to be woken for work. Returns whether the wait has timed out.
    fn wait_idle(&self, work: &mut MutexGuard<'_, Work>) -> bool {
        work.idle += 1;
        #[cfg(test)]
        if interleave::checker::is_checking() {
            let ready = || self.is_stopped() || self.work.lock().notified > 0;
            MutexGuard::unlocked(work, || interleave::block_until(&ready));
            work.notified = work.notified.saturating_sub(1);
            work.idle -= 1;
            return false;
        }
        let timed_out = self.idle.wait_for(work, IDLE_LIFETIME).timed_out();
        work.idle -= 1;
        timed_out
    }

    /// Wakes one idle worker, or all.
    fn wake_idle(&self, work: MutexGuard<'_, Work>, all: bool) {
        #[cfg(test)]
        let work = {
            let mut work = work;
            work.notified += usize::from(work.notified < work.idle);
            work
        };
        drop(work);
        if all {
            self.idle.notify_all();
        } else {
            self.idle.notify_one();
        }
    }

    fn dispatch<'a>(&'a self, event: Event, mut work: MutexGuard<'a, Work>) -> MutexGuard<'a, Work> {
        if event.key != LISTENERS {
            let Some((parked, job)) = work.idle_slab.take_for_event(event) else { return work };
            drop(work);
            return self.serve(job, Some(parked), event.hang_up);
        }
        drop(work);
        match self.accept_one() {
            Some(job) => self.serve(job, None, false),
            None => self.work.lock(),
        }
    }

    /// Accepts a request, to be served at once: usually its first bytes have arrived with it.
    /// Another worker handles further clients, or this one when it is done.
    fn accept_one(&self) -> Option<Job> {
        let remove = |listener: &Arc<Socket>| drop(self.poller.remove(listener.as_fd()));
        let mut failed = None;
        // The outcome is handled before another worker can make an attempt.
        let accepted = self.gate.attempt(&remove, |acceptor, attempt| {
            match attempt {
                Ok(Attempt::Taken(accepted)) => {
                    self.reschedule_listeners(acceptor);
                    return Some(accepted);
                }
                Ok(Attempt::WouldBlock | Attempt::Stopped) => {}
                Ok(Attempt::Pause(None)) => self.pause_accepting(acceptor, None),
                Ok(Attempt::Pause(Some(pause))) => {
                    acceptor.core().registry().permits.register_waiter();
                    self.pause_accepting(acceptor, Some(Instant::now() + pause));
                }
                Err(error) => {
                    self.remove_listeners(acceptor);
                    failed = self.work.lock().failed.replace(error);
                    acceptor.core().handle.waker().wake();
                }
            }
            None
        });
        // An error may have a destructor of the user.
        drop(failed);
        // The hooks are called when other workers can accept again.
        accepted.flatten().and_then(Accepted::admit)
    }

    /// Makes another worker look for further clients. The edge-triggered event was for all clients that
    /// waited, and this worker may block in its handler. If another worker waits in the poller, the
    /// listener is armed again, and the poller returns if there are clients. Otherwise the event is
    /// queued, and the next worker takes it before it waits.
    fn reschedule_listeners(&self, acceptor: &Acceptor) {
        let mut work = self.work.lock();
        if !work.polling {
            work.events.push_back(Event { key: LISTENERS, hang_up: false });
            return;
        }
        drop(work);
        if self.is_exclusive {
            // The poller returns again while there are clients.
            return;
        }
        for listener in acceptor.listeners() {
            // A change of a registration allocates nothing. It fails only for a listener that was
            // removed from the poller, which is added again later.
            let _ = self.poller.rearm_edge(listener.as_fd(), LISTENERS);
        }
    }

    /// Pauses accepting until then, or without a time until a request ends.
    fn pause_accepting(&self, acceptor: &Acceptor, until: Option<Instant>) {
        self.remove_listeners(acceptor);
        self.work.lock().accept_paused_until = Some(until);
        // A request may have ended in between, and its wake-up may be over.
        if until.is_none() && acceptor.core().registry().permits.available() {
            acceptor.core().handle.waker().wake();
        }
        // The wait in the poller must end with the pause.
        if until.is_some() {
            self.waker.wake();
        }
    }

    /// Serves a connection until it has no more input. Then the connection waits in the poller.
    fn serve(&self, mut job: Job, mut parked: Option<Key>, mut hang_up: bool) -> MutexGuard<'_, Work> {
        let mut is_new = parked.is_none();
        loop {
            match job.try_step() {
                Progress::Done => {
                    drop(job);
                    let mut work = self.work.lock();
                    if let Some(parked) = parked {
                        work.idle_slab.release(parked);
                    }
                    return work;
                }
                // More may have arrived than was read, and no event will come for it.
                Progress::Served if hang_up || job.connection().has_more() => continue,
                // Usually the end of a short connection has arrived with its request. Another receive
                // costs a tenth of adding the connection to the poller.
                Progress::Served if is_new => {
                    is_new = false;
                    continue;
                }
                Progress::Served => {}
                Progress::WouldBlock => hang_up = false,
            }
            let place = match parked.take() {
                Some(place) => place,
                None => match self.register(&job) {
                    Ok(place) => place,
                    Err(error) => {
                        Job::end_rejected(job.reject(error));
                        return self.work.lock();
                    }
                },
            };
            let mut work = self.work.lock();
            match work.idle_slab.insert(place, job) {
                InsertResult::Inserted => return work,
                InsertResult::EventPending(back, ended) => {
                    (parked, job) = (Some(place), back);
                    hang_up |= ended;
                }
                InsertResult::Closed(job) => {
                    drop(work);
                    job.close_idle();
                    return self.work.lock();
                }
            }
        }
    }

    fn register(&self, job: &Job) -> io::Result<Key> {
        let parked = self.work.lock().idle_slab.reserve()?;
        let connection = job.connection();
        // The stream may be the user's.
        let added = guard(|| match connection.stream() {
            Some(stream) => self.poller.add_edge(stream.socket().as_fd(), parked.as_u64()),
            None => Err(io::ErrorKind::NotConnected.into()),
        });
        let added = added.unwrap_or_else(|message| Err(io::Error::other(message)));
        if let Err(error) = added {
            self.work.lock().idle_slab.release(parked);
            return Err(error);
        }
        Ok(parked)
    }

    #[cold]
    fn wake_monitor(&self) {
        if let Some(watch) = &*self.monitor.lock() {
            watch.unpark();
        }
    }

    /// Checks at intervals whether workers still take events. If not, all are blocked in handlers, and
    /// another worker is needed. Waking another worker for every event would cost more than the event.
    fn run_monitor(self: &Arc<Self>) {
        let (mut seen, mut quiet) = (0, 0);
        while !self.is_stopped() {
            thread::park_timeout(TICK);
            let mut work = self.work.lock();
            let is_calm = work.polling && work.events.is_empty() && work.completed_events == seen;
            quiet = if is_calm { quiet + 1 } else { 0 };
            if quiet > IDLE_TICKS {
                // With the lock held: the worker in the poller sees it, however soon it returns.
                work.monitor_sleeps = true;
                drop(work);
                while self.work.lock().monitor_sleeps && !self.is_stopped() {
                    thread::park();
                }
                quiet = 0;
                continue;
            }
            if self.check_progress(work, &mut seen) {
                if let Err(error) = self.start_worker() {
                    if log_limit::check(LogKind::NoThread(sock::errno(&error)), Instant::now()).is_some() {
                        log::warn!(errno = errno_field(&error); "cannot start another worker: {error}");
                    }
                }
            }
        }
    }

    /// Wakes a worker if there is work that none has taken since the last check. Returns whether another
    /// worker has to be started.
    fn check_progress(&self, work: MutexGuard<'_, Work>, seen: &mut u64) -> bool {
        let is_stuck = work.completed_events == *seen && (!work.polling || !work.events.is_empty());
        let is_backlog = work.events.len() > 8 && work.count - work.idle < self.workers;
        *seen = work.completed_events;
        if !is_stuck && !is_backlog {
            return false;
        }
        if work.idle > 0 {
            self.wake_idle(work, false);
            return false;
        }
        work.count < self.max_workers
    }
}

impl Work {
    /// Returns how long the poller may wait.
    fn limit(&self) -> Option<Duration> {
        let until = self.accept_paused_until.flatten()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Returns whether a pause is over.
    fn pause_expired(&self) -> bool {
        self.accept_paused_until.flatten().is_some_and(|until| Instant::now() >= until)
    }
}
