//! The promise: a Unix socket with a relative path is removed with its server, and no other file is,
//! although the working directory has changed.

use std::env;
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};
use sock::{AF_UNIX, SOCK_DGRAM, SOCK_STREAM, Socket};
use sockserver::kind::{Stream, Unix};
use sockserver::{
    ForkingUnixStreamServer, MixIn, PreforkUnixStreamServer, SelectorUnixStreamServer, StreamContext,
    ThreadPoolUnixStreamServer, ThreadingUnixStreamServer, UnixDatagramServer, UnixStreamServer,
    datagram_handler_fn, handler_fn,
};

use crate::Test;
use crate::support::{LIMIT, connect_to, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("a_relative_path_is_removed_after_chdir", || each_model(true)),
    ("a_relative_path_is_removed_after_a_handler_calls_chdir", || each_model(false)),
    ("a_relative_path_is_removed_if_its_server_did_not_serve", removed_without_serving),
];

type Builder<M> = sockserver::Builder<Stream<Unix>, M>;

type Answer = fn(&mut StreamContext<'_>) -> io::Result<()>;

/// The process of the server, and the directory that is changed to.
static SERVER: OnceLock<(Pid, PathBuf)> = OnceLock::new();

fn leave() {
    env::set_current_dir(&SERVER.get().unwrap().1).unwrap();
}

/// Answers and has the server drained.
fn answer(cx: &mut StreamContext<'_>) -> io::Result<()> {
    // Input that is not read would reset the connection.
    cx.rfile.read_line(&mut String::new())?;
    cx.wfile.write_all(b"served")?;
    Ok(kill_process(SERVER.get().unwrap().0, Signal::TERM)?)
}

fn answer_elsewhere(cx: &mut StreamContext<'_>) -> io::Result<()> {
    leave();
    answer(cx)
}

/// Serves one client. The working directory changes before that, or in the handler.
fn serve<M: MixIn>(builder: Builder<M>, leaves_first: bool) {
    let home = tempfile::tempdir().unwrap();
    env::set_current_dir(home.path()).unwrap();
    // A dead socket is found by a relative path too.
    Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap().bind("socket").unwrap();
    let server = builder.linger_timeout(Duration::ZERO).drain_on_signals(LIMIT).bind("socket").unwrap();
    let client = connect_to(server.server_address());
    // A selector calls the handler once there is input.
    client.sendall(b"\n").unwrap();
    if leaves_first {
        leave();
    }
    server.serve_forever().unwrap();
    server.server_close().unwrap();
    assert_eq!(read_to_end(&client), "served");
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().collect();
    assert!(left.is_empty(), "{}: {left:?}", std::any::type_name::<M>());
    let other = SERVER.get().unwrap().1.join("socket");
    assert_eq!(fs::read_to_string(other).unwrap(), "other", "{}", std::any::type_name::<M>());
}

fn each_model(leaves_first: bool) {
    let answer: Answer = if leaves_first { answer } else { answer_elsewhere };
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("socket"), "other").unwrap();
    SERVER.set((getpid(), other.path().to_owned())).unwrap();
    // Those that fork come first, while there is one thread.
    serve(ForkingUnixStreamServer::builder(handler_fn(answer)), leaves_first);
    serve(PreforkUnixStreamServer::builder(handler_fn(answer)).workers(2), leaves_first);
    serve(UnixStreamServer::builder(handler_fn(answer)), leaves_first);
    serve(ThreadingUnixStreamServer::builder(handler_fn(answer)), leaves_first);
    serve(ThreadPoolUnixStreamServer::builder(handler_fn(answer)), leaves_first);
    serve(SelectorUnixStreamServer::builder(handler_fn(answer)), leaves_first);
}

fn removed_without_serving() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(other.path().join("socket"), "other").unwrap();
    env::set_current_dir(home.path()).unwrap();
    let stream = UnixStreamServer::new("socket", handler_fn(|_| Ok(()))).unwrap();
    // A `./` and a `..` in the path.
    let dotted = UnixStreamServer::new("./dotted", handler_fn(|_| Ok(()))).unwrap();
    fs::create_dir("inner").unwrap();
    let upward = UnixStreamServer::new("inner/../upward", handler_fn(|_| Ok(()))).unwrap();
    Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap().bind("datagrams").unwrap();
    let datagrams = UnixDatagramServer::new("datagrams", datagram_handler_fn(|_| Ok(()))).unwrap();
    env::set_current_dir(other.path()).unwrap();
    fs::remove_dir(home.path().join("inner")).unwrap();
    drop((stream, dotted, upward, datagrams));
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(fs::read_to_string("socket").unwrap(), "other");
}
