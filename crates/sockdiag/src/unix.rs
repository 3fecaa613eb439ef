//! What the kernel says of one Unix socket: `struct unix_diag_msg` and its attributes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use sock::{MemInfo, SocketKind, TcpState, UnixAddress};

use crate::row::{AcceptQueue, ShutdownState};
use crate::wire::{Attributes, Malformed, u32_at};

/// A Unix socket at one moment: a row of `ss -xaem`.
///
/// A field that is an `Option` is `None` where the source does not have it. `/proc/net/unix` has
/// kind, state, address and inode only.
///
/// # Examples
///
/// ```
/// use sockdiag::{Diag, UnixFilter};
///
/// let (ours, theirs) = sock::socketpair()?;
/// theirs.sendall(b"hello")?;
/// let cookie = Some(ours.cookie()?);
/// let rows = Diag::netlink()?.unix(&UnixFilter::new())?;
/// let row = rows.iter().find(|row| row.cookie == cookie).unwrap();
/// assert_eq!(row.recv_queue, Some(5));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnixRow {
    /// [`SOCK_STREAM`](sock::SOCK_STREAM), [`SOCK_DGRAM`](sock::SOCK_DGRAM) or
    /// [`SOCK_SEQPACKET`](sock::SOCK_SEQPACKET).
    pub kind: SocketKind,
    /// [`Listen`](TcpState::Listen), [`Established`](TcpState::Established) if it is connected, or
    /// [`Close`](TcpState::Close).
    pub state: TcpState,
    /// The name that it was bound to.
    pub address: UnixAddress,
    /// Inode of the socket. 0 for a connection that was not accepted yet.
    pub inode: u64,
    /// Number that identifies the socket as long as the system runs: see
    /// [`Socket::cookie`](sock::Socket::cookie).
    pub cookie: Option<u64>,
    /// Inode of the socket that it is connected to. `None` if it is not connected, and for a
    /// client that was not accepted yet.
    pub peer: Option<u64>,
    /// Bytes that can be received. 0 for a listener.
    pub recv_queue: Option<u32>,
    /// Memory of what was sent and not received by the peer, in bytes. 0 for a listener.
    pub send_queue: Option<u32>,
    /// The queue of a listener. `None` for every other socket.
    pub accept_queue: Option<AcceptQueue>,
    /// Inodes of the clients that wait for accept(2).
    pub pending: Vec<u64>,
    /// The file in the file system that the socket was bound to.
    pub file: Option<UnixFile>,
    /// User that created the socket. Linux 5.4.
    pub uid: Option<u32>,
    /// Which directions were shut down.
    pub shutdown: Option<ShutdownState>,
    /// Memory in the kernel.
    pub memory: Option<MemInfo>,
}

impl UnixRow {
    /// A row with what every source of rows gives.
    pub(crate) fn new(kind: SocketKind, state: TcpState, inode: u64) -> UnixRow {
        UnixRow {
            kind,
            state,
            address: UnixAddress::Unnamed,
            inode,
            cookie: None,
            peer: None,
            recv_queue: None,
            send_queue: None,
            accept_queue: None,
            pending: Vec::new(),
            file: None,
            uid: None,
            shutdown: None,
            memory: None,
        }
    }
}

/// A file in the file system.
///
/// # Examples
///
/// ```
/// use std::os::unix::fs::MetadataExt;
/// use sock::{AF_UNIX, SOCK_STREAM, Socket};
/// use sockdiag::{Diag, UnixFilter};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("echo.sock");
/// let sock = Socket::new(AF_UNIX, SOCK_STREAM, 0)?;
/// sock.bind(&path)?;
/// let inode = std::fs::metadata(&path)?.ino();
/// let cookie = Some(sock.cookie()?);
/// let rows = Diag::netlink()?.unix(&UnixFilter::new())?;
/// let row = rows.iter().find(|row| row.cookie == cookie).unwrap();
/// assert_eq!(u64::from(row.file.unwrap().inode), inode & 0xffff_ffff);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct UnixFile {
    /// Number of the device, in the kernel's own form: the major number shifted by 20 bits.
    pub device: u32,
    /// Inode of the file, which is another one than the socket's.
    pub inode: u32,
}

/// Bytes of `struct unix_diag_msg`.
const LENGTH: usize = 16;

// Attributes: linux/unix_diag.h.
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_MEMINFO: u16 = 5;
const UNIX_DIAG_SHUTDOWN: u16 = 6;
const UNIX_DIAG_UID: u16 = 7;

/// Reads a row.
pub(crate) fn parse(payload: &[u8]) -> Result<UnixRow, Malformed> {
    let cut = Malformed("a socket is cut off");
    let (fixed, attributes) = payload.split_at_checked(LENGTH).ok_or(cut)?;
    let word = |at| u32_at(fixed, at).ok_or(cut);
    if i32::from(fixed[0]) != sock::AF_UNIX.as_raw() {
        return Err(Malformed("a socket is of another family"));
    }
    let state = TcpState::from_number(fixed[2]);
    let mut row = UnixRow {
        cookie: Some(u64::from(word(8)?) | u64::from(word(12)?) << 32),
        ..UnixRow::new(i32::from(fixed[1]).into(), state, word(4)?.into())
    };
    for attribute in Attributes::new(attributes) {
        let (kind, value) = attribute?;
        match kind {
            UNIX_DIAG_NAME => row.address = address(value),
            UNIX_DIAG_VFS => {
                let numbers = u32_at(value, 0).zip(u32_at(value, 4));
                row.file = numbers.map(|(inode, device)| UnixFile { device, inode });
            }
            // The peer of a client that was not accepted has no inode.
            UNIX_DIAG_PEER => row.peer = u32_at(value, 0).filter(|inode| *inode != 0).map(u64::from),
            UNIX_DIAG_ICONS => {
                let inodes = value.chunks_exact(4).filter_map(|inode| u32_at(inode, 0));
                row.pending = inodes.filter(|inode| *inode != 0).map(u64::from).collect();
            }
            UNIX_DIAG_RQLEN => {
                (row.recv_queue, row.send_queue) = (u32_at(value, 0), u32_at(value, 4));
            }
            UNIX_DIAG_MEMINFO => row.memory = MemInfo::from_bytes(value),
            UNIX_DIAG_SHUTDOWN => row.shutdown = value.first().map(|bits| ShutdownState::from_bits(*bits)),
            UNIX_DIAG_UID => row.uid = u32_at(value, 0),
            // What the kernel adds, and what this crate does not show.
            _ => {}
        }
    }
    if let (TcpState::Listen, Some(waiting)) = (state, row.recv_queue) {
        row.accept_queue = Some(AcceptQueue { waiting, limit: row.send_queue });
        (row.recv_queue, row.send_queue) = (Some(0), Some(0));
    }
    Ok(row)
}

/// A name as the kernel has it: a path may end with a NUL, an abstract name begins with one.
fn address(name: &[u8]) -> UnixAddress {
    match name {
        [] => UnixAddress::Unnamed,
        [0, name @ ..] => UnixAddress::Abstract(name.into()),
        path => {
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            UnixAddress::Path(PathBuf::from(OsStr::from_bytes(&path[..end])))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::push_attribute;
    use sock::SOCK_STREAM;

    fn fixed(state: u8) -> Vec<u8> {
        let mut bytes = vec![1, 1, state, 0];
        for word in [77_u32, 0x1111_1111, 0x2222_2222] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn every_field_is_read_from_its_place() {
        let mut bytes = fixed(1);
        push_attribute(&mut bytes, UNIX_DIAG_NAME, b"/run/sock\0");
        push_attribute(&mut bytes, UNIX_DIAG_VFS, &words(&[5, 6]));
        push_attribute(&mut bytes, UNIX_DIAG_PEER, &words(&[78]));
        push_attribute(&mut bytes, UNIX_DIAG_RQLEN, &words(&[11, 12]));
        push_attribute(&mut bytes, UNIX_DIAG_MEMINFO, &words(&[0; 9]));
        push_attribute(&mut bytes, UNIX_DIAG_SHUTDOWN, &[1]);
        push_attribute(&mut bytes, UNIX_DIAG_UID, &words(&[1001]));
        push_attribute(&mut bytes, 99, b"from the future");
        let row = parse(&bytes).unwrap();
        assert_eq!((row.kind, row.state), (SOCK_STREAM, TcpState::Established));
        assert_eq!(row.address, UnixAddress::Path("/run/sock".into()));
        assert_eq!((row.inode, row.cookie, row.peer), (77, Some(0x2222_2222_1111_1111), Some(78)));
        assert_eq!((row.recv_queue, row.send_queue, row.accept_queue), (Some(11), Some(12), None));
        assert_eq!(row.file, Some(UnixFile { device: 6, inode: 5 }));
        assert_eq!(row.shutdown, Some(ShutdownState { recv: true, send: false }));
        assert!(row.memory.is_some() && row.uid == Some(1001));
    }

    #[test]
    fn a_listener_has_a_queue_and_pending_clients() {
        let mut bytes = fixed(10);
        push_attribute(&mut bytes, UNIX_DIAG_NAME, b"\0name");
        push_attribute(&mut bytes, UNIX_DIAG_RQLEN, &words(&[2, 5]));
        push_attribute(&mut bytes, UNIX_DIAG_ICONS, &words(&[31, 0, 32]));
        let row = parse(&bytes).unwrap();
        assert_eq!(row.address, UnixAddress::Abstract((*b"name").into()));
        assert_eq!(row.accept_queue, Some(AcceptQueue { waiting: 2, limit: Some(5) }));
        assert_eq!(row.pending, [31, 32]);
    }

    #[test]
    fn values_that_are_too_short_are_left_out() {
        for kind in 1..8 {
            let mut bytes = fixed(1);
            push_attribute(&mut bytes, kind, b"");
            let plain = parse(&fixed(1)).unwrap();
            assert_eq!(parse(&bytes).unwrap(), plain, "{kind}");
        }
        assert!(parse(&fixed(1)[..15]).is_err());
    }
}
