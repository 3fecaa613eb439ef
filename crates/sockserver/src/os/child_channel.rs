//! Messages between a forking server and its children.

#[cfg(unix)]
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
#[cfg(unix)]
use std::{cell::RefCell, io, mem::ManuallyDrop};

use sock::{Address, Socket};
#[cfg(unix)]
use sock::{MSG_DONTWAIT, MsgFlags, SHUT_WR};

#[cfg(unix)]
use crate::os::log::errno_field;
#[cfg(unix)]
use crate::os::pair::pair;
use crate::os::process::{self, Pid};
#[cfg(unix)]
use crate::os::shortage;

/// A message from a child to its parent.
#[cfg(unix)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChildMessage {
    /// The PROXY protocol header was received. It may have named the client's IP address.
    Proxied(Option<Address>),
    /// `wrap_request` has returned. It may have named the client's IP address.
    Wrapped(Option<Address>),
    /// The child is about to exit with this status.
    Exiting(u8),
}

/// The channel between a server and all its children. A pair of sockets for each child would be a
/// twentieth of what a child costs.
///
/// A child blocks until there is room for the messages that the PROXY protocol header was received
/// and that `wrap_request` has returned: without them the parent would kill the child for being
/// late. The message that it exits may be lost, as that of a child that is killed; the parent
/// finds such children with waitpid(2). The parent sends nothing. When it closes its half, or
/// ends, the children read end of file.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct ChildChannel {
    parent_end: Socket,
    child_end: Socket,
}

/// Bytes of a message: the process id (4), the kind (1), the length of the IP address or the exit
/// status (1), the port (2), the IP address (16).
#[cfg(unix)]
const MESSAGE_SIZE: usize = 24;

#[cfg(unix)]
const KIND_WRAPPED: u8 = 1;
#[cfg(unix)]
const KIND_EXITING: u8 = 2;
#[cfg(unix)]
const KIND_PROXIED: u8 = 3;

#[cfg(unix)]
impl ChildMessage {
    fn encode(&self, pid: Pid) -> [u8; MESSAGE_SIZE] {
        let mut bytes = [0; MESSAGE_SIZE];
        bytes[..4].copy_from_slice(&pid.to_ne_bytes());
        let (kind, client_address) = match self {
            ChildMessage::Proxied(client_address) => (KIND_PROXIED, client_address.as_ref()),
            ChildMessage::Wrapped(client_address) => (KIND_WRAPPED, client_address.as_ref()),
            ChildMessage::Exiting(status) => {
                bytes[5] = *status;
                (KIND_EXITING, None)
            }
        };
        bytes[4] = kind;
        if let Some(client_address) = client_address.and_then(Address::to_socket_addr) {
            let ip = match client_address {
                SocketAddr::V4(address) => address.ip().to_ipv6_mapped(),
                SocketAddr::V6(address) => *address.ip(),
            };
            bytes[5] = if client_address.is_ipv4() { 4 } else { 16 };
            bytes[6..8].copy_from_slice(&client_address.port().to_ne_bytes());
            bytes[8..].copy_from_slice(&ip.octets());
        }
        bytes
    }

    fn decode(bytes: &[u8; MESSAGE_SIZE]) -> Option<(Pid, ChildMessage)> {
        let [a, b, c, d, kind, ip_len, port_0, port_1, ip @ ..] = *bytes;
        let pid = Pid::from_ne_bytes([a, b, c, d]);
        let ip = Ipv6Addr::from(ip);
        let port = u16::from_ne_bytes([port_0, port_1]);
        let client_address = match ip_len {
            4 => ip.to_ipv4_mapped().map(|ip| SocketAddr::from((ip, port))),
            16 => Some(SocketAddr::from((ip, port))),
            _ => None,
        };
        match kind {
            KIND_PROXIED => Some((pid, ChildMessage::Proxied(client_address.map(Address::from)))),
            KIND_WRAPPED => Some((pid, ChildMessage::Wrapped(client_address.map(Address::from)))),
            KIND_EXITING => Some((pid, ChildMessage::Exiting(ip_len))),
            _ => None,
        }
    }
}

#[cfg(unix)]
impl ChildChannel {
    pub(crate) fn new() -> io::Result<ChildChannel> {
        let (parent_end, child_end) = pair()?;
        Ok(ChildChannel { parent_end, child_end })
    }

    /// Returns the parent's end, which is readable when there is a message.
    pub(crate) fn parent_end(&self) -> &Socket {
        &self.parent_end
    }

    /// Receives every message that is there.
    pub(crate) fn drain_messages(&self, mut on_message: impl FnMut(Pid, ChildMessage)) {
        // In a child both ends are the children's: see `enter_child`.
        if self.is_of_a_parent() {
            return;
        }
        let mut buffer = [0; 64 * MESSAGE_SIZE];
        while let Ok(received) = self.parent_end.recv_into_with_flags(&mut buffer, MSG_DONTWAIT) {
            for bytes in buffer[..received].chunks_exact(MESSAGE_SIZE) {
                let message = bytes.try_into().ok().and_then(ChildMessage::decode);
                if let Some((pid, message)) = message {
                    on_message(pid, message);
                }
            }
            if received < buffer.len() {
                return;
            }
        }
    }

    /// Closes the parent's half: the children read end of file.
    pub(crate) fn close_for_children(&self) {
        if self.is_of_a_parent() {
            return;
        }
        // It cannot fail for a connected pair that is open.
        let _ = self.parent_end.shutdown(SHUT_WR);
    }

    /// Returns whether this process is a child of the server of this channel. It may have a server of
    /// its own, with another channel.
    fn is_of_a_parent(&self) -> bool {
        CHANNEL
            .with_borrow(|child| child.as_ref().is_some_and(|child| std::ptr::eq(&**child.channel, self)))
    }
}

/// Identifies a server in a process and in the children that it forks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerId(usize);

impl ServerId {
    /// Returns the identity of the server that owns `shared`.
    pub(crate) fn of<T>(shared: &Arc<T>) -> ServerId {
        ServerId(Arc::as_ptr(shared).addr())
    }
}

/// Makes this process a child that serves a single request of `server`. Its parent enforces its
/// deadlines and waits for its end. A server that the request serves itself is not concerned.
#[cfg(unix)]
pub(crate) fn enter_child(channel: Arc<ChildChannel>, server: ServerId) {
    // With a copy of the parent's end the child would not read end of file when the parent ends.
    // The descriptor's number stays in use, since `channel.parent_end` still has it.
    // SAFETY: a child uses the parent's end nowhere: `drain_messages` and `close_for_children`
    // return at once.
    if let Err(error) = unsafe { process::replace(&channel.parent_end, &channel.child_end) } {
        log::error!(
            errno = errno_field(&error);
            "cannot close the parent's end of the child channel: {error}"
        );
    }
    CHANNEL.set(Some(Child { channel: ManuallyDrop::new(channel), server }));
}

/// Returns whether this process is such a child of `server`.
pub(crate) fn is_child_of(server: ServerId) -> bool {
    with_channel(server, |_| ()).is_some()
}

/// Calls `act` with the end of the channel that a child of `server` has, which reads end of file when
/// the parent closes its half.
pub(crate) fn with_channel<T>(server: ServerId, act: impl FnOnce(&Socket) -> T) -> Option<T> {
    #[cfg(unix)]
    return CHANNEL.with_borrow(|child| {
        let child = child.as_ref().filter(|child| child.server == server)?;
        Some(act(&child.channel.child_end))
    });
    #[cfg(not(unix))]
    {
        let _ = (server, act);
        None
    }
}

/// In a child of `server`, sends that `wrap_request` has returned, and the client address that it
/// named.
pub(crate) fn send_wrapped(server: ServerId, client_address: Option<&Address>) {
    #[cfg(unix)]
    if is_child_of(server) {
        send(server, &ChildMessage::Wrapped(client_address.cloned()));
    }
    #[cfg(not(unix))]
    let _ = (server, client_address);
}

/// In a child of `server`, sends that the PROXY protocol header was received, and the client address that it
/// named.
pub(crate) fn send_proxied(server: ServerId, client_address: Option<&Address>) {
    #[cfg(unix)]
    if is_child_of(server) {
        send(server, &ChildMessage::Proxied(client_address.cloned()));
    }
    #[cfg(not(unix))]
    let _ = (server, client_address);
}

/// In a child of `server`, sends a message to the parent.
#[cfg(unix)]
pub(crate) fn send(server: ServerId, message: &ChildMessage) {
    with_channel(server, |socket| {
        let bytes = message.encode(std::process::id() as Pid);
        let may_be_lost = matches!(message, ChildMessage::Exiting(_));
        let flags = if may_be_lost { MSG_DONTWAIT } else { MsgFlags::NONE };
        // It fails if the parent has closed its end, or for `Exiting` if there is no room. The parent
        // also finds a child that has exited with waitpid(2).
        let _ = shortage::retry(|| socket.send_with_flags(&bytes, flags));
    });
}

/// What a forked child has of its parent's server.
#[cfg(unix)]
struct Child {
    /// Open until the process ends.
    channel: ManuallyDrop<Arc<ChildChannel>>,
    server: ServerId,
}

#[cfg(unix)]
thread_local! {
    /// Of a forked child's only worker.
    static CHANNEL: RefCell<Option<Child>> = const { RefCell::new(None) };
}

#[cfg(all(test, unix))]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Sends from a thread of its own, which stands for a child. The receiver gets a value once
    /// the message is sent.
    fn start_sending(
        channel: &ChildChannel,
        message: &ChildMessage,
    ) -> (thread::JoinHandle<()>, mpsc::Receiver<()>) {
        let channel = ChildChannel {
            parent_end: channel.parent_end.dup().unwrap(),
            child_end: channel.child_end.dup().unwrap(),
        };
        let message = message.clone();
        let (notify, sent) = mpsc::channel();
        let child = thread::spawn(move || {
            let channel = Arc::new(channel);
            let server = ServerId::of(&channel);
            CHANNEL.set(Some(Child { channel: ManuallyDrop::new(channel), server }));
            send(server, &message);
            drop(CHANNEL.take().map(|child| ManuallyDrop::into_inner(child.channel)));
            notify.send(()).unwrap();
        });
        (child, sent)
    }

    fn send_from_child(channel: &ChildChannel, message: &ChildMessage) {
        let (child, _sent) = start_sending(channel, message);
        child.join().unwrap();
    }

    fn received(channel: &ChildChannel) -> Vec<(Pid, ChildMessage)> {
        let mut messages = Vec::new();
        channel.drain_messages(|pid, message| messages.push((pid, message)));
        messages
    }

    #[test]
    fn every_message_is_received_once() {
        let channel = ChildChannel::new().unwrap();
        let address = |text: &str| Some(Address::from(text.parse::<SocketAddr>().unwrap()));
        let sent = [
            ChildMessage::Wrapped(None),
            ChildMessage::Wrapped(address("192.0.2.1:80")),
            ChildMessage::Wrapped(address("[2001:db8::1]:65535")),
            ChildMessage::Proxied(None),
            ChildMessage::Proxied(address("192.0.2.7:443")),
            ChildMessage::Exiting(75),
        ];
        let sent: Vec<_> = sent.iter().cycle().take(168).cloned().collect();
        sent.iter().for_each(|message| send_from_child(&channel, message));
        let own = std::process::id() as Pid;
        assert_eq!(received(&channel), sent.into_iter().map(|message| (own, message)).collect::<Vec<_>>());
        assert_eq!(received(&channel), []);
    }

    #[test]
    fn a_child_that_exits_does_not_wait_for_room() {
        let channel = ChildChannel::new().unwrap();
        (0..2000).for_each(|_| send_from_child(&channel, &ChildMessage::Exiting(75)));
        let received = received(&channel);
        assert!((100..2000).contains(&received.len()), "{} messages fit", received.len());
        assert!(received.iter().all(|(_, message)| *message == ChildMessage::Exiting(75)));
    }

    #[test]
    fn a_message_whose_loss_would_end_the_child_waits_for_room() {
        let channel = ChildChannel::new().unwrap();
        (0..2000).for_each(|_| send_from_child(&channel, &ChildMessage::Exiting(75)));
        let (child, sent) = start_sending(&channel, &ChildMessage::Wrapped(None));
        let early = sent.recv_timeout(Duration::from_millis(100));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout), "there is no room");
        let mut messages = received(&channel);
        child.join().unwrap();
        messages.extend(received(&channel));
        assert_eq!(messages.pop().map(|(_, message)| message), Some(ChildMessage::Wrapped(None)));
    }

    #[test]
    fn children_read_end_of_file_and_can_still_send() {
        let channel = ChildChannel::new().unwrap();
        channel.close_for_children();
        assert_eq!(channel.child_end.recv(1).unwrap(), b"");
        send_from_child(&channel, &ChildMessage::Exiting(75));
        assert_eq!(received(&channel).len(), 1);
    }

    #[test]
    fn a_server_of_a_child_has_a_channel_of_its_own() {
        let outer = Arc::new(ChildChannel::new().unwrap());
        let inner = Arc::new(ChildChannel::new().unwrap());
        let (outer_id, inner_id) = (ServerId::of(&outer), ServerId::of(&inner));
        let child = Child { channel: ManuallyDrop::new(Arc::clone(&outer)), server: outer_id };
        CHANNEL.set(Some(child));
        assert!(is_child_of(outer_id) && !is_child_of(inner_id));
        // A request of the inner server, which this process serves itself.
        send_wrapped(inner_id, None);
        send_from_child(&inner, &ChildMessage::Exiting(75));
        assert_eq!(received(&inner).len(), 1);
        inner.close_for_children();
        assert_eq!(inner.child_end.recv(1).unwrap(), b"");
        drop(CHANNEL.take().map(|child| ManuallyDrop::into_inner(child.channel)));
        assert_eq!(received(&outer), [], "the parent has a message of another server");
    }
}
