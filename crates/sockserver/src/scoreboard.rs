//! What worker processes tell their parent, in memory they share.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::stats::{STATS_WORDS, Stats};
use crate::sys::SharedWords;

/// One slot for each worker, and what the workers before them have done.
pub(crate) struct Scoreboard {
    words: Arc<SharedWords>,
    /// The same instant in every process: forking copies it.
    epoch: Instant,
    retired: Mutex<Stats>,
}

/// A worker's own part of the board.
#[derive(Clone)]
pub(crate) struct Slot {
    words: Arc<SharedWords>,
    epoch: Instant,
    place: usize,
}

/// Words of a slot: a number that is odd while the counters are being written, the
/// counters, when the worker was last heard of, and whether it has started.
const SEQUENCE: usize = 0;
const STATS: usize = 1;
const BEAT: usize = STATS + STATS_WORDS;
const STARTED: usize = BEAT + 1;
const SLOT_WORDS: usize = STARTED + 1;

/// In [`BEAT`], beside milliseconds: a handler does not return, though its time is over.
const STUCK: u64 = 1 << 63;

impl Scoreboard {
    pub(crate) fn new(workers: usize) -> io::Result<Scoreboard> {
        Ok(Scoreboard {
            words: Arc::new(SharedWords::new(workers * SLOT_WORDS)?),
            epoch: Instant::now(),
            retired: Mutex::default(),
        })
    }

    pub(crate) fn slot(&self, place: usize) -> Slot {
        let slot = Slot { words: Arc::clone(&self.words), epoch: self.epoch, place };
        slot.word(BEAT).store(slot.now(), Ordering::Relaxed);
        slot
    }

    /// What all workers have done so far, those that are gone included.
    pub(crate) fn stats(&self) -> Stats {
        let retired = self.retired.lock();
        (0..self.words.len() / SLOT_WORDS).fold(*retired, |sum, place| sum.plus(&self.read(place)))
    }

    /// Takes over what a worker has done that is gone; whom it served is lost.
    /// Returns whether it had started.
    pub(crate) fn retire(&self, place: usize) -> bool {
        let mut retired = self.retired.lock();
        *retired = retired.plus(&self.read(place).all_ended());
        let started = self.has_started(place);
        for word in 0..SLOT_WORDS {
            self.words.get(place * SLOT_WORDS + word).store(0, Ordering::Release);
        }
        started
    }

    /// Whether the worker has come so far that it can serve.
    pub(crate) fn has_started(&self, place: usize) -> bool {
        self.words.get(place * SLOT_WORDS + STARTED).load(Ordering::Acquire) != 0
    }

    /// For how long a worker has been silent, or has not returned from a request whose
    /// time is over, if that is too long.
    pub(crate) fn stuck_for(&self, place: usize, heartbeat: Duration) -> Option<Duration> {
        let beat = self.words.get(place * SLOT_WORDS + BEAT).load(Ordering::Relaxed);
        let now = self.epoch.elapsed().as_millis() as u64;
        let silence = Duration::from_millis(now.saturating_sub(beat & !STUCK));
        (beat & STUCK != 0 || silence > heartbeat).then_some(silence)
    }

    fn read(&self, place: usize) -> Stats {
        let word = |number: usize| self.words.get(place * SLOT_WORDS + number);
        let mut words = [0; STATS_WORDS];
        // A worker that was killed while it wrote leaves the number odd for ever.
        for _ in 0..1000 {
            let before = word(SEQUENCE).load(Ordering::Acquire);
            for (number, value) in words.iter_mut().enumerate() {
                *value = word(STATS + number).load(Ordering::Acquire);
            }
            if before % 2 == 0 && word(SEQUENCE).load(Ordering::Acquire) == before {
                return Stats::from_words(words);
            }
            std::hint::spin_loop();
        }
        Stats::from_words(words).made_to_add_up()
    }
}

impl Slot {
    /// Shows the counters to the parent.
    pub(crate) fn show(&self, stats: &Stats) {
        self.word(SEQUENCE).fetch_add(1, Ordering::AcqRel);
        for (number, value) in stats.to_words().into_iter().enumerate() {
            self.word(STATS + number).store(value, Ordering::Release);
        }
        self.word(SEQUENCE).fetch_add(1, Ordering::AcqRel);
    }

    /// Says that the worker can serve from now on.
    pub(crate) fn start(&self) {
        self.beat();
        self.word(STARTED).store(1, Ordering::Release);
    }

    /// Says that the worker is alive.
    pub(crate) fn beat(&self) {
        self.word(BEAT).store(self.now(), Ordering::Relaxed);
    }

    /// Says that the worker can do no more: a handler does not return.
    pub(crate) fn give_up(&self) {
        self.word(BEAT).store(self.now() | STUCK, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    fn word(&self, number: usize) -> &AtomicU64 {
        self.words.get(self.place * SLOT_WORDS + number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Stats {
        let mut stats = Stats::default();
        stats.begin();
        stats.end(crate::stats::Outcome::Finished);
        stats.begin();
        stats
    }

    #[test]
    fn what_a_worker_shows_is_seen_and_outlives_it() {
        let board = Scoreboard::new(2).unwrap();
        board.slot(1).show(&some());
        assert_eq!(board.stats(), some());
        assert!(!board.retire(1), "it has never said that it started");
        let stats = board.stats();
        assert_eq!(stats.accepted, 2);
        assert!(stats.adds_up() && stats.in_flight == 0 && stats.failed == 1, "{stats}");
        board.slot(1).start();
        board.slot(1).show(&some());
        assert_eq!(board.stats().accepted, 4);
        assert!(board.has_started(1) && board.retire(1) && !board.has_started(1));
    }

    #[test]
    fn a_worker_that_died_while_it_wrote_still_adds_up() {
        let board = Scoreboard::new(1).unwrap();
        let slot = board.slot(0);
        slot.show(&some());
        slot.word(SEQUENCE).fetch_add(1, Ordering::Relaxed);
        slot.word(STATS).fetch_add(1, Ordering::Relaxed);
        assert!(board.stats().adds_up());
        board.retire(0);
        assert!(board.stats().adds_up());
        assert_eq!(board.stats().accepted, 3);
    }

    #[test]
    fn silence_is_as_bad_as_giving_up() {
        let board = Scoreboard::new(1).unwrap();
        let slot = board.slot(0);
        slot.word(BEAT).store(0, Ordering::Relaxed);
        while slot.now() < 3 {
            std::thread::yield_now();
        }
        assert!(board.stuck_for(0, Duration::from_millis(1)).is_some());
        assert!(board.stuck_for(0, Duration::from_secs(60)).is_none());
        slot.beat();
        assert!(board.stuck_for(0, Duration::from_secs(60)).is_none());
        slot.give_up();
        assert!(board.stuck_for(0, Duration::from_secs(60)).is_some());
        slot.beat();
        assert!(board.stuck_for(0, Duration::from_secs(60)).is_none());
    }
}
