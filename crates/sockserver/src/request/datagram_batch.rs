//! Batches of datagrams: received with one system call, and answered with one.

use std::io;

use sock::{Address, Socket};

use crate::os::batch::{self, RecvBatch};
use crate::request::RequestError;
use crate::request::hooks::{ServerHooks, call_handle_error};

/// Receives datagrams, one or several at a time.
pub(crate) struct DatagramReceiver {
    buffer: Vec<u8>,
    /// The datagram in `buffer`.
    len: usize,
    client_address: Option<Address>,
    /// Used instead of `buffer` if more than one datagram may be received at a time.
    batch: Option<RecvBatch>,
}

impl DatagramReceiver {
    pub(crate) fn new(max_packet_size: usize, max_batch: usize) -> io::Result<DatagramReceiver> {
        // One byte more shows that a datagram was longer.
        let size = max_packet_size.saturating_add(1);
        Ok(DatagramReceiver {
            batch: batch::new(max_batch, size)?,
            buffer: vec![0; size],
            len: 0,
            client_address: None,
        })
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

    /// Returns a datagram and its sender.
    pub(crate) fn get(&mut self, index: usize) -> Option<(&[u8], Address)> {
        if let Some(batch) = &self.batch {
            return batch::get(batch, index);
        }
        debug_assert_eq!(index, 0);
        Some((&self.buffer[..self.len], self.client_address.take()?))
    }
}

/// The answers to a batch of datagrams.
#[derive(Default)]
pub(crate) struct AnswerBatch(Vec<(Vec<u8>, Address)>);

impl AnswerBatch {
    pub(crate) fn push(&mut self, answer: Vec<u8>, client_address: &Address) {
        self.0.push((answer, client_address.clone()));
    }

    /// Sends the answers and forgets them. An answer that cannot be sent is reported to
    /// `handle_error`, and the others are sent.
    pub(crate) fn send(&mut self, socket: &Socket, hooks: &dyn ServerHooks) {
        let mut rest = &self.0[..];
        while !rest.is_empty() {
            let (sent, error) = batch::send(socket, rest);
            rest = &rest[sent..];
            let Some((_, client_address)) = rest.first() else { break };
            let error = RequestError::Failed(error.unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
            call_handle_error(hooks, &error, client_address);
            rest = &rest[1..];
        }
        self.0.clear();
    }
}
