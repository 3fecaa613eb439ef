//! The handle of a server, which stops it from any thread.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use sock::{SHUT_RDWR, Socket};

use crate::lifecycle::registry::Registry;
use crate::limits::Limits;
use crate::limits::drain_report::DrainReport;
use crate::limits::stats::Stats;
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
    run: Mutex<Run>,
    ended: Condvar,
    /// Whether the loop has to stop. Read without the lock in each iteration of the loop.
    stop: AtomicBool,
    waker: Arc<Waker>,
    registry: Arc<Registry>,
    /// The listeners that a drain shuts down.
    listeners: Mutex<Vec<Weak<Socket>>>,
    /// The number of loops that have begun.
    loops: AtomicU64,
    /// The process of the server. A forked child has a copy of this value that affects nothing.
    pid: u32,
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
    pub(crate) fn for_worker(limits: Limits) -> io::Result<ServerHandle> {
        ServerHandle::of_process(limits, 0)
    }

    pub(crate) fn new(limits: Limits) -> io::Result<ServerHandle> {
        ServerHandle::of_process(limits, std::process::id())
    }

    fn of_process(limits: Limits, pid: u32) -> io::Result<ServerHandle> {
        let waker = Arc::new(Waker::new()?);
        let shared = Shared {
            registry: Registry::new(limits, Arc::clone(&waker)),
            listeners: Mutex::default(),
            run: Mutex::new(Run::New),
            ended: Condvar::new(),
            stop: AtomicBool::new(false),
            waker,
            loops: AtomicU64::new(0),
            pid,
        };
        Ok(ServerHandle { shared: Arc::new(shared) })
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
    /// Returns `Deadlock` in the thread that runs `serve_forever`, for example in a handler of a
    /// `TCPServer`, and in a hook that runs where requests are accepted. The server stops, but this
    /// thread cannot wait for it (Python deadlocks). Returns `Unsupported` in a forked child, which
    /// cannot stop its parent's server.
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
    /// New clients are refused, idle connections are closed, and requests that are being served may
    /// finish until `limit` has passed. Requests that are still running then are aborted.
    ///
    /// It returns at most 250 ms after the limit, with a report of all requests. `serve_forever`
    /// returns afterwards, and the server can only be closed. System call: shutdown(2) of the
    /// listener and of each connection that is aborted. Not in Python.
    ///
    /// # Errors
    ///
    /// Returns `Deadlock` in the thread that runs `serve_forever` and in a thread that serves a
    /// request of this server. The server stops, but this thread cannot wait for it. Returns
    /// `Unsupported` in a forked child.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sockserver::{ThreadingTCPServer, handler_fn};
    ///
    /// let server = ThreadingTCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// let handle = server.handle();
    /// let report = std::thread::scope(|scope| {
    ///     scope.spawn(|| server.serve_forever());
    ///     handle.drain(Duration::from_secs(10))
    /// })?;
    /// assert!(report.aborted.is_empty());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn drain(&self, limit: Duration) -> io::Result<DrainReport> {
        self.drain_while(limit, &|| false, &|| {})
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
        let this_loop = self.stop_loop()?;
        let own_loop = matches!(this_loop, Run::Serving(thread, _) if thread == thread::current().id());
        if own_loop || shared.registry.is_serving_thread() || shared.registry.is_accepting_here() {
            return Err(would_deadlock("drain"));
        }
        shared.registry.begin_drain();
        // This stops a loop that began after the first `stop_loop`. A later loop sees the drain.
        let this_loop = self.stop_loop()?;
        shared.waker.wake();
        self.shut_down_listeners();
        // A request is not in the registry for a short time after accept(2), so wait for the loop.
        let serving = || matches!(this_loop, Run::Serving(..)) && *shared.run.lock() == this_loop;
        let report = shared.registry.drain(limit, hurry, reap, &serving);
        log::debug!("{report}");
        Ok(report)
    }

    /// Shuts the listeners down, so that new and queued clients are refused.
    pub(crate) fn shut_down_listeners(&self) {
        let listeners: Vec<_> = self.shared.listeners.lock().iter().filter_map(Weak::upgrade).collect();
        for listener in listeners {
            // Where a listener cannot be shut down, the queued connections are reset by its close.
            let _ = listener.shutdown(SHUT_RDWR);
        }
    }

    pub(crate) fn set_listeners_to_shut_down(&self, listeners: &[Arc<Socket>]) {
        *self.shared.listeners.lock() = listeners.iter().map(Arc::downgrade).collect();
    }

    /// Returns the counters of the server's requests, read at one instant.
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
        self.shared.registry.stats()
    }

    /// Waits until no request is in flight, for at most the server's
    /// [`close_timeout`](crate::Builder::close_timeout). Returns whether none is left.
    ///
    /// Requests that a drain has aborted and the request that this thread serves do not count. An
    /// implementation of [`MixIn::server_close`](crate::MixIn::server_close) uses this method.
    #[must_use]
    pub fn wait_until_idle(&self) -> bool {
        self.shared.registry.wait_until_idle()
    }

    /// Returns the server's [`close_timeout`](crate::Builder::close_timeout).
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
    /// Returns `Unsupported` in a forked child.
    pub fn request_shutdown(&self) -> io::Result<()> {
        self.stop_loop().map(drop)
    }

    /// Requests the loop to stop, and returns which loop that is.
    fn stop_loop(&self) -> io::Result<Run> {
        let shared = &*self.shared;
        if shared.pid != std::process::id() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a forked child cannot stop its parent's server",
            ));
        }
        let run = shared.run.lock();
        if *run != Run::Ended {
            shared.stop.store(true, Ordering::Release);
            shared.waker.wake();
        }
        Ok(*run)
    }

    /// Stops the loop of this process, which may be a worker process.
    pub(crate) fn stop_local(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.waker.wake();
    }

    /// Returns whether a stop was requested and `serve_forever` has not returned yet.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    pub(crate) fn waker(&self) -> &Arc<Waker> {
        &self.shared.waker
    }

    /// Marks the loop as running until the returned guard is dropped.
    pub(crate) fn begin(&self) -> io::Result<LoopGuard<'_>> {
        let mut run = self.shared.run.lock();
        if let Run::Serving(..) = *run {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "serve_forever is already running"));
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
        let mut run = shared.run.lock();
        *run = Run::Ended;
        // All acceptors of the loop are closed, so no thread relies on the flag any more.
        shared.stop.store(false, Ordering::Release);
        shared.waker.drain();
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
    fn shutdown_does_not_wait_for_the_next_loop() {
        let handle = ServerHandle::new(Limits::default()).unwrap();
        let other_thread = thread::spawn(|| thread::current().id()).join().unwrap();
        *handle.shared.run.lock() = Run::Serving(other_thread, 1);
        let (sender, receiver) = mpsc::channel();
        let waiter = handle.clone();
        let waiting = thread::spawn(move || {
            let _ = sender.send(waiter.shutdown());
        });
        while !handle.is_stopping() {
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
