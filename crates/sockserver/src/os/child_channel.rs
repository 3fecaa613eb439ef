//! Messages between a forking server and its children.

#[cfg(unix)]
use std::net::{Ipv6Addr, SocketAddr};
#[cfg(unix)]
use std::{cell::RefCell, io, mem::ManuallyDrop, sync::Arc};

use sock::{Address, Socket};
#[cfg(unix)]
use sock::{MSG_DONTWAIT, MsgFlags, SHUT_WR, socketpair};

#[cfg(unix)]
use crate::os::process::{self, Pid};

/// A message from a child to its parent.
#[cfg(unix)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ChildMessage {
    /// `wrap_request` has returned. It may have named the client's IP address.
    Wrapped(Option<Address>),
    /// The child is about to exit.
    Exiting,
}

/// The channel between a server and all its children. A pair of sockets for each child would be a
/// twentieth of what a child costs.
///
/// A child blocks until there is room for the message that `wrap_request` has returned: without
/// it the parent would kill the child for being late. The message that it exits may be lost, as
/// that of a child that is killed; the parent finds such children with waitpid(2). The parent
/// sends nothing. When it closes its half, or ends, the children read end of file.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct ChildChannel {
    parent_end: Socket,
    child_end: Socket,
}

/// Bytes of a message: the process id (4), the kind (1), the length of the IP address (1), the
/// port (2), the IP address (16).
#[cfg(unix)]
const MESSAGE_SIZE: usize = 24;

#[cfg(unix)]
const KIND_WRAPPED: u8 = 1;
#[cfg(unix)]
const KIND_EXITING: u8 = 2;

#[cfg(unix)]
impl ChildMessage {
    fn encode(&self, pid: Pid) -> [u8; MESSAGE_SIZE] {
        let mut bytes = [0; MESSAGE_SIZE];
        bytes[..4].copy_from_slice(&pid.to_ne_bytes());
        let ChildMessage::Wrapped(client_address) = self else {
            bytes[4] = KIND_EXITING;
            return bytes;
        };
        bytes[4] = KIND_WRAPPED;
        if let Some(client_address) = client_address.as_ref().and_then(Address::to_socket_addr) {
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
            KIND_WRAPPED => Some((pid, ChildMessage::Wrapped(client_address.map(Address::from)))),
            KIND_EXITING => Some((pid, ChildMessage::Exiting)),
            _ => None,
        }
    }
}

#[cfg(unix)]
impl ChildChannel {
    pub(crate) fn new() -> io::Result<ChildChannel> {
        let (parent_end, child_end) = socketpair()?;
        Ok(ChildChannel { parent_end, child_end })
    }

    /// Returns the parent's end, which is readable when there is a message.
    pub(crate) fn parent_end(&self) -> &Socket {
        &self.parent_end
    }

    /// Receives every message that is there.
    pub(crate) fn drain_messages(&self, mut on_message: impl FnMut(Pid, ChildMessage)) {
        // In a child both ends are the children's: see `enter_child`.
        if in_forked_child() {
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
        if in_forked_child() {
            return;
        }
        let _ = self.parent_end.shutdown(SHUT_WR);
    }
}

/// Makes this process a child that serves a single request. Its parent enforces its deadlines
/// and waits for its end.
#[cfg(unix)]
pub(crate) fn enter_child(channel: Arc<ChildChannel>) {
    // With a copy of the parent's end the child would not read end of file when the parent ends.
    // The descriptor's number stays in use, since `channel.parent_end` still has it.
    if let Err(error) = process::replace(&channel.parent_end, &channel.child_end) {
        log::error!("cannot close the parent's end of the child channel: {error}");
    }
    CHANNEL.set(Some(ManuallyDrop::new(channel)));
}

/// Returns whether this process is such a child.
pub(crate) fn in_forked_child() -> bool {
    with_channel(|_| ()).is_some()
}

/// Calls `act` with the child's end of the channel, which reads end of file when the parent
/// closes its half.
pub(crate) fn with_channel<T>(act: impl FnOnce(&Socket) -> T) -> Option<T> {
    #[cfg(unix)]
    return CHANNEL.with_borrow(|channel| channel.as_ref().map(|channel| act(&channel.child_end)));
    #[cfg(not(unix))]
    {
        let _ = act;
        None
    }
}

/// In a child, sends that `wrap_request` has returned, and the client address that it named.
pub(crate) fn send_wrapped(client_address: Option<&Address>) {
    #[cfg(unix)]
    if in_forked_child() {
        send(&ChildMessage::Wrapped(client_address.cloned()));
    }
    #[cfg(not(unix))]
    let _ = client_address;
}

/// In a child, sends a message to the parent.
#[cfg(unix)]
pub(crate) fn send(message: &ChildMessage) {
    with_channel(|socket| {
        let bytes = message.encode(std::process::id() as Pid);
        let flags = if *message == ChildMessage::Exiting { MSG_DONTWAIT } else { MsgFlags::NONE };
        let _ = socket.send_with_flags(&bytes, flags);
    });
}

#[cfg(unix)]
thread_local! {
    /// Of a forked child's only worker. Open until the process ends.
    static CHANNEL: RefCell<Option<ManuallyDrop<Arc<ChildChannel>>>> = const { RefCell::new(None) };
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
            CHANNEL.set(Some(ManuallyDrop::new(Arc::new(channel))));
            send(&message);
            drop(CHANNEL.take().map(ManuallyDrop::into_inner));
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
            ChildMessage::Exiting,
        ];
        let sent: Vec<_> = sent.iter().cycle().take(160).cloned().collect();
        sent.iter().for_each(|message| send_from_child(&channel, message));
        let own = std::process::id() as Pid;
        assert_eq!(received(&channel), sent.into_iter().map(|message| (own, message)).collect::<Vec<_>>());
        assert_eq!(received(&channel), []);
    }

    #[test]
    fn a_child_that_exits_does_not_wait_for_room() {
        let channel = ChildChannel::new().unwrap();
        (0..2000).for_each(|_| send_from_child(&channel, &ChildMessage::Exiting));
        let received = received(&channel);
        assert!((100..2000).contains(&received.len()), "{} messages fit", received.len());
        assert!(received.iter().all(|(_, message)| *message == ChildMessage::Exiting));
    }

    #[test]
    fn a_message_whose_loss_would_end_the_child_waits_for_room() {
        let channel = ChildChannel::new().unwrap();
        (0..2000).for_each(|_| send_from_child(&channel, &ChildMessage::Exiting));
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
        send_from_child(&channel, &ChildMessage::Exiting);
        assert_eq!(received(&channel).len(), 1);
    }
}
