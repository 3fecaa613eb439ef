//! Conversions from and to the types of `std` and `socket2`, and `Read` and `Write`.
//!
//! They let a [`Socket`] be used with `polling`, `mio` and `tokio`. The descriptor stays the same.
//! Its timeout is lost, the flag `O_NONBLOCK` is kept.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use crate::consts::MsgFlags;
use crate::socket::Socket;
use crate::stream::makefile::SocketWriter;
use crate::sys::OwnedFd;

macro_rules! convert {
    ($($type:ty)*) => {$(
        /// Converts the socket without checks, so a call of the new type may fail if the
        /// socket is of another kind.
        impl From<Socket> for $type {
            fn from(sock: Socket) -> $type {
                sock.detach().into()
            }
        }

        /// Converts into a `Socket` whose family, kind and protocol are queried from the
        /// system. It is in the default mode, as after [`Socket::from_fd`].
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
    socket2::Socket
}

#[cfg(unix)]
mod unix {
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    convert! { UnixStream UnixListener UnixDatagram }
}

/// Reads as [`Socket::recv_into`]: 0 is the end of file.
impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv_into(buffer)
    }
}

/// Writes as [`Socket::send`], so `flush` does nothing. `write!` sends its text in one piece, as
/// [`Socket::sendall`] does.
impl Write for &Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send_part(data, MsgFlags::NONE)
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        SocketWriter::new(*self, 0).write_fmt(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads as [`Socket::recv_into`]: 0 is the end of file. For lines use
/// [`makefile_rb`](Socket::makefile_rb), which implements `BufRead`.
impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.recv_into(buffer)
    }
}

/// Writes as [`Socket::send`], so `flush` does nothing. `write!` sends its text in one piece, as
/// [`Socket::sendall`] does.
impl Write for Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send_part(data, MsgFlags::NONE)
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        SocketWriter::new(self, 0).write_fmt(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
