//! The promise: TLS works with each class of server. A stalled handshake, garbage and plain HTTP hold
//! their own permit until the deadline and affect no other client. Sessions are resumed whichever
//! thread or process served the first connection. A handler that fails ends its connection without a
//! close_notify.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sock::Socket;
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, SelectorTCPServer, StreamContext,
    StreamRequestHandler, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer,
};
use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext, SSLSocket, TLSVersion, WrapOptions};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_to, read_to_end};

pub(crate) const TESTS: &[Test] = &[
    ("tls_in_the_loop", || holds("tls_sequential", 3)),
    ("tls_in_threads", || holds("tls_threading", 200)),
    ("tls_in_a_pool", || holds("tls_pool", 10)),
    ("tls_in_a_selector", || holds("tls_selector", 10)),
    ("tls_in_children", || holds("tls_forking", 30)),
    ("tls_in_preforked_workers", || holds("tls_prefork", 6)),
];

/// Servers, each a program that prints its address and serves until it is killed.
pub(crate) const HELPERS: &[Test] = &[
    ("tls_sequential", || serve(TCPServer::builder(|| Echo))),
    ("tls_threading", || serve(ThreadingTCPServer::builder(|| Echo))),
    ("tls_pool", || serve(ThreadPoolTCPServer::builder(|| Echo).workers(4))),
    ("tls_selector", || serve(SelectorTCPServer::builder(|| Echo).workers(4))),
    ("tls_forking", || serve(ForkingTCPServer::builder(|| Echo))),
    ("tls_prefork", || serve(PreforkTCPServer::builder(|| Echo).workers(3))),
];

const CERTIFICATES: &str = "SOCK_TEST_CERTIFICATES";

/// The deadline of a handshake.
const DEADLINE: Duration = Duration::from_secs(1);

/// Requests that make the handler fail in the middle of its response.
const FAIL: &[u8] = b"fail\n";
const PANIC: &[u8] = b"panic\n";

struct Echo;

impl StreamRequestHandler for Echo {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        while cx.rfile.read_until(b'\n', &mut line)? > 0 {
            if line == FAIL || line == PANIC {
                cx.wfile.write_all(b"half")?;
                assert_eq!(line, FAIL, "planned panic");
                return Err(io::Error::other("planned error"));
            }
            cx.wfile.write_all(&line)?;
            line.clear();
        }
        Ok(())
    }
}

fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let directory =
        PathBuf::from(std::env::var_os(CERTIFICATES).expect("the directory of certificates is set"));
    let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    context.load_cert_chain(directory.join("cert.pem"), directory.join("key.pem")).unwrap();
    let options = WrapOptions::new().handshake_timeout(DEADLINE);
    let builder =
        builder.wrap_request(move |request, _| context.wrap_socket_server_with(request, &options));
    let server = builder.bind(LOOPBACK).unwrap();
    println!("{}", server.server_address());
    server.serve_forever().unwrap();
}

fn holds(class: &str, stalled: usize) {
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let mut server = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--alone", class])
            .env(CERTIFICATES, directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    io::BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address: std::net::SocketAddr = line.trim().parse().unwrap();
    let address = sock::Address::from(address);

    for version in [TLSVersion::TLSv1_3, TLSVersion::TLSv1_2] {
        let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
        context.load_verify_locations(directory.path().join("cert.pem")).unwrap();
        context.set_maximum_version(version);
        let begin = Instant::now();
        let silent: Vec<_> = (0..stalled).map(|number| stalled_client(&address, number)).collect();
        for number in 0..6 {
            let resumed = converse(&context, &address, if number == 0 { 2_000_000 } else { 100 });
            assert_eq!(resumed, number > 0, "{version:?} {number}");
        }
        // In the worst case the server waits for each stalled handshake in turn.
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        for how in [FAIL, PANIC] {
            let sock = context.wrap_socket_client(connect_to(&address), "localhost").expect("handshake");
            sock.sendall(how).unwrap();
            let mut answer = Vec::new();
            let end = sock.makefile_rb().read_to_end(&mut answer).map_err(|error| error.kind());
            assert_eq!(answer, b"half");
            assert_eq!(
                end,
                Err(io::ErrorKind::UnexpectedEof),
                "half a response was followed by a close_notify"
            );
        }
        for sock in silent {
            // An alert, an end of file or a reset, but not silence.
            let end = read_to_end(&sock);
            assert!(!end.contains("TimedOut"), "a stalled handshake was not closed");
        }
    }

    // Many complete handshakes at once.
    let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    context.load_verify_locations(directory.path().join("cert.pem")).unwrap();
    context.set_num_tickets(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| assert!(!converse(&context, &address, 10))));
        }
    });
    assert_eq!(server.0.try_wait().unwrap(), None, "the server does not serve");
}

/// A client that does not finish its handshake.
fn stalled_client(address: &sock::Address, number: usize) -> Socket {
    let sock = connect_to(address);
    let bytes: &[u8] = match number % 5 {
        0 => b"",
        1 => b"\x16\x03\x01\x02\x00\x01",
        2 => b"GET / HTTP/1.0\r\n\r\n",
        3 => b"\x16\x03\x01\x00\x02\x01\x00",
        _ => b"\xff\xfe\xfd\xfc\xfb\xfa",
    };
    sock.sendall(bytes).unwrap();
    sock
}

/// Runs one connection. Returns whether it resumed a session.
fn converse(context: &SSLContext, address: &sock::Address, length: usize) -> bool {
    let sock = context.wrap_socket_client(connect_to(address), "localhost").expect("handshake");
    let mut message = vec![b'x'; length];
    message.push(b'\n');
    thread::scope(|scope| {
        scope.spawn(|| sock.sendall(&message).expect("sendall"));
        let mut answer = vec![0; message.len()];
        sock.makefile_rb().read_exact(&mut answer).expect("the echo");
        assert_eq!(answer, message);
    });
    sock.shutdown(sock::SHUT_WR).unwrap();
    assert_eq!(sock.recv(1).expect("no close_notify"), b"");
    SSLSocket::session_reused(&sock)
}

fn certificates(directory: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const _: () = assert!(DEADLINE.as_secs() < LIMIT.as_secs());
