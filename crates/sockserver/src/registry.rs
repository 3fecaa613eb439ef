//! The register of all that a server serves: permits, counters, deadlines, drain.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
#[cfg(unix)]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use sock::Address;

use crate::clock::{Clock, NEVER};
use crate::connection::Connection;
use crate::limits::{Deadline, Limits};
use crate::model::point;
use crate::phase::Phase;
use crate::reaper::Reaper;
use crate::report::{CutOff, DrainReport};
#[cfg(unix)]
use crate::scoreboard::{Scoreboard, Slot};
use crate::stats::{Outcome, Stats};
use crate::wake::Waker;

/// How long a drain waits for what it has cut off to end.
const GRACE: Duration = Duration::from_millis(150);

/// How often a drain looks for connections that have become idle.
const DRAIN_LOOKS: Duration = Duration::from_millis(10);

/// Everything a server serves at the moment, and what became of the rest.
pub(crate) struct Registry {
    clock: Clock,
    /// Permits that are taken: never more than `max_connections`.
    taken: AtomicUsize,
    /// Somebody waits for a permit, or for a descriptor, and wants to be woken.
    hungry: AtomicBool,
    waker: Arc<Waker>,
    book: Mutex<Book>,
    /// Something has ended while a drain waits.
    ended: Condvar,
    draining: AtomicBool,
    pub(crate) reaper: Reaper,
    /// What other processes serve for this server.
    #[cfg(unix)]
    elsewhere: OnceLock<Arc<Scoreboard>>,
    /// Where a worker process shows its counters.
    #[cfg(unix)]
    mirror: OnceLock<Slot>,
}

#[derive(Default)]
struct Book {
    stats: Stats,
    entries: Vec<Option<Arc<Connection>>>,
    free: Vec<u32>,
    by_ip: HashMap<IpAddr, usize>,
    /// Drains that run at the moment.
    drains: usize,
    /// What a drain left behind, because its handler does not return.
    given_up: bool,
    /// Connections that a drain found idle, and that have gone without another word.
    dismissed: u64,
    report: Option<DrainReport>,
}

/// Leave for one request, taken before it is accepted; dropping it gives it back.
pub(crate) struct Permit {
    registry: Arc<Registry>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.registry.taken.fetch_sub(1, Ordering::SeqCst);
        point();
        self.registry.feed();
    }
}

/// A request's line in the register. Whoever drops it without saying how the
/// request ended lets it fail.
///
/// When the request has ended it can be the next one's: see [`renew`](Self::renew).
pub(crate) struct Entry {
    connection: Arc<Connection>,
    /// `None` once the request has ended, and the permit been taken out.
    permit: Option<Permit>,
    line: Line,
    stands: Stands,
}

/// Where the register has a request.
#[derive(Clone, Copy)]
struct Line {
    /// The server's first request is 1.
    number: u64,
    slot: u32,
}

/// How much of an entry is still there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Open,
    /// Whatever there was to close.
    Closed,
    /// It is counted among those that have.
    Ended,
}

/// The same address has too many connections already.
pub(crate) struct TooManyOfOne;

impl Registry {
    pub(crate) fn new(limits: Limits, waker: Arc<Waker>) -> Arc<Registry> {
        Arc::new(Registry {
            clock: Clock::new(limits),
            taken: AtomicUsize::new(0),
            hungry: AtomicBool::new(false),
            waker,
            book: Mutex::default(),
            ended: Condvar::new(),
            draining: AtomicBool::new(false),
            reaper: Reaper::default(),
            #[cfg(unix)]
            elsewhere: OnceLock::new(),
            #[cfg(unix)]
            mirror: OnceLock::new(),
        })
    }

    #[cfg(unix)]
    pub(crate) fn set_elsewhere(&self, board: Arc<Scoreboard>) {
        let _ = self.elsewhere.set(board);
    }

    #[cfg(unix)]
    pub(crate) fn set_mirror(&self, slot: Slot) {
        let _ = self.mirror.set(slot);
    }

    /// Shows a change of the counters to the parent process, if there is one.
    fn show(&self, stats: &Stats) {
        #[cfg(unix)]
        if let Some(mirror) = self.mirror.get() {
            mirror.show(stats);
        }
        #[cfg(not(unix))]
        let _ = stats;
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.clock.limits()
    }

    /// A permit, if one is left. Otherwise the waker is woken when one is given back.
    pub(crate) fn permit(self: &Arc<Self>) -> Option<Permit> {
        self.try_permit().or_else(|| {
            point();
            // First said, then looked: whoever gives back in between sees it.
            self.ask_to_be_woken();
            point();
            self.try_permit()
        })
    }

    #[cfg(unix)]
    pub(crate) fn has_room(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.limits().max_connections
    }

    pub(crate) fn try_permit(self: &Arc<Self>) -> Option<Permit> {
        let most = self.limits().max_connections;
        let take = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        taken.ok().map(|_| Permit { registry: Arc::clone(self) })
    }

    /// A permit beyond the limit, for a request that is only to be refused.
    pub(crate) fn permit_to_refuse(self: &Arc<Self>) -> Permit {
        self.taken.fetch_add(1, Ordering::SeqCst);
        Permit { registry: Arc::clone(self) }
    }

    /// Wakes the loop when the next request ends: there may be a permit then, or a
    /// descriptor.
    pub(crate) fn ask_to_be_woken(&self) {
        self.hungry.store(true, Ordering::SeqCst);
    }

    /// Takes [`ask_to_be_woken`](Self::ask_to_be_woken) back.
    pub(crate) fn ask_no_more(&self) {
        self.hungry.store(false, Ordering::SeqCst);
    }

    fn feed(&self) {
        if self.hungry.load(Ordering::SeqCst) {
            point();
            if self.hungry.swap(false, Ordering::SeqCst) {
                self.waker.wake();
            }
        }
    }

    /// Enters a request that has just been accepted.
    pub(crate) fn enter(
        &self,
        client_address: Address,
        permit: Permit,
    ) -> (Entry, Result<(), TooManyOfOne>) {
        let connection = Arc::new(Connection::new(client_address, self.clock.clone()));
        let (line, allowed) = self.note(&connection);
        (Entry { connection, permit: Some(permit), line, stands: Stands::Open }, allowed)
    }

    /// Gives a connection its line.
    fn note(&self, connection: &Arc<Connection>) -> (Line, Result<(), TooManyOfOne>) {
        let mut book = self.book.lock();
        book.stats.begin();
        self.show(&book.stats);
        let allowed = book.count_ip(&connection.client_address, self.limits().max_connections_per_ip);
        let slot = match book.free.pop() {
            Some(slot) => slot,
            None => {
                book.entries.push(None);
                book.entries.len() as u32 - 1
            }
        };
        book.entries[slot as usize] = Some(Arc::clone(connection));
        (Line { number: book.stats.accepted, slot }, allowed)
    }

    pub(crate) fn lost_before_accept(&self) {
        let mut book = self.book.lock();
        book.stats.lost_before_accept += 1;
        self.show(&book.stats);
    }

    pub(crate) fn stats(&self) -> Stats {
        let book = self.book.lock();
        let between = book.connections().filter(|connection| connection.phase() == Phase::Between);
        let stats = Stats { between_requests: between.count() as u64, ..book.stats };
        #[cfg(unix)]
        let stats = self.elsewhere.get().map_or(stats, |board| board.stats().plus(&stats));
        stats
    }

    /// Ends what is overdue, and tells when something may be next.
    pub(crate) fn reap(&self) -> u64 {
        let now = self.clock.now();
        let mut next = NEVER;
        for connection in self.book.lock().connections() {
            if let Some(deadline) = connection.end_if_overdue(now) {
                log::debug!("request from {} ended: {deadline} deadline", connection.client_address);
            }
            next = next.min(connection.next_look());
        }
        next
    }

    /// How long until something may be overdue, for a loop that has no reaper.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let next = self.book.lock().connections().map(|connection| connection.due()).min();
        let left = next.filter(|&next| next < NEVER)?.saturating_sub(self.clock.now());
        Some(Duration::from_millis(left))
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Has loops that end wait for a drain that is about to begin.
    pub(crate) fn announce_drain(&self) -> Announced<'_> {
        self.book.lock().drains += 1;
        Announced { registry: self }
    }

    /// From now on nothing is served that has not been accepted.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Lets what is idle go and what is busy finish; cuts the rest off at the
    /// deadline. `collect` is called now and then, to notice what has ended;
    /// `serving` says whether a loop may still have a client in its hands.
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
            let book = self.book.lock();
            (book.stats, book.dismissed)
        };
        loop {
            self.end_idle();
            collect();
            let mut book = self.book.lock();
            let over = until.is_some_and(|until| Instant::now() >= until) || hurry();
            if over || book.stats.in_flight == 0 && !serving() {
                break;
            }
            let look = Instant::now() + DRAIN_LOOKS;
            self.ended.wait_until(&mut book, until.map_or(look, |until| until.min(look)));
        }
        let cut = self.cut_all();
        let grace = Instant::now() + GRACE;
        let mut book = loop {
            collect();
            let mut book = self.book.lock();
            let now = Instant::now();
            if now >= grace || book.stats.in_flight == 0 && !serving() {
                break book;
            }
            self.ended.wait_until(&mut book, grace.min(now + DRAIN_LOOKS));
        };
        book.given_up |= book.stats.in_flight > 0;
        let all = before.in_flight + (book.stats.accepted - before.accepted);
        let idle = book.dismissed - dismissed;
        // Nothing of those that came too late to be cut off has ended either.
        let late = book.connections().filter(|connection| !connection.phase().is_over()).count();
        let finished = all.saturating_sub(idle + (cut.len() + late) as u64);
        let report = DrainReport { finished, idle, cut, left: book.stats.in_flight, took: begin.elapsed() };
        book.report = Some(report.clone());
        report
    }

    /// Notes a drain that other processes have done.
    pub(crate) fn set_report(&self, report: DrainReport) {
        self.draining.store(true, Ordering::Release);
        self.book.lock().report = Some(report);
    }

    /// Tells a drain that a loop has ended.
    pub(crate) fn loop_ended(&self) {
        let _book = self.book.lock();
        self.ended.notify_all();
    }

    /// What the last drain came to.
    pub(crate) fn report(&self) -> Option<DrainReport> {
        self.book.lock().report.clone()
    }

    /// Ends the connections nobody has sent a request on.
    fn end_idle(&self) {
        let idle = [Phase::Silent, Phase::Between];
        for connection in self.book.lock().connections() {
            if idle.contains(&connection.phase()) && !connection.has_input() {
                connection.end_for_drain(&idle, Phase::Dismissed);
            }
        }
    }

    /// Cuts off what is still there, and names it; what a deadline has ended already
    /// is there because its handler does not return.
    fn cut_all(&self) -> Vec<CutOff> {
        let book = self.book.lock();
        use Phase::{Between, Busy, Dismissed, Queued, Silent, Wrapping};
        let phases = [Queued, Wrapping, Silent, Busy, Between, Dismissed];
        let cut = book.connections().filter(|connection| {
            connection.end_for_drain(&phases, Phase::Drained)
                || matches!(connection.phase(), Phase::Overdue(_))
        });
        cut.map(|connection| CutOff {
            client_address: connection.client_address.clone(),
            age: connection.age(),
        })
        .collect()
    }

    /// Whether this thread serves a request of the server, and so cannot wait for
    /// its end.
    pub(crate) fn is_served_here(self: &Arc<Self>) -> bool {
        SERVING.get() == Arc::as_ptr(self).addr()
    }

    /// Waits until no drain runs any more.
    pub(crate) fn wait_for_drains(&self) {
        let mut book = self.book.lock();
        while book.drains > 0 {
            self.ended.wait(&mut book);
        }
    }

    /// Waits until nothing is in flight, but not for what a drain has given up, nor
    /// for this thread, and no longer than `close_timeout`. Returns whether nothing
    /// is left.
    pub(crate) fn wait_until_idle(self: &Arc<Self>) -> bool {
        let own = u64::from(self.is_served_here());
        let until = self.limits().close_timeout.and_then(|limit| Instant::now().checked_add(limit));
        let mut book = self.book.lock();
        // Whoever ends tells a drain only, so this counts as one.
        book.drains += 1;
        while book.stats.in_flight > own && !book.given_up {
            match until {
                Some(until) => {
                    if self.ended.wait_until(&mut book, until).timed_out() {
                        break;
                    }
                }
                None => self.ended.wait(&mut book),
            }
        }
        book.drains -= 1;
        let left = book.stats.in_flight - own.min(book.stats.in_flight);
        if left > 0 {
            log::warn!("closed while {left} requests still run");
        }
        left == 0
    }

    /// Ends the reaper, or lets it end with the requests that are left.
    pub(crate) fn close(&self) {
        let left = self.book.lock().stats.in_flight > 0;
        self.reaper.stop(left);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.book.lock().stats.in_flight == 0
    }

    /// Counts a request as one that has ended.
    fn count(&self, book: &mut Book, outcome: Outcome) {
        book.stats.end(outcome);
        self.show(&book.stats);
        if book.drains > 0 {
            self.ended.notify_all();
        }
    }
}

impl Book {
    fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.entries.iter().flatten()
    }

    fn count_ip(&mut self, address: &Address, most: Option<usize>) -> Result<(), TooManyOfOne> {
        let (Some(most), Some(ip)) = (most, address.ip()) else {
            return Ok(());
        };
        let count = self.by_ip.entry(ip.to_canonical()).or_default();
        *count += 1;
        if *count > most { Err(TooManyOfOne) } else { Ok(()) }
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
    /// Enters another request where one has ended.
    pub(crate) fn renew(&mut self, client_address: Address, permit: Permit) -> Result<(), TooManyOfOne> {
        let registry = &permit.registry;
        match Arc::get_mut(&mut self.connection) {
            Some(connection) => connection.renew(client_address),
            None => self.connection = Arc::new(Connection::new(client_address, registry.clock.clone())),
        }
        let (line, allowed) = registry.note(&self.connection);
        (self.line, self.stands) = (line, Stands::Open);
        self.permit = Some(permit);
        allowed
    }

    /// Who is being served.
    pub(crate) fn client_address(&self) -> &Address {
        &self.connection.client_address
    }

    /// Has the next receive watched by the system, where no reaper does it.
    pub(crate) fn limit_next_read(&self, deadline: Deadline) {
        if self.registry().reaper.is_forbidden() {
            self.connection.limit_next_read(deadline);
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.permit.as_ref().expect("a request has one until it has ended").registry
    }

    /// Enters a phase and has its deadline watched. False when the connection has
    /// been ended meanwhile.
    #[inline(always)]
    pub(crate) fn enter(&self, phase: Phase) -> bool {
        let next_look = self.connection.enter_until(phase);
        if let Some(next_look) = next_look {
            Reaper::watch(self.registry(), next_look);
        }
        next_look.is_some()
    }

    /// Closes what the connection goes over, if there is such a thing.
    pub(crate) fn close(&mut self) {
        if self.stands != Stands::Open || !self.connection.has_means() {
            return;
        }
        self.stands = Stands::Closed;
        self.leave(&mut self.registry().book.lock());
        // The register had the only other one.
        if let Some(connection) = Arc::get_mut(&mut self.connection) {
            connection.close();
        }
    }

    /// Takes the line out of the book.
    fn leave(&self, book: &mut Book) {
        let connection = &self.connection;
        book.forget_ip(&connection.client_address, self.registry().limits().max_connections_per_ip);
        book.dismissed += u64::from(connection.phase() == Phase::Dismissed);
        book.entries[self.line.slot as usize] = None;
        book.free.push(self.line.slot);
    }

    /// Ends the request. The permit is still there: it goes last, since only when
    /// everything else is gone the descriptor is free.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        self.close();
        if self.stands == Stands::Ended {
            return;
        }
        let registry = self.registry();
        let mut book = registry.book.lock();
        if self.stands == Stands::Open {
            self.leave(&mut book);
        }
        registry.count(&mut book, outcome);
        drop(book);
        self.stands = Stands::Ended;
        let (number, client_address) = (self.line.number, self.client_address());
        log::debug!(
            peer:% = client_address, request = number;
            "request {number} from {client_address}: {outcome:?}"
        );
    }

    /// The permit of a request that has ended, for the next one.
    pub(crate) fn take_permit(&mut self) -> Option<Permit> {
        self.permit.take_if(|_| self.stands == Stands::Ended)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.end(Outcome::Failed);
    }
}

/// A drain, from before it stops the loop until it has reported.
pub(crate) struct Announced<'a> {
    registry: &'a Registry,
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.registry.book.lock().drains -= 1;
        self.registry.ended.notify_all();
    }
}

/// Marks the thread as one that serves a request of this server, until it is dropped.
pub(crate) struct Serving {
    before: usize,
}

impl Serving {
    pub(crate) fn begin(registry: &Arc<Registry>) -> Serving {
        Serving { before: SERVING.replace(Arc::as_ptr(registry).addr()) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVING.set(self.before);
    }
}

thread_local! {
    /// Where the server is whose request this thread serves; 0 for none.
    static SERVING: Cell<usize> = const { Cell::new(0) };
}
