//! SIGTERM and SIGINT: the first drains, the second stops now.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use sock::{POLLIN, Poll, SHUT_RDWR, Socket, poll, socketpair};

use crate::lifecycle::handle::ServerHandle;
use crate::os::bound_path::BoundPath;
use crate::os::process;

/// How long the loop may take to return after a drain that left a handler behind.
const LOOP_EXIT_LIMIT: Duration = Duration::from_millis(250);

/// What was asked for by [`Builder::drain_on_signals`](crate::Builder::drain_on_signals).
///
/// A signal handler writes the signal's number into a pair of sockets: that much
/// it may do (signal-safety(7)). The other end is read by a thread of ours, or by
/// the loop of a server that must not have threads.
pub(crate) struct Signals {
    limit: Duration,
    /// One byte for each signal that came.
    came: Arc<Socket>,
    ids: Vec<SigId>,
    /// The loop has seen the first signal.
    noticed: AtomicBool,
    watcher: Mutex<Option<thread::JoinHandle<()>>>,
}

/// How many servers catch signals. Without one the signals end the process again.
static CATCHING: AtomicUsize = AtomicUsize::new(0);

impl Signals {
    /// Catches the signals, from now on and until it is dropped.
    pub(crate) fn catch(limit: Duration) -> io::Result<Signals> {
        let (came, told) = socketpair()?;
        let (came, told) = (Arc::new(came), Arc::new(told));
        CATCHING.fetch_add(1, Ordering::SeqCst);
        let (noticed, watcher) = (AtomicBool::new(false), Mutex::new(None));
        let mut signals = Signals { limit, came, ids: Vec::new(), noticed, watcher };
        for signal in [SIGTERM, SIGINT] {
            // The first time: later it is no default that would be replaced.
            process::default_unless(signal, || CATCHING.load(Ordering::SeqCst) > 0)?;
            signals.ids.push(process::on_signal(signal, Arc::clone(&told))?);
        }
        Ok(signals)
    }

    /// Starts the thread that drains, for servers that may have threads.
    pub(crate) fn watch(&self, handle: ServerHandle, paths: Arc<Mutex<Vec<BoundPath>>>) -> io::Result<()> {
        let (limit, came) = (self.limit, Arc::clone(&self.came));
        let watcher = thread::Builder::new().name("sockserver-signals".to_owned()).spawn(move || {
            let Some(signal) = next(&came) else { return };
            log::info!("{signal}: draining for up to {limit:?}");
            let drained = handle.drain_while(limit, &|| is_there(&came), &|| {});
            let Ok(report) = drained else { return };
            if report.aborted.is_empty() {
                log::info!("{report}")
            } else {
                log::warn!("{report}")
            }
            let until = Instant::now() + LOOP_EXIT_LIMIT;
            while report.still_running > 0 && handle.is_stopping() {
                if Instant::now() < until {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                // The loop itself serves the request whose handler does not return.
                log::error!("the loop does not return: the process ends here");
                paths.lock().clear();
                std::process::exit(1);
            }
        })?;
        *self.watcher.lock() = Some(watcher);
        Ok(())
    }

    /// What a loop without threads waits for.
    pub(crate) fn poll(&self) -> Poll<'_> {
        Poll::new(&*self.came, POLLIN)
    }

    /// Takes the first signal; the loop is to end then.
    pub(crate) fn read_signals(&self) {
        if !self.noticed.load(Ordering::Relaxed) && is_there(&self.came) {
            if let Some(signal) = next(&self.came) {
                log::info!("{signal}: draining for up to {:?}", self.limit);
                self.noticed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// How long to drain, if a signal has ended the loop.
    pub(crate) fn requested_drain(&self) -> Option<Duration> {
        self.noticed.load(Ordering::Relaxed).then_some(self.limit)
    }

    /// Whether another signal has come.
    pub(crate) fn second_signal(&self) -> bool {
        is_there(&self.came)
    }
}

/// Waits for a signal and names it; `None` when there will be none.
fn next(came: &Socket) -> Option<&'static str> {
    match came.recv(1).ok()?.first()? {
        byte if i32::from(*byte) == SIGTERM => Some("SIGTERM"),
        _ => Some("SIGINT"),
    }
}

fn is_there(came: &Socket) -> bool {
    loop {
        match poll(&mut [Poll::new(came, POLLIN)], Some(Duration::ZERO)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => return polled.is_ok_and(|count| count > 0),
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        CATCHING.fetch_sub(1, Ordering::SeqCst);
        for id in &self.ids {
            signal_hook::low_level::unregister(*id);
        }
        let _ = self.came.shutdown(SHUT_RDWR);
        let watcher = self.watcher.lock().take();
        if let Some(watcher) = watcher {
            if watcher.thread().id() != thread::current().id() {
                let _ = watcher.join();
            }
        }
    }
}
