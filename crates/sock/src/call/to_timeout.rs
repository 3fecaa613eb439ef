//! What a timeout can be written as: seconds as a number, a `Duration`, `None`.

use std::io;
use std::time::Duration;

use crate::error::{ArgumentError, ArgumentFault, invalid, out_of_range};

/// A timeout: a number of seconds, a [`Duration`], `Some(duration)`, or `None` for no limit.
///
/// Python: the `value` of `settimeout`, a number or `None`. A number that is not a whole number of
/// nanoseconds is rounded up, as in Python, so that a small timeout does not become zero.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let (ours, _theirs) = sock::socketpair()?;
/// ours.settimeout(2.5)?;
/// assert_eq!(ours.gettimeout(), Some(Duration::from_millis(2500)));
/// ours.settimeout(5)?;
/// ours.settimeout(Duration::from_millis(10))?;
/// ours.settimeout(None)?;
///
/// let error = ours.settimeout(-1).unwrap_err();
/// assert_eq!(error.to_string(), "Timeout value out of range");
/// # std::io::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a timeout",
    label = "not a timeout",
    note = "a timeout is a number of seconds such as `2.5` or `5`, a `Duration`, `Some(duration)`, or \
            `None` for no limit"
)]
pub trait ToTimeout: Sized {
    /// Returns the timeout, `None` for no limit.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` for a negative number and for NaN, with the text of
    /// Python's `ValueError`, and for a number that no [`Duration`] can hold.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::ToTimeout;
    ///
    /// assert_eq!(2.5.to_timeout()?, Some(Duration::from_millis(2500)));
    /// assert_eq!(5.to_timeout()?, Some(Duration::from_secs(5)));
    /// assert_eq!(Some(Duration::from_secs(1)).to_timeout()?, Some(Duration::from_secs(1)));
    /// # std::io::Result::Ok(())
    /// ```
    fn to_timeout(self) -> io::Result<Option<Duration>>;

    /// Returns the timeout of a wait such as [`select`](crate::selectors::Selector::select), where
    /// a negative number is zero.
    ///
    /// # Errors
    ///
    /// Returns an error if [`to_timeout`](Self::to_timeout) returns one, except for a negative
    /// number.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::ToTimeout;
    ///
    /// assert_eq!((-1).to_wait_timeout()?, Some(Duration::ZERO));
    /// assert!((-1).to_timeout().is_err());
    /// # std::io::Result::Ok(())
    /// ```
    fn to_wait_timeout(self) -> io::Result<Option<Duration>> {
        self.to_timeout()
    }

    /// Returns the timeout of [`poll`](crate::poll()). A number is in milliseconds, and a negative number
    /// means no limit.
    ///
    /// # Errors
    ///
    /// Returns an error if [`to_timeout`](Self::to_timeout) returns one, except for a negative number.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::ToTimeout;
    ///
    /// assert_eq!(500.to_poll_timeout()?, Some(Duration::from_millis(500)));
    /// assert_eq!((-1).to_poll_timeout()?, None);
    /// assert_eq!(Duration::from_secs(1).to_poll_timeout()?, Some(Duration::from_secs(1)));
    /// # std::io::Result::Ok(())
    /// ```
    fn to_poll_timeout(self) -> io::Result<Option<Duration>> {
        self.to_timeout()
    }
}

/// A finite duration: a number of seconds or a [`Duration`].
///
/// Python: a number. It is a [`ToTimeout`] without `None`, for limits that must be finite, such as
/// that of a drain, of a lingering close, or of a heartbeat. A number that is not a whole number of
/// nanoseconds is rounded up.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sock::ToDuration;
///
/// fn describe(limit: impl ToDuration) -> std::io::Result<String> {
///     Ok(format!("{:?}", limit.to_duration()?))
/// }
///
/// assert_eq!(describe(2.5)?, "2.5s");
/// assert_eq!(describe(5)?, "5s");
/// assert_eq!(describe(Duration::from_millis(10))?, "10ms");
/// assert!(describe(-1).is_err());
/// # std::io::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a duration",
    label = "not a duration",
    note = "a duration is a number of seconds such as `2.5` or `5`, or a `Duration`; it must end, so `None` \
            is none"
)]
pub trait ToDuration: ToTimeout {
    /// Returns the duration.
    ///
    /// # Errors
    ///
    /// Returns an error if [`to_timeout`](ToTimeout::to_timeout) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::ToDuration;
    ///
    /// assert_eq!(2.5.to_duration()?, Duration::from_millis(2500));
    /// assert!((-1).to_duration().is_err());
    /// # std::io::Result::Ok(())
    /// ```
    fn to_duration(self) -> io::Result<Duration> {
        self.to_timeout()?.ok_or_else(|| invalid("a duration must end"))
    }
}

impl ToTimeout for Duration {
    fn to_timeout(self) -> io::Result<Option<Duration>> {
        Ok(Some(self))
    }
}

impl ToDuration for Duration {}

// For no other `Option`: the type of a bare `None` would be ambiguous.
impl ToTimeout for Option<Duration> {
    fn to_timeout(self) -> io::Result<Option<Duration>> {
        Ok(self)
    }
}

macro_rules! whole_seconds {
    ($($type:ty)*) => {$(
        /// Seconds.
        impl ToTimeout for $type {
            fn to_timeout(self) -> io::Result<Option<Duration>> {
                match u64::try_from(self) {
                    Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
                    Err(_) => Err(negative()),
                }
            }

            fn to_wait_timeout(self) -> io::Result<Option<Duration>> {
                Ok(Some(Duration::from_secs(u64::try_from(self).unwrap_or(0))))
            }

            fn to_poll_timeout(self) -> io::Result<Option<Duration>> {
                Ok(u64::try_from(self).ok().map(Duration::from_millis))
            }
        }

        /// Seconds.
        impl ToDuration for $type {}
    )*};
}
whole_seconds! { u8 u16 u32 u64 usize i8 i16 i32 i64 isize }

/// Seconds.
impl ToTimeout for f64 {
    fn to_timeout(self) -> io::Result<Option<Duration>> {
        if self < 0.0 {
            return Err(negative());
        }
        from_seconds(self)
    }

    fn to_wait_timeout(self) -> io::Result<Option<Duration>> {
        if self < 0.0 { Ok(Some(Duration::ZERO)) } else { from_seconds(self) }
    }

    fn to_poll_timeout(self) -> io::Result<Option<Duration>> {
        if self < 0.0 { Ok(None) } else { from_number(self, 1e6, "milliseconds") }
    }
}

/// Seconds.
impl ToDuration for f64 {}

/// Seconds.
impl ToTimeout for f32 {
    fn to_timeout(self) -> io::Result<Option<Duration>> {
        f64::from(self).to_timeout()
    }

    fn to_wait_timeout(self) -> io::Result<Option<Duration>> {
        f64::from(self).to_wait_timeout()
    }

    fn to_poll_timeout(self) -> io::Result<Option<Duration>> {
        f64::from(self).to_poll_timeout()
    }
}

/// Seconds.
impl ToDuration for f32 {}

/// A timeout of an options structure, which reports a wrong one when it is used.
#[derive(Clone, Debug)]
pub(crate) struct ParsedTimeout(Result<Option<Duration>, (ArgumentFault, String)>);

impl Default for ParsedTimeout {
    fn default() -> ParsedTimeout {
        ParsedTimeout(Ok(None))
    }
}

impl ParsedTimeout {
    pub(crate) fn new(timeout: impl ToTimeout) -> ParsedTimeout {
        ParsedTimeout(timeout.to_timeout().map_err(|error| {
            let fault = ArgumentError::of(&error).map_or(ArgumentFault::Value, ArgumentError::fault);
            (fault, error.to_string())
        }))
    }

    pub(crate) fn get(&self) -> io::Result<Option<Duration>> {
        match &self.0 {
            Ok(timeout) => Ok(*timeout),
            Err((ArgumentFault::Range, sentence)) => Err(out_of_range(sentence)),
            Err((_, sentence)) => Err(invalid(sentence)),
        }
    }
}

/// `_PyTime_FromSecondsObject` with `_PyTime_ROUND_TIMEOUT` (Python/pytime.c).
fn from_seconds(seconds: f64) -> io::Result<Option<Duration>> {
    from_number(seconds, 1e9, "seconds")
}

/// A number of a unit that has so many nanoseconds.
fn from_number(number: f64, nanoseconds: f64, unit: &str) -> io::Result<Option<Duration>> {
    if number.is_nan() {
        return Err(invalid("Invalid value NaN (not a number)"));
    }
    let nanoseconds = (number * nanoseconds).ceil();
    // The largest f64 below 2^64.
    if nanoseconds > 18_446_744_073_709_549_568.0 {
        return Err(out_of_range(format!("timeout of {number} {unit} is too long")));
    }
    Ok(Some(Duration::from_nanos(nanoseconds as u64)))
}

/// CPython's text: `socket_parse_timeout` (Modules/socketmodule.c).
fn negative() -> io::Error {
    invalid("Timeout value out of range")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ArgumentError, ArgumentFault};

    fn fault(result: io::Result<Option<Duration>>) -> ArgumentFault {
        ArgumentError::of(&result.unwrap_err()).unwrap().fault()
    }

    #[test]
    fn numbers_are_seconds() {
        assert_eq!(5.to_timeout().unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(5_u64.to_timeout().unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(2.5.to_timeout().unwrap(), Some(Duration::from_millis(2500)));
        assert_eq!(2.5_f32.to_timeout().unwrap(), Some(Duration::from_millis(2500)));
        assert_eq!(0.1.to_timeout().unwrap(), Some(Duration::from_millis(100)));
        assert_eq!(0.to_timeout().unwrap(), Some(Duration::ZERO));
        assert_eq!((-0.0).to_timeout().unwrap(), Some(Duration::ZERO));
    }

    #[test]
    fn a_fraction_of_a_nanosecond_is_rounded_up() {
        assert_eq!(1e-10.to_timeout().unwrap(), Some(Duration::from_nanos(1)));
        assert_eq!(f64::MIN_POSITIVE.to_timeout().unwrap(), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn negative_numbers_and_nan_fail_with_the_texts_of_python() {
        for result in [(-1).to_timeout(), (-1.0).to_timeout(), (-1e-10).to_timeout()] {
            assert_eq!(result.as_ref().unwrap_err().to_string(), "Timeout value out of range");
            assert_eq!(fault(result), ArgumentFault::Value);
        }
        for result in [f64::NAN.to_timeout(), f32::NAN.to_timeout(), f64::NAN.to_wait_timeout()] {
            assert_eq!(result.as_ref().unwrap_err().to_string(), "Invalid value NaN (not a number)");
            assert_eq!(fault(result), ArgumentFault::Value);
        }
        for seconds in [f64::INFINITY, 1.9e10, f64::MAX] {
            assert_eq!(fault(seconds.to_timeout()), ArgumentFault::Range);
        }
    }

    #[test]
    fn a_number_of_a_poll_is_milliseconds_and_a_negative_one_no_limit() {
        assert_eq!(1500.to_poll_timeout().unwrap(), Some(Duration::from_millis(1500)));
        assert_eq!(0.to_poll_timeout().unwrap(), Some(Duration::ZERO));
        assert_eq!(0.5.to_poll_timeout().unwrap(), Some(Duration::from_micros(500)));
        assert_eq!(0.5_f32.to_poll_timeout().unwrap(), Some(Duration::from_micros(500)));
        assert_eq!(((-1).to_poll_timeout().unwrap(), (-0.5).to_poll_timeout().unwrap()), (None, None));
        assert_eq!(None.to_poll_timeout().unwrap(), None);
        assert_eq!(Duration::MAX.to_poll_timeout().unwrap(), Some(Duration::MAX));
        assert_eq!(fault(f64::NAN.to_poll_timeout()), ArgumentFault::Value);
        assert_eq!(fault(f64::INFINITY.to_poll_timeout()), ArgumentFault::Range);
    }

    #[test]
    fn a_duration_is_a_timeout_that_ends() {
        assert_eq!(2.5.to_duration().unwrap(), Duration::from_millis(2500));
        assert_eq!(5_u8.to_duration().unwrap(), Duration::from_secs(5));
        assert_eq!(Duration::MAX.to_duration().unwrap(), Duration::MAX);
        assert_eq!((-1).to_duration().unwrap_err().to_string(), "Timeout value out of range");
        assert!(f64::NAN.to_duration().is_err());
    }

    #[test]
    fn a_negative_wait_is_zero() {
        assert_eq!((-1).to_wait_timeout().unwrap(), Some(Duration::ZERO));
        assert_eq!((-0.5).to_wait_timeout().unwrap(), Some(Duration::ZERO));
        assert_eq!(f64::NEG_INFINITY.to_wait_timeout().unwrap(), Some(Duration::ZERO));
        assert_eq!(3.to_wait_timeout().unwrap(), Some(Duration::from_secs(3)));
        assert_eq!(None.to_wait_timeout().unwrap(), None);
    }
}
