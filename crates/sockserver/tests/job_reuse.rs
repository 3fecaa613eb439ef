//! The promise: a thread that serves one request after the other uses the former's memory
//! again, and nothing of one request is seen in the next.

mod support;

use std::io::{self, BufRead, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sock::{AF_INET, Address, SHUT_WR, SOCK_DGRAM, Socket};
use sockserver::kind::{Inet, Stream};
use sockserver::{
    DatagramContext, DatagramRequestHandler, MixIn, Server, Stats, StreamContext, StreamRequestHandler,
    TCPServer, ThreadPoolTCPServer, UDPServer,
};

use support::{LIMIT, LOOPBACK, StopAtEnd, client_of, rest_of, until_stats};

const READ_TIMEOUT: Duration = Duration::from_millis(60);

/// Does what the client's first line says.
struct Obeying(mpsc::Sender<&'static str>);

impl StreamRequestHandler for Obeying {
    fn setup(&mut self, _: &mut StreamContext<'_>) -> io::Result<()> {
        let _ = self.0.send("setup");
        Ok(())
    }

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let mut line = String::new();
        cx.rfile.read_line(&mut line)?;
        match line.trim_end() {
            "fail" => Err(io::Error::other("as it was told")),
            "late" => Err(io::ErrorKind::TimedOut.into()),
            "panic" => panic!("as it was told"),
            "wait" => cx.rfile.read_line(&mut line).map(drop),
            word => writeln!(cx.wfile, "{word} {}", cx.client_address),
        }
    }

    fn finish(&mut self, _: &mut StreamContext<'_>) -> io::Result<()> {
        let _ = self.0.send("finish");
        Ok(())
    }
}

/// Says something and hears the answer to its end.
fn conversation(address: &Address, says: &str, ends: bool) -> String {
    let client = client_of(address);
    let own = client.getsockname().unwrap().to_string();
    client.sendall(says.as_bytes()).unwrap();
    if ends {
        client.shutdown(SHUT_WR).unwrap();
    }
    rest_of(&client).replace(&own, "it")
}

fn each_is_served_as_if_it_were_the_first<M: MixIn>(
    make: impl FnOnce(mpsc::Sender<&'static str>) -> Server<Stream<Inet>, M>,
) {
    let (tell, told) = mpsc::channel();
    let server = make(tell);
    let (address, handle) = (server.server_address(), server.handle());
    thread::scope(|scope| {
        let _stop = StopAtEnd(server.handle());
        scope.spawn(|| server.serve_forever().unwrap());
        // Much input that nobody reads: who believed that the client has ended, as the one
        // before had, would reset this one.
        let unread = format!("much\n{}", "x".repeat(100_000));
        let talks = [
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
        for (says, ends, hears) in talks {
            assert_eq!(conversation(address, says, ends), hears, "{says:.10}");
            for call in ["setup", "finish"] {
                assert_eq!(told.recv_timeout(LIMIT), Ok(call), "{says:.10}");
            }
        }
        let stats = until_stats(&handle, |stats| stats.in_flight == 0);
        let Stats { accepted, finished, failed, panicked, timed_out, .. } = stats;
        assert_eq!((accepted, finished, failed, panicked, timed_out.read), (10, 6, 2, 1, 1), "{stats:?}");
    });
}

#[test]
fn in_the_loop() {
    each_is_served_as_if_it_were_the_first(|tell| {
        let make = move || Obeying(tell.clone());
        TCPServer::builder(make).read_timeout(READ_TIMEOUT).max_connections(1).bind(LOOPBACK).unwrap()
    });
}

#[test]
fn in_a_worker_that_accepts_by_itself() {
    each_is_served_as_if_it_were_the_first(|tell| {
        let builder = ThreadPoolTCPServer::builder(move || Obeying(tell.clone())).workers(1);
        builder.read_timeout(READ_TIMEOUT).max_connections(1).bind(LOOPBACK).unwrap()
    });
}

/// Answers with what came, and whether it was cut.
struct Cutting;

impl DatagramRequestHandler for Cutting {
    fn handle(&mut self, cx: &mut DatagramContext<'_>) -> io::Result<()> {
        assert!(cx.wfile.is_empty(), "nothing of the answer before");
        match cx.packet {
            b"fail" => {
                cx.wfile.extend_from_slice(b"never sent");
                Err(io::Error::other("as it was told"))
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
fn datagrams() {
    let server = UDPServer::builder(|| Cutting).max_packet_size(6).bind(LOOPBACK).unwrap();
    thread::scope(|scope| {
        let _stop = StopAtEnd(server.handle());
        scope.spawn(|| server.serve_forever().unwrap());
        for (says, hears) in
            [("longer than 6", "longer true"), ("fail", ""), ("abc", "abc false"), ("", " false")]
        {
            // Each from an address of its own, where its answer goes.
            let client = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
            client.settimeout(LIMIT).unwrap();
            client.sendto(says.as_bytes(), server.server_address()).unwrap();
            if !hears.is_empty() {
                assert_eq!(client.recv(100).unwrap(), hears.as_bytes());
            }
        }
        let stats = until_stats(&server.handle(), |stats| stats.in_flight == 0 && stats.accepted == 4);
        assert_eq!((stats.finished, stats.failed), (3, 1));
    });
}
