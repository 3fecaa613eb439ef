//! Worker processes that are forked before the first client.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::{Address, AsFd, BorrowedFd, HoldRecords, MSG_DONTWAIT, Socket, ToDuration};

use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::{MixIn, Processes};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::registry::Registry;
use crate::lifecycle::scoreboard::Scoreboard;
use crate::lifecycle::state::ServerState;
use crate::limits::drain_report::{AbortedRequest, DrainReport};
use crate::limits::log_limit::{self, LogKind, log_limited};
use crate::limits::ranges;
use crate::models::prefork_crew::Crew;
use crate::models::prefork_worker::{self, MAX_UNKNOWN, NewWorker};
use crate::models::respawn::RespawnThrottle;
use crate::models::worker_class::{LEAVES, WorkerSettings};
use crate::models::worker_exit::EXIT_LIMIT;
use crate::os::exit_timer;
use crate::os::log::{errno_field, milliseconds};
use crate::os::pair::pair;
use crate::os::process::{self, Fork, Pid, WaitStatus};
use crate::os::shortage;
use crate::request::job::{Job, Rejected};

/// How long `serve_forever` waits until no worker accepts any more.
const LONGEST_STOP: Duration = Duration::from_secs(1);

/// How often the parent looks for workers that have exited without an end of file on their control
/// sockets, because a process that they started still holds the other end.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// How long a stuck worker has between SIGABRT and SIGKILL.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// How much longer the parent waits for the reports of workers that run.
const LATE_REPORT: Duration = Duration::from_secs(1);

/// Serves requests in processes that are forked before the first client. Unix only.
///
/// Python has no such mixin; its users run gunicorn or Apache. Each worker accepts and serves one
/// client at a time, or several with another [`worker_class`](Self::worker_class). A worker that dies
/// is replaced, after an exponential pause if it was young, and only its own clients are lost. A worker that is stuck is killed: see
/// [`heartbeat`](Self::heartbeat). When the parent is killed, the workers finish their requests and
/// exit.
///
/// The mixin forks only while the process has no other thread, so start none before serving. Open
/// what processes cannot share, such as a connection to a database, in
/// [`start_worker`](crate::ServerHooks::start_worker), and write out what a worker has buffered in
/// [`worker_exit`](crate::ServerHooks::worker_exit).
///
/// With [`drain_on_signals`](crate::Builder::drain_on_signals) a worker that receives SIGTERM finishes
/// its request and is replaced. SIGINT has no effect on a worker, because a terminal sends it to the
/// parent too.
///
/// A worker with one connection at a time and one listener waits for clients in accept(2). Its control
/// thread interrupts it with `SIGURG`, for which the worker installs a handler.
///
/// # Platform notes
///
/// As for [`ForkingMixIn`](crate::ForkingMixIn): the number of threads is checked on Linux only.
///
/// # Examples
///
/// ```
/// use sockserver::{PreforkMixIn, PreforkTCPServer, handler_fn};
///
/// let server = PreforkTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
///     .mixin(PreforkMixIn::new().workers(2).max_requests(1000, 100))
/// #     .poll_interval(std::time::Duration::from_millis(10))
/// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
///     .bind(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.serve_forever()?;
/// assert_eq!(client.recv(100)?, b"hello");
/// # std::io::Result::Ok(())
/// ```
pub struct PreforkMixIn {
    workers: usize,
    max_requests: Option<u64>,
    jitter: u64,
    heartbeat: Duration,
    /// Why the heartbeat is invalid. `bind` returns it.
    invalid_heartbeat: Option<String>,
    pub(super) settings: WorkerSettings,
    /// Under it the scoreboard is read and written, and wait(2) with `WNOHANG`, kill(2), and recv(2)
    /// with `MSG_DONTWAIT` are called. Their records follow when it is released. Nothing else is logged.
    /// Control sockets are written to in a signal handler only, which tries to lock, and none is closed.
    pub(super) worker_set: Mutex<WorkerSet>,
}

/// The workers, and the counters of those that have exited.
#[derive(Default)]
pub(super) struct WorkerSet {
    pub(super) workers: Vec<Option<WorkerHandle>>,
    /// A drain has begun.
    is_draining: bool,
    /// Workers that have exited since the drain began. Their control sockets may hold a report.
    exited_in_drain: Vec<ExitedWorker>,
    board: Option<Arc<Scoreboard>>,
    /// The process that has started the workers, 0 if there are none.
    parent: u32,
}

struct ExitedWorker {
    control: Arc<Socket>,
    /// So many clients of the accept queue it has served.
    served_queued: usize,
}

pub(super) struct WorkerHandle {
    pub(super) pid: Pid,
    /// It serves so many clients that a drain has accepted, and exits.
    serves_queued: usize,
    pub(super) born: Instant,
    /// The worker has the other end, and no other process. It reads end of file when the worker exits.
    pub(super) control: Arc<Socket>,
    /// When it was sent SIGABRT because it is stuck.
    aborted: Option<Instant>,
    /// It is not counted any more: another one takes its place, or there are fewer from now on.
    pub(super) leaves: bool,
    /// It was sent the command to abort its last requests, because its place is needed.
    pub(super) is_hurried: bool,
    /// Its line was received that it accepts nothing any more.
    pub(super) has_announced: bool,
}

impl Default for PreforkMixIn {
    fn default() -> PreforkMixIn {
        PreforkMixIn {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            max_requests: None,
            jitter: 0,
            heartbeat: Duration::from_secs(30),
            invalid_heartbeat: None,
            settings: WorkerSettings::new(),
            worker_set: Mutex::default(),
        }
    }
}

impl PreforkMixIn {
    /// Creates as many workers as the processors that this process may use.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{PreforkMixIn, PreforkTCPServer, handler_fn};
    ///
    /// let server = PreforkTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(PreforkMixIn::new())
    /// #     .poll_interval(std::time::Duration::from_millis(10))
    /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> PreforkMixIn {
        PreforkMixIn::default()
    }

    /// Sets how many processes serve requests, up to 32,768. 0 counts as 1.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{PreforkMixIn, PreforkTCPServer, handler_fn};
    ///
    /// let server = PreforkTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(PreforkMixIn::new().workers(2))
    /// #     .poll_interval(std::time::Duration::from_millis(10))
    /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn workers(mut self, workers: usize) -> PreforkMixIn {
        self.workers = workers.max(1);
        self
    }

    /// Sets how many requests a worker serves before it is replaced, which bounds memory leaks. Each
    /// call of `handle` counts, also on a persistent connection. After the last one the worker stops
    /// accepting, and its handlers read the state [`Draining`](crate::ServerState::Draining). Idle
    /// connections stay open for the time of [`lame_duck`](crate::Builder::lame_duck), at least for 1 s, and
    /// are closed after their next answer. Then the worker exits. A connection without a request counts as
    /// one. Up to
    /// `jitter` more are added at random, so that the workers are not replaced all at once. Default: no
    /// limit. Each number may be half of `u64::MAX` at most.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{PreforkMixIn, PreforkTCPServer, handler_fn};
    ///
    /// // Each worker exits after 1000 to 1100 requests, and a new one takes its place.
    /// let server = PreforkTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(PreforkMixIn::new().workers(1).max_requests(1000, 100))
    /// #     .poll_interval(std::time::Duration::from_millis(10))
    /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn max_requests(mut self, max_requests: u64, jitter: u64) -> PreforkMixIn {
        self.max_requests = Some(max_requests.max(1));
        self.jitter = jitter;
        self
    }

    /// Sets how long a worker may send no heartbeat, for example because it was stopped, before it is
    /// killed. A worker whose handler does not return after
    /// [`request_timeout`](crate::Builder::request_timeout) is killed within the same time, and so is
    /// one whose [`start_worker`](crate::ServerHooks::start_worker) does not return. A long connection
    /// is no reason. Default 30 s. Less than 30 ms counts as 30 ms, and `bind` refuses zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{PreforkMixIn, PreforkTCPServer, handler_fn};
    ///
    /// let server = PreforkTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(PreforkMixIn::new().workers(1).heartbeat(10))
    /// #     .poll_interval(Duration::from_millis(10))
    /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: impl ToDuration) -> PreforkMixIn {
        match heartbeat.to_duration() {
            Ok(heartbeat) => {
                self.heartbeat = heartbeat.max(Duration::from_millis(30));
                self.invalid_heartbeat = heartbeat.is_zero().then(|| "must not be zero".to_owned());
            }
            Err(error) => self.invalid_heartbeat = Some(error.to_string()),
        }
        self
    }

    /// Returns the process ids of the workers.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{PreforkTCPServer, handler_fn};
    ///
    /// let server = PreforkTCPServer::builder(handler_fn(|_| Ok(()))).workers(2).bind(("127.0.0.1", 0))?;
    /// // The workers are started by `serve_forever`.
    /// assert!(server.mixin().worker_pids().is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn worker_pids(&self) -> Vec<i32> {
        self.worker_set.lock().workers.iter().flatten().map(|worker| worker.pid).collect()
    }

    fn quota(&self) -> Option<u64> {
        // Different in each process and for each worker: std seeds it so.
        let random = RandomState::new().hash_one(std::process::id());
        self.max_requests.map(|most| most + random % (self.jitter + 1))
    }

    /// Forgets the workers of the parent, if this process was forked after the parent had started
    /// them. They are not stopped, and their control sockets stay open in the parent.
    fn forget_inherited(&self) {
        let mut worker_set = self.worker_set.lock();
        if worker_set.parent != std::process::id() {
            let inherited = std::mem::take(&mut *worker_set);
            drop(worker_set);
            drop(inherited);
        }
    }

    /// Returns the memory that the workers share with this process.
    fn board(&self, registry: &Registry, workers: usize) -> io::Result<Arc<Scoreboard>> {
        let board = registry.share_stats(workers)?;
        self.forget_inherited();
        let mut worker_set = self.worker_set.lock();
        worker_set.parent = std::process::id();
        worker_set.workers.resize_with(workers, || None);
        worker_set.board = Some(Arc::clone(&board));
        Ok(board)
    }

    /// Starts a worker in a free place.
    fn start(
        &self,
        place: usize,
        board: &Arc<Scoreboard>,
        accept_loop: &AcceptLoop<'_>,
    ) -> io::Result<Pid> {
        // Buffered output would be written by both processes.
        let _ = io::stdout().flush();
        let quota = self.quota();
        let handle = &accept_loop.core().handle;
        let (control, theirs) = pair()?;
        // Made before the fork: it counts the worker as alive from now on.
        let slot = board.slot(place);
        let next = || handle.registry().is_draining().then(|| handle.next_queued()).flatten();
        let clients: Vec<_> = std::iter::from_fn(next).take(self.settings.most_queued()).collect();
        let serves_queued = clients.len();
        let forked = match process::fork() {
            Ok(forked) => forked,
            Err(error) => {
                // The next attempt, or another worker, serves them.
                handle.queue().put_back(clients);
                return Err(error);
            }
        };
        match forked {
            Fork::Parent(pid) => {
                log::debug!(pid = pid; "worker {pid} started");
                if handle.state() == ServerState::LameDuck {
                    let _ = shortage::retry(|| control.sendall(b"lame\n"));
                }
                let worker = WorkerHandle {
                    pid,
                    serves_queued,
                    born: Instant::now(),
                    control: Arc::new(control),
                    aborted: None,
                    leaves: false,
                    is_hurried: false,
                    has_announced: false,
                };
                self.worker_set.lock().workers[place] = Some(worker);
                Ok(pid)
            }
            Fork::Child => {
                // With copies of the parent's ends here, the other workers would not read end
                // of file when the parent dies.
                drop(control);
                handle.queue().close();
                handle.duties().enter_child();
                let others = std::mem::take(&mut self.worker_set.lock().workers);
                drop(others);
                let worker = NewWorker {
                    control: theirs,
                    slot,
                    quota,
                    heartbeat: self.heartbeat,
                    clients,
                    settings: &self.settings,
                };
                prefork_worker::run(accept_loop, board, worker)
            }
        }
    }

    /// Reaps workers that have exited, and returns their exit statuses.
    fn collect(&self) -> Vec<(WorkerHandle, WaitStatus, bool)> {
        let mut worker_set = self.worker_set.lock();
        let Some(board) = worker_set.board.clone() else { return Vec::new() };
        let (mut ended, mut exited) = (Vec::new(), Vec::new());
        for (place, slot) in worker_set.workers.iter_mut().enumerate() {
            let Some(worker) = slot else { continue };
            match process::wait_child(worker.pid) {
                WaitStatus::Running => {}
                waited => {
                    let status = board.exit_status(place).filter(|_| waited == WaitStatus::Gone);
                    let waited = status.map_or(waited, WaitStatus::Exited);
                    // The client that it served is lost, and counted.
                    let started = board.retire(place);
                    exited.push(ExitedWorker {
                        control: Arc::clone(&worker.control),
                        served_queued: if waited == WaitStatus::Exited(0) {
                            worker.serves_queued
                        } else {
                            0
                        },
                    });
                    ended.extend(slot.take().map(|worker| (worker, waited, started)));
                }
            }
        }
        if worker_set.is_draining {
            worker_set.exited_in_drain.append(&mut exited);
        }
        ended
    }

    /// Returns whether a worker can serve.
    fn has_started(&self, board: &Scoreboard) -> bool {
        let worker_set = self.worker_set.lock();
        worker_set
            .workers
            .iter()
            .enumerate()
            .any(|(place, worker)| worker.is_some() && board.has_started(place))
    }

    /// Kills workers whose last heartbeat is too old.
    fn kill_stuck(&self, board: &Scoreboard, resumed: Instant) {
        let mut stuck = Vec::new();
        for (place, slot) in self.worker_set.lock().workers.iter_mut().enumerate() {
            let Some(worker) = slot else { continue };
            match worker.aborted {
                Some(aborted) if aborted.elapsed() >= ABORT_GRACE => process::kill(worker.pid),
                Some(_) => {}
                None => {
                    // The hook `worker_exit` has a limit of its own, which a stopped process exceeds.
                    let more = if board.is_exiting(place) { EXIT_LIMIT } else { Duration::ZERO };
                    let limit = self.heartbeat.saturating_add(more);
                    if let Some(silence) = board.stuck_for(place, limit, resumed) {
                        worker.aborted = Some(Instant::now());
                        process::abort(worker.pid);
                        stuck.push((worker.pid, silence));
                    }
                }
            }
        }
        for (pid, silence) in stuck {
            log_limited!(
                error,
                LogKind::Stuck,
                pid = pid, elapsed_ms = milliseconds(silence);
                "worker {pid} sent no heartbeat for {silence:.1?}; sending SIGKILL"
            );
        }
    }

    /// Receives the lines of workers that accept nothing any more. Others may take their places.
    fn note_leaving(&self, board: &Scoreboard) {
        if !self.settings.serves_many() {
            return;
        }
        let _held = HoldRecords::begin();
        let mut worker_set = self.worker_set.lock();
        for (place, slot) in worker_set.workers.iter_mut().enumerate() {
            let Some(worker) = slot.as_mut().filter(|worker| !worker.has_announced) else { continue };
            // The line is sent before this is set.
            if board.has_stopped(place) {
                let line = worker.control.recv_with_flags(LEAVES.len(), MSG_DONTWAIT);
                worker.has_announced = line.is_ok();
                worker.leaves = true;
            }
        }
    }

    pub(super) fn controls(&self) -> Vec<Arc<Socket>> {
        self.worker_set.lock().workers.iter().flatten().map(|worker| Arc::clone(&worker.control)).collect()
    }

    /// Returns the control sockets of workers whose next line is read, and of those whose end only is
    /// waited for. A report of a drain stays in the socket while the hook `worker_exit` runs.
    fn watched(&self) -> (Vec<Arc<Socket>>, Vec<Arc<Socket>>) {
        let worker_set = self.worker_set.lock();
        let reads = |worker: &&WorkerHandle| self.settings.serves_many() && !worker.has_announced;
        let (read, others): (Vec<_>, Vec<_>) = worker_set.workers.iter().flatten().partition(reads);
        let controls = |workers: Vec<&WorkerHandle>| {
            workers.into_iter().map(|worker| Arc::clone(&worker.control)).collect()
        };
        (controls(read), controls(others))
    }

    fn all_exited(&self) -> bool {
        self.collect();
        self.worker_set.lock().workers.iter().all(Option::is_none)
    }

    fn wait_until_exited(&self, limit: Option<Duration>, hurry: &dyn Fn() -> bool) -> bool {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        while !self.all_exited() {
            if until.is_some_and(|until| Instant::now() >= until) || hurry() {
                return false;
            }
            let _ = sock::poll(&mut [], Some(Duration::from_millis(5)));
        }
        true
    }

    /// Waits until no worker accepts any more. A worker that was stopped by a signal is not waited for.
    fn wait_until_stopped(&self, board: &Scoreboard) {
        let until = Instant::now() + LONGEST_STOP;
        let accepts = || {
            self.collect();
            let worker_set = self.worker_set.lock();
            let mut places = worker_set.workers.iter().enumerate();
            places.any(|(place, worker)| worker.is_some() && !board.has_stopped(place))
        };
        while accepts() && Instant::now() < until {
            let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
        }
    }

    fn kill_all(&self) {
        for worker in self.worker_set.lock().workers.iter().flatten() {
            process::kill(worker.pid);
        }
    }
}

fn descriptors(controls: &[Arc<Socket>]) -> Vec<BorrowedFd<'_>> {
    controls.iter().map(|control| control.as_fd()).collect()
}

impl MixIn for PreforkMixIn {
    /// For `handle_request`, which has no workers.
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        job.run();
        Ok(())
    }

    fn check_options(&self) -> io::Result<()> {
        ranges::check("workers", self.workers, &ranges::WORKERS)?;
        if let Some(sentence) = &self.invalid_heartbeat {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("heartbeat: {sentence}")));
        }
        ranges::check("jitter of max_requests", self.jitter, &ranges::JITTER)?;
        self.settings.check()?;
        self.max_requests.map_or(Ok(()), |most| ranges::check("max_requests", most, &ranges::REQUESTS))
    }

    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        self.check_options()?;
        process::require_single_threaded()?;
        let registry = Arc::clone(accept_loop.core().registry());
        // Each serves one request at a time, or one at least.
        let workers = self.workers.min(registry.limits().max_connections);
        let serves_many = self.settings.serves_many();
        let most_workers = if serves_many { usize::MAX } else { registry.limits().max_connections };
        let mut crew = Crew::new(workers, most_workers, accept_loop.worker_signals().is_some());
        let board = self.board(&registry, crew.places)?;
        if serves_many && registry.limits().max_connections_per_ip.is_some() {
            let connections = registry.limits().max_connections.min(process::max_descriptors());
            board.count_addresses(connections)?;
        }
        log_limit::share_with_workers()?;
        if !serves_many {
            prefork_worker::set_blocking_accept(accept_loop, true)?;
        }
        let mut throttle = RespawnThrottle::default();
        let handle = &accept_loop.core().handle;
        let (mut is_draining, mut is_lame) = (false, false);
        self.worker_set.lock().is_draining = false;
        let (mut turn, mut resumed) = (Instant::now(), Instant::now());
        let served = loop {
            // A turn takes a third of `heartbeat` at most. After a longer one this process itself was
            // not running, and probably its workers neither: each has a new period.
            if turn.elapsed() / 2 > self.heartbeat / 3 {
                let elapsed = turn.elapsed();
                log::warn!(
                    elapsed_ms = milliseconds(elapsed);
                    "begin a new heartbeat period of the workers: this process did not run for {elapsed:.1?}"
                );
                resumed = Instant::now();
            }
            turn = Instant::now();
            if !is_lame && handle.state() == ServerState::LameDuck {
                is_lame = true;
                self.send_to_all("lame\n");
            }
            if registry.is_draining() && !is_draining {
                // The clients that the drain has accepted are served in the places that become free.
                // The workers close idle connections at once, so that these do not hold places.
                is_draining = true;
                self.worker_set.lock().is_draining = true;
                match handle.queue().remaining() {
                    Some(limit) => self.send_drain(Some(limit), Duration::ZERO),
                    None => self.send_to_all("stop\n"),
                }
            }
            let ended = self.collect();
            let others_serve = self.has_started(&board);
            self.note_leaving(&board);
            let noted: io::Result<()> = ended.into_iter().try_for_each(|(worker, waited, started)| {
                throttle.note(&worker, waited, started, others_serve, Instant::now())
            });
            if noted.is_err() {
                break noted;
            }
            // Workers that drain send no heartbeats, and end within the limit of the drain. A signal
            // handler makes them drain before the loop does, if the loop was in a hook for too long.
            let workers_drain = self.worker_set.lock().is_draining;
            if !workers_drain {
                self.kill_stuck(&board, resumed);
                self.manage(&mut crew, &board, accept_loop);
                self.free_a_place(&board);
            }
            throttle.look(&board, Instant::now());
            if throttle.wait(Instant::now()).is_none() {
                let free = self.worker_set.lock().free_place(crew.target);
                throttle.probing &= free.is_some();
                if let Some(place) = free.filter(|_| !workers_drain || handle.queue().is_open()) {
                    match self.start(place, &board, accept_loop) {
                        Ok(pid) => throttle.started(place, pid, Instant::now()),
                        Err(error) => {
                            log_limited!(
                                error, LogKind::NotForked, errno = errno_field(&error);
                                "cannot fork a worker: {error}"
                            );
                            // If one cannot be forked, the other missing ones cannot either.
                            throttle.probing = true;
                            throttle.back_off(Instant::now());
                        }
                    }
                    continue;
                }
            }
            let (watch, ends) = self.watched();
            let limit = throttle
                .wait(Instant::now())
                .into_iter()
                .chain([self.heartbeat / 3, REAP_INTERVAL, crew.pause()])
                .min();
            match accept_loop.wait_for_processes(&descriptors(&watch), &descriptors(&ends), limit) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // They finish their requests within the time that the close or the drain allows.
        if !is_draining {
            self.send_to_all("stop\n");
            // The next loop does not count them.
            self.worker_set.lock().workers.iter_mut().flatten().for_each(|worker| worker.leaves = true);
        }
        // A drain on a signal shuts the listener down, without waiting for workers that do not respond.
        if !accept_loop.signal_received() {
            self.wait_until_stopped(&board);
        }
        served.and(prefork_worker::set_blocking_accept(accept_loop, false))
    }

    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        self.forget_inherited();
        self.send_drain(server.close_timeout(), Duration::ZERO);
        // Each has the same time to abort its requests and to exit.
        let limit = server.close_timeout().map(|limit| limit.saturating_add(prefork_worker::GRACE));
        if !self.wait_until_exited(limit, &|| false) {
            log::warn!(count = self.worker_pids().len(); "kill the workers: they do not exit");
            self.kill_all();
            self.wait_until_exited(Some(ABORT_GRACE), &|| false);
        }
        Ok(())
    }

    fn forks(&self) -> bool {
        true
    }

    fn processes(&self) -> Option<&dyn Processes> {
        Some(self)
    }
}

impl Processes for PreforkMixIn {
    fn is_ready(&self) -> bool {
        let board = self.worker_set.lock().board.clone();
        let Some(board) = board else { return false };
        let worker_set = self.worker_set.lock();
        // Those of the last loop may be serving their last requests.
        let mut places = worker_set.workers.iter().enumerate();
        places.any(|(place, worker)| {
            worker.is_some() && board.has_started(place) && !board.has_stopped(place)
        })
    }

    fn drain_workers(
        &self,
        limit: Duration,
        idle_grace: Duration,
        hurry: &dyn Fn() -> bool,
    ) -> Option<DrainReport> {
        let begin = Instant::now();
        self.forget_inherited();
        let mut controls = self.controls();
        self.send_drain(Some(limit), idle_grace);
        // Each has the same time to abort its requests and to report that.
        let mut in_time = self.wait_until_exited(Some(limit.saturating_add(prefork_worker::GRACE)), hurry);
        if !in_time && !hurry() {
            // On a busy machine a report comes late. A worker that is stopped sends none.
            let are_stopped = || self.worker_pids().into_iter().all(process::is_stopped);
            in_time = self.wait_until_exited(Some(LATE_REPORT), &|| hurry() || are_stopped());
        }
        if !in_time && hurry() {
            self.send_to_all("hurry\n");
            in_time = self.wait_until_exited(Some(prefork_worker::GRACE), &|| false);
        }
        let mut report = DrainReport::default();
        let exited = std::mem::take(&mut self.worker_set.lock().exited_in_drain);
        for ExitedWorker { control, .. } in &exited {
            if !controls.iter().any(|known| Arc::ptr_eq(known, control)) {
                controls.push(Arc::clone(control));
            }
        }
        let silent: Vec<_> =
            controls.iter().filter(|control| !prefork_worker::read_report(control, &mut report)).collect();
        // A worker that exited before the command of the drain has no report.
        let is_silent = |worker: &&ExitedWorker| silent.iter().any(|one| Arc::ptr_eq(one, &worker.control));
        let served = exited.iter().filter(is_silent).map(|worker| worker.served_queued as u64);
        report.finished = served.fold(report.finished, u64::saturating_add);
        if !in_time {
            // The scoreboard has the client of a worker that can no longer report it.
            let worker_set = self.worker_set.lock();
            let places = worker_set.workers.iter().enumerate().filter(|(_, worker)| {
                worker.as_ref().is_some_and(|worker| {
                    silent.iter().any(|control| Arc::ptr_eq(control, &worker.control))
                })
            });
            for (place, _) in places {
                let Some(board) = &worker_set.board else { continue };
                if self.settings.serves_many() {
                    // It has several clients, and only their number is known.
                    let unknown = AbortedRequest { client_address: Address::None, age: Duration::ZERO };
                    let left = board.in_flight(place).min(MAX_UNKNOWN);
                    report.aborted.extend(std::iter::repeat_n(unknown, left));
                } else if let Some((client_address, age)) = board.client(place) {
                    report.aborted.push(AbortedRequest { client_address, age });
                }
            }
            drop(worker_set);
            self.kill_all();
            self.wait_until_exited(Some(ABORT_GRACE), &|| false);
        }
        report.elapsed = begin.elapsed();
        Some(report)
    }

    fn drain_in_signal_handler(&self, limit: Duration) {
        let Some(mut worker_set) = self.worker_set.try_lock() else { return };
        // Those that exit from now on belong to the report of the drain, and are not replaced.
        worker_set.is_draining = true;
        let mut command = [0; prefork_worker::MAX_COMMAND];
        let command = prefork_worker::encode_drain(&mut command, limit);
        for worker in worker_set.workers.iter().flatten() {
            exit_timer::send_to_child(&*worker.control, command);
        }
    }

    fn end_in_signal_handler(&self) -> bool {
        let Some(worker_set) = self.worker_set.try_lock() else { return false };
        let workers = worker_set.workers.iter().flatten();
        for worker in workers.clone() {
            // The worker may be draining already, with another limit.
            exit_timer::send_to_child(&*worker.control, b"drain 0\nhurry\n");
        }
        exit_timer::end_children(workers.map(|worker| worker.pid), prefork_worker::GRACE + LATE_REPORT);
        true
    }
}

impl fmt::Debug for PreforkMixIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreforkMixIn")
            .field("workers", &self.workers)
            .field("worker_class", &self.settings.class)
            .field("max_requests", &self.max_requests)
            .field("heartbeat", &self.heartbeat)
            .field("worker_pids", &self.worker_pids())
            .finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::models) fn worker(pid: Pid) -> WorkerHandle {
        let (control, _) = pair().unwrap();
        WorkerHandle {
            pid,
            serves_queued: 0,
            born: Instant::now(),
            control: Arc::new(control),
            aborted: None,
            leaves: false,
            is_hurried: false,
            has_announced: false,
        }
    }

    fn hurried(squad: &mut WorkerSet) -> Option<Pid> {
        squad.worker_to_hurry(|_| 1).map(|(pid, _)| pid)
    }

    #[test]
    fn the_oldest_worker_is_hurried_when_all_leave_and_no_place_is_free() {
        let now = Instant::now();
        let leaving = |pid, age| WorkerHandle {
            leaves: true,
            born: now.checked_sub(Duration::from_secs(age)).unwrap(),
            ..worker(pid)
        };
        let workers = vec![Some(leaving(1, 0)), Some(leaving(2, 1)), None];
        let mut squad = WorkerSet { workers, ..WorkerSet::default() };
        assert_eq!(hurried(&mut squad), None, "a place is free");
        squad.workers[2] = Some(worker(3));
        assert_eq!(hurried(&mut squad), None, "another worker accepts");
        squad.workers[2] = Some(leaving(3, 0));
        let exits = squad.worker_to_hurry(|place| usize::from(place != 2));
        assert!(exits.is_none(), "a worker without a connection exits");
        assert_eq!(hurried(&mut squad), Some(2));
        assert_eq!(hurried(&mut squad), None, "it exits soon");
        squad.workers[1] = Some(leaving(4, 0));
        assert!(hurried(&mut squad).is_some());
    }

    /// A worker with corrupted memory can report any numbers.
    #[test]
    fn the_sum_of_a_drain_report_does_not_overflow() {
        let (mixin, largest, silent) = (PreforkMixIn::new(), pair().unwrap(), pair().unwrap());
        largest.1.sendall(b"18446744073709551615 0 0 0\n").unwrap();
        mixin.worker_set.lock().parent = std::process::id();
        for (control, served_queued) in [(largest.0, 0), (silent.0, 3)] {
            let exited = ExitedWorker { control: Arc::new(control), served_queued };
            mixin.worker_set.lock().exited_in_drain.push(exited);
        }
        assert_eq!(
            mixin.drain_workers(Duration::ZERO, Duration::ZERO, &|| false).unwrap().finished,
            u64::MAX
        );
    }
}
