//! No descriptor made here is inherited by a program the process starts (PEP
//! 446); `set_inheritable` changes that, and an adopted descriptor stays as it is.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use sock::{
    AF_INET, AF_UNIX, AsFd, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, Socket,
    create_connection, create_server, socketpair, socketpair_with,
};

/// What a program started now has under the number of this descriptor, if anything.
#[track_caller]
fn seen_by_a_child(fd: &impl AsRawFd) -> bool {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let ours = fs::read_link(&path).unwrap();
    assert!(ours.to_string_lossy().starts_with("socket:["), "{}", ours.display());
    let output = Command::new("readlink").arg(&path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end() == ours.to_string_lossy()
}

/// `FD_CLOEXEC`, as the kernel has it: `flags:` there is octal.
#[track_caller]
fn closes_on_exec(fd: &impl AsRawFd) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
    // On Linux the flag of socket(2) and the one shown here are one number.
    flags & SOCK_CLOEXEC.as_raw() != 0
}

/// The flag, what the socket says of it, and what a child sees, are all the same.
#[track_caller]
fn assert_inheritable(made_by: &str, sock: &Socket, inheritable: bool) {
    assert_eq!(sock.get_inheritable().unwrap(), inheritable, "{made_by}: get_inheritable()");
    assert_eq!(closes_on_exec(sock), !inheritable, "{made_by}: FD_CLOEXEC");
    assert_eq!(seen_by_a_child(sock), inheritable, "{made_by}: seen by a child");
}

fn tcp() -> Socket {
    Socket::new(AF_INET, SOCK_STREAM, 0).unwrap()
}

#[test]
fn no_child_inherits_a_socket_however_it_was_made() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    let port = server.getsockname().unwrap().port().unwrap();
    let client = create_connection(("127.0.0.1", port)).unwrap();
    let (accepted, _) = server.accept().unwrap();
    let (one, other) = socketpair().unwrap();
    let (one_datagram, other_datagram) = socketpair_with(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0).unwrap();
    let inheritable = tcp();
    inheritable.set_inheritable(true).unwrap();
    for (made_by, sock) in [
        ("new", tcp()),
        ("new with SOCK_NONBLOCK", Socket::new(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0).unwrap()),
        ("new with SOCK_CLOEXEC", Socket::new(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0).unwrap()),
        ("the function dup", Socket::try_from(sock::dup(inheritable.as_fd()).unwrap()).unwrap()),
        ("new of a datagram socket", Socket::new(AF_UNIX, SOCK_DGRAM, 0).unwrap()),
        ("accept", accepted),
        ("socketpair", one),
        ("socketpair", other),
        ("socketpair_with", one_datagram),
        ("socketpair_with", other_datagram),
        ("dup", client.dup().unwrap()),
        ("dup of an inheritable one", inheritable.dup().unwrap()),
        ("create_server", server),
        ("create_connection", client),
    ] {
        assert_inheritable(made_by, &sock, false);
    }
}

#[test]
fn accept_does_not_pass_on_that_the_listener_is_inheritable() {
    let server = create_server(("127.0.0.1", 0)).unwrap();
    server.set_inheritable(true).unwrap();
    let port = server.getsockname().unwrap().port().unwrap();
    let _client = create_connection(("127.0.0.1", port)).unwrap();
    assert_inheritable("accept", &server.accept().unwrap().0, false);
}

#[test]
fn set_inheritable_reaches_a_child_and_can_be_taken_back() {
    let sock = tcp();
    for inheritable in [true, true, false, false, true] {
        sock.set_inheritable(inheritable).unwrap();
        assert_inheritable("set_inheritable", &sock, inheritable);
    }
}

#[test]
fn a_change_of_mode_leaves_it_as_it_is() {
    let sock = tcp();
    for inheritable in [true, false] {
        sock.set_inheritable(inheritable).unwrap();
        sock.setblocking(false).unwrap();
        sock.setblocking(true).unwrap();
        assert_inheritable("settimeout", &sock, inheritable);
    }
}

#[test]
fn neither_detach_nor_adopting_a_descriptor_changes_it() {
    for inheritable in [true, false] {
        let sock = tcp();
        sock.set_inheritable(inheritable).unwrap();
        let fd = sock.detach();
        assert_eq!(closes_on_exec(&fd), !inheritable);
        assert_eq!(seen_by_a_child(&fd), inheritable);
        let adopted = Socket::try_from(fd).unwrap();
        assert_inheritable("try_from", &adopted, inheritable);
        assert_eq!(closes_on_exec(&OwnedFd::from(adopted)), !inheritable);
    }
}
