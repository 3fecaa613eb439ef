//! Received datagrams, and the answers to a batch of them.

use std::io;

use sock::{Address, Socket};

use crate::os::batch::{self, PacketInfo, RecvBatch};
use crate::request::RequestError;
use crate::request::datagram_handler::answer_error;
use crate::request::hooks::{ServerHooks, call_handle_error};

/// Receives datagrams, one or several at a time.
pub(crate) struct DatagramReceiver {
    buffer: Vec<u8>,
    /// The datagram in `buffer`.
    len: usize,
    client_address: Option<Address>,
    /// Used instead of `buffer` if more than one datagram may be received at a time, or if the
    /// address that a datagram was sent to is needed.
    batch: Option<RecvBatch>,
}

/// A received datagram, its sender, and the address that it was sent to if the server listens on
/// all addresses.
pub(crate) struct Received<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) client_address: Address,
    pub(crate) info: Option<PacketInfo>,
}

impl DatagramReceiver {
    /// `packet_info` says whether a listener has requested the address of each datagram.
    pub(crate) fn new(
        max_packet_size: usize,
        max_batch: usize,
        packet_info: bool,
    ) -> io::Result<DatagramReceiver> {
        // One byte more shows that a datagram was longer.
        let size = max_packet_size.saturating_add(1);
        let batch = batch::new(max_batch, size, packet_info)?;
        let buffer = if batch.is_some() { Vec::new() } else { vec![0; size] };
        Ok(DatagramReceiver { batch, buffer, len: 0, client_address: None })
    }

    /// Receives datagrams in place of the last ones, without waiting.
    pub(crate) fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        if let Some(batch) = &mut self.batch {
            return batch::receive(socket, batch);
        }
        let (len, client_address) = socket.recvfrom_into_nowait(&mut self.buffer)?;
        (self.len, self.client_address) = (len, Some(client_address));
        Ok(())
    }

    /// Returns how many datagrams were received.
    pub(crate) fn len(&self) -> usize {
        if let Some(batch) = &self.batch {
            return batch.len();
        }
        1
    }

    /// Returns a datagram.
    pub(crate) fn get(&mut self, index: usize) -> Option<Received<'_>> {
        if let Some(batch) = &self.batch {
            let (data, client_address, info) = batch::get(batch, index)?;
            return Some(Received { data, client_address, info });
        }
        debug_assert_eq!(index, 0);
        let client_address = self.client_address.take()?;
        Some(Received { data: &self.buffer[..self.len], client_address, info: None })
    }
}

/// The answers to a batch of datagrams: each with its receiver, and the address to send it from.
#[derive(Default)]
pub(crate) struct AnswerBatch(Vec<(Vec<u8>, Address, Option<PacketInfo>)>);

impl AnswerBatch {
    pub(crate) fn push(&mut self, answer: Vec<u8>, client_address: &Address, info: Option<&PacketInfo>) {
        self.0.push((answer, client_address.clone(), info.and_then(batch::for_reply)));
    }

    /// Sends the answers and forgets them. An answer that cannot be sent is reported to
    /// `handle_error`, and the others are sent.
    pub(crate) fn send(&mut self, socket: &Socket, hooks: &dyn ServerHooks) {
        let mut rest = &mut self.0[..];
        while !rest.is_empty() {
            let (sent, error) = batch::send(socket, rest);
            rest = &mut rest[sent..];
            let Some((_, client_address, from)) = rest.first_mut() else { break };
            let error = error.unwrap_or_else(|| io::ErrorKind::WriteZero.into());
            if from.is_some() && batch::is_source_refused(&error) {
                *from = None;
                continue;
            }
            let error = RequestError::Failed(answer_error(error, client_address));
            call_handle_error(hooks, &error, client_address);
            rest = &mut rest[1..];
        }
        self.0.clear();
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use sock::{AF_INET, SOCK_DGRAM};

    use super::*;
    use crate::request::hooks::Defaults;

    /// An address that was removed after the datagram arrived. 192.0.2.0/24 is for documentation
    /// (RFC 5737).
    #[test]
    fn an_answer_is_sent_from_another_address_if_the_system_refuses_the_first() {
        let [server, client] = [(); 2].map(|()| {
            let socket = Socket::new(AF_INET, SOCK_DGRAM, 0).unwrap();
            socket.bind(("127.0.0.1", 0)).unwrap();
            socket.settimeout(Duration::from_secs(10)).unwrap();
            socket
        });
        let to = client.getsockname().unwrap();
        let removed = PacketInfo::from_address(Ipv4Addr::new(192, 0, 2, 1));
        let here = PacketInfo::from_address(Ipv4Addr::new(127, 0, 0, 1));
        batch::send_from(&server, b"one", &to, Some(&removed)).unwrap();
        let mut answers = AnswerBatch::default();
        for (text, info) in [("two", Some(&here)), ("three", Some(&removed)), ("four", None)] {
            answers.push(text.into(), &to, info);
        }
        answers.send(&server, &Defaults);
        for text in ["one", "two", "three", "four"] {
            assert_eq!(client.recv(100).unwrap(), text.as_bytes());
        }
    }
}
