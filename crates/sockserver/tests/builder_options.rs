//! The promise: each option of the builder and of a handler has its documented effect.
#![cfg(target_os = "linux")]

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use sock::{
    AF_INET, IPPROTO_TCP, MSG_PEEK, SO_REUSEADDR, SO_REUSEPORT, SOCK_DGRAM, SOL_SOCKET, Socket,
    TCP_NODELAY, create_connection,
};
use sockserver::{
    DatagramRequestHandler, StreamContext, StreamRequestHandler, TCPServer, UDPServer, datagram_handler_fn,
    handler_fn,
};

const LOOPBACK: (&str, u16) = ("127.0.0.1", 0);

fn connect_to(server: &TCPServer) -> Socket {
    let client = create_connection(("127.0.0.1", server.server_address().port().unwrap())).unwrap();
    client.settimeout(Duration::from_secs(20)).unwrap();
    client
}

#[test]
fn reuse_options_are_off_by_default() {
    let plain = TCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
    let reusing = TCPServer::builder(handler_fn(|_| Ok(())))
        .allow_reuse_address(true)
        .allow_reuse_port(true)
        .bind(LOOPBACK)
        .unwrap();
    for (server, expected) in [(&plain, 0), (&reusing, 1)] {
        assert_eq!(server.socket().getsockopt(SOL_SOCKET, SO_REUSEADDR).unwrap(), expected);
        assert_eq!(server.socket().getsockopt(SOL_SOCKET, SO_REUSEPORT).unwrap(), expected);
    }
}

#[test]
fn request_queue_size_is_the_listeners_backlog() {
    // For a listening socket the kernel returns the backlog in `tcpi_sacked` of TCP_INFO, as ss(8)
    // uses it.
    let backlog = |server: &TCPServer| {
        let info = server.socket().getsockopt_bytes(IPPROTO_TCP, sock::TCP_INFO, 104).unwrap();
        u32::from_ne_bytes(info[28..32].try_into().unwrap())
    };
    let default = TCPServer::new(LOOPBACK, handler_fn(|_| Ok(()))).unwrap();
    let small = TCPServer::builder(handler_fn(|_| Ok(()))).request_queue_size(7).bind(LOOPBACK).unwrap();
    assert_eq!((backlog(&default), backlog(&small)), (128, 7));
}

/// Reports the effect of its constants.
struct ReportsConstants(mpsc::Sender<(bool, bool)>);

impl StreamRequestHandler for ReportsConstants {
    const TIMEOUT: Option<Duration> = Some(Duration::from_millis(50));
    const DISABLE_NAGLE_ALGORITHM: bool = true;
    const RBUFSIZE: usize = 0;
    const WBUFSIZE: usize = 100;

    fn handle(&mut self, cx: &mut StreamContext<'_>) -> io::Result<()> {
        let socket = cx.request.socket();
        let no_delay = socket.getsockopt(IPPROTO_TCP, TCP_NODELAY)? != 0;
        let mut line = String::new();
        io::BufRead::read_line(&mut cx.rfile, &mut line)?;
        // The unbuffered reader has not received the second line.
        let second_line_left = socket.recv_with_flags(100, MSG_PEEK)? == b"second\n";
        cx.wfile.write_all(b"buffered")?;
        let _ = self.0.send((no_delay, second_line_left));
        if socket.gettimeout() != Self::TIMEOUT {
            return Err(io::Error::other("the timeout is not set"));
        }
        // Receives the second line. Nothing follows, so the next receive times out.
        socket.recv(100)?;
        assert_eq!(socket.recv(1).unwrap_err().kind(), io::ErrorKind::TimedOut);
        Ok(())
    }
}

#[test]
fn a_handlers_constants_apply() {
    let (sender, receiver) = mpsc::channel();
    let server = TCPServer::new(LOOPBACK, move || ReportsConstants(sender.clone())).unwrap();
    let client = connect_to(&server);
    client.sendall(b"first\nsecond\n").unwrap();
    server.handle_request().unwrap();
    assert_eq!(receiver.recv().unwrap(), (true, true));
    // `finish` sends it, so `handle` has returned after its timeout.
    assert_eq!(client.recv(100).unwrap(), b"buffered");
}

#[test]
fn a_datagram_longer_than_max_packet_size_is_truncated() {
    let echo = datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet));
    let server = UDPServer::builder(echo).max_packet_size(4).bind(LOOPBACK).unwrap();
    let client = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    client.settimeout(Duration::from_secs(20)).unwrap();
    client.sendto(b"too long", server.server_address()).unwrap();
    server.handle_request().unwrap();
    assert_eq!(client.recv(100).unwrap(), b"too ");
}

struct Silent;

impl DatagramRequestHandler for Silent {
    fn handle(&mut self, cx: &mut sockserver::DatagramContext<'_>) -> io::Result<()> {
        cx.socket.sendto(b"by hand", cx.client_address).map(drop)
    }
}

#[test]
fn a_datagram_handler_that_writes_nothing_sends_nothing() {
    let server = UDPServer::new(LOOPBACK, || Silent).unwrap();
    let client = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
    client.settimeout(Duration::from_secs(20)).unwrap();
    client.sendto(b"", server.server_address()).unwrap();
    server.handle_request().unwrap();
    assert_eq!(client.recv(100).unwrap(), b"by hand", "an empty datagram was not served");
    client.settimeout(Duration::ZERO).unwrap();
    assert_eq!(client.recv(100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

/// Seconds as numbers, a `Duration`, or `None`, as in Python's `timeout`.
#[test]
fn timeouts_are_numbers_durations_or_none() {
    let builder = || TCPServer::builder(handler_fn(|_| Ok(())));
    let server = builder().timeout(0.01).idle_timeout(5).read_timeout(None).close_timeout(2.5);
    server.bind(LOOPBACK).unwrap().handle_request().unwrap();
    builder().timeout(Duration::from_millis(10)).bind(LOOPBACK).unwrap().handle_request().unwrap();
    let error = builder().timeout(1).idle_timeout(-1).bind(LOOPBACK).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "idle_timeout: Timeout value out of range");
    let error = builder().close_timeout(f64::NAN).bind(LOOPBACK).unwrap_err();
    assert_eq!(error.to_string(), "close_timeout: Invalid value NaN (not a number)");
}

#[test]
fn a_deadline_of_zero_is_refused_by_the_name_of_its_setter() {
    let builder = || TCPServer::builder(handler_fn(|_| Ok(())));
    let zero = [
        ("wrap_timeout", builder().wrap_timeout(0)),
        ("first_byte_timeout", builder().first_byte_timeout(0)),
        ("idle_timeout", builder().idle_timeout(0)),
        ("read_timeout", builder().read_timeout(0)),
        ("write_timeout", builder().write_timeout(0)),
        ("request_timeout", builder().request_timeout(0)),
    ];
    for (name, builder) in zero {
        let error = builder.bind(LOOPBACK).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), format!("{name} must not be zero (None disables it)"));
    }
}

#[test]
fn no_deadlines_disables_all_deadlines_of_connections() {
    let builder = TCPServer::builder(handler_fn(|_| Ok(()))).no_deadlines();
    let text = format!("{builder:?}");
    for name in ["wrap", "first_byte", "idle", "read", "write", "request"] {
        assert!(text.contains(&format!("{name}_timeout: None")), "{text}");
    }
    let text = format!("{:?}", builder.read_timeout(5));
    assert!(text.contains("read_timeout: Some(5s)"), "{text}");
}

#[test]
#[cfg(unix)]
fn the_error_of_a_busy_port_names_allow_reuse_address() {
    let busy = sock::create_server(("127.0.0.1", 0)).unwrap();
    let address = busy.getsockname().unwrap();
    let error = sockserver::TCPServer::new(&address, sockserver::handler_fn(|_| Ok(()))).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("allow_reuse_address(true)"), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let builder = sockserver::TCPServer::builder(sockserver::handler_fn(|_| Ok(())));
    let error = builder.allow_reuse_address(true).bind(&address).unwrap_err();
    assert!(!error.to_string().contains("allow_reuse_address"), "{error}");
}

/// What every user types first is no path, and the message has the right form.
#[test]
fn the_administrative_address_is_no_host_and_port_in_one_text() {
    let builder = || TCPServer::builder(handler_fn(|_| Ok(())));
    for (text, form) in [("127.0.0.1:9999", "(\"127.0.0.1\", 9999)"), (":9100", "(\"\", 9100)")] {
        let error = builder().admin(text).bind(LOOPBACK).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(form), "{error}");
        assert!(!std::path::Path::new(text).exists());
    }
    // A server of this family has no path.
    let error = builder().bind("127.0.0.1:9999").unwrap_err();
    assert!(error.to_string().contains("AF_INET: write (\"127.0.0.1\", 9999)"), "{error}");
    assert!(!error.to_string().contains("./"), "{error}");
    let error = builder().bind(("::1", 70_000)).unwrap_err();
    assert!(error.to_string().contains("port must be 0-65535, not 70000"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("127.0.0.1:9999");
    let server = builder().admin(path.to_str().unwrap()).bind(LOOPBACK).unwrap();
    assert!(path.exists());
    drop(server);
}
