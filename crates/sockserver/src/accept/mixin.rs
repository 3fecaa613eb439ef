//! The accept loop, and mixins, which decide where a request runs.
//!
//! 1. [`Sequential`](crate::Sequential) in the loop itself, one after the other: plain `TCPServer`.
//! 2. [`ThreadingMixIn`](crate::ThreadingMixIn) in a thread for each request.
//! 3. [`ForkingMixIn`](crate::ForkingMixIn) in a child process for each request (Unix).
//! 4. [`ThreadPoolMixIn`](crate::ThreadPoolMixIn) in a fixed number of threads.
//! 5. [`PreforkMixIn`](crate::PreforkMixIn) in processes that are there before their clients
//!    (Unix).
//! 6. [`SelectorMixIn`](crate::SelectorMixIn) in a few threads; connections between two
//!    requests wait without one (Unix).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sock::{Address, BorrowedFd, POLLIN, Poll, Socket};

use crate::accept::acceptor::{AcceptGate, Acceptor, Backoff, Next, Settings, Waiter};
use crate::connection::datagram::DatagramBuf;
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::signals::Signals;
use crate::limits::drain_report::DrainReport;
use crate::request::core::Core;
use crate::request::job::{Job, Rejected};
use crate::request::log_limit;
use crate::request::{Arrival, catch_panic};

/// Decides where requests run.
///
/// Python: `class ThreadingTCPServer(ThreadingMixIn, TCPServer)`. Here the mixin is a value that the
/// server owns.
///
/// [`serve`](Self::serve) runs while `serve_forever` does, and calls
/// [`process_request`](Self::process_request) for each request.
/// [`server_close`](Self::server_close) is called when the server closes.
///
/// # Examples
///
/// A mixin that counts requests and passes them to another mixin:
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
/// The [`AcceptLoop`] accepts, enforces limits and calls hooks for every mixin.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a concurrency model",
    label = "not a `MixIn`",
    note = "the models are `Sequential`, `ThreadingMixIn`, `ThreadPoolMixIn`, `SelectorMixIn`, and on Unix \
            `ForkingMixIn` and `PreforkMixIn`; or implement `MixIn`"
)]
pub trait MixIn: Send + Sync + 'static {
    /// Calls [`Job::run`], in any thread, now or later.
    ///
    /// # Errors
    ///
    /// Returns the job, [rejected](Job::reject), if it cannot be started. The error then goes to
    /// `handle_error`, and the connection is closed.
    fn process_request(&self, job: Job) -> Result<(), Rejected>;

    /// Runs the loop until the server stops. By default it calls
    /// [`AcceptLoop::run_once`] until that returns false.
    ///
    /// # Errors
    ///
    /// Returns an error if no listener can accept any more.
    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        while accept_loop.run_once(&[], None)? {}
        Ok(())
    }

    /// Is called after every turn of the loop. By default it does nothing.
    fn service_actions(&self) {}

    /// How long `handle_request` waits if the builder has no
    /// [`timeout`](crate::Builder::timeout). By default without a limit. Python: `timeout`.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Is called when `handle_request` has timed out. By default it does nothing.
    fn handle_timeout(&self) {}

    /// Waits for the requests that still run, after the listeners are closed. By default it does
    /// nothing. [`ServerHandle::wait_until_idle`] waits for as long as the server's `close_timeout`
    /// allows.
    ///
    /// # Errors
    ///
    /// An error is returned by [`Server::server_close`](crate::Server::server_close).
    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        let _ = server;
        Ok(())
    }

    /// Whether the mixin forks. Then the server starts no thread, and the loop enforces the
    /// deadlines. By default false.
    fn forks(&self) -> bool {
        false
    }

    /// What the mixins of this crate do with the processes that they fork.
    #[doc(hidden)]
    fn processes(&self) -> Option<&dyn Processes> {
        None
    }
}

/// What a mixin does with the processes that it forks. The trait has no public path, so only the
/// mixins of this crate implement it.
pub trait Processes {
    /// Receives the messages of children, before the loop enforces their deadlines.
    fn poll_children(&self) {}

    /// Drains the requests that other processes serve. Returns `None` if the requests are in the
    /// registry of this process.
    fn drain_workers(&self, limit: Duration, hurry: &dyn Fn() -> bool) -> Option<DrainReport>;
}

/// So many turns of the loop wait first after an attempt that found no client.
const SKIPPED_ATTEMPTS: u32 = 8;

/// Accepts requests and passes them to a [`MixIn`], which decides where they run.
pub struct AcceptLoop<'a> {
    core: Arc<Core>,
    /// The listeners at the beginning of the loop.
    listeners: &'a [Arc<Socket>],
    settings: Settings,
    gate: AcceptGate,
    /// The listeners to wait for.
    polled: RefCell<Vec<Arc<Socket>>>,
    /// For how many turns the loop waits before its first attempt.
    skipped_attempts: Cell<u32>,
    mixin: &'a dyn MixIn,
    /// Pauses between requests that cannot be started.
    spawn_backoff: Cell<Backoff>,
    signals: Option<&'a Signals>,
}

impl fmt::Debug for AcceptLoop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptLoop").finish_non_exhaustive()
    }
}

/// Waits in poll(2), once in a turn of the loop, for a client, a wake-up of the server, a signal, or
/// a descriptor of `watch`.
struct PollWaiter<'a> {
    accept_loop: &'a AcceptLoop<'a>,
    watch: &'a [BorrowedFd<'a>],
    waits_first: bool,
    has_waited: Cell<bool>,
}

impl Waiter for PollWaiter<'_> {
    fn waits_first(&self) -> bool {
        self.waits_first
    }

    fn wait(&self, _gate: &AcceptGate, limit: Option<Duration>) -> io::Result<bool> {
        if self.has_waited.replace(true) {
            return Ok(false);
        }
        if !self.waits_first {
            self.accept_loop.skipped_attempts.set(SKIPPED_ATTEMPTS);
        }
        self.accept_loop.poll(true, self.watch, limit)
    }

    fn pause(&self, pause: Option<Duration>, limit: Option<Duration>) -> io::Result<bool> {
        if pause.is_some() {
            // The end of a request may free the resource before the pause is over.
            self.accept_loop.core.registry().permits.register_waiter();
        }
        self.accept_loop.poll(false, self.watch, shorter(pause, limit))
    }

    fn remove_listener(&self, listener: &Arc<Socket>) {
        self.accept_loop.polled.borrow_mut().retain(|polled| !Arc::ptr_eq(polled, listener));
    }
}

impl<'a> AcceptLoop<'a> {
    pub(crate) fn new(
        core: &Arc<Core>,
        listeners: &'a [Arc<Socket>],
        settings: Settings,
        mixin: &'a dyn MixIn,
        signals: Option<&'a Signals>,
    ) -> AcceptLoop<'a> {
        AcceptLoop {
            core: Arc::clone(core),
            listeners,
            settings,
            gate: AcceptGate::new(Acceptor::new(core, listeners, settings)),
            polled: RefCell::new(listeners.to_vec()),
            skipped_attempts: Cell::new(0),
            mixin,
            spawn_backoff: Cell::default(),
            signals,
        }
    }

    /// Runs one turn of the loop: waits for a request, accepts it, passes it to the mixin, and
    /// calls `service_actions`. Returns false when the server stops. No request is accepted after
    /// that (bpo-35017).
    ///
    /// The wait ends after `limit`, and when a descriptor of `watch` becomes readable.
    ///
    /// # Errors
    ///
    /// Returns an error if no listener can accept any more, or if poll(2) fails.
    pub fn run_once(&self, watch: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<bool> {
        if self.is_stopping() {
            return Ok(false);
        }
        let skips = self.skipped_attempts.get();
        self.skipped_attempts.set(skips.saturating_sub(1));
        let waiter = self.waiter(watch, skips > 0);
        match self.gate.next(&waiter, shorter(limit, self.idle_limit()), Acceptor::accept_from)? {
            Next::Taken(job) => {
                if let Some(pause) = self.process(job) {
                    waiter.pause(Some(pause), None)?;
                }
                // A loop whose clients are already there never waits.
                self.run_housekeeping()?;
            }
            Next::Refused | Next::TimedOut => {}
            Next::Stopped => return Ok(false),
        }
        self.service_actions();
        Ok(!self.is_stopping())
    }

    /// Waits for a descriptor of `watch`, up to `limit`, while clients stay in the listener's
    /// queue. Returns false when the server stops.
    ///
    /// # Errors
    ///
    /// Returns an error if poll(2) fails.
    pub fn wait_without_accepting(
        &self,
        watch: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> io::Result<bool> {
        if !self.is_stopping() {
            self.poll(false, watch, shorter(limit, self.idle_limit()))?;
            self.service_actions();
        }
        Ok(!self.is_stopping())
    }

    /// Receives with `receive`, which gets each listener in turn. Waits only if that returns
    /// `WouldBlock` for all. Returns the listener.
    pub(crate) fn next_datagrams(
        &self,
        mut receive: impl FnMut(&Socket) -> io::Result<()>,
    ) -> io::Result<Next<Arc<Socket>>> {
        let waiter = self.waiter(&[], false);
        self.gate.next(&waiter, self.idle_limit(), |acceptor, index| {
            let listener = acceptor.listener(index);
            receive(listener)?;
            Ok(Some(Arc::clone(listener)))
        })
    }

    /// Waits up to `timeout` for one request and passes it to the mixin, unless it is refused.
    /// Returns false if none came.
    pub(crate) fn one_request(self, timeout: Option<Duration>) -> io::Result<bool> {
        let due = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let acceptor = Acceptor::new(&self.core, self.listeners, self.settings).for_one_request();
        let gate = AcceptGate::new(acceptor);
        self.mixin.service_actions();
        self.run_housekeeping()?;
        while !self.core.registry().is_draining() && !self.signal_received() {
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            let waiter = self.waiter(&[], true);
            match gate.next(&waiter, left, Acceptor::accept_from)? {
                Next::Taken(job) => {
                    self.process(job);
                    return Ok(true);
                }
                Next::Refused | Next::Stopped => return Ok(true),
                Next::TimedOut if left == Some(Duration::ZERO) => return Ok(false),
                Next::TimedOut => {}
            }
        }
        Ok(true)
    }

    fn waiter<'b>(&'b self, watch: &'b [BorrowedFd<'b>], waits_first: bool) -> PollWaiter<'b> {
        PollWaiter { accept_loop: self, watch, waits_first, has_waited: Cell::new(false) }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    pub(crate) fn listeners(&self) -> &[Arc<Socket>] {
        self.listeners
    }

    /// Returns an acceptor for another worker of this loop.
    pub(crate) fn new_acceptor(&self) -> Acceptor {
        Acceptor::new(&self.core, self.listeners, self.settings)
    }

    /// Makes a job of a datagram that [`next_datagrams`](Self::next_datagrams) has received.
    pub(crate) fn admit_datagram(&self, packet: DatagramBuf, client_address: Address) -> Option<Job> {
        let admit = |acceptor: &mut Acceptor| acceptor.admit(Arrival::Datagram(packet), client_address);
        self.gate.with_acceptor(admit).flatten()
    }

    fn is_stopping(&self) -> bool {
        self.core.handle.is_stopping() || self.core.registry().is_draining()
    }

    pub(crate) fn signal_received(&self) -> bool {
        self.signals.is_some_and(|signals| signals.requested_drain().is_some())
    }

    /// Passes a job to the mixin. Returns how long to pause if it could not be started.
    fn process(&self, job: Job) -> Option<Duration> {
        let Err(rejected) = self.mixin.process_request(job) else {
            self.spawn_backoff.take();
            return None;
        };
        // The end of this job must not end the pause.
        self.core.registry().permits.unregister_waiter();
        Job::end_rejected(rejected);
        let mut backoff = self.spawn_backoff.get();
        let delay = backoff.next_delay();
        self.spawn_backoff.set(backoff);
        Some(delay)
    }

    /// Calls the mixin's `service_actions`, then the one that the program has registered.
    pub(crate) fn service_actions(&self) {
        self.mixin.service_actions();
        let core = &*self.core;
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
        let registered = self.core.service_actions.is_some();
        registered.then_some(self.settings.poll_interval)
    }

    /// Waits until a descriptor of `watch`, or with `accepting` a listener, is readable, the server
    /// is woken, or `limit` has passed. Returns whether a listener is readable.
    fn poll(&self, accepting: bool, watch: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<bool> {
        let (waker, registry) = (self.core.handle.waker(), self.core.registry());
        let due = if registry.deadline_timer.is_forbidden() { registry.next_due() } else { None };
        let polled = self.polled.borrow();
        let listeners = if accepting { &polled[..] } else { &[] };
        let mut set = Vec::with_capacity(2 + listeners.len() + watch.len());
        set.push(waker.poll());
        set.extend(listeners.iter().map(|listener| Poll::new(&**listener, POLLIN)));
        set.extend(watch.iter().map(|fd| Poll::new(fd, POLLIN)));
        set.extend(self.signals.map(Signals::poll));
        match sock::poll(&mut set, shorter(limit, due)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => drop(polled?),
        }
        if set[0].revents() != 0 {
            waker.drain();
        }
        let is_readable = set[1..=listeners.len()].iter().any(|listener| listener.revents() != 0);
        self.run_housekeeping()?;
        Ok(is_readable)
    }

    /// Handles signals and deadlines, if no thread does.
    pub(crate) fn run_housekeeping(&self) -> io::Result<()> {
        if let Some(signals) = self.signals {
            signals.read_signals();
            if self.signal_received() {
                self.core.handle.request_shutdown()?;
            }
        }
        let registry = self.core.registry();
        if registry.deadline_timer.is_forbidden() && registry.next_due() == Some(Duration::ZERO) {
            if let Some(processes) = self.mixin.processes() {
                processes.poll_children();
            }
            registry.expire_overdue();
        }
        Ok(())
    }
}

/// Returns the shorter of two limits.
fn shorter(limit: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    limit.into_iter().chain(other).min()
}
