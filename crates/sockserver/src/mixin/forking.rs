//! A child process for each request.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sock::{AsFd, POLLIN, Poll, Socket, socketpair};

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
    lifeline: Arc<Socket>,
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
        self.children.lock().retain(|child| sys::wait_child(child.pid, block) == Waited::Running);
    }

    fn lifelines(&self) -> Vec<Arc<Socket>> {
        self.children.lock().iter().map(|child| Arc::clone(&child.lifeline)).collect()
    }

    /// Waits until fewer than `max_children` run: for `handle_request`, since
    /// `serve` accepts nothing while there are too many.
    fn wait_for_room(&self) -> io::Result<()> {
        self.collect_children(false);
        while self.active_children() >= self.max_children {
            let lifelines = self.lifelines();
            let mut ends: Vec<_> = lifelines.iter().map(|lifeline| Poll::new(lifeline, POLLIN)).collect();
            match sock::poll(&mut ends, None) {
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
                self.children.lock().push(Child { pid, lifeline: Arc::new(lifeline) });
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
            let goes_on = if watch.len() < self.max_children {
                acceptor.turn(&watch)?
            } else {
                acceptor.rest(&watch)?
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
    let served = panic::catch_unwind(AssertUnwindSafe(|| job.run())).unwrap_or(false);
    let _ = io::stdout().flush();
    sys::exit_now(if served { 0 } else { 1 })
}
