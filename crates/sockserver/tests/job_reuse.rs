//! The promise: a thread that serves one request after another keeps no state of one request for the
//! next.

mod support;

use std::io::{self, BufRead, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sock::{AF_INET, Address, SHUT_WR};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    DatagramContext, DatagramRequestHandler, MixIn, Server, Stats, StreamContext, StreamRequestHandler,
    TCPServer, ThreadPoolTCPServer, UDPServer,
};

use support::{LIMIT, LOOPBACK, StopOnDrop, connect_to, datagram_client, read_to_end, wait_for_stats};

const READ_TIMEOUT: Duration = Duration::from_millis(60);

/// Does what the client's first line says.
struct Scripted(mpsc::Sender<&'static str>);

impl StreamRequestHandler for Scripted {
    fn setup(&mut self, _: &mut StreamContext<'_>) -> io::Result<()> {
        let _ = self.0.send("setup");
        Ok(())
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        match line.trim_end() {
            "fail" => Err(io::Error::other("as planned")),
            "late" => Err(io::ErrorKind::TimedOut.into()),
            "panic" => panic!("as planned"),
            "wait" => cx.rfile.read_line(&mut line).map(drop),
            word => writeln!(cx.wfile, "{word} {}", cx.client_address),
        }
    }

    fn finish(&mut self, _: &mut StreamContext<'_>) -> io::Result<()> {
        let _ = self.0.send("finish");
        Ok(())
    }
}

/// Sends a request and returns the whole response. The client's own address is replaced by "it".
fn exchange(address: &Address, request: &str, half_closes: bool) -> String {
    let client = connect_to(address);
    let own = client.getsockname().unwrap().to_string();
    client.sendall(request.as_bytes()).unwrap();
    if half_closes {
        client.shutdown(SHUT_WR).unwrap();
    }
    read_to_end(&client).replace(&own, "it")
}

fn no_state_is_kept_between_requests<M: MixIn>(
    make: impl FnOnce(mpsc::Sender<&'static str>) -> Server<Stream<Inet>, M>,
) {
    let (sender, receiver) = mpsc::channel();
    let server = make(sender);
    let (address, handle) = (server.server_address(), server.handle());
    thread::scope(|scope| {
        let _stop = StopOnDrop(server.handle());
        scope.spawn(|| server.serve_forever().unwrap());
        // Input that the handler does not read. If the state of the connection before, whose client
        // had shut down, were kept, the close would reset this one.
        let unread = format!("much\n{}", "x".repeat(100_000));
        let requests = [
            ("first\n", true, "first it\n"),
            ("no line", true, "no line it\n"),
            (&unread, false, "much it\n"),
            ("fail\n", true, ""),
            ("after\n", false, "after it\n"),
            ("panic\n", true, ""),
            ("", true, " it\n"),
            ("wait\n", false, ""),
            ("again\nand more that is not the next one's\n", false, "again it\n"),
            ("late\n", true, ""),
        ];
        for (request, half_closes, response) in requests {
            assert_eq!(exchange(address, request, half_closes), response, "{request:.10}");
            for call in ["setup", "finish"] {
                assert_eq!(receiver.recv_timeout(LIMIT), Ok(call), "{request:.10}");
            }
        }
        let stats = wait_for_stats(&handle, |stats| stats.in_flight == 0);
        let Stats { accepted, finished, failed, panicked, timed_out, .. } = stats;
        assert_eq!((accepted, finished, failed, panicked, timed_out.read), (10, 6, 2, 1, 1), "{stats:?}");
    });
}

#[test]
fn the_accept_loop_keeps_no_state() {
    no_state_is_kept_between_requests(|sender| {
        let make = move || Scripted(sender.clone());
        TCPServer::builder(make).read_timeout(READ_TIMEOUT).max_connections(1).bind(LOOPBACK).unwrap()
    });
}

#[test]
fn a_pool_worker_keeps_no_state() {
    no_state_is_kept_between_requests(|sender| {
        let builder = ThreadPoolTCPServer::builder(move || Scripted(sender.clone())).workers(1);
        builder.read_timeout(READ_TIMEOUT).max_connections(1).bind(LOOPBACK).unwrap()
    });
}

/// Answers with the datagram, and whether it was truncated.
struct Describe;

impl DatagramRequestHandler for Describe {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        assert!(cx.wfile.is_empty(), "the answer is not empty at first");
        match cx.packet {
            b"fail" => {
                cx.wfile.extend_from_slice(b"never sent");
                Err(io::Error::other("as planned"))
            }
            packet => write!(cx.wfile, "{} {}", packet.escape_ascii(), cx.is_truncated),
        }
    }

    fn finish(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        if cx.packet != b"fail" {
            cx.socket.sendto(&cx.wfile, cx.client_address)?;
        }
        Ok(())
    }
}

#[test]
fn datagrams_share_no_state() {
    let server = UDPServer::builder(|| Describe).max_packet_size(6).bind(LOOPBACK).unwrap();
    thread::scope(|scope| {
        let _stop = StopOnDrop(server.handle());
        scope.spawn(|| server.serve_forever().unwrap());
        for (datagram, response) in
            [("longer than 6", "longer true"), ("fail", ""), ("abc", "abc false"), ("", " false")]
        {
            // Each datagram comes from another address.
            let client = datagram_client(AF_INET);
            client.sendto(datagram.as_bytes(), server.server_address()).unwrap();
            if !response.is_empty() {
                assert_eq!(client.recv(100).unwrap(), response.as_bytes());
            }
        }
        let stats = wait_for_stats(&server.handle(), |stats| stats.in_flight == 0 && stats.accepted == 4);
        assert_eq!((stats.finished, stats.failed), (3, 1));
    });
}
