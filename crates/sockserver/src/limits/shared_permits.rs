//! The permits of a server whose worker processes have several connections each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::os::process::SharedWords;

/// The numbers of permits that worker processes have taken, a word for each. The word of a process
/// that was killed is cleared by the parent, so no permit is lost.
pub(crate) struct SharedPermits {
    pub(crate) words: Arc<SharedWords>,
    /// The index of the first process's word, and the distance to the next one.
    pub(crate) first: usize,
    pub(crate) stride: usize,
    /// The number of processes.
    pub(crate) places: usize,
    /// The place of this process.
    pub(crate) place: usize,
}

/// Attempts to take a permit that seems to be left, while other processes try too.
const ATTEMPTS: u32 = 16;

impl SharedPermits {
    fn word(&self, place: usize) -> &AtomicU64 {
        self.words.get(self.first + place * self.stride)
    }

    /// Returns how many permits all processes have.
    pub(crate) fn taken(&self) -> u64 {
        (0..self.places).fold(0, |sum, place| sum.saturating_add(self.word(place).load(Ordering::SeqCst)))
    }

    /// Takes a permit if fewer than `most` are taken. Never are more taken than that, but of several
    /// processes that try to take the last one at the same moment, all may fail.
    pub(crate) fn try_take(&self, most: usize) -> bool {
        for _ in 0..ATTEMPTS {
            // Counted first, so that the others see it: each of two that see the other one gives back.
            self.take();
            if self.taken() <= most as u64 {
                return true;
            }
            self.give_back();
            if self.taken() >= most as u64 {
                return false;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Takes a permit beyond the limit.
    pub(crate) fn take(&self) {
        self.word(self.place).fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn give_back(&self) {
        self.word(self.place).fetch_sub(1, Ordering::SeqCst);
    }
}

// Only Unix has the shared memory.
#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn processes(places: usize) -> Vec<SharedPermits> {
        let words = Arc::new(SharedWords::new(1 + places * 3).unwrap());
        let process =
            |place| SharedPermits { words: Arc::clone(&words), first: 1, stride: 3, places, place };
        (0..places).map(process).collect()
    }

    #[test]
    fn all_processes_together_have_no_more_permits_than_the_limit() {
        let processes = processes(2);
        assert!((0..2).all(|_| processes[0].try_take(3)));
        assert!(processes[1].try_take(3) && !processes[1].try_take(3) && !processes[0].try_take(3));
        processes[0].give_back();
        assert!(processes[1].try_take(3));
        // The parent clears the word of a process that was killed.
        processes[1].word(1).store(0, Ordering::SeqCst);
        assert_eq!(processes[0].taken(), 1);
    }

    #[test]
    fn concurrent_processes_never_exceed_the_limit() {
        let processes = processes(4);
        let held = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for process in &processes {
                let held = &held;
                scope.spawn(move || {
                    for _ in 0..5000 {
                        if process.try_take(2) {
                            assert!(held.fetch_add(1, Ordering::SeqCst) < 2);
                            held.fetch_sub(1, Ordering::SeqCst);
                            process.give_back();
                        }
                    }
                });
            }
        });
        assert_eq!(processes[0].taken(), 0);
    }
}
