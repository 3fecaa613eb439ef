//! Records for which servers a thread serves or accepts.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::thread::LocalKey;

/// Marks this thread as serving a request of a server until it is dropped. Such a thread cannot wait
/// for the end of all requests.
pub(crate) struct ServingThread {
    _mark: Mark,
}

/// Marks this thread as accepting for a server until it is dropped. A stop of the server waits for
/// this thread, so a hook that runs in it cannot wait for the stop.
pub(crate) struct AcceptingThread {
    _mark: Mark,
}

impl ServingThread {
    pub(crate) fn begin<T>(server: &Arc<T>) -> ServingThread {
        ServingThread { _mark: Mark::begin(&SERVING, server) }
    }

    pub(crate) fn is_for<T>(server: &Arc<T>) -> bool {
        is_for(&SERVING, server)
    }
}

impl AcceptingThread {
    pub(crate) fn begin<T>(server: &Arc<T>) -> AcceptingThread {
        AcceptingThread { _mark: Mark::begin(&ACCEPTING, server) }
    }

    pub(crate) fn is_for<T>(server: &Arc<T>) -> bool {
        is_for(&ACCEPTING, server)
    }
}

/// The servers of one role of a thread.
struct Role {
    /// The address of the innermost server, 0 for none.
    current: Cell<usize>,
    /// The servers around it: a handler may run another server.
    outer: RefCell<Vec<usize>>,
}

impl Role {
    const fn new() -> Role {
        Role { current: Cell::new(0), outer: RefCell::new(Vec::new()) }
    }
}

struct Mark {
    role: &'static LocalKey<Role>,
    before: usize,
}

impl Mark {
    #[inline]
    fn begin<T>(role: &'static LocalKey<Role>, server: &Arc<T>) -> Mark {
        let address = Arc::as_ptr(server).addr();
        let before = role.try_with(|role| {
            let before = role.current.replace(address);
            if before != 0 && before != address {
                role.outer.borrow_mut().push(before);
            }
            before
        });
        Mark { role, before: before.unwrap_or(0) }
    }
}

impl Drop for Mark {
    #[inline]
    fn drop(&mut self) {
        // The thread may be at its end, with the destructors of its thread-local values.
        let _ = self.role.try_with(|role| {
            let own = role.current.replace(self.before);
            if self.before != 0 && self.before != own {
                role.outer.borrow_mut().pop();
            }
        });
    }
}

fn is_for<T>(role: &'static LocalKey<Role>, server: &Arc<T>) -> bool {
    let address = Arc::as_ptr(server).addr();
    let is_marked = |role: &Role| role.current.get() == address || role.outer.borrow().contains(&address);
    role.try_with(is_marked).unwrap_or(false)
}

thread_local! {
    static SERVING: Role = const { Role::new() };
    static ACCEPTING: Role = const { Role::new() };
}
