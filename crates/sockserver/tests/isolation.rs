//! The promise: a client that disconnects and a handler that fails or panics end their own request
//! only. The server serves the next one.

mod support;

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sock::{Address, SO_LINGER, SOL_SOCKET, Socket, create_connection};
use sockserver::{
    DatagramContext, DatagramRequestHandler, RequestError, Server, ServerHooks, StreamContext,
    StreamRequestHandler, TCPServer, ThreadingTCPServer, ThreadingUDPServer, UDPServer,
};

use support::StopOnDrop;

const LIMIT: Duration = Duration::from_secs(20);

/// Reads one word and does what it says.
struct Scripted;

impl StreamRequestHandler for Scripted {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut word = String::new();
        cx.rfile.read_line(&mut word)?;
        match word.trim_end() {
            "fail" => Err(io::Error::other("planned error")),
            "panic" => panic!("planned panic"),
            "panic in drop" => {
                let _bomb = Bomb;
                Ok(())
            }
            "flood" => loop {
                cx.wfile.write_all(&[b'x'; 65536])?;
            },
            "read on" => cx.rfile.read_to_end(&mut Vec::new()).map(drop),
            word => writeln!(cx.wfile, "did {word}"),
        }
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("planned panic in drop");
    }
}

/// Sends each error that `handle_error` gets to the test.
struct ReportErrors(mpsc::Sender<String>);

impl ServerHooks for ReportErrors {
    fn handle_error(&self, error: &RequestError, client_address: &Address) {
        assert!(client_address.ip().is_some_and(|ip| ip.is_loopback()));
        let kind = if error.is_disconnect() { "disconnect" } else { "error" };
        let _ = self.0.send(format!("{kind}: {error}"));
    }
}

fn connect_to(address: &Address) -> Socket {
    let client = create_connection(("127.0.0.1", address.port().unwrap())).unwrap();
    client.settimeout(LIMIT).unwrap();
    client
}

/// Closes with a reset instead of an end of file.
fn reset(client: Socket) {
    // struct linger { on, seconds }. A close with linger time 0 sends a reset (tcp(7)).
    // Its fields have 4 bytes, on Windows 2.
    let linger = if cfg!(windows) { &[1, 0, 0, 0][..] } else { &[1, 0, 0, 0, 0, 0, 0, 0] };
    client.setsockopt(SOL_SOCKET, SO_LINGER, linger).unwrap();
    client.close().unwrap();
}

/// Runs clients and handlers that fail, and checks after each that the server still answers.
fn serves_after_each_failure<K: sockserver::kind::Kind, M: sockserver::MixIn>(
    server: &Server<K, M>,
    errors: &mpsc::Receiver<String>,
) {
    let address = server.server_address().clone();
    let handle = server.handle();
    thread::scope(|scope| {
        let _stop = StopOnDrop(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        let still_serves = || {
            let client = connect_to(&address);
            client.sendall(b"work\n").unwrap();
            assert_eq!(client.makefile_rb().lines().next().unwrap().unwrap(), "did work");
        };
        // Disconnects may be reported too, at any time.
        let expect_error = |expected: &str| loop {
            let error = errors
                .recv_timeout(LIMIT)
                .unwrap_or_else(|_| panic!("no error {expected:?} in handle_error"));
            if error.starts_with(expected) {
                break;
            }
            assert!(error.starts_with("disconnect: "), "{error}");
        };

        still_serves();
        connect_to(&address).sendall(b"fail\n").unwrap();
        expect_error("error: planned error");
        still_serves();
        connect_to(&address).sendall(b"panic\n").unwrap();
        expect_error("error: panicked: planned panic");
        still_serves();
        connect_to(&address).sendall(b"panic in drop\n").unwrap();
        expect_error("error: panicked: planned panic in drop");
        still_serves();

        // It disconnects before a word, within one, while the server sends,
        // and with a reset.
        drop(connect_to(&address));
        still_serves();
        connect_to(&address).sendall(b"wor").unwrap();
        still_serves();
        let greedy = connect_to(&address);
        greedy.sendall(b"flood\n").unwrap();
        assert_ne!(greedy.recv(100).unwrap(), b"");
        drop(greedy);
        expect_error("disconnect: ");
        still_serves();
        let rude = connect_to(&address);
        rude.sendall(b"read on\nand on").unwrap();
        reset(rude);
        // recv(2) of wine returns the end of file if the reset came before the call. A C program
        // shows the same.
        if !cfg!(windows) {
            expect_error("disconnect: ");
        }
        still_serves();
        reset(connect_to(&address));
        still_serves();
        handle.shutdown().unwrap();
    });
}

#[test]
fn a_sequential_server_serves_after_each_failure() {
    let (sender, errors) = mpsc::channel();
    let server =
        TCPServer::builder(|| Scripted).hooks(ReportErrors(sender)).bind(("127.0.0.1", 0)).unwrap();
    serves_after_each_failure(&server, &errors);
}

#[test]
fn a_threading_server_serves_after_each_failure() {
    let (sender, errors) = mpsc::channel();
    let server = ThreadingTCPServer::builder(|| Scripted)
        .hooks(ReportErrors(sender))
        .bind(("127.0.0.1", 0))
        .unwrap();
    serves_after_each_failure(&server, &errors);
}

/// Does what its datagram says.
#[derive(Default)]
struct Fragile(Option<Bomb>);

impl DatagramRequestHandler for Fragile {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        match cx.packet {
            b"fail" => Err(io::Error::other("planned error")),
            b"panic" => panic!("planned panic"),
            b"panic in drop" => {
                self.0 = Some(Bomb);
                Ok(())
            }
            word => cx.wfile.write_all(word),
        }
    }
}

fn datagrams_are_served_after_each_failure<K: sockserver::kind::Kind, M: sockserver::MixIn>(
    server: Server<K, M>,
    errors: &mpsc::Receiver<String>,
) {
    let handle = server.handle();
    let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0).unwrap();
    client.connect(server.server_address()).unwrap();
    client.settimeout(LIMIT).unwrap();
    thread::scope(|scope| {
        let _stop = StopOnDrop(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        for (word, expected) in [
            ("fail", "error: planned error"),
            ("panic", "error: panicked: planned panic"),
            ("panic in drop", "error: panicked: planned panic in drop"),
        ] {
            client.send(word.as_bytes()).unwrap();
            assert_eq!(errors.recv_timeout(LIMIT).unwrap(), expected);
            client.send(b"work").unwrap();
            assert_eq!(client.recv(100).unwrap(), b"work", "after {word}");
        }
        handle.shutdown().unwrap();
    });
    // Waits for requests that have not ended yet.
    server.server_close().unwrap();
    assert_eq!(handle.stats().panicked, 2);
}

#[test]
fn datagram_servers_serve_after_each_failure() {
    let (sender, errors) = mpsc::channel();
    let server =
        UDPServer::builder(Fragile::default).hooks(ReportErrors(sender)).bind(("127.0.0.1", 0)).unwrap();
    datagrams_are_served_after_each_failure(server, &errors);
    let (sender, errors) = mpsc::channel();
    let server = ThreadingUDPServer::builder(Fragile::default)
        .hooks(ReportErrors(sender))
        .bind(("127.0.0.1", 0))
        .unwrap();
    datagrams_are_served_after_each_failure(server, &errors);
}
