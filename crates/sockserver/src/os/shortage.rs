//! Calls that fail because the system has no memory for a moment.

use std::io;
use std::time::{Duration, Instant};

use sock::{errno, errno_name};

/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a call is repeated.
const LIMIT: Duration = Duration::from_secs(1);

/// Whether the system has no memory for the call: ENOMEM of poll(2), or ENOBUFS of send(2).
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory || errno(error).and_then(errno_name) == Some("ENOBUFS")
}

/// Waits before the next attempt.
pub(crate) fn pause() {
    std::thread::sleep(PAUSE);
}

/// Repeats a call that must not be lost, for a second if the system has no memory so long.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut until = None;
    loop {
        match call() {
            Err(error) if is_shortage(&error) => {
                if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + LIMIT) {
                    return Err(error);
                }
                pause();
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_memory_is_repeated_and_others_are_not() {
        let mut errors =
            vec![io::ErrorKind::WouldBlock, io::ErrorKind::OutOfMemory, io::ErrorKind::OutOfMemory];
        let error = retry(|| errors.pop().map_or(Ok(()), |kind| Err(kind.into()))).unwrap_err();
        assert_eq!((error.kind(), errors.len()), (io::ErrorKind::WouldBlock, 0));
        assert!(retry(|| Ok(())).is_ok());
    }
}
