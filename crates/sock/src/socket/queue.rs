//! Lengths of a socket's receive and send queues.

use std::io;

use crate::call::trace::call;
use crate::socket::Socket;
use crate::sys::{AsFd, queue_len};

/// Queue lengths: the columns `Recv-Q` and `Send-Q` of ss(8) and netstat(8).
impl Socket {
    /// Returns the number of bytes that can be received without waiting.
    ///
    /// Python: `fcntl.ioctl(sock, termios.FIONREAD, …)`. System call: ioctl(2) with `SIOCINQ`,
    /// which is `FIONREAD`. For a datagram socket it is the length of the next datagram; 0 means no
    /// datagram or an empty one (udp(7)).
    ///
    /// # Errors
    ///
    /// Returns an error if the socket is a listener (`EINVAL`).
    ///
    /// # Platform notes
    ///
    /// macOS uses `SO_NREAD`. On macOS, FreeBSD and Windows the number for a datagram socket may be
    /// the size of all datagrams, including their addresses.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"twelve bytes")?;
    /// assert_eq!(ours.recv_queue()?, 12);
    /// ours.recv(7)?;
    /// assert_eq!(ours.recv_queue()?, 5);
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("SIOCINQ", "FIONREAD", "TIOCINQ", "SO_NREAD", "unread"))]
    pub fn recv_queue(&self) -> io::Result<usize> {
        let fd = self.fileno();
        call!("ioctl({fd}, SIOCINQ)" => queue_len::received(self.as_fd()))
    }

    /// Returns the number of sent bytes that the peer has not acknowledged.
    ///
    /// Python: `fcntl.ioctl(sock, termios.TIOCOUTQ, …)`. System call: ioctl(2) with `SIOCOUTQ`,
    /// which is `TIOCOUTQ`. For a TCP socket the peer's kernel acknowledges the bytes, which does
    /// not mean that the peer's program has read them. For other sockets Linux returns the memory
    /// in use, including its own overhead.
    ///
    /// # Errors
    ///
    /// Returns an error if the socket is a listener (`EINVAL`), and an error of kind `Unsupported`
    /// on Windows.
    ///
    /// # Platform notes
    ///
    /// FreeBSD uses `FIONWRITE`, macOS `SO_NWRITE`.
    ///
    /// # Examples
    ///
    /// Waiting until the peer has acknowledged all data:
    ///
    /// ```
    /// # if cfg!(unix) {
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let (connection, _) = server.accept()?;
    /// client.sendall(b"all of it")?;
    /// connection.makefile_rb().read_exact(&mut [0; 9])?;
    /// while client.send_queue()? > 0 {
    ///     std::thread::yield_now();
    /// }
    /// # use std::io::Read;
    /// # }
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("SIOCOUTQ", "TIOCOUTQ", "FIONWRITE", "SO_NWRITE", "unsent"))]
    pub fn send_queue(&self) -> io::Result<usize> {
        let fd = self.fileno();
        call!("ioctl({fd}, SIOCOUTQ)" => queue_len::to_send(self.as_fd()))
    }
}

#[cfg(test)]
mod tests {
    use crate::create::create_server::create_server;
    use crate::create::create_server::socketpair;

    #[test]
    fn received_bytes_that_were_not_read_are_counted() {
        let (ours, theirs) = socketpair().unwrap();
        assert_eq!(ours.recv_queue().unwrap(), 0);
        theirs.sendall(&[7; 1000]).unwrap();
        // Over loopback TCP, as on Windows, the data may not have arrived yet.
        let first = ours.recv(1).unwrap().len();
        assert_eq!(ours.recv_queue().unwrap() + first, 1000);
    }

    #[cfg(unix)]
    #[test]
    fn unacknowledged_bytes_are_counted() {
        let server = create_server(("127.0.0.1", 0)).unwrap();
        let port = server.getsockname().unwrap().port().unwrap();
        let client = crate::create::create_connection::create_connection(("127.0.0.1", port)).unwrap();
        let (connection, _) = server.accept().unwrap();
        assert_eq!(client.send_queue().unwrap(), 0);
        client.setblocking(false).unwrap();
        let mut sent = 0;
        // Fills both queues up to the limits of the system.
        while let Ok(more) = client.send(&[0; 65_536]) {
            sent += more;
        }
        let queued = client.send_queue().unwrap();
        assert!(queued > 0 && queued <= sent, "{queued} of {sent}");
        // Bytes that have left this queue are in the other one.
        assert!(connection.recv_queue().unwrap() + client.send_queue().unwrap() >= queued);
    }

    #[cfg(target_os = "linux")]
    mod linux {
        use super::*;

        #[test]
        fn the_receive_queue_of_datagrams_is_the_length_of_the_next() {
            let (ours, theirs) = crate::create::create_server::socketpair_with(
                crate::consts::AF_UNIX,
                crate::consts::SOCK_DGRAM,
                0,
            )
            .unwrap();
            for length in [3, 5] {
                theirs.send(&vec![0; length]).unwrap();
            }
            assert_eq!(ours.recv_queue().unwrap(), 3);
        }

        #[test]
        fn a_listener_has_no_queues_of_bytes() {
            let server = create_server(("127.0.0.1", 0)).unwrap();
            for result in [server.recv_queue(), server.send_queue()] {
                assert_eq!(result.unwrap_err().raw_os_error(), Some(crate::sys::c::EINVAL));
            }
        }
    }
}
