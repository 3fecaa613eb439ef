//! Connections between requests wait in a selector, without a thread.

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
use sock::{AsFd, Socket, socketpair};

use crate::accept::acceptor::{Accepted, Acceptor};
use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::MixIn;
use crate::lifecycle::current_server::AcceptingThread;
use crate::lifecycle::handle::ServerHandle;
use crate::models::idle_slab::{IdleSlab, InsertResult, Key};
use crate::os::interleave;
use crate::os::poller::{self, Event, Poller};
use crate::os::process;
use crate::request::job::{Job, Rejected};
use crate::request::log_limit::{self, LogKind};
use crate::request::serve::Progress;

/// How long a worker that has nothing to do stays, when there are more than wanted.
const IDLE_LIFETIME: Duration = Duration::from_secs(5);

/// How often somebody looks whether all workers are stuck in their handlers.
const TICK: Duration = Duration::from_millis(2);

/// How long that goes on after the last request.
const IDLE_TICKS: u32 = 50;

/// How soon listeners that could not be entered in the poller are tried again.
const OPEN_RETRY: Duration = Duration::from_millis(100);

/// Keys of what is no connection.
const WAKER: u64 = u64::MAX;
const LISTENERS: u64 = u64::MAX - 1;

/// Serves requests in a few threads; connections between two requests wait in
/// epoll(7), or kqueue, and hold no thread and no buffer.
///
/// Python has nothing like it in `socketserver`; in `selectors` and `asyncio` the
/// handler has to be written for it. Here it is a handler like any other, and may
/// block: workers that are stuck in their handlers are joined by others, up to
/// [`max_workers`](Self::max_workers). A handler gains by it when it serves one
/// request and sets `cx.close_connection` to false; one that loops over all
/// requests of its connection holds its thread for as long as the loop.
///
/// `handle` is first called when the client has sent something, unless the handler
/// [`SPEAKS_FIRST`](crate::StreamRequestHandler::SPEAKS_FIRST). Unix only.
pub struct SelectorMixIn {
    workers: usize,
    max_workers: usize,
    shared: Mutex<Option<Arc<Shared>>>,
}

impl Default for SelectorMixIn {
    fn default() -> SelectorMixIn {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        SelectorMixIn { workers, max_workers: 512, shared: Mutex::new(None) }
    }
}

impl SelectorMixIn {
    /// As many workers as processors this process may use, and up to 512 when they
    /// are stuck.
    #[must_use]
    pub fn new() -> SelectorMixIn {
        SelectorMixIn::default()
    }

    /// How many requests are to run at once while none of them blocks.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> SelectorMixIn {
        self.workers = workers.max(1);
        self
    }

    /// How many threads there may be when handlers block.
    #[must_use]
    pub fn max_workers(mut self, max_workers: usize) -> SelectorMixIn {
        self.max_workers = max_workers.max(1);
        self
    }

    /// How many connections wait without a thread at the moment.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        self.shared.lock().as_ref().map_or(0, |shared| shared.work.lock().idle_slab.len())
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

    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        process::preallocate_fd_table(accept_loop.acceptor().core().registry().limits().max_connections);
        let shared = self.start()?;
        shared.open(accept_loop.acceptor().clone_for_thread())?;
        let served = loop {
            match accept_loop.wait_without_accepting(&[], None) {
                // Somebody has gone: there may be room, or a descriptor.
                Ok(true) => shared.resume_accepting()?,
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
        let threads = std::mem::take(&mut shared.work.lock().threads);
        for thread in threads {
            let own = thread.thread().id() == thread::current().id();
            if !own && (all_done || thread.is_finished()) {
                let _ = thread.join();
            }
        }
        Ok(())
    }
}

impl SelectorMixIn {
    /// The workers, which go on from one loop to the next: connections outlive it.
    fn start(&self) -> io::Result<Arc<Shared>> {
        let mut running = self.shared.lock();
        if let Some(shared) = &*running {
            return Ok(Arc::clone(shared));
        }
        let shared = Arc::new(Shared::new(self.workers, self.max_workers)?);
        let started = (0..self.workers).try_for_each(|_| shared.start_worker());
        if let Err(error) = started.and_then(|()| shared.start_monitor()) {
            // Those that could be started have nobody else to end them.
            shared.stop();
            return Err(error);
        }
        *running = Some(Arc::clone(&shared));
        Ok(shared)
    }
}

/// What the workers share.
struct Shared {
    poller: Poller,
    /// One lock for all: a worker takes it once a turn.
    work: Mutex<Work>,
    /// A worker that sits here is woken for work.
    idle: Condvar,
    /// The acceptor, while the server serves; one worker at a time stands at it.
    acceptor: Mutex<Option<Acceptor>>,
    monitor: Mutex<Option<thread::Thread>>,
    stopped: AtomicBool,
    waker: Waker,
    workers: usize,
    max_workers: usize,
}

#[derive(Default)]
struct Work {
    /// Events nobody has taken up yet.
    events: VecDeque<Event>,
    /// Grows with every event that is taken up: if it does not, all are stuck.
    completed_events: u64,
    idle_slab: IdleSlab,
    /// A worker waits in the poller. Then no event is queued that no worker is about to take
    /// up: whoever is in a handler would leave it there for as long.
    polling: bool,
    /// The watch sleeps until a wait in the poller is over.
    monitor_sleeps: bool,
    /// What a worker that sits has to wait for, where every order is checked.
    #[cfg(test)]
    notified: usize,
    /// Workers that wait for work.
    idle: usize,
    /// Workers there are.
    count: usize,
    threads: Vec<JoinHandle<()>>,
    /// The listeners are of no more use.
    failed: Option<io::Error>,
    /// Nothing is accepted until then, or until somebody has gone.
    accept_paused_until: Option<Option<Instant>>,
}

/// Ends the wait in the poller.
struct Waker {
    ours: Socket,
    theirs: Socket,
}

impl Waker {
    fn wake(&self) {
        let _ = self.theirs.send(b"!");
    }

    fn drain(&self) {
        let mut bytes = [0; 64];
        while matches!(self.ours.recv_into(&mut bytes), Ok(64)) {}
    }
}

impl Shared {
    fn new(workers: usize, max_workers: usize) -> io::Result<Shared> {
        let (ours, theirs) = socketpair()?;
        ours.setblocking(false)?;
        theirs.setblocking(false)?;
        let poller = Poller::new()?;
        poller.add_level(ours.as_fd(), WAKER)?;
        Ok(Shared {
            poller,
            work: Mutex::default(),
            idle: Condvar::new(),
            acceptor: Mutex::new(None),
            monitor: Mutex::new(None),
            stopped: AtomicBool::new(false),
            waker: Waker { ours, theirs },
            workers,
            max_workers: cmp::max(workers, max_workers),
        })
    }

    fn start_worker(self: &Arc<Self>) -> io::Result<()> {
        let shared = Arc::clone(self);
        let mut work = self.work.lock();
        work.threads.retain(|thread| !thread.is_finished());
        let worker =
            thread::Builder::new().name("sockserver".to_owned()).spawn(move || shared.run_worker())?;
        work.count += 1;
        work.threads.push(worker);
        Ok(())
    }

    fn start_monitor(self: &Arc<Self>) -> io::Result<()> {
        let shared = Arc::clone(self);
        let watch = thread::Builder::new()
            .name("sockserver-monitor".to_owned())
            .spawn(move || shared.run_monitor())?;
        *self.monitor.lock() = Some(watch.thread().clone());
        self.work.lock().threads.push(watch);
        Ok(())
    }

    /// Lets requests in.
    fn open(&self, acceptor: Acceptor) -> io::Result<()> {
        // Locked until the acceptor is there: a client that waits already is told of once.
        let mut open = interleave::lock(&self.acceptor);
        for listener in acceptor.listeners() {
            self.poller.add_edge(listener.as_fd(), LISTENERS)?;
        }
        let mut work = self.work.lock();
        // Of the loop before.
        (work.accept_paused_until, work.failed) = (None, None);
        drop(work);
        *open = Some(acceptor);
        Ok(())
    }

    /// Lets no more in.
    fn close(&self) {
        let acceptor = interleave::lock(&self.acceptor).take();
        if let Some(acceptor) = acceptor {
            self.remove_listeners(&acceptor);
        }
    }

    fn remove_listeners(&self, acceptor: &Acceptor) {
        for listener in acceptor.listeners() {
            let _ = self.poller.remove(listener.as_fd());
        }
    }

    /// Lets requests in again, if they were shut out for a while.
    fn resume_accepting(&self) -> io::Result<()> {
        let acceptor = interleave::lock(&self.acceptor);
        if self.work.lock().accept_paused_until.take().is_none() {
            return Ok(());
        }
        for listener in acceptor.iter().flat_map(Acceptor::listeners) {
            match self.poller.add_edge(listener.as_fd(), LISTENERS) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    // It is tried again, or clients would wait for ever.
                    self.work.lock().accept_paused_until = Some(Some(Instant::now() + OPEN_RETRY));
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // A worker that has not seen it yet sits by now, and is woken.
        self.wake_idle(self.work.lock(), true);
        self.waker.wake();
        if let Some(watch) = &*self.monitor.lock() {
            watch.unpark();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The life of a worker: take up an event; if there is none, wait in the poller;
    /// if somebody waits there, sit down.
    fn run_worker(&self) {
        let mut told = Vec::with_capacity(64);
        let mut work = self.work.lock();
        while !self.is_stopped() {
            if let Some(event) = work.events.pop_front() {
                work.completed_events += 1;
                work = self.dispatch(event, work);
            } else if !work.polling {
                work.polling = true;
                let limit = work.limit();
                drop(work);
                work = self.poll(&mut told, limit);
            } else {
                let timed_out = self.wait_idle(&mut work);
                if timed_out && work.count > self.workers {
                    break;
                }
            }
        }
        work.count -= 1;
    }

    /// Waits in the poller, where no other worker is, and queues what has come.
    fn poll(&self, told: &mut Vec<Event>, limit: Option<Duration>) -> MutexGuard<'_, Work> {
        interleave::block_until(&|| limit.is_some() || self.poller.is_ready());
        let waited = poller::wait(&self.poller, told, limit);
        // Here and nowhere else: a wake-up that another worker takes would be lost to the
        // one that waits. What it is for is looked at after this, under the lock.
        told.retain(|event| {
            if event.key == WAKER {
                self.waker.drain();
            }
            event.key != WAKER
        });
        if let Err(error) = &waited {
            log::error!("waiting for connections: {error}");
            if let Some(acceptor) = &*interleave::lock(&self.acceptor) {
                acceptor.core().handle.waker().wake();
            }
        }
        interleave::yield_point();
        let mut work = self.work.lock();
        work.polling = false;
        work.events.extend(told.drain(..));
        if let Err(error) = waited {
            work.failed.get_or_insert(error);
        }
        let wakes_watch = std::mem::take(&mut work.monitor_sleeps);
        let opens = work.pause_expired();
        if wakes_watch || opens {
            drop(work);
            if wakes_watch {
                self.wake_monitor();
            }
            if opens {
                let _ = self.resume_accepting();
            }
            work = self.work.lock();
        }
        work
    }

    /// Waits to be woken for work. Returns whether none has come for long.
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

    /// Wakes a worker that sits, or all.
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

    /// Accepts a request, to be served at once: mostly what it asks has come with it.
    /// Whether there are more, another worker sees, or this one when it is done.
    fn accept_one(&self) -> Option<Job> {
        let acceptor = interleave::lock(&self.acceptor);
        let open = acceptor.as_ref().filter(|open| !open.is_stopping())?;
        let core = open.core();
        let accepting = core.has_hooks.then(|| AcceptingThread::begin(core.registry()));
        let accepted = open.accept();
        drop(accepting);
        match accepted {
            Ok(Accepted::Job(job)) => {
                self.reschedule_listeners(open);
                return Some(job);
            }
            // This worker takes up the next event itself.
            Ok(Accepted::ServedInline | Accepted::Refused | Accepted::Retry) => {
                self.work.lock().events.push_back(Event { key: LISTENERS, hang_up: false });
            }
            Ok(Accepted::WouldBlock) => {}
            Ok(Accepted::AtCapacity) => self.pause_accepting(open, None),
            Ok(Accepted::Backoff(pause)) => {
                open.core().registry().permits.register_waiter();
                self.pause_accepting(open, Some(Instant::now() + pause));
            }
            Err(error) => {
                self.remove_listeners(open);
                self.work.lock().failed = Some(error);
                open.core().handle.waker().wake();
            }
        }
        None
    }

    /// An event tells of the first client that waits: for the next ones somebody has to
    /// look, and not this worker, which may stay in its handler. While another worker waits
    /// in the poller it is the poller that tells again, if there are some; otherwise the
    /// event is queued, and whoever has nothing to do takes it up before it waits.
    fn reschedule_listeners(&self, acceptor: &Acceptor) {
        let mut work = self.work.lock();
        if !work.polling {
            work.events.push_back(Event { key: LISTENERS, hang_up: false });
            return;
        }
        drop(work);
        for listener in acceptor.listeners() {
            // One that has been taken out of the poller is entered again later.
            let _ = self.poller.rearm_edge(listener.as_fd(), LISTENERS);
        }
    }

    /// Lets clients wait in the listeners' queues until then, or until somebody goes.
    fn pause_accepting(&self, acceptor: &Acceptor, until: Option<Instant>) {
        self.remove_listeners(acceptor);
        self.work.lock().accept_paused_until = Some(until);
        // Somebody may have gone in between, and the wake-up be over already.
        if until.is_none() && acceptor.has_permits() {
            acceptor.core().handle.waker().wake();
        }
        // The poller's wait has to know of the end of the pause.
        if until.is_some() {
            self.waker.wake();
        }
    }

    /// Serves a connection until it has no more input, then parks it.
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
                // More may have come than was read, and no event will tell of it.
                Progress::Served if hang_up || job.connection().has_more() => continue,
                // Mostly the end of a short conversation has come with its request: to look
                // once more costs a tenth of what it costs to enter it in the poller.
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
        let added = match connection.stream() {
            Some(stream) => self.poller.add_edge(stream.socket().as_fd(), parked.as_u64()),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
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

    /// Looks now and then whether anybody still takes up work: if not, all are
    /// stuck in their handlers, and one more is needed. To wake one more worker for
    /// every event would cost more than the event.
    fn run_monitor(self: &Arc<Self>) {
        let (mut seen, mut quiet) = (0, 0);
        while !self.is_stopped() {
            thread::park_timeout(TICK);
            let mut work = self.work.lock();
            let is_calm = work.polling && work.events.is_empty() && work.completed_events == seen;
            quiet = if is_calm { quiet + 1 } else { 0 };
            if quiet > IDLE_TICKS {
                // Under the lock: the worker in the poller sees it, however soon it returns.
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
                        log::warn!("no more workers: {error}");
                    }
                }
            }
        }
    }

    /// Wakes a worker if there is work that none has taken up since the last look. Returns
    /// whether there is none that could be woken.
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
    /// How long the poller may wait.
    fn limit(&self) -> Option<Duration> {
        let until = self.accept_paused_until.flatten()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Whether a pause is over.
    fn pause_expired(&self) -> bool {
        self.accept_paused_until.flatten().is_some_and(|until| Instant::now() >= until)
    }
}
