//! Who is at the other end of a Unix socket.

use std::fmt;
use std::io;

use crate::call::trace::{TraceValue, call};
use crate::consts::AF_UNIX;
use crate::error::invalid_as;
use crate::socket::Socket;
use crate::sys::{AsFd, c, peer};

/// A process, its user and its group, as the system vouches for them.
///
/// Python: `struct.unpack("3i", …)` of `SO_PEERCRED` or of an `SCM_CREDENTIALS` item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Process, where the system tells it. It may have ended since, and its number
    /// may be another's by now.
    pub pid: Option<i32>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Credentials {
    /// This process, with its effective user and group.
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
        let (pid, uid, gid) = peer::own_credentials();
        Credentials { pid: i32::try_from(pid).ok(), uid, gid }
    }
}

/// Peers by name. Unix only.
impl Socket {
    /// Who was at the other end of a Unix socket when it was connected.
    ///
    /// Python: `getsockopt(SOL_SOCKET, SO_PEERCRED, 12)`. System call: getsockopt(2).
    /// The system itself noted it at the peer's connect(2), listen(2) or
    /// socketpair(2), so the peer cannot lie; what it has passed the socket on to is
    /// not known.
    ///
    /// # Errors
    ///
    /// `NotConnected` (`ENOTCONN`); `InvalidInput` with `EOPNOTSUPP` behind it for a
    /// socket of another family.
    ///
    /// # Platform notes
    ///
    /// macOS and FreeBSD: getpeereid(3), and the process by `LOCAL_PEERPID`
    /// or `LOCAL_PEERCRED`. A process of another pid namespace is `None` on Linux.
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
            let sentence = format!("peer credentials of {} are not told, only of AF_UNIX", self.family());
            return Err(invalid_as(c::EOPNOTSUPP, sentence));
        }
        let fd = self.fileno();
        call!("getsockopt({fd}, SOL_SOCKET, SO_PEERCRED)" =>
        peer::peer_credentials(self.as_fd()).map(|(pid, uid, gid)| {
            Credentials { pid: (pid != 0).then_some(pid), uid, gid }
        }))
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
    fn the_other_end_of_a_pair_is_this_process() {
        let (ours, _theirs) = socketpair().unwrap();
        let peer = ours.peer_credentials().unwrap();
        assert_eq!(peer, Credentials::current());
        assert_eq!(peer.pid, Some(std::process::id() as i32));
    }

    /// Nobody's ids here, or a swap would go unseen: root's are both 0.
    #[cfg(target_os = "linux")]
    #[test]
    fn user_and_group_are_not_mistaken_for_each_other() {
        let seen = peer::as_somebody_else(12_345, 54_321, || {
            let (ours, _theirs) = socketpair().unwrap();
            [Credentials::current(), ours.peer_credentials().unwrap()]
        });
        let Some(seen) = seen else {
            assert_ne!(Credentials::current().uid, 0, "root may become anybody");
            return eprintln!("not root: nobody else to be");
        };
        let expected = Credentials { pid: Some(std::process::id() as i32), uid: 12_345, gid: 54_321 };
        assert_eq!(seen, [expected; 2]);
    }

    #[test]
    fn without_a_peer_there_are_none() {
        for kind in [SOCK_STREAM, SOCK_DGRAM] {
            let alone = Socket::new(AF_UNIX, kind, 0).unwrap();
            let error = alone.peer_credentials().unwrap_err();
            // FreeBSD and macOS have EINVAL for a datagram socket.
            if cfg!(target_os = "linux") {
                assert_eq!(error.raw_os_error(), Some(c::ENOTCONN));
            }
        }
    }

    #[test]
    fn another_family_is_refused_by_name() {
        // Linux would answer with a user of -1.
        let internet = Socket::new(AF_INET, SOCK_STREAM, 0).unwrap();
        let error = internet.peer_credentials().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(errno(&error).and_then(errno_name), Some("EOPNOTSUPP"));
        assert!(error.to_string().contains("AF_INET"), "{error}");
    }
}
