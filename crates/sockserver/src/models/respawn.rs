//! When a worker that has exited is replaced.

use std::io;
use std::time::{Duration, Instant};

use crate::lifecycle::scoreboard::Scoreboard;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::models::prefork::WorkerHandle;
use crate::models::prefork_worker::LISTENER_GONE;
use crate::models::worker_exit::{EXIT_LIMIT, LATE};
use crate::os::process::{Pid, WaitStatus};

/// A worker that exits sooner than this counts as one that failed to start.
const MIN_UPTIME: Duration = Duration::from_secs(1);

/// Pause before a worker that failed is replaced; it doubles up to [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1);

/// How many workers may fail to start in a row.
const MAX_FAILED_STARTS: u32 = 10;

/// Decides when the next worker is started after one has exited.
#[derive(Default)]
pub(super) struct RespawnThrottle {
    pause: Duration,
    not_before: Option<Instant>,
    /// Failed starts in a row.
    in_a_row: u32,
    /// A start has failed, and not all places are taken since: one worker at a time is started.
    pub(super) probing: bool,
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
    pub(super) fn note(
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
            WaitStatus::Exited(LATE) => {
                (LogKind::Exited(LATE), format!("did not return from worker_exit within {EXIT_LIMIT:?}"))
            }
            WaitStatus::Exited(status) => (LogKind::Exited(status), format!("exited with status {status}")),
            WaitStatus::Killed(signal) => {
                (LogKind::Killed(signal), format!("was killed by signal {signal}"))
            }
            _ => (LogKind::Exited(-1), "was reaped by other code".to_owned()),
        };
        let (status, signal) = (waited.status(), waited.signal());
        log_limited!(
            error,
            kind,
            pid = worker.pid, status = status, signal = signal;
            "worker {} {how}", worker.pid
        );
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
    pub(super) fn started(&mut self, place: usize, pid: Pid, now: Instant) {
        if self.probing {
            self.attempt = Some(Probe { place, pid, until: now + MAX_DELAY });
            self.not_before = Some(now + self.pause.max(FIRST_DELAY));
        }
    }

    /// Checks whether the last start has succeeded. Then the next one need not wait long. Until that is
    /// known there is no next one: on a busy machine a start takes longer than its pause.
    pub(super) fn look(&mut self, board: &Scoreboard, now: Instant) {
        let Some(attempt) = &self.attempt else { return };
        if board.has_started(attempt.place) {
            *self = RespawnThrottle { probing: true, ..RespawnThrottle::default() };
        } else if self.wait(now).is_none() && now < attempt.until {
            self.not_before = Some(now + FIRST_DELAY);
        }
    }

    pub(super) fn back_off(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(FIRST_DELAY, MAX_DELAY);
        self.not_before = Some(now + self.pause);
    }

    /// Returns how long to wait from `now` to the next start, if at all.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.not_before?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::prefork::tests::worker;

    fn fails(
        throttle: &mut RespawnThrottle,
        pid: Pid,
        waited: WaitStatus,
        others_serve: bool,
        now: Instant,
    ) -> io::Result<()> {
        throttle.note(&worker(pid), waited, false, others_serve, now)
    }

    #[test]
    fn workers_that_exit_together_count_as_one_failure() {
        let now = Instant::now();
        let mut throttle = RespawnThrottle::default();
        for pid in 1..100 {
            throttle.note(&worker(pid), WaitStatus::Killed(9), true, false, now).unwrap();
        }
        assert_eq!(throttle.pause, FIRST_DELAY);
        assert!(!throttle.probing, "they could start");
    }

    #[test]
    fn repeated_failed_starts_end_the_server_if_no_worker_serves() {
        for (waited, others_serve) in
            [(WaitStatus::Exited(1), false), (WaitStatus::Killed(6), false), (WaitStatus::Exited(1), true)]
        {
            let now = Instant::now();
            let mut throttle = RespawnThrottle::default();
            let mut last = Ok(());
            for pid in 1..=MAX_FAILED_STARTS as Pid {
                last.unwrap();
                assert_eq!(throttle.probing, pid > 1, "one at a time after the first");
                throttle.started(0, pid, now);
                last = fails(&mut throttle, pid, waited, others_serve, now);
            }
            assert_eq!(last.is_err(), !others_serve, "{waited:?} {last:?}");
            assert_eq!(throttle.pause, MAX_DELAY);
        }
    }

    #[test]
    fn a_successful_start_ends_the_pauses_but_not_the_probing() {
        let board = Scoreboard::new(1).unwrap();
        let now = Instant::now();
        let mut throttle = RespawnThrottle::default();
        fails(&mut throttle, 1, WaitStatus::Exited(1), false, now).unwrap();
        throttle.started(0, 2, now);
        throttle.look(&board, now);
        assert_eq!(throttle.in_a_row, 1, "it has not started yet");
        board.slot(0).start();
        throttle.look(&board, now);
        assert!(throttle.in_a_row == 0 && throttle.wait(now).is_none() && throttle.probing);
    }

    #[test]
    fn the_next_attempt_waits_for_one_that_outlasts_its_pause() {
        let board = Scoreboard::new(1).unwrap();
        let now = Instant::now();
        let mut throttle = RespawnThrottle { probing: true, ..RespawnThrottle::default() };
        throttle.started(0, 1, now);
        // Its pause is over, and its outcome is not known yet.
        throttle.not_before = Some(now);
        throttle.look(&board, now);
        assert!(throttle.wait(now).is_some());
        // It is not waited for longer than that.
        throttle.not_before = Some(now);
        throttle.attempt.as_mut().unwrap().until = now;
        throttle.look(&board, now);
        assert!(throttle.wait(now).is_none());
    }
}
