//! Mixins and the loop that calls them: where a request runs.
//!
//! 1. [`Sequential`] in the loop itself, one after the other: plain `TCPServer`.
//! 2. [`ThreadingMixIn`](crate::ThreadingMixIn) in a thread for each request.
//! 3. [`ForkingMixIn`](crate::ForkingMixIn) in a child process for each request (Unix).
//! 4. [`ThreadPoolMixIn`](crate::ThreadPoolMixIn) in a fixed number of threads.
//! 5. [`PreforkMixIn`](crate::PreforkMixIn) in processes that are there before their clients
//!    (Unix).
//! 6. [`SelectorMixIn`](crate::SelectorMixIn) in a few threads; connections between two
//!    requests wait without one (Unix).

use std::cell::Cell;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use sock::{BorrowedFd, POLLIN, Poll};

use crate::accept::acceptor::{Accepted, Acceptor};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::signals::Signals;
use crate::limits::drain_report::DrainReport;
use crate::request::catch_panic;
use crate::request::job::{Job, Rejected};
use crate::request::log_limit;

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
/// Accepting, limits and hooks are the [`AcceptLoop`]'s, whoever runs the loop.
pub trait MixIn: Send + Sync + 'static {
    /// Serves the request, now or later, here or elsewhere: [`Job::run`].
    ///
    /// # Errors
    ///
    /// The job itself, [rejected](Job::reject), when it cannot be started: the
    /// error goes to `handle_error` and the connection is closed.
    fn process_request(&self, job: Job) -> Result<(), Rejected>;

    /// Runs the loop until the server is told to stop. By default one turn of
    /// the accept_loop after the other in this thread.
    ///
    /// # Errors
    ///
    /// The listener's, when it is of no more use.
    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        while accept_loop.run_once(&[])? {}
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

    /// Whether `process_request` runs the job in this thread and does nothing else: the
    /// answers to a batch of datagrams may then go together, and a single one needs no job.
    #[doc(hidden)]
    fn runs_inline(&self) -> bool {
        false
    }

    /// Takes in what children have told, before the loop judges their deadlines.
    #[doc(hidden)]
    fn poll_children(&self) {}

    /// Drains requests that other processes serve; `None` if there are no such.
    #[doc(hidden)]
    fn drain_workers(&self, limit: Duration, hurry: &dyn Fn() -> bool) -> Option<DrainReport> {
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

    fn runs_inline(&self) -> bool {
        true
    }
}

/// How many turns wait at once after an attempt that was in vain.
const SPECULATION_SKIPS: u32 = 8;

/// The server's side of a loop: it waits, accepts and verifies; a
/// [`MixIn`] decides when and where what comes of it runs.
pub struct AcceptLoop<'a> {
    acceptor: Acceptor,
    mixin: &'a dyn MixIn,
    /// For how many turns it waits before it tries.
    skip_speculation: Cell<u32>,
    signals: Option<&'a Signals>,
}

impl fmt::Debug for AcceptLoop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptLoop").finish_non_exhaustive()
    }
}

impl<'a> AcceptLoop<'a> {
    pub(crate) fn new(acceptor: Acceptor, mixin: &'a dyn MixIn) -> AcceptLoop<'a> {
        let acceptor = if mixin.runs_inline() { acceptor.with_inline_datagrams() } else { acceptor };
        AcceptLoop { acceptor, mixin, skip_speculation: Cell::new(0), signals: None }
    }

    /// Has the loop itself look for signals.
    pub(crate) fn with_signals(self, signals: Option<&'a Signals>) -> AcceptLoop<'a> {
        AcceptLoop { signals, ..self }
    }

    /// One turn of the loop: takes a request if one is there, else waits; hands
    /// it to the mixin; calls `service_actions`. Returns false when the server
    /// is to stop; a request is never accepted after that (bpo-35017).
    ///
    /// The wait also ends when a descriptor of `watch` becomes readable.
    ///
    /// # Errors
    ///
    /// The listener's, when it is of no more use.
    pub fn run_once(&self, watch: &[BorrowedFd<'_>]) -> io::Result<bool> {
        self.run_once_within(watch, None)
    }

    /// [`run_once`](Self::run_once), which waits no longer than `limit`.
    pub(crate) fn run_once_within(
        &self,
        watch: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> io::Result<bool> {
        // What has been received is served, also when the server is to stop.
        if self.is_stopping() && !self.acceptor.has_more() {
            return Ok(false);
        }
        let mut accepted = self.accept_speculatively()?;
        // One follows the other: nobody has anything to do in between but this.
        while let Accepted::ServedInline = accepted {
            self.run_housekeeping()?;
            if self.is_stopping() {
                return Ok(self.acceptor.has_more());
            }
            accepted = self.accept_speculatively()?;
        }
        if let Accepted::WouldBlock = accepted {
            self.wait(true, watch, shorter(limit, self.idle_limit()))?;
            if self.is_stopping() {
                return Ok(false);
            }
            accepted = self.acceptor.accept()?;
        }
        match accepted {
            Accepted::Job(job) => {
                if let Some(pause) = self.process(job) {
                    self.acceptor.core().registry().permits.register_waiter();
                    self.wait(false, watch, Some(pause))?;
                }
                // Where one client follows the other nobody ever waits.
                self.run_housekeeping()?;
            }
            Accepted::ServedInline => self.run_housekeeping()?,
            Accepted::WouldBlock | Accepted::Refused | Accepted::Retry => {}
            Accepted::Backoff(pause) => {
                // A descriptor may be free before the pause is over.
                self.acceptor.core().registry().permits.register_waiter();
                self.wait(false, watch, Some(pause))?;
            }
            Accepted::AtCapacity => self.wait(false, watch, shorter(limit, self.idle_limit()))?,
        }
        self.service_actions();
        Ok(!self.is_stopping() || self.acceptor.has_more())
    }

    /// Takes a request without waiting, unless lately nobody was there who did not have to
    /// be waited for: an attempt in vain costs as much as two waits that are over at once.
    fn accept_speculatively(&self) -> io::Result<Accepted> {
        let quiet = self.skip_speculation.get();
        if quiet > 0 && !self.acceptor.has_more() {
            self.skip_speculation.set(quiet - 1);
            return Ok(Accepted::WouldBlock);
        }
        let accepted = self.acceptor.accept()?;
        if let Accepted::WouldBlock = accepted {
            self.skip_speculation.set(SPECULATION_SKIPS);
        }
        Ok(accepted)
    }

    /// A turn that accepts nothing: waits for a descriptor of `watch`, up to
    /// `limit`, and lets clients wait in the listener's queue. Returns false when
    /// the server is to stop.
    ///
    /// # Errors
    ///
    /// Those of poll(2).
    pub fn wait_without_accepting(
        &self,
        watch: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> io::Result<bool> {
        if !self.is_stopping() {
            self.wait(false, watch, shorter(limit, self.idle_limit()))?;
            self.service_actions();
        }
        Ok(!self.is_stopping())
    }

    /// Waits up to `timeout` for one request and hands it to the mixin, unless it
    /// is refused. Returns false when none came.
    pub(crate) fn one_request(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let due = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.mixin.service_actions();
        self.run_housekeeping()?;
        loop {
            if self.acceptor.core().registry().is_draining() || self.signal_received() {
                return Ok(true);
            }
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            match self.acceptor.accept()? {
                Accepted::Job(job) => {
                    self.process(job);
                    return Ok(true);
                }
                Accepted::ServedInline | Accepted::Refused => return Ok(true),
                _ if left == Some(Duration::ZERO) => return Ok(false),
                Accepted::Retry => {}
                Accepted::WouldBlock => self.wait(true, &[], left)?,
                Accepted::AtCapacity => self.wait(false, &[], left)?,
                Accepted::Backoff(pause) => {
                    self.wait(false, &[], Some(left.map_or(pause, |left| left.min(pause))))?;
                }
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.acceptor.is_stopping()
    }

    pub(crate) fn signal_received(&self) -> bool {
        self.signals.is_some_and(|signals| signals.requested_drain().is_some())
    }

    /// Hands a job to the mixin. Returns how long to wait if it could not be started.
    fn process(&self, job: Job) -> Option<Duration> {
        let served = match self.mixin.runs_inline() {
            true => self.acceptor.serving(|| self.acceptor.batching(|| self.mixin.process_request(job))),
            false => self.mixin.process_request(job),
        };
        match served {
            Ok(()) => {
                self.acceptor.reset_spawn_backoff();
                None
            }
            Err(rejected) => Some(self.acceptor.reject(rejected)),
        }
    }

    /// The acceptor this loop stands at.
    pub(crate) fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// Calls the mixin's `service_actions`, then the one that the program has registered.
    fn service_actions(&self) {
        self.mixin.service_actions();
        let core = self.acceptor.core();
        let Some(service_actions) = &core.service_actions else { return };
        let called = catch_panic(|| {
            service_actions(&core.handle);
            Ok(())
        });
        if let Err(error) = called {
            match log_limit::check(log_limit::kind_of(&error), Instant::now()) {
                None => log::debug!("service_actions {error}"),
                Some(0) => log::error!("service_actions {error}"),
                Some(more) => log::error!("service_actions {error}; and {more} more panics before it"),
            }
        }
    }

    /// Returns how long the loop may wait if nothing happens: `poll_interval` if the program has
    /// registered `service_actions`, otherwise without a limit.
    fn idle_limit(&self) -> Option<Duration> {
        let registered = self.acceptor.core().service_actions.is_some();
        registered.then_some(self.acceptor.settings().poll_interval)
    }

    /// Sleeps until one of `watch`, or a listener if `accepting`, is readable, the
    /// server is to stop, or `limit` has passed.
    fn wait(&self, accepting: bool, watch: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<()> {
        let (waker, registry) = (self.acceptor.core().handle.waker(), self.acceptor.core().registry());
        let due = if registry.deadline_timer.is_forbidden() { registry.next_due() } else { None };
        let mut set = Vec::with_capacity(4 + watch.len());
        set.push(waker.poll());
        if accepting {
            set.extend(self.acceptor.listeners().map(|listener| Poll::new(listener, POLLIN)));
        }
        set.extend(watch.iter().map(|fd| Poll::new(fd, POLLIN)));
        set.extend(self.signals.map(Signals::poll));
        ignore_interrupt(sock::poll(&mut set, shorter(limit, due)))?;
        if set[0].revents() != 0 {
            waker.drain();
        }
        self.run_housekeeping()
    }

    /// Sees to signals and deadlines, where no thread does.
    fn run_housekeeping(&self) -> io::Result<()> {
        if let Some(signals) = self.signals {
            signals.read_signals();
            if self.signal_received() {
                self.acceptor.core().handle.request_shutdown()?;
            }
        }
        let registry = self.acceptor.core().registry();
        if registry.deadline_timer.is_forbidden() && registry.next_due() == Some(Duration::ZERO) {
            self.mixin.poll_children();
            registry.expire_overdue();
        }
        Ok(())
    }
}

/// The shorter of two limits, where there is one.
fn shorter(limit: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    limit.into_iter().chain(other).min()
}

fn ignore_interrupt(polled: io::Result<usize>) -> io::Result<()> {
    match polled {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}
