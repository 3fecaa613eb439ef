//! The promise: each model with threads starts them with the configured name and stack, and each
//! thread calls the start hook before its first request. A hook that panics loses no request.

mod support;

use std::cell::Cell;
use std::hint::black_box;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

#[cfg(unix)]
use sockserver::SelectorTCPServer;
use sockserver::testing;
use sockserver::{
    ServerHandle, StreamContext, ThreadPoolTCPServer, ThreadingTCPServer, WhenQueueFull, handler_fn,
};

use support::{LIMIT, LOOPBACK, connect_to, read_to_end, wait_for_stats};

thread_local! {
    static STARTED: Cell<usize> = const { Cell::new(0) };
}

/// Answers with the thread's name, and how often the hook was called in it.
fn describe(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let name = thread::current().name().map(str::to_owned);
    writeln!(cx.wfile, "{} {}", name.unwrap_or_default(), STARTED.get())
}

/// Needs more stack than threads have by default.
fn deep(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let page = black_box([1_u8; 6 << 20]);
    let sum: usize = page.iter().step_by(4096).map(|byte| usize::from(*byte)).sum();
    writeln!(cx.wfile, "{sum}")
}

/// Calls a macro for a builder of each model with threads.
macro_rules! in_each_model {
    ($handler:expr, $check:ident) => {
        $check!(ThreadingTCPServer::builder(handler_fn($handler)));
        $check!(ThreadPoolTCPServer::builder(handler_fn($handler)).workers(2));
        $check!(
            ThreadPoolTCPServer::builder(handler_fn($handler)).workers(2).queue(4, WhenQueueFull::Wait)
        );
        #[cfg(unix)]
        $check!(SelectorTCPServer::builder(handler_fn($handler)).workers(2));
    };
}

fn ask(server: &testing::Running) -> String {
    let client = server.connect().unwrap();
    client.settimeout(LIMIT).unwrap();
    // A selector waits for input.
    client.sendall(b"!").unwrap();
    read_to_end(&client)
}

#[test]
fn threads_have_their_name_and_call_the_hook_once_before_the_first_request() {
    macro_rules! check {
        ($builder:expr) => {
            let calls = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&calls);
            let builder = $builder.thread_name("web\0server").on_thread_start(move || {
                count.fetch_add(1, Ordering::Relaxed);
                STARTED.set(STARTED.get() + 1);
            });
            let server = testing::serve(builder.bind(LOOPBACK).unwrap());
            for _ in 0..10 {
                assert_eq!(ask(&server), "webserver 1\n");
            }
            drop(server);
            assert!((1..=10).contains(&calls.load(Ordering::Relaxed)));
        };
    }
    in_each_model!(describe, check);
}

#[test]
fn threads_are_named_sockserver_by_default() {
    macro_rules! check {
        ($builder:expr) => {
            let server = testing::serve($builder.bind(LOOPBACK).unwrap());
            assert_eq!(ask(&server), "sockserver 0\n");
        };
    }
    in_each_model!(describe, check);
}

#[test]
fn a_thread_whose_hook_panics_serves_its_requests() {
    macro_rules! check {
        ($builder:expr) => {
            let builder = $builder.on_thread_start(|| panic!("planned panic of the hook"));
            let server = testing::serve(builder.bind(LOOPBACK).unwrap());
            for _ in 0..5 {
                assert_eq!(ask(&server), "sockserver 0\n");
            }
            let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
            assert_eq!((stats.finished, stats.panicked), (5, 0), "{stats:?}");
        };
    }
    in_each_model!(describe, check);
}

/// With the default stack the overflow would end the process.
#[test]
fn threads_have_the_configured_stack() {
    macro_rules! check {
        ($builder:expr) => {
            let server = testing::serve($builder.stack_size(32 << 20).bind(LOOPBACK).unwrap());
            assert_eq!(ask(&server), "1536\n");
        };
    }
    in_each_model!(deep, check);
}

/// Makes the call in the hook, when the server has a client.
fn in_hook(server: &OnceLock<ServerHandle>) -> Option<io::ErrorKind> {
    let handle = server.get().expect("it is set before the server serves");
    assert!(handle.stats().is_consistent());
    // A drain that waits for its own thread would take as long.
    handle.drain(Duration::from_secs(3600)).err().map(|error| error.kind())
}

#[test]
fn a_drain_in_the_hook_fails_and_stops_the_server() {
    macro_rules! check {
        ($builder:expr) => {
            let (sender, results) = mpsc::channel();
            let server_of_hook = Arc::new(OnceLock::new());
            let own = Arc::clone(&server_of_hook);
            let server = $builder.on_thread_start(move || {
                let _ = sender.send(in_hook(&own));
            });
            let server = server.bind(LOOPBACK).unwrap();
            server_of_hook.set(server.handle()).unwrap();
            // A thread of the threading model is started for a client.
            let client = connect_to(server.server_address());
            let (ended, end) = mpsc::channel();
            thread::spawn(move || ended.send(server.serve_forever()));
            assert_eq!(results.recv_timeout(LIMIT).unwrap(), Some(io::ErrorKind::Deadlock));
            end.recv_timeout(LIMIT).expect("it stops").unwrap();
            drop(client);
        };
    }
    in_each_model!(describe, check);
}

/// Panics when it is dropped, except during another panic.
struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        assert!(thread::panicking(), "planned panic of the destructor");
    }
}

#[test]
fn a_hook_whose_destructor_panics_ends_no_thread() {
    macro_rules! check {
        ($builder:expr) => {
            let captured = PanicsWhenDropped;
            let builder = $builder.on_thread_start(move || {
                let _ = &captured;
            });
            let server = testing::serve(builder.bind(LOOPBACK).unwrap());
            assert_eq!(ask(&server), "sockserver 0\n");
            drop(server);
        };
    }
    in_each_model!(describe, check);
}
