//! Counters of what handlers do: requests and their durations, and bytes.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::durations::{Buckets, DurationHistogram, MAX_BOUNDS};
use crate::limits::stats::Stats;
use crate::os::process::SharedWords;

/// The counters, in memory that all processes of the server share.
pub(crate) struct Traffic {
    words: Words,
    buckets: Buckets,
}

/// A server that forks has the memory from its start, so each process counts in the same words.
enum Words {
    Local(Box<[AtomicU64; WORDS]>),
    Shared(SharedWords),
}

/// The words: bytes received and sent, the sum of the durations in milliseconds, and the number of
/// requests in each bucket. The last bucket is that of requests beyond each bound.
const RECEIVED: usize = 0;
const SENT: usize = 1;
const DURATION: usize = 2;
const BUCKETS: usize = 3;
const WORDS: usize = BUCKETS + MAX_BOUNDS + 1;

impl Traffic {
    /// Creates the counters of a server, which may fork.
    pub(crate) fn new(forks: bool, buckets: &Buckets) -> io::Result<Arc<Traffic>> {
        let words = match forks {
            true => Words::Shared(SharedWords::new(WORDS)?),
            false => Words::Local(Box::new([const { AtomicU64::new(0) }; WORDS])),
        };
        Ok(Arc::new(Traffic { words, buckets: *buckets }))
    }

    /// Replaces the counters by those of a process that shares none with its parent.
    pub(crate) fn renew(&self) -> io::Result<()> {
        match &self.words {
            Words::Local(_) => Ok(()),
            Words::Shared(words) => words.renew(),
        }
    }

    #[inline]
    fn word(&self, number: usize) -> &AtomicU64 {
        match &self.words {
            Words::Local(words) => &words[number],
            Words::Shared(words) => words.get(number),
        }
    }

    #[inline]
    fn add(&self, number: usize, count: u64) {
        if count > 0 {
            self.word(number).fetch_add(count, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn add_bytes(&self, received: u64, sent: u64) {
        self.add(RECEIVED, received);
        self.add(SENT, sent);
    }

    /// Counts a request that took so many milliseconds.
    #[inline]
    pub(crate) fn add_request(&self, milliseconds: u64) {
        self.add(DURATION, milliseconds);
        self.word(BUCKETS + self.buckets.index_of(milliseconds)).fetch_add(1, Ordering::Relaxed);
    }

    /// Fills in what is counted here.
    pub(crate) fn complete(&self, stats: Stats) -> Stats {
        let load = |number: usize| self.word(number).load(Ordering::Relaxed);
        let counts = std::array::from_fn(|index| load(BUCKETS + index));
        let request_duration = DurationHistogram::new(self.buckets, counts, load(DURATION));
        Stats {
            requests: request_duration.count(),
            request_duration,
            bytes_received: load(RECEIVED),
            bytes_sent: load(SENT),
            ..stats
        }
    }
}

/// Marks this thread as serving a request of a server, until [`end`](CountingThread::end).
///
/// Meanwhile the bytes that it receives and sends are counted in the thread, which takes no atomic
/// operation, and are added to the server's counters at the end. They are added earlier if they are
/// many, so that the bytes of a connection with a single long request are seen too.
pub(crate) struct CountingThread {
    /// The server that a handler runs inside may be served by the handler of another server.
    outer: Pending,
}

/// Bytes that are not added yet.
#[derive(Clone, Copy)]
struct Pending {
    /// The address of the server's [`Traffic`], 0 for none.
    traffic: usize,
    received: usize,
    sent: usize,
}

impl Pending {
    const NONE: Pending = Pending { traffic: 0, received: 0, sent: 0 };
}

/// [`Pending`] of this thread. The fields are apart, so that a receive reads and writes its own only.
struct PendingCells {
    traffic: Cell<usize>,
    received: Cell<usize>,
    sent: Cell<usize>,
}

impl PendingCells {
    fn replace(&self, pending: Pending) -> Pending {
        Pending {
            traffic: self.traffic.replace(pending.traffic),
            received: self.received.replace(pending.received),
            sent: self.sent.replace(pending.sent),
        }
    }
}

thread_local! {
    static PENDING: PendingCells = const {
        PendingCells { traffic: Cell::new(0), received: Cell::new(0), sent: Cell::new(0) }
    };
}

/// With so many bytes in either direction they are added.
const MANY: usize = 1 << 14;

impl CountingThread {
    #[inline]
    pub(crate) fn begin(traffic: &Arc<Traffic>) -> CountingThread {
        let own = Pending { traffic: Arc::as_ptr(traffic).addr(), ..Pending::NONE };
        CountingThread { outer: PENDING.with(|pending| pending.replace(own)) }
    }

    /// Adds what this thread has counted.
    #[inline]
    pub(crate) fn end(self, traffic: &Traffic) {
        let Pending { received, sent, .. } = PENDING.with(|pending| pending.replace(self.outer));
        traffic.add_bytes(received as u64, sent as u64);
    }
}

impl Traffic {
    #[inline]
    pub(crate) fn count_received(&self, bytes: usize) {
        self.count(bytes, |pending| &pending.received, RECEIVED);
    }

    #[inline]
    pub(crate) fn count_sent(&self, bytes: usize) {
        self.count(bytes, |pending| &pending.sent, SENT);
    }

    #[inline(always)]
    fn count(&self, bytes: usize, direction: fn(&PendingCells) -> &Cell<usize>, word: usize) {
        let is_pending = PENDING.with(|pending| {
            let all = direction(pending).get() + bytes;
            // A thread that a handler has started, or a hook, adds at once.
            let is_pending = pending.traffic.get() == std::ptr::from_ref(self).addr() && all < MANY;
            if is_pending {
                direction(pending).set(all);
            }
            is_pending
        });
        if !is_pending {
            self.count_at_once(bytes, direction, word);
        }
    }

    #[cold]
    fn count_at_once(&self, bytes: usize, direction: fn(&PendingCells) -> &Cell<usize>, word: usize) {
        let gathered = PENDING.with(|pending| {
            let is_own = pending.traffic.get() == std::ptr::from_ref(self).addr();
            if is_own { direction(pending).replace(0) } else { 0 }
        });
        self.add(word, (bytes + gathered) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Arc<Traffic> {
        Traffic::new(false, &Buckets::default()).unwrap()
    }

    fn bytes(traffic: &Traffic) -> (u64, u64) {
        let stats = traffic.complete(Stats::default());
        (stats.bytes_received, stats.bytes_sent)
    }

    #[test]
    fn bytes_are_counted_exactly_at_the_end_of_a_request_and_nearly_before() {
        let traffic = traffic();
        let counting = CountingThread::begin(&traffic);
        let mut sums = (0, 0);
        for count in [1, 100, 16_383, 16_384, 40_000, 16_383, 16_383, 7].into_iter().cycle().take(1000) {
            traffic.count_received(count);
            traffic.count_sent(count / 2);
            sums = (sums.0 + count as u64, sums.1 + count as u64 / 2);
            let counted = bytes(&traffic);
            let is_near = |sum: u64, counted: u64| counted <= sum && sum - counted < MANY as u64;
            assert!(is_near(sums.0, counted.0) && is_near(sums.1, counted.1), "{counted:?} of {sums:?}");
        }
        counting.end(&traffic);
        assert_eq!(bytes(&traffic), sums);
    }

    #[test]
    fn threads_of_a_handler_count_at_once() {
        let traffic = traffic();
        let counting = CountingThread::begin(&traffic);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20_000).for_each(|_| traffic.count_sent(3)));
            }
        });
        traffic.count_sent(1);
        assert_eq!(bytes(&traffic), (0, 240_000));
        counting.end(&traffic);
        assert_eq!(bytes(&traffic), (0, 240_001));
    }

    #[test]
    fn a_server_inside_a_handler_has_bytes_of_its_own() {
        let (outer, inner) = (traffic(), traffic());
        let counting = CountingThread::begin(&outer);
        outer.count_received(1);
        let nested = CountingThread::begin(&inner);
        inner.count_received(10);
        outer.count_received(100);
        nested.end(&inner);
        outer.count_received(1000);
        counting.end(&outer);
        assert_eq!((bytes(&outer), bytes(&inner)), ((1101, 0), (10, 0)));
        outer.count_received(5);
        assert_eq!(bytes(&outer), (1106, 0));
    }

    #[cfg(unix)]
    #[test]
    fn shared_counters_begin_anew_in_another_process_of_its_own() {
        let traffic = Traffic::new(true, &Buckets::default()).unwrap();
        traffic.add_bytes(5, 7);
        traffic.add_request(3);
        let stats = traffic.complete(Stats::default());
        assert_eq!((stats.requests, stats.bytes_received, stats.bytes_sent), (1, 5, 7));
        traffic.renew().unwrap();
        let stats = traffic.complete(Stats::default());
        assert_eq!((stats.requests, stats.bytes_received, stats.bytes_sent), (0, 0, 0));
    }
}
