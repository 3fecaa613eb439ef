//! The recording and the wire: one lock orders calls, kernel and packets.
//!
//! A packet that arrives is recorded in this order: the changes of its sender, the packet, and,
//! once it was forwarded, the changes of its receiver. So a state that lasts only from one packet
//! to the next is recorded too.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sock::{AF_UNIX, POLLIN, Poll, SOCK_DGRAM, Socket, TcpInfo};

use crate::cpu;
use crate::end::{End, Frame, ProcessorQueues};
use crate::event::{Event, EventKind, Fate, HostName, Seen, changes};
use crate::observe::Observer;
use crate::packet::{Numbers, Packet};
use crate::value::Value;

/// What the wire does with a packet that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Pass,
    Hold,
    Delay(Duration),
    Cut,
}

/// Which packets a line of a scenario means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Select {
    /// A name as in [`Packet::is`]; any packet if `None`.
    pub(crate) name: Option<String>,
    pub(crate) from: Option<HostName>,
}

impl Select {
    fn matches(&self, from: HostName, packet: Option<&Packet>) -> bool {
        let name_matches = |name: &String| packet.is_some_and(|packet| packet.is(name));
        self.from.is_none_or(|wanted| wanted == from) && self.name.as_ref().is_none_or(name_matches)
    }
}

/// A packet that the wire keeps.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) id: u64,
    pub(crate) from: HostName,
    pub(crate) packet: Option<Packet>,
    frame: Frame,
    /// When a delayed packet is forwarded.
    due: Option<Instant>,
    /// The kernel sent it again while the wire held the original, which was delivered since. Decisions
    /// do not see it: how many there are depends on how long the wire has held the original.
    is_stale: bool,
}

impl Kept {
    /// Whether the kernel has sent a packet again with this one.
    fn repeats(&self, from: HostName, packet: Option<&Packet>) -> bool {
        self.from == from
            && self.packet.as_ref().zip(packet).is_some_and(|(own, packet)| own.repeats(packet))
    }
}

/// A socket of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) host: HostName,
    pub(crate) sock: Option<Arc<Socket>>,
    pub(crate) cookie: u64,
    pub(crate) is_bound: bool,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Value(Value),
    /// Number and name of a system error.
    Errno(String),
    /// The call was not possible.
    Refused(String),
}

/// What a call has made: sockets, in the order of their names.
pub(crate) type Made = Vec<(HostName, Arc<Socket>)>;

#[derive(Debug)]
struct Side {
    observer: Observer,
    rows: BTreeMap<u64, Seen>,
    /// Of loopback only: the addresses that belong to this host.
    address: Option<String>,
}

#[derive(Debug)]
pub(crate) struct State {
    start: Instant,
    pub(crate) events: Vec<Event>,
    sides: Vec<Side>,
    ends: Vec<Arc<End>>,
    /// The processor on which packets are forwarded.
    cpu: usize,
    queues: ProcessorQueues,
    numbers: Numbers,
    next_packet: u64,
    next_call: u64,
    pub(crate) kept: Vec<Kept>,
    /// What the wire kept and then delivered.
    delivered: Vec<(HostName, Option<Packet>)>,
    pub(crate) policy: Policy,
    armed: Vec<(Fate, Select)>,
    /// Decisions of the user of the page, which lines of the scenario may want too.
    by_hand: Vec<(HostName, Option<Packet>, Fate)>,
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) names: HashMap<u64, String>,
    /// The order in which cookies were first seen.
    order: HashMap<u64, usize>,
    hosts_of: HashMap<u64, HostName>,
    /// What the events have said about connections.
    reported: HashMap<u64, (HostName, Box<TcpInfo>)>,
    pub(crate) results: HashMap<u64, Outcome>,
    /// Cookies of sockets that a file has referred to.
    pub(crate) with_file: HashSet<u64>,
    with_udp: bool,
    pub(crate) lost: u64,
    last_change: Instant,
    failure: Option<String>,
}

/// The recording and the wire.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    changed: Condvar,
    is_stopping: AtomicBool,
    waker: (Socket, Socket),
    is_ending: AtomicBool,
}

impl Hub {
    /// `ends` is empty if there is no wire. `addresses` separate the hosts of one namespace.
    pub(crate) fn new(
        observers: Vec<Observer>,
        ends: Vec<End>,
        addresses: [Option<String>; 2],
    ) -> io::Result<Hub> {
        let sides = observers.into_iter().zip(addresses);
        let now = Instant::now();
        Ok(Hub {
            state: Mutex::new(State {
                start: now,
                events: Vec::new(),
                sides: sides
                    .map(|(observer, address)| Side { observer, rows: BTreeMap::new(), address })
                    .collect(),
                ends: ends.into_iter().map(Arc::new).collect(),
                cpu: cpu::current(),
                queues: ProcessorQueues::open(),
                numbers: Numbers::default(),
                next_packet: 1,
                next_call: 1,
                kept: Vec::new(),
                delivered: Vec::new(),
                policy: Policy::Pass,
                armed: Vec::new(),
                by_hand: Vec::new(),
                entries: BTreeMap::new(),
                names: HashMap::new(),
                order: HashMap::new(),
                hosts_of: HashMap::new(),
                reported: HashMap::new(),
                results: HashMap::new(),
                with_file: HashSet::new(),
                with_udp: false,
                lost: 0,
                last_change: now,
                failure: None,
            }),
            changed: Condvar::new(),
            is_stopping: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            waker: sock::socketpair()?,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes what waits for a change.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        let _ = self.waker.1.send(b"w");
        result
    }

    /// Calls `check` after each change until it returns a value or the limit has expired.
    pub(crate) fn wait_for<T>(
        &self,
        limit: Duration,
        mut check: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(value) = check(&mut state) {
                self.changed.notify_all();
                return Some(value);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let step = left.min(Duration::from_millis(5));
            state = self.changed.wait_timeout(state, step).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until nothing was recorded for a short time, so that the consequences of a line are
    /// printed below it. On a busy machine the kernel delivers packets later, and the thread of the wire
    /// reads them later.
    pub(crate) fn settle(&self) {
        const QUIET: Duration = Duration::from_millis(4);
        const NOT_QUIET: Duration = Duration::from_millis(50);
        let begin = Instant::now();
        self.wait_for(Duration::from_secs(1), |state| {
            state.observe_both();
            let is_over = state.last_change.max(begin).elapsed() >= QUIET || begin.elapsed() >= NOT_QUIET;
            (is_over && !state.has_packets_on_their_way()).then_some(())
        });
    }

    /// Ends the programs that a scenario has started.
    pub(crate) fn end_programs(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        let _ = self.waker.1.send(b"w");
    }

    /// The thread of the wire: reads packets, forwards delayed ones, and looks at both hosts from
    /// time to time.
    pub(crate) fn run(&self) {
        let (ends, cpu) = {
            let state = self.lock();
            (state.ends.clone(), state.cpu)
        };
        // Without a wire there is nothing to forward.
        let _pinned = (!ends.is_empty()).then(|| cpu::Pinned::on(cpu));
        // Without a wire there is no packet that could be the clock.
        let tick = Duration::from_millis(if ends.is_empty() { 2 } else { 20 });
        // The lock is free at least as long as a look at a busy system takes.
        let mut took = Duration::ZERO;
        let mut drain = [0; 64];
        while !self.is_stopping.load(Ordering::SeqCst) {
            let due = self.lock().kept.iter().filter_map(|kept| kept.due).min();
            let pause = tick.max(took);
            let left = due.map_or(pause, |due| due.saturating_duration_since(Instant::now()).min(pause));
            let mut set = vec![Poll::new(&self.waker.0, POLLIN)];
            set.extend(ends.iter().map(|end| Poll::new(&**end, POLLIN)));
            let ready = sock::poll(&mut set, Some(left));
            if ready.is_err() {
                continue;
            }
            if set[0].revents() != 0 {
                let _ = self.waker.0.recv_into_nowait(&mut drain);
            }
            let is_ready: Vec<_> = set[1..].iter().map(|poll| poll.revents() != 0).collect();
            let mut state = self.lock();
            for (host, is_ready) in HostName::BOTH.into_iter().zip(&is_ready) {
                if *is_ready {
                    match ends[host.index()].receive() {
                        Ok(Some(frame)) => state.arrive(host, frame),
                        Ok(None) => {}
                        Err(error) => state.fail(format!("cannot read from the wire: {error}")),
                    }
                }
            }
            state.forward_due();
            if !is_ready.contains(&true) {
                let begin = Instant::now();
                state.observe_both();
                took = begin.elapsed();
                state.count_losses();
            }
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl State {
    pub(crate) fn put(&mut self, kind: EventKind) {
        self.last_change = Instant::now();
        self.events.push(Event { time: self.start.elapsed(), kind });
    }

    /// Returns whether the kernel has not delivered a packet to the wire or to a host, or the wire has not
    /// read one.
    fn has_packets_on_their_way(&self) -> bool {
        if self.ends.is_empty() {
            return false;
        }
        // A packet that leaves a queue between both looks is there for the second one.
        let are_queues_empty = self.queues.are_empty();
        let mut set: Vec<_> = self.ends.iter().map(|end| Poll::new(&**end, POLLIN)).collect();
        !are_queues_empty || sock::poll(&mut set, Some(Duration::ZERO)).is_ok_and(|ready| ready > 0)
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn fail(&mut self, text: String) {
        if self.failure.is_none() {
            self.failure = Some(text.clone());
            self.put(EventKind::Note(text));
        }
    }

    /// An error of the tool itself. The scenario cannot be judged after it.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(crate) fn observe_both(&mut self) {
        for host in HostName::BOTH {
            self.observe(host);
        }
    }

    /// Looks at the sockets of a host, and records the differences.
    pub(crate) fn observe(&mut self, host: HostName) {
        let side = &mut self.sides[host.index()];
        // Both hosts have 127.0.0.1 if they are addresses of this system.
        let ports =
            side.rows.values().filter_map(|seen| seen.local.strip_prefix("127.0.0.1:")?.parse().ok());
        let ports: BTreeSet<u16> = ports.collect();
        let ports: Vec<u16> = ports.into_iter().collect();
        let mut rows = match side.observer.internet(self.with_udp, &ports) {
            Ok(rows) => rows,
            Err(error) => return self.fail(format!("cannot read the sockets of {host}: {error}")),
        };
        if let Some(address) = &side.address {
            let hosts_of = &self.hosts_of;
            let port = |seen: &Seen| seen.local.rsplit(':').next().unwrap_or_default().to_owned();
            let own = rows.iter().filter(|(cookie, _)| hosts_of.get(cookie) == Some(&host));
            let ports: Vec<_> = own.map(|(_, seen)| port(seen)).collect();
            let belongs = |cookie: &u64, seen: &Seen| match hosts_of.get(cookie) {
                Some(known) => *known == host,
                // A connection that was not accepted has the port of its listener.
                None => {
                    seen.local.starts_with(address.as_str())
                        || seen.local.starts_with("127.0.0.1:") && ports.contains(&port(seen))
                }
            };
            rows.retain(|(cookie, seen)| belongs(cookie, seen));
        }
        for entry in self.entries.values().filter(|entry| entry.host == host) {
            let unix = entry.sock.as_ref().filter(|sock| sock.family() == AF_UNIX);
            rows.extend(unix.and_then(|sock| Some((entry.cookie, side.observer.unix(sock)?))));
        }
        let order = &mut self.order;
        rows.sort_by(|(a, one), (b, two)| {
            let place = |cookie| order.get(cookie).copied().unwrap_or(usize::MAX);
            (one.state != "LISTEN", place(a), &one.local, &one.peer).cmp(&(
                two.state != "LISTEN",
                place(b),
                &two.local,
                &two.peer,
            ))
        });
        let mut new: BTreeMap<u64, Seen> = BTreeMap::new();
        let mut events = Vec::new();
        for (cookie, seen) in rows {
            let next = order.len();
            order.entry(cookie).or_insert(next);
            if seen.inode != 0 {
                self.with_file.insert(cookie);
            }
            let before = side.rows.get(&cookie);
            if before.is_none_or(|before| before.differs(&seen)) {
                let was = before.map(|before| before.state);
                let info = seen.info.as_ref().map(|info| {
                    let before = self.reported.insert(cookie, (host, info.clone()));
                    changes(before.as_ref().map(|(_, before)| &**before), info)
                });
                let info = info.unwrap_or_default();
                events.push(EventKind::Kernel { host, cookie, was, now: seen.clone(), info });
            }
            new.insert(cookie, seen);
        }
        let mut gone: Vec<_> = side.rows.iter().filter(|(cookie, _)| !new.contains_key(cookie)).collect();
        gone.sort_by_key(|(cookie, _)| order.get(cookie));
        events.extend(gone.iter().map(|(cookie, seen)| EventKind::Gone {
            host,
            cookie: **cookie,
            was: seen.state,
        }));
        for (cookie, now) in side.observer.died() {
            // Others are of the other host, of programs outside of the lab, or were never seen.
            let MapEntry::Occupied(reported) = self.reported.entry(cookie) else { continue };
            if reported.get().0 == host {
                let (_, before) = reported.remove();
                events.push(EventKind::Died { host, cookie, info: changes(Some(&before), &now) });
            }
        }
        side.rows = new;
        for event in events {
            self.put(event);
        }
    }

    pub(crate) fn rows(&self, host: HostName) -> &BTreeMap<u64, Seen> {
        &self.sides[host.index()].rows
    }

    /// A packet has arrived at the wire.
    fn arrive(&mut self, from: HostName, frame: Frame) {
        self.observe(from);
        let mut packet = Packet::parse(frame.packet());
        if let Some(packet) = &mut packet {
            self.numbers.make_relative(packet);
        }
        let id = self.next_packet;
        self.next_packet += 1;
        let armed = self.armed.iter().position(|(_, select)| select.matches(from, packet.as_ref()));
        let fate = match (armed, self.policy) {
            (_, Policy::Cut) => Fate::Cut,
            (Some(place), _) => self.armed.remove(place).0,
            (None, Policy::Pass) => Fate::Passed,
            (None, Policy::Hold) => Fate::Held,
            (None, Policy::Delay(_)) => Fate::Delayed,
        };
        let bytes = frame.packet().to_vec();
        self.put(EventKind::Packet { id, from, fate, packet: packet.clone(), bytes });
        match fate {
            Fate::Held | Fate::Delayed => {
                let due = match self.policy {
                    Policy::Delay(delay) => Some(Instant::now() + delay),
                    _ => None,
                };
                self.kept.push(Kept { id, from, packet, frame, due, is_stale: false });
            }
            Fate::Passed | Fate::Delivered => self.forward(from, &frame),
            Fate::Duplicated => {
                self.forward(from, &frame);
                self.forward(from, &frame);
            }
            Fate::Dropped | Fate::Cut => {}
        }
    }

    fn forward(&mut self, from: HostName, frame: &Frame) {
        let end = self.ends[from.other().index()].clone();
        let _pinned = cpu::Pinned::on(self.cpu);
        if let Err(error) = end.send(frame) {
            self.fail(format!("cannot write to the wire: {error}"));
        }
        self.observe(from.other());
    }

    fn forward_due(&mut self) {
        let now = Instant::now();
        while let Some(place) = self.kept.iter().position(|kept| kept.due.is_some_and(|due| due <= now)) {
            self.release(place, Fate::Delivered);
        }
    }

    fn release(&mut self, place: usize, fate: Fate) {
        let kept = self.kept.remove(place);
        self.put(EventKind::Fate { id: kept.id, fate });
        if fate != Fate::Dropped {
            for later in &mut self.kept {
                later.is_stale |= later.repeats(kept.from, kept.packet.as_ref());
            }
            self.delivered.push((kept.from, kept.packet.clone()));
            self.forward(kept.from, &kept.frame);
        }
        if fate == Fate::Duplicated {
            self.forward(kept.from, &kept.frame);
        }
    }

    /// The packets that the wire keeps, without those that the kernel has sent again.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Kept> {
        let is_first = |place: usize, kept: &Kept| {
            let before = self.kept[..place].iter().map(|before| (before.from, &before.packet));
            let delivered = self.delivered.iter().map(|(from, packet)| (*from, packet));
            !before.chain(delivered).any(|(from, packet)| kept.repeats(from, packet.as_ref()))
        };
        let kept = self.kept.iter().enumerate();
        kept.filter(move |(place, kept)| is_first(*place, kept)).map(|(_, kept)| kept)
    }

    /// Decides what becomes of the oldest packet that the wire holds and `select` means, and
    /// returns what it is. `None` if there is none. What repeats a delivered packet is chosen only
    /// `with_repeated`.
    pub(crate) fn decide(&mut self, select: &Select, fate: Fate, with_repeated: bool) -> Option<String> {
        let is_meant = |kept: &Kept| !kept.is_stale && select.matches(kept.from, kept.packet.as_ref());
        let first = self.held().find(|kept| is_meant(kept)).map(|kept| kept.id);
        let is_chosen = |kept: &Kept| match first {
            Some(id) => kept.id == id,
            None => with_repeated && is_meant(kept),
        };
        let place = self.kept.iter().position(is_chosen)?;
        let kept = &self.kept[place];
        let text = kept.packet.as_ref().map_or("a packet".to_owned(), Packet::to_string);
        let text = format!("{} > {}  {text}", kept.from, kept.from.other());
        self.release(place, fate);
        Some(text)
    }

    /// Decides what becomes of a packet that the wire holds, at the wish of a user. Returns whether
    /// there is such a packet.
    pub(crate) fn decide_by_hand(&mut self, id: u64, fate: Fate) -> bool {
        let Some(place) = self.kept.iter().position(|kept| kept.id == id) else { return false };
        let kept = &self.kept[place];
        self.by_hand.push((kept.from, kept.packet.clone(), fate));
        self.release(place, fate);
        true
    }

    /// Returns what a user has already decided in place of a line of the scenario.
    pub(crate) fn decided_by_hand(&mut self, select: &Select, fate: Fate) -> Option<String> {
        let is_same = |other: Fate| (other == Fate::Dropped) == (fate == Fate::Dropped);
        let place = self
            .by_hand
            .iter()
            .position(|(from, packet, other)| is_same(*other) && select.matches(*from, packet.as_ref()))?;
        let (from, packet, _) = self.by_hand.remove(place);
        let text = packet.map_or("a packet".to_owned(), |packet| packet.to_string());
        Some(format!("{from} > {}  {text}, by hand", from.other()))
    }

    /// Decides what becomes of the next packet that arrives and `select` means.
    pub(crate) fn arm(&mut self, select: Select, fate: Fate) {
        self.armed.push((fate, select));
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        if policy == Policy::Pass {
            while !self.kept.is_empty() {
                self.release(0, Fate::Delivered);
            }
        }
    }

    fn count_losses(&mut self) {
        let lost: u64 = self.ends.iter().map(|end| end.lost()).sum();
        if lost > 0 {
            self.lost += lost;
            self.put(EventKind::Note(format!(
                "the tool itself lost {lost} packets, because they came faster than it reads them"
            )));
        }
    }

    pub(crate) fn begin_call(
        &mut self,
        host: HostName,
        (object, function, args): (&str, &str, &str),
        line: usize,
    ) -> u64 {
        self.put_call(host, (object, function, args), line, None)
    }

    /// A thread of a program that is watched begins a call.
    pub(crate) fn begin_foreign(
        &mut self,
        host: HostName,
        thread: i32,
        (object, function, args): (&str, &str, &str),
    ) -> u64 {
        self.put_call(host, (object, function, args), 0, Some(thread))
    }

    fn put_call(
        &mut self,
        host: HostName,
        (object, function, args): (&str, &str, &str),
        line: usize,
        thread: Option<i32>,
    ) -> u64 {
        let id = self.next_call;
        self.next_call += 1;
        self.put(EventKind::Call {
            id,
            host,
            object: object.to_owned(),
            function: function.to_owned(),
            args: args.to_owned(),
            line,
            thread,
        });
        id
    }

    /// Gives a socket of a program that is watched its name.
    pub(crate) fn name_foreign(&mut self, cookie: u64, name: &str, host: HostName, is_udp: bool) {
        self.with_udp |= is_udp;
        self.names.entry(cookie).or_insert_with(|| name.to_owned());
        self.hosts_of.insert(cookie, host);
        self.put(EventKind::Name { cookie, name: name.to_owned() });
    }

    /// Gives sockets that a call has made their names.
    pub(crate) fn name_sockets(&mut self, names: &[String], made: Made) {
        for (name, (host, sock)) in names.iter().zip(made) {
            let cookie = sock.cookie().unwrap_or_default();
            self.with_udp |= sock.kind().without_flags() == SOCK_DGRAM;
            // A duplicate of a descriptor is the same socket.
            self.names.entry(cookie).or_insert_with(|| name.clone());
            self.hosts_of.insert(cookie, host);
            self.put(EventKind::Name { cookie, name: name.clone() });
            let is_bound =
                sock.getsockname().is_ok_and(|address| address.port().is_some_and(|port| port != 0));
            self.entries.insert(name.clone(), Entry { host, sock: Some(sock), cookie, is_bound });
        }
    }

    pub(crate) fn end_call(&mut self, id: u64, outcome: Outcome, took: Duration) {
        let (value, errno) = match &outcome {
            Outcome::Value(value) => (value.to_string(), None),
            Outcome::Errno(name) => (format!("-1 {name}"), Some(name.clone())),
            Outcome::Refused(text) => (text.clone(), None),
        };
        self.put(EventKind::Return { id, value, errno, took });
        self.results.insert(id, outcome);
        self.observe_both();
    }
}
