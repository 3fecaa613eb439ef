//! One client connection: its state, its transport, and the input that was read ahead.
//!
//! The worker that serves the connection, the deadline timer and a drain share it.

pub(crate) mod buffer_pool;
pub(crate) mod client_handle;
pub(crate) mod datagram;
#[cfg_attr(not(feature = "proxy-protocol"), path = "proxy_header_disabled.rs")]
pub(crate) mod proxy_header;
pub(crate) mod read_ahead;
mod recv;
pub(crate) mod state;
pub(crate) mod transport;
mod wrapped;

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::atomic::AtomicCell;
use once_cell::race::OnceBox;
use sock::{
    Address, FillBuffer, Lingered, Poll, ReadBuffer, SHUT_RD, SHUT_RDWR, Shutdown, Socket, StreamSocket,
    poll,
};

use crate::connection::buffer_pool::{recycle_buffer, take_buffer};
use crate::connection::client_handle::ClientHandle;
use crate::connection::state::{ConnState, FIRST_TERMINAL, PackedState};
use crate::connection::transport::Transport;
use crate::connection::wrapped::Wrapped;
use crate::limits::DeadlineKind;
use crate::limits::clock::{Clock, NEVER};
use crate::limits::log_limit::{LogKind, log_limited};
use crate::limits::permits::Permit;
use crate::os::guard::guard;
use crate::os::interleave::yield_point;
use crate::os::process;

/// A connection or a datagram, from accept to close.
///
/// It is the [`StreamSocket`] of the handler's context. It records activity of the client and
/// the deadline that ended a call.
pub(crate) struct Connection {
    accepted_address: Address,
    /// The state and its deadline: see [`PackedState`].
    state: AtomicU64,
    /// When it was accepted: see [`Clock::stamp`](crate::limits::clock::Clock::stamp).
    since: u32,
    /// The deadline that ended the last call.
    late: AtomicCell<Option<DeadlineKind>>,
    /// Flags about the receiving side that only the worker changes: see below.
    flags: AtomicU8,
    /// Flags that any thread of a handler may set: see below.
    notes: AtomicU8,
    /// Input that was received to find out whether there is some. Every receive returns it first.
    ahead: AtomicCell<ReadBuffer>,
    /// The transport, if it is known from the start.
    transport: Option<Transport>,
    /// What the PROXY protocol header named and what `wrap_request` returned. It is set while the
    /// connection is shared.
    wrapped: OnceBox<Wrapped>,
    permit: Permit,
}

/// The client has closed its side: closing cannot lose unread input.
const EOF_RECEIVED: u8 = 1;
/// The last receive did not fill its buffer, so the socket's receive queue was empty.
const DRAINED: u8 = 2;
/// [`Connection::ahead`] has input.
const HAS_READ_AHEAD: u8 = 4;
/// The deadline timer ends a receive that waits for a request, no later than the read deadline.
const TIMER_ENDS_WAIT: u8 = 8;
/// The connection has waited for a next request before.
const WAITED: u8 = 16;
/// The handler has waited in a receive before.
const HANDLER_WAITED: u8 = 32;
/// `SO_RCVTIMEO` is the read deadline.
const HAS_RECV_TIMEOUT: u8 = 64;

/// The handler had the socket itself, and may hold a second descriptor.
const SOCKET_EXPOSED: u8 = 1;
/// The first byte was received or sent.
const ACTIVE: u8 = 2;
/// It stays open once more while the server stops: see [`Connection::keep_once_more`].
const KEPT_ONCE_MORE: u8 = 4;

impl Connection {
    /// Makes a connection. Without a socket, `wrap_request` will return its transport.
    pub(crate) fn new(client_address: Address, socket: Option<Socket>, permit: Permit) -> Connection {
        Connection {
            accepted_address: client_address,
            since: permit.clock().stamp(),
            state: AtomicU64::new(PackedState { state: ConnState::Queued, due: NEVER }.pack()),
            late: AtomicCell::new(None),
            flags: AtomicU8::new(0),
            notes: AtomicU8::new(0),
            ahead: AtomicCell::default(),
            transport: socket.map(Transport::Socket),
            wrapped: OnceBox::new(),
            permit,
        }
    }

    /// Closes the transport and discards what was read ahead.
    pub(crate) fn close(&mut self) {
        drop(self.transport.take());
        // The log line at the end of the request names the same client as before.
        let wrapped = std::mem::take(&mut self.wrapped);
        if let Some(named) = wrapped.get().and_then(Wrapped::client_address) {
            self.accepted_address = named.clone();
        }
        self.ahead.take();
    }

    #[inline]
    fn transport(&self) -> Option<&Transport> {
        self.transport.as_ref().or_else(|| self.wrapped.get()?.transport())
    }

    /// Returns the address that `wrap_request` or the PROXY protocol header named, or that
    /// accept(2) returned.
    #[inline]
    pub(crate) fn client_address(&self) -> &Address {
        self.named_address().unwrap_or(&self.accepted_address)
    }

    pub(crate) fn named_address(&self) -> Option<&Address> {
        self.wrapped.get().and_then(Wrapped::client_address)
    }

    fn clock(&self) -> &Clock {
        self.permit.clock()
    }

    /// Whether the connection has a transport.
    pub(crate) fn is_open(&self) -> bool {
        self.transport().is_some()
    }

    pub(crate) fn age(&self) -> Duration {
        self.clock().since(self.since)
    }

    /// When it was accepted: see [`Clock::stamp`].
    pub(crate) fn accepted_at(&self) -> u32 {
        self.since
    }

    pub(crate) fn state(&self) -> ConnState {
        self.load().state
    }

    /// Whether no request has begun: see [`ConnState::is_idle`].
    #[inline]
    fn is_idle(&self) -> bool {
        PackedState::is_idle(self.state.load(Ordering::Acquire))
    }

    /// The time of its deadline, in the clock's milliseconds. At most [`NEVER`].
    pub(crate) fn due(&self) -> u64 {
        self.load().due.min(NEVER)
    }

    /// The time by which the deadline timer has to check the connection. The first byte begins a
    /// request without a call of the timer, and the request's deadline may be the earlier one.
    pub(crate) fn next_look(&self) -> u64 {
        self.look_of(self.load(), || self.clock().due(DeadlineKind::Request))
    }

    #[inline]
    fn look_of(&self, PackedState { state, due }: PackedState, request_due: impl FnOnce() -> u64) -> u64 {
        if state == ConnState::AwaitingFirstByte { due.min(request_due()) } else { due.min(NEVER) }
    }

    fn load(&self) -> PackedState {
        PackedState::unpack(self.state.load(Ordering::Acquire))
    }

    /// Enters a state and starts its deadline. Returns false if the connection has been ended
    /// meanwhile.
    pub(crate) fn enter(&self, state: ConnState) -> bool {
        self.enter_until(state, None).is_some()
    }

    /// Enters a state, and returns the time by which the deadline timer has to check the
    /// connection. `now` is the time of the clock, if it was read just before.
    ///
    /// It is inlined so that the compiler sees which state it is.
    #[inline(always)]
    pub(crate) fn enter_until(&self, state: ConnState, mut now: Option<u64>) -> Option<u64> {
        // The clock is read once, and only if a deadline needs it.
        let mut now = || *now.get_or_insert_with(|| self.clock().now());
        let mut due = match state {
            // The beginning of the request is known from its deadline: see `begun`.
            ConnState::Serving => now() + self.clock().allowed(DeadlineKind::Request),
            _ => match state.deadline() {
                Some(deadline) => self.clock().due_from(deadline, &mut now),
                None => NEVER,
            },
        };
        if state == ConnState::Idle {
            if let Some(limit) = self.own_timeout().filter(|limit| !limit.is_zero()) {
                due = due.min(self.clock().due_after(limit));
            }
        }
        let state = PackedState { state, due };
        let next = state.pack();
        let update = |word| (word & 15 < FIRST_TERMINAL).then_some(next);
        let entered = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        entered.ok().map(|_| self.look_of(state, || self.clock().due_from(DeadlineKind::Request, now)))
    }

    /// The reason why the connection has been ended, if it has.
    pub(crate) fn ended(&self) -> Option<io::Error> {
        match self.state() {
            ConnState::Overdue(deadline) => Some(self.timed_out(deadline)),
            ConnState::DrainAborted => {
                Some(io::Error::new(io::ErrorKind::ConnectionAborted, "the server is stopping"))
            }
            _ => None,
        }
    }

    /// Ends the connection if its deadline is over at `now`. Returns the deadline if so.
    ///
    /// An idle connection whose next request has arrived is not ended: neither this process nor its
    /// worker may have run for some time, for example between SIGSTOP and SIGCONT. The request has
    /// begun, and has its own deadline.
    pub(crate) fn end_if_overdue(&self, now: u64) -> Option<DeadlineKind> {
        let state = self.load();
        let deadline = state.state.deadline().filter(|_| state.due <= now)?;
        if state.state.is_idle() && self.has_input() {
            let due = self.clock().now() + self.clock().allowed(DeadlineKind::Request);
            let begun = PackedState { state: ConnState::Serving, due }.pack();
            // If this fails, the worker has begun the request itself.
            let _ = self.state.compare_exchange(state.pack(), begun, Ordering::AcqRel, Ordering::Relaxed);
            return None;
        }
        yield_point();
        let due = NEVER + self.begun(state).unwrap_or(0);
        let overdue = PackedState { state: ConnState::Overdue(deadline), due }.pack();
        let ended = self.state.compare_exchange(state.pack(), overdue, Ordering::AcqRel, Ordering::Relaxed);
        ended.ok().map(|_| {
            self.abort(SHUT_RDWR);
            deadline
        })
    }

    /// Ends the connection for a drain if it is in one of the states.
    pub(crate) fn end_for_drain(&self, phases: &[ConnState], end: ConnState) -> bool {
        let drained = |old| PackedState { state: end, due: NEVER + self.begun(old).unwrap_or(0) };
        let ended = self.replace(|old| phases.contains(&old.state).then(|| drained(old)));
        if ended {
            // DrainClosed shuts down the receiving side only: see `ConnState::is_terminal`.
            self.abort(if end == ConnState::DrainClosed { SHUT_RD } else { SHUT_RDWR });
        }
        ended
    }

    fn replace(&self, next: impl Fn(PackedState) -> Option<PackedState>) -> bool {
        let update = |word| next(PackedState::unpack(word)).map(PackedState::pack);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).is_ok()
    }

    /// Ends the connection for a drain if it is idle and has no input. If a worker receives a
    /// request at this moment, the order of the two state changes decides: see
    /// [`ConnState::is_terminal`].
    pub(crate) fn close_if_idle(&self) -> bool {
        let state = self.load();
        if !state.state.is_idle() || self.has_input() {
            return false;
        }
        yield_point();
        // Exactly this state is replaced, because a later one may have input that was not seen.
        let dismissed = PackedState { state: ConnState::DrainClosed, due: NEVER }.pack();
        let ended =
            self.state.compare_exchange(state.pack(), dismissed, Ordering::AcqRel, Ordering::Relaxed);
        yield_point();
        ended.is_ok_and(|_| {
            self.abort(SHUT_RD);
            true
        })
    }

    /// Whether the client has sent something that no worker has received. It never waits, because a
    /// worker may receive at the same moment.
    pub(crate) fn has_input(&self) -> bool {
        let bytes = guard(|| self.socket_underneath()?.recv_queue().ok());
        bytes.ok().flatten().is_some_and(|bytes| bytes > 0)
    }

    /// Shuts the connection down, which wakes every call that is blocked on it.
    pub(crate) fn abort(&self, how: Shutdown) {
        if let Some(transport) = self.transport() {
            transport.abort(how);
        }
    }

    fn socket_underneath(&self) -> Option<&Socket> {
        self.transport()?.socket()
    }

    /// Notes that a child process serves the connection, so that aborting kills the child. Returns
    /// the transport that it had before.
    pub(crate) fn serve_in_child(&mut self, pid: process::Pid) -> Option<Transport> {
        self.transport.replace(Transport::Child(pid))
    }

    /// Returns access to the connection that its handler can share.
    pub(crate) fn client_handle(&self) -> io::Result<ClientHandle> {
        self.expose_socket();
        match self.transport() {
            Some(Transport::Socket(socket)) => ClientHandle::of_socket(socket, self.client_address()),
            Some(Transport::Wrapped(stream)) => Ok(ClientHandle::of_stream(stream, self.client_address())),
            Some(Transport::Child(_)) | None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The stream that the handler uses.
    pub(crate) fn stream(&self) -> Option<&dyn StreamSocket> {
        self.transport()?.stream()
    }

    /// The deadline that ended the connection, or its last call.
    pub(crate) fn expired_deadline(&self) -> Option<DeadlineKind> {
        if let ConnState::Overdue(deadline) = self.state() {
            return Some(deadline);
        }
        self.late.load()
    }

    /// Notes whether the deadline timer ends the receive that waits for the next request.
    #[inline]
    pub(crate) fn set_timer_ends_wait(&self, ends: bool) {
        if ends != self.has_flag(TIMER_ENDS_WAIT) {
            self.set_flag(TIMER_ENDS_WAIT, ends);
        }
    }

    pub(crate) fn eof_received(&self) -> bool {
        self.has_flag(EOF_RECEIVED)
    }

    /// Whether close(2) has the same effect as shutdown(2) before it: the client has closed its
    /// side, all its input was read, and no second descriptor keeps the socket open.
    pub(crate) fn can_close_without_shutdown(&self) -> bool {
        self.eof_received()
            && self.notes.load(Ordering::Relaxed) & SOCKET_EXPOSED == 0
            && self.plain_socket().is_some()
    }

    /// The socket, if `wrap_request` did not replace it.
    pub(crate) fn plain_socket(&self) -> Option<&Socket> {
        match self.transport()? {
            Transport::Socket(socket) => Some(socket),
            _ => None,
        }
    }

    /// Whether there may be more input: read ahead, or not received yet. False only if it is known
    /// that there is none.
    pub(crate) fn has_more(&self) -> bool {
        let flags = self.flags.load(Ordering::Relaxed);
        match self.transport() {
            _ if flags & HAS_READ_AHEAD != 0 => true,
            // The handler may have received from the stream itself, so the stream is asked.
            Some(Transport::Wrapped(stream)) => !guard(|| stream.is_drained()).unwrap_or(false),
            _ => flags & DRAINED == 0,
        }
    }

    fn has_flag(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Changes a flag. Only the worker that serves the connection may.
    fn set_flag(&self, flag: u8, on: bool) {
        let flags = self.flags.load(Ordering::Relaxed);
        self.flags.store(if on { flags | flag } else { flags & !flag }, Ordering::Relaxed);
    }

    fn add_note(&self, note: u8) {
        if self.notes.load(Ordering::Relaxed) & note == 0 {
            self.notes.fetch_or(note, Ordering::Relaxed);
        }
    }

    /// Returns true for the first time: the connection stays open for one more request, although the
    /// server stops. The handler may have answered before it could see that.
    pub(crate) fn keep_once_more(&self) -> bool {
        self.notes.fetch_or(KEPT_ONCE_MORE, Ordering::Relaxed) & KEPT_ONCE_MORE == 0
    }

    /// Begins the first request with the first byte in either direction.
    #[inline]
    fn on_activity(&self) {
        if self.notes.load(Ordering::Relaxed) & ACTIVE == 0 {
            self.on_first_byte();
        }
    }

    #[cold]
    fn on_first_byte(&self) {
        self.add_note(ACTIVE);
        if matches!(self.state(), ConnState::AwaitingFirstByte | ConnState::DrainClosed) {
            self.enter(ConnState::Serving);
        }
    }

    /// Returns when the request in this state has begun, if there is one.
    ///
    /// A request that is served has its deadline. Without one, and if the connection was ended while
    /// it was served, the time after [`NEVER`] is the beginning.
    fn begun(&self, PackedState { state, due }: PackedState) -> Option<u64> {
        match state {
            ConnState::Serving if due < NEVER => {
                due.checked_sub(self.clock().allowed(DeadlineKind::Request))
            }
            ConnState::Serving => Some(due - NEVER),
            state if state.is_terminal() && due > NEVER => Some(due - NEVER),
            _ => None,
        }
    }

    /// Counts a request whose handler has returned. Returns the time.
    ///
    /// The request has begun with its first byte. Without a byte it has taken no time.
    #[inline]
    pub(crate) fn count_request(&self) -> u64 {
        let now = self.clock().now();
        let elapsed = match PackedState::due_if_serving(self.state.load(Ordering::Acquire)) {
            Some(due) if due < NEVER => {
                (now + self.clock().allowed(DeadlineKind::Request)).saturating_sub(due)
            }
            _ => self.begun(self.load()).map_or(0, |begun| now.saturating_sub(begun)),
        };
        self.permit.traffic().add_request(elapsed);
        now
    }

    /// Maps the failure of a call, or its end of file, to the deadline or drain that caused it.
    #[cold]
    fn map_error(&self, result: io::Result<usize>, deadline: DeadlineKind) -> io::Result<usize> {
        if let Some(ended) = self.ended() {
            return Err(ended);
        }
        match result {
            // EAGAIN on a blocking descriptor means SO_RCVTIMEO or SO_SNDTIMEO.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.blocks() => {
                Err(self.call_timed_out(deadline))
            }
            Ok(0) => {
                self.set_flag(EOF_RECEIVED, true);
                Ok(0)
            }
            result => result,
        }
    }

    /// The timeout that the handler has set on its socket, `None` if the socket blocks. It also
    /// limits the wait for the next request, except that of a non-blocking socket.
    #[inline(always)]
    pub(crate) fn own_timeout(&self) -> Option<Duration> {
        let socket = self.socket_underneath().filter(|socket| !socket.is_timeout_unset())?;
        socket.gettimeout()
    }

    /// Whether the socket is in blocking mode.
    fn blocks(&self) -> bool {
        self.socket_underneath().is_some_and(|socket| socket.gettimeout().is_none())
    }

    /// Notes that a deadline has ended a call, and returns the error.
    fn call_timed_out(&self, deadline: DeadlineKind) -> io::Error {
        self.late.store(Some(deadline));
        let error = self.timed_out(deadline);
        // The handler may end the connection without an error of its own.
        if self.state() == ConnState::Serving {
            let client_address = self.client_address();
            log_limited!(
                warn, LogKind::TimedOut(deadline), peer:% = client_address, deadline:% = deadline;
                "request from {client_address} timed out: {error}"
            );
        }
        error
    }

    fn timed_out(&self, deadline: DeadlineKind) -> io::Error {
        let limit = self.clock().limits().of(deadline).unwrap_or_default();
        io::Error::new(io::ErrorKind::TimedOut, format!("{deadline} deadline of {limit:?} is over"))
    }
}

impl StreamSocket for Connection {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.has_read_ahead() {
            if let Some(received) = self.recv_from_read_ahead(buffer) {
                return Ok(received);
            }
        }
        self.recv(buffer)
    }

    fn recv_into_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.has_read_ahead() {
            if let Some(received) = self.recv_from_read_ahead(buffer) {
                return Ok(received);
            }
        }
        self.recv_nowait(buffer)
    }

    /// It is inlined into `sendall`, which handlers use to write.
    #[inline(always)]
    fn send(&self, data: &[u8]) -> io::Result<usize> {
        let Some(transport) = self.transport() else { return Err(io::ErrorKind::NotConnected.into()) };
        match transport.send(data) {
            Ok(sent) => {
                self.permit.traffic().count_sent(sent);
                self.on_activity();
                Ok(sent)
            }
            error => self.map_error(error, DeadlineKind::Write),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.transport()
            .map_or(Err(io::ErrorKind::NotConnected.into()), |transport| transport.shutdown(how))
    }

    fn pending(&self) -> usize {
        let mut ahead = 0;
        if self.has_read_ahead() {
            let buffer = self.take_read_ahead();
            ahead = buffer.unread().len();
            self.return_buffer(buffer);
        }
        ahead + self.stream().map_or(0, |stream| stream.pending())
    }

    fn flush(&self) -> io::Result<()> {
        self.stream().map_or(Err(io::ErrorKind::NotConnected.into()), |stream| stream.flush())
    }

    fn has_buffered_input(&self) -> bool {
        self.pending() > 0 || self.stream().is_some_and(|stream| stream.has_buffered_input())
    }

    fn is_drained(&self) -> bool {
        !self.has_more()
    }

    fn linger_for(&self, limit: Duration) -> io::Result<Lingered> {
        self.stream().map_or(Err(io::ErrorKind::NotConnected.into()), |stream| stream.linger_for(limit))
    }

    fn set_close_timeout(&self, timeout: Duration) {
        if let Some(stream) = self.stream() {
            stream.set_close_timeout(timeout);
        }
    }

    fn abort(&self) {
        if let Some(stream) = self.stream() {
            stream.abort();
        }
    }

    fn as_any(&self) -> Option<&dyn Any> {
        self.expose_socket();
        self.stream().and_then(|stream| stream.as_any())
    }

    fn socket(&self) -> &Socket {
        self.expose_socket();
        self.socket_underneath().expect("a handler runs only over a stream")
    }
}

impl FillBuffer for Connection {
    fn fill(&self, buffer: &mut ReadBuffer, size: usize) -> io::Result<()> {
        if self.has_read_ahead() {
            let mut ahead = self.take_read_ahead();
            // No copy; but a reader of another size may be one that reads nothing ahead.
            if ahead.size() == size {
                std::mem::swap(&mut ahead, buffer);
                recycle_buffer(ahead);
                return Ok(());
            }
            self.return_buffer(ahead);
        }
        if buffer.size() != size {
            *buffer = take_buffer(size);
        }
        buffer.receive(|room| self.recv_into(room)).map(drop)
    }
}

/// poll(2) that no signal ends, nor gives more time.
pub(crate) fn poll_through_signals(set: &mut [Poll<'_>], limit: Option<Duration>) -> io::Result<usize> {
    let mut limit = sock::Deadline::new(limit);
    loop {
        match poll(set, limit.remaining()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            ready => return ready,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("client_address", self.client_address())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limits::Limits;
    use crate::limits::permits::Permits;
    use crate::os::waker::Waker;

    fn connection() -> Connection {
        let limits = Limits { first_byte_timeout: Some(Duration::ZERO), ..Limits::default() };
        let permits = Permits::new(limits, Arc::new(Waker::new().unwrap()));
        Connection::new(Address::None, None, permits.acquire().unwrap())
    }

    /// The selector keeps one of these for each idle connection. See "Why are a job and its connection
    /// two small objects?" in docs/design.md.
    ///
    /// Only Linux is measured: there the selector holds tens of thousands of them.
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    #[test]
    fn a_connection_has_at_most_120_bytes() {
        assert!(size_of::<Connection>() <= 120, "{}", size_of::<Connection>());
    }

    #[test]
    fn only_overdue_connections_are_ended_and_they_stay_ended() {
        let connection = connection();
        assert_eq!(connection.end_if_overdue(u64::MAX), None, "the wait has not begun");
        assert!(connection.enter(ConnState::AwaitingFirstByte));
        let due = connection.due();
        assert_eq!(connection.end_if_overdue(due.saturating_sub(1)), None);
        assert_eq!(connection.end_if_overdue(due), Some(DeadlineKind::FirstByte));
        assert!(!connection.enter(ConnState::Serving));
        assert_eq!(connection.expired_deadline(), Some(DeadlineKind::FirstByte));
        assert!(
            !connection.end_for_drain(
                &[ConnState::AwaitingFirstByte, ConnState::Serving],
                ConnState::DrainAborted
            )
        );
    }

    /// A connection over one end of a pair, in the state and with the deadlines.
    #[cfg(unix)]
    fn connected(state: ConnState, limits: Limits) -> (Connection, Socket) {
        let permits = Permits::new(limits, Arc::new(Waker::new().unwrap()));
        let (ours, theirs) = sock::socketpair().unwrap();
        let connection = Connection::new(Address::None, Some(ours), permits.acquire().unwrap());
        connection.enter(state);
        (connection, theirs)
    }

    #[cfg(unix)]
    #[test]
    fn an_idle_connection_whose_request_has_arrived_is_not_ended() {
        for state in [ConnState::AwaitingFirstByte, ConnState::Idle] {
            let (connection, client) = connected(state, Limits::default());
            client.sendall(b"request").unwrap();
            let due = connection.due();
            assert_eq!(connection.end_if_overdue(due), None, "{state:?}");
            assert_eq!(connection.state(), ConnState::Serving, "the request has begun");
            assert!(connection.due() > due, "it has its own deadline");
            assert_eq!(connection.recv_into(&mut [0; 10]).unwrap(), 7);
            assert_eq!(connection.end_if_overdue(connection.due()), Some(DeadlineKind::Request));
        }
        let (silent, _client) = connected(ConnState::Idle, Limits::default());
        assert_eq!(silent.end_if_overdue(silent.due()), Some(DeadlineKind::Idle));
    }

    #[cfg(unix)]
    #[test]
    fn without_a_deadline_timer_the_worker_enforces_the_shortest_deadline() {
        let short = Some(Duration::from_millis(20));
        let cases = [
            (ConnState::AwaitingFirstByte, DeadlineKind::FirstByte),
            (ConnState::Idle, DeadlineKind::Idle),
            (ConnState::Serving, DeadlineKind::Read),
        ];
        for (state, kind) in cases {
            let mut limits = Limits::default();
            match kind {
                DeadlineKind::FirstByte => limits.first_byte_timeout = short,
                DeadlineKind::Idle => limits.idle_timeout = short,
                _ => limits.read_timeout = short,
            }
            let (connection, client) = connected(state, limits);
            let late = connection.recv_into(&mut [0; 10]).unwrap_err();
            assert_eq!((late.kind(), connection.expired_deadline()), (io::ErrorKind::TimedOut, Some(kind)));
            client.sendall(b"late").unwrap();
            assert_eq!(connection.recv_into(&mut [0; 10]).unwrap(), 4, "the connection is still usable");
        }
    }

    #[cfg(unix)]
    #[test]
    fn without_a_deadline_timer_a_wrapped_stream_has_the_deadline_of_the_first_byte() {
        /// Stands for a TLS stream: the connection cannot receive from its socket directly.
        #[derive(Debug)]
        struct Wrapped(Socket);

        impl StreamSocket for Wrapped {
            fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0.recv_into(buffer)
            }
            fn send(&self, data: &[u8]) -> io::Result<usize> {
                self.0.send(data)
            }
            fn shutdown(&self, how: sock::Shutdown) -> io::Result<()> {
                self.0.shutdown(how)
            }
            fn socket(&self) -> &Socket {
                &self.0
            }
        }

        let limits = Limits { first_byte_timeout: Some(Duration::from_millis(20)), ..Limits::default() };
        let permits = Permits::new(limits, Arc::new(Waker::new().unwrap()));
        let (ours, client) = sock::socketpair().unwrap();
        ours.set_recv_timeout(Some(Duration::from_secs(5))).unwrap();
        let connection = Connection::new(Address::None, None, permits.acquire().unwrap());
        connection.set_wrapped(Some(Transport::Wrapped(std::sync::Arc::new(Wrapped(ours)))), None);
        connection.enter(ConnState::AwaitingFirstByte);
        let late = connection.recv_into(&mut [0; 10]).unwrap_err();
        let expected = (io::ErrorKind::TimedOut, Some(DeadlineKind::FirstByte));
        assert_eq!((late.kind(), connection.expired_deadline()), expected);
        client.sendall(b"late").unwrap();
        assert_eq!(connection.recv_into(&mut [0; 10]).unwrap(), 4, "the connection is still usable");
    }

    #[cfg(unix)]
    #[test]
    fn a_handler_that_waits_twice_gets_a_receive_timeout_of_the_kernel() {
        let limits = Limits { read_timeout: Some(Duration::from_millis(40)), ..Limits::default() };
        let (connection, client) = connected(ConnState::Serving, limits);
        let kernel_timeout = || connection.plain_socket().unwrap().recv_timeout().unwrap();
        for expected in [None, Some(Duration::from_millis(40)), Some(Duration::from_millis(40))] {
            client.sendall(b"!").unwrap();
            assert_eq!(connection.recv_into(&mut [0; 10]).unwrap(), 1);
            let late = connection.recv_into(&mut [0; 10]).unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
            assert_eq!(connection.expired_deadline(), Some(DeadlineKind::Read));
            assert_eq!(kernel_timeout(), expected);
        }
        // A handler that takes the socket finds none, and the read deadline applies nevertheless.
        assert_eq!(connection.socket().recv_timeout().unwrap(), None);
        assert_eq!(connection.socket().gettimeout(), None);
        assert_eq!(connection.recv_into(&mut [0; 10]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(kernel_timeout(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_receive_timeout_of_the_kernel_does_not_end_the_wait_for_a_request() {
        let limits = Limits { read_timeout: Some(Duration::from_millis(20)), ..Limits::default() };
        let (connection, client) = connected(ConnState::Serving, limits);
        for _ in 0..2 {
            assert!(connection.recv_into(&mut [0; 10]).is_err());
        }
        connection.enter(ConnState::Idle);
        connection.set_timer_ends_wait(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sock::poll(&mut [], Some(Duration::from_millis(80))).unwrap();
                client.sendall(b"late").unwrap();
            });
            assert_eq!(connection.recv_into(&mut [0; 10]).unwrap(), 4);
        });
    }

    #[cfg(unix)]
    #[test]
    fn a_timeout_that_a_handler_sets_replaces_the_read_deadline() {
        let limits = Limits { read_timeout: Some(Duration::from_millis(20)), ..Limits::default() };
        let (connection, client) = connected(ConnState::Serving, limits);
        connection.socket().settimeout(Duration::from_millis(50)).unwrap();
        let begin = std::time::Instant::now();
        let late = connection.recv_into(&mut [0; 10]).unwrap_err();
        assert_eq!((late.kind(), connection.expired_deadline()), (io::ErrorKind::TimedOut, None));
        assert!(begin.elapsed() >= Duration::from_millis(50));
        connection.socket().settimeout(None).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sock::poll(&mut [], Some(Duration::from_millis(60))).unwrap();
                client.sendall(b"late").unwrap();
            });
            assert_eq!(connection.recv_into(&mut [0; 10]).unwrap(), 4, "it blocks for as long as needed");
        });
    }

    #[test]
    fn a_drain_ends_only_the_states_it_names() {
        let connection = connection();
        connection.enter(ConnState::Serving);
        assert!(
            !connection
                .end_for_drain(&[ConnState::AwaitingFirstByte, ConnState::Idle], ConnState::DrainClosed)
        );
        connection.enter(ConnState::Idle);
        assert!(
            connection
                .end_for_drain(&[ConnState::AwaitingFirstByte, ConnState::Idle], ConnState::DrainClosed)
        );
        assert_eq!(connection.state(), ConnState::DrainClosed);
    }
}
