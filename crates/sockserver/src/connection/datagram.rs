//! A datagram on its way to its handler.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use sock::{Address, Socket};

/// A datagram that was received, in a buffer that the thread that serves it gets back.
pub(crate) struct DatagramBuf(Option<Box<Received>>);

#[derive(Default)]
struct Received {
    /// As long as any has needed it.
    buffer: Vec<u8>,
    len: usize,
    is_truncated: bool,
    /// The one it came through; the server's.
    socket: Option<Arc<Socket>>,
}

impl DatagramBuf {
    /// The first `size` bytes of what `receive` puts there, which tells how much that is,
    /// and from whom.
    pub(crate) fn receive(
        size: usize,
        receive: impl FnOnce(&mut [u8]) -> io::Result<(usize, Address)>,
    ) -> io::Result<(DatagramBuf, Address)> {
        let mut received = SPARE.take().unwrap_or_default();
        if received.buffer.len() < size {
            received.buffer.resize(size, 0);
        }
        let told = receive(&mut received.buffer[..size]);
        received.len = told.as_ref().map_or(0, |(len, _)| *len);
        let packet = DatagramBuf(Some(received));
        told.map(|(_, address)| (packet, address))
    }

    /// Cuts it at `most` bytes.
    pub(crate) fn truncate(&mut self, most: usize) {
        if let Some(received) = &mut self.0 {
            received.is_truncated = received.len > most;
            received.len = received.len.min(most);
        }
    }

    /// Notes the socket it came through.
    pub(crate) fn set_socket(&mut self, socket: &Arc<Socket>) {
        if let Some(received) = &mut self.0 {
            received.socket = Some(Arc::clone(socket));
        }
    }

    fn received(&self) -> &Received {
        self.0.as_ref().expect("it is taken out when it is dropped")
    }

    pub(crate) fn data(&self) -> &[u8] {
        let received = self.received();
        &received.buffer[..received.len]
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.received().is_truncated
    }

    pub(crate) fn socket(&self) -> &Socket {
        self.received().socket.as_ref().expect("every datagram comes through one")
    }
}

impl Drop for DatagramBuf {
    fn drop(&mut self) {
        if let Some(received) = &mut self.0 {
            // It may be the last to hold it.
            received.socket = None;
        }
        SPARE.set(self.0.take());
    }
}

thread_local! {
    /// Where the next datagram is received.
    static SPARE: Cell<Option<Box<Received>>> = const { Cell::new(None) };
}
