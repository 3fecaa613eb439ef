//! Names of TCP states in ss(8).

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use crate::socket::tcp_info::TcpState;

/// Names of a state.
impl TcpState {
    /// Returns the name in the first column of `ss -tan`, such as `ESTAB` and `FIN-WAIT-1`.
    ///
    /// Returns `UNKNOWN` for [`TcpState::Other`]. [`Display`](fmt::Display) prints C's name instead.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::TcpState;
    ///
    /// assert_eq!((TcpState::FinWait1.ss_name(), TcpState::FinWait1.to_string()), ("FIN-WAIT-1", "FIN_WAIT1".into()));
    /// ```
    #[must_use]
    pub fn ss_name(self) -> &'static str {
        SS_NAMES.iter().find(|(known, ..)| *known == self).map_or("UNKNOWN", |(_, name, _)| name)
    }
}

/// Reads C's names, the names in the output of ss(8), and those of its filters, in capital letters
/// or small ones: `ESTABLISHED`, `ESTAB` and `established` are the same state.
///
/// # Examples
///
/// ```
/// use sock::TcpState;
///
/// for name in ["FIN_WAIT1", "FIN-WAIT-1", "fin-wait-1"] {
///     assert_eq!(name.parse(), Ok(TcpState::FinWait1));
/// }
/// assert_eq!("FIN-WAIT-3".parse::<TcpState>().unwrap_err().to_string(), "FIN-WAIT-3 is not a TCP state");
/// ```
impl FromStr for TcpState {
    type Err = ParseTcpStateError;

    fn from_str(name: &str) -> Result<TcpState, ParseTcpStateError> {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        SS_NAMES
            .iter()
            .find(|(state, column, filter)| is(column) || is(filter) || is(&state.to_string()))
            .map(|(state, ..)| *state)
            .ok_or_else(|| ParseTcpStateError(name.to_owned()))
    }
}

/// A name that is not one of a TCP state.
///
/// # Examples
///
/// ```
/// use sock::{ParseTcpStateError, TcpState};
///
/// let error: ParseTcpStateError = "FIN-WAIT-3".parse::<TcpState>().unwrap_err();
/// assert_eq!(error.to_string(), "FIN-WAIT-3 is not a TCP state");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseTcpStateError(String);

impl fmt::Display for ParseTcpStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a TCP state", self.0)
    }
}

impl Error for ParseTcpStateError {}

/// States with their names in ss(8): in its output and in its filters (`sstate_name` and
/// `sstate_namel` in iproute2's ss.c).
pub(super) const SS_NAMES: [(TcpState, &str, &str); 11] = [
    (TcpState::Established, "ESTAB", "established"),
    (TcpState::SynSent, "SYN-SENT", "syn-sent"),
    (TcpState::SynRecv, "SYN-RECV", "syn-recv"),
    (TcpState::FinWait1, "FIN-WAIT-1", "fin-wait-1"),
    (TcpState::FinWait2, "FIN-WAIT-2", "fin-wait-2"),
    (TcpState::TimeWait, "TIME-WAIT", "time-wait"),
    (TcpState::Close, "UNCONN", "closed"),
    (TcpState::CloseWait, "CLOSE-WAIT", "close-wait"),
    (TcpState::LastAck, "LAST-ACK", "last-ack"),
    (TcpState::Listen, "LISTEN", "listening"),
    (TcpState::Closing, "CLOSING", "closing"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for (state, column, filter) in SS_NAMES {
            for name in [column, filter, &state.to_string(), &column.to_lowercase()] {
                assert_eq!(name.parse(), Ok(state), "{name}");
            }
            assert_eq!(state.ss_name(), column);
        }
        assert_eq!(TcpState::Other(77).ss_name(), "UNKNOWN");
        assert!("".parse::<TcpState>().is_err());
    }
}
