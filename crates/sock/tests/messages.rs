//! The promise: messages carry ancillary data both ways, nothing of it is lost
//! or left open, and truncation is reported.
#![cfg(unix)]

use std::io::{self, IoSlice, IoSliceMut};

use sock::{
    AF_UNIX, Ancillary, AsFd, AsRawFd, CMSG_LEN, CMSG_SPACE, MSG_CTRUNC, MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC,
    MsgFlags, SCM_RIGHTS, SOCK_DGRAM, SOL_SOCKET, Socket, socketpair, socketpair_with,
};

fn datagrams() -> (Socket, Socket) {
    socketpair_with(AF_UNIX, SOCK_DGRAM, 0).unwrap()
}

/// Whether the other end of a pair is gone, wherever it may have been open.
fn is_closed(end: &Socket) -> bool {
    end.recv_with_flags(1, MSG_DONTWAIT).is_ok_and(|data| data.is_empty())
}

fn rights<'fd>(fds: &[&'fd Socket]) -> Ancillary<'fd> {
    Ancillary::rights(&fds.iter().map(|&fd| fd.as_fd()).collect::<Vec<_>>())
}

#[test]
fn buffers_are_gathered_and_scattered() {
    let (ours, theirs) = socketpair().unwrap();
    let sent =
        ours.sendmsg(&[IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"message")], &[]).unwrap();
    assert_eq!(sent, 11);
    let (mut first, mut second) = ([0; 3], [0; 100]);
    let message =
        theirs.recvmsg_into(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)], 0).unwrap();
    assert_eq!(message.received, 11);
    assert_eq!((&first[..], &second[..8]), (&b"one"[..], &b" message"[..]));
    assert!(message.ancillary.is_empty() && message.flags == MsgFlags::NONE);
}

#[test]
fn the_end_of_a_stream_is_an_empty_message() {
    let (ours, theirs) = socketpair().unwrap();
    drop(ours);
    let message = theirs.recvmsg(100, 100).unwrap();
    assert!(message.data.is_empty() && message.ancillary.is_empty());
}

#[test]
fn a_datagram_that_is_cut_is_flagged() {
    let (ours, theirs) = datagrams();
    ours.send(b"too long").unwrap();
    let message = theirs.recvmsg(3, 0).unwrap();
    assert_eq!((&message.data[..], message.flags.contains(MSG_TRUNC)), (&b"too"[..], true));
}

#[test]
fn descriptors_come_owned_and_close_on_exec() {
    let (ours, theirs) = datagrams();
    let (passed, kept) = socketpair().unwrap();
    ours.sendmsg(&[IoSlice::new(b"x")], &[rights(&[&passed])]).unwrap();
    drop(passed);
    assert!(!is_closed(&kept), "on its way it is open");

    let message = theirs.recvmsg(10, CMSG_SPACE(4).unwrap()).unwrap();
    let [item] = <[_; 1]>::try_from(message.ancillary).unwrap();
    assert_eq!((item.level(), item.kind(), item.is_truncated()), (SOL_SOCKET, SCM_RIGHTS, false));
    let [fd] = <[_; 1]>::try_from(item.into_descriptors()).unwrap();
    let passed = Socket::try_from(fd).unwrap();
    assert!(!passed.get_inheritable().unwrap());
    passed.sendall(b"alive").unwrap();
    assert_eq!(kept.recv(10).unwrap(), b"alive");
    drop(passed);
    assert!(is_closed(&kept));
}

#[test]
fn unused_descriptors_are_closed() {
    let (ours, theirs) = datagrams();
    let (passed, kept) = socketpair().unwrap();
    ours.sendmsg(&[IoSlice::new(b"x")], &[rights(&[&passed])]).unwrap();
    drop(passed);
    drop(theirs.recvmsg(10, 100).unwrap());
    assert!(is_closed(&kept));
}

#[test]
fn descriptors_without_room_are_closed_and_flagged() {
    let (ours, theirs) = datagrams();
    let (passed, kept) = socketpair().unwrap();
    let (too_many, also_kept) = socketpair().unwrap();
    ours.sendmsg(&[IoSlice::new(b"x")], &[rights(&[&passed, &too_many])]).unwrap();
    drop((passed, too_many));
    let received = theirs.recv_fds(10, 1).unwrap();
    assert_eq!(received.descriptors.len(), 1);
    assert!(received.flags.contains(MSG_CTRUNC));
    assert!(!is_closed(&kept) && is_closed(&also_kept));

    let none = datagrams();
    none.0.sendmsg(&[IoSlice::new(b"x")], &[rights(&[&kept])]).unwrap();
    let message = none.1.recvmsg(10, 0).unwrap();
    assert!(message.ancillary.is_empty() && message.flags.contains(MSG_CTRUNC));
}

#[test]
fn an_item_that_is_cut_is_kept_and_flagged() {
    let (ours, theirs) = datagrams();
    let (one, _one) = socketpair().unwrap();
    let (other, _other) = socketpair().unwrap();
    ours.sendmsg(&[IoSlice::new(b"x")], &[rights(&[&one, &other])]).unwrap();
    // Room for one descriptor and a half.
    let message = theirs.recvmsg(10, CMSG_LEN(4).unwrap() + 2).unwrap();
    assert!(message.flags.contains(MSG_CTRUNC));
    let [item] = <[_; 1]>::try_from(message.ancillary).unwrap();
    assert!(item.data().len() < 8);
    assert_eq!(item.into_descriptors().len(), 1);
}

#[test]
fn more_than_memory_holds_is_an_error_and_no_panic() {
    let (ours, theirs) = datagrams();
    ours.send(b"hello").unwrap();
    for bufsize in [usize::MAX, isize::MAX as usize] {
        let errors = [theirs.recvmsg(bufsize, 0).unwrap_err(), theirs.recv_fds(bufsize, 1).unwrap_err()];
        for error in errors {
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            assert_eq!(error.to_string(), format!("no memory for {bufsize} bytes"));
        }
        let error = theirs.recv_fds(1, bufsize).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(theirs.recv(100).unwrap(), b"hello");
}

#[test]
fn recv_fds_honours_its_flags() {
    // CPython takes them and ignores them (gh-107898).
    let (ours, theirs) = datagrams();
    let (passed, _kept) = socketpair().unwrap();
    ours.send_fds(&[IoSlice::new(b"take this")], &[passed.as_fd()]).unwrap();
    let peeked = theirs.recv_fds_with_flags(100, 4, MSG_PEEK).unwrap();
    assert_eq!((&peeked.data[..], peeked.descriptors.len()), (&b"take this"[..], 1));
    let taken = theirs.recv_fds(100, 4).unwrap();
    assert_eq!((&taken.data[..], taken.descriptors.len()), (&b"take this"[..], 1));
    let error = theirs.recv_fds_with_flags(100, 4, MSG_DONTWAIT).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn send_fds_honours_its_flags_and_its_address() {
    // CPython takes both and ignores them (gh-107898).
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("receiver");
    let receiver = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    receiver.bind(&path).unwrap();
    let sender = Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap();
    let (passed, kept) = socketpair().unwrap();
    let data = [IoSlice::new(b"take this")];
    sender.send_fds_to(&data, &[passed.as_fd()], MsgFlags::NONE, &path).unwrap();
    drop(passed);
    let taken = receiver.recv_fds(100, 4).unwrap();
    assert_eq!((&taken.data[..], taken.descriptors.len()), (&b"take this"[..], 1));
    drop(taken);
    assert!(is_closed(&kept));

    // A queue that is full is waited for, unless the flags say otherwise.
    let (ours, _theirs) = datagrams();
    let sent = |_| ours.send_fds_with_flags(&data, &[kept.as_fd()], MSG_DONTWAIT);
    let error = (0..1_000_000).map(sent).find_map(Result::err).unwrap();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_message_can_be_addressed() {
    let receiver = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
    receiver.bind(("127.0.0.1", 0)).unwrap();
    let sender = Socket::new(sock::AF_INET, SOCK_DGRAM, 0).unwrap();
    let to = receiver.getsockname().unwrap();
    sender.sendmsg_to(&[IoSlice::new(b"hello")], &[], MsgFlags::NONE, &to).unwrap();
    let message = receiver.recvmsg(100, 0).unwrap();
    assert_eq!(message.data, b"hello");
    assert_eq!(message.address.port(), sender.getsockname().unwrap().port());
}

#[test]
fn ancillary_data_a_socket_does_not_take_is_an_error() {
    let (ours, _theirs) = datagrams();
    let nonsense = Ancillary::new(SOL_SOCKET, 12345, b"nonsense");
    let error = ours.sendmsg(&[IoSlice::new(b"x")], &[nonsense]).unwrap_err();
    assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("EINVAL"));
    assert!(ours.recvmsg(1, usize::MAX).unwrap_err().to_string().contains("ancbufsize"));
}

/// Whatever is behind a number, it is not the caller's to give away.
#[test]
fn a_number_is_no_descriptor_to_send() {
    let (ours, theirs) = datagrams();
    for numbers in [vec![], vec![ours.fileno()], vec![0, 1, 2], vec![-1]] {
        let numbers: Vec<u8> = numbers.into_iter().flat_map(i32::to_ne_bytes).collect();
        let items = || [Ancillary::new(SOL_SOCKET, SCM_RIGHTS, numbers.clone())];
        let bytes = [IoSlice::new(b"x")];
        let error = ours.sendmsg(&bytes, &items()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("Ancillary::rights"), "{error}");
        let error = ours.sendmsg_with_flags(&bytes, &items(), MSG_DONTWAIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    let error = theirs.recv_with_flags(1, MSG_DONTWAIT).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "nothing was sent");
}

#[test]
fn received_descriptors_can_be_sent_on() {
    let (ours, theirs) = datagrams();
    let (passed, kept) = socketpair().unwrap();
    ours.sendmsg(&[IoSlice::new(b"x")], &[rights(&[&passed])]).unwrap();
    drop(passed);
    let message = theirs.recvmsg(1, 100).unwrap();
    theirs.sendmsg(&[IoSlice::new(b"y")], &message.ancillary).unwrap();
    assert!(!is_closed(&kept));
    drop(message);
    let descriptors = ours.recv_fds(1, 1).unwrap().descriptors;
    assert!(descriptors.len() == 1 && !is_closed(&kept));
    drop(descriptors);
    assert!(is_closed(&kept));
}

/// The sender's process as a descriptor, which is the receiver's to close.
#[cfg(target_os = "linux")]
#[test]
fn a_received_pidfd_is_owned() {
    const SO_PASSPIDFD: i32 = 76;
    const SCM_PIDFD: i32 = 4;
    let (ours, theirs) = datagrams();
    if let Err(error) = theirs.setsockopt(SOL_SOCKET, SO_PASSPIDFD, true) {
        // Linux before 6.5.
        assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("ENOPROTOOPT"));
        return;
    }
    ours.send(b"x").unwrap();
    let message = theirs.recvmsg(1, 100).unwrap();
    let item = message.ancillary.iter().find(|item| item.kind() == SCM_PIDFD).unwrap();
    let [pidfd] = item.descriptors() else { panic!("{item:?}") };
    assert_eq!(item.data(), pidfd.as_raw_fd().to_ne_bytes());
    let link = std::fs::read_link(format!("/proc/self/fd/{}", pidfd.as_raw_fd())).unwrap();
    assert_eq!(link.to_str(), Some("anon_inode:[pidfd]"));
}

/// An option whose value is a new descriptor cannot be read as a number, which nothing closes.
#[cfg(target_os = "linux")]
#[test]
fn a_pidfd_of_the_peer_is_owned() {
    const SO_PEERPIDFD: i32 = 77;
    let (ours, _theirs) = sock::socketpair().unwrap();
    for refused in [
        ours.getsockopt(SOL_SOCKET, SO_PEERPIDFD).map(|_| ()),
        ours.getsockopt_bytes(SOL_SOCKET, SO_PEERPIDFD, 4).map(|_| ()),
        ours.getsockopt_bytes(SOL_SOCKET, SO_PEERPIDFD, 1).map(|_| ()),
        ours.getsockopt_bytes(132, 102, 8).map(|_| ()),
        ours.getsockopt_bytes(132, 122, 12).map(|_| ()),
    ] {
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    let link = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}"));
    match ours.peer_pidfd() {
        Ok(pidfd) => assert_eq!(link(pidfd.as_raw_fd()).unwrap().to_str(), Some("anon_inode:[pidfd]")),
        // Linux before 6.5.
        Err(error) => assert_eq!(sock::errno(&error).and_then(sock::errno_name), Some("ENOPROTOOPT")),
    }
}

/// The kernel would read the data after the call has returned, when it may have been freed.
#[cfg(target_os = "linux")]
#[test]
fn zero_copy_sends_of_borrowed_data_are_refused() {
    const MSG_ZEROCOPY: i32 = 0x400_0000;
    const SO_ZEROCOPY: i32 = 60;
    let listener = sock::create_server(("127.0.0.1", 0)).unwrap();
    let stream = Socket::new(sock::AF_INET, sock::SOCK_STREAM, 0).unwrap();
    stream.connect(listener.getsockname().unwrap()).unwrap();
    let datagram = Socket::new(sock::AF_INET, sock::SOCK_DGRAM, 0).unwrap();
    let (six, data) = (Socket::new(sock::AF_INET6, sock::SOCK_DGRAM, 0), vec![0; 100_000]);
    let flags = sock::MsgFlags::from(MSG_ZEROCOPY) | sock::MSG_DONTWAIT;
    let results = [
        stream
            .setsockopt(SOL_SOCKET, SO_ZEROCOPY, true)
            .and_then(|()| stream.send_with_flags(&data, flags)),
        stream.sendall_with_flags(&data, flags).map(|()| 1),
        stream.sendmsg_with_flags(&[IoSlice::new(&data)], &[], flags),
        datagram.sendto_with_flags(b"x", flags, ("127.0.0.1", 9)),
        datagram.sendmsg_to(&[IoSlice::new(b"x")], &[], flags, ("127.0.0.1", 9)),
        datagram.sendmmsg_with_flags(&[("x", sock::Address::None)], flags).map(|sent| sent.count),
        stream.send_fds_with_flags(&[IoSlice::new(&data)], &[], flags),
    ];
    let six = six.ok().map(|six| six.sendto_with_flags(b"x", flags, ("::1", 9)));
    for result in results.into_iter().chain(six) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("MSG_ZEROCOPY"), "{error}");
    }
}
