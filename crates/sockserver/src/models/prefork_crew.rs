//! How many pre-forked workers there are, and which of them are being replaced, on signals.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sock::Socket;

use crate::accept::mixin::AcceptLoop;
use crate::lifecycle::scoreboard::Scoreboard;
use crate::lifecycle::signals::WorkerOrder;
use crate::limits::ranges;
use crate::models::prefork::{PreforkMixIn, WorkerHandle, WorkerSet};
use crate::models::prefork_worker;
use crate::os::guard::discard;
use crate::os::process::Pid;
use crate::os::shortage;
use crate::request::catch_panic;

/// How many workers SIGTTIN can add.
const SPARE_PLACES: usize = 32;

/// How often the parent looks whether a new worker has started, while it replaces workers.
const REPLACE_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long a worker goes on with its requests whose place is needed. It closes its idle connections at
/// once.
const LAST_REQUESTS: Duration = Duration::from_millis(250);

/// The number of workers, and the replacement that is under way.
pub(super) struct Crew {
    /// How many workers there are, without those that leave.
    pub(super) target: usize,
    /// How many SIGTTIN may make it.
    most: usize,
    /// How many there may be, with those that leave.
    pub(super) places: usize,
    /// Workers that are to be replaced.
    to_replace: VecDeque<Pid>,
    /// The worker that is being replaced, and whether it was sent the command to drain.
    outgoing: Option<(Pid, bool)>,
}

impl Crew {
    /// There are no more workers than `limit`. Another worker takes the place of one that serves its last
    /// requests, at the worst of all at once: after a reload, or in the loop after a stop. `is_managed`:
    /// by signals.
    pub(super) fn new(workers: usize, limit: usize, is_managed: bool) -> Crew {
        let limit = limit.min(*ranges::WORKERS.end()).max(workers);
        let most = limit.min(workers + if is_managed { SPARE_PLACES } else { 0 });
        // Those that were added overlap only as far as there are places.
        let places = limit.min(most + workers);
        Crew { target: workers, most, places, to_replace: VecDeque::new(), outgoing: None }
    }

    /// Adds a worker, unless SIGTTIN has added [`SPARE_PLACES`]. Returns whether it did.
    fn add_worker(&mut self) -> bool {
        let adds = self.target < self.most;
        self.target += usize::from(adds);
        adds
    }

    /// Returns how long the parent may wait for other events.
    pub(super) fn pause(&self) -> Duration {
        let replaces = self.outgoing.is_some() || !self.to_replace.is_empty();
        if replaces { REPLACE_POLL_INTERVAL } else { Duration::MAX }
    }
}

impl WorkerSet {
    /// Returns a place for another worker, unless there are as many as `target`.
    pub(super) fn free_place(&self, target: usize) -> Option<usize> {
        let staying = self.workers.iter().flatten().filter(|worker| !worker.leaves).count();
        self.workers.iter().position(Option::is_none).filter(|_| staying < target)
    }

    /// Returns a worker that is to abort its last requests at once, so that another one can accept: the
    /// oldest one, if all leave, no place is free, and none has served its last request. `connections`
    /// returns how many connections the worker in a place has.
    pub(super) fn worker_to_hurry(
        &mut self,
        connections: impl Fn(usize) -> usize,
    ) -> Option<(Pid, Arc<Socket>)> {
        let leaves = |worker: &WorkerHandle| worker.leaves && !worker.is_hurried;
        let mut places = self.workers.iter().enumerate();
        // One without a connection exits, and its place becomes free.
        let all_hold =
            places.all(|(place, worker)| worker.as_ref().is_some_and(leaves) && connections(place) > 0);
        if !all_hold {
            return None;
        }
        let oldest = self.workers.iter_mut().flatten().min_by_key(|worker| worker.born)?;
        oldest.is_hurried = true;
        Some((oldest.pid, Arc::clone(&oldest.control)))
    }

    fn find(&mut self, pid: Pid) -> Option<&mut WorkerHandle> {
        self.workers.iter_mut().flatten().find(|worker| worker.pid == pid)
    }
}

impl PreforkMixIn {
    /// Carries out the orders of signals, and the next step of a replacement.
    pub(super) fn manage(&self, crew: &mut Crew, board: &Scoreboard, accept_loop: &AcceptLoop<'_>) {
        let Some(signals) = accept_loop.worker_signals() else { return };
        while let Some(order) = signals.next_order() {
            match order {
                WorkerOrder::Reload => self.reload(crew, accept_loop),
                WorkerOrder::Add if crew.add_worker() => {
                    log::info!(signal = "SIGTTIN", count = crew.target; "SIGTTIN: add a worker, {} in total", crew.target);
                }
                WorkerOrder::Remove if crew.target > 1 => {
                    crew.target -= 1;
                    log::info!(signal = "SIGTTOU", count = crew.target; "SIGTTOU: remove a worker, {} in total", crew.target);
                }
                _ => log::warn!(count = crew.target; "keep {} workers: this is the limit", crew.target),
            }
        }
        let mut leaving = self.dismiss_surplus(crew.target);
        leaving.extend(self.replace_next(crew, board));
        let limit = signals.limit().or(accept_loop.core().handle.close_timeout());
        for control in leaving {
            // One that has exited needs no command.
            let command = prefork_worker::leave_command(limit);
            let _ = shortage::retry(|| control.sendall(command.as_bytes()));
        }
    }

    /// Sends all workers the command to drain within `limit`, and to leave idle connections open for
    /// `idle_grace`.
    pub(super) fn send_drain(&self, limit: Option<Duration>, idle_grace: Duration) {
        self.send_to_all(&prefork_worker::drain_command(limit, idle_grace));
    }

    pub(super) fn send_to_all(&self, command: &str) {
        for control in self.controls() {
            // A worker that has exited needs no command.
            let _ = shortage::retry(|| control.sendall(command.as_bytes()));
        }
    }

    /// Ends a worker early whose last requests hold the only place in which another one could accept.
    pub(super) fn free_a_place(&self, board: &Scoreboard) {
        // A worker with one client at a time keeps its place until that is served.
        if !self.settings.serves_many() {
            return;
        }
        let hurried = self.worker_set.lock().worker_to_hurry(|place| board.in_flight(place));
        if let Some((pid, control)) = hurried {
            log::warn!(pid = pid; "end the oldest worker, process {pid}: all workers are serving their last requests");
            let command = prefork_worker::drain_command(Some(LAST_REQUESTS), Duration::ZERO);
            let _ = shortage::retry(|| control.sendall(command.as_bytes()));
        }
    }

    /// Calls the hook, and notes all workers for replacement.
    fn reload(&self, crew: &mut Crew, accept_loop: &AcceptLoop<'_>) {
        log::info!(signal = "SIGHUP"; "SIGHUP: replacing the workers");
        if let Err(error) = catch_panic(|| accept_loop.core().hooks.reload()) {
            log::error!(hook = "reload"; "cannot replace the workers: reload hook failed: {error}");
            return discard(error);
        }
        let squad = self.worker_set.lock();
        let staying = squad.workers.iter().flatten().filter(|worker| !worker.leaves);
        crew.to_replace = staying.map(|worker| worker.pid).collect();
    }

    /// Chooses the workers that leave because there are to be fewer: the youngest ones.
    fn dismiss_surplus(&self, target: usize) -> Vec<Arc<Socket>> {
        let mut squad = self.worker_set.lock();
        let mut staying: Vec<&mut WorkerHandle> =
            squad.workers.iter_mut().flatten().filter(|worker| !worker.leaves).collect();
        staying.sort_by_key(|worker| worker.born);
        let surplus = staying.split_off(target.min(staying.len()));
        let dismiss = |worker: &mut WorkerHandle| {
            worker.leaves = true;
            Arc::clone(&worker.control)
        };
        surplus.into_iter().map(dismiss).collect()
    }

    /// Goes on with the replacement. Returns the worker that is to drain now.
    fn replace_next(&self, crew: &mut Crew, board: &Scoreboard) -> Option<Arc<Socket>> {
        let mut squad = self.worker_set.lock();
        if crew.outgoing.is_some_and(|(pid, _)| squad.find(pid).is_none()) {
            crew.outgoing = None;
        }
        while crew.outgoing.is_none() {
            let pid = crew.to_replace.pop_front()?;
            if let Some(worker) = squad.find(pid).filter(|worker| !worker.leaves) {
                worker.leaves = true;
                crew.outgoing = Some((pid, false));
            }
        }
        let (pid, is_sent) = crew.outgoing?;
        // The new worker is started first, if there is a place.
        let has_room = squad.workers.iter().any(Option::is_none);
        let starts = squad.free_place(crew.target).is_some();
        let mut places = squad.workers.iter().enumerate();
        let all_started = places.all(|(place, worker)| worker.is_none() || board.has_started(place));
        if is_sent || !all_started || has_room && starts {
            return None;
        }
        crew.outgoing = Some((pid, true));
        squad.find(pid).map(|worker| Arc::clone(&worker.control))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(mut crew: Crew) -> usize {
        let workers = crew.target;
        while crew.add_worker() {}
        crew.target - workers
    }

    #[test]
    fn sigttin_adds_at_most_32_workers() {
        // With one client in each worker the limit is `max_connections`, otherwise there is none.
        let cases = [
            (usize::MAX, true, 48, 32),
            (usize::MAX, false, 16, 0),
            (45, true, 45, 32),
            (10, true, 10, 2),
            (10, false, 10, 0),
            (8, true, 8, 0),
        ];
        for (limit, is_managed, places, more) in cases {
            let crew = Crew::new(8, limit, is_managed);
            assert_eq!((crew.places, added(crew)), (places, more), "{limit} {is_managed}");
        }
    }

    #[test]
    fn there_are_never_more_places_than_workers_are_allowed() {
        let most = *ranges::WORKERS.end();
        let crew = Crew::new(most, usize::MAX, true);
        assert_eq!((crew.places, added(crew)), (most, 0));
    }
}
