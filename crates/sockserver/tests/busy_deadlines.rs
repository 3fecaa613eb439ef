//! The promise: a deadline that ends a connection during a request is logged at `warn`, whatever the
//! handler does with the error. One that ends an idle connection is not.

mod support;

use std::io::{BufRead, Write};
use std::time::Duration;

use parking_lot::Mutex;
use sockserver::{ThreadingTCPServer, handler_fn, testing};

use support::{LOOPBACK, connect_to, read_to_end, wait_for_stats, wait_until};

const SHORT: Duration = Duration::from_millis(50);

struct Recorder;

static LINES: Mutex<Vec<(log::Level, String)>> = Mutex::new(Vec::new());

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().push((record.level(), record.args().to_string()));
    }

    fn flush(&self) {}
}

fn warnings(text: &str) -> usize {
    LINES.lock().iter().filter(|(level, line)| *level == log::Level::Warn && line.contains(text)).count()
}

#[test]
fn only_deadlines_during_a_request_are_logged_at_warn() {
    log::set_logger(&Recorder).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    // As a handler of log records does: the error ends its loop, and it returns without an error.
    let handler = || {
        handler_fn(|cx| {
            let mut line = String::new();
            while cx.rfile.read_line(&mut line).is_ok_and(|count| count > 0) {
                cx.wfile.write_all(b"+")?;
                line.clear();
            }
            Ok(())
        })
    };
    let none = || ThreadingTCPServer::builder(handler()).no_deadlines();

    let server = testing::serve(none().read_timeout(SHORT).bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    client.sendall(b"record\n").unwrap();
    assert_eq!(read_to_end(&client), "+");
    wait_until("the read deadline is logged", || warnings("read deadline of 50ms is over") == 1);

    let server = testing::serve(none().request_timeout(SHORT).bind(LOOPBACK).unwrap());
    let client = connect_to(server.address());
    client.sendall(b"record\n").unwrap();
    assert_eq!(read_to_end(&client), "+");
    wait_until("the request deadline is logged", || warnings("request deadline of 50ms is over") == 1);

    let server = testing::serve(none().first_byte_timeout(SHORT).bind(LOOPBACK).unwrap());
    assert_eq!(read_to_end(&connect_to(server.address())), "");
    wait_for_stats(server.handle(), |stats| stats.in_flight == 0);
    assert_eq!(LINES.lock().len(), 2, "{:?}", LINES.lock());
}
