//! What identifies a socket in the kernel, and the memory that it uses.

use std::io;

use crate::consts::{SO_COOKIE, SO_MEMINFO, SOL_SOCKET};
use crate::socket::Socket;

/// The kernel's number of a socket, and its memory.
impl Socket {
    /// Returns the number that identifies this socket in the kernel as long as the system runs.
    ///
    /// Python: `getsockopt(SOL_SOCKET, 57, 8)`, to be unpacked with `struct`. System call:
    /// getsockopt(2) with `SO_COOKIE`. Linux 4.12. Descriptors of the same socket have the same
    /// cookie, and sock_diag(7) reports it. A descriptor's number, an inode and an address are used
    /// again, a cookie is not. The kernel assigns it at the first request for it.
    ///
    /// # Errors
    ///
    /// Returns an error if the system is too old (`ENOPROTOOPT`).
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// assert_eq!(ours.dup()?.cookie()?, ours.cookie()?);
    /// assert_ne!(ours.cookie()?, theirs.cookie()?);
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias = "SO_COOKIE")]
    pub fn cookie(&self) -> io::Result<u64> {
        let bytes = self.getsockopt_bytes(SOL_SOCKET, SO_COOKIE, 8)?;
        let whole = bytes.first_chunk().ok_or_else(|| too_short("SO_COOKIE", &bytes))?;
        Ok(u64::from_ne_bytes(*whole))
    }

    /// Returns how much memory the kernel uses for this socket, and how much it may use.
    ///
    /// Python: `getsockopt(SOL_SOCKET, 55, 36)`, to be unpacked with `struct`. System call:
    /// getsockopt(2) with `SO_MEMINFO`. Linux 4.12.
    ///
    /// # Errors
    ///
    /// Returns an error if the system is too old (`ENOPROTOOPT`).
    ///
    /// # Examples
    ///
    /// ```
    /// let (ours, theirs) = sock::socketpair()?;
    /// theirs.sendall(b"twelve bytes")?;
    /// let memory = theirs.meminfo()?; // a Unix socket's unread bytes count for their sender
    /// assert!(memory.wmem_alloc > 12 && memory.wmem_alloc < memory.sndbuf);
    /// # std::io::Result::Ok(())
    /// ```
    #[doc(alias = "SO_MEMINFO")]
    pub fn meminfo(&self) -> io::Result<MemInfo> {
        let bytes = self.getsockopt_bytes(SOL_SOCKET, SO_MEMINFO, 64)?;
        MemInfo::from_bytes(&bytes).ok_or_else(|| too_short("SO_MEMINFO", &bytes))
    }
}

/// Memory of a socket in the kernel, in bytes: `skmem` in the output of ss(8).
///
/// The kernel counts its own structures, so a datagram of one byte can take several hundred. C:
/// the values `SK_MEMINFO_…` of linux/sock_diag.h.
///
/// # Examples
///
/// ```
/// let (ours, _theirs) = sock::socketpair()?;
/// let memory: sock::MemInfo = ours.meminfo()?;
/// assert!(memory.rmem_alloc <= memory.rcvbuf);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct MemInfo {
    /// Memory of received data that was not read. C: `SK_MEMINFO_RMEM_ALLOC`; `r` in ss(8).
    pub rmem_alloc: u32,
    /// Limit of `rmem_alloc`, set with `SO_RCVBUF`. C: `SK_MEMINFO_RCVBUF`; `rb` in ss(8).
    pub rcvbuf: u32,
    /// Memory of data that the network interface has. C: `SK_MEMINFO_WMEM_ALLOC`; `t` in ss(8).
    pub wmem_alloc: u32,
    /// Limit of `wmem_queued`, set with `SO_SNDBUF`. C: `SK_MEMINFO_SNDBUF`; `tb` in ss(8).
    pub sndbuf: u32,
    /// Memory that is reserved and unused. C: `SK_MEMINFO_FWD_ALLOC`; `f` in ss(8).
    pub fwd_alloc: u32,
    /// Memory of data that was not sent or not acknowledged. C: `SK_MEMINFO_WMEM_QUEUED`; `w` in
    /// ss(8).
    pub wmem_queued: u32,
    /// Memory of options and filters. C: `SK_MEMINFO_OPTMEM`; `o` in ss(8).
    pub optmem: u32,
    /// Memory of packets that arrived during a call on the socket. C: `SK_MEMINFO_BACKLOG`; `bl` in
    /// ss(8).
    pub backlog: u32,
    /// Packets that were dropped, for example because `rcvbuf` was reached. Linux 4.11. C:
    /// `SK_MEMINFO_DROPS`; `d` in ss(8).
    pub drops: Option<u32>,
}

impl MemInfo {
    /// Reads the array of `SO_MEMINFO`, which is also the attribute `INET_DIAG_SKMEMINFO` of
    /// sock_diag(7). Returns `None` if it has fewer than eight numbers.
    ///
    /// # Examples
    ///
    /// ```
    /// let bytes: Vec<u8> = (0..9_u32).flat_map(u32::to_ne_bytes).collect();
    /// let memory = sock::MemInfo::from_bytes(&bytes).unwrap();
    /// assert_eq!((memory.rcvbuf, memory.drops), (1, Some(8)));
    /// ```
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<MemInfo> {
        let number = |index: usize| {
            let bytes = bytes.get(4 * index..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        Some(MemInfo {
            rmem_alloc: number(0)?,
            rcvbuf: number(1)?,
            wmem_alloc: number(2)?,
            sndbuf: number(3)?,
            fwd_alloc: number(4)?,
            wmem_queued: number(5)?,
            optmem: number(6)?,
            backlog: number(7)?,
            drops: number(8),
        })
    }
}

fn too_short(option: &str, bytes: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{option} of {} bytes is too short", bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consts::{AF_INET, SO_RCVBUF, SOCK_DGRAM};

    #[test]
    fn datagrams_that_do_not_fit_are_counted() {
        let receiver = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        receiver.setsockopt(SOL_SOCKET, SO_RCVBUF, 1).unwrap();
        receiver.bind(("127.0.0.1", 0)).unwrap();
        let sender = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
        for _ in 0..10 {
            sender.sendto(&[0; 500], receiver.getsockname().unwrap()).unwrap();
        }
        let memory = receiver.meminfo().unwrap();
        assert_eq!(memory.rcvbuf, receiver.getsockopt(SOL_SOCKET, SO_RCVBUF).unwrap() as u32);
        let mut received = 0;
        receiver.setblocking(false).unwrap();
        while receiver.recv(500).is_ok() {
            received += 1;
        }
        assert_eq!(memory.drops, Some(10 - received), "{memory:?}");
        assert!(memory.rmem_alloc >= 500 * received, "{memory:?}");
    }

    #[test]
    fn fewer_numbers_than_eight_are_refused() {
        for length in 0..40 {
            let memory = MemInfo::from_bytes(&vec![1; length]);
            assert_eq!(memory.is_some(), length >= 32, "{length}");
            assert_eq!(memory.is_some_and(|memory| memory.drops.is_some()), length >= 36, "{length}");
        }
    }
}
