//! Credentials of the peer of a Unix socket.

use std::fmt;
use std::io;

use crate::call::trace::{TraceValue, call};
use crate::consts::AF_UNIX;
use crate::error::invalid_as;
use crate::socket::Socket;
#[cfg(target_os = "linux")]
use crate::sys::OwnedFd;
use crate::sys::{AsFd, c, ucred};

/// A process with its user and group, as reported by the kernel.
///
/// Python: `struct.unpack("3i", …)` of `SO_PEERCRED` or of an `SCM_CREDENTIALS` item.
///
/// # Examples
///
/// ```
/// let (ours, _theirs) = sock::socketpair()?;
/// let peer: sock::Credentials = ours.peer_credentials()?;
/// println!("process {:?} of user {}", peer.pid, peer.uid);
/// assert_eq!(peer, sock::Credentials::current());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Process id, if the system reports it. The process may have ended, and its id may have been
    /// reused.
    pub pid: Option<i32>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Credentials {
    /// Returns the credentials of this process, with its effective user and group.
    ///
    /// System calls: getpid(2), geteuid(2), getegid(2).
    ///
    /// # Examples
    ///
    /// ```
    /// let me = sock::Credentials::current();
    /// assert_eq!(me.pid, Some(std::process::id() as i32));
    /// ```
    #[must_use]
    pub fn current() -> Credentials {
        let (pid, uid, gid) = ucred::own_credentials();
        Credentials { pid: i32::try_from(pid).ok(), uid, gid }
    }
}

/// Peer credentials. Unix only.
impl Socket {
    /// Returns the credentials that the peer of a Unix socket had when it connected.
    ///
    /// Python: `getsockopt(SOL_SOCKET, SO_PEERCRED, 12)`. System call: getsockopt(2). The kernel
    /// recorded them at the peer's connect(2), listen(2) or socketpair(2), so the peer cannot forge
    /// them. If the peer has passed its socket to another process, that is not visible.
    ///
    /// # Errors
    ///
    /// Returns an error if the socket is not connected (`NotConnected`, `ENOTCONN`) or is not an
    /// `AF_UNIX` socket (`InvalidInput` with the source `EOPNOTSUPP`).
    ///
    /// # Platform notes
    ///
    /// macOS and FreeBSD use getpeereid(3), and `LOCAL_PEERPID` or `LOCAL_PEERCRED` for the process
    /// id. On Linux a process of another pid namespace is `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// let peer = ours.peer_credentials()?;
    /// assert_eq!(peer, sock::Credentials::current());
    /// # drop(theirs);
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias("SO_PEERCRED", "LOCAL_PEERCRED", "getpeereid", "ucred"))]
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        if self.family() != AF_UNIX {
            let message = format!("peer credentials require an AF_UNIX socket, not {}", self.family());
            return Err(invalid_as(c::EOPNOTSUPP, message));
        }
        let fd = self.fileno();
        call!("getsockopt({fd}, SOL_SOCKET, SO_PEERCRED)" =>
        ucred::peer_credentials(self.as_fd()).map(|(pid, uid, gid)| {
            Credentials { pid: (pid != 0).then_some(pid), uid, gid }
        }))
    }

    /// Returns a descriptor of the process that was the peer of a Unix socket when it connected.
    ///
    /// Python: `getsockopt(SOL_SOCKET, SO_PEERPIDFD)`, which returns a number that the caller has to
    /// close. System call: getsockopt(2). Unlike a process id, the descriptor never refers to
    /// another process (pidfd_open(2)). It is readable when the process has ended. Linux 6.5 and
    /// later.
    ///
    /// # Errors
    ///
    /// Returns an error if the socket has no peer (`ENODATA`), if the peer has been reaped (`ESRCH`,
    /// `EINVAL`), or if the kernel is older (`ENOPROTOOPT`).
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, _theirs) = sock::socketpair()?;
    /// match ours.peer_pidfd() {
    ///     // The process is this one, which has not ended.
    ///     Ok(process) => assert_eq!(sock::poll(&mut [sock::Poll::new(&process, sock::POLLIN)], Some(std::time::Duration::ZERO))?, 0),
    ///     Err(error) => println!("{error}"),
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[cfg(target_os = "linux")]
    #[doc(alias = "SO_PEERPIDFD")]
    pub fn peer_pidfd(&self) -> io::Result<OwnedFd> {
        let fd = self.fileno();
        call!("getsockopt({fd}, SOL_SOCKET, SO_PEERPIDFD)" => ucred::peer_pidfd(self.as_fd()))
    }
}

impl TraceValue for Credentials {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Credentials { pid, uid, gid } = self;
        match pid {
            Some(pid) => write!(f, "0, {{pid={pid}, uid={uid}, gid={gid}}}"),
            None => write!(f, "0, {{uid={uid}, gid={gid}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consts::{AF_INET, SOCK_DGRAM, SOCK_STREAM};
    use crate::create::create_server::socketpair;
    use crate::error::{errno, errno_name};

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (ours, _theirs) = socketpair().unwrap();
        let peer = ours.peer_credentials().unwrap();
        assert_eq!(peer, Credentials::current());
        assert_eq!(peer.pid, Some(std::process::id() as i32));
    }

    /// Uses unassigned ids. Root's ids are both 0, which would hide swapped fields.
    #[cfg(target_os = "linux")]
    #[test]
    fn user_and_group_are_not_swapped() {
        let seen = ucred::with_user_and_group(12_345, 54_321, || {
            let (ours, _theirs) = socketpair().unwrap();
            [Credentials::current(), ours.peer_credentials().unwrap()]
        });
        let Some(seen) = seen else {
            assert_ne!(Credentials::current().uid, 0, "root can change its ids");
            return eprintln!("not root: cannot use other ids");
        };
        let expected = Credentials { pid: Some(std::process::id() as i32), uid: 12_345, gid: 54_321 };
        assert_eq!(seen, [expected; 2]);
    }

    #[test]
    fn an_unconnected_socket_has_no_peer_credentials() {
        for kind in [SOCK_STREAM, SOCK_DGRAM] {
            let unconnected = Socket::new(AF_UNIX, kind, 0).unwrap();
            let error = unconnected.peer_credentials().unwrap_err();
            // FreeBSD and macOS return EINVAL for a datagram socket.
            if cfg!(target_os = "linux") {
                assert_eq!(error.raw_os_error(), Some(c::ENOTCONN));
            }
        }
    }

    #[test]
    fn the_error_for_another_family_names_it() {
        // Linux would return -1 as the user.
        let internet = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        let error = internet.peer_credentials().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(errno(&error).and_then(errno_name), Some("EOPNOTSUPP"));
        assert!(error.to_string().contains("AF_INET"), "{error}");
    }
}
