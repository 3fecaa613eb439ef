//! The promise: a receive that does not wait is one system call, in every mode of the socket.
#![cfg(target_os = "linux")]

mod support;

use std::cell::RefCell;
use std::io;
use std::sync::Once;
use std::time::{Duration, Instant};

use log::{LevelFilter, Log, Metadata, Record};
use sock::StreamSocket;
use support::{LIMIT, Pki, wrapped};

/// Records the names of the calls of each thread.
struct Recorder;

thread_local! {
    static CALLS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sock::call" && CALLS.with_borrow(Option::is_some)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            let name = line.split('(').next().unwrap_or_default().to_owned();
            CALLS.with_borrow_mut(|calls| calls.as_mut().unwrap().push(name));
        }
    }

    fn flush(&self) {}
}

fn calls_of<T>(action: impl FnOnce() -> T) -> (T, Vec<String>) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        log::set_logger(&Recorder).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
    CALLS.set(Some(Vec::new()));
    let value = action();
    (value, CALLS.take().unwrap())
}

#[test]
fn a_receive_that_does_not_wait_is_one_call() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    for timeout in [None, Some(LIMIT), Some(Duration::ZERO)] {
        server.socket().settimeout(timeout).unwrap();
        let mut buffer = [0; 100];
        let stream: &dyn StreamSocket = &server;
        let (received, calls) = calls_of(|| stream.recv_into_nowait(&mut buffer));
        assert_eq!(received.unwrap_err().kind(), io::ErrorKind::WouldBlock, "{timeout:?}");
        assert_eq!(calls, ["recv"], "{timeout:?}");
        client.sendall(b"request").unwrap();
        assert_eq!(
            sock::poll(&mut [sock::Poll::new(server.socket(), sock::POLLIN)], Some(LIMIT)).unwrap(),
            1
        );
        let (received, calls) = calls_of(|| stream.recv_into_nowait(&mut buffer));
        assert_eq!(&buffer[..received.unwrap()], b"request", "{timeout:?}");
        assert_eq!(calls, ["recv"], "{timeout:?}");
        let (sent, calls) = calls_of(|| stream.sendall(b"response"));
        sent.unwrap();
        assert_eq!(calls, ["send"], "{timeout:?}");
        assert_eq!(client.recv(100).unwrap(), b"response");
        assert_eq!(server.socket().gettimeout(), timeout);
    }
}

#[test]
fn a_receive_that_does_not_wait_reads_large_records_and_the_end() {
    let pki = Pki::new();
    let (server, client) = wrapped(&pki.server(), &pki.client());
    let data = vec![7; 100_000];
    let (mut received, mut buffer, begin) = (Vec::new(), vec![0; 5000], Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.sendall(&data).unwrap();
            client.shutdown(sock::SHUT_WR).unwrap();
        });
        while begin.elapsed() < LIMIT {
            match server.recv_into_nowait(&mut buffer) {
                Ok(0) => break,
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert!(received == data, "{} of {} bytes", received.len(), data.len());
}
