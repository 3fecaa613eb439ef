//! Records for which server a thread serves or accepts.

use std::cell::Cell;
use std::sync::Arc;
use std::thread::LocalKey;

/// Marks this thread as serving a request of a server until it is dropped. Such a thread cannot wait
/// for the end of all requests.
pub(crate) struct ServingThread {
    before: usize,
}

/// Marks this thread as accepting for a server until it is dropped. A stop of the server waits for
/// this thread, so a hook that runs in it cannot wait for the stop.
pub(crate) struct AcceptingThread {
    before: usize,
}

impl ServingThread {
    pub(crate) fn begin<T>(server: &Arc<T>) -> ServingThread {
        ServingThread { before: SERVING.replace(Arc::as_ptr(server).addr()) }
    }

    pub(crate) fn is_for<T>(server: &Arc<T>) -> bool {
        is_for(&SERVING, server)
    }
}

impl AcceptingThread {
    pub(crate) fn begin<T>(server: &Arc<T>) -> AcceptingThread {
        AcceptingThread { before: ACCEPTING.replace(Arc::as_ptr(server).addr()) }
    }

    pub(crate) fn is_for<T>(server: &Arc<T>) -> bool {
        is_for(&ACCEPTING, server)
    }
}

fn is_for<T>(role: &'static LocalKey<Cell<usize>>, server: &Arc<T>) -> bool {
    role.get() == Arc::as_ptr(server).addr()
}

impl Drop for ServingThread {
    fn drop(&mut self) {
        SERVING.set(self.before);
    }
}

impl Drop for AcceptingThread {
    fn drop(&mut self) {
        ACCEPTING.set(self.before);
    }
}

thread_local! {
    /// The address of the server, 0 for none.
    static SERVING: Cell<usize> = const { Cell::new(0) };
    static ACCEPTING: Cell<usize> = const { Cell::new(0) };
}
