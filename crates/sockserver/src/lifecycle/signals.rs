//! SIGTERM and SIGINT. The first signal drains the server, the second stops it at once.

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

/// How long the loop may take to return after a drain while a handler is still running.
const LOOP_EXIT_LIMIT: Duration = Duration::from_millis(250);

/// Implements [`Builder::drain_on_signals`](crate::Builder::drain_on_signals).
///
/// The signal handler sends the signal's number through a socket pair, which is async-signal-safe
/// (signal-safety(7)). A thread receives it, or the accept loop if the server must not have threads.
pub(crate) struct Signals {
    limit: Duration,
    /// Receives one byte for each signal.
    receiver: Arc<Socket>,
    ids: Vec<SigId>,
    /// The accept loop has received the first signal.
    received: AtomicBool,
    watcher: Mutex<Option<thread::JoinHandle<()>>>,
}

/// The number of servers that catch signals. At 0 the signals terminate the process again.
static CATCHING: AtomicUsize = AtomicUsize::new(0);

impl Signals {
    /// Catches the signals until the returned value is dropped.
    pub(crate) fn catch(limit: Duration) -> io::Result<Signals> {
        let (receiver, sender) = socketpair()?;
        let (receiver, sender) = (Arc::new(receiver), Arc::new(sender));
        CATCHING.fetch_add(1, Ordering::SeqCst);
        let (received, watcher) = (AtomicBool::new(false), Mutex::new(None));
        let mut signals = Signals { limit, receiver, ids: Vec::new(), received, watcher };
        for signal in [SIGTERM, SIGINT] {
            // Before the handler is installed, because it looks at the current action.
            process::default_unless(signal, || CATCHING.load(Ordering::SeqCst) > 0)?;
            signals.ids.push(process::on_signal(signal, Arc::clone(&sender))?);
        }
        Ok(signals)
    }

    /// Starts the thread that drains the server on a signal, for servers that may have threads.
    pub(crate) fn watch(&self, handle: ServerHandle, paths: Arc<Mutex<Vec<BoundPath>>>) -> io::Result<()> {
        let (limit, receiver) = (self.limit, Arc::clone(&self.receiver));
        let watcher = thread::Builder::new().name("sockserver-signals".to_owned()).spawn(move || {
            let Some(signal) = receive_signal(&receiver) else { return };
            log::info!("{signal}: draining for up to {limit:?}");
            let drained = handle.drain_while(limit, &|| is_readable(&receiver), &|| {});
            let Ok(report) = drained else { return };
            if report.aborted.is_empty() {
                log::info!("{report}")
            } else {
                log::warn!("{report}")
            }
            let deadline = Instant::now() + LOOP_EXIT_LIMIT;
            while report.still_running > 0 && handle.is_stopping() {
                if Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                // The handler that is still running blocks the accept loop itself.
                log::error!("serve_forever did not return after the drain; exiting with status 1");
                paths.lock().clear();
                std::process::exit(1);
            }
        })?;
        *self.watcher.lock() = Some(watcher);
        Ok(())
    }

    /// Returns the entry for poll(2) with which the accept loop waits for signals.
    pub(crate) fn poll(&self) -> Poll<'_> {
        Poll::new(&*self.receiver, POLLIN)
    }

    /// Receives the first signal if there is one. The loop has to stop then.
    pub(crate) fn read_signals(&self) {
        if !self.received.load(Ordering::Relaxed) && is_readable(&self.receiver) {
            if let Some(signal) = receive_signal(&self.receiver) {
                log::info!("{signal}: draining for up to {:?}", self.limit);
                self.received.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Returns how long to drain, `None` if no signal was received.
    pub(crate) fn requested_drain(&self) -> Option<Duration> {
        self.received.load(Ordering::Relaxed).then_some(self.limit)
    }

    /// Returns whether another signal was received.
    pub(crate) fn second_signal(&self) -> bool {
        is_readable(&self.receiver)
    }
}

/// Waits for a signal and returns its name, `None` if signals are no longer caught.
fn receive_signal(receiver: &Socket) -> Option<&'static str> {
    match receiver.recv(1).ok()?.first()? {
        byte if i32::from(*byte) == SIGTERM => Some("SIGTERM"),
        _ => Some("SIGINT"),
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
        CATCHING.fetch_sub(1, Ordering::SeqCst);
        for id in &self.ids {
            signal_hook::low_level::unregister(*id);
        }
        let _ = self.receiver.shutdown(SHUT_RDWR);
        let watcher = self.watcher.lock().take();
        if let Some(watcher) = watcher {
            if watcher.thread().id() != thread::current().id() {
                let _ = watcher.join();
            }
        }
    }
}
