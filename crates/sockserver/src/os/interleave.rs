//! An interleaving checker for code that several threads run: permits, the state word of a
//! connection, the counters, a drain, the selector's wake-ups, the stop of a pool. It runs the code
//! itself, in all orders.

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Marks a point at which another thread may run. It does nothing outside of this crate's tests.
#[inline(always)]
pub(crate) fn yield_point() {
    #[cfg(test)]
    checker::yield_point();
}

/// Waits until `is_ready` returns true. `condvar` is notified of changes.
pub(crate) fn wait<T>(condvar: &Condvar, guard: &mut MutexGuard<'_, T>, is_ready: impl Fn(&mut T) -> bool) {
    #[cfg(test)]
    if checker::is_checking() {
        let mutex = MutexGuard::mutex(guard);
        MutexGuard::unlocked(guard, || checker::block_until(&|| is_ready(&mut mutex.lock())));
    }
    while !is_ready(guard) {
        condvar.wait(guard);
    }
}

/// Locks a mutex that another thread may hold at a [`yield_point`].
#[inline(always)]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    block_until(&|| mutex.try_lock().is_some());
    mutex.lock()
}

/// Waits until `is_ready` returns true, if the checker runs. Returns whether it does.
///
/// It must precede a blocking call, which would block the checker as well.
#[inline(always)]
pub(crate) fn block_until(is_ready: &dyn Fn() -> bool) -> bool {
    #[cfg(test)]
    if checker::is_checking() {
        checker::block_until(is_ready);
        return true;
    }
    let _ = is_ready;
    false
}

#[cfg(test)]
pub(crate) mod checker {
    use std::cell::RefCell;
    use std::sync::{Arc, Condvar, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    /// How long a thread may take from one yield point to the next.
    const LONGEST_STEP: Duration = Duration::from_secs(2);

    /// Threads that run one at a time, from yield point to yield point.
    struct Schedule {
        state: Mutex<State>,
        changed: Condvar,
    }

    #[derive(Default)]
    struct State {
        /// The actor that runs, `None` while the next one is chosen.
        turn: Option<usize>,
        actors: Vec<Standing>,
        /// How often the waiting actors have been asked whether they are ready.
        asked: usize,
        /// No actor is ready, and not all have ended.
        is_stuck: bool,
    }

    #[derive(Clone, Default)]
    struct Standing {
        /// The actor waits for its turn.
        waits: bool,
        ended: bool,
        /// The actor's answer to the question with this number, `None` if it is always ready.
        answer: Option<(usize, bool)>,
        /// The actor continues only when no other can, like a timer.
        is_last: bool,
    }

    thread_local! {
        static HERE: RefCell<Option<(Arc<Schedule>, usize)>> = const { RefCell::new(None) };
    }

    pub(super) fn yield_point() {
        wait_for_turn(None, false);
    }

    pub(crate) fn is_checking() -> bool {
        HERE.with_borrow(Option::is_some)
    }

    pub(crate) fn block_until(is_ready: &dyn Fn() -> bool) {
        wait_for_turn(Some(is_ready), false);
    }

    /// Waits until no other actor can continue, like a timer.
    pub(crate) fn tick() {
        wait_for_turn(None, true);
    }

    fn wait_for_turn(is_ready: Option<&dyn Fn() -> bool>, is_last: bool) {
        // Taken out, so that a yield point within `is_ready` does nothing.
        let here = HERE.take();
        if let Some((schedule, me)) = &here {
            schedule.wait_for_turn(*me, is_ready, is_last);
        }
        HERE.set(here);
    }

    impl Schedule {
        fn wait_for_turn(&self, me: usize, is_ready: Option<&dyn Fn() -> bool>, is_last: bool) {
            let mut state = self.state.lock().unwrap();
            state.turn = None;
            let answer = is_ready.map(|_| (state.asked, false));
            state.actors[me] = Standing { waits: true, ended: false, answer, is_last };
            self.changed.notify_all();
            while state.turn != Some(me) {
                if state.is_stuck {
                    drop(state);
                    panic!("no thread can go on");
                }
                let asked = state.asked;
                let is_asked = state.actors[me].answer.is_some_and(|(number, _)| number != asked);
                let Some(is_ready) = is_ready.filter(|_| is_asked) else {
                    state = self.changed.wait(state).unwrap();
                    continue;
                };
                drop(state);
                let answer = is_ready();
                state = self.state.lock().unwrap();
                state.actors[me].answer = Some((asked, answer));
                self.changed.notify_all();
            }
            state.actors[me].waits = false;
        }

        fn end(&self, me: usize) {
            let mut state = self.state.lock().unwrap();
            (state.turn, state.actors[me].ended) = (None, true);
            self.changed.notify_all();
        }

        /// Waits until all actors wait, and returns those that are ready. None are when all have ended.
        fn ready(&self) -> Vec<usize> {
            let mut state = self.state.lock().unwrap();
            let begin = Instant::now();
            while state.turn.is_some() || state.actors.iter().any(|actor| !actor.waits && !actor.ended) {
                if begin.elapsed() >= LONGEST_STEP {
                    state.is_stuck = true;
                    self.changed.notify_all();
                    drop(state);
                    panic!("a thread blocks where the checker does not see it");
                }
                state = self.changed.wait_timeout(state, LONGEST_STEP).unwrap().0;
            }
            state.asked += 1;
            let asked = state.asked;
            self.changed.notify_all();
            let owes = |actor: &Standing| actor.answer.is_some_and(|(number, _)| number != asked);
            while state.actors.iter().any(|actor| !actor.ended && owes(actor)) {
                state = self.changed.wait(state).unwrap();
            }
            let ready = |is_last| {
                let actors = state.actors.iter().enumerate();
                let ready =
                    actors.filter(|(_, actor)| !actor.ended && actor.answer.is_none_or(|(_, ready)| ready));
                ready.filter(|(_, actor)| actor.is_last == is_last).map(|(number, _)| number).collect()
            };
            let first: Vec<usize> = ready(false);
            let ready = if first.is_empty() { ready(true) } else { first };
            state.is_stuck = ready.is_empty() && state.actors.iter().any(|actor| !actor.ended);
            self.changed.notify_all();
            ready
        }

        fn give_turn(&self, actor: usize) {
            self.state.lock().unwrap().turn = Some(actor);
            self.changed.notify_all();
        }
    }

    /// Ends the turn of an actor, also when it panics.
    struct TurnGuard(Arc<Schedule>, usize);

    impl Drop for TurnGuard {
        fn drop(&mut self) {
            HERE.set(None);
            self.0.end(self.1);
        }
    }

    pub(crate) type Actor = Box<dyn FnOnce() + Send>;

    /// Runs the actors in all orders. `begin` creates the state of each run, and `check` checks its
    /// result. Returns the number of orders.
    pub(crate) fn explore<T>(begin: impl Fn() -> (Vec<Actor>, T), check: impl Fn(T)) -> usize {
        every_order_within(usize::MAX, begin, check)
    }

    /// Runs the actors in all orders with at most this many preemptions. Most faults need one or
    /// two, and there are far fewer such orders.
    pub(crate) fn every_order_within<T>(
        interruptions: usize,
        begin: impl Fn() -> (Vec<Actor>, T),
        check: impl Fn(T),
    ) -> usize {
        let (mut choices, mut orders): (Vec<(usize, usize)>, usize) = (Vec::new(), 0);
        loop {
            let (actors, world) = begin();
            run_schedule(actors, &mut choices, interruptions);
            check(world);
            orders += 1;
            while choices.last().is_some_and(|(choice, count)| choice + 1 == *count) {
                choices.pop();
            }
            match choices.last_mut() {
                Some((choice, _)) => *choice += 1,
                None => return orders,
            }
        }
    }

    /// Runs once with the given choices, and the first choice after them.
    fn run_schedule(actors: Vec<Actor>, choices: &mut Vec<(usize, usize)>, mut interruptions: usize) {
        let state = State { actors: vec![Standing::default(); actors.len()], ..State::default() };
        let schedule = Arc::new(Schedule { state: Mutex::new(state), changed: Condvar::new() });
        thread::scope(|scope| {
            for (me, actor) in actors.into_iter().enumerate() {
                let schedule = Arc::clone(&schedule);
                scope.spawn(move || {
                    let _ends = TurnGuard(Arc::clone(&schedule), me);
                    HERE.set(Some((schedule, me)));
                    yield_point();
                    actor();
                });
            }
            let mut last = None;
            for step in 0.. {
                let mut ready = schedule.ready();
                if ready.is_empty() {
                    return;
                }
                let goes_on = ready.iter().position(|actor| Some(*actor) == last);
                if let Some(place) = goes_on {
                    ready.swap(0, place);
                    ready.truncate(if interruptions == 0 { 1 } else { ready.len() });
                }
                if step == choices.len() {
                    choices.push((0, ready.len()));
                }
                // The system may be slower than in the run before, so there may be fewer choices.
                let next = ready[choices[step].0.min(ready.len() - 1)];
                interruptions -= usize::from(goes_on.is_some() && Some(next) != last);
                last = Some(next);
                schedule.give_turn(next);
            }
        });
    }
}

#[cfg(test)]
// Three tests are for Unix only.
#[cfg_attr(not(unix), allow(unused_imports))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use parking_lot::Mutex;
    use sock::{Address, POLLIN, Poll, Socket, StreamSocket};

    use super::checker::{Actor, explore};
    use super::{block_until, yield_point};
    use crate::connection::Connection;
    use crate::connection::state::ConnState;
    use crate::lifecycle::registry::{Entry, Registry, Silent};
    use crate::limits::clock::NEVER;
    use crate::limits::permits::Permits;
    use crate::limits::stats::Outcome;
    use crate::limits::{DeadlineKind, Limits};
    use crate::os::waker::Waker;

    fn registry(max_connections: usize) -> (Arc<Registry>, Arc<Waker>) {
        let waker = Arc::new(Waker::new().unwrap());
        let limits = Limits {
            max_connections,
            first_byte_timeout: None,
            request_timeout: None,
            idle_timeout: None,
            ..Limits::default()
        };
        (Registry::new(limits, Arc::clone(&waker)), waker)
    }

    fn is_woken(waker: &Waker) -> bool {
        sock::poll(&mut [waker.poll()], Some(Duration::ZERO)).unwrap() > 0
    }

    #[test]
    fn the_checker_tries_every_order() {
        let seen = Mutex::new(std::collections::BTreeSet::new());
        let orders = explore(
            || {
                let log = Arc::new(Mutex::new(String::new()));
                let actor = |name: &'static str| {
                    let log = Arc::clone(&log);
                    Box::new(move || {
                        log.lock().push_str(name);
                        yield_point();
                        log.lock().push_str(name);
                    }) as Actor
                };
                (vec![actor("a"), actor("b")], log)
            },
            |log| {
                seen.lock().insert(log.lock().clone());
            },
        );
        let seen: Vec<_> = seen.into_inner().into_iter().collect();
        assert_eq!(seen, ["aabb", "abab", "abba", "baab", "baba", "bbaa"]);
        assert!(orders >= 6, "{orders}");
    }

    #[test]
    fn a_waiter_is_woken_when_a_permit_is_released() {
        let orders = explore(
            || {
                let (registry, waker) = registry(2);
                let [first, second] =
                    [registry.permits.acquire().unwrap(), registry.permits.acquire().unwrap()];
                let got = Arc::new(Mutex::new(None));
                let (wants, gets) = (Arc::clone(&registry), Arc::clone(&got));
                let actors: Vec<Actor> = vec![
                    Box::new(move || *gets.lock() = wants.permits.acquire()),
                    Box::new(move || drop(first)),
                    Box::new(move || drop(second)),
                ];
                (actors, (waker, got))
            },
            |(waker, got)| {
                assert!(
                    got.lock().is_some() || is_woken(&waker),
                    "the waiter has no permit and was not woken"
                )
            },
        );
        assert!(orders > 100, "{orders}");
    }

    #[test]
    fn permits_are_never_more_than_the_limit() {
        let orders = explore(
            || {
                let (registry, _) = registry(2);
                let inside = Arc::new(AtomicUsize::new(0));
                let actors = (0..3).map(|_| {
                    let (registry, inside) = (Arc::clone(&registry), Arc::clone(&inside));
                    Box::new(move || {
                        if let Some(permit) = registry.permits.try_acquire() {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            yield_point();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }) as Actor
                });
                (actors.collect(), registry)
            },
            |registry| {
                let all = [registry.permits.try_acquire(), registry.permits.try_acquire()];
                assert!(all.iter().all(Option::is_some), "a permit was lost");
                assert!(registry.permits.try_acquire().is_none());
            },
        );
        assert!(orders > 100, "{orders}");
    }

    /// What each of the actors that may end a connection has done.
    #[derive(Default)]
    struct Ends {
        late: Option<DeadlineKind>,
        aborted: bool,
        continued: Vec<bool>,
    }

    #[test]
    fn exactly_one_actor_ends_a_connection_and_no_request_follows() {
        let orders = explore(
            || {
                let limits = Limits {
                    first_byte_timeout: Some(Duration::ZERO),
                    request_timeout: Some(Duration::ZERO),
                    idle_timeout: Some(Duration::ZERO),
                    ..Limits::default()
                };
                let permits = Permits::new(limits, Arc::new(Waker::new().unwrap()));
                let permit = permits.acquire().unwrap();
                let connection = Arc::new(Connection::new(Address::None, None, permit));
                let ends = Arc::new(Mutex::new(Ends::default()));
                let (served, all) = (Arc::clone(&connection), Arc::clone(&ends));
                let worker = move || {
                    for phase in [ConnState::AwaitingFirstByte, ConnState::Serving, ConnState::Idle] {
                        let continued = served.enter(phase);
                        all.lock().continued.push(continued);
                        yield_point();
                    }
                };
                let (watched, late) = (Arc::clone(&connection), Arc::clone(&ends));
                let deadline_timer = move || {
                    let ended = watched.end_if_overdue(u64::MAX);
                    late.lock().late = ended;
                };
                let (drained, aborted) = (Arc::clone(&connection), Arc::clone(&ends));
                let drain = move || {
                    let idle = [ConnState::AwaitingFirstByte, ConnState::Idle];
                    drained.end_for_drain(&idle, ConnState::DrainClosed);
                    yield_point();
                    use ConnState::{AwaitingFirstByte, DrainClosed, Idle, Queued, Serving};
                    let ended = drained.end_for_drain(
                        &[Queued, AwaitingFirstByte, Serving, Idle, DrainClosed],
                        ConnState::DrainAborted,
                    );
                    aborted.lock().aborted = ended;
                };
                let actors: Vec<Actor> = vec![Box::new(worker), Box::new(deadline_timer), Box::new(drain)];
                (actors, (connection, ends))
            },
            |(connection, ends)| {
                let Ends { late, aborted, continued } = &*ends.lock();
                let expected = match (late, aborted) {
                    (Some(deadline), false) => ConnState::Overdue(*deadline),
                    (None, true) => ConnState::DrainAborted,
                    both => panic!("ended by {both:?}"),
                };
                assert_eq!(connection.state(), expected);
                assert!(
                    continued.is_sorted_by(|before, after| before >= after),
                    "{continued:?}: the worker continued"
                );
            },
        );
        assert!(orders > 100, "{orders}");
    }

    #[test]
    fn a_drain_does_not_count_a_refused_datagram_as_finished() {
        let (registry, _) = registry(10);
        assert!(registry.begin_drain());
        for outcome in [Outcome::Rejected, Outcome::Finished, Outcome::Disconnected, Outcome::Failed] {
            registry.begin_inline(&Address::None);
            assert_eq!(registry.end_inline(outcome), outcome);
        }
        let report = registry.drain(registry.baseline(), Duration::ZERO, &|| false, &|_| {}, &|| false);
        assert_eq!((report.finished, report.still_running), (2, 0));
    }

    #[test]
    fn the_counters_are_consistent_between_any_two_steps() {
        let orders = explore(
            || {
                let (registry, _) = registry(10);
                let request = |outcome| {
                    let registry = Arc::clone(&registry);
                    Box::new(move || {
                        let permit = registry.permits.acquire().unwrap();
                        let (mut entry, _) = registry.enter(Address::None, None, permit);
                        yield_point();
                        entry.end(&registry, outcome);
                    }) as Actor
                };
                let watched = Arc::clone(&registry);
                let watcher = Box::new(move || {
                    let stats = watched.stats();
                    assert!(stats.is_consistent() && stats.in_flight <= 2, "{stats:?}");
                });
                (vec![request(Outcome::Finished), request(Outcome::Aborted), watcher as Actor], registry)
            },
            |registry| {
                let stats = registry.stats();
                assert_eq!((stats.accepted, stats.finished, stats.aborted, stats.in_flight), (2, 1, 1, 0));
            },
        );
        assert!(orders > 100, "{orders}");
    }

    /// Creates an idle connection and its client.
    fn idle_connection(registry: &Arc<Registry>) -> (Entry, Socket) {
        let (ours, theirs) = sock::socketpair().unwrap();
        // A blocking call fails the test.
        for socket in [&ours, &theirs] {
            socket.settimeout(None).unwrap();
            socket.set_recv_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let permit = registry.permits.acquire().unwrap();
        let (entry, _) = registry.enter(Address::None, Some(ours), permit);
        assert!(entry.enter(registry, ConnState::Idle));
        (entry, theirs)
    }

    // Unix only: these tests detect the close by a send that fails at once. A pair on Windows is a
    // TCP connection, where a send after the peer's close succeeds.
    #[cfg(unix)]
    #[test]
    fn a_drain_neither_loses_a_request_nor_blocks() {
        let orders = explore(
            || {
                let (registry, _) = registry(10);
                let (mut entry, client) = idle_connection(&registry);
                let client = Arc::new(client);
                let was_sent = Arc::new(Mutex::new(false));
                let (sends, sent) = (Arc::clone(&client), Arc::clone(&was_sent));
                let client_sends = move || *sent.lock() = sends.sendall(b"a request\n").is_ok();
                let served = Arc::clone(&registry);
                let worker = move || {
                    let connection = Arc::clone(entry.connection());
                    let is_there = || {
                        let Some(stream) = connection.stream() else { return true };
                        sock::poll(&mut [Poll::new(stream.socket(), POLLIN)], Some(Duration::ZERO)).unwrap()
                            > 0
                    };
                    block_until(&is_there);
                    let received = connection.recv_into(&mut [0; 100]).unwrap();
                    if received > 0 && entry.enter(&served, ConnState::Serving) {
                        connection.sendall(b"its answer\n").unwrap();
                    }
                    drop(connection);
                    entry.end(&served, Outcome::Finished);
                };
                let drained = Arc::clone(&registry);
                let drain = move || {
                    drained.close_idle(&mut Silent::without_grace(), &|| false);
                    yield_point();
                    drained.close_idle(&mut Silent::without_grace(), &|| false);
                };
                let actors: Vec<Actor> = vec![Box::new(client_sends), Box::new(worker), Box::new(drain)];
                (actors, (registry, client, was_sent))
            },
            |(registry, client, was_sent)| {
                let answer = client.recv(100).unwrap();
                assert_eq!(
                    !answer.is_empty(),
                    *was_sent.lock(),
                    "a request that was sent was not answered"
                );
                assert_eq!(registry.stats().in_flight, 0);
            },
        );
        assert!(orders > 100, "{orders}");
    }

    #[cfg(unix)]
    #[test]
    fn a_request_that_comes_at_the_idle_deadline_is_answered_or_timed_out_and_never_both() {
        let outcomes = Mutex::new(std::collections::BTreeSet::new());
        let orders = explore(
            || {
                let waker = Arc::new(Waker::new().unwrap());
                let limits = Limits { request_timeout: None, ..Limits::default() };
                let registry = Registry::new(limits, waker);
                // The timer is an actor of this test, and not a thread.
                registry.deadline_timer.forbid();
                let (mut entry, client) = idle_connection(&registry);
                entry.connection().set_timer_ends_wait(true);
                let client = Arc::new(client);
                let sends = Arc::clone(&client);
                let client_sends = move || drop(sends.sendall(b"a request\n"));
                let served = Arc::clone(&registry);
                let ended = Arc::new(Mutex::new((false, None)));
                let result = Arc::clone(&ended);
                let worker = move || {
                    let connection = Arc::clone(entry.connection());
                    let has_input = || {
                        let Some(stream) = connection.stream() else { return true };
                        sock::poll(&mut [Poll::new(stream.socket(), POLLIN)], Some(Duration::ZERO)).unwrap()
                            > 0
                    };
                    block_until(&has_input);
                    let received = connection.recv_into(&mut [0; 100]);
                    yield_point();
                    let is_served = received.is_ok_and(|received| received > 0)
                        && entry.enter(&served, ConnState::Serving);
                    if is_served {
                        connection.sendall(b"its answer\n").unwrap();
                    }
                    *result.lock() = (is_served, connection.expired_deadline());
                    drop(connection);
                    entry.end(&served, Outcome::Finished);
                };
                let watched = Arc::clone(&registry);
                let timer = move || {
                    watched.expire_overdue_at(NEVER - 1);
                };
                (vec![Box::new(client_sends) as Actor, Box::new(worker), Box::new(timer)], (client, ended))
            },
            |(client, ended)| {
                let (is_served, deadline) = *ended.lock();
                let expected = if is_served { None } else { Some(DeadlineKind::Idle) };
                assert_eq!(deadline, expected, "served: {is_served}");
                let answer = client.recv(100).unwrap_or_default();
                assert_eq!(!answer.is_empty(), is_served);
                outcomes.lock().insert(is_served);
            },
        );
        assert!(orders > 20, "{orders}");
        assert_eq!(outcomes.into_inner().len(), 2, "both outcomes occur");
    }

    // Unix only: these tests detect the close by a send that fails at once. A pair on Windows is a
    // TCP connection, where a send after the peer's close succeeds.
    #[cfg(unix)]
    #[test]
    fn a_connection_is_closed_by_its_worker_and_never_by_a_drain() {
        let orders = explore(
            || {
                let (registry, _) = registry(10);
                let (mut entry, client) = idle_connection(&registry);
                let served = Arc::clone(&registry);
                let was_closed = Arc::new(Mutex::new(false));
                let closed = Arc::clone(&was_closed);
                let client = Arc::new(client);
                let watched = Arc::clone(&client);
                let worker = move || {
                    entry.end(&served, Outcome::Finished);
                    // The peer of a closed socket is not writable.
                    *closed.lock() = watched.sendall(b"?").is_err();
                };
                let drained = Arc::clone(&registry);
                let drain = move || drained.abort_all();
                (vec![Box::new(worker) as Actor, Box::new(drain)], was_closed)
            },
            |was_closed| assert!(*was_closed.lock(), "the worker did not close the connection"),
        );
        assert!(orders > 3, "{orders}");
    }
}
