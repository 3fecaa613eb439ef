//! The promise: `--help` prints the usage, and an error is a sentence with the address.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sock::{AF_INET, SOCK_DGRAM, SOCK_STREAM, Socket};

use crate::PROGRAMS;
use crate::program::{self, ANY_PORT, Directory, Language, Program, languages};

#[test]
fn help_prints_the_usage_on_standard_output() {
    for (name, arguments) in PROGRAMS {
        for &language in languages() {
            // Also after other arguments.
            let cases = [vec!["--help"], vec!["-h"], vec!["127.0.0.1", "--help"]];
            // Started at the same time, because the start takes most of the time.
            for program in cases.map(|words| Program::start(language, name, &words)) {
                let output = program.finish();
                let (usage, defaults) = output.split_once('\n').expect("two lines");
                assert_eq!(usage, format!("usage: {name} {arguments}"), "{language:?}");
                let defaults = defaults.strip_prefix("defaults: ").expect("the defaults");
                assert_eq!(
                    defaults.split(' ').count(),
                    arguments.matches('[').count(),
                    "{name}: {defaults}"
                );
            }
        }
    }
}

/// Runs a Rust program that fails, and checks that it prints one line that contains `subject`.
fn fails(name: &str, arguments: &[&str], subject: &str) {
    let mut program = Program::start(Language::Rust, name, arguments);
    // It connects after the first line of input.
    if name == "wrote_client" {
        program.answer("Ada");
    }
    let (output, error) = program.finish_with(1);
    let context = format!("{name} {arguments:?} printed {output:?} and {error:?}");
    assert!(error.contains(subject), "no {subject:?}: {context}");
    assert!(error.ends_with('\n') && error.matches('\n').count() == 1, "not one line: {context}");
    for word in ["kind:", "Custom", "Os {", "panicked"] {
        assert!(!error.contains(word), "{word:?}: {context}");
    }
}

/// No server can bind an address that is bound without `SO_REUSEADDR`, and as long as it does not
/// listen no client can connect to it.
#[test]
fn an_address_that_cannot_be_used_is_named() {
    let bound = |kind| {
        let sock = Socket::new(AF_INET, kind, 0).expect("a socket");
        sock.bind(("127.0.0.1", 0)).expect("bind");
        let port = sock.getsockname().expect("its address").port().expect("a port").to_string();
        (sock, port)
    };
    let (_tcp, tcp) = bound(SOCK_STREAM);
    let (_udp, udp) = bound(SOCK_DGRAM);
    let directory = Directory::new("errors");
    let path = directory.join("taken");
    let path = path.to_str().expect("UTF-8");
    fs::write(path, "not a socket").expect("write");
    let certificates = directory.join("certs");
    let certificates = certificates.to_str().expect("UTF-8");
    Program::start(Language::Rust, "make_ca", &[certificates]).finish();

    for (name, arguments) in PROGRAMS {
        if arguments.contains("[PATH]") {
            fails(name, &[path], path);
            continue;
        }
        // The address is bound by a datagram socket, which can receive and does not answer.
        let port = if name.starts_with("udp") { &udp } else { &tcp };
        let mut words = vec!["127.0.0.1", port];
        if arguments.contains("CERTS") {
            words.push(certificates);
        }
        if arguments.contains("FILE") {
            words.push(path);
        }
        fails(name, &words, &format!("127.0.0.1:{port}"));
    }
}

#[test]
fn a_missing_certificate_is_named() {
    for (name, arguments) in PROGRAMS {
        if arguments.contains("CERTS") {
            fails(name, &["127.0.0.1", "0", "no such directory"], "no such directory");
        }
    }
    assert!(!Path::new("no such directory").exists());
}

/// Checks that a Rust program prints one line about its output, and exits with code 1.
fn reports_its_output(name: &str, status: ExitStatus, error: &str) {
    let expected = format!("{name}: cannot print to stdout: ");
    assert!(error.starts_with(&expected) && error.matches('\n').count() == 1, "{name} printed {error:?}");
    assert_eq!(status.code(), Some(1), "{name}");
}

#[test]
fn a_full_disk_behind_the_output_is_an_error() {
    let run = |name: &str, arguments: &[&str]| -> Output {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        Command::new(program::example(name))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(full)
            .env_remove("RUST_LOG")
            .output()
            .expect("start")
    };
    let server = Socket::new(AF_INET, SOCK_STREAM, 0).expect("a socket");
    server.bind(("127.0.0.1", 0)).and_then(|()| server.listen(None)).expect("listen");
    let port = server.getsockname().expect("its address").port().expect("a port").to_string();
    let mut cases: Vec<_> = PROGRAMS.iter().map(|(name, _)| (*name, vec!["--help"])).collect();
    cases.extend(["echo_tcp", "echo_pool", "echo_prefork", "udp"].map(|name| (name, ANY_PORT.to_vec())));
    // A prompt, and the end of its input.
    cases.extend(["talk_client", "wrote_client"].map(|name| (name, vec!["127.0.0.1", port.as_str()])));
    for (name, arguments) in cases {
        let output = run(name, &arguments);
        reports_its_output(name, output.status, &String::from_utf8_lossy(&output.stderr));
    }
}

/// Starts a server, and closes the reader of its output when it listens. Returns its address too.
fn without_reader(name: &str, arguments: &[&str]) -> (Child, (String, u16)) {
    let mut child = Command::new(program::example(name))
        .args(ANY_PORT)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("RUST_LOG")
        .spawn()
        .expect("start");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let address =
        lines.find_map(|line| Some(line.expect("a line").strip_prefix("listening on ")?.to_owned()));
    let address = address.expect("an address");
    let (host, port) = address.rsplit_once(':').expect("a port");
    (child, (host.to_owned(), port.parse().expect("a number")))
}

fn get(address: &(String, u16), path: &str) -> String {
    let client = sock::create_connection((address.0.as_str(), address.1)).expect("connect");
    client.settimeout(program::LIMIT).expect("settimeout");
    client.sendall(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("sendall");
    let mut answer = Vec::new();
    loop {
        match client.recv(4096) {
            Ok(part) if !part.is_empty() => answer.extend(part),
            // A server that ends may reset the connection.
            _ => return String::from_utf8_lossy(&answer).into_owned(),
        }
    }
}

/// The end of a child process, and what it has written to standard error.
fn end_of(mut child: Child) -> (ExitStatus, String) {
    let deadline = Instant::now() + program::LIMIT;
    while child.try_wait().expect("wait").is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    // One that has not ended fails the test by its status.
    let _ = child.kill();
    let status = child.wait().expect("wait");
    let mut error = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut error).expect("its standard error");
    (status, error)
}

#[test]
fn a_server_whose_reader_has_gone_ends_at_its_next_line() {
    for model in ["tcp", "threading", "pool", "selector"] {
        let (child, address) = without_reader("http_page", &[model]);
        get(&address, "/");
        let (status, error) = end_of(child);
        reports_its_output("http_page", status, &error);
    }
}

#[test]
fn the_service_goes_on_without_a_reader_of_its_output() {
    for model in ["tcp", "threading", "forking", "pool", "prefork", "selector"] {
        let (child, address) = without_reader("service", &[model, "0"]);
        assert!(get(&address, "/ready").starts_with("HTTP/1.1 200 OK"), "{model}");
        // Both print a line.
        for signal in ["HUP", "TERM"] {
            let status = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
            assert!(status.is_ok_and(|status| status.success()), "kill -s {signal}");
            if signal == "HUP" {
                assert!(get(&address, "/live").starts_with("HTTP/1.1 200 OK"), "{model}");
            }
        }
        let (status, error) = end_of(child);
        assert!(status.success() && error.is_empty(), "{model}: {status}, {error:?}");
    }
}
