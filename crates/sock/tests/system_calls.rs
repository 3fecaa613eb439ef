//! What a method costs in system calls, as the trace shows them: one line a
//! call, like strace, and one call for whatever can go on at once.
//!
//! A logger of this file's own records the lines of each thread apart. It may
//! also do something after a call, which is how a peer here acts exactly between
//! two calls of the same method.
#![cfg(target_os = "linux")]

mod support;

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use sock::{
    AF_INET, AF_UNIX, Address, MSG_DONTWAIT, MSG_PEEK, POLLIN, Poll, SHUT_WR, SO_RCVTIMEO, SO_REUSEADDR,
    SO_SNDBUF, SO_SNDTIMEO, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, Shutdown, Socket, StreamSocket,
    create_server, poll, socketpair, socketpair_with,
};

use support::{full_listener, tcp};

struct Recorder;

/// What to do after a call.
type AfterCall = Box<dyn FnMut(&str)>;

#[derive(Default)]
struct Recording {
    level: Option<LevelFilter>,
    lines: Vec<String>,
    after_call: Option<AfterCall>,
}

thread_local! {
    static RECORDING: RefCell<Recording> = RefCell::default();
}

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        RECORDING.with_borrow(|recording| recording.level).is_some_and(|level| metadata.level() <= level)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        assert_eq!((record.target(), record.level()), ("sock::call", Level::Trace), "{}", record.args());
        let line = record.args().to_string();
        let after_call = RECORDING.with_borrow_mut(|recording| {
            recording.lines.push(line.clone());
            recording.after_call.take()
        });
        if let Some(mut after_call) = after_call {
            after_call(&line);
            RECORDING.with_borrow_mut(|recording| recording.after_call = Some(after_call));
        }
    }

    fn flush(&self) {}
}

/// What `action` returns, and the lines it logs at `level` and above.
fn record<T>(
    level: LevelFilter,
    after_call: Option<AfterCall>,
    action: impl FnOnce() -> T,
) -> (T, Vec<String>) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
    RECORDING.set(Recording { level: Some(level), lines: Vec::new(), after_call });
    let value = action();
    (value, RECORDING.take().lines)
}

/// The line without the time the call took, which has to be there.
#[track_caller]
fn without_time(line: &str) -> String {
    let (call, time) = line.rsplit_once(" <").unwrap_or_else(|| panic!("no time in {line:?}"));
    let number = time.strip_suffix("s>").unwrap_or_else(|| panic!("no time in {line:?}"));
    let number = number.trim_end_matches(['n', 'µ', 'm']);
    assert!(number.parse::<f64>().is_ok_and(|number| number >= 0.0), "no time in {line:?}");
    call.to_owned()
}

/// What `action` returns, and the calls it makes: `recv(3, 5, 0) = 5`.
#[track_caller]
fn with_calls<T>(action: impl FnOnce() -> T) -> (T, Vec<String>) {
    let (value, lines) = record(LevelFilter::Trace, None, action);
    (value, lines.iter().map(|line| without_time(line)).collect())
}

/// The calls that `action` makes.
#[track_caller]
fn calls<T>(action: impl FnOnce() -> T) -> Vec<String> {
    with_calls(action).1
}

/// The calls that `action` makes, with something to do after each of them.
#[track_caller]
fn calls_with<T>(after_call: impl FnMut(&str) + 'static, action: impl FnOnce() -> T) -> Vec<String> {
    let (_, lines) = record(LevelFilter::Trace, Some(Box::new(after_call)), action);
    lines.iter().map(|line| without_time(line)).collect()
}

/// The names of the calls that `action` makes, as [`in_short`].
#[track_caller]
fn names<T>(action: impl FnOnce() -> T) -> String {
    in_short(&calls(action))
}

/// What happened in short: `recv EAGAIN, poll, recv`.
fn in_short(calls: &[String]) -> String {
    let short = calls.iter().map(|line| {
        let name = line.split('(').next().unwrap_or_default();
        match line.rsplit_once(" = -1 ") {
            Some((_, error)) => format!("{name} {}", error.split(' ').next().unwrap_or_default()),
            None => name.to_owned(),
        }
    });
    short.collect::<Vec<_>>().join(", ")
}

type Mode = Option<Duration>;

const SECONDS: Mode = Some(Duration::from_secs(30));
const MODES: [Mode; 3] = [None, Some(Duration::ZERO), SECONDS];

fn udp() -> (Socket, Address) {
    let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    sock.bind(("127.0.0.1", 0)).unwrap();
    let address = sock.getsockname().unwrap();
    (sock, address)
}

fn listener() -> (Socket, Address) {
    let listener = create_server(("127.0.0.1", 0)).unwrap();
    let address = listener.getsockname().unwrap();
    (listener, address)
}

/// A socket, and a peer of the standard library's, whose calls are not recorded.
fn socket_and_silent_peer() -> (Socket, UnixStream) {
    let (ours, theirs) = socketpair().unwrap();
    (ours, UnixStream::from(OwnedFd::from(theirs)))
}

/// What was sent over the loopback may take a moment on a busy machine.
#[track_caller]
fn wait_until_readable(sock: &Socket) {
    assert_eq!(poll(&mut [Poll::new(sock, POLLIN)], SECONDS).unwrap(), 1, "nothing came");
}

/// Reads until nothing comes any more: at once, or after the peer's read timeout.
fn read_all(peer: &mut UnixStream) {
    while peer.read(&mut [0; 65_536]).is_ok_and(|count| count > 0) {}
}

/// The flags of a receive of a datagram: a hint needs its real length.
const WITH_LENGTH: &str = if cfg!(target_os = "linux") { "MSG_TRUNC" } else { "0" };

/// The flags of each send, which returns an error instead of the signal SIGPIPE.
const SENT: &str = if cfg!(unix) { "MSG_NOSIGNAL" } else { "0" };

#[test]
fn a_call_that_does_not_wait_is_one_system_call_in_every_mode() {
    for mode in MODES {
        let (sock, mut peer) = socket_and_silent_peer();
        let (datagrams, address) = udp();
        let (listener, listening) = listener();
        let _client = TcpStream::connect(listening.to_socket_addr().unwrap()).unwrap();
        peer.write_all(&[0; 100]).unwrap();
        for sock in [&sock, &datagrams, &listener] {
            sock.settimeout(mode).unwrap();
        }
        let buffer = &mut [0; 10];
        assert_eq!(names(|| sock.send(b"x").unwrap()), "send", "{mode:?}");
        assert_eq!(names(|| sock.sendall(b"x").unwrap()), "send", "{mode:?}");
        assert_eq!(names(|| sock.recv(10).unwrap()), "recv", "{mode:?}");
        assert_eq!(names(|| sock.recv_with_flags(10, MSG_PEEK).unwrap()), "recv", "{mode:?}");
        assert_eq!(names(|| sock.recv_into(buffer).unwrap()), "recv", "{mode:?}");
        assert_eq!(names(|| datagrams.sendto(b"x", &address).unwrap()), "sendto", "{mode:?}");
        wait_until_readable(&datagrams);
        assert_eq!(names(|| datagrams.recvfrom(10).unwrap()), "recvfrom", "{mode:?}");
        datagrams.sendto(b"x", &address).unwrap();
        wait_until_readable(&datagrams);
        assert_eq!(names(|| datagrams.recvfrom_into(buffer).unwrap()), "recvfrom", "{mode:?}");
        wait_until_readable(&listener);
        assert_eq!(names(|| listener.accept().unwrap()), "accept", "{mode:?}");
    }
}

#[test]
fn a_blocking_connect_is_one_call() {
    let (_listener, address) = listener();
    let sock = tcp();
    assert_eq!(names(|| sock.connect(&address).unwrap()), "connect");
}

#[test]
fn a_recv_that_has_to_wait_is_recv_poll_recv() {
    let (sock, mut peer) = socket_and_silent_peer();
    let fd = sock.fileno();
    sock.settimeout(SECONDS).unwrap();
    let send_after_the_first_try = move |line: &str| {
        if line.contains("EAGAIN") {
            peer.write_all(b"hello").unwrap();
        }
    };
    let calls = calls_with(send_after_the_first_try, || {
        assert_eq!(sock.recv(100).unwrap(), b"hello");
    });
    assert_eq!(in_short(&calls), "recv EAGAIN, poll, recv");
    assert_eq!(calls[0], format!("recv({fd}, 100, 0) = -1 EAGAIN (Resource temporarily unavailable)"));
    assert!(calls[1].starts_with(&format!("poll([{{{fd}, POLLIN}}], ")), "{}", calls[1]);
    assert!(calls[1].ends_with(&format!(") = 1 ({{{fd}, POLLIN}})")), "{}", calls[1]);
    assert_eq!(calls[2], format!("recv({fd}, 100, 0) = 5"));
}

#[test]
fn a_blocking_recv_is_one_call_also_when_it_has_to_wait() {
    let (sock, mut peer) = socket_and_silent_peer();
    let sender = thread::spawn(move || peer.write_all(b"hello").unwrap());
    assert_eq!(names(|| sock.recv(100).unwrap()), "recv");
    sender.join().unwrap();
}

#[test]
fn an_accept_that_has_to_wait_is_accept_poll_accept() {
    let (listener, address) = listener();
    listener.settimeout(SECONDS).unwrap();
    let mut clients = Vec::new();
    let connect_after_the_first_try = move |line: &str| {
        if line.contains("EAGAIN") {
            clients.push(TcpStream::connect(address.to_socket_addr().unwrap()).unwrap());
        }
    };
    let calls = calls_with(connect_after_the_first_try, || listener.accept().unwrap());
    assert_eq!(in_short(&calls), "accept EAGAIN, poll, accept");
}

#[test]
fn a_send_that_has_to_wait_is_send_poll_send() {
    let (sock, mut peer) = socket_and_silent_peer();
    sock.setblocking(false).unwrap();
    while sock.send(&[0; 4096]).is_ok() {}
    sock.settimeout(SECONDS).unwrap();
    peer.set_nonblocking(true).unwrap();
    let read_after_the_first_try = move |line: &str| {
        if line.contains("EAGAIN") {
            read_all(&mut peer);
        }
    };
    let calls = calls_with(read_after_the_first_try, || sock.sendall(b"x").unwrap());
    assert_eq!(in_short(&calls), "send EAGAIN, poll, send");
}

#[test]
fn a_connect_with_a_timeout_is_connect_poll_and_a_look_at_the_outcome() {
    let (_listener, address) = listener();
    let sock = tcp();
    let fd = sock.fileno();
    sock.settimeout(SECONDS).unwrap();
    let calls = calls(|| sock.connect(&address).unwrap());
    assert_eq!(in_short(&calls), "connect EINPROGRESS, poll, getsockopt");
    assert_eq!(calls[0], format!("connect({fd}, {address}) = -1 EINPROGRESS (Operation now in progress)"));
    assert!(calls[1].starts_with(&format!("poll([{{{fd}, POLLOUT}}], ")), "{}", calls[1]);
    assert_eq!(calls[2], format!("getsockopt({fd}, SOL_SOCKET, SO_ERROR) = 0, 0"));
}

/// As strace has it: `[ECONNREFUSED]`.
#[test]
fn the_outcome_of_a_connect_with_a_timeout_is_shown_by_name() {
    let deaf = tcp();
    deaf.bind(("127.0.0.1", 0)).unwrap();
    let address = deaf.getsockname().unwrap();
    let sock = tcp();
    sock.settimeout(SECONDS).unwrap();
    let calls = calls(|| sock.connect(&address).unwrap_err());
    assert_eq!(in_short(&calls), "connect EINPROGRESS, poll, getsockopt");
    assert!(calls[2].contains("SO_ERROR") && calls[2].contains("ECONNREFUSED"), "{}", calls[2]);
}

#[test]
fn a_recv_that_expires_tries_once_and_waits_once() {
    let (sock, _peer) = socket_and_silent_peer();
    // poll(2) counts in milliseconds: the started one is waited for in one call.
    sock.settimeout(Duration::from_micros(500)).unwrap();
    let calls = calls(|| assert_eq!(sock.recv(1).unwrap_err().kind(), ErrorKind::TimedOut));
    assert_eq!(in_short(&calls), "recv EAGAIN, poll");
    assert!(calls[1].ends_with(") = 0"), "{}", calls[1]);
}

#[test]
fn a_nonblocking_call_that_would_wait_is_one_call() {
    let (sock, _peer) = socket_and_silent_peer();
    sock.setblocking(false).unwrap();
    assert_eq!(names(|| sock.recv(1).unwrap_err()), "recv EAGAIN");
}

/// As in Python: `recv(0)` makes no system call, `recvfrom(0)` discards a datagram.
/// A stream of the user with the default of `recv_into_nowait`.
struct Plain(Socket);

impl StreamSocket for Plain {
    fn recv_into(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.recv_into(buffer)
    }

    fn send(&self, data: &[u8]) -> std::io::Result<usize> {
        self.0.send(data)
    }

    fn shutdown(&self, how: Shutdown) -> std::io::Result<()> {
        self.0.shutdown(how)
    }

    fn socket(&self) -> &Socket {
        &self.0
    }
}

#[test]
fn a_receive_that_does_not_wait_is_one_call_for_a_stream_of_the_user() {
    let (ours, theirs) = socketpair().unwrap();
    let (stream, mut buffer) = (Plain(ours), [0; 9]);
    let mut check = |switches: &[&str], mode: Option<Duration>| {
        for has_input in [false, true] {
            if has_input {
                theirs.sendall(b"hello").unwrap();
            }
            let (received, calls) = with_calls(|| stream.recv_into_nowait(&mut buffer));
            match has_input {
                true => assert_eq!(received.unwrap(), 5),
                false => assert_eq!(received.unwrap_err().kind(), ErrorKind::WouldBlock),
            }
            let names: Vec<_> = calls.iter().map(|line| line.split('(').next().unwrap()).collect();
            assert_eq!(names, switches, "{mode:?}");
            assert_eq!(stream.0.gettimeout(), mode);
        }
    };
    check(&["fcntl", "recv", "fcntl"], None);
    for mode in [Duration::ZERO, Duration::from_secs(20)] {
        stream.0.settimeout(mode).unwrap();
        check(&["recv"], Some(mode));
    }
    stream.0.settimeout(None).unwrap();
    let _canceller = stream.0.canceller().unwrap();
    check(&["recv"], None);
}

/// A stream whose receive changes the mode of its socket.
struct Changing(Socket);

impl StreamSocket for Changing {
    fn recv_into(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.settimeout(None)?;
        self.0.settimeout(Duration::ZERO)?;
        let received = self.0.recv_into(buffer);
        self.0.settimeout(None)?;
        received
    }

    fn send(&self, data: &[u8]) -> std::io::Result<usize> {
        self.0.send(data)
    }

    fn shutdown(&self, how: Shutdown) -> std::io::Result<()> {
        self.0.shutdown(how)
    }

    fn socket(&self) -> &Socket {
        &self.0
    }
}

#[test]
fn a_receive_that_does_not_wait_restores_the_mode_that_the_stream_has_changed() {
    let stream = Changing(socketpair().unwrap().0);
    stream.0.setblocking(false).unwrap();
    let _ = stream.recv_into_nowait(&mut [0; 9]);
    assert_eq!(stream.0.gettimeout(), Some(Duration::ZERO));
    let flags = rustix::fs::fcntl_getfl(&stream.0).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK), "the descriptor blocks");
}

#[test]
fn recv_of_nothing_is_no_call_and_recvfrom_of_nothing_is_one() {
    let (sock, address) = udp();
    sock.sendto(b"one", &address).unwrap();
    sock.sendto(b"two", &address).unwrap();
    assert_eq!(calls(|| assert!(sock.recv(0).unwrap().is_empty())), [""; 0]);
    assert_eq!(calls(|| assert_eq!(sock.recv_into(&mut []).unwrap(), 0)), [""; 0]);
    let fd = sock.fileno();
    let thrown_away = calls(|| assert_eq!(sock.recvfrom(0).unwrap(), (Vec::new(), address.clone())));
    assert_eq!(thrown_away, [format!("recvfrom({fd}, 0, {WITH_LENGTH}) = 0, {address}")]);
    assert_eq!(sock.recv(100).unwrap(), b"two");
}

#[test]
fn sendall_of_nothing_is_one_send() {
    let (sock, _peer) = socket_and_silent_peer();
    let fd = sock.fileno();
    assert_eq!(calls(|| sock.sendall(b"").unwrap()), [format!("send({fd}, 0, {SENT}) = 0")]);
}

#[test]
fn sendall_resends_only_the_unsent_rest() {
    let (sock, mut peer) = socket_and_silent_peer();
    sock.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096).unwrap();
    sock.settimeout(SECONDS).unwrap();
    peer.set_nonblocking(true).unwrap();
    let read_after_each = move |_: &str| read_all(&mut peer);
    let calls = calls_with(read_after_each, || sock.sendall(&[0; 100_000]).unwrap());
    let mut rest = 100_000;
    for call in calls.iter().filter(|call| call.starts_with("send(") && !call.contains("EAGAIN")) {
        let (asked, sent) = call.split_once(&format!(", {SENT}) = ")).unwrap();
        assert!(asked.ends_with(&format!(", {rest}")), "{call}, with {rest} bytes to go");
        rest -= sent.parse::<usize>().unwrap();
    }
    assert_eq!(rest, 0);
    assert!(calls.len() > 2, "the buffer was not too small: {calls:?}");
}

/// The deadline is one for the whole: that there was always room at once is no
/// reason to go on after it. (CPython looks at it before each piece.)
#[test]
fn a_sendall_that_never_has_to_wait_ends_at_its_deadline_too() {
    let (sock, mut peer) = socket_and_silent_peer();
    sock.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096).unwrap();
    sock.settimeout(Duration::from_millis(50)).unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let read_all_and_a_moment_more = move |_: &str| read_all(&mut peer);
    let mut outcome = Ok(());
    calls_with(read_all_and_a_moment_more, || outcome = sock.sendall(&vec![0; 1 << 20]));
    assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
}

/// As in Python: the smaller of `SOMAXCONN` and 128, and nothing negative.
#[test]
fn a_backlog_is_128_unless_it_is_given_and_never_negative() {
    for (backlog, shown) in [(None, 128), (Some(-1), 0), (Some(i32::MIN), 0), (Some(5), 5)] {
        let sock = tcp();
        let fd = sock.fileno();
        assert_eq!(calls(|| sock.listen(backlog).unwrap()), [format!("listen({fd}, {shown}) = 0")]);
    }
}

#[test]
fn a_line_reads_as_strace_would_write_it() {
    let (server, made) = with_calls(tcp);
    let s = server.fileno();
    assert_eq!(made, [format!("socket(AF_INET, SOCK_STREAM, 0) = {s}")]);

    assert_eq!(
        calls(|| server.setsockopt(SOL_SOCKET, SO_REUSEADDR, true).unwrap()),
        [format!("setsockopt({s}, SOL_SOCKET, SO_REUSEADDR, 1) = 0")]
    );
    assert_eq!(
        calls(|| server.getsockopt(SOL_SOCKET, SO_REUSEADDR).unwrap()),
        [format!("getsockopt({s}, SOL_SOCKET, SO_REUSEADDR, 4) = 0, 1")]
    );
    assert_eq!(calls(|| server.bind(("127.0.0.1", 0)).unwrap()), [format!("bind({s}, 127.0.0.1:0) = 0")]);
    let port = server.getsockname().unwrap().port().unwrap();
    assert_eq!(
        calls(|| server.getsockname().unwrap()),
        [format!("getsockname({s}) = 0, 127.0.0.1:{port}")]
    );
    assert_eq!(
        calls(|| server.bind(("127.0.0.1", 0)).unwrap_err()),
        [format!("bind({s}, 127.0.0.1:0) = -1 EINVAL (Invalid argument)")]
    );
    let client = tcp();
    let c = client.fileno();
    assert_eq!(
        calls(|| client.connect(("127.0.0.1", port)).unwrap_err()),
        [format!("connect({c}, 127.0.0.1:{port}) = -1 ECONNREFUSED (Connection refused)")]
    );
    assert_eq!(calls(|| server.listen(5).unwrap()), [format!("listen({s}, 5) = 0")]);
    assert_eq!(
        calls(|| client.connect(("127.0.0.1", port)).unwrap()),
        [format!("connect({c}, 127.0.0.1:{port}) = 0")]
    );
    assert_eq!(
        calls(|| client.getpeername().unwrap()),
        [format!("getpeername({c}) = 0, 127.0.0.1:{port}")]
    );

    let ((connection, peer), made) = with_calls(|| server.accept().unwrap());
    let n = connection.fileno();
    assert_eq!(made, [format!("accept({s}) = {n}, {peer}")]);

    assert_eq!(calls(|| client.sendall(b"hello").unwrap()), [format!("send({c}, 5, {SENT}) = 5")]);
    wait_until_readable(&connection);
    assert_eq!(
        calls(|| connection.recv_with_flags(100, MSG_PEEK | MSG_DONTWAIT).unwrap()),
        [format!("recv({n}, 100, MSG_DONTWAIT|MSG_PEEK) = 5")]
    );
    assert_eq!(
        calls(|| client.settimeout(SECONDS).unwrap()),
        [format!("fcntl({c}, F_SETFL, O_NONBLOCK: true) = 0")]
    );
    assert_eq!(
        calls(|| client.set_inheritable(true).unwrap()),
        [format!("fcntl({c}, F_SETFD, FD_CLOEXEC: false) = 0")]
    );
    assert_eq!(calls(|| client.shutdown(SHUT_WR).unwrap()), [format!("shutdown({c}, SHUT_WR) = 0")]);

    let (twin, made) = with_calls(|| client.dup().unwrap());
    let t = twin.fileno();
    assert_eq!(made, [format!("fcntl({c}, F_DUPFD_CLOEXEC) = {t}")]);
    assert_eq!(calls(|| twin.close().unwrap()), [format!("close({t}) = 0")]);
}

/// Set for the run of this file that is stopped and goes on, again and again.
const IS_STOPPED: &str = "SOCK_TEST_IS_STOPPED";

/// Stops this process and lets it go on, until `enough`.
fn stop_again_and_again(enough: &AtomicBool) {
    while !enough.load(Ordering::SeqCst) {
        let stop_and_go_on = "kill -STOP $PPID && kill -CONT $PPID";
        assert!(Command::new("sh").args(["-c", stop_and_go_on]).status().unwrap().success());
    }
}

/// A signal interrupts a call with `SO_SNDTIMEO` or `SO_RCVTIMEO` even when it has
/// no handler, as SIGCONT: signal(7). For a connect that means that it goes on
/// by itself, and must not be called again.
#[test]
fn a_connect_is_not_called_again_after_a_signal_and_a_recv_is() {
    let name = "a_connect_is_not_called_again_after_a_signal_and_a_recv_is";
    if std::env::var_os(IS_STOPPED).is_none() {
        // By itself, so that no other test is stopped.
        let this = std::env::current_exe().unwrap();
        let mut again = Command::new(this);
        let output = again.args(["--exact", name, "--nocapture"]).env(IS_STOPPED, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let timeval = [60_i64.to_ne_bytes(), 0_i64.to_ne_bytes()].concat();
    let interrupted = Arc::new(AtomicBool::new(false));
    let note = |call: &'static str| {
        let interrupted = Arc::clone(&interrupted);
        move |line: &str| {
            if line.starts_with(call) && line.contains("EINTR") {
                interrupted.store(true, Ordering::SeqCst);
            }
        }
    };

    let (mut queued, address) = full_listener();
    let listener = queued.remove(0);
    let sock = tcp();
    sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, &*timeval).unwrap();
    let calls = thread::scope(|scope| {
        scope.spawn(|| {
            stop_again_and_again(&interrupted);
            // Room for it, when it asks the next time.
            drop(queued);
            listener.settimeout(SECONDS).unwrap();
            while listener.accept().is_ok_and(|(_, peer)| peer != sock.getsockname().unwrap()) {}
        });
        calls_with(note("connect"), || sock.connect(&address).unwrap())
    });
    assert_eq!(in_short(&calls), "connect EINTR, poll, getsockopt");
    assert_eq!(sock.getpeername().unwrap(), address);

    // One of AF_UNIX was only waiting for room, and is called again.
    interrupted.store(false, Ordering::SeqCst);
    let listener = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    listener.bind("").unwrap();
    listener.listen(0).unwrap();
    let address = listener.getsockname().unwrap();
    let queued = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    queued.connect(&address).unwrap();
    let sock = Socket::new(AF_UNIX, SOCK_STREAM, 0).unwrap();
    sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, &*timeval).unwrap();
    let calls = thread::scope(|scope| {
        scope.spawn(|| {
            stop_again_and_again(&interrupted);
            listener.accept().unwrap();
        });
        calls_with(note("connect"), || sock.connect(&address).unwrap())
    });
    assert!(in_short(&calls).starts_with("connect EINTR, connect"), "{calls:?}");
    assert_eq!(sock.getpeername().unwrap(), address);

    interrupted.store(false, Ordering::SeqCst);
    let (sock, mut peer) = socket_and_silent_peer();
    sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, &*timeval).unwrap();
    let calls = thread::scope(|scope| {
        scope.spawn(|| {
            stop_again_and_again(&interrupted);
            peer.write_all(b"hello").unwrap();
        });
        calls_with(note("recv"), || assert_eq!(sock.recv(100).unwrap(), b"hello"))
    });
    // With a time of its own it waits for what is left of it, not for all of it again.
    assert!(in_short(&calls).starts_with("recv EINTR, poll"), "{calls:?}");
    assert!(in_short(&calls).ends_with("recv"), "{calls:?}");
}

#[test]
fn a_datagram_and_a_pair_read_as_strace_would_write_them() {
    let (sock, address) = udp();
    let fd = sock.fileno();
    assert_eq!(
        calls(|| sock.sendto(b"hello", &address).unwrap()),
        [format!("sendto({fd}, 5, {SENT}, {address}) = 5")]
    );
    assert_eq!(
        calls(|| sock.recvfrom(100).unwrap()),
        [format!("recvfrom({fd}, 100, {WITH_LENGTH}) = 5, {address}")]
    );
    let ((one, other), made) = with_calls(|| socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap());
    let (one, other) = (one.fileno(), other.fileno());
    assert_eq!(made, [format!("socketpair(AF_UNIX, SOCK_DGRAM, 0) = 0, [{one}, {other}]")]);
}

#[test]
fn a_failed_call_shows_its_errno_by_name_or_what_getaddrinfo_said() {
    assert_eq!(
        calls(|| Socket::new(999.into(), SOCK_STREAM, 0).unwrap_err()),
        ["socket(AF_999, SOCK_STREAM, 0) = -1 EAFNOSUPPORT (Address family not supported by protocol)"]
    );
    let line = calls(|| sock::getaddrinfo("no..name", 80).unwrap_err()).remove(0);
    assert!(line.starts_with("getaddrinfo(\"no..name\", \"80\", AF_UNSPEC, "), "{line}");
    assert!(line.contains(" = -1 ") && line.contains("EAI_"), "{line}");
}

#[test]
fn a_socket_that_is_dropped_shows_its_close_and_one_that_is_detached_none() {
    let sock = tcp();
    let fd = sock.fileno();
    assert_eq!(calls(|| drop(sock)), [format!("close({fd}) = 0")]);
    let sock = tcp();
    assert_eq!(calls(|| sock.detach()), [""; 0]);
    let (sock, _peer) = socketpair().unwrap();
    let fd = sock.fileno();
    assert_eq!(calls(|| sock.close().unwrap()), [format!("close({fd}) = 0")]);
}

/// Everything a socket can do, once.
fn a_whole_life() {
    let (listener, address) = listener();
    let client = tcp();
    client.settimeout(SECONDS).unwrap();
    client.connect(&address).unwrap();
    let (server, _) = listener.accept().unwrap();
    client.sendall(b"hello").unwrap();
    server.recv(100).unwrap();
    server.recv_with_flags(1, MSG_DONTWAIT).unwrap_err();
    server.shutdown(SHUT_WR).unwrap();
    sock::getaddrinfo("no..name", 80).unwrap_err();
}

#[test]
fn below_level_trace_nothing_is_logged() {
    for level in [LevelFilter::Off, LevelFilter::Error, LevelFilter::Debug] {
        assert_eq!(record(level, None, a_whole_life).1, [""; 0], "{level}");
    }
    assert!(calls(a_whole_life).len() > 10);
}

/// The flag that the system has is `FD_CLOEXEC`: what is not inheritable has it.
#[test]
fn a_look_at_the_inheritable_flag_is_a_line_with_the_systems_answer() {
    let sock = tcp();
    let fd = sock.fileno();
    for (inheritable, answer) in [(false, 1), (true, 0)] {
        sock.set_inheritable(inheritable).unwrap();
        assert_eq!(calls(|| sock.get_inheritable().unwrap()), [format!("fcntl({fd}, F_GETFD) = {answer}")]);
    }
}

#[test]
fn each_query_of_an_adopted_descriptor_is_logged() {
    let fd = tcp().detach();
    assert_eq!(names(|| Socket::try_from(fd).unwrap()), "getsockname, getsockopt, getsockopt");
}
