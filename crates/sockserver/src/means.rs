//! What serves a connection: its socket, what `wrap_request` made of that, or a child.

use std::io;
#[cfg(unix)]
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use sock::{MSG_DONTWAIT, MSG_PEEK};
use sock::{Shutdown, Socket, StreamSocket};

#[cfg(unix)]
use crate::sys;
use crate::wrapping::Wrapped;

/// What serves a connection, and how it is cut off.
pub(crate) enum Means {
    Socket(Socket),
    /// What `wrap_request` has made of it.
    Wrapped(Wrapped),
    #[cfg(unix)]
    Child(Child),
}

/// The process that serves a connection, and the line on which it tells that
/// `wrap_request` is done.
#[cfg(unix)]
pub(crate) struct Child {
    pub(crate) pid: sys::Pid,
    pub(crate) lifeline: Arc<Socket>,
}

impl Means {
    /// The socket at the bottom, in this process.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match self {
            Means::Socket(socket) => Some(socket),
            Means::Wrapped(Wrapped::Plain(stream) | Wrapped::Other(stream)) => Some(stream.socket()),
            #[cfg(unix)]
            Means::Child(_) => None,
        }
    }

    /// What a handler talks over.
    pub(crate) fn stream(&self) -> Option<&dyn StreamSocket> {
        match self {
            Means::Socket(socket) => Some(socket),
            Means::Wrapped(Wrapped::Plain(stream) | Wrapped::Other(stream)) => Some(&**stream),
            #[cfg(unix)]
            Means::Child(_) => None,
        }
    }

    /// Whether there is a stream on top, which may hold something back.
    pub(crate) fn holds_back(&self) -> bool {
        matches!(self, Means::Wrapped(Wrapped::Other(_)))
    }

    /// Wakes whoever waits for the client, with the end of everything.
    pub(crate) fn sever(&self, how: Shutdown) {
        if let Some(socket) = self.socket() {
            let _ = socket.shutdown(how);
        }
        #[cfg(unix)]
        if let Means::Child(child) = self {
            sys::kill(child.pid);
        }
    }

    /// Whether a child has told that `wrap_request` is done, and nobody has read it.
    pub(crate) fn has_told(&self) -> bool {
        #[cfg(unix)]
        if let Means::Child(child) = self {
            let told = child.lifeline.recv_with_flags(1, MSG_PEEK | MSG_DONTWAIT);
            return told.is_ok_and(|word| !word.is_empty());
        }
        false
    }

    #[inline]
    pub(crate) fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Means::Socket(socket) => socket.recv_into(buffer),
            Means::Wrapped(Wrapped::Plain(stream) | Wrapped::Other(stream)) => stream.recv_into(buffer),
            #[cfg(unix)]
            Means::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    #[inline]
    pub(crate) fn send(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Means::Socket(socket) => socket.send(data),
            Means::Wrapped(Wrapped::Plain(stream) | Wrapped::Other(stream)) => stream.send(data),
            #[cfg(unix)]
            Means::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Receives what is there, without waiting.
    #[inline]
    pub(crate) fn recv_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Means::Socket(socket) => socket.recv_into_nowait(buffer),
            Means::Wrapped(Wrapped::Plain(stream)) => stream.socket().recv_into_nowait(buffer),
            Means::Wrapped(Wrapped::Other(stream)) => recv_nowait_over(&**stream, buffer),
            #[cfg(unix)]
            Means::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// Receives what is there from a stream on top.
#[cold]
fn recv_nowait_over(stream: &dyn StreamSocket, buffer: &mut [u8]) -> io::Result<usize> {
    if stream.pending() > 0 {
        return stream.recv_into(buffer);
    }
    let socket = stream.socket();
    let before = socket.gettimeout();
    socket.settimeout(Duration::ZERO)?;
    let received = stream.recv_into(buffer);
    socket.settimeout(before)?;
    received
}
