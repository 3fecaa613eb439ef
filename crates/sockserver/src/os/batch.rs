//! Several datagrams with one system call.

use std::io;

use sock::{Address, MSG_DONTWAIT, Socket};

pub(crate) use sock::RecvBatch;

/// Makes room for `count` datagrams of `size` bytes. `None` for a single one.
pub(crate) fn new(count: usize, size: usize) -> io::Result<Option<RecvBatch>> {
    if count > 1 { RecvBatch::new(count, size).map(Some) } else { Ok(None) }
}

/// Receives datagrams in place of the last ones, without waiting.
pub(crate) fn receive(socket: &Socket, batch: &mut RecvBatch) -> io::Result<()> {
    socket.recvmmsg_with_flags(batch, MSG_DONTWAIT).map(drop)
}

/// Returns a datagram and its sender.
pub(crate) fn get(batch: &RecvBatch, index: usize) -> Option<(&[u8], Address)> {
    batch.get(index).map(|datagram| (datagram.data(), datagram.address()))
}

/// Sends answers. Returns how many were sent, and the error of the next one.
pub(crate) fn send(socket: &Socket, answers: &[(Vec<u8>, Address)]) -> (usize, Option<io::Error>) {
    match socket.sendmmsg(answers) {
        Ok(sent) => (sent.count, sent.error),
        Err(error) => (0, Some(error)),
    }
}
