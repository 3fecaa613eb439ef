//! The promise: the administrative listener answers in all six models, from ready to draining. What it
//! returns under load is consistent, and exact at the end. Children have no copy of it.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use sock::{AF_UNIX, Address, SOCK_STREAM, Socket, ToAddress};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, SelectorTCPServer, StreamContext, TCPServer,
    ThreadPoolTCPServer, ThreadingTCPServer, handler_fn,
};

use crate::Test;
use crate::serve_after_fork::{Parent, single_fork};
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("scrapes_under_load_are_consistent_and_exact_at_the_end", scrapes),
    ("readiness_checks_are_answered_until_the_server_has_drained", readiness),
    ("commands_stop_a_server_of_each_model", commands),
    ("the_stop_command_waits_for_the_lame_duck_in_each_model", lame_duck),
    ("a_forked_child_has_no_copy_of_the_administrative_listener", children),
    ("slow_and_broken_clients_delay_no_scrape", slow_clients),
];

/// Answers a line, and keeps the connection.
fn echo(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
    cx.wfile.write_all(line.as_bytes())
}

/// A server in a process of its own.
struct Served {
    parent: Parent,
    address: Address,
    admin: Address,
}

fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>, admin: impl ToAddress) -> Served {
    let server = builder.admin(admin).drain_on_signals(LIMIT).bind(LOOPBACK).unwrap();
    let address = server.server_address().clone();
    let admin = server.handle().admin_address().unwrap();
    let mut server = Some(server);
    let parent = single_fork(&mut |_| server.take().unwrap().serve_forever().unwrap());
    let served = Served { parent, address, admin };
    assert_eq!(served.get("/ready").0, 200);
    // The copy of this process would keep the listeners open. From here on the path is the child's.
    drop(server);
    served
}

impl Served {
    /// Waits until the process has ended.
    fn wait_for_end(&self) {
        assert_eq!(self.parent.control.recv(1).unwrap(), b"");
    }

    fn stop(&self) {
        kill_process(self.parent.pid, Signal::TERM).unwrap();
        self.wait_for_end();
    }

    fn get(&self, path: &str) -> (u16, String) {
        ask(&self.admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }
}

/// Returns the status and the body of the answer.
fn ask(admin: &Address, request: &str) -> (u16, String) {
    let client = connect_to(admin);
    client.sendall(request.as_bytes()).unwrap();
    let answer = read_to_end(&client);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// Calls `$test` with a server of each model.
macro_rules! each_model {
    ($test:ident) => {
        $test(TCPServer::builder(handler_fn(echo)));
        $test(ThreadingTCPServer::builder(handler_fn(echo)));
        $test(ThreadPoolTCPServer::builder(handler_fn(echo)).workers(2));
        $test(SelectorTCPServer::builder(handler_fn(echo)).workers(2));
        $test(ForkingTCPServer::builder(handler_fn(echo)));
        $test(PreforkTCPServer::builder(handler_fn(echo)).workers(2));
    };
}

/// The samples of a scrape, by their name and labels.
type Samples = HashMap<String, f64>;

fn scrape(served: &Served) -> Samples {
    let (status, text) = served.get("/metrics");
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples: Samples = samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect();
    check(&samples, &text);
    samples
}

fn value(samples: &Samples, name: &str) -> f64 {
    samples[&format!("sockserver_{name}")]
}

/// Checks that the samples of one scrape fit together.
fn check(samples: &Samples, text: &str) {
    let sum = |family: &str| -> f64 {
        samples.iter().filter(|(name, _)| name.starts_with(family)).map(|(_, value)| value).sum()
    };
    let ended = sum("sockserver_ended_total{");
    assert_eq!(value(samples, "accepted_total"), ended + value(samples, "in_flight"), "{text}");
    let buckets =
        text.lines().filter(|line| line.starts_with("sockserver_request_duration_seconds_bucket"));
    let buckets: Vec<f64> = buckets.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(buckets.len() == 12 && buckets.is_sorted(), "{text}");
    let requests = value(samples, "requests_total");
    assert_eq!(value(samples, "request_duration_seconds_count"), requests, "{text}");
    assert_eq!(*buckets.last().unwrap(), requests, "{text}");
}

const CLIENTS: usize = 20;
const REQUESTS: usize = 4;

fn run_clients(address: &Address) {
    for _ in 0..CLIENTS {
        let client = connect_to(address);
        for _ in 0..REQUESTS {
            client.sendall(b"hello\n").unwrap();
            let mut answer = String::new();
            client.makefile_rb().read_line(&mut answer).unwrap();
            assert_eq!(answer, "hello\n");
        }
    }
}

fn scrapes() {
    fn scrapes<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let served = serve(builder, LOOPBACK);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let scraper = scope.spawn(|| {
                let mut before = scrape(&served);
                while !done.load(Ordering::SeqCst) {
                    let now = scrape(&served);
                    for (name, value) in &before {
                        // Counters and histograms. The workers of a forking server come and go.
                        let is_counter = ["_total", "_bucket", "_count", "_sum"];
                        if is_counter.iter().any(|end| name.split('{').next().unwrap().ends_with(end)) {
                            assert!(now[name] >= *value, "{name}: {value} {}", now[name]);
                        }
                    }
                    before = now;
                }
            });
            let clients = [(); 2].map(|()| scope.spawn(|| run_clients(&served.address)));
            let clients = clients.map(thread::ScopedJoinHandle::join);
            done.store(true, Ordering::SeqCst);
            scraper.join().unwrap();
            clients.into_iter().for_each(|client| client.unwrap());
        });
        let (connections, requests) = (2 * CLIENTS, 2 * CLIENTS * REQUESTS);
        wait_until("all requests have ended", || value(&scrape(&served), "in_flight") == 0.0);
        let last = scrape(&served);
        assert_eq!(value(&last, "ended_total{outcome=\"finished\"}"), connections as f64);
        assert_eq!(value(&last, "accepted_total"), connections as f64);
        assert_eq!(value(&last, "requests_total"), requests as f64);
        for bytes in ["received_bytes_total", "sent_bytes_total"] {
            assert_eq!(value(&last, bytes), 6.0 * requests as f64, "{bytes}");
        }
        served.stop();
    }
    each_model!(scrapes);
}

/// A request is being served when the drain begins.
fn readiness() {
    fn readiness<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let served = serve(builder, LOOPBACK);
        assert_eq!(served.get("/live"), (200, "live\n".to_owned()));
        assert_eq!(served.get("/ready"), (200, "ready\n".to_owned()));
        assert_eq!(served.get("/other").0, 404);
        let client = connect_to(&served.address);
        client.sendall(b"hel").unwrap();
        wait_until("it is accepted", || value(&scrape(&served), "in_flight") == 1.0);
        kill_process(served.parent.pid, Signal::TERM).unwrap();
        wait_until("it is not ready", || served.get("/ready") == (503, "draining\n".to_owned()));
        assert_eq!(served.get("/live").0, 200);
        assert_eq!(value(&scrape(&served), "ready"), 0.0);
        client.sendall(b"lo\n").unwrap();
        assert_eq!(read_to_end(&client), "hello\n");
        served.wait_for_end();
        let client = Socket::new(served.admin.family(), SOCK_STREAM, 0).unwrap();
        assert!(client.connect(&served.admin).is_err(), "the listener is left");
    }
    each_model!(readiness);
}

fn commands() {
    fn commands<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin");
        let served = serve(builder, &path);
        assert_eq!(served.admin.family(), AF_UNIX);
        let post = |target: &str| ask(&served.admin, &format!("POST {target} HTTP/1.1\r\n\r\n"));
        run_clients(&served.address);
        assert_eq!(post("/lame-duck"), (200, "lame duck\n".to_owned()));
        assert_eq!(served.get("/ready"), (503, "lame duck\n".to_owned()));
        run_clients(&served.address);
        assert_eq!(post("/stop?limit=20"), (200, "draining\n".to_owned()));
        served.wait_for_end();
        assert!(!path.exists());
    }
    each_model!(commands);
}

/// Signals end the long lame duck, and the short one ends by itself.
fn lame_duck() {
    fn stop(served: &Served) {
        let answer = ask(&served.admin, "POST /stop?limit=20 HTTP/1.1\r\n\r\n");
        assert_eq!(answer, (200, "draining\n".to_owned()));
    }
    fn long<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let folder = tempfile::tempdir().unwrap();
        let served = serve(builder.lame_duck(LIMIT * 100), folder.path().join("admin"));
        stop(&served);
        let is_lame = || served.get("/ready") == (503, "lame duck\n".to_owned());
        wait_until("the lame duck has begun", is_lame);
        run_clients(&served.address);
        assert!(is_lame());
        kill_process(served.parent.pid, Signal::TERM).unwrap();
        kill_process(served.parent.pid, Signal::INT).unwrap();
        served.wait_for_end();
    }
    fn short<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
        let folder = tempfile::tempdir().unwrap();
        let served = serve(builder.lame_duck(Duration::from_millis(50)), folder.path().join("admin"));
        stop(&served);
        served.wait_for_end();
    }
    each_model!(long);
    each_model!(short);
}

fn children() {
    let served = serve(ForkingTCPServer::builder(handler_fn(echo)), LOOPBACK);
    let client = connect_to(&served.address);
    client.sendall(b"hello\n").unwrap();
    assert_eq!(client.recv(100).unwrap(), b"hello\n");
    client.sendall(b"half a line").unwrap();
    kill_process(served.parent.pid, Signal::KILL).unwrap();
    // The child waits for the rest of the line.
    wait_until("the listener is closed", || {
        let other = Socket::new(served.admin.family(), SOCK_STREAM, 0).unwrap();
        // A listener that nothing serves lets clients connect until its queue is full.
        other.settimeout(LIMIT).unwrap();
        matches!(other.connect(&served.admin), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    });
    client.sendall(b"\n").unwrap();
    assert_eq!(client.recv(100).unwrap(), b"half a line\n");
}

/// Clients have sent nothing, or a part of a request.
fn slow_clients() {
    let served = serve(PreforkTCPServer::builder(handler_fn(echo)).workers(1), LOOPBACK);
    let silent: Vec<Socket> = (0..20).map(|_| connect_to(&served.admin)).collect();
    silent.iter().step_by(2).for_each(|client| client.sendall(b"GET /metr").unwrap());
    let client = connect_to(&served.admin);
    client.sendall(&[b'x'; 10_000]).unwrap();
    assert!(read_to_end(&client).starts_with("HTTP/1.1 431 "));
    scrape(&served);
    run_clients(&served.address);
    // They are disconnected after their limit.
    for client in &silent {
        assert_eq!(read_to_end(client), "");
    }
    served.stop();
}
