//! Lingering close: discarding input until what was sent has arrived.

use std::io;
use std::thread;
use std::time::Duration;

use crate::call::deadline::{self, Deadline, Poll, Readiness};
use crate::call::to_timeout::ToDuration;
use crate::consts::{AF_INET, AF_INET6};
use crate::error::timed_out;
use crate::socket::Socket;
use crate::socket::tcp_info::TcpState;
use crate::sys::AsFd;

/// Why [`Socket::linger_for`] returned.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use sock::Lingered;
///
/// let (ours, theirs) = sock::socketpair()?;
/// theirs.sendall(b"never read")?;
/// match ours.linger_for(Duration::from_secs(2))? {
///     Lingered::PeerClosed => println!("the peer has closed the connection"),
///     Lingered::Acknowledged { discarded } => assert_eq!(discarded, 10),
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingered {
    /// The peer has closed its side. Nothing it sends can reset the connection any more.
    PeerClosed,
    /// Enough of the sent data has been acknowledged.
    Acknowledged {
        /// Bytes of input that were discarded.
        discarded: usize,
    },
}

/// The first and the longest pause between two checks of the send queue. poll(2) does not report
/// acknowledgements.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Amount of data that may be in flight when the socket is closed. It has been sent and usually
/// arrives.
const IN_FLIGHT: usize = 1 << 16;

/// The smallest and the largest buffer for a receive.
const SMALL: usize = 1 << 12;
const LARGE: usize = 1 << 16;

/// Lingering close.
impl Socket {
    /// Discards input until it is safe to close the socket, for at most `limit`.
    ///
    /// Python: none; nginx has `lingering_close`. System calls: recv(2), ioctl(2), and poll(2)
    /// while it waits. close(2) resets a TCP connection that has unread input, or that receives
    /// input later. The reset discards the data that is still in the send queue (RFC 1122,
    /// 4.2.2.13; RFC 9112, 9.6). It is safe to close if the peer has closed its side, or if at most
    /// 64 KiB are in flight and all data has been sent. Call this method after the last send, and
    /// do not receive afterwards. The socket's timeout is ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if `limit` expires (`TimedOut`), if another thread calls
    /// [`shutdown`](Self::shutdown) for receiving (`ConnectionAborted`), if the connection fails
    /// (such as `ConnectionReset`), if the socket's canceller was used
    /// ([`was_cancelled`](crate::was_cancelled)), or if `limit` is negative or NaN (`InvalidInput`).
    ///
    /// # Platform notes
    ///
    /// On Windows the length of the send queue is unknown. There only the available input is
    /// discarded.
    ///
    /// # Examples
    ///
    /// ```
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let (connection, _) = server.accept()?;
    /// client.sendall(b"a request that is never read")?;
    /// connection.sendall(b"busy")?;
    /// connection.shutdown(sock::SHUT_WR)?;
    /// connection.linger_for(2)?;
    /// connection.close()?;
    /// assert_eq!(client.recv(10)?, b"busy");
    /// # std::io::Result::Ok(())
    /// ```
    pub fn linger_for(&self, limit: impl ToDuration) -> io::Result<Lingered> {
        self.linger_until(limit, |queued| queued == 0 || (queued <= IN_FLIGHT && !self.has_unsent()))
    }

    /// Discards input as [`linger_for`](Self::linger_for), until `enough` returns true.
    ///
    /// `enough` gets the length of the send queue and returns whether the socket may be closed.
    ///
    /// # Errors
    ///
    /// Returns an error if [`linger_for`](Self::linger_for) does.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use sock::Lingered;
    ///
    /// let server = sock::create_server(("127.0.0.1", 0))?;
    /// let client = sock::create_connection(("127.0.0.1", server.getsockname()?.port().unwrap()))?;
    /// let (connection, _) = server.accept()?;
    /// client.close()?;
    /// let ended = connection.linger_until(Duration::from_secs(2), |queued| queued < 1000)?;
    /// assert!(matches!(ended, Lingered::PeerClosed | Lingered::Acknowledged { .. }));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn linger_until(
        &self,
        limit: impl ToDuration,
        enough: impl Fn(usize) -> bool,
    ) -> io::Result<Lingered> {
        let mut deadline = Deadline::new(Some(limit.to_duration()?));
        let mut pause = FIRST_PAUSE;
        let mut scratch = Scratch { small: [0; SMALL], large: Vec::new() };
        let mut discarded = 0;
        let mut was_open = false;
        // Data of a Unix socket is already in the peer's queue.
        let is_tcp = matches!(self.family(), AF_INET | AF_INET6);
        loop {
            let mut ended = false;
            match self.recv_into_nowait(scratch.room()) {
                Ok(0) => ended = true,
                Ok(received) => {
                    was_open = true;
                    discarded += received;
                    // A short receive means that the queue is empty.
                    if scratch.was_filled(received) && deadline.remaining() != Some(Duration::ZERO) {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => was_open = true,
                Err(error) => return Err(error),
            }
            if ended && (!is_tcp || self.peer_has_closed()) {
                return Ok(Lingered::PeerClosed);
            }
            if ended && was_open {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "receiving was shut down"));
            }
            // If the length is unknown, there is nothing to wait for.
            if !is_tcp || self.send_queue().map_or(true, &enough) {
                return Ok(Lingered::Acknowledged { discarded });
            }
            let left = deadline.remaining().unwrap_or_default();
            if left.is_zero() {
                return Err(timed_out());
            }
            self.pause(pause.min(left), ended)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for input, for at most `pause`.
    fn pause(&self, pause: Duration, ended: bool) -> io::Result<()> {
        let waited = match ended {
            // After shutdown(SHUT_RD) the socket is always readable.
            true => deadline::poll(&mut [Poll::new(self, 0)], Some(pause)).map(|ready| {
                // If both sides are shut down, poll(2) returns immediately each time.
                if ready > 0 {
                    thread::sleep(pause);
                }
            }),
            false => deadline::wait(self.as_fd(), Readiness::Readable, &mut self.deadline_of(Some(pause)))
                .map(drop),
        };
        match waited {
            Err(error) if !matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the end of file comes from the peer, not from our own shutdown(2).
    fn peer_has_closed(&self) -> bool {
        use TcpState::{Close, CloseWait, Closing, LastAck, TimeWait};
        self.tcp_info()
            .map_or(true, |info| matches!(info.state, Close | CloseWait | Closing | LastAck | TimeWait))
    }

    /// Returns whether the send queue has data that was never sent, because the peer or network is
    /// slow.
    fn has_unsent(&self) -> bool {
        self.tcp_info().is_ok_and(|info| info.notsent_bytes.is_some_and(|bytes| bytes > 0))
    }
}

/// Buffers for discarded input. Usually the small one is enough.
struct Scratch {
    small: [u8; SMALL],
    large: Vec<u8>,
}

impl Scratch {
    fn room(&mut self) -> &mut [u8] {
        if self.large.is_empty() { &mut self.small } else { &mut self.large }
    }

    /// Returns whether `received` bytes filled the buffer. Then the large buffer is used.
    fn was_filled(&mut self, received: usize) -> bool {
        let filled = received == self.room().len();
        if filled && self.large.is_empty() {
            self.large = vec![0; LARGE];
        }
        filled
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::call::cancel::was_cancelled;
    use crate::consts::{SHUT_RD, SHUT_RDWR, SHUT_WR, SO_RCVBUF, SOL_SOCKET};
    use crate::create::create_connection::create_connection;
    use crate::create::create_server::create_server;

    const LIMIT: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(50);

    fn pair() -> (Socket, Socket) {
        let server = create_server(("127.0.0.1", 0)).unwrap();
        server.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096).unwrap();
        let ours = create_connection(("127.0.0.1", server.getsockname().unwrap().port().unwrap())).unwrap();
        (ours, server.accept().unwrap().0)
    }

    /// Sends more than the receive queue of the peer holds.
    fn fill(socket: &Socket) {
        socket.settimeout(Duration::ZERO).unwrap();
        while socket.send(&[7; 1 << 16]).is_ok() {}
        socket.settimeout(None).unwrap();
    }

    #[test]
    fn input_is_discarded_until_all_is_acknowledged() {
        let (ours, theirs) = pair();
        theirs.sendall(&[7; 10_000]).unwrap();
        while ours.recv_queue().unwrap() < 10_000 {
            std::thread::yield_now();
        }
        assert_eq!(ours.linger_for(LIMIT).unwrap(), Lingered::Acknowledged { discarded: 10_000 });
        theirs.shutdown(SHUT_WR).unwrap();
        while ours.linger_for(LIMIT).unwrap() != Lingered::PeerClosed {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_peer_that_does_not_read_is_waited_for_up_to_the_limit() {
        for ends_receiving in [false, true] {
            let (ours, theirs) = pair();
            fill(&ours);
            // The end of file of our own shutdown is not the peer's.
            if ends_receiving {
                ours.shutdown(SHUT_RD).unwrap();
            }
            for limit in [Duration::ZERO, SHORT] {
                assert_eq!(ours.linger_for(limit).unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            drop(theirs);
        }
    }

    #[test]
    fn a_shutdown_by_another_thread_ends_the_wait() {
        let (ours, theirs) = pair();
        fill(&ours);
        theirs.sendall(b"discarded by the linger").unwrap();
        while ours.recv_queue().unwrap() == 0 {
            std::thread::yield_now();
        }
        std::thread::scope(|scope| {
            let linger = scope.spawn(|| ours.linger_for(LIMIT));
            while ours.recv_queue().unwrap() > 0 {
                std::thread::yield_now();
            }
            ours.shutdown(SHUT_RDWR).unwrap();
            let error = linger.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        });
    }

    /// poll(2) returns immediately for such a socket.
    #[test]
    fn a_pause_lasts_although_both_sides_are_shut_down() {
        let (ours, _theirs) = pair();
        fill(&ours);
        ours.shutdown(SHUT_RDWR).unwrap();
        let begin = std::time::Instant::now();
        ours.pause(SHORT, true).unwrap();
        assert!(begin.elapsed() >= SHORT);
    }

    #[test]
    fn a_canceller_ends_the_wait() {
        let (ours, _theirs) = pair();
        fill(&ours);
        ours.canceller().unwrap().cancel();
        assert!(was_cancelled(&ours.linger_for(LIMIT).unwrap_err()));
    }
}
