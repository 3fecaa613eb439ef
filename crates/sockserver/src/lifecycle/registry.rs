//! The registry of a server's requests: counters, deadlines, drain.

mod client_address;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use sock::{Address, SHUT_RDWR, Socket};

use crate::connection::Connection;
use crate::connection::state::ConnState;
use crate::lifecycle::current_server::{AcceptingThread, ServingThread};
use crate::lifecycle::deadline_timer::{DeadlineTimer, Expire};
use crate::lifecycle::scoreboard::{Scoreboard, Slot};
use crate::limits::Limits;
use crate::limits::clock::NEVER;
use crate::limits::drain_report::{AbortedRequest, DrainReport};
use crate::limits::permits::{Permit, Permits};
use crate::limits::slab::ChunkedVec;
use crate::limits::stats::{Outcome, Stats};
use crate::os::interleave::{self, yield_point};
use crate::os::process::Pid;
use crate::os::waker::Waker;

/// How long a drain waits for aborted requests to end.
const ABORT_GRACE: Duration = Duration::from_millis(150);

/// How often a drain looks for connections that have become idle.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The requests that a server serves, and the counters of those that have ended.
pub(crate) struct Registry {
    pub(crate) permits: Arc<Permits>,
    table: Mutex<Table>,
    /// Notified when a request ends during a drain.
    ended: Condvar,
    /// Notified when an entry is released whose owner waits: see [`EntryGuard`].
    released: Condvar,
    draining: AtomicBool,
    pub(crate) deadline_timer: DeadlineTimer,
    /// The counters of worker processes.
    worker_scoreboard: OnceLock<Arc<Scoreboard>>,
    /// The slot where a worker process publishes its counters.
    own_slot: OnceLock<Slot>,
}

#[derive(Default)]
struct Table {
    stats: Stats,
    entries: ChunkedVec<Option<Arc<Connection>>>,
    free: Vec<u32>,
    /// Second descriptors of connections in `wrap_request`, which has the first.
    wrapping: HashMap<u32, Arc<Socket>>,
    /// Entries that are used without the lock: see [`EntryGuard`].
    guarded: Vec<u32>,
    /// Owners of entries that wait for [`Registry::released`].
    waiting_for_release: usize,
    by_ip: HashMap<IpAddr, usize>,
    /// Running drains.
    drains: usize,
    /// A drain gave up on a handler that does not return.
    abandoned: bool,
    /// The datagram that a loop serves itself.
    inline: Option<InlineRequest>,
    /// Connections that a drain closed while they were idle.
    closed_idle: u64,
    report: Option<DrainReport>,
}

/// A datagram that a loop serves itself. Only a drain uses it, for its report.
struct InlineRequest {
    client_address: Address,
    since: u32,
    aborted: bool,
}

/// A request's entry in the registry, until the request has ended.
pub(crate) struct Entry {
    connection: Arc<Connection>,
    /// Requests are numbered from 1.
    number: u64,
    slot: u32,
    state: EntryState,
}

/// How far the end of a request has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryState {
    Open,
    /// The transport is closed.
    Closed,
    /// The request is counted as ended.
    Ended,
}

/// The address has too many connections already.
pub(crate) struct PerIpLimitReached;

impl Registry {
    pub(crate) fn new(limits: Limits, waker: Arc<Waker>) -> Arc<Registry> {
        Arc::new(Registry {
            permits: Permits::new(limits, waker),
            table: Mutex::default(),
            ended: Condvar::new(),
            released: Condvar::new(),
            draining: AtomicBool::new(false),
            deadline_timer: DeadlineTimer::default(),
            worker_scoreboard: OnceLock::new(),
            own_slot: OnceLock::new(),
        })
    }

    pub(crate) fn set_worker_scoreboard(&self, board: Arc<Scoreboard>) {
        let _ = self.worker_scoreboard.set(board);
    }

    pub(crate) fn set_own_slot(&self, slot: Slot) {
        let _ = self.own_slot.set(slot);
    }

    /// Publishes the counters to the parent process, if there is one.
    fn publish(&self, stats: &Stats) {
        if let Some(mirror) = self.own_slot.get() {
            mirror.publish(stats);
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.permits.clock().limits()
    }

    /// Adds a request that has just been accepted.
    pub(crate) fn enter(
        &self,
        client_address: Address,
        socket: Option<Socket>,
        permit: Permit,
    ) -> (Entry, Result<(), PerIpLimitReached>) {
        let connection = Arc::new(Connection::new(client_address, socket, permit));
        let mut table = self.table.lock();
        table.stats.begin();
        self.publish(&table.stats);
        let allowed = table.count_ip(connection.client_address(), self.limits().max_connections_per_ip);
        let slot = match table.free.pop() {
            Some(slot) => slot,
            None => table.entries.push(None) as u32,
        };
        table.entries[slot as usize] = Some(Arc::clone(&connection));
        let number = table.stats.accepted;
        (Entry { connection, number, slot, state: EntryState::Open }, allowed)
    }

    /// Adds a datagram that the loop serves itself, and returns its number. There is one at a
    /// time, because a server has one loop.
    pub(crate) fn begin_inline(&self, client_address: &Address) -> u64 {
        let mut table = self.table.lock();
        table.stats.begin();
        self.publish(&table.stats);
        let (client_address, since) = (client_address.clone(), self.permits.clock().stamp());
        table.inline = Some(InlineRequest { client_address, since, aborted: false });
        table.stats.accepted
    }

    /// Ends that datagram, and returns the outcome that it is counted as.
    pub(crate) fn end_inline(&self, outcome: Outcome) -> Outcome {
        let mut table = self.table.lock();
        let was_cut = table.inline.take().is_some_and(|datagram| datagram.aborted);
        let outcome = match outcome {
            Outcome::Finished | Outcome::Failed if was_cut => Outcome::Aborted,
            outcome => outcome,
        };
        self.count(&mut table, outcome);
        outcome
    }

    pub(crate) fn lost_before_accept(&self) {
        let mut table = self.table.lock();
        table.stats.lost_before_accept += 1;
        self.publish(&table.stats);
    }

    pub(crate) fn stats(&self) -> Stats {
        let table = self.table.lock();
        let between = table.connections().filter(|connection| connection.state() == ConnState::Idle);
        let stats = Stats { idle: between.count() as u64, ..table.stats };
        self.worker_scoreboard.get().map_or(stats, |board| board.stats().plus(&stats))
    }

    /// Ends overdue connections. Returns when the next one may be overdue.
    pub(crate) fn expire_overdue(&self) -> u64 {
        self.expire_overdue_at(self.now())
    }

    /// [`expire_overdue`](Self::expire_overdue) at a time of the clock.
    pub(crate) fn expire_overdue_at(&self, now: u64) -> u64 {
        let mut from = 0;
        while let Some(held) = self.guard_next(&mut from, |connection| connection.due() <= now) {
            let Some(deadline) = held.connection().end_if_overdue(now) else { continue };
            held.abort_wrapping();
            let client_address = held.connection().client_address().clone();
            drop(held);
            log::debug!("request from {client_address} ended: {deadline} deadline");
        }
        let table = self.table.lock();
        table.connections().map(|connection| connection.next_look()).min().unwrap_or(NEVER)
    }

    /// Guards the next entry whose connection is `wanted`, from the slot `from` on.
    fn guard_next(&self, from: &mut u32, wanted: impl Fn(&Connection) -> bool) -> Option<EntryGuard<'_>> {
        let mut table = self.table.lock();
        let next = table.iter_slots_from(*from).find(|(_, connection)| wanted(connection));
        let (slot, connection) = next.map(|(slot, connection)| (slot, Arc::clone(connection)))?;
        let wrapping = table.wrapping.get(&slot).cloned();
        *from = slot + 1;
        table.guarded.push(slot);
        Some(EntryGuard { registry: self, slot, connection: Some(connection), wrapping })
    }

    /// Waits until no [`EntryGuard`] holds an entry. Its owner closes the connection, which may
    /// take long, so no guard may drop the last reference.
    #[inline]
    fn wait_for_release(&self, table: &mut MutexGuard<'_, Table>, slot: u32) {
        if !table.guarded.is_empty() {
            self.wait_while_held(table, slot);
        }
    }

    #[cold]
    fn wait_while_held(&self, table: &mut MutexGuard<'_, Table>, slot: u32) {
        if table.guarded.contains(&slot) {
            table.waiting_for_release += 1;
            interleave::wait(&self.released, table, |table| !table.guarded.contains(&slot));
            table.waiting_for_release -= 1;
        }
    }

    /// The time until the next deadline, for a loop without a deadline timer.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let next = self.table.lock().connections().map(|connection| connection.due()).min();
        let left = next.filter(|&next| next < NEVER)?.saturating_sub(self.now());
        Some(Duration::from_millis(left))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Makes loops that end wait for a drain that is about to begin.
    pub(crate) fn announce_drain(&self) -> DrainGuard<'_> {
        self.table.lock().drains += 1;
        DrainGuard { registry: self }
    }

    /// Begins a drain. Only accepted requests are served from now on.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Closes idle connections, waits for requests, and aborts the rest at the limit. `collect` is
    /// called regularly, to record what has ended. `serving` returns whether a loop may still have
    /// a client.
    pub(crate) fn drain(
        &self,
        limit: Duration,
        hurry: &dyn Fn() -> bool,
        collect: &dyn Fn(),
        serving: &dyn Fn() -> bool,
    ) -> DrainReport {
        let begin = Instant::now();
        let until = begin.checked_add(limit);
        let (before, dismissed) = {
            let table = self.table.lock();
            (table.stats, table.closed_idle)
        };
        let is_over = || until.is_some_and(|until| Instant::now() >= until) || hurry();
        loop {
            self.close_idle(&is_over);
            collect();
            // It makes a system call, so it is called without the lock.
            if is_over() {
                break;
            }
            let mut table = self.table.lock();
            if table.stats.in_flight == 0 && !serving() {
                break;
            }
            let look = Instant::now() + DRAIN_POLL_INTERVAL;
            self.ended.wait_until(&mut table, until.map_or(look, |until| until.min(look)));
        }
        let cut = self.abort_all();
        let grace = Instant::now() + ABORT_GRACE;
        let mut table = loop {
            collect();
            let mut table = self.table.lock();
            let now = Instant::now();
            if now >= grace || table.stats.in_flight == 0 && !serving() {
                break table;
            }
            self.ended.wait_until(&mut table, grace.min(now + DRAIN_POLL_INTERVAL));
        };
        table.abandoned |= table.stats.in_flight > 0;
        let all = before.in_flight + (table.stats.accepted - before.accepted);
        let idle = table.closed_idle - dismissed;
        // Requests that were accepted too late to be aborted have not ended either.
        let late = table.connections().filter(|connection| !connection.state().is_terminal()).count();
        let late = late + table.inline.iter().filter(|datagram| !datagram.aborted).count();
        let finished = all.saturating_sub(idle + (cut.len() + late) as u64);
        let report = DrainReport {
            finished,
            idle,
            aborted: cut,
            still_running: table.stats.in_flight,
            elapsed: begin.elapsed(),
        };
        table.report = Some(report.clone());
        report
    }

    /// Stores the report of a drain that other processes have done.
    pub(crate) fn set_report(&self, report: DrainReport) {
        self.draining.store(true, Ordering::Release);
        self.table.lock().report = Some(report);
    }

    /// Notifies a drain that a loop has ended.
    pub(crate) fn notify_loop_ended(&self) {
        let _book = self.table.lock();
        self.ended.notify_all();
    }

    /// The report of the last drain.
    pub(crate) fn last_report(&self) -> Option<DrainReport> {
        self.table.lock().report.clone()
    }

    /// Closes idle connections until `is_over`.
    pub(crate) fn close_idle(&self, is_over: &dyn Fn() -> bool) {
        let mut from = 0;
        while let Some(held) = self.guard_next(&mut from, |connection| connection.state().is_idle()) {
            yield_point();
            held.connection().close_if_idle();
            yield_point();
            drop(held);
            if is_over() {
                return;
            }
        }
    }

    /// Aborts all requests and returns them. A connection that a deadline has ended is among them
    /// if its handler has not returned.
    pub(crate) fn abort_all(&self) -> Vec<AbortedRequest> {
        use ConnState::{AwaitingFirstByte, DrainClosed, Idle, Queued, Serving, Wrapping};
        let phases = [Queued, Wrapping, AwaitingFirstByte, Serving, Idle, DrainClosed];
        let is_left = |phase| phases.contains(&phase) || matches!(phase, ConnState::Overdue(_));
        let (mut cut, mut from) = (Vec::new(), 0);
        while let Some(held) = self.guard_next(&mut from, |connection| is_left(connection.state())) {
            yield_point();
            let connection = held.connection();
            let ended = connection.end_for_drain(&phases, ConnState::DrainAborted);
            if ended {
                held.abort_wrapping();
            }
            if ended || matches!(connection.state(), ConnState::Overdue(_)) {
                let client_address = connection.client_address().clone();
                cut.push(AbortedRequest { client_address, age: connection.age() });
            }
        }
        let mut table = self.table.lock();
        if let Some(datagram) = table.inline.as_mut().filter(|datagram| !datagram.aborted) {
            datagram.aborted = true;
            cut.push(AbortedRequest {
                client_address: datagram.client_address.clone(),
                age: self.permits.clock().since(datagram.since),
            });
        }
        cut
    }

    /// Whether this thread serves a request of the server, so that it cannot wait for its end.
    pub(crate) fn is_serving_thread(self: &Arc<Self>) -> bool {
        ServingThread::is_for(self)
    }

    /// Whether this thread accepts for the server, so that it cannot wait for its stop.
    pub(crate) fn is_accepting_here(self: &Arc<Self>) -> bool {
        AcceptingThread::is_for(self)
    }

    /// Waits until no drain is running.
    pub(crate) fn wait_for_drains(&self) {
        let mut table = self.table.lock();
        while table.drains > 0 {
            self.ended.wait(&mut table);
        }
    }

    /// Waits until no request is in flight, for `close_timeout` at most. Requests that a drain has
    /// given up on, and the one of this thread, do not count. Returns whether none is left.
    pub(crate) fn wait_until_idle(self: &Arc<Self>) -> bool {
        let own = u64::from(self.is_serving_thread());
        let until = self.limits().close_timeout.and_then(|limit| Instant::now().checked_add(limit));
        let mut table = self.table.lock();
        // The end of a request notifies only drains, so this counts as one.
        table.drains += 1;
        while table.stats.in_flight > own && !table.abandoned {
            match until {
                Some(until) => {
                    if self.ended.wait_until(&mut table, until).timed_out() {
                        break;
                    }
                }
                None => self.ended.wait(&mut table),
            }
        }
        table.drains -= 1;
        let left = table.stats.in_flight - own.min(table.stats.in_flight);
        drop(table);
        if left > 0 {
            log::warn!("closed while {left} requests still run");
        }
        left == 0
    }

    /// Stops the deadline timer, or lets it end with the last request.
    pub(crate) fn close(&self) {
        let left = self.table.lock().stats.in_flight > 0;
        self.deadline_timer.stop(left);
    }

    /// Counts a request as ended.
    fn count(&self, table: &mut Table, outcome: Outcome) {
        table.stats.end(outcome);
        self.publish(&table.stats);
        if table.drains > 0 {
            self.ended.notify_all();
        }
    }
}

impl Expire for Registry {
    fn deadline_timer(&self) -> &DeadlineTimer {
        &self.deadline_timer
    }

    fn expire(&self) -> u64 {
        self.expire_overdue()
    }

    fn is_empty(&self) -> bool {
        self.table.lock().stats.in_flight == 0
    }

    fn now(&self) -> u64 {
        self.permits.clock().now()
    }

    fn shortest_deadline(&self) -> Option<Duration> {
        self.limits().shortest()
    }
}

impl Table {
    fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.entries.iter().flatten()
    }

    fn iter_slots_from(&self, from: u32) -> impl Iterator<Item = (u32, &Arc<Connection>)> {
        let line = move |slot| Some((slot, self.entries[slot as usize].as_ref()?));
        (from..self.entries.len() as u32).filter_map(line)
    }

    fn count_ip(&mut self, address: &Address, most: Option<usize>) -> Result<(), PerIpLimitReached> {
        let (Some(most), Some(ip)) = (most, address.ip()) else {
            return Ok(());
        };
        let count = self.by_ip.entry(ip.to_canonical()).or_default();
        *count += 1;
        if *count > most { Err(PerIpLimitReached) } else { Ok(()) }
    }

    fn forget_ip(&mut self, address: &Address, most: Option<usize>) {
        let (Some(_), Some(ip)) = (most, address.ip().map(|ip| ip.to_canonical())) else {
            return;
        };
        if let Some(count) = self.by_ip.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.by_ip.remove(&ip);
            }
        }
    }
}

impl Entry {
    /// Returns the client's address.
    pub(crate) fn client_address(&self) -> &Address {
        self.connection.client_address()
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Enters a state and makes sure that its deadline is enforced. Returns false if the connection
    /// has been ended meanwhile.
    #[inline(always)]
    pub(crate) fn enter(&self, registry: &Arc<Registry>, phase: ConnState) -> bool {
        let next_look = self.connection.enter_until(phase);
        if let Some(next_look) = next_look {
            DeadlineTimer::watch(registry, next_look);
        }
        if let Some(deadline) = phase.deadline().filter(|_| phase.is_idle()) {
            let timer = &registry.deadline_timer;
            let ends_wait = timer.is_running() && registry.permits.clock().ends_before_read(deadline);
            self.connection.set_timer_ends_wait(ends_wait);
        }
        next_look.is_some()
    }

    /// Stores a second descriptor while `wrap_request` has the first.
    pub(crate) fn set_wrapping(&self, registry: &Registry, socket: Option<Socket>) {
        let mut table = registry.table.lock();
        let former = match socket {
            Some(socket) => table.wrapping.insert(self.slot, Arc::new(socket)),
            None => table.wrapping.remove(&self.slot),
        };
        registry.wait_for_release(&mut table, self.slot);
        drop(table);
        // This closes the socket, which may linger.
        drop(former);
    }

    /// Passes the connection to a child, and closes the copy of this process.
    pub(crate) fn leave_to_child(&mut self, registry: &Registry, pid: Pid) {
        let mut table = registry.table.lock();
        // No other thread may see the connection while it is changed.
        table.entries[self.slot as usize] = None;
        registry.wait_for_release(&mut table, self.slot);
        let copy = Arc::get_mut(&mut self.connection).and_then(|connection| connection.serve_in_child(pid));
        table.entries[self.slot as usize] = Some(Arc::clone(&self.connection));
        drop(table);
        drop(copy);
    }

    /// Closes the transport, if there is one.
    pub(crate) fn close(&mut self, registry: &Registry) {
        if self.state != EntryState::Open || !self.connection.is_open() {
            return;
        }
        self.state = EntryState::Closed;
        self.remove(registry, &mut registry.table.lock());
        // The table had the only other reference.
        if let Some(connection) = Arc::get_mut(&mut self.connection) {
            connection.close();
        }
    }

    /// Removes the entry from the table.
    fn remove(&self, registry: &Registry, table: &mut MutexGuard<'_, Table>) {
        let connection = &self.connection;
        table.forget_ip(connection.client_address(), registry.limits().max_connections_per_ip);
        table.closed_idle += u64::from(connection.state() == ConnState::DrainClosed);
        table.entries[self.slot as usize] = None;
        table.free.push(self.slot);
        registry.wait_for_release(table, self.slot);
    }

    /// Ends the request. Its permit is released last, when the descriptor is free.
    pub(crate) fn end(&mut self, registry: &Registry, outcome: Outcome) {
        self.close(registry);
        if self.state == EntryState::Ended {
            return;
        }
        let mut table = registry.table.lock();
        if self.state == EntryState::Open {
            self.remove(registry, &mut table);
        }
        registry.count(&mut table, outcome);
        drop(table);
        self.state = EntryState::Ended;
        log_end(self.number, self.client_address(), outcome);
    }
}

/// Writes the log line of a request.
#[inline]
pub(crate) fn log_end(number: u64, client_address: &Address, outcome: Outcome) {
    log::debug!(
        peer:% = client_address, request = number;
        "request {number} from {client_address}: {outcome:?}"
    );
}

/// Guards an entry for a thread that is not its owner. No system call and no code of the user runs
/// under the registry's lock. The owner closes the connection only when the entry has been
/// released.
struct EntryGuard<'a> {
    registry: &'a Registry,
    slot: u32,
    /// `None` once it is released.
    connection: Option<Arc<Connection>>,
    wrapping: Option<Arc<Socket>>,
}

impl EntryGuard<'_> {
    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("it is held")
    }

    /// Shuts down a connection that is in `wrap_request`.
    fn abort_wrapping(&self) {
        if let Some(socket) = &self.wrapping {
            let _ = socket.shutdown(SHUT_RDWR);
        }
    }
}

impl Drop for EntryGuard<'_> {
    fn drop(&mut self) {
        // Before the owner goes on, because the owner closes what these share.
        drop((self.connection.take(), self.wrapping.take()));
        let mut table = self.registry.table.lock();
        if let Some(place) = table.guarded.iter().position(|slot| *slot == self.slot) {
            table.guarded.swap_remove(place);
        }
        if table.waiting_for_release > 0 {
            self.registry.released.notify_all();
        }
    }
}

/// A running drain, from before it stops the loop until its report is there.
pub(crate) struct DrainGuard<'a> {
    registry: &'a Registry,
}

impl Drop for DrainGuard<'_> {
    fn drop(&mut self) {
        self.registry.table.lock().drains -= 1;
        self.registry.ended.notify_all();
    }
}
