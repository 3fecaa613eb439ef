//! The promise: `sockserver::testing` runs handlers and servers as a real server would, returns their
//! outcome, and leaves nothing behind.
//!
//! `tests/process_tests/nothing_left.rs` tests `LeakCheck`.

mod support;

use std::io::{self, BufRead, Write};
use std::panic;

use sockserver::{Outcome, StreamContext, StreamRequestHandler, TCPServer, handler_fn, testing};

use support::{LOOPBACK, read_to_end};

/// Counts its requests. The word says how each ends.
struct Scripted(usize);

impl StreamRequestHandler for Scripted {
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
fn converse_runs_a_handler_without_a_server() {
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
            read_to_end(client)
        };
        assert_eq!(
            testing::converse(|| Scripted(0), talk).unwrap(),
            (said.to_owned(), outcome),
            "{words:?}"
        );
    }
}

#[test]
fn converse_ends_when_the_client_returns_first() {
    let (nothing, outcome) = testing::converse(|| Scripted(0), |_| ()).unwrap();
    assert_eq!(
        (nothing, outcome),
        ((), Outcome::Disconnected),
        "the handler could send to a closed client"
    );
}

#[test]
fn a_panic_of_the_client_is_passed_on() {
    let failed = panic::catch_unwind(|| testing::converse(|| Scripted(0), |_| panic!("as planned")));
    assert!(failed.is_err());
}

#[test]
fn a_running_server_stops_when_it_is_dropped() {
    let address = {
        let server =
            testing::serve(TCPServer::new(LOOPBACK, handler_fn(|cx| cx.wfile.write_all(b"hi"))).unwrap());
        assert_eq!(read_to_end(&server.connect().unwrap()), "hi");
        // The drop does not wait for an idle client.
        let _silent = server.connect().unwrap();
        server.address().clone()
    };
    let late = sock::Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap().connect(&address);
    assert_eq!(late.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
