//! What only Windows has of Python's module: `ioctl`, `share`, `fromshare`.

use std::io;

use crate::consts::SIO_KEEPALIVE_VALS;
use crate::socket::Socket;
use crate::sys::{self, AsFd};

/// Windows alone.
impl Socket {
    /// Sets a mode of the socket by its control code.
    ///
    /// Python: `ioctl(control, option)`. System call: `WSAIoctl`. `value` is the
    /// bytes the code takes, such as a `u32` for [`SIO_RCVALL`](crate::SIO_RCVALL).
    ///
    /// # Errors
    ///
    /// The system's: `EINVAL` and `EOPNOTSUPP` for a code it does not know.
    pub fn ioctl(&self, code: u32, value: &[u8]) -> io::Result<()> {
        sys::ioctl(self.as_fd(), code, value)
    }

    /// Sets keep-alive probes: on or off, the time until the first and the
    /// interval of the others, in milliseconds.
    ///
    /// Python: `ioctl(SIO_KEEPALIVE_VALS, (onoff, time, interval))`.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn ioctl_keepalive(&self, on: bool, time: u32, interval: u32) -> io::Result<()> {
        let values = [u32::from(on), time, interval].map(u32::to_ne_bytes);
        self.ioctl(SIO_KEEPALIVE_VALS, values.as_flattened())
    }

    /// Describes the socket for another process, which makes it its own with
    /// [`from_share`](Socket::from_share).
    ///
    /// Python: `share(process_id)`. System call: `WSADuplicateSocketW`. The bytes
    /// go to the other process by any way, and are good for one use.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn share(&self, process_id: u32) -> io::Result<Vec<u8>> {
        sys::share(self.as_fd(), process_id)
    }

    /// Takes over what [`share`](Socket::share) described for this process.
    ///
    /// Python: `socket.fromshare(info)`. System call: `WSASocketW`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for bytes of another length; the system's.
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
        shared.sendall(b"from the twin").unwrap();
        assert_eq!(connection.recv(100).unwrap(), b"from the twin");
        assert_eq!(Socket::from_share(b"short").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn keepalive_values_are_taken() {
        let sock = Socket::new(crate::consts::AF_INET, crate::consts::SOCK_STREAM, 0).unwrap();
        sock.ioctl_keepalive(true, 10_000, 1_000).unwrap();
        assert!(sock.ioctl(0xFFFF_FFFF, &[]).is_err());
    }
}
