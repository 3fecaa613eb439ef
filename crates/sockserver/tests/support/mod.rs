//! Helpers that the tests share.
// Each test is its own crate and uses a part of this module.
#![allow(dead_code)]

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use sock::{Address, AddressFamily, Socket};
use sockserver::{ServerHandle, Stats};

pub(crate) const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);

/// The time after which a test fails instead of hanging.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Stops a server when it is dropped. Without it a test that fails would wait for the server's
/// thread.
pub(crate) struct StopOnDrop(pub(crate) ServerHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let _ = self.0.request_shutdown();
    }
}

/// Connects to a server. Calls on the connection have a timeout.
#[track_caller]
pub(crate) fn connect_to(address: &Address) -> Socket {
    let client = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(address).unwrap();
    client
}

/// Creates a datagram socket, whose calls have a timeout.
#[track_caller]
pub(crate) fn datagram_client(family: AddressFamily) -> Socket {
    let client = Socket::new(family, sock::SOCK_DGRAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client
}

/// Connects from the given source address.
#[track_caller]
pub(crate) fn connect_from(source: &str, address: &Address) -> Socket {
    let client = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.bind((source, 0)).unwrap();
    client.connect(("127.0.0.1", address.port().unwrap())).unwrap();
    client
}

/// Returns whether this machine has an IPv6 address, and prints it if it has none, as in many
/// containers.
pub(crate) fn has_ipv6() -> bool {
    let bound = Socket::new(sock::AF_INET6, sock::SOCK_DGRAM, 0).and_then(|sock| sock.bind(("::1", 0)));
    if let Err(error) = &bound {
        // libtest does not capture the stream itself. An error of it is ignored.
        let _ = writeln!(io::stderr(), "NOT RUN with IPv6, which this machine does not have: {error}");
    }
    bound.is_ok()
}

/// Receives until the end of file. An error is appended by its name.
pub(crate) fn read_to_end(client: &Socket) -> String {
    let mut text = Vec::new();
    loop {
        match client.recv(4096) {
            Ok(data) if data.is_empty() => return String::from_utf8_lossy(&text).into_owned(),
            Ok(data) => text.extend(data),
            Err(error) => return format!("{}{:?}", String::from_utf8_lossy(&text), error.kind()),
        }
    }
}

/// Waits until a condition is true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < limit, "condition not true after {LIMIT:?}: {what}");
        sleep_briefly();
    }
}

/// Waits until a condition on the counters is true. They must be consistent all the time.
#[track_caller]
pub(crate) fn wait_for_stats(handle: &ServerHandle, condition: impl Fn(&Stats) -> bool) -> Stats {
    let limit = Instant::now() + LIMIT;
    loop {
        let stats = handle.stats();
        assert!(stats.is_consistent(), "{stats:?}");
        if condition(&stats) {
            return stats;
        }
        assert!(Instant::now() < limit, "condition not true after {LIMIT:?}: {stats:?}");
        sleep_briefly();
    }
}

/// Sleeps for a millisecond, between two checks of a condition that cannot be waited for.
pub(crate) fn sleep_briefly() {
    let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
}

/// Blocks handlers until the test opens it, and counts them.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<Inside>, Condvar)>);

#[derive(Default)]
struct Inside {
    open: bool,
    current: usize,
    max: usize,
    entered: usize,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate::default()
    }

    /// Blocks until the gate is open.
    pub(crate) fn pass(&self) {
        let (inside, changed) = &*self.0;
        let mut inside = inside.lock();
        inside.current += 1;
        inside.entered += 1;
        inside.max = inside.max.max(inside.current);
        changed.notify_all();
        while !inside.open {
            assert!(!changed.wait_for(&mut inside, LIMIT).timed_out(), "the gate was not opened");
        }
        inside.current -= 1;
        changed.notify_all();
    }

    pub(crate) fn open(&self) {
        let (inside, changed) = &*self.0;
        inside.lock().open = true;
        changed.notify_all();
    }

    /// Waits until this many handlers have entered, including those that have left.
    #[track_caller]
    pub(crate) fn wait_for(&self, entered: usize) {
        let (inside, changed) = &*self.0;
        let mut inside = inside.lock();
        while inside.entered < entered {
            let late = changed.wait_for(&mut inside, LIMIT).timed_out();
            assert!(!late, "{} of {entered} handlers have entered", inside.entered);
        }
    }

    /// Returns how many handlers are blocked.
    pub(crate) fn current(&self) -> usize {
        self.0.0.lock().current
    }

    /// Returns the largest number of handlers that were blocked at the same time.
    pub(crate) fn max(&self) -> usize {
        self.0.0.lock().max
    }

    /// Returns how many handlers have entered.
    pub(crate) fn entered(&self) -> usize {
        self.0.0.lock().entered
    }
}

/// Opens a gate when it is dropped, so that a test that fails does not hang.
pub(crate) struct OpenOnDrop(pub(crate) Gate);

impl Drop for OpenOnDrop {
    fn drop(&mut self) {
        self.0.open();
    }
}
