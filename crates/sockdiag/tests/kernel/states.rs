//! Every state of TCP.

use std::time::Duration;

use sock::TcpState;
use sockdiag::{Diag, Filter, TimerKind};

use crate::common::{eventually, every_state};

#[test]
fn every_tcp_state_is_shown() {
    let sockets = every_state();
    let mut states: Vec<_> = sockets.iter().map(|socket| socket.state.number()).collect();
    states.sort_unstable();
    assert_eq!(states, (1..=11).collect::<Vec<_>>());

    // Each is found in three ways: in a dump of its state, by its identity, and in /proc/net, which
    // does not have sockets that are only bound.
    let mut diag = Diag::netlink().unwrap();
    let mut files = Diag::procfs().unwrap();
    for socket in &sockets {
        let (state, row) = (socket.state, &socket.row);
        assert_eq!((row.state, row.local.ip().to_string()), (state, "127.0.0.1".into()));
        let filter = Filter::new().states([state]).local_port(row.local.port());
        let mut dumped = diag.tcp(&filter).unwrap();
        dumped.retain(|other| other.cookie == row.cookie);
        assert_eq!(dumped.len(), 1, "{state}");
        assert_eq!(dumped[0].id(), row.id());
        if state == TcpState::Close {
            continue;
        }
        let one = diag.one(&row.id()).unwrap().unwrap_or_else(|| panic!("{state}: {:?}", row.id()));
        assert_eq!((one.id(), one.state), (row.id(), state));
        let in_files = files.tcp(&filter).unwrap();
        assert!(
            in_files.iter().any(|file| file.peer == row.peer && file.state == state),
            "{state}: {in_files:?}"
        );
    }
}

#[test]
fn a_timer_is_shown_with_the_time_left() {
    let sockets = every_state();
    let mut diag = Diag::netlink().unwrap();
    let timer_of = |state: TcpState| {
        let socket = sockets.iter().find(|socket| socket.state == state).unwrap();
        (socket.row.timer, socket.row.id())
    };
    let (timer, _) = timer_of(TcpState::TimeWait);
    let timer = timer.unwrap();
    assert_eq!((timer.kind, timer.retransmits), (TimerKind::TimeWait, 0));
    assert!(timer.left > Duration::from_secs(50) && timer.left <= Duration::from_secs(60), "{timer:?}");

    assert_eq!(timer_of(TcpState::Established).0, None);
    assert_eq!(timer_of(TcpState::Listen).0, None);

    // The SYN is sent again and again.
    let (_, id) = timer_of(TcpState::SynSent);
    let timer = eventually("the SYN is sent again", || {
        diag.one(&id).unwrap().and_then(|row| row.timer).filter(|timer| timer.retransmits > 0)
    });
    assert_eq!(timer.kind, TimerKind::Retransmit);
    assert!(timer.left <= Duration::from_secs(60), "{timer:?}");

    // The peer's window is closed.
    let (_, id) = timer_of(TcpState::FinWait1);
    let timer = eventually("the window is probed", || {
        diag.one(&id)
            .unwrap()
            .and_then(|row| row.timer)
            .filter(|timer| timer.kind == TimerKind::ZeroWindowProbe)
    });
    assert!(timer.left <= Duration::from_secs(120), "{timer:?}");
    drop(sockets);
}
