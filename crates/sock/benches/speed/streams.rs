//! Messages there and back, and a stream of large ones, over TCP.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use crate::compare::{Scenario, Variant};
use crate::ends::{End, Makefile, PollFirst, Raw, Sock, Std, connection};

const SMALL: usize = 64;
const LARGE: usize = 64 * 1024;
const LONG: Duration = Duration::from_secs(60);

/// Blocking costs what the raw calls cost, and a timeout hardly more.
const BOUNDS: &[(&str, &str, f64)] = &[("sock", "raw", 1.02), ("sock, timeout", "sock", 1.05)];

/// Both ends in one thread: whatever is received is there already, and nothing but
/// the calls is measured.
pub(crate) fn ping_pong() -> Scenario {
    Scenario { name: "ping-pong of 64 B, data there", variants: each_way(ThereAndBack), bounds: BOUNDS }
}

/// The other end in a thread of its own on the same CPU, over raw calls: every
/// receive has to wait.
pub(crate) fn ping_pong_of_two() -> Scenario {
    Scenario { name: "ping-pong of 64 B, having to wait", variants: each_way(WithAnEcho), bounds: BOUNDS }
}

/// 64 KiB from one end to the other, in one thread.
pub(crate) fn streaming() -> Scenario {
    Scenario { name: "streaming of 64 KiB", variants: each_way(OneWay), bounds: BOUNDS }
}

/// Work on the two ends of a connection, independent of their type.
trait Traffic {
    fn variant<E: End + 'static>(&self, name: &'static str, end: impl Fn(OwnedFd) -> E) -> Variant;
}

fn each_way(traffic: impl Traffic) -> Vec<Variant> {
    vec![
        traffic.variant("raw", Raw),
        traffic.variant("std", |fd| Std(fd.into())),
        traffic.variant("sock", |fd| Sock::new(fd, None)),
        traffic.variant("sock, timeout", |fd| Sock::new(fd, Some(LONG))),
        traffic.variant("sock, makefile", Makefile::new),
        traffic.variant("poll first", PollFirst),
    ]
}

struct ThereAndBack;

impl Traffic for ThereAndBack {
    fn variant<E: End + 'static>(&self, name: &'static str, end: impl Fn(OwnedFd) -> E) -> Variant {
        let (one, other) = connection();
        let (mut one, mut other) = (end(one), end(other));
        let mut buffer = [0; SMALL];
        Variant::new(name, move || {
            one.send_all(&buffer);
            other.receive_all(&mut buffer);
            other.send_all(&buffer);
            one.receive_all(&mut buffer);
        })
    }
}

struct WithAnEcho;

impl Traffic for WithAnEcho {
    fn variant<E: End + 'static>(&self, name: &'static str, end: impl Fn(OwnedFd) -> E) -> Variant {
        let (one, other) = connection();
        // It ends when this end is closed.
        thread::spawn(move || {
            let (mut other, mut buffer) = (Raw(other), [0; SMALL]);
            while other.receive(&mut buffer) == SMALL {
                other.send_all(&buffer);
            }
        });
        let (mut one, mut buffer) = (end(one), [0; SMALL]);
        Variant::new(name, move || {
            one.send_all(&buffer);
            one.receive_all(&mut buffer);
        })
    }
}

struct OneWay;

impl Traffic for OneWay {
    fn variant<E: End + 'static>(&self, name: &'static str, end: impl Fn(OwnedFd) -> E) -> Variant {
        let (one, other) = connection();
        let (mut one, mut other) = (end(one), end(other));
        let mut buffer = vec![0; LARGE];
        Variant::new(name, move || {
            one.send_all(&buffer);
            other.receive_all(&mut buffer);
        })
    }
}
