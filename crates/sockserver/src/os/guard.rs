//! The guard around code of the user.
//!
//! A panic must not end a thread that serves others. Code of the user is more than handlers and
//! hooks: an error is formatted and dropped, a stream of `wrap_request` is shut down by the
//! deadline timer, a logger is called. All of it runs inside [`guard`], [`discard`] or
//! [`SafeDisplay`], or in a macro of [`log`](crate::os::log).

use std::any::Any;
use std::fmt::{self, Display};
use std::panic::{self, AssertUnwindSafe};

/// Calls `run`, which contains code of the user. Returns the message if it panics.
///
/// The caller restores the invariants of what `run` has changed.
#[inline]
pub(crate) fn guard<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(message_of)
}

#[cold]
fn message_of(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("no message").to_owned();
    // Dropping a payload can panic again, outside of the guard.
    std::mem::forget(payload);
    message
}

/// Drops a value whose destructor is, or contains, code of the user. A panic is logged.
#[inline]
pub(crate) fn discard<T>(value: T) {
    if let Err(message) = guard(|| drop(value)) {
        let name = std::any::type_name::<T>();
        log::error!(type_name = name; "cannot drop a value of type {name}: panicked: {message}");
    }
}

/// Returns the first of two errors, and drops the second.
pub(crate) fn first_error<T, E>(first: Result<T, E>, second: Result<T, E>) -> Result<T, E> {
    match (first, second) {
        (Err(first), second) => {
            discard(second);
            Err(first)
        }
        (_, second) => second,
    }
}

/// Formats an error of the user. A panic of its `Display` becomes a part of the text.
pub(crate) struct SafeDisplay<'a>(pub(crate) &'a dyn Display);

impl Display for SafeDisplay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match guard(|| self.0.to_string()) {
            Ok(text) => f.write_str(&text),
            Err(message) => write!(f, "an error that cannot be displayed: panicked: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when it is dropped, and when it is displayed.
    struct Panicking;

    impl Drop for Panicking {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    impl Display for Panicking {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("displayed");
        }
    }

    #[test]
    fn a_panic_is_returned_as_its_message() {
        assert_eq!(guard(|| 1), Ok(1));
        assert_eq!(guard(|| panic!("planned {}", 1)), Err::<(), _>("planned 1".to_owned()));
        assert_eq!(guard(|| panic::panic_any(7)), Err::<(), _>("no message".to_owned()));
        assert_eq!(guard(|| panic::panic_any(Panicking)), Err::<(), _>("no message".to_owned()));
    }

    #[test]
    fn errors_that_panic_are_displayed_and_dropped() {
        let error = Panicking;
        assert_eq!(
            SafeDisplay(&error).to_string(),
            "an error that cannot be displayed: panicked: displayed"
        );
        assert!(first_error::<(), _>(Err(error), Err(Panicking)).map_err(discard).is_err());
    }
}
