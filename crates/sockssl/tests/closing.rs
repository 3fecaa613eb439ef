//! The promise: data that `sendall` has reported as sent arrives, however the connection is
//! closed, unless the peer resets it; and a close blocks for a limited time.

mod support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sock::{Linger, POLLIN, Poll, SHUT_RD, SHUT_RDWR, SHUT_WR, StreamSocket};
use sockssl::{SSLSocket, TLSVersion};
use support::{LIMIT, Pki, join, leave_out, wrapped};

const SIZE: usize = 3 << 20;

/// A reader that gets no signal starts after this time. The writer may be waiting for it then.
const START_DELAY: Duration = Duration::from_millis(300);

fn data() -> Vec<u8> {
    (0..SIZE).map(|at| (at / 7) as u8).collect()
}

/// Receives everything, and the result at the end.
fn all(stream: &SSLSocket) -> (Vec<u8>, io::Result<()>) {
    let mut got = Vec::new();
    loop {
        match stream.recv(1 << 16) {
            Ok(data) if data.is_empty() => return (got, Ok(())),
            Ok(data) => got.extend(data),
            Err(error) => return (got, Err(error)),
        }
    }
}

/// Waits until there is unread input.
fn await_input(stream: &SSLSocket) {
    let mut set = [Poll::new(stream.socket(), POLLIN)];
    assert_eq!(sock::poll(&mut set, Some(LIMIT)).unwrap(), 1);
}

#[test]
fn a_close_notify_is_sent_to_a_peer_that_sent_none() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    client.socket().shutdown(SHUT_WR).unwrap();
    assert_eq!(all(&server).1.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    server.close().unwrap();
    all(&client).1.unwrap();
}

/// The peer reads only after a signal, or after a delay.
#[test]
fn everything_arrives_at_python_and_openssl() {
    const PYTHON: &str = r#"
import select, socket, ssl, sys
certificate, key = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(20)
print(listener.getsockname()[1], flush=True)
sock, _ = listener.accept()
sock.settimeout(20)
peer = context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
select.select([sys.stdin], [], [], 0.3)
length = 0
while data := peer.recv(1 << 16):
    length += len(data)
print(length, flush=True)
"#;
    let pki = Pki::new();
    let data = data();
    let program = std::env::var("SOCK_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let python = Command::new(&program)
        .args(["-c", PYTHON])
        .args([pki.path("server.pem"), pki.path("server.key")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    match python {
        Err(_) => leave_out(&program, "SOCK_REQUIRE_PYTHON"),
        Ok(mut python) => {
            let mut lines = BufReader::new(python.stdout.take().unwrap()).lines();
            let port: u16 = lines.next().unwrap().unwrap().parse().unwrap();
            let sock = sock::create_connection(("127.0.0.1", port)).unwrap();
            let client = pki.client().wrap_socket_client(sock, "localhost").unwrap();
            await_input(&client);
            client.sendall(&data).unwrap();
            client.close().unwrap();
            let _ = writeln!(python.stdin.take().unwrap());
            assert_eq!(lines.next().unwrap().unwrap(), data.len().to_string());
            assert!(python.wait().unwrap().success());
        }
    }

    let openssl = Command::new("openssl")
        .args(["s_server", "-naccept", "1", "-accept", "127.0.0.1:0", "-cert"])
        .arg(pki.path("server.pem"))
        .arg("-key")
        .arg(pki.path("server.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut openssl) = openssl else {
        return leave_out("openssl", "SOCK_REQUIRE_PEERS");
    };
    // It prints `ACCEPT 127.0.0.1:PORT`, and the received data among other lines.
    let mut output = BufReader::new(openssl.stdout.take().unwrap());
    let port = loop {
        let mut line = String::new();
        assert!(output.read_line(&mut line).unwrap() > 0, "openssl s_server does not accept");
        if let Some(port) = line.strip_prefix("ACCEPT 127.0.0.1:") {
            break port.trim().parse::<u16>().unwrap();
        }
    };
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        output.read_to_end(&mut received).map(|_| received)
    });
    let sock = sock::create_connection(("127.0.0.1", port)).unwrap();
    let client = pki.client().wrap_socket_client(sock, "localhost").unwrap();
    await_input(&client);
    client.sendall(&data).unwrap();
    client.close().unwrap();
    // openssl stops reading at the end of its standard input.
    let stdin = openssl.stdin.take();
    openssl.wait().unwrap();
    drop(stdin);
    let received = join(reader).unwrap();
    assert!(received.windows(data.len()).any(|window| window == data), "{} bytes", received.len());
}

type End = fn(SSLSocket) -> io::Result<()>;

const ENDS: [(&str, End); 6] = [
    ("close", SSLSocket::close),
    ("drop", |stream| {
        drop(stream);
        Ok(())
    }),
    ("half close", |stream| {
        stream.shutdown(SHUT_WR)?;
        stream.close()
    }),
    ("receiving half closed", |stream| {
        stream.shutdown(SHUT_RD)?;
        stream.close()
    }),
    ("shutdown", |stream| {
        stream.shutdown(SHUT_RDWR)?;
        stream.close()
    }),
    ("blocking", |stream| {
        stream.socket().settimeout(None)?;
        stream.close()
    }),
];

/// One side sends while it has unread input: session tickets of a TLS 1.3 server, or data. The
/// other side reads only after the close.
#[test]
fn everything_arrives_after_a_close_with_unread_input() {
    let pki = Pki::new();
    let data = data();
    for version in [TLSVersion::TLSv1_3, TLSVersion::TLSv1_2] {
        for server_sends in [false, true] {
            for (name, end) in ENDS {
                let client = pki.client();
                client.set_maximum_version(version);
                let (server, client) = wrapped(&pki.server(), &client);
                let (sender, reader) = if server_sends { (server, client) } else { (client, server) };
                if server_sends || version == TLSVersion::TLSv1_2 {
                    reader.sendall(b"unread").unwrap();
                }
                await_input(&sender);
                let (closed, signal) = mpsc::channel();
                let thread = thread::spawn(move || {
                    let _ = signal.recv_timeout(START_DELAY);
                    // Input that arrives after close(2) would reset the connection.
                    let _ = reader.sendall(b"late");
                    all(&reader)
                });
                sender.sendall(&data).unwrap();
                end(sender).unwrap();
                let _ = closed.send(());
                let (got, ended) = join(thread);
                let case = format!("{version:?}, {name}, server sends: {server_sends}");
                assert_eq!(got.len(), data.len(), "{case}: {ended:?}");
                assert!(got == data, "{case}");
                ended.unwrap_or_else(|error| panic!("{case}: {error}"));
            }
        }
    }
}

/// The peer is still sending when the connection is closed, and reads only afterwards.
#[test]
fn everything_arrives_while_the_peer_is_still_sending() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    // This does not fit into the buffers, so the close_notify has to wait.
    let answer = data().repeat(8);
    let expected = answer.clone();
    let (begun, begins) = mpsc::channel();
    let thread = thread::spawn(move || {
        client.sendall(&[7; 1 << 16]).unwrap();
        begun.send(()).unwrap();
        let sent = client.sendall(&vec![7; 24 << 20]);
        (sent, all(&client))
    });
    begins.recv_timeout(LIMIT).unwrap();
    // Fill the buffers while the client reads nothing.
    server.socket().settimeout(Duration::ZERO).unwrap();
    let mut sent = 0;
    while let Ok(count) = server.send(&answer[sent..]) {
        sent += count;
        if sent == answer.len() {
            break;
        }
    }
    assert!(sent < answer.len(), "the buffers have room for everything");
    server.socket().settimeout(LIMIT).unwrap();
    server.close().unwrap();
    let (received, (got, ended)) = join(thread);
    received.unwrap();
    ended.unwrap();
    assert_eq!(got.len(), sent);
    assert!(got == expected[..sent]);
}

#[test]
fn a_close_times_out_if_the_peer_reads_nothing() {
    let pki = Pki::new();
    for (timeout, least, most) in [
        (Some(Duration::from_millis(100)), Duration::from_millis(100), Duration::from_secs(5)),
        (Some(Duration::ZERO), Duration::ZERO, Duration::from_secs(5)),
        (None, Duration::from_secs(5), LIMIT),
    ] {
        let (server, client) = wrapped(&pki.server(), &pki.client());
        client.socket().settimeout(Duration::ZERO).unwrap();
        while client.send(&[7; 1 << 16]).is_ok() {}
        client.socket().settimeout(timeout).unwrap();
        let begin = Instant::now();
        let error = client.close().unwrap_err();
        let took = begin.elapsed();
        let kind = if timeout == Some(Duration::ZERO) {
            io::ErrorKind::WouldBlock
        } else {
            io::ErrorKind::TimedOut
        };
        assert_eq!(error.kind(), kind, "{timeout:?}: {error}");
        assert!((least..most).contains(&took), "{timeout:?}: {took:?}");
        drop(server);
    }
}

#[test]
fn a_close_without_unacknowledged_data_does_not_wait() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    client.sendall(b"question").unwrap();
    assert_eq!(server.recv(100).unwrap(), b"question");
    server.sendall(b"answer").unwrap();
    assert_eq!(client.recv(100).unwrap(), b"answer");
    // The server calls nothing more. Its kernel acknowledges the data.
    let begin = Instant::now();
    client.close().unwrap();
    // A close that waits does so for five seconds.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(all(&server).0, b"");
}

#[test]
fn a_close_after_a_reset_succeeds() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    client.sendall(&[7; 1 << 16]).unwrap();
    server.socket().set_linger(Linger { l_onoff: true, l_linger: 0 }).unwrap();
    drop(server);
    client.close().unwrap();
}

/// The peer must be able to detect that the data is incomplete.
#[test]
fn an_aborted_connection_sends_its_data_and_no_close_notify() {
    let pki = Pki::new();
    for version in [TLSVersion::TLSv1_3, TLSVersion::TLSv1_2] {
        for (name, end) in ENDS {
            let client = pki.client();
            client.set_maximum_version(version);
            let (server, client) = wrapped(&pki.server(), &client);
            server.sendall(b"half").unwrap();
            server.abort();
            end(server).unwrap();
            let (got, ended) = all(&client);
            assert_eq!(got, b"half", "{name}");
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{name}");
        }
    }
}

/// With `?` a socket is dropped after a failed call. The peer must not take a part for the whole.
#[test]
fn a_partial_sendall_prevents_the_close_notify() {
    let pki = Pki::new();
    for timeout in [Duration::from_millis(50), Duration::ZERO] {
        let (server, client) = wrapped(&pki.server(), &pki.client());
        server.socket().settimeout(timeout).unwrap();
        server.sendall(&vec![7; 24 << 20]).unwrap_err();
        server.socket().settimeout(LIMIT).unwrap();
        let thread = thread::spawn(move || all(&client));
        drop(server);
        let (got, ended) = join(thread);
        assert!((1..24 << 20).contains(&got.len()), "{}", got.len());
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{timeout:?}");
    }
}

#[test]
fn a_sendall_that_sent_nothing_can_be_repeated() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    server.socket().settimeout(Duration::ZERO).unwrap();
    let mut sent = 0;
    while let Ok(count) = server.send(&[7; 1 << 16]) {
        sent += count;
    }
    assert_eq!(server.sendall(b"end").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    server.socket().settimeout(LIMIT).unwrap();
    let thread = thread::spawn(move || all(&client));
    server.sendall(b"end").unwrap();
    server.close().unwrap();
    let (got, ended) = join(thread);
    assert_eq!(got.len(), sent + 3);
    ended.unwrap();
}

#[test]
fn a_socket_dropped_by_a_panic_sends_no_close_notify() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    let thread = thread::spawn(move || {
        StreamSocket::sendall(&server, b"half").unwrap();
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    let (got, ended) = all(&client);
    assert_eq!(got, b"half");
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
