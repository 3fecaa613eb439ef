//! A child process for each request.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use sock::{AsFd, MSG_DONTWAIT, POLLIN, Poll, Socket, socketpair};

use crate::accept::Acceptor;
use crate::job::{Job, Rejected};
use crate::mixin::MixIn;
use crate::sys::{self, Fork, Pid, Waited};

/// Serves each request in a child process of its own. Unix only.
///
/// Python: `socketserver.ForkingMixIn`. The child serves the request and exits;
/// it never returns into the loop, runs no destructor of its parent's, and its
/// exit status is 1 if the request failed. What a handler changes in memory
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
}

#[derive(Debug)]
struct Child {
    pid: Pid,
    /// Its other end is the child's alone: it reads the end of file when the
    /// child is gone, however that came.
    lifeline: Option<Arc<Socket>>,
}

impl Child {
    /// Whether the child, which cannot be collected yet, is still at work. Its
    /// end of file comes moments before it can be.
    fn still_runs(&mut self) -> bool {
        let gone = |lifeline: &Arc<Socket>| {
            lifeline.recv_with_flags(1, MSG_DONTWAIT).is_ok_and(|data| data.is_empty())
        };
        if !self.lifeline.as_ref().is_some_and(gone) {
            return true;
        }
        for moment in 0..40 {
            if moment < 20 {
                thread::yield_now();
            } else {
                let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
            }
            if sys::wait_child(self.pid, false) != Waited::Running {
                return false;
            }
        }
        // It has become another program (exec). It is collected in a later turn;
        // to be woken by a line that is at its end would be to spin.
        self.lifeline = None;
        true
    }
}

impl Default for ForkingMixIn {
    fn default() -> ForkingMixIn {
        ForkingMixIn { max_children: 40, block_on_close: true, children: Mutex::default() }
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

    /// Collects children that have ended; with `block` waits for all. Python:
    /// `collect_children`.
    fn collect_children(&self, block: bool) {
        self.children.lock().retain_mut(|child| match sys::wait_child(child.pid, block) {
            Waited::Running => child.still_runs(),
            Waited::Ended | Waited::Gone => false,
        });
    }

    fn lifelines(&self) -> Vec<Arc<Socket>> {
        self.children.lock().iter().filter_map(|child| child.lifeline.clone()).collect()
    }

    /// How long to wait at most for room, since not every child tells its end.
    fn recheck(&self) -> Option<Duration> {
        let silent = self.children.lock().iter().any(|child| child.lifeline.is_none());
        silent.then_some(Duration::from_millis(100))
    }

    /// Waits until fewer than `max_children` run: for `handle_request`, since
    /// `serve` accepts nothing while there are too many.
    fn wait_for_room(&self) -> io::Result<()> {
        self.collect_children(false);
        while self.active_children() >= self.max_children {
            let lifelines = self.lifelines();
            let mut ends: Vec<_> = lifelines.iter().map(|lifeline| Poll::new(lifeline, POLLIN)).collect();
            match sock::poll(&mut ends, self.recheck()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => self.collect_children(false),
            }
        }
        Ok(())
    }
}

impl MixIn for ForkingMixIn {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        if let Err(error) = self.wait_for_room() {
            return Err(job.reject(error));
        }
        // What is printed but not yet written out would be written by both.
        let _ = io::stdout().flush();
        let forked = socketpair().and_then(|lifelines| Ok((lifelines, sys::fork()?)));
        match forked {
            Err(error) => Err(job.reject(error)),
            Ok(((lifeline, _childs), Fork::Parent(pid))) => {
                log::debug!("child {pid} serves {}", job.client_address());
                job.close_in_parent();
                self.children.lock().push(Child { pid, lifeline: Some(Arc::new(lifeline)) });
                Ok(())
            }
            Ok((_lifelines, Fork::Child)) => serve_in_child(job),
        }
    }

    fn serve(&self, acceptor: &Acceptor<'_>) -> io::Result<()> {
        sys::refuse_threads()?;
        loop {
            let lifelines = self.lifelines();
            let watch: Vec<_> = lifelines.iter().map(|lifeline| lifeline.as_fd()).collect();
            let goes_on = if self.active_children() < self.max_children {
                acceptor.turn(&watch)?
            } else {
                acceptor.rest(&watch, self.recheck())?
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    fn service_actions(&self) {
        self.collect_children(false);
    }

    fn timeout(&self) -> Option<Duration> {
        Some(Duration::from_secs(300))
    }

    fn handle_timeout(&self) {
        self.collect_children(false);
    }

    fn server_close(&self) -> io::Result<()> {
        self.collect_children(self.block_on_close);
        Ok(())
    }
}

/// The child's whole life. It leaves through `exit_now` alone: unwinding or
/// returning would run its parent's loop a second time.
fn serve_in_child(job: Job) -> ! {
    let served = match panic::catch_unwind(AssertUnwindSafe(|| job.run())) {
        Ok(served) => served,
        // The payload may panic once more when it is dropped.
        Err(payload) => {
            std::mem::forget(payload);
            false
        }
    };
    let _ = io::stdout().flush();
    sys::exit_now(if served { 0 } else { 1 })
}
