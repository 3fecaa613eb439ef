//! Errors with a sentence before the system's.

use std::error::Error;
use std::fmt;
use std::io;

#[derive(Debug)]
struct Context {
    text: String,
    source: io::Error,
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.text, self.source)
    }
}

impl Error for Context {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// The same kind, and the same [`sock::errno`], behind a text.
pub(crate) fn with_context(text: impl Into<String>, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), Context { text: text.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_errno_stay() {
        let error = with_context("cannot do it", io::Error::from_raw_os_error(1));
        assert_eq!((error.kind(), sock::errno(&error)), (io::ErrorKind::PermissionDenied, Some(1)));
        assert!(error.to_string().starts_with("cannot do it: Operation not permitted"), "{error}");
    }
}
