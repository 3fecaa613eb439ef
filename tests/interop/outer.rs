//! Tests of programs for less common calls.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use sock::{AF_INET, SOCK_DGRAM, Socket};

use crate::pairings;
use crate::program::{ANY_PORT, Directory, LIMIT, Program, languages};

#[test]
fn udp_batch() {
    let expected = "listening on 127.0.0.1:SERVER\n127.0.0.1:PORT sent: hello over udp\n";
    pairings(|server, client| {
        let mut server = Program::start(server, "udp_batch", &ANY_PORT);
        let client = Program::start(client, "udp_client", &server.address());
        assert_eq!(client.finish(), "127.0.0.1:SERVER answers: HELLO OVER UDP\n");
        assert_eq!(server.stop_after(expected), expected);
    });
}

/// Each datagram gets its own answer, in whatever batches they are received.
#[test]
fn udp_batch_answers_each_of_many() {
    for &language in languages() {
        let mut server = Program::start(language, "udp_batch", &ANY_PORT);
        let [host, port] = server.address();
        let port: u16 = port.parse().expect("a port");
        let sock = Socket::new(AF_INET, SOCK_DGRAM, 0).expect("socket");
        sock.settimeout(LIMIT).expect("settimeout");
        sock.connect((host, port)).expect("connect");
        let texts: Vec<_> = (0..100).map(|number| format!("datagram {number}")).collect();
        for text in &texts {
            sock.send(text.as_bytes()).expect("send");
        }
        let mut missing: BTreeSet<_> = texts.iter().map(|text| text.to_uppercase().into_bytes()).collect();
        while !missing.is_empty() {
            let answer = sock.recv(100).expect("expected one answer for each request");
            assert!(missing.remove(&answer), "unexpected answer {answer:?}");
        }
    }
}

#[test]
fn tcp_info() {
    pairings(|server, client| {
        let mut server = Program::start(server, "tcp_info", &ANY_PORT);
        let client = Program::start(client, "echo_tcp_client", &server.address());
        assert_eq!(client.finish(), "answer: Hello, world!\n");
        let output = server.finish();
        let (counted, round_trip) =
            output.rsplit_once("round trip: ").expect("no line with the round-trip time");
        let microseconds = round_trip.strip_suffix(" µs\n").expect("a time");
        assert!(microseconds.parse::<u64>().is_ok(), "{round_trip:?}");
        assert_eq!(
            counted,
            "listening on 127.0.0.1:SERVER\n\
             127.0.0.1:PORT connected\n\
             ESTABLISHED: 14 bytes received, 0 unread, 0 segments retransmitted\n\
             CLOSE_WAIT: 15 bytes received, 0 unread, 0 segments retransmitted\n"
        );
    });
}

#[test]
fn peer_credentials() {
    pairings(|server, client| {
        let directory = Directory::new("peer_credentials");
        let path = [directory.join("echo")];
        // The test runs as the same user as the programs.
        let owner = fs::metadata(directory.join("")).expect("metadata");
        let mut server = Program::start(server, "peer_credentials", &path);
        server.listening_on();
        let client = Program::start(client, "echo_unix_client", &path);
        let process = client.id();
        assert_eq!(client.finish(), "answer: Hello, neighbour!\n");
        let (user, group) = (owner.uid(), owner.gid());
        assert_eq!(
            directory.hide(&server.finish()),
            format!(
                "listening on DIR/echo\n\
                 process {process} of user {user} and group {group} connected\n\
                 got: Hello, neighbour!\n"
            )
        );
        assert!(directory.names().is_empty(), "{:?} was not removed", directory.names());
    });
}
