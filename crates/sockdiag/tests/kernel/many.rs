//! Many sockets.

use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sock::{AF_INET, Linger, SOCK_STREAM, Socket, TcpState};
use sockdiag::{Diag, Filter, Row};

use crate::common::{address, eventually, port};

const SOCKETS: usize = 10_000;
const LISTENERS: usize = 3;
/// Descriptors of the other tests in this process.
const SPARE: u64 = 1000;

/// Each connection is two sockets, of which the accepted end has no descriptor yet.
#[test]
fn ten_thousand_sockets_are_dumped() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = (SOCKETS / 2) as u64 + SPARE;
    let possible = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if limit.current.is_some_and(|current| current < possible) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum: limit.maximum }).unwrap();
    }
    let connections = (possible.saturating_sub(SPARE) as usize).min(SOCKETS / 2);
    if connections < SOCKETS / 2 {
        eprintln!(
            "NOT RUN with {SOCKETS} sockets: the limit of {possible} descriptors allows {}",
            2 * connections
        );
    }

    let listeners: Vec<_> = (0..LISTENERS)
        .map(|_| {
            let server = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
            server.bind(("127.0.0.1", 0)).unwrap();
            server.listen(4096).unwrap();
            server
        })
        .collect();
    let clients: Vec<_> = (0..connections)
        .map(|number| {
            let client = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
            client.connect(address(&listeners[number % LISTENERS])).unwrap();
            // It leaves no TIME-WAIT behind.
            client.set_linger(Linger { l_onoff: true, l_linger: 0 }).unwrap();
            client
        })
        .collect();

    let mut diag = Diag::netlink().unwrap();
    let ports: Vec<_> = listeners.iter().map(port).collect();
    // A TIME-WAIT of an earlier test may have one of these ports.
    let is_ours = |row: &Row| {
        row.state != TcpState::TimeWait
            && (ports.contains(&row.local.port()) || ports.contains(&row.peer.port()))
    };
    let begin = Instant::now();
    let (mut ours, mut cookies) = (0, std::collections::HashSet::new());
    diag.each_tcp(&Filter::new(), |row| {
        assert!(row.info.is_some() || row.state == TcpState::TimeWait || row.inode == 0, "{row:?}");
        if is_ours(&row) {
            ours += 1;
            cookies.insert(row.cookie);
        }
    })
    .unwrap();
    println!("{ours} sockets in {:?}", begin.elapsed());
    assert_eq!((ours, cookies.len()), (2 * connections + LISTENERS, 2 * connections + LISTENERS));

    let mut rows = diag.tcp(&Filter::new().either_port(ports[0])).unwrap();
    rows.retain(is_ours);
    assert_eq!(rows.len(), 2 * connections.div_ceil(LISTENERS) + 1);
    let last = diag.of(clients.last().unwrap()).unwrap().unwrap();
    assert_eq!(last.cookie, Some(clients.last().unwrap().cookie().unwrap()));
    // A file is read in pieces, so other sockets that come and go make some appear twice.
    let mut files = Diag::procfs().unwrap();
    eventually("the files have the same sockets", || {
        let mut from_files = std::collections::HashSet::new();
        let insert = |row: Row| {
            if is_ours(&row) {
                from_files.insert((row.local, row.peer));
            }
        };
        files.each_tcp(&Filter::new(), insert).unwrap();
        (from_files.len() == ours).then_some(())
    });
}
