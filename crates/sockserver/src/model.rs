//! A model checker for the few places where threads meet without a lock: permits, the
//! state word of a connection, the ledger. It runs the code itself, in every order.

/// A place where another thread may come in between. Outside this crate's tests it is
/// nothing.
#[inline(always)]
pub(crate) fn point() {
    #[cfg(test)]
    checker::point();
}

#[cfg(test)]
mod checker {
    use std::cell::RefCell;
    use std::sync::{Arc, Condvar, Mutex};
    use std::thread;

    /// Threads that run one at a time, from point to point.
    struct Schedule {
        state: Mutex<State>,
        changed: Condvar,
    }

    struct State {
        /// Whose turn it is; nobody's while the next is chosen.
        turn: Option<usize>,
        /// Those who wait for their turn, or are at its end.
        waiting: Vec<bool>,
        ended: Vec<bool>,
    }

    thread_local! {
        static HERE: RefCell<Option<(Arc<Schedule>, usize)>> = const { RefCell::new(None) };
    }

    pub(super) fn point() {
        // Taken out, so that a point within a point is none.
        let here = HERE.take();
        if let Some((schedule, me)) = &here {
            schedule.wait_for_turn(*me);
        }
        HERE.set(here);
    }

    impl Schedule {
        fn wait_for_turn(&self, me: usize) {
            let mut state = self.state.lock().unwrap();
            state.turn = None;
            state.waiting[me] = true;
            self.changed.notify_all();
            while state.turn != Some(me) {
                state = self.changed.wait(state).unwrap();
            }
            state.waiting[me] = false;
        }

        fn end(&self, me: usize) {
            let mut state = self.state.lock().unwrap();
            (state.turn, state.ended[me]) = (None, true);
            self.changed.notify_all();
        }
    }

    /// Ends the turn of a thread that panics, too.
    struct EndsTurn(Arc<Schedule>, usize);

    impl Drop for EndsTurn {
        fn drop(&mut self) {
            HERE.set(None);
            self.0.end(self.1);
        }
    }

    pub(crate) type Actor = Box<dyn FnOnce() + Send>;

    /// Runs the actors in every order there is, with what `begin` makes for each run,
    /// and `check`s each end. Returns how many orders there were.
    pub(crate) fn every_order<T>(begin: impl Fn() -> (Vec<Actor>, T), check: impl Fn(T)) -> usize {
        let (mut choices, mut orders): (Vec<(usize, usize)>, usize) = (Vec::new(), 0);
        loop {
            let (actors, world) = begin();
            one_order(actors, &mut choices);
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

    /// One run: the choices that are given, and after them always the first.
    fn one_order(actors: Vec<Actor>, choices: &mut Vec<(usize, usize)>) {
        let count = actors.len();
        let state = State { turn: None, waiting: vec![false; count], ended: vec![false; count] };
        let schedule = Arc::new(Schedule { state: Mutex::new(state), changed: Condvar::new() });
        thread::scope(|scope| {
            for (me, actor) in actors.into_iter().enumerate() {
                let schedule = Arc::clone(&schedule);
                scope.spawn(move || {
                    let _ends = EndsTurn(Arc::clone(&schedule), me);
                    HERE.set(Some((schedule, me)));
                    point();
                    actor();
                });
            }
            for step in 0.. {
                let mut state = schedule.state.lock().unwrap();
                while state.turn.is_some()
                    || (0..count).any(|actor| !state.waiting[actor] && !state.ended[actor])
                {
                    state = schedule.changed.wait(state).unwrap();
                }
                let ready: Vec<_> = (0..count).filter(|&actor| !state.ended[actor]).collect();
                if ready.is_empty() {
                    return;
                }
                if step == choices.len() {
                    choices.push((0, ready.len()));
                }
                state.turn = Some(ready[choices[step].0]);
                schedule.changed.notify_all();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use parking_lot::Mutex;
    use sock::Address;

    use super::checker::{Actor, every_order};
    use super::point;
    use crate::connection::Connection;
    use crate::limits::{Deadline, Limits};
    use crate::permits::Permits;
    use crate::phase::Phase;
    use crate::registry::Registry;
    use crate::stats::Outcome;
    use crate::wake::Waker;

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
        let orders = every_order(
            || {
                let log = Arc::new(Mutex::new(String::new()));
                let actor = |name: &'static str| {
                    let log = Arc::clone(&log);
                    Box::new(move || {
                        log.lock().push_str(name);
                        point();
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
    fn who_finds_no_permit_is_woken_when_one_is_given_back() {
        let orders = every_order(
            || {
                let (registry, waker) = registry(2);
                let [first, second] = [registry.permits.take().unwrap(), registry.permits.take().unwrap()];
                let got = Arc::new(Mutex::new(None));
                let (wants, gets) = (Arc::clone(&registry), Arc::clone(&got));
                let actors: Vec<Actor> = vec![
                    Box::new(move || *gets.lock() = wants.permits.take()),
                    Box::new(move || drop(first)),
                    Box::new(move || drop(second)),
                ];
                (actors, (waker, got))
            },
            |(waker, got)| assert!(got.lock().is_some() || is_woken(&waker), "it sleeps for ever"),
        );
        assert!(orders > 100, "{orders}");
    }

    #[test]
    fn permits_are_never_more_than_the_limit() {
        let orders = every_order(
            || {
                let (registry, _) = registry(2);
                let inside = Arc::new(AtomicUsize::new(0));
                let actors = (0..3).map(|_| {
                    let (registry, inside) = (Arc::clone(&registry), Arc::clone(&inside));
                    Box::new(move || {
                        if let Some(permit) = registry.permits.try_take() {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            point();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }) as Actor
                });
                (actors.collect(), registry)
            },
            |registry| {
                let all = [registry.permits.try_take(), registry.permits.try_take()];
                assert!(all.iter().all(Option::is_some), "none is lost");
                assert!(registry.permits.try_take().is_none());
            },
        );
        assert!(orders > 100, "{orders}");
    }

    /// What each of those who may end a connection has made of it.
    #[derive(Default)]
    struct Ends {
        late: Option<Deadline>,
        cut: bool,
        went_on: Vec<bool>,
    }

    #[test]
    fn a_connection_is_ended_by_one_alone_and_nothing_follows() {
        let orders = every_order(
            || {
                let limits = Limits {
                    first_byte_timeout: Some(Duration::ZERO),
                    request_timeout: Some(Duration::ZERO),
                    idle_timeout: Some(Duration::ZERO),
                    ..Limits::default()
                };
                let permits = Permits::new(limits, Arc::new(Waker::new().unwrap()));
                let permit = permits.take().unwrap();
                let connection = Arc::new(Connection::new(Address::None, None, permit));
                let ends = Arc::new(Mutex::new(Ends::default()));
                let (served, all) = (Arc::clone(&connection), Arc::clone(&ends));
                let worker = move || {
                    for phase in [Phase::Silent, Phase::Busy, Phase::Between] {
                        let went_on = served.enter(phase);
                        all.lock().went_on.push(went_on);
                        point();
                    }
                };
                let (watched, late) = (Arc::clone(&connection), Arc::clone(&ends));
                let reaper = move || {
                    let ended = watched.end_if_overdue(u64::MAX);
                    late.lock().late = ended;
                };
                let (drained, cut) = (Arc::clone(&connection), Arc::clone(&ends));
                let drain = move || {
                    let idle = [Phase::Silent, Phase::Between];
                    drained.end_for_drain(&idle, Phase::Dismissed);
                    point();
                    use Phase::{Between, Busy, Dismissed, Queued, Silent};
                    let ended =
                        drained.end_for_drain(&[Queued, Silent, Busy, Between, Dismissed], Phase::Drained);
                    cut.lock().cut = ended;
                };
                let actors: Vec<Actor> = vec![Box::new(worker), Box::new(reaper), Box::new(drain)];
                (actors, (connection, ends))
            },
            |(connection, ends)| {
                let Ends { late, cut, went_on } = &*ends.lock();
                let expected = match (late, cut) {
                    (Some(deadline), false) => Phase::Overdue(*deadline),
                    (None, true) => Phase::Drained,
                    both => panic!("ended by {both:?}"),
                };
                assert_eq!(connection.phase(), expected);
                assert!(went_on.is_sorted_by(|before, after| before >= after), "{went_on:?}: it went on");
            },
        );
        assert!(orders > 100, "{orders}");
    }

    #[test]
    fn the_ledger_adds_up_between_any_two_steps() {
        let orders = every_order(
            || {
                let (registry, _) = registry(10);
                let request = |outcome| {
                    let registry = Arc::clone(&registry);
                    Box::new(move || {
                        let permit = registry.permits.take().unwrap();
                        let (mut entry, _) = registry.enter(Address::None, None, permit);
                        point();
                        entry.end(&registry, outcome);
                    }) as Actor
                };
                let watched = Arc::clone(&registry);
                let watcher = Box::new(move || {
                    let stats = watched.stats();
                    assert!(stats.adds_up() && stats.in_flight <= 2, "{stats:?}");
                });
                (vec![request(Outcome::Finished), request(Outcome::Cut), watcher as Actor], registry)
            },
            |registry| {
                let stats = registry.stats();
                assert_eq!((stats.accepted, stats.finished, stats.cut, stats.in_flight), (2, 1, 1, 0));
            },
        );
        assert!(orders > 100, "{orders}");
    }
}
