//! The promise: `ForkingMixIn` serves each request in a child of its own, which
//! never comes back, and collects its own children only, when they end.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use sock::{Address, MSG_DONTWAIT, SHUT_WR, SOCK_DGRAM, Socket, create_connection};
use sockserver::kind::Inet;
use sockserver::{
    ForkingMixIn, ForkingTCPServer, ForkingUDPServer, Job, MixIn, PreforkTCPServer, Rejected, Request,
    RequestError, ServerHandle, ServerHooks, StreamContext, StreamRequestHandler, StreamServer,
    datagram_handler_fn, handler_fn,
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("forking_hooks_are_called_in_order", hooks_are_called_in_order),
    ("forking_refuses_to_fork_beside_threads", refuses_to_fork_beside_threads),
    ("forking_refuses_to_fork_where_proc_is_hidden", refuses_to_fork_where_proc_is_hidden),
    ("forking_leaves_a_childs_own_descriptors_alone", leaves_a_childs_own_descriptors_alone),
    ("forking_collects_a_child_when_it_ends", collects_a_child_when_it_ends),
    ("forking_collects_a_child_that_is_killed", collects_a_child_that_is_killed),
    ("forking_does_not_spin_beside_another_program", does_not_spin_beside_another_program),
    ("forking_finds_room_again_after_other_programs", finds_room_again_after_other_programs),
    ("forking_leaves_the_children_of_others", leaves_the_children_of_others),
    ("forking_is_woken_by_a_child_that_ends", is_woken_by_a_child_that_ends),
    ("forking_keeps_to_max_children", keeps_to_max_children),
    ("forking_serves_datagrams", serves_datagrams),
    ("forking_close_waits_for_children", close_waits_for_children),
];

/// Not a test: [`refuses_to_fork_where_proc_is_hidden`] runs it in a mount namespace.
pub(crate) const HELPERS: &[Test] = &[("forking_without_proc", is_refused_without_proc)];

const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);
const LIMIT: Duration = Duration::from_secs(20);

/// Calls of all processes, in the order they were made: one datagram each.
struct Log {
    write: Socket,
    read: Socket,
    parent: u32,
}

impl Log {
    fn new() -> Arc<Log> {
        let (write, read) = sock::socketpair_with(sock::AF_UNIX, SOCK_DGRAM, 0).unwrap();
        Arc::new(Log { write, read, parent: std::process::id() })
    }

    fn add(&self, call: &str) {
        let who = if std::process::id() == self.parent { "parent" } else { "child" };
        self.write.send(format!("{who} {call}").as_bytes()).unwrap();
    }

    /// What one of the two has called since the last look.
    fn take(&self) -> (String, String) {
        let (mut parent, mut child) = (Vec::new(), Vec::new());
        while let Ok(line) = self.read.recv_with_flags(100, MSG_DONTWAIT) {
            let line = String::from_utf8(line).unwrap();
            match line.split_once(' ').unwrap() {
                ("parent", call) => parent.push(call.to_owned()),
                (_, call) => child.push(call.to_owned()),
            }
        }
        (parent.join(" "), child.join(" "))
    }
}

struct Logged {
    log: Arc<Log>,
}

impl ServerHooks for Logged {
    fn get_request(&self, socket: &Socket) -> io::Result<(Socket, Address)> {
        let taken = socket.accept()?;
        self.log.add("get_request");
        Ok(taken)
    }

    fn verify_request(&self, _request: &Request, _client_address: &Address) -> bool {
        self.log.add("verify_request");
        true
    }

    fn handle_error(&self, _error: &RequestError, _client_address: &Address) {
        self.log.add("handle_error");
    }

    fn shutdown_request(&self, request: &Request) {
        self.log.add("shutdown_request");
        let _ = request.socket().shutdown(SHUT_WR);
    }

    fn close_request(&self, _request: &Request) {
        self.log.add("close_request");
    }
}

struct Handler {
    log: Arc<Log>,
    fault: &'static str,
}

impl StreamRequestHandler for Handler {
    fn setup(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.log.add("setup");
        Ok(())
    }

    fn handle(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.log.add("handle");
        match self.fault {
            "error" => Err(io::Error::other("as planned")),
            "panic" => panic!("as planned"),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, _cx: &mut StreamContext<'_>) -> io::Result<()> {
        self.log.add("finish");
        Ok(())
    }
}

fn client_of(address: &Address) -> Socket {
    let client = create_connection(("127.0.0.1", address.port().unwrap())).unwrap();
    client.settimeout(LIMIT).unwrap();
    client
}

/// Pids of this process' children, zombies included.
fn children() -> String {
    let pid = std::process::id();
    std::fs::read_to_string(format!("/proc/self/task/{pid}/children")).unwrap()
}

fn hooks_are_called_in_order() {
    for fault in ["none", "error", "panic"] {
        let log = Log::new();
        let of_handlers = Arc::clone(&log);
        let make = move || {
            of_handlers.add("finish_request");
            Handler { log: Arc::clone(&of_handlers), fault }
        };
        let (wrapping, acting) = (Arc::clone(&log), Arc::clone(&log));
        let server = ForkingTCPServer::builder(make)
            .hooks(Logged { log: Arc::clone(&log) })
            .wrap_request(move |request, _| {
                wrapping.add("wrap_request");
                Ok(request)
            })
            .service_actions(move |_| acting.add("service_actions"))
            .bind(LOOPBACK)
            .unwrap();
        let client = client_of(server.server_address());
        server.handle_request().unwrap();
        assert_eq!(client.recv(1).unwrap(), b"", "closed by parent and child");
        assert_eq!(server.mixin().active_children(), 1, "not collected yet, by this way of serving");
        server.server_close().unwrap();
        let (parent, child) = log.take();
        // Only close_request: shutdown_request would end the child's connection.
        assert_eq!(parent, "get_request verify_request close_request", "with {fault}");
        let failed = if fault == "none" { "" } else { "handle_error " };
        assert_eq!(
            child,
            format!(
                "wrap_request finish_request setup handle finish {failed}shutdown_request close_request"
            ),
            "with {fault}"
        );
        assert_eq!(children(), "", "no zombie is left");
    }
}

/// Tells the test what `handle_error` is told.
struct Telling(mpsc::SyncSender<String>);

impl ServerHooks for Telling {
    fn handle_error(&self, error: &RequestError, _client_address: &Address) {
        let _ = self.0.send(error.to_string());
    }
}

fn refuses_to_fork_beside_threads() {
    let (tell, told) = mpsc::sync_channel(10);
    let server =
        ForkingTCPServer::builder(handler_fn(|_| Ok(()))).hooks(Telling(tell)).bind(LOOPBACK).unwrap();
    let (end, wait) = mpsc::channel::<()>();
    let other = thread::spawn(move || wait.recv().unwrap_or_default());

    let error = server.serve_forever().unwrap_err().to_string();
    assert!(error.contains("fork refused: this process has 2 threads"), "{error}");
    let client = client_of(server.server_address());
    server.handle_request().unwrap();
    assert!(told.recv().unwrap().starts_with("rejected: fork refused: this process has 2 threads"));
    assert_eq!(client.recv(1).unwrap(), b"", "rejected and closed");
    assert_eq!(children(), "");

    drop(end);
    other.join().unwrap();
    let client = client_of(server.server_address());
    server.handle_request().unwrap();
    assert_eq!(client.recv(1).unwrap(), b"");
    assert!(told.try_recv().is_err(), "alone again, it forks");
}

/// Whether other threads run is unknown where `/proc` cannot be read, unless glibc knows.
fn refuses_to_fork_where_proc_is_hidden() {
    let program = std::env::current_exe().unwrap();
    let script = r#"mount -t tmpfs none /proc && exec "$0" --alone forking_without_proc"#;
    let ran = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(program)
        .output()
        .expect("unshare(1), of util-linux");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn is_refused_without_proc() {
    assert!(!std::path::Path::new("/proc/self").exists(), "/proc is hidden");
    let (tell, told) = mpsc::sync_channel(10);
    let server =
        ForkingTCPServer::builder(handler_fn(|_| Ok(()))).hooks(Telling(tell)).bind(LOOPBACK).unwrap();
    let (end, wait) = mpsc::channel::<()>();
    let other = thread::spawn(move || wait.recv().unwrap_or_default());

    let error = server.serve_forever().unwrap_err().to_string();
    assert!(error.contains("fork refused: cannot read /proc/self/task"), "{error}");
    let client = client_of(server.server_address());
    server.handle_request().unwrap();
    assert!(told.recv().unwrap().starts_with("rejected: fork refused: cannot read /proc/self/task"));
    assert_eq!(client.recv(1).unwrap(), b"", "rejected and closed");
    let prefork = PreforkTCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
    let error = prefork.serve_forever().unwrap_err().to_string();
    assert!(error.contains("fork refused: cannot read /proc/self/task"), "{error}");

    // A directory at that place that is not of procfs is no answer either.
    std::fs::create_dir_all("/proc/self/task").unwrap();
    let error = server.serve_forever().unwrap_err().to_string();
    assert!(error.contains("fork refused: cannot read /proc/self/task"), "{error}");
    drop(end);
    other.join().unwrap();
}

/// A mixin that its handlers have in hand as well.
#[derive(Default)]
struct Shared(Arc<ForkingMixIn>);

impl MixIn for Shared {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        self.0.process_request(job)
    }

    fn forks(&self) -> bool {
        true
    }

    fn server_close(&self, server: &ServerHandle) -> io::Result<()> {
        self.0.server_close(server)
    }
}

fn leaves_a_childs_own_descriptors_alone() {
    let mixin = Arc::new(ForkingMixIn::new());
    let own = Arc::clone(&mixin);
    let handler = handler_fn(move |cx| {
        // More than the numbers that are free below those in use.
        let pairs: Vec<_> = (0..20).map(|_| sock::socketpair()).collect::<io::Result<_>>()?;
        // In the parent it ends the conversation with the children.
        let report = own.drain_workers(Duration::ZERO, &|| true);
        let all_carry = pairs.iter().all(|(one, other)| {
            let carries = |from: &Socket, to: &Socket| {
                from.send(b"!").is_ok() && to.recv(1).is_ok_and(|got| got == b"!")
            };
            carries(one, other) && carries(other, one)
        });
        cx.request.sendall(format!("{} {all_carry}", report.is_none()).as_bytes())
    });
    let server =
        StreamServer::<Inet, Shared>::builder(handler).mixin(Shared(mixin)).bind(LOOPBACK).unwrap();
    // The line is not harmed for the next child either.
    for _ in 0..2 {
        let client = client_of(server.server_address());
        server.handle_request().unwrap();
        assert_eq!(client.recv(100).unwrap(), b"true true");
    }
}

/// Counts the requests that the parent has passed to children.
struct CountPassed(Arc<AtomicUsize>);

impl ServerHooks for CountPassed {
    fn close_request(&self, _request: &Request) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves that many requests by `handle` in children of `mixin`.
fn serve(
    requests: usize,
    mixin: ForkingMixIn,
    handle: impl Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + Sync + 'static,
) -> Vec<Socket> {
    let passed = Arc::new(AtomicUsize::new(0));
    let server = ForkingTCPServer::builder(handler_fn(handle))
        .hooks(CountPassed(Arc::clone(&passed)))
        // Stops the server in the first turn without a child after the last request.
        .service_actions(move |server| {
            if passed.load(Ordering::Relaxed) == requests && children().is_empty() {
                server.request_shutdown().unwrap();
            }
        })
        .mixin(mixin)
        // Never in this test: only requests and children's ends wake the loop.
        .poll_interval(Duration::from_secs(3600))
        .bind(LOOPBACK)
        .unwrap();
    let clients = (0..requests).map(|_| client_of(server.server_address())).collect();
    server.serve_forever().unwrap();
    clients
}

fn collects_a_child_when_it_ends() {
    let clients = serve(1, ForkingMixIn::new(), |cx| {
        // The parent goes to sleep first; then the child ends.
        sock::poll(&mut [], Some(Duration::from_millis(50)))?;
        cx.request.sendall(b"served")
    });
    assert_eq!(clients[0].recv(100).unwrap(), b"served");
    assert_eq!(children(), "");
}

fn collects_a_child_that_is_killed() {
    serve(1, ForkingMixIn::new(), |_| kill_process(getpid(), Signal::KILL).map_err(io::Error::from));
    assert_eq!(children(), "");
}

fn does_not_spin_beside_another_program() {
    let turns = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&turns);
    // What CGI does: the child becomes the program, and says nothing at its end.
    let server = ForkingTCPServer::builder(handler_fn(|_| Err(Command::new("sleep").arg("0.5").exec())))
        .service_actions(move |server| {
            // No request may have been accepted before the first call.
            if count.fetch_add(1, Ordering::Relaxed) > 0 && children().is_empty() {
                server.request_shutdown().unwrap();
            }
        })
        .poll_interval(Duration::from_millis(50))
        .bind(LOOPBACK)
        .unwrap();
    let _client = client_of(server.server_address());
    server.serve_forever().unwrap();
    let turns = turns.load(Ordering::Relaxed);
    assert!((2..40).contains(&turns), "{turns} turns in half a second");
}

fn finds_room_again_after_other_programs() {
    let clients = serve(3, ForkingMixIn::new().max_children(1), |_| Err(Command::new("true").exec()));
    for client in clients {
        assert_eq!(client.recv(1).unwrap(), b"");
    }
}

fn leaves_the_children_of_others() {
    // bpo-1540386: waitpid(-1) would take it.
    let mut foreign = Command::new("sh").args(["-c", "exit 72"]).spawn().unwrap();
    let server = ForkingTCPServer::new(LOOPBACK, handler_fn(|cx| cx.request.sendall(b"served"))).unwrap();
    for _ in 0..3 {
        let client = client_of(server.server_address());
        server.handle_request().unwrap();
        assert_eq!(client.recv(100).unwrap(), b"served");
    }
    server.server_close().unwrap();
    assert_eq!(foreign.wait().unwrap().code(), Some(72));
}

fn is_woken_by_a_child_that_ends() {
    let begin = Instant::now();
    serve(50, ForkingMixIn::new().max_children(1), |_| Ok(()));
    // Without a word each would be found by the look that comes ten times a second.
    assert!(begin.elapsed() < Duration::from_millis(2500), "{:?}", begin.elapsed());
}

fn keeps_to_max_children() {
    let log = Log::new();
    let of_handlers = Arc::clone(&log);
    serve(3, ForkingMixIn::new().max_children(1), move |_| {
        of_handlers.add("begin");
        sock::poll(&mut [], Some(Duration::from_millis(30)))?;
        of_handlers.add("end");
        Ok(())
    });
    assert_eq!(log.take().1, "begin end begin end begin end", "never two at once");
}

fn serves_datagrams() {
    let server = ForkingUDPServer::new(
        LOOPBACK,
        datagram_handler_fn(|cx| {
            cx.wfile.extend(cx.packet.to_ascii_uppercase());
            Ok(())
        }),
    )
    .unwrap();
    let client = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.sendto(b"hello", server.server_address()).unwrap();
    server.handle_request().unwrap();
    assert_eq!(client.recv(100).unwrap(), b"HELLO");
    server.server_close().unwrap();
    assert_eq!(children(), "");
}

fn close_waits_for_children() {
    let server = ForkingTCPServer::new(LOOPBACK, handler_fn(|cx| cx.request.recv(1).map(drop))).unwrap();
    let client = client_of(server.server_address());
    server.handle_request().unwrap();
    assert_ne!(children(), "", "the child waits for the client");
    // Not by closing: the child has a copy of this end too.
    client.shutdown(SHUT_WR).unwrap();
    server.server_close().unwrap();
    assert_eq!(children(), "");
}
