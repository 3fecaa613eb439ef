//! What the tests share.
// Each test is a crate of its own and uses its part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use sock::{Address, Socket};
use sockserver::{ServerHandle, Stats};

pub(crate) const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);

/// Far more than anything here takes, far less than a hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Stops a server when the test ends, however it ends: a test that fails beside
/// a server that serves would wait for it instead of telling.
pub(crate) struct StopAtEnd(pub(crate) ServerHandle);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        let _ = self.0.request_shutdown();
    }
}

/// A connection whose calls have a limit.
#[track_caller]
pub(crate) fn client_of(address: &Address) -> Socket {
    let client = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(address).unwrap();
    client
}

/// The same, from an address of its own choice.
#[track_caller]
pub(crate) fn client_from(source: &str, address: &Address) -> Socket {
    let client = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.bind((source, 0)).unwrap();
    client.connect(("127.0.0.1", address.port().unwrap())).unwrap();
    client
}

/// All that still comes, until the end of file; a reset is told in its place.
pub(crate) fn rest_of(client: &Socket) -> String {
    let mut text = Vec::new();
    loop {
        match client.recv(4096) {
            Ok(data) if data.is_empty() => return String::from_utf8_lossy(&text).into_owned(),
            Ok(data) => text.extend(data),
            Err(error) => return format!("{}{:?}", String::from_utf8_lossy(&text), error.kind()),
        }
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < limit, "not within {LIMIT:?}: {what}");
        moment();
    }
}

/// Waits until the server's counters say so; they have to add up all the while.
#[track_caller]
pub(crate) fn until_stats(handle: &ServerHandle, is_so: impl Fn(&Stats) -> bool) -> Stats {
    let limit = Instant::now() + LIMIT;
    loop {
        let stats = handle.stats();
        assert!(stats.is_consistent(), "{stats:?}");
        if is_so(&stats) {
            return stats;
        }
        assert!(Instant::now() < limit, "not within {LIMIT:?}: {stats:?}");
        moment();
    }
}

/// Lets others run: between two looks at what nobody tells.
pub(crate) fn moment() {
    let _ = sock::poll(&mut [], Some(Duration::from_millis(1)));
}

/// Where handlers wait until the test lets them go, and are counted meanwhile.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<Inside>, Condvar)>);

#[derive(Default)]
struct Inside {
    open: bool,
    now: usize,
    most: usize,
    entered: usize,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate::default()
    }

    /// Waits here until the gate is open.
    pub(crate) fn pass(&self) {
        let (inside, changed) = &*self.0;
        let mut inside = inside.lock();
        inside.now += 1;
        inside.entered += 1;
        inside.most = inside.most.max(inside.now);
        changed.notify_all();
        while !inside.open {
            assert!(!changed.wait_for(&mut inside, LIMIT).timed_out(), "the gate stays shut");
        }
        inside.now -= 1;
        changed.notify_all();
    }

    pub(crate) fn open(&self) {
        let (inside, changed) = &*self.0;
        inside.lock().open = true;
        changed.notify_all();
    }

    /// Waits until so many have come, those that have left included.
    #[track_caller]
    pub(crate) fn wait_for(&self, entered: usize) {
        let (inside, changed) = &*self.0;
        let mut inside = inside.lock();
        while inside.entered < entered {
            let late = changed.wait_for(&mut inside, LIMIT).timed_out();
            assert!(!late, "{} of {entered} have come", inside.entered);
        }
    }

    /// How many are here.
    pub(crate) fn now(&self) -> usize {
        self.0.0.lock().now
    }

    /// How many were here at once, at most.
    pub(crate) fn most(&self) -> usize {
        self.0.0.lock().most
    }

    /// How many have come.
    pub(crate) fn entered(&self) -> usize {
        self.0.0.lock().entered
    }
}

/// Opens a gate when the test ends, so that one that fails does not hang.
pub(crate) struct OpenAtEnd(pub(crate) Gate);

impl Drop for OpenAtEnd {
    fn drop(&mut self) {
        self.0.open();
    }
}
