//! SIGTERM and SIGINT: the first signal drains the server, the second stops it at once. SIGHUP,
//! SIGTTIN and SIGTTOU are orders about worker processes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use crossbeam_utils::atomic::AtomicCell;
use parking_lot::Mutex;
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTTIN, SIGTTOU};
use sock::{HoldRecords, MSG_PEEK, POLLIN, Poll, SHUT_RDWR, Socket, poll};

use crate::lifecycle::handle::ServerHandle;
use crate::os::bound_path::BoundPath;
use crate::os::exit_timer::{MIN_DISTANCE, peek, write_line};
use crate::os::interrupt::recv_uninterrupted;
use crate::os::log::{errno_field, milliseconds};
use crate::os::pair::pair;
use crate::os::process::{self, SignalOwner};
use crate::os::shortage;

pub(crate) use crate::os::process::UnblockedSignals;

/// How long the loop may take to return after a drain while a handler is still running.
const LOOP_EXIT_LIMIT: Duration = Duration::from_millis(250);

/// The same if no handler is running, so the loop is in a hook, or this process has had no time yet.
const HOOK_EXIT_LIMIT: Duration = Duration::from_secs(2);

/// How long the thread that receives signals may take after the limit of the drain. It ends the process
/// itself after at most [`HOOK_EXIT_LIMIT`], unless a hook or the logger does not return.
const WATCHER_EXIT_LIMIT: Duration = Duration::from_secs(5);

/// How often the exit guard looks whether the thread has returned, and for a second signal.
const GUARD_INTERVAL: Duration = Duration::from_millis(100);

/// How many signals are looked at that were not read.
const MAX_UNREAD: usize = 256;

/// Implements [`Builder::drain_on_signals`](crate::Builder::drain_on_signals).
///
/// The signal handler sends the signal's number through a socket pair, which is async-signal-safe
/// (signal-safety(7)). A thread receives it, or the accept loop if the server must not have threads.
pub(crate) struct Signals {
    /// How long to drain on SIGTERM and SIGINT, if they are caught.
    limit: Option<Duration>,
    /// SIGHUP, SIGTTIN and SIGTTOU are caught, for [`PreforkMixIn`](crate::PreforkMixIn).
    manages_workers: bool,
    /// Orders that have arrived. Held to add or take one.
    orders: Mutex<VecDeque<WorkerOrder>>,
    /// Receives one byte for each signal.
    receiver: Arc<Socket>,
    sender: Arc<Socket>,
    owner: Arc<SignalOwner>,
    ids: Vec<SigId>,
    /// The accept loop has received the first signal.
    received: AtomicBool,
    /// Which it was, and when.
    first: AtomicCell<Option<(&'static str, Instant)>>,
    /// Held to start the thread, to replace the socket pair in a forked child, and to take the handle.
    /// Under it a thread is started, which does not wait, and socketpair(2) is called, whose records are
    /// logged when it is released.
    watcher: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What a signal orders about worker processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerOrder {
    /// SIGHUP: all are replaced.
    Reload,
    /// SIGTTIN.
    Add,
    /// SIGTTOU.
    Remove,
}

/// The number of servers that manage workers on signals. At 0 these signals have their default
/// effect again.
static MANAGING: AtomicUsize = AtomicUsize::new(0);

/// The number of servers that catch signals. At 0 the signals terminate the process again.
static CATCHING: AtomicUsize = AtomicUsize::new(0);

impl Signals {
    /// Catches the signals until the returned value is dropped.
    pub(crate) fn catch(limit: Option<Duration>, manages_workers: bool) -> io::Result<Signals> {
        let (receiver, sender) = pair()?;
        let (receiver, sender) = (Arc::new(receiver), Arc::new(sender));
        CATCHING.fetch_add(usize::from(limit.is_some()), Ordering::SeqCst);
        MANAGING.fetch_add(usize::from(manages_workers), Ordering::SeqCst);
        let (received, watcher) = (AtomicBool::new(false), Mutex::new(None));
        let first = AtomicCell::new(None);
        let owner = Arc::new(SignalOwner::new());
        let (orders, ids) = (Mutex::default(), Vec::new());
        let mut signals = Signals {
            limit,
            manages_workers,
            orders,
            receiver,
            sender,
            owner,
            ids,
            received,
            first,
            watcher,
        };
        for signal in signals.caught() {
            // Before the handler is installed, because it looks at the current action.
            match order_of(signal) {
                None => process::default_unless(signal, || CATCHING.load(Ordering::SeqCst) > 0)?,
                Some(_) => process::default_unless(signal, || MANAGING.load(Ordering::SeqCst) > 0)?,
            }
            signals.ids.push(process::on_signal(
                signal,
                Arc::clone(&signals.sender),
                Arc::clone(&signals.owner),
            )?);
        }
        Ok(signals)
    }

    /// The signals that are caught.
    fn caught(&self) -> Vec<i32> {
        let drains: &[i32] = if self.limit.is_some() { &[SIGTERM, SIGINT] } else { &[] };
        let orders: &[i32] = if self.manages_workers { &[SIGHUP, SIGTTIN, SIGTTOU] } else { &[] };
        [drains, orders].concat()
    }

    /// Returns the next order about worker processes.
    pub(crate) fn next_order(&self) -> Option<WorkerOrder> {
        self.orders.lock().pop_front()
    }

    pub(crate) fn manages_workers(&self) -> bool {
        self.manages_workers
    }

    /// Returns how long a drain on a signal lasts, `None` if none is caught.
    pub(crate) fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Makes this process receive the signals, also if this thread has inherited that they are
    /// blocked. Called where serving begins, which may be in a child of the process that has made
    /// the server. A signal that has arrived before is received then.
    pub(crate) fn begin(&self) -> io::Result<UnblockedSignals> {
        self.take_over()?;
        UnblockedSignals::new(&self.caught())
    }

    /// Returns SIGTERM or SIGINT if it has arrived and was not read.
    pub(crate) fn unread(&self) -> Option<u8> {
        let numbers = is_readable(&self.receiver)
            .then(|| self.receiver.recv_with_flags(MAX_UNREAD, MSG_PEEK).ok())
            .flatten()?;
        numbers.into_iter().find(|number| order_of(i32::from(*number)).is_none())
    }

    /// Makes this worker process receive its own signals. Returns where each is received as a byte.
    pub(crate) fn enter_worker(&self) -> io::Result<Arc<Socket>> {
        self.take_over()?;
        Ok(Arc::clone(&self.receiver))
    }

    fn take_over(&self) -> io::Result<()> {
        let _held = HoldRecords::begin();
        let mut watcher = self.watcher.lock();
        if !self.owner.is_this_process() {
            process::renew_pair(&self.receiver, &self.sender)?;
            // The parent's thread does not exist here, so it is neither joined nor detached.
            std::mem::forget(watcher.take());
            self.received.store(false, Ordering::Relaxed);
            self.first.store(None);
            self.owner.take_over(&self.sender);
        }
        Ok(())
    }

    /// Starts the thread that drains the server on a signal, for servers that may have threads,
    /// unless it was started already.
    pub(crate) fn watch(&self, handle: &ServerHandle) -> io::Result<()> {
        let mut started = self.watcher.lock();
        if started.is_some() {
            return Ok(());
        }
        let Some(limit) = self.limit else { return Ok(()) };
        let (handle, receiver) = (handle.clone(), Arc::clone(&self.receiver));
        let watcher = thread::Builder::new().name("sockserver-signals".to_owned()).spawn(move || {
            // The guard is started before anything is logged, because the logger may block.
            let held = HoldRecords::begin();
            let Some(signal) = receive_signal(&receiver) else { return };
            let first = (signal, Instant::now());
            let guard = ExitGuard::start(&handle, limit, &receiver);
            drop(held);
            log::info!(
                signal = signal, limit_ms = milliseconds(limit);
                "{signal}: draining for up to {limit:?}"
            );
            if let Err(error) = &guard {
                log::warn!(
                    errno = errno_field(error);
                    "cannot limit the time of a hook or logger that does not return: {error}"
                );
            }
            let drained = handle.drain_while(limit, &|| is_second_signal(&receiver, first), &|| {});
            let report = match drained {
                Ok(report) => report,
                Err(error) => {
                    return log::error!(errno = errno_field(&error); "cannot drain: {error}");
                }
            };
            report.log();
            let has_handler = report.still_running > 0;
            let deadline = Instant::now() + if has_handler { LOOP_EXIT_LIMIT } else { HOOK_EXIT_LIMIT };
            while (has_handler || handle.is_serving()) && handle.stop_requested() {
                if Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                // The handler that is still running, or a hook, blocks the accept loop itself.
                log::error!(
                    status = 1;
                    "serve_forever did not return after the drain; exiting with status 1"
                );
                let paths = std::mem::take(&mut *handle.paths().lock());
                drop(paths);
                std::process::exit(1);
            }
        })?;
        *started = Some(watcher);
        Ok(())
    }

    /// Returns the entry for poll(2) with which the accept loop waits for signals.
    pub(crate) fn poll(&self) -> Poll<'_> {
        Poll::new(&*self.receiver, POLLIN)
    }

    /// Receives the first signal if there is one. The loop has to stop then.
    pub(crate) fn read_signals(&self) {
        while !self.received.load(Ordering::Relaxed) && is_readable(&self.receiver) {
            let Some(number) = receive_number(&self.receiver) else { return };
            if let Some(order) = order_of(number) {
                self.orders.lock().push_back(order);
                continue;
            }
            let signal = name_of(number);
            self.first.store(Some((signal, Instant::now())));
            let limit = self.limit.unwrap_or_default();
            log::info!(
                signal = signal, limit_ms = milliseconds(limit);
                "{signal}: draining for up to {limit:?}"
            );
            self.received.store(true, Ordering::Relaxed);
        }
    }

    /// Returns how long to drain, `None` if no signal was received.
    pub(crate) fn requested_drain(&self) -> Option<Duration> {
        self.limit.filter(|_| self.received.load(Ordering::Relaxed))
    }

    /// Returns whether another signal was received.
    pub(crate) fn second_signal(&self) -> bool {
        self.first.load().is_some_and(|first| is_second_signal(&self.receiver, first))
    }
}

/// Ends the process if the thread that carries out a signal does not return in time, until this is
/// dropped.
struct ExitGuard {
    /// Taken when the thread is to end.
    watcher_runs: Option<crossbeam_channel::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ExitGuard {
    /// Starts a thread that does not log and waits for no lock.
    fn start(handle: &ServerHandle, limit: Duration, receiver: &Arc<Socket>) -> io::Result<ExitGuard> {
        let (watcher_runs, has_returned) = crossbeam_channel::bounded(0);
        let (handle, receiver) = (handle.clone(), Arc::clone(receiver));
        let mut left = handle.registry().limits().lame_duck.saturating_add(limit);
        let thread = thread::Builder::new().name("sockserver-exit".to_owned()).spawn(move || {
            let mut unread = usize::MAX;
            let mut is_over = false;
            // Intervals are counted, so a process that was paused has its whole time.
            loop {
                if has_returned.recv_timeout(GUARD_INTERVAL) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
                left = left.saturating_sub(GUARD_INTERVAL);
                // The thread reads the second signal, unless it is blocked.
                let count = count_unread(&receiver);
                let is_hurried = count > unread;
                unread = count;
                match (left.is_zero() || is_hurried, is_over) {
                    (true, false) => (left, is_over) = (WATCHER_EXIT_LIMIT, true),
                    (true, true) if left.is_zero() => break,
                    _ => {}
                }
            }
            if let Some(paths) = handle.paths().try_lock() {
                paths.iter().for_each(BoundPath::remove_in_signal_handler);
            }
            write_line(
                "sockserver: a hook or the logger did not return after the drain; exiting with status 1\n",
            );
            process::_exit(1);
        })?;
        Ok(ExitGuard { watcher_runs: Some(watcher_runs), thread: Some(thread) })
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        drop(self.watcher_runs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns how many SIGTERM and SIGINT have arrived and were not read. It has no record in the trace.
fn count_unread(receiver: &Socket) -> usize {
    let mut unread = [0; MAX_UNREAD];
    let length = peek(receiver, &mut unread);
    unread[..length].iter().filter(|number| order_of(i32::from(**number)).is_none()).count()
}

/// Waits for a signal and returns its name, `None` if signals are no longer caught.
fn receive_signal(receiver: &Socket) -> Option<&'static str> {
    receive_number(receiver).map(name_of)
}

fn receive_number(receiver: &Socket) -> Option<i32> {
    match shortage::retry(|| recv_uninterrupted(receiver, 1)) {
        Ok(bytes) => bytes.first().map(|number| i32::from(*number)),
        Err(error) => {
            log::error!(
                errno = errno_field(&error);
                "cannot receive signals, the next ones are ignored: {error}"
            );
            None
        }
    }
}

/// Returns whether another signal was received. The same signal within [`MIN_DISTANCE`] is
/// discarded.
fn is_second_signal(receiver: &Socket, (signal, at): (&str, Instant)) -> bool {
    while is_readable(receiver) {
        let next = receiver.recv_with_flags(1, MSG_PEEK).ok();
        let next = next.and_then(|byte| byte.first().map(|number| i32::from(*number)));
        // An order about workers has no effect any more.
        let is_order = next.is_some_and(|number| order_of(number).is_some());
        let is_same = next.is_some_and(|number| name_of(number) == signal);
        if !is_order && (at.elapsed() >= MIN_DISTANCE || !is_same) {
            return true;
        }
        let _ = receiver.recv(1);
    }
    false
}

/// Returns whether a byte that was received stands for SIGTERM.
pub(crate) fn is_sigterm(byte: &[u8]) -> bool {
    byte.iter().any(|byte| i32::from(*byte) == SIGTERM)
}

fn name_of(number: i32) -> &'static str {
    if number == SIGTERM { "SIGTERM" } else { "SIGINT" }
}

fn order_of(number: i32) -> Option<WorkerOrder> {
    match number {
        SIGHUP => Some(WorkerOrder::Reload),
        SIGTTIN => Some(WorkerOrder::Add),
        SIGTTOU => Some(WorkerOrder::Remove),
        _ => None,
    }
}

fn is_readable(receiver: &Socket) -> bool {
    loop {
        match poll(&mut [Poll::new(receiver, POLLIN)], Some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => return polled.is_ok_and(|count| count > 0),
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        CATCHING.fetch_sub(usize::from(self.limit.is_some()), Ordering::SeqCst);
        MANAGING.fetch_sub(usize::from(self.manages_workers), Ordering::SeqCst);
        for id in &self.ids {
            signal_hook::low_level::unregister(*id);
        }
        let watcher = self.watcher.lock().take();
        if !self.owner.is_this_process() {
            // The pair and the thread belong to the parent.
            return std::mem::forget(watcher);
        }
        let _ = self.receiver.shutdown(SHUT_RDWR);
        if let Some(watcher) = watcher {
            if watcher.thread().id() != thread::current().id() {
                let _ = watcher.join();
            }
        }
    }
}
