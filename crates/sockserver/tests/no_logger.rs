//! The promise: without a logger the error of a handler is printed, and with one it is logged only.

use std::io;
use std::process::Command;

use log::{LevelFilter, Log, Metadata, Record};
use sockserver::{TCPServer, handler_fn};

/// Names the case that a child process runs.
const CASE: &str = "SOCKSERVER_TEST_CASE";

struct Disabled(#[allow(dead_code, reason = "a logger with fields has a size")] u8);

impl Log for Disabled {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn log(&self, _: &Record<'_>) {}

    fn flush(&self) {}
}

/// Serves one client, whose handler fails.
fn serve(case: &str) {
    if case == "disabled logger" {
        log::set_logger(&Disabled(0)).unwrap();
        log::set_max_level(LevelFilter::Off);
    }
    let fails = handler_fn(|_| Err(io::Error::other("planned error")));
    let server = TCPServer::new(("127.0.0.1", 0), fails).unwrap();
    let port = server.server_address().port().unwrap();
    let client = sock::create_connection(("127.0.0.1", port)).unwrap();
    server.handle_request().unwrap();
    assert_eq!(client.recv(1).unwrap(), b"");
}

#[test]
fn the_error_of_a_handler_is_printed_without_a_logger() {
    if let Ok(case) = std::env::var(CASE) {
        return serve(&case);
    }
    for (case, printed) in [("no logger", true), ("disabled logger", false)] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_error_of_a_handler_is_printed_without_a_logger", "--nocapture"])
            .env(CASE, case)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{case}: {text}");
        let shown = text.contains("request from 127.0.0.1:") && text.contains(" failed: planned error");
        assert_eq!(shown, printed, "{case}: {text}");
    }
}
