//! Tools for tests of servers and handlers. Requires the feature `test-util`.
//!
//! - [`converse`] runs a handler over a pair of sockets, without a server or a port.
//! - [`serve`] runs a server in a thread and drains it at the end of the test.
//! - [`LeakCheck`] finds descriptors, threads and child processes that a test leaves behind.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sock::{Address, Socket, socketpair};

use crate::accept::mixin::MixIn;
use crate::api::kind::Kind;
use crate::api::server::Server;
use crate::lifecycle::handle::ServerHandle;
use crate::limits::stats::Outcome;
use crate::request::Arrival;
use crate::request::core::{Core, HandlerFactory};
use crate::request::hooks::Defaults;
use crate::request::job::Job;
use crate::request::stream_handler::StreamRequestHandler;

/// Runs a handler over a pair of sockets and passes the other end to `client`.
///
/// Returns the result of `client` and the outcome of the request. The handler runs in its own
/// thread, as in a server. The client's end is closed when `client` returns.
///
/// # Errors
///
/// Returns an error if socketpair(2) fails.
///
/// # Panics
///
/// Panics if `client` panics.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use sockserver::{Outcome, handler_fn, testing};
///
/// let greet = handler_fn(|cx| writeln!(cx.wfile, "hello"));
/// let (response, outcome) = testing::converse(greet, |client| client.recv(100).unwrap())?;
/// assert_eq!((&response[..], outcome), (&b"hello\n"[..], Outcome::Finished));
/// # std::io::Result::Ok(())
/// ```
pub fn converse<H: StreamRequestHandler, T>(
    handler: impl Fn() -> H + Send + Sync + 'static,
    client: impl FnOnce(&Socket) -> T,
) -> io::Result<(T, Outcome)> {
    let (theirs, ours) = socketpair()?;
    let core = Core {
        service: Arc::new(HandlerFactory::Stream(Box::new(move || Box::new(handler())))),
        hooks: Arc::new(Defaults),
        handle: ServerHandle::with_defaults()?,
        has_hooks: false,
        proxy_protocol: None,
        wrap_request: None,
        service_actions: None,
        inherits_write_timeout: false,
        quota: crate::limits::request_quota::RequestQuota::default(),
    };
    let registry = Arc::clone(core.registry());
    let (client_address, permit) = (theirs.getpeername()?, registry.permits.acquire_over_limit());
    let (job, _) = Job::enter(&Arc::new(core), Arrival::Connection(theirs), client_address, permit);
    let (result, outcome) = thread::scope(|scope| {
        let served = scope.spawn(|| job.run());
        let result = client(&ours);
        drop(ours);
        (result, served.join())
    });
    registry.close();
    // The job catches the panics of a handler.
    Ok((result, outcome.unwrap_or(Outcome::Panicked)))
}

/// A server that runs in its own thread until this value is dropped.
///
/// Created by [`serve`].
///
/// # Examples
///
/// ```
/// use sockserver::{TCPServer, handler_fn, testing};
///
/// let hello = handler_fn(|cx| cx.request.sendall(b"hello"));
/// let running: testing::Running = testing::serve(TCPServer::new(("127.0.0.1", 0), hello)?);
/// assert_eq!(running.connect()?.recv(100)?, b"hello");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Running {
    handle: ServerHandle,
    address: Address,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

/// How long [`Running`] drains the server, and how long calls of its clients may take.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs a server in its own thread until the returned value is dropped.
///
/// The drop drains the server and panics if that fails. It cannot be used with a server that forks,
/// because forking is refused while other threads run.
///
/// # Examples
///
/// ```
/// use sockserver::{ThreadingTCPServer, handler_fn, testing};
///
/// let echo = handler_fn(|cx| {
///     let data = cx.request.recv(100)?;
///     cx.request.sendall(&data)
/// });
/// let server = testing::serve(ThreadingTCPServer::new(("127.0.0.1", 0), echo)?);
/// let client = server.connect()?;
/// client.sendall(b"hello")?;
/// assert_eq!(client.recv(100)?, b"hello");
/// # std::io::Result::Ok(())
/// ```
#[must_use = "the server stops when the value is dropped"]
pub fn serve<K: Kind, M: MixIn>(server: Server<K, M>) -> Running {
    let (handle, address) = (server.handle(), server.server_address().clone());
    let thread = thread::spawn(move || {
        server.serve_forever()?;
        server.server_close()
    });
    Running { handle, address, thread: Some(thread) }
}

impl Running {
    /// Returns the address of the server.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn, testing};
    ///
    /// let server = testing::serve(TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?);
    /// assert_ne!(server.address().port(), Some(0));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the handle of the server.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn, testing};
    ///
    /// let server = testing::serve(TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?);
    /// assert_eq!(server.handle().stats().accepted, 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Connects to the server. Calls on the returned socket have a timeout of ten seconds.
    ///
    /// # Errors
    ///
    /// Returns an error if socket(2) or connect(2) fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{TCPServer, handler_fn, testing};
    ///
    /// let hello = handler_fn(|cx| cx.request.sendall(b"hello"));
    /// let server = testing::serve(TCPServer::new(("127.0.0.1", 0), hello)?);
    /// let client = server.connect()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn connect(&self) -> io::Result<Socket> {
        let client = Socket::new(self.address.family(), sock::SOCK_STREAM, 0)?;
        client.settimeout(DRAIN)?;
        client.connect(&self.address)?;
        Ok(client)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let drained = self.handle.drain(DRAIN);
        let Some(thread) = self.thread.take() else { return };
        let served = match &drained {
            Ok(report) if report.still_running > 0 => {
                Err(io::Error::other(format!("handlers are still running: {report}")))
            }
            _ => thread.join().unwrap_or_else(|_| Err(io::Error::other("serve_forever panicked"))),
        };
        // A panic during a panic would abort the process.
        if !thread::panicking() {
            if let Err(error) = drained.and(served) {
                panic!("server at {}: {error}", self.address);
            }
        }
    }
}

/// Counts the descriptors, threads and child processes of this process.
///
/// # Platform notes
///
/// The counts come from `/proc` on Linux. On other systems they are 0.
///
/// # Examples
///
/// ```
/// use sockserver::testing::LeakCheck;
///
/// let check = LeakCheck::begin();
/// drop(sock::socketpair()?);
/// check.assert_nothing_left();
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LeakCheck {
    descriptors: usize,
    threads: usize,
    children: usize,
}

impl LeakCheck {
    /// Counts what the process has now.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::testing::LeakCheck;
    ///
    /// let check = LeakCheck::begin();
    /// println!("{check:?}");
    /// assert_eq!(check, LeakCheck::begin());
    /// ```
    #[must_use]
    pub fn begin() -> LeakCheck {
        LeakCheck {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            children: children(),
        }
    }

    /// Checks that the counts are what they were at the beginning.
    ///
    /// It waits for up to ten seconds, because the system counts a thread for a short time after it
    /// was joined.
    ///
    /// # Panics
    ///
    /// Panics with both counts if they differ.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ThreadingTCPServer, handler_fn, testing};
    ///
    /// let check = testing::LeakCheck::begin();
    /// let server = testing::serve(ThreadingTCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?);
    /// drop(server.connect()?);
    /// drop(server);
    /// check.assert_nothing_left();
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = LeakCheck::begin();
            if now == *self {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {self:?} at the beginning, {now:?} now");
            let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
        }
    }
}

impl fmt::Debug for LeakCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeakCheck { descriptors, threads, children } = self;
        write!(f, "{descriptors} descriptors, {threads} threads, {children} children")
    }
}

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Counts the children that have not been reaped, zombies included.
fn children() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let children_of = |task: io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("children")).ok()
    };
    tasks.filter_map(children_of).map(|pids| pids.split_whitespace().count()).sum()
}
