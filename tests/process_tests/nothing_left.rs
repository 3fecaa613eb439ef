//! The promise: no descriptor, thread or child is left behind.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use sock::{AF_INET, SOCK_STREAM, Socket, create_connection};
use sockserver::testing::LeakCheck;
use sockserver::{ThreadingTCPServer, UDPServer, UnixStreamServer, datagram_handler_fn, handler_fn};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("failing_constructors_leave_no_descriptor", failing_constructors_leave_no_descriptor),
    ("threads_are_reused_and_end_with_the_server", threads_are_reused_and_end_with_the_server),
    ("a_server_closed_before_any_request_leaves_nothing", closed_before_any_request),
    ("a_leak_check_finds_leaks", a_leak_check_finds_leaks),
];

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Waits for the expected number of threads. The kernel counts a thread for a short time after it was
/// joined.
#[track_caller]
fn assert_threads(expected: usize) {
    let until = Instant::now() + Duration::from_secs(10);
    while threads() != expected && Instant::now() < until {
        sock::poll(&mut [], Some(Duration::from_millis(1))).unwrap();
    }
    assert_eq!(threads(), expected);
}

/// Calls `make` 1,024 times. Each call must fail with `text` in the error.
#[track_caller]
fn fails_each_time<T>(text: &str, make: impl Fn() -> io::Result<T>) {
    let before = descriptors();
    for _ in 0..1024 {
        let Err(error) = make() else {
            panic!("expected an error with {text:?}");
        };
        assert!(error.to_string().contains(text), "{error}");
    }
    assert_eq!(descriptors(), before);
}

fn failing_constructors_leave_no_descriptor() {
    // CPython's test_tcpserver_bind_leak (bpo-22435).
    let nothing = || handler_fn(|_| Ok(()));
    fails_each_time("port must be 0-65535, not -1", || {
        ThreadingTCPServer::new(("127.0.0.1", -1), nothing())
    });
    fails_each_time("port must be 0-65535, not 65536", || {
        ThreadingTCPServer::new(("127.0.0.1", 65_536), nothing())
    });
    fails_each_time("must not contain a NUL", || ThreadingTCPServer::new(("a\0b", 80), nothing()));
    fails_each_time("but the socket is AF_INET", || ThreadingTCPServer::new("/tmp/path", nothing()));
    fails_each_time("is an internet address", || UnixStreamServer::new(("127.0.0.1", 80), nothing()));
    fails_each_time("contains a NUL", || UnixStreamServer::new("a\0b", nothing()));
    fails_each_time("AF_UNIX path too long", || UnixStreamServer::new("x".repeat(200), nothing()));

    let taken = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    taken.bind(("127.0.0.1", 0)).unwrap();
    taken.listen(1).unwrap();
    let address = taken.getsockname().unwrap();
    let verb = "bind (allow_reuse_address(true) binds a port with connections in TIME_WAIT)";
    let named = format!("{verb} {address}: Address already in use (os error 98)");
    fails_each_time(&named, || ThreadingTCPServer::new(&address, nothing()));
    fails_each_time("bind 192.0.2.1:80: Cannot assign requested address (os error 99)", || {
        UDPServer::new(("192.0.2.1", 80), datagram_handler_fn(|_| Ok(())))
    });
}

fn threads_are_reused_and_end_with_the_server() {
    let (descriptors_before, threads_before) = (descriptors(), threads());
    let server = ThreadingTCPServer::new(
        ("127.0.0.1", 0),
        handler_fn(|cx| {
            let data = cx.request.recv(100)?;
            cx.request.sendall(&data)
        }),
    )
    .unwrap();
    let handle = server.handle();
    let port = server.server_address().port().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| server.serve_forever().unwrap());
        let talk = |client: Socket| {
            client.settimeout(Duration::from_secs(20)).unwrap();
            client.sendall(b"echo").unwrap();
            assert_eq!(client.recv(100).unwrap(), b"echo");
            assert_eq!(client.recv(100).unwrap(), b"");
        };
        // Requests one after another are served by the same few threads.
        for _ in 0..100 {
            talk(create_connection(("127.0.0.1", port)).unwrap());
        }
        let kept = threads() - threads_before - 1;
        assert!((1..20).contains(&kept), "{kept} threads for 100 requests");
        // Concurrent requests have a thread each.
        let many: Vec<_> = (0..50).map(|_| create_connection(("127.0.0.1", port)).unwrap()).collect();
        many.into_iter().for_each(talk);
        handle.shutdown().unwrap();
    });
    drop(handle);
    server.server_close().unwrap();
    assert_threads(threads_before);
    assert_eq!(descriptors(), descriptors_before);
}

fn closed_before_any_request() {
    // CPython's test_close_immediately.
    let (descriptors_before, threads_before) = (descriptors(), threads());
    let server = ThreadingTCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(()))).unwrap();
    let address = server.server_address().clone();
    server.server_close().unwrap();
    assert_eq!((descriptors(), threads()), (descriptors_before, threads_before));
    let port = address.port().unwrap();
    assert_eq!(
        create_connection(("127.0.0.1", port)).unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
}

fn a_leak_check_finds_leaks() {
    let check = LeakCheck::begin();
    check.assert_nothing_left();
    let pair = sock::socketpair().unwrap();
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || wait.recv().unwrap_or_default());
    let mut child = std::process::Command::new("sh").args(["-c", "exit 0"]).spawn().unwrap();
    let found = std::panic::catch_unwind(|| check.assert_nothing_left()).unwrap_err();
    let text = found.downcast_ref::<String>().expect("a message");
    for (kind, more) in [("descriptors", 2), ("threads", 1), ("children", 1)] {
        let counts: Vec<i32> = text
            .split(", ")
            .filter_map(|part| part.split_once(&format!(" {kind}"))?.0.rsplit(' ').next()?.parse().ok())
            .collect();
        assert_eq!(counts[1] - counts[0], more, "{kind}: {text}");
    }
    drop((pair, end));
    thread.join().unwrap();
    child.wait().unwrap();
    check.assert_nothing_left();
}
