//! A call that fails keeps no descriptor, and a socket that is gone leaves none:
//! after a thousand of each kind the process has what it had before.
//!
//! Descriptors belong to the whole process. So this file is a process of its own,
//! with one test.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sock::{
    AF_INET, AF_INET6, AF_UNIX, ConnectionOptions, POLLIN, Poll, SOCK_DGRAM, SOCK_STREAM, ServerOptions,
    Socket, create_connection, create_connection_with, create_server, create_server_with, getaddrinfo,
    poll, socketpair, socketpair_with,
};

const TIMES: usize = 1024;

/// Every descriptor the process has, and what it is.
fn descriptors() -> Vec<String> {
    let mut descriptors: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        // The one that lists the folder is gone by now.
        .filter_map(|path| Some(format!("{} {}", path.display(), fs::read_link(&path).ok()?.display())))
        .collect();
    descriptors.sort();
    descriptors
}

fn tcp() -> io::Result<Socket> {
    Socket::new(AF_INET, SOCK_STREAM, 0)
}

/// Something to call again and again, and what it does.
type Case<'a> = (&'static str, Box<dyn Fn() -> io::Result<()> + 'a>);

macro_rules! cases {
    ($($what:literal: $call:expr,)*) => {
        [$(($what, Box::new(|| -> io::Result<()> { $call.map(drop) }) as Box<dyn Fn() -> io::Result<()>>)),*]
    };
}

#[track_caller]
fn assert_leaves_nothing<'a>(cases: impl IntoIterator<Item = Case<'a>>, succeeds: bool) {
    for (what, call) in cases {
        let before = descriptors();
        for _ in 0..TIMES {
            let outcome = call();
            assert_eq!(outcome.is_ok(), succeeds, "{what}: {outcome:?}");
        }
        assert_eq!(descriptors(), before, "{what}");
    }
}

#[test]
fn neither_a_failure_nor_a_life_leaves_a_descriptor() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let taken = server.getsockname().unwrap();
    let port = taken.port().unwrap();
    let deaf = tcp().unwrap();
    deaf.bind(("127.0.0.1", 0)).unwrap();
    let refused = deaf.getsockname().unwrap().port().unwrap();
    let long_path = "x".repeat(200);
    let (silent, _peer) = socketpair().unwrap();
    let v6 = ServerOptions::new().family(AF_INET6);
    let dualstack = ServerOptions::new().dualstack_ipv6(true);
    let moment = ConnectionOptions::new().timeout(Duration::from_nanos(1));
    let from_nowhere =
        ConnectionOptions::new().source_address(SocketAddr::from(([203, 0, 113, 1], 0)).into());

    assert_leaves_nothing(
        cases! {
            "bind to a taken port": tcp()?.bind(&taken),
            "bind to a bad port": tcp()?.bind(("127.0.0.1", 70_000)),
            "bind to a name that does not resolve": tcp()?.bind(("no..name", 80)),
            "bind to a host with a NUL": tcp()?.bind(("no\0name", 80)),
            "bind to a foreign address": tcp()?.bind(("203.0.113.1", 0)),
            "bind to another family": tcp()?.bind("/tmp/x"),
            "bind to a path that is too long": Socket::new(AF_UNIX, SOCK_STREAM, 0)?.bind(&long_path),
            "bind to a path that is not there":
                Socket::new(AF_UNIX, SOCK_STREAM, 0)?.bind("/no/such/folder/name"),
            "create_server on a taken port": create_server(&taken),
            "create_server on a bad port": create_server(("127.0.0.1", -1)),
            "create_server on a name that does not resolve": create_server(("no..name", 80)),
            "create_server on a foreign address": create_server_with(("2001:db8::1", 0), &v6),
            "create_server without its family": create_server_with(("127.0.0.1", 0), &dualstack),
            "create_connection that is refused": create_connection(("127.0.0.1", refused)),
            "create_connection from nowhere":
                create_connection_with(("127.0.0.1", port), &from_nowhere),
            "create_connection to a name that does not resolve": create_connection(("no..name", 80)),
            "create_connection with hardly any time": create_connection_with(("127.0.0.1", refused), &moment),
            "getaddrinfo": getaddrinfo("no..name", 80),
            "a family that is not there": Socket::new(999.into(), SOCK_STREAM, 0),
            "a pair of a family without pairs": socketpair_with(AF_INET, SOCK_STREAM, 0),
            "accept without listen": tcp()?.accept(),
            "adopting what is no socket": Socket::try_from(OwnedFd::from(File::open("/dev/null")?)),
        },
        false,
    );
    assert_leaves_nothing(
        cases! {
            "new": tcp(),
            "a socket that is closed": tcp()?.close(),
            "a socket that is detached": io::Result::Ok(tcp()?.detach()),
            "a socket that is adopted": Socket::try_from(tcp()?.detach()),
            "a socket that changes its mode": tcp()?.settimeout(Duration::from_secs(1)),
            "dup": tcp()?.dup(),
            "socketpair": socketpair(),
            "socketpair_with": socketpair_with(AF_UNIX, SOCK_DGRAM, 0),
            "create_server": create_server(("127.0.0.1", 0)),
            "has_dualstack_ipv6": io::Result::Ok(sock::has_dualstack_ipv6()),
            "poll": poll(&mut [Poll::new(&silent, POLLIN)], Some(Duration::ZERO)),
            "a connection": create_connection(("127.0.0.1", port)).and_then(|client| {
                client.sendall(b"x")?;
                server.accept()?.0.recv(1)
            }),
        },
        true,
    );
}
