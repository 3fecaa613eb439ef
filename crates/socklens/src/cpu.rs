//! The processor on which packets are forwarded.
//!
//! A device hands a packet to the receive queue of the processor that sent it, and the queues of two
//! processors have no order. On a busy system a packet can so overtake the one before it, if the
//! thread that forwards both moved to another processor in between.

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Keeps the calling thread on one processor until it is dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: Option<CpuSet>,
}

impl Pinned {
    /// Moves the calling thread to this processor. Where that is not allowed the thread stays where it
    /// is: the order of packets is then that of a machine which is not busy.
    pub(crate) fn on(cpu: usize) -> Pinned {
        let mut one = CpuSet::new();
        one.set(cpu);
        let before = sched_getaffinity(None).ok().filter(|before| *before != one);
        let is_moved = before.is_some() && sched_setaffinity(None, &one).is_ok();
        Pinned { before: before.filter(|_| is_moved) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // It can fail only if the processors of the thread were taken from it since.
            let _ = sched_setaffinity(None, before);
        }
    }
}

/// Returns the processor of the calling thread.
pub(crate) fn current() -> usize {
    sched_getcpu()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_pinned_on_a_processor_until_the_guard_is_dropped() {
        let before = sched_getaffinity(None).unwrap();
        let cpu = (0..CpuSet::MAX_CPU).rfind(|cpu| before.is_set(*cpu)).unwrap();
        let pinned = Pinned::on(cpu);
        let within = sched_getaffinity(None).unwrap();
        assert_eq!((within.count(), within.is_set(cpu), current()), (1, true, cpu));
        // Within another guard nothing changes.
        drop(Pinned::on(cpu));
        assert_eq!(sched_getaffinity(None).unwrap(), within);
        drop(pinned);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
