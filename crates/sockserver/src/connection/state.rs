//! The state of a connection and its deadline.

use crate::limits::DeadlineKind;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnState {
    /// Accepted. No worker has begun it yet.
    Queued,
    /// In `wrap_request`.
    Wrapping,
    /// Nothing has been received or sent yet.
    AwaitingFirstByte,
    /// A request is being served.
    Serving,
    /// Between two requests.
    Idle,
    /// Ended by a deadline.
    Overdue(DeadlineKind),
    /// Closed by a drain that found it idle.
    DrainClosed,
    /// Aborted by a drain whose limit was over.
    DrainAborted,
}

/// A state and its deadline in one word. Either the worker changes it or the deadline timer does,
/// and never both.
#[derive(Clone, Copy)]
pub(crate) struct PackedState {
    pub(crate) state: ConnState,
    pub(crate) due: u64,
}

const STATES: [ConnState; 11] = [
    ConnState::Queued,
    ConnState::Wrapping,
    ConnState::AwaitingFirstByte,
    ConnState::Serving,
    ConnState::Idle,
    ConnState::DrainClosed,
    ConnState::Overdue(DeadlineKind::Wrap),
    ConnState::Overdue(DeadlineKind::FirstByte),
    ConnState::Overdue(DeadlineKind::Idle),
    ConnState::Overdue(DeadlineKind::Request),
    ConnState::DrainAborted,
];

/// The first of the terminal states.
pub(crate) const FIRST_TERMINAL: u64 = 6;

impl PackedState {
    pub(crate) fn pack(self) -> u64 {
        self.due << 4 | self.state.number()
    }

    pub(crate) fn unpack(word: u64) -> PackedState {
        PackedState { state: STATES[(word & 15) as usize], due: word >> 4 }
    }
}

impl ConnState {
    /// Its index in [`STATES`].
    fn number(self) -> u64 {
        match self {
            ConnState::Queued => 0,
            ConnState::Wrapping => 1,
            ConnState::AwaitingFirstByte => 2,
            ConnState::Serving => 3,
            ConnState::Idle => 4,
            ConnState::DrainClosed => 5,
            ConnState::Overdue(DeadlineKind::Wrap) => 6,
            ConnState::Overdue(DeadlineKind::FirstByte) => 7,
            ConnState::Overdue(DeadlineKind::Idle) => 8,
            // The other deadlines end a call and not the connection.
            ConnState::Overdue(_) => 9,
            ConnState::DrainAborted => 10,
        }
    }

    /// Whether the state is final. A connection that a drain closed while it was idle goes on if
    /// its client sent a request at the same moment: the answer still gets through.
    pub(crate) fn is_terminal(self) -> bool {
        self.number() >= FIRST_TERMINAL
    }

    /// Whether no request has begun. A drain closes such a connection at once.
    pub(crate) fn is_idle(self) -> bool {
        matches!(self, ConnState::AwaitingFirstByte | ConnState::Idle)
    }

    /// The deadline that applies in this state.
    pub(crate) fn deadline(self) -> Option<DeadlineKind> {
        match self {
            ConnState::Wrapping => Some(DeadlineKind::Wrap),
            ConnState::AwaitingFirstByte => Some(DeadlineKind::FirstByte),
            ConnState::Serving => Some(DeadlineKind::Request),
            ConnState::Idle => Some(DeadlineKind::Idle),
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
        for state in STATES {
            for due in [0, 1, 12_345_678, NEVER] {
                let unpacked = PackedState::unpack(PackedState { state, due }.pack());
                assert_eq!((unpacked.state, unpacked.due), (state, due));
            }
        }
    }
}
