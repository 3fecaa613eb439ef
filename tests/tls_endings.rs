//! The promise: a TLS connection ends with a close_notify if its handler succeeded, and without one if
//! it failed, so that half a response does not look complete. A response arrives even if the client is
//! still sending.

use std::fs;
use std::io::{self, BufRead, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sock::{Address, StreamSocket};
#[cfg(unix)]
use sockserver::SelectorTCPServer;
use sockserver::kind::{Inet, Stream};
use sockserver::testing::{self, Running};
use sockserver::{
    Builder, MixIn, StreamContext, StreamRequestHandler, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer,
};
use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext, SSLSocket, TLSVersion};

#[path = "../crates/sockserver/tests/support/mod.rs"]
mod support;
use support::{LIMIT, LOOPBACK, connect_to};

const LONG: usize = 3 << 20;

/// Does what the first line says.
struct Obedient;

impl StreamRequestHandler for Obedient {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        match line.trim_end() {
            "whole" => cx.wfile.write_all(b"whole"),
            "again" => {
                cx.close_connection = false;
                cx.wfile.write_all(b"whole")
            }
            "long" => cx.wfile.write_all(&[b'x'; LONG]),
            how => {
                cx.wfile.write_all(b"half")?;
                cx.wfile.flush()?;
                match how {
                    "panic" => panic!("on purpose"),
                    // This handler ignores the error.
                    "stall" => {
                        let _ = cx.rfile.read_line(&mut line);
                        Ok(())
                    }
                    "wait" => cx.rfile.read_line(&mut line).map(drop),
                    _ => Err(io::Error::other("on purpose")),
                }
            }
        }
    }
}

struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Certificates {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["localhost".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        fs::write(directory.path().join("cert.pem"), certificate.pem()).unwrap();
        fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
        Certificates(directory)
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("cert.pem")
    }

    fn serve<M: MixIn>(&self, builder: Builder<Stream<Inet>, M>) -> Running {
        let context = SSLContext::new(PROTOCOL_TLS_SERVER);
        context.load_cert_chain(self.file(), self.0.path().join("key.pem")).unwrap();
        let builder = builder.wrap_request(move |request, _| context.wrap_socket_server(request));
        testing::serve(builder.bind(LOOPBACK).unwrap())
    }

    fn client(&self, address: &Address, version: TLSVersion) -> SSLSocket {
        let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
        context.load_verify_locations(self.file()).unwrap();
        context.set_maximum_version(version);
        context.wrap_socket_client(connect_to(address), "localhost").unwrap()
    }
}

/// Receives until the end. Returns the data and how the connection ended.
fn rest(client: &SSLSocket) -> (Vec<u8>, Result<(), io::ErrorKind>) {
    let mut got = Vec::new();
    loop {
        match client.recv(1 << 16) {
            Ok(data) if data.is_empty() => return (got, Ok(())),
            Ok(data) => got.extend(data),
            Err(error) => return (got, Err(error.kind())),
        }
    }
}

const VERSIONS: [TLSVersion; 2] = [TLSVersion::TLSv1_3, TLSVersion::TLSv1_2];

#[track_caller]
fn a_failed_handler_ends_without_close_notify<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    let certificates = Certificates::new();
    let server = certificates.serve(builder);
    for version in VERSIONS {
        for (command, answer, end) in [
            ("whole\n", "whole", Ok(())),
            ("fail\n", "half", Err(io::ErrorKind::UnexpectedEof)),
            ("panic\n", "half", Err(io::ErrorKind::UnexpectedEof)),
        ] {
            let client = certificates.client(server.address(), version);
            client.sendall(command.as_bytes()).unwrap();
            assert_eq!(rest(&client), (answer.as_bytes().to_vec(), end), "{command}{version:?}");
        }
        // The client sends after the handler has returned, and only then reads.
        let client = certificates.client(server.address(), version);
        client.sendall(b"long\n").unwrap();
        let (begun, begins) = mpsc::channel();
        thread::scope(|scope| {
            let client = &client;
            scope.spawn(move || {
                begins.recv_timeout(LIMIT).unwrap();
                for _ in 0..16 {
                    if client.sendall(&[7; 1 << 16]).is_err() {
                        return;
                    }
                }
            });
            let mut got = client.recv(1 << 14).unwrap().len();
            begun.send(()).unwrap();
            while got < LONG {
                got += match client.recv(1 << 14) {
                    Ok(data) => data.len(),
                    Err(error) => panic!("{version:?}: {error} after {got} bytes"),
                };
            }
        });
        assert_eq!(client.recv(1).unwrap(), b"", "{version:?}");
    }
}

#[test]
fn a_failed_handler_ends_without_close_notify_in_the_loop() {
    a_failed_handler_ends_without_close_notify(TCPServer::builder(|| Obedient));
}

#[test]
fn a_failed_handler_ends_without_close_notify_in_threads() {
    a_failed_handler_ends_without_close_notify(ThreadingTCPServer::builder(|| Obedient));
}

#[test]
fn a_failed_handler_ends_without_close_notify_in_a_pool() {
    a_failed_handler_ends_without_close_notify(ThreadPoolTCPServer::builder(|| Obedient).workers(2));
}

#[cfg(unix)]
#[test]
fn a_failed_handler_ends_without_close_notify_in_a_selector() {
    a_failed_handler_ends_without_close_notify(SelectorTCPServer::builder(|| Obedient).workers(2));
}

#[test]
fn an_aborted_handler_ends_without_close_notify() {
    let certificates = Certificates::new();
    let (soon, builder) = (Duration::from_millis(200), || ThreadingTCPServer::builder(|| Obedient));
    for (builder, command) in [
        (builder().request_timeout(soon), "stall\n"),
        (builder().read_timeout(soon), "wait\n"),
        (builder(), "stall\n"),
    ] {
        let server = certificates.serve(builder);
        let client = certificates.client(server.address(), TLSVersion::TLSv1_3);
        client.sendall(command.as_bytes()).unwrap();
        assert_eq!(client.recv(100).unwrap(), b"half");
        let _report = server.handle().drain(Duration::from_secs(1)).unwrap();
        let (got, end) = rest(&client);
        assert_eq!(got, b"");
        assert!(end.is_err(), "a close_notify was sent");
    }
}

#[track_caller]
fn an_idle_connection_ends_with_close_notify<M: MixIn>(builder: impl Fn() -> Builder<Stream<Inet>, M>) {
    let certificates = Certificates::new();
    for version in VERSIONS {
        let server = certificates.serve(builder());
        let client = certificates.client(server.address(), version);
        for _ in 0..2 {
            client.sendall(b"again\n").unwrap();
            assert_eq!(client.recv(100).unwrap(), b"whole");
        }
        let report = server.handle().drain(LIMIT).unwrap();
        assert!(report.aborted.is_empty(), "{report}");
        assert_eq!(rest(&client), (Vec::new(), Ok(())), "{version:?}: {report}");
    }
}

/// An idle client has received complete responses.
#[test]
fn a_drain_ends_an_idle_connection_with_a_close_notify() {
    an_idle_connection_ends_with_close_notify(|| ThreadingTCPServer::builder(|| Obedient));
    an_idle_connection_ends_with_close_notify(|| ThreadPoolTCPServer::builder(|| Obedient).workers(2));
    #[cfg(unix)]
    an_idle_connection_ends_with_close_notify(|| SelectorTCPServer::builder(|| Obedient).workers(2));
}

/// Sends as much as possible without blocking. Returns the number of bytes.
struct Filling {
    timeout: Option<Duration>,
    sent: mpsc::Sender<usize>,
}

impl StreamRequestHandler for Filling {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let socket = cx.request.socket();
        socket.settimeout(Duration::ZERO)?;
        let mut sent = 0;
        while let Ok(count) = cx.request.send(&[7; 1 << 16]) {
            sent += count;
        }
        socket.settimeout(self.timeout)?;
        self.sent.send(sent).map_err(io::Error::other)
    }
}

const TIMEOUTS: [Option<Duration>; 3] = [None, Some(LIMIT), Some(Duration::ZERO)];

#[test]
fn all_data_that_a_handler_sent_arrives_whatever_its_timeout() {
    let certificates = Certificates::new();
    for timeout in TIMEOUTS {
        let (sent, has_sent) = mpsc::channel();
        let builder = ThreadingTCPServer::builder(move || Filling { timeout, sent: sent.clone() });
        let server = certificates.serve(builder.linger_timeout(LIMIT));
        let client = certificates.client(server.address(), TLSVersion::TLSv1_3);
        let sent = has_sent.recv_timeout(LIMIT).unwrap();
        let (got, end) = rest(&client);
        assert_eq!((got.len(), end), (sent, Ok(())), "{timeout:?}");
    }
}

/// `linger_timeout` bounds the whole close: the close_notify, the wait and close(2).
#[test]
fn a_client_that_does_not_read_occupies_a_worker_for_linger_timeout() {
    let certificates = Certificates::new();
    for timeout in TIMEOUTS {
        let (sent, has_sent) = mpsc::channel();
        let builder = ThreadPoolTCPServer::builder(move || Filling { timeout, sent: sent.clone() });
        let server = certificates.serve(builder.workers(1).linger_timeout(Duration::from_millis(100)));
        let bad = certificates.client(server.address(), TLSVersion::TLSv1_3);
        has_sent.recv_timeout(LIMIT).unwrap();
        let begin = Instant::now();
        // The only worker serves it after the first client.
        let next = certificates.client(server.address(), TLSVersion::TLSv1_3);
        // A close_notify without a limit of the server waits for five seconds.
        assert!(begin.elapsed() < Duration::from_secs(5), "{timeout:?}: {:?}", begin.elapsed());
        drop((bad, next));
    }
}

/// The handler has returned, and its worker is in the lingering close.
#[test]
fn a_drain_ends_a_lingering_close() {
    let certificates = Certificates::new();
    for is_tls in [true, false] {
        let (sent, has_sent) = mpsc::channel();
        let filling = move || Filling { timeout: None, sent: sent.clone() };
        let builder = ThreadingTCPServer::builder(filling).linger_timeout(LIMIT);
        let server = match is_tls {
            true => certificates.serve(builder),
            false => testing::serve(builder.bind(LOOPBACK).unwrap()),
        };
        let client: Box<dyn StreamSocket> = match is_tls {
            true => Box::new(certificates.client(server.address(), TLSVersion::TLSv1_3)),
            false => Box::new(connect_to(server.address())),
        };
        has_sent.recv_timeout(LIMIT).unwrap();
        let report = server.handle().drain(Duration::from_millis(500)).unwrap();
        assert_eq!((report.aborted.len(), report.still_running), (1, 0), "{report}");
        drop(client);
    }
}

fn command(program: &str, arguments: &[&str], input: &[u8]) -> Option<(String, String)> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        let required = std::env::var_os("SOCK_REQUIRE_PEERS").is_some_and(|value| value == "1");
        assert!(!required, "SOCK_REQUIRE_PEERS=1 is set, but {program} is not on PATH");
        eprintln!("{program} is not on PATH: SKIPPED");
        return None;
    };
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((text(&output.stdout), text(&output.stderr)))
}

#[test]
fn python_and_openssl_detect_an_incomplete_response() {
    const CLIENT: &str = r#"
import socket, ssl, sys
port, cafile, line = sys.argv[1:]
context = ssl.create_default_context(cafile=cafile)
sock = socket.create_connection(("127.0.0.1", int(port)), 20)
client = context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)
client.sendall(line.encode() + b"\n")
try:
    while data := client.recv(100):
        print(data.decode())
    print("close_notify")
except ssl.SSLEOFError:
    print("cut")
"#;
    let certificates = Certificates::new();
    let server = certificates.serve(ThreadingTCPServer::builder(|| Obedient));
    let (port, file) = (server.address().port().unwrap().to_string(), certificates.file());
    let file = file.to_str().unwrap();
    let python = std::env::var("SOCK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    for (line, answer, python_says) in [("whole", "whole", "close_notify"), ("fail", "half", "cut")] {
        if let Some((output, error)) = command(&python, &["-c", CLIENT, &port, file, line], b"") {
            assert_eq!(output, format!("{answer}\n{python_says}\n"), "{error}");
        }
        let address = format!("127.0.0.1:{port}");
        let arguments = ["s_client", "-connect", &address, "-CAfile", file, "-quiet", "-ign_eof"];
        if let Some((output, error)) = command("openssl", &arguments, format!("{line}\n").as_bytes()) {
            assert_eq!(output, answer, "{error}");
            assert_eq!(error.contains("unexpected eof while reading"), line == "fail", "{error}");
        }
    }
}
