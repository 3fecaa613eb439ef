//! One connection as the whole engine sees it: the worker that serves it, the
//! reaper that ends it when it is overdue, the drain that waits for it.

pub(crate) mod buffer_pool;
pub(crate) mod datagram;
pub(crate) mod read_ahead;
pub(crate) mod recv_timeout;
pub(crate) mod state;
pub(crate) mod transport;
pub(crate) mod wrapping;

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::atomic::AtomicCell;
use sock::{Address, Lingered, Poll, ReadBuffer, SHUT_RD, SHUT_RDWR, Shutdown, Socket, StreamSocket, poll};

use crate::connection::buffer_pool::{lend, put_away};
use crate::connection::recv_timeout::{CALLS, NOBODY, NOT_LATE, READ, Reads, WRITE, place_of};
use crate::connection::state::{OVER, Phase, State};
use crate::connection::transport::Means;
use crate::connection::wrapping::Wrapped;
use crate::limits::Deadline;
use crate::limits::clock::{Clock, NEVER};
use crate::limits::permits::Permit;
use crate::os::interleave::point;
#[cfg(unix)]
use crate::os::process;

/// A connection, or a datagram, from the moment it was accepted until it is closed.
///
/// The handler talks through it: it is the [`StreamSocket`] of the context, and
/// notices on the way whether the client has said anything, and which deadline
/// ended a call.
pub(crate) struct Connection {
    pub(crate) client_address: Address,
    /// Where it stands and until when: see [`State`].
    state: AtomicU64,
    /// When it was accepted: see [`Clock::stamp`](crate::limits::clock::Clock::stamp).
    since: u32,
    /// The deadline that ended the last call: see [`CALLS`].
    late: AtomicU8,
    reads: Reads,
    /// What is known of the receiving side, and the worker's alone: see below.
    flags: AtomicU8,
    /// What any thread of the handler's may have to say: see below.
    notes: AtomicU8,
    /// Input the engine has read to see that there is some: it comes first,
    /// whichever way the handler reads.
    ahead: AtomicCell<ReadBuffer>,
    /// What it goes over from the beginning.
    means: Option<Means>,
    /// What `wrap_request` has returned, which is set while the connection is shared. Used
    /// only if `means` is `None`: a [`OnceLock`] that is created with a value runs its `Once`.
    wrapped: OnceLock<Means>,
    /// `None` between two requests, of which this serves one after the other.
    permit: Option<Permit>,
}

/// The client has ended its side: nothing unread can be lost by closing.
const HEARD_THE_END: u8 = 1;
/// The last receive took all there was.
const DRAINED: u8 = 2;
/// Something is in [`Connection::ahead`].
const AHEAD: u8 = 4;
/// The system does not know of the next receive's deadline.
const UNTOLD: u8 = 8;
/// It has waited for a next request before.
const WAITED: u8 = 16;
/// The system's deadline was lifted once.
const LIFTED: u8 = 32;

/// Somebody has had the socket in hand, and may hold a second descriptor.
const SEEN: u8 = 1;
/// A word has come, or been said, and the next one changes nothing.
const HEARD: u8 = 2;

impl Connection {
    /// One that goes over its socket, or will go over what a hook makes of it.
    pub(crate) fn new(client_address: Address, socket: Option<Socket>, permit: Permit) -> Connection {
        Connection {
            client_address,
            since: permit.clock().stamp(),
            state: AtomicU64::new(State { phase: Phase::Queued, due: NEVER }.pack()),
            late: AtomicU8::new(NOT_LATE),
            reads: Reads::of(READ, READ),
            flags: AtomicU8::new(0),
            notes: AtomicU8::new(0),
            ahead: AtomicCell::default(),
            means: socket.map(Means::Socket),
            wrapped: OnceLock::new(),
            permit: Some(permit),
        }
    }

    /// Makes it another client's, after [`close`](Self::close).
    pub(crate) fn renew(&mut self, client_address: Address, socket: Option<Socket>, permit: Permit) {
        self.client_address = client_address;
        self.means = socket.map(Means::Socket);
        self.since = permit.clock().stamp();
        self.permit = Some(permit);
        *self.state.get_mut() = State { phase: Phase::Queued, due: NEVER }.pack();
        *self.late.get_mut() = NOT_LATE;
        self.reads = Reads::of(READ, READ);
        *self.flags.get_mut() = 0;
        *self.notes.get_mut() = 0;
    }

    /// Closes what it goes over, and forgets what has been read ahead.
    pub(crate) fn close(&mut self) {
        drop((self.means.take(), self.wrapped.take()));
        self.ahead.take();
    }

    #[inline]
    fn means(&self) -> Option<&Means> {
        self.means.as_ref().or_else(|| self.wrapped.get())
    }

    /// The permit of the request that has ended.
    pub(crate) fn take_permit(&mut self) -> Option<Permit> {
        self.permit.take()
    }

    fn clock(&self) -> &Clock {
        self.permit.as_ref().expect("every request has one").clock()
    }

    /// Whether there is anything to close.
    pub(crate) fn has_means(&self) -> bool {
        self.means().is_some()
    }

    pub(crate) fn age(&self) -> Duration {
        self.clock().since(self.since)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.load().phase
    }

    /// When it is overdue, in the clock's milliseconds.
    pub(crate) fn due(&self) -> u64 {
        self.load().due
    }

    /// When to look at it at the latest. The first byte of a silent client begins its
    /// request, whose deadline may be the earlier one, without telling anybody.
    pub(crate) fn next_look(&self) -> u64 {
        self.look_of(self.load())
    }

    #[inline]
    fn look_of(&self, State { phase, due }: State) -> u64 {
        if phase == Phase::Silent { due.min(self.clock().due(Deadline::Request)) } else { due }
    }

    fn load(&self) -> State {
        State::unpack(self.state.load(Ordering::Acquire))
    }

    /// Enters a phase, with its deadline beginning now. False when the connection has
    /// been ended meanwhile.
    pub(crate) fn enter(&self, phase: Phase) -> bool {
        self.enter_until(phase).is_some()
    }

    /// Enters a phase, and tells when to look at it at the latest.
    ///
    /// Inlined, so that of a phase that is known nothing has to be looked up.
    #[inline(always)]
    pub(crate) fn enter_until(&self, phase: Phase) -> Option<u64> {
        let due = phase.deadline().map_or(NEVER, |deadline| self.clock().due(deadline));
        let state = State { phase, due };
        let next = state.pack();
        let update = |word| (word & 15 < OVER).then_some(next);
        let entered = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        entered.ok().map(|_| self.look_of(state))
    }

    /// Why nothing may follow, if the connection has been ended.
    pub(crate) fn ended(&self) -> Option<io::Error> {
        match self.phase() {
            Phase::Overdue(deadline) => Some(self.timed_out(deadline)),
            Phase::Drained => {
                Some(io::Error::new(io::ErrorKind::ConnectionAborted, "the server is stopping"))
            }
            _ => None,
        }
    }

    /// Ends it if its deadline is over by `now`. Returns the deadline if so.
    pub(crate) fn end_if_overdue(&self, now: u64) -> Option<Deadline> {
        let state = self.load();
        let deadline = state.phase.deadline().filter(|_| state.due <= now)?;
        point();
        let overdue = State { phase: Phase::Overdue(deadline), due: NEVER }.pack();
        let ended = self.state.compare_exchange(state.pack(), overdue, Ordering::AcqRel, Ordering::Relaxed);
        ended.ok().map(|_| {
            self.sever(SHUT_RDWR);
            deadline
        })
    }

    /// Ends it if it is in one of the phases, for a drain.
    pub(crate) fn end_for_drain(&self, phases: &[Phase], end: Phase) -> bool {
        let drained = State { phase: end, due: NEVER };
        let ended = self.replace(|old| phases.contains(&old.phase).then_some(drained));
        if ended {
            // Of one that is dismissed only the receiving side: see `Phase::is_over`.
            self.sever(if end == Phase::Dismissed { SHUT_RD } else { SHUT_RDWR });
        }
        ended
    }

    fn replace(&self, next: impl Fn(State) -> Option<State>) -> bool {
        let update = |word| next(State::unpack(word)).map(State::pack);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, update).is_ok()
    }

    /// Ends it for a drain if it is idle: no request has begun, and none waits. Of a request
    /// that a worker receives at this moment the worker's change of the state counts, before
    /// this one or after it: see [`Phase::is_over`].
    pub(crate) fn dismiss_if_idle(&self) -> bool {
        let state = self.load();
        if !state.phase.is_idle() || self.has_input() {
            return false;
        }
        point();
        // This very state: another one may have come with input that was not seen.
        let dismissed = State { phase: Phase::Dismissed, due: NEVER }.pack();
        let ended =
            self.state.compare_exchange(state.pack(), dismissed, Ordering::AcqRel, Ordering::Relaxed);
        point();
        ended.is_ok_and(|_| {
            self.sever(SHUT_RD);
            true
        })
    }

    /// Whether the client has sent something that no worker has read yet. It never waits: a
    /// worker may read at the same moment.
    fn has_input(&self) -> bool {
        self.socket_underneath().is_some_and(|socket| socket.recv_queue().is_ok_and(|bytes| bytes > 0))
    }

    /// Wakes whoever waits for the client, with the end of everything.
    fn sever(&self, how: Shutdown) {
        if let Some(means) = self.means() {
            means.sever(how);
        }
    }

    fn socket_underneath(&self) -> Option<&Socket> {
        self.means()?.socket()
    }

    pub(crate) fn serve_over(&self, stream: Wrapped) {
        let _ = self.wrapped.set(Means::Wrapped(stream));
    }

    /// A child process serves it: to cut it off is to kill the child. Returns what it
    /// went over in this one.
    #[cfg(unix)]
    pub(crate) fn serve_in_child(&mut self, pid: process::Pid) -> Option<Means> {
        let former = self.wrapped.take();
        self.means.replace(Means::Child(pid)).or(former)
    }

    /// What the handler talks over, once it may.
    pub(crate) fn stream(&self) -> Option<&dyn StreamSocket> {
        self.means()?.stream()
    }

    /// The deadline that ended the connection, or its last call.
    pub(crate) fn late(&self) -> Option<Deadline> {
        if let Phase::Overdue(deadline) = self.phase() {
            return Some(deadline);
        }
        CALLS.get(usize::from(self.late.load(Ordering::Relaxed))).copied()
    }

    /// Gives the next receive another deadline than the usual: for a process that
    /// nobody watches.
    pub(crate) fn limit_next_read(&self, deadline: Deadline) {
        let (reading_for, told_for) = (place_of(deadline), self.reads.told_for());
        self.reads.set(reading_for, told_for);
        self.set_flag(UNTOLD, told_for != reading_for);
        if reading_for != READ {
            self.notes.fetch_and(!HEARD, Ordering::Relaxed);
        }
    }

    /// Lifts the system's deadline for a receive between two requests, which another covers:
    /// the first receive within a request tells the system again. Once, not for each request,
    /// and not before the second: most of those that end soon end after the first.
    #[inline]
    pub(crate) fn lift_limit(&self) {
        if self.flags.load(Ordering::Relaxed) & LIFTED == 0 {
            self.lift_limit_once();
        }
    }

    #[cold]
    fn lift_limit_once(&self) {
        if self.flags.load(Ordering::Relaxed) & WAITED == 0 {
            return self.set_flag(WAITED, true);
        }
        self.set_flag(LIFTED, true);
        let lifted = self.bare().map(|socket| socket.set_recv_timeout(None));
        if let Some(Ok(())) = lifted {
            self.reads.set(READ, NOBODY);
            self.set_flag(UNTOLD, true);
        }
    }

    /// Whether the system has yet to be told of a deadline.
    fn is_untold(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & UNTOLD != 0
    }

    /// The system knows of this deadline already.
    pub(crate) fn has_limit(&self, deadline: Deadline) {
        self.reads.set(self.reads.reading_for(), place_of(deadline));
        self.limit_next_read(Deadline::Read);
    }

    /// Tells the system how long the next receive may take. Not before there is one:
    /// mostly there is none.
    #[cold]
    fn tell_limit(&self) {
        let reading_for = self.reads.reading_for();
        let limit = self.clock().limits().of_receive(CALLS[usize::from(reading_for)]);
        if let Some(Err(error)) = self.socket_underneath().map(|socket| socket.set_recv_timeout(limit)) {
            // A receive without its deadline may never end: there must be nothing to wait for.
            log::warn!("set the receive timeout for {}: {error}", self.client_address);
            self.sever(SHUT_RDWR);
        }
        self.reads.set(reading_for, reading_for);
        // Any thread of the handler's may come by here.
        self.flags.fetch_and(!UNTOLD, Ordering::Relaxed);
    }

    pub(crate) fn heard_the_end(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & HEARD_THE_END != 0
    }

    /// Whether closing it is all that is left to do: the client has ended, all it sent
    /// has been read, and no second descriptor keeps the socket open.
    pub(crate) fn ends_with_its_close(&self) -> bool {
        self.heard_the_end() && self.notes.load(Ordering::Relaxed) & SEEN == 0 && self.bare().is_some()
    }

    /// The socket itself, if it goes over that and nothing of a hook's.
    pub(crate) fn bare(&self) -> Option<&Socket> {
        match self.means()? {
            Means::Socket(socket) => Some(socket),
            _ => None,
        }
    }

    /// Whether something may be left that has come until the last receive: read ahead, or
    /// not received yet; true also means that nobody knows.
    #[cfg(unix)]
    pub(crate) fn has_more(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & (AHEAD | DRAINED) != DRAINED
    }

    /// For the worker that serves it alone. Where others may come in between, they change
    /// one flag at once.
    fn set_flag(&self, flag: u8, on: bool) {
        let flags = self.flags.load(Ordering::Relaxed);
        self.flags.store(if on { flags | flag } else { flags & !flag }, Ordering::Relaxed);
    }

    /// Somebody gets the socket in hand, and may receive from it.
    fn hand_out(&self) {
        self.note(SEEN);
        if self.is_untold() {
            self.tell_limit();
        }
    }

    fn note(&self, note: u8) {
        if self.notes.load(Ordering::Relaxed) & note == 0 {
            self.notes.fetch_or(note, Ordering::Relaxed);
        }
    }

    /// Receives, under a deadline that somebody watches.
    #[inline]
    fn recv_covered(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(means) = self.means() else { return Err(io::ErrorKind::NotConnected.into()) };
        match means.recv_into(buffer) {
            Ok(received @ 1..) => Ok(self.heard(means, received, buffer.len())),
            Ok(0) if buffer.is_empty() => Ok(0),
            other => self.judge(other, Deadline::Read),
        }
    }

    /// Receives what is there, without waiting.
    fn recv_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(means) = self.means() else { return Err(io::ErrorKind::NotConnected.into()) };
        match means.recv_nowait(buffer) {
            Ok(received @ 1..) => Ok(self.heard(means, received, buffer.len())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.ended().is_none() => Err(error),
            other => self.judge(other, Deadline::Read),
        }
    }

    /// Takes note of what was received into `room`.
    #[inline]
    fn heard(&self, means: &Means, received: usize, room: usize) -> usize {
        point();
        let drained = received < room && !means.holds_back();
        if drained != (self.flags.load(Ordering::Relaxed) & DRAINED != 0) {
            self.set_flag(DRAINED, drained);
        }
        self.spoke();
        received
    }

    /// The first byte, in either direction, begins the first request.
    #[inline]
    fn spoke(&self) {
        if self.notes.load(Ordering::Relaxed) & HEARD == 0 {
            self.first_word();
        }
    }

    #[cold]
    fn first_word(&self) {
        self.note(HEARD);
        if self.reads.reading_for() != READ {
            self.limit_next_read(Deadline::Read);
        }
        if matches!(self.phase(), Phase::Silent | Phase::Dismissed) {
            self.enter(Phase::Busy);
        }
    }

    /// What a call's failure, or its end of file, means here.
    #[cold]
    fn judge(&self, result: io::Result<usize>, deadline: Deadline) -> io::Result<usize> {
        if let Some(ended) = self.ended() {
            return Err(ended);
        }
        match result {
            // SO_RCVTIMEO and SO_SNDTIMEO say EAGAIN; a mode of the handler's own speaks for itself.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.blocks() => {
                let late = match deadline {
                    Deadline::Read => self.reads.reading_for(),
                    _ => WRITE,
                };
                self.late.store(late, Ordering::Relaxed);
                Err(self.timed_out(CALLS[usize::from(late)]))
            }
            Ok(0) => {
                self.set_flag(HEARD_THE_END, true);
                Ok(0)
            }
            result => result,
        }
    }

    fn blocks(&self) -> bool {
        self.socket_underneath().is_some_and(|socket| socket.gettimeout().is_none())
    }

    fn timed_out(&self, deadline: Deadline) -> io::Error {
        let limit = self.clock().limits().of(deadline).unwrap_or_default();
        io::Error::new(io::ErrorKind::TimedOut, format!("{deadline} deadline of {limit:?} is over"))
    }
}

impl StreamSocket for Connection {
    fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.flags.load(Ordering::Relaxed) & (AHEAD | UNTOLD) != 0 {
            if let Some(received) = self.recv_ahead(buffer) {
                return Ok(received);
            }
        }
        self.recv_covered(buffer)
    }

    /// Inlined into `sendall`, which is what a handler's writes come to.
    #[inline(always)]
    fn send(&self, data: &[u8]) -> io::Result<usize> {
        let Some(means) = self.means() else { return Err(io::ErrorKind::NotConnected.into()) };
        match means.send(data) {
            Ok(sent) => {
                self.spoke();
                Ok(sent)
            }
            error => self.judge(error, Deadline::Write),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.means().map_or(Err(io::ErrorKind::NotConnected.into()), |means| means.shutdown(how))
    }

    fn fill(&self, buffer: &mut ReadBuffer, size: usize) -> io::Result<()> {
        if self.has_ahead() {
            let mut ahead = self.take_ahead();
            // No copy; but a reader of another size may be one that reads nothing ahead.
            if ahead.size() == size {
                std::mem::swap(&mut ahead, buffer);
                put_away(ahead);
                return Ok(());
            }
            self.give_back(ahead);
        }
        if buffer.size() != size {
            *buffer = lend(size);
        }
        buffer.receive(|room| self.recv_into(room)).map(drop)
    }

    fn pending(&self) -> usize {
        let mut ahead = 0;
        if self.has_ahead() {
            let buffer = self.take_ahead();
            ahead = buffer.unread().len();
            self.give_back(buffer);
        }
        ahead + self.stream().map_or(0, |stream| stream.pending())
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
        self.hand_out();
        self.stream().and_then(|stream| stream.as_any())
    }

    fn socket(&self) -> &Socket {
        self.hand_out();
        self.socket_underneath().expect("a handler runs only over a stream")
    }
}

/// poll(2) that no signal ends, nor gives more time.
pub(crate) fn poll_through_signals(set: &mut [Poll<'_>], limit: Option<Duration>) -> io::Result<usize> {
    let mut limit = sock::Deadline::new(limit);
    loop {
        match poll(set, limit.left()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            ready => return ready,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("client_address", &self.client_address)
            .field("phase", &self.phase())
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
        Connection::new(Address::None, None, permits.take().unwrap())
    }

    #[test]
    fn only_what_is_overdue_is_ended_and_what_is_ended_stays_so() {
        let connection = connection();
        assert_eq!(connection.end_if_overdue(u64::MAX), None, "nobody has begun it");
        assert!(connection.enter(Phase::Silent));
        let due = connection.due();
        assert_eq!(connection.end_if_overdue(due.saturating_sub(1)), None);
        assert_eq!(connection.end_if_overdue(due), Some(Deadline::FirstByte));
        assert!(!connection.enter(Phase::Busy));
        assert_eq!(connection.late(), Some(Deadline::FirstByte));
        assert!(!connection.end_for_drain(&[Phase::Silent, Phase::Busy], Phase::Drained));
    }

    #[cfg(unix)]
    #[test]
    fn a_deadline_that_only_the_system_watches_is_told_before_the_receive() {
        let limit = Duration::from_millis(20);
        let limits = Limits { idle_timeout: Some(limit), ..Limits::default() };
        let permits = Permits::new(limits, Arc::new(Waker::new().unwrap()));
        let (ours, _theirs) = sock::socketpair().unwrap();
        let connection = Connection::new(Address::None, Some(ours), permits.take().unwrap());
        connection.limit_next_read(Deadline::Idle);
        let late = connection.await_input(10, false).unwrap_err();
        assert_eq!((late.kind(), connection.late()), (io::ErrorKind::TimedOut, Some(Deadline::Idle)));
    }

    #[cfg(unix)]
    #[test]
    fn a_limit_that_was_lifted_is_told_again_to_whoever_may_receive() {
        let whoever: [fn(&Connection); 3] = [
            |connection| drop(connection.recv_into(&mut [0])),
            |connection| drop(connection.socket().recv_timeout()),
            |connection| assert!(connection.as_any().is_some()),
        ];
        for receives in whoever {
            let permits = Permits::new(Limits::default(), Arc::new(Waker::new().unwrap()));
            let (ours, theirs) = sock::socketpair().unwrap();
            theirs.sendall(b"!").unwrap();
            let (system, before) = (ours.dup().unwrap(), Some(Duration::from_secs(7)));
            ours.set_recv_timeout(before).unwrap();
            let connection = Connection::new(Address::None, Some(ours), permits.take().unwrap());
            connection.lift_limit();
            assert_eq!(system.recv_timeout().unwrap(), before, "not yet");
            connection.lift_limit();
            assert_eq!(system.recv_timeout().unwrap(), None);
            receives(&connection);
            assert_eq!(system.recv_timeout().unwrap(), Limits::default().read_timeout);
            connection.lift_limit();
            assert_eq!(system.recv_timeout().unwrap(), Limits::default().read_timeout, "once");
        }
    }

    #[test]
    fn a_drain_ends_only_the_phases_it_names() {
        let connection = connection();
        connection.enter(Phase::Busy);
        assert!(!connection.end_for_drain(&[Phase::Silent, Phase::Between], Phase::Dismissed));
        connection.enter(Phase::Between);
        assert!(connection.end_for_drain(&[Phase::Silent, Phase::Between], Phase::Dismissed));
        assert_eq!(connection.phase(), Phase::Dismissed);
    }
}
