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

use sock::{Address, BorrowedFd, POLLIN, Poll, Socket, ToTimeout, errno};

use crate::accept::acceptor::{AcceptGate, Acceptor, Backoff, Next, Settings, Waiter};
use crate::connection::datagram::DatagramBuf;
use crate::lifecycle::deadline_timer::DeadlineTimer;
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::signals::Signals;
use crate::limits::drain_report::DrainReport;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::os::exit_timer;
use crate::os::guard::guard;
use crate::os::log::errno_field;
use crate::os::shortage;
use crate::request::core::Core;
use crate::request::job::{Job, Rejected};
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
    ///
    /// # Examples
    ///
    /// ```
    /// use std::thread;
    /// use sockserver::{Job, MixIn, Rejected, Server, handler_fn, kind};
    ///
    /// #[derive(Default)]
    /// struct Detached;
    ///
    /// impl MixIn for Detached {
    ///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    ///         thread::spawn(move || job.run());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let hello = handler_fn(|cx| cx.request.sendall(b"hello"));
    /// let server = Server::<kind::Stream<kind::Inet>, Detached>::new(("127.0.0.1", 0), hello)?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    fn process_request(&self, job: Job) -> Result<(), Rejected>;

    /// Runs the loop until the server stops. By default it calls
    /// [`AcceptLoop::run_once`] until that returns false.
    ///
    /// # Errors
    ///
    /// Returns an error if no listener can accept any more.
    ///
    /// # Examples
    ///
    /// A mixin that serves one request and then stops:
    ///
    /// ```
    /// # use std::io;
    /// # use sockserver::{AcceptLoop, Job, MixIn, Rejected, Server, handler_fn, kind};
    /// #[derive(Default)]
    /// struct OneRequest;
    ///
    /// impl MixIn for OneRequest {
    ///     fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
    ///         accept_loop.run_once(&[], None).map(drop)
    ///     }
    ///
    /// #     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    /// #         job.run();
    /// #         Ok(())
    /// #     }
    ///     // `process_request` is as for every mixin.
    /// }
    ///
    /// let hello = handler_fn(|cx| cx.request.sendall(b"hello"));
    /// let server = Server::<kind::Stream<kind::Inet>, OneRequest>::new(("127.0.0.1", 0), hello)?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        while accept_loop.run_once(&[], None)? {}
        Ok(())
    }

    /// Is called after every turn of the loop. By default it does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # use sockserver::{Job, MixIn, Rejected, Server, handler_fn, kind};
    /// #[derive(Default)]
    /// struct Counting {
    ///     turns: AtomicUsize,
    /// }
    ///
    /// impl MixIn for Counting {
    ///     fn service_actions(&self) {
    ///         self.turns.fetch_add(1, Ordering::Relaxed);
    ///     }
    ///
    /// #     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    /// #         job.run();
    /// #         Ok(())
    /// #     }
    ///     // `process_request` is as for every mixin.
    /// }
    ///
    /// let stop = handler_fn(|cx| cx.server.request_shutdown());
    /// let server = Server::<kind::Stream<kind::Inet>, Counting>::new(("127.0.0.1", 0), stop)?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_ne!(server.mixin().turns.load(Ordering::Relaxed), 0);
    /// # std::io::Result::Ok(())
    /// ```
    fn service_actions(&self) {}

    /// How long `handle_request` waits if the builder has no
    /// [`timeout`](crate::Builder::timeout). By default without a limit. Python: `timeout`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use std::time::Duration;
    /// use sockserver::{ForkingMixIn, MixIn, Sequential};
    ///
    /// assert_eq!(Sequential.timeout(), None);
    /// assert_eq!(ForkingMixIn::new().timeout(), Some(Duration::from_secs(300)));
    /// # }
    /// ```
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Is called when `handle_request` has timed out. By default it does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # use sockserver::{Job, MixIn, Rejected, Server, handler_fn, kind};
    /// #[derive(Default)]
    /// struct Counting {
    ///     timeouts: AtomicUsize,
    /// }
    ///
    /// impl MixIn for Counting {
    ///     fn handle_timeout(&self) {
    ///         self.timeouts.fetch_add(1, Ordering::Relaxed);
    ///     }
    ///
    /// #     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    /// #         job.run();
    /// #         Ok(())
    /// #     }
    ///     // `process_request` is as for every mixin.
    /// }
    ///
    /// let server = Server::<kind::Stream<kind::Inet>, Counting>::builder(handler_fn(|_| Ok(())))
    ///     .timeout(0)
    ///     .bind(("127.0.0.1", 0))?;
    /// server.handle_request()?;
    /// assert_eq!(server.mixin().timeouts.load(Ordering::Relaxed), 1);
    /// # std::io::Result::Ok(())
    /// ```
    fn handle_timeout(&self) {}

    /// Waits for the requests that still run, after the listeners are closed. By default it does
    /// nothing. [`ServerHandle::wait_until_idle`] waits for as long as the server's `close_timeout`
    /// allows.
    ///
    /// # Errors
    ///
    /// If it returns an error, [`Server::server_close`](crate::Server::server_close) returns the
    /// same error.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::io;
    /// # use sockserver::{Job, MixIn, Rejected, Server, ServerHandle, handler_fn, kind};
    /// #[derive(Default)]
    /// struct Detached;
    ///
    /// impl MixIn for Detached {
    ///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    ///         std::thread::spawn(move || job.run());
    ///         Ok(())
    ///     }
    ///
    ///     fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
    ///         match server.wait_until_idle() {
    ///             true => Ok(()),
    ///             false => Err(io::ErrorKind::TimedOut.into()),
    ///         }
    ///     }
    /// }
    ///
    /// let hello = handler_fn(|cx| cx.request.sendall(b"hello"));
    /// let server = Server::<kind::Stream<kind::Inet>, Detached>::new(("127.0.0.1", 0), hello)?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// server.server_close()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        let _ = server;
        Ok(())
    }

    /// Whether the mixin forks. Then the server starts no thread, and the loop enforces the
    /// deadlines. By default false.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] {
    /// use sockserver::{ForkingMixIn, MixIn, ThreadingMixIn};
    ///
    /// assert!(ForkingMixIn::new().forks());
    /// assert!(!ThreadingMixIn::new().forks());
    /// # }
    /// ```
    fn forks(&self) -> bool {
        false
    }

    /// Checks the options of the mixin before the server is bound. By default all are valid.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` with the name of the setter and the allowed range if
    /// an option is out of range. `bind` returns the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{MixIn, ThreadingMixIn};
    ///
    /// let error = ThreadingMixIn::new().stack_size(1).check_options().unwrap_err();
    /// assert!(error.to_string().contains("stack_size"));
    /// ```
    fn check_options(&self) -> io::Result<()> {
        Ok(())
    }

    /// Whether the mixins of this crate serve in the loop itself, one connection after the other.
    #[doc(hidden)]
    fn serves_in_loop(&self) -> bool {
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
pub trait Processes: Sync {
    /// Returns whether a worker can serve.
    fn is_ready(&self) -> bool {
        true
    }

    /// Calls `wait` with what is readable when a process has ended, and the longest wait, until another
    /// process may run. Returns false if `wait` returns false.
    fn wait_for_room(&self, _wait: &mut WaitForProcess<'_>) -> io::Result<bool> {
        Ok(true)
    }

    /// Receives the messages of children, before the loop enforces their deadlines.
    fn poll_children(&self) {}

    /// Drains the requests that other processes serve, and leaves idle connections open for `idle_grace`.
    /// Returns `None` if the requests are in the registry of this process.
    fn drain_workers(
        &self,
        limit: Duration,
        idle_grace: Duration,
        hurry: &dyn Fn() -> bool,
    ) -> Option<DrainReport>;

    /// Makes the processes close idle connections, if the requests are in the registry of this process.
    fn close_idle(&self) {}

    /// Makes the processes drain within `limit`. Called in a signal handler, so it must not allocate,
    /// log, or wait for a lock.
    fn drain_in_signal_handler(&self, _limit: Duration) {}

    /// Ends the processes after the limit of a drain. Returns false if a lock is held. Called in a
    /// signal handler, as [`drain_in_signal_handler`](Self::drain_in_signal_handler).
    fn end_in_signal_handler(&self) -> bool;
}

/// Waits for the end of a process. Returns false when the server stops.
pub(crate) type WaitForProcess<'a> = dyn FnMut(BorrowedFd<'_>, Option<Duration>) -> io::Result<bool> + 'a;

/// How often the loop tries to start the deadline thread after that has failed.
const DEADLINE_RETRY: Duration = Duration::from_secs(1);

/// So many turns of the loop wait first after an attempt that found no client.
const SKIPPED_ATTEMPTS: u32 = 8;

/// Accepts requests and passes them to a [`MixIn`], which decides where they run.
///
/// # Examples
///
/// A mixin that stops after its first request:
///
/// ```
/// # use std::io;
/// # use sockserver::{AcceptLoop, Job, MixIn, Rejected, Server, handler_fn, kind};
/// #[derive(Default)]
/// struct Once;
///
/// impl MixIn for Once {
///     fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
///         accept_loop.run_once(&[], None).map(drop)
///     }
///
///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
///         job.run();
///         Ok(())
///     }
/// }
///
/// let hello = handler_fn(|cx| cx.request.sendall(b"hello"));
/// let server = Server::<kind::Stream<kind::Inet>, Once>::new(("127.0.0.1", 0), hello)?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.serve_forever()?;
/// assert_eq!(client.recv(100)?, b"hello");
/// # std::io::Result::Ok(())
/// ```
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
        self.accept_loop.poll(true, self.watch, &[], limit)
    }

    fn pause(&self, pause: Option<Duration>, limit: Option<Duration>) -> io::Result<bool> {
        if pause.is_some() {
            // The end of a request may free the resource before the pause is over.
            self.accept_loop.core.registry().permits.register_waiter();
        }
        self.accept_loop.poll(false, self.watch, &[], shorter(pause, limit))
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
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::io;
    /// # use sockserver::{AcceptLoop, Job, MixIn, Rejected, Server, handler_fn, kind};
    /// #[derive(Default)]
    /// struct Sequential;
    ///
    /// impl MixIn for Sequential {
    ///     fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
    ///         while accept_loop.run_once(&[], None)? {}
    ///         Ok(())
    ///     }
    ///
    ///     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    ///         job.run();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let stop = handler_fn(|cx| cx.server.request_shutdown());
    /// let server = Server::<kind::Stream<kind::Inet>, Sequential>::new(("127.0.0.1", 0), stop)?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(server.stats().finished, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn run_once(&self, watch: &[BorrowedFd<'_>], limit: impl ToTimeout) -> io::Result<bool> {
        let limit = limit.to_timeout()?;
        if self.is_stopping() {
            return Ok(false);
        }
        let skips = self.skipped_attempts.get();
        self.skipped_attempts.set(skips.saturating_sub(1));
        let waiter = self.waiter(watch, skips > 0);
        match self.gate.next(&waiter, shorter(limit, self.idle_limit()))? {
            Next::Taken(job) => {
                if let Some(pause) = self.process(job) {
                    waiter.pause(Some(pause), None)?;
                }
                // A loop whose clients are already there never waits.
                self.run_housekeeping()?;
            }
            Next::Refused => self.run_housekeeping()?,
            Next::TimedOut => {}
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
    ///
    /// # Examples
    ///
    /// A mixin that accepts nothing for the first 10 ms:
    ///
    /// ```
    /// # use std::{io, time::Duration};
    /// # use sockserver::{AcceptLoop, Job, MixIn, Rejected, Server, handler_fn, kind};
    /// #[derive(Default)]
    /// struct Paused;
    ///
    /// impl MixIn for Paused {
    ///     fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
    ///         accept_loop.wait_without_accepting(&[], 0.01)?;
    ///         while accept_loop.run_once(&[], None)? {}
    ///         Ok(())
    ///     }
    ///
    /// #     fn process_request(&self, job: Job) -> Result<(), Rejected> {
    /// #         job.run();
    /// #         Ok(())
    /// #     }
    ///     // `process_request` is as for every mixin.
    /// }
    ///
    /// let stop = handler_fn(|cx| cx.server.request_shutdown());
    /// let server = Server::<kind::Stream<kind::Inet>, Paused>::new(("127.0.0.1", 0), stop)?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(server.stats().finished, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wait_without_accepting(
        &self,
        watch: &[BorrowedFd<'_>],
        limit: impl ToTimeout,
    ) -> io::Result<bool> {
        self.wait_for_processes(watch, &[], limit.to_timeout()?)
    }

    /// Waits like [`wait_without_accepting`](Self::wait_without_accepting), and until the peer of a socket
    /// in `ends` has closed its end. What that has sent does not end the wait.
    pub(crate) fn wait_for_processes(
        &self,
        watch: &[BorrowedFd<'_>],
        ends: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> io::Result<bool> {
        if !self.is_stopping() {
            self.poll(false, watch, ends, shorter(limit, self.idle_limit()))?;
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
        self.gate.next_with(&waiter, self.idle_limit(), |acceptor, index| {
            let listener = acceptor.listener(index);
            receive(listener)?;
            Ok(Arc::clone(listener))
        })
    }

    /// Waits up to `timeout` for one request and passes it to the mixin, unless it is refused.
    /// Returns false if none came.
    pub(crate) fn one_request(self, timeout: Option<Duration>) -> io::Result<bool> {
        let due = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let acceptor = Acceptor::new(&self.core, self.listeners, self.settings).for_one_request();
        let gate = AcceptGate::new(acceptor);
        let _ = guard(|| self.mixin.service_actions());
        self.run_housekeeping()?;
        let left = || due.map(|due| due.saturating_duration_since(Instant::now()));
        let stops = || self.core.registry().is_draining() || self.signal_received();
        let mut wait = |fd: BorrowedFd<'_>, limit| {
            self.poll(false, &[fd], &[], shorter(limit, left()))?;
            Ok(!stops() && left() != Some(Duration::ZERO))
        };
        if let Some(processes) = self.mixin.processes() {
            if !stops() && !processes.wait_for_room(&mut wait)? {
                return Ok(stops());
            }
        }
        while !stops() {
            let left = left();
            let waiter = self.waiter(&[], true);
            match gate.next(&waiter, left)? {
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
        let enter = |acceptor: &mut Acceptor| acceptor.enter(Arrival::Datagram(packet), client_address);
        self.gate.with_acceptor(enter)?.admit()
    }

    fn is_stopping(&self) -> bool {
        self.core.handle.loop_ends()
    }

    pub(crate) fn signal_received(&self) -> bool {
        self.signals.is_some_and(|signals| signals.requested_drain().is_some())
    }

    /// Makes this worker process receive its own signals, if the server handles them.
    #[cfg(unix)]
    pub(crate) fn receive_signals_in_worker(&self) -> io::Result<Option<Arc<Socket>>> {
        self.signals.map(Signals::enter_worker).transpose()
    }

    /// The signals, if the server manages its worker processes with them.
    #[cfg(unix)]
    pub(crate) fn worker_signals(&self) -> Option<&Signals> {
        self.signals.filter(|signals| signals.manages_workers())
    }

    /// Passes a job to the mixin. Returns how long to pause if it could not be started.
    fn process(&self, job: Job) -> Option<Duration> {
        // The mixin may be the user's. A job that it drops while it panics is closed.
        let passed_on = guard(|| self.mixin.process_request(job)).unwrap_or_else(|message| {
            log_limited!(
                error, LogKind::Panicked, hook = "process_request";
                "process_request of the mixin panicked: {message}"
            );
            Ok(())
        });
        let Err(rejected) = passed_on else {
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
        if let Err(message) = guard(|| self.mixin.service_actions()) {
            log_limited!(
                error, LogKind::Panicked, hook = "service_actions";
                "service_actions of the mixin panicked: {message}"
            );
        }
        let core = &*self.core;
        let Some(service_actions) = &core.service_actions else { return };
        let called = catch_panic(|| {
            service_actions(&core.handle);
            Ok(())
        });
        if let Err(error) = called {
            log_limited!(error, error.log_kind(), hook = "service_actions"; "service_actions {error}");
        }
    }

    /// Returns how long the loop may wait if nothing happens: `poll_interval` if the program has
    /// registered `service_actions`, otherwise without a limit.
    fn idle_limit(&self) -> Option<Duration> {
        let registered = self.core.service_actions.is_some();
        registered.then_some(self.settings.poll_interval)
    }

    /// Waits until a descriptor of `watch`, or with `accepting` a listener, is readable, the peer of one
    /// of `ends` has closed, the server is woken, or `limit` has passed. Returns whether a listener is
    /// readable.
    fn poll(
        &self,
        accepting: bool,
        watch: &[BorrowedFd<'_>],
        ends: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> io::Result<bool> {
        let (waker, registry) = (self.core.handle.waker(), self.core.registry());
        let (timer, duties) = (&registry.deadline_timer, self.core.handle.duties());
        let retry = timer.has_failed_to_start().then_some(DEADLINE_RETRY);
        let mut due = if timer.is_forbidden() { registry.next_due() } else { retry };
        if registry.is_draining() {
            due = shorter(due, self.core.handle.queue().remaining());
        } else if self.signal_received() {
            due = shorter(due, self.core.handle.lame_duck_left());
        } else if self.mixin.forks() && duties.requested_drain().is_some() {
            due = shorter(due, self.core.handle.lame_duck_of_duties());
        }
        let polled = self.polled.borrow();
        let listeners = if accepting { &polled[..] } else { &[] };
        let mut duty_sockets = Vec::new();
        if self.mixin.forks() {
            due = shorter(due, duties.waits_for(&mut duty_sockets));
        }
        due = shorter(due, duties.ready_limit());
        let mut set = Vec::with_capacity(2 + listeners.len() + watch.len() + ends.len());
        set.push(waker.poll());
        set.extend(listeners.iter().map(|listener| Poll::new(&**listener, POLLIN)));
        set.extend(watch.iter().map(|fd| Poll::new(fd, POLLIN)));
        // poll(2) reports POLLHUP in any case.
        set.extend(ends.iter().map(|fd| Poll::new(fd, 0)));
        set.extend(self.signals.map(Signals::poll));
        set.extend(duty_sockets.iter().map(|socket| Poll::new(&**socket, POLLIN)));
        let mut wait = || sock::poll(&mut set, shorter(limit, due));
        let polled = if self.signals.is_some() { exit_timer::while_waiting(wait) } else { wait() };
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if shortage::is_shortage(&error) => {
                let kind = LogKind::Other(error.kind(), errno(&error));
                log_limited!(warn, kind, errno = errno_field(&error); "cannot wait for clients: {error}");
                shortage::pause();
            }
            polled => drop(polled?),
        }
        if set[0].revents() != 0 {
            waker.drain();
        }
        if retry.is_some() {
            DeadlineTimer::retry(registry);
        }
        if set[set.len() - duty_sockets.len()..].iter().any(|socket| socket.revents() != 0) {
            duties.run(&self.core.handle);
        }
        let is_readable = set[1..=listeners.len()].iter().any(|listener| listener.revents() != 0);
        self.run_housekeeping()?;
        Ok(is_readable)
    }

    /// Handles signals and deadlines, if no thread does.
    pub(crate) fn run_housekeeping(&self) -> io::Result<()> {
        let (handle, duties) = (&self.core.handle, self.core.handle.duties());
        duties.loop_turn(handle, || self.mixin.processes().is_none_or(Processes::is_ready));
        if self.mixin.forks() {
            let requested = duties.run_at_intervals(handle);
            if let Some(limit) = requested.filter(|_| handle.lame_duck_of_duties().is_none()) {
                handle.begin_drain(limit, handle.is_serving());
                self.request_shutdown_once()?;
            }
        }
        if let Some(signals) = self.signals {
            signals.read_signals();
            let requested = signals.requested_drain();
            if let Some(limit) = requested.filter(|_| !self.lame_duck_goes_on(signals)) {
                self.core.handle.begin_drain(limit, self.core.handle.is_serving());
                self.request_shutdown_once()?;
                if self.core.handle.queue().is_open() && signals.second_signal() {
                    self.core.handle.close_queue();
                }
            }
        }
        let queue = self.core.handle.queue();
        if self.core.registry().is_draining()
            && queue.is_open()
            && queue.remaining() == Some(Duration::ZERO)
        {
            self.core.handle.close_queue();
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

impl AcceptLoop<'_> {
    /// Requests the end of the loop, which wakes it: in each turn of a drain it would never wait.
    fn request_shutdown_once(&self) -> io::Result<()> {
        let handle = &self.core.handle;
        if handle.stop_requested() { Ok(()) } else { handle.request_shutdown() }
    }

    /// Returns whether a signal has begun the lame duck, and neither its time nor a second signal has
    /// ended it.
    fn lame_duck_goes_on(&self, signals: &Signals) -> bool {
        self.core.handle.lame_duck_left().is_some() && !signals.second_signal()
    }
}

/// Returns the shorter of two limits.
fn shorter(limit: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    limit.into_iter().chain(other).min()
}
