//! Hints at the calls of a socket. See `call/hint.rs`.
//!
//! All of this runs only while the log level of the target is enabled.

use std::io;
use std::path::Path;

use crate::address::{Address, UnixAddress};
use crate::call::hint::{self, Hint};
use crate::consts::{AF_UNIX, IPPROTO_TCP, MSG_PEEK, MSG_TRUNC, MsgFlags, SOCK_DGRAM, SOCK_STREAM};
use crate::socket::Socket;
#[cfg(target_os = "linux")]
use crate::socket::holder::{self, Held};
use crate::socket::tcp_info::{TcpInfo, TcpState, parse};
use crate::sys::{self, AsFd, AsRawFd, RawFd, queue_len};

impl Socket {
    /// The flags with which a receive of a datagram returns its real length, or `None` if the caller
    /// asks for it, and on systems other than Linux.
    pub(super) fn length_flags(&self, flags: MsgFlags) -> Option<i32> {
        let is_asked = hint::enabled()
            && cfg!(target_os = "linux")
            && self.kind() == SOCK_DGRAM
            && !flags.contains(MSG_TRUNC)
            && !flags.contains(MSG_PEEK);
        is_asked.then_some((flags | MSG_TRUNC).as_raw())
    }

    /// After a receive of `length` bytes into a buffer of `size`.
    pub(super) fn hint_received(&self, name: &str, size: usize, length: usize, flags: MsgFlags) {
        if !hint::enabled() || flags.contains(MSG_PEEK) || size == 0 {
            return;
        }
        match self.kind() {
            SOCK_STREAM => hint::received(self.fileno(), length),
            SOCK_DGRAM if length > size && !flags.contains(MSG_TRUNC) => {
                self.hint_truncated(name, size, Some(length));
            }
            _ => {}
        }
    }

    /// After a receive that returned its flags.
    #[cfg(unix)]
    pub(super) fn hint_message(&self, name: &str, size: usize, received: usize, flags: MsgFlags) {
        if !hint::enabled() || size == 0 {
            return;
        }
        match self.kind() {
            SOCK_STREAM => hint::received(self.fileno(), received),
            SOCK_DGRAM if flags.contains(MSG_TRUNC) => self.hint_truncated(name, size, None),
            _ => {}
        }
    }

    fn hint_truncated(&self, name: &str, size: usize, length: Option<usize>) {
        let fd = self.fileno();
        let length = length.map_or_else(|| "more".to_owned(), |length| length.to_string());
        Hint::Truncated.log(
            Some(fd),
            format_args!(
                "{name}({fd}) returned {size} bytes of a datagram that had {length}, and the rest is \
                 discarded; pass a buffer for the longest datagram"
            ),
        );
    }

    /// Continues after a send of `sent` bytes, as [`send_rest`](Socket::send_rest).
    #[cold]
    pub(super) fn send_rest_or_hint<'a>(
        &self,
        pieces: impl IntoIterator<Item = &'a [u8]> + Clone,
        sent: usize,
        flags: MsgFlags,
    ) -> usize {
        let sent = self.send_rest(pieces.clone(), sent, flags);
        let all = pieces.into_iter().map(<[u8]>::len).sum();
        if sent < all && self.kind() == SOCK_STREAM && hint::enabled() {
            hint::sent_a_part(self.fileno(), sent, all);
        }
        sent
    }

    /// After a bind or a listen that failed because the address is in use.
    #[cold]
    pub(super) fn hint_in_use(&self, call: &str, address: &Address) {
        let fd = self.fileno();
        if let Address::Unix(UnixAddress::Path(path)) = address {
            return hint_path_in_use(fd, path);
        }
        #[cfg(target_os = "linux")]
        if let Some(wanted) = address.to_socket_addr() {
            let (hint, text) = match holder::of_port(wanted, self.kind() == SOCK_DGRAM) {
                Held::TimeWait { count, longest } => (
                    Hint::PortInTimeWait,
                    format!(
                        "{count} closed connection(s) in TIME-WAIT hold the port for {} s more; set SO_REUSEADDR \
                         before bind, in this run of the program and in the one before",
                        longest.as_secs_f64().ceil()
                    ),
                ),
                Held::Socket { state, owner } => {
                    (Hint::PortHeld, format!("{owner} holds the port with a socket in state {state}"))
                }
                Held::Unknown => (
                    Hint::PortHeld,
                    "a socket holds the port that is bound, and neither listens nor is connected"
                        .to_owned(),
                ),
            };
            return hint.log(Some(fd), format_args!("{call}({fd}, {address}) failed: {text}"));
        }
        Hint::PortHeld.log(
            Some(fd),
            format_args!(
                "{call}({fd}, {address}) failed: another socket holds the address; netstat lists it"
            ),
        );
    }

    /// After a connect to a Unix socket that failed.
    #[cold]
    pub(super) fn hint_unix_connect(&self, address: &Address, error: &io::Error) {
        let fd = self.fileno();
        if sys::queue_is_full(self.family().as_raw(), error) {
            return Hint::BacklogFull.log(
                Some(fd),
                format_args!(
                    "connect({fd}, {address}): the queue of the listener is full; it has to accept faster, or \
                     to pass a larger backlog to listen"
                ),
            );
        }
        let Address::Unix(UnixAddress::Path(path)) = address else { return };
        if error.kind() == io::ErrorKind::ConnectionRefused {
            let path = path.display();
            Hint::StalePath.log(
                Some(fd),
                format_args!(
                    "connect({fd}, {path:?}) was refused: the file exists, and no socket listens on it; the server \
                     is not running, or has not called listen",
                    path = path.to_string()
                ),
            );
        }
    }

    /// Before an accept.
    #[cold]
    pub(super) fn hint_queued(&self) {
        let Some(info) = tcp_info(self.inner()) else { return };
        if let (Some(waiting), Some(backlog)) = (info.accept_queue, info.backlog) {
            hint::queued(self.fileno(), waiting, backlog);
        }
    }

    /// Before the descriptor is closed.
    #[cold]
    pub(super) fn hint_closing(&self, inner: &socket2::Socket) {
        let fd = inner.as_raw_fd();
        hint::forget(fd);
        if self.kind() != SOCK_STREAM {
            return;
        }
        let unread = match queue_len::received(inner.as_fd()) {
            Ok(unread) if unread > 0 => unread,
            // A listener has no such queue.
            _ => return,
        };
        // The peer of a TCP connection has reset it already. The two ends of a socketpair, which have no
        // names, are usually in one program, and a wake-up byte that is left over is no mistake.
        let is_over = match self.family() {
            AF_UNIX => !has_name(inner.local_addr()) && !has_name(inner.peer_addr()),
            _ => tcp_info(inner).is_some_and(|info| info.state == TcpState::Close),
        };
        #[cfg(target_os = "linux")]
        let is_over = is_over || holder::is_shared(fd);
        if !is_over {
            Hint::UnreadBytes.log(
                Some(fd),
                format_args!(
                    "close({fd}) with {unread} bytes that were not received; the system sends a reset instead of \
                     the end of file, and what the peer has not received yet is lost; receive until the end \
                     of file before close"
                ),
            );
        }
    }
}

fn has_name(address: io::Result<socket2::SockAddr>) -> bool {
    address.is_ok_and(|address| Address::from_sys(&address) != Address::Unix(UnixAddress::Unnamed))
}

/// TCP_INFO, without a record of the call.
fn tcp_info(inner: &socket2::Socket) -> Option<TcpInfo> {
    let mut bytes = [0; 1024];
    let length = sys::getsockopt(inner.as_fd(), IPPROTO_TCP, sys::TCP_INFO_OPTION?, &mut bytes).ok()?;
    parse(bytes.get(..length)?)
}

fn hint_path_in_use(fd: RawFd, path: &Path) {
    let shown = path.display().to_string();
    #[cfg(target_os = "linux")]
    if let Some(owner) = holder::of_path(path) {
        return Hint::PathHeld
            .log(Some(fd), format_args!("bind({fd}, {shown:?}) failed: {owner} holds the path"));
    }
    let is_socket = cfg!(target_os = "linux") && is_socket_file(path);
    let text = if is_socket {
        "the file is left from a socket that is closed, because close does not remove it; remove the file \
         before bind"
    } else {
        "the file exists; bind makes a new file, so choose another path or remove the file"
    };
    Hint::StalePath.log(Some(fd), format_args!("bind({fd}, {shown:?}) failed: {text}"));
}

#[cfg(unix)]
fn is_socket_file(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

#[cfg(not(unix))]
fn is_socket_file(_path: &Path) -> bool {
    false
}
