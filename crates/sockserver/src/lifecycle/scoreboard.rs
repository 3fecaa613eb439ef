//! Memory that pre-forked workers share with their parent: counters, heartbeats, clients.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::Address;

use crate::limits::stats::{STATS_WORDS, Stats};
use crate::os::process::{self, SharedWords};

/// The memory: a slot for each worker, and the sum of the workers that have exited.
pub(crate) struct Scoreboard {
    words: Arc<SharedWords>,
    /// The same instant in every process, because fork(2) copies it.
    epoch: Instant,
    retired: Mutex<Stats>,
}

/// The slot of one worker.
#[derive(Clone)]
pub(crate) struct Slot {
    words: Arc<SharedWords>,
    epoch: Instant,
    place: usize,
}

/// Words of a slot: a number that is odd while the counters are being written; the counters; the
/// time of the last heartbeat; whether the worker has started; the client's address in two words,
/// its port, and since when it is served; whether the client is counted for its address.
const SEQUENCE: usize = 0;
const STATS: usize = 1;
const BEAT: usize = STATS + STATS_WORDS;
const STARTED: usize = BEAT + 1;
const CLIENT: usize = STARTED + 1;
const PORT: usize = CLIENT + 2;
const SINCE: usize = PORT + 1;
const ADMITTED: usize = SINCE + 1;
const SLOT_WORDS: usize = ADMITTED + 1;

/// Values of [`STARTED`]. Zero until the worker can serve.
const ACCEPTS: u64 = 1;
const STOPPED: u64 = 2;

/// In [`PORT`]: a client is served, and its address is known.
const SERVES: u64 = 1 << 32;
const KNOWN: u64 = 1 << 33;

/// Attempts to take the lock before a worker sleeps between two attempts.
const LOCK_SPINS: u32 = 100;

/// How long a worker sleeps between two attempts to take the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// After so long the lock is taken from a worker that was stopped by a signal while it held it. It
/// is held for microseconds otherwise.
const LOCK_TIMEOUT: Duration = Duration::from_millis(250);

/// In [`BEAT`], beside milliseconds: a handler does not return after its deadline.
const STUCK: u64 = 1 << 63;

impl Scoreboard {
    pub(crate) fn new(workers: usize) -> io::Result<Scoreboard> {
        Ok(Scoreboard {
            // The last one is the lock: see `Slot::lock`.
            words: Arc::new(SharedWords::new(workers * SLOT_WORDS + 1)?),
            epoch: Instant::now(),
            retired: Mutex::default(),
        })
    }

    pub(crate) fn slot(&self, place: usize) -> Slot {
        let slot = Slot { words: Arc::clone(&self.words), epoch: self.epoch, place };
        slot.word(BEAT).store(slot.now(), Ordering::Relaxed);
        slot
    }

    /// The counters of all workers, including those that have exited.
    pub(crate) fn stats(&self) -> Stats {
        let retired = self.retired.lock();
        (0..self.words.len() / SLOT_WORDS).fold(*retired, |sum, place| sum.plus(&self.read(place)))
    }

    /// Adds the counters of a worker that has exited, and clears its slot. Its request counts as
    /// failed. Returns whether the worker had started.
    pub(crate) fn retire(&self, place: usize) -> bool {
        let mut retired = self.retired.lock();
        *retired = retired.plus(&self.read(place).all_ended());
        let started = self.has_started(place);
        for word in 0..SLOT_WORDS {
            self.words.get(place * SLOT_WORDS + word).store(0, Ordering::Release);
        }
        started
    }

    /// Whether the worker can serve.
    pub(crate) fn has_started(&self, place: usize) -> bool {
        self.words.get(place * SLOT_WORDS + STARTED).load(Ordering::Acquire) != 0
    }

    /// Whether the worker has stopped accepting.
    pub(crate) fn has_stopped(&self, place: usize) -> bool {
        self.words.get(place * SLOT_WORDS + STARTED).load(Ordering::Acquire) == STOPPED
    }

    /// The time since the last heartbeat of a worker that is stuck: silent for longer than
    /// `heartbeat`, or with a handler that has not returned after its deadline.
    pub(crate) fn stuck_for(&self, place: usize, heartbeat: Duration) -> Option<Duration> {
        let beat = self.words.get(place * SLOT_WORDS + BEAT).load(Ordering::Relaxed);
        let now = self.epoch.elapsed().as_millis() as u64;
        let silence = Duration::from_millis(now.saturating_sub(beat & !STUCK));
        (beat & STUCK != 0 || silence > heartbeat).then_some(silence)
    }

    /// The client of a worker, and how long it has been served.
    pub(crate) fn client(&self, place: usize) -> Option<(Address, Duration)> {
        let word = |number: usize| self.words.get(place * SLOT_WORDS + number).load(Ordering::Acquire);
        let port = word(PORT);
        let ip = Ipv6Addr::from_bits(u128::from(word(CLIENT)) << 64 | u128::from(word(CLIENT + 1)));
        let known = SocketAddr::new(IpAddr::V6(ip).to_canonical(), port as u16);
        let address = if port & KNOWN != 0 { Address::from(known) } else { Address::None };
        let age =
            Duration::from_millis((self.epoch.elapsed().as_millis() as u64).saturating_sub(word(SINCE)));
        (port & SERVES != 0).then_some((address, age))
    }

    fn read(&self, place: usize) -> Stats {
        let word = |number: usize| self.words.get(place * SLOT_WORDS + number);
        let mut words = [0; STATS_WORDS];
        // A worker that was killed while it wrote leaves the number odd.
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
        Stats::from_words(words).normalized()
    }
}

impl Slot {
    /// Publishes the counters.
    pub(crate) fn publish(&self, stats: &Stats) {
        self.word(SEQUENCE).fetch_add(1, Ordering::AcqRel);
        for (number, value) in stats.to_words().into_iter().enumerate() {
            self.word(STATS + number).store(value, Ordering::Release);
        }
        self.word(SEQUENCE).fetch_add(1, Ordering::AcqRel);
    }

    /// Records that the worker can serve.
    pub(crate) fn start(&self) {
        self.heartbeat();
        self.word(STARTED).fetch_max(ACCEPTS, Ordering::AcqRel);
    }

    /// Records that the worker has stopped accepting.
    pub(crate) fn stop(&self) {
        self.word(STARTED).store(STOPPED, Ordering::Release);
    }

    /// Records a heartbeat.
    pub(crate) fn heartbeat(&self) {
        self.word(BEAT).store(self.now(), Ordering::Relaxed);
    }

    /// Records that a handler has not returned after its deadline.
    pub(crate) fn set_stuck(&self) {
        self.word(BEAT).store(self.now() | STUCK, Ordering::Relaxed);
    }

    /// Records the client that the worker serves.
    pub(crate) fn set_client(&self, client: &Address) {
        let mut port = SERVES;
        if let Some(ip) = client.ip() {
            port |= KNOWN | u64::from(client.port().unwrap_or_default());
            let bits = match ip.to_canonical() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            }
            .to_bits();
            self.word(CLIENT).store((bits >> 64) as u64, Ordering::SeqCst);
            self.word(CLIENT + 1).store(bits as u64, Ordering::SeqCst);
        }
        self.word(SINCE).store(self.now(), Ordering::Relaxed);
        self.word(PORT).store(port, Ordering::SeqCst);
    }

    /// Records that the worker serves no client.
    pub(crate) fn clear_client(&self) {
        self.word(ADMITTED).store(0, Ordering::SeqCst);
        self.word(PORT).store(0, Ordering::SeqCst);
    }

    /// Whether `most` workers serve the same address already. If not, the client is counted.
    pub(crate) fn exceeds_per_ip_limit(&self, most: usize) -> bool {
        let key =
            |place| [PORT, CLIENT, CLIENT + 1].map(|number| self.at(place, number).load(Ordering::SeqCst));
        let [port, own @ ..] = key(self.place);
        if port & KNOWN == 0 {
            return false;
        }
        let _lock = self.lock();
        let is_counted = |place: usize| {
            let [port, other @ ..] = key(place);
            port & KNOWN != 0 && other == own && self.at(place, ADMITTED).load(Ordering::SeqCst) != 0
        };
        let exceeds =
            (0..self.places()).filter(|&place| place != self.place && is_counted(place)).count() >= most;
        self.word(ADMITTED).store(u64::from(!exceeds), Ordering::SeqCst);
        exceeds
    }

    /// Takes the lock over all slots. Its word is the time and the process id of its owner, so that
    /// a worker that was killed or stopped blocks no other: the lock passes on when the parent has
    /// reaped the owner, and after [`LOCK_TIMEOUT`].
    ///
    /// A worker that was stopped and continues has decided without the lock. One client too many may
    /// then be served.
    fn lock(&self) -> Lock<'_> {
        let word = self.words.get(self.places() * SLOT_WORDS);
        let now = self.epoch.elapsed().as_micros() as u64;
        let own = now << 32 | u64::from(std::process::id());
        // The owner that this worker waits for, and since when.
        let mut waited: Option<(u64, Instant)> = None;
        for attempt in 0_u32.. {
            let Err(owner) = word.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst) else {
                break;
            };
            if attempt < LOCK_SPINS {
                std::hint::spin_loop();
                continue;
            }
            let since = match waited {
                Some((other, since)) if other == owner => since,
                _ => Instant::now(),
            };
            waited = Some((owner, since));
            let passes_on =
                !process::is_alive(owner & u64::from(u32::MAX)) || since.elapsed() >= LOCK_TIMEOUT;
            if passes_on && word.compare_exchange(owner, own, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                break;
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        Lock { word, own }
    }

    fn places(&self) -> usize {
        self.words.len() / SLOT_WORDS
    }

    fn at(&self, place: usize, number: usize) -> &AtomicU64 {
        self.words.get(place * SLOT_WORDS + number)
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    fn word(&self, number: usize) -> &AtomicU64 {
        self.at(self.place, number)
    }
}

/// The lock over all slots, until it is dropped.
struct Lock<'a> {
    word: &'a AtomicU64,
    own: u64,
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // It may have passed on.
        let _ = self.word.compare_exchange(self.own, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
}

// Only Unix has the shared memory.
#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn some() -> Stats {
        let mut stats = Stats::default();
        stats.begin();
        stats.end(crate::limits::stats::Outcome::Finished);
        stats.begin();
        stats
    }

    #[test]
    fn the_counters_of_a_worker_are_read_and_outlive_it() {
        let board = Scoreboard::new(2).unwrap();
        board.slot(1).publish(&some());
        assert_eq!(board.stats(), some());
        assert!(!board.retire(1), "it has never said that it started");
        let stats = board.stats();
        assert_eq!(stats.accepted, 2);
        assert!(stats.is_consistent() && stats.in_flight == 0 && stats.failed == 1, "{stats}");
        board.slot(1).start();
        board.slot(1).publish(&some());
        assert_eq!(board.stats().accepted, 4);
        assert!(board.has_started(1) && board.retire(1) && !board.has_started(1));
    }

    #[test]
    fn the_counters_of_a_worker_that_died_while_it_wrote_are_consistent() {
        let board = Scoreboard::new(1).unwrap();
        let slot = board.slot(0);
        slot.publish(&some());
        slot.word(SEQUENCE).fetch_add(1, Ordering::Relaxed);
        slot.word(STATS).fetch_add(1, Ordering::Relaxed);
        assert!(board.stats().is_consistent());
        board.retire(0);
        assert!(board.stats().is_consistent());
        assert_eq!(board.stats().accepted, 3);
    }

    #[test]
    fn clients_of_one_address_are_counted_over_all_workers() {
        let board = Scoreboard::new(4).unwrap();
        let [one, two, three, four] = [0, 1, 2, 3].map(|place| board.slot(place));
        let address = |text: &str| Address::from(text.parse::<SocketAddr>().unwrap());
        let refused = |slot: &Slot, client: &str| {
            slot.set_client(&address(client));
            let refused = slot.exceeds_per_ip_limit(2);
            if refused {
                slot.clear_client();
            }
            refused
        };
        assert!(!refused(&one, "192.0.2.1:1"));
        assert!(!refused(&two, "[::ffff:192.0.2.1]:2"));
        assert!(refused(&three, "192.0.2.1:3"));
        assert!(!refused(&three, "192.0.2.2:4"));
        one.clear_client();
        assert!(!refused(&four, "192.0.2.1:5"));
        assert_eq!(board.client(0), None);
        assert_eq!(board.client(3).map(|(client, _)| client), Some(address("192.0.2.1:5")));
        board.retire(3);
        assert_eq!(board.client(3), None);
    }

    #[test]
    fn concurrent_workers_admit_exactly_the_limit() {
        let board = Scoreboard::new(8).unwrap();
        let client = Address::from("192.0.2.1:1".parse::<SocketAddr>().unwrap());
        for _ in 0..200 {
            let start = std::sync::Barrier::new(8);
            let admitted = std::thread::scope(|scope| {
                let ask = |place| {
                    let (slot, start, client) = (board.slot(place), &start, &client);
                    scope.spawn(move || {
                        start.wait();
                        slot.set_client(client);
                        usize::from(!slot.exceeds_per_ip_limit(3))
                    })
                };
                let asked: Vec<_> = (0..8).map(ask).collect();
                asked.into_iter().map(|asked| asked.join().unwrap()).sum::<usize>()
            });
            assert_eq!(admitted, 3);
            (0..8).for_each(|place| board.slot(place).clear_client());
        }
    }

    #[test]
    fn a_worker_that_was_killed_with_the_lock_blocks_no_other() {
        let board = Scoreboard::new(2).unwrap();
        let slots = [0, 1].map(|place| board.slot(place));
        let client = Address::from("192.0.2.1:1".parse::<SocketAddr>().unwrap());
        slots.iter().for_each(|slot| slot.set_client(&client));
        let mut killed = std::process::Command::new("true").spawn().unwrap();
        killed.wait().unwrap();
        let lock = slots[0].words.get(2 * SLOT_WORDS);
        lock.store(u64::from(killed.id()), Ordering::SeqCst);
        assert!(!slots[0].exceeds_per_ip_limit(1));
        // It passes on at once. A busy machine may delay one attempt.
        let passes_at_once = (0..20).any(|_| {
            lock.store(u64::from(killed.id()), Ordering::SeqCst);
            let begin = Instant::now();
            drop(slots[0].lock());
            begin.elapsed() < LOCK_TIMEOUT
        });
        assert!(passes_at_once);
        assert!(slots[1].exceeds_per_ip_limit(1), "the first one is counted");
        assert_eq!(lock.load(Ordering::SeqCst), 0);
        slots[0].clear_client();
        assert!(!slots[1].exceeds_per_ip_limit(1));
    }

    #[test]
    fn a_worker_waits_for_the_lock_while_its_owner_lives() {
        let board = Scoreboard::new(1).unwrap();
        let slot = board.slot(0);
        slot.set_client(&Address::from("192.0.2.1:1".parse::<SocketAddr>().unwrap()));
        let (held, begin) = (slot.lock(), Instant::now());
        let waiting = std::thread::scope(|scope| {
            let asks = scope.spawn(|| slot.exceeds_per_ip_limit(1));
            std::thread::sleep(LOCK_PAUSE * 10);
            let waits = !asks.is_finished() || begin.elapsed() >= LOCK_TIMEOUT;
            drop(held);
            assert!(!asks.join().unwrap());
            waits
        });
        assert!(waiting);
    }

    #[test]
    fn a_worker_that_is_stopped_with_the_lock_delays_others_for_a_bounded_time() {
        let board = Scoreboard::new(1).unwrap();
        let slot = board.slot(0);
        slot.set_client(&Address::from("192.0.2.1:1".parse::<SocketAddr>().unwrap()));
        let (stopped, begin) = (slot.lock(), Instant::now());
        assert!(!slot.exceeds_per_ip_limit(1));
        let waited = begin.elapsed();
        assert!(waited >= LOCK_TIMEOUT && waited < LOCK_TIMEOUT * 20, "{waited:?}");
        // The worker continues while another one holds the lock.
        let held = slot.lock();
        drop(stopped);
        assert_ne!(held.word.load(Ordering::SeqCst), 0);
        drop(held);
        assert_eq!(
            slot.lock().word.load(Ordering::SeqCst) & u64::from(u32::MAX),
            std::process::id().into()
        );
    }

    #[test]
    fn a_worker_without_heartbeats_or_with_a_stuck_handler_is_stuck() {
        let board = Scoreboard::new(1).unwrap();
        let slot = board.slot(0);
        slot.word(BEAT).store(0, Ordering::Relaxed);
        while slot.now() < 3 {
            std::thread::yield_now();
        }
        assert!(board.stuck_for(0, Duration::from_millis(1)).is_some());
        assert!(board.stuck_for(0, Duration::from_secs(60)).is_none());
        slot.heartbeat();
        assert!(board.stuck_for(0, Duration::from_secs(60)).is_none());
        slot.set_stuck();
        assert!(board.stuck_for(0, Duration::from_secs(60)).is_some());
        slot.heartbeat();
        assert!(board.stuck_for(0, Duration::from_secs(60)).is_none());
    }
}
