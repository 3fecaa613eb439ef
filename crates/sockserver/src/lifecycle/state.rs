//! The steps of a stop, and the hook that is called at each.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::lifecycle::handle::ServerHandle;
use crate::os::process::SharedWords;

/// The state of a server: the steps of a stop, in their order. Not in Python.
///
/// [`ServerHandle::state`] returns it, and [`ServerHooks::state_changed`] is called when it changes.
///
/// # Examples
///
/// ```
/// use sockserver::{ServerState, TCPServer, handler_fn};
///
/// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
/// assert_eq!(server.handle().state(), ServerState::Ready);
/// server.handle().request_shutdown()?;
/// assert_eq!(server.handle().state(), ServerState::Draining);
/// server.serve_forever()?;
/// assert_eq!(server.handle().state(), ServerState::Stopped);
/// # std::io::Result::Ok(())
/// ```
///
/// [`ServerHooks::state_changed`]: crate::ServerHooks::state_changed
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerState {
    /// No stop has begun.
    Ready,
    /// A drain or [`begin_lame_duck`](ServerHandle::begin_lame_duck) has begun it. The server accepts and
    /// serves as before, so that balancers can find out and send their clients elsewhere. A drain ends
    /// it after the time of [`lame_duck`](crate::Builder::lame_duck).
    LameDuck,
    /// No client is accepted any more. Requests that are being served may finish.
    Draining,
    /// `serve_forever` has returned, or the server is closed.
    Stopped,
}

/// In the word of the state, behind the states: the server is closed.
const CLOSED: u64 = 4;

impl ServerState {
    fn from_word(word: u64) -> ServerState {
        match word {
            0 => ServerState::Ready,
            1 => ServerState::LameDuck,
            2 => ServerState::Draining,
            _ => ServerState::Stopped,
        }
    }
}

/// A number that the processes of a server that forks share, such as its state.
pub(crate) enum SharedWord {
    Local(AtomicU64),
    Shared(SharedWords),
}

impl SharedWord {
    pub(crate) fn new(forks: bool) -> io::Result<Arc<SharedWord>> {
        Ok(Arc::new(match forks {
            true => SharedWord::Shared(SharedWords::new(1)?),
            false => SharedWord::Local(AtomicU64::new(0)),
        }))
    }

    pub(crate) fn word(&self) -> &AtomicU64 {
        match self {
            SharedWord::Local(word) => word,
            SharedWord::Shared(words) => words.get(0),
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.word().load(Ordering::Acquire) != 0
    }

    pub(crate) fn set(&self, is_set: bool) {
        self.word().store(u64::from(is_set), Ordering::Release);
    }

    /// Replaces the word by one that this process does not share with its parent.
    pub(crate) fn renew(&self) -> io::Result<()> {
        match self {
            SharedWord::Local(_) => Ok(()),
            SharedWord::Shared(words) => words.renew(),
        }
    }
}

/// The hook that is called with each state.
pub(crate) type StateHook = dyn Fn(ServerState) + Send + Sync;

/// The state of a server, in one of its processes.
pub(crate) struct StateCell {
    /// The state of the server, for all of its processes.
    word: Arc<SharedWord>,
    /// The state of this process, if it is a worker, which may end earlier than the server.
    own: Option<AtomicU64>,
    /// The last state that the hook of this process was called with.
    announced: AtomicU64,
    /// The states that the hook is to be called with, and whether a thread calls it. The hook is
    /// called without the lock.
    calls: Mutex<(VecDeque<ServerState>, bool)>,
    hook: OnceLock<Box<StateHook>>,
    /// When the state became [`ServerState::LameDuck`]. Held to read or set it.
    lame_since: Mutex<Option<Instant>>,
}

impl StateCell {
    pub(crate) fn new(forks: bool) -> io::Result<StateCell> {
        Ok(StateCell::with(SharedWord::new(forks)?, None))
    }

    /// Creates the state of a worker process.
    pub(crate) fn for_worker(&self) -> StateCell {
        StateCell::with(Arc::clone(&self.word), Some(AtomicU64::new(0)))
    }

    fn with(word: Arc<SharedWord>, own: Option<AtomicU64>) -> StateCell {
        StateCell {
            word,
            own,
            announced: AtomicU64::new(0),
            calls: Mutex::default(),
            hook: OnceLock::new(),
            lame_since: Mutex::default(),
        }
    }

    fn load(&self) -> u64 {
        let own = self.own.as_ref().map_or(0, |own| own.load(Ordering::Acquire));
        self.word.word().load(Ordering::Acquire).max(own)
    }

    pub(crate) fn get(&self) -> ServerState {
        ServerState::from_word(self.load())
    }

    /// Whether the server stops, and is not closed.
    pub(crate) fn is_stopping(&self) -> bool {
        let word = self.load();
        word >= ServerState::Draining as u64 && word != CLOSED
    }

    /// Whether a process forked from this one shares the state.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(*self.word, SharedWord::Shared(_))
    }

    pub(crate) fn set_hook(&self, hook: Box<StateHook>) {
        let _ = self.hook.set(hook);
    }

    /// Begins a state, unless a later one has begun. [`announce`](Self::announce) has to follow,
    /// when no lock is held.
    pub(crate) fn advance(&self, state: ServerState) {
        let word = self.own.as_ref().unwrap_or(self.word.word());
        word.fetch_max(state as u64, Ordering::AcqRel);
    }

    /// Begins the lame duck. Returns how long it has lasted.
    pub(crate) fn advance_to_lame_duck(&self) -> Duration {
        let since = *self.lame_since.lock().get_or_insert_with(Instant::now);
        self.advance(ServerState::LameDuck);
        since.elapsed()
    }

    /// Records that the server is closed.
    pub(crate) fn set_closed(&self) {
        self.word.word().store(CLOSED, Ordering::Release);
    }

    /// Begins anew: a server serves again, or in another process.
    pub(crate) fn restart(&self, state: ServerState) {
        self.word.word().store(state as u64, Ordering::Release);
        self.announced.store(0, Ordering::Release);
        *self.lame_since.lock() = None;
    }

    pub(crate) fn renew(&self) -> io::Result<()> {
        self.word.renew()
    }

    /// Calls the hook with [`ServerState::Ready`] if no stop has begun.
    pub(crate) fn announce_ready(&self) {
        if self.get() == ServerState::Ready {
            self.call(ServerState::Ready);
        }
    }

    /// Calls the hook if the state is later than at its last call.
    pub(crate) fn announce(&self) {
        self.announce_up_to(self.get());
    }

    /// Calls the hook with this state, unless it was called with it or a later one. The server may
    /// have gone further.
    pub(crate) fn announce_up_to(&self, state: ServerState) {
        if self.announced.fetch_max(state as u64, Ordering::AcqRel) < state as u64 {
            self.call(state);
        }
    }

    /// Calls the hook. While another thread calls it, or this one further out, the call is left to
    /// that one, so that the states keep their order.
    fn call(&self, state: ServerState) {
        let Some(hook) = self.hook.get() else { return };
        let mut calls = self.calls.lock();
        calls.0.push_back(state);
        if std::mem::replace(&mut calls.1, true) {
            return;
        }
        while let Some(state) = calls.0.pop_front() {
            drop(calls);
            hook(state);
            calls = self.calls.lock();
        }
        calls.1 = false;
    }
}

impl ServerHandle {
    /// Returns the state of the server. It changes with the first `shutdown`, `drain` or signal, and
    /// when `serve_forever` is called again.
    ///
    /// In worker processes of a [`PreforkMixIn`](crate::PreforkMixIn) and in the children of a
    /// [`ForkingMixIn`](crate::ForkingMixIn) it is the state of their parent's server. A worker that
    /// ends alone is [`Draining`](ServerState::Draining).
    ///
    /// # Examples
    ///
    /// The answer to a readiness check, and whether a connection may be used for another request:
    ///
    /// ```
    /// use std::io::Write;
    /// use sockserver::{ServerState, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|cx| {
    ///     let status = match cx.server.state() {
    ///         ServerState::Ready => "200 OK",
    ///         _ => "503 Service Unavailable",
    ///     };
    ///     write!(cx.wfile, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n")
    /// }))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle().begin_lame_duck()?;
    /// server.handle_request()?;
    /// assert!(client.recv(100)?.starts_with(b"HTTP/1.1 503 "));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn state(&self) -> ServerState {
        let state = self.state_cell().get();
        if state < ServerState::Draining && self.parent_has_left() { ServerState::Draining } else { state }
    }

    /// Begins [`ServerState::LameDuck`]: the server goes on, and readiness checks fail from now on.
    ///
    /// A drain begins it by itself. A program calls this earlier, for example when an operator takes
    /// the server out of service. It cannot be undone, and only a stop ends it. The time of
    /// [`lame_duck`](crate::Builder::lame_duck) counts from here, so a later drain waits for the rest
    /// only. It has no effect after a stop has begun.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `Unsupported` in a child that was forked while the server served.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ServerState, TCPServer, handler_fn};
    ///
    /// let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(())))?;
    /// server.handle().begin_lame_duck()?;
    /// assert_eq!(server.handle().state(), ServerState::LameDuck);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn begin_lame_duck(&self) -> io::Result<()> {
        self.take_over()?;
        self.state_cell().advance_to_lame_duck();
        // The parent of worker processes sends them the state.
        self.waker().wake();
        self.state_cell().announce();
        Ok(())
    }

    /// Begins the lame duck and returns how long it still lasts, `None` if it is over or there is
    /// none. Without a loop there is none, because no client would be accepted.
    pub(crate) fn lame_duck_left(&self) -> Option<Duration> {
        let lame_duck = self.registry().limits().lame_duck;
        if lame_duck.is_zero() || !self.is_serving() || self.state_cell().get() > ServerState::LameDuck {
            return None;
        }
        let left = lame_duck.checked_sub(self.state_cell().advance_to_lame_duck());
        self.state_cell().announce();
        left.filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_announced_once_and_in_order() {
        let states = Arc::new(Mutex::new(Vec::new()));
        let cell = Arc::new(StateCell::new(false).unwrap());
        let (seen, inner) = (Arc::clone(&states), Arc::downgrade(&cell));
        cell.set_hook(Box::new(move |state| {
            seen.lock().push(state);
            // A hook that stops the server itself.
            let cell = inner.upgrade().unwrap();
            cell.advance(ServerState::Draining);
            cell.announce();
        }));
        cell.announce_ready();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    cell.advance_to_lame_duck();
                    cell.announce();
                    cell.advance(ServerState::Stopped);
                    cell.announce();
                });
            }
        });
        let states = states.lock();
        assert!(states.is_sorted() && states.windows(2).all(|pair| pair[0] != pair[1]), "{states:?}");
        assert_eq!((states[0], *states.last().unwrap()), (ServerState::Ready, ServerState::Stopped));
    }
}
