//! For the tests of those who write servers and handlers.
//!
//! - [`converse`] runs a handler over a pair of sockets: no server, no port.
//! - [`serve`] runs a server on a free port and drains it at the end of the test.
//! - [`LeakCheck`] counts what a test has left behind.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sock::{Address, Socket, socketpair};

use crate::accept::mixin::MixIn;
use crate::api::server::{Kind, Server};
use crate::connection::wrapping::Wraps;
use crate::lifecycle::handle::ServerHandle;
use crate::limits::Limits;
use crate::limits::stats::Outcome;
use crate::request::Arrival;
use crate::request::core::{Core, HandlerFactory};
use crate::request::hooks::Defaults;
use crate::request::job::Job;
use crate::request::stream_handler::StreamRequestHandler;

/// Runs a handler over a pair of sockets, with `client` at the other end, and
/// returns what `client` returns and what became of the handler.
///
/// The handler runs in a thread of its own, as a server would run it. The client's
/// end is closed when `client` returns.
///
/// # Errors
///
/// Those of socketpair(2).
///
/// # Panics
///
/// When `client` does.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use sockserver::{Outcome, handler_fn, testing};
///
/// let greet = handler_fn(|cx| writeln!(cx.wfile, "hello"));
/// let (said, outcome) = testing::converse(greet, |client| client.recv(100).unwrap())?;
/// assert_eq!((&said[..], outcome), (&b"hello\n"[..], Outcome::Finished));
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
        handle: ServerHandle::new(Limits::default())?,
        inherits_timeouts: false,
        lifts_read_limit: false,
        inherits_first_byte: false,
        wraps: Wraps::not_there(),
    };
    let registry = Arc::clone(core.registry());
    let (client_address, permit) = (theirs.getpeername()?, registry.permits.acquire_over_limit());
    let (job, _) = Job::enter(&Arc::new(core), Arrival::Connection(theirs), client_address, permit);
    let (told, outcome) = thread::scope(|scope| {
        let served = scope.spawn(|| job.run());
        let told = client(&ours);
        drop(ours);
        (told, served.join())
    });
    registry.close();
    // Panics of a handler are caught in the job.
    Ok((told, outcome.unwrap_or(Outcome::Panicked)))
}

/// A server that serves in a thread of its own, until this is dropped.
///
/// Made by [`serve`].
#[derive(Debug)]
pub struct Running {
    handle: ServerHandle,
    address: Address,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

/// How long [`Running`] waits at the end for what the test has left open.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves in a thread of its own, until what it returns is dropped: then it drains
/// the server, and panics if that fails. Not for servers that fork: those must have
/// no other thread beside them.
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
#[must_use = "the server stops when this is dropped"]
pub fn serve<K: Kind, M: MixIn>(server: Server<K, M>) -> Running {
    let (handle, address) = (server.handle(), server.server_address().clone());
    let thread = thread::spawn(move || {
        server.serve_forever()?;
        server.server_close()
    });
    Running { handle, address, thread: Some(thread) }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The server's handle.
    #[must_use]
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// A new connection to it, whose calls wait ten seconds at most.
    ///
    /// # Errors
    ///
    /// Those of [`Socket::connect`].
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
                Err(io::Error::other(format!("handlers do not return: {report}")))
            }
            _ => thread.join().unwrap_or_else(|_| Err(io::Error::other("serve_forever panicked"))),
        };
        // A second panic would hide the first.
        if !thread::panicking() {
            if let Err(error) = drained.and(served) {
                panic!("server at {}: {error}", self.address);
            }
        }
    }
}

/// What a process has open: to see whether a test leaves something behind.
///
/// # Platform notes
///
/// Counts are known on Linux; elsewhere they are 0.
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
    /// Counts what is there now.
    #[must_use]
    pub fn begin() -> LeakCheck {
        LeakCheck {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            children: children(),
        }
    }

    /// Fails if more, or less, is there than at the beginning. It waits a moment:
    /// the system counts a thread until a little after it has been joined.
    ///
    /// # Panics
    ///
    /// If so, with the counts.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let now = LeakCheck::begin();
            if now == *self {
                return;
            }
            assert!(Instant::now() < until, "left behind: there were {self:?}, there are {now:?}");
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

/// Children that have not been collected, zombies included.
fn children() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let of = |task: io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("children")).ok()
    };
    tasks.filter_map(of).map(|pids| pids.split_whitespace().count()).sum()
}
