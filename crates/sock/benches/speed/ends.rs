//! The two ends of a connection, in each variant's hands.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use sock::{Socket, SocketPair};

/// Sends and receives whole messages.
pub(crate) trait End {
    fn send_all(&mut self, message: &[u8]);
    fn receive_all(&mut self, buffer: &mut [u8]);
}

/// A connected pair over the loopback interface, with room for what one thread
/// sends before it receives.
pub(crate) fn connection() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    setsockopt(&listener, sockopt::RcvBuf, &(1 << 20)).expect("a larger buffer");
    let one = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (other, _) = listener.accept().expect("a client has connected");
    for end in [&one, &other] {
        end.set_nodelay(true).expect("TCP has this option");
        setsockopt(end, sockopt::SndBuf, &(1 << 20)).expect("a larger buffer");
    }
    (one.into(), other.into())
}

/// send(2) and recv(2), nothing else.
pub(crate) struct Raw(pub(crate) OwnedFd);

/// Apple's systems have an option instead.
#[cfg(not(target_vendor = "apple"))]
const NO_SIGNAL: MsgFlags = MsgFlags::MSG_NOSIGNAL;
#[cfg(target_vendor = "apple")]
const NO_SIGNAL: MsgFlags = MsgFlags::empty();

impl Raw {
    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// One recv(2).
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> usize {
        recv(self.fd(), buffer, MsgFlags::empty()).expect("the other end is there")
    }
}

impl End for Raw {
    fn send_all(&mut self, mut message: &[u8]) {
        while !message.is_empty() {
            let sent = send(self.fd(), message, NO_SIGNAL).expect("the other end is there");
            message = &message[sent..];
        }
    }

    fn receive_all(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let received = self.receive(buffer);
            assert_ne!(received, 0);
            buffer = &mut buffer[received..];
        }
    }
}

pub(crate) struct Std(pub(crate) TcpStream);

impl End for Std {
    fn send_all(&mut self, message: &[u8]) {
        self.0.write_all(message).expect("the other end is there");
    }

    fn receive_all(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let received = self.0.read(buffer).expect("the other end is there");
            assert_ne!(received, 0);
            buffer = &mut buffer[received..];
        }
    }
}

pub(crate) struct Sock(pub(crate) Socket);

impl Sock {
    pub(crate) fn new(fd: OwnedFd, timeout: Option<Duration>) -> Sock {
        let socket = Socket::try_from(fd).expect("it is a socket");
        socket.settimeout(timeout).expect("a short timeout");
        Sock(socket)
    }
}

impl End for Sock {
    fn send_all(&mut self, message: &[u8]) {
        self.0.sendall(message).expect("the other end is there");
    }

    fn receive_all(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let received = self.0.recv_into(buffer).expect("the other end is there");
            assert_ne!(received, 0);
            buffer = &mut buffer[received..];
        }
    }
}

/// A file over a socket that lives as long as the program.
pub(crate) struct Makefile(SocketPair<'static>);

impl Makefile {
    pub(crate) fn new(fd: OwnedFd) -> Makefile {
        let socket: &'static Socket = Box::leak(Box::new(Socket::try_from(fd).expect("it is a socket")));
        Makefile(socket.makefile_rwb())
    }
}

impl End for Makefile {
    fn send_all(&mut self, message: &[u8]) {
        self.0.write_all(message).and_then(|()| self.0.flush()).expect("the other end is there");
    }

    fn receive_all(&mut self, buffer: &mut [u8]) {
        self.0.read_exact(buffer).expect("the other end is there");
    }
}

/// CPython's way with a timeout: waits, then calls.
pub(crate) struct PollFirst(pub(crate) OwnedFd);

impl PollFirst {
    fn wait(&self, flags: PollFlags) {
        let ready = poll(&mut [PollFd::new(self.0.as_fd(), flags)], PollTimeout::from(60_000_u16));
        assert_eq!(ready, Ok(1));
    }
}

impl End for PollFirst {
    fn send_all(&mut self, mut message: &[u8]) {
        while !message.is_empty() {
            self.wait(PollFlags::POLLOUT);
            let sent = send(self.0.as_raw_fd(), message, NO_SIGNAL).expect("the other end is there");
            message = &message[sent..];
        }
    }

    fn receive_all(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            self.wait(PollFlags::POLLIN);
            let received =
                recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()).expect("the other end is there");
            assert_ne!(received, 0);
            buffer = &mut buffer[received..];
        }
    }
}
