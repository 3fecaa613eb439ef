//! The promise: `sockserver::testing` runs handlers and servers as they would run in
//! earnest, tells what became of them, and leaves nothing.
//!
//! That `LeakCheck` finds what is left is in `tests/process_tests/nothing_left.rs`.

mod support;

use std::io::{self, BufRead, Write};
use std::panic;

use sockserver::{Outcome, StreamContext, StreamRequestHandler, TCPServer, handler_fn, testing};

use support::{LOOPBACK, rest_of};

/// Counts its requests; the word says how each ends.
struct Wordy(usize);

impl StreamRequestHandler for Wordy {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        self.0 += 1;
        match line.trim_end() {
            "error" => Err(io::Error::other("as planned")),
            "panic" => panic!("as planned"),
            word => {
                cx.close_connection = word != "more";
                writeln!(cx.wfile, "{} {word}", self.0)
            }
        }
    }
}

#[test]
fn a_handler_converses_without_a_server() {
    for (words, said, outcome) in [
        ("hello\n", "1 hello\n", Outcome::Finished),
        ("more\nmore\nhello\n", "1 more\n2 more\n3 hello\n", Outcome::Finished),
        ("error\n", "", Outcome::Failed),
        ("panic\n", "", Outcome::Panicked),
        ("more\nerror\n", "1 more\n", Outcome::Failed),
        ("", "1 \n", Outcome::Finished),
    ] {
        let talk = |client: &sock::Socket| {
            client.sendall(words.as_bytes()).unwrap();
            client.shutdown(sock::SHUT_WR).unwrap();
            rest_of(client)
        };
        assert_eq!(testing::converse(|| Wordy(0), talk).unwrap(), (said.to_owned(), outcome), "{words:?}");
    }
}

#[test]
fn a_client_that_goes_first_ends_the_conversation() {
    let (nothing, outcome) = testing::converse(|| Wordy(0), |_| ()).unwrap();
    assert_eq!((nothing, outcome), ((), Outcome::Failed), "its answer has nobody to go to");
}

#[test]
fn a_client_that_panics_is_the_tests_failure_and_does_not_hang() {
    let failed = panic::catch_unwind(|| testing::converse(|| Wordy(0), |_| panic!("as planned")));
    assert!(failed.is_err());
}

#[test]
fn a_running_server_stops_with_its_scope() {
    let address = {
        let server =
            testing::serve(TCPServer::new(LOOPBACK, handler_fn(|cx| cx.wfile.write_all(b"hi"))).unwrap());
        assert_eq!(rest_of(&server.connect().unwrap()), "hi");
        // A client that is left open is no reason to wait.
        let _silent = server.connect().unwrap();
        server.address().clone()
    };
    let late = sock::Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap().connect(&address);
    assert_eq!(late.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
