//! Accepting: the wait, the errors sorted, the pauses.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sock::{Address, BorrowedFd, POLLIN, Poll, Socket, errno, errno_name};

use crate::hooks;
use crate::job::{Core, Job, Service};
use crate::limits::WhenFull;
use crate::mixin::MixIn;
use crate::registry::Permit;
use crate::request::{Request, RequestError, guard};
#[cfg(all(unix, feature = "signals"))]
use crate::signals::Signals;

/// First pause when resources have run out; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How many clients may be lost one after the other before the loop slows down.
const MOST_IN_A_ROW: u32 = 100;
/// Errors of one kind are logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The server's side of a loop: it waits, accepts and verifies; a
/// [`MixIn`] decides when and where what comes of it runs.
pub struct Acceptor<'a> {
    core: &'a Arc<Core>,
    listeners: &'a [Arc<Socket>],
    mixin: &'a dyn MixIn,
    settings: Settings,
    /// The listener whose turn it is: each gets its share.
    next: Cell<usize>,
    /// Listeners that are of no more use.
    gone: RefCell<Vec<bool>>,
    /// A permit for the next request, kept while nobody comes.
    permit: RefCell<Option<Permit>>,
    trouble: Cell<Trouble>,
    /// Pauses between requests that cannot be started.
    stuck: Cell<Trouble>,
    /// Whether somebody has overridden `service_actions`; found out by calling it.
    overridden: Cell<Option<bool>>,
    #[cfg(all(unix, feature = "signals"))]
    signals: Option<&'a Signals>,
}

/// What serving needs of the builder's class variables.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Not set: the mixin's.
    pub(crate) timeout: Option<Option<Duration>>,
    pub(crate) poll_interval: Duration,
    pub(crate) max_packet_size: usize,
}

/// Want of resources that goes on.
#[derive(Clone, Copy, Default)]
struct Trouble {
    pause: Duration,
    /// Clients that were lost since the last one that was not.
    in_a_row: u32,
    logged: Option<Instant>,
}

/// What an attempt to accept came to.
// A job is moved twice at most: a box would cost more.
#[allow(clippy::large_enum_variant)]
enum Accepted {
    Job(Job),
    /// Nobody is there.
    Nothing,
    /// A request that was refused, and is closed.
    Refused,
    /// That client is gone; there may be another.
    Again,
    /// Resources have run out: try again after this long.
    Pause(Duration),
    /// Every permit is taken.
    Full,
}

/// What an error of accept(2) means for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Nothing,
    Again,
    Pause,
    ListenerGone,
}

/// Sorts the errors of accept(2), and of recvfrom(2) on a datagram server.
///
/// Linux reports errors that are pending on the new connection, which are that
/// client's alone (accept(2), "Error handling"); running out of resources
/// passes, but not by trying again at once.
fn meaning(error: &io::Error) -> Meaning {
    let Some(number) = errno(error) else {
        return match error.kind() {
            // A listener that was given a timeout says so.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Meaning::Nothing,
            // No system call: a get_request that found fault with its client.
            _ => Meaning::Again,
        };
    };
    match errno_name(number) {
        Some("EAGAIN") => Meaning::Nothing,
        Some("EINTR" | "ECONNABORTED" | "ECONNRESET" | "EPROTO" | "EPERM") => Meaning::Again,
        Some(
            "ENETDOWN" | "ENOPROTOOPT" | "EHOSTDOWN" | "ENONET" | "EHOSTUNREACH" | "EOPNOTSUPP"
            | "ENETUNREACH" | "ETIMEDOUT" | "ECONNREFUSED",
        ) => Meaning::Again,
        Some("EBADF" | "ENOTSOCK" | "EINVAL") => Meaning::ListenerGone,
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever nobody has heard of.
        _ => Meaning::Pause,
    }
}

impl<'a> Acceptor<'a> {
    pub(crate) fn new(
        core: &'a Arc<Core>,
        listeners: &'a [Arc<Socket>],
        mixin: &'a dyn MixIn,
        settings: Settings,
    ) -> Acceptor<'a> {
        // Single requests take turns too.
        let turn = if listeners.len() > 1 { core.registry().stats().accepted } else { 0 };
        Acceptor {
            core,
            listeners,
            mixin,
            settings,
            next: Cell::new(turn as usize),
            gone: RefCell::new(vec![false; listeners.len()]),
            permit: RefCell::new(None),
            trouble: Cell::default(),
            stuck: Cell::default(),
            overridden: Cell::new(None),
            #[cfg(all(unix, feature = "signals"))]
            signals: None,
        }
    }

    /// Has the loop itself look for signals.
    #[cfg(all(unix, feature = "signals"))]
    pub(crate) fn watching(self, signals: Option<&'a Signals>) -> Acceptor<'a> {
        Acceptor { signals, ..self }
    }

    /// One turn of the loop: takes a request if one is there, else waits; hands
    /// it to the mixin; calls `service_actions`. Returns false when the server
    /// is to stop; a request is never accepted after that (bpo-35017).
    ///
    /// The wait also ends when a descriptor of `watch` becomes readable.
    ///
    /// # Errors
    ///
    /// The listener's, when it is of no more use.
    pub fn turn(&self, watch: &[BorrowedFd<'_>]) -> io::Result<bool> {
        if self.is_stopping() {
            return Ok(false);
        }
        let mut accepted = self.accept()?;
        if let Accepted::Nothing = accepted {
            self.wait(true, watch, self.idle_limit())?;
            if self.is_stopping() {
                return Ok(false);
            }
            accepted = self.accept()?;
        }
        match accepted {
            Accepted::Job(job) => {
                if let Some(pause) = self.process(job) {
                    self.core.registry().ask_to_be_woken();
                    self.wait(false, watch, Some(pause))?;
                }
            }
            Accepted::Nothing | Accepted::Refused | Accepted::Again => {}
            Accepted::Pause(pause) => {
                // A descriptor may be free before the pause is over.
                self.core.registry().ask_to_be_woken();
                self.wait(false, watch, Some(pause))?;
            }
            Accepted::Full => self.wait(false, watch, self.idle_limit())?,
        }
        self.service_actions();
        Ok(!self.is_stopping())
    }

    /// A turn that accepts nothing: waits for a descriptor of `watch`, up to
    /// `limit`, and lets clients wait in the listener's queue. Returns false when
    /// the server is to stop.
    ///
    /// # Errors
    ///
    /// Those of poll(2).
    pub fn rest(&self, watch: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<bool> {
        if !self.is_stopping() {
            let idle = self.idle_limit();
            self.wait(false, watch, limit.into_iter().chain(idle).min())?;
            self.service_actions();
        }
        Ok(!self.is_stopping())
    }

    /// Waits up to `timeout` for one request and hands it to the mixin, unless it
    /// is refused. Returns false when none came.
    pub(crate) fn one_request(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let due = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.mixin.service_actions();
        loop {
            if self.core.registry().is_draining() {
                return Ok(true);
            }
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            match self.accept()? {
                Accepted::Job(job) => {
                    self.process(job);
                    return Ok(true);
                }
                Accepted::Refused => return Ok(true),
                _ if left == Some(Duration::ZERO) => return Ok(false),
                Accepted::Again => {}
                Accepted::Nothing => self.wait(true, &[], left)?,
                Accepted::Full => self.wait(false, &[], left)?,
                Accepted::Pause(pause) => {
                    self.wait(false, &[], Some(left.map_or(pause, |left| left.min(pause))))?;
                }
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.core.handle.is_stopping() || self.core.registry().is_draining()
    }

    /// Takes a request from one of the listeners, if one is there, and verifies it.
    fn accept(&self) -> io::Result<Accepted> {
        let Some(permit) = self.take_permit() else {
            return Ok(Accepted::Full);
        };
        *self.permit.borrow_mut() = Some(permit);
        let count = self.listeners.len();
        let mut found = Accepted::Nothing;
        for _ in 0..count {
            let place = self.next.get() % count;
            self.next.set(place + 1);
            if count > 1 && self.gone.borrow()[place] {
                continue;
            }
            found = self.accept_from(place)?;
            if !matches!(found, Accepted::Nothing) {
                break;
            }
        }
        Ok(found)
    }

    /// A permit for a request that may come; beyond the limit one only to refuse it.
    fn take_permit(&self) -> Option<Permit> {
        let kept = self.permit.borrow_mut().take().filter(|permit| !permit.is_beyond_the_limit());
        let registry = self.core.registry();
        kept.or_else(|| match registry.limits.when_full {
            WhenFull::Wait => registry.permit(),
            WhenFull::Refuse => registry.try_permit().or_else(|| Some(registry.permit_to_refuse())),
        })
    }

    fn accept_from(&self, place: usize) -> io::Result<Accepted> {
        let listener = &self.listeners[place];
        let taken = match self.core.service {
            Service::Stream(_) => self.accept_connection(listener),
            Service::Datagram(_) => self.receive_datagram(listener),
        };
        let error = match taken {
            Ok((request, client_address)) => {
                self.trouble.take();
                return Ok(self.verify(request, client_address));
            }
            Err(error) => error,
        };
        match meaning(&error) {
            Meaning::Nothing => Ok(Accepted::Nothing),
            Meaning::Again => {
                log::debug!("client lost before it was accepted: {error}");
                self.core.registry().lost_before_accept();
                let mut trouble = self.trouble.get();
                trouble.in_a_row += 1;
                self.trouble.set(trouble);
                // So many clients in a row are no accident: better slow than spinning.
                if trouble.in_a_row > MOST_IN_A_ROW {
                    return Ok(Accepted::Pause(self.back_off(&error)));
                }
                Ok(Accepted::Again)
            }
            Meaning::Pause => Ok(Accepted::Pause(self.back_off(&error))),
            // A drain has shut it down: the loop sees that it is to stop.
            Meaning::ListenerGone if self.is_stopping() => Ok(Accepted::Nothing),
            Meaning::ListenerGone => self.lose(place, error),
        }
    }

    /// Goes on without a listener, if there is another.
    fn lose(&self, place: usize, error: io::Error) -> io::Result<Accepted> {
        let mut gone = self.gone.borrow_mut();
        gone[place] = true;
        if gone.iter().all(|gone| *gone) {
            return Err(error);
        }
        log::error!("listener {} of {} is gone, the others go on: {error}", place + 1, gone.len());
        Ok(Accepted::Again)
    }

    fn accept_connection(&self, listener: &Socket) -> io::Result<(Request, Address)> {
        let taken = guard(|| self.core.hooks.get_request(listener));
        match taken {
            Ok((socket, client_address)) => Ok((Request::accepted(socket), client_address)),
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

    fn receive_datagram(&self, listener: &Arc<Socket>) -> io::Result<(Request, Address)> {
        let (packet, client_address) = listener.recvfrom_nowait(self.settings.max_packet_size)?;
        Ok((Request::datagram(packet, Arc::clone(listener)), client_address))
    }

    fn verify(&self, request: Request, client_address: Address) -> Accepted {
        let registry = self.core.registry();
        let permit = self.permit.borrow_mut().take().unwrap_or_else(|| registry.permit_to_refuse());
        let too_many = permit.is_beyond_the_limit();
        let (entry, allowed) = registry.enter(client_address, permit);
        if too_many || allowed.is_err() {
            log::debug!("request from {} refused: too many connections", entry.client_address());
            Job::new(Arc::clone(self.core), request, entry).turn_away();
            return Accepted::Refused;
        }
        let verified = guard(|| Ok(self.core.hooks.verify_request(&request, entry.client_address())));
        let mut job = Job::new(Arc::clone(self.core), request, entry);
        match verified {
            Ok(true) => return Accepted::Job(job),
            Ok(false) => log::debug!("request from {} refused", job.client_address()),
            Err(error) => job.report(&error),
        }
        job.refuse();
        Accepted::Refused
    }

    /// Hands a job to the mixin. One that cannot be started is closed; how long to
    /// wait before the next comes back then, since threads or processes have run out.
    fn process(&self, job: Job) -> Option<Duration> {
        let Err(rejected) = self.mixin.process_request(job) else {
            self.stuck.take();
            return None;
        };
        Job::end_rejected(rejected);
        let mut stuck = self.stuck.get();
        stuck.pause = (stuck.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.stuck.set(stuck);
        Some(stuck.pause)
    }

    fn service_actions(&self) {
        self.mixin.service_actions();
        let run = guard(|| Ok(hooks::service_actions(&*self.core.hooks)));
        match run {
            Ok(overridden) => self.overridden.set(Some(overridden)),
            Err(error) => log::error!("service_actions {error}"),
        }
    }

    /// How long the loop may sleep: as long as nothing happens, unless somebody
    /// has overridden `service_actions`.
    fn idle_limit(&self) -> Option<Duration> {
        if self.overridden.get().is_none() {
            self.service_actions();
        }
        (self.overridden.get() == Some(true)).then_some(self.settings.poll_interval)
    }

    /// The next pause, and one line in the log, but not one for every pause.
    fn back_off(&self, error: &io::Error) -> Duration {
        let mut trouble = self.trouble.get();
        trouble.pause = (trouble.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        if trouble.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            log::warn!("accept: {error}; trying again in {:?}", trouble.pause);
            trouble.logged = Some(Instant::now());
        }
        self.trouble.set(trouble);
        trouble.pause
    }

    /// Sleeps until one of `watch`, or a listener if `accepting`, is readable, the
    /// server is to stop, or `limit` has passed.
    fn wait(&self, accepting: bool, watch: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<()> {
        let (waker, registry) = (self.core.handle.waker(), self.core.registry());
        let due = if registry.reaper.is_forbidden() { registry.next_due() } else { None };
        let gone = self.gone.borrow();
        let mut set = Vec::with_capacity(1 + self.listeners.len() + watch.len());
        set.push(waker.poll());
        if accepting {
            let there = self.listeners.iter().zip(&*gone).filter(|(_, gone)| !**gone);
            set.extend(there.map(|(listener, _)| Poll::new(listener, POLLIN)));
        }
        set.extend(watch.iter().map(|fd| Poll::new(fd, POLLIN)));
        #[cfg(all(unix, feature = "signals"))]
        set.extend(self.signals.map(Signals::poll));
        ignore_interrupt(sock::poll(&mut set, limit.into_iter().chain(due).min()))?;
        if set[0].revents() != 0 {
            waker.drain();
        }
        #[cfg(all(unix, feature = "signals"))]
        if let Some(signals) = self.signals {
            signals.notice();
            if signals.asked().is_some() {
                self.core.handle.request_shutdown()?;
            }
        }
        if due.is_some() {
            registry.reap();
        }
        Ok(())
    }
}

fn ignore_interrupt(polled: io::Result<usize>) -> io::Result<()> {
    match polled {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_errors_are_sorted() {
        let table = [
            ("EAGAIN", Meaning::Nothing),
            ("EINTR", Meaning::Again),
            ("ECONNABORTED", Meaning::Again),
            ("EPERM", Meaning::Again),
            ("ENONET", Meaning::Again),
            ("EHOSTUNREACH", Meaning::Again),
            ("EMFILE", Meaning::Pause),
            ("ENOMEM", Meaning::Pause),
            ("EXDEV", Meaning::Pause),
            ("EBADF", Meaning::ListenerGone),
            ("EINVAL", Meaning::ListenerGone),
        ];
        for (name, expected) in table {
            // Windows' numbers begin at 10,000, and it lacks a few.
            let Some(number) = (1..12_000).find(|&number| errno_name(number) == Some(name)) else {
                continue;
            };
            assert_eq!(meaning(&io::Error::from_raw_os_error(number)), expected, "{name}");
        }
        assert_eq!(meaning(&io::Error::other("a hook's own")), Meaning::Again);
        assert_eq!(meaning(&io::Error::from(io::ErrorKind::TimedOut)), Meaning::Nothing);
    }
}
