//! Regression tests for faults that the fault table (`tests/faults`) has found.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sock::{Address, Socket};
use sockserver::kind::Inet;
use sockserver::{
    Job, MixIn, Rejected, ServerHandle, StreamServer, TCPServer, ThreadingTCPServer, UDPServer,
    datagram_handler_fn, handler_fn, testing,
};

mod support;
use support::StopOnDrop;

const LIMIT: Duration = Duration::from_secs(30);

fn connect(address: &Address) -> Socket {
    let client = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(address).unwrap();
    client
}

/// Waits until a condition on the counters is true.
fn wait_for(handle: &ServerHandle, what: &str, good: impl Fn(&sockserver::Stats) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !good(&handle.stats()) {
        assert!(Instant::now() < deadline, "{what}: {}", handle.stats());
        thread::yield_now();
    }
}

/// Rejects every request.
#[derive(Default)]
struct RejectAll;

impl MixIn for RejectAll {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        Err(job.reject(std::io::Error::other("rejected by the test")))
    }
}

// The end of a rejected request woke the loop from the pause that the rejection had caused.
#[test]
fn the_loop_backs_off_after_rejected_requests() {
    let server = StreamServer::<Inet, RejectAll>::new(("127.0.0.1", 0), handler_fn(|_| Ok(()))).unwrap();
    let handle = server.handle();
    let clients: Vec<_> = (0..8).map(|_| connect(server.server_address())).collect();
    let begin = Instant::now();
    thread::scope(|scope| {
        let _stop = StopOnDrop(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        wait_for(&handle, "all eight are rejected", |stats| stats.rejected == 8);
    });
    // There are seven pauses: 5, 10, 20, … 320 ms.
    assert!(begin.elapsed() >= Duration::from_millis(635), "{:?}", begin.elapsed());
    drop(clients);
}

// serve_forever returned before the drain had begun, and there was no report.
#[test]
fn serve_forever_returns_with_the_report_of_the_drain_that_ended_it() {
    let round = || {
        let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(()))).unwrap();
        let handle = server.handle();
        thread::scope(|scope| {
            let _stop = StopOnDrop(handle.clone());
            let serving = scope.spawn(|| {
                server.serve_forever().unwrap();
                server.drained()
            });
            let report = handle.drain(LIMIT).unwrap();
            assert_eq!(serving.join().unwrap(), Some(report));
        });
    };
    // They run at the same time, so that threads are preempted between any two steps.
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (0..100).for_each(|_| round()));
        }
    });
}

// Aborted handlers that were still running were subtracted from `finished`.
#[test]
fn a_handler_that_does_not_return_does_not_reduce_finished() {
    static STUCK: AtomicBool = AtomicBool::new(true);
    let handler = handler_fn(|cx| {
        let mut command = [0];
        cx.rfile.read_exact(&mut command)?;
        if command == *b"s" {
            while STUCK.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            return Ok(());
        }
        // Its client ends once the drain has begun.
        cx.rfile.read_to_end(&mut Vec::new())?;
        cx.wfile.write_all(b"done")
    });
    let server = ThreadingTCPServer::builder(handler).bind(("127.0.0.1", 0)).unwrap();
    let handle = server.handle();
    thread::scope(|scope| {
        let _stop = StopOnDrop(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        let clients: Vec<_> =
            [b"s", b"b", b"b", b"b"].map(|command| (connect(server.server_address()), command)).into();
        for (client, command) in &clients {
            client.sendall(*command).unwrap();
        }
        let idle = connect(server.server_address());
        wait_for(&handle, "all five are there", |stats| stats.in_flight == 5);
        let drain = scope.spawn(|| handle.drain(Duration::from_millis(500)).unwrap());
        // The drain has begun once it has closed the idle connection.
        assert_eq!(idle.recv(1).unwrap(), b"");
        for (client, _) in &clients[1..] {
            client.shutdown(sock::SHUT_WR).unwrap();
        }
        let report = drain.join().unwrap();
        STUCK.store(false, Ordering::Relaxed);
        assert_eq!(
            (report.finished, report.idle, report.aborted.len(), report.still_running),
            (3, 1, 1, 1),
            "{report}"
        );
    });
}

// The first byte after the close reset the connection, and the rest of the response was lost.
#[test]
fn a_long_response_survives_input_after_the_handler_returned() {
    survives_late_input(1 << 20);
}

// The close did not wait for up to 64 KiB that the client's system had not received.
#[test]
fn a_short_response_to_a_slow_reader_survives_input_after_the_handler_returned() {
    survives_late_input(60_000);
}

fn survives_late_input(length: usize) {
    let server = testing::serve(
        ThreadingTCPServer::builder(handler_fn(move |cx| {
            cx.rfile.read_exact(&mut [0])?;
            cx.wfile.write_all(&vec![b'x'; length])
        }))
        .linger_timeout(LIMIT)
        .bind(("127.0.0.1", 0))
        .unwrap(),
    );
    let client = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    // Most of the response stays in the server's send buffer.
    client.setsockopt(sock::SOL_SOCKET, sock::SO_RCVBUF, 4096).unwrap();
    client.connect(server.address()).unwrap();
    client.sendall(b"!").unwrap();
    wait_for(server.handle(), "it is there", |stats| stats.accepted == 1);
    let mut received = 0;
    loop {
        // The client reads slowly and sends more data late.
        if received > length / 10 {
            let _ = client.send(b"more");
        }
        let data = client.recv(4096).unwrap_or_else(|error| panic!("{error} after {received} bytes"));
        received += data.len();
        if data.is_empty() {
            break;
        }
        thread::yield_now();
    }
    assert_eq!(received, length);
}

#[test]
fn a_truncated_datagram_is_marked() {
    let handler = datagram_handler_fn(|cx| write!(cx.wfile, "{} {}", cx.packet.len(), cx.is_truncated));
    let server = UDPServer::builder(handler).max_packet_size(10).bind(("127.0.0.1", 0)).unwrap();
    let client = Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(server.server_address()).unwrap();
    for (packet, answer) in [(&[0; 9][..], "9 false"), (&[0; 10], "10 false"), (&[0; 11], "10 true")] {
        client.send(packet).unwrap();
        server.handle_request().unwrap();
        assert_eq!(client.recv(100).unwrap(), answer.as_bytes());
    }
}

// A read deadline shorter than the idle deadline ended the wait and was not counted.
#[test]
fn an_idle_timeout_is_counted_whichever_deadline_ends_it() {
    let handler = handler_fn(|cx| {
        cx.rfile.read_exact(&mut [0])?;
        cx.close_connection = false;
        Ok(())
    });
    let server = testing::serve(
        ThreadingTCPServer::builder(handler)
            .read_timeout(Duration::from_millis(50))
            .idle_timeout(LIMIT)
            .bind(("127.0.0.1", 0))
            .unwrap(),
    );
    let client = server.connect().unwrap();
    client.sendall(b"!").unwrap();
    assert_eq!(client.recv(1).unwrap(), b"");
    wait_for(server.handle(), "it is counted", |stats| stats.timed_out.total() == 1);
}

// The second of two requests in one segment was served only when a third arrived.
#[cfg(unix)]
#[test]
fn a_selector_serves_pipelined_requests() {
    use std::io::BufRead;
    let handler = handler_fn(|cx| {
        let mut line = Vec::new();
        if cx.rfile.read_until(b'\n', &mut line)? > 0 {
            cx.wfile.write_all(&line)?;
            cx.close_connection = false;
        }
        Ok(())
    });
    let server = testing::serve(sockserver::SelectorTCPServer::new(("127.0.0.1", 0), handler).unwrap());
    let client = server.connect().unwrap();
    client.sendall(b"one\ntwo\nthree\n").unwrap();
    let mut answers = [0; 14];
    client.makefile_rb().read_exact(&mut answers).unwrap();
    assert_eq!(&answers, b"one\ntwo\nthree\n");
}
