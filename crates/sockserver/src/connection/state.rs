//! Where a connection stands, and until when.

use crate::limits::Deadline;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepted, and not yet begun by a worker.
    Queued,
    /// In `wrap_request`.
    Wrapping,
    /// The client has said nothing yet, and been told nothing.
    Silent,
    /// A request is being served.
    Busy,
    /// Between two requests.
    Between,
    /// Ended by a deadline.
    Overdue(Deadline),
    /// Ended by a drain that found it idle.
    Dismissed,
    /// Ended by a drain whose time was over.
    Drained,
}

/// A phase and when it is overdue, in one word: so that either the worker goes
/// on or the reaper ends it, and never both.
#[derive(Clone, Copy)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) due: u64,
}

const PHASES: [Phase; 11] = [
    Phase::Queued,
    Phase::Wrapping,
    Phase::Silent,
    Phase::Busy,
    Phase::Between,
    Phase::Dismissed,
    Phase::Overdue(Deadline::Wrap),
    Phase::Overdue(Deadline::FirstByte),
    Phase::Overdue(Deadline::Idle),
    Phase::Overdue(Deadline::Request),
    Phase::Drained,
];

/// From here on a phase is the last.
pub(crate) const OVER: u64 = 6;

impl State {
    pub(crate) fn pack(self) -> u64 {
        self.due << 4 | self.phase.number()
    }

    pub(crate) fn unpack(word: u64) -> State {
        State { phase: PHASES[(word & 15) as usize], due: word >> 4 }
    }
}

impl Phase {
    /// Its place in [`PHASES`].
    fn number(self) -> u64 {
        match self {
            Phase::Queued => 0,
            Phase::Wrapping => 1,
            Phase::Silent => 2,
            Phase::Busy => 3,
            Phase::Between => 4,
            Phase::Dismissed => 5,
            Phase::Overdue(Deadline::Wrap) => 6,
            Phase::Overdue(Deadline::FirstByte) => 7,
            Phase::Overdue(Deadline::Idle) => 8,
            // No other deadline ends a connection.
            Phase::Overdue(_) => 9,
            Phase::Drained => 10,
        }
    }

    /// Whether nothing may follow. One that was dismissed goes on if its client
    /// spoke at the same moment: its answer still gets through.
    pub(crate) fn is_over(self) -> bool {
        self.number() >= OVER
    }

    /// Whether no request has begun: a drain closes the connection at once.
    pub(crate) fn is_idle(self) -> bool {
        matches!(self, Phase::Silent | Phase::Between)
    }

    /// The deadline that is running.
    pub(crate) fn deadline(self) -> Option<Deadline> {
        match self {
            Phase::Wrapping => Some(Deadline::Wrap),
            Phase::Silent => Some(Deadline::FirstByte),
            Phase::Busy => Some(Deadline::Request),
            Phase::Between => Some(Deadline::Idle),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::clock::NEVER;

    #[test]
    fn a_state_fits_into_its_word() {
        for phase in PHASES {
            for due in [0, 1, 12_345_678, NEVER] {
                let state = State::unpack(State { phase, due }.pack());
                assert_eq!((state.phase, state.due), (phase, due));
            }
        }
    }
}
