//! The promise: TLS under each class of server. Stalled handshakes, garbage and
//! plain HTTP cost their own place until the deadline and nobody else's; sessions
//! are resumed whichever thread or process served the first one; a handler that fails
//! ends its connection without a close_notify.

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
use crate::support::{LIMIT, LOOPBACK, client_of, rest_of};

pub(crate) const TESTS: &[Test] = &[
    ("tls_in_the_loop", || holds("tls_sequential", 3)),
    ("tls_in_threads", || holds("tls_threading", 200)),
    ("tls_in_a_pool", || holds("tls_pool", 10)),
    ("tls_in_a_selector", || holds("tls_selector", 10)),
    ("tls_in_children", || holds("tls_forking", 30)),
    ("tls_in_preforked_workers", || holds("tls_prefork", 6)),
];

/// The servers, each a program that prints its address and serves until it is killed.
pub(crate) const HELPERS: &[Test] = &[
    ("tls_sequential", || serve(TCPServer::builder(|| Echo))),
    ("tls_threading", || serve(ThreadingTCPServer::builder(|| Echo))),
    ("tls_pool", || serve(ThreadPoolTCPServer::builder(|| Echo).workers(4))),
    ("tls_selector", || serve(SelectorTCPServer::builder(|| Echo).workers(4))),
    ("tls_forking", || serve(ForkingTCPServer::builder(|| Echo))),
    ("tls_prefork", || serve(PreforkTCPServer::builder(|| Echo).workers(3))),
];

const CERTIFICATES: &str = "SOCK_TEST_CERTIFICATES";

/// After this long a handshake is given up.
const DEADLINE: Duration = Duration::from_secs(1);

/// Lines that have the handler fail in the middle of its answer.
const FAIL: &[u8] = b"fail\n";
const PANIC: &[u8] = b"panic\n";

struct Echo;

impl StreamRequestHandler for Echo {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = Vec::new();
        while cx.rfile.read_until(b'\n', &mut line)? > 0 {
            if line == FAIL || line == PANIC {
                cx.wfile.write_all(b"half")?;
                assert_eq!(line, FAIL, "panics on purpose");
                return Err(io::Error::other("fails on purpose"));
            }
            cx.wfile.write_all(&line)?;
            line.clear();
        }
        Ok(())
    }
}

fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let directory = PathBuf::from(std::env::var_os(CERTIFICATES).expect("the directory of certificates"));
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
        let silent: Vec<_> = (0..stalled).map(|number| trouble(&address, number)).collect();
        for number in 0..6 {
            let resumed = converse(&context, &address, if number == 0 { 2_000_000 } else { 100 });
            assert_eq!(resumed, number > 0, "{version:?} {number}");
        }
        // At worst each that stalls is waited for, one after the other.
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        for how in [FAIL, PANIC] {
            let sock = context.wrap_socket_client(client_of(&address), "localhost").expect("handshake");
            sock.sendall(how).unwrap();
            let mut answer = Vec::new();
            let end = sock.makefile_rb().read_to_end(&mut answer).map_err(|error| error.kind());
            assert_eq!(answer, b"half");
            assert_eq!(end, Err(io::ErrorKind::UnexpectedEof), "half an answer looks whole");
        }
        for sock in silent {
            // An alert, an end of file or a reset; and no silence.
            let end = rest_of(&sock);
            assert!(!end.contains("TimedOut"), "a stalled handshake is not given up");
        }
    }

    // Many whole handshakes at once.
    let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    context.load_verify_locations(directory.path().join("cert.pem")).unwrap();
    context.set_num_tickets(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| assert!(!converse(&context, &address, 10))));
        }
    });
    assert_eq!(server.0.try_wait().unwrap(), None, "it still serves");
}

/// Somebody who does not finish a handshake.
fn trouble(address: &sock::Address, number: usize) -> Socket {
    let sock = client_of(address);
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

/// One conversation; whether it took up a session.
fn converse(context: &SSLContext, address: &sock::Address, length: usize) -> bool {
    let sock = context.wrap_socket_client(client_of(address), "localhost").expect("handshake");
    let mut message = vec![b'x'; length];
    message.push(b'\n');
    thread::scope(|scope| {
        scope.spawn(|| sock.sendall(&message).expect("sendall"));
        let mut answer = vec![0; message.len()];
        sock.makefile_rb().read_exact(&mut answer).expect("the echo");
        assert_eq!(answer, message);
    });
    sock.shutdown(sock::SHUT_WR).unwrap();
    assert_eq!(sock.recv(1).expect("goodbye in form"), b"");
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
