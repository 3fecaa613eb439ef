//! What a relay has done, and why it has ended early.

use std::error::Error;
use std::fmt;
use std::io;

use crate::error::find_error;

/// How many bytes a relay has relayed: received from one stream and sent to the other.
///
/// # Examples
///
/// ```
/// use sock::{RelayCounts, SHUT_WR};
///
/// let (client, front) = sock::socketpair()?;
/// let (back, server) = sock::socketpair()?;
/// client.sendall(b"question")?;
/// client.shutdown(SHUT_WR)?;
/// server.shutdown(SHUT_WR)?;
/// assert_eq!(sock::relay(&front, &back)?, RelayCounts { a_to_b: 8, b_to_a: 0 });
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// From the first stream to the second.
    pub a_to_b: u64,
    /// From the second stream to the first.
    pub b_to_a: u64,
}

/// A direction of a relay between the streams `a` and `b`.
///
/// # Examples
///
/// ```
/// use sock::RelayDirection;
///
/// assert_eq!(RelayDirection::AToB.to_string(), "a to b");
/// assert_ne!(RelayDirection::AToB, RelayDirection::BToA);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayDirection {
    /// From the first stream to the second.
    AToB,
    /// From the second stream to the first.
    BToA,
}

impl fmt::Display for RelayDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RelayDirection::AToB => "a to b",
            RelayDirection::BToA => "b to a",
        })
    }
}

/// Why a relay has ended early, and how many bytes it had relayed.
///
/// Prints `relay a to b: recv: Connection reset by peer (os error 104), after 10 bytes from a to b and
/// 0 bytes from b to a`. It is inside an [`io::Error`] of the same kind as its cause; get it
/// with [`RelayError::of`].
///
/// # Examples
///
/// ```
/// use sock::{Linger, RelayDirection, RelayError};
///
/// let listener = sock::create_server(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", listener.getsockname()?.port().unwrap()))?;
/// let (front, _) = listener.accept()?;
/// let (back, _server) = sock::socketpair()?;
/// client.set_linger(Linger { l_onoff: true, l_linger: 0 })?;
/// drop(client); // resets the connection
///
/// let error = sock::relay(&front, &back).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
/// let relayed = RelayError::of(&error).unwrap();
/// assert_eq!(relayed.direction(), Some(RelayDirection::AToB));
/// assert_eq!(relayed.counts().a_to_b, 0);
/// # std::io::Result::Ok(())
/// ```
pub struct RelayError {
    /// The direction, and the call of it that failed.
    pub(super) failed: Option<(RelayDirection, &'static str)>,
    pub(super) is_idle: bool,
    pub(super) counts: RelayCounts,
    pub(super) cause: io::Error,
}

impl RelayError {
    /// Returns the `RelayError` inside an error, if a relay returned it.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{RelayError, RelayOptions};
    ///
    /// let (_client, front) = sock::socketpair()?;
    /// let (back, _server) = sock::socketpair()?;
    /// let options = RelayOptions::new().idle_timeout(0.02);
    /// let error = sock::relay_with(&front, &back, &options).unwrap_err();
    /// let ended = RelayError::of(&error).unwrap();
    /// assert!(ended.is_idle());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&RelayError> {
        find_error(error)
    }

    /// Returns the direction that failed. `None` if the relay as a whole was ended by its limits, by a
    /// signal or by a [`Canceller`](crate::Canceller).
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{RelayDirection, RelayError};
    ///
    /// let (client, front) = sock::socketpair()?;
    /// let (back, server) = sock::socketpair()?;
    /// client.sendall(b"question")?;
    /// drop(server);
    /// let error = sock::relay(&front, &back).unwrap_err();
    /// assert_eq!(RelayError::of(&error).unwrap().direction(), Some(RelayDirection::AToB));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn direction(&self) -> Option<RelayDirection> {
        self.failed.map(|(direction, _)| direction)
    }

    /// Returns true if the relay was ended because it was idle for too long.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{RelayError, RelayOptions};
    ///
    /// let (_client, front) = sock::socketpair()?;
    /// let (back, _server) = sock::socketpair()?;
    /// let error = sock::relay_with(&front, &back, &RelayOptions::new().deadline(0.02)).unwrap_err();
    /// assert!(!RelayError::of(&error).unwrap().is_idle(), "the deadline has passed");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Returns how many bytes had been relayed.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{RelayError, RelayOptions};
    ///
    /// let (client, front) = sock::socketpair()?;
    /// let (back, _server) = sock::socketpair()?;
    /// client.sendall(b"question")?;
    /// let options = RelayOptions::new().idle_timeout(0.02);
    /// let error = sock::relay_with(&front, &back, &options).unwrap_err();
    /// assert_eq!(RelayError::of(&error).unwrap().counts().a_to_b, 8);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn counts(&self) -> RelayCounts {
        self.counts
    }
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RelayCounts { a_to_b, b_to_a } = self.counts;
        match self.failed {
            Some((direction, call)) => write!(f, "relay {direction}: {call}: {}", self.cause)?,
            None if self.is_idle => write!(f, "relay: idle: {}", self.cause)?,
            None => write!(f, "relay: {}", self.cause)?,
        }
        write!(f, ", after {a_to_b} bytes from a to b and {b_to_a} bytes from b to a")
    }
}

/// As `Display`, so that a `main` that returns the error prints it readably.
impl fmt::Debug for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for RelayError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}
