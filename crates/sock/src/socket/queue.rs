//! How much waits in a socket's two queues.

use std::io;

use crate::call::trace::call;
use crate::socket::Socket;
use crate::sys::{AsFd, queue};

/// Queue lengths: the columns `Recv-Q` and `Send-Q` of ss(8) and netstat(8).
impl Socket {
    /// How many bytes can be received without waiting.
    ///
    /// Python: `fcntl.ioctl(sock, termios.FIONREAD, …)`. System call: ioctl(2) with
    /// `SIOCINQ`, which is `FIONREAD`. Of a datagram socket it is the length of the
    /// next datagram, and 0 may be one without bytes as well as none (udp(7)).
    ///
    /// # Errors
    ///
    /// The system's: `EINVAL` for a listener.
    ///
    /// # Platform notes
    ///
    /// macOS: `SO_NREAD`. What a datagram's number counts differs there and on
    /// FreeBSD and Windows: it may be that of all datagrams, with their addresses.
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
        call!("ioctl({fd}, SIOCINQ)" => queue::received(self.as_fd()))
    }

    /// How many bytes were sent here and have not arrived as far as is known.
    ///
    /// Python: `fcntl.ioctl(sock, termios.TIOCOUTQ, …)`. System call: ioctl(2) with
    /// `SIOCOUTQ`, which is `TIOCOUTQ`. Of a TCP socket these are the bytes the peer's
    /// system has not acknowledged; that its program has read the others it does
    /// not say. Of other sockets Linux counts the memory, with what it needs for
    /// itself.
    ///
    /// # Errors
    ///
    /// The system's: `EINVAL` for a listener. `Unsupported` on Windows.
    ///
    /// # Platform notes
    ///
    /// FreeBSD: `FIONWRITE`; macOS: `SO_NWRITE`.
    ///
    /// # Examples
    ///
    /// A graceful end: all has arrived when nothing waits any more.
    ///
    /// ```
    /// # #[cfg(unix)] {
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
        call!("ioctl({fd}, SIOCOUTQ)" => queue::to_send(self.as_fd()))
    }
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use crate::create::create_connection::create_connection;
    use crate::create::create_server::create_server;
    use crate::create::create_server::socketpair;

    #[test]
    fn what_was_not_received_is_counted() {
        let (ours, theirs) = socketpair().unwrap();
        assert_eq!(ours.recv_queue().unwrap(), 0);
        theirs.sendall(&[7; 1000]).unwrap();
        // Over loopback TCP, as on Windows, it may still be on its way.
        let first = ours.recv(1).unwrap().len();
        assert_eq!(ours.recv_queue().unwrap() + first, 1000);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn of_datagrams_only_the_next_counts() {
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

    #[cfg(unix)]
    #[test]
    fn what_the_peer_has_no_room_for_waits_here() {
        let server = create_server(("127.0.0.1", 0)).unwrap();
        let port = server.getsockname().unwrap().port().unwrap();
        let client = create_connection(("127.0.0.1", port)).unwrap();
        let (connection, _) = server.accept().unwrap();
        assert_eq!(client.send_queue().unwrap(), 0);
        client.setblocking(false).unwrap();
        let mut sent = 0;
        // Fills both queues, as far as the system lets them grow.
        while let Ok(more) = client.send(&[0; 65_536]) {
            sent += more;
        }
        let waits = client.send_queue().unwrap();
        assert!(waits > 0 && waits <= sent, "{waits} of {sent}");
        // Whatever is not here any more is there, or was: nothing is counted twice.
        assert!(connection.recv_queue().unwrap() + client.send_queue().unwrap() >= waits);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_listener_has_no_such_queues() {
        let server = create_server(("127.0.0.1", 0)).unwrap();
        for result in [server.recv_queue(), server.send_queue()] {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(crate::sys::c::EINVAL));
        }
    }
}
