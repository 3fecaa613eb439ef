//! The promise: a handler sees that its server stops, from the first `shutdown` or `drain` until the
//! server is closed.

mod support;

use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

#[cfg(unix)]
use sockserver::SelectorMixIn;
use sockserver::kind::Inet;
use sockserver::{
    MixIn, Sequential, ServerHandle, StreamServer, TCPServer, ThreadPoolMixIn, ThreadingMixIn,
    WhenQueueFull, handler_fn,
};

use support::{Gate, LIMIT, LOOPBACK, connect_to, read_to_end, sleep_briefly};

fn handler_sees<M: MixIn + Default>(mixin: M, stop: fn(&ServerHandle)) {
    let begun = Gate::new();
    begun.open();
    let begins = begun.clone();
    let handler = handler_fn(move |cx| {
        cx.request.recv(1)?;
        let before = cx.server.is_stopping();
        begins.pass();
        let until = Instant::now() + LIMIT;
        while !cx.server.is_stopping() && Instant::now() < until {
            sleep_briefly();
        }
        write!(cx.wfile, "{before} {}", cx.server.is_stopping())
    });
    let server = StreamServer::<Inet, M>::builder(handler).mixin(mixin).bind(LOOPBACK).unwrap();
    let (handle, address) = (server.handle(), server.server_address().clone());
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let served = server.serve_forever();
        let still = server.handle().is_stopping();
        let _ = ended.send((still, served.and_then(|()| server.server_close())));
    });
    let client = connect_to(&address);
    client.sendall(b"?").unwrap();
    begun.wait_for(1);
    stop(&handle);
    assert_eq!(read_to_end(&client), "false true");
    let (still, closed) = end.recv_timeout(LIMIT).expect("it stops");
    closed.unwrap();
    assert!(still && !handle.is_stopping());
}

#[test]
fn a_handler_sees_a_stop_during_the_whole_drain() {
    let stops: [fn(&ServerHandle); 3] = [
        |handle| handle.request_shutdown().unwrap(),
        |handle| handle.shutdown().unwrap_or(()),
        |handle| assert!(handle.drain(LIMIT).unwrap().aborted.is_empty()),
    ];
    for stop in stops {
        handler_sees(Sequential, stop);
        handler_sees(ThreadingMixIn::new(), stop);
        handler_sees(ThreadPoolMixIn::new().workers(2), stop);
        handler_sees(ThreadPoolMixIn::new().workers(2).queue(2, WhenQueueFull::Wait), stop);
        #[cfg(unix)]
        handler_sees(SelectorMixIn::new().workers(2), stop);
    }
}

#[test]
fn a_server_that_serves_again_is_not_stopping() {
    let server = TCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
    let handle = server.handle();
    handle.request_shutdown().unwrap();
    server.serve_forever().unwrap();
    assert!(handle.is_stopping(), "it is not closed");
    thread::scope(|scope| {
        scope.spawn(|| server.serve_forever());
        support::wait_until("it serves again", || !handle.is_stopping());
        handle.shutdown().unwrap();
    });
}
