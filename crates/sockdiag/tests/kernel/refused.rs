//! Systems that refuse netlink, `/proc/net`, or both.

use std::collections::BTreeMap;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use sock::TcpState;
use sockdiag::{Deaths, Diag, Filter, Source, UnixFilter};

use crate::common::{connected, port};
use crate::users::{in_child, is_child_for};

/// The number of socket(2), where this test knows it.
const SYS_SOCKET: Option<i64> = if cfg!(target_arch = "x86_64") {
    Some(41)
} else if cfg!(target_arch = "aarch64") {
    Some(198)
} else {
    None
};

/// From now on this thread gets `EAFNOSUPPORT` for netlink sockets, as in a sandbox.
fn refuse_netlink(number: i64) {
    let family = sock::AF_NETLINK.as_raw() as u64;
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family).unwrap();
    let rules = BTreeMap::from([(number, vec![SeccompRule::new(vec![condition]).unwrap()])]);
    let refusal = SeccompAction::Errno(97);
    let target = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, target).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

#[test]
fn files_are_read_where_netlink_is_refused() {
    let Some(number) = SYS_SOCKET else {
        eprintln!("NOT RUN: the number of socket(2) is not known for {}", std::env::consts::ARCH);
        return;
    };
    // The filter stays on the thread.
    let sandboxed = std::thread::spawn(move || {
        refuse_netlink(number);
        let error = Diag::netlink().err().unwrap();
        assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("EAFNOSUPPORT"));
        assert!(error.to_string().starts_with("cannot open a netlink socket: "), "{error}");
        assert!(Deaths::new().is_err());

        let mut diag = Diag::new().unwrap();
        assert_eq!(diag.source(), Source::Procfs);
        let (server, client, connection) = connected();
        client.sendall(b"unread").unwrap();
        for (sock, state) in [(&server, TcpState::Listen), (&client, TcpState::Established)] {
            let row = diag.of(sock).unwrap().unwrap();
            assert_eq!((row.state, row.cookie, row.memory), (state, None, None));
            assert_eq!((row.interface, row.shutdown, row.v6only), (None, None, None));
            assert_eq!(diag.one(&row.id()).unwrap().unwrap().inode, row.inode);
        }
        let states = [TcpState::Listen, TcpState::Established];
        let rows = diag.tcp(&Filter::new().either_port(port(&server)).states(states)).unwrap();
        assert_eq!(rows.len(), 3);
        let (ours, _theirs) = sock::socketpair().unwrap();
        assert_eq!(diag.unix_of(&ours).unwrap().unwrap().state, TcpState::Established);
        assert!(!diag.unix(&UnixFilter::new()).unwrap().is_empty());
        drop(connection);
    });
    sandboxed.join().unwrap();
}

/// In a process of its own, since it allows no more descriptors.
#[test]
fn an_error_names_both_reasons_where_there_is_neither() {
    let test = "refused::an_error_names_both_reasons_where_there_is_neither";
    if !is_child_for(test) {
        in_child(test);
        return;
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
    let error = Diag::new().err().unwrap();
    let text = error.to_string();
    assert!(text.starts_with("cannot read the system's sockets: cannot open /proc/"), "{text}");
    assert!(text.contains("; cannot open a netlink socket: Too many open files"), "{text}");
    assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("EMFILE"));
}
