//! Rows beside those of ss(8) and of the crate `procfs`.

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::time::Duration;

use sock::{IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_KEEPIDLE, TcpState};
use sockdiag::{Diag, Filter, Protocol, Row, TimerKind};

use crate::common::{connected, eventually, every_state, full_listener, has_ipv6, port};

/// A row of ss: its columns, and the words behind them.
struct SsRow {
    state: String,
    queues: (u32, u32),
    addresses: (String, String),
    words: Vec<String>,
}

impl SsRow {
    /// What stands behind a name, as in `uid:1000`.
    fn value(&self, name: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'))
    }

    fn cookie(&self) -> Option<u64> {
        u64::from_str_radix(self.value("sk")?, 16).ok()
    }
}

/// The TCP sockets of this host that ss shows, or `None` where there is no ss.
fn ss(filter: &[&str]) -> Option<Vec<SsRow>> {
    let output = match Command::new("ss").args(["-H", "-tanoeim"]).args(filter).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(
                std::env::var_os("SOCK_REQUIRE_PEERS").is_none(),
                "ss of iproute2 is required: {error}"
            );
            eprintln!("NOT RUN: there is no ss (package iproute2): {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A line that begins with white space goes on with the row before it.
    let text = String::from_utf8(output.stdout).unwrap().replace("\n\t", " ");
    let row = |line: &str| {
        let mut words: Vec<_> = line.split_ascii_whitespace().map(str::to_owned).collect();
        let rest = words.split_off(5);
        SsRow {
            state: words[0].clone(),
            queues: (words[1].parse().unwrap(), words[2].parse().unwrap()),
            addresses: (words[3].clone(), words[4].clone()),
            words: rest,
        }
    };
    Some(text.lines().map(row).collect())
}

/// `1min59sec`, `9.900ms`, `120ms`, `50sec`: a dot is before the thousandths of a second.
fn time(text: &str) -> Duration {
    let (minutes, rest) = text.split_once("min").unwrap_or(("0", text));
    let minutes = Duration::from_secs(60 * minutes.parse::<u64>().unwrap());
    let number = |text: &str| Duration::from_secs_f64(text.parse().unwrap());
    minutes
        + match (rest.strip_suffix("sec"), rest.strip_suffix("ms")) {
            (Some(seconds), _) => number(seconds),
            (_, Some(seconds)) if seconds.contains('.') => number(seconds),
            (_, Some(millis)) => number(millis) / 1000,
            _ => Duration::ZERO,
        }
}

fn same_as_ss(row: &Row, ss: &SsRow) {
    let context = format!("{row:?}\n{:?}", ss.words);
    assert_eq!(row.state.ss_name(), ss.state, "{context}");
    let queues = match row.accept_queue {
        Some(queue) => (queue.waiting, queue.limit.unwrap()),
        None => (row.recv_queue, row.send_queue),
    };
    assert_eq!(queues, ss.queues, "{context}");
    let port_of = |address: &str| address.rsplit_once(':').unwrap().1.parse().unwrap_or(0);
    assert_eq!(row.local.port(), port_of(&ss.addresses.0), "{context}");
    assert_eq!(row.peer.port(), port_of(&ss.addresses.1), "{context}");
    assert!(ss.addresses.0.contains(&row.local.ip().to_string()), "{context}");

    // ss leaves out what is 0.
    assert_eq!(row.uid.unwrap_or_default().to_string(), ss.value("uid").unwrap_or("0"), "{context}");
    assert_eq!(row.inode.to_string(), ss.value("ino").unwrap_or("0"), "{context}");
    assert_eq!(row.timer.is_some(), ss.value("timer").is_some(), "{context}");
    if let Some(timer) = row.timer {
        let columns: Vec<_> = ss.value("timer").unwrap().trim_matches(['(', ')']).split(',').collect();
        assert_eq!(timer.kind.ss_name(), columns[0], "{context}");
        // ss ran after the row was read.
        assert!(timer.left.abs_diff(time(columns[1])) < Duration::from_secs(20), "{context}");
        // A probe counts until it is answered, which takes a moment on loopback.
        if timer.kind != TimerKind::ZeroWindowProbe {
            assert_eq!(timer.retransmits.to_string(), columns[2], "{context}");
        }
    }
    if let Some(shutdown) = row.shutdown {
        let arrow =
            format!("{}-{}", if shutdown.recv { '-' } else { '<' }, if shutdown.send { '-' } else { '>' });
        assert!(ss.words.contains(&arrow), "{arrow} {context}");
    }
    assert_eq!(row.memory.is_some(), ss.value("skmem").is_some(), "{context}");
    if let Some(memory) = row.memory {
        let skmem = format!(
            "(r{},rb{},t{},tb{},f{},w{},o{},bl{},d{})",
            memory.rmem_alloc,
            memory.rcvbuf,
            memory.wmem_alloc,
            memory.sndbuf,
            memory.fwd_alloc,
            memory.wmem_queued,
            memory.optmem,
            memory.backlog,
            memory.drops.unwrap()
        );
        assert_eq!(ss.value("skmem"), Some(&skmem[..]), "{context}");
    }
    if let Some(congestion) = &row.congestion {
        assert!(ss.words.contains(congestion), "{context}");
    }
    if let Some(info) = row.info.as_ref().filter(|_| row.state == TcpState::Established) {
        assert_eq!(ss.value("mss"), Some(&info.snd_mss.unwrap().to_string()[..]), "{context}");
        assert_eq!(ss.value("cwnd"), Some(&info.snd_cwnd.to_string()[..]), "{context}");
        let rtt = |time: Option<Duration>| time.unwrap().as_micros() as f64 / 1000.0;
        assert_eq!(
            ss.value("rtt"),
            Some(&format!("{}/{}", rtt(info.rtt), rtt(info.rttvar))[..]),
            "{context}"
        );
    }
}

/// Compares the sockets of some ports with ss, each at a moment at which it does not change.
fn compare(ports: &[u16], expected: usize) {
    let mut diag = Diag::netlink().unwrap();
    let filter = Filter::new().states((1..=11).map(TcpState::from_number));
    let mut dump = || -> HashMap<u64, Row> {
        let mut rows = diag.tcp(&filter).unwrap();
        rows.retain(|row| ports.contains(&row.local.port()) || ports.contains(&row.peer.port()));
        rows.into_iter().map(|row| (row.cookie.unwrap(), row)).collect()
    };
    // Without what passes by itself.
    let still = |row: &Row| {
        let mut row = row.clone();
        row.info = None;
        if let Some(timer) = &mut row.timer {
            timer.left = Duration::ZERO;
        }
        row
    };
    let mut compared = HashSet::new();
    eventually("each row is compared", || {
        let before = dump();
        let Some(beside) = ss(&[]) else { return Some(()) };
        let after = dump();
        // ss of iproute2 6.1 does not ask for sockets that are only bound.
        let shown = |row: &Row| row.state != TcpState::Close;
        assert!(before.len() >= expected, "{} rows", before.len());
        let beside: HashMap<_, _> = beside.iter().filter_map(|row| Some((row.cookie()?, row))).collect();
        let unchanged = before
            .values()
            .filter(|row| after.get(&row.cookie.unwrap()).is_some_and(|after| still(after) == still(row)));
        for row in unchanged.filter(|row| shown(row)) {
            let cookie = row.cookie.unwrap();
            same_as_ss(row, beside.get(&cookie).unwrap_or_else(|| panic!("ss does not show {row:?}")));
            compared.insert(cookie);
        }
        before
            .values()
            .filter(|row| shown(row))
            .all(|row| compared.contains(&row.cookie.unwrap()))
            .then_some(())
    });
}

#[test]
fn rows_are_those_of_ss() {
    let (full, clients) = full_listener(1);
    let (server, client, connection) = connected();
    client.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, 500).unwrap();
    client.setsockopt(SOL_SOCKET, SO_KEEPALIVE, true).unwrap();
    client.sendall(&[0; 1234]).unwrap();
    eventually("the bytes arrive", || (connection.recv_queue().unwrap() == 1234).then_some(()));
    // A listener with two unaccepted connections, their clients, and one client in SYN-SENT; a
    // listener with a connection, both ends.
    compare(&[port(&full), port(&server)], 9);
    drop(clients);
}

#[test]
fn every_state_is_that_of_ss() {
    let sockets = every_state();
    let ports: Vec<_> = sockets.iter().map(|socket| socket.row.local.port()).collect();
    compare(&ports, sockets.len());
}

#[test]
fn rows_are_those_of_the_crate_procfs() {
    let (server, client, connection) = connected();
    connection.sendall(b"twelve bytes").unwrap();
    eventually("the bytes arrive", || (client.recv_queue().unwrap() == 12).then_some(()));
    for mut diag in [Diag::netlink().unwrap(), Diag::procfs().unwrap()] {
        let entries = procfs::net::tcp().unwrap();
        let mut compared = 0;
        for sock in [&server, &client, &connection] {
            let row = diag.of(sock).unwrap().unwrap();
            let entry = entries.iter().find(|entry| entry.inode == row.inode).unwrap();
            assert_eq!((entry.local_address, entry.remote_address), (row.local, row.peer));
            assert_eq!(entry.state.to_u8(), row.state.number());
            assert_eq!(Some(entry.uid), row.uid);
            if row.accept_queue.is_none() {
                assert_eq!((entry.rx_queue, entry.tx_queue), (row.recv_queue, row.send_queue));
                compared += 1;
            }
        }
        assert_eq!(compared, 2);
    }
    if has_ipv6() {
        let udp = sock::Socket::new(sock::AF_INET6, sock::SOCK_DGRAM, 0).unwrap();
        udp.bind(("::1", 0)).unwrap();
        let row = Diag::procfs().unwrap().of(&udp).unwrap().unwrap();
        let entries = procfs::net::udp6().unwrap();
        let entry = entries.iter().find(|entry| entry.inode == row.inode).unwrap();
        assert_eq!((entry.local_address, row.protocol), (row.local, Protocol::Udp));
    }

    let (ours, _theirs) = sock::socketpair().unwrap();
    let row = Diag::procfs().unwrap().unix_of(&ours).unwrap().unwrap();
    let entries = procfs::net::unix().unwrap();
    let entry = entries.iter().find(|entry| entry.inode == row.inode).unwrap();
    assert_eq!(i32::from(entry.socket_type), row.kind.as_raw());
}
