//! The promise: a hook that panics ends the request for which it was called and nothing else. The
//! server serves the next client, can be stopped, and leaves nothing open.

mod support;

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use sock::{Address, Socket};
use sockserver::{
    MixIn, Request, RequestError, Sequential, ServerHooks, StreamContext, StreamRequestHandler,
    StreamServer, TCPServer, ThreadingMixIn, ThreadingTCPServer, handler_fn, testing,
};

use support::{Gate, LIMIT, LOOPBACK, OpenOnDrop, connect_to, read_to_end, wait_for_stats, wait_until};

/// Panics the first time that `reach` is called for its step.
struct PanicOnce {
    step: &'static str,
    reached: Arc<AtomicUsize>,
}

impl PanicOnce {
    fn reach(&self, step: &'static str) {
        if step == self.step && self.reached.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("as planned");
        }
    }
}

impl ServerHooks for PanicOnce {
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        let accepted = socket.accept()?;
        self.reach("get_request");
        Ok(accepted)
    }

    fn verify_request(&self, _request: &Request, _client_address: &Address) -> bool {
        self.reach("verify_request");
        true
    }

    fn handle_error(&self, _error: &RequestError, _client_address: &Address) {
        self.reach("handle_error");
    }

    fn shutdown_request(&self, _request: &Request) {
        self.reach("shutdown_request");
    }

    fn close_request(&self, _request: &Request) {
        self.reach("close_request");
    }
}

struct Handler(PanicOnce);

impl StreamRequestHandler for Handler {
    fn setup(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.reach("setup");
        Ok(())
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.reach("handle");
        let fails = self.0.step == "handle_error" && self.0.reached.load(Ordering::SeqCst) == 0;
        cx.wfile.write_all(b"served")?;
        if fails { Err(io::Error::other("as planned")) } else { Ok(()) }
    }

    fn finish(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.reach("finish");
        Ok(())
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.0.reach("drop");
    }
}

/// Suppresses the messages of planned panics.
fn hide_planned_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let default_hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"as planned") {
                default_hook(info);
            }
        }));
    });
}

fn serves_the_next_client<M: MixIn + Default>(step: &'static str) {
    let reached = Arc::new(AtomicUsize::new(0));
    let panic_once = |reached: &Arc<AtomicUsize>| PanicOnce { step, reached: Arc::clone(reached) };
    let (hooks, in_factory) = (panic_once(&reached), Arc::clone(&reached));
    let (in_wrap, in_actions) = (panic_once(&reached), panic_once(&reached));
    let server = StreamServer::<sockserver::kind::Inet, M>::builder(move || {
        let panic_once = PanicOnce { step, reached: Arc::clone(&in_factory) };
        panic_once.reach("factory");
        Handler(panic_once)
    });
    let server = server
        .hooks(hooks)
        .wrap_request(move |request, _| {
            in_wrap.reach("wrap_request");
            Ok(request)
        })
        .service_actions(move |_| in_actions.reach("service_actions"));
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let first = read_to_end(&connect_to(server.address()));
    assert!(["", "served"].contains(&first.as_str()), "{step}: {first}");
    assert_eq!(
        read_to_end(&connect_to(server.address())),
        "served",
        "{step}: the next client was not served"
    );
    assert!(reached.load(Ordering::SeqCst) > 0, "{step}: the step was not reached");
    let stats = wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    let (panicked, lost) = (stats.panicked, stats.lost_before_accept);
    let expected = match step {
        "get_request" => (0, 1),
        // The panic is logged, and the request had already failed.
        "handle_error" | "service_actions" => (0, 0),
        _ => (1, 0),
    };
    assert_eq!((panicked, lost), expected, "{step}: {stats:?}");
}

#[test]
fn the_next_client_is_served_after_a_panic_in_any_step() {
    hide_planned_panics();
    let steps = [
        "get_request",
        "verify_request",
        "wrap_request",
        "factory",
        "setup",
        "handle",
        "finish",
        "drop",
        "handle_error",
        "shutdown_request",
        "close_request",
        "service_actions",
    ];
    for step in steps {
        serves_the_next_client::<Sequential>(step);
        serves_the_next_client::<ThreadingMixIn>(step);
    }
}

#[test]
fn service_actions_is_called_again_after_a_panic() {
    hide_planned_panics();
    let (call, called) = mpsc::channel();
    let server = TCPServer::builder(handler_fn(|_| Ok(())))
        .service_actions(move |_| {
            let _ = call.send(());
            panic!("as planned");
        })
        .poll_interval(Duration::from_millis(5))
        .bind(LOOPBACK)
        .unwrap();
    let _server = testing::serve(server);
    for call in 1..=5 {
        assert!(called.recv_timeout(LIMIT).is_ok(), "call {call}");
    }
}

struct PanicAtClose;

impl ServerHooks for PanicAtClose {
    fn handle_timeout(&self) {
        panic!("as planned");
    }

    fn server_close(&self) {
        panic!("as planned");
    }
}

#[test]
fn a_panic_in_server_close_is_an_error_and_the_server_is_closed() {
    hide_planned_panics();
    let gate = Gate::new();
    let _open = OpenOnDrop(gate.clone());
    let at_the_gate = gate.clone();
    let handler = handler_fn(move |cx| {
        at_the_gate.pass();
        cx.wfile.write_all(b"served")
    });
    let server = ThreadingTCPServer::builder(handler).hooks(PanicAtClose).bind(LOOPBACK).unwrap();
    let handle = server.handle();
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    gate.wait_for(1);
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| server.server_close());
        let address = client.getpeername().unwrap();
        wait_until("the listener is closed", || {
            let late = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
            late.connect(&address).is_err()
        });
        gate.open();
        let closed = closing.join().expect("server_close panicked").expect_err("server_close succeeded");
        assert!(closed.to_string().contains("server_close hook panicked: as planned"), "{closed}");
    });
    assert_eq!(handle.stats().in_flight, 0, "server_close did not wait for the request");
    assert_eq!(read_to_end(&client), "served");
}

#[test]
fn dropping_a_server_whose_server_close_panics_does_not_panic() {
    hide_planned_panics();
    let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(PanicAtClose).bind(LOOPBACK).unwrap();
    assert!(panic::catch_unwind(AssertUnwindSafe(|| drop(server))).is_ok());
}

#[test]
fn a_panic_in_handle_timeout_is_no_error() {
    hide_planned_panics();
    let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(PanicAtClose).timeout(Duration::ZERO);
    let server = server.bind(LOOPBACK).unwrap();
    assert!(panic::catch_unwind(AssertUnwindSafe(|| server.handle_request())).is_ok_and(|r| r.is_ok()));
}
