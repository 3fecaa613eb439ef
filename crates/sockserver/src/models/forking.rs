//! A child process for each request.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::{Address, AsFd, HoldRecords, POLLIN, Poll};

use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::{MixIn, Processes, WaitForProcess};
use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::scoreboard::Slot;
use crate::limits::DeadlineKind;
use crate::limits::drain_report::DrainReport;
use crate::limits::log_limit::{self, LogKind, log_limited};
use crate::limits::stats::Outcome;
use crate::models::worker_exit::{self, EXIT_LIMIT, LATE};
use crate::os::child_channel::{self, ChildChannel, ChildMessage, ServerId};
use crate::os::exit_timer;
use crate::os::guard::guard;
use crate::os::process::{self, Fork, Pid, WaitStatus};
use crate::os::shortage;
use crate::request::job::{Job, Rejected};

/// Serves each request in a child process of its own. Unix only.
///
/// Python: `socketserver.ForkingMixIn`. The child serves the request and exits. It never returns
/// into the loop, and runs no destructors of its parent. Its exit status is 0 after success, 1 if
/// the request failed, 74 if its client disconnected, 75 if it was refused, 76 if
/// [`worker_exit`](crate::ServerHooks::worker_exit) did not return, 101 after a panic, and 124 to
/// 130 after one of the deadlines. What a handler changes in memory is changed in the child only.
///
/// The mixin forks only while the process has no other thread, and returns an error otherwise. The
/// child of a process with threads inherits locks that other threads hold, and cannot release them.
///
/// Children are reaped soon after they exit. Children that other code in the process has started
/// are not touched.
///
/// To stop such a server on a signal, use
/// [`drain_on_signals`](crate::Builder::drain_on_signals). A program with signal handlers of its own
/// sets a flag in them, and checks it in [`service_actions`](crate::Builder::service_actions), which
/// calls `request_shutdown`. A second thread that waits for the signal would prevent forking.
///
/// # Platform notes
///
/// On Linux the number of threads comes from glibc or from `/proc/self/task`. If it is not known to
/// be one, the server refuses to fork. On other systems nothing is checked: start no other threads
/// there.
///
/// # Examples
///
/// ```
/// use sockserver::{ForkingMixIn, ForkingTCPServer, handler_fn};
///
/// let server = ForkingTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
///     .mixin(ForkingMixIn::new().max_children(10))
///     .bind(("127.0.0.1", 0))?;
/// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
/// server.handle_request()?;
/// assert_eq!(client.recv(100)?, b"hello");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct ForkingMixIn {
    max_children: usize,
    block_on_close: bool,
    /// Under it waitpid(2) is called with `WNOHANG`, and the address of a child's client is replaced,
    /// for which the registry's lock is taken. A client that exceeds a limit is shut down, and the
    /// record of that call is logged when the lock is released. Nothing else is logged, and no job is
    /// dropped.
    children: Mutex<Vec<Child>>,
    /// When waitpid(2) was called for every child the last time. Held together with
    /// `children`, and for the same calls.
    asked: Mutex<Option<Instant>>,
    /// Created with the first child. Held to read or replace the pointer.
    line: Mutex<Option<Arc<ChildChannel>>>,
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    /// Its request, which stays in the registry until the child has exited.
    job: Job,
    /// It has sent that it exits.
    ends: bool,
    /// The exit status that it has sent.
    status: Option<i32>,
    /// Other code of this process has reaped it. Its message is received in the next turn.
    is_gone: bool,
    /// Its place on the scoreboard, if one was free.
    place: Option<usize>,
}

/// Children of servers that were closed while they ran. Those that have exited are reaped when the
/// next server is closed, and the system reaps the others when this process exits.
static LEFT: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// How often waitpid(2) is called for every child. A child that was killed, or has replaced itself
/// by exec, sends no message at its exit.
const RECHECK: Duration = Duration::from_millis(100);

/// How many children have a slot on the scoreboard, for [`ServerHandle::worker_stats`].
const MAX_SLOTS: usize = 1024;

/// How soon waitpid(2) is called again for a child that has sent that it exits.
const MOMENT: Duration = Duration::from_millis(1);

/// Exit statuses of a child: Python's 0 and 1, that of a Rust program that panics, and that of
/// timeout(1).
const FAILED: i32 = 1;
const PANICKED: i32 = 101;
const TIMED_OUT: i32 = 124;
/// [`TIMED_OUT`] for [`DeadlineKind::ProxyHeader`], by its place in [`DEADLINES`].
const LATE_HEADER: i32 = TIMED_OUT + 6;
/// The exit status of a child that refused its request: `EX_TEMPFAIL` of sysexits.h.
const REJECTED: i32 = 75;
/// The exit status of a child whose client has disconnected: `EX_IOERR` of sysexits.h.
const DISCONNECTED: i32 = 74;

fn exit_status(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Finished => 0,
        Outcome::Panicked => PANICKED,
        Outcome::Rejected => REJECTED,
        Outcome::Disconnected => DISCONNECTED,
        Outcome::TimedOut(deadline) => {
            TIMED_OUT + DEADLINES.iter().position(|known| *known == deadline).unwrap_or(0) as i32
        }
        _ => FAILED,
    }
}

/// Logs that a child was killed by a signal, unless this process killed it because of a deadline
/// or at the end of a drain.
fn log_exit(pid: Pid, client_address: &Address, waited: WaitStatus, ended: Outcome) {
    match waited {
        WaitStatus::Killed(signal) if ended == Outcome::Failed => log_limited!(
            error,
            LogKind::Killed(signal),
            pid = pid, peer:% = client_address, signal = process::signal_name(signal);
            "child {pid} that served {client_address} was killed by signal {signal}"
        ),
        WaitStatus::Exited(LATE) => log_limited!(
            error,
            LogKind::Exited(LATE),
            pid = pid, peer:% = client_address, status = LATE;
            "child {pid} that served {client_address} did not return from worker_exit within {EXIT_LIMIT:?}"
        ),
        // Children inherit this window, so a later child does not log its error as well.
        WaitStatus::Exited(FAILED | PANICKED | REJECTED | LATE_HEADER) => {
            let _ = log_limit::check(LogKind::InChild, Instant::now());
        }
        _ => {}
    }
}

fn outcome(waited: WaitStatus) -> Outcome {
    match waited {
        WaitStatus::Exited(0) => Outcome::Finished,
        WaitStatus::Exited(PANICKED) => Outcome::Panicked,
        WaitStatus::Exited(REJECTED) => Outcome::Rejected,
        WaitStatus::Exited(DISCONNECTED) => Outcome::Disconnected,
        WaitStatus::Exited(status) => {
            let place = usize::try_from(status - TIMED_OUT).ok();
            let deadline = place.and_then(|place| DEADLINES.get(place));
            deadline.map_or(Outcome::Failed, |deadline| Outcome::TimedOut(*deadline))
        }
        // Killed, or reaped by other code.
        _ => Outcome::Failed,
    }
}

/// Deadlines by their exit status, from [`TIMED_OUT`] on.
const DEADLINES: [DeadlineKind; 7] = [
    DeadlineKind::Request,
    DeadlineKind::FirstByte,
    DeadlineKind::Idle,
    DeadlineKind::Read,
    DeadlineKind::Write,
    DeadlineKind::Wrap,
    DeadlineKind::ProxyHeader,
];

impl Default for ForkingMixIn {
    fn default() -> ForkingMixIn {
        ForkingMixIn {
            max_children: 40,
            block_on_close: true,
            children: Mutex::default(),
            asked: Mutex::default(),
            line: Mutex::default(),
        }
    }
}

impl ForkingMixIn {
    /// Creates the mixin with Python's defaults.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ForkingMixIn, ForkingTCPServer, handler_fn};
    ///
    /// let server = ForkingTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(ForkingMixIn::new())
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn new() -> ForkingMixIn {
        ForkingMixIn::default()
    }

    /// Sets how many children may run at once. Further clients wait in the listener's queue. Python:
    /// `max_children`, default 40. 0 counts as 1.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ForkingMixIn, ForkingTCPServer, handler_fn};
    ///
    /// let server = ForkingTCPServer::builder(handler_fn(|cx| cx.request.sendall(b"hello")))
    ///     .mixin(ForkingMixIn::new().max_children(10))           // max_children = 10
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(client.recv(100)?, b"hello");
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn max_children(mut self, max_children: usize) -> ForkingMixIn {
        self.max_children = max_children.max(1);
        self
    }

    /// Sets whether closing the server waits for the children. Python: `block_on_close`, default true.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ForkingMixIn, ForkingTCPServer, handler_fn};
    ///
    /// let server = ForkingTCPServer::builder(handler_fn(|cx| cx.request.recv(1).map(drop)))
    ///     .mixin(ForkingMixIn::new().block_on_close(false))      // block_on_close = False
    ///     .bind(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// // This returns, although the child still waits for the client.
    /// server.server_close()?;
    /// client.sendall(b"!")?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn block_on_close(mut self, block_on_close: bool) -> ForkingMixIn {
        self.block_on_close = block_on_close;
        self
    }

    /// Returns how many children have not been reaped yet. Python: `active_children`.
    ///
    /// # Examples
    ///
    /// ```
    /// use sockserver::{ForkingTCPServer, handler_fn};
    ///
    /// let server = ForkingTCPServer::new(("127.0.0.1", 0), handler_fn(|cx| cx.request.recv(1).map(drop)))?;
    /// let client = sock::create_connection(("127.0.0.1", server.server_address().port().unwrap()))?;
    /// server.handle_request()?;
    /// assert_eq!(server.mixin().active_children(), 1);           // len(server.active_children)
    /// client.sendall(b"!")?;
    /// server.server_close()?;
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn active_children(&self) -> usize {
        self.children.lock().len()
    }

    /// Reaps children that have exited. Python: `collect_children`.
    fn collect_children(&self) {
        self.poll_children();
        let mut children = self.children.lock();
        if children.is_empty() {
            return;
        }
        let mut asked = self.asked.lock();
        let asks_all = asked.is_none_or(|asked| asked.elapsed() >= RECHECK);
        if asks_all {
            *asked = Some(Instant::now());
        }
        let mut exited = Vec::new();
        let mut place = 0;
        while let Some(child) = children.get_mut(place) {
            let waited =
                if child.ends || asks_all { process::wait_child(child.pid) } else { WaitStatus::Running };
            let waited = match (waited, child.status) {
                (WaitStatus::Gone, Some(status)) => WaitStatus::Exited(status),
                (WaitStatus::Gone, None) if !child.is_gone => {
                    (child.ends, child.is_gone) = (true, true);
                    place += 1;
                    continue;
                }
                (waited, _) => waited,
            };
            if waited == WaitStatus::Running {
                // One that takes longer, because it was stopped, is checked less often.
                child.ends &= !asks_all;
                place += 1;
                continue;
            }
            exited.push((children.swap_remove(place), waited));
        }
        drop((children, asked));
        for (Child { pid, job, place, .. }, waited) in exited {
            if let (Some(place), Some(board)) = (place, job.core().registry().board()) {
                board.clear_child(place);
            }
            let client_address = job.client_address().clone();
            let ended = job.ended_in_child(outcome(waited));
            log_exit(pid, &client_address, waited, ended);
        }
    }

    /// Returns the channel to the children, and creates it for the first child.
    fn line(&self) -> io::Result<Arc<ChildChannel>> {
        let line = self.line.lock().clone();
        if let Some(line) = line {
            return Ok(line);
        }
        // A process without other threads forks, so no other thread creates one meanwhile.
        let new = Arc::new(ChildChannel::new()?);
        *self.line.lock() = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Shares the counters of the server and the limits of log lines with children, from the first one
    /// on. Returns the slot of the next child, and its place.
    fn share(&self, job: &Job) -> io::Result<Option<(usize, Slot)>> {
        log_limit::share_with_workers()?;
        let board = job.core().registry().share_stats(self.max_children.min(MAX_SLOTS))?;
        let mut is_taken = vec![false; board.places()];
        for place in self.children.lock().iter().filter_map(|child| child.place) {
            if let Some(is_taken) = is_taken.get_mut(place) {
                *is_taken = true;
            }
        }
        let place = is_taken.iter().position(|is_taken| !is_taken);
        Ok(place.map(|place| (place, board.slot(place))))
    }

    /// Returns how long the loop may wait for other events than a child's message.
    fn next_look(&self) -> Option<Duration> {
        let children = self.children.lock();
        let soonest = if children.iter().any(|child| child.ends) { MOMENT } else { RECHECK };
        (!children.is_empty()).then_some(soonest)
    }

    /// Waits until fewer than `max_children` run. It is for `handle_request`: `serve` accepts nothing
    /// while there are too many. Returns false if `wait` returns false.
    fn wait_for_room_with(&self, wait: &mut WaitForProcess<'_>) -> io::Result<bool> {
        while self.active_children() >= self.max_children {
            let line = self.line()?;
            let goes_on = wait(line.parent_end().as_fd(), self.next_look())?;
            self.collect_children();
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn wait_for_an_end(line: BorrowedFd<'_>, limit: Option<Duration>) -> io::Result<bool> {
    match sock::poll(&mut [Poll::new(&line, POLLIN)], limit) {
        Err(error) if shortage::is_shortage(&error) => shortage::pause(),
        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
        _ => {}
    }
    Ok(true)
}

impl MixIn for ForkingMixIn {
    fn process_request(&self, mut job: Job) -> Result<(), Rejected> {
        if let Err(error) = self.wait_for_room_with(&mut wait_for_an_end) {
            return Err(job.reject(error));
        }
        // Buffered output would be written by both processes.
        let _ = io::stdout().flush();
        let shared = self.share(&job).and_then(|slot| Ok((slot, self.line()?)));
        match shared.and_then(|(slot, line)| Ok((slot, line, process::fork()?))) {
            Err(error) => Err(job.reject(error)),
            Ok((slot, _, Fork::Parent(pid))) => {
                log::debug!(
                    pid = pid, peer:% = job.client_address();
                    "child {pid} serves {}", job.client_address()
                );
                job.leave_to_child(pid);
                let place = slot.map(|(place, slot)| {
                    slot.start_child(pid);
                    place
                });
                let child = Child { pid, job, ends: false, status: None, is_gone: false, place };
                self.children.lock().push(child);
                Ok(())
            }
            Ok((slot, line, Fork::Child)) => {
                if let Some((_, slot)) = slot {
                    job.core().registry().set_child_slot(slot);
                }
                serve_in_child(job, line)
            }
        }
    }

    fn serve(&self, accept_loop: &AcceptLoop<'_>) -> io::Result<()> {
        process::require_single_threaded()?;
        // Thread-local buffers are allocated once here, and not in every child.
        crate::connection::buffer_pool::prewarm();
        let line = self.line()?;
        let watch = [line.parent_end().as_fd()];
        loop {
            let goes_on = if self.active_children() >= self.max_children {
                accept_loop.wait_without_accepting(&watch, self.next_look())
            } else {
                accept_loop.run_once(&watch, self.next_look())
            };
            if !goes_on? {
                return Ok(());
            }
        }
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
                wait_for_an_end(self.line()?.parent_end().as_fd(), self.next_look())?;
                self.collect_children();
            }
        }
        let left = self.children.lock().split_off(0);
        let mut former = LEFT.lock();
        former.retain(|pid| process::wait_child(*pid) == WaitStatus::Running);
        former.extend(left.iter().map(|child| child.pid));
        drop(former);
        if !left.is_empty() && self.block_on_close {
            log::warn!(count = left.len(); "closed the server while {} children still run", left.len());
        }
        for child in left {
            // Its outcome is not known.
            child.job.ended_in_child(Outcome::Aborted);
        }
        Ok(())
    }

    fn forks(&self) -> bool {
        true
    }

    fn processes(&self) -> Option<&dyn Processes> {
        Some(self)
    }
}

impl Processes for ForkingMixIn {
    fn poll_children(&self) {
        let Some(line) = self.line.lock().clone() else { return };
        if self.children.lock().is_empty() {
            return;
        }
        let mut messages = Vec::new();
        line.drain_messages(|pid, message| messages.push((pid, message)));
        let mut refused = Vec::new();
        let held = HoldRecords::begin();
        let mut children = self.children.lock();
        for (pid, message) in messages {
            let Some(child) = children.iter_mut().find(|child| child.pid == pid) else { continue };
            match message {
                ChildMessage::Exiting(status) => (child.ends, child.status) = (true, Some(status.into())),
                ChildMessage::Proxied(client_address) => {
                    if !child.job.proxied_in_child(client_address) {
                        refused.push(child.job.client_address().clone());
                    }
                }
                ChildMessage::Wrapped(client_address) => {
                    if !child.job.wrapped_in_child(client_address) {
                        refused.push(child.job.client_address().clone());
                    }
                }
            }
        }
        drop(children);
        drop(held);
        for client_address in refused {
            log::debug!(
                peer:% = client_address, reason = "too many connections";
                "request from {client_address} refused: too many connections"
            );
        }
    }

    fn wait_for_room(&self, wait: &mut WaitForProcess<'_>) -> io::Result<bool> {
        self.wait_for_room_with(wait)
    }

    fn end_in_signal_handler(&self) -> bool {
        let Some(children) = self.children.try_lock() else { return false };
        children.iter().for_each(|child| exit_timer::kill_child(child.pid));
        true
    }

    fn drain_workers(&self, _: Duration, _: Duration, _: &dyn Fn() -> bool) -> Option<DrainReport> {
        None
    }

    /// Only the children know whether they are between two requests.
    fn close_idle(&self) {
        let line = self.line.lock().clone();
        if let Some(line) = line {
            line.close_for_children();
        }
    }
}

/// Runs the child. It ends in `_exit`: unwinding or returning would continue the parent's loop.
fn serve_in_child(mut job: Job, line: Arc<ChildChannel>) -> ! {
    // The parent serves the other clients that a drain has accepted.
    job.core().handle.queue().close();
    job.core().handle.duties().enter_child();
    log_limit::enter_child();
    let server = ServerId::of(job.core().registry());
    child_channel::enter_child(line, server);
    let outcome = guard(|| job.run_in_child()).unwrap_or(Outcome::Panicked);
    worker_exit::end_child(job.core());
    let status = exit_status(outcome);
    child_channel::send(server, &ChildMessage::Exiting(status as u8));
    process::_exit(status)
}
