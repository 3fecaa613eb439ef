//! The promise: the gauges of threads, queues and listeners show what the server does.

mod support;

use std::io::{self, BufRead, Write};

use sockserver::{
    SelectorTCPServer, ServerHandle, StreamContext, TCPServer, ThreadPoolTCPServer, ThreadStats,
    ThreadingTCPServer, WhenQueueFull, handler_fn, testing,
};

use support::{Gate, LOOPBACK, read_to_end, wait_until};

#[track_caller]
fn wait_for(handle: &ServerHandle, what: &str, condition: impl Fn(&ThreadStats) -> bool) {
    wait_until(what, || handle.thread_stats().is_some_and(|stats| condition(&stats)));
}

/// Returns the function of a handler that waits at the gate.
fn pass(gate: Gate) -> impl Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + Sync {
    move |_| {
        gate.pass();
        Ok(())
    }
}

#[test]
fn the_threads_and_the_queue_of_a_pool_are_counted() {
    let gate = Gate::new();
    let builder = ThreadPoolTCPServer::builder(handler_fn(pass(gate.clone())));
    let server = builder.workers(2).queue(5, WhenQueueFull::Wait).bind(LOOPBACK).unwrap();
    assert_eq!(server.handle().thread_stats(), None, "it does not serve yet");
    let server = testing::serve(server);
    let clients = [(); 5].map(|()| server.connect().unwrap());
    wait_for(server.handle(), "two are served and three wait", |stats| {
        assert_eq!((stats.threads, stats.queue_capacity), (2, Some(5)));
        (stats.busy, stats.queued) == (2, 3)
    });
    let text = server.handle().to_openmetrics();
    for line in ["sockserver_threads 2", "sockserver_busy_threads 2", "sockserver_queue_length 3"] {
        assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
    }
    gate.open();
    clients.iter().for_each(|client| drop(read_to_end(client)));
    wait_for(server.handle(), "all are served", |stats| (stats.busy, stats.queued) == (0, 0));
}

#[test]
fn threads_of_a_pool_without_a_queue_are_counted() {
    let gate = Gate::new();
    let builder = ThreadPoolTCPServer::builder(handler_fn(pass(gate.clone())));
    let server = testing::serve(builder.workers(3).bind(LOOPBACK).unwrap());
    let _clients = [(); 2].map(|()| server.connect().unwrap());
    wait_for(server.handle(), "two are served", |stats| {
        assert_eq!((stats.threads, stats.queue_capacity), (3, None));
        stats.busy == 2
    });
    gate.open();
    wait_for(server.handle(), "none is served", |stats| stats.busy == 0);
}

#[test]
fn threads_of_a_threading_server_are_counted() {
    let gate = Gate::new();
    let builder = ThreadingTCPServer::builder(handler_fn(pass(gate.clone())));
    let server = testing::serve(builder.bind(LOOPBACK).unwrap());
    let _clients = [(); 3].map(|()| server.connect().unwrap());
    wait_for(server.handle(), "three are served", |stats| (stats.threads, stats.busy) == (3, 3));
    gate.open();
    wait_for(server.handle(), "no thread is busy", |stats| stats.busy == 0);
}

#[cfg(unix)]
#[test]
fn the_parked_connections_of_a_selector_are_counted() {
    let builder = SelectorTCPServer::builder(handler_fn(|cx| {
        let mut line = String::new();
        cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
        cx.wfile.write_all(line.as_bytes())
    }));
    let server = testing::serve(builder.workers(2).bind(LOOPBACK).unwrap());
    let clients = [(); 3].map(|()| server.connect().unwrap());
    for client in &clients {
        client.sendall(b"?\n").unwrap();
        assert_eq!(client.recv(10).unwrap(), b"?\n");
    }
    wait_for(server.handle(), "all are parked", |stats| {
        (stats.threads, stats.busy, stats.parked) == (2, 0, 3)
    });
    drop(clients);
    wait_for(server.handle(), "none is parked", |stats| stats.parked == 0);
}

#[cfg(target_os = "linux")]
#[test]
fn clients_that_wait_for_each_listener_are_counted() {
    let builder = TCPServer::builder(handler_fn(|_| Ok(()))).request_queue_size(7);
    let server = builder.bind_all([("127.0.0.1", 0), ("127.0.0.1", 0)]).unwrap();
    let addresses = server.server_addresses();
    let _clients = [0, 1, 1].map(|place| support::connect_to(&addresses[place]));
    let stats = server.handle().listener_stats();
    let stats: Vec<_> = stats.iter().map(|stats| (&stats.address, stats.accept_queue)).collect();
    assert_eq!(stats, [(&addresses[0], Some(1)), (&addresses[1], Some(2))]);
    let text = server.handle().to_openmetrics();
    let line = format!("sockserver_listener_backlog{{address=\"{}\"}} 7\n", addresses[1]);
    assert!(text.contains(&line), "{line} is not in {text}");
    let handle = server.handle();
    drop(server);
    assert!(handle.listener_stats().is_empty());
}
