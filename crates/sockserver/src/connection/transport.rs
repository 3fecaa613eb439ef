//! What carries a connection: its socket, the stream that `wrap_request` returned, or a child
//! process.

use std::io;
use std::sync::Arc;

use sock::{Shutdown, Socket, StreamSocket};

use crate::os::guard::guard;
use crate::os::process;

/// What carries a connection.
pub(crate) enum Transport {
    Socket(Socket),
    /// The stream that `wrap_request` returned.
    Wrapped(Arc<dyn StreamSocket>),
    /// The child process that serves the connection.
    Child(process::Pid),
}

impl Transport {
    /// Returns the socket underneath, if this process has it.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match self {
            Transport::Socket(socket) => Some(socket),
            Transport::Wrapped(stream) => Some(stream.socket()),
            Transport::Child(_) => None,
        }
    }

    /// Returns the stream that the handler uses.
    pub(crate) fn stream(&self) -> Option<&dyn StreamSocket> {
        match self {
            Transport::Socket(socket) => Some(socket),
            Transport::Wrapped(stream) => Some(&**stream),
            Transport::Child(_) => None,
        }
    }

    /// Returns whether the stream may hold input that the socket no longer has.
    pub(crate) fn may_buffer_input(&self) -> bool {
        matches!(self, Transport::Wrapped(_))
    }

    /// Shuts the socket down, which wakes every call that is blocked on it, or kills the child.
    ///
    /// The deadline timer and a drain call it, so a stream of the user must not panic here.
    pub(crate) fn abort(&self, how: Shutdown) {
        let aborted = guard(|| {
            if let Some(socket) = self.socket() {
                let _ = socket.shutdown(how);
            }
        });
        if let Err(message) = aborted {
            log::error!(hook = "socket"; "cannot abort a connection: its stream panicked: {message}");
        }
        if let Transport::Child(pid) = self {
            process::kill(*pid);
        }
    }

    #[inline]
    pub(crate) fn recv_into(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Socket(socket) => socket.recv_into(buffer),
            Transport::Wrapped(stream) => stream.recv_into(buffer),
            Transport::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    #[inline]
    pub(crate) fn send(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            // The caller sends the rest, so a part is not worth a hint.
            Transport::Socket(socket) => StreamSocket::send(socket, data),
            Transport::Wrapped(stream) => stream.send(data),
            Transport::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Transport::Socket(socket) => socket.shutdown(how),
            Transport::Wrapped(stream) => stream.shutdown(how),
            Transport::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Receives available input without blocking.
    #[inline]
    pub(crate) fn recv_nowait(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Socket(socket) => socket.recv_into_nowait(buffer),
            Transport::Wrapped(stream) => stream.recv_into_nowait(buffer),
            Transport::Child(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}
