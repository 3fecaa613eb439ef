//! A child process for each request.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::{Address, AsFd, POLLIN, Poll};

use crate::accept::mixin::AcceptLoop;
use crate::accept::mixin::{MixIn, Processes};
use crate::lifecycle::handle::ServerHandle;
use crate::limits::DeadlineKind;
use crate::limits::drain_report::DrainReport;
use crate::limits::stats::Outcome;
use crate::os::child_channel::{self, ChildChannel, ChildMessage};
use crate::os::process::{self, Fork, Pid, WaitStatus};
use crate::request::job::{Job, Rejected};
use crate::request::log_limit::{self, LogKind, log_limited};

/// Serves each request in a child process of its own. Unix only.
///
/// Python: `socketserver.ForkingMixIn`. The child serves the request and exits. It never returns
/// into the loop, and runs no destructors of its parent. Its exit status is 0 after success, 1 if
/// the request failed, 75 if it was refused, and 101 after a panic. What a handler changes in
/// memory is changed in the child only.
///
/// The mixin forks only while the process has no other thread, and returns an error otherwise. The
/// child of a process with threads inherits locks that other threads hold, and cannot release them.
///
/// Children are reaped soon after they exit. Children that other code in the process has started
/// are not touched.
///
/// To stop such a server on a signal, let the signal handler set a flag, and let
/// [`service_actions`](crate::Builder::service_actions) check the flag and call `request_shutdown`.
/// A second thread that waits for the signal would prevent forking.
///
/// # Platform notes
///
/// On Linux the number of threads comes from glibc or from `/proc/self/task`. If it is not known to
/// be one, the server refuses to fork. On other systems nothing is checked: start no other threads
/// there.
#[derive(Debug)]
pub struct ForkingMixIn {
    max_children: usize,
    block_on_close: bool,
    children: Mutex<Vec<Child>>,
    /// When waitpid(2) was called for every child the last time.
    asked: Mutex<Option<Instant>>,
    /// Created with the first child.
    line: Mutex<Option<Arc<ChildChannel>>>,
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    /// Its request, which stays in the registry until the child has exited.
    job: Job,
    /// It has sent that it exits.
    ends: bool,
}

/// How often waitpid(2) is called for every child. A child that was killed, or has replaced itself
/// by exec, sends no message at its exit.
const RECHECK: Duration = Duration::from_millis(100);

/// How soon waitpid(2) is called again for a child that has sent that it exits.
const MOMENT: Duration = Duration::from_millis(1);

/// Exit statuses of a child: Python's 0 and 1, that of a Rust program that panics, and that of
/// timeout(1).
const FAILED: i32 = 1;
const PANICKED: i32 = 101;
const TIMED_OUT: i32 = 124;
/// The exit status of a child that refused its request: `EX_TEMPFAIL` of sysexits.h.
const REJECTED: i32 = 75;

fn exit_status(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Finished => 0,
        Outcome::Panicked => PANICKED,
        Outcome::Rejected => REJECTED,
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
            "child {pid} that served {client_address} was killed by signal {signal}"
        ),
        // Children inherit this window, so a later child does not log its error as well.
        WaitStatus::Exited(FAILED | PANICKED) => {
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
const DEADLINES: [DeadlineKind; 6] = [
    DeadlineKind::Request,
    DeadlineKind::FirstByte,
    DeadlineKind::Idle,
    DeadlineKind::Read,
    DeadlineKind::Write,
    DeadlineKind::Wrap,
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
    #[must_use]
    pub fn new() -> ForkingMixIn {
        ForkingMixIn::default()
    }

    /// Sets how many children may run at once. Further clients wait in the listener's queue. Python:
    /// `max_children`, default 40. 0 counts as 1.
    #[must_use]
    pub fn max_children(mut self, max_children: usize) -> ForkingMixIn {
        self.max_children = max_children.max(1);
        self
    }

    /// Sets whether closing the server waits for the children. Python: `block_on_close`, default true.
    #[must_use]
    pub fn block_on_close(mut self, block_on_close: bool) -> ForkingMixIn {
        self.block_on_close = block_on_close;
        self
    }

    /// Returns how many children have not been reaped yet. Python: `active_children`.
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
        let mut place = 0;
        while let Some(child) = children.get_mut(place) {
            let waited =
                if child.ends || asks_all { process::wait_child(child.pid) } else { WaitStatus::Running };
            if waited == WaitStatus::Running {
                // One that takes longer, because it was stopped, is checked less often.
                child.ends &= !asks_all;
                place += 1;
                continue;
            }
            let Child { pid, job, .. } = children.swap_remove(place);
            let client_address = job.client_address().clone();
            let ended = job.ended_in_child(outcome(waited));
            log_exit(pid, &client_address, waited, ended);
        }
    }

    /// Returns the channel to the children, and creates it for the first child.
    fn line(&self) -> io::Result<Arc<ChildChannel>> {
        let mut line = self.line.lock();
        if let Some(line) = &*line {
            return Ok(Arc::clone(line));
        }
        let new = Arc::new(ChildChannel::new()?);
        *line = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Returns how long the loop may wait for other events than a child's message.
    fn next_look(&self) -> Option<Duration> {
        let children = self.children.lock();
        let soonest = if children.iter().any(|child| child.ends) { MOMENT } else { RECHECK };
        (!children.is_empty()).then_some(soonest)
    }

    /// Waits until fewer than `max_children` run. It is for `handle_request`: `serve` accepts nothing
    /// while there are too many.
    fn wait_for_room(&self) -> io::Result<()> {
        while self.active_children() >= self.max_children {
            self.wait_for_an_end()?;
            self.collect_children();
        }
        Ok(())
    }

    fn wait_for_an_end(&self) -> io::Result<()> {
        let line = self.line()?;
        match sock::poll(&mut [Poll::new(line.parent_end(), POLLIN)], self.next_look()) {
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
        // Buffered output would be written by both processes.
        let _ = io::stdout().flush();
        match self.line().and_then(|line| Ok((line, process::fork()?))) {
            Err(error) => Err(job.reject(error)),
            Ok((_, Fork::Parent(pid))) => {
                log::debug!("child {pid} serves {}", job.client_address());
                job.leave_to_child(pid);
                self.children.lock().push(Child { pid, job, ends: false });
                Ok(())
            }
            Ok((line, Fork::Child)) => serve_in_child(job, line),
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
                self.wait_for_an_end()?;
                self.collect_children();
            }
        }
        // The system reaps the other children when this process exits.
        let left = self.children.lock().split_off(0);
        if !left.is_empty() && self.block_on_close {
            log::warn!("closed while {} children still run", left.len());
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
        let Some(line) = &*self.line.lock() else { return };
        let mut children = self.children.lock();
        if children.is_empty() {
            return;
        }
        line.drain_messages(|pid, word| {
            let Some(child) = children.iter_mut().find(|child| child.pid == pid) else { return };
            match word {
                ChildMessage::Exiting => child.ends = true,
                ChildMessage::Wrapped(client_address) => child.job.wrapped_in_child(client_address),
            }
        });
    }

    /// Only the children know whether they are between two requests.
    fn drain_workers(&self, _: Duration, _: &dyn Fn() -> bool) -> Option<DrainReport> {
        if let Some(line) = &*self.line.lock() {
            line.close_for_children();
        }
        None
    }
}

/// Runs the child. It ends in `_exit`: unwinding or returning would continue the parent's loop.
fn serve_in_child(mut job: Job, line: Arc<ChildChannel>) -> ! {
    log_limit::enter_child();
    child_channel::enter_child(line);
    let outcome = match panic::catch_unwind(AssertUnwindSafe(|| job.run_in_child())) {
        Ok(outcome) => outcome,
        // The payload may panic when it is dropped.
        Err(payload) => {
            std::mem::forget(payload);
            Outcome::Panicked
        }
    };
    let _ = io::stdout().flush();
    child_channel::send(&ChildMessage::Exiting);
    process::_exit(exit_status(outcome))
}
