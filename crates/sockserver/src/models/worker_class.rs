//! What a pre-forked worker process runs: one connection, threads, or a selector.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sock::Socket;

use crate::accept::mixin::{AcceptLoop, MixIn};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::scoreboard::Slot;
use crate::limits::ranges;
use crate::models::pool::ThreadPoolMixIn;
use crate::models::prefork::PreforkMixIn;
use crate::models::selector::SelectorMixIn;
use crate::models::thread_options::ThreadOptions;
use crate::os::guard::{SafeDisplay, discard};
use crate::os::log::errno_field;
use crate::request::core::Core;

/// How each worker process of a [`PreforkMixIn`](crate::PreforkMixIn) serves its connections. gunicorn:
/// `worker_class`.
///
/// The default, [`Sync`](Self::Sync), is right for short connections. A client that keeps its
/// connection, as HAProxy does with default settings, holds the whole process between two requests.
/// [`Selector`](Self::Selector) is right for those: it is the design of nginx.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use sockserver::{PreforkTCPServer, WorkerClass, handler_fn};
///
/// let echo = handler_fn(|cx| {
///     let line = cx.rfile.readline(100)?;
///     cx.close_connection = line.is_empty();
///     cx.wfile.write_all(&line)
/// });
/// // One process serves both clients, although each keeps its connection.
/// let server = PreforkTCPServer::builder(echo)
///     .workers(1)
///     .worker_class(WorkerClass::Selector)
/// #     .poll_interval(std::time::Duration::from_millis(10))
/// #     .service_actions(|server| if server.stats().requests > 1 { let _ = server.request_shutdown(); })
///     .bind(("127.0.0.1", 0))?;
/// let address = ("127.0.0.1", server.server_address().port().unwrap());
/// let clients = [sock::create_connection(address)?, sock::create_connection(address)?];
/// clients.iter().try_for_each(|client| client.sendall(b"hello\n"))?;
/// server.serve_forever()?;
/// for client in clients {
///     assert_eq!(client.recv(100)?, b"hello\n");
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerClass {
    /// One connection at a time, from accept to close. gunicorn: `sync`; php-fpm and Apache's
    /// `prefork` do the same.
    #[default]
    Sync,
    /// So many threads, each with one connection at a time, as in a
    /// [`ThreadPoolMixIn`](crate::ThreadPoolMixIn) without a queue. A worker accepts while a thread
    /// is free. gunicorn: `gthread` with `threads`; Apache's `worker`, Puma. 0 counts as 1.
    Threads(usize),
    /// Connections between two requests wait in epoll(7), and a thread serves the requests, as in a
    /// [`SelectorMixIn`](crate::SelectorMixIn). Further threads are started while handlers block, up
    /// to [`max_threads`](crate::PreforkMixIn::max_threads). nginx: `worker_processes`; Apache's
    /// `event`.
    Selector,
}

/// How the workers of a mixin serve.
pub(super) struct WorkerSettings {
    pub(super) class: WorkerClass,
    /// The most threads of a worker with a selector, if that was set.
    pub(super) max_threads: Option<usize>,
    pub(super) options: ThreadOptions,
}

/// The most threads of a selector by default, as in [`SelectorMixIn`].
const MAX_THREADS: usize = 512;

impl WorkerSettings {
    pub(super) fn new() -> WorkerSettings {
        WorkerSettings {
            class: WorkerClass::default(),
            max_threads: None,
            options: ThreadOptions::default(),
        }
    }

    /// Whether a worker has several connections at the same time.
    pub(super) fn serves_many(&self) -> bool {
        self.class != WorkerClass::Sync
    }

    /// Returns how many threads of a worker may be in handlers.
    pub(super) fn threads(&self) -> usize {
        match self.class {
            WorkerClass::Sync => 1,
            WorkerClass::Threads(threads) => threads,
            WorkerClass::Selector => self.max_threads.unwrap_or(MAX_THREADS),
        }
    }

    /// Returns how many clients that a drain has accepted a worker takes: as many as it serves at the
    /// same time. The others are for the other workers.
    pub(super) fn most_queued(&self) -> usize {
        match self.class {
            WorkerClass::Selector => usize::MAX,
            WorkerClass::Sync | WorkerClass::Threads(_) => self.threads(),
        }
    }

    /// Returns an error if an option is out of range, or has no effect with this class.
    pub(super) fn check(&self) -> io::Result<()> {
        ranges::check("the threads of worker_class", self.threads(), &ranges::WORKERS)?;
        self.options.check()?;
        let useless = if self.max_threads.is_some() && self.class != WorkerClass::Selector {
            Some(("max_threads", "WorkerClass::Selector"))
        } else {
            let setter = self.options.first_set().filter(|_| self.class == WorkerClass::Sync);
            setter.map(|setter| (setter, "WorkerClass::Threads or WorkerClass::Selector"))
        };
        let Some((setter, classes)) = useless else { return Ok(()) };
        let sentence = format!("{setter} needs worker_class {classes}, not {:?}", self.class);
        Err(io::Error::new(io::ErrorKind::InvalidInput, sentence))
    }

    /// Returns the model that runs in a worker process, `None` for one connection at a time.
    pub(super) fn model(&self) -> Option<Box<dyn MixIn>> {
        match self.class {
            WorkerClass::Sync => None,
            WorkerClass::Threads(threads) => {
                let mut pool = ThreadPoolMixIn::new().workers(threads);
                pool.options = self.options.clone();
                Some(Box::new(pool))
            }
            WorkerClass::Selector => {
                // There are other processes for the other processors.
                let mut selector = SelectorMixIn::new().workers(1).max_workers(self.threads());
                selector.options = self.options.clone();
                Some(Box::new(selector))
            }
        }
    }
}

impl PreforkMixIn {
    /// Sets how each worker serves its connections. Default [`WorkerClass::Sync`], one connection at a
    /// time. gunicorn: `worker_class` and `threads`.
    ///
    /// With another class [`max_connections`](crate::Builder::max_connections) and
    /// [`max_connections_per_ip`](crate::Builder::max_connections_per_ip) are limits of the whole
    /// server, as in the other models. A worker is stuck, and killed, when all of its threads are in
    /// handlers that have not returned after [`request_timeout`](crate::Builder::request_timeout).
    /// When it stops accepting, because of [`max_requests`](Self::max_requests) or SIGTERM, another
    /// worker takes its place at once, while it finishes its requests for up to
    /// [`close_timeout`](crate::Builder::close_timeout). A worker that is killed loses all of its
    /// connections.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{PreforkMixIn, PreforkTCPServer, WorkerClass, handler_fn};
    ///
    /// // 2 processes with 4 threads each.
    /// let workers = PreforkMixIn::new().workers(2).worker_class(WorkerClass::Threads(4));
    /// let server = PreforkTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(workers)
    /// #     .poll_interval(std::time::Duration::from_millis(10))
    /// #     .service_actions(|server| if server.stats().finished > 0 { let _ = server.request_shutdown(); })
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn worker_class(mut self, class: WorkerClass) -> PreforkMixIn {
        self.settings.class = match class {
            WorkerClass::Threads(threads) => WorkerClass::Threads(threads.max(1)),
            class => class,
        };
        self
    }

    /// Sets how many threads a worker with [`WorkerClass::Selector`] may have while handlers block,
    /// up to 32,768. Default 512. 0 counts as 1. With another class `bind` returns `InvalidInput`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{MixIn, PreforkMixIn, WorkerClass};
    ///
    /// let workers = PreforkMixIn::new().max_threads(64);
    /// assert!(workers.check_options().is_err());
    /// assert!(workers.worker_class(WorkerClass::Selector).check_options().is_ok());
    /// ```
    #[must_use]
    pub fn max_threads(mut self, threads: usize) -> PreforkMixIn {
        self.settings.max_threads = Some(threads.max(1));
        self
    }
}

/// The line with which a worker informs its parent that it accepts nothing any more and may go on
/// for some time. Another worker may take its place.
pub(super) const LEAVES: &str = "leaves\n";

/// How often a worker that has stopped looks whether it may exit.
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long after the shutdown of its listener a worker waits for the command to stop.
const SHORT_WAIT: Duration = Duration::from_millis(250);

/// What a worker process with several connections runs in.
pub(super) struct ModelLoop<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) accept_loop: &'a AcceptLoop<'a>,
    pub(super) slot: &'a Slot,
    /// The socket to the parent.
    pub(super) parent: &'a Socket,
    /// Its shutdown makes the control thread drain this process.
    pub(super) retire: &'a Socket,
    /// Whether a loop may have a client that is not in the registry.
    pub(super) serving: &'a AtomicBool,
    /// Whether the control thread has carried out a command: a hook was called, or a drain has begun.
    pub(super) is_commanded: &'a AtomicBool,
    /// The clients of the parent's drain are the only ones.
    pub(super) serves_queued: bool,
}

impl ModelLoop<'_> {
    /// Accepts until the loop ends, and waits until the last request has ended or a drain is
    /// responsible for the rest. Returns false if all listeners are closed or broken.
    pub(super) fn run(&self, model: &dyn MixIn) -> bool {
        let ModelLoop { core, accept_loop, .. } = self;
        let inner = AcceptLoop::new(core, accept_loop.listeners(), accept_loop.settings(), model, None);
        let accepts = match model.serve(&inner) {
            Ok(()) => true,
            // A draining parent has shut the listener down, or a worker whose parent has died. The
            // command follows.
            Err(_) if stop_requested(&core.handle) => true,
            Err(error) => {
                log::error!(
                    pid = std::process::id(), errno = errno_field(&error);
                    "worker failed: {}", SafeDisplay(&error)
                );
                discard(error);
                false
            }
        };
        self.serving.store(false, Ordering::Release);
        // It fails if the parent has died.
        let _ = self.parent.sendall(LEAVES.as_bytes());
        self.slot.stop();
        if !accepts {
            // What was accepted is served.
            let _ = self.retire.shutdown(sock::SHUT_RDWR);
        }
        let registry = core.registry();
        let is_drained = || registry.is_draining() && (!self.serves_queued || core.handle.stop_requested());
        // The control thread is about to carry out what has ended the loop.
        let is_settled =
            || accepts && (!core.handle.stop_requested() || self.is_commanded.load(Ordering::Acquire));
        while !(is_drained() || registry.wait_for_an_end(EXIT_POLL_INTERVAL) && is_settled()) {
            if !is_settled() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        accepts
    }
}

/// Returns whether the command to stop has come, or comes in a moment.
pub(super) fn stop_requested(handle: &ServerHandle) -> bool {
    let until = Instant::now() + SHORT_WAIT;
    while !handle.stop_requested() && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    handle.stop_requested()
}
