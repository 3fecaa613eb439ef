//! The promises of the target `sock::hint`: each hint is logged where its mistake is made, names a
//! scenario of `socklens`, and is not logged for a program without the mistake.

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::Once;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use sock::{
    AF_INET, MSG_PEEK, POLLIN, POLLOUT, Poll, SHUT_WR, SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET,
    Socket,
};

thread_local! {
    /// Hints are logged in the thread of the call.
    static HINTS: RefCell<Vec<Hint>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Default)]
struct Hint {
    name: String,
    scenario: String,
    fd: String,
    text: String,
}

struct Recorder;

struct Fields<'a>(&'a mut Hint);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        match key.as_str() {
            "hint" => self.0.name = value.to_string(),
            "scenario" => self.0.scenario = value.to_string(),
            "fd" => self.0.fd = value.to_string(),
            other => panic!("key {other}"),
        }
        Ok(())
    }
}

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sock::hint"
    }

    fn log(&self, record: &Record<'_>) {
        assert_eq!(record.target(), "sock::hint");
        let mut hint = Hint { text: record.args().to_string(), ..Hint::default() };
        record.key_values().visit(&mut Fields(&mut hint)).unwrap();
        HINTS.with_borrow_mut(|hints| hints.push(hint));
    }

    fn flush(&self) {}
}

/// Enables hints, and returns those that `calls` caused in this thread.
fn hints(calls: impl FnOnce()) -> Vec<Hint> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
    HINTS.take();
    calls();
    let hints = HINTS.take();
    for hint in &hints {
        let end = format!("; see `socklens run {}`", hint.scenario);
        assert!(hint.text.ends_with(&end), "{hint:?}");
    }
    hints
}

/// The one hint that `calls` cause.
fn hint(name: &str, calls: impl FnOnce()) -> Hint {
    let mut hints = hints(calls);
    assert!(hints.len() == 1 && hints[0].name == name, "{name}: {hints:#?}");
    hints.remove(0)
}

fn silent(calls: impl FnOnce()) {
    let hints = hints(calls);
    assert!(hints.is_empty(), "{hints:#?}");
}

fn listener(backlog: i32) -> Socket {
    let listener = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    listener.bind(("127.0.0.1", 0)).unwrap();
    listener.listen(backlog).unwrap();
    listener
}

fn client_of(listener: &Socket) -> Socket {
    let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
    client.connect(listener.getsockname().unwrap()).unwrap();
    client
}

/// The two ends of a TCP connection.
fn connection() -> (Socket, Socket) {
    let listener = listener(5);
    let client = client_of(&listener);
    (client, listener.accept().unwrap().0)
}

/// Waits until a socket has this many bytes to receive.
fn wait_for_bytes(sock: &Socket, count: usize) {
    for _ in 0..10_000 {
        if sock.recv_queue().unwrap() >= count {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("the bytes do not arrive");
}

#[test]
fn a_send_of_a_part_is_hinted_once() {
    let (client, _server) = connection();
    client.setblocking(false).unwrap();
    let data = vec![7; 50_000_000];
    let hint = hint("partial-send", || {
        let sent = client.send(&data).unwrap();
        assert!(sent < data.len());
        // Whatever it does now, the program has the hint.
        let _ = client.send(&data[sent..]);
    });
    assert!(
        hint.text.contains(" of 50000000 bytes; call it again with the rest, or call sendall"),
        "{hint:?}"
    );
    assert_eq!((&hint.scenario[..], hint.fd), ("partial_send", client.fileno().to_string()));
}

#[test]
fn sending_everything_is_not_hinted() {
    let (client, server) = connection();
    let reader = std::thread::spawn(move || {
        let mut count = 0;
        loop {
            match server.recv(1 << 20).unwrap().len() {
                0 => return count,
                more => count += more,
            }
        }
    });
    silent(|| {
        client.send(b"short").unwrap();
        client.settimeout(20).unwrap();
        let data = vec![7; 5_000_000];
        client.sendall(&data).unwrap();
        (&client).write_all(&data).unwrap();
        client.shutdown(SHUT_WR).unwrap();
    });
    assert_eq!(reader.join().unwrap(), 10_000_005);
}

#[test]
fn an_end_of_file_that_is_received_again_and_again_is_hinted() {
    let (client, server) = connection();
    drop(client);
    let hint = hint("end-of-file", || {
        for _ in 0..20 {
            assert_eq!(server.recv(100).unwrap(), b"");
        }
    });
    assert!(hint.text.contains("end of file 3 times"), "{hint:?}");
}

#[test]
fn a_loop_that_ends_at_the_end_of_file_is_not_hinted() {
    let (client, server) = connection();
    silent(|| {
        client.sendall(b"hello").unwrap();
        client.shutdown(SHUT_WR).unwrap();
        while !server.recv(2).unwrap().is_empty() {}
        // The next socket has the same number.
        drop((client, server));
        for _ in 0..3 {
            let (client, server) = connection();
            drop(client);
            assert_eq!(server.recv(2).unwrap(), b"");
        }
        // An empty datagram is not the end of anything.
        let (ours, theirs) = datagrams();
        for _ in 0..5 {
            theirs.sendto(b"", ours.getsockname().unwrap()).unwrap();
            assert_eq!(ours.recv(10).unwrap(), b"");
        }
    });
}

fn datagrams() -> (Socket, Socket) {
    let [ours, theirs] = [(), ()].map(|()| {
        let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        sock.bind(("127.0.0.1", 0)).unwrap();
        sock
    });
    (ours, theirs)
}

#[test]
fn closing_with_unread_bytes_is_hinted() {
    let (client, server) = connection();
    client.sendall(b"not read").unwrap();
    wait_for_bytes(&server, 8);
    let hint = hint("unread-bytes", || server.close().unwrap());
    assert!(hint.text.contains("8 bytes that were not received"), "{hint:?}");
    assert_eq!(client.recv(1).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    // Dropping closes too.
    let (client, server) = connection();
    server.sendall(b"x").unwrap();
    wait_for_bytes(&client, 1);
    self::hint("unread-bytes", || drop(client));
}

#[test]
fn closing_after_everything_was_read_is_not_hinted() {
    silent(|| {
        let (client, server) = connection();
        client.sendall(b"read").unwrap();
        assert_eq!(server.recv(100).unwrap(), b"read");
        drop((client, server));
        // A byte that wakes another thread.
        let (ours, theirs) = sock::socketpair_with(sock::AF_UNIX, SOCK_STREAM, 0).unwrap();
        theirs.sendall(b"!").unwrap();
        drop(ours);
    });
}

/// The connection is closed with its last descriptor, and without a reset if the peer has reset it.
#[cfg(target_os = "linux")]
#[test]
fn closing_one_of_two_descriptors_is_not_hinted() {
    silent(|| {
        let (client, server) = connection();
        client.sendall(b"unread").unwrap();
        wait_for_bytes(&server, 6);
        let duplicate = server.dup().unwrap();
        drop(server);
        assert_eq!(duplicate.recv(100).unwrap(), b"unread");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_backlog_is_hinted() {
    let listener = listener(1);
    let _clients = [(), ()].map(|()| client_of(&listener));
    let hint = hint("backlog-full", || {
        listener.accept().unwrap();
        listener.accept().unwrap();
    });
    assert!(hint.text.contains("2 connections for a backlog of 1"), "{hint:?}");
}

#[test]
fn a_queue_with_room_is_not_hinted() {
    silent(|| {
        let listener = listener(5);
        let _clients = [(); 5].map(|()| client_of(&listener));
        for _ in 0..5 {
            listener.accept().unwrap();
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_truncated_datagram_is_hinted_and_returned_as_before() {
    let (ours, theirs) = datagrams();
    let to = ours.getsockname().unwrap();
    let send = || assert_eq!(theirs.sendto(b"0123456789", &to).unwrap(), 10);
    let is_hinted = |call: &dyn Fn()| {
        send();
        let hint = hint("datagram-truncated", call);
        assert!(hint.text.contains(" returned 4 bytes of a datagram that had "), "{hint:?}");
        hint.text.contains("had 10,")
    };
    assert!(is_hinted(&|| assert_eq!(ours.recv(4).unwrap(), b"0123")));
    assert!(is_hinted(&|| assert_eq!(ours.recvfrom(4).unwrap().0, b"0123")));
    let mut buffer = [0; 4];
    assert!(is_hinted(&|| assert_eq!(ours.recv_into(&mut [0; 4]).unwrap(), 4)));
    assert!(is_hinted(&|| assert_eq!(ours.recvfrom_into(&mut [0; 4]).unwrap().0, 4)));
    is_hinted(&|| assert_eq!(ours.recvmsg(4, 0).unwrap().data, b"0123"));
    is_hinted(&|| {
        let mut batch = sock::RecvBatch::new(2, 4).unwrap();
        assert_eq!(ours.recvmmsg(&mut batch).unwrap(), 1);
    });
    send();
    assert_eq!((ours.recv_into(&mut buffer).unwrap(), &buffer), (4, b"0123"));
}

#[test]
fn a_datagram_that_fits_is_not_hinted() {
    silent(|| {
        let (ours, theirs) = datagrams();
        let to = ours.getsockname().unwrap();
        theirs.sendto(b"0123", &to).unwrap();
        // The length is asked for.
        #[cfg(target_os = "linux")]
        assert_eq!(ours.recv_into_with_flags(&mut [0; 1], MSG_PEEK | sock::MSG_TRUNC).unwrap(), 4);
        assert_eq!(ours.recvfrom_with_flags(4, MSG_PEEK).unwrap().0, b"0123");
        assert_eq!(ours.recv(4).unwrap(), b"0123");
    });
}

/// Polls until there is a hint, or often enough.
fn poll_often(sock: &Socket, events: sock::Events, mut between: impl FnMut()) {
    for _ in 0..2_000 {
        let mut set = [Poll::new(sock, events)];
        assert_eq!(sock::poll(&mut set, None).unwrap(), 1);
        between();
        if HINTS.with_borrow(|hints| !hints.is_empty()) {
            return;
        }
    }
}

#[test]
fn a_busy_loop_on_readiness_is_hinted() {
    let (ours, theirs) = sock::socketpair().unwrap();
    let hint = hint("busy-loop", || poll_often(&ours, POLLOUT, || {}));
    assert!(hint.text.contains("nearly always writable"), "{hint:?}");
    theirs.sendall(b"unread").unwrap();
    let hint = self::hint("busy-loop", || poll_often(&ours, POLLIN, || {}));
    assert!(hint.text.contains("reported as readable 100 times"), "{hint:?}");
    ours.recv(100).unwrap();
    let selector = sock::selectors::DefaultSelector::new().unwrap();
    selector.register(&ours, sock::selectors::EVENT_WRITE, ()).unwrap();
    self::hint("busy-loop", || {
        for _ in 0..2_000 {
            assert_eq!(selector.select(None).unwrap().len(), 1);
            if HINTS.with_borrow(|hints| !hints.is_empty()) {
                return;
            }
        }
    });
}

#[test]
fn a_loop_that_uses_what_is_ready_is_not_hinted() {
    let (ours, theirs) = sock::socketpair().unwrap();
    silent(|| {
        theirs.sendall(&[7; 1000]).unwrap();
        for _ in 0..1000 {
            assert_eq!(sock::poll(&mut [Poll::new(&ours, POLLIN)], None).unwrap(), 1);
            assert_eq!(ours.recv(1).unwrap().len(), 1);
        }
        for _ in 0..1000 {
            // Not ready: it is asked, and there is something else to do.
            assert_eq!(
                sock::poll(&mut [Poll::new(&ours, POLLIN)], Some(std::time::Duration::ZERO)).unwrap(),
                0
            );
        }
    });
}

#[cfg(target_os = "linux")]
mod held {
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn a_port_of_this_process_is_hinted() {
        let held = listener(5);
        let hint = hint("port-held", || {
            let sock = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
            sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, true).unwrap();
            sock.bind(held.getsockname().unwrap()).unwrap_err();
        });
        let text = "failed: this process itself holds the port with a socket in state LISTEN";
        assert!(hint.text.contains(text), "{hint:?}");
        let (ours, _) = datagrams();
        let hint = self::hint("port-held", || {
            Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap().bind(ours.getsockname().unwrap()).unwrap_err();
        });
        assert!(hint.text.contains("this process itself holds the port"), "{hint:?}");
    }

    #[test]
    fn a_port_of_a_socket_that_does_not_listen_is_hinted() {
        let held = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        held.bind(("127.0.0.1", 0)).unwrap();
        let hint = hint("port-held", || {
            Socket::new(AF_INET, SOCK_STREAM, 0).unwrap().bind(held.getsockname().unwrap()).unwrap_err();
        });
        assert!(hint.text.contains("bound, and neither listens nor is connected"), "{hint:?}");
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_port_of_another_process_is_hinted_with_its_name() {
        let held = listener(5);
        let address = held.getsockname().unwrap();
        held.set_inheritable(true).unwrap();
        let child = Killed(Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap());
        drop(held);
        let hint = hint("port-held", || {
            Socket::new(AF_INET, SOCK_STREAM, 0).unwrap().bind(&address).unwrap_err();
        });
        let owner = format!("process {} (sleep), which was started ", child.0.id());
        assert!(hint.text.contains(&owner) && hint.text.contains("LISTEN"), "{hint:?}");
    }

    #[test]
    fn time_wait_is_hinted_with_the_time_that_is_left() {
        let listener = listener(5);
        let address = listener.getsockname().unwrap();
        let client = client_of(&listener);
        let (server, _) = listener.accept().unwrap();
        server.close().unwrap();
        assert_eq!(client.recv(1).unwrap(), b"");
        client.close().unwrap();
        listener.close().unwrap();
        let hint = hint("port-held", || {
            Socket::new(AF_INET, SOCK_STREAM, 0).unwrap().bind(&address).unwrap_err();
        });
        assert_eq!(hint.scenario, "time_wait");
        assert!(hint.text.contains("1 closed connection(s) in TIME-WAIT hold the port for "), "{hint:?}");
        let seconds = hint.text.split(" for ").nth(1).unwrap().split(' ').next().unwrap();
        assert!((30..=60).contains(&seconds.parse::<u32>().unwrap()), "{hint:?}");
    }

    #[test]
    fn a_free_port_is_not_hinted() {
        silent(|| drop(listener(5)));
    }

    #[test]
    fn a_stale_path_is_hinted_by_bind_and_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let unix = || Socket::new(sock::AF_UNIX, SOCK_STREAM, 0).unwrap();
        let bound = unix();
        bound.bind(&*path).unwrap();
        let hint = hint("path-held", || drop(unix().bind(&*path).unwrap_err()));
        assert!(hint.text.contains("failed: this process itself holds the path"), "{hint:?}");
        bound.close().unwrap();
        let hint = self::hint("stale-path", || drop(unix().bind(&*path).unwrap_err()));
        assert!(hint.text.contains("the file is left from a socket that is closed"), "{hint:?}");
        let hint = self::hint("stale-path", || drop(unix().connect(&*path).unwrap_err()));
        assert!(hint.text.contains("no socket listens on it"), "{hint:?}");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        let hint = self::hint("stale-path", || drop(unix().bind(&*path).unwrap_err()));
        assert!(hint.text.contains("the file exists; bind makes a new file"), "{hint:?}");
        std::fs::remove_file(&path).unwrap();
        silent(|| {
            let listener = unix();
            listener.bind(&*path).unwrap();
            listener.listen(5).unwrap();
            unix().connect(&*path).unwrap();
        });
    }

    #[test]
    fn closing_a_unix_connection_with_unread_bytes_is_hinted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let [listener, client] = [(), ()].map(|()| Socket::new(sock::AF_UNIX, SOCK_STREAM, 0).unwrap());
        listener.bind(&*path).unwrap();
        listener.listen(5).unwrap();
        client.connect(&*path).unwrap();
        client.sendall(b"unread").unwrap();
        let (server, _) = listener.accept().unwrap();
        hint("unread-bytes", || drop(server));
        assert_eq!(client.recv(1).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_full_queue_of_a_unix_listener_is_hinted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let unix = || Socket::new(sock::AF_UNIX, SOCK_STREAM, 0).unwrap();
        let listener = unix();
        listener.bind(&*path).unwrap();
        listener.listen(0).unwrap();
        let first = unix();
        first.connect(&*path).unwrap();
        hint("backlog-full", || {
            let second = unix();
            second.setblocking(false).unwrap();
            second.connect(&*path).unwrap_err();
        });
    }
}
