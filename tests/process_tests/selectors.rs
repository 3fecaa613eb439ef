//! The cases of CPython's `test_selectors` (3.11) that need a process of their own.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sock::selectors::{Backend, EVENT_READ, EVENT_WRITE, PollSet, Selector};
use sock::{set_interrupt_hook, was_interrupted};

use crate::Test;
use crate::signals::under_signals;

pub(crate) const TESTS: &[Test] = &[
    ("select_interrupt_exc", select_interrupt_exc),
    ("select_interrupt_noraise", select_interrupt_noraise),
    ("select_above_fd_setsize", select_above_fd_setsize),
];

/// Runs a case with each selector of this system.
macro_rules! each {
    ($case:ident) => {
        $case::<PollSet>();
        #[cfg(target_os = "linux")]
        $case::<sock::selectors::Epoll>();
    };
}

/// A signal handler that raises an exception: the hook ends the wait.
fn select_interrupt_exc() {
    fn case<B: Backend>() {
        let (rd, _wr) = sock::socketpair().unwrap();
        let sel = Selector::<_, _, B>::new().unwrap();
        sel.register(rd, EVENT_READ, ()).unwrap();
        let begin = Instant::now();
        under_signals(|| assert!(was_interrupted(&sel.select(30).unwrap_err())));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
    set_interrupt_hook(Some(|| false));
    each!(case);
}

/// One that does not: the wait goes on with the time that is left.
fn select_interrupt_noraise() {
    fn case<B: Backend>() {
        let (rd, _wr) = sock::socketpair().unwrap();
        let sel = Selector::<_, _, B>::new().unwrap();
        sel.register(rd, EVENT_READ, ()).unwrap();
        let begin = Instant::now();
        under_signals(|| assert!(sel.select(0.3).unwrap().is_empty()));
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
    }
    each!(case);
}

/// More descriptors than select(2) can wait for.
fn select_above_fd_setsize() {
    fn case<B: Backend>(pairs: usize) {
        let sel = Selector::<_, _, B>::new().unwrap();
        for _ in 0..pairs {
            let (rd, wr) = sock::socketpair().unwrap();
            sel.register(rd, EVENT_READ, ()).unwrap();
            sel.register(wr, EVENT_WRITE, ()).unwrap();
        }
        assert_eq!(sel.select(None).unwrap().len(), pairs);
    }
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    // Python's number, less what is open already.
    let descriptors = maximum.unwrap_or(u64::MAX).min(1 << 16) - 32;
    let pairs = usize::try_from(descriptors / 2).unwrap();
    if maximum == Some(1024) {
        println!("NOT RUN: the limit on descriptors is FD_SETSIZE");
        return;
    }
    assert!(pairs > 512, "{descriptors} descriptors are not more than FD_SETSIZE");
    case::<PollSet>(pairs);
    #[cfg(target_os = "linux")]
    case::<sock::selectors::Epoll>(pairs);
}
