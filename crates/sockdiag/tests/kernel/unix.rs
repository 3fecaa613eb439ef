//! Unix sockets.

use sock::{
    AF_UNIX, Address, SHUT_WR, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM, Socket, TcpState, UnixAddress,
    socketpair, socketpair_with,
};
use sockdiag::{Diag, UnixFilter};

fn name_of(sock: &Socket) -> UnixAddress {
    match sock.getsockname().unwrap() {
        Address::Unix(name) => name,
        other => panic!("{other}"),
    }
}

#[test]
fn peer_queues_and_shutdown_of_a_pair_are_shown() {
    let mut diag = Diag::netlink().unwrap();
    let (ours, theirs) = socketpair().unwrap();
    theirs.sendall(b"twelve bytes").unwrap();
    theirs.shutdown(SHUT_WR).unwrap();
    let (our, their) = (diag.unix_of(&ours).unwrap().unwrap(), diag.unix_of(&theirs).unwrap().unwrap());
    assert_eq!(
        (our.kind, our.state, our.address),
        (SOCK_STREAM, TcpState::Established, UnixAddress::Unnamed)
    );
    assert_eq!((our.peer, their.peer), (Some(their.inode), Some(our.inode)));
    assert_eq!((our.cookie, our.recv_queue), (Some(ours.cookie().unwrap()), Some(12)));
    assert!(their.send_queue.unwrap() >= 12 && their.memory.unwrap().wmem_alloc >= 12);
    assert_eq!(our.uid, Some(rustix::process::geteuid().as_raw()));
    let (our, their) = (our.shutdown.unwrap(), their.shutdown.unwrap());
    assert_eq!((our.recv, our.send, their.recv, their.send), (true, false, false, true));
}

#[test]
fn names_and_the_accept_queue_are_shown() {
    let mut diag = Diag::netlink().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a path with spaces");
    for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
        for name in [
            UnixAddress::Path(path.with_extension(kind.to_string())),
            UnixAddress::Abstract(
                path.with_extension(kind.to_string()).to_str().unwrap().as_bytes().into(),
            ),
        ] {
            let server = Socket::new(AF_UNIX, kind, 0).unwrap();
            server.bind(Address::Unix(name.clone())).unwrap();
            server.listen(3).unwrap();
            let client = Socket::new(AF_UNIX, kind, 0).unwrap();
            client.connect(server.getsockname().unwrap()).unwrap();
            let row = diag.unix_of(&server).unwrap().unwrap();
            assert_eq!((row.address.clone(), name_of(&server)), (name.clone(), name.clone()));
            let queue = row.accept_queue.unwrap();
            assert_eq!((row.state, queue.waiting, queue.limit), (TcpState::Listen, 1, Some(3)));
            assert_eq!(row.pending, [diag.unix_of(&client).unwrap().unwrap().inode]);
            assert_eq!(row.file.is_some(), matches!(name, UnixAddress::Path(_)));

            let filter = UnixFilter::new().states([TcpState::Listen]).kind(kind).address(name.clone());
            let rows = diag.unix(&filter).unwrap();
            assert_eq!((rows.len(), rows[0].inode), (1, row.inode));
            // The file has the same kind, state, name and inode.
            let files = Diag::procfs().unwrap().unix(&filter).unwrap();
            assert_eq!((files.len(), files[0].inode, files[0].cookie), (1, row.inode, None));
            assert_eq!(
                Diag::procfs().unwrap().unix_of(&client).unwrap().unwrap().state,
                TcpState::Established
            );
        }
    }
}

#[test]
fn every_kind_is_shown() {
    let mut diag = Diag::netlink().unwrap();
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let (ours, _theirs) = socketpair_with(AF_UNIX, kind, 0).unwrap();
        assert_eq!(diag.unix_of(&ours).unwrap().unwrap().kind, kind);
    }
    let unconnected = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let row = diag.unix_of(&unconnected).unwrap().unwrap();
    assert_eq!((row.state, row.peer), (TcpState::Close, None));
    assert_eq!(diag.unix_one(row.inode).unwrap().unwrap().cookie, row.cookie);
    drop(unconnected);
    assert_eq!(diag.unix_one(row.inode).unwrap(), None);
    assert_eq!(diag.unix_one(0).unwrap(), None);
    assert_eq!(diag.unix_one(u64::MAX).unwrap(), None);
}
