//! Stands in for `batch.rs` on systems without recvmmsg(2) and sendmmsg(2).

use std::io;

use sock::{Address, Socket};

/// Room for several datagrams. No value exists.
pub(crate) enum RecvBatch {}

impl RecvBatch {
    pub(crate) fn len(&self) -> usize {
        match *self {}
    }
}

/// Datagrams are received one at a time.
pub(crate) fn new(_count: usize, _size: usize) -> io::Result<Option<RecvBatch>> {
    Ok(None)
}

pub(crate) fn receive(_socket: &Socket, batch: &mut RecvBatch) -> io::Result<()> {
    match *batch {}
}

pub(crate) fn get(batch: &RecvBatch, _index: usize) -> Option<(&[u8], Address)> {
    match *batch {}
}

/// Sends answers one at a time. Returns how many were sent, and the error of the next one.
pub(crate) fn send(socket: &Socket, answers: &[(Vec<u8>, Address)]) -> (usize, Option<io::Error>) {
    for (count, (answer, client_address)) in answers.iter().enumerate() {
        if let Err(error) = socket.sendto(answer, client_address) {
            return (count, Some(error));
        }
    }
    (answers.len(), None)
}
