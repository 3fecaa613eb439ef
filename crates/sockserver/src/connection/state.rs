//! The state of a connection and its deadline.

use crate::limits::DeadlineKind;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnState {
    /// Accepted. No worker has begun it yet.
    Queued,
    /// The PROXY protocol header is being received.
    ProxyHeader,
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

const STATES: [ConnState; 13] = [
    ConnState::Queued,
    ConnState::ProxyHeader,
    ConnState::Wrapping,
    ConnState::AwaitingFirstByte,
    ConnState::Serving,
    ConnState::Idle,
    ConnState::DrainClosed,
    ConnState::Overdue(DeadlineKind::ProxyHeader),
    ConnState::Overdue(DeadlineKind::Wrap),
    ConnState::Overdue(DeadlineKind::FirstByte),
    ConnState::Overdue(DeadlineKind::Idle),
    ConnState::Overdue(DeadlineKind::Request),
    ConnState::DrainAborted,
];

/// The number of [`ConnState::AwaitingFirstByte`].
const AWAITING_FIRST_BYTE: u64 = 3;

/// The number of [`ConnState::Serving`].
const SERVING: u64 = 4;

/// The number of [`ConnState::Idle`].
const IDLE: u64 = 5;

/// The first of the terminal states.
pub(crate) const FIRST_TERMINAL: u64 = 7;

impl PackedState {
    pub(crate) fn pack(self) -> u64 {
        self.due << 4 | self.state.number()
    }

    /// Returns the deadline if the state is [`ConnState::Serving`].
    #[inline]
    pub(crate) fn due_if_serving(word: u64) -> Option<u64> {
        (word & 15 == SERVING).then_some(word >> 4)
    }

    /// Returns whether the state is idle: see [`ConnState::is_idle`].
    #[inline]
    pub(crate) fn is_idle(word: u64) -> bool {
        matches!(word & 15, AWAITING_FIRST_BYTE | IDLE)
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
            ConnState::ProxyHeader => 1,
            ConnState::Wrapping => 2,
            ConnState::AwaitingFirstByte => AWAITING_FIRST_BYTE,
            ConnState::Serving => SERVING,
            ConnState::Idle => IDLE,
            ConnState::DrainClosed => 6,
            ConnState::Overdue(DeadlineKind::ProxyHeader) => 7,
            ConnState::Overdue(DeadlineKind::Wrap) => 8,
            ConnState::Overdue(DeadlineKind::FirstByte) => 9,
            ConnState::Overdue(DeadlineKind::Idle) => 10,
            // The other deadlines end a call and not the connection.
            ConnState::Overdue(_) => 11,
            ConnState::DrainAborted => 12,
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

    /// Whether neither a handler nor `wrap_request` has been called. Closing such a connection does
    /// not wait for its client.
    pub(crate) fn is_before_request(self) -> bool {
        matches!(self, ConnState::Queued | ConnState::ProxyHeader)
    }

    /// The deadline that applies in this state.
    pub(crate) fn deadline(self) -> Option<DeadlineKind> {
        match self {
            ConnState::ProxyHeader => Some(DeadlineKind::ProxyHeader),
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
                let is_serving = PackedState::due_if_serving(PackedState { state, due }.pack()).is_some();
                assert_eq!(is_serving, state == ConnState::Serving);
                assert_eq!(PackedState::is_idle(PackedState { state, due }.pack()), state.is_idle());
            }
        }
    }
}
