//! What serves a connection: its socket, what `wrap_request` made of that, or a child.

use std::io;
use std::time::Duration;

use sock::{Shutdown, Socket, StreamSocket};

use crate::connection::wrapping::Wrapped;
#[cfg(unix)]
use crate::os::process;

/// What serves a connection, and how it is cut off.
pub(crate) enum Transport {
    Socket(Socket),
    /// What `wrap_request` has made of it.
    Wrapped(Wrapped),
    /// The process that serves it.
    #[cfg(unix)]
    Child(process::Pid),
}

impl Transport {
    /// The socket at the bottom, in this process.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match self {
            Transport::Socket(socket) => Some(socket),
            Transport::Wrapped(Wrapped::Plain(stream) | Wrapped::Other(stream)) => Some(stream.socket()),
            #[cfg(unix)]
            Transport::Child(_) => None,
        }
    }

    /// What a handler talks over.
    pub(crate) fn stream(&self) -> Option<&dyn StreamSocket> {
        match self {
            Transport::Socket(socket) => Some(socket),
            Transport::Wrapped(Wrapped::Plain(stream) | Wrapped::Other(stream)) => Some(&**stream),
            #[cfg(unix)]
            Transport::Child(_) => None,
        }
    }

    /// Whether there is a stream on top, which may hold something back.
    pub(crate) fn may_buffer_input(&self) -> bool {
        matches!(self, Transport::Wrapped(Wrapped::Other(_)))
    }

    /// Wakes whoever waits for the client, with the end of everything.
    pub(crate) fn abort(&self, how: Shutdown) {
        if let Some(socket) = self.socket() {
            let _ = socket.shutdown(how);
        }
        #[cfg(unix)]
        if let Transport::Child(pid) = self {
            process::kill(*pid);
        }
    }

    #[inline]
    pub(crate) fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Socket(socket) => socket.recv_into(buffer),
            Transport::Wrapped(Wrapped::Plain(stream) | Wrapped::Other(stream)) => stream.recv_into(buffer),
            #[cfg(unix)]
            Transport::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    #[inline]
    pub(crate) fn send(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Socket(socket) => socket.send(data),
            Transport::Wrapped(Wrapped::Plain(stream) | Wrapped::Other(stream)) => stream.send(data),
            #[cfg(unix)]
            Transport::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Transport::Socket(socket) => socket.shutdown(how),
            Transport::Wrapped(Wrapped::Plain(stream) | Wrapped::Other(stream)) => stream.shutdown(how),
            #[cfg(unix)]
            Transport::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Receives what is there, without waiting.
    #[inline]
    pub(crate) fn recv_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Socket(socket) => socket.recv_into_nowait(buffer),
            Transport::Wrapped(Wrapped::Plain(stream)) => stream.socket().recv_into_nowait(buffer),
            Transport::Wrapped(Wrapped::Other(stream)) => recv_nowait_over(&**stream, buffer),
            #[cfg(unix)]
            Transport::Child(_) => Err(io::ErrorKind::NotConnected.into()),
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
