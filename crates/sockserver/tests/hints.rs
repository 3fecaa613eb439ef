//! The promises of the target `sock::hint` for servers: a handler that blocks a worker of the selector
//! is reported, and a server that works as it should is not.
#![cfg(unix)]

mod support;

use std::io::{self, BufRead, Write};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use sock::{SHUT_WR, Socket};
use sockserver::testing;
use sockserver::{SelectorTCPServer, StreamContext, StreamRequestHandler, ThreadingTCPServer};

/// The tests use it one after the other.
static HINTS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ONE_TEST: Mutex<()> = Mutex::new(());

struct Recorder;

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sock::hint"
    }

    fn log(&self, record: &Record<'_>) {
        // Macros of `log` do not ask whether the target is enabled.
        if self.enabled(record.metadata()) {
            HINTS.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

fn hints(calls: impl FnOnce()) -> Vec<String> {
    static INSTALLED: Once = Once::new();
    let _one = ONE_TEST.lock();
    INSTALLED.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
    HINTS.lock().unwrap().clear();
    calls();
    std::mem::take(&mut HINTS.lock().unwrap())
}

/// Removes hints about calls that do not wait, which a busy machine delays too.
fn about_waits(mut hints: Vec<String>) -> Vec<String> {
    hints.retain(|hint| !hint.contains(" blocked a worker ") || hint.starts_with("poll("));
    hints
}

/// Serves one line in each call, or all lines of the connection in one call.
struct Lines {
    all_at_once: bool,
}

impl StreamRequestHandler for Lines {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            if cx.rfile.read_until(b'\n', &mut line)? == 0 {
                cx.close_connection = true;
                return Ok(());
            }
            cx.wfile.write_all(&line)?;
            if !self.all_at_once {
                cx.close_connection = false;
                return Ok(());
            }
        }
    }
}

fn ask(client: &Socket) {
    client.sendall(b"hello\n").unwrap();
    let mut answer = String::new();
    client.makefile_rb().read_line(&mut answer).unwrap();
    assert_eq!(answer, "hello\n");
}

/// Two requests with a pause that is longer than a call without a wait takes, and a long answer.
fn two_requests(server: &testing::Running) {
    let client = server.connect().unwrap();
    ask(&client);
    thread::sleep(Duration::from_millis(120));
    ask(&client);
    client.shutdown(SHUT_WR).unwrap();
    assert_eq!(client.recv(1).unwrap(), b"");
}

#[test]
fn a_handler_that_blocks_a_worker_of_the_selector_is_hinted() {
    let hints = hints(|| {
        let server = SelectorTCPServer::new(("127.0.0.1", 0), || Lines { all_at_once: true }).unwrap();
        two_requests(&testing::serve(server));
    });
    let hints = about_waits(hints);
    assert_eq!(hints.len(), 1, "{hints:#?}");
    let part = " blocked a worker of the selector for ";
    assert!(hints[0].contains(part) && hints[0].ends_with("; see `socklens run blocked`"), "{hints:#?}");
}

#[test]
fn one_request_in_each_call_and_threads_that_may_block_are_not_hinted() {
    let hints = hints(|| {
        let server = SelectorTCPServer::new(("127.0.0.1", 0), || Lines { all_at_once: false }).unwrap();
        two_requests(&testing::serve(server));
        let server = ThreadingTCPServer::new(("127.0.0.1", 0), || Lines { all_at_once: true }).unwrap();
        two_requests(&testing::serve(server));
    });
    let hints = about_waits(hints);
    assert!(hints.is_empty(), "{hints:#?}");
}

/// Sends more than the buffers of the sockets hold.
struct Long;

impl StreamRequestHandler for Long {
    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        cx.wfile.write_all(&vec![7; 20_000_000])
    }
}

/// A server sends the rest itself.
#[test]
fn a_long_answer_is_not_hinted_as_a_send_of_a_part() {
    let hints = hints(|| {
        let server = testing::serve(ThreadingTCPServer::new(("127.0.0.1", 0), || Long).unwrap());
        let client = server.connect().unwrap();
        client.sendall(b"x").unwrap();
        let mut received = 0;
        while let Ok(1..) = client.recv(1 << 20).map(|data| {
            received += data.len();
            data.len()
        }) {}
        assert!(received <= 20_000_000);
    });
    assert!(!hints.iter().any(|hint| hint.contains("call it again with the rest")), "{hints:#?}");
}
