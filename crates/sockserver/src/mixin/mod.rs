//! Mixins: where a request runs.
//!
//! 1. [`Sequential`] in the loop itself, one after the other: plain `TCPServer`.
//! 2. [`ThreadingMixIn`](crate::ThreadingMixIn) in a thread for each request.
//! 3. [`ForkingMixIn`](crate::ForkingMixIn) in a child process for each request (Unix).
//! 4. [`ThreadPoolMixIn`](crate::ThreadPoolMixIn) in a fixed number of threads.
//! 5. [`PreforkMixIn`](crate::PreforkMixIn) in processes that are there before their clients
//!    (Unix).
//! 6. [`SelectorMixIn`](crate::SelectorMixIn) in a few threads; connections between two
//!    requests wait without one (Unix).

#[cfg(unix)]
pub(crate) mod call_out;
#[cfg(unix)]
pub(crate) mod forking;
#[cfg(unix)]
pub(crate) mod parked;
pub(crate) mod pool;
#[cfg(unix)]
pub(crate) mod prefork;
#[cfg(unix)]
pub(crate) mod prefork_worker;
#[cfg(unix)]
pub(crate) mod selector;
pub(crate) mod threading;
pub(crate) mod threads;
pub(crate) mod worker;

use std::io;
use std::time::Duration;

use crate::accept::Acceptor;
use crate::handle::ServerHandle;
use crate::job::{Job, Rejected};
use crate::report::DrainReport;

/// Where requests run: what CPython's two mixins override between them.
///
/// Python: `class ThreadingTCPServer(ThreadingMixIn, TCPServer)`. Here the mixin
/// is a value the server owns.
///
/// Its life: [`serve`](Self::serve) runs while `serve_forever` does and calls
/// [`process_request`](Self::process_request) for each request;
/// [`server_close`](Self::server_close) ends it.
///
/// # Examples
///
/// A mixin that counts, and leaves the work to another:
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use sockserver::{Job, MixIn, Rejected, Sequential};
///
/// #[derive(Default)]
/// struct Counting {
///     requests: AtomicUsize,
///     inner: Sequential,
/// }
///
/// impl MixIn for Counting {
///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
///         self.requests.fetch_add(1, Ordering::Relaxed);
///         self.inner.process_request(job)
///     }
/// }
/// ```
///
/// # When this isn't enough
///
/// Accepting, limits and hooks are the [`Acceptor`]'s, whoever runs the loop.
pub trait MixIn: Send + Sync + 'static {
    /// Serves the request, now or later, here or elsewhere: [`Job::run`].
    ///
    /// # Errors
    ///
    /// The job itself, [rejected](Job::reject), when it cannot be started: the
    /// error goes to `handle_error` and the connection is closed.
    fn process_request(&self, job: Job) -> Result<(), Rejected>;

    /// Runs the loop until the server is told to stop. By default one turn of
    /// the acceptor after the other in this thread.
    ///
    /// # Errors
    ///
    /// The listener's, when it is of no more use.
    fn serve(&self, acceptor: &Acceptor<'_>) -> io::Result<()> {
        while acceptor.turn(&[])? {}
        Ok(())
    }

    /// Is called after every turn of the loop. By default nothing.
    fn service_actions(&self) {}

    /// How long `handle_request` waits, unless the builder says otherwise. By
    /// default for ever. Python: `timeout`.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Is called when `handle_request` waited for its whole timeout. By default nothing.
    fn handle_timeout(&self) {}

    /// Waits for what still runs; the listener is closed by then. By default
    /// nothing. How long it may wait, [`ServerHandle::wait_until_idle`] knows.
    ///
    /// # Errors
    ///
    /// Are returned to whoever closes the server.
    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        let _ = server;
        Ok(())
    }

    /// Whether it forks: then nothing of the server starts a thread, and the loop
    /// watches the deadlines. By default not.
    fn forks(&self) -> bool {
        false
    }

    /// Whether each request has a process of its own, in which nobody watches its
    /// deadlines but the system.
    #[doc(hidden)]
    fn forks_for_each(&self) -> bool {
        false
    }

    /// Whether `process_request` runs the job in this thread and does nothing else: the
    /// answers to a batch of datagrams may then go together, and a single one needs no job.
    #[doc(hidden)]
    fn answers_in_loop(&self) -> bool {
        false
    }

    /// Takes in what children have told, before the loop judges their deadlines.
    #[doc(hidden)]
    fn hear_children(&self) {}

    /// Drains requests that other processes serve; `None` if there are no such.
    #[doc(hidden)]
    fn drain_elsewhere(&self, limit: Duration, hurry: &dyn Fn() -> bool) -> Option<DrainReport> {
        let _ = (limit, hurry);
        None
    }
}

/// Serves each request in the loop: the next client waits until this one is served.
///
/// Python: `BaseServer.process_request`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequential;

impl MixIn for Sequential {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        job.run();
        Ok(())
    }

    fn answers_in_loop(&self) -> bool {
        true
    }
}
