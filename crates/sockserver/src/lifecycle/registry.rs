//! The registry of a server's requests: counters, deadlines, drain.

mod client_address;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use sock::{Address, SHUT_RDWR, Socket};

use crate::connection::Connection;
use crate::connection::state::ConnState;
use crate::lifecycle::current_server::{AcceptingThread, ServingThread};
use crate::lifecycle::deadline_timer::{DeadlineTimer, Expire};
use crate::lifecycle::gauges::ThreadGauges;
use crate::lifecycle::scoreboard::{Scoreboard, Slot};
use crate::limits::Limits;
use crate::limits::clock::NEVER;
use crate::limits::drain_report::{AbortedRequest, DrainReport};
use crate::limits::permits::{Permit, Permits};
use crate::limits::slab::ChunkedVec;
use crate::limits::stats::{Outcome, Stats};
use crate::limits::traffic::Traffic;
use crate::os::interleave::{self, yield_point};
use crate::os::process::Pid;
use crate::os::waker::Waker;

/// How long a drain waits for aborted requests to end.
const ABORT_GRACE: Duration = Duration::from_millis(150);

/// How long a drain waits for the first request of a connection that has sent nothing yet, but not
/// for more than half of its limit. A client that has just connected sends its request within a
/// round trip, or a second later if the segment was lost (RFC 6298).
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// How often a drain looks for connections that have become idle.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The requests that a server serves, and the counters of those that have ended.
pub(crate) struct Registry {
    pub(crate) permits: Arc<Permits>,
    /// Every request locks it when it begins and when it ends. Under it only memory is read and
    /// written, the scoreboard included: no system call, no log line, no code of the user, and no
    /// connection is dropped. What a drain or the deadline timer does with a connection follows when
    /// it is released: see [`EntryGuard`]. The lock of a gate or of a child's table may be held, and
    /// never the other way round.
    table: Mutex<Table>,
    /// Notified when a request ends during a drain.
    ended: Condvar,
    /// Notified when an entry is released whose owner waits: see [`EntryGuard`].
    released: Condvar,
    draining: AtomicBool,
    /// For how many milliseconds a drain leaves idle connections open. 0 when that is over.
    idle_grace: AtomicU64,
    pub(crate) deadline_timer: DeadlineTimer,
    /// Where this process publishes its counters, if the server has several processes.
    published: OnceLock<Published>,
    /// The slot of a forked child, which publishes no counters.
    child_slot: OnceLock<Slot>,
    /// What the threads of this process do. Held to copy or replace the pointer.
    pub(super) thread_gauges: Mutex<Option<Arc<ThreadGauges>>>,
}

/// The counters that the processes of a server share.
struct Published {
    board: Arc<Scoreboard>,
    /// The slot of this process.
    slot: Slot,
    /// The process of the server, 0 in a worker process.
    parent: AtomicU32,
    /// It is a worker process with several connections.
    serves_many: bool,
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
    /// Requests that ended by themselves, and neither by a deadline nor by a drain.
    completed: u64,
    /// Requests that drains have aborted. Each drain reports those since its own beginning.
    aborted: Vec<Aborted>,
    report: Option<DrainReport>,
    /// The counters when the first drain began, until that drain takes them.
    baseline: Option<Baseline>,
}

/// A request that a drain has aborted: its slot and the time when it was accepted, which identify
/// it, and what is reported.
#[derive(Clone)]
struct Aborted {
    slot: Option<u32>,
    since: u32,
    request: AbortedRequest,
}

/// The counters at the beginning of a drain.
pub(crate) struct Baseline {
    begin: Instant,
    idle: u64,
    completed: u64,
    /// How many requests were recorded as aborted.
    cut: usize,
    /// Requests that another drain has aborted and that have not ended.
    aborted: Vec<Aborted>,
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
    /// A worker process has published that the connection is idle.
    is_idle: AtomicBool,
    /// A worker process has counted the connection for its client address.
    is_counted: AtomicBool,
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
    #[cfg(test)]
    pub(crate) fn new(limits: Limits, waker: Arc<Waker>) -> Arc<Registry> {
        let traffic = Traffic::new(false, &limits.duration_buckets).unwrap();
        Registry::with_traffic(limits, waker, traffic)
    }

    pub(crate) fn with_traffic(limits: Limits, waker: Arc<Waker>, traffic: Arc<Traffic>) -> Arc<Registry> {
        Arc::new(Registry {
            permits: Permits::with_traffic(limits, waker, traffic),
            table: Mutex::default(),
            ended: Condvar::new(),
            released: Condvar::new(),
            draining: AtomicBool::new(false),
            idle_grace: AtomicU64::new(0),
            deadline_timer: DeadlineTimer::default(),
            published: OnceLock::new(),
            child_slot: OnceLock::new(),
            thread_gauges: Mutex::default(),
        })
    }

    /// Shares the counters with the processes that this process forks from now on.
    ///
    /// # Errors
    ///
    /// Returns an error if memory cannot be mapped.
    pub(crate) fn share_stats(&self, workers: usize) -> io::Result<Arc<Scoreboard>> {
        let own = std::process::id();
        if let Some(published) = self.published.get() {
            // It was forked after its parent had served, and serves itself now.
            if ![own, 0].contains(&published.parent.load(Ordering::Relaxed)) {
                published.board.renew()?;
                published.parent.store(own, Ordering::Relaxed);
                published.slot.publish(&self.table.lock().stats);
            }
            return Ok(Arc::clone(&published.board));
        }
        let board = Arc::new(Scoreboard::new(workers)?);
        self.publish_to(&board, board.parent_slot(), own, false);
        Ok(board)
    }

    /// Publishes the counters of a worker process in its slot. With `serves_many` it has several
    /// connections, for which the limits of the whole server apply.
    pub(crate) fn publish_in_worker(&self, board: &Arc<Scoreboard>, slot: Slot, serves_many: bool) {
        if serves_many {
            self.permits.share(slot.permits());
        }
        self.publish_to(board, slot, 0, serves_many);
    }

    fn publish_to(&self, board: &Arc<Scoreboard>, slot: Slot, parent: u32, serves_many: bool) {
        let table = self.table.lock();
        slot.publish(&table.stats);
        let (board, parent) = (Arc::clone(board), AtomicU32::new(parent));
        let published = Published { board, slot, parent, serves_many };
        let _ = self.published.set(published);
    }

    /// Publishes the counters to the other processes of the server, if there are any.
    fn publish(&self, stats: &Stats) {
        if let Some(published) = self.published.get() {
            published.slot.publish(stats);
        }
    }

    /// Publishes that a handler has returned, if this is a worker process or a forked child.
    #[inline]
    pub(crate) fn count_request_of_worker(&self) {
        if let Some(slot) = self.process_slot() {
            slot.count_request();
        }
    }

    /// Sets the slot of a forked child.
    pub(crate) fn set_child_slot(&self, slot: Slot) {
        let _ = self.child_slot.set(slot);
    }

    /// The memory that the processes of the server share, if there is some.
    pub(crate) fn board(&self) -> Option<&Scoreboard> {
        self.published.get().map(|published| &*published.board)
    }

    /// The slot of this process, if it is a worker process.
    #[inline]
    fn worker_slot(&self) -> Option<&Slot> {
        let published = self.published.get()?;
        (published.parent.load(Ordering::Relaxed) == 0).then_some(&published.slot)
    }

    /// The slot of this process, if it is a worker process or a forked child.
    #[inline]
    fn process_slot(&self) -> Option<&Slot> {
        let published = self.published.get()?;
        match published.parent.load(Ordering::Relaxed) {
            0 => Some(&published.slot),
            _ => self.child_slot.get(),
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
        // A connection counts for a proxy only if its header names no client.
        let allowed = match self.limits().expects_proxy_header() {
            true => Ok(()),
            false => table.count_ip(connection.client_address(), self.limits().max_connections_per_ip),
        };
        let slot = match table.free.pop() {
            Some(slot) => slot,
            None => table.entries.push(None) as u32,
        };
        table.entries[slot as usize] = Some(Arc::clone(&connection));
        let number = table.stats.accepted;
        drop(table);
        let (is_idle, is_counted) = (AtomicBool::new(false), AtomicBool::new(false));
        let entry = Entry { connection, number, slot, state: EntryState::Open, is_idle, is_counted };
        (entry, allowed)
    }

    /// Ends overdue connections, and returns for how many the worker has not returned since.
    pub(crate) fn overdue(&self) -> usize {
        self.expire_overdue();
        let is_overdue = |state| matches!(state, ConnState::Overdue(_));
        self.table.lock().connections().filter(|connection| is_overdue(connection.state())).count()
    }

    /// Waits until a request ends, for `limit` at most. Returns whether none is in flight.
    pub(crate) fn wait_for_an_end(&self, limit: Duration) -> bool {
        let mut table = self.table.lock();
        // The end of a request notifies only drains, so this counts as one.
        table.drains += 1;
        if table.stats.in_flight > 0 {
            self.ended.wait_for(&mut table, limit);
        }
        table.drains -= 1;
        self.ended.notify_all();
        table.stats.in_flight == 0
    }

    /// Adds a datagram that the loop serves itself, and returns its number. There is one at a
    /// time, because a server has one loop. Also returns the time: see [`Clock::stamp`].
    ///
    /// [`Clock::stamp`]: crate::limits::clock::Clock::stamp
    pub(crate) fn begin_inline(&self, client_address: &Address) -> (u64, u32) {
        let mut table = self.table.lock();
        table.stats.begin();
        self.publish(&table.stats);
        let (client_address, since) = (client_address.clone(), self.permits.clock().stamp());
        table.inline = Some(InlineRequest { client_address, since, aborted: false });
        (table.stats.accepted, since)
    }

    /// Ends that datagram, and returns the outcome that it is counted as.
    pub(crate) fn end_inline(&self, outcome: Outcome) -> Outcome {
        let mut table = self.table.lock();
        let was_cut = table.inline.take().is_some_and(|datagram| datagram.aborted);
        table.completed += u64::from(!was_cut && outcome.is_completed());
        let outcome = match outcome {
            Outcome::Finished | Outcome::Failed | Outcome::Disconnected if was_cut => Outcome::Aborted,
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

    /// The counters of the whole server, in whichever of its processes it is called.
    pub(crate) fn stats(&self) -> Stats {
        let Some(published) = self.published.get() else { return self.own_stats() };
        let parent = match published.parent.load(Ordering::Relaxed) == std::process::id() {
            true => self.own_stats(),
            // A worker, or a forked child, whose copy of the table is out of date.
            false => published.board.parent_stats(),
        };
        parent.plus(&published.board.stats())
    }

    /// The counters of this process alone.
    pub(crate) fn own_stats(&self) -> Stats {
        let table = self.table.lock();
        let between = table.connections().filter(|connection| connection.state() == ConnState::Idle);
        Stats { idle: between.count() as u64, ..table.stats }
    }

    /// Ends overdue connections. Returns when the next one may be overdue.
    pub(crate) fn expire_overdue(&self) -> u64 {
        self.expire_overdue_at(self.now())
    }

    /// [`expire_overdue`](Self::expire_overdue) at a time of the clock.
    pub(crate) fn expire_overdue_at(&self, now: u64) -> u64 {
        let mut from = 0;
        while let Some(held) = self.guard_next(&mut from, |connection| connection.due() <= now) {
            // The worker logs it: a logger that blocks must not delay the other deadlines.
            if held.connection().end_if_overdue(now).is_some() {
                held.abort_wrapping();
            }
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
        let next = self.earliest_due();
        (next < NEVER).then(|| Duration::from_millis(next.saturating_sub(self.now())))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Makes loops that end wait for a drain that is about to begin.
    pub(crate) fn announce_drain(&self) -> DrainGuard<'_> {
        self.table.lock().drains += 1;
        DrainGuard { registry: self }
    }

    /// Takes the counters from which the first drain counts. It is called before handlers see the stop,
    /// and [`begin_drain`](Self::begin_drain) follows.
    pub(crate) fn take_baseline(&self) {
        let mut table = self.table.lock();
        if !self.is_draining() && table.baseline.is_none() {
            table.baseline = Some(table.count());
        }
    }

    /// Begins a drain. Only accepted requests are served from now on. The first drain counts from
    /// [`take_baseline`](Self::take_baseline) or from here, because a loop may serve requests before the
    /// drain waits for them.
    /// Returns whether it is the first drain.
    pub(crate) fn begin_drain(&self) -> bool {
        let mut table = self.table.lock();
        if self.draining.swap(true, Ordering::AcqRel) {
            return false;
        }
        if table.baseline.is_none() {
            table.baseline = Some(table.count());
        }
        true
    }

    /// Returns the counters at the beginning of a drain, from which its report is computed. It is
    /// called after [`begin_drain`](Self::begin_drain).
    pub(crate) fn baseline(&self) -> Baseline {
        let mut table = self.table.lock();
        table.baseline.take().unwrap_or_else(|| table.count())
    }

    /// Sets how long the drain that follows leaves idle connections open, for requests that are on
    /// their way. Each one is closed after its next answer.
    pub(crate) fn set_idle_grace(&self, grace: Duration) {
        self.idle_grace.store(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// Returns the time that [`set_idle_grace`](Self::set_idle_grace) has set, zero when it is over.
    pub(crate) fn idle_grace(&self) -> Duration {
        Duration::from_millis(self.idle_grace.load(Ordering::Acquire))
    }

    /// Returns whether idle connections are to be closed.
    pub(crate) fn closes_idle(&self) -> bool {
        self.is_draining() && self.idle_grace().is_zero()
    }

    /// Closes idle connections, waits for requests, and aborts the rest at the limit. `collect` is
    /// called regularly, to record what has ended, with whether the limit is over. `serving`
    /// returns whether a loop may still have a client.
    pub(crate) fn drain(
        &self,
        baseline: Baseline,
        limit: Duration,
        hurry: &dyn Fn() -> bool,
        collect: &dyn Fn(bool),
        serving: &dyn Fn() -> bool,
    ) -> DrainReport {
        let Baseline { begin, idle: idle_before, completed: completed_before, cut, mut aborted } = baseline;
        let until = Instant::now().checked_add(limit);
        let mut silent = Silent::within(limit, self.idle_grace());
        let is_over = || until.is_some_and(|until| Instant::now() >= until) || hurry();
        loop {
            if silent.idle_until.is_none_or(|until| Instant::now() >= until) {
                self.set_idle_grace(Duration::ZERO);
            }
            self.close_idle(&mut silent, &is_over);
            collect(false);
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
        collect(true);
        self.abort_all();
        let grace = Instant::now() + ABORT_GRACE;
        let mut table = loop {
            collect(true);
            let mut table = self.table.lock();
            let now = Instant::now();
            if now >= grace || table.stats.in_flight == 0 && !serving() {
                break table;
            }
            self.ended.wait_until(&mut table, grace.min(now + DRAIN_POLL_INTERVAL));
        };
        table.abandoned |= table.stats.in_flight > 0;
        let known = |other: &Aborted| aborted.iter().any(|one: &Aborted| one.is_same(other));
        let later: Vec<_> = table.aborted[cut..].iter().filter(|other| !known(other)).cloned().collect();
        aborted.extend(later);
        let report = DrainReport {
            finished: table.completed - completed_before,
            idle: table.closed_idle - idle_before,
            aborted: aborted.into_iter().map(|aborted| aborted.request).collect(),
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

    /// Closes idle connections until `is_over`. Those that have sent nothing yet get time for their
    /// first request.
    pub(crate) fn close_idle(&self, silent: &mut Silent, is_over: &dyn Fn() -> bool) {
        let (now, mut from) = (Instant::now(), 0);
        while let Some(held) = self.guard_next(&mut from, |connection| connection.state().is_idle()) {
            yield_point();
            if !silent.may_close(&held, now) {
                continue;
            }
            held.connection().close_if_idle();
            yield_point();
            drop(held);
            if is_over() {
                return;
            }
        }
    }

    /// Aborts all requests and records them for the reports. A connection that a deadline has ended
    /// is among them if its handler has not returned.
    pub(crate) fn abort_all(&self) {
        use ConnState::{AwaitingFirstByte, DrainClosed, Idle, ProxyHeader, Queued, Serving, Wrapping};
        let phases = [Queued, ProxyHeader, Wrapping, AwaitingFirstByte, Serving, Idle, DrainClosed];
        let is_left = |phase| phases.contains(&phase) || matches!(phase, ConnState::Overdue(_));
        let mut from = 0;
        while let Some(held) = self.guard_next(&mut from, |connection| is_left(connection.state())) {
            yield_point();
            let connection = held.connection();
            let ended = connection.end_for_drain(&phases, ConnState::DrainAborted);
            if ended {
                held.abort_wrapping();
            }
            if ended || matches!(connection.state(), ConnState::Overdue(_)) {
                let aborted = Aborted::new(held.slot, connection);
                let mut table = self.table.lock();
                // Another drain may have recorded one that is overdue.
                if ended || !table.aborted.iter().any(|other| other.is_same(&aborted)) {
                    table.aborted.push(aborted);
                }
            }
        }
        let mut table = self.table.lock();
        if let Some(datagram) = table.inline.as_mut().filter(|datagram| !datagram.aborted) {
            datagram.aborted = true;
            let since = datagram.since;
            let (client_address, age) =
                (datagram.client_address.clone(), self.permits.clock().since(since));
            let request = AbortedRequest { client_address, age };
            table.aborted.push(Aborted { slot: None, since, request });
        }
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
        // A loop that ends waits until this is no longer counted as a drain.
        self.ended.notify_all();
        let left = table.stats.in_flight - own.min(table.stats.in_flight);
        drop(table);
        if left > 0 {
            log::warn!(count = left; "closed the server while {left} requests still run");
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

    fn expire(&self, now: u64) -> u64 {
        self.expire_overdue_at(now)
    }

    fn earliest_due(&self) -> u64 {
        self.table.lock().connections().map(|connection| connection.due()).min().unwrap_or(NEVER)
    }

    fn is_empty(&self) -> bool {
        self.table.lock().stats.in_flight == 0
    }

    fn wake_loop(&self) {
        self.permits.wake_loop();
    }

    fn now(&self) -> u64 {
        self.permits.clock().now()
    }

    fn shortest_deadline(&self) -> Option<Duration> {
        self.limits().shortest()
    }
}

impl Table {
    /// Returns the counters from which a drain that begins now counts.
    fn count(&self) -> Baseline {
        // Another drain has aborted them, and their handlers have not returned.
        let aborted = self
            .iter_slots_from(0)
            .filter(|(_, connection)| connection.state() == ConnState::DrainAborted)
            .map(|(slot, connection)| Aborted::new(slot, connection))
            .collect();
        Baseline {
            begin: Instant::now(),
            idle: self.closed_idle,
            completed: self.completed,
            cut: self.aborted.len(),
            aborted,
        }
    }

    fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.entries.iter().flatten()
    }

    fn iter_slots_from(&self, from: u32) -> impl Iterator<Item = (u32, &Arc<Connection>)> {
        let line = move |slot| Some((slot, self.entries[slot as usize].as_ref()?));
        (from..self.entries.len() as u32).filter_map(line)
    }

    fn count_ip(&mut self, address: &Address, most: Option<usize>) -> Result<(), PerIpLimitReached> {
        let Some(most) = most else { return Ok(()) };
        let Some(ip) = address.ip() else { return Ok(()) };
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
        self.enter_at(registry, phase, None)
    }

    /// [`enter`](Self::enter) at a time of the clock, if it was read just before.
    #[inline(always)]
    pub(crate) fn enter_at(&self, registry: &Arc<Registry>, phase: ConnState, now: Option<u64>) -> bool {
        let next_look = self.connection.enter_until(phase, now);
        self.publish_idle(registry, phase == ConnState::Idle);
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

    /// Publishes whether the connection of a worker process or forked child is idle.
    #[inline]
    fn publish_idle(&self, registry: &Registry, is_idle: bool) {
        if let Some(slot) = registry.process_slot() {
            if self.is_idle.swap(is_idle, Ordering::Relaxed) != is_idle {
                slot.count_idle(is_idle);
            }
        }
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
        registry.forget_ip(table, connection);
        self.forget_in_all_workers(registry);
        self.publish_idle(registry, false);
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
        let state = self.connection.state();
        let mut table = registry.table.lock();
        if self.state == EntryState::Open {
            self.remove(registry, &mut table);
        }
        let is_cut = state.is_terminal() || state == ConnState::DrainClosed;
        if !is_cut && outcome.is_completed() {
            table.completed += 1;
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
        peer:% = client_address, request = number, outcome:? = outcome;
        "request {number} from {client_address}: {outcome:?}"
    );
}

impl Aborted {
    fn new(slot: u32, connection: &Connection) -> Aborted {
        let (client_address, age) = (connection.client_address().clone(), connection.age());
        let request = AbortedRequest { client_address, age };
        Aborted { slot: Some(slot), since: connection.accepted_at(), request }
    }

    fn is_same(&self, other: &Aborted) -> bool {
        (self.slot, self.since) == (other.slot, other.since)
    }
}

/// Which idle connections a drain leaves open: those that have sent nothing yet, with the time when it
/// has seen them first, and all until the end of the grace.
pub(crate) struct Silent {
    grace: Duration,
    /// `None` without a grace.
    idle_until: Option<Instant>,
    /// By their slot, with the time when they were accepted.
    seen: HashMap<u32, (u32, Instant)>,
}

impl Silent {
    /// For a drain that may take `limit`, and leaves idle connections open for `idle_grace`, but not for
    /// more than half of the limit.
    fn within(limit: Duration, idle_grace: Duration) -> Silent {
        let idle_until = match idle_grace.min(limit / 2) {
            Duration::ZERO => None,
            grace => Instant::now().checked_add(grace),
        };
        Silent { grace: FIRST_REQUEST_GRACE.min(limit / 2), idle_until, seen: HashMap::new() }
    }

    /// Closes all of them at once.
    #[cfg(test)]
    pub(crate) fn without_grace() -> Silent {
        Silent { grace: Duration::ZERO, idle_until: None, seen: HashMap::new() }
    }

    /// Returns whether a connection may be closed.
    fn may_close(&mut self, held: &EntryGuard<'_>, now: Instant) -> bool {
        if self.idle_until.is_some_and(|until| now < until) {
            return false;
        }
        if self.grace.is_zero() || held.connection().state() != ConnState::AwaitingFirstByte {
            return true;
        }
        let since = held.connection().accepted_at();
        let seen = self.seen.entry(held.slot).or_insert((since, now));
        if seen.0 != since {
            // Another connection has the slot now.
            *seen = (since, now);
        }
        now.saturating_duration_since(seen.1) >= self.grace
    }
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
