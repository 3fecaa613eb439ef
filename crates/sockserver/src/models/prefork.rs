//! Processes that are there before their clients.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::{AsFd, Socket, socketpair};

use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::MixIn;
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::scoreboard::Scoreboard;
use crate::limits::drain_report::{AbortedRequest, DrainReport};
use crate::models::prefork_worker::{self, LISTENER_GONE};
use crate::os::process::{self, Fork, Pid, WaitStatus};
use crate::request::job::{Job, Rejected};
use crate::request::log_limit::{LogKind, log_limited};

/// A worker that ends sooner than this has not really started.
const MIN_UPTIME: Duration = Duration::from_secs(1);

/// Pause before a worker that failed is replaced; it doubles up to [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1);

/// How many workers may fail to start in a row.
const MAX_FAILED_STARTS: u32 = 10;

/// How long `serve_forever` waits for workers to say that they accept no more.
const LONGEST_STOP: Duration = Duration::from_secs(1);

/// How long a stuck worker has between SIGABRT and SIGKILL.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Serves requests in processes that are forked before the first client. Unix only.
///
/// Python has nothing like it; its users run gunicorn or Apache. The workers accept
/// by themselves, one client each at a time. One that dies takes its own client
/// along and is replaced, with a growing pause if it died young; one that is stuck
/// is killed: see [`heartbeat`](Self::heartbeat). When the parent is killed the
/// workers finish what they serve, and leave.
///
/// It forks only while no other thread runs in the process: start none before
/// serving. What must not be shared by processes, such as a connection to a
/// database, is to be opened in [`start_worker`](crate::ServerHooks::start_worker).
///
/// A worker that waits for a client is in accept(2); to call it out of there its own
/// thread for orders sends it `SIGURG`, whose handler is the worker's for that reason.
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

/// The workers there are, and what those before them have done.
#[derive(Default)]
struct Workers {
    workers: Vec<Option<WorkerHandle>>,
    board: Option<Arc<Scoreboard>>,
}

struct WorkerHandle {
    pid: Pid,
    born: Instant,
    /// Its other end is the worker's alone: it ends when the worker does.
    control: Arc<Socket>,
    /// When it was told to die for being stuck.
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
    /// As many workers as processors this process may use.
    #[must_use]
    pub fn new() -> PreforkMixIn {
        PreforkMixIn::default()
    }

    /// How many processes serve requests; 0 counts as 1.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> PreforkMixIn {
        self.workers = workers.max(1);
        self
    }

    /// How many requests a worker serves before it makes room for a new one, as a
    /// remedy for memory that leaks; `jitter` more at random, so that they do not
    /// all leave at once. Default: no limit.
    #[must_use]
    pub fn max_requests(mut self, max_requests: u64, jitter: u64) -> PreforkMixIn {
        self.max_requests = Some(max_requests.max(1));
        self.jitter = jitter;
        self
    }

    /// How long a worker may be silent. One that is, since it was stopped, is killed;
    /// so is one whose handler does not return after
    /// [`request_timeout`](crate::Builder::request_timeout), which is noticed within
    /// the same time. A long conversation is no silence. Default 30 s.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> PreforkMixIn {
        self.heartbeat = heartbeat.max(Duration::from_millis(30));
        self
    }

    /// Process ids of the workers there are.
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

    /// Starts a worker in a place that is free.
    fn start(
        &self,
        place: usize,
        board: &Arc<Scoreboard>,
        accept_loop: &AcceptLoop<'_>,
    ) -> io::Result<Pid> {
        // What is printed but not yet written out would be written by both.
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
                // The others' ends are the parent's to hold: with a copy here they
                // would not notice its death.
                drop(control);
                self.squad.lock().workers.clear();
                let ran = panic::catch_unwind(AssertUnwindSafe(|| {
                    prefork_worker::run(accept_loop.acceptor(), theirs, slot, quota, self.heartbeat)
                }));
                let _ = io::stdout().flush();
                process::_exit(ran.unwrap_or(101))
            }
        }
    }

    /// Collects workers that have ended. Returns how.
    fn collect(&self) -> Vec<(WorkerHandle, WaitStatus, bool)> {
        let mut squad = self.squad.lock();
        let Some(board) = squad.board.clone() else { return Vec::new() };
        let mut ended = Vec::new();
        for (place, slot) in squad.workers.iter_mut().enumerate() {
            let Some(worker) = slot else { continue };
            match process::wait_child(worker.pid) {
                WaitStatus::Running => {}
                waited => {
                    // Whom it served is lost, and counted.
                    let started = board.retire(place);
                    ended.extend(slot.take().map(|worker| (worker, waited, started)));
                }
            }
        }
        ended
    }

    /// Whether there is a worker that can serve.
    fn has_started(&self, board: &Scoreboard) -> bool {
        let squad = self.squad.lock();
        squad.workers.iter().enumerate().any(|(place, worker)| worker.is_some() && board.has_started(place))
    }

    /// Kills workers that have not said for too long that they are alive.
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

    /// Tells all workers to accept no more, and to be gone within `limit`.
    fn send_drain(&self, limit: Option<Duration>) {
        let limit = limit.map_or(u64::MAX, |limit| limit.as_millis() as u64);
        self.tell(&format!("drain {limit}\n"));
    }

    fn tell(&self, line: &str) {
        for control in self.controls() {
            // One that is gone needs no telling.
            let _ = control.sendall(line.as_bytes());
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

    /// Waits until no worker accepts any more. One that is stopped by a signal does not say so.
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

/// How the next worker is to be started, after one that ended.
#[derive(Default)]
struct RespawnThrottle {
    pause: Duration,
    not_before: Option<Instant>,
    /// Attempts to start that failed, one after the other.
    in_a_row: u32,
    /// One has failed, and not all places are taken since: one at a time is tried.
    probing: bool,
    /// The last attempt of that kind, while it is under way.
    attempt: Option<Probe>,
}

/// A worker that may not be able to start, and how long the next waits for it.
struct Probe {
    place: usize,
    pid: Pid,
    until: Instant,
}

impl RespawnThrottle {
    /// Takes note of an end. Fails when no worker can start, and none is left.
    fn note(
        &mut self,
        worker: &WorkerHandle,
        waited: WaitStatus,
        started: bool,
        others_serve: bool,
    ) -> io::Result<()> {
        let (kind, how) = match waited {
            WaitStatus::Exited(0) => {
                *self = RespawnThrottle { probing: self.probing, ..RespawnThrottle::default() };
                return Ok(());
            }
            WaitStatus::Exited(LISTENER_GONE) => {
                return Err(io::Error::other("the listener is of no more use"));
            }
            WaitStatus::Exited(status) => (LogKind::Exited(status), format!("exited with status {status}")),
            WaitStatus::Killed(signal) => {
                (LogKind::Killed(signal), format!("was killed by signal {signal}"))
            }
            _ => (LogKind::Exited(-1), "was collected by somebody else".to_owned()),
        };
        log_limited!(error, kind, "worker {} {how}", worker.pid);
        if worker.born.elapsed() >= MIN_UPTIME {
            *self = RespawnThrottle { probing: self.probing, ..RespawnThrottle::default() };
            return Ok(());
        }
        // Those that end together are one trouble.
        let attempted = self.attempt.take_if(|attempt| attempt.pid == worker.pid).is_some();
        if self.wait().is_some() && !attempted {
            return Ok(());
        }
        self.back_off();
        // Who kills one that could start, from outside, says nothing about the next.
        if started {
            self.in_a_row = 0;
        } else {
            self.in_a_row += 1;
            self.probing = true;
            // While others serve there is something to lose.
            if self.in_a_row >= MAX_FAILED_STARTS && !others_serve {
                let sentence =
                    format!("workers cannot start: {MAX_FAILED_STARTS} in a row failed, the last {how}");
                return Err(io::Error::other(sentence));
            }
        }
        Ok(())
    }

    /// Takes note of a start.
    fn started(&mut self, place: usize, pid: Pid) {
        if self.probing {
            self.attempt = Some(Probe { place, pid, until: Instant::now() + MAX_DELAY });
            self.not_before = Some(Instant::now() + self.pause.max(FIRST_DELAY));
        }
    }

    /// Looks whether the last attempt has succeeded; then the next need not wait long.
    /// Before anybody knows, there is no next: on a busy machine an attempt takes longer
    /// than its pause.
    fn look(&mut self, board: &Scoreboard) {
        let Some(attempt) = &self.attempt else { return };
        if board.has_started(attempt.place) {
            *self = RespawnThrottle { probing: true, ..RespawnThrottle::default() };
        } else if self.wait().is_none() && Instant::now() < attempt.until {
            self.not_before = Some(Instant::now() + FIRST_DELAY);
        }
    }

    fn back_off(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_DELAY, MAX_DELAY);
        self.not_before = Some(Instant::now() + self.pause);
    }

    /// How long to wait before the next start; `None` for not at all.
    fn wait(&self) -> Option<Duration> {
        let left = self.not_before?.saturating_duration_since(Instant::now());
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
        let registry = Arc::clone(accept_loop.acceptor().core().registry());
        // Each serves one request at a time.
        let workers = self.workers.min(registry.limits().max_connections);
        let board = self.board(workers)?;
        registry.set_worker_scoreboard(Arc::clone(&board));
        accept_loop.acceptor().set_blocking_accept(true)?;
        let mut pace = RespawnThrottle::default();
        let served = loop {
            let ended = self.collect();
            let others_serve = self.has_started(&board);
            let noted: io::Result<()> = ended.into_iter().try_for_each(|(worker, waited, started)| {
                pace.note(&worker, waited, started, others_serve)
            });
            if noted.is_err() {
                break noted;
            }
            self.kill_stuck(&board);
            pace.look(&board);
            if pace.wait().is_none() {
                let free = self.squad.lock().workers.iter().position(Option::is_none);
                pace.probing &= free.is_some();
                if let Some(place) = free {
                    match self.start(place, &board, accept_loop) {
                        Ok(pid) => pace.started(place, pid),
                        Err(error) => {
                            log_limited!(error, LogKind::NotForked, "cannot fork a worker: {error}");
                            // Where there is no room for one, there is none for all that are missing.
                            pace.probing = true;
                            pace.back_off();
                        }
                    }
                    continue;
                }
            }
            let controls = self.controls();
            let watch: Vec<_> = controls.iter().map(|control| control.as_fd()).collect();
            let limit = pace.wait().into_iter().chain([self.heartbeat / 3]).min();
            match accept_loop.wait_without_accepting(&watch, limit) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // They finish what they serve; how long that may take, closing or a drain says.
        self.tell("stop\n");
        // A drain that a signal asks for has no time for workers that do not answer, and
        // shuts the listener down.
        if !accept_loop.signal_received() {
            self.wait_until_stopped(&board);
        }
        served.and(accept_loop.acceptor().set_blocking_accept(false))
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

    fn drain_workers(&self, limit: Duration, hurry: &dyn Fn() -> bool) -> Option<DrainReport> {
        let begin = Instant::now();
        let controls = self.controls();
        self.send_drain(Some(limit));
        // Each has the same time to cut off what is left, and to say so.
        let mut in_time = self.wait_until_exited(Some(limit + prefork_worker::GRACE), hurry);
        if !in_time && hurry() {
            self.tell("hurry\n");
            in_time = self.wait_until_exited(Some(prefork_worker::GRACE), &|| false);
        }
        let mut report = DrainReport::default();
        let silent: Vec<_> =
            controls.iter().filter(|control| !prefork_worker::read_report(control, &mut report)).collect();
        if !in_time {
            // Whom a worker serves that can say nothing any more, the board knows.
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
    ) -> io::Result<()> {
        pace.note(&worker(pid), waited, false, others_serve)
    }

    #[test]
    fn workers_that_end_together_are_one_trouble() {
        let mut pace = RespawnThrottle::default();
        for pid in 1..100 {
            pace.note(&worker(pid), WaitStatus::Killed(9), true, false).unwrap();
        }
        assert_eq!(pace.pause, FIRST_DELAY);
        assert!(!pace.probing, "they could start");
    }

    #[test]
    fn failed_starts_are_enough_when_nobody_serves() {
        for (waited, others_serve) in
            [(WaitStatus::Exited(1), false), (WaitStatus::Killed(6), false), (WaitStatus::Exited(1), true)]
        {
            let mut pace = RespawnThrottle::default();
            let mut last = Ok(());
            for pid in 1..=MAX_FAILED_STARTS as Pid {
                last.unwrap();
                assert_eq!(pace.probing, pid > 1, "one at a time after the first");
                pace.started(0, pid);
                last = fails(&mut pace, pid, waited, others_serve);
            }
            assert_eq!(last.is_err(), !others_serve, "{waited:?} {last:?}");
            assert_eq!(pace.pause, MAX_DELAY);
        }
    }

    #[test]
    fn a_start_that_succeeds_ends_the_pauses_but_not_the_care() {
        let board = Scoreboard::new(1).unwrap();
        let mut pace = RespawnThrottle::default();
        fails(&mut pace, 1, WaitStatus::Exited(1), false).unwrap();
        pace.started(0, 2);
        pace.look(&board);
        assert_eq!(pace.in_a_row, 1, "it has not started yet");
        board.slot(0).start();
        pace.look(&board);
        assert!(pace.in_a_row == 0 && pace.wait().is_none() && pace.probing);
    }

    #[test]
    fn the_next_attempt_waits_for_one_that_outlasts_its_pause() {
        let board = Scoreboard::new(1).unwrap();
        let mut pace = RespawnThrottle { probing: true, ..RespawnThrottle::default() };
        pace.started(0, 1);
        // Its pause is over, and nobody knows yet what becomes of it.
        pace.not_before = Some(Instant::now());
        pace.look(&board);
        assert!(pace.wait().is_some());
        // Nor is it waited for longer than that.
        pace.not_before = Some(Instant::now());
        pace.attempt.as_mut().unwrap().until = Instant::now();
        pace.look(&board);
        assert!(pace.wait().is_none());
    }
}
