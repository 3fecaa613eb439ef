//! Runs the programs with TLS with their Python twins, and with other peers: `openssl s_client` and
//! `s_server`, `gnutls-cli`, `curl`.
//!
//! A peer that is not installed is skipped with a message. With `SOCK_REQUIRE_PEERS=1` that is a
//! failure.

#![cfg(unix)]

// `interop.rs` uses parts of these modules that this test does not.
#[allow(dead_code)]
#[path = "interop/program.rs"]
mod program;
#[path = "interop/rfc9112.rs"]
mod rfc9112;
#[path = "interop/transcript.rs"]
mod transcript;

use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use program::{Directory, Language, Program, Terminal, languages, print_uncaptured};
use sockssl::{PROTOCOL_TLS_CLIENT, SSLContext, SSLError, TLSVersion};

/// Creates certificates with `make_ca` of this language.
fn certificates(language: Language, name: &str) -> Directory {
    let directory = Directory::new(name);
    let output = Program::start(language, "make_ca", &[directory.join("")]).finish();
    assert_eq!(
        directory.hide(&output),
        "DIR/server.pem: localhost\nDIR/client.pem: ada\nauthority to trust: DIR/ca.pem\n"
    );
    directory
}

fn server(language: Language, name: &str, directory: &Directory) -> Program {
    Program::start(language, name, &["127.0.0.1".into(), "0".into(), directory.join("")])
}

fn client(language: Language, address: &[String; 2], directory: &Directory) -> Program {
    let [host, port] = address;
    Program::start(language, "tls_client", &[host.into(), port.into(), directory.join("")])
}

fn pairings(converse: impl Fn(Language, Language)) {
    for &server in languages() {
        for &client in languages() {
            println!("{server:?} server, {client:?} client");
            converse(server, client);
        }
    }
}

const ECHOED: &str =
    "connected with TLSv1.3 to localhost\nanswer: Hello, world!\n0 bytes after the shutdown\n";

#[test]
fn tls_by_hand() {
    pairings(|server_language, client_language| {
        let directory = certificates(client_language, "tls_by_hand");
        let mut server = server(server_language, "tls_by_hand", &directory);
        let client = client(client_language, &server.address(), &directory);
        assert_eq!(client.finish(), ECHOED);
        assert_eq!(
            server.finish(),
            "listening on 127.0.0.1:SERVER\n\
             127.0.0.1:PORT connected with TLSv1.3\n\
             got: Hello, world!\n"
        );
    });
}

#[test]
fn echo_tls() {
    let expected = "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT connected with TLSv1.3\n";
    pairings(|server_language, client_language| {
        let directory = certificates(server_language, "echo_tls");
        let mut server = server(server_language, "echo_tls", &directory);
        assert_eq!(client(client_language, &server.address(), &directory).finish(), ECHOED);
        assert_eq!(server.stop_after(expected), expected);
    });
}

#[test]
fn chat_tls() {
    for &language in languages() {
        let directory = certificates(language, "chat_tls");
        let mut server = server(language, "chat_tls", &directory);
        let [host, port] = server.address();
        let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
        context.load_verify_locations(directory.join("ca.pem")).expect("the authority");
        let enter = |server: &mut Program, name: &str| {
            let sock = sock::create_connection((&host[..], &port[..])).expect("connect");
            sock.settimeout(20).expect("settimeout");
            let client = context.wrap_socket_client(sock, "localhost").expect("handshake");
            client.sendall(format!("{name}\n").as_bytes()).expect("sendall");
            server.expect(&format!("{name} joins\n"));
            client
        };
        let ann = enter(&mut server, "ann");
        let bob = enter(&mut server, "bob");
        let (mut to_ann, mut to_bob) = (ann.makefile_rb(), bob.makefile_rb());
        assert_eq!(to_ann.readline(100).expect("a line"), b"* bob joined\n");
        ann.sendall(b"hello\nall\n").expect("sendall");
        assert_eq!(to_bob.readline(100).expect("a line"), b"ann: hello\n");
        assert_eq!(to_bob.readline(100).expect("a line"), b"ann: all\n");
        drop(to_bob);
        drop(bob);
        assert_eq!(to_ann.readline(100).expect("a line"), b"* bob left\n");
        server.expect("bob leaves\n");
    }
}

#[test]
fn mtls_whoami() {
    let expected = "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT is ada, certified by Example CA\n";
    pairings(|server_language, client_language| {
        let directory = certificates(server_language, "mtls_whoami");
        let mut server = server(server_language, "mtls_whoami", &directory);
        let answer = client(client_language, &server.address(), &directory).finish();
        assert_eq!(answer, ECHOED.replace("Hello, world!", "you are ada, certified by Example CA"));
        assert_eq!(server.stop_after(expected), expected);
    });
}

#[test]
fn a_client_reports_the_server_that_it_does_not_trust() {
    let (ours, theirs) = (certificates(Language::Rust, "ours"), certificates(Language::Rust, "theirs"));
    let mut server = server(Language::Rust, "echo_tls", &theirs);
    let address = server.address();
    let (output, error) = client(Language::Rust, &address, &ours).finish_with(1);
    assert_eq!(output, "");
    for word in ["(localhost)", "certificate verify failed", "CN=localhost", "CN=Example CA", &address[1]] {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
    server.expect("alert ");
}

#[test]
fn sighup_loads_the_new_certificate_or_keeps_the_old() {
    let directory = certificates(Language::Rust, "sighup");
    let mut server = server(Language::Rust, "echo_tls", &directory);
    let address = server.address();
    let echoes = || assert_eq!(client(Language::Rust, &address, &directory).finish(), ECHOED);
    echoes();
    let path = |name: &str| directory.join(name);
    let old = (std::fs::read(path("server.pem")).unwrap(), std::fs::read(path("server.key")).unwrap());

    // The key does not match: the old certificate is kept, and the error names the file.
    std::fs::write(path("server.key"), "broken").unwrap();
    server.signal("HUP");
    let complaint = server.line_after("certificates kept: ");
    assert!(complaint.contains("server.key: no private key found"), "{complaint}");
    echoes();

    // A new authority: a client that trusts only that one connects again.
    Program::start(Language::Rust, "make_ca", &[path("")]).finish();
    let refused = client(Language::Rust, &address, &directory).finish_with(1).1;
    assert!(refused.contains("certificate verify failed"), "{refused}");
    server.signal("HUP");
    server.expect("certificates reloaded\n");
    echoes();
    assert_ne!(std::fs::read(path("server.pem")).unwrap(), old.0);
}

/// F25: clients that connect and send nothing delay no other client.
#[test]
fn hundreds_of_stalled_handshakes_do_not_delay_another_client() {
    let directory = certificates(Language::Rust, "stalled");
    let mut server = server(Language::Rust, "echo_tls", &directory);
    let address = server.address();
    let port: u16 = address[1].parse().unwrap();
    let begin = Instant::now();
    let stalled: Vec<_> = (0..300)
        .map(|number| {
            let sock = sock::create_connection(("127.0.0.1", port)).expect("connect");
            // Some send a part of a ClientHello.
            sock.sendall(&[22, 3, 1, 2, 0, 1][..number % 7]).expect("sendall");
            sock
        })
        .collect();
    for _ in 0..3 {
        assert_eq!(client(Language::Rust, &address, &directory).finish(), ECHOED);
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    // Each is closed at the deadline of ten seconds.
    for sock in stalled {
        sock.settimeout(Duration::from_secs(30)).unwrap();
        assert_eq!(sock.recv(100).unwrap_or_default(), b"");
    }
    assert!(begin.elapsed() >= Duration::from_secs(9), "{:?}", begin.elapsed());
}

/// Returns whether a program is installed.
fn is_installed(peer: &str) -> bool {
    if Command::new(peer).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
        return true;
    }
    let required = env::var_os("SOCK_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "SOCK_REQUIRE_PEERS=1 is set, but {peer} is not on PATH");
    print_uncaptured(&format!("{peer} is not on PATH: SKIPPED"));
    false
}

/// Runs a client that sends one line. Returns its output. It has 30 seconds.
fn one_line(command: &mut Command, expected: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut input = child.stdin.take().expect("piped");
    let mut output = child.stdout.take().expect("piped");
    let mut errors = child.stderr.take().expect("piped");
    input.write_all(b"a line\n").expect("write");
    let complaint = thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let guard = KillAfter::start(child.id());
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&seen).contains(expected) {
        match output.read(&mut piece).expect("read") {
            0 => break,
            count => seen.extend(&piece[..count]),
        }
    }
    drop(input);
    let _ = child.kill();
    let _ = child.wait();
    drop(guard);
    let text = String::from_utf8_lossy(&seen).into_owned();
    let complaint = complaint.join().unwrap_or_default();
    assert!(text.contains(expected), "{command:?}: no {expected:?} in\n{text}\n{complaint}");
    text + &complaint
}

/// Kills a program that takes too long.
struct KillAfter(#[allow(dead_code)] std::sync::mpsc::Sender<()>);

impl KillAfter {
    fn start(id: u32) -> KillAfter {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        thread::spawn(move || {
            if receiver.recv_timeout(program::LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").arg(id.to_string()).status();
            }
        });
        KillAfter(sender)
    }
}

#[test]
fn openssl_and_gnutls_are_served_in_both_versions() {
    let directory = certificates(Language::Rust, "peers");
    let mut server = server(Language::Rust, "mtls_whoami", &directory);
    let [_, port] = server.address();
    let file = |name: &str| directory.join(name);
    for version in ["-tls1_2", "-tls1_3"] {
        if is_installed("openssl") {
            let mut command = Command::new("openssl");
            command
                .args([
                    "s_client",
                    version,
                    "-quiet",
                    "-verify_return_error",
                    "-verify_hostname",
                    "localhost",
                ])
                .args(["-servername", "localhost", "-connect", &format!("127.0.0.1:{port}")])
                .args::<_, OsString>(["-CAfile".into(), file("ca.pem")])
                .args::<_, OsString>([
                    "-cert".into(),
                    file("client.pem"),
                    "-key".into(),
                    file("client.key"),
                ]);
            one_line(&mut command, "you are ada, certified by Example CA");
        }
        if is_installed("gnutls-cli") {
            let priority = if version == "-tls1_2" {
                "NORMAL:-VERS-ALL:+VERS-TLS1.2"
            } else {
                "NORMAL:-VERS-ALL:+VERS-TLS1.3"
            };
            let mut command = Command::new("gnutls-cli");
            command
                .args(["--port", &port, "--sni-hostname", "localhost", "--verify-hostname", "localhost"])
                .args(["--priority", priority])
                .arg(format!("--x509cafile={}", Path::new(&file("ca.pem")).display()))
                .arg(format!("--x509certfile={}", Path::new(&file("client.pem")).display()))
                .arg(format!("--x509keyfile={}", Path::new(&file("client.key")).display()))
                .arg("127.0.0.1");
            one_line(&mut command, "you are ada, certified by Example CA");
        }
    }
    if is_installed("openssl") {
        // Without a certificate, and with an old version: refused with the correct alert.
        for (words, alert) in [
            (&["-tls1_3"][..], "alert certificate required"),
            (&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"][..], "alert protocol version"),
        ] {
            let output = Command::new("openssl")
                .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
                .args(words)
                .stdin(Stdio::piped())
                .output()
                .expect("openssl");
            let text = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            // It exits at once, and may not have received the alert of TLS 1.3.
            assert!(text.contains(alert) || words == ["-tls1_3"], "no {alert:?} in\n{text}");
        }
    }
}

#[test]
fn openssls_server_is_used_in_both_versions() {
    if !is_installed("openssl") {
        return;
    }
    let directory = certificates(Language::Rust, "s_server");
    for (version, flag) in [(TLSVersion::TLSv1_2, "-tls1_2"), (TLSVersion::TLSv1_3, "-tls1_3")] {
        let mut command = Command::new("openssl");
        command
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-rev",
                flag,
                "-Verify",
                "1",
                "-verify_return_error",
            ])
            .args::<_, OsString>([
                "-cert".into(),
                directory.join("server.pem"),
                "-key".into(),
                directory.join("server.key"),
            ])
            .args::<_, OsString>(["-CAfile".into(), directory.join("ca.pem")]);
        let mut server = Program::spawn(Terminal::Pipe, command, "s_server".into(), String::new());
        let address = server.line_after("ACCEPT ");
        let port: u16 = address.rsplit(':').next().unwrap().parse().expect("a port");
        let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
        context.load_verify_locations(directory.join("ca.pem")).unwrap();
        context.load_cert_chain(directory.join("client.pem"), directory.join("client.key")).unwrap();
        for reused in [false, true] {
            let sock = sock::create_connection(("127.0.0.1", port)).unwrap();
            sock.settimeout(program::LIMIT).unwrap();
            let sock = context.wrap_socket_client(sock, "localhost").unwrap();
            sock.sendall(b"level\nreversed\n").unwrap();
            let mut got = Vec::new();
            while got.len() < 15 {
                got.extend(sock.recv(100).unwrap());
            }
            assert_eq!(got, b"level\ndesrever\n");
            assert_eq!(
                (sock.version(), sock.session_reused()),
                (Some(["TLSv1.2", "TLSv1.3"][usize::from(version == TLSVersion::TLSv1_3)]), reused)
            );
            sock.close().unwrap();
        }
    }
}

#[test]
fn curl_fetches_the_page_and_plain_http_is_an_error() {
    if !is_installed("curl") {
        return;
    }
    for &language in languages() {
        let directory = certificates(language, "curl");
        let mut server = server(language, "https_page", &directory);
        let address = server.listening_on();
        let curl = |arguments: &[&str], url: &str| {
            Command::new("curl")
                .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--cacert"])
                .arg(directory.join("ca.pem"))
                .args(arguments)
                .arg(url)
                .output()
                .expect("curl")
        };
        for version in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"], &["--head"]] {
            let page = curl(version, &format!("https://{address}/"));
            assert!(page.status.success(), "{page:?}");
            let body = String::from_utf8_lossy(&page.stdout).into_owned();
            assert!(body.contains("over TLS!") || version == ["--head"], "{body}");
        }
        assert!(!curl(&[], &format!("http://{address}/")).status.success());
        if language == Language::Rust {
            let complaint = server.line_after("TLS handshake with 127.0.0.1:");
            assert!(
                complaint.ends_with("the client sent a plain HTTP request to a TLS port (use https://)"),
                "{complaint}"
            );
        }
    }
}

/// It answers one request of a connection, and always with the page.
#[test]
fn https_page_takes_no_body_for_a_request() {
    for &language in languages() {
        let directory = certificates(language, "rfc9112");
        let mut server = server(language, "https_page", &directory);
        let port: u16 = server.address()[1].parse().unwrap();
        let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
        context.load_verify_locations(directory.join("ca.pem")).unwrap();
        for (asked, _) in rfc9112::REQUESTS {
            let sock = sock::create_connection(("127.0.0.1", port)).unwrap();
            sock.settimeout(program::LIMIT).unwrap();
            let client = context.wrap_socket_client(sock, "localhost").unwrap();
            client.sendall(asked.as_bytes()).unwrap();
            let mut answer = Vec::new();
            loop {
                let data = client.recv(65536).unwrap();
                if data.is_empty() {
                    break;
                }
                answer.extend(data);
            }
            let answer = String::from_utf8(answer).unwrap();
            assert_eq!(rfc9112::statuses(asked, &answer), [200], "{language:?}: {asked:?}: {answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        }
    }
}

/// The handler is not called for a client whose handshake failed.
#[test]
fn refused_clients_never_reach_the_handler() {
    let directory = certificates(Language::Rust, "refused");
    let stranger = certificates(Language::Rust, "stranger");
    let mut server = server(Language::Rust, "mtls_whoami", &directory);
    let address = server.address();
    // A certificate of an authority that the server does not know.
    let context = SSLContext::new(PROTOCOL_TLS_CLIENT);
    context.load_verify_locations(directory.join("ca.pem")).unwrap();
    context.load_cert_chain(stranger.join("client.pem"), stranger.join("client.key")).unwrap();
    let port: u16 = address[1].parse().unwrap();
    let sock = sock::create_connection(("127.0.0.1", port)).unwrap();
    sock.settimeout(program::LIMIT).unwrap();
    let error = context.wrap_socket_client(sock, "localhost").and_then(|sock| sock.recv(10)).unwrap_err();
    assert!(
        SSLError::of(&error).is_some_and(|ssl| ssl.reason().to_string() == "ALERT unknown_ca"),
        "{error}"
    );
    server.expect("certificate verify failed: ");
    assert_eq!(client(Language::Rust, &address, &directory).finish().lines().count(), 3);
    let expected = "three\nlines\nare";
    let output = server.stop_after(expected);
    assert_eq!(output.matches(" is ada").count(), 1, "{output}");
}
