//! Which deadline a receive is for, and which one the system knows of.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::limits::DeadlineKind;

/// The deadlines that a call can end with, by their place in [`CALLS`].
pub(crate) const CALLS: [DeadlineKind; 4] =
    [DeadlineKind::Read, DeadlineKind::Write, DeadlineKind::FirstByte, DeadlineKind::Idle];
pub(crate) const READ: u8 = 0;
pub(crate) const WRITE: u8 = 1;
pub(crate) const IDLE: u8 = 3;
pub(crate) const NOT_LATE: u8 = u8::MAX;
/// The system has been told of no deadline.
pub(crate) const NONE_ARMED: u8 = 15;

pub(crate) fn place_of(deadline: DeadlineKind) -> u8 {
    CALLS.iter().position(|call| *call == deadline).unwrap_or_default() as u8
}

/// The deadline that the next receive is for, READ but in a process that nobody watches,
/// and the one that the system has been told of. They share a byte.
pub(crate) struct RecvTimeoutState(AtomicU8);

impl RecvTimeoutState {
    pub(crate) fn of(reading_for: u8, told_for: u8) -> RecvTimeoutState {
        RecvTimeoutState(AtomicU8::new(reading_for | told_for << 4))
    }

    pub(crate) fn wanted(&self) -> u8 {
        self.0.load(Ordering::Relaxed) & 15
    }

    pub(crate) fn armed(&self) -> u8 {
        self.0.load(Ordering::Relaxed) >> 4
    }

    pub(crate) fn set(&self, reading_for: u8, told_for: u8) {
        self.0.store(reading_for | told_for << 4, Ordering::Relaxed);
    }
}
