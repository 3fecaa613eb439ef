//! What the fault table (`tests/faults`) has found once, in small.

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
use support::StopAtEnd;

const LIMIT: Duration = Duration::from_secs(30);

fn connect(address: &Address) -> Socket {
    let client = Socket::new(address.family(), sock::SOCK_STREAM, 0).unwrap();
    client.settimeout(LIMIT).unwrap();
    client.connect(address).unwrap();
    client
}

/// Waits until the counters say so.
fn wait_for(handle: &ServerHandle, what: &str, good: impl Fn(&sockserver::Stats) -> bool) {
    let until = Instant::now() + LIMIT;
    while !good(&handle.stats()) {
        assert!(Instant::now() < until, "{what}: {}", handle.stats());
        thread::yield_now();
    }
}

/// Can start nothing.
#[derive(Default)]
struct NoRoom;

impl MixIn for NoRoom {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        Err(job.reject(std::io::Error::other("no room")))
    }
}

// The end of the rejected request woke the loop from the pause it was the reason for.
#[test]
fn requests_that_cannot_be_started_slow_the_loop_down() {
    let server = StreamServer::<Inet, NoRoom>::new(("127.0.0.1", 0), handler_fn(|_| Ok(()))).unwrap();
    let handle = server.handle();
    let clients: Vec<_> = (0..8).map(|_| connect(server.server_address())).collect();
    let begin = Instant::now();
    thread::scope(|scope| {
        let _stop = StopAtEnd(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        wait_for(&handle, "all eight are rejected", |stats| stats.rejected == 8);
    });
    // Seven pauses lie between: 5, 10, 20, … 320 ms.
    assert!(begin.elapsed() >= Duration::from_millis(635), "{:?}", begin.elapsed());
    drop(clients);
}

// The loop ended, and serve_forever returned, before the drain had begun.
#[test]
fn serve_forever_returns_with_the_report_of_the_drain_that_ended_it() {
    let round = || {
        let server = TCPServer::new(("127.0.0.1", 0), handler_fn(|_| Ok(()))).unwrap();
        let handle = server.handle();
        thread::scope(|scope| {
            let _stop = StopAtEnd(handle.clone());
            let serving = scope.spawn(|| {
                server.serve_forever().unwrap();
                server.drained()
            });
            let report = handle.drain(LIMIT).unwrap();
            assert_eq!(serving.join().unwrap(), Some(report));
        });
    };
    // Side by side, so that threads are held up between any two steps.
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| (0..100).for_each(|_| round()));
        }
    });
}

// What was cut off and had not ended was taken from what had finished.
#[test]
fn a_handler_that_does_not_return_takes_nothing_from_those_that_finished() {
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
        // Busy until the drain has begun: then its client ends.
        cx.rfile.read_to_end(&mut Vec::new())?;
        cx.wfile.write_all(b"done")
    });
    let server = ThreadingTCPServer::builder(handler).bind(("127.0.0.1", 0)).unwrap();
    let handle = server.handle();
    thread::scope(|scope| {
        let _stop = StopAtEnd(handle.clone());
        scope.spawn(|| server.serve_forever().unwrap());
        let clients: Vec<_> =
            [b"s", b"b", b"b", b"b"].map(|command| (connect(server.server_address()), command)).into();
        for (client, command) in &clients {
            client.sendall(*command).unwrap();
        }
        let idle = connect(server.server_address());
        wait_for(&handle, "all five are there", |stats| stats.in_flight == 5);
        let drain = scope.spawn(|| handle.drain(Duration::from_millis(500)).unwrap());
        // Once the drain has closed the idle one it counts.
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

// The first byte after the close reset the connection, and the rest of the answer was lost.
#[test]
fn a_long_answer_survives_input_that_comes_after_the_handler_is_done() {
    survives_late_input(1 << 20);
}

// Up to 64 KiB were not waited for, although the client's system had not taken them.
#[test]
fn a_short_answer_to_a_slow_reader_survives_input_that_comes_after_the_handler_is_done() {
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
    // Most of the answer has to wait at the server.
    client.setsockopt(sock::SOL_SOCKET, sock::SO_RCVBUF, 4096).unwrap();
    client.connect(server.address()).unwrap();
    client.sendall(b"!").unwrap();
    wait_for(server.handle(), "it is there", |stats| stats.accepted == 1);
    let mut received = 0;
    loop {
        // The client goes on talking, and reads slowly; its first words come late.
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
fn a_datagram_that_was_cut_says_so() {
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

// A read deadline shorter than the idle one ended the wait, and nobody counted it.
#[test]
fn silence_between_requests_is_counted_whichever_deadline_ends_it() {
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

// The second of two that came in one segment waited for a third.
#[cfg(unix)]
#[test]
fn a_selector_serves_requests_that_came_together() {
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
