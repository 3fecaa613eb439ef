//! The promise: a drain passes through ready, lame duck, draining and stopped, each with one call of
//! the hook. In the lame duck the server accepts and serves as before, and its readiness check fails.
//! `tests/process_tests/lame_duck.rs` tests servers that fork.

mod support;

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sock::Socket;
#[cfg(unix)]
use sockserver::SelectorMixIn;
use sockserver::kind::Inet;
use sockserver::{
    MixIn, Sequential, ServerHooks, ServerState, StreamContext, StreamRequestHandler, StreamServer,
    ThreadPoolMixIn, ThreadingMixIn,
};

use ServerState::{Draining, LameDuck, Ready, Stopped};
use support::{LIMIT, LOOPBACK, StopOnDrop, connect_to, read_to_end};

/// Answers each line with the state of the server. The last line of a connection is `close`.
struct States;

impl StreamRequestHandler for States {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        cx.close_connection = line != "next\n";
        let (state, stops) = (cx.server.state(), cx.server.is_stopping());
        cx.wfile.write_all(format!("{state:?} {stops}\n").as_bytes())
    }
}

/// Sends each state to the test.
struct Record(Mutex<Sender<ServerState>>);

impl ServerHooks for Record {
    fn state_changed(&self, state: ServerState) {
        let _ = self.0.lock().send(state);
    }
}

fn server<M: MixIn + Default>(
    mixin: M,
    lame_duck: Duration,
) -> (StreamServer<Inet, M>, Receiver<ServerState>) {
    let (sender, states) = mpsc::channel();
    let server = StreamServer::<Inet, M>::builder(|| States)
        .mixin(mixin)
        .hooks(Record(Mutex::new(sender)))
        .lame_duck(lame_duck)
        .bind(LOOPBACK)
        .unwrap();
    (server, states)
}

#[track_caller]
fn ask(client: &Socket, line: &str) -> String {
    client.sendall(line.as_bytes()).unwrap();
    let mut answer = String::new();
    client.makefile_rb().read_line(&mut answer).unwrap();
    answer
}

#[track_caller]
fn passes_through_all_states<M: MixIn + Default>(mixin: M, keeps_connections: bool) {
    // Far longer than the test: only `request_shutdown` ends it.
    let (server, states) = server(mixin, LIMIT * 100);
    let (handle, address) = (server.handle(), server.server_address().clone());
    let next = || states.recv_timeout(LIMIT).unwrap();
    thread::scope(|scope| {
        let _stop = StopOnDrop(handle.clone());
        let serving = scope.spawn(|| server.serve_forever());
        assert_eq!(next(), Ready);
        let kept = connect_to(&address);
        assert_eq!(ask(&kept, if keeps_connections { "next\n" } else { "close\n" }), "Ready false\n");
        let drain = scope.spawn(|| handle.drain(LIMIT));
        assert_eq!(next(), LameDuck);
        if keeps_connections {
            assert_eq!(ask(&kept, "next\n"), "LameDuck false\n");
        }
        let new = connect_to(&address);
        assert_eq!(ask(&new, "close\n"), "LameDuck false\n", "a client was not served");
        assert_eq!(handle.state(), LameDuck);
        handle.request_shutdown().unwrap();
        assert_eq!(next(), Draining);
        let report = drain.join().unwrap().unwrap();
        assert!(report.aborted.is_empty(), "{report}");
        serving.join().unwrap().unwrap();
        assert_eq!(next(), Stopped);
        assert_eq!(read_to_end(&kept), "", "an idle connection was not closed");
    });
    assert_eq!(handle.state(), Stopped);
    server.server_close().unwrap();
    assert_eq!(handle.state(), Stopped);
    assert_eq!(states.try_iter().collect::<Vec<_>>(), [], "a state was announced twice");
}

#[test]
fn a_sequential_server_passes_through_all_states() {
    passes_through_all_states(Sequential, false);
}

#[test]
fn a_threading_server_passes_through_all_states() {
    passes_through_all_states(ThreadingMixIn::new(), true);
}

#[test]
fn a_pool_passes_through_all_states() {
    passes_through_all_states(ThreadPoolMixIn::new().workers(3), true);
}

#[cfg(unix)]
#[test]
fn a_selector_passes_through_all_states() {
    passes_through_all_states(SelectorMixIn::new().workers(2), true);
}

/// Runs a server until `stop` has stopped it, and returns the states that were announced.
fn states_of(
    lame_duck: Duration,
    stop: impl FnOnce(&StreamServer<Inet, ThreadingMixIn>),
) -> Vec<ServerState> {
    let (server, states) = server(ThreadingMixIn::new(), lame_duck);
    let stop_on_drop = StopOnDrop(server.handle());
    thread::scope(|scope| {
        let _stop = stop_on_drop;
        scope.spawn(|| server.serve_forever().unwrap());
        assert_eq!(states.recv_timeout(LIMIT), Ok(Ready));
        stop(&server);
    });
    drop(server);
    states.try_iter().collect()
}

#[test]
fn without_a_lame_duck_a_drain_begins_at_once() {
    let drain = |server: &StreamServer<_, _>| drop(server.drain(LIMIT).unwrap());
    assert_eq!(states_of(Duration::ZERO, drain), [Draining, Stopped]);
}

#[test]
fn a_shutdown_has_no_lame_duck() {
    assert_eq!(states_of(LIMIT, |server| server.shutdown().unwrap()), [Draining, Stopped]);
}

#[test]
fn the_lame_duck_lasts_for_its_time_and_counts_from_its_beginning() {
    let lame_duck = Duration::from_millis(60);
    for begun_earlier in [false, true] {
        let mut begin = Instant::now();
        let drain = |server: &StreamServer<_, ThreadingMixIn>| {
            begin = Instant::now();
            if begun_earlier {
                server.handle().begin_lame_duck().unwrap();
                thread::sleep(lame_duck * 2);
                begin = Instant::now();
            }
            let _ = server.drain(LIMIT).unwrap();
        };
        assert_eq!(states_of(lame_duck, drain), [LameDuck, Draining, Stopped]);
        assert!(begun_earlier || begin.elapsed() >= lame_duck, "{:?}", begin.elapsed());
        assert!(begin.elapsed() < LIMIT);
    }
}

#[test]
fn a_server_that_serves_again_is_ready_again() {
    let (server, states) = server(ThreadingMixIn::new(), Duration::ZERO);
    for _ in 0..2 {
        thread::scope(|scope| {
            let _stop = StopOnDrop(server.handle());
            scope.spawn(|| server.serve_forever().unwrap());
            assert_eq!(states.recv_timeout(LIMIT), Ok(Ready));
            assert_eq!(server.handle().state(), Ready);
            server.shutdown().unwrap();
        });
        assert_eq!(states.try_iter().collect::<Vec<_>>(), [Draining, Stopped]);
    }
}

#[test]
fn a_hook_that_panics_does_not_end_the_stop() {
    struct Panic;
    impl ServerHooks for Panic {
        fn state_changed(&self, state: ServerState) {
            panic!("planned panic at {state:?}");
        }
    }
    let server =
        StreamServer::<Inet, ThreadingMixIn>::builder(|| States).hooks(Panic).bind(LOOPBACK).unwrap();
    thread::scope(|scope| {
        let _stop = StopOnDrop(server.handle());
        let serving = scope.spawn(|| server.serve_forever());
        let _ = server.drain(LIMIT).unwrap();
        serving.join().unwrap().unwrap();
    });
    assert_eq!(server.handle().state(), Stopped);
}

#[test]
fn a_hook_may_stop_the_server_itself() {
    struct Stop(Mutex<Option<sockserver::ServerHandle>>, Mutex<Sender<ServerState>>);
    impl ServerHooks for Stop {
        fn state_changed(&self, state: ServerState) {
            let _ = self.1.lock().send(state);
            if let Some(handle) = self.0.lock().take() {
                handle.request_shutdown().unwrap();
            }
        }
    }
    let (sender, states) = mpsc::channel();
    let hooks = std::sync::Arc::new(Stop(Mutex::new(None), Mutex::new(sender)));
    struct Shared(std::sync::Arc<Stop>);
    impl ServerHooks for Shared {
        fn state_changed(&self, state: ServerState) {
            self.0.state_changed(state);
        }
    }
    let server = StreamServer::<Inet, ThreadingMixIn>::builder(|| States)
        .hooks(Shared(hooks.clone()))
        .lame_duck(LIMIT * 100)
        .bind(LOOPBACK)
        .unwrap();
    thread::scope(|scope| {
        let _stop = StopOnDrop(server.handle());
        scope.spawn(|| server.serve_forever().unwrap());
        assert_eq!(states.recv_timeout(LIMIT), Ok(Ready));
        *hooks.0.lock() = Some(server.handle());
        let _ = server.drain(LIMIT).unwrap();
    });
    assert_eq!(states.try_iter().collect::<Vec<_>>(), [LameDuck, Draining, Stopped]);
}
