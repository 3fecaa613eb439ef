//! The promise: a signal neither ends a call nor extends its timeout (PEP 475).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::SIGUSR1;
use sock::{
    AF_INET, POLLIN, Poll, SO_SNDBUF, SOCK_STREAM, SOL_SOCKET, Socket, set_interrupt_hook, was_interrupted,
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("signals_do_not_extend_a_timeout", signals_do_not_extend_a_timeout),
    ("signals_do_not_end_a_call", signals_do_not_end_a_call),
    (
        "a_hook_that_returns_false_ends_every_blocked_call",
        a_hook_that_returns_false_ends_every_blocked_call,
    ),
    ("a_hook_that_returns_true_ends_no_call", a_hook_that_returns_true_ends_no_call),
    ("sendall_calls_the_hook_between_partial_sends", sendall_calls_the_hook_between_partial_sends),
    ("a_signal_ends_a_call_that_has_transferred_a_part", a_signal_ends_a_call_that_has_transferred_a_part),
];

/// Interrupts the main thread, which receives signals to the process, every few milliseconds while
/// `run` runs.
#[track_caller]
pub(crate) fn under_signals(run: impl FnOnce()) {
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
    let begin = Instant::now();
    under_signals(|| {
        assert_eq!(sock::poll(&mut [Poll::new(&ours, POLLIN)], Some(timeout)).unwrap(), 0);
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
                assert_eq!(sock::poll(&mut [Poll::new(&ours, POLLIN)], timeout).unwrap(), 1);
                assert_eq!(ours.recv(100).unwrap(), b"late");
                listener.accept().unwrap();
            });
        });
    }
}

fn a_hook_that_returns_false_ends_every_blocked_call() {
    set_interrupt_hook(Some(|| false));
    let (ours, _theirs) = sock::socketpair().unwrap();
    let (full, _unread) = sock::socketpair().unwrap();
    full.setblocking(false).unwrap();
    while full.send(&[0; 65536]).is_ok() {}
    let listener = sock::create_server(("127.0.0.1", 0)).unwrap();
    let timeout = Duration::from_secs(20);
    for sock in [&ours, &full, &listener] {
        sock.settimeout(timeout).unwrap();
    }
    let calls: [(&str, &dyn Fn() -> io::Result<()>); 10] = [
        ("poll", &|| sock::poll(&mut [Poll::new(&ours, POLLIN)], Some(timeout)).map(drop)),
        ("recv", &|| ours.recv(1).map(drop)),
        ("recv_into", &|| ours.recv_into(&mut [0]).map(drop)),
        ("recvfrom", &|| ours.recvfrom(1).map(drop)),
        ("recvmsg", &|| ours.recvmsg(1, 0).map(drop)),
        ("send", &|| full.send(b"x").map(drop)),
        ("sendall", &|| full.sendall(b"x")),
        ("sendmsg", &|| full.sendmsg(&[io::IoSlice::new(b"x")], &[]).map(drop)),
        ("accept", &|| listener.accept().map(drop)),
        // Code that retries an interrupted call must not hide the hook's result.
        ("read_exact", &|| io::Read::read_exact(&mut ours.makefile_rb(), &mut [0])),
    ];
    for (name, call) in calls {
        let begin = Instant::now();
        under_signals(|| {
            let error = call().unwrap_err();
            assert!(was_interrupted(&error), "{name}: {error:?}");
        });
        assert!(begin.elapsed() < timeout, "{name} was ended by its timeout");
    }
}

fn a_hook_that_returns_true_ends_no_call() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    assert!(set_interrupt_hook(Some(|| false)).is_none());
    let former = set_interrupt_hook(Some(|| ASKED.fetch_add(1, Ordering::Relaxed) < usize::MAX));
    assert!(former.is_some_and(|former| !former()), "the previous hook was not returned");
    signals_do_not_extend_a_timeout();
    assert!(ASKED.load(Ordering::Relaxed) > 1, "the hook was not called for each interruption");
}

fn sendall_calls_the_hook_between_partial_sends() {
    set_interrupt_hook(Some(|| false));
    let (ours, theirs) = sock::socketpair().unwrap();
    ours.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096).unwrap();
    ours.settimeout(Duration::from_secs(20)).unwrap();
    let error = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let result = ours.sendall(&vec![0; 64 << 20]);
            ours.shutdown(sock::SHUT_WR).unwrap();
            result
        });
        while !theirs.recv(65536).unwrap().is_empty() {}
        sending.join().unwrap().unwrap_err()
    });
    assert!(was_interrupted(&error), "{error:?}");
}

/// Like the system's blocking calls, and without calling the hook, whose result could get lost.
fn a_signal_ends_a_call_that_has_transferred_a_part() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    const MUCH: usize = 8 << 20;
    set_interrupt_hook(Some(|| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        false
    }));
    for with in [false, true] {
        let (ours, theirs) = sock::socketpair().unwrap();
        theirs.sendall(b"ab").unwrap();
        let _canceller = with.then(|| ours.canceller().unwrap());
        let (mut sent, mut received) = (0, Vec::new());
        under_signals(|| sent = ours.send(&vec![0; MUCH]).unwrap());
        assert!((1..MUCH).contains(&sent), "{sent}, with a canceller: {with}");
        under_signals(|| received = ours.recv_with_flags(4, sock::MSG_WAITALL).unwrap());
        assert_eq!(received, b"ab", "with a canceller: {with}");
        assert_eq!(ASKED.load(Ordering::Relaxed), 0, "with a canceller: {with}");
    }
    set_interrupt_hook(None);
}
