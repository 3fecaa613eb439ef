//! The promise: counters, deadlines and drains of a forking server are the same as those of other
//! servers, although children serve the requests. The outcome of each child is known from its exit
//! status, and no child is left behind.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use sock::{Address, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::testing::LeakCheck;
use sockserver::{
    Builder, ForkingMixIn, ForkingTCPServer, Request, ServerHandle, ServerHooks, Stats, StreamContext,
    StreamRequestHandler, WrappedRequest, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("forked_children_that_run_at_the_close_count_as_aborted", children_left_at_the_close),
    ("forking_counts_by_exit_status", counts_by_exit_status),
    ("forking_counts_and_logs_a_killed_child", counts_and_logs_a_killed_child),
    ("forking_first_byte_deadline", first_byte),
    ("forking_idle_deadline", idle),
    ("forking_read_deadline", read),
    ("forking_write_deadline", write),
    ("forking_request_deadline_kills_the_child", request),
    ("forking_request_deadline_is_not_extended_by_a_trickle", trickle),
    ("forking_wrap_deadline", wrap),
    ("forking_timeout_of_wrap_request_itself", wrap_own_timeout),
    ("forking_wrap_deadline_after_a_client_that_was_not_wrapped", wrap_after_a_plain_one),
    ("forking_counts_a_client_for_the_address_that_wrap_request_names", client_address_of_the_hook),
    ("forking_server_speaks_first", server_speaks_first),
    ("forking_handlers_own_timeout", own_timeout),
    ("forking_handler_that_sets_none_has_no_read_deadline", own_none),
    ("forking_read_timeout_of_none_ends_no_receive", read_none),
    ("forking_drain_reports_and_aborts", drain_reports_and_aborts),
    ("forking_drain_closes_idle_connections", drain_closes_idle_connections),
    ("forking_close_timeout", close_timeout),
    ("forking_a_child_cannot_stop_its_parents_server", a_child_cannot_stop_it),
];

const SHORT: Duration = Duration::from_millis(150);

/// Stops the loop once this many requests have come and none is in flight.
struct StopAfter {
    requests: u64,
    handle: Arc<OnceLock<ServerHandle>>,
    /// Stops the loop once all requests have begun instead.
    begun: bool,
}

impl StopAfter {
    fn service_actions(&self) {
        let Some(handle) = self.handle.get() else { return };
        let stats = handle.stats();
        assert!(stats.is_consistent(), "{stats:?}");
        if stats.accepted == self.requests && (self.begun || stats.in_flight == 0) {
            handle.request_shutdown().unwrap();
        }
    }
}

fn unchanged(request: Socket, _client_address: &Address) -> io::Result<Socket> {
    Ok(request)
}

fn children() -> String {
    fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap()
}

fn builder<H: StreamRequestHandler>(
    make: impl Fn() -> H + Send + Sync + 'static,
) -> Builder<Stream<Inet>, ForkingMixIn> {
    ForkingTCPServer::builder(make)
        .poll_interval(Duration::from_millis(5))
        .first_byte_timeout(None)
        .idle_timeout(None)
        .read_timeout(None)
        .write_timeout(None)
        .request_timeout(None)
}

/// Serves one client that `misbehaves` first. Returns the counters and the data that the client has
/// received.
fn one(builder: Builder<Stream<Inet>, ForkingMixIn>, misbehave: impl FnOnce(&Socket)) -> (Stats, String) {
    let check = LeakCheck::begin();
    let handle = Arc::new(OnceLock::new());
    let hooks = StopAfter { requests: 1, handle: Arc::clone(&handle), begun: false };
    let server = builder
        .wrap_request(unchanged)
        .service_actions(move |_| hooks.service_actions())
        .bind(LOOPBACK)
        .unwrap();
    handle.set(server.handle()).unwrap();
    let client = connect_to(server.server_address());
    misbehave(&client);
    server.serve_forever().unwrap();
    let (stats, response) = (server.stats(), read_to_end(&client));
    assert_eq!(children(), "", "no zombie");
    server.server_close().unwrap();
    drop((client, handle));
    check.assert_nothing_left();
    (stats, response)
}

fn echo(cx: &mut StreamContext<'_>) -> io::Result<()> {
    let mut line = String::new();
    cx.rfile.read_line(&mut line)?;
    cx.wfile.write_all(line.as_bytes())?;
    cx.close_connection = line.is_empty();
    Ok(())
}

#[track_caller]
fn assert_timed_out(stats: &Stats, kind: impl Fn(&Stats) -> u64) {
    assert_eq!((stats.accepted, kind(stats), stats.timed_out.total()), (1, 1, 1), "{stats:?}");
}

fn counts_by_exit_status() {
    let check = LeakCheck::begin();
    let handle = Arc::new(OnceLock::new());
    let hooks = StopAfter { requests: 6, handle: Arc::clone(&handle), begun: false };
    let handler = handler_fn(|cx| {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        match line.trim_end() {
            "error" => Err(io::Error::other("as planned")),
            "panic" => panic!("as planned"),
            "exit" => std::process::exit(0),
            _ => Ok(()),
        }
    });
    let server = ForkingTCPServer::builder(handler)
        .wrap_request(unchanged)
        .service_actions(move |_| hooks.service_actions())
        .poll_interval(Duration::from_millis(5))
        .bind(LOOPBACK)
        .unwrap();
    handle.set(server.handle()).unwrap();
    let words = ["fine\n", "error\n", "panic\n", "fine\n", "exit\n", "fine\n"];
    let clients: Vec<Socket> = words
        .iter()
        .map(|word| {
            let client = connect_to(server.server_address());
            client.sendall(word.as_bytes()).unwrap();
            client
        })
        .collect();
    server.serve_forever().unwrap();
    let stats = server.stats();
    assert_eq!((stats.finished, stats.failed, stats.panicked), (4, 1, 1), "{stats:?}");
    assert_eq!(children(), "");
    drop((clients, server, handle));
    check.assert_nothing_left();
}

/// Stores log lines.
struct Kept(Mutex<Vec<String>>);

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{}: {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

fn counts_and_logs_a_killed_child() {
    log::set_logger(&KEPT).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let handler = handler_fn(|_| {
        kill_process(getpid(), Signal::KILL)?;
        loop {
            thread::park();
        }
    });
    let (stats, response) = one(builder(handler), |_| ());
    assert_eq!((stats.failed, stats.finished, response.as_str()), (1, 0, ""), "{stats:?}");
    let lines = KEPT.0.lock().unwrap().clone();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("ERROR: child ") && lines[0].ends_with("was killed by signal 9"),
        "{lines:?}"
    );
}

fn first_byte() {
    let (stats, response) = one(builder(handler_fn(echo)).first_byte_timeout(SHORT), |_| ());
    assert_timed_out(&stats, |stats| stats.timed_out.first_byte);
    assert_eq!(response, "");
}

fn idle() {
    let builder = builder(handler_fn(echo)).idle_timeout(SHORT);
    let (stats, response) = one(builder, |client| client.sendall(b"one\ntwo\n").unwrap());
    assert_timed_out(&stats, |stats| stats.timed_out.idle);
    assert_eq!(response, "one\ntwo\n");
}

fn read() {
    let builder = builder(handler_fn(echo)).read_timeout(SHORT);
    let (stats, _) = one(builder, |client| client.sendall(b"half a line").unwrap());
    assert_timed_out(&stats, |stats| stats.timed_out.read);
}

fn write() {
    let flood = handler_fn(|cx| cx.wfile.write_all(&vec![0; 64 << 20]));
    let (stats, _) = one(builder(flood).write_timeout(SHORT), |_| ());
    assert_timed_out(&stats, |stats| stats.timed_out.write);
}

fn request() {
    let stuck = handler_fn(|_| {
        loop {
            thread::park();
        }
    });
    log::set_logger(&KEPT).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let begin = Instant::now();
    let (stats, response) = one(builder(stuck).request_timeout(SHORT), |_| ());
    let lines = KEPT.0.lock().unwrap().clone();
    let [line] = &lines[..] else { panic!("more than the deadline was logged: {lines:?}") };
    assert!(line.starts_with("WARN: ") && line.ends_with("request deadline of 150ms is over"), "{line}");
    assert_timed_out(&stats, |stats| stats.timed_out.request);
    assert_eq!(response, "");
    assert!(begin.elapsed() >= SHORT && begin.elapsed() < LIMIT);
}

/// Runs another program with this connection as its output.
fn beside(client: &Socket, script: &str) -> std::process::Child {
    let output = OwnedFd::from(client.dup().unwrap());
    Command::new("sh")
        .args(["-c", script])
        .stdout(Stdio::from(output))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn trickle() {
    let mut trickling = None;
    let mut built = Some(builder(handler_fn(echo)).request_timeout(SHORT * 2).read_timeout(LIMIT));
    let check = LeakCheck::begin();
    let handle = Arc::new(OnceLock::new());
    let hooks = StopAfter { requests: 1, handle: Arc::clone(&handle), begun: false };
    let server = built
        .take()
        .unwrap()
        .wrap_request(unchanged)
        .service_actions(move |_| hooks.service_actions())
        .bind(LOOPBACK)
        .unwrap();
    handle.set(server.handle()).unwrap();
    let client = connect_to(server.server_address());
    trickling.replace(beside(&client, "while printf .; do sleep 0.02; done"));
    server.serve_forever().unwrap();
    assert_timed_out(&server.stats(), |stats| stats.timed_out.request);
    // A broken pipe ends the program.
    drop((server, client, handle));
    trickling.take().unwrap().wait().unwrap();
    check.assert_nothing_left();
}

/// A handshake that receives the client's data byte by byte.
fn handshake(request: Socket, _client_address: &Address) -> io::Result<Socket> {
    while request.recv(1)? == b"." {}
    Ok(request)
}

fn wrap() {
    // The third client has to finish its handshake in time also on a busy machine.
    const WRAP: Duration = Duration::from_secs(1);
    let check = LeakCheck::begin();
    let handle = Arc::new(OnceLock::new());
    let hooks = StopAfter { requests: 3, handle: Arc::clone(&handle), begun: false };
    let builder = builder(handler_fn(|cx| {
        // Longer than the handshake deadline, which ends with the handshake.
        thread::sleep(WRAP + SHORT);
        cx.wfile.write_all(b"served")
    }));
    let builder = builder.wrap_timeout(WRAP).read_timeout(LIMIT).wrap_request(handshake);
    let server = builder.service_actions(move |_| hooks.service_actions()).bind(LOOPBACK).unwrap();
    handle.set(server.handle()).unwrap();
    let silent = connect_to(server.server_address());
    let trickling = connect_to(server.server_address());
    let mut other = beside(&trickling, "while printf .; do sleep 0.02; done");
    let good = connect_to(server.server_address());
    good.sendall(b"!").unwrap();
    let begin = Instant::now();
    server.serve_forever().unwrap();
    assert!(begin.elapsed() < LIMIT / 2, "{:?}", begin.elapsed());
    assert_eq!((read_to_end(&silent), read_to_end(&good)), (String::new(), "served".into()));
    let stats = server.stats();
    assert_eq!((stats.timed_out.wrap, stats.finished), (2, 1), "{stats:?}");
    assert_eq!(stats.timed_out.total(), 2);
    drop((server, silent, trickling, good, handle));
    other.wait().unwrap();
    check.assert_nothing_left();
}

/// Fails for a client that sends nothing.
fn impatient(request: Socket, _client_address: &Address) -> io::Result<Socket> {
    request.settimeout(SHORT)?;
    request.recv(1)?;
    Ok(request)
}

fn wrap_own_timeout() {
    let check = LeakCheck::begin();
    let handle = Arc::new(OnceLock::new());
    let hooks = StopAfter { requests: 1, handle: Arc::clone(&handle), begun: false };
    let builder = builder(handler_fn(echo)).wrap_request(impatient);
    let server = builder.service_actions(move |_| hooks.service_actions()).bind(LOOPBACK).unwrap();
    handle.set(server.handle()).unwrap();
    let silent = connect_to(server.server_address());
    server.serve_forever().unwrap();
    assert_timed_out(&server.stats(), |stats| stats.timed_out.wrap);
    drop((server, silent, handle));
    check.assert_nothing_left();
}

/// Does not wrap a client that sends `p`, and waits for the end of any other.
fn patient(request: Socket, _client_address: &Address) -> io::Result<Socket> {
    if request.recv(1)? == b"p" {
        return Ok(request);
    }
    while !request.recv(1)?.is_empty() {}
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn wrap_after_a_plain_one() {
    let handle = Arc::new(OnceLock::new());
    let hooks = StopAfter { requests: 2, handle: Arc::clone(&handle), begun: false };
    // With one child at a time, the parent has the report of the first when it forks the second.
    let builder = builder(handler_fn(echo)).max_children(1).wrap_timeout(SHORT);
    let server = builder
        .wrap_request(patient)
        .service_actions(move |_| hooks.service_actions())
        .bind(LOOPBACK)
        .unwrap();
    handle.set(server.handle()).unwrap();
    let [plain, patient] = [(); 2].map(|()| connect_to(server.server_address()));
    plain.sendall(b"p").unwrap();
    plain.shutdown(sock::SHUT_WR).unwrap();
    patient.sendall(b"x").unwrap();
    server.serve_forever().unwrap();
    let stats = server.stats();
    assert_eq!((stats.accepted, stats.finished, stats.timed_out.wrap), (2, 1, 1), "{stats:?}");
}

/// A hook behind a proxy that sends the client's address as the first line.
fn proxied(request: Socket, _proxy: &Address) -> io::Result<WrappedRequest> {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.extend(request.recv(1)?);
    }
    let line = String::from_utf8(line).map_err(io::Error::other)?;
    let client: std::net::SocketAddr = line.trim_end().parse().map_err(io::Error::other)?;
    Ok(WrappedRequest::from(request).with_client_address(client))
}

struct Busy;

impl ServerHooks for Busy {
    fn refuse_request(&self, request: &Request, client_address: &Address) {
        let _ = request.stream().map(|stream| stream.sendall(format!("busy {client_address}").as_bytes()));
    }
}

/// The parent counts a child's client for the address that the hook in the child has named.
fn client_address_of_the_hook() {
    let check = LeakCheck::begin();
    let builder = builder(handler_fn(|cx| {
        cx.wfile.write_all(cx.client_address.to_string().as_bytes())?;
        cx.rfile.read_line(&mut String::new()).map(drop)
    }));
    let connect = |address: &Address, named: &str| {
        let client = connect_to(address);
        client.sendall(format!("{named}\n").as_bytes()).unwrap();
        client
    };
    let known = Arc::new(OnceLock::<Address>::new());
    let (its, second, turns) = (Arc::clone(&known), Mutex::new(None), AtomicUsize::new(0));
    let second = Arc::new(second);
    let late = Arc::clone(&second);
    let server = builder
        .wrap_request(proxied)
        .hooks(Busy)
        .max_connections_per_ip(1)
        .service_actions(move |server| {
            // By then the parent has the address of the first.
            if turns.fetch_add(1, Ordering::Relaxed) == 100 {
                *late.lock().unwrap() = its.get().map(|address| connect(address, "192.0.2.7:3"));
            }
            let stats = server.stats();
            if stats.rejected == 1 && stats.in_flight == 1 {
                server.request_shutdown().unwrap();
            }
        })
        .bind(LOOPBACK)
        .unwrap();
    let address = server.server_address().clone();
    known.set(address.clone()).unwrap();
    let first = connect(&address, "192.0.2.7:1");
    server.serve_forever().unwrap();
    let second = second.lock().unwrap().take().unwrap();
    let report = server.drain(Duration::ZERO).unwrap();
    let aborted: Vec<_> = report.aborted.iter().map(|request| request.client_address.to_string()).collect();
    assert_eq!(aborted, ["192.0.2.7:1"], "{report}");
    assert_eq!(
        (read_to_end(&first), read_to_end(&second)),
        ("192.0.2.7:1".into(), "busy 192.0.2.7:3".into())
    );
    drop((server, first, second, known));
    check.assert_nothing_left();
}

fn server_speaks_first() {
    // The server has to speak in time also on a busy machine.
    const FIRST_BYTE: Duration = Duration::from_secs(1);
    let handler = handler_fn(|cx| {
        cx.wfile.write_all(b"who is there?\n")?;
        echo(cx)?;
        cx.close_connection = true;
        Ok(())
    });
    let mut other = None;
    let check = LeakCheck::begin();
    let (stats, response) = {
        let handle = Arc::new(OnceLock::new());
        let hooks = StopAfter { requests: 1, handle: Arc::clone(&handle), begun: false };
        let server = builder(handler)
            .first_byte_timeout(FIRST_BYTE)
            .wrap_request(unchanged)
            .service_actions(move |_| hooks.service_actions())
            .bind(LOOPBACK)
            .unwrap();
        handle.set(server.handle()).unwrap();
        let client = connect_to(server.server_address());
        other.replace(beside(&client, "sleep 1.5; echo me"));
        server.serve_forever().unwrap();
        (server.stats(), read_to_end(&client))
    };
    assert_eq!((stats.finished, response.as_str()), (1, "who is there?\nme\n"), "{stats:?}");
    other.take().unwrap().wait().unwrap();
    check.assert_nothing_left();
}

struct Impatient;

impl StreamRequestHandler for Impatient {
    const TIMEOUT: Option<Duration> = Some(SHORT);

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let late = cx.rfile.read(&mut [0]).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        cx.wfile.write_all(b"late")
    }
}

fn own_timeout() {
    let (stats, response) = one(builder(|| Impatient), |_| ());
    assert_eq!((stats.finished, response.as_str()), (1, "late"), "{stats:?}");
}

fn own_none() {
    let blocks = handler_fn(|cx| {
        cx.request.socket().settimeout(None)?;
        cx.rfile.read_exact(&mut [0; 10])
    });
    let builder = builder(blocks).read_timeout(SHORT).request_timeout(SHORT * 4);
    let (stats, _) = one(builder, |client| client.sendall(b"half").unwrap());
    assert_timed_out(&stats, |stats| stats.timed_out.request);
}

fn read_none() {
    let builder = builder(handler_fn(echo)).first_byte_timeout(SHORT).idle_timeout(SHORT);
    let (stats, _) =
        one(builder.request_timeout(SHORT * 4), |client| client.sendall(b"half a line").unwrap());
    assert_timed_out(&stats, |stats| stats.timed_out.request);
}

fn drain_reports_and_aborts() {
    let check = LeakCheck::begin();
    let handle = Arc::new(OnceLock::new());
    let hooks = StopAfter { requests: 4, handle: Arc::clone(&handle), begun: true };
    let server = builder(handler_fn(|cx| {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        // One request finishes during the drain.
        thread::sleep(SHORT);
        cx.wfile.write_all(line.as_bytes())
    }));
    let server = server
        .wrap_request(unchanged)
        .service_actions(move |_| hooks.service_actions())
        .bind(LOOPBACK)
        .unwrap();
    handle.set(server.handle()).unwrap();
    let clients: Vec<Socket> = (0..4).map(|_| connect_to(server.server_address())).collect();
    for client in &clients[..2] {
        client.sendall(b"hello\n").unwrap();
    }
    server.serve_forever().unwrap();
    let limit = Duration::from_secs(2);
    let begin = Instant::now();
    let report = server.drain(limit).unwrap();
    assert!(begin.elapsed() >= limit);
    assert!(report.finished <= 2 && report.idle == 0 && report.still_running == 0, "{report}");
    let mut cut: Vec<_> = report.aborted.iter().map(|cut| cut.client_address.clone()).collect();
    let mut silent: Vec<_> = clients[2..].iter().map(|client| client.getsockname().unwrap()).collect();
    cut.sort_by_key(|address| address.port());
    silent.sort_by_key(|address| address.port());
    assert_eq!(cut, silent, "the report names other clients than the silent ones");
    for (index, client) in clients.iter().enumerate() {
        assert_eq!(read_to_end(client), if index < 2 { "hello\n" } else { "" });
    }
    let stats = server.stats();
    assert_eq!((stats.finished, stats.aborted, stats.in_flight), (2, 2, 0), "{stats:?}");
    assert_eq!(children(), "");
    drop((clients, server, handle));
    check.assert_nothing_left();
}

fn drain_closes_idle_connections() {
    let handle = Arc::new(OnceLock::new());
    let hooks = StopAfter { requests: 1, handle: Arc::clone(&handle), begun: true };
    let server = builder(handler_fn(|cx| {
        let mut line = String::new();
        cx.close_connection = cx.rfile.read_line(&mut line)? == 0;
        cx.wfile.write_all(line.as_bytes())
    }));
    let server = server
        .wrap_request(unchanged)
        .service_actions(move |_| hooks.service_actions())
        .bind(LOOPBACK)
        .unwrap();
    handle.set(server.handle()).unwrap();
    let client = connect_to(server.server_address());
    client.sendall(b"hello\n").unwrap();
    server.serve_forever().unwrap();
    assert_eq!(client.recv(100).unwrap(), b"hello\n");
    let report = server.drain(LIMIT).unwrap();
    assert!(
        report.elapsed < LIMIT / 2 && report.aborted.is_empty() && report.still_running == 0,
        "{report}"
    );
    assert_eq!(read_to_end(&client), "");
    assert_eq!(server.stats().finished, 1);
    assert_eq!(children(), "");
}

fn close_timeout() {
    let server = builder(handler_fn(|cx| cx.rfile.read(&mut [0]).map(drop))).close_timeout(SHORT);
    let server = server.bind(LOOPBACK).unwrap();
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    let begin = Instant::now();
    server.server_close().unwrap();
    assert!(begin.elapsed() >= SHORT && begin.elapsed() < LIMIT / 2, "{:?}", begin.elapsed());
    assert_ne!(children(), "", "the child has ended");
    client.shutdown(sock::SHUT_WR).unwrap();
    assert_eq!(read_to_end(&client), "");
}

fn a_child_cannot_stop_it() {
    let handler = handler_fn(|cx| {
        let errors = [
            cx.server.shutdown().unwrap_err(),
            cx.server.request_shutdown().unwrap_err(),
            cx.server.drain(LIMIT).unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.kind() == io::ErrorKind::Unsupported), "{errors:?}");
        cx.wfile.write_all(b"refused")
    });
    let (stats, response) = one(builder(handler), |_| ());
    assert_eq!((stats.finished, response.as_str()), (1, "refused"));
}

fn children_left_at_the_close() {
    let builder = ForkingTCPServer::builder(handler_fn(|cx| {
        cx.wfile.write_all(b"begun ")?;
        let text = cx.request.recv(1)?;
        cx.wfile.write_all(&text)
    }));
    let server = builder
        .mixin(ForkingMixIn::new().block_on_close(false))
        .poll_interval(Duration::from_millis(5))
        .service_actions(|server| {
            if server.stats().accepted == 1 {
                server.request_shutdown().unwrap();
            }
        })
        .bind(LOOPBACK)
        .unwrap();
    let client = connect_to(server.server_address());
    server.serve_forever().unwrap();
    assert_eq!(client.recv(6).unwrap(), b"begun ");
    let handle = server.handle();
    server.server_close().unwrap();
    let stats = handle.stats();
    assert_eq!((stats.aborted, stats.rejected, stats.in_flight), (1, 0, 0));
    client.sendall(b"1").unwrap();
    assert_eq!(read_to_end(&client), "1");
    wait_until("the next close reaps it", || {
        let next = ForkingTCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
        next.server_close().unwrap();
        children().is_empty()
    });
}
