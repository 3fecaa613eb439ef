//! A server on all addresses answers from the address that a datagram was sent to.
//!
//! Linux has every address of 127.0.0.0/8 on its loopback interface. Other systems have one.
#![cfg(target_os = "linux")]

mod support;

use std::io::Write;
use std::net::IpAddr;

use sock::{AF_INET, AF_INET6, Address, IPPROTO_IP, SO_BROADCAST, SOCK_DGRAM, SOL_SOCKET, Socket};
use sockserver::{
    Builder, DatagramServer, Job, MixIn, Rejected, Request, Sequential, ServerHooks, ThreadPoolUDPServer,
    ThreadingUDPServer, UDPServer, datagram_handler_fn, kind, testing,
};

use support::{datagram_client, has_ipv6};

type Datagrams<M> = Builder<kind::Datagram<kind::Inet>, M>;

/// The handler answers with the address that it was asked at, once by `wfile` and once by `sendto`.
macro_rules! server {
    ($class:ident) => {
        $class::builder(datagram_handler_fn(|cx| {
            let address = cx.destination_address()?;
            write!(cx.wfile, "{address}")?;
            cx.sendto(&cx.wfile, cx.client_address).map(drop)
        }))
    };
}

fn client(source: &str) -> Socket {
    let family = if source.contains(':') { AF_INET6 } else { AF_INET };
    let client = datagram_client(family);
    client.setsockopt(SOL_SOCKET, SO_BROADCAST, true).unwrap();
    client.bind((source, 0)).unwrap();
    client
}

/// Returns the source addresses of both answers, and their text without the port.
#[track_caller]
fn ask(client: &Socket, to: &Address) -> (IpAddr, String) {
    client.sendto(b"where?", to).unwrap();
    let mut answers = (0..2).map(|_| client.recvfrom(100).unwrap());
    let (text, from) = answers.next().unwrap();
    assert_eq!(answers.next().unwrap(), (text.clone(), from.clone()), "wfile and sendto differ");
    assert_eq!(from.port(), to.port());
    let text = String::from_utf8(text).unwrap();
    let (ip, port) = text.rsplit_once(':').unwrap();
    assert_eq!(Some(port.parse().unwrap()), to.port());
    (from.ip().unwrap(), ip.trim_matches(['[', ']']).to_owned())
}

/// Asks a server for 0.0.0.0 and one for `::` at several addresses.
#[track_caller]
fn answers_from_where_it_was_asked<M: MixIn>(builder: impl Fn() -> Datagrams<M>) {
    for (bound, prefix) in [("0.0.0.0", ""), ("::", "::ffff:")] {
        if bound == "::" && !has_ipv6() {
            return;
        }
        let server = testing::serve(builder().bind((bound, 0)).unwrap());
        let port = server.address().port().unwrap();
        let client = client("127.0.0.1");
        for address in ["127.0.0.2", "127.0.0.1", "127.255.0.7"] {
            let asked = (address.parse().unwrap(), format!("{prefix}{address}"));
            assert_eq!(ask(&client, &address_of(address, port)), asked, "on {bound}");
        }
    }
    let server = testing::serve(builder().bind(("::", 0)).unwrap());
    let client = client("::1");
    let asked = ask(&client, &address_of("::1", server.address().port().unwrap()));
    assert_eq!(asked, ("::1".parse().unwrap(), "::1".to_owned()));
}

fn address_of(ip: &str, port: u16) -> Address {
    Address::from(std::net::SocketAddr::new(ip.parse().unwrap(), port))
}

#[test]
fn an_answer_comes_from_the_address_that_the_datagram_was_sent_to() {
    answers_from_where_it_was_asked(|| server!(UDPServer));
}

#[test]
fn answers_of_a_batch_come_from_the_addresses_that_the_datagrams_were_sent_to() {
    answers_from_where_it_was_asked(|| server!(UDPServer).max_batch(8));
    // Different addresses in one batch.
    let echo = datagram_handler_fn(|cx| cx.wfile.write_all(cx.packet));
    let server = UDPServer::builder(echo).max_batch(8).bind(("", 0)).unwrap();
    let (client, port) = (client("127.0.0.1"), server.server_address().port().unwrap());
    let addresses: Vec<String> = (1..=5).map(|n| format!("127.0.0.{n}")).collect();
    for address in &addresses {
        client.sendto(address.as_bytes(), (&**address, port)).unwrap();
    }
    let _server = testing::serve(server);
    for _ in &addresses {
        let (text, from) = client.recvfrom(100).unwrap();
        assert_eq!(from.ip().unwrap().to_string().as_bytes(), text);
    }
}

/// With hooks each datagram has a job.
struct NoHooks;

impl ServerHooks for NoHooks {}

#[test]
fn answers_in_jobs_threads_and_a_pool_come_from_the_right_address() {
    answers_from_where_it_was_asked(|| server!(UDPServer).hooks(NoHooks));
    answers_from_where_it_was_asked(|| server!(UDPServer).hooks(NoHooks).max_batch(4));
    answers_from_where_it_was_asked(|| server!(ThreadingUDPServer));
    answers_from_where_it_was_asked(|| server!(ThreadPoolUDPServer).workers(2));
}

#[derive(Default)]
struct Mine(Sequential);

impl MixIn for Mine {
    fn process_request(&self, job: Job) -> Result<(), Rejected> {
        self.0.process_request(job)
    }
}

type MyUDPServer = DatagramServer<kind::Inet, Mine>;

#[test]
fn answers_in_a_mixin_of_the_program_and_of_handle_request_come_from_the_right_address() {
    answers_from_where_it_was_asked(|| server!(MyUDPServer));
    let server = server!(UDPServer).bind(("", 0)).unwrap();
    let client = client("127.0.0.1");
    let asked = std::thread::scope(|scope| {
        let port = server.server_address().port().unwrap();
        let asked = scope.spawn(move || ask(&client, &address_of("127.0.0.3", port)));
        server.handle_request().unwrap();
        asked.join().unwrap()
    });
    assert_eq!(asked.1, "127.0.0.3");
}

#[test]
fn an_adopted_socket_is_answered_from_the_right_address() {
    let builder = || {
        let socket = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        socket.bind(("", 0)).unwrap();
        server!(UDPServer).adopt([socket]).unwrap()
    };
    let server = testing::serve(builder());
    let asked = ask(&client("127.0.0.1"), &address_of("127.0.0.2", server.address().port().unwrap()));
    assert_eq!(asked, ([127, 0, 0, 2].into(), "127.0.0.2".to_owned()));
}

struct Refusing;

impl ServerHooks for Refusing {
    fn verify_request(&self, request: &Request, client_address: &Address) -> bool {
        let address = request.destination_address().unwrap().to_string();
        request.sendto(address.as_bytes(), client_address).unwrap();
        false
    }
}

#[test]
fn a_hook_answers_from_the_address_that_the_datagram_was_sent_to() {
    let server = testing::serve(server!(UDPServer).hooks(Refusing).bind(("", 0)).unwrap());
    let (client, port) = (client("127.0.0.1"), server.address().port().unwrap());
    client.sendto(b"hello", ("127.0.0.2", port)).unwrap();
    let (text, from) = client.recvfrom(100).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), format!("127.0.0.2:{port}"));
    assert_eq!(from, address_of("127.0.0.2", port));
}

/// A broadcast address is no source address. The answer comes from the address of the interface.
#[test]
fn a_broadcast_is_answered_from_an_address_of_the_interface() {
    for (bound, max_batch) in [("0.0.0.0", 1), ("0.0.0.0", 8), ("::", 1), ("::", 8)] {
        if bound == "::" && !has_ipv6() {
            return;
        }
        let server = testing::serve(server!(UDPServer).max_batch(max_batch).bind((bound, 0)).unwrap());
        let port = server.address().port().unwrap();
        let (from, asked) = ask(&client("127.0.0.1"), &address_of("127.255.255.255", port));
        assert_eq!(from, IpAddr::from([127, 0, 0, 1]), "on {bound}");
        assert!(asked.ends_with("127.255.255.255"), "{asked}");
    }
}

#[test]
fn a_link_local_address_is_answered_from_it_with_its_interface() {
    let interfaces = sock::if_nameindex().unwrap();
    let mut tried = 0;
    for (index, name) in interfaces {
        let Some(ip) = link_local_address_of(&name) else { continue };
        for max_batch in [1, 8] {
            let server = testing::serve(server!(UDPServer).max_batch(max_batch).bind(("::", 0)).unwrap());
            let port = server.address().port().unwrap();
            let to =
                Address::from(std::net::SocketAddr::V6(std::net::SocketAddrV6::new(ip, port, 0, index)));
            let (from, asked) = ask(&client("::"), &to);
            assert_eq!(from, IpAddr::V6(ip));
            assert_eq!(asked, format!("{ip}%{index}"), "the scope is missing");
        }
        tried += 1;
    }
    if tried == 0 {
        eprintln!("NOT RUN: no interface has a link-local IPv6 address");
    }
}

/// Reads `/proc/net/if_inet6`: address, index, prefix, scope, flags, name.
fn link_local_address_of(name: &str) -> Option<std::net::Ipv6Addr> {
    const TENTATIVE: u8 = 0x40;
    let table = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|line| {
        line.get(5) == Some(&name)
            && line[3] == "20"
            && u8::from_str_radix(line[4], 16).is_ok_and(|flags| flags & TENTATIVE == 0)
    })?;
    u128::from_str_radix(line[0], 16).ok().map(std::net::Ipv6Addr::from)
}

/// A server that is bound to one address needs neither the option nor the larger calls.
#[test]
fn only_a_wildcard_address_requests_the_destination() {
    let has_option =
        |server: &UDPServer| server.socket().getsockopt(IPPROTO_IP, sock::IP_PKTINFO).unwrap() != 0;
    let bound = server!(UDPServer).bind(("127.0.0.2", 0)).unwrap();
    assert!(!has_option(&bound));
    assert!(has_option(&server!(UDPServer).bind(("", 0)).unwrap()));
    if has_ipv6() {
        assert!(has_option(&server!(UDPServer).bind(("::", 0)).unwrap()));
    }
    let server = testing::serve(bound);
    let asked = ask(&client("127.0.0.1"), server.address());
    assert_eq!(asked, ([127, 0, 0, 2].into(), "127.0.0.2".to_owned()));
}
