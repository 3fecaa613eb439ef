//! How many connections each client address has in the worker processes of a server.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::os::process::SharedWords;

/// A table in shared memory for each worker process, with open addressing. Only its process changes
/// it, and the parent clears it when the process has exited.
#[derive(Clone)]
pub(crate) struct AddressCounts {
    words: Arc<SharedWords>,
    /// Its keys are those of the parent in each process, because fork(2) copies them.
    hasher: RandomState,
    /// The number of entries of each table, a power of two.
    entries: usize,
    /// Behind the tables is a word for each process: how many of its addresses have connections.
    places: usize,
}

/// Words of an entry: the address in two words, and how many connections it has. An entry with 0
/// connections is free, and one that was never used has the address 0 too.
const COUNT: usize = 2;
const ENTRY_WORDS: usize = 3;

/// Linux's default for the descriptors of a process, `fs.nr_open`.
const MAX_CONNECTIONS: usize = 1 << 20;

/// So many entries are tried for an address. The tables are at most half full.
const WINDOW: usize = 64;

impl AddressCounts {
    /// Makes tables for so many connections in each process.
    pub(crate) fn new(places: usize, connections: usize) -> io::Result<AddressCounts> {
        let entries = connections.min(MAX_CONNECTIONS).saturating_mul(2).max(WINDOW).next_power_of_two();
        let words = Arc::new(SharedWords::new(places * entries * ENTRY_WORDS + places)?);
        Ok(AddressCounts { words, hasher: RandomState::new(), entries, places })
    }

    /// Separates the tables from those of the parent process, after a fork.
    pub(crate) fn renew(&self) -> io::Result<()> {
        self.words.renew()
    }

    /// How many addresses of a process have connections, or more for a moment.
    fn live(&self, place: usize) -> &AtomicU64 {
        self.words.get(self.places * self.entries * ENTRY_WORDS + place)
    }

    fn word(&self, entry: usize, number: usize) -> &AtomicU64 {
        self.words.get(entry * ENTRY_WORDS + number)
    }

    /// The entries of a process that may be the one of `key`.
    fn window(&self, place: usize, key: [u64; 2]) -> impl Iterator<Item = usize> {
        let (first, entries) = (self.hasher.hash_one(key) as usize, self.entries);
        (0..WINDOW).map(move |step| place * entries + (first.wrapping_add(step) & (entries - 1)))
    }

    fn key(&self, entry: usize) -> [u64; 2] {
        [0, 1].map(|number| self.word(entry, number).load(Ordering::SeqCst))
    }

    /// Returns the entry of an address that has connections.
    fn find(&self, place: usize, key: [u64; 2]) -> Option<usize> {
        let used = self.window(place, key).take_while(|entry| self.key(*entry) != [0; 2]);
        let mut counted = used.filter(|entry| self.word(*entry, COUNT).load(Ordering::SeqCst) > 0);
        counted.find(|entry| self.key(*entry) == key)
    }

    /// Counts a connection of the process at `place`, unless the address has `most` in all processes.
    /// The caller holds a lock that all processes share.
    pub(crate) fn admit(&self, place: usize, ip: IpAddr, most: usize) -> bool {
        let key = key_of(ip);
        let count = |place| self.find(place, key).map_or(0, |entry| self.count(entry));
        let has_any = |place: &usize| self.live(*place).load(Ordering::SeqCst) > 0;
        if (0..self.places).filter(has_any).map(count).fold(0, u64::saturating_add) >= most as u64 {
            return false;
        }
        if let Some(entry) = self.find(place, key) {
            // Another thread may have forgotten the last one meanwhile.
            if self.word(entry, COUNT).fetch_add(1, Ordering::SeqCst) == 0 {
                self.live(place).fetch_add(1, Ordering::SeqCst);
            }
            return true;
        }
        let free = self.window(place, key).find(|entry| self.count(*entry) == 0);
        let Some(entry) = free else {
            // It cannot be counted, so it is not admitted.
            return false;
        };
        for (number, word) in key.into_iter().enumerate() {
            self.word(entry, number).store(word, Ordering::SeqCst);
        }
        self.live(place).fetch_add(1, Ordering::SeqCst);
        self.word(entry, COUNT).store(1, Ordering::SeqCst);
        true
    }

    fn count(&self, entry: usize) -> u64 {
        self.word(entry, COUNT).load(Ordering::SeqCst)
    }

    /// Forgets a connection that was admitted.
    pub(crate) fn forget(&self, place: usize, ip: IpAddr) {
        if let Some(entry) = self.find(place, key_of(ip)) {
            if self.word(entry, COUNT).fetch_sub(1, Ordering::SeqCst) == 1 {
                self.live(place).fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Clears the table of a process that has exited.
    pub(crate) fn clear(&self, place: usize) {
        self.live(place).store(0, Ordering::SeqCst);
        for entry in place * self.entries..(place + 1) * self.entries {
            // Without the addresses, behind which `find` goes on. Entries that were never used are
            // not written, so that they need no memory.
            if self.key(entry) != [0; 2] {
                (0..ENTRY_WORDS)
                    .rev()
                    .for_each(|number| self.word(entry, number).store(0, Ordering::SeqCst));
            }
        }
    }
}

fn key_of(ip: IpAddr) -> [u64; 2] {
    let bits = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let bits = Ipv6Addr::to_bits(bits);
    [(bits >> 64) as u64, bits as u64]
}

// Only Unix has the shared memory.
#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_address_are_counted_over_all_processes() {
        let counts = AddressCounts::new(3, 100).unwrap();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(counts.admit(0, ip, 3) && counts.admit(0, ip, 3));
        assert!(counts.admit(1, "::ffff:192.0.2.1".parse().unwrap(), 3));
        assert!(!counts.admit(2, ip, 3));
        assert!(counts.admit(2, "192.0.2.2".parse().unwrap(), 3));
        counts.forget(0, ip);
        assert!(counts.admit(2, ip, 3) && !counts.admit(1, ip, 3));
        // The process at 0 was killed.
        counts.clear(0);
        assert!(counts.admit(1, ip, 3) && !counts.admit(1, ip, 3));
    }

    #[test]
    fn a_cleared_table_is_empty() {
        let counts = AddressCounts::new(2, 100).unwrap();
        let ip = |number: u32| IpAddr::from(number.to_be_bytes());
        assert!((1..=100).all(|number| counts.admit(0, ip(number), 2)));
        assert_eq!(counts.live(0).load(Ordering::SeqCst), 100);
        (1..=50).for_each(|number| counts.forget(0, ip(number)));
        assert_eq!(counts.live(0).load(Ordering::SeqCst), 50);
        counts.clear(0);
        assert_eq!(counts.live(0).load(Ordering::SeqCst), 0);
        assert!((0..counts.entries).all(|entry| counts.key(entry) == [0; 2] && counts.count(entry) == 0));
    }

    #[test]
    fn as_many_addresses_as_connections_are_counted() {
        let counts = AddressCounts::new(2, 5000).unwrap();
        let ip = |number: u32| IpAddr::from(number.to_be_bytes());
        for round in 0..3 {
            let range = round * 5000 + 1..=(round + 1) * 5000;
            assert!(range.clone().all(|number| counts.admit(1, ip(number), 1)));
            assert!(range.clone().all(|number| !counts.admit(0, ip(number), 1)));
            range.for_each(|number| counts.forget(1, ip(number)));
        }
    }
}
