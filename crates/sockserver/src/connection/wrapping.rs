//! What `wrap_request` makes of a socket, and what is known of it.

use std::any::TypeId;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use sock::StreamSocket;

/// What `wrap_request` has made of a socket.
pub(crate) enum Wrapped {
    /// The socket itself, and nothing around it.
    Plain(Box<dyn StreamSocket>),
    Other(Box<dyn StreamSocket>),
}

/// What is known of a server's `wrap_request`, which is called for every request.
///
/// Only the default is known to be quick. An override may return the socket as it is for
/// some clients, and wait for others, so what it did before says nothing.
pub(crate) struct Wraps {
    state: AtomicU8,
    /// The type of the hooks.
    hooks: TypeId,
    /// A call was allowed that nothing could end, to find out what the hook is.
    was_tried: AtomicBool,
}

/// It has not been called yet, so it may take long.
const UNKNOWN: u8 = 0;
/// It is the trait's default: it returns the socket.
const DEFAULT: u8 = 1;
/// It is an override.
const OVERRIDE: u8 = 2;
/// There are no hooks, and it need not be called.
const NOT_THERE: u8 = 3;

impl Wraps {
    /// Of a server whose hooks are an `H`.
    pub(crate) fn of<H: 'static>() -> Wraps {
        Wraps { state: AtomicU8::new(UNKNOWN), hooks: TypeId::of::<H>(), was_tried: AtomicBool::new(false) }
    }

    pub(crate) fn not_there() -> Wraps {
        Wraps { state: AtomicU8::new(NOT_THERE), ..Wraps::of::<()>() }
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Relaxed)
    }

    /// Whether it need not be called: all hooks are the defaults.
    pub(crate) fn is_not_there(&self) -> bool {
        self.state() == NOT_THERE
    }

    /// Whether its deadline has to be watched.
    pub(crate) fn may_take_long(&self) -> bool {
        matches!(self.state(), UNKNOWN | OVERRIDE)
    }

    /// Whether to call it although nothing would end it: once, since it may be the default.
    pub(crate) fn may_be_tried(&self) -> bool {
        self.state() == UNKNOWN && !self.was_tried.swap(true, Ordering::Relaxed)
    }

    /// Whether the default has run that belongs to the server's hooks, and not to other hooks
    /// that an override has called. If so, they have no override.
    pub(crate) fn is_default(&self, default_of: Option<TypeId>) -> bool {
        default_of == Some(self.hooks)
    }

    pub(crate) fn learn(&self, is_default: bool) {
        self.state.fetch_max(if is_default { DEFAULT } else { OVERRIDE }, Ordering::Relaxed);
    }
}

impl Clone for Wraps {
    fn clone(&self) -> Wraps {
        Wraps { state: AtomicU8::new(self.state()), was_tried: AtomicBool::new(false), ..*self }
    }
}
