//! Accepting: the wait, the errors sorted, the pauses.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sock::{Address, BorrowedFd, POLLIN, Poll, Socket, errno, errno_name};

use crate::hooks;
use crate::job::{Core, Job, Service};
use crate::mixin::MixIn;
use crate::request::{Request, RequestError, guard};

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
    pub(crate) core: &'a Arc<Core>,
    pub(crate) listener: &'a Arc<Socket>,
    pub(crate) mixin: &'a dyn MixIn,
    pub(crate) max_packet_size: usize,
    pub(crate) poll_interval: Duration,
    trouble: Cell<Trouble>,
    /// Whether somebody has overridden `service_actions`; found out by calling it.
    overridden: Cell<Option<bool>>,
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
        listener: &'a Arc<Socket>,
        mixin: &'a dyn MixIn,
        max_packet_size: usize,
        poll_interval: Duration,
    ) -> Acceptor<'a> {
        let (trouble, overridden) = (Cell::default(), Cell::default());
        Acceptor { core, listener, mixin, max_packet_size, poll_interval, trouble, overridden }
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
            self.wait(Some(self.listener), watch, self.idle_limit())?;
            if self.is_stopping() {
                return Ok(false);
            }
            accepted = self.accept()?;
        }
        match accepted {
            Accepted::Job(job) => self.process(job),
            Accepted::Nothing | Accepted::Refused | Accepted::Again => {}
            Accepted::Pause(pause) => self.wait(None, watch, Some(pause))?,
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
            self.wait(None, watch, limit.into_iter().chain(idle).min())?;
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
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            match self.accept()? {
                Accepted::Job(job) => {
                    self.process(job);
                    return Ok(true);
                }
                Accepted::Refused => return Ok(true),
                _ if left == Some(Duration::ZERO) => return Ok(false),
                Accepted::Again => {}
                Accepted::Nothing => {
                    let mut set = [Poll::new(self.listener, POLLIN)];
                    ignore_interrupt(sock::poll(&mut set, left))?;
                }
                Accepted::Pause(pause) => {
                    let pause = left.map_or(pause, |left| left.min(pause));
                    ignore_interrupt(sock::poll(&mut [], Some(pause)))?;
                }
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.core.handle.is_stopping()
    }

    /// Takes a request from the listener, if one is there, and verifies it.
    fn accept(&self) -> io::Result<Accepted> {
        let taken = match self.core.service {
            Service::Stream(_) => self.accept_connection(),
            Service::Datagram(_) => self.receive_datagram(),
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
            Meaning::ListenerGone => Err(error),
        }
    }

    fn accept_connection(&self) -> io::Result<(Request, Address)> {
        let taken = guard(|| self.core.hooks.get_request(self.listener));
        match taken {
            Ok((socket, client_address)) => Ok((Request::accepted(socket), client_address)),
            Err(RequestError::Failed(error) | RequestError::Rejected(error)) => Err(error),
            Err(RequestError::Panicked(message)) => {
                Err(io::Error::other(format!("get_request panicked: {message}")))
            }
        }
    }

    fn receive_datagram(&self) -> io::Result<(Request, Address)> {
        let (packet, client_address) = self.listener.recvfrom_nowait(self.max_packet_size)?;
        Ok((Request::datagram(packet, Arc::clone(self.listener)), client_address))
    }

    fn verify(&self, request: Request, client_address: Address) -> Accepted {
        let verified = guard(|| Ok(self.core.hooks.verify_request(&request, &client_address)));
        let mut job = Job::new(Arc::clone(self.core), request, client_address);
        match verified {
            Ok(true) => return Accepted::Job(job),
            Ok(false) => log::debug!("request from {} refused", job.client_address()),
            Err(error) => job.report(&error),
        }
        // Dropped, the job is shut down and closed.
        Accepted::Refused
    }

    fn process(&self, job: Job) {
        if let Err(rejected) = self.mixin.process_request(job) {
            Job::end_rejected(rejected);
        }
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
        (self.overridden.get() == Some(true)).then_some(self.poll_interval)
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

    /// Sleeps until the listener, if given, or one of `watch` is readable, the
    /// server is to stop, or `limit` has passed.
    fn wait(
        &self,
        listener: Option<&Arc<Socket>>,
        watch: &[BorrowedFd<'_>],
        limit: Option<Duration>,
    ) -> io::Result<()> {
        let waker = self.core.handle.waker();
        let mut set = Vec::with_capacity(2 + watch.len());
        set.push(waker.poll());
        set.extend(listener.map(|listener| Poll::new(listener, POLLIN)));
        set.extend(watch.iter().map(|fd| Poll::new(fd, POLLIN)));
        ignore_interrupt(sock::poll(&mut set, limit))?;
        if set[0].revents() != 0 {
            waker.drain();
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
