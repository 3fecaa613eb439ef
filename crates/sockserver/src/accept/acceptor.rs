//! The accept path: every model takes its requests through [`AcceptGate::next`], or, if it must not
//! wait, through [`AcceptGate::attempt`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sock::{Address, HoldRecords, Socket, errno, errno_name};

use crate::connection::datagram::DatagramBuf;
use crate::lifecycle::current_server::{AcceptingThread, ServingThread};
use crate::limits::WhenFull;
use crate::limits::log_limit::{LogKind, log_limited};
use crate::limits::permits::Permit;
use crate::os::guard::{SafeDisplay, discard, guard};
use crate::os::interleave;
use crate::os::log::{errno_field, milliseconds};
use crate::request::core::{Core, HandlerFactory};
use crate::request::datagram_batch::{DatagramReceiver, Received};
use crate::request::job::Job;
use crate::request::{Arrival, RequestError, catch_panic};

/// The first pause when a resource is exhausted. It doubles up to [`MAX_DELAY`].
pub(crate) const FIRST_DELAY: Duration = Duration::from_millis(5);
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(1);
/// How often a worker looks whether it may accept, while a predecessor still does.
const HOLD_INTERVAL: Duration = Duration::from_millis(5);
/// How often a worker looks for a client that a drain has accepted.
const FILL_INTERVAL: Duration = Duration::from_millis(5);
/// After so many clients in a row that were lost before they were accepted, the loop pauses.
const MAX_CONSECUTIVE_ERRORS: u32 = 100;

/// The right of one worker to accept. A worker can accept only through its gate, and
/// [`close`](Self::close) takes the acceptor out of it, so nothing is accepted afterwards.
///
/// The end of a loop waits for the lock, and so do the other workers of a selector. Under it a
/// request is accepted and added to the registry. The only code of the user is the hook
/// `get_request`. Its calls of `shutdown` and `drain` fail with `Deadlock`, because the thread is
/// marked as [`AcceptingThread`]. All other hooks ([`Accepted::admit`]) and log lines ([`AcceptNote`],
/// and the records of system calls, see [`HoldRecords`]) follow when the lock is released. The system
/// calls are accept(2), changes of the poller, and writes to wakers, which do not block. Only in a
/// pre-forked worker accept(2) may block, and its records are logged under the lock. No other thread
/// of such a worker needs it: see [`Waiter::blocks_in_accept`].
#[derive(Clone)]
pub(crate) struct AcceptGate(Arc<Mutex<Option<Acceptor>>>);

/// What [`AcceptGate::next`] returns.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// A request that was accepted and verified.
    Taken(T),
    /// A request was refused, and is closed.
    Refused,
    /// Nothing came within the limit, or the waiter has something else to do.
    TimedOut,
    /// The server stops. Nothing more will be accepted.
    Stopped,
}

/// What one attempt to accept results in.
pub(crate) enum Attempt<T> {
    Taken(T),
    /// No client is waiting.
    WouldBlock,
    /// A resource is exhausted for so long; `None` means until a request ends.
    Pause(Option<Duration>),
    Stopped,
}

/// How a worker waits.
pub(crate) trait Waiter {
    /// Whether to wait before the first attempt. An attempt that finds no client costs more than two
    /// waits that return at once, because accept(2) allocates a socket first.
    fn waits_first(&self) -> bool {
        false
    }

    /// Whether accept(2) itself waits for a client. The records of its call are logged at once then,
    /// because they show that it waits.
    fn blocks_in_accept(&self) -> bool {
        false
    }

    /// Waits until a client may be there. Returns false if [`AcceptGate::next`] is to return:
    /// after `limit`, or because there is something else to do.
    fn wait(&self, gate: &AcceptGate, limit: Option<Duration>) -> io::Result<bool>;

    /// Waits for `pause`, or without a limit until a request ends, while clients stay in the
    /// listener's queue. Returns false if [`AcceptGate::next`] is to return.
    fn pause(&self, pause: Option<Duration>, limit: Option<Duration>) -> io::Result<bool>;

    /// Removes a listener that is closed or broken. It would be readable for ever.
    fn remove_listener(&self, listener: &Arc<Socket>);
}

impl AcceptGate {
    pub(crate) fn new(acceptor: Acceptor) -> AcceptGate {
        AcceptGate(Arc::new(Mutex::new(Some(acceptor))))
    }

    /// A gate that is closed until [`open`](Self::open).
    pub(crate) fn closed() -> AcceptGate {
        AcceptGate(Arc::default())
    }

    /// Runs `begin`, and lets the acceptor in if it succeeds. No attempt is made in between.
    pub(crate) fn open(
        &self,
        acceptor: Acceptor,
        begin: impl FnOnce(&Acceptor) -> io::Result<()>,
    ) -> io::Result<()> {
        let _accepting = AcceptingThread::begin(acceptor.core.registry());
        let _held = HoldRecords::begin();
        let mut inside = interleave::lock(&self.0);
        begin(&acceptor)?;
        *inside = Some(acceptor);
        Ok(())
    }

    /// Ends accepting. Waits for the attempt that is being made, and drops the acceptor and its
    /// listeners.
    pub(crate) fn close(&self) -> Option<Acceptor> {
        interleave::lock(&self.0).take()
    }

    /// Calls `act` with the acceptor, unless the gate is closed. No attempt is made meanwhile.
    pub(crate) fn with_acceptor<T>(&self, act: impl FnOnce(&mut Acceptor) -> T) -> Option<T> {
        let held = HoldRecords::begin();
        let mut inside = interleave::lock(&self.0);
        let acceptor = inside.as_mut()?;
        let accepting = AcceptingThread::begin(acceptor.core.registry());
        let done = act(acceptor);
        drop(inside);
        drop(held);
        drop(accepting);
        Some(done)
    }

    /// Calls `act` with the acceptor, or `None` if the gate is closed. No attempt is made meanwhile.
    pub(crate) fn while_locked<T>(&self, act: impl FnOnce(Option<&Acceptor>) -> T) -> T {
        let held = HoldRecords::begin();
        let inside = interleave::lock(&self.0);
        let accepting = inside.as_ref().map(|acceptor| AcceptingThread::begin(acceptor.core.registry()));
        let done = act(inside.as_ref());
        drop(inside);
        drop(held);
        drop(accepting);
        done
    }

    /// Takes the next request, waiting for it up to `limit`. Hooks that concern it are called
    /// without the lock.
    ///
    /// # Errors
    ///
    /// Returns an error if the last listener is closed or broken, or if the waiter fails.
    pub(crate) fn next(&self, waiter: &impl Waiter, limit: Option<Duration>) -> io::Result<Next<Job>> {
        Ok(match self.next_with(waiter, limit, Acceptor::accept_from)? {
            Next::Taken(accepted) => accepted.admit().map_or(Next::Refused, Next::Taken),
            Next::Refused => Next::Refused,
            Next::TimedOut => Next::TimedOut,
            Next::Stopped => Next::Stopped,
        })
    }

    /// [`next`](Self::next) with another way to receive. `take` gets the number of a listener whose
    /// turn it is.
    pub(crate) fn next_with<T>(
        &self,
        waiter: &impl Waiter,
        limit: Option<Duration>,
        mut take: impl FnMut(&mut Acceptor, usize) -> io::Result<T>,
    ) -> io::Result<Next<T>> {
        let remove_listener = |listener: &Arc<Socket>| waiter.remove_listener(listener);
        if waiter.waits_first() && !waiter.wait(self, limit)? {
            return Ok(Next::TimedOut);
        }
        let holds_records = !waiter.blocks_in_accept();
        loop {
            interleave::yield_point();
            let attempt =
                self.attempt_with(holds_records, &remove_listener, &mut take, |_, attempt| attempt);
            let goes_on = match attempt.unwrap_or(Ok(Attempt::Stopped))? {
                Attempt::Taken(request) => return Ok(Next::Taken(request)),
                Attempt::Stopped => return Ok(Next::Stopped),
                Attempt::WouldBlock => waiter.wait(self, limit)?,
                Attempt::Pause(pause) => waiter.pause(pause, limit)?,
            };
            if !goes_on {
                return Ok(Next::TimedOut);
            }
        }
    }

    /// Makes one attempt, without waiting, and calls `then` with its outcome before another worker
    /// can make one. Returns `None` if the gate is closed.
    pub(crate) fn attempt<T>(
        &self,
        remove_listener: &dyn Fn(&Arc<Socket>),
        then: impl FnOnce(&Acceptor, io::Result<Attempt<Accepted>>) -> T,
    ) -> Option<T> {
        self.attempt_with(true, remove_listener, &mut Acceptor::accept_from, then)
    }

    fn attempt_with<R, T>(
        &self,
        holds_records: bool,
        remove_listener: &dyn Fn(&Arc<Socket>),
        take: &mut impl FnMut(&mut Acceptor, usize) -> io::Result<R>,
        then: impl FnOnce(&Acceptor, io::Result<Attempt<R>>) -> T,
    ) -> Option<T> {
        let held = if holds_records { HoldRecords::begin() } else { None };
        let mut inside = interleave::lock(&self.0);
        let acceptor = inside.as_mut()?;
        let accepting = AcceptingThread::begin(acceptor.core.registry());
        let attempt = acceptor.attempt(remove_listener, take);
        let outcome = then(acceptor, attempt);
        let notes = (!acceptor.notes.is_empty()).then(|| std::mem::take(&mut acceptor.notes));
        drop(inside);
        drop(held);
        if let Some(notes) = notes {
            notes.into_iter().for_each(AcceptNote::log);
        }
        drop(accepting);
        Some(outcome)
    }
}

/// A request that was accepted and is in the registry. No hook has seen it yet.
pub(crate) struct Accepted {
    job: Job,
    is_refused: bool,
}

impl Accepted {
    /// Calls the hooks, without the gate's lock. Returns `None` if its address, a limit, the trusted
    /// networks of the PROXY protocol, or `verify_request` refuses the request.
    pub(crate) fn admit(self) -> Option<Job> {
        let Accepted { mut job, is_refused } = self;
        // This thread cannot wait for the end of the request, nor for its own loop.
        let registry = Arc::clone(job.core().registry());
        let _marks = (AcceptingThread::begin(&registry), ServingThread::begin(&registry));
        if !job.admit_accepted() {
            job.close_unserved();
            return None;
        }
        if is_refused || !job.is_within_shared_limit() {
            log::debug!(
                peer:% = job.client_address(), reason = "too many connections";
                "request from {} refused: too many connections", job.client_address()
            );
            job.refuse_with_hook();
            return None;
        }
        if !job.is_from_trusted_network() {
            job.close_unserved();
            return None;
        }
        match job.verify() {
            Ok(true) => return Some(job),
            Ok(false) => {
                log::debug!(
                    peer:% = job.client_address(), reason = "verify_request";
                    "request from {} refused", job.client_address()
                )
            }
            Err(error) => job.report(&error),
        }
        job.close_unserved();
        None
    }
}

/// What happened during an attempt. It is logged without the gate's lock: a logger may block, and
/// the `Display` of a hook's error is code of the user.
enum AcceptNote {
    /// A client was lost before it was accepted.
    Lost(io::Error),
    BackOff(Duration, io::Error),
    /// A listener of so many was disabled.
    Disabled(usize, usize, io::Error),
}

impl AcceptNote {
    #[cold]
    fn log(self) {
        match self {
            AcceptNote::Lost(error) => {
                log::debug!(
                    errno = errno_field(&error);
                    "client lost before it was accepted: {}", SafeDisplay(&error)
                );
                discard(error);
            }
            // Other workers get the same error.
            AcceptNote::BackOff(delay, error) => {
                let kind = LogKind::Accept(guard(|| errno(&error)).ok().flatten());
                let text = SafeDisplay(&error);
                log_limited!(
                    warn, kind, errno = errno_field(&error), limit_ms = milliseconds(delay);
                    "accept failed, retry in {delay:?}: {text}"
                );
                discard(error);
            }
            AcceptNote::Disabled(index, count, error) => {
                let number = index + 1;
                let text = SafeDisplay(&error);
                log_limited!(
                    error, LogKind::Lost(index), listener_number = number, count = count, errno = errno_field(&error);
                    "lost listener {number} of {count}: {text}"
                );
                discard(error);
            }
        }
    }
}

/// Accepts requests from the listeners, for one worker.
pub(crate) struct Acceptor {
    core: Arc<Core>,
    listeners: Vec<Listening>,
    /// The listener of the next attempt. They take turns, so each gets its share.
    next_listener: usize,
    /// Receives datagrams. `None` until the first attempt.
    receiver: Option<DatagramReceiver>,
    settings: Settings,
    /// For `handle_request`, which serves also after a stop. Only a drain ends that.
    serves_one: bool,
    /// A permit for the next request, kept while no client comes.
    permit: Option<Permit>,
    backoff: Backoff,
    /// To be logged after the attempt.
    notes: Vec<AcceptNote>,
}

struct Listening {
    socket: Arc<Socket>,
    /// Closed or broken.
    is_disabled: bool,
}

/// The builder's options that the loops use.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// `None` if not set. Then the mixin's timeout applies.
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) poll_interval: Duration,
    pub(crate) max_packet_size: usize,
    pub(crate) max_batch: usize,
    /// Whether a listener reports the address that each datagram was sent to.
    pub(crate) packet_info: bool,
}

impl Settings {
    /// Makes room for so many datagrams.
    pub(crate) fn receiver(&self, datagrams: usize) -> io::Result<DatagramReceiver> {
        DatagramReceiver::new(self.max_packet_size, datagrams, self.packet_info)
    }
}

/// Exponential backoff.
#[derive(Clone, Copy, Default)]
pub(crate) struct Backoff {
    delay: Duration,
    /// Clients in a row that were lost before they were accepted.
    consecutive_errors: u32,
}

impl Backoff {
    /// Returns the next pause, which is twice the last one.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, MAX_DELAY);
        self.delay
    }
}

/// What an error of accept(2) means for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptErrorKind {
    WouldBlock,
    Transient,
    Exhausted,
    ListenerClosed,
}

/// Classifies the errors of accept(2), and of recvfrom(2) on a datagram server.
///
/// Linux reports errors that are pending on the new connection, which concern that client only
/// (accept(2), "Error handling"). An exhausted resource becomes available again, but not at once.
fn classify_accept_error(error: &io::Error) -> AcceptErrorKind {
    // A signal has interrupted accept(2) for the worker's control thread.
    if sock::was_interrupted(error) {
        return AcceptErrorKind::WouldBlock;
    }
    let Some(number) = errno(error) else {
        return match error.kind() {
            // The listener has a timeout.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AcceptErrorKind::WouldBlock,
            // Not from a system call: a `get_request` hook rejected its client.
            _ => AcceptErrorKind::Transient,
        };
    };
    match errno_name(number) {
        Some("EAGAIN") => AcceptErrorKind::WouldBlock,
        Some("EINTR" | "ECONNABORTED" | "ECONNRESET" | "EPROTO" | "EPERM") => AcceptErrorKind::Transient,
        Some(
            "ENETDOWN" | "ENOPROTOOPT" | "EHOSTDOWN" | "ENONET" | "EHOSTUNREACH" | "EOPNOTSUPP"
            | "ENETUNREACH" | "ETIMEDOUT" | "ECONNREFUSED",
        ) => AcceptErrorKind::Transient,
        Some("EBADF" | "ENOTSOCK" | "EINVAL") => AcceptErrorKind::ListenerClosed,
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, and unknown errors.
        _ => AcceptErrorKind::Exhausted,
    }
}

impl Acceptor {
    pub(crate) fn new(core: &Arc<Core>, listeners: &[Arc<Socket>], settings: Settings) -> Acceptor {
        // Calls of `handle_request` take turns too.
        let turn = if listeners.len() > 1 { core.registry().own_stats().accepted } else { 0 };
        let listening = |socket: &Arc<Socket>| Listening { socket: Arc::clone(socket), is_disabled: false };
        Acceptor {
            core: Arc::clone(core),
            listeners: listeners.iter().map(listening).collect(),
            next_listener: turn as usize,
            receiver: None,
            settings,
            serves_one: false,
            permit: None,
            backoff: Backoff::default(),
            notes: Vec::new(),
        }
    }

    /// Makes it the acceptor of `handle_request`.
    pub(crate) fn for_one_request(self) -> Acceptor {
        Acceptor { serves_one: true, ..self }
    }

    /// The listeners that are not closed or broken.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Arc<Socket>> {
        self.listeners.iter().filter(|listening| !listening.is_disabled).map(|listening| &listening.socket)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn listener(&self, index: usize) -> &Arc<Socket> {
        &self.listeners[index].socket
    }

    fn is_stopping(&self) -> bool {
        if self.serves_one { self.core.registry().is_draining() } else { self.core.handle.loop_ends() }
    }

    /// Makes one attempt: this is the only place where requests are accepted, and where the errors
    /// of accept(2) are handled.
    fn attempt<T>(
        &mut self,
        remove_listener: &dyn Fn(&Arc<Socket>),
        take: &mut impl FnMut(&mut Acceptor, usize) -> io::Result<T>,
    ) -> io::Result<Attempt<T>> {
        'again: loop {
            if self.is_stopping() {
                return Ok(Attempt::Stopped);
            }
            if self.core.handle.holds_accept() {
                return Ok(Attempt::Pause(Some(HOLD_INTERVAL)));
            }
            if self.waits_when_full() && !self.reserve_permit() {
                return Ok(Attempt::Pause(self.core.registry().permits.shortage_pause()));
            }
            if self.core.registry().is_draining() {
                // A client that the drain has accepted, or none yet. A wait for the listeners would end
                // at once, because they have clients for the drain or are shut down.
                return Ok(take(self, 0).map_or(Attempt::Pause(Some(FILL_INTERVAL)), Attempt::Taken));
            }
            if let Some(pause) = self.core.registry().permits.accept_pause() {
                return Ok(Attempt::Pause(Some(pause)));
            }
            if !self.backoff.delay.is_zero() {
                // Before the attempt, so that a descriptor that is closed during it counts.
                self.core.registry().permits.register_waiter();
            }
            for _ in 0..self.listeners.len() {
                let index = self.next_listener % self.listeners.len();
                self.next_listener = index + 1;
                if self.listeners[index].is_disabled {
                    continue;
                }
                let error = match take(self, index) {
                    Ok(taken) => {
                        self.backoff = Backoff::default();
                        return Ok(Attempt::Taken(taken));
                    }
                    Err(error) => error,
                };
                // It may be an error of a `get_request` hook.
                let kind = guard(|| classify_accept_error(&error));
                match kind.unwrap_or(AcceptErrorKind::Transient) {
                    AcceptErrorKind::WouldBlock => discard(error),
                    AcceptErrorKind::Transient => {
                        self.core.registry().lost_before_accept();
                        self.backoff.consecutive_errors += 1;
                        if self.backoff.consecutive_errors <= MAX_CONSECUTIVE_ERRORS {
                            self.notes.push(AcceptNote::Lost(error));
                            continue 'again;
                        }
                        return Ok(Attempt::Pause(Some(self.back_off(error))));
                    }
                    AcceptErrorKind::Exhausted => {
                        return Ok(Attempt::Pause(Some(self.back_off(error))));
                    }
                    // A drain has shut the listener down.
                    AcceptErrorKind::ListenerClosed
                        if self.is_stopping() || self.core.registry().is_draining() => {}
                    AcceptErrorKind::ListenerClosed => {
                        remove_listener(self.listener(index));
                        self.disable_listener(index, error)?;
                        continue 'again;
                    }
                }
            }
            return Ok(Attempt::WouldBlock);
        }
    }

    fn waits_when_full(&self) -> bool {
        self.core.registry().limits().when_full == WhenFull::Wait
    }

    /// Acquires a permit for the next request. Returns false if there is none.
    ///
    /// A server that refuses clients at its limit does not reserve permits: one that a worker
    /// keeps while no client comes would make another worker refuse a client.
    fn reserve_permit(&mut self) -> bool {
        self.permit = self.permit.take().or_else(|| self.core.registry().permits.acquire());
        self.permit.is_some()
    }

    /// Continues without a listener, if there is another.
    fn disable_listener(&mut self, index: usize, error: io::Error) -> io::Result<()> {
        self.listeners[index].is_disabled = true;
        if self.listeners().next().is_none() {
            return Err(error);
        }
        // Other workers lose it too.
        self.notes.push(AcceptNote::Disabled(index, self.listeners.len(), error));
        Ok(())
    }

    /// Takes a connection or a datagram from a listener, without waiting for one.
    pub(crate) fn accept_from(&mut self, index: usize) -> io::Result<Accepted> {
        let listener = &self.listeners[index].socket;
        if let HandlerFactory::Datagram(_) = *self.core.service {
            let receiver = match &mut self.receiver {
                Some(receiver) => receiver,
                none => none.insert(self.settings.receiver(1)?),
            };
            receiver.receive(listener)?;
            let Some(Received { data, client_address, info }) = receiver.get(0) else {
                return Err(io::ErrorKind::WouldBlock.into());
            };
            let packet = DatagramBuf::new(data, self.settings.max_packet_size, listener, info);
            return Ok(self.enter(Arrival::Datagram(packet), client_address));
        }
        if self.core.registry().is_draining() {
            let queued = self.core.handle.next_queued();
            let (socket, client_address) = queued.ok_or(io::ErrorKind::WouldBlock)?;
            return Ok(self.enter(Arrival::Connection(socket), client_address));
        }
        match catch_panic(|| self.core.hooks.get_request(listener)) {
            Ok((socket, client_address)) => Ok(self.enter(Arrival::Connection(socket), client_address)),
            Err(RequestError::Panicked(message)) => {
                Err(io::Error::other(format!("get_request panicked: {message}")))
            }
            Err(
                RequestError::Failed(error)
                | RequestError::Rejected(error)
                | RequestError::TimedOut(_, error),
            ) => Err(error),
        }
    }

    /// Makes a job of a request that has been accepted.
    pub(crate) fn enter(&mut self, arrival: Arrival, client_address: Address) -> Accepted {
        let permits = &self.core.registry().permits;
        let (permit, is_over_limit) = match self.permit.take().or_else(|| permits.try_acquire()) {
            Some(permit) => (permit, false),
            None => (permits.acquire_over_limit(), true),
        };
        let (job, allowed) = Job::enter(&self.core, arrival, client_address, permit);
        Accepted { job, is_refused: is_over_limit || allowed.is_err() }
    }

    /// Returns the next pause. The error is logged, but not once for each pause.
    fn back_off(&mut self, error: io::Error) -> Duration {
        let delay = self.backoff.next_delay();
        self.notes.push(AcceptNote::BackOff(delay, error));
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_errors_are_classified() {
        let table = [
            ("EAGAIN", AcceptErrorKind::WouldBlock),
            ("EINTR", AcceptErrorKind::Transient),
            ("ECONNABORTED", AcceptErrorKind::Transient),
            ("EPERM", AcceptErrorKind::Transient),
            ("ENONET", AcceptErrorKind::Transient),
            ("EHOSTUNREACH", AcceptErrorKind::Transient),
            ("EMFILE", AcceptErrorKind::Exhausted),
            ("ENOMEM", AcceptErrorKind::Exhausted),
            ("EXDEV", AcceptErrorKind::Exhausted),
            ("EBADF", AcceptErrorKind::ListenerClosed),
            ("EINVAL", AcceptErrorKind::ListenerClosed),
        ];
        for (name, expected) in table {
            // Windows' numbers begin at 10,000, and it lacks a few.
            let Some(number) = (1..12_000).find(|&number| errno_name(number) == Some(name)) else {
                continue;
            };
            assert_eq!(classify_accept_error(&io::Error::from_raw_os_error(number)), expected, "{name}");
        }
        assert_eq!(classify_accept_error(&io::Error::other("a hook's own")), AcceptErrorKind::Transient);
        assert_eq!(
            classify_accept_error(&io::Error::from(io::ErrorKind::TimedOut)),
            AcceptErrorKind::WouldBlock
        );
    }
}
