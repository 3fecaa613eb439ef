//! The Windows-only methods of Python's module: `ioctl`, `share`, `fromshare`.

use std::io;

use crate::address::Address;
use crate::consts::{MsgFlags, SIO_KEEPALIVE_VALS};
use crate::socket::Socket;
use crate::sys::{self, AsFd};

/// Windows only.
impl Socket {
    /// Sets a mode of the socket by its control code.
    ///
    /// Python: `ioctl(control, option)`. System call: `WSAIoctl`. `value` contains the bytes that
    /// the code requires, such as a `u32` for [`SIO_RCVALL`](crate::SIO_RCVALL).
    ///
    /// # Errors
    ///
    /// Returns an error if the code is unknown (`EINVAL`, `EOPNOTSUPP`).
    pub fn ioctl(&self, code: u32, value: &[u8]) -> io::Result<()> {
        sys::ioctl(self.as_fd(), code, value)
    }

    /// Enables or disables keep-alive probes. The time until the first probe and the interval are
    /// in milliseconds.
    ///
    /// Python: `ioctl(SIO_KEEPALIVE_VALS, (onoff, time, interval))`.
    ///
    /// # Errors
    ///
    /// Returns an error if `WSAIoctl` fails.
    pub fn ioctl_keepalive(&self, on: bool, time: u32, interval: u32) -> io::Result<()> {
        let values = [u32::from(on), time, interval].map(u32::to_ne_bytes);
        self.ioctl(SIO_KEEPALIVE_VALS, values.as_flattened())
    }

    /// Exports the socket for another process, which imports it with
    /// [`from_share`](Socket::from_share).
    ///
    /// Python: `share(process_id)`. System call: `WSADuplicateSocketW`. The bytes can be sent to
    /// the other process by any means and can be used once.
    ///
    /// # Errors
    ///
    /// Returns an error if `WSADuplicateSocketW` fails.
    pub fn share(&self, process_id: u32) -> io::Result<Vec<u8>> {
        sys::share(self.as_fd(), process_id)
    }

    /// Returns `None`: no call of Windows waits for more than one receive returns.
    pub(crate) fn recv_in_pieces(
        &self,
        _buffer: &mut [u8],
        _flags: MsgFlags,
    ) -> Option<io::Result<(usize, Address)>> {
        None
    }

    /// Creates a socket from the bytes that [`share`](Socket::share) exported for this process.
    ///
    /// Python: `socket.fromshare(info)`. System call: `WSASocketW`.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes have the wrong length (`InvalidInput`) or if `WSASocketW`
    /// fails.
    pub fn from_share(info: &[u8]) -> io::Result<Socket> {
        Socket::try_from(sys::OwnedFd::from(sys::from_share(info)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::create_connection::create_connection;
    use crate::create::create_server::create_server;

    #[test]
    fn a_shared_socket_is_the_same_connection() {
        let server = create_server(("127.0.0.1", 0)).unwrap();
        let port = server.getsockname().unwrap().port().unwrap();
        let client = create_connection(("127.0.0.1", port)).unwrap();
        let shared = Socket::from_share(&client.share(std::process::id()).unwrap()).unwrap();
        drop(client);
        let (connection, _) = server.accept().unwrap();
        shared.sendall(b"from the import").unwrap();
        assert_eq!(connection.recv(100).unwrap(), b"from the import");
        assert_eq!(Socket::from_share(b"short").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn keepalive_values_are_accepted() {
        let sock = Socket::new(crate::consts::AF_INET, crate::consts::SOCK_STREAM, 0).unwrap();
        sock.ioctl_keepalive(true, 10_000, 1_000).unwrap();
        assert!(sock.ioctl(0xFFFF_FFFF, &[]).is_err());
    }
}
