//! Bytes both ways between two streams.

mod error;
mod options;

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use crate::call::cancel::{Aborted, Cancellation, check_interrupt_hook};
use crate::call::deadline::{POLLIN, POLLOUT, Poll, poll, poll_until_signal};
use crate::consts::SHUT_WR;
use crate::error::{invalid, timed_out};
use crate::selectors::{Backend, EVENT_READ, EVENT_WRITE, EventMask, FileObject, Selector};
use crate::socket::Socket;
use crate::stream::StreamSocket;
use crate::sys;

pub use error::{RelayCounts, RelayDirection, RelayError};
pub use options::RelayOptions;

/// Relays bytes in both directions until both streams have ended, and returns how many it relayed.
///
/// Python: none; there it is written by hand, with two threads or with `select`. The name elsewhere
/// is `copy_bidirectional` (tokio). System calls: recv(2), send(2), poll(2), shutdown(2). The end of one
/// stream ends the sending side of the other one (half-close), and the other direction goes on. Each
/// direction has a buffer of 64 KiB, and does not receive while the other side does not take what is in
/// it.
///
/// It runs in the calling thread, which blocks. Until it returns, both sockets are in non-blocking mode.
/// The streams are plain sockets or TLS. What a file such as a handler's `rfile` has read ahead is not
/// relayed. Send its [`buffer`](crate::SocketReader::buffer) first. For many relays in one thread see
/// [`Relay`].
///
/// # Errors
///
/// Returns an error with a [`RelayError`] inside if a stream failed or the wait was ended early: see
/// [`Relay::advance`]. The streams are left open.
///
/// # Examples
///
/// ```
/// use std::thread;
///
/// let (client, front) = sock::socketpair()?;
/// let (back, server) = sock::socketpair()?;
/// let relaying = thread::spawn(move || sock::relay(&front, &back));
///
/// client.sendall(b"question")?;
/// client.shutdown(sock::SHUT_WR)?;
/// assert_eq!(server.recv(100)?, b"question");
/// assert_eq!(server.recv(100)?, b""); // the end is relayed too
/// server.sendall(b"an answer")?;
/// drop(server);
/// assert_eq!(client.recv(100)?, b"an answer");
///
/// let counts = relaying.join().unwrap()?;
/// assert_eq!((counts.a_to_b, counts.b_to_a), (8, 9));
/// # std::io::Result::Ok(())
/// ```
pub fn relay(a: &dyn StreamSocket, b: &dyn StreamSocket) -> io::Result<RelayCounts> {
    relay_with(a, b, &RelayOptions::new())
}

/// Relays bytes as [`relay`] does, with limits.
///
/// Python: none. System calls: recv(2), send(2), poll(2), shutdown(2).
///
/// # Errors
///
/// Returns an error if [`relay`] returns one, and an error of kind `TimedOut` if the deadline has
/// passed or nothing was relayed for the idle timeout.
///
/// # Examples
///
/// ```
/// use sock::{RelayError, RelayOptions};
///
/// let (_client, front) = sock::socketpair()?;
/// let (back, _server) = sock::socketpair()?;
/// let options = RelayOptions::new().idle_timeout(0.02).deadline(60);
/// let error = sock::relay_with(&front, &back, &options).unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
/// assert!(RelayError::of(&error).unwrap().is_idle());
/// # std::io::Result::Ok(())
/// ```
pub fn relay_with(
    a: &dyn StreamSocket,
    b: &dyn StreamSocket,
    options: &RelayOptions,
) -> io::Result<RelayCounts> {
    let mut relay = Relay::with_options(options)?;
    let _modes = (NonBlocking::new(a.socket())?, NonBlocking::new(b.socket())?);
    loop {
        if let Some(counts) = relay.advance(a, b)? {
            return Ok(counts);
        }
        if !relay.has_more {
            relay.wait(a.socket(), b.socket()).map_err(|error| relay.error(None, false, error))?;
        }
    }
}

/// A socket in non-blocking mode, until this is dropped.
struct NonBlocking<'a> {
    sock: &'a Socket,
    before: Option<Duration>,
}

impl<'a> NonBlocking<'a> {
    fn new(sock: &'a Socket) -> io::Result<NonBlocking<'a>> {
        let before = sock.gettimeout();
        if before != Some(Duration::ZERO) {
            sock.setblocking(false)?;
        }
        Ok(NonBlocking { sock, before })
    }
}

impl Drop for NonBlocking<'_> {
    fn drop(&mut self) {
        if self.before != Some(Duration::ZERO) {
            // fcntl(2) cannot fail for an open socket, and a relay that fails reports its own error.
            let _ = self.sock.settimeout(self.before);
        }
    }
}

/// A relay that does not wait, for use with [`selectors`](crate::selectors) or [`poll`](crate::poll()).
///
/// It does not own its streams, which have to be in non-blocking mode. Call
/// [`advance`](Self::advance) when one of them is ready, and wait for [`interest`](Self::interest) until
/// it has finished: [`register`](Self::register) does that for a selector.
///
/// # Examples
///
/// ```
/// use sock::selectors::DefaultSelector;
/// use sock::{Relay, StreamSocket};
/// use std::sync::Arc;
///
/// let (client, front) = sock::socketpair()?;
/// let (back, server) = sock::socketpair()?;
/// # client.sendall(b"question")?;
/// # client.shutdown(sock::SHUT_WR)?;
/// # server.sendall(b"an answer")?;
/// # server.shutdown(sock::SHUT_WR)?;
/// for sock in [&front, &back] {
///     sock.setblocking(false)?;
/// }
/// let a: Arc<dyn StreamSocket> = Arc::new(front); // or a connection with TLS
/// let b: Arc<dyn StreamSocket> = Arc::new(back);
///
/// let sel = DefaultSelector::new()?;
/// let mut relay = Relay::new();
/// let counts = loop {
///     if let Some(counts) = relay.advance(&*a, &*b)? {
///         break counts;
///     }
///     relay.register(&sel, &a, &b, &())?;
///     sel.select(relay.timeout())?;
/// };
/// assert_eq!((counts.a_to_b, counts.b_to_a), (8, 9));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Relay {
    a_to_b: OneWay,
    b_to_a: OneWay,
    deadline: Option<Instant>,
    idle_timeout: Option<Duration>,
    last_progress: Instant,
    /// The last advance ended at its budget, not where it would have had to wait.
    has_more: bool,
}

impl Default for Relay {
    fn default() -> Relay {
        Relay::new()
    }
}

impl Relay {
    /// Creates a relay without limits, with 64 KiB for each direction.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Relay, SHUT_WR};
    ///
    /// let (client, front) = sock::socketpair()?;
    /// let (back, server) = sock::socketpair()?;
    /// front.setblocking(false)?;
    /// back.setblocking(false)?;
    /// client.shutdown(SHUT_WR)?;
    /// server.shutdown(SHUT_WR)?;
    /// let mut relay = Relay::new();
    /// assert_eq!(relay.advance(&front, &back)?.unwrap().a_to_b, 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> Relay {
        Relay::with_options(&RelayOptions::new()).expect("the defaults have no timeout to refuse")
    }

    /// Creates a relay. Its deadline and its idle timeout begin now.
    ///
    /// # Errors
    ///
    /// Returns an error of kind `InvalidInput` if a timeout of the options is negative or NaN.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::{Relay, RelayOptions};
    ///
    /// let relay = Relay::with_options(&RelayOptions::new().idle_timeout(60))?;
    /// assert!(relay.timeout().unwrap() <= Duration::from_secs(60));
    /// assert!(Relay::with_options(&RelayOptions::new().deadline(-1)).is_err());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn with_options(options: &RelayOptions) -> io::Result<Relay> {
        let now = Instant::now();
        Ok(Relay {
            a_to_b: OneWay::new(options.buffer_size),
            b_to_a: OneWay::new(options.buffer_size),
            // A point in time the clock cannot name is never reached.
            deadline: options.deadline.get()?.and_then(|deadline| now.checked_add(deadline)),
            idle_timeout: options.idle_timeout.get()?,
            last_progress: now,
            has_more: false,
        })
    }

    /// Relays what can be relayed without waiting. Returns the counts once both directions have ended,
    /// and `None` before that.
    ///
    /// Python: none. System calls: recv(2), send(2), shutdown(2). A call relays at most
    /// sixteen buffers in each direction, so that other connections in the same thread get their turn.
    ///
    /// # Errors
    ///
    /// Returns an error with a [`RelayError`] inside, which has the direction and the counts: if a stream
    /// failed, and of kind `TimedOut` if the deadline or the idle timeout has passed. When a direction
    /// fails, what has arrived for the other one is relayed first, as far as that need not wait: a server
    /// may refuse the rest of a request and give the reason. Returns an error of kind `InvalidInput` if a
    /// socket is in blocking mode. The streams are left open.
    ///
    /// # Examples
    ///
    /// ```
    /// let (client, front) = sock::socketpair()?;
    /// let (back, server) = sock::socketpair()?;
    /// front.setblocking(false)?;
    /// back.setblocking(false)?;
    /// let mut relay = sock::Relay::new();
    /// client.sendall(b"hello")?;
    /// assert_eq!(relay.advance(&front, &back)?, None);
    /// assert_eq!(server.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn advance(
        &mut self,
        a: &dyn StreamSocket,
        b: &dyn StreamSocket,
    ) -> io::Result<Option<RelayCounts>> {
        for (stream, name) in [(a, "a"), (b, "b")] {
            if stream.socket().getblocking() {
                return Err(invalid(format!("a relay needs non-blocking sockets, and {name} blocks")));
            }
        }
        let before = (self.a_to_b.moved, self.b_to_a.moved);
        let forth = self.a_to_b.advance(a, b);
        let back = self.b_to_a.advance(b, a);
        let has_more = match (forth, back) {
            // What had arrived for the other direction has just been relayed.
            (Err((call, error)), _) => {
                return Err(self.error(Some((RelayDirection::AToB, call)), false, error));
            }
            (_, Err((call, error))) => {
                let _ = self.a_to_b.advance(a, b);
                return Err(self.error(Some((RelayDirection::BToA, call)), false, error));
            }
            (Ok(forth), Ok(back)) => forth == Step::HasMore || back == Step::HasMore,
        };
        self.has_more = has_more;
        if self.a_to_b.phase == Phase::Ended && self.b_to_a.phase == Phase::Ended {
            return Ok(Some(self.counts()));
        }
        let now = Instant::now();
        if before != (self.a_to_b.moved, self.b_to_a.moved) {
            self.last_progress = now;
        }
        if self.deadline_left(now) == Some(Duration::ZERO) {
            return Err(self.error(None, false, timed_out()));
        }
        if self.idle_left(now) == Some(Duration::ZERO) {
            return Err(self.error(None, true, timed_out()));
        }
        Ok(None)
    }

    /// Returns what to wait for until the next [`advance`](Self::advance): the events of `a` and of `b`, as
    /// bits of [`EVENT_READ`] and [`EVENT_WRITE`]. 0 for a stream that need not be waited for.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::EVENT_READ;
    ///
    /// let (_client, front) = sock::socketpair()?;
    /// let (back, server) = sock::socketpair()?;
    /// front.setblocking(false)?;
    /// back.setblocking(false)?;
    /// let mut relay = sock::Relay::new();
    /// server.shutdown(sock::SHUT_WR)?;
    /// relay.advance(&front, &back)?;
    /// assert_eq!(relay.interest(), (EVENT_READ, 0)); // `back` has ended
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn interest(&self) -> (EventMask, EventMask) {
        let mask = |reads, writes| {
            let read = if reads { EVENT_READ } else { 0 };
            read | if writes { EVENT_WRITE } else { 0 }
        };
        let (forth, back) = (&self.a_to_b, &self.b_to_a);
        (mask(forth.reads, back.writes), mask(back.reads, forth.writes))
    }

    /// Returns how long a wait for [`interest`](Self::interest) may be: until the deadline or the idle
    /// timeout, `None` without limits. Zero if [`advance`](Self::advance) should be called again at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::{Relay, RelayOptions};
    /// use std::time::Duration;
    ///
    /// assert_eq!(Relay::new().timeout(), None);
    /// let relay = Relay::with_options(&RelayOptions::new().idle_timeout(60))?;
    /// assert!(relay.timeout().unwrap() <= Duration::from_secs(60));
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        if self.has_more {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        match (self.deadline_left(now), self.idle_left(now)) {
            (Some(deadline), Some(idle)) => Some(deadline.min(idle)),
            (deadline, idle) => deadline.or(idle),
        }
    }

    /// Returns how many bytes it has relayed.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(sock::Relay::new().counts(), sock::RelayCounts::default());
    /// ```
    #[must_use]
    pub fn counts(&self) -> RelayCounts {
        RelayCounts { a_to_b: self.a_to_b.relayed, b_to_a: self.b_to_a.relayed }
    }

    /// Registers both streams in a selector for [`interest`](Self::interest): registers, modifies or
    /// unregisters each of them as necessary. Call it after each [`advance`](Self::advance).
    ///
    /// `a` and `b` are an `Arc` or a reference of each stream. When the relay has ended, unregister the
    /// streams that are still registered.
    ///
    /// # Errors
    ///
    /// Returns an error if [`Selector::register`] or [`Selector::modify`] fails.
    ///
    /// # Examples
    ///
    /// ```
    /// use sock::selectors::DefaultSelector;
    ///
    /// let (_client, front) = sock::socketpair()?;
    /// let (back, server) = sock::socketpair()?;
    /// front.setblocking(false)?;
    /// back.setblocking(false)?;
    /// let sel = DefaultSelector::new()?;
    /// let mut relay = sock::Relay::new();
    /// relay.advance(&front, &back)?;
    /// relay.register(&sel, &&front, &&back, &"the data of both keys")?;
    /// assert_eq!(sel.get_map().len(), 2);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn register<F, D, B>(&self, selector: &Selector<F, D, B>, a: &F, b: &F, data: &D) -> io::Result<()>
    where
        F: FileObject + Clone,
        D: Clone,
        B: Backend,
    {
        let interest = self.interest();
        for (stream, events) in [(a, interest.0), (b, interest.1)] {
            match selector.get_map().get(stream) {
                None if events == 0 => {}
                None => drop(selector.register(stream.clone(), events, data.clone())?),
                Some(_) if events == 0 => drop(selector.unregister(stream)?),
                Some(key) if key.events == events => {}
                Some(key) => drop(selector.modify(stream, events, key.data)?),
            }
        }
        Ok(())
    }

    /// Waits for [`interest`](Self::interest), once.
    fn wait(&self, a: &Socket, b: &Socket) -> io::Result<()> {
        let interest = self.interest();
        let cancellations = [a, b].map(|sock| sock.cancellation().map(Cancellation::watched));
        let mut set = Vec::with_capacity(4);
        for (sock, events) in [(a, interest.0), (b, interest.1)] {
            let read = if events & EVENT_READ != 0 { POLLIN } else { 0 };
            let write = if events & EVENT_WRITE != 0 { POLLOUT } else { 0 };
            // Without events, an end would still be reported, again and again.
            if events != 0 {
                set.push(Poll::new(sock, read | write));
            }
        }
        let streams = set.len();
        set.extend(cancellations.iter().flatten().map(|fd| Poll::new(fd, POLLIN)));
        match poll_until_signal(&mut set, self.timeout()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => check_interrupt_hook(),
            Err(error) => Err(error),
            Ok(0) => Ok(()),
            Ok(_) if set[..streams].iter().any(|entry| entry.revents() != 0) => Ok(()),
            Ok(_) => Err(Aborted::Cancelled.into()),
        }
    }

    fn deadline_left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    fn idle_left(&self, now: Instant) -> Option<Duration> {
        let idle = now.saturating_duration_since(self.last_progress);
        self.idle_timeout.map(|timeout| timeout.saturating_sub(idle))
    }

    fn error(
        &self,
        failed: Option<(RelayDirection, &'static str)>,
        is_idle: bool,
        cause: io::Error,
    ) -> io::Error {
        io::Error::new(cause.kind(), RelayError { failed, is_idle, counts: self.counts(), cause })
    }
}

/// One direction.
#[derive(Debug)]
struct OneWay {
    buffer_size: usize,
    /// What was received and could not be sent yet, from `sent` on. Empty while the other side takes
    /// everything, so an idle relay has no buffer.
    unsent: Vec<u8>,
    sent: usize,
    relayed: u64,
    /// Changes with every byte that is received or sent.
    moved: u64,
    phase: Phase,
    /// The destination has accepted bytes that it may not have sent yet.
    needs_flush: bool,
    reads: bool,
    writes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The source has ended. The destination does not know yet.
    Ending,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It would have to wait.
    Waits,
    /// It was ended by its budget.
    HasMore,
}

/// The most buffers that one advance receives.
const BUDGET: usize = 16;

thread_local! {
    /// Where the relays of a thread receive. What one cannot send at once it copies.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The call that failed, and its error.
type Failed = (&'static str, io::Error);

impl OneWay {
    fn new(buffer_size: usize) -> OneWay {
        OneWay {
            buffer_size,
            unsent: Vec::new(),
            sent: 0,
            relayed: 0,
            moved: 0,
            phase: Phase::Open,
            needs_flush: false,
            reads: false,
            writes: false,
        }
    }

    fn advance(&mut self, from: &dyn StreamSocket, to: &dyn StreamSocket) -> Result<Step, Failed> {
        (self.reads, self.writes) = (false, false);
        if self.phase == Phase::Ended {
            return Ok(Step::Waits);
        }
        let mut scratch = SCRATCH.take();
        let result = self.advance_in(&mut scratch, from, to);
        SCRATCH.set(scratch);
        result
    }

    fn advance_in(
        &mut self,
        scratch: &mut Vec<u8>,
        from: &dyn StreamSocket,
        to: &dyn StreamSocket,
    ) -> Result<Step, Failed> {
        if scratch.len() < self.buffer_size {
            *scratch = sys::zeroes(self.buffer_size).map_err(|error| ("recv", error))?;
        }
        let room = &mut scratch[..self.buffer_size];
        for _ in 0..BUDGET {
            if !self.send_unsent(to)? {
                self.writes = true;
                return Ok(Step::Waits);
            }
            if self.phase == Phase::Ending {
                self.writes = !end(to)?;
                if !self.writes {
                    self.phase = Phase::Ended;
                }
                return Ok(Step::Waits);
            }
            match at_once(from.recv_into(room)).map_err(|error| ("recv", error))? {
                None => {
                    self.reads = true;
                    return Ok(Step::Waits);
                }
                Some(0) => self.phase = Phase::Ending,
                Some(received) => {
                    self.moved += 1;
                    let sent = self.send(to, &room[..received])?;
                    self.unsent.extend_from_slice(&room[sent..received]);
                }
            }
        }
        self.reads = self.unsent.is_empty() && self.phase == Phase::Open;
        self.writes = !self.reads;
        Ok(Step::HasMore)
    }

    /// Sends what is left. Returns false if that would have to wait.
    fn send_unsent(&mut self, to: &dyn StreamSocket) -> Result<bool, Failed> {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            let sent = self.send(to, &unsent[self.sent..]);
            self.unsent = unsent;
            self.sent += sent?;
            if self.sent < self.unsent.len() {
                return Ok(false);
            }
            (self.unsent, self.sent) = (Vec::new(), 0);
        }
        if self.needs_flush {
            if at_once(to.flush()).map_err(|error| ("send", error))?.is_none() {
                return Ok(false);
            }
            self.needs_flush = false;
        }
        Ok(true)
    }

    /// Sends as much as it can without waiting, and returns how much that is.
    fn send(&mut self, to: &dyn StreamSocket, data: &[u8]) -> Result<usize, Failed> {
        let mut sent = 0;
        while sent < data.len() {
            match at_once(to.send(&data[sent..])).map_err(|error| ("send", error))? {
                None => break,
                Some(count) => {
                    sent += count;
                    self.relayed += count as u64;
                    self.moved += 1;
                    self.needs_flush = true;
                }
            }
        }
        Ok(sent)
    }
}

/// Ends the sending side. Returns false if that would have to wait: a close_notify needs room in the
/// send buffer.
fn end(to: &dyn StreamSocket) -> Result<bool, Failed> {
    let mut set = [Poll::new(to.socket(), POLLOUT)];
    match poll(&mut set, Some(Duration::ZERO)) {
        Ok(0) => return Ok(false),
        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(("poll", error)),
        _ => {}
    }
    match to.shutdown(SHUT_WR) {
        // The peer has closed the connection, and has received all that was sent before or never will.
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(("shutdown", error)),
        _ => Ok(true),
    }
}

/// The value of a call, `None` if it would have to wait.
fn at_once<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
