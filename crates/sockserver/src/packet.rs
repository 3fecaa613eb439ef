//! A datagram on its way to its handler.

use std::cell::Cell;
use std::io;

use sock::Address;

/// A datagram that was received, in a buffer that the thread that serves it gets back.
pub(crate) struct Packet {
    /// As long as any has needed it.
    buffer: Vec<u8>,
    len: usize,
}

impl Packet {
    /// The first `size` bytes of what `receive` puts there, which tells how much that is,
    /// and from whom.
    pub(crate) fn receive(
        size: usize,
        receive: impl FnOnce(&mut [u8]) -> io::Result<(usize, Address)>,
    ) -> io::Result<(Packet, Address)> {
        let mut packet = Packet { buffer: SPARE.take(), len: 0 };
        if packet.buffer.len() < size {
            packet.buffer.resize(size, 0);
        }
        let (len, address) = receive(&mut packet.buffer[..size])?;
        packet.len = len;
        Ok((packet, address))
    }

    pub(crate) fn data(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        SPARE.set(std::mem::take(&mut self.buffer));
    }
}

thread_local! {
    /// Where the next datagram is received.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}
