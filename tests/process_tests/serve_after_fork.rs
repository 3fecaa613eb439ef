//! The promise: a server that is bound before a fork serves and stops in the child, as in a daemon, and
//! the path of a Unix socket stays until the process that serves it closes the server.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use fork::{Fork, fork, setsid};
use rustix::process::{Pid, Signal, kill_process};
use sock::{AF_UNIX, POLLIN, Poll, SOCK_STREAM, Socket, socketpair};
use sockserver::kind::{Stream, Unix};
use sockserver::{
    Builder, ForkingUnixStreamServer, MixIn, PreforkUnixStreamServer, ServerHandle, StreamContext,
    StreamServer, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("a_server_serves_and_stops_in_a_forked_child", || stops_after(single_fork)),
    ("a_server_serves_and_stops_in_a_daemon", || stops_after(double_fork)),
    ("a_signal_between_fork_and_serve_drains_the_server", signal_before_serving),
    ("a_child_that_drops_its_copy_keeps_the_path_of_its_parent", child_drops_its_copy),
    ("a_child_that_drops_its_copy_does_not_stop_workers", child_leaves_workers_alone),
    ("a_child_of_a_handler_cannot_stop_the_server", child_of_a_handler),
    ("a_server_made_in_a_forked_child_serves_and_stops", server_in_a_child),
    ("a_server_made_in_a_worker_process_serves_and_stops", server_in_a_worker),
];

/// How the server of a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    Signal(Signal),
    /// `shutdown` in the loop, which cannot wait for itself.
    ShutdownInLoop,
    DrainInLoop,
    ShutdownInThread,
    DrainInThread,
    ShutdownInHandler,
}

impl Stop {
    const ALL: [Stop; 7] = [
        Stop::Signal(Signal::TERM),
        Stop::Signal(Signal::INT),
        Stop::ShutdownInLoop,
        Stop::DrainInLoop,
        Stop::ShutdownInThread,
        Stop::DrainInThread,
        Stop::ShutdownInHandler,
    ];

    /// A server that forks refuses other threads, and its handlers run in other processes.
    fn needs_threads(self) -> bool {
        matches!(self, Stop::ShutdownInThread | Stop::DrainInThread | Stop::ShutdownInHandler)
    }

    fn in_loop(self, handle: &ServerHandle) {
        let stopped = match self {
            Stop::ShutdownInLoop => handle.shutdown(),
            Stop::DrainInLoop => handle.drain(LIMIT).map(drop),
            _ => return,
        };
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Deadlock, "{self:?}");
    }

    fn in_thread(self, handle: &ServerHandle) {
        match self {
            Stop::ShutdownInThread => handle.shutdown().unwrap(),
            Stop::DrainInThread => drop(handle.drain(LIMIT).unwrap()),
            _ => {}
        }
    }
}

type UnixBuilder<M> = Builder<Stream<Unix>, M>;
type UnixServer<M> = StreamServer<Unix, M>;
type BoxedHandler = Box<dyn Fn(&mut StreamContext<'_>) -> io::Result<()> + Send + Sync>;

/// What the parent of a serving child has.
pub(crate) struct Parent {
    pub(crate) pid: Pid,
    /// Receives the lines of the child, and end of file when the child and its children have ended.
    /// A byte that is sent stops the child.
    pub(crate) control: Socket,
}

impl Drop for Parent {
    fn drop(&mut self) {
        if thread::panicking() {
            // It would keep the pipes of this process open.
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}

/// Forks, and calls `serve` in the child with its end of the control socket.
pub(crate) fn single_fork(serve: &mut dyn FnMut(&Socket)) -> Parent {
    fork_with(serve, false)
}

/// Forks like a daemon: the first child begins a session and exits after another fork.
fn double_fork(serve: &mut dyn FnMut(&Socket)) -> Parent {
    fork_with(serve, true)
}

fn fork_with(serve: &mut dyn FnMut(&Socket), twice: bool) -> Parent {
    let (control, theirs) = socketpair().unwrap();
    control.settimeout(LIMIT).unwrap();
    if let Fork::Parent(child) = fork().unwrap() {
        drop(theirs);
        if twice {
            assert_eq!(fork::waitpid(child).ok(), Some(()), "the first child failed");
        }
        let pid = line_of(&control).parse().unwrap();
        return Parent { pid: Pid::from_raw(pid).unwrap(), control };
    }
    drop(control);
    if twice {
        setsid().unwrap();
        if let Fork::Parent(_) = fork().unwrap() {
            exit(0);
        }
    }
    theirs.sendall(format!("{}\n", std::process::id()).as_bytes()).unwrap();
    serve(&theirs);
    exit(0);
}

fn line_of(control: &Socket) -> String {
    let mut line = Vec::new();
    loop {
        match &control.recv(1).unwrap()[..] {
            b"\n" => return String::from_utf8(line).unwrap(),
            [] => panic!("the child has ended"),
            byte => line.extend_from_slice(byte),
        }
    }
}

fn handle_with(stop: Stop) -> impl Fn(&mut StreamContext<'_>) -> io::Result<()> + Copy + Send + Sync {
    move |cx| {
        let mut line = [0; 4];
        cx.request.recv_into(&mut line)?;
        if &line == b"stop" && stop == Stop::ShutdownInHandler {
            // It waits for the loop, or is called in the loop itself.
            match cx.server.shutdown() {
                Err(error) if error.kind() != io::ErrorKind::Deadlock => panic!("{error}"),
                _ => {}
            }
        }
        cx.wfile.write_all(&line)
    }
}

fn ask(path: &Path, line: &str) -> String {
    let client = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(path).unwrap();
    client.sendall(line.as_bytes()).unwrap();
    read_to_end(&client)
}

fn is_readable(control: &Socket) -> bool {
    sock::poll(&mut [Poll::new(control, POLLIN)], Some(Duration::ZERO)).unwrap() > 0
}

/// Serves in a child until it is stopped, and closes the server.
fn serve<M: MixIn>(server: UnixServer<M>, control: &Socket, stop: Stop) {
    let handle = server.handle();
    thread::scope(|scope| {
        if matches!(stop, Stop::ShutdownInThread | Stop::DrainInThread) {
            scope.spawn(move || {
                control.recv(1).unwrap();
                stop.in_thread(&handle);
            });
        }
        server.serve_forever().unwrap();
    });
    assert_eq!(
        server.drained().is_some(),
        matches!(stop, Stop::Signal(_) | Stop::DrainInThread),
        "{stop:?}: {:?}",
        server.drained()
    );
    let handle = server.handle();
    server.server_close().unwrap();
    let stats = handle.stats();
    control.sendall(format!("{} {}\n", stats.accepted, stats.finished).as_bytes()).unwrap();
}

/// Calls a function in a forked child, with a socket to its parent.
type ForkAndRun = fn(&mut dyn FnMut(&Socket)) -> Parent;

/// A program that binds, forks, and closes its own copy of the server while the child serves.
fn bind_fork_serve<M: MixIn + Default>(model: &str, mixin: fn() -> M, fork: ForkAndRun) {
    let folder = tempfile::tempdir().unwrap();
    for stop in Stop::ALL {
        if stop.needs_threads() && ["forking", "prefork"].contains(&model) {
            continue;
        }
        let path = folder.path().join(format!("{stop:?}"));
        let (ours, theirs) = socketpair().unwrap();
        let builder = UnixServer::builder(handler_fn(handle_with(stop)))
            .mixin(mixin())
            .poll_interval(Duration::from_millis(5))
            .service_actions(move |handle| {
                if matches!(stop, Stop::ShutdownInLoop | Stop::DrainInLoop) && is_readable(&theirs) {
                    stop.in_loop(handle);
                }
            })
            .drain_on_signals(LIMIT);
        let mut server = Some(builder.bind(&path).unwrap());
        let parent = fork(&mut |control| serve(server.take().unwrap(), control, stop));
        server.take().unwrap().server_close().unwrap();
        assert!(path.exists(), "{model}, {stop:?}: the parent has removed the path of its child");
        assert_eq!(ask(&path, "echo"), "echo", "{model}, {stop:?}");
        match stop {
            Stop::Signal(signal) => kill_process(parent.pid, signal).unwrap(),
            Stop::ShutdownInLoop | Stop::DrainInLoop => ours.sendall(b"!").unwrap(),
            Stop::ShutdownInThread | Stop::DrainInThread => parent.control.sendall(b"!").unwrap(),
            Stop::ShutdownInHandler => assert_eq!(ask(&path, "stop"), "stop"),
        }
        let requests = if stop == Stop::ShutdownInHandler { "2 2" } else { "1 1" };
        assert_eq!(line_of(&parent.control), requests, "{model}, {stop:?}");
        assert!(!path.exists(), "{model}, {stop:?}: the child has left its path");
        assert_eq!(parent.control.recv(1).unwrap(), b"", "{model}, {stop:?}");
    }
}

fn stops_after(fork: ForkAndRun) {
    for_each_model!(bind_fork_serve, fork);
}

/// Both where the signal is blocked, so that it is pending, and where its handler runs.
fn signal_before_serving() {
    fn check<M: MixIn + Default>(model: &str, mixin: fn() -> M) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let builder = UnixServer::builder(handler_fn(handle_with(Stop::ShutdownInLoop))).mixin(mixin());
        let mut server = Some(builder.drain_on_signals(LIMIT).bind(&path).unwrap());
        let parent = single_fork(&mut |control| {
            control.recv(1).unwrap();
            let server = server.take().unwrap();
            server.serve_forever().unwrap();
            assert!(server.drained().is_some());
            server.server_close().unwrap();
        });
        drop(server.take());
        kill_process(parent.pid, Signal::TERM).unwrap();
        parent.control.sendall(b"!").unwrap();
        assert_eq!(parent.control.recv(1).unwrap(), b"", "{model}");
        assert!(!path.exists(), "{model}");
    }
    for_each_model!(check);
}

/// Before the parent serves, while it serves, and after it has served.
fn child_drops_its_copy() {
    fn check<M: MixIn + Default>(model: &str, mixin: fn() -> M) {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("socket");
        let builder = UnixServer::builder(handler_fn(handle_with(Stop::ShutdownInLoop))).mixin(mixin());
        let mut server = Some(builder.bind(&path).unwrap());
        let drop_copy = |server: &mut Option<UnixServer<M>>| {
            let child = single_fork(&mut |_| drop(server.take()));
            assert_eq!(child.control.recv(1).unwrap(), b"");
            assert!(path.exists(), "{model}: the child has removed the path of its parent");
        };
        drop_copy(&mut server);
        let serving = server.as_ref().unwrap();
        serving.handle().request_shutdown().unwrap();
        serving.serve_forever().unwrap();
        drop_copy(&mut server);
        server.take().unwrap().server_close().unwrap();
        assert!(!path.exists(), "{model}");
    }
    for_each_model!(check);
}

/// The loop has ended, and a worker still serves its client.
fn child_leaves_workers_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let handler = handler_fn(|cx| {
        cx.request.recv(1)?;
        cx.wfile.write_all(b"whole answer")
    });
    let server = PreforkUnixStreamServer::builder(handler)
        .workers(1)
        .close_timeout(Duration::from_millis(100))
        .poll_interval(Duration::from_millis(5))
        .service_actions(|handle| {
            if handle.stats().in_flight == 1 {
                handle.request_shutdown().unwrap();
            }
        })
        .bind(&path)
        .unwrap();
    let client = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(&path).unwrap();
    server.serve_forever().unwrap();
    let mut server = Some(server);
    let child = single_fork(&mut |_| drop(server.take()));
    assert_eq!(child.control.recv(1).unwrap(), b"");
    // Longer than a worker that drains would wait for its request.
    thread::sleep(Duration::from_millis(500));
    client.sendall(b"x").unwrap();
    assert_eq!(read_to_end(&client), "whole answer", "the child has stopped the worker of its parent");
    server.take().unwrap().server_close().unwrap();
}

/// A handler that forks, as subprocess libraries do. Its child has copies of everything.
fn child_of_a_handler() {
    fn check<M: MixIn + Default>(model: &str, mixin: fn() -> M) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let handler = handler_fn(move |cx| {
            cx.request.recv(4)?;
            if let Fork::Parent(child) = fork().unwrap() {
                fork::waitpid(child).unwrap();
                return cx.wfile.write_all(b"served");
            }
            let errors = [
                cx.server.shutdown().map_err(|error| error.kind()),
                cx.server.drain(LIMIT).map(drop).map_err(|error| error.kind()),
                cx.server.request_shutdown().map_err(|error| error.kind()),
            ];
            let refused = errors == [Err(io::ErrorKind::Unsupported); 3];
            let answer = if refused { "refused ".to_owned() } else { format!("{errors:?} ") };
            // Returning would go on as another worker of the parent.
            exit(cx.request.sendall(answer.as_bytes()).is_err().into());
        });
        let builder = UnixServer::builder(handler).mixin(mixin());
        let server = builder.drain_on_signals(LIMIT).bind(&path).unwrap();
        let parent = single_fork(&mut |_| {
            server.serve_forever().unwrap();
        });
        for _ in 0..2 {
            assert_eq!(ask(&path, "fork"), "refused served", "{model}");
        }
        kill_process(parent.pid, Signal::TERM).unwrap();
        assert_eq!(parent.control.recv(1).unwrap(), b"", "{model}");
        drop(server);
    }
    for_each_model!(check);
}

/// How a handler comes to a server of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Inner {
    /// The handler makes it.
    Made,
    /// It was bound before the process was forked.
    Bound,
    /// A child of the handler makes it.
    MadeInFork,
}

/// Serves a server in a handler until it is stopped. The handler sends its process id and the path,
/// and then how `serve_forever` has ended.
fn serve_inner<M: MixIn>(
    server: io::Result<UnixServer<M>>,
    path: &Path,
    request: &dyn sock::StreamSocket,
) -> io::Result<()> {
    let server = server?;
    request.sendall(format!("{} {}\n", std::process::id(), path.display()).as_bytes())?;
    let served = server.serve_forever();
    server.server_close()?;
    let answer = served.map_or_else(|error| error.to_string(), |()| format!("served {}", path.exists()));
    request.sendall(answer.as_bytes())
}

/// Returns a handler that serves a server of its own.
fn inner<M: MixIn + Default>(
    mixin: fn() -> M,
    inner: Inner,
    by_signal: bool,
    path: PathBuf,
) -> BoxedHandler {
    let bind = move |path: &Path| {
        let stop = move |handle: &ServerHandle| {
            let stats = handle.stats();
            assert!(!handle.is_stopping() || by_signal || stats.finished > 0);
            if !by_signal && stats.finished > 0 {
                assert_eq!(handle.shutdown().unwrap_err().kind(), io::ErrorKind::Deadlock);
            }
        };
        UnixServer::builder(handler_fn(handle_with(Stop::ShutdownInLoop)))
            .mixin(mixin())
            .poll_interval(Duration::from_millis(5))
            .service_actions(stop)
            .drain_on_signals(LIMIT)
            .bind(path)
    };
    let bound = Mutex::new((inner == Inner::Bound).then(|| bind(&path)));
    Box::new(move |cx| {
        if inner != Inner::MadeInFork {
            let bound = bound.lock().unwrap().take();
            return serve_inner(bound.unwrap_or_else(|| bind(&path)), &path, cx.request);
        }
        if let Fork::Parent(child) = fork().unwrap() {
            fork::waitpid(child).unwrap();
            return Ok(());
        }
        exit(serve_inner(bind(&path), &path, cx.request).is_err().into());
    })
}

/// Checks a handler that serves a server of its own: the model of that server, the handler, how it
/// comes to its server, and whether a signal stops that server.
type CheckInner = dyn Fn(&str, BoxedHandler, Inner, bool);

/// Calls `check` with each model and a handler that serves it.
fn for_each_inner(check: &CheckInner) {
    fn with_model<M: MixIn + Default>(model: &str, mixin: fn() -> M, check: &CheckInner) {
        let folder = tempfile::tempdir().unwrap();
        for how in [Inner::Made, Inner::Bound, Inner::MadeInFork] {
            for by_signal in [false, true] {
                let handler = inner(mixin, how, by_signal, folder.path().join("inner"));
                check(model, handler, how, by_signal);
            }
        }
    }
    for_each_model!(with_model, check);
}

/// Serves `builder` in a child. A process that the server forks serves another server.
fn serves_in_a_child_of<M: MixIn>(what: &str, builder: UnixBuilder<M>, by_signal: bool, refuses: bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outer");
    let mut server = Some(builder.drain_on_signals(LIMIT).bind(&path).unwrap());
    let parent = single_fork(&mut |_| server.take().unwrap().serve_forever().unwrap());
    server.take().unwrap().server_close().unwrap();
    let client = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(&path).unwrap();
    let line = line_of(&client);
    let (pid, inner) = line.split_once(' ').unwrap();
    if refuses {
        let error = read_to_end(&client);
        assert!(error.contains("fork refused: this process has "), "{what}: {error}");
    } else {
        assert_eq!(ask(Path::new(inner), "echo"), "echo", "{what}");
        if by_signal {
            kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::TERM).unwrap();
        }
        assert_eq!(read_to_end(&client), "served false", "{what}");
    }
    kill_process(parent.pid, Signal::TERM).unwrap();
    assert_eq!(parent.control.recv(1).unwrap(), b"", "{what}");
}

fn server_in_a_child() {
    for_each_inner(&|model, handler, how, by_signal| {
        let builder = ForkingUnixStreamServer::builder(handler_fn(handler));
        let what = format!("{model}, {how:?}, by signal: {by_signal}");
        serves_in_a_child_of(&what, builder, by_signal, false);
    });
}

/// The control thread of the worker is another thread, with which a server refuses to fork.
fn server_in_a_worker() {
    for_each_inner(&|model, handler, how, by_signal| {
        let builder = PreforkUnixStreamServer::builder(handler_fn(handler)).workers(1);
        let what = format!("{model}, {how:?}, by signal: {by_signal}");
        let refuses = how != Inner::MadeInFork && ["forking", "prefork"].contains(&model);
        serves_in_a_child_of(&what, builder, by_signal, refuses);
    });
}
