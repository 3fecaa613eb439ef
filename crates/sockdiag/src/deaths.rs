//! Notices of sockets that the kernel has destroyed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use sock::{Socket, errno, errno_name};

use crate::error::with_context;
use crate::netlink;
use crate::row::{self, Protocol, Row};
use crate::wire::SOCK_DIAG_BY_FAMILY;

/// `SKNLGRP_INET_TCP_DESTROY`, `SKNLGRP_INET_UDP_DESTROY` and the same for IPv6, a bit for each.
const GROUPS: u32 = 0b1111;

/// The kernel sends each notice in a datagram of its own, of less than a page.
const BUFFER: usize = 8 * 1024;

/// A stream of TCP and UDP sockets that no longer exist.
///
/// The kernel sends the last row of each socket at the moment at which it frees the socket, from
/// the time of [`Deaths::new`] on and in the same network namespace. A row has no queues, timer or
/// memory, and its `state` is mostly [`Close`](sock::TcpState::Close). A TCP row has its
/// [`info`](Row::info). A socket that goes to TIME-WAIT is freed then; the end of TIME-WAIT is not
/// reported.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let mut deaths = sockdiag::Deaths::new()?;
/// deaths.set_timeout(Some(Duration::from_secs(10)))?;
/// let server = sock::create_server(("127.0.0.1", 0))?;
/// let cookie = server.cookie()?;
/// drop(server);
/// while deaths.next()?.cookie != Some(cookie) {} // other programs close sockets as well
/// # std::io::Result::Ok(())
/// ```
pub struct Deaths {
    sock: Socket,
    buffer: Vec<u8>,
    /// Rows of the last datagram that were not returned.
    rows: VecDeque<Row>,
}

impl Deaths {
    /// Joins the kernel's multicast groups.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no netlink, or if the kernel refuses: some require
    /// `CAP_NET_ADMIN` (`PermissionDenied`).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let mut deaths = sockdiag::Deaths::new()?;
    /// deaths.set_timeout(Some(Duration::from_secs(10)))?;
    /// let sock = sock::create_server(("127.0.0.1", 0))?;
    /// let cookie = sock.cookie()?;
    /// drop(sock);
    /// // Other programs close sockets as well.
    /// while deaths.next()?.cookie != Some(cookie) {}
    /// # std::io::Result::Ok(())
    /// ```
    pub fn new() -> io::Result<Deaths> {
        let sock = netlink::open(GROUPS).map_err(|error| {
            let reason = match errno(&error).and_then(errno_name) {
                Some("EPERM") => ": this kernel requires CAP_NET_ADMIN",
                _ => "",
            };
            with_context(format!("cannot receive notices of destroyed sockets{reason}"), error)
        })?;
        sock.settimeout(None)?;
        Ok(Deaths { sock, buffer: vec![0; BUFFER], rows: VecDeque::new() })
    }

    /// Sets how long [`next`](Deaths::next) waits. `None`, the default, is without limit.
    ///
    /// # Errors
    ///
    /// Returns an error if the timeout is longer than 584 years.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use std::time::Duration;
    ///
    /// let mut deaths = sockdiag::Deaths::new()?;
    /// deaths.set_timeout(Some(Duration::ZERO))?;
    /// // Notices that have already arrived, until there is no other.
    /// let error = loop {
    ///     if let Err(error) = deaths.next() {
    ///         break error;
    ///     }
    /// };
    /// assert_eq!(error.kind(), ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.sock.settimeout(timeout)
    }

    /// Waits for the next socket.
    ///
    /// # Errors
    ///
    /// Returns an error if the timeout expires (`TimedOut`, or `WouldBlock` for a timeout of zero),
    /// or if sockets were destroyed faster than notices were received, so that some are lost
    /// (`ENOBUFS`). The next call goes on after that.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// let mut deaths = sockdiag::Deaths::new()?;
    /// # deaths.set_timeout(Some(Duration::from_secs(10)))?;
    /// let sock = sock::create_server(("127.0.0.1", 0))?;
    /// let address = sock.getsockname()?.to_socket_addr().unwrap();
    /// drop(sock);
    /// let row = loop {
    ///     let row = deaths.next()?;
    ///     if row.local == address {
    ///         break row;
    ///     }
    /// };
    /// assert_eq!(row.state, sock::TcpState::Close);
    /// # std::io::Result::Ok(())
    /// ```
    #[expect(clippy::should_implement_trait, reason = "it does not end after an error")]
    pub fn next(&mut self) -> io::Result<Row> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Ok(row);
            }
            for notice in netlink::receive(&self.sock, &mut self.buffer)? {
                let notice = notice?;
                if notice.kind == SOCK_DIAG_BY_FAMILY {
                    self.rows.push_back(row::parse(notice.payload, Protocol::Tcp)?);
                }
            }
        }
    }
}

/// For poll(2), before [`next`](Deaths::next).
impl AsFd for Deaths {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }
}
