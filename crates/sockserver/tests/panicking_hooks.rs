//! The promise: a hook that panics ends what it was called for and nothing else. The
//! server serves the next client, stops when it is told to, and leaves nothing open.

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

use support::{Gate, LIMIT, LOOPBACK, OpenAtEnd, client_of, rest_of, until, until_stats};

/// Panics the first time it gets to the place.
struct Bomb {
    place: &'static str,
    passed: Arc<AtomicUsize>,
}

impl Bomb {
    fn pass(&self, place: &'static str) {
        if place == self.place && self.passed.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("as planned");
        }
    }
}

impl ServerHooks for Bomb {
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        let accepted = socket.accept()?;
        self.pass("get_request");
        Ok(accepted)
    }

    fn verify_request(&self, _request: &Request, _client_address: &Address) -> bool {
        self.pass("verify_request");
        true
    }

    fn handle_error(&self, _error: &RequestError, _client_address: &Address) {
        self.pass("handle_error");
    }

    fn shutdown_request(&self, _request: &Request) {
        self.pass("shutdown_request");
    }

    fn close_request(&self, _request: &Request) {
        self.pass("close_request");
    }
}

struct Handler(Bomb);

impl StreamRequestHandler for Handler {
    fn setup(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.pass("setup");
        Ok(())
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.pass("handle");
        let fails = self.0.place == "handle_error" && self.0.passed.load(Ordering::SeqCst) == 0;
        cx.wfile.write_all(b"served")?;
        if fails { Err(io::Error::other("as planned")) } else { Ok(()) }
    }

    fn finish(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.0.pass("finish");
        Ok(())
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.0.pass("drop");
    }
}

/// Keeps what panics as planned out of the test's output.
fn quietly() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"as planned") {
                usual(info);
            }
        }));
    });
}

fn survives<M: MixIn + Default>(place: &'static str) {
    let passed = Arc::new(AtomicUsize::new(0));
    let bomb = |passed: &Arc<AtomicUsize>| Bomb { place, passed: Arc::clone(passed) };
    let (hooks, in_factory) = (bomb(&passed), Arc::clone(&passed));
    let (in_wrap, in_actions) = (bomb(&passed), bomb(&passed));
    let server = StreamServer::<sockserver::kind::Inet, M>::builder(move || {
        let bomb = Bomb { place, passed: Arc::clone(&in_factory) };
        bomb.pass("factory");
        Handler(bomb)
    });
    let server = server
        .hooks(hooks)
        .wrap_request(move |request, _| {
            in_wrap.pass("wrap_request");
            Ok(request)
        })
        .service_actions(move |_| in_actions.pass("service_actions"));
    let server = testing::serve(server.bind(LOOPBACK).unwrap());
    let first = rest_of(&client_of(server.address()));
    assert!(["", "served"].contains(&first.as_str()), "{place}: {first}");
    assert_eq!(rest_of(&client_of(server.address())), "served", "{place}: the next one");
    assert!(passed.load(Ordering::SeqCst) > 0, "{place}: nobody came there");
    let stats = until_stats(server.handle(), |stats| stats.in_flight == 0);
    let (panicked, lost) = (stats.panicked, stats.lost_before_accept);
    let expected = match place {
        "get_request" => (0, 1),
        // Its own panic is logged; the request had failed already.
        "handle_error" | "service_actions" => (0, 0),
        _ => (1, 0),
    };
    assert_eq!((panicked, lost), expected, "{place}: {stats:?}");
}

#[test]
fn wherever_it_is_the_next_client_is_served() {
    quietly();
    let places = [
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
    for place in places {
        survives::<Sequential>(place);
        survives::<ThreadingMixIn>(place);
    }
}

#[test]
fn service_actions_that_panics_is_called_again_all_the_same() {
    quietly();
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

struct AtTheEnd;

impl ServerHooks for AtTheEnd {
    fn handle_timeout(&self) {
        panic!("as planned");
    }

    fn server_close(&self) {
        panic!("as planned");
    }
}

#[test]
fn server_close_that_panics_is_an_error_and_the_rest_is_closed() {
    quietly();
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let at_the_gate = gate.clone();
    let handler = handler_fn(move |cx| {
        at_the_gate.pass();
        cx.wfile.write_all(b"served")
    });
    let server = ThreadingTCPServer::builder(handler).hooks(AtTheEnd).bind(LOOPBACK).unwrap();
    let handle = server.handle();
    let client = client_of(server.server_address());
    server.handle_request().unwrap();
    gate.wait_for(1);
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| server.server_close());
        let address = client.getpeername().unwrap();
        until("the listener is closed", || {
            let late = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
            late.connect(&address).is_err()
        });
        gate.open();
        let closed = closing.join().expect("no panic").expect_err("an error");
        assert!(closed.to_string().contains("server_close hook panicked: as planned"), "{closed}");
    });
    assert_eq!(handle.stats().in_flight, 0, "it has waited for the request all the same");
    assert_eq!(rest_of(&client), "served");
}

#[test]
fn dropping_a_server_whose_server_close_panics_does_not() {
    quietly();
    let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(AtTheEnd).bind(LOOPBACK).unwrap();
    assert!(panic::catch_unwind(AssertUnwindSafe(|| drop(server))).is_ok());
}

#[test]
fn handle_timeout_that_panics_is_logged() {
    quietly();
    let server = TCPServer::builder(handler_fn(|_| Ok(()))).hooks(AtTheEnd).timeout(Duration::ZERO);
    let server = server.bind(LOOPBACK).unwrap();
    assert!(panic::catch_unwind(AssertUnwindSafe(|| server.handle_request())).is_ok_and(|r| r.is_ok()));
}
