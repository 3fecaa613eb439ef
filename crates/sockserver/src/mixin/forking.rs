//! A child process for each request.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::{Address, AsFd, MSG_DONTWAIT, POLLIN, Poll, Socket, socketpair};

use crate::accept::Acceptor;
use crate::flood::{self, Kind};
use crate::handle::ServerHandle;
use crate::job::{Job, Rejected};
use crate::limits::Deadline;
use crate::mixin::MixIn;
use crate::report::DrainReport;
use crate::stats::Outcome;
use crate::sys::{self, Fork, Pid, Waited};

/// Serves each request in a child process of its own. Unix only.
///
/// Python: `socketserver.ForkingMixIn`. The child serves the request and exits;
/// it never returns into the loop, runs no destructor of its parent's, and its
/// exit status is 0 if all went well, 1 if the request failed, 101 if it panicked. What a handler changes in memory
/// changes in the child only.
///
/// It forks only while no other thread runs in the process and fails with a
/// clear error otherwise: the child of a threaded process inherits the locks of
/// threads it does not have.
///
/// Children are collected when they end, whatever the loop waits for, and only
/// the mixin's own: those that other code in the process started are left to it.
///
/// To stop such a server on a signal, let the signal's handler set a flag and look
/// at it in [`service_actions`](crate::ServerHooks::service_actions), which calls
/// `request_shutdown`: a second thread to do it is what forking does not bear.
///
/// # Platform notes
///
/// Whether other threads run is known on Linux; elsewhere it is the caller's to
/// see to.
#[derive(Debug)]
pub struct ForkingMixIn {
    max_children: usize,
    block_on_close: bool,
    children: Mutex<Vec<Child>>,
    /// When every child was asked for last.
    asked: Mutex<Option<Instant>>,
    /// Those of the next child, made before its client is accepted: who has been
    /// accepted is served.
    next_lifelines: Mutex<Option<(Socket, Socket)>>,
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    /// Its request, whose line in the register stays until the child has ended.
    job: Job,
    /// Its other end is the child's alone: it reads the end of file when the
    /// child is gone, however that came.
    lifeline: Option<Arc<Socket>>,
}

impl Child {
    /// Whether it can be collected, whatever its line says: a daemon that the
    /// handler left may hold it.
    fn collected(&self) -> Option<Waited> {
        Some(sys::wait_child(self.pid)).filter(|waited| *waited != Waited::Running)
    }

    /// How the child has ended whose line says something; `None` while it is still at
    /// work. Its end of file comes moments before it can be collected.
    fn ended(&mut self) -> Option<Waited> {
        let said = self.lifeline.as_ref().map(|lifeline| lifeline.recv_with_flags(1, MSG_DONTWAIT));
        match said {
            Some(Ok(said)) if !said.is_empty() => {
                self.job.wrapped_in_child(&said);
                return None;
            }
            // Its end of file: it has ended, and can be collected in a moment.
            Some(Ok(_)) => {}
            None | Some(Err(_)) => return self.collected(),
        }
        for moment in 0..40 {
            let waited = sys::wait_child(self.pid);
            if waited != Waited::Running {
                return Some(waited);
            }
            if moment < 20 {
                thread::yield_now();
            } else {
                let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
            }
        }
        // It has become another program (exec). It is collected in a later turn;
        // to be woken by a line that is at its end would be to spin.
        self.lifeline = None;
        None
    }
}

/// How often every child is asked for: of one whose daemon holds the line nothing is heard.
const RECHECK: Duration = Duration::from_secs(1);

/// Whose line says something.
fn speaking(children: &[Child]) -> Vec<bool> {
    let mut set: Vec<_> = children
        .iter()
        .filter_map(|child| child.lifeline.as_deref())
        .map(|line| Poll::new(line, POLLIN))
        .collect();
    if set.is_empty() || sock::poll(&mut set, Some(Duration::ZERO)).is_err() {
        return vec![false; children.len()];
    }
    let mut polled = set.iter().map(|line| line.revents() != 0);
    children.iter().map(|child| child.lifeline.is_some() && polled.next() == Some(true)).collect()
}

/// Exit statuses of a child: Python's 0 and 1, that of a Rust program that
/// panics, and timeout(1)'s.
const FAILED: i32 = 1;
const PANICKED: i32 = 101;
const TIMED_OUT: i32 = 124;

fn exit_status(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Finished => 0,
        Outcome::Panicked => PANICKED,
        Outcome::TimedOut(deadline) => {
            TIMED_OUT + DEADLINES.iter().position(|known| *known == deadline).unwrap_or(0) as i32
        }
        _ => FAILED,
    }
}

/// Tells of a child that somebody has killed, unless it was us: for being late, or at
/// the end of a drain.
fn tell(pid: Pid, client_address: &Address, waited: Waited, ended: Outcome) {
    let now = Instant::now();
    match waited {
        Waited::Killed(signal) if ended == Outcome::Failed => {
            let what = format!("child {pid} that served {client_address} was killed by signal {signal}");
            match flood::tell(Kind::Killed(signal), now) {
                None => log::debug!("{what}"),
                Some(0) => log::error!("{what}"),
                Some(more) => log::error!("{what}, and {more} more before it"),
            }
        }
        // The next children know that this one has told its error.
        Waited::Exited(FAILED | PANICKED) => {
            let _ = flood::tell(Kind::InChild, now);
        }
        _ => {}
    }
}

fn outcome(waited: Waited) -> Outcome {
    match waited {
        Waited::Exited(0) => Outcome::Finished,
        Waited::Exited(PANICKED) => Outcome::Panicked,
        Waited::Exited(status) => {
            let place = usize::try_from(status - TIMED_OUT).ok();
            let deadline = place.and_then(|place| DEADLINES.get(place));
            deadline.map_or(Outcome::Failed, |deadline| Outcome::TimedOut(*deadline))
        }
        // Killed, or collected by somebody else.
        _ => Outcome::Failed,
    }
}

/// Deadlines by the exit status that tells of them, from [`TIMED_OUT`] on.
const DEADLINES: [Deadline; 6] = [
    Deadline::Request,
    Deadline::FirstByte,
    Deadline::Idle,
    Deadline::Read,
    Deadline::Write,
    Deadline::Wrap,
];

impl Default for ForkingMixIn {
    fn default() -> ForkingMixIn {
        ForkingMixIn {
            max_children: 40,
            block_on_close: true,
            children: Mutex::default(),
            asked: Mutex::default(),
            next_lifelines: Mutex::default(),
        }
    }
}

impl ForkingMixIn {
    /// With Python's defaults.
    #[must_use]
    pub fn new() -> ForkingMixIn {
        ForkingMixIn::default()
    }

    /// How many children may run at once; clients beyond that wait in the
    /// listener's queue. Python: `max_children`, default 40. 0 counts as 1.
    #[must_use]
    pub fn max_children(mut self, max_children: usize) -> ForkingMixIn {
        self.max_children = max_children.max(1);
        self
    }

    /// Whether closing the server waits for the children. Python:
    /// `block_on_close`, default true.
    #[must_use]
    pub fn block_on_close(mut self, block_on_close: bool) -> ForkingMixIn {
        self.block_on_close = block_on_close;
        self
    }

    /// How many children have not been collected yet. Python: `active_children`.
    #[must_use]
    pub fn active_children(&self) -> usize {
        self.children.lock().len()
    }

    /// Collects children that have ended. Python: `collect_children`.
    fn collect_children(&self) {
        let mut children = self.children.lock();
        // One call for all of them; now and then each is asked for.
        let mut asked = self.asked.lock();
        let asks = asked.is_none_or(|asked| asked.elapsed() >= RECHECK);
        if asks {
            *asked = Some(Instant::now());
        }
        let mut speaks = speaking(&children);
        let mut place = 0;
        while let Some(child) = children.get_mut(place) {
            let ended = if speaks[place] {
                child.ended()
            } else if asks || child.lifeline.is_none() {
                child.collected()
            } else {
                None
            };
            match ended {
                None => place += 1,
                Some(waited) => {
                    speaks.swap_remove(place);
                    let child = children.swap_remove(place);
                    let Child { pid, job, .. } = child;
                    let client_address = job.client_address().clone();
                    let ended = job.ended_in_child(outcome(waited));
                    tell(pid, &client_address, waited, ended);
                }
            }
        }
    }

    fn lifelines(&self) -> Vec<Arc<Socket>> {
        self.children.lock().iter().filter_map(|child| child.lifeline.clone()).collect()
    }

    fn prepare(&self) -> io::Result<()> {
        let mut next = self.next_lifelines.lock();
        if next.is_none() {
            *next = Some(socketpair()?);
        }
        Ok(())
    }

    /// How long to wait at most for room, since not every child tells its end.
    fn recheck(&self) -> Duration {
        let silent = self.children.lock().iter().any(|child| child.lifeline.is_none());
        if silent { RECHECK / 10 } else { RECHECK }
    }

    /// Waits until fewer than `max_children` run: for `handle_request`, since
    /// `serve` accepts nothing while there are too many.
    fn wait_for_room(&self) -> io::Result<()> {
        self.collect_children();
        while self.active_children() >= self.max_children {
            self.wait_for_an_end(Some(self.recheck()))?;
            self.collect_children();
        }
        Ok(())
    }

    fn wait_for_an_end(&self, limit: Option<Duration>) -> io::Result<()> {
        let lifelines = self.lifelines();
        let mut ends: Vec<_> = lifelines.iter().map(|lifeline| Poll::new(lifeline, POLLIN)).collect();
        match sock::poll(&mut ends, limit) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

impl MixIn for ForkingMixIn {
    fn process_request(&self, mut job: Job) -> Result<(), Rejected> {
        if let Err(error) = self.wait_for_room() {
            return Err(job.reject(error));
        }
        // What is printed but not yet written out would be written by both.
        let _ = io::stdout().flush();
        let lifelines = self.next_lifelines.lock().take().map_or_else(socketpair, Ok);
        match lifelines.and_then(|lifelines| Ok((lifelines, sys::fork()?))) {
            Err(error) => Err(job.reject(error)),
            Ok(((lifeline, _childs), Fork::Parent(pid))) => {
                log::debug!("child {pid} serves {}", job.client_address());
                let lifeline = Arc::new(lifeline);
                job.leave_to_child(pid, Arc::clone(&lifeline));
                self.children.lock().push(Child { pid, job, lifeline: Some(lifeline) });
                Ok(())
            }
            Ok(((_parents, lifeline), Fork::Child)) => serve_in_child(job, lifeline),
        }
    }

    fn serve(&self, acceptor: &Acceptor<'_>) -> io::Result<()> {
        sys::refuse_threads()?;
        // What a thread has to itself is set up here once, not in every child.
        crate::spare::warm_up();
        let served = loop {
            let lifelines = self.lifelines();
            let watch: Vec<_> = lifelines.iter().map(|lifeline| lifeline.as_fd()).collect();
            let turn = if self.active_children() >= self.max_children {
                acceptor.rest(&watch, Some(self.recheck()))
            } else if let Err(error) = self.prepare() {
                // Until a child ends its client waits in the listener's queue.
                if flood::tell(Kind::Accept(sock::errno(&error)), Instant::now()).is_some() {
                    log::warn!("no descriptors for a child: {error}");
                }
                acceptor.rest(&watch, Some(RECHECK / 10))
            } else {
                acceptor.turn(&watch)
            };
            match turn {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.next_lifelines.lock().take();
        served
    }

    fn service_actions(&self) {
        self.collect_children();
    }

    fn timeout(&self) -> Option<Duration> {
        Some(Duration::from_secs(300))
    }

    fn handle_timeout(&self) {
        self.collect_children();
    }

    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        self.collect_children();
        if self.block_on_close {
            let until = server.close_timeout().and_then(|limit| Instant::now().checked_add(limit));
            while self.active_children() > 0 && until.is_none_or(|until| Instant::now() < until) {
                self.wait_for_an_end(Some(CLOSE_LOOKS))?;
                self.collect_children();
            }
        }
        // What is left is let go: the system collects it when this process ends.
        let left = self.children.lock().split_off(0);
        if !left.is_empty() && self.block_on_close {
            log::warn!("closed while {} children still run", left.len());
        }
        Ok(())
    }

    fn forks(&self) -> bool {
        true
    }

    fn forks_for_each(&self) -> bool {
        true
    }

    /// Only the children know which of them are between two requests.
    fn drain_elsewhere(&self, _: Duration, _: &dyn Fn() -> bool) -> Option<DrainReport> {
        for lifeline in self.lifelines() {
            let _ = lifeline.send(b"d");
        }
        None
    }
}

/// How often closing looks whether its time is over.
const CLOSE_LOOKS: Duration = Duration::from_millis(100);

/// The child's whole life. It leaves through `exit_now` alone: unwinding or
/// returning would run its parent's loop a second time.
fn serve_in_child(mut job: Job, lifeline: Socket) -> ! {
    flood::enter_child();
    // Open until the process ends: its end is what the parent sees.
    crate::life::enter_child(lifeline);
    let outcome = match panic::catch_unwind(AssertUnwindSafe(|| job.run_to_the_end())) {
        Ok(outcome) => outcome,
        // The payload may panic once more when it is dropped.
        Err(payload) => {
            std::mem::forget(payload);
            Outcome::Panicked
        }
    };
    let _ = io::stdout().flush();
    sys::exit_now(exit_status(outcome))
}
