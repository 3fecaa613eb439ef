//! Memory that the processes of a server share: counters, heartbeats, clients.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::Address;

use crate::lifecycle::address_counts::AddressCounts;
use crate::lifecycle::gauges::WorkerStats;
use crate::limits::shared_permits::SharedPermits;
use crate::limits::stats::{IDLE_WORD, STATS_WORDS, Stats};
use crate::os::process::{self, SharedWords};

/// The memory: a slot for each worker, two for the sum of the workers that have exited, one for the
/// parent, the state of retirements, and the lock.
pub(crate) struct Scoreboard {
    words: Arc<SharedWords>,
    /// The same instant in every process, because fork(2) copies it.
    epoch: Instant,
    /// Held in the parent while it retires a worker. Only shared memory is read and written under it.
    retiring: Mutex<()>,
    /// The connections of each client address, if workers have several connections and there is a limit.
    addresses: OnceLock<AddressCounts>,
}

/// The slot of one worker, or that of the parent.
#[derive(Clone)]
pub(crate) struct Slot {
    words: Arc<SharedWords>,
    epoch: Instant,
    place: usize,
}

/// Words of a slot: a number that is odd while the counters are being written; the counters; the
/// time of the last heartbeat; whether the worker has started; the client's address in two words,
/// its port, and since when it is served; whether the client is counted for its address; the exit
/// status, plus one; how many permits the worker has, if it has several connections; the process id;
/// when the process was started; the requests that it has served.
const SEQUENCE: usize = 0;
const STATS: usize = 1;
const BEAT: usize = STATS + STATS_WORDS;
const STARTED: usize = BEAT + 1;
const CLIENT: usize = STARTED + 1;
const PORT: usize = CLIENT + 2;
const SINCE: usize = PORT + 1;
const ADMITTED: usize = SINCE + 1;
const EXIT: usize = ADMITTED + 1;
const PERMITS: usize = EXIT + 1;
const PID: usize = PERMITS + 1;
const BORN: usize = PID + 1;
const REQUESTS: usize = BORN + 1;
const SLOT_WORDS: usize = REQUESTS + 1;

/// Slots behind those of the workers: the sum of the workers that have exited, which is written to
/// the two slots by turns, and the parent's own counters.
const RETIRED: usize = 0;
const PARENT: usize = 2;
const MORE_SLOTS: usize = 3;

/// Words behind the slots: the [`Retirements`], and the lock.
const MORE_WORDS: usize = 2;

/// Attempts to read the slots between two retirements without a pause.
const READ_SPINS: u32 = 100;
const READ_PAUSE: Duration = Duration::from_micros(100);

/// Values of [`STARTED`]. Zero until the worker can serve.
const ACCEPTS: u64 = 1;
/// With the bit of [`ACCEPTS`], so that it can be added to that.
const STOPPED: u64 = 3;
/// A forked child, whose parent has its counters.
const CHILD: u64 = 4;
/// Added to the others: the process runs the hook `worker_exit`.
const EXITS: u64 = 1 << 32;

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
            words: Arc::new(SharedWords::new((workers + MORE_SLOTS) * SLOT_WORDS + MORE_WORDS)?),
            epoch: Instant::now(),
            retiring: Mutex::default(),
            addresses: OnceLock::new(),
        })
    }

    /// Separates the board from that of the parent process, after a fork.
    pub(crate) fn renew(&self) -> io::Result<()> {
        self.words.renew()?;
        self.addresses.get().map_or(Ok(()), AddressCounts::renew)
    }

    /// Counts the connections of each client address from now on, for workers with up to
    /// `max_connections` connections.
    pub(crate) fn count_addresses(&self, max_connections: usize) -> io::Result<()> {
        if self.addresses.get().is_none() {
            let _ = self.addresses.set(AddressCounts::new(places(&self.words), max_connections)?);
        }
        Ok(())
    }

    /// The slot where the parent publishes its own counters.
    pub(crate) fn parent_slot(&self) -> Slot {
        Slot { words: Arc::clone(&self.words), epoch: self.epoch, place: places(&self.words) + PARENT }
    }

    pub(crate) fn slot(&self, place: usize) -> Slot {
        let slot = Slot { words: Arc::clone(&self.words), epoch: self.epoch, place };
        slot.word(BEAT).store(slot.now(), Ordering::Relaxed);
        slot.word(BORN).store(slot.now(), Ordering::Relaxed);
        slot
    }

    /// How many processes have a slot.
    pub(crate) fn places(&self) -> usize {
        places(&self.words)
    }

    /// What each process does.
    pub(crate) fn worker_stats(&self) -> Vec<WorkerStats> {
        let now = self.epoch.elapsed().as_millis() as u64;
        let stats = (0..self.places()).filter_map(|place| {
            let word = |number: usize| self.words.get(place * SLOT_WORDS + number).load(Ordering::Acquire);
            let pid = u32::try_from(word(PID)).ok().filter(|pid| *pid != 0)?;
            let stats = match word(STARTED) & !EXITS {
                // It has one connection.
                CHILD => Stats { in_flight: 1, idle: word(STATS + IDLE_WORD).min(1), ..Stats::default() },
                _ => self.read(place),
            };
            Some(WorkerStats {
                pid,
                in_flight: stats.in_flight,
                idle: stats.idle,
                requests: word(REQUESTS),
                age: Duration::from_millis(now.saturating_sub(word(BORN))),
            })
        });
        stats.collect()
    }

    /// Clears the slot of a forked child that has exited.
    pub(crate) fn clear_child(&self, place: usize) {
        for word in 0..SLOT_WORDS {
            self.words.get(place * SLOT_WORDS + word).store(0, Ordering::Release);
        }
    }

    /// The counters of all workers, including those that have exited. They never decrease, also while
    /// the parent retires a worker. A parent that is paused or killed in a retirement delays no reader.
    pub(crate) fn stats(&self) -> Stats {
        let mut attempts = 0;
        loop {
            let before = self.retirements();
            let places = (0..places(&self.words)).filter(|&place| Some(place) != before.summed());
            let stats =
                places.fold(self.read(self.retired(before)), |sum, place| sum.plus(&self.read(place)));
            if self.retirements() == before {
                return stats;
            }
            // A worker was retired meanwhile.
            if attempts < READ_SPINS {
                attempts += 1;
                std::hint::spin_loop();
            } else {
                std::thread::sleep(READ_PAUSE);
            }
        }
    }

    fn retirements(&self) -> Retirements {
        Retirements(self.words.get(self.words.len() - MORE_WORDS).load(Ordering::SeqCst))
    }

    fn set_retirements(&self, retirements: Retirements) {
        self.words.get(self.words.len() - MORE_WORDS).store(retirements.0, Ordering::SeqCst);
    }

    /// The slot with the sum of the workers that have exited.
    fn retired(&self, retirements: Retirements) -> usize {
        places(&self.words) + RETIRED + retirements.turn()
    }

    /// The counters of the parent itself.
    pub(crate) fn parent_stats(&self) -> Stats {
        self.read(places(&self.words) + PARENT)
    }

    /// Adds the counters of a worker that has exited, and clears its slot. Its request counts as
    /// failed. Returns whether the worker had started.
    pub(crate) fn retire(&self, place: usize) -> bool {
        let _retiring = self.retiring.lock();
        let started = self.has_started(place);
        let retirements = self.retirements();
        self.add_to_retired(place, retirements);
        for word in 0..SLOT_WORDS {
            self.words.get(place * SLOT_WORDS + word).store(0, Ordering::Release);
        }
        self.set_retirements(retirements.next(None).next(None));
        if let Some(addresses) = self.addresses.get() {
            addresses.clear(place);
        }
        started
    }

    /// Writes the sum with the counters of a worker to the slot that is not read, and has it read from
    /// now on, without the worker's slot.
    fn add_to_retired(&self, place: usize, retirements: Retirements) {
        let sum = self.read(self.retired(retirements)).plus(&self.read(place).all_ended());
        let next = retirements.next(Some(place));
        Slot { words: Arc::clone(&self.words), epoch: self.epoch, place: self.retired(next) }.publish(&sum);
        self.set_retirements(next);
    }

    /// Whether the worker can serve.
    pub(crate) fn has_started(&self, place: usize) -> bool {
        self.started(place) & !EXITS != 0
    }

    /// Whether the worker has stopped accepting.
    pub(crate) fn has_stopped(&self, place: usize) -> bool {
        self.started(place) & !EXITS == STOPPED
    }

    /// Whether the worker runs the hook `worker_exit`.
    pub(crate) fn is_exiting(&self, place: usize) -> bool {
        self.started(place) & EXITS != 0
    }

    fn started(&self, place: usize) -> u64 {
        self.words.get(place * SLOT_WORDS + STARTED).load(Ordering::Acquire)
    }

    /// The status with which a worker exits, if it has ended in an orderly way.
    pub(crate) fn exit_status(&self, place: usize) -> Option<i32> {
        let word = self.words.get(place * SLOT_WORDS + EXIT).load(Ordering::Acquire);
        i32::try_from(word.checked_sub(1)?).ok()
    }

    /// The time since the last heartbeat of a worker that is stuck: silent for longer than
    /// `heartbeat`, or with a handler that has not returned after its deadline. A silence begins at
    /// `resumed` at the earliest, when the parent began to run.
    pub(crate) fn stuck_for(
        &self,
        place: usize,
        heartbeat: Duration,
        resumed: Instant,
    ) -> Option<Duration> {
        let beat = self.words.get(place * SLOT_WORDS + BEAT).load(Ordering::Relaxed);
        let now = self.epoch.elapsed().as_millis() as u64;
        let silence = Duration::from_millis(now.saturating_sub(beat & !STUCK));
        let silence = silence.min(resumed.elapsed());
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

    /// How many requests a worker has.
    pub(crate) fn in_flight(&self, place: usize) -> usize {
        usize::try_from(self.read(place).in_flight).unwrap_or(usize::MAX)
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
                return with_idle_in_flight(Stats::from_words(words));
            }
            std::hint::spin_loop();
        }
        with_idle_in_flight(Stats::from_words(words).normalized())
    }
}

/// The state of retirements as one word, so that it changes at once: a number, which each retirement
/// increases twice, and the place of a worker that is in the sum already and whose slot is being
/// cleared, plus one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Retirements(u64);

impl Retirements {
    fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn summed(self) -> Option<usize> {
        (self.0 as u32 as usize).checked_sub(1)
    }

    /// Which slot has the sum.
    fn turn(self) -> usize {
        (self.number().div_ceil(2) % 2) as usize
    }

    fn next(self, summed: Option<usize>) -> Retirements {
        let place = summed.map_or(0, |place| place as u64 + 1);
        Retirements(u64::from(self.number().wrapping_add(1)) << 32 | place)
    }
}

/// A worker publishes how many connections are idle apart from the other counters.
fn with_idle_in_flight(stats: Stats) -> Stats {
    Stats { idle: stats.idle.min(stats.in_flight), ..stats }
}

/// The number of slots for workers.
fn places(words: &SharedWords) -> usize {
    words.len() / SLOT_WORDS - MORE_SLOTS
}

impl Slot {
    /// Publishes the counters.
    pub(crate) fn publish(&self, stats: &Stats) {
        self.word(SEQUENCE).fetch_add(1, Ordering::AcqRel);
        for (number, value) in stats.to_words().into_iter().enumerate() {
            if number != IDLE_WORD {
                self.word(STATS + number).store(value, Ordering::Release);
            }
        }
        self.word(SEQUENCE).fetch_add(1, Ordering::AcqRel);
    }

    /// Publishes that a connection of the worker is idle from now on, or no more.
    #[inline]
    pub(crate) fn count_idle(&self, is_idle: bool) {
        let idle = self.word(STATS + IDLE_WORD);
        match is_idle {
            true => idle.fetch_add(1, Ordering::AcqRel),
            false => idle.fetch_sub(1, Ordering::AcqRel),
        };
    }

    /// The permits of all workers.
    pub(crate) fn permits(&self) -> SharedPermits {
        SharedPermits {
            words: Arc::clone(&self.words),
            first: PERMITS,
            stride: SLOT_WORDS,
            places: self.places(),
            place: self.place,
        }
    }

    /// Counts another connection of the client address in this worker, unless that has `most` in all
    /// workers. Returns whether it has not.
    pub(crate) fn admit_address(&self, board: &Scoreboard, ip: IpAddr, most: usize) -> bool {
        let Some(addresses) = board.addresses.get() else { return true };
        let _lock = self.lock();
        addresses.admit(self.place, ip, most)
    }

    /// Forgets a connection that was admitted.
    pub(crate) fn forget_address(&self, board: &Scoreboard, ip: IpAddr) {
        board.addresses.get().into_iter().for_each(|addresses| addresses.forget(self.place, ip));
    }

    /// Records that the worker can serve.
    pub(crate) fn start(&self) {
        self.heartbeat();
        self.word(PID).store(std::process::id().into(), Ordering::Release);
        self.word(STARTED).fetch_or(ACCEPTS, Ordering::AcqRel);
    }

    /// Records that a forked child has the slot.
    pub(crate) fn start_child(&self, pid: process::Pid) {
        self.word(STARTED).store(CHILD, Ordering::Release);
        self.word(PID).store(u64::try_from(pid).unwrap_or_default(), Ordering::Release);
    }

    /// Counts a request that the process has served.
    #[inline]
    pub(crate) fn count_request(&self) {
        self.word(REQUESTS).fetch_add(1, Ordering::Relaxed);
    }

    /// Records that the worker has stopped accepting.
    pub(crate) fn stop(&self) {
        self.word(STARTED).fetch_or(STOPPED, Ordering::AcqRel);
    }

    /// Records that the worker begins to exit.
    pub(crate) fn begin_exit(&self) {
        self.heartbeat();
        self.word(STARTED).fetch_or(EXITS, Ordering::AcqRel);
    }

    /// Records the status with which the worker exits next.
    pub(crate) fn set_exit_status(&self, status: i32) {
        self.word(EXIT).store(status as u64 + 1, Ordering::Release);
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
        let word = self.lock_word();
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

    fn lock_word(&self) -> &AtomicU64 {
        self.words.get(self.words.len() - 1)
    }

    fn places(&self) -> usize {
        places(&self.words)
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
    fn idle_connections_are_counted_until_they_end() {
        let board = Scoreboard::new(1).unwrap();
        let slot = board.slot(0);
        slot.count_idle(true);
        assert_eq!(board.stats().idle, 0, "there is no connection");
        slot.publish(&some());
        assert_eq!(board.stats().idle, 1);
        slot.count_idle(false);
        assert_eq!(board.stats().idle, 0);
        slot.count_idle(true);
        board.retire(0);
        assert_eq!((board.stats().idle, board.stats().failed), (0, 1));
    }

    #[test]
    fn the_counters_do_not_decrease_while_workers_are_replaced() {
        let board = Scoreboard::new(2).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..20_000 {
                    let place = round % 2;
                    board.slot(place).publish(&some());
                    board.retire(place);
                }
                done.store(true, Ordering::SeqCst);
            });
            let mut before = Stats::default();
            while !done.load(Ordering::SeqCst) {
                let stats = board.stats();
                let is_more = stats.accepted >= before.accepted && stats.finished >= before.finished;
                assert!(is_more && stats.is_consistent(), "{before} {stats}");
                before = stats;
            }
        });
        assert_eq!(board.stats().accepted, 40_000);
    }

    #[test]
    fn a_parent_that_is_paused_in_a_retirement_changes_no_counters() {
        let board = Scoreboard::new(2).unwrap();
        for round in 1..=3 {
            board.slot(0).publish(&some());
            board.slot(1).publish(&some());
            let before = board.stats();
            let retirements = board.retirements();
            board.add_to_retired(0, retirements);
            let ended = |stats: Stats| (stats.accepted, stats.finished, stats.in_flight);
            for word in 0..SLOT_WORDS {
                let stats = board.stats();
                assert!(stats.is_consistent() && stats.failed == before.failed + 1, "{word}: {stats}");
                assert_eq!(ended(stats), (before.accepted, before.finished, 1), "after {word} words");
                board.words.get(word).store(0, Ordering::Release);
            }
            board.set_retirements(retirements.next(None).next(None));
            assert_eq!(ended(board.stats()), (before.accepted, before.finished, 1));
            board.retire(1);
            assert_eq!(ended(board.stats()), (4 * round, 2 * round, 0));
        }
    }

    #[test]
    fn a_renewed_board_counts_no_connection_of_the_parent() {
        let board = Scoreboard::new(1).unwrap();
        board.count_addresses(10).unwrap();
        let (slot, ip) = (board.slot(0), "192.0.2.1".parse().unwrap());
        assert!(slot.admit_address(&board, ip, 1) && !slot.admit_address(&board, ip, 1));
        board.renew().unwrap();
        assert!(board.slot(0).admit_address(&board, ip, 1));
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
        let lock = slots[0].lock_word();
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
        let begin = board.epoch;
        while slot.now() < 3 {
            std::thread::yield_now();
        }
        assert!(board.stuck_for(0, Duration::from_millis(1), begin).is_some());
        assert!(board.stuck_for(0, Duration::from_secs(60), begin).is_none());
        let resumed = Instant::now() + Duration::from_secs(60);
        let silence = board.stuck_for(0, Duration::from_millis(1), resumed);
        assert!(silence.is_none(), "the parent has not run for longer than that");
        slot.heartbeat();
        assert!(board.stuck_for(0, Duration::from_secs(60), begin).is_none());
        slot.set_stuck();
        assert!(board.stuck_for(0, Duration::from_secs(60), begin).is_some());
        slot.heartbeat();
        assert!(board.stuck_for(0, Duration::from_secs(60), begin).is_none());
    }
}
