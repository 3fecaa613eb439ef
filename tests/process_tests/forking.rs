//! The promise: `ForkingMixIn` serves each request in a child process, which never reiterations into the
//! server, and it reaps only its own children, as soon as they end.

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
    ("forking_refuses_to_fork_with_other_threads", refuses_to_fork_with_other_threads),
    ("forking_refuses_to_fork_where_proc_is_hidden", refuses_to_fork_where_proc_is_hidden),
    ("forking_does_not_close_descriptors_of_a_child", does_not_close_descriptors_of_a_child),
    ("forking_reaps_a_child_when_it_ends", reaps_a_child_when_it_ends),
    ("forking_reaps_a_child_that_is_killed", reaps_a_child_that_is_killed),
    ("forking_does_not_spin_after_exec_in_a_child", does_not_spin_after_exec_in_a_child),
    ("forking_reaps_children_that_called_exec", reaps_children_that_called_exec),
    ("forking_does_not_reap_children_of_other_code", does_not_reap_children_of_other_code),
    ("forking_wakes_when_a_child_ends", wakes_when_a_child_ends),
    ("forking_runs_at_most_max_children", runs_at_most_max_children),
    ("forking_serves_datagrams", serves_datagrams),
    #[cfg(target_os = "linux")]
    (
        "forking_answers_from_the_address_that_the_datagram_was_sent_to",
        a_child_answers_from_the_address_that_the_datagram_was_sent_to,
    ),
    ("forking_close_waits_for_children", close_waits_for_children),
];

/// Run by [`refuses_to_fork_where_proc_is_hidden`] in a mount namespace.
pub(crate) const HELPERS: &[Test] = &[("forking_without_proc", refuses_to_fork_without_proc)];

const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);
const LIMIT: Duration = Duration::from_secs(20);

/// The calls of all processes in their order. Each is a datagram.
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
        let process = if std::process::id() == self.parent { "parent" } else { "child" };
        self.write.send(format!("{process} {call}").as_bytes()).unwrap();
    }

    /// Reiterations the calls of the parent and of the child since the last `take`.
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
        let accepted = socket.accept()?;
        self.log.add("get_request");
        Ok(accepted)
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

fn connect_to(address: &Address) -> Socket {
    let client = create_connection(("127.0.0.1", address.port().unwrap())).unwrap();
    client.settimeout(LIMIT).unwrap();
    client
}

/// Reiterations the process ids of this process's children, zombies included.
fn children() -> String {
    let pid = std::process::id();
    std::fs::read_to_string(format!("/proc/self/task/{pid}/children")).unwrap()
}

fn hooks_are_called_in_order() {
    for fault in ["none", "error", "panic"] {
        let log = Log::new();
        let handler_log = Arc::clone(&log);
        let make = move || {
            handler_log.add("finish_request");
            Handler { log: Arc::clone(&handler_log), fault }
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
        let client = connect_to(server.server_address());
        server.handle_request().unwrap();
        assert_eq!(client.recv(1).unwrap(), b"", "the connection is open");
        assert_eq!(server.mixin().active_children(), 1, "handle_request reaped the child");
        server.server_close().unwrap();
        let (parent, child) = log.take();
        // Not shutdown_request, which would shut the child's connection down.
        assert_eq!(parent, "get_request verify_request close_request", "with {fault}");
        let failed = if fault == "none" { "" } else { "handle_error " };
        assert_eq!(
            child,
            format!(
                "wrap_request finish_request setup handle finish {failed}shutdown_request close_request"
            ),
            "with {fault}"
        );
        assert_eq!(children(), "", "a zombie is left");
    }
}

/// Sends each error that `handle_error` gets to the test.
struct ReportErrors(mpsc::SyncSender<String>);

impl ServerHooks for ReportErrors {
    fn handle_error(&self, error: &RequestError, _client_address: &Address) {
        let _ = self.0.send(error.to_string());
    }
}

/// Checks that a server refuses to fork with `cause` while another thread runs, and calls `check`
/// before that thread ends. Returns the server and the errors that `handle_error` gets.
fn check_fork_is_refused(
    cause: &str,
    check: impl FnOnce(&ForkingTCPServer),
) -> (ForkingTCPServer, mpsc::Receiver<String>) {
    let (sender, receiver) = mpsc::sync_channel(10);
    let hooks = ReportErrors(sender);
    let server = ForkingTCPServer::builder(handler_fn(|_| Ok(()))).hooks(hooks).bind(LOOPBACK).unwrap();
    let (end, wait) = mpsc::channel::<()>();
    let other = thread::spawn(move || wait.recv().unwrap_or_default());

    let error = server.serve_forever().unwrap_err().to_string();
    assert!(error.contains(&format!("fork refused: {cause}")), "{error}");
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    let error = receiver.recv().unwrap();
    assert!(error.starts_with(&format!("rejected: fork refused: {cause}")), "{error}");
    assert_eq!(client.recv(1).unwrap(), b"", "the rejected request is open");
    check(&server);

    drop(end);
    other.join().unwrap();
    (server, receiver)
}

fn refuses_to_fork_with_other_threads() {
    let (server, errors) =
        check_fork_is_refused("this process has 2 threads", |_| assert_eq!(children(), ""));
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    assert_eq!(client.recv(1).unwrap(), b"");
    assert!(errors.try_recv().is_err(), "fork is refused after the thread has ended");
}

/// The number of threads is unknown if `/proc` cannot be read and glibc does not know it.
fn refuses_to_fork_where_proc_is_hidden() {
    let program = std::env::current_exe().unwrap();
    let script = r#"mount -t tmpfs none /proc && exec "$0" --alone forking_without_proc"#;
    let ran = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(program)
        .output()
        .expect("cannot run unshare(1) of util-linux");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn refuses_to_fork_without_proc() {
    assert!(!std::path::Path::new("/proc/self").exists(), "/proc is not hidden");
    const CAUSE: &str = "cannot read /proc/self/task";
    let _ = check_fork_is_refused(CAUSE, |server| {
        let prefork = PreforkTCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
        let error = prefork.serve_forever().unwrap_err().to_string();
        assert!(error.contains(CAUSE), "{error}");

        // A directory with this name that is not procfs is not used.
        std::fs::create_dir_all("/proc/self/task").unwrap();
        let error = server.serve_forever().unwrap_err().to_string();
        assert!(error.contains(CAUSE), "{error}");
    });
}

/// A mixin that its handlers can access.
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

fn does_not_close_descriptors_of_a_child() {
    let mixin = Arc::new(ForkingMixIn::new());
    let own = Arc::clone(&mixin);
    let handler = handler_fn(move |cx| {
        // Enough pairs to reuse all descriptor numbers that were closed.
        let pairs: Vec<_> = (0..20).map(|_| sock::socketpair()).collect::<io::Result<_>>()?;
        // In the parent this closes the channel to the children.
        let report = own.processes().unwrap().drain_workers(Duration::ZERO, Duration::ZERO, &|| true);
        let all_work = pairs.iter().all(|(one, other)| {
            let carries = |from: &Socket, to: &Socket| {
                from.send(b"!").is_ok() && to.recv(1).is_ok_and(|got| got == b"!")
            };
            carries(one, other) && carries(other, one)
        });
        cx.request.sendall(format!("{} {all_work}", report.is_none()).as_bytes())
    });
    let server =
        StreamServer::<Inet, Shared>::builder(handler).mixin(Shared(mixin)).bind(LOOPBACK).unwrap();
    // The channel still works for the next child.
    for _ in 0..2 {
        let client = connect_to(server.server_address());
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

/// Serves this many requests with `handle` in children of `mixin`.
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
        // Long enough that only requests and the ends of children wake the loop.
        .poll_interval(Duration::from_secs(3600))
        .bind(LOOPBACK)
        .unwrap();
    let clients = (0..requests).map(|_| connect_to(server.server_address())).collect();
    server.serve_forever().unwrap();
    clients
}

fn reaps_a_child_when_it_ends() {
    let clients = serve(1, ForkingMixIn::new(), |cx| {
        // The parent waits before the child ends.
        sock::poll(&mut [], Some(Duration::from_millis(50)))?;
        cx.request.sendall(b"served")
    });
    assert_eq!(clients[0].recv(100).unwrap(), b"served");
    assert_eq!(children(), "");
}

fn reaps_a_child_that_is_killed() {
    serve(1, ForkingMixIn::new(), |_| kill_process(getpid(), Signal::KILL).map_err(io::Error::from));
    assert_eq!(children(), "");
}

fn does_not_spin_after_exec_in_a_child() {
    let iterations = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&iterations);
    // Like CGI: the child calls exec, so it does not report its exit.
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
    let _client = connect_to(server.server_address());
    let begin = Instant::now();
    server.serve_forever().unwrap();
    let (iterations, intervals) =
        (iterations.load(Ordering::Relaxed), begin.elapsed().as_millis() as usize / 50);
    assert!((2..40 + 2 * intervals).contains(&iterations), "{iterations} in {intervals} intervals");
}

fn reaps_children_that_called_exec() {
    let clients = serve(3, ForkingMixIn::new().max_children(1), |_| Err(Command::new("true").exec()));
    for client in clients {
        assert_eq!(client.recv(1).unwrap(), b"");
    }
}

fn does_not_reap_children_of_other_code() {
    // bpo-1540386: waitpid(-1) would reap it.
    let mut foreign = Command::new("sh").args(["-c", "exit 72"]).spawn().unwrap();
    let server = ForkingTCPServer::new(LOOPBACK, handler_fn(|cx| cx.request.sendall(b"served"))).unwrap();
    for _ in 0..3 {
        let client = connect_to(server.server_address());
        server.handle_request().unwrap();
        assert_eq!(client.recv(100).unwrap(), b"served");
    }
    server.server_close().unwrap();
    assert_eq!(foreign.wait().unwrap().code(), Some(72));
}

fn wakes_when_a_child_ends() {
    let (sender, times) = sock::socketpair_with(sock::AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let begin = Instant::now();
    serve(50, ForkingMixIn::new().max_children(1), move |_| {
        sender.send(&begin.elapsed().as_nanos().to_le_bytes()).map(drop)
    });
    let next = || Some(u128::from_le_bytes(times.recv_with_flags(16, MSG_DONTWAIT).ok()?.try_into().ok()?));
    let times: Vec<u128> = std::iter::from_fn(next).collect();
    assert_eq!(times.len(), 50);
    let mut pauses: Vec<_> =
        times.windows(2).map(|two| Duration::from_nanos((two[1] - two[0]) as u64)).collect();
    pauses.sort();
    // Without its report each child would be found by waitpid(2), ten times a second only. A busy
    // machine delays some, but not all.
    assert!(pauses[5] < Duration::from_millis(50), "{pauses:?}");
}

fn runs_at_most_max_children() {
    let log = Log::new();
    let handler_log = Arc::clone(&log);
    serve(3, ForkingMixIn::new().max_children(1), move |_| {
        handler_log.add("begin");
        sock::poll(&mut [], Some(Duration::from_millis(30)))?;
        handler_log.add("end");
        Ok(())
    });
    assert_eq!(log.take().1, "begin end begin end begin end", "two children ran at once");
}

/// Linux has every address of 127.0.0.0/8.
#[cfg(target_os = "linux")]
fn a_child_answers_from_the_address_that_the_datagram_was_sent_to() {
    let server = ForkingUDPServer::new(
        ("", 0),
        datagram_handler_fn(|cx| {
            cx.wfile.extend(cx.destination_address()?.to_string().into_bytes());
            Ok(())
        }),
    )
    .unwrap();
    let client = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.bind(LOOPBACK).unwrap();
    let port = server.server_address().port().unwrap();
    client.sendto(b"where?", ("127.0.0.2", port)).unwrap();
    server.handle_request().unwrap();
    let (text, from) = client.recvfrom(100).unwrap();
    assert_eq!((String::from_utf8(text).unwrap(), from.to_string()), {
        let address = format!("127.0.0.2:{port}");
        (address.clone(), address)
    });
    server.server_close().unwrap();
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
    let client = connect_to(server.server_address());
    server.handle_request().unwrap();
    assert_ne!(children(), "", "the child has ended before the client");
    // close(2) is not enough, because the child has a copy of the client's socket.
    client.shutdown(SHUT_WR).unwrap();
    server.server_close().unwrap();
    assert_eq!(children(), "");
}
