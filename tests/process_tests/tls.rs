//! The promise: TLS works with each class of server. A stalled handshake, garbage and plain HTTP hold
//! their own permit until the deadline and affect no other client. Sessions are resumed whichever
//! thread or process served the first connection. A handler that fails ends its connection without a
//! close_notify. After SIGHUP the workers of a prefork server have the new certificate.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process, test_kill_process};
use sock::Socket;
use sockserver::kind::{Inet, Stream};
use sockserver::{
    Builder, ForkingTCPServer, MixIn, PreforkTCPServer, SelectorTCPServer, ServerHooks, StreamContext,
    StreamRequestHandler, TCPServer, ThreadPoolTCPServer, ThreadingTCPServer,
};
use sockssl::{PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER, SSLContext, SSLSocket, TLSVersion, WrapOptions};

use crate::Test;
use crate::support::{LIMIT, LOOPBACK, connect_from, connect_to, read_to_end, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("tls_in_the_loop", || holds("tls_sequential", 3)),
    ("tls_in_threads", || holds("tls_threading", 200)),
    ("tls_in_a_pool", || holds("tls_pool", 10)),
    ("tls_in_a_selector", || holds("tls_selector", 10)),
    ("tls_in_children", || holds("tls_forking", 30)),
    ("tls_in_preforked_workers", || holds("tls_prefork", 6)),
    ("sighup_replaces_the_certificate_of_a_prefork_server", sighup_replaces_the_certificate),
    #[cfg(target_os = "linux")]
    ("a_kept_tls_request_in_a_selector_makes_two_system_calls", count_calls),
];

/// Servers, each a program that prints its address and serves until it is killed.
pub(crate) const HELPERS: &[Test] = &[
    ("tls_sequential", || serve(TCPServer::builder(|| Echo))),
    ("tls_threading", || serve(ThreadingTCPServer::builder(|| Echo))),
    ("tls_pool", || serve(ThreadPoolTCPServer::builder(|| Echo).workers(4))),
    ("tls_selector", || serve(SelectorTCPServer::builder(|| Echo).workers(4))),
    ("tls_forking", || serve(ForkingTCPServer::builder(|| Echo))),
    ("tls_prefork", || {
        serve(PreforkTCPServer::builder(|| Echo).workers(3).worker_class(crate::worker_class()))
    }),
    ("tls_prefork_reload", || {
        let context = server_context();
        let builder =
            PreforkTCPServer::builder(|| Echo).workers(WORKERS).worker_class(crate::worker_class());
        let builder = builder.hooks(Reload(context.clone())).manage_workers_on_signals();
        serve_with(builder.drain_on_signals(LIMIT), context);
    }),
    ("tls_kept", || serve(SelectorTCPServer::builder(|| Kept).workers(1))),
];

const CERTIFICATES: &str = "SOCK_TEST_CERTIFICATES";

/// The deadline of a handshake that is not finished.
const DEADLINE: Duration = Duration::from_secs(1);

/// Where the clients with that deadline connect from. A complete handshake has no deadline that a busy
/// machine could exceed.
const STALLED: &str = "127.0.0.2";

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

fn server_context() -> SSLContext {
    let directory =
        PathBuf::from(std::env::var_os(CERTIFICATES).expect("the directory of certificates is set"));
    let context = SSLContext::new(PROTOCOL_TLS_SERVER);
    context.load_cert_chain(directory.join("cert.pem"), directory.join("key.pem")).unwrap();
    context
}

fn serve<M: MixIn>(builder: Builder<Stream<Inet>, M>) {
    serve_with(builder, server_context());
}

fn serve_with<M: MixIn>(builder: Builder<Stream<Inet>, M>, context: SSLContext) {
    let builder = builder.wrap_request(move |request, client_address| {
        let is_stalled = client_address.ip() == Some(STALLED.parse().unwrap());
        let timeout = if is_stalled { DEADLINE } else { LIMIT };
        context.wrap_socket_server_with(request, &WrapOptions::new().handshake_timeout(timeout))
    });
    let server = builder.bind(LOOPBACK).unwrap();
    println!("{}", server.server_address());
    server.serve_forever().unwrap();
}

/// Starts a helper, as the last arguments of `command`, and returns its address.
fn start(command: Command, class: &str, directory: &Path) -> (Killed, sock::Address) {
    let (server, address, _) = start_with_output(command, class, directory);
    (server, address)
}

/// Does so, and returns the rest of its output too.
fn start_with_output(
    mut command: Command,
    class: &str,
    directory: &Path,
) -> (Killed, sock::Address, io::BufReader<ChildStdout>) {
    certificates(directory);
    let mut server = Killed(
        command
            .args(["--alone", class])
            .env(CERTIFICATES, directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    let mut output = io::BufReader::new(server.0.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let address: std::net::SocketAddr = line.trim().parse().unwrap();
    (server, sock::Address::from(address), output)
}

/// Serves one line for each call. After `quit` the process ends.
struct Kept;

impl StreamRequestHandler for Kept {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let line = cx.rfile.readline(100)?;
        if line == b"quit\n" {
            std::process::exit(0);
        }
        cx.close_connection = line.is_empty();
        cx.wfile.write_all(&line)
    }
}

/// A receive and a send. A wait between two requests is one more call, and not counted.
#[cfg(target_os = "linux")]
fn count_calls() {
    const REQUESTS: usize = 1000;
    if Command::new("strace").arg("-V").output().is_err() {
        let required = std::env::var_os("SOCK_REQUIRE_PEERS").is_some_and(|value| value == "1");
        assert!(!required, "SOCK_REQUIRE_PEERS=1 is set, but strace is not on PATH");
        println!("NOT RUN: strace is not on PATH");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let mut strace = Command::new("strace");
    // Everything that a request might do with a descriptor or a clock, besides waiting.
    strace.args(["-f", "-qq", "-e", "signal=none", "-e", "trace=%network,%desc,ioctl,clock_gettime", "-o"]);
    strace.arg(&trace).arg(std::env::current_exe().unwrap());
    let (mut server, address) = start(strace, "tls_kept", directory.path());
    let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    context.load_verify_locations(directory.path().join("cert.pem")).unwrap();
    let sock = context.wrap_socket_client(connect_to(&address), "localhost").expect("handshake");
    let mut answer = [0; 5];
    for number in 0..=REQUESTS {
        sock.sendall(b"line\n").unwrap();
        sock.makefile_rb().read_exact(&mut answer).unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    sock.sendall(b"quit\n").unwrap();
    server.0.wait().unwrap();

    let trace = fs::read_to_string(trace).unwrap();
    // A call that another thread interrupts has a second line.
    let counts = |line: &&str| !line.contains("epoll_") && !line.contains(" resumed>");
    let lines: Vec<_> = trace.lines().filter(counts).collect();
    // From the answer of the first request to that of the last one.
    let sends: Vec<_> = lines.iter().enumerate().filter(|(_, line)| line.contains("sendto(")).collect();
    let (first, last) = (sends[sends.len() - 1 - REQUESTS].0, sends[sends.len() - 1].0);
    let calls = last - first;
    // A wake of the selector without input costs one receive more.
    assert!(
        (2 * REQUESTS..2 * REQUESTS + REQUESTS / 10).contains(&calls),
        "{calls}: {:#?}",
        &lines[last - 20..]
    );
}

fn holds(class: &str, stalled: usize) {
    let directory = tempfile::tempdir().unwrap();
    let command = Command::new(std::env::current_exe().unwrap());
    let (mut server, address) = start(command, class, directory.path());

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

/// Reads the certificate again, and prints each worker and each result.
struct Reload(SSLContext);

impl ServerHooks for Reload {
    fn start_worker(&self) -> io::Result<()> {
        println!("worker {}", getpid().as_raw_pid());
        Ok(())
    }

    fn reload(&self) -> io::Result<()> {
        let reloaded = self.0.reload();
        println!("reload {}", reloaded.is_ok());
        reloaded
    }
}

const WORKERS: usize = 3;

fn sighup_replaces_the_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let command = Command::new(std::env::current_exe().unwrap());
    let (server, address, output) = start_with_output(command, "tls_prefork_reload", directory.path());
    let mut lines = output.lines().map(Result::unwrap);
    let worker =
        |line: String| Pid::from_raw(line.strip_prefix("worker ").expect(&line).parse().unwrap()).unwrap();
    let old_workers: Vec<Pid> = lines.by_ref().take(WORKERS).map(worker).collect();
    let old = fs::read(path("cert.pem")).unwrap();
    assert!(has_certificate(&address, &old));

    // Both files replace the old ones, or none does.
    certificates(directory.path());
    let new = fs::read(path("cert.pem")).unwrap();
    let key = fs::read(path("key.pem")).unwrap();
    fs::write(path("key.pem"), "no key").unwrap();
    kill_process(Pid::from_child(&server.0), Signal::HUP).unwrap();
    assert_eq!(lines.next().unwrap(), "reload false");
    for _ in 0..2 * WORKERS {
        assert!(has_certificate(&address, &old) && !has_certificate(&address, &new));
    }

    fs::write(path("key.pem"), key).unwrap();
    kill_process(Pid::from_child(&server.0), Signal::HUP).unwrap();
    assert_eq!(lines.next().unwrap(), "reload true");
    let new_workers: Vec<Pid> = lines.by_ref().take(WORKERS).map(worker).collect();
    assert_eq!(new_workers.len(), WORKERS);
    wait_until("the old workers have exited", || {
        !old_workers.iter().any(|worker| test_kill_process(*worker).is_ok())
    });
    for _ in 0..2 * WORKERS {
        assert!(has_certificate(&address, &new) && !has_certificate(&address, &old));
    }
}

/// Returns whether a new client gets this certificate.
fn has_certificate(address: &sock::Address, certificate: &[u8]) -> bool {
    let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    context.load_verify_data(certificate).unwrap();
    match context.wrap_socket_client(connect_to(address), "localhost") {
        Ok(sock) => {
            sock.sendall(b"line\n").unwrap();
            let mut answer = [0; 5];
            sock.makefile_rb().read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"line\n");
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("certificate verify failed"), "{error}");
            false
        }
    }
}

/// A client that does not finish its handshake.
fn stalled_client(address: &sock::Address, number: usize) -> Socket {
    let sock = connect_from(STALLED, address);
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
