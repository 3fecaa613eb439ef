//! The handle of a server, which stops it from any thread.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use sock::{Address, HoldRecords, POLLIN, Poll, SHUT_RDWR, Socket, ToDuration};

use crate::lifecycle::accept_queue::{AcceptClient, AcceptQueue};
use crate::lifecycle::admission::Admission;
use crate::lifecycle::current_server::AcceptingThread;
use crate::lifecycle::duty::Duties;
use crate::lifecycle::registry::Registry;
use crate::lifecycle::release::Handing;
use crate::lifecycle::state::{ServerState, SharedWord, StateCell};
use crate::limits::Limits;
use crate::limits::access::AccessList;
use crate::limits::drain_report::DrainReport;
use crate::limits::stats::Stats;
use crate::limits::traffic::Traffic;
use crate::os::bound_path::BoundPath;
use crate::os::child_channel::{self, ServerId};
use crate::os::log::{errno_field, milliseconds};
use crate::os::waker::Waker;

/// Stops a server and reads its counters, from any thread. Clones refer to the same server.
///
/// A handler gets it as `cx.server`. Python: `self.server` of a handler.
///
/// # Examples
///
/// ```
/// use sockserver::{TCPServer, handler_fn};
///
/// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
/// let handle = server.handle();
/// std::thread::scope(|scope| {
///     scope.spawn(|| server.serve_forever());
///     handle.shutdown()
/// })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

struct Shared {
    /// Under it the state of the loop is read and changed. Nothing is logged and no system call is
    /// made, because the trace of a call is logged. The registry's lock may be held, and never the
    /// other way round.
    run: Mutex<Run>,
    ended: Condvar,
    /// Whether the loop has to stop. Read without the lock in each iteration of the loop.
    stop: AtomicBool,
    /// What handlers see.
    state: StateCell,
    waker: Arc<Waker>,
    registry: Arc<Registry>,
    /// The listeners. Under it they are released, or a drain begins. No system call is made.
    listeners: Mutex<Vec<Weak<Socket>>>,
    /// The listeners of a worker process, which belong to its parent.
    parent_listeners: OnceLock<Vec<Weak<Socket>>>,
    /// Other processes use the listeners, so they are not shut down, and the clients in their queues
    /// are left to those processes.
    shares_listeners: Arc<SharedWord>,
    /// A successor has duplicates of the listeners, which are not released yet. If this process dies, the
    /// successor accepts, so the workers do not shut them down.
    offers_listeners: Arc<SharedWord>,
    /// Nothing is accepted: another process has not released the listeners yet.
    holds_accept: Arc<SharedWord>,
    /// Which clients are refused because of their address.
    admission: Arc<Admission>,
    duties: Duties,
    /// Whether the listeners are being handed over: see [`Handing::encode`].
    handing: AtomicU64,
    /// The paths of Unix listeners. Held to take them out, to look at them, and to note which process
    /// removes them. No file is removed under it, but in a signal handler, which only tries to lock.
    paths: Paths,
    /// The clients that a drain found in the queues of the listeners.
    queue: AcceptQueue,
    /// The address of the administrative listener. Held to copy or replace it.
    admin_address: Mutex<Option<Address>>,
    /// How they are accepted: set when the server is made.
    accept: OnceLock<AcceptHook>,
    /// The number of loops that have begun.
    loops: AtomicU64,
    /// The process of the server: the one that serves, until then the one that has made it. 0 in
    /// the handle of a worker process.
    pid: AtomicU32,
    /// Held while the server changes its process. Under it shared memory is mapped, and socketpair(2) is
    /// called, whose records are logged when it is released.
    taking_over: Mutex<()>,
}

/// How often a lame duck looks for a second signal, and for the end of the loop.
const LAME_DUCK_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How often a drain that waits for `get_request` looks at its limit and for a second signal.
const FILL_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long a drain whose limit is over waits for `get_request`, which may have had no time yet.
const FILL_GRACE: Duration = Duration::from_millis(100);

/// The paths of a server's listeners, which are removed when it is closed.
pub(crate) type Paths = Arc<Mutex<Vec<BoundPath>>>;

/// How a drain accepts the clients in the queues of the listeners.
struct AcceptHook {
    client: Box<AcceptClient>,
    may_block: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// No loop has begun. A stop applies to the first one.
    New,
    /// The loop with this number runs in this thread.
    Serving(ThreadId, u64),
    /// The last loop has ended. A stop has no effect and must not apply to the next loop.
    Ended,
}

impl ServerHandle {
    /// Creates the handle of a worker process. It cannot stop its parent's server.
    pub(crate) fn for_worker(&self) -> io::Result<ServerHandle> {
        let limits = self.registry().limits().clone();
        let shared = &self.shared;
        let words =
            [&shared.shares_listeners, &shared.offers_listeners, &shared.holds_accept].map(Arc::clone);
        let traffic = Arc::clone(shared.registry.permits.traffic());
        let admission = Arc::clone(&shared.admission);
        let state = shared.state.for_worker();
        let worker = ServerHandle::of_process(limits, 0, state, words, traffic, admission)?;
        let _ = worker.shared.parent_listeners.set(shared.listeners.lock().clone());
        Ok(worker)
    }

    /// Creates the handle of a server, which may fork.
    pub(crate) fn new(limits: Limits, admission: Arc<Admission>, forks: bool) -> io::Result<ServerHandle> {
        let words = [SharedWord::new(forks)?, SharedWord::new(forks)?, SharedWord::new(forks)?];
        let traffic = Traffic::new(forks, &limits.duration_buckets)?;
        ServerHandle::of_process(
            limits,
            std::process::id(),
            StateCell::new(forks)?,
            words,
            traffic,
            admission,
        )
    }

    fn of_process(
        limits: Limits,
        pid: u32,
        state: StateCell,
        [shares_listeners, offers_listeners, holds_accept]: [Arc<SharedWord>; 3],
        traffic: Arc<Traffic>,
        admission: Arc<Admission>,
    ) -> io::Result<ServerHandle> {
        let waker = Arc::new(Waker::new()?);
        let shared = Shared {
            registry: Registry::with_traffic(limits, Arc::clone(&waker), traffic),
            listeners: Mutex::default(),
            parent_listeners: OnceLock::new(),
            shares_listeners,
            offers_listeners,
            admission,
            holds_accept,
            duties: Duties::default(),
            handing: AtomicU64::new(Handing::Nothing.encode()),
            paths: Paths::default(),
            queue: AcceptQueue::default(),
            admin_address: Mutex::default(),
            accept: OnceLock::new(),
            run: Mutex::new(Run::New),
            ended: Condvar::new(),
            stop: AtomicBool::new(false),
            state,
            waker,
            loops: AtomicU64::new(0),
            pid: AtomicU32::new(pid),
            taking_over: Mutex::new(()),
        };
        Ok(ServerHandle { shared: Arc::new(shared) })
    }

    /// Creates the handle of a server with the defaults, for tests.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn with_defaults() -> io::Result<ServerHandle> {
        let admission = Admission::new(&AccessList::new(), None, false)?;
        ServerHandle::new(Limits::default(), admission, false)
    }

    /// Stops `serve_forever` and waits until it has returned. Afterwards no thread and no process of
    /// the server accepts a request.
    ///
    /// Python: `shutdown()`. Requests that threads or child processes are serving go on. Closing the
    /// server waits for them. A call before the first `serve_forever` makes that one return
    /// immediately. After `serve_forever` has returned, `shutdown` has no effect until it is called
    /// again. When restarting in another thread, wait until the server is serving before calling
    /// `shutdown`.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `Deadlock` in the thread that runs `serve_forever`, for example in
    /// a handler of a `TCPServer`, and in a hook that runs where requests are accepted. The server
    /// stops, but this thread cannot wait for it (Python deadlocks). Returns an error of kind
    /// `Unsupported` in a child that was forked while the server served, which cannot stop its
    /// parent's server.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let handle = server.handle();
    /// std::thread::scope(|scope| {
    ///     let serving = scope.spawn(|| server.serve_forever());
    ///     handle.shutdown()?;                                    // server.shutdown()
    ///     serving.join().unwrap()
    /// })?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn shutdown(&self) -> io::Result<()> {
        let this_loop = self.stop_loop()?;
        let Run::Serving(thread, _) = this_loop else {
            return Ok(());
        };
        if thread == thread::current().id() || self.registry().is_accepting_here() {
            return Err(would_deadlock("shutdown"));
        }
        // A loop that begins in the meantime has another number.
        let mut run = self.shared.run.lock();
        while *run == this_loop {
            self.shared.ended.wait(&mut run);
        }
        Ok(())
    }

    /// Stops the server gracefully.
    ///
    /// For the time of [`lame_duck`](crate::Builder::lame_duck), 0 by default, everything goes on as
    /// before. Then new clients are refused. Clients in the accept queue are served, if the loop runs. Listeners
    /// that were [released](Self::release_listeners) or adopted stay open, with the clients in their
    /// queues, for the processes that share them. A
    /// connection that has sent nothing yet gets a second for its first request, or half of `limit`
    /// if that is less. Other idle connections are closed. Requests that are being served may finish
    /// until `limit` has passed. Requests that are still running then are aborted, and clients of the
    /// queue that no worker has taken are closed.
    ///
    /// It returns at most 250 ms after the lame duck and the limit, with a report of all requests. `serve_forever`
    /// returns afterwards, and the server can only be closed. System call: shutdown(2) of the
    /// listener and of each connection that is aborted. Not in Python.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `Deadlock` in the thread that runs `serve_forever` and in a thread
    /// that serves a request of this server. The server stops, but this thread cannot wait for it.
    /// Returns an error of kind `Unsupported` in a child that was forked while the server served,
    /// and an error of kind `InvalidInput` for a negative limit or NaN.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let handle = server.handle();
    /// let report = std::thread::scope(|scope| {
    ///     scope.spawn(|| server.serve_forever());
    ///     handle.drain(10)
    /// })?;
    /// assert!(report.aborted.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn drain(&self, limit: impl ToDuration) -> io::Result<DrainReport> {
        self.drain_while(limit.to_duration()?, &|| false, &|| {})
    }

    /// Drains like [`drain`](Self::drain), but aborts the remaining requests as soon as `hurry`
    /// returns true. `reap` is called repeatedly to reap child processes.
    pub(crate) fn drain_while(
        &self,
        limit: Duration,
        hurry: &dyn Fn() -> bool,
        reap: &dyn Fn(),
    ) -> io::Result<DrainReport> {
        let shared = &*self.shared;
        // Announced before the loop is stopped. Otherwise the loop could return before the drain.
        let _announced = shared.registry.announce_drain();
        let this_loop = self.this_loop()?;
        let own_loop = matches!(this_loop, Run::Serving(thread, _) if thread == thread::current().id());
        if own_loop || shared.registry.is_serving_thread() || shared.registry.is_accepting_here() {
            self.stop_loop()?;
            return Err(would_deadlock("drain"));
        }
        self.wait_for_lame_duck(hurry, reap);
        // Before the loop is stopped, which serves the clients in the queue.
        let filling = self.begin_drain_while(limit, matches!(this_loop, Run::Serving(..)), hurry);
        let limit = limit.saturating_sub(filling);
        let baseline = shared.registry.baseline();
        // This stops a loop that began after the first `stop_loop`. A later loop sees the drain.
        let this_loop = self.stop_loop()?;
        shared.waker.wake();
        // A request is not in the registry for a short time after accept(2), so wait for the loop.
        let serving = || matches!(this_loop, Run::Serving(..)) && *shared.run.lock() == this_loop;
        let collect = |is_over| {
            reap();
            // At the limit, and if no loop serves them.
            if shared.queue.is_open() && (is_over || !serving()) {
                self.close_queue();
            }
        };
        let report = shared.registry.drain(baseline, limit, hurry, &collect, &serving);
        report.log_at(log::Level::Debug);
        if matches!(this_loop, Run::New | Run::Ended) {
            self.set_stopped();
        }
        Ok(report)
    }

    /// Begins the lame duck, and waits for its end, `hurry`, or the end of the loop.
    fn wait_for_lame_duck(&self, hurry: &dyn Fn() -> bool, reap: &dyn Fn()) {
        while let Some(left) = self.lame_duck_left() {
            reap();
            if hurry() {
                return;
            }
            let mut run = self.shared.run.lock();
            self.shared.ended.wait_for(&mut run, left.min(LAME_DUCK_POLL_INTERVAL));
        }
    }

    /// Shuts the listeners down, so that new and queued clients are refused. Listeners that other
    /// processes use are left alone, and so are sockets for datagrams, through which answers are sent.
    pub(crate) fn shut_down_listeners(&self) {
        if self.shares_listeners() || self.shared.accept.get().is_none() {
            return;
        }
        for listener in self.open_listeners() {
            // Where a listener cannot be shut down, the queued connections are reset by its close.
            let _ = listener.shutdown(SHUT_RDWR);
        }
    }

    /// Begins a drain. If a loop serves the clients in the listeners' queues, they are accepted.
    pub(crate) fn begin_drain(&self, limit: Duration, has_loop: bool) {
        let _ = self.begin_drain_while(limit, has_loop, &|| false);
    }

    /// Returns how long it waited for `get_request`.
    fn begin_drain_while(&self, limit: Duration, has_loop: bool, hurry: &dyn Fn() -> bool) -> Duration {
        let shared = &*self.shared;
        // Handlers see the state and may end before the hook has returned.
        shared.registry.take_baseline();
        shared.state.advance(ServerState::Draining);
        shared.state.announce();
        // The listeners are released before the drain begins, or not at all.
        let releasing = shared.listeners.lock();
        // Under the lock: the queue of a drain that has begun must not be opened again.
        if shared.registry.is_draining() {
            return Duration::ZERO;
        }
        let accept = shared.accept.get().filter(|_| has_loop && !self.shares_listeners());
        if accept.is_some() {
            shared.queue.begin(limit);
        }
        if !shared.registry.begin_drain() {
            return Duration::ZERO;
        }
        drop(releasing);
        let Some(accept) = accept else {
            self.shut_down_listeners();
            return Duration::ZERO;
        };
        // The report counts from here on, or from a moment before.
        let begin = Instant::now();
        if !accept.may_block || !self.fill_queue_in_thread(hurry) {
            self.fill_queue();
        }
        begin.elapsed()
    }

    fn fill_queue(&self) {
        let shared = &*self.shared;
        let Some(accept) = shared.accept.get() else { return };
        let listeners = self.open_listeners();
        let accepting = AcceptingThread::begin(&shared.registry);
        shared.queue.fill(&listeners, &*accept.client);
        drop(accepting);
        shared.waker.wake();
    }

    /// Fills the queue, and returns at the limit of the drain also if `get_request` does not return.
    /// Returns whether a thread could be started.
    fn fill_queue_in_thread(&self, hurry: &dyn Fn() -> bool) -> bool {
        let handle = self.clone();
        let (done, is_done) = mpsc::channel::<()>();
        let filling = thread::Builder::new().name("sockserver-queue".to_owned()).spawn(move || {
            handle.fill_queue();
            drop(done);
        });
        let filling = match filling {
            Ok(filling) => filling,
            Err(error) => {
                log::warn!(
                    hook = "get_request", errno = errno_field(&error);
                    "cannot start a thread for get_request: the drain waits for it without a limit: {error}"
                );
                return false;
            }
        };
        let begin = Instant::now();
        while is_done.recv_timeout(FILL_POLL_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            let is_over = self.shared.queue.remaining() == Some(Duration::ZERO) || hurry();
            if is_over && begin.elapsed() >= FILL_GRACE {
                log::warn!(
                    hook = "get_request", elapsed_ms = milliseconds(begin.elapsed());
                    "cannot serve the clients in the accept queue: get_request does not return"
                );
                self.close_queue();
                self.shut_down_listeners();
                return true;
            }
        }
        let _ = filling.join();
        true
    }

    /// Closes the clients that were in the listeners' queues and are not served yet.
    pub(crate) fn close_queue(&self) {
        self.shared.queue.close();
        self.shared.waker.wake();
    }

    /// Takes a client that a drain has accepted. The loop ends with the last one.
    pub(crate) fn next_queued(&self) -> Option<(Socket, Address)> {
        let (client, is_last) = self.shared.queue.pop()?;
        if is_last {
            self.shared.waker.wake();
        }
        Some(client)
    }

    /// The clients that a drain has accepted.
    pub(crate) fn queue(&self) -> &AcceptQueue {
        &self.shared.queue
    }

    /// Returns whether the loop has to end. In a drain it serves the clients of the queue first.
    pub(crate) fn loop_ends(&self) -> bool {
        if self.registry().is_draining() { !self.shared.queue.is_open() } else { self.stop_requested() }
    }

    /// Sets how clients of the queue are accepted.
    /// `may_block`: the hook is code of the user, and the process may have threads.
    pub(crate) fn set_accept(&self, client: Box<AcceptClient>, may_block: bool) {
        let _ = self.shared.accept.set(AcceptHook { client, may_block });
    }

    /// Sets the listeners, and whether other processes use them too.
    pub(crate) fn set_listeners(&self, listeners: &[Arc<Socket>], paths: Vec<BoundPath>, are_shared: bool) {
        *self.shared.listeners.lock() = listeners.iter().map(Arc::downgrade).collect();
        *self.shared.paths.lock() = paths;
        self.shared.shares_listeners.set(are_shared);
    }

    /// The paths of the listeners.
    pub(crate) fn paths(&self) -> &Paths {
        &self.shared.paths
    }

    /// Returns the listeners, unless the server is closed.
    pub(super) fn open_listeners(&self) -> Vec<Arc<Socket>> {
        self.shared.listeners.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns the listeners of the server, in each of its processes.
    pub(super) fn observed_listeners(&self) -> Vec<Arc<Socket>> {
        match self.shared.parent_listeners.get() {
            Some(listeners) => listeners.iter().filter_map(Weak::upgrade).collect(),
            None => self.open_listeners(),
        }
    }

    /// Returns whether other processes use the listeners.
    pub(crate) fn shares_listeners(&self) -> bool {
        self.shared.shares_listeners.is_set()
    }

    /// Sets whether a successor has duplicates of the listeners, which are not released yet.
    pub(crate) fn set_offers_listeners(&self, offers: bool) {
        self.shared.offers_listeners.set(offers);
    }

    /// Returns whether the listeners are left to other processes when this server has died.
    pub(crate) fn leaves_listeners(&self) -> bool {
        self.shares_listeners() || self.shared.offers_listeners.is_set()
    }

    /// Returns whether other processes accept from the listeners too: workers of the same server, or
    /// other servers.
    pub(crate) fn competes_for_clients(&self) -> bool {
        self.shares_listeners() || self.is_worker()
    }

    /// Returns whether this is the handle of a worker process.
    pub(crate) fn is_worker(&self) -> bool {
        self.shared.pid.load(Ordering::Relaxed) == 0
    }

    /// Returns whether nothing may be accepted yet.
    pub(crate) fn holds_accept(&self) -> bool {
        self.shared.holds_accept.is_set()
    }

    /// Sets whether nothing may be accepted yet.
    pub(crate) fn set_holds_accept(&self, holds: bool) {
        self.shared.holds_accept.set(holds);
    }

    /// Sets that no other process uses the listeners.
    pub(super) fn own_listeners(&self) {
        self.shared.shares_listeners.set(false);
    }

    /// Whether the listeners are being handed over.
    #[cfg_attr(not(feature = "systemd"), allow(dead_code))]
    pub(crate) fn handing(&self) -> Handing {
        Handing::decode(self.shared.handing.load(Ordering::Acquire))
    }

    pub(super) fn set_admin_address(&self, address: Option<Address>) {
        let former = std::mem::replace(&mut *self.shared.admin_address.lock(), address);
        drop(former);
    }

    /// Returns the address of the administrative listener: see
    /// [`Builder::admin`](crate::Builder::admin). `None` without one, and while the predecessor of
    /// this server still has it.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::builder(handler_fn(|_| Ok(())))
    ///     .admin(("127.0.0.1", 0))
    ///     .bind(("127.0.0.1", 0))?;
    /// assert_ne!(server.handle().admin_address(), Some(server.server_address().clone()));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn admin_address(&self) -> Option<Address> {
        self.shared.admin_address.lock().clone()
    }

    pub(super) fn set_handing(&self, handing: Handing) {
        self.shared.handing.store(handing.encode(), Ordering::Release);
    }

    /// What the server does beside serving.
    pub(crate) fn duties(&self) -> &Duties {
        &self.shared.duties
    }

    /// Sets that other processes use the listeners. Returns false if a drain has begun.
    pub(super) fn share_listeners(&self) -> bool {
        let _releasing = self.shared.listeners.lock();
        let is_shared = self.shares_listeners();
        let goes_on = !self.registry().is_draining();
        if goes_on {
            self.shared.shares_listeners.set(true);
        }
        goes_on || is_shared
    }

    /// Returns the counters of the server's requests, read at one instant.
    ///
    /// In a worker process of a [`PreforkMixIn`](crate::PreforkMixIn) and in a child of a
    /// [`ForkingMixIn`](crate::ForkingMixIn) they are those of the whole server, and never decrease.
    /// `idle` does not count the connections of forked children.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// let stats = server.handle().stats();
    /// assert_eq!((stats.accepted, stats.finished), (1, 1));
    /// assert!(stats.is_consistent());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.admission.add_to(self.traffic().complete(self.shared.registry.stats()))
    }

    /// Replaces the rules of [`Builder::allow`](crate::Builder::allow) and
    /// [`Builder::deny`](crate::Builder::deny), for clients that are accepted from now on. Not in
    /// Python.
    ///
    /// It takes effect at once in all processes of the server. Connections that are already served
    /// stay open.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if the last rule allows, because it has no effect.
    /// Returns an error of kind `Unsupported` in a worker process and in a child that was forked
    /// while the server served. There the rules are those of the parent.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{AccessList, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| cx.request.sendall(b"hello")))?;
    /// server.handle().set_access(AccessList::new().deny(["127.0.0.0/8"])?)?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"");
    /// assert_eq!(server.stats().denied, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_access(&self, access: AccessList) -> io::Result<()> {
        self.take_over()?;
        self.shared.admission.set_access(&access)
    }

    /// Which clients are refused because of their address.
    #[inline]
    pub(crate) fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    /// What handlers do, in all processes of the server.
    #[inline]
    pub(crate) fn traffic(&self) -> &Traffic {
        self.shared.registry.permits.traffic()
    }

    /// Waits until no request is in flight, for at most the server's
    /// [`close_timeout`](crate::Builder::close_timeout). Returns whether none is left.
    ///
    /// Requests that a drain has aborted and the request that this thread serves do not count. An
    /// implementation of [`MixIn::server_close`](crate::MixIn::server_close) uses this method.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert!(server.handle().wait_until_idle());
    /// assert_eq!(server.stats().in_flight, 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn wait_until_idle(&self) -> bool {
        self.shared.registry.wait_until_idle()
    }

    /// Returns the server's [`close_timeout`](crate::Builder::close_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// assert_eq!(server.handle().close_timeout(), Some(Duration::from_secs(60)));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn close_timeout(&self) -> Option<Duration> {
        self.shared.registry.limits().close_timeout
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.shared.registry
    }

    /// Stops `serve_forever` without waiting for it.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `Unsupported` in a child that was forked while the server served.
    ///
    /// # Examples
    ///
    /// A handler stops its server, without waiting for it:
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let stop = handler_fn(|cx| cx.server.request_shutdown());
    /// let server = TCPServer::new(("127.0.0.1", 0), stop)?;
    /// let _client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.serve_forever()?;
    /// assert_eq!(server.stats().finished, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn request_shutdown(&self) -> io::Result<()> {
        self.stop_loop().map(drop)
    }

    /// Makes this process the one of the server, if it was forked after the server was made and
    /// before it served. What it shares with its parent is replaced.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `Unsupported` in a child that serves requests of its parent, and in
    /// one that was forked while its parent served.
    pub(crate) fn take_over(&self) -> io::Result<()> {
        let (shared, own) = (&*self.shared, std::process::id());
        if shared.pid.load(Ordering::Acquire) == own {
            return Ok(());
        }
        // Before the lock: a logger that gets the records may stop the server.
        let _held = HoldRecords::begin();
        let _taking_over = shared.taking_over.lock();
        let pid = shared.pid.load(Ordering::Acquire);
        if pid == own {
            return Ok(());
        }
        if pid == 0 || self.is_serving() || child_channel::is_child_of(ServerId::of(self.registry())) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a forked child cannot stop its parent's server",
            ));
        }
        shared.waker.renew()?;
        shared.state.renew()?;
        self.traffic().renew()?;
        shared.admission.renew()?;
        for flag in [&shared.shares_listeners, &shared.offers_listeners, &shared.holds_accept] {
            let is_set = flag.is_set();
            flag.renew()?;
            flag.set(is_set);
        }
        // The parent may have closed its copy, which is no stop of this one.
        shared.state.restart(match shared.stop.load(Ordering::Acquire) {
            true => ServerState::Draining,
            false => ServerState::Ready,
        });
        shared.registry.deadline_timer.enter_child();
        shared.pid.store(own, Ordering::Release);
        Ok(())
    }

    /// Returns the loop that runs, in the process of the server.
    fn this_loop(&self) -> io::Result<Run> {
        self.take_over()?;
        Ok(*self.shared.run.lock())
    }

    /// Requests the loop to stop, and returns which loop that is.
    fn stop_loop(&self) -> io::Result<Run> {
        self.this_loop()?;
        let shared = &*self.shared;
        // Before the loop can end, which is the next state.
        shared.state.advance(ServerState::Draining);
        shared.state.announce();
        let run = {
            let run = shared.run.lock();
            shared.state.advance(ServerState::Draining);
            if *run != Run::Ended {
                shared.stop.store(true, Ordering::Release);
            }
            *run
        };
        if run != Run::Ended {
            // If the loop ends before this, its next run wakes up once without a reason.
            shared.waker.wake();
        }
        shared.state.announce();
        Ok(run)
    }

    /// Stops the loop of this process, which may be a worker process.
    pub(crate) fn stop_local(&self) {
        self.end_loop();
        self.shared.state.announce();
    }

    /// Ends the loop of this process, which is a worker process. Handlers see that it stops. The call of
    /// the hook follows.
    pub(crate) fn end_loop(&self) {
        self.shared.state.advance(ServerState::Draining);
        self.shared.stop.store(true, Ordering::Release);
        self.shared.waker.wake();
    }

    /// Returns whether the server stops: from [`ServerState::Draining`] on until the server is closed,
    /// or until `serve_forever` is called again.
    ///
    /// It is false in [`ServerState::LameDuck`]. A handler that works for long checks it to end early. A
    /// handler of HTTP answers with `Connection: close` when [`state`](Self::state) is not
    /// [`ServerState::Ready`]. In worker processes of a [`PreforkMixIn`](crate::PreforkMixIn) and in the
    /// children of a [`ForkingMixIn`](crate::ForkingMixIn) it refers to the server of their parent. There
    /// it is true also in a worker that is being replaced, and when the parent has died.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| {
    ///     while !cx.server.is_stopping() {
    ///         // one part of a long answer
    /// #       break;
    ///     }
    ///     Ok(())
    /// }))?;
    /// assert!(!server.handle().is_stopping());
    /// server.handle().request_shutdown()?;
    /// assert!(server.handle().is_stopping());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.state.is_stopping() || self.parent_has_left()
    }

    /// Whether this is a forked child whose parent drains or has died, which closes its end of the
    /// channel.
    pub(crate) fn parent_has_left(&self) -> bool {
        let left = child_channel::with_channel(ServerId::of(self.registry()), |parent| {
            sock::poll(&mut [Poll::new(parent, POLLIN)], Some(Duration::ZERO))
        });
        left.is_some_and(|polled| polled.is_ok_and(|ready| ready > 0))
    }

    pub(crate) fn state_cell(&self) -> &StateCell {
        &self.shared.state
    }

    /// Records that `serve_forever` has returned, unless another thread has begun a loop since.
    pub(crate) fn set_stopped(&self) {
        let run = self.shared.run.lock();
        if !matches!(*run, Run::Serving(..)) {
            self.shared.state.advance(ServerState::Stopped);
        }
        drop(run);
        self.shared.state.announce();
    }

    /// Returns whether a loop runs.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(*self.shared.run.lock(), Run::Serving(..))
    }

    /// Returns whether the loop has to stop.
    pub(crate) fn stop_requested(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Sets that the server is being closed, or that it is closed. Children of a server that is
    /// closed may still run, and go on to see that it stops.
    pub(crate) fn set_closing(&self, is_closed: bool) {
        let state = &self.shared.state;
        state.advance(if is_closed { ServerState::Stopped } else { ServerState::Draining });
        state.announce();
        if is_closed && !state.is_shared() {
            state.set_closed();
        }
    }

    pub(crate) fn waker(&self) -> &Arc<Waker> {
        &self.shared.waker
    }

    /// Marks the loop as running until the returned guard is dropped.
    pub(crate) fn begin(&self) -> io::Result<LoopGuard<'_>> {
        if !self.is_serving() {
            self.take_over()?;
        }
        let mut run = self.shared.run.lock();
        if let Run::Serving(..) = *run {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "serve_forever is already running"));
        }
        // A stop of the loop before. One that was requested before the first loop applies to it.
        if *run == Run::Ended && !self.registry().is_draining() {
            self.shared.state.restart(ServerState::Ready);
        }
        let number = self.shared.loops.fetch_add(1, Ordering::Relaxed);
        *run = Run::Serving(thread::current().id(), number);
        Ok(LoopGuard { handle: self })
    }
}

fn would_deadlock(call: &str) -> io::Error {
    let sentence =
        format!("{call} called from a serving thread would deadlock; the server stops after this request");
    io::Error::new(io::ErrorKind::Deadlock, sentence)
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("is_stopping", &self.is_stopping()).finish_non_exhaustive()
    }
}

/// A loop that is running. Dropping it, also in a panic, wakes the threads that wait for its end.
pub(crate) struct LoopGuard<'a> {
    handle: &'a ServerHandle,
}

impl Drop for LoopGuard<'_> {
    fn drop(&mut self) {
        let shared = &*self.handle.shared;
        // Before the next loop can begin, which would miss a wake-up of its own.
        shared.waker.drain();
        let mut run = shared.run.lock();
        *run = Run::Ended;
        // All acceptors of the loop are closed, so no thread relies on the flag any more.
        shared.stop.store(false, Ordering::Release);
        shared.ended.notify_all();
        drop(run);
        shared.registry.notify_loop_ended();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn of_two_drains_at_once_one_opens_the_queue_and_closes_it() {
        let handle = ServerHandle::with_defaults().unwrap();
        handle.set_accept(Box::new(|_| Err(io::ErrorKind::WouldBlock.into())), false);
        thread::scope(|scope| {
            let releasing = handle.shared.listeners.lock();
            for _ in 0..2 {
                scope.spawn(|| handle.begin_drain(Duration::from_secs(3600), true));
            }
            // Both wait for the lock then. If one does not, the test passes.
            thread::sleep(Duration::from_millis(50));
            drop(releasing);
        });
        assert!(handle.registry().is_draining() && !handle.queue().is_open());
    }

    #[test]
    fn shutdown_does_not_wait_for_the_next_loop() {
        let handle = ServerHandle::with_defaults().unwrap();
        let other_thread = thread::spawn(|| thread::current().id()).join().unwrap();
        *handle.shared.run.lock() = Run::Serving(other_thread, 1);
        let (sender, receiver) = mpsc::channel();
        let waiter = handle.clone();
        let waiting = thread::spawn(move || {
            let _ = sender.send(waiter.shutdown());
        });
        while !handle.stop_requested() {
            thread::yield_now();
        }
        // One loop ends and the next begins before the waiting thread runs.
        *handle.shared.run.lock() = Run::Serving(other_thread, 2);
        handle.shared.ended.notify_all();
        let ended = receiver.recv_timeout(Duration::from_secs(10));
        assert!(ended.is_ok_and(|result| result.is_ok()), "shutdown waits although its loop has ended");
        waiting.join().unwrap();
    }
}
