//! The accept rate per address: the crate `governor`, with counters that processes share.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use sock::Address;

use crate::os::process::SharedWords;

/// Limits how often clients of one address are accepted.
pub(crate) struct AcceptRate<C: Clock = Uptime> {
    limiter: RateLimiter<u64, AddressTable, C, NoOpMiddleware<C::Instant>>,
    table: AddressTable,
    /// Its keys are random, so that clients cannot choose addresses of the same bucket.
    hasher: RandomState,
}

impl AcceptRate {
    /// Allows `burst` clients of an address at once, and `per_second` more in each second. The
    /// processes of a server that forks share the counters.
    pub(crate) fn new(per_second: u32, burst: u32, forks: bool) -> io::Result<AcceptRate> {
        AcceptRate::with_clock(per_second, burst, forks, Uptime { epoch: Instant::now() })
    }
}

impl<C: Clock> AcceptRate<C> {
    fn with_clock(per_second: u32, burst: u32, forks: bool, clock: C) -> io::Result<AcceptRate<C>> {
        // `bind` has refused 0.
        let [per_second, burst] =
            [per_second, burst].map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let table = AddressTable::new(forks)?;
        let limiter = RateLimiter::new(quota, table.clone(), clock);
        Ok(AcceptRate { limiter, table, hasher: RandomState::new() })
    }

    /// Counts a client, and returns whether it is within the limit.
    pub(crate) fn allows(&self, client: &Address) -> bool {
        let Some(ip) = client.ip() else { return true };
        let network = match ip.to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4(ip),
            // A host has all addresses of such a network (RFC 4291, 2.5.1).
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        };
        // 0 stands for a free place.
        let key = self.hasher.hash_one(network).max(1);
        self.limiter.check_key(&key).is_ok()
    }

    /// Separates the counters from those of the parent process, after a fork. They begin again.
    pub(crate) fn renew(&self) -> io::Result<()> {
        self.table.renew()
    }
}

/// The time since the server was created, the same in all of its processes.
#[derive(Clone, Copy)]
pub(crate) struct Uptime {
    epoch: Instant,
}

impl Clock for Uptime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}

/// A table of addresses, in memory that processes share. Its size is fixed.
///
/// A place has two words: the key of an address, and the time in nanoseconds until which it has used
/// its burst (governor's theoretical arrival time). An address whose time has passed needs no place. A
/// new address takes the place in its bucket whose time is the earliest, so an address that is limited
/// loses its place only if all places of the bucket are in use.
///
/// There is no lock that a process could be killed with. If two processes take the same place at the
/// same time, one of the two addresses may begin again with the time of the other.
#[derive(Clone)]
struct AddressTable {
    words: Arc<Words>,
}

enum Words {
    Local(Box<[AtomicU64]>),
    Shared(SharedWords),
}

impl AddressTable {
    const BUCKETS: usize = 2048;
    const PLACES: usize = 8;

    fn new(forks: bool) -> io::Result<AddressTable> {
        let len = AddressTable::BUCKETS * AddressTable::PLACES * 2;
        let words = match forks {
            true => Words::Shared(SharedWords::new(len)?),
            false => Words::Local((0..len).map(|_| AtomicU64::new(0)).collect()),
        };
        Ok(AddressTable { words: Arc::new(words) })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        match &*self.words {
            Words::Local(words) => &words[index],
            Words::Shared(words) => words.get(index),
        }
    }

    fn renew(&self) -> io::Result<()> {
        match &*self.words {
            Words::Local(_) => Ok(()),
            Words::Shared(words) => words.renew(),
        }
    }
}

impl StateStore for AddressTable {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let bucket = *key as usize % AddressTable::BUCKETS * AddressTable::PLACES;
        let places = || (bucket..bucket + AddressTable::PLACES).map(|place| place * 2);
        loop {
            let found = places().find(|place| self.word(*place).load(Ordering::SeqCst) == *key);
            if let Some(place) = found {
                let time = self.word(place + 1).load(Ordering::SeqCst);
                let (outcome, next) = f(Some(time.into()))?;
                let next: u64 = next.into();
                let replaced =
                    self.word(place + 1).compare_exchange(time, next, Ordering::SeqCst, Ordering::SeqCst);
                if replaced.is_ok() {
                    return Ok(outcome);
                }
                // Another process or thread has counted a client.
                continue;
            }
            let time = |place: &usize| self.word(place + 1).load(Ordering::SeqCst);
            let Some(place) = places().min_by_key(time) else { continue };
            let former = self.word(place).load(Ordering::SeqCst);
            let (outcome, next) = f(None)?;
            // The key first: others that find it with the old time are limited too early at most.
            let taken = self.word(place).compare_exchange(former, *key, Ordering::SeqCst, Ordering::SeqCst);
            if taken.is_ok() {
                self.word(place + 1).store(next.into(), Ordering::SeqCst);
                return Ok(outcome);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn address(text: &str) -> Address {
        SocketAddr::new(text.parse().unwrap(), 1).into()
    }

    /// Calls the test with a table of one process, and with one that processes share.
    fn with_each_table(
        per_second: u32,
        burst: u32,
        test: impl Fn(&AcceptRate<FakeRelativeClock>, &FakeRelativeClock),
    ) {
        let kinds: &[bool] = if cfg!(unix) { &[false, true] } else { &[false] };
        for forks in kinds {
            let clock = FakeRelativeClock::default();
            test(&AcceptRate::with_clock(per_second, burst, *forks, clock.clone()).unwrap(), &clock);
        }
    }

    fn count(rate: &AcceptRate<FakeRelativeClock>, client: &str, attempts: usize) -> usize {
        let client = address(client);
        (0..attempts).filter(|_| rate.allows(&client)).count()
    }

    #[test]
    fn a_burst_is_accepted_and_then_the_rate() {
        with_each_table(2, 5, |rate, clock| {
            assert_eq!(count(rate, "192.0.2.1", 20), 5);
            clock.advance(Duration::from_millis(499));
            assert_eq!(count(rate, "192.0.2.1", 20), 0, "refused attempts do not extend the wait");
            clock.advance(Duration::from_millis(1));
            assert_eq!(count(rate, "192.0.2.1", 20), 1);
            clock.advance(Duration::from_secs(1));
            assert_eq!(count(rate, "192.0.2.1", 20), 2);
            clock.advance(Duration::from_secs(3600));
            assert_eq!(count(rate, "192.0.2.1", 20), 5, "no more than a burst");
        });
    }

    #[test]
    fn each_ipv4_address_and_each_ipv6_network_has_its_own_rate() {
        with_each_table(1, 1, |rate, _| {
            assert_eq!(count(rate, "192.0.2.1", 3), 1);
            assert_eq!(count(rate, "192.0.2.2", 3), 1);
            assert_eq!(count(rate, "::ffff:192.0.2.1", 3), 0, "the same client");
            assert_eq!(count(rate, "2001:db8:0:1::1", 3), 1);
            assert_eq!(count(rate, "2001:db8:0:1:ffff::9", 3), 0, "the same network");
            assert_eq!(count(rate, "2001:db8:0:2::1", 3), 1);
            let unix = Address::Unix(sock::UnixAddress::Unnamed);
            assert!((0..10).all(|_| rate.allows(&unix)));
        });
    }

    #[test]
    fn the_table_is_bounded_and_keeps_addresses_that_are_limited() {
        with_each_table(1, 100, |rate, clock| {
            assert_eq!(count(rate, "192.0.2.1", 200), 100);
            // As many addresses as there are places, each of which needs its place for a second only.
            for number in 0..16_384_u32 {
                assert!(rate.allows(&SocketAddr::new(IpAddr::V4(number.into()), 1).into()));
            }
            assert_eq!(count(rate, "192.0.2.1", 200), 0, "it has the latest time of its bucket");
            clock.advance(Duration::from_secs(3600));
            for number in 0..100_000_u32 {
                assert!(rate.allows(&SocketAddr::new(IpAddr::V4(((number + 1) << 12).into()), 1).into()));
            }
        });
    }

    #[test]
    fn concurrent_clients_of_one_address_are_counted_exactly() {
        with_each_table(1, 1000, |rate, _| {
            let allowed = std::thread::scope(|scope| {
                let asking: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| count(rate, "192.0.2.1", 1000))).collect();
                asking.into_iter().map(|asked| asked.join().unwrap()).sum::<usize>()
            });
            assert!((1000..=1003).contains(&allowed), "{allowed}");
        });
    }

    #[test]
    fn the_largest_values_do_not_overflow() {
        with_each_table(1, 1_000_000, |rate, clock| {
            clock.advance(Duration::from_secs(3600 * 24 * 365 * 100));
            assert_eq!(count(rate, "192.0.2.1", 10), 10);
        });
        with_each_table(1_000_000, 1, |rate, _| assert_eq!(count(rate, "192.0.2.1", 1), 1));
    }
}
