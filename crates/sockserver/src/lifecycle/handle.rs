//! Stopping a server from anywhere.

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

/// Stops its server, and tells how it is doing, from any thread, a handler's
/// included. Clones are one handle.
///
/// Python: `self.server` in a handler, as far as it is used to stop the server.
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
    /// `Run::stop`, to be read without the lock once a turn.
    stop: AtomicBool,
    waker: Arc<Waker>,
    registry: Arc<Registry>,
    /// The listeners a drain closes to new clients.
    listeners: Mutex<Vec<Weak<Socket>>>,
    /// How many loops have begun.
    loops: AtomicU64,
    /// A forked child has a copy of all this, which reaches nobody.
    pid: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Never served. A stop now is for the loop that is about to start.
    New,
    /// The loop runs in this thread; the number tells it from the loops before it.
    Serving(ThreadId, u64),
    /// The loop has ended. A stop now has nothing to do, and must not reach the next loop.
    Ended,
}

impl ServerHandle {
    /// The handle of a worker process: it cannot stop its parent's server.
    #[cfg(unix)]
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

    /// Ends `serve_forever` and waits until it has returned. No request is accepted after
    /// that, in whatever thread or process.
    ///
    /// Python: `shutdown()`. Requests that threads or children are busy with go
    /// on: closing the server waits for those. Before the first `serve_forever`
    /// it makes that one return at once; once a loop has ended it does nothing until
    /// the next one runs, so that no stale stop ends it: who starts a server again
    /// in another thread has to wait until it serves before stopping it.
    ///
    /// # Errors
    ///
    /// `Deadlock` in the thread that runs `serve_forever`, such as from a handler
    /// of a `TCPServer`, and in a hook that runs where a request is accepted: the
    /// server is stopping, but cannot be waited for (Python waits for ever). `Unsupported` in a forked child, which cannot
    /// stop its parent's server.
    pub fn shutdown(&self) -> io::Result<()> {
        let this_loop = self.stop_loop()?;
        let Run::Serving(thread, _) = this_loop else {
            return Ok(());
        };
        if thread == thread::current().id() || self.registry().is_accepting_here() {
            return Err(would_deadlock("shutdown"));
        }
        // A loop that somebody begins meanwhile is another one.
        let mut run = self.shared.run.lock();
        while *run == this_loop {
            self.shared.ended.wait(&mut run);
        }
        Ok(())
    }

    /// Stops the server gracefully: new clients are refused, connections between
    /// two requests are closed, and requests that are being served may finish until
    /// `limit` has passed. What is not done then is cut off.
    ///
    /// Python has nothing like it. It returns within 250 ms of the limit, whatever
    /// clients and handlers do, and tells what became of everybody;
    /// `serve_forever` returns after it. The server is of no use afterwards but to
    /// be closed. System call: shutdown(2), of the listener and of each connection
    /// that is cut off.
    ///
    /// # Errors
    ///
    /// `Deadlock` in a thread that serves a request of this server, or its loop:
    /// the server is stopping, but cannot be waited for. `Unsupported` in a forked
    /// child.
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

    /// [`drain`](Self::drain), ended at once when `hurry` says so; `collect` notices
    /// what has ended.
    pub(crate) fn drain_while(
        &self,
        limit: Duration,
        hurry: &dyn Fn() -> bool,
        collect: &dyn Fn(),
    ) -> io::Result<DrainReport> {
        let shared = &*self.shared;
        // Announced before the loop is stopped, which otherwise returns without it.
        let _announced = shared.registry.announce_drain();
        let this_loop = self.stop_loop()?;
        let own_loop = matches!(this_loop, Run::Serving(thread, _) if thread == thread::current().id());
        if own_loop || shared.registry.is_serving_thread() || shared.registry.is_accepting_here() {
            return Err(would_deadlock("drain"));
        }
        shared.registry.begin_drain();
        // A loop that has begun since the first request is stopped by this one, and a
        // later one sees the drain.
        let this_loop = self.stop_loop()?;
        shared.waker.wake();
        self.shut_down_listeners();
        // What a loop has accepted is not in the register for a moment.
        let serving = || matches!(this_loop, Run::Serving(..)) && *shared.run.lock() == this_loop;
        let report = shared.registry.drain(limit, hurry, collect, &serving);
        log::debug!("{report}");
        Ok(report)
    }

    /// Has clients refused from now on, those that wait in the queue included.
    pub(crate) fn shut_down_listeners(&self) {
        let listeners: Vec<_> = self.shared.listeners.lock().iter().filter_map(Weak::upgrade).collect();
        for listener in listeners {
            // On a system where a listener has nothing to shut down its queue is
            // reset when it is closed.
            let _ = listener.shutdown(SHUT_RDWR);
        }
    }

    pub(crate) fn set_listeners_to_shut_down(&self, listeners: &[Arc<Socket>]) {
        *self.shared.listeners.lock() = listeners.iter().map(Arc::downgrade).collect();
    }

    /// How many requests came, and what became of them, at this instant.
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

    /// Waits until no request is in flight, up to the server's
    /// [`close_timeout`](crate::Builder::close_timeout), and not for what a drain
    /// has given up, nor for the request this thread serves. Returns whether none is
    /// left. For [`MixIn::server_close`](crate::MixIn::server_close).
    #[must_use]
    pub fn wait_until_idle(&self) -> bool {
        self.shared.registry.wait_until_idle()
    }

    /// The server's [`close_timeout`](crate::Builder::close_timeout).
    #[must_use]
    pub fn close_timeout(&self) -> Option<Duration> {
        self.shared.registry.limits().close_timeout
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.shared.registry
    }

    /// Ends `serve_forever` without waiting for it.
    ///
    /// # Errors
    ///
    /// `Unsupported` in a forked child.
    pub fn request_shutdown(&self) -> io::Result<()> {
        self.stop_loop().map(drop)
    }

    /// Tells the loop to stop, and the caller which loop that is.
    fn stop_loop(&self) -> io::Result<Run> {
        let shared = &*self.shared;
        if shared.pid != std::process::id() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a forked child cannot shut its parent's server down",
            ));
        }
        let run = shared.run.lock();
        if *run != Run::Ended {
            shared.stop.store(true, Ordering::Release);
            shared.waker.wake();
        }
        Ok(*run)
    }

    /// Stops what this process does for the server.
    #[cfg(unix)]
    pub(crate) fn stop_local(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.waker.wake();
    }

    /// Whether the server has been told to stop and has not yet.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    pub(crate) fn waker(&self) -> &Arc<Waker> {
        &self.shared.waker
    }

    /// Marks the loop as running until the guard is dropped.
    pub(crate) fn begin(&self) -> io::Result<LoopGuard<'_>> {
        let mut run = self.shared.run.lock();
        if let Run::Serving(..) = *run {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "serve_forever is running already"));
        }
        let number = self.shared.loops.fetch_add(1, Ordering::Relaxed);
        *run = Run::Serving(thread::current().id(), number);
        Ok(LoopGuard { handle: self })
    }
}

fn would_deadlock(call: &str) -> io::Error {
    let sentence = format!(
        "{call} in a thread that serves cannot wait for itself (the server stops after this request)"
    );
    io::Error::new(io::ErrorKind::Deadlock, sentence)
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("is_stopping", &self.is_stopping()).finish_non_exhaustive()
    }
}

/// A loop that runs; dropping it tells those who wait, a panic's unwinding included.
pub(crate) struct LoopGuard<'a> {
    handle: &'a ServerHandle,
}

impl Drop for LoopGuard<'_> {
    fn drop(&mut self) {
        let shared = &*self.handle.shared;
        let mut run = shared.run.lock();
        *run = Run::Ended;
        // Whoever accepts has ended by now: every acceptor of the loop is closed.
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
    fn a_waiter_does_not_take_the_next_loop_for_its_own() {
        let handle = ServerHandle::new(Limits::default()).unwrap();
        let other_thread = thread::spawn(|| thread::current().id()).join().unwrap();
        *handle.shared.run.lock() = Run::Serving(other_thread, 1);
        let (told, hear) = mpsc::channel();
        let waiter = handle.clone();
        let waiting = thread::spawn(move || {
            let _ = told.send(waiter.shutdown());
        });
        while !handle.is_stopping() {
            thread::yield_now();
        }
        // One loop ends and the next begins before the waiter can look.
        *handle.shared.run.lock() = Run::Serving(other_thread, 2);
        handle.shared.ended.notify_all();
        let ended = hear.recv_timeout(Duration::from_secs(10));
        assert!(ended.is_ok_and(|result| result.is_ok()), "the loop it waited for has ended");
        waiting.join().unwrap();
    }
}
