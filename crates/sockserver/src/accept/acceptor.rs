//! The acceptor of a server: taking a request from a listener, with the errors sorted.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sock::{Address, Socket, errno, errno_name};

use crate::connection::datagram::DatagramBuf;
use crate::lifecycle::current_server::ServingThread;
use crate::lifecycle::registry::log_end;
use crate::limits::WhenFull;
use crate::limits::permits::Permit;
use crate::limits::stats::Outcome;
use crate::request::core::{Core, HandlerFactory, MakeDatagramHandler};
use crate::request::datagram_batch::{self, DatagramReceiver};
use crate::request::datagram_handler;
use crate::request::hooks::call_handle_error;
use crate::request::job::{Job, RecycledJob, Rejected};
use crate::request::log_limit::{self, LogKind};
use crate::request::{Arrival, RequestError, catch_panic};

/// First pause when resources have run out; it doubles up to [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1);
/// How many clients may be lost one after the other before the loop slows down.
const MAX_CONSECUTIVE_ERRORS: u32 = 100;

/// Takes requests, one at a time, for one thread; another thread has its own.
pub(crate) struct Acceptor {
    core: Arc<Core>,
    listeners: Vec<Arc<Socket>>,
    settings: Settings,
    /// Datagrams are served as they come: see [`serve_inline`](Self::serve_inline).
    serves_inline: bool,
    /// The listener whose turn it is: each gets its share.
    next_listener: Cell<usize>,
    current_listener: Cell<usize>,
    /// Datagrams of each listener that came together.
    incoming: Vec<RefCell<DatagramReceiver>>,
    /// Listeners that are of no more use.
    disabled: Vec<Cell<bool>>,
    /// A permit for the next request, kept while nobody comes.
    permit: Cell<Option<Permit>>,
    /// A job that has ended in this thread: the next one.
    spare: Cell<Option<RecycledJob>>,
    accept_backoff: Cell<Backoff>,
    /// Pauses between requests that cannot be started.
    spawn_backoff: Cell<Backoff>,
}

/// What serving needs of the builder's class variables.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Not set: the mixin's.
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) poll_interval: Duration,
    pub(crate) max_packet_size: usize,
    pub(crate) max_batch: usize,
}

/// Want of resources that goes on.
#[derive(Clone, Copy, Default)]
struct Backoff {
    delay: Duration,
    /// Clients that were lost since the last one that was not.
    consecutive_errors: u32,
}

/// What an attempt to accept came to.
pub(crate) enum Accepted {
    Job(Job),
    /// A datagram that has been served already.
    ServedInline,
    /// Nobody is there.
    WouldBlock,
    /// A request that was refused, and is closed.
    Refused,
    /// That client is gone; there may be another.
    Retry,
    /// Resources have run out: try again after this long.
    Backoff(Duration),
    /// Every permit is taken.
    AtCapacity,
}

/// What an error of accept(2) means for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptErrorKind {
    WouldBlock,
    Transient,
    Exhausted,
    ListenerClosed,
}

/// Sorts the errors of accept(2), and of recvfrom(2) on a datagram server.
///
/// Linux reports errors that are pending on the new connection, which are that
/// client's alone (accept(2), "Error handling"); running out of resources
/// passes, but not by trying again at once.
fn classify_accept_error(error: &io::Error) -> AcceptErrorKind {
    // The thread has been called out of accept(2): nobody came.
    if sock::was_interrupted(error) {
        return AcceptErrorKind::WouldBlock;
    }
    let Some(number) = errno(error) else {
        return match error.kind() {
            // A listener that was given a timeout says so.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AcceptErrorKind::WouldBlock,
            // No system call: a get_request that found fault with its client.
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
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever nobody has heard of.
        _ => AcceptErrorKind::Exhausted,
    }
}

impl Acceptor {
    pub(crate) fn new(core: &Arc<Core>, listeners: &[Arc<Socket>], settings: Settings) -> Acceptor {
        // Single requests take turns too.
        let turn = if listeners.len() > 1 { core.registry().stats().accepted } else { 0 };
        Acceptor {
            core: Arc::clone(core),
            listeners: listeners.to_vec(),
            settings,
            serves_inline: false,
            next_listener: Cell::new(turn as usize),
            current_listener: Cell::new(0),
            incoming: listeners.iter().map(|_| RefCell::default()).collect(),
            disabled: vec![Cell::new(false); listeners.len()],
            permit: Cell::new(None),
            spare: Cell::new(None),
            accept_backoff: Cell::default(),
            spawn_backoff: Cell::default(),
        }
    }

    /// The acceptor of a loop that does nothing with a job but run it: a datagram needs none,
    /// unless a hook or a limit has a say.
    pub(crate) fn with_inline_datagrams(self) -> Acceptor {
        let needs_no_job = matches!(*self.core.service, HandlerFactory::Datagram(_))
            && !self.core.has_hooks
            && self.core.registry().limits().max_connections_per_ip.is_none();
        Acceptor { serves_inline: needs_no_job, ..self }
    }

    /// A acceptor to the same listeners for another thread.
    pub(crate) fn clone_for_thread(&self) -> Acceptor {
        Acceptor::new(&self.core, &self.listeners, self.settings)
    }

    /// A acceptor to the same listeners for another process.
    pub(crate) fn clone_for_process(&self, core: &Arc<Core>) -> Acceptor {
        Acceptor::new(core, &self.listeners, self.settings)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.core.handle.is_stopping() || self.core.registry().is_draining()
    }

    /// The listeners that are still of use.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Arc<Socket>> {
        self.listeners
            .iter()
            .zip(&self.disabled)
            .filter(|(_, gone)| !gone.get())
            .map(|(listener, _)| listener)
    }

    /// The listeners that are of no more use.
    pub(crate) fn disabled_listeners(&self) -> impl Iterator<Item = &Arc<Socket>> {
        self.listeners
            .iter()
            .zip(&self.disabled)
            .filter(|(_, gone)| gone.get())
            .map(|(listener, _)| listener)
    }

    /// Whether to wait for a client is accept(2)'s own business, where one listener for
    /// connections is all there is to wait for.
    pub(crate) fn set_blocking_accept(&self, wait: bool) -> io::Result<()> {
        match (&*self.core.service, &self.listeners[..]) {
            (HandlerFactory::Stream(_), [listener]) => listener.setblocking(wait),
            _ => Ok(()),
        }
    }

    /// Whether another request may come in now.
    pub(crate) fn has_permits(&self) -> bool {
        self.core.registry().permits.available()
    }

    /// Closes a job that could not be started. Returns how long to wait before the
    /// next, since threads or processes have run out.
    pub(crate) fn reject(&self, rejected: Rejected) -> Duration {
        // Its own end must not wake the loop from the pause it is the reason for.
        self.core.registry().permits.unregister_waiter();
        Job::end_rejected(rejected);
        let mut stuck = self.spawn_backoff.get();
        stuck.delay = (stuck.delay * 2).clamp(FIRST_DELAY, MAX_DELAY);
        self.spawn_backoff.set(stuck);
        stuck.delay
    }

    /// Runs what serves a request in this thread, and keeps what the next one can use.
    pub(crate) fn serving<T>(&self, serve: impl FnOnce() -> T) -> T {
        let (served, spare) = RecycledJob::after(serve);
        self.keep(spare);
        served
    }

    /// Keeps a job that has ended for the next request, and its permit.
    pub(crate) fn keep(&self, spare: Option<RecycledJob>) {
        if let Some(mut spare) = spare.filter(|spare| spare.is_of(&self.core)) {
            self.permit.set(spare.take_permit().filter(|_| self.waits_when_full()));
            self.spare.set(Some(spare));
        }
    }

    /// Runs what serves a request, and sends the answers to a batch of datagrams
    /// when the last of it has been served.
    pub(crate) fn batching<T>(&self, serve: impl FnOnce() -> T) -> T {
        if self.settings.max_batch <= 1 {
            return serve();
        }
        let served = datagram_batch::with_deferred_answers(serve);
        if !self.has_more() {
            // Whichever listener it was: a batch is of one alone.
            datagram_batch::flush(&self.listeners[self.current_listener.get()], &*self.core.hooks);
        }
        served
    }

    /// Whether datagrams have been received that nobody has served yet.
    pub(crate) fn has_more(&self) -> bool {
        self.incoming[self.current_listener.get()].borrow().has_more()
    }

    /// Notes that a job could be started.
    pub(crate) fn reset_spawn_backoff(&self) {
        self.spawn_backoff.take();
    }

    /// Takes a request from one of the listeners, if one is there, and verifies it.
    pub(crate) fn accept(&self) -> io::Result<Accepted> {
        if self.waits_when_full() && !self.reserve_permit() {
            return Ok(Accepted::AtCapacity);
        }
        let count = self.listeners.len();
        let mut found = Accepted::WouldBlock;
        for _ in 0..count {
            // A batch is served to its end before another listener has its turn.
            let place = match count {
                1 => 0,
                _ if self.has_more() => self.current_listener.get(),
                _ => self.next_listener.get() % count,
            };
            self.next_listener.set(place + 1);
            self.current_listener.set(place);
            if self.disabled[place].get() {
                continue;
            }
            found = self.accept_from(place)?;
            if !matches!(found, Accepted::WouldBlock) {
                break;
            }
        }
        Ok(found)
    }

    fn waits_when_full(&self) -> bool {
        self.core.registry().limits().when_full == WhenFull::Wait
    }

    /// Takes a permit for a request that may come; false when all are taken.
    ///
    /// Not where requests beyond the limit are refused: one that is kept by a worker whom
    /// nobody comes to would have another one refused.
    fn reserve_permit(&self) -> bool {
        let permit = self.permit.take().or_else(|| self.core.registry().permits.acquire());
        let has_one = permit.is_some();
        self.permit.set(permit);
        has_one
    }

    fn accept_from(&self, place: usize) -> io::Result<Accepted> {
        let listener = &self.listeners[place];
        if let Some(pause) = self.core.registry().permits.accept_pause() {
            return Ok(Accepted::Backoff(pause));
        }
        if !self.accept_backoff.get().delay.is_zero() {
            // Asked before the attempt: a descriptor that is freed during it counts.
            self.core.registry().permits.register_waiter();
        }
        let accepted = match &*self.core.service {
            HandlerFactory::Stream(_) => self.accept_connection(listener),
            HandlerFactory::Datagram(make) => self.receive_datagram(&**make, place, listener),
        };
        let error = match accepted {
            Ok(accepted) => {
                // Trouble that comes and goes is one trouble for the log.
                self.accept_backoff.take();
                return Ok(accepted);
            }
            Err(error) => error,
        };
        match classify_accept_error(&error) {
            AcceptErrorKind::WouldBlock => Ok(Accepted::WouldBlock),
            AcceptErrorKind::Transient => {
                log::debug!("client lost before it was accepted: {error}");
                self.core.registry().lost_before_accept();
                let mut trouble = self.accept_backoff.get();
                trouble.consecutive_errors += 1;
                self.accept_backoff.set(trouble);
                // So many clients in a row are no accident: better slow than spinning.
                if trouble.consecutive_errors > MAX_CONSECUTIVE_ERRORS {
                    return Ok(Accepted::Backoff(self.next_delay(&error)));
                }
                Ok(Accepted::Retry)
            }
            AcceptErrorKind::Exhausted => Ok(Accepted::Backoff(self.next_delay(&error))),
            // A drain has shut it down: the loop sees that it is to stop.
            AcceptErrorKind::ListenerClosed if self.is_stopping() => Ok(Accepted::WouldBlock),
            AcceptErrorKind::ListenerClosed => self.disable_listener(place, error),
        }
    }

    /// Goes on without a listener, if there is another.
    fn disable_listener(&self, place: usize, error: io::Error) -> io::Result<Accepted> {
        self.disabled[place].set(true);
        if self.listeners().next().is_none() {
            return Err(error);
        }
        // Each worker finds out for itself.
        if log_limit::check(LogKind::Lost(place), Instant::now()).is_some() {
            log::error!(
                "listener {} of {} is gone, the others go on: {error}",
                place + 1,
                self.disabled.len()
            );
        }
        Ok(Accepted::Retry)
    }

    fn accept_connection(&self, listener: &Socket) -> io::Result<Accepted> {
        let taken = catch_panic(|| self.core.hooks.get_request(listener));
        match taken {
            Ok((socket, client_address)) => Ok(self.verify(Arrival::Connection(socket), client_address)),
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

    fn receive_datagram(
        &self,
        make: &MakeDatagramHandler,
        place: usize,
        listener: &Arc<Socket>,
    ) -> io::Result<Accepted> {
        let Settings { max_packet_size, max_batch, .. } = self.settings;
        // One byte more than is wanted tells whether there was more.
        let size = max_packet_size.saturating_add(1);
        let (mut packet, client_address) =
            self.incoming[place].borrow_mut().take(listener, size, max_batch)?;
        packet.truncate(max_packet_size);
        let serve = || self.serve_inline(make, listener, &packet, &client_address);
        if self.serves_inline && self.batching(serve) {
            return Ok(Accepted::ServedInline);
        }
        packet.set_socket(listener);
        Ok(self.verify(Arrival::Datagram(packet), client_address))
    }

    /// Serves a datagram without a job: nobody but this loop has to do with it. False if
    /// another loop does so at the moment.
    fn serve_inline(
        &self,
        make: &MakeDatagramHandler,
        socket: &Socket,
        packet: &DatagramBuf,
        client_address: &Address,
    ) -> bool {
        let registry = self.core.registry();
        let Some(number) = registry.begin_inline(client_address) else {
            return false;
        };
        let serving = ServingThread::begin(registry);
        let outcome = match datagram_handler::serve(make, packet, socket, client_address, &self.core.handle)
        {
            Ok(()) => Outcome::Finished,
            Err(error) => {
                call_handle_error(&*self.core.hooks, &error, client_address);
                error.outcome()
            }
        };
        drop(serving);
        log_end(number, client_address, registry.end_inline(outcome));
        true
    }

    fn verify(&self, arrival: Arrival, client_address: Address) -> Accepted {
        let permits = &self.core.registry().permits;
        let (permit, too_many) = match self.permit.take().or_else(|| permits.try_acquire()) {
            Some(permit) => (permit, false),
            None => (permits.acquire_over_limit(), true),
        };
        let (mut job, allowed) = match self.spare.take() {
            Some(spare) => spare.renew(arrival, client_address, permit),
            None => Job::enter(&self.core, arrival, client_address, permit),
        };
        if too_many || allowed.is_err() {
            log::debug!("request from {} refused: too many connections", job.client_address());
            job.refuse_with_hook();
            return Accepted::Refused;
        }
        match job.verify() {
            Ok(true) => return Accepted::Job(job),
            Ok(false) => log::debug!("request from {} refused", job.client_address()),
            Err(error) => job.report(&error),
        }
        job.close_unserved();
        Accepted::Refused
    }

    /// The next pause, and one line in the log, but not one for every pause.
    fn next_delay(&self, error: &io::Error) -> Duration {
        let mut trouble = self.accept_backoff.get();
        trouble.delay = (trouble.delay * 2).clamp(FIRST_DELAY, MAX_DELAY);
        // Other workers stand at the same listeners, and have the same trouble.
        if log_limit::check(LogKind::Accept(errno(error)), Instant::now()).is_some() {
            log::warn!("accept: {error}; trying again in {:?}", trouble.delay);
        }
        self.accept_backoff.set(trouble);
        trouble.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_errors_are_sorted() {
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
