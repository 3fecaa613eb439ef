//! The promise: a forking or pre-forked server leaves the listeners that it has released, and its
//! workers stop accepting without a shutdown of the listener.

use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sock::{AsFd, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{Builder, ForkingTCPServer, MixIn, PreforkTCPServer, Server, handler_fn};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("forking_leaves_released_listeners", || {
        check(ForkingTCPServer::builder(handler_fn(answer)), 1);
    }),
    ("prefork_leaves_a_released_listener_in_which_workers_block", || {
        check(
            PreforkTCPServer::builder(handler_fn(answer)).workers(3).worker_class(crate::worker_class()),
            1,
        );
    }),
    ("prefork_leaves_released_listeners", || {
        check(
            PreforkTCPServer::builder(handler_fn(answer)).workers(3).worker_class(crate::worker_class()),
            2,
        );
    }),
    #[cfg(target_os = "linux")]
    (
        "prefork_workers_leave_adopted_listeners_when_their_parent_is_killed",
        workers_without_a_parent_leave_adopted_listeners,
    ),
];

fn answer(cx: &mut sockserver::StreamContext<'_>) -> std::io::Result<()> {
    cx.rfile.read_line(&mut String::new())?;
    cx.wfile.write_all(b"old")
}

fn check<M: MixIn + Default>(builder: Builder<Stream<Inet>, M>, listeners: usize) {
    let asking: Arc<Mutex<Option<Socket>>> = Arc::default();
    let asks = Arc::clone(&asking);
    let builder = builder.poll_interval(Duration::from_millis(5)).service_actions(move |server| {
        // The server ends when it has answered.
        let answered = asks.lock().unwrap().as_ref().is_some_and(|client| {
            let mut client = [sock::Poll::new(client, sock::POLLIN)];
            sock::poll(&mut client, Some(Duration::ZERO)).unwrap() > 0
        });
        if answered {
            server.release_listeners().unwrap();
            server.request_shutdown().unwrap();
        }
    });
    let server: Server<_, M> = builder.bind_all(vec![LOOPBACK; listeners]).unwrap();
    let addresses = server.server_addresses().to_vec();
    let duplicates = server.handle().listeners().unwrap();
    let client = connect_to(&addresses[0]);
    client.sendall(b"?\n").unwrap();
    *asking.lock().unwrap() = Some(client);
    server.serve_forever().unwrap();
    let client = asking.lock().unwrap().take().unwrap();
    assert_eq!(read_to_end(&client), "old");
    // They wait in the queue during the drain.
    let before: Vec<_> = addresses.iter().map(connect_to).collect();
    let report = server.drain(LIMIT).unwrap();
    assert!(report.aborted.is_empty(), "{report:?}");
    assert_eq!(server.stats().accepted, 1);
    server.server_close().unwrap();
    let after: Vec<_> = addresses.iter().map(connect_to).collect();
    for (duplicate, clients) in duplicates.iter().zip(before.iter().zip(&after)) {
        duplicate.settimeout(LIMIT).unwrap();
        for client in [clients.0, clients.1] {
            duplicate.accept().unwrap().0.sendall(b"new").unwrap();
            assert_eq!(read_to_end(client), "new");
        }
    }
}

/// Programs that tests start.
pub(crate) const HELPERS: &[Test] = &[("prefork_with_an_adopted_listener", serve_adopted)];

fn serve_adopted() {
    let listener = sock::dup(std::io::stdin().as_fd()).unwrap();
    let listener = Socket::from_fd(listener, None, None, None).unwrap();
    let server = PreforkTCPServer::builder(handler_fn(answer))
        .workers(2)
        .worker_class(crate::worker_class())
        .adopt([listener])
        .unwrap();
    server.serve_forever().unwrap();
}

#[cfg(target_os = "linux")]
fn workers_without_a_parent_leave_adopted_listeners() {
    let listener = sock::create_server(LOOPBACK).unwrap();
    let address = listener.getsockname().unwrap();
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--alone", "prefork_with_an_adopted_listener"])
        .stdin(listener.dup().unwrap().detach())
        .spawn()
        .unwrap();
    let client = connect_to(&address);
    client.sendall(b"?").unwrap();
    // A worker serves it when the parent is killed.
    wait_until("the client is accepted", || queue_is_empty(&listener));
    let parent = server.id();
    let workers = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    client.sendall(b"\n").unwrap();
    assert_eq!(read_to_end(&client), "old");
    for worker in workers.split_whitespace() {
        wait_until("the workers have exited", || {
            let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
    let next = connect_to(&address);
    listener.settimeout(LIMIT).unwrap();
    listener.accept().unwrap().0.sendall(b"new").unwrap();
    assert_eq!(read_to_end(&next), "new");
}

#[cfg(target_os = "linux")]
fn queue_is_empty(listener: &Socket) -> bool {
    sock::poll(&mut [sock::Poll::new(listener, sock::POLLIN)], Some(Duration::ZERO)).unwrap() == 0
}
