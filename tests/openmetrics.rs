//! The promise: the parser of `prometheus_client` accepts the text of `Stats::to_openmetrics`, and reads
//! the values of the counters from it.
//!
//! Without the Python package it is not run, with a message. With `SOCK_REQUIRE_PEERS=1` that is a
//! failure.

use std::io::{BufRead, Write};
use std::process::{Command, Stdio};

use sockserver::{
    Sequential, StreamServer, UDPServer, datagram_handler_fn, handler_fn, kind::Inet, testing,
};

/// Prints each sample as its name, labels and value, and fails if the text is invalid.
const PARSE: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        labels = ','.join(sample.labels.values())
        print(family.type, sample.name, labels, repr(sample.value) if 'sum' in sample.name else int(sample.value))
";

/// Returns the lines that the program prints, `None` if the package is missing.
fn parse(text: &str) -> Option<Vec<String>> {
    let has_package = |python: &&str| {
        let import =
            Command::new(python).args(["-c", "import prometheus_client"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    };
    // A package of the system is for its own interpreter, which may not be the first in the path.
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_package) else {
        let required = std::env::var_os("SOCK_REQUIRE_PEERS").is_some_and(|value| value == "1");
        assert!(!required, "SOCK_REQUIRE_PEERS=1 is set, but Python's prometheus_client is missing");
        eprintln!("NOT RUN: the parser of prometheus_client, because the package is missing");
        return None;
    };
    let mut python = Command::new(python)
        .args(["-c", PARSE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "the parser rejects {text}");
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn the_parser_of_prometheus_reads_the_counters() {
    let handler = handler_fn(|cx| {
        let mut line = String::new();
        cx.close_connection = cx.rfile.read_line(&mut line)? == 0 || line == "last\n";
        cx.wfile.write_all(line.as_bytes())
    });
    let server = StreamServer::<Inet, Sequential>::builder(handler).bind(("127.0.0.1", 0)).unwrap();
    let server = testing::serve(server);
    let client = server.connect().unwrap();
    for line in ["one\n", "two\n", "last\n"] {
        client.sendall(line.as_bytes()).unwrap();
        let mut answer = String::new();
        client.makefile_rb().read_line(&mut answer).unwrap();
        assert_eq!(answer, line);
    }
    assert_eq!(client.recv(1).unwrap(), b"");
    let handle = server.handle().clone();
    let Some(gauges) = parse(&handle.to_openmetrics()) else { return };
    let ready = "gauge sockserver_ready  1";
    assert!(gauges.iter().any(|line| line == ready), "{ready} is not in {gauges:#?}");
    drop(server);
    let Some(samples) = parse(&handle.stats().to_openmetrics()) else { return };
    for sample in [
        "counter sockserver_accepted_total  1",
        "counter sockserver_requests_total  3",
        "counter sockserver_received_bytes_total  13",
        "counter sockserver_sent_bytes_total  13",
        "histogram sockserver_request_duration_seconds_bucket +Inf 3",
        "histogram sockserver_request_duration_seconds_count  3",
        "counter sockserver_ended_total finished 1",
        "counter sockserver_ended_total aborted 0",
        "counter sockserver_timed_out_total idle 0",
        "gauge sockserver_in_flight  0",
    ] {
        assert!(samples.iter().any(|line| line == sample), "{sample} is not in {samples:#?}");
    }
}

#[test]
fn each_datagram_is_a_request() {
    let echo = datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet));
    let server = UDPServer::new(("127.0.0.1", 0), echo).unwrap();
    let client = sock::Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0).unwrap();
    client.connect(server.server_address()).unwrap();
    for _ in 0..2 {
        client.send(b"?").unwrap();
        server.handle_request().unwrap();
    }
    assert_eq!(server.stats().requests, 2);
}
