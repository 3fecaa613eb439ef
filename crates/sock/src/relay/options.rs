//! The limits of a relay.

use crate::call::to_timeout::{ParsedTimeout, ToTimeout};

/// How [`relay_with`](crate::relay_with) and [`Relay`](crate::Relay) relay.
///
/// # Examples
///
/// ```
/// use sock::RelayOptions;
/// use std::time::Duration;
///
/// let options = RelayOptions::new()
///     .deadline(3600) // for everything
///     .idle_timeout(Duration::from_secs(60)) // while nothing is relayed in either direction
///     .buffer_size(16 * 1024); // for each direction
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct RelayOptions {
    pub(super) deadline: ParsedTimeout,
    pub(super) idle_timeout: ParsedTimeout,
    pub(super) buffer_size: usize,
}

impl Default for RelayOptions {
    fn default() -> RelayOptions {
        RelayOptions {
            deadline: ParsedTimeout::default(),
            idle_timeout: ParsedTimeout::default(),
            buffer_size: 64 * 1024,
        }
    }
}

impl RelayOptions {
    /// Creates options with the defaults: no time limit, and 64 KiB for each direction.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{RelayOptions, SHUT_WR};
    ///
    /// let (client, front) = sock::socketpair()?;
    /// let (back, server) = sock::socketpair()?;
    /// client.sendall(b"question")?;
    /// client.shutdown(SHUT_WR)?;
    /// server.shutdown(SHUT_WR)?;
    /// assert_eq!(sock::relay_with(&front, &back, &RelayOptions::new())?.a_to_b, 8);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> RelayOptions {
        RelayOptions::default()
    }

    /// Sets how long the relay may take as a whole. By default there is no limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use sock::RelayOptions;
    ///
    /// let (_client, front) = sock::socketpair()?;
    /// let (back, _server) = sock::socketpair()?;
    /// let options = RelayOptions::new().deadline(0.02);
    /// let error = sock::relay_with(&front, &back, &options).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TimedOut);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn deadline(mut self, deadline: impl ToTimeout) -> RelayOptions {
        self.deadline = ParsedTimeout::new(deadline);
        self
    }

    /// Sets how long it may be idle: nothing is received or sent in either direction. By default there is
    /// no limit.
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
    /// assert!(RelayError::of(&error).unwrap().is_idle());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl ToTimeout) -> RelayOptions {
        self.idle_timeout = ParsedTimeout::new(timeout);
        self
    }

    /// Sets the size of the buffer of each direction, in bytes. The default is 65,536, the least is 1.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{RelayOptions, SHUT_WR};
    ///
    /// let (client, front) = sock::socketpair()?;
    /// let (back, server) = sock::socketpair()?;
    /// client.sendall(b"question")?;
    /// client.shutdown(SHUT_WR)?;
    /// server.shutdown(SHUT_WR)?;
    /// let options = RelayOptions::new().buffer_size(4096);
    /// assert_eq!(sock::relay_with(&front, &back, &options)?.a_to_b, 8);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn buffer_size(mut self, size: usize) -> RelayOptions {
        self.buffer_size = size.max(1);
        self
    }
}
