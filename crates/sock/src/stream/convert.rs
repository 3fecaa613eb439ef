//! From and to the types of `std` and `socket2`, and `Read` and `Write`.
//!
//! So a [`Socket`] plugs into whatever takes those: `polling`, `mio`, `tokio`.
//! The descriptor stays the same; its timeout does not come along, the flag
//! `O_NONBLOCK` does.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
#[cfg(unix)]
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use crate::socket::Socket;
use crate::stream::makefile::SocketWriter;
use crate::sys::OwnedFd;

macro_rules! convert {
    ($($(#[$attribute:meta])* $type:ty)*) => {$(
        $(#[$attribute])*
        /// Gives the descriptor away; nothing is checked, so a call of the new
        /// type may fail for another kind of socket.
        impl From<Socket> for $type {
            fn from(sock: Socket) -> $type {
                sock.detach().into()
            }
        }

        $(#[$attribute])*
        /// Takes over the descriptor, with family, kind and protocol as the
        /// system tells them; in the default mode, like [`Socket::from_fd`].
        impl TryFrom<$type> for Socket {
            type Error = io::Error;

            fn try_from(theirs: $type) -> io::Result<Socket> {
                Socket::try_from(OwnedFd::from(theirs))
            }
        }
    )*};
}
convert! {
    TcpStream
    TcpListener
    UdpSocket
    #[cfg(unix)] UnixStream
    #[cfg(unix)] UnixListener
    #[cfg(unix)] UnixDatagram
    socket2::Socket
}

/// As [`Socket::recv_into`]: 0 is the end of file.
impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv_into(buffer)
    }
}

/// As [`Socket::send`]; there is nothing to flush. `write!` sends its text in one piece, as
/// [`Socket::sendall`] does.
impl Write for &Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data)
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        SocketWriter::new(*self, 0).write_fmt(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As [`Socket::recv_into`]: 0 is the end of file. For lines see
/// [`makefile_rb`](Socket::makefile_rb), which is `BufRead`.
impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv_into(buffer)
    }
}

/// As [`Socket::send`]; there is nothing to flush. `write!` sends its text in one piece, as
/// [`Socket::sendall`] does.
impl Write for Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data)
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        SocketWriter::new(self, 0).write_fmt(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
