//! Tests of one handler in the models that Python does not have.

use std::time::Duration;

use crate::program::{ANY_PORT, Program, languages};

/// Runs a server that echoes lines, and keeps serving after its client has disconnected.
fn echoes(name: &str) {
    for &language in languages() {
        let mut server = Program::start(language, name, &ANY_PORT);
        let [host, port] = server.address();
        let client = sock::create_connection((host.as_str(), port.parse::<u16>().unwrap())).unwrap();
        client.settimeout(Duration::from_secs(30)).unwrap();
        for line in [&b"one\n"[..], b"two\n"] {
            client.sendall(line).unwrap();
            assert_eq!(client.recv(100).unwrap(), line);
        }
        client.shutdown(sock::SHUT_WR).unwrap();
        assert_eq!(client.recv(100).unwrap(), b"");
    }
}

#[test]
fn echo_pool() {
    echoes("echo_pool");
}

#[test]
fn echo_prefork() {
    echoes("echo_prefork");
}

#[test]
fn echo_selector() {
    echoes("echo_selector");
}
