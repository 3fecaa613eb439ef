//! The promise: a client that vanishes, a handler that fails or panics, ends
//! its own request and nothing else: the server serves the next one.

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

use support::StopAtEnd;

const LIMIT: Duration = Duration::from_secs(20);

/// Reads one word and does what it says.
struct Obedient;

impl StreamRequestHandler for Obedient {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut word = String::new();
        cx.rfile.read_line(&mut word)?;
        match word.trim_end() {
            "fail" => Err(io::Error::other("told to fail")),
            "panic" => panic!("told to panic"),
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
        panic!("told to panic in drop");
    }
}

/// Tells the test what `handle_error` is told.
struct Telling(mpsc::Sender<String>);

impl ServerHooks for Telling {
    fn handle_error(&self, error: &RequestError, client_address: &Address) {
        assert!(client_address.ip().is_some_and(|ip| ip.is_loopback()));
        let kind = if error.is_disconnect() { "disconnect" } else { "error" };
        let _ = self.0.send(format!("{kind}: {error}"));
    }
}

fn client_of(address: &Address) -> Socket {
    let client = create_connection(("127.0.0.1", address.port().unwrap())).unwrap();
    client.settimeout(LIMIT).unwrap();
    client
}

/// Closes with a reset instead of an end of file.
fn reset(client: Socket) {
    // struct linger { on, seconds }: tcp(7), a close with linger time 0 resets.
    // Its fields are of 4 bytes, on Windows of 2.
    let linger = if cfg!(windows) { &[1, 0, 0, 0][..] } else { &[1, 0, 0, 0, 0, 0, 0, 0] };
    client.setsockopt(SOL_SOCKET, SO_LINGER, linger).unwrap();
    client.close().unwrap();
}

/// Lets clients misbehave and after each asks for an honest answer.
fn survives_all<K: sockserver::kind::Kind, M: sockserver::MixIn>(
    server: &Server<K, M>,
    errors: &mpsc::Receiver<String>,
) {
    let address = server.server_address().clone();
    let handle = server.handle();
    thread::scope(|scope| {
        let _stop = StopAtEnd(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        let still_serves = || {
            let client = client_of(&address);
            client.sendall(b"work\n").unwrap();
            assert_eq!(client.makefile_rb().lines().next().unwrap().unwrap(), "did work");
        };
        // Clients that only go away may be reported too, whenever that is noticed.
        let told = |expected: &str| loop {
            let error =
                errors.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("handle_error is told {expected:?}"));
            if error.starts_with(expected) {
                break;
            }
            assert!(error.starts_with("disconnect: "), "{error}");
        };

        still_serves();
        client_of(&address).sendall(b"fail\n").unwrap();
        told("error: told to fail");
        still_serves();
        client_of(&address).sendall(b"panic\n").unwrap();
        told("error: panicked: told to panic");
        still_serves();
        client_of(&address).sendall(b"panic in drop\n").unwrap();
        told("error: panicked: told to panic in drop");
        still_serves();

        // It vanishes: before a word, in the middle of one, while the server sends,
        // and with a reset.
        drop(client_of(&address));
        still_serves();
        client_of(&address).sendall(b"wor").unwrap();
        still_serves();
        let greedy = client_of(&address);
        greedy.sendall(b"flood\n").unwrap();
        assert_ne!(greedy.recv(100).unwrap(), b"");
        drop(greedy);
        told("disconnect: ");
        still_serves();
        let rude = client_of(&address);
        rude.sendall(b"read on\nand on").unwrap();
        reset(rude);
        // recv(2) of wine returns the end of file if the reset came before the call; a C program
        // shows the same.
        if !cfg!(windows) {
            told("disconnect: ");
        }
        still_serves();
        reset(client_of(&address));
        still_serves();
        handle.shutdown().unwrap();
    });
}

#[test]
fn a_sequential_server_survives_its_clients_and_handlers() {
    let (tell, errors) = mpsc::channel();
    let server = TCPServer::builder(|| Obedient).hooks(Telling(tell)).bind(("127.0.0.1", 0)).unwrap();
    survives_all(&server, &errors);
}

#[test]
fn a_threading_server_survives_its_clients_and_handlers() {
    let (tell, errors) = mpsc::channel();
    let server =
        ThreadingTCPServer::builder(|| Obedient).hooks(Telling(tell)).bind(("127.0.0.1", 0)).unwrap();
    survives_all(&server, &errors);
}

/// Does what its datagram says; one that is to panic in drop does so with its connection.
#[derive(Default)]
struct Fragile(Option<Bomb>);

impl DatagramRequestHandler for Fragile {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        match cx.packet {
            b"fail" => Err(io::Error::other("told to fail")),
            b"panic" => panic!("told to panic"),
            b"panic in drop" => {
                self.0 = Some(Bomb);
                Ok(())
            }
            word => cx.wfile.write_all(word),
        }
    }
}

fn datagrams_survive_all<K: sockserver::kind::Kind, M: sockserver::MixIn>(
    server: Server<K, M>,
    errors: &mpsc::Receiver<String>,
) {
    let handle = server.handle();
    let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0).unwrap();
    client.connect(server.server_address()).unwrap();
    client.settimeout(LIMIT).unwrap();
    thread::scope(|scope| {
        let _stop = StopAtEnd(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        for (word, expected) in [
            ("fail", "error: told to fail"),
            ("panic", "error: panicked: told to panic"),
            ("panic in drop", "error: panicked: told to panic in drop"),
        ] {
            client.send(word.as_bytes()).unwrap();
            assert_eq!(errors.recv_timeout(LIMIT).unwrap(), expected);
            client.send(b"work").unwrap();
            assert_eq!(client.recv(100).unwrap(), b"work", "after {word}");
        }
        handle.shutdown().unwrap();
    });
    // Waits for what is still being ended.
    server.server_close().unwrap();
    assert_eq!(handle.stats().panicked, 2);
}

#[test]
fn datagram_servers_survive_their_handlers() {
    let (tell, errors) = mpsc::channel();
    let server = UDPServer::builder(Fragile::default).hooks(Telling(tell)).bind(("127.0.0.1", 0)).unwrap();
    datagrams_survive_all(server, &errors);
    let (tell, errors) = mpsc::channel();
    let server =
        ThreadingUDPServer::builder(Fragile::default).hooks(Telling(tell)).bind(("127.0.0.1", 0)).unwrap();
    datagrams_survive_all(server, &errors);
}
