//! Worker processes that are forked before the first client.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::{AsFd, Socket, socketpair};

use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::{MixIn, Processes};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::scoreboard::Scoreboard;
use crate::limits::drain_report::{AbortedRequest, DrainReport};
use crate::models::prefork_worker::{self, LISTENER_GONE};
use crate::os::process::{self, Fork, Pid, WaitStatus};
use crate::request::job::{Job, Rejected};
use crate::request::log_limit::{LogKind, log_limited};

/// A worker that exits sooner than this counts as one that failed to start.
const MIN_UPTIME: Duration = Duration::from_secs(1);

/// Pause before a worker that failed is replaced; it doubles up to [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1);

/// How many workers may fail to start in a row.
const MAX_FAILED_STARTS: u32 = 10;

/// How long `serve_forever` waits until no worker accepts any more.
const LONGEST_STOP: Duration = Duration::from_secs(1);

/// How long a stuck worker has between SIGABRT and SIGKILL.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Serves requests in processes that are forked before the first client. Unix only.
///
/// Python has no such mixin; its users run gunicorn or Apache. Each worker accepts and serves one
/// client at a time. A worker that dies is replaced, after an exponential pause if it was young, and
/// only its own client is lost. A worker that is stuck is killed: see
/// [`heartbeat`](Self::heartbeat). When the parent is killed, the workers finish their requests and
/// exit.
///
/// The mixin forks only while the process has no other thread, so start none before serving. Open
/// what processes cannot share, such as a connection to a database, in
/// [`start_worker`](crate::ServerHooks::start_worker).
///
/// A worker with one listener waits for clients in accept(2). Its control thread interrupts it with
/// `SIGURG`, for which the worker installs a handler.
///
/// # Platform notes
///
/// As for [`ForkingMixIn`](crate::ForkingMixIn): the number of threads is checked on Linux only.
pub struct PreforkMixIn {
    workers: usize,
    max_requests: Option<u64>,
    jitter: u64,
    heartbeat: Duration,
    squad: Mutex<Workers>,
}

/// The workers, and the counters of those that have exited.
#[derive(Default)]
struct Workers {
    workers: Vec<Option<WorkerHandle>>,
    board: Option<Arc<Scoreboard>>,
}

struct WorkerHandle {
    pid: Pid,
    born: Instant,
    /// The worker has the other end, and no other process. It reads end of file when the worker exits.
    control: Arc<Socket>,
    /// When it was sent SIGABRT because it is stuck.
    aborted: Option<Instant>,
}

impl Default for PreforkMixIn {
    fn default() -> PreforkMixIn {
        PreforkMixIn {
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            max_requests: None,
            jitter: 0,
            heartbeat: Duration::from_secs(30),
            squad: Mutex::default(),
        }
    }
}

impl PreforkMixIn {
    /// Creates as many workers as the processors that this process may use.
    #[must_use]
    pub fn new() -> PreforkMixIn {
        PreforkMixIn::default()
    }

    /// Sets how many processes serve requests. 0 counts as 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> PreforkMixIn {
        self.workers = workers.max(1);
        self
    }

    /// Sets how many requests a worker serves before it is replaced, which bounds memory leaks. Up to
    /// `jitter` more are added at random, so that the workers are not replaced all at once. Default: no
    /// limit.
    #[must_use]
    pub fn max_requests(mut self, max_requests: u64, jitter: u64) -> PreforkMixIn {
        self.max_requests = Some(max_requests.max(1));
        self.jitter = jitter;
        self
    }

    /// Sets how long a worker may send no heartbeat, for example because it was stopped, before it is
    /// killed. A worker whose handler does not return after
    /// [`request_timeout`](crate::Builder::request_timeout) is killed within the same time. A long
    /// connection is no reason. Default 30 s.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> PreforkMixIn {
        self.heartbeat = heartbeat.max(Duration::from_millis(30));
        self
    }

    /// Returns the process ids of the workers.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<i32> {
        self.squad.lock().workers.iter().flatten().map(|worker| worker.pid).collect()
    }

    fn quota(&self) -> Option<u64> {
        // Different in each process and for each worker: std seeds it so.
        let random = RandomState::new().hash_one(std::process::id());
        self.max_requests.map(|most| most + random % (self.jitter + 1))
    }

    fn board(&self, workers: usize) -> io::Result<Arc<Scoreboard>> {
        let mut squad = self.squad.lock();
        squad.workers.resize_with(workers, || None);
        if squad.board.is_none() {
            squad.board = Some(Arc::new(Scoreboard::new(workers)?));
        }
        squad.board.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
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
        let (control, theirs) = socketpair()?;
        // Made before the fork: it counts the worker as alive from now on.
        let slot = board.slot(place);
        match process::fork()? {
            Fork::Parent(pid) => {
                log::debug!("worker {pid} started");
                let worker =
                    WorkerHandle { pid, born: Instant::now(), control: Arc::new(control), aborted: None };
                self.squad.lock().workers[place] = Some(worker);
                Ok(pid)
            }
            Fork::Child => {
                // With copies of the parent's ends here, the other workers would not read end
                // of file when the parent dies.
                drop(control);
                self.squad.lock().workers.clear();
                let ran = panic::catch_unwind(AssertUnwindSafe(|| {
                    prefork_worker::run(accept_loop, theirs, slot, quota, self.heartbeat)
                }));
                let _ = io::stdout().flush();
                process::_exit(ran.unwrap_or(101))
            }
        }
    }

    /// Reaps workers that have exited, and returns their exit statuses.
    fn collect(&self) -> Vec<(WorkerHandle, WaitStatus, bool)> {
        let mut squad = self.squad.lock();
        let Some(board) = squad.board.clone() else { return Vec::new() };
        let mut ended = Vec::new();
        for (place, slot) in squad.workers.iter_mut().enumerate() {
            let Some(worker) = slot else { continue };
            match process::wait_child(worker.pid) {
                WaitStatus::Running => {}
                waited => {
                    // The client that it served is lost, and counted.
                    let started = board.retire(place);
                    ended.extend(slot.take().map(|worker| (worker, waited, started)));
                }
            }
        }
        ended
    }

    /// Returns whether a worker can serve.
    fn has_started(&self, board: &Scoreboard) -> bool {
        let squad = self.squad.lock();
        squad.workers.iter().enumerate().any(|(place, worker)| worker.is_some() && board.has_started(place))
    }

    /// Kills workers whose last heartbeat is too old.
    fn kill_stuck(&self, board: &Scoreboard) {
        for (place, slot) in self.squad.lock().workers.iter_mut().enumerate() {
            let Some(worker) = slot else { continue };
            match worker.aborted {
                Some(aborted) if aborted.elapsed() >= ABORT_GRACE => process::kill(worker.pid),
                Some(_) => {}
                None => {
                    if let Some(silence) = board.stuck_for(place, self.heartbeat) {
                        log_limited!(
                            error,
                            LogKind::Stuck,
                            "worker {} sent no heartbeat for {silence:.1?}; sending SIGKILL",
                            worker.pid
                        );
                        worker.aborted = Some(Instant::now());
                        process::abort(worker.pid);
                    }
                }
            }
        }
    }

    fn controls(&self) -> Vec<Arc<Socket>> {
        self.squad.lock().workers.iter().flatten().map(|worker| Arc::clone(&worker.control)).collect()
    }

    /// Sends all workers the command to drain within `limit`.
    fn send_drain(&self, limit: Option<Duration>) {
        let limit = limit.map_or(u64::MAX, |limit| limit.as_millis() as u64);
        self.send_to_all(&format!("drain {limit}\n"));
    }

    fn send_to_all(&self, command: &str) {
        for control in self.controls() {
            // A worker that has exited needs no command.
            let _ = control.sendall(command.as_bytes());
        }
    }

    fn all_exited(&self) -> bool {
        self.collect();
        self.squad.lock().workers.iter().all(Option::is_none)
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
            let squad = self.squad.lock();
            let mut places = squad.workers.iter().enumerate();
            places.any(|(place, worker)| worker.is_some() && !board.has_stopped(place))
        };
        while accepts() && Instant::now() < until {
            let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
        }
    }

    fn kill_all(&self) {
        for worker in self.squad.lock().workers.iter().flatten() {
            process::kill(worker.pid);
        }
    }
}

/// Decides when the next worker is started after one has exited.
#[derive(Default)]
struct RespawnThrottle {
    pause: Duration,
    not_before: Option<Instant>,
    /// Failed starts in a row.
    in_a_row: u32,
    /// A start has failed, and not all places are taken since: one worker at a time is started.
    probing: bool,
    /// The last attempt of that kind, while it is under way.
    attempt: Option<Probe>,
}

/// A start whose outcome is not known, and how long the next start waits for it.
struct Probe {
    place: usize,
    pid: Pid,
    until: Instant,
}

impl RespawnThrottle {
    /// Records an exit at `now`. Returns an error if no worker can start and none is left.
    fn note(
        &mut self,
        worker: &WorkerHandle,
        waited: WaitStatus,
        started: bool,
        others_serve: bool,
        now: Instant,
    ) -> io::Result<()> {
        let (kind, how) = match waited {
            WaitStatus::Exited(0) => {
                *self = RespawnThrottle { probing: self.probing, ..RespawnThrottle::default() };
                return Ok(());
            }
            WaitStatus::Exited(LISTENER_GONE) => {
                return Err(io::Error::other("no listener can accept any more"));
            }
            WaitStatus::Exited(status) => (LogKind::Exited(status), format!("exited with status {status}")),
            WaitStatus::Killed(signal) => {
                (LogKind::Killed(signal), format!("was killed by signal {signal}"))
            }
            _ => (LogKind::Exited(-1), "was reaped by other code".to_owned()),
        };
        log_limited!(error, kind, "worker {} {how}", worker.pid);
        if now.saturating_duration_since(worker.born) >= MIN_UPTIME {
            *self = RespawnThrottle { probing: self.probing, ..RespawnThrottle::default() };
            return Ok(());
        }
        // Workers that exit together count once.
        let attempted = self.attempt.take_if(|attempt| attempt.pid == worker.pid).is_some();
        if self.wait(now).is_some() && !attempted {
            return Ok(());
        }
        self.back_off(now);
        // If a worker that had started is killed from outside, the next one can start too.
        if started {
            self.in_a_row = 0;
        } else {
            self.in_a_row += 1;
            self.probing = true;
            // While other workers serve, the server goes on.
            if self.in_a_row >= MAX_FAILED_STARTS && !others_serve {
                let sentence =
                    format!("workers cannot start: {MAX_FAILED_STARTS} in a row failed, the last {how}");
                return Err(io::Error::other(sentence));
            }
        }
        Ok(())
    }

    /// Records a start at `now`.
    fn started(&mut self, place: usize, pid: Pid, now: Instant) {
        if self.probing {
            self.attempt = Some(Probe { place, pid, until: now + MAX_DELAY });
            self.not_before = Some(now + self.pause.max(FIRST_DELAY));
        }
    }

    /// Checks whether the last start has succeeded. Then the next one need not wait long. Until that is
    /// known there is no next one: on a busy machine a start takes longer than its pause.
    fn look(&mut self, board: &Scoreboard, now: Instant) {
        let Some(attempt) = &self.attempt else { return };
        if board.has_started(attempt.place) {
            *self = RespawnThrottle { probing: true, ..RespawnThrottle::default() };
        } else if self.wait(now).is_none() && now < attempt.until {
            self.not_before = Some(now + FIRST_DELAY);
        }
    }

    fn back_off(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(FIRST_DELAY, MAX_DELAY);
        self.not_before = Some(now + self.pause);
    }

    /// Returns how long to wait from `now` to the next start, if at all.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.not_before?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

impl MixIn for PreforkMixIn {
    /// For `handle_request`, which has no workers.
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        job.run();
        Ok(())
    }

    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        process::require_single_threaded()?;
        let registry = Arc::clone(accept_loop.core().registry());
        // Each serves one request at a time.
        let workers = self.workers.min(registry.limits().max_connections);
        let board = self.board(workers)?;
        registry.set_worker_scoreboard(Arc::clone(&board));
        prefork_worker::set_blocking_accept(accept_loop, true)?;
        let mut pace = RespawnThrottle::default();
        let served = loop {
            let ended = self.collect();
            let others_serve = self.has_started(&board);
            let noted: io::Result<()> = ended.into_iter().try_for_each(|(worker, waited, started)| {
                pace.note(&worker, waited, started, others_serve, Instant::now())
            });
            if noted.is_err() {
                break noted;
            }
            self.kill_stuck(&board);
            pace.look(&board, Instant::now());
            if pace.wait(Instant::now()).is_none() {
                let free = self.squad.lock().workers.iter().position(Option::is_none);
                pace.probing &= free.is_some();
                if let Some(place) = free {
                    match self.start(place, &board, accept_loop) {
                        Ok(pid) => pace.started(place, pid, Instant::now()),
                        Err(error) => {
                            log_limited!(error, LogKind::NotForked, "cannot fork a worker: {error}");
                            // If one cannot be forked, the other missing ones cannot either.
                            pace.probing = true;
                            pace.back_off(Instant::now());
                        }
                    }
                    continue;
                }
            }
            let controls = self.controls();
            let watch: Vec<_> = controls.iter().map(|control| control.as_fd()).collect();
            let limit = pace.wait(Instant::now()).into_iter().chain([self.heartbeat / 3]).min();
            match accept_loop.wait_without_accepting(&watch, limit) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // They finish their requests within the time that the close or the drain allows.
        self.send_to_all("stop\n");
        // A drain on a signal shuts the listener down, and does not wait for workers that do not
        // respond.
        if !accept_loop.signal_received() {
            self.wait_until_stopped(&board);
        }
        served.and(prefork_worker::set_blocking_accept(accept_loop, false))
    }

    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        self.send_drain(server.close_timeout());
        if !self.wait_until_exited(server.close_timeout(), &|| false) {
            log::warn!("workers do not leave: killing them");
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
    fn drain_workers(&self, limit: Duration, hurry: &dyn Fn() -> bool) -> Option<DrainReport> {
        let begin = Instant::now();
        let controls = self.controls();
        self.send_drain(Some(limit));
        // Each has the same time to abort its requests and to report that.
        let mut in_time = self.wait_until_exited(Some(limit + prefork_worker::GRACE), hurry);
        if !in_time && hurry() {
            self.send_to_all("hurry\n");
            in_time = self.wait_until_exited(Some(prefork_worker::GRACE), &|| false);
        }
        let mut report = DrainReport::default();
        let silent: Vec<_> =
            controls.iter().filter(|control| !prefork_worker::read_report(control, &mut report)).collect();
        if !in_time {
            // The scoreboard has the client of a worker that can no longer report it.
            let squad = self.squad.lock();
            let places = squad.workers.iter().enumerate().filter(|(_, worker)| {
                worker.as_ref().is_some_and(|worker| {
                    silent.iter().any(|control| Arc::ptr_eq(control, &worker.control))
                })
            });
            let clients = places.filter_map(|(place, _)| squad.board.as_ref()?.client(place));
            report
                .aborted
                .extend(clients.map(|(client_address, age)| AbortedRequest { client_address, age }));
            drop(squad);
            self.kill_all();
            self.wait_until_exited(Some(ABORT_GRACE), &|| false);
        }
        report.elapsed = begin.elapsed();
        Some(report)
    }
}

impl fmt::Debug for PreforkMixIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreforkMixIn")
            .field("workers", &self.workers)
            .field("max_requests", &self.max_requests)
            .field("heartbeat", &self.heartbeat)
            .field("worker_pids", &self.worker_pids())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(pid: Pid) -> WorkerHandle {
        let (control, _) = socketpair().unwrap();
        WorkerHandle { pid, born: Instant::now(), control: Arc::new(control), aborted: None }
    }

    fn fails(
        pace: &mut RespawnThrottle,
        pid: Pid,
        waited: WaitStatus,
        others_serve: bool,
        now: Instant,
    ) -> io::Result<()> {
        pace.note(&worker(pid), waited, false, others_serve, now)
    }

    #[test]
    fn workers_that_exit_together_count_as_one_failure() {
        let now = Instant::now();
        let mut pace = RespawnThrottle::default();
        for pid in 1..100 {
            pace.note(&worker(pid), WaitStatus::Killed(9), true, false, now).unwrap();
        }
        assert_eq!(pace.pause, FIRST_DELAY);
        assert!(!pace.probing, "they could start");
    }

    #[test]
    fn repeated_failed_starts_end_the_server_if_no_worker_serves() {
        for (waited, others_serve) in
            [(WaitStatus::Exited(1), false), (WaitStatus::Killed(6), false), (WaitStatus::Exited(1), true)]
        {
            let now = Instant::now();
            let mut pace = RespawnThrottle::default();
            let mut last = Ok(());
            for pid in 1..=MAX_FAILED_STARTS as Pid {
                last.unwrap();
                assert_eq!(pace.probing, pid > 1, "one at a time after the first");
                pace.started(0, pid, now);
                last = fails(&mut pace, pid, waited, others_serve, now);
            }
            assert_eq!(last.is_err(), !others_serve, "{waited:?} {last:?}");
            assert_eq!(pace.pause, MAX_DELAY);
        }
    }

    #[test]
    fn a_successful_start_ends_the_pauses_but_not_the_probing() {
        let board = Scoreboard::new(1).unwrap();
        let now = Instant::now();
        let mut pace = RespawnThrottle::default();
        fails(&mut pace, 1, WaitStatus::Exited(1), false, now).unwrap();
        pace.started(0, 2, now);
        pace.look(&board, now);
        assert_eq!(pace.in_a_row, 1, "it has not started yet");
        board.slot(0).start();
        pace.look(&board, now);
        assert!(pace.in_a_row == 0 && pace.wait(now).is_none() && pace.probing);
    }

    #[test]
    fn the_next_attempt_waits_for_one_that_outlasts_its_pause() {
        let board = Scoreboard::new(1).unwrap();
        let now = Instant::now();
        let mut pace = RespawnThrottle { probing: true, ..RespawnThrottle::default() };
        pace.started(0, 1, now);
        // Its pause is over, and its outcome is not known yet.
        pace.not_before = Some(now);
        pace.look(&board, now);
        assert!(pace.wait(now).is_some());
        // It is not waited for longer than that.
        pace.not_before = Some(now);
        pace.attempt.as_mut().unwrap().until = now;
        pace.look(&board, now);
        assert!(pace.wait(now).is_none());
    }
}
