//! The promise: a signal neither ends a call nor extends its timeout (PEP 475).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::SIGUSR1;
use sock::{AF_INET, SOCK_STREAM, Socket};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("signals_do_not_extend_a_timeout", signals_do_not_extend_a_timeout),
    ("signals_do_not_end_a_call", signals_do_not_end_a_call),
];

/// Interrupts the main thread, the one a signal to the process goes to, every
/// few milliseconds while `run` runs.
#[track_caller]
fn under_signals(run: impl FnOnce()) {
    let handled = Arc::new(AtomicBool::new(false));
    // With SA_RESTART, as signal-hook sets it, poll(2) still ends with EINTR (signal(7)).
    let id = signal_hook::flag::register(SIGUSR1, Arc::clone(&handled)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Longer than any timeout here: one that starts afresh with every
            // signal is seen, not waited for.
            let until = Instant::now() + Duration::from_secs(10);
            while !done.load(Ordering::Relaxed) && Instant::now() < until {
                kill_process(getpid(), Signal::USR1).unwrap();
                sock::poll(&mut [], Some(Duration::from_millis(5))).unwrap_or_default();
            }
        });
        run();
        done.store(true, Ordering::Relaxed);
    });
    signal_hook::low_level::unregister(id);
    assert!(handled.load(Ordering::Relaxed), "signals came");
}

fn signals_do_not_extend_a_timeout() {
    let (ours, _theirs) = sock::socketpair().unwrap();
    let timeout = Duration::from_millis(300);
    ours.settimeout(timeout).unwrap();
    let begin = Instant::now();
    under_signals(|| {
        assert_eq!(ours.recv(1).unwrap_err().kind(), io::ErrorKind::TimedOut);
    });
    let took = begin.elapsed();
    assert!(took >= timeout && took < Duration::from_secs(5), "{took:?}");
}

fn signals_do_not_end_a_call() {
    let (ours, theirs) = sock::socketpair().unwrap();
    let listener = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    listener.bind(("127.0.0.1", 0)).unwrap();
    listener.listen(1).unwrap();
    let address = listener.getsockname().unwrap();
    for timeout in [Some(Duration::from_secs(20)), None] {
        ours.settimeout(timeout).unwrap();
        listener.settimeout(timeout).unwrap();
        under_signals(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    sock::poll(&mut [], Some(Duration::from_millis(200))).unwrap_or_default();
                    theirs.sendall(b"late").unwrap();
                    let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
                    client.connect(&address).unwrap();
                });
                assert_eq!(ours.recv(100).unwrap(), b"late");
                listener.accept().unwrap();
            });
        });
    }
}
