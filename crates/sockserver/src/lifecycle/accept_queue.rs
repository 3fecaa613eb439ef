//! The clients that waited in the listeners' queues when a drain began.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::{AF_UNIX, Address, SHUT_RDWR, Socket, errno};

use crate::os::guard::{discard, guard};
#[cfg(unix)]
use crate::os::process;

/// How many clients of a listener are taken if the length of its queue is not known.
const MAX_QUEUED: usize = 4096;

/// So many descriptors are left for what serves the clients.
#[cfg(unix)]
const RESERVED_DESCRIPTORS: usize = 64;

/// Accepts a client: the hook `get_request`.
pub(crate) type AcceptClient = dyn Fn(&Socket) -> io::Result<(Socket, Address)> + Send + Sync;

/// A drain shuts the listeners down, which resets the clients in their queues. So it accepts them
/// first, and the loop serves them before it ends.
#[derive(Default)]
pub(crate) struct AcceptQueue {
    /// A drain accepts them now. The loop must not end.
    is_filling: AtomicBool,
    /// Held to add or remove a client. None is accepted or closed under it.
    clients: Mutex<VecDeque<(Socket, Address)>>,
    /// When the clients that are left are closed. Held to read or set it.
    until: Mutex<Option<Instant>>,
}

impl AcceptQueue {
    /// Sets that a drain is about to accept the clients.
    pub(crate) fn begin(&self, limit: Duration) {
        *self.until.lock() = Instant::now().checked_add(limit);
        self.is_filling.store(true, Ordering::SeqCst);
    }

    /// Accepts what the system had completed, and shuts the listeners down.
    pub(crate) fn fill(&self, listeners: &[Arc<Socket>], accept: &AcceptClient) {
        for listener in listeners {
            // Those of pre-forked workers block. It cannot fail for an open socket.
            let _ = listener.setblocking(false);
            // A Unix listener that is shut down still returns the clients in its queue.
            let is_unix = cfg!(target_os = "linux") && listener.family() == AF_UNIX;
            if is_unix {
                let _ = listener.shutdown(SHUT_RDWR);
            }
            let queued = listener.tcp_info().ok().and_then(|info| info.accept_queue);
            let most = queued.map_or(MAX_QUEUED, |queued| queued as usize);
            if let Err(message) = guard(|| self.accept_from(listener, most, accept)) {
                log::error!(
                    hook = "get_request";
                    "clients in the accept queue are not served: get_request panicked: {message}"
                );
            }
            // Where a listener cannot be shut down, later clients are reset by its close.
            let _ = listener.shutdown(SHUT_RDWR);
        }
        self.is_filling.store(false, Ordering::SeqCst);
    }

    /// Accepts up to `most` clients of a listener.
    fn accept_from(&self, listener: &Socket, most: usize, accept: &AcceptClient) {
        for _ in 0..most {
            // The hook may be slow, and the queue long.
            if self.remaining() == Some(Duration::ZERO) || !self.is_filling.load(Ordering::SeqCst) {
                return;
            }
            match accept(listener) {
                // After the limit nothing serves it.
                Ok(client) if self.remaining() != Some(Duration::ZERO) => {
                    let is_last = leaves_few_descriptors(&client.0);
                    // A drain that no longer waits has closed the queue, and no loop serves it.
                    let mut clients = self.clients.lock();
                    if !self.is_filling.load(Ordering::SeqCst) {
                        drop(clients);
                        return;
                    }
                    clients.push_back(client);
                    drop(clients);
                    if is_last {
                        return;
                    }
                }
                Ok(_) => return,
                Err(error) => {
                    // A client that has disconnected, or that a hook rejects: no other error panics.
                    // Otherwise none is left, or there is no descriptor for it.
                    let goes_on = guard(|| is_of_one_client(&error)).unwrap_or(true);
                    discard(error);
                    if !goes_on {
                        return;
                    }
                }
            }
        }
    }

    /// Takes the next client, and returns whether it was the last one.
    pub(crate) fn pop(&self) -> Option<((Socket, Address), bool)> {
        let mut clients = self.clients.lock();
        let client = clients.pop_front()?;
        Some((client, clients.is_empty()))
    }

    /// Adds a client in the worker process that is to serve it.
    pub(crate) fn push(&self, client: (Socket, Address)) {
        self.clients.lock().push_back(client);
    }

    /// Returns clients that were taken to the front, in their order.
    pub(crate) fn put_back(&self, taken: Vec<(Socket, Address)>) {
        let mut clients = self.clients.lock();
        taken.into_iter().rev().for_each(|client| clients.push_front(client));
    }

    /// Closes the clients that are left, and no longer waits for `fill`.
    pub(crate) fn close(&self) {
        let mut left = self.clients.lock();
        // Under the lock, so that `fill` adds none afterwards.
        self.is_filling.store(false, Ordering::SeqCst);
        let clients = std::mem::take(&mut *left);
        drop(left);
        drop(clients);
    }

    /// Whether a client is left, or may be.
    pub(crate) fn is_open(&self) -> bool {
        self.is_filling.load(Ordering::SeqCst) || !self.clients.lock().is_empty()
    }

    /// The time that is left for the clients, zero when it is over.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.until.lock().map(|until| until.saturating_duration_since(Instant::now()))
    }
}

/// Whether only the descriptors are left that are needed to serve the clients, for example for the
/// control socket of a new worker.
#[cfg(unix)]
fn leaves_few_descriptors(newest: &Socket) -> bool {
    let most = process::max_descriptors();
    let reserve = RESERVED_DESCRIPTORS.min(most / 4);
    // POSIX: a new descriptor is the lowest one that is free.
    usize::try_from(newest.fileno()).is_ok_and(|newest| newest.saturating_add(reserve) >= most)
}

/// The number of sockets of a process is not limited there.
#[cfg(not(unix))]
fn leaves_few_descriptors(_: &Socket) -> bool {
    false
}

fn is_of_one_client(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => true,
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => false,
        _ => errno(error).is_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// An error of a hook that panics when its cause is read, and when it is dropped.
    #[derive(Debug)]
    struct Panicking;

    impl std::fmt::Display for Panicking {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("displayed");
        }
    }

    impl std::error::Error for Panicking {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            panic!("read the cause");
        }
    }

    impl Drop for Panicking {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn a_hook_whose_error_panics_rejects_one_client() {
        let listener = Arc::new(sock::create_server(("127.0.0.1", 0)).unwrap());
        let port = listener.getsockname().unwrap().port().unwrap();
        let clients = [0; 3].map(|_| sock::create_connection(("127.0.0.1", port)).unwrap());
        let queue = AcceptQueue::default();
        queue.begin(Duration::from_secs(3600));
        let calls = AtomicUsize::new(0);
        queue.fill(&[Arc::clone(&listener)], &move |listener: &Socket| {
            let accepted = listener.accept()?;
            match calls.fetch_add(1, Ordering::SeqCst) {
                0 => Err(io::Error::other(Panicking)),
                1 => Ok(accepted),
                _ => panic!("the hook"),
            }
        });
        let (client, is_last) = queue.pop().expect("the second client");
        assert!(is_last && !queue.is_open());
        assert_eq!(client.1, clients[1].getsockname().unwrap());
        // Other systems do not shut a listener down.
        if cfg!(target_os = "linux") {
            assert!(sock::create_connection(("127.0.0.1", port)).is_err(), "the listener is still open");
        }
    }

    /// The hook returns after the drain has given up waiting for it.
    #[test]
    fn no_client_is_added_to_a_queue_that_was_closed() {
        let listener = Arc::new(sock::create_server(("127.0.0.1", 0)).unwrap());
        let port = listener.getsockname().unwrap().port().unwrap();
        let _clients = [0; 2].map(|_| sock::create_connection(("127.0.0.1", port)).unwrap());
        let queue = Arc::new(AcceptQueue::default());
        queue.begin(Duration::from_secs(3600));
        let (of_hook, calls) = (Arc::clone(&queue), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&calls);
        queue.fill(&[listener], &move |listener: &Socket| {
            counter.fetch_add(1, Ordering::SeqCst);
            of_hook.close();
            listener.accept()
        });
        assert!(queue.pop().is_none() && !queue.is_open());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    /// A hook that takes long for each client must not prolong the drain by the whole queue.
    #[test]
    fn no_client_is_accepted_after_the_limit_of_the_drain() {
        let listener = Arc::new(sock::create_server(("127.0.0.1", 0)).unwrap());
        let port = listener.getsockname().unwrap().port().unwrap();
        let _clients = [0; 3].map(|_| sock::create_connection(("127.0.0.1", port)).unwrap());
        let queue = Arc::new(AcceptQueue::default());
        queue.begin(Duration::from_secs(3600));
        let of_hook = Arc::clone(&queue);
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        queue.fill(&[listener], &move |listener: &Socket| {
            let accepted = listener.accept()?;
            // The limit is over when the second call returns.
            if counter.fetch_add(1, Ordering::SeqCst) == 1 {
                of_hook.begin(Duration::ZERO);
            }
            Ok(accepted)
        });
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        assert!(queue.pop().is_some_and(|(_, is_last)| is_last));
        assert!(!queue.is_open());
    }
}
