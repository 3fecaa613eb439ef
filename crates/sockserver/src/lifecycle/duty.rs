//! What a server does beside serving requests: a handover, messages to the service manager.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use sock::{POLLIN, Poll, Socket};

use crate::lifecycle::handle::ServerHandle;
use crate::lifecycle::keep_running::keep_running;
use crate::os::log::errno_field;
use crate::os::shortage;
use crate::os::waker::Waker;

/// Something that a server does beside serving. No call may wait.
pub(crate) trait Duty: Send {
    /// Adds the sockets that the duty receives from, and returns when it has to run at the latest.
    fn waits_for(&self, _sockets: &mut Vec<Arc<Socket>>) -> Option<Instant> {
        None
    }

    /// Does what is due.
    fn run(&mut self, _server: &ServerHandle) -> Next {
        Next::Continue
    }

    /// The loop runs and is able to accept. It may be held.
    fn ready(&mut self, _server: &ServerHandle) {}

    /// The loop accepts.
    fn serving(&mut self, _server: &ServerHandle) {}

    /// The loop has ended.
    fn stopped(&mut self, _server: &ServerHandle) {}

    /// This process is a child that serves requests of the server. Closes its copies of sockets: the
    /// other end would not see that the server has died, and a new server would connect to the child.
    fn enter_child(&mut self) {}
}

/// What follows from a turn of a duty.
pub(crate) enum Next {
    Continue,
    /// Call the hooks of the lame duck, which has begun.
    LameDuck,
    /// Drain the server within this time.
    Drain(Duration),
    /// Stop the server with this error.
    Fail(io::Error),
}

/// The duties of a server. A thread runs them, or the accept loop of a server that forks.
#[derive(Default)]
pub(crate) struct Duties {
    has_any: AtomicBool,
    /// How far the loop is: see [`Duty::ready`] and [`Duty::serving`].
    stage: AtomicU8,
    /// Held to read and change the fields, and while the duties add what they wait for. A thread that
    /// runs the duties takes them out before: see [`Turn`]. They make system calls and log, and a
    /// logger is code of the user, which may stop the server.
    state: Mutex<State>,
    /// When a loop that runs the duties itself has done so the last time. Held to copy it.
    last_run: Mutex<Option<Instant>>,
    /// Held to start the thread, which does not wait, and to copy or take what belongs to it.
    thread: Mutex<Option<DutyThread>>,
}

#[derive(Default)]
struct State {
    /// Empty while a thread runs them.
    list: Vec<Box<dyn Duty>>,
    is_running: bool,
    /// What the duties are to be informed of, in its order.
    events: VecDeque<Event>,
    /// The duties have ended. A thread that still runs them drops them.
    is_closed: bool,
    drain: Option<Duration>,
    failed: Option<io::Error>,
}

/// What happens to the loop.
#[derive(Clone, Copy)]
enum Event {
    Ready,
    Serving,
    Stopped,
}

/// The duties, while a thread runs them without a lock. Dropping it puts them back, also in a panic.
struct Turn<'a> {
    duties: &'a Duties,
    list: Vec<Box<dyn Duty>>,
}

impl Turn<'_> {
    /// Informs the duties of what has happened, and puts them back when there is nothing more.
    fn end(mut self, server: &ServerHandle) {
        loop {
            let mut state = self.duties.state.lock();
            let Some(event) = state.events.pop_front() else {
                self.put_back(state);
                return;
            };
            drop(state);
            for duty in &mut self.list {
                match event {
                    Event::Ready => duty.ready(server),
                    Event::Serving => duty.serving(server),
                    Event::Stopped => duty.stopped(server),
                }
            }
        }
    }

    fn put_back(&mut self, mut state: MutexGuard<'_, State>) {
        if !std::mem::replace(&mut state.is_running, false) {
            return;
        }
        let mut list = std::mem::take(&mut self.list);
        if !state.is_closed {
            list.append(&mut state.list);
            state.list = std::mem::take(&mut list);
        }
        drop(state);
        drop(list);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // It has no effect after `end`, unless another thread has begun a turn.
        if !self.list.is_empty() {
            self.put_back(self.duties.state.lock());
        }
    }
}

struct DutyThread {
    /// The process that has started it.
    pid: u32,
    waker: Arc<Waker>,
    is_closed: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const SERVING: u8 = 2;

/// How often a loop that is not ready yet is asked whether it is.
const READY_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How often a busy loop runs the duties.
const BUSY_INTERVAL: Duration = Duration::from_millis(20);

impl Duties {
    pub(crate) fn add(&self, duty: Box<dyn Duty>) {
        self.state.lock().list.push(duty);
        self.has_any.store(true, Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        !self.has_any.load(Ordering::Acquire)
    }

    /// Starts the thread, unless there is one or nothing to do.
    pub(crate) fn start_thread(&self, server: &ServerHandle) -> io::Result<()> {
        let own = std::process::id();
        let has_thread =
            |thread: &Option<DutyThread>| thread.as_ref().is_some_and(|thread| thread.pid == own);
        if self.is_empty() || has_thread(&self.thread.lock()) {
            return Ok(());
        }
        // Without the lock: the call can be logged.
        let (waker, is_closed) = (Arc::new(Waker::new()?), Arc::new(AtomicBool::new(false)));
        let mut thread = self.thread.lock();
        if has_thread(&thread) {
            // Another thread has begun it meanwhile. The waker is closed without the lock.
            drop(thread);
            return Ok(());
        }
        // That of the parent does not exist here.
        std::mem::forget(thread.take());
        let (server, wakes, closed) = (server.clone(), Arc::clone(&waker), Arc::clone(&is_closed));
        let run = move || {
            let mut has_drained = false;
            keep_running(|| run_thread(&server, &wakes, &closed, &mut has_drained));
        };
        let handle = thread::Builder::new().name("sockserver-duties".to_owned()).spawn(run)?;
        *thread = Some(DutyThread { pid: own, waker, is_closed, handle });
        Ok(())
    }

    /// Adds what a loop waits for that runs the duties itself. Returns for how long it may wait.
    pub(crate) fn waits_for(&self, sockets: &mut Vec<Arc<Socket>>) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let state = self.state.lock();
        let due = state.list.iter().filter_map(|duty| duty.waits_for(sockets)).min();
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Returns for how long a loop may wait that is not known to be ready yet.
    pub(crate) fn ready_limit(&self) -> Option<Duration> {
        let is_known = self.is_empty() || self.stage.load(Ordering::Relaxed) == SERVING;
        (!is_known).then_some(READY_POLL_INTERVAL)
    }

    #[cfg(test)]
    pub(super) fn are_locked(&self) -> bool {
        self.state.is_locked()
    }

    /// Takes the duties out, unless another thread, or this one further out, has.
    fn begin_turn(&self) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_running, true) {
            return None;
        }
        Some(Turn { duties: self, list: std::mem::take(&mut state.list) })
    }

    /// Informs the duties. If another thread runs them, it does.
    fn inform(&self, server: &ServerHandle, event: Event) {
        self.state.lock().events.push_back(event);
        if let Some(turn) = self.begin_turn() {
            turn.end(server);
        }
        // The thread may have looked for what they wait for while they were taken out.
        self.wake();
    }

    /// Runs the duties once. Returns whether the server has to drain, and for how long.
    pub(crate) fn run(&self, server: &ServerHandle) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        // Another thread that runs them looks at their sockets again afterwards.
        let Some(mut turn) = self.begin_turn() else { return self.requested_drain() };
        let (mut stops, mut is_lame) = (false, false);
        for duty in &mut turn.list {
            match duty.run(server) {
                Next::Continue => {}
                Next::LameDuck => is_lame = true,
                Next::Drain(limit) => self.state.lock().drain = Some(limit),
                Next::Fail(error) => {
                    self.state.lock().failed.get_or_insert(error);
                    stops = true;
                }
            }
        }
        turn.end(server);
        let drain = self.requested_drain();
        if is_lame {
            // It calls code of the user.
            let _ = server.begin_lame_duck();
        }
        if stops {
            let _ = server.request_shutdown();
        }
        drain
    }

    /// Runs the duties unless that was a short time ago, in a loop that is busy.
    pub(crate) fn run_at_intervals(&self, server: &ServerHandle) -> Option<Duration> {
        if self.is_empty() {
            return None;
        }
        let mut last = self.last_run.lock();
        if last.is_some_and(|last| last.elapsed() < BUSY_INTERVAL) {
            drop(last);
            return self.requested_drain();
        }
        *last = Some(Instant::now());
        drop(last);
        self.run(server)
    }

    /// The drain that a duty has requested.
    pub(crate) fn requested_drain(&self) -> Option<Duration> {
        if self.is_empty() { None } else { self.state.lock().drain }
    }

    /// Informs the duties how far the loop is. Called in each turn of the loop.
    pub(crate) fn loop_turn(&self, server: &ServerHandle, is_ready: impl FnOnce() -> bool) {
        if self.is_empty() || self.stage.load(Ordering::Relaxed) == SERVING {
            return;
        }
        if self.stage.load(Ordering::Relaxed) == STARTING && is_ready() {
            self.stage.store(READY, Ordering::Relaxed);
            self.inform(server, Event::Ready);
        }
        if self.stage.load(Ordering::Relaxed) == READY && !server.holds_accept() {
            self.stage.store(SERVING, Ordering::Relaxed);
            self.inform(server, Event::Serving);
        }
    }

    /// Informs the duties that the loop has ended, and returns the error of one that has failed.
    pub(crate) fn loop_ended(&self, server: &ServerHandle) -> Option<io::Error> {
        if self.is_empty() {
            return None;
        }
        self.stage.store(STARTING, Ordering::Relaxed);
        self.inform(server, Event::Stopped);
        self.state.lock().failed.take()
    }

    /// Ends all duties in a child that was forked to serve requests.
    pub(crate) fn enter_child(&self) {
        if !self.is_empty() {
            self.has_any.store(false, Ordering::Release);
            let list = std::mem::take(&mut self.state.lock().list);
            list.into_iter().for_each(|mut duty| duty.enter_child());
        }
    }

    /// Ends all duties.
    pub(crate) fn close(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            if thread.pid != std::process::id() {
                std::mem::forget(thread);
            } else {
                thread.is_closed.store(true, Ordering::Release);
                thread.waker.wake();
                if thread.handle.thread().id() != thread::current().id() {
                    let _ = thread.handle.join();
                }
            }
        }
        let mut state = self.state.lock();
        state.is_closed = true;
        let list = std::mem::take(&mut state.list);
        drop(state);
        drop(list);
        self.has_any.store(false, Ordering::Release);
    }

    /// Makes the thread look at what the duties wait for.
    fn wake(&self) {
        let waker = self.thread.lock().as_ref().map(|thread| Arc::clone(&thread.waker));
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn run_thread(server: &ServerHandle, waker: &Waker, is_closed: &AtomicBool, has_drained: &mut bool) {
    let duties = server.duties();
    while !is_closed.load(Ordering::Acquire) {
        let mut sockets = Vec::new();
        let mut limit = duties.waits_for(&mut sockets);
        if !*has_drained && duties.requested_drain().is_some() {
            limit = limit.into_iter().chain(server.lame_duck_of_duties()).min();
        }
        let mut set = vec![waker.poll()];
        set.extend(sockets.iter().map(|socket| Poll::new(&**socket, POLLIN)));
        match sock::poll(&mut set, limit) {
            Ok(_) if set[0].revents() != 0 => waker.drain(),
            Err(error) if shortage::is_shortage(&error) => shortage::pause(),
            _ => {}
        }
        let Some(limit) = duties.run(server) else { continue };
        // No thread could be started for the drain, and this one goes on with the duties.
        if !*has_drained && server.lame_duck_of_duties().is_none() {
            *has_drained = true;
            match server.drain_for_successor(limit) {
                Ok(report) => report.log(),
                Err(error) => log::error!(errno = errno_field(&error); "cannot drain: {error}"),
            }
        }
    }
}
