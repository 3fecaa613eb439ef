//! What `wrap_request` makes of a socket, and what is known of it.

use std::sync::atomic::{AtomicU8, Ordering};

use sock::StreamSocket;

/// What `wrap_request` has made of a socket.
pub(crate) enum Wrapped {
    /// The socket itself, and nothing around it.
    Plain(Box<dyn StreamSocket>),
    Other(Box<dyn StreamSocket>),
}

/// What is known of `wrap_request`. It is called for every request; only that it is
/// quick may be believed, until one request has shown otherwise.
#[derive(Default)]
pub(crate) struct Wraps(AtomicU8);

/// Nobody knows yet, so it may take long.
const UNKNOWN: u8 = 0;
/// All it did so far was to return the socket.
const QUICK: u8 = 1;
/// It does something, sometimes at least.
const MAY_TAKE_LONG: u8 = 2;
/// There is only the default.
const NOT_THERE: u8 = 3;

impl Wraps {
    pub(crate) fn not_there() -> Wraps {
        Wraps(AtomicU8::new(NOT_THERE))
    }

    /// Whether it need not be called: all hooks are the defaults.
    pub(crate) fn is_not_there(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NOT_THERE
    }

    /// Whether somebody has to watch for its deadline.
    pub(crate) fn may_take_long(&self) -> bool {
        matches!(self.0.load(Ordering::Relaxed), UNKNOWN | MAY_TAKE_LONG)
    }

    pub(crate) fn learn(&self, was_quick: bool) {
        self.0.fetch_max(if was_quick { QUICK } else { MAY_TAKE_LONG }, Ordering::Relaxed);
    }
}

impl Clone for Wraps {
    fn clone(&self) -> Wraps {
        Wraps(AtomicU8::new(self.0.load(Ordering::Relaxed)))
    }
}
